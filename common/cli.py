"""What the command lines of all levels share: the options, the run folder, the epoch lines, the pictures at the end.

A training script holds its loop; a `Run` holds what surrounds it:

    with Run("numpy", Options.parse("numpy", __doc__, argv)) as run:
        run.begin(...)                                              # how to look at the model
        for epoch in run.epochs():                                  # those that are still to do
            for epochs_done, x in run.minibatches(epoch): ...       # x (B, D), shuffled and binarized
            run.end_epoch(epoch)
        run.finish()

into --out:  config.json (the options), metrics.csv (the curve), params.npz (the weights), checkpoint.npz (to go on
from), and the pictures. Written whole or not at all; nothing else in the folder is touched.
"""

import argparse
import csv
import io
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.checkpoints import check_params, load_checkpoint, load_params, save_checkpoint, save_params, write_text
from common.config import (
    ARCHITECTURES,
    LIKELIHOODS,
    InputError,
    VAEConfig,
    check_one_layer,
    check_weights,
    init_params,
    set_output_bias,
)
from common.data import BINARIZE, DATASETS, EVAL_SEED, binarize, eval_images, load_dataset, pixels

FILMSTRIP_EPOCHS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
EPOCHS, LR = 20, 1e-3                           # where neither the user nor the next two lines say otherwise
SMALL_SET_EPOCHS = {"digits": 200, "frey": 200}
SMALL_SET_LR = {"digits": 1e-2}                 # 15 steps an epoch: at 1e-3 two latents need 1000 epochs to unfold
OPTIMIZERS = ("sgd", "adagrad", "adam")
DTYPES = ("float32", "float64")
COLUMNS = ("epoch", "train_elbo", "train_log_likelihood", "train_kl", "test_elbo", "test_log_likelihood", "test_kl",
           "seconds", "images_per_second")
PICTURES = ("curve", "filmstrip", "kl_per_dimension", "latent_scatter", "manifold", "posterior_draws", "prior_samples",
            "reconstructions")


def option(default, text, **argparse_settings):
    return field(default=default, metadata={"help": text, **argparse_settings})


