"""``thinwire reproduce``: run the studies of questions, and say what came out."""

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from thinwire.cli.application import Refused, open_lines, say, write_line
from thinwire.cli.comparing import read_jobs
from thinwire.cli.folders import REPRODUCTION, refuse_another
from thinwire.cli.progress import Meter
from thinwire.evidence import (
    Answer,
    Demand,
    Part,
    Size,
    answer,
    demands_of,
    figure_name,
    lines,
    markdown,
    parts_for,
    read_studies,
    run_parts,
    summary,
)
from thinwire.experiments.run_folders import made_by
from thinwire.files import write_atomically


def reproduce_as_asked(
    numbers: tuple[int, ...], size: Size, listed: bool, out: Path, jobs: int | None, page: Path | None, json_file: str
) -> None:
    """Run what is not done, then print, and write, the answers.

    Args:
        numbers: of the questions; all without any.
        size: of the studies.
        listed: only print questions and commands.
        out: folder of the results.
        jobs: commands at a time; as many as there are processors if not given.
        page: file of Markdown.
        json_file: where lines go.

    Raises:
        ConfigError: an unknown question, or a folder or file that cannot be used.
        Refused: a question is not answered, since a command failed; it has been printed.
    """
    demands, studies, width = demands_of(numbers), read_studies(), read_jobs(jobs)
    parts = parts_for(demands, studies, size)
    if listed:
        _list(demands, parts)
        return
    refuse_another(out, REPRODUCTION)
    with open_lines("" if json_file == "-" else json_file, "a"):
        pass  # before long work: it can be written
    with Meter() as meter:

        def watch(done: int, total: int, last: str) -> None:
            meter.show("studies", done, total, "commands", f"studies; {last} done" if last else "")

        failures = run_parts(parts, out, width, watch)
    answers = answer(demands, studies, size, out, failures)
    with open_lines(json_file) as file:
        for each in answers:
            write_line(file, each.to_json())
    if json_file != "-":
        _print(answers)
    if page is not None:
        used = [studies[name] for name in dict.fromkeys(part.study for part in parts)]
        command = shlex.join(["thinwire", *sys.argv[1:]])
        text = markdown(answers, used, command=command, made_by=_machine(), page=page)
        for each in answers:
            if each.figure:
                write_atomically(page.with_name(figure_name(page, each)), each.figure.encode())
        write_atomically(page, text.encode())
        say(f"wrote {page}")
    if any(each.verdict == "missing" for each in answers):
        raise Refused


def _print(answers: Sequence[Answer]) -> None:
    for each in answers:
        for line in lines(each):
            say(line)
    say(summary(answers))


def _list(demands: Sequence[Demand], parts: Sequence[Part]) -> None:
    known = {part.key: part for part in parts}
    for demand in demands:
        say(f"{demand.number:>2} {demand.question}")
        say(f"   asked by {demand.source}; expected: {demand.expected}")
        for key in demand.parts:
            say(f"   {known[key].command}")


def _machine() -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made_by().items())
    return f"Made by {versions} on {platform.machine()} with {os.cpu_count()} processors."
