"""The command lines' shared part: the options of a training run, and how a script ends.

    options = Options.parse("numpy", __doc__, argv)
    sys.exit(run_command(main))
"""

import argparse
import math
import os
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path

from common.checkpoints import load_checkpoint
from common.config import ARCHITECTURES, LIKELIHOODS, InputError, check_objective
from common.data import BINARIZE, DATASETS

OPTIMIZERS = ("sgd", "adagrad", "adam")
DTYPES = ("float32", "float64")


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
        values = _read(description, argv, cls)
        given = frozenset(values)
        if values.get("resume"):
            values, given = cls._recorded(level, values)
        options = cls(**values, given=given)
        options.check(level)
        return options

    @classmethod
    def _recorded(cls, level, given):
        """The options of the run to resume, under those given now, which may only move its end or where it computes;
        and the names of all that were ever given."""
        folder = Path(cls(**given).folder(level))
        if not (folder / "checkpoint.npz").exists():
            return given, frozenset(given)                  # nothing to go on from: from the beginning
        recorded = load_checkpoint(folder / "checkpoint.npz")[1].get("options")
        if not isinstance(recorded, dict) or recorded.keys() - {item.name for item in fields(cls)}:
            raise InputError(f"{folder / 'checkpoint.npz'} was not written by this version of the program: remove it, or "
                             "start anew in another --out folder")
        for name in given.keys() - {"epochs", "data_dir", "device", "out", "resume"}:
            if given[name] != recorded.get(name):
                flag = "--" + name.replace("_", "-")
                raise InputError(f"the run in {folder} has {flag} {recorded.get(name)}, not {given[name]}: leave {flag} "
                                 "out to go on, or start anew in another --out folder")
        written = recorded.pop("given", [])
        return recorded | given, frozenset(written) | given.keys()

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
        check_objective(self.beta, self.free_bits)
        if level == "numpy" and self.device != "cpu":
            raise InputError(f"--device is {self.device}: NumPy runs on the cpu; pytorch_lowlevel/train_lowlevel.py "
                             "knows --device cuda")

    def folder(self, level) -> str:
        return self.out or f"runs/{level}-{self.data}-{self.arch}-{self.latent}"


def _read(description, argv, *groups) -> dict:
    """The options given on the command line, by name: one for each field of the dataclasses `groups`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     argument_default=argparse.SUPPRESS, allow_abbrev=False)
    for item in (item for group in groups for item in fields(group) if item.name != "given"):
        settings = dict(item.metadata)
        if item.default is not None and item.default is not False:
            settings["help"] += f" (default: {item.default})"
        parser.add_argument("--" + item.name.replace("_", "-"), **settings)
    return vars(parser.parse_args(argv))


def parse_options(description: str, argv, *groups, defaults=lambda given: {}):
    """One instance of each dataclass of options, from one command line; exits with 2 where argparse refuses.

    defaults(given) may give other defaults than the dataclasses, depending on what the user wrote.
    """
    given = _read(description, argv, *groups)
    values = defaults(given) | given
    return [group(**{item.name: values[item.name] for item in fields(group) if item.name in values}) for group in groups]


def run_command(main) -> int:
    """Runs a script's main: 2 and one line on standard error for what the user can mend, 130 after Ctrl-C, and 141 where
    whoever read the output has seen enough, as `head` has."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())       # or Python complains once more when it ends
        return 141
    return 0
