"""How much of the mean is not zero, counted when it is asked for."""

import pytest
from method_cases import Crew, flat

from thinwire.methods import parse_method


@pytest.mark.parametrize("exchange", ["gather", "server"])
def test_it_is_the_share_of_entries_that_some_worker_sent(exchange: str) -> None:
    crew = Crew(parse_method(f"topk:k=4,exchange={exchange}"), 3)
    for worker in crew.workers:
        worker.runner.counts_union = True
    assert crew.workers[0].runner.union_density is None
    for _ in range(3):
        before = flat(crew.models[0])
        crew.step()
        moved = int((flat(crew.models[0]) != before).sum())
        assert 4 <= moved <= 12
        assert [worker.runner.union_density for worker in crew.workers] == [moved / before.numel()] * 3


@pytest.mark.parametrize(
    ("text", "most"), [("shared-randk:k=4", 4), ("gtopk:k=4", 4), ("double-squeeze:k=4", 4), ("topk:k=4", 12)]
)
def test_a_sum_that_is_compressed_again_or_has_one_support_does_not_fill_in(text: str, most: int) -> None:
    crew = Crew(parse_method(text), 3)
    crew.workers[1].runner.counts_union = True
    crew.run(4)
    density = crew.workers[1].runner.union_density
    assert density is not None
    assert 0.0 < density <= most / crew.workers[0].layout.numel


def test_it_is_part_of_the_state() -> None:
    crew = Crew(parse_method("topk:k=2,every=3"), 2)
    crew.workers[0].runner.counts_union = True
    crew.run(4)
    state = crew.workers[0].state_dict()
    (fresh, _) = Crew(parse_method("topk:k=2,every=3"), 2).workers
    fresh.load_state_dict(state)
    assert fresh.runner.union_density == crew.workers[0].runner.union_density is not None
