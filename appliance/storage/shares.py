"""How a claim is divided among priorities, on any backend."""

from collections.abc import Mapping, Sequence

from appliance.model.delivery import OLDEST_EVERY


def divide(due: Mapping[int, Sequence[int]], limit: int) -> dict[int, int]:
    """How many to take of each priority, from when they became due (by priority, the earliest first).

    Higher priorities first, but one in OLDEST_EVERY is for what is the oldest of the rest.
    """
    shares: dict[int, int] = {}
    room = limit - limit // OLDEST_EVERY
    for priority in sorted(due, reverse=True):
        shares[priority] = min(room, len(due[priority]))
        room -= shares[priority]
    rest = sorted((at, -priority) for priority, times in due.items() for at in times[shares[priority] :])
    for _, negative in rest[: limit - sum(shares.values())]:
        shares[-negative] += 1
    return {priority: count for priority, count in shares.items() if count}
