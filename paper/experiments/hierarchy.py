"""Hierarchical VAEs on dynamic MNIST: chains of one, two and three layers of latents, and ladders.

The chain, whose posterior climbs from draw to draw, is Burda et al. (2016), table 1, with k = 1; the ladder is Sønderby et
al. (2016). It has batch norm and a warm-up besides: a chain with both tells what they do by themselves. All are measured
as in these papers, -L_samples in nats per test image (of every so-manieth: the curves are of all), and layer by layer:

KL      what a layer adds to KL(q(z_1..z_T|x) || p(z_1..z_T)), nats: a layer near 0 carries nothing
active  the latents of a layer whose posterior mean varies over the test images by more than 0.01. In a ladder the lower
        layers follow what is above them, and all their means vary, those that add nothing, too: there the KL tells more

To be seen: the more layers there are, the less the top one carries; batch norm and warm-up make for the ladder's speed, and
its way of inferring for a few tenths of a nat; on cpu its top carries no more than the chain's.
"""

import torch
from matplotlib.ticker import MaxNLocator

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED
from paper.estimators import log_p_by_importance_sampling
from paper.hierarchical_vae import Hierarchy
from paper.images import Images
from paper.packed import pack, unpack
from paper.parts import Part
from paper.plan import Plan
from paper.train_paper import build, train

PAPER = {"chain-1": "86.76", "chain-2": "85.33", "ladder-5": "81.74"}      # Burda et al. (2016), Sønderby et al. (2016)
ACROSS = 6                                              # draws in a row, and rows

ONE_CYCLE = {"batch_size": 200, "schedule": "one-cycle", "lr": 3e-3, "adam_eps": 1e-4, "matmul": "medium"}
STAIRCASE = {"batch_size": 100, "schedule": "staircase", "lr": 1e-3, "adam_eps": 1e-4, "matmul": "high"}


KINDS = {"chain": ("hierarchical-vae", {"path_only": True}),
         "normed": ("hierarchical-vae", {"path_only": True, "normed": True, "warmup": 0.1}),
         "ladder": ("ladder-vae", {"warmup": 0.1})}


