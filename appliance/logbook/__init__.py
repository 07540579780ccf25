"""The delivery log: five kinds of event, and no more than each domain's log level allows.

`events.py` decides what an event may say, `mover.py` takes events from the spool's outbox to the record store,
`reading.py` reads them back, `live.py` tells whoever follows. Reception and delivery ask for events and hand them to
the spool, which makes them durable in the same group as what they report; so a crash neither loses nor doubles one.
"""
