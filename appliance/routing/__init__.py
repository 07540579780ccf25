"""Where a message for an address goes: aliases looked up in memory.

`snapshot.py` is the routing table as it stood at one generation of the records, `hosted.py` one domain of it, with its
aliases packed, and `shared_map.py` how each table shares with the one before what has not changed. `route.py` has the
rules that turn an address into a reply and destinations, `patterns.py` aliases that are expressions, `blocked.py` who
is refused whatever they bring, `explained.py` what is told of it. The same call answers RCPT and `explain`, and no
store is asked while a sender waits.

Each change of the records is announced in the batch that makes it (`changes.py`). Whoever runs the appliance has a
`Follower` (`following.py`) look for announcements, which loads what they are about (`loading.py`) and nothing else. All
of it is synchronous: whoever calls decides which thread waits for the store.

Addresses are compared by their `key`: in lower case, composed (NFC), and with the domain in A-labels, so that every
spelling of an address that a sender may use finds the same alias.

Precedence, one rule: the most particular alias wins.

1. the alias of the full local part (`plus+tag`);
2. the alias of the local part without its detail (`plus`), the detail being what follows the first `+`;
3. the wildcard with the longest prefix (`sales*` before `s*`);
4. the expression that was made first of those that find something in the local part (`patterns.py`);
5. the catch-all (`*`);
6. `postmaster`, which exists everywhere (RFC 5321 §4.5.1) and leads to the operator where no alias leads it elsewhere.

An alias that is disabled, has expired or has taken all of its messages still takes its address, and refuses: nothing
falls through to the catch-all. Only mail for postmaster is never refused and never discarded.

A destination counts once its owner has agreed. Who has verified a domain has agreed to its addresses; an address that
another account hosts here needs that account's consent, as any other mailbox.
"""
