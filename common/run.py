"""What surrounds the training loop at every level: where it starts, what it keeps, what it prints and draws.

    with Run("numpy", Options.parse("numpy", __doc__, argv)) as run:
        run.begin(...)                                              # how to look at the model
        for epoch in run.epochs():                                  # those that are still to do
            for epochs_done, x in run.minibatches(epoch): ...       # x (B, D), shuffled and binarized
            run.end_epoch(epoch)
        run.finish()

into --out:  config.json (the options and the machine), metrics.csv (the curve), params.npz (the weights),
checkpoint.npz (to go on from), and the pictures. Written whole or not at all; nothing else in the folder is touched.
"""

import csv
import io
import json
import math
import os
import platform
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.checkpoints import check_params, load_checkpoint, load_params, save_checkpoint, save_params, write_text
from common.cli import Options
from common.config import InputError, VAEConfig, check_one_layer, init_params, set_output_bias
from common.data import EVAL_SEED, binarize, check_fits, choose_binarize, eval_images, load_dataset, pixel_means

FILMSTRIP_EPOCHS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
EPOCHS, LR = 20, 1e-3                           # where neither the user nor the next two lines say otherwise
SMALL_SET_EPOCHS = {"digits": 200, "frey": 200}
SMALL_SET_LR = {"digits": 1e-2}                 # 15 steps an epoch: at 1e-3 two latents need 1000 epochs to unfold
OPTIMIZER_STATE = {"sgd": set(), "adagrad": {"sum"}, "adam": {"step", "mean", "square"}}       # as the step rules name it
COLUMNS = ("epoch", "train_elbo", "train_log_likelihood", "train_kl", "test_elbo", "test_log_likelihood", "test_kl",
           "seconds", "images_per_second")
PICTURES = ("curve", "filmstrip", "kl_per_dimension", "latent_scatter", "manifold", "posterior_draws", "prior_samples",
            "reconstructions")


