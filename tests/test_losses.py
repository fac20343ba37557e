"""The two log-likelihoods and the KL divergence at levels 1 and 2: formulas, units, extremes, precision, gradients.

    pytest tests/test_losses.py

Letters: B images, D pixels, J latents. Units: nats.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import losses_numpy
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import assert_close, central_difference
from torch.distributions import Bernoulli, Normal
from torch.distributions import kl_divergence as kl_of_distributions

from pytorch_lowlevel import vae_lowlevel

pytestmark = pytest.mark.filterwarnings("error")         # an overflow or a logarithm of zero is a failure

B, D, J = 5, 7, 3
LOG_2PI = math.log(2 * math.pi)

# Two float64 formulas for the same number: about ten roundings of 1.1e-16 in each term, and at most 30 terms of order
# 10 in a sum. Both leave 1e-13; a wrong term is off by 1e-3 or more.
EXACT = {"rtol": 1e-11, "atol": 1e-12}
# Central differences with h = 1e-5: rounding 2e-16 * |f| / h = 2e-9 for |f| up to 100, Taylor h^2 / 6 * |f'''| = 2e-9
# for |f'''| up to 100 (exp(-logvar) times error^2).
DIFFERENCES = {"rtol": 1e-7, "atol": 1e-8}
# float32 rounds to 6e-8; ten roundings in a row.
SINGLE = {"rtol": 1e-6, "atol": 1e-6}
# No rounding happens: zeros, copies, and sums of numbers with few binary digits.
SAME = {"rtol": 0, "atol": 0}

HYPOTHESIS = settings(max_examples=30, deadline=None, derandomize=True, database=None)


# ---- the two levels, arrays in and arrays out --------------------------------------------------------------------------


class Level(NamedTuple):
    """The three terms, and their gradients: dout comes first, then what the term takes."""

    bernoulli: Callable         # logits, x -> (B,)
    gaussian: Callable          # x, mean, logvar -> (B,)
    kl: Callable                # mu, logvar -> (B, J)
    bernoulli_grad: Callable    # dout, logits, x -> dlogits,
    gaussian_grad: Callable     # dout, x, mean, logvar -> dmean, dlogvar
    kl_grad: Callable           # dout, mu, logvar -> dmu, dlogvar


def by_hand(forward, backward):
    """A gradient of level 1: the forward's cache goes into the backward."""
    def gradient(dout, *arrays):
        out = backward(dout, forward(*arrays)[1])
        return out if isinstance(out, tuple) else (out,)
    return gradient


def on_tensors(function):
    return lambda *arrays: function(*map(torch.from_numpy, arrays)).numpy()


def by_autograd(function, with_respect_to):
    """A gradient of level 2, for the arguments at these places."""
    def gradient(dout, *arrays):
        tensors = [torch.tensor(a) for a in arrays]
        wanted = [tensors[n].requires_grad_() for n in with_respect_to]
        return tuple(g.numpy() for g in torch.autograd.grad(function(*tensors), wanted, torch.tensor(dout)))
    return gradient


NUMPY = Level(
    losses_numpy.bernoulli_log_likelihood,
    losses_numpy.gaussian_log_likelihood,
    losses_numpy.kl_divergence,
    by_hand(losses_numpy.bernoulli_log_likelihood_forward, losses_numpy.bernoulli_log_likelihood_backward),
    by_hand(losses_numpy.gaussian_log_likelihood_forward, losses_numpy.gaussian_log_likelihood_backward),
    by_hand(losses_numpy.kl_divergence_forward, losses_numpy.kl_divergence_backward),
)
LOWLEVEL = Level(
    on_tensors(vae_lowlevel.bernoulli_log_likelihood),
    on_tensors(vae_lowlevel.gaussian_log_likelihood),
    on_tensors(vae_lowlevel.kl_divergence),
    by_autograd(vae_lowlevel.bernoulli_log_likelihood, [0]),
    by_autograd(vae_lowlevel.gaussian_log_likelihood, [1, 2]),
    by_autograd(vae_lowlevel.kl_divergence, [0, 1]),
)
LEVELS = {"numpy": NUMPY, "pytorch_lowlevel": LOWLEVEL}
every_level = pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS.keys())
both_precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def bernoulli_inputs(dtype=np.float64, seed=0, gray=False):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.02, 0.98, (B, D)) if gray else rng.integers(0, 2, (B, D))
    return 2 * rng.standard_normal((B, D)).astype(dtype), x.astype(dtype)


