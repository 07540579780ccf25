"""`onward queue`: mail under way, by way of the running appliance."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from appliance.command_line.api_ids import own_id
from appliance.command_line.invocation import Group, Invocation, json_option, pass_invocation
from appliance.command_line.output import counted, print_json, print_list, print_table, readable, say
from appliance.command_line.views import delivery_view, hold_view
from appliance.model.refused import Refused
from appliance.model.time import parse_instant

_FILTERS = (
    click.option("--domain", metavar="D", help="Only mail that was written to this hosted domain."),
    click.option("--destination", metavar="D", help="Only mail that goes to this destination domain."),
    click.option("--sender", metavar="S", help="Only mail from this sender; '<>' for bounces."),
    click.option("--recipient", metavar="R", help="Only mail that was written to this address."),
    click.option("--id", metavar="ID", help="Only this delivery, or all of the message with this id."),
)

PAGE = 100
"""Deliveries that are asked for at once."""

_NOT_WAITING = "No delivery with the id {} waits in the queue: it is done, under way, or held."
_NOT_THERE = "No delivery with the id {} waits in the queue: it is done, or under way."
_NOTHING_WAITS = "No waiting delivery matches."
_NOTHING_THERE = "No waiting or held delivery matches; one that is under way cannot be called back."

_COLUMNS = ("ID", "STATE", "ATTEMPTS", "NEXT ATTEMPT", "SENDER", "RECIPIENT")


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def _all_option(words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--all", "everything", is_flag=True, help=words)


@click.group(cls=Group)
def queue() -> None:
    """Look at the mail under way and steer it. Needs a running appliance.

    What a courier is sending at this moment can't be called back.
    """


@queue.command("list")
@_filters
@click.option(
    "--state",
    type=click.Choice(["waiting", "held", "under_way"], case_sensitive=False),
    help="Only what waits for its next attempt, is held by an operator, or is being sent.",
)
@json_option
@pass_invocation
def list_deliveries(invocation: Invocation, /, as_json: bool, state: str | None, **filters: str | None) -> None:
    """List the deliveries that wait, are held or are under way, each with the reason why.

    The second line of each says where it goes, and why it is not there yet.
    """
    from appliance.command_line.control import pages

    wanted = _filter({**filters, "state": None if state is None else state.upper()})
    told = pages(invocation.configuration, "list_queue", "queue", first=PAGE, filter=wanted)
    deliveries = map(delivery_view, told)
    if as_json:
        for delivery in deliveries:
            print_json(delivery)
        return
    if listed := list(deliveries):
        print_table(_COLUMNS, [_row(delivery) for delivery in listed], [_reason(delivery) for delivery in listed])
    else:
        say("Nothing in the queue matches." if wanted else "The queue is empty.")
    _tell_of_holds(invocation)


@queue.command()
@json_option
@pass_invocation
def holds(invocation: Invocation, /, as_json: bool) -> None:
    """List the holds in force: the rules by which mail to come is held, too."""
    print_list(
        _holds(invocation),
        as_json,
        view=hold_view,
        columns=("ID", "DOMAIN", "DESTINATION", "SENDER", "SINCE"),
        row=_hold_row,
        empty="No hold is in force.",
    )


@queue.command()
@_filters
@_all_option("The whole queue, in place of a filter.")
@json_option
@pass_invocation
def retry(invocation: Invocation, /, everything: bool, as_json: bool, **filters: str | None) -> None:
    """Try deliveries again now, whatever the schedule says. What is held stays held."""
    answer = _change(invocation, "retry", filters, everything, _NOT_WAITING)
    _tell(answer, as_json, "Trying {} again now.", f"{_NOTHING_WAITS} What is held has to be released.")


@queue.command()
@_filters
@_all_option("Everything that waits now, in place of a filter. What arrives later is not held.")
@json_option
@pass_invocation
def hold(invocation: Invocation, /, everything: bool, as_json: bool, **filters: str | None) -> None:
    """Keep deliveries back until they are released.

    With --domain, --destination and --sender alone, mail that arrives later is held as well. With --recipient or --id,
    only what is there now.
    """
    rule = None
    if everything or filters["recipient"] is not None or filters["id"] is not None:
        answer = _change(invocation, "hold", filters, everything, _NOT_WAITING)
    else:
        answer = _add_hold(invocation, filters)
        rule = answer["hold"]
    shown = {**answer, "hold": None if rule is None else hold_view(rule)}
    _tell(shown, as_json, "Holding {}.", _NOTHING_WAITS)
    if rule is not None and not as_json:
        say("What arrives later is held, too, until it is released.")


@queue.command()
@_filters
@_all_option("All that is held, and every hold.")
@json_option
@pass_invocation
def release(invocation: Invocation, /, everything: bool, as_json: bool, **filters: str | None) -> None:
    """Try held deliveries now, and lift the holds that are about nothing else."""
    answer = _change(invocation, "release", filters, everything, "No delivery with the id {} is held.")
    if as_json:
        print_json(answer)
        return
    if answer["affected"] or answer["lifted"]:
        say(f"Released {_deliveries(answer['affected'])} and lifted {counted(answer['lifted'], 'hold')}.")
    else:
        say("No held delivery and no hold matches.")
    _tell_of_holds(invocation)


@queue.command()
@_filters
@_all_option("The whole queue, in place of a filter.")
@json_option
@pass_invocation
def fail(invocation: Invocation, /, everything: bool, as_json: bool, **filters: str | None) -> None:
    """Give deliveries up now. The senders get a bounce."""
    answer = _change(invocation, "fail", filters, everything, _NOT_THERE)
    _tell(answer, as_json, "Gave up {}; the senders are told.", _NOTHING_THERE)


@queue.command()
@_filters
@_all_option("The whole queue, in place of a filter.")
@json_option
@pass_invocation
def drop(invocation: Invocation, /, everything: bool, as_json: bool, **filters: str | None) -> None:
    """Erase deliveries. The senders are not told."""
    answer = _change(invocation, "drop", filters, everything, _NOT_THERE)
    _tell(answer, as_json, "Dropped {}; the senders are not told.", _NOTHING_THERE)


def _change(
    invocation: Invocation, verb: str, filters: Mapping[str, str | None], everything: bool, id_not_found: str
) -> dict[str, Any]:
    """What the appliance has answered. Raises Refused where an id was given, and nothing could be done with it."""
    given = _filter(filters)
    if everything and given:
        raise click.UsageError("--all and a filter contradict each other: give one of them.")
    if not everything and not given:
        raise click.UsageError("Which deliveries? Give at least one filter, or --all.")
    answer = _ask(invocation, f"{verb}_deliveries", filter={"all": True} if everything else given)
    if answer["affected"] == 0 and filters["id"] is not None:
        raise Refused(id_not_found.format(filters["id"]), "id")
    return answer


def _add_hold(invocation: Invocation, filters: Mapping[str, str | None]) -> dict[str, Any]:
    given = _filter(filters)
    if not given:
        raise click.UsageError("Which deliveries? Give at least one filter, or --all.")
    return _ask(invocation, "add_hold", **given)


def _tell(answer: Mapping[str, Any], as_json: bool, done: str, nothing_done: str) -> None:
    affected = answer["affected"]
    if as_json:
        print_json(answer)
    else:
        say(done.format(_deliveries(affected)) if affected else nothing_done)


def _tell_of_holds(invocation: Invocation) -> None:
    if standing := _holds(invocation):
        say(f"{counted(len(standing), 'hold')} in force: 'onward queue holds' shows what for.")


def _holds(invocation: Invocation) -> list[dict[str, Any]]:
    from appliance.command_line.control import ask

    return list(ask(invocation.configuration, "list_holds")["holds"])


def _ask(invocation: Invocation, name: str, **variables: object) -> dict[str, Any]:
    """What the mutation of this name answers, without its errors, of which there are none."""
    from appliance.command_line.control import ask

    (payload,) = ask(invocation.configuration, name, **variables).values()
    return {field: value for field, value in payload.items() if field != "errors"}


def _filter(filters: Mapping[str, str | None]) -> dict[str, str]:
    """Options as the API's filter has them."""
    names = {"destination": "destinationDomain"}
    given = {names.get(name, name): value for name, value in filters.items() if value is not None}
    if given.get("sender") == "<>":
        # RFC 5321 §4.5.5: the null reverse-path, which is empty where it is kept.
        given["sender"] = ""
    return given


def _deliveries(count: int) -> str:
    return counted(count, "delivery", "deliveries")


def _row(delivery: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        delivery["id"],
        delivery["state"].lower().replace("_", " "),
        str(delivery["attempts"]),
        _readable(delivery["nextAttemptAt"]),
        delivery["sender"] or "<>",
        delivery["recipient"],
    )


def _reason(delivery: Mapping[str, Any]) -> str:
    why = delivery.get("why")
    return f"    to {delivery['destinationDomain']}" + (f": {why}" if why else "")


def _readable(instant: str | None) -> str:
    """An instant of the API for people."""
    return readable(None if instant is None else parse_instant(instant))


def _hold_row(rule: Mapping[str, Any]) -> tuple[str, ...]:
    sender = rule["sender"]
    return (
        own_id(rule["id"]),
        rule["domain"] or "",
        rule["destinationDomain"] or "",
        "<>" if sender == "" else sender or "",
        _readable(rule["createdAt"]),
    )
