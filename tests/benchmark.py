"""Speed: the three levels beside plain PyTorch and beside the ceiling, in turn, in one run.

    python tests/benchmark.py                       # single steps of both architectures, a minute and a half
    python tests/benchmark.py --arch mlp --seconds 10
    python tests/benchmark.py --only loop           # one loop with its data beside the well-known example
    python tests/benchmark.py --all --write results/benchmark.json      # with trainings and log p(x): ten minutes

A step is what a training loop does with a minibatch that is there already: forward, backward, Adam. All contestants take
the same images, noise and weights in float32 on all cores, and take turns, so that what else the machine does meets all
of them alike. The figures are medians of images per second; only ratios mean much.

    level 1           loss_and_grads and adam_step of numpy/
    level 2           loss_and_grads and adam_step of pytorch_lowlevel/
    level 3           the VAE of paper/ with its trainer's Adam
    torch eager       the same model as most people write it: nn.Module, sigmoid, binary_cross_entropy, torch.optim.Adam
    torch best        the same with logits and Adam(fused=True), where PyTorch has it (2.4 and later)
    matrix products   only the products of level 1's step, forward and backward, in NumPy: the ceiling
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import benchmark_training
import numpy as np
import torch
import torch.nn.functional as F
import train_numpy
import vae_numpy

from common.checkpoints import write_text
from common.cli import run_command
from common.config import ARCHITECTURES, InputError, VAEConfig, init_params, parameter_shapes
from common.run import keep_freed_memory, machine
from paper.plan import Plan
from paper.train_paper import make_optimizer
from paper.vae_paper import VAE
from pytorch_lowlevel import train_lowlevel, vae_lowlevel

BATCH, TURN = 128, 1.0           # images a step; seconds a turn
CONFIGS = {"mlp": VAEConfig("mlp", (28, 28), hidden=400, latent=20), "conv": VAEConfig("conv", (28, 28), latent=20)}


def level_1(config, params, x, eps):
    params, state = {name: array.copy() for name, array in params.items()}, {}

    def step():
        _, _, grads = vae_numpy.loss_and_grads(params, x, eps, config)
        train_numpy.adam_step(params, grads, state, 1e-3)
    return step


def level_2(config, params, x, eps):
    params, state = {name: torch.tensor(array) for name, array in params.items()}, {}
    x, eps = torch.tensor(x), torch.tensor(eps)

    def step():
        _, _, grads = vae_lowlevel.loss_and_grads(params, x, eps, config)
        train_lowlevel.adam_step(params, grads, state, 1e-3)
    return step


def level_3(config, params, x, eps):
    model = VAE(config, params)
    optimizer = make_optimizer(model, Plan())
    x, eps = torch.tensor(x), torch.tensor(eps)

    def step():
        optimizer.zero_grad()
        model.loss(x, eps)[0].backward()
        optimizer.step()
    return step


class EagerVAE(torch.nn.Module):
    """The VAE of a hundred tutorials, with the same layers as level 2."""

    def __init__(self, config):
        super().__init__()
        nn, D, H, J = torch.nn, config.pixels, config.hidden, config.latent
        height, width = (side // 4 for side in config.image_shape)
        if config.arch == "mlp":
            self.encoder = nn.Sequential(nn.Linear(D, H), nn.Tanh())
            self.decoder = nn.Sequential(nn.Linear(J, H), nn.Tanh(), nn.Linear(H, D))
        else:
            H = 256
            self.encoder = nn.Sequential(
                nn.Unflatten(1, (1, *config.image_shape)), nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1),
                nn.ReLU(), nn.Flatten(), nn.Linear(64 * height * width, H), nn.ReLU())
            self.decoder = nn.Sequential(
                nn.Linear(J, H), nn.ReLU(), nn.Linear(H, 64 * height * width), nn.ReLU(),
                nn.Unflatten(1, (64, height, width)),
                nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 3, 2, 1, 1), nn.Flatten())
        self.mu, self.logvar = nn.Linear(H, J), nn.Linear(H, J)

    def forward(self, x, eps):
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        return self.decoder(mu + torch.exp(0.5 * logvar) * eps), mu, logvar


def torch_step(config, x, eps, logits, fused):
    model = EagerVAE(config)
    if sorted(tuple(p.shape) for p in model.parameters()) != sorted(parameter_shapes(config).values()):
        raise AssertionError("the plain PyTorch model has other layers than level 2: the comparison would be unfair")
    try:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused or None)
    except RuntimeError:                                                 # before torch 2.4 on the CPU
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, eps = torch.tensor(x), torch.tensor(eps)

    def step():
        optimizer.zero_grad()
        out, mu, logvar = model(x, eps)
        if logits:
            reconstruction = F.binary_cross_entropy_with_logits(out, x, reduction="sum")
        else:
            reconstruction = F.binary_cross_entropy(torch.sigmoid(out), x, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        ((reconstruction + kl) / len(x)).backward()
        optimizer.step()
    return step


def matrix_products(config, params, x, eps):
    """The products of one step, (rows, inner, columns) each: forward, gradient of the weights, gradient of the input."""
    B = len(x)
    products = []
    height, width = config.image_shape
    small = height // 4 * (width // 4) * B                               # columns of the im2col matrices
    columns = {"encoder.conv1": 4 * small, "encoder.conv2": small, "decoder.deconv1": small, "decoder.deconv2": 4 * small}
    for name, shape in parameter_shapes(config).items():
        if name.endswith(".weight"):
            layer = name.removesuffix(".weight")
            out, inner = shape[0], int(np.prod(shape[1:]))
            n = columns.get(layer, B)
            products += [(out, inner, n), (out, n, inner)]
            if layer not in ("encoder.hidden", "encoder.conv1"):         # nobody asks for the gradient of the image
                products.append((inner, out, n))
    rng = np.random.default_rng(0)
    pairs = [(rng.standard_normal((a, b), np.float32), rng.standard_normal((b, c), np.float32)) for a, b, c in products]

    def step():
        for left, right in pairs:
            left @ right
    return step


def contestants(config):
    rng = np.random.default_rng(0)
    params = init_params(config, rng)
    x = (rng.random((BATCH, config.pixels)) < 0.2).astype(np.float32)
    eps = rng.standard_normal((BATCH, config.latent)).astype(np.float32)
    return {
        "level 1 (NumPy by hand)": level_1(config, params, x, eps),
        "level 2 (low-level torch)": level_2(config, params, x, eps),
        "level 3 (nn.Module)": level_3(config, params, x, eps),
        "torch eager": torch_step(config, x, eps, logits=False, fused=False),
        "torch best": torch_step(config, x, eps, logits=True, fused=True),
        "matrix products alone": matrix_products(config, params, x, eps),
    }


def measure(steps, seconds):
    """Median images per second of each contestant; they take turns of about a second for some `seconds` in all.

    The first third of a turn does not count: the threads of whoever came before still spin, and the cache is theirs.
    """
    times = {name: [] for name in steps}
    for _ in range(max(2, round(seconds / len(steps) / TURN))):
        for name, step in steps.items():
            begin = start = time.perf_counter()
            counted = []
            while start < begin + TURN or not counted:
                step()
                end = time.perf_counter()
                if start > begin + TURN / 3:
                    counted.append(end - start)
                start = end
            times[name] += counted
    return {name: BATCH / float(np.median(spent)) for name, spent in times.items()}


def measure_steps(options, results):
    keep_freed_memory()                     # as the training scripts do; it helps PyTorch too
    results["images_per_second"] = {}
    for arch in options.arch or ARCHITECTURES:
        config = CONFIGS[arch]
        speed = measure(contestants(config), options.seconds)
        results["images_per_second"][arch] = speed
        layers = f"{config.pixels}-{config.hidden}-{config.latent}" if arch == "mlp" else "28x28x1, 20 latents"
        print(f"\n{arch + ' ' + layers:<28}{'images/s':>10}   x torch eager   x ceiling")
        for name, value in speed.items():
            print(f"{name:<28}{value:10,.0f}   {value / speed['torch eager']:13.2f}   "
                  f"{value / speed['matrix products alone']:9.2f}")


def measure_loop(options, results):
    speed = results["loop"] = measure(benchmark_training.loops(options.dataset, BATCH), options.seconds)
    layers = f"{options.dataset.x_train.shape[1]}-400-20"
    print(f"\n{layers + ', data and all':<28}{'images/s':>10}   x example")
    for name, value in speed.items():
        print(f"{name:<28}{value:10,.0f}   {value / speed['the well-known example']:9.2f}")


def measure_bound(options, results):
    full = options.dataset.name == "mnist" and not options.quick
    config = VAEConfig("mlp", options.dataset.image_shape, hidden=500, latent=20)
    plan = Plan(epochs=options.epochs if full else 2, batch_size=128, lr=4e-3, schedule="one-cycle")
    results["bound"] = benchmark_training.time_to(-100.0, options.dataset, plan, config, most=40 if full else 2)
    print(f"\n{'to a test ELBO of -100':<28}{'epochs':>10}   seconds   test ELBO")
    for name, told in results["bound"].items():
        print(f"{name:<28}{told['epochs']:10d}   {told['seconds']:7.1f}   {told['elbo']:9.2f}"
              + "   (not reached)" * (not told["reached"]))


def measure_log_p(options, results):
    full = not options.quick
    config = VAEConfig("mlp", options.dataset.image_shape, hidden=200, latent=50, layers=2)
    samples, count = (5000, 60) if full else (500, 5)
    told = benchmark_training.log_p_race(options.dataset, config, samples, count, 1000, epochs=3 if full else 1)
    results["log_p"] = told | {"samples": samples, "images": count}
    print(f"\n{f'log p(x), K = {samples}':<28}{'ms/image':>10}   x one block")
    for name, each in told.items():
        print(f"{name:<28}{each['seconds'] * 1e3:10.1f}   {each['seconds'] / told['one block']['seconds']:11.2f}")


# steps come last: keep_freed_memory would change what the others find
MEASURES = {"loop": measure_loop, "bound": measure_bound, "log-p": measure_log_p, "steps": measure_steps}


def earlier(path) -> dict:
    """What the file holds of earlier measurements; those of this run replace or join them."""
    try:
        told = json.loads(Path(path).read_text("utf-8")) if Path(path).exists() else {}
        if not isinstance(told, dict):
            raise ValueError("it holds no figures by name")
        return told
    except (OSError, ValueError) as error:
        raise InputError(f"--write {path} is no file of this program ({error}): give another") from error


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument("--arch", choices=ARCHITECTURES, action="append", help="one architecture (default: both)")
    parser.add_argument("--only", choices=tuple(MEASURES), action="append",
                        help="one measurement: single steps (default), a loop with its data beside the well-known example, "
                             "the time to a test ELBO of -100, log p(x)")
    parser.add_argument("--all", action="store_true", help="all measurements")
    parser.add_argument("--epochs", type=int, default=13, help="of our run to the bound (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=40,
                        help="time for each table of images per second (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="everything shortened to seconds: a look, no measurement")
    parser.add_argument("--write", metavar="FILE", help="keep the figures in a JSON file, beside those it holds")
    options = parser.parse_args(argv)
    if not options.seconds > 0:
        raise InputError(f"--seconds is {options.seconds}: give a positive number")
    if options.write and not Path(options.write).resolve().parent.is_dir():
        raise InputError(f"--write {options.write}: there is no such folder; make it first")
    told = machine() | {"torch threads": torch.get_num_threads(), "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE")}
    if told["OPENBLAS_CORETYPE"]:
        print(f"warning: OPENBLAS_CORETYPE is {told['OPENBLAS_CORETYPE']}: an older core's kernels halve NumPy's rate; "
              "unset it", file=sys.stderr)
    print(f"{told['processor']}, {told['cores']} cores, NumPy {told['numpy']}, torch {told['torch']}, batch {BATCH}, "
          "float32")
    results = earlier(options.write) if options.write else {}
    chosen = list(MEASURES) if options.all else options.only or ["steps"]
    options.seconds = 1.0 if options.quick else options.seconds
    if chosen != ["steps"]:
        options.dataset = benchmark_training.mnist_or_digits()
        print(f"images: {options.dataset.name}")
    for name in chosen:
        start = time.perf_counter()
        MEASURES[name](options, results)
        about = {"machine": told, "batch": BATCH, "seconds": time.perf_counter() - start}
        if name == "steps":
            results |= about
        else:
            results[name.replace("-", "_")] |= about | {"data": options.dataset.name, "quick": options.quick}
    if options.write:
        write_text(options.write, json.dumps(results, indent=2) + "\n")
        print(f"\nwritten: {options.write}")


if __name__ == "__main__":
    sys.exit(run_command(main))
