"""`onward policy`: what this appliance stores, why and for how long, as its configuration has it."""

import click

from appliance.command_line.invocation import Command, Invocation, json_option, pass_invocation
from appliance.command_line.output import print_json
from appliance.configuration import retention_ms
from appliance.model.time import SECOND_MS
from appliance.privacy.policy import policy as policy_of


@click.command(cls=Command)
@json_option
@pass_invocation
def policy(invocation: Invocation, as_json: bool) -> None:
    """Print the privacy policy as the configuration makes it."""
    configuration = invocation.configuration
    made = policy_of(lambda setting: retention_ms(configuration, setting))
    if not as_json:
        click.echo(made.text, nl=False)
        return
    print_json(
        {
            "text": made.text,
            "digest": made.digest,
            "collections": [
                {
                    "name": each.collection.name,
                    "store": each.collection.store.value,
                    "purpose": each.collection.purpose,
                    "fields": [field.name for field in each.collection.fields],
                    "retentionSeconds": None if each.retention_ms is None else each.retention_ms // SECOND_MS,
                }
                for each in made.stored
            ],
        }
    )
