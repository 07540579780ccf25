"""How many messages an alias still takes, where it was made for so many.

The count belongs to the promise: a use is a message that got its 250, neither more nor less. So it is written in the
transaction that accepts the message, one more under the name of the alias's counter; a crash leaves both or neither.
Transit has no such transaction; there the count is written before the 250 is given, so that again a sender who has not
heard it comes back, and is counted then.

The counts are in memory as well, because RCPT waits for no disk. RCPT only looks; a use is taken at the end of the
data, at once and before anything is awaited, and given back where the message was not accepted. Of two messages for
the last use the slower is put off, and hears at RCPT the next time that there is none left. Nobody can hold a use by a
transaction that never ends.

People see a copy in the record store, which follows within moments and never counts itself.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from appliance.model.domain import Alias
from appliance.storage.spool import CountUse


class Uses:
    """The counts of one engine. For its one thread."""

    def __init__(self, counted: Mapping[str, int]) -> None:
        """`counted` is what the spool has, by the name of the counter."""
        self._counted = dict(counted)
        self._under_way: Counter[str] = Counter()
        """Taken by messages of which nobody knows yet whether they will have been accepted."""
        self._uncopied = set(counted)

    def left(self, alias: Alias) -> int | None:
        """How many more messages an alias takes; None where it has no limit."""
        if alias.max_uses is None:
            return None
        return max(0, alias.max_uses - self._count(alias))

    def take(self, aliases: Iterable[Alias]) -> list[CountUse] | None:
        """One use of each; returns what has to be written with the acceptance. None, and none taken, where one of them
        has none left."""
        limited = {alias.use_counter: alias for alias in aliases if alias.max_uses is not None}
        if any(self.left(alias) == 0 for alias in limited.values()):
            return None
        counts: list[CountUse] = []
        for counter, alias in limited.items():
            assert counter is not None, "a limit comes with its counter"
            counts.append(CountUse(counter, alias.uses))
            self._under_way[counter] += 1
        return counts

    def end(self, counts: Iterable[CountUse], *, accepted: bool) -> None:
        """It is known what has become of the message: it was accepted, with what `take` returned, or it was not."""
        for count in counts:
            self._under_way[count.counter] -= 1
            if accepted:
                self._counted[count.counter] = max(self._counted.get(count.counter, 0), count.known) + 1
                self._uncopied.add(count.counter)

    def uncopied(self) -> dict[str, int]:
        """What people have not been shown yet, by the name of the counter."""
        return {counter: self._counted[counter] for counter in self._uncopied}

    def copied(self, counts: Mapping[str, int]) -> None:
        """They have been shown this; what has been counted meanwhile is still to be shown."""
        self._uncopied -= {counter for counter, count in counts.items() if self._counted.get(counter) == count}

    def learn(self, counted: Mapping[str, int]) -> None:
        """The spool has these, which other nodes may have counted. They show them to people, too."""
        for counter, count in counted.items():
            self._counted[counter] = max(count, self._counted.get(counter, 0))

    def all_but(self, counters: Collection[str]) -> set[str]:
        """The counters that are known here, but for these."""
        return self._counted.keys() - counters

    def forget(self, counters: Iterable[str]) -> None:
        """No alias has these counters any more."""
        for counter in counters:
            self._counted.pop(counter, None)
            self._uncopied.discard(counter)
        self._under_way = +self._under_way

    def _count(self, alias: Alias) -> int:
        # The copy counts where the spool has lost its own: after its file was moved away, or its key was lost.
        counter = alias.use_counter or ""
        return max(alias.uses, self._counted.get(counter, 0)) + self._under_way[counter]
