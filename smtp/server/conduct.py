"""How clients behave, from one of their connections to the next: who guesses at recipients, who errs without end.

Nothing but numbers lives here: what is an error and what is done about it is the driver's affair, and so is the clock.
Whom a client is counted as is said by `smtp.server.serving.client_key`: an IPv6 client is its /64.

Nobody is ever locked out for long. Scores leak away by themselves, good conduct takes them back, and all that can come
of them is a slow answer or a 421, after which honest mail is tried again.
"""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConductLimits:
    """How much is borne, and for how long it is remembered. Times in seconds."""

    clients: int = 10_000
    """How many are remembered, at about 300 octets each. Where more err within ten minutes, the one that has not erred
    for the longest time is forgotten. That costs this: whoever commands more networks than this has a clean record
    every time it comes round to the first of them again. It would have needed as many networks in any case."""
    tarpit_after: int = 10
    """Unknown recipients after which the next is answered slowly. A person's typing errors, and a mailing list's few
    departed members between two that are still there, stay below."""
    tarpit_s: float = 5.0
    """How slowly: a connection makes 720 guesses in an hour at most, and an honest client has still most of the five
    minutes for which it waits for the answer to RCPT (RFC 5321 §4.5.3.2.3)."""
    unknown_recipients_max: int = 50
    """After as many, 421. Half of the recipients that one transaction may have: a list that is dead in one long stretch
    is still delivered, over several connections. Who goes on guessing has one guess for each `recipient_leak_s`."""
    errors_max: int = 100
    """The same for errors. A client with a defect makes a few in each connection; a hundred are somebody's search."""
    recipient_leak_s: float = 12.0
    """One unknown recipient is forgotten in this time, all of them in ten minutes: before an honest queue that has been
    sent away tries again (RFC 5321 §4.5.4.1: after half an hour, in general)."""
    error_leak_s: float = 6.0
    """One error is forgotten in this time, all of them in ten minutes as well."""

    def __post_init__(self) -> None:
        if min(self.clients, self.tarpit_after, self.unknown_recipients_max, self.errors_max) < 1:
            raise ValueError("a limit of conduct is at least one")
        if self.tarpit_s < 0 or min(self.recipient_leak_s, self.error_leak_s) <= 0:
            raise ValueError("a time of conduct is not negative, and one that forgives is not nothing")


class _Score:
    """A number of points that leaks one in so many seconds, counted from the first point."""

    __slots__ = ("_leak_s", "_max", "_points", "_since")

    def __init__(self, leak_s: float, max_points: int) -> None:
        self._leak_s = leak_s
        self._max = max_points
        self._points = 0
        self._since = 0.0
        """When the last point leaked, or the first was made."""

    def points(self, now: float) -> int:
        if self._points and now - self._since >= self._leak_s:
            leaked = int((now - self._since) // self._leak_s)
            self._points = max(0, self._points - leaked)
            self._since += leaked * self._leak_s
        return self._points

    def add(self, now: float) -> None:
        points = self.points(now)
        if points == 0:
            self._since = now
        # Never above what has a consequence: the time until all is forgotten must not grow with what many connections
        # have done at once.
        self._points = min(points + 1, self._max)

    def take_back(self, now: float) -> None:
        self._points = max(0, self.points(now) - 1)

    def clear(self) -> None:
        self._points = 0


class _Client:
    """One client's record."""

    __slots__ = ("errors", "refused", "refused_elsewhere")

    def __init__(self, limits: ConductLimits) -> None:
        refusals = max(limits.unknown_recipients_max, limits.tarpit_after)
        self.refused = _Score(limits.recipient_leak_s, refusals)
        self.refused_elsewhere = _Score(limits.recipient_leak_s, refusals)
        self.errors = _Score(limits.error_leak_s, limits.errors_max)

    def clean(self, now: float) -> bool:
        return not (self.refused.points(now) or self.refused_elsewhere.points(now) or self.errors.points(now))


class Conduct:
    """What one server remembers of its clients. Keys come from `serving.client_key`; `now` is a monotonic time in
    seconds, the same clock for all calls.

    Who has done nothing wrong is not in the table: for such a client everything here is one look into a dictionary.
    """

    __slots__ = ("_clients", "_limits")

    def __init__(self, limits: ConductLimits | None = None) -> None:
        self._limits = limits or ConductLimits()
        # In the order in which they last erred.
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many clients have a record; one that has leaked away counts until the client is heard of again."""
        return len(self._clients)

    def recipient_refused(self, key: str, now: float, *, elsewhere: bool = False) -> None:
        """A recipient was refused because there is no such one (550 5.1.1), not for any other reason.

        `elsewhere`: there is, and the server behind it has refused. Whoever writes to such guesses nothing, and is not
        sent away; but through us that server is not to be asked at any speed.
        """
        client = self._blame(key)
        (client.refused_elsewhere if elsewhere else client.refused).add(now)

    def error(self, key: str, now: float) -> None:
        """A command was answered with an error that is the client's own: syntax, order, an unknown command."""
        self._blame(key).errors.add(now)

    def recipient_accepted(self, key: str, now: float) -> None:
        """Takes one refused recipient back: who mostly writes to people that there are does not guess."""
        client = self._clients.get(key)
        if client is not None:
            client.refused.take_back(now)
            client.refused_elsewhere.take_back(now)
            self._forget_if_clean(key, client, now)

    def message_accepted(self, key: str, now: float) -> None:
        """Forgives all errors: whoever brings a message to its end knows how to talk."""
        client = self._clients.get(key)
        if client is not None:
            client.errors.clear()
            self._forget_if_clean(key, client, now)

    def delay(self, key: str, now: float) -> float:
        """How many seconds the refusal of a recipient is to be held back.

        What was answered before is to be sent first: in a pipelined group (RFC 2920) the delays add up, to more than
        the five minutes for which a client waits for the first of the answers.
        """
        client = self._clients.get(key)
        if client is None:
            return 0.0
        refused = max(client.refused.points(now), client.refused_elsewhere.points(now))
        return self._limits.tarpit_s if refused >= self._limits.tarpit_after else 0.0

    def is_unwelcome(self, key: str, now: float) -> bool:
        """Whether the client is to be sent away for now, with 421: at its connection, and after each error."""
        client = self._clients.get(key)
        if client is None:
            return False
        return (
            client.refused.points(now) >= self._limits.unknown_recipients_max
            or client.errors.points(now) >= self._limits.errors_max
        )

    def _blame(self, key: str) -> _Client:
        client = self._clients.get(key)
        if client is None:
            if len(self._clients) >= self._limits.clients:
                self._clients.popitem(last=False)
            client = self._clients[key] = _Client(self._limits)
        else:
            self._clients.move_to_end(key)
        return client

    def _forget_if_clean(self, key: str, client: _Client, now: float) -> None:
        if client.clean(now):
            del self._clients[key]
