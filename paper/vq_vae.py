"""The VQ-VAE (van den Oord, Vinyals & Kavukcuoglu 2017): a grid of codes from a learnt codebook in place of a Gaussian z.

    python paper/train_paper.py --model vq-vae --codes 64
    python paper/reproduce.py vq-vae                                     # with the prior over the codes, which it needs

The encoder puts a vector z_e on every cell of a grid a quarter as high and as wide as the image. Each is replaced by the
nearest of K codes, e, and from these the decoder draws the image. What is minimized is, in nats per image,

    -log p(x|e)  +  |sg(z_e) - e|^2  +  0.25 |z_e - sg(e)|^2             sg: a constant, no gradient goes through

log p(x|e) is a sum over pixels, and both distances are sums over cells and coordinates: means would be other weights.
argmin has no gradient: the decoder's is copied to z_e as if e were z_e ("straight through"). The first distance moves the
codes only, the second the encoder only. A moving average over the z_e that chose a code does the first one's work without
a step size (`ema`, the paper's alternative).

q(z|x) is a point mass on one grid of codes, so that its entropy is zero, and with any prior p(z) over grids

    log p(x) >= log p(x|z) + log p(z)                                    z = the codes of x

is a bound. While the VQ-VAE is trained, all grids are alike, p(z) = K^(-h w), a constant; afterwards CodePrior, below,
learns which grids there are. No setting makes a plain VAE of it: with ever more codes, it becomes an autoencoder.
Letters: B images, D pixels, h and w height and width of the grid, N = B h w cells, K codes, W coordinates of a code.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from common.config import CONV_CHANNELS, InputError, VAEConfig
from paper.family import FamilyModel
from paper.pixelcnn import PixelCNN
from paper.vae_paper import bernoulli_log_likelihood

DECAY = 0.99                        # of the moving averages, per step
RARE = 0.03                         # a code used less often than this share of the average one begins anew

# ---- the networks ------------------------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """x + a 3 x 3 and a 1 x 1 convolution of it, through half of the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x):
        return x + self.conv2(torch.relu(self.conv1(torch.relu(x))))


