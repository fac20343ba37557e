"""Level 3's model beyond the contract: two hidden layers, files that travel between the levels, and what it refuses.

    pytest tests/test_paper_model.py

The contract itself runs on level 3 in test_contract.py; the referee there is level 2, which knows one hidden layer. Here
the referee of layers=2 is a plain forward on tensors, written out once more below.
"""

import contextlib
import io
import math
from dataclasses import replace

import contract
import networks_numpy
import numpy as np
import pytest
import torch
import train_numpy
from contract import EXACT, MODEL_CHECKS, Case
from implementations import LEVELS, Implementation
from oracles import assert_close

from common.checkpoints import load_params, save_params
from common.config import InputError, VAEConfig, init_params, parameter_shapes
from common.run import Run
from paper import vae_paper
from paper.vae_paper import VAE
from pytorch_lowlevel import networks_lowlevel, train_lowlevel

PAPER = LEVELS["paper"]
each_case = pytest.mark.parametrize("case", contract.CASES.values(), ids=contract.CASES)

# ---- two hidden layers: the same contract, another referee -------------------------------------------------------------


class TwoLayers:
    """The contract's functions for layers=2, from the formulas: no module, no distribution, gradients by autograd."""

    @staticmethod
    def affine(params, name, h):
        return h @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    @staticmethod
    def encode(params, x, config):
        h = torch.tanh(TwoLayers.affine(params, "encoder.hidden", x))
        h = torch.tanh(TwoLayers.affine(params, "encoder.hidden2", h))
        return TwoLayers.affine(params, "encoder.mu", h), TwoLayers.affine(params, "encoder.logvar", h)

    @staticmethod
    def decode(params, z, config):
        h = torch.tanh(TwoLayers.affine(params, "decoder.hidden", z))
        h = torch.tanh(TwoLayers.affine(params, "decoder.hidden2", h))
        if config.likelihood == "bernoulli":
            return TwoLayers.affine(params, "decoder.logits", h)
        mean = 1 / (1 + torch.exp(-TwoLayers.affine(params, "decoder.mean", h)))
        if config.fixed_logvar is None:
            return mean, TwoLayers.affine(params, "decoder.logvar", h)
        return mean, 0 * mean + config.fixed_logvar

    @staticmethod
    def kl_divergence(mu, logvar):
        return (mu**2 + torch.exp(logvar) - 1 - logvar) / 2

    @staticmethod
    def elbo_terms(params, x, eps, config):
        mu, logvar = TwoLayers.encode(params, x, config)
        out = TwoLayers.decode(params, mu + torch.exp(logvar / 2) * eps, config)
        if config.likelihood == "bernoulli":
            log_likelihood = x * out - torch.log(1 + torch.exp(out))     # log y where x is 1, log(1 - y) where it is 0
        else:
            mean, spread = out
            log_likelihood = -((x - mean)**2 / torch.exp(spread) + spread + math.log(2 * math.pi)) / 2
        return log_likelihood.sum(dim=1), TwoLayers.kl_divergence(mu, logvar).sum(dim=1)

    @staticmethod
    def loss_and_grads(params, x, eps, config, beta=1.0, free_bits=0.0):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
        log_likelihood = TwoLayers.elbo_terms(leaves, x, eps, config)[0].mean()
        kl_j = TwoLayers.kl_divergence(*TwoLayers.encode(leaves, x, config)).mean(dim=0)
        cost = sum(kl if kl > free_bits else 0 * kl + free_bits for kl in kl_j)
        loss = -log_likelihood + beta * cost
        loss.backward()
        terms = {"elbo": log_likelihood - kl_j.sum(), "log_likelihood": log_likelihood, "kl": kl_j.sum()}
        return (loss.detach(), {name: term.detach() for name, term in terms.items()},
                {name: leaf.grad for name, leaf in leaves.items()})


TWO = replace(contract.MLP, layers=2)
LAYERS2 = {
    "layers2-bernoulli": Case(TWO), "layers2-gaussian": Case(replace(TWO, likelihood="gaussian")),
    "layers2-fixed-variance": Case(replace(TWO, likelihood="gaussian", fixed_logvar=-1.5)),
}
CHECKS = {check.__name__.removeprefix("check_"): check for check in MODEL_CHECKS
          if check is not contract.check_gradients_at_the_kink}         # the mlp has no ReLU


@pytest.fixture
def two_layer_referee(monkeypatch):
    monkeypatch.setattr(contract, "referee", lambda implementation: Implementation("two layers", (TwoLayers,), "torch"))


@pytest.mark.parametrize("case", LAYERS2.values(), ids=LAYERS2)
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_with_two_hidden_layers(two_layer_referee, case, check):
    check(PAPER, case)


# ---- the suite can fail: wrong answers planted into level 3 ------------------------------------------------------------

