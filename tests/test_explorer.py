"""The latent explorer: what is committed is what build.py gives; in a real browser the page computes what NumPy computes.

The tests in the browser are slow ones; they need playwright, of the extra [dev], and a Chromium.
"""

import base64
import functools
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from losses_numpy import bernoulli_log_likelihood, kl_divergence
from matplotlib.image import imread
from networks_numpy import decode, decode_mean, encode

from common.checkpoints import load_params, save_params
from common.cli import run_command
from common.config import VAEConfig, init_params, parameter_shapes
from common.data import load_dataset, pixels
from exercises.explorer import build as explorer

PAGE = explorer.HERE / "index.html"
VIEWS = ("map", "sliders", "labels")
H, W, HIDDEN, CLASSES, COUNT = 5, 7, 4, 3, 23                   # small, odd, all different
TINY = VAEConfig(image_shape=(H, W), hidden=HIDDEN, latent=2)
CONFIGS = {"map": TINY, "sliders": replace(TINY, latent=6), "labels": replace(TINY, latent=1, condition=CLASSES)}
MNIST = "VAE_DATA" in os.environ and (Path(os.environ["VAE_DATA"]) / "MNIST" / "raw").is_dir()
needs_mnist = pytest.mark.skipif(not MNIST, reason="MNIST is not in $VAE_DATA")


def weights_file(path, config, seed=0):
    """Random weights, biases too, large enough to bend the tanh."""
    rng = np.random.default_rng(seed)
    params = {name: (3 * array + 0.3 * rng.standard_normal(array.shape)).astype(np.float32)
              for name, array in init_params(config, rng).items()}
    save_params(path, params, config)
    return path


def images_file(path, labels=True):
    rng = np.random.default_rng(1)
    told = {"y_train": rng.integers(0, CLASSES, COUNT), "y_test": rng.integers(0, CLASSES, COUNT)} if labels else {}
    np.savez(path, x_train=rng.random((COUNT, H, W)), x_test=rng.random((COUNT, H, W)), **told)
    return path


def build(folder, configs, labels=True, name="page.html", more=()):
    """The exit code of build.py on tiny weights and images, and the page that it was to write."""
    files = [weights_file(folder / f"{view}.npz", config) for view, config in configs.items()]
    images = images_file(folder / "images.npz", labels)
    command = ["--weights", *files, "--data", "npz", "--data-file", images, "--out", folder / name, *more]
    return run_command(lambda: explorer.main(list(map(str, command)))), folder / name


@functools.lru_cache(maxsize=4)
def facts_of(page):
    """The data that stand at the end of a page."""
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text("utf-8"))[1])


def halves_of(model):
    """The weights in a page, as float64, and their configuration."""
    config = VAEConfig(image_shape=model["imageShape"], hidden=model["hidden"], latent=model["latent"],
                       likelihood=model["likelihood"], condition=model["condition"])
    params = {name: np.frombuffer(base64.b64decode(text), "<f2").astype(np.float64)
              for name, text in model["params"].items()}
    return {name: params[name].reshape(shape) for name, shape in parameter_shapes(config).items()}, config


# ---- the file --------------------------------------------------------------------------------------------------------


@needs_mnist
def test_the_committed_page_is_what_its_sources_give(tmp_path):
    explorer.main(["--out", str(tmp_path / "index.html")])
    same = (tmp_path / "index.html").read_bytes() == PAGE.read_bytes()     # a difference of megabytes is better not shown
    assert same, "run: python exercises/explorer/build.py"


