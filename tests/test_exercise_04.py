"""Exercise 04: every named mistake is answered with a sentence of its own, and lookalikes of the right answer are wrong."""

import math

import numpy as np
import pytest
from scipy.special import logsumexp

from exercises.checks.elbo import gaussian, grid_case, images_and_encoder
from exercises.checks.verdict import SOLVED, TASKS, WRONG


def square(x, mean, logvar, log_part=None, square_part=None):
    """The Gaussian's log density with another log sigma^2 or another (x - mean)^2 / sigma^2."""
    log_part = logvar if log_part is None else log_part
    square_part = (x - mean) ** 2 / np.exp(logvar) if square_part is None else square_part
    return -0.5 * (math.log(2 * math.pi) + log_part + square_part)


def normal(x, mean, logvar):
    return square(x, mean, logvar).sum(axis=-1)


def standard(z):
    return normal(z, 0, 0)


def log_joint(x, z, weight, bias, logvar):
    return normal(x, z @ weight.T + bias, logvar) + standard(z)


def mean_exp(a, axis=0):
    return logsumexp(a, axis=axis) - math.log(a.shape[axis])


def from_prior(likelihood, x, z):
    return mean_exp(likelihood(x, z))


def quadrature(log_p, spacing, latent):
    return logsumexp(log_p, axis=0) + latent * math.log(spacing)


def draw(mu, logvar, eps):
    return mu + np.exp(0.5 * logvar) * eps


def weights(joint, x, mu, logvar, eps):
    z = draw(mu, logvar, eps)
    return joint(x, z) - normal(z, mu, logvar)


def at(joint, x, z, mu, logvar):
    return joint(x, z) - normal(z, mu, logvar)


def kls(mu, logvar, variance=None, log_variance=None):
    variance = np.exp(logvar) if variance is None else variance
    return 0.5 * (mu**2 + variance - 1 - (logvar if log_variance is None else log_variance))


def kl(mu, logvar):
    return kls(mu, logvar).sum(axis=1)


def expected(likelihood, x, mu, logvar, eps):
    return likelihood(x, draw(mu, logvar, eps)).mean(axis=0)


def estimate_b(likelihood, x, mu, logvar, eps):
    return expected(likelihood, x, mu, logvar, eps) - kl(mu, logvar)


def gap(log_q, log_p, spacing, latent):
    log_posterior = log_p - quadrature(log_p, spacing, latent)
    return (np.exp(log_q) * (log_q - log_posterior)).sum(axis=0) * spacing**latent


def reverse_gap(log_q, log_p, spacing, latent):
    log_posterior = log_p - quadrature(log_p, spacing, latent)
    return (np.exp(log_posterior) * (log_posterior - log_q)).sum(axis=0) * spacing**latent


def groups_of(log_w, k):
    return log_w.reshape(-1, k, log_w.shape[1])


def bound(log_w, k):
    return mean_exp(groups_of(log_w, k), axis=1).mean(axis=0)


def own_noise(joint, x, mu, logvar, eps):
    return weights(joint, x, mu, logvar, np.random.default_rng(7).normal(size=eps.shape))


RIGHT = {"log_normal": normal, "linear_log_joint": log_joint, "log_mean_exp": mean_exp, "log_p_from_prior": from_prior,
         "log_p_by_quadrature": quadrature, "log_weights": weights, "estimator_b": estimate_b, "kl_on_grid": gap,
         "importance_weighted_bound": bound}

