"""log p(x) of a model without an encoder, by draws from its posterior: appendix D of the paper, importance sampling.

    log_p = log_p_by_hmc(log_joint_of(model), x, latent=3, generator=generator)              # (B,), nats per image
    by_hmc, by_importance_sampling = log_p_both_ways(log_joint_of(model), x, 3, generator)   # from the same draws

Appendix D: draw z from p(z|x) by HMC, fit a density q to them (here a Gaussian with full covariance for each image, a
free choice), draw anew, and with the new draws, since the mean over p(z|x) of q(z) / p(x, z) is 1 / p(x),

    log p(x) ~= -log mean_l [q(z_l) / (p(z_l) p(x|z_l))]

It is too high on average: the mean of 1 / p is right, and by Jensen the mean of -log of a noisy number is more than
-log of its mean. Importance sampling draws from q instead, and errs to the other side: log mean_l [p(x, z_l) / q(z_l)]
is too low on average. Both want q close to the posterior, which 50 draws give for up to 4 latents, the paper's limit.
Where a posterior has several modes and the chains see only some, both are low by -log of the share that these hold.
log_joint(z, x) -> log p(x, z) in nats, for z (..., B, J) and x (B, D) -> (..., B).
Letters: B images, D pixels, J latents, L draws for each image, C chains for each image, K draws from the prior.
"""

import math
from collections.abc import Callable

import torch
from torch.distributions import MultivariateNormal

from common.config import InputError
from paper.estimators import log_prior
from paper.hmc import burn_in, draw, start_chains

LEAPFROG_STEPS = 4          # appendix E, as are its 50 draws
RIDGE = 1e-3                # added to a covariance, in units of its mean variance: 50 draws always give a usable one
TUNING = 50                 # transitions before the first draw, which find the mode and tune the step size
WIDEN = 1.2                 # the proposal's standard deviation, in that of the draws: weights want thick tails


def log_joint_of(model) -> Callable:
    """log p(x, z) = log p(x|z) + log N(z; 0, I) of a VAE's decoder: a function of z (..., B, J) and x (B, D)."""
    return lambda z, x: model.log_likelihood(x, z) + log_prior(z)


# ---- the steps of appendix D -----------------------------------------------------------------------------------------


@torch.no_grad()
def start_from_the_prior(log_joint: Callable, x, latent: int, generator, chains: int = 1, draws: int = 1000):
    """Starting points: of K = `draws` from the prior, C for each image by lot, in proportion to p(x|z). -> (C, B, J).

    They are posterior draws in the limit of many K, so that chains begin in modes about as often as these deserve.
    """
    like = {"generator": generator, "device": x.device, "dtype": x.dtype}
    z = torch.randn((draws, 1, latent), **like)                                          # (K, 1, J), for all images
    log_p = torch.cat([log_joint(some, x) - log_prior(some) for some in z.split(10)])    # (K, B): log p(x|z)
    weights = torch.softmax(log_p, dim=0).T                                              # (B, K)
    chosen = torch.multinomial(weights, chains, replacement=True, generator=generator)   # (B, C)
    return z[:, 0][chosen.T]                                                             # (C, B, J)


