"""Training on several processes computes what one process computes.

    pytest tests/test_distributed.py
    pytest tests/test_distributed.py -m slow          # torchrun, with two and three processes

The embedded digits have 1,439 training images: batches of 158, 719 and 479 leave 17, 1 and 2 for the last minibatch.
"""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from oracles import assert_close

from common.checkpoints import load_params
from common.cli import run_command
from common.config import InputError, VAEConfig
from paper import train_distributed, train_paper
from paper.images import Images
from paper.plan import Plan
from paper.vae_paper import VAE

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "paper" / "train_distributed.py"
CONFIG = VAEConfig("mlp", (6, 5), hidden=9, latent=3)
PLAN = Plan(epochs=3, batch_size=20, lr=0.01, schedule="one-cycle")
CPU = torch.device("cpu")
SECONDS = 200                                       # for processes that each import torch, on a busy machine
# prints every epoch's row whole, where the script prints two decimals
EXACT = """
import json, sys
from common.cli import run_command
from paper import train_distributed
train_distributed.epoch_line = lambda row, epochs: json.dumps(row)
sys.exit(run_command(train_distributed.main))
"""
# says which threads are left when the command has ended
THREADS = """
import gc, os, sys
from common.cli import run_command
from paper import train_distributed
code = run_command(train_distributed.main)
gc.collect()
print("threads", *(open(f"/proc/self/task/{number}/comm").read().strip() for number in os.listdir("/proc/self/task")))
sys.exit(code)
"""


def some_images(dynamic=True) -> Images:
    """53 gray images of 6 x 5 to train on, which batches of 20 do not divide."""
    generator = torch.Generator().manual_seed(5)
    x = {name: torch.rand(count, 30, generator=generator) for name, count in
         (("x_train", 53), ("x_valid", 5), ("x_test", 7))}
    return Images(**x, dynamic=dynamic)


def run(*options) -> tuple[int, list[str], list[str]]:
    """Exit code, lines of output and of error output of the command line in this process."""
    argv = [word for item in options for word in (item.split() if isinstance(item, str) else [str(item)])]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run_command(lambda: train_distributed.main(argv))
        except SystemExit as end:                               # argparse
            code = end.code
    return code, out.getvalue().splitlines(), err.getvalue().splitlines()


