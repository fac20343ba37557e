"""Writes the latent explorer: one page with everything in it, weights too, that opens by a double click.

    python exercises/explorer/build.py                                      # exercises/explorer/index.html, from MNIST
    python exercises/explorer/build.py --data digits --weights exercises/weights/digits-vae-2.npz --out digits.html
    python exercises/explorer/build.py --data frey --weights FILE.npz --out faces.html

Weights of any level will do; their configuration says what they are for. A conditional model gets labels to press, one of
two latents the map, any other sliders. --weights takes one file or several, one of each kind.

Sources: page.html, explorer.css, and the scripts model.js (the VAE), text.js (English and Korean), explorer.js (the page).
"""

import argparse
import base64
import json
import math
import sys
from pathlib import Path

import numpy as np
from losses_numpy import kl_divergence
from networks_numpy import encode

from common.checkpoints import load_params, write_text
from common.cli import run_command
from common.config import InputError, check_labels
from common.data import DATASETS, check_fits, eval_images, load_dataset, pixels

HERE = Path(__file__).resolve().parent
SOURCES = {"/* explorer.css */": "explorer.css", "/* model.js */": "model.js", "/* text.js */": "text.js",
           "/* explorer.js */": "explorer.js"}
DEFAULT = ("mnist-vae-2", "mnist-vae-20", "mnist-conditional-vae-5")
DOTS, IMAGES = 2000, 100            # posterior means on the map, test images to choose from

# N images, D pixels, J latents


def base64_of(array) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def kind(config) -> str:
    """Which part of the page a model is for."""
    return "labels" if config.condition else "map" if config.latent == 2 else "sliders"


def halves(path):
    """The weights of one file as float16, which the page holds, and their configuration.

    Raises InputError for a model that the page cannot compute.
    """
    params, config = load_params(path)
    if config.arch != "mlp":
        raise InputError(f"--weights {path} has arch {config.arch}: the page computes the mlp only, give weights of one")
    if config.layers != 1:
        raise InputError(f"--weights {path} has layers={config.layers}: the page computes one hidden layer a side, "
                         "give weights of such a model")
    with np.errstate(over="ignore"):                        # said in the next line
        params = {name: array.astype("<f2") for name, array in params.items()}
    for name, array in params.items():
        if not np.isfinite(array).all():
            raise InputError(f"--weights {path}: {name} holds numbers beyond 65,504, which float16 cannot hold")
    return params, config


def load_models(paths) -> dict:
    """The models by kind: {"map": (path, params, config), ...}. Raises InputError where they do not fit on one page."""
    models = {}
    for path in paths:
        params, config = halves(path)
        if kind(config) in models:
            raise InputError(f"--weights {path} and {models[kind(config)][0]} are both for the {kind(config)} of the page: "
                             "give one of them")
        models[kind(config)] = path, params, config
    likelihoods = {config.likelihood for _, _, config in models.values()}
    if len(likelihoods) > 1:
        raise InputError("--weights mixes Bernoulli and Gaussian models, black and white images and gray ones: "
                         "make a page of each")
    return {name: models[name] for name in ("map", "sliders", "labels") if name in models}


def check_data(data, models):
    """Raises InputError where the data set does not fit the models."""
    for path, _, config in models.values():
        check_fits(data, config, f"--weights {path}")
        if config.condition:
            if data.y_test is None:
                raise InputError(f"--weights {path} is a conditional model, and {data.name} has no labels: "
                                 "choose another --data")
            check_labels(data.y_test, len(data.y_test), config)


