"""Kind 2: the length, the values as a body of their own, the indices in the shortest of five codes."""

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.sparse import Sparse
from thinwire.wire.indices import coded_indices, read_indices
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader


def _parts(payload: Sparse) -> Parts:
    count = payload.indices.numel()
    if payload.values.numel != count:
        raise ConfigError(f"{count} indices and {payload.values.numel} values were given")
    if count > payload.numel:
        raise ConfigError(f"{count} indices were given for a vector of {payload.numel} entries")
    return [varint(payload.numel), payload.values, coded_indices(payload.indices, payload.numel)]


def _read(reader: Reader) -> Sparse:
    numel = reader.numel()
    values = reader.body("values")
    if values.numel > numel:
        raise WireError(f"{values.numel} values are declared for a vector of {numel} entries")
    return Sparse(numel, read_indices(reader, values.numel, numel), values)


SPARSE = Kind(2, "sparse", Sparse, _parts, _read)
