"""Appendix D, and importance sampling without an encoder, against formulas and quadrature.

    pytest tests/test_marginal_likelihood.py

On probabilistic PCA (test_estimators.LinearGaussian) log p(x) is a formula, on a small VAE with 2 latents a sum over a
grid. Many copies of one image give as many independent estimates, and with them an error bar.
Letters: B images, D pixels, J latents, L draws for each image, C chains for each image.
"""

import math
from dataclasses import replace

import pytest
import torch
from contract import MLP, Case
from oracles import assert_close
from test_estimators import STANDARD_ERRORS, LinearGaussian, assert_mean, generator, vae
from torch.distributions import MultivariateNormal, Normal

from common.config import InputError
from paper import estimators, marginal_likelihood
from paper.estimators import log_p_by_quadrature
from paper.marginal_likelihood import log_joint_of, log_p_both_ways, log_p_by_hmc, start_from_the_prior

# ---- checks: the right answer passes them, and each wrong answer below fails the one that it names -------------------


def exact_draws(model, x, count, seed):
    """(L, B, J) draws from the posterior of LinearGaussian, with no chain between them."""
    mu, logvar = model.encode(x)
    return mu + torch.exp(0.5 * logvar) * torch.randn((count, *mu.shape), generator=generator(seed), dtype=mu.dtype)


def check_appendix_d_has_no_bias_in_one_over_p_and_importance_sampling_none_in_p():
    """The means of p(x) / estimate, and of estimate / p(x), are 1; of their logs, one is too high and one too low.

    4000 copies of an image, each with a q fitted to 20 exact draws; errors to one side shrink from 5 new draws to 20.
    """
    model = LinearGaussian()
    x = model.images(1).expand(4000, -1)
    log_joint, log_p = log_joint_of(model), model.log_p(x[:1])
    q, high = marginal_likelihood.fit_gaussian(exact_draws(model, x, 20, seed=0)), {}
    for count in (5, 20):
        z = exact_draws(model, x, count, seed=1)
        by_hmc = marginal_likelihood.log_p_from_posterior_draws(log_joint, x, q, z) - log_p
        by_samples = marginal_likelihood.log_p_from_proposal(log_joint, x, q, count, generator(2)) - log_p
        assert_mean("p(x) / appendix D's", torch.exp(-by_hmc), 1.0)
        assert_mean("importance sampling's / p(x)", torch.exp(by_samples), 1.0)
        high[count] = {"appendix D": by_hmc, "importance sampling, negated": -by_samples}
    for name, many in high[20].items():
        for what, more in (("than log p(x)", high[5][name]), ("than with 20 draws", high[5][name] - many)):
            error = float(more.std()) / math.sqrt(len(x))
            assert more.mean() > STANDARD_ERRORS * error, f"{name}: higher by {more.mean():.4f} +- {error:.4f} {what}"


def check_the_number_of_draws_of_the_paper_suffices():
    """50 draws by HMC: both are right to 3/4 of their variance. (Half of it is the first term of Jensen's gap.)"""
    model = LinearGaussian()
    x = model.images(1).expand(500, -1)
    found = log_p_both_ways(log_joint_of(model), x, 2, generator(), samples=50, block=300)
    for name, log_p in zip(("appendix D", "importance sampling"), found, strict=True):
        off, error = float(log_p.mean() - model.log_p(x[:1])), float(log_p.std()) / math.sqrt(len(x))
        assert len(log_p.unique()) == len(x), f"{name}: images share their draws"
        assert abs(off) < STANDARD_ERRORS * error + 0.75 * log_p.var(), f"{name} is {off:.4f} +- {error:.4f} nats off"
        assert log_p.var() < 0.04, f"{name} has a variance of {log_p.var():.3f}"