def posterior_draws(log_joint: Callable, x, z, draws: int, generator, tuning: int = TUNING):
    """`draws` posterior draws of each image by HMC, (L, B, J), and as many new ones. z (C, B, J): where chains start.

    C chains an image run side by side, each for L / C draws of either set, rounded up, after `tuning` transitions.
    Every transition is a draw: with 4 leapfrog steps at 90% acceptance, successive draws of a VAE's posterior on MNIST
    with 2 or 3 latents have correlation -0.4 to -0.3 (the median; 95% are below 0.3): thinning would gain nothing.
    """
    def log_density(z):
        return log_joint(z, x)

    each = -(-draws // len(z))                                                           # of one chain
    chains = burn_in(log_density, start_chains(log_density, z), tuning, LEAPFROG_STEPS, generator)
    found, _, _ = draw(log_density, chains, 2 * each, LEAPFROG_STEPS, generator)         # (2 L / C, C, B, J)
    return tuple(half.flatten(0, 1) for half in found.split(each))                       # (L, B, J) each


def fit_gaussian(z) -> MultivariateNormal:
    """A Gaussian for each image with the mean and covariance of its draws. z (L, B, J) -> batch (B,), event (J,)."""
    if len(z) < 2:
        raise InputError(f"a Gaussian was to be fitted to {len(z)} draw: give at least 2, better 10 for each latent")
    centered = z - z.mean(dim=0)
    covariance = torch.einsum("lbi,lbj->bij", centered, centered) / (len(z) - 1)         # (B, J, J)
    variance = covariance.diagonal(dim1=-2, dim2=-1).mean(dim=-1).clamp_min(1e-10)       # (B,); 0: a stuck chain
    ridge = RIDGE * variance[:, None, None] * torch.eye(z.shape[-1], device=z.device, dtype=z.dtype)
    scale = torch.linalg.cholesky(covariance + ridge)                                    # (B, J, J), lower triangular
    return MultivariateNormal(z.mean(dim=0), scale_tril=scale, validate_args=False)


@torch.no_grad()
def log_p_from_posterior_draws(log_joint: Callable, x, q, z, rows: int = 400):
    """Appendix D, eq. 3.8: -log mean_l [q(z_l) / p(x, z_l)], with posterior draws z (L, B, J) new to q. -> (B,)."""
    log_joints = torch.cat([log_joint(some, x) for some in z.split(max(1, rows // len(x)))])     # (L, B)
    return math.log(len(z)) - torch.logsumexp(q.log_prob(z) - log_joints, dim=0)


@torch.no_grad()
def log_p_from_proposal(log_joint: Callable, x, q, samples: int, generator, rows: int = 400):
    """Importance sampling: log mean_l [p(x, z_l) / q(z_l)], `samples` draws from q WIDEN times as wide. -> (B,).

    The draws come in blocks of at most `rows` decoded images, or of one for each image, and only the log-sum is kept.
    """
    if samples < 1:
        raise InputError(f"samples is {samples}: give a whole number of at least 1")
    latent, total = q.event_shape[0], torch.full((len(x),), -math.inf, device=x.device, dtype=x.dtype)
    scale = WIDEN * q.scale_tril                                                         # (B, J, J)
    log_scale = scale.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)                       # (B,)
    block = max(1, rows // len(x))
    for start in range(0, samples, block):
        shape = (min(block, samples - start), len(x), latent)
        eps = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
        z = q.mean + torch.einsum("bij,lbj->lbi", scale, eps)                            # (l, B, J)
        log_w = log_joint(z, x) - (log_prior(eps) - log_scale)                           # log of p / q
        total = torch.logaddexp(total, torch.logsumexp(log_w, dim=0))
    return total - math.log(samples)


# ---- in one call -----------------------------------------------------------------------------------------------------


def log_p_by_hmc(log_joint: Callable, x, latent: int, generator, z=None, draws: int = 50, block: int = 200):
    """Appendix D for images x (B, D): 2 * `draws` posterior draws each -> log p(x) (B,), in nats, too high on average.

    z      (B, J) or (C, B, J), where the chains start: by default from the prior (start_from_the_prior), one chain. The
           posterior means of an encoder do as well. A common point such as 0 does not: chains stick in a near mode.
    block  images at a time: memory grows with it, not with B. A GPU wants thousands.
    Raises InputError where shapes do not fit.
    """
    found = []
    for images, start in in_blocks(log_joint, x, latent, generator, z, block):
        first, fresh = posterior_draws(log_joint, images, start, draws, generator)
        found.append(log_p_from_posterior_draws(log_joint, images, fit_gaussian(first), fresh))
    return torch.cat(found)


def log_p_both_ways(log_joint: Callable, x, latent: int, generator, z=None, draws: int = 50, samples: int = 1000,
                    block: int = 200):
    """Appendix D, and importance sampling with `samples` draws from a Gaussian fitted to all 2 * `draws` of its draws.

    x (B, D) -> (B,), (B,): log p(x) in nats, the first too high and the second too low on average. Otherwise as
    log_p_by_hmc. The second is the more accurate: its proposal is as good as an encoder's could be, or better.
    """
    by_hmc, by_importance_sampling = [], []
    for images, start in in_blocks(log_joint, x, latent, generator, z, block):
        first, fresh = posterior_draws(log_joint, images, start, draws, generator)
        q, q_of_all = fit_gaussian(first), fit_gaussian(torch.cat([first, fresh]))
        by_hmc.append(log_p_from_posterior_draws(log_joint, images, q, fresh))
        by_importance_sampling.append(log_p_from_proposal(log_joint, images, q_of_all, samples, generator))
    return torch.cat(by_hmc), torch.cat(by_importance_sampling)


def in_blocks(log_joint: Callable, x, latent: int, generator, z, block: int):
    """Yields `block` images (B, D) at a time with their starting points (C, B, J)."""
    if x.ndim != 2 or not len(x) or block < 1:
        raise InputError(f"x has shape {tuple(x.shape)}, block is {block}: give (B, D), a row per image, and 1 or more")
    if z is not None:
        z = z[None] if z.ndim == 2 else z
        if z.ndim != 3 or z.shape[1:] != (len(x), latent):
            raise InputError(f"z has shape {tuple(z.shape)}: chains want ({len(x)}, {latent}), or a stack of such")
    for rows in torch.arange(len(x), device=x.device).split(block):
        images = x[rows]
        yield images, start_from_the_prior(log_joint, images, latent, generator) if z is None else z[:, rows]
