"""Where the results of a comparison go."""

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from thinwire.cli.reporting import Exports
from thinwire.experiments.executors import Executor
from thinwire.experiments.run_folders import choose_number, folder_of, holder
from thinwire.experiments.spec import Comparison
from thinwire.integrations.sinks import SinkKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where results go.

    Args:
        folder: of the comparison; the first of several numbered ones, unless the user named it.
        command: how the user started it.
        files: texts by name that are kept there too, such as the study file.
        exports: where the table goes.
        is_named: whether the user named the folder.
        log: where numbers of the final runs go besides; nowhere if empty.
    """

    folder: Path
    command: str
    files: Mapping[str, str]
    exports: Exports
    is_named: bool = True
    log: SinkKind | Literal[""] = ""

    def settled(self, comparison: Comparison, executor: Executor) -> "Destination":
        """The same with the folder that is taken; where several processes look, the main one's choice counts."""
        if self.is_named:
            return self
        own = choose_number(self.folder, functools.partial(holder, comparison=comparison)) if executor.is_main else 0
        (number,) = executor.decide([float(own)])
        folder = folder_of(self.folder, int(number))
        if executor.is_main and folder != self.folder:
            tell_number(folder, self.folder)
        return replace(self, folder=folder, is_named=True)


def tell_number(folder: Path, base: Path) -> None:
    """Say which folder was taken, on standard error."""
    print(f"results go to {folder}, since {base} holds another comparison", file=sys.stderr, flush=True)
