"""Disentanglement on sprites: does a larger beta give each factor a latent of its own? Three scores, several seeds.

Higgins et al. (2017) say that it does; Locatello et al. (2019), after 12,000 models, that nothing can do it without help
from network and data. So there are several seeds here, all three scores that papers report (paper/disentanglement.py), and
beside them what takes no training: the same encoder before its first step, principal components, and the bare pixels.

    beta-B      -log p(x|z) + B KL
    capacity    -log p(x|z) + gamma |KL - C|, C rising from 0 over most of the training (Burgess et al. 2018)

The sprites are ours, made after dSprites, and cpu trains small networks shortly: compare the rows with each other, not with
those of a paper. gpu has the width and the step rule of Higgins et al., and two layers where their decoder has three.
"""

import numpy as np
import torch
from sklearn.decomposition import PCA

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED, sprites_dataset
from common.sprites import FACTORS, SIDE, Sprites
from paper.disentanglement import Codes, beta_vae_score, code_table, factor_vae_score, information_gaps
from paper.images import Images
from paper.packed import pack, unpack
from paper.parts import Part
from paper.plan import Plan
from paper.train_paper import build, train
from paper.vae_paper import kl_divergence

ACTIVE = 0.1                                            # nats of KL, on average, of a latent that is in use
COLUMNS = np.linspace(-2, 2, 9)                         # values of a latent in a traversal
SCORES = {"beta_vae": "beta-VAE score", "factor_vae": "FactorVAE score", "mig": "MIG"}
CHANCE = {"beta_vae": 1 / len(FACTORS), "factor_vae": 1 / len(FACTORS), "mig": 0.0}
COMPONENTS = {"pca": 10, "pixels": None}
PIXEL_VOTES = [2000, 1000]                              # of 4096 numbers each
BETAS = {f"beta-{beta}": {"beta": beta} for beta in (1, 4, 8)}

PRESETS = {
    "quick": {
        "sprites": {"orientations": 4, "positions": 4}, "network": {"hidden": 20, "layers": 1, "latent": 10}, "seeds": 2,
        "votes": [200, 100], "components": {"pca": 10},
        "plan": {"batch_size": 100, "schedule": "one-cycle", "lr": 1e-2, "epochs": 5, "evaluate_every": 5},
        "runs": {name: BETAS[name] for name in ("beta-1", "beta-4")},
    },
    "cpu": {
        "sprites": {"orientations": 40, "positions": 32}, "network": {"hidden": 128, "layers": 2, "latent": 10}, "seeds": 5,
        "votes": [10_000, 5000], "components": COMPONENTS,
        "plan": {"batch_size": 64, "schedule": "one-cycle", "lr": 1e-3, "epochs": 2, "evaluate_every": 2,
                 "matmul": "medium"},
        "runs": BETAS | {"capacity": {"gamma": 100.0, "capacity": 25.0, "warmup": 0.8}},
    },
    "gpu": {
        "sprites": {"orientations": 40, "positions": 32}, "network": {"hidden": 1200, "layers": 2, "latent": 10},
        "seeds": 5, "votes": [10_000, 5000], "components": COMPONENTS,
        "plan": {"batch_size": 64, "optimizer": "adagrad", "lr": 1e-2, "epochs": 40, "evaluate_every": 4, "matmul": "high"},
        "runs": BETAS | {"capacity": {"gamma": 1000.0, "capacity": 25.0, "warmup": 0.8}},
    },
}


def parts(settings):
    shared = {name: settings[name] for name in ("sprites", "network", "votes")}
    found = {}
    for seed in range(settings["seeds"]):
        for name, run in settings["runs"].items():
            plan = settings["plan"] | {"seed": seed}
            found[f"{name}.{seed}"] = Part(train_and_score, shared | {"run": run, "plan": plan})
        found[f"untrained.{seed}"] = Part(score_untrained, shared | {"seed": seed}, 0.2)
    for name, components in settings["components"].items():
        found[f"{name}.0"] = Part(score_without_network, {"sprites": settings["sprites"], "components": components,
                                                          "votes": settings["votes"] if components else PIXEL_VOTES}, 0.2)
    return found


