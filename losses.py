"""What speech recognition adds to its loss in training; each is a sum over the texts of a batch."""

import torch
import torch.nn.functional as F


def ctc_loss(logits, n_positions, tgt_out, padding_idx):
    """The CTC loss of a batch, summed over its texts (Graves et al., 2006, ICML); 0 for a text too long for its sound.

    Shapes:
        logits: (batch_size, max_positions, vocab_size + 1), the blank last
        n_positions: (batch_size)
        tgt_out: (batch_size, max_tgt_len), each text with a stop symbol, which is not heard, and padding behind it
    """
    # On the CPU, since torch's CUDA kernel adds up gradients in an order that changes.
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1)
    log_probs, tgt_out, n_positions = log_probs.cpu(), tgt_out.cpu(), n_positions.cpu()
    n_heard = (tgt_out != padding_idx).sum(dim=1) - 1
    options = {"blank": logits.shape[2] - 1, "reduction": "sum", "zero_infinity": True}
    return F.ctc_loss(log_probs, tgt_out, n_positions, n_heard, **options).to(logits.device)


def guided_attention_loss(alpha, n_symbols, n_positions, width=0.2):
    """How far attention is from the diagonal of text and sound (Tachibana et al., 2018, ICASSP, Section 4.2).

        sum_n sum_t A_nt W_nt,  W_nt = 1 - exp(-(n / N - t / T)^2 / (2 g^2))

    A_nt is the weight of position t = 1 .. T at symbol n = 1 .. N, the mean over the heads, and g is `width`. The paper
    takes the mean over n and t. Here the weights of a symbol add up to 1, so that with the sum over t each symbol
    counts from 0 to 1, however long its clip is. `utils.train_step` divides the sum over n by the number of symbols, as
    it does with the cross-entropy.

    Shapes:
        alpha: (batch_size, n_heads, max_symbols, max_positions), 0 at the padding of the sound
        n_symbols, n_positions: (batch_size)
    """

    def places(sizes, max_size):
        numbers = torch.arange(1, max_size + 1, device=alpha.device)
        return numbers / sizes.to(alpha.device).unsqueeze(1)  # (batch_size, max_size); above 1 in the padding

    n, t = places(n_symbols, alpha.shape[2]).unsqueeze(2), places(n_positions, alpha.shape[3]).unsqueeze(1)
    W = (1 - torch.exp(-((n - t) ** 2) / (2 * width**2))) * (n <= 1)  # (batch_size, max_symbols, max_positions)
    return (alpha.mean(dim=1) * W).sum()
