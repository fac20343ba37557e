"""Full variational Bayes: both KL terms, the limit of certain weights, gradients, and the bound against log p(X) itself.

    pytest tests/test_full_vb.py

With six weights and one latent, log p(X), the log of the mean of prod_i p(x_i|theta) over the prior, can be computed: theta
by draws, z by quadrature. The bound has to stay below it, and would not without the weights' KL.
Letters: B images, N training images, D pixels, J latents, R draws.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from contract import MLP, Case
from oracles import assert_close, assert_gradients, figure_of
from torch.distributions import Normal, kl_divergence

from common.config import InputError, VAEConfig
from common.data import Dataset, load_dataset
from paper.estimators import estimator_b, log_p_by_quadrature, log_weight_prior
from paper.experiments import weight_uncertainty
from paper.full_vb import FullVB, expected_elbo, full_bound
from paper.images import Images
from paper.parts import Work
from paper.plan import Plan
from paper.train_paper import build, train
from paper.vae_paper import VAE

N = 37
ROUNDING = 1e-11            # float64, sums of a few hundred numbers of order 1
STANDARD_ERRORS = 5         # a right mean is off by more once in two million seeds, and these are fixed
CERTAIN = -2000.0           # a log-variance whose standard deviation, exp(-1000), is zero in float64, and its KL is finite
CONFIGS = {"bernoulli": MLP, "gaussian": replace(MLP, likelihood="gaussian"), "two layers": replace(MLP, layers=2)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(config=MLP, training_images=N, seed=0):
    """A model whose means and log-variances are away from their start, and a batch x (B, D)."""
    params, x, _ = Case(config, seed=seed).draw()
    model = FullVB(config, params, training_images)
    rng = np.random.default_rng(seed + 1)
    with torch.no_grad():
        for logvar in model.weight_logvar.parameters():
            logvar += 1.5 + 0.5 * torch.from_numpy(rng.standard_normal(logvar.shape))    # sd about 0.2, no two the same
    return model, torch.from_numpy(x)


def certain(model):
    """The model with variances of zero."""
    for logvar in model.weight_logvar.parameters():
        torch.nn.init.constant_(logvar, CERTAIN)
    return model


def vae_with(model, theta):
    """The plain VAE with the encoder of a model and the decoder's weights theta."""
    params = {name: tensor.numpy() for name, tensor in model.state_dict().items() if name.startswith("encoder.")}
    return VAE(model.config, params | {name: tensor.detach().numpy() for name, tensor in theta.items()})


def posterior(model):
    """q(theta) by torch.distributions, by name."""
    return {name: Normal(mu.detach(), torch.exp(0.5 * logvar.detach())) for name, mu, logvar in model.weight_posterior()}


# ---- the terms ---------------------------------------------------------------------------------------------------------


def test_the_kl_of_the_weights_is_that_of_torch_distributions_and_of_draws():
    model, _ = tiny()
    q, p, draws, random = posterior(model), Normal(torch.zeros((), dtype=torch.float64), 1.0), 1000, generator()
    assert set(q) == {name for name in model.state_dict() if name.startswith("decoder.")}
    want = sum(float(kl_divergence(each, p).sum()) for each in q.values())
    got = float(model.weight_kl().detach())
    assert abs(got - want) < ROUNDING * want, (got, want)
    ratios = []
    with torch.no_grad():
        for _ in range(draws):
            theta = model.draw_weights(random)
            ratios.append(float(sum((q[name].log_prob(theta[name]) - p.log_prob(theta[name])).sum() for name in q)))
    error = np.std(ratios) / math.sqrt(draws)
    assert abs(np.mean(ratios) - want) < STANDARD_ERRORS * error, (np.mean(ratios), error, want)
    assert STANDARD_ERRORS * error < 0.04 * want, "the draws say nothing"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_elbo_is_that_of_a_vae_with_the_drawn_weights(config):
    """Its KL of the latents against torch.distributions, too."""
    model, x = tiny(config)
    loss, terms = model.training_loss(x, None, generator(3))
    random = generator(3)
    eps = torch.randn(len(x), config.latent, generator=random, dtype=x.dtype)            # first the latents' noise
    theta = model.draw_weights(random)
    log_likelihood, kl = (term.detach() for term in vae_with(model, theta).elbo_terms(x, eps))
    mu, logvar = (each.detach() for each in model.encode(x))
    by_torch = kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(torch.zeros_like(mu), 1.0)).sum(dim=1)
    for name, want in (("elbo", log_likelihood - kl), ("kl", by_torch), ("log_likelihood", log_likelihood)):
        assert_close(name, terms[name], want.mean(), rtol=ROUNDING, atol=ROUNDING)
    assert_close("loss", loss.detach(), terms["weight_kl"] - terms["elbo"], rtol=ROUNDING, atol=ROUNDING)
    assert_close("weight_kl", terms["weight_kl"], model.weight_kl().detach() / N, rtol=ROUNDING, atol=0)
    assert not any(term.requires_grad for term in terms.values())


