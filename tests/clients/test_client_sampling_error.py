"""What it costs a mean that only some take part: the formulas against draws, to within 5 percent."""

from dataclasses import dataclass
from pathlib import Path

import compressor_instances
import numpy as np
import pytest
import torch
from client_runs import NUMEL, Springs, session, shared
from torch import Tensor, nn

from thinwire.compressors import Compressor, segment_traits
from thinwire.errors import ConfigError
from thinwire.experiments.clients.setting import Clients
from thinwire.layout import Segments
from thinwire.methods.participation import Independent, Participation, Uniform
from thinwire.random import Key
from thinwire.theory import independent_sampling_error, uniform_sampling_error

COUNT, DRAWS = 8, 2500
LENGTH = 32
SEGMENTS = Segments.whole(LENGTH)


def vectors(numel: int = LENGTH) -> Tensor:
    return torch.randn(COUNT, numel, generator=torch.Generator().manual_seed(3), dtype=torch.float32)


def unbiased() -> list[Compressor]:
    """One of every class of the registry whose messages are unbiased, of several the noisiest that is below 4."""
    found: dict[str, Compressor] = {}
    for compressor in compressor_instances.cases():
        try:
            traits = segment_traits(compressor, SEGMENTS)
            compressor.compress(vectors()[0], Key(0), SEGMENTS)
        except ConfigError:
            continue
        if traits.unbiased and traits.error < 4.0:
            found[type(compressor).__name__] = compressor
    return list(found.values())


def expected(way: Participation, error: float, x: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> float:
    if isinstance(way, Independent):
        return independent_sampling_error(error, float((x**2).sum(1).mean()), COUNT, way.probability)
    spread = float(((x - x.mean(0)) ** 2).sum(1).mean())
    return uniform_sampling_error(error, spread, COUNT, round(way.mean_size(COUNT)))


@pytest.mark.parametrize("compressor", unbiased(), ids=lambda each: type(each).__name__)
def test_the_error_of_a_sampled_mean_is_that_of_all_and_of_the_draw(compressor: Compressor) -> None:
    x = vectors().double().numpy()
    key = Key(4)
    sent = np.stack(
        [
            [
                compressor.compress(each.clone(), key.fold(number, rank), SEGMENTS).to_dense().numpy()
                for rank, each in enumerate(vectors())
            ]
            for number in range(DRAWS)
        ]
    ).astype(np.float64)
    error = float(((sent - x) ** 2).sum(2).mean(0).sum()) / COUNT**2
    for way in (Independent(0.5), Uniform(3)):
        estimates = [sent[n, way.draw(n, COUNT, key)].sum(0) / way.mean_size(COUNT) for n in range(DRAWS)]
        squares = ((np.stack(estimates) - x.mean(0)) ** 2).sum(1)
        assert squares.mean() == pytest.approx(expected(way, error, x), rel=0.05)


class Still(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros(NUMEL))

    def forward(self) -> Tensor:
        return self.at


@dataclass(frozen=True, slots=True, eq=False)
class Slopes(Springs):
    """Each client's gradient is the same everywhere."""

    num_train: int = COUNT

    def model(self, seed: int) -> nn.Module:
        return Still()

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        loss: Tensor = (vectors(NUMEL)[indices].mean(0) * model()).sum()
        return loss


@pytest.mark.parametrize("way", [Independent(0.5), Uniform(3)], ids=str)
@pytest.mark.parametrize("method", ["sgd", "qsgd:levels=1,granularity=whole"])
def test_so_it_is_in_training(method: str, way: Participation, tmp_path: Path) -> None:
    """Every step is a draw of its own; a training with all has the error E."""

    def squares(name: str, used: Participation) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        trained = session(method, Clients(count=COUNT, participation=used), tmp_path / name, Slopes(), steps=DRAWS)
        points = [shared(trained).double().numpy().copy()]
        for step in range(DRAWS):
            trained.train(step, step + 1)
            points.append(shared(trained).double().numpy().copy())
        moved = -np.diff(np.stack(points), axis=0) / 0.1
        found: np.ndarray[tuple[int], np.dtype[np.float64]] = ((moved - x.mean(0)) ** 2).sum(1)
        return found

    x = vectors(NUMEL).double().numpy()
    error = float(squares("all", Uniform(COUNT)).mean())
    assert (error < 1e-8) == (method == "sgd")
    assert squares("some", way).mean() == pytest.approx(expected(way, error, x), rel=0.05)


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.5, float("nan")])
def test_a_probability_that_is_none_is_refused(probability: float) -> None:
    with pytest.raises(ConfigError, match="probability"):
        independent_sampling_error(1.0, 1.0, 10, probability)


def test_numbers_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="11 of 10"):
        uniform_sampling_error(1.0, 1.0, 10, 11)
    with pytest.raises(ConfigError, match="at least 0"):
        uniform_sampling_error(-1.0, 1.0, 10, 1)
    assert uniform_sampling_error(2.0, 7.0, 1, 1) == 2.0
