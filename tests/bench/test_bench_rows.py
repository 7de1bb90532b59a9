"""Every row is there, complete, and measures what it says."""

import functools
import gc
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor

from thinwire import config
from thinwire.arrays import CPU, zeros
from thinwire.bench import BenchInput, BenchRow, Plan, make_tables, measure
from thinwire.bench.families import Member
from thinwire.bench.inputs import heavy
from thinwire.bench.operators import OPERATOR_STEPS
from thinwire.bench.plan import families
from thinwire.bench.steps import Feedback, schemes
from thinwire.bench.sync import Synchronisation
from thinwire.bench.timing import Case, Stopwatch, extra_bytes
from thinwire.compressors import Traits
from thinwire.config import register, registered
from thinwire.errors import ConfigError
from thinwire.frontier.configurations import compressor_classes
from thinwire.layout import Segments
from thinwire.payloads import Dense, Payload
from thinwire.random import Key
from thinwire.wire import decode, encode

NUMEL = 6000
MEMBERS: list[Member] = [member for family in families() for member in family.members]
# What neither makes nor reads a message.
SILENT = {
    "torch-memory", "torch-topk", "top-k", "accumulate-top-k", "quantize", "accumulate-quantize", "sign-bits",
    "accumulate-signs", "is-finite", "segment-sums", "segment-max", "add-levels", "add-signs", "scatter-add", "pack",
    "unpack", "crc32c", "hadamard", "random-subset",
}  # fmt: skip
INDEXED = {
    "ef-topk-sign", "worker-sync", "rice-encode", "rice-decode", "exp-golomb-encode", "exp-golomb-decode",
    "adaptive-encode", "adaptive-decode",
}  # fmt: skip


class Kept:
    def __init__(self) -> None:
        self.rows: list[BenchRow] = []
        self.words: list[str] = []
        self.notes: list[str] = []

    def announce(self, what: str) -> None:
        self.words.append(what)

    def note(self, data: BenchInput) -> None:
        self.notes.append(data.note)

    def row(self, row: BenchRow) -> None:
        self.rows.append(row)


@functools.cache
def measured() -> Kept:
    kept = Kept()
    plan = Plan(numels=(NUMEL,), threads=(1, 2), repeats=1, warmups=1, sweep_num_bytes=1 << 16)
    gc.collect()
    gc.freeze()  # each row collects garbage, and other tests have left much that is none
    try:
        measure(plan, kept)
    finally:
        gc.unfreeze()
    assert len(kept.rows) == plan.num_rows
    return kept


def test_every_row_is_there_once() -> None:
    names = [(row.step, row.variant, row.density, row.threads) for row in measured().rows]
    expected = [(member.step, member.variant, member.density, count) for member in MEMBERS for count in (1, 2)]
    assert sorted(names, key=str) == sorted(expected, key=str)
    assert len(set(names)) == len(names)


def test_the_steps_that_figures_are_asked_of_are_there() -> None:
    rows = {(row.step, row.variant, row.density) for row in measured().rows}
    assert {
        ("ef-topk-sign", "whole", 0.01),
        ("ef-topk-sign", "whole", 0.001),
        ("ef-topk-sign", "tensors", 0.01),
        *(("ef-qsgd", f"{bits} bits, {norm}", None) for bits in (2, 4, 8) for norm in ("max", "l2")),
        ("ef-sign", "buckets of 512", None),
        ("ef-sign", "tensors", None),
        ("decode-add", "topk-sign whole", 0.01),
        ("decode-add", "topk-sign whole", 0.001),
        ("decode-add", "sign buckets of 512", None),
        *(("decode-add", f"qsgd {bits} bits, max", None) for bits in (2, 4, 8)),
        *(("encode", f"qsgd 4 bits, max, {coding}", None) for coding in ("elias", "entropy")),
        ("worker-sync", "of 4 workers", 0.01),
        ("torch-topk", "", 0.01),
    } <= rows


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_a_row_is_complete(member: Member) -> None:
    own = [
        row
        for row in measured().rows
        if (row.step, row.variant, row.density) == (member.step, member.variant, member.density)
    ]
    for row in own:
        assert (row.numel, row.input) == (NUMEL, "heavy")
        assert row.seconds > 0
        assert row.memcpy_seconds > 0
        assert row.ratio == row.seconds / row.memcpy_seconds
        assert row.extra_bytes is None or row.extra_bytes >= 0
        if row.step in OPERATOR_STEPS:
            assert row.bits_per_entry is not None
            assert row.bits_per_entry > 0
            continue
        bits = (row.bits_per_entry, row.entropy_bits)
        positions = (row.bits_per_index, row.index_bound_bits)
        assert all((value is None) == (row.step in SILENT) for value in bits)
        is_sparse = row.step in INDEXED or "topk" in row.variant
        assert all((value is not None) == is_sparse for value in positions)
        assert all(value > 0 for value in (*bits, *positions) if value is not None)
        assert row.to_json().keys() >= {
            "step", "numel", "threads", "density", "input", "seconds", "memcpy_seconds", "ratio", "bits_per_entry",
            "entropy_bits", "bits_per_index", "index_bound_bits", "extra_bytes",
        }  # fmt: skip


