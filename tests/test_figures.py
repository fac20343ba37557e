"""The pictures of common/figures.py: what they show, and that odd inputs and failing writes do no harm.

    python -m pytest tests/test_figures.py
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sample_numpy
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from networks_numpy import decode, encode
from scipy.special import ndtr

from common import figures
from common.checkpoints import save_params
from common.config import VAEConfig, init_params
from common.figures import DPI, GAP, GRAYMAP, PANEL, PAPER, latent_grid, tile

SHAPES = [(28, 28), (28, 20), (8, 8), (1, 2)]
ROW = {"train_elbo": -110.0, "test_elbo": -112.0, "test_log_likelihood": -90.0, "test_kl": 22.0}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def drawn(monkeypatch):
    """Every figure function returns its matplotlib figure instead of writing it."""
    monkeypatch.setattr(figures, "save", lambda figure, path: figure)


def assert_readable(path, folder):
    """A picture with several shades lies at `path`, and nothing else in `folder`."""
    picture = imread(path)
    assert picture.ndim == 3 and min(picture.shape[:2]) > 20 and len(np.unique(picture[..., 0])) > 2
    assert [file.name for file in folder.iterdir()] == [Path(path).name]


def curve_rows(elbos):
    return [{**ROW, "epoch": i + 1, "train_elbo": elbo, "test_elbo": elbo - 2} for i, elbo in enumerate(elbos)]


# the latent grid

def test_the_latent_grid_puts_z1_left_to_right_and_z2_bottom_to_top():
    grid = latent_grid(2, side=5).reshape(5, 5, 2)              # (row from the top, column, latent)
    quantiles = (np.arange(5) + 0.5) / 5
    np.testing.assert_allclose(ndtr(grid[..., 0]), np.tile(quantiles, (5, 1)), rtol=1e-12)
    np.testing.assert_allclose(ndtr(grid[..., 1]), np.tile(quantiles[::-1, None], (1, 5)), rtol=1e-12)


def test_the_latent_grid_of_one_dimension_is_a_line_through_the_quantiles():
    grid = latent_grid(1, side=3)
    assert grid.shape == (9, 1)
    np.testing.assert_allclose(ndtr(grid[:, 0]), (np.arange(9) + 0.5) / 9, rtol=1e-12)


def test_the_latent_grid_beyond_two_dimensions_shows_the_same_prior_draws_again():
    grid = latent_grid(20, side=10, seed=3)
    assert grid.shape == (100, 20)
    np.testing.assert_array_equal(grid, latent_grid(20, side=10, seed=3))
    assert not np.array_equal(grid, latent_grid(20, side=10, seed=4))
    assert abs(grid.mean()) < 0.1 and abs(grid.std() - 1) < 0.1             # 2,000 draws: four standard errors and more


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_the_latent_grid_is_float64_with_side_times_side_rows(latent):
    assert latent_grid(latent).shape == (400, latent) and latent_grid(latent).dtype == np.float64


# the tile

def test_a_tile_keeps_reading_order_gaps_and_non_square_images():
    images = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    g, gaps = [PAPER] * GAP, [[PAPER] * (4 + GAP)] * GAP
    expected = [[0.1, 0.2, *g, 0.3, 0.4], *gaps, [0.5, 0.6, *g, PAPER, PAPER]]
    np.testing.assert_array_equal(tile(images, (1, 2), columns=2), expected)
    upright = [[0.1, *g, 0.3], [0.2, *g, 0.4]]
    np.testing.assert_array_equal(tile(images[:2], (2, 1), columns=2), upright)


def test_a_zoomed_tile_repeats_pixels_and_not_gaps():
    page = tile(np.array([[0.1, 0.2], [0.3, 0.4]]), (1, 2), columns=1, zoom=3)
    assert page.shape == (3 + GAP + 3, 6)
    np.testing.assert_array_equal(page[:3], np.repeat([[0.1, 0.2]], 3, axis=0).repeat(3, axis=1))
    np.testing.assert_array_equal(page[3:3 + GAP], PAPER)


def test_images_that_do_not_fit_their_shape_are_refused():
    with pytest.raises(ValueError):
        tile(np.zeros((4, 6)), (2, 2), columns=2)


@pytest.mark.parametrize("image_shape", SHAPES)
def test_images_lie_on_the_page_pixel_for_pixel(tmp_path, rng, image_shape):
    images = rng.random((9, image_shape[0] * image_shape[1]))
    picture = imread(figures.prior_samples(tmp_path / "a.png", images, image_shape))[..., :3]
    page = GRAYMAP(tile(images, image_shape, 3, PANEL // (3 * max(image_shape))))[..., :3]
    height, width = page.shape[:2]
    bottom, left = picture.shape[0] - round(0.12 * DPI), round(0.12 * DPI)             # the margin of save
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    errors = [np.abs(picture[bottom - height + dy:bottom + dy, left + dx:left + dx + width] - page).max()
              for dy, dx in shifts]
    assert min(errors) < 1.5 / 255, f"no place where the picture is the tile; off by {min(errors):.3f}"    # PNG rounds


# every picture, with odd inputs

@pytest.mark.parametrize("image_shape", SHAPES)
def test_pictures_of_images_are_written_for_every_shape(tmp_path, rng, image_shape):
    pixels = image_shape[0] * image_shape[1]
    pictures = {
        "reconstructions": lambda path: figures.reconstructions(path, *rng.random((2, 7, pixels)), image_shape),
        "prior_samples": lambda path: figures.prior_samples(path, rng.random((10, pixels)), image_shape),
        "posterior_draws": lambda path: figures.posterior_draws(path, rng.random((3, pixels)),
                                                                rng.random((3, 8, pixels)), image_shape),
        "manifold": lambda path: figures.manifold(path, rng.random((25, pixels)), image_shape),
        "filmstrip": lambda path: figures.filmstrip(path, rng.random((7, 4, pixels)), range(7), image_shape)}
    for name, draw in pictures.items():
        folder = tmp_path / name
        folder.mkdir()
        path = folder / "picture.png"
        assert draw(path) == path
        assert_readable(path, folder)


def test_one_image_and_nan_pixels_are_drawn(tmp_path, rng):
    nan, path = np.full((1, 4), np.nan), tmp_path / "picture.png"
    figures.prior_samples(path, nan, (2, 2))
    assert (np.abs(imread(path)[..., :3] - GRAYMAP(np.nan)[:3]).max(axis=2) < 0.01).mean() > 0.5       # red, not black
    assert_readable(figures.reconstructions(path, nan, rng.random((1, 4)), (2, 2)), tmp_path)
    assert_readable(figures.posterior_draws(path, nan, rng.random((1, 8, 4)), (2, 2)), tmp_path)
    assert_readable(figures.filmstrip(path, nan[None], [0], (2, 2)), tmp_path)


@pytest.mark.parametrize("latent", [1, 2, 3, 20])
@pytest.mark.parametrize("count", [0, 1, 2, 300])
@pytest.mark.parametrize("labels", ["none", "three", "many"])
def test_a_latent_scatter_is_drawn_for_every_number_of_latents_images_and_labels(drawn, rng, latent, count, labels):
    mu = rng.standard_normal((count, latent))
    mu[2:3] = np.nan
    y = {"none": None, "three": rng.choice([3, 17, 90], count), "many": rng.integers(0, 47, count)}[labels]
    axes = figures.latent_scatter(None, mu, y).axes[0]
    dots = axes.collections[0].get_offsets()
    assert len(dots) == len(mu) - (count > 2) and np.isfinite(np.asarray(dots)).all()
    assert ("1 of 300 are not finite" in axes.get_title(loc="left")) == (count > 2)


def test_a_latent_scatter_names_its_labels_and_says_when_it_projects(drawn, rng):
    mu, y = rng.standard_normal((30, 3)) * [0.1, 10, 1], np.repeat([3, 17, 90], 10)
    axes = figures.latent_scatter(None, mu, y).axes[0]
    assert [text.get_text() for text in axes.child_axes[0].get_yticklabels()] == ["3", "17", "90"]
    assert axes.get_xlabel().startswith("principal component 1 (9") and axes.get_xlabel().endswith("of the variance)")
    shown = np.sort(np.asarray(axes.collections[0].get_offsets())[:, 0])
    np.testing.assert_allclose(shown, np.sort(mu[:, 1] - mu[:, 1].mean()), atol=0.5)    # the wide latent, up to a tilt
    plain = figures.latent_scatter(None, mu[:, :2]).axes[0]
    assert plain.get_xlabel() == "$z_1$" and plain.get_ylabel() == "$z_2$"
    assert plain.child_axes[0].get_ylabel() == "frame number in the test set"


@pytest.mark.parametrize("elbos", [[], [-110.0], [-110.0, np.nan, -np.inf, np.inf, 1e300, -105.0], [np.nan]])
def test_a_curve_is_drawn_for_any_number_of_rows_and_what_is_not_finite(tmp_path, elbos):
    assert_readable(figures.curve(tmp_path / "curve.png", curve_rows(elbos)), tmp_path)


def test_an_early_epoch_far_off_does_not_squash_the_curve_and_is_mentioned(drawn):
    axes = figures.curve(None, curve_rows([-550.0, -120.0, -112.0, -110.0, -109.0, np.nan])).axes[0]
    low, high = axes.get_ylim()
    assert -130 < low < -122 and -109 < high < -100
    assert axes.get_title(loc="right") == "not drawn: 2 early, 2 not finite"             # train and test
    diverged = figures.curve(None, curve_rows([np.nan])).axes[0]
    assert diverged.get_title(loc="right") == "not drawn: 2 not finite"
    near = figures.curve(None, curve_rows([-125.0, -120.0, -112.0, -110.0])).axes[0]
    assert near.get_ylim()[0] < -127 and near.get_title(loc="right") == ""


@pytest.mark.parametrize("latent", [1, 2, 20, 50, 200])
def test_kl_bars_are_sorted_and_keep_their_index(drawn, rng, latent):
    kl = rng.exponential(size=latent)
    kl[1::3] = 0.001
    figure = figures.kl_per_dimension(None, kl)
    names = [int(text.get_text()) for axes in figure.axes for text in axes.get_xticklabels()]
    heights = [bar.get_height() for axes in figure.axes for bar in axes.patches]
    np.testing.assert_array_equal(heights, kl[names])
    assert sorted(names) == list(range(latent)) and (np.diff(heights) <= 0).all()
    title = figure.axes[0].get_title(loc="left")
    assert f"{kl.sum():.2f} nats" in title and f"{(kl > 0.01).sum()} of {latent} dimensions are active" in title


def test_kl_that_is_not_finite_is_drawn_and_mentioned(drawn):
    figure = figures.kl_per_dimension(None, np.array([np.nan, 1.0, np.inf, 0.0]))
    title = figure.axes[0].get_title(loc="left")
    assert "1 of 4 dimensions are active" in title and "2 not finite" in title


def test_gradient_differences_tell_zero_nan_and_failure_in_words(drawn):
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    figure = figures.gradient_differences(None, names, [1e-15, 0.0, np.nan, np.inf], [1e-9, 0.37, 1e-6, 1e-300],
                                          1e-9, 1e-6, "mlp")
    left, right = ([text.get_text() for text in axes.texts] for axes in figure.axes)
    assert left == ["1e-15", "exactly 0", "not finite", "not finite"] and right == ["1e-09", "4e-01", "1e-06", "1e-300"]
    failed = [[text.get_weight() == "bold" for text in axes.texts] for axes in figure.axes]
    assert failed == [[False, False, True, True], [False, True, False, False]]           # at the tolerance is within it


@pytest.mark.parametrize("values", [[], [0.0], [np.nan], [1e-12, 1e300]])
def test_gradient_differences_are_written_for_odd_values(tmp_path, values):
    names = [f"parameter{i}" for i in range(len(values))]
    path = figures.gradient_differences(tmp_path / "g.png", names, values, values, 1e-9, 1e-6, "odd")
    assert_readable(path, tmp_path)


def test_the_other_charts_are_written_too(tmp_path, rng):
    path = tmp_path / "chart.png"
    assert_readable(figures.kl_per_dimension(path, np.array([0.5, np.nan])), tmp_path)
    for latent in (1, 2, 20):
        assert_readable(figures.latent_scatter(str(path), rng.standard_normal((9, latent)), np.arange(9) % 3), tmp_path)


# orientation

def median_place(picture, gray, axis):
    """Where along the axis (0 rows, 1 columns) pixels of this gray lie."""
    return np.median(np.nonzero((np.abs(picture[..., :3] - gray) < 0.01).all(axis=2))[axis])


def test_the_manifold_shows_z1_left_to_right_and_z2_bottom_to_top(tmp_path):
    z = latent_grid(2, side=3)
    grays = [1 / 6, 1 / 2, 5 / 6]                                                        # a decoder that shows ndtr(z)
    across = imread(figures.manifold(tmp_path / "z1.png", np.repeat(ndtr(z[:, :1]), 4, axis=1), (2, 2)))
    upward = imread(figures.manifold(tmp_path / "z2.png", np.repeat(ndtr(z[:, 1:]), 4, axis=1), (2, 2)))
    columns = [median_place(across, gray, 1) for gray in grays]
    rows = [median_place(upward, gray, 0) for gray in grays]
    assert columns[0] + 100 < columns[1] < columns[2] - 100
    assert rows[0] - 100 > rows[1] > rows[2] + 100


def test_the_manifolds_ticks_stand_at_the_quantiles(drawn):
    axes = figures.manifold(None, np.zeros((4, 4)), (2, 2)).axes[0]
    np.testing.assert_allclose(axes.get_xticks(), ndtr([-2, -1, 0, 1, 2]))
    np.testing.assert_allclose(axes.get_yticks(), ndtr([-2, -1, 0, 1, 2]))
    assert axes.images[0].get_extent() == [0, 1, 0, 1]


def test_a_manifold_that_is_no_square_is_refused(tmp_path):
    with pytest.raises(ValueError, match="side"):
        figures.manifold(tmp_path / "m.png", np.zeros((5, 4)), (2, 2))


def test_a_filmstrip_titles_its_panels_with_the_epochs_and_wraps_beyond_six(drawn):
    for count, rows in ((1, 1), (6, 1), (7, 2), (10, 2)):
        panels = figures.filmstrip(None, np.zeros((count, 4, 4)), range(count), (2, 2)).axes
        assert [axes.get_title(loc="left") for axes in panels] == [f"epoch {i}" for i in range(count)]
        assert len({round(axes.get_position().y0, 6) for axes in panels}) == rows


# which is which

def test_each_panel_of_gradient_differences_has_its_own_tolerance(drawn):
    panels = figures.gradient_differences(None, ["w"], [1e-7], [1e-7], 1e-9, 1e-6, "mlp").axes
    for axes, tolerance, color in zip(panels, (1e-9, 1e-6), (figures.RED, figures.GREEN), strict=True):
        assert [line.get_xdata()[0] for line in axes.lines] == [tolerance]
        bar, = axes.patches
        assert to_hex(bar.get_facecolor()).upper() == color, f"1e-7 at the tolerance {tolerance}"
        assert (axes.texts[0].get_weight() == "bold") == (color == figures.RED)


def test_the_lines_of_the_curve_are_what_their_names_say(drawn):
    rows = [{"epoch": epoch, "train_elbo": -110.0 - epoch, "test_elbo": -120.0 - epoch,
             "test_log_likelihood": -90.0 - epoch, "test_kl": 20.0 + epoch} for epoch in (1, 2, 3)]
    panels = figures.curve(None, rows).axes
    lines = [({line.get_label(): line for line in axes.lines}, axes.get_ylabel()) for axes in panels]
    expected = {"ELBO\n(nats per image)": {"train": "train_elbo", "test": "test_elbo"},
                "log p(x|z), test\n(nats per image)": {"test": "test_log_likelihood"},
                "KL, test\n(nats per image)": {"test": "test_kl"}}
    assert [name for _, name in lines] == list(expected)
    for found, name in lines:
        assert set(found) == set(expected[name])
        for label, key in expected[name].items():
            assert found[label].get_xdata().tolist() == [1, 2, 3]
            assert found[label].get_ydata().tolist() == [row[key] for row in rows], f"{label} of {name}"
            assert found[label].get_color() == {"train": figures.BLUE, "test": figures.ORANGE}[label]


def cells_of(axes, rows, columns):
    """The gray in the middle of each image of a page, row by row: (rows, columns)."""
    page = np.asarray(axes.images[0].get_array())
    down, right = (page.shape[0] + GAP) // rows, (page.shape[1] + GAP) // columns
    return page[(down - GAP) // 2::down, (right - GAP) // 2::right]


def flat(grays, pixels=4):
    """Images (..., D), each of one gray, and white is 1."""
    return np.repeat(np.asarray(grays, float)[..., None], pixels, axis=-1)


def test_the_rows_of_images_are_what_their_names_say(drawn):
    first, second, third = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]
    axes, = figures.reconstructions(None, flat(first), flat(second), (2, 2)).axes
    np.testing.assert_array_equal(cells_of(axes, 2, 3), [first, second])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["original", "reconstruction"]
    assert 0 < axes.get_yticks()[0] < axes.images[0].get_array().shape[0] / 2 < axes.get_yticks()[1]
    assert axes.yaxis_inverted(), "the first row of a page is on top"
    axes, = figures.code_maps(None, flat(first), flat(second), flat(third), (2, 2)).axes
    np.testing.assert_array_equal(cells_of(axes, 3, 3), [first, second, third])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["original", "codes", "reconstruction"]
    assert np.all(np.diff(axes.get_yticks()) > 0)


def test_a_row_of_draws_or_of_a_walk_belongs_to_the_image_beside_it(drawn):
    x, to, grid = [0.1, 0.2], [0.9, 0.8], [[0.3, 0.4, 0.5], [0.6, 0.7, 0.75]]                   # (N,), (N,), (N, S)
    image, draws = figures.posterior_draws(None, flat(x), flat(grid), (2, 2)).axes
    start, walks, end = figures.interpolations(None, flat(x), flat(grid), flat(to), (2, 2)).axes
    beside, labeled = figures.label_grid(None, flat(grid), (2, 2), "Labels", flat(x)).axes
    for axes in (image, start, beside):
        np.testing.assert_array_equal(cells_of(axes, 2, 1)[:, 0], x)
    for axes in (draws, walks, labeled):
        np.testing.assert_array_equal(cells_of(axes, 2, 3), grid)
    np.testing.assert_array_equal(cells_of(end, 2, 1)[:, 0], to)
    assert [axes.get_title(loc="left") for axes in (start, end, image, beside)] == ["from", "to", "image", "image"]
    places = [axes.get_position().x0 for axes in (start, walks, end)]
    assert places == sorted(places)
    assert [text.get_text() for text in labeled.get_xticklabels()] == ["0", "1", "2"] and labeled.get_xlabel() == "label y"


def test_a_latent_scatter_puts_each_image_where_its_mu_is_in_the_color_of_its_label(drawn, rng):
    mu, y = rng.standard_normal((30, 2)) + [0, 9], np.repeat([3, 17, 90], 10)
    dots = figures.latent_scatter(None, mu, y).axes[0].collections[0]
    found = {tuple(place): value for place, value in zip(np.asarray(dots.get_offsets()), dots.get_array(), strict=True)}
    assert found == {tuple(place): label for place, label in zip(mu, np.repeat([0, 1, 2], 10), strict=True)}
    wide = np.column_stack([rng.normal(0, 0.1, 30), rng.normal(0, 10, 30), rng.normal(0, 1, 30)])
    dots = figures.latent_scatter(None, wide, y).axes[0].collections[0]
    spread = np.asarray(dots.get_offsets()).std(axis=0)                 # the two widest of the three, the widest across
    np.testing.assert_allclose(spread, np.sort(wide.std(axis=0))[:0:-1], rtol=0.1)          # up to a tilt of the axes


def test_the_axes_of_the_manifold_are_named_after_what_runs_along_them(drawn):
    axes, = figures.manifold(None, np.zeros((4, 4)), (2, 2)).axes
    assert axes.get_xlabel().startswith("$z_1$") and axes.get_ylabel().startswith("$z_2$")


def test_a_filmstrip_runs_from_left_to_right_and_then_down(drawn):
    panels = figures.filmstrip(None, flat([[i / 10] for i in range(10)]), range(10), (2, 2)).axes
    places = [(-round(axes.get_position().y1, 6), axes.get_position().x0) for axes in panels]
    assert places == sorted(places) and len(set(places)) == 10
    assert [axes.images[0].get_array().min() for axes in panels] == [i / 10 for i in range(10)]


def test_the_pictures_of_sample_numpy_are_of_its_weights_and_of_images_that_they_name(tmp_path, monkeypatch):
    config, got = VAEConfig(image_shape=(1, 4), hidden=3, latent=2), {}
    rng = np.random.default_rng(0)
    params = {name: array + rng.normal(0, 0.5, array.shape).astype(np.float32)
              for name, array in init_params(config, rng).items()}
    save_params(tmp_path / "params.npz", params, config)
    rows = (np.arange(14)[:, None] >> np.arange(4)) & 1                                        # no two images are alike
    np.savez(tmp_path / "data.npz", x_train=np.ones((2, 1, 4)), x_test=rows[:, None].astype(float))
    for name, flag in (("reconstructions", "--reconstruct"), ("interpolations", "--interpolate")):
        monkeypatch.setattr(figures, name, lambda path, *given, name=name: got.update({name: given}))
        sample_numpy.main(["--weights", str(tmp_path / "params.npz"), "--data", "npz", "--data-file",
                           str(tmp_path / "data.npz"), flag])
    x, reconstruction, _ = got["reconstructions"]
    x_from, walks, x_to, _ = got["interpolations"]
    assert len(np.unique(np.concatenate([x_from, x_to]), axis=0)) == 14, "each image is in one walk"
    for images, shown in ((x, reconstruction), (x_from, walks[:, 0]), (x_to, walks[:, -1])):
        mu, _ = encode(params, images, config)
        want = 1 / (1 + np.exp(-decode(params, mu, config)))
        np.testing.assert_allclose(shown, want, atol=1e-5)              # float32, one matrix product on other shapes


# files

def test_the_same_input_gives_the_same_bytes(tmp_path, rng):
    mu, labels = rng.standard_normal((50, 5)), rng.integers(0, 10, 50)
    for draw in (lambda path: figures.latent_scatter(path, mu, labels),
                 lambda path: figures.curve(path, curve_rows([-9.0]))):
        first, second = (draw(tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
        assert first == second


def test_a_failing_write_leaves_the_old_picture_and_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    path.write_bytes(b"the old picture")

    def fail(self, file, **options):
        file.write(b"half a pic")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.curve(path, [])
    assert path.read_bytes() == b"the old picture" and list(tmp_path.iterdir()) == [path]


def test_importing_the_figures_leaves_pyplot_and_its_backend_alone():
    code = "import sys, common.figures; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True, timeout=60)


def test_figures_leave_their_inputs_alone(drawn, rng):
    mu, images, kl = rng.standard_normal((9, 3)), rng.random((9, 4)), rng.random(3)
    copies = [array.copy() for array in (mu, images, kl)]
    figures.latent_scatter(None, mu)
    figures.manifold(None, images, (2, 2))
    figures.kl_per_dimension(None, kl)
    for array, copy in zip((mu, images, kl), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
