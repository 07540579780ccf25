"""`onward run`: one small process that holds what must outlive a fault, and two children that do the work.

The engine has the mail, the control process the web. The supervisor opens what they listen on, forks them, restarts one
that dies, replaces both when the configuration is read again, and stops them in order. It is synchronous and
single-threaded, because only such a process can fork without exec and be sure of what its child begins with; and it
never imports what they are made of, so that a new child always begins from the same small state.

States of a child: under way (forked), ready (it said so), gone and due again at an instant. Signals arrive through a
pipe and are worked on one after the other in `_Supervisor._turn`, the only place that waits.

Order of stopping: the engine first. Its sessions and couriers finish what they have begun, while the control process
still answers whoever asks about health (503); then the control process, with nothing left to speak for.
"""

import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from appliance.configuration import Configuration, ConfigurationError, find, load
from appliance.run import CannotStart, certificates, child, listeners, lock, log, notify, process
from appliance.run.child import Child, Ready, delay_after
from appliance.run.doubts import doubts

EngineMain = Callable[[Configuration, list[socket.socket], socket.socket, Ready], None]
ControlMain = Callable[[Configuration, list[socket.socket], socket.socket, Ready], None]

START_S = 80.0
"""How long both may take until they are ready. Below the 90 s after which systemd gives up on a start."""
ENGINE_STOP_S = 30.0
"""How long the engine may take to finish what it has begun. What it does not finish is in the queue all the same."""
CONTROL_STOP_S = 10.0
"""How long the control process may take: its requests are short, and whoever watches a stream connects again."""
KILLED_S = 5.0
"""How long the kernel may take to end what was sent SIGKILL; only a process that hangs in a disk takes any time."""
INSISTING_S = 1.0
"""A second SIGINT hurries, unless it comes this soon: a frozen program's outer process hands on the one from the
terminal, so that one Ctrl-C arrives twice."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_NAMES: Final = ("engine", "control")

_logger = logging.getLogger(__name__)


def main(config: Configuration, config_path: Path | None) -> int:
    """Run the appliance until it is told to stop. Returns the exit status."""
    return supervise(config, config_path, _engine_main, _control_main)


def supervise(
    config: Configuration, config_path: Path | None, engine_main: EngineMain, control_main: ControlMain
) -> int:
    """The same with these for children."""
    log.configure("supervisor")
    os.umask(0o077)
    process.forbid_core_dumps()
    descriptors = process.raise_descriptor_limit()
    unpacker = process.unpacking_parent()
    if unpacker is not None:
        process.die_with(unpacker)
    try:
        ran_before = lock.hold(config.data_dir)
        supervisor = _Supervisor(config, config_path, engine_main, control_main, unpacker)
        for line in doubts(config, descriptors):
            _logger.warning(line)
        return supervisor.run(first_time=not ran_before)
    except CannotStart as error:
        say(str(error))
        return 1


def say(line: str) -> None:
    """A line for people on standard error, which may be gone."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        pass


