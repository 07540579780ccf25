"""Where things are kept: small protocols of verbs, and the backends that implement them.

`records.py` and `spool.py` are the protocols, one screen each; `sqlite_records.py` and `sqlite_spool.py` implement them
on apsw, with tables built from `appliance.privacy.declarations` by `codec.py` and `sqlite_tables.py`. Where several
nodes share them, `mongo_records.py` and `mongo_spool.py` do, on pymongo: `mongo_documents.py` has what a collection is
there, `mongo_database.py` how a server is reached and a database made, `mongo_errors.py` what its errors mean, and
`mongo_batches.py` how several changes are made as one on a server that keeps one document whole and no more. Everything
here is synchronous and knows no Trio: whoever calls decides which thread waits for the disk. `ephemeral.py` is the
third protocol, for what may be forgotten at any time, with `memory_ephemeral.py` and `redis_ephemeral.py` behind it.

What does not live here: what the data mean. Rooms above (accounts, logbook, spool) turn rows into values.
"""
