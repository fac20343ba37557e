"""What the command lines say to someone who gave a wrong option or a wrong file, and that the scripts run anywhere.

    pytest tests/test_command_line.py
    pytest tests/test_command_line.py -m slow          # also the processes that import torch
"""

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import sample_numpy
import torch
import train_numpy
from oracles import Bomb, error_line

import common.run
from common.checkpoints import load_checkpoint, load_params, save_checkpoint, save_params
from common.cli import Options, run_command
from common.config import VAEConfig, init_params
from common.data import DATASETS, Dataset
from common.run import Run
from paper import train_paper
from paper.plan import Plan
from pytorch_lowlevel import train_lowlevel

ROOT = Path(__file__).resolve().parents[1]
LEVELS = {"numpy": train_numpy.main, "lowlevel": train_lowlevel.main}
SCRIPTS = [path.relative_to(ROOT).as_posix() for folder in ("numpy", "pytorch_lowlevel")
           for path in sorted((ROOT / folder).glob("*.py")) if "__main__" in path.read_text(encoding="utf-8")]
OPTIONS = ("--data --data-file --data-dir --binarize --arch --likelihood --hidden --latent --epochs --batch-size "
           "--optimizer --lr --beta --kl-warmup --free-bits --dtype --seed --out --resume --init-from").split()

each_level = pytest.mark.parametrize("level", LEVELS)


def run(level, *options) -> tuple[int, str, str]:
    """Exit code, output and error output of a level's command line in this process; options may be paths and strings of
    several words."""
    argv = [word for item in options for word in (item.split() if isinstance(item, str) else [str(item)])]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run_command(lambda: LEVELS[level](argv))
        except SystemExit as end:                               # argparse
            code = end.code
    return code, out.getvalue(), err.getvalue()


