"""The mathematics of Question 1 and the claims that check it, by subject; each module opens with what it derives."""

from theory import attention, convolution, feature_maps, linear_attention

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
        feature_maps.claim_positive_weights,
        linear_attention.claim_kernel_attention,
        linear_attention.claim_order_of_products,
        linear_attention.claim_crossing,
        linear_attention.time_linear_attention,
        linear_attention.claim_agreement,
    ),
}
