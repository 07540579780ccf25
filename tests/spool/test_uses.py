"""Aliases for so many messages: who takes the last use, and what happens to it where nothing comes of the message."""

from dataclasses import replace

from appliance.model.domain import Alias, AliasAction
from appliance.spool.uses import Uses
from appliance.storage.spool import CountUse

FREE = Alias("a1", "d1", "free", AliasAction.DISCARD, (), "aaaaaa", 0)
THREE = replace(FREE, id="a2", max_uses=3, use_counter="c2")
ONE = replace(FREE, id="a3", max_uses=1, use_counter="c3")


def test_an_alias_without_a_limit_is_not_counted() -> None:
    uses = Uses({})
    assert uses.left(FREE) is None
    assert uses.take([FREE, FREE]) == []
    assert uses.uncopied() == {}


def test_each_message_takes_one_use_however_often_an_alias_is_on_its_way() -> None:
    uses = Uses({"c2": 1})
    assert uses.left(THREE) == 2
    assert uses.take([THREE, FREE, THREE]) == [CountUse("c2", 0)]
    assert uses.left(THREE) == 1
    uses.end([CountUse("c2", 0)], accepted=True)
    assert uses.left(THREE) == 1


def test_where_one_alias_has_none_left_none_is_taken_of_the_others() -> None:
    uses = Uses({"c3": 1})
    assert uses.left(ONE) == 0
    assert uses.take([THREE, ONE]) is None
    assert uses.left(THREE) == 3


def test_of_a_message_that_was_not_accepted_the_use_is_given_back() -> None:
    uses = Uses({})
    taken = uses.take([ONE])
    assert taken is not None
    assert uses.take([ONE]) is None
    uses.end(taken, accepted=False)
    assert uses.left(ONE) == 1
    assert uses.uncopied() == {}, "nobody is shown what may not come to be"


def test_what_people_have_been_shown_is_not_shown_again_and_what_came_since_is() -> None:
    uses = Uses({"c2": 1})
    first = uses.uncopied()
    assert first == {"c2": 1}, "a crash may have come before it was shown"
    uses.end(uses.take([THREE]) or [], accepted=True)
    uses.copied(first)
    assert uses.uncopied() == {"c2": 2}
    uses.copied({"c2": 2})
    assert uses.uncopied() == {}


def test_a_spool_that_has_lost_its_counts_goes_on_from_what_people_were_shown() -> None:
    uses = Uses({})
    shown = replace(THREE, uses=2)
    assert uses.left(shown) == 1
    assert uses.take([shown]) == [CountUse("c2", 2)]
    assert uses.left(shown) == 0
    uses.end([CountUse("c2", 2)], accepted=True)
    assert (uses.left(shown), uses.left(THREE)) == (0, 0)


def test_counters_of_aliases_that_are_gone_are_forgotten() -> None:
    uses = Uses({"c2": 1, "c3": 1})
    assert uses.all_but({"c3"}) == {"c2"}
    uses.forget(["c2"])
    assert uses.uncopied() == {"c3": 1}
    assert uses.left(THREE) == 3


def test_what_other_nodes_have_counted_is_used_up_here_as_well() -> None:
    uses = Uses({"c2": 1})
    uses.learn({"c2": 2, "c9": 5})
    assert uses.left(THREE) == 1
    uses.learn({"c2": 1})
    assert uses.left(THREE) == 1, "what was read before is not believed after"
    assert "c9" not in uses.uncopied(), "who counts it shows it"
