"""Checks of exercise 03: differences, the backward of every piece of a VAE, pathwise and score-function gradients."""

import layers_numpy
import losses_numpy
import networks_numpy
import numpy as np
import vae_numpy

from exercises.checks.latent_space import small_case
from exercises.checks.verdict import Wrong, call, compare, pair, task

# B images, D pixels, H hidden units, J latents, L draws
TWICE_AVERAGED = "is divided by the number of images: the 1/B of the mean is in what comes in already."
NO_CHAIN = "does not use what comes in: multiply by it, that is the chain rule."
CUT_OFF = ("You keep the sigmoid away from 0 and 1 by a small number. It is finite, but at logit 40 it is not -40: the "
           "penalty for being sure and wrong is cut off, and its gradient is 0. Use the softplus of the logits.")
SMALL = 10.0 ** -np.arange(3, 17)                                           # numbers that people choose for it


@task("03.1")
def central_difference(theirs):
    weight, a, h = np.array([[0.3, -0.8, 0.5], [1.1, 0.6, -0.4]]), np.array([[0.2, -0.5, 0.1], [0.3, 0.4, 0.7]]), 0.1

    def f(a):
        return float(np.exp((weight * a).sum()))

    # f(a + h e_i) = f(a) exp(h w_i), so that every difference has a closed form
    value, up, down = f(a), np.exp(h * weight), np.exp(-h * weight)
    right = value * (up - down) / (2 * h)
    done = np.concatenate([[1.0], np.cumprod(up.ravel())[:-1]]).reshape(2, 3)           # the entries before this one moved
    all_up, all_down = np.exp(h * weight.sum()), np.exp(-h * weight.sum())
    default = value * weight * np.sinh(1e-5 * weight) / (1e-5 * weight)                 # with h = 1e-5
    compare("the gradient by differences", call(theirs, f, a, h), right, {
        "You divide by h: from a - h to a + h it is 2h.": 2 * right,
        "You multiply by 2h instead of dividing: (above - below) / (2 * h) needs its parentheses.":
            [right * h * h, right * 4 * h * h],
        "The difference is not divided by the way between the two points, 2h.": right * 2 * h,
        "You compare a + h with a itself: such a one-sided difference is off by h, a central one by h^2 only.":
            [value * (up - 1) / h, value * (1 - down) / h, value * (up - 1) / (2 * h), value * (1 - down) / (2 * h)],
        "Your gradient has the wrong sign: it is above minus below.": -right,
        "You move all entries at once, so that each holds the same number: move one, and leave the others where they were.":
            np.full((2, 3), value * (all_up - all_down) / (2 * h)),
        "You do not put an entry back before the next one moves.": [right * done, right / done],
        "You do not use the h that is given, but 1e-5.": default,
    })
    # h = 1e-5: 2e-11 of what the series drops, 1e-11 of rounding
    compare("the gradient with the h that your function takes by itself (1e-5)", call(theirs, f, a), value * weight,
            rtol=1e-8, atol=1e-8)


