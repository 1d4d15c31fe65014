// The tour that every TypeScript client takes through the broker, over the fixture as child.
// Neighbours: `typescript-*/client.mjs` bring an SDK each, `tour.py` is the same tour for Python, and
// `scripts/clients` starts the broker and runs them all. Prints `ok NAME` for each step and exits 1 at the first failure.
//
// An SDK is handed over as
//   client      its Client, not yet connected
//   transport   its Streamable HTTP transport
//   version()   the protocol version agreed on
//   call(name, args, options)     tools/call
//   onRequest(method, handler)    answers the server's requests
//   onNotification(method, handler)

import assert from 'node:assert/strict';
import { setTimeout as after } from 'node:timers/promises';

const STEP_MS = 15_000; // the longest any one step may take
const WATCHED = 'test://watched-resource';
const LEGACY = ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25'];

export const [url, token, ...flags] = process.argv.slice(2);
export const headers = { Authorization: `Bearer ${token}` };
export const clientInfo = { name: 'tour', version: '1.0.0' };
export const capabilities = { sampling: {}, elicitation: { form: {} }, roots: { listChanged: true } };

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

export async function tour(sdk) {
  const { client, transport, call } = sdk;
  const logs = new Inbox();
  const updates = new Inbox();
  const toolChanges = new Inbox();
  const promptChanges = new Inbox();
  sdk.onNotification('notifications/message', logs.put);
  sdk.onNotification('notifications/resources/updated', updates.put);
  sdk.onNotification('notifications/tools/list_changed', toolChanges.put);
  sdk.onNotification('notifications/prompts/list_changed', promptChanges.put);
  sdk.onRequest('sampling/createMessage', () => ({
    model: 'none',
    role: 'assistant',
    stopReason: 'endTurn',
    content: { type: 'text', text: 'sampled by the tour' },
  }));
  sdk.onRequest('elicitation/create', () => ({ action: 'accept', content: { name: 'tour-name' } }));
  sdk.onRequest('roots/list', () => ({ roots: [{ uri: 'file:///tour-root', name: 'tour' }] }));

  /** The params of the first such notification that has reached the child. */
  const heard = async (method) => {
    for (;;) {
      const all = JSON.parse(text(await call('received', {})));
      const found = all.find((notification) => notification.method === method);
      if (found) return found.params;
      await after(20);
    }
  };

  await step('connect', async () => {
    await client.connect(transport);
    assert.ok(client.getServerVersion().name, 'the server has a name');
    assert.ok(LEGACY.includes(sdk.version()), `protocol version ${sdk.version()}`);
    assert.match(transport.sessionId, /^[0-9a-f]{48}$/);
  });
  await step('ping', () => client.ping());
  await step('tools/list', async () => {
    assert.ok(ids((await client.listTools()).tools, 'name').includes('echo'));
  });
  await step('resources/list', async () => {
    assert.ok(ids((await client.listResources()).resources, 'uri').includes('test://static-text'));
  });
  await step('prompts/list', async () => {
    assert.ok(ids((await client.listPrompts()).prompts, 'name').includes('test_simple_prompt'));
  });
  await step('prompts/get', async () => {
    assert.ok((await client.getPrompt({ name: 'test_simple_prompt' })).messages.length > 0);
  });

  await step('tools/call', async () => {
    for (const said of ['hello', 'a\u2028b \u{1f980} "\\n"', 'x'.repeat(256 * 1024)]) {
      assert.equal(echoed(await call('echo', { text: said })), said);
    }
  });
  await step('thirty-two calls at once', async () => {
    const said = Array.from({ length: 32 }, (_, i) => `call ${i}`);
    const answers = await Promise.all(said.map((one) => call('echo', { text: one })));
    assert.deepEqual(answers.map(echoed), said);
  });
  await step('tool error', async () => {
    assert.equal((await call('test_error_handling', {})).isError, true);
  });
  await step('protocol error', async () => {
    await assert.rejects(client.getPrompt({ name: 'there is no such prompt' }), (error) => typeof error.code === 'number');
  });

  await step('progress', async () => {
    const seen = [];
    await call('count', { n: 5, delay_ms: 20 }, { onprogress: ({ progress }) => seen.push(progress) });
    assert.deepEqual(seen, [1, 2, 3, 4, 5]);
  });
  await step('logging', async () => {
    await client.setLoggingLevel('info');
    await call('log', { n: 3, level: 'info' });
    for (const { level } of (await logs.reached(3)).slice(0, 3)) assert.equal(level, 'info');
  });

  await step('sampling', async () => {
    assert.match(text(await call('ask', { kind: 'sampling' })), /sampled by the tour/);
  });
  await step('elicitation', async () => {
    assert.match(text(await call('ask', { kind: 'elicitation' })), /tour-name/);
  });
  await step('roots', async () => {
    assert.match(text(await call('ask', { kind: 'roots' })), /tour-root/);
  });
  await step('roots changed', async () => {
    await client.sendRootsListChanged();
    await heard('notifications/roots/list_changed');
  });

  await step('resources/read', async () => {
    const { contents } = await client.readResource({ uri: 'test://static-text' });
    assert.ok(contents[0].text.length > 0);
  });
  await step('resource updated', async () => {
    await client.subscribeResource({ uri: WATCHED });
    await call('notify', { method: 'notifications/resources/updated', params: { uri: WATCHED } });
    assert.equal((await updates.reached(1))[0].uri, WATCHED);
    await client.unsubscribeResource({ uri: WATCHED });
  });
  await step('list changed, while a call is open', async () => {
    await call('notify', { method: 'notifications/tools/list_changed' });
    await toolChanges.reached(1);
  });
  await step('list changed, on the GET stream', async () => {
    await call('notify_after', { method: 'notifications/prompts/list_changed', ms: 100 });
    await promptChanges.reached(1);
  });

  await step('cancellation', async () => {
    const stop = new AbortController();
    const started = new Inbox();
    const count = call('count', { n: 600, delay_ms: 100 }, { signal: stop.signal, onprogress: started.put });
    await started.reached(1);
    stop.abort('enough');
    await assert.rejects(count);
    assert.equal((await heard('notifications/cancelled')).reason, 'enough');
  });

  await step('nothing has come twice', async () => {
    const seen = { logs, updates, toolChanges, promptChanges };
    const counts = Object.entries(seen).map(([name, inbox]) => [name, inbox.length]);
    assert.deepEqual(Object.fromEntries(counts), { logs: 3, updates: 1, toolChanges: 1, promptChanges: 1 });
  });
  await step('close', async () => {
    const session = transport.sessionId;
    await transport.terminateSession();
    await client.close();
    const gone = await fetch(url, {
      method: 'POST',
      headers: {
        ...headers,
        Accept: 'application/json, text/event-stream',
        'Content-Type': 'application/json',
        'Mcp-Session-Id': session,
      },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' }),
    });
    assert.equal(gone.status, 404, 'the ended session');
  });
}
