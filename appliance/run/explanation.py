"""Where a message would go and why: the decision that RCPT gets, and behind it the hosts that DNS names today.

The same functions decide here and in a session, over a snapshot that loads what they ask for. Nothing is sent and
nothing is stored; the running appliance is not asked, so that this works with it stopped too.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import trio

from appliance.configuration import Configuration
from appliance.delivery.hosts import HostSettings, NoHosts, find_addresses
from appliance.forwarding.srs import SenderRewriter
from appliance.model.time import Clock, wall_clock
from appliance.reception.client_names import confirmed_name
from appliance.reception.day_counts import stored_count
from appliance.reception.decision import decide
from appliance.resolver import DnsResolver, LookupFailed, NoSuchName, Resolver
from appliance.routing.explained import Explanation, PlannedDelivery
from appliance.routing.loading import for_one_question
from appliance.routing.route import Step
from appliance.routing.snapshot import Settings, Snapshot
from appliance.run.hosts import host_settings
from appliance.run.stores import SRS_KEY, secrets
from appliance.storage.records import RecordStore, StoreUnavailable
from appliance.storage.spool import ReturnPath
from smtp.address import Address
from smtp.server.serving import plain_address


@dataclass(frozen=True, slots=True)
class _Found:
    hosts: tuple[str, ...]
    step: Step


Found = TypeVar("Found")


class Runner(Protocol):
    """`trio.run`, or `trio.from_thread.run` in a worker thread."""

    def __call__(self, function: Callable[[], Awaitable[Found]], /) -> Found: ...


_NOWHERE = _Found((), Step("hosts", "none", ""))


class Explainer:
    """Explains, over the records of a configuration."""

    def __init__(
        self, config: Configuration, records: RecordStore, run: Runner = trio.run, clock: Clock = wall_clock
    ) -> None:
        """`run` is how the DNS is asked. Raises SecretRefused or OSError."""
        self._config = config
        self._records = records
        self._run = run
        self._clock = clock
        self._settings = Settings(config.hostname, config.forwarding.srs_domain, config.mail.postmaster, config.plans)
        self._rewriter = SenderRewriter(config.forwarding.srs_domain, [secrets(config).key(SRS_KEY)])

    def __call__(
        self, recipient: Address, sender: Address | None, reader: str | None = None, client: str = ""
    ) -> Explanation:
        """Decide about one recipient, and look up where its copies would go. Asks the DNS, for `dns.timeout` at most.
        `client` is the address of who would bring the message; empty: it does not matter.

        It is told to the account `reader`, who sees nothing of what is behind the addresses of other accounts; with
        None, to who may know all. Raises StoreUnavailable.
        """
        now = self._clock()
        snapshot = for_one_question(self._records, self._settings)
        client = plain_address(client)
        blocked = snapshot.blocks.refusal(sender, client, self._name_of(client, snapshot), now)
        if blocked is not None:
            # What operators write about each other's blocks is for them.
            why = f": {blocked.block.reason}" if reader is None else ""
            step = Step("blocks", "refused", f"MAIL is refused, by a block of {blocked.block.value}{why}")
            return Explanation(blocked.reply, blocked.reason, (step,), ())
        received = partial(stored_count, self._records)
        decision = decide(
            snapshot, self._rewriter, sender, recipient, now, _look_up, received, explained=True, reader=reader
        )
        mailboxes = set(decision.targets)
        found = self._find_hosts(sorted({each.key[1] for each in decision.shown if each in mailboxes and each.domain}))
        written = str(sender) if sender else ""
        deliveries = tuple(
            PlannedDelivery(
                target=str(shown),
                envelope_sender=self._rewriter.rewrite(written, decision.reference, now).return_path,
                hosts=found.get(shown.key[1], _NOWHERE).hosts if shown in mailboxes else (),
                mode=decision.mode,
            )
            # What is behind somebody else's address is one thing to the reader.
            for shown in dict.fromkeys(decision.shown)
        )
        steps = (*decision.steps, *(each.step for each in found.values()))
        return Explanation(decision.reply, decision.reason, steps, deliveries)

    def _name_of(self, client: str, snapshot: Snapshot) -> str | None:
        """What the client is called, where that decides."""
        if not client or not snapshot.blocks.has_names:
            return None
        return self._run(partial(_name_of, self._resolver(), client))

    def _resolver(self) -> DnsResolver:
        return DnsResolver(self._config.dns.nameservers, self._config.dns.timeout / 1000)

    def _find_hosts(self, domains: Sequence[str]) -> dict[str, _Found]:
        """Where mail for these domains goes; the DNS is asked about all at once, where it decides."""
        if not domains:
            return {}
        relay = self._config.delivery.smarthost
        if relay is not None:
            step = Step("hosts", "ok", f"all mail that leaves goes to the smarthost {relay.host}, port {relay.port}")
            return dict.fromkeys(domains, _Found((relay.host,), step))
        settings = host_settings(self._config)
        resolver = self._resolver()
        found: dict[str, _Found] = {}

        async def look_up(domain: str) -> None:
            found[domain] = await _hosts_of(resolver, domain, settings)

        async def look_up_all() -> dict[str, _Found]:
            async with trio.open_nursery() as nursery:
                for domain in domains:
                    nursery.start_soon(look_up, domain)
            return {domain: found[domain] for domain in domains}

        return self._run(look_up_all)


def _look_up(token: str) -> ReturnPath | None:
    raise StoreUnavailable("what this rewritten sender stands for is kept in the spool, which only the appliance opens")


async def _name_of(resolver: Resolver, client: str) -> str | None:
    try:
        return await confirmed_name(resolver, client)
    except (NoSuchName, LookupFailed):
        return None


async def _hosts_of(resolver: Resolver, domain: str, settings: HostSettings) -> _Found:
    try:
        addresses = await find_addresses(resolver, domain, settings)
    except NoHosts as error:
        outcome = type(error.outcome).__name__.lower()
        return _Found((), Step("hosts", outcome, error.outcome.answer.text))
    hosts = tuple(dict.fromkeys(address.host for address in addresses))
    return _Found(hosts, Step("hosts", "ok", f"mail for {domain} goes to {', '.join(hosts)}"))
