"""Files that carry weights and runs, and the configuration that they belong to: common/checkpoints.py, config.py and
schedules.py.

    pytest tests/test_checkpoints.py
"""

import json
import math
import pickle
import zipfile
from dataclasses import FrozenInstanceError, asdict

import numpy as np
import pytest
import torch
from oracles import Bomb
from torch import nn

from common.checkpoints import atomic_write, load_checkpoint, load_params, save_checkpoint, save_params, write_text
from common.config import (
    InputError,
    VAEConfig,
    check_batch,
    check_objective,
    check_one_layer,
    init_params,
    parameter_shapes,
    set_output_bias,
)
from common.schedules import kl_weight
from paper.family import FamilyModel

CONFIGS = {
    "mlp bernoulli": VAEConfig("mlp", (6, 5), 4, 3),
    "mlp gaussian": VAEConfig("mlp", (6, 5), 4, 3, "gaussian"),
    "mlp gaussian fixed": VAEConfig("mlp", (6, 5), 4, 3, "gaussian", fixed_logvar=-1.5),
    "mlp two layers": VAEConfig("mlp", (6, 5), 4, 3, layers=2),
    "mlp two layers gaussian": VAEConfig("mlp", (6, 5), 4, 3, "gaussian", layers=2),
    "conv bernoulli": VAEConfig("conv", (8, 12), 4, 3),
    "conv gaussian": VAEConfig("conv", (8, 12), 4, 3, "gaussian"),
    "conv gaussian fixed": VAEConfig("conv", (8, 12), 4, 3, "gaussian", fixed_logvar=0),
}
SMALL = CONFIGS["mlp bernoulli"]
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def small_params(dtype=np.float32):
    return {name: array.astype(dtype) for name, array in init_params(SMALL, np.random.default_rng(0)).items()}


def refused(load, path, *words) -> str:
    """The message of a load that must fail: one line that names the file and these words."""
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert message.strip() and "\n" not in message, f"the message should be one line: {message!r}"
    for word in (path, *words):
        assert str(word) in message, f"{word} is not named in: {message}"
    return message


# ---- writing: the old file or the new one, whole ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_a_failure_while_writing_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"half of the ne")
        file.flush()
        assert path.read_bytes() == b"old", "the old file was touched before the new one was whole"
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path], "a temporary file is left behind"


def test_a_failure_while_writing_a_first_file_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "file.bin") as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["params.npz", "weights", "a.tmp", "ü b.npz"])
def test_a_file_gets_exactly_the_name_it_was_given(tmp_path, name):
    """np.savez adds .npz to names: it must be given an open file."""
    save_params(tmp_path / name, small_params(), SMALL)
    save_params(str(tmp_path / name), small_params(), SMALL)        # once more, over the first, from a string
    assert [path.name for path in tmp_path.iterdir()] == [name]
    load_params(str(tmp_path / name))


def test_text_is_written_as_utf_8(tmp_path):
    write_text(tmp_path / "text", "Löss 1\n")
    assert (tmp_path / "text").read_bytes() == "Löss 1\n".encode()


