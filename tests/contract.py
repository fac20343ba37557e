"""The contract between the levels, one check a promise. Each check takes an implementation and a case, and raises
AssertionError naming the tensor and its largest difference, or NotAttempted where the implementation lacks a function.

test_contract.py runs them on every level (and on your module: `pytest --impl PATH`); test_wrong_answers.py shows that
each named wrong answer fails some.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from implementations import Implementation, referee
from oracles import assert_close

from common.config import VAEConfig, init_params

# float64 against float64: sums of a few thousand products of order 1 differ by some 1e-15 in another order of addition,
# and a wrong factor or sign is off by far more than 1e-9.
EXACT = {"rtol": 1e-9, "atol": 1e-12}
# Central differences: the error is h^2 times a third derivative plus 1e-16 * loss / h, which is below 1e-7 at one of the
# steps; see slope_along.
DIFFERENCES = {"rtol": 1e-6, "atol": 1e-7}
STEP_SIZES = (1e-5, 1e-6, 1e-7)


@dataclass(frozen=True)
class Case:
    """A small odd model with weights, images and noise of its own: all sizes differ, so that a swap cannot hide."""

    config: VAEConfig
    batch: int = 5
    seed: int = 0
    scale: float = 1.0          # of the weights; see `saturated`

    def draw(self, dtype=np.float64):
        """params, x (B, D), eps (B, J). Biases are drawn too: at zero biases a black pixel sits on ReLU's kink."""
        rng = np.random.default_rng(self.seed)
        params = {name: ((array + 0.1 * rng.standard_normal(array.shape)) * self.scale).astype(dtype)
                  for name, array in init_params(self.config, rng).items()}
        x = rng.random((self.batch, self.config.pixels))
        if self.config.likelihood == "bernoulli":
            x = x < 0.5
        eps = rng.standard_normal((self.batch, self.config.latent))
        return params, x.astype(dtype), eps.astype(dtype)

    def labels(self):
        """What a conditional model is told besides: {"y": y (B,)}; other models nothing, {}."""
        if not self.config.condition:
            return {}
        return {"y": np.random.default_rng((self.seed, 1)).integers(self.config.condition, size=self.batch)}

    def saturated(self):
        """The same with weights so large that units saturate and log-variances run far from 0."""
        return replace(self, scale=8.0 if self.config.arch == "mlp" else 2.0)


MLP = VAEConfig("mlp", (1, 7), hidden=4, latent=3)
CONV = VAEConfig("conv", (8, 12), latent=3)
CASES = {
    f"{config.arch}-{kind}": Case(replace(config, **settings), batch)
    for config, batch in ((MLP, 5), (CONV, 2))
    for kind, settings in (("bernoulli", {}), ("gaussian", {"likelihood": "gaussian"}),
                           ("fixed-variance", {"likelihood": "gaussian", "fixed_logvar": -1.5}))
}
# with labels; a learner's module whose functions take no y has not attempted these
CONDITIONAL_CASES = {f"mlp-{likelihood}-labels": Case(replace(MLP, likelihood=likelihood, condition=6))
                     for likelihood in ("bernoulli", "gaussian")}


def slope_along(loss, params, name, direction, wanted, tolerance):
    """The central difference of loss(params) along a direction of one parameter, with the step that comes closest.

    Where a ReLU flips within a step of the point, the difference straddles a kink and is wrong; a shorter step does
    not reach that far. A wrong gradient is wrong at every step. Stops at the first step within `tolerance`.
    """
    slopes = []
    for h in STEP_SIZES:
        ahead, behind = (float(loss(params | {name: params[name] + step * direction})) for step in (h, -h))
        slopes.append((ahead - behind) / (2 * h))
        if abs(slopes[-1] - wanted) <= tolerance:
            break
    return min(slopes, key=lambda slope: abs(slope - wanted))


# ---- the parts -----------------------------------------------------------------------------------------------------


