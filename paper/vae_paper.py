"""Level 3: the paper's model as an nn.Module, on torch.distributions. Kingma & Welling 2014.

    model = VAE(VAEConfig(latent=20))
    loss, terms = model.loss(x, eps)            # x (B, D), eps (B, J)
    loss.backward()

Lay it beside pytorch_lowlevel/vae_lowlevel.py: modules now hold the weights, under the same names, and distributions know
their own log-density. `layers=2` (784-200-200-50, Burda et al. 2016) exists here only.
Letters: B images, D = height*width pixels, H hidden units, J latents. Units: nats per image.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Bernoulli, Normal

from common.checkpoints import load_params, save_params
from common.config import CONV_CHANNELS, CONV_HIDDEN, InputError, VAEConfig, check_batch, check_objective, init_params

# ---- encoder -------------------------------------------------------------------------------------------------------


class MLPEncoder(nn.Module):
    """Paper, appendix C.2: h = tanh(W3 x + b3), mu = W4 h + b4, log sigma^2 = W5 h + b5. x (B, D) -> two (B, J)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.hidden = nn.Linear(config.pixels + config.condition, config.hidden)
        if config.layers == 2:
            self.hidden2 = nn.Linear(config.hidden, config.hidden)
        self.mu = nn.Linear(config.hidden, config.latent)
        self.logvar = nn.Linear(config.hidden, config.latent)
        self.layers = config.layers

    def forward(self, x):
        h = torch.tanh(self.hidden(x))                                                 # (B, H)
        if self.layers == 2:
            h = torch.tanh(self.hidden2(h))                                            # (B, H)
        return self.mu(h), self.logvar(h)                                              # (B, J), (B, J)


class ConvEncoder(nn.Module):
    """Two strided convolutions and a dense layer. x (B, D) -> mu, logvar (B, J)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        (height, width), (c1, c2) = config.image_shape, CONV_CHANNELS
        self.image_shape = config.image_shape
        self.conv1 = nn.Conv2d(1, c1, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.fc = nn.Linear(c2 * (height // 4) * (width // 4), CONV_HIDDEN)
        self.mu = nn.Linear(CONV_HIDDEN, config.latent)
        self.logvar = nn.Linear(CONV_HIDDEN, config.latent)

    def forward(self, x):
        h = torch.relu(self.conv1(x.reshape(-1, 1, *self.image_shape)))                # (B, 32, h/2, w/2)
        h = torch.relu(self.conv2(h))                                                  # (B, 64, h/4, w/4)
        h = torch.relu(self.fc(h.flatten(1)))                                          # (B, 256)
        return self.mu(h), self.logvar(h)                                              # (B, J), (B, J)


# ---- decoder -------------------------------------------------------------------------------------------------------


class MLPDecoder(nn.Module):
    """Paper, appendix C: h = tanh(W z + b), then one head or two. z (B, J) -> logits, or raw mean and logvar, (B, D)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(config.latent + config.condition, config.hidden)
        if config.layers == 2:
            self.hidden2 = nn.Linear(config.hidden, config.hidden)
        if config.likelihood == "bernoulli":
            self.logits = nn.Linear(config.hidden, config.pixels)
        else:
            self.mean = nn.Linear(config.hidden, config.pixels)
            if config.fixed_logvar is None:
                self.logvar = nn.Linear(config.hidden, config.pixels)

    def forward(self, z):
        h = torch.tanh(self.hidden(z))                                                 # (B, H)
        if self.config.layers == 2:
            h = torch.tanh(self.hidden2(h))                                            # (B, H)
        if self.config.likelihood == "bernoulli":
            return self.logits(h)                                                      # (B, D)
        raw_mean = self.mean(h)                                                        # (B, D)
        if self.config.fixed_logvar is None:
            return raw_mean, self.logvar(h)                                            # (B, D), (B, D)
        return raw_mean, torch.full_like(raw_mean, self.config.fixed_logvar)


