"""The label-conditional VAE at all three levels: q(z|x, y), p(x|z, y), and a bound on log p(x|y).

    pytest tests/test_conditional_vae.py

The contract runs on it in test_contract.py, level against level; here the referee is the plain loops of oracles.py, and
the sum of p(x|y) over every image there is. What public code gets wrong is planted.
Letters: B images, D pixels, J latents, C classes.
"""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import contract
import networks_numpy
import numpy as np
import oracles
import pytest
import sample_numpy
import torch
import train_numpy
from contract import CONDITIONAL_CASES, MLP, Case
from implementations import LEVELS, Implementation, NotAttempted
from oracles import assert_close, central_difference

from common.checkpoints import load_params, save_params
from common.cli import run_command
from common.config import InputError, VAEConfig, check_labels, init_params
from common.data import Dataset, load_dataset
from paper import train_paper
from paper.conditional_vae import ConditionalVAE, at_every_label, classes_of
from paper.estimators import active_units, log_p_by_importance_sampling, log_p_by_quadrature, log_weights
from paper.experiments import conditional_digits
from paper.images import Images
from paper.parts import Work
from paper.plan import Plan
from paper.reader import Reader
from paper.train_paper import build, evaluate, train
from paper.vae_paper import VAE
from pytorch_lowlevel import train_lowlevel

ROUNDING = {"rtol": 1e-11, "atol": 1e-11}               # float64, sums of a few hundred numbers of order 1
STANDARD_ERRORS = 5
each_case = pytest.mark.parametrize("case", CONDITIONAL_CASES.values(), ids=CONDITIONAL_CASES)
each_level = pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
CASE = CONDITIONAL_CASES["mlp-bernoulli-labels"]


def drawn(case):
    """params, x (B, D), eps (B, J), y (B,)."""
    return *case.draw(), case.labels()["y"]


def tiny(case=CASE):
    """The model of level 3, and x, eps, y as tensors."""
    params, *batch = drawn(case)
    return ConditionalVAE(case.config, params), *map(torch.from_numpy, batch)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- the model, by plain loops -----------------------------------------------------------------------------------------


def with_label(a, y, classes):
    """Behind each row a 1 in the place of its label, and zeros."""
    return np.array([[*row, *(float(label == c) for c in range(classes))] for row, label in zip(a, y, strict=True)])


def affine(params, name, a):
    return oracles.linear(a, params[f"{name}.weight"], params[f"{name}.bias"])


def encode_by_loops(params, x, config, y):
    h = oracles.tanh(affine(params, "encoder.hidden", with_label(x, y, config.condition)))
    return affine(params, "encoder.mu", h), affine(params, "encoder.logvar", h)


def decode_by_loops(params, z, config, y):
    h = oracles.tanh(affine(params, "decoder.hidden", with_label(z, y, config.condition)))
    if config.likelihood == "bernoulli":
        return affine(params, "decoder.logits", h)
    return oracles.sigmoid(affine(params, "decoder.mean", h)), affine(params, "decoder.logvar", h)


def elbo_terms_by_loops(params, x, eps, config, y):
    mu, logvar = encode_by_loops(params, x, config, y)
    out = decode_by_loops(params, mu + oracles.each(math.exp, logvar / 2) * eps, config, y)
    kl = oracles.kl_divergence(mu, logvar).sum(axis=1)
    if config.likelihood == "bernoulli":
        return oracles.bernoulli_log_likelihood(out, x), kl
    return oracles.gaussian_log_likelihood(x, *out), kl


def check_loops(level, case):
    params, x, eps, y = drawn(case)
    assert len(set(y)) > 2, "the labels do not differ"
    for function, loops, arguments in (("encode", encode_by_loops, (params, x, case.config)),
                                       ("decode", decode_by_loops, (params, eps, case.config)),
                                       ("elbo_terms", elbo_terms_by_loops, (params, x, eps, case.config))):
        got, want = level(function, *arguments, y=y), loops(*arguments, y)
        for i, (mine, theirs) in enumerate(zip(np.atleast_2d(got), np.atleast_2d(want), strict=True)):
            assert_close(f"{function}[{i}]", mine, theirs, **ROUNDING)


@each_level
@each_case
def test_every_level_is_the_plain_loops(level, case):
    check_loops(level, case)


