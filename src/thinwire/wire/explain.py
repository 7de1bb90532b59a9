"""What is in a message, byte by byte, for people; also in one that is damaged, up to where it breaks."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.errors import WireError
from thinwire.kernels.crc32c import crc32c_array
from thinwire.wire.header import FRAME_NUM_BYTES, MAX_NUMEL, Reader, check_is_bytes
from thinwire.wire.walk import Field, Walk

__all__ = ["Explanation", "Field", "explain"]


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
             6      8  values    2 numbers
            14      4  checksum  6856f4e5, right
        18 bytes for 2 entries: 72 bits an entry, 0.444 times less than f32
    """
    check_is_bytes(message)
    data = message.detach().contiguous().numpy()
    actual = crc32c_array(data[:-4])
    declared = int.from_bytes(data[-4:].tobytes(), "little")
    is_right = len(data) >= FRAME_NUM_BYTES and declared == actual
    # Offsets are those of the message: the frame's beginning is read as well.
    walk = Walk(Reader(data[:-4], MAX_NUMEL))
    error = None
    try:
        walk.frame()
        walk.numel = walk.body(1)
        if walk.reader.num_left:
            raise WireError(f"{walk.reader.num_left} bytes follow the end of the payload")
        walk.reader.check_operations(walk.numel, len(data))
    except WireError as stopped:
        error = str(stopped)
    if len(data) >= FRAME_NUM_BYTES:
        verdict = "right" if is_right else f"wrong: that of the bytes is {actual:08x}"
        walk.fields.append(Field("checksum", len(data) - 4, 4, f"{declared:08x}, {verdict}"))
        if not is_right and error is None:
            error = "its checksum is wrong"
    return Explanation(len(data), walk.numel, is_right, tuple(walk.fields), error)


def _rows(fields: tuple[Field, ...], indent: str) -> list[tuple[str, str, str, str]]:
    rows = []
    for field in fields:
        rows.append((str(field.offset), str(field.num_bytes), indent + field.name, field.value))
        rows += _rows(field.fields, indent + "  ")
    return rows
