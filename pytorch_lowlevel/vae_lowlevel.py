"""The variational autoencoder on tensors we hold; autograd takes over the backward. Kingma & Welling 2014.

    loss, terms, grads = loss_and_grads(params, x, eps, config)

The same names in the same order as numpy/vae_numpy.py and numpy/losses_numpy.py, minus every *_backward. One image x,
one noise vector eps: encode, reparameterize, decode, and the bound is (eq. 10 with L = 1)

    elbo = log p(x|z) - KL(q(z|x) || p(z)) <= log p(x)

A conditional VAE (Kingma et al. 2014, Sohn et al. 2015) is given each image's label y besides: q(z|x, y),
p(x|z, y), the same p(z), and the elbo bounds log p(x|y).

All functions are pure: noise comes in as an argument, the caller's tensors stay as they were.
Letters: B images, D pixels, J latents. Units: nats per image.
"""

import math

import torch
import torch.nn.functional as F

from common.config import check_batch, check_objective
from pytorch_lowlevel.networks_lowlevel import decode, encode

BACKEND = "torch"

# ---- the two log-likelihoods and the KL divergence, appendices B and C ---------------------------------------------


def bernoulli_log_likelihood(logits, x):
    """log p(x|z) = sum_d x_d l_d - softplus(l_d), eq. 11 in logits. logits, x (B, D) -> (B,), nats.

    (F.softplus turns into the identity above 20, which costs 2e-9 nats a pixel; the cross-entropy does not.)
    """
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=1)


def gaussian_log_likelihood(x, mean, logvar):
    """log p(x|z) = sum_d log N(x_d; mean_d, exp(logvar_d)), eq. 12. x, mean, logvar (B, D) -> (B,), nats."""
    error = x - mean                                                     # (B, D)
    precision = torch.exp(-logvar)                                       # (B, D)
    return -0.5 * (math.log(2 * math.pi) + logvar + error * error * precision).sum(dim=1)


def kl_divergence(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2, per latent: (B, J) -> (B, J), nats."""
    return 0.5 * (mu * mu + (torch.expm1(logvar) - logvar))              # (B, J)


# ---- the reparameterization trick, section 2.4 ---------------------------------------------------------------------


def reparameterize(mu, logvar, eps):
    """A draw z ~ N(mu, exp(logvar)) as a function of mu, logvar and noise eps ~ N(0, I): all (B, J)."""
    sigma = torch.exp(0.5 * logvar)                                      # (B, J)
    return mu + sigma * eps                                              # (B, J)    eq. 10


# ---- the two terms of the bound, eq. 10 ----------------------------------------------------------------------------


def likelihood_and_kl(params, x, eps, config, y=None):
    """x (B, D), eps (B, J) -> log p(x|z) (B,) and the KL divergence per latent (B, J), in nats."""
    check_batch(params, x, eps, config)
    mu, logvar = encode(params, x, config, y)                            # (B, J), (B, J)
    z = reparameterize(mu, logvar, eps)                                  # (B, J)
    out = decode(params, z, config, y)                                   # (B, D)
    if config.likelihood == "bernoulli":
        log_likelihood = bernoulli_log_likelihood(out, x)                # (B,)
    else:
        log_likelihood = gaussian_log_likelihood(x, *out)                # (B,)
    return log_likelihood, kl_divergence(mu, logvar)


def elbo_terms(params, x, eps, config, y=None):
    """log p(x|z) (B,) and KL(q(z|x) || p(z)) (B,) of every image, in nats; their difference is the ELBO."""
    log_likelihood, kl = likelihood_and_kl(params, x, eps, config, y)
    return log_likelihood, kl.sum(dim=1)


# ---- the objective -------------------------------------------------------------------------------------------------


def loss_and_grads(params, x, eps, config, beta=1.0, free_bits=0.0, y=None):
    """loss = -mean log p(x|z) + beta * sum_j max(free_bits, mean_b KL_bj), its terms and its gradients.

    As numpy/vae_numpy.py's, with tensors: loss and terms 0-d, grads with the names and dtype of params, all detached.
    """
    check_objective(beta, free_bits)
    # detach() gives new leaves on the same memory: the caller's tensors get neither requires_grad nor .grad
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
    with torch.enable_grad():
        log_likelihood, kl = likelihood_and_kl(leaves, x.detach(), eps.detach(), config, y)          # (B,), (B, J)
        kl_j = kl.mean(dim=0)                                                                        # (J,)
        # torch.maximum would let half of the gradient through where the two are equal
        loss = -log_likelihood.mean() + beta * torch.where(kl_j <= free_bits, free_bits, kl_j).sum()
    log_likelihood, kl_j = log_likelihood.detach(), kl_j.detach()
    terms = {"elbo": log_likelihood.mean() - kl_j.sum(), "log_likelihood": log_likelihood.mean(), "kl": kl_j.sum()}

    grads = torch.autograd.grad(loss, list(leaves.values()))
    return loss.detach(), terms, dict(zip(leaves, grads, strict=True))