@task("03.2")
def kl_backward(theirs):
    rng = np.random.default_rng(31)
    mu, logvar = rng.normal(0, 1.5, (5, 3)), rng.normal(-0.5, 1.2, (5, 3))
    dkl = rng.standard_normal((5, 3))
    dmu, dlogvar = pair(call(theirs, dkl, mu, logvar), "dmu and dlogvar")
    _, cache = losses_numpy.kl_divergence_forward(mu, logvar)
    right_mu, right_logvar = losses_numpy.kl_divergence_backward(dkl, cache)
    sigma, variance = np.exp(0.5 * logvar), np.exp(logvar)
    compare("the gradient dmu", dmu, right_mu, {
        "You return the two the other way round: dmu first, then dlogvar.": right_logvar,
        "Your dmu is half of what it should be: the derivative of mu^2 is 2 mu, and the 1/2 takes the 2 away.":
            0.5 * right_mu,
        "Your dmu is twice what it should be: the 1/2 of the KL is missing.": 2 * right_mu,
        "Your dmu has the wrong sign: the KL grows as mu moves away from 0.": -right_mu,
        f"Your dmu {NO_CHAIN}": mu,
        f"Your dmu {TWICE_AVERAGED}": right_mu / 5,
        "Your dmu is averaged over all entries: the 1/B of the mean is in dkl already.": right_mu / 15,
        "You sum dmu: every image and latent has a mu of its own, (B, J).":
            [right_mu.sum(axis=0), right_mu.sum(axis=1), right_mu.mean(axis=0)],
        "You return mu^2 / 2, the KL's own term: differentiate it.": [0.5 * mu**2, dkl * 0.5 * mu**2],
    })
    compare("the gradient dlogvar", dlogvar, right_logvar, {
        "Your dlogvar is twice what it should be: the 1/2 of the KL is missing.": 2 * right_logvar,
        "Your dlogvar is half of what it should be: is the 1/2 applied twice?": 0.5 * right_logvar,
        "Your dlogvar has the wrong sign: the KL grows as sigma^2 grows beyond 1.": -right_logvar,
        f"Your dlogvar {NO_CHAIN}": 0.5 * (variance - 1),
        f"Your dlogvar {TWICE_AVERAGED}": right_logvar / 5,
        "Your dlogvar is averaged over all entries: the 1/B of the mean is in dkl already.": right_logvar / 15,
        "The term -logvar has a derivative too: -1/2. At sigma = 1 the gradient is 0.": dkl * 0.5 * variance,
        "You differentiate in sigma: the gradient is wanted in logvar, and sigma^2 = exp(logvar).":
            dkl * (sigma - 1 / sigma),
        "You differentiate in sigma^2: the gradient is wanted in logvar, and the derivative of exp(logvar) is itself.":
            dkl * 0.5 * (1 - 1 / variance),
        "You take exp(logvar / 2), sigma, where sigma^2 = exp(logvar) stands.": dkl * 0.5 * (sigma - 1),
        "You take logvar for sigma^2, which is exp(logvar).": dkl * 0.5 * (logvar - 1),
        "You take logvar for sigma: sigma^2 is exp(logvar).":
            [dkl * 0.5 * (logvar**2 - 1), dkl * (logvar - 1 / logvar)],
        "You take exp(logvar) for sigma; it is sigma^2 already.":
            [dkl * 0.5 * (variance**2 - 1), dkl * (variance - 1 / variance), dkl * (variance**2 - 1)],
        "The derivative of -logvar is -1, yours is -1/logvar: it is the logarithm already.":
            dkl * 0.5 * (variance - 1 / logvar),
        "The -1 of the KL is a constant, its derivative is 0; but -logvar gives one.": dkl * 0.5 * (variance - 2),
    })


@task("03.3")
def log_likelihood_from_logits(theirs):
    rng = np.random.default_rng(33)
    logits, x = rng.normal(0, 2, (5, 7)), (rng.random((5, 7)) < 0.5).astype(np.float64)
    with np.errstate(all="ignore"):                                         # the verdict says it better than a warning
        right = losses_numpy.bernoulli_log_likelihood(logits, x)
        y = 1 / (1 + np.exp(-logits))
        per_pixel = x * np.log(y) + (1 - x) * np.log(1 - y)
        compare("the log-likelihood", call(theirs, logits, x), right, {
            "Your log-likelihood has the wrong sign: the log of a probability is never positive. The loss is its negative.":
                -right,
            "You average over the pixels: that weakens the likelihood against the KL D times, which is a beta-VAE with "
            "beta = D. Sum.": [right / 7, -right / 7],
            "You average or sum over the images too: keep one number for each, (B,).":
                [right.sum(), right.mean(), per_pixel.mean(), -right.sum(), -right.mean(), -per_pixel.mean()],
            "You sum over the images: sum over the pixels, axis 1.": [per_pixel.sum(axis=0), -per_pixel.sum(axis=0)],
            "You return a number for every pixel: sum over the pixels, axis 1.": [per_pixel, -per_pixel],
            "The black pixels, x = 0, are missing: they say log(1 - y).": (x * np.log(y)).sum(axis=1),
            "The white pixels, x = 1, are missing: they say log y.": ((1 - x) * np.log(1 - y)).sum(axis=1),
            "Black and white are swapped: it is x l - softplus(l), not (1 - x) l - softplus(l).":
                losses_numpy.bernoulli_log_likelihood(logits, 1 - x),
            "The softplus has the wrong sign: x l MINUS softplus(l).":
                (x * logits + losses_numpy.softplus(logits)).sum(axis=1),
            "The term x l is missing.": -losses_numpy.softplus(logits).sum(axis=1),
            "The softplus is missing.": (x * logits).sum(axis=1),
            "Your softplus lacks its max(l, 0): log(1 + e^-|l|) alone is the softplus of negative l only.":
                (x * logits - np.log1p(np.exp(-np.abs(logits)))).sum(axis=1),
            CUT_OFF: [kept_away(small, logits, x) for small in SMALL for kept_away in (clipped, added)],
        })

        forty, other = np.array([[40.0], [-40.0]]), np.array([[0.0], [1.0]])        # black at 40, white at -40
        got = np.asarray(call(theirs, forty, other), np.float64)
        if not np.isfinite(got).all():
            raise Wrong("At a logit of 40 you give infinity or NaN, where -40 is right: the sigmoid of 40 is exactly 1 for "
                        "the computer, and its 1 - y is 0. Never sigmoid, then log: use the softplus of the logits.")
        compare("the log-likelihood where the decoder is sure and wrong (logit 40 at a black pixel)", got, [-40.0, -40.0], {
            CUT_OFF: [kept_away(small, forty, other) for small in SMALL for kept_away in (clipped, added)],
        })
        far, white = np.array([[1000.0], [1000.0], [-1000.0], [-1000.0]]), np.array([[1.0], [0.0], [0.0], [1.0]])
        got = np.asarray(call(theirs, far, white), np.float64)
        if not np.isfinite(got).all():
            raise Wrong("At logits of 1000 and -1000 you give infinity or NaN: e^1000 overflows. Only the exp of something "
                        "negative cannot: take the larger term out of the logarithm first.")
        if got[1] == got[3] > -1000:
            raise Wrong(f"You cut the logits off at {-got[1]:.6g}: beyond that the penalty for being sure and wrong stands "
                        "still, and its gradient is 0. Nothing has to be cut off, the softplus of the logits can be exact.")
        compare("the log-likelihood at logits of 1000 and -1000", got, [0.0, -1000.0, 0.0, -1000.0])


