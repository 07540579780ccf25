"""What one run of the command knows: which configuration, and the stores behind it.

Every command and group takes `--config`, so that it can stand before or behind the words of the command; the last one
counts. Nothing is read before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from appliance.accounts.accounts import Accounts
    from appliance.accounts.aliases import Aliases
    from appliance.accounts.consent import Consent
    from appliance.accounts.deletion import Deletion
    from appliance.accounts.domains import Domains
    from appliance.accounts.ownership import Ownership
    from appliance.configuration import Configuration
    from appliance.model.letter import Post
    from appliance.storage.records import RecordStore


class Invocation:
    """One run of the command."""

    def __init__(self) -> None:
        self.given_path: Path | None = None
        """What `--config` named."""

    @cached_property
    def path(self) -> Path | None:
        """The configuration file; None where the defaults run. Raises ConfigurationError."""
        from appliance.configuration import find

        return find(None if self.given_path is None else str(self.given_path))

    @cached_property
    def configuration(self) -> Configuration:
        """The configuration. Raises ConfigurationError."""
        from appliance.configuration import load

        return load(self.path)

    @contextmanager
    def records(self) -> Iterator[RecordStore]:
        """The record store, closed again at the end. Raises StoreUnavailable."""
        from appliance.run.stores import open_records

        records = open_records(self.configuration)
        try:
            yield records
        finally:
            records.close()

    @contextmanager
    def accounts(self) -> Iterator[Accounts]:
        """The accounts of the record store."""
        from appliance.accounts.accounts import Accounts

        with self.records() as records:
            yield Accounts(records, self.configuration.plans)

    @contextmanager
    def deletion(self) -> Iterator[tuple[Deletion, Accounts]]:
        """What deletes accounts, and the accounts of the record store."""
        from appliance.accounts.accounts import Accounts
        from appliance.run.account_rooms import deletion

        with self.records() as records:
            deletes = deletion(self.configuration, records, self.engine(), None)
            yield deletes, Accounts(records, self.configuration.plans)

    @contextmanager
    def domains(self) -> Iterator[tuple[Domains, Accounts]]:
        """The domains of the record store, and the accounts that own them."""
        from appliance.accounts.accounts import Accounts
        from appliance.accounts.domains import Domains

        plans = self.configuration.plans
        with self.records() as records:
            yield Domains(records, plans, self._own_names()), Accounts(records, plans)

    @contextmanager
    def ownership(self) -> Iterator[tuple[Ownership, Domains]]:
        """What asks the DNS about domains, and the domains of the record store."""
        import trio

        from appliance.accounts.domains import Domains
        from appliance.accounts.ownership import Ownership
        from appliance.run.dns_questions import DnsQuestions
        from appliance.run.furnishing import ACCOUNTS_KEY
        from appliance.run.stores import keyring

        config = self.configuration
        with self.records() as records:
            key = keyring(config, [ACCOUNTS_KEY])[ACCOUNTS_KEY]
            ownership = Ownership(records, config.hostname, key, DnsQuestions(config, trio.run))
            yield ownership, Domains(records, config.plans, self._own_names())

    @contextmanager
    def aliases(self, *, asking: bool = False) -> Iterator[Aliases]:
        """The aliases of the record store. With `asking`, a running appliance can be had write to mailboxes' owners."""
        from appliance.accounts.aliases import Aliases

        with self.records() as records:
            consent = self._consent(records) if asking and self.configuration.engine_socket.exists() else None
            yield Aliases(records, self.configuration.plans, self._own_names(), consent=consent)

    def _consent(self, records: RecordStore) -> tuple[Consent, Post] | None:
        """What asks the owners of mailboxes; None where no appliance runs that would carry the letter."""
        from appliance import wire
        from appliance.accounts.consent import Consent
        from appliance.model.letter import links
        from appliance.run.furnishing import ACCOUNTS_KEY
        from appliance.run.post_office import post_office
        from appliance.run.stores import keyring

        engine = self.engine()
        try:
            next(engine("status"), None)
        except (wire.NotRunning, wire.WireError):
            return None
        key = keyring(self.configuration, [ACCOUNTS_KEY])[ACCOUNTS_KEY]
        return Consent(records, links(self.configuration.http.public_url), key), post_office(self.configuration, engine)

    def engine(self) -> Callable[..., Iterator[Any]]:
        """What asks the engine of the running appliance, where one runs (`appliance.wire.call`)."""
        from appliance import wire

        return partial(wire.call, self.configuration.engine_socket)

    def _own_names(self) -> set[str]:
        return {self.configuration.hostname, self.configuration.forwarding.srs_domain}


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with the field names of the API.")


def _remember(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(Invocation).given_path = value


def _config_option() -> click.Option:
    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        # Before anything else is looked at, so that an error already speaks of the right file.
        is_eager=True,
        callback=_remember,
        help="The configuration: by default $ONWARD_CONFIG, ./onward.toml or /etc/onward/onward.toml.",
    )


class Command(click.Command):
    """A command that takes `--config`."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.append(_config_option())


class Group(click.Group):
    """A group of commands that take `--config`, as it does itself."""

    command_class = Command

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.append(_config_option())
