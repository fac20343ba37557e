"""What the models share that are no plain VAE: where their weights begin, and how they are kept in a file.

A plain VAE has the weights of common/config.py's table, at all levels. Those that follow it in this folder have others.
"""

import numpy as np
import torch
from torch import nn

from common.checkpoints import check_numbers, load_settings, save_params
from common.config import InputError, VAEConfig, glorot


class FamilyModel(nn.Module):
    """A model with weights of its own, for train_paper.py: it has training_loss(x, y, generator) as the VAE has.

    config     image_shape, likelihood and the like
    settings   what else the constructor takes, by name, as JSON can hold it: Model(config, **settings) is the model again
    """

    def __init__(self, config: VAEConfig, **settings):
        super().__init__()
        self.config, self.settings = config, settings

    @torch.no_grad()
    def draw_weights(self, rng: np.random.Generator, pixel_means: np.ndarray):
        """Begins anew: Glorot-uniform weights and zero biases, drawn in NumPy, as those of the VAE. Parameters with one
        axis that are no bias (the scale of a batch norm) and buffers stay as they are. Returns the model.

        pixel_means (D,): of the training images, for a model that begins as their average; see set_output_bias."""
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif weight.ndim > 1:
                weight.copy_(torch.from_numpy(glorot(tuple(weight.shape), rng)))
        return self

    def save(self, path):
        """Writes params.npz with the settings in it. Raises nothing but what the disk does."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.state_dict().items()}
        save_params(path, arrays, self.config, {"model": type(self).__name__, **self.settings})

    @classmethod
    def load(cls, path):
        """The model that save wrote. Raises InputError where the file is something else."""
        params, config, settings = load_settings(path)
        told = None if settings is None else settings.pop("model")
        if told != cls.__name__:
            raise InputError(f"{path} holds the weights of a {told or 'VAE'}, not of a {cls.__name__}: give another file")
        check_numbers(params, path)
        try:
            model = cls(config, **settings)
            model.load_state_dict({name: torch.from_numpy(array) for name, array in params.items()}, assign=True)
        except (TypeError, RuntimeError) as error:
            raise InputError(f"{path} is no whole {cls.__name__} ({str(error).splitlines()[0]}): take another file"
                             ) from error
        return model
