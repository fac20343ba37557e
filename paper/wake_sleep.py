"""The wake-sleep algorithm (Hinton et al. 1995), the paper's competitor in section 5: same networks, other gradients.

    python paper/train_paper.py --model wake-sleep

AEVB raises one number, the bound, in the weights of both networks. Wake-sleep has a goal for each:

    wake    x from the data, z ~ q(z|x):    raise log p(x|z) in the decoder's weights      (a step on the bound)
    sleep   z ~ p(z), x ~ p(x|z):           raise log q(z|x) in the encoder's weights      (a step on KL(p || q), in dreams)

The second is not the bound's gradient: it asks q to match the posterior of images that the model dreams, which early on
look nothing like the data. In return it needs no gradient through a draw, so that z may be discrete.
Letters: B images, D pixels, J latents. Units: nats per image.
"""

import torch
from torch.distributions import Normal

from paper.vae_paper import VAE, kl_divergence


class WakeSleep(VAE):
    """A VAE trained by wake-sleep. Same weights, same files: a VAE loads what it saved."""

    def wake_loss(self, x, eps):
        """Eq. 3.4: -mean log p(x|z), z ~ q(z|x) a constant, and the terms of the bound there. x (B, D), eps (B, J)."""
        with torch.no_grad():
            mu, logvar = self.encode(x)                                  # (B, J), (B, J)
            z = self.reparameterize(mu, logvar, eps)                     # (B, J)
            kl = kl_divergence(mu, logvar).sum(dim=1).mean()
        loss = -self.log_likelihood(x, z).mean()
        return loss, {"elbo": -loss.detach() - kl, "log_likelihood": -loss.detach(), "kl": kl}

    def sleep_loss(self, x, z):
        """Eq. 3.5: -mean log q(z|x) of dreams: z (B, J) from the prior, x (B, D) drawn from p(x|z), both constants."""
        mu, logvar = self.encode(x)                                      # (B, J), (B, J)
        return -Normal(mu, torch.exp(0.5 * logvar), validate_args=False).log_prob(z).sum(dim=1).mean()

    def training_loss(self, x, y, generator):
        """Both losses, which share no weight: one backward() gives each network its own gradient. y, labels, unused."""
        shape = (len(x), self.config.latent)
        eps, z = (torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype) for _ in range(2))
        wake, terms = self.wake_loss(x, eps)
        sleep = self.sleep_loss(self.sample(z, generator), z)
        return wake + sleep, terms | {"log_q_of_dreams": -sleep.detach()}
