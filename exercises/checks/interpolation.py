"""Checks of exercise 02: straight and round walks, what a picture leaves open, the length of a draw, attribute vectors."""

import numpy as np
from layers_numpy import sigmoid_forward
from networks_numpy import decode, decode_mean, encode
from scipy.special import entr, gammaln
from scipy.stats import chi, chi2

from exercises.checks.latent_space import small_case
from exercises.checks.verdict import Wrong, call, compare, task

# N walks, S points of a walk, B images, D pixels, J latents


def some_walks(count=4, latent=3):
    """The ends a, b (N, J) of a few walks, of different lengths, and uneven places t (S,) that include both ends."""
    rng = np.random.default_rng(11)
    return rng.normal(0, 1.5, (count, latent)), rng.normal(0, 0.8, (count, latent)), np.array([0, 0.1, 0.3, 0.55, 0.9, 1])


def straight(a, b, t):
    return a[:, None] + t[:, None] * (b - a)[:, None]


@task("02.1")
def lerp(theirs):
    a, b, t = some_walks()
    right, even = straight(a, b, t), np.linspace(0, 1, len(t))              # (4, 6, 3)
    compare("the walk", call(theirs, a, b, t), right, {
        "Your walks run from b to a: at t = 0 they should stand at a.": straight(b, a, t),
        "You walk along b, not from a to b: at t = 1 you stand at a + b. The weight of a falls as that of b rises.":
            a[:, None] + t[:, None] * b[:, None],
        "Your walks start at 0: the part of a, with the weight 1 - t, is missing.": t[:, None] * b[:, None],
        "Your walks end at 0: the part of b, with the weight t, is missing.": (1 - t)[:, None] * a[:, None],
        "You subtract the part of b: z = (1 - t) a + t b, both with a plus.":
            (1 - t)[:, None] * a[:, None] - t[:, None] * b[:, None],
        "Your steps are all equal, which the t here are not: use the places t that you are given.": straight(a, b, even),
        "Your axes are (S, N, J): the walks come first, then their points.":
            [straight(a, b, t).swapaxes(0, 1), straight(b, a, t).swapaxes(0, 1)],
        "You return the first walk only: a and b hold N of them.": [right[0], right[:1]],
        "Your walks go round: that is for later. Here the way is the straight line.": round_walks(a, b, t),
    })
    beyond = np.array([-0.5, 2.0])
    compare("the walk before t = 0 and beyond t = 1", call(theirs, a, b, beyond), straight(a, b, beyond), {
        "Your walks stop at their ends: a t below 0 or above 1 goes on along the same line.":
            straight(a, b, np.clip(beyond, 0, 1))})


@task("02.2")
def latent_walk(theirs):
    config, params, x = small_case()
    x_from, x_to, t = x[:2], x[2:4], np.array([0, 0.2, 0.7, 1])
    ends = [encode(params, some, config)[0] for some in (x_from, x_to)]

    def decoded(z, decoder=decode_mean):
        return decoder(params, z.reshape(-1, z.shape[-1]), config).reshape(*z.shape[:-1], -1)

    z, fade = straight(*ends, t), straight(x_from, x_to, t)
    right, logvars = decoded(z), [encode(params, some, config)[1] for some in (x_from, x_to)]
    pictures = [decode_mean(params, mu, config) for mu in ends]
    encoded_fade = encode(params, fade.reshape(-1, config.pixels), config)[0].reshape(z.shape)
    compare("the decoded walk", call(theirs, params, config, x_from, x_to, t), right, {
        "That is the fade, pixel by pixel: encode the two images, walk between the codes, decode.": fade,
        "You encode the fade: encode the two images first, then walk between their means.": decoded(encoded_fade),
        "You fade from one reconstruction to the other: the walk is through the latents, each of its points is decoded.":
            straight(*pictures, t),
        "You return the points of the walk: decode them.": z,
        "Your pictures are logits, below 0 and above 1: decode_mean gives the means.": decoded(z, decode),
        "You take the sigmoid twice: decode_mean has taken it already.": sigmoid_forward(right)[0],
        "You walk between the logvar: encode gives mu first, and the walk is between the means.":
            decoded(straight(*logvars, t)),
        "Your walk runs from x_to to x_from.": decoded(straight(*ends[::-1], t)),
        "The pictures are right but not in their places: the rows that you decode must come walk by walk, (N, S, J).":
            [right.swapaxes(0, 1), right.swapaxes(0, 1).reshape(right.shape),
             decoded(z.swapaxes(0, 1)).reshape(right.shape)],
        "You return the rows as the decoder gives them, (N * S, D): reshape them to (N, S, D).":
            [right.reshape(-1, right.shape[2]), right[..., None]],
    })


