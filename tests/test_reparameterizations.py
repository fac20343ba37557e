"""The recipes of the paper's section 2.4 against SciPy's distributions, and both gradients against exact ones.

    pytest tests/test_reparameterizations.py

Each check is shown to fail on mistakes that still run: planted below by name. All draws are seeded.
Letters: N draws, P parameters.
"""

import math

import numpy as np
import pytest
import torch
from oracles import assert_close
from scipy import integrate, stats
from torch.nn.functional import logsigmoid

from common.data import EVAL_SEED
from paper.experiments import reparameterization_gradients as experiment
from paper.parts import Work
from paper.reparameterizations import (
    DISTRIBUTIONS,
    best_baseline,
    draw_noise,
    exact_gradient,
    gaussian,
    laplace,
    log_normal,
    logistic,
    own_copies,
    pathwise,
    score,
    score_function,
)

PHI = {"exponential": (1.7,), "logistic": (0.4, 0.6), "Laplace": (-0.3, 0.7), "Gaussian": (0.6, 0.7),
       "log-normal": (0.1, 0.4)}
SCIPY = {
    "exponential": lambda rate: stats.expon(scale=1 / rate),
    "logistic": stats.logistic,
    "Laplace": stats.laplace,
    "Gaussian": stats.norm,
    "log-normal": lambda mu, sigma: stats.lognorm(s=sigma, scale=math.exp(mu)),
}
FUNCTIONS = {"z^2": torch.square, "sin z": torch.sin, "log sigmoid z": logsigmoid}
each_q = pytest.mark.parametrize("name", DISTRIBUTIONS)
each_f = pytest.mark.parametrize("what", FUNCTIONS)


def noise(name, count, seed=1):
    return draw_noise(DISTRIBUTIONS[name], count, torch.Generator().manual_seed(seed))


# ---- the draws ---------------------------------------------------------------------------------------------------------


def check_draws(name, g):
    """Kolmogorov-Smirnov with N = 20,000: it tells distribution functions apart that differ by 1.95 / sqrt(N) = 0.014
    anywhere, and a right g has one chance in 1,000 to fail, drawn once and for all by the seed."""
    z = g(noise(name, 20_000), *PHI[name])
    p = stats.kstest(z.numpy(), SCIPY[name](*PHI[name]).cdf).pvalue
    assert p > 1e-3, f"{name}: draws are not those of q, p = {p:.1e}"


def check_inverse(name, g):
    """g turns a uniform eps into the quantile of q, a normal eps into the quantile at its normal CDF: rising."""
    u = np.array([1e-9, 0.01, 0.2, 0.5, 0.5 + 1e-9, 0.7, 0.99, 1 - 1e-9])
    eps = u if DISTRIBUTIONS[name].noise == "uniform" else stats.norm.ppf(u)
    expected = SCIPY[name](*PHI[name]).ppf(u)
    # 1 - 1e-9 in float64 is known to 1e-7 of its distance from 1
    assert_close(name, g(torch.tensor(eps), *PHI[name]), expected, rtol=1e-6, atol=1e-8)


@each_q
def test_draws_have_the_distribution(name):
    check_draws(name, DISTRIBUTIONS[name].g)


@each_q
def test_g_rises_through_the_quantiles(name):
    check_inverse(name, DISTRIBUTIONS[name].g)


