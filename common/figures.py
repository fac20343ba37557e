"""The pictures: one function, one PNG, the same ones at every level, so that they can be laid side by side.

    from common.figures import latent_grid, manifold
    manifold("manifold.png", decode(params, latent_grid(2), config), config.image_shape)

Everywhere: arrays are NumPy, images are rows of D = height*width pixels in reading order, from 0 (black) to 1 (white),
nats are per image. Neither pyplot nor a display is needed, and the same input gives the same bytes.
Images are placed pixel for pixel: a resampled grid has gaps of different widths.
"""

# N images, D pixels, J latents, F frames, K labels; sizes on the page are in pixels

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import ndtr, ndtri

from common.checkpoints import atomic_write

DPI = 120
PANEL = 600                     # side of a panel
GAP, PAPER = 2, 2.0             # width of the gaps between images, and their value: above every pixel
ACTIVE = 0.01                   # nats: a latent dimension with less KL than this carries nothing
BLUE, ORANGE, GREEN, RED, GRAY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"     # color-blind safe
# 1 is white: under gray_r faces would be negatives. The gaps are slate, neither ink nor background; NaN is red.
GRAYMAP = colormaps["gray"].with_extremes(over="#3C4650", bad=RED)


def latent_grid(latent: int, side: int = 20, seed: int = 0) -> np.ndarray:
    """The latent points that `manifold` and `filmstrip` show: (side*side, J) float64, row by row as on the page.

    J = 2: a regular grid on the unit square through the inverse normal CDF (Figure 4 of the paper), z1 rising from left
    to right and z2 from bottom to top. J = 1: a line through the same, rising in reading order.
    J > 2: draws from the prior, the same ones for the same seed.
    """
    if latent > 2:
        return np.random.default_rng(seed).standard_normal((side * side, latent))
    count = side if latent == 2 else side * side
    z = ndtri((np.arange(count) + 0.5) / count)                                # quantiles of N(0, 1), rising
    if latent == 1:
        return z[:, None]
    return np.stack([np.tile(z, side), np.repeat(z[::-1], side)], axis=1)      # the top row has the largest z2


def tile(images, image_shape, columns: int, zoom: int = 1) -> np.ndarray:
    """The images (N, D) row by row on one page (height, width), each pixel zoom x zoom; gaps, empty cells are PAPER."""
    images = np.clip(images, 0.0, 1.0).reshape(len(images), *image_shape).repeat(zoom, axis=1).repeat(zoom, axis=2)
    count, height, width = images.shape
    rows = math.ceil(count / columns)
    cells = np.full((rows * columns, height + GAP, width + GAP), PAPER)
    cells[:count, :height, :width] = images
    page = cells.reshape(rows, columns, height + GAP, width + GAP).swapaxes(1, 2)
    return page.reshape(rows * (height + GAP), columns * (width + GAP))[:-GAP, :-GAP]


def reconstructions(path, x, reconstruction, image_shape):
    """Originals x (N, D) in a row above their reconstructions (N, D)."""
    zoom = zoom_for(image_shape, 2, len(x))
    figure, page = new_figure(), tile(np.concatenate([x, reconstruction]), image_shape, len(x), zoom)
    axes = show(figure, page, title="Images and their reconstructions")
    row = image_shape[0] * zoom
    axes.set_yticks([row / 2, row * 1.5 + GAP], ["original", "reconstruction"])
    return save(figure, path)


def prior_samples(path, images, image_shape):
    """Decoded draws from the prior (N, D), as a square of images."""
    columns = math.ceil(math.sqrt(len(images)))
    figure = new_figure()
    show(figure, tile(images, image_shape, columns, zoom_for(image_shape, columns, columns)),
          title="Decoded draws from the prior, z ~ N(0, I)")
    return save(figure, path)


