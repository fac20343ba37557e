"""Checks of exercise 07: a module of the learner's own, function by function.

    check.kl_divergence("my_vae.py")                # read anew from exercises/ at every call

First come the numbers of the function itself, with the mistakes that are known by name, then what tests/contract.py
promises of it: the checks that `pytest --impl exercises/my_vae.py` runs, without labels and convolutions.
"""

import functools
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import losses_numpy
import networks_numpy
import numpy as np
import train_numpy
import vae_numpy

from common.config import InputError
from exercises.checks.latent_space import wrong_kls
from exercises.checks.objective import Objective, gray, linear, listed
from exercises.checks.verdict import Wrong, call, compare, pair, task

EXERCISES = Path(__file__).resolve().parent.parent
CASES = ("mlp-bernoulli", "mlp-gaussian", "mlp-fixed-variance")     # of tests/contract.py
DTYPES = {"float32", "float64"}

# B images, D pixels, J latents; sizes of the cases are B, D, H, J = 5, 7, 4, 3


def module(path) -> ModuleType:
    """The module in this file, as it is now; a relative path starts in exercises/. Raises InputError where it cannot be."""
    path = EXERCISES / path
    found = ModuleType(path.stem)
    found.__file__ = str(path)
    try:
        exec(compile(path.read_text("utf-8"), str(path), "exec"), vars(found))
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}: give the name of your module, such as my_vae.py") from error
    except Exception as error:                      # it is their code, which may do anything
        raise InputError(f"{path.name} does not import ({type(error).__name__}: {error}): mend that first") from error
    return found


@functools.cache
def suite() -> SimpleNamespace:
    """tests/contract.py and tests/implementations.py, which stand on pytest's path only, and import torch."""
    tests = str(EXERCISES.parent / "tests")
    sys.path.insert(0, tests)
    try:
        import contract
        import implementations
    finally:
        sys.path.remove(tests)
    return SimpleNamespace(contract=contract, implementations=implementations)


def implementation(path):
    """The learner's module as the suite calls it."""
    try:
        theirs = module(path)
    except InputError as error:
        raise Wrong(str(error)) from error
    return suite().implementations.Implementation("yours", (theirs,), getattr(theirs, "BACKEND", "numpy"))


def ask(impl, function, *arguments, **settings):
    """What the learner's function answers; a function that is gone is one that was not attempted."""
    try:
        return call(lambda *given: impl(function, *given, **settings), *arguments)
    except suite().implementations.NotAttempted as error:
        raise NotImplementedError(str(error)) from error


PROMISES = {
    "kl_divergence":
        "Your KL is right for moderate numbers and fails at the edges: use expm1, and add mu^2 last.",
    "bernoulli_log_likelihood":
        "Right for moderate logits, wrong for large ones. Sigmoid and then log is infinite at logit 40, and clamping is "
        "a bias: stay in logits, max(l, 0) + log1p(exp(-|l|)).",
    "gaussian_log_likelihood":
        "Right for moderate numbers and wrong at the edges: multiply by exp(-logvar), and clamp nothing.",
    "reparameterize_draws_from_the_posterior":
        "The draws do not come from N(mu, sigma^2) at every mu and logvar: nothing is to be clamped.",
    "encode_agrees_with_the_referee": "mu and logvar should be those of level 2.",
    "decode_agrees_with_the_referee": "The decoder's output should be that of level 2.",
    "elbo_terms_agree_with_the_referee": "Both terms should be those of level 2.",
    "the_bound_is_below_log_p":
        "Your ELBO lies above log p(x), so it is no bound: is the noise scaled by sigma, and the KL whole?",
    "loss_and_terms_follow_the_formula": "The loss and its terms should follow from your own parts.",
    "gradients_agree_with_the_referee": "The gradients should be those of level 2, which autograd works out.",
    "gradients_agree_with_central_differences": "The gradients are not the slopes of your own loss.",
    "gradient_of_the_mean_is_the_mean_of_the_gradients":
        "The gradient of a batch should be the mean over its images.",
    "calls_are_pure": "The same call should give the same answer and leave its arguments alone: make new arrays.",
    "dtype_in_is_dtype_out":
        "float32 in, float32 out: a bool times a float, and np.float64 numbers, make float64 arrays.",
    "float32_is_close_to_float64": "In float32 your result is farther off than rounding explains.",
    "negative_weights_are_refused": "A negative beta or free_bits makes no sense: raise a ValueError.",
}


