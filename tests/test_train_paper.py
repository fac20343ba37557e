"""Level 3's trainer: what a step, an epoch and a whole run do, how a run goes on after a stop, and what is refused.

    pytest tests/test_train_paper.py
    pytest tests/test_train_paper.py -m slow          # a real process, killed

Letters: N training images, B images of a minibatch.
"""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import matplotlib.image
import numpy as np
import pytest
import torch
from oracles import Bomb, error_line

from common.checkpoints import load_checkpoint, load_params, save_checkpoint
from common.cli import run_command
from common.config import InputError, VAEConfig, init_params
from common.data import Dataset, eval_images, hold_out, load_dataset
from common.schedules import one_cycle, staircase
from paper import train_paper
from paper.images import Images
from paper.train_paper import MODELS, Choice, Plan, build, evaluate, train
from paper.vae_paper import VAE

ROOT = Path(__file__).resolve().parents[1]
CONFIG = VAEConfig("mlp", (8, 4), hidden=9, latent=3)
PLAN = Plan(epochs=3, batch_size=20, lr=0.01)
STILL = 1e-300                                          # a step size too small to change any weight
N, STEPS = 53, 3                                        # 20 + 20 + 13 images: the last minibatch is a partial one
ROUNDING = 1e-11                                        # float64, after some steps of Adam, which divides by small roots


def dataset(**parts) -> Dataset:
    """Gray images of 8 x 4, each with a brightness of its own, so that the bounds of the images differ widely."""
    rng = np.random.default_rng(5)
    x = {name: (rng.random((count, 32)) * rng.random((count, 1))).astype(np.float32)
         for name, count in (("x_train", N), ("x_valid", 11), ("x_test", 7))}
    y = {name.replace("x", "y"): np.arange(len(images)) for name, images in x.items()}
    return Dataset("tiny", (8, 4), **{**x, **y, **parts})


def tiny(how=None, dtype="float64", **parts) -> Images:
    return Images.of(dataset(**parts), how, dtype=dtype)


def config_of(name) -> VAEConfig:
    """CONFIG, for the model of this name: each of tiny's images has a label of its own."""
    return replace(CONFIG, condition=N) if name == "conditional-vae" else CONFIG


def weights(model) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def assert_same_weights(got, want, atol=0.0):
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=atol, err_msg=name)


