"""Named wrong answers: mistakes seen in public VAE code, each planted into level 1 by a few lines.

    with planted("kl_sign"): ...            level 1 makes this mistake inside the block

The suite has to reject every one of them (test_wrong_answers.py), and `compare_gradients.py --plant NAME` shows which
tensors light up. A wrong answer whose backward is the true derivative of its wrong forward agrees with its own finite
differences and disagrees with autograd; a wrong backward disagrees with both.
"""

import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import layers_numpy
import losses_numpy
import networks_numpy
import numpy as np
import train_numpy
import vae_numpy

MODULES = (layers_numpy, losses_numpy, networks_numpy, vae_numpy, train_numpy)


@dataclass(frozen=True)
class WrongAnswer:
    """What is wrong, the functions that make it so, the check that must notice, and the setting in which it shows."""

    mistake: str
    functions: dict[str, Callable]                  # name in level 1 -> the wrong one
    caught_by: str                                  # a check of contract.py or of test_wrong_answers.py
    settings: dict = field(default_factory=dict)    # options of compare_gradients.py
    in_gradients: bool = True                       # does compare_gradients.py see it?


@contextmanager
def planted(name: str):
    """Level 1 with a wrong answer inside, in every module that imported the right one."""
    undo = []
    try:
        for function, wrong in WRONG_ANSWERS[name].functions.items():
            for module in MODULES:
                if hasattr(module, function):
                    undo.append((module, function, getattr(module, function)))
                    setattr(module, function, wrong)
        yield
    finally:
        for module, function, right in reversed(undo):
            setattr(module, function, right)


# ---- the right functions, for the wrong ones to lean on --------------------------------------------------------------

encode_forward, encode_backward = networks_numpy.encode_forward, networks_numpy.encode_backward
decode_conv_forward, decode_mlp_backward = networks_numpy.decode_conv_forward, networks_numpy.decode_mlp_backward
encode_mlp_backward, join_label = networks_numpy.encode_mlp_backward, networks_numpy.join_label
linear_backward, linear_backward_params = layers_numpy.linear_backward, layers_numpy.linear_backward_params
bernoulli_forward, bernoulli_backward = (losses_numpy.bernoulli_log_likelihood_forward,
                                         losses_numpy.bernoulli_log_likelihood_backward)
gaussian_forward, gaussian_backward = (losses_numpy.gaussian_log_likelihood_forward,
                                       losses_numpy.gaussian_log_likelihood_backward)
kl_forward, kl_backward = losses_numpy.kl_divergence_forward, losses_numpy.kl_divergence_backward
reparameterize_forward, reparameterize_backward = vae_numpy.reparameterize_forward, vae_numpy.reparameterize_backward
likelihood_and_kl_forward, likelihood_and_kl_backward = (vae_numpy.likelihood_and_kl_forward,
                                                         vae_numpy.likelihood_and_kl_backward)
loss_and_grads = vae_numpy.loss_and_grads

# ---- the posterior and its noise -------------------------------------------------------------------------------------


def variance_as_sigma_forward(mu, logvar, eps):
    variance = np.exp(logvar)
    return mu + variance * eps, (variance, eps)


def variance_as_sigma_backward(dz, cache):
    variance, eps = cache
    return dz, dz * eps * variance


def half_noise_forward(mu, logvar, eps):
    return reparameterize_forward(mu, logvar, 0.5 * eps)


def no_noise_forward(mu, logvar, eps):
    return reparameterize_forward(mu, logvar, 0 * eps)


def clamped_forward(mu, logvar, eps):
    inside = (logvar > -2) & (logvar < 2)
    z, cache = reparameterize_forward(mu, np.clip(logvar, -2, 2), eps)
    return z, (cache, inside)


def clamped_backward(dz, cache):
    dmu, dlogvar = reparameterize_backward(dz, cache[0])
    return dmu, dlogvar * cache[1]


def half_forgotten_backward(dz, cache):
    sigma, eps = cache
    return dz, dz * eps * sigma


def relu_on_heads_forward(params, x, config, y=None):
    (mu, logvar), cache = encode_forward(params, x, config, y)
    mu, logvar = np.maximum(mu, 0), np.maximum(logvar, 0)
    return (mu, logvar), (cache, mu > 0, logvar > 0)


