"""What is in a message, byte by byte, for people; also in one that is damaged, up to where it breaks."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from thinwire.errors import WireError
from thinwire.kernels.crc32c import crc32c_array
from thinwire.wire.codec import read_body
from thinwire.wire.frame import CHECKSUM_NUM_BYTES, FRAME_NUM_BYTES, check_is_bytes, declared_checksum, read_beginning
from thinwire.wire.reader import Reader


@dataclass(frozen=True, slots=True)
class Field:
    """Some bytes of a message and what they say. A body inside a body has fields of its own."""

    name: str
    offset: int
    num_bytes: int
    value: str
    fields: "tuple[Field, ...]" = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a message says.

    Args:
        num_bytes: its length.
        numel: entries of the vector; None if the message breaks before it says so.
        checksum_is_right: whether the message is as it was sent.
        fields: all that could be read, in order.
        error: why reading stopped; None if there is one whole valid payload.
    """

    num_bytes: int
    numel: int | None
    checksum_is_right: bool
    fields: tuple[Field, ...]
    error: str | None

    @property
    def bits_per_entry(self) -> float | None:
        """Bits of the message for each entry of the vector; None if there is none."""
        return 8 * self.num_bytes / self.numel if self.numel else None

    @property
    def ratio(self) -> float | None:
        """How many times longer the vector is in f32."""
        return 4 * self.numel / self.num_bytes if self.numel else None

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Offset, length in bytes, name and value of every field; names inside a body are indented."""
        return _rows(self.fields, "")

    def lines(self) -> list[str]:
        """The rows as aligned text, then what the whole message amounts to, ready to print."""
        rows = [("offset", "bytes", "field", "value"), *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"{row[0]:>{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip() for row in rows
        ]
        if self.bits_per_entry is not None and self.ratio is not None:
            lines.append(
                f"{self.num_bytes} bytes for {self.numel} entries: {self.bits_per_entry:.3g} bits an entry, "
                f"{self.ratio:.3g} times less than f32"
            )
        if self.error is not None:
            lines.append(f"not a valid message: {self.error}")
        return lines


def explain(message: Tensor) -> Explanation:
    """What each byte of a message means; nothing is raised for a message that is not valid.

    Args:
        message: uint8 ``[n]`` on the CPU.

    Raises:
        WireError: something else than a vector of bytes.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> from thinwire.wire import encode
        >>> for line in explain(encode(Dense(torch.tensor([1.0, -2.0])))).lines():
        ...     print(line)
        offset  bytes  field     value
             0      2  magic     74 57
             2      1  version   1
             3      1  kind      1: dense
             4      1  format    0: f32
             5      1  numel     2
             6      8  values    2 numbers, f32
            14      4  checksum  6856f4e5, right
        18 bytes for 2 entries: 72 bits an entry, 0.444 times less than f32
    """
    check_is_bytes(message)
    data = message.detach().contiguous().numpy()
    checked = data[:-CHECKSUM_NUM_BYTES]
    declared, actual = declared_checksum(data), crc32c_array(checked)
    is_right = len(data) >= FRAME_NUM_BYTES and declared == actual
    recorder = _Recorder()
    # Offsets are those of the message: the frame's beginning is read as well.
    reader = Reader(checked, read_body, listener=recorder)
    numel = error = None
    try:
        read_beginning(reader)
        numel = read_body(reader).numel
        reader.check_end(numel, len(data))
    except WireError as stopped:
        error = str(stopped)
        numel = _numel(recorder.fields) if numel is None else numel
    if len(data) >= FRAME_NUM_BYTES:
        verdict = "right" if is_right else f"wrong: that of the bytes is {actual:08x}"
        recorder.end = len(checked)  # also where reading stopped before
        recorder.field("checksum", len(data), f"{declared:08x}, {verdict}")
        if not is_right and error is None:
            error = "its checksum is wrong"
    return Explanation(len(data), numel, is_right, tuple(recorder.fields), error)


@dataclass(slots=True)
class _Recorder:
    """Keeps what it hears of a reader."""

    fields: list[Field] = dataclasses.field(default_factory=list)
    end: int = 0
    _outside: list[tuple[str, int, list[Field]]] = dataclasses.field(default_factory=list)

    def field(self, name: str, end: int, value: str) -> None:
        self.fields.append(Field(name, self.end, end - self.end, value))
        self.end = end

    def begin_body(self, name: str) -> None:
        self._outside.append((name, self.end, self.fields))
        self.fields = []

    def end_body(self) -> None:
        name, offset, fields = self._outside.pop()
        fields.append(Field(name, offset, self.end - offset, "a body", tuple(self.fields)))
        self.fields = fields


def _numel(fields: Iterable[Field]) -> int | None:
    """Length of the outermost vector, where the bytes that could be read say so: that of a part is another."""
    for field in fields:
        if field.name == "numel":
            return int(field.value)
        numel = None if field.name.startswith("part ") else _numel(field.fields)
        if numel is not None:
            return numel
    return None


def _rows(fields: tuple[Field, ...], indent: str) -> list[tuple[str, str, str, str]]:
    rows = []
    for field in fields:
        rows.append((str(field.offset), str(field.num_bytes), indent + field.name, field.value))
        rows += _rows(field.fields, indent + "  ")
    return rows
