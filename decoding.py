"""Greedy and beam search, batched, for every model of the Questions 3.

A model offers `step(tokens, state) -> log_probs, state`:

    tokens: the last symbol of each row (n_rows), SOS at first
    state: a tuple of tensors, each with a row in its first dimension; the search reorders, repeats and drops rows
    log_probs: of the next symbol (n_rows, vocab_size)

Both searches return the symbols after SOS up to and without EOS, filled up with `pad`; a row that has not ended after
`max_steps` symbols is cut there.
"""

import torch


def select(state, rows):
    """The rows of a state that `rows` names, by index or by mask."""
    return tuple(tensor[rows] for tensor in state)


@torch.no_grad()
def greedy(step, state, sos, eos, pad, max_steps):
    """The most probable symbol at each step, until every row has ended.

    Returns symbols (n_rows, n_steps).
    """
    n_rows, device = len(state[0]), state[0].device
    symbols = torch.full((n_rows, max_steps), pad, device=device)
    rows = torch.arange(n_rows, device=device)  # those that go on
    tokens = torch.full((n_rows,), sos, device=device)
    for t in range(max_steps):
        log_probs, state = step(tokens, state)
        tokens = log_probs.argmax(dim=-1)
        goes_on = tokens != eos
        if not goes_on.all():
            rows, tokens, state = rows[goes_on], tokens[goes_on], select(state, goes_on)
            if len(rows) == 0:
                return symbols[:, :t]
        symbols[rows, t] = tokens
    return symbols


@torch.no_grad()
def beam(step, state, sos, eos, pad, max_steps, beam_size, length_penalty=1.0):
    """The best of the hypotheses that `beam_size` places a row allow to follow.

    A hypothesis y of n symbols, EOS counted, scores log p(y) / n^length_penalty: 0 is the plain log-probability, 1 the mean
    over the symbols. A hypothesis that has ended keeps its place as long as its score does, and a row is finished
    when nothing that still goes on can overtake its best. A single place is greedy search.

    Returns symbols (n_rows, n_steps) and the scores (n_rows).
    """
    n_rows, device = len(state[0]), state[0].device
    best_symbols = torch.full((n_rows, max_steps), pad, device=device)
    best_scores = torch.full((n_rows,), float("-inf"), device=device)
    n_steps = 0  # of the longest answer

    rows = torch.arange(n_rows, device=device)  # those that go on
    state = select(state, rows.repeat_interleave(beam_size))
    symbols = torch.full((n_rows, beam_size, max_steps), pad, device=device)
    # At first all places are the same hypothesis, so that only one of them counts.
    log_p = torch.full((n_rows, beam_size), float("-inf"), device=device)
    log_p[:, 0] = 0.0
    lengths = torch.zeros((n_rows, beam_size), device=device)
    ended = torch.zeros((n_rows, beam_size), dtype=torch.bool, device=device)
    tokens = torch.full((n_rows, beam_size), sos, device=device)

    for t in range(max_steps):
        log_probs, state = step(tokens.flatten(), state)
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

        # The score of what goes on is at most this: log p only falls, and n is at most max_steps.
        bound = (log_p / max_steps**length_penalty).masked_fill(ended, float("-inf")).amax(dim=1)
        ended_scores = scores.masked_fill(~ended, float("-inf"))
        best_ended, best_place = ended_scores.max(dim=1)
        done = (best_ended >= bound) & best_ended.isfinite()
        if t == max_steps - 1:
            done = torch.ones_like(done)
            best_place = scores.argmax(dim=1)
        if done.any():
            place = best_place[done]
            best_symbols[rows[done]] = symbols[done, place]
            best_scores[rows[done]] = scores[done, place]
            n_steps = max(n_steps, int((symbols[done, place] != pad).sum(dim=1).max()))
            going_on = ~done
            rows, symbols, log_p, lengths, ended, tokens, places = select(
                (rows, symbols, log_p, lengths, ended, tokens, places), going_on
            )
            if len(rows) == 0:
                break
            first = going_on.nonzero()  # the place of each row among those of this step
        else:
            first = torch.arange(len(rows), device=device).unsqueeze(1)
        state = select(state, (first * beam_size + places).flatten())
    return best_symbols[:, :n_steps], best_scores
