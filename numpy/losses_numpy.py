"""The two terms of the bound and their derivatives: log p(x|z) for both decoders, and the KL divergence.

Units: nats. Log-likelihoods are summed over the pixels of an image, (B,); the KL divergence is kept per latent, (B, J).
Letters: B images, D pixels, J latents.
"""

import math

import numpy as np
from layers_numpy import sigmoid_forward

# ---- Bernoulli decoder, paper appendix C.1 -------------------------------------------------------------------------


def softplus(a):
    """log(1 + exp(a)), written so that nothing overflows (np.logaddexp(0, a) is the same and twenty times slower)."""
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


def bernoulli_log_likelihood_forward(logits, x):
    """log p(x|z) = sum_d x_d log y_d + (1 - x_d) log(1 - y_d), eq. 11, with y = sigmoid(logits).

    In logits it is sum_d x_d l_d - softplus(l_d), eq. 1.12, exact where log(sigmoid) would already be -infinity.
    logits, x (B, D) -> (B,), nats.
    """
    out = (x * logits - softplus(logits)).sum(axis=1)                    # (B,)
    return out, (logits, x)


def bernoulli_log_likelihood_backward(dout, cache):
    """d log p / d logits = x - y, eq. 1.18: what was seen minus what was expected. dout (B,) -> dlogits (B, D)."""
    logits, x = cache
    y, _ = sigmoid_forward(logits)
    return dout[:, None] * (x - y)                                       # (B, D)


def bernoulli_log_likelihood(logits, x):
    return bernoulli_log_likelihood_forward(logits, x)[0]


# ---- Gaussian decoder, paper appendix C.2 --------------------------------------------------------------------------


def gaussian_log_likelihood_forward(x, mean, logvar):
    """log p(x|z) = sum_d log N(x_d; mean_d, exp(logvar_d)), eq. 12, 1.13. x, mean, logvar (B, D) -> (B,), nats.

    A density, not a probability: it may well be positive.
    """
    error = x - mean                                                     # (B, D)
    precision = np.exp(-logvar)                                          # (B, D)
    out = -0.5 * (math.log(2 * math.pi) + logvar + error * error * precision).sum(axis=1)
    return out, (error, precision)


def gaussian_log_likelihood_backward(dout, cache):
    """dout (B,) -> dmean (B, D), dlogvar (B, D): eq. 1.19."""
    error, precision = cache
    dmean = dout[:, None] * error * precision                            # (B, D)
    dlogvar = dout[:, None] * 0.5 * (error * error * precision - 1)      # (B, D)
    return dmean, dlogvar


def gaussian_log_likelihood(x, mean, logvar):
    return gaussian_log_likelihood_forward(x, mean, logvar)[0]


# ---- KL divergence, paper appendix B -------------------------------------------------------------------------------


def kl_divergence_forward(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2, eq. 1.11: (B, J) -> (B, J), nats.

    Per latent. expm1(logvar) is sigma^2 - 1 without cancellation, so the result is never negative, not even in float32.
    """
    variance_minus_1 = np.expm1(logvar)                                  # (B, J)
    out = 0.5 * (mu * mu + (variance_minus_1 - logvar))                  # (B, J)
    return out, (mu, variance_minus_1)


def kl_divergence_backward(dout, cache):
    """dout (B, J) -> dmu, dlogvar (B, J): eq. 1.20."""
    mu, variance_minus_1 = cache
    dmu = dout * mu                                                      # (B, J)
    dlogvar = dout * 0.5 * variance_minus_1                              # (B, J)
    return dmu, dlogvar


def kl_divergence(mu, logvar):
    return kl_divergence_forward(mu, logvar)[0]
