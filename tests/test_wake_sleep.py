"""Wake-sleep, the paper's settings, and figure 2.

    pytest tests/test_wake_sleep.py

Wake-sleep has two gradients. Both are derived by hand here, from the backward passes of level 1, and what public code gets
wrong is planted: a gradient that goes through a draw.
Letters: B images, D pixels, J latents.
"""

import json
import math
from dataclasses import replace

import losses_numpy
import networks_numpy
import numpy as np
import pytest
import torch
from contract import MLP, Case
from oracles import assert_close, figure_of

from common.config import InputError, VAEConfig
from common.data import Dataset, load_dataset
from paper import paper_settings
from paper.experiments import figure2, figure2_frey, figure2_mnist
from paper.images import Images
from paper.paper_settings import STEP_SIZES, begin, pick_step_size, plan, train_as_the_paper
from paper.parts import Work
from paper.train_paper import train
from paper.vae_paper import VAE
from paper.wake_sleep import WakeSleep

ROUNDING = 1e-11            # float64, sums of a few hundred numbers of order 1
GAUSSIAN = replace(MLP, likelihood="gaussian")


def tiny(config, seed=0):
    """The model with weights away from zero, its params, and a batch: x (B, D), z (B, J), eps (B, J)."""
    params, x, eps = Case(config).draw()
    return WakeSleep(config, params), params, x, np.random.default_rng(seed).standard_normal(eps.shape), eps


def tensors(*arrays):
    return tuple(torch.from_numpy(array) for array in arrays)


# ---- the two gradients, by hand ----------------------------------------------------------------------------------------


def wake_by_hand(params, x, eps, config):
    """d(-mean log p(x|z)) / d(decoder's weights), z = mu + sigma * eps a constant: level 1's decoder, and no further."""
    mu, logvar = networks_numpy.encode(params, x, config)
    z = mu + np.exp(logvar / 2) * eps
    out, cache = networks_numpy.decode_forward(params, z, config)
    share = np.full(len(x), -1 / len(x))
    if config.likelihood == "bernoulli":
        _, loss_cache = losses_numpy.bernoulli_log_likelihood_forward(out, x)
        dout = losses_numpy.bernoulli_log_likelihood_backward(share, loss_cache)
    else:
        _, loss_cache = losses_numpy.gaussian_log_likelihood_forward(x, *out)
        dout = losses_numpy.gaussian_log_likelihood_backward(share, loss_cache)
    _, grads = networks_numpy.decode_backward(dout, cache)
    return grads


def sleep_by_hand(params, x, z, config):
    """d(-mean log q(z|x)) / d(encoder's weights): (mu - z) / sigma^2 and (1 - (z - mu)^2 / sigma^2) / 2, over B."""
    (mu, logvar), cache = networks_numpy.encode_forward(params, x, config)
    precision = np.exp(-logvar)
    return networks_numpy.encode_backward((mu - z) * precision / len(x), (1 - (z - mu)**2 * precision) / 2 / len(x), cache)


@pytest.mark.parametrize("config", [MLP, GAUSSIAN], ids=["bernoulli", "gaussian"])
def test_each_phase_has_its_hand_derived_gradient_and_leaves_the_other_network_alone(config):
    model, params, x, z, eps = tiny(config)
    for loss, want, part in (
        (model.wake_loss(*tensors(x, eps))[0], wake_by_hand(params, x, eps, config), "decoder"),
        (model.sleep_loss(*tensors(x, z)), sleep_by_hand(params, x, z, config), "encoder"),
    ):
        model.zero_grad(set_to_none=True)
        loss.backward()
        for name, weight in model.named_parameters():
            if name.startswith(part):
                assert_close(name, weight.grad.numpy(), want[name], rtol=ROUNDING, atol=ROUNDING)
                assert np.abs(want[name]).max() > 1e-3, f"{name}: nothing to compare"
            else:
                assert weight.grad is None, f"the {part}'s phase moves {name}"


