"""Missing quadrants: their geometry, the KL of two Gaussians, the bound, log p(x_mis|x_obs), predictions, the experiment.

    pytest tests/test_quadrants.py

With one latent, p(x_mis|x_obs) is an integral over a line, and quadrature has it: the bound stays below, and both
estimators come to it. What public code gets wrong is planted, and the checks fail on it.
Letters: B images, D pixels, O observed, M missing, J latents, L draws.
"""

import json
import math

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from oracles import assert_close, assert_gradients, bernoulli_log_likelihood
from scipy.integrate import quad
from scipy.stats import norm
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F

from common.config import InputError, VAEConfig
from common.data import load_dataset
from paper import quadrant_vae
from paper.estimators import log_p_by_importance_sampling
from paper.experiments import quadrants as experiment
from paper.images import Images
from paper.packed import unpack
from paper.parts import Part, run_parts
from paper.plan import Plan
from paper.quadrant_vae import (
    QuadrantNetwork,
    QuadrantVAE,
    log_weights,
    log_weights_of_predictions,
    observed_pixels,
)
from paper.train_paper import evaluate, train
from paper.vae_paper import VAE, kl_of_gaussians

ROUNDING = 1e-11            # float64, sums of a few hundred numbers of order 1
STANDARD_ERRORS = 5         # a right mean is off by more once in two million seeds, and these are fixed
CONFIG = VAEConfig(image_shape=(4, 3), hidden=5, latent=2)               # the right half has 2 columns, the left 1
KINDS = {"network": QuadrantNetwork, "cvae": QuadrantVAE}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(kind=QuadrantVAE, quadrants=1, config=CONFIG, batch=7):
    """A model in float64 with all weights and biases away from zero, and binary images x (B, D)."""
    rng = np.random.default_rng(quadrants)
    model = kind(config, quadrants).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.from_numpy(0.6 * rng.standard_normal(tuple(weight.shape))))
    return model, torch.from_numpy((rng.random((batch, config.pixels)) < 0.5).astype(np.float64))


def noise(model, x, *leading, seed=3):
    return torch.randn(*leading, len(x), model.config.latent, generator=generator(seed), dtype=x.dtype)


# ---- geometry ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quadrants, page", [
    (0, "...... ...... ...... ......"),
    (1, "...... ...... ooo... ooo..."),
    (2, "ooo... ooo... ooo... ooo..."),
    (3, "oooooo oooooo ooo... ooo..."),
])
def test_quadrants_of_a_4_x_6_image_are_uncovered_from_the_lower_left_on(quadrants, page):
    want = np.array([letter == "o" for letter in page.replace(" ", "")])
    assert np.array_equal(observed_pixels((4, 6), quadrants), want)
    if quadrants:
        model = QuadrantVAE(VAEConfig(image_shape=(4, 6), hidden=3, latent=2), quadrants)
        assert model.observed.tolist() == np.flatnonzero(want).tolist()
        assert model.missing.tolist() == np.flatnonzero(~want).tolist()


def test_the_larger_half_of_an_odd_side_is_below_and_right():
    assert observed_pixels((5, 3), 1).reshape(5, 3).tolist() == [[False] * 3] * 2 + [[True, False, False]] * 3


# ---- the KL of two Gaussians -------------------------------------------------------------------------------------------


def kl_to_the_standard_normal(mu, logvar, prior_mu, prior_logvar):
    """Wrong answer: the VAE's KL, as if there were no prior network."""
    return kl_of_gaussians(mu, logvar, torch.zeros_like(mu), torch.zeros_like(mu))


def kl_swapped(mu, logvar, prior_mu, prior_logvar):
    """Wrong answer: KL(p || q)."""
    return kl_of_gaussians(prior_mu, prior_logvar, mu, logvar)


