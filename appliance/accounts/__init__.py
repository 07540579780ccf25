"""Accounts, domains, aliases and destinations: the rules by which people may change them.

Every change of who forwards what passes through here, whoever asks for it, the command line or the API.
A rule that is broken raises `Refused`, with a sentence that says what to do instead. What is allowed is written to the
record store as one change that ends by announcing what it was about (`appliance.routing.changes`), so that a running
appliance sees it within a second.

A file for each noun: `accounts.py`, `domains.py`, `aliases.py`, `destinations.py`, `blocks.py`, `help.py`. `names.py`
and `texts.py` read what people type, `alias_rules.py` and `loops.py` try an alias before it is stored, `ownership.py`
asks the DNS whose a domain is, and `consent.py` the owners of mailboxes whether they agree. `reach.py` says whose mail
and log somebody may see. `deletion.py` and `export.py` go by `belongings.py`: all that belongs to an account.

What does not live here: where a message goes (`appliance.routing`), and who may come in (`appliance.access`). Nothing
here knows Trio; whoever calls decides which thread waits for the disk.
"""
