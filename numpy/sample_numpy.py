"""A door for trained weights: pictures from a params.npz of any level.

    python numpy/sample_numpy.py --weights runs/numpy-digits-mlp-2/params.npz                    # 100 draws from the prior
    python numpy/sample_numpy.py --weights FILE.npz --samples 400
    python numpy/sample_numpy.py --weights FILE.npz --reconstruct --data mnist
    python numpy/sample_numpy.py --weights FILE.npz --interpolate --data mnist
    python numpy/sample_numpy.py --weights FILE.npz --label 3                     # of a conditional VAE: draws of a 3

Writes one picture beside the weights, or into --out, and prints its path.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from networks_numpy import decode_mean, encode, layer

from common import figures
from common.checkpoints import load_params
from common.cli import run_command
from common.config import InputError, check_labels
from common.data import DATASETS, check_fits, default_binarize, eval_images, load_dataset

ROWS, WALK = 10, 11                     # of the reconstructions; of the walks from one image to another


def interpolations(params, x_from, x_to, config):
    """Straight walks between the posterior means of two images each: (N, D), (N, D) -> (N, WALK, D)."""
    mu_from, mu_to = encode(params, x_from, config)[0], encode(params, x_to, config)[0]            # (N, J)
    along = np.linspace(0, 1, WALK, dtype=np.float32)[:, None]                                     # (WALK, 1)
    z = mu_from[:, None] * (1 - along) + mu_to[:, None] * along                                    # (N, WALK, J)
    return decode_mean(params, z.reshape(-1, config.latent), config).reshape(len(z), WALK, -1)


def given_label(params, config, label):
    """A conditional VAE told one label is a plain VAE: the label's column of both first layers joins their bias.

    Returns that VAE's params and config. Raises InputError for a label that the weights do not know.
    """
    check_labels(np.array([label]), 1, config)
    plain = dict(params)
    for name, inputs in (("encoder.hidden", config.pixels), ("decoder.hidden", config.latent)):
        weight, bias = layer(params, name)                                         # (H, inputs + C), (H,)
        plain[f"{name}.weight"], plain[f"{name}.bias"] = weight[:, :inputs], bias + weight[:, inputs + label]
    return plain, replace(config, condition=0)


def shuffled_images(config, options):
    """Test images of the data set in random order, with --label those of that label: (N, D). Raises InputError where they
    do not fit the weights."""
    data = load_dataset(options.data, options.data_dir, options.data_file)
    check_fits(data, config, f"--weights {options.weights}")
    x = eval_images(data, default_binarize(data, config.likelihood))
    if options.label is not None:
        if data.y_test is None or options.label not in data.y_test:
            raise InputError(f"{data.name} has no test image with the label {options.label}: choose another --data")
        x = x[data.y_test == options.label]
    return np.random.default_rng(options.seed).permutation(x)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument("--weights", required=True, metavar="FILE.npz", help="weights that any level wrote")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--samples", type=int, default=100, metavar="N", help="decode N draws from the prior (default: 100)")
    what.add_argument("--reconstruct", action="store_true", help="test images above their reconstructions")
    what.add_argument("--interpolate", action="store_true", help="walks between pairs of test images, through the latents")
    parser.add_argument("--label", type=int, help="the label that a conditional VAE is told")
    parser.add_argument("--data", choices=DATASETS, default="digits", help="where the images come from (default: digits)")
    parser.add_argument("--data-file", help="your own images, with --data npz")
    parser.add_argument("--data-dir", help="folder of the data sets (default: $VAE_DATA, else data/)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws and of the choice of images (default: 0)")
    parser.add_argument("--out", help="folder for the picture (default: that of the weights)")
    options = parser.parse_args(argv)
    for name, least in (("samples", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}: give a whole number of at least {least}")
    return options


def main(argv=None):
    options = parse(argv)
    params, config = load_params(options.weights)
    params = {name: array.astype(np.float32) for name, array in params.items()}
    if config.condition and options.label is None:
        raise InputError(f"--weights {options.weights} holds a conditional VAE: give --label, 0 to {config.condition - 1}")
    if options.label is not None:
        params, config = given_label(params, config, options.label)
    out = Path(options.out) if options.out else Path(options.weights).parent
    if options.reconstruct:
        x = shuffled_images(config, options)[:ROWS]
        def draw(path):
            figures.reconstructions(path, x, decode_mean(params, encode(params, x, config)[0], config), config.image_shape)
        name = "reconstructed"
    elif options.interpolate:
        x = shuffled_images(config, options)
        count = min(ROWS, len(x) // 2)
        if not count:
            raise InputError(f"--interpolate wants two test images, and {options.data} has {len(x)}: choose another --data")
        x_from, x_to = x[:count], x[count:2 * count]
        def draw(path):
            figures.interpolations(path, x_from, interpolations(params, x_from, x_to, config), x_to, config.image_shape)
        name = "interpolated"
    else:
        z = np.random.default_rng(options.seed).standard_normal((options.samples, config.latent))  # (N, J)
        images = decode_mean(params, z.astype(np.float32), config)                                 # (N, D)
        def draw(path):
            figures.prior_samples(path, images, config.image_shape)
        name = "sampled"
    try:
        out.mkdir(parents=True, exist_ok=True)
        draw(out / f"{name}.png")
    except OSError as error:
        raise InputError(f"cannot write into --out {out} ({error.strerror}): give another folder") from error
    print(f"picture: {out / name}.png")


if __name__ == "__main__":
    sys.exit(run_command(main))