def test_bits_do_not_depend_on_threads() -> None:
    """Kernels of the wire give the same message for the same payload; error feedback goes on between two rows."""
    for member in MEMBERS:
        if member.step in ("encode", "decode", "decode-add", "rice-encode", "elias-encode", "rans-encode"):
            one, two = (
                (row.bits_per_entry, row.entropy_bits)
                for row in measured().rows
                if (row.step, row.variant, row.density) == (member.step, member.variant, member.density)
            )
            assert one == two


def test_a_table_has_a_line_for_each_member() -> None:
    (table,) = make_tables(measured().rows)
    assert {len(column.cells) for column in table.columns} == {len(MEMBERS)}
    assert f"{NUMEL:,} entries, heavy" in table.title


def test_only_wanted_steps_are_measured() -> None:
    kept = Kept()
    plan = Plan(numels=(2000, 3000), threads=(1,), steps=("crc32c",), repeats=1, warmups=0, sweep_num_bytes=1 << 10)
    measure(plan, kept)
    assert [(row.step, row.numel) for row in kept.rows] == [("crc32c", 2000), ("crc32c", 3000)]
    assert plan.num_rows == 2
    assert len(kept.notes) == 2


@pytest.mark.parametrize("scheme", schemes(), ids=lambda scheme: f"{scheme.variant} {scheme.density or ''}")
def test_a_step_is_error_feedback_over_the_vectors_in_turn(scheme: object) -> None:
    """Written out: u = m + x, q = C(u), m = u - q."""
    data = heavy(NUMEL, seed=1)
    feedback = Feedback(scheme, data)  # type: ignore[arg-type]
    segments = scheme.segments(data)  # type: ignore[attr-defined]
    residual = torch.zeros(NUMEL)
    for turn in range(4):
        feedback.refill(turn)
        message = feedback.step()
        u = residual + data.vector(turn)
        payload = scheme.compressor.compress(u, Key(0).fold("bench", turn), segments)  # type: ignore[attr-defined]
        assert torch.equal(message, encode(payload))
        residual = u - payload.to_dense()
    assert feedback.facts().bits_per_entry == 8 * message.numel() / NUMEL


def test_a_synchronisation_moves_the_model_by_the_mean_of_four_messages() -> None:
    data = heavy(NUMEL, seed=2)
    sync = Synchronisation(data)
    for turn in range(3):
        before = torch.cat(list(sync.worker.shared_parameters().values()))
        sync.refill(turn)
        sync.run()
        messages = [sync._message, *sync._others]
        mean = torch.stack([decode(message).to_dense() for message in messages]).sum(0) / 4
        after = torch.cat([param.detach() for param in sync.worker.model.parameters()])
        torch.testing.assert_close(after, before - mean, rtol=0, atol=1e-6)
        assert mean.count_nonzero() > 0
    assert sync.worker.num_exchanges == 3


def test_every_registered_compressor_has_its_rows() -> None:
    for cls in compressor_classes():
        own = [row for row in measured().rows if row.variant.startswith(f"{cls.__name__}(")]
        assert {(row.step, row.threads) for row in own} == {(step, n) for step in OPERATOR_STEPS for n in (1, 2)}


def test_adding_a_compressor_adds_its_rows() -> None:
    """One class, no other edit; its fields are of no name that is known."""

    @register
    @dataclass(frozen=True, slots=True)
    class ToyOfBench:
        """``C(x) = x``."""

        strength: float
        way: Literal["one", "other"]

        def __post_init__(self) -> None:
            if self.strength >= 1:
                raise ConfigError(f"{self.strength} was given; it is below 1")

        def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
            return Dense(x.clone())

        def traits(self, numel: int) -> Traits:
            return Traits(unbiased=True, error=0.0)

        def outline(self, segments: Segments) -> Payload:
            return Dense(torch.zeros(segments.numel))

    try:
        own = [member for family in families() for member in family.members if "ToyOfBench" in member.variant]
        assert [member.step for member in own] == list(OPERATOR_STEPS)
        assert own[0].variant == "ToyOfBench(strength=0.01, way='one')"
    finally:
        config._REGISTRY.pop("ToyOfBench")
    assert "ToyOfBench" not in registered()