encoder_forward, log_likelihood, loss = vae_paper.MLPEncoder.forward, VAE.log_likelihood, VAE.loss


def second_layer_forgotten(encoder, x):
    h = torch.tanh(encoder.hidden(x))
    return encoder.mu(h), encoder.logvar(h)


def second_layer_without_tanh(encoder, x):
    h = torch.tanh(encoder.hidden(x))
    h = encoder.hidden2(h) if encoder.layers == 2 else h
    return encoder.mu(h), encoder.logvar(h)


def heads_swapped(encoder, x):
    return encoder_forward(encoder, x)[::-1]


def variance_as_deviation(model, z):
    mean, logvar = model.decode(z)
    return torch.distributions.Normal(mean, torch.exp(logvar), validate_args=False)


def mean_over_pixels(model, x, z):
    return log_likelihood(model, x, z) / x.shape[-1]


def beta_ignored(model, x, eps, beta=1.0, free_bits=0.0):
    return loss(model, x, eps, 1.0, free_bits)


def attached_terms(model, x, eps, beta=1.0, free_bits=0.0):
    total, terms = loss(model, x, eps, beta, free_bits)
    return total, {name: term + 0 * total for name, term in terms.items()}


WRONG = {                                                               # where, the wrong answer, the check that notices
    "second_layer_forgotten": (vae_paper.MLPEncoder, "forward", second_layer_forgotten, "encode_agrees_with_the_referee",
                               "layers2-bernoulli"),
    "second_layer_without_tanh": (vae_paper.MLPEncoder, "forward", second_layer_without_tanh,
                                  "encode_agrees_with_the_referee", "layers2-gaussian"),
    "heads_swapped": (vae_paper.MLPEncoder, "forward", heads_swapped, "elbo_terms_agree_with_the_referee",
                      "layers2-bernoulli"),
    "variance_as_deviation": (VAE, "likelihood", variance_as_deviation, "elbo_terms_agree_with_the_referee",
                              "layers2-gaussian"),
    "mean_over_pixels": (VAE, "log_likelihood", mean_over_pixels, "gradients_agree_with_the_referee", "layers2-bernoulli"),
    "beta_ignored": (VAE, "loss", beta_ignored, "loss_and_terms_follow_the_formula", "layers2-bernoulli"),
    "attached_terms": (VAE, "loss", attached_terms, "loss_and_terms_follow_the_formula", "layers2-bernoulli"),
    "no_sampling": (VAE, "reparameterize", lambda model, mu, logvar, eps: mu, "elbo_terms_agree_with_the_referee",
                    "layers2-bernoulli"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_suite_rejects_at_level_3(two_layer_referee, monkeypatch, name):
    owner, function, wrong, check, case = WRONG[name]
    CHECKS[check](PAPER, LAYERS2[case])                                 # the right answer passes
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, wrong)
        with pytest.raises(AssertionError):
            CHECKS[check](PAPER, LAYERS2[case])


# ---- the parts -----------------------------------------------------------------------------------------------------


def model_of(case, dtype=np.float64):
    """A VAE with the weights of a case, and its images and noise as tensors."""
    params, x, eps = case.draw(dtype)
    return VAE(case.config, params), torch.tensor(x), torch.tensor(eps)


@pytest.mark.parametrize("case", [*contract.CASES.values(), *LAYERS2.values()], ids=[*contract.CASES, *LAYERS2])
def test_the_state_dict_has_the_names_shapes_order_and_dtype_of_the_weights(case):
    for dtype in (np.float32, np.float64):
        params = case.draw(dtype)[0]
        state = VAE(case.config, params).state_dict()
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == parameter_shapes(case.config)
        assert list(state) == list(params)
        for name, tensor in state.items():
            assert tensor.numpy().dtype == dtype, f"{name} came in as {np.dtype(dtype)} and is {tensor.dtype}"
            np.testing.assert_array_equal(tensor.numpy(), params[name], name)


def test_a_model_without_weights_draws_those_of_seed_0():
    params = init_params(TWO, np.random.default_rng(0))
    for name, tensor in VAE(TWO).state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), params[name], name)


def test_training_the_model_leaves_the_callers_arrays_alone():
    case = LAYERS2["layers2-bernoulli"]
    params, x, eps = case.draw()
    model = VAE(case.config, params)
    model.loss(torch.tensor(x), torch.tensor(eps))[0].backward()
    torch.optim.SGD(model.parameters(), 1.0).step()
    for name, array in case.draw()[0].items():
        np.testing.assert_array_equal(params[name], array, name)
        assert not np.array_equal(model.state_dict()[name].numpy(), array), f"{name} was not trained"


