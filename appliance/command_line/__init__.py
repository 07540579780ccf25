"""The command `onward`: what people type, and what they read.

A file for each noun (`account.py`, `domain.py`, `alias.py`, `queue.py`, `log.py`, ...), none of which holds a rule:
each reads its arguments, asks the room that knows, and prints. `root.py` puts the tree together and turns every
expected error into one line and an exit status; `invocation.py` is what one run of the command knows; `views.py` and
`output.py` are how values look, to programs and to people.

What was asked for goes to standard output, everything said about it to standard error. The start is quick because
nothing is imported that the command does not need: `root.py` loads a noun's file when it is called.
"""
