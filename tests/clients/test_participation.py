"""Who takes part: drawn from the seed alone, as often as is said."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from thinwire.config import from_json, to_json
from thinwire.errors import ConfigError
from thinwire.experiments.clients.setting import Clients, make_clients
from thinwire.methods.participation import Cyclic, Independent, Participation, Uniform
from thinwire.random import Key

ROUNDS, KEY = 4000, Key(5)
WAYS = (Uniform(3), Independent(0.3), Cyclic(3))


def draws(way: Participation, count: int = 10, key: Key = KEY) -> list[list[int]]:
    return [way.draw(number, count, key) for number in range(ROUNDS)]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_same_seed_has_the_same_clients_in_any_order(way: Participation) -> None:
    state = torch.get_rng_state()
    forwards = draws(way)
    backwards = [way.draw(number, 10, Key(5)) for number in reversed(range(ROUNDS))]
    assert forwards == backwards[::-1]
    assert all(each == sorted(set(each)) for each in forwards)
    assert torch.equal(torch.get_rng_state(), state)
    assert (draws(way, key=Key(6)) == forwards) == isinstance(way, Cyclic)


def test_every_set_of_so_many_is_equally_likely() -> None:
    counts = Counter(map(tuple, draws(Uniform(3), 6)))
    assert counts.keys() == set(itertools.combinations(range(6), 3))
    expected = ROUNDS / len(counts)
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    assert statistic < chi2.ppf(1 - 1e-6, len(counts) - 1)


def test_clients_come_independently_of_each_other() -> None:
    present = np.array([[client in each for client in range(6)] for each in draws(Independent(0.3), 6)])
    covariance = np.cov(present.T.astype(float))
    assert np.allclose(present.mean(0), 0.3, atol=5 * np.sqrt(0.21 / ROUNDS))
    apart = covariance - np.diag(np.diag(covariance))
    assert np.abs(apart).max() < 5 * 0.21 / np.sqrt(ROUNDS)
    # From one round to the next as well.
    assert np.abs(np.mean((present[1:] - 0.3) * (present[:-1] - 0.3), 0)).max() < 5 * 0.21 / np.sqrt(ROUNDS)


def test_in_turn_nobody_is_missed() -> None:
    counts = Counter(itertools.chain.from_iterable(draws(Cyclic(3), 10)[:10]))
    assert counts == dict.fromkeys(range(10), 3)


@pytest.mark.parametrize("way", [Uniform(7), Cyclic(7), Independent(1.0)], ids=str)
def test_all_of_all_are_all(way: Participation) -> None:
    assert all(each == list(range(7)) for each in draws(way, 7))


@pytest.mark.parametrize(
    ("count", "per_round", "match"),
    [(10, 11, "--clients 10 --per-round 11"), (10, 0, "--per-round 0"), (0, 1, "--clients 0")],
)
def test_more_than_all_are_refused(count: int, per_round: int, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make_clients(count, per_round, "uniform", "keep", "keep")


@pytest.mark.parametrize("way", [Uniform(11), Cyclic(11), Independent(0.01)], ids=str)
def test_what_cannot_be_of_so_many_is_refused(way: Participation) -> None:
    with pytest.raises(ConfigError):
        Clients(count=10, participation=way)


@pytest.mark.parametrize("absent", ["kept", "drop", "drop:0", "drop:-1", "drop:1.5", "drop: 3"])
def test_another_fate_of_memories_is_refused(absent: str) -> None:
    with pytest.raises(ConfigError, match="memory of the absent"):
        Clients(count=10, participation=Uniform(2), absent=absent)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_clients_are_written_and_read(way: Participation) -> None:
    clients = Clients(count=10, participation=way, absent="drop:4", local_optimizer="fresh")
    assert from_json(to_json(clients)) == clients
    assert clients.per_round == 3
