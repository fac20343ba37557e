"""Figure 3: marginal likelihood against the training samples evaluated, for AEVB, wake-sleep and Monte Carlo EM.

Networks of 100 hidden units, 3 latents, trained on the first 1,000 and the first 50,000 images of MNIST. Monte Carlo EM
keeps a chain for each training image, which has to move at every visit: it is for small sets only. At some points of each
curve log p(x) of 1,000 training and 1,000 test images is estimated by appendix D (paper/marginal_likelihood.py) and, from
the same posterior draws, by importance sampling, which errs to the other side. Neither needs an encoder: they judge the
decoder, which is all that the three algorithms have in common.

A sample counts each time that a gradient is evaluated at it: once in a step of AEVB or wake-sleep, and in one of Monte
Carlo EM once where the chain stands, once for each leapfrog step and once for each weight update.
"""

import math
import time
from dataclasses import replace

import torch

from common import figures
from common.config import InputError, VAEConfig
from common.data import EVAL_SEED
from paper.estimators import log_p_by_importance_sampling, log_p_by_quadrature
from paper.images import Images
from paper.marginal_likelihood import log_joint_of, log_p_both_ways
from paper.monte_carlo_em import MonteCarloEM
from paper.paper_settings import STEP_SIZES, begin, best, pick_step_size, plan
from paper.parts import Part
from paper.resume import keep, restore
from paper.train_paper import arithmetic, make_optimizer, train

NAMES = {"vae": "AEVB", "wake-sleep": "Wake-sleep", "mcem": "Monte Carlo EM"}
COLORS = {"vae": figures.BLUE, "wake-sleep": figures.ORANGE, "mcem": figures.GREEN}

NETWORK = {"data": "mnist", "hidden": 100, "pick_samples": 100_000, "matmul": "medium", "measured": 1000,
           "importance_samples": 5000, "block": 200}
MILLION = 1_000_000
PRESETS = {
    "quick": {
        "network": NETWORK | {"data": "digits", "hidden": 20, "pick_samples": 4000, "matmul": "highest", "measured": 40,
                              "importance_samples": 200},
        "latent": 3, "small": 200, "large": 1400, "training_samples": 24_000, "points": 3,
    },
    "cpu": {"network": NETWORK, "latent": 3, "small": 1000, "large": 50_000, "training_samples": 12 * MILLION,
            "points": 8},
    "gpu": {"network": NETWORK | {"matmul": "high", "block": 1000}, "latent": 3, "small": 1000, "large": 50_000,
            "training_samples": 60 * MILLION, "points": 25},
}


def parts(settings):
    """One part for each curve, and one for the check with 2 latents, where quadrature gives log p(x) itself."""
    runs = {"vae-small": 2, "wake-sleep-small": 3, "mcem-small": 3, "vae-large": 2, "wake-sleep-large": 3}
    shared = settings["network"] | {"points": points(settings["training_samples"], settings["points"])}
    found = {}
    for key, cost in runs.items():
        kind, _, size = key.rpartition("-")
        found[key] = Part(train_and_measure, shared | {"kind": kind, "count": settings[size], "latent": settings["latent"]},
                          cost)
    last = shared["points"][-1:]
    found["check"] = Part(train_and_measure, shared | {"kind": "vae", "count": settings["large"], "latent": 2,
                                                       "points": last}, 1)
    return found


