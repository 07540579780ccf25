"""The client's end: one connection to one server, good for many messages.

    session               the pure session: replies in, commands out
    sequence              what each reply leads to: the table that the session acts on
    introduction          greeting, EHLO, STARTTLS and AUTH; what is known of the server then
    transaction           what is known of each recipient of a message
    pipeline              which commands have been written and sent, and which replies are due
    envelope, extensions  how MAIL and RCPT are written, and what a server offers and limits
    authentication        how a client says who it is
    content, chunks       what goes out behind 354, or by BDAT
    events                what the session tells
    trio_client           the driver: `Connection`
    conversation          under it: octets, sockets, and every wait with a limit
    dialing               how a TCP connection is made
    timeouts, errors      how long it waits for what, and how it fails

Only trio_client, conversation and dialing know of time and sockets.
"""
