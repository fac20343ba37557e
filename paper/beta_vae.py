"""The beta-VAE (Higgins et al. 2017) and its kin: one VAE, other weights of the KL term.

    python paper/train_paper.py --model beta-vae --beta 2
    python paper/train_paper.py --model beta-vae --latent 10 --gamma 10 --capacity 5 --warmup 0.8 --schedule one-cycle

    beta        -log p(x|z) + beta KL: above 1 each nat of the code must pay more than a nat of reconstruction
    capacity    -log p(x|z) + gamma |KL - C|, C rising from 0 (Burgess et al. 2018): the code gets C nats, and not more. The
                cost has a kink at C, about which steps of constant size are thrown: let them fall
    warm-up     beta itself rising from 0 (Bowman et al. 2016), once or in cycles (Fu et al. 2019): the decoder learns
                to use the code before it has to pay for it
    free bits   beta sum_j max(lambda, mean KL_j) (Kingma et al. 2016): the first lambda nats of a latent cost nothing

With the settings as they are by default it is the VAE. Letters: B images, D pixels, J latents. Units: nats per image.
"""

import math
from dataclasses import dataclass

import torch

from common.config import InputError, VAEConfig, check_objective
from paper.vae_paper import VAE, kl_with_free_bits


@dataclass(frozen=True)
class KLWeight:
    """What the KL term costs. Raises InputError where a setting makes no sense.

    beta, free_bits    as VAE.loss has them
    gamma, capacity    with gamma > 0 the cost is gamma |KL - C| instead; C rises to `capacity` nats
    warmup, cycles     beta, or C, rises linearly over the first `warmup` share of each of so many cycles of training,
                       and then stays; warmup 0: it is there from the start
    """

    beta: float = 1.0
    gamma: float = 0.0
    capacity: float = 0.0
    free_bits: float = 0.0
    warmup: float = 0.0
    cycles: int = 1

    def __post_init__(self):
        check_objective(self.beta, self.free_bits)
        for name in ("gamma", "capacity"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"{name} is {getattr(self, name)}: give a finite number of at least 0")
        if not 0 <= self.warmup <= 1 or self.cycles < 1:
            raise InputError(f"warmup is {self.warmup}, cycles {self.cycles}: give a share, 0 to 1, and 1 or more")
        if self.cycles > 1 and not self.warmup:
            raise InputError(f"cycles {self.cycles} without warmup is not used: give a warmup, such as 0.5")
        if self.capacity and not self.gamma:
            raise InputError(f"capacity {self.capacity} without gamma is not used: give a gamma, such as 100")
        if self.gamma and (self.beta != 1 or self.free_bits):
            raise InputError(f"gamma {self.gamma} replaces beta {self.beta} and free_bits {self.free_bits}: leave them out")

    def ramp(self, progress):
        """How far the weight has risen, 0 to 1, after `progress` of training, both 0-d tensors."""
        if not self.warmup:
            return torch.ones_like(progress)
        return (progress * self.cycles % 1 / self.warmup).clamp(max=1)

    def cost(self, kl, ramp):
        """In nats, 0-d, of the KL divergence of each image and latent, kl (B, J): eq. 3.11, and 1.17 with free bits."""
        kl_j = kl.mean(dim=0)                                            # (J,)
        if self.gamma:
            return self.gamma * (kl_j.sum() - self.capacity * ramp).abs()
        return self.beta * ramp * kl_with_free_bits(kl_j, self.free_bits)


class BetaVAE(VAE):
    """A VAE whose KL term has another weight, **kl_weight: settings of KLWeight. Same weights, same files: a VAE loads what
    it saved."""

    def __init__(self, config: VAEConfig, params=None, **kl_weight):
        super().__init__(config, params)
        self.kl_weight = KLWeight(**kl_weight)
        self.register_buffer("progress", torch.zeros(()), persistent=False)      # of training; the trainer fills it in

    def training_loss(self, x, y, generator):
        """-mean log p(x|z) + the cost of the KL, in eval mode the cost at the end of training. x (B, D); y, labels, unused.

        Terms as VAE.loss has them: the elbo is the plain bound.
        """
        eps = torch.randn(len(x), self.config.latent, generator=generator, device=x.device, dtype=x.dtype)
        log_likelihood, kl = self.likelihood_and_kl(x, eps)              # (B,), (B, J)
        ramp = self.kl_weight.ramp(self.progress) if self.training else torch.ones_like(self.progress)
        loss = self.kl_weight.cost(kl, ramp) - log_likelihood.mean()
        log_likelihood, kl = log_likelihood.detach().mean(), kl.detach().mean(dim=0).sum()
        return loss, {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}
