"""Error and true bits of a configuration on given vectors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.frontier.configurations import Configuration
from thinwire.random import Key
from thinwire.wire import encoded_num_bytes

_KEY = Key(0).fold("frontier")
_LEAST_OVERLAP = 0.5
_NUM_ENCODED = 4  # clients whose messages are counted
_FEW_DRAWS = 16  # fewer choose what to look at; their spread is not known well
_SURE, _SMALL = 6.0, 0.02


@dataclass(frozen=True, slots=True)
class Measured:
    """What a configuration costs and loses.

    Args:
        bits: of a client's message, frame and all, for each entry; mean over draws, vectors and the first clients.
        error: ``||mean C(x_i) - mean x_i||^2 / ||mean x_i||^2``, mean over draws and vectors.
        overlap: ``<mean C(x_i), mean x_i> / ||mean x_i||^2``, mean over draws and vectors: 1 on average for an
            unbiased operator.
        error_deviation: standard error of ``error``, from how it differs between draws; 0 where nothing is random.
        overlap_deviation: that of ``overlap``; none of few draws.
    """

    bits: float
    error: float
    overlap: float
    error_deviation: float = 0.0
    overlap_deviation: float | None = None

    @property
    def is_typical(self) -> bool:
        """Whether the draws of an unbiased operator show its error.

        One that keeps an entry in a thousand draws, times a thousand, says 0 in nearly all: its error would be taken
        for 1. Such draws hardly overlap with the vector. Where there are many draws, an overlap that differs from 1 by
        more than their spread can explain says that large errors have not been seen.
        """
        if self.overlap_deviation is None:
            return self.overlap >= _LEAST_OVERLAP
        return self.overlap >= max(_LEAST_OVERLAP, 1.0 - _SURE * self.overlap_deviation - _SMALL)


class Problem:
    """Vectors whose mean is wanted; measures configurations, each once.

    A configuration is drawn with fixed keys, so the same problem always gives the same numbers. Several clients are
    compressed in one call, as segments of their own, which operators treat independently.

    Args:
        cases: f32 ``[n, d]`` each: the vectors of n clients. Errors are means over the cases.
        draws: independent draws of the operator's randomness.
        purpose: other draws for every name.

    Raises:
        ConfigError: no case, an empty or zero vector, or no draw.
    """

    def __init__(self, cases: list[Tensor], draws: int = 4, purpose: str = "") -> None:
        if not cases or draws < 1:
            raise ConfigError(f"{len(cases)} vectors and {draws} draws were given; at least one of each is needed")
        for case in cases:
            if case.ndim != 2 or not case.numel() or case.dtype != torch.float32:
                raise ConfigError(f"a vector of shape {list(case.shape)} and {case.dtype} was given; give f32 [d]")
            if not 0.0 < float(case.double().mean(0).square().sum()) < math.inf:
                raise ConfigError("a vector of zeros, or one that is not finite, was given; its error is not defined")
        self._cases = cases
        self._draws = draws
        self._key = _KEY.fold(purpose) if purpose else _KEY
        self._known: dict[Configuration, Measured | None] = {}

    @property
    def numels(self) -> list[int]:
        """The lengths of the vectors, for which traits must hold."""
        return sorted({case.shape[1] for case in self._cases})

    @property
    def num_measured(self) -> int:
        """Configurations measured so far."""
        return len(self._known)

    @property
    def vectors(self) -> list[Tensor]:
        """One vector a case: the first client's."""
        return [case[0] for case in self._cases]

    def measure(self, configuration: Configuration) -> Measured | None:
        """Bits and error; none where the operator refuses these vectors (more entries to keep than there are)."""
        if configuration not in self._known:
            self._known[configuration] = self._measure(configuration)
        return self._known[configuration]

    def _measure(self, configuration: Configuration) -> Measured | None:
        try:
            each = [self._measure_case(configuration, case) for case in self._cases]
        except ConfigError:
            return None
        bits, errors, overlaps = (list(part) for part in zip(*each, strict=True))
        many = self._draws >= _FEW_DRAWS
        return Measured(
            bits=_mean([_mean(draws) for draws in bits]),
            error=_mean([_mean(draws) for draws in errors]),
            overlap=_mean([_mean(draws) for draws in overlaps]),
            error_deviation=_deviation(errors) if many else 0.0,
            overlap_deviation=_deviation(overlaps) if many else None,
        )

    def _measure_case(self, configuration: Configuration, case: Tensor) -> tuple[list[float], list[float], list[float]]:
        mean = case.double().mean(0)
        square = float(mean.square().sum())
        bits: list[float] = []
        errors: list[float] = []
        overlaps: list[float] = []
        before: Tensor | None = None
        for draw in range(self._draws):
            message_bits, decoded = self._draw(configuration, case, self._key.fold("draw", draw))
            if self._draws < _FEW_DRAWS and before is not None and torch.equal(before, decoded):
                break  # nothing seems random in it; where it counts that is not concluded from two draws
            before = decoded
            bits.append(message_bits)
            errors.append(float((decoded - mean).square().sum()) / square)
            overlaps.append(float((decoded * mean).sum()) / square)
        if not all(map(math.isfinite, errors)):
            return bits, [math.inf], [0.0]
        return bits, errors, overlaps

    def _draw(self, configuration: Configuration, case: Tensor, key: Key) -> tuple[float, Tensor]:
        """Bits of a message, and the mean of what all clients' messages say."""
        clients, numel = case.shape
        whole = configuration.segments(numel)
        heard = [
            configuration.compressor.compress(x, key.fold("client", number), whole)
            for number, x in enumerate(case[:_NUM_ENCODED])
        ]
        bits = math.fsum(8.0 * encoded_num_bytes(message) / numel for message in heard) / len(heard)
        if clients == 1:
            return bits, heard[0].to_dense().double()
        every = configuration.segments(numel, clients)
        payload = configuration.compressor.compress(case.flatten(), key.fold("clients"), every)
        return bits, payload.to_dense().view(clients, numel).double().mean(0)


