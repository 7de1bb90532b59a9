"""What best_operator chooses, against compositions that somebody might try, on draws of the tests' own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from thinwire.compressors import EDEN, QSGD, Compressor, GSpar, Sign, Successive, TopK, Traits
from thinwire.compressors.bernoulli import Bernoulli
from thinwire.experiments.training import one_torch_thread
from thinwire.frontier import Choice, best_operator
from thinwire.frontier.climb import Aim, Climb
from thinwire.frontier.configurations import Configuration
from thinwire.frontier.families import all_families
from thinwire.frontier.finalists import interval
from thinwire.frontier.ladders import OperatorFamily, plain_families
from thinwire.frontier.moves import coordinates, moved, switched
from thinwire.frontier.points import Kind
from thinwire.frontier.problems import Problem
from thinwire.frontier.search import Search
from thinwire.layout import Layout, Segments
from thinwire.payloads import Dense
from thinwire.random import Key
from thinwire.wire import encode

FINE = QSGD(levels=15, norm="max", coding="entropy")
SEARCHED = {"TopK", "GSpar", "EDEN", "QSGD", "Sign", "Successive"}


def measured(compressor: Compressor, segments: Segments, x: Tensor, count: int = 64) -> tuple[float, float, float]:
    """Bits an entry, error and its standard error."""
    square = float(x.double().square().sum())
    num_bytes, errors = 0, []
    for number in range(count):
        payload = compressor.compress(x, Key(99).fold("test", number), segments)
        num_bytes += encode(payload).numel()
        errors.append(float((payload.to_dense().double() - x.double()).square().sum()) / square)
    return 8 * num_bytes / count / x.numel(), float(np.mean(errors)), float(np.std(errors)) / math.sqrt(count - 1)


def cut(choice: Choice, x: Tensor) -> Segments:
    return choice.granularity.segments(Layout(("x",), (x.shape,)))


def blocks(numel: int) -> Tensor:
    """The first eight entries of every 64 are not 0."""
    generator = np.random.default_rng(3)
    x = np.zeros((numel // 64, 64), np.float32)
    for row in x:
        row[:8] = generator.standard_normal(8)
    return torch.from_numpy(x).view(-1)


def student(numel: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_t(1.5, numel).astype(np.float32))


def gaussian(numel: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal(numel).astype(np.float32))


RIVALS: list[tuple[Callable[[int], Tensor], Kind, Compressor]] = [
    (blocks, "unbiased", GSpar(density=0.7, values=QSGD(levels=63, norm="max"))),
    (student, "unbiased", Successive(TopK(density=0.0328, values=FINE), EDEN(0.5))),
    (gaussian, "contraction", Successive(TopK(density=0.0379, values=FINE), TopK(density=0.5, values=Sign()))),
]


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators of the rivals, each of which could be found: all take a minute."""

    def families(problem: Problem) -> list[OperatorFamily]:
        return [family for family in all_families(problem) if family.operator in SEARCHED]

    monkeypatch.setattr("thinwire.frontier.search.all_families", families)


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize(("make", "kind", "rival"), RIVALS, ids=["blocks", "student", "gaussian"])
def test_no_composition_at_hand_is_better_and_what_is_said_is_true(
    make: Callable[[int], Tensor], kind: Kind, rival: Compressor
) -> None:
    x = make(1024)
    with one_torch_thread():
        budget, theirs, _ = measured(rival, Segments.whole(x.numel()), x)
        choice = best_operator(x, bits_per_entry=budget, kind=kind, draws=1)
    bits, error, deviation = measured(choice.compressor, cut(choice, x), x)
    assert bits <= budget * 1.005
    low, high = choice.error_low - 4 * deviation, choice.error_high + 4 * deviation
    assert low <= error <= high, (error, choice)
    assert choice.error <= 1.01 * theirs, str(choice)


@pytest.mark.usefixtures("fewer")
def test_an_error_that_is_asked_for_is_kept_on_other_draws() -> None:
    x = student(512)
    with one_torch_thread():
        choice = best_operator(x, error=0.2, kind="unbiased", draws=1)
    assert choice.error <= 0.2
    _, error, deviation = measured(choice.compressor, cut(choice, x), x)
    assert error <= 0.2 + 4 * deviation


