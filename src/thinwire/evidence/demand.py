"""A question that the literature's readers asked, and what a finding says of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from thinwire.evidence.found import Found

Verdict = Literal["holds", "refuted", "undecided", "measured"]
"""Of a claim: its figures show it, show the contrary, or show neither. Of a question: its figures are there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the results say.

    Args:
        verdict: see :data:`Verdict`.
        found: the figures, in a sentence or two.
    """

    verdict: Verdict
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One of the questions.

    Args:
        number: 1 to 44.
        question: in a sentence.
        source: who asked, and of which paper.
        expected: what would have to come out; of an open question what is measured.
        parts: keys of the studies' parts whose results answer it.
        judge: reads them.
        figure: draws them, as SVG; empty where there is nothing to draw.
    """

    number: int
    question: str
    source: str
    expected: str
    parts: tuple[str, ...]
    judge: Callable[[Found], Finding]
    figure: Callable[[Found], str] | None = None


def claim(holds: bool | None, found: str) -> Finding:
    """The finding of a claim that holds, does not, or (None) is not decided by these figures."""
    return Finding("undecided" if holds is None else "holds" if holds else "refuted", found)


def measured(found: str) -> Finding:
    """The finding of a question that asks for figures."""
    return Finding("measured", found)


def every(verdicts: Sequence[bool | None]) -> bool | None:
    """True if all are, False if one is, None otherwise.

    Example:
        >>> every([True, True]), every([True, None]), every([None, False])
        (True, None, False)
    """
    return False if False in verdicts else None if None in verdicts else True
