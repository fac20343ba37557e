"""Data: six sets of images, each checked before it is used, and the four ways of making gray pixels binary.

    from common.data import binarize, load_dataset, pixels
    data = load_dataset("digits")                       # or mnist, binary-mnist, frey, sprites, npz
    x = binarize(data.x_train[:100], "dynamic", rng)    # (100, D), zeros and ones

    digits         1,797 real 8 x 8 digits that come with scikit-learn: no file, no network
    mnist          60,000 + 10,000 digits, 28 x 28; <root>/MNIST/raw, downloaded when absent
    binary-mnist   50,000 + 10,000 + 10,000 digits, binarized once and for all; <root>/BinaryMNIST
    frey           1,965 frames of a face, 28 high x 20 wide; <root>/frey_rawface.mat
    sprites        737,280 shapes, 64 x 64, whose five factors are known; made on demand, see common/sprites.py
    npz            your own images in an .npz file

<root> is the argument data_dir, else $VAE_DATA, else data/. A set that cannot be had is an error, never another set.
"""

import gzip
import hashlib
import http.client
import io
import os
import socket
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.checkpoints import UNREADABLE, atomic_write
from common.config import InputError, VAEConfig, side_by_side
from common.sprites import SIDE, Sprites

# N images, D pixels of an image: height * width, in reading order

DATASETS = ("digits", "mnist", "binary-mnist", "frey", "sprites", "npz")
BINARIZE = ("dynamic", "static", "threshold", "none")
SPLIT_SEED = 2014           # parts the sets that come unsplit: digits and frey
EVAL_SEED = 1312            # binarizes test images: the same ones for every training seed
SPRITES_TEST = 10_000       # sprites that are drawn to evaluate on
DOWNLOAD_TIMEOUT = 20       # seconds of silence before a download gives up

