"""Decoding for every model of the Questions 3: greedy search, beam search, sampling and minimum Bayes risk.

A row is one input, such as a sentence to translate. A search follows one or more hypotheses of each row and asks the model
for the next symbol of all of them at once, by the model's `step(tokens, state, memory) -> log_probs, state, alpha`:

    tokens: the last symbol of each hypothesis (n_hyps); SOS at first. The hypotheses of one row stand side by side, and
        n_hyps = n_rows * n_places, where n_places may change from step to step.
    state: what a step changes, such as the state of an LSTM or the keys that a Transformer has cached
    memory: what stays the same, such as the encoded source; all hypotheses of a row share their row's memory
    log_probs: of the next symbol (n_hyps, vocab_size)
    alpha: attention weights (n_hyps, n_source), or None

State and memory are tensors, or tuples, lists and dicts of such. The first dimension of each tensor is n_hyps in the state
and n_rows in the memory; the state that a search starts from has one hypothesis a row. Other values, such as a number of
steps, are handed on unchanged. The result of a row does not depend on the rows beside it.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

# Rows that have ended are dropped once they are this share of all: dropping copies the memory, keeping computes in vain.
DROP_SHARE = 0.4


class Decoded(NamedTuple):
    """What a search returns; sampling gives each part a dimension n_samples after the first.

    Attributes:
        symbols: (n_rows, n_steps), the symbols before EOS, filled up with `pad`.
        scores: (n_rows), log p, in beam search divided by length^length_penalty.
        weights: (n_rows, n_steps, n_source), the attention weights of the step that chose each symbol, EOS included,
            and 0 after it; None unless `return_weights` is set and the model has attention.
    """

    symbols: torch.Tensor
    scores: torch.Tensor
    weights: torch.Tensor | None


def select(structure, rows):
    """The given rows of every tensor in a structure of tuples, lists and dicts; other values stay as they are."""
    if isinstance(structure, torch.Tensor):
        return structure[rows]
    if isinstance(structure, dict):
        return {key: select(part, rows) for key, part in structure.items()}
    if isinstance(structure, (tuple, list)):
        parts = [select(part, rows) for part in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else type(structure)(parts)
    return structure


class Hypotheses:
    """The unfinished hypotheses of a batch of rows, and all that is needed to read the finished ones afterwards.

    Each step stores the chosen symbols and, where hypotheses changed places, back-pointers. `read` follows these from the
    answers' ends to their beginnings.

    Args:
        step, state, memory: the model, as the module's docstring describes it.
        sos, eos, pad: indices of the special symbols.
        max_steps: (n_rows), on the model's device. A row that has not ended after so many symbols is cut there.
        forbidden: indices of the symbols that are never chosen.
        return_weights: keep the attention weights.
        n_places: hypotheses of each row at the start, which are also its answers.

    Attributes:
        rows: (n_going_on), the indices of the rows that are still computed. The following have one line for each:
        tokens, log_p, lengths, ended: (n_going_on, n_places), of each hypothesis its last symbol, its log-probability,
            its number of symbols, EOS included, and whether it has ended or was cut.
        scores, places, last_steps: (n_rows, n_answers), of each answer its score, its place and the step that ended it.
    """

    def __init__(
        self, step, state, memory, *, sos, eos, pad, max_steps, forbidden=(), return_weights=False, n_places=1
    ):
        self.step, self.memory, self.return_weights = step, memory, return_weights
        self.eos, self.pad, self.max_steps, self.forbidden = eos, pad, max_steps, list(forbidden)
        self.rows = torch.arange(len(max_steps), device=max_steps.device)
        self.state = state if n_places == 1 else select(state, self.rows.repeat_interleave(n_places))
        self.tokens = max_steps.new_full((len(max_steps), n_places), sos, dtype=torch.int64)
        self.log_p = torch.zeros_like(self.tokens, dtype=torch.float32)
        self.lengths = torch.zeros_like(self.tokens)
        self.ended = torch.zeros_like(self.tokens, dtype=torch.bool)
        self.places = torch.arange(n_places, device=max_steps.device).repeat(len(max_steps), 1)
        self.last_steps = max_steps.unsqueeze(1).repeat(1, n_places)
        self.history = []

    def steps(self):
        """Yield log p of the next symbol (n_going_on, n_places, vocab_size) until every row has ended.

        The one continuation of an ended hypothesis is `pad`, with probability 1.
        """
        while len(self.rows):
            log_probs, self.state, alpha = self.step(self.tokens.flatten(), self.state, self.memory)
            self.alpha = alpha if self.return_weights else None
            if not self.history:
                self.prepare(log_probs)
            log_probs = (log_probs + self.bias).unflatten(0, self.tokens.shape)
            yield torch.where(self.ended.unsqueeze(2), self.only_pad, log_probs)
            self.drop_ended_rows()

    def prepare(self, log_probs):
        """Make the tensors whose size and type are those of the first step's log-probabilities."""
        vocab = torch.arange(log_probs.shape[1], device=log_probs.device)
        self.bias = torch.zeros_like(log_probs[0])
        self.bias[self.forbidden] = float("-inf")
        self.only_pad = torch.zeros_like(self.bias).masked_fill(vocab != self.pad, float("-inf"))
        self.scores = torch.full_like(self.log_p, float("-inf"), dtype=(self.log_p + self.bias[0]).dtype)

    def extend(self, tokens, log_p, parents=None):
        """Add the next symbols (n_going_on, n_places) to the hypotheses, whose log-probabilities become `log_p`.

        parents: (n_going_on, n_places), the place of the hypothesis that each one continues; by default its own.
        """
        if self.alpha is not None:
            self.alpha = self.alpha.unflatten(0, self.ended.shape) * ~self.ended.unsqueeze(2)
        ended, lengths = self.ended, self.lengths + ~self.ended
        if parents is not None:
            first = torch.arange(len(self.rows), device=parents.device).unsqueeze(1) * ended.shape[1]
            self.state = select(self.state, (first + parents).flatten())
            ended, lengths = ended.gather(1, parents), lengths.gather(1, parents)
        ended = ended | (tokens == self.eos)
        self.tokens, self.log_p, self.lengths = tokens.masked_fill(ended, self.pad), log_p, lengths
        self.history.append((self.rows, self.tokens, parents, self.alpha))
        self.ended = ended | (self.max_steps[self.rows] == len(self.history)).unsqueeze(1)

    def drop_ended_rows(self):
        """Compute on without the rows whose hypotheses have all ended, if they are enough to make it worth the copy."""
        going_on = ~self.ended.all(dim=1)
        n_ended = len(self.rows) - int(going_on.sum())
        if n_ended and n_ended >= DROP_SHARE * len(self.rows):
            self.state = select(self.state, going_on.repeat_interleave(self.tokens.shape[1]))
            self.memory = select(self.memory, going_on)
            lines = self.rows, self.tokens, self.log_p, self.lengths, self.ended
            self.rows, self.tokens, self.log_p, self.lengths, self.ended = select(lines, going_on)

    def read(self):
        """The answers, as `Decoded` with a dimension n_answers after the first."""
        places, symbols, weights = self.places, [], []
        for t, (rows, tokens, parents, alpha) in reversed(list(enumerate(self.history))):
            lines = torch.arange(len(rows), device=rows.device).unsqueeze(1)
            before_end = t <= self.last_steps[rows]
            column = torch.full_like(places, self.pad)
            column[rows] = tokens.gather(1, places[rows]).masked_fill(~before_end, self.pad)
            symbols.insert(0, column)
            if parents is not None:
                places[rows] = torch.where(before_end, parents.gather(1, places[rows]), places[rows])
            if alpha is not None:
                column = alpha.new_zeros(*places.shape, alpha.shape[2])
                column[rows] = torch.where(before_end.unsqueeze(2), alpha[lines, places[rows]], 0.0)
                weights.insert(0, column)
        return Decoded(torch.stack(symbols, dim=2), self.scores, torch.stack(weights, dim=2) if weights else None)