# ---- what is measured --------------------------------------------------------------------------------------------------


def scored(codes, sizes, votes) -> dict:
    """The three scores of codes, with the generator of the evaluation; the gaps by factor, too."""
    rng = np.random.default_rng(EVAL_SEED)
    gaps = information_gaps(codes, sizes, rng)
    return {"beta_vae": beta_vae_score(codes, sizes, rng, votes), "factor_vae": factor_vae_score(codes, sizes, rng, votes),
            "mig": float(gaps.mean()), "gaps": gaps.tolist()}


def posterior_means(model):
    """x (B, D) -> the means of q(z|x) as an array (B, J): what is scored."""
    @torch.no_grad()
    def represent(x):
        return model.encode(x)[0].cpu().numpy()
    return represent


def train_and_score(work, sprites, network, votes, run, plan):
    """Trains one model and scores the means of its posteriors."""
    images, plan = Images.of(sprites_dataset(Sprites(**sprites)), device=work.device), Plan(**plan)
    model = build("beta-vae", VAEConfig(image_shape=(SIDE, SIDE), **network), images, plan.seed, **run)
    curve = train(model, images, plan, work.checkpoint, lambda row: work.progress(0.85 * row["epoch"] / plan.epochs))
    codes = code_table(posterior_means(model), images.x_train, progress=lambda share: work.progress(0.85 + 0.1 * share))
    return measured(model, images.x_test) | {
        "scores": scored(codes, images.x_train.sprites.sizes, votes),
        "training_seconds": sum(row["seconds"] for row in curve), "images_seen": plan.epochs * len(images.x_train),
        "elbo": curve[-1]["test"]["elbo"], "log_likelihood": curve[-1]["test"]["log_likelihood"],
    }


@torch.no_grad()
def measured(model, x) -> dict:
    """The mean KL of each latent in nats, largest first, and a traversal of each in this order, on images x (N, D)."""
    mu, logvar = model.encode(x)                                         # (N, J)
    kl, order = kl_divergence(mu, logvar).mean(dim=0).sort(descending=True)                       # (J,)
    middle = mu[mu.norm(dim=1).argmin()]                                 # of the image nearest to the prior's mean
    z = middle.repeat(len(order), len(COLUMNS), 1)                       # (J, 9, J)
    for row, latent in enumerate(order):
        z[row, :, latent] = torch.from_numpy(COLUMNS).to(z)
    return {"kl_per_latent": kl.tolist(), "traversal": pack(model.decode_mean(z).cpu())}


def score_untrained(work, sprites, network, votes, seed):
    """The encoder as it is drawn."""
    images = Images.of(sprites_dataset(Sprites(**sprites)), device=work.device)
    model = build("vae", VAEConfig(image_shape=(SIDE, SIDE), **network), images, seed)
    codes = code_table(posterior_means(model), images.x_train, progress=work.progress)
    return {"scores": scored(codes, images.x_train.sprites.sizes, votes)}


def score_without_network(work, sprites, votes, components):
    """Principal components, fitted to the test images, or with components None the pixels themselves."""
    images = Images.of(sprites_dataset(Sprites(**sprites)), device=work.device)
    sizes = images.x_train.sprites.sizes
    if components is None:
        return {"scores": scored(Codes(lambda x: x.cpu().numpy(), images.x_train), sizes, votes)}
    pca = PCA(components, random_state=EVAL_SEED).fit(images.x_test.cpu().numpy())
    codes = code_table(lambda x: pca.transform(x.cpu().numpy()), images.x_train, progress=work.progress)
    return {"scores": scored(codes, sizes, votes)}


# ---- the figure --------------------------------------------------------------------------------------------------------

NAMES = {"capacity": "capacity", "untrained": "not trained", "pca": "10 principal\ncomponents", "pixels": "pixels"}
WIDTH, HEIGHT, GAP = 360, 320, 80                       # pixels