def check_quadrature_agrees_on_a_vae():
    """A Bernoulli VAE, whose posterior is no Gaussian. With 300 draws the standard deviations are 0.04 and 0.02."""
    model, x = vae(Case(replace(MLP, latent=2)))
    want, log_joint = log_p_by_quadrature(model, x), marginal_likelihood.log_joint_of(model)
    z = start_from_the_prior(log_joint, x, 2, generator(), chains=6)
    by_hmc, by_importance_sampling = log_p_both_ways(log_joint, x, 2, generator(), z, draws=300, samples=300)
    assert_close("appendix D (B,)", by_hmc, want, rtol=0, atol=STANDARD_ERRORS * 0.04)
    assert_close("importance sampling (B,)", by_importance_sampling, want, rtol=0, atol=STANDARD_ERRORS * 0.02)


CHECKS = {name: check for name, check in list(globals().items()) if name.startswith("check_")}


@pytest.mark.parametrize("name", CHECKS)
def test_marginal_likelihood(name):
    CHECKS[name]()


# ---- wrong answers ---------------------------------------------------------------------------------------------------

posterior_draws, log_prior = marginal_likelihood.posterior_draws, estimators.log_prior
NO_BIAS = "appendix_d_has_no_bias_in_one_over_p_and_importance_sampling_none_in_p"
PAPER = "the_number_of_draws_of_the_paper_suffices"


def fitted_on_the_draws_it_is_evaluated_on(*arguments):
    first, _ = posterior_draws(*arguments)
    return first, first


def mean_of_p_over_q(log_joint, x, q, z, rows=400):
    """Importance sampling's formula, on draws that are not q's."""
    return torch.logsumexp(log_joint(z, x) - q.log_prob(z), dim=0) - math.log(len(z))


def mean_of_logs(log_joint, x, q, z, rows=400):
    return (log_joint(z, x) - q.log_prob(z)).mean(dim=0)


def no_q(log_joint, x, q, z, rows=400):
    """The harmonic mean of p(x|z), with an infinite variance where the prior is wide."""
    return math.log(len(z)) - torch.logsumexp(log_prior(z) - log_joint(z, x), dim=0)



def prior_counted_twice(model):
    return lambda z, x: model.log_likelihood(x, z) + 2 * log_prior(z)


def widened_draws_only(log_joint, x, q, samples, generator, rows=400):
    """log q of the Gaussian that was not widened."""
    eps = torch.randn((samples, *q.mean.shape), generator=generator, dtype=x.dtype)
    z = q.mean + marginal_likelihood.WIDEN * torch.einsum("bij,lbj->lbi", q.scale_tril, eps)
    return torch.logsumexp(log_joint(z, x) - q.log_prob(z), dim=0) - math.log(samples)


