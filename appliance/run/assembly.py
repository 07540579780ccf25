"""How the rooms of mail are put together for one run: what the configuration says, as each of them wants to hear it."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network

import trio

from appliance.configuration import Configuration
from appliance.delivery.connecting import ConnectionSettings
from appliance.delivery.courier import Courier
from appliance.delivery.operator import QueueOperator
from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.scheduler import Scheduler
from appliance.delivery.settlement import Settler
from appliance.forwarding.srs import SenderRewriter
from appliance.logbook.events import Logbook
from appliance.logbook.live import LiveStream
from appliance.reception.client_names import ClientNames
from appliance.reception.session import MAX_HEADER_SECTION, Reception, Routing
from appliance.reports.own_mail import OwnMail
from appliance.resolver import DnsResolver
from appliance.routing.snapshot import Snapshot
from appliance.run.certificates import verifying
from appliance.run.hosts import host_settings
from appliance.run.stores import SRS_KEY, secrets
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.spool import PART_OCTETS
from smtp.server.conduct import ConductLimits
from smtp.server.trio_server import ServerSettings
from smtp.tls import opportunistic_context

HELD_OCTETS = PART_OCTETS + MAX_HEADER_SECTION
"""How much of a message reception keeps in memory while it comes in; what is beyond goes to the disk at once."""


@dataclass(frozen=True, slots=True)
class MailRooms:
    """What takes mail, what delivers it, and what steers it."""

    reception: Reception
    scheduler: Scheduler
    queue: QueueOperator


def assemble(
    config: Configuration, spool: Spool, routing: Routing, live: LiveStream, clocks: Clocks, background: trio.Nursery
) -> MailRooms:
    """Put the rooms together. `background` outlives them and is for look-ups that nobody waits for."""

    def snapshot() -> Snapshot:
        return routing.snapshot

    resolver = DnsResolver(config.dns.nameservers, config.dns.timeout / 1000)
    rewriter = SenderRewriter(config.forwarding.srs_domain, [secrets(config).key(SRS_KEY)])
    logbook = Logbook(lambda domain_id: routing.snapshot.log_level(domain_id), clocks.wall, spool.new_id)
    schedule = RetrySchedule(config.delivery.retry, config.delivery.give_up_after)
    own_mail = OwnMail(
        hostname=config.hostname,
        reporter=config.mail.from_,
        snapshot=snapshot,
        rewriter=rewriter,
        look_up=spool.store.return_path,
        new_id=spool.new_id,
        clocks=clocks,
    )
    settler = Settler(spool, logbook, schedule, own_mail, snapshot, clocks)
    scheduler = Scheduler(
        spool,
        settler,
        live,
        _couriers(config, resolver, clocks),
        clocks.steady,
        config.delivery.max_per_destination,
    )
    reception = Reception(
        hostname=config.hostname,
        routing=routing,
        rewriter=rewriter,
        spool=spool,
        logbook=logbook,
        live=live,
        client_names=ClientNames(resolver, background),
        own_mail=own_mail,
        next=scheduler,
        clocks=clocks,
    )
    return MailRooms(reception, scheduler, QueueOperator(spool, scheduler, schedule, clocks))


def _couriers(config: Configuration, resolver: DnsResolver, clocks: Clocks) -> Callable[[str], Courier]:
    verifying_tls, _ = verifying()
    connections = ConnectionSettings(
        config.delivery.port,
        host_settings(config),
        opportunistic=opportunistic_context(),
        # Where there is none, `doubts` has said so.
        verifying=verifying_tls,
    )
    return lambda domain: Courier(domain, resolver, connections, clocks.wall)


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
