"""Decoding for every model of the Questions 3: greedy search, beam search, sampling and minimum Bayes risk.

A row is one input, such as a sentence to translate. A search follows one or more hypotheses of each row and asks the
model for the next symbol of all of them at once, by its `step(tokens, state, memory) -> log_probs, state, alpha`:

    tokens: (n_hyps), the last symbol of each hypothesis, SOS at first. The hypotheses of a row stand side by side:
        n_hyps = n_rows * n_places. Both numbers may change from step to step.
    state: what a step changes, such as the state of an LSTM or the keys that a Transformer has cached. At the start
        it is that of one hypothesis for each row.
    memory: what stays the same, such as the encoded source. All hypotheses of a row share their row's memory.
    log_probs: (n_hyps, vocab_size), of the next symbol
    alpha: (n_hyps, n_source), the attention weights of this step, or None; further dimensions, such as that of the
        heads, may stand between the two

State and memory are tensors, or tuples of them, also nested or empty. The first dimension of each tensor is n_hyps in
the state and n_rows in the memory. The result of a row does not depend on the rows beside it.
"""

import time
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from metrics import format_interval
from options import progress, say

# Rows that have ended are dropped when they are at least this share of all rows: dropping them copies the memory of the
# others, and keeping them costs computing time.
DROP_SHARE = 0.4
GPU_SHARE = 1 / 8  # of a GPU's memory that decoding may take; of the whole, since what is free may change


class Decoded(NamedTuple):
    """What every search returns.

    Attributes:
        symbols: (n_rows, n_steps), the symbols before EOS, filled up with `pad`.
        scores: (n_rows), the log-probabilities; in beam search they are divided by length^length_penalty.
        weights: (n_rows, n_steps, ..., n_source), the attention weights of the steps that chose the symbols and EOS,
            then 0; None unless `return_weights` is set and the model has attention.
    """

    symbols: torch.Tensor
    scores: torch.Tensor
    weights: torch.Tensor | None

    def looked(self):
        """For each step of the first row the place with the largest weight, and that weight; None without weights."""
        if self.weights is None:
            return None
        weights, places = self.weights[0].max(dim=-1)
        return list(zip(places.tolist(), weights.tolist()))


