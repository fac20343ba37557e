"""The layers of level 1, forward and backward: plain loops = NumPy = torch, for any shape, layout and precision.

    pytest tests/test_layers.py

Letters: B images, I and O channels in and out, H and W height and width (of the smaller picture: h and w), k kernel side.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import layers_numpy as layers
import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import assert_close, central_difference

pytestmark = pytest.mark.filterwarnings("error")         # an overflow or a division by zero is a failure

# Sums of at most 500 products of order 1, taken in different orders: each of the two is off by 500 * 1.1e-16 * |sum|,
# 1e-13 or less. A wrong term is off by 0.01 or more.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
# The same sums in float32, with roundings of 6e-8 in place of 1.1e-16.
SINGLE = {"rtol": 1e-4, "atol": 1e-4}
# Central differences with h = 1e-5: (eps * |f|) / h = 2e-16 * 100 / 1e-5 is 2e-9, and the Taylor series drops
# h^2 / 6 * |f'''| = 2e-11 * 2.
DIFFERENCES = {"rtol": 1e-7, "atol": 1e-8}

HYPOTHESIS = settings(max_examples=30, deadline=None, derandomize=True, database=None)


# ---- what is tested ----------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """A layer written three times. Inputs are x, weight, bias, or x alone; options (stride, ...) follow them."""

    forward: Callable
    backward: Callable
    torch: Callable
    loops: Callable
    loops_backward: Callable


class Case(NamedTuple):
    """A layer with sizes: the shapes of its inputs, and its options."""

    layer: Layer
    shapes: tuple
    options: tuple = ()


LINEAR = Layer(layers.linear_forward, layers.linear_backward, F.linear, oracles.linear, oracles.linear_backward)
TANH = Layer(layers.tanh_forward, layers.tanh_backward, torch.tanh, oracles.tanh, oracles.tanh_backward)
RELU = Layer(layers.relu_forward, layers.relu_backward, torch.relu, oracles.relu, oracles.relu_backward)
SIGMOID = Layer(layers.sigmoid_forward, layers.sigmoid_backward, torch.sigmoid, oracles.sigmoid, oracles.sigmoid_backward)
CONV = Layer(layers.conv2d_forward, layers.conv2d_backward, F.conv2d, oracles.conv2d, oracles.conv2d_backward)
TRANSPOSE = Layer(
    layers.conv_transpose2d_forward, layers.conv_transpose2d_backward, F.conv_transpose2d,
    oracles.conv_transpose2d, oracles.conv_transpose2d_backward,
)


def conv_case(k, stride, padding):
    """B, I, O, H, W = 2, 3, 4, 7, 5: all different, so that no two of them can be exchanged unseen."""
    return Case(CONV, ((2, 3, 7, 5), (4, 3, k, k), (4,)), (stride, padding))


def transpose_case(k, stride, padding, output_padding):
    return Case(TRANSPOSE, ((2, 3, 7, 5), (3, 4, k, k), (4,)), (stride, padding, output_padding))


SIMPLE = {
    "linear": Case(LINEAR, ((5, 7), (4, 7), (4,))),
    "tanh": Case(TANH, ((5, 7),)),
    "relu": Case(RELU, ((5, 7),)),
    "sigmoid": Case(SIGMOID, ((5, 7),)),
}
# one of each layer, as the VAE uses it: for the properties that do not hang on the sizes
TYPICAL = SIMPLE | {"conv2d": conv_case(3, 2, 1), "conv_transpose2d": transpose_case(3, 2, 1, 1)}
ALL = (
    SIMPLE
    | {f"conv2d-k{k}-s{s}-p{p}": conv_case(k, s, p) for k in (1, 2, 3, 5) for s in (1, 2, 3) for p in (0, 1, 2)}
    | {
        f"conv_transpose2d-k{k}-s{s}-p{p}-op{op}": transpose_case(k, s, p, op)
        for k in (1, 2, 3, 5) for s in (1, 2, 3) for p in (0, 1, 2) for op in (0, 1) if op < s
    }
)

every_case = pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
every_layer = pytest.mark.parametrize("case", TYPICAL.values(), ids=TYPICAL.keys())


def draw(case, dtype=np.float64, seed=0):
    """Random inputs, and a random upstream gradient in the shape that torch gives the output."""
    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal(shape).astype(dtype) for shape in case.shapes]
    shape = case.layer.torch(*map(torch.from_numpy, inputs), *case.options).shape
    return inputs, rng.standard_normal(shape).astype(dtype)


def run_numpy(case, inputs, dout):
    """{"out": ..., "dx": ..., "dweight": ..., "dbias": ...} of the NumPy layer."""
    out, cache = case.layer.forward(*inputs, *case.options)
    return named(out, case.layer.backward(dout, cache))


def run_torch(case, inputs, dout):
    tensors = [torch.tensor(a, requires_grad=True) for a in inputs]
    out = case.layer.torch(*tensors, *case.options)
    return named(out.detach(), torch.autograd.grad(out, tensors, torch.tensor(dout)))


def run_loops(case, inputs, dout):
    out = case.layer.loops(*inputs, *case.options)
    return named(out, case.layer.loops_backward(dout, *inputs, *case.options))


def named(out, gradients):
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return {"out": out} | dict(zip(("dx", "dweight", "dbias"), gradients, strict=False))


def assert_all_close(got, want, rtol, atol):
    assert got.keys() == want.keys()
    for name in want:
        assert_close(name, got[name], want[name], rtol, atol)


# ---- the right numbers -------------------------------------------------------------------------------------------------


def check_values(case):
    inputs, dout = draw(case)
    got = run_numpy(case, inputs, dout)
    assert_all_close(got, run_loops(case, inputs, dout), **EXACT)
    assert_all_close(got, run_torch(case, inputs, dout), **EXACT)


@every_case
def test_layer_equals_plain_loops_and_torch(case):
    check_values(case)


def check_central_differences(case, inputs, dout):
    """dLoss/dinput for Loss = sum(dout * out), whose upstream gradient is dout."""
    got = run_numpy(case, inputs, dout)
    for name, array in zip(("dx", "dweight", "dbias"), inputs, strict=False):
        want = central_difference(lambda: (dout * case.layer.forward(*inputs, *case.options)[0]).sum(), array)
        assert_close(name, got[name], want, **DIFFERENCES)


@every_layer
def test_backward_equals_central_differences(case):
    inputs, dout = draw(case)
    check_central_differences(case, [off_the_kink(case, inputs[0]), *inputs[1:]], dout)


def off_the_kink(case, x):
    """ReLU has no derivative at 0, where a difference gives 1/2: keeps its x at least 0.1 away."""
    return x + np.copysign(0.1, x) if case.layer.forward is layers.relu_forward else x


@pytest.mark.parametrize("name, params_backward", [
    ("linear", layers.linear_backward_params), ("conv2d", layers.conv2d_backward_params),
])
def test_the_weights_half_of_a_backward_gives_the_same_bits_as_the_whole(name, params_backward):
    case = TYPICAL[name]
    inputs, dout = draw(case)
    _, cache = case.layer.forward(*inputs, *case.options)
    _, *want = case.layer.backward(dout, cache)
    assert_same_bits("dweight, dbias", params_backward(dout, cache), tuple(want))


def check_relu_at_zero(backward):
    """relu'(0) = 0, on the positive and on the negative zero."""
    _, cache = layers.relu_forward(np.array([[0.0, -0.0, -1.0, 1.0]]))
    assert_close("dx", backward(np.full((1, 4), 3.0), cache), [[0.0, 0.0, 0.0, 3.0]], rtol=0, atol=0)   # exact: copies


