"""The one way in which a change is turned down."""


class Refused(Exception):
    """What was asked for breaks a rule. Nothing has been changed.

    `reason` is a sentence for the person who asked, and says what would be right; `field` names what they typed wrong,
    in the words of the API's inputs (`email`, `name`, `pattern`, `destinations`, ...), or is None.
    """

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
