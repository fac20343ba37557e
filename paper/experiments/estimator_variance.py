"""Variance of the estimators A and B of the bound (paper, eq. 6 and 7), value and gradient, over training and draws.

Both have the bound for their mean. The paper adds that B, with the KL divergence in closed form, "typically has less
variance". Before training it has: to B's noise, that of log p(x|z), A adds the noise of log p(z) - log q(z|x).

Later the two noises cancel in A: where q(z|x) is the posterior p(z|x), log p(x, z) - log q(z|x) = log p(x) whatever z is,
while log p(x|z) goes on varying with z. So A's value has the lower variance as soon as q comes near the posterior. It would
be twice the gap log p(x) - bound = KL(q(z|x) || p(z|x)), were log w = log p(x, z) - log q(z|x) normal, since
log E[w] - E[log w] is then half the variance of log w.

The gradient, which is what training needs, is another matter. In the decoder's weights the two have the very same one:
log p(z) - log q(z|x) holds none of them. In the encoder's, A keeps the score, d log q(z|x) at fixed z, zero on average and
noisy, and B stays ahead. Without it, by the path through z alone (Roeder et al. 2017, "sticking the landing"), A's gradient
has the lowest variance of all, soon after its value has.
"""

from functools import partial

import torch
from matplotlib.ticker import LogLocator, NullLocator

from common import figures
from common.config import InputError, VAEConfig
from common.data import EVAL_SEED
from paper.estimators import estimator_a, estimator_b, log_p_by_importance_sampling, log_weights
from paper.images import Images
from paper.parts import Part
from paper.resume import keep, restore
from paper.train_paper import Plan, build, make_optimizer

MEASURE = {"images": 100, "draws": 500, "averaged": [1, 2, 5, 10, 50], "samples": 1000}
MNIST = {"data": "mnist", "hidden": 500, "lr": 1e-3, "steps": [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000]}
DIGITS = {"data": "digits", "hidden": 50, "lr": 1e-2, "steps": [0, 1, 3, 10, 30, 100, 300]}

PRESETS = {
    "quick": {
        "measure": {"images": 50, "draws": 60, "averaged": [1, 2, 5, 10], "samples": 100},
        "runs": {"latent-2": DIGITS | {"latent": 2}},
    },
    "cpu": {
        "measure": MEASURE,
        "runs": {f"latent-{latent}": MNIST | {"latent": latent} for latent in (2, 20)},
    },
    "gpu": {
        "measure": MEASURE | {"draws": 2000, "samples": 5000},
        "runs": {f"latent-{latent}": MNIST | {"latent": latent, "steps": [*MNIST["steps"], 30_000, 100_000]}
                 for latent in (2, 20)},
    },
}


def estimator_a_by_path(model, x, eps):
    """Estimator A without the score in its gradient: the same value. x (B, D), eps (L, B, J) -> (B,)."""
    return log_weights(model, x, eps, path_only=True).mean(dim=0)


ESTIMATORS = {"A": estimator_a, "B": estimator_b, "A by path": estimator_a_by_path}


def parts(settings):
    return {key: Part(train_and_measure, run | settings["measure"]) for key, run in settings["runs"].items()}


# ---- what is measured --------------------------------------------------------------------------------------------------


class Spread:
    """The variance of a mean of L draws of a random vector, summed over its entries, for each L of `averaged`.

    The draws are added one by one, and none is kept: each L means consecutive draws in groups of its own.
    """

    def __init__(self, averaged):
        self.averaged, self.count = averaged, 0
        self.groups, self.squares = {}, dict.fromkeys(averaged, 0.0)

    def add(self, draw):
        if not self.count:
            # a variance does not ask where zero is, but rounding does
            self.origin, self.total = draw, torch.zeros_like(draw)
            self.groups = {size: torch.zeros_like(draw) for size in self.averaged}
        self.count += 1
        draw = draw - self.origin
        self.total += draw
        for size, group in self.groups.items():
            group += draw
            if self.count % size == 0:
                self.squares[size] += float((group / size).square().sum())
                group.zero_()

    def variances(self) -> list[float]:
        """One for each L, unbiased. Raises InputError unless every L divides the number of draws, and is less."""
        found, mean_square = [], float((self.total / self.count).square().sum())
        for size in self.averaged:
            groups, rest = divmod(self.count, size)
            if rest or groups < 2:
                raise InputError(f"{self.count} draws do not make groups of {size}: give a multiple of it")
            found.append((self.squares[size] - groups * mean_square) / (groups - 1))
        return found

    def mean(self):
        return self.origin + self.total / self.count