def clipped(small, logits, x):
    """What a clamp of y gives, the usual repair of log(sigmoid)."""
    y = np.clip(1 / (1 + np.exp(-logits)), small, 1 - small)
    return (x * np.log(y) + (1 - x) * np.log(1 - y)).sum(axis=1)


def added(small, logits, x):
    """What log(y + small) gives, the other usual repair."""
    y = 1 / (1 + np.exp(-logits))
    return (x * np.log(y + small) + (1 - x) * np.log(1 - y + small)).sum(axis=1)


@task("03.4")
def log_likelihood_backward(theirs):
    rng = np.random.default_rng(34)
    logits, x = rng.normal(0, 2, (5, 7)), (rng.random((5, 7)) < 0.5).astype(np.float64)
    dlog_likelihood = rng.standard_normal(5)
    right = losses_numpy.bernoulli_log_likelihood_backward(dlog_likelihood, (logits, x))
    with np.errstate(all="ignore"):
        y = 1 / (1 + np.exp(-logits))
        dout = dlog_likelihood[:, None]
        compare("the gradient dlogits", call(theirs, dlog_likelihood, logits, x), right, {
            "Your dlogits has the wrong sign: y - x is the gradient of the loss, here the likelihood's is wanted.": -right,
            f"Your dlogits {NO_CHAIN}": x - y,
            f"Your dlogits {TWICE_AVERAGED}": right / 5,
            "Your dlogits is divided by the number of pixels: the likelihood is a sum over them.": [right / 7, right / 35],
            "The sigmoid is missing: expected is y = sigmoid(logits), not the logits.": dout * (x - logits),
            "You give the gradient in y: the chain goes on to the logits, and y' = y (1 - y) makes most of it cancel.":
                dout * (x / y - (1 - x) / (1 - y)),
            "That is the gradient of a squared error: for the Bernoulli likelihood the factor y (1 - y) cancels.":
                [dout * (x - y) * y * (1 - y), dout * 2 * (x - y) * y * (1 - y)],
            "The sigmoid alone is the gradient of the softplus: x is missing.": [-dout * y, dout * y],
            "You sum over the pixels: every pixel has a logit of its own, (B, D).": right.sum(axis=1),
            "You sum over the images: every image has logits of its own, (B, D).": right.sum(axis=0),
        })
        far, black = np.array([[1000.0, -1000.0, 1000.0]]), np.array([[0.0, 1.0, 1.0]])
        got = call(theirs, np.ones(1), far, black)
        if np.isnan(np.asarray(got, np.float64)).any():
            raise Wrong("At a logit of 1000 or -1000 you give NaN, infinity divided by infinity: exp(l) / (1 + exp(l)) "
                        "does, 1 / (1 + exp(-l)) does not.")
        compare("the gradient dlogits at logits of 1000 and -1000", got, [[-1.0, 1.0, 0.0]])


