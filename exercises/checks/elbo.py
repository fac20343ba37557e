"""Checks of exercise 04: the two forms of the bound, log p(x) by draws and by quadrature, the gap, the bound of k draws."""

import math

import numpy as np
from losses_numpy import gaussian_log_likelihood, kl_divergence
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from vae_numpy import reparameterize

from exercises.checks.verdict import Wrong, call, compare, task

# B points, D pixels, J latents, S draws, G points of a grid, k draws of one bound

LOG_2PI = math.log(2 * math.pi)


def gaussian(x, mean, logvar):
    """log N(x; mean, exp(logvar)) by the project's own function: x (..., D) -> (...)."""
    x, mean, logvar = np.broadcast_arrays(x, mean, logvar)
    rows = [np.asarray(each, np.float64).reshape(-1, x.shape[-1]) for each in (x, mean, logvar)]
    return gaussian_log_likelihood(*rows).reshape(x.shape[:-1])


@task("04.1")
def log_normal(theirs):
    rng = np.random.default_rng(1)
    x, mean, logvar = rng.normal(size=(4, 5, 3)), rng.normal(size=(5, 3)), rng.normal(0.3, 0.8, (5, 3))
    right, error, variance, sigma = gaussian(x, mean, logvar), x - mean, np.exp(logvar), np.exp(0.5 * logvar)

    def other(log_part, square_part):
        return -0.5 * (LOG_2PI + log_part + square_part).sum(axis=-1)

    got = call(theirs, x, mean, logvar)
    compare("the log density", got, right, {
        "You take the mean over the pixels (the last axis): the density of independent coordinates is a product, so its "
        "log is a sum. A mean makes the likelihood D times too weak beside the KL.": right / 3,
        "You sum over all axes: sum over the last one only.": right.sum(),
        "Your sum is missing: add up the last axis.": -0.5 * (LOG_2PI + logvar + error**2 / variance),
        "That is the density: return its logarithm.": np.exp(right),
        "Your logarithm has the wrong sign: the factor in front is -1/2.": -right,
        "The factor 1/2 is missing.": 2 * right,
        "The constant log(2 pi) is missing: without it this is no density.": right + 1.5 * LOG_2PI,
        "You count log(2 pi) once: each coordinate brings its own, so it belongs into the sum.": right + LOG_2PI,
        "You take exp(logvar) for sigma; it is sigma^2 already.":
            [other(part, error**2 / variance**2) for part in (logvar, 2 * logvar)],
        "You take logvar for sigma: sigma^2 is exp(logvar).":
            [other(np.log(logvar**2), error**2 / logvar**2), other(logvar, error**2 / logvar**2)],
        "You take logvar for sigma^2: sigma^2 is exp(logvar).": other(logvar, error**2 / logvar),
        "You divide by sigma = exp(logvar / 2): the square of x - mean is divided by sigma^2 = exp(logvar).":
            [other(part, error**2 / sigma) for part in (logvar, 0.5 * logvar)],
        "log sigma^2 is logvar as it is: yours is halved once more.": other(0.5 * logvar, error**2 / variance),
        "You multiply by sigma^2 where the formula divides by it.": other(logvar, error**2 * variance),
        "The term log sigma^2 is missing: a narrow Gaussian is higher than a wide one.": other(0, error**2 / variance),
        "Your x - mean is not squared.": other(logvar, error / variance),
    })
    for what, case in (("the prior, log_normal(z, 0, 0),", (0, 0)), ("the log density", (mean, -0.7))):
        try:
            got = call(theirs, x, *case)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise Wrong(f"Right where mean and logvar are arrays, but it stops with {type(error).__name__} where they are "
                        "numbers: put the bracket together first, which makes it as large as x, and sum that.") from error
        compare(what, got, gaussian(x, *case), {
            "A logvar that is one number is that of each coordinate, yours counts it once: sum the whole bracket at once.":
                gaussian(x, *case) + case[1]})


def linear_case():
    """x (4, 7), z (5, 4, 3), weight (7, 3), bias (7,), logvar: a linear model, small and generic."""
    rng = np.random.default_rng(2)
    return (rng.normal(size=(4, 7)), rng.normal(size=(5, 4, 3)), rng.normal(size=(7, 3)), rng.normal(size=7), -0.7)


