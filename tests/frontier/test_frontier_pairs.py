import math

import pytest

from thinwire.compressors import QSGD, TopK
from thinwire.errors import ConfigError
from thinwire.frontier import make_input, pairs
from thinwire.frontier.pairs import exact_num_bytes

# gamma: levels, kept entries and bits of the best pair, and what a top-k of exact values takes by the same formula.
PUBLISHED = {0.01: (63, 81, 1652, 3555), 0.05: (127, 403, 8495, 17685), 0.2: (127, 1740, 21802, 58090)}


@pytest.mark.parametrize("gamma", PUBLISHED)
def test_the_published_search_is_found_again(gamma: float) -> None:
    levels, k, num_bits, exact_bits = PUBLISHED[gamma]
    best = pairs(7850, gamma)[0]
    assert (best.levels, best.k, best.formula_bits) == (levels, k, num_bits)
    kept = math.ceil(gamma * 7850)
    assert 32 * kept + min(13 * kept, 7850) == exact_bits


@pytest.mark.parametrize("gamma", PUBLISHED)
def test_the_proven_gamma_is_that_of_the_compressor_and_k_is_the_least(gamma: float) -> None:
    for pair in pairs(7850, gamma):
        for k in (pair.k, pair.k - 1):
            values = QSGD(levels=pair.levels, scaled=True)
            assert (TopK(k=k, values=values).traits(7850).gamma >= gamma - 1e-12) == (k == pair.k)


@pytest.mark.parametrize("gamma", PUBLISHED)
def test_encoded_bytes_stay_within_the_formula_and_half_of_exact_values(gamma: float) -> None:
    data = make_input("gaussian", 7850)
    best = pairs(7850, gamma)[0]
    frame_bits = 8 * 24
    assert 8 * best.num_bytes(data.signal) <= best.formula_bits + frame_bits
    assert best.num_bytes(data.signal) < 0.6 * exact_num_bytes(data.signal, gamma)


@pytest.mark.parametrize(("numel", "gamma"), [(0, 0.1), (10, 0.0), (10, 1.5)])
def test_what_makes_no_sense_is_refused(numel: int, gamma: float) -> None:
    with pytest.raises(ConfigError):
        pairs(numel, gamma)
