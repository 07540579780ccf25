"""From a domain to a conversation with one of its hosts: each address has its turn, the best first.

What a host says before it has heard of a message (a greeting of 554, an EHLO refused, a handshake that fails for good)
is a word about itself, whatever its code: the next one is asked, and where none is left the mail waits.
"""

import logging
from collections.abc import Collection

from appliance.delivery.attempt import Attempt, code_of
from appliance.delivery.connecting import (
    ConnectionSettings,
    Reached,
    Unfit,
    connect,
    connect_as_required,
)
from appliance.delivery.hosts import Found, HostAddress, NoHosts, find_hosts
from appliance.delivery.smarthost import PASSWORD, find_smarthost
from appliance.model.delivery import Answer, Deferred, Failed
from appliance.resolver import Resolver
from smtp.client.errors import LoginFailed
from smtp.client.trio_client import ConnectError, Refused, Stage, TlsFailed

__all__ = ["Reached", "Unreachable", "Unsuitable", "reach"]

_logger = logging.getLogger(__name__)


class Unreachable(Exception):
    """No host of the destination could be spoken to: what is meant for it shares this outcome."""

    def __init__(self, outcome: Deferred | Failed) -> None:
        super().__init__(outcome.answer.text)
        self.outcome = outcome


class Unsuitable(Exception):
    """No host could be given what requires TLS. That says nothing about other mail."""

    def __init__(self, outcome: Deferred | Failed) -> None:
        super().__init__(outcome.answer.text)
        self.outcome = outcome


async def reach(
    domain: str,
    resolver: Resolver,
    settings: ConnectionSettings,
    attempt: Attempt,
    *,
    required: bool,
    chunking: bool,
    without: Collection[str] = (),
) -> Reached:
    """Connect to the best host of a destination that will have us.

    `required`: such as REQUIRETLS wants it; `chunking`: content may go by BDAT; `without`: names of hosts that have had
    their turn. Raises Unreachable, and Unsuitable where `required`.
    """
    relay = settings.smarthost
    try:
        found = await (
            find_smarthost(resolver, relay, settings.hosts) if relay else find_hosts(resolver, domain, settings.hosts)
        )
    except NoHosts as none:
        raise Unreachable(none.outcome) from None
    last: Answer | None = None
    unfit: Answer | None = None
    spoken = False
    for candidate in found.addresses:
        if candidate.host in without:
            continue
        try:
            how = connect_as_required if required else connect
            reached = await how(settings, candidate, chunking=chunking)
        except Unfit as error:
            unfit = attempt.told(0, error.enhanced_code, "tls-required", str(error), candidate)
        except LoginFailed as error:
            last = _no_login(attempt, str(error), candidate)
        except ConnectError as error:
            spoken = spoken or isinstance(error, TlsFailed)
            text = f"no connection to {_named(candidate)}: {error}"
            last = attempt.told(0, "4.4.1", "connection-failed", text, candidate)
        except Refused as refused:
            spoken = True
            if refused.stage is Stage.AUTH:
                last = _no_login(attempt, code_of(refused.reply), candidate)
                continue
            # Whatever the code: another host may take it, and a greeting is no word about the recipient.
            last = attempt.answered(refused.reply, "host-refused", candidate)
        else:
            if not _is_ourselves(reached, settings):
                return reached
            await reached.connection.quit()
            last = _loop(attempt, candidate)
    if unfit is not None:
        raise Unsuitable(_all_unfit(attempt, found, unfit, last))
    if last is None:
        last = attempt.told(0, "4.4.1", "connection-failed", f"{domain} has no other host", None)
    if required and spoken:
        # They may well take other mail.
        raise Unsuitable(Deferred(last))
    raise Unreachable(Deferred(last))


def _all_unfit(attempt: Attempt, found: Found, unfit: Answer, last: Answer | None) -> Deferred | Failed:
    # RFC 8689 §4.2.1: where no host is left, the message is not sent, and its sender hears of that. One that could not
    # be asked may be fit.
    if last is None and found.passed_over:
        last = attempt.told(0, "4.4.3", "dns-failed", f"DNS: {found.passed_over}", None)
    return Failed(unfit) if last is None else Deferred(last)


def _no_login(attempt: Attempt, why: str, at: HostAddress) -> Answer:
    # Whatever the code, it is about us and not about the mail, which waits until the password is right.
    text = f"no login at the smarthost {at.host}: {why}"
    _logger.error("%s; all mail that leaves waits. Look at delivery.smarthost and the secret %s", text, PASSWORD)
    return attempt.told(0, "4.7.8", "login-refused", text, at)


def _is_ourselves(reached: Reached, settings: ConnectionSettings) -> bool:
    # A host by another name, or behind an address that is translated on the way, may still be this one.
    return reached.connection.server_name.lower().rstrip(".") == settings.hosts.hostname


def _loop(attempt: Attempt, at: HostAddress) -> Answer:
    # Not final, other than an MX that names us: two machines with one name are a mistake, and one that gets mended.
    text = f"{_named(at)} greets us with our own name: the mail would go round in a loop"
    return attempt.told(0, "4.4.6", "mx-loop", text, at)


def _named(at: HostAddress) -> str:
    # A host may be no more than its address, or an address literal.
    return at.host if at.host == at.address or at.host.startswith("[") else f"{at.host} [{at.address}]"