def runs(depths, hidden, latent, plan):
    """Models by name, of these depths by kind; cost: a layer more takes a third of the time of one."""
    found = {}
    for name, several in depths.items():
        for depth in several:
            model, settings = KINDS[name]
            # Burda et al. (2016): 50 latents in one layer, 100 + 50 in two
            network = {"hidden": hidden, "latent": latent if depth > 1 else latent // 2}
            found[f"{name}-{depth}"] = {"model": model, "settings": {"depth": depth} | settings, "network": network,
                                        "plan": plan, "cost": 2 + depth}
    return found


PRESETS = {
    "quick": {
        "data": "digits", "samples": 100, "rows": 2000, "test_images": 100,
        "runs": runs({"chain": [1, 2], "normed": [2], "ladder": [2]}, 50, 16,
                     ONE_CYCLE | {"batch_size": 50, "lr": 1e-2, "epochs": 20}),
    },
    "cpu": {
        "data": "mnist", "samples": 5000, "rows": 1000, "test_images": 5000,
        # the ladder learns faster than the chain; at the chain's step size the scales of its latents went on growing
        "runs": runs({"chain": [1, 2, 3]}, 200, 100, ONE_CYCLE | {"epochs": 200, "evaluate_every": 5})
                | runs({"normed": [2], "ladder": [2, 3]}, 200, 100,
                       ONE_CYCLE | {"lr": 2e-3, "epochs": 200, "evaluate_every": 5}),
    },
    "gpu": {
        "data": "mnist", "samples": 5000, "rows": 100_000, "test_images": 10_000,
        "runs": runs({"chain": [1, 2, 3]}, 200, 100, STAIRCASE | {"epochs": 3280, "evaluate_every": 40})
                | runs({"normed": [2], "ladder": [2, 3, 5]}, 512, 64,
                       {"batch_size": 256, "schedule": "one-cycle", "lr": 1e-3, "matmul": "high", "epochs": 2000,
                        "evaluate_every": 40}),
    },
}


def parts(settings):
    shared = {name: settings[name] for name in ("data", "samples", "rows", "test_images")}
    return {key: Part(train_and_measure, shared | {name: run[name] for name in ("model", "settings", "network", "plan")},
                      run["cost"])
            for key, run in settings["runs"].items()}


# N images, D pixels, T layers


def train_and_measure(work, data, model, settings, network, plan, samples, rows, test_images):
    """Trains one model; -L_samples, KL and active units of each layer on `test_images` of the test set, and its draws."""
    dataset = work.dataset(data)
    images = Images.of(dataset, device=work.device)
    plan, weigh = Plan(**plan), 0.75                                     # the share of the time that training takes
    model = build(model, VAEConfig(image_shape=dataset.image_shape, **network), images, **settings)
    curve = train(model, images, plan, work.checkpoint, lambda row: work.progress(weigh * row["epoch"] / plan.epochs))
    model.eval()
    # every so-manieth image: the first 5,000 of MNIST's test set are known to be cleaner than the others
    x, nats = images.x_test[::len(images.x_test) // test_images][:test_images], []
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)
    for block in x.split(100):
        nats.append(log_p_by_importance_sampling(model, block, samples, generator, rows, Hierarchy.log_weights,
                                                 sum(model.latents)))
        work.progress(weigh + (1 - weigh) * sum(map(len, nats)) / len(x))
    nats, at_end = torch.cat(nats).double(), curve[-1]["test"]
    return {
        "nll": -float(nats.mean()), "standard_error": float(nats.std() / len(nats) ** 0.5), "images": len(x),
        "elbo": at_end["elbo"], "kl": [at_end[f"kl_{t}"] for t in range(1, len(model.latents) + 1)],
        "latents": model.latents, "active_units": model.active_units(x, generator),
        "training_seconds": sum(row["seconds"] for row in curve), "curve": curve,
        "image_shape": dataset.image_shape, "draws": pack(model.sample(ACROSS**2, generator).cpu()),
    }


# ---- the figure --------------------------------------------------------------------------------------------------------

COLORS = [figures.BLUE, figures.ORANGE, figures.GREEN, figures.RED, figures.GRAY, "black"]
GAP = 30                                                # pixels between the squares of draws


def draw(path, results):
    """The test bound over training; the KL of each layer, stacked; below, draws of each model."""
    figure, found = figures.new_figure(), {key: part["result"] for key, part in results["parts"].items()}
    left = figures.chart(figure, title="Bound on the test set")
    ends = []
    for color, (key, result) in zip(COLORS, found.items(), strict=False):
        rows = [row for row in result["curve"] if "test" in row]
        left.plot([row["epoch"] for row in rows], [row["test"]["elbo"] for row in rows], color=color, label=name_of(key))
        ends.append(result["elbo"])
    span = max(ends) - min(ends) + 1
    left.set_ylim(min(ends) - 3 * span, max(ends) + span / 2)             # room for the legend
    left.set(xlabel="epoch", ylabel="ELBO (nats per image)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.grid(alpha=0.3)
    left.legend(loc="lower right", frameon=False)

    right = figures.chart(figure, figures.PANEL + 100, title="KL of each layer on the test set")
    for layer in range(max(len(result["kl"]) for result in found.values())):
        some = [(i, result["kl"]) for i, result in enumerate(found.values()) if layer < len(result["kl"])]
        right.bar([i for i, _ in some], [kl[layer] for _, kl in some], bottom=[sum(kl[:layer]) for _, kl in some],
                  color=COLORS[layer], label=f"layer {layer + 1}" + " (lowest)" * (layer == 0), width=0.6)
    right.set_xticks(range(len(found)), list(map(lines_of, found)))
    right.set_ylim(0, 1.25 * max(sum(result["kl"]) for result in found.values()))       # room for the legend
    right.set_ylabel("KL (nats per image)")
    right.legend(loc="upper left", frameon=False, ncols=3)

    height, width = next(iter(found.values()))["image_shape"]
    zoom = ((2 * figures.PANEL + 100) // len(found) - GAP - ACROSS * figures.GAP) // (ACROSS * width)
    figure.text(0, -100 / figures.PANEL, "Draws from the top down: the mean of p(x|$z_1$)", fontsize=12)
    for i, (key, result) in enumerate(found.items()):
        page = figures.tile(unpack(result["draws"], -1, height * width), (height, width), ACROSS, max(1, zoom))
        figures.show(figure, page, i * (page.shape[1] + GAP), -180, title=lines_of(key))
    figures.save(figure, path)


def name_of(key) -> str:
    kind, depth = key.split("-")
    kind = {"normed": "chain with batch norm"}.get(kind, kind)
    return f"{kind}, {depth} layer{'s' * (depth != '1')}"


def lines_of(key) -> str:
    return name_of(key).replace(", ", "\n").replace(" with ", " with\n")


def rows(results):
    samples, found = results["settings"]["samples"], []
    for key, part in results["parts"].items():
        result = part["result"]
        kl = " + ".join(f"{kl:.1f}" for kl in result["kl"])
        active = " + ".join(map(str, result["active_units"]))
        found += [
            (f"{name_of(key)}, {' + '.join(map(str, result['latents']))} latents: −log p(x) in nats, {result['images']:,} "
             f"test images, {samples:,} samples", PAPER.get(key, "") if results["settings"]["data"] == "mnist" else "",
             f"{result['nll']:.2f}"),
            (f"{name_of(key)}: KL of each layer in nats, lowest first; active units", "", f"{kl}; {active}"),
            (f"{name_of(key)}: minutes of training", "", f"{result['training_seconds'] / 60:.1f}"),
        ]
    return found
