"""Codes from 0 to ``num_codes - 1``, packed or in about their entropy: what kinds 3, 5 and 6 share."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bitpack.bits import largest_code, num_packed_bytes
from thinwire.kernels.entropy.rans import MAX_SYMBOL_BITS, rans_decode_prefix, rans_encode
from thinwire.wire.header import Parts, Reader, bytes_of, varint

Coding = Literal["packed", "entropy"]

PACKED, ENTROPY = 0, 2
_STORED, _RANS = 0, 1


def code_width(num_codes: int) -> int:
    """Bits of a packed code.

    Example:
        >>> code_width(3), code_width(1)
        (2, 1)
    """
    return max(1, (num_codes - 1).bit_length())


def codes_parts(codes: Tensor, count: int, num_codes: int, coding: Coding) -> Parts:
    """The byte that says how, then the codes; ``codes`` holds ``count`` of them, packed."""
    if coding == "packed":
        return [bytes([PACKED]), bytes_of(codes)]
    stored: Parts = [bytes([ENTROPY, _STORED]), bytes_of(codes)]
    if count == 0:
        return stored
    width = code_width(num_codes)
    frequencies, data = rans_encode(codes, count, width)
    num_symbols = _num_symbols(num_codes)
    if width > MAX_SYMBOL_BITS or frequencies[num_symbols:].any():
        check_codes(codes, count, num_codes)
    table = b"".join(map(varint, frequencies[:num_symbols].tolist()))
    if len(table) + data.numel() >= codes.numel():
        return stored
    return [bytes([ENTROPY, _RANS]), table, bytes_of(data)]


def codes_num_bytes(codes: Tensor, count: int, num_codes: int, coding: Coding) -> int:
    """Length of :func:`codes_parts`: at once for packed codes, else about as much work as these."""
    if coding == "packed":
        return 1 + codes.numel()
    return sum(map(len, codes_parts(codes, count, num_codes, coding)))


def max_codes_num_bytes(count: int, num_codes: int, coding: Coding) -> int:
    """The most bytes that any such codes take: entropy-coded, one says that nothing shorter was found."""
    return 1 + num_packed_bytes(count, code_width(num_codes)) + (coding == "entropy")


def read_codes(reader: Reader, count: int, num_codes: int) -> tuple[Tensor, Coding]:
    """Read what :func:`codes_parts` wrote."""
    tag = reader.byte()
    if tag == PACKED:
        return read_packed(reader, count, num_codes), "packed"
    if tag == ENTROPY:
        return read_entropy(reader, count, num_codes), "entropy"
    raise WireError(f"coding {tag} is unknown; 0 and 2 are known")


def read_packed(reader: Reader, count: int, num_codes: int) -> Tensor:
    """Packed codes, none of them too large, and nothing after the last one."""
    width = code_width(num_codes)
    codes = reader.tensor(torch.uint8, num_packed_bytes(count, width))
    _refuse_larger(codes, count, num_codes)
    if count * width % 8 and int(codes[-1]) >> (count * width % 8):
        raise WireError("the bits after the last code are not zero")
    return codes


def read_entropy(reader: Reader, count: int, num_codes: int) -> Tensor:
    """Codes in the shorter of two forms, packed again."""
    form = reader.byte()
    if form == _STORED:
        return read_packed(reader, count, num_codes)
    if form != _RANS:
        raise WireError(f"form {form} of entropy-coded codes is unknown; 0 and 1 are known")
    frequencies = np.array([reader.varint() for _ in range(_num_symbols(num_codes))], np.int64)
    width = code_width(num_codes)
    codes, num_bytes = rans_decode_prefix(reader.rest(), count, width, torch.from_numpy(frequencies))
    reader.take(num_bytes)
    if width > MAX_SYMBOL_BITS:
        # Low bits may go past the last code; symbols do not, since only those that can be have frequencies.
        _refuse_larger(codes, count, num_codes)
    return codes


def check_codes(codes: Tensor, count: int, num_codes: int) -> None:
    """Raise ConfigError for a code that there is not."""
    if largest_code(codes, count, code_width(num_codes)) >= num_codes:
        raise ConfigError(f"codes are 0 to {num_codes - 1}, one is larger")


def check_packed(codes: Tensor, count: int, num_codes: int) -> None:
    """Raise ConfigError for memory that does not hold so many codes."""
    width = code_width(num_codes)
    num_bytes = num_packed_bytes(count, width)
    if codes.dtype != torch.uint8 or codes.shape != (num_bytes,):
        raise ConfigError(f"{count} codes of {width} bits take {num_bytes} bytes of uint8")


def check_coding(coding: str) -> None:
    """Raise ConfigError for a word that says no coding."""
    if coding not in ("packed", "entropy"):
        raise ConfigError(f"the coding {coding!r} was given; it is 'packed' or 'entropy'")


def _num_symbols(num_codes: int) -> int:
    """How many different top 8 bits the codes have."""
    return (num_codes - 1 >> max(0, code_width(num_codes) - MAX_SYMBOL_BITS)) + 1


def _refuse_larger(codes: Tensor, count: int, num_codes: int) -> None:
    if largest_code(codes, count, code_width(num_codes)) >= num_codes:
        raise WireError(f"a code is above {num_codes - 1}, the largest of {num_codes}")