class Encoder(nn.Module):
    """Two strided convolutions, as ConvEncoder has them, and no dense layer. x (B, D) -> z_e (B, W, h, w)."""

    def __init__(self, image_shape, width: int):
        super().__init__()
        c1, c2 = CONV_CHANNELS
        self.image_shape = image_shape
        self.conv1 = nn.Conv2d(1, c1, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.block = ResidualBlock(c2)
        self.vectors = nn.Conv2d(c2, width, 1)

    def forward(self, x):
        h = torch.relu(self.conv1(x.reshape(-1, 1, *self.image_shape)))                # (B, 32, 2h, 2w)
        h = torch.relu(self.block(self.conv2(h)))                                      # (B, 64, h, w)
        return self.vectors(h)                                                         # (B, W, h, w)


class Decoder(nn.Module):
    """The encoder mirrored. z (B, W, h, w) -> logits (B, D)."""

    def __init__(self, width: int):
        super().__init__()
        c1, c2 = CONV_CHANNELS
        self.features = nn.Conv2d(width, c2, 3, padding=1)
        self.block = ResidualBlock(c2)
        self.deconv1 = nn.ConvTranspose2d(c2, c1, 3, stride=2, padding=1, output_padding=1)
        self.deconv2 = nn.ConvTranspose2d(c1, 1, 3, stride=2, padding=1, output_padding=1)

    def forward(self, z):
        h = torch.relu(self.block(self.features(z)))                                   # (B, 64, h, w)
        h = torch.relu(self.deconv1(h))                                                # (B, 32, 2h, 2w)
        return self.deconv2(h).flatten(1)                                              # (B, D)


# ---- the codebook ------------------------------------------------------------------------------------------------------


class Codebook(nn.Module):
    """K vectors of W coordinates. All begin on outputs of the encoder, drawn from the first minibatch.

    vectors   (K, W): learnt by gradients, or with `ema` buffers that follow the encoder's outputs
    usage     (K,): cells of a minibatch that take the code, a moving average
    sums      (K, W), with ema: the sum of these cells' vectors, likewise; sums / usage is their mean, the code
    """

    def __init__(self, codes: int, width: int, ema: bool):
        super().__init__()
        self.ema = ema
        if ema:
            self.register_buffer("vectors", torch.zeros(codes, width))
            self.register_buffer("sums", torch.zeros(codes, width))
        else:
            self.vectors = nn.Parameter(torch.zeros(codes, width))
        self.register_buffer("usage", torch.zeros(codes))

    def nearest(self, z):
        """The code with the smallest |z - e|^2. z (N, W) -> (N,) long."""
        e = self.vectors.detach()
        return ((e * e).sum(dim=1) - 2 * z.detach() @ e.T).argmin(dim=1)               # |z|^2 is the same for all codes

    @torch.no_grad()
    def restart(self, z, generator):
        """Puts every code that hardly a cell takes any more on one of z (N, W), drawn at random. Its usage begins as the
        average one, so that it has as long as ln(1 / RARE) / (1 - DECAY) = 350 steps to find takers."""
        fair = len(z) / len(self.usage)
        rare = self.usage < RARE * fair                                                # (K,); at first, all of them
        drawn = z[torch.randint(len(z), self.usage.shape, generator=generator, device=z.device)]       # (K, W)
        self.vectors.copy_(torch.where(rare[:, None], drawn, self.vectors))
        self.usage.masked_fill_(rare, fair)
        if self.ema:
            self.sums.copy_(torch.where(rare[:, None], drawn * fair, self.sums))

    @torch.no_grad()
    def follow(self, z, taken):
        """One step of the moving averages: z (N, W), and which code it takes, taken (N, K), 1 or 0. restart, called before,
        keeps usage away from zero: no count needs smoothing."""
        self.usage.lerp_(taken.sum(dim=0), 1 - DECAY)
        if self.ema:
            self.sums.lerp_(taken.T @ z, 1 - DECAY)
            self.vectors.copy_(self.sums / self.usage[:, None])


def perplexity(counts):
    """exp(entropy) of how often each code is taken, counts (K,): K where all are equally often, 1 where one is always."""
    return torch.special.entr(counts / counts.sum()).sum().exp()


# ---- the model ---------------------------------------------------------------------------------------------------------


class VQVAE(FamilyModel):
    """Encoder, codebook, decoder, for binary pixels. Raises InputError where a setting makes no sense.

    config       image_shape, whose sides divide by 4; hidden and latent have no meaning here
    codes        K
    width        W
    commitment   weight of |z_e - sg(e)|^2
    ema          the codebook by moving averages; else by the gradient of |sg(z_e) - e|^2
    """

    def __init__(self, config: VAEConfig, codes: int = 128, width: int = 16, commitment: float = 0.25, ema: bool = True):
        if config.likelihood != "bernoulli" or any(side % 4 for side in config.image_shape):
            raise InputError(f"likelihood {config.likelihood}, image_shape {config.image_shape}: the VQ-VAE here is for "
                             "binary pixels, and halves each side twice; pad the images, or take another model")
        if codes < 2 or width < 1:
            raise InputError(f"codes is {codes}, width {width}: give at least 2 and 1")
        if not (math.isfinite(commitment) and commitment > 0):
            raise InputError(f"commitment is {commitment}: give a positive weight, or the encoder drifts from the codes")
        super().__init__(config, codes=codes, width=width, commitment=commitment, ema=ema)
        self.encoder, self.decoder = Encoder(config.image_shape, width), Decoder(width)
        self.codebook = Codebook(codes, width, ema)
        self.grid = (config.image_shape[0] // 4, config.image_shape[1] // 4)           # (h, w)

    @torch.no_grad()
    def draw_weights(self, rng, pixel_means):
        """As FamilyModel's; the decoder begins at the mean of the training pixels' means (D,), within [0.001, 0.999]."""
        mean = float(np.clip(pixel_means.mean(), 0.001, 0.999))
        super().draw_weights(rng, pixel_means)
        self.decoder.deconv2.bias.fill_(math.log(mean / (1 - mean)))
        return self

    def encode(self, x):
        """What the encoder says of every cell. x (B, D) -> z_e (N, W), images one after another in reading order."""
        if x.ndim != 2 or x.shape[1] != self.config.pixels or not len(x):
            raise InputError(f"x has shape {tuple(x.shape)}: the model wants (B, {self.config.pixels}), one row per image")
        return self.encoder(x).permute(0, 2, 3, 1).flatten(0, 2)                       # (N, W)

    def decode(self, z):
        """The logits of p(x|z). z (N, W), codes or what stands for them -> (B, D)."""
        return self.decoder(z.unflatten(0, (-1, *self.grid)).permute(0, 3, 1, 2))

    def log_likelihood(self, x, z):
        """log p(x|z), the sum over pixels, in nats. x (B, D), z (N, W) -> (B,)."""
        return bernoulli_log_likelihood(x, self.decode(z))

    def distances(self, z_e, e):
        """|sg(z_e) - e|^2, whose gradient goes to the codes, and |z_e - sg(e)|^2, whose gradient goes to the encoder: sums
        over cells and coordinates, means over images. z_e and e (N, W) -> 0-d, twice."""
        cells = math.prod(self.grid)
        return tuple((a - b).square().sum(dim=1).mean() * cells for a, b in ((z_e.detach(), e), (z_e, e.detach())))

    def training_loss(self, x, y, generator):
        """The objective on top of this file, eq. 3.15, mean over images; in training the codebook is updated too. x (B, D).
        y, labels, unused. The generator places codes that begin anew.

        Terms: "elbo" under the uniform prior, "log_likelihood", and "perplexity", the number of codes in even use.
        """
        z_e = self.encode(x)                                                           # (N, W)
        if self.training:
            self.codebook.restart(z_e.detach(), generator)
        index = self.codebook.nearest(z_e)                                             # (N,)
        e = self.codebook.vectors[index]                                               # (N, W)
        log_likelihood = self.log_likelihood(x, z_e + (e - z_e).detach()).mean()       # straight through: e, d/dz_e = 1
        to_codes, to_encoder = self.distances(z_e, e)
        loss = self.settings["commitment"] * to_encoder - log_likelihood
        if not self.codebook.ema:
            loss = loss + to_codes
        taken = F.one_hot(index, self.settings["codes"]).to(x.dtype)                   # (N, K)
        if self.training:
            self.codebook.follow(z_e.detach(), taken)
        log_likelihood = log_likelihood.detach()
        return loss, {"elbo": log_likelihood + self.log_uniform(), "log_likelihood": log_likelihood,
                      "perplexity": perplexity(taken.sum(dim=0))}

    def log_uniform(self) -> float:
        """log p(z) of any grid under the uniform prior: -h w log K, in nats."""
        return -math.prod(self.grid) * math.log(self.settings["codes"])

    @torch.no_grad()
    def codes(self, x):
        """The codes of images x (B, D): (B, h, w) long."""
        return self.codebook.nearest(self.encode(x)).unflatten(0, (-1, *self.grid))

    def decode_codes(self, codes):
        """The mean of p(x|z) at grids of codes (B, h, w): (B, D) in [0, 1]."""
        return torch.sigmoid(self.decode(self.codebook.vectors[codes.flatten()]))

    def reconstruct(self, x):
        """The mean of p(x|z) at the codes of x: (B, D) -> (B, D) in [0, 1]."""
        return self.decode_codes(self.codes(x))

    @torch.no_grad()
    def code_maps(self, codes):
        """The grids of codes (B, h, w) as pictures (B, D) in [0, 1]: each code has a gray of its own, in the order of how
        bright an image full of it is; each cell is a square."""
        everything = torch.arange(self.settings["codes"], device=codes.device)         # (K,)
        brightness = self.decode_codes(everything[:, None, None].expand(-1, *self.grid)).mean(dim=1)
        gray = brightness.argsort().argsort() / (len(everything) - 1)                  # (K,): a code's rank
        return gray[codes].repeat_interleave(4, dim=1).repeat_interleave(4, dim=2).flatten(1)

    @torch.no_grad()
    def draw_codes(self, count: int, prior: PixelCNN | None, generator):
        """Grids of codes (count, h, w) from the prior; None: each code with the same probability, anywhere."""
        if prior is not None:
            return prior.sample((count, *self.grid), generator)
        device = self.codebook.vectors.device
        return torch.randint(self.settings["codes"], (count, *self.grid), generator=generator, device=device)

    @torch.no_grad()
    def sample(self, count: int, prior: PixelCNN | None, generator):
        """Binary images x ~ p(x|z), z from the prior as in draw_codes: (count, D)."""
        return torch.bernoulli(self.decode_codes(self.draw_codes(count, prior, generator)), generator=generator)


# ---- the prior ---------------------------------------------------------------------------------------------------------


class CodePrior(FamilyModel):
    """A trained VQ-VAE, which stays as it is, and a PixelCNN that learns the prior over its codes: together, a model of
    images with a bound. Begin it with `of`; settings: those of the VQVAE, as a dict, and of the PixelCNN."""

    def __init__(self, config: VAEConfig, vqvae: dict, channels: int = 64, layers: int = 4, kernel: int = 5):
        super().__init__(config, vqvae=vqvae, channels=channels, layers=layers, kernel=kernel)
        self.vqvae = VQVAE(config, **vqvae).requires_grad_(False)
        self.pixelcnn = PixelCNN(self.vqvae.settings["codes"], channels, layers, kernel)

    @classmethod
    def of(cls, vqvae: VQVAE, rng: np.random.Generator, channels: int = 64, layers: int = 4, kernel: int = 5):
        """The model with the VQ-VAE's weights, and those of the prior drawn as FamilyModel does."""
        model = cls(vqvae.config, vqvae.settings, channels, layers, kernel)
        like = vqvae.codebook.vectors
        model.draw_weights(rng, np.full(vqvae.config.pixels, 0.5)).to(like.device, like.dtype)
        model.vqvae.load_state_dict(vqvae.state_dict())
        return model

    def training_loss(self, x, y, generator):
        """-log p(z), mean over images, z the codes of x (B, D). y and generator, unused.

        Terms: "elbo" = "log_likelihood" + "log_prior", the bound on log p(x), eq. 3.16. In nats per image.
        """
        codes = self.vqvae.codes(x)                                                    # (B, h, w)
        loss = -self.pixelcnn.log_prob(codes).mean()
        with torch.no_grad():
            log_likelihood = self.vqvae.log_likelihood(x, self.vqvae.codebook.vectors[codes.flatten()]).mean()
        log_prior = -loss.detach()
        return loss, {"elbo": log_likelihood + log_prior, "log_likelihood": log_likelihood, "log_prior": log_prior}
