"""RFC 5321, both ends.

Two pure sessions (octets in, events out; no clock, no socket) and a thin Trio driver for each. Usable alone: nothing in
here knows of aliases, stores or policy, and it imports the standard library and trio, nothing else.
"""