# name: (bytes, sha256), both of the unpacked file
MNIST_FILES = {
    "train-images-idx3-ubyte": (47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
BINARY_MNIST_FILES = {
    "binarized_mnist_train.amat": (78400000, "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"),
    "binarized_mnist_valid.amat": (15680000, "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"),
    "binarized_mnist_test.amat": (15680000, "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"),
}
FREY_FILE = "frey_rawface.mat"
FREY_SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"    # of the pixels: the file has a date

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
BINARY_MNIST_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
FREY_URL = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in three parts. `pixels` brings them to [0, 1].

    x_train, x_valid, x_test   (N, D), uint8 in 0..255 or float32 in [0, 1]; x_valid is None where there is no such part,
                               and x_train of sprites makes the rows it is asked for
    y_train, y_valid, y_test   (N,) int64 labels, or None
    image_shape                (height, width) in pixels
    binary                     every pixel is black or white already, so that binarize changes nothing
    """

    name: str
    image_shape: tuple[int, int]
    x_train: np.ndarray | Sprites
    x_valid: np.ndarray | None
    x_test: np.ndarray
    y_train: np.ndarray | None = None
    y_valid: np.ndarray | None = None
    y_test: np.ndarray | None = None
    binary: bool = False


def load_dataset(name, data_dir=None, data_file=None, download=True) -> Dataset:
    """The data set called `name`, one of DATASETS.

    data_dir   the folder of the files, for mnist, binary-mnist and frey; without it $VAE_DATA, else data/
    data_file  the .npz file, for npz only: x_train and, if you like, x_test, both (N, height, width) in uint8 or in
               floats in [0, 1], and y_train and y_test, whole numbers. Without x_test the last tenth is held out
    download   whether mnist may be downloaded where its files are absent

    Raises InputError, one line naming the file and what to do, where a file is missing, damaged or something else.
    """
    if name not in DATASETS:
        raise InputError(f"data is {name!r}: choose one of {', '.join(DATASETS)}")
    if name == "npz" and data_file is None:
        raise InputError("--data npz wants your images: give them with --data-file FILE.npz")
    if name != "npz" and data_file is not None:
        raise InputError(f"--data-file {data_file} goes with --data npz, but --data is {name}: choose npz, or leave it out")
    if name == "digits":
        return _digits()
    if name == "sprites":
        return sprites_dataset()
    if name == "npz":
        return _npz(data_file)
    root = _root(data_dir)
    if name == "mnist":
        return _mnist(root / "MNIST" / "raw", download)
    return _binary_mnist(root / "BinaryMNIST") if name == "binary-mnist" else _frey(root / FREY_FILE)


def check_fits(data: Dataset, config: VAEConfig, source):
    """Raises InputError unless weights of this configuration, which come from `source`, are for images of this size."""
    if config.image_shape != data.image_shape:
        raise InputError(f"{source} is for images of {side_by_side(config.image_shape)}, those of {data.name} are "
                         f"{side_by_side(data.image_shape)}: choose another --data")


def hold_out(data: Dataset) -> Dataset:
    """The data set with the last tenth of its training images as x_valid, said aloud: for sets that have no such part."""
    if isinstance(data.x_train, Sprites):
        raise InputError(f"{data.name} has no images beyond those it trains on: leave patience out, none can be held out")
    if len(data.x_train) < 2:
        raise InputError(f"{data.name} has one training image: give at least two, one is held out for validation")
    held = max(1, len(data.x_train) // 10)
    print(f"{data.name} has no validation part: the last {held:,} of its {len(data.x_train):,} training images are held "
          "out for it")
    y_train, y_valid = (None, None) if data.y_train is None else (data.y_train[:-held], data.y_train[-held:])
    return replace(data, x_train=data.x_train[:-held], x_valid=data.x_train[-held:], y_train=y_train, y_valid=y_valid)


def pixels(x, dtype=np.float32) -> np.ndarray:
    """Pixels in [0, 1]: uint8 divided by 255, floats as they are (not copied where the dtype is right already)."""
    if x.dtype == np.uint8:
        return x.astype(dtype) / np.dtype(dtype).type(255)
    if x.dtype.kind != "f":
        raise InputError(f"pixels are {x.dtype}: give uint8 in 0..255 or floats in [0, 1]")
    return x.astype(dtype, copy=False)


def pixel_means(x) -> np.ndarray:
    """The mean of each pixel over the images x (N, D), uint8 or in [0, 1]: (D,) float32 in [0, 1]."""
    return x.pixel_means() if isinstance(x, Sprites) else pixels(x).mean(axis=0)


def binarize(x, how, rng, dtype=np.float32) -> np.ndarray:
    """Images x (N, D), uint8 or in [0, 1], as zeros and ones of `dtype`.

    dynamic    each pixel is 1 with probability x: call it on every minibatch, so that each epoch draws anew
    static     the same draw: call it once, before training
    threshold  1 where x > 0.5
    none       gray, as `pixels` gives it

    `rng` (a numpy Generator) is used by dynamic and static only; it draws N*D float32 numbers whatever `dtype` is, so
    that training in float32 and in float64 sees the same images. Raises InputError for another word.
    """
    if how not in BINARIZE:
        raise InputError(f"binarize is {how!r}: choose one of {', '.join(BINARIZE)}")
    if how == "none":
        return pixels(x, dtype)
    p = pixels(x)                                                           # (N, D) float32
    ones = p > 0.5 if how == "threshold" else rng.random(p.shape, dtype=np.float32) < p
    return ones.astype(dtype)


def default_binarize(data: Dataset, likelihood: str) -> str:
    """dynamic for gray pixels under a Bernoulli likelihood; none under a Gaussian or where pixels are binary already."""
    return "dynamic" if likelihood == "bernoulli" and not data.binary else "none"


def choose_binarize(data: Dataset, how: str | None, likelihood: str) -> str:
    """`how`, or the default where it is None or the pixels are binary already; warns of gray pixels that are no draws."""
    how = how if how and not data.binary else default_binarize(data, likelihood)
    if how == "none" and likelihood == "bernoulli" and not data.binary:
        print("warning: gray pixels under a Bernoulli likelihood are not drawn from it: the bound is no longer that of a "
              "distribution over images; --binarize dynamic makes it one", file=sys.stderr)
    return how


def eval_images(data: Dataset, how, dtype=np.float32) -> np.ndarray:
    """The test images (N, D) as every evaluation sees them: drawn once, from EVAL_SEED, whatever the training seed."""
    return binarize(data.x_test, how, np.random.default_rng(EVAL_SEED), dtype)


# ---- the six sets --------------------------------------------------------------------------------------------------


def _digits() -> Dataset:
    """1439 / 179 / 179 images in [0, 1]: of each digit a tenth to valid, a tenth to test, the same ones always."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)                 # (1797, 64) in 0..16
    x, y = (x / 16).astype(np.float32), y.astype(np.int64)
    rng = np.random.default_rng(SPLIT_SEED)
    part = np.zeros(len(y), int)                        # 0 train, 1 valid, 2 test
    for label in range(10):
        rows = rng.permutation(np.flatnonzero(y == label))
        tenth = round(len(rows) / 10)
        part[rows[:tenth]] = 1
        part[rows[tenth:2 * tenth]] = 2
    return Dataset("digits", (8, 8), *(x[part == i] for i in range(3)), *(y[part == i] for i in range(3)))


def _mnist(folder: Path, download: bool) -> Dataset:
    get = f"put the files of {MNIST_URL} (plain or .gz) into {folder}, or choose --data digits, which needs none"
    contents, missing = _read_set(folder, MNIST_FILES, f"delete it and run again to download it anew, or {get}")
    if missing and not download:
        raise InputError(f"{folder} lacks {', '.join(missing)}: {get}")
    if missing:
        contents |= _download_mnist(folder, missing, get)
    # an IDX file: a header of 4 bytes, and 4 more per dimension, then the numbers
    x_train, y_train, x_test, y_test = (np.frombuffer(contents[name], np.uint8)[16 if "images" in name else 8:]
                                        for name in MNIST_FILES)
    return Dataset("mnist", (28, 28), x_train.reshape(-1, 784).copy(), None, x_test.reshape(-1, 784).copy(),
                   y_train.astype(np.int64), None, y_test.astype(np.int64))


def _download_mnist(folder: Path, missing: list[str], get: str) -> dict[str, bytes]:
    """torchvision downloads to a temporary folder: only whole, checked files reach ours, and no junk that lies there
    can fool it into skipping the download."""
    print(f"downloading MNIST (12 MB) to {folder}", flush=True)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)          # torchvision opens URLs without a timeout
    try:
        import torchvision

        with tempfile.TemporaryDirectory() as temporary:
            torchvision.datasets.MNIST(temporary, download=True)
            fresh = Path(temporary) / "MNIST" / "raw"
            contents = {name: _read_known(fresh / name, MNIST_FILES[name], "try again") for name in missing}
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with atomic_write(folder / name) as file:
                file.write(content)
    except (ImportError, AssertionError, http.client.HTTPException, *UNREADABLE) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(f"cannot download {', '.join(missing)} ({reason}): {get}") from error
    finally:
        socket.setdefaulttimeout(timeout)
    return contents


def _binary_mnist(folder: Path) -> Dataset:
    """The binarization of Salakhutdinov and Murray (2008), in Larochelle's files. Pixels are 0 or 255; no labels."""
    get = (f"put the files of {BINARY_MNIST_URL} (plain or .gz) into {folder}, "
           "or choose --data digits, which needs none")
    contents, missing = _read_set(folder, BINARY_MNIST_FILES, f"delete it and {get}")
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}: {get}")
    parts = []
    for name in BINARY_MNIST_FILES:
        rows = np.frombuffer(contents[name], np.uint8).reshape(-1, 2 * 784)     # digit, blank, digit, ..., newline
        parts.append((rows[:, ::2] - ord("0")) * np.uint8(255))                 # (N, 784)
    return Dataset("binary-mnist", (28, 28), *parts, binary=True)


