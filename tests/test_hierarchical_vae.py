"""Chain and ladder: the limit of one layer, gradients, each layer's KL, and log p(x) by quadrature over two layers.

    pytest tests/test_hierarchical_vae.py

With one latent in each of two layers, log p(x) is a sum over a plane, and no posterior enters it. Importance weights that
are wrong in any part miss it; those of named wrong answers do.
Letters: B images, D pixels, J latents of a layer, L draws, G points of a grid.
"""

import copy
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import assert_close, assert_gradients, figure_of
from torch.distributions import Normal
from torch.distributions import kl_divergence as kl_of

from common.config import InputError, VAEConfig
from common.data import EVAL_SEED, Dataset
from paper import train_paper
from paper.estimators import importance_weighted_bound, log_p_by_importance_sampling
from paper.experiments import hierarchy
from paper.hierarchical_vae import HierarchicalVAE, Hierarchy, LadderVAE, closed_kl, log_ratio, merge
from paper.images import Images
from paper.iwae import IWAE
from paper.packed import pack
from paper.parts import Work
from paper.plan import Plan
from paper.train_paper import train
from paper.vae_paper import VAE

ROUNDING = 1e-11            # float64, sums of a few hundred numbers of order 1
STANDARD_ERRORS = 5         # a right mean is off by more once in two million seeds, and these are fixed
B, D = 5, 7
CONFIG = VAEConfig("mlp", (1, D), hidden=4, latent=6)                     # three layers: 6, 3, 1 latents; 4, 2, 1 hidden
SMALLEST = replace(CONFIG, latent=1)                                      # two layers of one latent each
GAUSSIAN = {"likelihood": "gaussian"}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(kind=HierarchicalVAE, config=CONFIG, depth=3, spread=0.3, **settings):
    """A model in float64, all weights away from their start (by `spread`), in training mode; and images x (B, D)."""
    rng = np.random.default_rng(3)
    model = kind(config, depth=depth, **settings).draw_weights(rng, np.full(config.pixels, 0.5)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight += spread * torch.from_numpy(rng.standard_normal(weight.shape))
    x = rng.random((B, config.pixels))
    return model, torch.from_numpy(x if config.likelihood == "gaussian" else (x < 0.5).astype(np.float64))


def settled(model, x):
    """The model in eval mode, after some passes in which batch norm has learned what to expect."""
    with torch.no_grad():
        for seed in range(20):
            model.training_loss(x, None, generator(seed))
    return model.eval()


def noise(model, *shape, seed=7):
    return torch.randn(*shape, sum(model.latents), generator=generator(seed), dtype=torch.float64)


KINDS = {"chain": HierarchicalVAE, "ladder": LadderVAE}
both = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

# ---- one layer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path_only", [False, True])
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, **GAUSSIAN), replace(CONFIG, **GAUSSIAN, fixed_logvar=-1.0)],
                         ids=["bernoulli", "gaussian", "fixed variance"])
def test_a_chain_of_one_layer_is_the_vae_with_two_hidden_layers(config, path_only):
    """Weights copied over, the same noise: loss, terms and gradients are VAE.loss's, or those of IWAE's path-only k = 1."""
    model, x = tiny(config=config, depth=1, path_only=path_only)
    params = {name: weight.numpy() for name, weight in model.state_dict().items()}
    two = replace(config, layers=2)
    vae = IWAE(two, params, k=1, path_only=True) if path_only else VAE(two, params)
    loss, terms = model.training_loss(x, None, generator(3))
    want, want_terms = vae.training_loss(x, None, generator(3))
    assert_close("loss", loss.detach(), want.detach(), rtol=1e-12, atol=0)
    assert_close("elbo", terms["elbo"], want_terms["elbo"], rtol=1e-12, atol=0)
    assert_close("kl_1", terms["kl_1"], terms["kl"], rtol=0, atol=0)
    loss.backward()
    want.backward()
    for name, weight in vae.named_parameters():
        assert_close(name, model.get_parameter(name).grad, weight.grad, rtol=1e-12, atol=1e-12)
        assert weight.grad.abs().max() > 1e-3, f"{name}: nothing to compare"
    assert_close("mu", model.encode(x)[0].detach(), vae.encode(x)[0].detach(), rtol=0, atol=0)


