"""Hierarchical VAEs: latents above latents, as a chain (Burda et al. 2016) and as a ladder (Sønderby et al. 2016).

    python paper/train_paper.py --model hierarchical-vae --depth 2 --latent 16 --hidden 200 --schedule one-cycle
    python paper/train_paper.py --model ladder-vae --depth 2 --latent 16 --hidden 200 --schedule one-cycle

Both generate from the top down, p(z_T) = N(0, I) and every other conditional a Gaussian whose parameters a network gives:

    p(x, z_1..z_T) = p(z_T) p(z_{T-1}|z_T) ... p(z_1|z_2) p(x|z_1)

They differ in how they infer:

    chain     q(z_1|x) q(z_2|z_1) ... q(z_T|z_{T-1}), from the bottom up: all that z_2 learns of the image is a draw of z_1
    ladder    q(z_T|x) q(z_{T-1}|z_T, x) ... q(z_1|z_2, x), from the top down, as they generate: each layer sees the image
              through d_t, a network of its own, and multiplies what that says of z_t with what z_{t+1} lets expect

With one layer the chain is the VAE with layers=2, exactly, and the ladder is the chain with `normed`. That is the ladder's
other half: its networks have batch norm, which a chain may have as well, and its KL warms up. `hidden` and `latent` are the
sizes of the lowest layer; each layer above has half of both. The MLPs all have two hidden layers.
Letters: B images, D pixels, T layers, J latents of a layer, L draws of noise per image. Units: nats per image.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from common.config import InputError, VAEConfig, set_output_bias
from paper.estimators import LOG_2PI, check_images
from paper.family import FamilyModel
from paper.vae_paper import VAE, MLPDecoder, MLPEncoder, kl_of_gaussians


class Layer(NamedTuple):
    """z_t, a draw of its posterior q, and the parameters of q and of its prior p given its parents, each (..., B, J)."""

    z: torch.Tensor
    mu: torch.Tensor
    logvar: torch.Tensor
    prior_mu: torch.Tensor
    prior_logvar: torch.Tensor


def closed_kl(layer: Layer):
    """KL(q || p), summed over the latents: (..., B)."""
    return kl_of_gaussians(layer.mu, layer.logvar, layer.prior_mu, layer.prior_logvar).sum(dim=-1)


def log_ratio(layer: Layer, path_only=False):
    """log q(z_t) - log p(z_t) at the draw: (..., B), on average the KL divergence.

    path_only: as in estimators.log_weights, gradients reach q through z alone. The score that is left out is zero on
    average, given the parents, so that the gradient of the ELBO stays unbiased.
    """
    z, mu, logvar, prior_mu, prior_logvar = layer
    if path_only:
        mu, logvar = mu.detach(), logvar.detach()
    log_q = -0.5 * ((z - mu) ** 2 * torch.exp(-logvar) + logvar + LOG_2PI).sum(dim=-1)
    log_p = -0.5 * ((z - prior_mu) ** 2 * torch.exp(-prior_logvar) + prior_logvar + LOG_2PI).sum(dim=-1)
    return log_q - log_p


# ---- what chain and ladder share ---------------------------------------------------------------------------------------


class Hierarchy(FamilyModel):
    """Layers of latents over one likelihood. A subclass has `decoder`, `priors` (lowest layer first), infer and kl.

    depth      T, the layers of latents
    warmup     the KL's weight rises linearly from 0 over this share of training, and then is 1; 0: it is 1 from the start
    """

    # p(x|z_1) is the VAE's: these want a config and a decoder
    decode, decode_mean, log_likelihood, likelihood = VAE.decode, VAE.decode_mean, VAE.log_likelihood, VAE.likelihood
    reparameterize = VAE.reparameterize

    def __init__(self, config: VAEConfig, depth: int, warmup: float):
        if config.arch != "mlp" or config.condition:
            raise InputError(f"arch is {config.arch}, condition {config.condition}: layers of latents go with arch mlp and "
                             "without labels")
        if depth < 1 or not 0 <= warmup <= 1:
            raise InputError(f"depth is {depth}, warmup {warmup}: give at least one layer, and a share, 0 to 1")
        super().__init__(config, depth=depth, warmup=warmup)
        self.latents = [max(1, config.latent >> t) for t in range(depth)]
        self.hidden = [max(1, config.hidden >> t) for t in range(depth)]
        self.warmup = warmup
        if warmup:
            self.register_buffer("progress", torch.zeros(()), persistent=False)      # of training; the trainer fills it in

    @torch.no_grad()
    def draw_weights(self, rng: np.random.Generator, pixel_means: np.ndarray):
        """As FamilyModel has it; a Bernoulli decoder begins as the average image."""
        super().draw_weights(rng, pixel_means)
        if self.config.likelihood == "bernoulli":
            set_output_bias({"decoder.logits.bias": self.decoder.logits.bias.numpy()}, self.config, pixel_means)
        return self

    # ---- the bound ---------------------------------------------------------------------------------------------------

    def infer(self, x, eps) -> list[Layer]:
        """All layers at draws of q, lowest first. x (B, D), eps (..., B, J_1 + ... + J_T), the lowest layer's first."""
        raise NotImplementedError

    def split(self, x, eps):
        """The noise of each layer. Raises InputError where x or eps has the wrong shape."""
        check_images(self, x)
        if tuple(eps.shape[-2:]) != (len(x), sum(self.latents)):
            raise InputError(f"eps has shape {tuple(eps.shape)}: layers of {self.latents} latents want "
                             f"(..., {len(x)}, {sum(self.latents)})")
        return eps.split(self.latents, dim=-1)

    def kl(self, layers: list[Layer]):
        """What each layer adds to KL(q(z_1..z_T|x) || p(z_1..z_T)), lowest first, each (B,)."""
        raise NotImplementedError

    def loss(self, x, eps):
        """-mean log p(x|z_1) + the KL of all layers, in training times its weight; and the terms, detached, 0-d.

        x (B, D), eps (B, J_1 + ... + J_T). Terms: elbo, the plain bound, log_likelihood, kl and its parts kl_1, ..., kl_T.
        """
        layers = self.infer(x, eps)
        log_likelihood = self.log_likelihood(x, layers[0].z).mean()                    # 0-d
        kl = torch.stack(self.kl(layers)).mean(dim=1)                                  # (T,)
        weight = (self.progress / self.warmup).clamp(max=1) if self.warmup and self.training else 1.0
        loss = weight * kl.sum() - log_likelihood
        log_likelihood, kl = log_likelihood.detach(), kl.detach()
        terms = {"elbo": log_likelihood - kl.sum(), "log_likelihood": log_likelihood, "kl": kl.sum()}
        return loss, terms | {f"kl_{t}": each for t, each in enumerate(kl, 1)}

    forward = loss                                        # what DistributedDataParallel calls

    def training_loss(self, x, y, generator):
        """What train_paper.py minimizes: the loss at noise drawn from `generator`, and its terms. y, labels, unused."""
        return self.loss(x, torch.randn(len(x), sum(self.latents), generator=generator, device=x.device, dtype=x.dtype))

    def log_weights(self, x, eps):
        """log p(x, z_1..z_T) - log q(z_1..z_T|x), for estimators.log_p_by_importance_sampling in eval mode.

        x (B, D), eps (L, B, J_1 + ... + J_T) -> (L, B).
        """
        layers = self.infer(x, eps)
        return self.log_likelihood(x, layers[0].z) - sum(log_ratio(layer) for layer in layers)

    # ---- a look at the model, in eval mode ---------------------------------------------------------------------------

    def encode(self, x):
        """mu and logvar of the posterior of z_1, (B, J_1) each; the layers that a ladder draws first are at their means."""
        lowest = self.infer(x, x.new_zeros(len(x), sum(self.latents)))[0]
        return lowest.mu, lowest.logvar

    @torch.no_grad()
    def sample(self, count: int, generator=None):
        """The means of p(x|z_1) at draws from the top down, z_T ~ N(0, I) first: (count, D) in [0, 1]."""
        like = next(self.parameters())

        def noise(size):
            return torch.randn(count, size, generator=generator, device=like.device, dtype=like.dtype)

        z = noise(self.latents[-1])
        for prior, size in zip(reversed(self.priors), reversed(self.latents[:-1]), strict=True):
            z = self.reparameterize(*prior(z), noise(size))
        return self.decode_mean(z)

    @torch.no_grad()
    def active_units(self, x, generator=None, draws: int = 200, threshold: float = 0.01) -> list[int]:
        """The latents of each layer whose posterior mean, averaged over `draws` of its parents, varies over the images x
        (N, D) by more than `threshold` (variance), as Burda et al. (2016) count them.

        Averages of 200 draws leave 1/200 of the variance of one draw: below the threshold, if that is below 2. A ladder's
        lower layers follow the layers above, and where those vary, so do they, even in latents that add nothing.
        """
        means = []
        for images in x.split(100):
            eps = torch.randn(draws, len(images), sum(self.latents), generator=generator, device=x.device, dtype=x.dtype)
            layers = self.infer(images, eps)
            means.append([layer.mu.reshape(-1, *layer.mu.shape[-2:]).mean(dim=0) for layer in layers])       # (B, J) each
        return [int((torch.cat(blocks).var(dim=0) > threshold).sum()) for blocks in zip(*means, strict=True)]


