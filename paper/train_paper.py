"""Level 3: the trainer. One eager loop for every model of this folder.

    python paper/train_paper.py                                               # the embedded digits, under a minute
    python paper/train_paper.py --data mnist --latent 20 --schedule one-cycle --lr 4e-3 --batch-size 128 --epochs 11
    python paper/train_paper.py --model iwae --k 50 --data mnist --latent 50 --hidden 200 --layers 2 --device cuda

A model gives `training_loss(x, y, generator) -> loss, terms`, and where its objective changes on the way has a 0-d buffer
`progress`, the share of training that is done. The images lie on the device as one tensor; a minibatch is a draw of its
rows, binarized there. Prints one line per epoch, in nats per image.
"""

import json
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from common.checkpoints import write_text
from common.cli import parse_options, run_command
from common.config import InputError, VAEConfig, init_params, set_output_bias
from common.data import EVAL_SEED, hold_out, load_dataset
from common.devices import find_device
from common.run import SMALL_SET_EPOCHS, SMALL_SET_LR, machine
from paper.autoencoder import Autoencoder
from paper.beta_vae import BetaVAE
from paper.conditional_vae import ConditionalVAE, classes_of
from paper.estimators import log_weight_prior
from paper.family import FamilyModel
from paper.fast_steps import GraphStep
from paper.full_vb import FullVB
from paper.hierarchical_vae import HierarchicalVAE, LadderVAE
from paper.images import Images
from paper.iwae import IWAE
from paper.pictures import draw_pictures
from paper.pixel_vae import PixelVAE
from paper.plan import MODEL_DEFAULTS, SCHEDULES, UNUSED, Choice, Plan
from paper.resume import keep, restore
from paper.vae_paper import VAE
from paper.vq_vae import VQVAE
from paper.wake_sleep import WakeSleep

MODELS = {"vae": VAE, "wake-sleep": WakeSleep, "full-vb": FullVB, "iwae": IWAE, "autoencoder": Autoencoder,
          "beta-vae": BetaVAE, "conditional-vae": ConditionalVAE, "vq-vae": VQVAE,
          "hierarchical-vae": HierarchicalVAE, "ladder-vae": LadderVAE, "pixel-vae": PixelVAE}

# ---- the loop ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(model, x, y=None, batch_size=1000) -> dict[str, float]:
    """The model's loss and terms in eval mode, means over the images x (N, D), from one generator's noise: the same at
    every call."""
    generator, totals, training = torch.Generator(x.device).manual_seed(EVAL_SEED), {}, model.training
    model.eval()
    for rows in torch.arange(len(x), device=x.device).split(batch_size):
        loss, terms = model.training_loss(x[rows], None if y is None else y[rows], generator)
        for name, value in {"loss": loss, **terms}.items():
            totals[name] = totals.get(name, 0.0) + float(value) * len(rows) / len(x)
    model.train(training)
    return totals


def make_optimizer(model, plan: Plan):
    """One pass over the weights where this PyTorch can (fused), else several, with the same result."""
    weights, kind = list(model.parameters()), torch.optim.Adagrad
    settings = {"lr": plan.lr, "weight_decay": plan.weight_decay}
    if plan.optimizer == "adam":
        kind, settings = torch.optim.Adam, settings | {"eps": plan.adam_eps}
    fused = plan.optimizer == "adam" or weights[0].device.type == "cpu"
    try:
        return kind(weights, fused=fused or None, **settings)            # None: as PyTorch sees fit
    except (RuntimeError, TypeError):                                    # a PyTorch without it
        return kind(weights, **settings)


@contextmanager
def arithmetic(matmul):
    """Inside the block: this precision of float32 matrix products (settings of the whole process), and numbers too small
    for a float's full precision (below 1e-38) count as zero.

    Adam and Adagrad square gradients, those of a pixel that is always black go to zero, and a processor takes several
    times as long for such denormal numbers: without this, a step with Adagrad soon takes twice its time.
    """
    precision, flushed = torch.get_float32_matmul_precision(), float(torch.tensor(1e-40) * 1.0) == 0
    torch.set_float32_matmul_precision(matmul)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_flush_denormal(flushed)


