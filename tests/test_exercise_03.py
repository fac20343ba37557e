"""Exercise 03: every named mistake is answered with a sentence of its own, and nothing that is nearly right passes."""

import layers_numpy
import losses_numpy
import networks_numpy
import numpy as np
import pytest
import vae_numpy
from scipy.special import expit, log_expit

from exercises.checks.gradients import small_case
from exercises.checks.verdict import SOLVED, TASKS, WRONG

# ---- the right answers, for the wrong ones to lean on ------------------------------------------------------------------

log_likelihood = losses_numpy.bernoulli_log_likelihood


def differences(f, a, h=1e-5, up=1.0, down=1.0, over=None, restore=True, every=False, sign=1.0):
    """(f(a + up h) - f(a - down h)) / over, entry by entry, or with all of them moved at once."""
    gradient, place = np.zeros_like(a), a.copy()
    for index in np.ndindex(a.shape):
        step = np.full_like(a, h) if every else np.zeros_like(a)
        step[index] = h
        gradient[index] = sign * (f(place + up * step) - f(place - down * step)) / (over or (up + down) * h)
        place = place if restore else place + step
    return gradient


def in_place_differences(f, a, h=1e-5):
    gradient = np.zeros_like(a)
    for index in np.ndindex(a.shape):
        a[index] += h
        above = f(a)
        a[index] -= 2 * h
        gradient[index] = (above - f(a)) / (2 * h)
    return gradient


def kl(dkl, mu, logvar):
    return losses_numpy.kl_divergence_backward(dkl, losses_numpy.kl_divergence_forward(mu, logvar)[1])


def per_pixel(logits, x):
    return x * log_expit(logits) + (1 - x) * log_expit(-logits)


def sigmoid_then_log(logits, x):
    y = 1 / (1 + np.exp(-logits))
    return (x * np.log(y) + (1 - x) * np.log(1 - y)).sum(axis=1)


def clamped(logits, x):
    y = np.clip(1 / (1 + np.exp(-logits)), 1e-7, 1 - 1e-7)
    return (x * np.log(y) + (1 - x) * np.log(1 - y)).sum(axis=1)


def nudged(logits, x):
    y = 1 / (1 + np.exp(-logits))
    return (x * np.log(y + 1e-8) + (1 - x) * np.log(1 - y + 1e-8)).sum(axis=1)


def overflowing(logits, x):
    return (x * logits - np.log(1 + np.exp(logits))).sum(axis=1)


def dlogits(dout, logits, x):
    return losses_numpy.bernoulli_log_likelihood_backward(dout, (logits, x))


def infinity_by_infinity(dout, logits, x):
    return dout[:, None] * (x - np.exp(logits) / (1 + np.exp(logits)))


def draw(dz, logvar, eps):
    return vae_numpy.reparameterize_backward(dz, (np.exp(0.5 * logvar), eps))


def linear(dout, x, weight):
    return layers_numpy.linear_backward(dout, (x, weight))


def encoder(dmu, dlogvar, params, x, h, slope=None, hidden=None, heads=None):
    """The encoder's backward; slope: tanh' from h; hidden: da from what the heads give; heads: how they join."""
    from_mu, from_logvar = dmu @ params["encoder.mu.weight"], dlogvar @ params["encoder.logvar.weight"]
    dh = heads(from_mu, from_logvar) if heads else from_mu + from_logvar
    da = dh * (slope(h) if slope else 1 - h * h)
    found = {}
    for name, dout, given in (("hidden", da, hidden(x, h) if hidden else x), ("mu", dmu, h), ("logvar", dlogvar, h)):
        found[f"encoder.{name}.weight"], found[f"encoder.{name}.bias"] = dout.T @ given, dout.sum(axis=0)
    return found


def changed(change):
    """The encoder's right gradients, then one change."""
    def theirs(dmu, dlogvar, params, x, h):
        found = encoder(dmu, dlogvar, params, x, h)
        return found | change(found, dmu, dlogvar, x, h)
    return theirs


def before_the_tanh(dmu, dlogvar, params, x, h):
    a = x @ params["encoder.hidden.weight"].T + params["encoder.hidden.bias"]
    return encoder(dmu, dlogvar, params, x, h, slope=lambda h: 1 - a * a)