@task("04.2")
def linear_log_joint(theirs):
    x, z, weight, bias, logvar = case = linear_case()
    likelihood, prior = gaussian(x, z @ weight.T + bias, logvar), gaussian(z, 0.0, 0.0)
    got = call(theirs, *case)
    compare("the joint log density", got, likelihood + prior, {
        "You return log p(x|z): the joint also has log p(z), the prior.": likelihood,
        "You return log p(z): the joint also has log p(x|z).": prior,
        "You subtract log p(z): p(x, z) is p(x|z) times p(z), so the logs are added.": likelihood - prior,
        "You multiply the two logs: the log of a product is the sum of the logs.": likelihood * prior,
        "You return the density p(x, z): return its logarithm.":
            [np.exp(likelihood + prior), np.exp(likelihood) + np.exp(prior)],
        "The bias is missing from the mean of x.": gaussian(x, z @ weight.T, logvar) + prior,
        "You give the prior the noise of the pixels: the prior is N(0, I), with a logvar of 0.":
            likelihood + gaussian(z, 0.0, logvar),
        "Your noise is log s^2 = 0: the pixels have the logvar that is given.":
            gaussian(x, z @ weight.T + bias, 0.0) + prior,
        "You count the prior twice.": likelihood + 2 * prior,
    })
    shared = call(theirs, x, z[:, :1], weight, bias, logvar)
    compare("the joint log density where all images share the draws, z (S, 1, J),", shared,
            gaussian(x, z[:, :1] @ weight.T + bias, logvar) + prior[:, :1])


@task("04.3")
def log_mean_exp(theirs):
    a = np.random.default_rng(3).normal(0, 2, (6, 5, 3))
    right, count = logsumexp(a, axis=0) - math.log(6), math.log(6)
    compare("the log of the mean", call(theirs, a), right, {
        "That is the mean of the logs: the mean is taken of exp(a), inside the log.": a.mean(axis=0),
        "That is the log of the sum: for the mean subtract log S, S being the number of draws.": right + count,
        "You divide the log of the sum by S: to divide the sum itself is to subtract log S.": (right + count) / 6,
        "You add log S where it is subtracted.": right + 2 * count,
        "You add up the logs, which is the log of the product: probabilities are averaged here, not multiplied.":
            [a.sum(axis=0), a.sum(axis=0) - count],
        "That is the largest alone: add the log of the mean of what is left.": a.max(axis=0),
        "The largest is not put back at the end.": right - a.max(axis=0),
        "You put the smallest back, or take away another than you put back.":
            [right - a.max(axis=0) + a.min(axis=0), right - a.max(axis=0) + a.mean(axis=0)],
        "You return the mean itself: take its log.": np.exp(right),
        "You average over everything: only over the first axis.": logsumexp(a) - math.log(a.size),
        "You average over the last axis: the draws are the first one.": logsumexp(a, axis=-1) - math.log(3),
        "You average over axis 1: the draws are the first axis, axis 0.": logsumexp(a, axis=1) - math.log(5),
    })
    for shift, what in ((-2000.0, "exp(-2000) is 0 in the computer, and its log is -infinity"),
                        (2000.0, "exp(2000) is infinity in the computer")):
        with np.errstate(all="ignore"):
            got = np.asarray(call(theirs, a + shift), np.float64)
        if got.shape == right.shape and not np.isfinite(got).all():
            raise Wrong(f"Right for small numbers, but for a near {shift:.0f} yours is {got.flat[0]}: {what}. Subtract the "
                        "largest before the exp, and add it after the log.")
        compare(f"the log of the mean for a near {shift:.0f}", got, right + shift)
    apart = a + np.array([0, -1500, 1500])
    with np.errstate(all="ignore"):
        got = np.asarray(call(theirs, apart), np.float64)
    if got.shape == right.shape and not np.isfinite(got).all():
        raise Wrong("Your largest is that of the whole array: where one image is 1500 nats below another, all of its terms "
                    "vanish. Each column needs its own largest (axis 0).")
    compare("the log of the mean where the columns are far apart", got, right + np.array([0, -1500, 1500]))


def images_and_encoder():
    """The linear model's likelihood and joint as functions, x (4, 7), and a q(z|x): mu, logvar (4, 3)."""
    x, _, weight, bias, noise = linear_case()
    rng = np.random.default_rng(4)

    def likelihood(x, z):
        return gaussian(x, z @ weight.T + bias, noise)

    def joint(x, z):
        return likelihood(x, z) + gaussian(z, 0.0, 0.0)

    return likelihood, joint, x, rng.normal(0.4, 0.6, (4, 3)), rng.normal(-0.8, 0.5, (4, 3))


