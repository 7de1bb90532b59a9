"""What a folder holds, told by what lies in it: every command that fills one writes a kind of its own."""

from dataclasses import dataclass
from pathlib import Path

from thinwire import pareto
from thinwire.errors import ConfigError
from thinwire.files import StrPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What one command writes.

    Args:
        name: what lies in the folder, as people say it.
        command: that writes it.
        signs: patterns of files of which one lies in every such folder, and in no other that comes after it in
            :data:`KINDS`.
        suffix: behind the task's name in the folder that is taken if the user names none.
    """

    name: str
    command: str
    signs: tuple[str, ...]
    suffix: str = ""

    def lies_in(self, folder: StrPath) -> bool:
        """Whether a sign of it is there."""
        return any(any(Path(folder).glob(sign)) for sign in self.signs)


FAMILY = Kind(name="family of configurations", command="pareto", signs=(pareto.FILE,), suffix="-pareto")
COMPARISON = Kind(name="comparison", command="compare", signs=("comparison.json",))
SPEEDUP = Kind(name="speed-up", command="speedup", signs=("workers-*/comparison.json",), suffix="-speedup")
REPRODUCTION = Kind(
    name="reproduction of studies", command="reproduce", signs=("quick/*/*/output.txt", "full/*/*/output.txt")
)
KINDS = (FAMILY, COMPARISON, SPEEDUP, REPRODUCTION)
"""The first of which a sign is there counts: a family is a comparison too."""


def kind_of(folder: StrPath) -> Kind | None:
    """What a folder holds; None if it is nothing that a command here wrote."""
    return next((kind for kind in KINDS if kind.lies_in(folder)), None)


def holds_another(folder: StrPath, kind: Kind) -> bool:
    """Whether a folder holds something, and that of another kind."""
    held = kind_of(folder)
    return held is not None and held is not kind


def refuse_another(folder: StrPath, kind: Kind) -> None:
    """Refuse a folder in which results of another kind would be overwritten, or mixed with these.

    Args:
        folder: what ``--out`` names.
        kind: what is to be written there.

    Raises:
        ConfigError: it holds another kind.
    """
    held = kind_of(folder)
    if held is not None and held is not kind:
        raise ConfigError(
            f"--out {folder} holds a {held.name}, which thinwire {held.command} wrote, and thinwire {kind.command} "
            f"writes a {kind.name}; give another --out, or delete that folder"
        )
