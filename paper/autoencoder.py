"""The deterministic autoencoder: the same two networks, no noise, no KL. What the VAE is compared with.

    python paper/train_paper.py --model autoencoder --weight-decay 1e-5

It minimizes the reconstruction error -log p(x|z) at z = mu(x). That number is not a likelihood: z is a function of x,
nothing says how probable that z is, and no sum over z gives a p(x). A widely copied table prints an NLL for it all the
same; it can only be this error, which a wider code drives to any depth. There is no ELBO here and nothing to sample from.
"""

from paper.vae_paper import VAE


class Autoencoder(VAE):
    """The VAE's networks without the posterior's variance: its head encoder.logvar stays as drawn and does nothing."""

    def training_loss(self, x, y, generator):
        """The mean reconstruction error, nats per image. x (B, D); y and generator, unused: there is no noise."""
        mu, _ = self.encode(x)                                           # (B, J)
        error = -self.log_likelihood(x, mu).mean()
        return error, {"reconstruction_error": error.detach()}
