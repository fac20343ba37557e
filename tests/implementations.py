"""The implementations that the shared suite runs on: the levels, and a learner's own module (`pytest --impl PATH`).

Whatever an implementation computes with, the suite hands it NumPy arrays and gets NumPy arrays back.
"""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import losses_numpy
import networks_numpy
import numpy as np
import torch
import train_numpy
import vae_numpy

from common.config import InputError
from pytorch_lowlevel import networks_lowlevel, train_lowlevel, vae_lowlevel

CONTRACT = ("encode", "reparameterize", "decode", "bernoulli_log_likelihood", "gaussian_log_likelihood", "kl_divergence",
            "elbo_terms", "loss_and_grads", "sgd_step", "adagrad_step", "adam_step")


class NotAttempted(Exception):
    """The implementation lacks a function of the contract."""


@dataclass(frozen=True)
class Implementation:
    """The contract's functions of one level or one module; `backend` is "numpy" or "torch"."""

    name: str
    modules: tuple[ModuleType, ...]
    backend: str = "numpy"

    def __call__(self, function: str, *arguments, **settings):
        """Calls a function of the contract, NumPy arrays in and out. Raises NotAttempted where there is none."""
        return self.give(self.function(function)(*map(self.take, arguments), **settings))

    def function(self, name: str):
        for module in self.modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise NotAttempted(f"not attempted: {name}")

    def take(self, tree):
        """NumPy arrays as the implementation wants them."""
        if self.backend == "numpy":
            return tree
        if isinstance(tree, dict):
            return {name: self.take(value) for name, value in tree.items()}
        return torch.tensor(tree) if isinstance(tree, np.ndarray) else tree

    def give(self, tree):
        """What the implementation returned, as NumPy arrays. A gradient that is still attached to its graph is refused."""
        if isinstance(tree, dict):
            return {name: self.give(value) for name, value in tree.items()}
        if isinstance(tree, tuple | list):
            return tuple(self.give(value) for value in tree)
        if not isinstance(tree, torch.Tensor):
            return tree
        if tree.requires_grad:
            raise AssertionError(f"a tensor {tuple(tree.shape)} came back attached to its graph: detach what you return")
        return tree.numpy()


LEVELS = {
    "numpy": Implementation("numpy", (vae_numpy, losses_numpy, networks_numpy, train_numpy)),
    "lowlevel": Implementation("lowlevel", (vae_lowlevel, networks_lowlevel, train_lowlevel), "torch"),
}


def referee(implementation: Implementation) -> Implementation:
    """Whom an implementation is compared with: level 2, whose backward is autograd's; and level 2 itself with level 1."""
    return LEVELS["numpy" if implementation.name == "lowlevel" else "lowlevel"]


def load_implementation(path) -> Implementation:
    """A learner's module. Raises InputError where it cannot be read or holds nothing of the contract."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--impl {path}: there is no such file; give the path of your module, such as my_vae.py")
    spec = importlib.util.spec_from_file_location(f"learner_{path.stem}", path)
    if spec is None:
        raise InputError(f"--impl {path} is not a Python module: give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))          # its own neighbors, as if it had been started there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"--impl {path} does not import ({type(error).__name__}: {error}): mend that first") from error
    finally:
        sys.path.pop(0)
    backend = getattr(module, "BACKEND", "numpy")
    if backend not in ("numpy", "torch"):
        raise InputError(f"--impl {path}: BACKEND is {backend!r}; set it to 'numpy' or 'torch'")
    if not any(hasattr(module, name) for name in CONTRACT):
        raise InputError(f"--impl {path}: nothing was attempted; write at least one of {', '.join(CONTRACT)}")
    return Implementation(path.stem, (module,), backend)
