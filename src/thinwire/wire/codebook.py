"""Kind 6: the segments, the table or its name, one scale a segment, the codes."""

import functools

import torch
from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.quantize.lloyd_max import LARGEST_BITS, gaussian_table
from thinwire.payloads.codebook import Codebook
from thinwire.wire.codes import codes_parts, read_codes
from thinwire.wire.kind import Coded, Kind, Parts, Pieces, bytes_of, varint
from thinwire.wire.reader import Reader
from thinwire.wire.segments import per_segment, read_segments, segments_parts

_MAX_CODES = 256
_EXPLICIT = 0


def _parts(payload: Codebook) -> Parts:
    table = payload.table
    num_codes = table.numel()
    if table.dtype != torch.float32 or table.dim() != 1 or not 2 <= num_codes <= _MAX_CODES:
        raise ConfigError(
            f"a table is a vector of 2 to {_MAX_CODES} float32, got {table.dtype} of shape {tuple(table.shape)}"
        )
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        Coded(lambda: _table_pieces(table), lambda: 1 + len(varint(num_codes)) + 4 * num_codes),
        per_segment(payload.scales, payload.segments, "scales"),
        *codes_parts(payload.codes, payload.numel, num_codes, payload.coding),
    ]


def _read(reader: Reader) -> Codebook:
    numel = reader.numel()
    segments = read_segments(reader, "segments", numel)
    table = _read_table(reader)
    scales = reader.tensor("scales", segments.count)
    codes, coding = read_codes(reader, numel, table.numel())
    return Codebook(codes, table, scales, segments, coding)


def _table_pieces(table: Tensor) -> Pieces:
    written = bytes_of(table)
    known = _known_tables().get(written.tobytes())
    if known is not None:
        return [bytes([known])]
    if _descends(table):
        raise ConfigError("the numbers of a codebook's table must not descend")
    return [bytes([_EXPLICIT]), varint(table.numel()), written]


def _read_table(reader: Reader) -> Tensor:
    """A table: f32, no number less than the one before it."""
    tag = reader.byte()
    if tag != _EXPLICIT:
        if tag > LARGEST_BITS:
            raise WireError(f"table {tag} is unknown; 0 to {LARGEST_BITS} are known")
        reader.field("table", "Gaussian,", 2**tag, "numbers")
        return gaussian_table(tag)
    count = reader.varint()
    if not 2 <= count <= _MAX_CODES:
        raise WireError(f"a table of {count} numbers is declared; 2 to {_MAX_CODES} are possible")
    table = reader.tensor("table", count)
    if _descends(table):
        raise WireError("the numbers of a table descend")
    return table


@functools.cache
def _known_tables() -> dict[bytes, int]:
    return {bytes_of(gaussian_table(bits)).tobytes(): bits for bits in range(1, LARGEST_BITS + 1)}


def _descends(table: Tensor) -> bool:
    # By numpy, which takes fewer microseconds for few numbers. NaN neither ascends nor descends.
    numbers = table.numpy(force=True)
    return bool((numbers[1:] < numbers[:-1]).any())


CODEBOOK = Kind(6, "codebook", Codebook, _parts, _read)