def test_the_training_size_divides_the_kl_of_the_weights_and_nothing_else():
    found = {}
    for size in (10, 1000):
        model, x = tiny(training_images=size)
        loss, terms = model.training_loss(x, None, generator(3))
        found[size] = float(loss.detach())
        assert_close("elbo", terms["elbo"], tiny()[0].training_loss(x, None, generator(3))[1]["elbo"], rtol=0, atol=0)
    kl = float(model.weight_kl().detach())
    assert kl > 10, "nothing to divide"
    assert abs(found[10] - found[1000] - kl * (1 / 10 - 1 / 1000)) < ROUNDING * kl


def test_weights_are_drawn_anew_at_each_step_from_their_posterior():
    model, _ = tiny()
    random, draws = generator(), 1000
    with torch.no_grad():
        thetas = [model.draw_weights(random) for _ in range(draws)]
    for name, q in posterior(model).items():
        zeta = torch.stack([(theta[name] - q.mean) / q.stddev for theta in thetas]).flatten(1)            # (R, weights)
        assert (zeta[0] != zeta[1]).all(), name
        assert zeta.mean(dim=0).abs().max() < STANDARD_ERRORS / math.sqrt(draws), name
        assert (zeta.var(dim=0) - 1).abs().max() < STANDARD_ERRORS * math.sqrt(2 / draws), name
        # two weights share no noise: correlations of independent draws have a standard error of 1 / sqrt(R)
        correlation = torch.corrcoef(zeta.T) - torch.eye(zeta.shape[1], dtype=zeta.dtype)
        assert correlation.abs().max() < STANDARD_ERRORS * 1.2 / math.sqrt(draws), name  # 1.2: there are hundreds of pairs


# ---- certain weights: plain AEVB ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_with_variances_of_zero_it_is_aevb_with_the_map_prior_on_the_decoder(config):
    """Bit for bit the ELBO of a VAE with the same noise and the encoder's gradient; to rounding MAP's for the decoder."""
    model, x = tiny(config)
    certain(model)
    vae = vae_with(model, {name: mu for name, mu, _ in model.weight_posterior()})
    loss, terms = model.training_loss(x, None, generator(3))
    plain, plain_terms = vae.training_loss(x, None, generator(3))
    assert {name: float(value) for name, value in terms.items() if name != "weight_kl"} == {
        name: float(value) for name, value in plain_terms.items()}
    loss.backward()
    (plain - log_weight_prior(vae.decoder) / N).backward()
    for (name, weight), other in zip(vae.named_parameters(), [*model.encoder.parameters(), *model.decoder.parameters()],
                                     strict=True):
        assert_close(name, other.grad, weight.grad, rtol=0, atol=0 if name.startswith("encoder.") else ROUNDING)
        assert weight.grad.abs().max() > 1e-3, f"{name}: nothing to compare"


# ---- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_gradients_are_those_of_central_differences(config):
    """Of encoder, means and log-variances, at one draw of all noise."""
    model, x = tiny(config)
    assert_gradients(model, lambda: model.training_loss(x, None, generator(3))[0])


# ---- the bound for the whole training set ------------------------------------------------------------------------------