def check_kl(kl):
    """`kl` against torch.distributions and against the integral of q log(q / p)."""
    gaussians = torch.randn(4, 3, 2, generator=generator(), dtype=torch.float64)         # 4 numbers of (3, 2) KLs
    mu, logvar, prior_mu, prior_logvar = gaussians
    got = kl(mu, logvar, prior_mu, prior_logvar)
    q, p = Normal(mu, torch.exp(0.5 * logvar)), Normal(prior_mu, torch.exp(0.5 * prior_logvar))
    assert_close("KL", got, kl_divergence(q, p), rtol=ROUNDING, atol=ROUNDING)
    for (m, v, pm, pv), value in zip(gaussians.reshape(4, -1).T.tolist(), got.flatten().tolist(), strict=True):
        a, b = norm(m, math.exp(v / 2)), norm(pm, math.exp(pv / 2))
        reach = 12 * math.exp(v / 2)                                     # beyond it q has less than 1e-32
        numeric, _ = quad(lambda z, a=a, b=b: a.pdf(z) * (a.logpdf(z) - b.logpdf(z)), m - reach, m + reach, epsabs=1e-11)
        assert abs(numeric - value) < 1e-9, (numeric, value)


def test_the_kl_is_that_of_torch_distributions_and_of_the_integral():
    check_kl(kl_of_gaussians)


@pytest.mark.parametrize("wrong", [kl_to_the_standard_normal, kl_swapped])
def test_a_wrong_kl_is_noticed(wrong):
    with pytest.raises(AssertionError, match="KL"):
        check_kl(wrong)


def test_the_kl_of_equals_is_zero_and_near_them_never_negative():
    mu, logvar = torch.randn(2, 1000, generator=generator())             # float32
    assert (kl_of_gaussians(mu, logvar, mu, logvar) == 0).all()
    near = kl_of_gaussians(mu, logvar, mu, logvar + 1e-4 * torch.randn(1000, generator=generator(1)))
    assert (near >= 0).all() and near.max() < 1e-6


# ---- the bound ---------------------------------------------------------------------------------------------------------


def by_hand(model, x, eps):
    """The bound's two terms of every image, loops over pixels and distributions of torch: (B,), (B,)."""
    observed = observed_pixels(model.config.image_shape, model.settings["quadrants"])

    def dense(layer, inputs):
        return F.linear(inputs, layer.weight, layer.bias)

    def network(sequence, inputs):
        return torch.relu(dense(sequence[2], torch.relu(dense(sequence[0], inputs))))

    def gaussian(part, inputs):
        h = network(part.hidden, inputs)
        return Normal(dense(part.mu, h), torch.exp(dense(part.logvar, h) / 2))

    with torch.no_grad():
        q, p = gaussian(model.recognition, x), gaussian(model.prior, x[:, observed])
        z = q.mean + q.stddev * eps
        logits = dense(model.logits, network(model.hidden, torch.cat([z, x[:, observed]], dim=1)))
    return bernoulli_log_likelihood(logits.numpy(), x[:, ~observed].numpy()), kl_divergence(q, p).sum(dim=1).numpy()


def check_terms(kind, quadrants):
    model, x = tiny(kind, quadrants)
    log_likelihood, kl = by_hand(model, x, noise(model, x))
    loss, terms = model.training_loss(x, None, generator(3))
    for name, want in (("log_likelihood", log_likelihood), ("kl", kl), ("elbo", log_likelihood - kl)):
        assert_close(name, terms[name], want.mean(), rtol=ROUNDING, atol=ROUNDING)
    assert_close("loss", loss.detach(), (kl - log_likelihood).mean(), rtol=ROUNDING, atol=ROUNDING)
    assert not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize("quadrants", [1, 2, 3])
def test_the_bound_is_that_of_the_three_networks_by_hand(quadrants):
    check_terms(QuadrantVAE, quadrants)


@pytest.mark.parametrize("kl", [kl_to_the_standard_normal, kl_swapped])
def test_a_bound_with_a_wrong_kl_is_noticed(kl, monkeypatch):
    monkeypatch.setattr(quadrant_vae, "kl_of_gaussians", kl)
    with pytest.raises(AssertionError, match="^kl"):
        check_terms(QuadrantVAE, 1)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # the prior network has no input
