"""What a caller may see of domains and aliases: their own; operators see all. What may not be seen is not there."""

from typing import Any

from appliance.accounts.destinations import Agreed, agreed
from appliance.model.domain import Alias, Domain
from control_api.callers import Caller
from control_api.context import Info
from control_api.errors import not_found
from control_api.ids import stored_id


def may_see(caller: Caller, domain: Domain) -> bool:
    """Whether a domain is the caller's, or the caller's to look after."""
    return caller.is_operator or (caller.account is not None and caller.account.id == domain.account_id)


def the_domain(info: Info, id: str) -> Domain:
    """The domain with this global id. Raises NOT_FOUND where the caller has none such."""
    domain = info.context.rooms.domains.with_id(stored_id(id, "Domain"))
    if domain is None or not may_see(info.context.caller, domain):
        raise not_found("domain")
    return domain


def the_alias(info: Info, id: str) -> tuple[Alias, Domain]:
    """The alias with this global id, and its domain. Raises NOT_FOUND where the caller has none such."""
    found = info.context.rooms.aliases.with_id(stored_id(id, "Alias"))
    if found is None or not may_see(info.context.caller, found[1]):
        raise not_found("alias")
    return found


def standing_of(info: Info, account_id: str) -> Agreed:
    """Where an account may forward to; read once for each operation, and anew after a change."""
    memory: dict[object, Any] = info.context.memory
    key = (agreed, account_id)
    if key not in memory:
        memory[key] = agreed(info.context.rooms.records, account_id)
    standing = memory[key]
    assert isinstance(standing, Agreed)
    return standing


def forget_standing(info: Info, account_id: str) -> None:
    """Something has changed where this account may forward to."""
    info.context.memory.pop((agreed, account_id), None)
