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
    ### BEGIN SOLUTION 07.1 kl_divergence
    return 0.5 * (mu * mu + (np.expm1(logvar) - logvar))
    ### END SOLUTION


def bernoulli_log_likelihood(logits, x):
    """log p(x|z) = sum_d x_d log y_d + (1 - x_d) log(1 - y_d) with y = sigmoid(logits). logits, x (B, D) -> (B,).

    In logits: sum_d x_d l_d - log(1 + exp(l_d)), and log(1 + exp(l)) = max(l, 0) + log(1 + exp(-|l|)) at every size.
    """
    ### BEGIN SOLUTION 07.2 bernoulli_log_likelihood
    softplus = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))
    return (x * logits - softplus).sum(axis=1)
    ### END SOLUTION


def gaussian_log_likelihood(x, mean, logvar):
    """log p(x|z) = sum_d -(log(2 pi) + logvar_d + (x_d - mean_d)^2 / exp(logvar_d)) / 2. All (B, D) -> (B,)."""
    ### BEGIN SOLUTION 07.3 gaussian_log_likelihood
    return -0.5 * (LOG_2_PI + logvar + (x - mean) ** 2 * np.exp(-logvar)).sum(axis=1)
    ### END SOLUTION


# ---- the posterior and the two networks --------------------------------------------------------------------------------


def reparameterize(mu, logvar, eps):
    """A draw from N(mu, sigma^2): z = mu + sigma * eps, where logvar = log sigma^2. All (B, J)."""
    ### BEGIN SOLUTION 07.4 reparameterize
    return mu + np.exp(0.5 * logvar) * eps
    ### END SOLUTION


def encode(params, x, config):
    """h = tanh(W x + b); mu and logvar are two linear layers of h. x (B, D) -> mu (B, J), logvar (B, J)."""
    mlp_only(config)
    ### BEGIN SOLUTION 07.5 encode
    h = np.tanh(dense(params, "encoder.hidden", x))                      # (B, H)
    return dense(params, "encoder.mu", h), dense(params, "encoder.logvar", h)
    ### END SOLUTION


def decode(params, z, config):
    """h = tanh(W z + b), then one layer or two. z (B, J) -> logits (B, D), or (mean (B, D), logvar (B, D)).

    Bernoulli: the layer decoder.logits. Gaussian: the mean is the sigmoid of the layer decoder.mean, logvar the layer
    decoder.logvar, or config.fixed_logvar for every pixel, in the dtype of the mean.
    """
    mlp_only(config)
    ### BEGIN SOLUTION 07.6 decode
    h = np.tanh(dense(params, "decoder.hidden", z))                      # (B, H)
    if config.likelihood == "bernoulli":
        return dense(params, "decoder.logits", h)
    mean = sigmoid(dense(params, "decoder.mean", h))
    if config.fixed_logvar is not None:
        return mean, np.full_like(mean, config.fixed_logvar)
    return mean, dense(params, "decoder.logvar", h)
    ### END SOLUTION


# ---- the bound and its gradients ---------------------------------------------------------------------------------------


