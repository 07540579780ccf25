"""Which command may come when: the states of a session on the server's side, and the one table that joins them.

Its reasons, in prose:

- Nothing is asked of a client before it has said who it is, except what harms nobody: NOOP, RSET, HELP, VRFY and
  QUIT are answered at any time (RFC 5321 §4.1.4).
- EHLO and HELO may come again. They act as RSET does (§4.1.4): a transaction that was open is over.
- A transaction is MAIL, then RCPT, then DATA (§3.3). MAIL inside one is out of sequence; so is RCPT without one. DATA
  with a sender and no accepted recipient has nobody to be for: 554, and the transaction stays open for a better RCPT.
- A command that is refused changes nothing. Only the answer to the end of the content closes a transaction whatever
  it says (§4.1.1.4).
- Content comes by DATA or by BDAT, and the two are not mixed (RFC 3030 §2). Between two chunks the envelope is closed:
  only another BDAT, or what gives the transaction up, makes sense. A chunk that is refused ends the transaction, and
  the chunks already under way behind it find none: 503, and their octets are read and thrown away.
- STARTTLS comes between transactions, once a name has been given. After the handshake nothing that was said before
  counts (RFC 3207 §4.2): EHLO is due again.
- A word of another protocol closes the connection: what follows is not meant for us, and somebody may have hidden mail
  in it (§7.8 allows it).
"""

from collections.abc import Mapping
from enum import Enum

from smtp.reply import Reply
from smtp.server import answers
from smtp.server.commands import Verb


class State(Enum):
    """Where a session stands."""

    CONNECTED = "connected"
    """The greeting has been said; the client has not told its name."""
    GREETED = "greeted"
    """Between transactions."""
    SENDER = "sender"
    """In a transaction: MAIL was accepted, no recipient yet."""
    RECIPIENTS = "recipients"
    """In a transaction with at least one recipient."""
    CONTENT = "content"
    """354 has been said: all that comes is content, up to its end."""
    CHUNKS = "chunks"
    """Content comes by BDAT: a chunk is being read, or the next is awaited."""
    HANDSHAKE = "handshake"
    """STARTTLS was accepted: nothing is read before TLS is established."""
    CLOSED = "closed"
    """Nothing more is read."""

    # Members are single objects. Enum's own hash, written in Python, would cost more than the look-up it serves.
    __hash__ = object.__hash__


def _row(state: State, commands: Mapping[Verb, State | Reply]) -> dict[Verb, State | Reply]:
    """The given commands, and those that are answered alike in every state."""
    return {
        Verb.NOOP: state,
        Verb.VRFY: state,
        Verb.HELP: state,
        Verb.QUIT: State.CLOSED,
        Verb.FOREIGN: State.CLOSED,
        Verb.NOT_OFFERED: answers.NOT_IMPLEMENTED,
        Verb.UNKNOWN: answers.UNKNOWN_COMMAND,
        **commands,
    }


# State x command: the state after the command has succeeded, or the reply that refuses it.
TRANSITIONS: dict[State, dict[Verb, State | Reply]] = {
    State.CONNECTED: _row(
        State.CONNECTED,
        {
            Verb.EHLO: State.GREETED,
            Verb.HELO: State.GREETED,
            Verb.MAIL: answers.HELLO_FIRST,
            Verb.RCPT: answers.HELLO_FIRST,
            Verb.DATA: answers.HELLO_FIRST,
            Verb.BDAT: answers.HELLO_FIRST,
            Verb.STARTTLS: answers.HELLO_FIRST,
            Verb.RSET: State.CONNECTED,
        },
    ),
    State.GREETED: _row(
        State.GREETED,
        {
            Verb.EHLO: State.GREETED,
            Verb.HELO: State.GREETED,
            Verb.MAIL: State.SENDER,
            Verb.RCPT: answers.MAIL_FIRST,
            Verb.DATA: answers.MAIL_FIRST,
            Verb.BDAT: answers.MAIL_FIRST,
            Verb.STARTTLS: State.HANDSHAKE,
            Verb.RSET: State.GREETED,
        },
    ),
    State.SENDER: _row(
        State.SENDER,
        {
            Verb.EHLO: State.GREETED,
            Verb.HELO: State.GREETED,
            Verb.MAIL: answers.MAIL_TWICE,
            Verb.RCPT: State.RECIPIENTS,
            Verb.DATA: answers.NO_RECIPIENTS,
            Verb.BDAT: answers.NO_RECIPIENTS,
            Verb.STARTTLS: answers.TLS_IN_TRANSACTION,
            Verb.RSET: State.GREETED,
        },
    ),
    State.RECIPIENTS: _row(
        State.RECIPIENTS,
        {
            Verb.EHLO: State.GREETED,
            Verb.HELO: State.GREETED,
            Verb.MAIL: answers.MAIL_TWICE,
            Verb.RCPT: State.RECIPIENTS,
            Verb.DATA: State.CONTENT,
            Verb.BDAT: State.CHUNKS,
            Verb.STARTTLS: answers.TLS_IN_TRANSACTION,
            Verb.RSET: State.GREETED,
        },
    ),
    State.CHUNKS: _row(
        State.CHUNKS,
        {
            Verb.EHLO: State.GREETED,
            Verb.HELO: State.GREETED,
            Verb.MAIL: answers.CONTENT_BEGUN,
            Verb.RCPT: answers.CONTENT_BEGUN,
            Verb.DATA: answers.CONTENT_BEGUN,
            Verb.BDAT: State.CHUNKS,
            Verb.STARTTLS: answers.TLS_IN_TRANSACTION,
            Verb.RSET: State.GREETED,
        },
    ),
}

# What leads on without a command: what it is, in words, and the state after it.
ENDINGS: dict[State, tuple[str, State]] = {
    State.CONTENT: ("the end of data is answered", State.GREETED),
    State.CHUNKS: ("the last chunk, or one that is refused, is answered", State.GREETED),
    State.HANDSHAKE: ("TLS is established", State.CONNECTED),
}

IN_TRANSACTION = frozenset({State.SENDER, State.RECIPIENTS, State.CONTENT, State.CHUNKS})
IN_CONTENT = frozenset({State.CONTENT, State.CHUNKS})
