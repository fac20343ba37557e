"""Posteriors, log p(x) and the gap of the bound, exact by quadrature: VAEs with 1 and 2 latents on points in the plane.

The bound misses log p(x) by KL(q(z|x) || p(z|x)). On images neither can be computed; with two latents at most, both are
sums over a grid of z (estimators.log_joint_on_grid), and what is said about the bound can be looked at: it is loose where
the true posterior has a bend or a second mode, which a Gaussian with independent latents cannot follow. L_k closes the
gap as k grows, and importance sampling, which is L_5000, agrees with quadrature.

A gap of zero is no sign of a good model: where the decoder ignores z, the posterior is the prior, q matches it, and the
bound is tight, on a poor log p(x). Training falls into that hole when it starts from wide noise: see `begin`.

The points, and the log p(x) of their own source, which no model exceeds on average: paper/toy.py.
"""

import math

import numpy as np
import torch
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch.distributions import Normal

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED
from paper import toy
from paper.estimators import (
    importance_weighted_bound,
    log_joint_on_grid,
    log_p_by_importance_sampling,
    log_p_by_quadrature,
    log_weights,
)
from paper.images import Images
from paper.packed import pack, unpack
from paper.parts import Part
from paper.plan import Plan
from paper.train_paper import build, train

ONE_CYCLE = {"batch_size": 100, "schedule": "one-cycle", "lr": 1e-2}
FULL = {"training_points": 2000, "test_points": 500, "hidden": 100, "grid": {"1": 2001, "2": 401}, "samples": 5000}
QUICK = {"training_points": 500, "test_points": 100, "hidden": 50, "grid": {"1": 801, "2": 121}, "samples": 1000}
RUNS = {f"{data}-{latent}": {"data": data, "latent": latent} for data in toy.CURVES for latent in (1, 2)}

PRESETS = {
    "quick": {"measure": QUICK, "plan": ONE_CYCLE | {"epochs": 200, "evaluate_every": 20},
              "runs": {key: run for key, run in RUNS.items() if run["data"] == "moons"}},
    "cpu": {"measure": FULL, "plan": ONE_CYCLE | {"epochs": 1000, "evaluate_every": 20}, "runs": RUNS},
    "gpu": {"measure": FULL, "plan": ONE_CYCLE | {"epochs": 5000, "evaluate_every": 100}, "runs": RUNS},
}

LIMIT = 6.0                                             # the grid: z in [-6, 6], outside of which lies 2e-9 of the prior
AVERAGED = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)   # the k of L_k
SHOWN = {"A": 0.5, "B": 0.98}                           # the points whose posteriors are drawn: quantiles of the gap
START_NOISE = 0.05                                      # standard deviation of p(x|z) before training
SIDE = 120                                              # cells of the map of log p(x), a side
DEPTH = 8.0                                             # nats below its peak at which the map ends
CELLS = {1: 200, 2: 60}                                 # of a drawn posterior, a side, by latents


def parts(settings):
    return {key: Part(train_and_measure, run | settings["measure"] | {"plan": settings["plan"]}, run["latent"])
            for key, run in settings["runs"].items()}


# ---- what is measured --------------------------------------------------------------------------------------------------
# B points, G points of the grid, J latents, k draws; nats per point


def begin(images: Images, latent: int, hidden: int):
    """A Gaussian VAE before training. It sees the points standardized, and it starts with narrow noise.

    Without the first, the points fill so little of the range of tanh that the first layer is all but linear. Without the
    second (exp(0), wider than the data) z is not worth its KL for the first hundreds of steps; the encoder learns to leave
    it at the prior, and on the pinwheel never comes back: posterior collapse.
    """
    config = VAEConfig(image_shape=toy.IMAGE_SHAPE, hidden=hidden, layers=2, latent=latent, likelihood="gaussian")
    model, x = build("vae", config, images), images.x_train
    with torch.no_grad():
        first = model.encoder.hidden
        first.weight /= x.std(dim=0)                                     # W (x - mean) / sd, written as W' x + b'
        first.bias -= first.weight @ x.mean(dim=0)
        model.decoder.logvar.bias.fill_(2 * math.log(START_NOISE))
    return model


