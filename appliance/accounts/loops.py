"""A new alias is tried before it is stored: no circle, no endless chain, no crowd of mailboxes behind it.

An alias may lead to another address that is hosted here, of the same account or of another; routing expands it inside.
What routing would refuse for good is refused here while there is somebody to tell, and by routing itself: the question
is put to a snapshot that has the new alias in it, so that there is one precedence and one set of limits.

That is a courtesy, not the guard: two aliases made at the same instant do not see each other, and a chain of somebody
else's that leads *to* the new alias may become too long by it. (To refuse the new one for that would let a stranger
forbid it.) Routing finds these for every recipient anew.
"""

import itertools
import string
from collections.abc import Iterator
from dataclasses import replace

from appliance.accounts.rows import every
from appliance.model.domain import Alias, AliasAction, AliasKind, Domain
from appliance.model.refused import Refused
from appliance.privacy.declarations import DOMAINS
from appliance.routing.hosted import HostedDomain
from appliance.routing.patterns import begins_with
from appliance.routing.route import route
from appliance.routing.snapshot import AskedSnapshot, Owner, Portion, Settings, standing
from appliance.storage.records import AnyOf, RecordStore
from smtp.address import Address

_LETTERS = string.ascii_lowercase + string.digits

_OF_NO_USE = frozenset({"alias-loop", "too-many-copies"})
"""The reasons of routing that no confirmation and no waiting will mend."""


def refuse_endless(records: RecordStore, new: Alias, domain: Domain) -> None:
    """Raise Refused where the new alias of this domain would lead in a circle, too far, or to too many mailboxes.

    A circle that goes through the new alias is found wherever it begins: whoever leads to the alias is part of it.
    """
    names = tuple({Address.parse(target).key[1] for target in new.targets})
    if not names or not records.count(DOMAINS, {"name": AnyOf(names)}):
        return  # Nearly every alias: to mailboxes elsewhere, and what is not hosted leads nowhere in here.
    table = AskedSnapshot(Settings("", ""), 0, lambda name: _shape_of(records, name, new, domain))
    hosted = table.hosted(domain.name)
    local_part = None if hosted is None else _local_part_for(new, hosted)
    if local_part is None:
        return
    found = route(table, Address(local_part, domain.name), new.created_at, explained=True)
    if found.reason in _OF_NO_USE:
        why = found.steps[-1].detail
        raise Refused(f"Mail for this alias would never arrive: {why}. Choose another destination.", "destinations")


class _Everybody:
    """Whoever is asked has agreed."""

    def __contains__(self, mailbox: object) -> bool:
        return True


def _shape_of(records: RecordStore, name: str, new: Alias, domain: Domain) -> Portion:
    """A domain as it will be when everything is switched on and confirmed: only who leads where decides.

    Domains that are not verified stay foreign, as they are for routing: nobody closes the way to a domain by claiming
    it. The new alias's own is the exception, since its owner is here and wants to know.
    """
    if name == domain.name:
        hosted = replace(domain, verified=True)
    else:
        claimed = standing(every(records, Domain, {"name": name})).get(name)
        if claimed is None:
            return Portion({name: None}, {})
        hosted = claimed
    aliases = [alias for alias in every(records, Alias, {"domain_id": hosted.id}) if alias.id != new.id]
    if hosted.id == domain.id:
        aliases.append(new)
    shapes = [
        # What is not there counts neither days nor messages.
        replace(alias, enabled=True, expires_at=None, max_uses=None, action=AliasAction.FORWARD)
        for alias in aliases
    ]
    owner = Owner(plan=None, operator=None, agreed=_Everybody())
    return Portion({name: HostedDomain(hosted, shapes)}, {hosted.account_id: owner})


def _local_part_for(new: Alias, hosted: HostedDomain) -> str | None:
    """A local part that the new alias takes; None where others take all that were thought of.

    Not postmaster: its mail goes to the operator where the alias leads nowhere, and nothing would be found.
    """
    for name in _candidates(new):
        taker = hosted.match(name)
        if name != "postmaster" and taker is not None and taker.id == new.id:
            return name
    return None


def _candidates(new: Alias) -> Iterator[str]:
    """The name itself, then with a detail behind it; a prefix, then with up to two letters behind it.

    For an expression first what it leads to, since most circles are made of what leads to itself.
    """
    if new.kind is AliasKind.REGEX:
        yield from (Address.parse(target).key[0] for target in new.targets)
        stem = begins_with(new.pattern)
    elif new.kind is AliasKind.EXACT:
        yield new.pattern
        stem = f"{new.pattern}+"
    else:
        stem = new.pattern[:-1]
    for length in range(3):
        for letters in itertools.product(_LETTERS, repeat=length):
            yield stem + "".join(letters)
