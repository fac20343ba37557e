"""Full variational Bayes (appendix F) beside AEVB with and without a prior on the weights, on small training sets.

The paper derives it and shows no experiment, so the choice is ours. MNIST, N training images, binarized once: log p(X) is
that of these very images. The same network, Adam and one-cycle steps for all; every model sees the same number of images,
so that a small set is seen often enough to be learnt by heart.

aevb      weights are numbers, without a prior
map       weights are numbers with a prior N(0, I), as in section 5: weight / N is added to the gradient, in both networks
full-vb   the decoder's weights have the same prior and a posterior (paper/full_vb.py); the encoder's are numbers, no prior

Three things are to be seen, and only the first is what one hopes for.

1. AEVB's training bound rises and its test bound falls, the deeper the fewer images; MAP slows that down. Full VB keeps the
   two close, and where AEVB goes on falling, it settles. Its bound on log p(X) / N, which no test image enters, comes out
   near its test bound (lower with few images): a fair forecast, given in advance.
2. It pays by underfitting. The prior N(0, I) is wide and each weight's posterior stands for itself: with few images it is
   cheaper to leave a weight at the prior, as noise, and to silence the hidden unit that feeds it. Stopped in time, AEVB has
   a better test bound. The weights' KL per image falls as N grows, and so does the difference.
3. Much of what looks like overfitting is the encoder's, which no posterior over the decoder's weights cures. To tell, the
   posterior q(z|x) of each test image is fitted anew, from where the encoder put it (`fitted`): what is still lost is the
   decoder's.

The test bound of full VB is E_q(theta)[ELBO(x; theta)], which bounds the log of its posterior predictive. At the mean of
q(theta) it is a single VAE with a bound of its own; on test images that is often the better one, for it has no noise.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED
from paper.full_vb import FullVB, full_bound
from paper.images import Images
from paper.parts import Part
from paper.plan import Plan
from paper.train_paper import build, train
from paper.vae_paper import VAE

METHODS = {"aevb": "AEVB, no prior", "map": "AEVB, MAP", "full-vb": "Full VB"}
COLORS = {"aevb": figures.BLUE, "map": figures.ORANGE, "full-vb": figures.GREEN}
EVALUATIONS = 100                       # on the way, on `curve_images` test images
FIT_LR = 0.05                           # Adam's, for the means and log-variances of single images
ONE_CYCLE = {"batch_size": 100, "optimizer": "adam", "schedule": "one-cycle", "lr": 1e-2}

PRESETS = {
    "quick": {
        "data": "digits", "sizes": [100, 1000], "network": {"hidden": 30, "latent": 5},
        "plan": ONE_CYCLE, "samples": 30_000,
        "measure": {"draws": 10, "curve_images": 179, "fit_images": 50, "fit_steps": 100},
    },
    "cpu": {
        "data": "mnist", "sizes": [100, 300, 1000, 3000, 10_000], "network": {"hidden": 100, "latent": 10},
        "plan": ONE_CYCLE, "samples": 1_500_000,
        "measure": {"draws": 10, "curve_images": 2000, "fit_images": 1000, "fit_steps": 300},
    },
    "gpu": {
        "data": "mnist", "sizes": [100, 300, 1000, 3000, 10_000, 60_000], "network": {"hidden": 200, "latent": 20},
        "plan": ONE_CYCLE, "samples": 10_000_000,
        "measure": {"draws": 100, "curve_images": 10_000, "fit_images": 10_000, "fit_steps": 1000},
    },
}


def parts(settings):
    """One part for each model. Full VB draws and updates two numbers for a weight: twice the time."""
    shared = {name: settings[name] for name in ("data", "network", "plan", "samples", "measure")}
    return {f"{method}-{size}": Part(train_and_measure, {"method": method, "size": size} | shared,
                                     2 if method == "full-vb" else 1)
            for size in settings["sizes"] for method in METHODS}


# ---- what is measured --------------------------------------------------------------------------------------------------
# N images, D pixels, J latents; nats per image


def subset(data, size: int):
    """The data set with `size` random training images: the smaller sets are parts of the larger ones."""
    chosen = np.random.default_rng(EVAL_SEED).permutation(len(data.x_train))[:size]
    return replace(data, x_train=data.x_train[chosen], y_train=data.y_train[chosen], x_valid=None, y_valid=None)


def train_and_measure(work, method, size, data, network, plan, samples, measure):
    """Trains one model on `size` images until it saw `samples`, and measures its bounds."""
    dataset = subset(work.dataset(data), size)
    images = Images.of(dataset, "static", work.device)
    some = np.random.default_rng(EVAL_SEED).permutation(len(images.x_test))     # MNIST's test set has its easy half first
    images.x_test, images.y_test = images.x_test[some], None
    config, epochs = VAEConfig(image_shape=dataset.image_shape, **network), -(-samples // size)
    model = build("full-vb" if method == "full-vb" else "vae", config, images)       # the same (mean) weights for all
    how = Plan(epochs=epochs, evaluate_every=max(1, epochs // EVALUATIONS), weight_prior=method == "map", **plan)
    rows = train(model, replace(images, x_test=images.x_test[:measure["curve_images"]]), how, work.checkpoint,
                 lambda row: work.progress(0.85 * row["epoch"] / epochs))
    tests = [row for row in rows if "test" in row]
    return measured(model, images, measure["draws"], measure["fit_images"], measure["fit_steps"]) | {
        "samples": [row["epoch"] * size for row in tests], "curve": [row["test"]["elbo"] for row in tests],
        "training_seconds": sum(row["seconds"] for row in rows),
    }


def measured(model, images: Images, draws: int, fit_images: int, fit_steps: int) -> dict:
    """The bounds of a trained model. Means over so many draws of noise, and for full VB of weights."""
    generator = torch.Generator(images.x_train.device).manual_seed(EVAL_SEED)
    found = {
        "test": mean_elbo(model, images.x_test, draws, generator), "test_images": len(images.x_test),
        "train": mean_elbo(model, images.x_train, draws, generator),
        "fitted": fitted(model, images.x_test[:fit_images], fit_steps, draws, generator),
    }
    if isinstance(model, FullVB):
        mean_weights = VAE(model.config, model.mean_params()).to(images.x_train.device)
        found |= {
            "full_bound": float(full_bound(model, images.x_train, draws, generator)),
            "weight_kl": float(model.weight_kl().detach()) / model.training_images,
            "test_at_mean_weights": mean_elbo(mean_weights, images.x_test, draws, generator),
            "fitted_at_mean_weights": fitted(mean_weights, images.x_test[:fit_images], fit_steps, draws, generator),
        }
    return found


@torch.no_grad()
def mean_elbo(model, x, draws: int, generator) -> float:
    """The mean ELBO of the images x (N, D) over so many draws; full VB draws weights for each thousand of them."""
    total = 0.0
    for some in x.split(1000):
        total += sum(float(model.training_loss(some, None, generator)[1]["elbo"]) for _ in range(draws)) * len(some)
    return total / draws / len(x)


class Table(nn.Module):
    """In the place of an encoder: a mean and a log-variance, (N, J) each, for each image, whatever it looks like."""

    def __init__(self, mu, logvar):
        super().__init__()
        self.mu, self.logvar = nn.Parameter(mu.detach().clone()), nn.Parameter(logvar.detach().clone())

    def forward(self, x):
        return self.mu, self.logvar


def fitted(model, x, steps: int, draws: int, generator) -> float:
    """The mean ELBO of the images x (N, D) with a posterior fitted to each, the decoder as it is."""
    table, model = Table(*model.encode(x)), copy.deepcopy(model).requires_grad_(False)
    model.encoder = table
    optimizer = torch.optim.Adam(table.parameters(), FIT_LR)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = FIT_LR * (1 - step / steps)    # to zero: the noise of single draws averages out
        optimizer.zero_grad()
        model.training_loss(x, None, generator)[0].backward()
        optimizer.step()
    with torch.no_grad():
        return sum(float(model.training_loss(x, None, generator)[1]["elbo"]) for _ in range(draws)) / draws


# ---- the figure --------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, GAP = 420, 440, 90                       # of a panel, in pixels
PANELS = ("Bounds after training", "Test bound while training", "Test bound, q(z|x) fitted to each image")
TITLE = "Bayesian weights, appendix F: AEVB and full variational Bayes on small training sets"


def draw(path, results):
    """Bounds against N; the test bound while training, for two N; the test bound without the encoder's part."""
    figure, sizes = figures.new_figure(), results["settings"]["sizes"]
    found = {key: part["result"] for key, part in results["parts"].items()}

    def against_size(axes, method, name, style, label):
        axes.plot(sizes, [found[f"{method}-{size}"][name] for size in sizes], style, color=COLORS[method], label=label,
                  markersize=5)

    left, middle, right = (figures.chart(figure, column * (WIDTH + GAP), 0, WIDTH, HEIGHT, title)
                           for column, title in enumerate(PANELS))
    for method, words in METHODS.items():
        against_size(left, method, "train", "o--", f"{words}: train")
        against_size(left, method, "test", "o-", f"{words}: test")
        for size, style in zip(shown(sizes), ("-", "--"), strict=True):
            result = found[f"{method}-{size}"]
            middle.plot(result["samples"], result["curve"], style, color=COLORS[method], label=f"{words}, N = {size:,}")
        against_size(right, method, "fitted", "o-", words)
    against_size(left, "full-vb", "full_bound", "o:", "Full VB: full bound / N")
    against_size(right, "full-vb", "fitted_at_mean_weights", "o:", "Full VB, at the mean weights")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="training images N")
    middle.set(xscale="log", xlabel="training samples seen")
    left.set_ylabel("nats per image")
    for axes, corner in ((left, "lower right"), (middle, "best"), (right, "lower right")):
        axes.grid(alpha=0.3)
        axes.legend(loc=corner, framealpha=0.8, edgecolor="none", fontsize=9)
    figure.text(0, (HEIGHT + 45) / figures.PANEL, TITLE, fontsize=14)
    figures.save(figure, path)


