"""Accounts, domains, aliases and destinations: the rules by which people may change them.

Every change of who forwards what passes through here, whoever asks for it: the command line now, the API the same way.
A rule that is broken raises `Refused`, with a sentence that says what to do instead. What is allowed is written to the
record store as one change that ends by raising the routing generation, so that a running appliance sees it within a
second.

Four nouns, a file each: `accounts.py`, `domains.py`, `aliases.py`, `destinations.py`; `names.py` reads what people
type, `alias_rules.py` and `loops.py` try an alias before it is stored, `ownership.py` asks the DNS whose a domain is,
and `consent.py` the owners of mailboxes whether they agree.

What does not live here: where a message goes (`appliance.routing`), and sessions and tokens. Nothing here knows Trio;
whoever calls decides which thread waits for the disk.
"""
