"""Codes and the checksum once more, as their definitions say: what the kernels are compared with."""

import torch
from torch import Tensor

from thinwire.kernels.bitpack.bits import num_packed_bytes, pack_torch, unpack_torch
from thinwire.kernels.entropy.elias import MAX_NUM_BITS
from thinwire.kernels.entropy.exp_golomb import BLOCK, num_blocks_of


def crc32c_python(data: bytes, previous: int = 0) -> int:
    """The checksum in plain Python, bit by bit, as the definition says.

    Example:
        >>> hex(crc32c_python(b"123456789"))
        '0xe3069283'
    """
    state = previous ^ 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def rice_decode_torch(data: Tensor, count: int, numel: int, parameter: int) -> Tensor:
    """The indices of valid data in torch operations; it checks nothing."""
    num_remainder_bytes = num_packed_bytes(count, parameter)
    shifts = torch.arange(8, device=data.device, dtype=torch.uint8)
    bits = ((data.unsqueeze(1) >> shifts) & 1).reshape(-1)
    ones = bits[8 * num_remainder_bytes :].nonzero().squeeze(1)
    quotients = ones.diff(prepend=ones.new_full((1,), -1)) - 1
    per_code = bits[: count * parameter].view(count, parameter).to(torch.int64)
    remainders = (per_code << torch.arange(parameter, dtype=torch.int64, device=data.device)).sum(1)
    return ((quotients << parameter) + remainders + 1).cumsum(0) - 1


