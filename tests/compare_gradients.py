"""Compares the gradients written by hand (level 1) with autograd's (level 2) and with central differences.

    python tests/compare_gradients.py                                   # the mlp, Bernoulli
    python tests/compare_gradients.py --arch conv --likelihood gaussian --beta 4 --free-bits 0.5
    python tests/compare_gradients.py --weights runs/numpy-digits-mlp-2/params.npz
    python tests/compare_gradients.py --plant kl_sign                   # a known mistake, and where it shows
    python tests/compare_gradients.py --condition 10                    # the conditional mlp, at random labels

Everything is computed in float64 on random images, at weights and biases moved a little off their values, because at
zero biases a black pixel sits exactly on ReLU's kink, where differences mean nothing. Each parameter is compared with
autograd in every entry, and with central differences in some entries and one random direction. "off by" is the largest
difference over the largest entry of the gradient. Exits with 0 when all agree, 1 when something does not, 2 when the
command is wrong.
"""

import argparse
import math
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import vae_numpy
from contract import slope_along
from implementations import LEVELS
from wrong_answers import WRONG_ANSWERS, planted

from common.checkpoints import load_params
from common.cli import run_command
from common.config import (
    ARCHITECTURES,
    LIKELIHOODS,
    InputError,
    VAEConfig,
    check_objective,
    check_one_layer,
    init_params,
)

BATCH = 10
PLANTS = {name: wrong for name, wrong in WRONG_ANSWERS.items() if wrong.in_gradients}
# The two sums differ in the order of their additions: some 1e-15 of the largest entry. A mistake is off by far more.
TOLERANCE_AUTOGRAD = 1e-9
# Central differences are off by h^2 of a third derivative and by 1e-16 * loss / h: 1e-7 or less at a good step.
TOLERANCE_DIFFERENCES = 1e-6


@dataclass
class Row:
    """One parameter: how far its gradient by hand is from the two others, relative to its largest entry."""

    name: str
    shape: tuple[int, ...]
    norm: float
    vs_autograd: float
    where: str                      # the entry that differs most from autograd's
    vs_differences: float
    where_differences: str          # the entry, or the random direction, that differs most from its difference


def compare(params, x, eps, config, objective, entries, seed) -> tuple[list[Row], dict[str, tuple[float, float]]]:
    """A row for every parameter, and (by hand, autograd) for the loss and each of its terms.

    objective: beta, free_bits, and y where the model takes labels.
    """
    loss, terms, by_hand = LEVELS["numpy"]("loss_and_grads", params, x, eps, config, **objective)
    torch_loss, torch_terms, autograd = LEVELS["lowlevel"]("loss_and_grads", params, x, eps, config, **objective)
    values = {"loss": (float(loss), float(torch_loss))}
    values |= {name: (float(terms[name]), float(torch_terms[name])) for name in torch_terms}

    def loss_at(moved):
        return vae_numpy.loss_and_grads(moved, x, eps, config, **objective)[0]

    rng = np.random.default_rng(seed)
    rows = []
    for name, want in autograd.items():
        got = by_hand[name]
        gap = np.abs(got - want)
        gap[~np.isfinite(gap)] = np.inf
        directions, places = [rng.standard_normal(got.shape) / math.sqrt(got.size)], ["direction"]
        for index in rng.choice(got.size, min(entries, got.size), replace=False):
            directions.append(np.zeros(got.shape))
            directions[-1].flat[index] = 1.0
            places.append(entry(got.shape, index))
        slopes = [float(np.sum(got * direction)) for direction in directions]
        tolerance = TOLERANCE_DIFFERENCES * np.abs(got).max()
        differences = np.array([abs(slope - slope_along(loss_at, params, name, direction, slope, tolerance))
                                for slope, direction in zip(slopes, directions, strict=True)])
        differences[~np.isfinite(differences)] = np.inf
        rows.append(Row(name, got.shape, float(np.linalg.norm(got)),
                        ratio(gap.max(), np.abs(want).max()), entry(gap.shape, gap.argmax()),
                        ratio(differences.max(), np.abs(got).max()), places[differences.argmax()]))
    return rows, values


def entry(shape, flat_index) -> str:
    """The place of an entry, as one writes it: [3, 1]."""
    return str([int(i) for i in np.unravel_index(flat_index, shape)])


