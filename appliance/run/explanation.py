"""Where a message would go and why: the decision that RCPT gets, and behind it the hosts that DNS names today.

The same functions decide here and in a session, over a snapshot that is loaded for the purpose. Nothing is sent and
nothing is stored; the running appliance is not asked, so that this works with it stopped too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from appliance.configuration import Configuration
from appliance.delivery.hosts import HostSettings, NoHosts, find_addresses
from appliance.forwarding.srs import SenderRewriter
from appliance.model.domain import DeliveryMode
from appliance.model.time import Clock, wall_clock
from appliance.reception.decision import decide
from appliance.resolver import DnsResolver, Resolver
from appliance.routing.route import Step
from appliance.routing.snapshot import Settings, load
from appliance.run.hosts import host_settings
from appliance.run.stores import SRS_KEY, secrets
from appliance.storage.records import RecordStore, StoreUnavailable
from appliance.storage.spool import ReturnPath
from smtp.address import Address
from smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class PlannedDelivery:
    """One copy that would leave."""

    target: str
    envelope_sender: str
    hosts: tuple[str, ...]
    """The servers that would be tried, best first; empty where DNS names none, and then a step says why."""
    mode: DeliveryMode


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of a message for one recipient."""

    reply: Reply
    reason: str
    steps: tuple[Step, ...]
    deliveries: tuple[PlannedDelivery, ...]

    @property
    def accepted(self) -> bool:
        """Whether mail for the recipient is taken."""
        return self.reply.code == 250


def explain(
    config: Configuration,
    records: RecordStore,
    recipient: Address,
    sender: Address | None,
    clock: Clock = wall_clock,
) -> Explanation:
    """Decide about one recipient, and look up where its copies would go. Asks the DNS, for `dns.timeout` at most.

    Raises StoreUnavailable.
    """
    snapshot = load(records, Settings(config.hostname, config.forwarding.srs_domain, config.mail.postmaster))
    rewriter = SenderRewriter(config.forwarding.srs_domain, [secrets(config).key(SRS_KEY)])
    now = clock()
    decision = decide(snapshot, rewriter, sender, recipient, now, _look_up, explained=True)
    found = _find_hosts(config, sorted({target.key[1] for target in decision.targets if target.domain}))
    written = str(sender) if sender else ""
    deliveries = tuple(
        PlannedDelivery(
            target=str(target),
            envelope_sender=rewriter.rewrite(written, decision.reference, now).return_path,
            hosts=found.get(target.key[1], _NOWHERE).hosts,
            mode=decision.mode,
        )
        for target in decision.targets
    )
    steps = (*decision.steps, *(each.step for each in found.values()))
    return Explanation(decision.reply, decision.reason, steps, deliveries)


@dataclass(frozen=True, slots=True)
class _Found:
    hosts: tuple[str, ...]
    step: Step


_NOWHERE = _Found((), Step("hosts", "none", ""))


def _look_up(token: str) -> ReturnPath | None:
    raise StoreUnavailable("what this rewritten sender stands for is kept in the spool, which only the appliance opens")


def _find_hosts(config: Configuration, domains: Sequence[str]) -> dict[str, _Found]:
    """Where mail for these domains goes; the DNS is asked about all at once, where it decides."""
    if not domains:
        return {}
    relay = config.delivery.smarthost
    if relay is not None:
        step = Step("hosts", "ok", f"all mail that leaves goes to the smarthost {relay.host}, port {relay.port}")
        return dict.fromkeys(domains, _Found((relay.host,), step))
    settings = host_settings(config)
    resolver = DnsResolver(config.dns.nameservers, config.dns.timeout / 1000)
    found: dict[str, _Found] = {}

    async def look_up(domain: str) -> None:
        found[domain] = await _hosts_of(resolver, domain, settings)

    async def look_up_all() -> None:
        async with trio.open_nursery() as nursery:
            for domain in domains:
                nursery.start_soon(look_up, domain)

    trio.run(look_up_all)
    return {domain: found[domain] for domain in domains}


async def _hosts_of(resolver: Resolver, domain: str, settings: HostSettings) -> _Found:
    try:
        addresses = await find_addresses(resolver, domain, settings)
    except NoHosts as error:
        outcome = type(error.outcome).__name__.lower()
        return _Found((), Step("hosts", outcome, error.outcome.answer.text))
    hosts = tuple(dict.fromkeys(address.host for address in addresses))
    return _Found(hosts, Step("hosts", "ok", f"mail for {domain} goes to {', '.join(hosts)}"))
