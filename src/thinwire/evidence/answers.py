"""From the results of studies to the table of answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinwire.errors import ConfigError
from thinwire.evidence.demand import Demand
from thinwire.evidence.found import Found
from thinwire.evidence.running import is_done, part_folder
from thinwire.evidence.study import Part, Size, Study
from thinwire.files import StrPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question with what was found.

    Args:
        demand: the question.
        size: of the studies.
        commands: that answer it.
        verdict: ``holds``, ``refuted``, ``undecided``, ``measured``, or ``missing`` where results are not there.
        found: the figures; of a missing one, why.
        figure: an SVG, empty without one.
    """

    demand: Demand
    size: Size
    commands: tuple[str, ...]
    verdict: str
    found: str
    figure: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a line."""
        demand = self.demand
        return {
            "number": demand.number, "question": demand.question, "source": demand.source, "size": self.size,
            "commands": list(self.commands), "expected": demand.expected, "verdict": self.verdict, "found": self.found,
        }  # fmt: skip


def parts_for(demands: Sequence[Demand], studies: Mapping[str, Study], size: Size) -> list[Part]:
    """The parts that answer the questions, each once.

    Raises:
        ConfigError: a question names a part that no study has.
    """
    known = {part.key: part for study in studies.values() for part in study.parts if part.size == size}
    wanted: dict[str, Part] = {}
    for demand in demands:
        for key in demand.parts:
            if key not in known:
                raise ConfigError(f"question {demand.number} is answered by {key}, which no study has at size {size}")
            wanted[key] = known[key]
    # Those that must be alone come last.
    return sorted(wanted.values(), key=lambda part: part.alone)


def answer(
    demands: Sequence[Demand], studies: Mapping[str, Study], size: Size, out: StrPath, failures: Mapping[str, str]
) -> list[Answer]:
    """What the results in a folder say of each question.

    Args:
        demands: the questions.
        studies: all of them.
        size: of the studies.
        out: the folder.
        failures: what went wrong with a part, by key.

    Raises:
        ConfigError: results that are there cannot be read.
    """
    answers = []
    for demand in demands:
        parts = parts_for([demand], studies, size)
        folders = {part.key: part_folder(out, part) for part in parts}
        missing, figure = [part for part in parts if not is_done(out, part)], ""
        if missing:
            verdict, found = "missing", failures.get(missing[0].key, f"{missing[0].command} has not been run")
        else:
            results = Found(folders)
            finding = demand.judge(results)
            verdict, found = finding.verdict, finding.found
            figure = "" if demand.figure is None else demand.figure(results)
        answers.append(
            Answer(
                demand=demand, size=size, commands=tuple(part.command for part in parts), verdict=verdict, found=found,
                figure=figure,
            )
        )  # fmt: skip
    return answers