def search(step, state, memory, beam_size=1, length_penalty=0.0, n_samples=None, seed=0, **options):
    """Minimum-risk decoding if `n_samples` is given, else beam search, or greedy search if `beam_size` is 1."""
    if n_samples is None:
        if beam_size == 1:
            return greedy(step, state, memory, **options)
        return beam(step, state, memory, beam_size, length_penalty, **options)
    samples = sample(step, state, memory, n_samples, seed, **options)
    candidates = [[tuple(i for i in hyp if i != options["pad"]) for hyp in row] for row in samples.symbols.tolist()]
    chosen = torch.tensor([minimum_risk(row) for row in candidates]).to(samples.symbols.device)
    return select(samples, (torch.arange(len(chosen), device=chosen.device), chosen))


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

    The score of a hypothesis of n symbols, EOS included, is log p / n^length_penalty: with 0 it is the log-probability
    and with 1 the mean over the symbols. A hypothesis that has ended keeps its place as long as its score is among the
    best. If it loses its place, it can still be the answer. A row ends when no hypothesis that goes on can overtake the
    best ended one. A `beam_size` of 1 is greedy search. `options`: see `Hypotheses`.
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
    """Draw `n_samples` hypotheses of each row from the model, as `Decoded` with a dimension n_samples after the first.

    The samples of a row are independent of each other. All rows use the same random numbers, so that the samples of a
    row depend on the seed and not on the rows beside it. These numbers are drawn on the CPU, so that every device gets
    the same ones. The probabilities of the symbols that are not forbidden are scaled to a sum of 1; the scores are the
    model's own. `options`: see `Hypotheses`.
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


def minimum_risk(candidates):
    """The index of the candidate with the minimum Bayes risk, the expected error (Kumar and Byrne, 2004, HLT-NAACL).

        risk(y) = 1/n sum_j distance(y, y_j) / length(y_j)

    The candidates y_1 .. y_n are strings or tuples of symbols that were sampled from the model. Each one stands for the
    unknown reference in turn, so that the risk estimates the error rate. Ties: keep the first.
    """
    counts = Counter(candidates)
    hyps = list(counts)
    weights = [counts[ref] / max(len(ref), 1) for ref in hyps]
    risks = process.cdist(hyps, hyps, scorer=Levenshtein.distance) @ np.array(weights)  # times n
    return candidates.index(hyps[int(risks.argmin())])


class Hypotheses:
    """The hypotheses of a batch of rows: what greedy search, beam search and sampling have in common.

    Every hypothesis of a row has a place. Each step stores the symbols that it has chosen and, if hypotheses change
    their places, the place that each one comes from. `read` follows these back-pointers from the end to the start.

    Args:
        step, state, memory: the model, as the module's docstring describes it.
        sos, eos, pad: indices of the special symbols.
        max_steps: (n_rows), on the model's device. A hypothesis that has not ended after so many symbols is cut there.
        forbidden: indices of the symbols that are never chosen, usually PAD, SOS and UNK.
        return_weights: keep the attention weights.
        n_places: number of hypotheses of each row at the start, and of its answers at the end.

    Attributes:
        rows: (n_going_on), the indices of the rows that are still computed.
        tokens, log_p, lengths, ended: (n_going_on, n_places), for each hypothesis of these rows its last symbol, its
            log-probability, its number of symbols, EOS included, and whether it has ended or was cut.
        scores, places, last_steps: (n_rows, n_answers), for each answer its score, its place and its last step.
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
        """Yield the log-probabilities of the next symbol (n_going_on, n_places, vocab_size) until every row has ended.

        The loop over `steps` calls `extend` once in each step. An ended hypothesis goes on with `pad`, which then has
        the probability 1.
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
        """Create the tensors whose size and type depend on the log-probabilities of the first step."""
        vocab = torch.arange(log_probs.shape[1], device=log_probs.device)
        self.bias = torch.zeros_like(log_probs[0])
        for symbol in self.forbidden:
            self.bias[symbol] = float("-inf")
        self.only_pad = torch.zeros_like(self.bias).masked_fill(vocab != self.pad, float("-inf"))
        self.scores = torch.full_like(
            self.log_p, float("-inf"), dtype=torch.promote_types(log_probs.dtype, torch.float32)
        )

    def extend(self, tokens, log_p, parents=None):
        """Replace the hypotheses by longer ones.

        Args:
            tokens, log_p: (n_going_on, n_places), their new symbols and their log-probabilities.
            parents: (n_going_on, n_places), the place of the hypothesis that each one continues; by default its own.
        """
        if self.alpha is not None:
            self.alpha = only_where(~self.ended, self.alpha.unflatten(0, self.ended.shape))
        ended, lengths = self.ended, self.lengths + ~self.ended
        if parents is not None:
            first = torch.arange(len(self.rows), device=parents.device).unsqueeze(1) * ended.shape[1]
            self.state = select(self.state, (first + parents).flatten())
            ended, lengths = ended.gather(1, parents), lengths.gather(1, parents)
        ended = ended | (tokens == self.eos)
        self.tokens, self.log_p, self.lengths = tokens.masked_fill(ended, self.pad), log_p, lengths
        self.history.append((self.rows, self.tokens, parents, self.alpha))
        self.ended = ended | (self.max_steps[self.rows] <= len(self.history)).unsqueeze(1)

    def drop_ended_rows(self):
        """Drop the rows whose hypotheses have all ended, if there are enough of them (`DROP_SHARE`)."""
        going_on = (~self.ended.all(dim=1)).nonzero().squeeze(1)  # indices, which select faster than a mask
        n_ended = len(self.rows) - len(going_on)
        if n_ended and n_ended >= DROP_SHARE * len(self.rows):
            places = torch.arange(self.tokens.shape[1], device=going_on.device)
            self.state = select(self.state, (going_on.unsqueeze(1) * len(places) + places).flatten())
            self.memory = select(self.memory, going_on)
            parts = self.rows, self.tokens, self.log_p, self.lengths, self.ended
            self.rows, self.tokens, self.log_p, self.lengths, self.ended = select(parts, going_on)

    def read(self):
        """The answers, as `Decoded` with a dimension n_answers after the first."""
        places, alpha = self.places, self.alpha
        symbols = places.new_full((len(self.history), *places.shape), self.pad)
        weights = None if alpha is None else alpha.new_zeros(*symbols.shape, *alpha.shape[2:])
        for t in reversed(range(len(self.history))):
            rows, tokens, parents, alpha = self.history[t]
            place, before_end = places[rows], t <= self.last_steps[rows]
            symbols[t, rows] = tokens.gather(1, place).masked_fill(~before_end, self.pad)
            if parents is not None:
                places[rows] = place = torch.where(before_end, parents.gather(1, place), place)
            if alpha is not None:
                row = torch.arange(len(rows), device=rows.device).unsqueeze(1)
                weights[t, rows] = only_where(before_end, alpha[row, place])
        return Decoded(symbols.movedim(0, 2), self.scores, None if weights is None else weights.movedim(0, 2))


def select(structure, rows):
    """The given rows of every tensor in tuples, which may be nested; None, which stands for no tensor, stays."""
    if not isinstance(structure, tuple):
        return None if structure is None else structure[rows]
    parts = [select(part, rows) for part in structure]
    return type(structure)(*parts) if isinstance(structure, Decoded) else tuple(parts)


def only_where(is_kept, values):
    """`values`, and 0 where `is_kept`, which has their first dimensions, is False."""
    return values * is_kept.view(*is_kept.shape, *[1] * (values.dim() - is_kept.dim()))


def batches(lengths, batch_size, device, n_bytes, search):
    """Yield the inputs in batches of like length, each as a list of their indices; inputs of length 0 are left out.

    Args:
        lengths: of the inputs.
        batch_size: inputs of a batch; if `device` is a CUDA GPU, more if its memory allows.
        n_bytes: of memory that decoding takes for a place of one hypothesis.
        search: options of `search`, which say how many hypotheses an input has.
    """
    if device.type == "cuda":
        n_hyps = search.get("n_samples") or search.get("beam_size", 1)
        memory = GPU_SHARE * torch.cuda.get_device_properties(device).total_memory
        batch_size = max(batch_size, int(memory / (n_bytes * n_hyps * max([1, *lengths]))))
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i])
    for start in progress(range(0, len(order), batch_size), "decoding"):
        yield order[start : start + batch_size]


def searches_to_test(args):
    """The searches that the options ask for beside the greedy one: a dict from name to the settings to choose from."""
    found = {}
    if args.beam_size > 1:
        found["beam"] = [{"beam_size": args.beam_size, "length_penalty": alpha} for alpha in args.length_penalty]
    if args.n_samples is not None:
        found["mbr"] = [{"n_samples": args.n_samples, "seed": args.seed}]
    return found


def search_to_use(args):
    """The arguments of `search` that the options ask for where one search is wanted."""
    search = {"beam_size": args.beam_size, "length_penalty": args.length_penalty[0]}
    return search | {"n_samples": args.n_samples, "seed": args.seed[0]}


def test_searches(task, model, run):
    """Test the searches that the options ask for with the weights of this run; validation chooses their settings.

    Returns the texts of all searches for the test set, a dict; empty if none is asked for, or the test is left out.
    """
    if not searches_to_test(task.args) or run.result["test"] is None:
        return {}
    greedy, seconds = timed(task.decode, model, "test")
    test, texts = dict(run.result["test"]), {"greedy": greedy}
    test["greedy"] = test["greedy"] | {"seconds": seconds}
    for name, settings in searches_to_test(task.args).items():
        tried = try_on_validation(task, model, settings)
        setting = {option: tried[0][option] for option in settings[0]}
        hyps, seconds = timed(task.decode, model, "test", **setting)
        differences = task.differences_from(hyps, texts)
        test[name] = task.test_scores(hyps) | tried[0] | differences | {"tried": tried, "seconds": seconds}
        texts[name] = hyps
    examples = [
        example | {name: hyps[example["row"]] for name, hyps in texts.items() if name != "greedy"}
        for example in run.result.get("examples", [])
    ]
    run.add(test=test, examples=examples)
    return texts


def timed(function, *args, **kwargs):
    """What a function returns, and its seconds."""
    start = time.perf_counter()
    return function(*args, **kwargs), time.perf_counter() - start


def try_on_validation(task, model, settings):
    """Some settings of a search, each with its score on validation, the best first; the score is None without any."""
    tried = []
    for setting in settings:
        score = task.score_of(task.decode(model, "val", **setting), "val")
        tried.append(setting | {task.score: score})
        if score is not None:
            shown = ", ".join(f"{option} {value:g}" for option, value in setting.items())
            say(f"{shown}: validation {task.score_name} {format_interval(score)}")
    if tried[0][task.score] is not None:
        tried.sort(key=lambda entry: entry[task.score]["value"], reverse=task.maximize)
    return tried
