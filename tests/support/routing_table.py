"""A routing table in a few words, and what it answers."""

from appliance.model.account import Account, Role
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.routing.route import Route, route
from appliance.routing.snapshot import Settings, Snapshot
from smtp.address import Address

NOW = 1_800_000_000_000
SETTINGS = Settings("mx.example.net", "srs.mx.example.net")
OWNER = Account("a1", "owner@home.test", True, Role.MEMBER, "free", NOW)
OPERATOR = Account("a2", "boss@home.test", True, Role.OPERATOR, "free", NOW)


def domain(name: str, *, verified: bool = True) -> Domain:
    """A domain of OWNER, whose id is its name."""
    return Domain(name, OWNER.id, name, verified, DeliveryMode.SPOOL, LogLevel.EVENTS, NOW)


def alias(address: str, *targets: str, action: AliasAction = AliasAction.FORWARD) -> Alias:
    """An alias whose id and reference are its address."""
    pattern, _, domain_name = address.rpartition("@")
    return Alias(address, domain_name, pattern, action, targets, address, NOW)


def snapshot(*aliases: Alias, confirmed: tuple[str, ...] = (), operator: bool = True) -> Snapshot:
    """These aliases, with all that they lead to confirmed."""
    targets = {target for each in aliases for target in each.targets} | set(confirmed)
    return Snapshot(
        SETTINGS,
        1,
        accounts=[OWNER, OPERATOR] if operator else [OWNER],
        domains=[
            domain("example.org"),
            domain("other.test"),
            domain("xn--bcher-kva.example"),
            domain("unproven.test", verified=False),
        ],
        aliases=aliases,
        destinations=[Destination(target, OWNER.id, target, NOW, NOW) for target in targets],
    )


def ask(table: Snapshot, recipient: str, now: int = NOW) -> Route:
    """What RCPT would get."""
    address = Address(recipient, "") if "@" not in recipient else Address.parse(recipient)
    return route(table, address, now)


def targets(found: Route) -> list[str]:
    """Where it leads, as text."""
    return [str(target) for target in found.targets]