def label_in_front(model, a):
    return torch.cat([model.label.expand(*a.shape[:-1], -1), a], dim=-1)


def decoder_without_label(model, z):
    return VAE.decode(model, torch.cat([z, torch.zeros_like(model.label)], dim=-1))


@pytest.mark.parametrize("name, wrong", [("join_label", label_in_front), ("decode", decoder_without_label)])
def test_the_loops_reject_at_level_3(monkeypatch, name, wrong):
    monkeypatch.setattr(ConditionalVAE, name, wrong)
    with pytest.raises(AssertionError):
        check_loops(LEVELS["paper"], CASE)


@each_case
def test_the_decoders_backward_hands_on_the_gradient_of_z_alone(case):
    """dz (B, J), by central differences; the label's gradient stays behind."""
    params, _, z, y = drawn(case)
    rng = np.random.default_rng(0)
    out, cache = networks_numpy.decode_forward(params, z, case.config, y)
    dout = rng.standard_normal(np.shape(out))
    dz, _ = networks_numpy.decode_backward(dout if case.config.likelihood == "bernoulli" else tuple(dout), cache)

    def upstream():
        return sum((np.asarray(networks_numpy.decode(params, z, case.config, y)) * dout).flat)

    # 1e-9: see central_difference, for a function of order 10
    assert_close("dz (B, J)", dz, central_difference(upstream, z), rtol=0, atol=1e-9)


# ---- without the label's columns: the plain VAE ------------------------------------------------------------------------


def unlabeled(params, config):
    """params whose label columns are zero, and the same without these columns, with its config."""
    zeros, cut = dict(params), dict(params)
    for name, inputs in (("encoder.hidden.weight", config.pixels), ("decoder.hidden.weight", config.latent)):
        zeros[name] = params[name] * (np.arange(params[name].shape[1]) < inputs)
        cut[name] = np.ascontiguousarray(params[name][:, :inputs])
    return zeros, cut, replace(config, condition=0)


@each_level
@each_case
def test_with_label_columns_of_zero_it_is_the_plain_vae(level, case):
    """Loss, terms and gradients; to rounding, since a matrix product with more columns adds in another order."""
    params, x, eps, y = drawn(case)
    zeros, cut, plain = unlabeled(params, case.config)
    loss, terms, grads = level("loss_and_grads", zeros, x, eps, case.config, beta=0.5, free_bits=0.1, y=y)
    want_loss, want_terms, want = level("loss_and_grads", cut, x, eps, plain, beta=0.5, free_bits=0.1)
    assert_close("loss", loss, want_loss, **ROUNDING)
    for name in terms:
        assert_close(name, terms[name], want_terms[name], **ROUNDING)
    for name in want:
        assert_close(name, grads[name][..., :want[name].shape[-1]], want[name], **ROUNDING)


def test_what_it_minimizes_is_then_the_vaes_training_loss():
    (params, x, _, y), config = drawn(CASE), CASE.config
    zeros, cut, plain = unlabeled(params, config)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    told, want = (model.training_loss(x, y, generator(3)) for model in (ConditionalVAE(config, zeros), VAE(plain, cut)))
    assert_close("loss", told[0].detach(), want[0].detach(), **ROUNDING)
    assert set(told[1]) == set(want[1]) == {"elbo", "log_likelihood", "kl"}
    for name, term in told[1].items():
        assert_close(name, term, want[1][name], **ROUNDING)
        assert not term.requires_grad


# ---- once the label is given, a VAE ------------------------------------------------------------------------------------


def test_given_shares_the_weights_and_leaves_the_model_as_it_was():
    model, x, eps, y = tiny()
    model.given(y).loss(x, eps)[0].backward()
    for name, weight in model.named_parameters():
        assert weight.grad.abs().max() > 1e-4, f"{name} learns nothing"
    absent = sorted(set(range(model.config.condition)) - set(y.tolist()))
    grad = model.encoder.hidden.weight.grad[:, model.config.pixels:]
    assert (grad[:, absent] == 0).all() and (grad[:, y].abs().amax(dim=0) > 0).all(), "a label's column learns from its own"
    assert model.label is None
    with pytest.raises(InputError, match="call given"):
        model.encode(x)


