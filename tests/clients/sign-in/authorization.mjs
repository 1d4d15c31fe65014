// The `authorization` command of the official conformance suite, and the person that it needs:
// `node authorization.mjs ISSUER RESOURCE USER RESULTS SUITE`, where this is a Node that can run the suite. Registers a
// client with the suite's redirect URI, opens the URL that the suite prints, and leaves what the suite says in
// RESULTS/log, for `score.mjs`. `scripts/sign-in` runs it.

import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import http from 'node:http';

import { plain, visit } from './browser.mjs';

const [issuer, resource, user, results, suite] = process.argv.slice(2);

/** A port that is free now. */
async function free() {
  const server = http.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** RFC 7591, as a public client. */
async function register(port) {
  const metadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json();
  const body = JSON.stringify({
    client_name: 'conformance',
    redirect_uris: [`http://127.0.0.1:${port}/callback`],
    token_endpoint_auth_method: 'none',
  });
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(metadata.registration_endpoint, { method: 'POST', headers, body });
  if (answer.status !== 201) throw new Error(`registration: ${answer.status} ${await answer.text()}`);
  return (await answer.json()).client_id;
}

const port = await free();
const id = await register(port);
const options = ['--url', issuer, '--client-id', id, '--resource', resource, '--port', String(port), '-o', results];
const child = spawn(process.execPath, [suite, 'authorization', ...options], { stdio: ['ignore', 'pipe', 'inherit'] });
const log = createWriteStream(`${results}/log`);
let said = '';
let visited = false;
child.stdout.on('data', async (data) => {
  log.write(data);
  said += data;
  const found = said.match(/^(http\S+\/authorize\?\S+)$/m);
  if (!found || visited) return;
  visited = true;
  const { status, text } = await visit(found[1], user);
  if (status >= 400) {
    console.error(`${status} ${plain(text)}`);
    child.kill();
  }
});
child.on('close', () => log.end(() => process.exit(visited ? 0 : 1)));
