"""The VAE with a PixelCNN for a decoder: its gradients, its log p(x) by enumeration, what collapse is, and the cures.

    pytest tests/test_collapse.py

With 2 x 3 pixels and one latent, all 64 images can be counted and z integrated: log p(x), the bound and the posterior are
known, and what the bound misses is KL(q(z|x) || p(z|x)). With a PixelCNN that is blind for pixels the model is a VAE.
Letters: B images, D pixels, J latents, G points of a grid, L draws.
"""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles import assert_close, assert_gradients, kl_divergence
from torch.distributions import Bernoulli, Normal

from common.config import InputError, VAEConfig, init_params
from common.data import load_dataset
from paper import train_paper
from paper.beta_vae import KLWeight
from paper.estimators import estimator_b, log_p_by_importance_sampling, log_weights
from paper.experiments import collapse
from paper.images import Images
from paper.packed import unpack
from paper.parts import Work
from paper.pixel_vae import PixelVAE
from paper.plan import Plan
from paper.reader import Reader
from paper.train_paper import train
from paper.vae_paper import VAE

ROUNDING = 1e-11            # float64, sums of a few hundred numbers of order 1
STANDARD_ERRORS = 5         # a right mean is off by more once in two million seeds, and these are fixed
SQUARE = VAEConfig("mlp", (4, 4), hidden=3, latent=2)
TINY = VAEConfig("mlp", (2, 3), hidden=5, latent=1)
COSTS = {"none": {}, "beta": {"beta": 0.7}, "free bits": {"free_bits": 0.4}, "warm-up": {"warmup": 0.5, "cycles": 2}}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(config=TINY, kind=PixelVAE, batch=5, **cost):
    """A model in float64 with all weights away from zero, and a batch x (B, D)."""
    rng, model = np.random.default_rng(3), kind(config, channels=4, blocks=1, kernel=3, **cost).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.from_numpy(0.6 * rng.standard_normal(weight.shape)))
    return model, torch.from_numpy((rng.random((batch, config.pixels)) < 0.5).astype(np.float64))


@torch.no_grad()
def zero(*weights):
    for weight in weights:
        weight.zero_()


# ---- gradients and objective -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
def test_gradients_are_those_of_central_differences(cost):
    """With warm-up at 0.35 of training: 0.7 of the second of two cycles' ramp of 0.25, that is beta = 0.8."""
    model, x = tiny(SQUARE, **cost)
    model.progress.fill_(0.35)
    assert_gradients(model, lambda: model.training_loss(x, None, generator(1))[0])


def objective_by_hand(model, x, beta, free_bits):
    """-mean log p(x|z) + beta sum_j max(free_bits, mean_b KL_bj), the KL by the plain loops of oracles.py."""
    eps = torch.randn(len(x), model.config.latent, generator=generator(1), dtype=x.dtype)
    mu, logvar = (each.detach() for each in model.encode(x))
    log_likelihood = model.log_likelihood(x, mu + torch.exp(logvar / 2) * eps).detach().mean()
    kl = kl_divergence(mu.numpy(), logvar.numpy())                       # (B, J)
    cost = beta * sum(max(free_bits, np.mean(kl[:, j])) for j in range(kl.shape[1]))
    return float(cost - log_likelihood), float(log_likelihood - kl.sum(axis=1).mean())


class FreeBitsOverTheSum(PixelVAE):
    """Wrong answer: J times as many free nats for all latents together, so that a few may take them all."""

    def __init__(self, config, **settings):
        super().__init__(config, **settings)

        class OverTheSum(KLWeight):
            def cost(self, kl, ramp):
                return torch.clamp(kl.sum(dim=1).mean(), min=self.free_bits * kl.shape[1])

        self.kl_weight = OverTheSum(free_bits=self.kl_weight.free_bits)


def assert_objective(model, x, beta=1.0, free_bits=0.0):
    loss, terms = model.training_loss(x, None, generator(1))
    want, elbo = objective_by_hand(model, x, beta, free_bits)
    assert_close("elbo", terms["elbo"], elbo, rtol=ROUNDING, atol=ROUNDING)              # always the plain bound
    assert_close("loss", loss.detach(), want, rtol=ROUNDING, atol=ROUNDING)
    assert not any(term.requires_grad for term in terms.values())


