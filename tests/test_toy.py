"""Points in the plane, and what quadrature says of VAEs on them: paper/toy.py and paper/experiments/toy_posteriors.py.

    pytest tests/test_toy.py

Integrals are sums over grids that leave out less than they are compared to; models are small, random and in float64, where
nothing depends on training.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from oracles import figure_of

from common.data import EVAL_SEED
from paper import toy
from paper.estimators import estimator_b, log_p_by_importance_sampling, log_p_by_quadrature, log_weights
from paper.experiments import toy_posteriors
from paper.experiments.toy_posteriors import AVERAGED, CELLS, LIMIT
from paper.images import Images
from paper.packed import pack, unpack

POINTS = {1: 801, 2: 161}                               # of the grid of z, a side


def points(name="moons", count=40, seed=3):
    return torch.from_numpy(toy.draw_points(name, count, np.random.default_rng(seed)))


def model_of(latent):
    """A VAE before training in float64: a decoder that bends the plane, wide noise, and q(z|x) too wide to miss a thing."""
    model = toy_posteriors.begin(Images(points(count=200), points()), latent, hidden=11)
    with torch.no_grad():
        model.decoder.hidden.weight *= 2
        model.decoder.logvar.bias.fill_(-3.0)
        model.encoder.mu.weight *= 0.3
        model.encoder.logvar.weight *= 0.1
    return model.double()


# ---- the data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", toy.CURVES)
def test_points_lie_around_their_curve_in_the_unit_square(name):
    x = toy.draw_points(name, 2000, np.random.default_rng(0))
    assert x.dtype == np.float32 and x.shape == (2000, 2) and x.min() > 0 and x.max() < 1
    curve = toy.CURVES[name](np.linspace(0, 1, 1000, endpoint=False))
    distance = np.sqrt(((x[:, None] - curve) ** 2).sum(axis=2).min(axis=1))
    # across a line, noise has one dimension; at ends and crossings the nearest point is another one
    assert 0.85 < np.sqrt((distance ** 2).mean()) / toy.NOISE[name] < 1.1
    np.testing.assert_array_equal(x, toy.draw_points(name, 2000, np.random.default_rng(0)))
    assert not np.array_equal(x, toy.draw_points(name, 2000, np.random.default_rng(1)))


def test_the_curves_are_what_they_are_called():
    """The second moon is the first, turned by half a circle; each arm of the pinwheel the one before, by a fifth."""
    u = np.linspace(0, 0.499, 50)
    np.testing.assert_allclose(toy.moons(u + 0.5), 1 - toy.moons(u), atol=1e-12)
    np.testing.assert_allclose(toy.moons(np.array([0.25])), [[0.375, 0.6875]])                     # its top
    u = np.linspace(0, 0.799, 50)
    cos, sin = np.cos(2 * np.pi / 5), np.sin(2 * np.pi / 5)
    turned = (toy.pinwheel(u) - 0.5) @ np.array([[cos, sin], [-sin, cos]]) + 0.5
    np.testing.assert_allclose(toy.pinwheel(u + 0.2), turned, atol=1e-9)
    radius = np.linalg.norm(toy.pinwheel(np.array([0.0, 0.1999])) - 0.5, axis=1)
    np.testing.assert_allclose(radius, [0.3 / 4, 1.6 / 4], atol=1e-3)


@pytest.mark.parametrize("name", toy.CURVES)
def test_the_density_of_a_data_set_is_one_and_that_of_its_points(name):
    """It integrates to 1, and it gives a region the share of points that falls there."""
    side = 75                                                            # cells of 0.02, so that regions end at their edges
    axis = -0.25 + 1.5 * (np.arange(side) + 0.5) / side
    cells = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mass = np.exp(toy.log_density(name, cells, steps=1000)) * (1.5 / side) ** 2
    assert abs(mass.sum() - 1) < 1e-3
    x = toy.draw_points(name, 20_000, np.random.default_rng(0))
    for region in (lambda p: p[:, 0] < 0.31, lambda p: p[:, 1] < 0.41, lambda p: (p > 0.53).all(axis=1)):
        # 20,000 points tell a share to 0.0035 (standard error)
        assert abs(mass[region(cells)].sum() - region(x).mean()) < 0.012


def test_pictures_come_back_from_text():
    images = np.random.default_rng(0).random((5, 7)) * 1.2 - 0.1
    text = json.loads(json.dumps(pack(images)))
    np.testing.assert_allclose(unpack(text, 5, 7), np.clip(images, 0, 1), atol=1 / 510 + 1e-12)


# ---- densities of a model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [1, 2])
def test_the_density_of_a_model_is_one(latent):
    """p(x), by quadrature over z, integrates to 1 over the plane, of which a square of side 5 holds all."""
    model, side = model_of(latent), 100
    mass = toy_posteriors.density_map(model, POINTS[latent], side, -2.0, 3.0) * (5 / side) ** 2
    assert abs(float(mass.sum()) - 1) < 1e-6


@pytest.mark.parametrize("latent", [1, 2])
def test_the_map_is_log_p_by_quadrature(latent):
    """Also which axis is which: a cell of row i, column j lies at x1 = j, x2 = i."""
    model, side = model_of(latent), 10
    density = toy_posteriors.density_map(model, POINTS[latent], side, 0.2, 0.9)
    centers = 0.2 + 0.7 * (torch.arange(side, dtype=torch.float64) + 0.5) / side
    for row, column in ((2, 7), (7, 2), (5, 5)):
        x = torch.stack([centers[column], centers[row]])[None]
        expected = log_p_by_quadrature(model, x, POINTS[latent], LIMIT)
        torch.testing.assert_close(density[row, column].log()[None], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("latent", [1, 2])
def test_importance_sampling_agrees_with_quadrature(latent):
    model, x = model_of(latent), points(count=6).double()
    exact = log_p_by_quadrature(model, x, POINTS[latent], LIMIT)
    generator = torch.Generator().manual_seed(0)
    sampled = log_p_by_importance_sampling(model, x, 20_000, generator, rows=20_000)
    torch.testing.assert_close(sampled, exact, rtol=0, atol=0.03)       # a few standard errors of 20,000 weights
    eps = torch.randn(2000, len(x), latent, generator=generator, dtype=torch.float64)
    gap = exact - estimator_b(model, x, eps)
    assert gap.mean() > 0.1 and (gap > -0.02).all()                      # KL(q(z|x) || p(z|x)), and its noise


@pytest.mark.parametrize("latent", [1, 2])
def test_a_drawn_posterior_is_a_density_and_importance_weights_agree_with_it(latent):
    """On its window it integrates to 1 less its tails, and its mean is that of weighted draws from q(z|x)."""
    model, x = model_of(latent), points(count=1).double()
    drawn = toy_posteriors.posterior(model, x[0], POINTS[latent])
    cells = CELLS[latent]
    axes = [np.linspace(low, high, cells) for low, high in zip(drawn["low"], drawn["high"], strict=True)]
    spacing = axes[0][1] - axes[0][0]
    mass = drawn["peak"] * unpack(drawn["density"], *[cells] * latent) * spacing ** latent
    assert 0.97 < mass.sum() < 1.01
    mean = [(mass * axis).sum() / mass.sum() for axis in np.meshgrid(*axes, indexing="ij")]

    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(50_000, 1, latent, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        weights = torch.softmax(log_weights(model, x, eps)[:, 0], dim=0)
        mu, logvar = model.encode(x)
        z = model.reparameterize(mu, logvar, eps)[:, 0]
    np.testing.assert_allclose(mean, weights @ z, atol=0.05)             # the window cuts tails off
    np.testing.assert_allclose(drawn["mu"], mu[0])
    np.testing.assert_allclose(drawn["sd"], torch.exp(0.5 * logvar[0]))


# ---- the experiment ----------------------------------------------------------------------------------------------------


def test_the_first_layer_sees_standardized_points():
    x = points(count=300)
    model = toy_posteriors.begin(Images(x, x), 2, hidden=11)
    plain = toy_posteriors.build("vae", model.config, Images(x, x))
    standardized = (x - x.mean(dim=0)) / x.std(dim=0)
    torch.testing.assert_close(model.encoder.hidden(x), plain.encoder.hidden(standardized), rtol=0, atol=1e-5)
    with torch.no_grad():
        _, logvar = model.decode(torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
    assert float(torch.exp(0.5 * logvar).max()) < 5 * toy_posteriors.START_NOISE


def test_bounds_by_draws_average_over_points_and_groups():
    log_w = torch.randn(1000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bounds = dict(zip(AVERAGED, toy_posteriors.bounds_by_draws(log_w), strict=True))
    by_hand = [np.log(np.mean(np.exp(log_w[start:start + 10, point].numpy()))) for point in range(3)
               for start in range(0, 1000, 10)]
    assert abs(bounds[10] - np.mean(by_hand)) < 1e-12 and abs(bounds[1] - float(log_w.mean())) < 1e-12
    assert sorted(bounds.values()) == list(bounds.values())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The experiment, small, as reproduce.py would have it in its JSON."""
    folder = tmp_path_factory.mktemp("toy")
    settings = {
        "measure": {"training_points": 300, "test_points": 30, "hidden": 16, "grid": {"1": 401, "2": 81}, "samples": 300},
        "plan": {"epochs": 20, "lr": 1e-2, "evaluate_every": 10}, "runs": toy_posteriors.PRESETS["quick"]["runs"],
    }
    seen, done = [], {}
    for key, part in toy_posteriors.parts(settings).items():
        work = SimpleNamespace(device="cpu", checkpoint=folder / f"{key}.npz", dataset=None, progress=seen.append)
        done[key] = {"result": part.function(work, **part.arguments), "seconds": 1.0}
    assert seen[0] > 0 and seen[-1] == 1.0 and len(seen) > 4
    return json.loads(json.dumps({"settings": settings, "parts": done}))


