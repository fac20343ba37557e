"""Figures 4 and 5 and the walks between faces: the pictures are where they say, of the model that says it.

    pytest tests/test_paper_pictures.py

`open_model` is a VAE whose decoder can be undone: two pixels tell both latents, so that each picture says which z it shows.
The presets are tried with the digits in place of MNIST and Frey Face, and a training of one epoch.
Letters: N images, D pixels, J latents, P pairs, S steps.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from oracles import figure_of
from scipy.special import ndtr, ndtri

from common import figures
from common.config import VAEConfig
from common.data import EVAL_SEED, Dataset, load_dataset
from paper import pictures
from paper.conditional_vae import ConditionalVAE
from paper.experiments import figure4, figure5, frey_walk
from paper.images import Images
from paper.packed import pack, unpack
from paper.paper_settings import begin, pick_step_size, plan
from paper.parts import Work
from paper.train_paper import evaluate, train
from paper.vae_paper import VAE
from paper.vq_vae import VQVAE

MODULES = [figure4, figure5, frey_walk]
SMALL = 0.01                # slope in tanh: with |z| < 5 its argument stays below 0.05, far from where it saturates
PACKED = 1 / 510 + 1e-6     # half a gray level, and float32


def open_model():
    """J = D = 2, float64: mu(x) = tanh(SMALL x) / SMALL, which is about x, and logit of mean(z) = tanh(SMALL z) / SMALL."""
    eye, zero = np.eye(2), np.zeros(2)
    params = {f"{name}.{part}": array for name, weight in (
        ("encoder.hidden", SMALL * eye), ("encoder.mu", eye / SMALL), ("encoder.logvar", 0 * eye),
        ("decoder.hidden", SMALL * eye), ("decoder.logits", eye / SMALL),
    ) for part, array in (("weight", weight), ("bias", zero))}
    return VAE(VAEConfig("mlp", (1, 2), hidden=2, latent=2), params)


def latents_of(images):
    """The z that open_model decoded to these images (N, 2)."""
    images = np.asarray(images)
    return np.arctanh(SMALL * (np.log(images) - np.log1p(-images))) / SMALL


def pages(figure):
    """The image arrays of a figure, in the order in which they were drawn."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


# ---- figure 4 ----------------------------------------------------------------------------------------------------------


def test_each_cell_of_the_plane_decodes_its_own_z():
    z = latents_of(figure4.decoded_plane(open_model(), 5)).reshape(5, 5, 2)                       # (row, column, latent)
    quantiles = ndtri((np.arange(5) + 0.5) / 5)
    for i in range(5):
        np.testing.assert_allclose(z[i, :, 0], quantiles, rtol=1e-9, atol=1e-9)                   # z1: left to right
        np.testing.assert_allclose(z[:, i, 1], quantiles[::-1], rtol=1e-9, atol=1e-9)             # z2: bottom to top


def results_of_planes(side):
    """As reproduce.py has them, the plane of open_model twice."""
    result = {"plane": pack(figure4.decoded_plane(open_model(), side)), "image_shape": [1, 2], "elbo": -1.25,
              "step": {"mean": 0.2, "largest": 0.4}, "inside": 0.875, "test_images": 8}
    return {"settings": {"planes": {name: {"name": f"plane {name}", "side": side} for name in "ab"}},
            "parts": {name: {"result": result} for name in "ab"}}


