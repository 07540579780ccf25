"""The rules in force by which an operator keeps mail back: in memory, beside their rows on the disk.

The scheduler asks for each delivery before a courier gets it; the operator changes them (`operator.py`), with the rows
first. `rule_for` and what follows from it belong into one turn of the task, without a checkpoint between: then a hold
that is lifted finds what it has held.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from appliance.model.delivery import Delivery
from appliance.model.hold import Hold, folded
from smtp.address import ascii_domain

HELD_BY_OPERATOR = "held by the operator"
"""`Delivery.held_for` of what was held by itself, without a rule."""

HELD_BY_ACCOUNT = "held by the account"
"""The same of what the account has held whose mail it is."""

RELEASED = "released by the operator"
"""`Delivery.held_for` of what an operator has let go although a rule is about it: no rule holds it again."""


class Holds:
    """The rules in force, the oldest first."""

    def __init__(self, rules: Iterable[Hold] = ()) -> None:
        """`rules`: what the store has at the start (`SpoolStore.holds`)."""
        self._rules = [normalised(rule) for rule in rules]
        self._changes = 0

    @property
    def rules(self) -> Sequence[Hold]:
        """Every rule, the oldest first."""
        return tuple(self._rules)

    @property
    def changes(self) -> int:
        """How often the rules have been changed here."""
        return self._changes

    @property
    def has_rules(self) -> bool:
        """Whether there is any."""
        return bool(self._rules)

    def rule_for(self, delivery: Delivery) -> Hold | None:
        """The oldest rule by which this delivery is to be held; None where it may go."""
        if not self._rules or delivery.held_for == RELEASED:
            return None
        return next((rule for rule in self._rules if rule.matches(delivery)), None)

    def operators_rule_for(self, delivery: Delivery) -> Hold | None:
        """The oldest rule of an operator that is about this delivery, whoever may have let it go."""
        return next((rule for rule in self._rules if not rule.by_account and rule.matches(delivery)), None)

    def same_as(self, rule: Hold) -> Hold | None:
        """The rule in force that says the same, whatever its id; None where there is none."""
        wanted = _meaning(normalised(rule))
        return next((known for known in self._rules if _meaning(known) == wanted), None)

    def add(self, rule: Hold) -> None:
        """From now on what this is about is to be held."""
        self._changes += 1
        self._rules.append(normalised(rule))

    def remove(self, hold_id: str) -> None:
        """This rule is gone; one that is not there is gone already."""
        self._changes += 1
        self._rules = [rule for rule in self._rules if rule.id != hold_id]

    def learn(self, rules: Iterable[Hold], changes: int) -> None:
        """Other nodes may have changed the rules: the store has these. They were read when there had been so many
        `changes` here; where there was another since, what was read is too old."""
        if changes == self._changes:
            self._rules = [normalised(rule) for rule in rules]


def held_for(rule: Hold) -> str:
    """What to tell of a delivery that this rule holds (`Delivery.held_for`)."""
    about = (
        f" for {rule.domain}" if rule.domain else "",
        f" to {rule.destination}" if rule.destination else "",
        f" from {rule.sender or '<>'}" if rule.sender is not None else "",
    )
    return f"{HELD_BY_ACCOUNT if rule.by_account else HELD_BY_OPERATOR}: all mail{''.join(about)}"


def normalised(rule: Hold) -> Hold:
    """The same rule as it is compared: domains as A-labels, all in lower case."""
    return replace(
        rule,
        domain=ascii_domain(rule.domain),
        destination=ascii_domain(rule.destination),
        sender=None if rule.sender is None else folded(rule.sender),
    )


def _meaning(rule: Hold) -> tuple[str, str, str | None, bool]:
    return rule.domain, rule.destination, rule.sender, rule.by_account
