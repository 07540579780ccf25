"""One database on a MongoDB server: how it is reached, what may be in it, and what its errors mean.

Several nodes share it, and each finds or makes the same collections in it: with validators, so that the server refuses
what is not declared, and with indexes. In `schema` it says which layout it has.

What a write promises: `w: majority` and `j: true`, so that it survives the loss of any one server of a replica set, and
power loss where there is but one. Reads are of what a majority has, from the primary. Nothing is asked for that needs
sessions, transactions, change streams or collations: what remains is the same on every server of version 6.0 or later.

Every wait has an end with a name, and of a server that does not answer only the first has to find that out
(`mongo_rest.py`). pymongo is not fork-safe: open a database after the fork.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import IndexModel, MongoClient
from pymongo.collection import Collection as Stored
from pymongo.database import Database
from pymongo.errors import ConnectionFailure, DuplicateKeyError, InvalidOperation, OperationFailure

from appliance.privacy.declarations import COLLECTIONS, Collection, Store
from appliance.storage.mongo_documents import Document, Shape
from appliance.storage.mongo_errors import NoAnswer, translated
from appliance.storage.mongo_rest import Rest
from appliance.storage.records import SchemaMismatch

DEFAULT_DATABASE = "onward"
"""The name of the database where the URL has none."""

OLDEST_SERVER = (6, 0)
"""What is asked of a server here is in every version since, and in no hosted imitation that calls itself older."""

CONNECT_MS = 2000
"""For a connection and its handshake. A server that takes longer is not one to wait for with mail at the door."""

SELECTION_MS = 2500
"""For a server that takes writes to be there: as long as a new primary usually takes to be known once it is chosen."""

OPERATION_MS = 5000
"""For one operation with all that belongs to it: finding the server, its answer, and a second attempt at another."""

HEARTBEAT_MS = 2000
"""How often each server is asked how it is, so that one that is back is known to be within seconds."""

SETTLING_S = 600.0
"""For one step of bringing a database into shape at the start: an index over millions of documents takes minutes."""

CONNECTIONS = 50
"""At most so many at a time from one process: more than it has threads that ask."""

BOOKKEEPING = ("schema", "intents")
"""Collections in which the stores keep their books: which layout the database has, and what is half done. What stands
in them is of declared collections, and gone within seconds."""

_MILLISECONDS: CodecOptions[Document] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
"""Instants as in the rest of the house; and a datetime of Python's cannot hold every one of them."""

_SCHEMA = Shape(
    "schema", {"_id": {"bsonType": "string"}, "version": {"bsonType": ["int", "long"]}}, frozenset({"_id", "version"})
)
_THE_ONE = "onward"

_UNAUTHORIZED = 13
_NAMESPACE_EXISTS = 48
_NAMESPACE_NOT_FOUND, _INDEX_NOT_FOUND = 26, 27

Migration = Callable[[Database[Document]], None]
"""What brings a database from one layout to the next.

It may be broken off anywhere and begun anew, and two nodes may be at it at once: doing it twice has to be as good as
doing it once. No node of the layout before may be at work meanwhile.
"""

MIGRATIONS: tuple[Migration, ...] = ()
"""The first leads from layout 1 to layout 2, and so on. A field that is new and optional needs none."""


@dataclass(frozen=True, slots=True)
class MongoAbout:
    """What a server says about itself."""

    version: str
    storage_engine: str
    """Empty where our user may not ask."""
    persists: bool
    """It keeps what it has on a disk, as far as our user may ask."""
    members: int
    """Of its replica set; 0 where it stands alone."""