def test_the_loss_has_the_kl_at_its_cost_and_the_elbo_is_plain():
    for cost in ({}, {"beta": 0.5}, {"free_bits": 0.3}, {"beta": 2.0, "free_bits": 0.3}):
        assert_objective(*tiny(SQUARE, **cost), **cost)


def test_free_bits_over_the_sum_are_noticed():
    """They are another objective where one latent is below its free bits and the other above."""
    def uneven(kind, free_bits):
        model, x = tiny(SQUARE, kind, free_bits=free_bits)
        with torch.no_grad():
            model.encoder.mu.bias[0] += 1.5
        return model, x

    model, x = uneven(PixelVAE, 0.0)
    kl = model.likelihood_and_kl(x, torch.zeros(len(x), 2, dtype=x.dtype))[1].detach().mean(dim=0)       # (J,)
    free_bits = float(kl.mean())
    assert kl.max() - kl.min() > 0.5, "both latents cost the same: nothing to tell"
    assert_objective(*uneven(PixelVAE, free_bits), free_bits=free_bits)
    with pytest.raises(AssertionError, match="loss"):
        assert_objective(*uneven(FreeBitsOverTheSum, free_bits), free_bits=free_bits)


def test_in_eval_mode_the_objective_is_that_of_the_end_of_training():
    model, x = tiny(SQUARE, warmup=0.5, cycles=4)
    plain = tiny(SQUARE)[0]
    want = float(plain.training_loss(x, None, generator(1))[0].detach())
    loss, terms = model.training_loss(x, None, generator(1))             # progress 0: the KL costs nothing yet
    assert_close("loss at the start", loss.detach(), -terms["log_likelihood"], rtol=ROUNDING, atol=0)
    assert terms["kl"] > 0.1, "nothing to cost"
    model.eval()
    assert_close("loss in eval mode", model.training_loss(x, None, generator(1))[0].detach(), want, rtol=ROUNDING, atol=0)


# ---- all images of 2 x 3 pixels, and all z -----------------------------------------------------------------------------

LOG_CELL = math.log(0.1)    # the grid's spacing: a tenth of the prior's standard deviation, and of q's


def all_images(config=TINY):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=config.pixels)), dtype=torch.float64)      # (2^D, D)


def log_joint_on_grid(model, x):
    """log p(x, z) dz for z on a grid over [-18, 18], wide enough for q, and the grid: (G, N), (G, 1)."""
    z = torch.linspace(-18, 18, 361, dtype=x.dtype)[:, None]                             # (G, J)
    with torch.no_grad():
        log_likelihood = model.log_likelihood(x, z[:, None].expand(-1, len(x), -1))      # (G, N)
    return log_likelihood + Normal(0.0, 1.0).log_prob(z) + LOG_CELL, z


def assert_is_a_distribution(model):
    log_joint, _ = log_joint_on_grid(model, all_images())
    # p(x|z) has kinks in z (ReLU), which cost the rule some digits of one log p(x); not of the sum, where it drops out
    assert_close("sum over all images", torch.exp(log_joint).sum(), 1.0, rtol=0, atol=ROUNDING)


def test_the_probabilities_of_all_images_sum_to_one():
    model, _ = tiny()
    log_p = torch.logsumexp(log_joint_on_grid(model, all_images())[0], dim=0)
    assert log_p.max() - log_p.min() > 1, "all images alike: nothing to see"
    assert_is_a_distribution(model)


def test_a_pixel_that_sees_itself_is_noticed():
    """Wrong answer: the first layer's mask lets a pixel's own value through."""
    model, _ = tiny()
    model.pixelcnn.first.mask[1, 1] = 1
    with pytest.raises(AssertionError, match="sum over all images"):
        assert_is_a_distribution(model)


