"""The two ways in which a rule turns something down."""


class Refused(Exception):
    """What was asked for breaks a rule. Nothing has been changed.

    `reason` is a sentence for the person who asked, and says what would be right; `field` names what they typed wrong,
    in the words of the API's inputs (`email`, `name`, `pattern`, `destinations`, ...), or is None. `code` is a stable
    word for programs.
    """

    def __init__(self, reason: str, field: str | None = None, code: str = "REFUSED") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        self.code = code


class TooMany(Exception):
    """It has been asked for too often of late, by this client or by all. Nothing has been changed."""

    def __init__(self, reason: str, retry_after_s: int) -> None:
        """`reason` is a sentence for the person who asked; after so many seconds it is worth another try."""
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
