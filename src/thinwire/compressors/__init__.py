"""Operators from vectors to payloads, one a file."""

from thinwire.compressors.apart import Apart
from thinwire.compressors.base import (
    Compressor,
    FusedCompressor,
    Traits,
    Tunable,
    common_traits,
    segment_traits,
    tuned,
)
from thinwire.compressors.bernoulli import Bernoulli
from thinwire.compressors.bins import Bins
from thinwire.compressors.block_rand_k import BlockRandK
from thinwire.compressors.combinators import BetterOf, Successive
from thinwire.compressors.dct import DCT
from thinwire.compressors.drive import DRIVE
from thinwire.compressors.eden import EDEN
from thinwire.compressors.fixed_size import FixedSize
from thinwire.compressors.gspar import GSpar
from thinwire.compressors.half import Half
from thinwire.compressors.identity import Identity
from thinwire.compressors.k_level import KLevel
from thinwire.compressors.low_rank import LowRank
from thinwire.compressors.natural import NaturalCompression, NaturalDithering
from thinwire.compressors.one_bit import OneBit
from thinwire.compressors.plain_sign import PlainSign
from thinwire.compressors.qsgd import QSGD
from thinwire.compressors.rand_k import RandK
from thinwire.compressors.rotate import Rotate
from thinwire.compressors.sampled_top_k import SampledTopK
from thinwire.compressors.scaled import Scaled
from thinwire.compressors.seeded_rand_k import SharedSeedRandK
from thinwire.compressors.sign import Sign
from thinwire.compressors.tern_grad import TernGrad
from thinwire.compressors.threshold import Threshold
from thinwire.compressors.top_k import TopK

__all__ = [
    "DCT",
    "DRIVE",
    "EDEN",
    "QSGD",
    "Apart",
    "Bernoulli",
    "BetterOf",
    "Bins",
    "BlockRandK",
    "Compressor",
    "FixedSize",
    "FusedCompressor",
    "GSpar",
    "Half",
    "Identity",
    "KLevel",
    "LowRank",
    "NaturalCompression",
    "NaturalDithering",
    "OneBit",
    "PlainSign",
    "RandK",
    "Rotate",
    "SampledTopK",
    "Scaled",
    "SharedSeedRandK",
    "Sign",
    "Successive",
    "TernGrad",
    "Threshold",
    "TopK",
    "Traits",
    "Tunable",
    "common_traits",
    "segment_traits",
    "tuned",
]