class MongoDatabase:
    """A database with collections of these shapes. Thread-safe; any number of processes may have it open."""

    def __init__(self, url: str, shapes: Sequence[Shape], *, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        """Reach the server, and see that the database holds what is declared and nothing else.

        Raises StoreUnavailable, SchemaMismatch.
        """
        self.place = _place(url)
        """Which server and database this is, for people: nothing secret of the URL is in it."""
        self._shapes = (_SCHEMA, *shapes)
        with translated(self.place):
            self._client: MongoClient[Document] = _client(url)
        self._rest = Rest(self.place, self._ping)
        self._database: Database[Document] = self._client.get_default_database(DEFAULT_DATABASE)
        try:
            with translated(self.place), pymongo.timeout(OPERATION_MS / 1000):
                self._client.admin.command("ping")
                self._check_version()
            self._migrate(migrations)
            self._settle()
            self._write_down(len(migrations) + 1)
        except SchemaMismatch as error:
            self.close()
            raise SchemaMismatch(f"{self.place}: {error}") from None
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Stored[Document]:
        """A collection of pymongo's. What it raises is to be met with `translated`."""
        return self._database[name]

    @property
    def trouble(self) -> str | None:
        """Why the server is taken for away; None where it is not. Asks nobody."""
        return self._rest.cause

    @contextlib.contextmanager
    def translated(self, collection: Collection | None = None) -> Iterator[None]:
        """Turn what pymongo raises inside into the errors of the house; see `mongo_errors.translated`.

        While the server is away, raises NotAsked in place of entering the block.
        """
        self._rest.enter()
        began = time.monotonic()
        try:
            with translated(self.place, collection):
                yield
        except NoAnswer as error:
            # Where connections break, the next one may find another primary at once: only who has waited says no.
            if time.monotonic() - began >= CONNECT_MS / 1000:
                self._rest.begin(str(error))
            raise

    def wait_for_it(self) -> None:
        """Where the server is away, wait until it answers, for as long as an operation may take: in place of asking it
        oneself, for what has to be tried. Never raises."""
        self._rest.wait(OPERATION_MS / 1000)

    def now(self) -> int:
        """The server's clock: milliseconds since the epoch. Raises StoreUnavailable."""
        with self.translated():
            return int(self._database.command("hello", codec_options=_MILLISECONDS)["localTime"])

    def about(self) -> MongoAbout:
        """What the server says about itself. Raises StoreUnavailable."""
        with self.translated():
            hello = self._client.admin.command("hello")
            try:
                engine = self._client.admin.command("serverStatus")["storageEngine"]
            except OperationFailure as error:
                if error.code != _UNAUTHORIZED:
                    raise
                # A user with the rights that it needs for mail may not ask; few servers keep all in memory.
                engine = {"name": "", "persistent": True}
            return MongoAbout(
                version=self.server_version(),
                storage_engine=str(engine["name"]),
                persists=bool(engine["persistent"]),
                members=len(hello.get("hosts", ())),
            )

    def server_version(self) -> str:
        """Which version the server has. Raises StoreUnavailable."""
        with self.translated():
            return str(self._client.admin.command("buildInfo")["version"])

    def close(self) -> None:
        """Let go of the server; a second time does nothing."""
        self._rest.close()
        self._client.close()

    def _ping(self) -> bool:
        try:
            self._client.admin.command("ping")
        except ConnectionFailure:
            return False
        except (OperationFailure, InvalidOperation):
            # An answer, if not the one that was hoped for; or it has been closed.
            return True
        return True

    # -------------------------------------------------------------- at the start

    def _check_version(self) -> None:
        build = self._client.admin.command("buildInfo")
        if tuple(build["versionArray"][:2]) < OLDEST_SERVER:
            wanted = ".".join(map(str, OLDEST_SERVER))
            raise SchemaMismatch(f"the server is MongoDB {build['version']}, and {wanted} or later is needed")

    def _version(self) -> int | None:
        """The layout that the database has; None where it is new."""
        with self.translated():
            found = self["schema"].find_one({"_id": _THE_ONE})
        return None if found is None else int(found["version"])

    def _migrate(self, migrations: Sequence[Migration]) -> None:
        newest = len(migrations) + 1
        version = self._version()
        if version is not None and version > newest:
            raise SchemaMismatch(
                f"it was written by a later version of Onward (its layout is {version}, this one knows {newest}): "
                "run that version, or name another database"
            )
        while version is not None and version < newest:
            with self.translated(), pymongo.timeout(SETTLING_S):
                migrations[version - 1](self._database)
                # Another node may have been quicker, with this one and the next.
                self["schema"].update_one({"_id": _THE_ONE, "version": version}, {"$set": {"version": version + 1}})
            version = self._version()

    def _write_down(self, version: int) -> None:
        with self.translated(), contextlib.suppress(DuplicateKeyError):
            self["schema"].update_one({"_id": _THE_ONE}, {"$setOnInsert": {"version": version}}, upsert=True)

    def _settle(self) -> None:
        """Bring the collections in line with their shapes, or raise SchemaMismatch before anything is changed."""
        with self.translated(), pymongo.timeout(SETTLING_S):
            found = {str(entry["name"]): entry for entry in self._database.list_collections()}
            known = {shape.name for shape in self._shapes} | set(BOOKKEEPING)
            known |= {collection.name for collection in COLLECTIONS if collection.store is not Store.EPHEMERAL}
            for name, entry in found.items():
                if name not in known and not name.startswith("system."):
                    raise SchemaMismatch(
                        f"it has the {entry['type']} {name!r}, which is not declared in "
                        "appliance/privacy/declarations.py"
                    )
            behind = [shape for shape in self._shapes if shape.name in found and _is_behind(shape, found[shape.name])]
            for shape in behind:
                self._database.command("collMod", shape.name, **_options(shape))
            for shape in self._shapes:
                if shape.name not in found:
                    self._create(shape)
                self._settle_indexes(shape)

    def _create(self, shape: Shape) -> None:
        try:
            self._database.create_collection(shape.name, check_exists=False, **_options(shape))
        except OperationFailure as error:
            # Another node starts at the same moment.
            if error.code != _NAMESPACE_EXISTS:
                raise

    def _settle_indexes(self, shape: Shape) -> None:
        wanted = {index.name: index.specification() for index in shape.indexes}
        collection = self[shape.name]
        for found in collection.list_indexes():
            name = found["name"]
            if name == "_id_":
                continue
            here: Document = {part: value for part, value in found.items() if part != "v"}
            here["key"] = dict(here["key"])
            if wanted.get(name) == here:
                del wanted[name]
            else:
                # An index is a second copy of what it is made of: one that is not declared any more goes.
                with _unless_gone():
                    collection.drop_index(name)
        if wanted:
            collection.create_indexes([_model(specification) for specification in wanted.values()])


def _client(url: str) -> MongoClient[Document]:
    # What is given here goes before what the URL says.
    return MongoClient(
        url,
        appname="onward",
        connectTimeoutMS=CONNECT_MS,
        serverSelectionTimeoutMS=SELECTION_MS,
        socketTimeoutMS=OPERATION_MS,
        timeoutMS=OPERATION_MS,
        heartbeatFrequencyMS=HEARTBEAT_MS,
        maxPoolSize=CONNECTIONS,
        w="majority",
        journal=True,
        readConcernLevel="majority",
        readPreference="primary",
        datetime_conversion=DatetimeConversion.DATETIME_MS.name,
    )


def _place(url: str) -> str:
    """The servers and the database that a URL names, without the user, the password and the options."""
    _, _, rest = url.partition("://")
    address = rest.partition("?")[0]
    servers, _, database = address.rpartition("@")[2].partition("/")
    return f"MongoDB at {servers}, database {database or DEFAULT_DATABASE}"


def _options(shape: Shape) -> dict[str, Any]:
    return {"validator": shape.validator(), "validationLevel": "strict", "validationAction": "error"}


def _is_behind(shape: Shape, entry: Mapping[str, Any]) -> bool:
    """Whether a collection has an older validator than its shape. Raises SchemaMismatch where it has quite another."""
    options = entry.get("options", {})
    here = options.get("validator", {}).get("$jsonSchema")
    if here is None:
        raise SchemaMismatch(f"the {entry['type']} {shape.name!r} is there already, and is not ours")
    for name, type_ in here.get("properties", {}).items():
        if name not in shape.fields:
            raise SchemaMismatch(
                f"it has the field {shape.name}.{name}, which is not declared in appliance/privacy/declarations.py"
            )
        if type_ != shape.fields[name] or (name in here["required"]) != (name in shape.required):
            raise SchemaMismatch(f"{shape.name}.{name} stands there otherwise than it is declared")
    for name in shape.fields:
        if name not in here["properties"] and name in shape.required:
            raise SchemaMismatch(f"{shape.name}.{name} is missing, and is not optional")
    return any(options.get(name) != wanted for name, wanted in _options(shape).items())


def _model(specification: Document) -> IndexModel:
    options = {name: value for name, value in specification.items() if name != "key"}
    return IndexModel(list(specification["key"].items()), **options)


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except OperationFailure as error:
        # Another node starts at the same moment.
        if error.code not in (_NAMESPACE_NOT_FOUND, _INDEX_NOT_FOUND):
            raise
