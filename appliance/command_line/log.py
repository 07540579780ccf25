"""`onward log`: the delivery events, as far as each domain's log level lets them be remembered."""

from collections import deque
from collections.abc import Iterator
from functools import partial

import click

from appliance.command_line.invocation import Command, Invocation, json_option, pass_invocation
from appliance.command_line.output import NOTHING, plain, print_json, readable, say
from appliance.command_line.views import event_view
from appliance.command_line.when import When
from appliance.configuration import Configuration
from appliance.model.event import DeliveryEvent, EventType
from appliance.storage.records import RecordStore
from appliance.wire import NotRunning, WireError, call

PAGE = 1000
"""Events that are read at once, so that a long log is never in memory whole."""

CATCH_UP_S = 2.0
"""How long the engine may take to bring into the log what has just happened: mostly a few milliseconds."""

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
    if follow:
        from appliance.command_line import following

        wanted = {"domain": domain, "recipient": recipient}
        following.follow(invocation.configuration, wanted, since, partial(_print, as_json=as_json), say)
        return
    _catch_up(invocation.configuration)
    is_empty = True
    with invocation.records() as records:
        for event in _stored(records, domain_id, recipient, since):
            _print(event, as_json)
            is_empty = False
    if is_empty and not as_json:
        say("The log has no such events." if domain or recipient or since else "The log is empty.")


def _catch_up(configuration: Configuration) -> None:
    """Wait until the log has all that has happened by now. Where the appliance is stopped, it has what it has."""
    try:
        deque(call(configuration.engine_socket, "log.catchUp", limit_s=CATCH_UP_S), maxlen=0)
    except (NotRunning, WireError):
        pass


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