@pytest.mark.parametrize("config", [MLP, GAUSSIAN], ids=["bernoulli", "gaussian"])
def test_one_backward_of_the_training_loss_gives_both_gradients(config):
    model, params, x, _, _ = tiny(config)
    shape, generator = (len(x), config.latent), torch.Generator().manual_seed(3)
    eps, z = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    dreams = model.sample(z, generator)
    loss, terms = model.training_loss(torch.from_numpy(x), None, torch.Generator().manual_seed(3))
    loss.backward()
    want = wake_by_hand(params, x, eps.numpy(), config) | sleep_by_hand(params, dreams.numpy(), z.numpy(), config)
    for name, weight in model.named_parameters():
        assert_close(name, weight.grad.numpy(), want[name], rtol=ROUNDING, atol=ROUNDING)
    log_likelihood, kl = model.elbo_terms(torch.from_numpy(x), eps)
    assert_close("elbo", terms["elbo"], (log_likelihood - kl).mean().detach(), rtol=ROUNDING, atol=ROUNDING)
    assert not any(term.requires_grad for term in terms.values())


class ThroughTheDream(WakeSleep):
    """Wrong answer: a Gaussian dream is drawn by reparameterization and not cut off, so that the sleep phase trains the
    decoder to dream what the encoder reads easily."""

    def sample(self, z, generator=None):
        pixel = self.likelihood(z)
        return pixel.mean + pixel.stddev * torch.randn(pixel.mean.shape, generator=generator, dtype=z.dtype)


class ThroughTheWakingDraw(WakeSleep):
    """Wrong answer: the wake phase lets its gradient through z, into the encoder. That is AEVB without its KL."""

    def wake_loss(self, x, eps):
        mu, logvar = self.encode(x)
        loss = -self.log_likelihood(x, self.reparameterize(mu, logvar, eps)).mean()
        return loss, {"elbo": -loss.detach()}


@pytest.mark.parametrize("wrong, network", [(ThroughTheDream, "decoder"), (ThroughTheWakingDraw, "encoder")])
def test_a_gradient_through_a_draw_is_noticed(wrong, network):
    """The comparison above, on a wrong answer: that network's gradient is off by far more than rounding."""
    _, params, x, _, _ = tiny(GAUSSIAN)
    grads = {}
    for kind in (WakeSleep, wrong):
        model = kind(GAUSSIAN, params)
        model.training_loss(torch.from_numpy(x), None, torch.Generator().manual_seed(3))[0].backward()
        grads[kind] = {name: weight.grad for name, weight in model.named_parameters()}
    for name in params:
        off = float((grads[wrong][name] - grads[WakeSleep][name]).abs().max())
        assert off > 1e-3 if name.startswith(network) else off < ROUNDING, (name, off)


# ---- draws from p(x|z) -------------------------------------------------------------------------------------------------


def test_samples_have_the_mean_and_the_spread_of_the_likelihood():
    draws, z = 20_000, torch.tensor([[0.7, -1.2, 0.4]], dtype=torch.float64)
    for config in (MLP, GAUSSIAN):
        model = tiny(config)[0]
        z_here = z[:, :config.latent]
        x = model.sample(z_here.expand(draws, -1), torch.Generator().manual_seed(0))
        pixel = model.likelihood(z_here)
        error = pixel.stddev[0] / math.sqrt(draws)                       # of the mean
        assert ((x.mean(dim=0) - pixel.mean[0]).abs() < 5 * error).all()
        # of the variance: sqrt(2 / draws) for a Gaussian, less for a coin that is not far from fair
        assert (x.var(dim=0) / pixel.variance[0] - 1).abs().max() < 5 * math.sqrt(2 / draws) * 2
        assert x.dtype == torch.float64 and not x.requires_grad
        assert set(x.unique().tolist()) == {0.0, 1.0} if config is MLP else len(x.unique()) > draws
        assert torch.equal(x, model.sample(z_here.expand(draws, -1), torch.Generator().manual_seed(0)))


