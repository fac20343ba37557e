"""Missing quadrants of MNIST (Sohn, Lee & Yan 2015): a plain network, which blurs, beside a conditional VAE, which commits.

One, two or three quadrants of a digit are observed, and the others are predicted (paper/quadrant_vae.py). Measured is the
negative conditional log-likelihood -log p(x_mis|x_obs) in nats per image, over the missing pixels alone: of the network
exactly, of the CVAE three times:

bound           what training raises, z from q(z|x)
importance      log of the mean importance weight of draws from q(z|x): the figure to go by, a little low. Sohn et al. take
                100 draws; here 1000 are worth some tenths of a nat more
Monte Carlo     log of the mean of p(x_mis|z, x_obs), z from the prior network, as a prediction has it: few of the draws
                come near the truth, so that with as many of them the estimate is lower by nats

Pixels are treated in two ways, each told in its row. `binarized` is the truth: pixels drawn anew in each epoch, test images
once. `gray` is for the comparison: gray values as targets of Bernoulli pixels, as in the example of Pyro, an open
reproduction whose figures stand beside ours. That is not a likelihood, since no draw from the model is gray; its minimum is
the pixels' own entropy. Pyro's CVAE is told by its bound, from weights picked by their loss on the test images; its own
networks differ (200 latents, and a trained plain network in front of the prior network).

60,000 images can be learnt by heart, gray ones above all: the last tenth of them is held out, and of all epochs those
weights are kept which had the best loss there. The figure shows the gray models: their digits are easier to read.
"""

import numpy as np
import torch

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED, hold_out
from paper.estimators import log_p_by_importance_sampling
from paper.images import Images
from paper.packed import pack, unpack
from paper.parts import Part
from paper.plan import Plan
from paper.quadrant_vae import QuadrantNetwork, QuadrantVAE, log_weights, log_weights_of_predictions, observed_pixels
from paper.train_paper import evaluate, train

PYRO = {                                                # by model, for 1, 2 and 3 quadrants; gray pixels
    "network": {1: "100.4", 2: "61.9", 3: "25.4"},
    "cvae": {1: "71.8", 2: "51.0", 3: "24.2"},          # its bound
}
MODELS = {"network": QuadrantNetwork, "cvae": QuadrantVAE}
NAMES = {"network": "plain network", "cvae": "CVAE"}
BINARIZE = {"gray": "none", "binarized": "dynamic"}
SHOWN, DRAWS = 8, 4                                     # test digits in the figure, completions of each

# More patience than there are evaluations: the cycle is run to its end, where the step size is small, and the best is kept
ONE_CYCLE = {"batch_size": 200, "schedule": "one-cycle", "lr": 2e-3, "adam_eps": 1e-4, "patience": 100}
MNIST = {"data": "mnist", "quadrants": [1, 2, 3], "pixels": ["gray", "binarized"],
         "config": {"hidden": 500, "latent": 50}, "samples": 1000}
PRESETS = {
    "quick": {
        "data": "digits", "quadrants": [1, 2, 3], "pixels": ["gray"], "config": {"hidden": 50, "latent": 5},
        "samples": 20, "rows": 2000, "cost": {"network": 1, "cvae": 3},
        "plans": {kind: ONE_CYCLE | {"batch_size": 100, "lr": 5e-3, "epochs": 40} for kind in MODELS},
    },
    "cpu": MNIST | {
        "rows": 2000, "cost": {"network": 1, "cvae": 8},
        "plans": {"network": ONE_CYCLE | {"epochs": 20, "matmul": "medium"},
                  "cvae": ONE_CYCLE | {"epochs": 40, "matmul": "medium", "evaluate_every": 2}},
    },
    "gpu": MNIST | {
        "rows": 100_000, "cost": {"network": 1, "cvae": 5},
        "plans": {"network": ONE_CYCLE | {"epochs": 30, "matmul": "high"},
                  "cvae": ONE_CYCLE | {"epochs": 200, "matmul": "high", "evaluate_every": 5}},
    },
}


def parts(settings):
    """One part for each model, named as in gray-1-cvae: its pixels, the quadrants that it observes, its kind."""
    shared = {name: settings[name] for name in ("data", "config", "samples", "rows")}
    return {f"{pixels}-{quadrants}-{kind}": Part(train_and_measure, shared | {
        "kind": kind, "pixels": pixels, "quadrants": quadrants, "plan": settings["plans"][kind]},
        settings["cost"][kind]) for kind in MODELS for pixels in settings["pixels"] for quadrants in settings["quadrants"]}


# ---- what is measured --------------------------------------------------------------------------------------------------
# N images, D pixels, J latents; nats per image


def train_and_measure(work, kind, pixels, quadrants, data, config, samples, rows, plan):
    """Trains one model and measures it on the test images."""
    dataset, plan, weigh = work.dataset(data), Plan(**plan), 0.8         # the share of the time that training takes
    dataset = dataset if dataset.x_valid is not None else hold_out(dataset)
    images = Images.of(dataset, BINARIZE[pixels], work.device)
    x, rng = images.x_train, np.random.default_rng(plan.seed)
    model = MODELS[kind](VAEConfig(image_shape=dataset.image_shape, **config), quadrants)
    model.draw_weights(rng, x.mean(dim=0).cpu().numpy()).to(x.device, x.dtype)
    curve = train(model, images, plan, work.checkpoint, lambda row: work.progress(weigh * row["epoch"] / plan.epochs))
    model.save(work.weights)
    if kind == "network":
        found = measured_network(model, images)
    else:
        found = measured_cvae(model, images, samples, rows, lambda share: work.progress(weigh + (1 - weigh) * share))
    return found | {
        "images": len(images.x_test), "image_shape": dataset.image_shape,
        "epochs": len(curve), "training_seconds": sum(row["seconds"] for row in curve),
        "curve": [{part: row[part]["loss"] for part in ("train", "valid", "test")} for row in curve if "valid" in row],
        "originals": pack(images.x_test[shown(images)].cpu()),
    }


