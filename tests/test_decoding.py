"""The searches against brute force, on models that are tables of probabilities."""

import argparse
import itertools
import math
from collections import Counter

import pytest
import torch
from scipy import special

import decoding

PAD, SOS, EOS, UNK, A, B = range(6)
N_SYMBOLS = 6
SYMBOLS = dict(sos=SOS, eos=EOS, pad=PAD)
FORBIDDEN = (PAD, SOS, UNK)


def look_up(tokens, state, memory):
    """A model without a state, whose memory is a table p(next | last) for each row (n_rows, N_SYMBOLS, N_SYMBOLS)."""
    (tables,) = memory
    tokens = tokens.view(len(tables), -1)
    return tables[torch.arange(len(tables)).unsqueeze(1), tokens].flatten(0, 1).log(), state, None


def random_tables(n_rows, seed):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(n_rows, N_SYMBOLS, N_SYMBOLS, generator=generator, dtype=torch.float64)).softmax(dim=-1)


def table(rows):
    """The table with the probabilities `rows[last][next]` and an EOS after every other symbol."""
    p = torch.zeros(N_SYMBOLS, N_SYMBOLS)
    p[:, EOS] = 1.0
    for last, row in rows.items():
        p[last] = 0.0
        for symbol, probability in row.items():
            p[last, symbol] = probability
    return p


def strip(symbols):
    """Without the padding at the end."""
    while symbols and symbols[-1] == PAD:
        symbols = symbols[:-1]
    return symbols


def log_p_of(symbols, p, max_steps):
    """log p of the symbols and of the EOS after them, unless they were cut."""
    ends = [*symbols, EOS] if len(symbols) < max_steps else symbols
    return sum(math.log(p[last][symbol]) for last, symbol in itertools.pairwise([SOS, *ends]))


def beam_as_loops(p, max_steps, beam_size, length_penalty, forbidden):
    """Beam search of one row, one hypothesis at a time: the best symbols and their score."""

    def score(hypothesis):
        log_p, symbols, _ = hypothesis
        return log_p / len(symbols) ** length_penalty

    places, best = [(0.0, (), False)], None
    for t in range(max_steps):
        candidates = [place for place in places if place[2]]
        for log_p, symbols, ended in places:
            if not ended:
                for symbol in set(range(N_SYMBOLS)) - set(forbidden):
                    log_p_next = log_p + math.log(p[(SOS, *symbols)[-1]][symbol])
                    candidates.append((log_p_next, (*symbols, symbol), symbol == EOS or t + 1 == max_steps))
        places = sorted(candidates, key=score, reverse=True)[:beam_size]
        best = max(filter(None, [best, *(place for place in places if place[2])]), key=score, default=None)
        if all(ended or best and score(best) >= log_p / max_steps**length_penalty for log_p, _, ended in places):
            break
    return [symbol for symbol in best[1] if symbol != EOS], score(best)


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("beam_size", [1, 2, 3])
@pytest.mark.parametrize("forbidden", [(PAD,), FORBIDDEN])
def test_the_beam_is_the_beam_written_as_loops(beam_size, length_penalty, forbidden):
    n_rows = 40
    tables, max_steps = random_tables(n_rows, seed=beam_size), torch.arange(n_rows) % 6 + 1
    options = dict(max_steps=max_steps, forbidden=forbidden, **SYMBOLS)
    found = decoding.beam(look_up, (), (tables,), beam_size, length_penalty, **options)
    for i in range(n_rows):
        symbols, score = beam_as_loops(tables[i].tolist(), int(max_steps[i]), beam_size, length_penalty, forbidden)
        assert strip(found.symbols[i].tolist()) == symbols
        assert found.scores[i].item() == pytest.approx(score)


def test_a_wider_beam_finds_what_greedy_search_misses():
    rows = {
        SOS: {A: 0.6, B: 0.4},
        A: {A: 0.35, B: 0.35, EOS: 0.3},
        B: {EOS: 0.9, A: 0.1},
    }  # B is second best, and ends well
    memory, options = (table(rows).repeat(2, 1, 1),), dict(max_steps=torch.tensor([2, 2]), **SYMBOLS)
    assert decoding.greedy(look_up, (), memory, **options).symbols[:, 0].tolist() == [A, A]
    found = decoding.beam(look_up, (), memory, beam_size=2, length_penalty=0.0, **options)
    assert [strip(row) for row in found.symbols.tolist()] == [[B], [B]]
    torch.testing.assert_close(found.scores, torch.tensor([0.36, 0.36]).log())


