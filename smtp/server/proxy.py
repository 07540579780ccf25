"""The PROXY protocol, the receiver's side: who the client is, where a proxy stands between it and us.

The specification is HAProxy's doc/proxy-protocol.txt; sections are cited from it as PP. Both versions are read, the
line of text (PP §2.1) and the binary header (PP §2.2), and they cannot be taken for one another.

Who is allowed to say this is not decided here: only from a trusted proxy may a header be read at all, and from such a
one it must come, before we say a word (PP §2: whether there is a header must never be guessed). How long to wait for it
is the driver's affair as well.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from smtp.errors import ProtocolError, SessionMisuse
from smtp.server.serving import plain_address

# PP §2.1: the longest line there can be, "PROXY UNKNOWN" with two whole IPv6 addresses and ports, CRLF included.
MAX_V1_OCTETS = 107
# Behind the first 16 octets, where the length field alone would allow 65,535. PP §2.2 has 216 octets for the longest
# addresses; what proxies add about TLS and themselves stays within some hundred more. Nobody's header needs this.
MAX_V2_OCTETS = 4096

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_OCTETS = 16

# How a header can begin, as far as that is the same for all.
_BEGINNINGS = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN ", b"PROXY UNKNOWN\r\n", _SIGNATURE)

# PP §2.1: "Heading zeroes are not permitted", in ports as in the numbers of an IPv4 address.
_PORT = rb"(0|[1-9][0-9]{0,4})"
_BYTE = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rb"(" + rb"\.".join([_BYTE] * 4) + rb")"
# The groups are counted by `ipaddress`, which takes nothing else once a zone and all signs but these are ruled out. An
# IPv4 address in the last two groups (RFC 4291 §2.2) goes beyond PP §2.1, but is how proxies write an IPv4 client of
# their IPv6 socket.
_IPV6 = rb"([0-9A-Fa-f:.]{2,45})"
# By the version of the Internet Protocol.
_LINES_RE = {
    b"4": re.compile(rb"PROXY TCP4 " + rb" ".join([_IPV4, _IPV4, _PORT, _PORT]) + rb"\r\n"),
    b"6": re.compile(rb"PROXY TCP6 " + rb" ".join([_IPV6, _IPV6, _PORT, _PORT]) + rb"\r\n"),
}
# What a line looks like that has not come to its end.
_UNFINISHED_RE = {
    b"4": re.compile(rb"PROXY TCP4 [0-9. ]*\r?"),
    b"6": re.compile(rb"PROXY TCP6 [0-9A-Fa-f:. ]*\r?"),
}

_LOCAL, _PROXY = 0x20, 0x21  # The version in the upper four bits, the command in the lower.
_TCP4, _TCP6 = 0x11, 0x21  # The address family in the upper four bits, the transport protocol in the lower.
_ADDRESS_OCTETS = {_TCP4: 12, _TCP6: 36}
_PP2_TYPE_CRC32C = 0x03


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy says of a connection."""

    address: str | None
    """The client's; an IPv4 client's in its own form. None: the proxy does not speak for a client of the internet, but
    for itself (a health check) or for something without an address that we could use. The connection's own address, the
    proxy's, is then the only one there is; it earns no trust."""
    port: int
    """0 where there is no address."""


_NO_CLIENT = ProxyHeader(None, 0)


class ProxyReader:
    """Reads one header from the beginning of a connection. It never keeps more than 16 + MAX_V2_OCTETS octets."""

    __slots__ = ("_ended", "_held", "rest")

    def __init__(self) -> None:
        self._held = bytearray()
        self._ended = False
        self.rest = b""
        """What came behind the header: it belongs to the client's conversation."""

    def receive(self, octets: bytes) -> ProxyHeader | None:
        """Take what has come; the header once it is whole, None as long as more is needed.

        Raises ProtocolError at the first octet that no header has in its place; addresses and ports are judged once the
        line is whole, as PP §2.1 wants it. The connection is to be closed then, without a word: whoever it is does not
        speak for a client. Raises SessionMisuse where the header has been read or refused before.
        """
        if self._ended:
            raise SessionMisuse("the PROXY header has been read already, or refused")
        held = self._held
        held += octets
        try:
            found = _read(held)
        except ProtocolError:
            self._end()
            raise
        if found is None:
            return None
        header, length = found
        self.rest = bytes(held[length:])
        self._end()
        return header

    def _end(self) -> None:
        self._ended = True
        self._held = bytearray()


def _read(held: bytearray) -> tuple[ProxyHeader, int] | None:
    """The header and its length in octets."""
    if not any(held.startswith(beginning) or beginning.startswith(held) for beginning in _BEGINNINGS):
        raise ProtocolError("no PROXY header")
    return _read_v2(held) if held.startswith(_SIGNATURE[:1]) else _read_v1(held)


