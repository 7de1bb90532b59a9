"""Kind 14: how many vectors follow one another, and each as a body of its own."""

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.concat import Concat
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader

_MAX_PARTS = 2**20


def _parts(payload: Concat) -> Parts:
    if not 1 <= len(payload.parts) <= _MAX_PARTS:
        raise ConfigError(f"a vector of {len(payload.parts)} parts was given; it has 1 to {_MAX_PARTS}")
    return [varint(len(payload.parts)), *payload.parts]


def _read(reader: Reader) -> Concat:
    count = reader.varint("parts")
    if not 1 <= count <= min(_MAX_PARTS, reader.num_left):
        raise WireError(
            f"a vector of {count} parts is declared; it has 1 to {_MAX_PARTS}, and {reader.num_left} bytes are left"
        )
    parts = []
    numel = 0
    for number in range(1, count + 1):
        parts.append(reader.body("part", number))
        numel += parts[-1].numel
        reader.check_numel(numel)
    return Concat(tuple(parts))


CONCAT = Kind(14, "concat", Concat, _parts, _read)