# ---- the networks ------------------------------------------------------------------------------------------------------


class NormedMLP(nn.Sequential):
    """Twice: linear, batch norm, leaky ReLU. (..., inputs) -> (..., hidden). In eval mode batch norm uses the means and
    variances that it averaged in training, so that an image's numbers no longer depend on its batch."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__(*(module for size in (inputs, hidden) for module in (
            nn.Linear(size, hidden, bias=False), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.1))))
        for module in self:
            if isinstance(module, nn.BatchNorm1d):       # a count of steps; as a float, like all else that params.npz holds
                module.num_batches_tracked = module.num_batches_tracked.float()

    def forward(self, x):
        if self.training and x.shape[:-1].numel() == 1:
            raise InputError("a minibatch of one image has no variance, which batch norm needs: give two or more")
        return super().forward(x.flatten(0, -2)).reshape(*x.shape[:-1], -1)            # batch norm knows one leading axis


class GaussianHead(nn.Module):
    """h (..., H) -> mu, logvar (..., J)."""

    def __init__(self, hidden: int, latent: int):
        super().__init__()
        self.mu, self.logvar = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def forward(self, h):
        return self.mu(h), self.logvar(h)


class NormedDecoder(nn.Sequential):
    """z (..., J) -> logits (..., D)."""

    def __init__(self, config: VAEConfig):
        if config.likelihood != "bernoulli":
            raise InputError(f"likelihood is {config.likelihood}: the decoder with batch norm, as ladders have it, is for "
                             "binary pixels; use bernoulli")
        super().__init__()
        self.add_module("hidden", NormedMLP(config.latent, config.hidden))
        self.add_module("logits", nn.Linear(config.hidden, config.pixels))


def gaussian_mlp(inputs: int, hidden: int, outputs: int, normed: bool = False):
    """(..., inputs) -> mu, logvar (..., outputs): the VAE's encoder, to which the latents below are an image; normed: with
    batch norm."""
    if normed:
        return nn.Sequential(NormedMLP(inputs, hidden), GaussianHead(hidden, outputs))
    return MLPEncoder(VAEConfig("mlp", (1, inputs), hidden, outputs, layers=2))


# ---- the chain ---------------------------------------------------------------------------------------------------------


class HierarchicalVAE(Hierarchy):
    """The Markov chain, eq. 3.17; 784-200-200-100, 100-100-100-50 and back is that of Burda et al. (2016) with k = 1.

    path_only  train with the gradient of lower variance of log_ratio
    normed     the networks are the ladder's, with batch norm
    """

    def __init__(self, config: VAEConfig, depth: int = 2, warmup: float = 0.0, path_only: bool = False,
                 normed: bool = False):
        super().__init__(config, depth, warmup)
        self.path_only = path_only
        self.settings |= {"path_only": path_only, "normed": normed}
        pairs = list(zip(self.latents, self.latents[1:], self.hidden[1:], strict=False))          # below, above, hidden
        self.encoder = gaussian_mlp(config.pixels, config.hidden, config.latent, normed)          # q(z_1|x)
        self.decoder = NormedDecoder(config) if normed else MLPDecoder(replace(config, layers=2))        # p(x|z_1)
        self.posteriors = nn.ModuleList(gaussian_mlp(below, hidden, above, normed) for below, above, hidden in pairs)
        self.priors = nn.ModuleList(gaussian_mlp(above, hidden, below, normed) for below, above, hidden in pairs)

    def infer(self, x, eps):
        drawn, z = [], x
        for posterior, noise in zip((self.encoder, *self.posteriors), self.split(x, eps), strict=True):
            mu, logvar = posterior(z)                                                  # q(z_t|z_{t-1})
            z = self.reparameterize(mu, logvar, noise)
            drawn.append((z, mu, logvar))
        standard = torch.zeros_like(z)                                                 # p(z_T): mu = logvar = 0
        priors = [prior(above) for prior, (above, _, _) in zip(self.priors, drawn[1:], strict=True)]
        return [Layer(*q, *p) for q, p in zip(drawn, (*priors, (standard, standard)), strict=True)]

    def kl(self, layers):
        """At the draws, but for the top: z_{t+1} was drawn from z_t, so that given z_{t+1} its z_t no longer is a draw of
        q(z_t|z_{t-1}), and no closed form holds. Only their sum is a divergence, and never negative on average."""
        if self.path_only and self.training:
            return [log_ratio(layer, path_only=True) for layer in layers]
        *lower, top = layers
        return [*map(log_ratio, lower), closed_kl(top)]


# ---- the ladder --------------------------------------------------------------------------------------------------------


def merge(mu, logvar, prior_mu, prior_logvar):
    """The product of two Gaussians, normalized, eq. 3.18: precisions, 1 / variance, add up, and means are weighted by them.

    Shapes (..., J) -> mu, logvar (..., J). In logarithms, so that one of the variances may be infinite, or all but zero.
    """
    share = torch.sigmoid(prior_logvar - logvar)                         # of the first in the sum of the two precisions
    return prior_mu + share * (mu - prior_mu), -torch.logaddexp(-logvar, -prior_logvar)


class LadderVAE(Hierarchy):
    """The ladder. The paper's: 784-512-512-64, then 256-32, 128-16, 64-8 and 32-4."""

    def __init__(self, config: VAEConfig, depth: int = 2, warmup: float = 0.1):
        super().__init__(config, depth, warmup)
        latents, hidden = self.latents, self.hidden
        self.upward = nn.ModuleList(NormedMLP(below, size)                             # d_t from d_{t-1}, d_0 = x
                                    for below, size in zip((config.pixels, *hidden), hidden, strict=False))
        self.heads = nn.ModuleList(map(GaussianHead, hidden, latents))                 # what d_t says of z_t
        self.priors = nn.ModuleList(gaussian_mlp(above, size, below, normed=True)
                                    for below, above, size in zip(latents, latents[1:], hidden[1:], strict=False))
        self.decoder = NormedDecoder(config)

    def infer(self, x, eps):
        noises, seen, d = self.split(x, eps), [], x
        for up, head in zip(self.upward, self.heads, strict=True):
            d = up(d)                                                                  # (B, H)
            seen.append(head(d))                                                       # mu, logvar (B, J)
        mu, logvar = seen[-1]
        z = self.reparameterize(mu, logvar, noises[-1])                                # q(z_T|x): nothing to merge with
        layers = [Layer(z, mu, logvar, torch.zeros_like(mu), torch.zeros_like(mu))]
        for prior, (mu, logvar), noise in reversed(list(zip(self.priors, seen[:-1], noises[:-1], strict=True))):
            expected = prior(z)                                                        # of p(z_t|z_{t+1})
            mu, logvar = merge(mu, logvar, *expected)
            z = self.reparameterize(mu, logvar, noise)
            layers.insert(0, Layer(z, mu, logvar, *expected))
        return layers

    def kl(self, layers):
        """In closed form, given the parents' draws. Its gradient is exactly zero where a posterior is its prior; that of
        log_ratio is noise there, the more the smaller the variance, and training on it diverged in trials."""
        return [closed_kl(layer) for layer in layers]