class Run:
    """One training run: its data, configuration, starting point and folder.

    config, options, rng            what the loop reads, defaults filled in; rng draws shuffling, binarization and noise
    params, state                   NumPy arrays to begin with: drawn, taken from weights, or the checkpoint's
    x_test                          (N, D) test images, binarized once
    """

    def __init__(self, level: str, options: Options):
        """Loads all that the run needs and checks it; raises InputError before anything is written."""
        keep_freed_memory()
        self.level, self.options, self.machine = level, options, machine()
        self.out = Path(options.folder(level))
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"--out {self.out} is a file: give a folder")
        self.dtype = np.dtype(options.dtype)
        self.data = load_dataset(options.data, options.data_dir, options.data_file)
        self.params, self.state, self.rows, self.frames, self.done = None, {}, [], {}, 0
        source, rng_state = None, None                                  # where weights come from, if not from the seed
        if options.resume and (self.out / "checkpoint.npz").exists():
            source = self.out / "checkpoint.npz"
            rng_state = self._restore(source)
        elif options.init_from is not None:
            source = options.init_from
            self.params, self.config = load_params(source)
            self._check_options_fit(source)
        else:
            self.config = VAEConfig(options.arch, self.data.image_shape, options.hidden, options.latent, options.likelihood,
                                    fixed_logvar=options.fixed_logvar)
        check_one_layer(self.config)
        if self.config.condition:
            raise InputError(f"{source} holds a conditional VAE of {self.config.condition} classes, and levels 1 and 2 "
                             "train without labels: use paper/train_paper.py --model conditional-vae")
        check_fits(self.data, self.config, source)

        how = choose_binarize(self.data, options.binarize, self.config.likelihood)
        epochs, lr = SMALL_SET_EPOCHS.get(options.data, EPOCHS), SMALL_SET_LR.get(options.data, LR)
        self.options = replace(options, binarize=how, epochs=options.epochs or epochs, lr=options.lr or lr)

        # One generator, one order: weights, static binarization, then permutation, binarization and noise of each epoch.
        self.rng = np.random.default_rng(options.seed)
        params = init_params(self.config, self.rng)
        self.x_train = self.data.x_train
        if how in ("static", "threshold"):
            self.x_train = binarize(self.x_train, how, self.rng)
        self.x_test = eval_images(self.data, how, self.dtype)
        if self.params is None:
            self.params = params
            if self.config.likelihood == "bernoulli":
                set_output_bias(params, self.config, pixel_means(self.x_train))
        self.params = {name: array.astype(self.dtype) for name, array in self.params.items()}
        if rng_state is not None:
            self.rng.bit_generator.state = rng_state
            print(f"going on from {source}: {self.done} epochs done, {max(0, self.options.epochs - self.done)} to do")

    def _check_options_fit(self, source):
        """Raises InputError where the user asks for another model than --init-from holds."""
        for name in ("arch", "hidden", "latent", "likelihood", "fixed_logvar"):
            if name in self.options.given and getattr(self.options, name) != getattr(self.config, name):
                raise InputError(f"--init-from {source} holds a model with {name} {getattr(self.config, name)}, not "
                                 f"{getattr(self.options, name)}: leave --{name.replace('_', '-')} out")

    def _restore(self, checkpoint):
        """Takes everything back from a checkpoint; returns the generator's state. Raises InputError for a damaged one."""
        groups, facts = load_checkpoint(checkpoint)
        try:
            self.config = VAEConfig.from_json(json.dumps(facts["config"]))
            self.params = groups["params"]
            self.state = facts["state"] | {name: groups[f"state.{name}"] for name in facts["state groups"]}
            self.rows, self.done = list(facts["rows"]), int(facts["epoch"])
            self.frames = {int(epoch): frame for epoch, frame in groups["frames"].items()}
            np.random.default_rng().bit_generator.state = facts["rng"]              # refuses what is no state
            if set(self.state) != (OPTIMIZER_STATE[self.options.optimizer] if self.done else set()):
                raise ValueError(f"the state of {self.options.optimizer} is not whole")
            for name in facts["state groups"]:
                for weight, array in self.params.items():
                    kept = self.state[name][weight]
                    if (kept.shape, kept.dtype) != (array.shape, array.dtype):
                        raise ValueError(f"{name} of {weight} is {kept.dtype} {kept.shape}")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{checkpoint} is not a whole checkpoint of this program ({error!r}): "
                             "remove it, or start anew in another --out folder") from error
        check_params(self.params, self.config, checkpoint)
        return facts["rng"]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        checkpoint = self.out / "checkpoint.npz"
        if kind is KeyboardInterrupt and checkpoint.exists():           # the stop may have come while files were written
            print(f"\nstopped: {checkpoint} holds epoch {load_checkpoint(checkpoint)[1]['epoch']}; the same command with "
                  "--resume goes on", file=sys.stderr)

    # ---- what the loop calls -----------------------------------------------------------------------------------------

    def begin(self, snapshot, evaluate, encode, decode_mean):
        """Tells the run how to look at the model, all in NumPy arrays, and writes what there is before the first epoch.

        snapshot()      -> params, optimizer state
        evaluate()      -> {"log_likelihood", "kl"} in nats per image and "kl_per_latent" (J,), over x_test
        encode(x)       -> mu, logvar (B, J)
        decode_mean(z)  -> (B, D) in [0, 1]
        """
        self.snapshot, self.evaluate, self.encode, self.decode_mean = snapshot, evaluate, encode, decode_mean
        if self.done:
            return
        with self._writing():
            self.out.mkdir(parents=True, exist_ok=True)
            for name in PICTURES:                                       # of an earlier run in this folder
                (self.out / f"{name}.png").unlink(missing_ok=True)
            self._keep(0)

    @contextmanager
    def _writing(self):
        """A full disk or a folder that may not be written to is one line, not a trace."""
        try:
            yield
        except OSError as error:
            raise InputError(f"cannot write into --out {self.out} ({error.strerror or error}): make room, or give another "
                             "folder") from error

    def epochs(self):
        """The numbers of the epochs still to do, counted from 1."""
        return range(self.done + 1, self.options.epochs + 1)

    def minibatches(self, epoch: int):
        """Yields (epochs done so far, x (B, D)): the training images once, shuffled, binarized as asked."""
        size, count = self.options.batch_size, len(self.x_train)
        self.sums, self.clock = {"log_likelihood": 0.0, "kl": 0.0}, time.perf_counter()
        order = self.rng.permutation(count)
        how = "dynamic" if self.options.binarize == "dynamic" else "none"      # static and threshold were done at the start
        bar = tqdm(range(0, count, size), f"epoch {epoch}", leave=False, disable=not sys.stderr.isatty(), unit="step")
        for start in bar:
            rows = order[start:start + size]
            yield epoch - 1 + start / count, binarize(self.x_train[rows], how, self.rng, self.dtype)

    def add(self, terms, count: int):
        """Adds a minibatch to the epoch's mean, weighted by its number of images: the last one may be smaller."""
        for name in self.sums:
            self.sums[name] += float(terms[name]) * count / len(self.x_train)

    def end_epoch(self, epoch: int):
        """Evaluates, keeps everything and prints the epoch's line; raises InputError where the run has diverged."""
        seconds = time.perf_counter() - self.clock
        row = {"epoch": epoch}
        for split, terms in (("train", self.sums), ("test", self.evaluate())):
            row[f"{split}_elbo"] = terms["log_likelihood"] - terms["kl"]
            row[f"{split}_log_likelihood"], row[f"{split}_kl"] = terms["log_likelihood"], terms["kl"]
        row["seconds"], row["images_per_second"] = seconds, len(self.x_train) / seconds
        if not all(math.isfinite(value) for value in row.values()):
            cure = f"try a smaller --lr than {self.options.lr}"
            if self.config.likelihood == "gaussian" and self.config.fixed_logvar is None:
                cure += " or --fixed-logvar -3 (pixels that never change let a learnt variance shrink to nothing)"
            raise InputError(f"the bound is not finite after epoch {epoch}: {cure}; {self.out / 'checkpoint.npz'} holds "
                             f"epoch {self.done}")
        self.rows.append(row)
        with self._writing():
            self._keep(epoch)
        print(epoch_line(row, len(str(self.options.epochs))), flush=True)       # what was printed is kept

    def _keep(self, epoch: int):
        """Writes the weights, the curve and last the checkpoint: a stop in between repeats the epoch after --resume."""
        params, state = self.snapshot()
        if epoch in FILMSTRIP_EPOCHS:
            self.frames[epoch] = self.decode_mean(figures().latent_grid(self.config.latent, side=10).astype(self.dtype))
        options = asdict(self.options) | {"given": sorted(self.options.given)}
        arrays = {f"state.{name}": value for name, value in state.items() if isinstance(value, dict)}
        facts = {
            "epoch": epoch, "rows": self.rows, "options": options, "config": asdict(self.config),
            "rng": self.rng.bit_generator.state, "state groups": [name.removeprefix("state.") for name in arrays],
            "state": {name: value for name, value in state.items() if not isinstance(value, dict)},
        }
        frames = {str(epoch): frame for epoch, frame in self.frames.items()}
        save_params(self.out / "params.npz", params, self.config)
        told = {"level": self.level, "options": options, "machine": self.machine}
        write_text(self.out / "config.json", json.dumps(told, indent=2) + "\n")
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.out / "metrics.csv", table.getvalue())
        save_checkpoint(self.out / "checkpoint.npz", {"params": params, "frames": frames, **arrays}, facts)
        self.done = epoch

    def finish(self):
        """Draws the pictures and says where the most telling one is."""
        with self._writing():
            self._draw()

    def _draw(self):
        draw = figures()
        shape, latent, x = self.config.image_shape, self.config.latent, self.x_test
        rng = np.random.default_rng(EVAL_SEED)
        mu, logvar = (np.concatenate(parts) for parts in
                      zip(*(self.encode(x[i:i + 1000]) for i in range(0, len(x), 1000)), strict=True))

        def decoded(z):
            return self.decode_mean(z.astype(self.dtype))

        def path(name):
            return self.out / f"{name}.png"

        draw.curve(path("curve"), self.rows)
        draw.reconstructions(path("reconstructions"), x[:10], decoded(mu[:10]), shape)
        draw.prior_samples(path("prior_samples"), decoded(rng.standard_normal((100, latent))), shape)
        draw.latent_scatter(path("latent_scatter"), mu, self.data.y_test)
        draw.kl_per_dimension(path("kl_per_dimension"), self.evaluate()["kl_per_latent"])
        rows = min(8, len(x))
        eps = rng.standard_normal((rows, 8, latent))
        z = mu[:rows, None] + np.exp(0.5 * logvar[:rows, None]) * eps                # (rows, 8, J)
        draws = decoded(z.reshape(-1, latent)).reshape(rows, 8, -1)
        draw.posterior_draws(path("posterior_draws"), x[:rows], draws, shape)
        epochs = sorted(self.frames)
        epochs = epochs[:1] + epochs[1:][-5:]                           # a strip of six: the first and the last five
        draw.filmstrip(path("filmstrip"), np.stack([self.frames[epoch] for epoch in epochs]), epochs, shape)
        best = "prior_samples"
        if latent <= 2:
            best = "manifold"
            draw.manifold(path("manifold"), decoded(draw.latent_grid(latent)), shape)
        print(f"{'the latent plane' if latent == 2 else 'samples'}: {path(best)}     everything else: {self.out}/")