def log_p_of_set(x, draws):
    """log p(X) of x (N, 2) under one hidden unit and one latent, weights and biases N(0, I); and its standard error."""
    theta = torch.randn(draws, 6, generator=generator(8), dtype=torch.float64)           # (R, 6)
    z = torch.linspace(-6, 6, 81, dtype=torch.float64)                                   # (G,), tanh and N(0, 1) are smooth
    h = torch.tanh(theta[:, :1] * z + theta[:, 1:2])                                     # (R, G)
    logits = h[..., None] * theta[:, None, 2:4] + theta[:, None, 4:]                     # (R, G, D)
    log_cell = Normal(0.0, 1.0).log_prob(z) + math.log(12 / 80)                          # (G,)
    log_p = 0.0
    for image in x:
        log_p = log_p + torch.logsumexp((image * logits - torch.log1p(torch.exp(logits))).sum(dim=2) + log_cell, dim=1)
    total = torch.logsumexp(log_p, dim=0)
    share = torch.exp(log_p - total) * draws                                             # (R,), a mean of 1
    return float(total) - math.log(draws), float(share.std()) / math.sqrt(draws)


def test_the_full_bound_stays_below_log_p_of_the_set_and_comes_near():
    """Trained, it is within 0.25 nats per image, what the mean field costs; the ELBO, without the weights' KL, is above."""
    x = torch.tensor([[1.0, 0.0]] * 4, dtype=torch.float64)
    config = VAEConfig("mlp", (1, 2), hidden=1, latent=1)
    params = Case(config).draw()[0]
    model, random = FullVB(config, params, len(x), initial_sd=0.5), generator()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(250):
        optimizer.zero_grad()
        model.training_loss(x, None, random)[0].backward()
        optimizer.step()
    log_p, error = log_p_of_set(x, 20_000)
    elbo = expected_elbo(model, x, 800, random)                                          # (R,)
    error = math.hypot(error / len(x), float(elbo.std()) / math.sqrt(len(elbo)))
    bound = float(full_bound(model, x, 800, random))
    assert STANDARD_ERRORS * error < 0.08, "the draws say nothing"
    assert log_p / len(x) - 0.25 < bound < log_p / len(x) + STANDARD_ERRORS * error, (bound, log_p / len(x), error)
    assert float(elbo.mean()) > log_p / len(x) + 0.2, "the weights' KL is little: leaving it out would go unseen"


@pytest.mark.parametrize("batch_size", [1000, 2], ids=["whole", "2 + 2 + 1 images"])
def test_expected_elbo_draws_weights_once_for_all_images_and_weights_parts_by_their_size(batch_size):
    """Draw by draw, with VAEs that hold the drawn weights: first the weights, then the latents' noise of each part."""
    model, x = tiny()
    got = expected_elbo(model, x, 3, generator(1), batch_size)
    assert got.shape == (3,) and not got.requires_grad
    random = generator(1)
    for draw in range(3):
        vae = vae_with(model, model.draw_weights(random))
        eps = [torch.randn(len(part), MLP.latent, generator=random, dtype=x.dtype) for part in x.split(batch_size)]
        log_likelihood, kl = vae.elbo_terms(x, torch.cat(eps))
        elbo = (log_likelihood - kl).detach()                                            # (B,)
        assert_close(f"draw {draw}", got[draw], elbo.mean(), rtol=ROUNDING, atol=0)
        assert elbo.std() > 0.1, "all images alike: a wrong weight of a part would go unseen"


# ---- with the trainer --------------------------------------------------------------------------------------------------


def images_of(count=53):
    rng = np.random.default_rng(5)
    x = torch.from_numpy((rng.random((count, 7)) < rng.random((count, 1))).astype(np.float64))
    return Images(x, x[:11])


