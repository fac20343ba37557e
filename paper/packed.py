"""Pictures inside a results file, as text: pixels in 0..255, compressed. A list of numbers takes ten times the room."""

import base64
import zlib

import numpy as np


def pack(images) -> str:
    """Images with values in [0, 1], any shape, as text."""
    pixels = np.round(255 * np.clip(np.asarray(images, np.float64), 0, 1)).astype(np.uint8)
    return base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode("ascii")


def unpack(text: str, *shape) -> np.ndarray:
    """What `pack` made, in this shape, to 1/510: float64 in [0, 1]."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape) / 255
