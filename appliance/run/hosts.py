"""What the configuration says about finding the hosts of a destination: the same for delivery and for explaining it."""

from appliance.configuration import Configuration, IpVersion
from appliance.delivery.hosts import HostSettings


def host_settings(config: Configuration) -> HostSettings:
    """The settings for `find_addresses`."""
    return HostSettings(
        hostname=config.hostname,
        ipv4=config.delivery.ip is not IpVersion.SIX,
        ipv6=config.delivery.ip is not IpVersion.FOUR,
        loopback_destinations=config.delivery.loopback_destinations,
    )
