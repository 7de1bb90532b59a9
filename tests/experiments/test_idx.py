import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from thinwire.errors import ConfigError
from thinwire.experiments.tasks.idx import read_idx


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


@pytest.mark.parametrize("shape", [(5,), (0,), (3, 4), (2, 28, 28), (2, 0, 3), (300, 2)])
@pytest.mark.parametrize("packed", [False, True])
def test_reads_what_was_written(tmp_path: Path, shape: tuple[int, ...], packed: bool) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / ("data.gz" if packed else "data")
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    read = read_idx(path)
    assert read.dtype == np.uint8
    assert read.flags.writeable
    np.testing.assert_array_equal(read, array)


GOOD = idx_bytes(np.arange(12, dtype=np.uint8).reshape(3, 4))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 bytes"),
        (GOOD[:3], "3 bytes"),
        (b"\x01" + GOOD[1:], "00 00"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], "0x0d"),
        (GOOD[:3] + b"\x00", "no dimension"),
        (GOOD[:9], "takes 12"),
        (GOOD[:-1], "truncated"),
        (GOOD + b"\x00", "too long"),
        (b"<!doctype html><title>404</title>", "00 00"),
        (bytes([0, 0, 8, 2]) + b"\xff" * 8, "more than the 1,073,741,824 elements"),
        (bytes([0, 0, 8, 65]) + bytes([0, 0, 0, 1]) * 65 + b"x", "65 dimensions, and up to 32 are read"),
        (bytes([0, 0, 8, 255]), "255 dimensions"),
        (bytes([0, 0, 8, 3]) + bytes(4) + b"\xff" * 8, "more than the"),
        (bytes([0, 0, 8, 9]) + bytes(4) + b"\xff" * 32, "more than the"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "some-images"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="some-images") as caught:
        read_idx(path)
    assert says in str(caught.value)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"no" + b[2:], lambda b: b[:12] + b"~~" + b[14:]])
def test_a_broken_archive_is_named(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    path = tmp_path / "labels.gz"
    path.write_bytes(damage(gzip.compress(GOOD)))
    with pytest.raises(ConfigError, match=r"labels\.gz.*cannot be unpacked"):
        read_idx(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the IDX file .*nothing"):
        read_idx(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("claim", "says"), [((4,), "too long: at least 13 bytes"), ((1 << 25,), "truncated"), ((1 << 31,), "more than the")]
)
def test_an_archive_that_unpacks_to_more_than_it_claims_costs_no_more_than_the_claim(
    claim: tuple[int, ...], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.gz"
    header = bytes([0, 0, 8, len(claim)]) + struct.pack(f">{len(claim)}I", *claim)
    path.write_bytes(gzip.compress(header + bytes((1 << 25) - 1), compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=r"labels\.gz is not a sound IDX file") as caught:
            read_idx(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert says in str(caught.value)
    # A growing array is copied now and then.
    assert peak < 4_000_000 + (3 * claim[0] if claim[0] <= 1 << 25 else 0)


@pytest.mark.parametrize("kind", [str, Path])
def test_any_path_is_read(kind: type, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(GOOD)
    assert read_idx(kind(tmp_path / "data")).shape == (3, 4)
    with pytest.raises(ConfigError, match="more than the 11 elements"):
        read_idx(kind(tmp_path / "data"), max_num_bytes=11)