@dataclass(frozen=True)
class Options:
    """The options of a training run, with their defaults. `given` names those that the user wrote."""

    data: str = option("digits", "data set", choices=DATASETS)
    data_file: str | None = option(None, "your own images, an .npz file with x_train (N, h, w); with --data npz")
    data_dir: str | None = option(None, "folder of the data sets (default: $VAE_DATA, else data/)")
    binarize: str | None = option(None, "gray pixels to binary ones: dynamic draws them anew each epoch (default for "
                                  "Bernoulli), static once, threshold cuts at one half, none keeps them gray (default "
                                  "for the Gaussian)", choices=BINARIZE)
    arch: str = option("mlp", "the paper's network, one tanh hidden layer a side, or a convolutional one",
                       choices=ARCHITECTURES)
    likelihood: str = option("bernoulli", "p(x|z): Bernoulli or Gaussian pixels", choices=LIKELIHOODS)
    hidden: int = option(500, "units of the mlp's hidden layer", type=int)
    latent: int = option(2, "latent dimensions", type=int)
    fixed_logvar: float | None = option(None, "Gaussian only: this log-variance for every pixel instead of a learnt one",
                                        type=float)
    epochs: int | None = option(None, "passes over the training images (default: 200 for digits and frey, else 20)",
                                type=int)
    batch_size: int = option(100, "images per step", type=int)
    optimizer: str = option("adam", "step rule", choices=OPTIMIZERS)
    lr: float | None = option(None, "step size (default: 0.01 for digits, else 0.001)", type=float)
    beta: float = option(1.0, "weight of the KL term; 1 is the VAE", type=float)
    kl_warmup: float = option(0.0, "epochs over which that weight rises linearly from 0", type=float)
    free_bits: float = option(0.0, "nats of KL per latent that cost nothing", type=float)
    dtype: str = option("float32", "precision of the arithmetic", choices=DTYPES)
    seed: int = option(0, "seed of weights, shuffling, binarization and noise", type=int)
    device: str = option("cpu", "where level 2 computes: cpu, cuda, cuda:1, ... (level 1 knows the cpu only)")
    out: str | None = option(None, "folder for the results (default: runs/LEVEL-DATA-ARCH-LATENT)")
    resume: bool = option(False, "go on from the checkpoint in --out, with the options of that run",
                          action="store_true")
    init_from: str | None = option(None, "start from these weights, a params.npz of any level, and their architecture")
    given: frozenset = frozenset()

    @classmethod
    def parse(cls, level: str, description: str, argv=None) -> "Options":
        """Reads the command line; exits with 2 where argparse refuses, raises InputError where a value is out of range."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                                         argument_default=argparse.SUPPRESS, allow_abbrev=False)
        for item in fields(cls):
            if item.name != "given":
                settings = dict(item.metadata)
                if item.default is not None and item.default is not False:
                    settings["help"] += f" (default: {item.default})"
                parser.add_argument("--" + item.name.replace("_", "-"), **settings)
        given = vars(parser.parse_args(argv))
        if given.get("resume"):
            given = cls._recorded(level, given)
        options = cls(**given, given=frozenset(given))
        options.check(level)
        return options

    @classmethod
    def _recorded(cls, level, given):
        """The options of the run to resume, under those given now, which may only move its end or where it computes."""
        folder = Path(cls(**given).folder(level))
        if not (folder / "checkpoint.npz").exists():
            return given                                    # nothing to go on from: from the beginning
        recorded = load_checkpoint(folder / "checkpoint.npz")[1].get("options", {})
        for name in given.keys() - {"epochs", "data_dir", "device", "out", "resume"}:
            if given[name] != recorded.get(name):
                flag = "--" + name.replace("_", "-")
                raise InputError(f"the run in {folder} has {flag} {recorded.get(name)}, not {given[name]}: leave {flag} "
                                 "out to go on, or start anew in another --out folder")
        return recorded | given

    def check(self, level):
        for name in ("batch_size", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}: give a whole number of at least 1")
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"--lr is {self.lr}: give a positive step size, such as 0.001")
        if not (math.isfinite(self.kl_warmup) and self.kl_warmup >= 0):
            raise InputError(f"--kl-warmup is {self.kl_warmup}: give a number of epochs, 0 or more")
        if self.seed < 0:
            raise InputError(f"--seed is {self.seed}: give a whole number of at least 0")
        check_weights(self.beta, self.free_bits)
        if self.data == "npz" and self.data_file is None:
            raise InputError("--data npz wants your images: add --data-file FILE.npz")
        if self.data_file is not None and self.data != "npz":
            raise InputError(f"--data-file goes with --data npz, but --data is {self.data}: add --data npz or leave it out")
        if level == "numpy" and self.device != "cpu":
            raise InputError(f"--device is {self.device}: NumPy runs on the cpu; pytorch_lowlevel/train_lowlevel.py "
                             "knows --device cuda")

    def folder(self, level) -> str:
        return self.out or f"runs/{level}-{self.data}-{self.arch}-{self.latent}"


class Run:
    """One training run: its data, configuration, starting point and folder.

    config, options, lr, rng        what the loop reads; `rng` is the one generator of shuffling, binarization and noise
    params, state                   NumPy arrays to begin with: drawn, taken from weights, or the checkpoint's
    x_test                          (N, D) test images, binarized once
    """

    def __init__(self, level: str, options: Options):
        """Loads all that the run needs and checks it; raises InputError before anything is written."""
        self.options = options
        self.out = Path(options.folder(level))
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"--out {self.out} is a file: give a folder")
        self.dtype = np.dtype(options.dtype)
        self.data = load_dataset(options.data, options.data_dir, options.data_file)
        self.epochs_wanted = options.epochs or SMALL_SET_EPOCHS.get(options.data, EPOCHS)
        self.lr = options.lr or SMALL_SET_LR.get(options.data, LR)
        checkpoint = self.out / "checkpoint.npz"
        if options.resume and checkpoint.exists():
            groups, facts = load_checkpoint(checkpoint)
            self.config = VAEConfig.from_json(json.dumps(facts["config"]))
        elif options.init_from is not None:
            groups = None
            weights, self.config = load_params(options.init_from)
            self._check_weights_fit()
        else:
            groups = weights = None
            self.config = VAEConfig(options.arch, self.data.image_shape, options.hidden, options.latent, options.likelihood,
                                    fixed_logvar=options.fixed_logvar)

        self.how = options.binarize or ("dynamic" if self.config.likelihood == "bernoulli" else "none")
        if self.data.binary:
            self.how = "none"
        elif self.how == "none" and self.config.likelihood == "bernoulli":
            print("warning: gray pixels under a Bernoulli likelihood are not drawn from it: the bound is no longer that of "
                  "a distribution over images; --binarize dynamic makes it one", file=sys.stderr)

        # One generator, one order: weights, static binarization, then permutation, binarization and noise of each epoch.
        self.rng = np.random.default_rng(options.seed)
        params = init_params(self.config, self.rng)
        self.x_train = self.data.x_train
        if self.how in ("static", "threshold"):
            self.x_train = binarize(self.x_train, self.how, self.rng)
        self.x_test = eval_images(self.data, self.how, self.dtype)
        if groups is not None:
            self._restore(checkpoint, groups, facts)
            return
        if weights is not None:
            params = weights
        elif self.config.likelihood == "bernoulli":
            set_output_bias(params, self.config, pixels(self.x_train).mean(axis=0))
        self.params = {name: array.astype(self.dtype) for name, array in params.items()}
        self.state, self.rows, self.frames, self.done = {}, [], {}, 0

    def _check_weights_fit(self):
        """Raises InputError where the weights of --init-from are for other images or another model than asked for."""
        file, config = self.options.init_from, self.config
        for name in ("arch", "hidden", "latent", "likelihood", "fixed_logvar"):
            if name in self.options.given and getattr(self.options, name) != getattr(config, name):
                raise InputError(f"--init-from {file} holds a model with {name} {getattr(config, name)}, not "
                                 f"{getattr(self.options, name)}: leave --{name.replace('_', '-')} out")
        check_one_layer(config)
        if config.image_shape != self.data.image_shape:
            raise InputError(f"--init-from {file} is for images of {side_by_side(config.image_shape)}, but those of "
                             f"{self.data.name} are {side_by_side(self.data.image_shape)}: choose another --data")

    def _restore(self, checkpoint, groups, facts):
        try:
            self.params = groups["params"]
            self.state = facts["state"] | {name: groups[f"state.{name}"] for name in facts["state groups"]}
            self.rng.bit_generator.state = facts["rng"]
            self.rows, self.done = facts["rows"], facts["epoch"]
            self.frames = {int(epoch): frame for epoch, frame in groups["frames"].items()}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{checkpoint} is not a checkpoint of this program ({error!r}): "
                             "remove it, or start anew in another --out folder") from error
        check_params(self.params, self.config, checkpoint)
        print(f"going on from {checkpoint}: {self.done} of {self.epochs_wanted} epochs done")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is KeyboardInterrupt:
            print(f"\nstopped: {self.out / 'checkpoint.npz'} holds epoch {self.done}; the same command with --resume "
                  "goes on", file=sys.stderr)

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
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            for name in PICTURES:                                       # of an earlier run in this folder
                (self.out / f"{name}.png").unlink(missing_ok=True)
            self._keep()
        except OSError as error:
            raise InputError(f"cannot write into --out {self.out} ({error.strerror}): give another folder") from error

    def epochs(self):
        """The numbers of the epochs still to do, counted from 1."""
        return range(self.done + 1, self.epochs_wanted + 1)

    def minibatches(self, epoch: int):
        """Yields (epochs done so far, x (B, D)): the training images once, shuffled, binarized as asked."""
        size, count = self.options.batch_size, len(self.x_train)
        self.sums, self.clock = {"log_likelihood": 0.0, "kl": 0.0}, time.perf_counter()
        order = self.rng.permutation(count)
        how = "dynamic" if self.how == "dynamic" else "none"            # static and threshold were done at the start
        bar = tqdm(range(0, count, size), f"epoch {epoch}", leave=False, disable=not sys.stderr.isatty(), unit="step")
        for start in bar:
            rows = order[start:start + size]
            yield epoch - 1 + start / count, binarize(self.x_train[rows], how, self.rng, self.dtype)

    def add(self, terms, count: int):
        """Adds a minibatch to the epoch's mean, weighted by its number of images: the last one may be smaller."""
        for name in self.sums:
            self.sums[name] += float(terms[name]) * count / len(self.x_train)

    def end_epoch(self, epoch: int):
        """Evaluates, prints the epoch's line and keeps everything; raises InputError where the run has diverged."""
        seconds = time.perf_counter() - self.clock
        row = {"epoch": epoch}
        for split, terms in (("train", self.sums), ("test", self.evaluate())):
            row[f"{split}_elbo"] = terms["log_likelihood"] - terms["kl"]
            row[f"{split}_log_likelihood"], row[f"{split}_kl"] = terms["log_likelihood"], terms["kl"]
        row["seconds"], row["images_per_second"] = seconds, len(self.x_train) / seconds
        if not all(math.isfinite(value) for value in row.values()):
            cure = f"try a smaller --lr than {self.lr}"
            if self.config.likelihood == "gaussian" and self.config.fixed_logvar is None:
                cure += " or --fixed-logvar -3 (pixels that never change let a learnt variance shrink to nothing)"
            raise InputError(f"the bound is not finite after epoch {epoch}: {cure}; {self.out / 'checkpoint.npz'} holds "
                             f"epoch {self.done}")
        print(epoch_line(row, len(str(self.epochs_wanted))), flush=True)
        self.rows.append(row)
        self.done = epoch
        self._keep()

    def _keep(self):
        """Writes the weights, the curve and the checkpoint of the epoch that has just ended."""
        params, state = self.snapshot()
        if self.done in FILMSTRIP_EPOCHS:
            self.frames[self.done] = self.decode_mean(figures().latent_grid(self.config.latent, side=10).astype(self.dtype))
        options = {name: value for name, value in asdict(self.options).items() if name != "given"}
        arrays = {f"state.{name}": value for name, value in state.items() if isinstance(value, dict)}
        facts = {
            "epoch": self.done, "rows": self.rows, "options": options, "config": asdict(self.config),
            "rng": self.rng.bit_generator.state, "state groups": [name.removeprefix("state.") for name in arrays],
            "state": {name: value for name, value in state.items() if not isinstance(value, dict)},
        }
        frames = {str(epoch): frame for epoch, frame in self.frames.items()}
        save_checkpoint(self.out / "checkpoint.npz", {"params": params, "frames": frames, **arrays}, facts)
        save_params(self.out / "params.npz", params, self.config)
        write_text(self.out / "config.json", json.dumps(options, indent=2) + "\n")
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.out / "metrics.csv", table.getvalue())

    def finish(self):
        """Draws the pictures and says where the most telling one is."""
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


def side_by_side(image_shape) -> str:
    return "{} x {}".format(*image_shape)


def epoch_line(row, width: int) -> str:
    """One aligned line: the bounds in nats per image, the speed of the training steps."""
    return (f"epoch {row['epoch']:{width}d} | train elbo {row['train_elbo']:8.2f} | test elbo {row['test_elbo']:8.2f} "
            f"= log p(x|z) {row['test_log_likelihood']:8.2f} - kl {row['test_kl']:6.2f} "
            f"| {row['images_per_second']:7,.0f} images/s")


def run_command(main) -> int:
    """Runs a script's main: 2 and one line on standard error for what the user can mend, 130 after Ctrl-C."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