def test_one_label_for_all_is_the_same_label_for_each():
    model, x, eps, _ = tiny()
    for label in (0, 4):
        told, each = model.given(label), model.given(torch.full((len(x),), label))
        for name, got, want in zip(("log_likelihood", "kl"), told.elbo_terms(x, eps), each.elbo_terms(x, eps), strict=True):
            assert_close(name, got.detach(), want.detach(), rtol=0, atol=0)
        assert torch.equal(told.sample(eps, generator()), each.sample(eps, generator()))
    assert not torch.equal(model.given(0).decode(eps), model.given(4).decode(eps))


def test_many_draws_of_z_decode_as_they_do_one_by_one():
    model, x, _, y = tiny()
    z = torch.randn(3, len(x), MLP.latent, generator=generator(), dtype=x.dtype)
    whole = model.given(y).log_likelihood(x, z).detach()
    assert_close("(L, B)", whole, torch.stack([model.given(y).log_likelihood(x, each).detach() for each in z]), **ROUNDING)
    grid = at_every_label(model, z[0]).detach()                                           # (B, C, D)
    for label in range(model.config.condition):
        assert_close(f"label {label}", grid[:, label], model.given(label).decode_mean(z[0]).detach(), rtol=0, atol=0)


def test_p_of_all_images_given_a_label_is_one():
    """sum_x p(x|y) = 1 over the 2^7 images, by quadrature over one latent: the label is no pixel, and costs nothing."""
    model, _, _, _ = tiny(replace(CASE, config=replace(CASE.config, latent=1)))
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=7)), dtype=torch.float64)
    for label in range(model.config.condition):
        total = float(torch.exp(log_p_by_quadrature(model.given(label), images)).sum())
        assert abs(total - 1) < 1e-10, (label, total)                    # the rule on [-8, 8] misses 1e-15 of N(0, 1)


def test_importance_sampling_in_blocks_comes_to_log_p_given_the_label():
    """log p(x|y) label by label, in blocks of draws and of two images, against quadrature over one latent."""
    model, x, _, _ = tiny(Case(replace(CASE.config, latent=1), scale=0.5))
    for label in (0, 5):
        told, draws = model.given(label), 40_000
        want = log_p_by_quadrature(told, x)
        eps = torch.randn(draws, len(x), 1, generator=generator(2), dtype=x.dtype)
        share = torch.exp(log_weights(told, x, eps).detach() - want)     # (draws, B), a mean of 1
        error = float(share.std(dim=0).max()) / math.sqrt(draws)         # of the logarithm of that mean
        for rows in (15_000, 100_000):
            got = log_p_by_importance_sampling(told, x, draws, generator(1), rows)
            assert_close(f"log p(x|{label})", got, want, rtol=0, atol=STANDARD_ERRORS * error)
        other = log_p_by_quadrature(model.given(1), x)
        assert (want - other).abs().max() > 2 * STANDARD_ERRORS * error, "the draws cannot tell one label from another"
    assert active_units(model.given(2), x) == 1


# ---- labels that are none ----------------------------------------------------------------------------------------------

BAD_LABELS = {
    "missing": (None, "missing|None"), "too few": (np.arange(4), r"\(4,\)|4 labels for 5"),
    "a column": (np.zeros((5, 1), int), r"shape \(5, 1\)"), "floats": (np.zeros(5), "float64: labels are whole"),
    "yes and no": (np.zeros(5, bool), "bool: labels are whole"), "too large": (np.array([0, 6, 1, 2, 3]), "0 to 6.*0 to 5"),
    "negative": (np.array([0, -1, 1, 2, 3]), "-1 to 3.*0 to 5"),
}


