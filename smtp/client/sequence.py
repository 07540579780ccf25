"""How a client's conversation goes: its stages, its states, and the table of what each reply leads to.

Replies come in the order of the commands, so the session keeps the stages whose replies are due. What it does with a
reply it does by the state that the table leads to: nothing else says whether a conversation goes on. The reasons, in
prose:

- A server that does not know EHLO is greeted again with HELO (RFC 5321 §3.2). A 4xx to EHLO is not ignorance.
- STARTTLS is said where the caller wants it, by itself. Behind its 220 nothing more may come in clear: whatever did
  was put there by somebody who hopes to have it taken for the server's secured word (RFC 3207 §4.2 and §5). `secured`
  forgets what was said before, and EHLO is said anew. Where STARTTLS is refused, the caller decides.
- AUTH is said where the caller wants it, once TLS is settled. A 334 asks for the next line of the login; one more than
  there are lines is a breach. A server that refuses the login has nothing more for us: we leave.
- RSET comes before a message where an earlier one has left its transaction open. A server that refuses it has said
  nothing about the message (RFC 5321 §4.3.2 wants any 4xx or 5xx understood all the same): we leave, and nothing is
  lost, because no content was sent.
- MAIL, RCPT and DATA go out together where the server offers PIPELINING (RFC 2920), one by one where not. A refused
  MAIL or RCPT does not end an envelope whose other replies are still on their way. One without DATA ends with its last
  reply: then content comes in chunks, or nobody was accepted and all is over.
- Step by step, a caller hears what was said to MAIL and to each RCPT before it says the next one. The way is the same:
  a refused MAIL is an envelope that is over, and one without DATA waits for its caller where its last reply is in.
- 354 lets the content come. Where no recipient was accepted it came only because DATA was under way already: a lone dot
  ends it, and the reply to that counts for nothing (RFC 2920 §3.1).
- Where the server offers CHUNKING (RFC 3030), BDAT takes the place of DATA, unless that would cost a round trip: the
  end of a message that is counted can't be disputed, and nothing has to be stuffed. RFC 3030 would let the first chunk
  go out with MAIL and RCPT. We wait until a recipient is accepted: that takes no longer than waiting for 354, nothing
  is sent in vain, and a server that refuses the envelope is given no chance to read a chunk as commands.
- Chunks follow each other without waiting where there is PIPELINING. The first one that is refused is the last one
  sent: it decides, the replies to those behind it count for nothing, and RSET comes before the next message. A server
  that says 500 or 502 does not know the BDAT that it has offered, and may be reading the chunk as commands: we leave.
  That is a word about the command, and not about the message, of which it cannot have accepted anything.
- After the final dot, or the last chunk, one reply decides for every recipient that was accepted.
- 421 may be the reply to anything: it is what becomes of all that is undecided, and the conversation is over (§3.8).
- A class of reply that is not in the table (2xx to DATA, 3xx to MAIL) is a breach of protocol, and so is a reply to a
  command that has not been sent. A refusal that comes unasked while content is on its way is understood.
"""

from enum import Enum


class Stage(Enum):
    """How far a conversation had come: what a reply, or the lack of one, belongs to."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    HELO = "helo"
    """Said to a server that has refused EHLO."""
    STARTTLS = "starttls"
    TLS = "tls"
    """The handshake. No reply belongs to it."""
    AUTH = "auth"
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    """From the DATA command up to the final dot, which has not been sent whole."""
    BDAT = "bdat"
    """A chunk that is not the last one, or the last one where it has not been sent whole."""
    END_OF_DATA = "end of data"
    """The final dot, or the last chunk, has been sent. Without a reply nobody knows whether the message was delivered.
    """
    QUIT = "quit"
    LOCAL = "local"
    """Decided on our side; the server was not asked."""

    # Of the member itself, as it is compared: every reply is looked up by its stage, and Enum would hash its name anew.
    __hash__ = object.__hash__


class ClientState(Enum):
    """What the session may be asked to do next."""

    OPENING = "opening"
    """Greeting, EHLO and HELO, STARTTLS, AUTH."""
    HANDSHAKE = "handshake"
    """`secured` is due."""
    AUTHENTICATING = "authenticating"
    """The server has asked for the next line of the login."""
    READY = "ready"
    """Between messages: `begin`, `start_tls`, `log_in` or `quit`."""
    ENVELOPE = "envelope"
    """MAIL, RCPT and DATA are under way; or, step by step, the next of them is due."""
    CONTENT = "content"
    """`content` and `end_content` are due."""
    REFUSED = "refused"
    """A chunk was refused: no more content, but replies to what had been sent already."""
    END_OF_DATA = "end of data"
    """The final dot, or the last chunk, is written."""
    CLOSED = "closed"
    """Nothing more."""


# To BDAT: the server does not know what it has offered.
NOT_KNOWN = frozenset({500, 502})

# Stage of the reply x its first digit: the state afterwards.
TRANSITIONS: dict[Stage, dict[int, ClientState]] = {
    Stage.GREETING: {2: ClientState.OPENING, 4: ClientState.CLOSED, 5: ClientState.CLOSED},
    Stage.EHLO: {2: ClientState.READY, 4: ClientState.CLOSED, 5: ClientState.OPENING},
    Stage.HELO: {2: ClientState.READY, 4: ClientState.CLOSED, 5: ClientState.CLOSED},
    Stage.STARTTLS: {2: ClientState.HANDSHAKE, 4: ClientState.READY, 5: ClientState.READY},
    Stage.AUTH: {
        2: ClientState.READY,
        3: ClientState.AUTHENTICATING,
        4: ClientState.CLOSED,
        5: ClientState.CLOSED,
    },
    Stage.RSET: {2: ClientState.ENVELOPE, 4: ClientState.CLOSED, 5: ClientState.CLOSED},
    Stage.MAIL: {2: ClientState.ENVELOPE, 4: ClientState.ENVELOPE, 5: ClientState.ENVELOPE},
    Stage.RCPT: {2: ClientState.ENVELOPE, 4: ClientState.ENVELOPE, 5: ClientState.ENVELOPE},
    Stage.DATA: {3: ClientState.CONTENT, 4: ClientState.READY, 5: ClientState.READY},
    Stage.BDAT: {2: ClientState.CONTENT, 4: ClientState.REFUSED, 5: ClientState.REFUSED},
    Stage.END_OF_DATA: {2: ClientState.READY, 4: ClientState.READY, 5: ClientState.READY},
    Stage.QUIT: {2: ClientState.CLOSED, 4: ClientState.CLOSED, 5: ClientState.CLOSED},
}


def next_state(before: ClientState, stage: Stage, code: int, *, in_chunks: bool) -> ClientState | None:
    """What a reply leads to; None where it is a breach. `in_chunks` is whether content goes by BDAT.

    All of it is in the table but for two codes that end the conversation, whatever else their class may mean, and for
    the two states in which a reply to a chunk changes nothing.
    """
    after = TRANSITIONS[stage].get(code // 100)
    if code == 421 and after is not None:
        return ClientState.CLOSED
    if not in_chunks or after is None:
        return after
    if before is ClientState.REFUSED or (before is ClientState.END_OF_DATA and stage is Stage.BDAT and code < 400):
        # Chunks behind a refused one count for nothing; and behind the last one there is no way back to content.
        return before
    if code in NOT_KNOWN and stage in (Stage.BDAT, Stage.END_OF_DATA):
        return ClientState.CLOSED
    return after
