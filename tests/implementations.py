"""The implementations that the shared suite runs on: the levels, and a learner's own module (`pytest --impl PATH`).

Whatever an implementation computes with, the suite hands it NumPy arrays and gets NumPy arrays back.
"""

import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import losses_numpy
import networks_numpy
import numpy as np
import torch
import train_numpy
import vae_numpy

from common.config import InputError, VAEConfig
from paper import train_paper, vae_paper
from paper.conditional_vae import ConditionalVAE
from pytorch_lowlevel import networks_lowlevel, train_lowlevel, vae_lowlevel

CONTRACT = ("encode", "reparameterize", "decode", "bernoulli_log_likelihood", "gaussian_log_likelihood", "kl_divergence",
            "elbo_terms", "loss_and_grads", "sgd_step", "adagrad_step", "adam_step")


class NotAttempted(Exception):
    """The implementation lacks a function of the contract, or its labels."""


@dataclass(frozen=True)
class Implementation:
    """The contract's functions of one level or one module; `backend` is "numpy" or "torch"."""

    name: str
    modules: tuple[ModuleType | type, ...]
    backend: str = "numpy"

    def __call__(self, function: str, *arguments, **settings):
        """Calls a function of the contract, NumPy arrays in and out. Raises NotAttempted where there is none."""
        return self.give(self.function(function, settings)(*map(self.take, arguments), **self.take(settings)))

    def function(self, name: str, settings=()):
        """The function to be called with these settings. Raises NotAttempted where there is none, or none for labels y."""
        for module in self.modules:
            if hasattr(module, name):
                found = getattr(module, name)
                if "y" in settings and "y" not in inspect.signature(found).parameters:
                    raise NotAttempted(f"not attempted: {name} with labels y")
                return found
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


class Given(vae_paper.VAE):
    """Level 3 with a decoder that gives what it is told: z is (logits,) or (mean, logvar)."""

    def decode(self, z):
        return z


class Paper:
    """The contract's functions on the objects of level 3: a VAE, its methods, and the trainer's optimizers."""

    kl_divergence = staticmethod(vae_paper.kl_divergence)

    @staticmethod
    def model(params, config, y) -> vae_paper.VAE:
        params = {name: tensor.numpy() for name, tensor in params.items()}
        return ConditionalVAE(config, params).given(y) if config.condition else vae_paper.VAE(config, params)

    @staticmethod
    def encode(params, x, config, y=None):
        with torch.no_grad():
            return Paper.model(params, config, y).encode(x)

    @staticmethod
    def decode(params, z, config, y=None):
        with torch.no_grad():
            return Paper.model(params, config, y).decode(z)

    @staticmethod
    def reparameterize(mu, logvar, eps):
        return Given(VAEConfig()).reparameterize(mu, logvar, eps)

    @staticmethod
    def bernoulli_log_likelihood(logits, x):
        return Given(VAEConfig()).log_likelihood(x, logits)

    @staticmethod
    def gaussian_log_likelihood(x, mean, logvar):
        return Given(VAEConfig(likelihood="gaussian")).log_likelihood(x, (mean, logvar))

    @staticmethod
    def elbo_terms(params, x, eps, config, y=None):
        with torch.no_grad():
            return Paper.model(params, config, y).elbo_terms(x, eps)

    @staticmethod
    def loss_and_grads(params, x, eps, config, beta=1.0, free_bits=0.0, y=None):
        model = Paper.model(params, config, y)
        loss, terms = model.loss(x, eps, beta, free_bits)
        loss.backward()
        return loss.detach(), terms, {name: weight.grad for name, weight in model.named_parameters()}

    @staticmethod
    def step(rule, params, grads, state, lr):
        """One step of an optimizer as the trainer makes it; it stays in `state`."""
        if "optimizer" not in state:
            stand_in = SimpleNamespace(parameters=params.values)
            state["optimizer"] = (torch.optim.SGD(params.values(), lr) if rule == "sgd" else
                                  train_paper.make_optimizer(stand_in, train_paper.Plan(optimizer=rule, lr=lr)))
        for group in state["optimizer"].param_groups:
            group["lr"] = lr
        for name, tensor in params.items():
            tensor.grad = grads[name]
        state["optimizer"].step()
        state["optimizer"].zero_grad()

    @staticmethod
    def sgd_step(params, grads, state, lr):
        Paper.step("sgd", params, grads, state, lr)

    @staticmethod
    def adagrad_step(params, grads, state, lr):
        Paper.step("adagrad", params, grads, state, lr)

    @staticmethod
    def adam_step(params, grads, state, lr):
        Paper.step("adam", params, grads, state, lr)


LEVELS = {
    "numpy": Implementation("numpy", (vae_numpy, losses_numpy, networks_numpy, train_numpy)),
    "lowlevel": Implementation("lowlevel", (vae_lowlevel, networks_lowlevel, train_lowlevel), "torch"),
    "paper": Implementation("paper", (Paper,), "torch"),
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
