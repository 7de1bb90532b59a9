"""What best_operator finds is compared with every registered operator, by the tests' own measurements."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import thinwire.methods  # noqa: F401  registers everything
from thinwire.compressors import QSGD, Bernoulli, Identity, KLevel, Sign, TopK, Traits
from thinwire.config import from_json, register, registered, to_json
from thinwire.errors import ConfigError
from thinwire.experiments.recorder import Recorder
from thinwire.experiments.recording import RecordingPlan
from thinwire.experiments.tasks import load_task
from thinwire.experiments.training import one_torch_thread
from thinwire.frontier import best_operator, make_input
from thinwire.frontier.configurations import Configuration, compressor_classes, describe
from thinwire.frontier.ladders import nested_families, plain_families
from thinwire.frontier.problems import Problem, running_sum_error
from thinwire.frontier.search import Search
from thinwire.layout import Segments
from thinwire.payloads import Dense
from thinwire.random import Key

BUDGETS = (0.1, 0.5, 1.0, 2.0, 4.0)
INPUTS = ("gaussian", "lognormal", "student", "recorded")
NUMEL = 2048


def signal(name: str) -> Tensor:
    return recorded() if name == "recorded" else make_input(name, NUMEL, num_noises=1).signal


@functools.cache
def recorded() -> Tensor:
    plan = RecordingPlan(method="sgd", workers=1, steps=20, every=20, lr=0.1, batch_size=32)
    recorder = Recorder(plan, load_task("digits"))
    recorder.run(lambda step: None)
    return recorder.recording().gradient.vectors[0, :NUMEL].clone()


@functools.cache
def searched(name: str) -> Search:
    with one_torch_thread():
        return Search(Problem([signal(name).unsqueeze(0)], draws=1))


def named_operators() -> dict[str, list[Configuration]]:
    """Every registered operator along its own parameters, and around the plainest of what it takes."""
    found: dict[str, list[Configuration]] = {}
    for cls in compressor_classes():
        own = [
            made for family in plain_families(cls, (None, 512)) for knob in family.knobs
            if (made := family.make(knob)) is not None
        ]  # fmt: skip
        if not own:
            around = [family for inner in (TopK, KLevel) for family in plain_families(inner, (None,))]
            own = [
                made for family in nested_families(cls, [Sign(), Identity(), QSGD(levels=7, norm="max")], around)
                for knob in family.knobs if (made := family.make(knob)) is not None
            ]  # fmt: skip
        assert own
        found[cls.__name__] = own
    return found


@pytest.mark.parametrize("name", INPUTS)
def test_the_choice_is_at_least_as_good_as_every_operator(name: str) -> None:
    search = searched(name)
    with one_torch_thread():
        problem = search.problem  # what it has measured is not measured again
        rivals = {
            name: [
                measured
                for one in own
                if (measured := problem.measure(one)) is not None
                # Neither is compared whose draws cannot show its error.
                and (measured.is_typical or not one.traits(NUMEL).unbiased)
            ]
            for name, own in named_operators().items()
        }
        for budget in BUDGETS:
            chosen = search.best(budget)
            assert chosen is not None
            assert chosen.bits <= budget
            for operator, own in rivals.items():
                for measured in own:
                    if measured.bits <= budget:
                        assert chosen.error <= measured.error * (1 + 1e-9), (budget, operator, chosen)
            # Each kind is refined anew: at two budgets, one where nothing unbiased is good.
            for kind in ("unbiased", "contraction") if budget in (0.5, 2.0) else ():
                of_kind = search.best(budget, kind)
                assert of_kind is None or (of_kind.is_of(kind) and of_kind.error >= chosen.error)


@pytest.mark.parametrize("name", INPUTS)
def test_every_registered_operator_was_measured(name: str) -> None:
    assert {point.operator for point in searched(name).points} == {cls.__name__ for cls in compressor_classes()}


def test_the_budget_is_used_up_where_more_bits_help() -> None:
    chosen = searched("student").best(1.0)
    assert chosen is not None
    assert 0.97 < chosen.bits <= 1.0


def test_an_error_is_met_with_fewer_bits_than_the_budget_that_gave_it() -> None:
    search = searched("gaussian")
    with one_torch_thread():
        chosen = search.best(2.0)
        assert chosen is not None
        cheapest = search.cheapest(chosen.error)
    assert cheapest is not None
    assert cheapest.error <= chosen.error
    assert cheapest.bits <= chosen.bits
    assert search.cheapest(-1.0) is None
    assert search.best(1e-6) is None


def test_the_choice_can_be_stored_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever is searched: all operators are, for every kind of vector, above.
    few = [family for cls in (QSGD, Sign, TopK, KLevel) for family in plain_families(cls, (None,))]
    monkeypatch.setattr("thinwire.frontier.search.all_families", lambda problem: few)
    x = make_input("lognormal", 256, num_noises=1).signal
    choice = best_operator(x, bits_per_entry=2.0, kind="contraction", draws=1)
    assert choice.contraction
    assert from_json(to_json(choice.compressor)) == choice.compressor
    choice.compressor.compress(x, Key(0), Segments.whole(256))
    assert "bits an entry" in str(choice)
    assert str(choice).endswith("contraction)")
    unproven = dataclasses.replace(choice, unbiased=False, contraction=False)
    assert "not for error feedback" in str(unproven)


@pytest.mark.parametrize(
    "given",
    [
        {}, {"bits_per_entry": 1.0, "error": 0.1}, {"bits_per_entry": 0.0}, {"bits_per_entry": 1.0, "kind": "good"},
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        best_operator(torch.randn(64, generator=torch.Generator().manual_seed(0)), draws=1, **given)


@pytest.mark.parametrize("x", [torch.zeros(4), torch.empty(0), torch.tensor([float("nan")]), torch.ones(2).double()])
def test_vectors_without_an_error_are_refused(x: Tensor) -> None:
    with pytest.raises(ConfigError):
        Problem([x.unsqueeze(0)])


def test_draws_of_nothing_are_not_taken_for_a_small_error() -> None:
    """Of one entry in 4096 nearly every draw is empty, with an error of 1 instead of 4095."""
    x = make_input("gaussian", 512, num_noises=1).signal
    problem = Problem([x.unsqueeze(0)], draws=2)
    rare, usual = Bernoulli(density=2.0**-12), Bernoulli(density=0.5)
    measured = [problem.measure(Configuration(one)) for one in (rare, usual)]
    assert [one is not None and one.is_typical for one in measured] == [False, True]
    assert measured[0] is not None
    assert measured[0].error == pytest.approx(1.0)
    families = plain_families(Bernoulli, (None,))
    found = Search(problem, families).best(8.0, "unbiased")
    assert found is not None
    assert found.bits > 1.0


def test_errors_are_those_of_the_definition() -> None:
    x = make_input("gaussian", 1000, num_noises=8)
    top = Configuration(TopK(density=0.1))
    measured = Problem([x.clients(1)]).measure(top)
    kept = x.signal.double().square().sort(descending=True).values
    assert measured is not None
    assert measured.error == pytest.approx(float(kept[100:].sum() / kept.sum()), rel=1e-6)
    clients = x.clients(8)
    mean = clients.double().mean(0)
    decoded = torch.stack([top.compressor.compress(row, Key(0), Segments.whole(1000)).to_dense() for row in clients])
    expected = float((decoded.double().mean(0) - mean).square().sum() / mean.square().sum())
    averaged = Problem([clients]).measure(top)
    assert averaged is not None
    assert averaged.error == pytest.approx(expected, rel=1e-6)


def test_the_error_of_an_unbiased_operator_is_its_conditional_variance() -> None:
    x = make_input("gaussian", 2000, num_noises=1).signal
    measured = Problem([x.unsqueeze(0)], draws=64).measure(Configuration(QSGD(levels=3, norm="max")))
    assert measured is not None
    scaled = 3.0 * x.double().abs() / x.double().abs().max()
    part = scaled - scaled.floor()
    exact = float((part * (1 - part)).sum() / scaled.square().sum())
    assert measured.error == pytest.approx(exact, rel=0.05)


def test_a_memory_leaves_only_its_last_residual() -> None:
    data = make_input("gaussian", 500, num_noises=20)
    steps = [data.step(number) for number in range(20)]
    with_memory = running_sum_error(Configuration(TopK(density=0.2)), steps, memory=True)
    assert with_memory < 0.1 * running_sum_error(Configuration(TopK(density=0.2)), steps, memory=False)
    assert running_sum_error(Configuration(Identity()), steps, memory=True) == 0.0
    unstable = Configuration(TopK(density=0.5, values=QSGD(levels=1)))
    assert running_sum_error(unstable, steps * 10, memory=True) > 1.0


def test_an_operator_needs_no_ladder() -> None:
    @register
    @dataclass(frozen=True, slots=True)
    class ToyOfFrontier:
        """``C(x) = 0``."""

        def compress(self, x: Tensor, key: Key, segments: Segments) -> Dense:
            return Dense(torch.zeros_like(x))

        def outline(self, segments: Segments) -> Dense:
            return Dense(torch.zeros(segments.numel))

        def traits(self, numel: int) -> Traits:
            return Traits(unbiased=False, error=1.0)

    try:
        assert ToyOfFrontier in compressor_classes()
        (made,) = {family.make(None) for family in plain_families(ToyOfFrontier, (None,))}
        assert made == Configuration(ToyOfFrontier())
        assert describe(ToyOfFrontier()) == "ToyOfFrontier()"
    finally:
        import thinwire.config

        thinwire.config._REGISTRY.pop("ToyOfFrontier")
    assert "ToyOfFrontier" not in registered()
    assert Sign in compressor_classes()
