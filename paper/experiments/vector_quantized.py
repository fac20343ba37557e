"""VQ-VAE on MNIST: 7 x 7 codes out of 128, a prior learnt over them, its bound and its draws beside those of a VAE.

The VQ-VAE is trained first, with all grids of codes alike, then a PixelCNN on the codes of the training images: the prior.
With either prior log p(x) >= log p(x|z) + log p(z), z the codes of x: two bounds, on test images that are binarized once.
The VAE, the same convolutions with a dense layer and 20 Gaussian latents, has its ELBO. In nats per image, and in bits per
dimension: nats / (D log 2).

perplexity   exp(entropy) of the codes over all cells of the test images: 128 where all are equally often
read, kinds  of draws x ~ p(x|z), binary pixels: the share that a classifier reads with a probability of at least 0.9, and
             exp(entropy) of the digits that it reads, 10 where all come equally often (paper/reader.py). To be compared
             with the share of real test images, and between the models: given z, both draw each pixel by itself
"""

import math

import numpy as np
import torch

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED
from paper.images import Images
from paper.packed import pack, unpack
from paper.parts import Part
from paper.plan import Plan
from paper.reader import CONFIDENT, Reader
from paper.train_paper import build, train
from paper.vq_vae import CodePrior, perplexity

ACROSS = 7                                              # draws in a row, and rows

ONE_CYCLE = {"batch_size": 100, "schedule": "one-cycle", "lr": 3e-3}
MNIST = {"data": "mnist", "latent": 20, "draws": 5000, "classifier": {"hidden": 200, "epochs": 10},
         "vqvae": {"codes": 128, "width": 16}, "prior": {"channels": 64, "layers": 4, "kernel": 5}}

PRESETS = {
    "quick": {
        "data": "digits", "latent": 5, "draws": 200, "classifier": {"hidden": 100, "epochs": 50},
        "vqvae": {"codes": 32, "width": 8}, "prior": {"channels": 32, "layers": 2, "kernel": 3},
        "plans": {"vqvae": ONE_CYCLE | {"lr": 1e-2, "epochs": 20, "evaluate_every": 10},
                  "prior": ONE_CYCLE | {"lr": 1e-2, "epochs": 10, "evaluate_every": 5},
                  "vae": ONE_CYCLE | {"batch_size": 50, "epochs": 20, "evaluate_every": 10}},
    },
    # the codes are good after a few epochs, and the prior then has much to learn
    "cpu": MNIST | {"plans": {"vqvae": ONE_CYCLE | {"epochs": 12, "evaluate_every": 2},
                              "prior": ONE_CYCLE | {"epochs": 36, "evaluate_every": 4},
                              "vae": ONE_CYCLE | {"epochs": 40, "evaluate_every": 4}}},
    "gpu": MNIST | {"draws": 10_000, "prior": {"channels": 128, "layers": 10, "kernel": 5},
                    "plans": {"vqvae": ONE_CYCLE | {"epochs": 50, "evaluate_every": 5},
                              "prior": ONE_CYCLE | {"lr": 1e-3, "epochs": 150, "evaluate_every": 10},
                              "vae": ONE_CYCLE | {"epochs": 200, "evaluate_every": 10}}},
}


def parts(settings):
    shared = {name: settings[name] for name in ("data", "draws", "classifier")}
    vqvae = {"vqvae": settings["vqvae"], "prior": settings["prior"], "plan": settings["plans"]["vqvae"],
             "prior_plan": settings["plans"]["prior"]}
    gradient = {"data": settings["data"], "vqvae": settings["vqvae"] | {"ema": False}, "plan": settings["plans"]["vqvae"]}
    return {"vq-vae": Part(train_vqvae, shared | vqvae, cost=5), "gradient": Part(train_by_gradient, gradient, cost=1),
            "vae": Part(train_vae, shared | {"latent": settings["latent"], "plan": settings["plans"]["vae"]}, cost=2)}


# ---- what is measured --------------------------------------------------------------------------------------------------
# N images, D pixels, h and w height and width of the grid, K codes


def trained(work, data, vqvae, plan, share):
    """A VQ-VAE after its training, which takes this share of the part's time; the images, and its curve."""
    dataset, plan = work.dataset(data), Plan(**plan)
    images = Images.of(dataset, device=work.device)
    model = build("vq-vae", VAEConfig(image_shape=dataset.image_shape), images, plan.seed, **vqvae)
    curve = train(model, images, plan, work.checkpoint, lambda row: work.progress(share * row["epoch"] / plan.epochs))
    return model, images, curve