def ratio(difference, scale) -> float:
    """difference / scale; nothing over nothing is nothing, and what is not finite is infinitely wrong."""
    if not (np.isfinite(difference) and np.isfinite(scale)):
        return math.inf
    return float(difference / scale) if scale else (0.0 if difference == 0 else math.inf)


def promises(params, x, eps, config, labels) -> dict[str, bool]:
    """What a backward must also keep: it edits nothing, repeats itself, and keeps the precision."""
    copies = {name: array.copy() for name, array in params.items()}
    x_copy, eps_copy = x.copy(), eps.copy()
    (log_likelihood, kl), cache = vae_numpy.likelihood_and_kl_forward(copies, x_copy, eps_copy, config, **labels)
    first, second = (vae_numpy.likelihood_and_kl_backward(np.ones_like(log_likelihood), np.ones_like(kl), cache)
                     for _ in range(2))
    single = [{name: array.astype(np.float32) for name, array in params.items()}, x.astype(np.float32),
              eps.astype(np.float32), config]
    loss, terms, grads = vae_numpy.loss_and_grads(*single, **labels)
    untouched = [np.array_equal(x, x_copy), np.array_equal(eps, eps_copy),
                 *(np.array_equal(params[name], copies[name]) for name in params)]
    return {
        "parameters, images and noise stay as they were": all(untouched),
        "a second backward on the same cache gives the same": all(
            np.array_equal(first[name], second[name]) for name in first),
        "float32 in, float32 out": all(array.dtype == np.float32 for array in (loss, *terms.values(), *grads.values())),
    }