def promise(impl, *names, cases=CASES):
    """Wrong where one of the contract's checks fails in one of the cases."""
    for name in names:
        for case in cases:
            try:
                getattr(suite().contract, f"check_{name}")(impl, suite().contract.CASES[case])
            except AssertionError as error:
                found = str(error).splitlines()[0] if str(error) else "no"
                raise Wrong(f"{PROMISES[name]} The suite says of {case}: {found}.") from error


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


# ---- the two terms -----------------------------------------------------------------------------------------------------


@task("07.1")
def kl_divergence(theirs):
    impl = implementation(theirs)
    mu, logvar = normal(2, 5, 3)
    right, sigma = losses_numpy.kl_divergence(mu, logvar), np.exp(0.5 * logvar)
    compare("the KL divergence", ask(impl, "kl_divergence", mu, logvar), right, {
        **wrong_kls(mu, logvar),
        "You sum over the latents: here they stay apart, (B, J).": right.sum(axis=1),
        "You average over the latents: here they stay apart, (B, J), and later they are summed.":
            [right.mean(axis=1), right / right.shape[1]],
        "You return one number for all: images and latents stay apart, (B, J).": [right.sum(), right.mean()],
        "You hand sigma to a formula in logvar.": 0.5 * (mu**2 + np.exp(sigma) - 1 - sigma),
    })
    promise(impl, "kl_divergence", cases=CASES[:1])


@task("07.2")
def bernoulli_log_likelihood(theirs):
    impl = implementation(theirs)
    logits, x = normal(5, 7), (normal(5, 7, seed=2) > 0).astype(np.float64)
    y, right = gray(logits), losses_numpy.bernoulli_log_likelihood(logits, x)
    per_pixel = x * np.log(y) + (1 - x) * np.log(1 - y)
    twice = gray(y)
    compare("the log-likelihood", ask(impl, "bernoulli_log_likelihood", logits, x), right, {
        "You average over the pixels: the sum is the log-probability of the image. An average would weigh the KL with D.":
            per_pixel.mean(axis=1),
        "You return one number for the whole batch: return one for each image, (B,).": [right.sum(), right.mean()],
        "You sum over the images: sum over the pixels, axis 1.": per_pixel.sum(axis=0),
        "You return each pixel: sum over the pixels, axis 1.": per_pixel,
        "That is the negative, a loss: the logarithm of a probability is never positive.": -right,
        "You take the sigmoid twice.": (x * np.log(twice) + (1 - x) * np.log(1 - twice)).sum(axis=1),
        "Only the white pixels count in yours: the black ones, (1 - x) log(1 - y), are missing.":
            (x * np.log(y)).sum(axis=1),
        "Only the black pixels count in yours: the white ones, x log y, are missing.":
            ((1 - x) * np.log(1 - y)).sum(axis=1),
        "Black and white are swapped: x goes with log y.": (x * np.log(1 - y) + (1 - x) * np.log(y)).sum(axis=1),
        "The term log(1 + exp(l)) is missing.": (x * logits).sum(axis=1),
        "You take logits and x the other way round.": losses_numpy.bernoulli_log_likelihood(x, logits),
        "That is the squared error, the likelihood of a Gaussian.":
            [sign * ((x - y) ** 2).sum(axis=1) for sign in (-1, 1)],
    })
    promise(impl, "bernoulli_log_likelihood", cases=CASES[:1])