def exp_golomb_decode_torch(data: Tensor, count: int, numel: int) -> Tensor:
    """The indices of valid data in torch operations; it checks nothing."""
    num_blocks = num_blocks_of(count)
    orders = unpack_torch(data, num_blocks, 4).to(torch.int64).repeat_interleave(BLOCK)[:count]
    shifts = torch.arange(8, device=data.device, dtype=torch.uint8)
    bits = ((data[num_packed_bytes(num_blocks, 4) :].unsqueeze(1) >> shifts) & 1).reshape(-1)
    ones = bits.nonzero().squeeze(1)[:count]
    widths = ones.diff(prepend=ones.new_full((1,), -1)) - 1 + orders
    start = (int(ones[-1]) // 8 + 1) * 8 if count else 0
    ends = widths.cumsum(0)
    total = int(ends[-1]) if count else 0
    places = torch.arange(total, dtype=torch.int64, device=data.device) - (ends - widths).repeat_interleave(widths)
    raw = bits[start : start + places.numel()].to(torch.int64) << places
    owners = torch.arange(count, dtype=torch.int64, device=data.device).repeat_interleave(widths)
    numbers = (torch.ones_like(widths) << widths).index_add(0, owners, raw)
    return (numbers - (1 << orders) + 1).cumsum(0) - 1


class Decisions:
    """The arithmetic code of decisions in plain Python, as the definition says."""

    def __init__(self) -> None:
        self.low, self.high, self.written = 0, 2**32 - 1, bytearray()
        self.estimates: dict[tuple[object, ...], list[int]] = {}

    def write(self, bit: int, name: tuple[object, ...] | None, first: int = 32768) -> None:
        """A decision; those of one name share an estimate, and without a name it is even."""
        pair = [32768, 32768] if name is None else self.estimates.setdefault(name, [first, first])
        probability = min(max((pair[0] + pair[1]) >> 1, 64), 65536 - 64)
        middle = self.low + ((self.high - self.low) * probability >> 16)
        self.low, self.high = (self.low, middle) if bit else (middle + 1, self.high)
        for which, rate in enumerate((4, 7)):
            pair[which] += (65536 * bit - pair[which]) >> rate
        while self.low >> 24 == self.high >> 24:
            self.written.append(self.low >> 24)
            self.low, self.high = self.low << 8 & 0xFFFFFFFF, self.high << 8 & 0xFFFFFFFF | 0xFF

    def write_number(self, number: int, sort: str, num_learnt: int) -> None:
        """Its width, and its low bits, of which the highest are learnt."""
        number += 1
        width = number.bit_length() - 1
        for t in range(width + 1):
            self.write(int(t == width), (sort, "ends", t), 20000)
        for place in range(width - 1, -1, -1):
            learnt = width - place <= num_learnt
            self.write(number >> place & 1, (sort, width - place, width) if learnt else None)

    def end(self) -> bytes:
        """The code."""
        for num_bytes in range(5):
            step = 1 << (32 - 8 * num_bytes)
            start = -(-self.low // step) * step
            if start + step - 1 <= self.high:
                break
        return bytes(self.written) + start.to_bytes(4, "big")[:num_bytes]


def adaptive_encode_python(gaps: list[int]) -> bytes:
    """The adaptive code of gaps in plain Python, as the definition says.

    Example:
        >>> adaptive_encode_python([0, 2]).hex()
        '1a'
    """
    decisions = Decisions()
    for gap in gaps:
        decisions.write_number(gap, "gaps", 1)
    return decisions.end()


def word_steps_python(before: list[int], after: list[int], bits: int, shift: int, exponent_bits: int) -> bytes:
    """The code of how words changed in plain Python, as the definition says.

    Example:
        >>> word_steps_python([5, 7], [5, 8], 8, 0, 0).hex()
        '75de'
    """
    top = 1 << (bits - 1)

    def in_order(word: int) -> int:
        if not exponent_bits:
            return word
        return 2 * top - 1 - word if word & top else word + top

    decisions = Decisions()
    exponents = [word >> shift & (2**exponent_bits - 1) for word in before]
    for exponent in sorted(set(exponents)):
        own = [i for i, each in enumerate(exponents) if each == exponent]
        changed = [rank for rank, i in enumerate(own) if before[i] != after[i]]
        decisions.write_number(len(changed), "counts", 2)
        last = -1
        for rank in changed:
            step = (in_order(after[own[rank]]) - in_order(before[own[rank]]) + top) % (2 * top) - top
            decisions.write_number(rank - last - 1, "gaps", 2)
            decisions.write(int(step < 0), ("sign",))
            decisions.write_number(abs(step) - 1, "steps", 2)
            last = rank
    return decisions.end()


def elias_decode_torch(data: Tensor, count: int, num_levels: int) -> Tensor:
    """The packed codes of valid data in torch operations.

    Every bit is decoded as if a level began there; the true beginnings are found by doubling the reach of "the level
    after this one".
    """
    shifts = torch.arange(8, device=data.device, dtype=torch.uint8)
    bits = (data.unsqueeze(1) >> shifts & 1).reshape(-1).to(torch.int64)
    num_bits = bits.numel()
    bits = torch.nn.functional.pad(bits, (0, MAX_NUM_BITS + 1))
    starts = torch.arange(num_bits, dtype=torch.int64, device=data.device)
    position, number = starts.clone(), torch.ones_like(starts)
    # Levels of 16 digits are preceded by 2 and 4 digits, those of 17 to 31 by 2, 3 and 5.
    for most in (2, 4, 16, 31):
        more = bits[position.clamp(max=num_bits)] == 1
        value = torch.zeros_like(number)
        for digit in range(most):
            inside = more & (digit <= number) & (number < 32)
            value = torch.where(inside, value << 1 | bits[(position + digit).clamp(max=num_bits)], value)
        position = torch.where(more, position + number + 1, position).clamp(max=num_bits)
        number = torch.where(more, value, number)
    level = number - 1
    sign = bits[(position + 1).clamp(max=num_bits)]
    codes = num_levels + torch.where(sign == 1, -level, level)
    following = (position + 1 + (level > 0).to(torch.int64)).clamp(max=num_bits)
    # One place more, that follows itself, for the end.
    following = torch.cat([following, following.new_full((1,), num_bits)])
    reached = torch.zeros(num_bits + 1, dtype=torch.bool, device=data.device)
    reached[0] = True
    for _ in range(max(1, num_bits).bit_length()):
        reached[following[reached]] = True
        following = following[following]
    return pack_torch(codes[reached[:num_bits].nonzero().squeeze(1)[:count]], (2 * num_levels).bit_length())
