"""The twin of :mod:`.steps`: what a thread alone does, in operations of torch and Python."""

import math

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.kernels.random.philox import random_words_torch
from thinwire.kernels.shared_memory.rows import Rows, Rule
from thinwire.kernels.shared_memory.shared import Shared
from thinwire.kernels.shared_memory.steps import Part, Span, check_fit, longest_of
from thinwire.kernels.shared_memory.steps_numba import stride_of
from thinwire.kernels.shared_memory.variants import Variant, number_of


def take_steps_torch(
    shared: Shared, rows: Rows, rule: Rule, variant: Variant, part: Part, span: Span, counts: Tensor | None = None
) -> tuple[int, int]:
    """:func:`~thinwire.kernels.shared_memory.steps.take_steps` of a thread alone; slow."""
    check_fit(shared, rows, rule, part, span, counts)
    number_of(variant)  # all are the same without other threads
    stride = stride_of(longest_of(rows, rule))
    rate = torch.tensor(rule.rate(), dtype=torch.float32, device=CPU)
    written = 0
    for step in range(span.first, span.first + span.num):
        row = (int(random_words_torch(part.examples, step, 1)) * rows.num) >> 32
        own = slice(int(rows.offsets[row]), int(rows.offsets[row + 1]))
        places, values = rows.indices[own], rows.values[own]
        weights = shared.vector[places]
        slope = _slope(weights, values, float(rows.labels[row]), rule)
        updates = rate * (slope * values + rows.penalties[places] * weights)
        if rule.method == "sgd":
            chosen, amounts = places, -updates
        elif rule.method == "mem-sgd":
            part.memory.index_add_(0, places, updates)
            chosen = _chosen(part, rule, step * stride)
            amounts = -part.memory[chosen]
            part.memory[chosen] = 0
        else:
            words = random_words_torch(part.entries, step * stride, places.numel())
            shares = _probabilities(updates, rule.k)
            kept = (words >> 8).double() * 2.0**-24 < shares
            chosen, amounts = places[kept], (-updates[kept].double() / shares[kept]).float()
        given = amounts != 0
        shared.vector.index_add_(0, chosen[given], amounts[given])
        if counts is not None:
            counts.index_add_(0, chosen[given], torch.ones_like(chosen[given]))
        written += int(given.sum())
    return span.num, written


def _slope(weights: Tensor, values: Tensor, label: float, rule: Rule) -> Tensor:
    product = sum((weights.double() * values.double()).tolist(), 0.0)  # in order
    margin = label * product
    slope = -label / (1.0 + math.exp(min(margin, 700.0))) if rule.loss == "logistic" else -label * (margin < 1.0)
    return torch.tensor(slope, dtype=torch.float32, device=CPU)


def _chosen(part: Part, rule: Rule, start: int) -> Tensor:
    numel = part.memory.numel()
    if rule.select == "top-k":
        return part.memory.abs().sort(descending=True, stable=True).indices[: rule.k]
    chosen: list[int] = []
    for j, word in enumerate(random_words_torch(part.entries, start, rule.k).tolist()):
        bound = numel - rule.k + j
        place = (word * (bound + 1)) >> 32
        chosen.append(bound if place in chosen else place)
    return torch.tensor(chosen, dtype=torch.int64, device=CPU)


def _probabilities(updates: Tensor, k: int) -> Tensor:
    magnitudes = updates.double().abs()
    if int((updates != 0).sum()) <= k:
        return (updates != 0).double()
    shares = (magnitudes * (k / sum(magnitudes.tolist(), 0.0))).clamp(max=1.0)
    for _ in range(2):
        free = shares < 1.0
        rest, left = sum(shares[free].tolist(), 0.0), k - int((~free).sum())
        if rest <= 0.0 or left / rest <= 1.0:
            break
        shares = torch.where(free, (shares * (left / rest)).clamp(max=1.0), shares)
    return shares
