// The browser of the sign-in drivers: it follows an authorization URL through every page on the way, as a person
// would, and ends where no form is left, which is the client's own listener. Real browsers' rules that a server may
// trip over are kept: cookies belong to a host, whatever its port, and have paths, ages and prefixes; a form posted
// from a page with the referrer policy `no-referrer` has `Origin: null`; `Sec-Fetch-*` tell where a navigation comes
// from.
//
// As a program: `node browser.mjs USER URL [deny]`, prints a line for each step and ends with 1 if it got nowhere.

import http from 'node:http';
import { pathToFileURL } from 'node:url';

const MAX_STEPS = 20;
const STEP_MS = 20_000;

/** The cookies of one browser. */
export class Jar {
  #cookies = new Map();

  /** What `Set-Cookie` says, if a browser would have it. */
  keep(url, line) {
    const [pair, ...attributes] = line.split(';').map((part) => part.trim());
    const [name, value] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)];
    const found = new Map(attributes.map((it) => [it.split('=')[0].toLowerCase(), it.slice(it.indexOf('=') + 1)]));
    const secure = found.has('secure');
    if (secure && url.protocol !== 'https:' && !isLoopback(url)) return;
    if (name.startsWith('__Host-') && (!secure || found.has('domain') || found.get('path') !== '/')) return;
    const path = found.get('path') ?? url.pathname.slice(0, url.pathname.lastIndexOf('/') || 1);
    const key = JSON.stringify([url.hostname, path, name]);
    const age = found.get('max-age');
    const ends = age === undefined ? Date.parse(found.get('expires')) : Date.now() + 1000 * Number(age);
    if (ends <= Date.now()) this.#cookies.delete(key);
    else this.#cookies.set(key, { host: url.hostname, path, name, value, secure, ends });
  }

  header(url) {
    const fits = ({ host, path, secure, ends }) =>
      host === url.hostname &&
      (url.pathname === path || url.pathname.startsWith(path.endsWith('/') ? path : `${path}/`)) &&
      (!secure || url.protocol === 'https:' || isLoopback(url)) &&
      !(ends <= Date.now());
    return [...this.#cookies.values()].filter(fits).map(({ name, value }) => `${name}=${value}`).join('; ');
  }
}

function isLoopback({ hostname }) {
  return ['127.0.0.1', '[::1]', 'localhost'].includes(hostname);
}

/** One request, redirects not followed. */
function ask(url, { method, headers, body }) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers, timeout: STEP_MS, agent: false }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        resolve({ status: response.statusCode, headers: response.headers, text });
      });
    });
    request.on('timeout', () => request.destroy(new Error(`nothing from ${url.origin} within ${STEP_MS} ms`)));
    request.on('error', reject);
    request.end(body);
  });
}

