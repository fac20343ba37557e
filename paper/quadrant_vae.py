"""Structured prediction with a conditional VAE (Sohn, Lee & Yan 2015): the missing quadrants of an image from the others.

    model = QuadrantVAE(config, quadrants=1).draw_weights(rng, pixel_means)    # the lower left is observed
    loss, terms = model.training_loss(x, y, generator)                        # what paper.train_paper.train calls
    images = model.completions(x, eps)                                        # one for each eps, all unlike

A network that is asked for the rest of a digit answers with the mean of all that is possible: each pixel is predicted for
itself, as if the others were not to fit it. A latent z lets it commit. With x_obs, the observed pixels, and x_mis:

    prior network        p(z|x_obs)             what may come
    generation network   p(x_mis|z, x_obs)      Bernoulli pixels, independent once z is given
    recognition network  q(z|x)                 what came: it sees the whole image, in training only

    log p(x_mis|x_obs) >= E_q log p(x_mis|z, x_obs) - KL(q(z|x) || p(z|x_obs))

is the bound of the VAE with x_obs behind every bar, and the N(0, I) of the prior has become a network. The observed pixels
enter as a shorter vector: nothing stands in the place of the missing ones, and each network has only weights that it uses.
Letters: B images, D pixels, of which O are observed and M missing, H hidden units, J latents, L draws. Units: nats per
image, over its missing pixels.
"""

import numpy as np
import torch
from torch import nn

from common.config import InputError, VAEConfig, check_batch
from paper.estimators import check_draws, check_images
from paper.family import FamilyModel
from paper.vae_paper import VAE, bernoulli_log_likelihood, kl_of_gaussians

QUADRANTS = ("lower left", "upper left", "upper right", "lower right")         # in the order in which they are uncovered