def test_the_committed_page_is_small_and_has_all_three_views():
    assert PAGE.stat().st_size < 4e6
    assert list(facts_of(PAGE)["models"]) == list(VIEWS)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    pages = [build(tmp_path, CONFIGS, name=name)[1].read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz", ".html"}         # nothing temporary stays


def test_the_page_loads_nothing():
    text = PAGE.read_text("utf-8")
    code = text[:text.index('<script id="data"')]
    assert not re.findall(r"https?:|//cdn|@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\(|WebSocket|sendBeacon", code)
    assert re.findall(r"<link[^>]*>", code) == ['<link rel="icon" href="data:,">']      # so that none is asked for
    assert not re.findall(r"<(?:script|img|iframe|source|video|audio)[^>]* src=", code)
    assert "default-src 'none'" in code


def test_the_page_holds_the_weights_in_half_precision_and_what_they_say(tmp_path):
    code, page = build(tmp_path, CONFIGS)
    assert code == 0
    facts, data = facts_of(page), load_dataset("npz", data_file=tmp_path / "images.npz")
    x = (data.x_test > 0.5).astype(np.float64)
    assert list(facts["models"]) == list(VIEWS) and facts["imageShape"] == [H, W]
    for view, model in facts["models"].items():
        params, config = halves_of(model | {"imageShape": (H, W)})
        exact, told = load_params(tmp_path / f"{view}.npz")
        assert config == told
        for name, array in params.items():
            np.testing.assert_array_equal(array, exact[name].astype(np.float16), err_msg=name)
        mu, logvar = encode(params, x, config, data.y_test if config.condition else None)
        # rounded to three digits
        np.testing.assert_allclose(model["kl"], kl_divergence(mu, logvar).mean(axis=0), atol=5.1e-4)
        assert model["limit"] >= max(3, np.abs(mu).max())
    order = np.random.default_rng(0).permutation(COUNT)
    means = np.frombuffer(base64.b64decode(facts["models"]["map"]["means"]), "<u2").reshape(-1, 2)
    limit = facts["models"]["map"]["limit"]
    params, config = halves_of(facts["models"]["map"] | {"imageShape": (H, W)})
    mu = encode(params, x, config)[0]
    # 65535 steps from -limit to limit, rounded to the nearest
    np.testing.assert_allclose((means / 32767.5 - 1) * limit, mu[order], atol=0.51 * limit / 32767.5)
    assert facts["dotLabels"] == data.y_test[order].tolist()
    bits = np.frombuffer(base64.b64decode(facts["images"]), np.uint8).reshape(COUNT, -1)
    np.testing.assert_array_equal(np.unpackbits(bits, axis=1)[:, :H * W], x[order])


def test_gray_images_stay_gray_for_a_gaussian_model(tmp_path):
    code, page = build(tmp_path, {"map": replace(TINY, likelihood="gaussian")})
    assert code == 0
    data, facts = load_dataset("npz", data_file=tmp_path / "images.npz"), facts_of(page)
    order = np.random.default_rng(0).permutation(COUNT)
    grays = np.frombuffer(base64.b64decode(facts["images"]), np.uint8).reshape(COUNT, -1)
    np.testing.assert_allclose(grays / 255, pixels(data.x_test)[order], atol=0.51 / 255)     # rounded to 256 grays


@needs_mnist
def test_a_digit_of_mnist_fills_a_box_of_20_pixels():
    assert explorer.box(load_dataset("mnist")) == 20


def test_the_box_is_the_longer_side_of_what_is_drawn():
    x = np.zeros((3, H, W), np.float32)
    x[0, 1:4, 2:4] = x[1, 0:2, 2:6] = x[2, 2, 3] = 0.2           # 3 x 2, 2 x 4, 1 x 1
    data = replace(load_dataset("digits"), x_test=x.reshape(3, -1), image_shape=(H, W))
    assert explorer.box(data) == 3                               # the median of 3, 4, 1


@pytest.mark.parametrize(("config", "words"), [
    (VAEConfig("conv", (8, 8), latent=2), "arch conv"),
    (replace(TINY, layers=2), "layers=2"),
    (replace(TINY, image_shape=(W, H)), "images of 7 x 5, those of npz are 5 x 7"),
    (replace(TINY, condition=CLASSES - 1), "labels go from 0 to 1"),
])
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, capsys, config, words):
    refused(build(tmp_path, {"one": config}), capsys, words, "one.npz" if "labels go" not in words else "")


def refused(code_and_page, capsys, *words):
    code, page = code_and_page
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: "), lines
    assert all(word in lines[0] for word in words), lines[0]
    assert not page.exists()


def test_weights_that_do_not_fit_each_other_are_refused(tmp_path, capsys):
    refused(build(tmp_path, {"one": TINY, "two": TINY}), capsys, "two.npz", "one.npz", "both for the map")
    gaussian = replace(TINY, latent=3, likelihood="gaussian")
    refused(build(tmp_path, {"one": TINY, "two": gaussian}), capsys, "Bernoulli and Gaussian")


def test_a_conditional_model_wants_labels(tmp_path, capsys):
    refused(build(tmp_path, {"labels": CONFIGS["labels"]}, labels=False), capsys, "labels.npz", "npz has no labels")


def test_numbers_that_half_precision_cannot_hold_are_refused(tmp_path, capsys):
    params = init_params(TINY, np.random.default_rng(0))
    params["decoder.hidden.bias"][2] = 7e4
    save_params(tmp_path / "large.npz", params, TINY)
    images = images_file(tmp_path / "images.npz")
    command = ["--weights", tmp_path / "large.npz", "--data", "npz", "--data-file", images, "--out", tmp_path / "page.html"]
    code = run_command(lambda: explorer.main(list(map(str, command))))
    refused((code, tmp_path / "page.html"), capsys, "decoder.hidden.bias", "65,504")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path, capsys):
    page = tmp_path / "page.html"
    code = run_command(lambda: explorer.main(["--weights", str(tmp_path / "none.npz"), "--out", str(page)]))
    refused((code, page), capsys, "none.npz")
    (tmp_path / "file").write_text("in the way")
    refused(build(tmp_path, {"map": TINY}, name="file/page.html"), capsys, "file/page.html", "another file")


def texts():
    """The words of text.js: {"en": {key: words}, "ko": {key: words}}."""
    source = (explorer.HERE / "text.js").read_text("utf-8")
    entry = re.compile(r'^    "?([\w-]+)"?: ((?:"(?:[^"\\]|\\.)*"(?:\s*\+\s*)?)+),$', re.MULTILINE)
    parts = re.split(r"^  (en|ko): \{$", source, flags=re.MULTILINE)
    return {parts[i]: {key: "".join(re.findall(r'"([^"]*)"', words)) for key, words in entry.findall(parts[i + 1])}
            for i in (1, 3)}


def test_both_languages_say_everything():
    english, korean = texts()["en"], texts()["ko"]
    assert english.keys() == korean.keys() and len(english) > 40
    for key in english:
        places = [sorted(re.findall(r"\{\w+\}", words[key])) for words in (english, korean)]
        assert places[0] == places[1], key
        if re.search("[A-Za-z]{2}", re.sub(r"\{\w+\}|KL|nat", "", english[key])):
            assert re.search("[가-힣]", korean[key]), key                 # not left in English
    page, script = ((explorer.HERE / name).read_text("utf-8") for name in ("page.html", "explorer.js"))
    wanted = set(re.findall(r'data-(?:text|label)="(\w+)"', page + script)) | set(re.findall(r'say\("(\w+)"', script))
    assert wanted <= english.keys(), wanted - english.keys()


