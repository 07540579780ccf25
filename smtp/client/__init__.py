"""The client's end: one connection to one server, good for many messages.

    session               the pure session: replies in, commands out
    sequence              what each reply leads to: the table that the session acts on
    pipeline              which commands have been written and sent, and which replies are due
    envelope, extensions  how MAIL and RCPT are written, and what a server offers and limits
    chunks                content for BDAT
    events                what the session tells
    trio_client           the driver: `Connection`
    timeouts              how long it waits for what

Only trio_client knows of time and sockets.
"""
