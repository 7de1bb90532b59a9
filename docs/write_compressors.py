"""``docs/compressors.md`` from the docstrings of the registered compressors.

Run ``python docs/write_compressors.py`` to write the page again.
"""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import thinwire.methods  # noqa: F401  registers everything that ships
from thinwire.frontier.configurations import compressor_classes

PAGE = Path(__file__).with_name("compressors.md")
LABELS = ("Constant", "Bits", "Paper", "Use it when")
_SECTIONS = ("Args:", "Raises:", "Example:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the docstring of a compressor says.

    Args:
        name: of the class.
        equation: its first paragraph, which may be a line.
        text: the paragraphs from there to the first label.
        labels: what stands behind each of ``LABELS``; a label that is missing is no key.
        module: where it is defined.
    """

    name: str
    equation: str
    text: str
    labels: dict[str, str]
    module: str


def entry(cls: type) -> Entry:
    """Read the docstring of a compressor's class.

    Example:
        >>> from thinwire.compressors import Sign
        >>> entry(Sign).name
        'Sign'
    """
    lines = (inspect.getdoc(cls) or "").splitlines()
    end = next((number for number, line in enumerate(lines) if line in _SECTIONS), len(lines))
    labels: dict[str, list[str]] = {}
    text: list[str] = []
    into = text
    for line in lines[:end]:
        label = next((label for label in LABELS if line.startswith(f"{label}: ")), None)
        if label is not None:
            into = labels.setdefault(label, [])
            into.append(line.removeprefix(f"{label}: "))
        elif not line.strip() and into is not text:
            into = text
            text.append("")
        else:
            into.append(line)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", "\n".join(text)) if part.strip()]
    return Entry(
        name=cls.__name__,
        equation=paragraphs[0] if paragraphs else "",
        text="\n\n".join(paragraphs[1:]),
        labels={label: " ".join(" ".join(parts).split()) for label, parts in labels.items()},
        module=cls.__module__,
    )


def entries() -> list[Entry]:
    """All that ship, in alphabetical order; what a user's own module registered is not among them."""
    shipped = (cls for cls in compressor_classes() if cls.__module__.startswith("thinwire.compressors."))
    return sorted((entry(cls) for cls in shipped), key=lambda one: one.name.lower())


def page() -> str:
    """The page as text."""
    shown = entries()
    index = "\n".join(
        f"| [{one.name}](#{one.name.lower()}) | {_cell(one.labels.get('Use it when', ''))} |" for one in shown
    )
    return (
        "# Compressors\n\n"
        "Every operator that `thinwire` has. This page is generated from their docstrings:\n"
        "`python docs/write_compressors.py` writes it again.\n\n"
        "The vector is split into segments, each compressed on its own (whole, tensors, rows or chunks). `d` is the\n"
        "length of a segment, `k` the number of kept entries. An unbiased operator has omega, the least known bound\n"
        "of its error `E||C(x) - x||^2 / ||x||^2`. A contraction has gamma: its error is at most `1 - gamma`.\n"
        "Bits are those of the message without its frame. Which operator to take for a number of bits, on which data:\n"
        "[frontier.md](frontier.md). What no line of `thinwire methods` has is for methods of your own: any\n"
        "of these goes into any product that [methods.md](methods.md) describes.\n\n"
        f"| operator | use it when |\n|---|---|\n{index}\n\n" + "\n".join(map(_section, shown))
    )


def _section(one: Entry) -> str:
    text = f"{one.text}\n\n" if one.text else ""
    lines = "".join(f"- **{label}:** {one.labels[label]}\n" for label in LABELS if label in one.labels)
    return f"## {one.name}\n\n{one.equation}\n\n{text}{lines}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
