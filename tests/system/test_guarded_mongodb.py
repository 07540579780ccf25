"""An appliance on a MongoDB that speaks TLS only and wants to know who asks: mail flows, and the password is nowhere.

What is told where something of this is wrong has a test for each case in `tests/storage/test_mongo_entry.py`; here it
is what an operator gets to read.
"""

from collections.abc import Iterator
from pathlib import Path

import process_tree
import pytest
from appliance_process import Appliance, Settings, eventually
from certificates import authority_file, certificate_for
from mongod import Mongod, running_mongod
from world import World, letter

PASSWORD, WRONG_PASSWORD = "hunter2:éA", "hunter3:éB"
NEVER_SAID = ("hunter2", "hunter3")

TOWN = {"info@forward.test": ["info.box@dest.test"]}


@pytest.fixture(scope="module")
def mongod() -> Iterator[Mongod]:
    with running_mongod(tls=certificate_for("127.0.0.1"), options=["--auth"]) as server:
        with server.client() as client:
            client.admin.command("createUser", "root", pwd="root", roles=["root"])
        with server.client(username="root", password="root") as client:
            roles = [{"role": role, "db": "onward"} for role in ("readWrite", "dbAdmin")]
            client["onward"].command("createUser", "onward", pwd=PASSWORD, roles=roles)
        yield server


def store(mongod: Mongod, authority: Path) -> Settings:
    return {"store": {"url": f"mongodb://onward@{mongod.address}/onward?tls=true&tlsCAFile={authority}"}}


def write_password(directory: Path, password: str) -> None:
    secrets = directory / "var" / "secrets"
    for each in (secrets.parent, secrets):
        each.mkdir(mode=0o700, exist_ok=True)
    file = secrets / "mongodb-password"
    file.touch(mode=0o600)
    file.write_text(f"{password}\n", encoding="utf-8")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("appliance")


@pytest.fixture(scope="module")
def world(directory: Path, mongod: Mongod) -> Iterator[World]:
    write_password(directory, PASSWORD)
    with World(directory, TOWN, store(mongod, authority_file())) as world:
        yield world


def printed(appliance: Appliance, *commands: str) -> str:
    """All that these commands print, however they end."""
    found = [appliance.cli(*command.split()) for command in commands]
    return "".join(each.out + each.err for each in found)


def say_it(said: str) -> list[str]:
    return [each for each in NEVER_SAID if each in said]


def test_mail_flows_and_the_password_is_nowhere(world: World, directory: Path) -> None:
    assert world.send("info@forward.test").code == 250
    assert world.arrived("info.box@dest.test")[0].content.endswith(letter("info@forward.test"))
    appliance = world.appliance
    printing = ("check", "status --json", "queue list", "log", "account list")
    assert say_it(printed(appliance, *printing)) == []
    assert say_it(appliance.said()) == []
    for pid in process_tree.descendants(appliance.pid):
        for name in ("cmdline", "comm", "environ"):
            assert say_it(Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace")) == []
    for file in directory.rglob("*"):
        if file.is_file() and file.name != "mongodb-password":
            assert say_it(file.read_bytes().decode("utf-8", "replace")) == [], file


@pytest.mark.parametrize(
    ("password", "is_believed", "told"),
    [
        (WRONG_PASSWORD, True, "the user in store.url is not known there"),
        (PASSWORD, False, "tlsCAFile in store.url has to name the certificate of who has signed it"),
    ],
    ids=["wrong password", "wrong authority"],
)
def test_what_is_wrong_is_told_by_the_check_and_at_the_start(
    world: World, mongod: Mongod, directory: Path, password: str, is_believed: bool, told: str
) -> None:
    appliance = world.appliance
    assert appliance.stop() == 0
    write_password(directory, password)
    another = certificate_for("127.0.0.1", self_signed=True).certificate
    appliance.configure(store(mongod, authority_file() if is_believed else another))
    try:
        checked = appliance.cli("check")
        assert checked.status == 1
        assert told in checked.out
        assert say_it(checked.out + checked.err) == []
        with pytest.raises(AssertionError, match="the appliance ended with status 1") as ended:
            appliance.start()
        assert told in str(ended.value)
        assert say_it(str(ended.value)) == []
    finally:
        write_password(directory, PASSWORD)
        appliance.configure(store(mongod, authority_file()))
        appliance.start()


def test_a_password_that_is_changed_under_a_running_appliance_is_told(world: World, mongod: Mongod) -> None:
    """Who is let in no more says why, again and again, and takes mail again as soon as he is."""
    appliance = world.appliance

    def change(password: str) -> None:
        with mongod.client(username="root", password="root") as client:
            client["onward"].command("updateUser", "onward", pwd=password)
        # Who is in stays in: connections are made anew.
        mongod.stop()
        mongod.start()

    change(WRONG_PASSWORD)
    try:
        eventually(lambda: world.send("info@forward.test").code == 451, 30, "no mail is taken")
        eventually(lambda: appliance.http("/health/ready")[0] == 503, 30, "it is not ready", every=0.2)
        eventually(lambda: "the user in store.url is not known there" in appliance.said(), 30, "it says why")
    finally:
        change(PASSWORD)
    eventually(lambda: world.send("info@forward.test").code == 250, 30, "mail is taken")
    eventually(lambda: appliance.http("/health/ready")[0] == 200, 30, "it is ready", every=0.2)
    assert say_it(appliance.said()) == []
    assert world.objections() == []
