"""Trains the weights of the exercises, exercises/weights/*.npz, by the project's own command, and keeps them small.

    python exercises/train_weights.py                      # all ten: digits in a minute, MNIST in half an hour on one core
    python exercises/train_weights.py digits-vae-2 mnist-vae-2

Each is a run of paper/train_paper.py, which is printed first; weights that exist are trained anew when they are named.
They are stored in half precision (float16, three digits), which changes no digit that one could see, and load as float32.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from common.checkpoints import load_params, save_params
from common.cli import run_command
from common.config import InputError

HERE = Path(__file__).resolve().parent
COMMON = "--hidden 200 --binarize threshold --schedule one-cycle"
DATA = {"digits": "--data digits --epochs 400 --lr 0.01", "mnist": "--data mnist --epochs 40 --lr 0.003 --matmul medium"}
MODELS = {
    "vae-2": "--model vae --latent 2",
    "vae-20": "--model vae --latent 20",
    "autoencoder-2": "--model autoencoder --latent 2",
    "autoencoder-20": "--model autoencoder --latent 20",
    "conditional-vae-5": "--model conditional-vae --latent 5",
}
RUNS = {f"{data}-{model}": f"{MODELS[model]} {DATA[data]} {COMMON}" for data in DATA for model in MODELS}


def train(name: str):
    """Trains one, rounds it and writes exercises/weights/NAME.npz."""
    with tempfile.TemporaryDirectory() as folder:
        script = HERE.parent / "paper" / "train_paper.py"
        print(f"python paper/train_paper.py {RUNS[name]}", flush=True)
        done = subprocess.run([sys.executable, script, *shlex.split(RUNS[name]), "--evaluate-every", "10", "--out", folder])
        if done.returncode:
            raise InputError(f"{name} was not trained: see the error above")
        params, config = load_params(Path(folder) / "params.npz")
    path = HERE / "weights" / f"{name}.npz"
    save_params(path, {weight: array.astype(np.float16) for weight, array in params.items()}, config)
    print(f"{path.relative_to(HERE.parent)}: {path.stat().st_size / 1000:,.0f} kB\n", flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)} (default: those that are missing)")
    options = parser.parse_args(argv)
    unknown = set(options.names) - set(RUNS)
    if unknown:
        raise InputError(f"there are no weights {', '.join(sorted(unknown))}: choose from {', '.join(RUNS)}")
    for name in options.names or [name for name in RUNS if not (HERE / "weights" / f"{name}.npz").exists()]:
        train(name)


if __name__ == "__main__":
    sys.exit(run_command(main))
