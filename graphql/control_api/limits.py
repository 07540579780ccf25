"""How much one document may ask for, and what its answer may cost. What is more is refused as TOO_COMPLEX.

A document is refused before it is validated or executed. Counted is what it comes to once its fragments are put in
where they are spread: a few hundred octets of fragments that spread each other are billions of fields. Nothing here
depends on the schema.
"""

import time
from dataclasses import dataclass, field

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

from control_api.errors import too_complex

TOKENS = 2000
"""Of a document. The longest of our own has a tenth of them, and so has the usual introspection query."""
COMMENTS = 200
"""Of a document. They are kept while it is read, and say nothing to us."""
DEPTH = 12
"""Fields below each other. The deepest path that says anything new is viewer, domains, messages, events: 9 with the
edges and nodes in between."""
FIELDS = 500
"""Fields in all; also what the validation of fields that may be merged, which compares them in pairs, can bear."""
ROOT_FIELDS = 20
"""Each of them may be a query of the store, or a change."""
ALIASES = 30
"""An alias is how one field is asked for many times over."""
DIRECTIVES = 30
"""More have no use, and are compared with each other."""
OPERATIONS = 20
"""Of one document, of which one is executed."""
NESTING = 40
"""Selections within each other of whatever kind, fragments included. Introspection needs 15."""

FIELDS_RESOLVED = 20_000
"""For one answer: a full page of messages with all their events is 8,000."""
SECONDS = 10.0
"""For one answer. What a resolver is waiting for has limits of its own; what is left after this is not begun."""
_LOOK_AT_THE_CLOCK = 16
"""After so many fields. Most are in memory already and cost less than such a look."""

_OF_INTROSPECTION = ("__schema", "__type")


@dataclass(slots=True)
class Budget:
    """What is left of what one answer may cost."""

    fields: int = field(default_factory=lambda: FIELDS_RESOLVED)
    ends_at: float = field(default_factory=lambda: time.monotonic() + SECONDS)
    """On the monotonic clock."""

    def spend(self, fields: int) -> None:
        """For the fields that are asked for of one object. Raises TOO_COMPLEX once nothing is left."""
        self.fields -= fields
        if self.fields < 0:
            raise too_complex(f"This answer would have more than {FIELDS_RESOLVED} fields: ask for smaller pages.")
        if self.fields % _LOOK_AT_THE_CLOCK < fields:
            self.look_at_the_clock()

    def look_at_the_clock(self) -> None:
        """Before what may wait. Raises TOO_COMPLEX once the time is over."""
        if time.monotonic() > self.ends_at:
            raise too_complex(f"This takes longer than {SECONDS:.0f} s: ask for less at once.")


@dataclass(frozen=True, slots=True)
class _Measure:
    """What a selection comes to."""

    depth: int = 0
    fields: int = 0
    roots: int = 0
    """Of the fields, those that stand in no other one."""
    aliases: int = 0
    directives: int = 0
    introspects: bool = False

    def beside(self, other: "_Measure") -> "_Measure":
        """Both, one after the other."""
        return _Measure(
            max(self.depth, other.depth),
            self.fields + other.fields,
            self.roots + other.roots,
            self.aliases + other.aliases,
            self.directives + other.directives,
            self.introspects or other.introspects,
        )


def asks_for_the_schema(document: DocumentNode) -> bool:
    """Hold a document against the limits, and tell whether it reads `__schema`. Raises TOO_COMPLEX."""
    operations = [one for one in document.definitions if isinstance(one, OperationDefinitionNode)]
    _hold("operations", len(operations), OPERATIONS)
    fragments = {one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)}
    known: dict[str, _Measure] = {}
    introspects = False
    for operation in operations:
        measured = _measure(operation.selection_set, fragments, known, 0)
        of_variables = sum(len(one.directives or ()) for one in operation.variable_definitions or ())
        _hold("levels of fields", measured.depth, DEPTH)
        _hold("fields", measured.fields, FIELDS)
        _hold("fields at the root", measured.roots, ROOT_FIELDS)
        _hold("aliases", measured.aliases, ALIASES)
        _hold("directives", measured.directives + len(operation.directives or ()) + of_variables, DIRECTIVES)
        introspects |= measured.introspects
    # One that nothing spreads is invalid, which is found by comparing all that is in it.
    for name in fragments.keys() - known.keys():
        _hold("fields", _fragment(name, fragments, known, 0).fields, FIELDS)
    return introspects


def _hold(what: str, number: int, limit: int) -> None:
    if number > limit:
        raise too_complex(f"This asks for too much at once: more than {limit} {what}.")


def _measure(
    selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode], known: dict[str, _Measure], nested: int
) -> _Measure:
    _hold("selections within each other", nested, NESTING)
    whole = _Measure()
    for one in selections.selections:
        directives = _Measure(directives=len(one.directives or ()))
        if isinstance(one, FieldNode):
            name = one.name.value
            below = _measure(one.selection_set, fragments, known, nested + 1) if one.selection_set else _Measure()
            # How deep the schema is looked at is limited by a rule of validation, by what it lists within each other.
            depth = 1 if name in _OF_INTROSPECTION else below.depth + 1
            introspects = below.introspects or name == "__schema"
            own = _Measure(
                depth, below.fields + 1, 1, below.aliases + (one.alias is not None), below.directives, introspects
            )
        elif isinstance(one, InlineFragmentNode):
            own = _measure(one.selection_set, fragments, known, nested + 1)
        else:
            assert isinstance(one, FragmentSpreadNode)
            own = _fragment(one.name.value, fragments, known, nested + 1)
        whole = whole.beside(own).beside(directives)
    return whole


def _fragment(
    name: str, fragments: dict[str, FragmentDefinitionNode], known: dict[str, _Measure], nested: int
) -> _Measure:
    if name not in known:
        # As long as it is not known it counts as nothing: one that spreads itself is for validation to refuse.
        known[name] = _Measure()
        if name in fragments:
            known[name] = _measure(fragments[name].selection_set, fragments, known, nested)
    return known[name]
