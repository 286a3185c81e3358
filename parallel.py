"""Several processes that train one network together, each on its share of every batch (data parallel).

$ torchrun --nproc_per_node=2 hw2-q3.py --use_attn

torchrun starts the processes and tells each its rank. They speak through `torch.distributed`: gloo between CPUs, NCCL
between GPUs. All of them train and hold the same weights. Rank 0 alone validates, tests, draws and writes while the
others wait. A script that runs alone is rank 0 of 1, and nothing here does anything.
"""

import atexit
import os

import torch
import torch.distributed as dist

from options import UserError, rank, world_size


def is_main():
    return rank() == 0


def start(device):
    """Join the other processes of this job, if any; returns the index of the GPU that this process takes, or None."""
    local_rank = int(os.environ["LOCAL_RANK"]) if world_size() > 1 else 0
    if device == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError("there are more processes than GPUs; lower --nproc_per_node, or use -device cpu")
        torch.cuda.set_device(local_rank)
    if world_size() > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return local_rank if device == "cuda" else None


def share(rows):
    """This process's rows of a batch, every n-th of n processes; a batch with fewer rows is computed whole by each."""
    return rows[rank() :: world_size()] if len(rows) >= world_size() else rows


def average_gradients(params, n_terms):
    """Replace the gradients, means over the `n_terms` terms of this process, by the mean over all processes'."""
    if world_size() > 1:
        grads = [torch.zeros_like(param) if param.grad is None else param.grad for param in params]
        *sums, n_all = sum_of(*(grad * n_terms for grad in grads), n_terms)
        for param, grad, total in zip(params, grads, sums):
            param.grad = grad.copy_((total / n_all).view_as(grad))


def sum_of(*parts):
    """The sum over all processes of each of some numbers or tensors, which come back flat."""
    if world_size() == 1:
        return parts
    device = next(part.device for part in parts if isinstance(part, torch.Tensor))
    parts = [torch.as_tensor(part, dtype=torch.float32, device=device).flatten() for part in parts]
    flat = torch.cat(parts)
    dist.all_reduce(flat)
    return flat.split([len(part) for part in parts])


def broadcast(value=None):
    """The `value` of rank 0, in all processes; tensors lie on the CPU."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def gather(value):
    """The values of all processes, by rank."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def synchronize(model):
    """Give all processes the parameters and buffers of rank 0."""
    for tensor in model.state_dict().values() if world_size() > 1 else ():
        dist.broadcast(tensor, src=0)
