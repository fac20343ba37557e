"""Test negative log-likelihood of VAE and IWAE, 784-200-200-50, after Burda et al. (2016), table 1.

The figure of merit of every paper on VAEs, measured as they do: -L_5000 on the whole test set, in nats per image. Which
binarization is told always: dynamic draws training pixels anew in each epoch, static is Larochelle's fixed draw with
50,000 training images; the two differ by about 2 nats.
"""

import torch
from matplotlib.ticker import MaxNLocator

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED
from paper.estimators import active_units, log_p_by_importance_sampling
from paper.images import Images
from paper.parts import Part
from paper.train_paper import Plan, build, train

PAPER = {                                               # Burda et al. (2016), table 1: one stochastic layer
    ("dynamic", 1): 86.76, ("dynamic", 5): 85.54, ("dynamic", 50): 84.78,
    ("static", 1): 88.71, ("static", 5): 87.63, ("static", 50): 87.10,
}
NETWORK = {"hidden": 200, "latent": 50, "layers": 2}
ONE_CYCLE = {"batch_size": 200, "schedule": "one-cycle", "lr": 3e-3, "adam_eps": 1e-4, "matmul": "medium"}
BURDA = {"matmul": "high", "batch_size": 20, "schedule": "staircase", "lr": 1e-3, "adam_eps": 1e-4, "epochs": 3280}

PRESETS = {
    "quick": {
        "samples": 100, "rows": 2000, "network": {"hidden": 50, "latent": 5, "layers": 2},
        "runs": {f"digits-k{k}": {"data": "digits", "k": k, "plan": ONE_CYCLE | {"batch_size": 100, "epochs": 5}}
                 for k in (1, 5)},
    },
    "cpu": {
        "samples": 5000, "rows": 1000, "network": NETWORK,
        "runs": {
            "dynamic-k1": {"data": "mnist", "k": 1, "cost": 10, "plan": ONE_CYCLE | {"epochs": 1400, "evaluate_every": 20}},
            "dynamic-k5": {"data": "mnist", "k": 5, "cost": 6, "plan": ONE_CYCLE | {"epochs": 350, "evaluate_every": 25}},
            "static-k1": {"data": "binary-mnist", "k": 1, "cost": 4,
                          "plan": ONE_CYCLE | {"epochs": 350, "evaluate_every": 10, "patience": 40}},
        },
    },
    "gpu": {
        "samples": 5000, "rows": 100_000, "network": NETWORK,
        "runs": {
            f"{how}-k{k}": {"data": data, "k": k, "cost": 3 + k / 10, "plan": BURDA | {"evaluate_every": 40}}
            for how, data in (("dynamic", "mnist"), ("static", "binary-mnist")) for k in (1, 5, 50)
        },
    },
}


def parts(settings):
    return {key: Part(train_and_measure, run | {"network": settings["network"], "samples": settings["samples"],
                                                "rows": settings["rows"], "cost": None}, run.get("cost", 1))
            for key, run in settings["runs"].items()}


def train_and_measure(work, data, k, plan, network, samples, rows, cost=None):
    """Trains one model and measures -L_samples on the whole test set; k = 1 is the VAE."""
    dataset = work.dataset(data)
    images = Images.of(dataset, device=work.device)
    config = VAEConfig(image_shape=dataset.image_shape, **network)
    plan, weigh = Plan(**plan), 0.85                                     # the share of the time that training takes
    model = build("iwae", config, images, k=k, path_only=k == 1)         # k = 1 is the VAE; see estimators.log_weights
    curve = train(model, images, plan, work.checkpoint, lambda row: work.progress(weigh * row["epoch"] / plan.epochs))
    x, nats = images.x_test, []
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)
    for block in x.split(200):
        nats.append(log_p_by_importance_sampling(model, block, samples, generator, rows))
        work.progress(weigh + (1 - weigh) * 200 * len(nats) / len(x))
    nats = torch.cat(nats).double()
    return {
        "nll": -float(nats.mean()), "standard_error": float(nats.std() / len(nats) ** 0.5),
        "elbo": curve[-1]["test"].get("elbo"), "active_units": active_units(model, x), "images": len(x),
        "training_seconds": sum(row["seconds"] for row in curve), "curve": curve,
    }


def draw(path, results):
    """The test bound over training, and -L_5000 at its end."""
    figure = figures.new_figure()
    axes = figures.chart(figure, title="Bound on the test set")
    colors = [figures.BLUE, figures.ORANGE, figures.GREEN, figures.RED, figures.GRAY, "black"]
    ends = []
    for color, (key, part) in zip(colors, results["parts"].items(), strict=False):
        rows = [row for row in part["result"]["curve"] if "test" in row]
        epochs, bound = [row["epoch"] for row in rows], [-row["test"]["loss"] for row in rows]
        axes.plot(epochs, bound, color=color, label=f"{name_of(key)}: bound")
        axes.axhline(-part["result"]["nll"], color=color, linestyle=":", label=f"{name_of(key)}: log p(x)")
        ends += [bound[-1], -part["result"]["nll"]]
    span = max(ends) - min(ends) + 1
    axes.set_ylim(min(ends) - 2 * span, max(ends) + span / 2)
    axes.set(xlabel="epoch", ylabel="nats per image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    figures.save(figure, path)


def name_of(key) -> str:
    how, k = key.split("-k")
    return f"{'VAE' if k == '1' else f'IWAE, k = {k}'}, {how}" + " MNIST" * (how in ("dynamic", "static"))


def rows(results):
    samples, found = results["settings"]["samples"], []
    for key, part in results["parts"].items():
        (how, k), result = key.split("-k"), part["result"]
        what = (f"{name_of(key)}: −log p(x) in nats, {result['images']:,} test images, {samples:,} samples, "
                f"{result['active_units']} active units")
        paper = PAPER.get((how, int(k)))
        found.append((what, f"{paper:.2f}" if paper else "", f"{result['nll']:.2f}"))
    return found
