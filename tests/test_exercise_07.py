"""Exercise 07: every named mistake in a module of one's own is answered with a sentence of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_impl_option import RIGHT, RIGHT_IN_TORCH

from common.config import InputError
from exercises import build
from exercises.checks.verdict import NOT_ATTEMPTED, SOLVED, TASKS, WRONG
from exercises.checks.your_own import module

ROOT = Path(__file__).resolve().parent.parent
SOLUTION = (build.HERE / "solutions" / "my_vae.py").read_text("utf-8")
NAMES = [each.name for each in TASKS.values() if each.number[:2] == "07"]


def judged(tmp_path, text, name):
    """The verdict on a module with this text, told without the place where it stopped."""
    path = tmp_path / "my_vae.py"
    path.write_text(text, "utf-8")
    verdict = TASKS[name].judge(path)
    return verdict.state, verdict.message.split(" (line ")[0]


def edited(old, new):
    """The solution with something else in one place."""
    assert SOLUTION.count(old) == 1, f"{old!r} stands {SOLUTION.count(old)} times in the solution"
    return SOLUTION.replace(old, new)


def redefined(name, *lines):
    """The solution with another body of one function, whose signature stays."""
    head = re.search(rf"^def {name}\(.*\):\n", SOLUTION, re.MULTILINE).group()
    return SOLUTION + "\n\n" + head + "".join(f"    {line}\n" for line in lines)


KL = "return 0.5 * (mu * mu + (np.expm1(logvar) - logvar))"
BERNOULLI = "return (x * logits - softplus).sum(axis=1)"
GAUSSIAN = "return -0.5 * (LOG_2_PI + logvar + (x - mean) ** 2 * np.exp(-logvar)).sum(axis=1)"
DRAW = "return mu + np.exp(0.5 * logvar) * eps"
HEADS = 'return dense(params, "encoder.mu", h), dense(params, "encoder.logvar", h)'
LOGITS = 'return dense(params, "decoder.logits", h)'
FIXED = "return mean, np.full_like(mean, config.fixed_logvar)"
TERMS = "return log_likelihood, kl_divergence(mu, logvar).sum(axis=1)"
LOSS = "loss = -log_likelihood + beta * np.maximum(kl_j, free_bits).sum()"
RETURN = 'return loss, {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}, grads'
STORE = 'grads[f"{name}.weight"], grads[f"{name}.bias"] = dout.T @ a, dout.sum(axis=0)'
DLOGVAR = "dlogvar = dz * eps * 0.5 * np.exp(0.5 * logvar) + dkl * 0.5 * np.expm1(logvar)"
DKL = "dkl = np.where(kl_j > free_bits, kl_j.dtype.type(beta / B), 0)"
ADDED = 'dh_x = backward("encoder.mu", dmu, h_x) + backward("encoder.logvar", dlogvar, h_x)'
HIDDEN = 'backward("encoder.hidden", dh_x * (1 - h_x * h_x), x)'
NEGATIVE = "if beta < 0 or free_bits < 0:"
ADAGRAD = "state[name] = state.get(name, 0) + grads[name] ** 2"
ADAGRAD_STEP = "p -= lr * grads[name] / (np.sqrt(state[name]) + 1e-10)"
ADAM_STEP = "p -= lr * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)"
ADAM_MEANS = "m, v = 0.9 * m + 0.1 * grads[name], 0.999 * v + 0.001 * grads[name] ** 2"

# by function: what stands in the solution, what stands there instead, and words of the sentence that tells it
EDITS = {
    "kl_divergence": [
        (KL, "return -0.5 * (mu * mu + (np.expm1(logvar) - logvar))", "wrong sign"),
        (KL, KL + ".sum(axis=1)", "You sum over the latents"),
        (KL, KL + ".mean(axis=1)", "You average over the latents"),
        (KL, KL + " / mu.shape[1]", "You average over the latents"),
        (KL, KL + ".sum()", "one number for all"),
        (KL, "return mu * mu + np.expm1(logvar) - logvar", "1/2 is missing"),
        (KL, "return 0.25 * (mu * mu + np.expm1(logvar) - logvar)", "applied twice"),
        (KL, "return 0.5 * (mu**2 + logvar**2 - 1 - np.log(logvar**2))", "logvar for sigma"),
        (KL, "return 0.5 * (mu**2 + np.exp(2 * logvar) - 1 - logvar)", "it is sigma^2 already"),
        (KL, "return 0.5 * (mu**2 + np.exp(0.5 * logvar) - 1 - logvar)", "which is sigma"),
        (KL, "return 0.5 * (np.expm1(logvar) - logvar)", "mu^2 is missing"),
        (KL, "return 0.5 * (mu**2 + np.exp(logvar) - logvar)", "-1 is missing"),
        (KL, "return 0.5 * (mu * mu + np.exp(logvar) - 1 - logvar)", "use expm1"),
        (KL, "logvar = np.clip(logvar, -20, 20); " + KL, "use expm1"),
    ],
    "bernoulli_log_likelihood": [
        (BERNOULLI, "return (x * logits - softplus).mean(axis=1)", "average over the pixels"),
        (BERNOULLI, "return (x * logits - softplus).sum(axis=0)", "sum over the images"),
        (BERNOULLI, "return (x * logits - softplus).sum()", "for each image"),
        (BERNOULLI, "return x * logits - softplus", "each pixel"),
        (BERNOULLI, "return (softplus - x * logits).sum(axis=1)", "That is the negative"),
        (BERNOULLI, "return (x * logits).sum(axis=1)", "log(1 + exp(l)) is missing"),
        (BERNOULLI, "return ((1 - x) * logits - softplus).sum(axis=1)", "swapped"),
        (BERNOULLI, "return (x * np.log(sigmoid(logits))).sum(axis=1)", "white pixels count"),
        (BERNOULLI, "return ((1 - x) * np.log(sigmoid(-logits))).sum(axis=1)", "black pixels count"),
        (BERNOULLI, "return -((x - sigmoid(logits)) ** 2).sum(axis=1)", "squared error"),
    ],
    "gaussian_log_likelihood": [
        ("LOG_2_PI + logvar + ", "logvar + ", "constant is missing"),
        (GAUSSIAN, "return -0.5 * (LOG_2_PI + " "(logvar + (x - mean) ** 2 * np.exp(-logvar)).sum(axis=1))",
         "once for each image"),
        ("(x - mean) ** 2 * np.exp(-logvar)", "(x - mean) ** 2 * np.exp(-2 * logvar)", "it is sigma^2 already"),
        ("(x - mean) ** 2 * np.exp(-logvar)", "(x - mean) ** 2 * np.exp(-0.5 * logvar)", "divide by sigma"),
        ("(x - mean) ** 2 * np.exp(-logvar)", "(x - mean) ** 2 * np.exp(logvar)", "multiply by the variance"),
        ("(x - mean) ** 2 * np.exp(-logvar)", "(x - mean) ** 2 / logvar", "divide by logvar"),
        ("+ logvar + (x", "+ (x", "term logvar is missing"),
        ("+ logvar + (x", "- logvar + (x", "wrong sign"),
        (GAUSSIAN, "return -((x - mean) ** 2).sum(axis=1)", "That is the squared error"),
        (GAUSSIAN, GAUSSIAN.replace(".sum", ".mean"), "average over the pixels"),
        (GAUSSIAN, GAUSSIAN.replace("-0.5", "0.5"), "negative"),
        (GAUSSIAN, GAUSSIAN.replace("-0.5 *", "-"), "1/2 is missing"),
        ("def gaussian_log_likelihood(x, mean, logvar)", "def gaussian_log_likelihood(mean, logvar, x)", "another order"),
        (GAUSSIAN, "logvar = np.clip(logvar, -20, 20); " + GAUSSIAN, "clamp nothing"),
    ],
    "reparameterize": [
        (DRAW, "return mu + np.exp(logvar) * eps", "by the variance"),
        (DRAW, "return mu + logvar * eps", "by logvar"),
        (DRAW, "return mu + np.exp(2 * logvar) * eps", "exp(2 logvar)"),
        (DRAW, "return mu + eps", "not scaled"),
        (DRAW, "return mu + 0 * eps", "leave the noise out"),
        (DRAW, "return np.exp(0.5 * logvar) * eps", "mu is missing"),
        (DRAW, "return mu + 0.5 * np.exp(0.5 * logvar) * eps", "off by up to"),
        (DRAW, "return mu + np.exp(0.5 * np.clip(logvar, -6, 6)) * eps", "nothing is to be clamped"),
        (DRAW, "return mu + np.exp(0.5 * logvar) * np.random.default_rng(3).standard_normal(mu.shape)", "off by up to"),
        (DRAW, "eps *= np.exp(0.5 * logvar); return mu + eps", "writes into its argument"),
    ],
    "encode": [
        (HEADS, 'return dense(params, "encoder.logvar", h), dense(params, "encoder.mu", h)', "other way round"),
        (HEADS, 'return dense(params, "encoder.mu", h), np.exp(dense(params, "encoder.logvar", h))', "the variance"),
        (HEADS, 'return dense(params, "encoder.mu", h), np.exp(dense(params, "encoder.logvar", h) / 2)', "return sigma"),
        (HEADS, 'return np.maximum(dense(params, "encoder.mu", h), 0), dense(params, "encoder.logvar", h)',
         "A ReLU sits on mu"),
        (HEADS, 'return dense(params, "encoder.mu", h), np.maximum(dense(params, "encoder.logvar", h), 0)',
         "A ReLU sits on logvar"),
        (HEADS, 'return np.tanh(dense(params, "encoder.mu", h)), dense(params, "encoder.logvar", h)', "A tanh"),
        (HEADS, 'return dense(params, "encoder.mu", h), np.logaddexp(0, dense(params, "encoder.logvar", h))', "A softplus"),
        ('h = np.tanh(dense(params, "encoder.hidden", x))      ', 'h = dense(params, "encoder.hidden", x)', "no tanh"),
        ('h = np.tanh(dense(params, "encoder.hidden", x))      ', 'h = np.maximum(dense(params, "encoder.hidden", x), 0)',
         "ends in a ReLU"),
        (HEADS, 'return dense(params, "encoder.mu", h)', "two values"),
    ],
    "decode": [
        (LOGITS, 'return sigmoid(dense(params, "decoder.logits", h))', "return the logits"),
        (LOGITS, 'return np.tanh(dense(params, "decoder.logits", h))', "without a tanh"),
        ('h = np.tanh(dense(params, "decoder.hidden", z))      ', 'h = dense(params, "decoder.hidden", z)', "no tanh"),
        ('mean = sigmoid(dense(params, "decoder.mean", h))', 'mean = dense(params, "decoder.mean", h)',
         "ends in a sigmoid"),
        ('return mean, dense(params, "decoder.logvar", h)', 'return mean, np.exp(dense(params, "decoder.logvar", h))',
         "return logvar"),
        ('return mean, dense(params, "decoder.logvar", h)', 'return dense(params, "decoder.logvar", h), mean',
         "other way round"),
        ("if config.fixed_logvar is not None:", "if False:", "where fixed_logvar is None"),
        (FIXED, "return mean, config.fixed_logvar", "for every pixel"),
        (FIXED, "return mean, np.full_like(mean, np.exp(config.fixed_logvar))", "logarithm of the variance already"),
    ],
    "elbo_terms": [
        ("out = decode(params, reparameterize(mu, logvar, eps), config)", "out = decode(params, mu, config)",
         "without noise"),
        ("out = decode(params, reparameterize(mu, logvar, eps), config)",
         "out = decode(params, mu + np.exp(logvar) * eps, config)", "by the variance"),
        ("out = decode(params, reparameterize(mu, logvar, eps), config)", "out = decode(params, eps, config)",
         "noise alone"),
        (TERMS, "return log_likelihood, kl_divergence(mu, logvar)", "each latent"),
        (TERMS, TERMS.replace("sum", "mean"), "average the KL over the latents"),
        (TERMS, TERMS.replace("axis=1", "axis=0"), "sum the KL over the images"),
        (TERMS, "return log_likelihood, -kl_divergence(mu, logvar).sum(axis=1)", "wrong sign"),
        (TERMS, "return kl_divergence(mu, logvar).sum(axis=1), log_likelihood", "other way round"),
        (TERMS, "return log_likelihood.mean(), kl_divergence(mu, logvar).sum(axis=1).mean()", "the mean over the images"),
        (TERMS, "return log_likelihood / x.shape[1], kl_divergence(mu, logvar).sum(axis=1)", "over the pixels"),
        (TERMS, "return log_likelihood - kl_divergence(mu, logvar).sum(axis=1)", "two values"),
    ],
    "loss_and_grads": [
        (LOSS, "loss = log_likelihood - beta * np.maximum(kl_j, free_bits).sum()", "You return the bound"),
        (LOSS, LOSS + "; loss = loss * B", "sum over the images"),
        (LOSS, LOSS.replace("beta * ", ""), "takes beta and never uses it"),
        (LOSS, "loss = -beta * log_likelihood + np.maximum(kl_j, free_bits).sum()", "before the likelihood"),
        (LOSS, "loss = -log_likelihood + beta * kl_j.sum()", "takes free_bits and never"),
        (LOSS, "loss = -log_likelihood + beta * np.maximum(kl_divergence(mu, logvar), free_bits)" ".sum(axis=1).mean()",
         "the maximum of each image"),
        (LOSS, "loss = -log_likelihood + beta * np.maximum(kl, free_bits)", "one maximum of the sum"),
        (LOSS, "loss = -log_likelihood + beta * np.maximum(kl_j - free_bits, 0).sum()", "subtract them"),
        (LOSS, LOSS.replace(".sum()", ".mean()"), "averaged over the latents"),
        (LOSS, LOSS.replace("-log_likelihood", "-log_likelihood / x.shape[1]"), "beta = D"),
        (LOSS, LOSS.replace("+ beta", "- beta"), "The KL is subtracted"),
        (LOSS, "loss = -log_likelihood", "The KL is missing"),
        (RETURN, RETURN.replace("log_likelihood - kl,", "-loss,"), "contains beta"),
        (RETURN, RETURN.replace('"kl": kl', '"kl": beta * kl'), "contains beta"),
        (RETURN, RETURN.replace('"kl": kl', '"KL": kl'), "lacks"),
        (RETURN, "return loss, grads", "three values"),
        (RETURN, RETURN.replace(", grads", ', {"decoder.hidden.weight": 0}'), "lacks"),
        (RETURN, RETURN.replace(", grads", ", {name: -g for name, g in grads.items()}"), "uphill"),
        (RETURN, RETURN.replace(", grads", ", {name: B * g for name, g in grads.items()}"), "summed over the batch"),
        (RETURN, RETURN.replace(", grads", ", {name: g / B for name, g in grads.items()}"), "B twice"),
        (STORE, STORE.replace("dout.sum(axis=0)", "dout.mean(axis=0)"), "bias gradient is averaged"),
        (STORE, STORE.replace("dout.T @ a", "a.T @ dout"), "is transposed"),
        ('(y - x) / B, h_z)', '(y - x) * y * (1 - y) / B, h_z)', "derivative of the sigmoid has crept in"),
        ("y = sigmoid(decode(params, z, config))", "y = decode(params, z, config)", "sigmoid is missing"),
        ('(y - x) / B, h_z)', '(y - x) / B / x.shape[1], h_z)', "averaged over the pixels"),
        ("* precision * mean * (1 - mean) / B", "* precision / B", "mean is a sigmoid"),
        ("(mean - x) * precision * mean", "(mean - x) * mean", "variance is missing"),
        ("0.5 * (1 - (x - mean) ** 2 * precision) / B", "(1 - (x - mean) ** 2 * precision) / B", "decoder's logvar"),
        ("0.5 * (1 - (x - mean) ** 2 * precision) / B", "-0.5 * (x - mean) ** 2 * precision / B", "decoder's logvar"),
        ("dh_z = dh_z + backward(", "dh_z = backward(", "look at dh and at 1 - h^2"),
        ("dh_z * (1 - h_z * h_z)", "dh_z", "look at dh and at 1 - h^2"),
        ("dmu = dz + dkl * mu", "dmu = dz", "The way through the KL is missing"),
        (DKL, DKL.replace("beta / B", "1 / B"), "beta is missing"),
        (DKL, "dkl = np.full_like(kl_j, beta / B)", "at or below free_bits"),
        (DKL, "dkl = np.where(kl_divergence(mu, logvar) > free_bits, kl_j.dtype.type(beta / B), 0)", "image by image"),
        (DKL, DKL.replace("beta / B", "beta"), "not divided by B"),
        (DKL, DKL.replace("beta / B", "-beta / B"), "wrong sign"),
        ("dmu = dz + dkl * mu", "dmu = dz + 2 * dkl * mu", "KL by mu is mu"),
        ("+ dkl * 0.5 * np.expm1(logvar)", "+ dkl * np.expm1(logvar)", "the 1/2 is missing"),
        ("+ dkl * 0.5 * np.expm1(logvar)", "+ dkl * 0.5 * np.exp(logvar)", "the -1 is missing"),
        ("dz * eps * 0.5 * np.exp(0.5 * logvar)", "dz * eps * np.exp(0.5 * logvar)", "the 1/2 is missing"),
        ("dz * eps * 0.5 * np.exp(0.5 * logvar)", "dz * 0.5 * np.exp(0.5 * logvar)", "eps is missing"),
        ("dz * eps * 0.5 * np.exp(0.5 * logvar)", "dz * eps * 0.5", "sigma is missing"),
        ("dz * eps * 0.5 * np.exp(0.5 * logvar)", "dz * eps * 0.5 * np.exp(logvar)", "variance for sigma"),
        (ADDED, ADDED.replace("= backward", "= 0 * backward"), "One overwrites the other"),
        (ADDED, ADDED.replace("+ backward", "+ 0 * backward"), "One overwrites the other"),
        (HIDDEN, HIDDEN.replace("dh_x * (1 - h_x * h_x)", "dh_x"), "tanh of the encoder is missing"),
        (HIDDEN, HIDDEN.replace("h_x * h_x", "np.arctanh(h_x) ** 2"), "you take its input"),
        (NEGATIVE, "if False:", "raise a ValueError"),
        (DKL, "dkl = (kl_j > free_bits) * beta / B", "float32 in, float32 out"),
    ],
    "adagrad_step": [
        (ADAGRAD, "state[name] = grads[name] ** 2", "forgets"),
        (ADAGRAD_STEP, "p -= lr * grads[name] / (state[name] + 1e-10)", "root is missing"),
        (ADAGRAD_STEP, "p -= lr * grads[name] / np.sqrt(state[name] + 1e-10)", "under the root"),
        (ADAGRAD_STEP, ADAGRAD_STEP.replace("1e-10", "1e-8"), "not 1e-10"),
        (ADAGRAD_STEP, ADAGRAD_STEP.replace("p -=", "p +="), "uphill"),
        (ADAGRAD_STEP, ADAGRAD_STEP.replace("lr * ", ""), "lr is missing"),
    ],
    "adam_step": [
        (ADAM_STEP, "p -= lr * m / (np.sqrt(v) + 1e-8)", "correction for the start"),
        (ADAM_STEP, "p -= lr * m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t) + 1e-8)", "under the root"),
        (ADAM_MEANS, ADAM_MEANS.replace("grads[name] ** 2", "abs(grads[name])"), "square is missing"),
        ('t = state["t"] = state.get("t", 0) + 1', "t = 1", "stays at 1"),
        ('t = state["t"] = state.get("t", 0) + 1', 't = state["t"] = state.get("t", 1) + 1', "one too large"),
        ("m, v = state.get(name, (0, 0))", 'm, v = state.get(name, (0, 0)); t = state["t"] = state["t"] + 1',
         "off by up to"),
        (ADAM_STEP, ADAM_STEP.replace("p -=", "p +="), "uphill"),
        (ADAM_STEP, ADAM_STEP.replace("lr * ", ""), "lr is missing"),
        (ADAM_STEP, "p -= lr * grads[name]", "plain gradient descent"),
    ],
}
LOG_Y = "return (x * np.log(y) + (1 - x) * np.log(1 - y)).sum(axis=1)"
KEPT = "state[name] = state.get(name, 0) + grads", "KEPT[name] = KEPT.get(name, 0) + grads"
OTHERS = [
    ("bernoulli_log_likelihood", redefined("bernoulli_log_likelihood", "y = sigmoid(sigmoid(logits))", LOG_Y),
     "sigmoid twice"),
    ("bernoulli_log_likelihood",
     redefined("bernoulli_log_likelihood", "with np.errstate(all='ignore'):", "    y = sigmoid(logits)", f"    {LOG_Y}"),
     "infinite at logit 40"),
    ("bernoulli_log_likelihood",
     redefined("bernoulli_log_likelihood", "y = np.clip(sigmoid(logits), 1e-7, 1 - 1e-7)", LOG_Y), "clamping"),
    ("decode", redefined("decode", 'return dense(params, "decoder.logits", np.tanh(dense(params, "decoder.hidden", z)))'),
     "where fixed_logvar is None"),
    ("loss_and_grads", edited("dmu = dz + dkl * mu", "dmu = dz").replace(DLOGVAR, DLOGVAR.split(" + ")[0]),
     "The way through the KL is missing"),
    ("loss_and_grads",
     edited("dmu = dz + dkl * mu", "dmu = dkl * mu").replace(DLOGVAR, "dlogvar = dkl * 0.5 * np.expm1(logvar)"),
     "The way through z is missing"),
    ("sgd_step", redefined("sgd_step", "for name in params:", "    params[name] = params[name] + lr * grads[name]"),
     "uphill"),
    ("sgd_step", redefined("sgd_step", "for name in params:", "    params[name] = params[name] - grads[name]"),
     "lr is missing"),
    ("sgd_step", redefined("sgd_step", "return {name: p - lr * grads[name] for name, p in params.items()}"),
     "as they were"),
    ("sgd_step", redefined("sgd_step", "for name, p in params.items():", "    grads[name] *= lr", "    p -= grads[name]"),
     "changes the gradient"),
    ("sgd_step",
     redefined("sgd_step", "for name, p in params.items():", "    params[name] = p - np.array([lr]) * grads[name]"),
     "float32 weights"),
    ("sgd_step", redefined("sgd_step", "for name, p in params.items():",
                           "    state[name] = 0.9 * state.get(name, 0) + grads[name]", "    p -= lr * state[name]"),
                           "momentum"),
    ("adagrad_step", edited(*KEPT).replace("np.sqrt(state[name])", "np.sqrt(KEPT[name])") + "\n\nKEPT = {}\n",
     "fresh state"),
]
MISTAKES = [(name, edited(old, new), words) for name, edits in EDITS.items() for old, new, words in edits] + OTHERS


@pytest.mark.parametrize(("name", "text", "words"), MISTAKES, ids=[f"{name}: {words}" for name, _, words in MISTAKES])
def test_a_mistake_is_named(tmp_path, name, text, words):
    state, message = judged(tmp_path, text, name)
    assert state == WRONG and words in message, (state, message)


@pytest.mark.parametrize("source", [RIGHT, RIGHT_IN_TORCH], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_other_right_modules_are_right(tmp_path, name, source):
    assert judged(tmp_path, source, name) == (SOLVED, "")


@pytest.mark.parametrize("name", NAMES)
def test_a_function_that_is_gone_is_not_attempted(tmp_path, name):
    assert judged(tmp_path, SOLUTION.replace(f"def {name}(", "def another_name("), name)[0] == NOT_ATTEMPTED


def test_a_module_is_read_anew_at_every_call(tmp_path):
    """Edited within the same second to text of the same length, which a cache of compiled files would not notice."""
    assert judged(tmp_path, SOLUTION, "reparameterize")[0] == SOLVED
    assert judged(tmp_path, edited(DRAW, DRAW.replace("0.5", "2.5")), "reparameterize")[0] == WRONG
    assert judged(tmp_path, SOLUTION, "reparameterize")[0] == SOLVED


@pytest.mark.parametrize(("text", "words"), [
    ("def encode(:", "does not import (SyntaxError"), ("import no_such_module", "does not import (ModuleNotFoundError"),
])
def test_a_module_that_does_not_import_is_told_so(tmp_path, text, words):
    assert judged(tmp_path, text, "encode")[0] == WRONG and words in judged(tmp_path, text, "encode")[1]


def test_a_module_that_is_not_there_is_named(tmp_path):
    assert "there is no file" in TASKS["encode"].judge(tmp_path / "none.py").message
    with pytest.raises(InputError, match="there is no file"):
        module(tmp_path / "none.py")


def test_a_learners_error_is_told_with_its_line(tmp_path):
    path = tmp_path / "my_vae.py"
    path.write_text(edited(DRAW, "return mu + missing * eps"), "utf-8")
    assert "NameError" in (told := TASKS["reparameterize"].judge(path).message) and "return mu + missing * eps" in told


def run_suite(path):
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-k", "not conv",
                           f"--impl={path}", "tests/test_contract.py"],
                          cwd=ROOT, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_the_solution_passes_the_suite():
    """All that is asked for: the mlp without labels. The rest, and what draws any architecture, is not attempted."""
    done = run_suite(build.HERE / "solutions" / "my_vae.py")
    assert done.returncode == 0 and "failed" not in done.stdout, done.stdout
    labels = {f"{name} with labels y" for name in ("encode", "decode", "elbo_terms", "loss_and_grads")}
    assert set(re.findall(r"not attempted: (.*)", done.stdout)) == {"arch conv"} | labels


@pytest.mark.slow
def test_the_suite_says_of_the_blank_module_that_nothing_was_attempted(tmp_path):
    (tmp_path / "my_vae.py").write_text(build.blanked(SOLUTION), "utf-8")
    done = run_suite(tmp_path / "my_vae.py")
    assert done.returncode == 1 and "nothing was attempted" in done.stdout and "passed" not in done.stdout
    for name in NAMES[:8]:                          # the steps want gradients, and those are not attempted either
        assert name in done.stdout, f"{name} is not named"
