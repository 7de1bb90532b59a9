"""What a worker has told the others of what it trains, and what it has to tell."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import GradientAveraging, Method
from thinwire.steps import Steps, tell
from thinwire.worker.news import Beginning, Conclusion, News, check_beginnings, conclude, plain_text
from thinwire.worker.parameters import local_part
from thinwire.worker.server import needs_server
from thinwire.worker.trained import MOST_CHANGES, Trained, checksum


@dataclass(slots=True, eq=False)
class Agreement:
    """Keeps workers in agreement on what they train and on the values that they have in common.

    Args:
        method: what they exchange.
        trained: what this one trains.
    """

    method: Method
    trained: Trained
    has_begun: bool = field(init=False)
    """Whether it is known that all workers began alike."""
    notices_writes: bool = field(init=False, default=True)
    """Whether what is written to parameters between two steps is told; if not, it counts as this worker's work."""
    used: list[str] = field(init=False)
    """Which parameters had a gradient, as told last."""
    _told: dict[str, str] = field(init=False)
    _values_at_start: int | None = field(init=False, default=None)
    _written: dict[str, Tensor] = field(init=False, default_factory=dict)
    _is_sure: bool = field(init=False, default=False)
    _num_writes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.has_begun = needs_server(self.method)
        self.used = list(self.trained.named)
        self._told = _descriptions(self.trained.named)
        self.trained.note_values()

    @property
    def can_tell(self) -> bool:
        """Whether what is not finite on one worker is so on all, which makes all tell."""
        return self.method.exchange.workers_agree and not needs_server(self.method)

    def look(self, common: Callable[[], Mapping[str, Tensor]], stands: bool) -> bool:
        """Notice what the script has done since the last step; whether it has written to parameters.

        Args:
            common: gives the parameters that all workers have in common.
            stands: whether this worker's own were equal to them after the last step.
        """
        self.trained.look()
        if not self.has_begun and self._values_at_start is None:
            self._values_at_start = checksum(common())
        written = self.trained.written()
        if not written or not self.notices_writes or self._num_writes > MOST_CHANGES:
            return False
        values = {name: local_part(self.trained.named[name].detach()) for name in written}
        if stands:
            shared = common()
            values = {name: value for name, value in values.items() if not is_equal(shared.get(name), value)}
            self._is_sure |= bool(values)
        if values:
            self._num_writes += 1
            self._written |= {name: value.clone() for name, value in values.items()}
        return bool(values)

    def begin(self, layout: Layout, seed: int, size: int) -> Steps[bool]:
        """Compare, before the first exchange, what all workers must have in common; whether they have just done so.

        Raises:
            ConfigError: on all workers, if they differ.
        """
        if self.has_begun:
            return False
        shapes = zip(layout.names, layout.shapes, strict=True)
        own = Beginning(
            method=plain_text(self.method), seed=seed, size=size, values=self._values_at_start or 0,
            layout=", ".join(f"{name} {tuple(shape)}" for name, shape in shapes),
        )  # fmt: skip
        check_beginnings((yield from tell(own.to_text())))
        self.has_begun = True
        return True

    def has_news(self, used: Sequence[str]) -> bool:
        """Whether this worker trains something else than it has told, or has other values.

        Args:
            used: what has a gradient.

        Raises:
            ConfigError: it does, and the method has no way to tell all.
        """
        changed = bool(self.trained.begins) or self._told.keys() != self.trained.named.keys()
        if not self.can_tell:
            if changed:
                raise ConfigError(
                    f"parameters were frozen, unfrozen, added or replaced, which workers under {self.method} cannot "
                    "tell each other; make a new handle after such a change"
                )
            return False
        return changed or bool(self._written) or {*used} != {*self.used}

    def tell(
        self, has_news: bool, first_nonfinite: str, used: Sequence[str], exchanged: Mapping[str, Tensor],
        common: Mapping[str, Tensor], known: Collection[str],
    ) -> Steps[Conclusion]:  # fmt: skip
        """Say why the exchange cannot count, and hear what all conclude.

        Args:
            has_news: whether that is because this worker has news.
            first_nonfinite: in which parameter its vector was not finite.
            used: what has a gradient.
            exchanged: the parameters that are exchanged so far.
            common: the parameters that all workers have in common.
            known: those whose common values are known.

        Raises:
            ConfigError: on all workers, if they cannot go on together.
        """
        if not self.can_tell:
            return Conclusion(first_nonfinite, [], [], [], [], False)
        named = self.trained.named
        left = [name for name in exchanged if name not in named]
        own = News(
            has_news=has_news,
            first_nonfinite=first_nonfinite,
            trained=_descriptions(named),
            used=used,
            begins=_checksums(self.joining(known)),
            written=_checksums(self._written),
            is_sure=self._is_sure,
            adrift=[name for name in left if not is_equal(common[name], local_part(exchanged[name].detach()))],
            point=checksum(common) if isinstance(self.method, GradientAveraging) else 0,
        )
        return conclude((yield from tell(own.to_text())))

    def joining(self, known: Collection[str]) -> dict[str, Tensor]:
        """The values of parameters that join, before their first step; but for those whose common values are known."""
        trained = self.trained
        return {name: value for name, value in trained.begins.items() if name not in known or name in trained.replaced}

    def tensors(self) -> dict[str, Tensor]:
        """What was noticed and could not be told yet, by name, for the state."""
        begins = {f"noticed.begins.{name}": value for name, value in self.trained.begins.items()}
        return begins | {f"noticed.written.{name}": value for name, value in self._written.items()}

    def settle(self, concluded: Conclusion, used: Sequence[str]) -> dict[str, Tensor]:
        """All know by now; which values are the common ones from now on."""
        common = {name: self._written[name] for name in concluded.written}
        if concluded.apart and self._num_writes == 1:
            warnings.warn(
                f"parameters such as {concluded.apart[0]!r} were written to between two steps, not alike on all "
                "workers; it counts as each worker's own work and is averaged",
                stacklevel=2,
            )
        self._told, self.used = _descriptions(self.trained.named), list(used)
        self.trained.begins, self._written, self._is_sure = {}, {}, False
        self.trained.replaced.clear()
        return common

    def resume(self, used: Sequence[str], exchanged: Sequence[str], noticed: Mapping[str, Tensor]) -> None:
        """A state was loaded: all are alike, and the model may be loaded next.

        Args:
            used: as :attr:`used`.
            exchanged: the names of the parameters that are exchanged.
            noticed: of :meth:`tensors`.
        """
        begins, written = (
            {
                name.split(".", 2)[2]: each.clone()
                for name, each in noticed.items()
                if name.startswith(f"noticed.{kind}.")
            }
            for kind in ("begins", "written")
        )
        self.trained.restrict(exchanged, {})
        self.used, self._told = list(used), _descriptions(self.trained.named)
        self.trained.restrict({*exchanged, *begins}, begins)
        self._written, self._is_sure, self.has_begun = written, False, True
        self.trained.forget_values()


def is_equal(one: Tensor | None, other: Tensor) -> bool:
    """Whether the values are the same in the dtype of ``other``."""
    return one is not None and torch.equal(one.to(other.dtype), other)


def _checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: checksum({name: tensor}) for name, tensor in tensors.items()}


def _descriptions(named: Mapping[str, Tensor]) -> dict[str, str]:
    """Shapes and dtypes by name."""
    return {
        name: f"{tuple(local_part(param).shape)} {str(param.dtype).removeprefix('torch.')}"
        for name, param in named.items()
    }
