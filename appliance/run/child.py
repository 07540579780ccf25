"""A child process: forked without exec, says through a pipe that it is ready or why it failed, dies with its parent.

And how long to wait before the next one, where it has died by itself.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

from appliance.run import CannotStart, log, process
from appliance.storage.records import StoreUnavailable

Ready = Callable[[], None]
ChildMain = Callable[[Ready], None]
"""What a child does until SIGTERM: it calls its argument once it works, and returns when it is done."""

LAST_WORDS_OCTETS = 2000
"""Less than PIPE_BUF (pipe(7)), so that they are written as one even where nobody reads yet."""

YOUNG_S = 10.0
"""A child that lived shorter than this died young: trying again at once would not help a second time."""
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 30.0
AWAY_DELAY_S = 2.0
"""The longest where it was the store that was away. What ends that is elsewhere, and soon after it the child is to
work; each of its starts waits for the store as well."""

STORE_IS_AWAY = os.EX_TEMPFAIL
"""With this status ends a child that did not find its store."""

_READY = b"+"


class Child:
    """One running child, seen from its parent."""

    def __init__(self, name: str, main: ChildMain, let_go: Callable[[], None]) -> None:
        """Fork. In the child, `let_go` closes what belongs to the parent alone, and `main` runs.

        Raises OSError where there can be no other process.
        """
        self.name = name
        self.ready = False
        self.last_words = ""
        self.started_at = time.monotonic()
        self._heard = b""
        parent = os.getpid()
        self.pipe, told = os.pipe()
        os.set_blocking(self.pipe, False)
        # A signal that arrives between fork and reset would be taken for one to the parent: they share its pipe.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = os.fork()
            if self.pid == 0:
                os.close(self.pipe)
                _live(name, main, let_go, parent, told)
        except OSError:
            os.close(self.pipe)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            os.close(told)

    def listen(self) -> bool:
        """Take in what the child has said by now. Returns whether it may say more."""
        try:
            while said := os.read(self.pipe, LAST_WORDS_OCTETS):
                self._heard += said
        except BlockingIOError:
            return True
        finally:
            self.ready = self._heard.startswith(_READY)
            self.last_words = self._heard.removeprefix(_READY).decode("utf-8", "replace")
        return False

    def ended(self) -> int | None:
        """The status of wait(2) once the child has ended, which can be asked for once; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.listen()
        return status

    def close(self) -> None:
        """Forget a child that has ended."""
        os.close(self.pipe)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal. It is there until `ended` has said otherwise."""
        os.kill(self.pid, number)

    def lived_s(self) -> float:
        """How long ago it was started, in seconds."""
        return time.monotonic() - self.started_at


def how(status: int) -> str:
    """A status of wait(2) in words: `status 1`, `signal SIGKILL`."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def delay_after(lived_s: float, delay_s: float | None, status: int = 0) -> float:
    """How long to wait with the next start of a child that has died after so long, and was started with this delay.

    None: it was the first of its kind, or the one before it had lived long. `status` is that of wait(2).
    """
    if delay_s is None or lived_s >= YOUNG_S:
        return 0.0
    longest_s = AWAY_DELAY_S if os.waitstatus_to_exitcode(status) == STORE_IS_AWAY else LONGEST_DELAY_S
    return min(max(2 * delay_s, FIRST_DELAY_S), longest_s)


def _live(name: str, main: ChildMain, let_go: Callable[[], None], parent: int, told: int) -> None:
    """The whole life of the child. It never returns: the parent's code, further up, is not the child's to run."""
    status = 1
    told_ready = False

    def ready() -> None:
        nonlocal told_ready
        told_ready = True
        os.write(told, _READY)

    try:
        process.die_with(parent)
        signal.set_wakeup_fd(-1)
        # Ctrl-C and a closed terminal reach every process of the group; the parent decides what they mean.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        let_go()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        log.configure(name)
        main(ready)
        status = 0
    except BaseException as error:  # noqa: BLE001 (whatever it was, it must not go up into the parent's code)
        if isinstance(error, StoreUnavailable) and not told_ready:
            status = STORE_IS_AWAY
        os.write(told, _last_words(error, told_ready).encode()[:LAST_WORDS_OCTETS])
    finally:
        sys.stderr.flush()
        os._exit(status)


def _last_words(error: BaseException, seen_mail: bool) -> str:
    """Why the child fails. Once it may have seen mail, the text of an error may be made of mail, and is left out."""
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return _last_words(error.exceptions[0], seen_mail)
    if isinstance(error, CannotStart):
        return str(error)
    place = log.places(error)
    return place if seen_mail or not str(error) else f"{error} ({place})"
