"""What every exercise starts with: images to look at, weights that are trained already, pictures inside the notebook.

    from exercises import lab
    x, y = lab.test_images("digits")                        # (179, 64) zeros and ones, and their labels (179,)
    params, config = lab.weights("digits", "vae-2")         # for networks_numpy.encode and decode_mean
    lab.show(figures.prior_samples, images, config.image_shape)
"""

import tempfile
from pathlib import Path

import numpy as np
from IPython.display import Image

from common import figures
from common.checkpoints import load_params
from common.config import InputError, VAEConfig
from common.data import binarize, eval_images, load_dataset

WEIGHTS = Path(__file__).resolve().parent / "weights"


def test_images(data: str) -> tuple[np.ndarray, np.ndarray]:
    """The test images of "digits" or "mnist", 1 where a pixel is brighter than one half, and their labels: (N, D), (N,)."""
    loaded = load_dataset(data)
    return eval_images(loaded, "threshold"), loaded.y_test


def train_images(data: str) -> tuple[np.ndarray, np.ndarray]:
    """The training images in the same way: (N, D), (N,)."""
    loaded = load_dataset(data)
    return binarize(loaded.x_train, "threshold", rng=None), loaded.y_train


def weights(data: str, model: str) -> tuple[dict[str, np.ndarray], VAEConfig]:
    """Trained weights, float32, and their configuration: model is one of those that exercises/weights/README.md lists."""
    path = WEIGHTS / f"{data}-{model}.npz"
    if not path.exists():
        there = ", ".join(sorted(file.stem for file in WEIGHTS.glob("*.npz")))
        raise InputError(f"there are no weights {path.stem} in {WEIGHTS}: choose one of {there}")
    return load_params(path)


def show(picture, *arguments, **settings) -> Image:
    """A picture of common/figures.py, whose first argument is the path, shown in the notebook instead of written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        picture(path, *arguments, **settings)
        return Image(path.read_bytes())


def pictures(images, image_shape, columns: int, title: str) -> Image:
    """Images (N, D) row by row, so many in a row, under a title."""
    def draw(path):
        figure, rows = figures.new_figure(), -(-len(images) // columns)
        zoom = figures.zoom_for(image_shape, rows, columns)
        figures.show(figure, figures.tile(images, image_shape, columns, zoom), title=title)
        figures.save(figure, path)
    return show(draw)
