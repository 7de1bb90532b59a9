"""Compressed messages between shards: what is conserved, what all compute with, what it costs, what is refused."""

import functools
from pathlib import Path
from typing import Any

import pytest
import shards_mains as mains
import torch

from thinwire.experiments.launch import launch

SIZE = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("shards")
    launch(SIZE, functools.partial(mains.all_laws, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=True) for rank in range(SIZE)]


LAYERS = ("0", "2", "4")


def largest_of(tensors: dict[str, Any], layer: str) -> float:
    return max(float(tensor.abs().max()) for name, tensor in tensors.items() if name.startswith(layer))


def apart(one: dict[str, Any], other: dict[str, Any], layer: str) -> float:
    return largest_of({name: one[name] - other[name] for name in one}, layer)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("kind", ["identity", "bf16"])
def test_without_compression_it_has_the_bits_of_full_sharding(kind: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        dense, ours = each[kind]
        assert same(dense, ours)


def test_what_is_applied_and_what_is_remembered_are_the_gradients(found: list[dict[str, Any]]) -> None:
    """``applied + what the other process remembers of this one's shard / 2 = the sum of means``."""
    for rank, each in enumerate(found):
        of_other = found[1 - rank]["conserved"]["memory"]
        # Nothing is owed to oneself.
        assert not any(name.startswith(f"memory.residual.{1 - rank}.") for name in of_other)
        for name, applied in each["conserved"]["applied"].items():
            owed = of_other[f"memory.residual.{rank}.{name}"][: applied.numel()].view(applied.shape) / SIZE
            torch.testing.assert_close(applied + owed, each["conserved"]["dense"][name], rtol=0, atol=1e-6)
        assert not same(each["conserved"]["applied"], each["conserved"]["dense"])


def test_gradients_that_are_thrown_away_leave_the_memory_as_it_was(found: list[dict[str, Any]]) -> None:
    for each in found:
        before, after = each["thrown away"]
        assert same(before, after)
        assert any(tensor.any() for tensor in before.values())


def test_all_compute_with_the_same_weights_of_8_bits(found: list[dict[str, Any]]) -> None:
    for each in found:
        mine = each["weights"]
        assert same(mine["first"], found[0]["weights"]["first"])
        assert same(mine["first"], mine["second"])  # as backward does
        for layer in LAYERS:
            # Blocks may hold entries of both tensors of a layer.
            largest = largest_of(mine["exact"], layer)
            assert 0 < apart(mine["first"], mine["exact"], layer) <= largest / 127 * (1 + 1e-5)


def test_differences_carry_on_what_a_message_left_out(found: list[dict[str, Any]]) -> None:
    for each in found:
        steps = each["differences"]
        for number, step in enumerate(steps):
            assert same(step["used"], found[0]["differences"][number]["used"])
            if number == 0:
                continue
            before = steps[number - 1]
            for layer in LAYERS:
                sent = apart(before["exact"], before["used"], layer)
                # One of 7 levels of the largest difference is the most that rounding takes.
                assert 0 < apart(step["used"], before["exact"], layer) <= sent / 7 * (1 + 1e-3)
        assert not same(steps[-1]["used"], steps[-2]["exact"])


def test_four_bits_are_at_least_six_times_fewer_bytes_each_way(found: list[dict[str, Any]]) -> None:
    for each in found:
        gradients, weights = each["bytes"]["sent"]
        dense = 4 * each["bytes"]["own"]  # to each of the others, as much as the other has
        assert 6 * gradients <= dense
        # Weights are gathered in forward, and once more in backward by all layers but the last one used.
        assert 6 * weights <= 2 * dense
        sent, received = each["bytes"]["link"]
        assert abs(sent - gradients - weights) <= 0.01 * sent
        assert abs(received - sent) <= 0.01 * sent


def test_a_saved_state_goes_on_with_the_bits_of_one_that_was_not_interrupted(found: list[dict[str, Any]]) -> None:
    for each in found:
        for straight, cut in zip(each["resumed"][::2], each["resumed"][1::2], strict=True):
            assert straight["counts"] == cut["counts"]
            assert same(straight["model"], cut["model"])


REFUSED = {
    "nothing": "neither gradients nor weights were given",
    "local steps": "averages models after local steps",
    "exchange": "has an exchange of its own or a warm-up",
    "server": "has an exchange of its own or a warm-up",
    "memory": "has a memory, and weights are whole at every gather",
    "no weights": "weight_differences=True was given without weights",
    "plain": "Linear is not sharded by FSDP2",
    "state": "the saved state is of gradients GradientAveraging(",
    "no memory": "the saved state is of another model: of memory.",
    "short memory": "it has (1,), here it is (",
    "no reference": "it has nothing, here it is (",
    "short reference": "the saved state is of another model: of weights.reference.",
    "more": "this one has no memory.residual.0.nobody",
    "fewer layers": "layers that are sharded, this one",
    "one reference": "of some processes only",
    "factor": "set_gradient_divide_factor",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(name: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        assert REFUSED[name] in each["refused"][name]