def check_encode_agrees_with_the_referee(impl: Implementation, case: Case):
    params, x, _ = case.draw()
    got, want = (level("encode", params, x, case.config, **case.labels()) for level in (impl, referee(impl)))
    for name, mine, theirs in zip(("mu (B, J)", "logvar (B, J)"), got, want, strict=True):
        assert_close(name, mine, theirs, **EXACT)


def check_decode_agrees_with_the_referee(impl: Implementation, case: Case):
    params, _, z = case.draw()
    got, want = (level("decode", params, z, case.config, **case.labels()) for level in (impl, referee(impl)))
    if case.config.likelihood == "bernoulli":
        assert_close("logits (B, D)", got, want, **EXACT)
    else:
        for name, mine, theirs in zip(("mean (B, D)", "logvar (B, D)"), got, want, strict=True):
            assert_close(name, mine, theirs, **EXACT)


def check_reparameterize_draws_from_the_posterior(impl: Implementation, case: Case):
    rng = np.random.default_rng(case.seed)
    mu, logvar, eps = rng.standard_normal((3, 5, 4))
    assert_close("z", impl("reparameterize", mu, logvar, eps), mu + np.sqrt(np.exp(logvar)) * eps, **EXACT)
    assert_close("z without noise", impl("reparameterize", mu, logvar, 0 * eps), mu, rtol=0, atol=0)
    extreme = np.full((1, 2), 50.0) * [[-1, 1]]
    assert_close("z at logvar -50, 50", impl("reparameterize", 0 * extreme, extreme, 0 * extreme + 1),
                 np.exp([[-25.0, 25.0]]), **EXACT)
    n = 200_000
    z = impl("reparameterize", np.full((n, 1), 2.0), np.full((n, 1), math.log(9.0)), rng.standard_normal((n, 1)))
    # standard errors 3 / sqrt(n) = 0.0067 of the mean and 9 * sqrt(2 / n) = 0.028 of the variance; five of each
    assert abs(z.mean() - 2) < 0.034, f"draws from N(2, 9) have mean {z.mean()}"
    assert abs(z.var() - 9) < 0.14, f"draws from N(2, 9) have variance {z.var()}"


def check_bernoulli_log_likelihood(impl: Implementation, case: Case):
    rng = np.random.default_rng(case.seed)
    logits, x = 3 * rng.standard_normal((5, 7)), (rng.random((5, 7)) < 0.5).astype(float)
    want = torch.distributions.Bernoulli(logits=torch.tensor(logits)).log_prob(torch.tensor(x)).sum(1).numpy()
    assert_close("log-likelihood (B,), summed over pixels", impl("bernoulli_log_likelihood", logits, x), want, **EXACT)
    for dtype in (np.float32, np.float64):
        logits, x = np.array([[1e4, -1e4, 40, -40]], dtype), np.array([[1, 0, 0, 1]], dtype)
        # pixels that are right cost nothing, wrong ones their logit; 40 is exact to a unit in the last place
        assert_close("log-likelihood at logits +-1e4, +-40", impl("bernoulli_log_likelihood", logits, x),
                     np.array([-80], dtype), rtol=1e-6, atol=0)


def check_gaussian_log_likelihood(impl: Implementation, case: Case):
    rng = np.random.default_rng(case.seed)
    (mean, logvar), x = rng.standard_normal((2, 5, 7)), rng.random((5, 7))
    normal = torch.distributions.Normal(torch.tensor(mean), torch.tensor(np.exp(0.5 * logvar)))
    assert_close("log-likelihood (B,), summed over pixels", impl("gaussian_log_likelihood", x, mean, logvar),
                 normal.log_prob(torch.tensor(x)).sum(1).numpy(), **EXACT)
    for dtype in (np.float32, np.float64):
        zero, logvar = np.zeros((1, 2), dtype), np.array([[-50, 40]], dtype)
        assert_close("log-likelihood at logvar -50, 40", impl("gaussian_log_likelihood", zero, zero, logvar),
                     np.array([5 - math.log(2 * math.pi)], dtype), rtol=1e-6, atol=0)