@task("02.3")
def grayness(theirs):
    images = np.random.default_rng(12).uniform(0.05, 0.95, (5, 7))
    white, black = entr(images), entr(1 - images)                           # -p log p and its counterpart, (5, 7)
    right = (white + black).sum(axis=1)
    compare("the grayness", call(theirs, images), right, {
        "Your grayness is negative: an entropy never is. The minus stands before both terms.": -right,
        "The second term has the wrong sign: the minus stands before both.": (white - black).sum(axis=1),
        "The term of the black pixels, (1 - p) log(1 - p), is missing.": white.sum(axis=1),
        "The term of the white pixels, p log p, is missing.": black.sum(axis=1),
        "You average over the pixels: here and everywhere they are summed, nats per image.": (white + black).mean(axis=1),
        "You sum over the images: keep them apart and sum over the pixels, the last axis.": (white + black).sum(axis=0),
        "You sum over everything: one number for each picture, so sum over the last axis only.": right.sum(),
        "You return a number for every pixel: sum over the last axis.": white + black,
        "That is in bits: with the natural logarithm it comes in nats.": right / np.log(2),
        "You take the variance p (1 - p), which is largest at the same place but is not the entropy.":
            (images * (1 - images)).sum(axis=1),
        "The logarithms lack their weights: each stands behind the probability of what it is the logarithm of.":
            -(np.log(images) + np.log(1 - images)).sum(axis=1),
    })
    sharp = np.array([[0.0, 1, 1], [0, 0.5, 1]])
    with np.errstate(divide="ignore", invalid="ignore"):                    # their log(0) is told in words
        got = np.asarray(call(theirs, sharp))
    if not np.isfinite(got).all():
        raise Wrong("Pixels of 0 and of 1 give NaN: 0 times log 0 is 0, but np.log(0) is minus infinity. xlogy knows that.")
    # clipping the pixels at 1e-6 or less is a fair way around log(0), and costs less than 1e-4 here
    compare("the grayness of pixels that are 0, 1 and 1/2", got, [0, np.log(2)], atol=1e-4)


@task("02.4")
def chi_density(theirs):
    r, latent = np.array([0.4, 1.1, 1.9, 3.2]), 7
    right, bell = chi.pdf(r, latent), np.exp(-(r**2) / 2)
    one_over_gamma = np.exp(-gammaln(latent / 2))
    constant = 2 ** (1 - latent / 2) * one_over_gamma
    compare("the density", call(theirs, r, latent), right, {
        "That is the density of one point at this length: multiply by the size of the shell, r^(J - 1) and a constant.":
            [bell / (2 * np.pi) ** (latent / 2), bell / np.sqrt(2 * np.pi), bell, bell * constant],
        "The power of r is J - 1, the dimension of the shell; yours is J.": right * r,
        "The constant below the fraction is missing: without it the density does not integrate to 1.":
            r ** (latent - 1) * bell,
        "You return the logarithm: take exp at the end.": np.log(right),
        "That is the density of r^2, the chi-square density: here r is the length itself.": [chi2.pdf(r**2, latent),
                                                                                         chi2.pdf(r, latent)],
        "The 1/2 in exp(-r^2 / 2) is missing.": right * bell,
        "The exponent should be -r^2 / 2: yours has a plus, and grows without end.": right / bell**2,
        "The square in exp(-r^2 / 2) is missing.": right / bell * np.exp(-r / 2),
        "The power of 2 belongs below the fraction: take its logarithm away instead of adding it.":
            right * 4 ** (latent / 2 - 1),
        "The power of 2 is missing.": right / 2 ** (1 - latent / 2),
        "The power of 2 is J/2 - 1, yours is J/2.": right / 2,
        "Gamma belongs below the fraction: take gammaln away instead of adding it.":
            right / one_over_gamma**2,
        "Gamma is taken at J/2, yours at J.": right / one_over_gamma * np.exp(-gammaln(latent)),
        "Gamma is taken at J/2, yours at (J + 1) / 2 or (J - 1) / 2.":
            [right / one_over_gamma * np.exp(-gammaln((latent + step) / 2)) for step in (1, -1)],
        "Gamma is missing.": right / one_over_gamma,
        "gammaln is a logarithm already: take no log of it.": right / one_over_gamma / gammaln(latent / 2),
    })
    long = np.array([19.0, 20.0, 21.0])
    with np.errstate(all="ignore"):                                         # their overflow is told in words
        try:
            got = np.asarray(call(theirs, long, 400), np.float64)
        except OverflowError as error:
            raise Wrong(TOO_LARGE) from error
    if not np.isfinite(got).all() or (got == 0).any():
        raise Wrong(TOO_LARGE)
    compare("the density of 400 latents", got, chi.pdf(long, 400), rtol=1e-6)     # its logarithms are near 2000