@each_case
def test_many_draws_of_z_decode_as_they_do_one_by_one(case):
    model, x, _ = model_of(case)
    z = torch.tensor(np.random.default_rng(1).standard_normal((3, case.batch, case.config.latent)))
    with torch.no_grad():
        whole, single = model.log_likelihood(x, z), [model.log_likelihood(x, each) for each in z]
        assert_close("log p(x|z) (L, B)", whole, torch.stack(single), **EXACT)
        means = model.decode_mean(z)
        assert means.shape == (3, case.batch, case.config.pixels) and 0 < means.min() and means.max() < 1
        out = model.decode(z[0])
        want = torch.sigmoid(out) if case.config.likelihood == "bernoulli" else out[0]
        assert_close("decode_mean (B, D)", means[0], want, **EXACT)


def test_gray_pixels_under_a_bernoulli_give_the_terms_of_level_2():
    case = contract.CASES["mlp-bernoulli"]
    params, x, eps = case.draw()
    gray = np.random.default_rng(0).random(x.shape)
    for got, want in zip(PAPER("elbo_terms", params, gray, eps, case.config),
                         LEVELS["lowlevel"]("elbo_terms", params, gray, eps, case.config), strict=True):
        assert_close("term (B,)", got, want, **EXACT)


def test_free_bits_let_no_gradient_through_where_the_kl_just_reaches_them():
    """At the tie itself, too: half a gradient (torch.maximum's) would be a third objective."""
    config = replace(TWO, latent=1)
    model, x, eps = model_of(Case(config))
    model.loss(x, eps, beta=0.0)[0].backward()
    free = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    reached = float(model.loss(x, eps)[1]["kl"])
    model.loss(x, eps, free_bits=reached)[0].backward()
    for name, weight in model.named_parameters():
        np.testing.assert_array_equal(weight.grad, free[name], f"gradient of {name} with free bits at the KL itself")
    model.zero_grad()
    model.loss(x, eps, free_bits=reached * (1 - 1e-12))[0].backward()
    assert not torch.equal(model.encoder.mu.weight.grad, free["encoder.mu.weight"]), "the KL above its free bits is free"


def test_the_model_called_is_its_loss():
    """What DistributedDataParallel wraps."""
    model, x, eps = model_of(LAYERS2["layers2-gaussian"])
    assert model(x, eps, beta=2.0, free_bits=0.1)[0] == model.loss(x, eps, beta=2.0, free_bits=0.1)[0]


@pytest.mark.parametrize("x, eps, words", [
    ((5, 8), (5, 3), "x has shape"), ((7,), (7, 3), "x has shape"), ((0, 7), (0, 3), "x has shape"),
    ((5, 7), (1, 3), "eps has shape"), ((5, 7), (5, 1), "eps has shape"), ((5, 7), (2, 5, 3), "eps has shape"),
])
def test_wrong_shapes_are_refused(x, eps, words):
    model = VAE(contract.MLP)
    for function in (model.elbo_terms, model.loss):
        with pytest.raises(InputError, match=words):
            function(torch.zeros(x), torch.zeros(eps))


@pytest.mark.parametrize("name", ["x", "eps"])
def test_another_dtype_than_the_weights_is_refused(name):
    arrays = {"x": torch.zeros(5, 7), "eps": torch.zeros(5, 3)}
    with pytest.raises(InputError, match=f"{name} is torch.float64"):
        VAE(contract.MLP).loss(**arrays | {name: arrays[name].double()})