def test_a_ladder_of_one_layer_is_the_chain_with_batch_norm():
    """Weights copied over, the same noise: with one layer there is nothing to merge, and the networks are the same."""
    ladder, x = tiny(LadderVAE, depth=1, warmup=0.0)
    chain, _ = tiny(depth=1, normed=True)
    names = {"upward.0": "encoder.0", "heads.0": "encoder.1"}
    chain.load_state_dict({re.sub(r"^(upward|heads)\.0", lambda match: names[match[0]], name): tensor.clone()
                           for name, tensor in ladder.state_dict().items()})
    losses = [model.training_loss(x, None, generator(3))[0] for model in (ladder, chain)]
    assert_close("loss", losses[0].detach(), losses[1].detach(), rtol=0, atol=0)
    for loss in losses:
        loss.backward()
    for (name, ours), theirs in zip(ladder.named_parameters(), chain.parameters(), strict=True):
        assert_close(name, ours.grad, theirs.grad, rtol=0, atol=0)


@pytest.mark.parametrize("kind, settings", [(LadderVAE, {}), (HierarchicalVAE, {"normed": True})], ids=["ladder", "chain"])
def test_one_image_alone_is_refused_where_batch_norm_needs_two(kind, settings):
    model, x = tiny(kind, **settings)
    with pytest.raises(InputError, match="minibatch of one image.*two or more"):
        model.training_loss(x[:1], None, generator())
    assert torch.isfinite(settled(model, x).training_loss(x[:1], None, generator())[0])


# ---- gradients ---------------------------------------------------------------------------------------------------------


# the ladder's top has two units of each kind: with one, batch norm takes the next weight's size away, and its gradient
@pytest.mark.parametrize("kind, config, settings", [
    (HierarchicalVAE, CONFIG, {}), (HierarchicalVAE, replace(CONFIG, **GAUSSIAN), {}),
    (HierarchicalVAE, replace(CONFIG, hidden=8, latent=9), {"normed": True}),
    (LadderVAE, replace(CONFIG, hidden=8, latent=9), {})], ids=["chain", "chain, gaussian", "chain, normed", "ladder"])
def test_gradients_are_those_of_central_differences(kind, config, settings):
    """Three layers, at one draw of all noise; batch norm in training mode, the KL at half its weight."""
    model, x = tiny(kind, config, warmup=0.5, **settings)
    model.progress.fill_(0.25)
    # batch norm of five images, which divides by small standard deviations, has large third derivatives
    assert_gradients(model, lambda: model.training_loss(x, None, generator(3))[0], rtol=1e-5, atol=1e-7)


class PathPastThePrior(HierarchicalVAE):
    """Wrong answer: the prior's parameters are cut off with those of q, and are never trained."""

    def kl(self, layers):
        if self.path_only and self.training:
            layers = [layer._replace(prior_mu=layer.prior_mu.detach(), prior_logvar=layer.prior_logvar.detach())
                      for layer in layers]
        return super().kl(layers)


def path_only_is_right_on_average(kind):
    """Fails unless each entry of the difference of the two gradients is zero, but for its error, over 100 batches."""
    gradients = {}
    for path_only in (False, True):
        model, x = tiny(kind, depth=2, path_only=path_only)
        x, found = x.repeat(100, 1), []
        for seed in range(100):
            model.zero_grad()
            model.training_loss(x, None, generator(2 * seed + path_only))[0].backward()
            found.append(torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]))
        gradients[path_only] = torch.stack(found)
    plain, path = gradients[False], gradients[True]
    assert plain.shape == path.shape, "some weights have no gradient"
    error = torch.sqrt((plain.var(dim=0) + path.var(dim=0)) / 100) + 1e-12
    off = (plain.mean(dim=0) - path.mean(dim=0)).abs() / error
    # 6: with errors estimated from 100 batches, 5 is passed more often, and there are some 300 entries
    assert off.max() < 6, f"{float(off.max()):.1f} standard errors off"
    assert (plain.mean(dim=0).abs() > 10 * error).float().mean() > 0.3, "the draws say nothing"