def crossed(dmu, dlogvar, params, x, h):
    other = {"encoder.mu.weight": params["encoder.logvar.weight"], "encoder.logvar.weight": params["encoder.mu.weight"]}
    return encoder(dmu, dlogvar, params | other, x, h)


def adds_in_place(dmu, dlogvar, params, x, h):
    dmu += dlogvar
    return encoder(dmu, dlogvar, params, x, h)


def edits_its_cache(dmu, dlogvar, params, x, h):
    np.subtract(1, h * h, out=h)
    return encoder(dmu, dlogvar, params, x, h, slope=lambda h: h)


def takes_a_step(dmu, dlogvar, params, x, h):
    found = encoder(dmu, dlogvar, params, x, h)
    for name, gradient in found.items():
        params[name] -= 0.1 * gradient
    return found


class Collected:
    """Gradients that are added to those of the calls before, as autograd's .grad."""

    def __init__(self):
        self.grads = {}

    def __call__(self, *arguments):
        for name, gradient in encoder(*arguments).items():
            self.grads[name] = self.grads.get(name, 0) + gradient
        return dict(self.grads)


def sampled(mu, logvar, eps):
    return vae_numpy.reparameterize(mu, logvar, eps)


def pathwise(df, mu, logvar, eps):
    return df(sampled(mu, logvar, eps))


def own_noise(df, mu, logvar, eps):
    return df(sampled(mu, logvar, np.random.default_rng().standard_normal(eps.shape)))


def score(f, mu, logvar, eps, factor=None, baseline=None):
    """f times the score in mu, or times another factor, less a baseline that is made from f's values."""
    values = f(sampled(mu, logvar, eps))
    values = values - (baseline(values) if baseline else 0)
    return values[:, None] * (eps / np.exp(0.5 * logvar) if factor is None else factor)


def log_q(mu, logvar, eps):
    return -0.5 * (eps**2 + logvar + np.log(2 * np.pi))


RIGHT = {
    "central_difference": differences,
    "kl_backward": kl,
    "log_likelihood_from_logits": log_likelihood,
    "log_likelihood_backward": dlogits,
    "reparameterize_backward": draw,
    "linear_backward": linear,
    "encoder_backward": encoder,
    "pathwise_gradients": pathwise,
    "score_gradients": score,
}
AS_RIGHT = [
    ("log_likelihood_from_logits", lambda logits, x: per_pixel(logits, x).sum(axis=1)),
    ("log_likelihood_from_logits", lambda logits, x: (x * logits - np.logaddexp(0, logits)).sum(axis=1)),
    ("log_likelihood_backward", lambda dout, logits, x: (dout * (x - expit(logits)).T).T),
    ("kl_backward", lambda dkl, mu, logvar: [dkl * mu, dkl * (np.exp(logvar) - 1) / 2]),
    ("score_gradients", lambda f, mu, logvar, eps: score(lambda z: f(z) - f(mu[None]), mu, logvar, eps)),
    ("score_gradients", lambda f, mu, logvar, eps: score(f, mu, logvar, eps, baseline=lambda values: -3.0)),
    ("score_gradients", lambda f, mu, logvar, eps:
     score(f, mu, logvar, eps, baseline=lambda values: (values.sum() - values) / (len(values) - 1))),
]