TOO_LARGE = ("For 400 latents your factors are too large for a float before they cancel: add the logarithms of all four, "
             "gammaln among them, and take one exp at the end.")


def unit(v):
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def along(v, direction):
    """The part of v (N, J) that points along the unit vectors (N, J)."""
    return (v * direction).sum(axis=-1, keepdims=True) * direction


@task("02.5")
def perpendicular(theirs):
    a, b, _ = some_walks()
    right = unit(b - along(b, unit(a)))
    compare("the unit vector at right angles to a", call(theirs, a, b), right, {
        "Your vectors are at right angles to a but not of length 1: divide each by its length.":
            [b - along(b, unit(a)), unit(b) - along(unit(b), unit(a))],
        "That is b, scaled to length 1: take out of it what points along a.": unit(b),
        "That is a, scaled to length 1.": unit(a),
        "You return the part of b that points along a: it is what is to be taken out.":
            [along(b, unit(a)), unit(along(b, unit(a)))],
        "Your vectors point away from b: subtract the part along a from b, not b from it.": -right,
        "You exchange a and b: the result is at right angles to a.":
            [unit(a - along(a, unit(b))), -unit(a - along(a, unit(b)))],
        "You take out (b . a) a: for that a must first be scaled to length 1.": [unit(b - along(b, a)), b - along(b, a)],
        "You take out a times the length of what points along it, without the direction: (b . u) u.":
            unit(b - (b * unit(a)).sum(axis=1, keepdims=True)),
        "That is at right angles to a and to b: of the two, only a is to be at right angles, and b leads the way.":
            [unit(np.cross(a, b)), unit(np.cross(b, a))],
        "That is the difference b - a, scaled or not: it is at right angles to neither.": [unit(b - a), b - a],
    })
    a = np.array([[0.3, -1.1, 0.7], [2.0, 0.1, -0.4], [0.6, 0.2, 0.9], [1.0, 0, 0]])
    b = a * np.array([[3.3], [-1], [-0.7], [2]])                            # along a or against it
    with np.errstate(divide="ignore", invalid="ignore"):                    # their 0 / 0 is told in words
        got = np.asarray(call(theirs, a, b), np.float64)
    if got.shape != a.shape:
        compare("the vectors where b lies along a", got, a)
    if not np.isfinite(got).all():
        raise Wrong("Where b lies along a nothing is left of it, and 0 / 0 is not a number: take an axis in place "
                    "of b there.")
    if np.abs((got * unit(a)).sum(axis=1)).max() > 1e-6:
        raise Wrong("Where b lies along a your vector is not at right angles to a: what is left of b is not exactly 0 but "
                    "a rounding error, so ask whether it is small, and take out of the axis, too, what points along a.")
    if np.abs(np.linalg.norm(got, axis=1) - 1).max() > 1e-6:
        raise Wrong("Where b lies along a your vector has not the length 1: divide the rest of the axis, too, by "
                    "its length.")
    a, b = one_parallel_pair()
    with np.errstate(divide="ignore", invalid="ignore"):
        first = call(theirs, a, b)[0]
    if not np.allclose(first, unit(b[:1] - along(b[:1], unit(a[:1])))[0]):
        raise Wrong("One parallel pair among others changes all rows: ask row by row (np.where), not once for the whole "
                    "batch.")
    a, b = np.array([[4e-9, 1e-9, 0]]), np.array([[1e-9, 3e-9, 2e-9]])
    compare("the vector for a and b that are both very short", call(theirs, a, b), unit(b - along(b, unit(a))), {
        "Two short vectors at an angle are taken for parallel: compare what is left with the length of b, not with a fixed "
        "number.": call(theirs, a, a)})