def check_kl_divergence(impl: Implementation, case: Case):
    mu, logvar = np.random.default_rng(case.seed).standard_normal((2, 5, 7))
    D = torch.distributions
    q, prior = D.Normal(torch.tensor(mu), torch.tensor(np.exp(0.5 * logvar))), D.Normal(torch.zeros(5, 7).double(), 1.0)
    assert_close("KL per latent (B, J)", impl("kl_divergence", mu, logvar), D.kl_divergence(q, prior).numpy(), **EXACT)
    for dtype in (np.float32, np.float64):
        logvar = np.array([[-50, 50]], dtype)
        want = np.array([[0.5 * 49, 0.5 * (math.exp(50) - 51)]], dtype)
        assert_close("KL at logvar -50, 50", impl("kl_divergence", 0 * logvar, logvar), want, rtol=1e-5, atol=0)
    small = np.float32(2) ** np.linspace(-40, 3, 4001, dtype=np.float32)[:, None]
    lowest = min(impl("kl_divergence", 0 * small, logvar).min() for logvar in (small, -small))
    assert lowest >= 0, f"the KL falls to {lowest} in float32: no divergence is negative"
    assert impl("kl_divergence", np.zeros((1, 1)), np.zeros((1, 1))) == 0, "the KL of the prior to itself is not zero"


# ---- the whole model -----------------------------------------------------------------------------------------------


def check_elbo_terms_agree_with_the_referee(impl: Implementation, case: Case):
    arguments, labels = (*case.draw(), case.config), case.labels()
    for name, got, want in zip(("log_likelihood", "kl"), impl("elbo_terms", *arguments, **labels),
                               referee(impl)("elbo_terms", *arguments, **labels), strict=True):
        assert_close(f"{name} (B,)", got, want, **EXACT)


def check_the_bound_is_below_log_p(impl: Implementation, case: Case):
    """log p(x) of a 1-latent model by quadrature on a fine grid: the mean ELBO over noise draws must lie below it."""
    config = replace(case.config, latent=1)
    case = replace(case, config=config, batch=1)
    params, x, _ = case.draw()
    z = np.linspace(-8, 8, 1601)[:, None]
    out = impl("decode", params, z, config, **repeated(case.labels(), len(z)))
    pixels = np.repeat(x, len(z), axis=0)
    log_p_x_given_z = (impl("bernoulli_log_likelihood", out, pixels) if config.likelihood == "bernoulli"
                       else impl("gaussian_log_likelihood", pixels, *out))
    log_joint = log_p_x_given_z - 0.5 * z[:, 0]**2 - 0.5 * math.log(2 * math.pi)
    log_p_x = np.logaddexp.reduce(log_joint) + math.log(z[1, 0] - z[0, 0])
    draws = 2000
    eps = np.random.default_rng(case.seed).standard_normal((draws, 1))
    log_likelihood, kl = impl("elbo_terms", params, np.repeat(x, draws, axis=0), eps, config,
                              **repeated(case.labels(), draws))
    elbo, error = (log_likelihood - kl).mean(), (log_likelihood - kl).std() / math.sqrt(draws)
    assert elbo <= log_p_x + 5 * error, f"the mean ELBO {elbo} +- {error} lies above log p(x) = {log_p_x}"


def repeated(labels, count):
    """The one label of `labels` so many times over; of nothing, nothing."""
    return {name: np.repeat(y, count) for name, y in labels.items()}