WRONG_DRAWS = {
    "sd taken for the variance": ("Gaussian", lambda eps, mean, sd: gaussian(eps, mean, sd**0.5)),
    "variance taken for the sd": ("Gaussian", lambda eps, mean, sd: gaussian(eps, mean, sd**2)),
    "scale taken for the sd": ("Laplace", lambda eps, location, scale: laplace(eps, location, scale / 2**0.5)),
    "scale of the logistic taken for its sd": ("logistic", lambda eps, m, s: logistic(eps, m, s * 3**0.5 / math.pi)),
    "rate taken for the mean": ("exponential", lambda eps, rate: DISTRIBUTIONS["exponential"].g(eps, 1 / rate)),
    "exp forgotten": ("log-normal", gaussian),
    "median taken for the mean": ("log-normal", lambda eps, mu, sigma: log_normal(eps, mu - sigma**2 / 2, sigma)),
    "one side of the Laplace": ("Laplace", lambda eps, m, b: m + b * torch.abs(laplace(eps, 0, 1))),
}
MIRRORED = {
    "exponential": lambda eps, rate: -torch.log(eps) / rate,
    "logistic": lambda eps, location, scale: logistic(1 - eps, location, scale),
    "Laplace": lambda eps, location, scale: laplace(1 - eps, location, scale),
    "Gaussian": lambda eps, mean, sd: mean - sd * eps,
}


@pytest.mark.parametrize("mistake", WRONG_DRAWS)
def test_wrong_draws_are_caught(mistake):
    name, g = WRONG_DRAWS[mistake]
    with pytest.raises(AssertionError, match="not those of q"):
        check_draws(name, g)


@pytest.mark.parametrize("name", MIRRORED)
def test_a_mirrored_inverse_has_the_right_draws_and_is_caught_all_the_same(name):
    check_draws(name, MIRRORED[name])
    with pytest.raises(AssertionError):
        check_inverse(name, MIRRORED[name])


@each_q
def test_a_uniform_draw_of_zero_gives_a_finite_z(name, monkeypatch):
    for function in ("rand", "randn"):
        monkeypatch.setattr(torch, function, lambda count, generator, device, dtype: torch.zeros(count, dtype=dtype))
    for dtype in (torch.float32, torch.float64):
        eps = draw_noise(DISTRIBUTIONS[name], 3, torch.Generator(), dtype)
        assert torch.isfinite(DISTRIBUTIONS[name].g(eps, *PHI[name])).all() and eps.dtype == dtype


@each_q
def test_the_log_density_is_scipys(name):
    q, z = DISTRIBUTIONS[name], SCIPY[name](*PHI[name]).ppf(np.linspace(0.01, 0.99, 7))
    found = q.log_q(torch.tensor(z), *own_copies(PHI[name], torch.tensor(z))).detach().numpy()
    # two formulas in float64, about ten roundings
    assert_close(name, found, SCIPY[name](*PHI[name]).logpdf(z), rtol=1e-11, atol=1e-12)


# ---- the exact gradient ------------------------------------------------------------------------------------------------

CLOSED = {                                              # E[f], from the moments and the characteristic function
    ("exponential", "z^2"): lambda rate: 2 / rate**2,
    ("exponential", "sin z"): lambda rate: rate / (1 + rate**2),
    ("logistic", "z^2"): lambda m, s: m**2 + (math.pi * s) ** 2 / 3,
    ("logistic", "sin z"): lambda m, s: torch.sin(m) * math.pi * s / torch.sinh(math.pi * s),
    ("Laplace", "z^2"): lambda m, b: m**2 + 2 * b**2,
    ("Laplace", "sin z"): lambda m, b: torch.sin(m) / (1 + b**2),
    ("Gaussian", "z^2"): lambda m, s: m**2 + s**2,
    ("Gaussian", "sin z"): lambda m, s: torch.sin(m) * torch.exp(-(s**2) / 2),
    ("log-normal", "z^2"): lambda m, s: torch.exp(2 * m + 2 * s**2),
}


@pytest.mark.parametrize(("name", "what"), CLOSED)
def test_the_exact_gradient_is_that_of_the_closed_form(name, what):
    phi = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in PHI[name]]
    expected = torch.stack(torch.autograd.grad(CLOSED[name, what](*phi), phi))
    found = exact_gradient(DISTRIBUTIONS[name], FUNCTIONS[what], PHI[name])
    # the rule is good to 1e-9 (its docstring); a wrong derivative is off by tenths
    assert_close(f"{name}, {what}", found, expected, rtol=1e-9, atol=1e-9)


