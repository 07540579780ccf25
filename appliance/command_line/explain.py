"""`onward explain`: where a message would go, and why."""

import ipaddress

import click

from appliance.command_line.invocation import Command, Invocation, json_option, pass_invocation
from appliance.command_line.output import plain, print_json
from appliance.command_line.views import explanation_view
from appliance.model.refused import Refused
from appliance.routing.explained import Explanation
from appliance.run.explanation import Explainer
from smtp.address import Address, AddressError


@click.command(cls=Command)
@click.argument("address")
@click.option("--from", "sender", metavar="SENDER", default="", help="Who writes; by default <>, as a bounce does.")
@click.option("--client", metavar="IP", default="", help="From where.")
@json_option
@pass_invocation
def explain(invocation: Invocation, address: str, sender: str, client: str, as_json: bool) -> None:
    """Explain where a message for ADDRESS would go. Sends nothing."""
    if client:
        _require_ip(client)
    # RFC 5321 §4.5.1: postmaster needs no domain, and the null reverse-path is nobody.
    recipient = Address(address, "") if address.lower() == "postmaster" else _parsed(address)
    writer = None if sender in ("", "<>") else _parsed(sender)
    with invocation.records() as records:
        explanation = Explainer(invocation.configuration, records)(recipient, writer, client=client)
    if as_json:
        print_json(explanation_view(explanation))
    else:
        _print(explanation)


def _parsed(text: str) -> Address:
    try:
        return Address.parse(text)
    except AddressError as error:
        raise Refused(f"{text!r} is not an email address: {error}.") from None


def _require_ip(client: str) -> None:
    try:
        ipaddress.ip_address(client)
    except ValueError:
        raise click.BadParameter(f"{client!r} is not an IP address", param_hint="--client") from None


def _print(explanation: Explanation) -> None:
    reply = explanation.reply
    verdict = "accepted" if explanation.accepted else "refused"
    click.echo(plain(f"{verdict}: {reply.code} {reply.enhanced} {reply.text} ({explanation.reason})"))
    width = max((len(step.check) for step in explanation.steps), default=0)
    for step in explanation.steps:
        click.echo(plain(f"  {step.check:{width}}  {step.outcome}: {step.detail}"))
    for delivery in explanation.deliveries:
        via = f" by {', '.join(delivery.hosts)}" if delivery.hosts else ""
        sender = delivery.envelope_sender or "<>"
        click.echo(plain(f"→ {delivery.target}{via}, from {sender}, mode {delivery.mode.value}"))
