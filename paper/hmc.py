"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011): draws from a density without its constant. Appendices D, E.

    chains = start_chains(log_density, z)                                       # z (..., J): one chain for each row
    chains = burn_in(log_density, chains, 50, 4, generator)                     # 50 transitions of 4 leapfrog steps
    draws, chains, acceptance = draw(log_density, chains, 100, 4, generator)    # draws (100, ..., J)

A transition gives z a fresh random momentum, follows Hamilton's equations for a while, and accepts where it ends with
probability min(1, exp(-change of energy)), the Metropolis test, which makes up for the error of the finite steps. Every
row is a chain of its own, with its own step size and acceptance. Chains are values: a caller keeps them and goes on.
log_density(z) -> log density of each row in nats, up to a constant; its gradient comes from autograd, z's only.
Letters: ... any leading shape, mostly B images or C chains for each of B images; J latents.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from common.config import InputError

TARGET = 0.9                # appendix E: acceptance, to which step sizes are tuned
JITTER = 0.2                # a step is drawn within +- 20%: at a fixed one a path can be a full turn, back to its start


@dataclass(frozen=True)
class Chains:
    """Where chains are: z (..., J), step_size (..., 1), and at z the log density (...) with its gradient (..., J)."""

    z: torch.Tensor
    step_size: torch.Tensor
    log_p: torch.Tensor
    gradient: torch.Tensor


def start_chains(log_density: Callable, z, step_size=0.1) -> Chains:
    """Chains at z (..., J). step_size: a number, or (..., 1). One gradient evaluation.

    Raises InputError where the density or its gradient is not finite at z: such a chain could accept nothing, or all.
    """
    log_p, gradient = value_and_gradient(log_density, z)
    if log_p.shape != z.shape[:-1]:
        raise InputError(f"log_density gave shape {tuple(log_p.shape)} for z {tuple(z.shape)}: one number for each row")
    if not (torch.isfinite(log_p).all() and torch.isfinite(gradient).all()):
        raise InputError("the log density or its gradient is not finite at a starting point: start elsewhere")
    step_size = torch.as_tensor(step_size, dtype=z.dtype, device=z.device).expand(*z.shape[:-1], 1)
    return Chains(z.detach(), step_size, log_p, gradient)


def value_and_gradient(log_density: Callable, z):
    """The log density (...) of each row and its gradient (..., J), with no graph left behind."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        log_p = log_density(z)
        gradient, = torch.autograd.grad(log_p.sum(), z)     # rows do not mix: the sum gives each row its own gradient
    return log_p.detach(), gradient


def leapfrog(log_density: Callable, z, momentum, gradient, step_size, steps: int):
    """Hamilton's equations, dz/dt = momentum and dmomentum/dt = gradient of log p, in `steps` steps, eq. 3.7.

    z, momentum, gradient (..., J), step_size (..., 1) -> z, momentum, log_p, gradient at the end of the path. Exactly
    reversible (flip the momentum), keeps volumes, and its energy error is of second order in the step (Neal 2011).
    `steps` gradient evaluations: the one at the start is handed in.
    """
    momentum = momentum + 0.5 * step_size * gradient                     # half a step
    for _ in range(steps):
        z = z + step_size * momentum
        log_p, gradient = value_and_gradient(log_density, z)
        momentum = momentum + step_size * gradient                       # two half steps in one
    return z, momentum - 0.5 * step_size * gradient, log_p, gradient     # the last was a half too much


def transition(log_density: Callable, chains: Chains, steps: int, generator=None):
    """One transition of every chain: fresh momentum, leapfrog, Metropolis test. -> Chains, acceptance probability (...)

    Leaves the density invariant, whatever the step size. A path that ends at a non-finite energy is rejected.
    `steps` gradient evaluations: the gradient at the end of an accepted path is the one at the start of the next.
    """
    z, like = chains.z, {"generator": generator, "device": chains.z.device, "dtype": chains.z.dtype}
    momentum = torch.randn(z.shape, **like)                              # (..., J)
    wobble, uniform = torch.rand((2, *z.shape[:-1], 1), **like)          # (..., 1) each
    step_size = chains.step_size * (1 + JITTER * (2 * wobble - 1))
    z, end_momentum, log_p, gradient = leapfrog(log_density, z, momentum, chains.gradient, step_size, steps)
    log_ratio = (log_p - kinetic(end_momentum)) - (chains.log_p - kinetic(momentum))     # minus the change of energy
    sound = torch.isfinite(log_ratio) & torch.isfinite(gradient).all(dim=-1)
    acceptance = torch.where(sound, log_ratio.clamp(max=0).exp(), 0.0)   # (...)
    accepted = uniform[..., 0] < acceptance
    row = accepted[..., None]
    return Chains(torch.where(row, z, chains.z), chains.step_size, torch.where(accepted, log_p, chains.log_p),
                  torch.where(row, gradient, chains.gradient)), acceptance


def kinetic(momentum):
    """Minus the log density of the momentum, N(0, I), without its constant: (..., J) -> (...)."""
    return 0.5 * (momentum * momentum).sum(dim=-1)


# ---- many transitions ------------------------------------------------------------------------------------------------


def tuned(step_size, acceptance, rate: float):
    """Robbins and Monro 1951, on log step_size (..., 1): longer where acceptance (...) exceeds TARGET, or shorter."""
    return step_size * torch.exp(rate * (acceptance[..., None] - TARGET))


def burn_in(log_density: Callable, chains: Chains, transitions: int, steps: int, generator=None) -> Chains:
    """`transitions` transitions that forget the start and tune each chain's step size; nothing of them may be used.

    The t-th changes log step_size by 2 (acceptance - TARGET) / sqrt(t). The step sizes to go on with are the geometric
    mean of the second half, which has less noise than the last. They stay, or the density would not be invariant.
    Raises InputError where `transitions` or `steps` is below 1.
    """
    if transitions < 1 or steps < 1:
        raise InputError(f"transitions is {transitions} and steps {steps}: give whole numbers of at least 1")
    kept = []
    for t in range(1, transitions + 1):
        chains, acceptance = transition(log_density, chains, steps, generator)
        chains = replace(chains, step_size=tuned(chains.step_size, acceptance, 2 / math.sqrt(t)))
        if t > transitions // 2:
            kept.append(chains.step_size.log())
    return replace(chains, step_size=torch.stack(kept).mean(dim=0).exp())


def draw(log_density: Callable, chains: Chains, draws: int, steps: int, generator=None):
    """`draws` transitions at fixed step sizes. -> draws (`draws`, ..., J), Chains to go on with, mean acceptance (...).

    Raises InputError where `draws` or `steps` is below 1.
    """
    if draws < 1 or steps < 1:
        raise InputError(f"draws is {draws} and steps {steps}: give whole numbers of at least 1")
    found, total = [], torch.zeros_like(chains.log_p)
    for _ in range(draws):
        chains, acceptance = transition(log_density, chains, steps, generator)
        found.append(chains.z)
        total += acceptance
    return torch.stack(found), chains, total / draws