def figures():
    """common.figures, imported when the first picture is drawn: matplotlib takes a second."""
    from common import figures
    return figures


def keep_freed_memory():
    """Lets the C library keep what is freed for the next step, instead of giving it back to the system page by page.

    glibc keeps blocks up to the size of the largest freed so far, 32 MiB at most, so freeing one such block is enough.
    A convolutional step at level 1 allocates 20 MB: without this, the pages cost as much as the arithmetic. Elsewhere
    than on glibc it does nothing.
    """
    np.empty(31 << 20, np.uint8)            # allocated and freed at once


def machine() -> dict:
    """What a measurement ran on: processor, cores, versions, and the git commit ("+" behind it: with changes) or None."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:                                                     # not Linux
        names = []
    try:
        commit, changes = (subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True).stdout
                           for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]))
        commit = commit.strip() + "+" * bool(changes.strip()) or None
    except OSError:                                                     # no git
        commit = None
    torch = sys.modules.get("torch")                                    # level 1 never imports it
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__ if torch else None,
        "commit": commit,
    }


def epoch_line(row, width: int) -> str:
    """One aligned line: the bounds in nats per image, the speed of the training steps."""
    return (f"epoch {row['epoch']:{width}d} | train elbo {row['train_elbo']:8.2f} | test elbo {row['test_elbo']:8.2f} "
            f"= log p(x|z) {row['test_log_likelihood']:8.2f} - kl {row['test_kl']:6.2f} "
            f"| {row['images_per_second']:7,.0f} images/s")