def refused(level, out, words, *options) -> str:
    """The error line of a command that must end with 2, name all `words` and leave the folder `out` uncreated."""
    code, output, err = run(level, *options, "--out", out)
    assert code == 2, f"expected exit code 2, got {code}: {output}{err}"
    line = error_line(err)
    for word in words:
        assert str(word) in line, f"{word} is not named in: {line}"
    assert "epoch " not in output, "the run began"
    assert not Path(out).exists(), "a refused command wrote to --out"
    return line


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """The runs of this file that succeed need no pictures; processes of their own draw them."""
    monkeypatch.setattr(Run, "finish", lambda run: None)
    monkeypatch.delenv("VAE_DATA", raising=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """20 images of 6 x 5."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, x_train=np.random.default_rng(0).random((20, 6, 5)))
    return path


# ---- bad options ------------------------------------------------------------------------------------------------------


BAD_OPTIONS = [
    # options, what the error line must name
    ("--latent 0", "latent", "0", "at least 1"), ("--latent -2", "latent", "-2"), ("--latent 2.5", "--latent", "2.5"),
    ("--hidden 0", "hidden", "0", "at least 1"), ("--hidden many", "--hidden", "many"),
    ("--beta -1", "beta", "-1", "at least 0"), ("--beta nan", "beta", "nan"), ("--beta inf", "beta", "inf"),
    ("--free-bits -0.5", "bits", "-0.5", "at least 0"), ("--free-bits nan", "bits", "nan"),
    ("--kl-warmup -1", "--kl-warmup", "-1", "0 or more"), ("--kl-warmup nan", "--kl-warmup", "nan"),
    ("--kl-warmup inf", "--kl-warmup", "inf"),
    ("--lr nan", "--lr", "nan", "positive"), ("--lr 0", "--lr", "positive"), ("--lr -0.1", "--lr", "-0.1"),
    ("--lr inf", "--lr", "inf"), ("--lr fast", "--lr", "fast"),
    ("--epochs 0", "--epochs", "at least 1"), ("--epochs -3", "--epochs", "-3"), ("--epochs 1.5", "--epochs", "1.5"),
    ("--batch-size 0", "--batch-size", "at least 1"), ("--batch-size -1", "--batch-size", "-1"),
    ("--seed -1", "--seed", "-1", "at least 0"), ("--seed x", "--seed", "x"),
    ("--arch conv --data npz --data-file IMAGES", "conv", "6 x 5", "divide by 4", "mlp"),
    ("--data cifar", "--data", "cifar", "mnist", "npz"), ("--arch cnn", "--arch", "cnn", "mlp", "conv"),
    ("--optimizer lion", "--optimizer", "lion", "adam"), ("--likelihood laplace", "--likelihood", "gaussian"),
    ("--binarize sometimes", "--binarize", "dynamic"), ("--dtype float16", "--dtype", "float32"),
    ("--fixed-logvar -1", "fixed_logvar", "bernoulli", "gaussian"),
    ("--fixed-logvar nan --likelihood gaussian", "fixed_logvar", "nan", "finite"),
    ("--data npz", "--data npz", "--data-file"), ("--data-file IMAGES", "--data-file", "--data npz"),
    ("--data mnist --data-file IMAGES", "--data-file", "--data npz"),
    ("--data frey --data-dir /nowhere/at/all", "/nowhere/at/all", "--data-dir"),
    ("--layers 2", "--layers"), ("--lat 3", "--lat"), ("--latent", "--latent"), ("digits", "digits"),
    ("--device cuda:99", "--device", "cuda:99", "cpu"), ("--device nonsense", "--device", "nonsense", "cpu"),
]


@each_level
@pytest.mark.parametrize("options, words", [(options, words) for options, *words in BAD_OPTIONS],
                         ids=[options for options, *_ in BAD_OPTIONS])
def test_a_bad_option_ends_with_2_and_one_line_that_names_it(tmp_path, level, options, words, images):
    refused(level, tmp_path / "out", words, options.replace("IMAGES", str(images)))


def test_level_1_knows_no_gpu_and_says_who_does(tmp_path):
    refused("numpy", tmp_path / "out", ["--device", "cuda", "pytorch_lowlevel/train_lowlevel.py"], "--device cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device, which --device cuda would use")
def test_a_missing_gpu_is_an_error_not_a_slow_run_on_the_cpu(tmp_path):
    refused("lowlevel", tmp_path / "out", ["--device cuda", "--device cpu"], "--device cuda")


@each_level
@pytest.mark.parametrize("inside", ["", "below"])
def test_out_that_is_a_file_is_refused_and_kept(tmp_path, level, inside):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / inside
    code, _, err = run(level, "--hidden 4 --epochs 1 --out", out)
    assert code == 2
    line = error_line(err)
    assert str(out) in line and "folder" in line, line
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@each_level
def test_help_lists_every_option_with_its_default_and_exits_with_0(level):
    code, out, err = run(level, "--help")
    assert code == 0 and err == ""
    assert_complete_help(out)


def assert_complete_help(text):
    listed = {word.rstrip(",") for line in text.splitlines() for word in line.split()[:1] if word.startswith("--")}
    assert set(OPTIONS) <= listed, f"--help does not list {sorted(set(OPTIONS) - listed)}"
    for words in ("nats", "default: 0.01 for digits", "default: adam", "{dynamic,static,threshold,none}", "$VAE_DATA"):
        assert words in " ".join(text.split()), f"--help does not say {words!r}"


def test_the_help_of_sample_numpy_names_the_defaults_that_it_has(monkeypatch):
    told, original = {}, argparse._ActionsContainer.add_argument            # of a parser and of its groups

    def spy(self, *names, **settings):
        told[names[-1]] = settings
        return original(self, *names, **settings)

    monkeypatch.setattr(argparse._ActionsContainer, "add_argument", spy)
    sample_numpy.parse(["--weights", "params.npz"])
    defaults = {name: settings["default"] for name, settings in told.items() if "default" in settings}
    del defaults["--help"]                                                  # argparse's own
    assert set(defaults) == {"--samples", "--data", "--seed"}
    for name, default in defaults.items():
        assert told[name]["help"].endswith(f"(default: {default})"), name


def numbers_in(text) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


@pytest.mark.parametrize("name", DATASETS)
def test_epochs_and_step_size_are_by_default_what_the_help_of_every_level_says(tmp_path, monkeypatch, name):
    """The numbers that depend on the data set stand in the help in words, where nothing keeps them up to date."""
    x = np.random.default_rng(0).random((3, 6), dtype=np.float32)
    monkeypatch.setattr(common.run, "load_dataset", lambda *given: Dataset(name, (2, 3), x, None, x))
    chosen = Run("numpy", Options.parse("numpy", "", ["--data", name, "--out", str(tmp_path)])).options
    helps = {item.name: item.metadata["help"] for item in fields(Options) if item.metadata}
    for option, small in (("epochs", ("digits", "frey")), ("lr", ("digits",))):
        words = helps[option].partition("default: ")[2]
        one, other = numbers_in(words)
        assert [part for part in DATASETS if part in words] == list(small)
        assert getattr(chosen, option) == (one if name in small else other), option
    plans = {item.name: item for item in fields(Plan)}
    own = train_paper.own_defaults({"data": name})
    for option, small in (("epochs", ("digits", "frey")), ("lr", ("digits",))):
        words = plans[option].metadata["help"].rpartition("; ")[2]                      # "digits and frey: 200"
        assert [part for part in DATASETS if part in words] == list(small)
        assert own.get(option) == (numbers_in(words)[0] if name in small else None), option
        assert own.get(option, plans[option].default) == getattr(chosen, option), f"{option} differs between the levels"


def test_the_seed_of_level_3_is_that_of_its_first_weights_too(tmp_path, monkeypatch, images):
    """Two seeds that differ in shuffling and noise alone would be half as different as they say."""
    seen = []
    monkeypatch.setattr(train_paper, "train", lambda model, *rest: seen.append(
        {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}) or [])
    monkeypatch.setattr(train_paper, "draw_pictures", lambda *given: None)
    for seed in (0, 0, 1):
        argv = ["--data", "npz", "--data-file", str(images), "--hidden", "4", "--seed", str(seed), "--out", str(tmp_path)]
        assert run_command(lambda argv=argv: train_paper.main(argv)) == 0
    for name, array in seen[0].items():
        np.testing.assert_array_equal(array, seen[1][name])
        # biases begin at zero, or at the average image
        assert np.array_equal(array, seen[2][name]) == name.endswith("bias"), name


@each_level
def test_every_option_has_a_help_text(level, monkeypatch):
    seen, original = [], argparse.ArgumentParser.add_argument

    def spy(self, *names, **settings):
        seen.append((names, settings.get("help")))
        return original(self, *names, **settings)

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", spy)
    run(level, "--help")
    assert {names[-1] for names, _ in seen} >= {*OPTIONS, "--help"}
    for names, text in seen:
        assert text, f"{names} has no help text"


# ---- bad files --------------------------------------------------------------------------------------------------------


@each_level
@pytest.mark.parametrize("content", [None, b"", b"pictures of cats\n", "no x_train", "NaN"], ids=str)
def test_a_wrong_data_file_is_named(tmp_path, level, content):
    path = tmp_path / "my images.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **{"images" if content == "no x_train" else "x_train": np.full((4, 6, 5), np.nan)})
    code, out, err = run(level, "--data npz --epochs 1 --out", tmp_path / "out", "--data-file", path)
    assert code == 2 and str(path) in error_line(err), err
    assert not (tmp_path / "out").exists()


def bad_weights(path, kind):
    """Writes weights with something wrong to `path`; returns what the error line must name."""
    config = VAEConfig("mlp", (6, 5), 4, 3, layers=2 if kind == "two layers" else 1)
    params = init_params(config, np.random.default_rng(0))
    if kind == "NaN":
        params["decoder.hidden.weight"][1, 2] = np.nan
    save_params(path, params, config)
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "text":
        path.write_text("0.1 0.2 0.3\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(content[:len(content) // 2])
    elif kind == "pickled":
        with open(path, "wb") as file:
            np.savez(file, config=np.array([Bomb(path.with_name("it went off"))], dtype=object), **params)
    elif kind == "torch":
        torch.save({name: torch.from_numpy(array) for name, array in params.items()}, path)
    elif kind == "no configuration":
        np.savez(path, **params)
    elif kind == "a checkpoint":
        save_checkpoint(path, {"params": params}, {"epoch": 1})
    return {"NaN": ["decoder.hidden.weight", "NaN"], "two layers": ["layers is 2", "level 3"]}.get(kind, [path])


@each_level
@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "truncated", "pickled", "torch",
                                  "no configuration", "a checkpoint", "NaN", "two layers"])
def test_wrong_weights_for_init_from_are_refused(tmp_path, level, kind, images):
    path = tmp_path / "weights.npz"
    words = bad_weights(path, kind)
    refused(level, tmp_path / "out", words, "--data npz --epochs 1 --init-from", path, "--data-file", images)
    assert not (tmp_path / "it went off").exists(), "a pickled object was loaded"


def damaged(path, kind):
    """Makes a good checkpoint a bad one."""
    groups, facts = load_checkpoint(path)
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[:len(content) // 2])
    elif kind == "text":
        path.write_text("epoch 3\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "weights":
        path.write_bytes(path.with_name("params.npz").read_bytes())
    elif kind == "pickled":
        with open(path, "wb") as file:
            np.savez(file, facts=np.array([Bomb(path.parent.parent / "it went off")], dtype=object))
    elif kind == "facts a list":
        save_checkpoint(path, groups, [1, 2])
    elif kind == "no facts at all":
        save_checkpoint(path, groups, {})
    elif kind.startswith("without group "):
        name = kind.removeprefix("without group ")
        save_checkpoint(path, {group: arrays for group, arrays in groups.items() if group != name}, facts)
    elif kind.startswith("without fact "):
        name = kind.removeprefix("without fact ")
        save_checkpoint(path, groups, {fact: value for fact, value in facts.items() if fact != name})
    elif kind == "an unknown option":
        save_checkpoint(path, groups, facts | {"options": facts["options"] | {"colour": "blue"}})
    elif kind == "a weight misshapen":
        save_checkpoint(path, groups | {"params": groups["params"] | {"encoder.mu.bias": np.zeros(7)}}, facts)
    elif kind == "an optimizer state misshapen":
        save_checkpoint(path, groups | {"state.mean": groups["state.mean"] | {"encoder.mu.bias": np.zeros(7)}}, facts)
    elif kind == "an optimizer state missing":
        state = {name: array for name, array in groups["state.mean"].items() if name != "encoder.mu.bias"}
        save_checkpoint(path, groups | {"state.mean": state}, facts)
    elif kind == "NaN":
        groups["params"]["encoder.mu.bias"][:] = np.nan
        save_checkpoint(path, groups, facts)


DAMAGES = ["truncated", "text", "empty", "weights", "pickled", "facts a list", "no facts at all", "without group params",
           "without group frames", "without group state.mean", "without fact epoch", "without fact rows",
           "without fact config", "without fact rng", "without fact state", "an unknown option", "a weight misshapen",
           "an optimizer state misshapen", "an optimizer state missing", "NaN"]


@each_level
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_nothing_is_changed(tmp_path, level, kind, images):
    out = tmp_path / "out"
    code, _, err = run(level, "--data npz --hidden 4 --epochs 2 --out", out, "--data-file", images)
    assert code == 0, err
    damaged(out / "checkpoint.npz", kind)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    code, _, err = run(level, "--resume --epochs 4 --out", out)
    assert code == 2, f"a checkpoint with {kind} should be refused with 2, not {code}: {err}"
    line = error_line(err)
    assert str(out / "checkpoint.npz") in line, line
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before, "a refused command changed the folder"
    assert not (tmp_path / "it went off").exists(), "a pickled object was loaded"


@each_level
def test_resume_where_the_images_have_changed_is_refused(tmp_path, level):
    """The file of --data-file may be another one by now."""
    path, rng = tmp_path / "images.npz", np.random.default_rng(0)
    np.savez(path, x_train=rng.random((20, 6, 5)))
    code, _, err = run(level, "--data npz --hidden 4 --epochs 2 --out", tmp_path / "out", "--data-file", path)
    assert code == 0, err
    np.savez(path, x_train=rng.random((20, 7, 5)))
    code, _, err = run(level, "--resume --epochs 4 --out", tmp_path / "out")
    assert code == 2, err
    error_line(err)


# ---- processes of their own -------------------------------------------------------------------------------------------


def spawn(*command, cwd=ROOT, **variables):
    """A fresh interpreter on the code of this checkout, without a display."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "numpy")])} | variables
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND", "VAE_DATA"):
        env.pop(name, None)
    return subprocess.run([sys.executable, *map(str, command)], cwd=cwd, env=env, capture_output=True, text=True,
                          timeout=120)


def test_the_scripts_with_a_command_line_are_found():
    assert {"numpy/train_numpy.py", "pytorch_lowlevel/train_lowlevel.py"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", [pytest.param(script, marks=() if script.startswith("numpy/") else pytest.mark.slow)
                                    for script in SCRIPTS])
