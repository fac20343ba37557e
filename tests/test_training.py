"""Whole training runs, in process: what they print, what they leave behind, and how they go on after a stop.

    pytest tests/test_training.py
    pytest tests/test_training.py -m slow          # real processes, interrupted and killed
"""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import matplotlib.image
import networks_numpy
import numpy as np
import pytest
import torch
import train_numpy
import vae_numpy

from common import figures, report
from common.checkpoints import load_checkpoint, load_params
from common.cli import Options, run_command
from common.config import VAEConfig, init_params
from common.data import EVAL_SEED, load_dataset
from common.run import Run
from pytorch_lowlevel import train_lowlevel, vae_lowlevel

ROOT = Path(__file__).resolve().parents[1]
LEVELS = {"numpy": train_numpy, "lowlevel": train_lowlevel}
SCRIPTS = {"numpy": "numpy/train_numpy.py", "lowlevel": "pytorch_lowlevel/train_lowlevel.py"}
SETTINGS = {                                        # per optimizer: every term of the objective has its turn
    "sgd": "--optimizer sgd --lr 0.002 --beta 0.5 --free-bits 0.3",
    "adagrad": "--optimizer adagrad --lr 0.01 --beta 4",
    "adam": "--optimizer adam --lr 0.003 --kl-warmup 2.5 --free-bits 0.1",
}
STILL = "--optimizer sgd --lr 1e-300"               # steps too small to change any weight
TIMING = ("seconds", "images_per_second")
FILES = {"config.json", "metrics.csv", "params.npz", "checkpoint.npz", "curve.png", "filmstrip.png",
         "kl_per_dimension.png", "latent_scatter.png", "manifold.png", "posterior_draws.png", "prior_samples.png",
         "reconstructions.png"}