def test_relu_has_slope_zero_at_zero():
    check_relu_at_zero(layers.relu_backward)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_saturates_to_exactly_0_and_1_without_a_warning(dtype):
    a = np.array([[-np.inf, -1e4, -800, 0, 800, 1e4, np.inf]], dtype)
    out, cache = layers.sigmoid_forward(a)
    exact = {"rtol": 0, "atol": 0}            # these are the limits: 1 / (1 + inf), 1 / (1 + 0) and one half
    assert_close("sigmoid", out, [[0, 0, 0, 0.5, 1, 1, 1]], **exact)
    assert_close("dx", layers.sigmoid_backward(np.ones_like(a), cache), [[0, 0, 0, 0.25, 0, 0, 0]], **exact)


# ---- transposes --------------------------------------------------------------------------------------------------------


def check_transposes(im2col, col2im, k, stride, padding):
    """<im2col(x), y> = <x, col2im(y)> for every x and y: what the chain rule needs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 7, 5))
    columns = im2col(x, k, stride, padding)
    y = rng.standard_normal(columns.shape)
    images = col2im(y, x.shape, k, stride, padding)
    assert images.shape == x.shape
    assert_close("inner product", (columns * y).sum(), (x * images).sum(), **EXACT)


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_im2col_and_col2im_are_transposes_of_each_other(k, stride, padding):
    check_transposes(layers.im2col, layers.col2im, k, stride, padding)


def test_im2col_lays_every_window_out_as_a_column():
    x = np.arange(2 * 3 * 4 * 5, dtype=float).reshape(2, 3, 4, 5)
    columns = layers.im2col(x, k=2, stride=1, padding=0).reshape(3, 2, 2, 3, 4, 2)     # (C, k, k, h, w, B)
    for b, r, c in np.ndindex(2, 3, 4):
        window = x[b, :, r:r + 2, c:c + 2]
        assert_close("window", columns[:, :, :, r, c, b], window, rtol=0, atol=0)       # exact: im2col only copies


@pytest.mark.parametrize("k, stride, padding", [(1, 1, 0), (2, 1, 0), (3, 2, 1), (5, 3, 2), (3, 1, 2)])
def test_conv_transpose2d_is_the_transpose_of_conv2d(k, stride, padding):
    """<conv2d(x), y> = <x, conv_transpose2d(y)> with the same weights.

    conv2d drops the rows that no longer fill a window, as many as the rest of a division says: output_padding is the
    number of rows that conv_transpose2d has to give back. It is the same for both sides, so H - W divides by the stride.
    """
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3, k, k))
    for H in range(10, 10 + stride):
        x = rng.standard_normal((2, 3, H, H - 2 * stride))
        out, _ = layers.conv2d_forward(x, weight, np.zeros(4), stride, padding)
        y = rng.standard_normal(out.shape)
        rest = (H + 2 * padding - k) % stride
        back, _ = layers.conv_transpose2d_forward(y, weight, np.zeros(3), stride, padding, output_padding=rest)
        assert back.shape == x.shape
        assert_close("inner product", (out * y).sum(), (x * back).sum(), **EXACT)


# ---- memory: layout, purity, precision ---------------------------------------------------------------------------------


def batch_last(a):
    """The same array with its first axis innermost in memory, as the convolutions leave their results."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0)


