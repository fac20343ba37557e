"""What every suite compares with: layers and losses as plain loops, central differences, and assert_close.

    from oracles import assert_close, central_difference

A loop over single numbers is the specification: slow, and short enough to be checked against the paper by eye.
A backward here takes dout and then all that its forward takes. Every product of a forward, out[..] += a * b, gives its
backward two lines: da += dout[..] * b and db += dout[..] * a.

Letters: B images, I and O channels in and out, H and W height and width (of the smaller picture: h and w), k kernel side,
D pixels, J latents.
"""

import math
from pathlib import Path

import numpy as np
import torch

from common import figures

# ---- comparing ---------------------------------------------------------------------------------------------------------


def assert_close(name, got, want, rtol, atol):
    """Fails unless got has want's shape and |got - want| <= atol + rtol * |want| in every entry (inf equals inf).

    The failure names the tensor, the largest difference that is not allowed, and its index. An empty tensor fails too:
    it would agree with everything.
    """
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape, f"{name}: shape {got.shape} instead of {want.shape}"
    assert got.size > 0, f"{name}: nothing to compare, shape {got.shape}"
    with np.errstate(invalid="ignore", over="ignore"):                 # inf - inf, and the difference of two extremes
        difference = np.abs(got - want)
        near = np.isfinite(got) & np.isfinite(want) & (difference <= atol + rtol * np.abs(want))
    bad = (got != want) & ~near                                        # a nan is never right, inf only where inf is wanted
    if bad.any():
        size = np.where(bad, np.where(np.isnan(difference), np.inf, difference), -1.0)
        index = tuple(int(n) for n in np.unravel_index(np.argmax(size), size.shape))
        raise AssertionError(
            f"{name}{list(index) if index else ''}: got {float(got[index])!r}, want {float(want[index])!r}, "
            f"difference {difference[index]:.3g}, allowed {atol + rtol * abs(want[index]):.3g}; "
            f"{int(bad.sum())} of {bad.size} entries are off"
        )


def central_difference(f, array, h=1e-5):
    """The gradient of the number f() by every entry of `array`, which f reads: (f(a + h) - f(a - h)) / 2h, eq. 1.30.

    `array` must be float64 (in float32 differences prove nothing) and holds the same bits afterwards. With h = 1e-5 the
    result is off by about 2e-11 * |f'''| (what the Taylor series drops) and 1e-11 * |f| (rounding of f divided by 2h).
    """
    assert array.dtype == np.float64, f"finite differences need float64, not {array.dtype}"
    gradient = np.zeros(array.shape)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + h
        above = float(f())
        array[index] = value - h
        below = float(f())
        array[index] = value
        gradient[index] = (above - below) / (2 * h)
    return gradient


def assert_gradients(model, loss, rtol=1e-6, atol=2e-9):
    """Fails unless each weight of a torch model in float64 has the gradient of loss(), 0-d, that differences give.

    2e-9: the differences are good to 1e-11 times a loss of about 20, and 2e-11 times a third derivative of order 10.
    """
    def without_graph():
        with torch.no_grad():
            return loss()

    model.zero_grad()
    loss().backward()
    for name, weight in model.named_parameters():
        want = central_difference(without_graph, weight.detach().numpy())
        assert_close(name, weight.grad, want, rtol, atol)
        assert np.abs(want).max() > 1e-4, f"{name}: nothing to compare"


def figure_of(draw, results, monkeypatch):
    """The matplotlib figure that an experiment's draw(path, results) would have written."""
    found = []
    monkeypatch.setattr(figures, "save", lambda figure, path: found.append(figure))
    draw("unused", results)
    figure, = found
    return figure


def error_line(err: str) -> str:
    """The one error line of a command; argparse prints its usage, which may take several lines, before its own."""
    lines = err.splitlines()
    assert lines, "nothing was said on standard error"
    if lines[0].startswith("usage: "):
        first = 1 + next(i for i, line in enumerate(lines[1:]) if not line.startswith(" "))
        lines = lines[first:]
    assert len(lines) == 1 and "error: " in lines[0] and "Traceback" not in err, f"expected one error line, got:\n{err}"
    return lines[0]