each_level = pytest.mark.parametrize("level", LEVELS)
each_model = pytest.mark.parametrize("arch, likelihood", [(arch, likelihood) for arch in ("mlp", "conv")
                                                          for likelihood in ("bernoulli", "gaussian")])


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The epoch lines without their speed."""
        return [line.rpartition(" | ")[0] for line in self.out.splitlines() if line.startswith("epoch ")]


def run(level, *options) -> Outcome:
    """The command line of a level in this process; options may be strings of several words, and paths."""
    argv = [word for item in options for word in (item.split() if isinstance(item, str) else [str(item)])]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(lambda: LEVELS[level].main(argv))
    return Outcome(code, out.getvalue(), err.getvalue())


def train(level, *options) -> Outcome:
    """A run that must end well."""
    outcome = run(level, *options)
    assert outcome.code == 0, f"the run should have ended with 0, not {outcome.code}: {outcome.err}"
    return outcome


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Options for two tiny sets of gray images: 53 to train on, which batches of 20 do not divide, and 7 to test."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(5)
    options = {}
    for arch, (height, width) in {"mlp": (6, 5), "conv": (8, 12)}.items():
        # a brightness of its own for each image, so that the bounds of the images differ widely
        x = {name: rng.random((count, height, width)) * rng.random((count, 1, 1))
             for name, count in (("x_train", 53), ("x_test", 7))}
        np.savez(folder / f"{arch}.npz", **x)
        options[arch] = (f"--arch {arch} --hidden 9 --latent 3 --batch-size 20 --epochs 3 --data npz --data-file",
                         folder / f"{arch}.npz")
    return options


@pytest.fixture
def pictures():
    """A test that asks for this lets the run draw its pictures at the end, which takes most of a second."""


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(Run, "finish", lambda run: None)


def metrics(out) -> list[dict[str, float]]:
    """The rows of metrics.csv without how long they took."""
    with open(Path(out) / "metrics.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items() if name not in TIMING} for row in csv.DictReader(file)]


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def assert_same_run(out, expected):
    """Weights, optimizer and generator state, frames and curve of two runs are the same, bit for bit."""
    assert metrics(out) == metrics(expected), "the curves (metrics.csv) of the two runs differ"
    params, expected_params = load_params(Path(out) / "params.npz"), load_params(Path(expected) / "params.npz")
    assert params[1] == expected_params[1]
    for name, array in expected_params[0].items():
        assert params[0][name].dtype == array.dtype
        np.testing.assert_array_equal(params[0][name], array, f"params.npz: {name} differs between the two runs")
    (groups, facts), (expected_groups, expected_facts) = (load_checkpoint(Path(folder) / "checkpoint.npz")
                                                          for folder in (out, expected))
    assert {name: set(group) for name, group in groups.items()} == {name: set(group)
                                                                    for name, group in expected_groups.items()}
    for group, arrays in expected_groups.items():
        for name, array in arrays.items():
            assert groups[group][name].dtype == array.dtype
            np.testing.assert_array_equal(groups[group][name], array, f"checkpoint.npz: {group} {name} differs")
    for name in ("epoch", "rng", "state", "config"):
        assert facts[name] == expected_facts[name], f"checkpoint.npz: {name} differs between the two runs"


def stop_at_call(monkeypatch, level, optimizer, call):
    """Ctrl-C during the step of this number, counted from 1."""
    step, calls = LEVELS[level].STEPS[optimizer], []

    def interrupted(*arguments):
        calls.append(1)
        step(*arguments)
        if len(calls) == call:
            raise KeyboardInterrupt

    monkeypatch.setitem(LEVELS[level].STEPS, optimizer, interrupted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@each_model
def test_on_a_gpu_level_2_prints_what_it_prints_on_the_cpu(images, tmp_path, arch, likelihood):
    options = *images[arch], f"--likelihood {likelihood} --dtype float64"
    cpu, gpu = (train("lowlevel", *options, "--device", device, "--out", tmp_path / device) for device in ("cpu", "cuda"))
    assert cpu.lines == gpu.lines
    train("lowlevel", *options, "--device cuda --epochs 5 --resume --out", tmp_path / "cuda")


# ---- the thesis on screen: two levels, one run ------------------------------------------------------------------------


def assert_levels_agree(tmp_path, *options):
    """Both levels print the same epoch lines; behind the printed digits the curves agree to rounding."""
    one, two = (train(level, *options, "--dtype float64 --out", tmp_path / level) for level in LEVELS)
    assert len(one.lines) == 3, f"expected three epoch lines, got {one.out}"
    assert len(set(one.lines)) == 3, "the numbers stand still: there is nothing to compare"
    assert one.lines == two.lines, "level 1 (first) and level 2 print different epoch lines in float64"
    for row, other in zip(metrics(tmp_path / "numpy"), metrics(tmp_path / "lowlevel"), strict=True):
        for name, value in row.items():     # 9 steps let rounding, 1e-16 a number, grow a little
            assert other[name] == pytest.approx(value, rel=1e-9, abs=1e-11), f"epoch {row['epoch']:.0f}: {name}"


@each_model
@pytest.mark.parametrize("optimizer", SETTINGS)
def test_in_float64_both_levels_print_the_same_epoch_lines(images, tmp_path, arch, likelihood, optimizer):
    assert_levels_agree(tmp_path, *images[arch], f"--likelihood {likelihood}", SETTINGS[optimizer])


@pytest.mark.parametrize("how", ["dynamic", "static", "threshold", "none"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian --fixed-logvar -2"])
def test_in_float64_both_levels_see_the_same_binarized_images(images, tmp_path, how, likelihood):
    assert_levels_agree(tmp_path, *images["mlp"], f"--likelihood {likelihood} --binarize {how} --seed 3 --lr 0.01")


@each_model
def test_in_float32_both_levels_agree_within_hundredths_of_a_nat(images, tmp_path, arch, likelihood):
    for level in LEVELS:
        train(level, *images[arch], f"--likelihood {likelihood} --out", tmp_path / level)
    for row, other in zip(metrics(tmp_path / "numpy"), metrics(tmp_path / "lowlevel"), strict=True):
        for name, value in row.items():
            assert other[name] == pytest.approx(value, rel=0, abs=0.05), f"epoch {row['epoch']:.0f}: {name}"


def test_on_digits_in_float32_both_levels_agree_within_hundredths_of_a_nat(tmp_path):
    for level in LEVELS:
        train(level, "--hidden 16 --epochs 3 --out", tmp_path / level)
    for row, other in zip(metrics(tmp_path / "numpy"), metrics(tmp_path / "lowlevel"), strict=True):
        for name, value in row.items():
            assert other[name] == pytest.approx(value, rel=0, abs=0.05), f"epoch {row['epoch']:.0f}: {name}"


@each_level
def test_the_same_seed_gives_the_same_run(images, tmp_path, level):
    first = train(level, *images["mlp"], "--seed 7 --out", tmp_path / "first")
    second = train(level, *images["mlp"], "--seed 7 --out", tmp_path / "second")
    assert first.lines == second.lines
    assert_same_run(tmp_path / "second", tmp_path / "first")


@each_level
@pytest.mark.parametrize("option", ["--seed 1", "--batch-size 19", "--hidden 8", "--latent 2", "--optimizer sgd",
                                    "--optimizer adagrad", "--lr 0.002", "--beta 1.5", "--kl-warmup 3", "--free-bits 1",
                                    "--binarize static", "--binarize threshold", "--likelihood gaussian",
                                    "--likelihood gaussian --fixed-logvar -1", "--dtype float64"])
def test_every_option_changes_the_numbers(images, tmp_path, level, option):
    train(level, *images["mlp"], "--out", tmp_path / "plain")
    train(level, *images["mlp"], option, "--out", tmp_path / "other")
    assert metrics(tmp_path / "plain")[-1] != metrics(tmp_path / "other")[-1], f"{option} changes nothing"


@each_level
def test_another_seed_prints_other_lines(images, tmp_path, level):
    lines = {tuple(train(level, *images["mlp"], f"--seed {seed} --out", tmp_path).lines) for seed in (0, 1, 2)}
    assert len(lines) == 3, "different seeds print the same epoch lines"


# ---- what the figures mean --------------------------------------------------------------------------------------------


def bounds(params, x, eps):
    """The bound of every image of a Bernoulli mlp, in plain NumPy: (B,), nats."""
    def linear(name, x):
        return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    h = np.tanh(linear("encoder.hidden", x))
    mu, logvar = linear("encoder.mu", h), linear("encoder.logvar", h)
    p = 1 / (1 + np.exp(-linear("decoder.logits", np.tanh(linear("decoder.hidden", mu + np.exp(logvar / 2) * eps)))))
    log_likelihood = np.where(x == 1, np.log(p), np.log(1 - p)).sum(axis=1)
    return log_likelihood - 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)


@each_level
def test_the_train_figure_is_the_mean_over_images_not_over_minibatches(images, tmp_path, level):
    options, file = images["mlp"]
    train(level, options, file, STILL, "--dtype float64 --seed 4 --out", tmp_path)
    params, config = load_params(tmp_path / "params.npz")
    gray = load_dataset("npz", data_file=file).x_train
    rng = np.random.default_rng(4)
    init_params(config, rng)                                    # the first draws of the generator
    for row in metrics(tmp_path):
        order, batches = rng.permutation(53), []
        for start in (0, 20, 40):                               # 20, 20 and 13 images
            rows = gray[order[start:start + 20]]
            x = (rng.random(rows.shape, dtype=np.float32) < rows).astype(float)
            batches.append(bounds(params, x, rng.standard_normal((len(x), config.latent))))
        mean, mean_of_means = np.concatenate(batches).mean(), np.mean([batch.mean() for batch in batches])
        assert row["train_elbo"] == pytest.approx(mean, rel=1e-10), "train_elbo is not the mean over the images"
        assert abs(mean_of_means - mean) > 1e-3, "these images do not tell the two means apart"
        assert abs(row["train_elbo"] - mean_of_means) > 1e-3, "the last, partial minibatch counts as a full one"


@each_level
def test_the_kl_weight_rises_with_the_images_seen_and_stays(images, tmp_path, level, monkeypatch):
    seen, original = [], LEVELS[level].loss_and_grads

    def spy(params, x, eps, config, beta=1.0, free_bits=0.0):
        seen.append((beta, free_bits))
        return original(params, x, eps, config, beta, free_bits)

    monkeypatch.setattr(LEVELS[level], "loss_and_grads", spy)
    train(level, *images["mlp"], "--beta 3 --kl-warmup 2 --free-bits 0.25 --out", tmp_path)
    expected = [3 * (epoch + done / 53) / 2 for epoch in (0, 1) for done in (0, 20, 40)] + [3, 3, 3]
    assert [beta for beta, _ in seen] == pytest.approx(expected), "the weights of the KL term, step by step"
    assert {free_bits for _, free_bits in seen} == {0.25}


@each_level
@pytest.mark.parametrize("how", ["dynamic", "static", "threshold", "none"])
def test_an_epoch_shows_each_image_once_shuffled_and_binarized_as_asked(images, tmp_path, level, how, monkeypatch):
    seen, original = [], LEVELS[level].loss_and_grads

    def spy(params, x, *rest):
        seen.append(train_lowlevel.to_numpy(x).copy())
        return original(params, x, *rest)

    monkeypatch.setattr(LEVELS[level], "loss_and_grads", spy)
    options, file = images["mlp"]
    train(level, options, file, f"--binarize {how} --likelihood gaussian --lr 1e-4 --out", tmp_path)
    assert [len(x) for x in seen] == 3 * [20, 20, 13]
    epochs = [np.concatenate(seen[start:start + 3]) for start in (0, 3, 6)]
    assert not np.array_equal(epochs[0], epochs[1]), "the images come in the same order each epoch"
    first, second, third = ({row.tobytes() for row in epoch} for epoch in epochs)
    gray = load_dataset("npz", data_file=file).x_train
    if how in ("none", "threshold"):
        expected = gray if how == "none" else (gray > 0.5).astype(np.float32)
        assert first == second == third == {row.tobytes() for row in expected}
    else:
        assert all(np.isin(epoch, (0, 1)).all() for epoch in epochs)
        assert (first == second == third) == (how == "static"), f"{how} images over three epochs"
        assert np.concatenate(epochs).mean() == pytest.approx(gray.mean(), abs=0.05), "p(pixel = 1) is not its gray value"


@each_level
def test_the_test_images_and_their_noise_do_not_depend_on_the_seed(images, tmp_path, level):
    train(level, *images["mlp"], "--out", tmp_path)
    for seed in (1, 2):
        train(level, *images["mlp"], "--epochs 2", STILL, f"--seed {seed} --out", tmp_path / f"seed {seed}", "--init-from",
              tmp_path / "params.npz")
    one, two = metrics(tmp_path / "seed 1"), metrics(tmp_path / "seed 2")
    assert {row["test_elbo"] for row in one + two} == {metrics(tmp_path)[-1]["test_elbo"]}
    assert len({row["train_elbo"] for row in one + two}) == 4, "training noise should be new each epoch and for each seed"


@each_level
def test_the_test_figure_is_the_mean_bound_over_test_images_with_noise_of_its_own(tmp_path, level):
    """From the weights that the run left: one draw of N(0, I) for each image, over minibatches that do not divide 7."""
    config = VAEConfig("mlp", (2, 3), hidden=4, latent=3)
    rng = np.random.default_rng(0)
    params = {name: array + rng.normal(0, 0.5, array.shape) for name, array in init_params(config, rng).items()}
    x = (rng.random((7, 6)) < 0.5).astype(float)
    eps = np.random.default_rng(EVAL_SEED).standard_normal((7, 3))
    log_likelihood, kl = vae_numpy.elbo_terms(params, x, eps, config)
    if level == "numpy":
        terms = [train_numpy.evaluate(params, x, config, batch_size) for batch_size in (1000, 3)]
    else:
        tensors = train_lowlevel.to_tensors(params, "cpu")
        terms = [train_lowlevel.evaluate(tensors, x, config, "cpu", batch_size) for batch_size in (1000, 3)]
    for each in terms:
        assert each["log_likelihood"] == pytest.approx(log_likelihood.mean(), rel=1e-12)      # float64, another order
        assert each["kl"] == pytest.approx(kl.mean(), rel=1e-12)
        assert each["kl_per_latent"].sum() == pytest.approx(kl.mean(), rel=1e-12)


@each_level
def test_the_epoch_lines_show_what_metrics_csv_holds(images, tmp_path, level):
    outcome = train(level, *images["mlp"], "--epochs 12 --out", tmp_path)
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [row["epoch"] for row in rows] == list(range(1, 13)), "metrics.csv should have one row per epoch"
    lines = [line for line in outcome.out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 12 and len({len(line) for line in lines}) == 1, f"the lines are not aligned:\n{outcome.out}"
    for line, row in zip(lines, rows, strict=True):
        numbers = [float(n.replace(",", "")) for n in re.findall(r"(?<=\s)-?[\d,]+(?:\.\d+)?(?=\s)", line + " ")]
        names = ("epoch", "train_elbo", "test_elbo", "test_log_likelihood", "test_kl", "images_per_second")
        assert numbers == pytest.approx([row[name] for name in names], abs=0.501), line
        assert numbers[:5] == pytest.approx([row[name] for name in names[:5]], abs=0.00501), line
        for split in ("train", "test"):
            assert row[f"{split}_elbo"] == pytest.approx(row[f"{split}_log_likelihood"] - row[f"{split}_kl"])
        assert row["images_per_second"] == pytest.approx(53 / row["seconds"])
    assert outcome.err == "", "no warning and, outside a terminal, no progress bar"


@each_level
def test_training_improves_the_bound_on_digits(tmp_path, level):
    train(level, "--hidden 16 --epochs 1", STILL, "--out", tmp_path / "start")
    train(level, "--hidden 16 --epochs 2 --out", tmp_path / "run")
    start, (first, second) = metrics(tmp_path / "start")[-1], metrics(tmp_path / "run")
    for split in ("train_elbo", "test_elbo"):
        assert second[split] > first[split] > start[split] and second[split] > start[split] + 0.3, (
            f"two epochs should raise {split}: {start[split]:.2f}, {first[split]:.2f}, {second[split]:.2f}")


@each_level
def test_gray_pixels_under_bernoulli_are_warned_about(images, tmp_path, level):
    outcome = train(level, *images["mlp"], "--binarize none --out", tmp_path)
    assert len(outcome.err.splitlines()) == 1 and outcome.err.startswith("warning: "), outcome.err
    assert "gray" in outcome.err and "--binarize dynamic" in outcome.err, outcome.err


@each_level
def test_binary_pixels_and_a_gaussian_are_not_warned_about(images, tmp_path, level):
    x = (np.random.default_rng(0).random((20, 6, 5)) < 0.4) * np.uint8(255)
    np.savez(tmp_path / "binary.npz", x_train=x, x_test=x[:4])
    for options in (("--data npz --binarize none --hidden 4 --epochs 1 --data-file", tmp_path / "binary.npz"),
                    (*images["mlp"], "--likelihood gaussian --binarize none"), (*images["mlp"], "--binarize dynamic")):
        assert train(level, *options, "--out", tmp_path / "out").err == ""


@each_level
def test_binary_pixels_are_never_drawn_again(tmp_path, level):
    x = (np.random.default_rng(0).random((20, 6, 5)) < 0.4) * np.uint8(255)
    np.savez(tmp_path / "binary.npz", x_train=x, x_test=x[:4])
    runs = []
    for how in ("dynamic", "none"):
        train(level, f"--data npz --binarize {how} --hidden 4 --epochs 2 --out", tmp_path / how, "--data-file",
              tmp_path / "binary.npz")
        runs.append(metrics(tmp_path / how))
    assert runs[0] == runs[1]


def test_the_seconds_of_an_epoch_are_those_of_its_steps(images, tmp_path, monkeypatch):
    """What is told as speed leaves out the evaluation, the pictures of the filmstrip and the files."""
    clock = [0.0]
    monkeypatch.setattr("common.run.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    run = Run("numpy", Options.parse("numpy", "", [*images["mlp"][0].split(), str(images["mlp"][1]), "--out",
                                                   str(tmp_path)]))

    def passing(seconds, value):
        clock[0] += seconds
        return value

    run.begin(snapshot=lambda: passing(100, (run.params, {})), encode=None,
              evaluate=lambda: passing(10, {"log_likelihood": -2.0, "kl": 1.0}), decode_mean=lambda z: passing(1000, z))
    for epoch in (1, 2):
        for _, x in run.minibatches(epoch):
            run.add({"log_likelihood": passing(0.5, -3.0), "kl": 1.0}, len(x))
        run.end_epoch(epoch)
    assert [(row["seconds"], row["images_per_second"]) for row in run.rows] == [(1.5, 53 / 1.5)] * 2    # three steps each


def test_a_run_begins_as_the_average_of_its_training_images(images, tmp_path):
    """Not of the test images, which nothing that is trained may see."""
    run = Run("numpy", Options.parse("numpy", "", [*images["mlp"][0].split(), str(images["mlp"][1]), "--out",
                                                   str(tmp_path)]))
    with np.load(images["mlp"][1]) as arrays:
        mean = arrays["x_train"].reshape(53, -1).mean(axis=0)
    begun = 1 / (1 + np.exp(-run.params["decoder.logits.bias"].astype(float)))
    np.testing.assert_allclose(begun, mean, rtol=1e-5)                          # float32, 53 images: 1e-6 at most


# ---- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", SETTINGS)
def test_a_step_moves_every_entry_of_a_large_weight_as_it_moves_those_of_small_ones(optimizer):
    """Level 1 walks through a weight in blocks; the last one is seldom whole, and must not be left behind."""
    rng, pieces = np.random.default_rng(0), 5
    large, state, states = {"weight": rng.standard_normal((3, 2**15 + 7))}, {}, {}
    small = {str(i): part.copy() for i, part in enumerate(np.array_split(large["weight"].ravel(), pieces))}
    for _ in range(2):
        grads = {"weight": rng.standard_normal(large["weight"].shape)}
        cut = {str(i): part for i, part in enumerate(np.array_split(grads["weight"].ravel(), pieces))}
        train_numpy.STEPS[optimizer](large, grads, state, 0.01)
        train_numpy.STEPS[optimizer](small, cut, states, 0.01)
    np.testing.assert_array_equal(large["weight"].ravel(), np.concatenate(list(small.values())))       # entry by entry


# ---- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch, pictures):
    """What the pictures of a run are drawn from: the arguments of each function but the path, by its name."""
    got = {}
    for name in ("curve", "reconstructions", "prior_samples", "latent_scatter", "kl_per_dimension", "posterior_draws",
                 "filmstrip", "manifold"):
        monkeypatch.setattr(figures, name, lambda path, *given, name=name: got.update({name: given}))
    return got


def test_the_pictures_of_a_run_are_of_its_test_images_with_the_draws_that_their_titles_name(tmp_path, drawn):
    """A model that can be read: mu is the first two pixels, sigma 0.1, and the decoder shows z in its first two pixels."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x_train=rng.random((4, 6, 5)), x_test=rng.random((12, 6, 5)), y_train=np.arange(4),
             y_test=np.arange(12))
    run = Run("numpy", Options.parse("numpy", "", ["--data", "npz", "--data-file", str(tmp_path / "data.npz"), "--dtype",
                                                   "float64", "--binarize", "none", "--out", str(tmp_path)]))
    got, kl, last = drawn, np.array([0.3, 0.1]), {"epoch": 1}

    def decode_mean(z):
        return np.pad(1 / (1 + np.exp(-z)), ((0, 0), (0, 28)))

    def read(images):
        return np.log(images[..., :2] / (1 - images[..., :2]))

    run.begin(snapshot=lambda: (run.params, {}), evaluate=lambda: {"kl_per_latent": kl},
              encode=lambda x: (x[:, :2], np.full((len(x), 2), 2 * np.log(0.1))), decode_mean=decode_mean)
    run.frames, run.rows = {epoch: np.full((100, 30), epoch) for epoch in (50, 2, 0, 5, 1, 20, 10)}, [last]
    run.finish()
    x, mu, shape = run.x_test, run.x_test[:, :2], (6, 5)
    np.testing.assert_array_equal(x, run.data.x_test)
    assert got["curve"] == ([last],) and got["kl_per_dimension"] == (kl,)
    close = {"rtol": 1e-9, "atol": 1e-12}                               # there and back through the sigmoid
    np.testing.assert_array_equal(got["reconstructions"][0], x[:10])
    np.testing.assert_allclose(read(got["reconstructions"][1]), mu[:10], **close)
    np.testing.assert_array_equal(got["latent_scatter"][0], mu)
    np.testing.assert_array_equal(got["latent_scatter"][1], np.arange(12))
    np.testing.assert_allclose(read(got["manifold"][0]), figures.latent_grid(2), **close)
    prior = read(got["prior_samples"][0])
    assert prior.shape == (100, 2) and 0.85 < prior.std() < 1.15        # 200 numbers: 3 standard errors
    np.testing.assert_array_equal(got["posterior_draws"][0], x[:8])
    eps = (read(got["posterior_draws"][1]) - mu[:8, None]) / 0.1
    assert eps.shape == (8, 8, 2) and 0.8 < eps.std() < 1.2 and abs(eps.mean()) < 0.3           # 128 numbers: 3 and 3.4
    assert got["filmstrip"][1] == [0, 2, 5, 10, 20, 50] and got["filmstrip"][0][:, 0, 0].tolist() == got["filmstrip"][1]
    assert all(got[name][-1] == shape for name in ("reconstructions", "prior_samples", "posterior_draws", "filmstrip",
                                                   "manifold"))