def check_loss_and_terms_follow_the_formula(impl: Implementation, case: Case):
    """From the implementation's own parts: loss = -mean log p(x|z) + beta * sum_j max(free_bits, mean_b KL_bj)."""
    (params, x, eps), labels = case.draw(), case.labels()
    mu, logvar = impl("encode", params, x, case.config, **labels)
    kl_j = impl("kl_divergence", mu, logvar).mean(axis=0)                # (J,)
    log_likelihood = impl("elbo_terms", params, x, eps, case.config, **labels)[0].mean()
    between = float(np.sort(kl_j)[:2].mean())                            # one latent below, the others above
    for beta in (1.0, 0.0, 4.0):
        for free_bits in (0.0, between, 1e3):
            settings = {"beta": beta, "free_bits": free_bits, **labels}
            loss, terms, _ = impl("loss_and_grads", params, x, eps, case.config, **settings)
            where = f"at beta {beta}, free_bits {free_bits}"
            assert_close(f"loss {where}", loss, -log_likelihood + beta * np.maximum(free_bits, kl_j).sum(), **EXACT)
            assert set(terms) == {"elbo", "log_likelihood", "kl"}, f"the terms are {sorted(terms)}"
            assert_close(f"log_likelihood {where}", terms["log_likelihood"], log_likelihood, **EXACT)
            assert_close(f"kl {where}", terms["kl"], kl_j.sum(), **EXACT)
            assert_close(f"elbo {where}", terms["elbo"], log_likelihood - kl_j.sum(), **EXACT)


def objectives(impl, case):
    """(beta, free_bits) pairs worth a gradient check: the VAE, a beta-VAE, free bits between the latents' KLs."""
    params, x, _ = case.draw()
    posterior = referee(impl)("encode", params, x, case.config, **case.labels())
    kl_j = np.sort(referee(impl)("kl_divergence", *posterior).mean(axis=0))
    return ((1.0, 0.0), (4.0, 0.0), (0.5, float(kl_j[:2].mean())))


def check_gradients_agree_with_the_referee(impl: Implementation, case: Case):
    for each in (case, replace(case, seed=case.seed + 1), case.saturated()):
        params, x, eps = each.draw()
        for beta, free_bits in objectives(impl, each):
            settings = {"beta": beta, "free_bits": free_bits}
            _, _, got = impl("loss_and_grads", params, x, eps, case.config, **settings, **each.labels())
            _, _, want = referee(impl)("loss_and_grads", params, x, eps, case.config, **settings, **each.labels())
            assert set(got) == set(params), f"gradients for {sorted(got)}, parameters {sorted(params)}"
            for name in params:
                # rounding is relative to the largest entries that were added up, not to the entry itself
                scale = np.abs(want[name]).max()
                assert_close(f"gradient of {name} at {settings}", got[name], want[name], rtol=1e-9, atol=1e-10 * scale)


def check_gradients_agree_with_central_differences(impl: Implementation, case: Case):
    """Entries and directions picked by a seed: differences know nothing of either backward."""
    params, x, eps = case.draw()
    rng = np.random.default_rng(case.seed)
    for beta, free_bits in objectives(impl, case):
        settings = {"beta": beta, "free_bits": free_bits, **case.labels()}

        def loss(moved, settings=settings):
            return impl("loss_and_grads", moved, x, eps, case.config, **settings)[0]

        grads = impl("loss_and_grads", params, x, eps, case.config, **settings)[2]
        for name, array in params.items():
            directions = [rng.standard_normal(array.shape) / math.sqrt(array.size)]
            for index in rng.choice(array.size, min(3, array.size), replace=False):
                directions.append(np.zeros(array.shape))
                directions[-1].flat[index] = 1.0
            for direction in directions:
                got = np.sum(grads[name] * direction)
                want = slope_along(loss, params, name, direction, got, DIFFERENCES["atol"])
                assert_close(f"gradient of {name} (beta {beta}, free_bits {free_bits})", got, want, **DIFFERENCES)


def check_gradients_at_the_kink(impl: Implementation, case: Case):
    """Black images and zero biases put every ReLU of the first layers exactly at 0, where its derivative is 0."""
    params, x, eps = case.draw()
    params = {name: 0 * array if name.endswith(".bias") else array for name, array in params.items()}
    got, want = (level("loss_and_grads", params, 0 * x, eps, case.config)[2] for level in (impl, referee(impl)))
    for name in params:
        assert_close(f"gradient of {name} for a black image", got[name], want[name], **EXACT)


