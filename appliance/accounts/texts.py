"""What people write for other people to read: subjects, questions, reasons. Bounded, and without surprises in it."""

import unicodedata

from appliance.model.refused import Refused

_LINE_ENDS = str.maketrans({"\r": None})


def one_line(text: str, field: str, most: int) -> str:
    """A text on one line, without white space around it. Raises Refused where it is empty, too long or unprintable."""
    return _checked(text, field, most, allowed="")


def paragraphs(text: str, field: str, most: int) -> str:
    """A text that may have line ends and tabs in it; else like `one_line`."""
    return _checked(text.translate(_LINE_ENDS), field, most, allowed="\n\t")


def _checked(text: str, field: str, most: int, allowed: str) -> str:
    text = text.strip()
    if not text:
        raise Refused("There is nothing written here.", field)
    if len(text) > most:
        raise Refused(f"That is {len(text)} characters long, and may have at most {most}.", field)
    for character in text:
        # Cc and Cs: control characters, and halves of a pair that UTF-8 has no octets for. Zl and Zp end lines, too.
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") and character not in allowed:
            raise Refused(f"There is a character in it that can't be printed: U+{ord(character):04X}.", field)
    return text
