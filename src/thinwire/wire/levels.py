"""Level payloads: the cut, the number of levels, one scale a segment, and the codes as the payload asks for."""

import torch

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.entropy.elias import elias_decode_prefix, elias_encode, elias_num_bytes
from thinwire.payloads.levels import Levels
from thinwire.wire.codes import (
    ENTROPY,
    PACKED,
    check_codes,
    check_packed,
    codes_num_bytes,
    codes_parts,
    read_entropy,
    read_packed,
)
from thinwire.wire.header import Parts, Reader, bytes_of, varint, varint_num_bytes
from thinwire.wire.segments import check_per_segment, read_segments, segments_num_bytes, segments_parts

_MAX_LEVELS = 2**30 - 1
_ELIAS = 1


def levels_parts(payload: Levels) -> Parts:
    """What follows the kind byte."""
    _check(payload)
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        varint(payload.num_levels),
        bytes_of(payload.scales),
        *_codes_parts(payload),
    ]


def levels_num_bytes(payload: Levels) -> int:
    """Length of :func:`levels_parts`: at once for packed codes, else about as much work as these."""
    _check(payload)
    integers = varint_num_bytes(payload.numel) + varint_num_bytes(payload.num_levels)
    before = integers + segments_num_bytes(payload.segments) + 4 * payload.scales.numel()
    if payload.coding == "elias":
        return before + 1 + elias_num_bytes(payload.codes, payload.numel, payload.num_levels)
    return before + codes_num_bytes(payload.codes, payload.numel, _num_codes(payload.num_levels), payload.coding)


def read_levels(reader: Reader) -> Levels:
    """Read what :func:`levels_parts` wrote."""
    numel = reader.numel()
    segments = read_segments(reader, numel)
    num_levels = reader.varint()
    if not 1 <= num_levels <= _MAX_LEVELS:
        raise WireError(f"{num_levels} levels are declared; 1 to {_MAX_LEVELS} are possible")
    scales = reader.tensor(torch.float32, segments.count)
    tag = reader.byte()
    if tag == PACKED:
        return Levels(read_packed(reader, numel, _num_codes(num_levels)), scales, num_levels, segments)
    if tag == _ELIAS:
        codes, num_bytes = elias_decode_prefix(reader.rest(), numel, num_levels)
        reader.take(num_bytes)
        return Levels(codes, scales, num_levels, segments, "elias")
    if tag == ENTROPY:
        return Levels(read_entropy(reader, numel, _num_codes(num_levels)), scales, num_levels, segments, "entropy")
    raise WireError(f"level code {tag} is unknown; 0, 1 and 2 are known")


def _codes_parts(payload: Levels) -> Parts:
    num_codes = _num_codes(payload.num_levels)
    if payload.coding != "elias":
        return codes_parts(payload.codes, payload.numel, num_codes, payload.coding)
    check_codes(payload.codes, payload.numel, num_codes)
    return [bytes([_ELIAS]), bytes_of(elias_encode(payload.codes, payload.numel, payload.num_levels))]


def _num_codes(num_levels: int) -> int:
    return 2 * num_levels + 1


def _check(payload: Levels) -> None:
    if not 1 <= payload.num_levels <= _MAX_LEVELS:
        raise ConfigError(f"{payload.num_levels} levels were given; 1 to {_MAX_LEVELS} are possible")
    check_per_segment(payload.scales, payload.segments, "scales")
    if payload.coding not in ("packed", "elias", "entropy"):
        raise ConfigError(f"the coding {payload.coding!r} was given; it is 'packed', 'elias' or 'entropy'")
    check_packed(payload.codes, payload.numel, _num_codes(payload.num_levels))
