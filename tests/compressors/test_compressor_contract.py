import importlib
import inspect
import json
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from compressor_cases import LENGTHS, TINY, bits, bound_z, compress, cuts, draws, inputs, is_deterministic, situations
from torch import Tensor

import thinwire.compressors
from thinwire import config
from thinwire.compressors import (
    QSGD,
    Bins,
    Compressor,
    Identity,
    RandK,
    Sign,
    TopK,
    Traits,
    segment_traits,
)
from thinwire.config import from_json, register, registered, to_json
from thinwire.layout import Segments
from thinwire.payloads import Dense, Payload
from thinwire.random import Key
from thinwire.wire import decode, encode, encoded_num_bytes, kinds_in, max_num_bytes

THREE = torch.tensor([3.0, 2.0, 1.0, 1.5])
# The laws. Each takes a compressor, so that the toy compressor below can be put through all of them.


def check_addition(payload: Payload, dense: Tensor) -> None:
    total = torch.zeros(dense.numel())
    payload.add_to(total)
    assert bits(total) == bits(dense + 0.0)  # 0.0 + -0.0 is 0.0
    residual = torch.linspace(-3.0, 4.0, dense.numel())
    expected = residual - dense
    payload.add_to(residual, -1.0)
    assert bits(residual) == bits(expected)
    payload.add_to(residual, 0.3)
    assert bits(residual) == bits(expected + dense * float(np.float32(0.3)))


def law_of_the_message(compressor: Compressor) -> None:
    for x, segments in situations():
        before = bits(x)
        payload = compress(compressor, x, segments)
        assert bits(x) == before
        if payload is None:
            continue
        dense = payload.to_dense()
        assert payload.numel == x.numel()
        assert dense.dtype == torch.float32
        assert dense.shape == x.shape
        message = encode(payload)
        assert message.numel() == encoded_num_bytes(payload)
        outline = compressor.outline(segments)
        assert outline.numel == x.numel()
        assert message.numel() <= max_num_bytes(outline)
        decoded = decode(message, max_numel=x.numel(), kinds=kinds_in(outline))
        assert type(decoded) is type(payload)
        assert bits(decoded.to_dense()) == bits(dense)
        assert torch.equal(encode(decoded), message)
        check_addition(payload, dense)


def law_of_the_key(compressor: Compressor) -> None:
    global_one = torch.default_generator  # torch.manual_seed, which seeds every device, would take most of the time
    for x, segments in situations((2, 7, 1000)):
        global_one.manual_seed(1)
        payload = compress(compressor, x, segments, Key(3, ("a",)))
        if payload is None:
            continue
        global_one.manual_seed(2)
        state = torch.get_rng_state()
        again = compressor.compress(x.clone(), Key(3).fold("a"), segments)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(encode(payload), encode(again))


def law_of_segments(compressor: Compressor) -> None:
    """With one key, what becomes of a segment does not depend on what is in the others."""
    if isinstance(compressor, Bins):
        return  # one table for the whole message, as published
    deterministic = is_deterministic(compressor)
    for numel in (64, 1000):
        kinds = inputs(numel)
        for segments in cuts(numel)[1:]:
            sizes = segments.offsets().diff().tolist()
            mixed = kinds["gaussian"].clone()
            mixed[sizes[0] :] = kinds["heavy tails"][sizes[0] :]
            first = compressor.compress(kinds["gaussian"], Key(5), segments).to_dense()
            second = compressor.compress(mixed, Key(5), segments).to_dense()
            assert bits(first[: sizes[0]]) == bits(second[: sizes[0]])
            if deterministic:
                alone = [compress(compressor, part.clone(), Segments.whole(len(part))) for part in mixed.split(sizes)]
                for part, payload in zip(second.split(sizes), alone, strict=True):
                    assert payload is None or bits(part) == bits(payload.to_dense())
                assert any(payload is not None for payload in alone)


