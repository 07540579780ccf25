"""What faces browsers and programs over HTTP: the GraphQL API, the page that explores it, and health.

The way of a request: `guard.py` serves with Hypercorn under Trio and keeps one bad connection from ending all others;
`http.py` routes and sees to the edges (`exchange.py`: a request and its answer; `negotiation.py`: its media type;
`pages.py`: what a browser is shown, and `privacy_pages.py`: the policy and the canary); `graphql_http.py` and
`graphql_ws.py` speak GraphQL over HTTP and over a websocket; `callers.py` says who asks; `operations.py` reads a
document within `limits.py` and executes it (`execution.py`), in one worker thread (`subscriptions.py`: for each event);
fields call rooms, and `errors.py` tells what went wrong. What is noted of each is said in `watch.py`, and `metrics.py`
shows the numbers of it.

The schema is made of nouns, `nouns/*.py`. To add one:

1.  A class for each type, `@strawberry.type`, with a description for whoever reads the schema. What has an id derives
    from `nouns.node.Node` and says in `found` how it is found; instants are `scalars.DateTime`; lists that grow are
    `paging.Connection`.
2.  Mixins `DomainQueries`, `DomainMutations`, `DomainSubscriptions`, each `@strawberry.type`, whose methods are plain
    `def` (subscriptions: `async def` with `yield`) under `fields.query`, `fields.mutation`, `fields.subscription`. Each
    of these says who may ask. The docstring of the method is the field's description. `nouns/status.py` is an example.
3.  A method takes `info: Info`, reads ids with `ids.stored_id(id, "Domain")`, and calls a room of `info.context.rooms`
    for `info.context.caller`. The rule is the room's. A mutation returns a class that derives from `errors.Payload`;
    `Refused` becomes its `errors` by itself. What is no error of input is raised: `errors.not_found("domain")`.
4.  A new room is a field of `rooms.Rooms`, furnished in `appliance.run.control`.
5.  Add the mixins to `schema.py`, print the schema (`python -m control_api.schema > graphql/schema.graphql`), and give
    each field its row in the matrix of who may ask for what (`tests/api`).

Resolvers run in a worker thread and may block; they reach Trio for nothing. Only subscriptions run under Trio, and may
wait for nothing but Trio.

This room knows the engine only through what it is given. It holds no key of the spool, and may not import reception or
delivery. `appliance.run.control` puts it together.
"""
