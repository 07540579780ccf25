"""The nouns of the appliance as plain frozen values.

Accounts, domains, aliases, deliveries, events and the rest, with no behaviour beyond what follows from their own
fields: no clock, no store, no socket, no policy. Beside them stands what every room says the same way: names that are
typed (`names.py`), and what is turned down (`refused.py`). Every room may import this one; it imports only
`smtp.address`.

An instant is always an `int`: milliseconds since 1970-01-01T00:00:00Z. A duration is an `int` of milliseconds too,
and its name ends in `_ms`. (`time.py` turns both into text and back.)
"""
