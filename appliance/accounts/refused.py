"""The one way in which a change is turned down: that of every room with rules for people."""

from appliance.model.refused import Refused

__all__ = ["Refused"]
