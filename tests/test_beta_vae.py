"""The beta-VAE and its kin: with no settings the VAE itself, with each the gradient of what its formula says.

    pytest tests/test_beta_vae.py

Letters: B images, J latents.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from contract import MLP, Case
from oracles import assert_close, assert_gradients, kl_divergence

from common.config import InputError
from common.data import load_dataset
from paper.beta_vae import BetaVAE, KLWeight
from paper.experiments import rate_distortion, sprites_disentangled
from paper.images import Images
from paper.parts import Work
from paper.plan import Plan
from paper.train_paper import evaluate, train
from paper.vae_paper import VAE

ROUNDING = 1e-12            # float64, sums of a few dozen numbers of order 1
FLOAT32 = 1e-5              # relative; means of some hundred images, in another order
# Central differences with h = 1e-5: 1e-11 times a loss of order 100, see oracles.central_difference
DIFFERENCES = {"rtol": 1e-6, "atol": 1e-7}
SETTINGS = {
    "beta": {"beta": 4.0},
    "beta zero": {"beta": 0.0},
    "capacity above the KL": {"gamma": 10.0, "capacity": 50.0},
    "capacity below the KL": {"gamma": 10.0, "capacity": 0.3},
    "free bits": {"free_bits": 0.16, "beta": 2.0},
    "warm-up": {"beta": 3.0, "warmup": 0.8},
    "capacity rising": {"gamma": 10.0, "capacity": 2.0, "warmup": 0.8},
    "cycles": {"beta": 3.0, "warmup": 0.5, "cycles": 3, "free_bits": 0.16},
}
HALF_WAY = 0.4              # of training: half of a warm-up of 0.8; 0.4 of the first warm-up in the second of three cycles
RAMPS = {"warm-up": 0.5, "capacity rising": 0.5, "cycles": 0.4}


def tiny(kind=BetaVAE, **settings):
    """A model with weights away from zero, half way through training, and a batch: x (B, D)."""
    params, x, _ = Case(MLP).draw()
    model = kind(MLP, params, **settings)
    if kind is not VAE:
        model.double().progress.fill_(HALF_WAY)
    return model, torch.from_numpy(x)


def generator():
    return torch.Generator().manual_seed(3)


def kl_of(model, x):
    """The KL divergence of each image and latent, (B, J), an array."""
    eps = torch.randn(len(x), MLP.latent, generator=generator(), dtype=x.dtype)
    return model.likelihood_and_kl(x, eps)[1].detach().numpy()


# ---- what the loss is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_settings_it_is_the_vae_bit_for_bit(dtype):
    """Loss, terms and gradients, in training and in eval mode."""
    (vae, x), (model, _) = (tiny(kind) for kind in (VAE, BetaVAE))
    vae, model, x = vae.to(dtype), model.to(dtype), x.to(dtype)
    for training in (True, False):
        results = []
        for each in (vae, model):
            each.train(training).zero_grad(set_to_none=True)
            loss, terms = each.training_loss(x, None, generator())
            loss.backward()
            results.append({"loss": loss.detach()} | terms | {name: w.grad for name, w in each.named_parameters()})
        assert set(results[0]) == set(results[1])
        for name, want in results[0].items():
            assert torch.equal(results[1][name], want) and want.dtype == dtype, name


def formula(settings, kl, log_likelihood):
    """The loss half way through training, from what the docstring says, in NumPy. kl (B, J)."""
    whole = {"beta": 1.0, "gamma": 0.0, "capacity": 0.0, "free_bits": 0.0} | settings
    ramp = next((RAMPS[name] for name in RAMPS if SETTINGS[name] == settings), 1.0)
    kl_j = kl.mean(axis=0)
    if whole["gamma"]:
        return whole["gamma"] * abs(kl_j.sum() - whole["capacity"] * ramp) - log_likelihood
    return whole["beta"] * ramp * sum(max(whole["free_bits"], nats) for nats in kl_j) - log_likelihood


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_loss_is_its_formula_and_the_elbo_the_plain_bound(settings):
    model, x = tiny(**settings)
    loss, terms = model.training_loss(x, None, generator())
    kl, (_, plain) = kl_of(model, x), tiny(VAE)[0].training_loss(x, None, generator())
    want = formula(settings, kl, float(plain["log_likelihood"]))
    assert_close("loss", loss.detach(), want, rtol=ROUNDING, atol=0)
    for name, term in plain.items():
        assert_close(name, terms[name], term, rtol=ROUNDING, atol=0)
    assert not any(term.requires_grad for term in terms.values())
    assert kl.mean(axis=0).min() < 0.16 < kl.mean(axis=0).max(), "free bits bind some latents, not all"
    assert 0.3 < kl.mean(axis=0).sum() < 1, "the capacities lie on both sides"


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_gradient_agrees_with_central_differences(settings):
    model, x = tiny(**settings)
    assert_gradients(model, lambda: model.training_loss(x, None, generator())[0], **DIFFERENCES)


# ---- how it changes during training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup, cycles, shares, ramps", [
    (0.0, 1, [0, 0.3, 0.99], [1, 1, 1]),
    (0.5, 1, [0, 0.125, 0.25, 0.5, 0.75, 0.99], [0, 0.25, 0.5, 1, 1, 1]),
    (1.0, 1, [0, 0.25, 0.75], [0, 0.25, 0.75]),
    (0.5, 4, [0, 0.0625, 0.125, 0.2, 0.25, 0.3125, 0.5, 0.75, 0.99], [0, 0.5, 1, 1, 0, 0.5, 0, 0, 1]),
])
def test_the_ramp_rises_linearly_once_or_in_cycles(warmup, cycles, shares, ramps):
    weight = KLWeight(warmup=warmup, cycles=cycles)
    got = [float(weight.ramp(torch.tensor(share, dtype=torch.float64))) for share in shares]
    np.testing.assert_allclose(got, ramps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", RAMPS)
def test_eval_mode_has_the_end_of_training_and_does_not_touch_the_progress(name):
    model, x = tiny(**SETTINGS[name])
    found = evaluate(model, x)
    ended = {key: value for key, value in SETTINGS[name].items() if key not in ("warmup", "cycles")}
    want = evaluate(tiny(**ended)[0], x)
    assert found == want and model.training and float(model.progress) == pytest.approx(HALF_WAY)
    assert found["loss"] != pytest.approx(float(model.training_loss(x, None, generator())[0].detach()), rel=1e-3)


def images_of(count=53):
    rng = np.random.default_rng(5)
    x = torch.from_numpy((rng.random((count, 7)) < rng.random((count, 1))).astype(np.float64))
    return Images(x, x[:11])


class Stop(Exception):
    """The run ends here."""


@pytest.mark.parametrize("name", ["warm-up", "capacity rising", "cycles"])
def test_a_run_that_was_stopped_goes_on_identically(name, tmp_path):
    images, params, settings = images_of(), Case(MLP).draw()[0], SETTINGS[name]
    plan, checkpoint = Plan(epochs=6, batch_size=20, lr=0.01, patience=9), tmp_path / "checkpoint.npz"
    whole = BetaVAE(MLP, params, **settings)
    rows = train(whole, images, plan)
    assert len({row["train"]["loss"] for row in rows}) == 6

    def stop(row):
        if row["epoch"] == 3:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        clock = iter(range(0, 10**6, 100))                              # so that every epoch is saved, not one in 5 seconds
        patch.setattr("paper.train_paper.time.perf_counter", lambda: float(next(clock)))
        train(BetaVAE(MLP, params, **settings), images, plan, checkpoint, stop)
    resumed = BetaVAE(MLP, Case(MLP, seed=4).draw()[0], **settings)      # all of it comes from the file
    again = train(resumed, images, plan, checkpoint)
    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in again]
    for weight, tensor in whole.state_dict().items():
        assert_close(weight, resumed.state_dict()[weight], tensor, rtol=0, atol=0)
    with pytest.raises(InputError, match="epochs 6, not 7"):            # a longer run has another ramp from the start
        train(BetaVAE(MLP, params, **settings), images, replace(plan, epochs=7), checkpoint)
    with pytest.raises(InputError, match="warmup=0.1"):
        train(BetaVAE(MLP, params, **settings | {"warmup": 0.1}), images, plan, checkpoint)


def test_its_weights_are_saved_as_a_vae(tmp_path):
    model, x = tiny(beta=4.0, warmup=0.5)
    model.save(tmp_path / "params.npz")
    assert torch.equal(VAE.load(tmp_path / "params.npz").encode(x)[0], model.encode(x)[0])
    assert set(model.state_dict()) == set(tiny(VAE)[0].state_dict())


@pytest.mark.parametrize("settings, complaint", [
    ({"beta": -1.0}, "beta is -1.0"), ({"beta": float("nan")}, "beta is nan"), ({"free_bits": -0.1}, "free_bits is -0.1"),
    ({"gamma": -5.0}, "gamma is -5.0"), ({"gamma": 1.0, "capacity": float("inf")}, "capacity is inf"),
    ({"capacity": 5.0}, "capacity 5.0 without gamma"), ({"gamma": 5.0, "beta": 2.0}, "gamma 5.0 replaces beta 2.0"),
    ({"gamma": 5.0, "free_bits": 0.1}, "gamma 5.0 replaces"), ({"warmup": 1.5}, "warmup is 1.5"),
    ({"warmup": -0.1}, "warmup is -0.1"), ({"warmup": float("nan")}, "warmup is nan"),
    ({"warmup": 0.5, "cycles": 0}, "cycles 0"), ({"cycles": 4}, "cycles 4 without warmup"),
])
def test_settings_that_make_no_sense_are_refused_in_one_line(settings, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        BetaVAE(MLP, **settings)
    assert "\n" not in str(error.value)


# ---- named wrong answers: each fails the formula -----------------------------------------------------------------------


def never_used(self, kl, ramp):
    """Wrong answer: beta accepted, and never used."""
    return kl.mean(dim=0).sum()


def maximum_before_mean(self, kl, ramp):
    """Wrong answer: each image's KL is raised to the free bits, and the mean taken after it."""
    return self.beta * ramp * kl.clamp(min=self.free_bits).mean(dim=0).sum()


