"""Secrets are files: handed over by systemd, or in `secrets/` of the data directory, and for their owner's eyes only.

Three kinds live here. *Keys* are 32 random octets that the appliance makes itself at first use (such as `log.key` and
`spool.key`; `appliance.run.stores` has all their names). *Passwords and tokens* are texts that the operator puts there.
And one text the appliance makes itself: the certificate with its key that it has where nobody gave it another
(`tls.pem`). None of them is ever in the configuration, in the environment, in a log or in an answer of the API.

Nodes that share a store have their keys and that text in it (`appliance.run.cluster_keys`), and here the one key that
opens them.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.privacy.sealing import KEY_OCTETS
from appliance.storage.directory import (
    PRIVATE_DIRECTORY_MODE,
    PRIVATE_FILE_MODE,
    make_private_directory,
    sync_directory,
)

MAX_SECRET_OCTETS = 65536
"""A password, a token or a PEM file is smaller; anything larger is the wrong file."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# systemd gives the service's user access by an ACL, and the group bits of such a file show the mask of the ACL: r--.
_OTHERS_THAN_SYSTEMD = _OTHERS & ~stat.S_IRGRP


class SecretRefused(Exception):
    """A secret that can't be used as it is. The text says what to do."""


class Secrets:
    """The secrets of one appliance. What systemd hands over comes before what the data directory holds."""

    def __init__(self, data_dir: Path, credentials_directory: Path | None) -> None:
        """`credentials_directory` is what systemd names in `$CREDENTIALS_DIRECTORY`; None without it."""
        self._own = data_dir / "secrets"
        self._handed_over = credentials_directory

    def key(self, name: str) -> bytes:
        """The 32 octets of this key, from `<name>.key`; made at the first use.

        Two processes that ask at once get the same key. Once it has been returned, it survives a power failure: it may
        be used. Raises SecretRefused, or OSError where the directory can't be written.
        """
        file_name = f"{_checked(name)}.key"
        handed_over = self._from_systemd(file_name)
        if handed_over is not None:
            return _whole_key(*handed_over)
        make_private_directory(self._own)
        with self._locked():
            path = self._own / file_name
            found = _read(path, _OTHERS)
            if found is None:
                self._write(path, os.urandom(KEY_OCTETS))
                found = _read(path, _OTHERS)
            if found is None:
                raise SecretRefused(f"{path} was removed while it was being made: start again")
            return _whole_key(path, found)

    def keys(self, names: Iterable[str]) -> dict[str, bytes]:
        """The same for several, by name."""
        return {name: self.key(name) for name in names}

    def keep(self, name: str, octets: bytes) -> None:
        """Write a key that was made elsewhere. Raises SecretRefused where there is another one; OSError."""
        file_name = f"{_checked(name)}.key"
        make_private_directory(self._own)
        with self._locked():
            path = self._own / file_name
            found = _read(path, _OTHERS)
            if found is None:
                self._write(path, octets)
            elif found != octets:
                raise SecretRefused(f"{path} is another key than the one to be kept there: move it away")

    def file_of(self, name: str) -> Path:
        """Where the key of this name is, or will be once it is made."""
        file_name = f"{_checked(name)}.key"
        handed_over = self._from_systemd(file_name)
        return self._own / file_name if handed_over is None else handed_over[0]

    def load(self, name: str) -> str | None:
        """The text of this secret, without the line end behind it; None where there is no such file."""
        _checked(name)
        path, octets = self._from_systemd(name) or (self._own / name, self._from_own(name))
        if octets is None:
            return None
        try:
            return octets.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise SecretRefused(f"{path} is not text in UTF-8: write the secret into it as one line") from None

    def renewed(self, name: str, renew: Callable[[bytes | None], bytes | None]) -> Path:
        """The file of a secret that the appliance makes itself, and makes again when it is out of date.

        `renew` gets what is there (None for nothing), and returns what shall be there instead, or None to leave it.
        One that systemd hands over is taken as it is. Raises SecretRefused, or OSError as `key` does.
        """
        handed_over = self._from_systemd(_checked(name))
        if handed_over is not None:
            return handed_over[0]
        make_private_directory(self._own)
        with self._locked():
            path = self._own / name
            octets = renew(_read(path, _OTHERS))
            if octets is not None:
                self._write(path, octets)
        return path

    def exists(self, name: str) -> bool:
        """Whether the key of this name has been made already. Where not, nothing sealed under it can be opened."""
        file_name = f"{_checked(name)}.key"
        return self._from_systemd(file_name) is not None or self._from_own(file_name) is not None

    def missing(self, names: Iterable[str]) -> list[str]:
        """Which of these keys have not been made yet. Makes none."""
        return [name for name in names if not self.exists(name)]

    def _from_systemd(self, file_name: str) -> tuple[Path, bytes] | None:
        if self._handed_over is None:
            return None
        path = self._handed_over / file_name
        octets = _read(path, _OTHERS_THAN_SYSTEMD)
        return None if octets is None else (path, octets)

    def _from_own(self, file_name: str) -> bytes | None:
        if not self._own.exists():
            return None
        self._check_directory()
        return _read(self._own / file_name, _OTHERS)

    def _check_directory(self) -> None:
        if stat.S_IMODE(self._own.stat().st_mode) & _OTHERS:
            raise SecretRefused(f"others can look into {self._own}: chmod {PRIVATE_DIRECTORY_MODE:o} {self._own}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A lock on the directory itself leaves no file behind, and ends with the process that holds it.
        self._check_directory()
        descriptor = os.open(self._own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, path: Path, octets: bytes) -> None:
        # One fixed name, written over by whoever comes next: a crash leaves no second copy of a key that is to be
        # destroyed one day.
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        unfinished.rename(path)
        sync_directory(path.parent)


def _read(path: Path, forbidden: int) -> bytes | None:
    """The octets of a file that nobody else can read; None where there is none. Raises SecretRefused."""
    try:
        # Not blocking: a FIFO in the place of a secret must not stop the start without a word.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SecretRefused(f"{path} can't be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        # The mode of what was opened, not of what the name stands for by now.
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise SecretRefused(f"{path} is not a file")
        if stat.S_IMODE(mode) & forbidden:
            raise SecretRefused(f"others can get at {path}: chmod {PRIVATE_FILE_MODE:o} {path}")
        octets = file.read(MAX_SECRET_OCTETS + 1)
    if len(octets) > MAX_SECRET_OCTETS:
        raise SecretRefused(f"{path} is larger than {MAX_SECRET_OCTETS} octets: that is not a secret")
    return octets


def _whole_key(path: Path, octets: bytes) -> bytes:
    if len(octets) != KEY_OCTETS:
        raise SecretRefused(
            f"{path} has {len(octets)} octets where a key has {KEY_OCTETS}: put the right file back, or remove it "
            "and lose what was sealed under it"
        )
    return octets


def _checked(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a secret")
    return name
