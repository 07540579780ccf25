"""Taking mail onward: which delivery next, to which host, and what follows from the answer.

`scheduler.py` decides when and how many at once, `hosts.py` finds the hosts of a destination, `connecting.py` makes a
connection to one of them, encrypted as far as it can be or has to be, `courier.py` does one connection's worth of work
and returns an outcome for each delivery, `settlement.py` turns outcomes into what the spool and the log have to write
down and the sender has to hear, `schedule.py` says when to try again and when to give up, `operator.py` is the queue as
an operator sees and steers it.

Everything here belongs to the engine; it reads from the spool and writes to it, and knows nothing of how mail came in.
"""
