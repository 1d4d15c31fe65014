// `@modelcontextprotocol/sdk`, the first generation of the TypeScript SDK, on the trip in `trip.mjs`.

import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

import { clientInfo, trip, url } from './trip.mjs';

await trip({
  open: (authProvider) => ({
    client: new Client(clientInfo),
    transport: new StreamableHTTPClientTransport(new URL(url), { authProvider }),
  }),
  unauthorized: UnauthorizedError,
  finish: (transport, parameters) => transport.finishAuth(parameters.get('code')),
});