@task("04.4")
def log_p_from_prior(theirs):
    likelihood, joint, x, _, _ = images_and_encoder()
    z = np.random.default_rng(5).normal(size=(6, 1, 3))
    log_p = likelihood(x, z)                                                # (6, 4)
    right = logsumexp(log_p, axis=0) - math.log(6)
    prior = gaussian(z, 0.0, 0.0)                                           # (6, 1)

    def mean(log_w):
        return logsumexp(log_w, axis=0) - math.log(6)

    compare("the estimate of log p(x)", call(theirs, likelihood, x, z), right, {
        "You take the mean of log p(x|z): that is below log p(x), and stays there however many draws you take. The mean is "
        "of p(x|z), inside the log.": log_p.mean(axis=0),
        "You count p(z) twice: the draws come from the prior already, so the average is of p(x|z) alone.":
            [mean(joint(x, z)), mean(log_p) + mean(prior)],
        "You divide by p(z): z was drawn from the prior, so that the weights are p(x|z) alone.": mean(log_p - prior),
        "You multiply the probabilities of the draws (a sum of logs): they are averaged.":
            [log_p.sum(axis=0), log_p.sum(axis=0) - math.log(6)],
        "You add up the draws: for the mean subtract log S.": mean(log_p) + math.log(6),
        "You return p(x): return its logarithm.": np.exp(right),
        "You average over the images too: each has its own log p(x).": logsumexp(log_p) - math.log(log_p.size),
        "You return log p(x|z) of every draw: average the probabilities over the draws.": log_p,
        "You keep the best draw only: average over all.": log_p.max(axis=0),
    })
    far = call(lambda x, z: theirs(lambda x, z: likelihood(x, z) - 1500, x, z), x, z)
    compare("the estimate for images with a probability of exp(-1500)", far, right - 1500)


def grid_case(latent):
    """log p(x, z) of a linear model on a grid, (G, B), log q(z|x) on it (G, B), the spacing, and the exact log p(x) (B,).

    B = 4 points and D = 3 pixels. The sums over this grid are the integrals to all digits that a check looks at.
    """
    rng = np.random.default_rng(6 + latent)
    x, weight, bias, noise = rng.normal(size=(4, 3)), rng.normal(0, 0.5, (3, latent)), rng.normal(size=3), 0.2
    mu, logvar = rng.normal(0, 0.5, (4, latent)), rng.normal(-0.5, 0.3, (4, latent))
    spacing = 0.25
    axis = np.arange(-32, 33) * spacing                                     # -8 to 8
    z = np.stack(np.meshgrid(*[axis] * latent, indexing="ij"), axis=-1).reshape(-1, 1, latent)
    log_joint = gaussian(x, z @ weight.T + bias, noise) + gaussian(z, 0.0, 0.0)
    exact = multivariate_normal(bias, weight @ weight.T + np.exp(noise) * np.eye(3)).logpdf(x)
    return log_joint, gaussian(z, mu, logvar), spacing, exact


@task("04.5")
def log_p_by_quadrature(theirs):
    for latent in (2, 1):
        log_joint, _, spacing, exact = grid_case(latent)
        count, step = math.log(len(log_joint)), math.log(spacing)
        total, volume = logsumexp(log_joint, axis=0), latent * math.log(spacing)
        compare(f"the log p(x) by quadrature, J = {latent},", call(theirs, log_joint, spacing, latent), total + volume, {
            "The volume of a cell is spacing to the power J, the number of latents: yours counts one side.": total + step,
            "The volume of a cell is missing: a sum over the grid is no integral without it.": total,
            "You divide by the volume of a cell: each cell counts with its volume, so add its log.":
                [total - volume, total - step],
            "You multiply the log by the volume of a cell: take the log of the volume, and add it.":
                total * spacing**latent,
            "You add the volume itself: the log of a product is the sum of the logs, so add the log of the volume.":
                total + spacing**latent,
            "You take the mean over the grid: an integral is a sum over the cells.":
                [total - count + volume, total - count],
            "You subtract log G: a sum is G times the mean, so add it.": total - 2 * count + volume,
            "You add up the logs: add up p(x, z), and take the log of that sum.":
                [log_joint.sum(axis=0) + volume, log_joint.mean(axis=0) + volume],
            "You return p(x): return its logarithm.": np.exp(total + volume),
        })
        compare(f"the log p(x) by quadrature, J = {latent}, for an image with a probability of exp(-1500)",
                call(theirs, log_joint - 1500, spacing, latent), exact - 1500)


