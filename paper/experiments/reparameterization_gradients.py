"""The three recipes for z = g(eps, phi) (paper, section 2.4): pathwise gradients against score functions and exact ones.

The gradient of E[f(z)] in the parameters of an exponential, logistic, Laplace, Gaussian and log-normal q, for functions f
whose exact gradient quadrature gives. Pathwise, by autograd through g, against the score function f d log q, as it is and
with the constant baseline that suits it best (a fair comparison: a constant added to f changes nothing but the score
function's variance). All of them have the exact gradient for their mean.

For one z, pathwise has the lower variance where f is smooth on the scale of q, as z^2 and log sigmoid z are. That is no
law: for sin z some races are lost, and for sin 8z, which oscillates within one q, the score function wins everywhere,
because it asks for f, and pathwise for f'. What makes the difference for a VAE is the number of latents: where f is a sum
over J of them, a pathwise gradient is as noisy as for one, but the score function multiplies the noise of all J into each.
"""

import torch
from torch.nn.functional import logsigmoid

from common import figures
from common.data import EVAL_SEED
from paper.parts import Part
from paper.reparameterizations import (
    DISTRIBUTIONS,
    best_baseline,
    draw_noise,
    exact_gradient,
    pathwise,
    score_function,
)

PHI = {"exponential": (1.5,), "logistic": (0.5, 0.5), "Laplace": (0.5, 0.8), "Gaussian": (0.5, 0.8),
       "log-normal": (0.2, 0.5)}
FUNCTIONS = {
    "z\u00b2": torch.square,
    "sin z": torch.sin,
    "log sigmoid z": logsigmoid,                        # a Bernoulli log-likelihood with logit z
    "sin 8z": lambda z: torch.sin(8 * z),
}
SUMMED, LATENTS = "log sigmoid z", (1, 2, 5, 10, 20, 50, 100)
BLOCK, PILOT, BINS = 100_000, 10_000, 40                # draws at a time, draws for the baseline, bins of a histogram

PRESETS = {"quick": {"draws": 20_000}, "cpu": {"draws": 5_000_000}, "gpu": {"draws": 100_000_000}}
GRAPHS = {"exponential": "\u2212log(1 \u2212 \u03b5) / rate", "logistic": "location + scale logit \u03b5",
          "Laplace": "location + scale \u03b5", "Gaussian": "mean + sd \u03b5", "log-normal": "exp(\u03bc + \u03c3 \u03b5)"}


def parts(settings):
    return {name: Part(compare, {"name": name} | settings) for name in DISTRIBUTIONS}


def compare(work, name, draws):
    """All gradients for one distribution: {f: {parameter: {"exact", estimator: {"mean", "standard_error", "variance"}}}},
    variances for one draw; their variances for a sum of f over latents, and a histogram of draws beside the density."""
    q, phi = DISTRIBUTIONS[name], PHI[name]
    generator = torch.Generator(work.device).manual_seed(EVAL_SEED)
    pilot = q.g(draw_noise(q, PILOT, generator), *phi)
    baselines = {what: best_baseline(q, f, phi, pilot) for what, f in FUNCTIONS.items()}
    exact = {what: exact_gradient(q, f, phi) for what, f in FUNCTIONS.items()}
    sums = {what: {} for what in FUNCTIONS}
    edges, counts = torch.linspace(float(pilot.quantile(0.002)), float(pilot.quantile(0.998)), BINS + 1), torch.zeros(BINS)

    for start in range(0, draws, BLOCK):
        eps = draw_noise(q, min(BLOCK, draws - start), generator)
        z = q.g(eps, *phi)
        counts += torch.histogram(z.cpu().float(), edges)[0]
        for what, f in FUNCTIONS.items():
            for estimator, gradients in {
                "pathwise": pathwise(q, f, phi, eps),
                "score": score_function(q, f, phi, z),
                "score, baseline": score_function(q, f, phi, z, baselines[what]),
            }.items():
                # less the exact gradient, so that no digits are lost in the sum of squares
                error = gradients - exact[what].to(z.device)[:, None]                   # (P, N)
                both = torch.stack([error.sum(dim=1), error.square().sum(dim=1)])       # (2, P)
                sums[what][estimator] = sums[what].get(estimator, 0) + both
        work.progress((start + len(eps)) / draws)

    gradients = {what: {parameter: {"exact": float(exact[what][i])} for i, parameter in enumerate(q.phi)}
                 for what in FUNCTIONS}
    for what, of_estimators in sums.items():
        for estimator, (error, square) in of_estimators.items():
            variance = (square - error * error / draws) / (draws - 1)
            for i, parameter in enumerate(q.phi):
                gradients[what][parameter][estimator] = {
                    "mean": float(exact[what][i] + error[i] / draws), "variance": float(variance[i]),
                    "standard_error": float((variance[i] / draws).sqrt())}
    z = torch.linspace(float(edges[0]), float(edges[-1]), 200, dtype=torch.float64)
    density = torch.exp(q.log_q(z, *(torch.tensor(number, dtype=torch.float64) for number in phi)))
    return {"phi": dict(zip(q.phi, phi, strict=True)), "gradients": gradients,
            "latents": {str(latents): of_a_sum(q, phi, latents, draws, generator) for latents in LATENTS},
            "histogram": {"edges": edges.tolist(), "density": (counts / draws / (edges[1] - edges[0])).tolist()},
            "density": {"z": z.tolist(), "q": density.tolist()}}


