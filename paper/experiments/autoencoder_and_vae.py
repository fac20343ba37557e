"""Deterministic autoencoder and VAE with the same networks: reconstruction, the latent plane, draws, walks, in numbers.

The autoencoder (paper/autoencoder.py) reconstructs better: it is trained for nothing else. What it lacks is a model of its
codes. Nothing keeps them together, nothing fills the room between them, and there is no p(z) to draw from. People draw from
N(0, I) all the same, or from a Gaussian fitted to the codes; both are shown here under these names.

The reconstruction error, -log p(x|z) at z = mu(x), is measured for both, and is a likelihood for neither: log p(x) is an
integral over z. A VAE has one, and a bound on it; an autoencoder has none, so that a widely copied table with a negative
log-likelihood for it is wrong: the number can only be this error.

What is measured besides, on held-out images:

jump        a straight walk between the codes of two images, in STEPS equal steps: the largest step of the decoded mean as a
            share of its whole path (L2), the mean over pairs. 1/STEPS where it moves evenly, 1 where it leaps at once; the
            scale of the codes does not matter, nor does the distance of the two images
read        share of draws that a classifier reads as some digit with a probability of at least 0.9, completeness for
            short. A decoded mean is gray, the classifier knows binary images, and on blur it is not to be trusted: so each
            draw is an image, x ~ p(x|z), binary pixels as both models and the classifier were trained on, and the share is
            to be compared with that of real test images and of reconstructions
            Alone it says little: a model that draws the same few digits over and over is read well
kinds       exp(entropy) of the digits that it reads in the draws: 10 where all come equally often, 1 where all are one
"""

import numpy as np
import torch

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED
from paper.images import Images
from paper.packed import pack, unpack
from paper.parts import Part
from paper.plan import Plan
from paper.reader import CONFIDENT, Reader
from paper.train_paper import build, train

STEPS = 50
CODES = 1500                                            # codes that are drawn
WALKS, WALK = ((0, 1), (4, 3), (7, 5)), 11              # between the first test images of these digits, in so many pictures
ACROSS = 7                                              # draws in a row, and rows

MNIST = {"data": "mnist", "hidden": 500, "classifier": {"hidden": 200, "epochs": 10}}
ONE_CYCLE = {"batch_size": 100, "schedule": "one-cycle", "lr": 3e-3}
RUNS = {f"{model}-{latent}": {"model": model, "latent": latent} for latent in (2, 20) for model in ("autoencoder", "vae")}

PRESETS = {
    "quick": {
        "network": {"data": "digits", "hidden": 100, "classifier": {"hidden": 100, "epochs": 100}},
        "draws": 500, "pairs": 100, "plan": ONE_CYCLE | {"lr": 1e-2, "epochs": 200, "evaluate_every": 20},
        "runs": {key: run for key, run in RUNS.items() if run["latent"] == 2},
    },
    "cpu": {"network": MNIST, "draws": 5000, "pairs": 500, "plan": ONE_CYCLE | {"epochs": 40, "evaluate_every": 2},
            "runs": RUNS},
    "gpu": {"network": MNIST, "draws": 10_000, "pairs": 2000, "plan": ONE_CYCLE | {"epochs": 300, "evaluate_every": 10},
            "runs": RUNS},
}


def parts(settings):
    shared = settings["network"] | {name: settings[name] for name in ("draws", "pairs", "plan")}
    return {key: Part(train_and_measure, run | shared) for key, run in settings["runs"].items()}


# ---- what is measured --------------------------------------------------------------------------------------------------
# N images, D pixels, J latents, P pairs


def jumps(model, z_from, z_to):
    """Straight walks in STEPS equal steps from z_from to z_to, both (P, J): the largest step's share of the path, (P,)."""
    t = torch.linspace(0, 1, STEPS + 1, device=z_from.device, dtype=z_from.dtype)[:, None, None]
    images = model.decode_mean(z_from + t * (z_to - z_from))                                      # (STEPS + 1, P, D)
    steps = (images[1:] - images[:-1]).norm(dim=-1)                                               # (STEPS, P)
    return steps.amax(dim=0) / steps.sum(dim=0)


def fitted_gaussian(codes):
    """The mean (J,) of codes (N, J), and the factor L (J, J) of their covariance L L^T: z = mean + L eps."""
    return codes.mean(dim=0), torch.linalg.cholesky(torch.cov(codes.T).reshape(2 * codes.shape[1:]))


