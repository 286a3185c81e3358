"""Several processes that train one network together, each on its share of every batch (data parallel).

$ torchrun --nproc_per_node=2 hw2-q3.py --use_attn

torchrun starts the processes and tells each its rank. They speak to each other through `torch.distributed`: gloo between CPUs,
NCCL between GPUs. All of them train and hold the same weights. Only rank 0 prints and writes: it leads the evaluation and the test,
and the others serve it, they compute their shares of what it asks for (`lead`, `serve`). A script that runs alone is rank 0 of 1.

torch.distributed is imported where several processes need it.
"""

import os
from contextlib import contextmanager
from datetime import timedelta

import torch

from options import UserError, rank, world_size

TIMEOUT = timedelta(minutes=30)  # rank 0 draws and judges while the others wait
DEAD = "another process of this job has ended; start the job again, with -resume it goes on where it stopped"
RANK_SEEDS = 1_000_003  # between the seeds of two ranks, so that the dropout of two ranks differs


def is_main():
    """Whether this process is rank 0, which alone prints and writes."""
    return rank() == 0


def start(device):
    """Join the other processes of this job if there are any; `device` is "cpu" or "cuda".

    Returns the index of the GPU that this process takes, or None.
    """
    import torch.distributed as dist

    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if device == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"this machine has {torch.cuda.device_count()} GPUs for more processes; lower --nproc_per_node"
            )
        torch.cuda.set_device(local_rank)
    if world_size() > 1 and not dist.is_initialized():
        with lost_peers():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    return local_rank if device == "cuda" else None


def stop():
    """Leave the other processes, at the end of all work."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.destroy_process_group()


@contextmanager
def lost_peers():
    """A connection to another process that breaks inside the block becomes a `UserError`."""
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's errors, torch.distributed.DistError among them
        raise UserError(DEAD) from error


def broadcast(value=None):
    """The `value` of rank 0, in all processes; tensors lie on the CPU."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    values = [value]
    with lost_peers():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def gather(value):
    """The values of all processes by rank, on rank 0; None on the others."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    values = [None] * world_size() if is_main() else None
    with lost_peers():
        dist.gather_object(value, values)
    return values


def share(rows):
    """The share of this process of a list or of the rows of a tensor: every n-th of n processes, so that lengths are even."""
    return rows[rank() :: world_size()]


def whole(shares):
    """The list of which `shares` are the shares, by rank."""
    if len(shares) == 1:
        return shares[0]
    joined = [None] * sum(map(len, shares))
    for first, part in enumerate(shares):
        joined[first :: len(shares)] = part
    return joined


def synchronize(model):
    """Give all processes the parameters and buffers of rank 0."""
    if world_size() > 1:
        import torch.distributed as dist

        with lost_peers(), torch.no_grad():
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)


def sum_gradients(params, scale, n_terms, *others):
    """Replace the gradients by those of the mean over the terms of all processes.

    Args:
        params: their `grad` is None in a process that had no terms.
        scale: times the gradient it is the gradient of the sum over this process's terms.
        n_terms: of this process.
        others: numbers to be summed besides.

    Returns the sums over all processes of `n_terms` and of the `others`, float32.
    """
    import torch.distributed as dist

    device = params[0].device
    numbers = torch.stack(
        [torch.as_tensor(number, dtype=torch.float32, device=device) for number in (n_terms, *others)]
    )
    grads = [torch.zeros_like(param) if param.grad is None else param.grad for param in params]
    flat = torch.cat([*(grad.flatten() for grad in grads), numbers])
    grads_only, numbers = flat[: -len(numbers)], flat[-len(numbers) :]
    grads_only *= scale
    with lost_peers():
        dist.all_reduce(flat)
    grads_only /= numbers[0]
    for param, grad, summed in zip(params, grads, grads_only.split([grad.numel() for grad in grads])):
        param.grad = grad.copy_(summed.view_as(grad))
    return numbers


def lead(work, serve):
    """What `work()` returns on rank 0, in all processes; the others call `serve()` meanwhile, until it ends."""
    if world_size() == 1:
        return work()
    result = None
    if is_main():
        result = work()
        broadcast(None)  # the end of the service
    else:
        serve()
    return broadcast(result)


def call(target, name, model, *args, **kwargs):
    """Called by the work that `lead` is given: what the method `name` of `target` returns in each process, by rank.

    Each process calls it with its own `model`; the other arguments are those of rank 0.
    """
    broadcast((name, args, kwargs))
    return gather(getattr(target, name)(model, *args, **kwargs))


def serve(target, model):
    """Compute what rank 0 asks of `target` through `call`, until its work ends."""
    while (asked := broadcast()) is not None:
        name, args, kwargs = asked
        gather(getattr(target, name)(model, *args, **kwargs))
