"""Which command may come when: the states of a session on the server's side, and the one table that joins them.

Its reasons, in prose:

- Nothing is asked of a client before it has said who it is, except what harms nobody: NOOP, RSET, HELP, VRFY and
  QUIT are answered at any time (RFC 5321 §4.1.4).
- EHLO and HELO may come again. They act as RSET does (§4.1.4): a transaction that was open is over.
- A transaction is MAIL, then RCPT, then DATA (§3.3). MAIL inside one is out of sequence; so is RCPT without one. DATA
  with a sender and no accepted recipient has nobody to be for: 554, and the transaction stays open for a better RCPT.
- A command that is refused changes nothing. Only the answer to the end of the content closes a transaction whatever
  it says (§4.1.1.4).
- A word of another protocol closes the connection: what follows is not meant for us, and somebody may have hidden mail
  in it (§7.8 allows it).
"""

from collections.abc import Mapping
from enum import Enum

from smtp import answers
from smtp.commands import Verb
from smtp.reply import Reply


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
            Verb.RSET: State.GREETED,
        },
    ),
}

IN_TRANSACTION = frozenset({State.SENDER, State.RECIPIENTS, State.CONTENT})
