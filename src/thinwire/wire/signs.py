"""Sign payloads: the cut, one scale a segment, one bit an entry."""

import torch

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.signs import Signs
from thinwire.wire.header import Parts, Reader, bytes_of, varint, varint_num_bytes
from thinwire.wire.segments import check_per_segment, read_segments, segments_num_bytes, segments_parts


def signs_parts(payload: Signs) -> Parts:
    """What follows the kind byte."""
    _check(payload)
    cut = segments_parts(payload.segments)
    return [varint(payload.numel), *cut, bytes_of(payload.scales), bytes_of(payload.bits)]


def signs_num_bytes(payload: Signs) -> int:
    """Length of :func:`signs_parts`, without making them."""
    _check(payload)
    cut = varint_num_bytes(payload.numel) + segments_num_bytes(payload.segments)
    return cut + 4 * payload.scales.numel() + payload.bits.numel()


def read_signs(reader: Reader) -> Signs:
    """Read what :func:`signs_parts` wrote."""
    numel = reader.numel()
    segments = read_segments(reader, numel)
    scales = reader.tensor(torch.float32, segments.count)
    bits = reader.tensor(torch.uint8, (numel + 7) // 8)
    if numel % 8 and int(bits[-1]) >> (numel % 8):
        raise WireError("the bits after the last sign are not zero")
    return Signs(bits, scales, segments)


def _check(payload: Signs) -> None:
    check_per_segment(payload.scales, payload.segments, "scales")
    if payload.bits.dtype != torch.uint8 or payload.bits.shape != ((payload.numel + 7) // 8,):
        raise ConfigError(f"{payload.numel} signs take {(payload.numel + 7) // 8} bytes of uint8")