def test_training_loss_draws_its_noise_from_the_generator_and_ignores_labels():
    model, x, _ = model_of(LAYERS2["layers2-bernoulli"])
    eps = torch.randn(5, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    want, want_terms = model.loss(x, eps)
    for y in (None, torch.arange(5)):
        got, terms = model.training_loss(x, y, torch.Generator().manual_seed(7))
        assert got == want and terms == want_terms


# ---- weights travel between the levels ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Options for two tiny sets of gray images, one for each architecture."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(5)
    options = {}
    for arch, (height, width) in {"mlp": (6, 5), "conv": (8, 12)}.items():
        np.savez(folder / f"{arch}.npz", x_train=rng.random((40, height, width)), x_test=rng.random((6, height, width)))
        options[arch] = [*f"--arch {arch} --hidden 9 --latent 3 --batch-size 20 --data npz --data-file".split(),
                         str(folder / f"{arch}.npz")]
    return options


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(Run, "finish", lambda run: None)


TRAINERS = {"numpy": train_numpy.main, "lowlevel": train_lowlevel.main}
each_model = pytest.mark.parametrize("arch, likelihood", [
    ("mlp", "bernoulli"), ("mlp", "gaussian"), ("mlp", "gaussian --fixed-logvar -1"), ("conv", "bernoulli"),
    ("conv", "gaussian")])


def quietly(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        function(*arguments)


def terms_of(model, x, eps):
    with torch.no_grad():
        return [tensor.numpy() for tensor in model.elbo_terms(torch.tensor(x), torch.tensor(eps))]


@each_model
@pytest.mark.parametrize("level", TRAINERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_that_levels_1_and_2_trained_give_the_same_terms_at_level_3_and_back(
        images, tmp_path, no_pictures, level, arch, likelihood, dtype):
    words = f"--likelihood {likelihood} --dtype {dtype} --epochs 1 --lr 0.01 --out {tmp_path / 'one'}".split()
    quietly(TRAINERS[level], [*images[arch], *words])
    params, config = load_params(tmp_path / "one" / "params.npz")
    rng = np.random.default_rng(1)
    x, eps = ((rng.random((4, config.pixels)) < 0.5).astype(dtype), rng.standard_normal((4, config.latent)).astype(dtype))
    # float64: sums in another order, some 1e-15. float32: 6e-8 a rounding, in sums of up to 96 pixels
    close = {"rtol": 1e-9, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-5, "atol": 1e-5}

    model = VAE.load(tmp_path / "one" / "params.npz")
    assert model.config == config
    for name, got, want in zip(("log_likelihood", "kl"), terms_of(model, x, eps),
                               LEVELS[level]("elbo_terms", params, x, eps, config), strict=True):
        assert got.dtype == np.dtype(dtype), f"{name}: {dtype} weights compute in {got.dtype} at level 3"
        assert_close(f"{name} (B,)", got, want, **close)

    torch.optim.SGD(model.parameters(), 0.01).step(lambda: model.loss(torch.tensor(x), torch.tensor(eps))[0].backward())
    model.save(tmp_path / "three.npz")
    moved, same = load_params(tmp_path / "three.npz")
    assert same == config and not np.array_equal(moved["encoder.mu.weight"], params["encoder.mu.weight"])
    for name, got, want in zip(("log_likelihood", "kl"), LEVELS[level]("elbo_terms", moved, x, eps, config),
                               terms_of(model, x, eps), strict=True):
        assert_close(f"{name} (B,) back at level {level}", got, want, **close)


@pytest.mark.parametrize("level", TRAINERS)
def test_levels_1_and_2_train_on_from_weights_of_level_3(images, tmp_path, no_pictures, level):
    model = VAE(VAEConfig("mlp", (6, 5), hidden=9, latent=3))
    model.save(tmp_path / "three.npz")
    quietly(TRAINERS[level], [*images["mlp"], *f"--init-from {tmp_path / 'three.npz'} --epochs 1 --optimizer sgd".split(),
                              *f"--lr 1e-300 --out {tmp_path / 'on'}".split()])        # steps too small to change a weight
    for name, array in load_params(tmp_path / "on" / "params.npz")[0].items():
        np.testing.assert_array_equal(array, model.state_dict()[name].numpy(), name)


@pytest.mark.parametrize("networks", [networks_numpy, networks_lowlevel], ids=TRAINERS)
def test_two_hidden_layers_load_at_level_3_and_are_refused_at_levels_1_and_2(tmp_path, no_pictures, networks, request):
    model, x, eps = model_of(LAYERS2["layers2-bernoulli"])
    model.save(tmp_path / "params.npz")
    for got, want in zip(terms_of(VAE.load(tmp_path / "params.npz"), x.numpy(), eps.numpy()),
                         terms_of(model, x.numpy(), eps.numpy()), strict=True):
        np.testing.assert_array_equal(got, want)
    params, config = load_params(tmp_path / "params.npz")
    level = LEVELS["numpy" if networks is networks_numpy else "lowlevel"]
    for function, rows in (("encode", x), ("decode", eps)):
        with pytest.raises(InputError, match="layers is 2.*level 3"):
            level(function, params, rows.numpy(), config)
    trainer = TRAINERS[level.name]
    with pytest.raises(InputError, match="layers is 2.*level 3"):
        quietly(trainer, ["--init-from", str(tmp_path / "params.npz"), "--epochs", "1", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["missing", "text", "a weight missing", "a weight misshapen", "NaN"])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path, kind):
    path, params = tmp_path / "params.npz", init_params(TWO, np.random.default_rng(0))
    if kind == "text":
        path.write_text("0.1 0.2")
    elif kind != "missing":
        if kind == "a weight missing":
            del params["decoder.hidden2.bias"]
        elif kind == "a weight misshapen":
            params["decoder.hidden2.bias"] = np.zeros(3, np.float32)
        else:
            params["decoder.hidden2.bias"][0] = np.nan
        save_params(path, params, TWO)
    with pytest.raises(InputError, match="params.npz") as refusal:
        VAE.load(path)
    assert "\n" not in str(refusal.value)
    assert kind in ("missing", "text") or "decoder.hidden2.bias" in str(refusal.value)