def test_the_path_only_gradient_is_that_of_the_bound_on_average():
    path_only_is_right_on_average(HierarchicalVAE)


def test_a_path_only_gradient_that_forgets_the_prior_is_noticed():
    with pytest.raises(AssertionError, match="standard errors off|no gradient"):
        path_only_is_right_on_average(PathPastThePrior)


# ---- the KL of each layer ----------------------------------------------------------------------------------------------


def layers_of(model, x, draws, seed=7):
    with torch.no_grad():
        return model.infer(x, noise(model, draws, len(x), seed=seed))


def mean_and_error(values):
    """Of draws (L, B), averaged over the images."""
    each = values.mean(dim=-1)
    return float(each.mean()), float(each.std()) / math.sqrt(len(each))


@both
def test_the_kl_of_each_layer_is_the_mean_log_ratio_of_draws(kind):
    model, x = tiny(kind, spread=0.6, warmup=0.0)
    model = settled(model, x)
    layers = layers_of(model, x, 20_000)
    with torch.no_grad():
        terms = model.loss(x.repeat(4000, 1), noise(model, 4000 * B, seed=8))[1]
    for t, layer in enumerate(layers, 1):
        want, error = mean_and_error(log_ratio(layer))
        # the terms are of a fifth as many draws
        assert abs(float(terms[f"kl_{t}"]) - want) < STANDARD_ERRORS * error * math.sqrt(1 + 5), (t, terms, want, error)
        assert want > 50 * error, f"layer {t}: the draws say nothing"
    assert_close("kl", terms["kl"], sum(terms[f"kl_{t}"] for t in (1, 2, 3)), rtol=1e-12, atol=0)
    assert_close("elbo", terms["elbo"], terms["log_likelihood"] - terms["kl"], rtol=1e-12, atol=0)


def test_the_closed_kl_is_that_of_torch_distributions_and_zero_for_equals():
    model, x = tiny(LadderVAE)
    for layer in layers_of(model, x, 3):
        q, p = Normal(layer.mu, torch.exp(layer.logvar / 2)), Normal(layer.prior_mu, torch.exp(layer.prior_logvar / 2))
        assert_close("closed", closed_kl(layer), kl_of(q, p).sum(dim=-1), rtol=1e-10, atol=1e-12)
        want = (q.log_prob(layer.z) - p.log_prob(layer.z)).sum(dim=-1)
        assert_close("ratio", log_ratio(layer), want, rtol=1e-10, atol=ROUNDING)
        same = layer._replace(prior_mu=layer.mu, prior_logvar=layer.logvar)
        assert_close("equals", closed_kl(same), torch.zeros_like(closed_kl(same)), rtol=0, atol=0)


def test_a_closed_form_for_a_chains_lower_layers_is_noticed():
    """Wrong answer: KL(q(z_1|x) || p(z_1|z_2)) in closed form, as if z_2 had not been drawn from z_1."""
    model, x = tiny(spread=0.6)
    lowest = layers_of(model, x, 50_000)[0]
    (want, error), (wrong, wrong_error) = mean_and_error(log_ratio(lowest)), mean_and_error(closed_kl(lowest))
    assert abs(wrong - want) > 2 * STANDARD_ERRORS * math.hypot(error, wrong_error), (wrong, want, error, wrong_error)


@pytest.mark.parametrize("kind, hears", [(HierarchicalVAE, [[], [0], [0, 1]]), (LadderVAE, [[1, 2], [2], []])], ids=KINDS)
def test_a_chain_infers_from_the_bottom_up_and_a_ladder_from_the_top_down(kind, hears):
    """By gradients: the posterior of a layer follows the noise of those that were drawn before it, and of no other."""
    model, x = tiny(kind)
    eps = noise(model, B).requires_grad_()
    for t, layer in enumerate(settled(model, x).infer(x, eps)):
        moved = torch.autograd.grad(layer.mu.sum(), eps, retain_graph=True, materialize_grads=True, allow_unused=True)[0]
        found = [s for s, part in enumerate(moved.split(model.latents, dim=1)) if part.abs().max() > 1e-9]
        assert found == hears[t], (t, found)