def maximum_of_the_sum(self, kl, ramp):
    """Wrong answer: the free bits are those of all latents together."""
    return self.beta * ramp * kl.mean(dim=0).sum().clamp(min=self.free_bits)


def capacity_of_each(self, kl, ramp):
    """Wrong answer: every latent is asked to have the capacity, where their sum should."""
    return self.gamma * (kl.mean(dim=0) - self.capacity * ramp).abs().sum()


def no_absolute_value(self, kl, ramp):
    """Wrong answer: below the capacity the cost is negative, and falls as the KL does."""
    return self.gamma * (kl.mean(dim=0).sum() - self.capacity * ramp)


@pytest.mark.parametrize("wrong, name", [
    (never_used, "beta"), (never_used, "warm-up"), (maximum_before_mean, "free bits"), (maximum_of_the_sum, "free bits"),
    (capacity_of_each, "capacity below the KL"), (capacity_of_each, "capacity rising"),
    (no_absolute_value, "capacity above the KL"),
])
def test_a_wrong_cost_is_noticed(wrong, name, monkeypatch):
    monkeypatch.setattr(KLWeight, "cost", wrong)
    with pytest.raises(AssertionError, match="loss"):
        test_the_loss_is_its_formula_and_the_elbo_the_plain_bound(SETTINGS[name])


