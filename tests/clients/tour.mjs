// The tour that every TypeScript client takes through the broker, over the fixture as child, in the era that it speaks.
// Neighbours: `typescript-*/client.mjs` bring an SDK each, `tour.py` is the same tour for Python and `rmcp-3` the one
// for Rust, and `scripts/clients` starts the broker and runs them all: `node client.mjs URL TOKEN ERA CHILD [MODE]`,
// where ERA is the one that is to be spoken, and CHILD the kind of child. Prints `ok NAME` for each step and exits 1 at
// the first failure.
//
// An SDK is handed over as
//   client      its Client, not yet connected
//   transport   its Streamable HTTP transport
//   version()   the protocol version agreed on
//   call(name, args, options, meta)     tools/call
//   onRequest(method, handler)    answers the server's requests
//   onNotification(method, handler)

import assert from 'node:assert/strict';
import { setTimeout as after } from 'node:timers/promises';

const STEP_MS = 15_000; // the longest any one step may take
const WATCHED = 'test://watched-resource';
const OTHER = 'test://static-text';
const PAGE = 'https://example.org/tour';
const VERSIONS = {
  legacy: ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25'],
  modern: ['2026-07-28'],
};

export const [url, token, era, child, ...flags] = process.argv.slice(2);
export const headers = { Authorization: `Bearer ${token}` };
export const clientInfo = { name: 'tour', version: '1.0.0' };
export const capabilities = { sampling: {}, elicitation: { form: {}, url: {} }, roots: { listChanged: true } };

const modern = era === 'modern';

async function within(what, promise) {
  const timer = new AbortController();
  const late = after(STEP_MS, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`${what}: nothing within ${STEP_MS} ms`);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer.abort();
    late.catch(() => {});
  }
}

async function step(name, run) {
  try {
    await within(name, run());
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`FAILED ${name}: ${error?.stack ?? error}`);
    process.exit(1);
  }
}

/** Everything that came in under a method, and a promise for the moment there are `n` of it. */
class Inbox {
  #seen = [];
  #waiting = [];

  put = (params) => {
    this.#seen.push(params);
    this.#waiting = this.#waiting.filter(({ n, resolve }) => this.#seen.length < n || resolve(this.#seen));
  };

  get length() {
    return this.#seen.length;
  }

