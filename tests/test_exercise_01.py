"""Exercise 01: every named mistake is answered with a sentence of its own."""

import numpy as np
import pytest
from networks_numpy import encode
from scipy.special import ndtri

from exercises.checks.latent_space import small_case
from exercises.checks.verdict import TASKS, WRONG

config = small_case()[0]


def layer(params, name, x, bias=True):
    return x @ params[f"{name}.weight"].T + (params[f"{name}.bias"] if bias else 0)


def heads(params, h):
    return layer(params, "encoder.mu", h), layer(params, "encoder.logvar", h)


def plane(q, up=True):
    side = len(q)
    return np.stack([np.tile(q, side), np.repeat(q[::-1] if up else q, side)], axis=1)


def middles(side):
    return ndtri((np.arange(side) + 0.5) / side)


def kl(mu, variance, log_variance):
    return 0.5 * (mu**2 + variance - 1 - log_variance)


def right_kl(mu, logvar):
    return kl(mu, np.exp(logvar), logvar)


def lengths(walk):
    return np.linalg.norm(np.diff(walk, axis=0), axis=1)


def squares(images, x_train):
    return ((images[:, None] - x_train) ** 2).sum(axis=2)


def divided(some, other):
    return some / other if other else 1.0


def own_noise(mu, logvar, eps):
    return mu[:, None] + np.exp(0.5 * logvar)[:, None] * np.random.default_rng(4).standard_normal((4, 8, 3))