def train_and_measure(work, model, latent, data, hidden, classifier, draws, pairs, plan):
    """Trains one of the two models and measures it on the test images."""
    dataset, kind, plan = work.dataset(data), model, Plan(**plan)
    images = Images.of(dataset, device=work.device)
    model = build(kind, VAEConfig(image_shape=dataset.image_shape, hidden=hidden, latent=latent), images)
    curve = train(model, images, plan, work.checkpoint, lambda row: work.progress(0.8 * row["epoch"] / plan.epochs))
    reader = Reader(images, **classifier)
    work.progress(0.9)
    return measure(model, kind, images, reader, draws, pairs) | {
        "accuracy": reader.accuracy, "elbo": curve[-1]["test"].get("elbo"), "image_shape": dataset.image_shape,
        "curve": [row for row in curve if "test" in row],
    }


@torch.no_grad()
def measure(model, kind, images, reader, draws, pairs):
    x, labels, latent = images.x_test, images.y_test, model.config.latent
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)

    codes, _ = model.encode(x)                                           # (N, J)
    order = torch.randperm(len(x), generator=generator, device=x.device)[:2 * min(pairs, len(x) // 2)]
    z_from, z_to = codes[order].chunk(2)                                 # (P, J) each
    eps = torch.randn(draws, latent, generator=generator, device=x.device, dtype=x.dtype)
    sources = {"normal": eps}
    if kind == "autoencoder":
        everything = torch.arange(len(images.x_train), device=x.device)
        mean, factor = fitted_gaussian(model.encode(images.minibatch(everything, generator)[0])[0])
        sources["fitted"] = mean + eps @ factor.T
    shown = torch.stack([torch.nonzero(labels == digit)[0, 0] for digit in range(10)])            # one image of each digit
    t = torch.linspace(0, 1, WALK, device=x.device, dtype=x.dtype)[:, None]
    walks = [codes[shown[a]] + t * (codes[shown[b]] - codes[shown[a]]) for a, b in WALKS]
    return {
        "reconstruction_error": -float(model.log_likelihood(x, codes).mean()),
        "jump": float(jumps(model, z_from, z_to).mean()), "code_sd": codes.std(dim=0).tolist(),
        "read": {"real": reader(x), "reconstructions": reader(model.sample(codes, generator)),
                 "middles": reader(model.sample((z_from + z_to) / 2, generator))}
        | {name: reader(model.sample(z, generator)) for name, z in sources.items()},
        "codes": {"z1": rounded(codes[:CODES, 0]), "z2": rounded(codes[:CODES, 1]), "labels": labels[:CODES].tolist()}
        if latent == 2 else None,
        "pictures": {
            "originals": pack(x[shown].cpu()), "reconstructions": pack(model.decode_mean(codes[shown]).cpu()),
            "walks": pack(model.decode_mean(torch.cat(walks)).cpu()),
            "draws": {name: pack(model.decode_mean(z[:ACROSS**2]).cpu()) for name, z in sources.items()},
        },
    }


def rounded(values) -> list[float]:
    return [round(value, 3) for value in values.tolist()]


# ---- the figure --------------------------------------------------------------------------------------------------------

NAMES = {"autoencoder": "Autoencoder", "vae": "VAE"}
COLORS = {"autoencoder": figures.ORANGE, "vae": figures.BLUE}
CATEGORIES = {"reconstructions": "reconstructions", "middles": "middles of walks", "normal": "draws, z ~ N(0, I)",
              "fitted": "draws, z ~ a Gaussian\nfitted to the codes"}
PANEL, GAP = 404, 70                                    # pixels
TITLE = ("The same two networks without and with noise and KL: the autoencoder reconstructs better;\n"
         "N(0, I) covers the codes of the VAE, not those of the autoencoder")


def draw(path, results):
    """The codes, the shares that the classifier reads, draws, reconstructions and walks."""
    found = {tuple(key.split("-")): part["result"] for key, part in results["parts"].items()}
    latents = list(dict.fromkeys(latent for _, latent in found))
    shape, figure = next(iter(found.values()))["image_shape"], figures.new_figure()
    zoom = max(1, PANEL // (ACROSS * max(shape)))
    for column, kind in enumerate(NAMES):
        plane_of_codes(figure, column * (PANEL + GAP), kind, found[kind, "2"]["codes"])
    shares_read(figure, 2 * (PANEL + GAP) + 220, found)

    top = -105                                          # of the next row of panels; heights count upwards
    for latent in latents:
        drawn = [(kind, source) for kind in NAMES for source in found[kind, latent]["pictures"]["draws"]]
        for column, (kind, source) in enumerate(drawn):
            text = found[kind, latent]["pictures"]["draws"][source]
            z = "a Gaussian fitted to its codes" if source == "fitted" else "N(0, I)" + ", its prior" * (kind == "vae")
            page = figures.tile(pictures(text, shape), shape, ACROSS, zoom)
            figures.show(figure, page, column * (PANEL + GAP), top, f"{NAMES[kind]}, {latent} latents:\nz ~ {z}")
        top -= page.shape[0] + 65

    first = next(iter(found.values()))["pictures"]["originals"]
    page = np.concatenate([pictures(first, shape)] + [pictures(found[kind, latent]["pictures"]["reconstructions"], shape)
                                                      for latent in latents for kind in NAMES])
    axes = figures.show(figure, figures.tile(page, shape, 10, zoom), 0, top, "Test images, binarized, and reconstructions")
    names = ["image"] + [f"{NAMES[kind]}, {latent}" for latent in latents for kind in NAMES]
    height = shape[0] * zoom + figures.GAP
    axes.set_yticks([(row + 0.5) * height for row in range(len(names))], names)
    left = 10 * (shape[1] * zoom + figures.GAP) + GAP
    for kind in NAMES:
        page = figures.tile(pictures(found[kind, "2"]["pictures"]["walks"], shape), shape, WALK, zoom)
        figures.show(figure, page, left, top, f"{NAMES[kind]}, 2 latents: straight walks between the codes of two images")
        top -= page.shape[0] + 40
    figure.text(0, (PANEL + 45) / figures.PANEL, TITLE, fontsize=14)
    figures.save(figure, path)


def pictures(text, shape):
    return unpack(text, -1, shape[0] * shape[1])


def plane_of_codes(figure, left, kind, codes):
    axes = figures.chart(figure, left, 0, PANEL, PANEL, f"{NAMES[kind]}, 2 latents: codes of test images")
    dots = axes.scatter(codes["z1"], codes["z2"], c=codes["labels"], s=7, linewidths=0, cmap="tab10", vmin=-0.5, vmax=9.5)
    angle = np.linspace(0, 2 * np.pi, 100)
    axes.plot(2 * np.cos(angle), 2 * np.sin(angle), "k--", linewidth=1, label="N(0, I): two standard deviations")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="$z_1$", ylabel="$z_2$")
    axes.legend(loc="lower left", fontsize=8, framealpha=0.8)
    if kind == "vae":
        figure.colorbar(dots, cax=axes.inset_axes((1.03, 0, 0.04, 1)), ticks=range(10), label="digit")


def shares_read(figure, left, found):
    """One row for each kind of image: the share that the classifier reads, by model (color) and latents (shape)."""
    axes = figures.chart(figure, left, 0, 300, PANEL, f"Read with {CONFIDENT:.0%} confidence or more")
    for (kind, latent), result in found.items():
        some = [(row, name) for row, name in enumerate(CATEGORIES) if name in result["read"]]
        shift = 0.1 if latent == "2" else -0.1
        axes.plot([100 * result["read"][name]["read"] for _, name in some], [-row + shift for row, _ in some],
                  "o" if latent == "2" else "s", color=COLORS[kind], label=f"{NAMES[kind]}, {latent} latents")
    axes.axvline(100 * result["read"]["real"]["read"], color="black", linestyle=":", label="real test images")
    axes.set_yticks([-row for row in range(len(CATEGORIES))], CATEGORIES.values())
    axes.set(xlim=(0, 100), ylim=(-len(CATEGORIES) - 0.8, 0.5), xlabel="share of images (%)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=8, frameon=False)


def rows(results):
    found, lines = {tuple(key.split("-")): part["result"] for key, part in results["parts"].items()}, []
    for latent in dict.fromkeys(latent for _, latent in found):
        ae, vae = found["autoencoder", latent], found["vae", latent]
        pair = f"autoencoder / VAE, {latent} latents: "

        def both(name, which="read", ae=ae, vae=vae, form="{:.0%}"):
            return " / ".join(form.format(each["read"][name][which]) for each in (ae, vae))

        lines += [
            (f"{pair}reconstruction error in nats, no likelihood", "",
             f"{ae['reconstruction_error']:.1f} / {vae['reconstruction_error']:.1f}"),
            (f"{pair}largest of {STEPS} steps of a walk, share of its path", "", f"{ae['jump']:.1%} / {vae['jump']:.1%}"),
            (f"{pair}reconstructions that a classifier reads (of real images {ae['read']['real']['read']:.0%}; its "
             f"accuracy on them is {ae['accuracy']:.1%})", "", both("reconstructions")),
            (f"{pair}middles of walks that it reads", "", both("middles")),
            (f"{pair}draws from N(0, I) that it reads; from a Gaussian fitted to the autoencoder's codes", "",
             f"{both('normal')}; {ae['read']['fitted']['read']:.0%}"),
            (f"{pair}kinds of digits in these draws, of 10", "",
             f"{both('normal', 'kinds', form='{:.1f}')}; {ae['read']['fitted']['kinds']:.1f}"),
        ]
    return lines