@each_q
def test_the_exact_gradient_is_that_of_scipys_quadrature(name):
    def mean(*phi):
        q = SCIPY[name](*phi)
        low, middle, high = q.ppf(1e-14), q.median(), q.isf(1e-14)
        return sum(integrate.quad(lambda z: q.pdf(z) * -np.logaddexp(0, -z), *ends, epsabs=1e-12, epsrel=1e-12)[0]
                   for ends in ((low, middle), (middle, high)))

    found = exact_gradient(DISTRIBUTIONS[name], logsigmoid, PHI[name])
    for i, number in enumerate(PHI[name]):
        h = 1e-3                                        # Taylor h^2 / 6 = 2e-7 for third derivatives of 1, rounding 1e-9
        ends = (mean(*PHI[name][:i], number + sign * h, *PHI[name][i + 1:]) for sign in (1, -1))
        expected = (next(ends) - next(ends)) / (2 * h)
        assert_close(f"{name}, parameter {i}", found[i], expected, rtol=0, atol=2e-6)


# ---- the two estimators ------------------------------------------------------------------------------------------------


def with_baseline(q, f, phi, eps):
    pilot = q.g(draw_noise(q, 2000, torch.Generator().manual_seed(2)), *phi)
    return score_function(q, f, phi, q.g(eps, *phi), best_baseline(q, f, phi, pilot))


ESTIMATORS = {
    "pathwise": pathwise,
    "score function": lambda q, f, phi, eps: score_function(q, f, phi, q.g(eps, *phi)),
    "score function with a baseline": with_baseline,
}


def check_mean(name, what, estimator):
    """100,000 draws: the mean is within 5 standard errors of the exact gradient, which it is but for 1 in 2 million."""
    gradients = estimator(DISTRIBUTIONS[name], FUNCTIONS[what], PHI[name], noise(name, 100_000))
    exact = exact_gradient(DISTRIBUTIONS[name], FUNCTIONS[what], PHI[name])
    error = gradients.std(dim=1) / gradients.shape[1] ** 0.5
    distance = (gradients.mean(dim=1) - exact).abs()
    assert gradients.shape == (len(PHI[name]), 100_000)
    assert (distance <= 5 * error).all(), f"{name}, {what}: {distance.tolist()} off, standard errors {error.tolist()}"


@each_q
@each_f
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_mean_of_the_estimates_is_the_exact_gradient(name, what, estimator):
    check_mean(name, what, ESTIMATORS[estimator])


def attached(q, f, phi, eps):
    """d log q along a z that moves with phi."""
    phi = own_copies(phi, eps)
    z = q.g(eps, *phi)
    return f(z).detach() * torch.stack(torch.autograd.grad(q.log_q(z, *phi).sum(), phi))


def half_attached(q, f, phi, eps):
    """f(z) d log q, and the path through f besides."""
    copies = own_copies(phi, eps)
    z = q.g(eps, *copies)
    return torch.stack(torch.autograd.grad((f(z) * q.log_q(z.detach(), *copies)).sum(), copies))


def own_baseline(q, f, phi, eps):
    """The baseline of a draw is made from that draw and one other."""
    z = q.g(eps, *phi)
    return score_function(q, f, phi, z, f(torch.stack([z, z.roll(1)])).mean(dim=0))


def half_detached(q, f, phi, eps):
    """z is cut from its scale: as if the noise had been drawn at this width."""
    copies = own_copies(phi, eps)
    z = q.g(eps, *copies[:-1], copies[-1].detach())
    gradients = torch.autograd.grad(f(z).sum(), copies, allow_unused=True)
    return torch.stack([torch.zeros_like(eps) if gradient is None else gradient for gradient in gradients])


