"""Rows of rANS, in vectors and plain loops: one step at the extremes, alphabets, lengths, blocks decoded together."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from thinwire.errors import WireError
from thinwire.kernels.bitpack.bits import pack
from thinwire.kernels.entropy.rans import BLOCK, rans_counts, rans_decode, rans_decode_prefix, rans_encode
from thinwire.kernels.entropy.rans_numba import _entries_of_pairs, _push
from thinwire.kernels.entropy.rans_simd import has_vectors, push_rows
from thinwire.kernels.entropy.rans_tables import entries_of, lookup_of
from thinwire.kernels.entropy.rans_torch import rans_counts_torch, rans_encode_torch
from thinwire.kernels.jit.compiling import kernel


@kernel
def push_row(symbols: Any, paired: bool, states: Any, entries: Any, pairs: Any, words: Any, vectors: bool) -> Any:
    _entries_of_pairs(entries, pairs)
    raised = entries[entries.size - 1]
    if not vectors:
        return np.int64(_push(symbols, 32, states, entries, words, np.uint64(words.size)))
    table = pairs if paired else entries
    return np.int64(push_rows(symbols, paired, 1, states, table, raised, words, np.int64(words.size)))


@kernel
def vectors_are_there() -> Any:
    return has_vectors()


def extremes(frequency: int) -> np.ndarray:
    """States around everything that a division by the frequency, or the check before it, could get wrong."""
    top = frequency << 20
    quotients = [1, 2, (1 << 19) + 1, (1 << 20) - 2, (1 << 20) - 1]
    near = [quotient * frequency + part for quotient in quotients for part in (-1, 0, 1, frequency - 2, frequency - 1)]
    near += [top - 1, top, top + 1, (1 << 16), (1 << 32) - 1, (1 << 31) - 1, 1 << 31]
    inside = [state for state in near if 1 << 16 <= state < 1 << 32]
    return np.resize(np.array(inside, np.uint32), 32)


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("paired", [False, True])
def test_one_row_is_exact_at_the_extremes_of_every_frequency(paired: bool, vectors: bool) -> None:
    if vectors and not vectors_are_there():
        pytest.skip("this processor has no vectors for it")
    generator = np.random.default_rng(5)
    for frequency in range(1, 4097):
        # Symbols 0 and 15 share what is left, so that the one in question begins anywhere.
        before = int(generator.integers(0, 4096 - frequency + 1))
        table = np.zeros(256, np.int64)
        table[[0, 9, 15]] = before, frequency, 4096 - frequency - before
        states = extremes(frequency)
        words, pairs = np.zeros(40, np.uint16), np.zeros(1024, np.uint32)
        symbols = np.full(16, 0x99, np.uint8) if paired and vectors else np.full(32, 9, np.uint8)
        kept = states.copy()
        end = push_row(symbols, paired, kept, entries_of(table), pairs, words, vectors)
        whole = states.astype(np.int64)
        full = whole >= frequency << 20
        short = np.where(full, whole >> 16, whole)
        assert np.array_equal(kept, short // frequency * 4096 + short % frequency + before), frequency
        assert np.array_equal(words[end:], whole[full] & 0xFFFF), frequency


def test_a_table_says_who_owns_every_slot() -> None:
    table = np.array([0, 1, 4000, 0, 95])
    for slot, entry in enumerate(lookup_of(table).tolist()):
        symbol = next(s for s in range(5) if slot < table[: s + 1].sum())
        assert entry == (table[symbol] - 1) | int(slot - table[:symbol].sum()) << 12 | symbol << 24


def skewed(count: int, num_symbols: int) -> torch.Tensor:
    generator = np.random.default_rng(count + num_symbols)
    codes = np.minimum(generator.geometric(min(0.9, 4 / num_symbols), count) - 1, num_symbols - 1)
    return torch.from_numpy(codes[generator.permutation(count)])


@pytest.mark.parametrize("num_symbols", [1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256])
@pytest.mark.parametrize("count", [31, 32, 33, 2047, 2048, 2049, 2048 + 32, 4096 - 1])
def test_alphabets_and_lengths(count: int, num_symbols: int) -> None:
    width = max(1, (num_symbols - 1).bit_length())
    packed = pack(skewed(count, num_symbols), width)
    frequencies, data = rans_encode(packed, count, width)
    assert torch.equal(rans_counts(packed, count, width), rans_counts_torch(packed, count, width))
    assert torch.equal(data, rans_encode_torch(packed, count, width, frequencies))
    assert torch.equal(rans_decode(data, count, width, frequencies), packed)


@pytest.mark.parametrize("share", [1, 2, 1000, 2047, 2048, 2049, 2731, 3000, 3999, 4094, 4095])
def test_one_symbol_of_any_share(share: int) -> None:
    codes = np.where(np.random.default_rng(share).permutation(8192) < 2 * share, 1, 2)
    packed = pack(torch.from_numpy(codes), 2)
    frequencies, data = rans_encode(packed, 8192, 2)
    assert frequencies.tolist() == [0, share, 4096 - share, 0]
    assert torch.equal(data, rans_encode_torch(packed, 8192, 2, frequencies))
    assert torch.equal(rans_decode(data, 8192, 2, frequencies), packed)


@pytest.mark.parametrize("width", [2, 4, 7])
@pytest.mark.parametrize("count", [2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 33, 4 * BLOCK])
def test_blocks_decoded_together(count: int, width: int) -> None:
    packed = pack(skewed(count, 2**width), width)
    frequencies, data = rans_encode(packed, count, width)
    assert torch.equal(data, rans_encode_torch(packed, count, width, frequencies))
    for after in (0, 1, 63, 64, 65):
        more = torch.cat([data, torch.full((after,), 255, dtype=torch.uint8)])
        decoded, num_bytes = rans_decode_prefix(more, count, width, frequencies)
        assert num_bytes == data.numel()
        assert torch.equal(decoded, packed)


@pytest.mark.parametrize("block", range(4))
def test_damage_in_any_of_several_blocks_is_refused(block: int) -> None:
    count = 3 * BLOCK + 3333
    packed = pack(skewed(count, 4), 2)
    frequencies, data = rans_encode(packed, count, 2)
    num_words = data[:16].view(torch.int32)
    begin = 16 + sum(128 + 2 * int(number) for number in num_words[:block])
    end = begin + 128 + 2 * int(num_words[block])
    for place in (begin, begin + 127, begin + 128, (begin + end) // 2, end - 1):
        damaged = data.clone()
        damaged[place] ^= 85
        with pytest.raises(WireError):
            rans_decode(damaged, count, 2, frequencies)
    # One word more in this block and one less in another: the length is right.
    moved = data.clone()
    moved[:16].view(torch.int32)[block] += 1
    moved[:16].view(torch.int32)[block - 1] -= 1
    with pytest.raises(WireError):
        rans_decode(moved, count, 2, frequencies)


def test_plain_loops_give_the_same_bytes() -> None:
    program = "from test_kernels_rans_rows import sums; print(*sums())"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    lesser = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", program], env=lesser, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", *sums()[1:]]


def sums() -> list[str]:
    """Whether there are vectors, and digests of encoded data that was decoded to what it was made from."""
    digests = [str(bool(vectors_are_there()))]
    for width, count in ((1, 33), (2, 5000), (4, 2 * BLOCK + 77), (8, 3000), (9, 3000)):
        packed = pack(skewed(count, 2**width), width)
        frequencies, data = rans_encode(packed, count, width)
        assert torch.equal(rans_decode(data, count, width, frequencies), packed)
        digests.append(hashlib.sha256(data.numpy().tobytes()).hexdigest())
    return digests
