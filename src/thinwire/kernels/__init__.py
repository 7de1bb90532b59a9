"""Loops over flat arrays: packing and codes, selection, random numbers, dithering, sums, checksums."""

from thinwire.kernels.accumulate import accumulate_take, accumulate_top_k
from thinwire.kernels.bits import largest_code, num_packed_bytes, pack, unpack
from thinwire.kernels.crc32c import crc32c
from thinwire.kernels.dither import accumulate_quantize, quantize
from thinwire.kernels.elias import elias_decode_prefix, elias_encode, elias_num_bytes
from thinwire.kernels.exp_golomb import exp_golomb_decode, exp_golomb_encode, exp_golomb_num_bytes
from thinwire.kernels.hadamard import hadamard_blocks, hadamard_rotate
from thinwire.kernels.levels import add_levels, write_levels
from thinwire.kernels.philox import random_words, uniform
from thinwire.kernels.rans import rans_counts, rans_decode, rans_encode, rans_frequencies
from thinwire.kernels.rice import (
    max_rice_num_bytes,
    rice_decode,
    rice_encode,
    rice_num_bytes,
    rice_parameter,
)
from thinwire.kernels.scatter import scatter_add, scatter_write
from thinwire.kernels.select import top_k, top_k_entries
from thinwire.kernels.signed_sums import add_signs, write_signs
from thinwire.kernels.signs import accumulate_signs, mean_signs, sign_bits
from thinwire.kernels.subset import random_subset, segment_subsets
from thinwire.kernels.sums import segment_max, segment_sums

__all__ = [
    "accumulate_quantize",
    "accumulate_signs",
    "accumulate_take",
    "accumulate_top_k",
    "add_levels",
    "add_signs",
    "crc32c",
    "elias_decode_prefix",
    "elias_encode",
    "elias_num_bytes",
    "exp_golomb_decode",
    "exp_golomb_encode",
    "exp_golomb_num_bytes",
    "hadamard_blocks",
    "hadamard_rotate",
    "largest_code",
    "max_rice_num_bytes",
    "mean_signs",
    "num_packed_bytes",
    "pack",
    "quantize",
    "random_subset",
    "random_words",
    "rans_counts",
    "rans_decode",
    "rans_encode",
    "rans_frequencies",
    "rice_decode",
    "rice_encode",
    "rice_num_bytes",
    "rice_parameter",
    "scatter_add",
    "scatter_write",
    "segment_max",
    "segment_subsets",
    "segment_sums",
    "sign_bits",
    "top_k",
    "top_k_entries",
    "uniform",
    "unpack",
    "write_levels",
    "write_signs",
]