@task("07.3")
def gaussian_log_likelihood(theirs):
    impl = implementation(theirs)
    x, mean, logvar = normal(3, 5, 7)
    right = losses_numpy.gaussian_log_likelihood(x, mean, logvar)
    squares, constant = (x - mean) ** 2, math.log(2 * math.pi)

    def density(variance, log_variance):
        return -0.5 * (constant + log_variance + squares / variance).sum(axis=1)

    compare("the log-likelihood", ask(impl, "gaussian_log_likelihood", x, mean, logvar), right, {
        "The constant is missing: -log(2 pi) / 2 for every pixel.": right + 0.5 * constant * x.shape[1],
        "The constant is counted once for each image: every pixel has one.": right + 0.5 * constant * (x.shape[1] - 1),
        "You take exp(logvar) for sigma; it is sigma^2 already.":
            [density(np.exp(2 * logvar), part) for part in (logvar, 2 * logvar)],
        "You divide by sigma: the squared error is divided by sigma^2 = exp(logvar).":
            [density(np.exp(0.5 * logvar), part) for part in (logvar, 0.5 * logvar)],
        "You divide by logvar: the squared error is divided by exp(logvar).": density(logvar, logvar),
        "You multiply by the variance: the squared error is divided by it.": density(np.exp(-logvar), logvar),
        "The logarithm of the variance has the wrong sign.": density(np.exp(logvar), -logvar),
        "The term logvar is missing: without it a larger variance would cost nothing.": density(np.exp(logvar), 0 * logvar),
        "That is the squared error: the variance and the constant are missing.":
            [-squares.sum(axis=1), -0.5 * squares.sum(axis=1), squares.sum(axis=1), -squares.mean(axis=1)],
        "The error is not squared.": -0.5 * (constant + logvar + (x - mean) * np.exp(-logvar)).sum(axis=1),
        "You average over the pixels: the sum is the log-density of the image.": right / x.shape[1],
        "You return one number for the whole batch: return one for each image, (B,).": [right.sum(), right.mean()],
        "That is the negative, a loss.": -right,
        "Yours is twice what it should be: the 1/2 is missing.": 2 * right,
        "You take the arguments in another order: x, mean, logvar.":
            [losses_numpy.gaussian_log_likelihood(*each) for each in ((mean, logvar, x), (x, logvar, mean))],
    })
    promise(impl, "gaussian_log_likelihood", cases=CASES[:1])


# ---- the posterior and the networks ------------------------------------------------------------------------------------


@task("07.4")
def reparameterize(theirs):
    impl = implementation(theirs)
    mu, logvar, eps = normal(3, 5, 3)
    right = mu + np.exp(0.5 * logvar) * eps
    compare("z", ask(impl, "reparameterize", mu, logvar, eps), right, {
        "You scale the noise by the variance exp(logvar): its standard deviation is exp(logvar / 2).":
            mu + np.exp(logvar) * eps,
        "You scale the noise by logvar: sigma is exp(logvar / 2).": mu + logvar * eps,
        "You scale by exp(2 logvar): sigma is exp(logvar / 2), since log sigma^2 = 2 log sigma.":
            mu + np.exp(2 * logvar) * eps,
        "Your noise is not scaled: multiply eps by sigma = exp(logvar / 2).": mu + eps,
        "You leave the noise out: then the decoder never sees how unsure the encoder is.": mu,
        "mu is missing: z = mu + sigma * eps.": right - mu,
        "mu is scaled too: only the noise is.": np.exp(0.5 * logvar) * (mu + eps),
    })
    if np.array_equal(ask(impl, "reparameterize", mu, logvar, 2 * eps), ask(impl, "reparameterize", mu, logvar, eps)):
        raise Wrong("z does not follow the eps that it is given: use it instead of drawing noise of your own.")
    promise(impl, "reparameterize_draws_from_the_posterior", cases=CASES[:1])


def hidden_layers(params, name, a):
    """What a wrong hidden layer gives."""
    before = linear(params, name, a)
    return {"has no tanh: two linear layers in a row are one": before,
            "ends in a ReLU: this mlp has a tanh": np.maximum(before, 0),
            "ends in a sigmoid: this mlp has a tanh": gray(before),
            "has no bias": np.tanh(before - params[f"{name}.bias"])}


@task("07.5")
def encode(theirs):
    impl = implementation(theirs)
    case = suite().contract.CASES[CASES[0]]
    params, x, _ = case.draw()
    got = pair(ask(impl, "encode", params, x, case.config), "mu and logvar")
    right = networks_numpy.encode(params, x, case.config)
    for i, name in enumerate(("mu", "logvar")):
        compare(name, got[i], right[i], {
            "You return the two the other way round: mu first, then logvar.": right[1 - i],
            "You return sigma: the second one is logvar, as the layer gives it.": np.exp(0.5 * right[i]),
            "You return the variance: the second one is its logarithm, as the layer gives it.": np.exp(right[i]),
            f"A ReLU sits on {name}: then mu is never negative and sigma never below 1. Both layers are linear.":
                np.maximum(right[i], 0),
            f"A tanh sits on {name}: both layers are linear.": np.tanh(right[i]),
            f"A softplus sits on {name}: both layers are linear.": np.logaddexp(0, right[i]),
            f"The bias of the layer encoder.{name} is missing.": right[i] - params[f"encoder.{name}.bias"],
            **{f"Your hidden layer {what}.": linear(params, f"encoder.{name}", h)
               for what, h in hidden_layers(params, "encoder.hidden", x).items()},
        })
    promise(impl, "encode_agrees_with_the_referee")