@task("03.5")
def reparameterize_backward(theirs):
    rng = np.random.default_rng(35)
    dz, eps, mu = rng.standard_normal((3, 5, 3))
    logvar = rng.normal(-0.5, 1.2, (5, 3))
    dmu, dlogvar = pair(call(theirs, dz, logvar, eps), "dmu and dlogvar")
    _, cache = vae_numpy.reparameterize_forward(mu, logvar, eps)
    right_mu, right_logvar = vae_numpy.reparameterize_backward(dz, cache)
    sigma, variance = np.exp(0.5 * logvar), np.exp(logvar)
    compare("the gradient dmu", dmu, right_mu, {
        "You return the two the other way round: dmu first, then dlogvar.": right_logvar,
        f"Your dmu {NO_CHAIN}": [np.ones((5, 3)), 1.0],
        "Your dmu has the wrong sign: where mu goes, z goes.": -dz,
        f"Your dmu {TWICE_AVERAGED}": dz / 5,
        "You sum dmu over the images: every image has a mu of its own, (B, J).": [dz.sum(axis=0), dz.mean(axis=0)],
        "Your dmu is scaled by the noise: mu moves z by as much as it moves itself, whatever sigma and eps are.":
            [dz * eps, dz * sigma, dz * sigma * eps],
        "Your dmu is 0: the draw is a function of mu, the gradient passes it.": np.zeros((5, 3)),
    })
    compare("the gradient dlogvar", dlogvar, right_logvar, {
        "Your dlogvar is twice what it should be: sigma = exp(logvar / 2), and the derivative of logvar / 2 is 1/2.":
            2 * right_logvar,
        "Your dlogvar is half of what it should be: is the 1/2 applied twice?": 0.5 * right_logvar,
        "eps is left out of dlogvar: sigma moves z by eps.": [dz * sigma, dz * 0.5 * sigma],
        "sigma is left out of dlogvar: dz * eps is the gradient in sigma, and the chain goes on to logvar.":
            [dz * eps, dz * eps * 0.5],
        "You use the variance exp(logvar) where sigma = exp(logvar / 2) stands.":
            [dz * eps * variance, dz * eps * 0.5 * variance],
        "You use logvar itself where sigma = exp(logvar / 2) stands.": [dz * eps * logvar, dz * eps * 0.5 * logvar],
        f"Your dlogvar {NO_CHAIN}": [eps * 0.5 * sigma, eps * sigma],
        "Your dlogvar has the wrong sign.": -right_logvar,
        f"Your dlogvar {TWICE_AVERAGED}": right_logvar / 5,
        "Your dlogvar divides by sigma: there is a product to differentiate here, no quotient.":
            [dz * eps / sigma, dz * 0.5 * eps / sigma],
        "Your dlogvar is 0: the draw is a function of logvar, the gradient passes it.": np.zeros((5, 3)),
        "Your dlogvar is dz: that is the gradient in mu.": dz,
        "You sum dlogvar over the images: every image has a logvar of its own, (B, J).":
            [right_logvar.sum(axis=0), right_logvar.mean(axis=0)],
    })