def test_the_elbo_is_below_log_p_by_the_kl_from_q_to_the_posterior():
    model, _ = tiny()
    x, draws = all_images()[::5], 1000
    with torch.no_grad():
        for weight in model.encoder.parameters():
            weight *= 0.4                                                # q near the prior: no weight outweighs others
    log_joint, z = log_joint_on_grid(model, x)                           # (G, N), (G, 1)
    log_p = torch.logsumexp(log_joint, dim=0)                            # (N,)
    with torch.no_grad():
        mu, logvar = model.encode(x)                                     # (N, 1), (N, 1)
        log_q = Normal(mu.T, torch.exp(logvar.T / 2)).log_prob(z) + LOG_CELL   # (G, N)
        q = torch.exp(log_q)
        elbo = (q * (log_joint - log_q)).sum(dim=0)
        gap = (q * (log_q - log_joint + log_p)).sum(dim=0)
        eps = torch.randn(draws, len(x), 1, generator=generator(), dtype=x.dtype)
        log_w = log_weights(model, x, eps)                               # (L, N)
        by_draws = log_p_by_importance_sampling(model, x, draws, generator())
    assert_close("integral of q", q.sum(dim=0), np.ones(len(x)), rtol=0, atol=1e-6)      # the grid resolves q
    assert_close("log p - ELBO", log_p - elbo, gap, rtol=1e-5, atol=1e-5)
    assert (elbo < log_p).all() and gap.max() > 0.05, "q is the posterior: nothing to see"
    error = log_w.std(dim=0) / math.sqrt(len(log_w))
    assert ((log_w.mean(dim=0) - elbo).abs() < STANDARD_ERRORS * error).all()
    error = torch.exp(log_w - log_p).std(dim=0) / math.sqrt(len(log_w))                  # of w / p(x), whose mean is 1
    assert ((by_draws - log_p).abs() < STANDARD_ERRORS * error + error**2).all() and error.max() < 0.2, error.max()


def test_draws_have_the_frequencies_that_log_p_of_x_given_z_says():
    model, _ = tiny()
    z, draws = torch.tensor([[0.8]], dtype=torch.float64), 6000
    x, images = model.sample(z.expand(draws, -1), generator()), all_images()
    p = torch.exp(model.log_likelihood(images, z.expand(len(images), -1))).detach()
    seen = torch.tensor([float((x == image).all(dim=1).sum()) for image in images], dtype=torch.float64) / draws
    error = torch.sqrt(p * (1 - p) / draws)
    assert ((seen - p).abs() < STANDARD_ERRORS * error + 2 / draws).all()                # 2 draws: of what is very rare
    assert seen.sum() == 1 and p.max() > 2 * p.median(), "all images alike: nothing to see"
    assert torch.equal(x, model.sample(z.expand(draws, -1), generator())) and not x.requires_grad


def test_each_z_of_several_has_its_own_likelihood():
    model, x = tiny(SQUARE)
    z = torch.randn(3, len(x), 2, generator=generator(), dtype=x.dtype)
    together = model.log_likelihood(x, z).detach()
    one_by_one = [[float(model.log_likelihood(x[b:b + 1], z[i, b:b + 1]).detach()) for b in range(len(x))]
                  for i in range(3)]
    assert_close("log p(x|z)", together, one_by_one, rtol=ROUNDING, atol=ROUNDING)
    assert together.std() > 0.1


# ---- a blind PixelCNN is a VAE -----------------------------------------------------------------------------------------


def blind(model):
    """The model with the PixelCNN's weights on the pixels zero."""
    zero(model.pixelcnn.first.weight)
    return model


def test_without_weights_on_the_pixels_they_are_independent_given_z():
    model, x = blind(tiny(SQUARE)[0]), tiny(SQUARE)[1]
    z = torch.randn(len(x), 2, generator=generator(), dtype=x.dtype)
    nothing = torch.zeros(len(x), 4, 4, dtype=torch.long)
    logits = model.pixelcnn(nothing, model.context(z))                   # (B, 2, h, w), of no image
    want = Bernoulli(logits=(logits[:, 1] - logits[:, 0]).flatten(1)).log_prob(x).sum(dim=1)
    assert_close("log p(x|z)", model.log_likelihood(x, z).detach(), want.detach(), rtol=ROUNDING, atol=0)
    seeing = tiny(SQUARE)[0].log_likelihood(x, z)
    assert (seeing - want).abs().max() > 0.1, "the pixels before made no difference"