def gaussian_inputs(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    x, mean, logvar = rng.uniform(size=(B, D)), rng.uniform(size=(B, D)), rng.standard_normal((B, D))
    return x.astype(dtype), mean.astype(dtype), logvar.astype(dtype)


def kl_inputs(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, J)).astype(dtype), rng.standard_normal((B, J)).astype(dtype)


# ---- the right numbers -------------------------------------------------------------------------------------------------


def check_bernoulli_values(level):
    """The paper's formula in plain loops and torch.distributions, on binary and on gray pixels."""
    for gray in (False, True):
        logits, x = bernoulli_inputs(gray=gray)
        got = level.bernoulli(logits, x)
        assert_close("log p(x|z), plain loops", got, oracles.bernoulli_log_likelihood(logits, x), **EXACT)
        p = Bernoulli(logits=torch.tensor(logits), validate_args=False)            # it would refuse gray pixels
        assert_close("log p(x|z), torch.distributions", got, p.log_prob(torch.tensor(x)).sum(dim=1), **EXACT)


def check_gaussian_values(level):
    x, mean, logvar = gaussian_inputs()
    got = level.gaussian(x, mean, logvar)
    assert_close("log p(x|z), plain loops", got, oracles.gaussian_log_likelihood(x, mean, logvar), **EXACT)
    p = Normal(torch.tensor(mean), torch.tensor(logvar).exp().sqrt())
    assert_close("log p(x|z), torch.distributions", got, p.log_prob(torch.tensor(x)).sum(dim=1), **EXACT)


def check_kl_values(level):
    mu, logvar = kl_inputs()
    got = level.kl(mu, logvar)
    assert_close("kl, plain loops", got, oracles.kl_divergence(mu, logvar), **EXACT)
    q = Normal(torch.tensor(mu), torch.tensor(logvar).exp().sqrt())
    p = Normal(torch.zeros(B, J, dtype=torch.float64), torch.ones(B, J, dtype=torch.float64))
    assert_close("kl, torch.distributions", got, kl_of_distributions(q, p), **EXACT)


def check_kl_monte_carlo(level):
    """KL = E_q[log q(z) - log p(z)] over 20,000 draws of z, within 4 standard errors of that mean in all 15 entries."""
    mu, logvar = kl_inputs()
    sigma = np.sqrt(np.exp(logvar))
    eps = np.random.default_rng(1).standard_normal((20_000, B, J))
    z = mu + sigma * eps                                                    # ~ q
    log_q = -0.5 * (LOG_2PI + eps**2) - np.log(sigma)
    log_p = -0.5 * (LOG_2PI + z**2)
    draws = log_q - log_p                                                   # (20000, B, J)
    error_bar = draws.std(axis=0, ddof=1) / math.sqrt(len(draws))           # (B, J), around 0.01 nats
    in_error_bars = (level.kl(mu, logvar) - draws.mean(axis=0)) / error_bar
    # 4 standard errors: chance alone goes beyond them once in 16,000 entries, and the draws are seeded
    assert_close("(kl - Monte Carlo) / error bar", in_error_bars, np.zeros((B, J)), rtol=0, atol=4)


@every_level
def test_bernoulli_log_likelihood_equals_plain_loops_and_torch_distributions(level):
    check_bernoulli_values(level)


@every_level
def test_gaussian_log_likelihood_equals_plain_loops_and_torch_distributions(level):
    check_gaussian_values(level)


@every_level
def test_kl_divergence_equals_plain_loops_and_torch_distributions(level):
    check_kl_values(level)


@every_level
def test_kl_divergence_equals_its_monte_carlo_estimate(level):
    check_kl_monte_carlo(level)


@every_level
def test_bernoulli_probabilities_of_all_images_add_up_to_1(level):
    images = np.array(list(itertools.product([0.0, 1.0], repeat=D)))        # (2^7, 7)
    logits = np.broadcast_to(bernoulli_inputs()[0][0], images.shape).copy()
    assert_close("sum of p(x|z)", np.exp(level.bernoulli(logits, images)).sum(), 1.0, **EXACT)


