"""`onward log`: the delivery events, as far as each domain's log level lets them be remembered."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import click

from appliance.command_line.invocation import Command, Invocation, json_option, pass_invocation
from appliance.command_line.output import NOTHING, plain, print_json, readable, say
from appliance.command_line.views import event_view
from appliance.command_line.when import When
from appliance.model.event import DeliveryEvent, EventType
from appliance.storage.records import RecordStore
from appliance.wire import NotRunning, call

PAGE = 1000
"""Events that are read at once, so that a long log is never in memory whole."""

REMEMBERED = 20_000
"""Events that were printed last, by which those are known that the appliance tells once more. Twice as many as it keeps
for somebody who reads too slowly; beyond that it lets go."""

_TYPE_WIDTH = max(len(type.value) for type in EventType)


@click.command(cls=Command)
@click.option("--follow", is_flag=True, help="Go on with events as they happen. Needs a running appliance.")
@click.option("--domain", metavar="D", help="Only mail that was written to this hosted domain.")
@click.option("--recipient", metavar="R", help="Only mail that was written to this address.")
@click.option("--since", metavar="WHEN", type=When(past=True), help="Only from this time on, or so long ago: 1h, 7d.")
@json_option
@pass_invocation
def log(
    invocation: Invocation, follow: bool, domain: str | None, recipient: str | None, since: int | None, as_json: bool
) -> None:
    """Print the delivery events, the oldest first."""
    domain_id = None if domain is None else _domain_id(invocation, domain)
    printed: deque[str] = deque(maxlen=REMEMBERED)
    # First the stream, then the store: what happens in between is in one of them, and maybe in both.
    live = _live(invocation, domain_id, recipient, caught_up=since is not None) if follow else iter(())
    if not follow or since is not None:
        with invocation.records() as records:
            for event in _stored(records, domain_id, recipient, since):
                _print(event, as_json)
                printed.append(event.id)
        if not printed and not follow and not as_json:
            say("The log has no such events." if domain or recipient or since else "The log is empty.")
    if follow:
        twice = set(printed)
        for event in live:
            if event.id not in twice:
                _print(event, as_json)
        raise NotRunning("the appliance has stopped")


def _domain_id(invocation: Invocation, name: str) -> str:
    with invocation.domains() as (domains, _):
        return domains.named(name).id


def _stored(
    records: RecordStore, domain_id: str | None, recipient: str | None, since: int | None
) -> Iterator[DeliveryEvent]:
    from appliance.logbook.reading import read

    after: str | None = None
    domain_ids = None if domain_id is None else (domain_id,)
    while events := read(records, domain_ids=domain_ids, recipient=recipient, since=since, after=after, limit=PAGE):
        yield from events
        after = events[-1].id


def _live(
    invocation: Invocation, domain_id: str | None, recipient: str | None, *, caught_up: bool
) -> Iterator[DeliveryEvent]:
    """Events as they happen. With `caught_up` it returns once they are followed and the log has all from before."""
    told = call(invocation.socket, "events", follow=True, caughtUp=caught_up)
    if caught_up:
        next(told, None)
    return (
        event
        for event in map(_event, told)
        if domain_id in (None, event.domain_id) and (recipient is None or recipient.lower() == event.recipient.lower())
    )


def _event(told: Mapping[str, Any]) -> DeliveryEvent:
    """An event as the engine tells it: by the names of the model."""
    return DeliveryEvent(**{**told, "type": EventType(told["type"])})


def _print(event: DeliveryEvent, as_json: bool) -> None:
    if as_json:
        print_json(event_view(event))
    else:
        click.echo(_line(event))


def _line(event: DeliveryEvent) -> str:
    """One event on one line: when, what, from whom to whom, and which answer."""
    answer = " ".join(part for part in (str(event.code or NOTHING), event.enhanced_code, event.response) if part)
    return plain(
        f"{readable(event.at)}  {event.type.value:{_TYPE_WIDTH}}  {event.sender or '<>'} → {event.recipient}  "
        f"[{event.reason}] {answer}"
    )
