"""What may be stored, where, why and for how long; and the keys and the broom that make it so.

`declarations.py` is the one place where a class of stored data can come into being: the storage backends build their
tables from it and refuse anything else, the sweeper deletes by it, and the policy will be printed from it. `sealing.py`
holds the cryptography of sealed and keyed fields, `secrets.py` the files the keys live in, `sweeper.py` the broom.

Nothing here knows SQL, sockets or SMTP. `declarations` and `sealing` may be imported by storage; the rest is for the
composition roots.
"""