@every_level
def test_gaussian_density_of_all_pixels_integrates_to_1(level):
    x = np.linspace(-12, 12, 2001)[:, None]                                 # one pixel: 16 standard deviations each way
    mean, logvar = np.full_like(x, 0.3), np.full_like(x, -0.7)
    density = np.exp(level.gaussian(x, mean, logvar))
    # the trapezoid rule on a density that is smooth and 0 at both ends is as exact as the sum itself
    assert_close("integral of p(x|z)", density.sum() * (x[1, 0] - x[0, 0]), 1.0, **EXACT)


@HYPOTHESIS
@given(seed=st.integers(0, 999), scale=st.sampled_from([0.01, 1.0, 10.0]))
def test_the_two_levels_agree_on_any_numbers(seed, scale):
    rng = np.random.default_rng(seed)
    a, b, x = scale * rng.standard_normal((B, D)), scale * rng.standard_normal((B, D)), rng.uniform(size=(B, D))
    assert_close("bernoulli", NUMPY.bernoulli(a, x), LOWLEVEL.bernoulli(a, x), **EXACT)
    assert_close("gaussian", NUMPY.gaussian(x, a, b), LOWLEVEL.gaussian(x, a, b), **EXACT)
    assert_close("kl", NUMPY.kl(a, b), LOWLEVEL.kl(a, b), **EXACT)


# ---- units -------------------------------------------------------------------------------------------------------------


def check_units(level):
    """Log-likelihoods are summed over the pixels, (B,): every image twice side by side has twice the nats.

    The KL is kept per latent, (B, J): no entry knows of another.
    """
    logits, x = bernoulli_inputs()
    twice = level.bernoulli(np.hstack([logits, logits]), np.hstack([x, x]))
    assert_close("bernoulli, pixels doubled", twice, 2 * level.bernoulli(logits, x), **EXACT)
    x, mean, logvar = gaussian_inputs()
    twice = level.gaussian(np.hstack([x, x]), np.hstack([mean, mean]), np.hstack([logvar, logvar]))
    assert_close("gaussian, pixels doubled", twice, 2 * level.gaussian(x, mean, logvar), **EXACT)
    mu, logvar = kl_inputs()
    kl = level.kl(mu, logvar)
    for b, j in np.ndindex(B, J):
        alone = level.kl(mu[b:b + 1, j:j + 1], logvar[b:b + 1, j:j + 1])
        assert_close(f"kl of image {b}, latent {j}, alone", alone, kl[b:b + 1, j:j + 1], **EXACT)


@every_level
def test_likelihoods_are_summed_over_pixels_and_the_kl_is_kept_per_latent(level):
    check_units(level)


@every_level
def test_gray_pixels_under_a_bernoulli_bottom_out_at_the_pixel_entropy_not_at_0(level):
    _, x = bernoulli_inputs(gray=True)
    best = np.log(x / (1 - x))                                              # sigmoid(best) = x
    entropy = -(x * np.log(x) + (1 - x) * np.log(1 - x)).sum(axis=1)        # (B,)
    assert (entropy > 1).all()
    assert_close("log p(x|z) at the optimum", level.bernoulli(best, x), -entropy, **EXACT)
    # the gradient x - sigmoid(best) is a difference of numbers below 1 with two roundings each
    (slope,) = level.bernoulli_grad(np.ones(B), best, x)
    assert_close("slope at the optimum", slope, np.zeros((B, D)), rtol=0, atol=1e-15)
    for step in (-0.1, 0.1):
        assert (level.bernoulli(best + step, x) < -entropy).all()


def check_mean_squared_error(level):
    """With logvar = c: log p(x|z) = -D/2 * (MSE * exp(-c) + c + log 2 pi); at c = 0, -MSE * D/2 plus a constant."""
    x, mean, _ = gaussian_inputs()
    mse = ((x - mean) ** 2).mean(axis=1)                                    # (B,)
    for c in (0.0, -2.0, 1.5):
        constant = level.gaussian(x, mean, np.full_like(x, c)) + mse * math.exp(-c) * D / 2
        assert_close(f"constant at logvar {c}", constant, np.full(B, -(c + LOG_2PI) * D / 2), **EXACT)


@every_level
def test_a_fixed_variance_gaussian_is_the_mean_squared_error_but_for_a_constant(level):
    check_mean_squared_error(level)


