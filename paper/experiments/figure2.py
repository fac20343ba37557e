"""Figure 2 for one data set: the bound against the samples seen, AEVB and wake-sleep, a panel for each number of latents.

`figure2_mnist` and `figure2_frey` hold the settings; this is what they share.
"""

import numpy as np

from common import figures
from common.config import VAEConfig
from paper.images import Images
from paper.paper_settings import train_as_the_paper
from paper.parts import Part

NAMES = {"vae": "AEVB", "wake-sleep": "Wake-sleep"}
COLORS = {"vae": figures.BLUE, "wake-sleep": figures.ORANGE}
DATA = {"mnist": "Dynamic MNIST", "frey": "Frey Face", "digits": "Digits"}
THINNED = 1.04                          # a curve keeps points whose samples are so many times those of the one before
COMPARED_FROM = 1_000_000               # samples


def parts(settings):
    """One part for each curve."""
    shared = {"samples": settings["training_samples"]} | settings["network"] | settings["training"]
    return {f"{kind}-{latent}": Part(train_curve, {"kind": kind, "latent": latent} | shared)
            for latent in settings["latents"] for kind in NAMES}


def train_curve(work, kind, latent, samples, data, hidden, likelihood, **training):
    """Trains one model and returns its bound on training and test images against the samples seen."""
    dataset = work.dataset(data)
    images = Images.of(dataset, device=work.device, likelihood=likelihood)
    config = VAEConfig("mlp", dataset.image_shape, hidden, latent, likelihood)
    model, rows, picked = train_as_the_paper(work, kind, config, images, samples, **training)
    model.save(work.weights)
    tests = [row for row in rows if "test" in row]
    return picked | {
        "curve": thinned(tests, len(images.x_train)), "best_test": max(row["test"]["elbo"] for row in tests),
        "end": rows[-1], "training_seconds": sum(row["seconds"] for row in rows), "test_images": len(images.x_test),
    }


def thinned(rows, count):
    """The bounds of rows that lie about evenly on a log axis. A training bound is a mean over its epoch, count samples,
    and belongs to the middle of it; a test bound belongs to the end."""
    found = {"samples": [], "train": [], "middle": [], "test": []}
    for row in rows:
        samples = row["epoch"] * count
        if not found["samples"] or samples >= THINNED * found["samples"][-1] or row is rows[-1]:
            for name, value in (("samples", samples), ("train", row["train"]["elbo"]),
                                ("middle", samples - count // 2), ("test", row["test"]["elbo"])):
                found[name].append(value)
    return found


# ---- the figure --------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, GAP = 260, 300, 45                       # of a panel, in pixels


def draw(path, results):
    """A panel for each number of latents, as in the paper: training solid, test dashed, samples on a log axis."""
    figure, settings = figures.new_figure(), results["settings"]
    for column, latent in enumerate(settings["latents"]):
        axes = figures.chart(figure, column * (WIDTH + GAP), 0, WIDTH, HEIGHT, f"$N_z$ = {latent}")
        for kind in NAMES:
            curve = results["parts"][f"{kind}-{latent}"]["result"]["curve"]
            axes.plot(curve["middle"], curve["train"], color=COLORS[kind], label=f"{NAMES[kind]}, train")
            axes.plot(curve["samples"], curve["test"], "--", color=COLORS[kind], label=f"{NAMES[kind]}, test")
        axes.set(xscale="log", xlabel="training samples seen", **settings["axes"])
        axes.grid(alpha=0.3)
        if column == 0:
            axes.set_ylabel("bound (nats per image)")
            axes.legend(loc="upper left", frameon=False, fontsize=9)
        elif "ylim" in settings["axes"]:                                 # the same for all panels
            axes.tick_params(labelleft=False)
    figure.text(0, (HEIGHT + 45) / figures.PANEL, settings["title"], fontsize=14)
    figures.save(figure, path)


# ---- what the results say ----------------------------------------------------------------------------------------------


def lead(results, latent, which) -> float:
    """By how much the bound of AEVB is above that of wake-sleep where it is least, from COMPARED_FROM samples on, nats.
    which: "train" or "test"."""
    curves = [results["parts"][f"{kind}-{latent}"]["result"]["curve"] for kind in NAMES]
    aevb, wake_sleep = (np.array(curve[which]) for curve in curves)
    late = np.array(curves[0]["samples"]) >= min(COMPARED_FROM, curves[0]["samples"][-1])
    return float((aevb - wake_sleep)[late].min())


def rows(results):
    settings, found = results["settings"], []
    name = DATA[settings["network"]["data"]]
    first = results["parts"][f"vae-{settings['latents'][0]}"]["result"]
    samples = first["curve"]["samples"][-1]
    for latent in settings["latents"]:
        ends = {kind: results["parts"][f"{kind}-{latent}"]["result"] for kind in NAMES}
        bounds = [f"{result['end']['test']['elbo']:.1f}" for result in ends.values()]
        found.append((f"{name}, {latent} latents: bound of {ends['vae']['test_images']:,} test images after {samples:,} "
                      "samples, AEVB / wake-sleep, nats", "AEVB higher", " / ".join(bounds)))
    leads = [(lead(results, latent, which), latent, which) for latent in settings["latents"] for which in ("train", "test")]
    least, latent, which = min(leads)
    found.append((f"{name}: least lead of AEVB over wake-sleep from {min(COMPARED_FROM, samples):,} samples on, train and "
                  "test, nats", "above 0", f"{least:.1f} ({latent} latents, {which})"))
    latent = settings["latents"][-1]
    result = results["parts"][f"vae-{latent}"]["result"]
    train, test = (result["end"][which]["elbo"] for which in ("train", "test"))
    minutes = [results["parts"][f"vae-{each}"]["result"]["training_seconds"] / samples * 1e6 / 60
               for each in settings["latents"]]
    return [
        *found,
        (f"{name}, AEVB, {latent} latents: end below the best test bound / training above test bound at the end, nats",
         "superfluous latents do not overfit", f"{result['best_test'] - test:.2f} / {train - test:.2f}"),
        (f"{name}, AEVB: minutes for a million training samples, from {settings['latents'][0]} to {latent} latents",
         "20 to 40", f"{min(minutes):.2f} to {max(minutes):.2f}"),
    ]