@each_level
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_pictures_of_a_run_show_the_weights_that_it_leaves(images, tmp_path, drawn, level, likelihood):
    """mu, and the mean of p(x|z), in [0, 1]: a sigmoid of the logits, or the Gaussian's mean."""
    train(level, *images["mlp"], f"--latent 2 --dtype float64 --likelihood {likelihood} --out", tmp_path)
    params, config = load_params(tmp_path / "params.npz")
    x, reconstruction, shape = drawn["reconstructions"]
    assert x.shape == reconstruction.shape == (7, 30) and shape == (6, 5)
    mu, _ = networks_numpy.encode(params, x, config)

    def mean(z):
        out = networks_numpy.decode(params, z, config)
        return 1 / (1 + np.exp(-out)) if likelihood == "bernoulli" else out[0]

    for name, got, want in (("mu", drawn["latent_scatter"][0], mu), ("reconstructions", reconstruction, mean(mu)),
                            ("manifold", drawn["manifold"][0], mean(figures.latent_grid(2)))):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12, err_msg=name)      # float64 at either level
    assert drawn["filmstrip"][1] == [0, 1, 2], "the strip begins before the first epoch"


@each_level
def test_a_run_leaves_exactly_the_named_files_and_says_where(images, tmp_path, level, pictures):
    outcome = train(level, *images["mlp"], "--latent 2 --out", tmp_path / "deep" / "out")
    assert set(contents(tmp_path / "deep" / "out")) == FILES
    assert str(tmp_path / "deep" / "out" / "manifold.png") in outcome.out, "the path of the latent plane is not printed"
    json.loads((tmp_path / "deep" / "out" / "config.json").read_text())
    for path in (tmp_path / "deep" / "out").glob("*.png"):
        picture = matplotlib.image.imread(path)
        assert picture.ndim == 3 and min(picture.shape[:2]) > 50, f"{path.name} has shape {picture.shape}"
        assert np.isfinite(picture).all() and picture[..., :3].std() > 0.01, f"{path.name} is blank"


