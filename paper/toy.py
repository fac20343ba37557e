"""Points in the plane instead of images: a curve, and noise around it. Small enough to see every density there is.

    x = draw_points("moons", 1000, np.random.default_rng(0))             # (1000, 2)
    nats = log_density("moons", x)                                       # (1000,)

One number u, uniform in (0, 1), picks a point of the curve, and isotropic Gaussian noise moves it: so the data come from
a latent variable model themselves, with one latent. Its log p(x) is an integral over u, and on average over its own points
no model's is higher (Gibbs' inequality): the mark to reach. Everything lies in the unit square; units are nats per point.
"""

import math

import numpy as np

NOISE = {"moons": 0.025, "pinwheel": 0.02}              # standard deviation of the noise, in sides of the unit square
IMAGE_SHAPE = (1, 2)                                    # to a VAE a point is an image of two pixels


def moons(u):
    """Two half circles, one inside the other's bow. u (N,) in (0, 1) -> (N, 2)."""
    angle = 2 * math.pi * (u % 0.5)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    return (np.where(u[:, None] < 0.5, upper, lower) - (0.5, 0.25)) / 4 + 0.5


def pinwheel(u):
    """Five arms that leave the middle and bend. u (N,) in (0, 1) -> (N, 2)."""
    arm, share = np.divmod(5 * u, 1)
    radius = 0.3 + 1.3 * share
    angle = 2 * math.pi * arm / 5 + 0.25 * np.exp(radius)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) / 4 + 0.5


CURVES = {"moons": moons, "pinwheel": pinwheel}


def draw_points(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many points of the data set called `name`, one of CURVES: (count, 2) float32."""
    x = CURVES[name](rng.random(count)) + NOISE[name] * rng.standard_normal((count, 2))
    return x.astype(np.float32)


def log_density(name: str, x, steps: int = 5000) -> np.ndarray:
    """log p(x) of the data set itself: log of the mean over u of N(x; curve(u), noise^2 I). x (N, 2) -> (N,), nats.

    `steps` values of u: they lie nearer to each other on the curve than a tenth of the noise.
    """
    centers = CURVES[name]((np.arange(steps) + 0.5) / steps)                                       # (steps, 2)
    squares = ((np.asarray(x, np.float64)[:, None] - centers) ** 2).sum(axis=2) / NOISE[name] ** 2  # (N, steps)
    return np.logaddexp.reduce(-0.5 * squares, axis=1) - math.log(steps * 2 * math.pi * NOISE[name] ** 2)
