"""What pymongo's errors mean to the house.

Whatever it raises becomes StoreUnavailable (StoreFull, Damaged) with a short cause, or Duplicate. The error itself goes
no further, not even as a cause: the server puts values of documents into its words, and those end in logs.
"""

import contextlib
from collections.abc import Iterator, Mapping
from ssl import SSLError
from typing import Any

from bson.errors import BSONError, InvalidBSON
from dns.exception import DNSException
from dns.resolver import NXDOMAIN
from dns.resolver import NoAnswer as NoAnswerInDns
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from appliance.privacy.declarations import Collection
from appliance.storage.records import Damaged, Duplicate, StoreFull, StoreUnavailable

DUPLICATE_KEY = 11000
VALIDATION_FAILED = 121

_FULL = {14031, 12501}
"""OutOfDiskSpace, and FailedToSatisfy of quotas that hosted servers have."""
_DAMAGED = {285, 4034900}
"""DataCorruptionDetected, of a document and of an index."""
_REFUSED = {13, 18, 8000}
"""Unauthorized, AuthenticationFailed, and what hosted servers say instead."""
_NOT_REACHED = {
    "ostname mismatch": "its certificate is for another name: write that one into store.url",
    "IP address mismatch": "its certificate is for another address: write the name that it is for into store.url",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is signed by nobody who is known here, or has run out: tlsCAFile in "
    "store.url has to name the certificate of who has signed it",
    "SSL handshake failed": "there is no TLS with it: it may have none, or want a certificate (tlsCertificateKeyFile)",
}
"""What no waiting helps against, by what the words of pymongo have in them then."""
_LATE = {50, 64, 262}
"""MaxTimeMSExpired, WriteConcernFailed, ExceededTimeLimit: the server itself has given up waiting."""
_OURS = {2, 9, 14, 40, 59, 72, 73}
"""BadValue, FailedToParse, TypeMismatch, ConflictingUpdateOperators, CommandNotFound, InvalidOptions, InvalidNamespace:
a mistake of ours in what was asked for. It stays what it is, so that it is found."""


class NoAnswer(StoreUnavailable):
    """Nobody has answered, or there was nobody to be asked. What was asked for may have happened."""


class NotAsked(StoreUnavailable):
    """The server is taken for away, and nothing was sent to it (`mongo_rest.py`): nothing has happened, nor will it."""


class NotDeclared(Exception):
    """The server's validator has refused a document: a mistake of ours, or another hand on the validator."""


@contextlib.contextmanager
def translated(place: str, collection: Collection | None = None) -> Iterator[None]:
    """Turn what pymongo raises inside into the errors of the house; `place` says which server and database it is.

    Where no declared collection is named, a DuplicateKeyError stays one: that is for whoever keeps books to judge.
    """
    try:
        yield
    except (OperationFailure, BulkWriteError) as error:
        details = _first_of(error)
        code = details.get("code", error.code)
        if code == DUPLICATE_KEY:
            if collection is None:
                raise
            raise Duplicate(collection, _fields(collection, details)) from None
        if code in _OURS:
            raise
        raise _meaning(place, collection, code, str(details.get("codeName", code))) from None
    except ConnectionFailure as error:
        # A refused connection, no primary, a primary that is not one any more; or silence.
        silent = error.timeout and not isinstance(error, ServerSelectionTimeoutError)
        cause = "it does not answer in time" if silent else _why_not_reached(error)
        kind = StoreUnavailable if isinstance(error, NotPrimaryError) else NoAnswer
        raise kind(f"{place}: {cause}") from None
    except InvalidOperation as error:
        if "close" not in str(error):
            raise
        raise StoreUnavailable(f"{place}: it has been closed") from None
    except (ConfigurationError, InvalidBSON) as error:
        if isinstance(error, InvalidBSON):
            raise Damaged(f"{place}: a document can't be read") from None
        raise StoreUnavailable(f"{place}: {_why_of_no_use(error)}") from None
    except OSError as error:
        # Of a connection it would be a ConnectionFailure: this is about a file, before there is one.
        named = f"the file {error.filename}" if error.filename else "a file with a certificate"
        reason = (error.reason or "").replace("_", " ").lower() if isinstance(error, SSLError) else error.strerror
        raise StoreUnavailable(f"{place}: {named} that store.url names can't be used: {reason}") from None
    except BSONError:
        raise
    except PyMongoError as error:
        raise StoreUnavailable(f"{place}: {type(error).__name__}") from None


def _meaning(place: str, collection: Collection | None, code: object, name: str) -> Exception:
    if code == VALIDATION_FAILED:
        return NotDeclared(f"{place}: a document of {collection.name if collection else 'a ledger'} is not as declared")
    if code in _LATE:
        return StoreUnavailable(f"{place}: it does not answer in time")
    if code in _FULL:
        return StoreFull(f"{place}: the disk is full")
    if code in _DAMAGED:
        return Damaged(f"{place}: what is stored there is damaged")
    if code in _REFUSED:
        return StoreUnavailable(f"{place}: the user in store.url is not known there, or may not do this")
    return StoreUnavailable(f"{place}: the server says {name}")


def _why_not_reached(error: ConnectionFailure) -> str:
    """In words of ours: what a server has sent may be in those of pymongo."""
    words = str(error)
    for part, cause in _NOT_REACHED.items():
        if part in words:
            return cause
    cause = "no server that takes writes can be reached"
    if isinstance(error, ServerSelectionTimeoutError) and "connection closed" in words:
        cause += "; one closes each connection: it may want TLS (tls=true), or a certificate (tlsCertificateKeyFile)"
    return cause


def _why_of_no_use(error: ConfigurationError) -> str:
    cause = error.__cause__
    if isinstance(cause, (NXDOMAIN, NoAnswerInDns)):
        return "the DNS has no such service (SRV records of _mongodb._tcp): put the name right, or write mongodb://"
    if isinstance(cause, DNSException):
        return "the DNS does not say which servers that is; it is asked again at the next start"
    if "Private key" in str(error):
        return "tlsCertificateKeyFile in store.url has to name one file, with a certificate and the key that is its own"
    if "SRV host" in str(error):
        return "the DNS names servers outside of the domain of the service: write mongodb:// with their names"
    return "its URL can't be used"


def _first_of(error: OperationFailure) -> Mapping[str, Any]:
    """What the server says of the first write that has failed, or of the command."""
    details: Mapping[str, Any] = error.details or {}
    for kind in ("writeErrors", "writeConcernErrors"):
        if details.get(kind):
            first: Mapping[str, Any] = details[kind][0]
            return first
    return details


def _fields(collection: Collection, details: Mapping[str, Any]) -> tuple[str, ...]:
    fields: list[str] = []
    for path in details.get("keyPattern", {"_id": 1}):
        fields += collection.key if path == "_id" else [path]
    return tuple(fields)


def is_hopeless(error: OperationFailure) -> bool:
    """Whether a write fails for what it says, whenever it is tried: as a duplicate, or for a mistake of ours."""
    return _first_of(error).get("code", error.code) in {DUPLICATE_KEY, VALIDATION_FAILED, *_OURS}
