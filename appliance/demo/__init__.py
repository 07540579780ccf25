"""`onward demo`: the whole appliance on loopback, with every step shown as it happens.

Nothing here is pretended. The appliance is the one that `onward run` starts, in a data directory of its own that is
erased at the end; what stands in for the world are a name server (`name_server.py`) and somebody's mail server
(`mailbox_server.py`), both on loopback. `story.py` sends the mail, `stage.py` prints what it sees.
"""

from appliance.demo.story import main

__all__ = ["main"]