def _frey(path: Path) -> Dataset:
    """1565 / 200 / 200 frames, no labels. The paper names no split: ours is random from a fixed seed, each part in the
    order of the film. Neighboring frames are nearly alike, so every test frame has close kin in training."""
    import scipy.io

    get = f"get it from {FREY_URL}, or choose --data digits, which needs none"
    content = _read(path, get)
    try:
        x = scipy.io.loadmat(io.BytesIO(content), variable_names=["ff"])["ff"].T                # (1965, 560)
        if hashlib.sha256(np.ascontiguousarray(x)).hexdigest() != FREY_SHA256:
            raise ValueError("other pixels")
    except (scipy.io.matlab.MatReadError, *UNREADABLE) as error:
        raise InputError(f"{path} is damaged or does not hold the 1965 Frey faces: delete it and {get}") from error
    order = np.random.default_rng(SPLIT_SEED).permutation(len(x))
    x_test, x_valid, x_train = (x[np.sort(rows)] for rows in np.split(order, [200, 400]))
    return Dataset("frey", (28, 20), x_train, x_valid, x_test)


def sprites_dataset(sprites: Sprites | None = None) -> Dataset:
    """All sprites to train on, and a fixed draw of 10,000 of them to evaluate on: as with dSprites, no part of the grid is
    held out, and a test bound is a training bound. Another, smaller set of sprites makes a smaller data set. No labels."""
    sprites = Sprites() if sprites is None else sprites
    test = np.random.default_rng(SPLIT_SEED).permutation(len(sprites))[:SPRITES_TEST]
    return Dataset("sprites", (SIDE, SIDE), sprites, None, sprites[test], binary=True)