const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function decode(text) {
  return text.replace(/&(#x[0-9a-f]+|#\d+|\w+);/gi, (whole, name) => {
    if (/^#x/i.test(name)) return String.fromCodePoint(parseInt(name.slice(2), 16));
    if (name.startsWith('#')) return String.fromCodePoint(Number(name.slice(1)));
    return ENTITIES[name] ?? whole;
  });
}

function attributes(tag) {
  const found = tag.matchAll(/([a-z-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?/gi);
  const pairs = [...found].slice(1); // the first is the tag's name
  return Object.fromEntries(pairs.map(([, name, a, b, c]) => [name.toLowerCase(), decode(a ?? b ?? c ?? '')]));
}

/** The forms of a page: where they go, what they carry, and their buttons. */
export function forms(page) {
  return [...page.matchAll(/<form\b[^>]*>[\s\S]*?<\/form>/gi)].map(([form]) => {
    const { method = 'get', action = '' } = attributes(form.match(/<form\b[^>]*>/i)[0]);
    const tags = [...form.matchAll(/<(?:input|button)\b[^>]*>/gi)].map(([tag]) => ({
      type: /^<button/i.test(tag) ? 'submit' : 'text',
      ...attributes(tag),
    }));
    return { method: method.toUpperCase(), action, tags };
  });
}

/** What is sent when `user` fills a form and presses the button that agrees, or the one that does not. */
function filled({ tags }, user, deny) {
  const fields = new URLSearchParams();
  for (const { type, name, value = '' } of tags.filter((tag) => tag.name && tag.type !== 'submit')) {
    if (type === 'hidden') fields.append(name, value);
    else if (type === 'password') fields.append(name, 'secret');
    else if (type === 'text' || type === 'email') fields.append(name, user);
  }
  const buttons = tags.filter((tag) => tag.type === 'submit' && tag.name);
  const word = deny ? /^(deny|false|cancel|no|abort)$/i : /^(allow|true|accept|yes|continue)$/i;
  const button = buttons.find(({ value = '' }) => word.test(value)) ?? buttons[0];
  if (button) fields.append(button.name, button.value ?? '');
  return fields;
}

/** Goes to `start` as `user`. Resolves with the steps, the last page, and the URL it stands at. */
export async function visit(start, user, { jar = new Jar(), deny = false, say = () => {} } = {}) {
  let url = new URL(start);
  let next = { method: 'GET', site: 'none', headers: {} };
  const steps = [];
  for (let step = 0; step < MAX_STEPS; step += 1) {
    if (url.protocol !== 'http:') return { steps, url, status: 0, text: '' }; // for a program, not for us
    const headers = { ...next.headers, accept: 'text/html', 'upgrade-insecure-requests': '1' };
    Object.assign(headers, { 'sec-fetch-site': next.site, 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' });
    if (step === 0 || next.pressed) headers['sec-fetch-user'] = '?1';
    const cookies = jar.header(url);
    if (cookies) headers.cookie = cookies;
    const answer = await ask(url, { ...next, headers });
    for (const line of answer.headers['set-cookie'] ?? []) jar.keep(url, line);
    steps.push({ method: next.method, url: url.href, status: answer.status, headers: answer.headers });
    say(`${next.method} ${url.origin}${url.pathname} ${answer.status}`);
    const { location } = answer.headers;
    if (answer.status >= 300 && answer.status < 400 && location) {
      const to = new URL(location, url);
      const site = next.site === 'none' ? 'none' : apart(next.site, url, to);
      next = { method: 'GET', site, headers: {} }; // also after 302, as browsers do
      url = to;
      continue;
    }
    const form = forms(answer.text).find(({ tags }) => tags.length);
    if (answer.status >= 400 || !form) return { steps, url, status: answer.status, text: answer.text };
    const fields = filled(form, user, deny).toString();
    const to = new URL(form.action || url.href, url);
    const site = apart('same-origin', url, to);
    if (form.method === 'POST') {
      const origin = hidesOrigin(answer) ? 'null' : url.origin;
      const type = 'application/x-www-form-urlencoded';
      const length = Buffer.byteLength(fields);
      const headers = { origin, 'content-type': type, 'content-length': length };
      next = { method: 'POST', site, pressed: true, body: fields, headers };
    } else {
      to.search = fields;
      next = { method: 'GET', site, pressed: true, headers: {} };
    }
    url = to;
  }
  throw new Error(`still on the way after ${MAX_STEPS} steps: ${steps.map((it) => it.url).join(' ')}`);
}

/** Whether a page has the policy `no-referrer`, which goes for `Origin` too: its <meta> comes after its header. */
function hidesOrigin({ headers, text }) {
  const tags = [...text.matchAll(/<meta\b[^>]*>/gi)].map(([tag]) => attributes(tag));
  const meta = tags.filter(({ name }) => name?.toLowerCase() === 'referrer').at(-1);
  return (meta?.content ?? headers['referrer-policy'] ?? '').trim().endsWith('no-referrer');
}

/** How a navigation stands to where it started, after one more hop. */
function apart(before, from, to) {
  if (before === 'cross-site' || from.hostname !== to.hostname) return 'cross-site';
  return before === 'same-site' || from.origin !== to.origin ? 'same-site' : 'same-origin';
}

/** A page as text, in short. */
export function plain(page) {
  const shown = page.replace(/<(style|title)[\s\S]*?<\/\1>/gi, ' ').replace(/<[^>]*>/g, ' ');
  return decode(shown).replace(/\s+/g, ' ').trim().slice(0, 400);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [user, url, deny] = process.argv.slice(2);
  const { status, text } = await visit(url, user, { deny: deny === 'deny', say: console.log });
  if (status >= 400) {
    console.log(plain(text));
    process.exit(1);
  }
}