def test_figure_4_shows_z1_left_to_right_and_z2_bottom_to_top_at_its_ticks(monkeypatch):
    side = 6
    figure = figure_of(figure4.draw, results_of_planes(side), monkeypatch)
    axes, twin = figure.axes
    np.testing.assert_array_equal(*pages(figure))
    zoom = figures.PANEL // side
    cells = pages(figure)[0][zoom // 2::zoom + figures.GAP]                                     # a row of each picture
    z1, z2 = cells[:, zoom // 2::2 * zoom + figures.GAP], cells[:, 3 * zoom // 2::2 * zoom + figures.GAP]
    assert z1.shape == z2.shape == (side, side)
    assert (np.diff(z1, axis=1) > 0.02).all() and (np.diff(z1, axis=0) == 0).all()
    assert (np.diff(z2, axis=0) < -0.02).all() and (np.diff(z2, axis=1) == 0).all()
    assert axes.images[0].get_extent() == [0, 1, 0, 1] and axes.images[0].origin == "upper"
    np.testing.assert_allclose(axes.get_xticks(), ndtr([-1, 0, 1]))
    np.testing.assert_allclose(axes.get_yticks(), ndtr([-1, 0, 1]))
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["\N{MINUS SIGN}1", "0", "1"]
    assert axes.get_xlabel() == "$z_1$" and axes.get_ylabel() == "$z_2$"
    assert twin.get_position().x0 > axes.get_position().x1                                        # beside, not on top


def test_steps_are_those_between_neighbors_over_the_distance_of_any_two():
    side, plane = 3, torch.tensor(np.random.default_rng(0).random((9, 4)))
    cell = [(i // side, i % side) for i in range(side * side)]
    apart = {(i, j): np.linalg.norm(plane[i] - plane[j]) for i in range(9) for j in range(i)}
    near = [distance for (i, j), distance in apart.items()
            if abs(cell[i][0] - cell[j][0]) + abs(cell[i][1] - cell[j][1]) == 1]
    assert len(near) == 12
    mean = np.mean(list(apart.values()))
    found = figure4.steps(plane, side)
    np.testing.assert_allclose([found["mean"], found["largest"]], [np.mean(near) / mean, max(near) / mean], rtol=1e-12)


def test_inside_counts_the_means_between_the_outermost_points_of_the_grid():
    edge = ndtri(1 - 0.5 / 10)
    inside, outside = 0.99 * edge, 1.01 * edge                           # tanh moves them by a part in 10,000
    x = torch.tensor([[0, 0], [inside, -inside], [outside, 0], [0, -outside], [-outside, outside]], dtype=torch.float64)
    assert figure4.share_inside(open_model(), x, 10) == pytest.approx(2 / 5)


def test_the_rows_of_figure_4_say_mean_before_largest_and_the_share_inside():
    told = {what: ours for what, _, ours in figure4.rows(results_of_planes(6))}
    assert list(told.values()) == 2 * ["-1.2", "0.20 / 0.40", "88%"]
    assert "mean / largest" in list(told)[1]


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_a_model_is_trained_until_it_saw_the_samples_with_the_step_size_of_the_first_of_them(likelihood, tmp_path):
    """Again, by hand; its bound is that of the test images."""
    gray = np.random.default_rng(0).random((60, 6)).astype(np.float32)
    data = Dataset("tiny", (2, 3), gray, None, 1 - gray[:9] / 2)
    work = Work("cpu", tmp_path / "checkpoint.npz", lambda name: data, lambda share: None, tmp_path / "notes.json",
                tmp_path / "params.npz")
    network = {"hidden": 5, "latent": 2, "likelihood": likelihood}
    model, images, told = figure4.trained(work, "tiny", network, {"pick_samples": 180}, 600)
    config = VAEConfig("mlp", (2, 3), **network)
    again = begin("vae", config, images)
    train(again, images, plan(images, 600, told["lr"]))
    assert told["tried"] == pick_step_size("vae", config, images, 180)["tried"]
    assert images.dynamic == (likelihood == "bernoulli") and told["elbo"] == evaluate(again, images.x_test)["elbo"]
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())


# ---- figure 5 ----------------------------------------------------------------------------------------------------------


def test_draws_are_means_at_standard_normal_z_and_the_same_for_the_same_seed():
    count = 5000
    images = figure5.prior_draws(open_model(), count, torch.Generator().manual_seed(0))
    z = latents_of(images)
    assert z.shape == (count, 2)
    # five standard errors: of a mean 1/sqrt(n), of a mean square sqrt(2/n), of a mean product 1/sqrt(n)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=5 / count**0.5)
    np.testing.assert_allclose((z * z).mean(axis=0), 1, atol=5 * (2 / count) ** 0.5)
    assert abs((z[:, 0] * z[:, 1]).mean()) < 5 / count**0.5
    again, other = (figure5.prior_draws(open_model(), count, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(images, again) and not torch.equal(images, other)


def test_figure_5_has_a_square_for_each_number_of_latents_in_their_order(monkeypatch):
    rng, count = np.random.default_rng(0), figure5.ACROSS**2
    draws = {latent: rng.random((count, 6)) for latent in (2, 5, 10)}
    figure = figure_of(figure5.draw, {
        "settings": {"name": "made up", "latents": [2, 5, 10]},
        "parts": {f"vae-{latent}": {"result": {"draws": pack(images), "image_shape": [2, 3]}}
                  for latent, images in draws.items()},
    }, monkeypatch)
    zoom = figures.PANEL // (2 * figure5.ACROSS * 2)
    for axes, page, (latent, images) in zip(figure.axes, pages(figure), draws.items(), strict=True):
        assert axes.get_title(loc="left") == f"{latent} latents"
        np.testing.assert_allclose(page, figures.tile(images, (2, 3), figure5.ACROSS, zoom), atol=PACKED)
    lefts = [axes.get_position().x0 for axes in figure.axes]
    assert all(left > before.get_position().x1 for left, before in zip(lefts[1:], figure.axes, strict=False))


# ---- walks between faces -----------------------------------------------------------------------------------------------


def test_mutually_far_codes_are_chosen_by_the_rule_whatever_their_order():
    codes = torch.tensor([[0.0, 0], [3, 4], [6, 8], [30, 40], [15, 20], [6, 8.5]])
    # 0, 5, 10, 50, 25 on a line, and one beside. Their mean lies near 17: 50 is the farthest from it, 0 the farthest from
    # 50, and 25 has both at 25. Then the last has its nearest at 10.4, the one at 10 has it at 10, that at 5 at 5
    assert frey_walk.far_apart(codes, 4).tolist() == [3, 0, 4, 5]
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    assert torch.equal(codes[order][frey_walk.far_apart(codes[order], 4)], codes[[3, 0, 4, 5]])


def test_a_walk_has_both_ends_and_equal_steps():
    rng = np.random.default_rng(0)
    start, end = (torch.tensor(rng.standard_normal((3, 4)), dtype=torch.float32) for _ in range(2))
    points = frey_walk.walk(start, end, 5)
    assert points.shape == (3, 5, 4) and torch.equal(points[:, 0], start) and torch.equal(points[:, -1], end)
    for s in range(5):                                                   # atol: a few roundings of float32 at 1
        np.testing.assert_allclose(points[:, s], start + (end - start) * s / 4, atol=1e-6)


def test_the_distance_to_the_nearest_is_a_root_mean_square_over_pixels():
    rng = np.random.default_rng(1)
    images, real = rng.random((3, 5)), rng.random((4, 5))
    expected = np.mean([min(np.sqrt(np.mean((image - other) ** 2)) for other in real) for image in images])
    assert frey_walk.nearest(torch.tensor(images), torch.tensor(real)) == pytest.approx(expected, rel=1e-12)


def test_middles_are_half_way_in_latents_and_in_pixels():
    x = torch.tensor([[0.1, 0.9], [0.7, 0.3]], dtype=torch.float64)
    model, sources = open_model(), {}
    with torch.no_grad():
        mu, _ = model.encode(x)
        sources = {"walk": model.decode_mean(mu.mean(dim=0, keepdim=True)), "fade": x.mean(dim=0, keepdim=True),
                   "ends": model.decode_mean(mu), "real": x}
    for name, x_train in sources.items():                                # each is in the training set, the others are not
        found = frey_walk.middles(model, x_train, x, torch.Generator().manual_seed(0))
        assert found.pop("pairs") == 1
        assert {other for other, distance in found.items() if distance < 1e-7} == {name}, name
    odd = torch.cat([x, x[:1]])
    assert frey_walk.middles(model, x, odd, torch.Generator().manual_seed(0))["pairs"] == 1
    # three images, of which two make a pair: in random order each of the three pairs comes up
    three = torch.tensor([[0.1, 0.9], [0.7, 0.3], [0.2, 0.2]], dtype=torch.float64)
    seen = {round(frey_walk.middles(model, x, three, torch.Generator().manual_seed(seed))["fade"], 9) for seed in range(20)}
    assert len(seen) == 3


def test_the_rows_of_the_walks_have_walks_before_fades_and_reconstructions_before_faces():
    middles = {"walk": 0.1, "fade": 0.2, "ends": 0.3, "real": 0.4, "pairs": 7}
    rows = frey_walk.rows({"settings": {"name": "made up", "network": {"latent": 3}},
                           "parts": {"vae": {"result": {"elbo": 5.0, "middles": middles}}}})
    assert [ours for _, _, ours in rows] == ["5.0", "0.100 / 0.200", "0.300 / 0.400"]
    assert "walks / of cross-fades" in rows[1][0] and "reconstructions of test images / for the test images" in rows[2][0]


def test_the_strip_has_the_real_faces_at_both_ends_and_the_cross_fade_under_the_walk(monkeypatch):
    rng, (count, steps) = np.random.default_rng(0), (frey_walk.PAIRS, frey_walk.STEPS)
    walks, fades = rng.random((2, count, steps, 6))
    figure = figure_of(frey_walk.draw, {
        "settings": {"name": "made up", "network": {"latent": 3}},
        "parts": {"vae": {"result": {"walks": pack(walks), "fades": pack(fades), "image_shape": [2, 3]}}},
    }, monkeypatch)
    zoom = figures.PANEL // (steps * 3)
    expected = [figures.tile(images, (2, 3), len(images), zoom) for walk, fade in zip(walks, fades, strict=True)
                for images in (fade[:1], fade[-1:], walk, fade)]
    for page, images in zip(pages(figure), expected, strict=True):
        np.testing.assert_allclose(page, images, atol=PACKED)
    for first, last, walk, fade in zip(*[iter(axes.get_position() for axes in figure.axes)] * 4, strict=True):
        assert first.x1 < walk.x0 and walk.x1 < last.x0 and fade.x0 == walk.x0
        assert first.y1 == pytest.approx(walk.y1) == pytest.approx(last.y1) and fade.y1 < walk.y0


# ---- the pictures of a run ---------------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch):
    """What is given to the functions of common/figures.py, by picture: arrays and words."""
    found = {}

    def keep(path, *arguments):
        found[path.name] = arguments

    names = ("reconstructions", "latent_scatter", "prior_samples", "manifold", "label_grid", "code_maps")
    monkeypatch.setattr(pictures, "figures", lambda: SimpleNamespace(**dict.fromkeys(names, keep),
                                                                     latent_grid=figures.latent_grid))
    return found


def test_a_run_shows_its_test_images_their_means_and_draws_from_the_prior(told, tmp_path):
    rng = np.random.default_rng(0)
    x, y = torch.tensor(rng.standard_normal((25, 2))), torch.tensor(rng.integers(10, size=25))
    pictures.draw_pictures(tmp_path, open_model(), Images(x.flip(0), x, None, y.flip(0), y))
    shown, decoded, shape = told["reconstructions.png"]
    np.testing.assert_array_equal(shown, x[:10])
    np.testing.assert_allclose(latents_of(decoded), x[:10], rtol=2e-3)   # tanh moves them by a part in 1,000
    means, labels = told["latent_scatter.png"]
    np.testing.assert_allclose(means, x, rtol=2e-3)
    np.testing.assert_array_equal(labels, y)
    z = latents_of(told["prior_samples.png"][0])
    # five standard errors of 200 numbers: of a mean 0.07, of a mean square 0.1; of a box of that spread none is above 1.8
    assert abs(z.mean()) < 0.35 and abs((z * z).mean() - 1) < 0.5 and 2.2 < np.abs(z).max() < 5
    np.testing.assert_allclose(latents_of(told["manifold.png"][0]), figures.latent_grid(2), atol=1e-9)
    assert shape == (1, 2)


def test_a_run_of_a_conditional_vae_shows_each_at_its_label_or_at_all(told, tmp_path):
    model = ConditionalVAE(VAEConfig("mlp", (2, 3), hidden=4, latent=2, condition=3)).double()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += torch.tensor(rng.standard_normal(weight.shape))
    x, y = torch.tensor((rng.random((25, 6)) < 0.5) * 1.0), torch.tensor(rng.integers(3, size=25))
    pictures.draw_pictures(tmp_path, model, Images(x.flip(0), x, None, y.flip(0), y))
    means = torch.cat([model.given(label[None]).encode(image[None])[0] for image, label in zip(x, y, strict=True)]).detach()

    def decoded(z, label):
        return model.given(torch.tensor([label])).decode_mean(z[None])[0].detach().numpy()

    np.testing.assert_allclose(told["latent_scatter.png"][0], means, atol=1e-12)
    np.testing.assert_array_equal(told["latent_scatter.png"][1], y)
    own = [decoded(means[i], int(y[i])) for i in range(10)]
    np.testing.assert_allclose(told["reconstructions.png"][1], own, atol=1e-12)
    swapped, styles = told["label_swap.png"][0], told["condition_grid.png"][0]           # (10, 3, 6)
    np.testing.assert_allclose(swapped, [[decoded(z, label) for label in range(3)] for z in means[:10]], atol=1e-12)
    np.testing.assert_array_equal(told["label_swap.png"][3], x[:10])
    assert styles.shape == swapped.shape and np.abs(styles - swapped).max() > 0.1


def test_a_run_of_a_vq_vae_shows_each_image_between_its_codes_and_its_reconstruction(told, tmp_path):
    rng = np.random.default_rng(0)
    model = VQVAE(VAEConfig("conv", (8, 12), latent=5), codes=7).draw_weights(rng, np.full(96, 0.4)).double().eval()
    x = torch.tensor(rng.random((12, 96)))
    with torch.no_grad():
        model.codebook.vectors.copy_(model.encode(x)[::10][:7])          # all in use
        pictures.draw_pictures(tmp_path, model, Images(x.flip(0), x))
        codes = [model.codes(image[None]) for image in x[:10]]
        own = [(model.code_maps(each)[0], model.decode_codes(each)[0]) for each in codes]
    shown, maps, decoded, shape = told["reconstructions.png"]
    np.testing.assert_array_equal(shown, x[:10])
    for i, (code_map, picture) in enumerate(own):
        np.testing.assert_array_equal(maps[i], code_map)
        np.testing.assert_allclose(decoded[i], picture, atol=1e-12)
    assert shape == (8, 12) and len({code_map.numpy().tobytes() for code_map, _ in own}) > 1, "all codes alike"


# ---- the presets -------------------------------------------------------------------------------------------------------


def keys_of(tree):
    return {key: keys_of(branch) for key, branch in tree.items()} if isinstance(tree, dict) else None


@pytest.mark.parametrize("module", MODULES)
def test_settings_come_back_from_json_and_the_large_presets_differ_in_numbers_only(module):
    for settings in module.PRESETS.values():
        assert json.loads(json.dumps(settings)) == settings
    assert keys_of(module.PRESETS["cpu"]) == keys_of(module.PRESETS["gpu"])


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """{module: (results of its cpu preset, {part: folder})}, digits in place of all data, one epoch of training."""
    digits, found = load_dataset("digits"), {}
    for module in MODULES:
        settings = json.loads(json.dumps(module.PRESETS["cpu"])) | {"training_samples": 1000}
        for holder in (settings, *settings.get("planes", {}).values()):
            if "training" in holder:
                holder["training"]["pick_samples"] = 1000
        done, folders = {}, {}
        for key, part in module.parts(settings).items():
            folders[key] = tmp_path_factory.mktemp(key)
            work = Work("cpu", folders[key] / "checkpoint.npz", lambda name: digits, lambda share: None,
                        folders[key] / "notes.json", folders[key] / "params.npz")
            done[key] = {"result": part.function(work, **part.arguments)}
        found[module] = json.loads(json.dumps({"settings": settings, "parts": done})), folders
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_preset_runs_draws_and_says_the_bound_of_the_weights_it_keeps(module, tried, tmp_path):
    results, folders = tried[module]
    module.draw(tmp_path / "picture.png", results)
    picture = imread(tmp_path / "picture.png")
    assert min(picture.shape[:2]) > 200 and picture.std() > 0.02
    said = " ".join(ours for _, _, ours in module.rows(results))
    for key, part in results["parts"].items():
        model = VAE.load(folders[key] / "params.npz")
        images = Images.of(load_dataset("digits"), likelihood=model.config.likelihood)
        with torch.no_grad():
            elbo = evaluate(model, images.x_test)["elbo"]
        assert part["result"]["elbo"] == pytest.approx(elbo, abs=1e-4), key                       # float32, 179 images
        assert f"{elbo:.1f}" in said


def test_the_packed_pictures_are_those_of_the_kept_weights(tried):
    results, folders = tried[figure4]
    for key, plane in results["settings"]["planes"].items():
        model, result = VAE.load(folders[key] / "params.npz"), results["parts"][key]["result"]
        expected = figure4.decoded_plane(model, plane["side"])
        np.testing.assert_allclose(unpack(result["plane"], *expected.shape), expected, atol=PACKED)
        x = Images.of(load_dataset("digits"), likelihood=model.config.likelihood).x_test
        assert result["step"] == figure4.steps(expected, plane["side"])
        assert result["inside"] == figure4.share_inside(model, x, plane["side"]) and result["test_images"] == len(x)
    results, folders = tried[figure5]
    for latent in results["settings"]["latents"]:
        model = VAE.load(folders[f"vae-{latent}"] / "params.npz")
        assert model.config.latent == latent
        expected = figure5.prior_draws(model, 100, torch.Generator().manual_seed(EVAL_SEED))
        draws = results["parts"][f"vae-{latent}"]["result"]["draws"]
        np.testing.assert_allclose(unpack(draws, *expected.shape), expected, atol=PACKED)


@torch.no_grad()
def test_walks_go_from_one_real_image_to_the_other_of_its_pair(tried):
    results, folders = tried[frey_walk]
    images = Images.of(load_dataset("digits"), likelihood="gaussian")
    result, x = results["parts"]["vae"]["result"], images.x_test
    model, shape = VAE.load(folders["vae"] / "params.npz"), (frey_walk.PAIRS, frey_walk.STEPS, x.shape[1])
    walks, fades = unpack(result["walks"], *shape), unpack(result["fades"], *shape)
    assert result["middles"] == frey_walk.middles(model, images.x_train, x, torch.Generator().manual_seed(EVAL_SEED))
    codes, _ = model.encode(x)
    chosen = frey_walk.far_apart(codes, 2 * frey_walk.PAIRS).tolist()
    assert len(set(chosen)) == 2 * frey_walk.PAIRS
    assert list(zip(*result["pairs"], strict=True)) == list(zip(chosen[::2], chosen[1::2], strict=True))
    for end, rows in zip((0, -1), result["pairs"], strict=True):
        np.testing.assert_allclose(fades[:, end], x[rows], atol=PACKED)
        np.testing.assert_allclose(walks[:, end], model.decode_mean(codes[rows]), atol=PACKED)
    middle = codes[result["pairs"][0]] / 2 + codes[result["pairs"][1]] / 2
    np.testing.assert_allclose(walks[:, frey_walk.STEPS // 2], model.decode_mean(middle), atol=PACKED)


def test_the_same_settings_give_the_same_results(tried, tmp_path):
    results, _ = tried[frey_walk]
    part = frey_walk.parts(results["settings"])["vae"]
    work = Work("cpu", tmp_path / "checkpoint.npz", lambda name: load_dataset("digits"), lambda share: None,
                tmp_path / "notes.json", tmp_path / "params.npz")
    again = json.loads(json.dumps(part.function(work, **part.arguments)))
    assert again | {"training_seconds": 0} == results["parts"]["vae"]["result"] | {"training_seconds": 0}
