"""The answers as a page of Markdown, and as lines for a terminal."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from thinwire.evidence.answers import Answer
from thinwire.evidence.study import Study
from thinwire.files import StrPath

_WORDS = {"holds": "hold", "refuted": "refuted", "undecided": "undecided", "measured": "measured", "missing": "missing"}
_SIZES = {"quick": "at reduced size", "full": "at full size"}
_NOTE = (
    "*holds*, *refuted*: what was expected came out, or the contrary, beyond the 95 % intervals where there are any. "
    "*undecided*: the intervals overlap, or a target was missed. *measured*: a question that asks for figures has "
    "them. ± is half of a 95 % interval by Student's t over seeds. Bytes are those of encoded messages; seconds of "
    "training are simulated, with compression charged as it was measured on the machine. *never*: a run missed the "
    "target."
)


def summary(answers: Sequence[Answer]) -> str:
    """How many questions are answered, and how.

    Example:
        >>> summary([])
        '0 of 0 questions answered'
    """
    counts = Counter(answer.verdict for answer in answers)
    told = len(answers) - counts["missing"]
    parts = [f"{counts[verdict]} {word}" for verdict, word in _WORDS.items() if counts[verdict]]
    return f"{told} of {len(answers)} questions answered" + (f": {', '.join(parts)}" if parts else "")


def lines(answer: Answer) -> list[str]:
    """An answer for a terminal."""
    demand = answer.demand
    return [
        f"{demand.number:>2} {answer.verdict}: {demand.question}",
        f"   expected: {demand.expected}",
        f"   found: {answer.found}",
    ]


def figure_name(page: StrPath, answer: Answer) -> str:
    """The file of a figure, beside its page.

    Args:
        page: the file of Markdown.
        answer: that the figure belongs to.
    """
    return f"{Path(page).stem}-{answer.demand.number}.svg"


def markdown(
    answers: Sequence[Answer], studies: Sequence[Study], *, command: str, made_by: str, page: StrPath = "evidence.md"
) -> str:
    """The page: the answers in a table, then each with its figures and commands.

    Args:
        answers: of one size.
        studies: those whose results were read.
        command: that wrote it.
        made_by: versions and machine.
        page: its file, after which figures are named.
    """
    size = answers[0].size if answers else "quick"
    rows = [
        f"| [{each.demand.number}](#{each.demand.number}) | {_cell(each.demand.question)} | {each.verdict} |"
        for each in answers
    ]
    sections = [_section(each, figure_name(page, each)) for each in answers]
    used = [f"- `{study.name}`: {study.about}." for study in studies]
    return "\n".join(
        [
            "# Evidence",
            "",
            f"Questions that reviewers of this literature asked, each answered by commands, {_SIZES[size]}: "
            f"{summary(answers)}. {made_by}",
            "",
            "```",
            f"{command}",
            "thinwire reproduce 39 40          # some of them; what is done is not run again",
            "thinwire reproduce --full         # at full size, which takes hours",
            "thinwire reproduce --list         # what is asked, and by which commands it is answered",
            "```",
            "",
            "Every command is one that you can run by itself, with options of your own. Results lie in "
            "`runs/reproduce`: `thinwire report FOLDER` shows those of a study again.",
            "",
            _NOTE,
            "",
            "| | question | verdict |",
            "|---|---|---|",
            *rows,
            "",
            "\n\n".join(sections),
            "",
            "## The studies",
            "",
            *used,
            "",
        ]
    )


def _section(answer: Answer, figure: str) -> str:
    demand = answer.demand
    commands = "\n".join(answer.commands)
    return "\n".join(
        [
            f"## {demand.number}",
            "",
            f"**{demand.question}** Asked by {demand.source}.",
            "",
            f"- Expected: {demand.expected}.",
            f"- Found: {answer.found}.",
            f"- Verdict: **{answer.verdict}**.",
            "",
            *((f"![{_cell(demand.question)}]({figure})", "") if answer.figure else ()),
            "```",
            commands,
            "```",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
