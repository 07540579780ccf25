"""What does not keep the appliance from starting, and is worth a line in its log all the same."""

import ipaddress

from appliance.configuration import FROM_SYSTEMD, Configuration
from appliance.configuration.unbuilt import without_effect
from appliance.network import why_not_a_source
from appliance.run.certificates import verifying

COURIERS = 400
"""Connections to destinations that are open at once, at most."""

IN_TRANSIT = 1200
"""Connections to next hops of mail in transit, those included that are being ended."""

OTHER_FILES = 100
"""Stores, listeners, name servers, followers of the log, and some to spare."""


def doubts(config: Configuration, descriptors: int) -> list[str]:
    """A line for each doubt about this configuration, in a process that can open so many files."""
    lines = [f"{'.'.join(key)} has no effect: {what} is not built yet" for key, what in without_effect(config)]
    if "." not in config.hostname and _is_for_others(config):
        lines.append(
            f"the hostname {config.hostname} has no domain, and many servers refuse such a greeting; set hostname"
        )
    for source in config.delivery.source_addresses:
        if unfit := why_not_a_source(source):
            lines.append(f"nothing can be sent from {source} (delivery.source_addresses) as it is: {unfit}")
    context, why = verifying()
    if context is None:
        lines.append(f"{why}; until then mail whose sender requires TLS comes back")
    needed = config.smtp.max_connections + COURIERS + IN_TRANSIT + OTHER_FILES
    if descriptors < needed:
        lines.append(
            f"only {descriptors} files can be open, and smtp.max_connections = {config.smtp.max_connections} "
            f"may need {needed}; raise the hard limit (ulimit -Hn, or LimitNOFILE=), or lower max_connections"
        )
    return lines


def _is_for_others(config: Configuration) -> bool:
    """Whether mail can come from another machine, as far as can be seen from here."""
    return any(
        where == FROM_SYSTEMD or not ipaddress.ip_address(where.host).is_loopback for where in config.smtp.listen
    )
