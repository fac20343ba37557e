"""The sprites: every image is what its factors say, whole and crisp; the set is made on demand, at all three levels.

    pytest tests/test_sprites.py

Letters: B images, N all of them, D pixels.
"""

import numpy as np
import pytest
import torch
from oracles import assert_close

import common.sprites
from common.cli import Options
from common.config import InputError, VAEConfig
from common.data import hold_out, load_dataset, pixel_means, pixels, sprites_dataset
from common.run import Run
from common.sprites import BOX, FACTORS, RADIUS, SHIFT, SIDE, Sprites, inside
from paper.images import Images
from paper.plan import Plan
from paper.train_paper import build, train

SMALL = {"orientations": 5, "positions": 3}


@pytest.fixture(scope="module")
def sprites():
    return Sprites()


@pytest.fixture(scope="module")
def small():
    return Sprites(**SMALL)


def row(sprites, *factors):
    return int(np.ravel_multi_index(factors, sprites.sizes))


def picture(sprites, *factors):
    return sprites[np.array([row(sprites, *factors)])].reshape(SIDE, SIDE) > 0


# ---- the set -----------------------------------------------------------------------------------------------------------


def test_there_are_as_many_as_in_dsprites_and_they_take_little_memory(sprites):
    assert sprites.sizes == (3, 6, 40, 32, 32) and sprites.shape == (737_280, 4096) and len(sprites) == 737_280
    assert sprites.padded.nbytes < 10e6 and len(FACTORS) == len(sprites.sizes)
    x = sprites[np.array([5, 737_279, 5])]
    assert x.shape == (3, 4096) and x.dtype == sprites.dtype == np.uint8 and set(np.unique(x)) == {0, 255}
    assert np.array_equal(x[0], x[2]) and not np.array_equal(x[0], x[1])
    assert np.array_equal(sprites[5:8], sprites[[5, 6, 7]]) and np.array_equal(sprites[-2:], sprites[[737_278, 737_279]])


def test_the_last_factor_runs_fastest_and_factors_tell_the_row(sprites):
    rows = np.array([0, 1, 32, 32 * 32, 40 * 32 * 32, 6 * 40 * 32 * 32, 737_279])
    assert sprites.factors(rows).tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0],
                                              [0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [2, 5, 39, 31, 31]]
    some = np.random.default_rng(0).integers(737_280, size=100)
    assert np.array_equal(np.ravel_multi_index(sprites.factors(some).T, sprites.sizes), some)


def test_every_sprite_lies_wholly_inside_the_image_at_every_place(sprites):
    """Each has the same number of white pixels everywhere: none is cut off, not even by one pixel."""
    white = (sprites.padded > 0).sum(axis=(1, 2))                       # (720,)
    for x, y in ((0, 0), (0, 31), (31, 0), (31, 31), (13, 22)):
        rows = (np.arange(720) * 32 + x) * 32 + y
        assert ((sprites[rows] > 0).sum(axis=1) == white).all(), (x, y)


def test_x_moves_to_the_right_and_y_downwards_by_a_pixel(sprites):
    for shape in range(3):
        here = picture(sprites, shape, 3, 7, 10, 20)
        assert np.array_equal(np.roll(here, 1, axis=1), picture(sprites, shape, 3, 7, 11, 20))
        assert np.array_equal(np.roll(here, 1, axis=0), picture(sprites, shape, 3, 7, 10, 21))
    few = Sprites(orientations=2, positions=3)                          # places 0, 15, 31
    corner, middle, end = (picture(few, 2, 5, 0, place, place) for place in range(3))
    assert np.array_equal(np.roll(corner, (15, 15), axis=(0, 1)), middle)
    assert np.array_equal(np.roll(corner, (SHIFT, SHIFT), axis=(0, 1)), end)


def test_areas_grow_with_the_square_of_the_scale(sprites):
    white = (sprites.padded > 0).sum(axis=(1, 2)).reshape(3, 6, 40).mean(axis=-1)
    assert (np.diff(white, axis=1) > 0).all()
    full = 2 * RADIUS**2, np.pi / 2 * RADIUS**2                         # a diagonal, an axis of 2 R
    for shape, area in enumerate(full):
        # pixels whose center is inside: over 40 angles their mean is right to about a pixel of 100 to 500
        np.testing.assert_allclose(white[shape], area * np.linspace(0.5, 1, 6)**2, rtol=0.02)
    np.testing.assert_allclose(white[2] / white[2, -1], np.linspace(0.5, 1, 6)**2, rtol=0.02)


def test_shapes_turn_and_the_last_angle_is_the_first(sprites):
    for shape in range(3):
        first, last = (picture(sprites, shape, 5, angle, 16, 16) for angle in (0, 39))
        assert np.array_equal(first, last)
        turned = inside(common.sprites.SHAPES[shape], 1.0, np.pi / 2)
        assert np.array_equal(turned, np.rot90(inside(common.sprites.SHAPES[shape], 1.0, 0.0), -1)), "a quarter, clockwise"
    # what symmetry leaves of a turn: nothing of the square's quarter, of the ellipse's half, and all of the heart's
    square, ellipse, heart = ([inside(shape, 1.0, angle) for angle in (0.0, np.pi / 2, np.pi)]
                              for shape in common.sprites.SHAPES)
    assert np.array_equal(square[0], square[1]) and not np.array_equal(ellipse[0], ellipse[1])
    assert np.array_equal(ellipse[0], ellipse[2]) and not np.array_equal(heart[0], heart[2])