@task("04.6")
def log_weights(theirs):
    likelihood, joint, x, mu, logvar = images_and_encoder()
    eps = np.random.default_rng(7).normal(size=(5, 4, 3))
    sigma, variance, kl = np.exp(0.5 * logvar), np.exp(logvar), kl_divergence(mu, logvar).sum(axis=1)
    z = reparameterize(mu, logvar, eps)                                     # (5, 4, 3)
    log_q = gaussian(z, mu, logvar)
    right = joint(x, z) - log_q

    def at(z, log_q=None):
        return joint(x, z) - (gaussian(z, mu, logvar) if log_q is None else log_q)

    got = call(theirs, joint, x, mu, logvar, eps)
    compare("the log weights", got, right, {
        "Your z is mu: without the noise there is no expectation, and what comes out is no bound. z = mu + sigma * eps.":
            [np.broadcast_to(at(mu), right.shape), at(mu), at(mu + 0 * eps, log_q)],
        "You scale the noise by the variance exp(logvar): its standard deviation is exp(logvar / 2).":
            [at(mu + variance * eps), at(mu + variance * eps, gaussian(mu + variance * eps, mu, 2 * logvar))],
        "You scale the noise by logvar: sigma is exp(logvar / 2).": at(mu + logvar * eps),
        "Your noise is not scaled: multiply eps by sigma = exp(logvar / 2).":
            [at(mu + eps), at(mu + eps, gaussian(mu + eps, mu, 0.0))],
        "The mean is missing: z = mu + sigma * eps.":
            [at(sigma * eps), at(sigma * eps, gaussian(sigma * eps, 0.0, logvar))],
        "Your z is eps itself: z = mu + sigma * eps.": [at(eps), at(eps, gaussian(eps, 0.0, 0.0))],
        "log q(z|x) is missing: these are the logs of p(x, z).": joint(x, z),
        "You add log q(z|x): a weight is p(x, z) divided by q(z|x).": joint(x, z) + log_q,
        "Your weight is upside down: p(x, z) is above, q(z|x) below.": -right,
        "You divide by the density of eps: q(z|x) is that of z, N(z; mu, sigma^2), which also has log sigma.":
            at(z, gaussian(eps, 0.0, 0.0)),
        "You divide by the prior p(z): the draws come from q(z|x), so divide by that.": at(z, gaussian(z, 0.0, 0.0)),
        "You give log_normal sigma for the logvar of q(z|x).": at(z, gaussian(z, mu, sigma)),
        "You give log_normal the variance for the logvar of q(z|x).": at(z, gaussian(z, mu, variance)),
        "You add log p(z) once more: log_joint has it already.": right + gaussian(z, 0.0, 0.0),
        "You subtract the KL instead of log q(z|x): that is estimator B, and the joint has the prior once too often.":
            joint(x, z) - kl,
        "You subtract the KL as well: log q(z|x) and log p(z) are that KL already, draw by draw.": right - kl,
        "You return the weights: return their logs.": np.exp(right),
        "You average over the draws: return the log weight of each, (S, B).": right.mean(axis=0),
    })
    if np.allclose(call(theirs, joint, x, mu, logvar, 2 * eps), right, rtol=1e-8):
        raise Wrong("Your draws do not follow the eps that they are given: use it, instead of drawing noise of your own.")