def posterior_draws(path, x, draws, image_shape):
    """Each row: an original of x (n, D), then its decoded posterior draws, draws (n, S, D), S = 8 by custom."""
    count, samples, _ = draws.shape
    zoom = zoom_for(image_shape, count, samples + 1)
    figure = new_figure()
    show(figure, tile(x, image_shape, 1, zoom), title="image")
    show(figure, tile(draws.reshape(count * samples, -1), image_shape, samples, zoom),
          left=image_shape[1] * zoom + 40, title=f"{samples} draws from its posterior q(z|x), decoded")
    return save(figure, path)


def interpolations(path, x_from, walks, x_to, image_shape):
    """Each row: an image (N, D), the decoded walk (N, S, D) through the latents to another, and that other (N, D)."""
    count, steps, _ = walks.shape
    zoom = zoom_for(image_shape, count, 7)                       # wider than a panel, for the sake of the digits
    cell = image_shape[1] * zoom
    figure = new_figure()
    show(figure, tile(x_from, image_shape, 1, zoom), title="from")
    show(figure, tile(walks.reshape(count * steps, -1), image_shape, steps, zoom), left=cell + 40,
          title="straight walks between the posterior means, decoded")
    show(figure, tile(x_to, image_shape, 1, zoom), left=cell + 80 + steps * (cell + GAP), title="to")
    return save(figure, path)


def label_grid(path, images, image_shape, title, x=None):
    """A column for each label: images (R, C, D); and beside each row the image of x (R, D) that it comes from, if any."""
    figure, zoom = new_figure(), zoom_for(image_shape, len(images), images.shape[1])
    if x is not None:
        show(figure, tile(x, image_shape, 1, zoom), title="image")
    show_labels(figure, images, image_shape, zoom, 0 if x is None else image_shape[1] * zoom + 40, title)
    return save(figure, path)


def manifold(path, images, image_shape):
    """The decoded latent_grid(2), (side*side, D), on axes that tell z1 (left to right) and z2 (bottom to top)."""
    side = math.isqrt(len(images))
    if side * side != len(images):
        raise ValueError(f"manifold got {len(images)} images: give side*side, decoded from latent_grid(2, side)")
    figure = new_figure()
    axes = show(figure, tile(images, image_shape, side, zoom_for(image_shape, side, side)),
                 title="Decoded grid over the latent plane", extent=(0, 1, 0, 1))
    values = np.arange(-2, 3)                                 # the page is the unit square: z lies at its quantile
    names = [f"{z}".replace("-", "\N{MINUS SIGN}") for z in values]
    axes.set_xticks(ndtr(values), names)
    axes.set_yticks(ndtr(values), names)
    axes.tick_params(length=4)
    axes.set_xlabel("$z_1$, evenly spaced in quantiles of N(0, 1)")
    axes.set_ylabel("$z_2$, evenly spaced in quantiles of N(0, 1)")
    return save(figure, path)


