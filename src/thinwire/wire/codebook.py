"""Codebook payloads: the cut, the table or its name, one scale a segment, the codes."""

import functools

import torch
from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.quantize.lloyd_max import LARGEST_BITS, gaussian_table
from thinwire.payloads.codebook import Codebook
from thinwire.wire.codes import (
    check_coding,
    check_packed,
    codes_num_bytes,
    codes_parts,
    max_codes_num_bytes,
    read_codes,
)
from thinwire.wire.header import Parts, Reader, bytes_of, varint, varint_num_bytes
from thinwire.wire.segments import check_per_segment, read_segments, segments_num_bytes, segments_parts

_MAX_CODES = 256
_EXPLICIT = 0


def codebook_parts(payload: Codebook) -> Parts:
    """What follows the kind byte."""
    _check(payload)
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        *_table_parts(payload.table),
        bytes_of(payload.scales),
        *codes_parts(payload.codes, payload.numel, payload.table.numel(), payload.coding),
    ]


def codebook_num_bytes(payload: Codebook) -> int:
    """Length of :func:`codebook_parts`: at once for packed codes, else about as much work as these."""
    _check(payload)
    table = sum(map(len, _table_parts(payload.table)))
    codes = codes_num_bytes(payload.codes, payload.numel, payload.table.numel(), payload.coding)
    return _before(payload) + table + codes


def max_codebook_num_bytes(payload: Codebook) -> int:
    """The most that :func:`codebook_num_bytes` can be for this shape."""
    _check(payload)
    num_codes = payload.table.numel()
    table = 1 + varint_num_bytes(num_codes) + 4 * num_codes
    return _before(payload) + table + max_codes_num_bytes(payload.numel, num_codes, payload.coding)


def read_codebook(reader: Reader) -> Codebook:
    """Read what :func:`codebook_parts` wrote."""
    numel = reader.numel()
    segments = read_segments(reader, numel)
    table = read_table(reader)
    scales = reader.tensor(torch.float32, segments.count)
    codes, coding = read_codes(reader, numel, table.numel())
    return Codebook(codes, table, scales, segments, coding)


def read_table(reader: Reader) -> Tensor:
    """A table: f32, no number less than the one before it."""
    tag = reader.byte()
    if tag != _EXPLICIT:
        if tag > LARGEST_BITS:
            raise WireError(f"table {tag} is unknown; 0 to {LARGEST_BITS} are known")
        return gaussian_table(tag)
    count = reader.varint()
    if not 2 <= count <= _MAX_CODES:
        raise WireError(f"a table of {count} numbers is declared; 2 to {_MAX_CODES} are possible")
    table = reader.tensor(torch.float32, count)
    if _descends(table):
        raise WireError("the numbers of a table descend")
    return table


def _table_parts(table: Tensor) -> Parts:
    written = bytes_of(table)
    known = _known_tables().get(written.tobytes())
    if known is not None:
        return [bytes([known])]
    if _descends(table):
        raise ConfigError("the numbers of a codebook's table must not descend")
    return [bytes([_EXPLICIT]), varint(table.numel()), written]


@functools.cache
def _known_tables() -> dict[bytes, int]:
    return {bytes_of(gaussian_table(bits)).tobytes(): bits for bits in range(1, LARGEST_BITS + 1)}


def _descends(table: Tensor) -> bool:
    # By numpy, which takes fewer microseconds for few numbers. NaN neither ascends nor descends.
    numbers = table.numpy(force=True)
    return bool((numbers[1:] < numbers[:-1]).any())


def _before(payload: Codebook) -> int:
    """Bytes of the fields beside table and codes."""
    cut = varint_num_bytes(payload.numel) + segments_num_bytes(payload.segments)
    return cut + 4 * payload.segments.count


def _check(payload: Codebook) -> None:
    table = payload.table
    if table.dtype != torch.float32 or table.dim() != 1 or not 2 <= table.numel() <= _MAX_CODES:
        raise ConfigError(
            f"a table is a vector of 2 to {_MAX_CODES} float32, got {table.dtype} of shape {tuple(table.shape)}"
        )
    check_per_segment(payload.scales, payload.segments, "scales")
    check_coding(payload.coding)
    check_packed(payload.codes, payload.numel, table.numel())
