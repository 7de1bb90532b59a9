"""Integers of a few bits each, packed without gaps, on CUDA."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.bitpack.bits import num_packed_bytes
from thinwire.kernels.jit.launches import BLOCK, launch


def pack(codes: Tensor, width: int) -> Tensor:
    """See :func:`thinwire.kernels.bitpack.bits.pack_torch`; one pass over the codes."""
    count = codes.numel()
    packed, target = packed_room(count, width, codes.device)
    numbers = (codes.view(torch.uint8) if codes.dtype == torch.bool else codes).contiguous()
    launch(_pack, triton.cdiv(count, BLOCK), [numbers, count, target], {"WIDTH": width, "BLOCK": BLOCK})
    return packed


def unpack(packed: Tensor, count: int, width: int) -> Tensor:
    """See :func:`thinwire.kernels.bitpack.bits.unpack_torch`; one pass over the codes."""
    codes = torch.empty(count, dtype=torch.int32, device=packed.device)
    launch(_unpack, triton.cdiv(count, BLOCK), [packed.contiguous(), count, codes], {"WIDTH": width, "BLOCK": BLOCK})
    return codes


def packed_room(count: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where packed codes go: the bytes (uint8), and the same memory as :func:`store_packed` takes it.

    That is in words (int32) where as many codes as fit fill a word, else in bytes.
    """
    num_bytes = num_packed_bytes(count, width)
    words = torch.empty(triton.cdiv(num_bytes, 4), dtype=torch.int32, device=device)
    packed = words.view(torch.uint8)
    return packed[:num_bytes], words if 32 % width == 0 else packed


@triton.jit
def store_packed(
    codes: tl.tensor, first: tl.tensor, count: tl.tensor, target: tl.tensor, WIDTH: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    """Pack ``codes`` (``[BLOCK]``, in ``[0, 2**WIDTH)``, 0 from ``count`` on), numbers ``first`` and following of
    ``count``, to ``target`` of :func:`packed_room`; ``first`` is a multiple of 32.
    """
    if 32 % WIDTH == 0:
        per_word: tl.constexpr = 32 // WIDTH
        shifts = (tl.arange(0, per_word) * WIDTH).to(tl.uint32)
        # Bits of different codes: their sum in any order.
        words = tl.sum(tl.reshape(codes.to(tl.uint32), (BLOCK // per_word, per_word)) << shifts[None, :], 1)
        places = first // per_word + tl.arange(0, BLOCK // per_word)
        tl.store(target + places, words.to(tl.int32, bitcast=True), mask=places * per_word < count)
    else:
        num_bytes = ((tl.zeros([], tl.int64) + count) * WIDTH + 7) // 8
        eights = tl.reshape(codes.to(tl.uint32).to(tl.uint64), (BLOCK // 8, 8))
        begins = (first // 8 + tl.arange(0, BLOCK // 8)) * WIDTH
        # Eight codes are so many bytes, made eight at a time.
        for piece in tl.static_range((WIDTH + 7) // 8):
            shifts = tl.arange(0, 8) * WIDTH - 64 * piece
            up = tl.minimum(tl.maximum(shifts, 0), 63).to(tl.uint64)[None, :]
            down = tl.minimum(tl.maximum(-shifts, 0), 63).to(tl.uint64)[None, :]
            number = tl.sum(tl.where((shifts < 64)[None, :], (eights << up) >> down, 0), 1)
            for byte in tl.static_range(8 if 8 * piece + 8 <= WIDTH else WIDTH - 8 * piece):
                places = begins + (8 * piece + byte)
                tl.store(target + places, (number >> (8 * byte)).to(tl.uint8), mask=places < num_bytes)


@triton.jit
def load_packed(packed: tl.tensor, places: tl.tensor, count: tl.tensor, WIDTH: tl.constexpr) -> Any:
    """Codes ``places`` (int64) of ``count`` packed ones: int32 of their shape; 0 from ``count`` on."""
    step: tl.constexpr = 8 if WIDTH % 8 == 0 else 4 if WIDTH % 4 == 0 else 2 if WIDTH % 2 == 0 else 1
    # A code begins at most 8 - step bits behind the beginning of its first byte.
    most_bytes: tl.constexpr = (8 - step + WIDTH + 7) // 8
    kind: tl.constexpr = tl.uint32 if most_bytes <= 4 else tl.uint64
    num_bytes = ((tl.zeros([], tl.int64) + count) * WIDTH + 7) // 8
    bits = places * WIDTH
    begins = bits >> 3
    window = tl.zeros(places.shape, kind)
    for byte in tl.static_range(most_bytes):
        found = tl.load(packed + begins + byte, mask=begins + byte < num_bytes, other=0)
        window = window | (found.to(kind) << (8 * byte))
    return ((window >> (bits & 7).to(kind)) & ((1 << WIDTH) - 1)).to(tl.int32)


@triton.jit
def _pack(codes: tl.tensor, count: tl.tensor, target: tl.tensor, WIDTH: tl.constexpr, BLOCK: tl.constexpr) -> None:
    first = tl.program_id(0).to(tl.int64) * BLOCK
    places = first + tl.arange(0, BLOCK)
    numbers = tl.load(codes + places, mask=places < count, other=0).to(tl.uint32)
    store_packed(numbers & ((1 << WIDTH) - 1), first, count, target, WIDTH, BLOCK)


@triton.jit
def _unpack(packed: tl.tensor, count: tl.tensor, codes: tl.tensor, WIDTH: tl.constexpr, BLOCK: tl.constexpr) -> None:
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(codes + places, load_packed(packed, places, count, WIDTH), mask=places < count)