def test_a_failed_save_keeps_the_weights_that_were_there(tmp_path, monkeypatch):
    path = tmp_path / "params.npz"
    save_params(path, small_params(), SMALL)
    before, savez = path.read_bytes(), np.savez

    def disk_full(file, **arrays):
        savez(file, **dict(list(arrays.items())[:3]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", disk_full)
    with pytest.raises(OSError):
        save_params(path, {name: 2 * array for name, array in small_params().items()}, SMALL)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# ---- params.npz -------------------------------------------------------------------------------------------------------


@each_config
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saved_weights_come_back_bit_for_bit_in_the_order_of_the_table(tmp_path, config, dtype):
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(shape).astype(dtype) for name, shape in parameter_shapes(config).items()}
    shuffled = dict(sorted(params.items(), reverse=True))
    save_params(tmp_path / "params.npz", shuffled, config)
    loaded, loaded_config = load_params(tmp_path / "params.npz")
    assert loaded_config == config
    assert list(loaded) == list(parameter_shapes(config)), "the names or their order"
    for name, array in params.items():
        assert loaded[name].dtype == dtype, f"{name} came back as {loaded[name].dtype}"
        np.testing.assert_array_equal(loaded[name], array, name)


def test_weights_stored_in_half_precision_come_as_float32(tmp_path):
    halves = {name: array.astype(np.float16) for name, array in small_params().items()}
    save_params(tmp_path / "params.npz", halves, SMALL)
    loaded, _ = load_params(tmp_path / "params.npz")
    for name, array in halves.items():
        assert loaded[name].dtype == np.float32 and np.array_equal(loaded[name], array), name


@each_config
def test_a_weights_file_holds_one_entry_per_weight_and_the_configuration(tmp_path, config):
    save_params(tmp_path / "params.npz", init_params(config, np.random.default_rng(0)), config)
    with np.load(tmp_path / "params.npz", allow_pickle=False) as entries:
        assert set(entries.files) == {*parameter_shapes(config), "config"}
        assert entries["config"].shape == () and entries["config"].dtype.kind == "U"
        fields = json.loads(str(entries["config"]))
    assert fields == asdict(config) | {"image_shape": list(config.image_shape)}


def write(path, changes):
    """A weights file with these entries changed, or left out where None."""
    entries = {"config": np.array(SMALL.to_json()), **small_params(), **changes}
    with open(path, "wb") as file:
        np.savez(file, **{name: array for name, array in entries.items() if array is not None})


NAME = "encoder.mu.weight"
BAD_ENTRIES = {
    "a weight is missing": ({NAME: None}, NAME),
    "a bias is missing": ({"decoder.logits.bias": None}, "decoder.logits.bias"),
    "there is one more": ({"decoder.extra.weight": np.zeros(3, np.float32)}, "decoder.extra.weight"),
    "a weight is transposed": ({NAME: np.zeros((4, 3), np.float32)}, NAME, "(4, 3)", "(3, 4)"),
    "a weight has one dimension more": ({NAME: np.zeros((3, 4, 1), np.float32)}, NAME),
    "a bias is a number": ({"encoder.mu.bias": np.float32(0)}, "encoder.mu.bias"),
    "a weight is empty": ({NAME: np.zeros((0, 4), np.float32)}, NAME),
    "a weight is of whole numbers": ({NAME: np.zeros((3, 4), int)}, NAME, "int64"),
    "a weight is complex": ({NAME: np.zeros((3, 4), complex)}, NAME, "complex128"),
    "a weight is text": ({NAME: np.full((3, 4), "0.1")}, NAME),
    "a weight holds NaN": ({NAME: np.full((3, 4), np.nan)}, NAME, "NaN"),
    "a weight holds infinity": ({NAME: np.array([[-np.inf] + 3 * [0]] + 2 * [4 * [0]], np.float32)}, NAME, "infinity"),
    "there is no configuration": ({"config": None}, "configuration"),
    "the configuration is a number": ({"config": np.array(3.0)}, "configuration"),
    "the configuration is a row of texts": ({"config": np.array([SMALL.to_json()])}, "configuration"),
    "the configuration is not JSON": ({"config": np.array("arch=mlp")}, "VAEConfig"),
    "the configuration is another JSON": ({"config": np.array('["mlp"]')}, "VAEConfig"),
    "the configuration has an unknown field": ({"config": np.array('{"depth": 3}')}, "depth"),
    "the configuration is out of range": ({"config": np.array('{"latent": 0}')}, "latent"),
    "the image shape is a number": ({"config": np.array('{"image_shape": 28}')}, "VAEConfig"),
    "the configuration is of another model": ({"config": np.array(VAEConfig("mlp", (6, 5), 4, 2).to_json())}, NAME),
    "the configuration is of the Gaussian": (
        {"config": np.array(VAEConfig("mlp", (6, 5), 4, 3, "gaussian").to_json())}, "decoder.mean.weight"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_weights_that_do_not_fit_their_configuration_are_refused_by_name(tmp_path, case):
    changes, *words = BAD_ENTRIES[case]
    write(tmp_path / "params.npz", changes)
    refused(load_params, tmp_path / "params.npz", *words)


class Tiny(FamilyModel):
    def __init__(self, config, width=3):
        super().__init__(config, width=width)
        self.layer = nn.Linear(2, width)


def test_a_model_of_level_3_comes_back_with_its_settings_and_is_refused_where_its_weights_are_no_numbers(tmp_path):
    config, path = VAEConfig(image_shape=(1, 2)), tmp_path / "params.npz"
    model = Tiny(config, width=5)
    model.save(path)
    again = Tiny.load(path)
    assert again.settings == {"width": 5} and again.config == config
    assert torch.equal(again.layer.weight, model.layer.weight) and torch.equal(again.layer.bias, model.layer.bias)
    for value in (math.nan, math.inf):
        with torch.no_grad():
            model.layer.bias[1] = value
        model.save(path)
        with pytest.raises(InputError, match="params.npz: layer.bias holds NaN or infinity"):
            Tiny.load(path)


@pytest.mark.parametrize("load", [load_params, load_checkpoint])
@pytest.mark.parametrize("content", [b"", b"P", b"PK", b"PK\3\4", b"these are my weights\n", b"\x93NUMPY\1\0",
                                     b"\0" * 99, pickle.dumps({"a": 1})], ids=repr)
def test_a_file_that_is_no_npz_is_refused(tmp_path, load, content):
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    refused(load, path)


@pytest.mark.parametrize("load", [load_params, load_checkpoint])
def test_a_missing_file_and_a_folder_are_refused(tmp_path, load):
    refused(load, tmp_path / "nowhere.npz", "No such file")
    refused(load, tmp_path, "directory")


@pytest.mark.parametrize("load", [load_params, load_checkpoint])
def test_an_array_file_and_an_empty_npz_are_refused(tmp_path, load):
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "empty.npz")
    np.savez(tmp_path / "other.npz", x_train=np.zeros((2, 6, 5)))
    for name in ("array.npy", "empty.npz", "other.npz"):
        refused(load, tmp_path / name)


@pytest.mark.parametrize("load", [load_params, load_checkpoint])
@pytest.mark.parametrize("entry", ["config", NAME, "facts", "params/a"])
def test_an_entry_that_is_no_array_is_refused(tmp_path, load, entry):
    """An .npz file is a zip file, and anyone may put a text into it."""
    path = tmp_path / "weights.npz"
    write(path, {entry: None} if load == load_params else {name: None for name in ("config", *small_params())})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(entry, "{}")
    refused(load, path)


@pytest.mark.parametrize("load", [load_params, load_checkpoint])
@pytest.mark.parametrize("entry", ["config", NAME, "facts", "params/a", "extra"])
def test_nothing_is_ever_unpickled(tmp_path, load, entry):
    path, sign = tmp_path / "weights.npz", tmp_path / "it went off"
    write(path, {"facts": np.array("{}"), entry: np.array([Bomb(sign)], dtype=object)})
    refused(load, path)
    assert not sign.exists(), "a pickled object was loaded"
    np.load(path, allow_pickle=True)[entry]
    assert sign.exists(), "the bomb of this test does not work"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a small file of each kind, and how to read it."""
    folder = tmp_path_factory.mktemp("saved")
    save_params(folder / "params.npz", small_params(), SMALL)
    save_checkpoint(folder / "checkpoint.npz", {"params": small_params()}, {"epoch": 3})
    with open(folder / "compressed params.npz", "wb") as file:          # written by hand, read just as well
        np.savez_compressed(file, config=np.array(SMALL.to_json()), **small_params())
    return {name: ((folder / f"{name}.npz").read_bytes(), load_checkpoint if name == "checkpoint" else load_params)
            for name in ("params", "compressed params", "checkpoint")}


@pytest.mark.parametrize("kind", ["params", "compressed params", "checkpoint"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path, saved, kind):
    content, load = saved[kind]
    path = tmp_path / "cut.npz"
    for length in sorted({*range(0, len(content), 61), *range(len(content) - 40, len(content))}):
        path.write_bytes(content[:length])
        refused(load, path)


@pytest.mark.parametrize("kind", ["params", "compressed params", "checkpoint"])
def test_a_flipped_byte_is_refused_or_changes_nothing(tmp_path, saved, kind):
    """Every byte of the numbers has a checksum; a byte of the container may not matter, but must not end in a traceback."""
    content, load = saved[kind]
    path, rng = tmp_path / "flipped.npz", np.random.default_rng(0)
    path.write_bytes(content)
    expected, rest = load(path)
    expected = expected.get("params", expected)
    kept = 0
    tail = range(content.find(b"PK\1\2"), len(content), 2)              # the table of contents
    for position in [*tail, *rng.integers(0, len(content), 300), *range(40)]:
        path.write_bytes(content[:position] + bytes([content[position] ^ (1 << rng.integers(8))]) + content[position + 1:])
        try:
            loaded, loaded_rest = load(path)
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error), f"byte {position}: {error}"
            continue
        except Exception as error:
            pytest.fail(f"byte {position} of {kind}.npz flipped: {error!r} instead of an InputError")
        kept += 1
        loaded = loaded.get("params", loaded)
        assert loaded_rest == rest and loaded.keys() == expected.keys(), f"byte {position}"
        for name, array in expected.items():
            np.testing.assert_array_equal(loaded[name], array, f"byte {position} of {kind}.npz flipped: {name}")
    assert kept, "no flip was harmless: this test does not reach the container"


# ---- checkpoint.npz ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    rng = np.random.default_rng(3)
    arrays = {"params": {"encoder.mu.weight": rng.random((3, 2), np.float32)},
              "state.mean": {"encoder.mu.weight": rng.random((3, 2)), "a/b": np.arange(3)}}
    facts = {"epoch": 3, "rows": [{"elbo": -1 / 3}], "rng": rng.bit_generator.state, "text": "ü\n", "none": None}
    save_checkpoint(tmp_path / "checkpoint.npz", arrays, facts)
    loaded, loaded_facts = load_checkpoint(tmp_path / "checkpoint.npz")
    assert loaded_facts == facts, "the generator's 128-bit numbers and every digit of the curve should come back"
    assert {group: set(named) for group, named in loaded.items()} == {group: set(named) for group, named in arrays.items()}
    for group, named in arrays.items():
        for name, array in named.items():
            assert loaded[group][name].dtype == array.dtype
            np.testing.assert_array_equal(loaded[group][name], array, f"{group} {name}")
    expected = rng.random(4)
    again = np.random.default_rng(0)
    again.bit_generator.state = loaded_facts["rng"]
    np.testing.assert_array_equal(again.random(4), expected, "the restored generator draws other numbers")


@pytest.mark.parametrize("entries", [{}, {"params/a": np.zeros(2)}, {"facts": np.array("{not json")},
                                     {"facts": np.array("{}"), "loose": np.zeros(2)}, {"facts": np.zeros(3)}],
                         ids=["nothing", "no facts", "facts not JSON", "an array of no group", "facts are numbers"])
def test_a_checkpoint_of_something_else_is_refused_with_what_to_do(tmp_path, entries):
    with open(tmp_path / "checkpoint.npz", "wb") as file:
        np.savez(file, **entries)
    refused(load_checkpoint, tmp_path / "checkpoint.npz", "--out")


def test_weights_are_not_taken_for_a_checkpoint_nor_a_checkpoint_for_weights(tmp_path, saved):
    for kind, load in (("params", load_checkpoint), ("checkpoint", load_params)):
        (tmp_path / kind).write_bytes(saved[kind][0])
        refused(load, tmp_path / kind)


# ---- the configuration ------------------------------------------------------------------------------------------------


BAD_FIELDS = [
    ("arch", {"arch": "cnn"}, "mlp, conv"), ("arch", {"arch": None}, "mlp, conv"),
    ("likelihood", {"likelihood": "normal"}, "bernoulli, gaussian"),
    *((name, {name: value}, "at least 1") for name in ("hidden", "latent") for value in (0, -3, 2.0, "4", True, None)),
    *(("layers", {"layers": value}, "1 or 2") for value in (0, 3, True)),
    ("layers", {"layers": 2, "arch": "conv"}, "mlp"),
    *(("image_shape", {"image_shape": value}, "(height, width)") for value in ((28,), (28, 28, 1), (0, 28), (28, 2.5))),
    *(("4", {"arch": "conv", "image_shape": value}, "divide by 4") for value in ((28, 30), (6, 8), (7, 7))),
    ("fixed_logvar", {"fixed_logvar": -1.0}, "bernoulli"),
    *(("fixed_logvar", {"fixed_logvar": value, "likelihood": "gaussian"}, "finite")
      for value in (math.nan, math.inf, "-1")),
]


@pytest.mark.parametrize("name, fields, advice", BAD_FIELDS, ids=[repr(fields) for _, fields, _ in BAD_FIELDS])
def test_a_field_out_of_range_is_refused_by_name_with_what_to_do(name, fields, advice):
    with pytest.raises(InputError) as caught:
        VAEConfig(**fields)
    message = str(caught.value)
    assert name in message and advice in message and "\n" not in message, message


@each_config
def test_a_configuration_survives_json(config):
    again = VAEConfig.from_json(config.to_json())
    assert again == config and hash(again) == hash(config) and isinstance(again.image_shape, tuple)
    assert json.loads(config.to_json())["arch"] == config.arch


def test_a_configuration_is_frozen_and_has_the_documented_defaults():
    config = VAEConfig()
    assert asdict(config) == {"arch": "mlp", "image_shape": (28, 28), "hidden": 500, "latent": 20,
                              "likelihood": "bernoulli", "layers": 1, "fixed_logvar": None, "condition": 0}
    assert config.pixels == 784 and VAEConfig(image_shape=(28, 20)).pixels == 560
    with pytest.raises(FrozenInstanceError):
        config.latent = 3


@pytest.mark.parametrize("text", ["", "{", "3", "null", "[]", '"mlp"', '{"arch": "mlp", "width": 3}', '{"latent": -1}'])
def test_other_json_is_refused(text):
    with pytest.raises(InputError):
        VAEConfig.from_json(text)


def test_two_layers_are_refused_at_levels_1_and_2_by_name():
    check_one_layer(VAEConfig())
    with pytest.raises(InputError, match="layers is 2.*level 3"):
        check_one_layer(VAEConfig(layers=2))


def twin(config) -> nn.Module:
    """The same networks in torch.nn, written independently: its state_dict is the table of the contract."""
    H, J, D = config.hidden, config.latent, config.image_shape[0] * config.image_shape[1]
    model = nn.Module()
    model.encoder, model.decoder = nn.Module(), nn.Module()
    heads = 1 if config.likelihood == "bernoulli" or config.fixed_logvar is not None else 2
    if config.arch == "conv":
        flat = 64 * D // 16
        model.encoder.conv1, model.encoder.conv2 = nn.Conv2d(1, 32, 3, 2, 1), nn.Conv2d(32, 64, 3, 2, 1)
        model.encoder.fc = nn.Linear(flat, 256)
        model.encoder.mu, model.encoder.logvar = nn.Linear(256, J), nn.Linear(256, J)
        model.decoder.fc1, model.decoder.fc2 = nn.Linear(J, 256), nn.Linear(256, flat)
        model.decoder.deconv1 = nn.ConvTranspose2d(64, 32, 3, 2, 1, 1)
        model.decoder.deconv2 = nn.ConvTranspose2d(32, heads, 3, 2, 1, 1)
        with torch.no_grad():                           # the layers fit each other and the image
            image = torch.zeros(1, 1, *config.image_shape)
            small = model.encoder.conv2(model.encoder.conv1(image))
            model.encoder.mu(model.encoder.fc(small.reshape(1, -1)))
            out = model.decoder.fc2(model.decoder.fc1(torch.zeros(1, J)))
            assert model.decoder.deconv2(model.decoder.deconv1(out.reshape(small.shape))).shape[2:] == config.image_shape
        return model
    model.encoder.hidden = nn.Linear(D, H)
    if config.layers == 2:
        model.encoder.hidden2 = nn.Linear(H, H)
    model.encoder.mu, model.encoder.logvar = nn.Linear(H, J), nn.Linear(H, J)
    model.decoder.hidden = nn.Linear(J, H)
    if config.layers == 2:
        model.decoder.hidden2 = nn.Linear(H, H)
    if config.likelihood == "bernoulli":
        model.decoder.logits = nn.Linear(H, D)
    else:
        model.decoder.mean = nn.Linear(H, D)
        if heads == 2:
            model.decoder.logvar = nn.Linear(H, D)
    return model


@each_config
def test_the_parameter_table_is_the_state_dict_of_the_same_nn_module(config):
    expected = [(name, tuple(tensor.shape)) for name, tensor in twin(config).state_dict().items()]
    assert list(parameter_shapes(config).items()) == expected


@each_config
def test_the_first_weights_are_glorot_uniform_and_the_biases_zero(config):
    params = init_params(config, np.random.default_rng(0))
    assert {name: array.shape for name, array in params.items()} == parameter_shapes(config)
    for name, array in params.items():
        assert array.dtype == np.float32, f"{name} is {array.dtype}"
        if name.endswith(".bias"):
            assert not array.any(), f"{name} is not zero"
            continue
        with torch.no_grad():                           # torch's own bound: 1 is drawn at most, 0.9 of it at least
            reference = nn.init.xavier_uniform_(torch.empty(array.shape), generator=torch.Generator().manual_seed(0))
        fan = (array.shape[0] + array.shape[1]) * math.prod(array.shape[2:])
        bound = math.sqrt(6 / fan)
        assert np.abs(array).max() <= bound and reference.abs().max() <= bound, f"{name}: {np.abs(array).max()} > {bound}"
        if array.size >= 1000:
            assert np.abs(array).max() > 0.98 * bound, f"{name} reaches {np.abs(array).max():.4f}, not {bound:.4f}"
            # the standard deviation of n uniform numbers is known within 0.45 / sqrt(n) of itself
            assert array.std() == pytest.approx(bound / math.sqrt(3), rel=4 * 0.45 / math.sqrt(array.size)), name
            assert abs(array.mean()) < 5 * bound / math.sqrt(3 * array.size), f"{name} is not centered"


def test_one_seed_gives_one_set_of_weights_and_another_seed_another():
    first, again, other = (init_params(SMALL, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name in (name for name in first if name.endswith(".weight")):
        np.testing.assert_array_equal(first[name], again[name], name)
        assert (first[name] != other[name]).all(), name
    values = np.concatenate([array.ravel() for name, array in first.items() if name.endswith(".weight")])
    assert len(np.unique(values)) == len(values), "two weights are the same number: something is drawn twice"


@pytest.mark.parametrize("config", [SMALL, CONFIGS["conv bernoulli"]], ids=["mlp", "conv"])
def test_the_output_bias_makes_the_first_image_the_average_one(config):
    means = np.linspace(0, 1, config.pixels).astype(np.float32) ** 2
    params = init_params(config, np.random.default_rng(0))
    before = {name: array.copy() for name, array in params.items()}
    assert set_output_bias(params, config, means) is None
    name = "decoder.logits.bias" if config.arch == "mlp" else "decoder.deconv2.bias"
    expected = np.clip(means, 0.001, 0.999) if config.arch == "mlp" else means.mean(keepdims=True)
    np.testing.assert_allclose(1 / (1 + np.exp(-params[name].astype(float))), expected, rtol=1e-5)
    assert params[name].dtype == np.float32
    for other in params.keys() - {name}:
        np.testing.assert_array_equal(params[other], before[other], f"{other} was changed")
    np.testing.assert_array_equal(means, np.linspace(0, 1, config.pixels).astype(np.float32) ** 2, "the means were changed")


@pytest.mark.parametrize("shape_x, shape_eps, words", [
    ((5, 29), (5, 3), ("x", "(B, 30)")), ((30,), (1, 3), ("x", "(30,)")), ((5, 6, 5), (5, 3), ("x", "(5, 6, 5)")),
    ((0, 30), (0, 3), ("x", "(0, 30)")), ((5, 30), (5, 2), ("eps", "(5, 3)")), ((5, 30), (1, 3), ("eps", "(1, 3)")),
    ((5, 30), (3,), ("eps", "(5, 3)")), ((5, 30), (3, 5), ("eps", "(3, 5)"))])
def test_a_batch_of_the_wrong_shape_is_refused_before_broadcasting_can_hide_it(shape_x, shape_eps, words):
    for zeros, params in ((np.zeros, small_params(float)), (torch.zeros, {"a": torch.zeros(3)})):
        dtype = next(iter(params.values())).dtype
        with pytest.raises(InputError) as caught:
            check_batch(params, zeros(shape_x, dtype=dtype), zeros(shape_eps, dtype=dtype), SMALL)
        for word in words:
            assert word in str(caught.value), caught.value
        check_batch(params, zeros((5, 30), dtype=dtype), zeros((5, 3), dtype=dtype), SMALL)


@pytest.mark.parametrize("name", ["x", "eps"])
@pytest.mark.parametrize("dtype", ["float64", "uint8", "int64"])
def test_a_batch_of_another_dtype_than_the_weights_is_refused(name, dtype):
    for module, params in ((np, small_params()), (torch, {"a": torch.zeros(3)})):
        batch = {"x": module.zeros((5, 30), dtype=module.float32), "eps": module.zeros((5, 3), dtype=module.float32)}
        batch[name] = module.zeros(tuple(batch[name].shape), dtype=getattr(module, dtype))
        with pytest.raises(InputError, match=f"{name} is .*{dtype}.*float32"):
            check_batch(params, **batch, config=SMALL)


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, -math.inf])
def test_a_weight_of_the_objective_that_is_negative_or_not_finite_is_refused_by_name(value):
    with pytest.raises(InputError, match="beta is"):
        check_objective(value, 0.0)
    with pytest.raises(InputError, match="free_bits is"):
        check_objective(1.0, value)


@pytest.mark.parametrize("beta, free_bits", [(0, 0), (1.0, 0.0), (4, 0.5), (1e-9, 3)])
def test_weights_of_zero_and_above_are_fine(beta, free_bits):
    check_objective(beta, free_bits)


# ---- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs_done, beta, warmup, expected", [
    (0, 1, 0, 1), (17.5, 1, 0, 1), (0, 4, 0, 4), (3, 0, 0, 0),                              # constant
    (0, 1, 10, 0), (2.5, 1, 10, 0.25), (5, 1, 10, 0.5), (10, 1, 10, 1), (500, 1, 10, 1),    # rising, then constant
    (1, 4, 8, 0.5), (7.5, 2, 7.5, 2), (0.5, 3, 0.25, 3), (0.125, 3, 0.25, 1.5), (3, 0, 10, 0)])
def test_the_kl_weight_rises_linearly_to_beta_and_stays(epochs_done, beta, warmup, expected):
    assert kl_weight(epochs_done, beta, warmup) == pytest.approx(expected)


def test_without_warmup_the_kl_weight_is_beta_from_the_first_step():
    assert kl_weight(0) == 1.0
    assert kl_weight(0, 0.3) == 0.3


def test_the_kl_weight_never_falls_nor_passes_beta():
    weights = [kl_weight(epochs_done, 2.5, 4.0) for epochs_done in np.linspace(0, 6, 97)]
    assert all(later >= earlier for earlier, later in zip(weights, weights[1:], strict=False))
    assert weights[0] == 0 and max(weights) == 2.5
