"""Level 3 on several processes: DistributedDataParallel, the same training as in one process, shared.

    torchrun --nproc-per-node 2 paper/train_distributed.py                        # two processes on the CPU
    torchrun --nproc-per-node 8 paper/train_distributed.py --data mnist --latent 20 --device cuda       # eight GPUs
    python paper/train_distributed.py                                             # one process, no torchrun

Each process, called a rank, holds the whole model and the whole data set and takes every N-th image of a minibatch. What
N processes compute is what one computes, digit for digit but for the order of additions: train_paper.py prints the same
lines. Writes params.npz, which every level loads.
"""

import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn  # noqa: F401    before there is a group: see process_group
from torch.nn.parallel import DistributedDataParallel

from common.cli import option, parse_options, run_command
from common.config import InputError, VAEConfig
from common.data import load_dataset
from common.devices import find_device
from paper.images import Images
from paper.plan import SCHEDULES, Plan, Subject
from paper.train_paper import build, epoch_line, evaluate, make_optimizer, own_defaults


@dataclass(frozen=True)
class Shared(Subject):
    """The options of the command line: those of train_paper.py that this file knows."""

    epochs: int = option(20, "passes over the training images; digits and frey: 200", type=int)
    batch_size: int = option(100, "images per step, all processes together", type=int)
    lr: float = option(1e-3, "Adam's step size; with a schedule, its largest; digits: 0.01", type=float)
    schedule: str = option("constant", "step size over time: constant, one-cycle, staircase", choices=tuple(SCHEDULES))
    seed: int = option(0, "seed of weights, shuffling, binarization and noise", type=int)
    dtype: str = option("float32", "precision of the arithmetic", choices=("float32", "float64"))
    device: str = option("cpu", "where each process computes: on the cpu, or on the GPU of its number",
                         choices=("cpu", "cuda"))
    out: str | None = option(None, "folder for params.npz (default: runs/distributed-DATA-LATENT)")


@contextmanager
def process_group(device):
    """The processes that torchrun started find each other, and part again however the block ends.

    gloo carries tensors between CPUs, NCCL between GPUs. Without torchrun there is a group of one, which needs no network.
    The functions of torch.distributed.nn have the group of the moment of their import as a default, and PyTorch imports
    them late, with the first optimizer: then they would keep the group alive after destroy_process_group, and its threads
    would now and then crash the interpreter at its end. Imported at the top, they find no group to keep.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    alone = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group(backend, **alone)
    try:
        yield
    finally:
        dist.destroy_process_group()


def train(model, images: Images, plan: Plan, report=None) -> list[dict]:
    """The loop of train_paper.train, shared by all processes of the group; each calls it with the same arguments.

    model, images   a VAE and its data, on the device of this process; the model is trained in place, on every rank alike
    report          called on rank 0 with each epoch's row: {"epoch", "seconds", "train", "valid", "test"}, nats per image
    Returns the rows; "valid" and "test" are on rank 0 only. Raises InputError where the loss is no longer finite.
    """
    rank, world, rows = dist.get_rank(), dist.get_world_size(), []
    (count, _), device, names = images.x_train.shape, images.x_train.device, ("loss", "elbo", "log_likelihood", "kl")
    # One seed on all ranks, so that all draw the same numbers, in the order of train_paper.py.
    generator = torch.Generator(device).manual_seed(plan.seed)
    parallel = DistributedDataParallel(model)               # begins by copying rank 0's weights to all
    optimizer, steps = make_optimizer(model, plan), -(-count // plan.batch_size)
    for epoch in range(1, plan.epochs + 1):
        start, totals = time.perf_counter(), images.x_test.new_zeros(len(names))
        order = torch.randperm(count, generator=generator, device=device)
        for i, chosen in enumerate(order.split(plan.batch_size)):
            # Binarization and noise are drawn for the whole minibatch and then shared out: an image meets the same noise
            # however many processes there are. If each rank drew its own, from a seed of its own, 1 and N processes would
            # be different runs, and from one seed, all ranks would use the same noise for different images.
            x, _ = images.minibatch(chosen, generator)                                               # (B, D)
            eps = torch.randn(len(x), model.config.latent, generator=generator, device=device, dtype=x.dtype)   # (B, J)
            share = slice(rank, None, world)                # every N-th row, from this rank's number on
            mine = len(x[share])
            if mine == 0:                                   # a last minibatch of fewer images than processes: the others
                share = slice(1)                            # wait for this rank, which sends a gradient of weight 0
            loss, terms = parallel(x[share], eps[share])
            # backward() leaves in every rank's .grad the average over the ranks, (1/N) sum_r grad_r: gradients travel while
            # earlier layers are still at work. loss is the mean over `mine` images; weighted by its part of the minibatch,
            # times N, the average is the gradient of the whole minibatch's mean, whether N divides it or not.
            optimizer.zero_grad()
            (loss * (mine * world / len(x))).backward()
            for group in optimizer.param_groups:
                group["lr"] = plan.lr * SCHEDULES[plan.schedule](((epoch - 1) * steps + i) / (plan.epochs * steps))
            optimizer.step()                                # same weights, same gradient, same step: nothing to send
            values = torch.stack([loss.detach(), *(terms[name] for name in names[1:])])
            totals.add_(values, alpha=mine / count)
        dist.all_reduce(totals)                             # replaces each rank's totals by the sum over all ranks
        row = {"epoch": epoch, "train": dict(zip(names, totals.tolist(), strict=True))}
        row["seconds"] = time.perf_counter() - start
        if not np.isfinite(row["train"]["loss"]):           # the same number on all ranks, so that all stop
            raise InputError(f"the loss is {row['train']['loss']} in epoch {epoch}: try a smaller lr than {plan.lr}")
        if rank == 0:                                       # the others go on, and wait for it at their next backward()
            row["test"] = evaluate(model, images.x_test)
            if images.x_valid is not None:
                row["valid"] = evaluate(model, images.x_valid)
            if report is not None:
                report(row)
        rows.append(row)
    return rows


def main(argv=None):
    choice, = parse_options(__doc__, argv, Shared, defaults=own_defaults)
    plan = Plan(**{name: getattr(choice, name) for name in ("epochs", "batch_size", "lr", "schedule", "seed")})
    number = int(os.environ.get("LOCAL_RANK", 0))           # of this process on its machine, given by torchrun
    device = find_device("cpu" if choice.device == "cpu" else f"cuda:{number}", choice.dtype)
    if device.type == "cuda":
        torch.cuda.set_device(device)                       # NCCL asks for the current one
    out = Path(choice.out or f"runs/distributed-{choice.data}-{choice.latent}")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give a folder")
    data = load_dataset(choice.data, choice.data_dir, choice.data_file)
    config = VAEConfig(choice.arch, data.image_shape, choice.hidden, choice.latent, choice.likelihood)
    images = Images.of(data, choice.binarize, device, choice.dtype, choice.likelihood, plan.seed)
    model = build("vae", config, images, plan.seed)
    with process_group(device):
        train(model, images, plan, lambda row: print(epoch_line(row, plan.epochs), flush=True))
        if dist.get_rank() == 0:
            try:
                out.mkdir(parents=True, exist_ok=True)
                model.save(out / "params.npz")
            except OSError as error:
                raise InputError(f"cannot write into --out {out} ({error.strerror or error}): make room, or give another "
                                 "folder") from error
            print(f"weights: {out / 'params.npz'}")


if __name__ == "__main__":
    sys.exit(run_command(main))
