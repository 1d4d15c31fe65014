// A generic OpenID Connect provider to sign in with: `node provider.mjs PORT REDIRECT_URI [ACCESS_SECONDS]`; port 0 is
// a free one. Prints its issuer as the first line. Two accounts, alice and bob, any password; one confidential client,
// `broker` with `broker-secret`; PKCE is demanded, refresh tokens are rotated and a second use revokes what came of
// them, and `offline_access` counts only together with `prompt=consent`, as OpenID Connect says. All else is the
// package's default. `scripts/sign-in` starts it.

import http from 'node:http';

import Provider from 'oidc-provider';

const [port, redirectUri, seconds = '3600'] = process.argv.slice(2);
const ACCOUNTS = {
  alice: { sub: 'user-1', name: 'Alice', groups: ['friends', 'friends:owners'] },
  bob: { sub: 'user-2', name: 'Bob', groups: [] },
};

async function findAccount(_ctx, accountId) {
  const found = Object.entries(ACCOUNTS).find(([, { sub }]) => sub === accountId);
  if (!found) return undefined;
  const [login, account] = found;
  const email = `${login}@example.org`;
  return { accountId, claims: async () => ({ ...account, preferred_username: login, email, email_verified: true }) };
}

function configuration() {
  return {
    clients: [
      {
        client_id: 'broker',
        client_secret: 'broker-secret',
        redirect_uris: [redirectUri],
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
      },
    ],
    claims: {
      openid: ['sub'],
      profile: ['name', 'preferred_username'],
      email: ['email', 'email_verified'],
      groups: ['groups'],
    },
    scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
    findAccount,
    pkce: { required: () => true },
    rotateRefreshToken: true,
    features: { devInteractions: { enabled: false }, introspection: { enabled: true }, revocation: { enabled: true } },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    cookies: { keys: ['a test has nothing to hide'] },
    ttl: {
      AccessToken: Number(seconds),
      IdToken: Number(seconds),
      RefreshToken: 86_400,
      Grant: 86_400,
      Session: 86_400,
      Interaction: 600,
    },
  };
}

function page(response, body) {
  response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' });
  response.end(`<!DOCTYPE html>\n<html lang="en"><body>\n${body}\n</body></html>\n`);
}

async function fields(request) {
  let body = '';
  for await (const chunk of request) body += chunk;
  return new URLSearchParams(body);
}

/** The login page and the consent page, whichever is asked for. */
async function interact(provider, request, response) {
  const details = await provider.interactionDetails(request, response);
  const { prompt, params, session, uid } = details;
  if (request.method === 'GET') {
    if (prompt.name === 'login') {
      page(response, `<h1>Sign in</h1><form method="post" action="/interaction/${uid}">
<label>User <input name="login"></label> <label>Password <input type="password" name="password"></label>
<button>Sign in</button></form>`);
    } else {
      page(response, `<h1>Authorize</h1><form method="post" action="/interaction/${uid}">
<button name="answer" value="continue">Continue</button> <button name="answer" value="abort">Abort</button></form>`);
    }
    return;
  }
  const form = await fields(request);
  let result;
  if (prompt.name === 'login') {
    const account = ACCOUNTS[form.get('login')];
    const refusal = { error: 'access_denied', error_description: 'no such user' };
    result = account ? { login: { accountId: account.sub } } : refusal;
  } else if (form.get('answer') === 'abort') {
    result = { error: 'access_denied', error_description: 'the user does not want to' };
  } else {
    const { accountId } = session;
    const grant = details.grantId
      ? await provider.Grant.find(details.grantId)
      : new provider.Grant({ accountId, clientId: params.client_id });
    const { missingOIDCScope = [], missingOIDCClaims = [] } = prompt.details;
    if (missingOIDCScope.length) grant.addOIDCScope(missingOIDCScope.join(' '));
    if (missingOIDCClaims.length) grant.addOIDCClaims(missingOIDCClaims);
    result = { consent: { grantId: await grant.save() } };
  }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

const server = http.createServer();
server.listen(Number(port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration());
  provider.on('server_error', (_ctx, error) => console.error(error));
  const served = provider.callback();
  server.on('request', (request, response) => {
    if (!request.url.startsWith('/interaction/')) served(request, response);
    else {
      interact(provider, request, response).catch((error) => {
        response.writeHead(400, { 'Content-Type': 'text/plain' });
        response.end(String(error));
      });
    }
  });
  console.log(issuer);
});
