"""Taking mail from strangers: what MAIL, RCPT and the final dot get for an answer.

`decision.py` decides about one recipient (the very code that `explain` runs), `session.py` is the receiver that the
SMTP server asks throughout one connection (`transaction.py`: what it knows of a message), `client_names.py` finds out
who called. Reception hands what it has taken to the spool, and tells a `Next` that there is work; it knows nothing of
deliveries beyond that. Mail in transit mode is never taken in this sense: `transit.py` asks `NextHops` and waits for
them, `refusals.py` has their answers in words for the sender, and `transit_memory.py` holds what has to be known when
the sender tries again. `plan_limits.py` has what an account's plan allows, and `day_counts.py` how much of that has
come today. `submission.py` takes the letters of the appliance's own, which come from no stranger.
"""
