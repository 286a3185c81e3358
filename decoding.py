"""Greedy and beam search, batched, for every model of the Questions 3.

A model offers `step(tokens, state, memory) -> log_probs, state`:

    tokens: the last symbol of each row (n_rows), SOS at first
    state: a tuple of tensors with a row in their first dimension, what a step changes; a search reorders and drops rows
    memory: a tuple of tensors with a row in their first dimension, what stays as it is (the encoded source); a search
        drops rows
    log_probs: of the next symbol (n_rows, vocab_size)

Both searches return the symbols after SOS up to and without EOS, filled up with `pad`; a row that has not ended after its
`max_steps` (n_rows) symbols is cut there. What a row becomes does not depend on the rows beside it.
"""

import torch

# Rows that have ended are dropped once they are this share of all: dropping copies the memory, keeping them computes in vain.
DROP_SHARE = 0.4


def select(tensors, rows):
    """The rows of each tensor that `rows` names, by index or by mask."""
    return tuple(tensor[rows] for tensor in tensors)


@torch.no_grad()
def greedy(step, state, memory, sos, eos, pad, max_steps):
    """The most probable symbol at each step, until every row has ended.

    Returns symbols (n_rows, n_steps).
    """
    n_rows, device = len(state[0]), state[0].device
    max_steps = max_steps.to(device)
    symbols = torch.full((n_rows, int(max_steps.max())), pad, device=device)
    rows = torch.arange(n_rows, device=device)  # those still computed
    ended = torch.zeros(n_rows, dtype=torch.bool, device=device)
    tokens = torch.full((n_rows,), sos, device=device)
    for t in range(symbols.shape[1]):
        log_probs, state = step(tokens, state, memory)
        tokens = log_probs.argmax(dim=-1)
        ended = ended | (tokens == eos)
        symbols[rows, t] = tokens.masked_fill(ended, pad)
        ended = ended | (max_steps[rows] == t + 1)
        n_ended = int(ended.sum())
        if n_ended == len(rows):
            break
        if n_ended >= DROP_SHARE * len(rows):
            going_on = ~ended
            state, memory = select(state, going_on), select(memory, going_on)
            rows, tokens, ended = select((rows, tokens, ended), going_on)
    return symbols[:, : t + 1]


@torch.no_grad()
def beam(step, state, memory, sos, eos, pad, max_steps, beam_size, length_penalty):
    """The best of the hypotheses that `beam_size` places a row allow to follow.

    A hypothesis y of n symbols, EOS counted, scores log p(y) / n^length_penalty: 0 is the plain log-probability, 1 the mean
    over the symbols. A hypothesis that has ended keeps its place as long as its score does, and a row is finished
    when nothing that still goes on can overtake its best. A single place is greedy search.

    Returns symbols (n_rows, n_steps) and the scores (n_rows).
    """
    n_rows, device, dtype = len(state[0]), state[0].device, state[0].dtype
    max_steps = max_steps.to(device)
    most_steps = int(max_steps.max())
    best_symbols = torch.full((n_rows, most_steps), pad, device=device)
    best_scores = torch.full((n_rows,), float("-inf"), device=device, dtype=dtype)

    rows = torch.arange(n_rows, device=device)  # those that go on
    copies = rows.repeat_interleave(beam_size)
    state, memory = select(state, copies), select(memory, copies)
    symbols = torch.full((n_rows, beam_size, most_steps), pad, device=device)
    # At first all places are the same hypothesis, so that only one of them counts.
    log_p = torch.full((n_rows, beam_size), float("-inf"), device=device, dtype=dtype)
    log_p[:, 0] = 0.0
    lengths = torch.zeros((n_rows, beam_size), device=device, dtype=dtype)
    ended = torch.zeros((n_rows, beam_size), dtype=torch.bool, device=device)
    tokens = torch.full((n_rows, beam_size), sos, device=device)

    for t in range(most_steps):
        log_probs, state = step(tokens.flatten(), state, memory)
        vocab_size = log_probs.shape[-1]
        log_probs = log_probs.unflatten(0, (len(rows), beam_size))
        # What has ended has one continuation, which changes nothing.
        stay = torch.full_like(log_probs, float("-inf"))
        stay[..., pad] = 0.0
        log_probs = torch.where(ended.unsqueeze(2), stay, log_probs)
        log_p = (log_p.unsqueeze(2) + log_probs).flatten(1)  # (n_going_on, beam_size * vocab_size)
        lengths = torch.where(ended, lengths, lengths + 1)
        scores = log_p / lengths.repeat_interleave(vocab_size, dim=1) ** length_penalty

        scores, chosen = scores.topk(beam_size, dim=1)
        places = chosen // vocab_size  # the hypotheses that are continued
        tokens = chosen % vocab_size
        log_p, lengths, ended = log_p.gather(1, chosen), lengths.gather(1, places), ended.gather(1, places)
        symbols = symbols.gather(1, places.unsqueeze(2).expand_as(symbols))
        ended = ended | (tokens == eos)
        symbols[:, :, t] = tokens.masked_fill(ended, pad)
        ended = ended | (max_steps[rows] == t + 1).unsqueeze(1)  # cut
        first = torch.arange(len(rows), device=device).unsqueeze(1) * beam_size  # a row's first place in the state
        state = select(state, (first + places).flatten())

        # The score of what goes on is at most this: log p only falls, and n is at most max_steps.
        longest = max_steps[rows].unsqueeze(1)
        bound = (log_p / longest**length_penalty).masked_fill(ended, float("-inf")).amax(dim=1)
        best_ended, best_place = scores.masked_fill(~ended, float("-inf")).max(dim=1)
        done = (best_ended >= bound) & best_ended.isfinite()
        # Written as soon as a row is done, and again until it is dropped: its best does not change any more.
        best_symbols[rows[done]] = symbols[done, best_place[done]]
        best_scores[rows[done]] = scores[done, best_place[done]]
        n_done = int(done.sum())
        if n_done == len(rows):
            break
        if n_done >= DROP_SHARE * len(rows):
            going_on = ~done
            in_state = going_on.repeat_interleave(beam_size)
            state, memory = select(state, in_state), select(memory, in_state)
            rows, symbols, log_p, lengths, ended, tokens = select(
                (rows, symbols, log_p, lengths, ended, tokens), going_on
            )
    return best_symbols[:, : t + 1], best_scores
