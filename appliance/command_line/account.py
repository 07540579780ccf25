"""`onward account`: who owns domains."""

import sys

import click

from appliance.command_line.invocation import Group, Invocation, json_option, pass_invocation
from appliance.command_line.output import counted, print_json, print_list, readable, say, yes_or_no
from appliance.command_line.views import account_view, receipt_view
from appliance.model.account import Account, Role


@click.group(cls=Group)
def account() -> None:
    """Add, list and delete accounts, which own domains."""


@account.command()
@click.argument("email")
@click.option("--operator", is_flag=True, help="The account steers the whole appliance and has its postmaster's mail.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@click.option("--plan", metavar="NAME", help="A plan of the configuration.")
@json_option
@pass_invocation
def add(
    invocation: Invocation, email: str, operator: bool, password_stdin: bool, plan: str | None, as_json: bool
) -> None:
    """Add an account. Its address counts as verified."""
    password = _read_password() if password_stdin else None
    with invocation.accounts() as accounts:
        role = Role.OPERATOR if operator else Role.MEMBER
        added = accounts.add(email, role=role, plan=plan, password_hash=None if password is None else _hash(password))
    if as_json:
        print_json(account_view(added, invocation.configuration.plans))
    else:
        say(f"Added the {added.role.value} account {added.email} with the plan {added.plan}.")
        if password is None:
            page = f"{invocation.configuration.http.public_url.rstrip('/')}/#/forgotten-password"
            say(
                f"It has no password, so nobody can sign in to it yet. Its owner sets one at {page}, which sends a "
                "letter there with a link. (A first password can be given here, too: --password-stdin.)"
            )


@account.command("list")
@json_option
@pass_invocation
def list_accounts(invocation: Invocation, as_json: bool) -> None:
    """List all accounts, the oldest first."""
    plans = invocation.configuration.plans
    with invocation.accounts() as accounts:
        print_list(
            accounts.every(),
            as_json,
            view=lambda each: account_view(each, plans),
            columns=("EMAIL", "ROLE", "PLAN", "CAN SIGN IN", "CREATED"),
            row=_row,
            empty="There are no accounts yet. Add one with: onward account add you@example.org --operator",
        )


@account.command()
@click.argument("email")
@click.option("--drop-mail", is_flag=True, help="Erase its mail under way too, which is delivered otherwise.")
@json_option
@pass_invocation
def delete(invocation: Invocation, email: str, drop_mail: bool, as_json: bool) -> None:
    """Delete an account with everything that belongs to it: domains, aliases, destinations, log and all else."""
    from appliance.accounts.deletion import QueuedMail

    with invocation.deletion() as (deletion, accounts):
        receipt = deletion.delete(accounts.of(email), QueuedMail.DROP if drop_mail else QueuedMail.DELIVER)
    if as_json:
        print_json(receipt_view(receipt))
    else:
        counts = {each.collection: each.count for each in receipt.removed}
        say(
            f"Deleted the account with {counted(counts['domains'], 'domain')}, "
            f"{counted(counts['aliases'], 'alias', 'aliases')}, {counted(counts['destinations'], 'destination')} and "
            f"{counted(counts['events'], 'log entry', 'log entries')}."
        )
        if drop_mail:
            say(f"Of its mail under way, {counted(counts['deliveries'], 'delivery', 'deliveries')} were dropped.")


def _row(each: Account) -> tuple[str, ...]:
    can_sign_in = yes_or_no(each.password_hash is not None)
    return (each.email, each.role.value, each.plan, can_sign_in, readable(each.created_at))


def _read_password() -> str:
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError:
        raise click.UsageError("The password on standard input is not UTF-8.") from None
    if not line:
        raise click.UsageError("--password-stdin: nothing came on standard input.")
    return line.removesuffix("\n").removesuffix("\r")


def _hash(password: str) -> str:
    # Imported where it is needed: most commands hash nothing, and loading argon2 costs them a part of their start.
    from appliance.access.passwords import hash_password

    return hash_password(password)