def _mean(numbers: list[float]) -> float:
    return math.fsum(numbers) / len(numbers)


def _deviation(cases: list[list[float]]) -> float:
    """Standard error of the mean over cases of each one's mean over draws."""
    variance = 0.0
    for draws in cases:
        if len(draws) > 1 and math.isfinite(draws[0]):
            mean = _mean(draws)
            variance += math.fsum((one - mean) ** 2 for one in draws) / (len(draws) - 1) / len(draws)
    return math.sqrt(variance) / len(cases)


def running_sum_error(configuration: Configuration, steps: list[Tensor], *, memory: bool) -> float:
    """How far the sum of what is sent stays behind: ``||sum sent - sum x||^2 / ||sum x||^2`` over the steps.

    With a memory each step sends ``C(x_t + r)`` and keeps ``r = x_t + r - C(x_t + r)``, so the difference of the
    sums is the last residual alone; without, each step sends ``C(x_t)`` and the errors of all steps add up.

    Example:
        >>> from thinwire.compressors import TopK
        >>> steps = [torch.tensor([2.0, 1.0])] * 2
        >>> running_sum_error(Configuration(TopK(k=1)), steps, memory=True)
        0.2
    """
    segments = configuration.segments(steps[0].numel())
    total = torch.zeros(steps[0].numel(), dtype=torch.float64, device=CPU)
    sent = total.clone()
    residual = torch.zeros_like(steps[0])
    for number, x in enumerate(steps):
        u = x + residual if memory else x
        decoded = configuration.compressor.compress(u, _KEY.fold("step", number), segments).to_dense()
        total += x
        sent += decoded
        if memory:
            residual = u - decoded
            if not residual.isfinite().all():
                return math.inf  # not a contraction: the memory has blown up
    error = float((sent - total).square().sum() / total.square().sum())
    return error if math.isfinite(error) else math.inf
