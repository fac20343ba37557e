"""Estimators of the bound and of log p(x): what the paper optimizes, and what everybody reports.

    elbo = estimator_b(model, x, eps).mean()                              # eps (L, B, J): L draws for each image
    nats = log_p_by_importance_sampling(model, x, 5000, generator)        # (B,), the figure in the tables of papers

`model` is a VAE: encode, likelihood, log_likelihood, config. Everything is differentiable unless it says otherwise.
Letters: B images, D pixels, J latents, L (or k) draws of noise per image. Units: nats per image.
"""

import math

import torch
import torch.nn.functional as F

from common.config import InputError
from paper.vae_paper import VAE, kl_divergence

LOG_2PI = math.log(2 * math.pi)


def log_prior(z):
    """log N(z; 0, I): (..., J) -> (...)."""
    return -0.5 * (z * z + LOG_2PI).sum(dim=-1)


# ---- the two SGVB estimators of the bound, section 2.3 ---------------------------------------------------------------


def log_weights(model: VAE, x, eps, path_only=False):
    """log p(x, z) - log q(z|x) at z = mu + sigma * eps. x (B, D), eps (L, B, J) -> (L, B).

    Each is an estimate of the ELBO (estimator A, eq. 1.3), and its exponential one of p(x): the importance weight of z.
    path_only: gradients reach mu and logvar through z alone. The rest of d log q is a score, zero on average, so that the
    gradient of the ELBO stays unbiased, and it has no noise at all where q is the posterior (Roeder et al. 2017, "sticking
    the landing").
    """
    check_draws(model, x, eps)
    mu, logvar = model.encode(x)                                         # (B, J), (B, J)
    z = model.reparameterize(mu, logvar, eps)                            # (L, B, J)
    log_joint = model.log_likelihood(x, z) + log_prior(z)                # (L, B)
    if path_only:
        mu, logvar = mu.detach(), logvar.detach()
        eps = (z - mu) * torch.exp(-0.5 * logvar)                        # the same numbers, now a function of z
    log_q = -0.5 * (eps * eps + logvar + LOG_2PI).sum(dim=-1)            # (L, B)
    return log_joint - log_q


def estimator_a(model: VAE, x, eps):
    """Eq. 6 and 3.1: mean_l [log p(x, z_l) - log q(z_l|x)]. x (B, D), eps (L, B, J) -> (B,)."""
    return log_weights(model, x, eps).mean(dim=0)


def estimator_b(model: VAE, x, eps):
    """Eq. 7, 1.5 and 3.2: -KL(q(z|x) || p(z)) + mean_l log p(x|z_l), the KL in closed form. x, eps as above -> (B,)."""
    check_draws(model, x, eps)
    mu, logvar = model.encode(x)                                         # (B, J), (B, J)
    z = model.reparameterize(mu, logvar, eps)                            # (L, B, J)
    return model.log_likelihood(x, z).mean(dim=0) - kl_divergence(mu, logvar).sum(dim=-1)


def log_weight_prior(model: torch.nn.Module):
    """log N(theta; 0, I) of all weights and biases, its constant left out: the MAP prior of section 5. 0-d, nats.

    It counts once for the whole training set: in a loss per image it is divided by N.
    """
    return -0.5 * sum((weight * weight).sum() for weight in model.parameters())


# ---- log p(x) ----------------------------------------------------------------------------------------------------------


def importance_weighted_bound(log_w):
    """L_k = log (1/k) sum_i w_i, eq. 3.10 (Burda et al. 2016): a bound on log p(x) that rises with k. (k, B) -> (B,)."""
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


