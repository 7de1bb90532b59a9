"""What a worker has told the others of what it trains, and what it has to tell."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.methods import GradientAveraging, Method
from thinwire.staging import Verdict
from thinwire.steps import Steps, tell
from thinwire.worker.exchanged import Exchanged
from thinwire.worker.news import Beginning, Conclusion, News, check_beginnings, conclude, plain_text
from thinwire.worker.parameters import local_part, named_parameters
from thinwire.worker.refusals import find_nonfinite
from thinwire.worker.server import needs_server
from thinwire.worker.trained import MOST_CHANGES, Trained, checksum


@dataclass(slots=True, eq=False)
class Agreement:
    """Keeps workers in agreement on what they train and on the values that they have in common.

    Args:
        method: what they exchange.
        trained: what this one trains.
        exchanged: what it exchanges, which follows from what all have concluded.
    """

    method: Method
    trained: Trained
    exchanged: Exchanged
    has_begun: bool = field(init=False)
    """Whether it is known that all workers began alike."""
    notices_writes: bool = field(init=False, default=True)
    """Whether what is written to parameters between two steps is told; if not, it counts as this worker's work."""
    used: list[str] = field(init=False)
    """Which parameters had a gradient, as told last."""
    is_idle: bool = field(init=False, default=False)
    """Whether no worker has a gradient, so that nothing is remembered of an exchange."""
    leaves_at: int | None = field(init=False, default=None)
    """After how many exchanges parameters leave that were frozen while not at the common point."""
    _told: dict[str, str] = field(init=False)
    _values_at_start: int | None = field(init=False, default=None)
    _written: dict[str, Tensor] = field(init=False, default_factory=dict)
    _is_sure: bool = field(init=False, default=False)
    _num_writes: int = field(init=False, default=0)
    _overtaken: bool = field(init=False, default=False)
    """Whether something was written while the result of an exchange waited to be applied."""

    def __post_init__(self) -> None:
        self.has_begun = needs_server(self.method)
        self.used = list(self.trained.named)
        self._told = _descriptions(self.trained.named)
        self.trained.note_values()

    @property
    def can_tell(self) -> bool:
        """Whether what is not finite on one worker is so on all, which makes all tell."""
        return self.method.exchange.workers_agree and not needs_server(self.method)

    def look(self) -> None:
        """Notice what the script has done since the last step."""
        self.trained.look()
        if not self.has_begun and self._values_at_start is None:
            self._values_at_start = checksum(self.exchanged.shared())
        written = self.trained.written()
        if not written or not self.notices_writes or self._num_writes > MOST_CHANGES:
            return
        values = {name: local_part(self.trained.named[name].detach()) for name in written}
        if self.exchanged.stands:
            shared = self.exchanged.shared()
            values = {name: value for name, value in values.items() if not is_equal(shared.get(name), value)}
            self._is_sure |= bool(values)
        if values:
            self._num_writes += 1
            self._written |= {name: value.clone() for name, value in values.items()}
            self._overtaken |= self.exchanged.has_waits

    def begin(self, seed: int, size: int) -> Steps[bool]:
        """Compare, before the first exchange, what all workers must have in common; whether they have just done so.

        Raises:
            ConfigError: on all workers, if they differ.
        """
        if self.has_begun:
            return False
        layout = self.exchanged.layout
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
        self, has_news: bool, finite: bool | Verdict, used: Sequence[str], num_exchanges: int
    ) -> Steps[Conclusion]:
        """Say why the exchange cannot count, hear what all conclude, and follow it.

        Args:
            has_news: whether that is because this worker has news.
            finite: whether its vector was.
            used: what has a gradient.
            num_exchanges: of this worker so far.

        Raises:
            ConfigError: on all workers, if they cannot go on together.
        """
        exchanged, common, named = self.exchanged.parameters(), self.exchanged.shared(), self.trained.named
        first_nonfinite = "" if finite or has_news else find_nonfinite(self.method, exchanged)
        if not self.can_tell:
            return Conclusion(first_nonfinite, [], [], [], [], False)
        left = [name for name in exchanged if name not in named]
        own = News(
            has_news=has_news,
            first_nonfinite=first_nonfinite,
            trained=_descriptions(named),
            used=used,
            begins=_checksums(self._joining()),
            written=_checksums(self._written),
            is_sure=self._is_sure,
            adrift=[name for name in left if not is_equal(common[name], local_part(exchanged[name].detach()))],
            point=checksum(common) if isinstance(self.method, GradientAveraging) else 0,
        )
        concluded = conclude((yield from tell(own.to_text())))
        if concluded.is_new:
            self._follow(concluded, used, num_exchanges)
        return concluded

    def _follow(self, concluded: Conclusion, used: Sequence[str], num_exchanges: int) -> None:
        """Exchange what all have concluded that they train."""
        exchanged = self.exchanged
        exchanged.end_waits()
        self.leaves_at = num_exchanges + len(exchanged.channels) if concluded.adrift else None
        self.is_idle = not concluded.used
        names = {*concluded.used, *concluded.adrift} or {*exchanged.layout.names}
        begins = self._joining()
        if begins or self.trained.replaced or names != {*exchanged.layout.names}:
            self._regroup([name for name in named_parameters(self.trained.model) if name in names], begins)
        exchanged.begin_at(self._settle(concluded, used), overwrites=self._overtaken)
        self._overtaken = False

    def let_go(self, num_exchanges: int) -> None:
        """What was frozen while not at the common point is there once every fragment was exchanged, and leaves."""
        if self.leaves_at is not None and num_exchanges >= self.leaves_at:
            self.leaves_at = None
            self.exchanged.end_waits()
            self._regroup(list(self.trained.named), {})

    def _regroup(self, names: Sequence[str], begins: Mapping[str, Tensor]) -> None:
        known = {**self.exchanged.parameters(), **self.trained.named}
        self.exchanged.regroup({name: known[name] for name in names}, begins, self.trained.replaced)

    def _joining(self) -> dict[str, Tensor]:
        """The values of parameters that join, before their first step; but for those whose common values are known."""
        trained, known = self.trained, self.exchanged.known
        return {name: value for name, value in trained.begins.items() if name not in known or name in trained.replaced}

    def tensors(self) -> dict[str, Tensor]:
        """What was noticed and could not be told yet, by name, for the state."""
        begins = {f"noticed.begins.{name}": value for name, value in self.trained.begins.items()}
        return begins | {f"noticed.written.{name}": value for name, value in self._written.items()}

    def _settle(self, concluded: Conclusion, used: Sequence[str]) -> dict[str, Tensor]:
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