# ---- the merge ---------------------------------------------------------------------------------------------------------


def with_variances(mu, logvar, prior_mu, prior_logvar):
    """Wrong answer: variances for precisions, as in the first line of many a ladder in public."""
    variance, prior_variance = logvar.exp(), prior_logvar.exp()
    total = variance + prior_variance
    return (mu * variance + prior_mu * prior_variance) / total, -total.log()


def product_on_a_grid(mu, logvar, prior_mu, prior_logvar):
    """Mean and log-variance of N(mu, ..) N(prior_mu, ..), by sums over a line."""
    z = torch.linspace(-30, 30, 20_001, dtype=torch.float64)[:, None]
    first, second = Normal(mu, torch.exp(logvar / 2)), Normal(prior_mu, torch.exp(prior_logvar / 2))
    density = torch.exp(first.log_prob(z) + second.log_prob(z))
    share = density / density.sum(dim=0)
    mean = (share * z).sum(dim=0)
    return mean, (share * (z - mean) ** 2).sum(dim=0).log()


def is_the_product(merged):
    """Whether mean and log-variance of a merge are those of the product, 1e-9: the trapezoidal rule is exact here."""
    parts = torch.randn(4, 6, generator=generator(), dtype=torch.float64)
    for name, got, want in zip(("mu", "logvar"), merged(*parts), product_on_a_grid(*parts), strict=True):
        assert_close(name, got, want, rtol=1e-9, atol=1e-9)


def test_the_merge_is_the_product_of_two_gaussians():
    is_the_product(merge)
    with pytest.raises(AssertionError, match="mu"):
        is_the_product(with_variances)


def test_a_merge_with_one_that_knows_nothing_is_the_other_and_with_a_certain_one_that_one():
    mu, logvar, other, _ = torch.randn(4, 6, generator=generator(), dtype=torch.float64)
    for flat in (torch.full_like(mu, math.inf), torch.full_like(mu, 1500.0)):
        for got in (merge(mu, logvar, other, flat), merge(other, flat, mu, logvar)):
            assert_close("mu", got[0], mu, rtol=1e-12, atol=1e-12)
            assert_close("logvar", got[1], logvar, rtol=1e-12, atol=1e-12)
    certain = torch.full_like(mu, -1500.0)
    got = merge(mu, certain, other, logvar)
    assert_close("certain mu", got[0], mu, rtol=1e-12, atol=1e-12)
    assert_close("certain logvar", got[1], certain, rtol=1e-12, atol=0)


# ---- log p(x), exactly -------------------------------------------------------------------------------------------------


@torch.no_grad()
def joint_on_grid(model, x, points=301, limit=12.0):
    """log p(x, z_1, z_2) dz_1 dz_2 on a plane, the two latents one number each: (B, G, G); and the axis (G,)."""
    axis = torch.linspace(-limit, limit, points, dtype=torch.float64)
    mu, logvar = model.priors[0](axis[:, None])                                          # (G, 1), of p(z_1|z_2)
    log_prior = Normal(0.0, 1.0).log_prob(axis)[:, None] + Normal(mu, torch.exp(logvar / 2)).log_prob(axis)    # z_2, z_1
    log_likelihood = torch.stack([model.log_likelihood(image, axis[:, None]) for image in x])                  # (B, G)
    return log_prior + log_likelihood[:, None] + 2 * math.log(2 * limit / (points - 1)), axis