def test_a_blind_pixelcnn_that_hands_its_context_on_makes_it_exactly_the_vae():
    """Loss, terms and gradients: l = relu(l) - relu(-l) goes through two of its channels, and its blocks add nothing."""
    model, x = tiny(SQUARE)
    cnn = blind(model).pixelcnn
    zero(cnn.first.bias, cnn.context.weight, cnn.context.bias, cnn.hidden.weight, cnn.hidden.bias, cnn.logits.weight,
         cnn.logits.bias, *(weight for block in cnn.blocks for weight in block.widen.parameters()))
    with torch.no_grad():
        cnn.context.weight[:2, 0] = torch.tensor([[[1.0]], [[-1.0]]])
        cnn.hidden.weight[:2, :2, 0, 0] = torch.eye(2)
        cnn.logits.weight[1, :2, 0, 0] = torch.tensor([1.0, -1.0])       # the logit of a 0 is 0
    params = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items() if "pixelcnn" not in name}
    vae = VAE(SQUARE, params)                                            # encoder and decoder have its names
    (loss, terms), (want, want_terms) = (each.training_loss(x, None, generator(2)) for each in (model, vae))
    loss.backward()
    want.backward()
    for name, term in want_terms.items():
        assert_close(name, terms[name], term, rtol=ROUNDING, atol=0)
    for name, weight in vae.named_parameters():
        assert_close(name, model.get_parameter(name).grad, weight.grad, rtol=ROUNDING, atol=ROUNDING)
        assert weight.grad.abs().max() > 1e-3, f"{name}: nothing to compare"


# ---- collapse ----------------------------------------------------------------------------------------------------------


class Deaf(PixelVAE):
    """Wrong answer: z is drawn and decoded, and never reaches the PixelCNN."""

    def context(self, z):
        return torch.zeros_like(super().context(z))


def assert_z_matters(model, x):
    z = torch.randn(len(x), model.config.latent, generator=generator(), dtype=x.dtype).requires_grad_()
    model.log_likelihood(x, z).sum().backward()
    assert z.grad is not None and (z.grad.abs() > 1e-4).all(), "no gradient of log p(x|z) reaches z"


def test_every_latent_of_every_image_reaches_the_decoder_and_one_that_does_not_is_noticed():
    assert_z_matters(*tiny(SQUARE))
    with pytest.raises(AssertionError, match="reaches z"):
        assert_z_matters(*tiny(SQUARE, Deaf))


def test_where_the_decoder_ignores_z_the_prior_is_the_posterior_and_no_bound_is_tighter():
    """Collapse, made by hand: the KL is 0, and for every draw the ELBO is L_k is log p(x)."""
    model, x = tiny()
    zero(model.pixelcnn.context.weight, *model.encoder.mu.parameters(), *model.encoder.logvar.parameters())
    eps = torch.randn(7, len(x), 1, generator=generator(), dtype=x.dtype)
    with torch.no_grad():
        log_p = torch.logsumexp(log_joint_on_grid(model, x)[0], dim=0)
        bounds = {f"log weight {i}": each for i, each in enumerate(log_weights(model, x, eps))}
        bounds |= {"estimator B": estimator_b(model, x, eps[:1]), "L_7": log_p_by_importance_sampling(model, x, 7)}
        for name, bound in bounds.items():
            assert_close(name, bound, log_p, rtol=ROUNDING, atol=0)
        _, kl = model.likelihood_and_kl(x, eps[0])
    assert (kl == 0).all() and kl.shape == (len(x), 1)
    assert collapse.active_units(model, x) == 0


# ---- with the trainer --------------------------------------------------------------------------------------------------


def images_of(count=53):
    rng = np.random.default_rng(5)
    x = torch.from_numpy((rng.random((count, 6)) < rng.random((count, 1))).astype(np.float64))
    return Images(x, x[:11])


