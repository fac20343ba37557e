"""A data set on a device: one tensor for each part, no DataLoader. A minibatch is an index into it, binarized there."""

from dataclasses import dataclass

import numpy as np
import torch

from common.data import EVAL_SEED, Dataset, binarize, choose_binarize, eval_images, pixels
from common.sprites import SIDE, Sprites


class SpritesOnDevice:
    """Sprites as a tensor (N, D) of zeros and ones that makes the rows it is asked for, where it is."""

    def __init__(self, sprites: Sprites, device, dtype):
        self.sprites, self.shape = sprites, sprites.shape
        self.padded = torch.from_numpy(pixels(sprites.padded, dtype)).to(device)                  # (S, 95, 95)
        self.windows = self.padded.unfold(1, SIDE, 1).unfold(2, SIDE, 1)                          # (S, 32, 32, 64, 64) view
        self.device, self.dtype = self.padded.device, self.padded.dtype

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        """The images of these row numbers (B,): (B, D)."""
        return self.windows[self.sprites.windows_of(torch.as_tensor(rows, device=self.device))].flatten(1)

    def mean(self, dim: int = 0):
        """Of each pixel over all images, exactly: (D,)."""
        return torch.from_numpy(self.sprites.pixel_means()).to(self.device, self.dtype)


@dataclass
class Images:
    """A data set on a device, pixels in [0, 1]: x_* (N, D), y_* (N,) or None. Training images stay gray where each epoch
    binarizes them anew; validation and test images are binarized once, the same ones for every seed. Sprites are made where
    a minibatch asks for them."""

    x_train: torch.Tensor | SpritesOnDevice
    x_test: torch.Tensor
    x_valid: torch.Tensor | None = None
    y_train: torch.Tensor | None = None
    y_test: torch.Tensor | None = None
    y_valid: torch.Tensor | None = None
    dynamic: bool = False

    @classmethod
    def of(cls, data: Dataset, how: str | None = None, device="cpu", dtype="float32", likelihood="bernoulli", seed=0):
        """how: one of BINARIZE (default: that of the likelihood); seed: of a static binarization."""
        how = choose_binarize(data, how, likelihood)
        static = "none" if how == "dynamic" else how
        rng = np.random.default_rng((EVAL_SEED, 1))
        lazy = isinstance(data.x_train, Sprites)                         # they are binary already
        arrays = {
            "x_train": None if lazy else binarize(data.x_train, static, np.random.default_rng(seed), dtype),
            "x_valid": None if data.x_valid is None else binarize(data.x_valid, how, rng, dtype),
            "x_test": eval_images(data, how, dtype),
            "y_train": data.y_train, "y_valid": data.y_valid, "y_test": data.y_test,
        }
        tensors = {name: None if array is None else torch.from_numpy(array).to(device) for name, array in arrays.items()}
        if lazy:
            tensors["x_train"] = SpritesOnDevice(data.x_train, device, dtype)
        return cls(**tensors, dynamic=how == "dynamic")

    def minibatch(self, rows, generator):
        """The training images of these rows (B, D), binarized anew where they are gray, and their labels."""
        x = self.x_train[rows]
        if self.dynamic:
            uniform = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = torch.lt(uniform, x, out=torch.empty_like(x))            # 1 with probability x, written as a float at once
        return x, None if self.y_train is None else self.y_train[rows]
