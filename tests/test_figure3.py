"""Figure 3: its curves, and how a run goes on after a stop.

    pytest tests/test_figure3.py
"""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from oracles import assert_close, figure_of

from common.config import InputError, VAEConfig
from common.data import EVAL_SEED, load_dataset
from paper.estimators import log_p_by_quadrature
from paper.experiments import figure3
from paper.experiments.figure3 import ByGradient, ByMonteCarloEM, estimates, points
from paper.images import Images
from paper.marginal_likelihood import log_joint_of, log_p_both_ways
from paper.paper_settings import begin
from paper.parts import Work
from paper.vae_paper import VAE

CONFIG = VAEConfig("mlp", (8, 8), hidden=8, latent=2)
TINY = {"data": "digits", "hidden": 8, "latent": 2, "count": 60, "pick_samples": 900, "matmul": "highest", "measured": 10,
        "importance_samples": 50, "block": 20}


@pytest.fixture(scope="module")
def images():
    digits = Images.of(load_dataset("digits"))
    return Images(digits.x_train[:60], digits.x_test, dynamic=True)


@pytest.mark.parametrize("preset", figure3.PRESETS)
def test_the_points_rise_to_the_last_sample_and_lie_evenly_but_for_the_first(preset):
    settings = figure3.PRESETS[preset]
    found = points(settings["training_samples"], settings["points"])
    assert len(found) == settings["points"] and found[-1] == settings["training_samples"]
    assert (np.diff(found) > 0).all() and np.ptp(np.diff([0, *found[2:]])) <= 1


def test_too_few_samples_for_the_points_are_refused():
    with pytest.raises(InputError, match="--samples 100: give at least 800"):
        figure3.parts(figure3.PRESETS["cpu"] | {"training_samples": 100})


@pytest.mark.parametrize("kind", ["vae", "wake-sleep", "mcem"])
def test_training_in_pieces_is_training_in_one(kind, images, tmp_path):
    """And a trainer that is made anew goes on from the checkpoint, as after a stop."""
    def trainer(path):
        return (ByMonteCarloEM(CONFIG, images, 0.02, path) if kind == "mcem" else
                ByGradient(kind, CONFIG, images, 0.02, "highest", path))

    whole = trainer(tmp_path / "whole.npz")
    seen, seconds = whole.advance(1800)
    assert 1800 <= seen < 1800 + 60 * (16 if kind == "mcem" else 1) and seconds > 0
    path = tmp_path / "pieces.npz"
    assert trainer(path).advance(900)[0] < seen
    again = trainer(path)
    assert again.advance(1800)[0] == seen
    assert all(torch.equal(tensor, again.model.state_dict()[name]) for name, tensor in whole.model.state_dict().items())
    if kind == "mcem":
        assert torch.equal(again.em.z, whole.em.z) and again.em.z is again.kept.z


def test_monte_carlo_em_raises_log_p_and_leaves_the_encoder_alone(images):
    model = ByMonteCarloEM(CONFIG, images, 0.02, None)
    start = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    before = estimates(model.model, {"test": images.x_test[:50]}, 100, 50)["test"]["quadrature"]
    model.advance(16 * 60 * 20)
    after = estimates(model.model, {"test": images.x_test[:50]}, 100, 50)["test"]["quadrature"]
    assert after > before + 5, f"log p(x) {before:.2f}, then {after:.2f}"
    for name, tensor in model.model.state_dict().items():
        assert torch.equal(tensor, start[name]) == name.startswith("encoder"), name


def test_all_estimates_agree_where_quadrature_tells(images):
    """Means over 30 images. With 20 seeds, the estimate furthest from quadrature was off by 0.10 nats."""
    model = begin("vae", CONFIG, images)
    with torch.no_grad():
        model.decoder.hidden.weight *= 5                                 # a posterior worth the name
        model.decoder.logits.weight *= 5
    found = estimates(model, {"train": images.x_train[:30].round(), "test": images.x_test[:30]}, 500, 60)
    for name in ("train", "test"):
        exact = found[name]["quadrature"]
        assert all(abs(value - exact) < 0.3 for value in found[name].values()), found[name]
    assert abs(found["train"]["quadrature"] - found["test"]["quadrature"]) > 0.1, "the two sets are mixed up, or one"


