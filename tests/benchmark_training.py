"""What benchmark.py measures beside single steps: a whole loop with its data, a whole training, and log p(x).

Each races what level 3 does against what most people write, in turn, so that what else the machine does meets both.
"""

import math
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import nn

from common.config import VAEConfig
from common.data import EVAL_SEED, load_dataset, pixels
from paper.estimators import log_p_by_importance_sampling
from paper.images import Images
from paper.plan import Plan
from paper.train_paper import arithmetic, build, make_optimizer, train
from paper.vae_paper import VAE

# ---- the well-known example: 784-400-20, gray pixels, a DataLoader over PIL images --------------------------------------


class PILImages(torch.utils.data.Dataset):
    """Images one by one through PIL, as torchvision.datasets.MNIST gives them. x (N, h, w) uint8."""

    def __init__(self, x):
        self.x, self.transform = x, torchvision.transforms.ToTensor()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return self.transform(Image.fromarray(self.x[row]))


class ExampleVAE(nn.Module):
    """The VAE of PyTorch's best-known example: 784-400-20, ReLU, sigmoid."""

    def __init__(self, pixels):
        super().__init__()
        self.hidden, self.mu, self.logvar = nn.Linear(pixels, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.decoder_hidden, self.out = nn.Linear(20, 400), nn.Linear(400, pixels)

    def forward(self, x):
        h = F.relu(self.hidden(x.flatten(1)))
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return torch.sigmoid(self.out(F.relu(self.decoder_hidden(z)))), mu, logvar


def forever(batches):
    while True:
        yield from batches()


def loops(dataset, batch) -> dict:
    """name -> a step with everything in it, the minibatch too: the example's loop and train_paper.py's, at 784-400-20."""
    x = np.rint(255 * pixels(dataset.x_train)).astype(np.uint8).reshape(-1, *dataset.image_shape)
    loader = torch.utils.data.DataLoader(PILImages(x), batch_size=batch, shuffle=True)
    model = ExampleVAE(x[0].size)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    minibatches = forever(lambda: loader)

    def example():
        images = next(minibatches)
        optimizer.zero_grad()
        out, mu, logvar = model(images)
        error = F.binary_cross_entropy(out, images.flatten(1), reduction="sum")
        (error - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())).backward()
        optimizer.step()

    images = Images.of(dataset)

    def level_3(matmul):
        ours = build("vae", VAEConfig("mlp", dataset.image_shape, hidden=400, latent=20), images)
        our_optimizer, generator = make_optimizer(ours, Plan()), torch.Generator().manual_seed(0)
        choices = forever(lambda: torch.randperm(len(x), generator=generator).split(batch))

        def step():
            with arithmetic(matmul):
                chosen, labels = images.minibatch(next(choices), generator)
                loss, _ = ours.training_loss(chosen, labels, generator)
                our_optimizer.zero_grad()
                loss.backward()
            our_optimizer.step()
        return step

    return {"the well-known example": example, "level 3": level_3("highest"), "level 3, --matmul medium": level_3("medium")}


# ---- the time to a test ELBO of -100 nats --------------------------------------------------------------------------------


class PlainVAE(nn.Module):
    """784-500-20 with tanh, as most people write it."""

    def __init__(self, pixels, hidden, latent):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.Tanh())
        self.mu, self.logvar = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, pixels))

    def elbo(self, x, generator=None):
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape, generator=generator)
        log_likelihood = -F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(dim=1)
        return log_likelihood + 0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(dim=1)


def plain_epochs(images, config):
    """Trains a PlainVAE, Adam 1e-3, batch 100, for ever; yields (seconds of training, test ELBO) after each epoch."""
    torch.manual_seed(0)
    model = PlainVAE(config.pixels, config.hidden, config.latent)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    while True:
        start = time.perf_counter()
        for chosen in torch.randperm(len(images.x_train)).split(100):
            x = torch.bernoulli(images.x_train[chosen])
            optimizer.zero_grad()
            (-model.elbo(x).mean()).backward()
            optimizer.step()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            generator = torch.Generator().manual_seed(EVAL_SEED)
            elbo = float(torch.cat([model.elbo(x, generator) for x in images.x_test.split(1000)]).mean())
        yield seconds, elbo