def elbo_terms(params, x, eps, config):
    """log p(x|z) (B,) with z = mu + sigma * eps, and KL(q(z|x) || p(z)) (B,), of every image. Their difference is
    the elbo, estimated with one draw.

    The decoder's output goes into the log-likelihood of config.likelihood.
    """
    ### BEGIN SOLUTION 07.7 elbo_terms
    mu, logvar = encode(params, x, config)
    out = decode(params, reparameterize(mu, logvar, eps), config)
    if config.likelihood == "bernoulli":
        log_likelihood = bernoulli_log_likelihood(out, x)
    else:
        log_likelihood = gaussian_log_likelihood(x, *out)
    return log_likelihood, kl_divergence(mu, logvar).sum(axis=1)
    ### END SOLUTION


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
    ### BEGIN SOLUTION 07.8 loss_and_grads
    if beta < 0 or free_bits < 0:
        raise ValueError(f"beta is {beta} and free_bits {free_bits}: neither may be negative")
    B, grads = len(x), {}

    # forward, once more, keeping the hidden layers
    h_x = np.tanh(dense(params, "encoder.hidden", x))                    # (B, H)
    mu, logvar = dense(params, "encoder.mu", h_x), dense(params, "encoder.logvar", h_x)
    z = reparameterize(mu, logvar, eps)                                  # (B, J)
    h_z = np.tanh(dense(params, "decoder.hidden", z))                    # (B, H)
    log_likelihood, kl = (a.mean() for a in elbo_terms(params, x, eps, config))
    kl_j = kl_divergence(mu, logvar).mean(axis=0)                        # (J,)
    loss = -log_likelihood + beta * np.maximum(kl_j, free_bits).sum()

    def backward(name, dout, a):
        """Of the layer that took a and gave out: dLoss/dout -> dLoss/da; keeps the gradients of its weights."""
        grads[f"{name}.weight"], grads[f"{name}.bias"] = dout.T @ a, dout.sum(axis=0)
        return dout @ params[f"{name}.weight"]

    # from the loss back to the decoder's hidden layer
    if config.likelihood == "bernoulli":
        y = sigmoid(decode(params, z, config))
        dh_z = backward("decoder.logits", (y - x) / B, h_z)
    else:
        mean, logvar_x = decode(params, z, config)
        precision = np.exp(-logvar_x)
        dh_z = backward("decoder.mean", (mean - x) * precision * mean * (1 - mean) / B, h_z)
        if config.fixed_logvar is None:
            dh_z = dh_z + backward("decoder.logvar", 0.5 * (1 - (x - mean) ** 2 * precision) / B, h_z)
    dz = backward("decoder.hidden", dh_z * (1 - h_z * h_z), z)           # (B, J)

    # mu and logvar act twice: through z and through the KL
    dkl = np.where(kl_j > free_bits, kl_j.dtype.type(beta / B), 0)       # (J,)
    dmu = dz + dkl * mu
    dlogvar = dz * eps * 0.5 * np.exp(0.5 * logvar) + dkl * 0.5 * np.expm1(logvar)
    dh_x = backward("encoder.mu", dmu, h_x) + backward("encoder.logvar", dlogvar, h_x)
    backward("encoder.hidden", dh_x * (1 - h_x * h_x), x)
    return loss, {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}, grads
    ### END SOLUTION


# ---- the steps: they change params in place, and keep what they must remember in `state`, a dict that starts empty ------


def sgd_step(params, grads, state, lr):
    """p <- p - lr * g, as torch.optim.SGD."""
    ### BEGIN SOLUTION 07.9 sgd_step
    for name, p in params.items():
        p -= lr * grads[name]
    ### END SOLUTION


def adagrad_step(params, grads, state, lr):
    """s <- s + g^2, which starts at 0; p <- p - lr * g / (sqrt(s) + 1e-10), as torch.optim.Adagrad."""
    ### BEGIN SOLUTION 07.10 adagrad_step
    for name, p in params.items():
        state[name] = state.get(name, 0) + grads[name] ** 2
        p -= lr * grads[name] / (np.sqrt(state[name]) + 1e-10)
    ### END SOLUTION


def adam_step(params, grads, state, lr):
    """m <- 0.9 m + 0.1 g and v <- 0.999 v + 0.001 g^2, both starting at 0; then, at the step number t = 1, 2, ...,

    p <- p - lr * m' / (sqrt(v') + 1e-8) with m' = m / (1 - 0.9^t) and v' = v / (1 - 0.999^t), as torch.optim.Adam.
    """
    ### BEGIN SOLUTION 07.11 adam_step
    t = state["t"] = state.get("t", 0) + 1
    for name, p in params.items():
        m, v = state.get(name, (0, 0))
        m, v = 0.9 * m + 0.1 * grads[name], 0.999 * v + 0.001 * grads[name] ** 2
        state[name] = m, v
        p -= lr * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    ### END SOLUTION