  async reached(n) {
    if (this.#seen.length >= n) return this.#seen;
    return new Promise((resolve) => this.#waiting.push({ n, resolve }));
  }
}

const text = (result) => result.content[0].text;
const echoed = (result) => JSON.parse(text(result)).text; // `echo` returns its arguments
const ids = (list, key) => list.map((item) => item[key]);

/** What the tour keeps of one client: the SDK, and what has reached its handlers. */
function prepare(sdk) {
  const inboxes = {
    logs: ['notifications/message', new Inbox()],
    updates: ['notifications/resources/updated', new Inbox()],
    toolChanges: ['notifications/tools/list_changed', new Inbox()],
    promptChanges: ['notifications/prompts/list_changed', new Inbox()],
  };
  for (const [method, inbox] of Object.values(inboxes)) sdk.onNotification(method, inbox.put);
  sdk.onRequest('sampling/createMessage', () => ({
    model: 'none',
    role: 'assistant',
    stopReason: 'endTurn',
    content: { type: 'text', text: 'sampled by the tour' },
  }));
  sdk.onRequest('elicitation/create', ({ params }) => {
    if (params.mode === 'url') return { action: params.url === PAGE ? 'accept' : 'decline' };
    const wanted = Object.keys(params.requestedSchema.properties);
    return { action: 'accept', content: Object.fromEntries(wanted.map((name) => [name, `tour-${name}`])) };
  });
  sdk.onRequest('roots/list', () => ({ roots: [{ uri: 'file:///tour-root', name: 'tour' }] }));
  return Object.fromEntries(Object.entries(inboxes).map(([name, [, inbox]]) => [name, inbox]));
}

async function connecting({ client, transport, version }) {
  await step('connect', async () => {
    await client.connect(transport);
    assert.ok(client.getServerVersion().name, 'the server has a name');
    assert.ok(VERSIONS[era].includes(version()), `protocol version ${version()}`);
    if (modern) assert.equal(transport.sessionId, undefined);
    else assert.match(transport.sessionId, /^[0-9a-f]{48}$/);
  });
  if (!modern) await step('ping', () => client.ping());
  await step('tools/list', async () => {
    assert.ok(ids((await client.listTools()).tools, 'name').includes('echo'));
  });
  await step('resources/list', async () => {
    assert.ok(ids((await client.listResources()).resources, 'uri').includes(OTHER));
  });
  await step('prompts/list', async () => {
    assert.ok(ids((await client.listPrompts()).prompts, 'name').includes('test_simple_prompt'));
  });
  await step('prompts/get', async () => {
    assert.ok((await client.getPrompt({ name: 'test_simple_prompt' })).messages.length > 0);
  });
  await step('completion/complete', async () => {
    const ref = { type: 'ref/prompt', name: 'test_prompt_with_arguments' };
    const { completion } = await client.complete({ ref, argument: { name: 'arg1', value: 'par' } });
    assert.deepEqual(completion.values, ['paris', 'park', 'party']);
  });
  await step('resources/read', async () => {
    const { contents } = await client.readResource({ uri: OTHER });
    assert.ok(contents[0].text.length > 0);
  });
}

async function calling({ client, call }, { logs }) {
  await step('tools/call', async () => {
    for (const said of ['hello', 'a\u2028b \u{1f980} "\\n"', 'x'.repeat(256 * 1024)]) {
      const result = await call('echo', { text: said });
      assert.equal(echoed(result), said);
      assert.deepEqual(result.structuredContent, { text: said });
    }
  });
  await step('thirty-two calls at once', async () => {
    const said = Array.from({ length: 32 }, (_, i) => `call ${i}`);
    const answers = await Promise.all(said.map((one) => call('echo', { text: one })));
    assert.deepEqual(answers.map(echoed), said);
  });
  await step('an argument in a header', async () => {
    for (const region of ['eu', 'Köln', ' a ']) {
      assert.deepEqual(JSON.parse(text(await call('test_x_mcp_header', { region }))), { region });
    }
  });
  await step('tool error', async () => {
    assert.equal((await call('test_error_handling', {})).isError, true);
  });
  await step('protocol error', async () => {
    await assert.rejects(client.getPrompt({ name: 'no such prompt' }), ({ code }) => typeof code === 'number');
    const missing = client.readResource({ uri: 'test://missing' });
    await assert.rejects(missing, ({ code }) => (modern ? code === -32602 : [-32002, -32602].includes(code)));
  });
  await step('progress', async () => {
    const seen = [];
    await call('count', { n: 5, delay_ms: 20 }, { onprogress: ({ progress }) => seen.push(progress) });
    assert.deepEqual(seen, [1, 2, 3, 4, 5]);
  });
  await step('logging', async () => {
    if (!modern) await client.setLoggingLevel('info');
    await call('log', { n: 3, level: 'info' }, {}, modern ? { 'io.modelcontextprotocol/logLevel': 'info' } : undefined);
    for (const { level } of (await logs.reached(3)).slice(0, 3)) assert.equal(level, 'info');
    if (modern) await call('log', { n: 3, level: 'info' }); // which has not asked for any
    else await call('log', { n: 3, level: 'debug' });
  });
}

async function beingAsked({ client, call }) {
  const wanted = { sampling: /sampled by the tour/, elicitation: /tour-name/, roots: /tour-root/, url: /"accept"/ };
  for (const [kind, answer] of Object.entries(wanted)) {
    await step(kind === 'url' ? 'elicitation by URL' : kind, async () => {
      assert.match(text(await call('ask', { kind })), answer);
    });
  }
  await step('three questions at once', async () => {
    const answers = text(await call('test_input_required_result_multiple_inputs', {}));
    for (const kind of ['sampling', 'elicitation', 'roots']) assert.match(answers, wanted[kind]);
  });
  await step('two questions in a row', async () => {
    assert.match(text(await call('test_input_required_result_multi_round', {})), /"tour-name" likes "tour-color"/);
  });
  await step('four calls that ask, at once', async () => {
    const kinds = ['sampling', 'elicitation', 'roots', 'elicitation'];
    const answers = await Promise.all(kinds.map((kind) => call('ask', { kind })));
    for (const [i, answer] of answers.entries()) assert.match(text(answer), wanted[kinds[i]]);
  });
  await step('a prompt that asks', async () => {
    const { messages } = await client.getPrompt({ name: 'test_input_required_result_prompt' });
    assert.match(messages[0].content.text, /tour-context/);
  });
}

/** The params of the notifications of one method that have reached the child. */
async function heard(call, method) {
  const all = JSON.parse(text(await call('received', {})));
  return all.filter((notification) => notification.method === method).map(({ params }) => params);
}

async function cancelling({ client, call }) {
  const cancelled = async () => heard(call, 'notifications/cancelled');
  const more = async (before, ms) => {
    for (const end = Date.now() + ms; Date.now() < end; await after(20)) {
      const now = await cancelled();
      if (now.length > before) return now.at(-1);
    }
  };
  if (!modern && child !== 'modern') {
    await step('roots changed', async () => {
      await client.sendRootsListChanged();
      while (!(await heard(call, 'notifications/roots/list_changed')).length) await after(20);
    });
  }
  await step('cancellation', async () => {
    const before = (await cancelled()).length;
    const stop = new AbortController();
    const started = new Inbox();
    const count = call('count', { n: 600, delay_ms: 100 }, { signal: stop.signal, onprogress: started.put });
    await started.reached(1);
    stop.abort('enough');
    await assert.rejects(count);
    const { reason } = await more(before, STEP_MS);
    if (!modern) assert.equal(reason, 'enough');
  });
  await step('cancellation of a call that says nothing', async () => {
    const before = (await cancelled()).length;
    // Nothing tells when the call has reached the child, and one that has not need not be cancelled there.
    for (const ms of [200, 1000, 3000]) {
      const stop = new AbortController();
      const sleep = call('sleep', { ms: 600_000 }, { signal: stop.signal });
      sleep.catch(() => {});
      await after(ms);
      stop.abort('enough');
      await assert.rejects(sleep);
      if (await more(before, 3000)) return;
    }
    assert.fail('the child has not heard of it');
  });
}

/** Subscribes to everything that the tour wants to hear of; returns how to stop it. */
async function subscribe(client) {
  if (!modern) {
    await client.subscribeResource({ uri: WATCHED });
    return () => client.unsubscribeResource({ uri: WATCHED });
  }
  const filter = { toolsListChanged: true, promptsListChanged: true, resourceSubscriptions: [WATCHED] };
  const subscription = await client.listen(filter);
  assert.deepEqual(subscription.honoredFilter, filter);
  return () => subscription.close();
}

async function beingTold({ client, call }, inboxes) {
  const { updates, toolChanges, promptChanges } = inboxes;
  let stop;
  await step('subscribe', async () => {
    stop = await subscribe(client);
  });
  await step('resource updated', async () => {
    await call('touch_resource', { uri: OTHER });
    await call('touch_resource', { uri: WATCHED });
    assert.equal((await updates.reached(1))[0].uri, WATCHED);
  });
  await step('list changed, while a call is open', async () => {
    await call('test_trigger_tool_change', {});
    await toolChanges.reached(1);
  });
  await step('list changed, while none is', async () => {
    await call('change_after', { list: 'prompts', ms: 100 });
    await promptChanges.reached(1);
  });
  await step('nothing has come twice', async () => {
    const counts = Object.entries(inboxes).map(([name, inbox]) => [name, inbox.length]);
    assert.deepEqual(Object.fromEntries(counts), { logs: 3, updates: 1, toolChanges: 1, promptChanges: 1 });
  });
  await step('unsubscribe', async () => {
    await stop();
    // The server may learn a moment later that a stream is closed.
    for (let before = -1; before < updates.length; await after(100)) {
      before = updates.length;
      await call('touch_resource', { uri: WATCHED });
    }
  });
}

async function closing({ client, transport }) {
  const session = transport.sessionId;
  if (!modern) await transport.terminateSession();
  await client.close();
  const json = { ...headers, Accept: 'application/json, text/event-stream', 'Content-Type': 'application/json' };
  if (modern) {
    const version = { 'MCP-Protocol-Version': VERSIONS.modern[0] };
    for (const method of ['GET', 'DELETE']) {
      assert.equal((await fetch(url, { method, headers: { ...json, ...version } })).status, 405, method);
    }
    return;
  }
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' });
  const gone = await fetch(url, { method: 'POST', headers: { ...json, 'Mcp-Session-Id': session }, body });
  assert.equal(gone.status, 404, 'the ended session');
}

export async function tour(sdk) {
  const inboxes = prepare(sdk);
  await connecting(sdk);
  await calling(sdk, inboxes);
  await beingAsked(sdk);
  await cancelling(sdk);
  await beingTold(sdk, inboxes);
  await step('close', () => closing(sdk));
}
