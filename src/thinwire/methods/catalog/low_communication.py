"""Local steps of tens to hundreds between exchanges, for slow links: what came after DiLoCo."""

from thinwire.compressors import Apart, Bins, Compressor, SharedSeedRandK, TopK
from thinwire.exchanges import AllReduce, Gather, PowerIteration
from thinwire.layout import Granularity, PerTensor, Whole
from thinwire.memory import ErrorFeedback
from thinwire.methods.base import Method, ModelAveraging
from thinwire.methods.catalog.parts import NO_MIX, Overlap, outer
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.options import Density, Fraction
from thinwire.methods.partial import Partial
from thinwire.methods.schedules import Every
from thinwire.methods.states import SyncedState

_MULOCO_DECAY, _MULOCO_MOMENTUM, _OUTER_MOMENTUM = Fraction(0.9), Fraction(0.8), Fraction(0.9)

_SPARTA, _TENTH, _FIFTH = Density(0.005), Density(0.1), Density(0.2)
_SHORT = 16
"""A tensor of fewer entries takes fewer bytes as it is than with a table of values."""


@entry(
    name="muloco",
    paper="Therien, Huang, Defazio, Rish, Belilovsky 2025",
    summary="f32 displacements of H local steps of Muon (--optimizers muon, in scripts thinwire.optimizers.Muon), to "
    "outer Nesterov SGD; bits=2 sends 2 bits an entry, density=10% the largest entries, with error feedback",
    differs_from_paper="the optimizer of local steps is yours: with AdamW this is diloco; defaults are those of the "
    "published code, which has lr=0.8,momentum=0.9 where it compresses and rounds the mean once more; the outer "
    "learning rate enters after the memory; tensors of fewer than 16 entries are sent as they are",
)
def muloco(
    every: int = 30, lr: float = 0.9, momentum: Fraction = _MULOCO_MOMENTUM, nesterov: bool = True,
    bits: int | None = None, density: Density | None = None, decay: Fraction | None = None, delay: int = 0,
    mix: Fraction = NO_MIX,
) -> Method:  # fmt: skip
    """DiLoCo with Muon inside."""
    schedule, update = Every(every), outer(lr, momentum, nesterov, mix)
    if bits is None and density is None and decay is None:
        return ModelAveraging(schedule=schedule, exchange=AllReduce(), update=update, delay=delay)
    return ModelAveraging(
        schedule=schedule, memory=ErrorFeedback(decay=_MULOCO_DECAY if decay is None else decay),
        compressor=_few_bits(bits, density), exchange=Gather(), granularity=PerTensor(), update=update, delay=delay,
    )  # fmt: skip


def _few_bits(bits: int | None, density: Density | None) -> Compressor:
    """The largest entries of each tensor, or all, in a table of values for each tensor; 2 bits unless one is said."""
    if density is None:
        return Apart(Bins(2 if bits is None else bits), exact_below=_SHORT)
    return TopK(density=density) if bits is None else Apart(TopK(density=density, values=Bins(bits)), _SHORT)


@entry(
    name="des-loc",
    paper="Iacob et al. 2025",
    summary="f32 models every K_x local steps, and each moment of the local Adam at a period of its own, 3 K_x and "
    "6 K_x unless said; 0 leaves one with its worker",
    differs_from_paper="moments are averaged after the step, with the parameters, where the paper averages those of "
    "the step before; the first moment may be the momentum of SGD or Muon: variance=0 for these",
)
def des_loc(every: int = 256, momentum: int | None = None, variance: int | None = None) -> Method:
    """Moments averaged the more seldom the more slowly they change; equal periods are local Adam."""
    periods = {
        ("exp_avg", "momentum_buffer"): 3 * every if momentum is None else momentum,
        ("exp_avg_sq",): 6 * every if variance is None else variance,
    }
    states = tuple(SyncedState(names=names, every=period) for names, period in periods.items() if period)
    return ModelAveraging(schedule=Every(every), states=states)


@entry(
    name="sparta",
    paper="Beton, Baioumy, van der Ouderaa, Reed, Howes, Cheema, Vrabie 2025",
    summary="f32 values of a random share of the parameters, the same on all workers, averaged after every step; the "
    "others stay each worker's own",
    differs_from_paper="entries are drawn without replacement, a fixed number of them, from a key that all share; the "
    "model that is evaluated has each entry as it was averaged last, where the paper averages all at the end",
)
def sparta(density: Density = _SPARTA, every: int = 1, granularity: Granularity = Whole()) -> Method:
    """A few parameters at every step."""
    return ModelAveraging(
        schedule=Every(every), compressor=SharedSeedRandK(density=density, shared=True), granularity=granularity,
        update=Partial(),
    )  # fmt: skip


@entry(
    name="cocktailsgd",
    paper="Wang, Lu, Yuan, Chen, Liang, De Sa, Re, Zhang 2023",
    summary="of a random tenth of the entries the largest fifth, in 4 bits, with error feedback",
    differs_from_paper="messages are gathered and their mean is exact, where the paper's sharded servers compress it "
    "again; 4-bit codes are of bins around the mean of the kept values; each worker draws its own tenth, shared=yes "
    "the same; `every` local steps come between exchanges, of any optimizer",
)
def cocktailsgd(
    random: Density = _TENTH, density: Density = _FIFTH, bits: int = 4, every: int = 1, shared: bool = False,
    granularity: Granularity = Whole(),
) -> Method:  # fmt: skip
    """Three ways to send less, one in another."""
    largest = TopK(density=density, values=Bins(bits))
    return ModelAveraging(
        schedule=Every(every), memory=ErrorFeedback(), exchange=Gather(), granularity=granularity,
        compressor=SharedSeedRandK(density=random, values=largest, shared=shared),
    )  # fmt: skip


@entry(
    name="dilocox",
    paper="Qi, Zhu, Li, Wu, Wu, He, Gao, Zeng, Heinrich 2025",
    summary="two factors of low rank of each matrix in 4 bits, with error feedback, to outer Nesterov SGD one period "
    "later, so that an exchange may last as long as the H local steps",
    differs_from_paper="rank and H stay what they are, where the paper lowers the rank and with it H as outer "
    "gradients lose rank; 4-bit codes are of bins around the mean of each factor, which are gathered; matrices that "
    "factors would make no smaller, and vectors, have 4 bits an entry, or, below 16 entries, 32",
)
def dilocox(
    every: int = 125, rank: int = 64, bits: int = 4, lr: float = 0.7, momentum: Fraction = _OUTER_MOMENTUM,
    nesterov: bool = True, overlap: Overlap = "late",
) -> Method:  # fmt: skip
    """Low rank, few bits, and a period's time to send them."""
    return ModelAveraging(
        schedule=Every(every), memory=ErrorFeedback(), update=outer(lr, momentum, nesterov, overlap=overlap),
        exchange=PowerIteration(rank=rank, factors=Apart(Bins(bits), _SHORT)),
    )  # fmt: skip


ROWS: tuple[CatalogEntry, ...] = (muloco, des_loc, sparta, cocktailsgd, dilocox)