@each_level
@pytest.mark.parametrize("y, complaint", BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_are_none_are_refused_in_one_line(level, y, complaint):
    params, x, eps, _ = drawn(CASE)
    for function, arguments in (("encode", (params, x)), ("decode", (params, eps)), ("loss_and_grads", (params, x, eps))):
        with pytest.raises(InputError, match=complaint) as error:
            level(function, *arguments, CASE.config, y=y)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("level", ["numpy", "lowlevel"])
def test_a_label_that_nobody_asked_for_is_refused(level):
    params, x, eps = Case(MLP).draw()
    for config, arguments in ((MLP, (params, x, eps)), (contract.CONV, contract.CASES["conv-bernoulli"].draw())):
        with pytest.raises(InputError, match="takes no label.*leave y out"):
            LEVELS[level]("loss_and_grads", *arguments, config, y=np.zeros(len(arguments[1]), int))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_any_whole_numbers_are_labels(dtype):
    params, x, eps, y = drawn(CASE)
    for level in LEVELS.values():
        got, want = (level("elbo_terms", params, x, eps, CASE.config, y=labels) for labels in (y.astype(dtype), y))
        assert_close("log_likelihood", got[0], want[0], rtol=0, atol=0)
    check_labels(torch.zeros(3, dtype=torch.uint8), 3, CASE.config)


def test_a_module_without_labels_has_not_attempted_them():
    """The contract's checks on a learner's functions that take no y: plain ones run, conditional ones are skipped."""
    right = LEVELS["numpy"]
    learner = Implementation("learner", (SimpleNamespace(
        encode=lambda params, x, config: right("encode", params, x, config),
        loss_and_grads=lambda params, x, eps, config, beta=1.0, free_bits=0.0:
            right("loss_and_grads", params, x, eps, config, beta=beta, free_bits=free_bits)),))
    for check in (contract.check_encode_agrees_with_the_referee, contract.check_calls_are_pure,
                  contract.check_gradients_agree_with_the_referee):
        check(learner, contract.CASES["mlp-bernoulli"])
        with pytest.raises(NotAttempted, match="with labels y"):
            check(learner, CASE)


# ---- files between the levels ------------------------------------------------------------------------------------------


@each_case
def test_a_model_of_level_3_gives_the_same_numbers_at_levels_1_and_2(tmp_path, case):
    model, x, eps, y = tiny(case)
    model.given(y).save(tmp_path / "params.npz")
    params, config = load_params(tmp_path / "params.npz")
    assert config == case.config
    want = [term.detach() for term in model.given(y).elbo_terms(x, eps)]
    for level in ("numpy", "lowlevel"):
        for name, got, term in zip(("log_likelihood", "kl"), LEVELS[level](
                "elbo_terms", params, x.numpy(), eps.numpy(), config, y=y.numpy()), want, strict=True):
            assert_close(f"{level}: {name}", got, term, **ROUNDING)
    again = ConditionalVAE.load(tmp_path / "params.npz").given(y).elbo_terms(x, eps)
    assert_close("loaded", again[0].detach(), want[0], rtol=0, atol=0)
    with pytest.raises(InputError, match="VAE takes no label: use ConditionalVAE"):
        VAE.load(tmp_path / "params.npz")
    with pytest.raises(InputError, match="condition is 0.*without labels use VAE"):
        ConditionalVAE(MLP)


def test_told_one_label_the_weights_are_those_of_a_plain_vae():
    """sample_numpy.py's way: the label's column becomes part of the bias."""
    params, x, eps, _ = drawn(CASE)
    for label in (0, 5):
        plain, config = sample_numpy.given_label(params, CASE.config, label)
        got = LEVELS["numpy"]("elbo_terms", plain, x, eps, config)
        want = LEVELS["numpy"]("elbo_terms", params, x, eps, CASE.config, y=np.full(len(x), label))
        for name, mine, theirs in zip(("log_likelihood", "kl"), got, want, strict=True):
            assert_close(name, mine, theirs, **ROUNDING)
    assert config == MLP and params["encoder.hidden.weight"].shape == (4, 13), "the caller's weights stay"


@pytest.fixture
def weights(tmp_path):
    config = VAEConfig("mlp", (8, 8), hidden=5, latent=3, condition=10)
    save_params(tmp_path / "params.npz", init_params(config, np.random.default_rng(0)), config)
    return ["--weights", str(tmp_path / "params.npz")]


@pytest.mark.parametrize("what", [[], ["--reconstruct"], ["--interpolate"]], ids=["draws", "reconstruct", "interpolate"])
def test_the_door_draws_the_label_that_it_is_told(weights, what, tmp_path):
    pictures = set()
    for label in ("3", "4"):
        sample_numpy.main([*weights, *what, "--label", label, "--out", str(tmp_path / label)])
        pictures |= {path.read_bytes() for path in (tmp_path / label).glob("*.png")}
    assert len(pictures) == 2, "both labels draw the same"


@pytest.mark.parametrize("label, complaint", [([], "conditional VAE: give --label, 0 to 9"), (["--label", "10"], "0 to 9")])
def test_the_door_wants_a_label(weights, label, complaint, capsys):
    assert run_command(lambda: sample_numpy.main([*weights, *label])) == 2
    assert complaint in capsys.readouterr().err


def test_the_door_refuses_a_label_for_a_plain_vae(tmp_path, capsys):
    save_params(tmp_path / "params.npz", init_params(MLP, np.random.default_rng(0)), MLP)
    assert run_command(lambda: sample_numpy.main(["--weights", str(tmp_path / "params.npz"), "--label", "1"])) == 2
    assert "takes no label" in capsys.readouterr().err


@pytest.mark.parametrize("level", [train_numpy, train_lowlevel])
def test_training_at_levels_1_and_2_names_the_way_to_level_3(level, weights, tmp_path, capsys):
    command = ["--init-from", weights[1], "--epochs", "1", "--out", str(tmp_path / "out")]
    assert run_command(lambda: level.main(command)) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "conditional VAE of 10 classes" in error and "--model conditional-vae" in error
    assert not (tmp_path / "out").exists()


# ---- training ----------------------------------------------------------------------------------------------------------

SMALL = VAEConfig("mlp", (8, 8), hidden=30, latent=2, condition=10)


@pytest.fixture(scope="module")
def digits():
    return Images.of(load_dataset("digits"))


@pytest.fixture(scope="module")
def trained(digits):
    model = build("conditional-vae", SMALL, digits)
    return model, train(model, digits, Plan(epochs=15, lr=0.01))


def test_training_is_told_the_labels(digits, trained):
    """Its bound falls when the test labels are exchanged, and beats that of a VAE trained equally."""
    model, rows = trained
    plain = build("vae", replace(SMALL, condition=0), digits)
    vae = train(plain, digits, Plan(epochs=15, lr=0.01))
    elbo = evaluate(model, digits.x_test, digits.y_test)["elbo"]
    assert elbo == rows[-1]["test"]["elbo"] > vae[-1]["test"]["elbo"] + 0.5
    assert evaluate(model, digits.x_test, (digits.y_test + 1) % 10)["elbo"] < elbo - 3


def test_training_without_labels_is_refused(digits):
    with pytest.raises(InputError, match="y is None"):
        train(build("conditional-vae", SMALL, digits), replace(digits, y_train=None), Plan(epochs=1))


def test_training_in_two_parts_equals_one_run(digits, tmp_path):
    few = Images(digits.x_train[:53], digits.x_test[:11], None, digits.y_train[:53], digits.y_test[:11], dynamic=True)
    plan, checkpoint = Plan(epochs=4, batch_size=20, lr=0.01), tmp_path / "checkpoint.npz"
    whole, parts = build("conditional-vae", SMALL, few), build("conditional-vae", SMALL, few)
    rows = train(whole, few, plan)
    train(parts, few, replace(plan, epochs=2), checkpoint)
    parts = build("conditional-vae", SMALL, few, seed=4)                 # all of it comes from the file
    for one, other in zip(rows, train(parts, few, plan, checkpoint), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    for name, tensor in whole.state_dict().items():
        assert_close(name, parts.state_dict()[name], tensor, rtol=0, atol=0)


def test_the_command_trains_and_draws(tmp_path):
    words = "--model conditional-vae --hidden 9 --epochs 1 --out".split()
    train_paper.main([*words, str(tmp_path)])
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "reconstructions.png", "latent_scatter.png", "condition_grid.png", "label_swap.png"}
    assert ConditionalVAE.load(tmp_path / "params.npz").config == VAEConfig("mlp", (8, 8), hidden=9, latent=2, condition=10)


def test_sets_without_labels_and_convolutions_are_refused(capsys):
    assert run_command(lambda: train_paper.main(["--model", "conditional-vae", "--arch", "conv"])) == 2
    assert "only the mlp takes a label" in capsys.readouterr().err
    x = np.zeros((3, 4), np.uint8)
    for labels, complaint in (((None, None), "no labels"), ((np.arange(3), None), "no labels"),
                              ((np.array([1, 2, 3]), np.arange(3)), "1 to 3.*0 to 2"),
                              ((np.arange(3), np.array([0, 1, 3])), "0 to 3.*0 to 2")):
        with pytest.raises(InputError, match=complaint):
            classes_of(Dataset("tiny", (2, 2), x, None, x, labels[0], None, labels[1]))
    assert classes_of(load_dataset("digits")) == 10


# ---- the experiment ----------------------------------------------------------------------------------------------------


def stripes(shift=0):
    """Three classes of images, one row of pixels lit each; and a model that draws its label's, or another's, surely."""
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.integers(3, size=300))
    x = torch.eye(3).repeat_interleave(4, dim=1)[y] * (torch.from_numpy(rng.random((300, 12))) < 0.9)
    config = VAEConfig("mlp", (3, 4), hidden=3, latent=3, condition=3)
    params = {name: np.zeros_like(array) for name, array in init_params(config, rng).items()}
    params["decoder.hidden.weight"][:, 3:] = 10 * np.roll(np.eye(3), shift, axis=0)
    params["decoder.logits.weight"][:] = 200 * np.eye(3).repeat(4, axis=0)
    params["decoder.logits.bias"][:] = -100
    return ConditionalVAE(config, params), Images(x.float(), x.float(), None, y, y)


