"""The conditional VAE: both networks are told the label, q(z|x, y) and p(x|z, y). Kingma et al. 2014, Sohn et al. 2015.

    python paper/train_paper.py --model conditional-vae                # the embedded digits: grid of styles and digits

    model = ConditionalVAE(VAEConfig(latent=20, condition=10))
    loss, terms = model.given(y).loss(x, eps)                          # y (B,): labels 0 to 9
    images = model.given(3).sample(z)                                  # every one a 3

The label y, one-hot, stands behind the pixels and behind the latents; the prior p(z) = N(0, I) does not know it, and the
bound is one on log p(x|y), eq. 3.12. What y tells already z need not: there is room in z for the rest, the style of the
writing. Once y is given the model is a VAE, and all that works on a VAE, estimators too, works on model.given(y).
Letters: B images, D pixels, J latents, C classes, L draws. Units: nats per image.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F

from common.config import InputError, VAEConfig, check_labels
from common.data import Dataset
from paper.vae_paper import VAE


class ConditionalVAE(VAE):
    """A VAE of images with labels; its weights have the names and shapes of levels 1 and 2."""

    takes_labels = True

    def __init__(self, config: VAEConfig, params=None):
        if not config.condition:
            raise InputError("condition is 0: ConditionalVAE wants the number of classes; without labels use VAE")
        super().__init__(config, params)
        self.label = None                                                # one-hot, (B, C), or (C,) for one and all

    def given(self, y) -> "ConditionalVAE":
        """This model, on the same weights, of images with the labels y: (B,), or one whole number for all images.

        Raises InputError for labels that are none. With one for all, images may come in blocks of any size.
        """
        if y is None:
            raise InputError("y is None: a conditional VAE wants a label for each image")
        weight = self.encoder.hidden.weight
        y = torch.as_tensor(y, device=weight.device)
        check_labels(torch.atleast_1d(y), y.numel(), self.config)
        model = copy.copy(self)                                          # shares its weights
        model.label = F.one_hot(y.long(), self.config.condition).to(weight.dtype)
        return model

    def join_label(self, a):
        """a (..., B, n), and behind it the labels: (..., B, n + C)."""
        if self.label is None:
            raise InputError("y is missing: the model wants labels, call given(y) first")
        if self.label.ndim == 2 and len(self.label) != a.shape[-2]:
            raise InputError(f"y has {len(self.label)} labels for {a.shape[-2]} images: give as many, or one for all")
        return torch.cat([a, self.label.expand(*a.shape[:-1], -1)], dim=-1)

    def encode(self, x):
        """The parameters of q(z|x, y). x (B, D) -> mu (B, J), logvar (B, J)."""
        return super().encode(self.join_label(x))

    def decode(self, z):
        """The parameters of p(x|z, y). z (..., J), with as many labels as images (..., B, J) -> as VAE.decode."""
        return super().decode(self.join_label(z))

    def training_loss(self, x, y, generator):
        """What train_paper.py minimizes: VAE's loss at the labels y (B,), and its terms."""
        return super(ConditionalVAE, self.given(y)).training_loss(x, None, generator)


def at_every_label(model: ConditionalVAE, z):
    """Decoded means: each row one z with every label in turn. z (R, J) -> (R, C, D) in [0, 1]."""
    return torch.stack([model.given(label).decode_mean(z) for label in range(model.config.condition)], dim=1)


def classes_of(data: Dataset) -> int:
    """C, the number of classes of a data set with labels from 0 to C - 1. Raises InputError where it has none or others."""
    parts = [(data.x_train, data.y_train), (data.x_valid, data.y_valid), (data.x_test, data.y_test)]
    labels = [y for x, y in parts if x is not None]
    if any(y is None for y in labels):
        raise InputError(f"{data.name} has no labels, and a conditional VAE wants one for every image: choose another set")
    config = VAEConfig(condition=len(np.unique(data.y_train)))
    for y in labels:
        check_labels(y, len(y), config)
    return config.condition
