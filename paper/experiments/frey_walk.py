"""Walks between faces: straight lines in latent space, decoded, above the cross-fades between the same two real faces.

A VAE of Frey Face with 10 latents, trained as the paper trains. Each pair of rows belongs to two test frames that differ
much. Above: from the posterior mean of the one to that of the other in equal steps, the mean of p(x|z) at each. Below: the
same straight line in pixels. To be seen: on the walk one face turns and changes its look, and every picture is a face; the
cross-fade lays two faces over each other, and in its middle there are two mouths, or two outlines of the head.

Measured as well: the middles of walks and of cross-fades between pairs of test frames in random order, how far each is
from the nearest training frame: root mean square over pixels that go from 0 to 1, mean over the pairs. Half way between
two faces there should be a face still. The ends of the walks, that is reconstructions, tell what blur alone costs.
"""

import torch

from common import figures
from common.data import EVAL_SEED
from paper.experiments.figure4 import trained
from paper.packed import pack, unpack
from paper.parts import Part

PAIRS, STEPS = 4, 9                                     # pairs of faces that are drawn, and pictures from one to the other

FULL = {
    "name": "Frey Face", "data": "frey", "network": {"hidden": 200, "latent": 10, "likelihood": "gaussian"},
    "training": {"pick_samples": 120_000, "matmul": "highest"},
}
PRESETS = {
    "quick": FULL | {
        "name": "Digits, Gaussian", "data": "digits",
        "network": {"hidden": 50, "latent": 5, "likelihood": "gaussian", "fixed_logvar": -3.0},          # see figure4
        "training": {"pick_samples": 5000, "matmul": "highest"}, "training_samples": 100_000,
    },
    "cpu": FULL | {"training_samples": 10_000_000},
    "gpu": FULL | {"training_samples": 100_000_000, "training": {"pick_samples": 120_000, "matmul": "high"}},
}


def parts(settings):
    arguments = {name: settings[name] for name in ("data", "network", "training")}
    return {"vae": Part(train_and_walk, arguments | {"samples": settings["training_samples"]})}


# ---- pairs and walks ---------------------------------------------------------------------------------------------------
# N images, D pixels, J latents, P pairs, S steps


def far_apart(codes, count: int):
    """Rows of `count` codes (N, J) that are mutually far: the first is the one farthest from their mean, and each of the
    others is that whose nearest among those before it is farthest. (count,)"""
    chosen = [int((codes - codes.mean(dim=0)).norm(dim=1).argmax())]
    while len(chosen) < count:
        chosen.append(int(torch.cdist(codes, codes[chosen]).amin(dim=1).argmax()))
    return torch.tensor(chosen, device=codes.device)


def walk(start, end, steps: int):
    """Straight lines from start to end, both (P, J), in `steps` evenly spaced points, both ends among them: (P, S, J)."""
    t = torch.linspace(0, 1, steps, device=start.device, dtype=start.dtype)[:, None]              # (S, 1)
    return (1 - t) * start[:, None] + t * end[:, None]                   # exactly start and end at the ends


def nearest(images, real) -> float:
    """How far images (P, D) are from the nearest of real (N, D): root mean square over pixels, mean over images."""
    return float((torch.cdist(images, real).amin(dim=1) / images.shape[1] ** 0.5).mean())


@torch.no_grad()
def middles(model, x_train, x, generator) -> dict[str, float]:
    """The distance to the nearest training image of the middles of walks and of cross-fades, of the ends of the walks, and
    of the test images themselves; pairs are drawn from the test images x (N, D)."""
    start, end = x[torch.randperm(len(x), generator=generator, device=x.device)[:len(x) // 2 * 2]].chunk(2)    # (P, D)
    codes, _ = model.encode(x)
    walks = walk(model.encode(start)[0], model.encode(end)[0], 3)[:, 1]  # (P, J)
    return {"walk": nearest(model.decode_mean(walks), x_train), "fade": nearest(walk(start, end, 3)[:, 1], x_train),
            "ends": nearest(model.decode_mean(codes), x_train), "real": nearest(x, x_train), "pairs": len(start)}


def train_and_walk(work, data, network, training, samples):
    """Trains the model; walks and cross-fades between pairs of test images, packed, and the distances of middles."""
    model, images, told = trained(work, data, network, training, samples)
    x = images.x_test
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)
    with torch.no_grad():
        codes, _ = model.encode(x)                                       # (N, J)
        first, second = far_apart(codes, 2 * PAIRS).reshape(PAIRS, 2).T  # (P,) each
        walks = model.decode_mean(walk(codes[first], codes[second], STEPS))                       # (P, S, D)
    return told | {
        "middles": middles(model, images.x_train, x, generator), "pairs": [first.tolist(), second.tolist()],
        "image_shape": model.config.image_shape, "walks": pack(walks.cpu()),
        "fades": pack(walk(x[first], x[second], STEPS).cpu()),           # their ends are the real faces
    }


# ---- the figure --------------------------------------------------------------------------------------------------------

GAP, LABEL = 30, 85                                     # pixels: between pairs, and beside walks; room for a row's name


def draw(path, results):
    """For each pair: the real faces at both ends of the decoded walk, and the cross-fade below."""
    result, figure, top = results["parts"]["vae"]["result"], figures.new_figure(), 0
    height, width = shape = tuple(result["image_shape"])
    walks, fades = (unpack(result[name], PAIRS, STEPS, height * width) for name in ("walks", "fades"))
    zoom = max(1, figures.PANEL // (STEPS * width))
    cell = width * zoom + figures.GAP
    for i in range(PAIRS):
        for left, face in ((0, fades[i, 0]), (cell + LABEL + STEPS * cell + GAP, fades[i, -1])):
            figures.show(figure, figures.tile(face[None], shape, 1, zoom), left, top, "real" if i == 0 else "")
        for images, name in ((walks[i], "walk"), (fades[i], "cross-fade")):
            page = figures.tile(images, shape, STEPS, zoom)
            axes = figures.show(figure, page, cell + LABEL, top)
            axes.set_yticks([page.shape[0] / 2], [name])
            top -= page.shape[0] + figures.GAP
        top -= GAP
    latent = results["settings"]["network"]["latent"]
    figure.text(0, 40 / figures.PANEL, f"{results['settings']['name']}: straight walks in {latent} latents, decoded, and "
                "in pixels", fontsize=14)
    figures.save(figure, path)


def rows(results):
    name, result = results["settings"]["name"], results["parts"]["vae"]["result"]
    latent, found = results["settings"]["network"]["latent"], result["middles"]
    return [
        (f"{name}, {latent} latents: test bound, nats", "", f"{result['elbo']:.1f}"),
        (f"{name}: from the nearest training image, root mean square of pixels: middles of {found['pairs']} walks / of "
         "cross-fades", "", f"{found['walk']:.3f} / {found['fade']:.3f}"),
        (f"{name}: the same for reconstructions of test images / for the test images themselves", "",
         f"{found['ends']:.3f} / {found['real']:.3f}"),
    ]