@torch.no_grad()
def log_p_by_importance_sampling(model, x, samples: int, generator=None, rows: int = 1000, weigh=None,
                                 latent: int | None = None):
    """log p(x) estimated by L_k with k = `samples` draws from q(z|x): low by half the weights' relative variance over k.

    x (B, D) -> (B,). The draws come in blocks of at most `rows` decoded images, whose logits stay in the processor's
    cache, and only the running log-sum is kept: memory does not grow with `samples`. A GPU wants `rows` in the 10,000s.
    A model that is no VAE brings its own log_weights as weigh(model, x, eps (L, B, latent)) -> (L, B), and the size of its
    noise.
    """
    if samples < 1 or rows < 1:
        raise InputError(f"samples is {samples} and rows {rows}: give whole numbers of at least 1")
    results, weigh, latent = [], weigh or log_weights, latent or model.config.latent
    for images in x.split(max(1, rows // samples)):                      # many images a block, or many blocks an image
        total = torch.full((len(images),), -math.inf, device=x.device, dtype=x.dtype)
        for start in range(0, samples, rows):
            draws = min(rows, samples - start)
            eps = torch.randn(draws, len(images), latent, generator=generator, device=x.device, dtype=x.dtype)
            block = torch.logsumexp(weigh(model, images, eps), dim=0)
            total = torch.logaddexp(total, block)
        results.append(total - math.log(samples))
    return torch.cat(results)


@torch.no_grad()
def log_p_by_quadrature(model: VAE, x, points: int = 400, limit: float = 8.0):
    """log p(x) by the trapezoidal rule over z in [-limit, limit]^J, for 1 and 2 latents: exact where others estimate.

    x (B, D) -> (B,). The rule converges faster than any power of the spacing for integrands that vanish at the ends;
    `points` a side must resolve the posterior: a spacing of its standard deviation is enough.
    """
    return torch.logsumexp(log_joint_on_grid(model, x, points, limit)[0], dim=1)


@torch.no_grad()
def log_joint_on_grid(model: VAE, x, points: int = 400, limit: float = 8.0):
    """log p(x, z) dz on a regular grid: its logsumexp is log p(x), eq. 1.1, less that it is log p(z|x) of a cell, eq. 1.2.

    x (B, D) -> (B, points^J), and the grid (points^J, J), its last latent running fastest.
    """
    check_images(model, x)
    if points < 2:
        raise InputError(f"points is {points}: give at least 2 a side, and enough to resolve the posterior")
    latent = model.config.latent
    if latent > 2:
        raise InputError(f"quadrature over {latent} latents needs {points}^{latent} points: it is for 1 or 2, use "
                         "importance sampling")
    axis = torch.linspace(-limit, limit, points, device=x.device, dtype=x.dtype)
    z = torch.cartesian_prod(*[axis] * latent).reshape(-1, latent)       # (G, J)
    log_cell = latent * math.log(2 * limit / (points - 1))
    log_likelihood = torch.cat([log_likelihood_of_pairs(model, x, block) for block in z.split(10_000)], dim=1)    # (B, G)
    return log_likelihood + log_prior(z) + log_cell, z


def log_likelihood_of_pairs(model: VAE, x, z):
    """log p(x|z) of every image with every z, each decoded once. x (B, D), z (G, J) -> (B, G)."""
    if model.config.likelihood == "bernoulli":                           # sum_d x_d l_d - softplus(l_d)
        logits = model.decode(z)                                         # (G, D)
        return x @ logits.T - F.softplus(logits, threshold=40).sum(dim=1)
    pixel = model.likelihood(z)
    return torch.stack([pixel.log_prob(image).sum(dim=1) for image in x])


@torch.no_grad()
def active_units(model: VAE, x, threshold: float = 0.01) -> int:
    """Latents in use: those whose posterior mean varies over the images x (B, D) by more than `threshold` (variance)."""
    mu, _ = model.encode(x)                                              # (B, J)
    return int((mu.var(dim=0) > threshold).sum())


def check_draws(model: VAE, x, eps):
    """Raises InputError unless x is (B, D) and eps (L, B, J): broadcasting would swallow a wrong shape."""
    check_images(model, x)
    if eps.ndim != 3 or len(eps) < 1 or tuple(eps.shape[1:]) != (len(x), model.config.latent):
        raise InputError(f"eps has shape {tuple(eps.shape)}: the estimators want (L, {len(x)}, {model.config.latent})")


def check_images(model: VAE, x):
    """Raises InputError unless x is (B, D)."""
    if x.ndim != 2 or x.shape[1] != model.config.pixels or not len(x):
        raise InputError(f"x has shape {tuple(x.shape)}: the estimators want (B, {model.config.pixels}), one row per image")
