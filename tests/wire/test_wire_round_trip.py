import doctest
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_twins import crc32c_python
from payload_tensors import parts_of, tensors_in
from torch import Tensor

import thinwire.wire
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import pack
from thinwire.kernels.entropy.adaptive_gaps import adaptive_encode
from thinwire.kernels.entropy.exp_golomb import exp_golomb_encode, exp_golomb_num_bytes
from thinwire.kernels.entropy.rice import rice_num_bytes, rice_parameter
from thinwire.kernels.quantize.lloyd_max import gaussian_table
from thinwire.layout import Segments
from thinwire.payloads import (
    DCT,
    Codebook,
    Concat,
    Constant,
    Dense,
    Grid,
    Levels,
    LowRank,
    Payload,
    PowersOfTwo,
    Rotated,
    SeededSparse,
    Signs,
    Sparse,
    Sum,
)
from thinwire.wire import decode, encode, encoded_num_bytes, kinds_in, max_num_bytes
from thinwire.wire.codec import read_body
from thinwire.wire.indices import choose_code, coded_indices, max_indices_num_bytes, read_indices
from thinwire.wire.reader import Reader

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def same(left: object, right: object) -> bool:
    """Equal types and equal bits, NaN and signed zero included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        one, other = (each.view(torch.int16) if each.dtype == torch.bfloat16 else each for each in (left, right))
        bits_agree = one.numpy(force=True).tobytes() == other.numpy(force=True).tobytes()
        return left.dtype == right.dtype and left.shape == right.shape and bits_agree
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Payload):
        return all(map(same, parts_of(left), parts_of(right)))
    return left == right


def random_bits(count: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Numbers of any bit pattern: NaN payloads, infinities, denormals."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count * dtype.itemsize,), generator=generator, dtype=torch.uint8).view(dtype)


@st.composite
def segmentations(draw: st.DrawFn, numel: int) -> Segments:
    kind = draw(st.sampled_from(["whole", "uniform", "sizes"]))
    if kind == "whole":
        return Segments.whole(numel)
    if kind == "uniform":
        return Segments.uniform(numel, draw(st.integers(1, numel + 1)))
    borders = sorted(draw(st.lists(st.integers(0, numel), max_size=6)))
    return Segments.of_sizes(b - a for a, b in zip([0, *borders], [*borders, numel], strict=True))


KINDS = ["dense", "levels", "signs", "grid", "codebook", "powers of two", "constant", "low rank"]
NESTED = ["sparse", "sparse", "rotated", "DCT", "seeded sparse", "sum", "concat"]


@st.composite
def payloads(draw: st.DrawFn, numel: int | None = None, depth: int = 1) -> Payload:
    numel = draw(st.integers(0, 200)) if numel is None else numel
    seed = draw(st.integers(0, 2**32))
    kind = draw(st.sampled_from(KINDS + (NESTED if depth < 8 else [])))
    generator = torch.Generator().manual_seed(seed)
    if kind in NESTED:
        return draw(nested(kind, numel, depth))
    if kind == "dense" or (kind == "low rank" and numel == 0):
        return Dense(random_bits(numel, draw(st.sampled_from(DTYPES)), seed))
    if kind == "low rank":
        columns, rank = draw(st.integers(1, numel)), draw(st.integers(1, 5))
        left = random_bits(-(-numel // columns) * rank, torch.float32, seed).view(-1, rank)
        return LowRank(left, random_bits(columns * rank, torch.float32, seed + 1).view(-1, rank), numel)
    segments = draw(segmentations(numel))
    scales = random_bits(segments.count, torch.float32, seed)
    if kind == "constant":
        return Constant(scales, segments)
    if kind == "signs":
        return Signs(pack(torch.randint(0, 2, (numel,), generator=generator), 1), scales, segments)
    if kind == "levels":
        num_levels = draw(st.sampled_from([1, 3, 4, 127, 128, 2**20, 2**30 - 1]))
        codes = torch.randint(0, 2 * num_levels + 1, (numel,), generator=generator)
        return Levels(pack(codes, (2 * num_levels).bit_length()), scales, num_levels, segments)
    if kind == "powers of two":
        num_levels = draw(st.sampled_from([1, 2, 7, 8, 127]))
        codes = torch.randint(0, 2 * num_levels + 1, (numel,), generator=generator)
        return PowersOfTwo(pack(codes, (2 * num_levels).bit_length()), num_levels, scales, segments)
    coding: Literal["packed", "entropy"] = draw(st.sampled_from(["packed", "entropy"]))
    most = draw(st.sampled_from([2, 3, 4, 5, 16, 255, 256]))
    codes = torch.randint(0, most, (numel,), generator=generator)
    packed = pack(codes, max(1, (most - 1).bit_length()))
    if kind == "grid":
        return Grid(packed, most, scales, random_bits(segments.count, torch.float32, seed + 1), segments, coding)
    is_known = most & (most - 1) == 0 and draw(st.booleans())
    table = gaussian_table(most.bit_length() - 1) if is_known else torch.randn(most, generator=generator).sort().values
    return Codebook(packed, table, scales, segments, coding)


@st.composite
def nested(draw: st.DrawFn, kind: str, numel: int, depth: int) -> Payload:
    """A payload of a kind with bodies inside."""
    key = draw(st.integers(0, 2**64 - 1))
    if kind == "sparse":
        generator = torch.Generator().manual_seed(key % 2**32)
        indices = (torch.rand(numel, generator=generator) < draw(st.floats(0, 1))).nonzero().squeeze(1)
        return Sparse(numel, indices, draw(payloads(indices.numel(), depth + 1)))
    if kind == "rotated":
        block = draw(st.sampled_from([None, 1, 8, 2**48]))
        return Rotated(draw(payloads(numel, depth + 1)), key, draw(st.sampled_from([1, 2])), block)
    if kind == "DCT":
        return DCT(draw(payloads(numel, depth + 1)), draw(st.sampled_from([1, 3, 4096])))
    if kind == "seeded sparse":
        segments = draw(segmentations(numel))
        kept = Segments.of_sizes(draw(st.integers(0, size)) for size in segments.offsets().diff().tolist())
        return SeededSparse(draw(payloads(kept.numel, depth + 1)), kept, key, segments)
    if kind == "sum":
        return Sum(tuple(draw(payloads(numel, depth + 1)) for _ in range(draw(st.integers(1, 3)))))
    sizes = draw(segmentations(numel)).offsets().diff().tolist() or [0]
    return Concat(tuple(draw(payloads(size, max(depth + 1, 6))) for size in [*sizes[:5], sum(sizes[5:])]))


@settings(max_examples=300, deadline=None)
@given(payloads())
def test_decode_gives_back_every_bit_and_the_size_is_known(payload: Payload) -> None:
    message = encode(payload)
    assert message.dtype == torch.uint8
    assert message.numel() == encoded_num_bytes(payload)
    assert same(decode(message), payload)
    assert same(decode(message, max_numel=payload.numel), payload)
    shape = decode(message, device="meta")
    assert message.numel() <= max_num_bytes(payload) == max_num_bytes(shape)
    assert [tensor.shape for tensor in tensors_in(shape)] == [tensor.shape for tensor in tensors_in(payload)]
    assert all(tensor.is_meta for tensor in tensors_in(shape))
    assert kinds_in(shape) == kinds_in(payload)


@pytest.mark.parametrize("density", [0.0, 1e-4, 0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("numel", [1, 2, 100, 20_000, 2**31, 2**33, 2**40])
def test_indices_survive_and_take_the_fewest_bytes(numel: int, density: float) -> None:
    spread = min(numel, 20_000)
    generator = torch.Generator().manual_seed(3)
    indices = (torch.rand(spread, generator=generator) < density).nonzero().squeeze(1) * (numel // spread)
    payload = Sparse(numel, indices, Dense(torch.randn(indices.numel(), generator=generator)))
    message = encode(payload)
    assert message.numel() == encoded_num_bytes(payload)
    assert same(decode(message), payload)
    code = choose_code(indices, numel)
    assert code.num_bytes <= 1 + (numel + 7) // 8
    if numel <= 2**31:
        assert code.num_bytes <= 1 + (indices.numel() * (numel - 1).bit_length() + 7) // 8


def test_each_index_code_is_taken_somewhere() -> None:
    spread = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    fixed = choose_code(torch.tensor([3, 500, 900]), 1000).tag
    tags = [fixed, *(choose_code(spread[:count].sort().values, 1000).tag for count in (50, 500))]
    clusters = torch.cat([torch.arange(20), torch.arange(900, 920)])
    assert [*tags, choose_code(clusters, 1000).tag] == [0, 1, 2, 4]
    assert choose_code((clusters.view(1, -1) + 2000 * torch.arange(300).view(-1, 1)).reshape(-1), 600_000).tag == 3


@settings(max_examples=200, deadline=None)
@given(clusters=st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 40), st.integers(1, 30)), max_size=12))
def test_the_code_taken_is_the_shortest(clusters: list[tuple[int, int, int]]) -> None:
    chosen = sorted({start + step * place for start, step, size in clusters for place in range(size)})
    indices = torch.tensor(chosen, dtype=torch.int64)
    for numel in {max(chosen, default=0) + 1, 2**30, 2**48}:
        if chosen and chosen[-1] >= numel:
            continue
        sizes = {
            1: 2 + rice_num_bytes(indices, rice_parameter(indices)),
            2: 1 + (numel + 7) // 8,
            3: 1 + exp_golomb_num_bytes(indices),
        }
        if numel <= 2**31:
            sizes[0] = 1 + (len(chosen) * (numel - 1).bit_length() + 7) // 8
        if chosen and min((num_bytes, tag) for tag, num_bytes in sizes.items())[1] == 3:
            sizes[4] = 1 + adaptive_encode(indices).numel()
        code = choose_code(indices, numel)
        assert (code.num_bytes, code.tag) == min((num_bytes, tag) for tag, num_bytes in sizes.items())
        assert code.num_bytes <= max_indices_num_bytes(len(chosen), numel)
        coded = coded_indices(indices, numel)
        assert coded.num_bytes() == code.num_bytes
        data = torch.tensor(list(b"".join(map(bytes, coded.pieces()))), dtype=torch.uint8)
        assert data.numel() == code.num_bytes
        assert data[0] == code.tag
        assert code.tag != 3 or torch.equal(data[1:], exp_golomb_encode(indices))
        assert code.tag != 4 or torch.equal(data[1:], adaptive_encode(indices))
        assert torch.equal(read_indices(Reader(data.numpy(), read_body), len(chosen), numel), indices)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_lie_at_a_multiple_of_their_size_wherever_the_message_lies(dtype: torch.dtype) -> None:
    values = torch.arange(5.0).to(dtype)
    message = encode(Dense(values))
    room = torch.zeros(len(message) + 4, dtype=torch.uint8)
    is_view = []
    for start in range(4):
        place = room[start : start + len(message)].copy_(message)
        decoded = decode(place)
        assert isinstance(decoded, Dense)
        assert torch.equal(decoded.values, values)
        assert decoded.values.data_ptr() % dtype.itemsize == 0
        is_view.append(0 < decoded.values.data_ptr() - place.data_ptr() < len(message))
    assert sum(is_view) == 4 // dtype.itemsize


def test_many_segments_of_listed_sizes() -> None:
    sizes = [(i * 7919) % 300 for i in range(5000)]
    numel = sum(sizes)
    bits = pack(torch.arange(numel) % 2, 1)
    payload = Signs(bits, torch.rand(5000), Segments.of_sizes(sizes))
    assert same(decode(encode(payload)), payload)


def test_a_length_beyond_the_vector_is_written_as_one_segment() -> None:
    for numel in (0, 3):
        long, whole = Segments(numel, length=2**40), Segments.whole(numel)
        ones = torch.ones(whole.count)
        assert torch.equal(encode(Constant(ones, long)), encode(Constant(ones, whole)))
        assert encoded_num_bytes(Constant(ones, long)) == encoded_num_bytes(Constant(ones, whole))


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (Dense(torch.tensor([1.0])), "745701 01 00 01 0000803f"),
        (Dense(torch.tensor([], dtype=torch.float16)), "745701 01 02 00"),
        (
            Sparse(300, torch.tensor([1, 299]), Dense(torch.tensor([1.0, 2.0], dtype=torch.bfloat16))),
            "745701 02 ac02 01 01 02 803f0040 00 015602",
        ),
        (
            Signs(torch.tensor([5], dtype=torch.uint8), torch.tensor([2.0]), Segments.whole(3)),
            "745701 04 03 00 00000040 05",
        ),
        (
            Levels(pack(torch.tensor([0, 14, 7]), 4), torch.zeros(2), 7, Segments.of_sizes([1, 2])),
            "745701 03 03 02 02 0102 07 0000000000000000 00 e007",
        ),
    ],
)
def test_golden_messages(payload: Payload, expected: str) -> None:
    body = bytes.fromhex(expected)
    assert encode(payload).numpy().tobytes() == body + crc32c_python(body).to_bytes(4, "little")


def test_the_specification_shows_true_messages() -> None:
    page = Path(thinwire.wire.__file__).with_name("FORMAT.md")
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 10
    assert result.failed == 0


class Foreign:
    numel = 3


def wrong_payloads() -> list[Payload]:
    """Of the kinds from 5 on."""
    byte, one, whole = torch.zeros(1, dtype=torch.uint8), torch.zeros(1), Segments.whole(3)
    three = Dense(torch.zeros(3))
    matrix = torch.zeros(2, 1)
    return [
        Grid(byte, 0, one, one, whole),
        Grid(byte, 2**16 + 1, one, one, whole),
        Grid(byte, 4, torch.zeros(2), one, whole),
        Grid(byte, 4, one, torch.zeros(0), whole),
        Grid(byte, 17, one, one, whole),
        Grid(byte, 4, one, one, whole, "elias"),  # type: ignore[arg-type]
        Codebook(byte, torch.zeros(1), one, whole),
        Codebook(byte, torch.zeros(257), one, whole),
        Codebook(byte, torch.zeros(2, dtype=torch.float64), one, whole),
        Codebook(byte, torch.tensor([1.0, 0.0]), one, whole),
        Codebook(byte, torch.zeros(2), torch.zeros(2), whole),
        Codebook(byte, torch.zeros(9), one, whole),
        PowersOfTwo(byte, 0, one, whole),
        PowersOfTwo(byte, 128, one, whole),
        PowersOfTwo(byte, 4, one, whole),
        PowersOfTwo(byte, 1, torch.zeros(2), whole),
        Rotated(three, -1),
        Rotated(three, 2**64),
        Rotated(three, 1, 3),
        Rotated(three, 1, 1, 3),
        Rotated(three, 1, 1, 0),
        Rotated(three, 1, 1, 2**49),
        DCT(three, 0),
        DCT(three, 4097),
        SeededSparse(three, whole, 2**64, whole),
        SeededSparse(three, Segments.whole(2), 1, whole),
        SeededSparse(three, whole, 1, Segments.whole(2)),
        SeededSparse(three, whole, 1, Segments.uniform(4, 2)),
        SeededSparse(three, Segments.of_sizes([3, 0]), 1, Segments.uniform(4, 2)),
        SeededSparse(three, Segments.uniform(3, 2), 1, Segments.of_sizes([3, 0])),
        SeededSparse(Constant(one, Segments.whole(2**33)), Segments.whole(2**33), 1, Segments.whole(2**34)),
        SeededSparse(Sparse(2**29, torch.zeros(0).long(), Dense(one[:0])), Segments(2**29, 1), 1, Segments(2**29, 1)),
        Constant(torch.zeros(2), whole),
        Constant(byte, whole),
        Sum((three,) * 65),
        Sum((three, Dense(torch.zeros(2)))),
        LowRank(matrix, matrix, 5),
        LowRank(matrix, matrix, 2),
        LowRank(matrix, torch.zeros(2, 2), 4),
        LowRank(torch.zeros(1, 1), torch.zeros(3, 1), 2),
        LowRank(torch.zeros(2, 0), torch.zeros(2, 0), 4),
        LowRank(matrix.double(), matrix, 4),
        LowRank(matrix.view(-1), matrix, 4),
        LowRank(torch.zeros(0, 1), torch.zeros(1, 1), 0),
        Concat(()),
        Concat((Constant(one, Segments.whole(2**48)), three)),
    ]


@pytest.mark.parametrize(
    "payload",
    [
        Foreign(),
        Dense(torch.zeros(3, dtype=torch.float64)),
        Dense(torch.zeros(2, 2)),
        Sparse(5, torch.tensor([1, 1]), Dense(torch.zeros(2))),
        Sparse(5, torch.tensor([1, 5]), Dense(torch.zeros(2))),
        Sparse(5, torch.tensor([1]), Dense(torch.zeros(2))),
        Sparse(2**48 + 1, torch.tensor([1]), Dense(torch.zeros(1))),
        Signs(torch.zeros(2, dtype=torch.uint8), torch.zeros(1), Segments.whole(3)),
        Signs(torch.zeros(1, dtype=torch.uint8), torch.zeros(2), Segments.whole(3)),
        Levels(torch.zeros(1, dtype=torch.uint8), torch.zeros(2), 1, Segments.whole(3)),
        Levels(torch.zeros(2, dtype=torch.uint8), torch.zeros(1), 1, Segments.whole(3)),
        Levels(torch.zeros(0, dtype=torch.uint8), torch.zeros(1), 0, Segments.whole(3)),
        *wrong_payloads(),
    ],
)
def test_contradictions_are_refused_before_they_travel(payload: Payload) -> None:
    with pytest.raises(ConfigError):
        encode(payload)
    with pytest.raises(ConfigError):
        encoded_num_bytes(payload)


def test_nesting_has_a_limit() -> None:
    payload: Payload = Dense(torch.zeros(0))
    for _ in range(8):
        payload = Sparse(0, torch.empty(0, dtype=torch.int64), payload)
    with pytest.raises(ConfigError, match="nested"):
        encode(payload)
