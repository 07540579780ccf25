"""Where things are kept: small protocols of verbs, and the backends that implement them.

`records.py` and `spool.py` are the protocols, one screen each; `sqlite_records.py` and `sqlite_spool.py` implement them
on apsw, with tables built from `appliance.privacy.declarations` by `codec.py` and `sqlite_tables.py`. Everything here
is synchronous and knows no Trio: whoever calls decides which thread waits for the disk. `ephemeral.py` is the third
protocol, for what may be forgotten at any time, with `memory_ephemeral.py` behind it.

What does not live here: what the data mean. Rooms above (accounts, logbook, spool) turn rows into values.
"""
