"""A key is what its numbers are, whatever type holds them."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from method_cases import CATALOGUE, OPTIMIZERS, backward, flat, small_model, suited

from thinwire.errors import ConfigError
from thinwire.methods import parse_method
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.worker import Worker, needs_server

KINDS: tuple[Any, ...] = (np.int64, np.int32, np.uint8, torch.tensor)
ALONE = [name for name in CATALOGUE if not needs_server(parse_method(name))]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_equal_integers_of_any_type_are_one_key(kind: Any) -> None:
    plain = Key(5).fold("exchange", 3, "rank", 1)
    assert Key(kind(5)).fold("exchange", 3, "rank", 1).bits64() == plain.bits64()
    assert Key(5).fold(np.str_("exchange"), kind(3), "rank", kind(1)).bits64() == plain.bits64()
    assert Key(kind(6)).fold("exchange", 3, "rank", 1).bits64() != plain.bits64()


def test_the_streams_of_before_are_those_of_now() -> None:
    for text, key in ((b"(0, ())", Key(0)), (b"(-7, ('a', 1))", Key(-7, ("a", 1)))):
        assert key.bits64() == int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    assert Key(7, ("a", 1)).fold("b").bits64() == Key(7, ("a", 1, "b")).bits64()


@pytest.mark.parametrize("wrong", [0.5, None, "1", b"1"], ids=repr)
def test_what_is_no_integer_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="a seed is an integer"):
        Key(wrong)
    if not isinstance(wrong, str):
        with pytest.raises(ConfigError, match="address random numbers"):
            Key(0).fold(wrong).bits64()


def trained(name: str, kind: Any) -> bytes:
    """Two workers whose seed and ranks are of some type, after four steps."""
    models, method = [small_model() for _ in range(2)], parse_method(name)
    workers = [
        Worker(
            method,
            model,
            suited(method, OPTIMIZERS["plain"])(model.parameters()),
            rank=kind(rank),
            size=2,
            seed=kind(3),
        )
        for rank, model in enumerate(models)
    ]
    simulation = Simulation(2)
    for step in range(4):
        for rank, model in enumerate(models):
            backward(model, rank, step)
        simulation.run([worker.step() for worker in workers])
    return b"".join(flat(model).numpy().tobytes() for model in models)


@pytest.mark.parametrize("name", ALONE)
def test_every_method_draws_the_same_for_a_seed_and_ranks_of_numpy(name: str) -> None:
    assert trained(name, np.int64) == trained(name, int)
