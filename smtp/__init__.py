"""RFC 5321, both ends.

Two pure sessions (octets in, events out; no clock, no socket) and a thin Trio driver for each. Usable alone: nothing in
here knows of aliases, stores or policy, and it imports the standard library and trio, nothing else.

    address, reply           the values that the rest of the house may import
    commands, answers        what a client can say, and what the server says to it on its own account
    data                     where a message ends, and how its dots are told from that end
    sequence                 which command may come when: the server's table
    server, client           the two sessions; the client's table stands with it
    serving                  what a server is given: settings, and a Receiver that decides about mail
    trio_server, trio_client the drivers, on trio_socket
"""
