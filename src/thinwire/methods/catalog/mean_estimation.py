"""Unbiased means of vectors that no memory helps: the operators of mean estimation, each as a method."""

from typing import Literal

from thinwire.compressors import (
    DRIVE,
    EDEN,
    Bernoulli,
    Compressor,
    FixedSize,
    KLevel,
    NaturalCompression,
    NaturalDithering,
    Rotate,
)
from thinwire.errors import ConfigError
from thinwire.layout import Granularity, Whole
from thinwire.methods.base import GradientAveraging, Method
from thinwire.methods.catalog.parts import ROUTES, RobustRoute, Route
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.options import Density

_ONE_BIT = Density(1 / 32)
"""One float of 32 bits for 32 entries."""


@entry(
    name="suresh",
    paper="Suresh, Yu, Kumar, McMahan 2017",
    summary="gradients rounded at random to k points between their least and their largest entry",
    differs_from_paper="form=rotated rotates blocks of powers of two and pads nothing; form=variable has rANS for "
    "the levels' frequencies, where the paper has arithmetic coding",
)
def suresh(
    levels: int = 16,
    form: Literal["plain", "rotated", "variable"] = "plain",
    granularity: Granularity = Whole(),
    exchange: RobustRoute = "gather",
) -> Method:
    """pi_sk (pi_sb with two levels), pi_srk or pi_svk."""
    compressor: Compressor = KLevel(levels=levels)
    if form == "rotated":
        compressor = Rotate(values=compressor)
    elif form == "variable":
        compressor = KLevel(levels=levels, span="norm", coding="entropy")
    return GradientAveraging(compressor=compressor, exchange=ROUTES[exchange], granularity=granularity)


@entry(
    name="konecny-richtarik",
    paper="Konecny, Richtarik 2018",
    summary="a random subset of a gradient's entries, drawn from a seed that is sent, around the mean of all",
    differs_from_paper="encoder=variable and optimal have the indices in the shortest of five codes, for which the "
    "paper has a bit an entry or the index itself",
)
def konecny_richtarik(
    encoder: Literal["fixed", "variable", "optimal", "binary"] = "fixed",
    density: Density | None = None,
    center: Literal["mean", "zero"] = "mean",
    granularity: Granularity = Whole(),
    exchange: Route = "gather",
) -> Method:
    """Fixed size with a seed, variable size with equal or optimal probabilities, or two values."""
    if encoder == "binary" and (density is not None or center != "mean"):
        raise ConfigError("encoder=binary sends a bit of every entry; leave out density and center")
    if encoder == "optimal" and center != "mean":
        raise ConfigError("encoder=optimal finds the best center for its probabilities; leave out center")
    share = _ONE_BIT if density is None else density
    compressors: dict[str, Compressor] = {
        "fixed": FixedSize(density=share, center=center),
        "variable": Bernoulli(density=share, center=center),
        "optimal": Bernoulli(density=share, probabilities="optimal", center="optimal"),
        "binary": KLevel(levels=2),
    }
    return GradientAveraging(compressor=compressors[encoder], exchange=ROUTES[exchange], granularity=granularity)


@entry(
    name="eden",
    paper="Vargaftik et al. 2022",
    summary="rotated gradients in the best codebook for Gaussian numbers, of any number of bits an entry",
    differs_from_paper="two rotations, without which vectors of few large entries are biased; blocks of powers of two "
    "in place of padding; a fixed share of entries has the larger codebook where bits are no whole number",
)
def eden(bits: float = 1.0, granularity: Granularity = Whole(), exchange: RobustRoute = "gather") -> Method:
    """One scale a block, which makes the mean right."""
    return GradientAveraging(compressor=EDEN(bits=bits), exchange=ROUTES[exchange], granularity=granularity)


@entry(
    name="drive",
    paper="Vargaftik et al. 2021",
    summary="signs of rotated gradients and one scale a block: one bit an entry",
    differs_from_paper="two rotations unless rotations=one, the paper's, which is biased on vectors of few large "
    "entries; blocks of powers of two in place of padding",
)
def drive(
    rotations: Literal["two", "one"] = "two", granularity: Granularity = Whole(), exchange: RobustRoute = "gather"
) -> Method:
    """EDEN of one bit."""
    compressor = DRIVE(rounds=2 if rotations == "two" else 1)
    return GradientAveraging(compressor=compressor, exchange=ROUTES[exchange], granularity=granularity)


@entry(
    name="natural",
    paper="Horvath et al. 2019",
    summary="gradients rounded at random to powers of two, or to a few of them below the norm",
    differs_from_paper="exponents count from the largest entry down, so that sign, zero and 127 powers are one byte",
)
def natural(levels: int | None = None, granularity: Granularity = Whole(), exchange: RobustRoute = "gather") -> Method:
    """Natural compression, or natural dithering with so many levels of the l2 norm."""
    compressor: Compressor = NaturalCompression() if levels is None else NaturalDithering(levels=levels)
    return GradientAveraging(compressor=compressor, exchange=ROUTES[exchange], granularity=granularity)


ROWS: tuple[CatalogEntry, ...] = (suresh, konecny_richtarik, eden, drive, natural)