def test_obedience_is_the_share_of_draws_read_as_the_label_asked_for():
    for shift, share in ((0, 1.0), (1, 0.0)):
        model, images = stripes(shift)
        reader = Reader(images, hidden=10, epochs=100)
        assert reader.accuracy == 1 and torch.equal(reader.digits(images.x_test), images.y_test)
        found = conditional_digits.draws_by_label(model, images, reader, 7)
        assert found == {"obeyed": [share] * 3, "reconstructed": [share] * 3, "accuracy": 1.0}


def test_reconstructions_are_encoded_with_the_label_of_their_images():
    """Here the decoder is deaf to the label, and the encoder to the image: only the encoder's label reaches the picture."""
    model, images = stripes()
    with torch.no_grad():
        model.encoder.hidden.weight[:, 12:] = 10 * torch.eye(3)
        model.encoder.mu.weight.copy_(5 * torch.eye(3))
        model.encoder.logvar.bias.fill_(-20)                             # a standard deviation of 5e-5: q is sure
        model.decoder.hidden.weight.copy_(torch.cat([2 * torch.eye(3), torch.zeros(3, 3)], dim=1))
    reader = SimpleNamespace(digits=lambda x: x.reshape(-1, 3, 4).sum(dim=2).argmax(dim=1), accuracy=1.0)
    found = conditional_digits.draws_by_label(model, images, reader, 20)
    assert found["reconstructed"] == [1.0] * 3 and max(found["obeyed"]) < 1


