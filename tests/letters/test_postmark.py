"""Letters by way of Postmark: what it is asked, and what its answers mean for who waits."""

import ssl
from collections.abc import Iterator
from dataclasses import replace

import pytest
from certificates import any_tls, server_tls, verifying_tls
from postmark_server import TOKEN, PostmarkServer

from appliance.letters import postmark
from appliance.letters.postmark import BadToken, Postmark
from appliance.model.letter import Letter, LetterRefused, NotPosted

SENDER = "postmaster@mx.onward.test"
LINK = "https://mx.onward.test/#/verify-email?token=" + "x" * 43
LETTER = Letter("ada@people.test", "Verify your address", f"To verify it, open this:\n\n{LINK}\n\nThank you.\n")
HOST = "localhost"


@pytest.fixture
def server() -> Iterator[PostmarkServer]:
    with PostmarkServer(server_tls(HOST), (SENDER,)) as serving:
        yield serving


def client(
    server: PostmarkServer, token: str = TOKEN, sender: str = SENDER, tls: ssl.SSLContext | None = None
) -> Postmark:
    return Postmark(token, "mx.onward.test", sender, tls or verifying_tls(), host=HOST, port=server.port)


def why_not(server: PostmarkServer, letter: Letter = LETTER) -> NotPosted:
    """How sending it fails. Nothing that is secret stands in the words."""
    with pytest.raises(NotPosted) as raised:
        client(server).send(letter)
    assert not any(secret in str(raised.value) for secret in (TOKEN, LINK, "ada", "people.test"))
    return raised.value


def test_a_letter_is_taken_as_it_was_written(server: PostmarkServer) -> None:
    client(server).send(LETTER)
    (sent,) = server.sent
    assert (sent["To"], sent["Subject"]) == ("ada@people.test", "Verify your address")
    assert sent["From"] == f'"mx.onward.test" <{SENDER}>'
    assert LINK in sent["TextBody"].split("\n")
    assert "HtmlBody" not in sent


def test_nobody_counts_or_redirects_who_opens_the_link(server: PostmarkServer) -> None:
    client(server).send(LETTER)
    (sent,) = server.sent
    assert (sent["TrackOpens"], sent["TrackLinks"]) == (False, "None")
    assert {"Name": "Auto-Submitted", "Value": "auto-generated"} in sent["Headers"]


def test_a_subject_of_several_lines_is_one_line(server: PostmarkServer) -> None:
    client(server).send(replace(LETTER, subject="Grüße\r\nBcc: eve@people.test"))
    (sent,) = server.sent
    assert sent["Subject"].startswith("Grüße")
    assert not {"\r", "\n"} & set(sent["Subject"])


def test_an_international_domain_goes_in_ascii(server: PostmarkServer) -> None:
    client(server).send(replace(LETTER, recipient="ada@bücher.test"))
    assert server.sent[0]["To"] == "ada@xn--bcher-kva.test"


@pytest.mark.parametrize(
    "recipient", ['"a,eve@people.test"@people.test', "jörg@people.test", "ada@[192.0.2.1]", "nobody"]
)
def test_an_address_that_postmark_does_not_take_is_not_even_shown_to_it(server: PostmarkServer, recipient: str) -> None:
    assert isinstance(why_not(server, replace(LETTER, recipient=recipient)), LetterRefused)
    assert server.requests == 0


def test_a_recipient_whose_mail_came_back_is_not_tried_again(server: PostmarkServer) -> None:
    server.inactive.add("ada@people.test")
    refused = why_not(server)
    assert isinstance(refused, LetterRefused)
    assert "406" in str(refused)


def test_a_letter_that_postmark_calls_invalid_is_not_tried_again(server: PostmarkServer) -> None:
    words = b'{"ErrorCode": 300, "Message": "Error parsing To: ada@people.test"}'
    server.raw.append(b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: %d\r\n\r\n%s" % (len(words), words))
    assert isinstance(why_not(server), LetterRefused)


def test_a_wrong_token_says_which_secret_to_look_at(server: PostmarkServer) -> None:
    with pytest.raises(NotPosted, match=r"401, error code 10.*postmark-token") as raised:
        client(server, token="another").send(LETTER)
    assert not isinstance(raised.value, LetterRefused)


def test_a_sender_that_is_not_confirmed_is_for_the_operator_to_put_right(server: PostmarkServer) -> None:
    with pytest.raises(NotPosted, match="422, error code 400") as raised:
        client(server, sender="stranger@elsewhere.test").send(LETTER)
    assert not isinstance(raised.value, LetterRefused)


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 429 Too Many Requests\r\nContent-Length: 38\r\n\r\n{"ErrorCode":429,"Message":"too many"}',
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 17\r\n\r\n{"ErrorCode":100}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html",
        b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"ErrorCode":300}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 302 Found\r\nLocation: https://localhost/email\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{",
        b"220 mail.people.test ESMTP\r\n",
        b"",
    ],
)
def test_what_is_no_yes_can_be_tried_again(server: PostmarkServer, answer: bytes) -> None:
    server.raw.append(answer)
    assert not isinstance(why_not(server), LetterRefused)
    assert server.requests == 1
    client(server).send(LETTER)
    assert len(server.sent) == 1


def test_an_answer_in_small_pieces_ends_with_the_time_for_it(
    server: PostmarkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postmark, "LIMIT_S", 0.3)
    server.drips = True
    why_not(server)


def test_an_answer_without_an_end_is_not_read_to_its_end(server: PostmarkServer) -> None:
    server.raw.append(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b" " * 1_000_000)
    why_not(server)


@pytest.mark.parametrize("certificate", [server_tls(), server_tls(HOST, expired=True)], ids=["another's", "expired"])
def test_the_token_is_shown_to_nobody_but_postmark(certificate: ssl.SSLContext) -> None:
    with PostmarkServer(certificate, (SENDER,)) as impostor:
        assert "certificate" in str(why_not(impostor))
        assert impostor.requests == 0
        # The same server is spoken to by who does not ask who it is: it was the certificate, and nothing else.
        client(impostor, tls=any_tls()).send(LETTER)


def test_nobody_at_all_can_be_tried_again() -> None:
    with PostmarkServer(server_tls(HOST), (SENDER,)) as gone:
        pass
    assert not isinstance(why_not(gone), LetterRefused)


@pytest.mark.parametrize("token", ["", "two words", "a\r\nX-Other: b", "ä", "x" * 300])
def test_what_is_no_token_is_not_repeated(token: str) -> None:
    with pytest.raises(BadToken) as raised:
        Postmark(token, "mx.onward.test", SENDER, verifying_tls())
    assert not token or token not in str(raised.value)