@every_level
def test_a_density_may_be_positive_and_a_bernoulli_never_is(level):
    x, mean, _ = gaussian_inputs()
    assert (level.gaussian(x, x, np.full_like(x, -8.0)) > 0).all()
    assert (level.bernoulli(*bernoulli_inputs()) < 0).all()


# ---- extremes and precision --------------------------------------------------------------------------------------------


def check_extreme_logits(level, dtype):
    """At |logit| >= 40 softplus(l) is max(l, 0) to 4e-18, so one pixel has x l - max(l, 0) nats: all of it exact."""
    pairs = itertools.product([-1e4, -800.0, -90.0, -40.0, 40.0, 90.0, 800.0, 1e4], [0.0, 0.25, 1.0])
    logits, x = (np.array(column, dtype)[:, None] for column in zip(*pairs, strict=True))          # (24, 1): one pixel each
    want = (x * logits - np.maximum(logits, 0))[:, 0]
    # 4e-18 that the right side leaves out; every other step is exact, for 0.25 and the logits have few binary digits
    assert_close("log p(x|z)", level.bernoulli(logits, x), want, rtol=0, atol=1e-17)
    # and the slope is x - 1 or x - 0: sigmoid(-40) is 4e-18, and sigmoid(40) rounds to 1
    (slope,) = level.bernoulli_grad(np.ones(len(x), dtype), logits, x)
    assert_close("dlogits", slope, x - (logits > 0), rtol=0, atol=1e-17)


def check_confident_logits(level):
    """Logits from 15 to 39 against log1p(exp(-|l|)), which is still there: 2e-9 nats a pixel at 20, 4e-18 at 40."""
    logits = np.concatenate([np.arange(15, 40, 0.5), -np.arange(15, 40, 0.5)])[:, None]             # (100, 1)
    for x in (0.0, 0.25, 1.0):
        want = [x * l - max(l, 0) - math.log1p(math.exp(-abs(l))) for l in logits[:, 0]]
        # two roundings of numbers below 40, 3.6e-15 each, at both sides
        assert_close(f"log p(x = {x}|z)", level.bernoulli(logits, np.full_like(logits, x)), want, rtol=0, atol=2e-14)


def check_extreme_logvar(level, dtype):
    """logvar = +-50: a variance of 5e21 or 2e-22. Every entry against Python's own arithmetic, in float64."""
    rtol = 1e-6 if dtype == np.float32 else 1e-14     # exp rounds to one last place: 1.2e-7 or 2.2e-16, then few more
    cases = list(itertools.product([-50.0, 50.0], [0.0, 0.5, -3.0]))
    logvar, mu = (np.array(column, dtype)[:, None] for column in zip(*cases, strict=True))         # (6, 1)
    ones, x = np.ones(len(mu), dtype), np.zeros_like(mu)
    want = np.array([[0.5 * (m * m + math.exp(l) - 1 - l)] for l, m in cases])
    assert_close("kl", level.kl(mu, logvar), want, rtol, atol=0)
    dmu, dlogvar = level.kl_grad(np.ones_like(mu), mu, logvar)
    assert_close("kl dmu", dmu, mu, rtol, atol=0)
    assert_close("kl dlogvar", dlogvar, [[0.5 * (math.exp(l) - 1)] for l, m in cases], rtol, atol=0)
    want = np.array([-0.5 * (LOG_2PI + l + m * m * math.exp(-l)) for l, m in cases])
    assert_close("log p(x|z)", level.gaussian(x, mu, logvar), want, rtol, atol=0)
    dmean, dlogvar = level.gaussian_grad(ones, x, mu, logvar)
    assert_close("gaussian dmean", dmean, [[-m * math.exp(-l)] for l, m in cases], rtol, atol=0)
    assert_close("gaussian dlogvar", dlogvar, [[0.5 * (m * m * math.exp(-l) - 1)] for l, m in cases], rtol, atol=0)


