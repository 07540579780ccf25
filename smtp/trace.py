"""Watching a conversation: for people who want to see one, in a demonstration or on the track of a fault."""

from collections.abc import Callable

Trace = Callable[[str, str], None]
"""Told each line of commands and replies: `<` for received, `>` for sent; content only by its size."""
