"""The two ways in which a conversation can break, told apart by whose fault it is."""


class ProtocolError(Exception):
    """The other side said something that SMTP has no room for. The conversation cannot go on."""


class SessionMisuse(Exception):
    """Our own side asked a session for something that its state does not allow. A defect in the caller."""
