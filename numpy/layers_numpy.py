"""The layers: each a forward and a backward, by hand.

    out, cache   = xxx_forward(inputs...)       what the layer computes, and what its backward will need
    dinputs, ... = xxx_backward(dout, cache)    the chain rule: dLoss/dout comes in, dLoss/dinputs go out

A backward reads like its forward upside down and edits nothing. `dx` is dLoss/dx throughout.

Letters: B images, I and O channels in and out, H and W height and width (of the smaller picture: h and w), k kernel side.
"""

import numpy as np

# ---- dense ---------------------------------------------------------------------------------------------------------


def linear_forward(x, weight, bias):
    """out = x W^T + b. x (B, in), weight (out, in), bias (out,) -> out (B, out)."""
    out = x @ weight.T + bias                                            # (B, out)
    return out, (x, weight)


def linear_backward(dout, cache):
    """dout (B, out) -> dx (B, in), dweight (out, in), dbias (out,): eq. 1.22."""
    x, weight = cache
    dx = dout @ weight                                                   # (B, in)
    return dx, *linear_backward_params(dout, cache)


def linear_backward_params(dout, cache):
    """The weights' half of linear_backward: the first layer of a network needs no dx, since the image is data."""
    x, weight = cache
    dweight = dout.T @ x                                                 # (out, in)
    dbias = dout.sum(axis=0)                                             # (out,)
    return dweight, dbias


# ---- activations ---------------------------------------------------------------------------------------------------


def tanh_forward(a):
    out = np.tanh(a)
    return out, out


def tanh_backward(dout, cache):
    """tanh'(a) = 1 - tanh(a)^2, eq. 1.23, so the output is all that has to be kept."""
    out = cache
    return dout * (1 - out * out)


def relu_forward(a):
    out = np.maximum(a, 0)
    return out, out


def relu_backward(dout, cache):
    """The gradient passes where the unit is on; relu'(0) = 0, as in PyTorch."""
    out = cache
    return dout * (out > 0)


def sigmoid_forward(a):
    """1 / (1 + exp(-a)). exp(-a) may overflow to infinity, and 1 / infinity is the 0 that is meant."""
    with np.errstate(over="ignore"):
        out = 1 / (1 + np.exp(-a))
    return out, out


def sigmoid_backward(dout, cache):
    out = cache
    return dout * out * (1 - out)


# ---- convolution ---------------------------------------------------------------------------------------------------
#
# A convolution is a matrix product once every k x k window of the image has been laid out as a column (eq. 1.15):
#
#     im2col:   (B, C, H, W)   ->  (C*k*k, h*w*B)      copies pixels into the windows they belong to
#     col2im:   (C*k*k, h*w*B) ->  (B, C, H, W)        its transpose: adds the windows back onto their pixels
#
# conv2d is im2col, then W @ columns; its backward is W^T @ dout, then col2im. conv_transpose2d is that backward used
# as a forward (eq. 1.16, 2.1). The columns run over (row, column, image): the whole batch is one matrix product, and
# every copy moves B neighbors in memory at once. Shapes are PyTorch's (B, C, H, W) everywhere; as_matrix and as_images
# only look at the same memory differently (transposed views), so between two convolutions nothing is copied. Between a
# dense layer, whose memory has an image in a row, and a convolution, batch_last copies once; NumPy is slow where two
# orders meet.


def im2col(x, k, stride, padding):
    """x (B, C, H, W) -> columns (C*k*k, h*w*B) with h = (H + 2*padding - k) // stride + 1, and w likewise."""
    B, C, H, W = x.shape
    h, w = (H + 2 * padding - k) // stride + 1, (W + 2 * padding - k) // stride + 1
    padded = np.zeros((C, H + 2 * padding, W + 2 * padding, B), x.dtype)
    padded[:, padding:padding + H, padding:padding + W] = x.transpose(1, 2, 3, 0)
    columns = np.empty((C, k, k, h, w, B), x.dtype)
    for i in range(k):
        for j in range(k):
            columns[:, i, j] = padded[:, i:i + stride * h:stride, j:j + stride * w:stride]
    return columns.reshape(C * k * k, h * w * B)


