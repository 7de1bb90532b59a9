"""What rows of the catalog are put together from."""

from typing import Literal, TypeAlias

from thinwire.compressors import QSGD, Compressor, Identity, RandK, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import Exchange, Gather, ParameterServer, RobustGather
from thinwire.memory import ErrorFeedback, Memory, NoMemory
from thinwire.methods.late import Late
from thinwire.methods.options import Fraction
from thinwire.methods.updates import Outer

Route: TypeAlias = Literal["gather", "server"]
RobustRoute: TypeAlias = Literal["gather", "server", "median", "trimmed"]
"""Of messages of all entries, which can be compared entry by entry."""
Overlap: TypeAlias = Literal["none", "late", "eager"]
"""Of an exchange with all local steps up to the next one."""
Remember: TypeAlias = Literal["error-feedback", "none"]
ROUTES: dict[str, Exchange] = {
    "gather": Gather(),
    "server": ParameterServer(),
    "median": RobustGather("median"),
    "trimmed": RobustGather("trimmed"),
}
NO_MOMENTUM, NO_MIX = Fraction(0.0), Fraction(0.0)
MEMORIES: dict[str, Memory] = {"error-feedback": ErrorFeedback(), "none": NoMemory()}


def quantizer(values: str, levels: int | None, norm: Literal["l2", "max"], scaled: bool) -> Compressor:
    """What becomes of kept values: levels, 15 unless something is said, or signs.

    Raises:
        ConfigError: levels of signs.
    """
    if values == "signs" and levels is not None:
        raise ConfigError(f"levels={levels} has no effect with values=signs; leave one of them out")
    return Sign() if values == "signs" else QSGD(levels=15 if levels is None else levels, norm=norm, scaled=scaled)


def sparsifier(select: str, density: float | None, k: float | None, values: Compressor) -> Compressor:
    """Top-k or random-k; 1 % unless something is said."""
    density = 0.01 if density is None and k is None else density
    kind = TopK if select == "top" else RandK
    return kind(density=density, k=k, values=values)


def difference(
    select: str, density: float | None, k: float | None, values: str, levels: int | None
) -> Compressor:  # fmt: skip
    """What is sent of a difference to what is known: chosen entries, or all, exact or as signs or scaled levels.

    Raises:
        ConfigError: levels of signs, or a number of entries where all are sent.
    """
    if levels is not None and values == "signs":
        raise ConfigError(f"levels={levels} has no effect with values=signs; leave one of them out")
    of_values: Compressor = Sign() if values == "signs" else Identity()
    if levels is not None:
        of_values = QSGD(levels=levels, scaled=True)
    if select != "all":
        return sparsifier(select, density, k, of_values)
    if density is not None or k is not None:
        raise ConfigError("density and k have no effect with select=all; leave them out")
    return of_values


def unbiased(
    density: float | None, k: int | None, levels: int | None, norm: Literal["l2", "max"] = "max"
) -> Compressor:  # fmt: skip
    """Random-k times d/k where a number of entries is given, of rounded values if levels are; else levels of all.

    Raises:
        ConfigError: a norm of what is not rounded.
    """
    is_few = density is not None or k is not None
    if is_few and levels is None:
        if norm != "max":
            raise ConfigError(f"norm={norm} has no effect on values that are not rounded; give levels, or leave it out")
        return RandK(density=density, k=k, unbiased=True)
    rounding = QSGD(levels=1 if levels is None else levels, norm=norm)
    return RandK(density=density, k=k, values=rounding, unbiased=True) if is_few else rounding


def outer(lr: float, momentum: float, nesterov: bool, mix: float = 0.0, overlap: Overlap = "none") -> Outer | Late:
    """The step that a mean makes, or the one before it; without momentum there is none to look ahead with.

    Raises:
        ConfigError: a mix with a mean of the period before.
    """
    if overlap != "none":
        if mix:
            raise ConfigError(f"mix={mix} has no effect with overlap={overlap}, which loses nothing; leave it out")
        return Late(lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0.0, eager=overlap == "eager")
    return Outer(lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0.0, mix=mix)