@task("07.6")
def decode(theirs):
    impl = implementation(theirs)
    for name in CASES:
        case = suite().contract.CASES[name]
        params, _, z = case.draw()
        try:
            got = ask(impl, "decode", params, z, case.config)
        except KeyError as error:
            raise Wrong(f"Your decoder looks for {error}, which the params of {name} do not have: the Bernoulli has the "
                        "layer decoder.logits; the Gaussian decoder.mean and, where fixed_logvar is None, decoder.logvar."
                        ) from error
        right = networks_numpy.decode(params, z, case.config)
        layers = {CASES[0]: ["logits"], CASES[1]: ["mean", "logvar"], CASES[2]: ["mean"]}[name]
        if name == CASES[0]:
            got, right = [got], [right]
        else:
            got = pair(got, "mean and logvar, of a Gaussian decoder")
        for i, value in enumerate(right):
            layer = layers[i] if i < len(layers) else None
            h = np.tanh(linear(params, "decoder.hidden", z))
            raw = None if layer is None else linear(params, f"decoder.{layer}", h)
            mistakes = {}
            if layer == "mean":
                mistakes["The mean of the Gaussian ends in a sigmoid, so that it is a gray: yours does not."] = raw
                mistakes["You take the sigmoid of the mean twice."] = gray(value)
            elif layer is None:
                mistakes |= {"With a fixed_logvar return that number for every pixel, (B, D).":
                                 [case.config.fixed_logvar, np.full(len(z), case.config.fixed_logvar)],
                             "fixed_logvar is the logarithm of the variance already.":
                                 [np.exp(value), np.exp(0.5 * value), np.log(np.abs(value))]}
            else:
                mistakes |= {"You return probabilities: return the logits, before the sigmoid." if layer == "logits" else
                             "logvar is what its layer gives, without a sigmoid.": gray(value),
                             "You return the variance: return logvar, as its layer gives it.": np.exp(value),
                             "You return sigma: return logvar, as its layer gives it.": np.exp(0.5 * value),
                             "The last layer is linear, without a tanh.": np.tanh(value)}
            if len(right) == 2:
                mistakes["You return the two the other way round: the mean first, then logvar."] = right[1 - i]
            if layer:
                end = gray if layer == "mean" else np.asarray
                mistakes |= {f"Your hidden layer {what}.": end(linear(params, f"decoder.{layer}", wrong))
                             for what, wrong in hidden_layers(params, "decoder.hidden", z).items()}
                mistakes[f"The bias of the layer decoder.{layer} is missing."] = end(raw - params[f"decoder.{layer}.bias"])
            compare(f"{layer or 'logvar'} of {name}", got[i], value, mistakes)
    promise(impl, "decode_agrees_with_the_referee")


# ---- the bound and its gradients ---------------------------------------------------------------------------------------


def log_p(config, out, x):
    return (losses_numpy.bernoulli_log_likelihood(out, x) if config.likelihood == "bernoulli" else
            losses_numpy.gaussian_log_likelihood(x, *out))


