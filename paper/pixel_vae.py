"""A VAE whose decoder sees the pixels before (after Gulrajani et al. 2017), and what makes it use its latents.

    python paper/train_paper.py --model pixel-vae --latent 5 --epochs 20 --lr 5e-3                 # a KL of 0.3 to 1.4 nats
    python paper/train_paper.py --model pixel-vae --latent 5 --epochs 20 --lr 5e-3 --free-bits 0.5 # here 2.5 and more

A VAE's pixels are independent given z: what they have in common has to go through z. Here the decoder's picture is but the
context of a PixelCNN,

    p(x|z) = prod_d p(x_d | x_1 .. x_{d-1}, z)

which can model x without any z. Then why use it? The bound is ELBO = log p(x) - KL(q(z|x) || p(z|x)): the gap costs nothing
where the decoder ignores z, for then the posterior is the prior, and q can be the prior, too. Whatever goes through z pays
for a q that does not fit (Chen et al. 2017). And at the start of training z is noise, which the decoder had better ignore;
what it ignores, the encoder cannot make useful. This is posterior collapse. The settings of the KL's cost (KLWeight) are
cures: reproduce.py collapse shows what each does, and what it costs.
Letters: B images, D = h*w pixels, J latents. Units: nats per image.
"""

from dataclasses import asdict

import torch

from common.config import InputError, VAEConfig
from paper.beta_vae import BetaVAE, KLWeight
from paper.family import FamilyModel
from paper.pixelcnn import PixelCNN
from paper.vae_paper import VAE, MLPDecoder, MLPEncoder


class PixelVAE(FamilyModel):
    """encoder q(z|x), decoder and PixelCNN p(x|z), prior p(z) = N(0, I). Raises InputError where a setting makes no sense.

    config                    arch "mlp" and Bernoulli: the images are binary
    channels, blocks, kernel  of the PixelCNN
    **kl_weight               what the KL costs: settings of KLWeight
    """

    encode, reparameterize, likelihood_and_kl = VAE.encode, VAE.reparameterize, VAE.likelihood_and_kl
    training_loss = BetaVAE.training_loss

    def __init__(self, config: VAEConfig, channels: int = 32, blocks: int = 4, kernel: int = 7, **kl_weight):
        weight = KLWeight(**kl_weight)
        super().__init__(config, channels=channels, blocks=blocks, kernel=kernel, **asdict(weight))
        if (config.arch, config.likelihood, config.condition) != ("mlp", "bernoulli", 0):
            raise InputError(f"pixel-vae with arch {config.arch}, likelihood {config.likelihood}, condition "
                             f"{config.condition}: it knows mlp, bernoulli and no label")
        self.encoder, self.decoder = MLPEncoder(config), MLPDecoder(config)
        self.pixelcnn = PixelCNN(2, channels, blocks, kernel, context=1)
        self.kl_weight = weight
        self.register_buffer("progress", torch.zeros(()), persistent=False)      # of training; the trainer fills it in

    def context(self, z):
        """What z tells the PixelCNN, the picture of a VAE's decoder: (B, J) -> (B, 1, h, w)."""
        return self.decoder(z).reshape(-1, 1, *self.config.image_shape)

    def log_likelihood(self, x, z):
        """log p(x|z) in nats. x (B, D), zeros and ones; z (..., B, J) -> (..., B)."""
        pixels = x.long().reshape(-1, *self.config.image_shape).expand(*z.shape[:-1], -1, -1)
        return self.pixelcnn.log_prob(pixels.flatten(0, -3), self.context(z.flatten(0, -2))).reshape(z.shape[:-1])

    def sample(self, z, generator=None):
        """Images x ~ p(x|z), pixel by pixel; no gradient goes through them. z (B, J) -> (B, D), zeros and ones."""
        with torch.no_grad():
            x = self.pixelcnn.sample((len(z), *self.config.image_shape), generator, self.context(z))
        return x.flatten(1).to(z.dtype)
