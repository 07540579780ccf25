"""The rules: an address becomes a reply, and where it is accepted the mailboxes behind it.

Aliases that lead to hosted addresses are followed here, inside, so that mail never leaves to come straight back.
"""

from dataclasses import dataclass, field
from typing import NoReturn

from appliance.model.domain import Alias, AliasAction, Domain
from appliance.routing.snapshot import HostedDomain, Snapshot, one_spelling
from smtp.address import Address
from smtp.reply import Reply

MAX_DEPTH = 10
"""How many aliases may follow each other: beyond that somebody has made a mistake, or is trying something."""

MAX_COPIES = 100
"""Mailboxes that one recipient may lead to: one message from a stranger never becomes more than that."""

MAX_LOOKED_UP = 1000
"""Destinations of aliases that are looked at for one recipient, those seen before counted too: it bounds the time that
one RCPT takes, to a few milliseconds."""


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


POSTMASTER = Address("postmaster", "")
"""The operator's mailbox, whoever that is when a delivery is under way (`appliance.delivery.settlement`)."""


class _Refused(Exception):
    """Ends the expansion of the whole recipient."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply
        self.reason = reason


def route(snapshot: Snapshot, recipient: Address, now: int, *, explained: bool = False) -> Route:
    """Decide about one recipient. Never raises, asks no store and no DNS.

    With `explained` the steps of the decision are told in words; it is the same decision.
    """
    return _Expansion(snapshot, now, explained).run(recipient)


class _Expansion:
    """Follows one recipient through the hosted aliases, and keeps the steps."""

    def __init__(self, snapshot: Snapshot, now: int, explained: bool) -> None:
        self._snapshot = snapshot
        self._now = now
        self._explained = explained
        self._steps: list[Step] = []
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
            self._snapshot.mailboxes[alias.id] = targets
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
        self._heights: dict[str, int] = {}
        """By the id of an alias that has been followed to its end: how many follow each other from it on, itself
        counted. What it leads to is among the targets, so that it need not be followed again."""
        self._looked_up = 0
        self._problem: _Refused | None = None
        """The first branch that leads nowhere; it counts where no other branch leads anywhere."""
        self._discards = False
        self._follow(address, address.key[0], hosted, ())

    def _follow(self, address: Address, local_part: str, hosted: HostedDomain, path: tuple[Alias, ...]) -> int:
        """Follow a hosted address; `path` holds the aliases that led to it. Returns the height of what was found."""
        alias = hosted.match(local_part)
        if alias is None and path and local_part == "postmaster":
            # `abuse` that leads to `postmaster` is common. Whose mailbox that is, is found when the mail goes there.
            self._step("postmaster", "ok", "{} leads to the operator", address)
            self._targets[POSTMASTER.key] = POSTMASTER
            return 0
        if alias is None:
            self._step("alias", "refused", "no alias takes {}", address)
            self._note(NO_SUCH_USER, "alias-unknown")
            return 0
        if alias in path:
            self._step("alias", "refused", "{} leads in a circle: {}", address, self._named(*path, alias))
            raise _Refused(LOOP, "alias-loop")
        known = self._heights.get(alias.id)
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
                behind = max(behind, self._add(target, hosted, path))
        self._heights[alias.id] = behind + 1
        return behind + 1

    def _named(self, *aliases: Alias) -> str:
        return " → ".join(self._snapshot.alias_address(alias.reference) or alias.pattern for alias in aliases)

    def _takes_mail(self, alias: Alias) -> bool:
        self._lasting = self._lasting and alias.expires_at is None
        return (
            alias.enabled
            and (alias.expires_at is None or alias.expires_at > self._now)
            and alias.action in (AliasAction.FORWARD, AliasAction.DISCARD)
        )

    def _refuse_by(self, alias: Alias) -> None:
        if not alias.enabled:
            self._step("alias", "refused", "it is switched off")
            self._note(DISABLED, "alias-disabled")
        elif alias.expires_at is not None and alias.expires_at <= self._now:
            self._step("alias", "refused", "it has expired")
            self._note(DISABLED, "alias-expired")
        elif alias.action is AliasAction.REJECT:
            self._step("action", "reject", "it refuses all mail")
            self._note(NO_SUCH_USER, "alias-rejects")
        else:
            self._step("action", "defer", "it asks senders to try later")
            # A branch that may open later must not be lost, so the sender keeps the whole message.
            raise _Refused(TRY_LATER, "alias-defers")

    def _add(self, target: str, hosted: HostedDomain, path: tuple[Alias, ...]) -> int:
        """Take a destination in, or follow it where it is hosted here. Returns its height: 0 for a mailbox."""
        self._looked_up += 1
        if self._looked_up > MAX_LOOKED_UP:
            self._refuse_as_too_many(MAX_LOOKED_UP, "destinations in all")
        address = Address.parse(target)
        key = address.key
        inside = self._snapshot.hosted(key[1])
        if inside is not None and inside.domain.verified:
            return self._follow(address, key[0], inside, path)
        if one_spelling(target) not in hosted.confirmed:
            self._step("destination", "refused", "the owner of {} has not confirmed it", target)
            raise _Refused(UNCONFIRMED, "destination-unconfirmed")
        if key in self._targets:
            self._step("destination", "once", "{} gets one copy", target)
        elif len(self._targets) >= MAX_COPIES:
            self._refuse_as_too_many(MAX_COPIES, "mailboxes")
        else:
            self._step("destination", "ok", "{}", target)
            self._targets[key] = address
        return 0

    def _refuse_as_too_many(self, limit: int, what: str) -> NoReturn:
        self._step("destination", "refused", "it leads to more than {} {}", limit, what)
        raise _Refused(LOOP, "too-many-copies")

    def _note(self, reply: Reply, reason: str) -> None:
        self._problem = self._problem or _Refused(reply, reason)

    def _step(self, check: str, outcome: str, detail: str, *about: object) -> None:
        if self._explained:
            self._steps.append(Step(check, outcome, detail.format(*about)))

    def _route(
        self,
        reply: Reply,
        reason: str,
        domain: Domain | None,
        reference: str = "",
        targets: tuple[Address, ...] = (),
    ) -> Route:
        return Route(reply, reason, domain, reference, targets, tuple(self._steps))
