"""The rules: an address becomes a reply, and where it is accepted the mailboxes behind it.

Aliases that lead to hosted addresses are followed here, inside, so that mail never leaves to come straight back.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from appliance.model.domain import Alias, AliasAction, AliasKind, Domain
from appliance.routing.hosted import HostedDomain
from appliance.routing.patterns import MAX_COST_PER_DOMAIN, filled_in, find, references, without_references
from appliance.routing.snapshot import Snapshot, one_spelling
from smtp.address import Address
from smtp.reply import Reply

MAX_DEPTH = 10
"""How many aliases may follow each other: beyond that somebody has made a mistake, or is trying something."""

MAX_COPIES = 100
"""Mailboxes that one recipient may lead to: one message from a stranger never becomes more than that."""

MAX_LOOKED_UP = 1000
"""Destinations of aliases that are looked at for one recipient, those seen before counted too: it bounds the time that
one RCPT takes, to a few milliseconds."""


MAX_SEARCHED = 2 * MAX_COST_PER_DOMAIN
"""What looking with expressions may cost for one recipient, over all aliases that follow each other."""

MAX_REMEMBERED = 50_000
"""Aliases of one snapshot of which it is remembered where they lead: some tens of megabytes at the most. Then all is
forgotten, which costs less than to know what is asked for seldom."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a decision, for `explain`."""

    check: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class Route:
    """What RCPT TO gets for an answer, and where an accepted message goes."""

    reply: Reply
    reason: str
    """A stable word: `accepted`, `alias-unknown`, `relay-denied`, ..."""
    domain: Domain | None = None
    """The hosted domain that was written to; None for the appliance's own addresses and for foreign ones."""
    reference: str = ""
    """The reference of the alias that was written to; empty for postmaster."""
    targets: tuple[Address, ...] = ()
    """Mailboxes, each once. Empty for an accepted message that is discarded."""
    limited: tuple[Alias, ...] = ()
    """The aliases on the way that take only so many messages: an accepted one counts for each."""
    shown: tuple[Address, ...] = field(default=(), compare=False)
    """Where steps are told: for each target what the reader may see of it, which is the target itself or the address
    of somebody else that leads there."""
    steps: tuple[Step, ...] = field(default=(), compare=False)

    @property
    def accepted(self) -> bool:
        """Whether mail for the address is taken."""
        return self.reply.code == 250


ACCEPTED = Reply(250, "Recipient accepted", "2.1.5")
RELAY_DENIED = Reply(550, "We do not take mail for that domain", "5.7.1")
NO_SUCH_USER = Reply(550, "No such address here", "5.1.1")
DISABLED = Reply(550, "That address is switched off", "5.2.1")
TRY_LATER = Reply(450, "That address takes no mail at the moment", "4.2.1")
UNCONFIRMED = Reply(451, "That address is not in service yet", "4.3.5")
LOOP = Reply(550, "That address leads in a circle", "5.4.6")


Left = Callable[[Alias], "int | None"]
"""How many more messages an alias takes; None for no limit. Who accepts mail knows better than the snapshot."""


def as_stored(alias: Alias) -> int | None:
    """What the records have: moments behind a running appliance."""
    return alias.remaining_uses


POSTMASTER = Address("postmaster", "")
"""The operator's mailbox, whoever that is when a delivery is under way (`appliance.delivery.settlement`)."""


_BEHIND_EXPRESSIONS = (AliasKind.REGEX, AliasKind.CATCH_ALL)
"""Found only after a look with the expressions of the domain."""


