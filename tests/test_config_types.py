"""What a constructor is given of the wrong type is refused by name, over everything that is registered."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, get_type_hints

import numpy as np
import pytest
from method_cases import CATALOGUE

from thinwire.bench.instances import instances_of
from thinwire.compressors import EDEN, QSGD, Bernoulli, GSpar, Identity, SampledTopK, Threshold, TopK
from thinwire.config import Share, from_json, registered, to_json
from thinwire.errors import ConfigError, ThinwireError
from thinwire.exchanges import Gossip
from thinwire.exchanges.graphs import Complete, Edges, Torus
from thinwire.experiments.clients.setting import Clients
from thinwire.frontier.configurations import compressor_classes
from thinwire.machines import Machines
from thinwire.methods import parse_method
from thinwire.methods.participation import Cyclic, Independent, Uniform
from thinwire.methods.schedules import RandomGaps, Staggered
from thinwire.methods.warm_up import WarmUp
from thinwire.network import Link, Network
from thinwire.simulator import Simulation

WRONG: tuple[Any, ...] = (object(), "nonsense", b"x", [], {}, 1.5, -3, True, None, TopK, Identity(), float("nan"), "1%")


def parts(value: Any) -> Iterator[Any]:
    """Everything registered in a product of choices."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in dataclasses.fields(value):
            yield from parts(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from parts(item)


def instances() -> dict[str, Any]:
    """One of every registered class."""
    made = [one for cls in compressor_classes() for one in instances_of(cls)[:1]]
    methods = [parse_method(name) for name in CATALOGUE]
    more = [Gossip(graph=Torus(2)), Edges(((0, 1),)), Complete(), RandomGaps(4), Staggered(4), WarmUp((TopK(k=1),), 1)]
    more += [Clients(count=9, participation=way) for way in (Uniform(3), Independent(0.5), Cyclic(3))]
    return {type(part).__name__: part for whole in (*more, *methods, *made) for part in parts(whole)}


INSTANCES = instances()
FIELDS = [(name, field.name) for name, one in INSTANCES.items() for field in dataclasses.fields(one)]
OTHERS: list[tuple[Any, str]] = [(Machines(), field.name) for field in dataclasses.fields(Machines)]
OTHERS += [(made, field.name) for made in (Network(), Link()) for field in dataclasses.fields(made)]
SHARES = [
    (name, field.name)
    for name, one in INSTANCES.items()
    for field in dataclasses.fields(one)
    if str(Share) in str(get_type_hints(type(one), include_extras=True)[field.name])
]


def test_every_registered_class_is_here() -> None:
    package = {name for name, cls in registered().items() if cls.__module__.startswith("thinwire.")}
    assert set(INSTANCES) >= package


@pytest.mark.filterwarnings("ignore:beta = 1.5")  # a rate that is possible
@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_value_of_a_wrong_type_is_refused_by_name(name: str, field: str) -> None:
    one = INSTANCES[name]
    for wrong in WRONG:
        try:
            made = dataclasses.replace(one, **{field: wrong})
        except ThinwireError:
            continue
        # Then it can be one of these, and is written down as such.
        assert from_json(json.loads(json.dumps(to_json(made)))) == made or wrong != wrong
    with pytest.raises(ConfigError, match=f"{name} was given {field} = <object"):
        dataclasses.replace(one, **{field: object()})


@pytest.mark.parametrize(
    ("one", "field"), OTHERS, ids=lambda each: each if isinstance(each, str) else type(each).__name__
)
def test_links_and_machines_are_checked_alike(one: Any, field: str) -> None:
    for wrong in (object(), "100Mbit", b"x"):
        with pytest.raises(ConfigError, match=f"{type(one).__name__} was given {field} = "):
            dataclasses.replace(one, **{field: wrong})


def test_shares_are_where_they_are_meant_to_be() -> None:
    assert {field for _, field in SHARES} == {"density", "sample", "share"}
    assert len(SHARES) >= 11


@pytest.mark.parametrize(("name", "field"), SHARES)
def test_a_share_may_be_given_as_in_a_method_string(name: str, field: str) -> None:
    one = INSTANCES[name]
    if getattr(one, field) is None:
        one = type(one)(**{field: 0.5})
    for text, number in (("25%", 0.25), (" 0.125 ", 0.125)):
        assert dataclasses.replace(one, **{field: text}) == dataclasses.replace(one, **{field: number})
    for wrong in ("lots", "%", "1 %%", "200%", ""):
        with pytest.raises(ConfigError, match=r"density|sample|share"):
            dataclasses.replace(one, **{field: wrong})


def test_numbers_of_numpy_become_plain_ones() -> None:
    given = (
        TopK(k=np.int64(3)), TopK(density=np.float32(0.5)), QSGD(levels=np.int32(7)), EDEN(np.float64(2.0)),  # type: ignore[arg-type]
        Bernoulli(density=np.float64(0.5)), GSpar(variance=np.float64(1.0)), Threshold(threshold=np.float64(2.0)),
        SampledTopK(density=0.5, adaptations=np.int64(3)), Edges([[np.int64(0), 1]]),  # type: ignore[arg-type]
    )  # fmt: skip
    for one in given:
        assert "np." not in repr(one)
        assert from_json(json.loads(json.dumps(to_json(one)))) == one


def test_bits_mean_what_they_mean_in_a_method_string() -> None:
    for bits in (2, 4, 8, 16):
        assert QSGD(bits=bits) == QSGD(levels=2 ** (bits - 1) - 1)
    assert dataclasses.replace(QSGD(bits=4), norm="max") == QSGD(levels=7, norm="max")
    method = parse_method("qsgd:bits=4")
    assert QSGD(bits=4, norm=method.compressor.norm) == method.compressor  # type: ignore[attr-defined]
    for wrong, told in (
        ({}, "or bits=2 to bits=16 in their place"), ({"bits": 4, "levels": 7}, "give one of them"),
        ({"bits": 1}, "QSGD takes 2 to 16"), ({"bits": "4"}, "a whole number"), ({"bits": 2.5}, "a whole number"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            QSGD(**wrong)


def test_a_simulation_says_what_it_takes() -> None:
    with pytest.raises(ConfigError, match=r"'100Mbit' was given as the network .* Network.parse\('100Mbit,20ms'\)"):
        Simulation(2, "100Mbit")  # type: ignore[arg-type]
    for wrong in ("2", 2.0, None, 0):
        with pytest.raises(ConfigError, match=r"a simulation of .* workers was asked for"):
            Simulation(wrong)  # type: ignore[arg-type]
    for parse in (Network.parse, Machines.parse):
        with pytest.raises(ConfigError, match=r"reads text such as .*; a int was given"):
            parse(5)  # type: ignore[arg-type]