def agrees_with_quadrature(model, x, draws=50_000):
    """Fails unless the mean of the model's importance weights is p(x), within its error."""
    want = torch.logsumexp(joint_on_grid(model, x)[0].flatten(1), dim=1)                 # (B,)
    with torch.no_grad():
        log_w = model.log_weights(x, noise(model, draws, len(x)))                        # (L, B)
    share = torch.exp(log_w - want)                                                      # (L, B), a mean of 1
    error = share.std(dim=0) / math.sqrt(draws)
    off = (share.mean(dim=0) - 1).abs() / error
    assert STANDARD_ERRORS * error.max() < 0.1, "the draws say nothing"
    assert off.max() < STANDARD_ERRORS, f"{float(off.max()):.1f} standard errors off"
    return want, log_w


@both
def test_importance_sampling_agrees_with_quadrature_over_both_layers(kind):
    model, x = tiny(kind, SMALLEST, 2, warmup=0.0)
    model = settled(model, x)
    log_p, log_w = agrees_with_quadrature(model, x)
    # the ELBO, by closed forms where there are some, is the mean of log w
    with torch.no_grad():
        terms = model.loss(x.repeat(20_000, 1), noise(model, 20_000 * B, seed=8))[1]
    mean, error = mean_and_error(log_w)
    assert abs(float(terms["elbo"]) - mean) < STANDARD_ERRORS * math.sqrt(2) * error, (terms["elbo"], mean, error)
    # L_k rises with k, and stays below log p(x)
    bounds = [mean_and_error(importance_weighted_bound(log_w.reshape(k, -1, len(x)))) for k in (1, 4, 16)]
    assert bounds[0][0] < bounds[1][0] < bounds[2][0] < float(log_p.mean()) + STANDARD_ERRORS * bounds[2][1], bounds
    assert float(log_p.mean()) - bounds[0][0] > 5 * bounds[0][1], "q is the posterior: nothing to see"
    # and this is how experiments ask for it
    nats = log_p_by_importance_sampling(model, x, 20_000, generator(1), 1000, Hierarchy.log_weights, sum(model.latents))
    assert_close("L_20000", nats, log_p, rtol=0, atol=0.1)                               # five errors, as asserted above


@both
def test_samples_have_the_mean_that_quadrature_gives(kind):
    model, x = tiny(kind, SMALLEST, 2, spread=0.6)
    model = settled(model, x)
    draws = 20_000
    with torch.no_grad():
        log_joint, axis = joint_on_grid(model, x[:1])
        pixels = model.decode_mean(axis[:, None])                                        # (G, D)
        prior = torch.exp(log_joint[0] - model.log_likelihood(x[0], axis[:, None]))      # (G, G), z_2 down, z_1 across
    assert_close("prior", prior.sum(), 1.0, rtol=1e-4, atol=0)                           # the plane ends at 12
    means = model.sample(draws, generator())
    error = means.std(dim=0) / math.sqrt(draws)
    off = (means.mean(dim=0) - prior.sum(dim=0) @ pixels).abs() / error
    assert off.max() < STANDARD_ERRORS and means.std(dim=0).min() > 0.01, (off, error)


class PriorOfTheTop(HierarchicalVAE):
    """Wrong answer: z_1, too, is weighed against N(0, I), and not against p(z_1|z_2)."""

    def infer(self, x, eps):
        return [layer._replace(prior_mu=torch.zeros_like(layer.z), prior_logvar=torch.zeros_like(layer.z))
                for layer in super().infer(x, eps)]


class TopForgotten(HierarchicalVAE):
    """Wrong answer: the top layer, which a chain hardly uses, is left out of the weights."""

    def log_weights(self, x, eps):
        layers = self.infer(x, eps)
        return self.log_likelihood(x, layers[0].z) - sum(log_ratio(layer) for layer in layers[:-1])


class DrawnFromTheExpected(LadderVAE):
    """Wrong answer: the ladder merges, and then draws z_1 from p(z_1|z_2)."""

    def infer(self, x, eps):
        lowest, *upper = super().infer(x, eps)
        z = self.reparameterize(lowest.prior_mu, lowest.prior_logvar, self.split(x, eps)[0])
        return [lowest._replace(z=z), *upper]


