"""`onward version`."""

import click

from appliance.command_line.invocation import Command, json_option
from appliance.command_line.output import print_json


@click.command(cls=Command)
@json_option
def version(as_json: bool) -> None:
    """Print the version, and the commit it was built from."""
    from appliance import version as this

    if as_json:
        print_json({"version": this.version(), "commit": this.commit()})
    else:
        click.echo(f"onward {this.version()} ({this.commit() or 'commit unknown'})")