def every_second(a):
    """The same array as every second entry of a larger one."""
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan)
    wide[..., ::2] = a
    return wide[..., ::2]


def backwards(a):
    """The same array with negative strides along its first axis."""
    return np.ascontiguousarray(a[::-1])[::-1]


@pytest.mark.parametrize("layout", [batch_last, every_second, backwards])
@every_layer
def test_memory_layout_changes_nothing(case, layout):
    inputs, dout = draw(case)
    want = run_numpy(case, inputs, dout)
    assert_all_close(run_numpy(case, [layout(a) for a in inputs], layout(dout)), want, **EXACT)


def check_purity(case):
    """Two calls give the same bits; inputs, dout, out and cache stay as they were; a gradient is nobody else's memory."""
    inputs, dout = draw(case)
    given_inputs, given_dout = copy.deepcopy(inputs), dout.copy()
    out, cache = case.layer.forward(*inputs, *case.options)
    assert_same_bits("inputs after forward", inputs, given_inputs)
    given_out, given_cache = out.copy(), copy.deepcopy(cache)
    first = case.layer.backward(dout, cache)
    kept = copy.deepcopy(first)
    second = case.layer.backward(dout, cache)
    assert_same_bits("second backward", second, kept)
    assert_same_bits("first result after the second backward", first, kept)
    assert_same_bits("inputs after backward", inputs, given_inputs)
    assert_same_bits("dout after backward", dout, given_dout)
    assert_same_bits("out after backward", out, given_out)
    assert_same_bits("cache after backward", cache, given_cache)
    for gradient in leaves(first):
        for other in leaves((inputs, dout, out, cache, second)):
            assert not np.may_share_memory(gradient, other), "a gradient shares memory with another array"


def leaves(tree):
    """The arrays of nested tuples and lists."""
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree] if isinstance(tree, np.ndarray) else []


def assert_same_bits(name, got, want):
    got, want = leaves(got), leaves(want)
    assert len(got) == len(want) > 0, name
    for n, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), f"{name}: array {n} differs"


@every_layer
def test_backward_is_pure(case):
    check_purity(case)