def law_of_the_mean(compressor: Compressor) -> None:
    """Every entry's mean over 2000 draws is the entry; false alarms: one in 1e6 for a compressor.

    The draws are 100 segments of the messages of 20 keys: those of one key must be as independent as those of several.
    """
    count, at_once = 2000, 100
    noise = inputs(16)["gaussian"]
    # No entry is so small that it is hardly ever kept: its mean would not be normal.
    vectors = {"shifted": noise + noise.sign(), "in the last block": torch.cat([torch.zeros(64), THREE])}
    limit = bound_z(1e-6, sum(map(len, vectors.values())))
    for kind, x in vectors.items():
        segments = Segments.whole(len(x))
        if not segment_traits(compressor, segments).unbiased:
            continue
        keys = [Key(seed, (kind,)) for seed in range(count // at_once)]
        each = np.concatenate([draws(compressor, x, at_once, key) for key in keys])
        exact = x.double().numpy()
        spread = each.std(axis=0) / math.sqrt(count)
        assert (np.abs(each.mean(axis=0) - exact) <= limit * spread + 1e-6 * np.abs(exact)).all(), kind


def law_of_the_error(compressor: Compressor) -> None:
    """The mean error is not above the bound by more than 6 standard errors, on the inputs and on powers of noise."""
    if math.isinf(compressor.traits(2).error):
        return  # nothing is promised
    deterministic = is_deterministic(compressor)
    grid = max(1, getattr(compressor, "levels", 1), getattr(getattr(compressor, "values", None), "levels", 1))
    for numel in LENGTHS if deterministic else (1, 2, 7, 64):
        noise = torch.randn(8, numel, generator=torch.Generator().manual_seed(numel))
        powers = [row.sign() * row.abs() ** power for power, row in enumerate(noise)]
        for kind, x in [*inputs(numel).items(), *enumerate(powers)]:
            if numel > 7 and not deterministic and kind in ("spike", "sparse", "geometric", "heavy tails", 4, 5, 6, 7):
                continue  # a draw that hits the one large entry is too rare to be seen in the sample
            if compress(compressor, x, Segments.whole(numel)) is None:
                continue
            exact = x.double().numpy()
            each = ((draws(compressor, x, 1 if deterministic else 200) - exact) ** 2).sum(axis=1)
            margin = 6.0 * each.std() / math.sqrt(len(each)) + 2e-6 * each.mean()
            # Numbers near the least one cannot be divided into levels: half a step each.
            floor = grid * TINY * (2 * np.abs(exact).sum() + grid * TINY * numel)
            # Sums over a rotated vector are rounded; the least bf16 is far above the least f32.
            floor += 1e-12 * (exact**2).sum() + numel * 2.0**-266
            assert each.mean() - margin <= compressor.traits(numel).error * (exact**2).sum() + floor, (numel, kind)


def law_of_configuration(compressor: Compressor) -> None:
    assert from_json(json.loads(json.dumps(to_json(compressor)))) == compressor
    assert isinstance(hash(compressor), int)
    traits = compressor.traits(64)
    assert traits.gamma == max(0.0, 1.0 - traits.error)


LAWS: tuple[Callable[[Any], None], ...] = (
    law_of_the_message,
    law_of_the_key,
    law_of_segments,
    law_of_the_mean,
    law_of_the_error,
    law_of_configuration,
)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_every_registered_compressor_obeys(law: Callable[[Any], None], compressor: Any) -> None:
    law(compressor)


def test_the_suite_holds_every_compressor_of_the_package(all_cases: Callable[[], list[Any]]) -> None:
    tested = {type(case) for case in all_cases()}
    for module in pkgutil.walk_packages(thinwire.compressors.__path__, "thinwire.compressors."):
        for name, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if hasattr(cls, "compress") and hasattr(cls, "traits") and Protocol not in cls.__bases__:
                assert cls in tested, f"{name} in {module.name} is a compressor; decorate it with @register"
    assert {Identity, QSGD, RandK, Sign, TopK} <= tested


def test_a_new_compressor_is_tested_once_it_is_registered(
    all_cases: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "_REGISTRY", registered())

    @register
    @dataclass(frozen=True)
    class Halve:
        density: float

        def compress(self, x: Tensor, key: Key, segments: Segments) -> Dense:
            return Dense(x * 0.5)

        def outline(self, segments: Segments) -> Dense:
            return Dense(torch.empty(segments.numel, device="meta"))

        def traits(self, numel: int) -> Traits:
            return Traits(unbiased=False, error=0.25)

    toys = [case for case in all_cases() if isinstance(case, Halve)]
    assert toys == [Halve(0.1)]
    for law in LAWS:
        law(toys[0])
    # Promises that it does not keep are found out.
    too_much = {law_of_the_error: Traits(False, error=0.24), law_of_the_mean: Traits(True, error=0.25)}
    for law, wrong in too_much.items():
        monkeypatch.setattr(Halve, "traits", lambda self, numel, wrong=wrong: wrong)
        with pytest.raises(AssertionError):
            law(toys[0])


def test_a_compressor_without_samples_makes_the_suite_fail(
    all_cases: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "_REGISTRY", registered())

    @register
    @dataclass(frozen=True)
    class Strange:
        temperature: float

        def compress(self, x: Tensor, key: Key, segments: Segments) -> Dense:
            return Dense(x)

        def traits(self, numel: int) -> Traits:
            return Traits(unbiased=True, error=0.0)

    (left_out,) = [case for case in all_cases() if getattr(case, "name", "") == "Strange"]
    assert "temperature" in str(left_out)
    assert "SAMPLES in tests/compressor_instances.py" in str(left_out)


def test_other_keys_give_other_messages(compressor: Any) -> None:
    values = getattr(compressor, "values", Identity())
    kept = getattr(compressor, "k", None)
    is_random = isinstance(compressor, QSGD | RandK) or (kept is not None and kept < 1)
    is_random |= isinstance(compressor, TopK) and isinstance(values, QSGD) and kept != 1  # one value is its own norm
    if isinstance(compressor, Identity | Sign | TopK | RandK | QSGD):
        assert is_deterministic(compressor) != is_random
    if is_random and (kept is None or kept >= 1):
        x = inputs(1000)["gaussian"]
        messages = {bits(encode(compressor.compress(x, Key(seed), Segments.whole(1000)))) for seed in range(20)}
        assert len(messages) > (18 if kept is None else 1)
