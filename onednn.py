"""Which library multiplies the float32 matrices of captioning and speech on the CPU."""

import functools

import torch

N_MULTIPLIED = 256  # rows and columns of a product of numbers from -1 to 1
MAX_PRODUCT_ERROR = 1e-4  # of that product in float32; with factors in bfloat16 it is 0.06


def use_where_precise():
    """Let oneDNN multiply, not MKL, torch's own choice; oneDNN only where it is as precise.

    On processors of AMD MKL does not use AVX-512, and oneDNN takes half the time. It compiles a kernel for each new
    shape, which takes milliseconds. torch hands products to oneDNN only with the permission to round their factors to
    bfloat16. oneDNN makes use of the permission on processors with AMX, and there MKL stays.
    """
    torch.backends.mkldnn.matmul.fp32_precision = "bf16" if is_precise() else "ieee"


@functools.cache
def is_precise():
    """Whether a product by oneDNN has the precision of float32; a small one is made to find out."""
    matmul = torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    A = torch.arange(N_MULTIPLIED**2, dtype=torch.float32).sin().view(N_MULTIPLIED, N_MULTIPLIED)
    error = float((A @ A - A.double() @ A.double()).abs().max())
    matmul.fp32_precision = before
    return error < MAX_PRODUCT_ERROR
