"""Other compressors for the first exchanges."""

from dataclasses import dataclass

from thinwire.compressors import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError


@register
@dataclass(frozen=True, slots=True)
class WarmUp:
    """Each of ``compressors`` in turn, for ``exchanges`` exchanges; then the method's own.

    Deep Gradient Compression (Lin et al. 2018) sends 25 %, 6.25 %, 1.5625 % and 0.4 % in the first epochs.

    Raises:
        ConfigError: no compressor, or fewer than one exchange for each.

    Example:
        >>> from thinwire.compressors import Identity, TopK
        >>> [compressor_at(WarmUp((Identity(),), 2), TopK(k=1), number) for number in (1, 2)]
        [Identity(), TopK(density=None, k=1, values=Identity())]
    """

    compressors: tuple[Compressor, ...]
    exchanges: int

    def __post_init__(self) -> None:
        check_types(self)
        if not self.compressors or self.exchanges < 1:
            raise ConfigError(
                f"a warm-up of {len(self.compressors)} compressors for {self.exchanges} exchanges each was given; "
                "give at least one of each, or leave the warm-up out"
            )


def compressor_at(warm_up: WarmUp | None, compressor: Compressor, number: int) -> Compressor:
    """The compressor of exchange ``number``, counted from 0."""
    rung = number // warm_up.exchanges if warm_up else 0
    return warm_up.compressors[rung] if warm_up and rung < len(warm_up.compressors) else compressor
