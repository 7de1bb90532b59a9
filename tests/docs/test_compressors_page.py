from dataclasses import dataclass

import pytest
from write_compressors import LABELS, PAGE, Entry, entries, entry, page


@pytest.mark.parametrize("one", entries(), ids=lambda one: one.name)
def test_every_compressor_says_what_it_is(one: Entry) -> None:
    assert "``" in one.equation, "the docstring begins with an equation"
    missing = [label for label in LABELS if not one.labels.get(label)]
    assert not missing, f"the docstring of {one.name} has no line that begins with {', '.join(missing)}"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: python docs/write_compressors.py"


def test_labels_may_run_on_and_end_at_a_blank_line() -> None:
    @dataclass(frozen=True)
    class Toy:
        """``C(x) = x``.

        Some text.

        Constant: omega = 0,
            for every x.
        Bits: 32 d.

        Args:
            none: none.
        """

    read = entry(Toy)
    assert read.equation == "``C(x) = x``."
    assert read.text == "Some text."
    assert read.labels == {"Constant": "omega = 0, for every x.", "Bits": "32 d."}
