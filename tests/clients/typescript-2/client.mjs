// `@modelcontextprotocol/client`, the second generation of the TypeScript SDK: `node client.mjs URL TOKEN [MODE]`.
// MODE is its version negotiation: without one, its default; `auto` asks for the modern era first.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

import { capabilities, clientInfo, flags, headers, tour, url } from './tour.mjs';

const [mode] = flags;
const client = new Client(clientInfo, { capabilities, ...(mode && { versionNegotiation: { mode } }) });

await tour({
  client,
  transport: new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }),
  version: () => client.getNegotiatedProtocolVersion(),
  call: (name, args, options) => client.callTool({ name, arguments: args }, options),
  onRequest: (method, handler) => client.setRequestHandler(method, handler),
  onNotification: (method, handler) => client.setNotificationHandler(method, ({ params }) => handler(params)),
});