def check_gradient_of_the_mean_is_the_mean_of_the_gradients(impl: Implementation, case: Case):
    (params, x, eps), labels = case.draw(), case.labels()
    _, _, whole = impl("loss_and_grads", params, x, eps, case.config, **labels)
    single = [impl("loss_and_grads", params, x[b:b + 1], eps[b:b + 1], case.config,
                   **{name: y[b:b + 1] for name, y in labels.items()})[2] for b in range(len(x))]
    for name in params:
        assert_close(f"gradient of {name}", whole[name], np.mean([grads[name] for grads in single], axis=0), **EXACT)


def check_calls_are_pure(impl: Implementation, case: Case):
    """Twice the same answer, and the arguments as they were."""
    params, x, eps = map(impl.take, case.draw())
    labels = impl.take(case.labels())
    before = [impl.give(array).copy() for array in (x, eps, *params.values(), *labels.values())]
    function = impl.function("loss_and_grads", labels)
    first = impl.give(function(params, x, eps, case.config, **labels))
    if impl.backend == "torch":
        touched = [name for name, tensor in params.items() if tensor.requires_grad or tensor.grad is not None]
        assert not touched, f"requires_grad or .grad was set on the caller's {touched}"
    after = [impl.give(array) for array in (x, eps, *params.values(), *labels.values())]
    for name, old, new in zip(("x", "eps", *params, *labels), before, after, strict=True):
        assert np.array_equal(old, new), f"loss_and_grads changed {name}"
    first_grads = {name: array.copy() for name, array in first[2].items()}
    second = impl.give(function(params, x, eps, case.config, **labels))
    assert first[0] == second[0], "the second call gives another loss"
    for name in params:
        assert np.array_equal(first_grads[name], second[2][name]), f"the second call gives another gradient of {name}"
        assert np.array_equal(first_grads[name], first[2][name]), f"the second call changed the first gradient of {name}"


def check_dtype_in_is_dtype_out(impl: Implementation, case: Case):
    for dtype in (np.float32, np.float64):
        (params, x, eps), labels = case.draw(dtype), case.labels()
        loss, terms, grads = impl("loss_and_grads", params, x, eps, case.config, beta=0.5, free_bits=0.01, **labels)
        outputs = {name: np.asarray(array) for name, array in {"loss": loss, **terms, **grads}.items()}
        for name, arrays in (("encode", impl("encode", params, x, case.config, **labels)),
                             ("decode", impl("decode", params, eps, case.config, **labels)),
                             ("elbo_terms", impl("elbo_terms", params, x, eps, case.config, **labels))):
            for i, array in enumerate(arrays if isinstance(arrays, tuple) else (arrays,)):
                outputs[f"{name}[{i}]"] = array
        wrong = {name: array.dtype for name, array in outputs.items() if array.dtype != dtype}
        assert not wrong, f"{np.dtype(dtype)} in, but out come {wrong}"
        assert np.ndim(loss) == 0, f"loss has shape {np.shape(loss)}, want a number"


def check_float32_is_close_to_float64(impl: Implementation, case: Case):
    coarse, fine = (impl("loss_and_grads", *case.draw(dtype), case.config, **case.labels())
                    for dtype in (np.float32, np.float64))
    # 6e-8 a rounding; sums of up to 400 products, so some 1e-6 of the largest entry, and slack for exp
    assert_close("loss", coarse[0], fine[0], rtol=1e-5, atol=0)
    for name in fine[2]:
        scale = np.abs(fine[2][name]).max()
        assert_close(f"gradient of {name}", coarse[2][name], fine[2][name], rtol=0, atol=2e-5 * scale)


def check_negative_weights_are_refused(impl: Implementation, case: Case):
    arguments = (*case.draw(), case.config)
    for settings in ({"beta": -1.0}, {"free_bits": -0.5}):
        try:
            impl("loss_and_grads", *arguments, **settings, **case.labels())
        except ValueError:
            continue
        raise AssertionError(f"loss_and_grads accepted {settings}: raise a ValueError")


# ---- the step rules ------------------------------------------------------------------------------------------------