MISTAKES = {
    "log_normal": [
        (lambda x, m, v: square(x, m, v).mean(axis=-1), "mean over the pixels"),
        (lambda x, m, v: square(x, m, v).sum(), "sum over all axes"),
        (lambda x, m, v: square(x, m, v), "sum is missing"),
        (lambda x, m, v: np.exp(normal(x, m, v)), "That is the density"),
        (lambda x, m, v: -normal(x, m, v), "wrong sign"),
        (lambda x, m, v: 2 * normal(x, m, v), "1/2 is missing"),
        (lambda x, m, v: normal(x, m, v) + 1.5 * math.log(2 * math.pi), "constant log(2 pi) is missing"),
        (lambda x, m, v: normal(x, m, v) + math.log(2 * math.pi), "count log(2 pi) once"),
        (lambda x, m, v: square(x, m, 2 * v).sum(axis=-1), "exp(logvar) for sigma"),
        (lambda x, m, v: square(x, m, v, v, (x - m)**2 / np.exp(2 * v)).sum(axis=-1), "exp(logvar) for sigma"),
        (lambda x, m, v: square(x, m, np.log(v**2)).sum(axis=-1), "You take logvar for sigma:"),
        (lambda x, m, v: square(x, m, v, v, (x - m)**2 / v**2).sum(axis=-1), "You take logvar for sigma:"),
        (lambda x, m, v: square(x, m, v, v, (x - m)**2 / v).sum(axis=-1), "logvar for sigma^2"),
        (lambda x, m, v: square(x, m, v / 2).sum(axis=-1), "divide by sigma = "),
        (lambda x, m, v: square(x, m, v, v, (x - m)**2 / np.exp(v / 2)).sum(axis=-1), "divide by sigma = "),
        (lambda x, m, v: square(x, m, v, v / 2).sum(axis=-1), "halved once more"),
        (lambda x, m, v: square(x, m, v, v, (x - m)**2 * np.exp(v)).sum(axis=-1), "multiply by sigma^2"),
        (lambda x, m, v: square(x, m, v, 0).sum(axis=-1), "log sigma^2 is missing"),
        (lambda x, m, v: square(x, m, v, v, (x - m) / np.exp(v)).sum(axis=-1), "not squared"),
        (lambda x, m, v: -0.5 * (v.sum(axis=-1) + square(x, m, v, 0).sum(axis=-1) * -2), "stops with AttributeError where"),
        (lambda x, m, v: square(x, m, v, 0).sum(axis=-1) - 0.5 * np.atleast_1d(v).sum(axis=-1), "counts it once"),
    ],
    "linear_log_joint": [
        (lambda x, z, w, b, v: normal(x, z @ w.T + b, v), "You return log p(x|z)"),
        (lambda x, z, w, b, v: standard(z), "You return log p(z)"),
        (lambda x, z, w, b, v: normal(x, z @ w.T + b, v) - standard(z), "subtract log p(z)"),
        (lambda x, z, w, b, v: normal(x, z @ w.T + b, v) * standard(z), "multiply the two logs"),
        (lambda *case: np.exp(log_joint(*case)), "return the density"),
        (lambda x, z, w, b, v: log_joint(x, z, w, 0, v), "bias is missing"),
        (lambda x, z, w, b, v: normal(x, z @ w.T + b, v) + normal(z, 0, v), "noise of the pixels"),
        (lambda x, z, w, b, v: log_joint(x, z, w, b, 0), "the logvar that is given"),
        (lambda x, z, w, b, v: log_joint(x, z, w, b, v) + standard(z), "prior twice"),
        # an image with its own draws: where all share the draws, z (S, 1, J), the prior is counted once for them together
        (lambda x, z, w, b, v: normal(x, z @ w.T + b, v) + standard(z) / (len(x) // z.shape[1]), "share the draws"),
    ],
    "log_mean_exp": [
        (lambda a: a.mean(axis=0), "mean of the logs"),
        (lambda a: logsumexp(a, axis=0), "log of the sum"),
        (lambda a: logsumexp(a, axis=0) / len(a), "divide the log of the sum"),
        (lambda a: logsumexp(a, axis=0) + math.log(len(a)), "add log S where"),
        (lambda a: a.sum(axis=0), "log of the product"),
        (lambda a: a.max(axis=0), "largest alone"),
        (lambda a: mean_exp(a - a.max(axis=0)), "not put back"),
        (lambda a: mean_exp(a) - a.max(axis=0) + a.min(axis=0), "put the smallest back"),
        (lambda a: np.exp(mean_exp(a)), "mean itself"),
        (lambda a: logsumexp(a) - math.log(a.size), "average over everything"),
        (lambda a: mean_exp(a, axis=-1), "last axis"),
        (lambda a: mean_exp(a, axis=1), "average over axis 1"),
        (lambda a: np.log(np.exp(a).mean(axis=0)), "exp(-2000) is 0"),
        (lambda a: np.log(np.exp(a - a.min(axis=0)).mean(axis=0)) + a.min(axis=0) if a.mean() < 1000
          else np.log(np.exp(a).mean(axis=0)), "exp(2000) is infinity"),
        (lambda a: np.log(np.exp(a - a.max()).mean(axis=0)) + a.max(), "its own largest"),
    ],
    "log_p_from_prior": [
        (lambda p, x, z: p(x, z).mean(axis=0), "mean of log p(x|z)"),
        (lambda p, x, z: mean_exp(p(x, z) + standard(z)), "count p(z) twice"),
        (lambda p, x, z: mean_exp(p(x, z)) + mean_exp(standard(z)), "count p(z) twice"),
        (lambda p, x, z: mean_exp(p(x, z) - standard(z)), "divide by p(z)"),
        (lambda p, x, z: p(x, z).sum(axis=0), "multiply the probabilities"),
        (lambda p, x, z: logsumexp(p(x, z), axis=0), "subtract log S"),
        (lambda p, x, z: np.exp(p(x, z)).mean(axis=0), "You return p(x)"),
        (lambda p, x, z: logsumexp(p(x, z)) - math.log(p(x, z).size), "over the images too"),
        (lambda p, x, z: p(x, z), "of every draw"),
        (lambda p, x, z: p(x, z).max(axis=0), "best draw"),
        (lambda p, x, z: np.log(np.exp(p(x, z)).mean(axis=0)), "exp(-1500) holds NaN or infinity"),
        (lambda p, x, z: from_prior(p, x, np.random.default_rng(0).normal(size=z.shape)), "off by"),
    ],
    "log_p_by_quadrature": [
        (lambda a, h, J: logsumexp(a, axis=0) + math.log(h), "yours counts one side"),
        (lambda a, h, J: logsumexp(a, axis=0), "volume of a cell is missing"),
        (lambda a, h, J: logsumexp(a, axis=0) - J * math.log(h), "divide by the volume"),
        (lambda a, h, J: logsumexp(a, axis=0) * h**J, "multiply the log"),
        (lambda a, h, J: logsumexp(a, axis=0) + h**J, "add the volume itself"),
        (lambda a, h, J: mean_exp(a) + J * math.log(h), "mean over the grid"),
        (lambda a, h, J: mean_exp(a) - math.log(len(a)) + J * math.log(h), "subtract log G"),
        (lambda a, h, J: a.sum(axis=0) + J * math.log(h), "add up the logs"),
        (lambda a, h, J: np.exp(a).sum(axis=0) * h**J, "You return p(x)"),
        (lambda a, h, J: np.log(np.exp(a).sum(axis=0) * h**J), "exp(-1500) holds NaN or infinity"),
    ],
    "log_weights": [
        (lambda p, x, m, v, e: at(p, x, m + 0 * e, m, v), "Your z is mu"),
        (lambda p, x, m, v, e: p(x, m) - normal(m, m, v), "Your z is mu"),
        (lambda p, x, m, v, e: at(p, x, m + np.exp(v) * e, m, v), "by the variance"),
        (lambda p, x, m, v, e: at(p, x, m + np.exp(v) * e, m, 2 * v), "by the variance"),
        (lambda p, x, m, v, e: at(p, x, m + v * e, m, v), "scale the noise by logvar"),
        (lambda p, x, m, v, e: at(p, x, m + e, m, v), "not scaled"),
        (lambda p, x, m, v, e: at(p, x, draw(0, v, e), m, v), "mean is missing"),
        (lambda p, x, m, v, e: at(p, x, e, m, v), "Your z is eps"),
        (lambda p, x, m, v, e: p(x, draw(m, v, e)), "log q(z|x) is missing"),
        (lambda p, x, m, v, e: p(x, draw(m, v, e)) + normal(draw(m, v, e), m, v), "You add log q"),
        (lambda *case: -weights(*case), "upside down"),
        (lambda p, x, m, v, e: p(x, draw(m, v, e)) - standard(e), "density of eps"),
        (lambda p, x, m, v, e: p(x, draw(m, v, e)) - standard(draw(m, v, e)), "divide by the prior"),
        (lambda p, x, m, v, e: at(p, x, draw(m, v, e), m, np.exp(v / 2)), "sigma for the logvar"),
        (lambda p, x, m, v, e: at(p, x, draw(m, v, e), m, np.exp(v)), "the variance for the logvar"),
        (lambda p, x, m, v, e: weights(p, x, m, v, e) + standard(draw(m, v, e)), "add log p(z) once more"),
        (lambda p, x, m, v, e: p(x, draw(m, v, e)) - kl(m, v), "the KL instead"),
        (lambda p, x, m, v, e: weights(p, x, m, v, e) - kl(m, v), "subtract the KL as well"),
        (lambda *case: np.exp(weights(*case)), "return the weights"),
        (lambda *case: weights(*case).mean(axis=0), "average over the draws"),
        (own_noise, "noise of your own"),
        (lambda p, x, m, v, e: weights(p, x, m, v, np.multiply(e, 2, out=e)), "argument number 5"),
    ],
    "estimator_b": [
        (lambda p, x, m, v, e: expected(p, x, m, v, e) + kl(m, v), "KL has the wrong sign"),
        (lambda *case: -estimate_b(*case), "that is the loss"),
        (expected, "The KL is missing"),
        (lambda p, x, m, v, e: -kl(m, v), "the KL alone"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) - kls(m, v).mean(axis=1), "KL over the latents"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) - kls(m, v).sum(axis=1).mean(), "average the KL over the images"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) - kls(m, v).sum(), "sum the KL over the images"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) / x.shape[1] - kl(m, v), "number of pixels"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) - 2 * kl(m, v), "1/2 is missing"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) - kl(m, v) / 2, "applied twice"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) - kls(m, v, v**2, np.log(v**2)).sum(axis=1), "logvar for sigma"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) - kls(m, v, np.exp(2 * v)).sum(axis=1), "exp(logvar) for sigma"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) - kls(m, v, np.exp(v / 2)).sum(axis=1), "which is sigma"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) - kls(0 * m, v).sum(axis=1), "mu^2 is missing"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e) - (kls(m, v) + 0.5).sum(axis=1), "-1 is missing"),
        (lambda p, x, m, v, e: p(x, m) - kl(m, v), "Your z is mu"),
        (lambda p, x, m, v, e: p(x, m + np.exp(v) * e).mean(axis=0) - kl(m, v), "by the variance"),
        (lambda p, x, m, v, e: p(x, m + v * e).mean(axis=0) - kl(m, v), "scale the noise by logvar"),
        (lambda p, x, m, v, e: p(x, m + e).mean(axis=0) - kl(m, v), "not scaled"),
        (lambda p, x, m, v, e: p(x, draw(0, v, e)).mean(axis=0) - kl(m, v), "mean is missing"),
        (lambda p, x, m, v, e: mean_exp(p(x, draw(m, v, e))) - kl(m, v), "log of the mean likelihood"),
        (lambda p, x, m, v, e: p(x, draw(m, v, e)).sum(axis=0) - kl(m, v), "add up the draws"),
        (lambda p, x, m, v, e: p(x, draw(m, v, e)) - kl(m, v), "bound of every draw"),
        (lambda *case: estimate_b(*case).mean(), "average over the images too"),
        (lambda p, x, m, v, e: estimate_b(p, x, m, v, e) + standard(draw(m, v, e)).mean(axis=0), "prior twice"),
        (lambda p, x, m, v, e: (p(x, draw(m, v, e)) + standard(draw(m, v, e))
                                                - normal(draw(m, v, e), m, v)).mean(axis=0), "estimator A"),
        (lambda p, x, m, v, e: expected(p, x, m, v, e)[:, None] - kls(m, v), "one for each latent"),
        (lambda p, x, m, v, e: estimate_b(p, x, m, v, np.random.default_rng(8).normal(size=e.shape)), "the eps that you"),
    ],
    "kl_on_grid": [
        (lambda q, p, h, J: (np.exp(q) * (q - p)).sum(axis=0) * h**J, "minus the ELBO"),
        (lambda q, p, h, J: (np.exp(q) * (p - q)).sum(axis=0) * h**J, "That is the ELBO"),
        (lambda *case: -gap(*case), "wrong sign"),
        (reverse_gap, "other way round"),
        (lambda q, p, h, J: (np.exp(p) * (q - p + quadrature(p, h, J))).sum(axis=0) * h**J, "weight with p(x, z)"),
        (lambda q, p, h, J: (q - p + quadrature(p, h, J)).sum(axis=0) * h**J, "Nothing is weighted"),
        (lambda q, p, h, J: (q * (q - p + quadrature(p, h, J))).sum(axis=0) * h**J, "weight with log q"),
        (lambda q, p, h, J: gap(q, p, h, J) / h**J, "volume of a cell is missing"),
        (lambda q, p, h, J: gap(q, p, h, J) / h**J * h, "yours counts one side"),
        (lambda q, p, h, J: gap(q, p, h, J) / h**J / len(q), "mean over the grid"),
        (lambda q, p, h, J: -(np.exp(q) * (p - quadrature(p, h, J))).sum(axis=0) * h**J, "cross-entropy"),
        (lambda q, p, h, J: np.exp(q) * (q - p + quadrature(p, h, J)), "return every term"),
        (lambda q, p, h, J: (np.exp(q) * (q - p - quadrature(p, h, J))).sum(axis=0) * h**J, "add log p(x) where"),
    ],
    "importance_weighted_bound": [
        (lambda a, k: a.mean(axis=0), "mean of the logs"),
        (lambda a, k: mean_exp(a), "log of the mean over all draws"),
        (lambda a, k: mean_exp(mean_exp(groups_of(a, k), axis=1)), "log of the mean over all draws"),
        (lambda a, k: mean_exp(a[:k]), "first group only"),
        (lambda a, k: logsumexp(groups_of(a, k), axis=1).mean(axis=0), "subtract log k"),
        (lambda a, k: logsumexp(groups_of(a, k), axis=1).mean(axis=0) - math.log(len(a)), "subtract log S"),
        (lambda a, k: groups_of(a, k).sum(axis=1).mean(axis=0), "multiplies its weights"),
        (lambda a, k: groups_of(a, k).max(axis=1).mean(axis=0), "largest weight"),
        (lambda a, k: bound(a, len(a) // k), "S / k draws in a group"),
        (lambda a, k: mean_exp(groups_of(a, k), axis=1).sum(axis=0), "add up the groups"),
        (lambda a, k: mean_exp(groups_of(a, k), axis=1), "bound of each group"),
        (lambda a, k: bound(a, k).mean(), "average over the images too"),
        (lambda a, k: np.exp(groups_of(a, k)).mean(axis=(0, 1)), "return the mean weight"),
        (lambda a, k: np.log(np.exp(groups_of(a, k)).mean(axis=1)).mean(axis=0), "NaN or infinity"),
    ],
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")               # mistakes overflow, which is what is wrong with them
@pytest.mark.parametrize(("name", "theirs", "words"), [
    pytest.param(name, theirs, words, id=f"{name}: {words}")
    for name, mistakes in MISTAKES.items() for theirs, words in mistakes])
def test_a_mistake_is_named(name, theirs, words):
    verdict = TASKS[name].judge(theirs)
    assert verdict.state == WRONG and words in verdict.message, verdict


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_answer_of_another_hand_is_solved(name):
    verdict = TASKS[name].judge(RIGHT[name])
    assert verdict.state == SOLVED, verdict


def test_groups_of_every_so_many_draws_are_as_good():
    def strided(log_w, k):
        return mean_exp(log_w.reshape(k, -1, log_w.shape[1])).mean(axis=0)
    assert TASKS["importance_weighted_bound"].judge(strided).state == SOLVED


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("change", [
    lambda a: a * (1 + 1e-6), lambda a: a + 1e-6, lambda a: a[..., ::-1], lambda a: a[:1] + 0 * a, lambda a: a[None],
    lambda a: a - a.mean(), lambda a: np.abs(a), lambda a: "words", lambda a: np.zeros_like(a),
], ids=["scaled", "shifted", "reversed", "repeated", "an axis more", "centered", "absolute", "words", "zeros"])
def test_a_lookalike_is_wrong(name, change):
    def lookalike(*case):
        answer = RIGHT[name](*case)
        changed = change(answer)
        return changed if isinstance(changed, str) or not np.array_equal(changed, answer) else answer + 1
    assert TASKS[name].judge(lookalike).state == WRONG


@pytest.mark.parametrize("latent", [1, 2])
def test_the_checks_grid_gives_the_log_p_of_the_formula(latent):
    log_p, log_q, spacing, exact = grid_case(latent)
    np.testing.assert_allclose(quadrature(log_p, spacing, latent), exact, rtol=0, atol=1e-12)
    np.testing.assert_allclose(quadrature(log_q, spacing, latent), 0, atol=1e-12)


def test_the_identity_holds_in_the_case_of_the_checks():
    """log p(x) = ELBO + KL(q || p(z|x)), to within five standard errors of the ELBO by 100,000 draws."""
    likelihood, joint, x, mu, logvar = images_and_encoder()
    eps = np.random.default_rng(0).normal(size=(100_000, 4, 3))
    log_w = weights(joint, x, mu, logvar, eps)
    axis = np.arange(-20, 21) * 0.25                                # 1.4 sd of the true posterior where it is narrowest
    z = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    log_p, log_q = joint(x, z), gaussian(z, mu, logvar)
    difference = quadrature(log_p, 0.25, 3) - log_w.mean(axis=0) - gap(log_q, log_p, 0.25, 3)
    assert np.all(np.abs(difference) < 5 * log_w.std(axis=0) / math.sqrt(len(eps)))
