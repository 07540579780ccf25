"""What is done once the answer is given: one after another, tried again, and never in the way of the next."""

import logging
import threading
from collections.abc import Iterator

import pytest
from entrance_hall import ADA, Bag

from appliance.access.errands import WAITING, Errand, ErrandThread
from appliance.access.postbox import Postbox
from appliance.model.letter import Letter, LetterRefused, NotPosted
from appliance.model.refused import TooMany

PATIENCE_S = 30


@pytest.fixture
def errands() -> Iterator[ErrandThread]:
    """Errands with a thread that does them."""
    errands = ErrandThread(pauses_s=(0.0, 0.0))
    thread = threading.Thread(target=errands.run)
    thread.start()
    yield errands
    errands.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def done(errands: ErrandThread) -> None:
    """Wait until all that was added is done."""
    last = threading.Event()
    errands.add(last.set)
    assert last.wait(PATIENCE_S)


def letter(text: str) -> Letter:
    return Letter(ADA, "Subject", text)


def test_errands_are_done_in_another_thread_in_their_order(errands: ErrandThread) -> None:
    threads: list[tuple[int, threading.Thread]] = []
    for number in range(5):
        errands.add(lambda number=number: threads.append((number, threading.current_thread())))  # type: ignore[misc]
    done(errands)
    assert [number for number, _ in threads] == list(range(5))
    assert threading.current_thread() not in {thread for _, thread in threads}


def test_a_letter_is_tried_again_while_the_post_is_out_of_order(errands: ErrandThread) -> None:
    bag = Bag(out_of_order=2)
    postbox = Postbox(bag, errands)
    postbox.post(letter("one"))
    postbox.post(letter("two"))
    done(errands)
    assert [each.text for each in bag.letters] == ["one", "two"]


def test_a_letter_for_which_there_is_no_way_keeps_nobody_waiting(errands: ErrandThread) -> None:
    class Wall:
        tries = 0

        def send(self, letter: Letter) -> None:
            self.tries += 1
            raise LetterRefused("there is no such address")

    wall = Wall()
    Postbox(wall, errands).post(letter("one"))
    done(errands)
    assert wall.tries == 1


def test_what_is_written_behind_the_answer_is_written_once(errands: ErrandThread) -> None:
    bag = Bag(out_of_order=2)
    texts = iter(["first", "second"])
    Postbox(bag, errands).write_and_post(lambda: letter(next(texts)))
    done(errands)
    assert [each.text for each in bag.letters] == ["first"]


def test_where_there_is_nothing_to_write_nothing_is_sent(errands: ErrandThread) -> None:
    bag = Bag()
    Postbox(bag, errands).write_and_post(lambda: None)
    done(errands)
    assert bag.letters == []


def test_a_letter_that_is_lost_is_in_the_log_without_what_it_says(
    errands: ErrandThread, caplog: pytest.LogCaptureFixture
) -> None:
    bag = Bag(out_of_order=3)
    postbox = Postbox(bag, errands)
    postbox.post(letter("a token"))
    postbox.post(letter("the next"))
    done(errands)
    assert [each.text for each in bag.letters] == ["the next"]
    assert "a letter was not sent" in caplog.text
    assert "token" not in caplog.text
    assert ADA not in caplog.text


def test_a_defect_in_one_errand_keeps_no_other_from_being_done(
    errands: ErrandThread, caplog: pytest.LogCaptureFixture
) -> None:
    def defect() -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        errands.add(defect)
        done(errands)
    assert "met a defect" in caplog.text


def test_where_too_many_wait_one_more_is_refused_but_what_only_tells_is_left_out() -> None:
    errands, bag = ErrandThread(), Bag()
    for _ in range(WAITING):
        errands.add(lambda: None)
    postbox = Postbox(bag, errands)
    with pytest.raises(TooMany):
        postbox.post(letter("one"))
    postbox.tell(letter("two"))
    errands.close()
    errands.run()
    assert bag.letters == []


def test_what_waits_at_the_end_is_tried_once_more_and_without_a_pause() -> None:
    errands, tried = ErrandThread(pauses_s=(3600.0,)), []

    def in_vain() -> None:
        tried.append("in vain")
        raise NotPosted("closed")

    work: list[Errand] = [in_vain, lambda: tried.append("the last")]
    for errand in work:
        errands.add(errand)
    errands.close()
    errands.run()
    assert tried == ["in vain", "the last"]
