"""Level 1: trains the VAE in NumPy alone. The step rules, the loop and the command line.

    python numpy/train_numpy.py                                   # the embedded digits, 2 latents, under a minute
    python numpy/train_numpy.py --data mnist --latent 20          # needs MNIST, see the README

Prints one line per epoch, in nats per image, and leaves weights, curve and pictures in --out.
"""

import sys

import numpy as np
from networks_numpy import decode_mean, encode
from vae_numpy import likelihood_and_kl, loss_and_grads

from common.cli import Options, run_command
from common.config import InputError
from common.data import EVAL_SEED
from common.run import Run
from common.schedules import kl_weight

# ---- step rules: each changes params in place and keeps what it must remember in `state`, a dict that starts empty -----


def sgd_step(params, grads, state, lr):
    """Gradient descent, eq. 1.27: p <- p - lr * g. As torch.optim.SGD."""
    for p, g in blocks(params, grads):
        p -= lr * g


def adagrad_step(params, grads, state, lr, eps=1e-10):
    """Adagrad (Duchi et al. 2011), the paper's: p <- p - lr * g / sqrt(sum of all g^2 so far), eq. 1.28. As torch's."""
    sums = state.setdefault("sum", zeros_like(params))
    for p, g, s in blocks(params, grads, sums):
        s += g * g
        p -= lr * g / (np.sqrt(s) + eps)


def adam_step(params, grads, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """Adam (Kingma & Ba 2015), eq. 1.29: running means m of g, v of g^2, corrected for their start at zero. As torch's.

    p <- p - lr * m^ / (sqrt(v^) + eps) with m^ = m / (1 - beta1^t) and v^ = v / (1 - beta2^t); the two corrections are
    numbers, so they move into the step size and into eps (their section 2), which saves two passes over the weights.
    """
    means, squares = state.setdefault("mean", zeros_like(params)), state.setdefault("square", zeros_like(params))
    t = state["step"] = state.get("step", 0) + 1
    v_start = (1 - beta2**t) ** 0.5
    lr_t, eps_t = lr * v_start / (1 - beta1**t), eps * v_start
    for p, g, m, v in blocks(params, grads, means, squares):
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * g * g
        p -= lr_t * m / (np.sqrt(v) + eps_t)


STEPS = {"sgd": sgd_step, "adagrad": adagrad_step, "adam": adam_step}


def blocks(params, *others, size=2**15):
    """The entries of params and of the dicts beside it, `size` at a time, as 1-D views.

    A step rule reads and writes every number several times; a block stays in the processor's cache meanwhile, whole
    arrays do not.
    """
    for name, array in params.items():
        if not array.flags.c_contiguous:            # reshape would copy, and the step would change the copy
            raise InputError(f"the weight {name} is not contiguous in memory: pass np.ascontiguousarray of it")
        flat = [array.reshape(-1), *(other[name].reshape(-1) for other in others)]
        for start in range(0, array.size, size):
            yield [a[start:start + size] for a in flat]


def zeros_like(params):
    return {name: np.zeros(array.shape, array.dtype) for name, array in params.items()}


# ---- the loop ----------------------------------------------------------------------------------------------------------


def evaluate(params, x_test, config, batch_size=1000):
    """Mean log p(x|z) and KL over the test images, in nats per image, with one fixed noise draw for each image."""
    rng = np.random.default_rng(EVAL_SEED)
    log_likelihood, kl = 0.0, np.zeros(config.latent)
    for start in range(0, len(x_test), batch_size):
        x = x_test[start:start + batch_size]                                           # (B, D)
        eps = rng.standard_normal((len(x), config.latent)).astype(x.dtype)             # (B, J)
        batch_log_likelihood, batch_kl = likelihood_and_kl(params, x, eps, config)
        log_likelihood += float(batch_log_likelihood.sum()) / len(x_test)
        kl += batch_kl.sum(axis=0) / len(x_test)
    return {"log_likelihood": log_likelihood, "kl": float(kl.sum()), "kl_per_latent": kl}


def train(run):
    """Algorithm 1 of the paper: draw a minibatch, draw noise, take the gradient of the bound, take a step."""
    config, options, params, state = run.config, run.options, run.params, run.state
    step = STEPS[options.optimizer]
    run.begin(
        snapshot=lambda: (params, state),
        evaluate=lambda: evaluate(params, run.x_test, config),
        encode=lambda x: encode(params, x, config),
        decode_mean=lambda z: decode_mean(params, z, config),
    )
    for epoch in run.epochs():
        for epochs_done, x in run.minibatches(epoch):                                  # (B, D)
            eps = run.rng.standard_normal((len(x), config.latent)).astype(x.dtype)     # (B, J)
            beta = kl_weight(epochs_done, options.beta, options.kl_warmup)
            loss, terms, grads = loss_and_grads(params, x, eps, config, beta, options.free_bits)
            step(params, grads, state, options.lr)
            run.add(terms, len(x))
        run.end_epoch(epoch)
    run.finish()


def main(argv=None):
    # a run that diverges ends with one clear line at the end of its epoch; NumPy's warnings on the way say less
    with Run("numpy", Options.parse("numpy", __doc__, argv)) as run, np.errstate(all="ignore"):
        train(run)


if __name__ == "__main__":
    sys.exit(run_command(main))