def gradients(impl, params, x, eps, config, **settings):
    """The gradients in the implementation's own kind of array, for parameters in that kind."""
    function = impl.function("loss_and_grads", settings)
    return function(params, impl.take(x), impl.take(eps), config, **impl.take(settings))[2]


TORCH_OPTIMIZERS = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}


def check_50_steps(impl, case, optimizer, lr):
    """With KL warm-up and free bits in float64; gradients are the implementation's own where it has them."""
    step = impl.function(f"{optimizer}_step")
    own = any(hasattr(module, "loss_and_grads") for module in impl.modules)
    start = case.draw()[0]
    params, state = impl.take({name: array.copy() for name, array in start.items()}), {}
    twin = {name: torch.tensor(array) for name, array in start.items()}
    torch_optimizer = TORCH_OPTIMIZERS[optimizer](twin.values(), lr=lr)
    for t in range(50):
        drawn = replace(case, seed=t)
        _, x, eps = drawn.draw()
        objective = {"beta": min(1.0, t / 20), "free_bits": 0.05, **drawn.labels()}
        want = referee(impl)("loss_and_grads", {name: tensor.numpy() for name, tensor in twin.items()}, x, eps,
                             case.config, **objective)[2]
        grads = gradients(impl, params, x, eps, case.config, **objective) if own else impl.take(want)
        step(params, grads, state, lr)
        for name, tensor in twin.items():
            tensor.grad = torch.tensor(want[name])
        torch_optimizer.step()
    got = impl.give(params)
    for name in start:
        # 1e-15 a step, amplified where Adagrad and Adam divide by a small root: 1e-11 at most was seen
        assert_close(f"{name} after 50 {optimizer} steps", got[name], twin[name].numpy(), rtol=1e-8, atol=1e-9)


def check_50_sgd_steps_give_the_weights_of_torch_optim(impl: Implementation, case: Case):
    check_50_steps(impl, case, "sgd", 0.01)


def check_50_adagrad_steps_give_the_weights_of_torch_optim(impl: Implementation, case: Case):
    check_50_steps(impl, case, "adagrad", 0.01)


def check_50_adam_steps_give_the_weights_of_torch_optim(impl: Implementation, case: Case):
    check_50_steps(impl, case, "adam", 0.01)


def check_a_step_of_float32_stays_float32(impl: Implementation, case: Case):
    params, x, eps = case.draw(np.float32)
    for optimizer in TORCH_OPTIMIZERS:
        moved, state = impl.take({name: array.copy() for name, array in params.items()}), {}
        grads = gradients(impl, moved, x, eps, case.config, **case.labels())
        impl.function(f"{optimizer}_step")(moved, grads, state, 0.01)
        for name, array in impl.give(moved).items():
            assert array.dtype == np.float32, f"{optimizer}_step turned {name} into {array.dtype}"
            assert not np.array_equal(array, params[name]), f"{optimizer}_step left {name} as it was: it works in place"


PART_CHECKS = (
    check_reparameterize_draws_from_the_posterior, check_bernoulli_log_likelihood, check_gaussian_log_likelihood,
    check_kl_divergence,
)
MODEL_CHECKS = (
    check_encode_agrees_with_the_referee, check_decode_agrees_with_the_referee, check_elbo_terms_agree_with_the_referee,
    check_the_bound_is_below_log_p,
    check_loss_and_terms_follow_the_formula, check_gradients_agree_with_the_referee,
    check_gradients_agree_with_central_differences, check_gradients_at_the_kink,
    check_gradient_of_the_mean_is_the_mean_of_the_gradients, check_calls_are_pure, check_dtype_in_is_dtype_out,
    check_float32_is_close_to_float64, check_negative_weights_are_refused,
    check_50_sgd_steps_give_the_weights_of_torch_optim, check_50_adagrad_steps_give_the_weights_of_torch_optim,
    check_50_adam_steps_give_the_weights_of_torch_optim, check_a_step_of_float32_stays_float32,
)
