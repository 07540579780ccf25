"""`onward check`: is everything as it must be for mail to flow, and where not, what to do.

Each check is a small function that looks at one thing and returns one finding; `CHECKS` is the order in which they are
printed. Nothing is changed by looking. A fault of the configuration itself ends the command before the first check.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import urlsplit

import click
import trio

from appliance.accounts.rows import get
from appliance.command_line.check_stores import check_clock, check_mongodb, check_nodes, check_redis
from appliance.command_line.findings import Finding, Grade
from appliance.command_line.invocation import Command, Invocation, json_option, pass_invocation
from appliance.command_line.output import counted, plain, print_json, say
from appliance.configuration import FROM_SYSTEMD, Configuration, ListenAddress, MailProvider
from appliance.delivery.attempt import Attempt
from appliance.delivery.reaching import Unreachable, reach
from appliance.delivery.smarthost import PASSWORD
from appliance.model.account import Account, Role
from appliance.model.time import wall_clock
from appliance.network import is_loopback, why_not_a_source
from appliance.privacy.declarations import Store, collections_of
from appliance.privacy.secrets import SecretRefused
from appliance.resolver import DnsResolver
from appliance.run import CannotStart
from appliance.run.certificates import verifying
from appliance.run.cluster_keys import CLUSTER_KEY
from appliance.run.hosts import connection_settings
from appliance.run.listeners import Where, close, open_listeners
from appliance.run.own_certificate import describe
from appliance.run.post_office import postmark_of
from appliance.run.stores import ALL_KEYS, RECORDS_FILE, is_shared, open_records, secrets
from appliance.storage.records import SchemaMismatch, StoreUnavailable
from appliance.wire import STATUS_S, NotRunning, WireError, call

SMARTHOST_S = 20.0
"""How long a smarthost may take for greeting, TLS and login."""

EXPIRES_SOON = timedelta(days=14)
"""Who renews by themselves have done so by then: 30 days before is the custom."""

PRIVATE_ENDINGS = ("localhost", "localdomain", "local", "lan", "home", "internal", "home.arpa", "invalid")
"""Names that mean nothing outside (RFC 6761, RFC 6762, RFC 8375, and what routers make up)."""


_UNUSABLE = (StoreUnavailable, SchemaMismatch, SecretRefused, OSError)
"""Why a record store may not open."""


def check_data_directory(config: Configuration) -> Finding:
    """Is the data directory ours, writable, and shut to others?"""
    name, path = "data directory", config.data_dir
    if not path.exists():
        above = next(parent for parent in path.parents if parent.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            return Finding(Grade.FAULT, name, f"{path} cannot be made", f"make it writable, or choose another: {above}")
        return Finding(Grade.OK, name, f"{path} will be made at the first start")
    if not path.is_dir():
        return Finding(Grade.FAULT, name, f"{path} is not a directory", "remove it, or choose another data_dir")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            Grade.FAULT, name, f"{path} cannot be written", "give it to the user that runs the appliance: chown"
        )
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        return Finding(Grade.WARNING, name, f"others can look into {path}", f"chmod 700 {path}")
    return Finding(Grade.OK, name, f"{path} is writable, and its owner's alone")


def check_secrets(config: Configuration) -> Finding:
    """Can nobody else read the keys?"""
    name, own = "secrets", secrets(config)
    try:
        missing = own.missing(ALL_KEYS)
    except (CannotStart, *_UNUSABLE) as error:
        return Finding(Grade.FAULT, name, str(error), "the appliance does not start before that")
    if missing:
        return Finding(Grade.OK, name, f"to be made at their first use: {', '.join(missing)}")
    if is_shared(config):
        detail = f"{own.file_of(CLUSTER_KEY)} opens those that the nodes share: {', '.join(ALL_KEYS)}"
        return Finding(Grade.OK, name, detail)
    return Finding(Grade.OK, name, f"{', '.join(ALL_KEYS)}: their owner's alone")


def check_certificate(config: Configuration) -> Finding:
    """What do those see who encrypt, and do those believe it who ask whose it is?"""
    name, hostname = "certificate", config.hostname
    try:
        found = describe(config)
    except (CannotStart, *_UNUSABLE) as error:
        return Finding(Grade.FAULT, name, str(error))
    if found is None or found.own:
        state = "will be made at the next start" if found is None or not found.covers(hostname) else "is there"
        detail = f"a self-signed one for {hostname} {state}: it encrypts. For proof, set tls.certificate and tls.key"
        return Finding(Grade.OK, name, detail)
    left = found.expires_at - datetime.now(UTC)
    until = f"{found.expires_at:%Y-%m-%d}"
    if left <= timedelta():
        return Finding(Grade.WARNING, name, f"it has expired, on {until}", "have it renewed, then reload (SIGHUP)")
    if not found.covers(hostname):
        names = ", ".join(found.names) or "no name at all"
        return Finding(Grade.WARNING, name, f"it is for {names}, not for {hostname}", f"get one for {hostname}")
    if left <= EXPIRES_SOON:
        return Finding(Grade.WARNING, name, f"it expires on {until}", "have it renewed, then reload (SIGHUP)")
    return Finding(Grade.OK, name, f"{config.tls.certificate} is for {hostname}, until {until}")


def check_authorities(config: Configuration) -> Finding:
    """Can a server prove its name to us? Only mail that requires TLS asks for it."""
    name = "authorities"
    context, why = verifying()
    if context is None:
        detail, _, advice = why.rpartition(": ")
        return Finding(Grade.WARNING, name, f"{detail}; mail whose sender requires TLS comes back", advice)
    return Finding(Grade.OK, name, "those whose word for a certificate this machine takes can be loaded")


def check_source_addresses(config: Configuration) -> Finding:
    """Are the addresses ours that mail is to leave from?"""
    name, wanted = "source addresses", config.delivery.source_addresses
    for source in wanted:
        if why := why_not_a_source(source):
            advice = "give this machine the address, or take it out of delivery.source_addresses"
            return Finding(Grade.FAULT, name, f"nothing can be sent from {source}: {why}", advice)
    return Finding(Grade.OK, name, f"mail can leave from {', '.join(wanted)}" if wanted else "as the system chooses")


def check_smarthost(config: Configuration) -> Finding:
    """Does the relay talk to us, and believe us? No message is sent."""
    name, relay = "smarthost", config.delivery.smarthost
    if relay is None:
        return Finding(Grade.OK, name, "none: mail goes to the hosts of each destination")
    try:
        encrypted = trio.run(_greet_smarthost, config)
    except Unreachable as unreachable:
        answer = unreachable.outcome.answer
        about_login = answer.reason == "login-refused"
        advice = f"look at delivery.smarthost{f' and the secret {PASSWORD}' if about_login else ''}: all mail waits"
        return Finding(Grade.FAULT, name, answer.text, advice)
    except trio.TooSlowError:
        return Finding(Grade.FAULT, name, f"{relay.host} did not answer within {SMARTHOST_S:g} s", "try again later")
    except (CannotStart, SecretRefused, OSError) as error:
        return Finding(Grade.FAULT, name, str(error), "the appliance does not start before that")
    known_as = f", which knows us as {relay.user}" if relay.user else ""
    return Finding(Grade.OK, name, f"all mail goes to {relay.host}, port {relay.port}{known_as}; TLS: {encrypted}")


async def _greet_smarthost(config: Configuration) -> str:
    """Say hello, log in, and leave. Returns how that was encrypted."""
    resolver = DnsResolver(config.dns.nameservers, config.dns.timeout / 1000)
    settings = connection_settings(config)
    with trio.fail_after(SMARTHOST_S):
        reached = await reach("", resolver, settings, Attempt(wall_clock), required=False, chunking=False)
        await reached.connection.quit()
    return reached.tls or "none"


def check_records(config: Configuration) -> Finding:
    """Does the record store open, with all that is declared and nothing else?"""
    name, path = "record store", config.data_dir / RECORDS_FILE
    where = "the database" if is_shared(config) else str(path)
    if not is_shared(config) and not path.exists():
        return Finding(Grade.OK, name, f"{path} will be made at the first use")
    try:
        records = open_records(config)
        try:
            rows = sum(records.count(collection, {}) for collection in collections_of(Store.RECORDS))
        finally:
            records.close()
    except (CannotStart, *_UNUSABLE) as error:
        return Finding(Grade.FAULT, name, f"{where} cannot be used: {error}", "put it right, or restore a backup")
    return Finding(Grade.OK, name, f"{where} is as declared, with {counted(rows, 'row')}")


def check_postmaster(config: Configuration) -> Finding:
    """Does mail for postmaster reach somebody?"""
    name = "postmaster"
    if config.mail.postmaster:
        return Finding(Grade.OK, name, f"mail for postmaster goes to {config.mail.postmaster}")
    operator = None
    if is_shared(config) or (config.data_dir / RECORDS_FILE).exists():
        try:
            records = open_records(config)
            try:
                operator = get(records, Account, {"role": Role.OPERATOR.value})
            finally:
                records.close()
        except _UNUSABLE:
            return Finding(Grade.WARNING, name, "unknown, because the record store cannot be used")
    if operator is None:
        return Finding(
            Grade.WARNING,
            name,
            "nobody has the mail for postmaster, which every mail server must take (RFC 5321 §4.5.1): it waits",
            "onward account add you@example.org --operator, or set mail.postmaster",
        )
    return Finding(Grade.OK, name, f"mail for postmaster goes to {operator.email}")


def check_own_mail(config: Configuration) -> Finding:
    """Can the appliance write to people? Postmark, where it is the provider, is not asked."""
    name, sender = "own mail", config.mail.from_
    if config.mail.provider is MailProvider.SELF:
        return Finding(Grade.OK, name, f"letters from {sender} go through the queue, as all mail")
    try:
        postmark_of(config)
    except (CannotStart, SecretRefused, OSError) as error:
        return Finding(Grade.FAULT, name, str(error), "the appliance does not start before that")
    return Finding(Grade.OK, name, f"letters go by way of Postmark, where their sender {sender} has to be confirmed")


def check_hostname(config: Configuration) -> Finding:
    """Is the name one that other servers can believe?"""
    name, hostname = "hostname", config.hostname
    advice = "set hostname to the name that the MX records of the domains will have"
    if "." not in hostname:
        return Finding(Grade.WARNING, name, f"{hostname} has no domain: many servers refuse such a greeting", advice)
    if any(hostname == ending or hostname.endswith(f".{ending}") for ending in PRIVATE_ENDINGS):
        return Finding(Grade.WARNING, name, f"{hostname} means nothing outside: many servers refuse it", advice)
    return Finding(Grade.OK, name, hostname)


def check_public_url(config: Configuration) -> Finding:
    """Do the links in letters lead to us, wherever they are opened?"""
    name, url = "public URL", config.http.public_url
    host = urlsplit(url).hostname or ""
    near = host == "localhost" or host.endswith(".localhost") or is_loopback(host)
    if near and not all(_is_near(where) for where in config.smtp.listen):
        return Finding(
            Grade.WARNING,
            name,
            f"{url} leads to this machine alone, and so do the links in letters",
            "set http.public_url to what people reach it by",
        )
    return Finding(Grade.OK, name, url)


def _is_near(where: ListenAddress | Literal["fd"]) -> bool:
    return where != FROM_SYSTEMD and is_loopback(where.host)


def check_smtp_ports(config: Configuration) -> Finding:
    """Can mail come in?"""
    return _ports(config, "SMTP ports", config.smtp.listen, lambda where: _only(config, smtp=(where,)))


def check_http_ports(config: Configuration) -> Finding:
    """Can the web come in?"""
    return _ports(config, "HTTP ports", config.http.listen, lambda where: _only(config, http=(where,)))


def check_appliance(config: Configuration) -> Finding:
    """Does it run, and does it do its work? Not running is right, too; it is told because it explains the ports."""
    name = "appliance"
    try:
        status = _status(config)
    except WireError as error:
        return Finding(Grade.FAULT, name, f"running, and not well: {error}", "look into its log, or restart it")
    if status is None:
        return Finding(Grade.OK, name, "not running: onward run starts it")
    if status.get("healthy") is not True:
        detail = f"running, and its spool takes no mail: {status.get('trouble')}"
        return Finding(Grade.FAULT, name, detail, f"make room in {config.data_dir}, or put right what its log says")
    return Finding(Grade.OK, name, "running")


CHECKS: tuple[Callable[[Configuration], Finding], ...] = (
    check_hostname,
    check_data_directory,
    check_mongodb,
    check_secrets,
    check_certificate,
    check_authorities,
    check_source_addresses,
    check_smarthost,
    check_redis,
    check_clock,
    check_nodes,
    check_records,
    check_smtp_ports,
    check_http_ports,
    check_public_url,
    check_postmaster,
    check_own_mail,
    check_appliance,
)


IN_THE_STORE = (check_secrets, check_certificate, check_clock, check_records, check_postmaster)
"""What is asked of the MongoDB where there is one. Where that is at fault, each would wait for it and say the same."""


@click.command(cls=Command)
@json_option
@pass_invocation
def check(invocation: Invocation, as_json: bool) -> None:
    """Check the configuration, permissions and ports, and say what to do about each fault.

    Status 1 where mail would not flow. Whether others reach this machine can't be seen from here; what a domain's DNS
    has to say, `onward domain check` knows.
    """
    where = f"{invocation.path} is valid" if invocation.path else "no file, so the defaults"
    config = invocation.configuration
    findings = [Finding(Grade.OK, "configuration", where), *_findings(config)]
    if as_json:
        for finding in findings:
            print_json(
                {
                    "check": finding.check,
                    "grade": finding.grade.value,
                    "ok": finding.grade is Grade.OK,
                    "detail": finding.detail,
                    "advice": finding.advice or None,
                }
            )
    else:
        _print(findings)
    faults = sum(finding.grade is Grade.FAULT for finding in findings)
    if faults:
        say(f"Mail would not flow: {counted(faults, 'fault')}.")
        raise click.exceptions.Exit(1)


def _findings(config: Configuration) -> Iterator[Finding]:
    store_fails = False
    for each in CHECKS:
        if store_fails and each in IN_THE_STORE:
            continue
        finding = each(config)
        store_fails |= each is check_mongodb and finding.grade is Grade.FAULT
        yield finding


def _status(config: Configuration) -> Mapping[str, object] | None:
    """What a running appliance says about itself; None where none runs. Raises WireError where it says nothing."""
    try:
        told = next(call(config.engine_socket, "status", limit_s=STATUS_S), None)
    except (NotRunning, OSError):
        # A path that is too long or shut to us is told by the check of the data directory, or at the start.
        return None
    return told if isinstance(told, dict) else {}


def _is_running(config: Configuration) -> bool:
    try:
        return _status(config) is not None
    except WireError:
        return True


def _print(findings: Sequence[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        advice = f". To do: {finding.advice}" if finding.advice else ""
        click.echo(plain(f"{finding.grade.value:7}  {finding.check:{width}}  {finding.detail}{advice}"))


def _ports(
    config: Configuration, name: str, wanted: Sequence[Where], only: Callable[[Where], Configuration]
) -> Finding:
    """Open each, and let go of it at once. Where that fails and the appliance runs, it is the appliance that has it."""
    running = _is_running(config)
    told = []
    for where in wanted:
        if where == FROM_SYSTEMD:
            told.append("handed over by systemd")
            continue
        try:
            close(open_listeners(only(where), {}, ()))
        except CannotStart as error:
            if not running:
                return Finding(Grade.FAULT, name, str(error))
            told.append(f"{where} in use, by the running appliance as it seems")
        else:
            told.append(f"{where} is free")
    return Finding(Grade.OK, name, ", ".join(told) or "none")


def _only(config: Configuration, smtp: Sequence[Where] = (), http: Sequence[Where] = ()) -> Configuration:
    return replace(config, smtp=replace(config.smtp, listen=tuple(smtp)), http=replace(config.http, listen=tuple(http)))