class ConvDecoder(nn.Module):
    """The encoder mirrored: two dense layers, two transposed convolutions. z (B, J) -> as MLPDecoder."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        (height, width), (c1, c2) = config.image_shape, CONV_CHANNELS
        self.config = config
        self.small = (c2, height // 4, width // 4)
        outputs = 2 if config.likelihood == "gaussian" and config.fixed_logvar is None else 1
        self.fc1 = nn.Linear(config.latent, CONV_HIDDEN)
        self.fc2 = nn.Linear(CONV_HIDDEN, c2 * (height // 4) * (width // 4))
        self.deconv1 = nn.ConvTranspose2d(c2, c1, 3, stride=2, padding=1, output_padding=1)
        self.deconv2 = nn.ConvTranspose2d(c1, outputs, 3, stride=2, padding=1, output_padding=1)

    def forward(self, z):
        h = torch.relu(self.fc1(z))                                                    # (B, 256)
        h = torch.relu(self.fc2(h)).reshape(-1, *self.small)                           # (B, 64, h/4, w/4)
        h = torch.relu(self.deconv1(h))                                                # (B, 32, h/2, w/2)
        out = self.deconv2(h).flatten(2)                                               # (B, 1 or 2, D)
        if self.config.likelihood == "bernoulli":
            return out[:, 0]                                                           # (B, D)
        if self.config.fixed_logvar is None:
            return out[:, 0], out[:, 1]                                                # (B, D), (B, D)
        return out[:, 0], torch.full_like(out[:, 0], self.config.fixed_logvar)


# ---- the model -----------------------------------------------------------------------------------------------------


def kl_divergence(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2, per latent: (B, J) -> (B, J), nats.

    torch.distributions.kl_divergence rounds below zero near the prior; expm1(logvar) - logvar does not.
    """
    return 0.5 * (mu * mu + (torch.expm1(logvar) - logvar))                            # (B, J)


def kl_of_gaussians(mu, logvar, prior_mu, prior_logvar):
    """KL(N(mu, exp(logvar)) || N(prior_mu, exp(prior_logvar))) per latent: four (..., J) -> (..., J), nats, never negative.

    E_q[log q - log p], with E_q[(z - mu)^2] = sigma^2 and E_q[(z - m)^2] = sigma^2 + (mu - m)^2, where m, s are p's:

        KL = (log s^2 - log sigma^2 - 1 + (sigma^2 + (mu - m)^2) / s^2) / 2

    that is (mu - m)^2 / s^2 + (r - 1 - log r), halved, r = sigma^2 / s^2 (eq. 3.14): with m = 0, s = 1 the KL of the VAE.
    """
    log_ratio = logvar - prior_logvar
    return 0.5 * ((mu - prior_mu) ** 2 * torch.exp(-prior_logvar) + (torch.expm1(log_ratio) - log_ratio))


def bernoulli_log_likelihood(x, logits):
    """log p(x|z) = sum_d x_d l_d - softplus(l_d), eq. 11 in logits: x (B, D), logits (..., B, D) -> (..., B), nats.

    The same number as Bernoulli.log_prob's, in half as many passes over the logits, where the time goes that the matrix
    products leave. (softplus is the identity above 40: exact in float64.)
    """
    return (x * logits).sum(dim=-1) - F.softplus(logits, threshold=40).sum(dim=-1)


def kl_with_free_bits(kl_j, free_bits: float):
    """sum_j max(free_bits, KL_j), eq. 1.17, 0-d; kl_j (J,), the mean KL of each latent. Where both are equal, as below, no
    gradient: torch.maximum would let half of it through."""
    return torch.where(kl_j <= free_bits, free_bits, kl_j).sum()


