"""`onward log`: the delivery events, as far as each domain's log level lets them be remembered."""

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
    with invocation.records() as records:
        domain_id = None if domain is None else _domain_id(invocation, domain)
        if not follow or since is not None:
            count = 0
            for event in _stored(records, domain_id, recipient, since):
                _print(event, as_json)
                count += 1
            if not count and not follow and not as_json:
                say("The log has no such events." if domain or recipient or since else "The log is empty.")
    if follow:
        for event in _live(invocation, domain_id, recipient):
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


def _live(invocation: Invocation, domain_id: str | None, recipient: str | None) -> Iterator[DeliveryEvent]:
    for told in call(invocation.socket, "events", follow=True):
        event = _event(told)
        if domain_id in (None, event.domain_id) and (recipient is None or recipient.lower() == event.recipient.lower()):
            yield event


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