def relu_on_heads_backward(dmu, dlogvar, cache):
    cache, mu_on, logvar_on = cache
    return encode_backward(dmu * mu_on, dlogvar * logvar_on, cache)


# ---- the two terms ---------------------------------------------------------------------------------------------------


def pixel_mean(forward):
    def wrong(first, *others):
        out, cache = forward(first, *others)
        return out / first.shape[1], (cache, first.shape[1])
    return wrong


def pixel_mean_backward(backward):
    return lambda dout, cache: backward(dout / cache[1], cache[0])


def latent_mean_forward(mu, logvar):
    out, cache = kl_forward(mu, logvar)
    return out / mu.shape[1], cache


def flipped_kl_forward(mu, logvar):
    out, cache = kl_forward(mu, logvar)
    return -out, cache


def sigmoid_then_log_forward(logits, x):
    with np.errstate(all="ignore"):
        y = 1 / (1 + np.exp(-logits))
        out = (x * np.log(y) + (1 - x) * np.log(1 - y)).sum(axis=1)
    return out, (y, x)


def sigmoid_then_log_backward(dout, cache):
    y, x = cache
    with np.errstate(all="ignore"):
        return dout[:, None] * (x / y - (1 - x) / (1 - y)) * y * (1 - y)


def clamped_bernoulli_forward(logits, x):
    y = np.clip(1 / (1 + np.exp(-logits)), 0.01, 0.99)
    return (x * np.log(y) + (1 - x) * np.log(1 - y)).sum(axis=1), (logits, x)


def clamped_bernoulli_backward(dout, cache):
    logits, x = cache
    y = 1 / (1 + np.exp(-logits))
    return dout[:, None] * np.where((y > 0.01) & (y < 0.99), x - y, 0)


def sigma_as_logvar_forward(mu, logvar):
    sigma = np.exp(0.5 * logvar)
    out, cache = kl_forward(mu, sigma)
    return out, (cache, sigma)


def sigma_as_logvar_backward(dout, cache):
    dmu, dsigma = kl_backward(dout, cache[0])
    return dmu, dsigma * 0.5 * cache[1]


def no_constant_forward(x, mean, logvar):
    out, cache = gaussian_forward(x, mean, logvar)
    return out + 0.5 * np.log(2 * np.pi).astype(x.dtype) * x.shape[1], cache


def variance_as_deviation_forward(x, mean, logvar):
    return gaussian_forward(x, mean, 2 * logvar)


def variance_as_deviation_backward(dout, cache):
    dmean, dlogvar = gaussian_backward(dout, cache)
    return dmean, 2 * dlogvar


# ---- the label of a conditional model --------------------------------------------------------------------------------


def label_to_the_encoder_only(a, y, config):
    joined = join_label(a, y, config)
    if a.shape[1] == config.latent:
        joined[:, config.latent:] = 0
    return joined


def next_label(a, y, config):
    return join_label(a, None if y is None else (y + 1) % config.condition, config)


def label_in_the_target_forward(params, x, eps, config, y=None):
    """The target is the encoder's input, one-hot and all; a decoder that knows nothing of it gives log 2 for each entry."""
    (log_likelihood, kl), cache = likelihood_and_kl_forward(params, x, eps, config, y)
    return (log_likelihood - math.log(2) * config.condition, kl), cache


def label_gradient_into_z_backward(dout, cache):
    dz, grads = decode_mlp_backward(dout, cache)
    latent = cache[0].latent
    return dz[:, :latent] + dz[:, latent:].sum(axis=1, keepdims=True), grads


# ---- the objective ---------------------------------------------------------------------------------------------------


def beta_ignored(params, x, eps, config, beta=1.0, free_bits=0.0):
    return loss_and_grads(params, x, eps, config, 1.0, free_bits)


def elbo_with_beta(params, x, eps, config, beta=1.0, free_bits=0.0):
    loss, terms, grads = loss_and_grads(params, x, eps, config, beta, free_bits)
    return loss, terms | {"elbo": terms["log_likelihood"] - beta * terms["kl"]}, grads


