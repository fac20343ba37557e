"""How the paper trains, sections 5 and C: Adagrad, minibatches of 100, a prior on the weights, the step size picked early.

    model, rows, picked = train_as_the_paper(work, "vae", config, images, samples=10_000_000)

All figures of the paper use it: `reproduce.py fig2-mnist` and those that follow. What the paper leaves open is chosen here.
Its N(0, 0.01) for the first weights is read as it writes every other Gaussian, with 0.01 as variance; with 0.01 as standard
deviation, as in most re-implementations, wake-sleep never gets off the ground on Frey Face. Biases are drawn likewise. The
"first few iterations" on which the step size is picked are the first `pick_samples` images. The prior N(0, I) is on the
weights of both networks.
"""

import math

import numpy as np

from common.config import InputError, VAEConfig, parameter_shapes
from paper.images import Images
from paper.parts import Work
from paper.plan import Plan
from paper.train_paper import MODELS, train

STEP_SIZES = (0.01, 0.02, 0.1)          # Adagrad's global step size
INITIAL_SD = 0.1                        # of every weight and bias: variance 0.01


def initial_params(config: VAEConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights and biases drawn from N(0, INITIAL_SD^2), by name."""
    return {name: (INITIAL_SD * rng.standard_normal(shape)).astype(np.float32)
            for name, shape in parameter_shapes(config).items()}


def begin(kind: str, config: VAEConfig, images: Images, seed: int = 0):
    """The model called `kind`, "vae" or "wake-sleep", where the images are, as the paper draws it."""
    x = images.x_train
    return MODELS[kind](config, initial_params(config, np.random.default_rng(seed))).to(x.device, x.dtype)


def plan(images: Images, samples: int, lr: float, seed: int = 0, evaluate_every: int = 1, matmul: str = "highest") -> Plan:
    """Adagrad on minibatches of 100 until `samples` images were seen, to the next whole epoch.

    The prior N(0, I) on the weights adds weight / N to the gradient of the mean loss, which is what weight_decay does.
    """
    count = len(images.x_train)
    return Plan(epochs=math.ceil(samples / count), batch_size=100, optimizer="adagrad", lr=lr, weight_decay=1 / count,
                evaluate_every=evaluate_every, seed=seed, matmul=matmul)


def pick_step_size(kind: str, config: VAEConfig, images: Images, samples: int, seed: int = 0, matmul: str = "highest",
                   progress=lambda share: None) -> dict:
    """{"lr": the step size with the best training bound over the last epoch of the first `samples` images, "tried": {step
    size: bound}}. Wake-sleep, which has no single objective, is judged by the bound too. progress(share): 0 to 1."""
    bounds = {}
    for i, lr in enumerate(STEP_SIZES):
        trial = plan(images, samples, lr, seed, evaluate_every=10**9, matmul=matmul)
        try:
            rows = train(begin(kind, config, images, seed), images, trial, report=lambda row, i=i, epochs=trial.epochs:
                         progress((i + row["epoch"] / epochs) / len(STEP_SIZES)))
            bounds[lr] = rows[-1]["train"]["elbo"]
        except InputError:                                               # the loss was no longer finite
            bounds[lr] = None
    return best(bounds)


def best(values: dict[float, float | None]) -> dict:
    """{"lr": the step size with the highest value, "tried": all of them, for JSON}. None is a run that diverged; raises
    InputError where all did."""
    seen = {lr: value for lr, value in values.items() if value is not None}
    if not seen:
        raise InputError(f"training diverges with each of the step sizes {', '.join(map(str, values))}: look at the data")
    return {"lr": max(seen, key=seen.get), "tried": {str(lr): value for lr, value in values.items()}}


def train_as_the_paper(work: Work, kind: str, config: VAEConfig, images: Images, samples: int, pick_samples: int = 120_000,
                       seed: int = 0, evaluate_every: int = 1, matmul: str = "highest"):
    """Picks the step size and trains until `samples` images were seen. evaluate_every, matmul: as in Plan.

    The pick is kept in work.notes and the training in work.checkpoint, so that a part that was stopped goes on.
    Returns the model, the rows of train, and what was picked.
    """
    picking = len(STEP_SIZES) * pick_samples                             # its share of the time
    picking /= picking + samples
    picked = work.recall()
    if not picked:
        picked = pick_step_size(kind, config, images, pick_samples, seed, matmul,
                                lambda share: work.progress(picking * share))
        work.note(picked)
    model, how = begin(kind, config, images, seed), plan(images, samples, picked["lr"], seed, evaluate_every, matmul)
    rows = train(model, images, how, work.checkpoint,
                 lambda row: work.progress(picking + (1 - picking) * row["epoch"] / how.epochs))
    return model, rows, picked