def check_kl_is_never_negative(level):
    """logvar of every magnitude from 2^-40 to 2^6, both signs, 2,000 mantissas each, in float32; mu 0, tiny or alike."""
    mantissas = np.concatenate([np.linspace(1, 2, 1000), np.random.default_rng(0).uniform(1, 2, 1000)])
    size = (2.0 ** np.arange(-40, 6))[:, None] * mantissas                  # (46, 2000)
    logvar = np.concatenate([size, -size]).astype(np.float32)               # (92, 2000)
    for mu in (np.full_like(logvar, 2.0**-20), 0.5 * logvar, np.zeros_like(logvar)):
        kl = level.kl(mu, logvar)
        worst = np.unravel_index(np.argmin(kl), kl.shape)
        assert kl.min() >= 0, f"kl is {kl[worst]} at mu {mu[worst]}, logvar {logvar[worst]}; {(kl < 0).sum()} are below 0"
    # and with mu = 0 it is the right number: expm1 is good to two last places, 2.4e-7 of itself; one more rounding follows
    wide = logvar.astype(np.float64)
    allowed = 2.4e-7 * (np.abs(np.expm1(wide)) + np.abs(wide))
    in_allowed = (kl - 0.5 * (np.expm1(wide) - wide)) / allowed
    assert_close("(kl - exact) / allowed", in_allowed, np.zeros(kl.shape), rtol=0, atol=1)


@both_precisions
@every_level
def test_logits_of_ten_thousand_stay_finite_and_right(level, dtype):
    check_extreme_logits(level, dtype)


@every_level
def test_confident_logits_lose_no_nats(level):
    check_confident_logits(level)


@both_precisions
@every_level
def test_logvar_of_fifty_stays_finite_and_right(level, dtype):
    check_extreme_logvar(level, dtype)


@every_level
def test_kl_divergence_is_never_negative_in_float32(level):
    check_kl_is_never_negative(level)


@both_precisions
@every_level
def test_kl_divergence_and_its_gradient_are_exactly_0_where_q_is_the_prior(level, dtype):
    zeros = np.zeros((B, J), dtype)
    assert_close("kl", level.kl(zeros, zeros), zeros, **SAME)
    for name, gradient in zip(("dmu", "dlogvar"), level.kl_grad(np.ones_like(zeros), zeros, zeros), strict=True):
        assert_close(name, gradient, zeros, **SAME)


def check_precision(level, dtype):
    """Values and gradients have the dtype of the inputs, and float32 has the values of float64."""
    for term, inputs in (("bernoulli", bernoulli_inputs), ("gaussian", gaussian_inputs), ("kl", kl_inputs)):
        arrays = inputs(dtype)
        function, gradient = getattr(level, term), getattr(level, f"{term}_grad")
        out = function(*arrays)
        wide = [a.astype(np.float64) for a in arrays]
        dout = np.ones_like(out)
        results = zip((out, *gradient(dout, *arrays)),
                      (function(*wide), *gradient(dout.astype(np.float64), *wide)), strict=True)
        for name, (got, want) in zip(("value", "first gradient", "second gradient"), results, strict=False):
            assert got.dtype == dtype, f"{term}: {name} is {got.dtype}, inputs are {np.dtype(dtype)}"
            # the terms of a sum cancel: 7 pixels of up to 10 nats, each rounded to 6e-7
            assert_close(f"{term}: {name}", got, want, rtol=SINGLE["rtol"], atol=10 * SINGLE["atol"])


@both_precisions
@every_level
def test_values_and_gradients_have_the_dtype_of_the_inputs(level, dtype):
    check_precision(level, dtype)


def test_softplus_in_float32_is_good_to_four_last_places():
    a = np.concatenate([np.linspace(-85, 85, 20_001), np.linspace(-1, 1, 20_001)]).astype(np.float32)
    got = losses_numpy.softplus(a)
    want = np.logaddexp(0, a.astype(np.float64))
    assert got.dtype == np.float32
    last_places = (got - want) / np.spacing(want.astype(np.float32))
    # exp and log1p are off by one or two last places each (NumPy's vector versions), the sum rounds once more
    assert_close("softplus, error in last places", last_places, np.zeros(len(a)), rtol=0, atol=4)


# ---- gradients ---------------------------------------------------------------------------------------------------------


def gradient_cases(seed):
    """name, inputs, places of the inputs that have a gradient, upstream gradient."""
    rng = np.random.default_rng(100 + seed)
    return [
        ("bernoulli", bernoulli_inputs(seed=seed), [0], rng.standard_normal(B)),
        ("bernoulli", bernoulli_inputs(seed=seed, gray=True), [0], rng.standard_normal(B)),
        ("gaussian", gaussian_inputs(seed=seed), [1, 2], rng.standard_normal(B)),
        ("kl", kl_inputs(seed=seed), [0, 1], rng.standard_normal((B, J))),
    ]


