"""Look-alikes of the end of data, sent to our server and to those of others; smtp/SMUGGLING.md has what came of it.

What others do is a fact about their versions: they only have to answer. What ours does is asserted.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import smuggling
from peer_programs import HOW_TO_GET_THEM
from smuggling import LOOK_ALIKES, ORDER, OURS, OURS_UNDER_TLS, Servers, smuggle

_DOCUMENT = Path(__file__).resolve().parents[2] / "smtp" / "SMUGGLING.md"


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with smuggling.servers() as servers:
        yield servers
        assert servers.ours.errors == []


@pytest.mark.parametrize("name", [OURS, OURS_UNDER_TLS])
@pytest.mark.parametrize("look_alike", LOOK_ALIKES, ids=smuggling.shown)
def test_a_look_alike_ends_nothing_and_has_the_message_refused(servers: Servers, name: str, look_alike: bytes) -> None:
    verdict = smuggle(servers.found[name][0], look_alike, tls=name == OURS_UNDER_TLS)

    # One reply to an end of data: what stood behind the look-alike was content.
    (reply,) = verdict.replies
    assert reply.startswith("550 5.6.11 ")
    assert servers.ours[name].mailbox.messages == []


@pytest.mark.parametrize("name", [OURS, OURS_UNDER_TLS])
def test_a_true_end_of_data_ends_the_message(servers: Servers, name: str) -> None:
    try:
        verdict = smuggle(servers.found[name][0], b"\r\n.\r\n", tls=name == OURS_UNDER_TLS)
        assert verdict.accepted == 2
        assert [message.sender for message in servers.ours[name].mailbox.messages] == [
            "ann@sender.test",
            "evil@sender.test",
        ]
    finally:
        servers.ours[name].mailbox.messages.clear()


@pytest.mark.parametrize("name", [name for name in ORDER if name not in (OURS, OURS_UNDER_TLS)])
def test_others_answer_each_look_alike(servers: Servers, name: str) -> None:
    if name not in servers.found:
        pytest.skip(f"{name} cannot run here: {HOW_TO_GET_THEM}")
    port, version = servers.found[name]
    assert version
    for look_alike in LOOK_ALIKES:
        assert smuggle(port, look_alike).replies


def test_the_document_says_of_ours_what_is_asserted_here() -> None:
    lines = _DOCUMENT.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0][1:3] == [OURS, OURS_UNDER_TLS]
    refused = "refused, 550 5.6.11"
    assert [row[:3] for row in rows[2:]] == [[smuggling.shown(each), refused, refused] for each in LOOK_ALIKES]
