"""A DNS server on loopback that says what a test tells it to, over UDP and TCP.

It answers from records that may be changed while it runs, and can be told to fail for a name in each of the ways in
which DNS fails: an error code, silence, an empty answer, a truncated one. It counts what it is asked.

Threads and blocking sockets, so that it can serve a process under test as well as code in the test's own process.
"""

import contextlib
import errno
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import TracebackType
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

Records = Mapping[str, Iterable[str]]
"""By name, texts such as `MX 10 mx.example.org.` or `A 127.0.0.2`."""

_LONGEST_CHAIN = 8
"""CNAMEs followed in one answer; a loop among the test's own records ends here."""


class Behaviour(Enum):
    """What happens to a question instead of an answer from the records."""

    SERVFAIL = "servfail"
    REFUSED = "refused"
    NXDOMAIN = "nxdomain"
    """The name does not exist."""
    EMPTY = "empty"
    """NOERROR without a record: the name exists, this type does not."""
    TIMEOUT = "timeout"
    """No answer at all, over UDP and TCP."""
    TRUNCATED = "truncated"
    """Over UDP only the truncation bit; the whole answer over TCP."""
    TRUNCATED_FOR_GOOD = "truncated for good"
    """Over UDP only the truncation bit; silence over TCP."""
    FORMERR = "formerr"
    NOTIMP = "notimp"
    NOTAUTH = "notauth"
    LAME = "lame"
    """No answer but the name of servers that may know one: whom we asked does not ask others."""
    WRONG_ID = "wrong id"
    WRONG_QUESTION = "wrong question"
    """The answer to another question, under the right id."""
    GARBAGE = "garbage"
    """Octets that are no message."""
    HALF = "half"
    """The first half of the right answer."""
    NOTHING = "nothing"
    """A datagram without an octet; over TCP a message without one."""


_RCODES = {
    Behaviour.SERVFAIL: dns.rcode.SERVFAIL,
    Behaviour.REFUSED: dns.rcode.REFUSED,
    Behaviour.NXDOMAIN: dns.rcode.NXDOMAIN,
    Behaviour.FORMERR: dns.rcode.FORMERR,
    Behaviour.NOTIMP: dns.rcode.NOTIMP,
    Behaviour.NOTAUTH: dns.rcode.NOTAUTH,
}

_TRUNCATED = (Behaviour.TRUNCATED, Behaviour.TRUNCATED_FOR_GOOD)