def train_and_measure(work, data, latent, hidden, training_points, test_points, grid, samples, plan):
    """Trains one model and measures it on held-out points. grid: its points, a side, by the number of latents."""
    x = toy.draw_points(data, training_points + test_points, np.random.default_rng(EVAL_SEED))
    images = Images(*(torch.from_numpy(some).to(work.device) for some in
                      (x[:training_points], x[training_points:])))
    model, plan = begin(images, latent, hidden), Plan(**plan)
    curve = train(model, images, plan, work.checkpoint, lambda row: work.progress(0.5 * row["epoch"] / plan.epochs))
    return measure(model, images.x_test, grid[str(latent)], samples, lambda share: work.progress(0.5 + 0.5 * share)) | {
        "log_p_of_source": float(toy.log_density(data, images.x_test.cpu()).mean()),
        "curve": [row for row in curve if "test" in row],
    }


@torch.no_grad()
def measure(model, x, points, samples, progress=lambda share: None):
    """log p(x), the bounds and the gap (eq. 1.4) of every point of x (B, 2), two posteriors, and the map of log p(x)."""
    generator, found = torch.Generator(x.device).manual_seed(EVAL_SEED), []
    for block in x.split(20):
        shape = (max(AVERAGED), len(block), model.config.latent)
        eps = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
        found.append((
            log_p_by_quadrature(model, block, points, LIMIT),
            log_p_by_quadrature(model, block, (points + 1) // 2, LIMIT),              # every second point of the grid
            log_p_by_importance_sampling(model, block, samples, generator, rows=20_000),
            log_weights(model, block, eps).T,
        ))
        progress(min(1.0, 20 * len(found) / len(x)))
    log_p, coarse, sampled, log_w = (torch.cat(each) for each in zip(*found, strict=True))        # (B,), log_w (B, draws)
    gap = log_p - log_w.mean(dim=1)                                      # KL(q(z|x) || p(z|x)) by draws from q
    shown = {name: gap.argsort()[int(share * len(x))] for name, share in SHOWN.items()}
    return {
        "log_p": float(log_p.mean()), "log_p_by_importance_sampling": float(sampled.mean()),
        "elbo": float(log_w.mean()), "gap": float(gap.mean()), "bounds": bounds_by_draws(log_w.T),
        "grid": {
            "points": points, "spacing": 2 * LIMIT / (points - 1),
            "smallest_posterior_sd": float(torch.exp(0.5 * model.encode(x)[1]).min()),
            "twice_the_spacing_changes_log_p_by": float((coarse - log_p).abs().max()),
        },
        "x1": rounded(x[:, 0]), "x2": rounded(x[:, 1]), "gaps": rounded(gap), "map": packed_map(density_map(model, points)),
        "posteriors": {name: {"point": int(i), "gap": float(gap[i])} | posterior(model, x[i], points)
                       for name, i in shown.items()},
    }


def bounds_by_draws(log_w) -> list[float]:
    """L_k for each k of AVERAGED, the mean over all points and over groups of k draws. log_w (draws, B)."""
    found = []
    for k in AVERAGED:
        groups = log_w[:len(log_w) // k * k].reshape(-1, k, log_w.shape[1])                       # (draws/k, k, B)
        found.append(float(importance_weighted_bound(groups.transpose(0, 1)).mean()))
    return found


@torch.no_grad()
def density_map(model, points: int, side: int = SIDE, low: float = 0.0, high: float = 1.0):
    """p(x) at the centers of side x side cells of the square [low, high]^2: (side, side), x2 rising from row to row.

    p(x) = sum_g w_g N(x1; mean_g1, sd_g1) N(x2; mean_g2, sd_g2) over the grid of z: for all x, one matrix product.
    """
    weight = next(model.parameters())
    nowhere = torch.zeros(1, model.config.pixels, device=weight.device, dtype=weight.dtype)
    log_joint, z = log_joint_on_grid(model, nowhere, points, LIMIT)                               # (1, G), (G, J)
    log_w = log_joint[0] - model.log_likelihood(nowhere, z)                                       # (G,): p(z) dz
    pixel = model.likelihood(z)
    axis = low + (high - low) * (torch.arange(side, device=weight.device, dtype=weight.dtype) + 0.5) / side
    first, second = (torch.exp(Normal(pixel.mean[:, i], pixel.stddev[:, i]).log_prob(axis[:, None])) for i in (0, 1))
    return (second * torch.exp(log_w)) @ first.T                                                  # (side, side)


@torch.no_grad()
def posterior(model, x, points: int) -> dict:
    """p(z|x) of one point x (2,) on a window of the latent space that holds it and q(z|x); its peak is packed as 1."""
    log_joint, z = log_joint_on_grid(model, x[None], points, LIMIT)                               # (1, G), (G, J)
    mu, logvar = (each[0] for each in model.encode(x[None]))                                      # (J,) each
    sd, seen = torch.exp(0.5 * logvar), z[log_joint[0] > log_joint.max() - 5]                     # a hundredth of the peak
    low, high = torch.minimum(seen.amin(dim=0), mu - 3 * sd), torch.maximum(seen.amax(dim=0), mu + 3 * sd)
    middle, half = (low + high) / 2, (high - low).max() / 2                                       # a square
    cells = CELLS[len(mu)]
    steps = torch.linspace(-1, 1, cells, device=x.device, dtype=x.dtype) * half
    window = torch.cartesian_prod(*(m + steps for m in middle)).reshape(-1, len(mu))              # (cells^J, J)
    log_density = (model.log_likelihood(x, window) + Normal(0.0, 1.0).log_prob(window).sum(dim=1)
                   - torch.logsumexp(log_joint, dim=1))
    return {
        "low": (middle - half).tolist(), "high": (middle + half).tolist(), "mu": mu.tolist(), "sd": sd.tolist(),
        "peak": float(log_density.max().exp()), "density": pack(torch.exp(log_density - log_density.max()).cpu()),
    }


def packed_map(density) -> dict:
    log_p = torch.log(density.clamp_min(1e-30)).cpu()
    return {"peak": float(log_p.max()), "log_p": pack((log_p - log_p.max()) / DEPTH + 1)}


def rounded(values) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


# ---- the figure --------------------------------------------------------------------------------------------------------

PANEL, ACROSS, DOWN = 300, 385, 385                     # pixels: a panel's side, and from one to the next
TITLE = ("VAEs on points in the plane: how far the bound is from log p(x), and why\n"
         "A is a point with the median gap, B one whose gap is larger than that of 98% of the points")
SQUARE = {"xlim": (0, 1), "ylim": (0, 1), "xticks": (0, 0.5, 1), "yticks": (0, 0.5, 1)}


def draw(path, results):
    """A column for each model: log p(x) over the plane, the gap at the points, two posteriors, and L_k."""
    figure = figures.new_figure()
    found = {key: part["result"] for key, part in results["parts"].items()}
    peak = max(result["map"]["peak"] for result in found.values())
    largest = max(np.quantile(result["gaps"], SHOWN["B"]) for result in found.values())
    span = 1.4 * max(result["log_p"] - result["elbo"] for result in found.values()) + 0.02
    for column, (key, result) in enumerate(found.items()):
        left, first, last = column * ACROSS, column == 0, column == len(found) - 1
        panels = [figures.chart(figure, left, -row * DOWN, PANEL, PANEL) for row in range(2 + len(SHOWN) + 1)]
        x = np.stack([result["x1"], result["x2"]], axis=1)

        axes = panels[0]
        means = f"mean {result['log_p']:.2f}, of the source {result['log_p_of_source']:.2f}"
        axes.set_title(f"{name_of(key)}: log p(x)\n{means}", loc="left")
        log_p = (unpack(result["map"]["log_p"], SIDE, SIDE) - 1) * DEPTH + result["map"]["peak"]
        colors = axes.imshow(log_p, origin="lower", extent=(0, 1, 0, 1), cmap="Blues", vmin=peak - DEPTH, vmax=peak,
                             interpolation="bilinear")
        axes.plot(*x.T, ".", color="black", markersize=2)
        axes.set(**SQUARE, ylabel="$x_2$" if first else "")
        if last:
            bar(figure, axes, colors, "log p(x) (nats), held-out points in black", "min")

        axes = panels[1]
        axes.set_title("Gap log p(x) \N{MINUS SIGN} bound", loc="left")
        order = np.argsort(result["gaps"])                               # the largest on top
        colors = axes.scatter(*x[order].T, c=np.array(result["gaps"])[order], cmap="YlOrRd", vmin=0, vmax=largest, s=9)
        axes.set(**SQUARE, xlabel="$x_1$", ylabel="$x_2$" if first else "", aspect="equal", facecolor="#DDDDDD")
        if last:
            bar(figure, axes, colors, "gap (nats)", "max")

        for axes, (name, drawn) in zip(panels[2:], result["posteriors"].items(), strict=False):
            for plane in panels[:2]:
                mark(plane, name, x[drawn["point"]])
            axes.set_title(f"Posterior of {name}: gap {drawn['gap']:.2f} nats", loc="left")
            (draw_line if len(drawn["mu"]) == 1 else draw_plane)(axes, drawn)
            if first:
                axes.plot([], [], color=figures.BLUE, linewidth=5, label="p(z|x)")
                axes.plot([], [], color=figures.ORANGE, label="q(z|x)")
                axes.legend(loc="upper left", frameon=False, fontsize=9)

        axes = panels[-1]
        samples = results["settings"]["measure"]["samples"]
        axes.set_title("Bounds on held-out points", loc="left")
        axes.axhline(result["log_p"], color="black", linewidth=1, label="log p(x), quadrature")
        axes.plot(AVERAGED, result["bounds"], "o-", color=figures.BLUE, markersize=4, label="$L_k$; $L_1$ is the ELBO")
        axes.plot(samples, result["log_p_by_importance_sampling"], "D", color=figures.ORANGE,
                  label=f"importance sampling, k = {samples:,}")
        axes.set(xscale="log", xlabel="draws k of z for each point", ylabel="nats per point" if first else "",
                 ylim=(result["log_p"] - span, result["log_p"] + 0.1 * span))
        axes.grid(alpha=0.3)
        if first:
            axes.legend(loc="lower right", frameon=False, fontsize=9)
    figure.text(0, (PANEL + 65) / figures.PANEL, TITLE, fontsize=14)
    figures.save(figure, path)


def draw_line(axes, drawn):
    """One latent: the density p(z|x) as an area, q(z|x) as a line."""
    z = np.linspace(drawn["low"][0], drawn["high"][0], CELLS[1])
    axes.fill_between(z, drawn["peak"] * unpack(drawn["density"], CELLS[1]), color=figures.BLUE, alpha=0.5, linewidth=0)
    mu, sd = drawn["mu"][0], drawn["sd"][0]
    axes.plot(z, np.exp(-0.5 * ((z - mu) / sd) ** 2) / (sd * math.sqrt(2 * math.pi)), color=figures.ORANGE)
    axes.set(xlabel="z", xlim=(z[0], z[-1]), yticks=())
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])                          # room for the legend


