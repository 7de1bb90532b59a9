"""Where results go: into the folder that the user named, or into the first of several numbered ones."""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from thinwire.cli.folders import Kind, holds_another, kind_of
from thinwire.cli.reporting import Exports
from thinwire.experiments.executors import Executor
from thinwire.experiments.run_folders import Holder, choose_number, folder_of, holder
from thinwire.experiments.spec import Comparison
from thinwire.files import StrPath
from thinwire.integrations.sinks import SinkKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where results go.

    Args:
        folder: of the comparison; the first of several numbered ones, unless the user named it.
        kind: what is to lie there.
        command: how the user started it.
        files: texts by name that are kept there too, such as the study file.
        exports: where the table goes.
        is_named: whether the user named the folder.
        log: where numbers of the final runs go besides; nowhere if empty.
    """

    folder: Path
    kind: Kind
    command: str
    files: Mapping[str, str]
    exports: Exports
    is_named: bool = True
    log: SinkKind | Literal[""] = ""

    def settled(self, comparison: Comparison, executor: Executor) -> "Destination":
        """The same with the folder that is taken; where several processes look, the main one's choice counts."""
        if self.is_named:
            return self
        look = functools.partial(holder, comparison=comparison)
        own = own_number(self.folder, self.kind, look) if executor.is_main else 0
        (number,) = executor.decide([float(own)])
        folder = folder_of(self.folder, int(number))
        if executor.is_main and folder != self.folder:
            tell_number(folder, self.folder, self.kind)
        return replace(self, folder=folder, is_named=True)


def own_number(base: StrPath, kind: Kind, look: Callable[[StrPath], Holder]) -> int:
    """As :func:`choose_number`; a folder that holds another kind is another's, whatever else would be found there."""
    return choose_number(base, lambda out: "another" if holds_another(out, kind) else look(out))


def tell_number(folder: Path, base: Path, kind: Kind) -> None:
    """Say which folder was taken and why, on standard error."""
    held = kind_of(base)
    reason = f"where this {kind.name} was begun"
    if held is not None:
        reason = f"since {base} holds {'another' if held is kind else 'a'} {held.name}"
    print(f"results go to {folder}, {reason}", file=sys.stderr, flush=True)
