"""Reads a message field by field, as ``decode`` does, and notes what every byte is for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from thinwire.errors import WireError
from thinwire.layout import Segments
from thinwire.wire.codebook import read_codebook, read_table
from thinwire.wire.concat import read_num_pieces
from thinwire.wire.dct import cosine_operations, read_side
from thinwire.wire.grid import read_grid
from thinwire.wire.header import MAGIC, VERSION, Reader
from thinwire.wire.indices import read_indices
from thinwire.wire.kinds import MAX_DEPTH, NAMES, numbered
from thinwire.wire.levels import read_levels
from thinwire.wire.low_rank import read_columns, read_rank
from thinwire.wire.powers_of_two import read_powers
from thinwire.wire.rotated import read_block, read_rounds, rotated_operations
from thinwire.wire.seeded_sparse import read_kept
from thinwire.wire.segments import read_segments
from thinwire.wire.sum import check_lengths, read_num_terms

_Value = TypeVar("_Value")
_FORMATS = {0: ("f32", 4), 1: ("bf16", 2), 2: ("f16", 2)}
_INDEX_CODES = {0: "fixed width", 1: "Rice", 2: "bitmap", 3: "exp-Golomb", 4: "adaptive"}
_LEVEL_CODES = {0: "packed", 1: "Elias omega", 2: "entropy"}
_CODINGS = {0: "packed", 2: "entropy"}


@dataclass(frozen=True, slots=True)
class Field:
    """Some bytes of a message and what they say. A body inside a body has fields of its own."""

    name: str
    offset: int
    num_bytes: int
    value: str
    fields: "tuple[Field, ...]" = ()


class Walk:
    """Where in a message it is, and the fields before."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.fields: list[Field] = []
        self.numel: int | None = None
        """Entries of the outermost vector, as soon as one number says so."""

        self._is_part = False

    def frame(self) -> None:
        """Magic and version."""
        magic = self._note("magic", lambda: self.reader.take(2).tobytes(), lambda value, _: value.hex(" "))
        if magic != MAGIC:
            raise WireError(f"a message begins with {MAGIC.hex()}, got {magic.hex()}")
        version = self._note("version", self.reader.byte)
        if version != VERSION:
            raise WireError(f"format version {version} is unknown; this is version {VERSION}")

    def body(self, depth: int) -> int:
        """A kind and its fields; the number of entries."""
        if depth > MAX_DEPTH:
            raise WireError(f"payloads are nested more than {MAX_DEPTH} deep")
        number = self._named("kind", NAMES)
        numbered(number)
        numel = _FIELDS_OF[number](self, depth)
        if depth > 1:
            self.reader.num_operations += numel
        return numel

    def dense(self, _: int) -> int:
        """Kind 1."""
        tag = self._named("format", {tag: name for tag, (name, _) in _FORMATS.items()})
        if tag not in _FORMATS:
            raise WireError(f"number format {tag} is unknown; 0 to {len(_FORMATS) - 1} are known")
        numel = self._length()
        self._note("values", lambda: self.reader.take(numel * _FORMATS[tag][1]), lambda _, __: f"{numel} numbers")
        return numel

    def sparse(self, depth: int) -> int:
        """Kind 2."""
        numel = self._length()
        count = self._inside("values", depth)
        if count > numel:
            raise WireError(f"{count} values are declared for a vector of {numel} entries")
        start = self.reader.position
        if self._named("index code", _INDEX_CODES) == 1:
            self._note("Rice parameter", self.reader.byte)
        after = self.reader.position
        self._again(start, lambda: read_indices(self.reader, count, numel))
        num_bytes = self.reader.position - after
        share = f"{8 * (self.reader.position - start) / count:.4g} bits an index" if count else "none"
        self.fields.append(Field("indices", after, num_bytes, f"{count} of {numel} entries, {share}"))
        return numel

    def levels(self, _: int) -> int:
        """Kind 3."""
        start = self.reader.position
        numel = self._length()
        segments = self._cut("segments", numel)
        num_levels = self._note("levels", self.reader.varint)
        self._numbers("scales", segments.count)
        self._named("level code", _LEVEL_CODES)
        self._codes(start, read_levels, numel, 2 * num_levels)
        return numel

    def signs(self, _: int) -> int:
        """Kind 4."""
        numel = self._length()
        self._numbers("scales", self._cut("segments", numel).count)
        self._note("signs", lambda: self.reader.take((numel + 7) // 8), lambda _, __: f"{numel} bits")
        if numel % 8 and int(self.reader.data[self.reader.position - 1]) >> (numel % 8):
            raise WireError("the bits after the last sign are not zero")
        return numel

    def grid(self, _: int) -> int:
        """Kind 5."""
        start = self.reader.position
        numel = self._length()
        segments = self._cut("segments", numel)
        num_codes = self._note("points", self.reader.varint)
        self._numbers("lows", segments.count)
        self._numbers("steps", segments.count)
        self._named("coding", _CODINGS)
        self._codes(start, read_grid, numel, num_codes - 1)
        return numel

    def codebook(self, _: int) -> int:
        """Kind 6."""
        start = self.reader.position
        numel = self._length()
        segments = self._cut("segments", numel)
        table = self._note(
            "table",
            lambda: read_table(self.reader),
            lambda table, length: (
                f"Gaussian, {table.numel()} numbers" if length == 1 else f"{table.numel()} numbers, f32"
            ),
        )
        self._numbers("scales", segments.count)
        self._named("coding", _CODINGS)
        self._codes(start, read_codebook, numel, table.numel() - 1)
        return numel

    def powers(self, _: int) -> int:
        """Kind 7."""
        start = self.reader.position
        numel = self._length()
        segments = self._cut("segments", numel)
        num_levels = self._note("powers", self.reader.varint)
        self._numbers("scales", segments.count)
        self._codes(start, read_powers, numel, 2 * num_levels)
        return numel

    def rotated(self, depth: int) -> int:
        """Kind 8."""
        self._key()
        rounds = self._note("rounds", lambda: read_rounds(self.reader))
        self._note(
            "block",
            lambda: read_block(self.reader),
            lambda block, _: "as large as possible" if block is None else f"{block} entries",
        )
        numel = self._inside("rotated vector", depth)
        self.reader.num_operations += rotated_operations(numel, rounds)
        return numel

    def cosine(self, depth: int) -> int:
        """Kind 9."""
        side = self._note("side", lambda: read_side(self.reader))
        numel = self._inside("transformed vector", depth)
        self.reader.num_operations += cosine_operations(numel, side)
        return numel

    def drawn(self, depth: int) -> int:
        """Kind 10."""
        numel = self._length()
        segments = self._cut("segments", numel)
        self._key()
        count = self._inside("values", depth)
        self._note("kept", lambda: read_kept(self.reader, count, segments), lambda cut, _: _describe(cut))
        return numel

    def constant(self, _: int) -> int:
        """Kind 11."""
        numel = self._length()
        self._numbers("values", self._cut("segments", numel).count)
        return numel

    def total(self, depth: int) -> int:
        """Kind 12."""
        count = self._note("terms", lambda: read_num_terms(self.reader))
        lengths = [self._inside(f"term {number}", depth) for number in range(1, count + 1)]
        check_lengths(lengths)
        return lengths[0]

    def low_rank(self, _: int) -> int:
        """Kind 13."""
        numel = self._length()
        columns = self._note("columns", lambda: read_columns(self.reader, numel))
        rank = self._note("rank", lambda: read_rank(self.reader))
        self._numbers("left", rank * -(-numel // columns))
        self._numbers("right", rank * columns)
        return numel

    def joined(self, depth: int) -> int:
        """Kind 14."""
        count = self._note("parts", lambda: read_num_pieces(self.reader))
        numel = 0
        # The length of a part is not that of the message's vector.
        is_part, self._is_part = self._is_part, True
        for number in range(1, count + 1):
            numel += self._inside(f"part {number}", depth)
            self.reader.check_numel(numel)
        self._is_part = is_part
        return numel

    def _note(
        self, name: str, read: Callable[[], _Value], show: Callable[[_Value, int], str] = lambda value, _: str(value)
    ) -> _Value:
        """Read a field; ``show`` gets its value and its length in bytes."""
        offset = self.reader.position
        try:
            value = read()
        except WireError:
            # What was read of it is no field.
            self.reader.position = offset
            raise
        num_bytes = self.reader.position - offset
        self.fields.append(Field(name, offset, num_bytes, show(value, num_bytes)))
        return value

    def _named(self, name: str, names: dict[int, str]) -> int:
        return self._note(name, self.reader.byte, lambda value, _: f"{value}: {names.get(value, 'unknown')}")

    def _length(self) -> int:
        numel = self._note("numel", self.reader.numel)
        # The outermost body says it first.
        if self.numel is None and not self._is_part:
            self.numel = numel
        return numel

    def _cut(self, name: str, numel: int) -> Segments:
        return self._note(name, lambda: read_segments(self.reader, numel), lambda cut, _: _describe(cut))

    def _numbers(self, name: str, count: int) -> None:
        self._note(name, lambda: self.reader.take(4 * count), lambda _, __: f"{count} numbers, f32")

    def _key(self) -> None:
        self._note("key", self.reader.key, lambda key, _: f"{key:016x}")

    def _inside(self, name: str, depth: int) -> int:
        """A body inside; the number of its entries."""
        offset = self.reader.position
        outside, self.fields = self.fields, []
        try:
            return self.body(depth + 1)
        finally:
            inside, self.fields = tuple(self.fields), outside
            self.fields.append(Field(name, offset, self.reader.position - offset, "a body", inside))

    def _codes(self, start: int, read: Callable[[Reader], Any], numel: int, largest: int) -> None:
        """The codes at the end of what ``read`` reads from ``start`` on."""
        after = self.reader.position
        self._again(start, lambda: read(self.reader))
        num_bytes = self.reader.position - after
        share = f"{8 * num_bytes / numel:.4g} bits a code" if numel else "none"
        self.fields.append(Field("codes", after, num_bytes, f"{numel} from 0 to {largest}, {share}"))

    def _again(self, start: int, read: Callable[[], object]) -> None:
        """Go back and read as ``decode`` does; where that fails, reading stopped after what was noted."""
        after, self.reader.position = self.reader.position, start
        try:
            read()
        except WireError:
            self.reader.position = after
            raise


_FIELDS_OF: dict[int, Callable[[Walk, int], int]] = {
    1: Walk.dense,
    2: Walk.sparse,
    3: Walk.levels,
    4: Walk.signs,
    5: Walk.grid,
    6: Walk.codebook,
    7: Walk.powers,
    8: Walk.rotated,
    9: Walk.cosine,
    10: Walk.drawn,
    11: Walk.constant,
    12: Walk.total,
    13: Walk.low_rank,
    14: Walk.joined,
}


def _describe(segments: Segments) -> str:
    if segments.sizes is not None:
        return f"{segments.count} of listed sizes"
    if segments == Segments.whole(segments.numel):
        return "the whole vector"
    return f"{segments.count} of {segments.length} entries"