def train_vqvae(work, data, draws, classifier, vqvae, prior, plan, prior_plan):
    """Trains a VQ-VAE, then the prior over its codes, and measures both on the test images."""
    model, images, curve = trained(work, data, vqvae, plan, 0.2)
    prior_plan = Plan(**prior_plan)
    whole = CodePrior.of(model, np.random.default_rng(prior_plan.seed), **prior)
    checkpoint = work.checkpoint.with_suffix(".prior.npz")               # the first one stays: a stop comes back through it
    prior_curve = train(whole, images, prior_plan, checkpoint,
                        lambda row: work.progress(0.2 + 0.7 * row["epoch"] / prior_plan.epochs))
    whole.save(work.weights)
    checkpoint.unlink()
    reader = Reader(images, **classifier)
    work.progress(0.95)
    return measure_vqvae(whole, images, reader, draws) | {
        "terms": prior_curve[-1]["test"], "curve": [row for row in curve if "test" in row],
        "prior_curve": [row for row in prior_curve if "test" in row],
        "training_seconds": [sum(row["seconds"] for row in rows) for rows in (curve, prior_curve)],
    }


@torch.no_grad()
def measure_vqvae(whole, images, reader, draws):
    model, x = whole.vqvae, images.x_test
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)
    codes = codes_of(model, x)                                                         # (N, h, w)
    drawn = {"learnt": model.draw_codes(draws, whole.pixelcnn, generator),
             "uniform": model.draw_codes(draws, None, generator)}                      # (draws, h, w)
    shown = first_of_each(images.y_test)
    return usage(model, codes) | {
        "log_uniform": model.log_uniform(),
        "read": {"real": reader(x), "reconstructions": read(model, codes, reader, generator)}
        | {name: read(model, z, reader, generator) for name, z in drawn.items()},
        "accuracy": reader.accuracy, "test_images": len(x), "image_shape": model.config.image_shape,
        "pictures": {"originals": pack(x[shown].cpu()), "codes": pack(model.code_maps(codes[shown]).cpu()),
                     "reconstructions": pack(model.reconstruct(x[shown]).cpu())}
        | {name: pack(model.decode_codes(z[:ACROSS**2]).cpu()) for name, z in drawn.items()},
    }


def read(model, codes, reader, generator):
    """What the reader says of one image x ~ p(x|z) for each grid of codes."""
    means = torch.cat([model.decode_codes(some) for some in codes.split(1000)])        # (N, D)
    return reader(torch.bernoulli(means, generator=generator))


def train_by_gradient(work, data, vqvae, plan):
    """Trains a VQ-VAE whose codebook is learnt by gradients, without a prior."""
    model, images, curve = trained(work, data, vqvae, plan, 1)
    return usage(model, codes_of(model, images.x_test)) | {
        "terms": curve[-1]["test"], "training_seconds": sum(row["seconds"] for row in curve)}


def codes_of(model, x):
    """x (N, D) -> (N, h, w)."""
    return torch.cat([model.codes(some) for some in x.split(1000)])


def usage(model, codes):
    """How often each code is taken, over all cells of codes (N, h, w)."""
    counts = torch.bincount(codes.flatten(), minlength=model.settings["codes"])        # (K,)
    return {"perplexity": float(perplexity(counts)), "counts": counts.tolist()}


def train_vae(work, data, draws, classifier, latent, plan):
    """Trains a VAE and measures its draws from the prior."""
    dataset, plan = work.dataset(data), Plan(**plan)
    images = Images.of(dataset, device=work.device)
    model = build("vae", VAEConfig("conv", dataset.image_shape, latent=latent), images, plan.seed)
    curve = train(model, images, plan, work.checkpoint, lambda row: work.progress(0.95 * row["epoch"] / plan.epochs))
    reader, x = Reader(images, **classifier), images.x_test
    generator = torch.Generator(x.device).manual_seed(EVAL_SEED)
    z = torch.randn(draws, latent, generator=generator, device=x.device, dtype=x.dtype)
    with torch.no_grad():
        shown = first_of_each(images.y_test)
        mu = torch.cat([model.encode(some)[0] for some in x.split(1000)])              # (N, J)
        return {
            "terms": curve[-1]["test"], "curve": [row for row in curve if "test" in row],
            "training_seconds": sum(row["seconds"] for row in curve),
            "read": {"reconstructions": reader(model.sample(mu, generator)), "normal": reader(model.sample(z, generator))},
            "pictures": {"normal": pack(model.decode_mean(z[:ACROSS**2]).cpu()),
                         "reconstructions": pack(model.decode_mean(mu[shown]).cpu())},
        }


def first_of_each(labels):
    """The numbers of the first test image of each digit, (10,)."""
    return torch.stack([torch.nonzero(labels == digit)[0, 0] for digit in range(10)])


# ---- the figure --------------------------------------------------------------------------------------------------------

WIDTH, GAP = 404, 45                                    # pixels: of a square of draws, and between two
DRAWN = (("vq-vae", "learnt", "VQ-VAE, codes from\nthe learnt prior"),
         ("vq-vae", "uniform", "VQ-VAE, codes drawn\nuniformly"),
         ("vae", "normal", "VAE, {latent} latents,\nz ~ N(0, I)"))
