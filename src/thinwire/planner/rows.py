"""Predicted steps with what is not sure about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thinwire.planner.family import Candidate, Kind
from thinwire.planner.measuring import NO_SUMS, Measurements
from thinwire.step_time import Exchange, dense_step_s, hooked_step_s, synchronized_step_s

MODEL_ERROR = 0.1
"""How far a prediction may be off whose parts were measured without error; see docs/planner.md."""
LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9
"""Quantiles of what was measured."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """A prediction, and between what it is expected to lie."""

    low: float
    middle: float
    high: float

    def over(self, other: "Seconds") -> "Seconds":
        """How many times as long this is as another one, which is as uncertain."""
        return Seconds(self.low / other.high, self.middle / other.middle, self.high / other.low)


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A way to train and the seconds that its steps are predicted to take.

    Args:
        candidate: the way.
        step: seconds of a step, over all local steps.
        period: steps from one exchange to the next.
        num_bytes: a step's messages, or the vectors that are summed, of one process.
        codec_s: seconds of compression and decoding a step.
        kept_num_bytes: what a process keeps for it beside model, gradients and the optimizer's state; None if unknown.
    """

    candidate: Candidate
    step: Seconds
    period: float
    num_bytes: float
    codec_s: float
    kept_num_bytes: int | None = None

    @property
    def method(self) -> str:
        """The method string, or what DDP does."""
        return self.candidate.method

    @property
    def best_step_s(self) -> float:
        """The middle of the prediction."""
        return self.step.middle

    @property
    def use(self) -> str:
        """What a script calls for it."""
        return self.candidate.kind.value

    @property
    def is_dense(self) -> bool:
        """Whether it sends every number."""
        return self.candidate.is_dense

    def to_json(self) -> dict[str, Any]:
        """Numbers and names, a field each."""
        return {
            "method": self.method,
            "use": self.use,
            "period": self.period,
            "step_s": self.step.middle,
            "low_step_s": self.step.low,
            "high_step_s": self.step.high,
            "bytes": self.num_bytes,
            "codec_s": self.codec_s,
            "kept_bytes": self.kept_num_bytes,
        }


def predict(found: Measurements, chosen: Sequence[Candidate]) -> list[PlanRow]:
    """A row for each candidate, the shortest step first."""
    rows = []
    for candidate in chosen:
        low, middle, high = (_step_s(found, candidate, share) for share in (LOW, MIDDLE, HIGH))
        exchanges = [each.at(MIDDLE) for each in found.exchanges[candidate.method]]
        period = found.periods.get(candidate.method, 1.0)
        if candidate.kind is Kind.DENSE:
            num_bytes = 4.0 * found.numel
        else:
            num_bytes = _num_bytes(exchanges) / period
        codec_s = sum(exchange.codec_s for exchange in exchanges) / period
        whole = found.sums.get(candidate.method, NO_SUMS)
        summed, left = [each.at(MIDDLE) for each in whole.exchanges], 1 - whole.sums.instead * period
        num_bytes = left * num_bytes + whole.sums.per_step * _num_bytes(summed)
        codec_s = left * codec_s + whole.sums.per_step * sum(each.codec_s for each in summed)
        seconds = Seconds(low * (1 - MODEL_ERROR), middle, high * (1 + MODEL_ERROR))
        kept = found.kept.get(candidate.method)
        rows.append(PlanRow(candidate, seconds, period, num_bytes, codec_s, kept))
    return sorted(rows, key=lambda row: row.step.middle)


def _step_s(found: Measurements, candidate: Candidate, share: float) -> float:
    link = found.link.at(share)
    measured = found.exchanges[candidate.method]
    exchanges = [each.at(share) for each in measured]
    whole = found.sums.get(candidate.method, NO_SUMS)
    summed = [each.at(share) for each in whole.exchanges]
    match candidate.kind:
        case Kind.DENSE:
            return dense_step_s(found.compute.at(share), link, 4)
        case Kind.DENSE_BF16:
            return dense_step_s(found.compute.at(share), link, 2, exchanges)
        case Kind.POWER_SGD:
            return hooked_step_s(found.one_bucket.at(share), exchanges, link)
        case Kind.HOOKED:
            step_s = hooked_step_s(found.compute.at(share), exchanges, link, found.hidden)
            if not summed:
                return step_s
            # Every bucket has a draw of its own; their mean is taken for that of steps in which all fall alike.
            full_s = hooked_step_s(found.compute.at(share), summed, link, found.hidden)
            return step_s + whole.sums.instead * (full_s - step_s)
        case Kind.SYNCHRONIZED:
            period = found.periods[candidate.method]
            step_s = found.plain.at(share, period)
            alike = period / (1 - whole.sums.instead * period)
            step_s = synchronized_step_s(step_s, exchanges[0], link, alike, measured[0].local_s)
            return step_s + whole.sums.per_step * sum(each.seconds(link, 0.0) for each in summed)


def _num_bytes(exchanges: Sequence[Exchange]) -> float:
    return sum(each.num_bytes for exchange in exchanges for each in exchange.rounds)
