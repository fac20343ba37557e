"""Exercise 05: every named mistake is answered with a sentence of its own."""

import numpy as np
import pytest

from exercises.checks.beta_and_collapse import weight_of_the_kl
from exercises.checks.verdict import TASKS, WRONG


def elbo_parts(log_likelihood, kl):
    return log_likelihood, kl.sum(axis=1)


def error_of(x, mean):
    return ((x - mean) ** 2).sum(axis=1)


def line(share, warmup):
    return share / warmup if warmup else 1.0


def rise(share, warmup):
    return min(1.0, line(share, warmup))


def inside(share, cycles):
    return share * cycles % 1


def rows(mask, kl):
    return np.broadcast_to(mask, kl.shape) / len(kl)


def in_place(log_likelihood, kl, beta):
    kl *= beta
    return (kl.sum(axis=1) - log_likelihood).mean()


def torch_like_gradient(kl, free):
    """What autograd gives for maximum(mean, free): half where both are equal."""
    kl_j = kl.mean(axis=0)
    return rows(np.where(kl_j == free, 0.5, kl_j > free), kl)


MISTAKES = [
    ("beta_loss", lambda ll, kl, beta: (kl.sum(axis=1) - ll).mean(), "never used"),
    ("beta_loss", lambda ll, kl, beta: (kl.sum(axis=1) - beta * ll).mean(), "weights the likelihood"),
    ("beta_loss", lambda ll, kl, beta: beta * (kl.sum(axis=1) - ll).mean(), "weights both"),
    ("beta_loss", lambda ll, kl, beta: (kl.sum(axis=1) / max(beta, 1e-9) - ll).mean(), "divide the KL by beta"),
    ("beta_loss", lambda ll, kl, beta: beta * kl.mean() - ll.mean(), "average the KL over the latents"),
    ("beta_loss", lambda ll, kl, beta: (beta * kl.mean(axis=1) - ll).mean(), "average the KL over the latents"),
    ("beta_loss", lambda ll, kl, beta: (ll - beta * kl.sum(axis=1)).mean(), "maximize"),
    ("beta_loss", lambda ll, kl, beta: (ll + beta * kl.sum(axis=1)).mean(), "log-likelihood has the wrong sign"),
    ("beta_loss", lambda ll, kl, beta: -(ll + beta * kl.sum(axis=1)).mean(), "KL has the wrong sign"),
    ("beta_loss", lambda ll, kl, beta: (beta * kl.sum(axis=1) - ll).sum(), "sum over the images"),
    ("beta_loss", lambda ll, kl, beta: beta * kl.sum() - ll.mean(), "sum over the images"),
    ("beta_loss", lambda ll, kl, beta: beta * kl.sum(axis=1) - ll, "loss of each image"),
    ("beta_loss", lambda ll, kl, beta: (3.5 * kl.sum(axis=1) - ll).mean(), "beta = 0.25"),
    ("beta_loss", lambda ll, kl, beta: (max(beta, 1) * kl.sum(axis=1) - ll).mean(), "beta = 0.25"),
    ("beta_loss", lambda ll, kl, beta: (np.sqrt(beta) * kl.sum(axis=1) - ll).mean(), "off by"),
    ("beta_loss", in_place, "argument number 2"),
    ("beta_loss", lambda ll, kl, beta: None, "return"),
    ("beta_loss", lambda ll, kl, beta: elbo_parts(ll, kl), "shape"),
    ("mse_loss", lambda x, m, kl, beta: ((x - m) ** 2).mean() + beta * kl.sum(axis=1).mean(), "a beta of D in disguise"),
    ("mse_loss", lambda x, m, kl, beta: error_of(x, m).mean() + beta * kl.mean(), "beta / J in disguise"),
    ("mse_loss", lambda x, m, kl, beta: ((x - m) ** 2).mean() + beta * kl.mean(), "beta D / J"),
    ("mse_loss", lambda x, m, kl, beta: (error_of(x, m) + beta * kl.sum(axis=1)).sum(), "sum over the images"),
    ("mse_loss", lambda x, m, kl, beta: error_of(x, m).mean() + beta * kl.sum(), "sum over the images"),
    ("mse_loss", lambda x, m, kl, beta: error_of(x, m) + beta * kl.sum(axis=1), "loss of each image"),
    ("mse_loss", lambda x, m, kl, beta: (error_of(x, m) + kl.sum(axis=1)).mean(), "never used"),
    ("mse_loss", lambda x, m, kl, beta: (beta * error_of(x, m) + kl.sum(axis=1)).mean(), "weights the squared error"),
    ("mse_loss", lambda x, m, kl, beta: (error_of(x, m) / 2 + beta * kl.sum(axis=1)).mean(), "halve"),
    ("mse_loss", lambda x, m, kl, beta: (np.abs(x - m).sum(axis=1) + beta * kl.sum(axis=1)).mean(), "absolute"),
    ("mse_loss", lambda x, m, kl, beta: (error_of(x, m)**0.5 + beta * kl.sum(axis=1)).mean(), "root"),
    ("mse_loss", lambda x, m, kl, beta: (error_of(x, m) - beta * kl.sum(axis=1)).mean(), "KL has the wrong sign"),
    ("mse_loss", lambda x, m, kl, beta: (beta * kl.sum(axis=1) - error_of(x, m)).mean(), "error has the wrong sign"),
    ("mse_loss", lambda x, m, kl, beta: (error_of(x, m) + 3.5 * kl.sum(axis=1)).mean(), "beta = 0.25"),
    ("beta_of", lambda sigma: sigma**2, "is lost"),
    ("beta_of", lambda sigma: 1 / (2 * sigma**2), "weight of the squared errors"),
    ("beta_of", lambda sigma: 1 / sigma**2, "falls with sigma"),
    ("beta_of", lambda sigma: 2 * sigma, "for the variance"),
    ("beta_of", lambda sigma: sigma, "for the variance"),
    ("beta_of", lambda sigma: sigma**2 / 2, "Half of sigma^2"),
    ("beta_of", lambda sigma: 2 * np.log(sigma), "logarithm of the variance"),
    ("beta_of", lambda sigma: 0.5 * np.log(2 * np.pi * sigma**2), "constant"),
    ("beta_of", lambda sigma: 2.0, "off by"),
    ("beta_of", lambda sigma: 4 * sigma**2, "2 times"),
    ("hidden_beta", lambda D, J, p, z: (1 / D if p else 1) * (J if z else 1), "The wrong way round"),
    ("hidden_beta", lambda D, J, p, z: (1 / D if p else 1) / (J if z else 1), "mean over the pixels makes"),
    ("hidden_beta", lambda D, J, p, z: (D if p else 1) * (J if z else 1), "mean over the latents makes"),
    ("hidden_beta", lambda D, J, p, z: D if p else 1, "leave out the mean over the latents"),
    ("hidden_beta", lambda D, J, p, z: 1 / J if z else 1, "leave out the mean over the pixels"),
    ("hidden_beta", lambda D, J, p, z: D if p else 1 / J if z else 1, "act together"),
    ("hidden_beta", lambda D, J, p, z: (J if p else 1) / (D if z else 1), "exchanged"),
    ("hidden_beta", lambda D, J, p, z: (D if p else 1) // (J if z else 1), "off by"),
    ("hidden_beta", lambda D, J, p, z: (12 if p else 1) / (5 if z else 1), "784 pixels"),
    ("warm_up", lambda share, warmup: share, "never reaches 1"),
    ("warm_up", lambda share, warmup: share * warmup, "multiply by warmup"),
    ("warm_up", lambda share, warmup: min(share, warmup), "stops at `warmup`"),
    ("warm_up", lambda share, warmup: 0.9 * rise(share, warmup), "never reaches 1, its largest weight is 0.9:"),
    ("warm_up", lambda share, warmup: min(0.99, line(share, warmup)), "never reaches 1, its largest weight is 0.99"),
    ("warm_up", lambda share, warmup: max(1.0, line(share, warmup)), "take the smaller one"),
    ("warm_up", lambda share, warmup: 1 - rise(share, warmup), "starts at 1"),
    ("warm_up", lambda share, warmup: 1.0, "1 all the time"),
    ("warm_up", lambda share, warmup: max(0.5, 1 - share), "starts at 1"),
    ("warm_up", lambda share, warmup: float(share >= warmup), "jumps"),
    ("warm_up", lambda share, warmup: line(share, warmup) * (share <= warmup), "goes back to 0"),
    ("warm_up", line, "goes past 1"),
    ("warm_up", lambda share, warmup: line(share, warmup) % 1, "again and again"),
    ("warm_up", lambda share, warmup: rise(share, warmup)**2, "off by"),
    ("warm_up", lambda share, warmup: np.sin(np.pi / 2 * rise(share, warmup)), "off by"),
    ("warm_up", lambda share, warmup: min(1.0, share / warmup), "divide by a warmup of 0"),
    ("warm_up", lambda share, warmup: rise(share, warmup) if warmup else 0.0, "where warmup is 0"),
    ("cyclical", lambda share, cycles, warmup: rise(share, warmup), "rises once"),
    ("cyclical", lambda share, cycles, warmup: rise(share * cycles, warmup), "rises once"),
    ("cyclical", lambda share, cycles, warmup: rise(share % (1 / cycles), warmup), "share of the whole training"),
    ("cyclical", lambda share, cycles, warmup: inside(share, cycles), "to the end of each cycle"),
    ("cyclical", lambda share, cycles, warmup: line(share * cycles, warmup) % 1, "after the division"),
    ("cyclical", lambda share, cycles, warmup: rise(share / cycles % 1, warmup), "multiply"),
    ("cyclical", lambda share, cycles, warmup: 1 - rise(inside(share, cycles), warmup), "starts at 1"),
    ("cyclical", lambda share, cycles, warmup: line(inside(share, cycles), warmup), "goes past 1"),
    ("cyclical", lambda share, cycles, warmup: 1.0, "1 all the time"),
    ("cyclical", lambda share, cycles, warmup: min(0.98, line(inside(share, cycles), warmup)), "never reaches 1"),
    ("cyclical", lambda share, cycles, warmup: 0.5 - 0.5 * np.cos(np.pi * rise(inside(share, cycles), warmup)), "off by"),
    ("cyclical", lambda share, cycles, warmup: min(1.0, inside(share, cycles) / warmup), "divide by a warmup of 0"),
    ("cyclical", lambda share, cycles, warmup: rise(inside(share, cycles), warmup) if cycles > 1 else 1.0, "single cycle"),
    ("free_bits_cost", lambda kl, free: np.maximum(kl, free).sum(axis=1).mean(), "before the mean"),
    ("free_bits_cost", lambda kl, free: max(kl.sum(axis=1).mean(), free), "over the sum"),
    ("free_bits_cost", lambda kl, free: np.maximum(kl.sum(axis=1), free).mean(), "over the sum"),
    ("free_bits_cost", lambda kl, free: max(kl.sum(axis=1).mean(), free * kl.shape[1]), "over the sum"),
    ("free_bits_cost", lambda kl, free: np.maximum(kl.mean(axis=0), free).mean(), "average over the latents"),
    ("free_bits_cost", lambda kl, free: np.maximum(kl.sum(axis=0), free).sum(), "sum over the images"),
    ("free_bits_cost", lambda kl, free: np.minimum(kl.mean(axis=0), free).sum(), "take the smaller one"),
    ("free_bits_cost", lambda kl, free: np.maximum(kl.mean(axis=0) - free, 0).sum(), "subtract"),
    ("free_bits_cost", lambda kl, free: (kl.mean(axis=0) * (kl.mean(axis=0) > free)).sum(), "cost 0 with you"),
    ("free_bits_cost", lambda kl, free: (kl.mean(axis=0) + free).sum(), "add the free nats"),
    ("free_bits_cost", lambda kl, free: np.maximum(kl.mean(axis=0), free), "each latent"),
    ("free_bits_cost", lambda kl, free: kl.mean(axis=0).sum(), "never used"),
    ("free_bits_cost", lambda kl, free: np.maximum(kl.mean(axis=0), 0.5).sum(), "never used"),
    ("free_bits_cost", lambda kl, free: np.maximum(kl.mean(axis=0), max(free, 0.5)).sum(), "with 0 free nats"),
    ("free_bits_cost", lambda kl, free: np.maximum(np.median(kl, axis=0), free).sum(), "off by"),
    ("free_bits_gradient", lambda kl, free: rows(kl.mean(axis=0) >= free, kl), "exactly at the threshold"),
    ("free_bits_gradient", torch_like_gradient, "Half of your gradient"),
    ("free_bits_gradient", lambda kl, free: np.full(kl.shape, 1 / len(kl)), "below the threshold"),
    ("free_bits_gradient", lambda kl, free: (kl > free) / len(kl), "each image by itself"),
    ("free_bits_gradient", lambda kl, free: rows(kl.mean(axis=0) > free, kl) * len(kl), "1 / B is missing"),
    ("free_bits_gradient", lambda kl, free: np.broadcast_to(kl.mean(axis=0) > free, kl.shape), "1 / B is missing"),
    ("free_bits_gradient", lambda kl, free: (kl.mean(axis=0) > free) / len(kl), "One row"),
    ("free_bits_gradient", lambda kl, free: rows(kl.mean(axis=0) > free, kl) / kl.shape[1], "number of latents"),
    ("free_bits_gradient", lambda kl, free: rows(kl.mean(axis=0) <= free, kl), "the wrong way round"),
    ("free_bits_gradient", lambda kl, free: rows(kl.mean(axis=0) > free, kl) * kl, "return the KL"),
    ("free_bits_gradient", lambda kl, free: -rows(kl.mean(axis=0) > free, kl), "wrong sign"),
    ("free_bits_gradient", lambda kl, free: rows(kl.sum(axis=1).mean() > free, kl), "below the threshold"),
    ("free_bits_gradient", lambda kl, free: rows(kl.mean(axis=0) > 0.5, kl), "with 0 free nats"),
    ("free_bits_gradient", lambda kl, free: rows(np.sort(kl, axis=0)[-2] > free, kl), "off by"),
]


@pytest.mark.parametrize(("name", "theirs", "words"), MISTAKES,
                         ids=[f"{number} {name}: {words}" for number, (name, _, words) in enumerate(MISTAKES)])
def test_a_mistake_is_named(name, theirs, words):
    verdict = TASKS[name].judge(theirs)
    assert verdict.state == WRONG and words in verdict.message, verdict


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.7])
def test_the_weight_that_the_check_reads_off_the_gradient_is_twice_the_variance(sigma):
    assert weight_of_the_kl(sigma) == pytest.approx(2 * sigma**2, rel=1e-12)
