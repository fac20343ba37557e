"""Posterior collapse: a decoder that can do without its latents does, and four ways to train it all the same.

The decoder is a PixelCNN (paper/pixel_vae.py), which models what pixels have in common by itself. All models have the same
latents and see the same images; those with a PixelCNN differ in what their KL costs, and in nothing else.

none        the bound as it is
annealing   the KL's weight beta rises from 0 to 1 over the first half of training (Bowman et al. 2016)
cyclical    it does so four times (Fu et al. 2019)
free-bits   the first half nat of each latent, on average over a minibatch, costs nothing (Kingma et al. 2016)
beta        beta = 0.5 to the end: the objective is no bound on log p(x) any more
weak        an ordinary decoder, pixels independent given z: a VAE. It has nothing but z

ELBO and KL shown are those of the plain bound, whatever was trained. What is measured besides, on test images:

active   latents whose posterior mean varies by more than 0.01 (variance) over the images (Burda et al. 2016). The bar is
         low: a latent with a hundredth of a nat passes, so that it counts some which carry nothing to speak of
kept     what z tells of x: draws x' ~ p(x|z), z ~ q(z|x), that a classifier of real images reads as the digit of x. A tenth
         if z tells nothing; as many as of real images if it tells the digit and the decoder draws well

To be seen: how much of the KL a cure keeps to the end, where annealing has the plain bound again and may fall back; and
what it costs. Where the bound itself is better with z, a cure costs nothing: training had only not found the way.
On cpu the bound is better without: the collapsed model has the best one, and each cure pays.
"""

from dataclasses import replace

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED, pixels
from paper.estimators import active_units, estimator_b, log_p_by_importance_sampling
from paper.images import Images
from paper.packed import pack, unpack
from paper.parts import Part
from paper.plan import Plan
from paper.reader import Reader
from paper.train_paper import build, evaluate, train
from paper.vae_paper import kl_divergence

COSTS = {                               # of the KL, by model: settings of a PixelVAE
    "none": {}, "annealing": {"warmup": 0.5}, "cyclical": {"warmup": 0.5, "cycles": 4}, "free-bits": {"free_bits": 0.5},
    "beta": {"beta": 0.5},
}
NAMES = {"none": "No cure", "annealing": "Annealing", "cyclical": "Cyclical annealing", "free-bits": "Free bits, 0.5 nats",
         "beta": "beta = 0.5", "weak": "Weak decoder"}
SHOWN, ACROSS = (0, 3, 4, 7), 6                         # an image of each of these digits, and so many draws beside it
ONE_CYCLE = {"batch_size": 100, "schedule": "one-cycle", "lr": 5e-3, "matmul": "medium"}

PRESETS = {
    "quick": {
        "data": "digits", "shrink": 1, "network": {"hidden": 100, "latent": 5},
        "decoder": {"channels": 16, "blocks": 2, "kernel": 5}, "plan": ONE_CYCLE | {"epochs": 4},
        "measure": {"samples": 20, "images": 100, "reader": [50, 30]},
    },
    "cpu": {
        "data": "mnist", "shrink": 2, "network": {"hidden": 200, "latent": 10},
        "decoder": {"channels": 32, "blocks": 4, "kernel": 7}, "plan": ONE_CYCLE | {"epochs": 10},
        "measure": {"samples": 100, "images": 1000, "reader": [200, 5]},
    },
    "gpu": {
        "data": "mnist", "shrink": 1, "network": {"hidden": 500, "latent": 20},
        "decoder": {"channels": 64, "blocks": 6, "kernel": 7},
        "plan": ONE_CYCLE | {"epochs": 40, "lr": 2e-3, "matmul": "high"},
        "measure": {"samples": 500, "images": 1000, "reader": [200, 10]},
    },
}


