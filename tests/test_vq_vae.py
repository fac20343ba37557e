"""The VQ-VAE: its codebook, its gradients, its bound, and the prior over its codes.

    pytest tests/test_vq_vae.py

Half of the objective is about where gradients do not go, which no value of the loss shows. Every gradient is derived by
hand here, and what public code gets wrong is planted: gradients that go where they should not, or nowhere.
Letters: B images, D pixels, h and w height and width of the grid, N = B h w cells, K codes, W coordinates of a code.
"""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F
from contract import DIFFERENCES, slope_along
from oracles import assert_close

from common.config import InputError, VAEConfig
from common.data import load_dataset
from paper import pixelcnn
from paper.experiments import vector_quantized
from paper.images import Images
from paper.packed import unpack
from paper.parts import Work
from paper.pixelcnn import MaskedConv2d
from paper.plan import Plan
from paper.train_paper import evaluate, train
from paper.vq_vae import DECAY, RARE, VQVAE, Codebook, CodePrior, perplexity

CONFIG = VAEConfig(image_shape=(8, 12))                 # a grid of 2 x 3
ROUNDING = 1e-10                                        # float64, sums of a few thousand numbers of order 1
CODES, WIDTH, COMMITMENT = 5, 4, 0.3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def binary_images(count=3, pixels=96, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.random((count, pixels)) < rng.random((count, 1))).astype(np.float64))


def tiny(kind=VQVAE, ema=True, config=CONFIG, codes=CODES, seed=0):
    """A model in float64, biases away from zero, codes near some of the encoder's outputs; in eval mode, with images."""
    rng, x = np.random.default_rng(seed), binary_images(pixels=config.pixels, seed=seed)
    model = kind(config, codes, WIDTH, COMMITMENT, ema).draw_weights(rng, np.full(config.pixels, 0.4)).double().eval()
    with torch.no_grad():
        for weight in [*model.encoder.parameters(), *model.decoder.parameters()]:
            weight += torch.from_numpy(0.1 * rng.standard_normal(weight.shape))
        z = model.encode(x)
        near = torch.from_numpy(z.std().item() * 0.3 * rng.standard_normal((codes, WIDTH)))
        model.codebook.vectors.copy_(z[:codes] + near[:, :WIDTH])
        model.codebook.usage.fill_(len(z) / codes)
        if ema:
            model.codebook.sums.copy_(model.codebook.vectors * len(z) / codes)
    return model, x


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# ---- the codebook ------------------------------------------------------------------------------------------------------


def test_the_nearest_code_is_that_of_plain_loops():
    rng = np.random.default_rng(0)
    codebook, z = Codebook(7, 3, ema=True).double(), rng.standard_normal((50, 3))
    vectors = rng.standard_normal((7, 3))
    codebook.vectors.copy_(torch.from_numpy(vectors))
    found = codebook.nearest(torch.from_numpy(z))
    for n, point in enumerate(z):
        distances = [sum((point[i] - code[i]) ** 2 for i in range(3)) for code in vectors]
        assert int(found[n]) == distances.index(min(distances)), f"cell {n}"
    assert len(found.unique()) == 7


def test_the_moving_average_of_two_codes_by_hand():
    codebook = Codebook(2, 1, ema=True).double()
    codebook.vectors.copy_(torch.tensor([[0.0], [10.0]]))
    codebook.usage.copy_(torch.tensor([2.0, 4.0]))
    codebook.sums.copy_(torch.tensor([[0.0], [40.0]]))
    z = torch.tensor([[1.0], [2.0], [-1.5], [9.0]], dtype=torch.float64)
    codebook.follow(z, F.one_hot(codebook.nearest(z), 2).double())
    # three cells take the first code, their sum is 1.5; one takes the second
    assert_close("usage", codebook.usage, [0.99 * 2 + 0.01 * 3, 0.99 * 4 + 0.01 * 1], rtol=1e-14, atol=0)
    assert_close("sums", codebook.sums, [[0.01 * 1.5], [0.99 * 40 + 0.01 * 9]], rtol=1e-14, atol=0)
    assert_close("vectors", codebook.vectors, [[0.015 / 2.01], [39.69 / 3.97]], rtol=1e-14, atol=0)