def report(rows, values, kept) -> int:
    """Prints the tables; returns how many lines are wrong."""
    wrong = 0

    def verdict(fine):
        nonlocal wrong
        wrong += not fine
        word = f"{'ok' if fine else 'WRONG':<5}"                       # padded before it is colored
        return f"\033[{32 if fine else 31}m{word}\033[0m" if sys.stdout.isatty() else word

    width = max(len(row.name) for row in rows)
    print(f"{'parameter':{width}}  {'shape':>16}  {'norm':>8}  {'vs autograd: off by, most at':<34}  "
          "vs differences: off by, most at")
    for row in rows:
        shape = "x".join(map(str, row.shape))
        autograd, differences = row.vs_autograd <= TOLERANCE_AUTOGRAD, row.vs_differences <= TOLERANCE_DIFFERENCES
        print(f"{row.name:{width}}  {shape:>16}  {row.norm:8.2e}  {row.vs_autograd:8.1e} {row.where:<18} "
              f"{verdict(autograd)}  {row.vs_differences:8.1e} {row.where_differences:<18} {verdict(differences)}")
    print(f"\n{'nats per image':{width}}  {'NumPy':>16}  {'PyTorch':>16}")
    for name, (got, want) in values.items():
        fine = math.isclose(got, want, rel_tol=TOLERANCE_AUTOGRAD)
        print(f"{name:{width}}  {got:16.10f}  {want:16.10f}  {verdict(fine)}")
    print()
    for promise, fine in kept.items():
        print(f"{promise:{width + 38}}  {verdict(fine)}")
    return wrong


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument("--arch", choices=ARCHITECTURES, help="network (default: mlp)")
    parser.add_argument("--likelihood", choices=LIKELIHOODS, help="p(x|z) (default: bernoulli)")
    parser.add_argument("--beta", type=float, help="weight of the KL term (default: 1)")
    parser.add_argument("--free-bits", type=float, help="nats of KL per latent that cost nothing (default: 0)")
    parser.add_argument("--condition", type=int, help="classes of a conditional model, mlp only (default: 0, no labels)")
    parser.add_argument("--weights", metavar="FILE", help="compare at these weights, a params.npz of any level, instead of "
                        "random ones")
    parser.add_argument("--scale", type=float, help="factor on the random weights; large ones saturate (default: 1)")
    parser.add_argument("--entries", type=int, default=20, help="entries of each parameter compared with differences "
                        "(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, images, noise and entries (default: 0)")
    parser.add_argument("--plant", metavar="NAME", help="plant a named mistake into level 1: " + ", ".join(PLANTS))
    parser.add_argument("--out", default="runs/compare_gradients", help="folder of the picture (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.plant is not None and options.plant not in PLANTS:
        raise InputError(f"--plant {options.plant} is unknown: choose one of {', '.join(PLANTS)}")
    defaults = {"arch": None if options.weights else "mlp", "likelihood": None if options.weights else "bernoulli",
                "condition": None if options.weights else 0, "beta": 1.0, "free_bits": 0.0, "scale": 1.0}
    needed = PLANTS[options.plant].settings if options.plant else {}
    options.set_here = {name: value for name, value in needed.items() if getattr(options, name) is None}
    for name, value in (defaults | needed).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
        elif name in ("arch", "likelihood") and name in needed and getattr(options, name) != value:
            raise InputError(f"--plant {options.plant} shows at --{name} {value} only: leave --{name} out")
    check_objective(options.beta, options.free_bits)
    if not (math.isfinite(options.scale) and options.scale > 0):
        raise InputError(f"--scale is {options.scale}: give a positive factor")
    for name in ("seed", "entries"):
        if getattr(options, name) < 0:
            raise InputError(f"--{name} is {getattr(options, name)}: give a whole number of at least 0")
    return options


def model(options, rng):
    """The weights, moved off their values, and the configuration."""
    if options.weights is None:
        config = VAEConfig(options.arch, (8, 12), hidden=50, latent=5, likelihood=options.likelihood,
                           condition=options.condition)
        params, step = init_params(config, rng), 0.1
    else:
        params, config = load_params(options.weights)
        check_one_layer(config)
        for name in ("arch", "likelihood", "condition"):
            asked = getattr(options, name)
            if asked not in (None, getattr(config, name)):
                raise InputError(f"--weights {options.weights} holds a model with {name} {getattr(config, name)}, not "
                                 f"{asked}: leave --{name} out")
        step = 0.01
    params = {name: options.scale * (array.astype(np.float64) + step * rng.standard_normal(array.shape))
              for name, array in params.items()}
    return params, config


def main(argv=None):
    options = parse(argv)
    rng = np.random.default_rng(options.seed)
    params, config = model(options, rng)
    x = rng.random((BATCH, config.pixels))
    if config.likelihood == "bernoulli":
        x = (x < 0.5).astype(np.float64)
    eps = rng.standard_normal((BATCH, config.latent))
    labels = {"y": rng.integers(config.condition, size=BATCH)} if config.condition else {}
    classes = f"{config.condition} classes" if labels else ""
    words = ", ".join(filter(None, (config.arch, config.likelihood, classes)))
    print(f"{words}, {config.image_shape[0]} x {config.image_shape[1]} random images, "
          f"{config.latent} latents, beta {options.beta:g}, free bits {options.free_bits:g}, float64, seed {options.seed}")
    plant = nullcontext()
    if options.plant:
        plant = planted(options.plant)
        print(f"planted into level 1: {options.plant}, {PLANTS[options.plant].mistake}")
        for name, value in options.set_here.items():
            print(f"    it shows at --{name.replace('_', '-')} {value}, set here")
    print()
    with plant, np.errstate(all="ignore"):
        objective = {"beta": options.beta, "free_bits": options.free_bits, **labels}
        rows, values = compare(params, x, eps, config, objective, options.entries, options.seed)
        kept = promises(params, x, eps, config, labels)
    wrong = report(rows, values, kept)

    from common.figures import gradient_differences
    out = Path(options.out)
    named = (config.arch, config.likelihood, classes.replace(" ", "-"), options.plant)
    picture = out / f"{'-'.join(filter(None, named))}.png"
    title = f"Gradients by hand: {words}" + f", planted: {options.plant}" * bool(options.plant)
    try:
        out.mkdir(parents=True, exist_ok=True)
        gradient_differences(picture, [row.name for row in rows], np.array([row.vs_autograd for row in rows]),
                             np.array([row.vs_differences for row in rows]), TOLERANCE_AUTOGRAD, TOLERANCE_DIFFERENCES,
                             title)
    except OSError as error:
        raise InputError(f"cannot write into --out {out} ({error.strerror}): give another folder") from error
    print(f"\npicture: {picture}")
    if wrong:
        print(f"{wrong} WRONG. Where only autograd disagrees, the backward is that of another objective; where differences "
              "disagree too, the backward is not the derivative of its own forward.")
        sys.exit(1)
    print(f"all agree: NumPy = autograd within {TOLERANCE_AUTOGRAD:g}, = central differences within "
          f"{TOLERANCE_DIFFERENCES:g}")


if __name__ == "__main__":
    sys.exit(run_command(main))
