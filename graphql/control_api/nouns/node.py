"""Everything that has an id, and the query that finds it again by that."""

from typing import Self

import strawberry

from control_api.callers import Access
from control_api.context import Info
from control_api.fields import query, shown
from control_api.ids import global_id, taken_apart


@strawberry.interface(description="Whatever has an id.")
class Node:
    """A type of the schema that `node(id)` can find: make it a subclass, and say in `found` how."""

    stored_id: strawberry.Private[str]

    @shown
    def id(self) -> strawberry.ID:
        """Names this one thing, for `node` and as an argument. Not to be taken apart."""
        return global_id(type(self).__name__, self.stored_id)

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """The one with this id, where the caller may see it; None otherwise. A signed-in caller is asking.

        A token's READ is seen to; one that shows the log asks for LOGS here.
        """
        raise NotImplementedError(f"{cls.__name__} does not say how it is found by its id")


@strawberry.type
class NodeQueries:
    """Finding by id."""

    @query(Access.SIGNED_IN)
    def node(self, info: Info, id: strawberry.ID) -> Node | None:
        """Whatever has this id; null where there is nothing, or nothing that you may see."""
        parts = taken_apart(id)
        if parts is None:
            return None
        kind, stored_id = parts
        for one in Node.__subclasses__():
            if one.__name__ == kind:
                return one.found(info, stored_id)
        return None
