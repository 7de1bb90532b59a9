"""``thinwire report``, and how a comparison or a speed-up ends; knows nothing of torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinwire import pareto, report
from thinwire.cli.application import console, open_lines, say, write_line
from thinwire.cli.folders import FAMILY, REPRODUCTION, SPEEDUP, kind_of
from thinwire.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Exports:
    """Where the table goes beside the terminal: a file, standard output in its place for ``-``, nowhere if empty.

    Raises:
        ConfigError: two of them are to go to standard output.
    """

    json: str = ""
    csv: str = ""
    latex: str = ""

    def __post_init__(self) -> None:
        if [self.json, self.csv, self.latex].count("-") > 1:
            raise ConfigError("two tables were to go to standard output; give one of them a file")

    @property
    def replaces_table(self) -> bool:
        """Whether one goes to standard output, where the terminal's table then does not."""
        return "-" in (self.json, self.csv, self.latex)

    def write(self, lines: Sequence[Mapping[str, Any]], csv: str, latex: str) -> None:
        """Write what was asked for.

        Raises:
            ConfigError: a file cannot be written.
        """
        with open_lines(self.json) as file:
            for line in lines:
                write_line(file, line)
        for name, text in ((self.csv, csv), (self.latex, latex)):
            with open_lines(name) as file:
                if file is not None:
                    print(text, end="", file=file, flush=True)

    def check(self) -> None:
        """Refuse files that cannot be written, before long work.

        Raises:
            ConfigError: there is one.
        """
        for name in (self.json, self.csv, self.latex):
            if name != "-":
                with open_lines(name, "a"):
                    pass


def show_report(folder: Path, exports: Exports, *, inline: bool = False) -> None:
    """Write the page, then print the table; or what is to go to standard output in place of it.

    Raises:
        ConfigError: the folder holds no comparison.
    """
    _refuse_file(folder)
    held = kind_of(folder)
    if held is SPEEDUP:
        show_speedup(folder, exports, inline=inline)
        return
    if held is FAMILY:
        show_pareto(folder, exports, inline=inline)
        return
    if held is REPRODUCTION:
        raise ConfigError(
            f"{folder} holds a {held.name}, each in a folder of its own: give one of a comparison, pareto or speedup "
            "among them, or see the answers again by thinwire reproduce"
        )
    data = report.load(folder)
    rows = report.summarise(data)
    # The page first: the table may be cut short by whoever reads it.
    page = folder / "report.html"
    report.write_page(data, page, inline=inline)
    exports.write([row.to_json() for row in rows], report.csv_table(rows), report.latex_table(rows))
    if exports.replaces_table:
        return
    report.print_table(rows, console)
    say(f"wrote {folder / 'results.jsonl'} and {page}")


def show_several(folders: Sequence[Path], exports: Exports, page: Path | None, *, inline: bool = False) -> None:
    """The same of several comparisons side by side.

    Args:
        folders: at least two.
        exports: where the table goes.
        page: the page; beside the first folder if not given.
        inline: whether the page is one file.

    Raises:
        ConfigError: a folder twice, or without a comparison; or another metric than that of the first.
    """
    for folder in folders:
        _refuse_file(folder)
        if kind_of(folder) is SPEEDUP:
            raise ConfigError(f"{folder} holds a speed-up; give its comparisons, such as {folder / 'workers-1'}")
    runs = report.load_several(folders)
    page = page or folders[0].parent / "side-by-side.html"
    report.write_several(runs, page, inline=inline)
    rows = report.summarise_several(runs)
    plain = [row.to_json() for row in rows]
    exports.write(plain, report.csv_lines(plain), report.latex_several(rows))
    if exports.replaces_table:
        return
    report.print_several(runs, console)
    say(f"wrote {page}")


def _refuse_file(folder: Path) -> None:
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; give the folder that thinwire compare wrote, such as {folder.parent}")


def show_pareto(folder: Path, exports: Exports, *, inline: bool = False) -> None:
    """The same of a family of configurations.

    Raises:
        ConfigError: the folder holds none.
    """
    data = pareto.load_family(folder)
    result = pareto.summarise_family(data)
    pages = folder / "pareto.html", folder / "report.html"
    pareto.write_page(data, pages[0], inline=inline)
    report.write_page(data.comparison, pages[1], inline=inline)
    plain = [point.to_json() for point in result.points]
    exports.write(result.to_json(), report.csv_lines(plain), pareto.latex_points(result.points))
    if exports.replaces_table:
        return
    pareto.print_pareto(result, console)
    say(f"wrote {pages[0]}, and each curve to {pages[1]}")


def show_speedup(folder: Path, exports: Exports, workers: Sequence[int] = (), *, inline: bool = False) -> None:
    """The same of a speed-up, by the comparisons with ``workers``, or with as many as there are.

    Raises:
        ConfigError: the folder holds no speed-up, or another table than JSON was asked for.
    """
    from thinwire import scaling  # which asks the catalog of methods, and so waits for torch

    if exports.csv or exports.latex:
        raise ConfigError(
            f"{folder} holds a speed-up, which is written as JSON only: give --json. For one of its comparisons give "
            f"{folder / 'workers-1'}"
        )
    data = scaling.load_speedup(folder, workers)
    result = scaling.summarise_speedup(data)
    page = folder / "speedup.html"
    scaling.write_page(data, page, inline=inline)
    exports.write(result.to_json(), "", "")
    if exports.replaces_table:
        return
    scaling.print_speedup(result, console)
    say(f"wrote {page}")
