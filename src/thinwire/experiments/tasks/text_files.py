"""Folders of text files, each of which goes into one part of a data set by the hash of its path."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from thinwire.errors import ConfigError
from thinwire.files import StrPath

# Foreign packages, tests, and tables or data that are not source text one would want to predict.
_SKIPPED_FOLDERS = frozenset(
    (
        *("site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"),
        *("idlelib", "turtledemo", "encodings", "lib2to3", "pydoc_data"),
    )
)
_LARGEST_FILE = 4_000_000


def python_sources(root: StrPath) -> list[str]:
    """The relative paths of the Python files of a library that are source text, in order."""
    # _sysconfigdata describes the build of one machine.
    return _walk(
        Path(root), _SKIPPED_FOLDERS, lambda name: name.endswith(".py") and not name.startswith("_sysconfigdata")
    )


def all_files(root: StrPath) -> list[str]:
    """The relative paths of all files whose name does not begin with a dot, in order; links to folders lead nowhere."""
    return _walk(Path(root), frozenset(), lambda name: not name.startswith("."))


def read_splits(
    root: StrPath, names: Sequence[str], max_num_bytes: int, read: Callable[[StrPath], bytes] | None = None
) -> dict[str, list[bytes]]:
    """The files of ``train``, ``validation`` and ``test``, about 90, 5 and 5 % of them, until so many bytes are read.

    Args:
        root: the folder.
        names: relative paths, whose hash says where each file goes.
        max_num_bytes: the file that would exceed them is the first to be left out.
        read: what is taken of a file; nothing leaves it out.
    """
    splits: dict[str, list[bytes]] = {"train": [], "validation": [], "test": []}
    num_bytes = 0
    for name in names:
        path = Path(root) / name
        text = path.read_bytes() if read is None else read(path)
        num_bytes += len(text)
        if num_bytes > max_num_bytes:
            break
        if text:
            splits[_split_of(name)].append(text)
    return splits


class DistinctTexts:
    """Reads files of UTF-8 text, packed with gzip if their name ends in ``.gz``; each content is read once.

    What is no text (it has a zero byte, is not UTF-8, cannot be unpacked, or is longer than 4 MB) or was read before,
    under whatever name, counts as empty: copies of a licence in two splits would be known by heart.

    Raises:
        ConfigError: from a call: the file cannot be read.
    """

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __call__(self, path: StrPath) -> bytes:
        """The text, or nothing."""
        path = Path(path)
        if not path.is_file():  # a link without a target, or no file at all
            return b""
        try:
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
                text = file.read(_LARGEST_FILE + 1)
            text.decode()
        except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError):
            return b""
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        digest = hashlib.blake2b(text, digest_size=16).digest()
        if len(text) > _LARGEST_FILE or b"\0" in text or digest in self._seen:
            return b""
        self._seen.add(digest)
        return text


def _walk(root: Path, skipped: frozenset[str], is_wanted: Callable[[str], bool]) -> list[str]:
    names = []
    for folder, subfolders, files in os.walk(root):
        # Cut here, not filtered afterwards: site-packages may hold a hundred thousand files.
        subfolders[:] = [name for name in subfolders if name not in skipped]
        names += [(Path(folder) / name).relative_to(root).as_posix() for name in files if is_wanted(name)]
    return sorted(names)


def _split_of(name: str) -> str:
    draw = hashlib.blake2b(name.encode(), digest_size=1).digest()[0]  # 0 to 255
    return "validation" if draw < 13 else "test" if draw < 26 else "train"