def test_rerunning_replaces_only_the_runs_own_files(images, tmp_path, pictures):
    train("numpy", *images["mlp"], "--latent 1 --out", tmp_path)
    assert set(contents(tmp_path)) == FILES
    before = contents(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "manifold (old).png").write_text("mine too")
    outcome = train("numpy", *images["mlp"], "--latent 5 --seed 1 --out", tmp_path)
    after = contents(tmp_path)
    assert set(after) == FILES - {"manifold.png"} | {"notes.txt", "manifold (old).png"}, (
        "five latents have no manifold: the old one should be gone, and nothing else")
    assert after["notes.txt"] == b"mine" and after["manifold (old).png"] == b"mine too"
    assert str(tmp_path / "prior_samples.png") in outcome.out
    for name in FILES - {"manifold.png"}:
        assert after[name] != before[name], f"{name} is still that of the earlier run"


def test_without_out_a_run_goes_to_a_folder_named_after_it(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for level in LEVELS:
        train(level, *images["conv"], "--epochs 1")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["lowlevel-npz-conv-3", "numpy-npz-conv-3"]


# ---- going on ---------------------------------------------------------------------------------------------------------


@each_level
@pytest.mark.parametrize("arch, optimizer, dtype", [
    ("mlp", "sgd", "float32"), ("mlp", "adagrad", "float64"), ("mlp", "adam", "float32"), ("mlp", "adam", "float64"),
    ("conv", "adam", "float32")])
def test_a_resumed_run_equals_one_in_one_go_bit_for_bit(images, tmp_path, level, arch, optimizer, dtype):
    options = (*images[arch], SETTINGS[optimizer], f"--kl-warmup 3.5 --dtype {dtype}")
    whole = train(level, *options, "--epochs 5 --out", tmp_path / "whole")
    first = train(level, *options, "--epochs 2 --out", tmp_path / "parts")
    second = train(level, *options, "--epochs 5 --resume --out", tmp_path / "parts")
    assert first.lines + second.lines == whole.lines, "the two halves print other epoch lines than the whole"
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


@each_level
def test_a_default_may_be_written_out_when_resuming(images, tmp_path, level):
    train(level, *images["mlp"], "--epochs 1 --out", tmp_path)
    train(level, *images["mlp"], "--epochs 2 --lr 0.001 --binarize dynamic --resume --out", tmp_path)


@each_level
def test_a_resumed_run_takes_the_recorded_options(images, tmp_path, level):
    options = (*images["mlp"], "--seed 2 --optimizer adagrad --lr 0.03 --beta 2 --binarize static --dtype float64")
    train(level, *options, "--epochs 5 --out", tmp_path / "whole")
    train(level, *options, "--epochs 2 --out", tmp_path / "parts")
    outcome = train(level, "--resume --epochs 5 --out", tmp_path / "parts")
    assert len(outcome.lines) == 3
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_resumed_run_is_recorded_with_all_its_options_and_all_its_time(images, tmp_path):
    """What report.py writes into the tables: the command that gives this run in one go, and the seconds of every epoch."""
    train("numpy", *images["mlp"], "--beta 2 --epochs 2 --out", tmp_path)
    train("numpy", "--resume --epochs 3 --out", tmp_path)
    told = report.record(tmp_path)
    assert shlex.split(told["command"]) == [
        "python", "numpy/train_numpy.py", "--data", "npz", "--data-file", str(images["mlp"][1]),
        *"--arch mlp --hidden 9 --latent 3 --epochs 3 --batch-size 20 --beta 2.0".split()]
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and told["seconds"] == sum(float(row["seconds"]) for row in rows)
    for name in ("test_elbo", "test_log_likelihood", "test_kl", "train_elbo"):
        assert told[name] == float(rows[-1][name])


@each_level
def test_a_run_from_given_weights_can_be_resumed(images, tmp_path, level):
    train(level, *images["mlp"], "--seed 9 --out", tmp_path / "weights")
    options = (*images["mlp"], "--init-from", tmp_path / "weights" / "params.npz")
    train(level, *options, "--epochs 4 --out", tmp_path / "whole")
    train(level, *options, "--epochs 2 --out", tmp_path / "parts")
    train(level, "--resume --epochs 4 --out", tmp_path / "parts")
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


@each_level
def test_resume_without_a_checkpoint_starts_from_the_beginning(images, tmp_path, level):
    train(level, *images["mlp"], "--out", tmp_path / "plain")
    outcome = train(level, *images["mlp"], "--resume --out", tmp_path / "resumed")
    assert len(outcome.lines) == 3
    assert_same_run(tmp_path / "resumed", tmp_path / "plain")


@each_level
@pytest.mark.parametrize("option", ["--seed 1", "--latent 4", "--hidden 8", "--lr 0.5", "--optimizer sgd", "--beta 2",
                                    "--kl-warmup 1", "--free-bits 1", "--dtype float64", "--likelihood gaussian",
                                    "--binarize none", "--batch-size 10", "--data digits", "--arch conv",
                                    "--init-from weights.npz"])
def test_resume_with_another_option_is_refused_and_changes_nothing(images, tmp_path, level, option):
    train(level, *images["mlp"], "--out", tmp_path)
    before = contents(tmp_path)
    outcome = run(level, option, "--resume --epochs 9 --out", tmp_path)
    assert outcome.code == 2, f"{option} contradicts the run in the folder: it should be refused"
    assert len(outcome.err.splitlines()) == 1 and option.split()[0] in outcome.err, outcome.err
    assert contents(tmp_path) == before, "a refused command changed the folder"


@each_level
def test_resume_after_the_last_epoch_changes_no_weight(images, tmp_path, level):
    train(level, *images["mlp"], "--out", tmp_path)
    before = contents(tmp_path)
    for epochs in ("", "--epochs 3", "--epochs 1"):
        assert train(level, epochs, "--resume --out", tmp_path).lines == []
        after = contents(tmp_path)
        assert {name for name in before if before[name] != after[name]} <= {"config.json"}


@each_level
def test_resume_after_the_last_epoch_draws_missing_pictures(images, tmp_path, level, pictures):
    train(level, *images["mlp"], "--latent 2 --out", tmp_path)
    before = contents(tmp_path)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    train(level, "--resume --out", tmp_path)
    assert contents(tmp_path).keys() == before.keys()
    for name in before.keys() - {"config.json"}:
        assert contents(tmp_path)[name] == before[name], f"{name} is not what it was"


@each_level
@pytest.mark.parametrize("call, whole_epochs", [(1, 0), (2, 0), (3, 0), (4, 1), (8, 2), (12, 3)])
def test_ctrl_c_in_a_step_keeps_the_last_whole_epoch_and_resume_goes_on(images, tmp_path, level, monkeypatch, call,
                                                                        whole_epochs):
    options = (*images["mlp"], "--epochs 4 --kl-warmup 3")      # three steps an epoch
    train(level, *options, "--out", tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at_call(patch, level, "adam", call)
        outcome = run(level, *options, "--out", tmp_path / "parts")
    assert outcome.code == 130, "Ctrl-C should end with 130"
    assert len(outcome.lines) == whole_epochs
    message = outcome.err.strip()
    assert "\n" not in message and "--resume" in message and "checkpoint.npz" in message, message
    assert f"epoch {whole_epochs};" in message, message
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.npz")[1]["epoch"] == whole_epochs
    outcome = train(level, *options, "--resume --out", tmp_path / "parts")
    assert len(outcome.lines) == 4 - whole_epochs
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("file", ["checkpoint.npz", "params.npz", "config.json", "metrics.csv"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("epoch", [2, 3])
def test_a_stop_while_files_are_written_loses_nothing(images, tmp_path, monkeypatch, file, when, epoch):
    """A stop between two files of an epoch leaves some new and some old; --resume brings all to the same epoch."""
    train("numpy", *images["mlp"], "--out", tmp_path / "whole")
    replace, calls = os.replace, []

    def interrupted(source, target):
        calls.append(Path(target).name == file)
        now = calls[-1] and sum(calls) == epoch + 1             # the first of its name is written before epoch 1
        if when == "after" or not now:
            replace(source, target)
        if now:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        outcome = run("numpy", *images["mlp"], "--out", tmp_path / "parts")
    assert outcome.code == 130
    assert not list((tmp_path / "parts").glob(".*")), "a temporary file is left behind"
    done = load_checkpoint(tmp_path / "parts" / "checkpoint.npz")[1]["epoch"]
    assert f"holds epoch {done};" in outcome.err, f"the checkpoint holds epoch {done}, but: {outcome.err}"
    train("numpy", "--resume --out", tmp_path / "parts")
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


@each_level
def test_ctrl_c_in_the_first_epoch_of_a_rerun_leaves_the_new_run_not_the_old(images, tmp_path, level, monkeypatch):
    train(level, *images["mlp"], "--seed 1 --out", tmp_path / "parts")
    train(level, *images["mlp"], "--seed 2 --out", tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at_call(patch, level, "adam", 2)
        assert run(level, *images["mlp"], "--seed 2 --out", tmp_path / "parts").code == 130
    assert metrics(tmp_path / "parts") == [], "metrics.csv still holds the curve of the run before"
    train(level, *images["mlp"], "--seed 2 --resume --out", tmp_path / "parts")
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


# ---- weights travel between the levels --------------------------------------------------------------------------------


def level_bound(level, params, x, eps, config):
    if level == "numpy":
        return np.subtract(*vae_numpy.elbo_terms(params, x, eps, config))
    params, x, eps = (train_lowlevel.to_tensors(value, "cpu") for value in (params, x, eps))
    return np.subtract(*map(train_lowlevel.to_numpy, vae_lowlevel.elbo_terms(params, x, eps, config)))


@each_model
@each_level
def test_weights_of_one_level_give_the_same_bound_at_the_other(images, tmp_path, arch, likelihood, level):
    other = next(name for name in LEVELS if name != level)
    train(level, *images[arch], f"--likelihood {likelihood} --dtype float64 --out", tmp_path / "one")
    file = tmp_path / "one" / "params.npz"
    params, config = load_params(file)
    rng = np.random.default_rng(1)
    x, eps = rng.random((5, config.pixels)), rng.standard_normal((5, config.latent))
    # the levels add in another order, which costs a few roundings of 1e-16: 1e-9 leaves ample room
    np.testing.assert_allclose(level_bound(other, params, x, eps, config), level_bound(level, params, x, eps, config),
                               rtol=1e-9, err_msg=f"the bound at level {other} of weights trained at level {level}")

    train(other, *images[arch], f"--likelihood {likelihood} --dtype float64 --epochs 1", STILL, "--init-from", file,
          "--out", tmp_path / "two")
    last, start = metrics(tmp_path / "one")[-1], metrics(tmp_path / "two")[0]
    for name in ("test_elbo", "test_log_likelihood", "test_kl"):
        assert start[name] == pytest.approx(last[name], rel=1e-9), f"{name} at the start of the run with --init-from"
    for name, array in load_params(tmp_path / "two" / "params.npz")[0].items():
        np.testing.assert_array_equal(array, params[name], f"{name} was changed on the way")


@each_level
def test_init_from_takes_the_architecture_of_the_weights(images, tmp_path, level):
    options, file = images["conv"]
    train(level, options, file, "--likelihood gaussian --fixed-logvar -1 --latent 4 --epochs 1 --out", tmp_path / "one")
    weights = tmp_path / "one" / "params.npz"
    before = weights.read_bytes()
    train(level, "--data npz --epochs 1 --data-file", file, "--init-from", weights, "--out", tmp_path / "two")
    config = load_params(tmp_path / "two" / "params.npz")[1]
    assert config == VAEConfig("conv", (8, 12), 9, 4, "gaussian", fixed_logvar=-1.0)
    assert weights.read_bytes() == before
    assert metrics(tmp_path / "two")[0]["train_elbo"] > metrics(tmp_path / "one")[0]["train_elbo"], (
        "a run from trained weights should begin where they ended")


@each_level
@pytest.mark.parametrize("option", ["--latent 4", "--hidden 8", "--arch conv", "--likelihood gaussian",
                                    "--likelihood gaussian --fixed-logvar -1"])
def test_init_from_refuses_options_that_contradict_the_weights(images, tmp_path, level, option):
    train(level, *images["mlp"], "--out", tmp_path / "one")
    outcome = run(level, "--data npz", option, "--data-file", images["mlp"][1], "--init-from",
                  tmp_path / "one" / "params.npz", "--out", tmp_path / "two")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1, outcome
    assert option.split()[0] in outcome.err and "params.npz" in outcome.err, outcome.err
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("kept, asked", [("", "--fixed-logvar -1"), ("--fixed-logvar -2", "--fixed-logvar -1")])
def test_init_from_refuses_another_variance_than_that_of_the_weights(images, tmp_path, kept, asked):
    train("numpy", *images["mlp"], "--likelihood gaussian", kept, "--epochs 1 --out", tmp_path / "one")
    outcome = run("numpy", "--data npz", asked, "--data-file", images["mlp"][1], "--init-from",
                  tmp_path / "one" / "params.npz", "--out", tmp_path / "two")
    assert outcome.code == 2 and "leave --fixed-logvar out" in outcome.err, outcome
    assert not (tmp_path / "two").exists()


@each_level
def test_init_from_refuses_weights_for_images_of_another_size(images, tmp_path, level):
    train(level, *images["mlp"], "--out", tmp_path / "one")
    outcome = run(level, "--data digits --init-from", tmp_path / "one" / "params.npz", "--out", tmp_path / "two")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1, outcome
    assert "6 x 5" in outcome.err and "8 x 8" in outcome.err and "params.npz" in outcome.err, outcome.err
    assert not (tmp_path / "two").exists()


# ---- divergence -------------------------------------------------------------------------------------------------------


@each_level
@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_a_run_that_diverges_says_so_and_keeps_the_last_good_checkpoint(images, tmp_path, level, arch):
    outcome = run(level, *images[arch], "--likelihood gaussian --optimizer sgd --lr 1e6 --out", tmp_path)
    assert outcome.code == 2, "a run that diverges should end with 2"
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert "not finite" in outcome.err and "--lr" in outcome.err and "checkpoint.npz" in outcome.err, outcome.err
    assert outcome.lines == [], "an epoch line with NaN was printed"
    assert load_checkpoint(tmp_path / "checkpoint.npz")[1]["epoch"] == 0
    load_params(tmp_path / "params.npz")            # refuses NaN
    assert metrics(tmp_path) == []


@each_level
def test_a_late_divergence_keeps_the_epochs_before_it(images, tmp_path, level, monkeypatch):
    train(level, *images["mlp"], "--epochs 2 --out", tmp_path / "good")
    step, calls = LEVELS[level].STEPS["adam"], []

    def poisoned(params, grads, state, lr):
        step(params, grads, state, lr)
        calls.append(1)
        if len(calls) == 9:                         # the last step of epoch 3: only the test bound sees it
            params["decoder.hidden.bias"][0] = float("nan")

    monkeypatch.setitem(LEVELS[level].STEPS, "adam", poisoned)
    outcome = run(level, *images["mlp"], "--epochs 4 --out", tmp_path / "bad")
    assert outcome.code == 2 and len(outcome.lines) == 2 and "epoch 3" in outcome.err, outcome
    assert_same_run(tmp_path / "bad", tmp_path / "good")


# ---- real processes ---------------------------------------------------------------------------------------------------


def spawn(level, *options):
    """The script of a level as a process of its own, on the code of this checkout, its output in pipes."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "numpy")]), "PYTHONUNBUFFERED": "1"}
    argv = [word for item in options for word in (item.split() if isinstance(item, str) else [str(item)])]
    # a shell's background job ignores Ctrl-C, and so would its children
    return subprocess.Popen([sys.executable, ROOT / SCRIPTS[level], *argv], cwd=ROOT, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


@pytest.mark.slow
@each_level
@pytest.mark.parametrize("end", ["SIGINT", "SIGKILL"])
def test_a_stopped_process_can_be_resumed(tmp_path, level, end, no_pictures):
    options = "--hidden 32 --epochs 300 --kl-warmup 20"
    train(level, options, "--out", tmp_path / "whole")
    process = spawn(level, options, "--out", tmp_path / "parts")
    try:
        for line in process.stdout:
            if line.startswith("epoch   7"):            # printed just before its checkpoint is written
                process.send_signal(getattr(signal, end))
                break
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    done = load_checkpoint(tmp_path / "parts" / "checkpoint.npz")[1]["epoch"]
    assert 6 <= done < 300, f"the process should have been stopped in the middle, not after epoch {done}"
    if end == "SIGINT":
        assert process.returncode == 130, f"Ctrl-C should end with 130, not {process.returncode}: {err}"
        assert "Traceback" not in err and len(err.strip().splitlines()) == 1 and "--resume" in err, err
        assert f"epoch {done};" in err, err
        assert not list((tmp_path / "parts").glob(".*")), "a temporary file is left behind"
    resumed = spawn(level, options, "--resume --out", tmp_path / "parts")
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0 and err == "", err
    assert sum(line.startswith("epoch ") for line in out.splitlines()) == 300 - done
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    assert FILES <= set(contents(tmp_path / "parts"))