WRONG_GRADIENTS = {
    "z detached": lambda q, f, phi, eps: 0 * pathwise(q, f, phi, eps),
    "scale detached": half_detached,
    "score of a moving z": attached,
    "path and score at once": half_attached,
    "baseline of the draw itself": own_baseline,
    "baseline in place of f": lambda q, f, phi, eps: score(q, phi, q.g(eps, *phi)) * f(q.g(eps, *phi)).mean(),
    "score's sign": lambda q, f, phi, eps: -score_function(q, f, phi, q.g(eps, *phi)),
    "draws of another phi": lambda q, f, phi, eps: score_function(q, f, phi, q.g(eps, *phi[:-1], 1.2 * phi[-1])),
}


@pytest.mark.parametrize("mistake", WRONG_GRADIENTS)
def test_wrong_gradients_are_caught(mistake):
    with pytest.raises(AssertionError, match="off, standard errors"):
        check_mean("Laplace", "log sigmoid z", WRONG_GRADIENTS[mistake])


def variances(name, f, count=50_000):
    q, phi, eps = DISTRIBUTIONS[name], experiment.PHI[name], noise(name, count, seed=3)
    return {estimator: float(make(q, f, phi, eps).var(dim=1).sum()) for estimator, make in ESTIMATORS.items()}


@each_q
@pytest.mark.parametrize("what", ["z\u00b2", "log sigmoid z"])
def test_pathwise_has_the_lower_variance_for_smooth_functions(name, what):
    found = variances(name, experiment.FUNCTIONS[what])
    # the closest race is won by 3; variances of 50,000 draws with heavy tails are good to a few parts in 100
    assert 2 * found["pathwise"] < found["score function with a baseline"] < found["score function"], found


@each_q
def test_the_score_function_has_the_lower_variance_where_f_oscillates_within_q(name):
    found = variances(name, experiment.FUNCTIONS["sin 8z"])
    assert found["pathwise"] > 10 * max(found["score function with a baseline"], found["score function"]), found


@each_q
@each_f
def test_no_other_baseline_leaves_less_variance(name, what):
    q, f, phi = DISTRIBUTIONS[name], FUNCTIONS[what], PHI[name]
    z = q.g(noise(name, 5000), *phi)
    best = best_baseline(q, f, phi, z)

    def second_moment(baseline):                        # the variance but for the mean, which a baseline leaves alone
        return score_function(q, f, phi, z, baseline).square().mean(dim=1)

    for other in (0.0, f(z).mean(), best + 0.01, best - 0.01):
        assert (second_moment(best) <= second_moment(other) * (1 + 1e-12)).all()        # equal but for rounding at best


# ---- the experiment ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results():
    work = Work("cpu", None, None, lambda share: None)
    settings = {"draws": 3000}
    parts = {name: {"result": part.function(work, **part.arguments), "seconds": 0.0}
             for name, part in experiment.parts(settings).items()}
    return {"settings": settings, "parts": parts}


@pytest.mark.parametrize("estimator", experiment.ESTIMATORS)
def test_the_experiment_reports_what_the_estimators_give(estimator, monkeypatch):
    """Over blocks: mean, variance and standard error are those of all draws at once."""
    monkeypatch.setattr(experiment, "BLOCK", 700)
    work = Work("cpu", None, None, lambda share: None)
    q, phi, f = DISTRIBUTIONS["Laplace"], experiment.PHI["Laplace"], experiment.FUNCTIONS["sin z"]
    result = experiment.compare(work, "Laplace", 3000)
    found = result["gradients"]["sin z"]["scale"][estimator]
    generator = torch.Generator().manual_seed(EVAL_SEED)
    pilot = q.g(draw_noise(q, experiment.PILOT, generator), *phi)
    eps = torch.cat([draw_noise(q, count, generator) for count in (700, 700, 700, 700, 200)])
    z = q.g(eps, *phi)
    gradients = {"pathwise": pathwise(q, f, phi, eps), "score": score_function(q, f, phi, z),
                 "score, baseline": score_function(q, f, phi, z, best_baseline(q, f, phi, pilot))}[estimator][1]
    expected = [float(gradients.mean()), float(gradients.var()), float(gradients.std()) / 3000**0.5]
    found = [found[key] for key in ("mean", "variance", "standard_error")]
    assert_close("mean, variance, standard error", found, expected, rtol=1e-10, atol=1e-12)
    density, edges = np.histogram(z.numpy(), result["histogram"]["edges"])[0], result["histogram"]["edges"]
    # float32 edges: a draw or two may fall into the next bin
    assert_close("histogram", result["histogram"]["density"], density / 3000 / (edges[1] - edges[0]), rtol=0,
                 atol=2 / 3000 / (edges[1] - edges[0]))