def draw_plane(axes, drawn):
    """Two latents: the density p(z|x) as a map, q(z|x) as its ellipses of 1 and 2 standard deviations."""
    (left, bottom), (right, top) = drawn["low"], drawn["high"]
    axes.imshow(unpack(drawn["density"], CELLS[2], CELLS[2]).T, origin="lower", extent=(left, right, bottom, top),
                cmap="Blues", vmin=0, vmax=1.2, interpolation="bilinear")
    for times in (1, 2):
        axes.add_patch(Ellipse(drawn["mu"], *(2 * times * sd for sd in drawn["sd"]), fill=False, color=figures.ORANGE,
                               linewidth=1.5))
    axes.set(xlabel="$z_1$", ylabel="$z_2$")


def mark(axes, name, x):
    axes.plot(*x, "o", markersize=11, markerfacecolor="none", markeredgecolor="black")
    axes.annotate(name, x, xytext=(7, 7), textcoords="offset points", fontsize=12, weight="bold",
                  path_effects=[withStroke(linewidth=3, foreground="white")])


def bar(figure, axes, colors, label, extend):
    figure.colorbar(colors, cax=axes.inset_axes((1.06, 0, 0.05, 1)), label=label, extend=extend)


def name_of(key) -> str:
    data, latent = key.split("-")
    return f"{data.capitalize()}, {latent} latent{'s' * (latent != '1')}"


def rows(results):
    samples, found = results["settings"]["measure"]["samples"], []
    for key, part in results["parts"].items():
        result = part["result"]
        what = f"{name_of(key)}, {len(result['gaps']):,} held-out points, nats: "
        found += [
            (f"{what}log p(x) by quadrature / by importance sampling, k = {samples:,}", "",
             f"{result['log_p']:.3f} / {result['log_p_by_importance_sampling']:.3f}"),
            (f"{what}ELBO, and its gap to log p(x)", "", f"{result['elbo']:.3f}, {result['gap']:.3f}"),
        ]
    return found
