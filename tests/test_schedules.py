"""How the step size moves, against what the papers say in words. (The KL weight is in test_checkpoints.py.)

    pytest tests/test_schedules.py
"""

import numpy as np
import pytest

from common.schedules import one_cycle, staircase


def test_one_cycle_climbs_linearly_to_the_peak_and_falls_along_half_a_cosine_to_zero():
    assert [one_cycle(progress, warmup=0.2) for progress in (0, 0.05, 0.1, 0.15)] == pytest.approx([0, 0.25, 0.5, 0.75])
    # a cosine's half period from 1 to 0: (1 + cos(pi / 3)) / 2 = 3/4 at a third of the way, 1/2 in the middle
    falling = [one_cycle(0.2 + 0.8 * part, warmup=0.2) for part in (0, 1 / 3, 1 / 2, 2 / 3, 1)]
    assert falling == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-12)
    assert one_cycle(0.1) == 1 and one_cycle(0.05) == pytest.approx(0.5), "the warm-up is a tenth of the steps"
    assert one_cycle(0.0, warmup=0.0) == 1 and one_cycle(0.5, warmup=0.0) == pytest.approx(0.5)


@pytest.mark.parametrize("epochs", [3280, 328, 6560])
def test_the_staircase_spends_3_to_the_i_parts_at_each_tenth_root_as_burda_et_al_did(epochs):
    """3^i epochs at 10^(-i/7) of the first step size, i = 0..7, 3280 in all; other totals in proportion."""
    parts = np.repeat(np.arange(8), [3**i for i in range(8)])                      # the stair of each of the 3280 parts
    assert len(parts) == 3280
    for epoch in range(epochs):
        for within in (0, 0.5):                                         # the first step of an epoch and its middle
            progress = (epoch + within) / epochs
            stair = parts[int((epoch + within) * 3280 // epochs)]
            assert staircase(progress) == pytest.approx(10 ** (-stair / 7), rel=1e-12), f"epoch {epoch} + {within}"


def test_the_staircase_ends_at_a_tenth():
    assert staircase(0) == 1 and staircase(1) == pytest.approx(0.1)