def free_bits_elsewhere(penalty):
    """loss_and_grads whose free bits are applied elsewhere. penalty(kl (B, J), free_bits) -> its value, d value / d kl."""
    def wrong(params, x, eps, config, beta=1.0, free_bits=0.0):
        (log_likelihood, kl), cache = likelihood_and_kl_forward(params, x, eps, config)
        value, slope = penalty(kl, free_bits)
        terms = {"elbo": (log_likelihood - kl.sum(axis=1)).mean(), "log_likelihood": log_likelihood.mean(),
                 "kl": kl.sum(axis=1).mean()}
        dkl = (beta * slope).astype(kl.dtype)
        grads = likelihood_and_kl_backward(np.full_like(log_likelihood, -1 / len(x)), dkl, cache)
        return -log_likelihood.mean() + beta * value, terms, {name: grads[name] for name in params}
    return wrong


def per_image(kl, free_bits):
    return np.maximum(kl, free_bits).sum(axis=1).mean(), (kl > free_bits) / len(kl)


def over_the_sum(kl, free_bits):
    total = kl.sum(axis=1).mean()
    return np.maximum(total, free_bits), np.full(kl.shape, (total > free_bits) / len(kl))


def batch_sum(params, x, eps, config, beta=1.0, free_bits=0.0):
    loss, terms, grads = loss_and_grads(params, x, eps, config, beta, free_bits)
    return loss, terms, {name: len(x) * array for name, array in grads.items()}


# ---- backward alone --------------------------------------------------------------------------------------------------


def float64_backward(dout, cache):
    mu, variance_minus_1 = cache
    dout = dout.astype(np.float64)                  # what a float64 scalar does in NumPy 2
    return dout * mu, dout * 0.5 * variance_minus_1


def one_head_backward(dmu, dlogvar, cache):
    """The second head overwrites the gradient of the hidden layer instead of adding to it."""
    hidden_cache, tanh_cache, mu_cache, logvar_cache = cache
    grads = encode_mlp_backward(dmu, dlogvar, cache)
    da = layers_numpy.tanh_backward(linear_backward(dlogvar, logvar_cache)[0], tanh_cache)
    weight, bias = linear_backward_params(da, hidden_cache)
    return grads | {"encoder.hidden.weight": weight, "encoder.hidden.bias": bias}


def bias_mean_backward(dout, cache):
    dweight, dbias = linear_backward_params(dout, cache)
    return dweight, dbias / len(dout)


def in_place_tanh_backward(dout, cache):
    """Saves memory by squaring in its cache: the next call finds h^2 where h was."""
    cache *= cache
    return dout * (1 - cache)


def in_place_bernoulli_backward(dout, cache):
    """Saves memory by writing the gradient over x, which is the caller's."""
    logits, x = cache
    x -= layers_numpy.sigmoid_forward(logits)[0]
    return dout[:, None] * x


def always_on_backward(dout, cache):
    """The cache is the output, which is never negative."""
    return dout * (cache >= 0)


def kink_forward(a):
    return np.maximum(a, 0), a


def kink_backward(dout, cache):
    return dout * (cache >= 0)


# ---- the step rules --------------------------------------------------------------------------------------------------


def adam_without_correction(params, grads, state, lr):
    means, squares = state.setdefault("mean", {}), state.setdefault("square", {})
    for name, p in params.items():
        means[name] = 0.9 * means.get(name, 0) + 0.1 * grads[name]
        squares[name] = 0.999 * squares.get(name, 0) + 0.001 * grads[name] ** 2
        p -= lr * means[name] / (np.sqrt(squares[name]) + 1e-8)


def adam_eps_inside(params, grads, state, lr):
    means, squares = state.setdefault("mean", {}), state.setdefault("square", {})
    t = state["step"] = state.get("step", 0) + 1
    for name, p in params.items():
        means[name] = 0.9 * means.get(name, 0) + 0.1 * grads[name]
        squares[name] = 0.999 * squares.get(name, 0) + 0.001 * grads[name] ** 2
        p -= lr * means[name] / (1 - 0.9**t) / np.sqrt(squares[name] / (1 - 0.999**t) + 1e-8)


def adagrad_forgets(params, grads, state, lr):
    for name, p in params.items():
        p -= lr * grads[name] / (np.abs(grads[name]) + 1e-10)


def step_in_float64(params, grads, state, lr):
    for name in params:
        params[name] = params[name] - np.array(lr) * grads[name].astype(np.float64)


def swapped_decode_conv_forward(params, z, config):
    """The dense layer's output is read as (width, height): everything still fits."""
    return decode_conv_forward(params, z, replace(config, image_shape=config.image_shape[::-1]))


