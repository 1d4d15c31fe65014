// `@modelcontextprotocol/client`, the second generation of the TypeScript SDK:
// `node client.mjs URL TOKEN ERA CHILD [MODE]`. MODE is its version negotiation: without one, its default; `auto` asks
// for the modern era first; a version speaks that one and no other.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

import { capabilities, clientInfo, flags, headers, tour, url } from './tour.mjs';

const [flag] = flags;
const mode = /^\d/.test(flag) ? { pin: flag } : flag;
const client = new Client(clientInfo, { capabilities, ...(mode && { versionNegotiation: { mode } }) });

await tour({
  client,
  transport: new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }),
  version: () => client.getNegotiatedProtocolVersion(),
  call: (name, args, options, _meta) => client.callTool({ name, arguments: args, _meta }, options),
  onRequest: (method, handler) => client.setRequestHandler(method, handler),
  onNotification: (method, handler) => client.setNotificationHandler(method, ({ params }) => handler(params)),
});