def test_korean_terms_come_with_the_english_one_at_first():
    korean = texts()["ko"]
    terms = {"잠재 변수": "latent variable", "잠재 공간": "latent space", "사후 분포": "posterior", "사전 분포": "prior",
             "재구성": "reconstruction", "보간": "interpolation", "조건부": "conditional"}
    for term, english in terms.items():
        assert any(f"{term}({english})" in words for words in korean.values()), term


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """A Chromium that draws no window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, of the extra [dev], drives the browser")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as driver:
        if path is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("no Chromium here: install the distribution's, for instance apt-get install chromium")
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        launched = driver.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        yield launched
        launched.close()


# every ellipse is written down: [x, y, radius x, radius y], in CSS pixels
ELLIPSES = """window.ellipses = []; const ellipse = CanvasRenderingContext2D.prototype.ellipse;
CanvasRenderingContext2D.prototype.ellipse = function (...numbers) {
  window.ellipses.push(numbers.slice(0, 4)); return ellipse.apply(this, numbers);
};"""


class Reader:
    """A page in the browser, and a hand to use it. Everything it complains of and asks for is kept."""

    def __init__(self, browser, path=PAGE, **options):
        self.path = path
        options = {"viewport": {"width": 1180, "height": 1000}, "locale": "en-US"} | options
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.add_init_script(ELLIPSES)
        self.page.goto(path.as_uri())
        self.settle()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        complaints, requests = list(self.complaints), list(self.requests)
        self.context.close()
        if kind is None:
            assert complaints == []
            assert [url for url in requests if not url.startswith("data:")] == requests[:1]      # the page itself

    def settle(self):
        """Until what has happened is on the screen."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def ask(self, expression, argument=None):
        value = self.page.evaluate(expression, argument)
        return np.array(value) if isinstance(value, list) else value

    def z(self, view="map"):
        return self.ask("(view) => [...explorer.state.z[view]]", view)

    def posterior(self, view="map"):
        return [self.ask("([view, name]) => [...explorer.state.posterior[view][name]]", [view, name])
                for name in ("mu", "logvar")]

    def x(self):
        return self.ask("() => [...explorer.state.x]")

    def picture(self, selector):
        """The gray pixels on a small canvas, (h, w) in 0..255."""
        return self.pixels(f"document.querySelector('{selector}')")

    def pixels(self, canvas):
        """The gray pixels of a canvas, (h, w) in 0..255; read from a copy, since to read one often makes it slow."""
        width, height, text = self.page.evaluate(f"""() => {{ const canvas = {canvas}, {{ width, height }} = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d");
            copy.drawImage(canvas, 0, 0);
            const {{ data }} = copy.getImageData(0, 0, width, height);
            const grays = data.filter((_, i) => i % 4 === 0);
            return [width, height, Array.from(grays, (gray) => gray.toString(16).padStart(2, "0")).join("")]; }}""")
        return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(height, width).astype(float)

    def until(self, condition):
        """Waits for a condition, at most ten seconds."""
        self.page.evaluate(f"""() => new Promise((done, fail) => {{
            const began = performance.now(), look = () => {{
              if ({condition}) done();
              else if (performance.now() - began > 10000) fail(new Error("in vain"));
              else requestAnimationFrame(look);
            }};
            look();
        }})""")

    def click(self, selector):
        self.page.click(selector)
        self.settle()

    def box(self, selector):
        self.page.locator(selector).scroll_into_view_if_needed()
        box = self.page.locator(selector).bounding_box()
        return np.array([box["x"], box["y"]]), np.array([box["width"], box["height"]])

    def drag(self, selector, places):
        """A pressed pointer along places, which are shares of the element."""
        corner, size = self.box(selector)
        for i, place in enumerate(places):
            self.page.mouse.move(*(corner + place * size))
            if i == 0:
                self.page.mouse.down()
        self.page.mouse.up()
        self.settle()

    def model(self, view):
        """The weights in the page, as float64, their configuration, and what else the page knows of the model."""
        facts = facts_of(self.path)
        model = facts["models"][view]
        return *halves_of(model | {"imageShape": tuple(facts["imageShape"])}), model


@pytest.fixture
def reader(browser):
    with Reader(browser) as at:
        yield at


@pytest.fixture
def read(browser):
    """read(...) opens a page in a window of one's own making."""
    opened = []

    def open_one(*arguments, **options):
        opened.append(Reader(browser, *arguments, **options))
        return opened[-1]
    yield open_one
    for one in opened:
        one.__exit__(None)


THREE = np.array([(0.34, 0.22), (0.5, 0.14), (0.66, 0.24), (0.6, 0.4), (0.46, 0.47), (0.64, 0.56), (0.68, 0.74),
                  (0.5, 0.86), (0.32, 0.78)])


def grays(image, shape):
    """What a canvas makes of pixels in [0, 1]."""
    return np.round(255 * image).reshape(shape)


