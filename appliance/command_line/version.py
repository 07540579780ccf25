"""`onward version`."""

import click

from appliance.command_line.invocation import Command, Invocation, json_option, pass_invocation
from appliance.command_line.output import print_json
from appliance.version import commit
from appliance.version import version as version_number


@click.command(cls=Command)
@json_option
@pass_invocation
def version(invocation: Invocation, as_json: bool) -> None:
    """Print the version, the commit it was built from, and the digest of the privacy policy."""
    number, origin, digest = version_number(), commit(), _policy_digest(invocation)
    if as_json:
        print_json({"version": number, "commit": origin, "policyDigest": digest})
    else:
        click.echo(f"onward {number} ({origin or 'commit unknown'})")
        click.echo(f"policy {digest or 'unknown: the configuration has a fault, which onward check tells'}")


def _policy_digest(invocation: Invocation) -> str | None:
    """The digest; None where the configuration can't be read: which version this is can be said all the same."""
    from appliance.configuration import ConfigurationError, retention_ms
    from appliance.privacy.policy import policy

    try:
        configuration = invocation.configuration
    except ConfigurationError:
        return None
    return policy(lambda setting: retention_ms(configuration, setting)).digest
