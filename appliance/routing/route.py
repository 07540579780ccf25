"""The rules: an address becomes a reply, and where it is accepted the mailboxes behind it.

Aliases that lead to hosted addresses are followed here, inside, so that mail never leaves to come straight back.
"""

from dataclasses import dataclass, field

from appliance.model.domain import Alias, AliasAction, Domain
from appliance.routing.snapshot import HostedDomain, Snapshot
from smtp.address import Address
from smtp.reply import Reply

MAX_DEPTH = 10
"""How many aliases may follow each other: beyond that somebody has made a mistake, or is trying something."""

MAX_COPIES = 100
"""Mailboxes that one recipient may lead to: one message from a stranger never becomes more than that."""


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
        self._targets: dict[tuple[str, str], Address] = {}
        self._problem: _Refused | None = None
        """The first branch that leads nowhere; it counts where no other branch leads anywhere."""
        self._discards = False

    def run(self, recipient: Address) -> Route:
        local_part, domain_name = recipient.key
        hosted = self._snapshot.hosted(domain_name)
        verified = hosted is not None and hosted.domain.verified
        alias = hosted.match(local_part) if hosted is not None and verified else None
        domain = hosted.domain if hosted is not None and verified else None
        if local_part == "postmaster" and self._is_ours(domain_name) and (alias is None or not self._takes_mail(alias)):
            self._step("postmaster", "accepted", "exists everywhere (RFC 5321 §4.5.1) and leads to the operator")
            return self._route(ACCEPTED, "accepted", domain, "", self._postmaster())
        if not self._is_ours(domain_name):
            state = "is not verified yet" if hosted is not None else "is not hosted here"
            self._step("domain", "refused", "{} {}", domain_name, state)
            return self._route(RELAY_DENIED, "relay-denied", None)
        if hosted is None:
            self._step("domain", "refused", "{} is the appliance's own and has no aliases", domain_name)
            return self._route(NO_SUCH_USER, "alias-unknown", None)
        self._step("domain", "ok", "{} is hosted and verified", domain_name)
        reference = alias.reference if alias else ""
        try:
            self._follow(recipient, hosted, ())
            if not self._targets and not self._discards:
                raise self._problem or _Refused(NO_SUCH_USER, "alias-unknown")
        except _Refused as refused:
            return self._route(refused.reply, refused.reason, domain, reference)
        return self._route(ACCEPTED, "accepted", domain, reference, tuple(self._targets.values()))

    def _postmaster(self) -> tuple[Address, ...]:
        """The operator's mailboxes; bare `postmaster` where there are none, and the mail waits in the queue for one."""
        address = self._snapshot.postmaster_address()
        inside = self._snapshot.hosted(address.key[1])
        if inside is None or not inside.domain.verified:
            return (address,)
        try:
            self._follow(address, inside, ())
        except _Refused:
            self._targets.clear()
        return tuple(self._targets.values()) or (Address("postmaster", ""),)

    def _is_ours(self, domain_name: str) -> bool:
        settings = self._snapshot.settings
        hosted = self._snapshot.hosted(domain_name)
        return domain_name in ("", settings.hostname, settings.srs_domain) or (
            hosted is not None and hosted.domain.verified
        )

    def _follow(self, address: Address, hosted: HostedDomain, path: tuple[str, ...]) -> None:
        """Follow a hosted address; `path` holds the ids of the aliases that led to it."""
        alias = hosted.match(address.key[0])
        if alias is None:
            self._step("alias", "refused", "no alias takes {}", address)
            self._note(NO_SUCH_USER, "alias-unknown")
            return
        if alias.id in path:
            self._step("alias", "refused", "{} leads back to {}: a loop", address, alias.pattern)
            raise _Refused(LOOP, "alias-loop")
        if len(path) >= MAX_DEPTH:
            self._step("alias", "refused", "more than {} aliases follow each other", MAX_DEPTH)
            raise _Refused(LOOP, "alias-loop")
        name, kind = hosted.domain.name, alias.kind.value
        self._step("alias", "match", "{} is taken by {}@{} ({})", address, alias.pattern, name, kind)
        if not self._takes_mail(alias):
            self._refuse_by(alias)
            return
        if alias.action is AliasAction.DISCARD:
            self._step("action", "discard", "accepted, and nothing is forwarded")
            self._discards = True
            return
        for target in alias.targets:
            self._add(target, hosted, (*path, alias.id))

    def _takes_mail(self, alias: Alias) -> bool:
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

    def _add(self, target: str, hosted: HostedDomain, path: tuple[str, ...]) -> None:
        address = Address.parse(target)
        inside = self._snapshot.hosted(address.key[1])
        if inside is not None and inside.domain.verified:
            self._follow(address, inside, path)
        elif target.lower() not in hosted.confirmed:
            self._step("destination", "refused", "the owner of {} has not confirmed it", target)
            raise _Refused(UNCONFIRMED, "destination-unconfirmed")
        elif address.key in self._targets:
            self._step("destination", "once", "{} gets one copy", target)
        elif len(self._targets) >= MAX_COPIES:
            raise _Refused(LOOP, "too-many-copies")
        else:
            self._step("destination", "ok", "{}", target)
            self._targets[address.key] = address

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