def test_the_best_ended_hypothesis_is_returned_although_it_lost_its_place():
    """The empty answer has 0.3. A A and A B push it out of the beam with 0.35 each, but end with 0.21 at most."""
    rows = {SOS: {EOS: 0.3, A: 0.7}, A: {A: 0.5, B: 0.5}, B: {EOS: 0.6, A: 0.2, B: 0.2}}
    n_places = []

    def step(tokens, state, memory):
        n_places.append(len(tokens))
        return look_up(tokens, state, memory)

    options = dict(max_steps=torch.tensor([6]), forbidden=FORBIDDEN, **SYMBOLS)
    found = decoding.beam(step, (), (table(rows).unsqueeze(0),), beam_size=2, length_penalty=0.0, **options)
    assert strip(found.symbols[0].tolist()) == []
    torch.testing.assert_close(found.scores, torch.tensor([0.3]).log())
    assert n_places == [1, 2, 2]  # after three steps nothing that goes on can overtake it


def test_forbidden_symbols_are_never_chosen():
    p = torch.full((N_SYMBOLS, N_SYMBOLS), 0.01)
    p[:, list(FORBIDDEN)] = 0.3  # the most probable ones
    memory, options = (p.unsqueeze(0),), dict(max_steps=torch.tensor([5]), **SYMBOLS)
    for forbidden, allowed in (((), set(range(N_SYMBOLS))), (FORBIDDEN, {A, B})):
        seen = set()
        for found in (
            decoding.greedy(look_up, (), memory, forbidden=forbidden, **options),
            decoding.beam(look_up, (), memory, 3, 0.0, forbidden=forbidden, **options),
            decoding.sample(look_up, (), memory, 100, seed=0, forbidden=forbidden, **options),
        ):
            hyps = found.symbols.view(-1, found.symbols.shape[-1]).tolist()
            seen |= {symbol for hyp in hyps for symbol in strip(hyp)}
        assert seen <= allowed
        assert (UNK in seen) == (UNK in allowed)


def history_logits(history):
    """Logits (n_hyps, N_SYMBOLS) that depend on every symbol of the histories (n_hyps, n) and on their order."""
    position = torch.arange(1, history.shape[1] + 1, dtype=torch.float64)
    return 3 * torch.sin((history * position**1.5).sum(dim=1, keepdim=True) + torch.arange(N_SYMBOLS) ** 2)


def step_with_every_kind_of_state(tokens, state, memory):
    """A model whose state grows, as a Transformer's cache does, is nested, and holds an integer tensor and a mask."""
    parts, _ = state
    n_steps = parts[0].shape[2]
    cache = torch.cat([parts[0], tokens.view(-1, 1, 1)], dim=2)  # (n_hyps, 1, n_steps)
    assert (parts[1] == n_steps).all()
    seen = parts[2] | torch.nn.functional.one_hot(tokens, N_SYMBOLS).bool()
    assert torch.equal(seen, torch.nn.functional.one_hot(cache[:, 0], N_SYMBOLS).amax(dim=1).bool())
    state = (cache, parts[1] + 1, seen), ()
    return history_logits(cache[:, 0]).log_softmax(dim=-1), state, None


def empty_history(n_rows):
    cache, seen = torch.zeros(n_rows, 1, 0, dtype=torch.int64), torch.zeros(n_rows, N_SYMBOLS, dtype=torch.bool)
    return (cache, torch.zeros(n_rows, dtype=torch.int64), seen), ()


def test_a_state_of_any_type_follows_its_hypothesis():
    max_steps, allowed = 4, (EOS, A, B)
    ends = [(*symbols, EOS) for n in range(max_steps) for symbols in itertools.product((A, B), repeat=n)]
    ends += itertools.product((A, B), repeat=max_steps)
    scores = {}
    for hyp in ends:
        scores[hyp] = sum(
            history_logits(torch.tensor([[SOS, *hyp[:t]]])).log_softmax(dim=-1)[0, hyp[t]].item()
            for t in range(len(hyp))
        )
    best = max(scores, key=scores.get)
    options = dict(max_steps=torch.tensor([max_steps] * 2), forbidden=set(range(N_SYMBOLS)) - set(allowed), **SYMBOLS)
    found = decoding.beam(step_with_every_kind_of_state, empty_history(2), (), len(ends), 0.0, **options)
    assert [strip(row) for row in found.symbols.tolist()] == [[symbol for symbol in best if symbol != EOS]] * 2
    assert found.scores.tolist() == pytest.approx([scores[best]] * 2)
    samples = decoding.sample(step_with_every_kind_of_state, empty_history(2), (), 50, seed=0, **options)
    for hyp, score in zip(samples.symbols[0].tolist(), samples.scores[0].tolist(), strict=True):
        assert score == pytest.approx(scores[(*strip(hyp), EOS)[:max_steps]])