# ---- the paper's settings ----------------------------------------------------------------------------------------------


CONFIG = VAEConfig("mlp", (8, 8), hidden=12, latent=2)


@pytest.fixture(scope="module")
def digits():
    return Images.of(load_dataset("digits"))


def test_weights_and_biases_begin_as_the_paper_draws_them():
    config = VAEConfig("mlp", (28, 28), hidden=100, latent=5)
    params = paper_settings.initial_params(config, np.random.default_rng(0))
    for name, array in params.items():
        error = 0.1 / math.sqrt(2 * array.size)                          # of the standard deviation
        assert abs(array.std() - 0.1) < 5 * error + 0.1 / array.size and array.dtype == np.float32, name
    a, b = (begin("vae", config, Images(torch.zeros(1, 784), torch.zeros(1, 784)), seed).state_dict() for seed in (0, 1))
    for name, array in params.items():
        assert torch.equal(a[name], torch.from_numpy(array)) and not torch.equal(a[name], b[name]), name


def test_the_plan_is_adagrad_with_the_prior_shared_out_over_the_images(digits):
    how = plan(digits, samples=10_000, lr=0.02)
    assert (how.optimizer, how.batch_size, how.lr, how.weight_decay) == ("adagrad", 100, 0.02, 1 / len(digits.x_train))
    assert (how.epochs - 1) * len(digits.x_train) < 10_000 <= how.epochs * len(digits.x_train)


def test_the_step_size_with_the_best_training_bound_is_picked(digits):
    shares = []
    picked = pick_step_size("vae", CONFIG, digits, samples=6000, progress=shares.append)
    bounds = {float(lr): bound for lr, bound in picked["tried"].items()}
    assert set(bounds) == set(STEP_SIZES) and bounds[picked["lr"]] == max(bounds.values())
    again = train(begin("vae", CONFIG, digits), digits, plan(digits, 6000, picked["lr"]))
    assert again[-1]["train"]["elbo"] == bounds[picked["lr"]]
    assert shares == sorted(shares) and shares[-1] == 1


def test_a_step_size_that_diverges_is_not_picked(digits, monkeypatch):
    monkeypatch.setattr(paper_settings, "STEP_SIZES", (0.02, 1e30))
    picked = pick_step_size("vae", CONFIG, digits, samples=1500)
    assert picked == {"lr": 0.02, "tried": {"0.02": pytest.approx(-28, abs=5), "1e+30": None}}
    monkeypatch.setattr(paper_settings, "STEP_SIZES", (1e30,))
    with pytest.raises(InputError, match="diverges with each"):
        pick_step_size("vae", CONFIG, digits, samples=1500)


def work_in(folder, progress=lambda share: None):
    return Work("cpu", folder / "checkpoint.npz", None, progress, folder / "notes.json")


