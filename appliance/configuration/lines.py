"""On which line of a TOML text a key stands: tomllib does not say, and an error without it sends people searching.

The text has been read by tomllib already, so this scan never judges: it only has to know where a statement ends, which
takes strings of four kinds, comments and brackets.
"""

import re
import tomllib

KeyPath = tuple[str, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
# A key is bare parts and quoted parts with dots between; it ends at the `=` or `]` outside of quotes.
_KEY = re.compile(r"""(?:[^"'=\]\n]|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')+""")
# What a value is made of, the long strings first; each alternative takes its whole text at once.
_VALUE_PART = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[{]|[\]}]|\n|[^\"'#\[\]{}\n]+",
    re.DOTALL,
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) on which each key and table of this text is first named.

    Keys within an inline table are not told apart; ask for the nearest key above with `line_of`.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    position = _skip(_BLANK, text, 0)
    while position < len(text):
        line = text.count("\n", 0, position) + 1
        if text[position] == "[":
            while text[position] == "[":
                position += 1
            end = _skip(_KEY, text, position)
            path = table = _key_path(text[position:end])
            position = text.index("]", end) + 1
            while text[position : position + 1] == "]":
                position += 1
        else:
            end = _skip(_KEY, text, position)
            path = table + _key_path(text[position:end])
            position = _end_of_value(text, end + 1)
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], line)
        position = _skip(_BLANK, text, position)
    return lines


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of this key, or of the nearest above it; None where not even its table is written."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _key_path(written: str) -> KeyPath:
    """`a . "b c"` as ("a", "b c"); tomllib knows how to unquote."""
    value: object = tomllib.loads(f"{written} = 0")
    path = []
    while isinstance(value, dict):
        ((key, value),) = value.items()
        path.append(key)
    return tuple(path)


def _end_of_value(text: str, position: int) -> int:
    """Where the statement ends whose value begins here: the line end outside of every bracket and string."""
    depth = 0
    while position < len(text):
        part = _VALUE_PART.match(text, position)
        if part is None or (part[0] == "\n" and depth == 0):
            break
        depth += (part[0] in "[{") - (part[0] in "]}") if len(part[0]) == 1 else 0
        position = part.end()
    return position


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position