class _Refused(Exception):
    """Ends the expansion of the whole recipient."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply
        self.reason = reason


def route(
    snapshot: Snapshot,
    recipient: Address,
    now: int,
    left: Left = as_stored,
    *,
    explained: bool = False,
    reader: str | None = None,
) -> Route:
    """Decide about one recipient. Never raises, asks no store and no DNS.

    With `explained` the steps of the decision are told in words; it is the same decision. `reader` is the account that
    reads them: what happens behind the addresses of others is not told. None reads everything.
    """
    return _Expansion(snapshot, now, left, explained, reader).run(recipient)


class _Expansion:
    """Follows one recipient through the hosted aliases, and keeps the steps."""

    def __init__(self, snapshot: Snapshot, now: int, left: Left, explained: bool, reader: str | None) -> None:
        self._snapshot = snapshot
        self._now = now
        self._left = left
        self._explained = explained
        self._reader = reader
        self._behind: Address | None = None
        """The address of another account than the reader's that is being followed."""
        self._steps: list[Step] = []
        self._shown: dict[tuple[str, str], Address] = {}
        self._limited: dict[str, Alias] = {}
        self._lasting = True
        """What has been found is so for everybody who writes to the alias, and at any time."""

    def run(self, recipient: Address) -> Route:
        local_part, domain_name = recipient.key
        hosted = self._snapshot.hosted(domain_name)
        settings = self._snapshot.settings
        if hosted is not None and hosted.domain.verified:
            self._step("domain", "ok", "{} is hosted and verified", domain_name)
            found = self._through_aliases(recipient, hosted)
            if found.targets or local_part != "postmaster":
                return found
        elif domain_name not in ("", settings.hostname, settings.srs_domain):
            state = "is not verified yet" if hosted is not None else "is not hosted here"
            self._step("domain", "refused", "{} {}", domain_name, state)
            return self._route(RELAY_DENIED, "relay-denied", None)
        elif local_part != "postmaster":
            self._step("domain", "refused", "{} is the appliance's own and has no aliases", domain_name)
            return self._route(NO_SUCH_USER, "alias-unknown", None)
        # RFC 5321 §4.5.1: this address must reach somebody. No alias can refuse it, put it off or throw it away, not
        # even one that is made for it.
        self._step("postmaster", "accepted", "exists everywhere (RFC 5321 §4.5.1) and leads to the operator")
        domain = hosted.domain if hosted is not None and hosted.domain.verified else None
        if self._reader is not None:
            self._behind = POSTMASTER
        return self._route(ACCEPTED, "accepted", domain, "", self._operator())

    def _through_aliases(self, recipient: Address, hosted: HostedDomain) -> Route:
        alias = hosted.match(recipient.key[0])
        reference = alias.reference if alias else ""
        known = self._snapshot.mailboxes.get(alias.id) if alias and not self._explained else None
        if known is not None:
            return self._route(ACCEPTED, "accepted", hosted.domain, reference, known)
        try:
            self._expand(recipient, hosted)
            if not self._targets and not self._discards:
                raise self._problem or _Refused(NO_SUCH_USER, "alias-unknown")
        except _Refused as refused:
            return self._route(refused.reply, refused.reason, hosted.domain, reference)
        targets = tuple(self._targets.values())
        if alias and self._lasting:
            remembered = self._snapshot.mailboxes
            if len(remembered) >= MAX_REMEMBERED:
                remembered.clear()
            remembered[alias.id] = targets
        return self._route(ACCEPTED, "accepted", hosted.domain, reference, targets)

    def _operator(self) -> tuple[Address, ...]:
        """The operator's mailboxes; bare `postmaster` where there are none, and the mail waits in the queue for one."""
        address = self._snapshot.postmaster_address()
        inside = self._snapshot.hosted(address.key[1])
        if inside is None or not inside.domain.verified:
            return (address,)
        try:
            self._expand(address, inside)
        except _Refused:
            self._targets.clear()
        return tuple(self._targets.values()) or (POSTMASTER,)

    def _expand(self, address: Address, hosted: HostedDomain) -> None:
        """Follow a hosted address to its end, into `_targets`. Raises _Refused."""
        self._targets: dict[tuple[str, str], Address] = {}
        self._shown.clear()
        self._limited.clear()
        self._heights: dict[tuple[str, str], int] = {}
        """By the id of an alias that has been followed to its end: how many follow each other from it on, itself
        counted. What it leads to is among the targets, so that it need not be followed again. (An expression leads
        elsewhere for each local part.)"""
        self._looked_up = 0
        self._searched = 0
        self._problem: _Refused | None = None
        """The first branch that leads nowhere; it counts where no other branch leads anywhere."""
        self._discards = False
        self._follow(address, address.key[0], hosted, ())

    def _follow(self, address: Address, local_part: str, hosted: HostedDomain, path: tuple[Alias, ...]) -> int:
        """Follow a hosted address; `path` holds the aliases that led to it. Returns the height of what was found."""
        alias = hosted.match(local_part)
        if hosted.patterns and (alias is None or alias.kind in _BEHIND_EXPRESSIONS):
            self._searched += hosted.patterns_cost
            if self._searched > MAX_SEARCHED:
                self._refuse_as_too_many(MAX_SEARCHED, "instructions of expressions")
        if alias is None and path and local_part == "postmaster":
            # `abuse` that leads to `postmaster` is common. Whose mailbox that is, is found when the mail goes there.
            self._step("postmaster", "ok", "{} leads to the operator", address)
            self._targets[POSTMASTER.key] = POSTMASTER
            self._shown[POSTMASTER.key] = self._behind or POSTMASTER
            return 0
        if alias is None:
            self._step("alias", "refused", "no alias takes {}", address)
            self._note(NO_SUCH_USER, "alias-unknown")
            return 0
        if alias in path:
            self._step("alias", "refused", "{} leads in a circle: {}", address, self._named(*path, alias))
            raise _Refused(LOOP, "alias-loop")
        way = alias.id, local_part if alias.kind is AliasKind.REGEX else ""
        known = self._heights.get(way)
        if len(path) + (known or 1) > MAX_DEPTH:
            self._step("alias", "refused", "more than {} aliases follow each other", MAX_DEPTH)
            raise _Refused(LOOP, "alias-loop")
        if known is not None:
            self._step("alias", "once", "{} has been followed already", address)
            return known
        if self._explained:
            name, kind = hosted.domain.name, alias.kind.value
            self._step("alias", "match", "{} is taken by {}@{} ({})", address, alias.pattern, name, kind)
        behind = 0
        if not self._takes_mail(alias):
            self._refuse_by(alias)
        elif alias.action is AliasAction.DISCARD:
            self._step("action", "discard", "accepted, and nothing is forwarded")
            self._discards = True
        else:
            path = (*path, alias)
            for target in alias.targets:
                behind = max(behind, self._add(target, local_part, hosted, path))
        self._heights[way] = behind + 1
        return behind + 1

    def _named(self, *aliases: Alias) -> str:
        return " → ".join(self._snapshot.alias_address(alias.reference) or alias.pattern for alias in aliases)

    def _takes_mail(self, alias: Alias) -> bool:
        # Not where one on the way expires or can be used up, nor where what was written decides where it leads.
        plain = alias.expires_at is None and alias.max_uses is None and alias.kind is not AliasKind.REGEX
        self._lasting = self._lasting and plain
        takes = (
            alias.enabled
            and (alias.expires_at is None or alias.expires_at > self._now)
            and (alias.max_uses is None or self._left(alias) != 0)
            and alias.action in (AliasAction.FORWARD, AliasAction.DISCARD)
        )
        if takes and alias.max_uses is not None:
            self._limited[alias.id] = alias
        return takes

    def _refuse_by(self, alias: Alias) -> None:
        if not alias.enabled:
            self._step("alias", "refused", "it is switched off")
            self._note(DISABLED, "alias-disabled")
        elif alias.expires_at is not None and alias.expires_at <= self._now:
            self._step("alias", "refused", "it has expired")
            self._note(DISABLED, "alias-expired")
        elif alias.max_uses is not None and self._left(alias) == 0:
            self._step("alias", "refused", "it has taken all of its {} messages", alias.max_uses)
            self._note(DISABLED, "alias-used-up")
        elif alias.action is AliasAction.REJECT:
            self._step("action", "reject", "it refuses all mail")
            self._note(NO_SUCH_USER, "alias-rejects")
        else:
            self._step("action", "defer", "it asks senders to try later")
            # A branch that may open later must not be lost, so the sender keeps the whole message.
            raise _Refused(TRY_LATER, "alias-defers")

    def _add(self, target: str, local_part: str, hosted: HostedDomain, path: tuple[Alias, ...]) -> int:
        """Take a destination in, or follow it where it is hosted here. Returns its height: 0 for a mailbox."""
        self._looked_up += 1
        if self._looked_up > MAX_LOOKED_UP:
            self._refuse_as_too_many(MAX_LOOKED_UP, "destinations in all")
        mailbox, address = _read(target, local_part, path[-1])
        if address is None:
            self._step("destination", "refused", "{} makes no address of {}", target, local_part)
            self._note(NO_SUCH_USER, "alias-target-invalid")
            return 0
        key = address.key
        inside = self._snapshot.hosted(key[1])
        if inside is not None and not inside.domain.verified:
            inside = None
        own = inside is not None and inside.domain.account_id == hosted.domain.account_id
        # RFC 5321 §3.9 leaves it to us whom we forward to: nobody who has not agreed, and who owns both ends has.
        if not own and (mailbox is None or not self._snapshot.agreed(hosted.domain.account_id, one_spelling(mailbox))):
            self._step("destination", "refused", "the owner of {} has not confirmed it", target)
            raise _Refused(UNCONFIRMED, "destination-unconfirmed")
        if inside is not None:
            return self._enter(address, inside, path)
        if key in self._targets:
            self._step("destination", "once", "{} gets one copy", address)
        elif len(self._targets) >= MAX_COPIES:
            self._refuse_as_too_many(MAX_COPIES, "mailboxes")
        else:
            self._step("destination", "ok", "{}", address)
            self._targets[key] = address
            self._shown[key] = self._behind or address
        return 0

    def _enter(self, address: Address, inside: HostedDomain, path: tuple[Alias, ...]) -> int:
        """Follow a destination that is hosted here. Behind the address of another account its reader sees nothing."""
        if self._reader in (None, inside.domain.account_id) or self._behind is not None:
            return self._follow(address, address.key[0], inside, path)
        self._step("destination", "ok", "{} is somebody else's, who knows where it leads", address)
        self._behind = address
        try:
            return self._follow(address, address.key[0], inside, path)
        finally:
            self._behind = None

    def _refuse_as_too_many(self, limit: int, what: str) -> NoReturn:
        self._step("destination", "refused", "it leads to more than {} {}", limit, what)
        raise _Refused(LOOP, "too-many-copies")

    def _note(self, reply: Reply, reason: str) -> None:
        self._problem = self._problem or _Refused(reply, reason)

    def _step(self, check: str, outcome: str, detail: str, *about: object) -> None:
        if self._explained and self._behind is None:
            self._steps.append(Step(check, outcome, detail.format(*about)))

    def _route(
        self,
        reply: Reply,
        reason: str,
        domain: Domain | None,
        reference: str = "",
        targets: tuple[Address, ...] = (),
    ) -> Route:
        limited = tuple(self._limited.values()) if self._limited and reply is ACCEPTED else ()
        shown: tuple[Address, ...] = ()
        if self._explained:
            shown = tuple(self._shown.get(target.key, self._behind or target) for target in targets)
        return Route(reply, reason, domain, reference, targets, limited, shown, tuple(self._steps))


def _read(target: str, local_part: str, alias: Alias) -> tuple[str | None, Address | None]:
    """Whose consent a destination of an alias needs, and the address.

    The first is None where a stranger chooses the mailbox, so that nobody's consent will do; the second where what was
    found makes no address.
    """
    if alias.kind is not AliasKind.REGEX or not references(target):
        return target, Address.parse(target)
    captured = find(alias.pattern, local_part)
    mailbox = without_references(target)
    return None if references(mailbox) else mailbox, filled_in(target, captured) if captured else None
