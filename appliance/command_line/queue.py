"""`onward queue`: mail under way, by way of the running appliance."""

from collections.abc import Callable
from typing import Any

import click

from appliance.accounts.refused import Refused
from appliance.command_line.invocation import Group, Invocation, json_option, pass_invocation
from appliance.command_line.output import counted, print_json, print_list, readable, say
from appliance.command_line.views import delivery_view

_FILTERS = (
    click.option("--domain", metavar="D", help="Only mail that was written to this hosted domain."),
    click.option("--destination", metavar="D", help="Only mail that goes to this destination domain."),
    click.option("--sender", metavar="S", help="Only mail from this sender; '<>' for bounces."),
    click.option("--recipient", metavar="R", help="Only mail that was written to this address."),
    click.option("--id", metavar="ID", help="Only this delivery, or all of the message with this id."),
)

_NOTHING_DONE = "No waiting delivery matches; one that is under way cannot be called back."


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


_all_option = click.option("--all", "everything", is_flag=True, help="The whole queue, in place of a filter.")


@click.group(cls=Group)
def queue() -> None:
    """Look at the mail under way, try it again now, or drop it. Needs a running appliance."""


@queue.command("list")
@_filters
@json_option
@pass_invocation
def list_deliveries(invocation: Invocation, /, as_json: bool, **filters: str | None) -> None:
    """List the deliveries that wait or are under way."""
    print_list(
        _ask(invocation, "queue.list", filters),
        as_json,
        view=delivery_view,
        columns=("ID", "STATE", "SENDER", "RECIPIENT", "TO", "ATTEMPTS", "NEXT ATTEMPT", "LAST RESPONSE"),
        row=_row,
        empty="Nothing in the queue matches." if any(filters.values()) else "The queue is empty.",
    )


@queue.command()
@_filters
@_all_option
@json_option
@pass_invocation
def retry(invocation: Invocation, /, everything: bool, as_json: bool, **filters: str | None) -> None:
    """Try deliveries again now, whatever the schedule says."""
    _change(invocation, "queue.retry", filters, everything, as_json, "Trying {} again now.")


@queue.command()
@_filters
@_all_option
@json_option
@pass_invocation
def drop(invocation: Invocation, /, everything: bool, as_json: bool, **filters: str | None) -> None:
    """Erase deliveries. The sender is not told."""
    _change(invocation, "queue.drop", filters, everything, as_json, "Dropped {}; the senders are not told.")


def _change(
    invocation: Invocation,
    verb: str,
    filters: dict[str, str | None],
    everything: bool,
    as_json: bool,
    done: str,
) -> None:
    given = any(value is not None for value in filters.values())
    if everything and given:
        raise click.UsageError("--all and a filter contradict each other: give one of them.")
    if not everything and not given:
        raise click.UsageError("Which deliveries? Give at least one filter, or --all.")
    affected = sum(answer["affected"] for answer in _ask(invocation, verb, {**filters, "all": everything or None}))
    if affected == 0 and filters["id"] is not None:
        raise Refused(f"No delivery with the id {filters['id']} waits in the queue: it is done, or under way.", "id")
    if as_json:
        print_json({"affected": affected})
    else:
        say(done.format(counted(affected, "delivery", "deliveries")) if affected else _NOTHING_DONE)


def _ask(invocation: Invocation, verb: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    from appliance.wire import call

    if arguments["sender"] == "<>":
        # RFC 5321 §4.5.5: the null reverse-path, which is empty where it is kept.
        arguments = {**arguments, "sender": ""}
    given = {name: value for name, value in arguments.items() if value is not None}
    return list(call(invocation.socket, verb, **given))


def _row(delivery: dict[str, Any]) -> tuple[str, ...]:
    return (
        delivery["id"],
        delivery["state"].lower().replace("_", " "),
        delivery["sender"] or "<>",
        delivery["recipient"],
        delivery.get("target") or delivery["destinationDomain"],
        str(delivery["attempts"]),
        readable(delivery.get("nextAttemptAt")),
        delivery.get("lastResponse") or "",
    )