GAUSSIAN, CONV, BETA, FREE_BITS = {"likelihood": "gaussian"}, {"arch": "conv"}, {"beta": 4.0}, {"free_bits": 0.5}
LABELS = {"condition": 3}
GRADIENTS = "gradients_agree_with_the_referee"

WRONG_ANSWERS = {
    "sigma_is_exp_logvar": WrongAnswer(
        "exp(logvar) used as sigma", {"reparameterize_forward": variance_as_sigma_forward,
                                      "reparameterize_backward": variance_as_sigma_backward},
        "reparameterize_draws_from_the_posterior"),
    "noise_sd": WrongAnswer(
        "noise with a standard deviation other than 1", {"reparameterize_forward": half_noise_forward,
                                                         "reparameterize_backward": reparameterize_backward},
        "reparameterize_draws_from_the_posterior"),
    "no_sampling": WrongAnswer(
        "z = mu, and the result called an ELBO", {"reparameterize_forward": no_noise_forward},
        "the_bound_is_below_log_p"),
    "logvar_clamped_in_the_sampler": WrongAnswer(
        "logvar clamped in the sampler but not in the KL",
        {"reparameterize_forward": clamped_forward, "reparameterize_backward": clamped_backward},
        "reparameterize_draws_from_the_posterior", {"scale": 6.0}),
    "reparameterize_half": WrongAnswer(
        "the 1/2 of sigma = exp(logvar / 2) forgotten in the backward",
        {"reparameterize_backward": half_forgotten_backward},
        "gradients_agree_with_central_differences"),
    "relu_on_heads": WrongAnswer(
        "ReLU on mu and logvar: mu >= 0 and sigma >= 1", {"encode_forward": relu_on_heads_forward,
                                                          "encode_backward": relu_on_heads_backward},
        "encode_agrees_with_the_referee"),
    "mean_over_pixels": WrongAnswer(
        "log-likelihood averaged over pixels, KL summed over latents: beta = D in disguise",
        {"bernoulli_log_likelihood_forward": pixel_mean(bernoulli_forward),
         "bernoulli_log_likelihood_backward": pixel_mean_backward(bernoulli_backward),
         "gaussian_log_likelihood_forward": pixel_mean(gaussian_forward),
         "gaussian_log_likelihood_backward": pixel_mean_backward(gaussian_backward)},
        "bernoulli_log_likelihood"),
    "kl_mean_over_latents": WrongAnswer(
        "KL averaged over latents: beta = 1/J in disguise",
        {"kl_divergence_forward": latent_mean_forward,
         "kl_divergence_backward": lambda dout, cache: kl_backward(dout / cache[0].shape[1], cache)},
        "kl_divergence"),
    "kl_sign": WrongAnswer(
        "KL with a flipped sign", {"kl_divergence_forward": flipped_kl_forward,
                                   "kl_divergence_backward": lambda dout, cache: kl_backward(-dout, cache)},
        "kl_divergence"),
    "sigmoid_then_log": WrongAnswer(
        "log(sigmoid(logits)) in two steps: infinite at logit 40",
        {"bernoulli_log_likelihood_forward": sigmoid_then_log_forward,
         "bernoulli_log_likelihood_backward": sigmoid_then_log_backward},
        "bernoulli_log_likelihood", {"scale": 8.0}),
    "bernoulli_clamped": WrongAnswer(
        "probabilities clamped to [0.01, 0.99]: nothing overflows, and everything is biased",
        {"bernoulli_log_likelihood_forward": clamped_bernoulli_forward,
         "bernoulli_log_likelihood_backward": clamped_bernoulli_backward},
        "bernoulli_log_likelihood", {"scale": 8.0}),
    "sigma_as_logvar": WrongAnswer(
        "sigma handed to a KL that wants logvar",
        {"kl_divergence_forward": sigma_as_logvar_forward, "kl_divergence_backward": sigma_as_logvar_backward},
        "kl_divergence"),
    "gaussian_constant": WrongAnswer(
        "-log(2 pi)/2 left out of every pixel", {"gaussian_log_likelihood_forward": no_constant_forward},
        "gaussian_log_likelihood", GAUSSIAN),
    "gaussian_sigma_is_exp_logvar": WrongAnswer(
        "exp(logvar) used as the decoder's standard deviation",
        {"gaussian_log_likelihood_forward": variance_as_deviation_forward,
         "gaussian_log_likelihood_backward": variance_as_deviation_backward},
        "gaussian_log_likelihood", GAUSSIAN),
    "beta_ignored": WrongAnswer(
        "beta accepted, never used", {"loss_and_grads": beta_ignored}, "loss_and_terms_follow_the_formula", BETA),
    "elbo_with_beta": WrongAnswer(
        "the reported ELBO contains beta, so runs cannot be compared", {"loss_and_grads": elbo_with_beta},
        "loss_and_terms_follow_the_formula", BETA),
    "free_bits_per_image": WrongAnswer(
        "free bits: the maximum before the mean over the batch", {"loss_and_grads": free_bits_elsewhere(per_image)},
        "loss_and_terms_follow_the_formula", FREE_BITS),
    "free_bits_over_the_sum": WrongAnswer(
        "free bits: one maximum over the sum of the latents", {"loss_and_grads": free_bits_elsewhere(over_the_sum)},
        "loss_and_terms_follow_the_formula", FREE_BITS),
    "batch_sum": WrongAnswer(
        "gradients summed over the batch under a loss that is its mean", {"loss_and_grads": batch_sum},
        "gradient_of_the_mean_is_the_mean_of_the_gradients"),
    "float64_leak": WrongAnswer(
        "a np.float64 scalar turns float32 gradients into float64", {"kl_divergence_backward": float64_backward},
        "dtype_in_is_dtype_out"),
    "one_head": WrongAnswer(
        "one head's gradient overwrites the other's instead of adding to it", {"encode_mlp_backward": one_head_backward},
        GRADIENTS),
    "bias_mean": WrongAnswer(
        "the bias gradient averaged over the batch a second time", {"linear_backward_params": bias_mean_backward},
        GRADIENTS),
    "backward_edits_its_cache": WrongAnswer(
        "a backward works in its cache to save memory", {"tanh_backward": in_place_tanh_backward}, "backward_is_pure"),
    "backward_edits_x": WrongAnswer(
        "a backward writes over the caller's images", {"bernoulli_log_likelihood_backward": in_place_bernoulli_backward},
        "calls_are_pure"),
    "relu_always_on": WrongAnswer(
        "ReLU's backward asks its output whether it is >= 0, which it always is", {"relu_backward": always_on_backward},
        GRADIENTS, CONV),
    "relu_kink": WrongAnswer(
        "relu'(0) = 1", {"relu_forward": kink_forward, "relu_backward": kink_backward}, "gradients_at_the_kink", CONV,
        in_gradients=False),
    "adam_without_correction": WrongAnswer(
        "Adam without the correction for its start at zero", {"adam_step": adam_without_correction},
        "50_adam_steps_give_the_weights_of_torch_optim", in_gradients=False),
    "adam_eps_inside": WrongAnswer(
        "Adam's eps under the root", {"adam_step": adam_eps_inside},
        "50_adam_steps_give_the_weights_of_torch_optim", in_gradients=False),
    "adagrad_forgets": WrongAnswer(
        "Adagrad that forgets the earlier gradients", {"adagrad_step": adagrad_forgets},
        "50_adagrad_steps_give_the_weights_of_torch_optim", in_gradients=False),
    "step_in_float64": WrongAnswer(
        "a step that turns the weights into float64", {"sgd_step": step_in_float64},
        "a_step_of_float32_stays_float32", in_gradients=False),
    "height_width_swapped": WrongAnswer(
        "height and width swapped in the decoder's reshape", {"decode_conv_forward": swapped_decode_conv_forward},
        "decode_agrees_with_the_referee", CONV),
    "label_to_the_encoder_only": WrongAnswer(
        "the label joined to the encoder's input only: whatever is asked for, the decoder draws anything",
        {"join_label": label_to_the_encoder_only}, "decode_agrees_with_the_referee", LABELS),
    "label_shifted": WrongAnswer(
        "labels counted from 1: the same weights mean other digits at every other level", {"join_label": next_label},
        "encode_agrees_with_the_referee", LABELS),
    "label_in_the_target": WrongAnswer(
        "the one-hot label counted as pixels of the target", {"likelihood_and_kl_forward": label_in_the_target_forward},
        "elbo_terms_agree_with_the_referee", LABELS),
    "label_gradient_into_z": WrongAnswer(
        "the gradient of the one-hot label added to that of z", {"decode_mlp_backward": label_gradient_into_z_backward},
        GRADIENTS, LABELS),
}
