"""Full variational Bayes (Kingma & Welling 2014, appendix F): a posterior over the decoder's weights, too.

    model = FullVB(config, params, training_images=len(x_train))
    loss, terms = model.training_loss(x, y, generator)                    # what train_paper.train calls
    nats = expected_elbo(model, x_test, 20, generator).mean()             # new images: weights drawn from q(theta)

AEVB finds one best theta, the decoder's weights and biases. Here theta is unknown as z is: a prior N(0, I), and a posterior
q(theta) = N(mu, sigma^2) for each weight, whose mu and sigma are learnt by the same trick: theta = mu + sigma * zeta,
zeta ~ N(0, 1). The encoder's weights are variational parameters, as mu and sigma are: numbers, with no prior. For all N
training images together the bound is

    log p(X) >= E_q(theta)[sum_i ELBO(x_i; theta)] - KL(q(theta) || N(0, I))

and divided by N it is what `full_bound` returns and training raises: one KL for the whole set is KL/N for an image, so
that the data speak louder the more they are (eq. 24 has both KL terms in closed form). With sigma = 0 and constants left
out, the decoder's weights are the MAP estimate of section 5.

One theta is drawn for a minibatch. The paper draws one for each data point, which has less noise and the same mean; but a
decoder of its own for each of 100 images is 100 times the weights to draw, and no matrix product of a batch is left.
Letters: B images of a minibatch, N of the training set, D pixels, J latents. Units: nats per image.
"""

import copy
import math

import torch
from torch.func import functional_call

from common.checkpoints import save_params
from common.config import InputError, VAEConfig
from paper.vae_paper import VAE, kl_divergence

# Of q(theta). The start matters: with exp(-5), all but a VAE, the means grow large before the variances do, and in trials
# on 100 MNIST digits the whole bound ended 100 nats lower; with 0.3 noise drowned the images, and it ended lower, too.
INITIAL_SD = 0.1


class FullVB(VAE):
    """A VAE with a Gaussian posterior over the decoder's weights. Raises InputError where a setting makes no sense.

    training_images   N, the images of the training set
    initial_sd        standard deviation of every weight's posterior to begin with; its mean begins as `params`

    `decoder` holds the means. encode, decode, log_likelihood and what is built on them are those of a VAE with these mean
    weights; training_loss and the functions below draw weights.
    """

    def __init__(self, config: VAEConfig, params, training_images: int, initial_sd: float = INITIAL_SD):
        if training_images < 1:
            raise InputError(f"training_images is {training_images}: give the size of the training set, at least 1")
        if not 0 < initial_sd < math.inf:
            raise InputError(f"initial_sd is {initial_sd}: give a positive standard deviation, such as 0.1")
        super().__init__(config, params)
        self.training_images = training_images
        self.weight_logvar = copy.deepcopy(self.decoder)        # decodes nothing: a log-variance for each of its weights
        for logvar in self.weight_logvar.parameters():
            torch.nn.init.constant_(logvar, 2 * math.log(initial_sd))

    def mean_params(self):
        """The mean weights, and the encoder's, as NumPy arrays by name: those of a VAE."""
        return {name: tensor.cpu().numpy() for name, tensor in self.state_dict().items()
                if not name.startswith("weight_logvar.")}

    def save(self, path):
        """Writes the mean weights as a params.npz, which VAE.load reads. The variances are in checkpoint.npz alone."""
        save_params(path, self.mean_params(), self.config)

    @classmethod
    def load(cls, path):
        """Raises InputError: a params.npz has no variances."""
        raise InputError(f"{path} can hold the mean weights only: read them with VAE.load, or go on from a checkpoint")

    def weight_posterior(self):
        """[(name, mu, logvar)] of q(theta), one entry for each tensor of the decoder, named as in state_dict."""
        pairs = zip(self.decoder.named_parameters(prefix="decoder"), self.weight_logvar.parameters(), strict=True)
        return [(name, mu, logvar) for (name, mu), logvar in pairs]

    def draw_weights(self, generator):
        """theta = mu + sigma * zeta, zeta ~ N(0, I): {name: tensor}, for torch.func.functional_call(model, theta, ...)."""
        def draw(mu, logvar):
            zeta = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
            return self.reparameterize(mu, logvar, zeta)                 # eq. 10 again, for weights

        return {name: draw(mu, logvar) for name, mu, logvar in self.weight_posterior()}

    def weight_kl(self):
        """KL(q(theta) || N(0, I)) of all weights and biases of the decoder, in nats, 0-d: once for the training set."""
        return sum(kl_divergence(mu, logvar).sum() for _, mu, logvar in self.weight_posterior())

    def training_loss(self, x, y, generator):
        """-ELBO at one draw of weights, the minibatch's mean, + KL(q(theta) || N(0, I)) / N. x (B, D); y, labels, unused.

        Terms: those of VAE.loss at the drawn weights, and "weight_kl", divided by N already: elbo - weight_kl is the bound.
        """
        eps = torch.randn(len(x), self.config.latent, generator=generator, device=x.device, dtype=x.dtype)
        loss, terms = functional_call(self, self.draw_weights(generator), (x, eps))      # VAE.loss, with these weights
        weight_kl = self.weight_kl() / self.training_images
        return loss + weight_kl, terms | {"weight_kl": weight_kl.detach()}


@torch.no_grad()
def expected_elbo(model: FullVB, x, draws: int, generator, batch_size: int = 1000):
    """The mean ELBO of the images x (N, D) at each of so many draws of weights: (draws,), nats per image.

    Their mean estimates E_q(theta)[ELBO(x; theta)]. By Jensen's inequality, twice, that bounds log E_q(theta)[p(x|theta)]
    from below: what the model says of a new image when it averages over all weights it holds possible.
    """
    if draws < 1 or not len(x):
        raise InputError(f"draws is {draws} and x has {len(x)} images: give at least one of each")
    means = []
    for _ in range(draws):
        theta, total = model.draw_weights(generator), 0.0
        for some in x.split(batch_size):
            eps = torch.randn(len(some), model.config.latent, generator=generator, device=x.device, dtype=x.dtype)
            total += functional_call(model, theta, (some, eps))[1]["elbo"] * (len(some) / len(x))
        means.append(total)
    return torch.stack(means)


@torch.no_grad()
def full_bound(model: FullVB, x_train, draws: int, generator):
    """Eq. 3.9 over N: E_q(theta)[ELBO] - KL(q(theta) || N(0, I)) / N <= log p(X) / N, X the training set (N, D). 0-d."""
    if len(x_train) != model.training_images:
        raise InputError(f"the bound is for all {model.training_images} training images, and x_train has {len(x_train)}")
    return expected_elbo(model, x_train, draws, generator).mean() - model.weight_kl() / model.training_images