def value_and_gradients(model, estimator, x, eps):
    """One estimate for every image (B,), and the gradient of their mean as two vectors, the encoder's and the decoder's."""
    value = estimator(model, x, eps)                                     # (B,)
    gradients = torch.autograd.grad(value.mean(), [*model.encoder.parameters(), *model.decoder.parameters()])
    gradients = [gradient.flatten() for gradient in gradients]
    encoder = len(list(model.encoder.parameters()))
    return value.detach(), torch.cat(gradients[:encoder]), torch.cat(gradients[encoder:])


def measure(model, x, draws, averaged, samples, seed=EVAL_SEED, progress=lambda share: None):
    """Variances over noise at fixed weights and images x (B, D); both estimators see the same noise.

    value       mean over the images of the variance of one image's estimate, nats^2, by estimator, for each L of `averaged`
    encoder, decoder    variance of the gradient of the mean over the images, summed over the weights, likewise
    difference  mean of A - B over images and draws, and its standard error, nats
    gradient_difference     length of (mean gradient of A - that of B), the encoder's, over what chance makes of it (rms)
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    kinds = ("value", "encoder", "decoder")
    spreads = {kind: {name: Spread(averaged) for name in ESTIMATORS} for kind in kinds}
    differences = {kind: Spread([1]) for kind in ("value", "encoder")}   # A - B; the decoder's is zero
    for draw in range(draws):
        eps = torch.randn(1, len(x), model.config.latent, generator=generator, device=x.device, dtype=x.dtype)
        seen = {name: dict(zip(kinds, value_and_gradients(model, estimator, x, eps), strict=True))
                for name, estimator in ESTIMATORS.items()}
        for kind in kinds:
            for name in ESTIMATORS:
                spreads[kind][name].add(seen[name][kind])
        differences["value"].add((seen["A"]["value"] - seen["B"]["value"]).mean())
        differences["encoder"].add(seen["A"]["encoder"] - seen["B"]["encoder"])
        progress((draw + 1) / draws)
    found = {kind: {name: spread.variances() for name, spread in spreads[kind].items()} for kind in kinds}
    found["value"] = {name: [variance / len(x) for variance in variances] for name, variances in found["value"].items()}
    bound = float(spreads["value"]["B"].mean().mean())
    log_p = log_p_by_importance_sampling(model, x, samples, generator)
    chance = [(spread.variances()[0] / draws) ** 0.5 for spread in differences.values()]
    return found | {
        "bound": bound, "gap": float(log_p.mean()) - bound,
        "difference": {"mean": float(differences["value"].mean()), "standard_error": chance[0]},
        "gradient_difference": float(differences["encoder"].mean().norm()) / chance[1],
    }


def train_and_measure(work, data, hidden, latent, lr, steps, images, draws, averaged, samples):
    """Trains a model with estimator B, L = 1, Adam, minibatches of 100, and measures at the given steps."""
    dataset = work.dataset(data)
    pictures, plan = Images.of(dataset, device=work.device), Plan(lr=lr)
    model = build("vae", VAEConfig(image_shape=dataset.image_shape, hidden=hidden, latent=latent), pictures)
    optimizer, generator = make_optimizer(model, plan), torch.Generator(work.device).manual_seed(plan.seed)
    found = restore(work.checkpoint, plan, model, optimizer, generator)[0] if work.checkpoint.exists() else []
    cost = 4 * draws                                                     # of a measurement, in training steps

    for step in steps[len(found):]:
        def progress(steps_done, share=0.0):
            work.progress((steps_done + cost * (len(found) + share)) / (steps[-1] + cost * len(steps)))

        for done in range(found[-1]["step"] if found else 0, step):
            chosen = torch.randint(len(pictures.x_train), (plan.batch_size,), generator=generator, device=work.device)
            loss, _ = model.training_loss(*pictures.minibatch(chosen, generator), generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress(done + 1)
        measured = measure(model, pictures.x_test[:images], draws, averaged, samples, EVAL_SEED + step,
                           partial(progress, step))
        found.append({"step": step} | measured)
        keep(work.checkpoint, plan, model, optimizer, generator, found, None)
    return {"rows": found, "images": images}


# ---- the figure --------------------------------------------------------------------------------------------------------

COLORS = {"A": figures.BLUE, "B": figures.ORANGE, "A by path": figures.GREEN}
NAMES = {"A": "estimator A (eq. 6)", "B": "estimator B (eq. 7)", "A by path": "A, gradient by the path through z alone"}
TITLE = ("The same mean, other variances: A's value has less than B's once q(z|x) is\n"
         "near the posterior, its gradient only without the score, which is zero on average")
WIDTH, HEIGHT, STRIP, GAP = 390, 290, 120, 55                            # pixels


def draw(path, results):
    """A column for each model: variances over training and the difference of the means; the last column: over L."""
    figure, averaged = figures.new_figure(), results["settings"]["measure"]["averaged"]
    bottoms = {"value": 0, "gradient": -HEIGHT - GAP, "means": -HEIGHT - STRIP - 2 * GAP}
    for column, (key, part) in enumerate(results["parts"].items()):
        left, rows = column * (WIDTH + GAP), part["result"]["rows"]
        steps = [row["step"] for row in rows]
        value = figures.chart(figure, left, bottoms["value"], WIDTH, HEIGHT, f"Value, {name_of(key)}")
        for name in ("A", "B"):
            value.plot(steps, [row["value"][name][0] for row in rows], "o-", color=COLORS[name], label=NAMES[name])
        value.plot([], [], "o-", color=COLORS["A by path"], label=NAMES["A by path"])
        value.plot(steps, [2 * row["gap"] for row in rows], ":", color="black",
                   label="value: twice the gap log p(x) \N{MINUS SIGN} bound")

        gradient = figures.chart(figure, left, bottoms["gradient"], WIDTH, HEIGHT, f"Encoder's gradient, {name_of(key)}")
        for name in ESTIMATORS:
            gradient.plot(steps, [row["encoder"][name][0] for row in rows], "o-", color=COLORS[name])
        gradient.plot(steps, [row["decoder"]["B"][0] for row in rows], "s--", color=figures.GRAY)
        value.plot([], [], "s--", color=figures.GRAY, label="gradient: decoder's weights, A and B alike")

        means = figures.chart(figure, left, bottoms["means"], WIDTH, STRIP, "The means are equal")
        means.axhspan(-2, 2, color=figures.GRAY, alpha=0.25, linewidth=0)
        differences = [row["difference"] for row in rows]
        means.plot(steps, [each["mean"] / each["standard_error"] for each in differences], "ko", markersize=4)
        means.set(xlabel="training step", ylim=(-4, 4), yticks=(-2, 0, 2))
        if column == 0:
            value.set_ylabel("variance of one image's\nestimate, L = 1 (nats\u00b2)")
            gradient.set_ylabel("variance summed over the weights,\nof one minibatch's gradient, L = 1")
            means.set_ylabel("A \N{MINUS SIGN} B, in its\nstandard errors")
        for axes in (value, gradient, means):
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(-0.15, 1.4 * steps[-1])
            axes.set_xticks(decades := [0] + [10**i for i in range(6) if 10**i <= steps[-1]],
                            [f"{step:,}" for step in decades])
            axes.minorticks_off()
            axes.tick_params(labelbottom=axes is means)

    left, last = left + WIDTH + GAP, rows[-1]
    for name, kind, shown in (("value", "value", ("A", "B")), ("gradient", "encoder", tuple(ESTIMATORS))):
        axes = figures.chart(figure, left, bottoms[name], WIDTH, HEIGHT,
                             f"{name_of(key)}, step {last['step']:,}: mean of L draws")
        for name in shown:
            axes.plot(averaged, last[kind][name], "o", color=COLORS[name])
            axes.plot(averaged, [last[kind][name][0] / size for size in averaged], "-", color=COLORS[name], linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(averaged, averaged)
        axes.minorticks_off()
        axes.tick_params(labelbottom=kind == "encoder")
    axes.set_xlabel("draws L for each image (lines: variance of one draw / L)")
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        if "means" not in axes.get_title(loc="left"):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="upper left", frameon=False, fontsize=10,
                  bbox_to_anchor=((left - 10) / figures.PANEL, (bottoms["means"] + STRIP) / figures.PANEL))
    figure.text(0, (HEIGHT + 50) / figures.PANEL, TITLE, fontsize=14)
    figures.save(figure, path)


def name_of(key) -> str:
    return f"{key.removeprefix('latent-')} latents"


def rows(results):
    found, claim = [], "B typically lower"
    for key, part in results["parts"].items():
        measured = part["result"]["rows"]
        for row in (measured[0], measured[-1]):
            when = f"{name_of(key)}, step {row['step']:,}, L = 1: variance of"
            found.append((f"{when} one image's estimate, A / B, nats\u00b2", claim,
                          f"{row['value']['A'][0]:.2f} / {row['value']['B'][0]:.2f}"))
            a, b, by_path = (row["encoder"][name][0] for name in ESTIMATORS)
            found.append((f"{when} the encoder's gradient, A / B, and A without its score, in B's", claim,
                          f"{a / b:.2f} / 1, {by_path / b:.2f}"))
        differences = [row["difference"] for row in measured]
        mean = sum(each["mean"] for each in differences) / len(differences)
        error = sum(each["standard_error"] ** 2 for each in differences) ** 0.5 / len(differences)
        found.append((f"{name_of(key)}, all steps: mean of A \N{MINUS SIGN} B, nats", "equal", f"{mean:.4f} ± {error:.4f}"))
    return found