def one_parallel_pair():
    """An ordinary pair, and behind it one that lies along one line."""
    return np.array([[1.0, 0, 0], [2.0, 0.3, 0]]), np.array([[0.5, 1, 3], [4.0, 0.6, 0]])


def round_walks(a, b, t, lengths=None):
    """Shoemake's formula on unit vectors, times the lengths (N, S), which change evenly if none are given."""
    angle = np.arccos((unit(a) * unit(b)).sum(axis=1))[:, None]             # (N, 1)
    weights = np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle)
    if lengths is None:
        lengths = np.linalg.norm(a, axis=1)[:, None] * (1 - t) + np.linalg.norm(b, axis=1)[:, None] * t
    return lengths[..., None] * (weights[0][..., None] * unit(a)[:, None] + weights[1][..., None] * unit(b)[:, None])


@task("02.6")
def slerp(theirs):
    a, b, t = some_walks()
    right, ones = round_walks(a, b, t), np.ones((len(a), len(t)))
    long_a, long_b = (np.linalg.norm(v, axis=1)[:, None] for v in (a, b))
    ends = long_a * (1 - t) + long_b * t
    angle = np.arccos((unit(a) * unit(b)).sum(axis=1))[:, None]
    u, w = unit(a), unit(b - along(b, unit(a)))

    def turning(turn, u, w):
        return np.cos(turn)[..., None] * u[:, None] + np.sin(turn)[..., None] * w[:, None]

    unscaled = (np.sin((1 - t) * angle)[..., None] * a[:, None] + np.sin(t * angle)[..., None] * b[:, None]) \
        / np.sin(angle)[..., None]
    wrong_turns = {"b": turning(angle * t, u, unit(b)), "away": turning(-angle * t, u, w),
                   "swapped": turning(angle * t, w, u), "quarter": turning(ones * t * np.pi / 2, u, w),
                   "complement": turning((np.pi / 2 - angle) * t, u, w), "unscaled": turning(angle * t, a, w),
                   "arctan": turning(np.where(angle > np.pi / 2, angle - np.pi, angle) * t, u, w)}
    wrong_turns = {name: [ends[..., None] * turn, turn] for name, turn in wrong_turns.items()}
    with np.errstate(invalid="ignore"):                                     # their arccos is told in words
        got = call(theirs, a, b, t)
    if np.shape(got) == right.shape and np.isnan(np.asarray(got, np.float64)).any():
        raise Wrong("Your walks hold NaN: arccos takes numbers from -1 to 1, and a . b is the cosine of the angle only "
                    "after both have been scaled to length 1.")
    compare("the round walk", got, right, {
        "Your walk is the straight one: turn the direction instead.": straight(a, b, t),
        "Your walks have the length 1 everywhere: the length goes from |a| to |b|.": round_walks(a, b, t, ones),
        "Your walks keep the length of a: it should change evenly to that of b.": round_walks(a, b, t, long_a * ones),
        "Your walks have the length of b from the start: it should change evenly from that of a.":
            round_walks(a, b, t, long_b * ones),
        "Your length changes by a constant factor from step to step: it should change in a straight line.":
            round_walks(a, b, t, long_a ** (1 - t) * long_b**t),
        "Your walks run from b to a: at t = 0 they should stand at a.": round_walks(b, a, t),
        "The length runs the wrong way, from |b| to |a|.": round_walks(a, b, t, long_a * t + long_b * (1 - t)),
        "You mix a and b with the weights sin((1-t)w)/sin(w) and sin(tw)/sin(w), which is for vectors of one length: with "
        "two lengths the direction does not turn evenly. Scale both to length 1 first, bring the length in afterwards.":
            unscaled,
        "You scale the points of the straight walk to the right length: then the direction turns fastest in the middle.":
            [ends[..., None] * unit(straight(a, b, t)), ends[..., None] * unit(straight(unit(a), unit(b), t))],
        "You turn from a towards b itself: the second direction must be w, at right angles to a.":
            wrong_turns["b"],
        "You turn away from b: the sine has the wrong sign.": wrong_turns["away"],
        "You turn a quarter circle whatever the angle: t runs over the angle between a and b.": wrong_turns["quarter"],
        "Your angle is 90 degrees less the right one: np.arctan2 takes b . w first, then b . u.": wrong_turns["complement"],
        "Angles above 90 degrees come out wrong: np.arctan cannot tell them, np.arctan2 can.": wrong_turns["arctan"],
        "a still has its length where its direction u belongs.": wrong_turns["unscaled"],
        "Cosine and sine are exchanged: at t = 0 the walk should stand at a.": wrong_turns["swapped"],
        "Your axes are (S, N, J): the walks come first, then their points.": right.swapaxes(0, 1),
    })
    degenerate(theirs, t)
    a, b = one_parallel_pair()
    compare("the walk of an ordinary pair, with a parallel one beside it in the batch,", call(theirs, a, b, t)[0],
            round_walks(a[:1], b[:1], t)[0])