def without_times(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def spy_on_steps(monkeypatch, see):
    """Calls see(optimizer) before each step."""
    original = train_paper.make_optimizer

    def make(model, plan):
        optimizer = original(model, plan)
        step = optimizer.step

        def spied():
            see(optimizer)
            step()

        optimizer.step = spied
        return optimizer

    monkeypatch.setattr(train_paper, "make_optimizer", make)


# ---- every model learns ------------------------------------------------------------------------------------------------


OWN = {"conditional-vae": {"condition": 10}, "ladder-vae": {"hidden": 50, "latent": 8}}       # what a model needs to learn


@pytest.mark.parametrize("name, settings", [
    *((name, OWN.get(name, {})) for name in MODELS),
    ("vae", {"layers": 2}), ("vae", {"arch": "conv"}),
    ("vae", {"likelihood": "gaussian", "fixed_logvar": -2.0}), ("iwae", {"likelihood": "gaussian"})], ids=str)
def test_the_loss_falls_on_digits(name, settings):
    images = Images.of(load_dataset("digits"), likelihood=settings.get("likelihood", "bernoulli"))
    model = build(name, VAEConfig(**{"image_shape": (8, 8), "hidden": 16, "latent": 2, **settings}), images)
    start = evaluate(model, images.x_test, images.y_test)["loss"]
    rows = train(model, images, Plan(epochs=3, lr=3e-3))
    first, second, third = (row["test"]["loss"] for row in rows)
    assert start > first > second > third and start > third + 0.5, (
        f"test loss {start:.2f}, then {first:.2f}, {second:.2f}, {third:.2f}")
    assert rows[0]["train"]["loss"] > rows[2]["train"]["loss"]
    assert set(rows[0]) == {"epoch", "train", "test", "valid", "seconds"} and [row["epoch"] for row in rows] == [1, 2, 3]


def test_a_model_begins_as_the_average_image_from_its_seed():
    data = dataset()
    for seed in (0, 4):
        params = init_params(CONFIG, np.random.default_rng(seed))
        state = weights(build("vae", CONFIG, tiny(dtype="float32"), seed))
        means = np.clip(data.x_train.mean(axis=0, dtype=np.float64), 0.001, 0.999)
        params["decoder.logits.bias"] = np.log(means / (1 - means))
        for name, array in params.items():
            np.testing.assert_allclose(state[name], array, rtol=1e-5, atol=1e-6, err_msg=name)       # float32


# ---- one epoch, by hand ------------------------------------------------------------------------------------------------


def by_hand(model, images, plan, prior=0.0):
    """Algorithm 1 written out: the same draws in the same order from one generator. Returns the mean bounds per epoch."""
    generator = torch.Generator().manual_seed(plan.seed)
    optimizer = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}[plan.optimizer](model.parameters(), lr=plan.lr)
    means = []
    for _ in range(plan.epochs):
        order, bounds = torch.randperm(N, generator=generator), []
        for start in (0, 20, 40):
            gray = images.x_train[order[start:start + 20]]
            x = (torch.rand(gray.shape, generator=generator, dtype=torch.float64) < gray).double()
            eps = torch.randn(len(x), 3, generator=generator, dtype=torch.float64)
            log_likelihood, kl = model.elbo_terms(x, eps)
            loss = -(log_likelihood - kl).mean() + prior / N * sum((weight**2).sum() / 2 for weight in model.parameters())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bounds.append((log_likelihood - kl).detach())
        means.append((float(torch.cat(bounds).mean()), float(torch.stack([bound.mean() for bound in bounds]).mean())))
    return means


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
@pytest.mark.parametrize("prior", [False, True], ids=["likelihood", "with the weight prior"])
def test_an_epoch_is_algorithm_1_and_its_figures_are_means_over_images(optimizer, prior):
    images, plan = tiny(), replace(PLAN, epochs=2, optimizer=optimizer, weight_prior=prior, seed=3)
    model, twin = build("vae", CONFIG, images), build("vae", CONFIG, images)
    rows, means = train(model, images, plan), by_hand(twin, images, plan, prior)
    assert_same_weights(weights(model), weights(twin), ROUNDING)
    for row, (mean, mean_of_means) in zip(rows, means, strict=True):
        assert abs(mean - mean_of_means) > 1e-3, "these images do not tell the two means apart"
        assert row["train"]["elbo"] == pytest.approx(mean, rel=1e-12), "the mean over the images, each counted once"
        assert row["train"]["loss"] == pytest.approx(-mean, rel=1e-12), "the loss is the model's, without the weight prior"
        assert row["train"]["elbo"] == pytest.approx(row["train"]["log_likelihood"] - row["train"]["kl"], rel=1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_the_weight_prior_adds_the_weights_over_n_to_the_gradient(monkeypatch, optimizer):
    """At the first step, where the weights are still the same; and weight decay by 1/N is the same thing."""
    images, grads, ends = tiny(), {}, {}
    for name, settings in {"plain": {}, "prior": {"weight_prior": True}, "decay": {"weight_decay": 1 / N}}.items():
        with monkeypatch.context() as patch:
            seen = []
            spy_on_steps(patch, lambda optimizer, seen=seen: seen.append(
                [weight.grad.clone() for weight in optimizer.param_groups[0]["params"]]))
            model = build("vae", CONFIG, images)
            start = [weight.detach().clone() for weight in model.parameters()]
            train(model, images, replace(PLAN, optimizer=optimizer, **settings))
        grads[name], ends[name] = seen[0], weights(model)
    for plain, prior, weight in zip(grads["plain"], grads["prior"], start, strict=True):
        torch.testing.assert_close(prior - plain, weight / N, rtol=0, atol=ROUNDING)
    assert_same_weights(ends["decay"], ends["prior"], ROUNDING)
    assert np.abs(ends["plain"]["encoder.mu.weight"] - ends["prior"]["encoder.mu.weight"]).max() > 1e-4


@pytest.mark.parametrize("schedule", ["constant", "one-cycle", "staircase"])
def test_the_step_sizes_are_what_the_schedule_says(schedule, monkeypatch):
    seen, images = [], tiny()
    spy_on_steps(monkeypatch, lambda optimizer: seen.append([group["lr"] for group in optimizer.param_groups]))
    train(build("vae", CONFIG, images), images, replace(PLAN, epochs=7, schedule=schedule))
    share = {"constant": lambda progress: 1.0, "one-cycle": one_cycle, "staircase": staircase}[schedule]
    assert seen == [[0.01 * share(step / (7 * STEPS))] for step in range(7 * STEPS)]
    assert schedule == "constant" or len({lr for lr, in seen}) >= 4, "the step size stands still"


def test_a_model_is_told_before_each_step_which_share_of_training_is_done(monkeypatch):
    """Its buffer `progress`, which the weight of a KL that is warmed up goes by."""
    seen, images = [], tiny()
    model = build("beta-vae", CONFIG, images)
    training_loss = model.training_loss

    def watched(*batch):
        if model.training:                                              # evaluations come between the epochs
            seen.append(float(model.progress))
        return training_loss(*batch)

    monkeypatch.setattr(model, "training_loss", watched)
    train(model, images, PLAN)
    assert seen == [step / (3 * STEPS) for step in range(3 * STEPS)]


def test_adams_eps_is_the_plans(monkeypatch):
    seen, images = [], tiny()
    spy_on_steps(monkeypatch, lambda optimizer: seen.append({group["eps"] for group in optimizer.param_groups}))
    train(build("vae", CONFIG, images), images, replace(PLAN, epochs=1, adam_eps=0.25))
    assert seen == [{0.25}] * STEPS


def test_the_precision_of_matrix_products_is_the_plans_and_put_back_however_the_run_ends(monkeypatch):
    seen, images, before = [], tiny(dtype="float32"), torch.get_float32_matmul_precision()
    spy_on_steps(monkeypatch, lambda optimizer: seen.append(torch.get_float32_matmul_precision()))
    original = train_paper.evaluate

    def evaluation(*arguments):
        assert torch.get_float32_matmul_precision() == before, "figures are measured with less precision than is usual"
        return original(*arguments)

    monkeypatch.setattr(train_paper, "evaluate", evaluation)
    for precision in ("medium", "highest"):
        train(build("vae", CONFIG, images), images, replace(PLAN, epochs=1, matmul=precision))
        assert torch.get_float32_matmul_precision() == before
    assert seen == ["medium"] * STEPS + ["highest"] * STEPS
    with pytest.raises(Stop):
        train(build("vae", CONFIG, images), stopping(images, 2), replace(PLAN, matmul="high"))
    assert torch.get_float32_matmul_precision() == before


def test_denormal_numbers_count_as_zero_in_training_and_only_there(monkeypatch):
    def tiny_numbers():
        return float(torch.tensor([1e-40]) * 1.0)

    seen, images = [], tiny(dtype="float32")
    spy_on_steps(monkeypatch, lambda optimizer: seen.append(tiny_numbers()))
    for before in (False, True):
        assert torch.set_flush_denormal(before), "this processor cannot"
        try:
            train(build("vae", CONFIG, images), images, replace(PLAN, epochs=1))
            with pytest.raises(Stop):
                train(build("vae", CONFIG, images), stopping(images, 2), PLAN)
            assert (tiny_numbers() == 0) == before
        finally:
            torch.set_flush_denormal(False)
    assert set(seen) == {0.0}


def test_evaluation_is_the_mean_over_images_the_same_at_every_call_and_moves_no_generator():
    images = tiny()
    model = build("autoencoder", CONFIG, images)                        # no noise: minibatches of any size are comparable
    with torch.no_grad():
        want = -float(model.log_likelihood(images.x_test, model.encode(images.x_test)[0]).mean())
    for batch_size in (1000, 3, 7):
        assert evaluate(model, images.x_test, batch_size=batch_size)["loss"] == pytest.approx(want, rel=1e-12)
    model, state = build("vae", CONFIG, images), torch.get_rng_state()
    first, second = (evaluate(model, images.x_test) for _ in range(2))
    assert first == second and torch.equal(torch.get_rng_state(), state)
    assert first["loss"] == pytest.approx(-first["elbo"])


def test_an_epoch_between_evaluations_has_no_test_figure_and_the_last_has_one():
    images = tiny()
    rows = train(build("vae", CONFIG, images), images, replace(PLAN, epochs=5, evaluate_every=2))
    assert [("test" in row, "valid" in row) for row in rows] == [(False, False), (True, True)] * 2 + [(True, True)]


def test_the_report_gets_each_row_as_it_comes():
    images, told = tiny(), []
    rows = train(build("vae", CONFIG, images), images, PLAN, report=lambda row: told.append(dict(row)))
    assert told == rows


# ---- images ------------------------------------------------------------------------------------------------------------


def test_dynamic_images_are_drawn_anew_for_each_minibatch_and_the_labels_follow():
    images, data = tiny(), dataset()
    rows = torch.tensor([4, 1, 50])
    torch.testing.assert_close(images.x_train, torch.from_numpy(data.x_train).double())
    generator = torch.Generator().manual_seed(0)
    first, y = images.minibatch(rows, generator)
    second, _ = images.minibatch(rows, generator)
    assert y.tolist() == [4, 1, 50] and not torch.equal(first, second)
    draws = torch.stack([images.minibatch(rows, generator)[0] for _ in range(2000)])
    assert draws.dtype == torch.float64 and set(draws.unique().tolist()) == {0.0, 1.0}
    # a frequency over 2000 draws has a standard error of 0.011 at most; five of them for each of 96 pixels
    torch.testing.assert_close(draws.mean(dim=0), images.x_train[rows], rtol=0, atol=0.056)


@pytest.mark.parametrize("how", ["static", "threshold", "none"])
def test_other_images_stay_as_they_are(how):
    images, data = tiny(how), dataset()
    x, _ = images.minibatch(torch.arange(N), torch.Generator())
    torch.testing.assert_close(x, images.minibatch(torch.arange(N), torch.Generator())[0], rtol=0, atol=0)
    if how == "static":
        assert set(x.unique().tolist()) == {0.0, 1.0}
        assert float(x.mean()) == pytest.approx(float(data.x_train.mean()), abs=0.05)   # four standard errors, 1696 pixels
        assert not torch.equal(x, Images.of(data, how, dtype="float64", seed=1).x_train), "another seed, another draw"
    else:
        np.testing.assert_array_equal(x, data.x_train if how == "none" else data.x_train > 0.5)


def test_validation_and_test_images_are_binary_and_the_same_for_every_seed():
    for how in ("dynamic", "static"):
        one, two = (Images.of(dataset(), how, seed=seed) for seed in (0, 1))
        for part in ("x_valid", "x_test"):
            assert set(getattr(one, part).unique().tolist()) == {0.0, 1.0}, f"{part}, {how}"
            assert torch.equal(getattr(one, part), getattr(two, part)), f"{part}, {how}"
        np.testing.assert_array_equal(one.x_test, eval_images(dataset(), how), "levels 1 and 2 see other test images")
        twins = Images.of(dataset(x_valid=dataset().x_test), how)
        assert not torch.equal(twins.x_valid, twins.x_test), "the two parts are drawn with the same numbers"


def test_a_minibatch_lights_a_pixel_as_often_as_its_gray_says_and_has_the_labels_of_its_rows():
    gray, count = torch.tensor([[0, 0.1, 0.5, 0.9, 1], [1, 0.7, 0.2, 0.4, 0]]), 5000
    images, rows = Images(gray, gray, y_train=torch.tensor([7, 3]), dynamic=True), torch.tensor([1, 1, 0]).repeat(count)
    x, y = images.minibatch(rows, torch.Generator().manual_seed(0))
    assert set(x.unique().tolist()) == {0, 1} and torch.equal(y, 7 - 4 * rows)
    for row in (0, 1):
        error = (gray[row] * (1 - gray[row]) / count).sqrt()             # black and white have none
        assert ((x[rows == row].mean(dim=0) - gray[row]).abs() <= 5 * error).all(), row


def test_gray_and_binary_images_take_their_default_treatment():
    assert Images.of(dataset()).dynamic and not Images.of(dataset(), likelihood="gaussian").dynamic
    x = ((np.random.default_rng(0).random((N, 32)) < 0.3) * 255).astype(np.uint8)
    for how in (None, "dynamic", "static"):
        images = Images.of(dataset(x_train=x, binary=True), how)
        assert not images.dynamic
        np.testing.assert_array_equal(images.x_train, x / np.float32(255))


# ---- early stopping ----------------------------------------------------------------------------------------------------


def scripted_validation(monkeypatch, images, losses):
    """The validation loss follows a script; everything else is as it is."""
    script, original = iter(losses), train_paper.evaluate

    def scripted(model, x, y=None, batch_size=1000):
        return {"loss": next(script)} if x is images.x_valid else original(model, x, y, batch_size)

    monkeypatch.setattr(train_paper, "evaluate", scripted)


@pytest.mark.parametrize("patience, every, stop, best", [(1, 1, 4, 3), (2, 1, 5, 3), (3, 1, 9, 6), (0, 1, 12, None),
                                                         (2, 2, 12, 12), (1, 3, 6, 3)])
def test_early_stopping_waits_for_as_many_evaluations_and_takes_the_best_weights(monkeypatch, patience, every, stop, best):
    images, after = tiny(), []
    script = {1: [5.0, 4, 3, 3.5, 3.2, 2.9, 3, 3, 3, 1, 1, 1], 2: [5.0, 4, 4.5, 3, 3.2, 2], 3: [3.0, 4, 2, 1]}[every]
    scripted_validation(monkeypatch, images, script)
    model = build("vae", CONFIG, images)
    rows = train(model, images, replace(PLAN, epochs=12, patience=patience, evaluate_every=every),
                 report=lambda row: after.append(weights(model)))
    assert len(rows) == stop, f"with patience {patience} of {script} it stopped after epoch {len(rows)}"
    assert_same_weights(weights(model), after[best - 1] if best else after[-1])
    assert not np.array_equal(after[0]["encoder.mu.weight"], after[2]["encoder.mu.weight"])


def test_a_model_that_overfits_is_stopped_at_its_best_validation_loss():
    images = tiny("static", x_train=dataset().x_train[:12], y_train=None)
    model = build("vae", replace(CONFIG, hidden=50), images)
    plan = Plan(epochs=300, batch_size=12, lr=0.02, patience=5)
    rows = train(model, images, plan)
    losses = [row["valid"]["loss"] for row in rows]
    assert len(rows) < 300 and len(rows) - 1 - int(np.argmin(losses)) == 5
    assert evaluate(model, images.x_valid)["loss"] == pytest.approx(min(losses), rel=1e-12)
    assert min(losses) < losses[-1] - 1e-3, "the last weights are as good: there was nothing to take back"


def test_a_set_without_a_validation_part_gives_up_a_tenth_and_says_so(capsys):
    data = dataset(x_valid=None, y_valid=None)
    held = hold_out(data)
    assert "tiny has no validation part: the last 5 of its 53 training images are held out" in capsys.readouterr().out
    np.testing.assert_array_equal(np.concatenate([held.x_train, held.x_valid]), data.x_train)
    np.testing.assert_array_equal(np.concatenate([held.y_train, held.y_valid]), data.y_train)
    assert len(held.x_valid) == 5 and held.x_test is data.x_test
    for count, valid in ((2, 1), (9, 1), (20, 2)):
        assert len(hold_out(dataset(x_train=data.x_train[:count], y_train=None)).x_valid) == valid
    with pytest.raises(InputError, match="one training image"):
        hold_out(dataset(x_train=data.x_train[:1], y_train=None))


# ---- going on ----------------------------------------------------------------------------------------------------------


class Stop(Exception):
    """What ends a run in these tests, where in life it is a signal."""


def clock(monkeypatch, seconds):
    """Each look at the clock takes so long: a checkpoint is due every five seconds."""
    now = [0.0]

    def perf_counter():
        now[0] += seconds
        return now[0]

    monkeypatch.setattr(train_paper, "time", SimpleNamespace(perf_counter=perf_counter))


def stopping(images, step):
    """The same images; drawing the minibatch of this number, counted from 1, raises Stop."""
    images, calls, minibatch = replace(images), [], images.minibatch

    def counted(rows, generator):
        calls.append(1)
        if len(calls) == step:
            minibatch(rows, generator)                  # in the middle of a step, the generator moved already
            raise Stop
        return minibatch(rows, generator)

    images.minibatch = counted
    return images


RESUMABLE = {
    "adam": {}, "adagrad": {"optimizer": "adagrad", "weight_decay": 0.01}, "one-cycle": {"schedule": "one-cycle"},
    "staircase": {"schedule": "staircase", "weight_prior": True}, "patience": {"patience": 3, "lr": 0.05},
    "adagrad patience": {"optimizer": "adagrad", "patience": 3, "lr": 0.3}, "rare": {"evaluate_every": 4},
}


@pytest.mark.parametrize("name, dtype, step, seconds", [
    *((name, "float32", 14, 6.0) for name in RESUMABLE), *((name, "float64", 14, 2.0) for name in RESUMABLE),
    *(("adam", "float32", step, seconds) for step, seconds in ((2, 6.0), (14, 0.0), (18, 1.6)))])
def test_a_run_stopped_in_mid_epoch_goes_on_as_if_it_had_never_stopped(tmp_path, monkeypatch, name, dtype, step, seconds):
    """Bit for bit: before the first checkpoint, after a fresh one, after one some epochs old, and where none was due."""
    images, plan = tiny(dtype=dtype), replace(PLAN, epochs=8, **RESUMABLE[name])
    whole = build("vae", CONFIG, images)
    rows = train(whole, images, plan)
    clock(monkeypatch, seconds)
    with pytest.raises(Stop):
        train(build("vae", CONFIG, images), stopping(images, step), plan, tmp_path / "checkpoint.npz")
    done = (len(load_checkpoint(tmp_path / "checkpoint.npz")[1]["rows"]) if (tmp_path / "checkpoint.npz").exists() else 0)
    assert done <= (step - 1) // STEPS and (done > 0) == (step > 2 and seconds > 0), f"the checkpoint holds epoch {done}"
    told, again = [], build("vae", CONFIG, images, seed=9)              # other weights: they come from the checkpoint
    if not done:
        again = build("vae", CONFIG, images)
    resumed = train(again, images, plan, tmp_path / "checkpoint.npz", told.append)
    assert without_times(resumed) == without_times(rows)
    assert [row["epoch"] for row in told] == list(range(done + 1, len(rows) + 1))
    assert_same_weights(weights(again), weights(whole))
    once_more = build("vae", CONFIG, images, seed=9)                    # after the end there is nothing to do
    assert without_times(train(once_more, images, plan, tmp_path / "checkpoint.npz")) == without_times(rows)
    assert_same_weights(weights(once_more), weights(whole))


def test_the_best_weights_survive_a_stop(tmp_path, monkeypatch):
    """The best epoch lies before the stop, so that only the checkpoint knows its weights."""
    images, plan = tiny(), replace(PLAN, epochs=8, patience=4)
    script, after = [5.0, 3.0, 4.0, 4.1, 4.2, 4.3], []
    with monkeypatch.context() as patch:
        scripted_validation(patch, images, script)
        model = build("vae", CONFIG, images)
        train(model, images, plan, report=lambda row: after.append(weights(model)))
    clock(monkeypatch, 6.0)
    stopped = stopping(images, 4 * STEPS + 2)
    scripted_validation(monkeypatch, images, script)
    with pytest.raises(Stop):
        train(build("vae", CONFIG, images), stopped, plan, tmp_path / "checkpoint.npz")
    resumed = build("vae", CONFIG, images, seed=9)
    rows = train(resumed, images, plan, tmp_path / "checkpoint.npz")
    assert len(rows) == len(after) == 6
    assert_same_weights(weights(resumed), after[1])


@pytest.mark.parametrize("name", MODELS)
def test_every_model_resumes_also_after_a_stop_in_the_report(tmp_path, monkeypatch, name):
    images, plan, config = tiny(), replace(PLAN, epochs=4), config_of(name)
    whole = build(name, config, images)
    train(whole, images, plan)
    clock(monkeypatch, 6.0)

    def report(row):
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        train(build(name, config, images), images, plan, tmp_path / "checkpoint.npz", report)
    assert len(load_checkpoint(tmp_path / "checkpoint.npz")[1]["rows"]) == 2
    again = build(name, config, images, seed=9)
    train(again, images, plan, tmp_path / "checkpoint.npz")
    assert_same_weights(weights(again), weights(whole))


def test_a_finished_run_can_be_made_longer_unless_a_schedule_ended_it(tmp_path):
    images = tiny()
    whole, parts = build("vae", CONFIG, images), build("vae", CONFIG, images)
    train(whole, images, replace(PLAN, epochs=5))
    train(parts, images, replace(PLAN, epochs=2), tmp_path / "checkpoint.npz")
    train(parts, images, replace(PLAN, epochs=5), tmp_path / "checkpoint.npz")
    assert_same_weights(weights(parts), weights(whole))

    plan = replace(PLAN, epochs=2, schedule="one-cycle")
    train(parts, images, plan, tmp_path / "scheduled.npz")
    with pytest.raises(InputError, match="scheduled.npz is of a run with epochs 2, not 5"):
        train(parts, images, replace(plan, epochs=5), tmp_path / "scheduled.npz")


# ---- checkpoints that are refused --------------------------------------------------------------------------------------


def refused(path, images, plan=PLAN, model=None) -> str:
    """The one line with which train refuses the checkpoint; the file stays as it is."""
    before = path.read_bytes()
    with pytest.raises(InputError) as refusal:
        train(build("vae", CONFIG, images) if model is None else model, images, plan, path)
    line = str(refusal.value)
    assert "\n" not in line and str(path) in line, line
    assert path.read_bytes() == before, "a refused checkpoint was written to"
    return line


@pytest.fixture
def checkpoint(tmp_path):
    images = tiny()
    train(build("vae", CONFIG, images), images, PLAN, tmp_path / "checkpoint.npz")
    return tmp_path / "checkpoint.npz"


OTHER_PLANS = {"batch_size": 19, "optimizer": "adagrad", "lr": 0.02, "schedule": "one-cycle", "adam_eps": 1e-4,
               "matmul": "high", "weight_decay": 0.1, "weight_prior": True, "patience": 2, "evaluate_every": 2, "seed": 1}


def test_the_plans_below_differ_in_everything_but_the_epochs():
    assert set(OTHER_PLANS) == {item.name for item in fields(Plan)} - {"epochs"}


@pytest.mark.parametrize("name", OTHER_PLANS)
def test_a_checkpoint_of_another_plan_is_refused(checkpoint, name):
    line = refused(checkpoint, tiny(), replace(PLAN, **{name: OTHER_PLANS[name]}))
    assert f"{name} {getattr(PLAN, name)}" in line and str(OTHER_PLANS[name]) in line, line


@pytest.mark.parametrize("name, settings, words", [
    ("vae", {"latent": 2}, "latent=2"), ("vae", {"hidden": 8}, "hidden=8"), ("vae", {"layers": 2}, "layers=2"),
    ("vae", {"arch": "conv"}, "conv"), ("vae", {"likelihood": "gaussian"}, "gaussian"),
    ("autoencoder", {}, "Autoencoder"), ("iwae", {}, "IWAE")])
def test_a_checkpoint_of_another_model_is_refused(checkpoint, name, settings, words):
    """An autoencoder and an IWAE have a VAE's weights: only their names tell them apart."""
    images = tiny()
    assert words in refused(checkpoint, images, model=build(name, replace(CONFIG, **settings), images))


def test_a_checkpoint_of_an_iwae_with_another_k_is_refused(tmp_path):
    images, path = tiny(), tmp_path / "checkpoint.npz"
    train(build("iwae", CONFIG, images, k=2), images, PLAN, path)
    assert "k=2" in refused(path, images, model=build("iwae", CONFIG, images, k=3))
    train(build("iwae", CONFIG, images, k=2), images, PLAN, path)


def damage(path, kind):
    """Makes a good checkpoint a bad one."""
    groups, facts = load_checkpoint(path)
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[:len(content) // 2])
    elif kind == "one byte off":
        middle = len(content) // 3
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:])
    elif kind == "text":
        path.write_text("epoch 3\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickled":
        with open(path, "wb") as file:
            np.savez(file, facts=np.array([Bomb(path.with_name("it went off"))], dtype=object))
    elif kind == "weights":
        VAE(CONFIG).save(path)
    elif kind == "facts a list":
        save_checkpoint(path, groups, [1, 2])
    elif kind.startswith("without "):
        name = kind.removeprefix("without ")
        save_checkpoint(path, {group: arrays for group, arrays in groups.items() if group != name},
                        {fact: value for fact, value in facts.items() if fact != name})
    elif kind == "a weight misshapen":
        save_checkpoint(path, groups | {"params": groups["params"] | {"encoder.mu.bias": np.zeros(7)}}, facts)
    elif kind == "a generator of another kind":
        save_checkpoint(path, groups | {"generator": {"state": np.zeros(7, np.uint8)}}, facts)


@pytest.mark.parametrize("kind", ["truncated", "one byte off", "text", "empty", "pickled", "weights", "facts a list",
                                  "without params", "without optimizer", "without generator", "without plan",
                                  "without rows", "a weight misshapen", "a generator of another kind"])
def test_a_damaged_checkpoint_is_refused_in_one_line_and_kept(checkpoint, kind):
    damage(checkpoint, kind)
    refused(checkpoint, tiny())
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.npz"], "a pickled object was loaded"


# ---- divergence --------------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_says_so_in_one_line(tmp_path):
    images = Images.of(dataset(), likelihood="gaussian")
    model = build("vae", replace(CONFIG, likelihood="gaussian"), images)
    with pytest.raises(InputError, match=r"loss is (nan|inf).* in epoch \d.*smaller lr than 1e\+20") as error:
        train(model, images, replace(PLAN, lr=1e20), tmp_path / "checkpoint.npz")
    assert "\n" not in str(error.value) and not (tmp_path / "checkpoint.npz").exists()


@pytest.mark.parametrize("patience", [0, 2])
def test_weights_that_go_bad_in_the_last_step_are_not_kept(tmp_path, monkeypatch, patience):
    """No training loss shows it any more, only the evaluation."""
    images, steps = tiny(), []

    def poison(optimizer):
        steps.append(1)
        if len(steps) == PLAN.epochs * STEPS:
            optimizer.param_groups[0]["params"][0].grad[0] = float("nan")

    clock(monkeypatch, 6.0)
    spy_on_steps(monkeypatch, poison)
    told = []
    with pytest.raises(InputError, match="loss is nan in epoch 3"):
        train(build("vae", CONFIG, images), images, replace(PLAN, patience=patience), tmp_path / "checkpoint.npz",
              told.append)
    assert len(told) == 2, "the epoch was reported as if it had been a good one"
    groups, facts = load_checkpoint(tmp_path / "checkpoint.npz")
    assert len(facts["rows"]) == 2 and all(np.isfinite(array).all() for array in groups["params"].values())


# ---- the command line --------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self):
        """The epoch lines without the time they took."""
        return [line.rpartition(" | ")[0] for line in self.out.splitlines() if line.startswith("epoch ")]


def run(*options) -> Outcome:
    """The command line in this process; options may be strings of several words, and paths."""
    argv = [word for item in options for word in (item.split() if isinstance(item, str) else [str(item)])]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run_command(lambda: train_paper.main(argv))
        except SystemExit as end:                                       # argparse
            code = end.code
    return Outcome(code, out.getvalue(), err.getvalue())


def good(*options) -> Outcome:
    outcome = run(*options)
    said = [line for line in outcome.err.splitlines() if not line.startswith("warning: gray pixels")]
    assert outcome.code == 0 and not said, f"ended with {outcome.code}: {outcome.err}"
    return outcome


@pytest.fixture
def pictures():
    """A test that asks for this lets the run draw its pictures, which takes most of a second."""


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(train_paper, "draw_pictures", lambda *arguments: None)
        monkeypatch.setattr(train_paper, "machine", lambda: {"processor": "a test's"})         # it asks git, twice


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Options for a run on 53 gray images without a validation part."""
    path, data = tmp_path_factory.mktemp("images") / "images.npz", dataset()
    np.savez(path, x_train=data.x_train.reshape(-1, 8, 4), x_test=data.x_test.reshape(-1, 8, 4))
    return "--hidden 9 --latent 3 --batch-size 20 --epochs 3 --lr 0.01 --data npz --data-file", path


def fitting(tiny_run, option):
    """tiny_run, for the model of this option: a VQ-VAE takes no sizes."""
    words, path = tiny_run
    return words.replace("--hidden 9 --latent 3 ", "") if "vq-vae" in option else words, path


BAD_OPTIONS = [
    # options, what the error line must name
    ("--layers 3", "layers", "3", "1 or 2"), ("--layers 2 --arch conv", "layers", "conv"),
    ("--latent 0", "latent", "0", "at least 1"), ("--hidden -1", "hidden", "-1"), ("--latent 2.5", "--latent", "2.5"),
    ("--beta 2", "--beta", "beta-vae or pixel-vae", "not vae"), ("--model beta-vae --beta -1", "beta is -1.0"),
    ("--model beta-vae --capacity 5", "capacity 5.0", "gamma"), ("--model beta-vae --warmup 2", "warmup is 2.0"),
    ("--model vq-vae --codes 1", "codes is 1"), ("--model vq-vae --latent 3", "--latent 3 is of no use"),
    ("--model ladder-vae --depth 0", "depth is 0"), ("--model ladder-vae --layers 2", "--layers 2 is of no use"),
    ("--model ladder-vae --batch-size 1", "batch_size 1 leaves one", "another"), ("--no-ema", "ema", "vq-vae, not vae"),
    ("--model pixel-vae --binarize none", "pixel-vae", "--binarize none"),
    ("--model conditional-vae --data npz --data-file IMAGES", "no labels"),
    ("--model full-vb --weight-prior", "full-vb", "--weight-prior"), ("--model full-vb --weight-decay 1", "--weight-decay"),
    ("--model gan", "--model", "gan", "iwae"), ("--model iwae --k 0", "k is 0", "at least 1"), ("--k few", "--k", "few"),
    ("--device nonsense", "--device", "nonsense", "cpu"), ("--device cuda:99", "--device", "cuda:99", "cpu"),
    ("--device meta", "--device", "meta", "cpu"),
    ("--data npz", "--data npz", "--data-file"), ("--data-file IMAGES", "--data-file", "--data npz"),
    ("--data npz --data-file /nowhere.npz", "/nowhere.npz"), ("--data cifar", "--data", "cifar", "mnist"),
    ("--data frey --data-dir /nowhere/at/all", "/nowhere/at/all", "--data-dir"),
    ("--data frey --data-dir EMPTY", "EMPTY", "frey_rawface.mat"),
    ("--epochs 0", "epochs", "at least 1"), ("--batch-size 0", "batch_size", "at least 1"),
    ("--evaluate-every 0", "evaluate_every", "at least 1"), ("--epochs 1.5", "--epochs", "1.5"),
    ("--patience -1", "patience", "-1", "at least 0"), ("--seed -1", "seed", "-1"),
    ("--weight-decay -0.1", "weight_decay", "-0.1"), ("--weight-decay nan", "weight_decay", "nan"),
    ("--adam-eps -1", "adam_eps", "-1"), ("--lr 0", "lr", "positive"), ("--lr nan", "lr", "nan"), ("--lr inf", "lr", "inf"),
    ("--schedule cosine", "--schedule", "cosine", "one-cycle"), ("--optimizer sgd", "--optimizer", "sgd", "adagrad"),
    ("--fixed-logvar -1", "fixed_logvar", "bernoulli"), ("--likelihood laplace", "--likelihood", "laplace"),
    ("--binarize sometimes", "--binarize", "dynamic"), ("--dtype float16", "--dtype", "float32"),
    ("--arch conv --data npz --data-file ODD", "conv", "7 x 5", "divide by 4"), ("--lat 3", "--lat"), ("digits", "digits"),
]


@pytest.mark.parametrize("options, words", [(options, words) for options, *words in BAD_OPTIONS],
                         ids=[options for options, *_ in BAD_OPTIONS])
def test_a_bad_option_ends_with_2_and_one_line_that_names_it(tmp_path, tiny_run, monkeypatch, options, words):
    monkeypatch.delenv("VAE_DATA", raising=False)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "odd.npz", x_train=np.zeros((4, 7, 5)))
    places = {"IMAGES": tiny_run[1], "EMPTY": tmp_path / "empty", "ODD": tmp_path / "odd.npz"}
    for name, place in places.items():
        options, words = options.replace(name, str(place)), [word.replace(name, str(place)) for word in words]
    outcome = run(options, "--out", tmp_path / "out")
    assert outcome.code == 2, f"expected exit code 2, got {outcome.code}: {outcome.err}"
    line = error_line(outcome.err)
    assert all(word in line for word in words), f"{words} should be named in: {line}"
    assert outcome.lines == [] and not (tmp_path / "out").exists(), "a refused command wrote to --out"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device, which --device cuda would use")
def test_a_missing_gpu_is_an_error_not_a_slow_run_on_the_cpu(tmp_path):
    assert "--device cuda" in error_line(run("--device cuda --out", tmp_path / "out").err)


@pytest.mark.parametrize("inside", ["", "below"])
def test_out_that_is_a_file_is_refused_and_kept(tmp_path, tiny_run, inside):
    (tmp_path / "file").write_text("mine")
    outcome = run(*tiny_run, "--out", tmp_path / "file" / inside)
    assert outcome.code == 2 and str(tmp_path / "file" / inside) in error_line(outcome.err)
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_help_lists_every_option_with_a_text():
    outcome = run("--help")
    assert outcome.code == 0 and outcome.err == ""
    for group in (Choice, Plan):
        for item in fields(group):
            flag, text = "--" + item.name.replace("_", "-"), item.metadata["help"]
            assert re.search(rf"^  {flag}\b", outcome.out, re.MULTILINE), f"--help does not list {flag}"
            # without blanks, since argparse also breaks lines at hyphens
            assert text and "".join(text.split()) in "".join(outcome.out.split()), f"--help does not explain {flag}"


def test_small_data_sets_have_defaults_of_their_own_which_the_user_overrides(tmp_path, tiny_run, monkeypatch):
    plans = []
    monkeypatch.setattr(train_paper, "train", lambda model, images, plan, *rest: plans.append(plan) or [])
    for options in ("", "--epochs 3 --lr 0.5", "--epochs 3", f"--data npz --data-file {tiny_run[1]}"):
        good(options, "--hidden 4 --out", tmp_path)
    assert [(plan.epochs, plan.lr) for plan in plans] == [(200, 0.01), (3, 0.5), (3, 0.01), (20, 0.001)]


OPTIONS = ["--seed 1", "--batch-size 19", "--epochs 4", "--hidden 8", "--latent 2", "--layers 2", "--arch conv",
           "--optimizer adagrad", "--lr 0.02", "--schedule one-cycle", "--schedule staircase", "--adam-eps 0.01",
           "--weight-decay 0.1", "--weight-prior", "--binarize static", "--binarize threshold", "--binarize none",
           "--likelihood gaussian", "--likelihood gaussian --fixed-logvar -1", "--dtype float64", "--model iwae",
           "--model iwae --k 2", "--model autoencoder", "--patience 2", "--evaluate-every 2",
           *(f"--model beta-vae {own}" for own in ("--beta 2", "--gamma 3", "--gamma 3 --capacity 4", "--free-bits 0.5",
                                                   "--warmup 0.5", "--warmup 0.5 --cycles 2")),
           "--model vq-vae", "--model vq-vae --codes 7", "--model vq-vae --no-ema", "--model hierarchical-vae",
           "--model hierarchical-vae --depth 3", "--model ladder-vae", "--model ladder-vae --warmup 0.9",
           "--model pixel-vae", "--model pixel-vae --free-bits 1", "--model pixel-vae --gamma 3 --capacity 4"]


def test_every_option_changes_the_numbers(tmp_path, tiny_run):
    rows = {}
    for option in ("", *OPTIONS):
        good(*fitting(tiny_run, option), option, "--out", tmp_path)
        row = json.loads((tmp_path / "metrics.json").read_text())["rows"]
        rows[option] = json.dumps(without_times(row))
    alike = [(one, other) for one in rows for other in rows if one < other and rows[one] == rows[other]]
    assert not alike, f"these give the same numbers: {alike}"


def test_the_options_above_are_all_that_change_numbers():
    known = {"--" + item.name.replace("_", "-") for group in (Choice, Plan) for item in fields(group)}
    words = {word.replace("--no-", "--") for option in OPTIONS for word in option.split() if word.startswith("--")}
    assert words == known - {"--data", "--data-file", "--data-dir", "--device", "--out", "--resume", "--matmul"}


def test_a_run_prints_its_rows_and_leaves_them_with_the_weights(tmp_path, tiny_run):
    outcome = good(*tiny_run, "--out", tmp_path / "deep" / "out")
    told = json.loads((tmp_path / "deep" / "out" / "metrics.json").read_text())
    assert [row["epoch"] for row in told["rows"]] == [1, 2, 3] and len(outcome.lines) == 3
    for line, row in zip(outcome.lines, told["rows"], strict=True):
        numbers = [float(number) for number in re.findall(r"-?\d+\.\d+", line)]
        terms = [row[part][name] for part in ("train", "test") for name in ("elbo", "log_likelihood", "kl")]
        assert numbers == pytest.approx(terms, abs=0.00501), line
    assert told["choice"]["latent"] == 3 and told["plan"]["lr"] == 0.01 and "machine" in told
    assert str(tmp_path / "deep" / "out") in outcome.out.splitlines()[-1]
    # the weights are those of the last row
    images = Images.of(load_dataset("npz", data_file=tiny_run[1]))
    model = VAE.load(tmp_path / "deep" / "out" / "params.npz")
    assert evaluate(model, images.x_test)["loss"] == pytest.approx(told["rows"][-1]["test"]["loss"], rel=1e-6)


def test_the_same_seed_gives_the_same_run_and_a_rerun_begins_anew(tmp_path, tiny_run):
    first, second = good(*tiny_run, "--out", tmp_path), good(*tiny_run, "--out", tmp_path)
    assert first.lines == second.lines and len(first.lines) == 3


def test_resume_on_the_command_line_goes_on_and_equals_one_run(tmp_path, tiny_run):
    whole = good(*tiny_run, "--epochs 5 --out", tmp_path / "whole")
    first = good(*tiny_run, "--epochs 2 --resume --out", tmp_path / "parts")            # nothing there: from the beginning
    second = good(*tiny_run, "--epochs 5 --resume --out", tmp_path / "parts")
    assert first.lines + second.lines == whole.lines and len(second.lines) == 3
    got, want = (load_params(tmp_path / name / "params.npz")[0] for name in ("parts", "whole"))
    assert_same_weights(got, want)


@pytest.mark.parametrize("option", ["--lr 0.5", "--latent 4", "--model iwae", "--model autoencoder", "--binarize static"])
def test_resume_with_another_option_is_refused_and_changes_nothing(tmp_path, tiny_run, option):
    good(*tiny_run, "--out", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    outcome = run(*tiny_run, option, "--epochs 9 --resume --out", tmp_path)
    assert outcome.code == 2 and str(tmp_path) in error_line(outcome.err)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_gray_pixels_under_a_bernoulli_are_warned_of(tmp_path, tiny_run):
    assert good(*tiny_run, "--binarize none --out", tmp_path).err.startswith("warning: gray pixels")
    assert good(*tiny_run, "--out", tmp_path).err == ""


def test_a_diverging_run_ends_with_2_and_one_line(tmp_path, tiny_run):
    outcome = run(*tiny_run, "--likelihood gaussian --lr 1e20 --out", tmp_path)
    assert outcome.code == 2 and "lr" in error_line(outcome.err) and outcome.lines == []
    assert not (tmp_path / "params.npz").exists()


def test_early_stopping_without_a_validation_part_says_what_is_held_out(tmp_path, tiny_run):
    outcome = good(*tiny_run, "--patience 2 --out", tmp_path / "stopping")
    assert "the last 5 of its 53 training images are held out" in outcome.out
    assert all(" | valid elbo " in line for line in outcome.lines)
    assert "held out" not in good(*tiny_run, "--out", tmp_path / "plain").out
    digits = good("--hidden 4 --epochs 1 --patience 2 --out", tmp_path / "digits")
    assert "held out" not in digits.out and " | valid elbo " in digits.lines[0], "digits has a validation part"


@pytest.mark.parametrize("options, expected", [
    ("--model vae", {"reconstructions.png", "latent_scatter.png", "prior_samples.png"}),
    ("--model vae --latent 2", {"reconstructions.png", "latent_scatter.png", "prior_samples.png", "manifold.png"}),
    ("--model autoencoder --latent 2", {"reconstructions.png", "latent_scatter.png"}),
    ("--model vq-vae", {"reconstructions.png"}),
    ("--model hierarchical-vae --latent 2", {"reconstructions.png", "latent_scatter.png", "prior_samples.png"}),
    ("--model pixel-vae", {"reconstructions.png", "latent_scatter.png", "prior_samples.png"}),
])
def test_a_run_draws_the_pictures_of_its_model(tmp_path, tiny_run, options, expected, pictures):
    good(*fitting(tiny_run, options), options, "--out", tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == expected
    assert {path.name for path in tmp_path.iterdir()} - expected == {"params.npz", "metrics.json", "checkpoint.npz"}
    for path in tmp_path.glob("*.png"):
        picture = matplotlib.image.imread(path)
        assert picture.ndim == 3 and min(picture.shape[:2]) > 20 and picture[..., :3].std() > 0.01, f"{path.name} is blank"


# ---- on a GPU ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name, settings", [*((name, {}) for name in MODELS), ("vae", {"arch": "conv"})], ids=str)
@pytest.mark.parametrize("plan", [PLAN, replace(PLAN, schedule="one-cycle", weight_prior=True),
                                  replace(PLAN, optimizer="adagrad", patience=2), replace(PLAN, batch_size=N),
                                  replace(PLAN, batch_size=60)], ids=["adam", "one-cycle", "adagrad", "whole", "larger"])
def test_on_a_gpu_recorded_steps_train_as_eager_ones_do(monkeypatch, name, settings, plan):
    """The same draws, the same losses: also in the last, partial minibatch, which no graph was recorded for."""
    images = Images.of(dataset(), device="cuda", dtype="float64")
    config = replace(config_of(name), **settings)
    models, runs = [build(name, config, images) for _ in range(2)], []
    runs.append(train(models[0], images, plan))
    with monkeypatch.context() as patch:
        patch.setattr(train_paper, "GraphStep", lambda forward_backward, *rest: forward_backward)
        runs.append(train(models[1], images, plan))
    for recorded, eager in zip(*runs, strict=True):
        for part in ("train", "valid", "test"):
            # the same kernels in the same order; atomics and algorithms chosen by trial may add in another
            assert recorded[part] == pytest.approx(eager[part], rel=1e-9), f"epoch {eager['epoch']}, {part}"
    for (weight, one), other in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9, msg=lambda text, weight=weight: f"{weight}: {text}")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_stopped_run_goes_on_as_if_it_had_never_stopped(tmp_path, monkeypatch):
    images, plan = Images.of(dataset(), device="cuda", dtype="float64"), replace(PLAN, epochs=5, patience=4)
    whole, again = build("vae", CONFIG, images), build("vae", CONFIG, images, seed=9)
    rows = train(whole, images, plan)
    clock(monkeypatch, 6.0)

    def report(row):
        if row["epoch"] == 3:
            raise Stop

    with pytest.raises(Stop):
        train(build("vae", CONFIG, images), images, plan, tmp_path / "checkpoint.npz", report)
    resumed = train(again, images, plan, tmp_path / "checkpoint.npz")
    for one, other in zip(resumed, rows, strict=True):
        for part in ("train", "valid", "test"):
            assert one[part] == pytest.approx(other[part], rel=1e-9)    # additions in another order


# ---- a real process ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(2000)                                              # 40 seconds, more where the processor is shared
def test_a_killed_process_can_be_resumed(tmp_path):
    options = ["--hidden", "32", "--epochs", "1500", "--lr", "0.003"]   # some 20 seconds: a checkpoint is due every five

    def spawn(out, *more):
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "numpy")]), "PYTHONUNBUFFERED": "1"}
        words = [sys.executable, ROOT / "paper" / "train_paper.py", *options, *more, "--out", tmp_path / out]
        return subprocess.Popen(words, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    process, printed = spawn("parts"), 0
    try:
        for line in process.stdout:
            printed += line.startswith("epoch ")
            if (tmp_path / "parts" / "checkpoint.npz").exists():
                time.sleep(0.2)                                         # some steps into an epoch after it
                process.send_signal(signal.SIGKILL)
                break
        process.communicate(timeout=60)
    finally:
        process.kill()
    done = len(load_checkpoint(tmp_path / "parts" / "checkpoint.npz")[1]["rows"])
    assert 0 < done < 1500, f"the process should have been killed in the middle, not after epoch {done}"
    assert not (tmp_path / "parts" / "params.npz").exists()
    resumed = spawn("parts", "--resume")
    out, err = resumed.communicate(timeout=900)
    assert resumed.returncode == 0 and err == "", err
    assert sum(line.startswith("epoch ") for line in out.splitlines()) == 1500 - done
    whole = spawn("whole")
    out, err = whole.communicate(timeout=900)
    assert whole.returncode == 0 and err == "", err
    (got, config), (want, same) = (load_params(tmp_path / name / "params.npz") for name in ("parts", "whole"))
    assert config == same
    assert_same_weights(got, want)
    parts, whole = (json.loads((tmp_path / name / "metrics.json").read_text())["rows"] for name in ("parts", "whole"))
    assert without_times(parts) == without_times(whole)
