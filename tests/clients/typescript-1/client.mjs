// `@modelcontextprotocol/sdk`, the first generation of the TypeScript SDK: `node client.mjs URL TOKEN legacy CHILD`.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import * as types from '@modelcontextprotocol/sdk/types.js';

import { capabilities, clientInfo, headers, tour, url } from './tour.mjs';

// This generation names what it handles by schema, not by method.
const schemas = new Map(
  [
    types.CreateMessageRequestSchema,
    types.ElicitRequestSchema,
    types.ListRootsRequestSchema,
    types.LoggingMessageNotificationSchema,
    types.ResourceUpdatedNotificationSchema,
    types.ToolListChangedNotificationSchema,
    types.PromptListChangedNotificationSchema,
  ].map((schema) => [schema.shape.method.value, schema]),
);

const client = new Client(clientInfo, { capabilities });
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });

await tour({
  client,
  transport,
  version: () => transport.protocolVersion,
  call: (name, args, options, _meta) => client.callTool({ name, arguments: args, _meta }, undefined, options),
  onRequest: (method, handler) => client.setRequestHandler(schemas.get(method), handler),
  onNotification: (method, handler) =>
    client.setNotificationHandler(schemas.get(method), ({ params }) => handler(params)),
});
