// Writes a line per input line; see tests/receiver/toolchains.py. The argument is the snippet of docs/receiving.md.
const crypto = require("node:crypto");
const readline = require("node:readline");

// The article "Webhook secrets": the HMAC of the body, with the secret's text as the key, in constant time.
function verifyAsTheArticle(secret, body, signature) {
  const expected = "sha256=" + crypto.createHmac("sha256", secret).update(body).digest("hex");
  return crypto.timingSafeEqual(Buffer.from(expected), Buffer.from(signature));
}

function verifyWithPackage(name, { secret, body, headers }) {
  const { Webhook } = require(name);
  new Webhook(secret).verify(body, headers);
  return true;
}

function signWithPackage(name, { secret, body, headers }) {
  const { Webhook } = require(name);
  return new Webhook(secret).sign(headers["webhook-id"], new Date(Number(headers["webhook-timestamp"]) * 1000), body);
}

const VERBS = {
  guide: ({ secret, body, headers, now }) => require(process.argv[2]).verify(secret, body, headers, now),
  article: ({ secret, body, uplift }) => verifyAsTheArticle(secret, body, uplift),
  standardwebhooks: (input) => verifyWithPackage("standardwebhooks", input),
  svix: (input) => verifyWithPackage("svix", input),
  "standardwebhooks signs": (input) => signWithPackage("standardwebhooks", input),
  "svix signs": (input) => signWithPackage("svix", input),
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const fields = line.split("\t").map((field) => (field === "-" ? undefined : Buffer.from(field, "base64")));
  const [verb, secret, now, , id, timestamp, signatures, uplift] = fields.map((field) => field?.toString());
  const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures };
  Date.now = () => Number(now) * 1000;
  try {
    console.log(String(VERBS[verb]({ secret, body: fields[3], headers, uplift, now: Number(now) })));
  } catch (error) {
    console.log(`error: ${error.message.split("\n")[0]}`);
  }
});