def test_two_equal_draws_do_not_make_an_operator_exact() -> None:
    """One entry of many is drawn: with probability .9 it is there, and two draws are mostly alike."""
    x = torch.zeros(64)
    x[5] = 1.0
    one = Configuration(Bernoulli(density=0.9))
    few = [Problem([x.unsqueeze(0)], 2, f"{number}").measure(one) for number in range(20)]
    many = Problem([x.unsqueeze(0)], 64, "many").measure(one)
    assert many is not None
    assert many.error == pytest.approx(1 / 0.9 - 1, abs=4 * many.error_deviation + 0.02)
    assert many.error_deviation > 0.0
    assert any(each is not None and each.error < 0.02 for each in few)


@dataclass(frozen=True, slots=True)
class Rare:
    """Everything exactly, but the largest entry once in 500 times and 500 times as large."""

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Dense:
        sent = x.clone()
        sent[int(x.abs().argmax())] *= 500.0 if key.bits64() % 500 == 0 else 0.0
        return Dense(sent)

    def outline(self, segments: Segments) -> Dense:
        return Dense(torch.empty(segments.numel, device="meta"))

    def traits(self, numel: int) -> Traits:
        return Traits(unbiased=True, error=499.0)


def test_large_errors_that_are_rare_are_noticed_by_what_is_missing() -> None:
    """An entry with two fifths of the norm is kept once in 500 times, 500 times as large."""
    x = torch.ones(601)
    x[7] = 20.0
    many = Problem([x.unsqueeze(0)], 64, "rare").measure(Configuration(Rare()))
    assert many is not None
    assert many.error < 0.5  # and truly 499 times 400 / 1000
    assert not many.is_typical


def test_the_interval_is_that_of_the_draws() -> None:
    x = gaussian(512)
    held = 0
    exact = Problem([x.unsqueeze(0)], 2000, "exact").measure(Configuration(QSGD(levels=3, norm="max")))
    assert exact is not None
    for number in range(100):
        found = Problem([x.unsqueeze(0)], 16, f"{number}").measure(Configuration(QSGD(levels=3, norm="max")))
        assert found is not None
        low, high = interval(found)
        held += low <= exact.error <= high
    assert 85 <= held <= 100


def test_coordinates_and_switches_reach_every_field() -> None:
    nested = Successive(TopK(density=0.1, values=QSGD(levels=7, norm="max")), EDEN(0.5))
    found = {at.path: at.value for at in coordinates(nested)}
    assert found == {("first", "density"): 0.1, ("first", "values", "levels"): 7, ("second", "bits"): 0.5}
    other = moved(nested, ("first", "values", "levels"), 15)
    assert isinstance(other, Successive)
    assert other.first == TopK(density=0.1, values=QSGD(levels=15, norm="max"))
    assert moved(nested, ("second", "bits"), 1e9) is None
    assert Successive(TopK(density=0.1, values=QSGD(levels=7, norm="max")), EDEN(0.5, scale="contraction")) in switched(
        nested
    )


def test_a_climb_uses_the_budget_up_by_all_numbers() -> None:
    x = student(2048)
    with one_torch_thread():
        search = Search(Problem([x.unsqueeze(0)], 2), plain_families(TopK, (None,)))
        start = search.measure(Configuration(TopK(density=0.05, values=QSGD(levels=1, norm="max", coding="entropy"))))
        assert start is not None
        aim = Aim(1.0, of_bits=True, kind="any")
        found = Climb(search, aim, start, 300).run()
    assert aim.admits(found)
    assert found.bits > 0.98
    assert found.error < 0.5 * start.error
    # The ladder has one level for all densities.
    levels: Any = found.configuration.compressor
    assert levels.values.levels > 3


def test_a_choice_says_how_sure_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [family for cls in (QSGD, Sign) for family in plain_families(cls, (None,))]
    monkeypatch.setattr("thinwire.frontier.search.all_families", lambda problem: few)
    choice = best_operator(gaussian(256), bits_per_entry=4.0, kind="unbiased", draws=2)
    assert choice.error_low < choice.error < choice.error_high
    assert f"({choice.error_low:.4g} to {choice.error_high:.4g})" in str(choice)
    exact = best_operator(gaussian(256), bits_per_entry=1.5, draws=2)
    assert exact.error_low == exact.error == exact.error_high
    assert " to " not in str(exact)