def points(samples: int, count: int) -> list[int]:
    """Where a curve is measured: evenly from 0, as the figure's axis is, and twice more on its first, steep part.

    Raises InputError where there are too few samples for so many points.
    """
    if samples < 100 * count:
        raise InputError(f"--samples {samples}: give at least {100 * count} for a curve of {count} points")
    even = [samples * (i + 1) // (count - 2) for i in range(count - 2)]
    return [even[0] // 10, even[0] // 3, *even]


# ---- training up to a point, and on ------------------------------------------------------------------------------------


class ByGradient:
    """AEVB or wake-sleep, one gradient evaluation for each sample."""

    def __init__(self, kind, config, images, lr, matmul, checkpoint):
        self.model, self.images, self.checkpoint = begin(kind, config, images), images, checkpoint
        self.lr, self.matmul = lr, matmul

    def advance(self, samples: int, tell=lambda samples: None):
        """Trains until so many samples were evaluated, to the next whole epoch. -> samples, seconds of training.
        tell(samples evaluated) is called now and then."""
        how, count = plan(self.images, samples, self.lr, evaluate_every=10**9, matmul=self.matmul), len(self.images.x_train)
        rows = train(self.model, self.images, how, self.checkpoint, lambda row: tell(row["epoch"] * count))
        return len(rows) * count, sum(row["seconds"] for row in rows)


class WithChains(torch.nn.Module):
    """Weights and chains under one state_dict, which is what paper/resume.py keeps."""

    def __init__(self, model, em: MonteCarloEM):
        super().__init__()
        self.model = model
        self.register_buffer("z", em.z)
        self.register_buffer("step_size", em.step_size)


class ByMonteCarloEM:
    """Monte Carlo EM, so many gradient evaluations for each sample as it says."""

    def __init__(self, config, images, lr, checkpoint):
        self.model, self.images, self.checkpoint = begin("vae", config, images), images, checkpoint
        x, self.lr, self.rows = images.x_train, lr, []
        self.generator = torch.Generator(x.device).manual_seed(0)
        self.optimizer = make_optimizer(self.model.decoder, plan(images, 1, lr))
        z = torch.randn(len(x), config.latent, generator=self.generator, device=x.device, dtype=x.dtype)
        self.em = MonteCarloEM(log_joint_of(self.model), self.optimizer, z)
        self.kept = WithChains(self.model, self.em)

    def advance(self, samples: int, tell=lambda samples: None):
        how = plan(self.images, -(-samples // self.em.gradients_per_image), self.lr)
        if self.checkpoint is not None and self.checkpoint.exists():
            self.rows, _ = restore(self.checkpoint, how, self.kept, self.optimizer, self.generator)
        count = len(self.images.x_train)
        for _ in range(len(self.rows), how.epochs):
            start, total = time.perf_counter(), 0.0
            with arithmetic("highest"):                                  # bfloat16 is too rough for a Metropolis test
                order = torch.randperm(count, generator=self.generator, device=self.em.z.device)
                for chosen in order.split(how.batch_size):
                    x, _ = self.images.minibatch(chosen, self.generator)
                    terms = self.em.step(x, chosen, self.generator)
                    total += float(terms["log_joint"]) * len(chosen) / count
            self.rows.append({"log_joint": total, "seconds": time.perf_counter() - start})
            tell(len(self.rows) * count * self.em.gradients_per_image)
        if self.checkpoint is not None:
            keep(self.checkpoint, how, self.kept, self.optimizer, self.generator, self.rows, None)
        return len(self.rows) * count * self.em.gradients_per_image, sum(row["seconds"] for row in self.rows)


def pick_for_em(config, images, samples: int, tell=lambda samples: None) -> dict:
    """As pick_step_size, by what the M step raises: the mean log p(x, z) over the last epoch."""
    values = {}
    for lr in STEP_SIZES:
        trial = ByMonteCarloEM(config, images, lr, None)
        try:
            trial.advance(samples, tell)
            values[lr] = trial.rows[-1]["log_joint"] if math.isfinite(trial.rows[-1]["log_joint"]) else None
        except InputError:                                               # log p(x, z) was no longer finite
            values[lr] = None
    return best(values)


# ---- a curve -----------------------------------------------------------------------------------------------------------


def train_and_measure(work, kind, count, latent, points, data, hidden, pick_samples, matmul, measured, importance_samples,
                      block):
    """Trains on the first `count` training images, and at each of the points estimates log p(x) of `measured` training and
    as many test images. What is found so far is noted."""
    dataset = work.dataset(data)
    first = replace(dataset, x_train=dataset.x_train[:count], y_train=dataset.y_train[:count])
    images = Images.of(first, device=work.device)
    config = VAEConfig("mlp", dataset.image_shape, hidden, latent)
    found = work.recall()
    if not found:
        def alive(share):
            work.progress(0.0)

        found = (pick_for_em(config, images, pick_samples, alive) if kind == "mcem" else
                 pick_step_size(kind, config, images, pick_samples, matmul=matmul, progress=alive)) | {"points": []}
        work.note(found)
    trainer = (ByMonteCarloEM(config, images, found["lr"], work.checkpoint) if kind == "mcem" else
               ByGradient(kind, config, images, found["lr"], matmul, work.checkpoint))
    sets = {"train": fixed(images, measured), "test": images.x_test[:measured]}
    for samples in points[len(found["points"]):]:
        seen, seconds = trainer.advance(samples, lambda seen: work.progress(min(1.0, seen / points[-1])))
        found["points"].append({"samples": seen, "training_seconds": seconds}
                               | estimates(trainer.model, sets, importance_samples, block))
        work.note(found)
    trainer.model.save(work.weights)
    return found


def fixed(images, count):
    """The first so many training images (count, D), binarized once."""
    rows = torch.arange(min(count, len(images.x_train)), device=images.x_train.device)
    return images.minibatch(rows, torch.Generator(images.x_train.device).manual_seed(EVAL_SEED))[0]


def estimates(model, sets, samples: int, block: int) -> dict:
    """For each of the sets, {name: x (B, D)}, the mean of log p(x) in nats by appendix D and by importance sampling, and
    with at most 2 latents by quadrature and by importance sampling from the encoder. {name: {"appendix_d": ...}}, and the
    seconds that the first two took."""
    start, x = time.perf_counter(), torch.cat(list(sets.values()))
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)
    found = dict(zip(("appendix_d", "importance_sampling"), log_p_both_ways(
        log_joint_of(model), x, model.config.latent, generator, samples=samples, block=block), strict=True))
    seconds = time.perf_counter() - start
    if model.config.latent <= 2:
        found["quadrature"] = torch.cat([log_p_by_quadrature(model, some, 301, 6.0) for some in x.split(100)])
        found["from_encoder"] = log_p_by_importance_sampling(model, x, samples, generator)
    parted = {how: values.split([len(each) for each in sets.values()]) for how, values in found.items()}
    return {name: {how: float(values[i].mean()) for how, values in parted.items()} for i, name in enumerate(sets)} | {
        "estimating_seconds": seconds}


# ---- the figure --------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, GAP = 460, 400, 90                       # of a panel, in pixels


def draw(path, results):
    """Two panels, as in the paper: training solid, test dashed; lines are appendix D, crosses importance sampling."""
    figure = figures.new_figure()
    for column, size in enumerate(("small", "large")):
        count = results["settings"][size]
        axes = figures.chart(figure, column * (WIDTH + GAP), 0, WIDTH, HEIGHT, f"$N_{{train}}$ = {count:,}")
        lowest = []
        for kind in NAMES:
            if f"{kind}-{size}" not in results["parts"]:
                continue
            found = results["parts"][f"{kind}-{size}"]["result"]["points"]
            samples = [point["samples"] / MILLION for point in found]
            for name, line in (("train", "-"), ("test", "--")):
                values = [point[name]["appendix_d"] for point in found]
                axes.plot(samples, values, line, color=COLORS[kind], label=f"{NAMES[kind]}, {name}")
                axes.plot(samples, [point[name]["importance_sampling"] for point in found], "x", color=COLORS[kind],
                          markersize=5)
                lowest.append(sorted(values)[1 if len(values) > 3 else 0])
        if column == 0:
            axes.plot([], [], "x", color="black", markersize=5, label="importance sampling")
            names = axes.get_legend_handles_labels()                     # Monte Carlo EM is in this panel only
        axes.set(xlabel="training samples evaluated (millions)", xlim=(0, None), ylim=(min(lowest) - 2, None))
        axes.set_ylabel("log p(x) (nats per image)" if column == 0 else "")
        axes.grid(alpha=0.3)
    axes.legend(*names, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)
    hidden, latent = results["settings"]["network"]["hidden"], results["settings"]["latent"]
    figure.text(0, (HEIGHT + 45) / figures.PANEL,
                f"Figure 3: marginal likelihood while training, {hidden} hidden units, {latent} latents", fontsize=14)
    figures.save(figure, path)


# ---- what the results say ----------------------------------------------------------------------------------------------


def rows(results):
    settings, found = results["settings"], []
    network, samples = settings["network"], f"{settings['training_samples']:,}"
    data = {"mnist": "Dynamic MNIST", "digits": "Digits"}[network["data"]]
    curves = {key: part["result"]["points"] for key, part in results["parts"].items()}
    for size in ("small", "large"):
        ends = {kind: curves[f"{kind}-{size}"][-1] for kind in NAMES if f"{kind}-{size}" in curves}
        for name in ("train", "test"):
            found.append((
                f"{data}, {settings[size]:,} training images: log p(x) of {network['measured']:,} {name} images by "
                f"appendix D after {samples} samples, {' / '.join(NAMES[kind] for kind in ends)}, nats",
                "curves only", " / ".join(f"{end[name]['appendix_d']:.1f}" for end in ends.values())))
    apart = max(abs(point[name]["appendix_d"] - point[name]["importance_sampling"])
                for curve in curves.values() for point in curve for name in ("train", "test"))
    ways = ("appendix_d", "importance_sampling", "from_encoder", "quadrature")
    last, check = curves["vae-large"][-1], curves["check"][-1]["test"]
    minutes = last["training_seconds"] / last["samples"] * MILLION / 60
    return [
        *found,
        (f"{data}: appendix D and importance sampling, k = {network['importance_samples']:,}, furthest apart at any point "
         "of any curve, nats", "", f"{apart:.2f}"),
        (f"{data}, 2 latents: log p(x) by appendix D / importance sampling from its draws / from the encoder / "
         "quadrature, nats", "", " / ".join(f"{check[how]:.2f}" for how in ways)),
        (f"{data}, AEVB, {network['hidden']} hidden units: minutes for a million training samples",
         "20 to 40 (figure 2's networks)", f"{minutes:.2f}"),
    ]
