"""The keys of nodes that share a store: records in it, sealed under one key that each node holds as a file.

Where one machine has its store to itself, each key is a file (`appliance.privacy.secrets`). Nodes that share a store
have to use the same ones, so these stand in it, in `cluster_keys`, and so does the certificate that we make ourselves.
All that a node has to be given is `cluster.key`; whoever has a copy of the database and not that file opens nothing.

The first node makes `cluster.key`, and from there on no node makes another. Which one is the store's is shown by a row
that bears its name and holds nothing: it is there before any key is, so that of two nodes that begin at once, each with
a file of its own, one is refused before it has sealed anything.

A key that is missing in the store is made once, by whoever inserts it first; the others read that. It is drawn, unless
the node has it as a file: so the keys of a single machine come along, and one that was lost is put back.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.model.time import Clock, wall_clock
from appliance.privacy.declarations import CLUSTER_KEYS, Store, collections_of
from appliance.privacy.sealing import KEY_OCTETS, Keyring, Sealer
from appliance.privacy.secrets import SecretRefused, Secrets
from appliance.run import CannotStart
from appliance.run.lost_keys import KeyLost, advice
from appliance.storage.records import Damaged, Duplicate, Insert, RecordStore, Update

CLUSTER_KEY = CLUSTER_KEYS.sealed_under
"""The key that each node holds as a file, and the name of the row that shows whether it is that of the store."""

_NOTHING = b""

_AWAY = "empty the collections " + ", ".join(each.name for each in collections_of(Store.SPOOL) if each.sealed_under)


class ClusterKeyUnfit(CannotStart, SecretRefused):
    """This node has not got the key of the store that it shares: which file to bring from where."""


class KeysDiffer(CannotStart, SecretRefused):
    """A key is there under this name on the other side, and it is another one."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands under a name."""

    octets: bytes
    created_at: int
    """Another one at each change."""


class ClusterKeys:
    """What the nodes of a store have in common under its cluster key. Thread-safe.

    Every method may raise StoreUnavailable.
    """

    def __init__(self, records: RecordStore, clock: Clock = wall_clock) -> None:
        """`records` holds the cluster key, which opens what is there: see `ClusterSecrets.shared`."""
        self._records = records
        self._clock = clock

    def get(self, name: str) -> Kept | None:
        """What stands under this name; None for nothing. Raises Damaged where it does not open."""
        row = self._records.get(CLUSTER_KEYS, {"name": name})
        if row is None:
            return None
        octets, created_at = row["octets"], row["created_at"]
        assert isinstance(octets, bytes)
        assert isinstance(created_at, int)
        return Kept(octets, created_at)

    def once(self, name: str, octets: bytes) -> Kept:
        """What stands under this name: these octets, unless somebody was here before. Raises Damaged."""
        with suppress(Duplicate):
            row = {"name": name, "octets": octets, "created_at": self._clock()}
            self._records.apply([Insert(CLUSTER_KEYS, row)])
        found = self.get(name)
        if found is None:
            raise SecretRefused(f"{name} was taken out of {CLUSTER_KEYS.name} while it was being made: start again")
        return found

    def replace(self, name: str, seen: Kept, octets: bytes) -> bool:
        """Put these octets in the place of what was seen there; False where somebody else has by now."""
        created_at = max(self._clock(), seen.created_at + 1)
        changes = {"octets": octets, "created_at": created_at}
        (touched,) = self._records.apply([Update(CLUSTER_KEYS, {"name": name, "created_at": seen.created_at}, changes)])
        return touched > 0

    def prove(self) -> None:
        """Make sure that the cluster key which is held is that of the store, from here on. Raises Damaged if not."""
        if self.get(CLUSTER_KEY) is None:
            # Without that row, what else is there has to open.
            self._records.find(CLUSTER_KEYS, {})
            self.once(CLUSTER_KEY, _NOTHING)


