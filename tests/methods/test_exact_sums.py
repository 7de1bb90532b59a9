"""What a method sends in the long run follows from one exchange of each kind, for every method of the catalog."""

from dataclasses import replace

import pytest
import torch

from thinwire.layout import Layout
from thinwire.methods import (
    CATALOG,
    Every,
    Method,
    ModelAveraging,
    ZeroOneAdam,
    apart,
    exchanges_per_step,
    parse_method,
)
from thinwire.simulator import Simulation
from thinwire.worker import needs_server
from thinwire.worker.subject import Subject

SIZE, LAYOUT = 4, Layout(("w", "b"), (torch.Size([40, 50]), torch.Size([1000])))
EVERY = pytest.mark.parametrize("name", [row.name for row in CATALOG if not needs_server(parse_method(row.name))])
DENSE_BYTES = 4 * LAYOUT.numel


def bytes_of_steps(method: Method, count: int) -> list[int]:
    """What the worker that sends most hands over at each of so many steps, without the warm-up."""
    generator = torch.Generator().manual_seed(3)
    vectors = [torch.randn(LAYOUT.numel, generator=generator) for _ in range(4)]
    subjects = [Subject(method, rank, SIZE, vectors) for rank in range(SIZE)]
    for subject in subjects:
        subject.begin_shapes(LAYOUT.shapes)
    Simulation(SIZE).run([subject.set_out() for subject in subjects])
    found, before = [], [0] * SIZE
    for _ in range(count):
        for subject in subjects:
            subject.move()
        Simulation(SIZE).run([subject.step() for subject in subjects])
        after = [subject.message_bytes for subject in subjects]
        found.append(max(new - old for new, old in zip(after, before, strict=True)))
        before = after
    return found


@EVERY
def test_exchanges_are_alike_once_sums_are_apart(name: str) -> None:
    method, _ = apart(parse_method(name), LAYOUT)
    period = round(1 / exchanges_per_step(method))
    sent = [num_bytes for num_bytes in bytes_of_steps(method, 8 * max(period, 1) + 8) if num_bytes][2:]
    assert len(sent) >= 4
    # GSpar draws how many it sends.
    assert max(sent) <= 1.4 * min(sent)


def test_states_are_summed_beside_the_exchanges() -> None:
    given = parse_method("des-loc:every=4,momentum=6,variance=8")
    method, sums = apart(given, LAYOUT)
    alike = sum(bytes_of_steps(method, 48))
    assert alike == DENSE_BYTES * 48 / 4
    assert sum(bytes_of_steps(given, 48)) == alike + 48 * sums.per_step * DENSE_BYTES


def test_a_variance_that_is_learnt_for_ever_takes_its_gradients() -> None:
    given = parse_method("01-adam")
    assert isinstance(given, ModelAveraging)
    assert isinstance(given.update, ZeroOneAdam)
    for_ever = replace(given, update=replace(given.update, variance=Every(4), freeze=None))
    assert [apart(each, LAYOUT)[1].per_step for each in (given, for_ever)] == [0.0, 0.25]


def test_full_rounds_come_in_place_of_others_as_often_as_said() -> None:
    given = replace(parse_method("marina:density=25%"), warm_up=None)
    method, sums = apart(given, LAYOUT)
    alike, sent = max(bytes_of_steps(method, 20)), bytes_of_steps(given, 400)
    full = sent.count(DENSE_BYTES)
    assert all(num_bytes <= 1.01 * alike for num_bytes in sent if num_bytes != DENSE_BYTES)
    assert abs(full / 400 - sums.instead) < 4 * (sums.instead * (1 - sums.instead) / 400) ** 0.5
    assert full > 0
