// `@modelcontextprotocol/client`, the second generation of the TypeScript SDK, on the trip in `trip.mjs`.

import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';

import { clientInfo, trip, url } from './trip.mjs';

await trip({
  open: (authProvider) => ({
    client: new Client(clientInfo),
    transport: new StreamableHTTPClientTransport(new URL(url), { authProvider }),
  }),
  unauthorized: UnauthorizedError,
  finish: (transport, parameters) => transport.finishAuth(parameters),
});
