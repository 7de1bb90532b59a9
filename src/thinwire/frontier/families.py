"""Everything that is searched on given vectors, and what is worth nesting on them."""

import math

from torch import Tensor

from thinwire.compressors import QSGD, Compressor, Identity, Sign, TopK
from thinwire.frontier.configurations import Configuration, compressor_classes, describe
from thinwire.frontier.ladders import OperatorFamily, inner_families, nested_families, nested_instances, plain_families
from thinwire.frontier.points import KINDS, pareto, point_of
from thinwire.frontier.problems import Problem
from thinwire.layout import Segments
from thinwire.random import Key


def all_families(problem: Problem) -> list[OperatorFamily]:
    """Every family of every registered compressor, with what is worth nesting on these vectors."""
    classes = compressor_classes()
    plain = [family for cls in classes for family in plain_families(cls)]
    values = _nested_values(problem, [one for cls in classes for one in nested_instances(cls)])
    inner = [family for cls in classes for family in inner_families(cls)]
    return plain + [family for cls in classes for family in nested_families(cls, values, inner)]


def _nested_values(problem: Problem, known: list[Compressor]) -> list[Compressor]:
    """The quantizers that are worth nesting: on the front of the vectors, or of their largest 10 % or 1 %."""
    chosen: dict[str, Compressor] = {describe(one): one for one in (Identity(), Sign(), QSGD(levels=7, norm="max"))}
    bits: dict[str, float] = {}
    for share in (1.0, 0.1, 0.01):
        kept = [_largest(vector, share) for vector in problem.vectors]
        part = Problem([vector.unsqueeze(0) for vector in kept], draws=2)
        points = []
        for compressor in known:
            point = point_of(part, Configuration(compressor), "")
            if point is not None and math.isfinite(point.error):
                bits.setdefault(describe(compressor), point.bits)
                points.append(point)
        for kind in KINDS:
            front = pareto(point for point in points if point.is_of(kind))
            chosen.update((describe(point.configuration.compressor), point.configuration.compressor) for point in front)
    plain, found = list(chosen)[:3], list(chosen)[3:]
    return [chosen[name] for name in (*plain, *sorted(found, key=lambda name: (bits[name], name)))]


def _largest(vector: Tensor, share: float) -> Tensor:
    if share == 1.0:
        return vector
    kept = TopK(density=share).compress(vector, Key(0), Segments.whole(vector.numel()))
    return kept.values.to_dense()
