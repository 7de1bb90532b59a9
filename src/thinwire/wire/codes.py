"""Codes from 0 to ``num_codes - 1``, packed or shorter: what kinds 3, 5, 6 and 7 share."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bitpack.bits import largest_code, num_packed_bytes
from thinwire.kernels.entropy.elias import elias_decode_prefix, elias_encode, elias_num_bytes
from thinwire.kernels.entropy.rans import MAX_SYMBOL_BITS, rans_decode_prefix, rans_encode
from thinwire.wire.kind import Coded, Parts, Pieces, bytes_of, varint
from thinwire.wire.reader import Reader

Coding = Literal["packed", "entropy"]
LevelCoding = Literal["packed", "elias", "entropy"]

_PACKED, _ELIAS, _ENTROPY = 0, 1, 2
_CODINGS = {_PACKED: "packed", _ENTROPY: "entropy"}
_LEVEL_CODES = {_PACKED: "packed", _ELIAS: "Elias omega", _ENTROPY: "entropy"}
_STORED, _RANS = 0, 1


def code_width(num_codes: int) -> int:
    """Bits of a packed code.

    Example:
        >>> code_width(3), code_width(1)
        (2, 1)
    """
    return max(1, (num_codes - 1).bit_length())


def codes_parts(codes: Tensor, count: int, num_codes: int, coding: Coding) -> Parts:
    """The byte that says how, then the codes; ``codes`` holds ``count`` of them, packed.

    Raises:
        ConfigError: a word that says no coding, or memory that does not hold so many codes.
    """
    if coding not in ("packed", "entropy"):
        raise ConfigError(f"the coding {coding!r} was given; it is 'packed' or 'entropy'")
    packed = packed_part(codes, count, num_codes)
    if coding == "packed":
        return [bytes([_PACKED]), packed]
    # Where nothing shorter is found, one byte says so.
    most = 1 + packed.numel()
    return [bytes([_ENTROPY]), Coded(lambda: _entropy_pieces(packed, count, num_codes), lambda: most)]


def level_codes_parts(codes: Tensor, count: int, num_levels: int, coding: LevelCoding) -> Parts:
    """As :func:`codes_parts`, of signed levels and in one more coding."""
    if coding not in ("packed", "elias", "entropy"):
        raise ConfigError(f"the coding {coding!r} was given; it is 'packed', 'elias' or 'entropy'")
    num_codes = 2 * num_levels + 1
    if coding != "elias":
        return codes_parts(codes, count, num_codes, coding)
    packed = packed_part(codes, count, num_codes)

    def pieces() -> Pieces:
        _check_codes(packed, count, num_codes)
        return [bytes_of(elias_encode(packed, count, num_levels))]

    def most() -> int:
        return num_packed_bytes(count, _omega_num_bits(num_levels + 1) + 1)

    return [bytes([_ELIAS]), Coded(pieces, most, lambda: elias_num_bytes(packed, count, num_levels))]


def packed_part(codes: Tensor, count: int, num_codes: int) -> Tensor:
    """Packed codes as they are.

    Raises:
        ConfigError: memory that does not hold so many codes.
    """
    width = code_width(num_codes)
    num_bytes = num_packed_bytes(count, width)
    if codes.dtype != torch.uint8 or codes.shape != (num_bytes,):
        raise ConfigError(f"{count} codes of {width} bits take {num_bytes} bytes of uint8")
    return codes


def read_codes(reader: Reader, count: int, num_codes: int) -> tuple[Tensor, Coding]:
    """Read what :func:`codes_parts` wrote."""
    tag = reader.byte("coding", _CODINGS)
    if tag == _PACKED:
        return read_packed(reader, count, num_codes), "packed"
    if tag == _ENTROPY:
        return _read_entropy(reader, count, num_codes), "entropy"
    raise WireError(f"coding {tag} is unknown; 0 and 2 are known")


def read_level_codes(reader: Reader, count: int, num_levels: int) -> tuple[Tensor, LevelCoding]:
    """Read what :func:`level_codes_parts` wrote."""
    tag = reader.byte("level code", _LEVEL_CODES)
    if tag == _PACKED:
        return read_packed(reader, count, 2 * num_levels + 1), "packed"
    if tag == _ELIAS:
        codes = reader.coded(elias_decode_prefix, count, num_levels)
        _name_codes(reader, count, 2 * num_levels + 1)
        return codes, "elias"
    if tag == _ENTROPY:
        return _read_entropy(reader, count, 2 * num_levels + 1), "entropy"
    raise WireError(f"level code {tag} is unknown; 0, 1 and 2 are known")


def read_packed(reader: Reader, count: int, num_codes: int) -> Tensor:
    """Packed codes, none of them too large, and nothing after the last one."""
    width = code_width(num_codes)
    codes = reader.packed(count, width)
    _refuse_larger(codes, count, num_codes)
    reader.check_padding(count * width, "code")
    _name_codes(reader, count, num_codes)
    return codes


def _entropy_pieces(codes: Tensor, count: int, num_codes: int) -> Pieces:
    """The codes in the shorter of two forms."""
    stored: Pieces = [bytes([_STORED]), bytes_of(codes)]
    if count == 0:
        return stored
    width = code_width(num_codes)
    frequencies, data = rans_encode(codes, count, width)
    num_symbols = _num_symbols(num_codes)
    if width > MAX_SYMBOL_BITS or frequencies[num_symbols:].any():
        _check_codes(codes, count, num_codes)
    table = b"".join(map(varint, frequencies[:num_symbols].tolist()))
    if len(table) + data.numel() >= codes.numel():
        return stored
    return [bytes([_RANS]), table, bytes_of(data)]


def _read_entropy(reader: Reader, count: int, num_codes: int) -> Tensor:
    """Codes in the shorter of two forms, packed again."""
    form = reader.byte()
    if form == _STORED:
        return read_packed(reader, count, num_codes)
    if form != _RANS:
        raise WireError(f"form {form} of entropy-coded codes is unknown; 0 and 1 are known")
    frequencies = np.array([reader.varint() for _ in range(_num_symbols(num_codes))], np.int64)
    width = code_width(num_codes)
    codes = reader.coded(rans_decode_prefix, count, width, torch.from_numpy(frequencies))
    if width > MAX_SYMBOL_BITS:
        # Low bits may go past the last code; symbols do not, since only those that can be have frequencies.
        _refuse_larger(codes, count, num_codes)
    _name_codes(reader, count, num_codes)
    return codes


def _name_codes(reader: Reader, count: int, num_codes: int) -> None:
    if reader.listener is not None:
        reader.field(
            "codes", f"{count} from 0 to {num_codes - 1},", reader.bits_each(reader.listener.end, count, "a code")
        )


def _num_symbols(num_codes: int) -> int:
    """How many different top 8 bits the codes have."""
    return (num_codes - 1 >> max(0, code_width(num_codes) - MAX_SYMBOL_BITS)) + 1


def _omega_num_bits(number: int) -> int:
    """Length of Elias' omega code of a number from 1 on; it does not fall as the number grows."""
    num_bits = 1
    while number > 1:
        num_bits += number.bit_length()
        number = number.bit_length() - 1
    return num_bits


def _check_codes(codes: Tensor, count: int, num_codes: int) -> None:
    if largest_code(codes, count, code_width(num_codes)) >= num_codes:
        raise ConfigError(f"codes are 0 to {num_codes - 1}, one is larger")


def _refuse_larger(codes: Tensor, count: int, num_codes: int) -> None:
    if largest_code(codes, count, code_width(num_codes)) >= num_codes:
        raise WireError(f"a code is above {num_codes - 1}, the largest of {num_codes}")
