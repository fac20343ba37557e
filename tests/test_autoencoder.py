"""The deterministic autoencoder, and its comparison with the VAE: paper/autoencoder.py, experiments/autoencoder_and_vae.py.

    pytest tests/test_autoencoder.py

Letters: B images, D pixels, J latents.
"""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from oracles import figure_of
from torch.nn import functional as F

from common import figures
from common.config import VAEConfig
from common.data import Dataset
from paper.autoencoder import Autoencoder
from paper.experiments import autoencoder_and_vae
from paper.experiments.autoencoder_and_vae import STEPS, fitted_gaussian, jumps
from paper.images import Images
from paper.packed import unpack
from paper.plan import Plan
from paper.reader import Reader
from paper.train_paper import build, epoch_line, evaluate, train
from paper.vae_paper import VAE

CONFIGS = {
    "mlp": VAEConfig("mlp", (3, 5), hidden=6, latent=4),
    "gaussian": VAEConfig("mlp", (3, 5), hidden=6, latent=4, likelihood="gaussian"),
    "conv": VAEConfig("conv", (8, 4), latent=3),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some_images(config, count=7):
    return (torch.rand(count, config.pixels, generator=seeded(), dtype=torch.float64) > 0.6).double()


@pytest.fixture(params=CONFIGS)
def model(request):
    """Float64, its biases off zero."""
    made = Autoencoder(CONFIGS[request.param]).double()
    generator = seeded(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return made


def digit_images() -> Images:
    """A stripe for each of ten digits, with some pixels flipped: 8 x 8, 400 to train and 100 to test, gray."""
    rng = np.random.default_rng(4)
    patterns = rng.random((10, 64)) > 0.6
    x, y = {}, {}
    for name, count in (("train", 400), ("test", 100)):
        y[name] = np.arange(count) % 10
        x[name] = np.where(rng.random((count, 64)) < 0.08, 0.5, patterns[y[name]]).astype(np.float32)
    return Dataset("stripes", (8, 8), x["train"], None, x["test"], y["train"], None, y["test"])


# ---- the model ---------------------------------------------------------------------------------------------------------


def test_the_error_is_the_negative_log_likelihood_at_the_code_in_nats(model):
    """Summed over pixels, a mean over images, at z = mu(x): by hand, and as the VAE has it where its noise is zero."""
    x = some_images(model.config)
    loss, terms = model.training_loss(x, None, seeded())
    out = model.decode(model.encode(x)[0])
    if model.config.likelihood == "bernoulli":
        by_hand = F.binary_cross_entropy_with_logits(out, x, reduction="sum") / len(x)
    else:
        mean, logvar = out
        by_hand = 0.5 * ((x - mean) ** 2 / logvar.exp() + logvar + math.log(2 * math.pi)).sum() / len(x)
    torch.testing.assert_close(loss, by_hand, rtol=1e-12, atol=0)
    log_likelihood, _ = model.elbo_terms(x, torch.zeros(len(x), model.config.latent, dtype=torch.float64))
    torch.testing.assert_close(loss, -log_likelihood.mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(terms["reconstruction_error"], loss.detach(), rtol=0, atol=0)


def test_there_is_no_noise(model):
    """Any generator gives the same loss, and none is drawn from."""
    x, generator = some_images(model.config), seeded(5)
    before = generator.get_state()
    first, _ = model.training_loss(x, None, generator)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(first, model.training_loss(x, None, seeded(6))[0])


def test_there_is_no_kl_and_the_variance_head_learns_nothing(model):
    x = some_images(model.config)
    loss, _ = model.training_loss(x, None, seeded())
    loss.backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is None) == name.startswith("encoder.logvar"), name
        assert weight.grad is None or weight.grad.abs().max() > 0, name
    with torch.no_grad():
        model.encoder.logvar.bias += 3                                   # 9 nats of KL for each latent
    assert torch.equal(model.training_loss(x, None, seeded())[0], loss)


def test_no_bound_and_no_likelihood_is_told(model):
    """Neither among its terms nor in what the trainer prints."""
    x = some_images(model.config)
    assert set(model.training_loss(x, None, seeded())[1]) == {"reconstruction_error"}
    terms = evaluate(model, x)
    assert set(terms) == {"loss", "reconstruction_error"}
    line = epoch_line({"epoch": 1, "train": terms, "test": terms, "seconds": 1.0}, 10)
    assert line.count("reconstruction_error") == 2
    assert not any(word in line for word in ("elbo", "bound", "likelihood", "log p", "kl"))


def test_it_is_the_same_network_as_the_vae(model, tmp_path):
    """A VAE's file loads, and its codes and decoded means are the VAE's; and the other way round."""
    vae, x = VAE(model.config, {name: weight.numpy() + 0.1 for name, weight in model.state_dict().items()}), some_images(
        model.config)
    vae.save(tmp_path / "vae.npz")
    loaded = Autoencoder.load(tmp_path / "vae.npz")
    assert type(loaded) is Autoencoder
    for ours, theirs in zip((*loaded.encode(x), loaded.decode_mean(x[:, :model.config.latent])),
                            (*vae.encode(x), vae.decode_mean(x[:, :model.config.latent])), strict=True):
        assert torch.equal(ours, theirs)
    loaded.save(tmp_path / "autoencoder.npz")
    assert VAE.load(tmp_path / "autoencoder.npz").state_dict().keys() == vae.state_dict().keys()


def test_it_learns_and_weight_decay_keeps_its_weights_small():
    """Training lowers the error; decay lowers every weight that learns, and leaves the head alone that does not."""
    images, config, found = Images.of(digit_images()), VAEConfig("mlp", (8, 8), hidden=20, latent=2), {}
    begun = build("autoencoder", config, images).state_dict()
    for decay in (0.0, 0.5):
        model = build("autoencoder", config, images)
        rows = train(model, images, Plan(epochs=15, lr=1e-2, weight_decay=decay))
        found[decay] = {name: float(weight.norm()) for name, weight in model.state_dict().items() if "weight" in name}
        assert rows[-1]["test"]["reconstruction_error"] < rows[0]["test"]["reconstruction_error"] - 1, decay
        for name in ("encoder.logvar.weight", "encoder.logvar.bias"):
            assert torch.equal(model.state_dict()[name], begun[name]), (decay, name)
    for name in found[0.0].keys() - {"encoder.logvar.weight"}:
        assert found[0.5][name] < 0.8 * found[0.0][name], name


# ---- what the comparison measures --------------------------------------------------------------------------------------


def decoder(function):
    return SimpleNamespace(decode_mean=function)


def test_a_jump_is_the_share_of_the_largest_step():
    z_from, z_to = torch.zeros(3, 2, dtype=torch.float64), torch.tensor([[1.0, 0], [2, 2], [-5, 7]], dtype=torch.float64)
    weight = torch.randn(2, 6, generator=seeded(), dtype=torch.float64)
    even = jumps(decoder(lambda z: z @ weight), z_from, z_to)
    torch.testing.assert_close(even, torch.full_like(even, 1 / STEPS), rtol=1e-9, atol=0)
    leap = jumps(decoder(lambda z: (z[..., :1].abs() > 0.701 * z_to[:, :1].abs()).double() * torch.ones(6)), z_from, z_to)
    assert torch.equal(leap, torch.ones_like(leap))
    # a quarter of the path in one step, the rest in another: it is a share, whatever the size of the pictures
    two = jumps(decoder(lambda z: 7.0 * (z[..., :1] > 0.305) + 21.0 * (z[..., :1] > 0.705)), z_from[:2], z_to[:2])
    torch.testing.assert_close(two, torch.full_like(two, 0.75), rtol=1e-6, atol=0)                  # float32


def test_the_fitted_gaussian_has_the_moments_of_the_codes():
    codes = torch.randn(500, 3, generator=seeded(), dtype=torch.float64) @ torch.tensor(
        [[2.0, 0, 0], [1, 0.5, 0], [-3, 1, 4]], dtype=torch.float64) + 7
    mean, factor = fitted_gaussian(codes)
    torch.testing.assert_close(mean, codes.mean(dim=0))
    torch.testing.assert_close(factor @ factor.T, torch.cov(codes.T))
    assert fitted_gaussian(codes[:, :1])[1].shape == (1, 1)


@pytest.mark.parametrize("kind", ["autoencoder", "vae"])
def test_what_is_read_are_draws_at_the_z_of_their_name(kind):
    """The model "draws" z itself, and the reader tells what it was given. Codes lie in [0, 0.5], as the decoder doubles."""
    rng, count = np.random.default_rng(0), 4000
    train = torch.from_numpy(0.25 + rng.standard_normal((500, 2)) @ [[0.05, 0.04], [0.0, 0.01]])
    x, labels = torch.from_numpy(rng.random((40, 2)) / 2), torch.from_numpy(np.arange(40)[::-1] // 4)
    model = SimpleNamespace(
        config=SimpleNamespace(latent=2), encode=lambda x: (x, None), decode_mean=lambda z: 2 * z,
        sample=lambda z, generator: z, log_likelihood=lambda x, z: -100 * (x[:, 0] + z[:, 1]))
    images = Images(train, x, y_train=torch.zeros(500, dtype=int), y_test=labels)
    found = autoencoder_and_vae.measure(model, kind, images, lambda z: z.double(), count, 20)
    read = found["read"]
    for name in ("real", "reconstructions"):
        assert torch.equal(read[name], x)
    assert read["middles"].shape == (20, 2)                              # 20 pairs of 40 images: each is in one
    torch.testing.assert_close(read["middles"].sum(dim=0), x.sum(dim=0) / 2)
    assert torch.cdist(read["middles"], x).min() > 1e-4
    # five standard errors: of a mean 1/sqrt(n), of a product or a square at most sqrt(2/n), in units of the deviations
    gaussians = {"normal": (torch.zeros(2), torch.eye(2))}
    if kind == "autoencoder":
        gaussians["fitted"] = train.mean(dim=0), torch.cov(train.T)
    assert set(read) == {"real", "reconstructions", "middles", *gaussians}
    for name, (mean, covariance) in gaussians.items():
        z, sd = read[name], covariance.diagonal().sqrt()
        assert len(z) == count and ((z.mean(dim=0) - mean).abs() < 5 * sd / count**0.5).all(), name
        assert ((torch.cov(z.T) - covariance).abs() < 5 * (2 / count) ** 0.5 * sd[:, None] * sd).all(), name
    assert found["reconstruction_error"] == pytest.approx(float(100 * x.sum(dim=1).mean()))
    assert found["code_sd"] == pytest.approx(x.std(dim=0).tolist()) and found["codes"]["labels"] == labels.tolist()
    np.testing.assert_allclose(np.stack([found["codes"]["z1"], found["codes"]["z2"]], axis=1), x, atol=6e-4)
    walks = unpack(found["pictures"]["walks"], 3, 11, 2)
    for walked, (a, b) in zip(walks, ((0, 1), (4, 3), (7, 5)), strict=True):
        ends = np.stack([x[labels == digit][0] for digit in (a, b)])     # the first of each digit
        np.testing.assert_allclose(walked, 2 * np.linspace(*ends, 11), atol=1 / 510 + 1e-6)
    np.testing.assert_allclose(unpack(found["pictures"]["originals"], 10, 2)[3], x[labels == 3][0], atol=1 / 510 + 1e-6)


def test_a_reader_is_judged_by_test_images_and_says_what_it_is_sure_of():
    """Test images carry their labels moved by one: whoever learnt the training images is wrong of all."""
    data = digit_images()
    x, moved = torch.from_numpy(data.x_train), torch.from_numpy((data.y_test + 1) % 10)
    reader = Reader(Images(x, x[:100].round(), y_train=torch.from_numpy(data.y_train), y_test=moved), hidden=30, epochs=60)
    assert reader.accuracy < 0.05
    some = x[:100].round()[(moved == 1) | (torch.arange(100) < 30)]      # ten kinds, one of them more often
    p = reader.classifier.predict_proba(some.numpy())
    share = np.bincount(p.argmax(axis=1)) / len(some)
    kinds = math.exp(-sum(each * math.log(each) for each in share if each))
    assert reader(some) == {"read": float((p.max(axis=1) >= 0.9).mean()), "kinds": pytest.approx(kinds)} and kinds < 9.9
    assert abs(float(p.max(axis=1).mean()) - reader(some)["read"]) > 0.01


def test_a_reader_learns_from_fresh_draws():
    """Images of even gray tell nothing of their labels. Many draws show it; one would be learnt by heart, to 0.35."""
    gray, y = torch.full((100, 64), 0.5), torch.arange(100) % 10
    reader = Reader(Images(gray, gray.round(), y_train=y, y_test=y, dynamic=True), hidden=100, epochs=100)
    noise = (torch.rand(200, 64, generator=seeded()) < 0.5).numpy()
    assert reader.classifier.predict_proba(noise).max(axis=1).mean() < 0.22


def test_the_reader_counts_what_it_is_sure_of_and_how_many_kinds():
    images = Images.of(digit_images())
    reader = Reader(images, hidden=30, epochs=100)
    assert reader.accuracy > 0.95
    real = reader(images.x_test)
    assert real["read"] > 0.8 and 9.5 < real["kinds"] <= 10
    noise = reader((torch.rand(500, 64, generator=seeded()) > 0.5).float())
    assert noise["read"] < real["read"] - 0.2
    some = reader(images.x_test[images.y_test < 4])
    assert 3.5 < some["kinds"] < 4.6
    assert Reader(images, hidden=30, epochs=2).accuracy == Reader(images, hidden=30, epochs=2).accuracy


# ---- the experiment ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The experiment, small, as reproduce.py would have it in its JSON."""
    folder, everywhere = tmp_path_factory.mktemp("autoencoder"), []
    settings = {
        "network": {"data": "stripes", "hidden": 20, "classifier": {"hidden": 20, "epochs": 15}}, "draws": 200, "pairs": 40,
        "plan": {"epochs": 30, "lr": 1e-2, "evaluate_every": 10}, "runs": autoencoder_and_vae.RUNS,
    }
    done = {}
    for key, part in autoencoder_and_vae.parts(settings).items():
        work = SimpleNamespace(device="cpu", checkpoint=folder / f"{key}.npz", dataset=lambda name: digit_images(),
                               progress=everywhere.append)
        done[key] = {"result": part.function(work, **part.arguments), "seconds": 1.0}
    assert 0 < min(everywhere) and max(everywhere) <= 1
    return json.loads(json.dumps({"settings": settings, "parts": done}))


def test_an_autoencoder_reconstructs_better_and_has_no_bound(results):
    parts = {key: part["result"] for key, part in results["parts"].items()}
    assert parts["autoencoder-2"]["reconstruction_error"] < parts["vae-2"]["reconstruction_error"]
    for key, result in parts.items():
        kind = key.split("-")[0]
        assert (result["elbo"] is None) == (kind == "autoencoder")
        assert set(result["read"]) - {"real", "reconstructions", "middles"} == (
            {"normal", "fitted"} if kind == "autoencoder" else {"normal"})
        assert result["read"]["real"] == parts["vae-2"]["read"]["real"]  # one classifier for all
        assert 1 / STEPS < result["jump"] < 1
        assert [row["epoch"] for row in result["curve"]] == [10, 20, 30]
        terms = set(result["curve"][-1]["test"])
        assert terms == ({"loss", "reconstruction_error"} if kind == "autoencoder" else
                         {"loss", "elbo", "log_likelihood", "kl"})
        if kind == "vae":                                                # -log p(x|mu(x)) is less than the bound's loss
            assert result["reconstruction_error"] < -result["elbo"]


def test_the_comparison_is_drawn_and_told(results, tmp_path):
    autoencoder_and_vae.draw(tmp_path / "both.png", results)
    assert min(imread(tmp_path / "both.png").shape[:2]) > 500
    rows = autoencoder_and_vae.rows(results)
    assert len(rows) == 12 and all(paper == "" for _, paper, _ in rows)
    for i, latent in enumerate((2, 20)):
        ae, vae = (results["parts"][f"{kind}-{latent}"]["result"] for kind in ("autoencoder", "vae"))
        read = [{name: each["read"][name] for name in ("reconstructions", "middles", "normal")} for each in (ae, vae)]
        shares = [" / ".join(f"{each[name]['read']:.0%}" for each in read) for name in read[0]]
        kinds = " / ".join(f"{each['normal']['kinds']:.1f}" for each in read)
        fitted = ae["read"]["fitted"]
        assert [ours for _, _, ours in rows[6 * i + 1:6 * i + 6]] == [
            f"{ae['jump']:.1%} / {vae['jump']:.1%}", *shares[:2], f"{shares[2]}; {fitted['read']:.0%}",
            f"{kinds}; {fitted['kinds']:.1f}"]
    start = f"{results['parts']['autoencoder-20']['result']['reconstruction_error']:.1f} /"
    assert any("20 latents" in what and "no likelihood" in what and ours.startswith(start) for what, _, ours in rows)


def test_each_picture_is_of_the_model_in_its_title(results, monkeypatch):
    panels = figure_of(autoencoder_and_vae.draw, results, monkeypatch).axes
    pages = {axes.get_title(loc="left"): np.asarray(axes.images[0].get_array()) for axes in panels if axes.images}
    names, zoom = autoencoder_and_vae.NAMES, autoencoder_and_vae.PANEL // (7 * 8)
    for key, part in results["parts"].items():
        kind, latent = key.split("-")
        kept = part["result"]["pictures"]
        for source, text in kept["draws"].items():
            page, = (page for title, page in pages.items() if title.startswith(f"{names[kind]}, {latent} latents:\n")
                     and ("fitted" in title) == (source == "fitted"))
            np.testing.assert_array_equal(page, figures.tile(unpack(text, 49, 64), (8, 8), 7, zoom))
        if latent == "2":
            page, = (page for title, page in pages.items() if title.startswith(f"{names[kind]}, 2 latents: straight walks"))
            np.testing.assert_array_equal(page, figures.tile(unpack(kept["walks"], 33, 64), (8, 8), 11, zoom))


def test_the_file_stays_small(results):
    """MNIST's pictures are twelve times as large as these, and compress better than these."""
    assert 12 * len(json.dumps(results["parts"]["vae-2"]["result"]["pictures"])) < 250_000
    for settings in autoencoder_and_vae.PRESETS.values():
        assert json.loads(json.dumps(settings)) == settings              # as it is compared on --resume
