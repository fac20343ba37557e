"""One training step as a CUDA graph: recorded once, then replayed with a single launch.

A step of a small model is a hundred kernels of a few microseconds each, and Python needs longer to launch one than a GPU
to run it: at batch 100 the GPU starves. A graph replays draws, forward and backward at one call. What may change from
step to step lies in tensors that stay where they are: the rows of the minibatch, the weights, the gradients, the totals.
"""

import torch


class GraphStep:
    """forward_backward(rows), recorded for one batch size and replayed; the optimizer's step comes after it, as ever.

    forward_backward   draws from `generator`, writes gradients and adds to tensors that exist already, and nothing else
    rows               (B,) row numbers on the device, of the size that is recorded; another size runs eagerly
    buffers            tensors that forward_backward changes besides, such as a batch norm's means
    """

    def __init__(self, forward_backward, rows, generator, buffers=()):
        self.eager = forward_backward
        self.rows = rows.clone()
        state, before = generator.get_state(), [(buffer, buffer.clone()) for buffer in buffers]
        side = torch.cuda.Stream()                  # PyTorch wants some eager turns on another stream before it records
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                forward_backward(self.rows)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            forward_backward(self.rows)
        generator.set_state(state)                  # as if nothing had been drawn or changed
        for buffer, value in before:
            buffer.copy_(value)

    def __call__(self, rows):
        if rows.shape != self.rows.shape:           # the last minibatch of an epoch may be smaller
            return self.eager(rows)
        self.rows.copy_(rows)
        self.graph.replay()
