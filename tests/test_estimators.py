"""The estimators of level 3 against a model that can be solved on paper, against quadrature, and against each other.

    pytest tests/test_estimators.py

Probabilistic PCA, x = W z + b + noise of one variance, is a VAE whose decoder is linear: log p(x) and the posterior are
formulas. Where W's columns are orthogonal, the posterior is what an encoder can say: a mean and a variance for each latent.
With q at the posterior, every importance weight is p(x); with q elsewhere, means are right within their standard errors.
Letters: B images, D pixels, J latents, L draws of noise per image, R repetitions.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from contract import CONV, MLP, Case
from oracles import assert_close, central_difference
from torch.distributions import MultivariateNormal, Normal

from common.config import InputError, VAEConfig
from paper import estimators
from paper.estimators import (
    active_units,
    importance_weighted_bound,
    log_joint_on_grid,
    log_p_by_quadrature,
    log_weight_prior,
)
from paper.iwae import IWAE
from paper.vae_paper import VAE

STANDARD_ERRORS = 5         # a right mean is off by more once in two million seeds, and these are fixed
ROUNDING = 1e-9             # float64: a few thousand sums of numbers of order 1 to 100


class LinearGaussian:
    """Probabilistic PCA with the face of a VAE: z ~ N(0, I), x = W z + b + N(0, s^2 I).

    shift, widen   how far q is from the posterior: added to its mean, multiplied with its variance
    """

    def __init__(self, latent=2, pixels=5, s=0.6, shift=0.0, widen=1.0, dtype=torch.float64):
        self.config = VAEConfig("mlp", (1, pixels), latent=latent, likelihood="gaussian")
        rng = np.random.default_rng(latent)
        columns = np.linalg.qr(rng.standard_normal((pixels, pixels)))[0][:, :latent]
        self.W = torch.tensor(columns * np.linspace(1.5, 0.7, latent), dtype=dtype)              # (D, J), orthogonal
        self.b = torch.tensor(rng.standard_normal(pixels), dtype=dtype)
        self.s, self.shift, self.widen = s, shift, widen

    def encode(self, x):
        """The posterior N((W'W + s^2 I)^-1 W'(x - b), s^2 (W'W + s^2 I)^-1), shifted and widened."""
        precision = (self.W * self.W).sum(dim=0) + self.s**2                                     # (J,)
        mu = (x - self.b) @ self.W / precision                                                   # (B, J)
        variance = self.widen * self.s**2 / precision                                            # (J,)
        return mu + self.shift, torch.log(variance).expand_as(mu)

    reparameterize = VAE.reparameterize

    def likelihood(self, z):
        return Normal(z @ self.W.T + self.b, self.s)

    def log_likelihood(self, x, z):
        return self.likelihood(z).log_prob(x).sum(dim=-1)

    def log_p(self, x):
        """log N(x; b, W W' + s^2 I): the answer. (B, D) -> (B,)."""
        covariance = self.W @ self.W.T + self.s**2 * torch.eye(len(self.W), dtype=self.W.dtype)
        return MultivariateNormal(self.b, covariance).log_prob(x)

    def elbo(self, x):
        """log p(x) - KL(q || posterior), both Gaussians with diagonal covariances: (B,)."""
        v = self.s**2 / ((self.W * self.W).sum(dim=0) + self.s**2)
        kl = 0.5 * (self.widen + self.shift**2 / v - 1 - math.log(self.widen)).sum()
        return self.log_p(x) - kl

    def images(self, count, seed=0):
        rng = np.random.default_rng(seed)
        z = torch.tensor(rng.standard_normal((count, self.config.latent)), dtype=self.W.dtype)
        noise = torch.tensor(rng.standard_normal((count, len(self.b))), dtype=self.W.dtype)
        return z @ self.W.T + self.b + self.s * noise


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_mean(name, values, want):
    """The mean of independent values is `want` within STANDARD_ERRORS; constant values are right to rounding."""
    values = torch.as_tensor(values)
    error = float(values.std()) / math.sqrt(len(values))
    off = abs(float(values.mean()) - want)
    assert off <= STANDARD_ERRORS * error + ROUNDING, f"{name}: mean {values.mean():.6g} +- {error:.2g}, want {want:.6g}"


def vae(case: Case, dtype=np.float64, build=VAE, **settings):
    """A small VAE with the weights of a case, and its images (B, D)."""
    params, x, _ = case.draw(dtype)
    return build(case.config, params, **settings), torch.tensor(x)


# ---- checks: the right answer passes them, and each wrong answer below fails the one that it names ----------------------


def check_importance_sampling_finds_log_p():
    """exp(L_k) estimates p(x) without bias, whatever q is; at the posterior it is p(x)."""
    for settings in ({}, {"shift": 0.2}, {"widen": 1.7}, {"shift": -0.1, "widen": 1.3}):
        model = LinearGaussian(**settings)
        x = model.images(3)
        for image, log_p in zip(x, model.log_p(x), strict=True):
            found = estimators.log_p_by_importance_sampling(model, image.expand(400, -1), 30, generator())
            assert not settings or len(found.unique()) == 400, "images share their draws"
            assert_mean(f"p(x) estimated / p(x), q off by {settings}", torch.exp(found - log_p), 1.0)
    model = LinearGaussian()
    x = model.images(3)
    assert_close("log p(x) with q at the posterior",
                 estimators.log_p_by_importance_sampling(model, x, 3, generator()), model.log_p(x), rtol=0, atol=ROUNDING)


def check_the_elbo_stays_below_log_p():
    """Where q is the posterior the bound is log p(x); elsewhere it lies below."""
    for settings in ({}, {"shift": 0.3}, {"widen": 0.5}):
        model = LinearGaussian(**settings)
        x = model.images(1).expand(4000, -1)
        log_p = float(model.log_p(x[:1]))
        for estimator in (estimators.estimator_a, estimators.estimator_b):
            draws = estimator(model, x, normal(2, 4000, 2))
            error = float(draws.std()) / math.sqrt(len(draws))
            assert draws.mean() <= log_p + STANDARD_ERRORS * error + ROUNDING, (
                f"{estimator.__name__} is {draws.mean():.4f} +- {error:.4f}, above log p(x) = {log_p:.4f}")


def check_both_estimators_have_the_elbo_as_their_mean():
    """A and B against the formula, and against each other on the same noise, which leaves less to chance."""
    for settings in ({"shift": 0.3}, {"widen": 0.5}, {"shift": -0.2, "widen": 2.0}):
        model = LinearGaussian(**settings)
        image = model.images(1)
        x, eps = image.expand(4000, -1), normal(2, 4000, 2)
        a, b = estimators.estimator_a(model, x, eps), estimators.estimator_b(model, x, eps)
        assert_mean(f"A of {settings}", a, float(model.elbo(image)))
        assert_mean(f"B of {settings}", b, float(model.elbo(image)))
        assert_mean(f"A - B of {settings}", a - b, 0.0)
        assert (a - b).abs().min() > 1e-9, "A and B are the same number: one of them is not itself"


def check_the_bound_rises_with_k():
    """L_1 < L_2 < L_5 < L_20 < log p(x), in pairs on the same draws, each step larger than 5 standard errors."""
    model = LinearGaussian(shift=0.4, widen=1.5)
    image = model.images(1)
    log_w = estimators.log_weights(model, image.expand(2000, -1), normal(20, 2000, 2))           # (20, R)
    bounds = {k: estimators.importance_weighted_bound(log_w[:k]) for k in (1, 2, 5, 20)}
    bounds["log p(x)"] = model.log_p(image).expand(2000)
    for (k, low), (more, high) in zip(list(bounds.items())[:-1], list(bounds.items())[1:], strict=True):
        step = high - low
        error = float(step.std()) / math.sqrt(len(step))
        assert step.mean() > STANDARD_ERRORS * error, (
            f"from k = {k} to {more} the bound rises by {step.mean():.4g} +- {error:.2g}")


def check_blocks_add_up():
    """In whatever blocks: each image gets `samples` draws, all weights count alike, no block is larger than `rows`."""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):            # 16 and 7 digits, 23 terms at most
        model = LinearGaussian(shift=0.5, widen=2.0, dtype=dtype)
        for samples, rows, count in ((7, 3, 2), (6, 3, 1), (3, 7, 4), (1, 1, 3), (5, 1, 2), (23, 5, 2), (4, 9, 5),
                                     (2, 500, 3)):
            x, weights, largest = model.images(count), {}, 0

            def spy(model, images, eps, original=estimators.log_weights, weights=weights):
                nonlocal largest
                log_w = original(model, images, eps)
                largest = max(largest, log_w.numel())
                for image, column in zip(images, log_w.T, strict=True):
                    weights.setdefault(image.numpy().tobytes(), []).extend(column.tolist())
                return log_w

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(estimators, "log_weights", spy)
                found = estimators.log_p_by_importance_sampling(model, x, samples, generator(), rows)
            where = f"{samples} samples, {rows} rows, {count} images, {dtype}"
            assert found.dtype == dtype, f"{where}: log p is {found.dtype}"
            drawn = np.array([weights[image.numpy().tobytes()] for image in x])         # (B, samples), in the order of x
            assert drawn.shape == (count, samples), f"{where}: draws {drawn.shape}"
            assert len(np.unique(drawn)) == drawn.size, f"{where}: a draw was used twice"
            assert largest <= rows, f"{where}: a block of {largest} decoded images"
            want = np.logaddexp.reduce(drawn, axis=1) - math.log(samples)
            assert_close(f"log p(x) (B,) of {where}", found, want, rtol=tolerance, atol=0)


CHECKS = {name: check for name, check in list(globals().items()) if name.startswith("check_")}


@pytest.mark.parametrize("name", CHECKS)
def test_estimators(name):
    CHECKS[name]()


# ---- wrong answers -----------------------------------------------------------------------------------------------------

log_weights, estimator_b = estimators.log_weights, estimators.estimator_b
importance_sampling = estimators.log_p_by_importance_sampling


def half_the_noise(model, mu, logvar, eps):
    return mu + torch.exp(0.5 * logvar) * (0.5 * eps)


def no_noise(model, mu, logvar, eps):
    return mu + 0 * eps


def no_logvar_in_log_q(model, x, eps):
    return log_weights(model, x, eps) - 0.5 * model.encode(x)[1].sum(dim=-1)


def no_prior_in_the_weights(model, x, eps):
    z = model.reparameterize(*model.encode(x), eps)
    return log_weights(model, x, eps) - Normal(0.0, 1.0).log_prob(z).sum(dim=-1)


def kl_added(model, x, eps):
    return 2 * model.log_likelihood(x, model.reparameterize(*model.encode(x), eps)).mean(dim=0) - estimator_b(model, x, eps)


def same_noise_for_every_image(model, x, eps):
    return log_weights(model, x, eps[:, :1].expand_as(eps))


def all_blocks_count_alike(model, x, samples, generator=None, rows=500):
    """The last, smaller block as much as a full one."""
    blocks = [importance_sampling(model, x, min(rows, samples - start), generator, rows)
              for start in range(0, samples, rows)]
    return torch.logsumexp(torch.stack(blocks), dim=0) - math.log(len(blocks))


def logs_of_blocks_averaged(model, x, samples, generator=None, rows=500):
    blocks = [importance_sampling(model, x, min(rows, samples - start), generator, rows)
              for start in range(0, samples, rows)]
    return torch.stack(blocks).mean(dim=0)


def last_block_too_long(model, x, samples, generator=None, rows=500):
    return importance_sampling(model, x, -(-samples // rows) * rows, generator, rows)


def all_at_once(model, x, samples, generator=None, rows=500):
    return importance_sampling(model, x, samples, generator, 10**6)


WRONG = {                                       # what is replaced, by what, and the check that notices
    "mean_of_logs": (estimators, "importance_weighted_bound", lambda log_w: log_w.mean(dim=0), "the_bound_rises_with_k"),
    "not_divided_by_k": (estimators, "importance_weighted_bound", lambda log_w: torch.logsumexp(log_w, dim=0),
                         "the_bound_rises_with_k"),
    "noise_sd_in_a_bound": (LinearGaussian, "reparameterize", half_the_noise, "the_elbo_stays_below_log_p"),
    "noise_sd_in_importance_sampling": (LinearGaussian, "reparameterize", half_the_noise,
                                        "importance_sampling_finds_log_p"),
    "no_sampling_called_elbo": (LinearGaussian, "reparameterize", no_noise, "the_elbo_stays_below_log_p"),
    "no_sampling_called_log_p": (LinearGaussian, "reparameterize", no_noise, "importance_sampling_finds_log_p"),
    "no_logvar_in_log_q": (estimators, "log_weights", no_logvar_in_log_q, "importance_sampling_finds_log_p"),
    "no_prior_in_the_weights": (estimators, "log_weights", no_prior_in_the_weights, "importance_sampling_finds_log_p"),
    "no_logvar_in_estimator_a": (estimators, "log_weights", no_logvar_in_log_q,
                                 "both_estimators_have_the_elbo_as_their_mean"),
    "kl_added": (estimators, "estimator_b", kl_added, "the_elbo_stays_below_log_p"),
    "b_is_a": (estimators, "estimator_b", lambda model, x, eps: estimators.estimator_a(model, x, eps),
               "both_estimators_have_the_elbo_as_their_mean"),
    "same_noise_for_every_image": (estimators, "log_weights", same_noise_for_every_image,
                                   "importance_sampling_finds_log_p"),
    "all_blocks_count_alike": (estimators, "log_p_by_importance_sampling", all_blocks_count_alike, "blocks_add_up"),
    "logs_of_blocks_averaged": (estimators, "log_p_by_importance_sampling", logs_of_blocks_averaged, "blocks_add_up"),
    "last_block_too_long": (estimators, "log_p_by_importance_sampling", last_block_too_long, "blocks_add_up"),
    "all_at_once": (estimators, "log_p_by_importance_sampling", all_at_once, "blocks_add_up"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_suite_rejects(name, monkeypatch):
    owner, function, wrong, check = WRONG[name]
    monkeypatch.setattr(owner, function, wrong)
    with pytest.raises(AssertionError):
        CHECKS[f"check_{check}"]()


# ---- with q at the posterior -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_at_the_posterior_every_weight_is_log_p_and_estimator_b_still_varies(latent):
    model = LinearGaussian(latent)
    x, eps = model.images(4), normal(50, 4, latent)
    log_w = estimators.log_weights(model, x, eps)
    assert_close("log weights (L, B)", log_w, model.log_p(x).expand(50, -1), rtol=0, atol=ROUNDING)
    single = torch.stack([estimators.estimator_b(model, x, eps[i:i + 1]) for i in range(50)])
    assert (single.std(dim=0) > 0.1).all(), "estimator B has no noise, though log p(x|z) depends on z"


def test_a_and_b_agree_where_the_noise_has_exactly_the_moments_of_a_normal():
    """They differ by the moments of eps: at eps = +1 and -1 the mean is 0 and the mean square 1, and A is B."""
    model = LinearGaussian(shift=0.3, widen=0.6)
    x = model.images(4)
    eps = torch.ones(2, 4, 2, dtype=torch.float64) * torch.tensor([1.0, -1.0])[:, None, None]
    a, b = estimators.estimator_a(model, x, eps), estimators.estimator_b(model, x, eps)
    assert_close("A (B,)", a, b, rtol=0, atol=ROUNDING)
    assert (estimators.estimator_a(model, x, eps[:1]) - estimators.estimator_b(model, x, eps[:1])).abs().min() > 1e-3


def test_the_estimators_average_over_their_draws():
    model = LinearGaussian(shift=0.3)
    x, eps = model.images(4), normal(7, 4, 2)
    for estimator in (estimators.estimator_a, estimators.estimator_b):
        single = torch.stack([estimator(model, x, eps[i:i + 1]) for i in range(7)])
        assert_close(f"{estimator.__name__} (B,)", estimator(model, x, eps), single.mean(dim=0), rtol=0, atol=ROUNDING)
    log_w = estimators.log_weights(model, x, eps)
    assert_close("L_1 (B,) is estimator A", importance_weighted_bound(log_w[:1]), log_w[0], rtol=0, atol=ROUNDING)


def test_importance_sampling_is_low_by_half_the_relative_variance_over_k():
    """What its docstring says: log p(x) - E L_k = var(w) / (2 k p(x)^2), up to terms in 1 / k^2."""
    model, k, repetitions = LinearGaussian(shift=0.15, widen=1.2), 10, 40_000
    image = model.images(1)
    log_p = model.log_p(image)
    log_w = estimators.log_weights(model, image.expand(repetitions, -1), normal(k, repetitions, 2))
    variance = float(torch.exp(log_w - log_p).var())
    gap = log_p - importance_weighted_bound(log_w)
    error = float(gap.std()) / math.sqrt(repetitions)
    expected = variance / (2 * k)
    # of the terms in 1 / k^2 the largest is 3/4 of the square of the relative variance over k: below expected / 10 here
    assert variance / k < 0.05 and expected > 10 * error, "this q does not tell the bias from noise"
    assert abs(float(gap.mean()) - expected) < STANDARD_ERRORS * error + expected / 10, (
        f"L_{k} is low by {gap.mean():.5f} +- {error:.5f}, expected {expected:.5f}")


# ---- quadrature --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [1, 2])
def test_quadrature_gives_the_closed_form(latent):
    model = LinearGaussian(latent)
    x = model.images(3)
    # posterior deviations are 0.37 and 0.65; a spacing of 0.2 leaves an error of exp(-2 pi^2 (0.37 / 0.2)^2) < 1e-25
    assert_close("log p(x) (B,)", log_p_by_quadrature(model, x, points=81), model.log_p(x), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("latent", [1, 2])
def test_the_grid_holds_the_posterior(latent):
    model = LinearGaussian(latent)
    x = model.images(3)
    log_joint, z = log_joint_on_grid(model, x, points=81, limit=8.0)
    assert log_joint.shape == (3, 81**latent) and z.shape == (81**latent, latent)
    assert z[0].tolist() == [-8.0] * latent and z[-1].tolist() == [8.0] * latent
    assert z[1, -1] > z[0, -1] and (latent == 1 or z[1, 0] == z[0, 0]), "the last latent runs fastest"
    share = torch.softmax(log_joint, dim=1)                                                      # (B, G)
    mu, logvar = model.encode(x)
    assert_close("posterior mean (B, J)", share @ z, mu, rtol=0, atol=ROUNDING)
    assert_close("posterior variance (B, J)", share @ z**2 - mu**2, torch.exp(logvar), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("latent", [1, 2])
@pytest.mark.parametrize("settings", [{}, {"likelihood": "gaussian"}, {"likelihood": "gaussian", "fixed_logvar": -1.5},
                                      {"layers": 2}], ids=["bernoulli", "gaussian", "fixed-variance", "layers2"])
def test_quadrature_and_importance_sampling_agree_on_a_vae(latent, settings):
    model, x = vae(Case(replace(MLP, latent=latent, **settings), batch=2))
    log_p = log_p_by_quadrature(model, x, points=81)
    assert_close("log p(x) (B,) on a finer grid", log_p_by_quadrature(model, x, points=121, limit=9.0), log_p, rtol=0,
                 atol=1e-9)
    for image, value in zip(x, log_p, strict=True):
        found = estimators.log_p_by_importance_sampling(model, image.expand(100, -1), 300, generator(), rows=30_000)
        assert_mean("p(x) by importance sampling / p(x) by quadrature", torch.exp(found - value), 1.0)


def test_quadrature_and_importance_sampling_agree_on_a_convolutional_vae():
    model, x = vae(Case(replace(CONV, image_shape=(4, 8), latent=1), batch=1))
    log_p = log_p_by_quadrature(model, x, points=161)
    found = estimators.log_p_by_importance_sampling(model, x.expand(40, -1), 50, generator(), rows=2000)
    assert_mean("p(x) by importance sampling / p(x) by quadrature", torch.exp(found - log_p), 1.0)


# ---- numbers that overflow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_far_outside_the_range_of_exp_stay_finite(dtype):
    """log weights of -10,000 and of some hundreds or thousands: exp of either is 0 or infinity in that precision."""
    params, _, _ = Case(MLP).draw(dtype)
    params["decoder.logits.weight"][:] = 0
    params["decoder.logits.bias"][:] = -2000.0
    x = torch.tensor(np.array([[1, 1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 0]], dtype))
    small = estimators.log_p_by_importance_sampling(VAE(MLP, params), x, 200, generator(), rows=7)
    # log p(x|z) is -1e4 for every z; the rest, the mean of p(z)/q(z), is 1 within its noise
    assert_close("log p(x) (B,)", small, [-1e4, -1e4], rtol=0, atol=1.0)

    config = replace(MLP, likelihood="gaussian", fixed_logvar=-700.0 if dtype == np.float64 else -80.0)
    model, _ = vae(Case(config), dtype)
    with torch.no_grad():
        for parameter in model.decoder.mean.parameters():
            parameter.zero_()
    x = torch.tensor(np.full((2, 7), 0.5, dtype))                       # exactly the mean of p(x|z)
    large = estimators.log_p_by_importance_sampling(model, x, 200, generator(), rows=7)
    want = 0.5 * 7 * (-config.fixed_logvar - math.log(2 * math.pi))
    assert_close("log p(x) (B,)", large, [want, want], rtol=0, atol=1.0)


def test_the_prior_and_a_far_image_agree_with_the_closed_form_in_float32():
    model = LinearGaussian(dtype=torch.float32)
    x = model.images(3) + 40.0
    assert model.log_p(x).max() < -3000
    # 1e-7 a rounding of numbers of size 1e4, a handful of them
    found = estimators.log_p_by_importance_sampling(model, x, 60, generator(), rows=9)
    assert_close("log p(x) (B,)", found, model.log_p(x), rtol=1e-5, atol=0)


# ---- gradients ---------------------------------------------------------------------------------------------------------

OBJECTIVES = {
    "estimator_a": lambda model, x, eps: estimators.estimator_a(model, x, eps).mean(),
    "estimator_b": lambda model, x, eps: estimators.estimator_b(model, x, eps).mean(),
    "L_3": lambda model, x, eps: importance_weighted_bound(estimators.log_weights(model, x, eps)).mean(),
    "log_weight_prior": lambda model, x, eps: log_weight_prior(model),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_gradients_agree_with_central_differences(name, likelihood):
    model, x = vae(Case(replace(MLP, likelihood=likelihood), batch=2))
    eps = normal(3, 2, 3)
    OBJECTIVES[name](model, x, eps).backward()
    for parameter, weight in model.named_parameters():
        with torch.no_grad():                                           # the array is the weight's own memory
            want = central_difference(lambda: OBJECTIVES[name](model, x, eps), weight.detach().numpy())
        # 1e-11 times the objective, some tens, from rounding, and h^2 times its third derivative: see central_difference
        assert_close(f"gradient of {name} with respect to {parameter}", weight.grad, want, rtol=1e-6, atol=1e-8)


def test_the_weight_prior_is_minus_half_the_squares_of_weights_and_biases():
    model = VAE(MLP, Case(MLP).draw()[0])
    prior = log_weight_prior(model)
    prior.backward()
    squares = sum(float((array**2).sum()) for array in Case(MLP).draw()[0].values())
    assert prior.ndim == 0 and prior.item() == pytest.approx(-0.5 * squares, rel=1e-12)
    for name, weight in model.named_parameters():
        assert torch.equal(weight.grad, -weight), f"gradient of {name}"


class FreePosterior(LinearGaussian):
    """The posterior's parameters as leaves, one for each row of x: a gradient for each draw."""

    def __init__(self, x, **settings):
        super().__init__(**settings)
        self.mu, self.logvar = (tensor.clone().requires_grad_() for tensor in super().encode(x))

    def encode(self, x):
        return self.mu, self.logvar


def gradients_of_weights(x, eps, path_only, **settings):
    model = FreePosterior(x, **settings)
    values = estimators.log_weights(model, x, eps, path_only=path_only)
    values.sum().backward()
    return values.detach(), model.mu.grad, model.logvar.grad


def test_the_path_gradient_has_the_same_value_and_mean_and_no_noise_at_the_posterior():
    x, eps = LinearGaussian().images(1).expand(4000, -1), normal(1, 4000, 2)
    for settings in ({}, {"shift": 0.3, "widen": 1.5}):
        value, *whole = gradients_of_weights(x, eps, False, **settings)
        same, *path = gradients_of_weights(x, eps, True, **settings)
        assert_close("log weights (L, B)", same, value, rtol=0, atol=ROUNDING)
        for name, one, other in zip(("mu", "logvar"), whole, path, strict=True):
            for j in range(2):
                assert_mean(f"gradient of {name}, whole - path", one[:, j] - other[:, j], 0.0)
            assert (one - other).abs().max() > 0.1, "there is no score in the gradient that could be left out"
        if not settings:
            assert max(float(gradient.abs().max()) for gradient in path) < ROUNDING
            assert min(float(gradient.std(dim=0).min()) for gradient in whole) > 0.1


def test_the_path_gradient_leaves_the_decoder_its_gradient():
    case = Case(MLP)
    eps = normal(1, 5, 3)
    grads = []
    for path_only in (False, True):
        model, x = vae(case)
        estimators.log_weights(model, x, eps, path_only=path_only).sum().backward()
        grads.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in grads[0].items():
        if name.startswith("decoder"):
            assert_close(f"gradient of {name}", grads[1][name], gradient, rtol=0, atol=ROUNDING)
        else:
            assert not torch.allclose(grads[1][name], gradient), f"path_only changes nothing at {name}"


# ---- IWAE --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4])
def test_the_iwae_minimizes_minus_l_k_and_tells_the_elbo_of_the_same_draws(k):
    model, x = vae(Case(MLP), build=IWAE, k=k)
    eps = torch.randn(k, 5, 3, generator=generator(3), dtype=torch.float64)
    loss, terms = model.training_loss(x, None, generator(3))
    loss = loss.detach()
    log_w = estimators.log_weights(model, x, eps).detach().numpy()
    assert_close("loss", loss, -(np.logaddexp.reduce(log_w, axis=0) - math.log(k)).mean(), rtol=0, atol=ROUNDING)
    assert set(terms) == {"bound", "elbo"} and not any(term.requires_grad for term in terms.values())
    assert float(terms["bound"]) == -float(loss)
    assert_close("elbo", terms["elbo"], estimators.estimator_a(model, x, eps).mean().detach(), rtol=0, atol=ROUNDING)
    assert (float(loss) == pytest.approx(-float(terms["elbo"]), abs=ROUNDING)) == (k == 1)


def test_the_iwae_with_path_only_has_the_path_gradient():
    """The same loss, and the gradient of estimators.log_weights(..., path_only=True)."""
    eps, found = torch.randn(1, 5, 3, generator=generator(3), dtype=torch.float64), {}
    for path_only in (False, True):
        model, x = vae(Case(MLP), build=IWAE, k=1, path_only=path_only)
        loss, _ = model.training_loss(x, None, generator(3))
        want = -estimators.log_weights(model, x, eps, path_only=path_only).mean()
        assert_close("loss", loss.detach(), want.detach(), rtol=0, atol=ROUNDING)
        names = [name for name, _ in model.named_parameters()]
        got, want = (torch.autograd.grad(value, list(model.parameters())) for value in (loss, want))
        for name, one, other in zip(names, got, want, strict=True):
            assert_close(f"gradient of {name}, path_only {path_only}", one, other, rtol=0, atol=ROUNDING)
        found[path_only] = dict(zip(names, got, strict=True))
    assert not torch.allclose(found[True]["encoder.mu.weight"], found[False]["encoder.mu.weight"])


def test_the_iwae_refuses_a_k_below_1_and_a_path_gradient_above_1():
    for k in (0, -3):
        with pytest.raises(InputError, match=f"k is {k}.*at least 1"):
            IWAE(MLP, k=k)
    with pytest.raises(InputError, match="path_only"):
        IWAE(MLP, k=2, path_only=True)


# ---- active units ------------------------------------------------------------------------------------------------------


def test_active_units_counts_the_latents_whose_mean_moves():
    rng = np.random.default_rng(0)
    config = VAEConfig("mlp", (1, 7), hidden=6, latent=5)
    for active in ((), (3,), (0, 2, 4), (0, 1, 2, 3, 4)):
        params = Case(config).draw()[0]
        params["encoder.mu.weight"][[j for j in range(5) if j not in active]] = 0
        params["encoder.mu.bias"] += 10.0                               # far from the prior, and still
        params["encoder.mu.weight"] *= 3
        x = torch.tensor(rng.random((50, 7)) < 0.5).double()
        assert active_units(VAE(config, params), x) == len(active), f"latents {active} were made active"


def test_active_units_asks_whether_the_variance_lies_above_a_hundredth():
    class Told(LinearGaussian):
        def encode(self, x):
            return x, x

    spread = torch.tensor([0.0, 0.0099, 0.0101, 4.0]).double().sqrt()
    mu = torch.tensor([-1.0, 1.0]).double().repeat(500)[:, None] * spread + 3            # 1000 / 999 of it is the variance
    assert active_units(Told(), mu) == 2
    assert active_units(Told(), mu, threshold=0.005) == 3


# ---- what is refused ---------------------------------------------------------------------------------------------------

WRONG_SHAPES = [((5, 7), (5, 3)), ((5, 7), (2, 4, 3)), ((5, 7), (2, 1, 3)), ((5, 7), (2, 5, 1)), ((5, 7), (2, 5, 4)),
                ((5, 7), (0, 5, 3)), ((5, 7), (1, 2, 5, 3)), ((7,), (2, 7, 3)), ((5, 8), (2, 5, 3)), ((0, 7), (2, 0, 3)),
                ((2, 5, 7), (2, 2, 3))]


@pytest.mark.parametrize("x, eps", WRONG_SHAPES, ids=str)
def test_wrong_shapes_are_refused(x, eps):
    model = VAE(MLP)
    for function in (estimators.log_weights, estimators.estimator_a, estimators.estimator_b):
        with pytest.raises(InputError, match="has shape"):
            function(model, torch.zeros(x), torch.zeros(eps))


@pytest.mark.parametrize("x", [(7,), (5, 8), (2, 5, 7)], ids=str)
def test_images_of_a_wrong_shape_are_refused(x):
    with pytest.raises(InputError, match="x has shape"):
        estimators.log_p_by_importance_sampling(VAE(MLP), torch.zeros(x), 3)
    with pytest.raises(InputError, match="x has shape"):
        log_p_by_quadrature(VAE(replace(MLP, latent=1)), torch.zeros(x), 3)


@pytest.mark.parametrize("settings", [{"samples": 0}, {"samples": -5}, {"samples": 3, "rows": 0}], ids=str)
def test_no_samples_are_refused(settings):
    with pytest.raises(InputError, match="at least 1"):
        estimators.log_p_by_importance_sampling(VAE(MLP), torch.zeros(5, 7), **settings)


def test_quadrature_over_three_latents_is_refused():
    with pytest.raises(InputError, match="3 latents.*importance sampling"):
        log_p_by_quadrature(VAE(MLP), torch.zeros(5, 7))


def test_the_same_generator_seed_gives_the_same_estimate_and_no_graph_is_kept():
    model, x = vae(Case(MLP))
    first, second, other = (estimators.log_p_by_importance_sampling(model, x, 20, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert not first.requires_grad
    assert not log_p_by_quadrature(*vae(Case(replace(MLP, latent=1))), points=5).requires_grad