def model_facts(path, params, config, x, y, shown) -> dict:
    """What the page knows of one model: its weights, the KL of each latent in nats, how far the latents go."""
    exact = {name: array.astype(np.float64) for name, array in params.items()}
    mu, logvar = encode(exact, x, config, y if config.condition else None)                  # (N, J)
    limit = max(3.0, math.ceil(2 * float(np.abs(mu).max())) / 2)
    facts = {"file": Path(path).name, "latent": config.latent, "hidden": config.hidden, "condition": config.condition,
             "likelihood": config.likelihood, "limit": limit,
             "kl": [round(float(nats), 3) for nats in kl_divergence(mu, logvar).mean(axis=0)],
             "params": {name: base64_of(array) for name, array in params.items()}}
    if kind(config) == "map":                               # from 0 to 65535 for -limit to limit
        facts["means"] = base64_of(np.round((mu[shown] / limit + 1) * 32767.5).astype("<u2"))
    return facts


def packed(x, binary: bool) -> str:
    """Images (N, D) in [0, 1]: eight pixels a byte where they are black and white, else one."""
    return base64_of(np.packbits(x > 0.5, axis=1) if binary else np.round(x * 255).astype(np.uint8))


def box(data) -> int:
    """How long the longer side of what is drawn usually is, in pixels: 20 for MNIST."""
    ink = (pixels(data.x_test) > 0).reshape(-1, *data.image_shape)                          # (N, h, w)
    lengths = []
    for rows in (ink.any(axis=2), ink.any(axis=1)):                                         # (N, h), (N, w)
        lengths.append(rows.shape[1] - rows.argmax(axis=1) - rows[:, ::-1].argmax(axis=1))
    return int(np.median(np.maximum(*lengths)[ink.any(axis=(1, 2))]))


def page(models: dict, data) -> str:
    """The whole page."""
    likelihood = next(iter(models.values()))[2].likelihood
    binary = likelihood == "bernoulli"                      # cut at one half, as the page cuts what is drawn on it
    x = eval_images(data, "threshold" if binary else "none", np.float64)                    # (N, D)
    order = np.random.default_rng(0).permutation(len(x))
    shown, images = order[:DOTS], order[:IMAGES]
    facts = {
        "data": data.name, "imageShape": data.image_shape, "likelihood": likelihood, "box": box(data),
        "images": packed(x[images], binary), "imageCount": len(images),
        "imageLabels": None if data.y_test is None else data.y_test[images].tolist(),
        "dotLabels": None if data.y_test is None else data.y_test[shown].tolist(),
        "models": {name: model_facts(*model, x, data.y_test, shown) for name, model in models.items()},
    }
    text = (HERE / "page.html").read_text("utf-8")
    for place, source in SOURCES.items():
        text = text.replace(place, (HERE / source).read_text("utf-8").strip())
    told = json.dumps(facts, separators=(",", ":")).replace("<", "\\u003c")     # nothing in it may end the script
    return text.replace("/* data */", told)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument("--weights", nargs="+", metavar="FILE.npz", help="weights that any level wrote, one file of each "
                        f"kind (default: {', '.join(DEFAULT)} of exercises/weights)",
                        default=[HERE.parent / "weights" / f"{name}.npz" for name in DEFAULT])
    parser.add_argument("--data", choices=DATASETS, default="mnist", help="whose test images are on the map and to choose "
                        "from (default: mnist)")
    parser.add_argument("--data-file", help="your own images, with --data npz")
    parser.add_argument("--data-dir", help="folder of the data sets (default: $VAE_DATA, else data/)")
    parser.add_argument("--out", type=Path, default=HERE / "index.html",
                        help="the page to write (default: exercises/explorer/index.html)")
    return parser.parse_args(argv)


def main(argv=None):
    options = parse(argv)
    models = load_models(options.weights)
    data = load_dataset(options.data, options.data_dir, options.data_file)
    check_data(data, models)
    text = page(models, data)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.out, text)
    except OSError as error:
        raise InputError(f"cannot write --out {options.out} ({error.strerror}): give another file") from error
    print(f"page: {options.out} ({options.out.stat().st_size / 1e6:.1f} MB: {', '.join(models)})")


if __name__ == "__main__":
    sys.exit(run_command(main))