@task("04.7")
def estimator_b(theirs):
    likelihood, joint, x, mu, logvar = images_and_encoder()
    eps = np.random.default_rng(8).normal(size=(5, 4, 3))
    each, sigma, variance = kl_divergence(mu, logvar), np.exp(0.5 * logvar), np.exp(logvar)      # (4, 3)
    kl, z = each.sum(axis=1), reparameterize(mu, logvar, eps)
    log_p, prior = likelihood(x, z), gaussian(z, 0.0, 0.0)                                       # (5, 4)
    mean = log_p.mean(axis=0)

    def with_kl(terms):
        return mean - 0.5 * terms.sum(axis=1)

    compare("estimator B", call(theirs, likelihood, x, mu, logvar, eps), mean - kl, {
        "Your KL has the wrong sign: the bound is the likelihood minus the KL, which is never negative.": mean + kl,
        "Your bound has the wrong sign: that is the loss.": kl - mean,
        "The KL is missing.": mean,
        "That is the KL alone: the likelihood is missing.": [kl, -kl],
        "You average the KL over the latents: they are independent, so their KLs add up.": mean - each.mean(axis=1),
        "You average the KL over the images: each image has its own.": [mean - kl.mean(), mean - each.mean(axis=0).sum()],
        "You sum the KL over the images too: each image has its own.": mean - each.sum(),
        "You divide the likelihood by the number of pixels: the bound wants their sum, as it comes.":
            [mean / x.shape[1] - kl],
        "Your KL is twice what it should be: the 1/2 is missing.": mean - 2 * kl,
        "Your KL is half of what it should be: is the 1/2 applied twice?": mean - 0.5 * kl,
        "You take logvar for sigma: sigma^2 is exp(logvar).":
            [with_kl(mu**2 + logvar**2 - 1 - np.log(logvar**2)), with_kl(mu**2 + logvar**2 - 1 - logvar)],
        "You take exp(logvar) for sigma in the KL; it is sigma^2 already.":
            [with_kl(mu**2 + variance**2 - 1 - part) for part in (logvar, 2 * logvar)],
        "The variance in the KL is exp(logvar); yours is exp(logvar / 2), which is sigma.":
            [with_kl(mu**2 + sigma - 1 - part) for part in (logvar, 0.5 * logvar)],
        "The term mu^2 is missing from the KL.": with_kl(variance - 1 - logvar),
        "The -1 is missing from the KL: at mu = 0, sigma = 1 it is 0.": with_kl(mu**2 + variance - logvar),
        "Your z is mu: without the noise there is no expectation, and what comes out is no bound. z = mu + sigma * eps.":
            likelihood(x, mu) - kl,
        "You scale the noise by the variance exp(logvar): its standard deviation is exp(logvar / 2).":
            likelihood(x, mu + variance * eps).mean(axis=0) - kl,
        "You scale the noise by logvar: sigma is exp(logvar / 2).": likelihood(x, mu + logvar * eps).mean(axis=0) - kl,
        "Your noise is not scaled: multiply eps by sigma = exp(logvar / 2).": likelihood(x, mu + eps).mean(axis=0) - kl,
        "The mean is missing: z = mu + sigma * eps.": likelihood(x, sigma * eps).mean(axis=0) - kl,
        "That is the log of the mean likelihood: in the bound the mean is of log p(x|z), outside the log.":
            logsumexp(log_p, axis=0) - math.log(5) - kl,
        "You add up the draws: take their mean.": [log_p.sum(axis=0) - kl, (log_p - kl).sum(axis=0)],
        "You return the bound of every draw: take the mean over the draws, (B,).": log_p - kl,
        "You average over the images too: each has its own bound, (B,).": (mean - kl).mean(),
        "You count the prior twice: the KL has it, so the first term is log p(x|z) alone.":
            (log_p + prior).mean(axis=0) - kl,
        "You return estimator A: in B the KL is the closed form.": (joint(x, z) - gaussian(z, mu, logvar)).mean(axis=0),
        "Your KL is one for each latent: sum it over them.": mean[:, None] - each,
    })
    twice = reparameterize(mu, logvar, 2 * eps)
    compare("estimator B for other noise (do you use the eps that you are given?)",
            call(theirs, likelihood, x, mu, logvar, 2 * eps), likelihood(x, twice).mean(axis=0) - kl)


