"""`pytest --impl PATH`: a right module passes, a partial one is told what it lacks, a wrong one fails."""

import subprocess
import sys
from pathlib import Path

import pytest
from wrong_answers import WRONG_ANSWERS

ROOT = Path(__file__).resolve().parent.parent

RIGHT = """
from losses_numpy import bernoulli_log_likelihood, gaussian_log_likelihood, kl_divergence
from networks_numpy import decode, encode
from train_numpy import adagrad_step, adam_step, sgd_step
from vae_numpy import elbo_terms, loss_and_grads, reparameterize
"""
RIGHT_IN_TORCH = """
from pytorch_lowlevel.networks_lowlevel import decode, encode
from pytorch_lowlevel.train_lowlevel import adagrad_step, adam_step, sgd_step
from pytorch_lowlevel.vae_lowlevel import *
BACKEND = "torch"
"""
PARTIAL = """
import numpy as np

def kl_divergence(mu, logvar):
    return 0.5 * (mu * mu + (np.expm1(logvar) - logvar))

def reparameterize(mu, logvar, eps):
    raise NotImplementedError("reparameterize")
"""
TORCH_BUT_TOUCHY = RIGHT_IN_TORCH + """
def loss_and_grads(params, x, eps, config, beta=1.0, free_bits=0.0):
    import pytorch_lowlevel.vae_lowlevel as right
    for tensor in params.values():
        tensor.requires_grad_()
    loss, terms, grads = right.loss_and_grads(params, x, eps, config, beta, free_bits)
    return loss, terms, grads
"""
WRONG = """
from wrong_answers import planted
for_good = planted({name!r})
for_good.__enter__()
from losses_numpy import bernoulli_log_likelihood, gaussian_log_likelihood, kl_divergence
from networks_numpy import decode, encode
from train_numpy import adagrad_step, adam_step, sgd_step
from vae_numpy import elbo_terms, loss_and_grads, reparameterize
"""


def run_pytest(tmp_path, source, *arguments):
    module = tmp_path / "my_vae.py"
    module.write_text(source)
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", f"--impl={module}",
                           *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280)


def test_a_partial_module_passes_what_it_attempted_and_is_told_the_rest(tmp_path):
    done = run_pytest(tmp_path, PARTIAL, "-k", "test_part")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 3 skipped" in done.stdout
    for missing in ("reparameterize", "bernoulli_log_likelihood", "gaussian_log_likelihood"):
        assert f"not attempted: {missing}" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("source", [RIGHT, RIGHT_IN_TORCH], ids=["numpy", "torch"])
def test_a_right_module_passes_the_whole_contract(tmp_path, source):
    done = run_pytest(tmp_path, source)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1], "nothing is left unattempted"


# one wrong answer for each check that a module is held to; test_wrong_answers.py plants them all
ONE_EACH = {wrong.caught_by: name for name, wrong in WRONG_ANSWERS.items() if wrong.caught_by != "backward_is_pure"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_EACH.values())
def test_a_wrong_module_fails(tmp_path, name):
    done = run_pytest(tmp_path, WRONG.format(name=name), "-x", "-k", WRONG_ANSWERS[name].caught_by)
    assert done.returncode == 1, done.stdout
    assert "AssertionError" in done.stdout


@pytest.mark.slow
def test_a_torch_module_that_marks_the_callers_tensors_fails(tmp_path):
    done = run_pytest(tmp_path, TORCH_BUT_TOUCHY, "-x", "-k", "calls_are_pure")
    assert done.returncode == 1
    assert "requires_grad or .grad was set" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("source", "complaint"), [
    ("x = 1", "nothing was attempted"),
    ("import a_module_that_is_not_there", "does not import (ModuleNotFoundError"),
    ("BACKEND = 'jax'\ndef encode(): ...", "set it to 'numpy' or 'torch'"),
], ids=["nothing attempted", "import error", "unknown backend"])
def test_a_module_that_cannot_be_checked_is_one_line(tmp_path, source, complaint):
    done = run_pytest(tmp_path, source)
    assert done.returncode not in (0, 1)
    assert complaint in done.stderr and "Traceback" not in done.stderr + done.stdout


@pytest.mark.slow
def test_a_module_of_stubs_has_not_passed(tmp_path):
    done = run_pytest(tmp_path, "def kl_divergence(mu, logvar):\n    raise NotImplementedError('kl_divergence')")
    assert done.returncode == 1
    assert "nothing was attempted" in done.stdout


@pytest.mark.slow
def test_a_module_of_the_repository_may_stand_behind_a_blank():
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-k", "reparameterize", "--impl", "numpy/vae_numpy.py"],
                          cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_a_missing_module_is_named(tmp_path):
    done = subprocess.run([sys.executable, "-m", "pytest", f"--impl={tmp_path / 'none.py'}"], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert "there is no such file" in done.stderr and "Traceback" not in done.stderr