@task("07.7")
def elbo_terms(theirs):
    impl = implementation(theirs)
    for name in CASES:
        case = suite().contract.CASES[name]
        params, x, eps = case.draw()
        got = pair(ask(impl, "elbo_terms", params, x, eps, case.config), "log p(x|z) and the KL, each (B,)")
        mu, logvar = networks_numpy.encode(params, x, case.config)
        log_likelihood, kl = vae_numpy.elbo_terms(params, x, eps, case.config)
        kl_j = losses_numpy.kl_divergence(mu, logvar)

        def at(z, params=params, config=case.config, x=x):
            return log_p(config, networks_numpy.decode(params, z, config), x)

        compare(f"log p(x|z) of {name}", got[0], log_likelihood, {
            "You decode the posterior mean: without noise it is no bound. z = mu + sigma * eps.": at(mu),
            "You scale the noise by the variance: sigma is exp(logvar / 2).": at(mu + np.exp(logvar) * eps),
            "Your noise is not scaled: multiply eps by sigma.": at(mu + eps),
            "You decode the noise alone: z = mu + sigma * eps.": at(eps),
            "You return the two the other way round: log p(x|z) first, then the KL.": kl,
            "You average over the pixels: sum.": log_likelihood / case.config.pixels,
            "You return the mean over the images: return one number for each.":
                [log_likelihood.mean(), log_likelihood.sum()],
            "That is the negative: return log p(x|z).": -log_likelihood,
            "You return the elbo: return its two terms.": log_likelihood - kl,
        })
        compare(f"the KL of {name}", got[1], kl, {
            "The KL is that of each latent: sum it over the latents, axis 1.": kl_j,
            "You average the KL over the latents: sum it.": kl_j.mean(axis=1),
            "You sum the KL over the images: sum it over the latents, axis 1.": kl_j.sum(axis=0),
            "You return the mean over the images: return one number for each.": [kl.mean(), kl.sum()],
            "Your KL has the wrong sign: the elbo is log p(x|z) minus it.": -kl,
            "You return the elbo: return its two terms.": log_likelihood - kl,
        })
    promise(impl, "elbo_terms_agree_with_the_referee", "the_bound_is_below_log_p")


PLACES = {                                          # in the order of the backward pass
    "decoder.logits": "It is the first one on the way back: dlogits = (y - x) / B, then the layer.",
    "decoder.mean": "It is one of the first two on the way back: from the log-likelihood through the sigmoid.",
    "decoder.logvar": "It is one of the first two on the way back: from the log-likelihood to the decoder's logvar.",
    "decoder.hidden": "All before it on the way back is right: look at dh and at 1 - h^2.",
    "encoder.mu": "The decoder is right: look at dz, and at dmu, which has two parts.",
    "encoder.logvar": "mu is right: look at dlogvar, which has two parts.",
    "encoder.hidden": "Both layers on top of it are right: add what comes down from them, then times 1 - h^2.",
}


@task("07.8")
def loss_and_grads(theirs):
    impl = implementation(theirs)
    for name in CASES:
        case = suite().contract.CASES[name]
        plain = Objective(case, 1.0, 0.0)
        above, between = 2 * float(plain.kl_j.sum()), float(np.sort(plain.kl_j)[:2].mean())     # all KLs, two of the three
        for objective in (plain, Objective(case, 4.0, 0.0), Objective(case, 1.0, above), Objective(case, 0.5, between)):
            judge_objective(impl, name, objective)
    promise(impl, "negative_weights_are_refused", "calls_are_pure", "dtype_in_is_dtype_out",
            "loss_and_terms_follow_the_formula", "gradients_agree_with_the_referee", "float32_is_close_to_float64",
            "gradient_of_the_mean_is_the_mean_of_the_gradients", "gradients_agree_with_central_differences")