MISTAKES = {
    "central_difference": [
        (lambda f, a, h=1e-5: differences(f, a, h, over=h), "a + h it is 2h"),
        (lambda f, a, h=1e-5: differences(f, a, h, over=1 / (2 * h)), "parentheses"),
        (lambda f, a, h=1e-5: differences(f, a, h, over=2 / h), "parentheses"),
        (lambda f, a, h=1e-5: differences(f, a, h, over=1), "not divided"),
        (lambda f, a, h=1e-5: differences(f, a, h, down=0.0), "one-sided"),
        (lambda f, a, h=1e-5: differences(f, a, h, up=0.0), "one-sided"),
        (lambda f, a, h=1e-5: differences(f, a, h, down=0.0, over=2 * h), "one-sided"),
        (lambda f, a, h=1e-5: differences(f, a, h, sign=-1.0), "above minus below"),
        (lambda f, a, h=1e-5: differences(f, a, h, every=True), "all entries at once"),
        (lambda f, a, h=1e-5: differences(f, a, h, restore=False), "put an entry back"),
        (lambda f, a, h=1e-5: differences(f, a, 1e-5), "the h that is given"),
        (lambda f, a, h=1e-2: differences(f, a, h), "that your function takes by itself"),
        (in_place_differences, "argument number 2"),
        (lambda f, a, h=1e-5: differences(f, a, h).ravel(), "shape"),
    ],
    "kl_backward": [
        (lambda dkl, mu, logvar: kl(dkl, mu, logvar)[::-1], "the other way round"),
        (lambda dkl, mu, logvar: kl(dkl, mu, logvar)[0], "two values"),
        (lambda dkl, mu, logvar: (dkl * mu / 2, kl(dkl, mu, logvar)[1]), "derivative of mu^2 is 2 mu"),
        (lambda dkl, mu, logvar: (2 * dkl * mu, kl(dkl, mu, logvar)[1]), "Your dmu is twice"),
        (lambda dkl, mu, logvar: (-dkl * mu, kl(dkl, mu, logvar)[1]), "Your dmu has the wrong sign"),
        (lambda dkl, mu, logvar: (mu, kl(dkl, mu, logvar)[1]), "Your dmu does not use what comes in"),
        (lambda dkl, mu, logvar: (dkl * mu / len(mu), kl(dkl, mu, logvar)[1]), "1/B of the mean"),
        (lambda dkl, mu, logvar: (dkl * mu / mu.size, kl(dkl, mu, logvar)[1]), "over all entries"),
        (lambda dkl, mu, logvar: ((dkl * mu).sum(axis=0), kl(dkl, mu, logvar)[1]), "You sum dmu"),
        (lambda dkl, mu, logvar: (dkl * mu**2 / 2, kl(dkl, mu, logvar)[1]), "differentiate it"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * np.expm1(logvar)), "dlogvar is twice"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * np.expm1(logvar) / 4), "applied twice"),
        (lambda dkl, mu, logvar: (dkl * mu, -dkl * np.expm1(logvar) / 2), "dlogvar has the wrong sign"),
        (lambda dkl, mu, logvar: (dkl * mu, np.expm1(logvar) / 2), "dlogvar does not use what comes in"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * np.expm1(logvar) / 2 / len(mu)), "dlogvar is divided by the"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * np.expm1(logvar) / 2 / mu.size), "dlogvar is averaged"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * np.exp(logvar) / 2), "The term -logvar has a derivative too"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * (np.exp(logvar / 2) - np.exp(-logvar / 2))), "differentiate in sigma:"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * (1 - np.exp(-logvar)) / 2), "differentiate in sigma^2"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * np.expm1(logvar / 2) / 2), "exp(logvar / 2), sigma"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * (logvar - 1) / 2), "logvar for sigma^2"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * (logvar**2 - 1) / 2), "logvar for sigma:"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * np.expm1(2 * logvar) / 2), "exp(logvar) for sigma"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * (np.exp(logvar) - 1 / logvar) / 2), "-1/logvar"),
        (lambda dkl, mu, logvar: (dkl * mu, dkl * (np.exp(logvar) - 2) / 2), "a constant"),
        (lambda dkl, mu, logvar: (np.multiply(dkl, mu, out=dkl), dkl), "argument number 1"),
    ],
    "log_likelihood_from_logits": [
        (lambda logits, x: -log_likelihood(logits, x), "wrong sign"),
        (lambda logits, x: per_pixel(logits, x).mean(axis=1), "beta = D"),
        (lambda logits, x: per_pixel(logits, x).sum(), "one number for each, (B,)"),
        (lambda logits, x: -per_pixel(logits, x).mean(), "one number for each, (B,)"),
        (lambda logits, x: per_pixel(logits, x).sum(axis=0), "sum over the images: sum"),
        (per_pixel, "for every pixel"),
        (lambda logits, x: (x * log_expit(logits)).sum(axis=1), "black pixels"),
        (lambda logits, x: ((1 - x) * log_expit(-logits)).sum(axis=1), "white pixels"),
        (lambda logits, x: log_likelihood(logits, 1 - x), "swapped"),
        (lambda logits, x: (x * logits + np.logaddexp(0, logits)).sum(axis=1), "MINUS"),
        (lambda logits, x: -np.logaddexp(0, logits).sum(axis=1), "x l is missing"),
        (lambda logits, x: (x * logits).sum(axis=1), "softplus is missing"),
        (lambda logits, x: (x * logits - np.log1p(np.exp(-np.abs(logits)))).sum(axis=1), "max(l, 0)"),
        (sigmoid_then_log, "Never sigmoid, then log"),
        (clamped, "cut off"),
        (nudged, "cut off"),
        (overflowing, "e^1000 overflows"),
        (lambda logits, x: log_likelihood(np.clip(logits, -99, 99), x), "You cut the logits off at 99"),
    ],
    "log_likelihood_backward": [
        (lambda dout, logits, x: -dlogits(dout, logits, x), "wrong sign"),
        (lambda dout, logits, x: x - expit(logits), "does not use what comes in"),
        (lambda dout, logits, x: dlogits(dout, logits, x) / len(x), "1/B of the mean"),
        (lambda dout, logits, x: dlogits(dout, logits, x) / x.shape[1], "number of pixels"),
        (lambda dout, logits, x: dout[:, None] * (x - logits), "sigmoid is missing"),
        (lambda dout, logits, x:
         dout[:, None] * (x / expit(logits) - (1 - x) / expit(-logits)), "gradient in y"),
        (lambda dout, logits, x:
         dlogits(dout, logits, x) * expit(logits) * expit(-logits), "squared error"),
        (lambda dout, logits, x: -dout[:, None] * expit(logits), "x is missing"),
        (lambda dout, logits, x: dlogits(dout, logits, x).sum(axis=1), "sum over the pixels"),
        (lambda dout, logits, x: dlogits(dout, logits, x).sum(axis=0), "sum over the images"),
        (lambda dout, logits, x: dout * (x - expit(logits)), "ValueError"),
        (infinity_by_infinity, "divided by infinity"),
        (lambda dout, logits, x: np.multiply(dout[:, None], x - expit(logits), out=x),
         "argument number 3"),
    ],
    "reparameterize_backward": [
        (lambda dz, logvar, eps: draw(dz, logvar, eps)[::-1], "the other way round"),
        (lambda dz, logvar, eps: (np.ones_like(dz), draw(dz, logvar, eps)[1]), "dmu does not use"),
        (lambda dz, logvar, eps: (-dz, draw(dz, logvar, eps)[1]), "where mu goes"),
        (lambda dz, logvar, eps: (dz / len(dz), draw(dz, logvar, eps)[1]), "dmu is divided by the number"),
        (lambda dz, logvar, eps: (dz.sum(axis=0), draw(dz, logvar, eps)[1]), "You sum dmu"),
        (lambda dz, logvar, eps: (dz * eps, draw(dz, logvar, eps)[1]), "scaled by the noise"),
        (lambda dz, logvar, eps: (0 * dz, draw(dz, logvar, eps)[1]), "dmu is 0"),
        (lambda dz, logvar, eps: (dz, dz * eps * np.exp(logvar / 2)), "derivative of logvar / 2 is 1/2"),
        (lambda dz, logvar, eps: (dz, dz * eps * np.exp(logvar / 2) / 4), "applied twice"),
        (lambda dz, logvar, eps: (dz, dz * np.exp(logvar / 2)), "eps is left out"),
        (lambda dz, logvar, eps: (dz, dz * np.exp(logvar / 2) / 2), "eps is left out"),
        (lambda dz, logvar, eps: (dz, dz * eps), "sigma is left out"),
        (lambda dz, logvar, eps: (dz, dz * eps / 2), "sigma is left out"),
        (lambda dz, logvar, eps: (dz, dz * eps * np.exp(logvar) / 2), "the variance exp(logvar)"),
        (lambda dz, logvar, eps: (dz, dz * eps * np.exp(logvar)), "the variance exp(logvar)"),
        (lambda dz, logvar, eps: (dz, dz * eps * logvar), "logvar itself"),
        (lambda dz, logvar, eps: (dz, eps * np.exp(logvar / 2) / 2), "dlogvar does not use"),
        (lambda dz, logvar, eps: (dz, -draw(dz, logvar, eps)[1]), "dlogvar has the wrong sign"),
        (lambda dz, logvar, eps: (dz, draw(dz, logvar, eps)[1] / len(dz)), "dlogvar is divided by the"),
        (lambda dz, logvar, eps: (dz, dz * eps / np.exp(logvar / 2) / 2), "divides by sigma"),
        (lambda dz, logvar, eps: (dz, 0 * dz), "dlogvar is 0"),
        (lambda dz, logvar, eps: (dz, dz), "dlogvar is dz"),
        (lambda dz, logvar, eps: (dz, draw(dz, logvar, eps)[1].sum(axis=0)), "sum dlogvar"),
        (lambda dz, logvar, eps: (dz, np.multiply(dz, eps, out=eps)), "argument number 3"),
    ],
    "linear_backward": [
        (lambda dout, x, weight: linear(dout, x, weight)[:2], "three values"),
        (lambda dout, x, weight: linear(dout, x, weight)[::-1], "another order"),
        (lambda dout, x, weight: (dout @ weight, dout.sum(axis=0), dout.T @ x), "another order"),
        (lambda dout, x, weight: (dout @ weight.T, dout.T @ x, dout.sum(axis=0)), "ValueError"),
        (lambda dout, x, weight: (dout @ weight / 5, dout.T @ x, dout.sum(axis=0)), "dx is divided by"),
        (lambda dout, x, weight: ((dout @ weight).T, dout.T @ x, dout.sum(axis=0)), "dx is transposed"),
        (lambda dout, x, weight: (-dout @ weight, dout.T @ x, dout.sum(axis=0)), "dx has the wrong sign"),
        (lambda dout, x, weight: (weight, dout.T @ x, dout.sum(axis=0)), "dx does not use"),
        (lambda dout, x, weight: (dout @ weight, x.T @ dout, dout.sum(axis=0)), "dweight is transposed"),
        (lambda dout, x, weight: (dout @ weight, dout.T @ x / len(x), dout.sum(axis=0)), "dweight is divided by"),
        (lambda dout, x, weight: (dout @ weight, -dout.T @ x, dout.sum(axis=0)), "dweight has the wrong sign"),
        (lambda dout, x, weight: (dout @ weight, np.ones_like(dout).T @ x, dout.sum(axis=0)), "dweight does not"),
        (lambda dout, x, weight: (dout @ weight, dout[:, :, None] * x[:, None], dout.sum(axis=0)), "every image apart"),
        (lambda dout, x, weight: (dout @ weight, dout.T @ x, dout), "not summed over the images"),
        (lambda dout, x, weight: (dout @ weight, dout.T @ x, dout.mean(axis=0)), "dbias is divided by"),
        (lambda dout, x, weight: (dout @ weight, dout.T @ x, dout.sum(axis=1)), "over the outputs"),
        (lambda dout, x, weight: (dout @ weight, dout.T @ x, dout.sum()), "over everything"),
        (lambda dout, x, weight: (dout @ weight, dout.T @ x, np.ones(len(weight))), "dbias does not use"),
        (lambda dout, x, weight: (dout @ weight, dout.T @ x, dout.sum(axis=0, keepdims=True)), "one row"),
        (lambda dout, x, weight: (dout @ weight, dout.T @ x, -dout.sum(axis=0)), "dbias has the wrong sign"),
    ],
    "encoder_backward": [
        (lambda *arguments: list(encoder(*arguments).values()), "Return a dict"),
        (lambda *arguments: {name: gradient for name, gradient in encoder(*arguments).items() if "mu" in name},
         "Missing: encoder.hidden.weight"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.x": x}), "Not among them: encoder.x"),
        (lambda dmu, dlogvar, *others: encoder(dlogvar, dmu, *others), "mix the two heads up"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.mu.weight": h.T @ dmu}), "mu.weight is transposed"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.logvar.weight": dlogvar.T @ h / 5}),
         "logvar.weight is divided by"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.mu.weight": dmu.T @ x}), "not the image"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.mu.weight": dmu.T @ np.tanh(h)}), "no further tanh"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.mu.weight": dmu.T @ np.arctanh(h)}),
         "yours is before it"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.mu.bias": dmu}), "mu.bias is not summed"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.logvar.bias": dlogvar.mean(axis=0)}),
         "logvar.bias is divided by"),
        (lambda *arguments: encoder(*arguments, heads=lambda mu, logvar: mu), "Only the gradient of the head mu"),
        (lambda *arguments: encoder(*arguments, heads=lambda mu, logvar: logvar), "of the head logvar comes"),
        (lambda *arguments: encoder(*arguments, heads=lambda mu, logvar: (mu + logvar) / 2), "You average"),
        (lambda *arguments: encoder(*arguments, heads=lambda mu, logvar: mu - logvar), "You subtract"),
        (lambda *arguments: encoder(*arguments, heads=lambda mu, logvar: mu * logvar), "You multiply the grad"),
        (lambda *arguments: encoder(*arguments, slope=np.ones_like), "tanh is missing"),
        (lambda *arguments: encoder(*arguments, slope=lambda h: 1 - np.tanh(h) ** 2), "as if h were its input"),
        (before_the_tanh, "where its output stands"),
        (lambda *arguments: encoder(*arguments, slope=lambda h: 1 - h), "square is missing"),
        (lambda *arguments: encoder(*arguments, slope=lambda h: h * (1 - h)), "derivative of a sigmoid"),
        (lambda *arguments: encoder(*arguments, slope=lambda h: h > 0), "derivative of a ReLU"),
        (lambda *arguments: encoder(*arguments, slope=lambda h: h), "not by its derivative"),
        (lambda *arguments: encoder(*arguments, slope=lambda h: h * h - 1), "hidden layer has the wrong sign"),
        (crossed, "weights of each other"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.hidden.weight": found["encoder.hidden.weight"].T}),
         "hidden.weight is transposed"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.hidden.weight": found["encoder.hidden.weight"] / 5}),
         "hidden.weight is divided by"),
        (lambda *arguments: encoder(*arguments, hidden=lambda x, h: h), "the image x, not h"),
        (changed(lambda found, dmu, dlogvar, x, h: {"encoder.hidden.bias": found["encoder.hidden.bias"] / 5}),
         "hidden.bias is divided by"),
        (adds_in_place, "argument number 1"),
        (edits_its_cache, "argument number 5"),
        (takes_a_step, "writes into params"),
        (Collected(), "twice"),
    ],
    "pathwise_gradients": [
        (lambda df, mu, logvar, eps: pathwise(df, mu, logvar, eps).mean(axis=0), "average over the draws"),
        (lambda df, mu, logvar, eps: sampled(mu, logvar, eps), "You return the draws"),
        (lambda df, mu, logvar, eps: df(mu), "not of E[f(z)]"),
        (own_noise, "noise of your own"),
        (lambda df, mu, logvar, eps: df(eps), "gradient at the noise"),
        (lambda df, mu, logvar, eps: df(mu + eps), "not scaled"),
        (lambda df, mu, logvar, eps: df(mu + np.exp(logvar) * eps), "by the variance"),
        (lambda df, mu, logvar, eps: df(mu + logvar * eps), "logvar itself"),
        (lambda df, mu, logvar, eps: pathwise(df, mu, logvar, eps) * eps, "gradient in sigma"),
        (lambda df, mu, logvar, eps: pathwise(df, mu, logvar, eps) * eps * np.exp(logvar / 2) / 2,
         "gradient in logvar"),
        (lambda df, mu, logvar, eps: pathwise(df, mu, logvar, eps) * np.exp(logvar / 2), "multiply by sigma"),
        (lambda df, mu, logvar, eps: pathwise(df, mu, logvar, eps) / np.exp(logvar / 2), "divide by sigma"),
        (lambda df, mu, logvar, eps: pathwise(df, mu, logvar, eps) * eps / np.exp(logvar / 2), "score function"),
        (lambda df, mu, logvar, eps: -pathwise(df, mu, logvar, eps), "wrong sign"),
    ],
    "score_gradients": [
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps).mean(axis=0), "average over the draws"),
        (lambda f, mu, logvar, eps: eps / np.exp(logvar / 2), "f is left out"),
        (lambda f, mu, logvar, eps: f(sampled(mu, logvar, eps)), "score is left out"),
        (lambda f, mu, logvar, eps: -score(f, mu, logvar, eps), "derivative of log q in z"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps, eps / np.exp(logvar)), "once too often"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps, np.exp(logvar / 2) * eps), "do not divide"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps, eps), "one sigma is left below"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps, eps / logvar), "You use logvar"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps, sampled(mu, logvar, eps) / np.exp(logvar)),
         "forgets mu"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps, log_q(mu, logvar, eps)), "log q itself"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps, log_q(mu, logvar, eps).sum(axis=1, keepdims=True)),
         "log q itself"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps, (eps**2 - 1) / 2), "gradient in logvar"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps, (eps**2 - 1) / np.exp(logvar / 2)),
         "gradient in sigma"),
        (lambda f, mu, logvar, eps: f(mu[None])[:, None] * eps / np.exp(logvar / 2), "at the means"),
        (lambda f, mu, logvar, eps: f(eps)[:, None] * eps / np.exp(logvar / 2), "at the noise"),
        (lambda f, mu, logvar, eps: f(mu + np.exp(logvar) * eps)[:, None] * eps / np.exp(logvar / 2),
         "scale the noise by the variance"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, eps, baseline=np.mean), "the very draws"),
        (lambda f, mu, logvar, eps: f(sampled(mu, logvar, eps)) * eps / np.exp(logvar / 2), "ValueError"),
        (lambda f, mu, logvar, eps: score(f, mu, logvar, np.random.default_rng().standard_normal(eps.shape)),
         "noise of your own"),
    ],
}
CASES = [(name, theirs, words) for name, cases in MISTAKES.items() for theirs, words in cases]


