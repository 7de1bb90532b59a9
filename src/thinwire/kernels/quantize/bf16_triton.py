"""Numbers of 32 bits rounded to bf16 at random, on CUDA."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.jit.launches import BLOCK, launch
from thinwire.kernels.random.philox_triton import halves_in_order, key_argument


def round_to_bf16(x: Tensor, key: int, out: Tensor) -> Tensor:
    """See :func:`thinwire.kernels.quantize.bf16.round_to_bf16_torch`; one pass over both."""
    arguments: list[Tensor | int | float] = [x.view(torch.int32), key_argument(key), out.view(torch.int16), x.numel()]
    launch(_round, triton.cdiv(x.numel(), BLOCK), arguments, {"BLOCK": BLOCK})
    return out


@triton.jit(do_not_specialize=["key"])
def _round(x: tl.tensor, key: tl.tensor, out: tl.tensor, numel: tl.tensor, BLOCK: tl.constexpr) -> None:
    first = tl.program_id(0).to(tl.int64) * BLOCK
    places = first + tl.arange(0, BLOCK)
    inside = places < numel
    bits = tl.load(x + places, mask=inside, other=0).to(tl.uint32, bitcast=True)
    # A block of the generator serves eight entries.
    random = halves_in_order(first // 8, 0, key, BLOCK)
    magnitude = bits & 0x7FFFFFFF
    rounded = (bits + tl.where(magnitude < 0x7F7F0000, random, 0)) >> 16
    # The bits of a NaN that are left may be none.
    rounded = rounded | tl.where(magnitude > 0x7F800000, 64, 0).to(tl.uint32)
    tl.store(out + places, rounded.to(tl.uint16).to(tl.int16, bitcast=True), mask=inside)
