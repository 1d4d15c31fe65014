// Visits real servers through the broker: `node visit.mjs URL FILE`. URL is the broker's `/mcp`, FILE is a file in the
// directory that the `filesystem` server may read. Started by `scripts/servers`, which runs the broker over all three.
// One line for each: its name, what it says it is, what it offers, and what one call of a tool came back with.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const [url, file] = process.argv.slice(2);

/** Each server, one of its tools, and what must be in the answer. */
const visits = [
  { server: 'everything', tool: 'get-sum', args: { a: 20, b: 22 }, answer: '42' },
  { server: 'filesystem', tool: 'read_text_file', args: { path: file }, answer: readFileSync(file, 'utf8') },
  // Nothing listens where this one looks for its Gitea: that it says so shows that the call has reached it.
  { server: 'gitea', tool: 'list_repos', args: {}, answer: /connect|unreachable|network/i, isError: true },
];

for (const { server, tool, args, answer, isError } of visits) {
  const client = new Client({ name: 'visit', version: '1.0.0' });
  const transport = new StreamableHTTPClientTransport(new URL(`${url}/${server}`));
  await client.connect(transport);
  const { tools } = await client.listTools();
  const result = await client.callTool({ name: tool, arguments: args });
  const text = result.content.map((content) => content.text).join('\n');
  if (answer instanceof RegExp) assert.match(text, answer);
  else assert.ok(text.includes(answer), `${server}: ${tool} answered ${JSON.stringify(text)}`);
  assert.equal(result.isError ?? false, isError ?? false, `${server}: ${tool} answered ${JSON.stringify(result)}`);
  await transport.terminateSession();
  await client.close();

  const { name, version } = client.getServerVersion();
  console.log(`ok /mcp/${server}: ${name} ${version}, ${tools.length} tools, ${tool} answers ${JSON.stringify(text)}`);
}
