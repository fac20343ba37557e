"""Figure 4: what two latents learn of Frey Face and of MNIST, the plane of p(x|z) drawn from one end to the other.

A regular grid on the unit square goes through the inverse normal CDF, so that each picture stands for an equal share of the
prior; drawn is the mean of p(x|z) at each point. To be seen: neighbors are alike, and the plane is a map of the images as
far as their posteriors fill it. The posterior means begin on one side of the plane, and the KL, a few nats beside a
thousand, centers those of Frey Face but slowly: after little training, the far side shows what is no face.

What is measured besides:

step     how far neighbors in the plane are apart (L2 in pixels), as a share of the mean distance between any two of its
         pictures: the mean and the largest step. 1 where neighbors have no more in common than any others do
inside   the share of test images whose posterior mean lies between the outermost points of the grid; if the means spread
         as the prior does, (1 - 1/side)^2: 81% for 10 points a side, 90% for 20
"""

import numpy as np
import torch
from scipy.special import ndtr

from common import figures
from common.config import VAEConfig
from paper.images import Images
from paper.packed import pack, unpack
from paper.paper_settings import train_as_the_paper
from paper.parts import Part

FREY = {"name": "Frey Face", "data": "frey", "side": 10,
        "network": {"hidden": 200, "latent": 2, "likelihood": "gaussian"}}
MNIST = {"name": "MNIST", "data": "mnist", "side": 20,
         "network": {"hidden": 500, "latent": 2, "likelihood": "bernoulli"}}
# The border pixels of digits never change, and a learnt variance would fall there without end: hence a fixed one.
DIGITS = {"data": "digits", "side": 10, "training": {"pick_samples": 5000, "matmul": "highest"}}

PRESETS = {
    "quick": {
        "training_samples": 100_000,
        "planes": {
            "gaussian": DIGITS | {"name": "Digits, Gaussian", "network": {"hidden": 50, "latent": 2,
                                                                          "likelihood": "gaussian", "fixed_logvar": -3.0}},
            "bernoulli": DIGITS | {"name": "Digits, Bernoulli", "network": {"hidden": 50, "latent": 2,
                                                                            "likelihood": "bernoulli"}},
        },
    },
    "cpu": {
        "training_samples": 40_000_000,
        "planes": {"frey": FREY | {"training": {"pick_samples": 120_000, "matmul": "highest"}},
                   "mnist": MNIST | {"training": {"pick_samples": 120_000, "matmul": "medium"}}},
    },
    "gpu": {
        "training_samples": 100_000_000,
        "planes": {"frey": FREY | {"training": {"pick_samples": 120_000, "matmul": "high"}},
                   "mnist": MNIST | {"training": {"pick_samples": 120_000, "matmul": "high"}}},
    },
}


def parts(settings):
    """One part for each plane."""
    return {key: Part(train_and_decode, {name: plane[name] for name in ("data", "network", "training", "side")}
                      | {"samples": settings["training_samples"]}) for key, plane in settings["planes"].items()}


# ---- a trained model, and its plane ------------------------------------------------------------------------------------
# N images, D pixels, S = side*side points of the grid


def trained(work, data: str, network: dict, training: dict, samples: int):
    """A VAE that is trained as the paper trains until `samples` images were seen; its weights go to work.weights.

    network: hidden, latent, likelihood, and what else VAEConfig has; training: pick_samples and matmul, as for
    train_as_the_paper. Returns the model, its images, and {"elbo": the test bound in nats per image, "training_seconds",
    "lr", "tried"}; raises InputError where training diverges.
    """
    dataset = work.dataset(data)
    images = Images.of(dataset, device=work.device, likelihood=network["likelihood"])
    config = VAEConfig("mlp", dataset.image_shape, **network)
    model, rows, picked = train_as_the_paper(work, "vae", config, images, samples, **training, evaluate_every=10**9)
    model.save(work.weights)
    return model, images, picked | {"elbo": rows[-1]["test"]["elbo"],
                                    "training_seconds": sum(row["seconds"] for row in rows)}


def train_and_decode(work, data, network, training, samples, side):
    """Trains a model with 2 latents; its plane, packed, with what is measured of it."""
    model, images, told = trained(work, data, network, training, samples)
    plane = decoded_plane(model, side)
    return told | {
        "step": steps(plane, side), "inside": share_inside(model, images.x_test, side), "test_images": len(images.x_test),
        "image_shape": model.config.image_shape, "plane": pack(plane.cpu()),
    }


@torch.no_grad()
def decoded_plane(model, side: int):
    """The mean of p(x|z) at the points of latent_grid(2, side), row by row as on the page: (S, D) in [0, 1]."""
    like = next(model.parameters())
    return model.decode_mean(torch.as_tensor(figures.latent_grid(2, side), device=like.device, dtype=like.dtype))


def steps(plane, side: int) -> dict[str, float]:
    """The mean and the largest distance between neighbors of a plane (S, D), over the mean distance between any two."""
    cells = plane.reshape(side, side, -1)                                # (side, side, D)
    across, down = (cells.diff(dim=axis).norm(dim=-1).flatten() for axis in (1, 0))
    each = torch.cat([across, down]) / torch.pdist(plane).mean()         # (2 * side * (side - 1),)
    return {"mean": float(each.mean()), "largest": float(each.max())}


@torch.no_grad()
def share_inside(model, x, side: int) -> float:
    """The share of images x (N, D) whose posterior mean lies between the outermost points of latent_grid(2, side)."""
    mu, _ = model.encode(x)                                              # (N, 2)
    return float((mu.abs() <= figures.latent_grid(2, side).max()).all(dim=1).float().mean())


# ---- the figure --------------------------------------------------------------------------------------------------------

GAP = 75                                                # pixels between the planes


def draw(path, results):
    """Both planes side by side, as in the paper."""
    figure, left = figures.new_figure(), 0
    for key, plane in results["settings"]["planes"].items():
        result = results["parts"][key]["result"]
        height, width = result["image_shape"]
        images = unpack(result["plane"], -1, height * width)
        zoom = max(1, figures.PANEL // (plane["side"] * height))
        page = figures.tile(images, (height, width), plane["side"], zoom)
        axes = figures.show(figure, page, left, title=plane["name"], extent=(0, 1, 0, 1))
        values = np.arange(-1, 2)                                        # the page is the unit square: z at its quantile
        names = [f"{value}".replace("-", "\N{MINUS SIGN}") for value in values]
        axes.set_xticks(ndtr(values), names)
        axes.set_yticks(ndtr(values), names)
        axes.tick_params(length=4)
        axes.set(xlabel="$z_1$", ylabel="$z_2$")
        left += page.shape[1] + GAP
    figure.text(0, 45 / figures.PANEL, "The mean of p(x|z) over the plane of two latents, evenly spaced in quantiles of "
                "the prior N(0, I)", fontsize=14)
    figures.save(figure, path)


def rows(results):
    found = []
    for key, plane in results["settings"]["planes"].items():
        name, side, result = plane["name"], plane["side"], results["parts"][key]["result"]
        found += [
            (f"{name}, 2 latents: test bound, nats", "", f"{result['elbo']:.1f}"),
            (f"{name}, plane of {side} x {side}: step between neighbors, mean / largest, as a share of the mean distance "
             "between any two pictures", "", f"{result['step']['mean']:.2f} / {result['step']['largest']:.2f}"),
            (f"{name}: posterior means of {result['test_images']:,} test images that lie inside the drawn plane "
             f"({(1 - 1 / side) ** 2:.0%} if they spread as the prior)", "", f"{result['inside']:.0%}"),
        ]
    return found