def check_networks(at, view):
    """The page's encoder and decoder are NumPy's, on the weights of the page: float64 on both sides."""
    params, config, _ = at.model(view)
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2, (20, config.pixels)).astype(np.float64)
    z = 2 * rng.standard_normal((20, config.latent))
    y = rng.integers(0, config.condition, 20) if config.condition else None
    for name, expected, argument in (("encode", encode(params, x, config, y), x),
                                     ("decode", decode(params, z, config, y), z)):
        if name == "decode" and config.likelihood == "gaussian":
            expected = expected[0]                                          # the mean
        for i in range(20):
            asked = [view, argument[i].tolist(), None if y is None else int(y[i])]
            got = at.ask(f"([view, a, y]) => {{ const out = explorer.{name}(view, a, y ?? undefined); "
                         "return out.mu ? [[...out.mu], [...out.logvar]] : [...out]; }", asked)
            if name == "decode" and config.likelihood == "gaussian":
                got = 1 / (1 + np.exp(-got))
            want = np.stack([part[i] for part in expected]) if name == "encode" else expected[i]
            # other orders of sums of at most 1,000 float64 numbers
            np.testing.assert_allclose(got, want, atol=1e-9, err_msg=f"{view}: {name}")


def check_posterior(at, view="map"):
    """What the page tells of a test image: its mu and sigma, and on the map its ellipses."""
    at.click("#test-image")
    at.page.evaluate("() => { ellipses.length = 0; }")
    at.click("#posterior-draw")                                             # draws the map anew
    params, config, facts = at.model(view)
    label = at.ask("() => explorer.state.xLabel")
    mu, logvar = encode(params, at.x()[None], config, np.array([label]) if config.condition else None)
    mu, sigma = mu[0], np.exp(0.5 * logvar[0])
    shown = np.arange(2) if view == "map" else np.argsort(-np.array(facts["kl"]), kind="stable")[:5]
    cells = at.page.locator("#posterior td").all_inner_texts()
    told = np.array([float(text.replace("−", "-")) for text in cells]).reshape(-1, 2)
    np.testing.assert_allclose(told, np.stack([mu[shown], sigma[shown]], axis=1), atol=5.1e-4)     # three decimals
    if view == "map":
        size, limit = at.page.evaluate("document.getElementById('map').clientWidth"), facts["limit"]
        center = (mu * [1, -1] / limit + 1) / 2 * size
        rows = np.unique(np.round(at.ask("() => ellipses"), 6), axis=0)
        expected = np.array([[*center, *(k * sigma * size / (2 * limit))] for k in (1, 2)])
        under_lens = np.abs(rows[:, :2] - center).max(axis=1) > 1
        np.testing.assert_allclose(rows[~under_lens], expected, atol=1e-5)                         # rounded above
        zoom = 132 / 3 // expected[:, 2:].max()                             # two thirds of a lens of 132 pixels at most
        wanted = expected[:, 2:] * zoom if zoom >= 2 else np.empty((0, 2))
        np.testing.assert_allclose(rows[under_lens, 2:], wanted, atol=1e-5)


def check_map_drag(at):
    """A point that is dragged is decoded: where the pointer lets go is z, z2 upward."""
    params, config, facts = at.model("map")
    at.drag("#map", np.array([(0.5, 0.5), (0.6, 0.45), (0.7, 0.2)]))
    z = at.z()
    expected = np.array([0.4, 0.6]) * facts["limit"]
    np.testing.assert_allclose(z, expected, atol=2 * facts["limit"] / 500)                         # one pixel of 500
    image = decode_mean(params, z[None], config)[0]
    # rounded to 256 grays on both sides
    np.testing.assert_allclose(at.picture("#decoded-picture"), grays(image, config.image_shape), atol=1)
    numbers = re.findall(r"−?\d+\.\d\d", at.page.inner_text("#z"))
    np.testing.assert_allclose([float(text.replace("−", "-")) for text in numbers], z, atol=0.0051)


def check_drawing(at):
    """A drawn digit is scaled to the box, its mass in the middle, encoded, placed on the map, and reconstructed."""
    params, config, _ = at.model("map")
    before = at.picture("#reconstruction-picture")
    at.drag("#pad", THREE)
    x = at.x().reshape(config.image_shape)
    assert set(np.unique(x)) == {0, 1}
    box = at.ask("() => explorer.data.box")
    rows, columns = np.flatnonzero(x.any(axis=1)), np.flatnonzero(x.any(axis=0))
    assert box - 2 <= rows[-1] - rows[0] + 1 <= box and columns[-1] - columns[0] + 1 < rows[-1] - rows[0]
    middle = np.argwhere(x).mean(axis=0) + 0.5
    np.testing.assert_allclose(middle, np.array(x.shape) / 2, atol=0.5)         # cutting at one half moves it a little
    mu = encode(params, x.reshape(1, -1), config)[0]
    np.testing.assert_allclose(at.z(), mu[0], atol=1e-9)
    after = at.picture("#reconstruction-picture")
    np.testing.assert_allclose(after, grays(decode_mean(params, mu, config), config.image_shape), atol=1)
    assert np.abs(after - before).max() > 100
    np.testing.assert_array_equal(at.picture("#input-picture"), 255 * x)