@pytest.mark.parametrize("search", [{}, {"beam_size": 3}, {"n_samples": 4}])
def test_a_row_alone_has_the_same_answer_as_among_rows_that_end_before_it(search):
    max_steps = [2, 7, 1, 5, 7, 3]

    def step(tokens, history, memory):
        history = torch.cat([history, tokens.unsqueeze(1)], dim=1)
        return history_logits(history).log_softmax(dim=-1), history, None

    def decode(rows):
        steps = torch.tensor([max_steps[row] for row in rows])
        history = torch.tensor(list(rows)).unsqueeze(1)  # the rows differ in what they begin with
        return decoding.search(step, history, (), max_steps=steps, forbidden=(*FORBIDDEN, EOS), **search, **SYMBOLS)

    together = decode(range(len(max_steps)))
    for i in range(len(max_steps)):
        alone = decode([i])
        assert strip(together.symbols[i].tolist()) == strip(alone.symbols[0].tolist())
        assert together.scores[i].item() == pytest.approx(alone.scores[0].item())


def test_selecting_rows_of_a_structure():
    h, (inner, *others) = decoding.select((torch.arange(3), ((torch.eye(3),), (), None)), torch.tensor([2, 0]))
    assert h.tolist() == [2, 0] and others == [(), None]
    assert torch.equal(inner[0], torch.eye(3)[[2, 0]])
    found = decoding.Decoded(torch.arange(3), torch.arange(3.0), None)
    assert decoding.select(found, slice(1, 2)) == decoding.Decoded(torch.tensor([1]), torch.tensor([1.0]), None)


@pytest.mark.parametrize("search", [{}, {"beam_size": 3}, {"n_samples": 4}])
def test_the_memory_is_copied_only_when_rows_are_dropped(search):
    """Ten rows end after 1, 2, .. 10 symbols. The first copy comes after the fourth step, when 4 of 10 have ended."""
    tables = torch.stack([table({SOS: {A: 1.0}, A: {A: 0.9, B: 0.1}, B: {A: 1.0}})] * 10)
    seen = []

    def step(tokens, state, memory):
        (tables,) = memory
        seen.append((tables, len(tokens) // len(tables)))  # a tensor that is kept shares its address with no later one
        return look_up(tokens, state, memory)

    max_steps = torch.arange(1, 11)
    decoding.search(step, (), (tables,), max_steps=max_steps, forbidden=FORBIDDEN, **search, **SYMBOLS)
    memories, n_places = zip(*seen)
    pointers = [memory.data_ptr() for memory in memories]
    assert set(pointers[:4]) == {tables.data_ptr()}
    assert [len(memory) for memory in memories] == [10] * 4 + [6] * 3 + [3] * 2 + [1]
    assert len(set(pointers)) == 4 and len(set(pointers[4:7])) == 1
    assert max(n_places) == sum(search.values()) or search == {}


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float64, torch.float64), (torch.bfloat16, torch.float32)])
@pytest.mark.parametrize("search", [{}, {"beam_size": 2}, {"n_samples": 4}])
def test_scores_have_the_models_precision_or_single_precision(search, dtype, expected):
    def step(tokens, state, memory):
        log_probs, state, alpha = look_up(tokens, state, memory)
        return log_probs.to(dtype), state, alpha

    options = dict(max_steps=torch.tensor([4, 2]), forbidden=FORBIDDEN, **SYMBOLS)
    found = decoding.search(step, (), (random_tables(2, seed=0),), **search, **options)
    assert found.scores.dtype == expected and found.scores.isfinite().all()


