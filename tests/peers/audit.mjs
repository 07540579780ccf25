// Audits a server for GraphQL over HTTP with the package graphql-http, and prints what did not go well as JSON.

import { auditServer } from "graphql-http";

const results = await auditServer({ url: process.argv[2] });
const failed = results.filter((one) => one.status !== "ok").map(({ id, name, reason }) => ({ id, name, reason }));
console.log(JSON.stringify({ audits: results.length, failed }));