def test_training_as_the_paper_goes_on_after_a_stop(digits, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(share):
        seen.append(share)
        if stop_at and share > stop_at:
            raise Stop

    def run(folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        return train_as_the_paper(work_in(tmp_path / folder, stop), "wake-sleep", CONFIG, digits, 8000, 3000)

    seen, stop_at = [], None
    whole, rows, picked = run("whole")
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1)
    assert len(rows) == math.ceil(8000 / len(digits.x_train)) and str(picked["lr"]) in picked["tried"]
    stop_at = 0.2                                                        # while the step size is picked
    with pytest.raises(Stop):
        run("stopped")
    stop_at = 0.8                                                        # while the model is trained
    with pytest.raises(Stop):
        run("stopped")
    stop_at = None
    monkeypatch.setattr(paper_settings, "pick_step_size", None)          # it is picked once
    model, again, also = run("stopped")
    assert [row["test"] for row in again] == [row["test"] for row in rows] and also == picked
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("text", ["{\"lr\"", "[]x", "3"])
def test_damaged_notes_are_refused_in_one_line(tmp_path, text):
    (tmp_path / "notes.json").write_text(text)
    with pytest.raises(InputError, match="notes.json is damaged .*: remove its folder") as refused:
        work_in(tmp_path).recall()
    assert "\n" not in str(refused.value)


# ---- figure 2 ----------------------------------------------------------------------------------------------------------


def test_curves_are_thinned_evenly_on_a_log_axis_and_end_with_the_last_row():
    rows = [{"epoch": epoch, "train": {"elbo": -epoch}, "test": {"elbo": epoch}} for epoch in range(1, 1001)]
    curve = figure2.thinned(rows, 100)
    ratios = np.diff(np.log(curve["samples"]))
    assert curve["samples"][:2] == [100, 200] and curve["samples"][-1] == 100_000 and len(curve["samples"]) < 200
    assert ratios[:-1].min() >= math.log(figure2.THINNED) - 1e-9
    epochs = np.array(curve["samples"]) // 100
    assert curve["train"] == (-epochs).tolist() and curve["test"] == epochs.tolist()
    assert np.array_equal(curve["middle"], np.array(curve["samples"]) - 50)          # the middle of its epoch


def made_up(aevb, wake_sleep):
    """Results of two curves of three points, at 1e5, 1e6 and 1e7 samples."""
    def result(train, test):
        curve = {"samples": [100_000, 1_000_000, 10_000_000], "middle": [9e4, 9e5, 9e6], "train": train, "test": test}
        return {"result": {"curve": curve, "best_test": max(test), "training_seconds": 90, "test_images": 10_000,
                           "end": {"train": {"elbo": train[-1]}, "test": {"elbo": test[-1]}}}}

    settings = figure2_mnist.PRESETS["cpu"] | {"latents": [3]}
    return {"settings": settings, "parts": {"vae-3": result(*aevb), "wake-sleep-3": result(*wake_sleep)}}


def test_the_lead_counts_from_a_million_samples_on_and_the_end_is_held_to_the_best():
    results = made_up(([-150, -120, -110], [-151, -118.5, -119.75]), ([-140, -130, -125], [-141, -121, -121]))
    assert figure2.lead(results, 3, "train") == 10 and figure2.lead(results, 3, "test") == 1.25
    told = {what: ours for what, _, ours in figure2.rows(results)}
    assert any("10,000,000 samples" in what and ours == "-119.8 / -121.0" for what, ours in told.items()), told
    assert any("lead of AEVB" in what and "from 1,000,000" in what and ours[:4] == "1.2 " for what, ours in told.items())
    assert any("best" in what and ours == "1.25 / 9.75" for what, ours in told.items()), told
    assert any("minutes" in what and ours == "0.15 to 0.15" for what, ours in told.items()), told
    behind = made_up(([-150, -120, -110], [-151, -119, -119]), ([-140, -130, -125], [-141, -120, -118]))
    assert figure2.lead(behind, 3, "test") == -1


@pytest.mark.parametrize("kind", figure2.NAMES)
def test_a_curve_is_that_of_its_algorithm_on_images_of_its_likelihood(kind, tmp_path, monkeypatch):
    """Trained again by hand with the step size that was picked. Test images are white where those of training are black,
    so that the test bound has its best before the end."""
    gray, all_rows = np.random.default_rng(0).random((60, 6)).astype(np.float32) * [1, 1, 1, 0.2, 0.2, 0.2], []

    def watched(*arguments, **settings):
        found = train_as_the_paper(*arguments, **settings)
        all_rows.extend(found[1])
        return found

    monkeypatch.setattr(figure2, "train_as_the_paper", watched)
    data = Dataset("tiny", (2, 3), gray.astype(np.float32), None, gray[:9, ::-1].astype(np.float32).copy())
    work = Work("cpu", tmp_path / "checkpoint.npz", lambda name: data, lambda share: None, tmp_path / "notes.json",
                tmp_path / "params.npz")
    found = figure2.train_curve(work, kind, 2, 60 * 30, "tiny", 5, "gaussian", pick_samples=300, evaluate_every=3)
    images = Images.of(data, likelihood="gaussian")
    again = begin(kind, VAEConfig("mlp", (2, 3), 5, 2, "gaussian"), images)
    rows = train(again, images, plan(images, 60 * 30, found["lr"], evaluate_every=3))
    tests = [row for row in rows if "test" in row]
    bounds = [row["test"]["elbo"] for row in tests]
    assert found["curve"] == figure2.thinned(tests, 60) and found["best_test"] == max(bounds) > bounds[-1]
    assert found["end"]["test"] == tests[-1]["test"] and found["test_images"] == 9
    assert found["training_seconds"] == sum(row["seconds"] for row in all_rows) and len(all_rows) == 30
    saved = VAE.load(tmp_path / "params.npz").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in again.state_dict().items())


