"""What a message needs so that it can be sent onward in our name, and come back.

`srs.py` rewrites the envelope sender and opens what comes back to it; `trace.py` makes the header lines that are put in
front and reads the few header fields we look at; `own_lines.py` marks these lines and knows them again when a message
has gone in a circle; `masking.py` keeps the hidden destination out of every text that a sender, or a log, will see.

Everything here is pure: octets and values in, octets and values out; no clock, no store, no socket, no Trio. Reception
and delivery call it. What does not live here: which alias leads where (routing), and what the reports
say (reports).
"""