def _npz(path) -> Dataset:
    entries = _read_npz(Path(path))
    if "x_train" not in entries:
        raise InputError(f"{path} has no x_train: save one with np.savez(file, x_train=images), (N, height, width)")
    x_train = _check_images(path, "x_train", entries["x_train"])
    y_train = _check_labels(path, "y_train", entries.get("y_train"), len(x_train))
    if "x_test" in entries:
        x_test = _check_images(path, "x_test", entries["x_test"])
        if x_test.shape[1:] != x_train.shape[1:]:
            raise InputError(f"{path}: x_train is {x_train.shape} and x_test {x_test.shape}: make all images one size")
        y_test = _check_labels(path, "y_test", entries.get("y_test"), len(x_test))
    elif "y_test" in entries:
        raise InputError(f"{path} has y_test but no x_test: save the images too, or leave the labels out")
    elif len(x_train) < 2:
        raise InputError(f"{path} has one image and no x_test: give at least two images, one is held out for the test")
    else:
        held = max(1, len(x_train) // 10)
        print(f"{path} has no x_test: the last {held:,} of its {len(x_train):,} images are held out as the test set")
        x_train, x_test = x_train[:-held], x_train[-held:]
        y_train, y_test = (None, None) if y_train is None else (y_train[:-held], y_train[-held:])
    flat = [x.reshape(len(x), -1) for x in (x_train, x_test)]               # (N, height, width) -> (N, D)
    binary = all(((x == 0) | (x == (255 if x.dtype == np.uint8 else 1))).all() for x in flat)
    return Dataset("npz", x_train.shape[1:], flat[0], None, flat[1], y_train, None, y_test, binary)


# ---- files and checks ----------------------------------------------------------------------------------------------


def _root(data_dir) -> Path:
    for source, given in (("--data-dir", data_dir), ("$VAE_DATA", os.environ.get("VAE_DATA") or None)):
        if given is not None:
            if not os.path.isdir(given):
                raise InputError(f"the folder {str(given)!r} ({source}) does not exist: create it or name another")
            return Path(given)
    return Path("data")


def _read(path: Path, fix: str, limit: int = -1) -> bytes:
    """A file's contents, or their first `limit` bytes, unpacked where the name ends in .gz. Nothing is unpickled."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            return file.read(limit)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error              # strerror is the reason without the path
        raise InputError(f"cannot read {path} ({reason}): {fix}") from error


def _read_known(path: Path, known: tuple[int, str], fix: str) -> bytes:
    """All of a file whose size in bytes and sha256 we know."""
    size, sha256 = known
    content = _read(path, fix, limit=size + 1)          # one more than wanted tells "too long" without reading it all
    if len(content) != size:
        has = f"more than {size:,}" if len(content) > size else f"{len(content):,} instead of {size:,}"
        raise InputError(f"{path} is cut off or another file, it has {has} bytes: {fix}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path} has the right size but not the contents (sha256) of the known file: {fix}")
    return content


def _read_set(folder: Path, files: dict, fix: str) -> tuple[dict[str, bytes], list[str]]:
    """Contents by name of those `files` that are there, plain before .gz, and the names of those that are not."""
    contents = {}
    for name, known in files.items():
        for path in (folder / name, folder / f"{name}.gz"):
            if name not in contents and path.exists():
                contents[name] = _read_known(path, known, fix)
    return contents, [name for name in files if name not in contents]


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The four arrays that we know of an .npz file, as far as it has them."""
    fix = "write it with np.savez(file, x_train=images), plain numbers only"
    content = _read(path, "give an .npz file of np.savez")
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise InputError(f"{path} is not an .npz file or is cut off: {fix}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as entries:
            known = ("x_train", "y_train", "x_test", "y_test")
            return {name: np.asarray(entries[name]) for name in known if name in entries}
    except UNREADABLE as error:
        raise InputError(f"{path} is damaged or holds Python objects, which are never unpickled: {fix}") from error


def _check_images(path, name, x) -> np.ndarray:
    """Images (N, height, width) as uint8 or float32, in reading order."""
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise InputError(f"{path}: {name} is {x.dtype}: convert it to uint8 in 0..255 or to floats in [0, 1]")
    if x.ndim != 3 or 0 in x.shape:
        raise InputError(f"{path}: {name} has shape {x.shape}: make it (N, height, width), with no side empty")
    if x.dtype == np.uint8:
        if x.max() == 1:
            raise InputError(f"{path}: {name} is uint8 and holds only 0 and 1, where white is 255: multiply it by 255")
        return np.ascontiguousarray(x)
    with np.errstate(over="ignore"):                    # too large for float32 becomes inf, which is refused below
        x = np.ascontiguousarray(x, np.float32)
    low, high = x.min(), x.max()
    if not (low >= 0 and high <= 1):                    # NaN fails both
        raise InputError(f"{path}: {name} runs from {low:.8g} to {high:.8g}: scale it to [0, 1], without NaN")
    return x


def _check_labels(path, name, y, count: int) -> np.ndarray | None:
    """Labels (N,) as int64, one per image; None stays None."""
    if y is None:
        return None
    if y.dtype.kind not in "iu":
        raise InputError(f"{path}: {name} is {y.dtype}: convert the labels to whole numbers (int64)")
    if y.shape != (count,):
        raise InputError(f"{path}: {name} has shape {y.shape} for {count} images: give one label per image, ({count},)")
    return y.astype(np.int64)