def test_samples_follow_the_models_distribution():
    """Pearson's chi-square test over all answers of three steps; forbidden symbols leave their share to the others."""
    n_samples, max_steps = 20_000, 3
    p = random_tables(1, seed=3)[0]
    options = dict(max_steps=torch.tensor([max_steps]), forbidden=FORBIDDEN, **SYMBOLS)
    samples = decoding.sample(look_up, (), (p.unsqueeze(0),), n_samples, seed=0, **options)
    counts = Counter(tuple(strip(hyp)) for hyp in samples.symbols[0].tolist())
    allowed = p.clone()
    allowed[:, list(FORBIDDEN)] = 0.0
    allowed /= allowed.sum(dim=1, keepdim=True)
    answers = [hyp for n in range(max_steps + 1) for hyp in itertools.product((A, B), repeat=n)]
    expected = {hyp: n_samples * math.exp(log_p_of(hyp, allowed.tolist(), max_steps)) for hyp in answers}
    assert sum(expected.values()) == pytest.approx(n_samples) and sum(counts.values()) == n_samples
    assert len([n for n in expected.values() if n > 100]) >= 5  # the distribution is not concentrated on one answer
    chi_square = sum((counts[hyp] - n) ** 2 / n for hyp, n in expected.items())
    assert special.chdtrc(len(answers) - 1, chi_square) > 0.01
    for hyp, score in zip(samples.symbols[0, :50].tolist(), samples.scores[0, :50].tolist(), strict=True):
        assert score == pytest.approx(log_p_of(strip(hyp), p.tolist(), max_steps))


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])  # the extremes of torch.rand
def test_a_symbol_of_probability_0_is_not_sampled(u, monkeypatch):
    p = torch.zeros(N_SYMBOLS, N_SYMBOLS)
    p[:, [UNK, A]] = 0.3  # neither the first nor the last symbol
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.full(size, u))
    samples = decoding.sample(look_up, (), (p.unsqueeze(0),), 3, seed=0, max_steps=torch.tensor([4]), **SYMBOLS)
    assert (samples.symbols == (UNK if u == 0 else A)).all()


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, symbol in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (symbol != other))
    return row[-1]


def test_minimum_risk_is_the_least_mean_error_rate_written_as_loops():
    generator = torch.Generator().manual_seed(0)
    n_not_most_frequent = 0
    for _ in range(50):
        lengths = torch.randint(0, 5, (7,), generator=generator).tolist()
        candidates = ["".join("ab"[i] for i in torch.randint(2, (n,), generator=generator)) for n in lengths]
        risks = [
            sum(edit_distance(hyp, ref) / max(len(ref), 1) for ref in candidates) / len(candidates)
            for hyp in candidates
        ]
        chosen = decoding.minimum_risk(candidates)
        assert risks[chosen] == pytest.approx(min(risks))
        assert chosen == candidates.index(candidates[chosen])
        n_not_most_frequent += candidates[chosen] != Counter(candidates).most_common(1)[0][0]
    assert n_not_most_frequent > 5  # the cases do not all have the trivial answer


def test_duplicates_count():
    assert decoding.minimum_risk(["aaaa", "bbbb", "bbbb"]) == 1
    assert decoding.minimum_risk(["bbbb", "aaaa", "aaaa", "aaab"]) == 1
    assert decoding.minimum_risk([(3, 300), (3, 4), (3, 4)]) == 1
    assert decoding.minimum_risk(["aaaaa", "bbbb", "bbbbbb"]) == 1


def test_minimum_risk_decoding_chooses_among_the_samples():
    n_rows, n_samples = 5, 16
    options = dict(max_steps=torch.full((n_rows,), 8), forbidden=FORBIDDEN, **SYMBOLS)
    model = look_up, (), (random_tables(n_rows, seed=1),)
    samples = decoding.sample(*model, n_samples, seed=4, **options)
    found = decoding.search(*model, n_samples=n_samples, seed=4, **options)
    for i in range(n_rows):
        chosen = decoding.minimum_risk([tuple(strip(hyp)) for hyp in samples.symbols[i].tolist()])
        assert torch.equal(found.symbols[i], samples.symbols[i, chosen])
        assert found.scores[i] == samples.scores[i, chosen]
    assert not torch.equal(samples.symbols, decoding.sample(*model, n_samples, seed=5, **options).symbols)


def test_where_a_decoder_looked_most():
    weights = torch.tensor([[[0.2, 0.5, 0.3], [0.75, 0.25, 0.0]], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    found = decoding.Decoded(torch.tensor([[A, B], [B, A]]), torch.zeros(2), weights)
    assert found.looked() == [(1, 0.5), (0, 0.75)]
    assert found._replace(weights=None).looked() is None


def test_batches_of_a_gpu_grow_with_its_memory_and_take_an_empty_input(monkeypatch):
    gpu, n_bytes = torch.device("cuda"), 100
    memory = argparse.Namespace(total_memory=8 * 5 * n_bytes)  # an eighth has room for 5 symbols
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    assert list(decoding.batches([1] * 12, 2, gpu, n_bytes, {})) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    assert list(decoding.batches([0], 2, gpu, n_bytes, {})) == []
