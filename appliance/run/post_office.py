"""Who carries the letters of the appliance's own: its queue, or the provider that the configuration names."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from appliance.configuration import Configuration, MailProvider
from appliance.letters.postmark import TOKEN, BadToken, Postmark
from appliance.model.letter import Letter, LetterRefused, NotPosted, Post
from appliance.run import CannotStart
from appliance.run.certificates import verifying
from appliance.run.lost_keys import how_to_hand_over
from appliance.run.stores import secrets
from appliance.wire import NotRunning, WireError

LIMIT_S: Final = 10.0
"""How long the engine may take to make a letter durable: somebody may wait for the answer."""


class TokenMissing(CannotStart):
    """Letters are to go by way of Postmark, and there is no token that it would know us by."""


class EnginePost:
    """A `Post` that has the engine put letters into its queue. Thread-safe."""

    def __init__(self, engine: Callable[..., Iterator[Any]]) -> None:
        """`engine` asks it: `appliance.wire.call` with its path."""
        self._engine = engine

    def send(self, letter: Letter) -> None:
        """See Post. Where the engine dies in between, or takes too long, the letter may have been taken all the same:
        then another try is a second copy."""
        written = {"recipient": letter.recipient, "subject": letter.subject, "text": letter.text}
        try:
            answers = list(self._engine("letter.send", limit_s=LIMIT_S, **written))
        except (NotRunning, WireError) as error:
            # Not with the words of the engine: they may repeat the letter.
            raise NotPosted(f"the engine did not take it ({type(error).__name__})") from None
        if answers == [{"mailboxes": 0}]:
            raise LetterRefused("it is to an address of ours that leads nowhere")


def post_office(config: Configuration, engine: Callable[..., Iterator[Any]]) -> Post:
    """The `Post` of this configuration. Raises CannotStart, SecretRefused or OSError."""
    if config.mail.provider is MailProvider.SELF:
        return EnginePost(engine)
    return postmark_of(config)


def postmark_of(config: Configuration) -> Postmark:
    """Our account at Postmark, of which nothing is asked yet. Raises CannotStart, SecretRefused or OSError."""
    path = config.data_dir / "secrets" / TOKEN
    token = secrets(config).load(TOKEN)
    if not token:
        raise TokenMissing(
            f"mail.provider is postmark, and there is no token of your server there: {how_to_hand_over(path)}"
        )
    tls, why = verifying()
    if tls is None:
        raise CannotStart(f"nobody can tell whether it is Postmark that letters are given to: {why}")
    try:
        return Postmark(token, config.hostname, config.mail.from_, tls)
    except BadToken:
        raise TokenMissing(
            f"what stands in the secret {TOKEN} can't be a token: write it into {path} as one line"
        ) from None
