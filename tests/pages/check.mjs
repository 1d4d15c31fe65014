// Shows the broker's pages to Chromium and holds them to what they promise.
//
//   node check.mjs CHROMIUM OUT TLS pages.json          pages that were rendered into a file; all checks
//   node check.mjs CHROMIUM OUT TLS NAME=URL...         pages of a broker that runs; those about one page
//
// OUT gets a screenshot of each page. TLS has key.pem and cert.pem. Prints a line for each check, and exits 1 if one
// has failed.

import { readFileSync } from 'node:fs'
import axe from 'axe-core'
import { chromium } from 'playwright-core'
import { start } from './server.mjs'

const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--host-resolver-rules=MAP *.test 127.0.0.1',
]
const PHONE = { width: 360, height: 740 }
const DESKTOP = { width: 1280, height: 800 }
const NARROW = { width: 320, height: 640 } // WCAG 2.2, 1.4.10
const TOUCH = 44 // CSS pixels: WCAG 2.2, 2.5.5
const PATIENCE = 20000 // ms; machines may be busy

let failed = 0

async function check(title, test) {
  try {
    await test()
    console.log(`ok ${title}`)
  } catch (error) {
    failed++
    console.log(`FAILED ${title}: ${error.message}`)
  }
}

function equal(actual, expected, what) {
  const [a, b] = [actual, expected].map((it) => JSON.stringify(it))
  if (a !== b) throw new Error(`${what}: ${a}, not ${b}`)
}

function holds(condition, what) {
  if (!condition) throw new Error(what)
}

const [executablePath, out, tls, ...subjects] = process.argv.slice(2)
const rendered = subjects[0].endsWith('.json') ? JSON.parse(readFileSync(subjects[0], 'utf8')) : undefined
const servers = await start(rendered ?? [], tls)
const pages = rendered
  ? rendered.map(({ name }) => ({ name, url: `${servers.base}/${name}` }))
  : subjects.map((it) => ({ name: it.slice(0, it.indexOf('=')), url: it.slice(it.indexOf('=') + 1) }))
const browser = await chromium.launch({ executablePath, args: ARGUMENTS })
console.log(`Chromium ${browser.version()}, axe ${axe.version}`)

// A tab of its own, and what went on in it.
async function tab(options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: DESKTOP, ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(PATIENCE)
  const heard = { console: [], asked: [], failed: [] }
  page.on('console', (message) => heard.console.push(message.text()))
  page.on('pageerror', (error) => heard.console.push(String(error)))
  page.on('request', (request) => heard.asked.push(request.url()))
  page.on('requestfailed', (request) => heard.failed.push(request.url()))
  return { page, heard, close: () => context.close() }
}

async function until(condition, what) {
  const end = Date.now() + PATIENCE
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(what())
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

// A console error is not always there when the page is: this one comes after all that the page may have caused.
async function settle({ page, heard }) {
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))))
  await page.evaluate(() => console.log('the last word'))
  await until(() => heard.console.at(-1) === 'the last word', () => 'the console is silent')
  heard.console.pop()
}

// What a page is like as it comes, in the tab that shows it.
async function loads(it, url) {
  const { page, heard } = it
  // Chromium says in the console that "a resource" has such a status, whatever page it is.
  const isStatus = (text) => /Failed to load resource: the server responded with a status/.test(text)
  const response = await page.goto(url)
  await settle(it)
  equal(heard.console.filter((text) => !isStatus(text)), [], 'console')
  equal(heard.asked.filter((asked) => !asked.startsWith('data:')), [url], 'requests')
  const { 'content-security-policy': csp = '' } = response.headers()
  holds(csp.includes("default-src 'none'") && csp.includes("frame-ancestors 'none'"), `its policy is ${csp}`)
  equal(await page.evaluate(() => document.scripts.length), 0, 'scripts')
  equal(await page.evaluate(() => getComputedStyle(document.body).margin), '0px', 'the style is let in: margin')
}

async function looks({ page }, name, colorScheme, viewport) {
  const tooWide = () => document.documentElement.scrollWidth - document.documentElement.clientWidth
  await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
  await page.setViewportSize(NARROW)
  equal(await page.evaluate(tooWide), 0, `pixels to scroll to the right in ${NARROW.width}`)
  await page.setViewportSize(viewport)
  equal(await page.evaluate(tooWide), 0, 'pixels to scroll to the right')
  const path = `${out}/${name}-${colorScheme}-${viewport.width}.png`
  await page.screenshot({ path, fullPage: true })

  const warning = page.locator('.warning')
  if ((await warning.count()) > 0) {
    const box = await warning.boundingBox()
    holds(box.y + box.height <= viewport.height, 'the warning is not seen at once')
  }
  for (const button of await page.locator('button, a.primary').all()) {
    holds((await button.boundingBox()).height >= TOUCH, 'a button is too small to touch')
  }
  await page.evaluate(axe.source)
  const rules = { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }
  const found = await page.evaluate((runOnly) => globalThis.axe.run(document, { runOnly }), rules)
  equal(found.violations.map(({ id, nodes }) => [id, nodes[0].html]), [], 'axe')
  const unclear = found.incomplete.filter(({ id }) => id === 'color-contrast')
  equal(unclear.map(({ nodes }) => nodes[0].html), [], 'contrast that axe cannot tell')
  holds(found.passes.some(({ id }) => id === 'color-contrast'), 'axe has not seen any contrast')
}

