"""Data: the six sets, the four binarizations, and what a reader is told about a file that is not right.

    pytest tests/test_data.py
    VAE_DATA=folder pytest tests/test_data.py        # also the real files in that folder
"""

import gzip
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sample_numpy

import common.data
from common.config import InputError, VAEConfig
from common.data import BINARIZE, BINARY_MNIST_FILES, DATASETS, MNIST_FILES, binarize, eval_images, load_dataset, pixels

REAL = os.environ.get("VAE_DATA") and os.path.abspath(os.environ["VAE_DATA"])     # some tests change the folder
ACTIONS = r"\b(choose|give|put|get|delete|create|convert|make|multiply|scale|write|save|name)\b"


def real(*files):
    """Skips a test unless $VAE_DATA holds these files, plain or .gz."""
    whole = REAL and all((Path(REAL) / file).exists() or (Path(REAL) / f"{file}.gz").exists() for file in files)
    return pytest.mark.skipif(not whole, reason=f"set VAE_DATA to a folder with {', '.join(files)}")


real_mnist = real(*(f"MNIST/raw/{name}" for name in MNIST_FILES))
real_binary_mnist = real(*(f"BinaryMNIST/{name}" for name in BINARY_MNIST_FILES))
real_frey = real("frey_rawface.mat")


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    """Only the tests that say so look at $VAE_DATA, and nothing goes through a proxy."""
    monkeypatch.delenv("VAE_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def refused(*names, **arguments) -> str:
    """The message of a load that must fail: one line with these names in it and something to do."""
    with pytest.raises(InputError) as caught:
        load_dataset(**arguments)
    message = str(caught.value)
    assert "\n" not in message and message.strip(), message
    for name in names:
        assert str(name) in message, message
    assert re.search(ACTIONS, message), f"nothing to do in: {message}"
    return message


def listing(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ---- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar", "", "MNIST", None])
def test_an_unknown_name_lists_the_known_ones(name):
    message = refused(*DATASETS, name=name)
    assert repr(name) in message


@pytest.mark.parametrize("name", ["mnist", "binary-mnist", "frey"])
@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_missing_data_folder_is_named_and_not_created(name, how, tmp_path, monkeypatch):
    folder = tmp_path / "nowhere"
    if how == "environment":
        monkeypatch.setenv("VAE_DATA", str(folder))
    refused(folder, "$VAE_DATA" if how == "environment" else "--data-dir",
            name=name, data_dir=folder if how == "argument" else None)
    assert not folder.exists()


def test_the_argument_wins_over_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_DATA", str(tmp_path / "nowhere"))
    refused(tmp_path / "BinaryMNIST", name="binary-mnist", data_dir=tmp_path)


def test_without_argument_and_environment_the_folder_is_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(Path("data") / "frey_rawface.mat", name="frey")
    monkeypatch.setenv("VAE_DATA", "")                  # an empty variable is no variable
    refused(Path("data") / "MNIST" / "raw", name="mnist", download=False)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", ["digits", "sprites"])
def test_digits_and_sprites_need_no_folder(name, monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_DATA", str(tmp_path / "nowhere"))
    assert load_dataset(name).name == name


def test_a_data_file_goes_with_npz_only(tmp_path):
    for name in DATASETS[:-1]:
        refused("mine.npz", name=name, data_dir=tmp_path, data_file="mine.npz")
    refused("--data-file", name="npz")


def test_importing_the_module_imports_no_torch():
    loaded = ("import sys, common.data; common.data.load_dataset('digits'); "
              "print(sorted({'torch', 'torchvision'} & set(sys.modules)))")
    root = Path(common.data.__file__).parents[1]
    answer = subprocess.run([sys.executable, "-c", loaded], cwd=root, capture_output=True, text=True, timeout=60)
    assert answer.stdout.strip() == "[]", answer.stdout + answer.stderr


# ---- digits --------------------------------------------------------------------------------------------------------


def test_digits_has_three_parts_of_gray_8_x_8_images():
    data = load_dataset("digits")
    assert data.image_shape == (8, 8) and not data.binary
    assert [len(x) for x in (data.x_train, data.x_valid, data.x_test)] == [1439, 179, 179]
    for x, y in ((data.x_train, data.y_train), (data.x_valid, data.y_valid), (data.x_test, data.y_test)):
        assert x.shape == (len(y), 64) and x.dtype == np.float32 and y.dtype == np.int64
        assert x.min() == 0 and x.max() == 1 and np.array_equal(x * 16, np.round(x * 16))


def test_the_split_of_digits_is_disjoint_and_loses_nothing():
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    parts = [{row.tobytes() for row in x} for x in (data.x_train, data.x_valid, data.x_test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])      # no two digits are the same
    whole = (load_digits().data / 16).astype(np.float32)
    assert set.union(*parts) == {row.tobytes() for row in whole} and sum(map(len, parts)) == len(whole)


def test_the_split_of_digits_is_stratified():
    data = load_dataset("digits")
    counts = [np.bincount(y, minlength=10) for y in (data.y_train, data.y_valid, data.y_test)]
    whole = sum(counts)
    for part in counts[1:]:
        assert np.abs(part - whole / 10).max() <= 0.5   # a tenth of each digit, rounded


def test_the_split_of_digits_is_fixed():
    first, second = load_dataset("digits"), load_dataset("digits")
    assert np.array_equal(first.x_train, second.x_train) and np.array_equal(first.x_test, second.x_test)
    # pinned: results files compare runs of different days and machines
    assert first.y_valid[:12].tolist() == [2, 3, 5, 8, 9, 8, 6, 1, 2, 6, 7, 9]
    assert first.y_test[:12].tolist() == [9, 0, 9, 7, 4, 0, 2, 1, 3, 4, 4, 8]


def test_a_dataset_is_frozen():
    with pytest.raises(AttributeError):
        load_dataset("digits").x_train = None


# ---- mnist and binary-mnist: files that are not right ----------------------------------------------------------------

KNOWN_SETS = [("mnist", Path("MNIST/raw"), "train-images-idx3-ubyte"),
              ("mnist", Path("MNIST/raw"), "t10k-labels-idx1-ubyte"),
              ("binary-mnist", Path("BinaryMNIST"), "binarized_mnist_valid.amat")]


def size_of(name) -> int:
    return (MNIST_FILES | BINARY_MNIST_FILES)[name][0]


@pytest.mark.parametrize("data, folder, name", KNOWN_SETS)
@pytest.mark.parametrize("content, reason", [
    (lambda size: b"", "0 instead of"),
    (lambda size: b"\0\0\x08\x03\0\0\xea\x60\0\0\0\x1c", "12 instead of"),
    (lambda size: b"<html>404 not found</html>", "26 instead of"),
    (lambda size: bytes(size), "sha256"),
    (lambda size: bytes(size + 7), "more than"),
], ids=["empty", "truncated", "html", "wrong contents", "too long"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_a_wrong_idx_or_amat_file_is_named_with_what_to_do(data, folder, name, content, reason, packed, tmp_path):
    (tmp_path / folder).mkdir(parents=True)
    path = tmp_path / folder / (name + ".gz" * packed)
    content = content(size_of(name))
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    before = listing(tmp_path)
    message = refused(path, "delete it", name=data, data_dir=tmp_path)
    assert reason in message
    assert listing(tmp_path) == before


@pytest.mark.parametrize("data, folder, name", KNOWN_SETS)
@pytest.mark.parametrize("damage", [lambda gz: gz[:-20], lambda gz: gz[:5], lambda gz: b"not a gzip file",
                                    lambda gz: gz[:40] + b"\xff" * 40 + gz[80:]],
                         ids=["truncated", "stub", "not gzip", "overwritten"])
def test_a_damaged_gz_file_is_named_with_what_to_do(data, folder, name, damage, tmp_path, rng):
    (tmp_path / folder).mkdir(parents=True)
    path = tmp_path / folder / (name + ".gz")
    path.write_bytes(damage(gzip.compress(rng.bytes(5000))))
    refused(path, "cannot read", "delete it", name=data, data_dir=tmp_path)


@pytest.mark.parametrize("data, folder, name", KNOWN_SETS)
def test_a_folder_in_the_place_of_a_file_is_named_with_what_to_do(data, folder, name, tmp_path):
    (tmp_path / folder / name).mkdir(parents=True)
    message = refused(tmp_path / folder / name, "delete it", name=data, data_dir=tmp_path)
    assert message.count(name) == 1                     # the system's own message would name it again


def test_missing_mnist_files_are_listed_with_their_folder_and_their_address(tmp_path):
    message = refused(tmp_path / "MNIST" / "raw", *MNIST_FILES, common.data.MNIST_URL, "--data digits",
                      name="mnist", data_dir=tmp_path, download=False)
    assert "cannot download" not in message             # nobody asked for one
    assert listing(tmp_path) == []


def test_missing_binary_mnist_files_are_listed_with_their_folder_and_their_address(tmp_path):
    refused(tmp_path / "BinaryMNIST", *BINARY_MNIST_FILES, common.data.BINARY_MNIST_URL, name="binary-mnist",
            data_dir=tmp_path)
    assert listing(tmp_path) == []


# ---- mnist: the download -------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(monkeypatch):
    """mirror(address) makes torchvision download from there only; `files`, by name, are packed and served here."""
    datasets = pytest.importorskip("torchvision").datasets
    servers = []

    def start(address=None, files=None):
        if files is not None:
            packed = {f"/{name}.gz": gzip.compress(content, 1) for name, content in files.items()}

            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    self.send_response(200 if self.path in packed else 404)
                    self.end_headers()
                    if self.command == "GET":
                        self.wfile.write(packed.get(self.path, b""))

                do_HEAD = do_GET

                def log_message(self, *arguments):
                    return

            servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            address = f"http://127.0.0.1:{servers[-1].server_port}/"
            # gzip files made here have other sums than those of the mirrors, hence none
            monkeypatch.setattr(datasets.MNIST, "resources", [(f"{name}.gz", None) for name in MNIST_FILES])
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_failing_download_says_what_to_do_and_leaves_nothing_behind(mirror, tmp_path):
    mirror("http://127.0.0.1:9/")                       # nobody listens there
    refused(*MNIST_FILES, tmp_path / "MNIST" / "raw", common.data.MNIST_URL, "--data digits",
            name="mnist", data_dir=tmp_path)
    assert listing(tmp_path) == [] and socket.getdefaulttimeout() is None


@pytest.mark.timeout(30)
def test_a_server_that_stays_silent_does_not_hang_the_download(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(common.data, "DOWNLOAD_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        refused(tmp_path / "MNIST" / "raw", "timed out", name="mnist", data_dir=tmp_path)
    assert listing(tmp_path) == [] and socket.getdefaulttimeout() is None


def test_a_download_of_other_contents_is_refused_and_leaves_nothing_behind(mirror, tmp_path):
    mirror(files={name: b"<html>please log in</html>" for name in MNIST_FILES})
    refused(tmp_path / "MNIST" / "raw", name="mnist", data_dir=tmp_path)
    assert listing(tmp_path) == []


def test_a_failing_download_does_not_create_the_default_folder(mirror, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mirror(files={})                                    # 404 for everything
    refused(Path("data") / "MNIST" / "raw", name="mnist")
    assert listing(tmp_path) == []


@real_mnist
def test_a_download_fetches_what_is_missing_and_is_read_the_next_time(mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    contents = {name: common.data._read_set(Path(REAL) / "MNIST" / "raw", {name: known}, "")[0][name]
                for name, known in MNIST_FILES.items()}
    mirror(files=contents)
    data = load_dataset("mnist")
    assert "downloading MNIST" in capsys.readouterr().out
    assert sorted(os.listdir("data/MNIST/raw")) == sorted(MNIST_FILES)
    again = load_dataset("mnist", download=False)
    assert np.array_equal(data.x_test, again.x_test) and np.array_equal(data.y_train, again.y_train)
    assert not capsys.readouterr().out


# ---- the real files --------------------------------------------------------------------------------------------------


@real_mnist
def test_mnist_is_60000_and_10000_labeled_digits(monkeypatch):
    monkeypatch.setenv("VAE_DATA", REAL)
    data = load_dataset("mnist", download=False)
    assert data.x_train.shape == (60000, 784) and data.x_test.shape == (10000, 784) and data.x_train.dtype == np.uint8
    assert data.y_train.shape == (60000,) and data.y_test.shape == (10000,) and data.y_train.dtype == np.int64
    assert data.x_valid is None and data.y_valid is None and data.image_shape == (28, 28) and not data.binary
    assert set(data.y_train.tolist()) == set(range(10)) and data.x_train.max() == 255
    ones = data.x_train[data.y_train == 1].mean(0).reshape(28, 28)
    assert ones[:, 12:16].sum() > 0.6 * ones.sum()      # the mean 1 stands upright in the middle: rows are rows
    assert data.x_train.flags.writeable                 # torch.from_numpy warns about arrays that are not


@real_binary_mnist
def test_binary_mnist_is_black_and_white_in_three_parts(monkeypatch):
    monkeypatch.setenv("VAE_DATA", REAL)
    data = load_dataset("binary-mnist")
    assert [len(x) for x in (data.x_train, data.x_valid, data.x_test)] == [50000, 10000, 10000]
    assert data.binary and data.y_train is data.y_valid is data.y_test is None and data.image_shape == (28, 28)
    for x in (data.x_train, data.x_valid, data.x_test):
        assert x.shape[1] == 784 and x.dtype == np.uint8 and set(np.unique(x[:1000])) == {0, 255}
        assert 0.11 < pixels(x[:5000]).mean() < 0.15    # about 13 pixels in 100 of a digit are ink


@real_binary_mnist
@pytest.mark.parametrize("how", BINARIZE)
def test_no_binarization_changes_binary_mnist(how, monkeypatch, rng):
    monkeypatch.setenv("VAE_DATA", REAL)
    x = load_dataset("binary-mnist").x_test[:500]
    assert np.array_equal(binarize(x, how, rng), pixels(x))


@real_binary_mnist
def test_plain_and_packed_files_are_the_same_contents(tmp_path):
    name = "binarized_mnist_valid.amat"
    known = {name: BINARY_MNIST_FILES[name]}
    contents, _ = common.data._read_set(Path(REAL) / "BinaryMNIST", known, "")
    for packed in (True, False):                        # both there: plain is taken, without a look at the other
        (tmp_path / (name + ".gz" * packed)).write_bytes(gzip.compress(contents[name], 1) if packed else contents[name])
        assert common.data._read_set(tmp_path, known, "") == (contents, [])
        (tmp_path / f"{name}.gz").write_bytes(b"junk")


@real_frey
def test_frey_is_1965_upright_faces_split_at_random_in_the_order_of_the_film():
    from scipy.io import loadmat

    data = load_dataset("frey", REAL)
    assert [len(x) for x in (data.x_train, data.x_valid, data.x_test)] == [1565, 200, 200]
    assert data.image_shape == (28, 20) and data.x_train.dtype == np.uint8 and data.y_train is None and not data.binary
    film = loadmat(Path(REAL) / "frey_rawface.mat")["ff"].T
    frame = {row.tobytes(): i for i, row in enumerate(film)}
    assert len(frame) == 1965                           # no two frames are the same, so that a row tells its number
    parts = [[frame[row.tobytes()] for row in x] for x in (data.x_train, data.x_valid, data.x_test)]
    assert sorted(sum(parts, [])) == list(range(1965)) and all(part == sorted(part) for part in parts)
    assert parts[2][:3] == [8, 12, 14]             # pinned, as the split of digits is
    # upright: neighbors in a column are alike, which they are not where a row has another length
    gray = pixels(film).reshape(-1, 28, 20)
    assert np.abs(np.diff(gray, axis=1)).mean() < 0.6 * np.abs(np.diff(gray.reshape(-1, 20, 28), axis=1)).mean()


@real_frey
@pytest.mark.parametrize("keep", [0, 3, 128, 500_000])
def test_a_truncated_frey_file_is_named_with_what_to_do(keep, tmp_path):
    path = tmp_path / "frey_rawface.mat"
    path.write_bytes((Path(REAL) / path.name).read_bytes()[:keep])
    refused(path, "delete it", common.data.FREY_URL, name="frey", data_dir=tmp_path)


@pytest.mark.parametrize("arrays", [
    {"ff": np.zeros((560, 1965), np.uint8)},
    {"ff": np.zeros((560, 100), np.uint8)},
    {"ff": np.array(["text", "lines"])},
    {"ff": np.array([{"a": 1}, "b"], object)},
    {"faces": np.zeros((560, 1965), np.uint8)},
], ids=["other pixels", "too few", "text", "objects", "no key"])
def test_another_mat_file_is_not_taken_for_frey(arrays, tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "frey_rawface.mat", arrays)
    refused(tmp_path / "frey_rawface.mat", "delete it", name="frey", data_dir=tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"MATLAB 5.0 MAT-file", bytes(1000)])
def test_junk_is_not_taken_for_frey(content, tmp_path):
    path = tmp_path / "frey_rawface.mat"
    path.write_bytes(content)
    refused(path, "delete it", name="frey", data_dir=tmp_path)


def test_a_missing_frey_file_is_named_with_its_address(tmp_path):
    refused(tmp_path / "frey_rawface.mat", common.data.FREY_URL, "--data digits", name="frey", data_dir=tmp_path)
    (tmp_path / "frey_rawface.mat").mkdir()
    refused(tmp_path / "frey_rawface.mat", name="frey", data_dir=tmp_path)


# ---- npz -----------------------------------------------------------------------------------------------------------


def images(count=7, height=3, width=5, dtype=np.uint8, seed=0):
    x = np.random.default_rng(seed).integers(0, 256, (count, height, width)).astype(np.uint8)
    return x if dtype == np.uint8 else (x / 255).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_is_read_as_rows_in_reading_order(dtype, save, tmp_path, capsys):
    x_train, x_test = images(7, dtype=dtype), images(4, dtype=dtype, seed=1)
    x_train = np.asfortranarray(x_train)                # the order in memory is not the reading order
    save(tmp_path / "mine.npz", x_train=x_train, x_test=x_test, y_train=np.arange(7, dtype=np.uint8), other=np.ones(2))
    data = load_dataset("npz", data_file=tmp_path / "mine.npz")
    assert data.name == "npz" and data.image_shape == (3, 5) and data.x_valid is None
    assert data.x_train.dtype == (np.uint8 if dtype == np.uint8 else np.float32) and data.x_train.flags.c_contiguous
    assert data.x_train.shape == (7, 15) and data.x_test.shape == (4, 15)
    assert data.x_train[6, 1 * 5 + 2] == x_train[6, 1, 2].astype(data.x_train.dtype)
    assert data.y_train.dtype == np.int64 and data.y_train.tolist() == list(range(7)) and data.y_test is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("count, held", [(2, 1), (9, 1), (20, 2), (39, 3)])
def test_without_x_test_the_last_tenth_is_held_out_aloud(count, held, tmp_path, capsys):
    x = images(count)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=np.arange(count))
    data = load_dataset("npz", data_file=str(tmp_path / "mine.npz"))
    assert np.array_equal(data.x_test, x[-held:].reshape(held, -1)) and len(data.x_train) == count - held
    assert data.y_test.tolist() == list(range(count - held, count)) and len(data.y_train) == count - held
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "mine.npz" in said and f"last {held}" in said and "held out" in said


@pytest.mark.parametrize("dtype, white", [(np.uint8, 255), (np.float32, 1)])
def test_an_npz_file_of_black_and_white_pixels_is_known_as_binary(dtype, white, tmp_path):
    x = (images() > 127) * np.array(white, dtype)
    np.savez(tmp_path / "mine.npz", x_train=x, x_test=x)
    assert load_dataset("npz", data_file=tmp_path / "mine.npz").binary
    np.savez(tmp_path / "mine.npz", x_train=x, x_test=images(dtype=dtype))
    assert not load_dataset("npz", data_file=tmp_path / "mine.npz").binary


def with_value(value, dtype=np.float32):
    x = images(dtype=dtype)
    x[2, 1, 3] = value
    return x


WRONG_ARRAYS = {
    "no x_train": ({"images": images()}, "no x_train"),
    "empty file": ({}, "no x_train"),
    "NaN": ({"x_train": with_value(np.nan)}, "NaN"),
    "infinity": ({"x_train": with_value(np.inf)}, "[0, 1]"),
    "above 1": ({"x_train": with_value(1.5)}, "1.5"),
    "just above 1": ({"x_train": with_value(np.nextafter(np.float32(1), np.float32(2)))}, "1.0000001"),
    "below 0": ({"x_train": with_value(-0.25)}, "-0.25"),
    "too large for float32": ({"x_train": with_value(1e300, np.float64)}, "[0, 1]"),
    "floats in 0..255": ({"x_train": images().astype(np.float64)}, "scale it"),
    "NaN in x_test": ({"x_train": images(), "x_test": with_value(np.nan)}, "x_test"),
    "int64": ({"x_train": images().astype(np.int64)}, "int64"),
    "bool": ({"x_train": images() > 127}, "bool"),
    "complex": ({"x_train": images().astype(complex)}, "complex"),
    "text": ({"x_train": np.array([["a", "b"]])}, "<U1"),
    "uint8 of 0 and 1": ({"x_train": images() % 2}, "255"),
    "rows": ({"x_train": images().reshape(7, 15)}, "(7, 15)"),
    "channels": ({"x_train": images()[:, None]}, "(7, 1, 3, 5)"),
    "one number": ({"x_train": np.float32(0.5)}, "shape ()"),
    "no images": ({"x_train": images()[:0]}, "(0, 3, 5)"),
    "no width": ({"x_train": images()[:, :, :0]}, "(7, 3, 0)"),
    "empty x_test": ({"x_train": images(), "x_test": images()[:0]}, "x_test"),
    "other size": ({"x_train": images(), "x_test": images(width=4)}, "(7, 3, 4)"),
    "one image": ({"x_train": images(1)}, "one image"),
    "too few labels": ({"x_train": images(), "y_train": np.arange(6)}, "y_train"),
    "too many test labels": ({"x_train": images(), "x_test": images(), "y_test": np.arange(8)}, "y_test"),
    "one-hot labels": ({"x_train": images(), "y_train": np.eye(7, dtype=int)}, "(7, 7)"),
    "float labels": ({"x_train": images(), "y_train": np.arange(7.0)}, "float64"),
    "text labels": ({"x_train": images(), "y_train": np.array(list("abcdefg"))}, "<U1"),
    "labels of nothing": ({"x_train": images(), "y_test": np.arange(7)}, "no x_test"),
    "pickled objects": ({"x_train": np.array([{}, []], object)}, "never unpickled"),
    "pickled labels": ({"x_train": images(), "y_train": np.array([{}] * 7)}, "never unpickled"),
}


@pytest.mark.parametrize("arrays, reason", WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
def test_a_wrong_array_in_an_npz_file_is_named_with_what_to_do(arrays, reason, tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    assert reason in refused(path, name="npz", data_file=path)
    assert listing(tmp_path) == ["mine.npz"]


def broken_npz(kind, path):
    np.savez_compressed(path, x_train=images(40))
    whole = path.read_bytes()
    if kind == "an .npy file":
        with path.open("wb") as file:
            np.save(file, images())
    elif kind == "a zip of other things":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x_train", b"these are no numbers")
    elif kind == "a zip with a broken header":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((\n\n")
    else:
        path.write_bytes({"empty": b"", "text": b"0.1 0.2 0.3\n", "truncated": whole[:-30],
                          "overwritten": whole[:200] + bytes(100) + whole[300:]}[kind])


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "overwritten", "an .npy file", "a zip of other things",
                                  "a zip with a broken header"])
def test_what_is_no_npz_file_is_named_with_what_to_do(kind, tmp_path):
    broken_npz(kind, tmp_path / "mine.npz")
    refused(tmp_path / "mine.npz", name="npz", data_file=tmp_path / "mine.npz")


def test_a_missing_npz_file_and_a_folder_are_named_with_what_to_do(tmp_path):
    assert "No such file" in refused(tmp_path / "mine.npz", name="npz", data_file=tmp_path / "mine.npz")
    refused(tmp_path, name="npz", data_file=tmp_path)


# ---- pixels and binarize -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pixels_of_uint8_run_from_0_to_1_and_floats_stay(dtype):
    x = np.arange(256, dtype=np.uint8).reshape(4, 64)
    p = pixels(x, dtype)
    assert p.dtype == dtype and p[0, 0] == 0 and p[-1, -1] == 1
    np.testing.assert_allclose(p, x.astype(np.float64) / 255, rtol=1e-7)            # one rounding to float32: 6e-8
    assert pixels(p, dtype) is p


def test_pixels_of_whole_numbers_other_than_uint8_are_refused():
    with pytest.raises(InputError, match="int64.*give uint8"):
        pixels(np.arange(4))


@pytest.mark.parametrize("how", BINARIZE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binarize_gives_zeros_and_ones_of_the_asked_dtype_and_edits_nothing(how, dtype, rng):
    x = images(6).reshape(6, -1)
    before = x.copy()
    b = binarize(x, how, rng, dtype)
    assert b.dtype == dtype and b.shape == x.shape and np.array_equal(x, before)
    assert how == "none" or set(np.unique(b)) == {0, 1}


@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_drawn_pixels_are_unbiased(how):
    x = np.arange(256, dtype=np.uint8)[None]            # every gray there is
    p, n = x[0] / 255, 10_000
    mean = binarize(np.repeat(x, n, 0), how, np.random.default_rng(1)).mean(0)
    error = np.sqrt(p * (1 - p) / n)                    # standard error of a mean of n Bernoulli draws, at most 0.005
    assert mean[0] == 0 and mean[255] == 1
    assert (np.abs(mean - p)[1:255] < 4.5 * error[1:255]).all()         # 254 grays: chance 0.2 % for an unlucky seed
    assert abs((mean - p).mean()) < 4 * np.sqrt((error ** 2).sum()) / 256           # nor a small bias of all together


def test_black_stays_black_and_white_stays_white_at_the_ends_of_the_generator():
    class Ends:                                         # uniform numbers lie in [0, 1): these are the outermost two
        def random(self, shape, dtype):
            return np.resize(np.array([0, 1 - 2.0 ** -24], dtype), shape)

    x = np.array([[0, 0, 255, 255]], np.uint8)
    assert binarize(x, "dynamic", Ends()).tolist() == [[0, 0, 1, 1]]


def test_dynamic_draws_anew_on_every_call_and_static_is_the_same_draw(rng):
    x = np.full((20, 50), 128, np.uint8)
    first, second = binarize(x, "dynamic", rng), binarize(x, "dynamic", rng)
    assert 0.4 < (first != second).mean() < 0.6         # half of 1000 pixels, give or take 0.016
    again = np.random.default_rng(5)
    assert np.array_equal(binarize(x, "static", np.random.default_rng(5)), binarize(x, "dynamic", again))


def test_the_dtype_of_training_changes_neither_the_draws_nor_the_generator():
    x = images(40).reshape(40, -1)
    generators = [np.random.default_rng(3) for _ in range(3)]
    single, double = (binarize(x, "dynamic", g, d) for g, d in zip(generators, (np.float32, np.float64), strict=False))
    scaled = binarize(pixels(x, np.float64), "dynamic", generators[2], np.float64)
    assert np.array_equal(single, double) and np.array_equal(single, scaled)
    assert len({g.random() for g in generators}) == 1


def test_threshold_is_above_one_half():
    assert binarize(np.array([[0, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), 1]], np.float32), "threshold",
                    None).tolist() == [[0, 0, 1, 1]]
    assert binarize(np.array([[0, 127, 128, 255]], np.uint8), "threshold", None).tolist() == [[0, 0, 1, 1]]


def test_none_leaves_the_grays():
    x = images().reshape(7, -1)
    assert np.array_equal(binarize(x, "none", None), pixels(x))


def test_threshold_and_none_draw_nothing():
    rng, untouched = np.random.default_rng(2), np.random.default_rng(2)
    for how in ("threshold", "none"):
        binarize(images().reshape(7, -1), how, rng)
    assert rng.random() == untouched.random()


@pytest.mark.parametrize("how", ["Dynamic", "", None])
def test_an_unknown_binarization_lists_the_known_ones(how, rng):
    with pytest.raises(InputError, match="choose one of dynamic, static, threshold, none"):
        binarize(images().reshape(7, -1), how, rng)


@pytest.mark.parametrize("how", BINARIZE)
def test_evaluation_sees_the_same_test_images_always(how):
    data = load_dataset("digits")
    first = eval_images(data, how)
    assert first.dtype == np.float32 and first.shape == data.x_test.shape
    assert np.array_equal(first, eval_images(data, how, np.float64))
    if how in ("dynamic", "static"):
        assert np.array_equal(first, eval_images(data, "static")) and set(np.unique(first)) == {0, 1}
    for sure in (0, 1):                                     # it sees the test images, and no others: these are no draws
        assert np.all(first[data.x_test == sure] == sure) and np.any(data.x_test == sure)


def test_the_images_that_sample_numpy_shows_are_test_images_that_the_seed_chooses(tmp_path):
    """All of them in an order of the seed's, or with --label those of that label."""
    x, y = np.arange(24.0).reshape(12, 2) / 24, np.arange(12) % 3
    np.savez(tmp_path / "data.npz", x_train=np.ones((4, 1, 2)), x_test=x[:, None], y_train=np.arange(4), y_test=y)
    config = VAEConfig(image_shape=(1, 2), likelihood="gaussian")           # gray pixels stay gray: each image is known
    command = ["--weights", "params.npz", "--data", "npz", "--data-file", str(tmp_path / "data.npz")]

    def shown(*more):
        images = sample_numpy.shuffled_images(config, sample_numpy.parse([*command, *more]))
        return [int(number) for number in np.rint(images[:, 0] * 12)]       # which image each row is

    assert sorted(shown()) == list(range(12)) and sorted(shown("--label", "1")) == [1, 4, 7, 10]
    assert shown("--seed", "0") == shown() != shown("--seed", "1")