class DnsServer:
    """Serves from `start` to `stop`, or inside a `with`."""

    def __init__(self, records: Records | None = None, address: str = "127.0.0.1", ttl: int = 0) -> None:
        """A `ttl` of 0 keeps what is asked from being remembered, so that a change acts at once."""
        self.address = address
        self.port = 0
        self.ttl = ttl
        self.authenticated = False
        """Whether it says of everything that DNSSEC has proven it, to those who want to know."""
        self.queries: Counter[tuple[str, str]] = Counter()
        """How often each (name without the last dot, type) was asked."""
        self._lock = threading.Lock()
        self._records: dict[dns.name.Name, dict[dns.rdatatype.RdataType, list[str]]] = {}
        self._behaviours: dict[tuple[dns.name.Name, dns.rdatatype.RdataType | None], Behaviour] = {}
        self._udp: socket.socket | None = None
        self._tcp: socket.socket | None = None
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        for name, texts in (records or {}).items():
            self.set(name, *texts)

    # ------------------------------------------------------------------ what it says

    def set(self, name: str, *texts: str) -> None:
        """Make these the records of a name, in place of those that it had: `set("a.test", "MX 10 mx.a.test.")`."""
        by_type: dict[dns.rdatatype.RdataType, list[str]] = {}
        for text in texts:
            kind, _, data = text.partition(" ")
            by_type.setdefault(dns.rdatatype.from_text(kind), []).append(data)
        with self._lock:
            self._records[_name(name)] = by_type

    def remove(self, name: str) -> None:
        """Let a name exist no longer."""
        with self._lock:
            self._records.pop(_name(name), None)

    def behave(self, name: str, behaviour: Behaviour | None, kind: str | None = None) -> None:
        """Fail in this way for a name, for every type or for one; None: answer from the records again."""
        key = (_name(name), dns.rdatatype.from_text(kind) if kind else None)
        with self._lock:
            if behaviour is None:
                self._behaviours.pop(key, None)
            else:
                self._behaviours[key] = behaviour

    @property
    def nameserver(self) -> str:
        """As it is written in a configuration: `127.0.0.1:5353`."""
        return f"{self.address}:{self.port}"

    # ------------------------------------------------------------------ start and stop

    def start(self) -> Self:
        """Open both sockets on one free port and serve."""
        self._udp, self._tcp = _udp_and_tcp(self.address)
        self.port = self._udp.getsockname()[1]
        for serve, listener in ((self._serve_udp, self._udp), (self._serve_tcp, self._tcp)):
            thread = threading.Thread(target=serve, args=(listener,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self) -> None:
        """Close both sockets and wait for the threads."""
        self._stopped.set()
        # Closing a socket would not wake the thread that waits in it.
        if self._udp is not None:
            self._udp.sendto(b"", self._udp.getsockname())
        if self._tcp is not None:
            self._tcp.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5)
        for listener in (self._udp, self._tcp):
            if listener is not None:
                listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # ------------------------------------------------------------------ serving

    def _serve_udp(self, listener: socket.socket) -> None:
        while not self._stopped.is_set():
            try:
                question, client = listener.recvfrom(4096)
                answer = self._answer(question, over_tcp=False) if question else None
                if answer is not None:
                    listener.sendto(answer, client)
            except OSError:
                # A client that is gone already, or the end.
                continue

    def _serve_tcp(self, listener: socket.socket) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                continue
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as stream:
            connection.settimeout(10)
            # RFC 1035 §4.2.2: each message is preceded by its length in two octets.
            while len(prefix := stream.read(2)) == 2:
                answer = self._answer(stream.read(struct.unpack("!H", prefix)[0]), over_tcp=True)
                if answer is not None:
                    connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, wire: bytes, *, over_tcp: bool) -> bytes | None:
        try:
            query = dns.message.from_wire(wire)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError):
            return None
        response = dns.message.make_response(query, recursion_available=True)
        if self.authenticated and query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        with self._lock:
            kind = dns.rdatatype.RdataType(question.rdtype)
            self.queries[question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(kind)] += 1
            behaviour = self._behaviours.get((_absolute(question.name), kind)) or self._behaviours.get(
                (_absolute(question.name), None)
            )
            if behaviour is Behaviour.TIMEOUT or (behaviour is Behaviour.TRUNCATED_FOR_GOOD and over_tcp):
                return None
            if behaviour in _RCODES:
                response.set_rcode(_RCODES[behaviour])
            elif behaviour in _TRUNCATED and not over_tcp:
                response.flags |= dns.flags.TC
            elif behaviour is Behaviour.LAME:
                response.flags &= ~dns.flags.RA
                response.authority.append(dns.rrset.from_text("test.", 60, "IN", "NS", "ns.test."))
            elif behaviour is not Behaviour.EMPTY:
                self._from_records(response, question.name, kind)
        if behaviour is not None and behaviour in _BROKEN:
            return _BROKEN[behaviour](response)
        if over_tcp:
            return response.to_wire()
        try:
            return response.to_wire(max_size=query.payload if query.edns >= 0 else 512)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    def _from_records(self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> None:
        for _ in range(_LONGEST_CHAIN):
            folded = _absolute(name)
            by_type = self._records.get(folded)
            if by_type is None:
                # RFC 8020: a name with something below it exists. RFC 6604 §3: the code is about the end of a chain.
                if not any(other.is_subdomain(folded) for other in self._records):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                return
            cname = by_type.get(dns.rdatatype.CNAME)
            found = dns.rdatatype.CNAME if cname and kind is not dns.rdatatype.CNAME else kind
            texts = by_type.get(found)
            if texts:
                response.answer.append(dns.rrset.from_text_list(name, self.ttl, dns.rdataclass.IN, found, texts))
            if found is kind or cname is None:
                return
            name = _name(cname[0])


def _under_another_id(response: dns.message.Message) -> bytes:
    response.id = (response.id + 1) % 65536
    return response.to_wire()


def _to_another_question(response: dns.message.Message) -> bytes:
    for section in (response.question, response.answer):
        for rrset in section:
            rrset.name = dns.name.from_text("another.invalid.")
    return response.to_wire()


def _half(response: dns.message.Message) -> bytes:
    wire = response.to_wire()
    return wire[: len(wire) // 2]


_BROKEN: Mapping[Behaviour, Callable[[dns.message.Message], bytes]] = {
    Behaviour.WRONG_ID: _under_another_id,
    Behaviour.WRONG_QUESTION: _to_another_question,
    Behaviour.GARBAGE: lambda _: b"\xff\x00\x13" * 30,
    Behaviour.HALF: _half,
    Behaviour.NOTHING: lambda _: b"",
}


def _name(text: str) -> dns.name.Name:
    return _absolute(dns.name.from_text(text))


def _absolute(name: dns.name.Name) -> dns.name.Name:
    # dnspython compares names without regard to case already, and hashes them so; absolute is all that is needed.
    return name if name.is_absolute() else name.concatenate(dns.name.root)


def _udp_and_tcp(address: str) -> tuple[socket.socket, socket.socket]:
    for _ in range(20):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            udp.bind((address, 0))
            tcp.bind((address, udp.getsockname()[1]))
            tcp.listen()
        except OSError as error:
            udp.close()
            tcp.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return udp, tcp
    raise OSError(errno.EADDRINUSE, "no port is free for UDP and TCP both")