def test_codes_that_always_get_the_same_cells_go_to_their_means():
    codebook, z = Codebook(2, 1, ema=True).double(), torch.tensor([[1.0], [2.0], [6.0], [9.0]], dtype=torch.float64)
    codebook.restart(z, generator())
    codebook.vectors.copy_(torch.tensor([[0.0], [10.0]]))
    for _ in range(1500):                                                # 0.99^1500 = 3e-7
        codebook.follow(z, F.one_hot(codebook.nearest(z), 2).double())
    assert_close("vectors", codebook.vectors, [[1.5], [7.5]], rtol=1e-6, atol=0)


@pytest.mark.parametrize("ema", [True, False])
def test_the_first_minibatch_places_all_codes(ema):
    codebook, z = Codebook(6, 2, ema).double(), torch.from_numpy(np.random.default_rng(0).standard_normal((40, 2)))
    codebook.restart(z, generator())
    assert (codebook.vectors[:, None] == z).all(dim=2).any(dim=1).all() and len(codebook.vectors.unique(dim=0)) > 3
    assert (codebook.usage == 40 / 6).all()


@pytest.mark.parametrize("ema", [True, False])
def test_a_code_that_is_taken_no_more_begins_anew_on_an_output_of_the_encoder(ema):
    codebook = Codebook(3, 2, ema).double()
    z = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 1.0], [1.1, 1.0]], dtype=torch.float64)
    codebook.restart(z, generator())
    with torch.no_grad():
        codebook.vectors.copy_(torch.tensor([[0.05, 0.0], [1.05, 1.0], [50.0, 50.0]]))
    if ema:
        codebook.sums.copy_(codebook.vectors * codebook.usage[:, None])
    steps = 0
    while float(codebook.vectors.detach()[2, 0]) > 20 and steps < 1000:
        codebook.follow(z, F.one_hot(codebook.nearest(z), 3).double())
        before = codebook.vectors.detach().clone()
        codebook.restart(z, generator(steps))
        steps += 1
    assert steps == math.ceil(math.log(RARE) / math.log(DECAY)) == 349
    assert (codebook.vectors[2] == z).all(dim=1).any(), codebook.vectors
    assert torch.equal(codebook.vectors.detach()[:2], before[:2]), "codes in use stay where they are"
    assert_close("usage", codebook.usage[2], 4 / 3, rtol=0, atol=0)


def test_the_perplexity_counts_the_codes_in_even_use():
    assert_close("even", perplexity(torch.full((128,), 3.0, dtype=torch.float64)), 128, rtol=1e-12, atol=0)
    assert_close("one", perplexity(F.one_hot(torch.tensor(5), 128).double() * 77), 1, rtol=1e-12, atol=0)
    p = np.array([0.5, 0.25, 0.25])
    assert_close("uneven", perplexity(torch.tensor([6.0, 3, 3, 0])), np.exp(-(p * np.log(p)).sum()), rtol=1e-6, atol=0)


# ---- the objective -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [True, False])
def test_the_loss_is_that_of_plain_loops(ema):
    model, x = tiny(ema=ema)
    loss, terms = model.training_loss(x, None, generator())
    z, e, index = parts_of(model, x)
    log_likelihood = oracles.bernoulli_log_likelihood(model.decode(e).detach().numpy(), x.numpy()).mean()
    distance = sum(float((z[n, i] - e[n, i]) ** 2) for n, i in np.ndindex(*z.shape)) / len(x)
    want = -log_likelihood + (COMMITMENT if ema else COMMITMENT + 1) * distance
    assert_close("loss", loss.detach(), want, rtol=ROUNDING, atol=0)
    assert_close("log p(x|z)", terms["log_likelihood"], log_likelihood, rtol=ROUNDING, atol=0)
    assert_close("elbo", terms["elbo"], log_likelihood - 6 * math.log(CODES), rtol=ROUNDING, atol=0)
    assert_close("perplexity", terms["perplexity"], perplexity(torch.bincount(index, minlength=CODES).double()),
                 rtol=ROUNDING, atol=0)
    assert distance > 0.1 and terms["perplexity"] > 2 and not any(term.requires_grad for term in terms.values())


