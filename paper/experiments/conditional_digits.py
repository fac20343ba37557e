"""Digits by label: a conditional VAE beside a VAE of the same size, trained equally. Kingma et al. 2014, Sohn et al. 2015.

What is measured, on the MNIST test set, its pixels drawn once:

ELBO, log p(x|y)    by importance sampling with the true labels; log p(x) for the VAE. The two are no rivals: to be told the
                    label is worth log p(x|y) - log p(x) = log p(y|x) - log p(y), of a model that reads all digits rightly
                    log 10 = 2.3 nats
obeyed              share of draws that a classifier reads as the label asked for. Each draw is an image of binary pixels,
                    z ~ N(0, I) and then x ~ p(x|z, y), not the gray mean that pictures show; the classifier was trained
                    on such images, and its accuracy on real test images is what to compare with
reconstructed       the same with the styles of real images of that label, z ~ q(z|x, y)

With 20 latents the bound is far better than with 5, and the label is obeyed less: reconstructions are read, draws often are
not. In 20 dimensions more of N(0, I) lies where no image of the label was encoded, and nobody told the decoder what to do
there. A bound measures what a model knows of given images, and says little of those that it draws.
"""

from statistics import mean

import torch

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED
from paper.conditional_vae import at_every_label, classes_of
from paper.estimators import log_p_by_importance_sampling
from paper.images import Images
from paper.packed import pack, unpack
from paper.parts import Part
from paper.plan import Plan
from paper.reader import Reader
from paper.train_paper import build, train

ONE_CYCLE = {"batch_size": 200, "schedule": "one-cycle", "lr": 2e-3, "adam_eps": 1e-4, "matmul": "medium"}
MNIST = {"data": "mnist", "hidden": 500, "layers": 2, "classifier": {"hidden": 200, "epochs": 10}}
STYLES = 10                                             # rows of the picture, and images whose label is exchanged

PRESETS = {
    "quick": {
        "network": {"data": "digits", "hidden": 100, "layers": 1, "classifier": {"hidden": 100, "epochs": 50}},
        "latents": [5], "draws": 100, "samples": 100, "rows": 1000,
        "plan": ONE_CYCLE | {"batch_size": 100, "lr": 1e-2, "epochs": 30, "evaluate_every": 10},
    },
    "cpu": {"network": MNIST, "latents": [5, 20], "draws": 1000, "samples": 1000, "rows": 1000,
            "plan": ONE_CYCLE | {"epochs": 50, "evaluate_every": 5}},
    "gpu": {"network": MNIST, "latents": [5, 20], "draws": 1000, "samples": 5000, "rows": 100_000,
            "plan": ONE_CYCLE | {"epochs": 1000, "evaluate_every": 20}},
}
SHARE = {"train": 0.55, "measure": 0.95}                 # of a part's time that is gone after it


def parts(settings):
    shared = settings["network"] | {name: settings[name] for name in ("draws", "samples", "rows", "plan")}
    return {f"{model}-{latent}": Part(train_and_measure, shared | {"model": model, "latent": latent})
            for latent in settings["latents"] for model in ("conditional-vae", "vae")}


def train_and_measure(work, model, latent, data, hidden, layers, classifier, draws, samples, rows, plan):
    """Trains one model and measures it on the test images."""
    dataset, kind, plan = work.dataset(data), model, Plan(**plan)
    images, classes = Images.of(dataset, device=work.device), classes_of(dataset)
    conditional = kind == "conditional-vae"
    config = VAEConfig(image_shape=dataset.image_shape, hidden=hidden, latent=latent, layers=layers,
                       condition=classes * conditional)
    model = build(kind, config, images)
    curve = train(model, images, plan, work.checkpoint,
                  lambda row: work.progress(SHARE["train"] * row["epoch"] / plan.epochs))
    model.eval().save(work.weights)
    x, y = images.x_test, images.y_test
    generator, nats = torch.Generator(x.device).manual_seed(EVAL_SEED), []
    for label in range(classes):                        # one label at a time, so that images may come in any blocks
        told = model.given(label) if conditional else model
        nats.append(log_p_by_importance_sampling(told, x[y == label], samples, generator, rows))
        work.progress(SHARE["train"] + (SHARE["measure"] - SHARE["train"]) * len(nats) / classes)
    nats = torch.cat(nats).double()
    found = {"nll": -float(nats.mean()), "standard_error": float(nats.std() / len(nats) ** 0.5), "images": len(x),
             "elbo": curve[-1]["test"]["elbo"], "kl": curve[-1]["test"]["kl"],
             "curve": [row for row in curve if "test" in row]}
    if conditional:
        found |= draws_by_label(model, images, Reader(images, **classifier), draws) | pictures(model, images)
    return found