def test_the_experiment_measures_what_the_theory_says(results):
    for key, part in results["parts"].items():
        result = part["result"]
        assert result["grid"]["twice_the_spacing_changes_log_p_by"] < 1e-3, key              # the grid is fine enough
        assert result["grid"]["spacing"] < result["grid"]["smallest_posterior_sd"]
        assert abs(result["log_p"] - result["log_p_by_importance_sampling"]) < 0.05
        assert result["log_p"] < result["log_p_of_source"]                                   # Gibbs
        assert abs(result["log_p"] - result["elbo"] - result["gap"]) < 1e-5 and result["gap"] > 0
        assert result["bounds"][0] == pytest.approx(result["elbo"], abs=1e-5)
        assert np.mean(result["gaps"]) == pytest.approx(result["gap"], abs=1e-3)
        assert result["bounds"][0] < result["bounds"][3] < result["log_p"] + 0.02
        assert [row["epoch"] for row in result["curve"]] == [10, 20]


def test_the_numbers_are_of_the_points_that_training_did_not_see(results):
    for part in results["parts"].values():
        x = toy.draw_points("moons", 330, np.random.default_rng(EVAL_SEED))[300:]
        result = part["result"]
        np.testing.assert_allclose(np.stack([result["x1"], result["x2"]], axis=1), x, atol=6e-5)          # rounded to 1e-4
        assert result["log_p_of_source"] == pytest.approx(toy.log_density("moons", x).mean(), abs=1e-5)
        # the half and nearly the last of 30 gaps in their order: B's is larger than that of 98% of the points
        assert [drawn["gap"] for drawn in result["posteriors"].values()] == pytest.approx(
            [sorted(result["gaps"])[i] for i in (15, 29)], abs=6e-5)