MISTAKES = [
    ("posterior", lambda p, x: heads(p, layer(p, "encoder.hidden", x)), "no tanh"),
    ("posterior", lambda p, x: heads(p, np.maximum(layer(p, "encoder.hidden", x), 0)), "ends in a ReLU"),
    ("posterior", lambda p, x: [np.maximum(a, 0) for a in encode(p, x, config)], "A ReLU sits on mu"),
    ("posterior", lambda p, x: (encode(p, x, config)[0], np.maximum(encode(p, x, config)[1], 0)), "A ReLU sits on logvar"),
    ("posterior", lambda p, x: (encode(p, x, config)[0], np.exp(0.5 * encode(p, x, config)[1])), "logvar is sigma"),
    ("posterior", lambda p, x: (encode(p, x, config)[0], np.exp(encode(p, x, config)[1])), "logvar is the variance"),
    ("posterior", lambda p, x: encode(p, x, config)[::-1], "the other way round"),
    ("posterior", lambda p, x: heads(p, np.tanh(layer(p, "encoder.hidden", x, bias=False))), "bias of the hidden layer"),
    ("posterior", lambda p, x: (encode(p, x, config)[0] - p["encoder.mu.bias"], encode(p, x, config)[1]), "the head mu"),
    ("posterior", lambda p, x: (encode(p, x, config)[0], encode(p, x, config)[1] - p["encoder.logvar.bias"]),
     "the head logvar"),
    ("posterior", lambda p, x: encode(p, x, config)[0], "two values"),
    ("latent_plane", lambda side: plane(ndtri(np.linspace(0, 1, side))), "infinite"),
    ("latent_plane", lambda side: plane((np.arange(side) + 0.5) / side), "probabilities"),
    ("latent_plane", lambda side: plane(np.linspace(-3, 3, side)), "evenly spaced in z"),
    ("latent_plane", lambda side: plane(middles(side), up=False), "largest z2"),
    ("latent_plane", lambda side: plane(middles(side)).reshape(side, side, 2).swapaxes(0, 1).reshape(-1, 2),
     "reading order"),
    ("latent_plane", lambda side: plane(middles(side))[:, ::-1], "columns are the wrong way round"),
    ("latent_plane", lambda side: plane(ndtri(np.linspace(0, 1, side + 2)[1:-1])), "not the middles"),
    ("latent_plane", lambda side: middles(side), "shape"),
    ("kl_per_latent", lambda mu, logvar: right_kl(mu, logvar).sum(axis=1), "KL of each image"),
    ("kl_per_latent", lambda mu, logvar: right_kl(mu, logvar).sum(axis=0), "You sum over the images"),
    ("kl_per_latent", lambda mu, logvar: right_kl(mu, logvar).mean(), "average over the images and the latents"),
    ("kl_per_latent", lambda mu, logvar: right_kl(mu, logvar).sum(), "sum over all there is"),
    ("kl_per_latent", lambda mu, logvar: right_kl(mu, logvar).sum(axis=1).mean(), "sum over all there is"),
    ("kl_per_latent", right_kl, "every image and latent"),
    ("kl_per_latent", lambda mu, logvar: -right_kl(mu, logvar).mean(axis=0), "wrong sign"),
    ("kl_per_latent", lambda mu, logvar: 2 * right_kl(mu, logvar).mean(axis=0), "the 1/2 is missing"),
    ("kl_per_latent", lambda mu, logvar: right_kl(mu, logvar).mean(axis=0) / 2, "applied twice"),
    ("kl_per_latent", lambda mu, logvar: kl(mu, logvar**2, np.log(logvar**2)).mean(axis=0), "logvar for sigma"),
    ("kl_per_latent", lambda mu, logvar: kl(mu, np.exp(logvar)**2, 2 * logvar).mean(axis=0), "exp(logvar) for sigma"),
    ("kl_per_latent", lambda mu, logvar: kl(mu, np.exp(logvar)**2, logvar).mean(axis=0), "exp(logvar) for sigma"),
    ("kl_per_latent", lambda mu, logvar: kl(mu, np.exp(logvar / 2), logvar).mean(axis=0), "which is sigma"),
    ("kl_per_latent", lambda mu, logvar: kl(mu, np.exp(logvar / 2), logvar / 2).mean(axis=0), "which is sigma"),
    ("kl_per_latent", lambda mu, logvar: kl(0 * mu, np.exp(logvar), logvar).mean(axis=0), "mu^2 is missing"),
    ("kl_per_latent", lambda mu, logvar: right_kl(mu, logvar).mean(axis=0) + 0.5, "-1 is missing"),
    ("kl_per_latent", lambda mu, logvar: None, "return"),
    ("active_units", lambda mu: int((mu.std(axis=0) > 0.01).sum()), "standard deviation"),
    ("active_units", lambda mu: int(((mu**2).mean(axis=0) > 0.01).sum()), "always 2"),
    ("active_units", lambda mu: int((np.abs(mu).mean(axis=0) > 0.01).sum()), "always 2"),
    ("active_units", lambda mu: int((mu.var(axis=0) <= 0.01).sum()), "inactive"),
    ("active_units", lambda mu: mu.var(axis=0), "variances or a mask"),
    ("active_units", lambda mu: int((mu.var(axis=1) > 0.01).sum()), "over the latents of each image"),
    ("posterior_draws", lambda mu, logvar, eps: mu[:, None] + np.exp(logvar)[:, None] * eps, "by the variance"),
    ("posterior_draws", lambda mu, logvar, eps: mu[:, None] + logvar[:, None] * eps, "logvar itself"),
    ("posterior_draws", lambda mu, logvar, eps: mu[:, None] + np.exp(2 * logvar)[:, None] * eps, "2 log sigma"),
    ("posterior_draws", lambda mu, logvar, eps: mu[:, None] + eps, "not scaled"),
    ("posterior_draws", lambda mu, logvar, eps: mu, "return the means"),
    ("posterior_draws", lambda mu, logvar, eps: np.exp(0.5 * logvar)[:, None] * eps, "means are missing"),
    ("posterior_draws", own_noise, "noise of your own"),
    ("posterior_draws", lambda mu, logvar, eps: np.multiply(eps, 2, out=eps), "argument number 3"),
    ("evenness", lambda walk: lengths(walk).max() / lengths(walk).mean(), "mean over the largest"),
    ("evenness", lambda walk: (lengths(walk)**2).mean() / (lengths(walk)**2).max(), "root of each sum"),
    ("evenness", lambda walk: np.abs(np.diff(walk, axis=0)).sum(axis=1).mean() /
     np.abs(np.diff(walk, axis=0)).sum(axis=1).max(), "absolute differences"),
    ("evenness", lambda walk: lengths(walk).min() / lengths(walk).max(), "shortest step"),
    ("evenness", lambda walk: divided(lengths(walk).mean(), lengths(walk).max()) * (lengths(walk).max() > 0),
     "stands still"),
    ("kl_per_latent", lambda mu, logvar: (0.5 * (mu**2 + np.expm1(logvar) - 1 - logvar)).mean(axis=0), "there twice"),
    ("active_units", lambda mu: int(mu.var() > 0.01), "all numbers together"),
    ("evenness", lambda walk: divided(np.linalg.norm(np.diff(walk), axis=1).mean(),
                                      np.linalg.norm(np.diff(walk), axis=1).max()), "from pixel to pixel"),
    ("evenness", lambda walk: divided(np.linalg.norm(np.diff(walk, axis=0), axis=0).mean(),
                                      np.linalg.norm(np.diff(walk, axis=0), axis=0).max()), "norm over axis 1"),
    ("distance_to_data", lambda images, x_train: squares((images > 0.5) * 1.0, x_train).min(axis=1),
     "black and white first"),
    ("distance_to_data", lambda images, x_train: squares(images, x_train).max(axis=1), "largest distance"),
    ("distance_to_data", lambda images, x_train: squares(images, x_train).mean(axis=1), "average over the training"),
    ("distance_to_data", lambda images, x_train: np.sqrt(squares(images, x_train).min(axis=1)), "Euclidean"),
    ("distance_to_data", lambda images, x_train: squares(images, x_train).argmin(axis=1), "argmin"),
    ("distance_to_data", lambda images, x_train: squares(images, x_train).min(axis=0), "the other way round"),
    # an image's nearest neighbor other than itself
    ("distance_to_data", lambda images, x_train: np.sort(np.where(squares(images, x_train) == 0, np.inf,
                                                                  squares(images, x_train)), axis=1)[:, 0],
     "an image to a set that holds it"),
]


@pytest.mark.parametrize(("name", "theirs", "words"), MISTAKES, ids=[f"{name}: {words}" for name, _, words in MISTAKES])
def test_a_mistake_is_named(name, theirs, words):
    verdict = TASKS[name].judge(theirs)
    assert verdict.state == WRONG and words in verdict.message, verdict