def test_with_nothing_observed_and_a_prior_network_that_says_0_0_it_is_the_vae():
    model, x = tiny(quadrants=0)
    for head in (model.prior.mu, model.prior.logvar):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    vae = VAE(CONFIG).double()
    vae.encoder, vae.decoder = model.recognition, torch.nn.Sequential(model.hidden, model.logits)
    losses = {}
    for kind in (model, vae):
        model.zero_grad()
        loss, terms = kind.training_loss(x, None, generator(3))
        loss.backward()
        losses[kind] = {"loss": loss.detach(), **terms} | {
            name: weight.grad.clone() for name, weight in model.named_parameters() if not name.startswith("prior.")}
    assert losses[model].keys() == losses[vae].keys()
    for name, value in losses[vae].items():
        assert_close(name, losses[model][name], value, rtol=ROUNDING, atol=ROUNDING)
    assert losses[vae]["kl"] > 0.1, "no KL to compare"


# ---- only missing pixels count -----------------------------------------------------------------------------------------


class ObservedCounted(QuadrantVAE):
    """Wrong answer: the likelihood of the whole image, though most of it was given."""

    def log_likelihood(self, x, logits):
        whole = torch.zeros(*logits.shape[:-1], x.shape[1], dtype=x.dtype)
        whole[..., self.missing] = logits
        return (x * whole - F.softplus(whole)).sum(dim=-1)


