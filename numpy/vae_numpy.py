"""The variational autoencoder, every gradient by hand. Kingma & Welling 2014, sections 2 and 3, appendices B and C.

    loss, terms, grads = loss_and_grads(params, x, eps, config)

One image x, one noise vector eps: encode, reparameterize, decode, and the bound is (eq. 10 with L = 1)

    elbo = log p(x|z) - KL(q(z|x) || p(z)) <= log p(x)                                                       eq. 1.10

Equations with a dot, eq. 1.10, are those of chapter 1, README.md; eq. 10 is the paper's.
All functions are pure: noise comes in as an argument, nothing is edited. Level 2 does the same in
pytorch_lowlevel/vae_lowlevel.py, where autograd takes over every *_backward.

A conditional VAE (Kingma et al. 2014, Sohn et al. 2015) is given each image's label y besides: q(z|x, y),
p(x|z, y), the same p(z), and the elbo bounds log p(x|y).

Letters: B images, D pixels, J latents. Units: nats per image.
"""

import numpy as np
from losses_numpy import (
    bernoulli_log_likelihood_backward,
    bernoulli_log_likelihood_forward,
    gaussian_log_likelihood_backward,
    gaussian_log_likelihood_forward,
    kl_divergence_backward,
    kl_divergence_forward,
)
from networks_numpy import decode_backward, decode_forward, encode_backward, encode_forward

from common.config import check_batch, check_objective

# ---- the reparameterization trick, section 2.4 ---------------------------------------------------------------------


def reparameterize_forward(mu, logvar, eps):
    """A draw z ~ N(mu, exp(logvar)) as a function of mu, logvar and noise eps ~ N(0, I): all (B, J)."""
    sigma = np.exp(0.5 * logvar)                                         # (B, J)
    z = mu + sigma * eps                                                 # (B, J)    eq. 1.8
    return z, (sigma, eps)


def reparameterize_backward(dz, cache):
    """dz/dmu = 1 and dz/dlogvar = eps * sigma / 2: the gradient passes the draw. dz (B, J) -> dmu, dlogvar (B, J)."""
    sigma, eps = cache
    dmu = dz                                                             # (B, J)    eq. 1.9, 1.21
    dlogvar = dz * eps * 0.5 * sigma                                     # (B, J)    eq. 1.21
    return dmu, dlogvar


def reparameterize(mu, logvar, eps):
    return reparameterize_forward(mu, logvar, eps)[0]


# ---- the two terms of the bound, eq. 10 ----------------------------------------------------------------------------


def likelihood_and_kl_forward(params, x, eps, config, y=None):
    """x (B, D), eps (B, J) -> log p(x|z) (B,) and the KL divergence per latent (B, J), in nats; cache."""
    check_batch(params, x, eps, config)
    (mu, logvar), encode_cache = encode_forward(params, x, config, y)                  # (B, J), (B, J)
    z, reparameterize_cache = reparameterize_forward(mu, logvar, eps)                  # (B, J)
    out, decode_cache = decode_forward(params, z, config, y)                           # (B, D)
    if config.likelihood == "bernoulli":
        log_likelihood, likelihood_cache = bernoulli_log_likelihood_forward(out, x)    # (B,)
    else:
        log_likelihood, likelihood_cache = gaussian_log_likelihood_forward(x, *out)    # (B,)
    kl, kl_cache = kl_divergence_forward(mu, logvar)                                   # (B, J)
    return (log_likelihood, kl), (config, encode_cache, reparameterize_cache, decode_cache, likelihood_cache, kl_cache)


def likelihood_and_kl_backward(dlog_likelihood, dkl, cache):
    """dlog_likelihood (B,), dkl (B, J) -> the gradient of every parameter, same names as params."""
    config, encode_cache, reparameterize_cache, decode_cache, likelihood_cache, kl_cache = cache
    dmu_kl, dlogvar_kl = kl_divergence_backward(dkl, kl_cache)                         # (B, J), (B, J)
    if config.likelihood == "bernoulli":
        dout = bernoulli_log_likelihood_backward(dlog_likelihood, likelihood_cache)    # (B, D)
    else:
        dout = gaussian_log_likelihood_backward(dlog_likelihood, likelihood_cache)     # (B, D), (B, D)
    dz, decoder_grads = decode_backward(dout, decode_cache)                            # (B, J)
    dmu_z, dlogvar_z = reparameterize_backward(dz, reparameterize_cache)               # (B, J), (B, J)
    # mu and logvar act on the loss twice, through z and through the KL: the two gradients add (eq. 1.26)
    encoder_grads = encode_backward(dmu_z + dmu_kl, dlogvar_z + dlogvar_kl, encode_cache)
    return encoder_grads | decoder_grads


def likelihood_and_kl(params, x, eps, config, y=None):
    return likelihood_and_kl_forward(params, x, eps, config, y)[0]


def elbo_terms(params, x, eps, config, y=None):
    """log p(x|z) (B,) and KL(q(z|x) || p(z)) (B,) of every image, in nats; their difference is the ELBO."""
    log_likelihood, kl = likelihood_and_kl(params, x, eps, config, y)
    return log_likelihood, kl.sum(axis=1)


# ---- the objective -------------------------------------------------------------------------------------------------


def loss_and_grads(params, x, eps, config, beta=1.0, free_bits=0.0, y=None):
    """loss = -mean log p(x|z) + beta * sum_j max(free_bits, mean_b KL_bj), eq. 1.17, its terms and its gradients.

    params     dict name -> array, as in common.config.parameter_shapes
    x          (B, D) pixels; eps (B, J) noise from N(0, I); both in the dtype of params
    beta       weight of the KL (1 is the VAE, other values the beta-VAE)
    free_bits  nats per latent below which the batch mean of its KL costs nothing (Kingma et al. 2016)
    y          (B,) labels, whole numbers from 0 to C - 1, of a conditional model; others have none

    Returns loss (0-d), {"elbo", "log_likelihood", "kl"} (batch means in nats per image, 0-d; elbo is always the plain
    bound), and grads with the names and dtype of params. Raises InputError for wrong shapes or labels, or a negative
    weight.
    """
    check_objective(beta, free_bits)
    (log_likelihood, kl), cache = likelihood_and_kl_forward(params, x, eps, config, y) # (B,), (B, J)
    kl_j = kl.mean(axis=0)                                                             # (J,)
    loss = -log_likelihood.mean() + kl.dtype.type(beta) * np.maximum(kl_j, free_bits).sum()
    terms = {"elbo": log_likelihood.mean() - kl_j.sum(), "log_likelihood": log_likelihood.mean(), "kl": kl_j.sum()}

    B = len(x)
    dlog_likelihood = np.full_like(log_likelihood, -1 / B)                             # (B,)
    dkl = np.broadcast_to(np.where(kl_j > free_bits, beta / B, 0).astype(kl.dtype), kl.shape)
    grads = likelihood_and_kl_backward(dlog_likelihood, dkl, cache)
    return loss, terms, {name: grads[name] for name in params}
