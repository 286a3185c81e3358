"""The formulas of Question 1 and the claims that check them, by subject; report/hw2-EDITION.typ derives them."""

from theory import attention, convolution, feature_maps, linear_attention

# A claim has its formulas as default arguments for the tests alone, which put wrong ones in their place.
CLAIMS = {  # by edition, in the order of its questions
    "2021-22": (
        convolution.claim_cnn_parameters,
        convolution.claim_mlp_parameters,
        convolution.claim_weight_sharing,
        attention.claim_attention_rank,
        attention.claim_equal_heads,
    ),
    "2022-23": (
        convolution.claim_convolution_size,
        convolution.claim_convolution_matrix,
        convolution.claim_network_parameters,
        attention.claim_pixel_attention,
        attention.claim_pixel_permutation,
    ),
    "2023-24": (
        attention.claim_attention_cost,
        feature_maps.claim_K_terms,
        feature_maps.claim_K_terms_once,
        feature_maps.claim_smallest_map,
        feature_maps.claim_series_error,
        linear_attention.claim_kernel_attention,
        feature_maps.claim_positive_weights,
        linear_attention.claim_order_of_products,
        linear_attention.claim_crossing,
        linear_attention.time_linear_attention,
        linear_attention.claim_agreement,
    ),
}


def answers(year, part):
    """The formulas that answer a part: the first paragraphs of the docstrings that name it, of what is checked."""
    formulas = [formula for check in CLAIMS[year] for formula in check.__defaults__ or () if callable(formula)]
    docstrings = dict.fromkeys(formula.__doc__ for formula in formulas if formula.__doc__)
    found = [" ".join(docstring.partition("\n\n")[0].split()).rpartition(" (") for docstring in docstrings]
    return [answer for answer, _, parts in found if part in parts]
