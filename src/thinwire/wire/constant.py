"""Constant payloads: the cut and one value a segment."""

import torch

from thinwire.payloads.constant import Constant
from thinwire.wire.header import Parts, Reader, bytes_of, varint, varint_num_bytes
from thinwire.wire.segments import check_per_segment, read_segments, segments_num_bytes, segments_parts


def constant_parts(payload: Constant) -> Parts:
    """What follows the kind byte."""
    check_per_segment(payload.values, payload.segments, "values")
    return [varint(payload.numel), *segments_parts(payload.segments), bytes_of(payload.values)]


def constant_num_bytes(payload: Constant) -> int:
    """Length of :func:`constant_parts`, without making them."""
    check_per_segment(payload.values, payload.segments, "values")
    return varint_num_bytes(payload.numel) + segments_num_bytes(payload.segments) + 4 * payload.values.numel()


def read_constant(reader: Reader) -> Constant:
    """Read what :func:`constant_parts` wrote."""
    segments = read_segments(reader, reader.numel())
    return Constant(reader.tensor(torch.float32, segments.count), segments)
