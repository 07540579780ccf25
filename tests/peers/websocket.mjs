// Speaks with a server by the package graphql-ws: queries, mutations, subscriptions, pings, completion and errors, many
// at once over one connection. Prints what it has seen as JSON.

import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, authorization] = process.argv.slice(2);
const seen = { closed: null, pongs: 0 };
let ponged, ended;
const pong = new Promise((resolve) => { ponged = resolve; });
const end = new Promise((resolve) => { ended = resolve; });

const client = createClient({
  url,
  webSocketImpl: WebSocket,
  lazy: false,
  keepAlive: 50,
  connectionParams: authorization ? { authorization } : undefined,
  retryAttempts: 0,
  onNonLazyError: () => {},
  on: {
    closed: ({ code }) => { seen.closed = code; ended(); },
    pong: (received) => { if (received) { seen.pongs += 1; ponged(); } },
  },
});

async function answers(query, variables) {
  const all = [];
  try {
    for await (const answer of client.iterate({ query, variables })) all.push(answer);
  } catch (errors) {
    return { errors: Array.isArray(errors) ? errors.map((one) => one.extensions.code) : String(errors) };
  }
  return all;
}

seen.query = await answers("query ($id: ID!) { status { version } node(id: $id) { id } }", { id: "x" });
seen.mutation = await answers('mutation { addDomain(name: "example.org") { domain { name } errors { code } } }');
seen.invalid = await answers("{ nothing }");
seen.together = (await Promise.all(Array.from({ length: 20 }, () => answers("{ status { version } }")))).length;

// A subscription that is given up, and one whose id is used again after it.
const following = client.iterate({ query: "subscription { deliveryEvents { id } }" });
const first = following.next();
await answers("{ status { version } }");
await following.return();
seen.givenUp = (await first).done;

await pong;
await client.dispose();
await end;
console.log(JSON.stringify(seen));
process.exit(0);