def degenerate(theirs, t):
    """The walks where b lies along a, both ways."""
    a = np.array([[0.3, -1.1, 0.7], [2.0, 0.1, -0.4]])
    with np.errstate(divide="ignore", invalid="ignore"):                    # their 0 / 0 is told in words
        parallel = np.asarray(call(theirs, a, 2.3 * a, t), np.float64)
        opposite = np.asarray(call(theirs, a, -0.7 * a, t), np.float64)
    if np.isnan(parallel).any():
        raise Wrong("Where b lies along a your walk is NaN: the angle is 0, and so is its sine. Turn with cos and sin of "
                    "t times the angle, as in the formula, and nothing is divided by it.")
    # arccos of a cosine near 1 is good to 1e-8 at best, so this is looser
    compare("the walk where b lies along a, a straight line", parallel, straight(a, 2.3 * a, t), atol=1e-6)
    if np.isnan(opposite).any():
        raise Wrong("Between opposite points your walk is NaN: there is no plane of a and b, and any w at right angles to "
                    "a will do; perpendicular(a, b) gives one.")
    if opposite.shape != parallel.shape:
        compare("the walk between opposite points", opposite, parallel)
    lengths = np.linalg.norm(a, axis=1)[:, None] * (1 - 0.3 * t)
    got = np.linalg.norm(opposite, axis=2)
    if got.min() < 0.2 or np.abs(opposite).max() > 10:
        raise Wrong("Between opposite points your walk goes through 0 or far away, as if it were straight: go round, half "
                    "a circle.")
    compare("the length along the walk between opposite points", got, lengths, atol=1e-6)
    turned = np.arccos(np.clip((opposite * unit(a)[:, None]).sum(axis=2) / got, -1, 1))
    compare("the angle turned on the walk between opposite points", turned, np.tile(np.pi * t, (len(a), 1)), atol=1e-6)
    plane = np.linalg.matrix_rank(opposite, tol=1e-6)
    if (plane != 2).any():
        raise Wrong("Between opposite points your walk leaves its plane: w must be the same all the way.")


def some_codes():
    """Codes z (B, J), a mask and labels: of label 2 all have the attribute, of label 5 none."""
    rng = np.random.default_rng(13)
    labels = np.repeat([0, 1, 2, 5], (7, 5, 3, 4))
    has = np.isin(np.arange(len(labels)), (0, 2, 5, 6, 8, 12, 13, 14))
    return labels[:, None] * 0.4 + has[:, None] * (1.0, -0.5, 0) + rng.normal(0, 0.6, (len(labels), 3)), has, labels


