"""Everything that the server session says on its own account, on one page.

Short and plain, and nothing that would tell a stranger about the house. Enhanced codes (RFC 3463) on all but the
greeting, the replies to EHLO and HELO, and 354 (RFC 2034 §3).
"""

from smtp.data import Fault
from smtp.reply import Reply

OK = Reply(250, "OK", "2.0.0")
GO_AHEAD = Reply(354, "Go ahead, end with a line that has only a dot")
GOODBYE = Reply(221, "Goodbye", "2.0.0")
# RFC 5321 §3.5.3 and §7.3: 252 tells nobody which addresses exist.
CANNOT_VERIFY = Reply(252, "Send a message and see", "2.5.0")
HELP = Reply(214, "Commands: EHLO HELO STARTTLS MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\nSee RFC 5321", "2.0.0")
# RFC 3207 §4
READY_FOR_TLS = Reply(220, "Ready to start TLS", "2.0.0")

# RFC 5321 §4.2.4: 500 for what is not known, 502 for what is known and not done here.
UNKNOWN_COMMAND = Reply(500, "Command not known", "5.5.1")
NOT_IMPLEMENTED = Reply(502, "Not done here", "5.5.1")
LINE_TOO_LONG = Reply(500, "Line too long", "5.5.2")
NOT_PRINTABLE = Reply(500, "Only printable characters, please", "5.5.2")
BARE_LINE_FEED = Reply(500, "Lines end in CRLF; closing", "5.5.2")
OTHER_PROTOCOL = Reply(554, "This is a mail server; closing", "5.5.1")
# RFC 3207 §4.2: nothing said in the clear may count under TLS, and whoever put something there may not be the client.
OCTETS_BEHIND_STARTTLS = Reply(554, "Nothing may follow STARTTLS before the handshake; closing", "5.5.1")

HELLO_FIRST = Reply(503, "Say EHLO first", "5.5.1")
MAIL_FIRST = Reply(503, "MAIL comes first", "5.5.1")
MAIL_TWICE = Reply(503, "A sender was given already", "5.5.1")
TLS_IN_TRANSACTION = Reply(503, "No STARTTLS inside a transaction", "5.5.1")
TLS_ALREADY = Reply(503, "TLS is active already", "5.5.1")
# RFC 3030 §2: DATA and BDAT are not mixed, and the envelope is closed once content has begun.
CONTENT_BEGUN = Reply(503, "Content has begun: BDAT or RSET is expected", "5.5.1")
# RFC 5321 §3.3: 554 where DATA comes and no recipient has been accepted.
NO_RECIPIENTS = Reply(554, "No valid recipients", "5.5.1")

HELLO_NEEDS_NAME = Reply(501, "A domain or address literal is missing")
MAIL_SYNTAX = Reply(501, "MAIL FROM:<address> is expected", "5.5.2")
RCPT_SYNTAX = Reply(501, "RCPT TO:<address> is expected", "5.5.2")
BDAT_SYNTAX = Reply(501, "BDAT size [LAST] is expected; closing", "5.5.4")
NO_ARGUMENT = Reply(501, "No argument is expected", "5.5.4")
VRFY_NEEDS_NAME = Reply(501, "A name is missing", "5.5.4")
PARAMETER_SYNTAX = Reply(501, "A parameter is not well-formed", "5.5.4")
PARAMETER_TWICE = Reply(501, "A parameter is given twice", "5.5.4")
# RFC 5321 §4.1.1.11: 555 for parameters that are not known.
PARAMETER_UNKNOWN = Reply(555, "A parameter is not known here", "5.5.4")

# RFC 8689 §2: REQUIRETLS has its place under TLS. RFC 3207 §4: 530 for what has to wait for STARTTLS.
TLS_FIRST = Reply(530, "REQUIRETLS needs STARTTLS first", "5.7.0")
# RFC 6531 §3.5: X.6.7 non-ASCII addresses not permitted for that sender/recipient.
NEEDS_SMTPUTF8 = Reply(553, "An international address needs SMTPUTF8 with MAIL", "5.6.7")

# RFC 5321 §4.5.3.1.10: too many recipients is 452, not 552: the client sends the rest in another transaction.
TOO_MANY_RECIPIENTS = Reply(452, "Too many recipients, send the rest separately", "4.5.3")
# RFC 1870 §6.1 and §6.3
TOO_LARGE = Reply(552, "Message too large", "5.3.4")
HEADER_TOO_LARGE = Reply(552, "Header section too large", "5.3.4")
CONTENT_LINE_TOO_LONG = Reply(554, "Message has a line that is too long", "5.6.0")
# RFC 5321 §2.3.8: CR and LF appear only together. RFC 3463 §3.7: X.6.11 invalid content.
BAD_LINE_ENDS = Reply(550, "Message has a bare CR, bare LF or NUL", "5.6.11")
VERDICTS = {
    Fault.BAD_LINE_ENDS: BAD_LINE_ENDS,
    Fault.TOO_LARGE: TOO_LARGE,
    Fault.HEADER_TOO_LARGE: HEADER_TOO_LARGE,
    Fault.LINE_TOO_LONG: CONTENT_LINE_TOO_LONG,
}

TROUBLE = Reply(451, "Trouble here, try again later", "4.3.0")
# RFC 5321 §4.2.2: 452 for too little storage; what is meant here is memory, and it comes back.
TOO_MUCH_IN_FLIGHT = Reply(452, "Too much mail at once, try again later", "4.3.1")
# RFC 5321 §3.8: 421 before closing of our own accord. RFC 3463 §3.4: X.3.2 system not accepting network messages.
SHUTTING_DOWN = Reply(421, "Service is closing, try again later", "4.3.2")
# RFC 3463 §3.5: X.4.2 bad connection
TIMED_OUT = Reply(421, "Waited too long; closing", "4.4.2")
TOO_SLOW = Reply(421, "Content comes too slowly; closing", "4.4.2")
TOO_MANY_ERRORS = Reply(421, "Too many errors; closing", "4.7.0")
TOO_MANY_COMMANDS = Reply(421, "Too many commands without a message; closing", "4.7.0")
UNWELCOME = Reply(421, "Too many errors or unknown recipients from you, try again later", "4.7.0")
MAKING_ROOM = Reply(421, "Too many connections, and others are waiting; try again later", "4.3.2")
TOO_MANY_CONNECTIONS = Reply(421, "Too many connections, try again later", "4.7.0")
