"""Level 2: trains the VAE on tensors we hold. The step rules, the loop and the command line of level 1, line for line.

    python pytorch_lowlevel/train_lowlevel.py                     # the embedded digits, 2 latents, under a minute
    python pytorch_lowlevel/train_lowlevel.py --data mnist --latent 20 --device cuda

Prints one line per epoch, in nats per image, and leaves weights, curve and pictures in --out.
"""

import sys

import numpy as np
import torch

from common.cli import Options, run_command
from common.data import EVAL_SEED
from common.devices import find_device
from common.run import Run
from common.schedules import kl_weight
from pytorch_lowlevel.networks_lowlevel import decode_mean, encode
from pytorch_lowlevel.vae_lowlevel import likelihood_and_kl, loss_and_grads

# ---- step rules: each changes params in place and keeps what it must remember in `state`, a dict that starts empty -----


def sgd_step(params, grads, state, lr):
    """Gradient descent: p <- p - lr * g. As torch.optim.SGD."""
    for name, p in params.items():
        p.sub_(grads[name], alpha=lr)


def adagrad_step(params, grads, state, lr, eps=1e-10):
    """Adagrad (Duchi et al. 2011), the paper's: p <- p - lr * g / sqrt(sum of all g^2 so far). As torch.optim.Adagrad."""
    sums = state.setdefault("sum", zeros_like(params))
    for name, p in params.items():
        g, s = grads[name], sums[name]
        s.addcmul_(g, g)
        p.addcdiv_(g, s.sqrt().add_(eps), value=-lr)


def adam_step(params, grads, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """Adam (Kingma & Ba 2015): running means m of g and v of g^2, corrected for their start at zero. As torch.optim.Adam.

    p <- p - lr * m^ / (sqrt(v^) + eps) with m^ = m / (1 - beta1^t) and v^ = v / (1 - beta2^t); the two corrections are
    numbers, so they move into the step size and into eps (their section 2), which saves a pass over the weights.
    """
    means, squares = state.setdefault("mean", zeros_like(params)), state.setdefault("square", zeros_like(params))
    t = state["step"] = state.get("step", 0) + 1
    v_start = (1 - beta2**t) ** 0.5
    lr_t, eps_t = lr * v_start / (1 - beta1**t), eps * v_start
    for name, p in params.items():
        g, m, v = grads[name], means[name], squares[name]
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        p.addcdiv_(m, v.sqrt().add_(eps_t), value=-lr_t)


STEPS = {"sgd": sgd_step, "adagrad": adagrad_step, "adam": adam_step}


def zeros_like(params):
    return {name: torch.zeros_like(tensor) for name, tensor in params.items()}


# ---- between NumPy, where noise and data come from, and the device -----------------------------------------------------


def to_tensors(tree, device):
    """Arrays to tensors, in dicts of any depth; what is not an array stays."""
    if isinstance(tree, dict):
        return {name: to_tensors(value, device) for name, value in tree.items()}
    return torch.from_numpy(tree).to(device) if isinstance(tree, np.ndarray) else tree


def to_numpy(tree):
    """Tensors to arrays, in dicts of any depth; what is not a tensor stays."""
    if isinstance(tree, dict):
        return {name: to_numpy(value) for name, value in tree.items()}
    return tree.cpu().numpy() if isinstance(tree, torch.Tensor) else tree


# ---- the loop ----------------------------------------------------------------------------------------------------------


def evaluate(params, x_test, config, device, batch_size=1000):
    """Mean log p(x|z) and KL over the test images, in nats per image, with one fixed noise draw for each image."""
    rng = np.random.default_rng(EVAL_SEED)
    log_likelihood, kl = 0.0, np.zeros(config.latent)
    for start in range(0, len(x_test), batch_size):
        x = x_test[start:start + batch_size]                                           # (B, D)
        eps = rng.standard_normal((len(x), config.latent)).astype(x.dtype)             # (B, J)
        x, eps = to_tensors(x, device), to_tensors(eps, device)
        batch_log_likelihood, batch_kl = likelihood_and_kl(params, x, eps, config)
        log_likelihood += float(batch_log_likelihood.sum()) / len(x_test)
        kl += to_numpy(batch_kl.sum(dim=0)) / len(x_test)
    return {"log_likelihood": log_likelihood, "kl": float(kl.sum()), "kl_per_latent": kl}


def train(run):
    """Algorithm 1 of the paper: draw a minibatch, draw noise, take the gradient of the bound, take a step."""
    device = find_device(run.options.device, run.options.dtype)
    config, options = run.config, run.options
    params, state = to_tensors(run.params, device), to_tensors(run.state, device)
    step = STEPS[options.optimizer]
    run.begin(
        snapshot=lambda: (to_numpy(params), to_numpy(state)),
        evaluate=lambda: evaluate(params, run.x_test, config, device),
        encode=lambda x: map(to_numpy, encode(params, to_tensors(x, device), config)),
        decode_mean=lambda z: to_numpy(decode_mean(params, to_tensors(z, device), config)),
    )
    for epoch in run.epochs():
        for epochs_done, x in run.minibatches(epoch):                                  # (B, D)
            eps = run.rng.standard_normal((len(x), config.latent)).astype(x.dtype)     # (B, J)
            x, eps = to_tensors(x, device), to_tensors(eps, device)
            beta = kl_weight(epochs_done, options.beta, options.kl_warmup)
            loss, terms, grads = loss_and_grads(params, x, eps, config, beta, options.free_bits)
            step(params, grads, state, options.lr)
            run.add(terms, len(x))
        run.end_epoch(epoch)
    run.finish()


def main(argv=None):
    with Run("lowlevel", Options.parse("lowlevel", __doc__, argv)) as run:
        train(run)


if __name__ == "__main__":
    sys.exit(run_command(main))
