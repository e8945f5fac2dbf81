// A receiver with the public npm packages. A request must verify with both. SECRET is the secret.
// Prints `listening on <port>` when the port accepts connections. GET /received returns the received requests as JSON.
const http = require("node:http");
const standardwebhooks = require("standardwebhooks");
const svix = require("svix");

const verifiers = [new standardwebhooks.Webhook(process.env.SECRET), new svix.Webhook(process.env.SECRET)];
const received = { verified: 0, rejected: 0, ids: [] };

function submit(body, headers) {
  try {
    const [event] = verifiers.map((verifier) => verifier.verify(body, headers));
    received.verified += 1;
    received.ids.push(event.id);
    return 204;
  } catch {
    received.rejected += 1;
    return 400;
  }
}

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    if (request.method === "GET") response.end(JSON.stringify(received));
    else response.writeHead(submit(Buffer.concat(pieces), request.headers)).end();
  });
});
server.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