def launch(*words) -> tuple[int, str, str]:
    """Exit code, output and error output of a Python process, which is stopped with all that it started if it hangs."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "numpy")))}
    process = subprocess.Popen([sys.executable, *map(str, words)], env=environment, text=True, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)                  # torchrun hands it on to its workers, sessions of their own
        try:
            process.communicate(timeout=20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def torchrun(processes: int, *words) -> tuple[int, str, str]:
    """launch() under torchrun, on a free port."""
    return launch("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, *words)


# ---- one process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_group_of_one_trains_as_train_paper_does(dynamic):
    """Bit by bit, and it reports the same rows: permutation, binarization and noise are drawn in one order."""
    images, reported = some_images(dynamic), []
    models = [train_paper.build("vae", CONFIG, images) for _ in range(2)]
    want = train_paper.train(models[0], images, PLAN)
    with train_distributed.process_group(CPU):
        got = train_distributed.train(models[1], images, PLAN, reported.append)
    assert got == reported and [row["epoch"] for row in got] == [1, 2, 3]
    for name, weights in models[0].state_dict().items():
        assert torch.equal(models[1].state_dict()[name], weights), name
    for ours, theirs in zip(got, want, strict=True):
        assert ours.keys() == theirs.keys()
        for part in ("train", "valid", "test"):
            assert ours[part] == pytest.approx(theirs[part], rel=1e-6), part       # float32, added up in another way


def test_the_command_line_alone_is_one_process(tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    code, out, err = run("--epochs 2 --hidden 7 --latent 3 --dtype float64 --out", tmp_path / "new" / "run")
    assert (code, err) == (0, [])
    assert len(out) == 3 and all(re.match(rf"epoch {i} \| train elbo -\d", out[i - 1]) for i in (1, 2))
    params, config = load_params(tmp_path / "new" / "run" / "params.npz")
    assert config == VAEConfig("mlp", (8, 8), hidden=7, latent=3)
    assert {array.dtype.name for array in params.values()} == {"float64"}
    assert not dist.is_initialized()


@pytest.mark.parametrize(("options", "word"), [
    ("--lr 0", "lr is 0.0"), ("--epochs 0", "epochs is 0"), ("--batch-size 0", "batch_size is 0"),
    ("--seed -1", "seed is -1"), ("--latent 0", "latent is 0"), ("--data npz", "--data-file"),
    ("--data-file x.npz", "--data npz"), ("--data mnist --data-dir nowhere", "nowhere"),
    ("--model iwae", "unrecognized arguments: --model"), ("--resume", "unrecognized arguments: --resume"),
    ("--patience 3", "unrecognized arguments: --patience"), ("--device tpu", "invalid choice: 'tpu'"),
])
def test_a_wrong_option_is_one_line(options, word, tmp_path):
    code, out, err = run(options, "--out", tmp_path / "run")
    assert (code, out) == (2, [])
    assert sum("error: " in line for line in err) == 1 and "error: " in err[-1] and word in err[-1], err
    assert not (tmp_path / "run").exists() and not dist.is_initialized()


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        code, _, err = run("--epochs 1 --hidden 7 --out", out)
        assert code == 2 and len(err) == 1 and str(out) in err[0], err
        assert not dist.is_initialized()


def test_a_run_that_diverges_says_so_and_leaves_no_group():
    images = some_images()
    with pytest.raises(InputError, match="try a smaller lr"), train_distributed.process_group(CPU):
        train_distributed.train(train_paper.build("vae", CONFIG, images), images, replace(PLAN, lr=1e38))
    assert not dist.is_initialized()


# ---- several processes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize(("processes", "options"), [
    pytest.param(2, "--batch-size 158 --hidden 30 --schedule one-cycle", id="two processes and a last minibatch of 17"),
    pytest.param(2, "--batch-size 719 --likelihood gaussian --hidden 30", id="two processes and a last minibatch of 1"),
    pytest.param(3, "--batch-size 479 --arch conv", id="three processes and a last minibatch of 2"),
])
def test_several_processes_compute_what_one_computes(processes, options, tmp_path, monkeypatch):
    """Same losses after every epoch and the same weights at the end, but for the order of additions."""
    options = f"{options} --epochs 3 --dtype float64"
    monkeypatch.setattr(train_distributed, "epoch_line", lambda row, epochs: json.dumps(row))
    code, one, err = run(options, "--out", tmp_path / "one")
    assert code == 0, err
    (tmp_path / "exact.py").write_text(EXACT)
    code, out, err = torchrun(processes, tmp_path / "exact.py", *options.split(), "--out", tmp_path / "many")
    assert code == 0, err
    many = out.splitlines()
    assert len(one) == len(many) == 4
    for line, other in zip(one[:3], many[:3], strict=True):
        want, got = json.loads(line), json.loads(other)
        for part in ("train", "valid", "test"):
            for name, value in want[part].items():
                assert_close(f"epoch {want['epoch']}: {part} {name}", got[part][name], value, rtol=1e-10, atol=0)
    (want, config), (got, other) = (load_params(tmp_path / name / "params.npz") for name in ("one", "many"))
    assert config == other
    for name, weights in want.items():
        assert_close(name, got[name], weights, rtol=1e-10, atol=1e-10 * abs(weights).max())


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS)
def test_torchrun_prints_what_one_process_prints(tmp_path):
    """Once, not once for each process; and what it writes is a model."""
    options = "--epochs 2 --lr 0.003 --dtype float64".split()
    lines = {}
    for name, (code, out, err) in {
        "one": launch(SCRIPT, *options, "--out", tmp_path / "one"),
        "two": torchrun(2, SCRIPT, *options, "--out", tmp_path / "two"),
    }.items():
        assert code == 0, err
        lines[name] = [line.rpartition(" | ")[0] for line in out.splitlines() if line.startswith("epoch")]
    assert len(lines["one"]) == 2 and lines["one"] == lines["two"]
    assert VAE.load(tmp_path / "two" / "params.npz").config.latent == 2


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize(("options", "message"), [
    ("--lr -1", "error: lr is -1.0: give a positive step size"),
    ("--lr 1e38 --hidden 30 --batch-size 719", "error: the loss is nan in epoch 1: try a smaller lr"),
])
def test_torchrun_ends_when_something_is_wrong(options, message, tmp_path):
    """Each process says what it is, in one line, and torchrun comes to an end with their exit code in its report."""
    code, _, err = torchrun(2, SCRIPT, *options.split(), "--out", tmp_path / "run")
    assert code != 0
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors and all(line.startswith(message) for line in errors), err
    assert "exitcode: 2" in err.replace(" ", "").replace(":", ": ") and SCRIPT.name + "\", line" not in err, err
    assert not (tmp_path / "run" / "params.npz").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists the threads of a process there")
@pytest.mark.parametrize(("options", "code"), [("", 0), ("--lr 1e38", 2)])
def test_the_threads_of_the_group_end_with_it(options, code, tmp_path):
    """Those that live on until the interpreter's end crash it now and then; see process_group."""
    words = f"--epochs 1 --hidden 30 {options}".split()
    got, out, err = launch("-c", THREADS, *words, "--out", tmp_path)
    assert got == code, err
    threads = out.splitlines()[-1].split()
    assert threads[0] == "threads" and not [name for name in threads if "gloo" in name], threads