def _read_v1(held: bytearray) -> tuple[ProxyHeader, int] | None:
    length = held.find(b"\r\n", 0, MAX_V1_OCTETS) + 2
    if length < 2:
        if len(held) >= MAX_V1_OCTETS:
            raise ProtocolError("the PROXY line does not end")
        unfinished = _UNFINISHED_RE.get(bytes(held[9:10]))
        if unfinished and len(held) > 10 and not unfinished.fullmatch(held):
            raise ProtocolError("the PROXY line has something in it that is neither address nor port")
        return None
    if held.startswith(b"PROXY U"):
        # PP §2.1: whatever stands there up to the CRLF is ignored.
        return _NO_CLIENT, length
    version = bytes(held[9:10])
    line = _LINES_RE[version].fullmatch(held, 0, length)
    if line is None:
        raise ProtocolError("the PROXY line is not as it should be")
    source, destination, source_port, destination_port = (text.decode("ascii") for text in line.groups())
    if int(source_port) > 65535 or int(destination_port) > 65535:
        raise ProtocolError("the PROXY line has a port that there is not")
    if version == b"6":
        try:
            # Both have to be addresses; the destination is our own, and we know it.
            source, destination = str(IPv6Address(source)), str(IPv6Address(destination))
        except AddressValueError as error:
            raise ProtocolError("the PROXY line has an IPv6 address that is none") from error
    return ProxyHeader(plain_address(source), int(source_port)), length


def _read_v2(held: bytearray) -> tuple[ProxyHeader, int] | None:
    if len(held) > 12 and held[12] not in (_LOCAL, _PROXY):
        raise ProtocolError("a PROXY header of another version, or with a command that there is not")
    if len(held) < 14:
        return None
    command, family = held[12], held[13]
    # PP §2.2: with LOCAL the family is ignored; without it, what is unspecified "must be rejected as invalid".
    if command == _PROXY and (family >> 4 > 3 or family & 15 > 2):
        raise ProtocolError("a PROXY header with an address family or a transport that there is not")
    if len(held) < _FIXED_OCTETS:
        return None
    block_octets = int.from_bytes(held[14:16], "big")
    if block_octets > MAX_V2_OCTETS:
        raise ProtocolError("a PROXY header with more in it than is taken here")
    # PP §2.2: what is valid and not implemented is as good as UNSPEC, and the connection may be accepted with its own
    # address: sockets of a file system and datagrams carry no mail.
    address_octets = _ADDRESS_OCTETS.get(family) if command == _PROXY else None
    if address_octets is not None and block_octets < address_octets:
        raise ProtocolError("a PROXY header too short for its addresses")
    length = _FIXED_OCTETS + block_octets
    if len(held) < length:
        return None
    if address_octets is None:
        return _NO_CLIENT, length
    whole = bytes(held[:length])
    _check_vectors(whole, _FIXED_OCTETS + address_octets)
    if family == _TCP4:
        return ProxyHeader(str(IPv4Address(whole[16:20])), int.from_bytes(whole[24:26], "big")), length
    return ProxyHeader(plain_address(str(IPv6Address(whole[16:32]))), int.from_bytes(whole[48:50], "big")), length


def _check_vectors(header: bytes, place: int) -> None:
    """Go through the vectors of type, length and value behind the addresses (PP §2.2), for the checksum among them.

    Only where addresses are taken from the header: of what is behind an UNSPEC nobody knows where the vectors begin.
    One that is not whole is refused, because it could have been the checksum.
    """
    checksum_at = None
    while place < len(header):
        value_at = place + 3
        end = value_at + int.from_bytes(header[place + 1 : value_at], "big")
        if end > len(header):
            raise ProtocolError("a PROXY header that ends within one of its values")
        if header[place] == _PP2_TYPE_CRC32C:
            if checksum_at is not None or end - value_at != 4:
                raise ProtocolError("a PROXY header with a checksum that is none")
            checksum_at = value_at
        place = end
    if checksum_at is not None:
        # PP §2.2.3: of the whole header, the checksum itself taken as zeros.
        blank = header[:checksum_at] + bytes(4) + header[checksum_at + 4 :]
        if crc32c(blank) != int.from_bytes(header[checksum_at : checksum_at + 4], "big"):
            raise ProtocolError("a PROXY header whose checksum is wrong")


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        for _ in range(8):
            # The polynomial of RFC 9260 appendix A, its bits in the order in which they are used here.
            octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
        table.append(octet)
    return tuple(table)


_CRC32C_TABLE = _crc32c_table()


def crc32c(octets: bytes) -> int:
    """The checksum CRC-32C (RFC 9260 appendix A) of some octets, as a number of 32 bits."""
    value = 0xFFFFFFFF
    for octet in octets:
        value = value >> 8 ^ _CRC32C_TABLE[(value ^ octet) & 0xFF]
    return value ^ 0xFFFFFFFF
