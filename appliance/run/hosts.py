"""What the configuration says about the way out: the same for delivery, for explaining it and for checking it."""

from appliance.configuration import Configuration, IpVersion, ListenAddress
from appliance.delivery.connecting import ConnectionSettings
from appliance.delivery.hosts import HostSettings
from appliance.delivery.smarthost import PASSWORD, Smarthost
from appliance.network import is_of_this_machine, is_public
from appliance.run import CannotStart
from appliance.run.certificates import verifying
from appliance.run.lost_keys import how_to_hand_over
from appliance.run.stores import secrets
from smtp.client.authentication import Login
from smtp.tls import opportunistic_context


class PasswordMissing(CannotStart):
    """The smarthost wants a password, and there is none."""


def host_settings(config: Configuration) -> HostSettings:
    """The settings for `find_addresses`."""
    # Where addresses to send from are written, a version of IP that has none is not used.
    sources = {IpVersion.SIX if ":" in source else IpVersion.FOUR for source in config.delivery.source_addresses}
    used = sources or {IpVersion.FOUR, IpVersion.SIX}

    def is_ours(address: str) -> bool:
        return _is_ours(config, address)

    return HostSettings(
        hostname=config.hostname,
        ipv4=config.delivery.ip is not IpVersion.SIX and IpVersion.FOUR in used,
        ipv6=config.delivery.ip is not IpVersion.FOUR and IpVersion.SIX in used,
        loopback_destinations=config.delivery.loopback_destinations,
        is_ours=is_ours,
    )


def connection_settings(config: Configuration) -> ConnectionSettings:
    """The settings for connections. Raises PasswordMissing, SecretRefused or OSError."""
    verifying_tls, _ = verifying()
    return ConnectionSettings(
        config.delivery.port,
        host_settings(config),
        opportunistic=opportunistic_context(),
        # Where there is none, `doubts` has said so.
        verifying=verifying_tls,
        smarthost=smarthost(config),
        source_addresses=config.delivery.source_addresses,
    )


def smarthost(config: Configuration) -> Smarthost | None:
    """The smarthost with its password, where one is configured. Raises PasswordMissing, SecretRefused or OSError."""
    relay = config.delivery.smarthost
    if relay is None:
        return None
    return Smarthost(relay.host, relay.port, _login(config, relay.user) if relay.user else None, relay.implicit_tls)


def _login(config: Configuration, user: str) -> Login:
    path = config.data_dir / "secrets" / PASSWORD
    password = secrets(config).load(PASSWORD)
    if not password:
        raise PasswordMissing(f"delivery.smarthost names a user, and there is no password: {how_to_hand_over(path)}")
    try:
        return Login(user, password)
    except ValueError:
        raise PasswordMissing(
            f"what stands in the secret {PASSWORD} can't be a password: write it into {path} as one line"
        ) from None


def _is_ours(config: Configuration, address: str) -> bool:
    if not (config.delivery.loopback_destinations or is_public(address)):
        # What a resolver says that blocks names: no reason to believe that it is us.
        return False
    for listening in config.smtp.listen:
        # Of sockets that systemd hands over nothing is known here; then our greeting tells.
        if isinstance(listening, ListenAddress) and listening.port == config.delivery.port:
            if listening.host == address:
                return True
            if listening.host in ("0.0.0.0", "::") and is_of_this_machine(address):
                return True
    return False
