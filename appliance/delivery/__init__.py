"""Taking mail onward: which delivery next, to which host, and what follows from the answer.

`scheduler.py` decides when and how many at once (`memory.py`: how many are in memory; `destination.py`: what is
remembered of one destination, `waiting.py`: in which order its mail goes; `outcomes.py`: what has happened is written
down and told; `still_here.py`: why something waits, in words), `hosts.py` finds the hosts of a destination
(`smarthost.py`: the relay in their place), `connecting.py` makes a connection to one of them, encrypted as far as it
can be or has to be, `reaching.py` goes from one host to the next until one talks to us, `courier.py` does one
connection's worth of work and returns an outcome for each delivery (`replies.py`: what each reply comes to;
`attempt.py`: what there is to tell of an attempt; `relay_connections.py`: what couriers share who all go to one relay),
`settlement.py` turns outcomes into what the spool and the log have to write down, `sender_reports.py` into what the
sender has to hear, `schedule.py` says when to try again and when to give up, `operator.py` is the queue as an operator
sees and steers it, `holds.py` has the rules by which one keeps mail back. Mail in transit goes past all that: its
sender waits, and `next_hop.py` asks and sends for it.

Everything here belongs to the engine; it reads from the spool and writes to it, and knows nothing of how mail came in.
"""