@task("02.7")
def attribute_vector(theirs):
    z, has, _ = some_codes()
    with_it, without = z[has].mean(axis=0), z[~has].mean(axis=0)
    right = with_it - without
    compare("the attribute vector", call(theirs, z, has), right, {
        "Your vector points the wrong way: from those without to those with it.": -right,
        "That is the mean of those with it: subtract the mean of those without.": with_it,
        "That is the mean of those without it: it is what is to be subtracted.": without,
        "You subtract the mean of all codes: subtract that of the codes without the attribute.": with_it - z.mean(axis=0),
        "You add the two means: the vector is their difference.": with_it + without,
        "You subtract sums: take the mean of each group, they are not equally large.":
            z[has].sum(axis=0) - z[~has].sum(axis=0),
        "You average over the latents too: the vector has one number for each latent.":
            [right.mean(), z[has].mean() - z[~has].mean()],
        "You scale the vector to length 1: not here, its length says how far apart the groups are.": unit(right),
        "You take medians: the vector is a difference of means.": np.median(z[has], axis=0) - np.median(z[~has], axis=0),
        "You divide both sums by the number of all images: divide each by the size of its own group.":
            (z * has[:, None]).mean(axis=0) - (z * ~has[:, None]).mean(axis=0),
        "has is a mask of True and False, and you use it as row numbers 0 and 1: z[has] needs the mask itself.":
            [z[has.astype(int)].mean(axis=0) - z[~has].mean(axis=0),
             z[has.astype(int)].mean(axis=0) - z[1 - has.astype(int)].mean(axis=0)],
    })


@task("02.8")
def balanced_attribute_vector(theirs):
    z, has, labels = some_codes()
    both = [labels == label for label in (0, 1)]
    each = np.stack([z[some & has].mean(axis=0) - z[some & ~has].mean(axis=0) for some in both])        # (2, 3)
    right, sizes, mixed = each.mean(axis=0), [some.sum() for some in both], both[0] | both[1]
    centered = z - np.stack([z[labels == label].mean(axis=0) for label in labels])

    def pooled(codes, some=slice(None)):
        return codes[some][has[some]].mean(axis=0) - codes[some][~has[some]].mean(axis=0)

    with np.errstate(divide="ignore", invalid="ignore"):                    # their mean of nothing is told in words
        got = call(theirs, z, has, labels)
    if np.size(got) == right.size and np.isnan(np.asarray(got, np.float64)).any():
        raise Wrong("Your vector is NaN: one of the labels has no image with the attribute, or none without, and the mean "
                    "of nothing is 0 / 0. Leave such labels out.")
    compare("the balanced attribute vector", got, right, {
        "That is the vector of all images at once, labels and all: take one for each label, then their mean.":
            [pooled(z), pooled(z, mixed)],
        "Your vector points the wrong way: from those without to those with it.": -right,
        "You sum over the labels: take the mean of their vectors.": each.sum(axis=0),
        "You count a label without a difference as 0: leave it out, then divide by the number of those that are left.":
            [each.sum(axis=0) / 4, each.sum(axis=0) / 3],
        "You weigh the labels by their number of images: all labels count the same.":
            [np.average(each, axis=0, weights=sizes), np.average(each, axis=0, weights=sizes) * sum(sizes) / len(z)],
        "You return a vector for each label: take their mean.": each,
        "You return the vector of one label only: is the return inside the loop?": [each[0], each[1]],
        "You take each label's mean out of its codes and then compare all at once: labels with few on one side count less. "
        "Take one vector for each label.": [pooled(centered), pooled(centered, mixed)],
        "You average over the latents too: the vector has one number for each latent.": right.mean(),
    })
    order = np.random.default_rng(14).permutation(len(labels))
    compare("the balanced attribute vector of the same images in another order",
            call(theirs, z[order], has[order], labels[order]), right)
    compare("the balanced attribute vector with labels above 9", call(theirs, z, has, labels + 20), right)
