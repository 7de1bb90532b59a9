"""What all members of a quorum conclude alike of where each stands."""

import random
from dataclasses import replace

import pytest

from thinwire.errors import ProtocolError
from thinwire.fault_tolerance.standing import Standing, conclude

BASE = Standing("a", "0", "terms", True, 5, 11, 0, True)


def crew(*standings: Standing) -> list[Standing]:
    return [replace(each, name=f"p{rank}", number=str(rank)) for rank, each in enumerate(standings)]


def test_who_agrees_does_not_heal() -> None:
    found = conclude(crew(BASE, BASE, BASE))
    assert (found.leader, found.healing, found.refused) == (0, (), {})


def test_the_most_exchanges_lead_and_then_the_most_members() -> None:
    behind, odd = replace(BASE, num_exchanges=4), replace(BASE, common=12)
    assert conclude(crew(behind, BASE)).leader == 1
    assert conclude(crew(behind, BASE)).healing == (0,)
    assert conclude(crew(odd, BASE, BASE)).healing == (0,)
    assert conclude(crew(BASE, odd, odd)).healing == (0,)
    assert conclude(crew(BASE, odd)).healing == (1,)


@pytest.mark.parametrize("seed", range(50))
def test_a_new_model_is_never_taken_over_by_those_that_have_begun(seed: int) -> None:
    generator = random.Random(seed)
    new = replace(BASE, has_begun=False, num_exchanges=0, is_due=False)
    members = [
        replace(generator.choice((BASE, new)), common=generator.randrange(3), num_exchanges=generator.randrange(4))
        for _ in range(generator.randint(2, 6))
    ]
    members = crew(*(each if each.has_begun else replace(each, num_exchanges=0) for each in members))
    found = conclude(members)
    if any(each.has_begun for each in members):
        assert members[found.leader].has_begun
        assert {rank for rank, each in enumerate(members) if not each.has_begun} <= {*found.healing}
    else:
        assert found.leader == 0
    assert found.leader not in found.healing
    assert members[found.leader].num_exchanges == max(each.num_exchanges for each in members)
    led = {rank for rank in range(len(members)) if rank not in found.healing}
    assert len({members[rank].common for rank in led}) == 1


def test_all_new_ones_take_the_first_ones_model_and_buffers() -> None:
    new = replace(BASE, has_begun=False, num_exchanges=0, is_due=False)
    found = conclude(crew(new, replace(new, common=3), replace(new, rest=3), new))
    assert (found.leader, found.healing, found.is_due) == (0, (1, 2), False)


def test_buffers_are_each_ones_own_once_it_has_begun() -> None:
    assert conclude(crew(BASE, replace(BASE, rest=9))).healing == ()


def test_who_differs_in_terms_or_has_anothers_name_must_leave() -> None:
    members = crew(BASE, replace(BASE, terms="others", has_begun=False), BASE)
    found = conclude(members)
    assert list(found.refused) == [1]
    assert "it has others, where 'p0' has terms" in found.refused[1]
    twins = [replace(BASE, has_begun=False, number="1"), BASE, replace(BASE, name="b", number="2")]
    assert list(conclude(twins).refused) == [0]


def test_what_they_do_together_has_a_name_of_its_own() -> None:
    one, other = crew(BASE, BASE), [replace(each, number=each.number + "x") for each in crew(BASE, BASE)]
    assert conclude(one).name == conclude(one).name != conclude(other).name


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"name": 3}', BASE.to_text().replace("true", "1"), "nonsense"])
def test_what_is_no_standing_is_refused(text: str) -> None:
    assert Standing.of_text(BASE.to_text()) == BASE
    with pytest.raises(ProtocolError, match="all must run one version of thinwire"):
        Standing.of_text(text)