def test_training_in_two_parts_equals_one_run(tmp_path):
    images, params = images_of(), Case(MLP).draw()[0]
    plan, checkpoint = Plan(epochs=5, batch_size=20, lr=0.01), tmp_path / "checkpoint.npz"
    whole, parts = FullVB(MLP, params, 53), FullVB(MLP, params, 53)
    rows = train(whole, images, plan)
    train(parts, images, replace(plan, epochs=2), checkpoint)
    parts = FullVB(MLP, Case(MLP, seed=4).draw()[0], 53, initial_sd=0.3)                 # all of it comes from the file
    resumed = train(parts, images, plan, checkpoint)
    for one, other in zip(rows, resumed, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    for name, tensor in whole.state_dict().items():
        assert_close(name, parts.state_dict()[name], tensor, rtol=0, atol=0)
        start = FullVB(MLP, params, 53).state_dict()[name]
        assert (tensor - start).abs().max() > 1e-3, f"{name} is not trained"
    with pytest.raises(InputError, match="training_images=53.*training_images=54"):
        train(FullVB(MLP, params, 54), images, plan, checkpoint)


def test_the_mean_weights_are_saved_as_a_vae(tmp_path):
    model, x = tiny()
    model.save(tmp_path / "params.npz")
    loaded = VAE.load(tmp_path / "params.npz")
    z = torch.randn(4, MLP.latent, generator=generator(), dtype=torch.float64)
    assert_close("logits", loaded.decode(z).detach(), model.decode(z).detach(), rtol=0, atol=0)
    assert_close("mu", loaded.encode(x)[0].detach(), model.encode(x)[0].detach(), rtol=0, atol=0)
    with pytest.raises(InputError, match="VAE.load"):
        FullVB.load(tmp_path / "params.npz")


@pytest.mark.parametrize("wrong, complaint", [
    (lambda: FullVB(MLP, None, 0), "training_images is 0"),
    (lambda: FullVB(MLP, None, 5, initial_sd=0.0), "initial_sd is 0.0"),
    (lambda: FullVB(MLP, None, 5, initial_sd=math.nan), "initial_sd is nan"),
    (lambda: expected_elbo(FullVB(MLP, None, 5), torch.zeros(5, 7), 0, generator()), "draws is 0"),
    (lambda: full_bound(FullVB(MLP, None, 5), torch.zeros(4, 7), 1, generator()), "all 5 training images.* has 4"),
    (lambda: FullVB(MLP, None, 5).training_loss(torch.zeros(5, 8), None, generator()), "x has shape"),
])
def test_what_cannot_be_is_one_line(wrong, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        wrong()
    assert "\n" not in str(error.value)


# ---- the experiment ----------------------------------------------------------------------------------------------------


def test_smaller_training_sets_are_parts_of_the_larger_ones():
    digits = load_dataset("digits")
    small, large = (weight_uncertainty.subset(digits, size) for size in (10, 40))
    assert (small.x_train == large.x_train[:10]).all() and (small.y_train == large.y_train[:10]).all()
    for image, label in zip(large.x_train, large.y_train, strict=True):
        assert label in digits.y_train[(digits.x_train == image).all(axis=1)]            # an image keeps its label
    assert len(np.unique(large.y_train)) > 5 and small.x_test is digits.x_test and small.x_valid is None


def test_a_fitted_posterior_comes_near_log_p_and_leaves_the_model_alone():
    """One latent and the encoder as drawn: the gap to quadrature, large before, is small after; it stays a bound."""
    config = replace(MLP, latent=1)
    params, x, _ = Case(config, batch=20, scale=2.0).draw()
    model, x = VAE(config, params), torch.from_numpy(x)
    log_p = float(log_p_by_quadrature(model, x).mean())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    encoded = weight_uncertainty.mean_elbo(model, x, 200, generator())
    fitted = weight_uncertainty.fitted(model, x, 200, 200, generator())
    # a mean over 200 draws and 20 images has an error of about 1 / sqrt(4000) = 0.016
    assert encoded < log_p - 2 and log_p - 0.3 < fitted < log_p + 0.08, (encoded, fitted, log_p)
    for name, tensor in model.state_dict().items():
        assert (tensor == before[name]).all() and model.get_parameter(name).requires_grad, name


def test_the_experiment_begins_all_methods_alike_and_measures_the_weights_of_one():
    images = Images.of(weight_uncertainty.subset(load_dataset("digits"), 20), "static")
    config = VAEConfig(image_shape=(8, 8), hidden=5, latent=2)
    vae, full = build("vae", config, images), build("full-vb", config, images)
    for name, tensor in vae.state_dict().items():
        assert (full.state_dict()[name] == tensor).all(), name
    found = weight_uncertainty.measured(full, images, draws=40, fit_images=5, fit_steps=3)
    assert full.training_images == 20 and set(weight_uncertainty.measured(vae, images, 2, 5, 3)) < set(found)
    assert found["test"] != found["test_at_mean_weights"]
    # the two training bounds come from different draws: 40 of weights with an sd of 0.1 agree to about a nat
    assert abs(found["full_bound"] + found["weight_kl"] - found["train"]) < 2
    assert found["weight_kl"] > 10


def two_sets():
    """Images of seven pixels, 30 to train, and 20 to test that are darker, as the network that Case draws takes them."""
    rng = np.random.default_rng(2)
    train, test = (torch.from_numpy((rng.random((count, 7)) < share).astype(np.float64)) for count, share in
                   ((30, 0.9), (20, 0.2)))
    return Images(train, test)


def test_what_is_measured_of_a_vae_is_of_the_set_of_its_name():
    """Beside 2,000 draws of estimator B for the bounds, and quadrature for the bound whose posteriors are fitted."""
    config, images = replace(MLP, latent=1), two_sets()
    model = VAE(config, Case(config, scale=2.0).draw()[0])
    found = weight_uncertainty.measured(model, images, draws=200, fit_images=10, fit_steps=100)
    for name, x in (("train", images.x_train), ("test", images.x_test)):
        bounds = estimator_b(model, x, torch.randn(2000, len(x), 1, generator=generator(1), dtype=x.dtype)).detach()
        # 200 draws of 20 images or more, log-likelihoods whose standard deviation is below 1.5
        assert_close(name, found[name], bounds.mean(), rtol=0, atol=STANDARD_ERRORS * 1.5 / math.sqrt(4000))
    log_p = float(log_p_by_quadrature(model, images.x_test[:10]).mean())
    # 200 draws of 10 images: an error of 1 / sqrt(2000) = 0.02; the posterior of one latent is nearly Gaussian
    assert log_p - 0.3 < found["fitted"] < log_p + 0.1 and found["test"] < log_p - 0.6, (found, log_p)
    assert abs(float(log_p_by_quadrature(model, images.x_train[:10]).mean()) - log_p) > 0.6
    assert found["test_images"] == 20


def test_the_mean_weights_are_measured_without_the_noise_of_weights_and_their_kl_is_told_per_image():
    config, images = replace(MLP, latent=1), two_sets()
    model = FullVB(config, Case(config, scale=2.0).draw()[0], 30, initial_sd=0.7)
    found = weight_uncertainty.measured(model, images, draws=200, fit_images=10, fit_steps=100)
    assert_close("weights", found["weight_kl"], model.weight_kl().detach() / 30, rtol=ROUNDING, atol=0)
    # the training bound less that KL; 200 draws of weights, and how far single draws are apart
    error = float(expected_elbo(model, images.x_train, 200, generator(1)).std()) / math.sqrt(100)
    want = found["train"] - found["weight_kl"]
    assert_close("full bound", found["full_bound"], want, rtol=0, atol=STANDARD_ERRORS * error)
    log_p = float(log_p_by_quadrature(VAE(config, model.mean_params()), images.x_test[:10]).mean())
    assert log_p - 0.3 < found["fitted_at_mean_weights"] < log_p + 0.1, (found, log_p)
    assert found["fitted"] < log_p - 0.6, "the weights' noise costs nothing: nothing to tell apart"


def test_a_mean_over_unequal_parts_weighs_images_alike():
    """1,000 images and one that the model finds far less likely: its weight is 1 / 1001, not 1 / 2."""
    model, x = VAE(MLP, Case(MLP).draw()[0]), torch.zeros(1001, 7, dtype=torch.float64)
    x[-1] = 1
    with torch.no_grad():
        model.decoder.logits.bias -= 3
    each = [estimator_b(model, image[None], torch.randn(4000, 1, MLP.latent, generator=generator(), dtype=x.dtype)).item()
            for image in (x[0], x[-1])]
    assert each[0] - each[1] > 5
    # 8,000 draws in one mean, and 4,000 in the other, of log-likelihoods whose standard deviation is below 1.6
    assert_close("mean", weight_uncertainty.mean_elbo(model, x, 8, generator()), (1000 * each[0] + each[1]) / 1001,
                 rtol=0, atol=STANDARD_ERRORS * 1.6 * math.sqrt(1 / 8000 + 1 / 4000))


@pytest.mark.parametrize("method", weight_uncertainty.METHODS)
def test_each_method_is_trained_with_its_prior_until_it_saw_the_samples(method, tmp_path, monkeypatch):
    """Trained again by hand, on images binarized once; MAP has the smaller weights."""
    rng, models = np.random.default_rng(3), {}
    gray = rng.random((50, 6)).astype(np.float32)
    data = Dataset("tiny", (2, 3), gray, None, gray[:8], np.arange(50))
    monkeypatch.setattr(weight_uncertainty, "train",
                        lambda model, *rest: models.setdefault("ours", model) and train(model, *rest))
    work = Work("cpu", tmp_path / "checkpoint.npz", lambda name: data, lambda share: None)
    found = weight_uncertainty.train_and_measure(
        work, method, 20, "tiny", {"hidden": 5, "latent": 2}, {"batch_size": 10, "lr": 1e-2}, 390,
        {"draws": 2, "curve_images": 4, "fit_images": 3, "fit_steps": 2})
    config = VAEConfig(image_shape=(2, 3), hidden=5, latent=2)
    images = Images.of(weight_uncertainty.subset(data, 20), "static")
    again = {prior: build("full-vb" if method == "full-vb" else "vae", config, images) for prior in (False, True)}
    for prior, model in again.items():
        train(model, images, Plan(epochs=20, batch_size=10, lr=1e-2, weight_prior=prior and method != "full-vb"))
    for name, tensor in again[method == "map"].state_dict().items():
        assert_close(name, models["ours"].state_dict()[name], tensor, rtol=0, atol=0)
    if method == "map":
        assert all((again[True].get_parameter(name) ** 2).sum() < (again[False].get_parameter(name) ** 2).sum()
                   for name in ("encoder.hidden.weight", "decoder.hidden.weight"))
    assert found["samples"] == list(range(20, 401, 20)) and len(found["curve"]) == 20


def test_the_table_and_the_lines_are_those_of_their_names(monkeypatch):
    names = ("train", "test", "fitted", "full_bound", "weight_kl", "test_at_mean_weights", "fitted_at_mean_weights")
    parts, sizes = {}, [100, 300]
    for i, method in enumerate(weight_uncertainty.METHODS):
        for size in sizes:
            start = -size - 10 * i
            parts[f"{method}-{size}"] = {"result": {name: start - j for j, name in enumerate(names)} | {
                "test_images": 50, "samples": [1, 2, 3], "curve": [start - 0.5, start + 0.5, start]}}
    settings = {"data": "mnist", "sizes": sizes, "measure": {"curve_images": 20, "fit_images": 10}}
    told = [ours for _, _, ours in weight_uncertainty.rows({"settings": settings, "parts": parts})]
    assert told[:5] == ["-101.0 / -111.0 / -121.0", "-100.0 / -110.0 / -120.0", "-99.5 / -109.5 / -119.5",
                        "-102.0 / -112.0 / -122.0", "-123.0 / -124.0 / -125.0"]
    assert len(told) == 10 and told[5] == "-301.0 / -311.0 / -321.0"

    figure = figure_of(weight_uncertainty.draw, {"settings": settings, "parts": parts}, monkeypatch)
    found = [{line.get_label(): list(line.get_ydata()) for line in axes.lines} for axes in figure.axes]
    for i, words in enumerate(weight_uncertainty.METHODS.values()):
        few, many = -100 - 10 * i, -300 - 10 * i
        assert found[0][f"{words}: train"] == [few, many] and found[0][f"{words}: test"] == [few - 1, many - 1]
        assert found[1][f"{words}, N = 300"] == [many - 0.5, many + 0.5, many] and found[2][words] == [few - 2, many - 2]
    assert found[0]["Full VB: full bound / N"] == [-123, -323] and found[2]["Full VB, at the mean weights"] == [-126, -326]
