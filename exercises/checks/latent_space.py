"""Checks of exercise 01: the posterior, the grid over the plane, what each latent carries, continuity, completeness."""

import numpy as np
from losses_numpy import kl_divergence
from networks_numpy import encode
from scipy.special import ndtri
from vae_numpy import reparameterize

from common.config import VAEConfig, parameter_shapes
from common.figures import latent_grid
from exercises.checks.verdict import Wrong, call, compare, number, pair, task

# B images, D pixels, J latents, N codes, S draws


def small_case():
    """A small model, 7 pixels and 3 latents, with biases that are not zero, and 5 images."""
    config = VAEConfig(image_shape=(1, 7), hidden=4, latent=3)
    rng = np.random.default_rng(1)
    params = {name: rng.normal(0, 0.7, shape) for name, shape in parameter_shapes(config).items()}
    return config, params, (rng.random((5, 7)) < 0.5).astype(np.float64)


@task("01.1")
def posterior(theirs):
    config, params, x = small_case()
    mu, logvar = pair(call(theirs, params, x), "mu and logvar")
    right_mu, right_logvar = encode(params, x, config)
    without_tanh = x @ params["encoder.hidden.weight"].T + params["encoder.hidden.bias"]

    def head(name, h):
        return h @ params[f"encoder.{name}.weight"].T + params[f"encoder.{name}.bias"]

    no_bias = np.tanh(x @ params["encoder.hidden.weight"].T)
    for what, got, right in (("mu", mu, right_mu), ("logvar", logvar, right_logvar)):
        compare(what, got, right, {
            f"{what.capitalize()} comes out as if the hidden layer had no tanh: two linear layers in a row are one.":
                head(what, without_tanh),
            f"A ReLU sits on {what}: then mu is never negative and sigma never below 1. Both heads are linear.":
                np.maximum(right, 0),
            "Your logvar is sigma, exp(logvar / 2): return the logarithm of the variance, as the head gives it.":
                np.exp(0.5 * right),
            "Your logvar is the variance, exp(logvar): return its logarithm, as the head gives it.": np.exp(right),
            "You return the two the other way round: mu first, then logvar.": right_logvar if what == "mu" else right_mu,
            "The bias of the hidden layer is missing.": head(what, no_bias),
            f"The bias of the head {what} is missing.": right - params[f"encoder.{what}.bias"],
            "The hidden layer ends in a ReLU; the paper's mlp, and these weights, have a tanh.":
                head(what, np.maximum(without_tanh, 0)),
        })


@task("01.2")
def latent_plane(theirs):
    side = 5
    right = latent_grid(2, side)                                            # (25, 2)
    got = np.asarray(call(theirs, side), np.float64)
    if got.shape == right.shape:
        if not np.isfinite(got).all():
            raise Wrong("Some of your points are infinite, as the inverse CDF of 0 and of 1 is: take the middles "
                        "(i + 1/2) / side.")
        if got.min() >= 0 and got.max() <= 1:
            raise Wrong("Your points are probabilities, between 0 and 1: send them through the inverse CDF, "
                        "scipy.special.ndtri.")
        values = np.unique(np.round(got, 9))
        if len(values) == side and np.allclose(np.diff(values), values[1] - values[0]):
            raise Wrong("Your points are evenly spaced in z, so that most of the page shows what the prior hardly ever "
                        "draws: space them evenly in probability.")
    upside_down = right * (1, -1)
    ends = ndtri(np.linspace(0, 1, side + 2)[1:-1])
    compare("the grid", got, right, {
        "The top row of the page should have the largest z2, yours has the smallest: reverse it.": upside_down,
        "From one point to the next z1 should change (reading order), yours changes z2: swap tile and repeat.":
            [grid.reshape(side, side, 2).swapaxes(0, 1).reshape(-1, 2) for grid in (right, upside_down)],
        "The two columns are the wrong way round: z1 is column 0.": [right[:, ::-1], upside_down[:, ::-1]],
        "Your probabilities are not the middles of equal parts: with (i + 1/2) / side each point stands for as much of the "
        "prior as every other.": np.stack([np.tile(ends, side), np.repeat(ends[::-1], side)], axis=1),
    })


