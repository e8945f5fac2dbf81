// A certified OpenID provider whose pages sign in every name with any password.
// Arguments: the directory of the packages, and the URL of the server under test. Prints its issuer.
import { once } from 'node:events';
import http from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [packages, server] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(join(packages, 'oidc-provider/lib/index.js')));

const people = {
  ann: { email: 'ann@example.com', email_verified: true, name: 'Ann Rivers', groups: ['staff'] },
  eve: { email: 'ann@example.com', email_verified: false, name: 'Eve', groups: [] },
  olga: { email: 'olga@example.com', email_verified: true, name: 'Olga Park', groups: ['staff', 'operators'] },
  rae: { email: 'rae@example.com', email_verified: true, name: 'Rae Stone', groups: ['staff', 'support'] },
};

const listener = http.createServer();
listener.listen(0, '127.0.0.1');
await once(listener, 'listening');
const issuer = `http://127.0.0.1:${listener.address().port}`;
const provider = new Provider(issuer, {
  clients: [{
    client_id: 'uplift',
    client_secret: 'a-secret-of-the-tests',
    redirect_uris: [`${server}/sign-in/oidc/callback`],
    post_logout_redirect_uris: [`${server}/sign-in`],
  }],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'groups'] },
  cookies: { keys: ['a key of the tests'] },
  features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
  pkce: { required: () => true },
  findAccount: (_, id) => ({ accountId: id, claims: async () => ({ sub: id, ...people[id] }) }),
});
listener.on('request', provider.callback());
console.log(issuer);
