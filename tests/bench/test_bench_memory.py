"""What a step takes for itself, beyond the residual and the input."""

import pytest

from thinwire.bench import Input, Plan, Row, measure

NUMEL = 16_000_000


class Kept:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def announce(self, what: str) -> None:
        pass

    def note(self, data: Input) -> None:
        pass

    def row(self, row: Row) -> None:
        self.rows.append(row)


@pytest.mark.parametrize("step", ["ef-topk-sign", "ef-sign"])
def test_a_step_takes_at_most_a_quarter_of_a_vector_with_its_message(step: str) -> None:
    kept = Kept()
    measure(Plan(numels=(NUMEL,), steps=(step,), repeats=1), kept)
    assert kept.rows
    for row in kept.rows:
        if row.extra_bytes is None:
            pytest.skip("the system does not tell how much memory is taken")
        assert row.extra_bytes <= 0.25 * 4 * NUMEL, (row.variant, row.density, row.threads)
