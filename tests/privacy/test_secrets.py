"""Secrets are files for their owner alone, and a key is made once."""

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.privacy.sealing import KEY_OCTETS
from appliance.privacy.secrets import MAX_SECRET_OCTETS, SecretRefused, Secrets


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """One that does not exist yet."""
    return tmp_path / "var"


@pytest.fixture
def secrets(data_dir: Path) -> Secrets:
    """Of an appliance that was never started."""
    return Secrets(data_dir, None)


@pytest.fixture
def lax_umask() -> Iterator[None]:
    """As a careless shell has it."""
    before = os.umask(0)
    yield
    os.umask(before)


def write(path: Path, octets: bytes, mode: int = 0o600) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(octets)
    path.chmod(mode)


def test_a_key_is_made_at_first_use_and_stays(secrets: Secrets, data_dir: Path) -> None:
    assert not secrets.exists("log")
    key = secrets.key("log")
    assert len(key) == KEY_OCTETS
    assert secrets.exists("log")
    assert secrets.key("log") == key == Secrets(data_dir, None).key("log")
    assert secrets.key("spool") != key
    assert (data_dir / "secrets" / "log.key").read_bytes() == key


def test_whether_a_key_exists_is_asked_without_making_it(secrets: Secrets, data_dir: Path) -> None:
    assert not secrets.exists("log")
    assert secrets.load("smarthost-password") is None
    assert not data_dir.exists()


def test_which_keys_are_missing_is_asked_without_making_any(secrets: Secrets, data_dir: Path) -> None:
    assert secrets.missing(["log", "srs"]) == ["log", "srs"]
    assert not data_dir.exists()
    key = secrets.key("log")
    assert secrets.missing(["log", "srs"]) == ["srs"]
    assert secrets.keys(["log"]) == {"log": key}


def test_a_key_that_was_made_elsewhere_is_kept_and_overwrites_none(secrets: Secrets, data_dir: Path) -> None:
    secrets.keep("log", b"l" * KEY_OCTETS)
    secrets.keep("log", b"l" * KEY_OCTETS)
    path = data_dir / "secrets" / "log.key"
    assert secrets.file_of("log") == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(SecretRefused, match=f"{path} is another key"):
        secrets.keep("log", b"x" * KEY_OCTETS)
    assert secrets.key("log") == b"l" * KEY_OCTETS


def test_where_a_key_is_says_whether_systemd_hands_it_over(data_dir: Path, tmp_path: Path) -> None:
    write(tmp_path / "credentials" / "log.key", bytes(KEY_OCTETS))
    secrets = Secrets(data_dir, tmp_path / "credentials")
    assert secrets.file_of("log") == tmp_path / "credentials" / "log.key"
    assert secrets.file_of("srs") == data_dir / "secrets" / "srs.key"


def test_keys_and_their_directory_are_for_the_owner_only(secrets: Secrets, data_dir: Path, lax_umask: None) -> None:
    secrets.key("srs")
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((data_dir / "secrets").stat().st_mode) == 0o700
    (file,) = (data_dir / "secrets").iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == ("srs.key", 0o600)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610])
def test_a_secret_that_others_can_read_is_refused_with_the_cure(secrets: Secrets, data_dir: Path, mode: int) -> None:
    secrets.key("log")
    path = data_dir / "secrets" / "log.key"
    path.chmod(mode)
    write(data_dir / "secrets" / "password", b"x", mode)
    for ask, name in ((secrets.key, "log.key"), (secrets.exists, "log.key"), (secrets.load, "password")):
        with pytest.raises(SecretRefused, match=f"chmod 600 {data_dir / 'secrets' / name}$"):
            ask(name.removesuffix(".key"))
    path.chmod(0o600)
    assert len(secrets.key("log")) == KEY_OCTETS


def test_a_directory_that_others_can_look_into_is_refused_with_the_cure(secrets: Secrets, data_dir: Path) -> None:
    secrets.key("log")
    (data_dir / "secrets").chmod(0o755)
    for ask in (secrets.key, secrets.exists, secrets.load):
        with pytest.raises(SecretRefused, match=f"chmod 700 {data_dir / 'secrets'}$"):
            ask("log")


@pytest.mark.parametrize("octets", [b"", b"x" * 31, b"x" * 33])
def test_a_key_that_is_not_whole_is_refused_and_never_replaced(secrets: Secrets, data_dir: Path, octets: bytes) -> None:
    path = data_dir / "secrets" / "log.key"
    write(path, octets)
    with pytest.raises(SecretRefused, match=f"{path} has {len(octets)} octets where a key has 32"):
        secrets.key("log")
    assert path.read_bytes() == octets