def check_labels(at):
    """One z under all labels."""
    params, config, _ = at.model("labels")
    at.click("#tab-labels")
    at.click("[data-prior=labels]")
    z = at.z("labels")
    for label in range(config.condition):
        image = decode_mean(params, z[None], config, np.array([label]))
        np.testing.assert_allclose(at.picture(f"#label-buttons button:nth-child({label + 1}) canvas"),
                                   grays(image, config.image_shape), atol=1, err_msg=f"label {label}")
        at.click(f"#label-buttons button:nth-child({label + 1})")
        np.testing.assert_array_equal(at.z("labels"), z)
        np.testing.assert_allclose(at.picture("#decoded-picture"), grays(image, config.image_shape), atol=1)
        assert at.page.locator("#label-buttons [aria-pressed=true]").inner_text() == str(label)


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_the_networks_of_the_page_are_those_of_numpy(reader, view):
    check_networks(reader, view)
    params, config, facts = reader.model(view)
    exact, told = load_params(explorer.HERE.parent / "weights" / facts["file"])
    assert config == told
    for name, array in exact.items():
        np.testing.assert_array_equal(params[name], array, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_other_shapes_and_pixels_work_too(read, tmp_path, likelihood):
    configs = {view: replace(config, likelihood=likelihood) for view, config in CONFIGS.items()}
    code, page = build(tmp_path, configs)
    assert code == 0
    at = read(page)
    for view in VIEWS:
        check_networks(at, view)
    at.drag("#pad", THREE)
    assert at.x().shape == (H * W,)
    assert (set(np.unique(at.x())) == {0, 1}) == (likelihood == "bernoulli")
    check_map_drag(at)
    check_labels(at)


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_one_model_makes_a_page(read, tmp_path, view):
    """Without its fellows, and but for the conditional one without labels."""
    code, page = build(tmp_path, {view: CONFIGS[view]}, labels=view == "labels")
    assert code == 0
    at = read(page)
    assert at.page.locator("[role=tab]").count() == 1
    assert at.page.locator(f"#view-{view}").is_visible()
    at.click("#test-image")
    at.drag("#pad", THREE)
    assert at.picture("#decoded-picture").any()


@pytest.mark.slow
def test_half_precision_is_read_exactly(reader):
    """All finite float16 numbers, the smallest ones too."""
    halves = np.arange(2 ** 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    got = reader.ask("(text) => [...weightsOf(text)]", base64.b64encode(halves.astype("<f2").tobytes()).decode())
    np.testing.assert_array_equal(got, halves.astype(np.float64))


@pytest.mark.slow
def test_noise_is_scaled_by_sigma_and_normal(reader):
    z = reader.ask("() => [...reparameterize([1, 2], [0.5, -1], [0.3, -0.7])]")
    np.testing.assert_allclose(z, [1 + np.exp(0.25) * 0.3, 2 - np.exp(-0.5) * 0.7], rtol=1e-12)
    eps = reader.ask("() => [...normals(40000)]")
    # five to six standard errors: 1 / sqrt(N) of the mean, 1 / sqrt(2N) of the deviation, about 0.0023 of a tail of 0.32
    assert abs(eps.mean()) < 0.028 and abs(eps.std() - 1) < 0.02 and abs(np.mean(np.abs(eps) > 1) - 0.3173) < 0.013


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_mu_sigma_and_the_ellipses_are_those_of_the_image(reader, view):
    reader.click(f"#tab-{view}")
    check_posterior(reader, view)


@pytest.mark.slow
def test_the_point_is_dragged_and_decoded(reader):
    check_map_drag(reader)


@pytest.mark.slow
def test_a_drawing_is_encoded_placed_and_reconstructed(reader):
    check_drawing(reader)
    reader.click("#clear")
    assert not reader.picture("#input-picture").any() and not reader.picture("#reconstruction-picture").any()
    assert reader.page.locator("#clear").is_disabled()


@pytest.mark.slow
def test_a_drawing_may_lie_anywhere_and_have_any_size(reader):
    """Moved and enlarged, it is the same image; moved is exact, enlarged up to the pixels of the screen."""
    images = []
    for scale, shift in ((0.5, 0.1), (0.5, 0.35), (1, 0)):
        strokes = [(scale * THREE + shift).tolist()]
        images.append(reader.ask("(strokes) => [...explorer.imageOf(strokes, [28, 28], 20)]", strokes))
    np.testing.assert_allclose(images[0], images[1], atol=1e-9)
    np.testing.assert_allclose(images[0], images[2], atol=1e-9)
    dot = reader.ask("() => [...explorer.imageOf([[[0.2, 0.9]]], [28, 28], 20)]").reshape(28, 28)
    assert dot.max() == 1 and dot[:12].max() == 0 and dot[12:16, 12:16].sum() > 0.9 * dot.sum()


@pytest.mark.slow
def test_the_page_does_not_move_under_a_pen(reader):
    """Nothing above the drawing area changes its height while one draws."""
    for view in VIEWS:
        reader.click(f"#tab-{view}")
        before = reader.page.locator("#pad").bounding_box()
        reader.drag("#pad", THREE)
        assert reader.page.locator("#pad").bounding_box() == before
        reader.click("#clear")


@pytest.mark.slow
def test_arrow_keys_move_the_point(reader):
    page = reader.page
    page.focus("#map")
    for key, expected in (("ArrowRight", [0.05, 0]), ("ArrowUp", [0.05, 0.05]), ("Shift+ArrowLeft", [-0.45, 0.05]),
                          ("Shift+ArrowDown", [-0.45, -0.45])):
        page.keyboard.press(key)
        np.testing.assert_allclose(reader.z(), expected, atol=1e-12)
    for _ in range(30):
        page.keyboard.press("Shift+ArrowRight")
    assert reader.z()[0] == reader.ask("() => explorer.data.models.map.limit")             # and no further
    reader.until("document.getElementById('spoken').textContent.includes('z₁')")  # heard, once it rests


@pytest.mark.slow
def test_a_finger_moves_the_point(read):
    at = read(has_touch=True, viewport={"width": 360, "height": 740})
    corner, size = at.box("#map")
    at.page.touchscreen.tap(*(corner + np.array([0.75, 0.75]) * size))
    at.settle()
    limit = at.ask("() => explorer.data.models.map.limit")
    np.testing.assert_allclose(at.z(), [0.5 * limit, -0.5 * limit], atol=2 * limit / 200)


@pytest.mark.slow
def test_many_moves_in_one_frame_are_drawn_once(reader):
    drawn = reader.ask("""() => { const real = draw; let count = 0; draw = () => { count += 1; real(); };
        for (let i = 0; i < 50; i++) setZ("map", Float64Array.of(i / 50, 0));
        return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(count)))); }""")
    assert drawn == 1 and reader.z()[0] == 0.98


@pytest.mark.slow
@pytest.mark.parametrize("view", ["sliders", "labels"])
def test_sliders_are_sorted_by_kl_and_move_their_latent(reader, view):
    reader.click(f"#tab-{view}")
    params, config, facts = reader.model(view)
    rows = reader.page.locator(f"#sliders-of-{view} [data-latent]")
    order = [int(row.get_attribute("data-latent")) for row in rows.all()]
    kl = np.array(facts["kl"])
    assert sorted(order) == list(range(config.latent)) and (np.diff(kl[order]) <= 0).all()
    assert rows.first.inner_text().split()[-1] == f"{kl[order[0]]:.2f}"
    y = np.array([0]) if config.condition else None
    rows.nth(1).locator("input").fill("1.25")
    reader.settle()
    z = np.zeros(config.latent)
    z[order[1]] = 1.25
    np.testing.assert_array_equal(reader.z(view), z)
    expected = grays(decode_mean(params, z[None], config, y), config.image_shape)
    np.testing.assert_allclose(reader.picture("#decoded-picture"), expected, atol=1)
    rows.nth(1).locator("input").press("ArrowRight")
    assert reader.z(view)[order[1]] == pytest.approx(1.26)
    reader.click(f"[data-prior={view}]")
    first = reader.z(view)
    reader.click(f"[data-prior={view}]")
    assert (reader.z(view) != first).all() and (first != 0).all()
    reader.click(f"[data-reset={view}]")
    np.testing.assert_array_equal(reader.z(view), np.zeros(config.latent))


@pytest.mark.slow
def test_a_test_image_moves_the_sliders_and_shows_its_posterior(reader):
    reader.click("#tab-sliders")
    assert reader.page.locator("#sliders-of-sliders .band:visible").count() == 0
    reader.click("#test-image")
    params, config, facts = reader.model("sliders")
    mu, logvar = (part[0] for part in encode(params, reader.x()[None], config))
    np.testing.assert_allclose(reader.z("sliders"), mu, atol=1e-9)
    for row, j in enumerate(np.argsort(-np.array(facts["kl"]), kind="stable")[:3]):
        track, band = (reader.page.locator(f"#sliders-of-sliders {part}").nth(row).bounding_box()
                       for part in (".track", ".band"))
        shares = ((mu[j] + np.exp(0.5 * logvar[j]) * np.array([-2, 2])) / facts["limit"] + 1) / 2
        left, right = track["x"] + 8 + np.clip(shares, 0, 1) * (track["width"] - 16)          # a thumb is 16 pixels wide
        np.testing.assert_allclose([band["x"], band["x"] + band["width"]], [left, right], atol=0.1)
    first = reader.x()
    reader.click("#test-image")
    assert (reader.x() != first).any()
    reader.click("#posterior-draw")
    mu, logvar = reader.posterior("sliders")
    eps = (reader.z("sliders") - mu) / np.exp(0.5 * logvar)
    assert (eps != 0).all() and np.abs(eps).max() < 6


@pytest.mark.slow
def test_one_z_is_decoded_under_every_label(reader):
    check_labels(reader)


@pytest.mark.slow
def test_the_conditional_encoder_is_told_a_label(reader):
    reader.click("#tab-labels")
    reader.click("#test-image")
    params, config, _ = reader.model("labels")
    label = reader.ask("() => explorer.state.xLabel")
    assert reader.page.input_value("#told-label") == str(label)
    other = (label + 3) % config.condition
    reader.page.select_option("#told-label", str(other))
    reader.settle()
    mu = encode(params, reader.x()[None], config, np.array([other]))[0]
    np.testing.assert_allclose(reader.z("labels"), mu[0], atol=1e-9)
    np.testing.assert_allclose(reader.picture("#reconstruction-picture"),
                               grays(decode_mean(params, mu, config, np.array([other])), config.image_shape), atol=1)


@pytest.mark.slow
def test_the_label_of_a_drawing_is_guessed_by_the_bound(reader):
    params, config, _ = reader.model("labels")
    rng = np.random.default_rng(5)
    images = [*rng.integers(0, 2, (3, config.pixels)).astype(np.float64), *reader.ask(
        "() => explorer.data.testImages.slice(0, 10).map((x) => [...x])").astype(np.float64)]
    reader.click("#tab-labels")
    reader.drag("#pad", THREE)
    images.append(reader.x())
    for x in images:
        bounds = []
        for label in range(config.condition):
            y = np.array([label])
            mu, logvar = encode(params, x[None], config, y)
            log_likelihood = bernoulli_log_likelihood(decode(params, mu, config, y), x[None])[0]
            bounds.append(log_likelihood - kl_divergence(mu, logvar).sum())
        got = reader.ask("""(x) => { const model = explorer.data.models.labels;
            return Array.from({ length: model.condition }, (_, y) => boundAtMean(model, x, y)); }""", x.tolist())
        np.testing.assert_allclose(got, bounds, rtol=1e-9)
    guess = str(np.argmax(bounds))
    assert reader.page.input_value("#told-label") == guess
    assert reader.page.locator("#label-buttons [aria-pressed=true]").inner_text() == guess
    assert "guess" in reader.page.inner_text("#image-text")
    reader.page.select_option("#told-label", str((int(guess) + 1) % config.condition))
    reader.settle()
    assert "guess" not in reader.page.inner_text("#image-text")


@pytest.mark.slow
def test_labels_of_the_map_are_colored(reader):
    assert reader.page.locator("#legend li").all_inner_texts() == list("0123456789")
    colors = {reader.page.evaluate("(label) => labelColor(label)", label) for label in range(10)}
    assert len(colors) == 10
    reader.page.uncheck("#show-means")
    reader.settle()
    bare = reader.picture("#map")
    reader.page.check("#show-means")
    reader.settle()
    dots = reader.picture("#map")
    reader.page.check("#show-manifold")
    reader.settle()
    decoded = reader.picture("#map")
    assert (dots != bare).mean() > 0.005 and (decoded != dots).mean() > 0.5


@pytest.mark.slow
def test_the_manifold_shows_what_is_decoded_there(reader):
    params, config, facts = reader.model("map")
    tiles = reader.pixels("manifold()")
    h, w = config.image_shape
    rows, columns = tiles.shape[0] // h, tiles.shape[1] // w
    for row, column in ((0, 0), (3, columns - 1), (rows - 1, 5)):
        z = facts["limit"] * np.array([[(2 * column + 1) / columns - 1, 1 - (2 * row + 1) / rows]])
        np.testing.assert_allclose(tiles[row * h:(row + 1) * h, column * w:(column + 1) * w],
                                   grays(decode_mean(params, z, config), (h, w)), atol=1)


@pytest.mark.slow
def test_the_page_speaks_english_and_korean(read):
    at = read(locale="ko-KR")
    english, korean = texts()["en"], texts()["ko"]
    for language, words in (("ko", korean), ("en", english), ("ko", korean)):
        if language != at.page.get_attribute("html", "lang"):
            at.click(f"[data-language={language}]")
        assert at.page.get_attribute("html", "lang") == language
        assert at.page.inner_text("h1") == at.page.title() == words["title"]
        assert at.page.get_attribute("#map", "aria-label") == words["mapLabel"]
        assert at.page.inner_text("#walk-text") == words["walkNone"]
        assert at.page.locator("[aria-pressed=true][data-language]").get_attribute("lang") == language
    assert read(locale="fr-FR").page.get_attribute("html", "lang") == "en"


def choose(at, places):
    at.click("#choose")
    for place in places:
        at.drag("#map", np.array([place]))


@pytest.mark.slow
def test_an_interpolation_plays(reader):
    assert reader.page.locator("#play").is_disabled()
    limit = reader.ask("() => explorer.data.models.map.limit")
    choose(reader, [(0.25, 0.25), (0.75, 0.5)])
    start, end = limit * np.array([-0.5, 0.5]), limit * np.array([0.5, 0])
    reader.until("explorer.state.walk.playing && explorer.state.walk.t > 0.1")
    along = []
    for _ in range(5):
        t, *z = reader.ask("() => [explorer.state.walk.t, ...explorer.state.z.map]")
        np.testing.assert_allclose(z, (1 - t) * start + t * end, atol=2 * limit / 500)        # a pixel of 500
        along.append(t)
        reader.page.wait_for_timeout(50)
    assert len(set(along)) == 5
    reader.click("#play")
    t = reader.ask("() => explorer.state.walk.t")
    reader.page.wait_for_timeout(100)
    assert reader.ask("() => explorer.state.walk.t") == t and reader.page.inner_text("#play") == "Play"
    reader.page.locator("#along").fill("1")
    reader.settle()
    np.testing.assert_allclose(reader.z(), end, atol=2 * limit / 500)
    params, config, _ = reader.model("map")
    strip = reader.picture("#strip")
    np.testing.assert_allclose(strip[:, -config.image_shape[1]:],
                               grays(decode_mean(params, reader.z()[None], config), config.image_shape), atol=1)
    reader.click("#play")                                               # turns at B, and comes back
    reader.until("explorer.state.walk.t < 0.95")
    reader.until("explorer.state.walk.t < 0.1")
    reader.drag("#map", np.array([(0.5, 0.5)]))                         # a hand on the map stops it
    assert not reader.ask("() => explorer.state.walk.playing")


@pytest.mark.slow
def test_two_points_are_chosen_by_keyboard(reader):
    reader.click("#choose")
    reader.page.focus("#map")
    for key in ("Shift+ArrowLeft", "Enter", "Shift+ArrowUp", "Shift+ArrowRight", "Enter"):
        reader.page.keyboard.press(key)
    assert reader.ask("() => explorer.state.walk.choosing") == 0
    np.testing.assert_allclose(reader.ask("() => [...explorer.state.walk.from, ...explorer.state.walk.to]"),
                               [-0.5, 0, 0, 0.5], atol=1e-12)


@pytest.mark.slow
def test_nothing_moves_by_itself_for_who_wants_calm(read):
    at = read(reduced_motion="reduce")
    choose(at, [(0.25, 0.25), (0.75, 0.5)])
    at.page.wait_for_timeout(300)
    assert not at.ask("() => explorer.state.walk.playing") and at.ask("() => explorer.state.walk.t") == 0
    at.click("#play")
    at.until("explorer.state.walk.t > 0")
    assert (8 * at.ask("() => explorer.state.walk.t")) % 1 == 0         # in eight still pictures


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_narrow_screen_needs_no_sideways_scrolling(read, language):
    at = read(viewport={"width": 320, "height": 640}, has_touch=True)
    at.click(f"[data-language={language}]")
    choose(at, [(0.25, 0.25), (0.75, 0.5)])
    for view in VIEWS:
        at.click(f"#tab-{view}")
        at.click("#test-image")
        assert at.page.evaluate("document.documentElement.scrollWidth") <= 320
        beyond = at.page.evaluate("""() => [...document.querySelectorAll("main *, header *, #tabs *")]
            .filter((element) => element.getClientRects().length && element.getBoundingClientRect().right > 320)
            .map((element) => element.outerHTML)""")
        assert beyond == []
        at.page.locator(f"#view-{view}").evaluate("(element) => scrollTo(0, element.offsetTop + 100)")
        assert 0 <= at.page.locator("#decoded").bounding_box()["y"] < 10     # the decoded picture stays in sight


def brightness(at, selector, what):
    color = at.page.locator(selector).evaluate(f"(element) => getComputedStyle(element).{what}")
    return np.mean([float(part) for part in re.findall(r"\d+", color)[:3]])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(read, scheme):
    at = read(color_scheme=scheme)
    paper, ink = brightness(at, "body", "backgroundColor"), brightness(at, "body", "color")
    ground = np.median(at.picture("#map"))
    assert (paper > 200 and ink < 60 and ground > 200) if scheme == "light" else (paper < 60 and ink > 200 and ground < 60)
    at.page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")          # while the page is open
    at.settle()
    assert (np.median(at.picture("#map")) > 128) == (scheme == "dark")


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_shows_something(reader, view, tmp_path):
    reader.click(f"#tab-{view}")
    reader.click("#test-image")
    reader.page.screenshot(path=tmp_path / "page.png")
    assert imread(tmp_path / "page.png")[..., :3].std() > 0.05
    for selector in [f"#view-{view}", "#decoded-picture", "#input-picture", "#reconstruction-picture"]:
        reader.page.locator(selector).screenshot(path=tmp_path / "part.png")
        assert imread(tmp_path / "part.png")[..., :3].std() > 0.05, selector


@pytest.mark.slow
def test_a_keyboard_and_a_screen_reader_find_everything(reader):
    page = reader.page
    for view in VIEWS:
        reader.click(f"#tab-{view}")
        unnamed = page.evaluate("""() => [...document.querySelectorAll("canvas, input, select, button")]
            .filter((element) => element.checkVisibility() && !element.ariaLabel && !element.textContent.trim()
                                 && !element.labels?.[0]?.textContent.trim())
            .map((element) => element.outerHTML)""")
        assert unnamed == []
        page.focus("[data-language=en]")
        seen = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            focused = page.evaluate("""() => { const element = document.activeElement, style = getComputedStyle(element);
                const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
                return element === document.body ? null : [element.id || element.outerHTML, outlined]; }""")
            if focused is None:
                break
            assert focused[1], f"{focused[0]} shows no focus"
            seen.add(focused[0])
        assert {f"tab-{view}", "test-image"} | ({"map", "choose"} if view == "map" else set()) <= seen
    page.focus("#tab-labels")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-map" and page.locator("#view-map").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize(("right", "wrong", "check"), [
    ("Math.exp(0.5 * value)", "Math.exp(value)", check_posterior),                    # exp(logvar) for sigma
    ("k * sigma[1] * unit", "k * sigma[0] * unit", check_posterior),                  # a circle
    ("(1 - 2 * y / size) * limit", "(2 * y / size - 1) * limit", check_map_drag),     # z2 downward
    ("joined[a.length + y] = 1", "joined[a.length + y + 1] = 1", check_labels),       # the label one too far
    ("joinLabel(z, y, model)).map(Math.tanh)", "joinLabel(z, y, model))", check_map_drag),       # no tanh
    ("a[i];\n    return sum", "a[i] * 0.99;\n    return sum", check_drawing),
    ("i % width + 0.5);\n    massY", "i % width + 3.5);\n    massY", check_drawing),  # the mass beside the middle
    ("box, height) - stroke)", "box, height) - 4 * stroke)", check_drawing),          # too small
], ids=lambda value: value.__name__ if callable(value) else value[:40])
def test_a_planted_mistake_is_caught(browser, tmp_path, right, wrong, check):
    text = PAGE.read_text("utf-8")
    assert text.count(right) == 1
    planted = tmp_path / "planted.html"
    planted.write_text(text.replace(right, wrong), "utf-8")
    with pytest.raises(AssertionError), Reader(browser, planted) as at:
        check(at)