@task("03.6")
def linear_backward(theirs):
    rng = np.random.default_rng(36)
    dout, x, weight = rng.standard_normal((5, 4)), rng.standard_normal((5, 7)), rng.standard_normal((4, 7))
    got = call(theirs, dout, x, weight)
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise Wrong("Return three values: dx, dweight and dbias.")
    right_x, right_weight, right_bias = layers_numpy.linear_backward(dout, (x, weight))
    compare("the gradient dx", got[0], right_x, {
        "You return them in another order: dx first, then dweight, then dbias.": [right_weight, right_bias],
        f"Your dx {TWICE_AVERAGED}": right_x / 5,
        "Your dx is transposed: it has the shape of x.": right_x.T,
        "Your dx has the wrong sign.": -right_x,
        f"Your dx {NO_CHAIN}": [np.ones((5, 4)) @ weight, weight],
    })
    compare("the gradient dweight", got[1], right_weight, {
        "Your dweight is transposed: weights are kept as (out, in), and a gradient has the shape of what it belongs to.":
            right_weight.T,
        "You return them in another order: dx first, then dweight, then dbias.": right_bias,
        f"Your dweight {TWICE_AVERAGED}": right_weight / 5,
        "Your dweight has the wrong sign.": -right_weight,
        f"Your dweight {NO_CHAIN}": np.ones((4, 5)) @ x,
        "You keep the weight's gradient of every image apart: the weight is shared by all, so they add up.":
            dout[:, :, None] * x[:, None, :],
    })
    compare("the gradient dbias", got[2], right_bias, {
        "The bias gradient is not summed over the images: the bias is shared by all of them, its shape is (out,).": dout,
        f"Your dbias {TWICE_AVERAGED}": right_bias / 5,
        "You sum the bias gradient over the outputs: sum over the images, axis 0.": dout.sum(axis=1),
        "You sum the bias gradient over everything: each output has a bias of its own.": [dout.sum(), dout.mean()],
        f"Your dbias {NO_CHAIN}": [np.full(4, 5.0), np.ones(4)],
        "Your dbias is a matrix with one row: a bias has one axis, (out,).": right_bias[None],
        "Your dbias has the wrong sign.": -right_bias,
    })


@task("03.7")
def encoder_backward(theirs):
    config, params, x = small_case()                                        # B, D, H, J = 5, 7, 4, 3
    rng = np.random.default_rng(37)
    dmu, dlogvar = rng.standard_normal((2, 5, 3))
    _, cache = networks_numpy.encode_forward(params, x, config)
    right = networks_numpy.encode_backward(dmu, dlogvar, cache)
    a = x @ params["encoder.hidden.weight"].T + params["encoder.hidden.bias"]
    h = np.tanh(a)
    given = {name: array.copy() for name, array in params.items()}
    got = call(theirs, dmu, dlogvar, given, x, h)
    if any(not np.array_equal(given[name], params[name]) for name in params) or set(given) != set(params):
        raise Wrong("Your function writes into params, which the caller still needs: put the gradients into a new dict.")
    if not isinstance(got, dict):
        raise Wrong("Return a dict, from the name of each weight and bias to its gradient.")
    missing, unknown = [name for name in right if name not in got], [name for name in got if name not in right]
    if missing or unknown:
        raise Wrong("The names should be those of the six encoder parameters."
                    + f" Missing: {', '.join(missing)}." * bool(missing)
                    + f" Not among them: {', '.join(map(str, unknown))}." * bool(unknown))

    for head, dout, other in (("mu", dmu, dlogvar), ("logvar", dlogvar, dmu)):
        both = f"the gradients of the head {head}"
        compare(f"the gradient of encoder.{head}.weight", got[f"encoder.{head}.weight"], dout.T @ h, {
            f"You mix the two heads up: {both} come from d{head}.": other.T @ h,
            f"The gradient of encoder.{head}.weight is transposed: weights are kept as (out, in).": h.T @ dout,
            f"The gradient of encoder.{head}.weight {TWICE_AVERAGED}": dout.T @ h / 5,
            f"The input of the head {head} is h, after the tanh, not the image.": dout.T @ x,
            f"The input of the head {head} is h itself: no further tanh.": dout.T @ np.tanh(h),
            f"The input of the head {head} is h, after the tanh: yours is before it.": dout.T @ a,
                    })
        compare(f"the gradient of encoder.{head}.bias", got[f"encoder.{head}.bias"], dout.sum(axis=0), {
            f"You mix the two heads up: {both} come from d{head}.": other.sum(axis=0),
            f"The gradient of encoder.{head}.bias is not summed over the images.": dout,
            f"The gradient of encoder.{head}.bias {TWICE_AVERAGED}": dout.mean(axis=0),
        })

    from_mu, from_logvar = dmu @ params["encoder.mu.weight"], dlogvar @ params["encoder.logvar.weight"]
    dh, slope = from_mu + from_logvar, 1 - h * h
    wrong_slopes = {
        "Only the gradient of the head mu comes back to h: h feeds both heads, and their gradients add.": from_mu * slope,
        "Only the gradient of the head logvar comes back to h: h feeds both heads, and their gradients add.":
            from_logvar * slope,
        "You average the gradients that come back from the two heads: they add.": 0.5 * dh * slope,
        "You subtract the gradient of one head from the other's: they add.":
            (from_mu - from_logvar) * slope,
        "You multiply the gradients that come back from the two heads: they add.": from_mu * from_logvar * slope,
        "The derivative of the tanh is missing between the heads and the hidden layer.": dh,
        "You differentiate the tanh as if h were its input: h is its output, tanh(a) already.": dh * (1 - np.tanh(h) ** 2),
        "You put the input of the tanh where its output stands: tanh'(a) = 1 - tanh(a)^2.": dh * (1 - a * a),
        "The square is missing: tanh'(a) = 1 - tanh(a)^2.": dh * (1 - h),
        "That is the derivative of a sigmoid: the hidden layer is a tanh.": dh * h * (1 - h),
        "That is the derivative of a ReLU: the hidden layer is a tanh.": dh * (h > 0),
        "You multiply by the tanh, not by its derivative.": dh * h,
        "The gradients of the two heads pass the weights of each other.":
            (dmu @ params["encoder.logvar.weight"] + dlogvar @ params["encoder.mu.weight"]) * slope,
        "The gradient of the hidden layer has the wrong sign.": -dh * slope,
    }
    right_da = dh * slope
    compare("the gradient of encoder.hidden.weight", got["encoder.hidden.weight"], right_da.T @ x, {
        "The gradient of encoder.hidden.weight is transposed: weights are kept as (out, in).": x.T @ right_da,
        f"The gradient of encoder.hidden.weight {TWICE_AVERAGED}": right_da.T @ x / 5,
        "The input of the hidden layer is the image x, not h.": right_da.T @ h,
    } | {sentence: da.T @ x for sentence, da in wrong_slopes.items()})
    compare("the gradient of encoder.hidden.bias", got["encoder.hidden.bias"], right_da.sum(axis=0), {
        "The gradient of encoder.hidden.bias is not summed over the images.": right_da,
        f"The gradient of encoder.hidden.bias {TWICE_AVERAGED}": right_da.mean(axis=0),
    } | {sentence: da.sum(axis=0) for sentence, da in wrong_slopes.items()})
    again = call(theirs, dmu, dlogvar, given, x, h)
    for name in right:
        compare(f"the gradient of {name}, in a second call with the same arguments", again[name], right[name], {
            "A second call with the same arguments gives twice as much: your gradients are collected in something that "
            "outlives the call.": 2 * right[name]})