def some_posterior(count=6, latent=3):
    """mu and logvar (B, J), some of them large."""
    rng = np.random.default_rng(2)
    return rng.normal(0, 1.5, (count, latent)), rng.normal(-1, 1.2, (count, latent))


def wrong_kls(mu, logvar) -> dict[str, list[np.ndarray]]:
    """What the known mistakes give for the KL of each image and latent, (B, J) each."""
    right, sigma, variance = kl_divergence(mu, logvar), np.exp(0.5 * logvar), np.exp(logvar)
    return {
        "Your KL has the wrong sign: it is never negative.": [-right],
        "Your KL is twice what it should be: the 1/2 is missing.": [2 * right],
        "Your KL is half of what it should be: is the 1/2 applied twice?": [0.5 * right],
        "You take logvar for sigma: sigma^2 is exp(logvar).": [0.5 * (mu**2 + logvar**2 - 1 - np.log(logvar**2))],
        "You take exp(logvar) for sigma; it is sigma^2 already.":
            [0.5 * (mu**2 + variance**2 - 1 - part) for part in (logvar, 2 * logvar)],
        "The variance in the formula is exp(logvar); yours is exp(logvar / 2), which is sigma.":
            [0.5 * (mu**2 + sigma - 1 - part) for part in (logvar, 0.5 * logvar)],
        "The term mu^2 is missing.": [0.5 * (variance - 1 - logvar)],
        "The -1 is missing: at mu = 0, sigma = 1 the KL is 0.": [0.5 * (mu**2 + variance - logvar)],
    }


@task("01.3")
def kl_per_latent(theirs):
    mu, logvar = some_posterior()
    kl = kl_divergence(mu, logvar)                                          # (B, J)
    compare("the KL per latent", call(theirs, mu, logvar), kl.mean(axis=0), {
        "That is the KL of each image: here the mean is over the images (axis 0), and the latents stay apart.":
            kl.sum(axis=1),
        "You sum over the images: the KL per latent is their mean.": kl.sum(axis=0),
        "You average over the images and the latents: keep the latents apart.": kl.mean(),
        "You sum over all there is: average over the images (axis 0) and keep the latents apart.":
            [kl.sum(), kl.sum(axis=1).mean()],
        "You return the KL of every image and latent: average over the images (axis 0).": kl,
        **{sentence: [each.mean(axis=0) for each in wrong] for sentence, wrong in wrong_kls(mu, logvar).items()},
        "The -1 is there twice: np.expm1(logvar) is sigma^2 - 1 already.": kl.mean(axis=0) - 0.5,
    })


@task("01.4")
def active_units(theirs):
    rng = np.random.default_rng(3)
    mu = rng.standard_normal((400, 7)) * (1.0, 0.5, 0.3, 0.12, 0.08, 0.02, 0.001) + (0, 0, 0, 0.5, 0.5, 2, 1)
    right = int((mu.var(axis=0) > 0.01).sum())                              # 4 of 7
    compare("the number of active units", call(theirs, mu), right, {
        "You compare the standard deviation with 0.01: the definition takes the variance.":
            int((mu.std(axis=0) > 0.01).sum()),
        "You look at how far mu is from 0: a latent that is always 2 tells nothing about the image. Take its variance.":
            [int((np.abs(mu).mean(axis=0) > 0.01).sum()), int(((mu**2).mean(axis=0) > 0.01).sum())],
        "You count the inactive ones.": 7 - right,
        "You take one variance of all numbers together: each latent has its own, over the images (axis 0).": 1,
        "You return the variances or a mask: count the latents above 0.01.": [mu.var(axis=0), mu.var(axis=0) > 0.01],
        "You take the variance over the latents of each image: take it over the images (axis 0).":
            int((mu.var(axis=1) > 0.01).sum()),
    })


