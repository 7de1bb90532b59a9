"""The questions and their studies agree: each has its parts at both sizes, and every command can be run as written."""

import pytest
import typer.main

from thinwire.cli.application import app
from thinwire.errors import ConfigError
from thinwire.evidence import DEMANDS, SIZES, Part, Size, Study, demands_of, parts_for, read_studies
from thinwire.experiments.tasks import task_names
from thinwire.methods import parse_method

STUDIES = read_studies()
PARTS = [part for study in STUDIES.values() for part in study.parts]


def test_there_are_44_questions() -> None:
    assert [demand.number for demand in DEMANDS] == list(range(1, 45))


@pytest.mark.parametrize("size", SIZES)
def test_every_part_that_a_question_names_is_there_and_none_is_idle(size: Size) -> None:
    used = {part.key for part in parts_for(DEMANDS, STUDIES, size)}
    there = {part.key for part in PARTS if part.size == "quick"}
    assert used == there


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.size}/{part.key}")
def test_every_command_is_read_by_its_parser(part: Part) -> None:
    commands = vars(typer.main.get_command(app))["commands"]
    name, *arguments = part.arguments
    context = commands[name].make_context(name, list(arguments))
    for method in context.params.get("methods") or ():
        parse_method(method)
    task = context.params.get("task")
    assert not task or name == "hogwild" or task in task_names()


def test_what_measures_time_comes_last() -> None:
    order = [part.alone for part in parts_for(DEMANDS, STUDIES, "quick")]
    assert any(order)
    assert order == sorted(order)


def test_an_unknown_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"there is no question 45; they are numbered 1 to 44"):
        demands_of((45,))


def test_a_part_that_no_study_has_is_refused() -> None:
    broken = {name: Study(name=name, about="", parts=()) for name in STUDIES}
    with pytest.raises(ConfigError, match="question 1 is answered by family/digits, which no study has"):
        parts_for(demands_of((1,)), broken, "quick")
