"""Mail under way: what is between a sender's final dot and a next hop's 250.

`spool.py` has the verbs that reception and delivery use, `committer.py` the thread that makes them durable in groups.
`clocks.py` is the time by which mail waits; `uses.py` counts what an alias has taken with the very accept, and
`use_copies.py` shows it to people; `sharing.py` is for nodes that have one spool together. How it stands on the disk
is the business of `appliance.storage`; when to deliver and what an outcome means is that of `appliance.delivery`. A
message is nothing but its deliveries and its content:

    begin -> append -> commit      arriving; the 250 waits for commit, which is durable when it returns
                    \\-> abort      the sender went away or was refused: nothing of it is left
    claim -> complete              leaving: delivered or bounced, and erased in that very group
          \\-> keep                 deferred, or held by an operator: the next attempt is written down
"""
