import pytest
import torch

from thinwire.errors import WireError
from thinwire.kernels.bitpack.bits import pack
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
from thinwire.wire import Explanation, Field, encode, explain


def payloads() -> dict[str, Payload]:
    codes = pack(torch.arange(40) % 3, 2)
    return {
        "dense": Dense(torch.randn(9).to(torch.bfloat16)),
        "signs": Signs(pack(torch.arange(40) % 2, 1), torch.rand(3), Segments.of_sizes([20, 0, 20])),
        "levels": Levels(codes, torch.rand(4), 1, Segments.uniform(40, 13)),
        "Elias": Levels(codes, torch.rand(1), 1, Segments.whole(40), "elias"),
        "entropy": Levels(codes, torch.rand(1), 1, Segments.whole(40), "entropy"),
        "fixed": Sparse(1000, torch.tensor([3, 500, 900]), Dense(torch.ones(3))),
        "Rice": Sparse(2**40, torch.tensor([3, 500, 900]), Dense(torch.ones(3))),
        "bitmap": Sparse(16, torch.arange(0, 16, 2), Dense(torch.ones(8))),
        "adaptive": Sparse(1000, torch.arange(900, 940), Dense(torch.ones(40))),
        "nested": Sparse(90, torch.arange(40, 60), Sparse(20, torch.tensor([1, 7]), Dense(torch.ones(2)))),
        "grid": Grid(codes, 3, torch.rand(4), torch.rand(4), Segments.uniform(40, 13)),
        "entropy grid": Grid(codes, 3, torch.rand(1), torch.rand(1), Segments.whole(40), "entropy"),
        "codebook": Codebook(codes, gaussian_table(2), torch.rand(1), Segments.whole(40)),
        "table": Codebook(codes, torch.tensor([-1.0, 0.0, 2.0]), torch.rand(1), Segments.whole(40)),
        "powers of two": PowersOfTwo(codes, 1, torch.rand(2), Segments.uniform(40, 20)),
        "rotated": Rotated(Dense(torch.randn(9)), 2**63 + 1),
        "blocks": Rotated(Dense(torch.randn(9)), 1, 2, 4),
        "DCT": DCT(Sparse(9, torch.tensor([3]), Dense(torch.ones(1))), 3),
        "seeded sparse": SeededSparse(Dense(torch.ones(5)), Segments.of_sizes([2, 3]), 5, Segments.uniform(8, 4)),
        "constant": Constant(torch.rand(2), Segments.uniform(7, 4)),
        "sum": Sum((Dense(torch.randn(9)), Constant(torch.rand(1), Segments.whole(9)))),
        "low rank": LowRank(torch.rand(3, 2), torch.rand(4, 2), 11),
        "concat": Concat((Dense(torch.randn(3)), Concat((Dense(torch.randn(4)),)), Dense(torch.randn(2)))),
        "empty": Sparse(0, torch.empty(0, dtype=torch.int64), Dense(torch.empty(0))),
    }


def leaves(fields: tuple[Field, ...]) -> list[Field]:
    found: list[Field] = []
    for field in fields:
        if field.fields:
            assert field.offset == field.fields[0].offset
            assert field.num_bytes == sum(inside.num_bytes for inside in field.fields)
        found += leaves(field.fields) or [field]
    return found


@pytest.mark.parametrize("name", payloads())
def test_every_byte_is_explained_once(name: str) -> None:
    payload = payloads()[name]
    message = encode(payload)
    explanation = explain(message)
    assert explanation.error is None
    assert explanation.checksum_is_right
    assert (explanation.num_bytes, explanation.numel) == (message.numel(), payload.numel)
    position = 0
    for field in leaves(explanation.fields):
        assert field.offset == position
        position += field.num_bytes
    assert position == message.numel()
    if payload.numel:
        assert explanation.bits_per_entry == 8 * message.numel() / payload.numel
        assert explanation.ratio == 4 * payload.numel / message.numel()
    else:
        assert explanation.bits_per_entry is explanation.ratio is None


def values(explanation: Explanation) -> dict[str, str]:
    return {name.strip(): value for _, _, name, value in explanation.rows()}


def test_codes_are_named_and_what_they_take_is_said() -> None:
    said = {name: values(explain(encode(payload))) for name, payload in payloads().items()}
    assert said["dense"]["format"] == "1: bf16"
    assert said["signs"]["segments"] == "3 of listed sizes"
    assert said["levels"]["level code"] == "0: packed"
    assert said["levels"]["codes"] == "40 from 0 to 2, 2 bits a code"
    assert said["Elias"]["level code"] == "1: Elias omega"
    assert said["Elias"]["codes"].startswith("40 from 0 to 2, ")
    assert said["entropy"]["level code"] == "2: entropy"
    assert said["fixed"]["index code"] == "0: fixed width"
    assert said["fixed"]["indices"] == "3 of 1000 entries, 13.33 bits an index"
    assert said["Rice"]["Rice parameter"] == "8"
    assert said["bitmap"]["index code"] == "2: bitmap"
    assert said["adaptive"]["index code"] == "4: adaptive"
    assert said["grid"]["coding"] == "0: packed"
    assert said["grid"]["codes"] == "40 from 0 to 2, 2 bits a code"
    assert said["entropy grid"]["coding"] == "2: entropy"
    assert said["codebook"]["table"] == "Gaussian, 4 numbers"
    assert said["table"]["table"] == "3 numbers, f32"
    assert said["powers of two"]["powers"] == "1"
    assert said["rotated"]["key"] == "8000000000000001"
    assert said["rotated"]["block"] == "as large as possible"
    assert (said["blocks"]["rounds"], said["blocks"]["block"]) == ("2", "4 entries")
    assert said["DCT"]["side"] == "3"
    assert said["seeded sparse"]["kept"] == "2 of listed sizes"
    assert said["sum"]["terms"] == "2"
    assert (said["low rank"]["columns"], said["low rank"]["rank"]) == ("4", "2")
    assert said["concat"]["parts"] == "1"


def test_the_length_of_a_part_is_not_taken_for_that_of_the_vector() -> None:
    whole = encode(payloads()["concat"])
    assert explain(whole[:-8]).numel is None
    assert explain(whole).numel == 9


@pytest.mark.parametrize("name", payloads())
def test_a_damaged_message_is_explained_up_to_where_it_breaks(name: str) -> None:
    whole = encode(payloads()[name])
    for length in range(whole.numel()):
        explanation = explain(whole[:length])
        assert explanation.error is not None
        assert explanation.lines()[-1].startswith("not a valid message")
        assert all(field.offset + field.num_bytes <= length for field in leaves(explanation.fields))
    for place in range(whole.numel()):
        damaged = whole.clone()
        damaged[place] ^= 0x55
        explanation = explain(damaged)
        assert not explanation.checksum_is_right
        assert explanation.error is not None
    last = explain(damaged)
    assert last.error == "its checksum is wrong"
    assert "wrong: that of the bytes is" in values(last)["checksum"]


def test_only_bytes_are_explained() -> None:
    with pytest.raises(WireError, match="uint8 vector"):
        explain(torch.zeros(3))
