"""What may be stored, where, why and for how long; and the keys and the broom that make it so.

`declarations.py` is the one place where a class of stored data can come into being: the storage backends build their
tables from it and refuse anything else, the sweeper deletes by it (`sweeper.py`), and the policy is printed from it
(`policy.py`). `owners.py` says whose each row is, and in which order what belongs to somebody goes. `sealing.py` holds
the cryptography of sealed and keyed fields, `secrets.py` the files the keys live in. What the appliance, or somebody
for it, puts a signature to: `receipts.py` for deleted accounts, and `canary.py`, over `signatures.py` and
`canonical.py`.

Nothing here knows SQL, sockets or SMTP. What storage builds on lies beneath it; the rest is for the rooms above.
"""