async function refusesFrames(url) {
  const it = await tab()
  await it.page.goto(`${servers.elsewhere}/frame?of=${encodeURIComponent(url)}`)
  const frame = () => it.page.frames()[1]?.url()
  await until(() => frame()?.startsWith('chrome-error:'), () => `the frame shows ${frame()}`)
  await it.close()
}

// Without a mouse: Tab to the buttons in their order, each to be seen, and Enter.
async function keyboard(url) {
  for (const [tabs, action] of [[1, 'allow'], [2, 'deny']]) {
    const { page, close } = await tab()
    await page.goto(url)
    const request = await page.inputValue('input[name=request]')
    let sent
    await page.route('**/oauth/authorize', (route) => {
      sent = { method: route.request().method(), data: route.request().postData() }
      return route.fulfill({ status: 204 })
    })
    for (let i = 0; i < tabs; i++) await page.keyboard.press('Tab')
    const focused = await page.evaluate(() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement)
      return [document.activeElement.value, outlineStyle, outlineWidth]
    })
    equal(focused, [action, 'solid', '3px'], 'focus')
    await page.keyboard.press('Enter')
    await until(() => sent !== undefined, () => 'nothing was sent')
    equal(sent.method, 'POST', 'method')
    equal([...new URLSearchParams(sent.data)], [['request', request], ['action', action]], 'form')
    await close()
  }
}

async function hostileNamesAreText(url) {
  const it = await tab()
  const { page } = it
  let dialogs = 0
  page.on('dialog', (dialog) => (dialogs++, dialog.dismiss()))
  await page.goto(url)
  await settle(it)
  const heading = await page.textContent('h1')
  holds(heading.includes('<img src=x onerror=alert(1)><script>'), `the heading is ${heading}`)
  equal(await page.locator('img, script, [onfocus], [onerror]').count(), 0, 'what is no text')
  equal(dialogs, 0, 'dialogs')
  await it.close()
}

// From the button to the client, by way of the provider: POST, 303, 302, 303. `csp` is in the place of the page's own.
async function journey(base, client, knowsPerson, csp) {
  const it = await tab()
  const { page, heard } = it
  Object.assign(servers.play, { target: client, knowsPerson, csp })
  const wanted = client.endsWith('/onward') ? 'some-app://callback' : client
  try {
    await page.goto(`${base}/consent-known`)
    await page.click('button.primary', { noWaitAfter: true })
    if (!knowsPerson) await page.click('text=Sign in', { noWaitAfter: true })
    const blocked = () => heard.console.find((text) => text.includes('form-action'))
    const arrived = () => page.url().startsWith(wanted) || heard.failed.some((url) => url.startsWith(wanted))
    await until(() => arrived() || blocked(), () => `the browser is at ${page.url()}`)
    holds(!blocked(), blocked())
  } finally {
    servers.play.csp = undefined
    await it.close()
  }
}

async function handsOver(url) {
  const { page, heard, close } = await tab()
  await page.goto(url)
  await page.keyboard.press('Tab')
  await page.keyboard.press('Enter')
  const opened = () => heard.failed.find((it) => it.startsWith('cursor://anysphere.cursor-mcp/oauth/callback?code='))
  await until(opened, () => `no app was asked for, but ${heard.asked}`)
  equal(page.url(), url, 'the page that stays')
  await close()
}

for (const { name, url } of pages) {
  const it = await tab()
  await check(`${name} is all that is loaded`, () => loads(it, url))
  for (const viewport of [PHONE, DESKTOP]) {
    for (const scheme of ['light', 'dark']) {
      await check(`${name}, ${scheme}, ${viewport.width} wide`, () => looks(it, name, scheme, viewport))
    }
  }
  await it.close()
  await check(`${name} in a frame is refused`, () => refusesFrames(url))
  if (name.startsWith('consent')) await check(`${name} by keyboard`, () => keyboard(url))
  if (name.startsWith('handover')) await check(`${name} opens the app`, () => handsOver(url))
  if (name.endsWith('hostile')) await check(`${name} is text`, () => hostileNamesAreText(url))
}
if (rendered) {
  for (const [kind, client] of Object.entries(servers.clients)) {
    for (const base of client ? [servers.base, servers.secureBase] : []) {
      for (const knowsPerson of [true, false]) {
        const title = `from ${base.split(':')[0]} to ${kind}, ${knowsPerson ? 'signed in' : 'not yet signed in'}`
        await check(title, () => journey(base, client, knowsPerson))
      }
    }
  }
  // Why the consent page has no form-action. When this fails, Chromium has changed: think again.
  await check("form-action 'self' https: http: would break a journey", async () => {
    const csp = "default-src 'none'; form-action 'self' https: http:"
    const broken = await journey(servers.base, servers.clients['https, and on to an app'], true, csp).catch((it) => it)
    holds(/form-action/.test(broken?.message), `it did not: ${broken}`)
  })
}
await browser.close()
console.log(failed === 0 ? 'all checks passed' : `${failed} checks failed`)
process.exit(failed === 0 ? 0 : 1)
