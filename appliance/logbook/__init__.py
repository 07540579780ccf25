"""The delivery log: five kinds of event, and no more than each domain's log level allows.

`events.py` decides what an event may say, `mover.py` takes events from the spool's outbox to the record store,
`reading.py` reads them back, `messages.py` puts them together to messages and counts them by day. `live.py` is the
engine's side of following; `feed.py` the control process's, which follows the engine once for all who follow
(`subscribers.py`, `remembered.py`). Reception and delivery ask for events and hand them to the spool, which makes them
durable in the same group as what they report; so a crash neither loses nor doubles one. `counts.py` counts what became
of deliveries, whatever a level says, because a number is about nobody.

Where several nodes write the log, `horizon.py` says how far it is whole, and `places.py` where what came late has its
place; `sources.py` is where the feed hears of it.

Beside it is the log of HTTP: `requests.py`.
"""
