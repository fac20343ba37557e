"""The three scores of disentanglement, on codes whose score is known: the factors themselves, turned, mixed, or noise.

    pytest tests/test_disentanglement.py

Letters: N images, J latents, K factors.
"""

import math

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from common.config import InputError
from common.sprites import Sprites
from paper import disentanglement
from paper.disentanglement import (
    BATCH,
    BINS,
    Codes,
    beta_vae_score,
    code_table,
    codes_of,
    factor_vae_score,
    information,
    information_gaps,
)

SIZES = (3, 5, 25, 8)               # one factor has more values than there are bins
K = len(SIZES)
VOTES = (400, 200)
CHANCE = 5 * math.sqrt(1 / K * (1 - 1 / K) / VOTES[1])                  # five standard errors of a share of 200 votes: 0.15
SCORES = {"beta-vae": beta_vae_score, "factor-vae": factor_vae_score}


def grid(scales=(1, 1, 1, 1)):
    """The factors of all images, each from -scale to scale: a perfect representation, (3000, 4)."""
    axes = [scale * np.linspace(-1, 1, size) for size, scale in zip(SIZES, scales, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, K)


def score(which, codes, seed=0, votes=VOTES):
    return SCORES[which](codes, SIZES, np.random.default_rng(seed), votes)


def mig(codes, seed=0, sizes=SIZES):
    return float(information_gaps(codes, sizes, np.random.default_rng(seed)).mean())


def noise(columns=6):
    return np.random.default_rng(1).standard_normal((math.prod(SIZES), columns))


def turned(angle=math.pi / 4):
    """The grid with the last two factors turned into each other, which can be undone: nothing is lost but the axes."""
    rotation = np.eye(K)
    rotation[2:, 2:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return grid() @ rotation


def best_gap(sizes=SIZES) -> float:
    """The MIG of the factors themselves: all of the entropy, save that 25 values in 20 bins are told to the bins' entropy.

    Bins of equal width over evenly spaced values: some hold two values, and log N goes down to what the bins have."""
    told = []
    for size in sizes:
        held = np.bincount(np.minimum(np.arange(size) * BINS // (size - 1), BINS - 1)) / size
        held = held[held > 0]
        told.append(-(held * np.log(held)).sum() / math.log(size))
    return float(np.mean(told))


# ---- what is known -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", SCORES)
@pytest.mark.parametrize("scales", [(1, 1, 1, 1), (0.3, 1, 30, 4)], ids=["one scale", "many scales"])
def test_the_factors_themselves_score_1(which, scales):
    codes = grid(scales)[:, [2, 0, 3, 1]]                               # whichever latent follows which factor
    assert score(which, codes) == 1
    assert score(which, np.column_stack([noise(2) * 0.01, -codes, np.ones(len(codes))])) == 1      # idle latents beside


def test_the_gap_of_the_factors_themselves_is_what_the_bins_let_through():
    # a draw's histogram is off by about bins * values / (2 * 10,000) = 0.03 nats of bias at most
    assert mig(grid()) == pytest.approx(best_gap(), abs=0.015)
    assert 0.97 < best_gap() < 1
    gaps = information_gaps(grid(), SIZES, np.random.default_rng(0))
    assert np.delete(gaps, 2) == pytest.approx([1, 1, 1], abs=0.01), "each value has a bin of its own"


def test_the_best_gap_on_the_sprites_is_0_9():
    """Of 40 and of 32 values, 20 bins tell 0.81 and 0.85: a MIG of 0.9 is the ceiling, and draws take a little of it."""
    sizes = (3, 6, 40, 32, 32)
    factors = Codes(lambda rows: np.stack(np.unravel_index(rows, sizes), axis=-1), np.arange(math.prod(sizes)))
    # a latent that has nothing to do with a factor tells (bins - 1) (values - 1) / (2 * 10,000) nats of it by chance
    chance = np.mean([(BINS - 1) * (size - 1) / 20_000 / math.log(size) for size in sizes])
    assert best_gap(sizes) == pytest.approx(0.9024, abs=5e-5) and chance == pytest.approx(0.0063, abs=5e-5)
    # five standard deviations of seeds (0.0003): the second best latent is the largest of several chances, by as much again
    assert mig(factors, sizes=sizes) == pytest.approx(best_gap(sizes) - chance, abs=0.0015)


@pytest.mark.parametrize("which", SCORES)
def test_noise_scores_chance(which):
    assert abs(score(which, noise()) - 1 / K) < CHANCE


def test_the_gap_of_noise_is_zero():
    # of 3000 images, each with its own noise: whatever a bin's images have in common by chance, all latents have alike
    assert 0 <= mig(noise()) < 0.05


def test_turning_two_factors_into_each_other_lowers_the_gap_alone():
    """Each turned latent knows of both: their gaps are gone. A linear classifier and a variance still see much."""
    whole, gaps = mig(grid()), information_gaps(turned(), SIZES, np.random.default_rng(0))
    assert gaps[:2] == pytest.approx([1, 1], abs=0.01) and gaps[2:].max() < 0.1 < whole - gaps.mean()
    # two values that share a factor differ in both turned latents alike: the two factors are told apart by chance
    assert score("factor-vae", turned()) < 0.85


def test_a_latent_that_says_the_same_as_another_closes_the_gap():
    assert mig(np.column_stack([grid(), grid()])) == pytest.approx(0, abs=1e-12)
    assert score("beta-vae", np.column_stack([grid(), grid()])) == 1


def test_latents_of_small_variance_have_no_vote():
    """A latent that is nearly still varies by rounding alone; relative to itself it varies as any other, and is noise."""
    idle = 0.04 * noise(2) / noise(2).std(axis=0)
    assert score("factor-vae", idle) == 0, "no latent is active"
    rng, variance = np.random.default_rng(0), np.r_[grid().var(axis=0), 0.04**2]
    codes = np.column_stack([grid(), np.zeros(len(grid()))])            # constant in every batch: it would always win
    votes = {disentanglement.factor_vae_vote(codes, SIZES, rng, variance, np.sqrt(variance) >= 0.05)[0] for _ in range(100)}
    assert votes == {0, 1, 2, 3}
    assert score("factor-vae", codes) == 1


def test_the_protocol_has_the_constants_of_disentanglement_lib():
    module = disentanglement
    assert (module.BATCH, module.VOTES, module.DRAWS, module.PRUNED, module.BINS) == (64, (10_000, 5000), 10_000, 0.05, 20)


def test_the_majority_is_that_of_the_votes_to_train_on(monkeypatch):
    """Latent 0 votes for factor 2 in training, but for 1 in two of its three test votes; latent 3 for factor 0 in both."""
    votes = iter([(0, 2), (3, 0), (0, 1), (0, 2), (3, 0)] + [(0, 1), (3, 0), (0, 2), (0, 1)])
    monkeypatch.setattr(disentanglement, "factor_vae_vote", lambda *_: next(votes))
    assert score("factor-vae", grid(), votes=(5, 4)) == 2 / 4


def test_the_linear_classifier_is_scored_on_votes_that_it_was_not_trained_on():
    """Noise in 40 latents, 30 votes to train on: what is learned by heart is worth nothing on others."""
    assert score("beta-vae", noise(40), votes=(30, VOTES[1])) < 1 / K + CHANCE


def test_a_vote_shares_one_factor_and_no_other():
    """In the codes that a vote sees; the other factors are drawn evenly and independently."""
    rng, seen = np.random.default_rng(0), []
    counts = np.zeros(K)

    class Watched:
        def __getitem__(self, rows):
            seen.append(np.stack(np.unravel_index(rows, SIZES), axis=-1))
            return grid()[rows]

    for _ in range(200):
        seen.clear()
        _, shared = disentanglement.beta_vae_vote(Watched(), SIZES, rng)
        first, second = seen
        assert first.shape == (BATCH, K)
        same = (first == second).mean(axis=0)                           # 1 / size by chance, 1 where it is shared
        assert same[shared] == 1 and np.delete(same, shared).max() < 1
        assert len(np.unique(first[:, shared])) > 1, "each pair has its own value"
        seen.clear()
        _, shared = disentanglement.factor_vae_vote(Watched(), SIZES, rng, np.ones(K), np.ones(K, bool))
        counts[shared] += 1
        values = [len(np.unique(column)) for column in seen[0].T]
        assert values[shared] == 1 and min(np.delete(values, shared)) > 1
    assert np.abs(counts / 200 - 1 / K).max() < 5 * math.sqrt(0.25 * 0.75 / 200)


def test_information_is_scikit_learns_of_the_labels_and_entropy_that_of_the_counts():
    rng = np.random.default_rng(0)
    a = rng.integers(4, size=500)
    b = (a + rng.integers(2, size=500)) % 7
    assert information(a, b, (4, 7)) == pytest.approx(mutual_info_score(a, b), rel=1e-12)
    share = np.bincount(a) / 500
    assert information(a, a, (4, 4)) == pytest.approx(-(share * np.log(share)).sum(), rel=1e-12)


def test_the_table_holds_what_the_images_are_read_as():
    sprites = Sprites(orientations=2, positions=3)
    table = code_table(lambda x: x[:, ::500] / 255, sprites, block=50)
    lazy = Codes(lambda x: x[:, ::500] / 255, sprites)
    assert table.shape == (len(sprites), 9) and np.array_equal(table[[5, 200]], lazy[np.array([5, 200])])
    assert np.array_equal(table, sprites[:][:, ::500] / 255)
    one = [factor_vae_score(codes, sprites.sizes, np.random.default_rng(0), (30, 20)) for codes in (table, lazy)]
    assert one[0] == one[1]


def test_one_latent_has_no_gap():
    with pytest.raises(InputError, match="1 latent: give at least two"):
        mig(grid()[:, :1])


# ---- named wrong answers: each fails a check above ---------------------------------------------------------------------


def test_a_difference_of_one_pair_is_noticed(monkeypatch):
    """Wrong answer: |z1 - z2| of a single pair, where another factor may agree by chance."""
    monkeypatch.setattr(disentanglement, "BATCH", 1)
    assert score("beta-vae", grid()) < 0.9


def test_a_signed_difference_is_noticed(monkeypatch):
    """Wrong answer: the mean of z1 - z2, which is near zero for every latent."""
    monkeypatch.setattr(disentanglement.np, "abs", lambda values: values)
    assert score("beta-vae", grid()) < 0.9


def test_a_gap_in_nats_is_noticed(monkeypatch):
    """Wrong answer: MIG without the entropy in the denominator, so that a factor of many values counts for more."""
    right = information

    def without_entropy(a, b, sizes):
        return 1.0 if a is b else right(a, b, sizes)

    monkeypatch.setattr(disentanglement, "information", without_entropy)
    assert mig(grid()) > best_gap() + 0.5


def test_a_variance_that_is_not_relative_is_noticed(monkeypatch):
    """Wrong answer: where the factors are read with a little noise, the latent of the smallest scale wins every vote."""
    scales = np.array([0.1, 3, 30, 10])
    codes, right = grid(scales) + 0.05 * scales * noise(K), disentanglement.factor_vae_vote
    assert score("factor-vae", codes) == 1

    def without_variance(codes, sizes, rng, variance, active):
        return right(codes, sizes, rng, np.ones(len(variance)), active)

    monkeypatch.setattr(disentanglement, "factor_vae_vote", without_variance)
    assert score("factor-vae", codes) < 0.5


def test_the_codes_of_factors_are_those_of_their_image():
    factors = np.array([[2, 4, 24, 7], [0, 1, 2, 3]])
    np.testing.assert_array_equal(codes_of(np.arange(math.prod(SIZES))[:, None], SIZES, factors)[:, 0],
                                  [math.prod(SIZES) - 1, (1 * 25 + 2) * 8 + 3])