@torch.no_grad()
def greedy(step, state, memory, **options):
    """Greedy search: choose the most probable symbol at each step. `options`: see `Hypotheses`."""
    hyps = Hypotheses(step, state, memory, **options)
    for log_probs in hyps.steps():
        log_p, tokens = log_probs.max(dim=2)
        hyps.extend(tokens, hyps.log_p + log_p)
        hyps.scores[hyps.rows] = hyps.log_p
    return select(hyps.read(), (slice(None), 0))


@torch.no_grad()
def beam(step, state, memory, beam_size, length_penalty, **options):
    """Beam search: keep the `beam_size` best hypotheses of each row and return the best one.

    The score of a hypothesis of n symbols, EOS included, is log p / n^length_penalty: with 0 it is the log-probability and
    with 1 the mean over the symbols. A hypothesis that has ended competes for its place with those that go on. The best one
    that has ended is remembered even if it loses its place, and a row ends when no other one can overtake it. With a
    `beam_size` of 1 this is greedy search. `options`: see `Hypotheses`.
    """
    hyps = Hypotheses(step, state, memory, **options)
    for log_probs in hyps.steps():
        log_p = hyps.log_p.unsqueeze(2) + log_probs  # (n_going_on, n_places, vocab_size)
        lengths = (hyps.lengths + ~hyps.ended).to(log_p)
        scores = (log_p / lengths.unsqueeze(2) ** length_penalty).flatten(1)
        scores, chosen = scores.topk(min(beam_size, scores.shape[1]), dim=1)
        parents, tokens = chosen // log_probs.shape[2], chosen % log_probs.shape[2]
        hyps.extend(tokens, log_p.flatten(1).gather(1, chosen), parents)

        best_score, best_place = scores.masked_fill(~hyps.ended, float("-inf")).max(dim=1, keepdim=True)
        better = (best_score > hyps.scores[hyps.rows]).squeeze(1)
        rows = hyps.rows[better]
        hyps.scores[rows], hyps.places[rows] = best_score[better], best_place[better]
        hyps.last_steps[rows] = len(hyps.history) - 1
        # The score of a hypothesis that goes on is at most this: log p only falls, and n is at most max_steps.
        longest = hyps.max_steps[hyps.rows].unsqueeze(1).to(log_p)
        bound = (hyps.log_p / longest**length_penalty).masked_fill(hyps.ended, float("-inf")).amax(dim=1, keepdim=True)
        hyps.ended |= hyps.scores[hyps.rows] >= bound
    return select(hyps.read(), (slice(None), 0))