class VAE(nn.Module):
    """encoder q(z|x), decoder p(x|z), prior p(z) = N(0, I), and the bound. Its state_dict has the names of levels 1, 2.

    params   NumPy arrays by name to begin with (init_params, load_params); without them init_params of seed 0
    """

    takes_labels = False                                        # conditional_vae.py does

    def __init__(self, config: VAEConfig, params: dict[str, np.ndarray] | None = None):
        super().__init__()
        if config.condition and not self.takes_labels:
            raise InputError(f"condition is {config.condition}, but {type(self).__name__} takes no label: use "
                             "ConditionalVAE (paper/conditional_vae.py), or condition 0")
        self.config = config
        mlp = config.arch == "mlp"
        self.encoder = (MLPEncoder if mlp else ConvEncoder)(config)
        self.decoder = (MLPDecoder if mlp else ConvDecoder)(config)
        params = init_params(config, np.random.default_rng(0)) if params is None else params
        tensors = {name: torch.tensor(array) for name, array in params.items()}
        self.load_state_dict(tensors, assign=True)              # the model takes their dtype

    @classmethod
    def load(cls, path) -> "VAE":
        """The model in a params.npz of any level. Raises InputError where the file is something else."""
        params, config = load_params(path)
        return cls(config, params)

    def save(self, path):
        """Writes params.npz, which every level reads (levels 1 and 2: one hidden layer only)."""
        save_params(path, {name: tensor.cpu().numpy() for name, tensor in self.state_dict().items()}, self.config)

    # ---- the parts, section 3 and appendix C -------------------------------------------------------------------------

    def encode(self, x):
        """The parameters of q(z|x). x (B, D) -> mu (B, J), logvar (B, J)."""
        return self.encoder(x)

    def reparameterize(self, mu, logvar, eps):
        """A draw z ~ N(mu, exp(logvar)) as a function of noise eps ~ N(0, I), eq. 10; shapes (..., B, J)."""
        return mu + torch.exp(0.5 * logvar) * eps

    def decode(self, z):
        """The parameters of p(x|z). z (..., J) -> logits (..., D), or for the Gaussian mean and logvar, (..., D) each."""
        shape = (*z.shape[:-1], self.config.pixels)       # the networks know one leading axis, estimators have (L, B)
        out = self.decoder(z.reshape(-1, z.shape[-1]))
        if self.config.likelihood == "bernoulli":
            return out.reshape(shape)
        raw_mean, logvar = out
        return torch.sigmoid(raw_mean).reshape(shape), logvar.reshape(shape)      # the paper's Frey Face: means in (0, 1)

    def decode_mean(self, z):
        """The mean of p(x|z), a picture to look at. z (..., J) -> (..., D) in [0, 1]."""
        return self.likelihood(z).mean

    def likelihood(self, z):
        """p(x|z) as a distribution over single pixels, (..., D). z (..., J)."""
        out = self.decode(z)
        # unvalidated: Bernoulli refuses gray pixels, and the check would make a GPU wait at every step
        if self.config.likelihood == "bernoulli":
            return Bernoulli(logits=out, validate_args=False)
        mean, logvar = out
        return Normal(mean, torch.exp(0.5 * logvar), validate_args=False)

    @torch.no_grad()
    def sample(self, z, generator=None):
        """An image x ~ p(x|z), binary or with the Gaussian's noise; no gradient goes through it. z (..., J) -> (..., D)."""
        pixel = self.likelihood(z)
        shape, like = pixel.mean.shape, {"generator": generator, "device": z.device, "dtype": z.dtype}
        if self.config.likelihood == "bernoulli":
            return (torch.rand(shape, **like) < pixel.mean).to(z.dtype)
        return pixel.mean + pixel.stddev * torch.randn(shape, **like)

    def log_likelihood(self, x, z):
        """log p(x|z), eq. 11 or 12, in nats. x (B, D); z (..., B, J) -> (..., B)."""
        if self.config.likelihood == "bernoulli":
            return bernoulli_log_likelihood(x, self.decode(z))
        return self.likelihood(z).log_prob(x).sum(dim=-1)

    # ---- the bound, eq. 10, and the objective ------------------------------------------------------------------------

    def likelihood_and_kl(self, x, eps):
        """x (B, D), eps (B, J) -> log p(x|z) (B,) and the KL divergence per latent (B, J), in nats."""
        check_batch({"weights": next(self.parameters())}, x, eps, self.config)
        mu, logvar = self.encode(x)                                                    # (B, J), (B, J)
        z = self.reparameterize(mu, logvar, eps)                                       # (B, J)
        return self.log_likelihood(x, z), kl_divergence(mu, logvar)

    def elbo_terms(self, x, eps):
        """log p(x|z) (B,) and KL(q(z|x) || p(z)) (B,) of every image, in nats; their difference is the ELBO."""
        log_likelihood, kl = self.likelihood_and_kl(x, eps)
        return log_likelihood, kl.sum(dim=1)

    def loss(self, x, eps, beta: float = 1.0, free_bits: float = 0.0):
        """-mean log p(x|z) + beta * sum_j max(free_bits, mean_b KL_bj), to call backward() on, and its terms, detached.

        x (B, D), eps (B, J) -> loss 0-d, {"elbo", "log_likelihood", "kl"} batch means, 0-d: the elbo is the plain bound.
        """
        check_objective(beta, free_bits)
        log_likelihood, kl = self.likelihood_and_kl(x, eps)                            # (B,), (B, J)
        log_likelihood, kl_j = log_likelihood.mean(), kl.mean(dim=0)                   # 0-d, (J,)
        loss = -log_likelihood + beta * kl_with_free_bits(kl_j, free_bits)
        log_likelihood, kl = log_likelihood.detach(), kl_j.detach().sum()
        return loss, {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}

    forward = loss                                        # what DistributedDataParallel calls

    def training_loss(self, x, y, generator):
        """What train_paper.py minimizes: the loss at noise drawn from `generator`, and its terms. y, labels, unused."""
        eps = torch.randn(len(x), self.config.latent, generator=generator, device=x.device, dtype=x.dtype)
        return self.loss(x, eps)
