"""The pictures of a run of train_paper.py: those of the other levels, as far as they fit the model."""

from pathlib import Path

import numpy as np
import torch

from common.data import EVAL_SEED
from common.run import figures
from paper.autoencoder import Autoencoder
from paper.images import Images


@torch.no_grad()
def draw_pictures(out: Path, model, images: Images):
    """Reconstructions, the latent plane and draws of a VAE; an autoencoder has no prior to draw from."""
    draw, config, x = figures(), model.config, images.x_test
    labels = None if images.y_test is None else images.y_test.cpu().numpy()

    def decoded(z):
        return model.decode_mean(torch.as_tensor(z, device=x.device, dtype=x.dtype)).cpu().numpy()

    mu = model.encode(x)[0].cpu().numpy()
    draw.reconstructions(out / "reconstructions.png", x[:10].cpu().numpy(), decoded(mu[:10]), config.image_shape)
    draw.latent_scatter(out / "latent_scatter.png", mu, labels)
    if not isinstance(model, Autoencoder):
        z = np.random.default_rng(EVAL_SEED).standard_normal((100, config.latent))
        draw.prior_samples(out / "prior_samples.png", decoded(z), config.image_shape)
        if config.latent <= 2:
            draw.manifold(out / "manifold.png", decoded(draw.latent_grid(config.latent)), config.image_shape)