@task("01.5")
def posterior_draws(theirs):
    mu, logvar = some_posterior(4)
    eps = np.random.default_rng(4).standard_normal((4, 8, 3))
    right = reparameterize(mu[:, None], logvar[:, None], eps)               # (4, 8, 3)
    wide, mean, kept = np.exp(logvar)[:, None], mu[:, None], logvar[:, None]
    compare("the draws", call(theirs, mu, logvar, eps), right, {
        "You scale the noise by the variance exp(logvar): its standard deviation is exp(logvar / 2).": mean + wide * eps,
        "You scale the noise by logvar itself: sigma is exp(logvar / 2).": mean + kept * eps,
        "You scale by exp(2 logvar) or so: sigma is exp(logvar / 2), since log sigma^2 = 2 log sigma.":
            mean + np.exp(2 * kept) * eps,
        "Your noise is not scaled: multiply eps by sigma = exp(logvar / 2).": mean + eps,
        "You return the means: add sigma * eps.": [mu, np.broadcast_to(mean, right.shape)],
        "The means are missing: z = mu + sigma * eps.": right - mean,
    })
    if np.array_equal(call(theirs, mu, logvar, 2 * eps), right):
        raise Wrong("Your draws do not follow the eps that they are given: use it instead of drawing noise of your own.")


@task("01.6")
def evenness(theirs):
    walk = np.random.default_rng(5).random((6, 7))
    steps = np.sqrt((np.diff(walk, axis=0) ** 2).sum(axis=1))               # (5,)
    squares, absolute = steps**2, np.abs(np.diff(walk, axis=0)).sum(axis=1)
    along = np.linalg.norm(np.diff(walk, axis=0), axis=0)                   # (7,)
    compare("the evenness", call(theirs, walk), steps.mean() / steps.max(), {
        "You divide the largest step by the mean: then a jump gives a large number. It is the mean over the largest.":
            steps.max() / steps.mean(),
        "You compare the squares of the lengths: take the root of each sum of squares first.":
            squares.mean() / squares.max(),
        "You measure a step by the sum of absolute differences: take its Euclidean length.":
            absolute.mean() / absolute.max(),
        "You divide the shortest step by the longest: take the mean of all.": steps.min() / steps.max(),
        "np.diff goes along the last axis, from pixel to pixel: the steps go from picture to picture, axis=0.":
            [across.mean() / across.max() for across in (np.linalg.norm(np.diff(walk), axis=axis) for axis in (0, 1))],
        "You measure along the steps instead of over the pixels: the length of a step is a norm over axis 1.":
            along.mean() / along.max(),
    })
    jump = np.zeros((6, 7))
    jump[3:] = 1
    compare("the evenness of a walk with a single jump in five steps", call(theirs, jump), 0.2)
    compare("the evenness of a walk that stands still", call(theirs, np.ones((6, 7))), 1.0, {
        "A walk that stands still has no longest step, and 0 / 0 is not a number: return 1 for it.": [np.nan, 0.0]})


@task("01.7")
def distance_to_data(theirs):
    rng = np.random.default_rng(6)
    images, x_train = rng.random((4, 7)), (rng.random((9, 7)) < 0.5).astype(np.float64)
    squares = ((images[:, None] - x_train) ** 2).sum(axis=2)                # (4, 9)
    compare("the distance to the data", call(theirs, images, x_train), squares.min(axis=1), {
        "You take the largest distance: the nearest training image is what counts.": squares.max(axis=1),
        "You average over the training images: the nearest one is what counts.": squares.mean(axis=1),
        "You return the Euclidean distance: the exercise asks for its square, a number of pixels.":
            np.sqrt(squares.min(axis=1)),
        "You return which training image is nearest (argmin): return how far it is (min).": squares.argmin(axis=1),
        "You make the pictures black and white first: your function takes them as they are.":
            (((images > 0.5)[:, None] - x_train) ** 2).sum(axis=2).min(axis=1),
        "You look for the nearest picture of each training image: it is the other way round, take the minimum over axis 1.":
            squares.min(axis=0),
    })
    number("the distance of an image to a set that holds it", call(theirs, x_train[:1], x_train)[0], low=-1e-9, high=1e-9)