class ClusterSecrets(Secrets):
    """The secrets of a node that shares its store: its keys are those of the store, everything else is its own."""

    def __init__(
        self, data_dir: Path, credentials_directory: Path | None, opened: Callable[[Keyring], RecordStore]
    ) -> None:
        """`opened` opens the record store with these keys and no others."""
        super().__init__(data_dir, credentials_directory)
        self._files = Secrets(data_dir, credentials_directory)
        """The keys that are files here: the cluster key, and whatever a single machine had."""
        self._opened = opened

    def key(self, name: str) -> bytes:
        """The 32 octets of this key of the store, made at the first use.

        Raises what `shared` does, and KeyLost where what stands there does not open.
        """
        with self.shared() as keys:
            return self._of(keys, name)

    def keys(self, names: Iterable[str]) -> dict[str, bytes]:
        """The same for several, with the store opened once."""
        with self.shared() as keys:
            return {name: self._of(keys, name) for name in names}

    def keys_of_store(self, names: Iterable[str], in_use: Callable[[], Collection[str]]) -> dict[str, bytes]:
        """The same for those that a store is sealed under. `in_use` says under which of them it has rows.

        Raises KeyLost also where there are rows under a key that is neither in the store nor a file here.
        """
        names = set(names)
        with self.shared() as keys:
            missing = {name for name in names if self._found(keys, name) is None and not self._files.exists(name)}
            # Another node may have made a key since, and used it. There was one before there was a row under it.
            lost = [name for name in missing & set(in_use()) if self._found(keys, name) is None] if missing else []
            for name in sorted(lost):
                raise KeyLost(
                    f"the store is sealed under the key {name!r}, and {CLUSTER_KEYS.name} has it no more. "
                    f"{advice(name, self.file_of(name), _AWAY)}"
                )
            return {name: self._of(keys, name) for name in names}

    def exists(self, name: str) -> bool:
        """Whether the store has this key already. Raises StoreUnavailable, SchemaMismatch."""
        with closing(self._opened({})) as records:
            return records.count(CLUSTER_KEYS, {"name": name}) > 0

    def missing(self, names: Iterable[str]) -> list[str]:
        """Which of these keys the store has not. Makes nothing; raises ClusterKeyUnfit and what `key` does."""
        if not self.exists(CLUSTER_KEY):
            return list(names)
        with self.shared() as keys:
            return [name for name in names if self._found(keys, name) is None]

    @contextmanager
    def shared(self) -> Iterator[ClusterKeys]:
        """What the nodes have in common, for the block. Makes `cluster.key` where the store has no keys yet.

        Raises ClusterKeyUnfit, SecretRefused, StoreUnavailable, SchemaMismatch or OSError.
        """
        self._check_at_hand()
        with closing(self._opened({CLUSTER_KEY: Sealer(self._files.key(CLUSTER_KEY))})) as records:
            keys = ClusterKeys(records)
            try:
                keys.prove()
            except Damaged:
                raise ClusterKeyUnfit(
                    f"{self._file()} is not the key of this store, whose keys are sealed under another one. "
                    f"{self._bring()}"
                ) from None
            yield keys

    def carry_in(self, names: Iterable[str]) -> list[str]:
        """Take over keys that are files here into the store; those that are none are passed over. The files stay.

        For a single machine that moves to a store that nodes share, before anything else opens that: what is sealed
        under its keys opens there. Returns the names of those that the store has of us now; raises as `take` does.
        """
        own = {name: self._files.key(name) for name in names if self._files.exists(name)}
        self.take(own)
        return sorted(own)

    def take(self, own: Mapping[str, bytes]) -> None:
        """Have the store use these keys. Raises KeysDiffer, before anything is changed, where it has another one under
        one of the names; and what `key` does."""
        with self.shared() as keys:
            self._refuse_others(own, self._of_these(keys, own))
            # Another node may have been quicker since.
            self._refuse_others(own, {name: keys.once(name, octets).octets for name, octets in own.items()})

    def stored(self, names: Iterable[str]) -> dict[str, bytes]:
        """Those of these keys that the store has; none is made. Raises what `key` does."""
        with self.shared() as keys:
            return self._of_these(keys, names)

    def carry_out(self, names: Iterable[str]) -> list[str]:
        """Write the store's keys of these names into files here, for the way back to a single machine.

        Returns the names of those that there are. Raises KeysDiffer, before anything is changed, where another key is
        here under one of the names; and what `key` does.
        """
        there = self.stored(names)
        here = {name: self._files.key(name) for name in there if self._files.exists(name)}
        self._refuse_others(here, there)
        for name, octets in there.items():
            if name not in here:
                self.keep(name, octets)
        return sorted(there)

    def _of_these(self, keys: ClusterKeys, names: Iterable[str]) -> dict[str, bytes]:
        return {name: kept.octets for name in names if (kept := self._found(keys, name)) is not None}

    def _of(self, keys: ClusterKeys, name: str) -> bytes:
        if name == CLUSTER_KEY:
            return self._files.key(name)
        found = self._found(keys, name)
        if found is None:
            own = self._files.key(name) if self._files.exists(name) else os.urandom(KEY_OCTETS)
            found = keys.once(name, own)
        return found.octets

    def _found(self, keys: ClusterKeys, name: str) -> Kept | None:
        try:
            return keys.get(name)
        except Damaged:
            file = self.file_of(name)
            raise KeyLost(
                f"what {CLUSTER_KEYS.name} has under {name!r} does not open any more. Take that row out of the "
                f"database. {advice(name, file, _AWAY)}"
            ) from None

    def _check_at_hand(self) -> None:
        """Refuse to make a key where the store has one. Only a store without any is anybody's to begin."""
        if self._files.exists(CLUSTER_KEY):
            return
        with closing(self._opened({})) as records:
            begun = records.count(CLUSTER_KEYS, {}) > 0
        # Another process of this node may have begun it meanwhile: the file is there before the first row.
        if begun and not self._files.exists(CLUSTER_KEY):
            raise ClusterKeyUnfit(
                f"{self._file()} is not there, and nothing in this store opens without it. {self._bring()}"
            )

    def _bring(self) -> str:
        file = self._file()
        return (
            f"Bring it from a node that works with this store: (umask 077; mkdir -p {file.parent}; ssh other-node cat "
            f"{file} > {file}), or have systemd hand it over (LoadCredential={file.name}:...). Where no node has it "
            "any more, begin with an empty database"
        )

    def _file(self) -> Path:
        return self.file_of(CLUSTER_KEY)

    def _refuse_others(self, here: Mapping[str, bytes], there: Mapping[str, bytes]) -> None:
        for name in sorted(here.keys() & there.keys()):
            if here[name] != there[name]:
                raise KeysDiffer(
                    f"{self.file_of(name)} and the key {name!r} of the store that is shared are two different keys: "
                    "each opens what was sealed under it and nothing else. Begin with a database that is empty, or "
                    "with a data directory that has no such file"
                )
