"""How far each latent follows one factor of an image: the three scores that papers report, on a grid of known factors.

    codes = code_table(represent, sprites)                                # (N, J): represent(x), for all images in order
    beta_vae_score(codes, sprites.sizes, rng)                             # Higgins et al. 2017
    factor_vae_score(codes, sprites.sizes, rng)                           # Kim & Mnih 2018
    information_gaps(codes, sprites.sizes, rng).mean()                    # MIG, Chen et al. 2018

The protocols are those of disentanglement_lib (Locatello et al. 2019). For the factors themselves the first two are 1, and
the gap is as near to it as its bins allow (0.9 on all sprites). All three need the factors: they are to measure with, not
to train by.

codes   (N, J), the latents of each image of the grid: an array, or what gives rows of one when asked for codes[rows]
sizes   how many values each of the K factors has; their combinations are the N images, the last factor running fastest
"""

# N images, J latents, K factors, V votes; a vote is taken over a batch of draws

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score

from common.config import InputError

BATCH = 64                          # draws of a vote
VOTES = (10_000, 5000)              # to train on, to test on
DRAWS = 10_000                      # images for a variance, or for mutual information
PRUNED = 0.05                       # a latent whose standard deviation is smaller has no vote
BINS = 20                           # of equal width, for the values of a latent


class Codes:
    """What represent(x) -> (B, J) says of images[rows], computed when it is asked for."""

    def __init__(self, represent, images):
        self.represent, self.images = represent, images

    def __getitem__(self, rows):
        return self.represent(self.images[rows])


def code_table(represent, images, block: int = 4096, progress=lambda share: None) -> np.ndarray:
    """represent(x) of all N images, computed once: (N, J). A score draws an image several times.

    represent takes images (B, D) as images[rows] gives them and returns (B, J); progress is told the share done."""
    codes, count, parts = Codes(represent, images), len(images), []
    for start in range(0, count, block):
        parts.append(codes[np.arange(start, min(start + block, count))])
        progress(min(start + block, count) / count)
    return np.concatenate(parts)


# ---- the three scores ----------------------------------------------------------------------------------------------------


def beta_vae_score(codes, sizes, rng: np.random.Generator, votes=VOTES) -> float:
    """The accuracy of a linear classifier that tells from 64 pairs of images which factor the two of a pair share.

    Where one latent follows that factor alone, its |z1 - z2| is near 0. Chance is 1/K. votes: to train on, to test on."""
    train, test = ([np.stack(each) for each in zip(*(beta_vae_vote(codes, sizes, rng) for _ in range(count)), strict=True)]
                   for count in votes)                                   # each: (V, J) differences, (V,) factors
    return float(LogisticRegression(max_iter=1000).fit(*train).score(*test))


def beta_vae_vote(codes, sizes, rng):
    """The mean |z1 - z2| over pairs that share one factor, its value another in each pair: (J,), and that factor."""
    shared = rng.integers(len(sizes))
    first, second = (rng.integers(sizes, size=(BATCH, len(sizes))) for _ in range(2))             # (64, K)
    second[:, shared] = first[:, shared]
    z1, z2 = codes_of(codes, sizes, first), codes_of(codes, sizes, second)                        # (64, J)
    return np.abs(z1 - z2).mean(axis=0), shared


def factor_vae_score(codes, sizes, rng: np.random.Generator, votes=VOTES) -> float:
    """The accuracy of a majority vote that tells which factor 64 images share from the latent that varies least in them.

    A variance counts relative to that over all images; latents that hardly vary there have no vote, and without any the
    score is 0. Chance is about 1/K. votes: to train on, to test on."""
    z = codes_of(codes, sizes, rng.integers(sizes, size=(DRAWS, len(sizes))))                     # (10000, J)
    variance = z.var(axis=0, ddof=1)
    active = np.sqrt(variance) >= PRUNED                                                          # (J,)
    if not active.any():
        return 0.0
    train, test = (np.zeros((len(variance), len(sizes)), int) for _ in votes)                     # votes by latent, factor
    for table, count in zip((train, test), votes, strict=True):
        for _ in range(count):
            table[factor_vae_vote(codes, sizes, rng, variance, active)] += 1
    return float(test[np.arange(len(test)), train.argmax(axis=1)].sum() / votes[1])


def factor_vae_vote(codes, sizes, rng, variance, active):
    """The latent that varies least over a batch of images that share one factor's value, and the factor."""
    shared = rng.integers(len(sizes))
    factors = rng.integers(sizes, size=(BATCH, len(sizes)))                                       # (64, K)
    factors[:, shared] = factors[0, shared]
    z = codes_of(codes, sizes, factors)[:, active]                                                # (64, J) of the active
    least = np.argmin(z.var(axis=0, ddof=1) / variance[active])
    return np.flatnonzero(active)[least], shared


def information_gaps(codes, sizes, rng: np.random.Generator, draws: int = DRAWS) -> np.ndarray:
    """For each factor, how much more the best latent tells of it than the second best, as a share of its entropy: (K,).

    Their mean is the MIG. A latent's values are put into 20 bins, so that a factor of 40 values is told to log 20 / log 40
    at most. 0 by chance, but for a sampling error that needs many `draws`. Raises InputError for fewer than two latents."""
    factors = rng.integers(sizes, size=(draws, len(sizes)))                                       # (10000, K)
    z = codes_of(codes, sizes, factors)                                                           # (10000, J)
    if z.shape[1] < 2:
        raise InputError(f"the codes have {z.shape[1]} latent: give at least two, a gap is between the best and the second")
    binned = [np.digitize(column, np.histogram_bin_edges(column, BINS)[1:-1]) for column in z.T]  # each (10000,) in 0..19
    gaps = []
    for factor, size in zip(factors.T, sizes, strict=True):
        told = np.sort([information(column, factor, (BINS, size)) for column in binned])          # (J,) nats
        gaps.append((told[-1] - told[-2]) / information(factor, factor, (size, size)))
    return np.array(gaps)


def information(a, b, sizes) -> float:
    """The mutual information of a and b (N,), whole numbers from 0, below `sizes`, in nats; of a with a: its entropy."""
    table = np.bincount(np.ravel_multi_index((a, b), sizes), minlength=np.prod(sizes)).reshape(sizes)
    return mutual_info_score(None, None, contingency=table)


def codes_of(codes, sizes, factors) -> np.ndarray:
    """The codes of images with these factors (B, K): (B, J) float64."""
    return np.asarray(codes[np.ravel_multi_index(factors.T, sizes)], np.float64)
