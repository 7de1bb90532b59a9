"""What a step takes for itself, beyond the residual and the input."""

import pytest

from thinwire.bench import Input, Plan, Row, measure

NUMEL = 8_000_000


class Kept:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def announce(self, what: str) -> None:
        pass

    def note(self, data: Input) -> None:
        pass

    def row(self, row: Row) -> None:
        self.rows.append(row)


@pytest.mark.parametrize("step", ["ef-topk-sign", "ef-sign", "ef-qsgd"])
def test_a_step_takes_a_quarter_of_a_vector_or_its_codes_and_the_message(step: str) -> None:
    kept = Kept()
    measure(Plan(numels=(NUMEL,), steps=(step,), repeats=1), kept)
    for row in kept.rows:
        if row.extra_bytes is None:
            pytest.skip("the system does not tell how much memory is taken")
        assert row.bits_per_entry
        # Levels of four bits and more take what they are sent in twice over; entropy coding counts symbols besides.
        codes = 0.0 if row.bits_per_entry < 3 else 2.5 * row.bits_per_entry / 32
        if "entropy" not in row.variant:
            assert row.extra_bytes / (4 * NUMEL) < max(0.25, codes), (row.variant, row.density, row.threads)
