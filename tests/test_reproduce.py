"""reproduce.py: every name runs in its quick preset; a run that is stopped goes on; the tables say what the files say."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from oracles import figure_of

from common.cli import run_command
from common.config import InputError
from common.data import Dataset
from paper import parts, reproduce
from paper.estimators import active_units, log_p_by_quadrature, log_weights
from paper.experiments import nll
from paper.parts import Part, Work, run_parts
from paper.train_paper import train
from paper.vae_paper import VAE

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def numbers_in(tree):
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from numbers_in(branch)
    elif isinstance(tree, (int, float)):
        yield tree


# 4 to 9 seconds each: with pytest -m slow
LONG = {"ae-vs-vae", "toy", "fig2-mnist", "fig2-frey", "fig3", "full-vb", "quadrants", "vq-vae", "hierarchy", "collapse"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
                                  for name in reproduce.EXPERIMENTS])
def test_every_name_runs_in_its_quick_preset(name, capsys):
    assert reproduce.main([name, "--preset", "quick"]) is None
    results = json.loads(Path(f"runs/{name}.quick.json").read_text("utf-8"))
    assert {"name", "preset", "settings", "device", "machine", "seconds", "parts"} <= set(results)
    assert np.isfinite(list(numbers_in(results["parts"]))).all()
    rows = reproduce.experiment(name).rows(results)
    said = capsys.readouterr().out
    assert rows and all(what in said and ours in said for what, _, ours in rows)
    picture = imread(f"runs/{name}.quick.png")
    assert min(picture.shape[:2]) > 200 and picture.std() > 0.02                # something is drawn
    assert not Path(f"runs/reproduce/{name}.quick").exists()                    # nothing is left behind
    assert not list(reproduce.RESULTS.glob("*.quick.*"))


@pytest.mark.parametrize("name", reproduce.EXPERIMENTS)
def test_every_name_has_all_presets_and_a_first_line(name):
    module = reproduce.experiment(name)
    assert set(module.PRESETS) == set(reproduce.PRESETS)
    assert module.__doc__.splitlines()[0].endswith(".")
    for settings in module.PRESETS.values():
        assert module.parts(settings) and json.loads(json.dumps(settings)) == settings      # JSON brings all of it back


def test_samples_replace_those_of_the_preset_and_the_trained_weights_come_as_one_archive(capsys):
    reproduce.main(["fig2-mnist", "--preset", "quick", "--samples", "3000"])
    results = json.loads(Path("runs/fig2-mnist.quick.json").read_text("utf-8"))
    assert results["settings"]["training_samples"] == 3000
    assert all(3000 <= part["result"]["curve"]["samples"][-1] < 5000 for part in results["parts"].values())
    assert reproduce.command(results) == "python paper/reproduce.py fig2-mnist --preset quick --samples 3000"
    results["settings"]["training_samples"] = reproduce.experiment("fig2-mnist").PRESETS["quick"]["training_samples"]
    assert reproduce.command(results).endswith("--preset quick")
    assert "fig2-mnist.quick.weights.zip" in capsys.readouterr().out
    with zipfile.ZipFile("runs/fig2-mnist.quick.weights.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"{key}.params.npz" for key in results["parts"])
        archive.extractall("weights")
    assert VAE.load("weights/vae-5.params.npz").config.latent == 5


def fail(work):
    raise InputError("as planned")


def count(work, start):
    """Writes down that it ran: a part that is done is not computed again."""
    with open("calls", "a") as file:
        file.write(f"{start} ")
    work.progress(0.5)
    return {"next": start + 1}


def test_parts_that_are_done_are_not_computed_again():
    first, second = Part(count, {"start": 1}), Part(count, {"start": 5})
    with pytest.raises(InputError, match="as planned"):
        run_parts({"first": first, "failing": Part(fail)}, Path("work"))
    said = []
    done = run_parts({"first": first, "second": second}, Path("work"), say=lambda shares: said.append(dict(shares)))
    assert Path("calls").read_text() == "1 5 "
    assert {key: part["result"]["next"] for key, part in done.items()} == {"first": 2, "second": 6}
    assert said[0] == {"first": 1.0, "second": 0.5} and said[-1] == {"first": 1.0, "second": 1.0}


def test_a_part_gets_the_data_set_that_it_asks_for_from_the_folder_given(monkeypatch):
    monkeypatch.setattr(parts, "load_dataset", lambda name, folder: f"{name} from {folder}")
    asking = {name: Part(lambda work, name: work.dataset(name), {"name": name}) for name in ("mnist", "frey")}
    found = run_parts(asking, Path("asked"), data_dir="there")
    assert {name: part["result"] for name, part in found.items()} == {name: f"{name} from there" for name in asking}


def test_the_seconds_of_a_part_count_what_a_stopped_run_spent_on_it():
    Path("work").mkdir()
    Path("work/first.seconds").write_text("100")
    done = run_parts({"first": Part(count, {"start": 1})}, Path("work"))
    assert 100 <= done["first"]["seconds"] < 110
    assert not Path("work/first.seconds").exists()


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["nll", "--preset", "quick", "--out", "file"], "is a file"),
    (["nll", "--preset", "quick", "--device", "nonsense"], "--device nonsense"),
    (["nll", "--data-dir", "missing"], "missing"),
    (["nll", "--preset", "quick", "--samples", "1000"], "--samples 1000"),
    (["fig2-mnist", "--preset", "quick", "--samples", "0"], "--samples 0"),
])
def test_what_cannot_be_is_one_line_and_leaves_no_results(arguments, complaint, capsys):
    Path("file").write_text("mine")
    assert run_command(lambda: reproduce.main(arguments)) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and complaint in errors[0]
    assert Path("file").read_text() == "mine" and not list(Path().rglob("*.png"))


def test_an_unknown_name_ends_with_2():
    with pytest.raises(SystemExit) as stop:
        reproduce.main(["figure-9"])
    assert stop.value.code == 2


def test_a_stopped_run_is_neither_lost_nor_mixed_with_another(capsys):
    folder = Path("runs/reproduce/nll.cpu")
    folder.mkdir(parents=True)
    settings = reproduce.experiment("nll").PRESETS["cpu"]
    (folder / "begun.json").write_text(json.dumps({"settings": settings, "device": "cpu"}))
    (folder / "dynamic-k1.json").write_text("{}")
    with pytest.raises(InputError, match="go on with --resume"):
        reproduce.reproduce("nll", "cpu")
    (folder / "begun.json").write_text(json.dumps({"settings": settings | {"samples": 7}, "device": "cpu"}))
    with pytest.raises(InputError, match="other settings"):
        reproduce.reproduce("nll", "cpu", resume=True)
    assert (folder / "dynamic-k1.json").exists()


def made_up(nll):
    run = {"result": {"nll": nll, "standard_error": 0.25, "active_units": 19, "images": 10_000}, "seconds": 60.0}
    return {"name": "nll", "preset": "cpu", "settings": {"samples": 5000}, "device": "cpu", "seconds": 3599.7,
            "machine": {"cores": 2, "processor": "a processor"}, "parts": {"dynamic-k1": run}}


def test_the_table_and_the_list_say_what_the_files_say(monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "RESULTS", Path("results"))
    Path("results").mkdir()
    Path("results/nll.cpu.json").write_text(json.dumps(made_up(87.654)))
    row, = [line for line in reproduce.front_table() if "nll" in line]
    for word in ("86.76", "87.65", "59:59", "2 cores, a processor", "python paper/reproduce.py nll`", "dynamic", "5,000"):
        assert word in row, word
    unheard_of = made_up(90.0)
    unheard_of["parts"]["digits-k1"] = unheard_of["parts"].pop("dynamic-k1")           # no paper has it
    Path("results/nll.gpu.json").write_text(json.dumps(unheard_of))
    assert [sum("90.00" in line for line in lines()) for lines in (reproduce.all_tables, reproduce.front_table)] == [1, 0]
    time_at, row_at = (next(i for i, line in enumerate(reproduce.all_tables()) if word in line)
                       for word in ("59:59 on 2 cores, a processor", "87.65"))
    assert time_at < row_at < time_at + 5
    reproduce.main(["list"])
    said = capsys.readouterr().out
    assert "87.65" in said and all(name in said for name in reproduce.EXPERIMENTS) and "not run yet" in said
    Path("results/nll.cpu.json").write_text('{"cut')
    assert run_command(lambda: reproduce.main(["list"])) == 2
    assert "nll.cpu.json is damaged" in capsys.readouterr().err


# ---- processes and kills -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_parts_side_by_side_give_what_they_give_one_after_the_other():
    module = reproduce.experiment("nll")
    parts = module.parts(module.PRESETS["quick"])
    alone, together = (run_parts(parts, Path(f"work{workers}"), workers=workers) for workers in (1, 2))
    for key in parts:
        for name in ("nll", "elbo", "active_units"):
            assert alone[key]["result"][name] == together[key]["result"][name], (key, name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on_to_the_same_results(kind):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "numpy")))}
    command = [sys.executable, str(ROOT / "paper" / "reproduce.py"), "nll", "--preset", "quick"]
    process = subprocess.Popen([*command, "--out", "stopped"], env=environment, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))    # see test_training.spawn
    first, deadline = Path("runs/reproduce/nll.quick/digits-k1.json"), time.monotonic() + 120
    while not first.exists():
        assert process.poll() is None and time.monotonic() < deadline, "it ended, or never came to its second part"
        time.sleep(0.002)
    process.send_signal(kind)
    _, errors = process.communicate(timeout=60)
    assert not Path("stopped/nll.quick.json").exists()
    if kind == signal.SIGINT:
        assert process.returncode == 130 and "--resume goes on" in errors and "Traceback" not in errors
    written = first.stat().st_mtime_ns
    for out, more in (("stopped", ["--resume"]), ("whole", [])):
        done = subprocess.run([*command, "--out", out, *more], env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    stopped, whole = (json.loads(Path(f"{out}/nll.quick.json").read_text()) for out in ("stopped", "whole"))
    assert written and all(stopped["parts"][key]["result"]["nll"] == part["result"]["nll"]
                           for key, part in whole["parts"].items())


# ---- nll -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5])
def test_nll_is_that_of_the_test_images_and_training_minimized_the_bound_of_k(k, monkeypatch):
    """Beside quadrature over two latents. The test images are of two kinds, those of training vary more."""
    models, test = [], np.repeat(np.tri(2, 6, k=2, dtype=np.float32), (36, 4), axis=0)
    gray = 0.05 + 0.9 * (np.random.default_rng(0).random((60, 6)) < [0.5, 0.5, 0.5, 0.2, 0.5, 0.5])
    data = Dataset("tiny", (2, 3), gray.astype(np.float32), None, test)

    def trained(model, images, *rest):
        rows = train(model, images, *rest)
        with torch.no_grad():                                            # variances far from the threshold of 0.01
            model.encoder.mu.weight *= 0.06 / model.encode(images.x_test)[0].std(dim=0).max()
        assert active_units(model, images.x_train) > 0
        models.append(model)
        return rows

    monkeypatch.setattr(nll, "train", trained)
    found = nll.train_and_measure(
        Work("cpu", Path("checkpoint.npz"), lambda name: data, lambda share: None), "tiny", k,
        {"epochs": 30, "batch_size": 20, "lr": 1e-2}, {"hidden": 5, "latent": 2, "layers": 2}, 4000, 1000)
    model, x = models[0], torch.from_numpy(test)
    log_p = log_p_by_quadrature(model, x).double()
    # five standard errors of 4,000 weights for each of 40 images, whose relative deviation is below 1
    assert found["nll"] == pytest.approx(-float(log_p.mean()), abs=5 / (4000 * 40) ** 0.5)
    assert found["standard_error"] == pytest.approx(float(log_p.std()) / 40**0.5, rel=0.02)
    assert (found["images"], found["active_units"]) == (40, 0)
    loss, _ = model.training_loss(x, None, torch.Generator().manual_seed(1))
    log_w = log_weights(model, x, torch.randn(k, 40, 2, generator=torch.Generator().manual_seed(1))).detach().double()
    assert float(loss.detach()) == pytest.approx(-float(log_w.exp().mean(dim=0).log().mean()), rel=1e-5)      # float32


def test_the_curves_of_nll_are_test_bounds_and_each_has_the_number_of_its_table(monkeypatch):
    found = {}
    for i, key in enumerate(("dynamic-k1", "static-k5")):
        curve = [{"epoch": epoch, "train": {"loss": 70.0}, "test": {"loss": 90.0 + i + 1 / epoch}} for epoch in (1, 2)]
        curve.append({"epoch": 3, "train": {"loss": 70.0}})              # an epoch that was not evaluated
        found[key] = {"result": {"nll": 85.0 + i, "curve": curve, "images": 10_000, "active_units": 9}}
    results = {"settings": {"samples": 5000}, "parts": found}
    axes, *_ = figure_of(nll.draw, results, monkeypatch).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines == {"VAE, dynamic MNIST: bound": [-91, -90.5], "VAE, dynamic MNIST: log p(x)": [-85, -85],
                     "IWAE, k = 5, static MNIST: bound": [-92, -91.5], "IWAE, k = 5, static MNIST: log p(x)": [-86, -86]}
    assert [(paper, ours) for _, paper, ours in nll.rows(results)] == [("86.76", "85.00"), ("87.63", "86.00")]