@torch.no_grad()
def draws_by_label(model, images, reader, draws):
    """Share of x ~ p(x|z, y) that is read as y, by label: of so many z ~ N(0, I), and z ~ q(z|x, y) of as many images."""
    x, y, obeyed, reconstructed = images.x_test, images.y_test, [], []
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)

    def read(label, z):
        return float((reader.digits(model.given(label).sample(z, generator)) == label).double().mean())

    for label in range(model.config.condition):
        mu, logvar = model.given(label).encode(x[y == label][:draws])
        eps = torch.randn(draws, model.config.latent, generator=generator, device=x.device, dtype=x.dtype)
        obeyed.append(read(label, eps))
        reconstructed.append(read(label, model.reparameterize(mu, logvar, eps[:len(mu)])))
    return {"obeyed": obeyed, "reconstructed": reconstructed, "accuracy": reader.accuracy}


@torch.no_grad()
def pictures(model, images):
    """Decoded means: STYLES draws of z at every label, and the first test image of each digit at every label."""
    x, y, config = images.x_test, images.y_test, model.config
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)
    z = torch.randn(STYLES, config.latent, generator=generator, device=x.device, dtype=x.dtype)
    shown = torch.stack([torch.nonzero(y == label)[0, 0] for label in range(config.condition)])
    mu, _ = model.given(y[shown]).encode(x[shown])
    return {"pictures": {"image_shape": config.image_shape, "classes": config.condition, "originals": pack(x[shown].cpu()),
                         "styles": pack(at_every_label(model, z).cpu()), "swaps": pack(at_every_label(model, mu).cpu())}}


# ---- the figure --------------------------------------------------------------------------------------------------------


def draw(path, results):
    """Two grids, a column for each label: draws of the style, and test images with their label exchanged."""
    kept = results["parts"][f"conditional-vae-{results['settings']['latents'][0]}"]["result"]["pictures"]
    shape, classes = kept["image_shape"], kept["classes"]
    styles, swaps = (unpack(kept[name], -1, classes, shape[0] * shape[1]) for name in ("styles", "swaps"))
    originals = unpack(kept["originals"], classes, -1)
    figure, zoom = figures.new_figure(), max(1, figures.PANEL // (classes * max(shape)))
    cell = shape[1] * zoom + figures.GAP
    left = classes * cell + 80
    figures.show_labels(figure, styles, shape, zoom, 0, "Each row: one draw of the style, z ~ N(0, I), with every label")
    figures.show(figure, figures.tile(originals, shape, 1, zoom), left, title="image")
    figures.show_labels(figure, swaps, shape, zoom, left + cell + 60, "encoded with its label, decoded with every label")
    figures.save(figure, path)


def rows(results):
    settings, lines = results["settings"], []
    for latent in settings["latents"]:
        told, plain = (results["parts"][f"{model}-{latent}"]["result"] for model in ("conditional-vae", "vae"))
        test, obeyed = f"{told['images']:,} test images", told["obeyed"]
        least = obeyed.index(min(obeyed))
        lines += [
            (f"{latent} latents, conditional VAE / VAE: test ELBO in nats, {test}", "",
             f"{told['elbo']:.2f} / {plain['elbo']:.2f}"),
            (f"{latent} latents, conditional VAE, −log p(x|y) / VAE, −log p(x): nats, {test}, {settings['samples']:,} "
             "samples", "", f"{told['nll']:.2f} / {plain['nll']:.2f}"),
            (f"{latent} latents, draws x ~ p(x|z, y), {settings['draws']:,} a label, read as the label asked for; "
             f"reconstructions (accuracy of the classifier on real images: {told['accuracy']:.1%})", "",
             f"{mean(obeyed):.1%}; {mean(told['reconstructed']):.1%}"),
            (f"{latent} latents, the label that is obeyed least", "", f"{least}: {obeyed[least]:.1%}"),
        ]
    return lines
