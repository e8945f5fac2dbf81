// A tour of the API with the generated types: account, endpoint, event, delivery, attempts, resend.
// Prints one JSON object.
import createClient, { type Client } from "openapi-fetch";
import type { components, paths, webhooks } from "./uplift.js";

declare const process: { env: Record<string, string> };
const { UPLIFT_API_URL: baseUrl = "", UPLIFT_API_KEY: operatorKey = "", RECEIVER_URL: url = "" } = process.env;

type Athlete = webhooks["athlete.created"]["post"]["requestBody"]["content"]["application/json"];
type Problem = components["schemas"]["Problem"];

function connect(key: string): Client<paths> {
  return createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });
}

function valid<T>(result: { data?: T; error?: Problem; response: Response }): T {
  if (result.data === undefined) throw new Error(`${result.response.status} ${JSON.stringify(result.error)}`);
  return result.data;
}

async function until<T>(get: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < 200; tries++) {
    const found = await get();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("not within 10 s");
}

const operator = connect(operatorKey);
const params = { header: { "Idempotency-Key": "typescript tour" } };
const body = { name: "TypeScript tour", contact_emails: ["coach@example.com"] };
const account = valid(await operator.POST("/v1/accounts", { params, body }));
const repeated = await operator.POST("/v1/accounts", { params, body });
const key = valid(
  await operator.POST("/v1/accounts/{account}/keys", {
    params: { path: { account: account.id } },
    body: { name: "tour", scopes: ["events:write", "endpoints:read", "endpoints:write", "deliveries:read", "deliveries:write", "events:read"] },
  }),
);

const client = connect(key.key ?? "");
const endpoint = valid(await client.POST("/v1/endpoints", { body: { url, event_types: ["athlete.created"] } }));
const changed = valid(
  await client.PATCH("/v1/endpoints/{endpoint}", {
    params: { path: { endpoint: endpoint.id } },
    body: { description: "tour" },
  }),
);

const athlete: Athlete["data"] = { object: { id: "a1", first_name: "Mara", custom_attributes: { team: "Rapids" } } };
const event = valid(await client.POST("/v1/events", { body: { type: "athlete.created", data: athlete } }));
const delivery = await until(async () => {
  const { data } = valid(
    await client.GET("/v1/events/{event}/deliveries", { params: { path: { event: event.id } } }),
  );
  return data.find((each) => each.status === "delivered");
});
const attempts = async () =>
  valid(
    await client.GET("/v1/deliveries/{delivery}/attempts", {
      params: { path: { delivery: delivery.id }, query: { limit: 10 } },
    }),
  ).data;
const before = await attempts();
valid(await client.POST("/v1/deliveries/{delivery}/resend", { params: { path: { delivery: delivery.id } } }));
const after = await until(async () => {
  const found = await attempts();
  return found.length > before.length ? found : undefined;
});
const filtered = valid(
  await client.GET("/v1/deliveries", { params: { query: { status: ["delivered", "failed"], type: ["athlete.created"] } } }),
);

const rejected = await client.POST("/v1/endpoints", { body: { url: "ftp://example.com" } });
const missing = await client.GET("/v1/deliveries/{delivery}", { params: { path: { delivery: "dlv_none" } } });

// Each of these lines must be a type error.
// @ts-expect-error The data of an event is an object.
void (() => client.POST("/v1/events", { body: { type: "athlete.created", data: 5 } }));
// @ts-expect-error There is no such status.
void (() => client.GET("/v1/deliveries", { params: { query: { status: ["lost"] } } }));
// @ts-expect-error The type of this event is constant.
void (({ type }: Athlete): "athlete.updated" => type);

console.log(
  JSON.stringify({
    account: account.id,
    replayed: repeated.response.headers.get("Idempotency-Replayed"),
    endpoint: endpoint.id,
    secret: endpoint.secret,
    description: changed.description,
    event: event.id,
    delivery: delivery.id,
    outcomes: after.map((each) => [each.number, each.trigger, each.outcome]),
    filtered: filtered.data.map((each) => each.id),
    rejected: [rejected.error?.code, rejected.error?.errors?.[0]?.field],
    missing: [missing.response.status, missing.error?.code],
  }),
);
