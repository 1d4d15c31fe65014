// A server on `@modelcontextprotocol/server`, the second generation of the TypeScript SDK, on stdio:
// `node ts-2.mjs ERA`. `legacy` is how a server of the first generation is carried over, `dual` and `modern` are what
// the SDK recommends now. It offers what `ts-1.mjs` does; a tool that asks returns its question, whichever era the
// client speaks.

import { McpServer, acceptedContent, inputRequired } from '@modelcontextprotocol/server';
import { StdioServerTransport, serveStdio } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';

const NOTE = 'note://today';
const [era] = process.argv.slice(2);
const text = (said) => ({ content: [{ type: 'text', text: said }] });
const capabilities = { resources: { subscribe: true } };

function serve() {
  const mcp = new McpServer({ name: `ts-2-${era}`, version: '1.0.0' }, { capabilities });

  mcp.registerTool('count', { inputSchema: z.object({ n: z.number() }) }, async ({ n }, { mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken;
    for (let progress = 1; progress <= n && progressToken !== undefined; progress++) {
      await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: n } });
    }
    return text(`counted to ${n}`);
  });
  mcp.registerTool('greet', {}, async ({ mcpReq }) => {
    const requestedSchema = z.object({ name: z.string() });
    const given = acceptedContent(mcpReq.inputResponses, 'who', requestedSchema);
    if (given) return text(`hello ${given.name}`);
    const who = inputRequired.elicit({ message: 'What is your name?', requestedSchema });
    return inputRequired({ inputRequests: { who } });
  });
  mcp.registerTool('think', {}, async ({ mcpReq }) => {
    const given = mcpReq.inputResponses?.thought;
    if (given) return text(`thought ${given.content.text}`);
    const messages = [{ role: 'user', content: { type: 'text', text: 'Say something.' } }];
    const thought = inputRequired.createMessage({ messages, maxTokens: 10 });
    return inputRequired({ inputRequests: { thought } });
  });
  mcp.registerTool('touch', {}, async () => {
    await mcp.server.sendResourceUpdated({ uri: NOTE });
    return text('touched');
  });
  mcp.registerTool('grow', {}, async () => {
    mcp.registerTool('grown', {}, async () => text('a tool that has come later')); // tells the client by itself
    return text('grown');
  });
  const contents = [{ uri: NOTE, text: 'a note' }];
  mcp.registerResource('today', NOTE, { mimeType: 'text/plain' }, async () => ({ contents }));
  mcp.server.setRequestHandler('resources/subscribe', () => ({}));
  mcp.server.setRequestHandler('resources/unsubscribe', () => ({}));
  return mcp;
}

if (era === 'legacy') await serve().connect(new StdioServerTransport());
else serveStdio(serve, { legacy: era === 'dual' ? 'serve' : 'reject' });