def test_a_crash_while_a_key_was_made_leaves_nothing_in_the_way(secrets: Secrets, data_dir: Path) -> None:
    write(data_dir / "secrets" / ".log.key.unfinished", b"half a key", 0o644)
    key = secrets.key("log")
    assert len(key) == KEY_OCTETS
    assert [path.name for path in (data_dir / "secrets").iterdir()] == ["log.key"]


def test_a_key_is_durable_before_it_is_used(secrets: Secrets, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced under its first name, and its directory once it has the last one; and those above it too."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        if synced[-1] == "secrets":
            assert (data_dir / "secrets" / "log.key").exists()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    secrets.key("log")
    assert synced == [data_dir.parent.name, "var", ".log.key.unfinished", "secrets"]


def test_threads_that_start_at_once_get_the_same_key(data_dir: Path) -> None:
    start = threading.Barrier(8)
    keys: set[bytes] = set()

    def work() -> None:
        start.wait()
        keys.add(Secrets(data_dir, None).key("log"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 1


def test_processes_that_start_at_once_get_the_same_keys(data_dir: Path) -> None:
    root = Path(__file__).parents[2]
    program = (
        "import sys; from pathlib import Path; from appliance.privacy.secrets import Secrets\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "secrets = Secrets(Path(sys.argv[1]), None)\n"
        "print(b''.join(secrets.key(f'k{n}') for n in range(20)).hex())"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(data_dir)],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = {child.communicate(timeout=30)[0] for child in children}
    assert len(answers) == 1
    assert len(answers.pop()) == 2 * 20 * KEY_OCTETS + 1


# ------------------------------------------------------------------ texts, and what systemd hands over


def test_a_text_is_loaded_without_its_line_end(secrets: Secrets, data_dir: Path) -> None:
    for octets, text in (
        (b"pass word\n", "pass word"),
        (b"x\r\n", "x"),
        (b"\xc3\xbc", "ü"),
        (b"a\nb\n", "a\nb"),
        (b"", ""),
    ):
        write(data_dir / "secrets" / "password", octets)
        assert secrets.load("password") == text


def test_a_text_that_is_none_is_refused(secrets: Secrets, data_dir: Path) -> None:
    write(data_dir / "secrets" / "password", b"\xff")
    with pytest.raises(SecretRefused, match="is not text in UTF-8"):
        secrets.load("password")
    write(data_dir / "secrets" / "password", b"x" * (MAX_SECRET_OCTETS + 1))
    with pytest.raises(SecretRefused, match="is larger than"):
        secrets.load("password")
    os.mkfifo(data_dir / "secrets" / "pipe", 0o600)
    with pytest.raises(SecretRefused, match="is not a file"):
        secrets.load("pipe")


def test_what_systemd_hands_over_comes_first(tmp_path: Path, data_dir: Path) -> None:
    credentials = tmp_path / "credentials"
    # As systemd leaves it where it gives access by an ACL: the group bits show the mask.
    write(credentials / "log.key", b"k" * KEY_OCTETS, 0o440)
    write(credentials / "password", b"from systemd\n", 0o400)
    Secrets(data_dir, None).key("log")
    write(data_dir / "secrets" / "password", b"our own\n")
    write(data_dir / "secrets" / "token", b"only here\n")
    secrets = Secrets(data_dir, credentials)
    assert secrets.key("log") == b"k" * KEY_OCTETS
    assert secrets.load("password") == "from systemd"
    assert secrets.load("token") == "only here"
    assert secrets.exists("log")
    assert not secrets.exists("spool")
    assert secrets.key("spool") == (data_dir / "secrets" / "spool.key").read_bytes()
    (credentials / "log.key").chmod(0o444)
    with pytest.raises(SecretRefused, match="chmod 600"):
        secrets.key("log")


def test_a_credential_needs_no_directory_of_our_own(tmp_path: Path, data_dir: Path) -> None:
    write(tmp_path / "credentials" / "log.key", b"k" * KEY_OCTETS)
    assert Secrets(data_dir, tmp_path / "credentials").key("log") == b"k" * KEY_OCTETS
    assert not data_dir.exists()


@pytest.mark.parametrize("name", ["", ".hidden", "../log", "a/b", "a\0b"])
def test_a_name_stays_within_the_directory(secrets: Secrets, name: str) -> None:
    for ask in (secrets.key, secrets.load, secrets.exists):
        with pytest.raises(ValueError, match="is not the name of a secret"):
            ask(name)
