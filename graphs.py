"""The training step on a CUDA GPU as a graph: the GPU runs all its kernels by itself, and Python starts them once.

The kernels of a small step take less time than Python needs to start them one by one. A CUDA graph records them once,
with their places in memory, and starts them all by one call (https://docs.pytorch.org/docs/stable/notes/cuda.html).
"""

import functools
from collections import Counter
from contextlib import contextmanager

import torch

N_EAGER_STEPS = 2  # of a shape before it is recorded; recording takes about as long as so many steps


def replayed(train_step):
    """Let `utils.train_step` run as a graph where its `Optimization` has `StepGraphs`."""

    @functools.wraps(train_step)
    def step(optimization, batch_loss, batch):
        if optimization.graphs is None:
            return train_step(optimization, batch_loss, batch)
        return optimization.graphs.step(train_step, optimization, batch_loss, batch)

    return step


class StepGraphs:
    """The graphs of one training, one for each shape of a batch that has come often enough.

    A replayed step computes what the step computes that Python starts, bit for bit: its dropout draws the next random
    numbers of the device, and its learning rate is read from a tensor. A batch with a tensor on the CPU is never
    recorded. The loss must not ask the device for a number, such as the length of a sentence.

    Each graph has a copy of its batch, into which the next batch of that shape is copied. Their other memory is shared,
    since no two of them run at once.
    """

    def __init__(self, device):
        self.rate = torch.zeros((), device=device)  # the learning rate that recorded kernels read
        self.pool = torch.cuda.graph_pool_handle()
        self.n_seen, self.graphs, self.is_recording = Counter(), {}, False

    def step(self, train_step, optimization, batch_loss, batch):
        self.rate.fill_(optimization.learning_rate)
        shape = tuple(None if part is None else (part.shape, part.dtype, part.device) for part in batch)
        if shape not in self.graphs:
            is_on_device = all(part is None or part.device == self.rate.device for part in batch)
            self.n_seen[shape] += is_on_device
            if self.n_seen[shape] <= N_EAGER_STEPS:
                return train_step(optimization, batch_loss, batch)
            self.graphs[shape] = self.record(train_step, optimization, batch_loss, batch)
        graph, inputs, outputs = self.graphs[shape]
        for ours, theirs in zip(inputs, batch):
            if ours is not None:
                ours.copy_(theirs)
        graph.replay()
        optimization.advance()
        return outputs

    def record(self, train_step, optimization, batch_loss, batch):
        """Record a step without running its kernels; returns the graph, its batch, and where its loss will be."""
        graph, inputs = torch.cuda.CUDAGraph(), [None if part is None else part.clone() for part in batch]
        self.is_recording = True
        with torch.cuda.graph(graph, pool=self.pool):
            outputs = train_step(optimization, batch_loss, inputs)
        self.is_recording = False
        return graph, inputs, outputs

    @contextmanager
    def rate_on_device(self, optimizer):
        """Let the optimizer read its learning rate from the device; elsewhere it stays a number."""
        (group,) = optimizer.param_groups
        kept = dict(group)
        group.update(lr=self.rate, capturable=self.is_recording)
        try:
            yield
        finally:
            group.clear()
            group.update(kept)