def test_each_panel_of_figure_2_has_the_curves_of_its_latents_and_each_row_too(monkeypatch):
    few, many = (made_up(([-150 - i, -120 - i, -110 - i], [-151 - i, -118 - i, -119 - i]),
                         ([-140 - i, -130 - i, -125 - i], [-141 - i, -121 - i, -122 - i])) for i in (0, 10))
    parts = few["parts"] | {key.replace("-3", "-5"): part for key, part in many["parts"].items()}
    results = {"settings": few["settings"] | {"latents": [3, 5]}, "parts": parts}
    for axes, latent in zip(figure_of(figure2.draw, results, monkeypatch).axes, (3, 5), strict=True):
        assert axes.get_title(loc="left") == f"$N_z$ = {latent}" and len(axes.lines) == 4
        for line in axes.lines:
            name, which = line.get_label().split(", ")
            kind, = (kind for kind, words in figure2.NAMES.items() if words == name)
            curve = parts[f"{kind}-{latent}"]["result"]["curve"]
            x = curve["middle" if which == "train" else "samples"]
            assert line.get_xdata().tolist() == x and line.get_ydata().tolist() == curve[which], line.get_label()
            assert (line.get_color(), line.get_linestyle()) == (figure2.COLORS[kind], "-" if which == "train" else "--")
    told = [ours for _, _, ours in figure2.rows(results)]
    assert told[:2] == ["-119.0 / -122.0", "-129.0 / -132.0"]


@pytest.mark.parametrize("module", [figure2_mnist, figure2_frey])
def test_the_presets_are_the_papers(module):
    cpu, gpu = (module.PRESETS[preset] for preset in ("cpu", "gpu"))
    assert cpu["training_samples"] == 1e7 and gpu["training_samples"] == 1e8
    assert len(module.parts(cpu)) == 2 * len(cpu["latents"])
    network = {"mnist": (500, "bernoulli", [3, 5, 10, 20, 200]), "frey": (200, "gaussian", [2, 5, 10, 20])}
    for settings in (cpu, gpu):
        hidden, likelihood, latents = network[settings["network"]["data"]]
        assert (settings["network"]["hidden"], settings["network"]["likelihood"], settings["latents"]) == (
            hidden, likelihood, latents)


def test_a_wake_sleep_model_is_saved_as_a_vae(tmp_path):
    model = tiny(MLP)[0]
    model.save(tmp_path / "params.npz")
    assert all(torch.equal(tensor, model.state_dict()[name])
               for name, tensor in VAE.load(tmp_path / "params.npz").state_dict().items())


def test_results_are_json(digits):
    curve = figure2.thinned(train(begin("vae", CONFIG, digits), digits, plan(digits, 3000, 0.02)), len(digits.x_train))
    assert json.loads(json.dumps(curve)) == curve
