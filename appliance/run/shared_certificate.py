"""The certificate that all nodes of a store show where none is configured: one, for the names of all of them.

It stands in the store with its key, sealed as the keys of the nodes are (`cluster_keys.py`), and on no disk of a node.
The first node makes it. When it is nearly over, or lacks the name of a node, one node at a time makes the next, and the
others show that within a minute, without a restart.
"""

import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import trio

from appliance.configuration import Configuration
from appliance.model.time import Clock, wall_clock
from appliance.privacy.secrets import Secrets
from appliance.run.certificates import CertificateUnfit
from appliance.run.chores import turn
from appliance.run.cluster_keys import ClusterKeys
from appliance.run.own_certificate import OWN_CERTIFICATE, is_due, names_of, self_signed, usable
from appliance.run.stores import cluster_secrets
from appliance.storage.records import Damaged, RecordStore, StoreUnavailable
from smtp.tls import server_context

LOOK_S = 30.0
"""How often a node looks whether there is another one."""

MOST_NAMES = 100
"""Hostnames in one certificate: those of a hundred nodes. Beyond, the oldest are left out; without an end each change
of a hostname would make it longer."""

CHORE = "certificate"

_log = logging.getLogger(__name__)


def context(config: Configuration) -> ssl.SSLContext:
    """What STARTTLS is offered with. Makes the certificate where the store has none.

    Raises CertificateUnfit, and what `ClusterSecrets.shared` does.
    """
    own = cluster_secrets(config)
    with own.shared() as keys:
        pem = at_first(keys, config.hostname, own, _time(wall_clock()))
    with _in_memory(pem) as path:
        return server_context(path, path)


def stored(config: Configuration) -> str | None:
    """The certificate that the store has, with its key, in PEM; None without one. Makes nothing.

    Raises CertificateUnfit, and what `ClusterSecrets.shared` does.
    """
    own = cluster_secrets(config)
    if not own.exists(OWN_CERTIFICATE):
        return None
    with own.shared() as keys:
        pem = _found(keys)
    return None if pem is None else pem.decode("ascii", "replace")


def at_first(keys: ClusterKeys, hostname: str, own: Secrets, now: datetime) -> bytes:
    """The certificate to begin with: the one that is there, and otherwise one for this name.

    A machine that has had the store to itself goes on with the one that it has shown so far. Raises CertificateUnfit,
    SecretRefused, StoreUnavailable or OSError.
    """
    found = _found(keys)
    if found is not None:
        return found
    former = (own.load(OWN_CERTIFICATE) or "").encode()
    certificate = usable(former)
    if certificate is None or is_due(certificate, hostname, now):
        former = self_signed(hostname, now)
    return keys.once(OWN_CERTIFICATE, former).octets


def look(records: RecordStore, hostname: str, node: str, clock: Clock = wall_clock) -> bytes | None:
    """The certificate that is there now; the next one, where that is due and it is this node's turn to make it.

    None where there is none. Raises CertificateUnfit or StoreUnavailable.
    """
    keys = ClusterKeys(records, clock)
    pem = _found(keys)
    if pem is None or not _due(pem, hostname, clock):
        return pem
    with turn(records, CHORE, node, clock) as mine:
        if mine:
            _renew(keys, hostname, clock)
    return _found(keys)


async def keep_current(
    shown: ssl.SSLContext, records: RecordStore, hostname: str, node: str, clock: Clock = wall_clock
) -> None:
    """Have those who connect see what the store has, until cancelled. Where it is away, what was shown stays."""
    pem: bytes | None = None
    why: type[Exception] | None = None
    """Why it was last said that the certificate stays as it is: once for each trouble, and not each half minute."""
    while True:
        try:
            found = await trio.to_thread.run_sync(look, records, hostname, node, clock)
        except (StoreUnavailable, CertificateUnfit) as error:
            if type(error) is not why:
                _log.warning("our own certificate stays as it is: %s", error)
            why = type(error)
        else:
            if why is not None:
                _log.info("our own certificate can be looked at again")
            why = None
            if found is not None and found != pem:
                pem = found
                show(shown, found)
        await trio.sleep(LOOK_S)


def show(context: ssl.SSLContext, pem: bytes) -> None:
    """Have a context show this certificate from the next handshake on."""
    with _in_memory(pem) as path:
        context.load_cert_chain(path, path)


def _renew(keys: ClusterKeys, hostname: str, clock: Clock) -> None:
    """Make the next one, unless somebody else has since it was looked at."""
    seen = keys.get(OWN_CERTIFICATE)
    if seen is None or not _due(seen.octets, hostname, clock):
        return
    certificate = usable(seen.octets)
    # The other nodes have names of their own, and each wants to find its own there.
    others = [name for name in names_of(certificate) if name != hostname] if certificate else []
    pem = self_signed(hostname, _time(clock()), others[: MOST_NAMES - 1])
    if keys.replace(OWN_CERTIFICATE, seen, pem):
        _log.info("our own certificate has been made anew, for %s", ", ".join((hostname, *others)))


def _due(pem: bytes, hostname: str, clock: Clock) -> bool:
    certificate = usable(pem)
    return certificate is None or is_due(certificate, hostname, _time(clock()))


def _found(keys: ClusterKeys) -> bytes | None:
    try:
        kept = keys.get(OWN_CERTIFICATE)
    except Damaged:
        raise CertificateUnfit(
            f"what cluster_keys has under {OWN_CERTIFICATE!r} does not open any more: take that row out of the "
            "database, and another certificate is made"
        ) from None
    return None if kept is None else kept.octets


def _time(instant: int) -> datetime:
    return datetime.fromtimestamp(instant / 1000, UTC)


@contextmanager
def _in_memory(pem: bytes) -> Iterator[Path]:
    """A file with these octets for the block, which no disk has: OpenSSL reads certificates from nothing else."""
    with os.fdopen(os.memfd_create(OWN_CERTIFICATE, os.MFD_CLOEXEC), "wb") as file:
        file.write(pem)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")