def test_the_help_of_a_script_is_complete(script):
    done = spawn(ROOT / script, "--help")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith("usage: ") and script in done.stdout, "--help should show the command to run"
    if Path(script).name.startswith("train_"):
        assert_complete_help(done.stdout)


def test_level_1_trains_without_torch_without_a_display_and_from_any_folder(tmp_path):
    program = ("import runpy, sys\n"
               "try:\n"
               "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
               "except SystemExit as end:\n"
               "    assert not end.code, end.code\n"
               "assert 'torch' not in sys.modules, 'level 1 imported torch'\n")
    script = ROOT / "numpy" / "train_numpy.py"
    done = spawn("-c", f"import sys\nsys.argv = [{str(script)!r}, *sys.argv[1:]]\n{program}", "--hidden", 4, "--epochs", 1,
                 cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    out = tmp_path / "runs" / "numpy-digits-mlp-2"
    assert "runs/numpy-digits-mlp-2/manifold.png" in done.stdout and (out / "manifold.png").exists(), done.stdout
    load_params(out / "params.npz")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["numpy/train_numpy.py", "pytorch_lowlevel/train_lowlevel.py"])
def test_a_script_runs_from_another_folder_by_its_path(tmp_path, script):
    done = spawn(ROOT / script, "--hidden", 4, "--epochs", 1, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert len(list(tmp_path.glob("runs/*/manifold.png"))) == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    """As in `python paper/reproduce.py list | head`."""
    program = "from common.cli import run_command\nraise SystemExit(run_command(lambda: print('line\\n' * 100_000)))"
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


@pytest.mark.parametrize("value", ["0", "x"])
@pytest.mark.parametrize("script", ["numpy/train_numpy.py",
                                    pytest.param("pytorch_lowlevel/train_lowlevel.py", marks=pytest.mark.slow)])
def test_a_process_called_wrongly_exits_with_2_and_one_line(tmp_path, script, value):
    done = spawn(ROOT / script, "--latent", value, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "", done
    assert "latent" in error_line(done.stderr) and list(tmp_path.iterdir()) == []
