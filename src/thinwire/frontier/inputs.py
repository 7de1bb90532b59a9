"""The vectors on which operators are compared."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.experiments.recording import Recording

SYNTHETIC = ("gaussian", "lognormal", "student")
DEFAULT_NUMEL = 16_384
_BLOCK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class InputVectors:
    """One signal, and noise for clients and steps.

    Client ``i`` has ``signal + noise[i]``; so has step ``i`` of a running sum. Signal and noise are independent and of
    one distribution, so the clients agree about as much as workers with a small batch do.

    Args:
        name: what a reader is shown.
        signal: f32 ``[d]``; single messages are measured on it alone.
        noise: f32 ``[n, d]``.
    """

    name: str
    signal: Tensor
    noise: Tensor

    @property
    def numel(self) -> int:
        """Length of the signal."""
        return self.signal.numel()

    def clients(self, count: int) -> Tensor:
        """The vectors of ``count`` clients ``[count, d]``; of one: the signal alone.

        Raises:
            ConfigError: more clients than there is noise for.
        """
        if count == 1:
            return self.signal.unsqueeze(0)
        if not 1 <= count <= len(self.noise):
            raise ConfigError(f"{count} clients were asked for; {self.name} has noise for 1 to {len(self.noise)}")
        return self.signal + self.noise[:count]

    def step(self, number: int) -> Tensor:
        """The vector of a step: the signal under fresh noise."""
        return self.signal + self.noise[number % len(self.noise)]


def make_input(name: str, numel: int = DEFAULT_NUMEL, num_noises: int = 100, seed: int = 1) -> InputVectors:
    """``gaussian``, ``lognormal`` (0, 1, random signs), ``student`` (t, 2 degrees of freedom), or a recording's file.

    The three synthetic signals are consecutive draws of one generator: the same for the same seed. The noise of a
    synthetic input is of its own distribution; that of a recording is its other gradients (its only one, again) under
    random signs. A recording that is longer than ``numel`` gives ``numel / 1024`` blocks of 1024 neighbours, evenly
    spread, so that clusters of large entries stay.

    Raises:
        ConfigError: an unknown name, or a file that is no recording or has no gradient.

    Example:
        >>> make_input("gaussian", 4).signal
        tensor([ 0.3456,  0.8216,  0.3304, -1.3032])
    """
    if numel < 1:
        raise ConfigError(f"vectors of {numel} entries were asked for; at least 1 is needed")
    if name in SYNTHETIC:
        return _synthetic(name, numel, num_noises, seed)
    return _recorded(name, numel, num_noises, seed)


def _synthetic(name: str, numel: int, num_noises: int, seed: int) -> InputVectors:
    generator = np.random.default_rng(seed)
    signals = {kind: _draw(generator, kind, (numel,)) for kind in SYNTHETIC}
    noise = _draw(generator, name, (num_noises, numel))
    return InputVectors(name, torch.from_numpy(signals[name]), torch.from_numpy(noise))


def _draw(
    generator: np.random.Generator, name: str, shape: tuple[int, ...]
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    if name == "gaussian":
        drawn = generator.standard_normal(shape)
    elif name == "lognormal":
        drawn = np.sign(generator.random(shape) - 0.5) * generator.lognormal(0.0, 1.0, shape)
    else:
        drawn = generator.standard_t(2.0, shape)
    return drawn.astype(np.float32)


def _recorded(name: str, numel: int, num_noises: int, seed: int) -> InputVectors:
    path = Path(name.removeprefix("recorded:"))
    if not path.exists():
        raise ConfigError(
            f"unknown input {name!r}: neither one of {', '.join(SYNTHETIC)} nor a file; make one with: thinwire record"
        )
    rows = Recording.load(path).gradient.vectors
    if not len(rows):
        raise ConfigError(f"{name} holds no gradients; record again, with more steps")
    middle = len(rows) // 2
    chosen = _spread(rows.shape[1], numel)
    signal = rows[middle][chosen].clone()
    others = [row for row in range(len(rows)) if row != middle] or [middle]
    generator = np.random.default_rng(seed)
    noise = torch.empty(num_noises, signal.numel(), dtype=torch.float32, device=CPU)
    for number, out in enumerate(noise):
        signs = np.sign(generator.random(signal.numel()) - 0.5).astype(np.float32)
        out.copy_(rows[others[number % len(others)]][chosen]).mul_(torch.from_numpy(signs))
    return InputVectors(path.name, signal, noise)


def _spread(length: int, numel: int) -> Tensor:
    """Indices of ``numel`` of ``length`` entries, in evenly spread blocks; all where there are no more."""
    if length <= numel:
        return torch.arange(length, dtype=torch.int64, device=CPU)
    block = min(_BLOCK, numel)
    count = numel // block
    starts = torch.linspace(0, length - block, count, dtype=torch.float64, device=CPU).to(torch.int64)
    return (starts.unsqueeze(1) + torch.arange(block, dtype=torch.int64, device=CPU)).reshape(-1)