def time_to(bound, dataset, plan, config, most=40) -> dict:
    """Epochs and seconds of training until the test ELBO reaches `bound` nats, for a plain loop and for train_paper.py.

    plan: ours. The plain loop gets its epochs in between ours, up to `most`. A race that is not won has None.
    """
    images = Images.of(dataset)
    plain, rows = plain_epochs(images, config), {"plain loop": [], "level 3": []}

    def catch_up(count):
        while len(rows["plain loop"]) < count and not reached("plain loop"):
            rows["plain loop"].append(next(plain))

    def reached(name):
        return bool(rows[name]) and rows[name][-1][1] >= bound

    def after_epoch(row):
        if not reached("level 3"):
            rows["level 3"].append((row["seconds"], row["test"]["elbo"]))
        catch_up(round(most * row["epoch"] / plan.epochs))

    train(build("vae", config, images), images, plan, report=after_epoch)
    return {name: {"epochs": len(epochs), "seconds": sum(seconds for seconds, _ in epochs), "elbo": epochs[-1][1],
                   "reached": reached(name), "curve": epochs} for name, epochs in rows.items()}


# ---- log p(x) ------------------------------------------------------------------------------------------------------------


def one_block(model, x, samples, generator):
    """log p(x) of each image from all its draws at once, as most people write it. x (B, D) -> (B,)."""
    found = []
    for image in x:
        mu, logvar = model.encode(image[None])
        q = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
        z = mu + torch.exp(0.5 * logvar) * torch.randn(samples, mu.shape[1], generator=generator)        # (K, J)
        log_q = q.log_prob(z).sum(dim=1)
        log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=1)
        target = image.expand(samples, -1)
        log_likelihood = -F.binary_cross_entropy_with_logits(model.decode(z), target, reduction="none").sum(dim=1)
        found.append(torch.logsumexp(log_likelihood + log_prior - log_q, dim=0) - math.log(samples))
    return torch.stack(found)


def log_p_race(dataset, config, samples, count, rows, epochs) -> dict:
    """Median seconds per image of both, image by image in turn; the model is trained a little, so that q is of use.

    They race in a process of their own, as fresh as one that loads a model to measure it: a process that has trained keeps
    large blocks of freed memory, which spares the one large block its page faults.
    """
    images = Images.of(dataset)
    model = build("vae", config, images)
    train(model, images, Plan(epochs=epochs, evaluate_every=epochs))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "params.npz")
        np.save(Path(folder) / "x.npy", images.x_test[:count].numpy())
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(race_of_log_p, folder, samples, rows).result()


@torch.no_grad()
def race_of_log_p(folder, samples, rows) -> dict:
    """Raises AssertionError where the two do not agree: they are two estimates of the same numbers."""
    model, images = VAE.load(Path(folder) / "params.npz"), torch.from_numpy(np.load(Path(folder) / "x.npy"))
    contestants = {
        "one block": lambda x, generator: one_block(model, x, samples, generator),
        "level 3": lambda x, generator: log_p_by_importance_sampling(model, x, samples, generator, rows),
    }
    seconds, nats = {name: [] for name in contestants}, {name: [] for name in contestants}
    for row, image in enumerate(images):
        for seed, (name, contestant) in enumerate(contestants.items()):
            generator = torch.Generator().manual_seed(2 * row + seed)
            start = time.perf_counter()
            nats[name].append(float(contestant(image[None], generator)))
            seconds[name].append(time.perf_counter() - start)
    difference = np.array(nats["one block"]) - np.array(nats["level 3"])
    error = difference.std() / math.sqrt(len(images))
    assert abs(difference.mean()) < 5 * error + 1e-6, f"the two log p(x) differ by {difference.mean()} +- {error} nats"
    return {name: {"seconds": float(np.median(spent)), "nats": float(np.mean(nats[name]))}
            for name, spent in seconds.items()}


def mnist_or_digits():
    """MNIST where its files lie ($VAE_DATA, else data/), else the embedded digits."""
    try:
        return load_dataset("mnist", download=False)
    except ValueError:
        return load_dataset("digits")
