"""The importance-weighted autoencoder (Burda, Grosse & Salakhutdinov 2016): the same model, trained on a tighter bound.

    python paper/train_paper.py --model iwae --k 5

One draw of z gives the VAE's bound; the mean of k importance weights, inside the logarithm, gives

    L_k = E log (1/k) sum_i p(x, z_i) / q(z_i|x)        with L_1 = ELBO <= L_k <= L_{k+1} <= log p(x)

so that a posterior which q cannot match costs less the more draws it gets. (A mean of logs, outside, would be the ELBO
again, with less noise.)
"""

import torch

from common.config import InputError, VAEConfig
from paper.estimators import importance_weighted_bound, log_weights
from paper.vae_paper import VAE


class IWAE(VAE):
    """A VAE that minimizes -L_k. Same weights, same files: a VAE loads what it saved.

    k          importance samples; 1 is the VAE, trained by estimator A
    path_only  with k = 1: the gradient of lower variance of estimators.log_weights
    """

    def __init__(self, config: VAEConfig, params=None, k: int = 5, path_only: bool = False):
        if path_only and k > 1:
            raise InputError(f"path_only goes with k = 1, not {k}: for more, that gradient of L_k is biased")
        if k < 1:
            raise InputError(f"k is {k}: give a whole number of importance samples, at least 1")
        super().__init__(config, params)
        self.k, self.path_only = k, path_only

    def training_loss(self, x, y, generator):
        """-L_k, and with it the ELBO from the same draws. x (B, D); y, labels, unused. Terms in nats per image."""
        eps = torch.randn(self.k, len(x), self.config.latent, generator=generator, device=x.device, dtype=x.dtype)
        log_w = log_weights(self, x, eps, self.path_only)                                # (k, B)
        bound = importance_weighted_bound(log_w).mean()
        return -bound, {"bound": bound.detach(), "elbo": log_w.detach().mean()}