def parts_of(model, x):
    """z_e, the codes that it takes, detached, and their numbers: (N, W), (N, W), (N,)."""
    z = model.encode(x).detach()
    index = model.codebook.nearest(z)
    return z, model.codebook.vectors.detach()[index], index


def gradients(model, x):
    """Of the loss: with respect to z_e (N, W), and to the codes (K, W) or None."""
    z = model.encode(x).detach().requires_grad_()
    model.encode = lambda x: z
    model.zero_grad()
    model.training_loss(x, None, generator())[0].backward()
    del model.encode
    return z.grad, None if model.codebook.ema else model.codebook.vectors.grad


def gradients_by_hand(model, x):
    """The same: the decoder's gradient at e, unchanged, plus that of each distance where it belongs."""
    z, e, index = parts_of(model, x)
    e.requires_grad_()
    from_decoder, = torch.autograd.grad(-VQVAE.log_likelihood(model, x, e).mean(), e)
    e = e.detach()
    dcodes = torch.zeros_like(model.codebook.vectors)
    for n, k in enumerate(index):
        dcodes[k] += 2 * (e[n] - z[n]) / len(x)
    return from_decoder + COMMITMENT * 2 * (z - e) / len(x), None if model.codebook.ema else dcodes


def compare(kind, ema):
    model, x = tiny(kind, ema)
    for name, got, want in zip(("z_e", "codes"), gradients(model, x), gradients_by_hand(model, x), strict=True):
        if want is not None:
            assert want.abs().max() > 0.01, f"{name}: nothing to compare"
            assert_close(name, got.detach(), want.detach(), rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("ema", [True, False])
def test_straight_through_gradient_is_the_identity_and_each_distance_moves_one_side(ema):
    compare(VQVAE, ema)


class StopsAtTheCodes(VQVAE):
    """Wrong answer: straight through forgotten. The decoder reads the codes, and the encoder hears nothing of it."""

    def log_likelihood(self, x, z):
        return super().log_likelihood(x, z.detach())


class OtherSides(VQVAE):
    """Wrong answer: the constants are on the wrong sides: each distance moves what the other should."""

    def distances(self, z_e, e):
        return tuple(reversed(super().distances(z_e, e)))


class NoSides(VQVAE):
    """Wrong answer: no constants at all. Both sides move by the sum of both weights."""

    def distances(self, z_e, e):
        return ((z_e - e).square().sum(dim=1).mean() * math.prod(self.grid),) * 2


class MeanOverCells(VQVAE):
    """Wrong answer: distances as a mean over cells beside a likelihood that is a sum over pixels."""

    def distances(self, z_e, e):
        return tuple(distance / math.prod(self.grid) for distance in super().distances(z_e, e))


class MeanOverPixels(VQVAE):
    """Wrong answer: log p(x|z) as a mean over pixels."""

    def log_likelihood(self, x, z):
        return super().log_likelihood(x, z) / self.config.pixels


@pytest.mark.parametrize("wrong, ema", [
    (StopsAtTheCodes, True), (StopsAtTheCodes, False), (OtherSides, True), (OtherSides, False),
    (NoSides, False),                               # with moving averages the codes take no gradient, and nothing is wrong
    (MeanOverCells, True), (MeanOverCells, False),
])
def test_gradients_that_go_elsewhere_are_noticed(wrong, ema):
    with pytest.raises(AssertionError, match="z_e|codes"):
        compare(wrong, ema)


def test_a_mean_over_pixels_is_noticed():
    model, x = tiny(MeanOverPixels)
    want = oracles.bernoulli_log_likelihood(model.decode(parts_of(model, x)[1]).detach().numpy(), x.numpy()).mean()
    assert model.training_loss(x, None, generator())[1]["log_likelihood"] - want > 10


@pytest.mark.parametrize("ema", [True, False])
def test_the_gradients_are_the_central_differences_of_the_loss_with_its_constants_held(ema):
    """sg() means: a constant at the point where we are. Held there, the loss is a function with this gradient."""
    model, x = tiny(ema=ema)
    z_here, e_here, index = parts_of(model, x)
    model.training_loss(x, None, generator())[0].backward()
    weights = dict(model.named_parameters())
    params = {name: weight.detach().numpy().copy() for name, weight in weights.items()}

    @torch.no_grad()
    def loss(params):
        for name, array in params.items():
            weights[name].copy_(torch.from_numpy(array))
        z_e, e = model.encode(x), model.codebook.vectors[index]
        value = COMMITMENT * (z_e - e_here).square().sum() / len(x)
        value = value - model.log_likelihood(x, z_e + (e_here - z_here)).mean()
        return value if ema else value + (z_here - e).square().sum() / len(x)

    rng = np.random.default_rng(1)
    assert ("codebook.vectors" in weights) == (not ema) and len(weights) == 21 - ema
    for name, array in params.items():
        direction = rng.standard_normal(array.shape)
        want = float((weights[name].grad.numpy() * direction).sum())
        assert abs(want) > 1e-3, f"{name}: nothing to compare"
        got = slope_along(loss, params, name, direction, want, DIFFERENCES["atol"] + DIFFERENCES["rtol"] * abs(want))
        assert_close(name, got, want, **DIFFERENCES)


def test_with_a_code_for_every_cell_it_is_an_autoencoder():
    """As many codes as cells, each where its cell is: nothing is rounded, and the loss is the reconstruction error."""
    model, x = tiny(codes=18)
    z = model.encode(x).detach()
    model.codebook.vectors.copy_(z)
    loss, terms = model.training_loss(x, None, generator())
    assert_close("loss", loss.detach(), -model.log_likelihood(x, z).mean().detach(), rtol=0, atol=0)
    assert_close("perplexity", terms["perplexity"], 18, rtol=1e-12, atol=0)


# ---- images ------------------------------------------------------------------------------------------------------------


def test_codes_and_pictures_have_their_shapes_and_their_places():
    model, x = tiny()
    codes = model.codes(x)
    assert codes.shape == (3, 2, 3) and codes.dtype == torch.long
    assert_close("reconstruction", model.reconstruct(x).detach(), model.decode_codes(codes).detach(), rtol=0, atol=0)
    z = parts_of(model, x)[1]
    assert_close("mean", model.decode_codes(codes).detach(), torch.sigmoid(model.decode(z)).detach(), rtol=0, atol=0)
    other = x.clone()
    other[1, 7 * 12 + 11] = 1 - other[1, 7 * 12 + 11]                    # the pixel at the lower right of the second image
    moved = (model.encode(other) - model.encode(x)).abs().amax(dim=1).reshape(3, 2, 3)
    assert moved[1, 1, 2] > 1e-6 and (moved[[0, 2]] == 0).all() and moved[1, 0, 0] < moved[1, 1, 2]


def test_code_maps_have_a_gray_for_each_code_and_brighter_ones_for_brighter_images():
    model, x = tiny()
    codes = model.codes(x)
    maps = model.code_maps(codes).reshape(3, 8, 12)
    for b, r, c in np.ndindex(codes.shape):
        cell = maps[b, 4 * r:4 * r + 4, 4 * c:4 * c + 4]
        full = [float(model.decode_codes(torch.full((1, 2, 3), k)).detach().mean()) for k in range(CODES)]
        assert (cell == sorted(full).index(full[int(codes[b, r, c])]) / (CODES - 1)).all(), (b, r, c)
    assert len(codes.unique()) == len(maps.unique()) > 2


def test_the_decoder_begins_as_the_average_pixel():
    means = np.linspace(0, 0.5, 96)
    model = VQVAE(CONFIG).draw_weights(np.random.default_rng(0), means)
    assert_close("bias", torch.sigmoid(model.decoder.deconv2.bias).detach(), [0.25], rtol=1e-6, atol=0)


def test_samples_are_binary_and_uniform_codes_come_equally_often():
    model, count = tiny()[0], 500
    x, again, other = (model.sample(count, None, generator(seed)) for seed in (0, 0, 1))
    assert x.shape == (count, 96) and set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(x, again) and not torch.equal(x, other)
    codes = model.draw_codes(count, None, generator())
    share = torch.bincount(codes.flatten(), minlength=CODES) / codes.numel()
    assert (share - 1 / CODES).abs().max() < 5 * math.sqrt(0.2 * 0.8 / codes.numel())
    mean = model.decode_codes(codes).detach().mean(dim=0)                # of the pixels of these very draws
    assert (x.mean(dim=0) - mean).abs().max() < 6 * math.sqrt(0.25 / count)


# ---- the prior, and the bound ------------------------------------------------------------------------------------------


def test_the_bound_with_a_prior_lies_below_log_p_over_all_grids():
    """A grid of 1 x 2 and 3 codes: log p(x) = log sum of p(z) p(x|z) over the 9 grids is at hand."""
    model, x = tiny(config=VAEConfig(image_shape=(4, 8)), codes=3)
    whole = CodePrior.of(model, np.random.default_rng(1), channels=4, layers=1, kernel=3)
    with torch.no_grad():
        for weight in whole.pixelcnn.parameters():
            weight += torch.from_numpy(0.5 * np.random.default_rng(weight.numel()).standard_normal(weight.shape))
    grids = torch.tensor(list(itertools.product(range(3), repeat=2))).reshape(9, 1, 2)
    log_prior = whole.pixelcnn.log_prob(grids).detach()                                  # (9,)
    assert abs(float(log_prior.exp().sum()) - 1) < ROUNDING and log_prior.std() > 0.3
    for image in x:
        pairs = torch.stack([model.log_likelihood(image[None], model.codebook.vectors[grid.flatten()])[0].detach()
                             for grid in grids])
        loss, terms = whole.training_loss(image[None], None, generator())
        chosen = int((model.codes(image[None]).flatten() * torch.tensor([3, 1])).sum())
        assert_close("bound", terms["elbo"], pairs[chosen] + log_prior[chosen], rtol=ROUNDING, atol=0)
        assert_close("loss", loss.detach(), -log_prior[chosen], rtol=ROUNDING, atol=0)
        assert terms["elbo"] < torch.logsumexp(pairs + log_prior, dim=0)


def test_mask_b_in_the_first_layer_of_the_prior_gives_a_bound_that_is_none(monkeypatch):
    """Wrong answer: cells that see themselves are told for nothing. Trained, p(z) exceeds 1 / 9 for each of 9 grids."""
    class Peeking(MaskedConv2d):
        def __init__(self, inputs, outputs, kernel, kind):
            super().__init__(inputs, outputs, kernel, "B")

    grids = torch.tensor(list(itertools.product(range(3), repeat=2))).reshape(9, 1, 2)
    totals = {}
    for kind in (MaskedConv2d, Peeking):
        monkeypatch.setattr(pixelcnn, "MaskedConv2d", kind)
        prior = CodePrior.of(tiny(codes=3)[0], np.random.default_rng(1), channels=8, layers=0, kernel=3).pixelcnn
        optimizer = torch.optim.Adam(prior.parameters(), 0.05)
        for _ in range(60):
            optimizer.zero_grad()
            (-prior.log_prob(grids).mean()).backward()
            optimizer.step()
        totals[kind] = float(prior.log_prob(grids).detach().exp().sum())
    assert abs(totals[MaskedConv2d] - 1) < ROUNDING and totals[Peeking] > 5, totals


def test_training_the_prior_leaves_the_vq_vae_as_it_is(tmp_path):
    model, _ = tiny()
    whole, images = CodePrior.of(model, np.random.default_rng(0), 4, 1, 3), images_of()
    before = state(whole)
    rows = train(whole, images, Plan(epochs=3, batch_size=20, lr=0.01))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("vqvae."), name
    assert rows[-1]["train"]["log_prior"] > rows[0]["train"]["log_prior"]
    whole.save(tmp_path / "params.npz")
    loaded = CodePrior.load(tmp_path / "params.npz")
    assert evaluate(loaded, images.x_test) == evaluate(whole, images.x_test)
    first, second = (each.vqvae.sample(4, each.pixelcnn, generator()) for each in (whole, loaded))
    assert torch.equal(first, second)


# ---- with the trainer --------------------------------------------------------------------------------------------------


def images_of(count=53):
    x = binary_images(count, seed=5)
    return Images(x, x[:11])


def test_evaluation_changes_no_buffer_and_training_does():
    model, _ = tiny()
    before, x = state(model), images_of().x_test
    model.train()
    evaluate(model, x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.training_loss(x, None, generator())
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"codebook.vectors", "codebook.usage", "codebook.sums"}


@pytest.mark.parametrize("ema", [True, False])
def test_training_in_two_parts_equals_one_run(ema, tmp_path):
    def begin(seed):
        model = VQVAE(CONFIG, CODES, WIDTH, COMMITMENT, ema)
        return model.draw_weights(np.random.default_rng(seed), np.full(96, 0.5)).double()

    images, plan, checkpoint = images_of(), Plan(epochs=4, batch_size=20, lr=0.01), tmp_path / "checkpoint.npz"
    whole = begin(0)
    start = state(whole)
    rows = train(whole, images, plan)
    train(begin(0), images, replace(plan, epochs=2), checkpoint)
    parts = begin(1)                                                     # all of it comes from the file
    resumed = train(parts, images, plan, checkpoint)
    for one, other in zip(rows, resumed, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    for name, tensor in whole.state_dict().items():
        assert_close(name, parts.state_dict()[name], tensor, rtol=0, atol=0)
        assert (tensor - start[name]).abs().max() > 1e-4, f"{name} is not trained"
    other = VQVAE(CONFIG, CODES, WIDTH, 0.5, ema).double()
    with pytest.raises(InputError, match="commitment"):
        train(other, images, plan, checkpoint)


@pytest.mark.parametrize("ema", [True, False])
def test_a_saved_model_is_the_model_again(ema, tmp_path):
    model, x = tiny(ema=ema)
    model.save(tmp_path / "params.npz")
    loaded = VQVAE.load(tmp_path / "params.npz")
    assert loaded.settings == model.settings and torch.equal(loaded.codes(x), model.codes(x))
    for name, tensor in model.state_dict().items():
        assert_close(name, loaded.state_dict()[name], tensor, rtol=0, atol=0)
    assert evaluate(loaded, x) == evaluate(model, x)


@pytest.mark.parametrize("wrong, complaint", [
    (lambda: VQVAE(VAEConfig(image_shape=(8, 10))), "image_shape \\(8, 10\\)"),
    (lambda: VQVAE(VAEConfig(image_shape=(8, 8), likelihood="gaussian")), "likelihood gaussian"),
    (lambda: VQVAE(CONFIG, codes=1), "codes is 1"),
    (lambda: VQVAE(CONFIG, width=0), "width 0"),
    (lambda: VQVAE(CONFIG, commitment=0.0), "commitment is 0.0"),
    (lambda: VQVAE(CONFIG, commitment=math.nan), "commitment is nan"),
    (lambda: VQVAE(CONFIG).encode(torch.zeros(2, 95)), "x has shape \\(2, 95\\)"),
])
def test_what_cannot_be_is_one_line(wrong, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        wrong()
    assert "\n" not in str(error.value)


# ---- the experiment ----------------------------------------------------------------------------------------------------

ONE_EPOCH = {"epochs": 1, "lr": 1e-2}
SETTINGS = vector_quantized.PRESETS["quick"] | {
    "draws": 60, "classifier": {"hidden": 9, "epochs": 2}, "prior": {"channels": 4, "layers": 1, "kernel": 3},
    "plans": {"vqvae": ONE_EPOCH, "prior": ONE_EPOCH | {"epochs": 2}, "vae": ONE_EPOCH},
}


class Stop(Exception):
    pass


def run(key, folder, stop_at=None):
    """One part of the experiment with these small settings; with stop_at it raises Stop there."""
    def progress(share):
        if stop_at and share > stop_at:
            raise Stop

    work = Work("cpu", folder / f"{key}.checkpoint.npz", load_dataset, progress, weights=folder / f"{key}.params.npz")
    part = vector_quantized.parts(SETTINGS)[key]
    return json.loads(json.dumps(part.function(work, **part.arguments)))


def test_the_experiment_goes_on_after_a_stop_and_its_results_are_drawn(tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    found = run("vq-vae", whole)
    for stop_at in (0.15, 0.4):                                          # after the VQ-VAE; between two epochs of the prior
        with pytest.raises(Stop):
            run("vq-vae", parted, stop_at)
    again = run("vq-vae", parted)
    for name in ("terms", "counts", "perplexity", "read", "pictures"):
        assert again[name] == found[name], name
    assert sum(found["counts"]) == 4 * found["test_images"] and len(found["counts"]) == 32
    model = CodePrior.load(whole / "vq-vae.params.npz")
    images = Images.of(load_dataset("digits"))
    assert evaluate(model, images.x_test)["elbo"] == found["terms"]["elbo"]

    parts = {"vq-vae": found} | {key: run(key, whole) for key in ("gradient", "vae")}
    results = {"settings": SETTINGS, "parts": {key: {"result": result} for key, result in parts.items()}}
    vector_quantized.draw(tmp_path / "picture.png", results)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    found["terms"]["elbo"] = -64 * math.log(2) * 0.75                    # three quarters of a bit for each of 64 pixels
    found["terms"]["log_likelihood"], found["log_uniform"] = -10.0, -20.5
    told = [ours for _, _, ours in vector_quantized.rows(results)]
    assert told[0] == "-33.3 (0.750)" and told[1].startswith("-30.5 (0.68")
    assert told[5].startswith(f"{parts['gradient']['perplexity']:.0f}; ") and told[4] != told[5]


def test_learnt_draws_have_their_codes_from_the_prior_and_uniform_ones_have_not():
    """A prior that knows the last code alone, and a reader that tells the share of lit pixels."""
    def brightness(x):
        return {"read": float(x.mean())}

    brightness.accuracy = 1.0
    whole, draws = CodePrior.of(tiny()[0], np.random.default_rng(1), channels=4, layers=1, kernel=3), 400
    with torch.no_grad():
        whole.vqvae.codebook.vectors *= 30                               # codes that decode to grays of their own
        whole.pixelcnn.logits.weight.zero_()
        whole.pixelcnn.logits.bias[-1] = 100
    x = binary_images(10)
    found = vector_quantized.measure_vqvae(whole, Images(x, x, y_test=torch.arange(10)), brightness, draws)
    page = whole.vqvae.decode_codes(torch.full((49, 2, 3), CODES - 1)).detach()
    pages = {name: unpack(found["pictures"][name], 49, 96) for name in ("learnt", "uniform")}
    assert_close("learnt", pages["learnt"], page, rtol=0, atol=0.51 / 255)             # pictures are rounded to 1 / 255
    assert np.abs(pages["uniform"] - page.numpy()).max() > 0.1
    error = math.sqrt(0.25 / (draws * 96))                               # of the share of so many pixels, at most
    assert_close("lit", found["read"]["learnt"]["read"], page.mean(), rtol=0, atol=5 * error)
    assert abs(found["read"]["uniform"]["read"] - page.mean()) > 10 * error, "the last code is as bright as the others"


def test_the_codebook_by_gradients_is_trained_so_and_measured(monkeypatch):
    models = []
    monkeypatch.setattr(vector_quantized, "train", lambda model, *rest: models.append(model) or train(model, *rest))
    part = vector_quantized.parts(SETTINGS)["gradient"]
    found = part.function(Work("cpu", None, load_dataset, lambda share: None), **part.arguments)
    model, x = models[0].eval(), Images.of(load_dataset("digits")).x_test
    assert isinstance(model.codebook.vectors, torch.nn.Parameter) and found["terms"] == evaluate(model, x)
    share = np.bincount(model.codes(x).flatten().numpy(), minlength=32) / (4 * len(x))
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert found["perplexity"] == pytest.approx(math.exp(entropy), rel=1e-5)           # float32


def test_the_presets_are_json_and_the_cpus_is_mnist_with_128_codes_of_7_by_7():
    for settings in vector_quantized.PRESETS.values():
        assert json.loads(json.dumps(settings)) == settings
        assert set(vector_quantized.parts(settings)) == {"vq-vae", "gradient", "vae"}
        for plan in settings["plans"].values():
            Plan(**plan)
    cpu = vector_quantized.PRESETS["cpu"]
    assert (cpu["data"], cpu["vqvae"]["codes"], cpu["latent"]) == ("mnist", 128, 20)
    assert VQVAE(VAEConfig(), **cpu["vqvae"]).log_uniform() == pytest.approx(-237.75, abs=0.005)          # 49 log 128
