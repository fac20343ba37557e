"""The door for trained weights: sample_numpy.py, on weights of any level."""

from pathlib import Path

import numpy as np
import pytest
import sample_numpy
from matplotlib.image import imread

from common.checkpoints import save_params
from common.cli import run_command
from common.config import VAEConfig, init_params

CONFIGS = {
    "mlp": VAEConfig("mlp", (8, 8), hidden=5, latent=3),
    "gaussian": VAEConfig("mlp", (8, 8), hidden=5, latent=2, likelihood="gaussian"),
    "conv": VAEConfig("conv", (8, 8), latent=1),
}


@pytest.fixture(params=CONFIGS)
def weights(request, tmp_path):
    path = tmp_path / "params.npz"
    config = CONFIGS[request.param]
    save_params(path, init_params(config, np.random.default_rng(0)), config)
    return path


@pytest.mark.parametrize("what", [[], ["--samples", "7"], ["--reconstruct"], ["--interpolate"]], ids=" ".join)
def test_a_picture_is_drawn_beside_the_weights(weights, what, capsys):
    sample_numpy.main(["--weights", str(weights), *what])
    picture = Path(capsys.readouterr().out.split("picture: ")[1].strip())
    assert imread(picture).shape[0] > 40
    assert {path.name for path in weights.parent.iterdir()} == {"params.npz", picture.name}


def test_few_images_make_few_walks(weights, tmp_path):
    images = np.random.default_rng(0).random((6, 8, 8))
    for count, code in ((5, 0), (2, 0), (1, 2)):
        np.savez(tmp_path / "few.npz", x_train=images, x_test=images[:count])
        command = ["--weights", str(weights), "--interpolate", "--data", "npz", "--data-file", str(tmp_path / "few.npz")]
        assert run_command(lambda command=command: sample_numpy.main(command)) == code


def test_a_walk_ends_where_it_should():
    """The ends of an interpolation are the reconstructions of its two images, and its middle is that of the mean latent."""
    config = CONFIGS["mlp"]
    params = init_params(config, np.random.default_rng(0))
    x = np.random.default_rng(1).random((4, 64)).astype(np.float32)
    walks = sample_numpy.interpolations(params, x[:2], x[2:], config)
    mu = sample_numpy.encode(params, x, config)[0]
    for z, images in ((mu[:2], walks[:, 0]), ((mu[:2] + mu[2:]) / 2, walks[:, 5]), (mu[2:], walks[:, -1])):
        # float32, one matrix product on other shapes
        np.testing.assert_allclose(images, sample_numpy.decode_mean(params, z, config), atol=1e-5)


def test_the_seed_decides_the_draws(weights, tmp_path):
    pictures = []
    for seed, out in ((0, "a"), (0, "b"), (1, "c")):
        sample_numpy.main(["--weights", str(weights), "--seed", str(seed), "--out", str(tmp_path / out)])
        pictures.append((tmp_path / out / "sampled.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize("arguments", [
    ["--samples", "0"], ["--seed", "-1"], ["--weights", "missing.npz"], ["--reconstruct", "--data", "npz"],
])
def test_bad_input_is_one_line_and_exit_code_2(weights, arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "new"
    assert run_command(lambda: sample_numpy.main(["--weights", str(weights), *arguments, "--out", str(out)])) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ")
    assert not out.exists()


def test_images_of_another_size_are_refused(tmp_path, capsys):
    config = VAEConfig("mlp", (5, 6), hidden=4, latent=2)
    save_params(tmp_path / "params.npz", init_params(config, np.random.default_rng(0)), config)
    command = ["--weights", str(tmp_path / "params.npz"), "--reconstruct"]
    assert run_command(lambda: sample_numpy.main(command)) == 2
    assert "5 x 6" in capsys.readouterr().err