def test_the_experiment_measures_both_models_and_draws(tmp_path):
    settings = conditional_digits.PRESETS["quick"] | {"draws": 5, "samples": 10}
    settings["plan"] = settings["plan"] | {"epochs": 2, "evaluate_every": 1}
    settings["network"] = settings["network"] | {"hidden": 20, "classifier": {"hidden": 10, "epochs": 2}}
    parts, results = conditional_digits.parts(settings), {}
    for name, part in parts.items():
        shares = []
        work = Work("cpu", tmp_path / "checkpoint.npz", load_dataset, shares.append, None, tmp_path / f"{name}.npz")
        results[name] = {"result": part.function(work, **part.arguments), "seconds": 1.0}
        (tmp_path / "checkpoint.npz").unlink()
        assert shares == sorted(shares) and shares[-1] <= 1
        found = results[name]["result"]
        assert found["images"] == len(load_dataset("digits").x_test) and len(found["curve"]) == 2
        assert found["nll"] < -found["elbo"] + 0.5                       # log p is above the bound, both from draws
    assert ConditionalVAE.load(tmp_path / "conditional-vae-5.npz").config.condition == 10
    assert VAE.load(tmp_path / "vae-5.npz").config.condition == 0
    told = conditional_digits.rows({"settings": settings, "parts": results})
    assert len(told) == 4 and all(len(row) == 3 and "nan" not in row[2] for row in told)
    conditional_digits.draw(tmp_path / "picture.png", {"settings": settings, "parts": results})
    assert (tmp_path / "picture.png").stat().st_size > 20_000