# ---- the experiments ---------------------------------------------------------------------------------------------------

ONE_EPOCH = {"network": {"hidden": 5, "latent": 3}, "plan": {"epochs": 1, "lr": 1e-2}}
SMALL_SPRITES = sprites_disentangled.PRESETS["cpu"] | ONE_EPOCH | {
    "sprites": {"orientations": 2, "positions": 2}, "votes": [40, 20], "seeds": 1}


def run(module, key, settings, monkeypatch):
    """What a part reports, and the model and the images that it trained with."""
    seen = []
    monkeypatch.setattr(module, "train", lambda *arguments: seen.append(arguments) or train(*arguments))
    part = module.parts(settings)[key]
    found = part.function(Work("cpu", None, load_dataset, lambda share: None), **part.arguments)
    return found, *seen[0][:2]


@pytest.mark.parametrize("beta", [0.25, 4])
def test_a_point_of_the_curve_is_rate_and_distortion_and_training_minimized_d_plus_beta_r(beta, monkeypatch):
    settings = rate_distortion.PRESETS["quick"] | ONE_EPOCH
    found, model, images = run(rate_distortion, f"beta-{beta}", settings, monkeypatch)
    rate = kl_divergence(*(each.detach().numpy() for each in model.encode(images.x_test))).sum(axis=1).mean()
    assert_close("rate", found["rate"], rate, rtol=FLOAT32, atol=0)
    assert_close("-elbo", -found["elbo"], found["rate"] + found["distortion"], rtol=FLOAT32, atol=0)
    loss = evaluate(model, images.x_test)["loss"]
    assert_close("D + beta R", found["distortion"] + beta * found["rate"], loss, rtol=FLOAT32, atol=0)
    assert 0.1 < rate < found["distortion"] - 0.1, "nothing to tell apart"