@task("04.8")
def kl_on_grid(theirs):
    for latent in (2, 1):
        log_joint, log_q, spacing, log_p = grid_case(latent)
        volume, q, log_posterior = spacing**latent, np.exp(log_q), log_joint - log_p
        right = (q * (log_q - log_posterior)).sum(axis=0) * volume
        bound = (q * (log_joint - log_q)).sum(axis=0) * volume                  # the ELBO
        p = np.exp(log_posterior)
        compare(f"KL(q(z|x) || p(z|x)) on a grid, J = {latent},", call(theirs, log_q, log_joint, spacing, latent), right, {
            "That is minus the ELBO: you compare q with p(x, z). The true posterior is p(x, z) / p(x): subtract log p(x).":
                -bound,
            "That is the ELBO: it compares with p(x, z), and has the other sign.": bound,
            "Your KL has the wrong sign: it is never negative, since q stands above and p(z|x) below.": -right,
            "You weight with the true posterior: that is the KL the other way round, of p(z|x) from q(z|x), or minus that.":
                [(p * (log_posterior - log_q)).sum(axis=0) * volume, (p * (log_q - log_posterior)).sum(axis=0) * volume],
            "You weight with p(x, z): the expectation is under q.":
                (np.exp(log_joint) * (log_q - log_posterior)).sum(axis=0) * volume,
            "Nothing is weighted: multiply the difference of the logs by q(z|x) at each point of the grid.":
                [(log_q - log_posterior).sum(axis=0) * volume, (log_q - log_posterior).mean(axis=0)],
            "You weight with log q: the weight is q itself, exp(log_q).":
                (log_q * (log_q - log_posterior)).sum(axis=0) * volume,
            "The volume of a cell is missing.": right / volume,
            "The volume of a cell is spacing to the power J, the number of latents: yours counts one side.":
                right / volume * spacing,
            "You take the mean over the grid: an integral is a sum over the cells, times their volume.":
                [right / volume / len(log_q), right / len(log_q)],
            "log q(z|x) is missing from the difference: that is the cross-entropy.":
                -(q * log_posterior).sum(axis=0) * volume,
            "You return every term: sum over the grid.":
                [q * (log_q - log_posterior), q * (log_q - log_posterior) * volume],
            "You add log p(x) where it is subtracted: p(z|x) is p(x, z) divided by p(x).":
                (q * (log_q - log_joint - log_p)).sum(axis=0) * volume,
        })


@task("04.9")
def importance_weighted_bound(theirs):
    log_w = np.random.default_rng(9).normal(0, 2, (12, 5))                      # S = 12, B = 5
    for k in (4, 1, 12):
        groups = log_w.reshape(-1, k, 5)                                        # (12 / k, k, 5)
        apart = log_w.reshape(k, -1, 5).swapaxes(0, 1)                          # every (12 / k)th draw: a bound as good
        each, others = (logsumexp(some, axis=1) - math.log(k) for some in (groups, apart))      # (12 / k, 5)
        got = call(theirs, log_w, k)
        right = others.mean(axis=0) if same(got, others.mean(axis=0)) else each.mean(axis=0)
        compare(f"L_k for k = {k}", got, right, {
            "That is the mean of the logs, the ELBO whatever k is: nothing is gained from k. The mean over the k draws "
            "comes inside the log.": [log_w.mean(axis=0), groups.mean(axis=1)],
            "That is the log of the mean over all draws, L_S: make groups of k, and take the plain mean over the groups.":
                logsumexp(log_w, axis=0) - math.log(12),
            "You use the first group only: take the mean over all groups, it scatters less.": [each[0], others[0]],
            "You add up the k weights of a group: for their mean subtract log k.": (each + math.log(k)).mean(axis=0),
            "You subtract log S: a group has k draws, so subtract log k.": (each + math.log(k) - math.log(12)).mean(axis=0),
            "You add up the logs of a group, which multiplies its weights: they are averaged.":
                [groups.sum(axis=1).mean(axis=0), groups.sum(axis=1).mean(axis=0) - math.log(k)],
            "You keep the largest weight of each group: average them.": groups.max(axis=1).mean(axis=0),
            "You have S / k draws in a group, and k groups: it is the other way round.":
                [logsumexp(some, axis=1).mean(axis=0) - math.log(12 // k)
                 for some in (log_w.reshape(k, -1, 5), log_w.reshape(-1, k, 5).swapaxes(0, 1))],
            "You add up the groups: take their mean.": [each.sum(axis=0), others.sum(axis=0)],
            "You return the bound of each group: take the mean over the groups, (B,).": [each, others, each.T, others.T],
            "You average over the images too: each has its own bound, (B,).": each.mean(),
            "You return the mean weight: take its log.": [np.exp(each).mean(axis=0), np.exp(each.mean(axis=0))],
        })
    compare("L_4 for weights near exp(-1500)", call(theirs, log_w - 1500, 4), np.asarray(call(theirs, log_w, 4)) - 1500)


def same(got, right) -> bool:
    """Whether an answer of any kind is the array `right`."""
    return np.shape(got) == right.shape and np.asarray(got).dtype.kind in "fiu" and np.allclose(got, right, rtol=1e-8)
