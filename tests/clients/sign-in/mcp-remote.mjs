// `mcp-remote`, which lets clients that only know stdio reach the broker: `node mcp-remote.mjs URL USER TOOL ARGUMENTS
// EXPECTED`. It is started as its users do, opens the browser that $BROWSER names, and is spoken to over stdio with the
// first generation of the TypeScript SDK. A second start finds its tokens, here with the access token gone bad, and
// must need no person.

import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

import { clientInfo, expected, json, step, tool, url, user } from './trip.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const home = await mkdtemp(join(tmpdir(), 'mcp-remote-'));
const opener = join(home, 'browser');
const visits = join(home, 'visits');
let noise = '';

/** A browser for programs that look for one. */
async function install() {
  const browser = join(here, 'browser.mjs');
  await writeFile(opener, `#!/bin/sh\nexec '${process.execPath}' '${browser}' '${user}' "$1" >>'${visits}' 2>&1\n`);
  await chmod(opener, 0o755);
}

function open() {
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [join(here, 'node_modules/mcp-remote/dist/proxy.js'), url, '--transport', 'http-only'],
    env: { HOME: home, PATH: process.env.PATH, BROWSER: opener, MCP_REMOTE_CONFIG_DIR: join(home, 'auth') },
    stderr: 'pipe',
  });
  transport.stderr.on('data', (data) => {
    noise += data;
  });
  return { client: new Client(clientInfo), transport };
}

/** The file with its tokens. */
async function tokens() {
  const folder = join(home, 'auth', (await readdir(join(home, 'auth')))[0]);
  const name = (await readdir(folder)).find((it) => it.endsWith('_tokens.json'));
  assert.ok(name, 'no file with tokens');
  const path = join(folder, name);
  return { path, content: JSON.parse(await readFile(path, 'utf8')) };
}

async function use(client) {
  const { tools } = await client.listTools();
  assert.ok(tools.some(({ name }) => name === tool), `no tool ${tool}`);
  const { content } = await client.callTool({ name: tool, arguments: JSON.parse(json) });
  const answer = content.map((it) => it.text ?? '').join('\n');
  assert.ok(answer.includes(expected), `${tool} says ${answer}`);
}

process.on('exit', (code) => {
  if (code !== 0) console.log(noise);
});
await install();
let { client, transport } = open();
await step('sign in', () => client.connect(transport));
await step('call', () => use(client));
const before = await step('tokens', tokens);
await step('close', () => client.close());
await step('refresh', async () => {
  await writeFile(before.path, JSON.stringify({ ...before.content, access_token: `${before.content.access_token}x` }));
  await rm(visits);
  ({ client, transport } = open());
  await client.connect(transport);
  await use(client);
  const { content } = await tokens();
  assert.notEqual(content.access_token, before.content.access_token);
  assert.notEqual(content.refresh_token, before.content.refresh_token, 'the refresh token was not rotated');
  await assert.rejects(readFile(visits), 'it opened the browser again');
});
await step('close again', () => client.close());
await rm(home, { recursive: true });
process.exit(0);