def test_a_run_that_was_stopped_goes_on_identically(tmp_path, monkeypatch):
    """With cyclical warm-up: the third epoch of six is in the middle of a cycle."""
    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 3:
            raise Stop

    images, plan = images_of(), Plan(epochs=6, batch_size=20, lr=0.01)
    cost = {"warmup": 0.75, "cycles": 2}
    whole = tiny(**cost)[0]
    rows = train(whole, images, plan)
    now = itertools.count(step=6.0)                                      # a checkpoint is due after each epoch
    monkeypatch.setattr(train_paper.time, "perf_counter", lambda: next(now))
    with pytest.raises(Stop):
        train(tiny(**cost)[0], images, plan, tmp_path / "checkpoint.npz", stop)
    resumed = PixelVAE(TINY, channels=4, blocks=1, kernel=3, **cost).double()            # other weights
    told = []
    again = train(resumed, images, plan, tmp_path / "checkpoint.npz", told.append)
    assert [row["epoch"] for row in told] == [4, 5, 6]
    for one, other in zip(rows, again, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    for name, tensor in whole.state_dict().items():
        assert_close(name, resumed.state_dict()[name], tensor, rtol=0, atol=0)
        assert (tensor - tiny(**cost)[0].state_dict()[name]).abs().max() > 1e-3, f"{name} is not trained"
    with pytest.raises(InputError, match="cycles.*2"):
        train(tiny(warmup=0.75, cycles=3)[0], images, plan, tmp_path / "checkpoint.npz")


def test_a_file_brings_the_model_back(tmp_path):
    model, x = tiny(SQUARE, beta=0.5, warmup=0.25)
    model.save(tmp_path / "params.npz")
    again = PixelVAE.load(tmp_path / "params.npz")
    assert (again.config, again.settings, again.kl_weight) == (model.config, model.settings, KLWeight(0.5, warmup=0.25))
    one, other = (each.training_loss(x, None, generator())[0].detach() for each in (model, again))
    assert one == other
    with pytest.raises(InputError, match="PixelVAE"):
        VAE.load(tmp_path / "params.npz")


@pytest.mark.parametrize("wrong, complaint", [
    (lambda: PixelVAE(VAEConfig("conv", (8, 8), latent=2)), "arch conv.*it knows mlp"),
    (lambda: PixelVAE(VAEConfig("mlp", (8, 8), latent=2, likelihood="gaussian")), "likelihood gaussian"),
    (lambda: PixelVAE(VAEConfig("mlp", (8, 8), latent=2, condition=3)), "condition 3"),
    (lambda: PixelVAE(SQUARE, channels=3), "channels is 3"),
    (lambda: PixelVAE(SQUARE, beta=-1.0), "beta is -1"),
    (lambda: PixelVAE(SQUARE).training_loss(torch.zeros(5, 9), None, generator()), "x has shape"),
])
def test_what_cannot_be_is_one_line(wrong, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        wrong()
    assert "\n" not in str(error.value)


# ---- the experiment ----------------------------------------------------------------------------------------------------


def test_images_are_shrunk_by_means_of_blocks():
    digits = load_dataset("digits")
    small = collapse.shrunk(digits, 2)
    assert small.image_shape == (4, 4) and small.x_train.shape == (len(digits.x_train), 16)
    for image, pixels in ((0, small.x_test[0]), (7, small.x_test[7])):
        for row, column in np.ndindex(4, 4):
            block = digits.x_test[image].reshape(8, 8)[2 * row:2 * row + 2, 2 * column:2 * column + 2]
            assert pixels.reshape(4, 4)[row, column] == pytest.approx(block.mean(), abs=1e-6)            # float32
    assert collapse.shrunk(digits, 1).x_test == pytest.approx(digits.x_test)


def test_every_cost_makes_a_model_and_only_one_thing_differs():
    arguments = {key: part.arguments for key, part in collapse.parts(collapse.PRESETS["cpu"]).items()}
    assert list(arguments) == list(collapse.NAMES) == [*collapse.COSTS, "weak"] == list(collapse.COLORS)
    for key, cost in collapse.COSTS.items():
        assert {**arguments[key], "key": "none"} == arguments["none"]
        assert PixelVAE(TINY, **cost).kl_weight == KLWeight(**cost)
    assert len({repr(KLWeight(**cost)) for cost in collapse.COSTS.values()}) == len(collapse.COSTS)


AFTER_A_TENTH = {"none": 1.0, "annealing": 0.2, "cyclical": 0.8, "free-bits": 0.5 + 0.8, "beta": 0.5}


@pytest.mark.parametrize("key, want", AFTER_A_TENTH.items())
def test_each_model_is_trained_at_the_cost_of_its_name(key, want, monkeypatch):
    """What two latents of 0.2 and 0.8 nats cost after a tenth of training: 0.2 of one warm-up, 0.8 of the first of four."""
    models = []
    monkeypatch.setattr(collapse, "train", lambda model, *_: models.append(model) or [])          # measured as it begins
    part = collapse.parts(collapse.PRESETS["quick"] | {
        "network": {"hidden": 5, "latent": 2}, "decoder": {"channels": 2, "blocks": 0, "kernel": 3},
        "measure": {"samples": 2, "images": 4, "reader": [3, 1]}})[key]
    part.function(Work("cpu", None, load_dataset, lambda share: None), **part.arguments)
    weight, kl = models[0].kl_weight, torch.tensor([[0.1, 0.9], [0.3, 0.7]], dtype=torch.float64)         # (B, J)
    cost = weight.cost(kl, weight.ramp(torch.tensor(0.1, dtype=torch.float64)))
    assert_close("cost", cost, want, rtol=ROUNDING, atol=0)


@pytest.mark.parametrize("shift, share", [(0, 1.0), (1, 0.0)])
def test_kept_is_the_share_of_draws_at_z_from_q_that_are_read_as_the_digit(shift, share):
    """Images with one row of pixels lit, and a VAE whose z tells surely which: it draws that row, or the next."""
    config = VAEConfig("mlp", (4, 3), hidden=4, latent=4)
    params = {name: np.zeros_like(array) for name, array in init_params(config, np.random.default_rng(0)).items()}
    params["encoder.hidden.weight"][:] = 10 * np.eye(4).repeat(3, axis=1)
    params["encoder.mu.weight"][:] = 5 * np.eye(4)
    params["encoder.logvar.bias"][:] = -20
    params["decoder.hidden.weight"][:] = 2 * np.roll(np.eye(4), shift, axis=0)
    params["decoder.logits.weight"][:] = 200 * np.eye(4).repeat(3, axis=0)
    params["decoder.logits.bias"][:] = -100
    lit, digits = torch.arange(40) % 4, torch.tensor(collapse.SHOWN)
    x = torch.eye(4).repeat_interleave(3, dim=1)[lit]
    reader = SimpleNamespace(digits=lambda x: digits[x.reshape(-1, 4, 3).sum(dim=2).argmax(dim=1)])
    images = Images(x, x, y_train=digits[lit], y_test=digits[lit])
    assert collapse.measured(VAE(config, params), images, reader, samples=2, count=30)["kept"] == share


def test_what_is_measured_agrees_with_itself_and_is_drawn_and_told(tmp_path):
    images = Images.of(load_dataset("digits"))
    config, reader = VAEConfig(image_shape=(8, 8), hidden=5, latent=3), Reader(images, 20, 20)
    results = {"settings": collapse.PRESETS["quick"] | {"network": {"latent": 3}}, "parts": {}}
    for key in collapse.NAMES:
        model = PixelVAE(config, channels=4, blocks=1, kernel=3, **collapse.COSTS[key]) if key in collapse.COSTS else None
        model = model.draw_weights(np.random.default_rng(0), images.x_train.mean(dim=0).numpy()) if model else VAE(config)
        found = json.loads(json.dumps(collapse.measured(model, images, reader, samples=5, count=40)))
        assert found["elbo"] == pytest.approx(found["log_likelihood"] - found["kl"], rel=1e-5)           # float32
        assert found["kl"] == pytest.approx(sum(found["kl_per_latent"]), rel=1e-5)
        assert len(found["kl_per_latent"]) == 3 and found["images"] == 40 and found["test_images"] == len(images.x_test)
        # L_5 and the ELBO by one draw: the same 40 images, whose draws differ by about a nat each in an untrained model
        assert found["log_p"] > found["elbo_of_same"] - 1 and 0 <= found["kept"] <= 0.5
        originals = unpack(found["pictures"]["originals"], len(collapse.SHOWN), 64)
        for digit, original in zip(collapse.SHOWN, originals, strict=True):
            same = (images.x_test.numpy() == original).all(axis=1)
            assert digit in images.y_test.numpy()[same]
        curve = [{"epoch": epoch, "test": {"kl": 1.0 + epoch, "elbo": -20.0 - epoch}} for epoch in (1, 2)]
        results["parts"][key] = {"result": found | {"accuracy": reader.accuracy, "image_shape": [8, 8], "curve": curve}}
    told = collapse.rows(results)
    assert len(told) == 3 * len(collapse.NAMES)
    assert told[0][2].startswith(f"{results['parts']['none']['result']['elbo']:.2f} / ")
    collapse.draw(tmp_path / "collapse.png", results)
    assert (tmp_path / "collapse.png").stat().st_size > 10_000
