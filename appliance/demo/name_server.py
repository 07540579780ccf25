"""A name server for the demo: a handful of records over UDP on loopback, and NXDOMAIN for everything else."""

from collections.abc import Mapping

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio

Records = Mapping[tuple[str, str], str]
"""Record data by (lower-case name with its final dot, type)."""

_TTL_S = 60
_MAX_QUERY = 4096


async def serve_names(socket: trio.socket.SocketType, records: Records) -> None:
    """Answer until cancelled."""
    names = {name for name, _ in records}
    while True:
        octets, client = await socket.recvfrom(_MAX_QUERY)
        try:
            query = dns.message.from_wire(octets)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError):
            continue
        name = question.name.to_text().lower()
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.AA
        data = records.get((name, dns.rdatatype.to_text(question.rdtype)))
        if data is not None:
            reply.answer.append(dns.rrset.from_text(question.name, _TTL_S, "IN", question.rdtype, data))
        elif name not in names:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        await socket.sendto(reply.to_wire(), client)