def test_the_curve_of_rate_and_distortion_has_a_point_for_each_beta():
    module = rate_distortion
    parts = module.parts(module.PRESETS["cpu"])
    assert [part.arguments["beta"] for part in parts.values()] == [0.25, 0.5, 1, 2, 4, 8]
    assert [key for key, part in parts.items() if part.arguments["samples"]] == ["beta-1"]
    result = {"rate": 20.25, "distortion": 80.0, "elbo": -100.25, "nll": 97.0, "active_units": 15}
    told = module.rows({"settings": module.PRESETS["cpu"], "parts": {key: {"result": result} for key in parts}})
    assert "beta = 0.25" in told[0][0] and told[0][2].startswith("20.2 + 80.0 = 100.2") and told[-1][2] == "97.0"


COSTS = {"beta-1": lambda kl: kl, "beta-4": lambda kl: 4 * kl, "capacity": lambda kl: 100 * abs(kl - 12.5)}


@pytest.mark.parametrize("name", COSTS)
def test_a_model_of_sprites_is_trained_at_the_cost_of_its_name(name, monkeypatch):
    """Half way up to a capacity of 25 nats; a beta is there from the start."""
    found, model, images = run(sprites_disentangled, f"{name}.0", SMALL_SPRITES, monkeypatch)
    model.progress.fill_(HALF_WAY)
    loss, terms = model.training_loss(images.x_test, None, generator())
    kl = float(terms["kl"])
    assert_close("loss", loss.detach(), COSTS[name](kl) - float(terms["log_likelihood"]), rtol=FLOAT32, atol=0)
    for told in (sum(found["kl_per_latent"]), found["log_likelihood"] - found["elbo"]):
        assert_close("kl", told, kl, rtol=1e-4, atol=0)                  # a difference of two of 900 nats, float32
    assert kl > 0.1, "all costs alike"


def test_what_is_scored_are_the_means_of_the_posteriors(monkeypatch):
    found, model, images = run(sprites_disentangled, "beta-4.0", SMALL_SPRITES, monkeypatch)
    means, logvars = (each.detach().numpy() for each in model.encode(images.x_train[torch.arange(len(images.x_train))]))
    scores = [sprites_disentangled.scored(each, images.x_train.sprites.sizes, (40, 20)) for each in (means, logvars)]
    assert found["scores"] == scores[0] != scores[1]


def test_all_kinds_are_scored_with_their_seeds_and_compared_honestly():
    module = sprites_disentangled
    settings = module.PRESETS["cpu"]
    parts = module.parts(settings)
    assert len(parts) == 5 * (3 + 1 + 1) + 2 and parts["beta-4.3"].arguments["plan"]["seed"] == 3
    assert parts["beta-4.3"].arguments["run"] == {"beta": 4}

    def seeds(*scores):
        return [{"scores": dict(zip(module.SCORES, each, strict=True))} for each in scores]

    less, more = seeds((0.5, 0.6, 0.1), (0.7, 0.8, 0.1)), seeds((0.8, 0.5, 0.2), (0.8, 0.7, 0.4))
    assert module.compared(more, less) == "2 of 3: +0.200 ± 0.100 / -0.100 ± 0.141 / +0.200 ± 0.100"
    assert module.mean_and_sd([0.5, 0.7]) == "0.600 ± 0.141" and module.mean_and_sd([0.5]) == "0.500"
