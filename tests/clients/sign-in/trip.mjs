// The trip that every TypeScript client takes: it is turned away, signs in with the SDK's own OAuth, uses a tool, has
// its access token refreshed, goes on in the same session, and is turned away again once the grant is revoked.
// Neighbours: `typescript-*.mjs` bring an SDK each, `trip.py` is the same trip for Python, `browser.mjs` is the person,
// and `scripts/sign-in` runs them all: `node typescript-1.mjs URL USER TOOL ARGUMENTS EXPECTED [CLIENT_ID]`, where what
// TOOL answers is to contain EXPECTED, and CLIENT_ID is the URL of a metadata document (else the client registers).
// Prints `ok NAME` for each step and exits 1 at the first failure.
//
// An SDK is handed over as
//   open(provider)        a client and a transport, not yet connected
//   unauthorized          the class of its error for "a person is needed"
//   finish(transport, parameters)   redeems what came back to the redirect URI

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import http from 'node:http';
import { setTimeout as after } from 'node:timers/promises';

import { plain, visit } from './browser.mjs';

const STEP_MS = 30_000;

export const [url, user, tool, json, expected, clientId] = process.argv.slice(2);
export const clientInfo = { name: 'trip', version: '1.0.0' };

export async function step(name, run) {
  const timer = new AbortController();
  const late = after(STEP_MS, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`nothing within ${STEP_MS} ms`);
  });
  late.catch(() => {});
  try {
    const result = await Promise.race([run(), late]);
    console.log(`ok ${name}`);
    return result;
  } catch (error) {
    console.log(`FAILED ${name}: ${error?.stack ?? error}`);
    process.exit(1);
  } finally {
    timer.abort();
  }
}

/** The client's redirect URI, on a free port, and what came back to it. */
export async function listen() {
  const returned = [];
  const server = http.createServer((request, response) => {
    const asked = new URL(request.url, 'http://listener');
    if (asked.pathname !== '/callback') {
      response.writeHead(404).end();
      return;
    }
    returned.push(asked.searchParams);
    response.end('Signed in. This window can be closed.');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  // The documents of known clients list the name, and registering clients are told to use the address.
  const host = clientId ? 'localhost' : '127.0.0.1';
  return { uri: `http://${host}:${server.address().port}/callback`, returned, close: () => server.close() };
}

/** An `OAuthClientProvider` of either generation that keeps everything in memory. */
export class Memory {
  #client;
  #verifier;
  sent; // the last authorization URL
  expected; // its state
  saved = []; // all tokens so far

  constructor(redirectUrl) {
    this.redirectUrl = redirectUrl;
    if (clientId) this.clientMetadataUrl = clientId;
  }

  get clientMetadata() {
    return {
      client_name: 'The trip',
      redirect_uris: [this.redirectUrl],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
    };
  }

  state() {
    this.expected = randomBytes(16).toString('base64url');
    return this.expected;
  }

  clientInformation() {
    return this.#client;
  }

  saveClientInformation(client) {
    this.#client = client;
  }

  tokens() {
    return this.saved.at(-1);
  }

  saveTokens(tokens) {
    this.saved.push(tokens);
  }

  redirectToAuthorization(to) {
    this.sent = to;
  }

  saveCodeVerifier(verifier) {
    this.#verifier = verifier;
  }

  codeVerifier() {
    return this.#verifier;
  }

  saveDiscoveryState(state) {
    this.discovered = state;
  }

  discoveryState() {
    return this.discovered;
  }
}

const text = (result) => result.content.map((it) => it.text ?? '').join('\n');

/** The person's part, from the authorization URL to the client's listener. */
export async function signIn(start, listener, provider) {
  const end = await visit(start, user);
  const found = listener.returned.at(-1);
  assert.equal(end.status, 200, `${end.url.origin}${end.url.pathname}: ${end.status} ${plain(end.text)}`);
  assert.ok(found, `it ended at ${end.url.origin}${end.url.pathname}: ${plain(end.text)}`);
  assert.equal(found.get('error'), null, found.get('error_description'));
  assert.equal(found.get('state'), provider.expected);
  assert.equal(found.get('iss'), new URL(url).origin);
  const hosts = new Set(end.steps.map((it) => new URL(it.url).origin));
  assert.ok(hosts.size >= 3, `the provider was not on the way: ${[...hosts].join(' ')}`);
  return found;
}

export async function trip({ open, unauthorized, finish }) {
  const listener = await listen();
  const provider = new Memory(listener.uri);
  let { client, transport } = open(provider);

  await step('turned away', async () => {
    await assert.rejects(client.connect(transport), unauthorized);
    assert.ok(provider.sent, 'no authorization URL');
    assert.equal(provider.sent.searchParams.get('resource'), url);
    if (clientId) assert.equal(provider.sent.searchParams.get('client_id'), clientId);
    else assert.ok(provider.clientInformation().client_id, 'not registered');
  });
  await step('sign in', async () => finish(transport, await signIn(provider.sent, listener, provider)));
  await step('connect', async () => {
    ({ client, transport } = open(provider));
    await client.connect(transport);
  });
  const call = async () => {
    const answer = text(await client.callTool({ name: tool, arguments: JSON.parse(json) }));
    assert.ok(answer.includes(expected), `${tool} says ${answer}`);
  };
  await step('list tools', async () => {
    const { tools } = await client.listTools();
    assert.ok(tools.some(({ name }) => name === tool), `no tool ${tool}`);
  });
  await step('call', call);
  await step('refresh', async () => {
    const [before, session] = [provider.tokens(), transport.sessionId];
    provider.saveTokens({ ...before, access_token: `${before.access_token}x` });
    await call();
    const now = provider.tokens();
    assert.notEqual(now.access_token, before.access_token);
    assert.notEqual(now.refresh_token, before.refresh_token, 'the refresh token was not rotated');
    assert.equal(transport.sessionId, session, 'another session');
  });
  await step('call again', call);
  await step('revoke', async () => {
    const { refresh_token: token, access_token: access } = provider.tokens();
    const body = new URLSearchParams({ token, client_id: provider.clientInformation().client_id });
    const { revocation_endpoint: endpoint } = provider.discovered.authorizationServerMetadata;
    assert.equal((await fetch(endpoint, { method: 'POST', body })).status, 200);
    const accept = 'application/json, text/event-stream';
    const headers = { authorization: `Bearer ${access}`, accept, 'content-type': 'application/json' };
    const ping = JSON.stringify({ jsonrpc: '2.0', id: 'late', method: 'ping' });
    assert.equal((await fetch(url, { method: 'POST', headers, body: ping })).status, 401);
  });
  listener.close();
  process.exit(0);
}
