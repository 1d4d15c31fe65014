// A server on `@modelcontextprotocol/sdk`, the first generation of the TypeScript SDK: legacy, on stdio. It offers what
// all the small servers beside it do, and `visit.mjs` asks for: tools that report progress, ask the user, ask the
// model, say that the one resource has changed, and bring a tool more.

import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { SubscribeRequestSchema, UnsubscribeRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { z } from 'zod';

const NOTE = 'note://today';
const text = (said) => ({ content: [{ type: 'text', text: said }] });
const subscribed = new Set();

const capabilities = { resources: { subscribe: true } };
const mcp = new McpServer({ name: 'ts-1', version: '1.0.0' }, { capabilities });

mcp.registerTool('count', { inputSchema: { n: z.number() } }, async ({ n }, { _meta, sendNotification }) => {
  const progressToken = _meta?.progressToken;
  for (let progress = 1; progress <= n && progressToken !== undefined; progress++) {
    await sendNotification({ method: 'notifications/progress', params: { progressToken, progress, total: n } });
  }
  return text(`counted to ${n}`);
});
mcp.registerTool('greet', {}, async () => {
  const requestedSchema = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] };
  const { action, content } = await mcp.server.elicitInput({ message: 'What is your name?', requestedSchema });
  return text(action === 'accept' ? `hello ${content.name}` : action);
});
mcp.registerTool('think', {}, async () => {
  const messages = [{ role: 'user', content: { type: 'text', text: 'Say something.' } }];
  const { content } = await mcp.server.createMessage({ messages, maxTokens: 10 });
  return text(`thought ${content.text}`);
});
mcp.registerTool('touch', {}, async () => {
  if (subscribed.has(NOTE)) await mcp.server.sendResourceUpdated({ uri: NOTE });
  return text('touched');
});
mcp.registerTool('grow', {}, async () => {
  mcp.registerTool('grown', {}, async () => text('a tool that has come later')); // tells the client by itself
  return text('grown');
});
const contents = [{ uri: NOTE, text: 'a note' }];
mcp.registerResource('today', NOTE, { mimeType: 'text/plain' }, async () => ({ contents }));
mcp.server.setRequestHandler(SubscribeRequestSchema, ({ params }) => (subscribed.add(params.uri), {}));
mcp.server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => (subscribed.delete(params.uri), {}));

await mcp.connect(new StdioServerTransport());
