"""What the API is asked by those who mean it no good: documents that ask for too much, and octets that are no request.

Each is small, and comes from a stranger.
"""


def nothing_twice(number: int) -> str:
    """Fragments of which each spreads the next one twice, and the last one what is not there: no field in any way."""
    return "{ ...f0 }" + "".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }} " for n in range(number))


def fragments(number: int) -> str:
    """Fragments of which each spreads the next one twice."""
    spread = "".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }} " for n in range(number))
    return "{ ...f0 } " + spread + f"fragment f{number} on Query {{ __typename }}"


ABUSE = {
    "deep fields": "{" + "a{" * 20 + "b" + "}" * 21,
    "far too deep fields": "{" + "a{" * 900 + "b" + "}" * 901,
    "deep inline fragments": "{" + "...{" * 200 + "__typename" + "}" * 201,
    "deep lists of input": "{ node(id: " + "[" * 900 + "]" * 900 + ") { id } }",
    "many aliases": "{" + " ".join(f"a{n}: status {{ version }}" for n in range(50)) + "}",
    "many aliases in a fragment": "{ ...f } fragment f on Query {"
    + " ".join(f"a{n}: __typename" for n in range(50))
    + "}",
    "many root fields": "{" + " status { version }" * 30 + "}",
    "root fields of fragments": "{ ...f ...f ...f ...f } fragment f on Query {" + " __typename" * 8 + "}",
    "one field over and over": "{" + " __typename" * 1900 + "}",
    "many directives": "{ __typename " + "@skip(if: false) " * 50 + "}",
    "many unknown directives": "{ __typename " + "@a" * 500 + "}",
    "directives of variables": "query(" + "$a: Int @a @a @a @a " * 20 + ") { __typename }",
    "directives of an operation": "query " + "@a " * 50 + "{ __typename }",
    "many tokens": "{ __typename " + "#\n" * 10 + "a " * 3000 + "}",
    "many comments": "{ __typename }" + "#\n" * 20_000,
    "many variables": "query(" + "".join(f"$a{n}: Int " for n in range(900)) + ") { __typename }",
    "many operations": "".join(f"query q{n} {{ __typename }} " for n in range(30)),
    "a bomb of fragments": fragments(30),
    "a bomb of fragments without a field": nothing_twice(38),
    "a longer bomb of fragments without a field": nothing_twice(150),
    "a long chain of fragments": "{ ...f0 }"
    + "".join(f"fragment f{n} on Query {{ ...f{n + 1} }} " for n in range(100))
    + "fragment f100 on Query { __typename }",
    "a fragment that nobody spreads": "{ __typename } fragment f on Query {" + " __typename" * 900 + "}",
    "a wide selection below": "{ status {" + " version" * 900 + "} }",
    "aliases below": "{ status {" + " ".join(f"a{n}: version" for n in range(40)) + "} }",
    "a long list": "{ node(id: [" + "1 " * 1900 + "]) { id } }",
    "deep introspection": "{ __schema { types { " + "fields { type { " * 10 + "name" + "} }" * 10 + "} } }",
    "a document of fragments alone": "".join(f"fragment f{n} on Query {{ __typename }} " for n in range(400)),
}

ONLY_WRONG = {"a long list", "a bomb of fragments without a field"}
"""What is small enough to be read and is found to be wrong."""


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes.fromhex("000000040000000000")

MALFORMED = {
    "an octet behind the headers of a websocket upgrade": UPGRADE + b"\r\nx",
    "a frame behind the headers of a websocket upgrade": UPGRADE + b"\r\n\x81\x80\0\0\0\0",
    "a websocket upgrade without a key": UPGRADE.replace(b"Sec-WebSocket-Key", b"X") + b"\r\n",
    "a websocket upgrade of a version that never was": UPGRADE.replace(b"Version: 13", b"Version: 99") + b"\r\n",
    "a websocket upgrade with a body": UPGRADE + b"Content-Length: 5\r\n\r\nhello",
    "a websocket upgrade in HTTP/1.0": UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n",
    "a websocket upgrade with octets that are not ASCII in its path": UPGRADE.replace(b"GET /", b"GET /\xff") + b"\r\n",
    "a websocket upgrade with a nonsense list of extensions": UPGRADE + b"Sec-WebSocket-Extensions: ;;,\xff\r\n\r\n",
    "another request behind a websocket upgrade": UPGRADE + b"\r\n" + UPGRADE + b"\r\n",
    "nothing but a NUL": b"\0",
    "a TLS hello": bytes.fromhex("16030100c8010000c40303"),
    "a line that never was a request": b"EHLO mail.example.org\r\n\r\n",
    "headers beyond every limit": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a chunk whose length is no number": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an unfinished chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "a bare LF in a header": b"GET / HTTP/1.1\nHost: x\nX: a\rb\n\n",
    "a request of HTTP/1.1 without Host": b"GET / HTTP/1.1\r\n\r\n",
    "an upgrade to HTTP/2 with settings that are not base64": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: !!!\r\n\r\n"
    ),
    "an upgrade to HTTP/2 with octets behind it": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\nnonsense" * 3
    ),
    "a preface of HTTP/2 and then nonsense": PREFACE + b"\xff" * 100,
    "data of HTTP/2 for a stream that never began": PREFACE + SETTINGS + bytes.fromhex("000001000100000001") + b"x",
    "headers of HTTP/2 that do not decompress": PREFACE + SETTINGS + bytes.fromhex("000004010500000001ffffffff"),
    "a window of HTTP/2 that grows by nothing": PREFACE + SETTINGS + bytes.fromhex("00000408000000000000000000"),
    "a reset of HTTP/2 for an idle stream": PREFACE + SETTINGS + bytes.fromhex("00000403000000000700000008"),
    "a path that is not UTF-8": b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target that is no path": b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:25 HTTP/1.1\r\nHost: x:25\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
}