def test_the_variance_for_a_sum_over_latents_is_that_of_its_gradient(latents=5):
    """Of a Gaussian q, by NumPy: f' and f' eps by the path; (f - baseline) times the score, each parameter's baseline its
    own best one. Variances of 50,000 draws, with heavy tails, are good to a few parts in 100."""
    mean, sd = experiment.PHI["Gaussian"]
    found = experiment.of_a_sum(DISTRIBUTIONS["Gaussian"], (mean, sd), latents, 50_000, torch.Generator().manual_seed(1))
    eps = np.random.default_rng(2).standard_normal((latents, 50_000))
    z = mean + sd * eps
    total, slope = -np.logaddexp(0, -z).sum(axis=0), 1 / (1 + np.exp(z[0]))
    scores = np.stack([eps[0], eps[0] ** 2 - 1]) / sd                    # (P, N)
    best = (total * scores**2).mean(axis=1, keepdims=True) / (scores**2).mean(axis=1, keepdims=True)
    for name, gradients in {"pathwise": slope * np.stack([np.ones_like(slope), eps[0]]), "score": total * scores,
                            "score, baseline": (total - best) * scores}.items():
        assert_close(name, found[name], gradients.var(axis=1).sum(), rtol=0.15, atol=0)


def test_the_ratios_of_the_table_are_score_function_with_baseline_over_pathwise():
    def estimates(*variances):
        return dict(zip(("pathwise", "score", "score, baseline"), ({"variance": each, "mean": 1.5, "standard_error": 0.5}
                                                                   for each in variances), strict=True)) | {"exact": 1.0}

    result = {"gradients": {"sin z": {"location": estimates(1, 70, 4), "scale": estimates(3, 90, 8)}},
              "latents": {str(n): {"pathwise": 2.0, "score": 900.0, "score, baseline": 5.0 * n} for n in (1, 10, 100)}}
    rows = experiment.rows({"parts": {"Laplace": {"result": result}}})
    assert [ours for _, _, ours in rows] == ["3, 250", "Laplace 1.0"]     # (4 + 8) / (1 + 3), 500 / 2, and (1.5 - 1) / 0.5


def test_means_of_the_experiment_lie_within_five_standard_errors(results):
    for part in results["parts"].values():
        for of_f in part["result"]["gradients"].values():
            for estimates in of_f.values():
                assert all(abs(experiment.standard_errors(estimates, each)) < 5 for each in experiment.ESTIMATORS)


@each_q
def test_the_score_functions_variance_grows_with_the_latents_and_the_pathwise_one_does_not(name):
    q, phi = DISTRIBUTIONS[name], experiment.PHI[name]
    one, many = (experiment.of_a_sum(q, phi, latents, 40_000, torch.Generator().manual_seed(4)) for latents in (1, 20))
    # 2,000 and more draws: variances good to one part in 10
    assert 0.7 < many["pathwise"] / one["pathwise"] < 1.4
    assert many["score, baseline"] > 3 * one["score, baseline"] and many["score"] > 30 * one["score"]


def test_the_experiment_draws_its_figure_and_tells_its_rows(results, tmp_path):
    experiment.draw(tmp_path / "figure.png", results)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    rows = experiment.rows(results)
    assert len(rows) == len(DISTRIBUTIONS) + 1 and all(len(row) == 3 for row in rows)
    assert rows[2][0].startswith("Laplace") and len(rows[2][2].split(", ")) == len(experiment.FUNCTIONS) + 1
