"""What the operator gets wrong, and what they are told: a line, a status, and nothing broken."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import Appliance
from world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("bad-input"), {"ok@forward.test": ["ok.box@dest.test"]}) as world:
        yield world
        assert world.objections() == []


def refusal(appliance: Appliance, within: float = 20) -> tuple[int, str]:
    """The status and the words of an appliance that does not start."""
    since = len(appliance.said())
    process = appliance.spawn("run")
    try:
        status = process.wait(timeout=within)
    finally:
        process.kill()
        process.wait()
    return status, appliance.said()[since:].strip()


def test_second_appliance_on_the_same_data(world: World) -> None:
    second = Appliance(
        world.appliance.directory / "second",
        nameserver="127.0.0.1:53",
        delivery_port=25,
        settings={"": {"data_dir": str(world.appliance.data_dir)}},
    )
    status, words = refusal(second)
    assert status == 1
    assert len(words.splitlines()) == 1
    assert "another appliance" in words
    assert str(world.appliance.data_dir) in words
    assert world.send("ok@forward.test").code == 250


@pytest.mark.parametrize("section", ["smtp", "http"])
def test_port_in_use(world: World, tmp_path: Path, section: str) -> None:
    taken = f"127.0.0.1:{world.appliance.smtp_port}"
    second = Appliance(tmp_path, nameserver="127.0.0.1:53", delivery_port=25, settings={section: {"listen": [taken]}})
    status, words = refusal(second)
    assert status == 1
    assert len(words.splitlines()) == 1
    assert taken in words


def test_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    place = tmp_path / "file" / "var"
    appliance = Appliance(
        tmp_path, nameserver="127.0.0.1:53", delivery_port=25, settings={"": {"data_dir": str(place)}}
    )
    status, words = refusal(appliance)
    assert status == 1
    assert len(words.splitlines()) == 1
    assert str(place) in words
    cli = appliance.cli("account", "list")
    assert cli.status == 1
    assert len(cli.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "key", "line", "right"),
    [
        ('hostname = "mx.test"\nhostnam = "x"\n', "hostnam", 2, "hostname"),
        ('[smtp]\nlisten = ["127.0.0.1:0"]\n\nmax_mesage_size = "1 MiB"\n', "max_mesage_size", 4, "max_message_size"),
        ('[smtp]\nmax_message_size = "many"\n', "max_message_size", 2, "MiB"),
        ("[smtp]\nmax_recipients = 3\n", "max_recipients", 2, "100"),
        ('[smtp]\nmax_connections = "20"\n', "max_connections", 2, "number"),
        ('\n[delivery]\nretry = ["soon"]\n', "retry", 3, "1h30m"),
        ("[delivery]\nport = 70000\n", "port", 2, "65535"),
        ('[delivery]\nmode = "fast"\n', "mode", 2, "spool"),
        ('[log]\nlevel = "all"\n', "level", 2, "events"),
        ('[dns]\nnameservers = ["not an address"]\n', "nameservers", 2, "127.0.0.1:5353"),
        ("[smpt]\nlisten = []\n", "smpt", 1, "smtp"),
        ('[forwarding]\nsrs_domain = "not a domain"\n', "srs_domain", 2, ""),
        ("[smtp\n", "", 1, ""),
    ],
)
def test_configuration_that_is_wrong(tmp_path: Path, text: str, key: str, line: int, right: str) -> None:
    appliance = Appliance(tmp_path, nameserver="127.0.0.1:53", delivery_port=25)
    appliance.config.write_text(text)
    status, words = refusal(appliance)
    assert status == 2, words
    assert key in words
    assert right in words
    assert re.search(rf"line {line}\b", words) or f":{line}" in words, words
    assert "Traceback" not in words
    assert appliance.cli("domain", "list").status == 2


@pytest.mark.parametrize(
    "command",
    [
        ("alias", "add", "x@forward.test", "nonsense", "--confirmed"),
        ("alias", "add", "x@forward.test", "two@@dest.test", "--confirmed"),
        ("alias", "add", "x@forward.test", "spaced box@dest.test", "--confirmed"),
        ("alias", "add", "x@forward.test", "box@dest.test", "--action", "reject"),
        ("alias", "add", "x@nowhere.test", "box@dest.test", "--confirmed"),
        ("alias", "add", "x@forward.test", "--confirmed"),
        ("alias", "add", "ok@forward.test", "box@dest.test", "--confirmed"),
        ("alias", "remove", "nobody@forward.test"),
        ("domain", "add", "not_a domain", "--account", "owner@people.test", "--verified"),
        ("domain", "add", "bad-.test", "--account", "owner@people.test", "--verified"),
        ("domain", "add", "forward.test", "--account", "owner@people.test", "--verified"),
        ("domain", "add", "new.test", "--account", "nobody@people.test", "--verified"),
        ("account", "add", "not-an-address"),
        ("account", "add", "owner@people.test"),
    ],
)
def test_refused_command_says_why_in_a_line(world: World, command: tuple[str, ...]) -> None:
    refused = world.appliance.cli(*command)
    assert refused.status == 1
    assert refused.out == ""
    assert len(refused.err.splitlines()) == 1
    assert refused.err.startswith("onward: ")