def shown(images: Images):
    """The rows of the test images that are drawn: the first of each of the last 8 classes, which are the digits 2 to 9."""
    _, first = np.unique(images.y_test.cpu().numpy(), return_index=True)
    return torch.from_numpy(first[-SHOWN:]).to(images.x_test.device)


def mean_and_error(log_p) -> dict:
    """-log p of all images, (N,): their mean, and its standard error."""
    nats = -log_p.double()
    return {"nll": float(nats.mean()), "standard_error": float(nats.std() / len(nats) ** 0.5)}


@torch.no_grad()
def measured_network(model, images) -> dict:
    x, logits = images.x_test, model.predict(images.x_test)              # (N, D), (N, M)
    prediction = model.complete(x, logits)[shown(images)]                # (8, D)
    return mean_and_error(model.log_likelihood(x, logits)) | {"prediction": pack(prediction.cpu())}


@torch.no_grad()
def measured_cvae(model, images, samples, rows, progress) -> dict:
    x = images.x_test
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)
    eps = torch.randn(DRAWS, SHOWN, model.config.latent, generator=generator, device=x.device, dtype=x.dtype)
    completions = model.completions(x[shown(images)], eps)               # (4, 8, D)
    found, terms = {"importance": [], "monte_carlo": []}, evaluate(model, x)
    for block in x.split(200):
        for name, weights in (("importance", log_weights), ("monte_carlo", log_weights_of_predictions)):
            found[name].append(log_p_by_importance_sampling(model, block, samples, generator, rows, weights))
        progress(200 * len(found["importance"]) / len(x))
    return mean_and_error(torch.cat(found["importance"])) | {
        "monte_carlo": mean_and_error(torch.cat(found["monte_carlo"]))["nll"], "bound": -terms["elbo"], "kl": terms["kl"],
        "completions": pack(completions.cpu()),
    }


# ---- the figure --------------------------------------------------------------------------------------------------------

MIDDLE, GAP = 0.45, 30                                  # the tone of what is missing; pixels between the panels
TITLE = "The missing quadrants of test digits: the network blurs what it cannot know, the CVAE commits, each time anew"


def draw(path, results):
    """A panel for each number of quadrants: what is observed, the network's mean, completions of the CVAE, the digit."""
    figure, left, pixels = figures.new_figure(), 0, results["settings"]["pixels"][0]
    names = ["observed", "network: mean", *[f"CVAE: draw {i + 1}" for i in range(DRAWS)], "the digit"]
    for quadrants in results["settings"]["quadrants"]:
        network, cvae = (results["parts"][f"{pixels}-{quadrants}-{kind}"]["result"] for kind in ("network", "cvae"))
        height, width = network["image_shape"]
        originals, prediction, *completions = (
            *(unpack(network[name], SHOWN, height * width) for name in ("originals", "prediction")),
            *unpack(cvae["completions"], DRAWS, SHOWN, height * width))
        observed = np.where(observed_pixels((height, width), quadrants), originals, MIDDLE)
        zoom = max(1, 480 // (SHOWN * width))
        page = figures.tile(np.concatenate([observed, prediction, *completions, originals]), (height, width), SHOWN, zoom)
        axes = figures.show(figure, page, left, title=f"{counted(quadrants)} observed")
        if not left:
            axes.set_yticks((np.arange(len(names)) + 0.5) * (height * zoom + figures.GAP), names)
        left += page.shape[1] + GAP
    figure.text(0, 45 / figures.PANEL, TITLE, fontsize=14)
    figures.save(figure, path)


def counted(quadrants: int) -> str:
    return "1 quadrant" if quadrants == 1 else f"{quadrants} quadrants"


def rows(results):
    found, settings = [], results["settings"]
    for pixels in settings["pixels"]:
        how = "gray pixels (no likelihood)" if pixels == "gray" else "binarized pixels"
        for quadrants in settings["quadrants"]:
            for kind in MODELS:
                result = results["parts"][f"{pixels}-{quadrants}-{kind}"]["result"]
                theirs = PYRO[kind][quadrants] if pixels == "gray" and settings["data"] == "mnist" else ""
                what = (f"{counted(quadrants)} observed, {how}, {NAMES[kind]}: −log p(missing pixels) in nats, "
                        f"{result['images']:,} test images")
                ours = f"{result['nll']:.1f}"
                if kind == "cvae":
                    draws = f"{settings['samples']:,} draws"
                    what += f"; bound / importance sampling, {draws} from q / Monte Carlo, {draws} from the prior network"
                    ours = f"{result['bound']:.1f} / {ours} / {result['monte_carlo']:.1f}"
                found.append((what, theirs and f"{theirs} (Pyro)", ours))
    return found