def a_posterior():
    """mu, logvar (J,) and noise (L, J)."""
    rng = np.random.default_rng(38)
    return rng.normal(0, 1, 3), rng.normal(-0.5, 1, 3), rng.standard_normal((6, 3))


def follow_the_noise(theirs, function, mu, logvar, eps):
    """Wrong where the estimates do not follow the eps that they are given."""
    first = call(theirs, function, mu, logvar, eps)
    if not np.array_equal(call(theirs, function, mu, logvar, eps), first):
        raise Wrong("Two calls with the same eps differ: you draw noise of your own. The noise is an argument, use it.")
    if np.array_equal(call(theirs, function, mu, logvar, 2 * eps), first):
        raise Wrong("The same comes out for every eps: make z = mu + sigma * eps of the eps that is given, neither of "
                    "mu alone (that is the derivative of f(mu), not of E[f(z)]) nor of noise of your own.")


@task("03.8")
def pathwise_gradients(theirs):
    mu, logvar, eps = a_posterior()

    def df(z):
        return np.cos(z) * (1 + z**2)

    follow_the_noise(theirs, df, mu, logvar, eps)
    sigma = np.exp(0.5 * logvar)
    z = mu + sigma * eps                                                    # (L, J)
    right = df(z)
    compare("the pathwise gradients", call(theirs, df, mu, logvar, eps), right, {
        "You average over the draws: keep the estimate of each, (L, J).":
            [right.mean(axis=0), right.mean(), right.sum(axis=0)],
        "You return the draws: ask df what the gradient is there.": z,
        "You take the gradient at the noise: make z = mu + sigma * eps of it first.": df(eps),
        "Your noise is not scaled: multiply eps by sigma = exp(logvar / 2).": df(mu + eps),
        "You scale the noise by the variance exp(logvar): its standard deviation is exp(logvar / 2).":
            df(mu + np.exp(logvar) * eps),
        "You scale the noise by logvar itself: sigma is exp(logvar / 2).": df(mu + logvar * eps),
        "That is the gradient in sigma: in mu, z moves by as much as mu does, and df is all.": right * eps,
        "That is the gradient in logvar: in mu, z moves by as much as mu does, and df is all.": right * eps * 0.5 * sigma,
        "You multiply by sigma: z moves by as much as mu does, and df is all.": [right * sigma, right * np.exp(logvar)],
        "You divide by sigma: z moves by as much as mu does, and df is all.": [right / sigma, right / np.exp(logvar)],
        "You mix in the score function: pathwise needs df only.": right * eps / sigma,
        "Your gradients have the wrong sign.": -right,
    })


