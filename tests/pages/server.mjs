// Serves rendered pages with the fields that the broker sends, and plays everyone else in a sign-in: the provider, and
// clients with redirect URIs of each kind.

import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'

const FIELDS = {
  'Cache-Control': 'no-store',
  'Content-Type': 'text/html; charset=utf-8',
  'Referrer-Policy': 'same-origin',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}

// Starts all servers. `pages` is what the broker's unit test writes, `tls` a directory with key.pem and cert.pem, good
// for any name. Answers with the URLs to visit.
export async function start(pages, tls) {
  const play = new Play(pages)
  const pair = { key: readFileSync(`${tls}/key.pem`), cert: readFileSync(`${tls}/cert.pem`) }
  const serve = (request, response) => play.serve(request, response)
  const plain = await listen(createServer(serve), '127.0.0.1')
  const secure = await listen(createTlsServer(pair, serve), '127.0.0.1')
  const six = await listen(createServer(serve), '::1').catch(() => undefined)
  play.provider = `https://provider.test:${secure}`
  return {
    play,
    base: `http://127.0.0.1:${plain}`,
    secureBase: `https://broker.test:${secure}`,
    elsewhere: `http://localhost:${plain}`,
    // Redirect URIs of clients; the one of each that is undefined cannot be had on this machine.
    clients: {
      'https': `https://client.test:${secure}/arrived`,
      'http://localhost': `http://localhost:${plain}/arrived`,
      'http://127.0.0.1': `http://127.0.0.1:${plain}/arrived`,
      'http://[::1]': six && `http://[::1]:${six}/arrived`,
      'https, and on to an app': `https://client.test:${secure}/onward`,
    },
  }
}

function listen(server, host) {
  server.unref()
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, host, () => resolve(server.address().port))
  })
}

class Play {
  constructor(pages) {
    this.pages = new Map(pages.map((page) => [page.name, page]))
    this.target = undefined // where the broker sends people in the end
    this.knowsPerson = true // the provider redirects at once
    this.csp = undefined // in the place of a page's own
  }

  serve(request, response) {
    request.resume()
    const url = new URL(request.url, `${request.socket.encrypted ? 'https' : 'http'}://${request.headers.host}`)
    const part = url.pathname.slice(1)
    const page = this.pages.get(part)
    if (page !== undefined) {
      response.writeHead(page.status, { ...FIELDS, 'Content-Security-Policy': this.csp ?? page.csp })
      return response.end(page.html)
    }
    switch (part) {
      case 'oauth/authorize': // the form's
        return redirect(response, 303, `${this.provider}/provider?back=${url.origin}/oauth/callback`)
      case 'provider':
        if (this.knowsPerson) return redirect(response, 302, url.searchParams.get('back'))
        return html(response, `<form method="post" action="/provider-login${url.search}"><button>Sign in</button></form>`)
      case 'provider-login':
        return redirect(response, 303, url.searchParams.get('back'))
      case 'oauth/callback':
        return redirect(response, 303, `${this.target}?code=1`)
      case 'onward':
        return redirect(response, 302, 'some-app://callback')
      case 'arrived':
        return html(response, '<h1>Arrived</h1>')
      case 'frame':
        return html(response, `<iframe src="${url.searchParams.get('of')}"></iframe>`)
      default:
        response.writeHead(404)
        return response.end()
    }
  }
}

function redirect(response, status, location) {
  response.writeHead(status, { Location: location })
  response.end()
}

function html(response, body) {
  response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' })
  response.end(`<!doctype html><html lang="en"><title>Test</title>${body}`)
}
