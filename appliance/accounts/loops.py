"""Aliases that lead to aliases: no circle, and no chain that never ends.

An alias may lead to another address that is hosted here, of the same account or of another; reception expands it
inside, at most `MAX_DEPTH` deep. A new alias that closes a circle or makes a longer chain is refused when it is made,
while there is somebody to tell. That is a courtesy, not the guard: chains that lead *to* the new alias are not looked
for, and two aliases made at the same instant do not see each other, so routing counts again for every recipient.
"""

from appliance.accounts.refused import Refused
from appliance.accounts.rows import every, get
from appliance.model.domain import Alias, AliasAction, Domain
from appliance.storage.records import AnyOf, RecordStore
from smtp.address import Address

MAX_DEPTH = 10
"""How many aliases a message may pass, one behind the other. People need two or three."""


def candidates(local_part: str) -> tuple[str, ...]:
    """Every pattern that would take this local part (lower case), in the order of precedence.

    It is the order of `appliance.routing`, put as a question to the store: the full name, the name before a plus sign,
    prefixes from the longest to the shortest, the catch-all.
    """
    plain = local_part.split("+", 1)[0]
    return (local_part, plain, *(f"{local_part[:length]}*" for length in range(len(local_part), -1, -1)))


def refuse_endless(records: RecordStore, new: Alias, domain: Domain) -> None:
    """Raise Refused where the new alias of this domain would lead back to itself, or too far."""
    _Walk(records, new, domain).height(new, f"{new.pattern}@{domain.name}", 1)


class _Walk:
    """One walk along everything that a new alias leads to. Each alias is looked into once."""

    def __init__(self, records: RecordStore, new: Alias, domain: Domain) -> None:
        self._records = records
        self._new = new
        self._new_domain = domain
        self._heights: dict[str, int] = {}
        self._open: list[tuple[str, str]] = []

    def height(self, alias: Alias, name: str, depth: int) -> int:
        """How many aliases stand one behind the other from this one on, itself counted."""
        if any(alias.id == passed for passed, _ in self._open):
            path = " → ".join([*(passed_name for _, passed_name in self._open), name])
            raise Refused(f"This alias would lead in a circle: {path}. Choose another destination.", "destinations")
        known = self._heights.get(alias.id)
        if depth + (known or 1) - 1 > MAX_DEPTH:
            raise Refused(
                f"This alias would lead through more than {MAX_DEPTH} others. Let it lead to the mailbox itself.",
                "destinations",
            )
        if known is not None:
            return known
        self._open.append((alias.id, name))
        highest = 0
        for target in alias.targets if alias.action is AliasAction.FORWARD else ():
            following = self._taker(target)
            if following is not None:
                highest = max(highest, self.height(following, target, depth + 1))
        self._open.pop()
        self._heights[alias.id] = highest + 1
        return highest + 1

    def _taker(self, target: str) -> Alias | None:
        """The hosted alias that takes mail for this address; None where it is somebody else's."""
        local_part, domain_name = Address.parse(target).key
        domain = get(self._records, Domain, {"name": domain_name})
        if domain is None:
            return None
        order = candidates(local_part)
        found = {
            alias.pattern: alias
            for alias in every(self._records, Alias, {"domain_id": domain.id, "pattern": AnyOf(order)})
        }
        if domain.id == self._new_domain.id:
            found.setdefault(self._new.pattern, self._new)
        return next((found[pattern] for pattern in order if pattern in found), None)
