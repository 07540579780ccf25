"""Conditions on rows as SQL: `Where` of the record store, and what a retention erases.

The text depends only on the shape of the conditions, never on their values, which are bound.
"""

from appliance.privacy.declarations import Retention
from appliance.storage.codec import Codec, StoredValue
from appliance.storage.records import AnyOf, Range, Where
from appliance.storage.sqlite_statements import quoted

Bindings = tuple[StoredValue, ...]


def condition(codec: Codec, where: Where) -> tuple[str, Bindings]:
    """An SQL expression (true where there are no conditions) and its values. Raises RowRefused, KeyMissing."""
    terms: list[str] = []
    values: list[StoredValue] = []
    for name, wanted in where.items():
        if isinstance(wanted, Range):
            _range(codec, name, wanted, terms, values)
        elif isinstance(wanted, AnyOf):
            _any_of(codec, name, wanted, terms, values)
        else:
            column, value = codec.lookup(name, wanted)
            terms.append(f"{quoted(column)} IS NULL" if value is None else f"{quoted(column)} = ?")
            if value is not None:
                values.append(value)
    return " AND ".join(terms) or "TRUE", tuple(values)


def outlived(codec: Codec, retention: Retention, before: int) -> tuple[str, Bindings]:
    """The condition on rows whose retention has ended, and its values. Raises RowRefused."""
    where: dict[str, object] = {retention.since: Range(until=before)}
    if retention.where is not None:
        name, any_of = retention.where
        where[name] = AnyOf(any_of)
    return condition(codec, where)


def _range(codec: Codec, name: str, wanted: Range, terms: list[str], values: list[StoredValue]) -> None:
    column = quoted(codec.comparable(name, wanted.since, wanted.until, wanted.after))
    for operator, bound in ((">=", wanted.since), ("<", wanted.until), (">", wanted.after)):
        if bound is not None:
            terms.append(f"{column} {operator} ?")
            values.append(bound)


def _any_of(codec: Codec, name: str, wanted: AnyOf, terms: list[str], values: list[StoredValue]) -> None:
    column = quoted(codec.comparable(name, *wanted.values))
    present = [value for value in wanted.values if value is not None]
    term = f"{column} IN ({', '.join('?' * len(present))})"
    terms.append(term if len(present) == len(wanted.values) else f"({term} OR {column} IS NULL)")
    # Checked above: what is comparable is a text, a number, a truth value or octets.
    values += [value for value in present if isinstance(value, str | int | bytes)]