WRONG = {                                       # what is replaced, by what, the check that notices, its words
    "fitted_on_the_draws_it_is_evaluated_on": ("posterior_draws", fitted_on_the_draws_it_is_evaluated_on, PAPER,
                                               "appendix D is .* nats off"),
    "mean_of_p_over_q": ("log_p_from_posterior_draws", mean_of_p_over_q, NO_BIAS, r"p\(x\) / appendix D's"),
    "mean_of_logs": ("log_p_from_posterior_draws", mean_of_logs, NO_BIAS, r"p\(x\) / appendix D's"),
    "no_q": ("log_p_from_posterior_draws", no_q, PAPER, "appendix D"),
    "prior_counted_twice": ("log_joint_of", prior_counted_twice, "quadrature_agrees_on_a_vae", r"appendix D \(B,\)"),
    "widened_draws_only": ("log_p_from_proposal", widened_draws_only, NO_BIAS, r"importance sampling's / p\(x\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_suite_rejects(name, monkeypatch):
    function, wrong, check, words = WRONG[name]
    monkeypatch.setattr(marginal_likelihood, function, wrong)
    with pytest.raises(AssertionError, match=words):
        CHECKS[f"check_{check}"]()


# ---- the parts -------------------------------------------------------------------------------------------------------


def test_log_joint_is_the_likelihood_and_a_standard_normal():
    model, x = vae(Case(MLP))
    z = torch.randn((4, 5, 3), generator=generator(), dtype=x.dtype)
    want = model.log_likelihood(x, z) + Normal(0.0, 1.0).log_prob(z).sum(dim=-1)
    assert_close("log p(x, z) (L, B)", log_joint_of(model)(z, x).detach(), want.detach(), rtol=0, atol=1e-12)


def test_the_gaussian_has_the_moments_of_its_draws_and_survives_a_stuck_chain():
    z = torch.randn((40, 3, 2), generator=generator(), dtype=torch.float64) * torch.tensor([3.0, 0.1]).double()
    q = marginal_likelihood.fit_gaussian(z)
    for b in range(3):
        want = torch.cov(z[:, b].T)
        ridge = marginal_likelihood.RIDGE * want.diagonal().mean() * torch.eye(2, dtype=z.dtype)
        assert_close("mean (J,)", q.mean[b], z[:, b].mean(dim=0), rtol=0, atol=1e-12)
        assert_close("covariance (J, J)", q.covariance_matrix[b], want + ridge, rtol=0, atol=1e-12)
    stuck = marginal_likelihood.fit_gaussian(torch.ones(10, 2, 3))
    assert torch.isfinite(stuck.log_prob(torch.ones(2, 3))).all()
    with pytest.raises(InputError, match="fitted to 1 draw"):
        marginal_likelihood.fit_gaussian(z[:1])


def test_the_proposal_follows_a_posterior_with_correlated_latents():
    """q exact, correlation 0.99: widened by 1.2, 100 weights leave an sd of sqrt(0.10 / 100) = 0.03 nats."""
    covariance = torch.tensor([[1.0, 0.99], [0.99, 1.0]], dtype=torch.float64)
    q = MultivariateNormal(torch.ones(300, 2, dtype=torch.float64), covariance.expand(300, 2, 2))
    x = torch.zeros(300, 1, dtype=torch.float64)
    found = marginal_likelihood.log_p_from_proposal(lambda z, x: q.log_prob(z) - 7.0, x, q, 100, generator())
    assert found.std() < 0.06, f"standard deviation {found.std():.3f}"
    assert_mean("p estimated / p", torch.exp(found + 7.0), 1.0)


def test_starts_from_the_prior_are_all_but_posterior_draws():
    """1000 of 5000 draws from the prior, weighted: as good as 200 of the posterior, which is wide, or better."""
    model = LinearGaussian()
    x = model.images(3)
    z = start_from_the_prior(log_joint_of(model), x, 2, generator(), chains=1000, draws=5000)
    mu, logvar = model.encode(x)
    assert z.shape == (1000, 3, 2)
    assert ((z.mean(dim=0) - mu).abs() < STANDARD_ERRORS * torch.exp(0.5 * logvar) / math.sqrt(200)).all()
    assert (z.var(dim=0) / logvar.exp() - 1).abs().max() < STANDARD_ERRORS * math.sqrt(2 / 200)


def test_both_sets_of_draws_come_from_all_chains():
    """3 chains for 7 draws: 3 each, in both sets; where nothing moves, the draws tell which chain they are from."""
    model = LinearGaussian()
    x, z = model.images(4), torch.arange(3.0).double()[:, None, None].expand(3, 4, 2)
    first, fresh = posterior_draws(lambda z, x: -1e8 * (z - z.detach().round()).pow(2).sum(-1), x, z, 7, generator(), 1)
    for found in (first, fresh):
        assert found.shape == (9, 4, 2)
        assert [int((found.round() == c).all(dim=(1, 2)).sum()) for c in range(3)] == [3, 3, 3]


def test_images_do_not_mix():
    """Other pixels in image 0 leave the estimates of all other images as they were, to the last bit."""
    model, x = vae(Case(replace(MLP, latent=2)))
    other = x.clone()
    other[0] = 1 - other[0]
    one, two = (log_p_both_ways(log_joint_of(model), some, 2, generator(), draws=5, samples=5) for some in (x, other))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a[1:], b[1:]) and a[0] != b[0]


def two_modes(z, x):
    """z ~ N(0, 1), x = z^2 + N(0, 0.2^2): at x = 4 the posterior has modes at 2 and at -2, half of it each."""
    return Normal(0.0, 1.0).log_prob(z).sum(-1) + Normal(z[..., 0] ** 2, 0.2).log_prob(x[..., 0])


def test_chains_that_see_one_of_two_modes_miss_log_2():
    """What the docstring says: low by -log of the share seen. Starts from the prior in 20 chains see both."""
    x = torch.full((20, 1), 4.0, dtype=torch.float64)
    z = torch.linspace(-6, 6, 24_001, dtype=torch.float64)[:, None]
    log_p = float(torch.logsumexp(two_modes(z, x[:1]), dim=0) + math.log(12 / 24_000))
    found = torch.stack(log_p_both_ways(two_modes, x, 1, generator(), z=torch.full_like(x, 2.0)))
    assert (found - (log_p - math.log(2))).abs().max() < 0.3             # sd 0.06: half of ln 2 is far away
    start = start_from_the_prior(two_modes, x, 1, generator(), chains=20)
    _, by_importance_sampling = log_p_both_ways(two_modes, x, 1, generator(), start, samples=4000)
    assert (by_importance_sampling - log_p).abs().max() < 0.5            # 1 sample in 20 lies in a mode: sd 0.1
    assert abs(float(by_importance_sampling.mean()) - log_p) < 0.1


def test_one_way_is_the_first_of_both_and_the_seed_decides():
    model = LinearGaussian(dtype=torch.float32)
    x = model.images(5)
    one, again, other = (log_p_by_hmc(log_joint_of(model), x, 2, generator(seed), draws=5) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(one, log_p_both_ways(log_joint_of(model), x, 2, generator(), draws=5)[0])
    assert one.shape == (5,) and one.dtype == torch.float32 and not one.requires_grad


def test_blocks_of_images_keep_their_order_and_their_starts(monkeypatch):
    """5 images in blocks of 2, their log p(x) tens of nats apart: 50 draws are right within 1 (sd 0.13)."""
    model, starts = LinearGaussian(), []
    x = model.images(5) * torch.tensor([1.0, 4.0, 2.0, 5.0, 3.0]).double()[:, None]
    z = exact_draws(model, x, 2, seed=3)                                 # (C, B, J)

    def spy(log_joint, images, start, *others):
        starts.append(start)
        return posterior_draws(log_joint, images, start, *others)

    monkeypatch.setattr(marginal_likelihood, "posterior_draws", spy)
    for given, blocks in ((None, [(1, 2, 2), (1, 2, 2), (1, 1, 2)]), (z, [(2, 2, 2), (2, 2, 2), (2, 1, 2)])):
        starts.clear()
        for found in log_p_both_ways(log_joint_of(model), x, 2, generator(), given, samples=50, block=2):
            assert_close("log p(x) (B,)", found, model.log_p(x), rtol=0, atol=1.0)
        assert [tuple(start.shape) for start in starts] == blocks
    assert torch.equal(torch.cat(starts, dim=1), z)


def test_wrong_input_is_refused():
    model = LinearGaussian()
    log_joint, x = log_joint_of(model), model.images(5)
    for images, z, block in ((x[0], None, 200), (x[:0], None, 200), (x, None, 0), (x, torch.zeros(4, 2), 200),
                             (x, torch.zeros(5, 3), 200), (x, torch.zeros(1, 1, 5, 2), 200)):
        with pytest.raises(InputError, match="has shape"):
            log_p_by_hmc(log_joint, images, 2, generator(), z, block=block)
    with pytest.raises(InputError, match="at least 1"):
        log_p_by_hmc(log_joint, x, 2, generator(), draws=0)
    with pytest.raises(InputError, match="samples is 0"):
        log_p_both_ways(log_joint, x, 2, generator(), samples=0)