def test_each_name_has_its_own_estimate(images):
    """Appendix D first, then importance sampling, with as many samples as were asked for."""
    model, x = begin("vae", CONFIG, images), images.x_test[:6]
    found = estimates(model, {"test": x}, 40, 6)["test"]
    both = log_p_both_ways(log_joint_of(model), x, CONFIG.latent, torch.Generator().manual_seed(EVAL_SEED), samples=40)
    for name, values in zip(("appendix_d", "importance_sampling"), both, strict=True):
        assert_close(name, found[name], values.mean(), rtol=1e-6, atol=0)             # float32


@pytest.mark.parametrize("kind", ["wake-sleep", "mcem"])
def test_a_point_is_of_the_algorithm_the_step_size_and_the_images_it_says(kind, images, tmp_path, monkeypatch):
    """Trained again by hand, from the weights that are kept: log p(x) by quadrature of ten images of each set."""
    for pick in ("pick_step_size", "pick_for_em"):
        monkeypatch.setattr(figure3, pick, lambda *_, **__: {"lr": 0.1})
    work = Work("cpu", tmp_path / "checkpoint.npz", load_dataset, lambda share: None, tmp_path / "notes.json",
                tmp_path / "params.npz")
    point, = figure3.train_and_measure(work, **TINY | {"kind": kind, "points": [960]})["points"]
    trainer = (ByMonteCarloEM(CONFIG, images, 0.1, None) if kind == "mcem" else
               ByGradient(kind, CONFIG, images, 0.1, "highest", None))
    assert trainer.advance(960)[0] == point["samples"]
    kept = VAE.load(tmp_path / "params.npz")
    assert all(torch.equal(tensor, trainer.model.state_dict()[name]) for name, tensor in kept.state_dict().items())
    sets = {"train": figure3.fixed(images, 10), "test": images.x_test[:10]}
    assert set(sets["train"].unique().tolist()) == {0, 1}
    # a pixel differs from its gray by 0.5 at most: 640 of them by more than 0.1 on average once in 10^11 seeds
    assert abs(float((sets["train"] - images.x_train[:10]).mean())) < 0.1
    for name, x in sets.items():
        assert_close(name, point[name]["quadrature"], log_p_by_quadrature(kept, x, 301, 6.0).mean(), rtol=1e-6, atol=0)


class Stop(Exception):
    pass


@pytest.mark.parametrize("kind", ["vae", "mcem"])
def test_a_stopped_curve_goes_on_with_the_points_it_has(kind, tmp_path, monkeypatch):
    def work(folder, progress=lambda share: None):
        folder.mkdir(exist_ok=True)
        return Work("cpu", folder / "checkpoint.npz", partial(load_dataset), progress, folder / "notes.json",
                    folder / "params.npz")

    def stop(share):
        if share > 0.7:                                                  # between the second point and the third
            raise Stop

    arguments = TINY | {"kind": kind, "points": [960, 1920, 2880]}
    whole = figure3.train_and_measure(work(tmp_path / "whole"), **arguments)
    with pytest.raises(Stop):
        figure3.train_and_measure(work(tmp_path / "stopped", stop), **arguments)
    noted = json.loads((tmp_path / "stopped" / "notes.json").read_text())
    assert len(noted["points"]) == 2
    noted["points"][0]["mark"] = "not measured again"
    (tmp_path / "stopped" / "notes.json").write_text(json.dumps(noted))
    monkeypatch.setattr(figure3, "pick_for_em", None)                    # nor is the step size picked again
    monkeypatch.setattr(figure3, "pick_step_size", None)
    again = figure3.train_and_measure(work(tmp_path / "stopped"), **arguments)
    assert again["points"][0]["mark"] == "not measured again"
    for name in ("train", "test"):
        assert [point[name] for point in again["points"]] == [point[name] for point in whole["points"]]
    assert (tmp_path / "stopped" / "params.npz").exists() and again["lr"] == whole["lr"]