def judge_objective(impl, name, right):
    """Wrong unless the loss, the terms and the gradients are those of this objective."""
    where = f"of {name} at beta {right.beta:g}, free_bits {right.free_bits:.3g}"
    settings = {"beta": right.beta, "free_bits": right.free_bits}
    got = ask(impl, "loss_and_grads", *right.arguments, right.config, **settings)
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise Wrong("Return three values: the loss, the dict of terms, and the dict of gradients.")
    loss, terms, grads = got
    compare(f"the loss {where}", loss, right.loss, right.wrong_losses())
    for what, answer, keys in (("terms", terms, right.terms), ("gradients", grads, right.grads)):
        if not isinstance(answer, dict):
            raise Wrong(f"The {what} should be a dict by name, yours are {type(answer).__name__}.")
        lacks, adds = sorted(set(keys) - set(answer)), sorted(set(answer) - set(keys))
        if lacks or adds:
            raise Wrong(f"Your dict of {what} lacks {', '.join(lacks) or 'nothing'} and has besides what is asked for "
                        f"{', '.join(adds) or 'nothing'}.")
    kl, log_likelihood = right.terms["kl"], right.terms["log_likelihood"]
    for term, value in right.terms.items():
        compare(f"the term {term} {where}", terms[term], value, {
            "The reported elbo contains beta or free bits: it is the plain bound, so that runs can be compared.":
                [-right.loss, log_likelihood - right.beta * kl],
            "The reported kl contains beta or free bits: it is the plain KL.":
                [right.beta * kl, np.maximum(right.kl_j, right.free_bits).sum(), right.loss + log_likelihood],
            "The terms are means over the batch: yours is a sum.": right.B * value,
            "The terms are means over the batch: yours is one number for each image.":
                {"kl": right.kl.sum(axis=1), "log_likelihood": right.log_likelihood,
                 "elbo": right.log_likelihood - right.kl.sum(axis=1)}[term],
            f"Your {term} has the wrong sign.": -value,
        })
    wrong = right.wrong_gradients()
    for layer, place in PLACES.items():
        for weight in (f"{layer}.weight", f"{layer}.bias"):
            if weight not in right.grads:
                continue
            mistakes = {f"The gradient of {weight} tells it. {sentence}":
                        [each[weight] for each in listed(given) if weight in each] for sentence, given in wrong.items()}
            if right.grads[weight].ndim == 2:
                mistakes[f"The gradient of {weight} is transposed: weights are (out, in), so it is dout^T a."] = \
                    right.grads[weight].T
            atol = 1e-10 * np.abs(right.grads[weight]).max()    # rounding is relative to what was added up
            try:
                compare(f"the gradient of {weight} {where}", grads[weight], right.grads[weight], mistakes, atol=atol)
            except Wrong as error:
                raise Wrong(str(error) if str(error) in mistakes else f"{error} {place}") from error


# ---- the steps ---------------------------------------------------------------------------------------------------------


def walk(step, lr=0.1, steps=5, dtype=np.float64, start=None):
    """The weights after so many steps along gradients that are drawn, some of them tiny, so that an eps shows."""
    rng = np.random.default_rng(8)
    params = {"a.weight": rng.standard_normal((3, 4)), "a.bias": rng.standard_normal(3)} if start is None else start
    params, state = {name: array.astype(dtype) for name, array in params.items()}, {}
    for _ in range(steps):
        grads = {name: (rng.standard_normal(array.shape) * 10.0 ** -rng.integers(0, 9, array.shape)).astype(dtype)
                 for name, array in params.items()}
        step(params, grads, state, lr)
    return params


def by_weight(rule):
    """A step made of one weight's rule: rule(g, memory of this weight, t) -> what to subtract, times lr."""
    def step(params, grads, state, lr):
        state["t"] = state.get("t", 0) + 1
        for name, p in params.items():
            p -= lr * rule(grads[name], state.setdefault(name, {}), state["t"])
    return step


def adam_rule(b1=0.9, b2=0.999, correct=True, inside=False, squared=True):
    def rule(g, memory, t):
        memory["m"] = b1 * memory.get("m", 0) + (1 - b1) * g
        memory["v"] = b2 * memory.get("v", 0) + (1 - b2) * (g * g if squared else np.abs(g))
        m = memory["m"] / (1 - b1**t if correct else 1)
        v = memory["v"] / (1 - b2**t if correct else 1)
        return m / (np.sqrt(v + 1e-8) if inside else np.sqrt(v) + 1e-8)
    return rule


def adagrad_rule(keep=True, root=True, inside=False, eps=1e-10):
    def rule(g, memory, t):
        memory["s"] = (memory.get("s", 0) if keep else 0) + g * g
        return g / (np.sqrt(memory["s"] + eps) if inside else (np.sqrt(memory["s"]) if root else memory["s"]) + eps)
    return rule


ADAM, ADAGRAD = adam_rule(), adagrad_rule()


def counted_by_weight(params, grads, state, lr):
    for name, p in params.items():
        state["t"] = state.get("t", 0) + 1
        p -= lr * ADAM(grads[name], state.setdefault(name, {}), state["t"])