def check_gradient(level, term, arrays, places, dout):
    """Central differences of the level's own value, and autograd of level 2, under a random upstream gradient."""
    function, name = getattr(level, term), f"{term}_grad"
    got, autograd = getattr(level, name)(dout, *arrays), getattr(LOWLEVEL, name)(dout, *arrays)
    assert len(got) == len(autograd) == len(places)
    for n, place in enumerate(places):
        numeric = central_difference(lambda: (dout * function(*arrays)).sum(), arrays[place])
        assert_close(f"{term}: gradient {n}, autograd", got[n], autograd[n], **EXACT)
        assert_close(f"{term}: gradient {n}, central differences", got[n], numeric, **DIFFERENCES)


def check_gradients(level, seed=0):
    for term, arrays, places, dout in gradient_cases(seed):
        check_gradient(level, term, arrays, places, dout)


@every_level
def test_gradients_match_autograd_and_central_differences(level):
    check_gradients(level)


@settings(HYPOTHESIS, max_examples=10)
@given(seed=st.integers(0, 999))
def test_numpy_gradients_match_autograd_and_central_differences_on_any_numbers(seed):
    check_gradients(NUMPY, seed)


@pytest.mark.parametrize("term", ["bernoulli", "gaussian", "kl"])
def test_numpy_backward_is_pure(term):
    """Two calls give the same bits; inputs, dout and cache stay as they were."""
    name = "kl_divergence" if term == "kl" else f"{term}_log_likelihood"
    forward, backward = getattr(losses_numpy, f"{name}_forward"), getattr(losses_numpy, f"{name}_backward")
    arrays = {"bernoulli": bernoulli_inputs, "gaussian": gaussian_inputs, "kl": kl_inputs}[term]()
    out, cache = forward(*arrays)
    dout = np.random.default_rng(1).standard_normal(out.shape)
    kept = [a.copy() for a in (*arrays, dout, out, *cache)]
    first = np.array(backward(dout, cache))
    second = np.array(backward(dout, cache))
    assert first.tobytes() == second.tobytes()
    for n, (array, copy) in enumerate(zip((*arrays, dout, out, *cache), kept, strict=True)):
        assert array.tobytes() == copy.tobytes(), f"{term}: array {n} was edited"


# ---- named wrong answers: the checks above must turn them down ---------------------------------------------------------


def sigmoid_then_log(logits, x):
    with np.errstate(all="ignore"):
        y = 1 / (1 + np.exp(-logits))
        return (x * np.log(y) + (1 - x) * np.log(1 - y)).sum(axis=1)


def sigmoid_clamped_then_log(logits, x):
    with np.errstate(all="ignore"):
        y = np.clip(1 / (1 + np.exp(-logits)), 1e-7, 1 - 1e-7)
    return (x * np.log(y) + (1 - x) * np.log(1 - y)).sum(axis=1)


def softplus_that_overflows(logits, x):
    with np.errstate(all="ignore"):
        return (x * logits - np.log1p(np.exp(logits))).sum(axis=1)


def softplus_that_stops_at_20(logits, x):
    """As torch.nn.functional.softplus: the identity above 20."""
    return (x * logits - np.where(logits > 20, logits, losses_numpy.softplus(logits))).sum(axis=1)


def bernoulli_averaged_over_pixels(logits, x):
    return NUMPY.bernoulli(logits, x) / x.shape[1]


def gaussian_averaged_over_pixels(x, mean, logvar):
    return NUMPY.gaussian(x, mean, logvar) / x.shape[1]


def gaussian_without_its_constant(x, mean, logvar):
    return NUMPY.gaussian(x, mean, logvar) + 0.5 * LOG_2PI * x.shape[1]


def gaussian_without_its_half(x, mean, logvar):
    return 2 * NUMPY.gaussian(x, mean, logvar)


def gaussian_with_logvar_as_sigma(x, mean, logvar):
    return NUMPY.gaussian(x, mean, 2 * logvar)


def kl_with_its_sign_flipped(mu, logvar):
    return -NUMPY.kl(mu, logvar)


def kl_of_the_prior_from_q(mu, logvar):
    """KL(p || q) in place of KL(q || p)."""
    return 0.5 * (np.exp(-logvar) * (1 + mu * mu) - 1 + logvar)