TITLE = "Test images, their codes, and reconstructions"


def draw(path, results):
    """Test images, their codes and reconstructions; how often each code is taken; draws with three priors."""
    found, figure = {key: part["result"] for key, part in results["parts"].items()}, figures.new_figure()
    told, shape = found["vq-vae"], found["vq-vae"]["image_shape"]
    zoom = max(1, WIDTH // (ACROSS * max(shape)))

    def page(key, name, columns):
        return figures.tile(unpack(found[key]["pictures"][name], -1, shape[0] * shape[1]), shape, columns, zoom)

    rows = {"originals": ("vq-vae", "image"), "codes": ("vq-vae", "its codes"), "reconstructions": ("vq-vae", "VQ-VAE")}
    pages = [page(key, name, 10) for name, (key, _) in rows.items()] + [page("vae", "reconstructions", 10)]
    gap = np.full((figures.GAP, pages[0].shape[1]), figures.PAPER)
    whole = np.concatenate([each for one in pages for each in (one, gap)][:-1])
    axes = figures.show(figure, whole, 0, 0, TITLE)
    height = pages[0].shape[0] + figures.GAP
    axes.set_yticks([(row + 0.5) * height for row in range(4)], [*(name for _, name in rows.values()), "VAE"])

    counts = np.sort(np.array(told["counts"]))[::-1] / sum(told["counts"])
    axes = figures.chart(figure, whole.shape[1] + 90, -whole.shape[0], 3 * (WIDTH + GAP) - whole.shape[1] - 90 - GAP,
                         whole.shape[0], f"How often each code is taken: a perplexity of {told['perplexity']:.0f}")
    axes.bar(range(len(counts)), 100 * counts, width=1, color=figures.BLUE)
    axes.axhline(100 / len(counts), color="black", linestyle=":", label="all equally often")
    axes.set(xlabel=f"the {len(counts)} codes, the most frequent first", ylabel="share of cells (%)",
             xlim=(-0.6, len(counts) - 0.4))
    axes.legend(frameon=False)

    for column, (key, name, title) in enumerate(DRAWN):
        share = found[key]["read"][name]["read"]
        title = title.format(latent=results["settings"]["latent"]) + f": {share:.0%} are read"
        figures.show(figure, page(key, name, ACROSS), column * (WIDTH + GAP), -whole.shape[0] - 110, title)
    figures.save(figure, path)


def rows(results):
    vqvae, gradient, vae = (results["parts"][key]["result"] for key in ("vq-vae", "gradient", "vae"))
    settings, read_by = results["settings"], {**vqvae["read"], **{"vae": vae["read"]["normal"]}}
    data = {"mnist": "MNIST"}.get(settings["data"], settings["data"])
    pixels, terms = math.prod(vqvae["image_shape"]), vqvae["terms"]

    def nats_and_bits(nats):
        return f"{nats:.1f} ({-nats / (pixels * math.log(2)):.3f})"

    count = f"{vqvae['test_images']:,} test images of {data}, nats (bits per dimension)"
    return [
        (f"VQ-VAE with the learnt prior: bound on log p(x), {count}", "", nats_and_bits(terms["elbo"])),
        ("VQ-VAE with the uniform prior", "", nats_and_bits(terms["log_likelihood"] + vqvae["log_uniform"])),
        (f"VAE, the same convolutions, {settings['latent']} latents: ELBO", "", nats_and_bits(vae["terms"]["elbo"])),
        ("VQ-VAE: log p(x|z); log p(z) of the codes with the learnt and the uniform prior, nats", "",
         f"{terms['log_likelihood']:.1f}; {terms['log_prior']:.1f} / {vqvae['log_uniform']:.1f}"),
        (f"VQ-VAE: perplexity of the codes, of {settings['vqvae']['codes']}", "", f"{vqvae['perplexity']:.0f}"),
        ("the same with a codebook learnt by gradients: perplexity; log p(x|z), nats", "",
         f"{gradient['perplexity']:.0f}; {gradient['terms']['log_likelihood']:.1f}"),
        (f"draws that a classifier reads with {CONFIDENT:.0%} confidence (of real test images "
         f"{read_by['real']['read']:.0%}): VQ-VAE with the learnt / the uniform prior, VAE", "",
         " / ".join(f"{read_by[name]['read']:.0%}" for name in ("learnt", "uniform", "vae"))),
        ("kinds of digits in these draws, of 10", "",
         " / ".join(f"{read_by[name]['kinds']:.1f}" for name in ("learnt", "uniform", "vae"))),
        ("minutes of training: VQ-VAE, its prior, VAE", "",
         " / ".join(f"{seconds / 60:.0f}" for seconds in (*vqvae["training_seconds"], vae["training_seconds"]))),
    ]