@torch.no_grad()
def sample(step, state, memory, n_samples, seed, **options):
    """Draw `n_samples` hypotheses of each row from the model, forbidden symbols left out.

    The samples of a row are independent of each other. All rows use the same random numbers, drawn on the CPU, so that the
    samples of a row depend on the seed, but neither on the rows beside it nor on the device. `options`: see `Hypotheses`.
    """
    generator = torch.Generator().manual_seed(seed)
    hyps = Hypotheses(step, state, memory, n_places=n_samples, **options)
    for log_probs in hyps.steps():
        # A uniform number u chooses the first symbol whose cumulative probability is above u.
        cumulative = log_probs.float().exp().cumsum(dim=2)
        u = torch.rand(n_samples, generator=generator).to(cumulative.device) * cumulative[..., -1]
        tokens = torch.searchsorted(cumulative, u.unsqueeze(2), right=True)
        hyps.extend(tokens.squeeze(2), hyps.log_p + log_probs.gather(2, tokens).squeeze(2))
        hyps.scores[hyps.rows] = hyps.log_p
    return hyps.read()


def minimum_risk(candidates, distance=Levenshtein.distance):
    """Minimum Bayes risk: the index of the candidate with the least expected error (Kumar and Byrne, 2004, HLT-NAACL).

        risk(y) = 1/n sum_j distance(y, y_j) / length(y_j)

    The candidates y_1 .. y_n are samples of the model and stand for the unknown reference in turn, so that the risk estimates
    the error rate. They are strings or sequences of symbols. Ties: keep the first.
    """
    counts = Counter(candidates)
    distances = process.cdist(list(counts), list(counts), scorer=distance)
    weights = [count / max(len(candidate), 1) for candidate, count in counts.items()]
    best = list(counts)[int(np.argmin(distances @ np.array(weights)))]
    return candidates.index(best)


def search(step, state, memory, beam_size=1, length_penalty=0.0, n_samples=None, seed=0, **options):
    """Minimum-risk decoding with `n_samples` samples if given; else beam search, or greedy search for a beam of 1."""
    if n_samples is None:
        if beam_size == 1:
            return greedy(step, state, memory, **options)
        return beam(step, state, memory, beam_size, length_penalty, **options)
    samples = sample(step, state, memory, n_samples, seed, **options)
    candidates = [[tuple(i for i in hyp if i != options["pad"]) for hyp in row] for row in samples.symbols.tolist()]
    chosen = torch.tensor([minimum_risk(row) for row in candidates], device=samples.symbols.device)
    return select(samples, (torch.arange(len(chosen), device=chosen.device), chosen))