@task("03.9")
def score_gradients(theirs):
    mu, logvar, eps = a_posterior()
    sigma, variance = np.exp(0.5 * logvar), np.exp(logvar)

    def f(z):
        return np.sin(z).sum(axis=1) + (z[:, 0] * z[:, 1]) ** 2 - 2

    def taken_off(noise):
        """What is subtracted from f in each draw and latent, (L, J), where it is the score function with a baseline."""
        got = np.asarray(call(theirs, f, mu, logvar, noise), np.float64)
        if got.shape != noise.shape:
            return np.full(noise.shape, np.nan)
        return f(mu + sigma * noise)[:, None] - got * sigma / noise

    follow_the_noise(theirs, f, mu, logvar, eps)
    # with a baseline that does not come from the draw itself the estimate is as right as without
    values, other = f(mu + sigma * eps), np.random.default_rng(39).standard_normal(eps.shape)
    first, second = taken_off(eps), taken_off(other)
    constant = all(np.allclose(off, off[0]) for off in (first, second))
    others = (values.sum() - values) / (len(values) - 1)                    # the mean of f over the other draws
    fair = constant and np.allclose(first[0], second[0]) or np.allclose(first, others[:, None])
    if constant and not fair:
        raise Wrong("Your baseline is made from the very draws that it is taken off, which shrinks the gradient (by 1/L "
                    "for their mean): take it from other draws, or leave it out.")
    z, at_z = mu + sigma * eps, values[:, None]
    right = at_z * eps / sigma
    if not fair:
        compare("the score-function gradients", call(theirs, f, mu, logvar, eps), right, {
            "You average over the draws: keep the estimate of each, (L, J).":
                [right.mean(axis=0), right.mean(), right.sum(axis=0)],
            "f is left out: the score alone is 0 on average.": eps / sigma,
            "The score is left out: multiply f by d log q / dmu.": [values, np.broadcast_to(at_z, eps.shape)],
            "Your score has the wrong sign: that is the derivative of log q in z. In mu it is (z - mu) / sigma^2.": -right,
            "You divide by the variance once too often: (z - mu) / sigma^2 with z - mu = sigma * eps is eps / sigma.":
                at_z * eps / variance,
            "You do not divide by the variance: the score is (z - mu) / sigma^2.": at_z * (z - mu),
            "The score is (z - mu) / sigma^2, and with z - mu = sigma * eps one sigma is left below: eps / sigma.":
                [at_z * eps, at_z * (z - mu) / sigma**4],
            "You use logvar where a standard deviation or a variance stands.":
                [at_z * eps / logvar, at_z * (z - mu) / logvar],
            "The score is d log q / dmu at z: (z - mu) / sigma^2. Yours forgets mu.": [at_z * z / variance, at_z * z],
            "You multiply by log q itself: multiply by its derivative in mu.":
                [at_z * (-0.5 * ((z - mu) ** 2 / variance + logvar + np.log(2 * np.pi))),
                 at_z * (-0.5 * (eps**2 + logvar + np.log(2 * np.pi))).sum(axis=1, keepdims=True)],
            "That is the gradient in logvar: here it is wanted in mu.": at_z * 0.5 * (eps**2 - 1),
            "That is the gradient in sigma: here it is wanted in mu.": at_z * (eps**2 - 1) / sigma,
            "You evaluate f at the means: it belongs at the draw z.": f(mu[None])[:, None] * eps / sigma,
            "You evaluate f at the noise: make z = mu + sigma * eps of it first.": f(eps)[:, None] * eps / sigma,
            "Your draws scale the noise by the variance: sigma is exp(logvar / 2).":
                [f(mu + variance * eps)[:, None] * eps / sigma, f(mu + variance * eps)[:, None] * eps,
                 f(mu + variance * eps)[:, None] * eps / variance],
        })
