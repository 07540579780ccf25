"""The server's end: who is let in, what may be said when, and who is asked about mail.

    session               the pure session: octets in, events and replies out
    sequence              which command may come when: the table that the session acts on
    commands, answers     what a client can say, and what the server says to it on its own account
    intake                content between commands, by DATA and by BDAT
    events, offer         what the session tells; what it is given, and offers at EHLO
    serving               what a server is given: settings, and a Receiver that decides about mail
    trio_server           the driver: listeners, one task for each client, one look at the clock for all of them
    trio_session          one client of it
    admission, conduct    who has to make room when all places are taken; what is remembered of a client's manners
    proxy                 the header of the PROXY protocol

Only trio_server and trio_session know of time and sockets.
"""
