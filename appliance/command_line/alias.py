"""`onward alias`: which addresses lead where."""

import click

from appliance.accounts.aliases import ListedAlias
from appliance.command_line.invocation import Group, Invocation, json_option, pass_invocation
from appliance.command_line.output import print_json, print_list, readable, say
from appliance.command_line.views import alias_view
from appliance.command_line.when import When
from appliance.model.domain import AliasAction


@click.group(cls=Group)
def alias() -> None:
    """Add, list and remove aliases: `name@`, `prefix*@`, `*@` or `/^expression$/@` one of the domains."""


@alias.command()
@click.argument("address", metavar="PATTERN@DOMAIN")
@click.argument("destinations", metavar="[DESTINATION ...]", nargs=-1)
@click.option(
    "--action",
    type=click.Choice([action.value for action in AliasAction]),
    default=AliasAction.FORWARD.value,
    show_default=True,
    help="What becomes of a message.",
)
@click.option("--expires", metavar="WHEN", type=When(past=False), help="From when on it takes no more mail.")
@click.option("--uses", metavar="N", type=click.IntRange(min=1), help="How many messages it takes.")
@click.option("--confirmed", is_flag=True, help="You vouch that the owners of the destinations have agreed.")
@json_option
@pass_invocation
def add(
    invocation: Invocation,
    address: str,
    destinations: tuple[str, ...],
    action: str,
    expires: int | None,
    uses: int | None,
    confirmed: bool,
    as_json: bool,
) -> None:
    """Add an alias. Owners of destinations who have not agreed yet get a letter from the running appliance."""
    with invocation.aliases(asking=not confirmed) as aliases:
        added = aliases.add(
            address,
            destinations,
            action=AliasAction(action),
            confirmed=confirmed,
            expires_at=expires,
            remaining_uses=uses,
        )
    if as_json:
        print_json(alias_view(added))
    else:
        say(f"Added {_name(added)}: {_leads_to(added)}.")
    if not added.domain.verified:
        say(f"{added.domain.name} is not verified yet: mail for it is refused until then.")
    if added.asked:
        say(f"Mail for it is put off until they agree: {', '.join(added.asked)} has been asked by mail.")
    if added.unasked:
        say(
            f"{', '.join(added.unasked)} could not be asked now. Remove the alias and add it again, or vouch with "
            "--confirmed."
        )


@alias.command("list")
@click.argument("domain", required=False)
@json_option
@pass_invocation
def list_aliases(invocation: Invocation, domain: str | None, as_json: bool) -> None:
    """List all aliases, or those of one DOMAIN."""
    with invocation.aliases() as aliases:
        print_list(
            aliases.every(domain),
            as_json,
            view=alias_view,
            columns=("ALIAS", "ACTION", "DESTINATIONS", "EXPIRES", "USES LEFT", "CREATED"),
            row=_row,
            empty="There are no aliases yet. Add one: onward alias add name@example.org you@example.com --confirmed",
        )


@alias.command()
@click.argument("address", metavar="PATTERN@DOMAIN")
@json_option
@pass_invocation
def remove(invocation: Invocation, address: str, as_json: bool) -> None:
    """Remove an alias. Mail that is under way already is still delivered."""
    with invocation.aliases() as aliases:
        removed = aliases.remove(address)
    if as_json:
        print_json(alias_view(removed))
    else:
        say(f"Removed {_name(removed)}.")


def _name(listed: ListedAlias) -> str:
    return f"{listed.alias.pattern}@{listed.domain.name}"


def _leads_to(listed: ListedAlias) -> str:
    if listed.alias.action is not AliasAction.FORWARD:
        return str(listed.alias.action.value)
    return f"leads to {', '.join(listed.alias.targets)}"


def _row(listed: ListedAlias) -> tuple[str, ...]:
    alias = listed.alias
    destinations = ", ".join(
        target if confirmed else f"{target} (not confirmed)" for target, confirmed in listed.destinations
    )
    left = "" if alias.remaining_uses is None else str(alias.remaining_uses)
    expires, created = readable(alias.expires_at), readable(alias.created_at)
    return (_name(listed), alias.action.value, destinations, expires, left, created)
