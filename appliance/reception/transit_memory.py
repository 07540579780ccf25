"""What transit remembers between a transaction that was put off and the sender's next attempt at it.

A transaction has one reply to its end of data, whatever its recipients' next hops say. Where they differ that is a 4xx,
and here is written down who has the message already, and which aliases refused it for good. Beside that are the senders
too long to be carried in a rewritten address, which in spool mode would stand in the spool.

Keys are MACs and values are sealed, under a key that nobody else has: what a store makes of them names nobody.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from appliance.forwarding.trace import field as header_field
from appliance.privacy.declarations import TRANSIT_DELIVERED, TRANSIT_REFUSED, TRANSIT_RETURN_PATHS, Collection
from appliance.privacy.sealing import Sealer, Unsealable
from appliance.storage.ephemeral import EphemeralStore, packed, unpacked
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import ReturnPath
from smtp.address import Address
from smtp.parameters import MailParameters
from smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class Handover:
    """One message's way to one mailbox: what must not happen twice."""

    sender: str
    recipient: str
    """The alias, as the sender wrote it."""
    target: Address
    message: str = ""
    """See `identity`; empty while the content is not known."""


SHOWN = ("Message-ID", "From", "Reply-To", "Subject", "Date", "Content-Type", "Content-Transfer-Encoding")
"""What no sender changes from one attempt to the next. The Message-ID alone would let whoever has seen a message have
another one delivered in its place: the same body, with another From or Subject, sent in its sender's name before it."""


def identity(content: Sequence[bytes], head: bytes) -> str:
    """What a message is known by when it comes again. `content` is as received; `head` is its header section.

    That is what people see of its header (`SHOWN`) and its body, for a sender may well sign or stamp it anew at each
    attempt. Without a Message-ID it is every octet. Takes some milliseconds for each megabyte, without the
    interpreter's lock.
    """
    digest = hashlib.sha256()
    message_id = header_field(head, "Message-ID")
    # A header section that was cut off has no blank line: there is no telling where the body begins.
    passed_over = len(head) if message_id and head.endswith((b"\n\r\n", b"\n\n")) else 0
    if passed_over:
        for name in SHOWN:
            value = header_field(head, name) or b""
            digest.update(b"%d:%b" % (len(value), value))
    for octets in content:
        digest.update(memoryview(octets)[passed_over:])
        passed_over = max(0, passed_over - len(octets))
    return digest.hexdigest()


def _look(parameters: MailParameters) -> tuple[str, str]:
    """What an envelope says of its message that is the same at each attempt."""
    return "" if parameters.size is None else str(parameters.size), parameters.envid