def observed_pixels(image_shape, quadrants: int) -> np.ndarray:
    """Which pixels of an image are observed, (D,) bool, in reading order: those of so many of QUADRANTS, from the first on.

    0: none; 1: the lower left; 2: the left half; 3: all but the lower right. An odd side has its larger half below, right.
    Raises InputError for another number, or where an image is too small.
    """
    if quadrants not in range(4):
        raise InputError(f"quadrants is {quadrants!r}: give 1, 2 or 3 that are observed, or 0 for none")
    height, width = image_shape
    if min(height, width) < 2:
        raise InputError(f"an image of {height} x {width} pixels has no quadrants: give one of 2 x 2 or more")
    observed = np.zeros(image_shape, bool)
    for name in QUADRANTS[:quadrants]:
        rows = slice(height // 2) if name.startswith("upper") else slice(height // 2, None)
        columns = slice(width // 2) if name.endswith("left") else slice(width // 2, None)
        observed[rows, columns] = True
    return observed.reshape(-1)


# ---- the networks ------------------------------------------------------------------------------------------------------


def two_layers(inputs: int, config: VAEConfig) -> nn.Sequential:
    """(..., inputs) -> (..., H), two hidden layers of rectified linear units."""
    return nn.Sequential(nn.Linear(inputs, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.hidden), nn.ReLU())


class GaussianNetwork(nn.Module):
    """(B, inputs) -> the mean and the log-variance of z, (B, J) each."""

    def __init__(self, inputs: int, config: VAEConfig):
        super().__init__()
        self.hidden = two_layers(inputs, config)
        self.mu = nn.Linear(config.hidden, config.latent)
        self.logvar = nn.Linear(config.hidden, config.latent)

    def forward(self, x):
        h = self.hidden(x)                                               # (B, H)
        return self.mu(h), self.logvar(h)                                # (B, J), (B, J)


class QuadrantModel(FamilyModel):
    """What both models below have in common: which pixels are observed, and a network with the logits of the others."""

    def __init__(self, config: VAEConfig, quadrants: int, latent: int):
        super().__init__(config, quadrants=quadrants)
        if config.likelihood != "bernoulli":
            raise InputError(f"likelihood is {config.likelihood}: missing quadrants are predicted as Bernoulli pixels only")
        observed = observed_pixels(config.image_shape, quadrants)
        # the pixels' numbers, not a mask: with a mask a GPU would have to wait to learn how many they are
        self.register_buffer("observed", torch.from_numpy(np.flatnonzero(observed)), persistent=False)       # (O,)
        self.register_buffer("missing", torch.from_numpy(np.flatnonzero(~observed)), persistent=False)       # (M,)
        self.hidden = two_layers(latent + len(self.observed), config)
        self.logits = nn.Linear(config.hidden, len(self.missing))

    @torch.no_grad()
    def draw_weights(self, rng: np.random.Generator, pixel_means: np.ndarray):
        """Begins anew, as FamilyModel does, with the average image in the missing pixels; pixel_means (D,)."""
        super().draw_weights(rng, pixel_means)
        means = torch.from_numpy(pixel_means)[self.missing.cpu()].clamp(0.001, 0.999)
        self.logits.bias.copy_(torch.logit(means))
        return self

    def log_likelihood(self, x, logits):
        """log p(x_mis|...) of Bernoulli pixels, eq. 11 of the VAE's paper. x (B, D), logits (..., B, M) -> (..., B)."""
        return bernoulli_log_likelihood(x[:, self.missing], logits)

    def complete(self, x, logits):
        """The images x (B, D) with the mean of p(x_mis|...) in their missing pixels: logits (..., B, M) -> (..., B, D)."""
        images = x.expand(*logits.shape[:-1], -1).clone()
        images[..., self.missing] = torch.sigmoid(logits)
        return images


class QuadrantNetwork(QuadrantModel):
    """The plain network, x_obs -> p(x_mis|x_obs), to compare with: given x_obs, its pixels know nothing of each other.

    quadrants   1, 2 or 3 that are observed, see observed_pixels
    """

    def __init__(self, config: VAEConfig, quadrants: int):
        super().__init__(config, quadrants, latent=0)

    def predict(self, x):
        """The logits of the missing pixels: x (B, D), read in its observed pixels only -> (B, M)."""
        check_images(self, x)
        return self.logits(self.hidden(x[:, self.observed]))

    def training_loss(self, x, y, generator):
        """-mean log p(x_mis|x_obs), exact: there is nothing to draw, and the bound is the thing itself. x (B, D)."""
        log_likelihood = self.log_likelihood(x, self.predict(x)).mean()
        return -log_likelihood, {"elbo": log_likelihood.detach()}


class QuadrantVAE(QuadrantModel):
    """The conditional VAE.

    quadrants   1, 2 or 3 that are observed, see observed_pixels; 0 is a VAE whose prior N(m, s^2) is learnt
    """

    reparameterize = VAE.reparameterize

    def __init__(self, config: VAEConfig, quadrants: int):
        super().__init__(config, quadrants, config.latent)
        self.prior = GaussianNetwork(len(self.observed), config)
        self.recognition = GaussianNetwork(config.pixels, config)

    def encode_observed(self, x):
        """The parameters of p(z|x_obs): x (B, D), read in its observed pixels only -> mu, logvar (B, J)."""
        return self.prior(x[:, self.observed])

    def encode(self, x):
        """The parameters of q(z|x), of the whole image: x (B, D) -> mu, logvar (B, J)."""
        return self.recognition(x)

    def decode(self, z, x):
        """The logits of p(x_mis|z, x_obs): z (..., B, J), x (B, D), read in its observed pixels only -> (..., B, M)."""
        observed = x[:, self.observed].expand(*z.shape[:-1], -1)         # (..., B, O)
        return self.logits(self.hidden(torch.cat([z, observed], dim=-1)))

    def elbo_terms(self, x, eps):
        """The terms of eq. 3.13, log p(x_mis|z, x_obs) at z ~ q and the KL: x (B, D), eps (B, J) -> (B,), (B,)."""
        check_batch({"weights": self.logits.weight}, x, eps, self.config)
        mu, logvar = self.encode(x)                                      # (B, J), (B, J)
        z = self.reparameterize(mu, logvar, eps)                         # (B, J)
        kl = kl_of_gaussians(mu, logvar, *self.encode_observed(x)).sum(dim=1)
        return self.log_likelihood(x, self.decode(z, x)), kl

    def training_loss(self, x, y, generator):
        """-mean bound on log p(x_mis|x_obs), and its terms. x (B, D); y, labels, unused."""
        eps = torch.randn(len(x), self.config.latent, generator=generator, device=x.device, dtype=x.dtype)
        log_likelihood, kl = (term.mean() for term in self.elbo_terms(x, eps))
        terms = {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}
        return kl - log_likelihood, {name: term.detach() for name, term in terms.items()}

    def completions(self, x, eps):
        """Predictions: z from the prior network, the mean of p(x_mis|z, x_obs) beside the observed pixels of x (B, D).

        eps (L, B, J) -> (L, B, D). What x has in the missing pixels is not read: z from q(z|x) would be no prediction.
        """
        check_draws(self, x, eps)
        return self.complete(x, self.decode(self.reparameterize(*self.encode_observed(x), eps), x))


# ---- log p(x_mis|x_obs), by estimators.log_p_by_importance_sampling ----------------------------------------------------


def log_weights(model: QuadrantVAE, x, eps):
    """log p(x_mis|z, x_obs) + log p(z|x_obs) - log q(z|x) at z from q: x (B, D), eps (L, B, J) -> (L, B), nats.

    The proposal has seen the answer, as it may: each exponential is an unbiased estimate of p(x_mis|x_obs).
    """
    check_draws(model, x, eps)
    mu, logvar = model.encode(x)                                         # (B, J), (B, J)
    prior_mu, prior_logvar = model.encode_observed(x)                    # (B, J), (B, J)
    z = model.reparameterize(mu, logvar, eps)                            # (L, B, J)
    # log N(z; m, s^2) - log N(z; mu, sigma^2), whose constants cancel
    log_ratio = 0.5 * (eps**2 + logvar - (z - prior_mu) ** 2 * torch.exp(-prior_logvar) - prior_logvar).sum(dim=-1)
    return model.log_likelihood(x, model.decode(z, x)) + log_ratio


def log_weights_of_predictions(model: QuadrantVAE, x, eps):
    """log p(x_mis|z, x_obs) at z from the prior network, plain Monte Carlo: x (B, D), eps (L, B, J) -> (L, B), nats.

    Just as unbiased, but few of the predictions hit what came: it takes far more draws.
    """
    check_draws(model, x, eps)
    z = model.reparameterize(*model.encode_observed(x), eps)             # (L, B, J)
    return model.log_likelihood(x, model.decode(z, x))