def filmstrip(path, frames, epochs, image_shape):
    """The same n latent points, decoded after each of the F epochs: frames (F, n, D), one square of images each."""
    per_row = len(frames) if len(frames) <= 6 else math.ceil(len(frames) / 2)
    columns = math.ceil(math.sqrt(len(frames[0])))
    zoom = max(1, zoom_for(image_shape, columns, columns) // 2)
    figure = new_figure()
    for i, (images, epoch) in enumerate(zip(frames, epochs, strict=True)):
        page = tile(images, image_shape, columns, zoom)
        row, column = divmod(i, per_row)
        show(figure, page, column * max(page.shape[1] + 15, 110), -row * (page.shape[0] + 40), title=f"epoch {epoch}")
    return save(figure, path)


def code_maps(path, x, maps, reconstruction, image_shape):
    """Images x (N, D), the codes of their cells, a gray for each, and what the decoder makes of them, a row each (N, D)."""
    zoom = zoom_for(image_shape, 3, len(x))
    figure, page = new_figure(), tile(np.concatenate([x, maps, reconstruction]), image_shape, len(x), zoom)
    axes = show(figure, page, title="Images, their codes (a gray for each) and reconstructions")
    row = image_shape[0] * zoom + GAP
    axes.set_yticks([row * (i + 0.5) for i in range(3)], ["original", "codes", "reconstruction"])
    return save(figure, path)


def latent_scatter(path, mu, labels=None, title="Posterior means"):
    """The posterior means mu (N, J), one dot per image, colored by labels (N,), or without labels by row, as in a film.

    J = 2: the latent plane. J = 1: a line, each label (or frame) at its own height. J > 2: two principal components.
    """
    mu = np.asarray(mu, np.float64)
    if labels is None:
        classes, value = None, np.arange(len(mu))
        colors, ticks, name = "viridis", MaxNLocator(integer=True, min_n_ticks=1), "frame number in the test set"
    else:
        classes, value = np.unique(labels, return_inverse=True)
        colors, ticks, name = ListedColormap(_class_colors(len(classes))), np.arange(len(classes)), "label"
    rng = np.random.default_rng(0)
    finite = np.flatnonzero(np.isfinite(mu).all(axis=1))
    shown = rng.permutation(finite)                           # else the last label would cover all others
    points, (x_name, y_name) = _plane(mu[shown])
    if points.shape[1] == 1:
        jitter = 0 if labels is None else rng.uniform(-0.35, 0.35, len(shown))
        points, y_name = np.column_stack([points, value[shown] + jitter]), name
    if len(finite) < len(mu):
        title += f" ({len(mu) - len(finite)} of {len(mu)} are not finite)"

    figure = new_figure()
    axes = chart(figure, title=title)
    size = float(np.clip(20000 / (len(mu) + 1), 4, 40))
    dots = axes.scatter(*points.T, c=value[shown], s=size, alpha=0.7, linewidths=0, cmap=colors, vmin=-0.5,
                        vmax=max(value, default=0) + 0.5)
    axes.set(xlabel=x_name, ylabel=y_name)
    small = 10 if classes is None else min(10, 330 / max(len(classes), 1))     # K names share the panel's height
    if mu.shape[1] == 1 and classes is not None:
        axes.set_yticks(ticks, classes, fontsize=small)
    elif mu.shape[1] > 1:
        axes.set_aspect("equal", adjustable="datalim")
        bar = figure.colorbar(dots, cax=axes.inset_axes((1.03, 0, 0.04, 1)), ticks=ticks, label=name)
        bar.solids.set_alpha(1)
        if classes is not None:
            bar.ax.set_yticks(ticks, classes, fontsize=small)
            bar.ax.tick_params(length=0)
    return save(figure, path)


def curve(path, rows):
    """The bound over the epochs, train and test, and below it its two test terms, in nats per image.

    rows: one dict per epoch with epoch, train_elbo, test_elbo, test_log_likelihood, test_kl. Where the first epochs lie
    far off, a panel is scaled to the others and says how many values it leaves out.
    """
    epoch = np.array([row["epoch"] for row in rows], np.float64)
    panels = (("ELBO", 300, {"train_elbo": ("train", BLUE), "test_elbo": ("test", ORANGE)}),
              ("log p(x|z), test", 150, {"test_log_likelihood": ("test", ORANGE)}),
              ("KL, test", 150, {"test_kl": ("test", ORANGE)}))
    figure, bottom = new_figure(), 0
    for name, height, lines in panels:
        axes = chart(figure, 0, bottom, PANEL, height)
        bottom -= 185
        values = np.array([[row[key] for key in lines] for row in rows], np.float64).reshape(len(rows), len(lines))
        values[~(np.abs(values) < 1e12)] = np.nan             # NaN, infinity, and what would overflow the axis
        for column, (label, color) in zip(values.T, lines.values(), strict=True):
            axes.plot(epoch, column, "o-", color=color, label=label, markersize=3 if len(rows) < 50 else 0)
        _focus(axes, values)
        axes.set_ylabel(f"{name}\n(nats per image)")
        axes.set_xlim(*((min(epoch) - 0.5, max(epoch) + 0.5) if rows else (0, 1)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.tick_params(labelbottom=name.startswith("KL"))
        axes.grid(alpha=0.3)
    axes.set_xlabel("epoch")
    figure.axes[0].set_title("ELBO = log p(x|z) \N{MINUS SIGN} KL" if rows else "No epochs yet", loc="left")
    figure.axes[0].legend(loc="lower right", frameon=False)
    return save(figure, path)


def kl_per_dimension(path, kl):
    """Bars of the mean KL of every latent dimension, kl (J,) in nats, largest first, named by index, 40 to a row."""
    kl = np.asarray(kl, np.float64)
    finite, order = np.isfinite(kl), np.argsort(-kl, kind="stable")            # NaN comes last
    active, heights = finite & (kl > ACTIVE), np.where(finite, kl, 0)
    colors = np.where(active, BLUE, np.where(finite, GRAY, RED))
    style = {"rotation": 90, "fontsize": 7} if len(kl) > 20 else {"fontsize": 9}
    figure = new_figure()
    for row, start in enumerate(range(0, len(kl), 40)):
        some = order[start:start + 40]
        axes = chart(figure, 0, -row * 220, PANEL, 300 if len(kl) <= 40 else 170)
        axes.bar(range(len(some)), heights[some], color=colors[some])
        axes.set_xticks(range(len(some)), some, **style)
        for text, color in zip(axes.get_xticklabels(), colors[some], strict=True):
            text.set_color(color)
        axes.set_xlim(-0.6, np.clip(len(kl), 8, 40) - 0.4)
        axes.set_ylim(0, max(heights.max() * 1.05, ACTIVE))
        axes.set_ylabel("KL (nats)")
    axes.set_xlabel("index of the latent dimension")
    broken = "" if finite.all() else f", {(~finite).sum()} not finite (red)"
    figure.axes[0].set_title(f"KL from posterior to prior: {kl.sum():.2f} nats per image\n{active.sum()} of {len(kl)} "
                             f"dimensions are active (blue: more than {ACTIVE} nats){broken}", loc="left")
    return save(figure, path)


def gradient_differences(path, names, vs_autograd, vs_differences, tolerance_autograd, tolerance_differences, title):
    """Two panels of bars on a log axis: how far the gradients by hand are from autograd and from central differences.

    One bar per parameter: its largest difference relative to the gradient's scale (both arrays (len(names),), no unit).
    The dashed line is the tolerance; green passes, hatched red does not, and zero and NaN are told in words.
    """
    comparisons = (("against autograd", vs_autograd, tolerance_autograd),
                   ("against central differences", vs_differences, tolerance_differences))
    drawn = np.concatenate([np.asarray(values, np.float64) for _, values, _ in comparisons])
    drawn = [*drawn[np.isfinite(drawn) & (drawn > 0)], tolerance_autograd, tolerance_differences]
    low, high = max(min(drawn), 1e-20) / 10, min(max(drawn), 1e20) * 10
    figure, y, height = new_figure(), np.arange(len(names)), 22 * max(len(names), 2)
    for panel, (name, values, tolerance) in enumerate(comparisons):
        values = np.asarray(values, np.float64)
        passed = values <= tolerance                          # NaN does not
        axes = chart(figure, panel * 500, 0, 380, height, title=f"{name} (dashed: tolerance {tolerance:.0e})")
        axes.set(xscale="log", xlim=(low, high), ylim=(max(len(names), 2) - 0.5, -0.5),
                 xlabel="largest difference / gradient scale")
        lengths = np.clip(np.where(np.isfinite(values), values, high), low, high)
        for some, color, hatch in ((passed, GREEN, None), (~passed, RED, "///")):
            axes.barh(y[some], lengths[some] - low, left=low, color=color, hatch=hatch, edgecolor="white", linewidth=0)
        for row, value in enumerate(values):
            text = "not finite" if not np.isfinite(value) else "exactly 0" if value == 0 else f"{value:.0e}"
            axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9,
                      color="black" if passed[row] else RED, weight="normal" if passed[row] else "bold")
        axes.axvline(tolerance, color="black", linestyle="--", linewidth=1)
        axes.set_yticks(y, names if panel == 0 else [""] * len(names))
        axes.tick_params(axis="y", length=0)
    figure.text(0, (height + 40) / PANEL, title, fontsize=14)
    return save(figure, path)


def new_figure() -> Figure:
    """An empty page, one panel large. Panels may lie outside: `save` cuts the page around all that was drawn."""
    return Figure(figsize=(PANEL / DPI, PANEL / DPI), dpi=DPI)


def chart(figure, left=0, bottom=0, width=PANEL, height=PANEL, title=""):
    """Axes of this place and size in pixels; bottom counts upwards."""
    axes = figure.add_axes((left / PANEL, bottom / PANEL, width / PANEL, height / PANEL))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left")
    return axes


def show(figure, page, left=0, top=0, title="", extent=None):
    """The page of a `tile`, pixel for pixel, its upper left corner at (left, top)."""
    height, width = page.shape
    axes = chart(figure, left, top - height, width, height, title)
    axes.imshow(page, cmap=GRAYMAP, vmin=0, vmax=1, interpolation="nearest", aspect="auto", extent=extent)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return axes


def show_labels(figure, images, image_shape, zoom, left=0, title=""):
    """The images (R, C, D), a column for each label with its number below; the axes. Its upper left corner is (left, 0)."""
    classes, cell = images.shape[1], image_shape[1] * zoom + GAP
    axes = show(figure, tile(images.reshape(-1, images.shape[2]), image_shape, classes, zoom), left, title=title)
    axes.set_xticks([(column + 0.5) * cell for column in range(classes)], range(classes))
    axes.set_xlabel("label y")
    return axes


def save(figure, path):
    """Writes the PNG, cut to whole pixels around all that was drawn, whole or not at all; returns path."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12)
    return path


def zoom_for(image_shape, rows: int, columns: int) -> int:
    """How often to repeat a pixel so that rows x columns images fill a panel."""
    return max(1, PANEL // max(rows * image_shape[0], columns * image_shape[1]))


def _class_colors(count: int):
    """(K, 4): a color for each of so many labels, as different as they come."""
    if count <= 20:
        return colormaps["tab10" if count <= 10 else "tab20"].colors[:max(count, 1)]
    return colormaps["turbo"](np.linspace(0.02, 0.98, count))


def _plane(mu):
    """mu (N, J) as points (N, 1 or 2) with the names of the axes: principal components beyond two latents."""
    if mu.shape[1] <= 2 or not len(mu):
        return mu[:, :2], ("$z_1$", "$z_2$")
    variances, directions = np.linalg.eigh(np.cov(mu.T, bias=True))            # rising
    directions = directions[:, :-3:-1]                                         # (J, 2), the largest first
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, [0, 1]])             # eigh leaves the sign open
    shares = variances[:-3:-1] / max(variances.sum(), 1e-300)
    names = [f"principal component {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares)]
    return (mu - mu.mean(axis=0)) @ directions, names


def _focus(axes, values):
    """Limits for values (epochs, lines) which the first tenth of the epochs does not squash; says what is not drawn."""
    first = math.ceil(len(values) / 10) if len(values) > 3 else 0
    every, later = (some[np.isfinite(some)] for some in (values, values[first:]))
    missing = {"early": 0, "not finite": np.isnan(values).sum()}
    if len(later):
        low, high = later.min(), later.max()
        span = max(high - low, 2.0)
        if every.min() > low - span and every.max() < high + span:             # not so far off
            low, high = every.min(), every.max()
        low, high = low - span / 10, high + span / 10
        missing["early"] = ((every < low) | (every > high)).sum()
        axes.set_ylim(low, high)
        axes.ticklabel_format(axis="y", useOffset=False)
    else:
        axes.set_yticks([])
    note = ", ".join(f"{count} {what}" for what, count in missing.items() if count)
    axes.set_title(f"not drawn: {note}" if note else "", loc="right", fontsize=9, color=RED)
