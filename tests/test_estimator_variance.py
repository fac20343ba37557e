"""What the experiment `estimators` measures, on a model whose variances are known on paper, and what its figure claims.

    pytest tests/test_estimator_variance.py

The known model is linear and Gaussian, p(x|z) = N(W z, s^2 I) with orthogonal columns of W: its posterior is Gaussian with
a diagonal covariance, so that q(z|x) can be the posterior itself. Letters: B images, D pixels, J latents, L draws.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles import assert_close, figure_of
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from common import figures
from common.config import InputError, VAEConfig
from common.data import EVAL_SEED, load_dataset
from paper.estimators import estimator_a, estimator_b
from paper.experiments import estimator_variance as experiment
from paper.experiments.estimator_variance import Spread, measure
from paper.images import Images
from paper.parts import Work
from paper.train_paper import build
from paper.vae_paper import kl_divergence

B, D, J = 3, 5, 2
NOISE = 0.5                                                              # s
DRAWS = 600
# A variance from 600 draws of a normal variable is good to sqrt(2 / 600) = 6 in 100, one of its square to more, a mean over
# images and latents to less: 30 in 100 are five standard errors, and a mistake is a factor of 2. The draws are seeded.
SAMPLED = {"rtol": 0.3, "atol": 0.0}
# float64, sums of up to 600 terms of order 10
EXACT = {"rtol": 1e-9, "atol": 1e-12}


class Encoder(nn.Module):
    """mu = V x, one log-variance per latent."""

    def __init__(self, weight, logvar):
        super().__init__()
        self.weight, self.logvar = nn.Parameter(weight), nn.Parameter(logvar)


class LinearGaussian(nn.Module):
    """The known model, with q(z|x) = p(z|x), or moved off it: its means by `shift`, its log-variances by `widen`."""

    def __init__(self, shift=0.0, widen=0.0):
        super().__init__()
        w = torch.linalg.qr(torch.randn(D, J, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
        w = w * torch.tensor([1.0, 2.0])                                 # (D, J)
        variance = 1 / (1 + (w * w).sum(dim=0) / NOISE**2)               # (J,)
        self.decoder = nn.Linear(J, D, bias=False, dtype=torch.float64)
        self.decoder.weight = nn.Parameter(w)
        self.encoder = Encoder(variance[:, None] * w.T / NOISE**2, torch.log(variance) + widen)
        self.config, self.shift = SimpleNamespace(latent=J, pixels=D), shift

    def encode(self, x):
        mu = x @ self.encoder.weight.T + self.shift
        return mu, self.encoder.logvar.expand_as(mu)

    def reparameterize(self, mu, logvar, eps):
        return mu + torch.exp(0.5 * logvar) * eps

    def log_likelihood(self, x, z):
        return Normal(z @ self.decoder.weight.T, NOISE).log_prob(x).sum(dim=-1)

    def log_p(self, x):
        w = self.decoder.weight
        return MultivariateNormal(torch.zeros(D, dtype=w.dtype), w @ w.T + NOISE**2 * torch.eye(D)).log_prob(x)


X = torch.randn(B, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.fixture(scope="module")
def at_the_posterior():
    return measure(LinearGaussian(), X, DRAWS, [1, 10], 10)


@pytest.fixture(scope="module")
def off_the_posterior():
    return measure(LinearGaussian(shift=0.3, widen=0.7), X, DRAWS, [1, 10], 10)


# ---- where q(z|x) is the posterior -------------------------------------------------------------------------------------


def test_at_the_posterior_the_value_of_a_is_constant_and_that_of_b_is_not(at_the_posterior):
    """A = log p(x). B = log p(x) + log q(z|x) - log p(z) - KL, of which the noise is (z^2 - eps^2) / 2 in each latent, with
    variance mu^2 sigma^2 + (1 - sigma^2)^2 / 2."""
    mu, logvar = LinearGaussian().encode(X)
    expected = (mu**2 * logvar.exp() + (1 - logvar.exp()) ** 2 / 2).sum(dim=1).mean()
    value = at_the_posterior["value"]
    assert max(value["A"]) < 1e-24 and max(value["A by path"]) < 1e-24
    assert_close("variance of B", value["B"][0], expected.detach(), **SAMPLED)
    assert abs(at_the_posterior["gap"]) < 5 * (value["B"][0] / DRAWS) ** 0.5


def test_at_the_posterior_the_gradient_of_a_is_all_score_and_without_it_none(at_the_posterior):
    """What is left of A's is -d log q at fixed z: -eps / sigma for mu, (1 - eps^2) / 2 for logvar, of variances 1 / sigma^2
    and 1/2; mu = V x adds x, logvar is the same for all images, and all is divided by B for the mean over them."""
    mu, logvar = LinearGaussian().encode(X)
    expected = ((-logvar).exp().sum(dim=1) * (X * X).sum(dim=1)).sum() / B**2 + J * 0.5 / B
    encoder = at_the_posterior["encoder"]
    assert max(encoder["A by path"]) < 1e-24
    assert_close("variance of A's gradient", encoder["A"][0], expected.detach(), **SAMPLED)


# ---- elsewhere ---------------------------------------------------------------------------------------------------------


def test_the_means_are_equal_within_five_standard_errors(off_the_posterior):
    model = LinearGaussian(shift=0.3, widen=0.7)
    mu, logvar = model.encode(X)
    noise = (mu**2 * logvar.exp() + (1 - logvar.exp()) ** 2 / 2).sum() / B**2               # of A - B, a mean over B
    difference = off_the_posterior["difference"]
    assert_close("standard error", difference["standard_error"] ** 2, noise.detach() / DRAWS, **SAMPLED)
    assert abs(difference["mean"]) < 5 * difference["standard_error"]
    assert 0.3 < off_the_posterior["gradient_difference"] < 2           # 1 by chance


def test_the_gap_is_the_divergence_from_q_to_the_posterior(off_the_posterior):
    model, posterior = LinearGaussian(shift=0.3, widen=0.7), LinearGaussian()
    (mu, logvar), (mean, log_variance) = model.encode(X), posterior.encode(X)
    expected = torch.distributions.kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(mean, (log_variance / 2).exp()))
    bound = float((model.log_p(X).mean() - expected.sum(dim=1).mean()).detach())
    assert abs(off_the_posterior["bound"] - bound) < 5 * (off_the_posterior["value"]["B"][0] / DRAWS / B) ** 0.5
    found = measure(model, X, 2, [1], 20_000)           # log p(x) from 20,000 samples: good to a hundredth
    assert abs(found["gap"] + found["bound"] - float(model.log_p(X).mean().detach())) < 0.02


def test_the_decoders_gradients_are_the_same_draw_by_draw(off_the_posterior):
    decoder = off_the_posterior["decoder"]
    assert_close("A's", decoder["A"], decoder["B"], **EXACT)
    assert decoder["B"][0] > 0.1


def test_ten_draws_have_a_tenth_of_the_variance(off_the_posterior):
    """60 groups: variances good to sqrt(2 / 60) = 18 in 100, and three images and several weights make that less."""
    for kind in ("value", "encoder", "decoder"):
        for name, (one, ten) in off_the_posterior[kind].items():
            assert_close(f"{kind} of {name}", ten * 10, one, rtol=0.5, atol=0)


def test_the_gradient_is_that_of_the_mean_over_the_images():
    model, eps = LinearGaussian(shift=0.3), torch.randn(1, B, J, dtype=torch.float64)
    for estimator in experiment.ESTIMATORS.values():
        value, encoder, decoder = experiment.value_and_gradients(model, estimator, X, eps)
        model.zero_grad()
        estimator(model, X, eps).mean().backward()
        assert_close("value", value, estimator(model, X, eps).detach(), **EXACT)
        assert_close("encoder", encoder, torch.cat([p.grad.flatten() for p in model.encoder.parameters()]), **EXACT)
        assert_close("decoder", decoder, model.decoder.weight.grad.flatten(), **EXACT)


# ---- mistakes ----------------------------------------------------------------------------------------------------------


def half_kl(model, x, eps):
    return estimator_b(model, x, eps) + 0.5 * kl_divergence(*model.encode(x)).sum(dim=-1)


def sigma_is_variance(model, x, eps):
    _, logvar = model.encode(x)
    return estimator_a(model, x, eps * torch.exp(0.5 * logvar))


def normal_density_of_eps(model, x, eps):
    """log q(z|x) without the Jacobian: the density of eps in place of that of z."""
    return estimator_a(model, x, eps) - 0.5 * model.encode(x)[1].sum(dim=-1)


@pytest.mark.parametrize(("name", "wrong"), [("B", half_kl), ("A", sigma_is_variance), ("A", normal_density_of_eps)])
def test_a_wrong_estimator_has_another_mean(monkeypatch, name, wrong):
    monkeypatch.setitem(experiment.ESTIMATORS, name, wrong)
    difference = measure(LinearGaussian(shift=0.3, widen=0.7), X, 150, [1], 10)["difference"]
    assert abs(difference["mean"]) > 5 * difference["standard_error"]


def test_with_its_score_kept_the_path_gradient_is_not_free_of_noise(monkeypatch):
    monkeypatch.setitem(experiment.ESTIMATORS, "A by path", estimator_a)
    assert measure(LinearGaussian(), X, 20, [1], 10)["encoder"]["A by path"][0] > 1


# ---- variances of means ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [0.0, 1e6])
def test_spread_is_the_variance_of_the_means_of_groups(origin):
    draws = np.random.default_rng(5).standard_normal((60, 7)) * np.arange(1, 8) + origin
    spread = Spread([1, 2, 5, 20])
    for draw in draws:
        spread.add(torch.tensor(draw))
    expected = [draws.reshape(-1, size, 7).mean(axis=1).var(axis=0, ddof=1).sum() for size in (1, 2, 5, 20)]
    # 1e6 leaves ten digits of a number of order 1; a sum of squares without another origin would leave four
    assert_close("variances", spread.variances(), expected, rtol=1e-8, atol=0)
    assert_close("mean", spread.mean(), draws.mean(axis=0), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("size", [7, 60])
def test_spread_refuses_draws_that_make_no_groups(size):
    spread = Spread([1, size])
    for draw in torch.eye(60):
        spread.add(draw)
    with pytest.raises(InputError, match=f"60 draws do not make groups of {size}"):
        spread.variances()


@pytest.mark.parametrize("preset", experiment.PRESETS)
def test_the_draws_of_every_preset_make_groups(preset):
    settings = experiment.PRESETS[preset]["measure"]
    assert all(settings["draws"] % size == 0 and settings["draws"] >= 2 * size for size in settings["averaged"])


# ---- the experiment ----------------------------------------------------------------------------------------------------

SETTINGS = {
    "measure": {"images": 20, "draws": 10, "averaged": [1, 2, 5], "samples": 50},
    "runs": {"latent-2": {"data": "digits", "hidden": 20, "latent": 2, "lr": 1e-2, "steps": [0, 3, 150]}},
}


class Stopped(Exception):
    pass


def run(folder, progress=lambda share: None):
    work = Work("cpu", folder / "checkpoint.npz", partial(load_dataset), progress)
    part = experiment.parts(SETTINGS)["latent-2"]
    return part.function(work, **part.arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    told = []
    result = run(tmp_path_factory.mktemp("whole"), told.append)
    assert told == sorted(told) and told[0] >= 0 and 0.98 < told[-1] <= 1
    return result


def test_the_claims_of_the_figure_hold_on_digits(whole):
    begin, *_, end = whole["rows"]
    assert [row["step"] for row in whole["rows"]] == [0, 3, 150]
    assert begin["value"]["A"][0] > 2 * begin["value"]["B"][0] and end["value"]["A"][0] < 0.7 * end["value"]["B"][0]
    assert all(row["encoder"]["A"][0] > row["encoder"]["B"][0] for row in whole["rows"])
    assert end["encoder"]["A by path"][0] < 0.7 * end["encoder"]["B"][0]
    assert end["bound"] > begin["bound"] + 1


def test_a_row_is_measured_on_the_first_test_images_after_so_many_steps_of_adam(whole):
    """Three steps by hand: minibatches of 100 from the generator of seed 0, estimator B, the step size of the settings."""
    images = Images.of(load_dataset("digits"))
    model = build("vae", VAEConfig(image_shape=(8, 8), hidden=20, latent=2), images)
    generator = torch.Generator().manual_seed(0)
    optimizer, x = torch.optim.Adam(model.parameters(), 1e-2), images.x_test[:20]
    assert whole["rows"][0] == {"step": 0} | measure(model, x, 10, [1, 2, 5], 50, EVAL_SEED)
    for _ in range(3):
        batch = images.x_train[torch.randint(len(images.x_train), (100,), generator=generator)]
        batch = (torch.rand(batch.shape, generator=generator) < batch).float()
        loss = -estimator_b(model, batch, torch.randn(100, 2, generator=generator)[None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = measure(model, x, 10, [1, 2, 5], 50, EVAL_SEED + 3)
    for kind in ("value", "encoder", "decoder"):                         # float32, and steps that divide by small numbers
        assert_close(kind, whole["rows"][1][kind]["B"], found[kind]["B"], rtol=1e-3, atol=0)
    assert_close("bound", whole["rows"][1]["bound"], found["bound"], rtol=1e-5, atol=0)


def test_the_table_pools_its_standard_errors_and_the_figure_shows_what_its_legend_says(monkeypatch):
    def row(step, mean):
        return {"step": step, "value": {"A": [8.0, 4.0], "B": [2.0, 1.0], "A by path": [8.0, 4.0]}, "gap": 1.25,
                "encoder": {"A": [6.0, 3.0], "B": [4.0, 2.0], "A by path": [1.0, 0.5]},
                "decoder": {name: [7.0, 3.5] for name in ("A", "B", "A by path")},
                "difference": {"mean": mean, "standard_error": 0.3 if step else 0.4}}

    results = {"settings": {"measure": {"averaged": [1, 2]}},
               "parts": {"latent-2": {"result": {"rows": [row(0, 0.5), row(10, -0.1)]}}}}
    told = [ours for _, _, ours in experiment.rows(results)]
    assert told == ["8.00 / 2.00", "1.50 / 1, 0.25"] * 2 + ["0.2000 ± 0.2500"]           # sqrt(0.3^2 + 0.4^2) / 2
    value, gradient, means, by_draws, gradient_by_draws = figure_of(experiment.draw, results, monkeypatch).axes
    shown = [[(line.get_color(), list(line.get_ydata())) for line in axes.lines if len(line.get_ydata())]
             for axes in (value, gradient, means)]
    blue, orange, green = (experiment.COLORS[name] for name in ("A", "B", "A by path"))
    assert shown[0] == [(blue, [8, 8]), (orange, [2, 2]), ("black", [2.5, 2.5])]          # twice the gap
    assert shown[1] == [(blue, [6, 6]), (orange, [4, 4]), (green, [1, 1]), (figures.GRAY, [7, 7])]
    assert shown[2][0][1] == pytest.approx([0.5 / 0.4, -0.1 / 0.3])
    for axes, expected in ((by_draws, [[8, 4], [2, 1]]), (gradient_by_draws, [[6, 3], [4, 2], [1, 0.5]])):
        assert [list(line.get_ydata()) for line in axes.lines] == [each for each in expected for _ in range(2)]


def test_a_stopped_part_goes_on_as_if_it_had_not_been_stopped(whole, tmp_path):
    def stop(share):
        if share > 0.8:
            raise Stopped

    with pytest.raises(Stopped):
        run(tmp_path, stop)
    told = []
    assert run(tmp_path, told.append) == whole
    assert told[0] > 0.3                                                # it did not start anew


def test_the_experiment_draws_its_figure_and_tells_its_rows(whole, tmp_path):
    results = {"settings": SETTINGS, "parts": {"latent-2": {"result": whole, "seconds": 0.0}}}
    experiment.draw(tmp_path / "figure.png", results)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    rows = experiment.rows(results)
    a, b = (whole["rows"][0]["value"][name][0] for name in ("A", "B"))
    assert len(rows) == 5 and rows[0][2] == f"{a:.2f} / {b:.2f}" and "step 150" in rows[2][0]
