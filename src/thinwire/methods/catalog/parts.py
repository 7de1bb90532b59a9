"""What rows of the catalog are put together from."""

from typing import Literal, TypeAlias

from thinwire.compressors import Compressor, RandK, TopK
from thinwire.exchanges import Exchange, Gather, ParameterServer
from thinwire.memory import ErrorFeedback, Memory, NoMemory

Route: TypeAlias = Literal["gather", "server"]
Remember: TypeAlias = Literal["error-feedback", "none"]
ROUTES: dict[str, Exchange] = {"gather": Gather(), "server": ParameterServer()}
MEMORIES: dict[str, Memory] = {"error-feedback": ErrorFeedback(), "none": NoMemory()}


def sparsifier(select: str, density: float | None, k: float | None, values: Compressor) -> Compressor:
    """Top-k or random-k; 1 % unless something is said."""
    density = 0.01 if density is None and k is None else density
    kind = TopK if select == "top" else RandK
    return kind(density=density, k=k, values=values)
