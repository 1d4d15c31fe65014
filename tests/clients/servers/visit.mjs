// Visits real servers through the broker: `node visit.mjs URL TOKEN ERA FILE SERVER...`. URL is the broker's `/mcp`,
// ERA the one that the visitor speaks (legacy: the TypeScript SDK 1; modern: the TypeScript SDK 2, pinned to
// 2026-07-28), and FILE a file in the directory that the `filesystem` server may read. Started by `scripts/servers`,
// which runs the broker over all of them. One line for each: its name, what it says it is, what it offers, and what was
// seen to work. Exits 1 if one of them failed.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as after } from 'node:timers/promises';

import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from '@modelcontextprotocol/client';
import { Client as LegacyClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as LegacyTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import * as types from '@modelcontextprotocol/sdk/types.js';

const VISIT_MS = 30_000; // the longest any one visit may take
const NOTE = 'note://today';
const [url, token, era, file, ...names] = process.argv.slice(2);

const capabilities = { sampling: {}, elicitation: { form: {} }, roots: {} };
const clientInfo = { name: 'visit', version: '1.0.0' };
const answers = {
  'sampling/createMessage': () => ({
    model: 'none',
    role: 'assistant',
    content: { type: 'text', text: 'as the visitor says' },
  }),
  'elicitation/create': () => ({ action: 'accept', content: { name: 'visitor' } }),
  'roots/list': () => ({ roots: [] }),
};
const heard = ['notifications/tools/list_changed', 'notifications/resources/updated'];

/** Everything that came in under a method, and a promise for the moment it is more than that. */
class Told {
  #seen = new Map();
  #waiting = new Map();

  put(method, params) {
    this.#seen.set(method, [...this.of(method), params]);
    this.#waiting.get(method)?.();
  }

  of(method) {
    return this.#seen.get(method) ?? [];
  }

  async more(method, than = 0) {
    while (this.of(method).length <= than) await new Promise((resolve) => this.#waiting.set(method, resolve));
    return this.of(method);
  }
}

/** A visitor of the legacy era: the first generation names what it handles by schema, not by method. */
async function legacy(server, told) {
  const client = new LegacyClient(clientInfo, { capabilities });
  const schemas = Object.values(types).filter((schema) => schema?.shape?.method?.value);
  const schema = (method) => schemas.find(({ shape }) => shape.method.value === method);
  for (const [method, answer] of Object.entries(answers)) client.setRequestHandler(schema(method), answer);
  for (const method of heard) client.setNotificationHandler(schema(method), ({ params }) => told.put(method, params));
  const transport = new LegacyTransport(new URL(`${url}/${server}`), { requestInit: { headers } });
  await client.connect(transport);
  return {
    client,
    call: (name, args, options) => client.callTool({ name, arguments: args }, undefined, options),
    subscribe: () => client.subscribeResource({ uri: NOTE }),
    close: async () => {
      await transport.terminateSession();
      await client.close();
    },
  };
}

/** A visitor of the modern era. */
async function modern(server, told) {
  const client = new ModernClient(clientInfo, { capabilities, versionNegotiation: { mode: { pin: '2026-07-28' } } });
  for (const [method, answer] of Object.entries(answers)) client.setRequestHandler(method, answer);
  for (const method of heard) client.setNotificationHandler(method, ({ params }) => told.put(method, params));
  await client.connect(new ModernTransport(new URL(`${url}/${server}`), { requestInit: { headers } }));
  let subscription;
  return {
    client,
    call: (name, args, options) => client.callTool({ name, arguments: args }, options),
    subscribe: async () => {
      subscription = await client.listen({ toolsListChanged: true, resourceSubscriptions: [NOTE] });
      assert.deepEqual(subscription.honoredFilter, { toolsListChanged: true, resourceSubscriptions: [NOTE] });
    },
    close: async () => {
      await subscription?.close();
      await client.close();
    },
  };
}

const headers = { Authorization: `Bearer ${token}` };
const text = (result) => result.content.map((content) => content.text).join('\n');

/** One tool of a server that people really use, and what must be in its answer. */
const one = (name, args, answer, isError = false) => async ({ call }) => {
  const result = await call(name, args);
  assert.match(text(result), answer);
  assert.equal(result.isError ?? false, isError, JSON.stringify(result));
  return [`${name} answers ${JSON.stringify(text(result).slice(0, 80))}`];
};

/** A tool that reports progress, and the reports. */
async function progress({ call }, name, args, wanted) {
  const seen = [];
  await call(name, args, { onprogress: (report) => seen.push(report.progress) });
  assert.deepEqual(seen, wanted);
}

/** `server-everything` on more than one of its tools. */
async function everything(visitor) {
  const said = await one('get-sum', { a: 20, b: 22 }, /42/)(visitor);
  const longRunning = 'trigger-long-running-operation';
  // It asks for the roots 350 ms after it was initialized. For a modern client that is a round of the call that is open
  // then: the SDK reports it as progress of its own, and what the server reports between two rounds is for nobody.
  await visitor.call(longRunning, { duration: 1, steps: 1 });
  await progress(visitor, longRunning, { duration: 1, steps: 4 }, [1, 2, 3, 4]);
  const sampled = await visitor.call('trigger-sampling-request', { prompt: 'Say something.' });
  assert.match(text(sampled), /as the visitor says/);
  assert.match(text(await visitor.call('trigger-elicitation-request', {})), /visitor/);
  return [...said, 'progress', 'sampling', 'elicitation'];
}

/** A small server of ours (`ts-1.mjs` and its like): all that it offers. */
async function small(visitor, told) {
  const { client, call } = visitor;
  await progress(visitor, 'count', { n: 3 }, [1, 2, 3]);
  assert.equal(text(await call('greet', {})), 'hello visitor');
  assert.equal(text(await call('think', {})), 'thought as the visitor says');
  assert.equal((await client.readResource({ uri: NOTE })).contents[0].text, 'a note');
  await visitor.subscribe();
  await call('touch', {});
  assert.equal(String((await told.more('notifications/resources/updated'))[0].uri), NOTE);
  const before = told.of('notifications/tools/list_changed').length;
  await call('grow', {});
  await told.more('notifications/tools/list_changed', before);
  assert.ok((await client.listTools()).tools.some(({ name }) => name === 'grown'), 'no tool more');
  return ['progress', 'elicitation', 'sampling', 'subscription', 'list change'];
}

const visits = {
  everything,
  filesystem: one('read_text_file', { path: file }, new RegExp(readFileSync(file, 'utf8').trim())),
  // Nothing listens where this one looks for its Gitea: that it says so shows that the call has reached it.
  gitea: one('list_repos', {}, /connect|unreachable|network/i, true),
};

async function visit(server) {
  const told = new Told();
  const visitor = await (era === 'modern' ? modern : legacy)(server, told);
  const { tools } = await visitor.client.listTools();
  const seen = await (visits[server] ?? small)(visitor, told);
  const { name, version } = visitor.client.getServerVersion() ?? { name: 'nameless', version: '' };
  await visitor.close();
  return `${name} ${version}, ${tools.length} tools: ${seen.join(', ')}`;
}

for (const server of names) {
  const late = after(VISIT_MS).then(() => assert.fail(`nothing within ${VISIT_MS} ms`));
  late.catch(() => {}); // when it comes after the visit
  const title = `/mcp/${server}, ${era}`.padEnd(32);
  try {
    console.log(`ok ${title} ${await Promise.race([visit(server), late])}`);
  } catch (error) {
    console.log(`FAILED ${title} ${error?.stack ?? error}`);
    process.exitCode = 1;
  }
}
process.exit();