def judge_step(theirs, function, right, mistakes):
    """Wrong unless the learner's step takes the weights where the right one does, in place and in their dtype."""
    impl = implementation(theirs)
    if not hasattr(impl.modules[0], function):
        raise NotImplementedError(f"not attempted: {function}")
    edited = []

    def step(params, grads, state, lr):
        """The learner's, which may be written for tensors; the caller's arrays follow."""
        given, kept = impl.take(params), {name: array.copy() for name, array in grads.items()}
        slopes = impl.take(grads)
        impl.function(function)(given, slopes, state, lr)
        edited.extend(name for name, array in impl.give(slopes).items() if not np.array_equal(array, kept[name]))
        params |= impl.give(given)

    start, moved = walk(right, steps=0), walk(step)
    if all(np.array_equal(moved[name], start[name]) for name in start):
        raise Wrong("Your step leaves params as they were: change them in place, p -= ..., instead of returning new ones.")
    wanted = walk(right)
    wrong = {sentence: [walk(each) for each in listed(given)] for sentence, given in mistakes.items()}
    for name in wanted:
        compare(f"the weight {name} after 5 steps", moved[name], wanted[name], {
            sentence: [each[name] for each in given] for sentence, given in wrong.items()}, rtol=1e-9)
    if edited:
        raise Wrong(f"Your step changes the gradient of {edited[0]}, which the caller still needs.")
    again = walk(step)
    if not all(np.array_equal(again[name], moved[name]) for name in moved):
        raise Wrong("A second run with a fresh state goes elsewhere: keep what the step must remember in `state` alone.")
    for dtype in DTYPES:
        kind = {name: array.dtype.name for name, array in walk(step, dtype=dtype).items()}
        if set(kind.values()) != {dtype}:
            raise Wrong(f"Your step turns {dtype} weights into {', '.join(sorted(set(kind.values()) - {dtype}))}.")


@task("07.9")
def sgd_step(theirs):
    judge_step(theirs, "sgd_step", train_numpy.sgd_step, {
        "Your step goes uphill: subtract lr * g.": by_weight(lambda g, memory, t: -g),
        "lr is missing in your step.": lambda params, grads, state, lr: train_numpy.sgd_step(params, grads, state, 1.0),
        "Your step has momentum: plain gradient descent remembers nothing.":
            by_weight(lambda g, memory, t: memory.update(m=0.9 * memory.get("m", 0) + g) or memory["m"]),
    })


@task("07.10")
def adagrad_step(theirs):
    judge_step(theirs, "adagrad_step", train_numpy.adagrad_step, {
        "Your Adagrad forgets the earlier gradients: s is the sum of all g^2 so far, kept in state.":
            by_weight(adagrad_rule(keep=False)),
        "The root is missing: divide by sqrt(s).": by_weight(adagrad_rule(root=False)),
        "The eps stands under the root: it is added to the root.": by_weight(adagrad_rule(inside=True)),
        "Your eps is not 1e-10, as torch.optim.Adagrad's is.":
            [by_weight(adagrad_rule(eps=eps)) for eps in (1e-8, 1e-7, 0.0)],
        "Your step goes uphill: subtract.": by_weight(lambda g, memory, t: -ADAGRAD(g, memory, t)),
        "That is plain gradient descent: divide by the root of s.": train_numpy.sgd_step,
        "lr is missing in your step.": lambda params, grads, state, lr: train_numpy.adagrad_step(params, grads, state, 1.0),
        "That is Adam.": train_numpy.adam_step,
    })


@task("07.11")
def adam_step(theirs):
    judge_step(theirs, "adam_step", train_numpy.adam_step, {
        "The correction for the start at 0 is missing: divide m by 1 - 0.9^t and v by 1 - 0.999^t.":
            by_weight(adam_rule(correct=False)),
        "The eps stands under the root: it is added to the root.": by_weight(adam_rule(inside=True)),
        "The two rates are swapped: 0.9 for m, 0.999 for v.": by_weight(adam_rule(b1=0.999, b2=0.9)),
        "v is the running mean of g^2: the square is missing.": by_weight(adam_rule(squared=False)),
        "Your step number stays at 1: keep t in state, and count it up once a step.":
            by_weight(lambda g, memory, t: ADAM(g, memory, 1)),
        "Your step number is one too large: the first step is t = 1.":
            by_weight(lambda g, memory, t: ADAM(g, memory, t + 1)),
        "Your step number counts weights, not steps: count it up once for all of them.": counted_by_weight,
        "Your step goes uphill: subtract.": by_weight(lambda g, memory, t: -ADAM(g, memory, t)),
        "lr is missing in your step.": lambda params, grads, state, lr: train_numpy.adam_step(params, grads, state, 1.0),
        "That is plain gradient descent.": train_numpy.sgd_step,
        "That is Adagrad.": train_numpy.adagrad_step,
    })
