"""Sprites: white shapes on black whose five factors are known, after dSprites (Matthey et al. 2017). Made on demand.

    sprites = Sprites()                                 # 737,280 images of 64 x 64: as an array they would take 3 GB
    x = sprites[rows]                                   # (B, 4096) uint8, 0 or 255
    sprites.factors(rows)                               # (B, 5): shape, scale, orientation, x, y, as whole numbers

Every combination of the factors is there once, y running fastest:

    shape          square, ellipse, heart
    scale          6 values, from 0.5 to 1
    orientation    40 angles from 0 to 2 pi, so that the first and the last are the same image, as in dSprites
    x, y           32 places each, a pixel apart, to the right and downwards

The counts and the order are those of dSprites, which does not say how large its shapes are: ours are as large as they can
be without touching the edge anywhere, so scores measured here are near those of papers and not the same.
"""

# B images, D = 64 * 64 pixels, S sprites: shape x scale x orientation

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from common.config import InputError

FACTORS = ("shape", "scale", "orientation", "x", "y")
SHAPES = ("square", "ellipse", "heart")
SIDE = 64                           # of an image, in pixels
SHIFT = 31                          # pixels from the first place to the last
BOX = SIDE - SHIFT                  # side of the square that a sprite has to itself: 33, its center in the middle
RADIUS = BOX / 2                    # no shape reaches farther from its center


class Sprites:
    """All sprites in order, as a read-only array (N, 4096) of uint8 that makes the rows it is asked for.

    orientations, positions   how many angles, and places on each axis, at least 2: fewer make a smaller set. Raises
                              InputError for fewer than 2, and more than 32 places
    sizes                     the number of values of each factor
    padded                    (S, 95, 95) each sprite in the middle of so much black that an image is a 64 x 64 window of it
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, orientations: int = 40, positions: int = 32):
        if orientations < 2 or not 2 <= positions <= SHIFT + 1:
            raise InputError(f"sprites with {orientations} orientations and {positions} positions: give at least 2 of "
                             f"each, and {SHIFT + 1} positions at most")
        self.sizes = (len(SHAPES), 6, orientations, positions, positions)
        self.shape = (int(np.prod(self.sizes)), SIDE * SIDE)
        sprites = np.stack([inside(shape, scale, angle) for shape in SHAPES for scale in np.linspace(0.5, 1, 6)
                            for angle in np.linspace(0, 2 * np.pi, orientations)])
        self.padded = np.pad(sprites * np.uint8(255), ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        """The images of these row numbers (B,), or of a slice: (B, 4096)."""
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        windows = sliding_window_view(self.padded, (SIDE, SIDE), axis=(1, 2))             # (S, 32, 32, 64, 64), a view
        return windows[self.windows_of(rows)].reshape(*rows.shape, -1)

    def windows_of(self, rows):
        """Which sprite, and where the window on it begins, of these row numbers, an array or a tensor."""
        count = self.sizes[-1]
        x, y = rows // count % count, rows % count
        return rows // count**2, SHIFT - y * SHIFT // (count - 1), SHIFT - x * SHIFT // (count - 1)

    def factors(self, rows) -> np.ndarray:
        """The factors of these row numbers (B,), each counted from 0: (B, 5)."""
        return np.stack(np.unravel_index(rows, self.sizes), axis=-1)

    def pixel_means(self) -> np.ndarray:
        """The mean of each pixel over all images, exactly: (4096,) float32 in [0, 1]."""
        _, first, _ = self.windows_of(np.arange(self.sizes[-1]))                          # of each place, on either axis
        windows = sliding_window_view(self.padded.mean(axis=0) / 255, (SIDE, SIDE))       # (32, 32, 64, 64), a view
        return windows[np.ix_(first, first)].mean(axis=(0, 1)).reshape(-1).astype(np.float32)


def inside(shape: str, scale: float, angle: float) -> np.ndarray:
    """Which pixels have their center in the shape, turned clockwise by the angle, in radians: (33, 33) bool."""
    down, right = (np.indices((BOX, BOX)) - BOX // 2) / (RADIUS * scale)                  # farthest point of a shape: 1
    u = np.cos(angle) * right + np.sin(angle) * down
    v = np.cos(angle) * down - np.sin(angle) * right
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= np.sqrt(0.5)
    if shape == "ellipse":
        return u**2 + (2 * v)**2 <= 1
    u, v = 1.25 * u, 0.25 - 1.25 * v                    # the curve's lobes and its tip are 1.25 from (0, 0.25)
    return (u**2 + v**2 - 1)**3 <= u**2 * v**3
