"""RFC 5321, both ends.

Two pure sessions (octets in, events out; no clock, no socket) and thin Trio drivers round them. Usable alone: nothing
in here knows of aliases, stores or policy, and it imports the standard library and trio, nothing else.

    server/               takes mail: its own page tells
    client/               sends mail: so does its
    address, labels       one grammar for everyone who has to read an address; domain names beyond ASCII
    reply, parameters     what a server says, and what MAIL and RCPT can say beside an address; in both directions
    data, line_ends       content on the wire: where it ends, and what no message may have in it
    tls, trio_socket      contexts and facts of TLS; the socket that all drivers stand on
    errors, trace         whose fault it is when a conversation breaks; watching one

What is supported, requirement by requirement, is in RFC.md; the states of both sessions are drawn in STATES.md; what
real servers make of look-alikes of the end of data is in SMUGGLING.md. All three are printed, and held true by tests.
"""
