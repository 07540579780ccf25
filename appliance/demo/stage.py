"""What the demo prints: one line for each thing that is said, with who says it to whom."""

import sys
import threading

_COLOURS = {"friend": "36", "onward": "33", "mailbox": "32"}
_WIDTH = 9
_MAX_LINE = 140


class Stage:
    """Prints lines as they come, from any thread; in colour on a terminal."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty()
        self._lock = threading.Lock()

    def title(self, text: str) -> None:
        """Begin a scene."""
        self._print(f"\n{self._bold(text)}")

    def note(self, text: str = "") -> None:
        """Say something to the audience."""
        self._print(text)

    def said(self, who: str, to: str, line: str) -> None:
        """Somebody says one line of SMTP to somebody."""
        arrow = f"{self._paint(who)} → {self._paint(to)}"
        self._print(f"  {arrow}  {line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 1] + '…'}")

    def told(self, who: str, text: str) -> None:
        """Somebody has done something."""
        self._print(f"  {self._paint(who)}   {' ' * _WIDTH}  {text}")

    def _paint(self, who: str) -> str:
        padded = f"{who:<{_WIDTH}}"
        return f"\x1b[{_COLOURS[who]}m{padded}\x1b[0m" if self._colour else padded

    def _bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self._colour else text

    def _print(self, line: str) -> None:
        with self._lock:
            print(line, flush=True)