def test_operators_on_long_vectors_are_measured_when_asked_for() -> None:
    def steps(numel: int, *asked: str) -> set[str]:
        plan = Plan(numels=(numel,), steps=asked)
        return {member.step for family in families() for member in plan.wanted(family, numel)}

    assert set(OPERATOR_STEPS) <= steps(1_000_000)
    assert not set(OPERATOR_STEPS) & steps(25_000_000)
    assert steps(25_000_000, "operators") == set(OPERATOR_STEPS)
    assert steps(25_000_000, "operator-compress", "crc32c") == {"operator-compress", "crc32c"}
    assert Plan(numels=(10_000_000,), threads=(1,), steps=("operators",)).num_rows > 2 * len(compressor_classes())


def test_the_stopwatch_refills_before_each_call_and_copies_on_one_thread() -> None:
    turns: list[int] = []
    threads: list[int] = []
    before = torch.get_num_threads()
    case = Case(run=lambda: threads.append(torch.get_num_threads()), refill=turns.append)
    watch = Stopwatch(1000, repeats=3, warmups=2, sweep_num_bytes=1 << 10)
    copied: list[int] = []
    copy = watch._copy

    def counted() -> None:
        copied.append(torch.get_num_threads())
        copy()

    watch._copy = counted  # type: ignore[method-assign]
    assert len(watch.time(case, (2, 1))) == 2
    # Of each, two to warm up and one for memory; then those that count, on the same data in turn.
    assert turns == [0, 1, 2, 0, 1, 2, 3, 3, 4, 4, 5, 5]
    assert threads == [2] * 3 + [1] * 3 + [2, 1] * 3
    assert copied == [1] * 6
    assert torch.get_num_threads() == before


def test_extra_memory_is_seen() -> None:
    num_bytes = 1 << 26
    extra = extra_bytes(lambda: torch.ones(num_bytes, dtype=torch.uint8))
    assert extra is None or 0.9 * num_bytes < extra < 2 * num_bytes


def test_extra_memory_is_seen_where_memory_of_before_is_used_again() -> None:
    num_bytes = 1 << 26
    # A freed block of 31 MiB tells the allocator to take such blocks from its heap, where a last one keeps them in.
    torch.ones(31 << 20, dtype=torch.uint8)
    blocks = [torch.ones(20 << 20, dtype=torch.uint8) for _ in range(9)]
    last = blocks.pop()
    del blocks
    extra = extra_bytes(lambda: torch.ones(num_bytes, dtype=torch.uint8))
    assert extra is None or 0.9 * num_bytes < extra < 2 * num_bytes
    assert last.sum() == last.numel()
    zeros(num_bytes // 4, CPU)  # kept by thinwire's own buffers
    extra = extra_bytes(lambda: zeros(num_bytes // 4, CPU))
    assert extra is None or 0.9 * num_bytes < extra < 2 * num_bytes


@pytest.mark.parametrize("step", ["ef-topk-sign", "ef-sign"])
def test_a_step_takes_at_most_a_quarter_of_a_vector_with_its_message(step: str) -> None:
    numel, kept = 16_000_000, Kept()
    measure(Plan(numels=(numel,), steps=(step,), repeats=1), kept)
    assert kept.rows
    for row in kept.rows:
        if row.extra_bytes is None:
            pytest.skip("the system does not tell how much memory is taken")
        assert row.extra_bytes <= 0.25 * 4 * numel, (row.variant, row.density, row.threads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numels": ()}, "no numels"),
        ({"threads": (0,)}, "0 threads"),
        ({"repeats": 0}, "repeats = 0"),
        ({"steps": ("crc",)}, "unknown step 'crc'.*crc32c"),
        ({"inputs": ("light",)}, "unknown input 'light'"),
        ({"inputs": ("recorded:none.pt",)}, "none.pt cannot be read"),
    ],
)
def test_a_plan_out_of_range_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan(**{"numels": (1000,), **change})  # type: ignore[arg-type]


def test_a_whole_cut_is_one_segment() -> None:
    data = heavy(NUMEL, seed=0)
    cuts = {scheme.cut: scheme.segments(data) for scheme in schemes()}
    assert cuts["whole"] == Segments.whole(NUMEL)
    assert cuts["tensors"].sizes == data.tensors.sizes
    assert cuts["buckets of 512"].offsets()[1] == 512
