"""The supervisor, with real children: start, faults, the configuration read again, and the end."""

import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from supervised import STAND_IN, Supervised, greeting, is_running, until

from appliance.delivery.next_hop import MAX_CONNECTIONS, MAX_GOODBYES
from appliance.delivery.scheduler import MAX_COURIERS
from appliance.run import doubts
from appliance.run.child import (
    AWAY_DELAY_S,
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    STORE_IS_AWAY,
    YOUNG_S,
    delay_after,
)
from appliance.run.listeners import ENGINE_BACKLOG
from appliance.run.process import MOST_DESCRIPTORS


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "onward.toml"
    write(file)
    return file


def write(file: Path, hostname: str = "mx.example.org", smtp: str = '"127.0.0.1:0"') -> None:
    file.write_text(
        f'hostname = "{hostname}"\ndata_dir = "{file.parent}/var"\n[smtp]\nlisten = [{smtp}]\n'
        '[http]\nlisten = ["127.0.0.1:0"]\n'
    )


def health(port: int, path: str = "/health/ready") -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_it_says_what_listens_and_then_that_it_is_ready(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        ports = appliance.ready()
        assert greeting(ports["smtp"][0])[1] == "mx.example.org"
        assert health(ports["http"][0]) == (200, {"ready": True, "engine": "ready"})
        assert health(ports["http"][0], "/health/live") == (200, {"live": True})
        assert len(appliance.children()) == 2


def test_the_data_directory_is_for_nobody_else(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        data_dir = config.parent / "var"
        modes = {path: path.stat().st_mode & 0o777 for path in (data_dir, *data_dir.rglob("*"))}
        assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in modes}
        assert {"lock", "engine.sock", "control.sock", "records.sqlite"} <= {path.name for path in modes}


def test_no_process_can_leave_a_core(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        for pid in (appliance.process.pid, *appliance.children()):
            limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
            assert [line.split()[4:6] for line in limits if line.startswith("Max core file size")] == [["0", "0"]]


def test_nor_can_one_be_handed_to_a_program_that_writes_it_down() -> None:
    """The limit counts for files. Where core_pattern is a pipe, it is this flag that counts (core(5))."""
    script = """
import ctypes
from appliance.run.process import forbid_core_dumps
forbid_core_dumps()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_both_and_leaves_nothing(
    config: Path, number: signal.Signals, kill: Callable[[int, int], None]
) -> None:
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        children = appliance.children()
        # To it alone, as systemd does it; or to the whole group, as a terminal and timeout(1) do it.
        kill(appliance.process.pid, number)
        assert appliance.ended() == 0
        assert not any(is_running(child) for child in children)
        assert not list((config.parent / "var").glob("*.sock"))
        assert not any("died" in line for line in appliance.said)


def test_the_engine_ends_before_the_control_process(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        ports = appliance.ready()
        greeting(ports["smtp"][0], b"STUBBORN")
        appliance.signal(signal.SIGTERM)
        # The engine takes its time, and whoever asks for health still gets an answer.
        assert health(ports["http"][0], "/health/live") == (200, {"live": True})
        assert len(appliance.children()) == 2


def test_a_second_ctrl_c_hurries_but_the_echo_of_the_first_does_not(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        ports = appliance.ready()
        greeting(ports["smtp"][0], b"STUBBORN")
        appliance.signal(signal.SIGINT)
        appliance.signal(signal.SIGINT)
        assert health(ports["http"][0], "/health/live") == (200, {"live": True})

        def insisted() -> bool:
            appliance.signal(signal.SIGINT)
            return appliance.process.poll() is not None

        until(insisted, "the end of an appliance whose engine ignores SIGTERM")
        assert appliance.ended() == 1
        assert any("engine process has not ended in time and is killed" in line for line in appliance.said)


@pytest.mark.parametrize("command", [b"CRASH", b"RAISE"])
def test_an_engine_that_dies_is_started_again(config: Path, command: bytes) -> None:
    with Supervised.stand_in(config) as appliance:
        port = appliance.ready()["smtp"][0]
        first, _ = greeting(port, command)
        how = appliance.line(r".* error supervisor: the engine process died how=(.*) lived_s=.* starts_again_in_s=0")[1]
        assert how == '"status 3"' if command == b"CRASH" else how.startswith('"status 1: ValueError at ')
        # Not refused, whether the next one is there already or not: the socket is the supervisor's.
        second, _ = greeting(port)
        assert second != first
        appliance.line(".*the engine process is ready again")
        # What an error of a process that has seen mail says may be made of mail.
        assert not any("somebody@example.org" in line for line in appliance.said)


def test_a_control_process_that_dies_is_started_again_and_the_engine_stays(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        ports = appliance.ready()
        engine, _ = greeting(ports["smtp"][0])
        (control,) = set(appliance.children()) - {engine}
        os.kill(control, signal.SIGKILL)
        appliance.line('.*the control process died how="signal SIGKILL" .*')
        assert health(ports["http"][0])[0] == 200
        assert greeting(ports["smtp"][0])[0] == engine


class OverSocket(http.client.HTTPConnection):
    """HTTP to the operator's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


def locally(config: Path) -> tuple[int, object]:
    """What the control process says on the operator's socket."""
    connection = OverSocket(config.parent / "var/control.sock")
    try:
        connection.request("GET", "/graphql?query={status{healthy}}")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


HEALTHY = (200, {"data": {"status": {"healthy": True}}})


def test_the_operator_is_answered_over_http_on_a_socket_of_its_own(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        assert locally(config) == HEALTHY


def test_the_operator_is_not_refused_while_either_process_is_replaced(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        port = appliance.ready()["smtp"][0]
        engine, _ = greeting(port)
        (control,) = set(appliance.children()) - {engine}
        os.kill(control, signal.SIGKILL)
        assert locally(config) == HEALTHY, "it waits in the socket, which is the supervisor's"
        appliance.line(".*the control process is ready again")
        os.kill(engine, signal.SIGKILL)
        appliance.line(".*the engine process is ready again")
        assert locally(config) == HEALTHY
        appliance.signal(signal.SIGHUP)
        appliance.line(".*the configuration was read again and is in force")
        assert locally(config) == HEALTHY


def test_without_an_address_for_http_there_is_still_the_operator(config: Path) -> None:
    config.write_text(config.read_text().replace('[http]\nlisten = ["127.0.0.1:0"]', "[http]\nlisten = []"))
    with Supervised.stand_in(config) as appliance:
        assert "http" not in appliance.ready()
        assert locally(config) == HEALTHY


def test_sockets_that_a_killed_appliance_left_behind_are_replaced(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        children = appliance.children()
        appliance.process.kill()
        appliance.ended()
        until(lambda: not any(is_running(child) for child in children), "its children are gone, too")
    left = {path.name: path.stat().st_ino for path in (config.parent / "var").glob("*.sock")}
    assert set(left) == {"engine.sock", "control.sock"}
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        assert locally(config) == HEALTHY


def test_an_engine_that_hangs_is_not_called_ready(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        ports = appliance.ready()
        engine, _ = greeting(ports["smtp"][0])
        os.kill(engine, signal.SIGSTOP)
        try:
            answers = []
            # More than its socket lets wait: those behind them are told the same.
            asking = [
                threading.Thread(target=lambda: answers.append(health(ports["http"][0])))
                for _ in range(ENGINE_BACKLOG + 4)
            ]
            for each in asking:
                each.start()
            for each in asking:
                each.join()
            assert answers == [(503, {"ready": False, "engine": "unreachable"})] * len(asking)
            assert health(ports["http"][0], "/health/live")[0] == 200
        finally:
            os.kill(engine, signal.SIGCONT)
        until(lambda: health(ports["http"][0])[0] == 200, "an engine that goes on is ready again")


@pytest.mark.parametrize(("hard", "soft"), [(1 << 20, MOST_DESCRIPTORS), (5000, 5000)])
def test_as_many_files_can_be_open_as_may(config: Path, hard: int, soft: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        hard = soft = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with Supervised(["prlimit", f"--nofile=256:{hard}", sys.executable, STAND_IN, config]) as appliance:
        appliance.ready()
        for pid in (appliance.process.pid, *appliance.children()):
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (min(soft, hard), hard)
        assert not any("files can be open" in line for line in appliance.said)


def test_too_few_files_is_one_line_and_no_end(config: Path) -> None:
    with Supervised(["prlimit", "--nofile=256:1200", sys.executable, STAND_IN, config]) as appliance:
        appliance.line(
            ".* warning supervisor: only 1200 files can be open, and smtp.max_connections = 1000 may need 2700;.*"
        )
        appliance.ready()


@pytest.mark.parametrize(("smtp", "warned"), [('"0.0.0.0:0"', True), ('"127.0.0.1:0", "[::1]:0"', False)])
def test_a_name_without_a_domain_is_a_warning_where_others_see_it(config: Path, smtp: str, warned: bool) -> None:
    write(config, hostname="box", smtp=smtp)
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        assert any("the hostname box has no domain" in line for line in appliance.said) == warned


def test_a_killed_supervisor_leaves_no_orphans_and_the_next_one_starts(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        children = appliance.children()
        appliance.process.kill()
        with Supervised.stand_in(config) as successor:
            successor.ready()
            assert not any(is_running(child) for child in children)


def test_a_child_that_cannot_start_ends_it_with_its_last_words(config: Path) -> None:
    # With the warnings of Python on, too: people are to read the cause, and not what was never closed.
    with Supervised.stand_in(config, {"STAND_IN": "fails", "PYTHONWARNINGS": "always"}) as appliance:
        assert appliance.ended() == 1
        (line,) = appliance.said
        assert line.startswith(
            "the engine process did not start: status 1: the spool is upside down (RuntimeError at stand_in_"
        )


def test_a_second_appliance_on_the_same_data_is_refused(config: Path) -> None:
    with Supervised.stand_in(config) as first, Supervised.stand_in(config) as second:
        # Which of the two is first is for them to decide.
        until(lambda: first.process.poll() is not None or second.process.poll() is not None, "a refusal")
        refused, running = (first, second) if first.process.poll() is not None else (second, first)
        assert refused.ended() == 1
        assert refused.said == [
            f"another appliance runs on this data directory (pid {running.process.pid}): {config.parent}/var"
        ]


def test_a_port_in_use_is_one_clear_line(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write(config, smtp=f'"127.0.0.1:{taken.getsockname()[1]}"')
        with Supervised.stand_in(config) as appliance:
            assert appliance.ended() == 1
            assert appliance.said == [
                f"smtp cannot listen on 127.0.0.1:{taken.getsockname()[1]}: something listens there already; "
                "stop that, or choose another port"
            ]


def test_an_address_of_another_machine_is_one_clear_line(config: Path) -> None:
    write(config, smtp='"192.0.2.1:0"')  # TEST-NET-1 of RFC 5737: nobody has it.
    with Supervised.stand_in(config) as appliance:
        assert appliance.ended() == 1
        (line,) = appliance.said
        assert line.startswith("smtp cannot listen on 192.0.2.1:0: this machine has no address 192.0.2.1")


def test_a_data_directory_that_cannot_be_made_is_one_clear_line(config: Path) -> None:
    (config.parent / "var").write_text("a file, not a directory")
    with Supervised.stand_in(config) as appliance:
        assert appliance.ended() == 1
        (line,) = appliance.said
        assert line.startswith(f"the data directory {config.parent}/var cannot be written: ")


def test_the_first_start_says_what_to_do_next_and_the_second_does_not(config: Path) -> None:
    hint = r".* alias add .* --confirmed.*"
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        appliance.line(hint)
        appliance.signal(signal.SIGTERM)
        assert appliance.ended() == 0
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        appliance.signal(signal.SIGTERM)
        assert appliance.ended() == 0
        assert not any("alias add" in line for line in appliance.said)


# ------------------------------------------------------------------ SIGHUP


def test_a_configuration_read_again_replaces_the_children_and_refuses_nobody(config: Path) -> None:
    write(config, smtp='"127.0.0.1:0", "127.0.0.2:0"')
    with Supervised.stand_in(config) as appliance:
        port, gone = appliance.ready()["smtp"]
        first, hostname = greeting(port)
        assert hostname == "mx.example.org"
        greeted: list[tuple[int, str]] = []
        enough = threading.Event()

        def keep_coming() -> None:
            while not enough.is_set():
                greeted.append(greeting(port))

        client = threading.Thread(target=keep_coming)
        client.start()
        try:
            write(config, hostname="mail.example.net", smtp='"127.0.0.1:0", "[::1]:0"')
            appliance.signal(signal.SIGHUP)
            added = int(appliance.line(r".* smtp listens on \[::1\]:([0-9]+)")[1])
            appliance.line(".*the configuration was read again and is in force")
        finally:
            enough.set()
            client.join()
        second, hostname = greeting(port)
        assert hostname == "mail.example.net"
        assert second != first
        # Every client in between was greeted by one generation or the other.
        assert set(greeted) <= {(first, "mx.example.org"), (second, "mail.example.net")}
        assert greeted
        socket.create_connection(("::1", added), 20).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", gone), 20)


def test_a_bad_configuration_leaves_the_old_one_in_force(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        port = appliance.ready()["smtp"][0]
        first = greeting(port)
        config.write_text("hostnam = 1\n")
        appliance.signal(signal.SIGHUP)
        appliance.line(rf".* error supervisor: {config}:1: hostnam: there is no such key; did you mean hostname\?")
        appliance.line(".*the configuration was not taken over; the one before stays in force")
        assert greeting(port) == first


def test_a_port_in_use_leaves_the_old_configuration_in_force(config: Path) -> None:
    with Supervised.stand_in(config) as appliance, socket.create_server(("127.0.0.1", 0)) as taken:
        port = appliance.ready()["smtp"][0]
        first = greeting(port)
        write(config, smtp=f'"127.0.0.1:{taken.getsockname()[1]}"')
        appliance.signal(signal.SIGHUP)
        appliance.line(".* smtp cannot listen on .*: something listens there already.*")
        appliance.line(".*the one before stays in force")
        assert greeting(port) == first


def test_a_configuration_with_which_no_engine_starts_is_taken_back(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        ports = appliance.ready()
        first, _ = greeting(ports["smtp"][0])
        write(config, hostname="fails.example.org", smtp='"127.0.0.2:0"')
        appliance.signal(signal.SIGHUP)
        appliance.line(
            ".*with the configuration that was read again, the engine process did not start: .*upside down.*"
        )
        appliance.line(".*the configuration was not taken over; the children have the one before again")
        # The port that the new one did not want was kept for the way back.
        second, hostname = greeting(ports["smtp"][0])
        assert hostname == "mx.example.org"
        assert second != first
        assert health(ports["http"][0])[0] == 200
        assert not any("is in force" in line for line in appliance.said)
        # And from there it goes on as ever.
        write(config, hostname="mail.example.net")
        appliance.signal(signal.SIGHUP)
        appliance.line(".*the configuration was read again and is in force")
        assert greeting(ports["smtp"][0])[1] == "mail.example.net"


def test_the_data_directory_cannot_change_under_way(config: Path) -> None:
    with Supervised.stand_in(config) as appliance:
        appliance.ready()
        config.write_text(config.read_text().replace("/var", "/elsewhere"))
        appliance.signal(signal.SIGHUP)
        appliance.line(".*data_dir: it can change with a restart only")


# ------------------------------------------------------------------ systemd


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(config: Path, abstract: bool) -> None:
    name = f"{config.parent}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(20)
        systemd.bind("\0" + name if abstract else name)
        with Supervised.stand_in(config, {"NOTIFY_SOCKET": "@" + name if abstract else name}) as appliance:
            assert systemd.recv(1000) == b"READY=1"
            appliance.signal(signal.SIGHUP)
            assert systemd.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(1000) == b"READY=1"
            appliance.signal(signal.SIGTERM)
            assert systemd.recv(1000) == b"STOPPING=1"
            assert appliance.ended() == 0


def test_sockets_of_systemd_are_used(config: Path) -> None:
    write(config, smtp='"fd"')
    with socket.create_server(("127.0.0.1", 0)) as handed_over:
        port = handed_over.getsockname()[1]
        fd = handed_over.fileno()
        # systemd hands over descriptors from 3 on, and names the process that they are for.
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); "
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.argv[2], sys.argv[2:])"
        )
        command = [sys.executable, "-c", script, str(fd), sys.executable, str(STAND_IN), str(config)]
        with Supervised(command, pass_fds=[fd]) as appliance:
            assert appliance.ready()["smtp"] == [port]
            first, _ = greeting(port)
            appliance.signal(signal.SIGHUP)
            appliance.line(".*the configuration was read again and is in force")
            assert greeting(port)[0] != first


def test_fd_without_systemd_is_one_clear_line(config: Path) -> None:
    write(config, smtp='"fd"')
    with Supervised.stand_in(config) as appliance:
        assert appliance.ended() == 1
        (line,) = appliance.said
        assert line.startswith("smtp.listen says fd, and no sockets were handed over")


def test_the_connections_that_are_counted_on_are_those_there_may_be() -> None:
    assert doubts.COURIERS == MAX_COURIERS
    assert doubts.IN_TRANSIT == MAX_CONNECTIONS + MAX_GOODBYES


# ------------------------------------------------------------------ how long to wait with the next start


def test_a_child_that_keeps_dying_young_is_started_ever_more_rarely() -> None:
    delays: list[float] = []
    delay: float | None = None
    for _ in range(10):
        delay = delay_after(0.1, delay)
        delays.append(delay)
    assert delays[:4] == [0.0, FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert delays[-1] == LONGEST_DELAY_S


def test_a_child_whose_store_is_away_is_started_soon_after_it_is_back() -> None:
    assert delay_after(0.1, 0.0, STORE_IS_AWAY << 8) == FIRST_DELAY_S
    assert delay_after(0.1, LONGEST_DELAY_S, STORE_IS_AWAY << 8) == AWAY_DELAY_S < LONGEST_DELAY_S


def test_a_child_that_lived_is_started_at_once() -> None:
    assert delay_after(YOUNG_S, LONGEST_DELAY_S) == 0.0
