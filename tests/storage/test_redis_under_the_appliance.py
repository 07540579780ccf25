"""The whole appliance with a Redis: who is signed in stays so, and whatever happens to the Redis, mail goes on."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import eventually
from destination_scripts import Answer, Stage, always
from graphql_client import GraphqlClient, Reply
from redis_server import PrivateRedis, missing
from smtp_client import Closed
from world import World

EMAIL = "ada@people.test"
PASSWORD = "correct horse"
TOWN = {
    **{f"{name}@forward.test": [f"{name}.spooled@dest.test"] for name in ("killed", "hung", "full")},
    **{f"{name}@transit.test": [f"{name}.transit@dest.test"] for name in ("killed", "hung", "full")},
    "pair@transit.test": ["here.pair@dest.test", "later.pair@dest.test"],
    "gone@forward.test": ["gone.box@dest.test"],
}
DOMAINS = {"transit.test": ("--mode", "transit")}
LONG_SENDER = f"{'x' * 60}@sender.test"
"""Too long to be carried in a rewritten address: it is looked up by its token."""

BOUND_S = 10
"""Within so many seconds all is well again; and no longer does a message take while the Redis is away."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    if missing():
        pytest.skip(missing())
    with PrivateRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def world(redis: PrivateRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = {"store": {"ephemeral": redis.url}}
    with World(tmp_path_factory.mktemp("world"), TOWN, settings, DOMAINS) as world:
        added = world.appliance.cli("account", "add", EMAIL, "--password-stdin", stdin=f"{PASSWORD}\n")
        assert added.status == 0, added.err
        yield world
        assert world.objections() == []


def signing_in(browser: GraphqlClient) -> Reply:
    """What the attempt is answered."""
    asked = "mutation ($e: String!, $p: String!) { signIn(email: $e, password: $p) { errors { message } } }"
    return browser.ask(asked, e=EMAIL, p=PASSWORD)


def sign_in(world: World) -> dict[str, str]:
    """The cookies of somebody who has signed in, once that can be done."""

    def look() -> dict[str, str] | None:
        with GraphqlClient(world.appliance.http_port) as browser:
            answer = signing_in(browser).json
            return dict(browser.cookies) if "errors" not in answer and not answer["data"]["signIn"]["errors"] else None

    return eventually(look, BOUND_S, "a session")


def who(world: World, cookies: dict[str, str]) -> str | None:
    """Who is behind these; or what it is that keeps us from knowing."""
    with GraphqlClient(world.appliance.http_port, cookies=dict(cookies)) as browser:
        answer = browser.ask("{ viewer { email } }")
        if answer.codes:
            return str(answer.codes[0])
        viewer = answer.json["data"]["viewer"]
        return None if viewer is None else str(viewer["email"])


def mail_goes_on(world: World, name: str) -> None:
    """In both modes, and nobody waits for long."""
    began = time.monotonic()
    assert world.send(f"{name}@forward.test").code == 250
    assert world.send(f"{name}@transit.test").code == 250
    assert time.monotonic() - began < BOUND_S
    world.arrived(f"{name}.spooled@dest.test")
    world.arrived(f"{name}.transit@dest.test")


def test_who_is_signed_in_stays_so_when_the_processes_start_anew(world: World) -> None:
    cookies = sign_in(world)
    assert who(world, cookies) == EMAIL
    _, control = world.appliance.children()
    os.kill(control, signal.SIGKILL)

    def is_served() -> bool:
        try:
            return who(world, cookies) == EMAIL
        except OSError:
            return False

    eventually(is_served, 30, "the control process")
    world.appliance.restart()
    assert who(world, cookies) == EMAIL
    key = Path(world.appliance.data_dir) / "secrets" / "ephemeral.key"
    assert key.stat().st_mode & 0o777 == 0o600


def test_emptying_the_redis_signs_people_out_and_they_sign_in_again(world: World, redis: PrivateRedis) -> None:
    cookies = sign_in(world)
    redis.ask("FLUSHALL")
    assert who(world, cookies) is None
    assert who(world, sign_in(world)) == EMAIL


def test_what_lies_in_the_redis_names_nobody(world: World, redis: PrivateRedis) -> None:
    redis.ask("FLUSHALL")
    sign_in(world)
    with GraphqlClient(world.appliance.http_port) as browser:
        browser.ask('mutation { requestPasswordReset(email: "nobody@people.test") { errors { message } } }')
    world.send("full@transit.test", sender=LONG_SENDER)
    names = redis.ask("KEYS", "*")
    octets = b"".join(names)
    for name in names:
        if redis.ask("TYPE", name) == b"string":
            octets += redis.ask("GET", name)
        else:
            octets += b"".join(redis.ask("ZRANGE", name, 0, -1))
    assert {name.split(b":")[1] for name in names} >= {b"sessions", b"letters_asked_for", b"transit_return_paths"}
    for word in (b"people", b"ada", b"nobody", b"sender", b"xxxx", b"dest.test", b"full", b"127.0.0"):
        assert word not in octets


def test_a_retry_in_transit_is_known_to_an_engine_that_was_started_anew(world: World) -> None:
    world.mailbox_says(always(Stage.END_OF_DATA, Answer(451, "4.2.1 Busy"), recipient="later.pair@dest.test", times=1))
    assert world.send("pair@transit.test").code == 451
    engine, _ = world.appliance.children()
    os.kill(engine, signal.SIGKILL)

    def is_taken() -> bool:
        try:
            return world.send("pair@transit.test").code == 250
        except (OSError, Closed):
            return False

    eventually(is_taken, 30, "the engine")
    assert len(world.arrived("later.pair@dest.test")) == 1
    assert len(world.main.for_recipient("here.pair@dest.test")) == 1


@pytest.mark.parametrize("how", ["killed", "hung", "full"])
def test_while_the_redis_is_away_mail_goes_on_and_nobody_signs_in(world: World, redis: PrivateRedis, how: str) -> None:
    cookies = sign_in(world)
    match how:
        case "killed":
            redis.kill()
        case "hung":
            redis.hold()
        case "full":
            redis.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        mail_goes_on(world, how)
        with GraphqlClient(world.appliance.http_port) as browser:
            assert signing_in(browser).codes == ["UNAVAILABLE"]
            # What needs no session is answered.
            assert browser.data("{ status { healthy } }") == {"status": {"healthy": True}}
        assert who(world, cookies) == (EMAIL if how == "full" else "UNAVAILABLE")
        # Of this store alone: the engine takes mail.
        told = {"ready": False, "engine": "ready", "away": ["ephemeral"]}
        assert world.appliance.http("/health/ready") == (503, told)
    finally:
        match how:
            case "killed":
                redis.start()
            case "hung":
                redis.let_go()
            case "full":
                redis.ask("CONFIG", "SET", "maxmemory", 0)
    sign_in(world)
    assert world.appliance.http("/health/ready") == (200, {"ready": True, "engine": "ready"})
    eventually(lambda: who(world, cookies) == (None if how == "killed" else EMAIL), BOUND_S, "the session")


def test_a_report_to_a_sender_whom_the_spool_knows_needs_no_redis(world: World, redis: PrivateRedis) -> None:
    assert world.send("gone@forward.test", sender=LONG_SENDER).code == 250
    (message,) = world.arrived("gone.box@dest.test")
    with redis.held():
        assert world.ask(message.sender, sender="").code == 250


def test_a_token_that_nobody_can_look_up_is_asked_for_again(world: World, redis: PrivateRedis) -> None:
    """Only the Redis knows the senders of transit; while it is away nobody may say that there is none."""
    assert world.send("full@transit.test", sender=LONG_SENDER).code == 250
    token = world.main.for_recipient("full.transit@dest.test")[-1].sender
    with redis.held():
        assert world.ask(token, sender="").code == 451
    eventually(lambda: world.ask(token, sender="").code == 250, BOUND_S)