def of_a_sum(q, phi, latents, draws, generator):
    """f = sum_j log sigmoid z_j: variance of the gradient in the parameters of the first latent, summed over them."""
    f, sums, count = FUNCTIONS[SUMMED], {}, max(100, min(draws, BLOCK) // latents)       # count: draws at a time
    pilot = q.g(draw_noise(q, PILOT, generator), *phi)
    baseline = best_baseline(q, f, phi, pilot) + (latents - 1) * f(pilot).mean()
    repeats = max(1, min(draws, BLOCK) // count)
    for _ in range(repeats):
        eps = draw_noise(q, latents * count, generator).reshape(latents, count)         # (J, N)
        z = q.g(eps, *phi)
        others = f(z[1:]).sum(dim=0)                                                    # (N,)

        def total(first, others=others):
            return f(first) + others

        for estimator, gradients in {
            "pathwise": pathwise(q, total, phi, eps[0]),
            "score": score_function(q, total, phi, z[0]),
            "score, baseline": score_function(q, total, phi, z[0], baseline),
        }.items():
            sums[estimator] = sums.get(estimator, 0.0) + float(gradients.var(dim=1).sum())
    return {estimator: total / repeats for estimator, total in sums.items()}


# ---- the figure --------------------------------------------------------------------------------------------------------

ESTIMATORS = {"pathwise": (figures.BLUE, "o"), "score": (figures.ORANGE, "s"), "score, baseline": (figures.RED, "D")}
NAMES = {"pathwise": "pathwise: through g", "score": "score function: f d log q",
         "score, baseline": "score function, best constant baseline"}
TITLE = ("Draws as functions of noise: gradients through them are right on average, like the score function's,\n"
         "and less noisy where f is smooth on the scale of q, the more so the more latents f sums over")
LINE, LABELS, WIDTH, GAP = 17, 220, 320, 50             # pixels


def draw(path, results):
    """Above, draws of each recipe. Below, a line for each gradient: its variance, and how far its mean is from the exact
    one; beside them the variance for a sum over latents."""
    figure, parts = figures.new_figure(), results["parts"]
    lines = [(name, what, parameter, estimates) for name, part in parts.items()
             for what, of_f in part["result"]["gradients"].items() for parameter, estimates in of_f.items()]
    height, step = LINE * len(lines), (LABELS + 3 * WIDTH + 2.5 * GAP + 40) / len(parts)
    for i, (name, part) in enumerate(parts.items()):
        title = f"{DISTRIBUTIONS[name].recipe}:\n{name}"
        axes = figures.chart(figure, i * step - LABELS, height + 110, step - 40, 150, title)
        result = part["result"]
        axes.stairs(result["histogram"]["density"], result["histogram"]["edges"], fill=True, color=figures.BLUE, alpha=0.4)
        axes.plot(result["density"]["z"], result["density"]["q"], color="black", linewidth=1)
        axes.set(yticks=[], xlabel=f"z = {GRAPHS[name]}")

    variance = figures.chart(figure, 0, 0, WIDTH, height, "Variance of the gradient of f")
    variance.set_xlabel("in the parameter named, one draw of z")
    distance = figures.chart(figure, WIDTH + GAP, 0, WIDTH, height, "Mean \N{MINUS SIGN} exact gradient")
    for estimator, (color, marker) in ESTIMATORS.items():
        style = {"color": color, "linestyle": "", "marker": marker, "markersize": 5}
        values = [each[estimator]["variance"] for *_, each in lines]
        variance.plot(values, range(len(lines)), label=NAMES[estimator], **style)
        distance.plot([standard_errors(each, estimator) for *_, each in lines], range(len(lines)), **style)
    variance.set_xscale("log")
    variance.set_yticks(range(len(lines)), [f"{name}, {what}: d {parameter}" for name, what, parameter, _ in lines])
    variance.tick_params(axis="y", labelsize=8, length=0)
    reach = max(4, *(abs(standard_errors(each, estimator)) + 0.5 for *_, each in lines for estimator in ESTIMATORS))
    distance.axvspan(-2, 2, color=figures.GRAY, alpha=0.25, linewidth=0)
    distance.set(xlim=(-reach, reach), yticks=[], xlabel="in its standard errors (gray: up to 2)")
    for axes in (variance, distance):
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.grid(axis="x", alpha=0.3)
        for row in range(1, len(lines)):
            if lines[row][0] != lines[row - 1][0]:
                axes.axhline(row - 0.5, color="black", linewidth=0.6)

    title = f"Variance where f sums {SUMMED} over\nJ latents, gradient for one of them"
    side = figures.chart(figure, 2 * WIDTH + 2.5 * GAP, height - WIDTH - 20, WIDTH, WIDTH, title)
    for part in parts.values():
        of_sums = part["result"]["latents"]
        for estimator, (color, marker) in ESTIMATORS.items():
            values = [each[estimator] for each in of_sums.values()]
            side.plot([int(latents) for latents in of_sums], values, color=color, marker=marker, markersize=4, linewidth=1)
    side.set(xscale="log", yscale="log", xlabel="latents J (a line for each q)")
    side.set_xticks(LATENTS, LATENTS)
    side.minorticks_off()
    side.grid(alpha=0.3)
    figure.legend(*variance.get_legend_handles_labels(), frameon=False, loc="upper left",
                  bbox_to_anchor=(side.get_position().x0 - 0.03, side.get_position().y0 - 60 / figures.PANEL))
    figure.text(-LABELS / figures.PANEL, (height + 330) / figures.PANEL, TITLE, fontsize=14)
    figures.save(figure, path)


def standard_errors(estimates, estimator) -> float:
    return (estimates[estimator]["mean"] - estimates["exact"]) / estimates[estimator]["standard_error"]


def rows(results):
    found, distances = [], []
    for name, part in results["parts"].items():
        gradients, of_sums = part["result"]["gradients"], part["result"]["latents"]
        ratios = [of_f_ratio(of_f.values()) for of_f in gradients.values()]
        ratios.append(of_sums["100"]["score, baseline"] / of_sums["100"]["pathwise"])
        functions = f"{', '.join(gradients)}, {SUMMED} summed over 100"
        found.append((f"{name}: variance of score function with baseline / pathwise, f = {functions}",
                      "", ", ".join(f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}" for ratio in ratios)))
        furthest = max(abs(standard_errors(each, estimator)) for of_f in gradients.values() for each in of_f.values()
                       for estimator in ESTIMATORS)
        distances.append(f"{name} {furthest:.1f}")
    found.append(("Furthest mean from its exact gradient, in standard errors", "", ", ".join(distances)))
    return found


def of_f_ratio(estimates) -> float:
    """Variance of the score function with baseline over that of pathwise, both summed over the parameters."""
    score, path = (sum(each[estimator]["variance"] for each in estimates) for estimator in ("score, baseline", "pathwise"))
    return score / path
