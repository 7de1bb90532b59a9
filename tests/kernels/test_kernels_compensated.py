"""Sums with what rounding took from them, against exact ones."""

from fractions import Fraction

import numpy as np
import torch

from thinwire.kernels.reduce.compensated import add_compensated, split_rounding


def test_a_million_sums_lose_what_one_does() -> None:
    generator = np.random.default_rng(0)
    total, rounding, plain = torch.zeros(50), torch.zeros(50), torch.zeros(50)
    exact = [Fraction(0)] * 50
    for _ in range(2000):
        x = generator.standard_normal(50).astype(np.float32)
        exact = [one + Fraction(float(other)) for one, other in zip(exact, x, strict=True)]
        add_compensated(total, rounding, torch.from_numpy(x))
        plain += torch.from_numpy(x)
    truth = torch.tensor([float(one) for one in exact], dtype=torch.float64)
    assert float((total.double() + rounding.double() - truth).abs().max()) < 1e-11
    assert float((plain.double() - truth).abs().max()) > 1e-6
    # The first is the nearest f32 of both, so the second is less than half a unit of its last place.
    assert torch.equal((total.double() + rounding.double()).float(), total)


def test_what_is_split_is_whole_together() -> None:
    exact = torch.from_numpy(np.random.default_rng(1).standard_normal(1000))
    nearest, rounding = split_rounding(exact.clone())
    assert torch.equal(nearest, exact.float())
    assert float((nearest.double() + rounding.double() - exact).abs().max()) < 1e-14
    assert float(rounding.abs().max()) > 1e-9


def test_f64_is_taken_as_it_is_and_left_as_it_is() -> None:
    x = torch.full((3,), 1e-12, dtype=torch.float64)
    total, rounding = torch.ones(3), torch.zeros(3)
    for _ in range(1000):
        add_compensated(total, rounding, x)
    assert torch.equal(x, torch.full((3,), 1e-12, dtype=torch.float64))
    torch.testing.assert_close(rounding, torch.full((3,), 1e-9), rtol=1e-3, atol=0.0)
