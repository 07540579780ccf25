"""The tree of commands, and what becomes of an error.

Exit status 0: done. 1: what was asked for failed or was refused. 2: the command line or the configuration is wrong.
"""

import sys
from collections.abc import Callable
from typing import IO, Any

import click

from appliance.command_line.invocation import Group

STATUS_FAILED = 1
STATUS_WRONG = 2
STATUS_INTERRUPTED = 130
"""What shells report for a program that Ctrl-C has ended: 128 and the number of SIGINT."""


class Failure(click.ClickException):
    """An expected error, as one line on standard error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        # click reads it from the instance; its annotation is narrower than what it does.
        self.exit_code = status  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        click.echo(f"onward: {self.format_message()}", file=file, err=file is None)


# Import statements in functions, not names in strings: the binary is frozen with what can be found in the code.
def _account() -> click.Command:
    from appliance.command_line.account import account

    return account


def _alias() -> click.Command:
    from appliance.command_line.alias import alias

    return alias


def _canary() -> click.Command:
    from appliance.command_line.canary import canary

    return canary


def _check() -> click.Command:
    from appliance.command_line.check import check

    return check


def _demo() -> click.Command:
    from appliance.command_line.run import demo

    return demo


def _domain() -> click.Command:
    from appliance.command_line.domain import domain

    return domain


def _explain() -> click.Command:
    from appliance.command_line.explain import explain

    return explain


def _log() -> click.Command:
    from appliance.command_line.log import log

    return log


def _policy() -> click.Command:
    from appliance.command_line.policy import policy

    return policy


def _queue() -> click.Command:
    from appliance.command_line.queue import queue

    return queue


def _run() -> click.Command:
    from appliance.command_line.run import run

    return run


def _store() -> click.Command:
    from appliance.command_line.store import store

    return store


def _version() -> click.Command:
    from appliance.command_line.version import version

    return version


_LOADERS: dict[str, Callable[[], click.Command]] = {
    "run": _run,
    "demo": _demo,
    "check": _check,
    "explain": _explain,
    "account": _account,
    "domain": _domain,
    "alias": _alias,
    "queue": _queue,
    "log": _log,
    "policy": _policy,
    "canary": _canary,
    "store": _store,
    "version": _version,
}


class _Root(Group):
    """Loads the file of a noun when it is asked for, and turns expected errors into a line and a status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer needs them."""
        return list(_LOADERS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, loaded now."""
        loader = _LOADERS.get(cmd_name)
        return loader() if loader else None

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; no expected error leaves here as a traceback."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            # click ends quietly with all of these, a reader that has gone away included.
            raise
        except KeyboardInterrupt:
            raise click.exceptions.Exit(STATUS_INTERRUPTED) from None
        except Exception as error:
            failure = _expected(error)
            if failure is None:
                raise
            raise failure from error


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
def root() -> None:
    """Onward forwards mail: it takes mail for aliases and sends it on to real mailboxes. Nothing stays."""


def main() -> None:
    """The entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        # A sender's name must not end the program because the terminal cannot show it.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    root.main(prog_name="onward")


def _expected(error: Exception) -> Failure | None:
    """The line and status for an error that can happen to anybody; None for a defect of ours."""
    from appliance.configuration import ConfigurationError
    from appliance.model.refused import Refused
    from appliance.privacy.secrets import SecretRefused
    from appliance.run import CannotStart
    from appliance.storage.records import SchemaMismatch, StoreUnavailable
    from appliance.wire import NotRunning, WireError

    if isinstance(error, ConfigurationError):
        return Failure(str(error), STATUS_WRONG)
    if isinstance(error, Refused):
        return Failure(error.reason, STATUS_FAILED)
    if isinstance(error, NotRunning):
        return Failure(f"{error}. Start it with: onward run", STATUS_FAILED)
    if isinstance(error, StoreUnavailable):
        return Failure(f"The store cannot be used: {error}", STATUS_FAILED)
    if isinstance(error, (WireError, SecretRefused, SchemaMismatch, CannotStart)):
        return Failure(str(error), STATUS_FAILED)
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return Failure(f"{error.strerror or error}{where}", STATUS_FAILED)
    return None
