"""`onward domain`: whose mail is taken, and in which manner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from appliance.command_line.invocation import Group, Invocation, json_option, pass_invocation
from appliance.command_line.output import plain, print_json, print_list, readable, say, yes_or_no
from appliance.command_line.views import Json, dns_record_view, domain_view
from appliance.model.domain import DeliveryMode, Domain, LogLevel, QuarantineAction

if TYPE_CHECKING:
    from appliance.accounts.ownership import DnsRecord

Owned = tuple[Domain, str]
"""A domain, and the address of its account."""


@click.group(cls=Group)
def domain() -> None:
    """Add, check, list, set and remove domains, whose mail is forwarded."""


@domain.command()
@click.argument("name")
@click.option("--account", "email", metavar="EMAIL", required=True, help="Who owns it.")
@click.option("--verified", is_flag=True, help="Take the ownership for granted, without a proof in DNS.")
@json_option
@pass_invocation
def add(invocation: Invocation, name: str, email: str, verified: bool, as_json: bool) -> None:
    """Add a domain to an account."""
    configuration = invocation.configuration
    with invocation.domains() as (domains, accounts):
        added = domains.add(
            name,
            accounts.of(email),
            verified=verified,
            delivery_mode=configuration.delivery.mode,
            log_level=configuration.log.level,
        )
    if as_json:
        print_json(domain_view(added))
    else:
        say(f"Added {added.name}.")
    if not verified:
        say(
            f"Mail for {added.name} is refused until it is verified. What its DNS has to say for that: onward domain "
            f"check {added.name}. Where you know whose it is: add it again with --verified."
        )


@domain.command()
@click.argument("name")
@json_option
@click.pass_context
@pass_invocation
def check(invocation: Invocation, context: click.Context, name: str, as_json: bool) -> None:
    """Look up a domain's records in DNS now; with the proof of ownership there, it is verified from then on."""
    with invocation.ownership() as (ownership, domains):
        checked, records = ownership.check(domains.named(name))
    if as_json:
        print_json({**domain_view(checked), "dnsRecords": [dns_record_view(record) for record in records]})
    else:
        _print_records(checked, records)
    if not all(record.ok for record in records if record.required):
        context.exit(1)


@domain.command("list")
@json_option
@pass_invocation
def list_domains(invocation: Invocation, as_json: bool) -> None:
    """List all domains, the oldest first."""
    with invocation.domains() as (domains, accounts):
        emails = {account.id: account.email for account in accounts.every()}
        print_list(
            ((each, emails.get(each.account_id, "")) for each in domains.every()),
            as_json,
            view=_view,
            columns=("NAME", "ACCOUNT", "VERIFIED", "MODE", "LOG", "CREATED"),
            row=_row,
            empty="There are no domains yet. Add one with: onward domain add example.org --account you@example.org",
        )


@domain.command("set")
@click.argument("name")
@click.option("--mode", type=click.Choice([mode.value for mode in DeliveryMode]), help="What a 250 stands on.")
@click.option("--log", type=click.Choice([level.value for level in LogLevel]), help="How much the log may remember.")
@click.option(
    "--quarantine",
    type=click.Choice([action.value for action in QuarantineAction]),
    help="What becomes of mail whose author's domain asks to put it aside.",
)
@click.option("--from-rewrite/--no-from-rewrite", default=None, help="Whether From may be rewritten to save delivery.")
@json_option
@pass_invocation
def set_domain(
    invocation: Invocation,
    name: str,
    mode: str | None,
    log: str | None,
    quarantine: str | None,
    from_rewrite: bool | None,
    as_json: bool,
) -> None:
    """Set the delivery mode, the log level and the like of a domain."""
    if mode is None and log is None and quarantine is None and from_rewrite is None:
        raise click.UsageError("Nothing to set: give --mode, --log, --quarantine or --from-rewrite.")
    with invocation.domains() as (domains, _):
        changed = domains.update(
            domains.named(name),
            delivery_mode=None if mode is None else DeliveryMode(mode),
            log_level=None if log is None else LogLevel(log),
            quarantine_action=None if quarantine is None else QuarantineAction(quarantine),
            allow_from_rewrite=from_rewrite,
        )
    if as_json:
        print_json(domain_view(changed))
    else:
        say(f"{changed.name}: mode {changed.delivery_mode.value}, log {changed.log_level.value}.")


@domain.command()
@click.argument("name")
@json_option
@pass_invocation
def remove(invocation: Invocation, name: str, as_json: bool) -> None:
    """Remove a domain with its aliases and its log."""
    from appliance.run.account_rooms import let_go

    with invocation.domains() as (domains, _):
        removed = domains.remove(name)
    if removed.verified:
        let_go(invocation.engine())({removed.name: removed.id})
    if as_json:
        print_json(domain_view(removed))
    else:
        say(f"Removed {removed.name} with its aliases and its log.")


def _print_records(checked: Domain, records: Sequence[DnsRecord]) -> None:
    state = "verified" if checked.verified else "not verified yet, and mail for it is refused"
    click.echo(plain(f"{checked.name} is {state}."))
    for record in records:
        click.echo(plain(f"{_mark(record):8}{record.name}  {record.type}  {record.expected}"))
        for found in record.found:
            click.echo(plain(f"{'':8}found: {found}"))
        if record.advice:
            click.echo(f"{'':8}{plain(record.advice)}")


def _mark(record: DnsRecord) -> str:
    if not record.answered:
        return "unknown"
    return "ok" if record.ok else "MISSING" if record.required else "advised"


def _view(owned: Owned) -> Json:
    each, email = owned
    return {**domain_view(each), "account": {"id": each.account_id, "email": email}}


def _row(owned: Owned) -> tuple[str, ...]:
    each, email = owned
    return (
        each.name,
        email,
        yes_or_no(each.verified),
        each.delivery_mode.value,
        each.log_level.value,
        readable(each.created_at),
    )
