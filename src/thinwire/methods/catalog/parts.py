"""What rows of the catalog are put together from."""

from typing import Literal, TypeAlias

from thinwire.compressors import QSGD, Compressor, RandK, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import Exchange, Gather, ParameterServer
from thinwire.memory import ErrorFeedback, Memory, NoMemory

Route: TypeAlias = Literal["gather", "server"]
Remember: TypeAlias = Literal["error-feedback", "none"]
ROUTES: dict[str, Exchange] = {"gather": Gather(), "server": ParameterServer()}
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
