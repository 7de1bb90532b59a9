"""Kind 12: how many vectors are added up, and each as a body of its own."""

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.sum import Sum
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader

_MAX_TERMS = 64
"""Each takes time for the whole vector."""


def _parts(payload: Sum) -> Parts:
    if not 1 <= len(payload.parts) <= _MAX_TERMS:
        raise ConfigError(f"a sum of {len(payload.parts)} payloads was given; 1 to {_MAX_TERMS} are possible")
    lengths = {part.numel for part in payload.parts}
    if len(lengths) > 1:
        raise ConfigError(f"a sum of payloads of {sorted(lengths)} entries was given; they must be of one length")
    return [varint(len(payload.parts)), *payload.parts]


def _read(reader: Reader) -> Sum:
    count = reader.varint("terms")
    if not 1 <= count <= _MAX_TERMS:
        raise WireError(f"a sum of {count} vectors is declared; 1 to {_MAX_TERMS} are possible")
    terms = tuple([reader.body("term", number) for number in range(1, count + 1)])
    lengths = [term.numel for term in terms]
    if min(lengths) != max(lengths):
        raise WireError(f"a sum of vectors of {min(lengths)} and of {max(lengths)} entries is declared")
    return Sum(terms)


SUM = Kind(12, "sum", Sum, _parts, _read)
