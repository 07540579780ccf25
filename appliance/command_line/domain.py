"""`onward domain`: whose mail is taken, and in which manner."""

import click

from appliance.command_line.invocation import Group, Invocation, json_option, pass_invocation
from appliance.command_line.output import print_json, print_list, readable, say, yes_or_no
from appliance.command_line.views import Json, domain_view
from appliance.model.domain import DeliveryMode, Domain, LogLevel

Owned = tuple[Domain, str]
"""A domain, and the address of its account."""


@click.group(cls=Group)
def domain() -> None:
    """Add, list, set and remove domains, whose mail is forwarded."""


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
            f"Mail for {added.name} is refused until it is verified. The check in DNS is not built yet: for now, "
            "add it again with --verified where you know whose it is."
        )


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
@json_option
@pass_invocation
def set_domain(invocation: Invocation, name: str, mode: str | None, log: str | None, as_json: bool) -> None:
    """Set the delivery mode or the log level of a domain."""
    if mode is None and log is None:
        raise click.UsageError("Nothing to set: give --mode, --log or both.")
    with invocation.domains() as (domains, _):
        changed = domains.change(
            name,
            delivery_mode=None if mode is None else DeliveryMode(mode),
            log_level=None if log is None else LogLevel(log),
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
    with invocation.domains() as (domains, _):
        removed = domains.remove(name)
    if as_json:
        print_json(domain_view(removed))
    else:
        say(f"Removed {removed.name} with its aliases and its log.")


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