def test_all_shapes_reach_the_circle_that_all_keep_within():
    away = np.hypot(*(np.indices((BOX, BOX)) - BOX // 2))
    for shape in common.sprites.SHAPES:
        farthest = [away[inside(shape, 1.0, angle)].max() for angle in np.linspace(0, 2 * np.pi, 40)]
        assert RADIUS - 1 < max(farthest) <= RADIUS, shape


@pytest.mark.parametrize("sizes", [{"orientations": 1}, {"positions": 1}, {"positions": 33}])
def test_sizes_that_make_no_set_are_refused(sizes):
    with pytest.raises(InputError, match="give at least 2 of each, and 32 positions at most"):
        Sprites(**sizes)


def test_a_row_beyond_the_last_is_an_error(small):
    with pytest.raises(IndexError):
        small[[len(small)]]
    assert np.array_equal(small[[-1]], small[[len(small) - 1]])


# ---- what the levels ask of it -----------------------------------------------------------------------------------------


def test_pixel_means_are_exact(small, sprites):
    assert_close("means", pixel_means(small), pixels(small[:]).mean(axis=0), rtol=1e-5, atol=1e-6)    # sums in float32
    rows = np.random.default_rng(0).integers(len(sprites), size=2000)
    sampled, exact = pixels(sprites[rows]).mean(axis=0), pixel_means(sprites)
    assert np.abs(sampled - exact).max() < 5 * np.sqrt(0.25 / len(rows)), "five standard errors of a share"


def test_the_data_set_has_no_held_out_grid_and_says_so():
    data = load_dataset("sprites")
    assert isinstance(data.x_train, Sprites) and data.x_test.shape == (10_000, 4096) and data.image_shape == (64, 64)
    assert data.binary and data.y_train is None and data.x_valid is None and len({x.tobytes() for x in data.x_test}) > 9500
    assert np.array_equal(data.x_test, load_dataset("sprites").x_test)
    with pytest.raises(InputError, match="no images beyond those it trains on: leave patience out"):
        hold_out(data)
    assert len(sprites_dataset(Sprites(**SMALL)).x_test) == 3 * 6 * 5 * 9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_images_on_a_device_are_the_same_ones(small, dtype, likelihood):
    images = Images.of(sprites_dataset(small), dtype=dtype, likelihood=likelihood)
    rows = torch.tensor([0, 200, 7, len(small) - 1, 7])
    x, y = images.minibatch(rows, torch.Generator())
    assert x.dtype == images.x_train.dtype == getattr(torch, dtype) and y is None and not images.dynamic
    assert_close("x", x, pixels(small[rows.numpy()]), rtol=0, atol=0)
    assert_close("by an array", images.x_train[rows.numpy()], x, rtol=0, atol=0)
    assert_close("means", images.x_train.mean(dim=0), pixel_means(small), rtol=0, atol=0)
    assert len(images.x_train) == len(small) and images.x_train.shape == small.shape
    assert images.x_train.device == images.x_test.device


def test_a_model_trains_on_them_as_on_a_tensor(small):
    """The same curve, number for number, where all images are made before."""
    lazy, config = Images.of(sprites_dataset(small)), VAEConfig(image_shape=(64, 64), hidden=6, latent=2)
    dense = Images(lazy.x_train[torch.arange(len(small))], lazy.x_test)
    curves = []
    for images in (lazy, dense):
        model = build("vae", config, lazy)
        curves.append([{**each, "seconds": 0} for each in train(model, images, Plan(epochs=2))])
    assert curves[0] == curves[1] and curves[0][1]["train"]["elbo"] > curves[0][0]["train"]["elbo"]


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_levels_1_and_2_begin_with_sprites_and_make_a_minibatch_when_they_need_it(likelihood, tmp_path, monkeypatch):
    monkeypatch.setattr(common.run, "load_dataset", lambda *arguments: sprites_dataset(Sprites(**SMALL)))
    argv = ["--data", "sprites", "--hidden", "5", "--likelihood", likelihood, "--out", str(tmp_path), "--batch-size", "50"]
    with Run("numpy", Options.parse("numpy", "", argv)) as run:
        batches = [x for _, x in run.minibatches(1)]
        assert sum(map(len, batches)) == 810 and batches[0].shape == (50, 4096) and batches[0].dtype == np.float32
        assert set(np.unique(batches[0])) == {0, 1} and run.options.binarize == "none"
        if likelihood == "bernoulli":
            bias, means = run.params["decoder.logits.bias"], np.clip(pixel_means(run.x_train), 0.001, 0.999)
            assert_close("bias", bias, np.log(means / (1 - means)), rtol=1e-6, atol=0)


# ---- named wrong answers -----------------------------------------------------------------------------------------------


def test_x_and_y_swapped_is_noticed(monkeypatch, sprites):
    right = Sprites.windows_of
    monkeypatch.setattr(Sprites, "windows_of", lambda self, rows: tuple(right(self, rows)[i] for i in (0, 2, 1)))
    with pytest.raises(AssertionError):
        test_x_moves_to_the_right_and_y_downwards_by_a_pixel(sprites)


def test_a_sprite_that_is_cut_off_is_noticed(monkeypatch):
    monkeypatch.setattr(common.sprites, "SIDE", SIDE - 2)              # too small for the largest at the last places
    with pytest.raises(AssertionError):
        test_every_sprite_lies_wholly_inside_the_image_at_every_place(Sprites())