def draw(path, results):
    """The scores, a dot for each seed, and below them the traversals of seed 0, the latents in the order of their KL."""
    found, figure = by_name(results), figures.new_figure()
    for column, (score, title) in enumerate(SCORES.items()):
        axes = figures.chart(figure, column * (WIDTH + GAP), 0, WIDTH, HEIGHT, title)
        for row, (name, several) in enumerate(found.items()):
            values = [each["scores"][score] for each in several]
            color = figures.BLUE if name in results["settings"]["runs"] else figures.GRAY
            axes.plot(values, [-row] * len(values), "o", color=color, alpha=0.6, markersize=6)
            axes.plot([np.mean(values)] * 2, [-row - 0.3, -row + 0.3], color=color, linewidth=2)
        axes.set_yticks([-row for row in range(len(found))], map(title_of, found) if column == 0 else [""] * len(found))
        axes.axvline(CHANCE[score], color="black", linestyle=":")
        axes.set(xlim=(0, None), ylim=(0.4 - len(found), 0.6), xlabel=f"dotted: chance, {CHANCE[score]:.1f}")
        axes.tick_params(axis="y", length=0)
        axes.grid(alpha=0.3)
    for column, name in enumerate(name for name in ("beta-1", "beta-4", "capacity") if name in found):
        kl, page = found[name][0]["kl_per_latent"], unpack(found[name][0]["traversal"], -1, len(COLUMNS), SIDE * SIDE)
        page = page[:, ::2]                                              # -2, -1, 0, 1, 2: three pages side by side
        axes = figures.show(figure, figures.tile(page.reshape(-1, SIDE * SIDE), (SIDE, SIDE), page.shape[1], 1),
                            column * (WIDTH + GAP), -95, f"{title_of(name)}: a latent a row, from −2 to 2")
        middles = [(row + 0.5) * (SIDE + figures.GAP) for row in range(len(kl))]
        axes.set_yticks(middles, [f"{nats:.2f} nats" for nats in kl])
    figure.text(0, (HEIGHT + 45) / figures.PANEL, "Disentanglement of the sprites' five factors: a dot for each seed, a "
                "line for their mean", fontsize=14)
    figures.save(figure, path)


def by_name(results) -> dict[str, list]:
    """The results of each kind of model, seed by seed."""
    settings = results["settings"]
    found = {name: [] for name in [*settings["runs"], "untrained", *settings["components"]]}
    for key, part in results["parts"].items():
        found[key.rpartition(".")[0]].append(part["result"])
    return found


def title_of(name) -> str:
    return NAMES.get(name) or name.replace("beta-", "beta = ")


# ---- the table ---------------------------------------------------------------------------------------------------------


def rows(results):
    settings, found = results["settings"], by_name(results)
    runs, seen = {name: found[name] for name in settings["runs"]}, found["beta-1"][0]["images_seen"]
    network, lines = "{} x {} hidden units".format(settings["network"]["layers"], settings["network"]["hidden"]), []
    for name, several in found.items():
        what = f"{title_of(name)}: ".replace("\n", " ") + " / ".join(SCORES.values())
        if name == "beta-1":
            what += f", mean and sd of {len(several)} seeds ({network}, {seen:,} images each)"
        lines.append((what, "", " / ".join(mean_and_sd([each["scores"][score] for each in several]) for score in SCORES)))
    if {"beta-1", "beta-4"} <= set(runs):
        lines.append(("scores that are higher with beta = 4 than with beta = 1, on average; by how much, with the standard "
                      "error", "", compared(runs["beta-4"], runs["beta-1"])))
    for name, several in runs.items():
        used = np.mean([sum(nats > ACTIVE for nats in each["kl_per_latent"]) for each in several])
        lines.append((f"{title_of(name)}: bound / KL in nats, and latents with more than {ACTIVE} nats", "",
                      f"{np.mean([each['elbo'] for each in several]):.1f} / "
                      f"{np.mean([sum(each['kl_per_latent']) for each in several]):.1f}, {used:.1f}"))
    return lines


def mean_and_sd(values) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def compared(more, less) -> str:
    """How many scores are higher on average, and by how much."""
    words, higher = [], 0
    for score in SCORES:
        a, b = ([each["scores"][score] for each in several] for several in (more, less))
        higher += np.mean(a) > np.mean(b)
        error = np.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
        words.append(f"{np.mean(a) - np.mean(b):+.3f} ± {error:.3f}")
    return f"{higher} of {len(SCORES)}: " + " / ".join(words)