def kl_with_exp_logvar_as_sigma(mu, logvar):
    return NUMPY.kl(mu, 2 * logvar)


def kl_averaged_over_latents(mu, logvar):
    return np.broadcast_to(NUMPY.kl(mu, logvar).mean(axis=1, keepdims=True), mu.shape)


def kl_as_the_paper_prints_it(mu, logvar):
    """Right in real numbers; in float32 1 + logvar - exp(logvar) rounds to either side of 0."""
    return -0.5 * (1 + logvar - mu * mu - np.exp(logvar))


def kl_clamped_at_0(mu, logvar):
    """Hides the sign; the number is still rounding noise, off by more than expm1 would be."""
    return np.maximum(kl_as_the_paper_prints_it(mu, logvar), 0)


def logvar_clamped(mu, logvar):
    return NUMPY.kl(mu, np.clip(logvar, -10, 10))


def kl_in_float64(mu, logvar):
    return NUMPY.kl(mu, logvar) * np.float64(1)


def extreme_logits(level):
    check_extreme_logits(level, np.float64)


def extreme_logvar(level):
    check_extreme_logvar(level, np.float64)


def single_precision(level):
    check_precision(level, np.float32)


@pytest.mark.parametrize("term, wrong, check", [
    ("bernoulli", sigmoid_then_log, extreme_logits),
    ("bernoulli", sigmoid_clamped_then_log, extreme_logits),
    ("bernoulli", softplus_that_overflows, extreme_logits),
    ("bernoulli", softplus_that_stops_at_20, check_confident_logits),
    ("bernoulli", bernoulli_averaged_over_pixels, check_bernoulli_values),
    ("bernoulli", bernoulli_averaged_over_pixels, check_units),
    ("gaussian", gaussian_averaged_over_pixels, check_gaussian_values),
    ("gaussian", gaussian_averaged_over_pixels, check_units),
    ("gaussian", gaussian_without_its_constant, check_gaussian_values),
    ("gaussian", gaussian_without_its_constant, check_mean_squared_error),
    ("gaussian", gaussian_without_its_half, check_mean_squared_error),
    ("gaussian", gaussian_with_logvar_as_sigma, check_gaussian_values),
    ("kl", kl_with_its_sign_flipped, check_kl_values),
    ("kl", kl_with_its_sign_flipped, check_kl_monte_carlo),
    ("kl", kl_of_the_prior_from_q, check_kl_values),
    ("kl", kl_of_the_prior_from_q, check_kl_monte_carlo),
    ("kl", kl_with_exp_logvar_as_sigma, check_kl_values),
    ("kl", kl_with_exp_logvar_as_sigma, check_kl_monte_carlo),
    ("kl", kl_averaged_over_latents, check_units),
    ("kl", kl_as_the_paper_prints_it, check_kl_is_never_negative),
    ("kl", kl_clamped_at_0, check_kl_is_never_negative),
    ("kl", logvar_clamped, extreme_logvar),
    ("kl", kl_in_float64, single_precision),
])
def test_a_wrong_loss_is_turned_down(term, wrong, check):
    with pytest.raises(AssertionError):
        check(NUMPY._replace(**{term: wrong}))


def expected_minus_seen(dout, logits, x):
    return (-NUMPY.bernoulli_grad(dout, logits, x)[0],)


def gaussian_logvar_slope_without_its_half(dout, x, mean, logvar):
    dmean, dlogvar = NUMPY.gaussian_grad(dout, x, mean, logvar)
    return dmean, 2 * dlogvar


def kl_slope_of_sigma(dout, mu, logvar):
    """d kl / d sigma = sigma - 1 / sigma in place of d kl / d logvar."""
    sigma = np.exp(0.5 * logvar)
    return dout * mu, dout * (sigma - 1 / sigma)


@pytest.mark.parametrize("term, wrong", [
    ("bernoulli_grad", expected_minus_seen),
    ("gaussian_grad", gaussian_logvar_slope_without_its_half),
    ("kl_grad", kl_slope_of_sigma),
])
def test_a_wrong_gradient_is_turned_down(term, wrong):
    with pytest.raises(AssertionError, match="autograd"):
        check_gradients(NUMPY._replace(**{term: wrong}))