class TransitMemory:
    """Every method may block for a moment, and may be called by any thread.

    A store that is away remembers nothing, and that is all it does to mail: see P2 and P3 of the promise.
    """

    def __init__(self, store: EphemeralStore, sealer: Sealer) -> None:
        """`sealer` has a key of one run, or one that the nodes of a shared store have in common."""
        self._store = store
        self._sealer = sealer

    # ------------------------------------------------------------------ who has the message already

    def remember_delivered(self, handovers: Iterable[Handover], parameters: MailParameters) -> None:
        """These mailboxes have it, and the sender will try again."""
        for handover in handovers:
            self._remember(TRANSIT_DELIVERED, self._handover_key(handover))
            self._remember(TRANSIT_DELIVERED, self._look_key(handover, parameters))

    def may_be_there(self, handover: Handover, parameters: MailParameters) -> bool:
        """Whether a mailbox may have the message: its content is not known yet, and its envelope looks like that.

        Such a mailbox need not be asked at RCPT; whatever has become of it since is no reason to put the others off.
        """
        return self._recall(TRANSIT_DELIVERED, self._look_key(handover, parameters)) is not None

    def was_delivered(self, handovers: Iterable[Handover]) -> bool:
        """Whether a mailbox has the message by one of these ways."""
        return any(self._recall(TRANSIT_DELIVERED, self._handover_key(each)) is not None for each in handovers)

    def forget_delivered(self, handovers: Iterable[Handover], parameters: MailParameters) -> None:
        """The sender has its 250: the same message, sent once more, is another one."""
        for handover in handovers:
            self._take(TRANSIT_DELIVERED, self._handover_key(handover))
            self._take(TRANSIT_DELIVERED, self._look_key(handover, parameters))

    # ------------------------------------------------------------------ who has refused it for good

    def remember_refusal(
        self, sender: str, parameters: MailParameters, client: str, recipient: str, reply: Reply
    ) -> None:
        """The next transaction that looks like this one hears this reply at the RCPT of this recipient."""
        key = self._envelope_key(sender, parameters, client, recipient)
        self._remember(
            TRANSIT_REFUSED, key, {"code": str(reply.code), "text": reply.text, "status": reply.enhanced or ""}
        )

    def take_refusal(self, sender: str, parameters: MailParameters, client: str, recipient: str) -> Reply | None:
        """What was remembered for this transaction. It is said once.

        RCPT comes before the content, so that another message by the same sender to the same alias, within hours and of
        the very same SIZE and ENVID, would hear it in place of the retry. Once said it is gone, so that it is one
        message at most, and its sender is told. Without a SIZE all messages of a sender look alike: then it is said to
        the same client alone.
        """
        found = self._take(TRANSIT_REFUSED, self._envelope_key(sender, parameters, client, recipient))
        return Reply(int(found["code"]), found["text"], found["status"] or None) if found else None

    # ------------------------------------------------------------------ senders behind a token

    def remember_return_path(self, path: ReturnPath) -> None:
        """A report may come back to this rewritten sender."""
        value = {"sender": path.sender, "reference": path.reference, "created_at": str(path.created_at)}
        self._remember(TRANSIT_RETURN_PATHS, self._key(TRANSIT_RETURN_PATHS, path.token), value)

    def return_path(self, token: str) -> ReturnPath | None:
        """What a token stands for; None for one that is not known here. Raises StoreUnavailable."""
        key = self._key(TRANSIT_RETURN_PATHS, token)
        found = self._opened(TRANSIT_RETURN_PATHS, key, self._store.recall(TRANSIT_RETURN_PATHS, key))
        return ReturnPath(token, found["sender"], found["reference"], int(found["created_at"])) if found else None

    # ------------------------------------------------------------------ keys and values

    def _handover_key(self, handover: Handover) -> bytes:
        target = "@".join(handover.target.key)
        return self._key(TRANSIT_DELIVERED, handover.sender, handover.recipient.lower(), target, handover.message)

    def _look_key(self, handover: Handover, parameters: MailParameters) -> bytes:
        target = "@".join(handover.target.key)
        look = _look(parameters)
        return self._key(TRANSIT_DELIVERED, handover.sender, handover.recipient.lower(), target, "look", *look)

    def _envelope_key(self, sender: str, parameters: MailParameters, client: str, recipient: str) -> bytes:
        # Whoever declares a SIZE may come from another address next time: large senders have many.
        known_by = client if parameters.size is None else ""
        return self._key(TRANSIT_REFUSED, sender, recipient.lower(), known_by, *_look(parameters))

    def _key(self, what: Collection, *parts: str) -> bytes:
        # None of them can have a NUL in it: no two lists read alike.
        return self._sealer.mac("\0".join(parts), what.name)

    def _remember(self, what: Collection, key: bytes, row: Mapping[str, str] = {}) -> None:
        octets = packed(what, row)
        sealed = self._sealer.seal(octets, what.name.encode() + key) if octets else b""
        try:
            self._store.remember(what, key, sealed)
        except StoreUnavailable:
            pass

    def _recall(self, what: Collection, key: bytes) -> bytes | None:
        try:
            return self._store.recall(what, key)
        except StoreUnavailable:
            return None

    def _take(self, what: Collection, key: bytes) -> dict[str, str]:
        try:
            return self._opened(what, key, self._store.forget(what, key))
        except StoreUnavailable:
            return {}

    def _opened(self, what: Collection, key: bytes, sealed: bytes | None) -> dict[str, str]:
        if not sealed:
            return {}
        try:
            octets = self._sealer.open(sealed, what.name.encode() + key)
        except Unsealable:
            return {}  # By a run before, or another key: as good as forgotten.
        return unpacked(what, octets)
