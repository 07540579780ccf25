// Connects by the package graphql-ws with a token that is no good, and prints how the connection was closed.

import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, authorization] = process.argv.slice(2);
const client = createClient({
  url,
  webSocketImpl: WebSocket,
  connectionParams: { authorization },
  retryAttempts: 0,
  on: { closed: ({ code, reason }) => console.log(JSON.stringify({ code, reason })) },
});
client.subscribe({ query: "{ status { version } }" }, { next() {}, error() {}, complete() {} });