def shown(sizes):
    """The two N whose curves are drawn: the smallest, and the middle one."""
    return sizes[0], sizes[len(sizes) // 2]


# ---- what the results say ----------------------------------------------------------------------------------------------


def rows(results):
    data, found = {"mnist": "MNIST", "digits": "Digits"}[results["settings"]["data"]], []
    measure = results["settings"]["measure"]
    ours = {key: part["result"] for key, part in results["parts"].items()}
    for size in results["settings"]["sizes"]:
        each = [ours[f"{method}-{size}"] for method in METHODS]
        what = f"{data}, N = {size:,}, AEVB / MAP / full VB, nats per image"
        found += [
            (f"{what}: test bound, {each[0]['test_images']:,} images", "", joined(each, "test")),
            (f"{what}: training bound", "", joined(each, "train")),
            (f"{what}: best test bound on the way, {measure['curve_images']:,} images", "",
             " / ".join(f"{max(result['curve']):.1f}" for result in each)),
            (f"{what}: test bound, q(z|x) fitted to each of {measure['fit_images']:,} images", "", joined(each, "fitted")),
            (f"{data}, N = {size:,}, full VB, nats per image: bound on log p(X) / N / KL of the weights in it / "
             "test bound at the mean weights", "", " / ".join(f"{each[-1][name]:.1f}" for name in
                                                   ("full_bound", "weight_kl", "test_at_mean_weights"))),
        ]
    return found


def joined(results, name) -> str:
    return " / ".join(f"{result[name]:.1f}" for result in results)
