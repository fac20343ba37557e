"""The pictures of a run of train_paper.py: those of the other levels, as far as they fit the model."""

from pathlib import Path

import numpy as np
import torch

from common.data import EVAL_SEED
from common.run import figures
from paper.autoencoder import Autoencoder
from paper.conditional_vae import ConditionalVAE, at_every_label
from paper.hierarchical_vae import Hierarchy
from paper.images import Images
from paper.pixel_vae import PixelVAE
from paper.vq_vae import VQVAE


@torch.no_grad()
def draw_pictures(out: Path, model, images: Images):
    """Reconstructions, the latent plane and draws of a VAE; an autoencoder has no prior to draw from."""
    if isinstance(model, ConditionalVAE):
        return draw_labels(out, model, images)
    if isinstance(model, VQVAE):
        return draw_codes(out, model, images)
    draw, config, x = figures(), model.config, images.x_test
    labels = None if images.y_test is None else images.y_test.cpu().numpy()

    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)

    def decoded(z):
        z = torch.as_tensor(z, device=x.device, dtype=x.dtype)
        if isinstance(model, PixelVAE):                                  # its pixels have no mean without the others
            return model.sample(z, generator).cpu().numpy()
        return model.decode_mean(z).cpu().numpy()

    mu = model.encode(x)[0].cpu().numpy()
    draw.reconstructions(out / "reconstructions.png", x[:10].cpu().numpy(), decoded(mu[:10]), config.image_shape)
    draw.latent_scatter(out / "latent_scatter.png", mu, labels)
    if isinstance(model, Hierarchy):                                     # z_1 does not come from N(0, I)
        draw.prior_samples(out / "prior_samples.png", model.sample(100, generator).cpu().numpy(), config.image_shape)
    elif not isinstance(model, Autoencoder):
        z = np.random.default_rng(EVAL_SEED).standard_normal((100, config.latent))
        draw.prior_samples(out / "prior_samples.png", decoded(z), config.image_shape)
        if config.latent <= 2:
            draw.manifold(out / "manifold.png", decoded(draw.latent_grid(config.latent)), config.image_shape)


def draw_labels(out: Path, model: ConditionalVAE, images: Images):
    """Of a conditional VAE: reconstructions and latents at the true labels; one z, and one image, at every label."""
    draw, shape, x, y = figures(), model.config.image_shape, images.x_test, images.y_test
    mu, _ = model.given(y).encode(x)
    reconstruction = model.given(y[:10]).decode_mean(mu[:10])
    draw.reconstructions(out / "reconstructions.png", x[:10].cpu().numpy(), reconstruction.cpu().numpy(), shape)
    draw.latent_scatter(out / "latent_scatter.png", mu.cpu().numpy(), y.cpu().numpy())
    z = np.random.default_rng(EVAL_SEED).standard_normal((10, model.config.latent))
    z = torch.as_tensor(z, device=x.device, dtype=x.dtype)
    draw.label_grid(out / "condition_grid.png", at_every_label(model, z).cpu().numpy(), shape,
                    "Each row: one draw of the style, z ~ N(0, I), with every label")
    draw.label_grid(out / "label_swap.png", at_every_label(model, mu[:10]).cpu().numpy(), shape,
                    "encoded with its label, decoded with every label", x[:10].cpu().numpy())


def draw_codes(out: Path, model: VQVAE, images: Images):
    """Of a VQ-VAE: images, their codes and reconstructions. To draw new ones it needs a prior: reproduce.py vq-vae."""
    x = images.x_test[:10]
    codes = model.codes(x)
    rows = (each.cpu().numpy() for each in (x, model.code_maps(codes), model.decode_codes(codes)))
    figures().code_maps(out / "reconstructions.png", *rows, model.config.image_shape)