def test_the_step_size_of_monte_carlo_em_is_the_one_with_the_highest_log_joint(images, monkeypatch):
    picked = figure3.pick_for_em(CONFIG, images, 2000)
    assert set(picked["tried"]) == {str(lr) for lr in figure3.STEP_SIZES}
    assert picked["tried"][str(picked["lr"])] == max(picked["tried"].values())
    monkeypatch.setattr(figure3, "STEP_SIZES", (0.02, 1e30))
    picked = figure3.pick_for_em(CONFIG, images, 2000)
    assert picked["lr"] == 0.02 and picked["tried"]["1e+30"] is None
    monkeypatch.setattr(figure3, "STEP_SIZES", (1e30,))
    with pytest.raises(InputError, match="diverges with each"):
        figure3.pick_for_em(CONFIG, images, 2000)


def made_up():
    def curve(ends, apart):
        return {"result": {"points": [
            {"samples": samples, "training_seconds": samples / 1e4, "estimating_seconds": 1.0} | {
                name: {"appendix_d": end - 1e7 / samples, "importance_sampling": end - 1e7 / samples - apart,
                       "quadrature": -130.0, "from_encoder": -130.5}
                for name, end in zip(("train", "test"), ends, strict=True)}
            for samples in (1e6, 1e7)]}}

    keys = {"vae-small": (-100, -140), "wake-sleep-small": (-110, -141), "mcem-small": (-120, -142),
            "vae-large": (-125, -126), "wake-sleep-large": (-131, -132), "check": (-135, -136)}
    return {"settings": figure3.PRESETS["cpu"], "parts": {
        key: curve(ends, 0.25 if key == "mcem-small" else 0.125) for key, ends in keys.items()}}


def test_the_table_and_the_picture_say_what_the_curves_say(tmp_path):
    told = {what: ours for what, _, ours in figure3.rows(made_up())}
    ours = dict(enumerate(told.values()))
    assert ours[0] == "-101.0 / -111.0 / -121.0" and ours[3] == "-127.0 / -133.0" and ours[4] == "0.25"
    assert ours[5] == "-137.00 / -137.12 / -130.50 / -130.00"
    assert [what.split()[2] for what in told][:4] == ["1,000", "1,000", "50,000", "50,000"]
    minutes, = (value for what, value in told.items() if "million training samples" in what)
    assert minutes == "1.67"                                             # 1e6 / 1e4 seconds
    figure3.draw(tmp_path / "figure.png", made_up())
    assert (tmp_path / "figure.png").stat().st_size > 10_000 and math.isfinite(float(ours[4]))


def test_lines_are_appendix_d_crosses_importance_sampling_train_solid_and_test_dashed(monkeypatch):
    results = made_up()
    for axes, size in zip(figure_of(figure3.draw, results, monkeypatch).axes, ("small", "large"), strict=True):
        assert axes.get_title(loc="left") == f"$N_{{train}}$ = {results['settings'][size]:,}"
        lines = [line for line in axes.lines if len(line.get_xdata())]
        kinds = [kind for kind in figure3.NAMES if f"{kind}-{size}" in results["parts"]]
        for kind, line, cross in zip(np.repeat(kinds, 2), lines[::2], lines[1::2], strict=True):
            curve = results["parts"][f"{kind}-{size}"]["result"]["points"]
            name, = (name for name in ("train", "test") if line.get_label() == f"{figure3.NAMES[kind]}, {name}")
            assert line.get_linestyle() == {"train": "-", "test": "--"}[name] and cross.get_marker() == "x"
            for shown, how in ((line, "appendix_d"), (cross, "importance_sampling")):
                assert shown.get_color() == figure3.COLORS[kind]
                assert shown.get_xdata().tolist() == [1, 10]             # millions
                assert shown.get_ydata().tolist() == [point[name][how] for point in curve], line.get_label()


def test_the_check_is_the_large_curve_with_two_latents_at_its_end():
    for settings in figure3.PRESETS.values():
        parts = figure3.parts(settings)
        large = parts["vae-large"].arguments
        assert parts["check"].arguments == large | {"latent": 2, "points": large["points"][-1:]}
