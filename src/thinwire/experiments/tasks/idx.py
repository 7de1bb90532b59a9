"""The IDX file format of the MNIST family, read with every claim of its header checked."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from thinwire.errors import ConfigError
from thinwire.files import StrPath

_UINT8 = 0x08
_MAX_DIMS = 32
"""What every version of NumPy can hold."""
_PIECE = 1 << 20


def read_idx(path: StrPath, *, max_num_bytes: int = 1 << 30) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes that an IDX file holds, unpacked meanwhile if its name ends in ``.gz``.

    An IDX file is two zero bytes, one byte for the element type (``0x08``: unsigned byte, the only one read
    here), one byte for the number of dimensions, each dimension as a big-endian unsigned 32-bit integer, and
    then the elements in row-major order: one byte each, and nothing after them. No more is read, unpacked or
    kept than the header claims.

    Args:
        path: the file.
        max_num_bytes: of the elements; a file that claims more is refused.

    Returns:
        uint8 array, writable, with the dimensions that the header states. A dimension may be 0.

    Raises:
        ConfigError: the file cannot be read or unpacked, is not IDX, holds another element type, has no
            dimension or more than 32, is too large, or its length is not the one that its dimensions ask for.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "labels"
        ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        ...     read_idx(file).tolist()
        [7, 8, 9]
    """
    name = Path(path)
    try:
        with open(name, "rb") as file:
            if name.suffix != ".gz":
                return _read(name, file, max_num_bytes)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(name, unpacked, max_num_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _broken(name, f"it cannot be unpacked: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the IDX file {name}: {error.strerror}.") from error


def _read(path: Path, file: BinaryIO | gzip.GzipFile, max_num_bytes: int) -> npt.NDArray[np.uint8]:
    magic = _take(file, 4)
    if len(magic) < 4:
        raise _broken(path, f"it has {len(magic)} bytes, fewer than the 4 of the magic number")
    if magic[0] or magic[1]:
        raise _broken(path, f"it begins with {magic.hex(' ')}, and an IDX file begins with 00 00")
    kind, num_dims = magic[2], magic[3]
    if kind != _UINT8:
        raise _broken(path, f"its element type is 0x{kind:02x}; only 0x08, unsigned bytes, is read")
    if not 1 <= num_dims <= _MAX_DIMS:
        stated = f"{num_dims} dimensions, and up to {_MAX_DIMS} are read" if num_dims else "no dimension"
        raise _broken(path, f"its header states {stated}")
    start = 4 + 4 * num_dims
    header = _take(file, 4 * num_dims)
    if len(header) < 4 * num_dims:
        raise _broken(path, f"it has {4 + len(header)} bytes; a header of {num_dims} dimensions takes {start}")
    shape = tuple(int(size) for size in np.frombuffer(header, dtype=">u4"))
    # With a dimension of 0 there is nothing to hold, but NumPy multiplies the others all the same.
    if math.prod(max(size, 1) for size in shape) > max_num_bytes:
        raise _broken(path, f"its shape {shape} is more than the {max_num_bytes:,} elements that are read")
    wanted = math.prod(shape)
    content = _take(file, wanted + 1)
    if len(content) != wanted:
        problem, found = ("truncated", len(content)) if len(content) < wanted else ("too long", wanted + 1)
        at_least = "at least " if found > wanted else ""
        raise _broken(
            path, f"it is {problem}: {at_least}{start + found} bytes, and shape {shape} takes {start + wanted}"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _take(file: BinaryIO | gzip.GzipFile, num_bytes: int) -> bytearray:
    """Up to so many bytes; memory grows as they come, whatever was claimed."""
    taken = bytearray()
    while len(taken) < num_bytes:
        piece = file.read(min(_PIECE, num_bytes - len(taken)))
        if not piece:
            break
        taken += piece
    return taken


def _broken(path: Path, problem: str) -> ConfigError:
    return ConfigError(f"{path} is not a sound IDX file: {problem}. Fetch the file again.")
