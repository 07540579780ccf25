"""How the rooms of mail are put together for one run: what the configuration says, as each of them wants to hear it."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network

import trio

from appliance.configuration import Configuration
from appliance.delivery.courier import Courier
from appliance.delivery.holds import Holds
from appliance.delivery.next_hop import NextHops
from appliance.delivery.operator import QueueOperator
from appliance.delivery.relay_connections import RelayConnections
from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.scheduler import Scheduler
from appliance.delivery.settlement import Settler
from appliance.forwarding.own_lines import OwnLines
from appliance.forwarding.srs import SenderRewriter
from appliance.logbook.events import Logbook
from appliance.logbook.live import LiveStream
from appliance.reception.client_names import ClientNames
from appliance.reception.day_counts import DayCounts
from appliance.reception.session import Reception, Routing
from appliance.reception.submission import Submission
from appliance.reception.transaction import MAX_HEADER_SECTION
from appliance.reception.transit import Transit
from appliance.reception.transit_memory import TransitMemory
from appliance.reports.own_mail import OwnMail
from appliance.resolver import DnsResolver
from appliance.routing.snapshot import Snapshot
from appliance.run.ephemeral import open_ephemeral
from appliance.run.hosts import connection_settings
from appliance.run.stores import SRS_KEY, secrets
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.spool.uses import Uses
from appliance.storage.spool import PART_OCTETS, ReturnPath
from smtp.server.conduct import ConductLimits
from smtp.server.trio_server import ServerSettings

HELD_OCTETS = PART_OCTETS + MAX_HEADER_SECTION
"""How much of a message reception keeps in memory while it comes in; what is beyond goes to the disk at once."""


@dataclass(frozen=True, slots=True)
class MailRooms:
    """What takes mail, what delivers it, and what steers it."""

    reception: Reception
    scheduler: Scheduler
    queue: QueueOperator
    submission: Submission
    holds: Holds


def assemble(
    config: Configuration,
    spool: Spool,
    routing: Routing,
    live: LiveStream,
    day_counts: DayCounts,
    uses: Uses,
    clocks: Clocks,
    background: trio.Nursery,
) -> MailRooms:
    """Put the rooms together. `background` outlives them and is for what nobody waits for: look-ups, and farewells."""

    def snapshot() -> Snapshot:
        return routing.snapshot

    memory = TransitMemory(*open_ephemeral(config))

    def look_up(token: str) -> ReturnPath | None:
        # The spool first: what it knows is found while the ephemeral store is away.
        return spool.store.return_path(token) or memory.return_path(token)

    resolver = DnsResolver(config.dns.nameservers, config.dns.timeout / 1000)
    srs_key = secrets(config).key(SRS_KEY)
    rewriter = SenderRewriter(config.forwarding.srs_domain, [srs_key])
    logbook = Logbook(lambda domain_id: routing.snapshot.log_level(domain_id), clocks.wall, spool.new_id)
    schedule = RetrySchedule(config.delivery.retry, config.delivery.give_up_after)
    own_mail = OwnMail(
        hostname=config.hostname,
        reporter=config.mail.from_,
        snapshot=snapshot,
        rewriter=rewriter,
        look_up=look_up,
        new_id=spool.new_id,
        clocks=clocks,
    )
    holds = Holds(spool.store.holds())
    # With a smarthost all destinations have the same way, and the limit for one of them is the limit for all.
    relay = RelayConnections(config.delivery.max_per_destination) if config.delivery.smarthost else None
    settler = Settler(
        spool, logbook, schedule, own_mail, snapshot, clocks, delay_notice_after_ms=config.delivery.delay_notice_after
    )
    scheduler = Scheduler(
        spool,
        settler,
        live,
        _couriers(config, resolver, clocks, relay),
        holds,
        schedule,
        clocks,
        config.delivery.max_per_destination,
    )
    next_hops = NextHops(
        resolver, connection_settings(config), clocks.wall, background, holds, config.delivery.max_per_destination
    )
    reception = Reception(
        hostname=config.hostname,
        routing=routing,
        rewriter=rewriter,
        own_lines=OwnLines(config.hostname, srs_key),
        spool=spool,
        logbook=logbook,
        live=live,
        client_names=ClientNames(resolver, background),
        own_mail=own_mail,
        next=scheduler,
        transit=Transit(next_hops, memory, rewriter, snapshot, spool.new_id, clocks),
        look_up=look_up,
        day_counts=day_counts,
        clocks=clocks,
        uses=uses,
    )
    queue = QueueOperator(spool, scheduler, settler, holds, live, schedule, clocks, relay)
    submission = Submission(config.hostname, config.mail.from_, spool, snapshot, clocks, scheduler.wake)
    return MailRooms(reception, scheduler, queue, submission, holds)


def _couriers(
    config: Configuration, resolver: DnsResolver, clocks: Clocks, relay: RelayConnections | None
) -> Callable[[str], Courier]:
    settings = connection_settings(config)
    return lambda domain: Courier(domain, resolver, settings, clocks.wall, relay)


def server_settings(config: Configuration, tls: ssl.SSLContext | None) -> ServerSettings:
    """What the configuration says to the SMTP server."""
    return ServerSettings(
        hostname=config.hostname,
        max_message_octets=config.smtp.max_message_size,
        max_recipients=config.smtp.max_recipients,
        max_connections=config.smtp.max_connections,
        max_connections_per_client=config.smtp.max_connections_per_client,
        max_header_octets=config.smtp.max_header_size,
        max_in_flight_octets=config.smtp.max_in_flight,
        max_held_octets=HELD_OCTETS,
        min_octets_per_s=config.smtp.minimum_rate,
        conduct=ConductLimits(
            tarpit_after=max(1, config.smtp.max_unknown_recipients // 5),
            unknown_recipients_max=config.smtp.max_unknown_recipients,
        ),
        command_timeout_s=config.smtp.command_timeout / 1000,
        transaction_timeout_s=config.smtp.transaction_timeout / 1000,
        tls=tls,
        trusted_proxies=tuple(ip_network(network) for network in config.smtp.trusted_proxies),
    )
