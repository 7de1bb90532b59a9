"""Loops over flat arrays: packing, Rice and exp-Golomb codes, selection, random numbers, dithering, sums, checksums."""

from thinwire.kernels.bits import largest_code, num_packed_bytes, pack, unpack
from thinwire.kernels.crc32c import crc32c
from thinwire.kernels.dither import quantize_levels, quantize_packed
from thinwire.kernels.exp_golomb import exp_golomb_decode, exp_golomb_encode, exp_golomb_num_bytes
from thinwire.kernels.levels import add_levels
from thinwire.kernels.philox import random_words, uniform
from thinwire.kernels.rice import (
    max_rice_num_bytes,
    rice_decode,
    rice_encode,
    rice_num_bytes,
    rice_parameter,
)
from thinwire.kernels.select import top_k
from thinwire.kernels.signed_sums import add_signs
from thinwire.kernels.signs import sign_bits
from thinwire.kernels.subset import random_subset
from thinwire.kernels.sums import segment_max, segment_sums

__all__ = [
    "add_levels",
    "add_signs",
    "crc32c",
    "exp_golomb_decode",
    "exp_golomb_encode",
    "exp_golomb_num_bytes",
    "largest_code",
    "max_rice_num_bytes",
    "num_packed_bytes",
    "pack",
    "quantize_levels",
    "quantize_packed",
    "random_subset",
    "random_words",
    "rice_decode",
    "rice_encode",
    "rice_num_bytes",
    "rice_parameter",
    "segment_max",
    "segment_sums",
    "sign_bits",
    "top_k",
    "uniform",
    "unpack",
]