@pytest.mark.parametrize("wrong", [PriorOfTheTop, TopForgotten, DrawnFromTheExpected])
def test_wrong_weights_miss_log_p(wrong):
    model, x = tiny(wrong, SMALLEST, 2)
    with pytest.raises(AssertionError, match="standard errors off|the draws say nothing"):
        agrees_with_quadrature(settled(model, x), x)


# ---- batch norm, warm-up, units ----------------------------------------------------------------------------------------


def test_in_eval_mode_an_image_does_not_depend_on_its_batch():
    """Four images at once, and two by two."""
    model, x = tiny(LadderVAE)
    eps = noise(model, B)

    def elbo(some):
        with torch.no_grad():
            return float(model.loss(x[some], eps[some])[1]["elbo"])

    def difference():
        return abs(elbo(slice(0, 4)) - (elbo(slice(0, 2)) + elbo(slice(2, 4))) / 2)

    assert difference() > 0.1, "in training it does"
    before = copy.deepcopy(settled(model, x).state_dict())
    assert difference() < ROUNDING
    for name, tensor in model.state_dict().items():
        assert_close(name, tensor, before[name], rtol=0, atol=0)


@both
def test_the_kl_gains_its_weight_in_training_and_has_it_in_eval_mode(kind):
    model, x = tiny(kind, warmup=0.4)
    for progress, weight in ((0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (0.9, 1.0)):
        model.progress.fill_(progress)
        loss, terms = model.training_loss(x, None, generator(3))
        want = weight * terms["kl"] - terms["log_likelihood"]
        assert_close(f"loss at {progress}", loss.detach(), want, rtol=1e-6, atol=0)      # progress may be float32
        assert_close("elbo", terms["elbo"], terms["log_likelihood"] - terms["kl"], rtol=1e-12, atol=0)
        assert not any(term.requires_grad for term in terms.values())
    model.progress.fill_(0.1)
    loss, terms = model.eval().training_loss(x, None, generator(3))
    assert_close("eval", loss.detach(), -terms["elbo"], rtol=1e-12, atol=0)


def test_units_that_follow_the_noise_of_their_parents_alone_are_not_active():
    """Layer 1 sees the image with three of its six latents; layer 2 looks at the others, then at these."""
    model, x = tiny(depth=2, spread=0.0)
    with torch.no_grad():
        model.encoder.mu.weight[3:] = 0
        model.encoder.logvar.weight[3:] = 0
        model.encoder.mu.weight[:3] *= 30
        hidden = model.posteriors[0].hidden.weight
        hidden[:, :3] = 0
        assert model.active_units(x, generator()) == [3, 0]
        assert model.active_units(x, generator(), draws=1)[1] > 0, "one draw would not tell"
        hidden[:, :3] = 1
        model.posteriors[0].mu.weight[1:] = 0
        assert model.active_units(x, generator()) == [3, 1]


# ---- with the trainer --------------------------------------------------------------------------------------------------


@both
def test_training_in_two_parts_equals_one_run(kind, tmp_path):
    """Batch norm's statistics and the warm-up, too."""
    rng = np.random.default_rng(5)
    x = torch.from_numpy((rng.random((53, D)) < rng.random((53, 1))).astype(np.float64))
    images, plan, checkpoint = Images(x, x[:11]), Plan(epochs=5, batch_size=20, lr=0.01), tmp_path / "checkpoint.npz"
    whole = tiny(kind, warmup=0.8)[0]
    start = copy.deepcopy(whole.state_dict())
    rows = train(whole, images, plan)

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    stopped = tiny(kind, warmup=0.8)[0]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(train_paper.time, "perf_counter", iter(range(0, 10**6, 10)).__next__)      # a checkpoint each epoch
        train(stopped, images, plan, checkpoint, stop)
    model = tiny(kind, spread=0.9, warmup=0.8)[0]                                       # all of it comes from the file
    resumed = train(model, images, plan, checkpoint)
    for one, other in zip(rows, resumed, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    for name, tensor in whole.state_dict().items():
        assert_close(name, model.state_dict()[name], tensor, rtol=0, atol=0)
        assert (tensor - start[name]).abs().max() > 1e-3, f"{name} is not trained"
    with pytest.raises(InputError, match="warmup=0.8.*warmup=0.7"):
        train(tiny(kind, warmup=0.7)[0], images, plan, checkpoint)


@both
def test_a_saved_model_is_the_same_again(kind, tmp_path):
    model, x = tiny(kind, warmup=0.3, **({"path_only": True} if kind is HierarchicalVAE else {}))
    settled(model, x).save(tmp_path / "params.npz")
    loaded = kind.load(tmp_path / "params.npz").eval()
    eps = noise(model, 4, B)
    assert_close("log w", loaded.log_weights(x, eps).detach(), model.log_weights(x, eps).detach(), rtol=0, atol=0)
    assert loaded.settings == model.settings and (loaded.warmup, loaded.latents) == (0.3, [6, 3, 1])
    assert kind is LadderVAE or loaded.path_only


def test_a_model_begins_as_the_average_image():
    means = np.linspace(0.0, 0.9, D)
    for kind in KINDS.values():
        model = kind(CONFIG).draw_weights(np.random.default_rng(0), means)
        got = torch.sigmoid(model.decoder.logits.bias.detach())
        assert_close("pixels", got, np.clip(means, 0.001, 0.999), rtol=1e-5, atol=1e-6)          # float32


@pytest.mark.parametrize("wrong, complaint", [
    (lambda: HierarchicalVAE(CONFIG, depth=0), "depth is 0"),
    (lambda: LadderVAE(CONFIG, warmup=1.5), "warmup 1.5"),
    (lambda: HierarchicalVAE(VAEConfig("conv", (8, 8))), "arch is conv"),
    (lambda: HierarchicalVAE(replace(CONFIG, condition=3)), "condition 3"),
    (lambda: LadderVAE(replace(CONFIG, **GAUSSIAN)), "likelihood is gaussian"),
    (lambda: HierarchicalVAE(CONFIG).training_loss(torch.zeros(5, 8), None, generator()), "x has shape"),
    (lambda: LadderVAE(CONFIG).log_weights(torch.zeros(5, 7), torch.zeros(5, 6)), r"eps has shape .* 5, 9\)"),
])
def test_what_cannot_be_is_one_line(wrong, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        wrong()
    assert "\n" not in str(error.value)


# ---- the experiment ----------------------------------------------------------------------------------------------------


def test_the_experiment_measures_every_layer_on_images_from_the_whole_test_set(tmp_path):
    rng = np.random.default_rng(5)
    gray = (rng.random((60, 20)) * rng.random((60, 1))).astype(np.float32)
    # the second half of the test set is white: a subset from the front would not see it
    test = np.concatenate([np.zeros((10, 20)), np.ones((10, 20))]).astype(np.float32)
    data = Dataset("tiny", (4, 5), gray, None, test)
    shares = []
    work = Work("cpu", tmp_path / "checkpoint.npz", lambda name: data, shares.append)
    arguments = hierarchy.parts(hierarchy.PRESETS["quick"])["ladder-2"].arguments
    found = hierarchy.train_and_measure(work, **arguments | {"samples": 50, "test_images": 4, "plan": {"epochs": 2}})
    assert found["images"] == 4 and found["latents"] == [16, 8] and len(found["active_units"]) == len(found["kl"]) == 2
    assert found["standard_error"] > 1, "black and white images differ by many nats"
    assert shares == sorted(shares) and shares[-1] == 1
    at_end = found["curve"][-1]["test"]
    assert found["elbo"] == at_end["elbo"] and abs(sum(found["kl"]) - at_end["kl"]) < 1e-4


EXPECTED = {"chain-1": {"depth": 1, "path_only": True}, "ladder-2": {"depth": 2, "warmup": 0.1},
            "normed-2": {"depth": 2, "path_only": True, "normed": True, "warmup": 0.1}}


@pytest.mark.parametrize("key, settings", EXPECTED.items())
def test_the_numbers_of_a_model_are_its_own_on_the_images_that_were_tested(key, settings, tmp_path, monkeypatch):
    """In eval mode, with as many samples as were asked for, of images from the whole test set; and layers lowest first."""
    rng, seen = np.random.default_rng(5), []
    halves = 0.05 + 0.9 * np.repeat(np.eye(2), (30, 30), axis=0).repeat(10, axis=1)[rng.permutation(60)]
    # the first half of the test set is one image: from it alone no latent would be active
    test = np.concatenate([np.arange(20) < np.full((12, 1), 10), rng.random((12, 20)) < halves[:12]]).astype(np.float32)
    data = Dataset("tiny", (4, 5), halves.astype(np.float32), None, test)
    monkeypatch.setattr(hierarchy, "train", lambda *arguments: seen.append(arguments) or train(*arguments))
    work = Work("cpu", tmp_path / "checkpoint.npz", lambda name: data, lambda share: None)
    arguments = hierarchy.parts(hierarchy.PRESETS["quick"])[key].arguments | {
        "samples": 1000, "test_images": 8, "plan": {"epochs": 15, "lr": 2e-2, "batch_size": 20},
        "network": {"hidden": 6, "latent": 4}}
    found = hierarchy.train_and_measure(work, **arguments)
    model, x = seen[0][0].eval(), torch.from_numpy(test[::3])
    assert isinstance(model, LadderVAE if "ladder" in key else HierarchicalVAE)
    assert {name: value for name, value in model.settings.items() if name in settings or value} == settings
    nats = log_p_by_importance_sampling(model, x, 1000, generator(EVAL_SEED), 2000, Hierarchy.log_weights,
                                        sum(model.latents)).double()
    assert_close("nll", found["nll"], -nats.mean(), rtol=1e-5, atol=0)                   # float32
    assert_close("standard error", found["standard_error"], nats.std() / math.sqrt(8), rtol=1e-5, atol=0)
    at_end = train_paper.evaluate(model, torch.from_numpy(test))
    assert found["kl"] == [at_end[f"kl_{t}"] for t in range(1, settings["depth"] + 1)] and found["elbo"] == at_end["elbo"]
    assert found["active_units"] == model.active_units(x, generator(9)) and sum(found["active_units"]) > 0
    assert abs(found["elbo"] + found["nll"]) > 0.05, "nothing to tell apart"


def test_one_layer_has_the_50_latents_of_burda_and_the_lowest_of_several_100():
    latents = {key: part.arguments["network"]["latent"] for key, part in hierarchy.parts(hierarchy.PRESETS["cpu"]).items()}
    assert latents == {key: 50 if key == "chain-1" else 100 for key in latents} and "chain-1" in latents


def test_the_bars_are_stacked_from_the_lowest_layer_up_and_rows_are_told_in_minutes(monkeypatch):
    parts = {}
    for key, kl in {"chain-1": [5.0], "ladder-2": [4.0, 3.0]}.items():
        curve = [{"epoch": epoch, "test": {"elbo": -90.0 - len(kl) - 1 / epoch}} for epoch in (1, 2)]
        parts[key] = {"result": {"nll": 85.0, "kl": kl, "elbo": -91, "curve": curve, "latents": [7] * len(kl), "images": 50,
                                 "active_units": [2] * len(kl), "training_seconds": 90, "image_shape": [2, 3],
                                 "draws": pack(np.zeros((36, 6)))}}
    results = {"settings": {"samples": 10, "data": "mnist"}, "parts": parts}
    left, right = figure_of(hierarchy.draw, results, monkeypatch).axes[:2]
    assert {line.get_label(): list(line.get_ydata()) for line in left.lines} == {
        "chain, 1 layer": [-92, -91.5], "ladder, 2 layers": [-93, -92.5]}
    bars = [(round(bar.get_x() + bar.get_width() / 2), bar.get_y(), bar.get_height()) for bar in right.patches]
    assert bars == [(0, 0, 5), (1, 0, 4), (1, 4, 3)]
    told = [ours for _, _, ours in hierarchy.rows(results)]
    assert told == ["85.00", "5.0; 2", "1.5", "85.00", "4.0 + 3.0; 2 + 2", "1.5"]
