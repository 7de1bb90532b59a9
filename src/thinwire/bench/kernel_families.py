"""Single kernels, and torch.topk beside them."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.bench.entropy import log2_binomial, order_zero
from thinwire.bench.families import BenchFamily, Facts, Member, Prepared, Turns, single
from thinwire.bench.inputs import BenchInput
from thinwire.bench.steps import BUCKET
from thinwire.bench.timing import Case
from thinwire.compressors import QSGD
from thinwire.compressors.amount import draw_counts
from thinwire.kernels.bitpack.bits import pack, unpack
from thinwire.kernels.crc32c import crc32c
from thinwire.kernels.entropy.adaptive_gaps import MAX_COUNT, adaptive_decode_prefix, adaptive_encode
from thinwire.kernels.entropy.elias import elias_decode_prefix, elias_encode
from thinwire.kernels.entropy.exp_golomb import exp_golomb_decode, exp_golomb_encode
from thinwire.kernels.entropy.rans import rans_decode, rans_encode
from thinwire.kernels.entropy.rice import rice_decode, rice_encode, rice_parameter
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.quantize.dither import accumulate_quantize, quantize
from thinwire.kernels.quantize.levels_add import add_levels
from thinwire.kernels.quantize.signs import accumulate_signs, sign_bits
from thinwire.kernels.quantize.signs_add import add_signs
from thinwire.kernels.reduce.segment_sums import segment_max, segment_sums
from thinwire.kernels.sample.subset import random_subset
from thinwire.kernels.select.accumulate import accumulate_top_k
from thinwire.kernels.select.top_k import top_k
from thinwire.kernels.sparse.scatter import scatter_add
from thinwire.kernels.transform.hadamard import hadamard_rotate
from thinwire.layout import Segments
from thinwire.random import Key

_DENSITIES = (0.01, 0.001)
_KEY = 1
_BITS = 4
_FEW = f"the first {MAX_COUNT}"


def kernel_families() -> tuple[BenchFamily, ...]:
    """One family a kernel."""
    each: list[BenchFamily] = []

    def add(
        step: str, prepare: Callable[..., Prepared], *arguments: Any, variant: str = "", density: float | None = None
    ) -> None:
        member = Member(step=step, variant=variant, density=density)
        each.append(single(member, lambda data: prepare(data, *arguments)))

    add("torch-memory", _vectors_onto, Tensor.copy_, variant="copy")
    add("torch-memory", _vectors_onto, Tensor.add_, variant="sum in place")
    for density in _DENSITIES:
        add("torch-topk", _torch_topk, density, density=density)
    for density in _DENSITIES:
        add("top-k", _top_k, density, False, variant="whole", density=density)
    add("top-k", _top_k, 0.01, True, variant="tensors", density=0.01)
    for density in _DENSITIES:
        add("accumulate-top-k", _accumulate_top_k, density, False, variant="whole", density=density)
    add("accumulate-top-k", _accumulate_top_k, 0.01, True, variant="tensors", density=0.01)
    for bits in (2, 4, 8):
        add("quantize", _quantize, bits, variant=f"{bits} bits, max")
        add("accumulate-quantize", _accumulate_quantize, bits, variant=f"{bits} bits, max")
    add("sign-bits", _vectors, sign_bits)
    add("accumulate-signs", _accumulate_signs, False, variant="buckets of 512")
    add("accumulate-signs", _accumulate_signs, True, variant="tensors")
    add("is-finite", _vectors, is_finite)
    add("segment-sums", _segments, functools.partial(segment_sums, power=1), variant="buckets of 512")
    add("segment-max", _segments, segment_max, variant="buckets of 512")
    add("add-levels", _add_levels, variant=f"{_BITS} bits")
    add("add-signs", _add_signs, variant="buckets of 512")
    for density in _DENSITIES:
        add("scatter-add", _scatter_add, density, density=density)
    add("pack", _pack, variant=f"{_BITS} bits")
    add("unpack", _unpack, variant=f"{_BITS} bits")
    add("crc32c", _vectors, _checksum, variant="4 d bytes")
    for density in _DENSITIES:
        add("rice-encode", _rice, density, True, density=density)
        add("rice-decode", _rice, density, False, density=density)
        add("exp-golomb-encode", _exp_golomb, density, True, density=density)
        add("exp-golomb-decode", _exp_golomb, density, False, density=density)
        add("adaptive-encode", _adaptive, density, True, variant=_FEW, density=density)
        add("adaptive-decode", _adaptive, density, False, variant=_FEW, density=density)
    for name, prepare in (("elias", _elias), ("rans", _rans)):
        add(f"{name}-encode", prepare, True, variant=f"{_BITS} bits, max")
        add(f"{name}-decode", prepare, False, variant=f"{_BITS} bits, max")
    for rounds in (1, 2):
        add("hadamard", _hadamard, rounds, variant=f"{rounds} round{'s' if rounds > 1 else ''}")
    add("random-subset", _random_subset, 0.01, density=0.01)
    return tuple(each)


def _vectors(data: BenchInput, run: Callable[[Tensor], Any]) -> Prepared:
    turns = Turns(data.vectors)
    return Prepared(case=Case(run=lambda: run(turns.current), refill=turns.refill))


def _vectors_onto(data: BenchInput, run: Callable[[Tensor, Tensor], Any]) -> Prepared:
    """What memory allows: error feedback cannot be faster than a sum in place, nor threads help more than with that."""
    total = torch.zeros(data.numel, dtype=torch.float32, device=CPU)
    return _vectors(data, lambda x: run(total, x))


def _segments(data: BenchInput, run: Callable[[Tensor, Tensor], Tensor]) -> Prepared:
    offsets = _buckets(data)
    return _vectors(data, lambda x: run(x, offsets))


def _torch_topk(data: BenchInput, density: float) -> Prepared:
    count = max(1, round(density * data.numel))
    return _vectors(data, lambda x: torch.topk(x.abs(), count, sorted=False))


def _top_k(data: BenchInput, density: float, by_tensor: bool) -> Prepared:
    offsets, counts = _kept(data, density, by_tensor)
    return _vectors(data, lambda x: top_k(x, offsets, counts))


def _accumulate_top_k(data: BenchInput, density: float, by_tensor: bool) -> Prepared:
    offsets, counts = _kept(data, density, by_tensor)
    return _accumulated(data, lambda x, residual: accumulate_top_k(x, residual, 1.0, x, offsets, counts))


def _quantize(data: BenchInput, bits: int) -> Prepared:
    levels, offsets = QSGD.bits_to_levels(bits), _buckets(data)
    return _vectors(data, lambda x: quantize(x, offsets, levels, "max", _KEY))


def _accumulate_quantize(data: BenchInput, bits: int) -> Prepared:
    levels, offsets = QSGD.bits_to_levels(bits), _buckets(data)
    return _accumulated(
        data, lambda x, residual: accumulate_quantize(x, residual, 1.0, x, offsets, levels, "max", _KEY)
    )


def _accumulate_signs(data: BenchInput, by_tensor: bool) -> Prepared:
    offsets = data.tensors.offsets() if by_tensor else _buckets(data)
    return _accumulated(data, lambda x, residual: accumulate_signs(x, residual, 1.0, x, offsets))


def _accumulated(data: BenchInput, run: Callable[[Tensor, Tensor], Any]) -> Prepared:
    """On a fresh vector each time, which the kernel writes over, and a residual."""
    x, residual = torch.empty(data.numel, dtype=torch.float32, device=CPU), data.vector(0).clone()
    return Prepared(case=Case(run=lambda: run(x, residual), refill=lambda turn: x.copy_(data.vector(turn + 1))))


def _add_levels(data: BenchInput) -> Prepared:
    levels, offsets = QSGD.bits_to_levels(_BITS), _buckets(data)
    codes, scales = quantize(data.vector(0), offsets, levels, "max", _KEY)
    units, total = scales / levels, torch.zeros(data.numel, dtype=torch.float32, device=CPU)
    return Prepared(case=Case(run=lambda: add_levels(codes, _BITS, levels, units, offsets, total)))


def _add_signs(data: BenchInput) -> Prepared:
    offsets, total = _buckets(data), torch.zeros(data.numel, dtype=torch.float32, device=CPU)
    bits, scales = sign_bits(data.vector(0)), segment_max(data.vector(0), offsets)
    return Prepared(case=Case(run=lambda: add_signs(bits, scales, offsets, total)))


def _scatter_add(data: BenchInput, density: float) -> Prepared:
    indices, total = _support(data, density), torch.zeros(data.numel, dtype=torch.float32, device=CPU)
    values = data.vector(0)[indices]
    return Prepared(case=Case(run=lambda: scatter_add(indices, values, total)))


def _pack(data: BenchInput) -> Prepared:
    codes = unpack(_codes(data), data.numel, _BITS)
    return Prepared(case=Case(run=lambda: pack(codes, _BITS)))


def _unpack(data: BenchInput) -> Prepared:
    packed = _codes(data)
    return Prepared(case=Case(run=lambda: unpack(packed, data.numel, _BITS)))


def _checksum(x: Tensor) -> int:
    return crc32c(x.view(torch.uint8))


def _rice(data: BenchInput, density: float, encodes: bool) -> Prepared:
    indices = _support(data, density)
    parameter = rice_parameter(indices)
    code = rice_encode(indices, parameter)
    return _coder(
        lambda: rice_encode(indices, rice_parameter(indices)),
        lambda: rice_decode(code, indices.numel(), data.numel, parameter),
        encodes,
        lambda: _index_facts(code, indices, data.numel),
    )


def _exp_golomb(data: BenchInput, density: float, encodes: bool) -> Prepared:
    indices = _support(data, density)
    code = exp_golomb_encode(indices)
    return _coder(
        lambda: exp_golomb_encode(indices),
        lambda: exp_golomb_decode(code, indices.numel(), data.numel),
        encodes,
        lambda: _index_facts(code, indices, data.numel),
    )


def _adaptive(data: BenchInput, density: float, encodes: bool) -> Prepared:
    indices = _support(data, density)[:MAX_COUNT].clone()
    numel = int(indices[-1]) + 1
    code = adaptive_encode(indices)
    return _coder(
        lambda: adaptive_encode(indices),
        lambda: adaptive_decode_prefix(code, indices.numel(), numel),
        encodes,
        lambda: _index_facts(code, indices, numel),
    )


def _elias(data: BenchInput, encodes: bool) -> Prepared:
    codes, levels = _codes(data), QSGD.bits_to_levels(_BITS)
    code = elias_encode(codes, data.numel, levels)
    return _coder(
        lambda: elias_encode(codes, data.numel, levels),
        lambda: elias_decode_prefix(code, data.numel, levels),
        encodes,
        lambda: _level_facts(code, codes, data),
    )


def _rans(data: BenchInput, encodes: bool) -> Prepared:
    codes = _codes(data)
    frequencies, code = rans_encode(codes, data.numel, _BITS)
    return _coder(
        lambda: rans_encode(codes, data.numel, _BITS),
        lambda: rans_decode(code, data.numel, _BITS, frequencies),
        encodes,
        lambda: _level_facts(code, codes, data),
    )


def _coder(encode: Callable[[], Any], decode: Callable[[], Any], encodes: bool, facts: Callable[[], Facts]) -> Prepared:
    return Prepared(case=Case(run=encode if encodes else decode), facts=facts)


def _hadamard(data: BenchInput, rounds: int) -> Prepared:
    out = torch.empty(data.numel, dtype=torch.float32, device=CPU)
    return _vectors(data, lambda x: hadamard_rotate(x, _KEY, rounds, out=out))


def _random_subset(data: BenchInput, density: float) -> Prepared:
    count = max(1, round(density * data.numel))
    return Prepared(case=Case(run=lambda: random_subset(_KEY, data.numel, count)))


def _buckets(data: BenchInput) -> Tensor:
    return Segments.uniform(data.numel, BUCKET).offsets()


def _kept(data: BenchInput, density: float, by_tensor: bool) -> tuple[Tensor, Tensor]:
    segments = data.tensors if by_tensor else Segments.whole(data.numel)
    return segments.offsets(), draw_counts(None, density, segments, Key(0))


def _support(data: BenchInput, density: float) -> Tensor:
    """The top entries of a vector, ascending: as clustered as the vector is."""
    return top_k(data.vector(0), *_kept(data, density, by_tensor=False))


def _codes(data: BenchInput) -> Tensor:
    return quantize(data.vector(0), _buckets(data), QSGD.bits_to_levels(_BITS), "max", _KEY)[0]


def _index_facts(code: Tensor, indices: Tensor, numel: int) -> Facts:
    bound = log2_binomial(numel, indices.numel())
    return Facts(
        bits_per_entry=8 * code.numel() / numel,
        entropy_bits=bound / numel,
        bits_per_index=8 * code.numel() / indices.numel(),
        index_bound_bits=bound / indices.numel(),
    )


def _level_facts(code: Tensor, packed: Tensor, data: BenchInput) -> Facts:
    return Facts(
        bits_per_entry=8 * code.numel() / data.numel,
        entropy_bits=order_zero(unpack(packed, data.numel, _BITS), 1 << _BITS),
    )
