"""The rANS code of :mod:`thinwire.kernels.entropy.rans` in torch operations, on any device.

All states of all blocks advance together: the loop is over the entries of one state.
"""

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.kernels.bitpack.bits import num_packed_bytes, pack_torch, unpack_torch
from thinwire.kernels.flat.checks import segment_of_each

_BLOCK, _LANES = 1 << 17, 32
_START = 1 << 16


def rans_counts_torch(packed: Tensor, count: int, width: int) -> Tensor:
    """:func:`thinwire.kernels.entropy.rans.rans_counts` in torch operations, on any device."""
    symbols = unpack_torch(packed, count, width) >> max(0, width - 8)
    return torch.bincount(symbols, minlength=1 << min(width, 8))


def rans_encode_torch(packed: Tensor, count: int, width: int, frequencies: Tensor) -> Tensor:
    """:func:`thinwire.kernels.entropy.rans.rans_encode` in torch operations, on any device; it checks nothing."""
    shift = max(0, width - 8)
    codes = unpack_torch(packed, count, width)
    sizes = to_device(frequencies, codes.device)
    begins = sizes.cumsum(0) - sizes
    num_rows = min(_BLOCK, count + -count % _LANES) // _LANES
    num_blocks = -(-count // _BLOCK)
    padded = torch.nn.functional.pad(codes >> shift, (0, num_blocks * num_rows * _LANES - count), value=-1)
    # [rows, blocks, lanes]: entry 32 * row + lane of a block.
    rows = padded.to(torch.int64).view(num_blocks, num_rows, _LANES).transpose(0, 1)
    states = torch.full((num_blocks, _LANES), _START, dtype=torch.int64, device=codes.device)
    words = torch.empty(num_rows, num_blocks, _LANES, dtype=torch.int64, device=codes.device)
    written = torch.empty(num_rows, num_blocks, _LANES, dtype=torch.bool, device=codes.device)
    for row in range(num_rows - 1, -1, -1):
        here = rows[row] >= 0
        symbols = rows[row].clamp(min=0)
        size = sizes[symbols].clamp(min=1)
        full = here & (states >> 20 >= size)
        words[row], written[row] = states & 0xFFFF, full
        short = torch.where(full, states >> 16, states)
        pushed = (short // size << 12) + short % size + begins[symbols]
        states = torch.where(here, pushed, states)
    num_words = written.sum((0, 2))
    low = pack_torch(codes & ((1 << shift) - 1), shift) if shift else packed[:0]
    parts = [low, _bytes_of(num_words, 4)]
    for block in range(num_blocks):
        parts += [_bytes_of(states[block], 4), _bytes_of(words[:, block][written[:, block]], 2)]
    return torch.cat(parts)


def rans_decode_torch(data: Tensor, count: int, width: int, frequencies: Tensor) -> Tensor:
    """:func:`thinwire.kernels.entropy.rans.rans_decode` of valid data in torch operations, on any device.

    It reads nothing outside ``data``, whatever that holds, but checks nothing.
    """
    shift = max(0, width - 8)
    sizes = to_device(frequencies, data.device)
    owners = segment_of_each(sizes)
    begins = sizes.cumsum(0) - sizes
    num_rows = min(_BLOCK, count + -count % _LANES) // _LANES
    num_blocks = -(-count // _BLOCK)
    first = num_packed_bytes(count, shift) if shift else 0
    num_words = _numbers_of(data[first : first + 4 * num_blocks], 4)
    # Where the block's words begin, and where its next word lies.
    next_word = first + 4 * num_blocks + 128 + (2 * num_words + 128).cumsum(0) - (2 * num_words + 128)
    lanes = torch.arange(_LANES, dtype=torch.int64, device=data.device)
    state_bytes = (next_word - 128).view(-1, 1) + torch.arange(128, dtype=torch.int64, device=data.device)
    states = _numbers_of(data[state_bytes.reshape(-1)], 4).view(num_blocks, _LANES)
    # The number of entries of a block: only the last may be shorter than the others.
    ends = (
        (count - _BLOCK * torch.arange(num_blocks, dtype=torch.int64, device=data.device)).clamp(max=_BLOCK).view(-1, 1)
    )
    symbols = torch.empty(num_rows, num_blocks, _LANES, dtype=torch.int64, device=data.device)
    for row in range(num_rows):
        here = row * _LANES + lanes < ends
        slots = states & 4095
        symbols[row] = owners[slots]
        pulled = sizes[symbols[row]] * (states >> 12) + slots - begins[symbols[row]]
        more = here & (pulled < _START)
        # A lane's word comes after those that the lanes before it take.
        places = next_word.view(-1, 1) + 2 * (more.cumsum(1) - more.to(torch.int64))
        places = places.clamp(max=max(0, data.numel() - 2))
        longer = pulled << 16 | data[places].to(torch.int64) | data[places + 1].to(torch.int64) << 8
        states = torch.where(here, torch.where(more, longer, pulled), states)
        next_word = next_word + 2 * more.sum(1)
    codes = symbols.transpose(0, 1).reshape(-1)[:count]
    if shift:
        codes = codes << shift | unpack_torch(data, count, shift).to(torch.int64)
    return pack_torch(codes, width)


def _bytes_of(numbers: Tensor, num_bytes: int) -> Tensor:
    shifts = 8 * torch.arange(num_bytes, dtype=torch.int64, device=numbers.device)
    return (numbers.unsqueeze(1) >> shifts & 0xFF).to(torch.uint8).reshape(-1)


def _numbers_of(data: Tensor, num_bytes: int) -> Tensor:
    shifts = 8 * torch.arange(num_bytes, dtype=torch.int64, device=data.device)
    return (data.view(-1, num_bytes).to(torch.int64) << shifts).sum(1)