def col2im(columns, shape, k, stride, padding):
    """The transpose of im2col: columns (C*k*k, h*w*B) -> (B, C, H, W) = shape; overlapping windows add up."""
    B, C, H, W = shape
    h, w = (H + 2 * padding - k) // stride + 1, (W + 2 * padding - k) // stride + 1
    columns = columns.reshape(C, k, k, h, w, B)
    padded = np.zeros((C, H + 2 * padding, W + 2 * padding, B), columns.dtype)
    for i in range(k):
        for j in range(k):
            padded[:, i:i + stride * h:stride, j:j + stride * w:stride] += columns[:, i, j]
    return padded[:, padding:padding + H, padding:padding + W].transpose(3, 0, 1, 2)


def as_matrix(x):
    """(B, C, h, w) -> (C, h*w*B): one row per channel, in the column order of im2col."""
    return x.transpose(1, 2, 3, 0).reshape(x.shape[1], -1)


def as_images(matrix, B, h, w):
    """(C, h*w*B) -> (B, C, h, w): the inverse of as_matrix."""
    return matrix.reshape(-1, h, w, B).transpose(3, 0, 1, 2)


def batch_last(x):
    """The same array (B, ...), with the batch innermost in memory: neighbors there are the same pixel of two images."""
    return np.asfortranarray(x.reshape(len(x), -1)).reshape(x.shape)


def conv2d_forward(x, weight, bias, stride, padding):
    """F.conv2d. x (B, I, H, W), weight (O, I, k, k), bias (O,) -> out (B, O, h, w)."""
    B, _, H, W = x.shape
    O, _, k, _ = weight.shape
    h, w = (H + 2 * padding - k) // stride + 1, (W + 2 * padding - k) // stride + 1
    columns = im2col(x, k, stride, padding)                              # (I*k*k, h*w*B)
    out = weight.reshape(O, -1) @ columns + bias[:, None]                # (O, h*w*B)
    return as_images(out, B, h, w), (x.shape, columns, weight, stride, padding)


def conv2d_backward(dout, cache):
    """dout (B, O, h, w) -> dx (B, I, H, W), dweight (O, I, k, k), dbias (O,): eq. 1.24."""
    shape, columns, weight, stride, padding = cache
    O, _, k, _ = weight.shape
    dcolumns = weight.reshape(O, -1).T @ as_matrix(dout)                 # (I*k*k, h*w*B)
    dx = col2im(dcolumns, shape, k, stride, padding)                     # (B, I, H, W)
    return dx, *conv2d_backward_params(dout, cache)


def conv2d_backward_params(dout, cache):
    """The weights' half of conv2d_backward, for the first layer."""
    _, columns, weight, _, _ = cache
    dout = as_matrix(dout)                                               # (O, h*w*B)
    dweight = (dout @ columns.T).reshape(weight.shape)                   # (O, I, k, k)
    dbias = dout.sum(axis=1)                                             # (O,)
    return dweight, dbias


def conv_transpose2d_forward(x, weight, bias, stride, padding, output_padding):
    """F.conv_transpose2d. x (B, I, h, w), weight (I, O, k, k), bias (O,) -> out (B, O, H, W).

    H = (h - 1) * stride - 2 * padding + k + output_padding: the picture that conv2d would turn into h rows.
    """
    B, _, h, w = x.shape
    I, O, k, _ = weight.shape
    H = (h - 1) * stride - 2 * padding + k + output_padding
    W = (w - 1) * stride - 2 * padding + k + output_padding
    columns = weight.reshape(I, -1).T @ as_matrix(x)                     # (O*k*k, h*w*B)
    out = col2im(columns, (B, O, H, W), k, stride, padding) + bias[:, None, None]
    return out, (x, weight, stride, padding)


def conv_transpose2d_backward(dout, cache):
    """dout (B, O, H, W) -> dx (B, I, h, w), dweight (I, O, k, k), dbias (O,): eq. 1.25."""
    x, weight, stride, padding = cache
    B, I, h, w = x.shape
    k = weight.shape[-1]
    dcolumns = im2col(dout, k, stride, padding)                          # (O*k*k, h*w*B)
    dx = as_images(weight.reshape(I, -1) @ dcolumns, B, h, w)            # (B, I, h, w)
    dweight = (as_matrix(x) @ dcolumns.T).reshape(weight.shape)          # (I, O, k, k)
    dbias = dout.sum(axis=(0, 2, 3))                                     # (O,)
    return dx, dweight, dbias