@pytest.mark.parametrize(("name", "theirs", "words"), CASES, ids=[f"{name}: {words}" for name, _, words in CASES])
def test_a_mistake_is_named(name, theirs, words):
    verdict = TASKS[name].judge(theirs)
    assert verdict.state == WRONG and words in verdict.message, verdict


@pytest.mark.parametrize(("name", "theirs"), [*RIGHT.items(), *AS_RIGHT],
                         ids=[*RIGHT, *(f"{name}, in another way" for name, _ in AS_RIGHT)])
def test_the_right_answer_is_solved_however_it_is_written(name, theirs):
    verdict = TASKS[name].judge(theirs)
    assert verdict.state == SOLVED, verdict


def spoiled(got, rng):
    """The answer, with one number of one of its arrays off by a thousandth: lists, dicts and single arrays."""
    if isinstance(got, dict):
        name = rng.choice(list(got))
        return got | {name: spoiled(got[name], rng)}
    if isinstance(got, tuple | list):
        which = rng.integers(len(got))
        return [spoiled(each, rng) if number == which else each for number, each in enumerate(got)]
    array = np.array(got, np.float64)
    place = rng.integers(array.size)
    array.flat[place] += 1e-3 * max(1.0, abs(array.flat[place]))
    return array


@pytest.mark.parametrize("name", RIGHT)
def test_an_answer_that_is_wrong_in_one_number_is_wrong(name):
    for seed in range(10):
        def theirs(*arguments, rng=np.random.default_rng(seed), **settings):                # noqa: B008
            return spoiled(RIGHT[name](*arguments, **settings), rng)
        assert TASKS[name].judge(theirs).state == WRONG


def test_the_encoder_above_is_level_1s():
    config, params, x = small_case()
    dmu, dlogvar = np.random.default_rng(0).standard_normal((2, 5, 3))
    _, cache = networks_numpy.encode_forward(params, x, config)
    h = np.tanh(x @ params["encoder.hidden.weight"].T + params["encoder.hidden.bias"])
    found = encoder(dmu, dlogvar, params, x, h)
    for name, gradient in networks_numpy.encode_backward(dmu, dlogvar, cache).items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-12, atol=1e-12)           # float64, sums of five
