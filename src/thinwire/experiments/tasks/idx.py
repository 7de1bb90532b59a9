"""The IDX file format of the MNIST family, read with every claim of its header checked."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from thinwire.errors import ConfigError

_UINT8 = 0x08


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes that an IDX file holds, unpacked first if its name ends in ``.gz``.

    An IDX file is two zero bytes, one byte for the element type (``0x08``: unsigned byte, the only one read
    here), one byte for the number of dimensions, each dimension as a big-endian unsigned 32-bit integer, and
    then the elements in row-major order: one byte each, and nothing after them.

    Args:
        path: the file.

    Returns:
        uint8 array, writable, with the dimensions that the header states. A dimension may be 0.

    Raises:
        ConfigError: the file cannot be read or unpacked, is not IDX, holds another element type, has no
            dimension, or its length is not the one that its dimensions ask for.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "labels"
        ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        ...     read_idx(file).tolist()
        [7, 8, 9]
    """
    content = _content(path)
    if len(content) < 4:
        raise _broken(path, f"it has {len(content)} bytes, fewer than the 4 of the magic number")
    if content[0] or content[1]:
        raise _broken(path, f"it begins with {content[:4].hex(' ')}, and an IDX file begins with 00 00")
    kind, num_dims = content[2], content[3]
    if kind != _UINT8:
        raise _broken(path, f"its element type is 0x{kind:02x}; only 0x08, unsigned bytes, is read")
    if num_dims == 0:
        raise _broken(path, "its header states no dimension")
    start = 4 + 4 * num_dims
    if len(content) < start:
        raise _broken(path, f"it has {len(content)} bytes; a header of {num_dims} dimensions takes {start}")
    shape = tuple(int(size) for size in np.frombuffer(content, dtype=">u4", count=num_dims, offset=4))
    expected = start + math.prod(shape)
    if len(content) != expected:
        problem = "truncated" if len(content) < expected else "too long"
        raise _broken(path, f"it is {problem}: {len(content)} bytes, and shape {shape} takes {expected}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the IDX file {path}: {error.strerror}.") from error
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _broken(path, f"it cannot be unpacked: {error}") from error


def _broken(path: Path, problem: str) -> ConfigError:
    return ConfigError(f"{path} is not a sound IDX file: {problem}. Fetch the file again.")
