"""Figure 5: what models of MNIST with 2, 5, 10 and 20 latents draw from the prior.

Drawn is the mean of p(x|z) at random z ~ N(0, I), not an image x ~ p(x|z), whose pixels would each be 0 or 1. To be seen:
with few latents nearly every draw is a digit, but blurred; with more, strokes are finer, and more of the draws are none.
"""

import torch

from common import figures
from common.data import EVAL_SEED
from paper.experiments.figure4 import trained
from paper.packed import pack, unpack
from paper.parts import Part

ACROSS = 10                                             # draws in a row, and rows

FULL = {
    "name": "MNIST", "data": "mnist", "latents": [2, 5, 10, 20], "network": {"hidden": 500, "likelihood": "bernoulli"},
    "training": {"pick_samples": 120_000, "matmul": "medium"},
}
PRESETS = {
    "quick": FULL | {
        "name": "Digits", "data": "digits", "latents": [2, 5], "network": {"hidden": 50, "likelihood": "bernoulli"},
        "training": {"pick_samples": 5000, "matmul": "highest"}, "training_samples": 60_000,
    },
    "cpu": FULL | {"training_samples": 5_000_000},
    "gpu": FULL | {"training_samples": 100_000_000, "training": {"pick_samples": 120_000, "matmul": "high"}},
}


def parts(settings):
    """One part for each number of latents."""
    shared = {"data": settings["data"], "training": settings["training"], "samples": settings["training_samples"]}
    return {f"vae-{latent}": Part(train_and_sample, shared | {"network": settings["network"] | {"latent": latent}})
            for latent in settings["latents"]}


# N draws, D pixels, J latents


def train_and_sample(work, data, network, training, samples):
    """Trains one model; its draws, packed."""
    model, images, told = trained(work, data, network, training, samples)
    generator = torch.Generator(images.x_test.device).manual_seed(EVAL_SEED)
    return told | {
        "test_images": len(images.x_test), "image_shape": model.config.image_shape,
        "draws": pack(prior_draws(model, ACROSS**2, generator).cpu()),
    }


@torch.no_grad()
def prior_draws(model, count: int, generator):
    """The mean of p(x|z) at `count` draws z ~ N(0, I): (N, D) in [0, 1]."""
    like = next(model.parameters())
    z = torch.randn(count, model.config.latent, generator=generator, device=like.device, dtype=like.dtype)     # (N, J)
    return model.decode_mean(z)


# ---- the figure --------------------------------------------------------------------------------------------------------

GAP = 30                                                # pixels between the squares


def draw(path, results):
    """A square of draws for each number of latents, side by side."""
    figure, left = figures.new_figure(), 0
    for latent in results["settings"]["latents"]:
        result = results["parts"][f"vae-{latent}"]["result"]
        height, width = result["image_shape"]
        images = unpack(result["draws"], -1, height * width)
        page = figures.tile(images, (height, width), ACROSS, max(1, figures.PANEL // (2 * ACROSS * height)))
        figures.show(figure, page, left, title=f"{latent} latents")
        left += page.shape[1] + GAP
    figure.text(0, 45 / figures.PANEL, f"{results['settings']['name']}: the mean of p(x|z) at random draws from the prior, "
                "z ~ N(0, I)", fontsize=14)
    figures.save(figure, path)


def rows(results):
    found = []
    for latent in results["settings"]["latents"]:
        result = results["parts"][f"vae-{latent}"]["result"]
        found.append((f"{results['settings']['name']}, {latent} latents: test bound of the model that drew, nats, "
                      f"{result['test_images']:,} images", "", f"{result['elbo']:.1f}"))
    return found