def check_targets(kind, quadrants=2):
    """With the logits as they are, another target counts where pixels are missing, and nowhere else."""
    model, x = tiny(kind, quadrants)
    logits = torch.randn(len(x), len(model.missing), generator=generator(), dtype=x.dtype)
    base = model.log_likelihood(x, logits)
    want = np.zeros(CONFIG.pixels)
    for place, pixel in enumerate(model.missing.tolist()):
        want[pixel] = (1 - 2 * x[0, pixel]) * logits[0, place]           # x l: the pixel turns over
    for pixel in range(CONFIG.pixels):
        other = x.clone()
        other[:, pixel] = 1 - x[:, pixel]
        change = (model.log_likelihood(other, logits) - base)[0]
        assert_close(f"pixel {pixel}", change, want[pixel], rtol=ROUNDING, atol=ROUNDING)
    sure = 30.0 * (2 * x[:, model.missing] - 1)                          # all right: what is left is what counts besides
    assert_close("a sure prediction", model.log_likelihood(x, sure), np.zeros(len(x)), rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_targets_are_the_missing_pixels_alone(kind):
    check_targets(kind)


def test_observed_pixels_that_are_counted_are_noticed():
    with pytest.raises(AssertionError):
        check_targets(ObservedCounted)
    with pytest.raises(AssertionError, match="log_likelihood"):
        check_terms(ObservedCounted, 2)


# ---- predictions -------------------------------------------------------------------------------------------------------


class FromTheRecognitionNetwork(QuadrantVAE):
    """Wrong answer: z from q(z|x), which has seen what is to be predicted."""

    def completions(self, x, eps):
        return self.complete(x, self.decode(self.reparameterize(*self.encode(x), eps), x))


def check_predictions(kind, quadrants):
    """What lies in the missing pixels is not read: z is a draw from p(z|x_obs), the rest the mean of p(x_mis|z, x_obs)."""
    model, x = tiny(kind, quadrants)
    eps, other = noise(model, x, 4), x.clone()                           # (L, B, J)
    other[:, model.missing] = 1 - x[:, model.missing]
    with torch.no_grad():
        images, again = model.completions(x, eps), model.completions(other, eps)         # (L, B, D)
        mu, logvar = model.prior(x[:, model.observed])
        z = mu + torch.exp(logvar / 2) * eps
        inputs = torch.cat([z, x[:, model.observed].expand(4, -1, -1)], dim=2)
        mean = torch.sigmoid(model.logits(model.hidden(inputs)))
    assert_close("missing", images[..., model.missing], mean, rtol=ROUNDING, atol=ROUNDING)
    assert_close("observed", images[..., model.observed], x[:, model.observed].expand(4, -1, -1), rtol=0, atol=0)
    assert_close("with other missing pixels", again, images, rtol=0, atol=0)
    assert images.std(dim=0)[:, model.missing].min() > 1e-3, "all draws alike"


@pytest.mark.parametrize("quadrants", [1, 2, 3])
def test_a_prediction_reads_the_observed_pixels_only(quadrants):
    check_predictions(QuadrantVAE, quadrants)
    model, x = tiny(QuadrantNetwork, quadrants)
    other = x.clone()
    other[:, model.missing] = 1 - x[:, model.missing]
    assert_close("network", model.predict(other).detach(), model.predict(x).detach(), rtol=0, atol=0)
    other[:, model.observed] = 1 - x[:, model.observed]
    assert (model.predict(other) - model.predict(x)).abs().min() > 1e-6, "the observed pixels are not read"


def test_z_from_the_recognition_network_called_a_prediction_is_noticed():
    with pytest.raises(AssertionError, match="missing"):
        check_predictions(FromTheRecognitionNetwork, 1)


# ---- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_gradients_are_those_of_central_differences(kind):
    model, x = tiny(kind, quadrants=2)
    assert_gradients(model, lambda: model.training_loss(x, None, generator(3))[0])


# ---- log p(x_mis|x_obs) ------------------------------------------------------------------------------------------------


LINE = VAEConfig(image_shape=(2, 3), hidden=4, latent=1)


def tiny_on_a_line(quadrants):
    """As `tiny`, with one latent and a q(z|x) that is wider than p(z|x_obs): no importance weight is far above the others,
    so that the spread of a few thousand of them is their standard error."""
    model, x = tiny(QuadrantVAE, quadrants, LINE)
    with torch.no_grad():
        torch.nn.init.zeros_(model.recognition.logvar.weight)
        model.recognition.logvar.bias.fill_(model.encode_observed(x)[1].max() + 1)
    return model, x


def log_p_on_a_line(model, x):
    """log of the integral of p(z|x_obs) p(x_mis|z, x_obs) over z, by the trapezoidal rule: (B, D) -> (B,)."""
    with torch.no_grad():
        mu, logvar = model.encode_observed(x)                            # (B, 1)
        steps = torch.linspace(-9, 9, 2001, dtype=x.dtype)[:, None, None]                # standard deviations, (G, 1, 1)
        logits = model.decode(mu + torch.exp(logvar / 2) * steps, x)                     # (G, B, M)
        log_p = Bernoulli(logits=logits).log_prob(x[:, model.missing]).sum(dim=-1)       # (G, B)
    return torch.logsumexp(log_p + Normal(0.0, 1.0).log_prob(steps[..., 0]), dim=0) + math.log(18 / 2000)


def check_log_p(weights, quadrants, draws=10_000):
    """The estimate of every image is as near to quadrature's as its standard error allows."""
    model, x = tiny_on_a_line(quadrants)
    want = log_p_on_a_line(model, x)
    with torch.no_grad():
        w = torch.exp(weights(model, x, noise(model, x, draws)) - want)                  # (L, B), a mean of 1
    error = w.std(dim=0) / math.sqrt(draws)
    assert error.max() < 0.03, "the draws say nothing"
    off = float(((w.mean(dim=0) - 1) / error).abs().max())
    assert off < STANDARD_ERRORS, f"log p is off by {off:.1f} standard errors"
    found = log_p_by_importance_sampling(model, x, draws, generator(3), rows=10**6, weigh=weights)
    assert_close("log p", found, want + torch.log(w.mean(dim=0)), rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("weights", [log_weights, log_weights_of_predictions])
@pytest.mark.parametrize("quadrants", [1, 2, 3])
def test_both_estimators_come_to_the_integral_over_z(weights, quadrants):
    check_log_p(weights, quadrants)


def with_the_standard_normal(model, x, eps):
    """Wrong answer: log p(z) of N(0, I) in the importance weight, where p(z|x_obs) belongs."""
    mu, logvar = model.encode_observed(x)
    z = model.reparameterize(*model.encode(x), eps)
    both = (Normal(m, s).log_prob(z).sum(dim=-1) for m, s in ((0.0, 1.0), (mu, torch.exp(0.5 * logvar))))
    return log_weights(model, x, eps) + next(both) - next(both)


def predictions_from_q(model, x, eps):
    """Wrong answer: p(x_mis|z, x_obs) at z from q(z|x), called the Monte Carlo estimate of a prediction."""
    return model.log_likelihood(x, model.decode(model.reparameterize(*model.encode(x), eps), x))


@pytest.mark.parametrize("wrong", [with_the_standard_normal, predictions_from_q])
def test_a_wrong_importance_weight_is_noticed(wrong):
    with pytest.raises(AssertionError, match="log p is off"):
        check_log_p(wrong, quadrants=2)


def test_the_bound_is_below_log_p():
    model, x = tiny_on_a_line(2)
    many = x.repeat(2000, 1)                                             # (L * B, D)
    with torch.no_grad():
        bounds = torch.subtract(*model.elbo_terms(many, noise(model, many))).reshape(2000, -1)     # (L, B)
    error = bounds.std(dim=0) / math.sqrt(len(bounds))
    want = log_p_on_a_line(model, x)
    assert (bounds.mean(dim=0) < want + STANDARD_ERRORS * error).all()
    assert (want - bounds.mean(dim=0)).max() > 0.1 and error.max() < 0.1, "nothing to tell apart"


# ---- with the trainer, and in a file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_model_begins_as_the_average_image_learns_and_comes_back_from_its_file(kind, tmp_path):
    images = Images.of(load_dataset("digits"), "static")
    config = VAEConfig(image_shape=(8, 8), hidden=20, latent=3)
    model = kind(config, 2).draw_weights(np.random.default_rng(0), images.x_train.mean(dim=0).numpy())
    means = images.x_train.mean(dim=0)[model.missing].clamp(0.001, 0.999)
    assert_close("bias", torch.sigmoid(model.logits.bias.detach()), means, rtol=1e-5, atol=0)      # float32
    before = evaluate(model, images.x_test)["loss"]
    rows = train(model, images, Plan(epochs=8, lr=1e-2))
    assert rows[-1]["test"]["loss"] < before - 1, (before, rows[-1])
    model.save(tmp_path / "params.npz")
    loaded = kind.load(tmp_path / "params.npz")
    got, want = (each.training_loss(images.x_test, None, generator())[0].detach() for each in (loaded, model))
    assert loaded.settings == {"quadrants": 2} and got == want


@pytest.mark.parametrize("wrong, complaint", [
    (lambda: observed_pixels((4, 4), 4), "quadrants is 4"),
    (lambda: observed_pixels((1, 7), 1), "1 x 7 pixels has no quadrants"),
    (lambda: QuadrantVAE(CONFIG, -1), "quadrants is -1"),
    (lambda: QuadrantNetwork(VAEConfig(image_shape=(4, 4), likelihood="gaussian"), 1), "likelihood is gaussian"),
    (lambda: tiny(QuadrantNetwork)[0].training_loss(torch.zeros(2, 9), None, generator()), "x has shape"),
    (lambda: tiny()[0].training_loss(torch.zeros(2, 9), None, generator()), "x has shape"),
    (lambda: tiny()[0].elbo_terms(torch.zeros(3, 12), torch.zeros(1, 2)), "eps has shape"),
    (lambda: tiny()[0].completions(torch.zeros(3, 12), torch.zeros(3, 2)), "eps has shape"),
    (lambda: log_weights(tiny()[0], torch.zeros(3, 12), torch.zeros(4, 1, 2)), "eps has shape"),
    (lambda: log_weights_of_predictions(tiny()[0], torch.zeros(3, 9), torch.zeros(4, 3, 2)), "x has shape"),
])
def test_what_cannot_be_is_one_line(wrong, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        wrong()
    assert "\n" not in str(error.value)


# ---- the experiment ----------------------------------------------------------------------------------------------------


def test_the_presets_are_twelve_runs_with_two_layers_of_500_and_a_validation_part():
    for preset in ("cpu", "gpu"):
        settings = experiment.PRESETS[preset]
        parts = experiment.parts(settings)
        assert len(parts) == 12 and settings["config"]["hidden"] == 500
        for key, part in parts.items():
            pixels, quadrants, kind = key.split("-")
            told = part.arguments
            assert (told["pixels"], str(told["quadrants"]), told["kind"]) == (pixels, quadrants, kind)
            plan = Plan(**told["plan"])
            assert told["plan"] == settings["plans"][kind] and plan.patience > plan.epochs / plan.evaluate_every


def test_the_digits_that_are_shown_are_one_of_each_class():
    images = Images.of(load_dataset("digits"), "static")
    assert images.y_test[experiment.shown(images)].tolist() == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_run_measures_the_weights_with_the_best_validation_loss_and_keeps_them(tmp_path):
    plan = experiment.PRESETS["quick"]["plans"]["cvae"] | {"epochs": 30, "lr": 0.03}       # too large a step
    arguments = experiment.parts(experiment.PRESETS["quick"])["gray-2-cvae"].arguments | {"plan": plan}
    result = run_parts({"one": Part(experiment.train_and_measure, arguments)}, tmp_path)["one"]["result"]
    best = min(range(len(result["curve"])), key=lambda epoch: result["curve"][epoch]["valid"])
    assert best < len(result["curve"]) - 1, "the last weights are the best: nothing to tell"
    images = Images.of(load_dataset("digits"), "none")
    model = QuadrantVAE.load(tmp_path / "one.params.npz")
    for name, got in (("best epoch", result["curve"][best]["test"]), ("weights", evaluate(model, images.x_test)["loss"])):
        assert_close(name, got, result["bound"], rtol=1e-6, atol=0)      # float32
    for name, weights in (("nll", log_weights), ("monte_carlo", log_weights_of_predictions)):
        again = -log_p_by_importance_sampling(model, images.x_test, 20, generator(), weigh=weights)
        error = float(again.std()) / math.sqrt(len(again))               # of the images, larger than that of the draws
        assert abs(float(again.mean()) - result[name]) < error, name
    pages = unpack(result["completions"], 4, 8, 64)
    originals, observed = unpack(result["originals"], 8, 64), observed_pixels((8, 8), 2)
    assert np.abs(pages - originals)[..., observed].max() == 0 and np.abs(pages - originals)[..., ~observed].mean() > 0.01


def test_monte_carlo_has_z_from_the_prior_network():
    """Where p(z|x_obs) is a point: log p(x_mis|z, x_obs) there, however few the draws and whatever q says."""
    model, x = tiny(batch=8)
    with torch.no_grad():
        torch.nn.init.zeros_(model.prior.logvar.weight)
        model.prior.logvar.bias.fill_(-60)                               # a standard deviation of 1e-13
        want = -model.log_likelihood(x, model.decode(model.encode_observed(x)[0], x)).mean()
    images = Images(x, x, y_test=torch.arange(8))
    found = experiment.measured_cvae(model, images, 3, 100, lambda share: None)
    assert_close("monte_carlo", found["monte_carlo"], want, rtol=ROUNDING, atol=0)
    assert found["nll"] > want + 100, "importance sampling has z from q, which never comes to the point"


def made_up():
    def result(kind, quadrants):
        numbers = {"nll": 100 * quadrants, "images": 10_000}
        return numbers | ({"bound": 100 * quadrants + 5, "monte_carlo": 100 * quadrants + 3} if kind == "cvae" else {})

    return {"settings": experiment.PRESETS["cpu"], "parts": {
        f"{pixels}-{quadrants}-{kind}": {"result": result(kind, quadrants)}
        for pixels in ("gray", "binarized") for quadrants in (1, 2, 3) for kind in KINDS}}


def test_the_figures_of_others_stand_beside_gray_pixels_only():
    found = experiment.rows(made_up())
    assert len(found) == 12
    for what, theirs, ours in found:
        assert bool(theirs) == ("gray pixels (no likelihood)" in what) != ("binarized" in what)
        assert "10,000 test images" in what and ("CVAE" in what) == (ours.count("/") == 2)
    told = {what[:10]: (theirs, ours) for what, theirs, ours in found if "gray" in what and "CVAE" in what}
    assert list(told.values()) == [("71.8 (Pyro)", "105.0 / 100.0 / 103.0"), ("51.0 (Pyro)", "205.0 / 200.0 / 203.0"),
                                   ("24.2 (Pyro)", "305.0 / 300.0 / 303.0")]


def test_results_are_json(tmp_path):
    """All of the quick preset, with a few epochs: what the parts give goes through JSON, and is drawn and told."""
    settings = json.loads(json.dumps(experiment.PRESETS["quick"]))
    for plan in settings["plans"].values():
        plan["epochs"] = 2
    done = run_parts(experiment.parts(settings), tmp_path)
    results = {"settings": settings, "parts": done}
    assert json.loads(json.dumps(results)) == results and len(experiment.rows(results)) == 6
    experiment.draw(tmp_path / "page.png", results)
    picture = imread(tmp_path / "page.png")
    assert min(picture.shape[:2]) > 200 and picture.std() > 0.02         # something is drawn