def parts(settings):
    """One part for each model; the weak decoder takes next to no time."""
    shared = {name: settings[name] for name in ("data", "shrink", "network", "decoder", "plan", "measure")}
    return {key: Part(train_and_measure, {"key": key} | shared, 1 if key in COSTS else 0.2) for key in NAMES}


# ---- what is measured --------------------------------------------------------------------------------------------------
# N images, D pixels, J latents


def shrunk(data, factor: int):
    """The data set with images of a `factor` times smaller side: blocks of factor x factor pixels averaged, gray."""
    height, width = (side // factor for side in data.image_shape)

    def mean(x):
        return pixels(x).reshape(-1, height, factor, width, factor).mean(axis=(2, 4)).reshape(-1, height * width)

    return replace(data, image_shape=(height, width), x_train=mean(data.x_train), x_test=mean(data.x_test),
                   x_valid=None, y_valid=None)


def train_and_measure(work, key, data, shrink, network, decoder, plan, measure):
    """Trains one model, with the KL's cost COSTS[key], or the weak decoder, and measures it."""
    dataset, plan = shrunk(work.dataset(data), shrink), Plan(**plan)
    images = Images.of(dataset, device=work.device)
    order = np.random.default_rng(EVAL_SEED).permutation(len(images.x_test))    # MNIST's test set has its easy half first
    images.x_test, images.y_test = images.x_test[order], images.y_test[order]
    config = VAEConfig(image_shape=dataset.image_shape, **network)
    model = build("pixel-vae", config, images, **decoder, **COSTS[key]) if key in COSTS else build("vae", config, images)
    curve = train(model, images, plan, work.checkpoint, lambda row: work.progress(0.85 * row["epoch"] / plan.epochs))
    reader = Reader(images, *measure["reader"])
    work.progress(0.9)
    return measured(model, images, reader, measure["samples"], measure["images"]) | {
        "accuracy": reader.accuracy, "image_shape": dataset.image_shape, "curve": curve,
        "training_images": len(images.x_train), "training_seconds": sum(row["seconds"] for row in curve),
    }


@torch.no_grad()
def measured(model, images: Images, reader: Reader, samples: int, count: int) -> dict:
    """The bound on all test images; log p(x) by so many samples, and draws, for the first `count` of them."""
    x, y, some = images.x_test, images.y_test, images.x_test[:count]
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)
    mu, logvar = model.encode(x)                                         # (N, J), (N, J)
    eps = torch.randn(1, len(some), mu.shape[1], generator=generator, device=x.device, dtype=x.dtype)
    draws = model.sample(model.reparameterize(mu[:count], logvar[:count], eps[0]), generator)
    shown = torch.stack([torch.nonzero(y == digit)[0, 0] for digit in SHOWN])
    repeated = model.reparameterize(mu[shown], logvar[shown], eps[0, :len(SHOWN)]).repeat_interleave(ACROSS, dim=0)
    bound = evaluate(model, x)
    return {
        "elbo": bound["elbo"], "log_likelihood": bound["log_likelihood"], "kl": bound["kl"], "test_images": len(x),
        "kl_per_latent": kl_divergence(mu, logvar).mean(dim=0).tolist(), "active_units": active_units(model, x),
        "log_p": float(log_p_by_importance_sampling(model, some, samples, generator).mean()),
        "elbo_of_same": float(estimator_b(model, some, eps).mean()), "images": len(some),
        "kept": float((reader.digits(draws) == y[:count]).float().mean()),
        "pictures": {"originals": pack(x[shown].cpu()), "draws": pack(model.sample(repeated, generator).cpu())},
    }


# ---- the figure --------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, GAP = 250, 200, 40                       # of a panel of bars, in pixels
COLORS = {"none": figures.RED, "annealing": figures.BLUE, "cyclical": "#56B4E9", "free-bits": figures.GREEN,
          "beta": figures.ORANGE, "weak": figures.GRAY}
TITLE = ("Posterior collapse: what goes through the latents of a VAE whose decoder is a PixelCNN, by the cost of its KL\n"
         "(above: KL of each latent; below: test images, and draws x ~ p(x|z) with the same z ~ q(z|x) in a row)")


