"""A small PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016): a distribution over grids of discrete cells.

    prior = PixelCNN(values=128, channels=64, layers=6)
    nats = prior.log_prob(codes)                                 # codes (B, h, w), whole numbers below 128 -> (B,)
    codes = prior.sample((49, 7, 7), generator)                  # one cell after another

The chain rule, and nothing else: p(x) = prod_i p(x_i | x_1 .. x_{i-1}), the cells in reading order. One network gives all
factors at once, for its convolutions are masked: what lies after a cell has weight zero. The first layer leaves out the
cell itself, too (mask A), which the later ones may look at (mask B), since by then it no longer knows its own value.

A stack of such layers has a blind spot: with kernel k, what lies a rows above and more than a * (k - 1) / 2 columns to the
right reaches a cell through no layer. It costs a little likelihood, and nothing else: the product still sums to one.
Letters: B images, h and w height and width in cells, K values of a cell, C channels. Units: nats per image.
"""

import torch
import torch.nn.functional as F
from torch import nn

from common.config import InputError


class MaskedConv2d(nn.Conv2d):
    """A k x k convolution that sees what comes before a cell in reading order: kind "A"; and the cell itself: kind "B"."""

    def __init__(self, inputs: int, outputs: int, kernel: int, kind: str):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        mask, middle = torch.ones(kernel, kernel), kernel // 2
        mask[middle, middle + (kind == "B"):] = 0
        mask[middle + 1:] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class MaskedBlock(nn.Module):
    """A residual block: 1 x 1 to half of the channels, k x k with mask B, 1 x 1 back. (B, C, h, w) -> the same."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.narrow = nn.Conv2d(channels, channels // 2, 1)
        self.masked = MaskedConv2d(channels // 2, channels // 2, kernel, "B")
        self.widen = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x):
        h = torch.relu(self.narrow(torch.relu(x)))                                     # (B, C/2, h, w)
        h = torch.relu(self.masked(h))                                                 # (B, C/2, h, w)
        return x + self.widen(h)


class PixelCNN(nn.Module):
    """p(x), or p(x | context), of grids x (B, h, w) of whole numbers. Raises InputError where a setting makes no sense.

    values     K, how many values a cell can take: 2 for binary pixels
    channels   C, of every layer; even
    layers     residual blocks after the first layer
    kernel     k, side of the masked convolutions; odd
    context    channels of the context, if there is one: features (B, context, h, w) of whatever else is known, added to
               those of every cell. A cell sees the context of its own place and of those before it.
    """

    def __init__(self, values: int, channels: int, layers: int, kernel: int = 5, context: int = 0):
        super().__init__()
        if values < 2 or layers < 0 or context < 0:
            raise InputError(f"values is {values}, layers {layers}, context {context}: give at least 2, 0 and 0")
        if channels < 2 or channels % 2:
            raise InputError(f"channels is {channels}: give an even number, the blocks work in half of them")
        if kernel < 3 or kernel % 2 == 0:
            raise InputError(f"kernel is {kernel}: give an odd number of at least 3, so that there is a middle")
        self.values = values
        self.embed = nn.Embedding(values, channels)
        self.first = MaskedConv2d(channels, channels, kernel, "A")
        self.context = nn.Conv2d(context, channels, 1) if context else None
        self.blocks = nn.Sequential(*(MaskedBlock(channels, kernel) for _ in range(layers)))
        self.hidden = nn.Conv2d(channels, channels, 1)
        self.logits = nn.Conv2d(channels, values, 1)

    def forward(self, x, context=None):
        """x (B, h, w) long, context (B, context, h, w) or None -> logits (B, K, h, w): those of a cell come from the cells
        before it. Raises InputError where a context is missing or not wanted."""
        if x.ndim != 3 or x.is_floating_point():
            raise InputError(f"x is {x.dtype} of shape {tuple(x.shape)}: a PixelCNN wants whole numbers (B, h, w)")
        if (context is None) != (self.context is None):
            raise InputError("this PixelCNN " + ("has no context: leave it out" if self.context is None else
                                                 "needs the context it was made for: give it"))
        features = self.first(self.embed(x).permute(0, 3, 1, 2))                       # (B, C, h, w)
        if context is not None:
            features = features + self.context(context)
        features = torch.relu(self.blocks(features))
        return self.logits(torch.relu(self.hidden(features)))                          # (B, K, h, w)

    def log_prob(self, x, context=None):
        """log p(x | context) in nats: x (B, h, w) long -> (B,)."""
        return -F.cross_entropy(self.forward(x, context), x, reduction="none").sum(dim=(1, 2))

    @torch.no_grad()
    def sample(self, shape, generator=None, context=None):
        """Draws of this shape (B, h, w), long: one cell after another, each from what the cells before it say."""
        count, height, width = shape
        x = torch.zeros(shape, dtype=torch.long, device=self.embed.weight.device)
        for row in range(height):                            # what lies below changes nothing, and is left out
            above = None if context is None else context[:, :, :row + 1]
            for column in range(width):
                logits = self.forward(x[:, :row + 1], above)[:, :, row, column]        # (B, K)
                x[:, row, column] = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
        return x