def check_precision(case, dtype):
    """Every output and gradient has the dtype of the inputs, and float32 has the values of float64."""
    inputs, dout = draw(case, dtype)
    got = run_numpy(case, inputs, dout)
    for name, array in got.items():
        assert array.dtype == dtype, f"{name} is {array.dtype}, inputs are {np.dtype(dtype)}"
    want = run_numpy(case, [a.astype(np.float64) for a in inputs], dout.astype(np.float64))
    assert_all_close(got, want, **SINGLE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_layer
def test_outputs_have_the_dtype_of_the_inputs(case, dtype):
    check_precision(case, dtype)


# ---- any sizes at all --------------------------------------------------------------------------------------------------


@st.composite
def conv_cases(draw_, side=8, channels=3):
    size = st.integers(1, channels)
    B, I, O = draw_(size), draw_(size), draw_(size)
    k, stride, padding = draw_(st.integers(1, 4)), draw_(st.integers(1, 4)), draw_(st.integers(0, 3))
    picture = st.integers(max(1, k - 2 * padding), side)              # at least one window
    H, W = draw_(picture), draw_(picture)
    return Case(CONV, ((B, I, H, W), (O, I, k, k), (O,)), (stride, padding))


@st.composite
def transpose_cases(draw_, side=5, channels=3):
    size = st.integers(1, channels)
    B, I, O = draw_(size), draw_(size), draw_(size)
    k, stride = draw_(st.integers(1, 4)), draw_(st.integers(1, 4))
    h, w, output_padding = draw_(st.integers(1, side)), draw_(st.integers(1, side)), draw_(st.integers(0, stride - 1))
    whole = (min(h, w) - 1) * stride + k + output_padding             # the shorter side before padding is cut off
    padding = draw_(st.integers(0, min(3, (whole - 1) // 2)))         # at least one pixel must remain
    return Case(TRANSPOSE, ((B, I, h, w), (I, O, k, k), (O,)), (stride, padding, output_padding))


@st.composite
def dense_cases(draw_):
    B, n, m = (draw_(st.integers(1, 5)) for _ in range(3))
    name = draw_(st.sampled_from(sorted(SIMPLE)))
    return SIMPLE[name]._replace(shapes=((B, n), (m, n), (m,)) if name == "linear" else ((B, n),))


@HYPOTHESIS
@given(case=conv_cases(), seed=st.integers(0, 99))
def test_conv2d_equals_torch_for_any_sizes(case, seed):
    inputs, dout = draw(case, seed=seed)
    assert_all_close(run_numpy(case, inputs, dout), run_torch(case, inputs, dout), **EXACT)


@HYPOTHESIS
@given(case=transpose_cases(), seed=st.integers(0, 99))
def test_conv_transpose2d_equals_torch_for_any_sizes(case, seed):
    inputs, dout = draw(case, seed=seed)
    assert_all_close(run_numpy(case, inputs, dout), run_torch(case, inputs, dout), **EXACT)


@HYPOTHESIS
@given(case=dense_cases() | conv_cases(5, 2) | transpose_cases(3, 2), seed=st.integers(0, 99))
def test_backward_equals_central_differences_for_any_sizes(case, seed):
    inputs, dout = draw(case, seed=seed)
    check_central_differences(case, [off_the_kink(case, inputs[0]), *inputs[1:]], dout)


# ---- named wrong answers: the checks above must turn them down ---------------------------------------------------------


def flipped_kernel(x, weight, bias, stride, padding):
    """The mathematician's convolution; a network's is a cross-correlation."""
    return layers.conv2d_forward(x, weight[:, :, ::-1, ::-1], bias, stride, padding)


def height_and_width_swapped(x, weight, bias, stride, padding):
    return layers.conv2d_forward(x, weight.swapaxes(2, 3), bias, stride, padding)


def output_padding_forgotten(x, weight, bias, stride, padding, output_padding):
    return layers.conv_transpose2d_forward(x, weight, bias, stride, padding, 0)


def bias_averaged_over_the_batch(dout, cache):
    dx, dweight, dbias = layers.linear_backward(dout, cache)
    return dx, dweight, dbias / len(dout)


def tanh_slope_from_the_sigmoid(dout, out):
    return dout * out * (1 - out)


def sigmoid_slope_without_its_second_factor(dout, out):
    return dout * out


@pytest.mark.parametrize("name, wrong", [
    ("conv2d", {"forward": flipped_kernel}),
    ("conv2d", {"forward": height_and_width_swapped}),
    ("conv_transpose2d", {"forward": output_padding_forgotten}),
    ("linear", {"backward": bias_averaged_over_the_batch}),
    ("tanh", {"backward": tanh_slope_from_the_sigmoid}),
    ("sigmoid", {"backward": sigmoid_slope_without_its_second_factor}),
])
def test_wrong_values_are_turned_down(name, wrong):
    case = TYPICAL[name]
    with pytest.raises(AssertionError):
        check_values(case._replace(layer=case.layer._replace(**wrong)))


@pytest.mark.parametrize("name, wrong", [
    ("tanh", tanh_slope_from_the_sigmoid), ("sigmoid", sigmoid_slope_without_its_second_factor),
    ("linear", bias_averaged_over_the_batch),
])
def test_wrong_slopes_are_turned_down_by_central_differences(name, wrong):
    case = TYPICAL[name]
    with pytest.raises(AssertionError):
        check_central_differences(case._replace(layer=case.layer._replace(backward=wrong)), *draw(case))


def test_a_relu_with_slope_one_at_zero_is_turned_down():
    with pytest.raises(AssertionError, match="dx"):
        check_relu_at_zero(lambda dout, out: dout * (out >= 0))


def test_a_col2im_that_forgets_to_add_overlaps_is_turned_down():
    def overwrites(columns, shape, k, stride, padding):
        counts = layers.col2im(np.ones_like(columns), shape, k, stride, padding)
        return layers.col2im(columns, shape, k, stride, padding) / np.maximum(counts, 1)

    with pytest.raises(AssertionError, match="inner product"):
        check_transposes(layers.im2col, overwrites, 3, 2, 1)


def edits_its_cache(dout, out):
    out *= out
    return dout * (1 - out)


def edits_dout(dout, out):
    dout *= 1 - out * out
    return dout.copy()


def hands_dout_on(dout, out):
    return dout


@pytest.mark.parametrize("wrong", [edits_its_cache, edits_dout, hands_dout_on])
def test_a_backward_that_is_not_pure_is_turned_down(wrong):
    with pytest.raises(AssertionError):
        check_purity(TYPICAL["tanh"]._replace(layer=TANH._replace(backward=wrong)))


def test_a_backward_that_silently_makes_float64_is_turned_down():
    def mask_in_float64(dout, out):
        return dout * (out > 0).astype(np.float64)

    case = TYPICAL["relu"]
    with pytest.raises(AssertionError, match="float64"):
        check_precision(case._replace(layer=RELU._replace(backward=mask_in_float64)), np.float32)


# ---- the comparison itself ---------------------------------------------------------------------------------------------


def test_a_failed_comparison_names_the_tensor_the_largest_difference_and_its_index():
    got = np.zeros((2, 3))
    got[0, 1], got[1, 2] = 0.25, -0.5
    with pytest.raises(AssertionError) as caught:
        assert_close("decoder.fc1.weight", got, np.zeros((2, 3)), rtol=0, atol=0.1)
    message = str(caught.value)
    for part in ("decoder.fc1.weight[1, 2]", "difference 0.5", "2 of 6"):
        assert part in message, message


@pytest.mark.parametrize("got, want", [
    ([np.nan], [0.0]), ([np.nan], [np.nan]), ([np.inf], [1.0]), ([1.0], [np.inf]), ([np.inf], [-np.inf]),
    ([[1.0]], [1.0]), ([], []),
])
def test_nan_a_stray_infinity_another_shape_and_nothing_at_all_never_agree(got, want):
    with pytest.raises(AssertionError, match="dx"):
        assert_close("dx", got, want, rtol=1.0, atol=1.0)           # however loose the tolerance


def test_equal_infinities_agree():
    assert_close("log 0", [-np.inf, 1.0], [-np.inf, 1.0], rtol=0, atol=0)


def test_central_differences_restore_every_bit_and_refuse_float32():
    a = np.random.default_rng(0).standard_normal((3, 2))
    before = a.copy()
    assert_close("d sum(a^3)", central_difference(lambda: (a**3).sum(), a), 3 * before**2, **DIFFERENCES)
    assert_same_bits("array", a, before)
    with pytest.raises(AssertionError, match="float64"):
        central_difference(lambda: 0.0, np.zeros(3, np.float32))