class _Supervisor:
    def __init__(
        self,
        config: Configuration,
        config_path: Path | None,
        engine_main: EngineMain,
        control_main: ControlMain,
        unpacker: int | None,
    ) -> None:
        self._config = config
        self._config_path = config_path
        self._engine_main = engine_main
        self._control_main = control_main
        self._own_pids = [os.getpid(), *([unpacker] if unpacker is not None else [])]
        self._terminal = sys.stderr.isatty()
        self._sockets = listeners.open_listeners(config, {}, self._own_pids)
        self._on_leave: listeners.Open = {}
        """What listened before a change of the configuration, until that is known to work: no child is to have it."""
        self._engine_socket = listeners.open_own_socket(config.engine_socket, listeners.ENGINE_BACKLOG)
        self._control_socket = listeners.open_own_socket(config.control_socket, listeners.BACKLOG)
        self._children: dict[str, Child] = {}
        self._expected: set[str] = set()
        """Children whose end is our own doing."""
        self._due: dict[str, float] = {}
        """When a child that is gone is started again, on the monotonic clock."""
        self._delays: dict[str, float | None] = dict.fromkeys(_NAMES)
        self._why_gone: dict[str, str] = {}
        self._was_ready = False
        """Both have been ready once; from there on, who dies is started again."""
        self._stop_asked_at: float | None = None
        self._hurry = False
        self._reload_asked = False
        self._selector = selectors.DefaultSelector()
        self._signals, self._signals_in = socket.socketpair()
        self._signals.setblocking(False)
        self._signals_in.setblocking(False)
        self._selector.register(self._signals, selectors.EVENT_READ)

    # -------------------------------------------------------------- the four phases

    def run(self, first_time: bool) -> int:
        """Start, watch, reload, stop. Raises CannotStart where it never came to watching."""
        # The pipe first: with a handler and no pipe, a signal would be heard by nobody.
        signal.set_wakeup_fd(self._signals_in.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            # The handler does nothing: what counts is that the number is written into the pipe.
            signal.signal(number, lambda *_: None)
        for name in _NAMES:
            self._start(name)
        failure = self._first_start()
        if failure is None and self._stop_asked_at is None:
            self._welcome(first_time)
            self._watch()
        drained = self._stop()
        for number in _SIGNALS:
            # There is nothing left to stop; the next signal must not turn a clean end into a killed one.
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._signals.close()
        self._signals_in.close()
        if failure is not None:
            raise failure
        return 0 if drained else 1

    def _first_start(self) -> CannotStart | None:
        """Wait for both. A child that fails before it ever worked would fail again: nothing is restarted yet."""
        self._wait(START_S, lambda: bool(self._due) or self._all_ready())
        failure = None if self._stop_asked_at is not None else self._not_ready()
        return None if failure is None else CannotStart(failure)

    def _welcome(self, first_time: bool) -> None:
        self._was_ready = True
        for line in listeners.described(self._sockets):
            say(line)
        say("ready")
        notify.ready()
        if self._terminal or first_time:
            say(_what_next(self._config_path))

    def _watch(self) -> None:
        while self._stop_asked_at is None:
            now = time.monotonic()
            if self._reload_asked:
                self._reload_asked = False
                notify.reloading()
                self._reload()
                notify.ready()
            elif due := [name for name, at in self._due.items() if at <= now]:
                self._start(due[0])
            else:
                self._turn(min((at - now for at in self._due.values()), default=None))

    def _reload(self) -> None:
        """Take over what the configuration says now. The children are replaced one after the other.

        The old engine has ended before the new one begins: they would share the spool.
        """
        try:
            config = load(self._config_path or find(None))
            if config.data_dir != self._config.data_dir:
                raise ConfigurationError("data_dir: it can change with a restart only")
            if config.tls.certificate:
                # The way back from files that can't be used would lead to the same files: look before anything ends.
                certificates.configured(config)
            sockets = listeners.open_listeners(config, self._sockets, self._own_pids)
        except (ConfigurationError, CannotStart) as error:
            for line in str(error).splitlines():
                _logger.error(line)
            _logger.error("the configuration was not taken over; the one before stays in force")
            return
        former, formerly_open = self._config, self._sockets
        added = listeners.without(sockets, formerly_open)
        failure = self._replace_children(config, sockets)
        if self._stop_asked_at is not None:
            return
        if failure is not None:
            _logger.error(f"with the configuration that was read again, {failure}")
            self._replace_children(former, formerly_open)
            _logger.error("the configuration was not taken over; the children have the one before again")
            return
        for line in listeners.described(added):
            _logger.info(line)
        for line in doubts(config, process.raise_descriptor_limit()):
            _logger.warning(line)
        _logger.info("the configuration was read again and is in force")

    def _replace_children(self, config: Configuration, sockets: listeners.Open) -> str | None:
        """Have both begin anew with this. Returns why they do not work; None where they do, or all is to stop.

        What listened before and is not among these is closed once they work; until then there is a way back.
        """
        self._on_leave = listeners.without(self._sockets, sockets)
        self._config, self._sockets = config, sockets
        for name, limit_s in (("engine", ENGINE_STOP_S), ("control", CONTROL_STOP_S)):
            self._end(name, limit_s)
            if self._stop_asked_at is not None:
                return None
            self._delays[name] = None
            self._start(name)
        self._wait(START_S, lambda: bool(self._due) or self._all_ready())
        if self._stop_asked_at is not None:
            return None
        failure = self._not_ready()
        if failure is None:
            listeners.close(self._on_leave)
            self._on_leave = {}
        return failure

    def _stop(self) -> bool:
        """Returns whether each could finish what it had begun."""
        notify.stopping()
        listeners.close(self._on_leave)
        self._close("smtp")
        self._engine_socket.close()
        drained = self._end("engine", ENGINE_STOP_S)
        self._close("http")
        self._control_socket.close()
        drained = self._end("control", CONTROL_STOP_S) and drained
        for path in (self._config.engine_socket, self._config.control_socket):
            path.unlink(missing_ok=True)
        return drained

    # -------------------------------------------------------------- children

    def _start(self, name: str) -> None:
        self._due.pop(name, None)
        main = self._be_engine if name == "engine" else self._be_control
        try:
            one = Child(name, main, partial(self._let_go, name))
        except OSError as error:
            self._again_later(name, error.strerror or str(error), lived_s=0.0)
            return
        self._children[name] = one
        self._selector.register(one.pipe, selectors.EVENT_READ, one)

    def _be_engine(self, ready: Ready) -> None:
        self._engine_main(self._config, listeners.of("smtp", self._sockets), self._engine_socket, ready)

    def _be_control(self, ready: Ready) -> None:
        self._control_main(self._config, listeners.of("http", self._sockets), self._control_socket, ready)

    def _let_go(self, name: str) -> None:
        """In a new child: close what is the supervisor's, and what is its sibling's."""
        self._selector.close()
        self._signals.close()
        self._signals_in.close()
        for sibling in self._children.values():
            os.close(sibling.pipe)
        listeners.close(self._on_leave)
        if name == "engine":
            self._close("http")
            self._control_socket.close()
        else:
            self._close("smtp")
            self._engine_socket.close()

    def _end(self, name: str, limit_s: float) -> bool:
        """Have a child end. Returns whether it did so by itself."""
        self._due.pop(name, None)
        one = self._children.get(name)
        if one is None:
            return True
        self._expected.add(name)
        one.signal(signal.SIGTERM)
        self._wait(limit_s, lambda: self._hurry or name not in self._children)
        if name not in self._children:
            return True
        _logger.warning(log.words(f"the {name} process has not ended in time and is killed", waited_s=limit_s))
        one.signal(signal.SIGKILL)
        self._wait(KILLED_S, lambda: name not in self._children)
        return False

    def _reap(self) -> None:
        for name, one in list(self._children.items()):
            status = one.ended()
            if status is None:
                continue
            self._unwatch(one)
            one.close()
            del self._children[name]
            # Where a whole group is told to stop, as timeout(1) does it, a child ends before it was asked by us.
            if name in self._expected or self._stop_asked_at is not None:
                self._expected.discard(name)
                continue
            why = child.how(status)
            self._again_later(name, f"{why}: {one.last_words}" if one.last_words else why, one.lived_s(), status)

    def _again_later(self, name: str, why: str, lived_s: float, status: int = 0) -> None:
        self._why_gone[name] = why
        delay_s = self._delays[name] = delay_after(lived_s, self._delays[name], status)
        self._due[name] = time.monotonic() + delay_s
        if self._was_ready:
            what = "ended by itself" if why == "status 0" else "died"
            _logger.error(log.words(f"the {name} process {what}", how=why, lived_s=lived_s, starts_again_in_s=delay_s))

    def _all_ready(self) -> bool:
        return len(self._children) == len(_NAMES) and all(one.ready for one in self._children.values())

    def _not_ready(self) -> str | None:
        """Why it is not so that both are ready; None where it is."""
        if self._all_ready():
            return None
        for name in self._due:
            return f"the {name} process did not start: {self._why_gone[name]}"
        slow = " and ".join(name for name, one in self._children.items() if not one.ready)
        return f"not ready after {START_S:.0f} s: {slow}"

    def _close(self, protocol: listeners.Protocol) -> None:
        for one in listeners.of(protocol, self._sockets):
            one.close()

    # -------------------------------------------------------------- waiting

    def _wait(self, limit_s: float, until: Callable[[], bool]) -> None:
        """Work on what comes in until this holds, or this long. Starting also ends with the wish to stop."""
        deadline = time.monotonic() + limit_s
        stopping = self._stop_asked_at is not None or bool(self._expected)
        while not until() and (stopping or self._stop_asked_at is None):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            self._turn(left_s)

    def _turn(self, timeout_s: float | None) -> None:
        """Wait for signals and words of the children, once, and work on them."""
        for key, _ in self._selector.select(timeout_s):
            if isinstance(key.data, Child):
                # It may have been reaped by a signal that was worked on before it.
                if self._children.get(key.data.name) is key.data:
                    self._hear(key.data)
            else:
                # SIGCHLD last: what else has come says whether the end of a child was meant.
                for number in sorted(self._signals.recv(256), key=signal.SIGCHLD.__eq__):
                    self._signalled(number)

    def _hear(self, one: Child) -> None:
        was_ready = one.ready
        if not one.listen():
            self._unwatch(one)
        if one.ready and not was_ready and self._why_gone.pop(one.name, None) is not None:
            _logger.info(f"the {one.name} process is ready again")

    def _unwatch(self, one: Child) -> None:
        if one.pipe in self._selector.get_map():
            self._selector.unregister(one.pipe)

    def _signalled(self, number: int) -> None:
        now = time.monotonic()
        # Who closes the terminal wants an end of it; any other SIGHUP asks for the configuration to be read.
        hung_up = number == signal.SIGHUP and self._terminal and not sys.stderr.isatty()
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP and not hung_up:
            self._reload_asked = True
        elif self._stop_asked_at is None:
            self._stop_asked_at = now
        elif number == signal.SIGINT and now - self._stop_asked_at >= INSISTING_S:
            self._hurry = True


def _what_next(config_path: Path | None) -> str:
    command = sys.argv[0] if "/" in sys.argv[0] else "onward"
    option = f" --config {config_path}" if config_path else ""
    return (
        "\nForward the first address, in another terminal:\n"
        f"  {command} account add you@example.org --operator{option}\n"
        f"  {command} domain add example.org --account you@example.org --verified{option}\n"
        f"  {command} alias add hello@example.org you@mailbox.example --confirmed{option}\n"
        f"Or see it all at work, away from this data directory: {command} demo\n"
    )


def _engine_main(config: Configuration, smtp: list[socket.socket], answering: socket.socket, ready: Ready) -> None:
    # Imported here and not above: only the engine's own process is to have it in memory.
    from appliance.run import engine

    engine.main(config, smtp, answering, ready)


def _control_main(config: Configuration, http: list[socket.socket], local: socket.socket, ready: Ready) -> None:
    from appliance.run import control

    control.main(config, http, local, ready)
