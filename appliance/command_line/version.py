"""`onward version`."""

import click

from appliance.command_line.invocation import Command, json_option
from appliance.command_line.output import print_json
from appliance.version import commit
from appliance.version import version as version_number


@click.command(cls=Command)
@json_option
def version(as_json: bool) -> None:
    """Print the version, and the commit it was built from."""
    number, origin = version_number(), commit()
    if as_json:
        print_json({"version": number, "commit": origin})
    else:
        click.echo(f"onward {number} ({origin or 'commit unknown'})")