def draw(path, results):
    """A column for each model: the KL per latent, and draws; below, KL and bound on the test images while training."""
    figure, found = figures.new_figure(), {key: part["result"] for key, part in results["parts"].items()}
    highest = max(max(result["kl_per_latent"]) for result in found.values())
    bottom = 0
    for column, (key, result) in enumerate(found.items()):
        left, kl = column * (WIDTH + GAP), sorted(result["kl_per_latent"], reverse=True)
        axes = figures.chart(figure, left, 0, WIDTH, HEIGHT, f"{NAMES[key]}\nELBO {result['elbo']:.1f}, KL "
                             f"{result['kl']:.2f} nats\n{result['active_units']} of {len(kl)} latents active")
        axes.bar(range(len(kl)), kl, color=COLORS[key])
        axes.set(ylim=(0, 1.05 * highest), xticks=[], xlabel="latents")
        axes.tick_params(labelleft=column == 0)
        if column == 0:
            axes.set_ylabel("KL (nats)")
        bottom = show_draws(figure, left, -45, result)
    curves(figure, found, bottom - 60 - 300)
    figure.text(0, (HEIGHT + 95) / figures.PANEL, TITLE, fontsize=14)
    figures.save(figure, path)


def show_draws(figure, left, top, result):
    """A row for each of SHOWN: the test image, and its draws. Returns where the page ends."""
    shape = result["image_shape"]
    zoom = max(1, (WIDTH - 8 - (ACROSS + 1) * figures.GAP) // ((ACROSS + 1) * shape[1]))
    for name, columns in (("originals", 1), ("draws", ACROSS)):
        images = unpack(result["pictures"][name], -1, shape[0] * shape[1])
        page = figures.tile(images, shape, columns, zoom)
        figures.show(figure, page, left, top)
        left += page.shape[1] + 8
    return top - len(page)


def curves(figure, found, bottom):
    """The test KL and the test bound against epochs."""
    width = (len(NAMES) * (WIDTH + GAP) - GAP - 110) // 2
    for column, (name, words) in enumerate((("kl", "KL"), ("elbo", "ELBO"))):
        axes = figures.chart(figure, column * (width + 110), bottom, width, 300, f"{words} on test images, while training")
        for key, result in found.items():
            rows = [row for row in result["curve"] if "test" in row]
            axes.plot([row["epoch"] for row in rows], [row["test"][name] for row in rows], color=COLORS[key],
                      label=NAMES[key])
        axes.set(xlabel="epoch", ylabel="nats per image")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)


# ---- what the results say ----------------------------------------------------------------------------------------------


def rows(results):
    settings, lines = results["settings"], []
    for key, part in results["parts"].items():
        result = part["result"]
        what = f"{data_name(settings, result)}, {NAMES[key]}"
        lines += [
            (f"{what}: test ELBO / log p(x|z) / KL in nats, active units of {settings['network']['latent']}", "",
             f"{result['elbo']:.2f} / {result['log_likelihood']:.2f} / {result['kl']:.2f}, {result['active_units']}"),
            (f"{what}: log p(x) by {settings['measure']['samples']:,} samples / ELBO of the same {result['images']:,} test "
             "images", "", f"{result['log_p']:.2f} / {result['elbo_of_same']:.2f}"),
            (f"{what}: draws x' ~ p(x|z), z ~ q(z|x), read as the digit of x (real images: {result['accuracy']:.0%})", "",
             f"{result['kept']:.0%}"),
        ]
    return lines


def data_name(settings, result) -> str:
    height, width = result["image_shape"]
    name = {"mnist": "MNIST", "digits": "Digits"}[settings["data"]]
    return f"{name}{f' averaged to {height} x {width}' * (settings['shrink'] > 1)}, {settings['plan']['epochs']} epochs"