@pytest.mark.parametrize("latent", [1, 2])
def test_the_gaps_and_the_posteriors_are_those_of_their_points(latent):
    model, x = model_of(latent), points(count=21).double()
    found, exact = toy_posteriors.measure(model, x, 121, 50), log_p_by_quadrature(model, x, POINTS[latent], LIMIT)
    bounds = estimator_b(model, x, torch.randn(4000, 21, latent, generator=torch.Generator().manual_seed(1), dtype=x.dtype))
    # means of 1,000 and of 4,000 draws whose standard deviation is below 4, and the grid
    np.testing.assert_allclose(found["gaps"], (exact - bounds.detach()).numpy(), atol=5 * 4 / 800**0.5)
    for drawn in found["posteriors"].values():
        own = toy_posteriors.posterior(model, x[drawn["point"]], 121)
        assert drawn == {"point": drawn["point"], "gap": drawn["gap"]} | own
        assert drawn["gap"] == pytest.approx(found["gaps"][drawn["point"]], abs=6e-5)


def test_the_picture_shows_log_p_the_posterior_and_q_on_the_axes_of_z(results, monkeypatch):
    panels = figure_of(toy_posteriors.draw, results, monkeypatch).axes
    result = results["parts"]["moons-2"]["result"]
    first = panels[5]                                                    # five panels for each model, and color bars inset
    shown, packed = np.asarray(first.images[0].get_array()), unpack(result["map"]["log_p"], 120, 120)
    assert "Moons, 2 latents" in first.get_title(loc="left")
    np.testing.assert_allclose(shown, result["map"]["peak"] - 8 * (1 - packed), atol=1e-9)
    assert shown.max() == pytest.approx(result["map"]["peak"], abs=0.02)
    for axes, name in zip(panels[7:9], "AB", strict=True):
        posterior = result["posteriors"][name]
        density = np.asarray(axes.images[0].get_array())                 # (z2, z1)
        np.testing.assert_allclose(density, unpack(posterior["density"], CELLS[2], CELLS[2]).T)
        one, two = axes.patches
        assert (one.width, one.height) == pytest.approx([2 * sd for sd in posterior["sd"]])
        assert (two.width, two.height) == pytest.approx([4 * sd for sd in posterior["sd"]])
        assert tuple(one.center) == tuple(posterior["mu"])
    bounds, sampled = panels[9].lines[1:]
    assert list(bounds.get_ydata()) == result["bounds"] and list(sampled.get_ydata()) == [
        result["log_p_by_importance_sampling"]]


def test_the_experiment_draws_and_tells_its_results(results, tmp_path):
    toy_posteriors.draw(tmp_path / "toy.png", results)
    assert min(imread(tmp_path / "toy.png").shape[:2]) > 500
    rows = toy_posteriors.rows(results)
    log_p = results["parts"]["moons-2"]["result"]["log_p"]
    assert len(rows) == 4 and any("Moons, 2 latents" in what and f"{log_p:.3f} /" in ours for what, _, ours in rows)
    result = results["parts"]["moons-2"]["result"]
    assert rows[-1][2] == f"{result['elbo']:.3f}, {result['gap']:.3f}" and "ELBO, and its gap" in rows[-1][0]


def test_presets_resolve_their_posteriors_and_name_their_sets():
    for settings in toy_posteriors.PRESETS.values():
        parts = toy_posteriors.parts(settings)
        assert parts.keys() == settings["runs"].keys()
        assert all(run["data"] in toy.CURVES for run in settings["runs"].values())
        assert json.loads(json.dumps(settings)) == settings              # as it is compared on --resume
