"""How the paper trains, sections 5 and C: Adagrad, minibatches of 100, a prior on the weights, the step size picked early.

    model, rows, steps = train_as_the_paper("vae", config, images, samples=10_000_000)

All figures of the paper use it: `reproduce.py fig2-mnist` and those that follow. What the paper leaves open is chosen here:
N(0, 0.01) is read as a standard deviation of 0.01, for weights and biases, and "the first few iterations" on which the
step size is picked are the first `samples` images.
"""

import math

import numpy as np

from common.config import InputError, VAEConfig, parameter_shapes
from paper.images import Images
from paper.plan import Plan
from paper.train_paper import MODELS, train

STEP_SIZES = (0.01, 0.02, 0.1)          # Adagrad's global step size
INITIAL_SD = 0.1                        # of every weight and bias: variance 0.01


def initial_params(config: VAEConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights and biases drawn from N(0, INITIAL_SD^2), by name."""
    return {name: (INITIAL_SD * rng.standard_normal(shape)).astype(np.float32)
            for name, shape in parameter_shapes(config).items()}


def begin(kind: str, config: VAEConfig, images: Images, seed: int = 0):
    """The model called `kind`, one of train_paper.MODELS, where the images are, as the paper draws it."""
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
                   progress=lambda share: None):
    """The step size with the best training bound over the last epoch of the first `samples` images, and {step size:
    bound}, None where training diverged. Wake-sleep, which has no single objective, is judged by the bound too."""
    bounds = {}
    for i, lr in enumerate(STEP_SIZES):
        trial = plan(images, samples, lr, seed, evaluate_every=10**9, matmul=matmul)
        try:
            bounds[lr] = train(begin(kind, config, images, seed), images, trial)[-1]["train"]["elbo"]
        except InputError:                                               # the loss was no longer finite
            bounds[lr] = None
        progress((i + 1) / len(STEP_SIZES))
    seen = {lr: bound for lr, bound in bounds.items() if bound is not None}
    if not seen:
        raise InputError(f"{kind} diverges with each of the step sizes {STEP_SIZES}: look at the data")
    return max(seen, key=seen.get), bounds


def train_as_the_paper(kind: str, config: VAEConfig, images: Images, samples: int, pick_samples: int = 120_000,
                       seed: int = 0, evaluate_every: int = 1, matmul: str = "highest", checkpoint=None,
                       progress=lambda share: None):
    """Picks the step size and trains until `samples` images were seen.

    checkpoint, matmul, evaluate_every   as for train_paper.train; the picking, which is short, is done again after a stop
    progress(share)                      told which share of it all is done, 0 to 1
    Returns the model, the rows of train, and {"lr": the step size, "tried": {step size: bound}}.
    """
    picking = 3 * pick_samples / (3 * pick_samples + samples)            # its share of the time
    lr, tried = pick_step_size(kind, config, images, pick_samples, seed, matmul, lambda share: progress(picking * share))
    model, how = begin(kind, config, images, seed), plan(images, samples, lr, seed, evaluate_every, matmul)
    rows = train(model, images, how, checkpoint,
                 lambda row: progress(picking + (1 - picking) * row["epoch"] / how.epochs))
    return model, rows, {"lr": lr, "tried": {str(step): bound for step, bound in tried.items()}}