def train(model, images: Images, plan: Plan, checkpoint=None, report=None) -> list[dict]:
    """Algorithm 1 of the paper: draw a minibatch, draw noise, take the gradient of the bound, take a step.

    model       an nn.Module with training_loss, where the images are; it is trained in place
    checkpoint  a path: written as training goes, and gone on from where it exists
    report      called with each epoch's row: {"epoch", "seconds", "train", "valid", "test"}, the last two after evaluations
    Returns the rows. Raises InputError where the loss is no longer finite, or the checkpoint is another run's.
    """
    count, device = len(images.x_train), images.x_train.device
    generator, optimizer = torch.Generator(device).manual_seed(plan.seed), make_optimizer(model, plan)
    rows, best = [], None                                                # best: the weights of the best validation loss
    if checkpoint is not None and Path(checkpoint).exists():
        rows, best = restore(checkpoint, plan, model, optimizer, generator)
    steps, saved, totals = -(-count // plan.batch_size), time.perf_counter(), {}
    progress = getattr(model, "progress", None)

    def forward_backward(chosen):
        x, y = images.minibatch(chosen, generator)
        loss, terms = model.training_loss(x, y, generator)
        objective = loss - log_weight_prior(model) / count if plan.weight_prior else loss
        optimizer.zero_grad(set_to_none=device.type != "cuda")          # a graph's gradients stay where they were recorded
        objective.backward()
        for name, value in {"loss": loss.detach(), **terms}.items():
            totals.setdefault(name, torch.zeros_like(value)).add_(value, alpha=len(chosen) / count)

    step = forward_backward
    for epoch in range(len(rows) + 1, plan.epochs + 1):
        if stopped(rows, plan):
            break
        start = time.perf_counter()
        order = torch.randperm(count, generator=generator, device=device)
        with arithmetic(plan.matmul):
            if device.type == "cuda" and step is forward_backward and count >= plan.batch_size:
                step = GraphStep(forward_backward, order[:plan.batch_size], generator, list(model.buffers()))
            for value in totals.values():
                value.zero_()
            for i, chosen in enumerate(order.split(plan.batch_size)):
                share = ((epoch - 1) * steps + i) / (plan.epochs * steps)
                for group in optimizer.param_groups:
                    group["lr"] = plan.lr * SCHEDULES[plan.schedule](share)
                if progress is not None:
                    progress.fill_(share)
                step(chosen)
                optimizer.step()
        row = {"epoch": epoch, "train": {name: float(value) for name, value in totals.items()}}
        row["seconds"] = time.perf_counter() - start                     # after the floats, which wait for the GPU
        if epoch % plan.evaluate_every == 0 or epoch == plan.epochs:
            row["test"] = evaluate(model, images.x_test, images.y_test)
            if images.x_valid is not None:
                row["valid"] = evaluate(model, images.x_valid, images.y_valid)
        for part in ("train", "valid", "test"):                          # the last step of an epoch shows in the test only
            if part in row and not np.isfinite(row[part]["loss"]):
                raise InputError(f"the {part} loss is {row[part]['loss']} in epoch {epoch}: "
                                 f"try a smaller lr than {plan.lr}")
        rows.append(row)
        if plan.patience and "valid" in row and row["valid"]["loss"] == min(losses(rows)):
            best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        last = epoch == plan.epochs or stopped(rows, plan)
        if checkpoint is not None and (last or time.perf_counter() - saved > 5):      # seconds: a save takes hundredths
            keep(checkpoint, plan, model, optimizer, generator, rows, best)
            saved = time.perf_counter()
        if report is not None:
            report(row)
    if best is not None:
        model.load_state_dict(best)
    return rows


def losses(rows):
    return [row["valid"]["loss"] for row in rows if "valid" in row]


def stopped(rows, plan) -> bool:
    """Whether the last `patience` evaluations brought no better validation loss."""
    seen = losses(rows)
    return plan.patience > 0 and len(seen) > 0 and len(seen) - 1 - int(np.argmin(seen)) >= plan.patience


def build(name: str, config: VAEConfig, images: Images, seed: int = 0, **settings):
    """The model called `name`, one of MODELS, where the images are, drawn from the seed; settings: its own, as IWAE's k.

    A Bernoulli decoder begins as the average image, as at every level.
    """
    x, rng, kind = images.x_train, np.random.default_rng(seed), MODELS[name]
    means = x.mean(dim=0).cpu().numpy()
    if issubclass(kind, FamilyModel):
        return kind(config, **settings).draw_weights(rng, means).to(x.device, x.dtype)
    params = init_params(config, rng)
    if config.likelihood == "bernoulli":
        set_output_bias(params, config, means)
    if name == "full-vb":                                                # its weights' KL is shared out over the images
        settings = {"training_images": len(x)} | settings
    return kind(config, params, **settings).to(x.device, x.dtype)


def epoch_line(row, epochs: int) -> str:
    """One aligned line: the terms in nats per image, the training time in seconds."""
    words = [f"epoch {row['epoch']:{len(str(epochs))}d}"]
    for part in ("train", "valid", "test"):
        if part in row:
            terms = (f"{name} {value:.2f}" for name, value in row[part].items() if name != "loss")
            words.append(f"{part} {' '.join(terms)}")
    return " | ".join([*words, f"{row['seconds']:.1f} s"])


def own_defaults(given) -> dict:
    """The defaults of levels 1 and 2 for the small data sets, and those of some models.

    Raises InputError for an option that the model has no use for.
    """
    for name in UNUSED.get(given.get("model"), ()):
        if name in given:
            raise InputError(f"--{name} {given[name]} is of no use to --model {given['model']}: leave it out")
    data = given.get("data", Choice.data)
    found = {"epochs": SMALL_SET_EPOCHS.get(data), "lr": SMALL_SET_LR.get(data)}
    found |= MODEL_DEFAULTS.get(given.get("model"), {})
    return {name: value for name, value in found.items() if value is not None}


def check_same_choice(metrics: Path, choice: Choice):
    """Raises InputError where the run to go on with was one on other data or with another model."""
    try:
        before = json.loads(metrics.read_text("utf-8"))["choice"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{metrics} does not say what its run was ({error}): start anew in another folder") from error
    for name, value in asdict(choice).items():
        if name not in ("data_dir", "device", "out", "resume") and before.get(name) != value:
            raise InputError(f"{metrics} is of a run with {name} {before.get(name)}, not {value}: leave that as it was, or "
                             "start anew in another folder")


def main(argv=None):
    choice, plan = parse_options(__doc__, argv, Choice, Plan, defaults=own_defaults)
    device = find_device(choice.device, choice.dtype)
    out = Path(choice.out or f"runs/paper-{choice.model}-{choice.data}-{choice.latent}")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give a folder")
    settings = choice.settings()
    if choice.model == "full-vb" and (plan.weight_prior or plan.weight_decay):
        raise InputError("--weight-prior and --weight-decay go with weights that are numbers; full-vb has a prior on its "
                         "weights already: leave them out")
    data = load_dataset(choice.data, choice.data_dir, choice.data_file)
    if plan.patience and data.x_valid is None:
        data = hold_out(data)
    if choice.model == "pixel-vae" and choice.binarize == "none" and not data.binary:
        raise InputError(f"--model pixel-vae is for binary pixels, and --binarize none leaves those of {data.name} gray: "
                         "leave it out")
    condition = classes_of(data) if choice.model == "conditional-vae" else 0
    config = VAEConfig(choice.arch, data.image_shape, choice.hidden, choice.latent, choice.likelihood, choice.layers,
                       choice.fixed_logvar, condition)
    images = Images.of(data, choice.binarize, device, choice.dtype, choice.likelihood, plan.seed)
    if choice.model == "ladder-vae" and (len(images.x_train) % plan.batch_size or plan.batch_size) == 1:
        raise InputError(f"batch_size {plan.batch_size} leaves one of {len(images.x_train)} images to an epoch's last "
                         "step, and the batch norm of ladder-vae needs two: give another")
    model = build(choice.model, config, images, plan.seed, **settings)
    checkpoint, metrics = out / "checkpoint.npz", out / "metrics.json"
    told = {"choice": asdict(choice), "plan": asdict(plan), "machine": machine()}
    if choice.resume and checkpoint.exists():
        check_same_choice(metrics, choice)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not choice.resume:
            checkpoint.unlink(missing_ok=True)
        if not checkpoint.exists():
            write_text(metrics, json.dumps(told | {"rows": []}, indent=1) + "\n")
        rows = train(model, images, plan, checkpoint, lambda row: print(epoch_line(row, plan.epochs), flush=True))
        model.save(out / "params.npz")
        write_text(metrics, json.dumps(told | {"rows": rows}, indent=1) + "\n")
        draw_pictures(out, model.eval(), images)
    except KeyboardInterrupt:
        print(f"\nstopped: the same command with --resume goes on from {checkpoint}", file=sys.stderr)
        raise
    except OSError as error:
        raise InputError(f"cannot write into --out {out} ({error.strerror or error}): make room, or give another folder"
                         ) from error
    print(f"weights, curve and pictures: {out}/")


if __name__ == "__main__":
    sys.exit(run_command(main))
