"""Loops that go round outside: our own Received lines, known again when a message comes back.

A mailbox behind an alias may send everything on to the alias, or to another one that leads back. The count of Received
fields (RFC 5321 §6.3) ends that after a hundred servers, which is a hundred copies and a long wait for the sender. So
each line of ours carries a mark that only we can make, in a comment behind its id (the grammar of RFC 5321 §4.4 has
CFWS in front of every clause):

    by mx.example.org with ESMTP id 019f0c5ab7d3c1a2b3c4 (5b0c9de1f27a3c44d81e)

Its first half proves the line: a MAC of the id. Its second half, where there was one recipient alone, is a MAC of the
id and that. Both have the id in them, so a mark tells a stranger nothing, not even that two messages went to one alias,
and nothing has to be stored to know it again.

Why only where there was one: a message to several recipients has one line for all of its copies. Where the mailbox of
the first leads to the second, the copy that arrives there has gone in no circle, though its line would name them both.
What does go in one is seen a round later, by the line of a copy for one alone, or else by the number of our lines.

A person who sends a message on to its own alias, header and all, gets the same no as a circle. So it is with servers
that know their mail again by a Delivered-To field, and the person is there to read it.
"""

import re
from collections.abc import Iterable, Sequence
from hmac import compare_digest

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from smtp.address import Address

MAX_OWN_LINES = 5
"""How often one message may have been through here before, whatever its recipients were. Aliases that lead to each
other inside count once; what goes out to a mailbox and comes back for another alias more often goes in a circle."""

MIN_KEY_OCTETS = 16
"""128 bits can't be guessed."""

PROOF_DIGITS = 10
"""Hexadecimal ones, in each half. Who guesses forty bits makes us refuse a message of his own."""


class OwnLines:
    """Marks our Received lines, and knows them again. Safe to share between threads: it never changes."""

    def __init__(self, hostname: str, key: bytes) -> None:
        """`hostname` as the lines have it. `key` may serve other purposes too: a key of our own is derived from it.

        Raises ValueError where the key is too short.
        """
        if len(key) < MIN_KEY_OCTETS:
            raise ValueError(f"marks need a key of at least {MIN_KEY_OCTETS} octets")
        own = HKDF(SHA256(), 32, salt=None, info=b"onward: received lines").derive(key)
        # With the key absorbed, and only ever copied: half the cost of a new HMAC.
        self._mac = HMAC(own, SHA256())
        self._hostname = hostname.encode("ascii", "replace")
        # Folded in any way: others may have written our line anew. Of the words in front, which prove nothing, it is
        # enough that our name is the last: what begins with a long word is found fast.
        self._line = re.compile(
            rb"%b[ \t\r\n]{1,4}with[ \t\r\n]{1,4}[A-Z0-9]{1,20}[ \t\r\n]{1,4}id[ \t\r\n]{1,4}([0-9a-f]{1,40})"
            rb"[ \t\r\n]{1,4}\(([0-9a-f]{%d})([0-9a-f]{%d})?\)"
            % (re.escape(self._hostname), PROOF_DIGITS, PROOF_DIGITS)
        )

    def mark(self, message_id: str, recipients: Sequence[Address]) -> str:
        """The mark for the line of a message with this id, to the recipients of its transaction."""
        half = self._proof(message_id, recipients[0]) if len(recipients) == 1 else ""
        return self._proof(message_id) + half

    def shows_a_loop(self, head: bytes, recipients: Iterable[Address]) -> bool:
        """Whether a message with this header section has been here before for one of these recipients, or too often.

        A line that we did not write counts for nothing, whatever it says.
        """
        # Nearly no message has our name in its header, and a search for it costs next to nothing.
        if self._hostname not in head:
            return False
        present = list(recipients)
        lines = 0
        for found in self._line.finditer(head):
            message_id, proof, half = (group.decode("ascii") for group in found.groups(b""))
            if not compare_digest(proof, self._proof(message_id)):
                continue
            lines += 1
            if lines > MAX_OWN_LINES:
                return True
            if any(compare_digest(half, self._proof(message_id, recipient)) for recipient in present):
                return True
        return False

    def _proof(self, message_id: str, recipient: Address | None = None) -> str:
        mac = self._mac.copy()
        # An id has no line break: no two pairs read alike, nor a pair and an id alone.
        mac.update(message_id.encode("ascii"))
        if recipient is not None:
            mac.update(("\n" + "@".join(recipient.key)).encode())
        return mac.finalize().hex()[:PROOF_DIGITS]
