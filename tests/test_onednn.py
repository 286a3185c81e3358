"""Products by oneDNN: only where they have the precision of float32."""

import pytest
import torch

import onednn


@pytest.fixture
def products():
    """The setting of the products and what is known of oneDNN, restored after the test."""
    onednn.is_precise.cache_clear()
    yield torch.backends.mkldnn.matmul
    onednn.is_precise.cache_clear()
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"


def test_products_have_the_precision_of_float32(products):
    onednn.use_where_precise()
    A, B = torch.randn(300, 200), torch.randn(200, 100)
    assert (A @ B - A.double() @ B.double()).abs().max() < 1e-4


@pytest.mark.parametrize("rounds", [True, False])
def test_onednn_is_not_used_where_it_rounds_the_factors(products, monkeypatch, rounds):
    multiply = torch.Tensor.__matmul__

    def matmul(A, B):
        if rounds and A.dtype == torch.float32 and products.fp32_precision == "bf16":
            A, B = A.bfloat16().float(), B.bfloat16().float()
        return multiply(A.double(), B.double()).to(A.dtype)

    monkeypatch.setattr(torch.Tensor, "__matmul__", matmul)
    onednn.use_where_precise()
    assert products.fp32_precision == ("ieee" if rounds else "bf16")
