"""Your own VAE: the whole of it in one file, every gradient by hand. The notebook 07_your_own.ipynb leads through it.

    pytest --impl exercises/my_vae.py              # the contract that the levels of this repository keep too

Each function has its equation and its shapes in its docstring; where it raises NotImplementedError it is yours to write.
NumPy arrays come in and go out. No function changes what it is given, but for the three steps at the end.

    params    dict from name to array, weights (out, in) and biases (out,):
              encoder.hidden, encoder.mu, encoder.logvar, decoder.hidden, and then
              decoder.logits (Bernoulli), or decoder.mean and decoder.logvar (Gaussian)
    config    config.likelihood is "bernoulli" or "gaussian"; config.fixed_logvar is None, or a number that stands for
              every logvar of a Gaussian decoder, which then has no decoder.logvar
    x, eps    images (B, D), noise from N(0, I) (B, J), in the dtype of params; all results have it too

Letters: B images, D pixels, H hidden units, J latents. Units: nats per image.
"""

import math

import numpy as np

# ---- given -------------------------------------------------------------------------------------------------------------

LOG_2_PI = math.log(2 * math.pi)                    # a plain number: np.log's would turn float32 arrays into float64


def dense(params, name, a):
    """One layer: a (B, in) -> a W^T + b, (B, out)."""
    return a @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def sigmoid(a):
    """1 / (1 + exp(-a)), written so that nothing overflows."""
    return 0.5 * (1 + np.tanh(0.5 * a))


def mlp_only(config):
    """The convolutional network is not asked for: the suite then says "not attempted"."""
    if config.arch != "mlp":
        raise NotImplementedError(f"arch {config.arch}")


# ---- the two terms of the bound ----------------------------------------------------------------------------------------


def kl_divergence(mu, logvar):
    """KL(N(mu, sigma^2) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2, per latent. (B, J) -> (B, J).

    Never negative, not even in float32: np.expm1(a) is exp(a) - 1 with all its digits, and sigma^2 - 1 - log sigma^2 is
    to be worked out before the mu^2 is added.
    """
    raise NotImplementedError("07.1 kl_divergence")


def bernoulli_log_likelihood(logits, x):
    """log p(x|z) = sum_d x_d log y_d + (1 - x_d) log(1 - y_d) with y = sigmoid(logits). logits, x (B, D) -> (B,).

    In logits: sum_d x_d l_d - log(1 + exp(l_d)), and log(1 + exp(l)) = max(l, 0) + log(1 + exp(-|l|)) at every size.
    """
    raise NotImplementedError("07.2 bernoulli_log_likelihood")


def gaussian_log_likelihood(x, mean, logvar):
    """log p(x|z) = sum_d -(log(2 pi) + logvar_d + (x_d - mean_d)^2 / exp(logvar_d)) / 2. All (B, D) -> (B,)."""
    raise NotImplementedError("07.3 gaussian_log_likelihood")


# ---- the posterior and the two networks --------------------------------------------------------------------------------


def reparameterize(mu, logvar, eps):
    """A draw from N(mu, sigma^2): z = mu + sigma * eps, where logvar = log sigma^2. All (B, J)."""
    raise NotImplementedError("07.4 reparameterize")


def encode(params, x, config):
    """h = tanh(W x + b); mu and logvar are two linear layers of h. x (B, D) -> mu (B, J), logvar (B, J)."""
    mlp_only(config)
    raise NotImplementedError("07.5 encode")


def decode(params, z, config):
    """h = tanh(W z + b), then one layer or two. z (B, J) -> logits (B, D), or (mean (B, D), logvar (B, D)).

    Bernoulli: the layer decoder.logits. Gaussian: the mean is the sigmoid of the layer decoder.mean, logvar the layer
    decoder.logvar, or config.fixed_logvar for every pixel, in the dtype of the mean.
    """
    mlp_only(config)
    raise NotImplementedError("07.6 decode")


# ---- the bound and its gradients ---------------------------------------------------------------------------------------


def elbo_terms(params, x, eps, config):
    """log p(x|z) (B,) with z = mu + sigma * eps, and KL(q(z|x) || p(z)) (B,), of every image. Their difference is
    the elbo, estimated with one draw.

    The decoder's output goes into the log-likelihood of config.likelihood.
    """
    raise NotImplementedError("07.7 elbo_terms")


def loss_and_grads(params, x, eps, config, beta=1.0, free_bits=0.0):
    """loss = -mean_b log p(x_b|z_b) + beta * sum_j max(free_bits, mean_b KL_bj), its terms, and its gradients.

    Returns
        loss     one number
        terms    {"elbo", "log_likelihood", "kl"}: batch means; elbo is log_likelihood - kl, without beta and free_bits
        grads    dLoss/dparam for every name in params

    The gradient of a latent's KL flows only where its mean is above free_bits. Raises ValueError for a negative beta or
    free_bits. Dtype: a bool times a float is a float64 array in NumPy; np.where(condition, a, b) is not.
    """
    mlp_only(config)
    raise NotImplementedError("07.8 loss_and_grads")


# ---- the steps: they change params in place, and keep what they must remember in `state`, a dict that starts empty ------


def sgd_step(params, grads, state, lr):
    """p <- p - lr * g, as torch.optim.SGD."""
    raise NotImplementedError("07.9 sgd_step")


def adagrad_step(params, grads, state, lr):
    """s <- s + g^2, which starts at 0; p <- p - lr * g / (sqrt(s) + 1e-10), as torch.optim.Adagrad."""
    raise NotImplementedError("07.10 adagrad_step")


def adam_step(params, grads, state, lr):
    """m <- 0.9 m + 0.1 g and v <- 0.999 v + 0.001 g^2, both starting at 0; then, at the step number t = 1, 2, ...,

    p <- p - lr * m' / (sqrt(v') + 1e-8) with m' = m / (1 - 0.9^t) and v' = v / (1 - 0.999^t), as torch.optim.Adam.
    """
    raise NotImplementedError("07.11 adam_step")
