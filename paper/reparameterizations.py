"""Draws as functions of noise (paper, section 2.4; eq. 3.3): the three recipes, and the gradients that they make possible.

    q = DISTRIBUTIONS["Laplace"]
    eps = draw_noise(q, 1000, generator)                             # U(0, 1) or N(0, 1), (N,)
    z = q.g(eps, 0.5, 0.8)                                           # draws from q(z; phi), (N,)
    pathwise(q, torch.sin, (0.5, 0.8), eps).mean(dim=1)              # d E[sin z] / d phi, an estimate, (P,)

Before, there was only the score function, which asks nothing of f but its value, and pays with variance (section 2.2).
Letters: N draws, P parameters phi of the distribution. All numbers are scalars or arrays of draws, nothing has units.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import softplus

LOG_2PI = math.log(2 * math.pi)

# ---- recipe 1: the inverse CDF of uniform noise ------------------------------------------------------------------------


def exponential(eps, rate):
    """F(z) = 1 - exp(-rate z), solved for z."""
    return -torch.log1p(-eps) / rate


def logistic(eps, location, scale):
    """F(z) = 1 / (1 + exp(-(z - location) / scale)), solved for z."""
    return location + scale * (torch.log(eps) - torch.log1p(-eps))


# ---- recipe 2: location + scale * standard noise -----------------------------------------------------------------------


def gaussian(eps, mean, sd):
    """eps ~ N(0, 1): the VAE's own."""
    return mean + sd * eps


def laplace(eps, location, scale):
    """The standard noise comes from a uniform eps by recipe 1: F(z) = exp(z) / 2 below 0, 1 - exp(-z) / 2 above."""
    standard = -torch.sign(eps - 0.5) * torch.log1p(-2 * torch.abs(eps - 0.5))
    return location + scale * standard


# ---- recipe 3: composition ---------------------------------------------------------------------------------------------


def log_normal(eps, mu, sigma):
    """The exponential of a Gaussian draw: mu and sigma are those of log z."""
    return torch.exp(gaussian(eps, mu, sigma))


# ---- their log-densities, which pathwise gradients never ask for -------------------------------------------------------


def log_exponential(z, rate):
    return torch.log(rate) - rate * z


def log_logistic(z, location, scale):
    t = (z - location) / scale
    return -t - 2 * softplus(-t) - torch.log(scale)


def log_gaussian(z, mean, sd):
    t = (z - mean) / sd
    return -0.5 * (t * t + LOG_2PI) - torch.log(sd)


def log_laplace(z, location, scale):
    return -torch.abs(z - location) / scale - torch.log(2 * scale)


def log_log_normal(z, mu, sigma):
    return log_gaussian(torch.log(z), mu, sigma) - torch.log(z)


class Distribution(NamedTuple):
    """q(z; phi), a scalar z.

    recipe  in words                    noise       "uniform" on (0, 1) or "normal"
    g       g(eps, *phi) -> z           log_q       log_q(z, *phi), phi as tensors
    phi     names of the parameters     positive    whether z is
    """

    recipe: str
    noise: str
    g: Callable
    log_q: Callable
    phi: tuple[str, ...]
    positive: bool = False


DISTRIBUTIONS = {
    "exponential": Distribution("inverse CDF", "uniform", exponential, log_exponential, ("rate",), positive=True),
    "logistic": Distribution("inverse CDF", "uniform", logistic, log_logistic, ("location", "scale")),
    "Laplace": Distribution("location-scale", "uniform", laplace, log_laplace, ("location", "scale")),
    "Gaussian": Distribution("location-scale", "normal", gaussian, log_gaussian, ("mean", "sd")),
    "log-normal": Distribution("composition", "normal", log_normal, log_log_normal, ("mu", "sigma"), positive=True),
}


def draw_noise(q: Distribution, count: int, generator, dtype=torch.float64):
    """(N,) of the noise that q.g takes. torch.rand can give 0, where an inverse CDF is infinite: it becomes eps / 4."""
    settings = {"generator": generator, "device": generator.device, "dtype": dtype}
    if q.noise == "normal":
        return torch.randn(count, **settings)
    return torch.rand(count, **settings).clamp_min(torch.finfo(dtype).eps / 4)


# ---- the gradient of E[f(z)] in the parameters: two estimators, one gradient for each draw -----------------------------


def pathwise(q: Distribution, f, phi, eps):
    """d f(g(eps, phi)) / d phi: through the draw. phi P numbers, eps (N,) -> (P, N)."""
    phi = own_copies(phi, eps)
    return torch.stack(torch.autograd.grad(f(q.g(eps, *phi)).sum(), phi))


def score_function(q: Distribution, f, phi, z, baseline=0.0):
    """(f(z) - baseline) d log q(z; phi) / d phi, eq. 1.7, at draws z (N,) -> (P, N).

    The score has mean zero, so that any baseline, a number or (P, 1), leaves the mean as it is: provided that it was not
    made from these draws.
    """
    return (f(z) - baseline) * score(q, phi, z)


def score(q: Distribution, phi, z):
    """d log q(z; phi) / d phi with z held fixed. z (N,) -> (P, N)."""
    phi = own_copies(phi, z)
    return torch.stack(torch.autograd.grad(q.log_q(z, *phi).sum(), phi))


def best_baseline(q: Distribution, f, phi, z):
    """The constant that leaves the score function least variance, E[f s^2] / E[s^2], estimated from draws z: (P, 1)."""
    weight = score(q, phi, z).square()
    return (f(z) * weight).mean(dim=1, keepdim=True) / weight.mean(dim=1, keepdim=True)


def own_copies(phi, like):
    """Each parameter once for every draw, (N,): the gradient of a sum over draws then holds that of each."""
    return [torch.full_like(like, number).requires_grad_() for number in phi]


def exact_gradient(q: Distribution, f, phi, points=4000):
    """The integral of f(z) dq(z; phi)/d phi over z, by a double exponential rule in float64: (P,), good to 1e-9.

    Both sides of the location, or z > 0, are mapped to the whole line by |z - start| = exp(t - exp(-t)), after which the
    trapezoidal rule converges faster than any power of the spacing.
    """
    t = torch.linspace(-4.5, 7, points, dtype=torch.float64)
    distance = torch.exp(t - torch.exp(-t))
    cell = distance * (1 + torch.exp(-t)) * (t[1] - t[0])                # dz
    z = distance if q.positive else torch.cat([phi[0] - distance, phi[0] + distance])
    cell = cell if q.positive else torch.cat([cell, cell])
    density = torch.exp(q.log_q(z, *own_copies(phi, z))).detach()
    return (score_function(q, f, phi, z) * density * cell).sum(dim=1)
