"""The rate-distortion curve of a VAE: what beta trades, bits of the code against errors of the picture (MNIST, dynamic).

The bound has two parts, as a code for images has: the rate R = KL(q(z|x) || p(z)), the nats that it takes to tell z, and
the distortion D = -E log p(x|z), the nats that it then takes to tell x. R + D = -ELBO >= -log p(x): all points of one bound
lie on a line of slope -1. Training minimizes D + beta R, so beta picks a point on the curve, and where its slope is -beta
(Alemi et al. 2018, "Fixing a broken ELBO"): only beta = 1 asks for the best bound. The line of -log p(x) lies below its
point by what q(z|x) falls short of the posterior.
"""

import torch

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED
from paper.estimators import active_units, log_p_by_importance_sampling
from paper.images import Images
from paper.parts import Part
from paper.plan import Plan
from paper.train_paper import build, train

BETAS = [0.25, 0.5, 1, 2, 4, 8]
ONE_CYCLE = {"batch_size": 200, "schedule": "one-cycle", "lr": 3e-3}

PRESETS = {
    "quick": {"data": "digits", "network": {"hidden": 50, "latent": 5}, "betas": [0.25, 1, 4], "samples": 100,
              "plan": ONE_CYCLE | {"batch_size": 100, "lr": 1e-2, "epochs": 30, "evaluate_every": 30}},
    "cpu": {"data": "mnist", "network": {"hidden": 500, "latent": 20}, "betas": BETAS, "samples": 500,
            "plan": ONE_CYCLE | {"epochs": 60, "evaluate_every": 5, "matmul": "medium"}},
    "gpu": {"data": "mnist", "network": {"hidden": 500, "latent": 20}, "betas": BETAS, "samples": 5000,
            "plan": ONE_CYCLE | {"epochs": 500, "evaluate_every": 50, "matmul": "high"}},
}


def parts(settings):
    """One part for each beta; log p(x) is estimated for beta = 1, the VAE."""
    shared = {name: settings[name] for name in ("data", "network", "plan")}
    samples = {1: settings["samples"]}
    return {f"beta-{beta}": Part(train_and_measure, shared | {"beta": beta, "samples": samples.get(beta, 0)})
            for beta in settings["betas"]}


def train_and_measure(work, data, network, plan, beta, samples):
    """Trains one model; its rate and distortion on the test images in nats per image, and -L_samples, or None for 0."""
    dataset, plan = work.dataset(data), Plan(**plan)
    images = Images.of(dataset, device=work.device)
    model = build("beta-vae", VAEConfig(image_shape=dataset.image_shape, **network), images, beta=float(beta))
    curve = train(model, images, plan, work.checkpoint, lambda row: work.progress(0.9 * row["epoch"] / plan.epochs))
    x, test, nll = images.x_test, curve[-1]["test"], None
    if samples:
        generator = torch.Generator(x.device).manual_seed(EVAL_SEED)
        nll = -float(log_p_by_importance_sampling(model, x, samples, generator).double().mean())
    return {"rate": test["kl"], "distortion": -test["log_likelihood"], "elbo": test["elbo"], "nll": nll, "images": len(x),
            "active_units": active_units(model, x), "training_seconds": sum(row["seconds"] for row in curve)}


def draw(path, results):
    """Rate against distortion, a point for each beta, and the lines on which the bound is the same."""
    found = {beta: results["parts"][f"beta-{beta}"]["result"] for beta in results["settings"]["betas"]}
    rate, distortion = ([result[name] for result in found.values()] for name in ("rate", "distortion"))
    best = found[1]
    figure = figures.new_figure()
    axes = figures.chart(figure, title=f"Rate and distortion on test images of {name_of(results)}")
    right, top = 1.1 * max(rate), 1.08 * max(distortion)
    axes.set(xlim=(0, right), ylim=(0.9 * min(distortion), top))
    for beta in found:
        total = -found[beta]["elbo"]
        axes.plot([0, total], [total, 0], color=figures.GRAY, linewidth=0.7, label="the same bound" if beta == 1 else None)
    axes.plot([0, best["nll"]], [best["nll"], 0], "--", color=figures.ORANGE, label="−log p(x) of beta = 1")
    axes.plot(rate, distortion, "o-", color=figures.BLUE, label="beta-VAE")
    for beta, result in found.items():
        axes.annotate(f"{beta:g}", (result["rate"], result["distortion"]), (7, 5), textcoords="offset points")
    axes.set(xlabel="rate: KL(q(z|x) || p(z)), nats per image", ylabel="distortion: −E log p(x|z), nats per image")
    axes.legend(loc="upper right", frameon=False)
    figures.save(figure, path)


def name_of(results) -> str:
    return {"mnist": "MNIST, dynamic", "digits": "digits"}[results["settings"]["data"]]


def rows(results):
    found = []
    for beta in results["settings"]["betas"]:
        result = results["parts"][f"beta-{beta}"]["result"]
        found.append((f"{name_of(results)}, beta = {beta:g}: rate + distortion = −ELBO in nats, latents in use", "",
                      f"{result['rate']:.1f} + {result['distortion']:.1f} = {-result['elbo']:.1f}, "
                      f"{result['active_units']} of {results['settings']['network']['latent']}"))
    vae = results["parts"]["beta-1"]["result"]
    found.append((f"{name_of(results)}, beta = 1: −log p(x) in nats, {results['settings']['samples']:,} samples", "",
                  f"{vae['nll']:.1f}"))
    return found
