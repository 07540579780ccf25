"""Where letters are put in: they leave once the answer is given."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from appliance.access.errands import Errands
from appliance.model.letter import Letter, Post
from appliance.model.refused import TooMany


@dataclass(frozen=True, slots=True)
class Postbox:
    """Thread-safe."""

    post_office: Post
    errands: Errands

    def post(self, letter: Letter) -> None:
        """Send a letter that somebody waits for. Raises TooMany."""
        self.errands.add(lambda: self.post_office.send(letter))

    def tell(self, letter: Letter) -> None:
        """Send a letter about what has been done: where too many wait already, it was done all the same."""
        with suppress(TooMany):
            self.post(letter)

    def write_and_post(self, written: Callable[[], Letter | None]) -> None:
        """Write a letter behind the answer, or find that there is none to be written, and send it. Raises TooMany."""
        letters: list[Letter | None] = []

        def errand() -> None:
            # At another try it is the same letter.
            if not letters:
                letters.append(written())
            if letters[0] is not None:
                self.post_office.send(letters[0])

        self.errands.add(errand)
