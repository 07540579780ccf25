"""`onward run` and `onward demo`."""

import sys

import click

from appliance.command_line.invocation import Command, Invocation, pass_invocation


@click.command(cls=Command)
@pass_invocation
def run(invocation: Invocation) -> None:
    """Run the appliance in the foreground.

    Prints `ready` on standard error once every listener is open. SIGTERM finishes what is under way and stops.
    """
    from appliance.run.supervisor import main

    sys.exit(main(invocation.configuration, invocation.path))


@click.command(cls=Command)
def demo() -> None:
    """Send sample messages through a whole appliance on loopback, and show each step.

    Stays up until Ctrl-C. Needs no configuration, and leaves nothing behind.
    """
    from appliance.demo import main

    sys.exit(main())