class Bomb:
    """Creates a file when it is unpickled: what no loader may do."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


# ---- dense layer and activations ---------------------------------------------------------------------------------------


def linear(x, weight, bias):
    out = np.zeros((x.shape[0], weight.shape[0]))
    for b, o in np.ndindex(out.shape):
        out[b, o] = bias[o]
        for i in range(x.shape[1]):
            out[b, o] += weight[o, i] * x[b, i]
    return out


def linear_backward(dout, x, weight, bias):
    dx, dweight, dbias = np.zeros(x.shape), np.zeros(weight.shape), np.zeros(bias.shape)
    for b, o in np.ndindex(dout.shape):
        dbias[o] += dout[b, o]
        for i in range(x.shape[1]):
            dweight[o, i] += dout[b, o] * x[b, i]
            dx[b, i] += dout[b, o] * weight[o, i]
    return dx, dweight, dbias


def each(f, a):
    """f of every entry of a."""
    out = np.zeros(a.shape)
    for index in np.ndindex(a.shape):
        out[index] = f(float(a[index]))
    return out


def tanh(a):
    return each(math.tanh, a)


def tanh_backward(dout, a):
    return dout * each(lambda v: 1 / math.cosh(v) ** 2, a)


def relu(a):
    return each(lambda v: v if v > 0 else 0.0, a)


def relu_backward(dout, a):
    return dout * each(lambda v: 1.0 if v > 0 else 0.0, a)


def sigmoid(a):
    return each(lambda v: 1 / (1 + math.exp(-v)), a)


def sigmoid_backward(dout, a):
    return dout * each(lambda v: math.exp(-v) / (1 + math.exp(-v)) ** 2, a)


# ---- convolution: kernel entry (i, j) joins pixel (r, c) of the small picture and (row, column) of the large one -------


def conv2d(x, weight, bias, stride, padding):
    """x (B, I, H, W), weight (O, I, k, k), bias (O,) -> (B, O, h, w). Outside the picture there is nothing: zeros."""
    B, I, H, W = x.shape
    O, _, k, _ = weight.shape
    out = np.zeros((B, O, (H + 2 * padding - k) // stride + 1, (W + 2 * padding - k) // stride + 1))
    for b, o, r, c in np.ndindex(out.shape):
        out[b, o, r, c] = bias[o]
        for channel, i, j in np.ndindex(I, k, k):
            row, column = r * stride - padding + i, c * stride - padding + j
            if 0 <= row < H and 0 <= column < W:
                out[b, o, r, c] += weight[o, channel, i, j] * x[b, channel, row, column]
    return out


def conv2d_backward(dout, x, weight, bias, stride, padding):
    _, I, H, W = x.shape
    k = weight.shape[-1]
    dx, dweight, dbias = np.zeros(x.shape), np.zeros(weight.shape), np.zeros(bias.shape)
    for b, o, r, c in np.ndindex(dout.shape):
        dbias[o] += dout[b, o, r, c]
        for channel, i, j in np.ndindex(I, k, k):
            row, column = r * stride - padding + i, c * stride - padding + j
            if 0 <= row < H and 0 <= column < W:
                dweight[o, channel, i, j] += dout[b, o, r, c] * x[b, channel, row, column]
                dx[b, channel, row, column] += dout[b, o, r, c] * weight[o, channel, i, j]
    return dx, dweight, dbias


def conv_transpose2d(x, weight, bias, stride, padding, output_padding):
    """x (B, I, h, w), weight (I, O, k, k), bias (O,) -> (B, O, H, W): every pixel paints its kernel; outside is lost."""
    B, I, h, w = x.shape
    _, O, k, _ = weight.shape
    H = (h - 1) * stride - 2 * padding + k + output_padding
    W = (w - 1) * stride - 2 * padding + k + output_padding
    out = np.zeros((B, O, H, W))
    for b, o, row, column in np.ndindex(out.shape):
        out[b, o, row, column] = bias[o]
    for b, channel, r, c in np.ndindex(x.shape):
        for o, i, j in np.ndindex(O, k, k):
            row, column = r * stride - padding + i, c * stride - padding + j
            if 0 <= row < H and 0 <= column < W:
                out[b, o, row, column] += weight[channel, o, i, j] * x[b, channel, r, c]
    return out


def conv_transpose2d_backward(dout, x, weight, bias, stride, padding, output_padding):
    _, O, H, W = dout.shape
    k = weight.shape[-1]
    dx, dweight, dbias = np.zeros(x.shape), np.zeros(weight.shape), np.zeros(bias.shape)
    for b, o, row, column in np.ndindex(dout.shape):
        dbias[o] += dout[b, o, row, column]
    for b, channel, r, c in np.ndindex(x.shape):
        for o, i, j in np.ndindex(O, k, k):
            row, column = r * stride - padding + i, c * stride - padding + j
            if 0 <= row < H and 0 <= column < W:
                dweight[channel, o, i, j] += dout[b, o, row, column] * x[b, channel, r, c]
                dx[b, channel, r, c] += dout[b, o, row, column] * weight[channel, o, i, j]
    return dx, dweight, dbias


# ---- the two terms of the bound, in the paper's own formulas: good for moderate numbers --------------------------------


def bernoulli_log_likelihood(logits, x):
    """Eq. 11: sum_d x_d log y_d + (1 - x_d) log(1 - y_d), y = sigmoid(logits). (B, D) -> (B,), nats."""
    out = np.zeros(len(x))
    for b, d in np.ndindex(x.shape):
        y = 1 / (1 + math.exp(-logits[b, d]))
        out[b] += x[b, d] * math.log(y) + (1 - x[b, d]) * math.log(1 - y)
    return out


def gaussian_log_likelihood(x, mean, logvar):
    """Eq. 12: sum_d of the logarithm of the normal density. (B, D) -> (B,), nats."""
    out = np.zeros(len(x))
    for b, d in np.ndindex(x.shape):
        sigma = math.sqrt(math.exp(logvar[b, d]))
        density = math.exp(-(((x[b, d] - mean[b, d]) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
        out[b] += math.log(density)
    return out


def kl_divergence(mu, logvar):
    """Appendix B: -(1 + log sigma^2 - mu^2 - sigma^2) / 2 for every latent. (B, J) -> (B, J), nats."""
    out = np.zeros(mu.shape)
    for b, j in np.ndindex(mu.shape):
        out[b, j] = -(1 + logvar[b, j] - mu[b, j] ** 2 - math.exp(logvar[b, j])) / 2
    return out
