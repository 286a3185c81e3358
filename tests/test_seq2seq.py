"""The translation networks of Question 3 against their equations, and how they are decoded."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import decoding
import models
from data.text import EOS_IDX, PAD_IDX, SOS_IDX, pad

SRC_VOCAB, TGT_VOCAB, HIDDEN = 9, 7, 8
DROPOUT = 0.3


def make_model(use_attn=True, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    encoder = models.Encoder(SRC_VOCAB, HIDDEN, PAD_IDX, DROPOUT)
    attn = models.Attention(HIDDEN) if use_attn else None
    decoder = models.Decoder(HIDDEN, TGT_VOCAB, attn, PAD_IDX, DROPOUT)
    return models.Seq2Seq(encoder, decoder).to(dtype).eval()


def make_batch(lengths=(3, 5, 1), tgt_len=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    src = pad([torch.randint(4, SRC_VOCAB, (n,), generator=generator).tolist() for n in lengths])
    tgt = torch.randint(3, TGT_VOCAB, (len(lengths), tgt_len), generator=generator)
    return src, torch.tensor(lengths), tgt


def test_attention_matches_the_equations_written_as_loops():
    torch.manual_seed(0)
    attn = models.Attention(HIDDEN)
    query, keys, lengths = torch.randn(2, 3, HIDDEN), torch.randn(2, 6, HIDDEN), torch.tensor([6, 4])
    out, alpha = attn(query, keys, lengths), attn.alpha
    W_q, W_o, b_o = attn.linear_in.weight, attn.linear_out.weight, attn.linear_out.bias
    for b, t in itertools.product(range(2), range(3)):
        q, h = query[b, t], keys[b, : lengths[b]]
        z = W_q @ q
        s = torch.stack([z @ h_i for h_i in h])
        p = s.exp() / s.exp().sum()
        torch.testing.assert_close(alpha[b, t, : lengths[b]], p)
        c = sum(p_i * h_i for p_i, h_i in zip(p, h, strict=True))
        torch.testing.assert_close(out[b, t], torch.tanh(W_o @ torch.cat([q, c]) + b_o))


def test_attention_weights_are_a_distribution_over_the_real_symbols():
    torch.manual_seed(0)
    attn = models.Attention(HIDDEN)
    query, keys, lengths = torch.randn(2, 3, HIDDEN), torch.randn(2, 5, HIDDEN), torch.tensor([2, 5])
    attn(query, keys, lengths)
    alpha = attn.alpha
    torch.testing.assert_close(alpha.sum(dim=-1), torch.ones(2, 3))
    assert (alpha[0, :, 2:] == 0).all() and (alpha[0, :, :2] > 0).all() and (alpha[1] > 0).all()


def test_the_encoder_runs_both_directions_over_the_real_symbols_only():
    model = make_model()
    src, lengths, _ = make_batch()
    outputs, (h, c) = model.encoder(src, lengths)
    for i, n in enumerate(lengths.tolist()):
        alone, (h_alone, c_alone) = model.encoder(src[i : i + 1, :n], torch.tensor([n]))
        torch.testing.assert_close(outputs[i : i + 1, :n], alone)
        torch.testing.assert_close(h[:, i : i + 1], h_alone)
        torch.testing.assert_close(c[:, i : i + 1], c_alone)
        assert (outputs[i, n:] == 0).all()


def test_the_directions_are_joined_sentence_by_sentence():
    state = torch.arange(12.0).reshape(2, 3, 2)  # (directions, batch_size, hidden_size // 2)
    h, c = models.reshape_state((state, state + 12))
    assert h.tolist() == [[[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]]
    assert torch.equal(c, h + 12)
    assert models.reshape_state((h, c))[0] is h  # already joined


@pytest.mark.parametrize("use_attn", [False, True])
def test_the_decoder_takes_the_encoders_state_or_the_joined_one(use_attn):
    model = make_model(use_attn)
    src, lengths, tgt = make_batch()
    enc_output, final_hidden = model.encoder(src, lengths)
    expected = model.decoder(tgt, final_hidden, enc_output, lengths)
    torch.testing.assert_close(model.decoder(tgt, models.reshape_state(final_hidden), enc_output, lengths), expected)
    logits, _ = model(src, lengths, tgt)
    other = tuple(torch.randn(1, 3, HIDDEN) for _ in range(2))
    from_other, _ = model(src, lengths, tgt, other)
    torch.testing.assert_close(from_other, model.generator(model.decoder(tgt, other, enc_output, lengths)[0]))
    assert not torch.allclose(from_other, logits)


def test_the_sequence_mask_is_true_at_the_real_symbols():
    lengths = torch.tensor([2, 3, 1])
    expected = torch.tensor([[True, True, False], [True, True, True], [True, False, False]])
    assert torch.equal(models.sequence_mask(lengths), expected)
    assert torch.equal(models.sequence_mask(lengths, 5), F.pad(expected, (0, 2), value=False))


@pytest.mark.parametrize("use_attn", [False, True])
def test_padding_and_the_rest_of_the_batch_change_nothing(use_attn):
    model = make_model(use_attn)
    src, lengths, tgt = make_batch()
    logits, (h, c) = model(src, lengths, tgt)
    wider, (h_wider, c_wider) = model(F.pad(src, (0, 3), value=PAD_IDX), lengths, tgt)
    torch.testing.assert_close(wider, logits)
    torch.testing.assert_close((h_wider, c_wider), (h, c))
    for i, n in enumerate(lengths.tolist()):
        alone, _ = model(src[i : i + 1, :n], lengths[i : i + 1], tgt[i : i + 1])
        torch.testing.assert_close(logits[i : i + 1], alone)


@pytest.mark.parametrize("use_attn", [False, True])
def test_one_call_of_the_decoder_is_the_loop_over_its_steps(use_attn):
    model = make_model(use_attn)
    src, lengths, tgt = make_batch()
    logits, last = model(src, lengths, tgt)
    enc_output, dec_state = model.encoder(src, lengths)
    by_hand, (state, memory) = [], model.start(src, lengths)
    for t in range(tgt.shape[1]):
        output, dec_state = model.decoder(tgt[:, t : t + 1], dec_state, enc_output, lengths)
        torch.testing.assert_close(model.generator(output)[:, 0], logits[:, t])
        log_probs, state, _ = model.step(tgt[:, t], state, memory)
        by_hand.append(log_probs)
    torch.testing.assert_close(torch.stack(by_hand, dim=1), logits.log_softmax(dim=-1))
    torch.testing.assert_close(dec_state, last)


PLANTS = {  # a change of a class, as its results become
    "decoder": (models.Decoder, lambda found: (found[0].flip(-1), found[1])),
    "attention": (models.Attention, lambda attn_out: attn_out**2),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_change_of_what_is_trained_changes_what_decodes(plant, beam_size, monkeypatch):
    kind, change = plant
    model = sharp_model(True, seed=0)
    src, lengths, _ = make_batch((5, 2, 4, 5))
    options = dict(max_steps=cut_after(6, lengths), beam_size=beam_size, forbidden=(PAD_IDX,), **SYMBOLS)
    before = decoding.search(model.step, *model.start(src, lengths), **options)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *args: change(forward(self, *args)))
    after = decoding.search(model.step, *model.start(src, lengths), **options)
    assert not torch.allclose(before.scores, after.scores)
    for i, n in enumerate(lengths.tolist()):
        symbols = strip(after.symbols[i].tolist())
        tgt = torch.tensor([[SOS_IDX, *symbols, EOS_IDX][:7]])  # EOS only where the sentence was not cut
        logits, _ = model(src[i : i + 1, :n], lengths[i : i + 1], tgt[:, :-1])
        log_p = -F.cross_entropy(logits[0], tgt[0, 1:], reduction="sum")
        torch.testing.assert_close(after.scores[i], log_p)


@pytest.mark.parametrize("use_attn", [False, True])
def test_sentences_of_one_length_are_decoded_with_their_lengths_or_without(use_attn):
    model = sharp_model(use_attn, seed=1)
    src, lengths, _ = make_batch((4, 4, 4))
    options = dict(max_steps=cut_after(6, lengths), return_weights=True, beam_size=3, **SYMBOLS)
    found, without = (decoding.search(model.step, *model.start(src, part), **options) for part in (lengths, None))
    torch.testing.assert_close(without, found)


@pytest.mark.parametrize("use_attn", [False, True])
def test_the_decoder_does_not_look_ahead(use_attn):
    model = make_model(use_attn)
    src, lengths, tgt = make_batch()
    before, _ = model(src, lengths, tgt)
    for t in range(tgt.shape[1]):
        changed = tgt.clone()
        changed[:, t] = 3 + (changed[:, t] - 2) % (TGT_VOCAB - 3)
        assert (changed[:, t] != tgt[:, t]).all()
        after, _ = model(src, lengths, changed)
        torch.testing.assert_close(after[:, :t], before[:, :t])
        assert not torch.allclose(after[:, t], before[:, t])


def test_dropout_stands_at_the_embeddings_and_the_outputs_and_nowhere_else():
    model = make_model()
    model.train()
    dropouts = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert dropouts == {"encoder.dropout": DROPOUT, "decoder.dropout": DROPOUT}
    assert model.encoder.lstm.dropout == model.decoder.lstm.dropout == 0
    calls = []
    for part in (model.encoder, model.decoder):
        part.dropout.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0]))
    src, lengths, tgt = make_batch()
    model(src, lengths, tgt)
    enc_emb, enc_out, dec_emb, a_o = calls
    torch.testing.assert_close(enc_emb, model.encoder.embedding(src))
    torch.testing.assert_close(dec_emb, model.decoder.embedding(tgt))
    assert enc_out.shape == (3, 5, HIDDEN) and a_o.shape == (3, 6, HIDDEN)


def test_the_output_layer_is_the_decoders_embedding():
    model = make_model()
    assert model.generator.weight is model.decoder.embedding.weight
    n_params = models.get_number_trainable_params(model)
    lstm = 2 * 4 * (HIDDEN // 2) * (HIDDEN + HIDDEN // 2 + 2) + 4 * HIDDEN * (2 * HIDDEN + 2)
    attention = HIDDEN * HIDDEN + 2 * HIDDEN * HIDDEN + HIDDEN
    assert n_params == SRC_VOCAB * HIDDEN + TGT_VOCAB * (HIDDEN + 1) + lstm + attention


@pytest.mark.parametrize("use_attn", [False, True])
@pytest.mark.parametrize("lengths", [(3, 5, 1), (4, 4, 4)])  # packed, and the dense path
def test_gradients_against_finite_differences(use_attn, lengths):
    model = make_model(use_attn, dtype=torch.float64)
    src, lengths, tgt = make_batch(lengths)

    def loss():
        logits, _ = model(src, lengths, tgt[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tgt[:, 1:].flatten(), ignore_index=PAD_IDX)

    loss().backward()
    generator = torch.Generator().manual_seed(2)
    step = 1e-6
    for name, param in model.named_parameters():
        direction = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        if name.endswith("embedding.weight"):
            direction[PAD_IDX] = 0  # its row gets no gradient from the lookup, by padding_idx
        with torch.no_grad():
            param += step * direction
            above = loss()
            param -= 2 * step * direction
            below = loss()
            param += step * direction
        expected = (above - below) / (2 * step)
        torch.testing.assert_close((param.grad * direction).sum(), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("use_attn", [False, True])
def test_the_hypotheses_of_a_sentence_share_its_memory(use_attn):
    model = make_model(use_attn)
    src, lengths, _ = make_batch()
    state, memory = model.start(src, lengths)
    tokens = torch.tensor([[3, 4], [5, 6], [6, 3]])
    log_probs, _, alpha = model.step(tokens.flatten(), decoding.select(state, torch.tensor([0, 0, 1, 1, 2, 2])), memory)
    for place in range(2):
        alone, _, alpha_alone = model.step(tokens[:, place], state, memory)
        torch.testing.assert_close(log_probs[place::2], alone)
        if use_attn:
            torch.testing.assert_close(alpha[place::2], alpha_alone)


SYMBOLS = dict(sos=SOS_IDX, eos=EOS_IDX, pad=PAD_IDX)
SEARCHES = {
    "greedy": {},
    "beam": {"beam_size": 3, "length_penalty": 0.25},
    "minimum risk": {"n_samples": 5, "seed": 6},
}


def sharp_model(use_attn, seed):
    """A model whose distributions are far from flat, as after training."""
    model = make_model(use_attn, seed, torch.float64)
    with torch.no_grad():
        for param in model.parameters():
            param *= 3
    return model


@pytest.mark.parametrize("use_attn", [False, True])
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_decoding_in_a_batch_is_decoding_one_at_a_time(use_attn, search):
    for seed in range(20):
        model = sharp_model(use_attn, seed)
        src, lengths, _ = make_batch((5, 2, 4, 5), seed=seed)
        together = decode(model, src, lengths, **search)
        for i, n in enumerate(lengths.tolist()):
            assert [together[i]] == decode(model, src[i : i + 1, :n], lengths[i : i + 1], **search)
        assert together == decode(model, F.pad(src, (0, 2), value=PAD_IDX), lengths, **search)


def decode(model, src, lengths, **search):
    max_steps = 2 * lengths + 1  # a longer source may have a longer answer
    found = decoding.search(model.step, *model.start(src, lengths), max_steps=max_steps, **search, **SYMBOLS)
    return [strip(row) for row in found.symbols.tolist()]


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_the_weights_are_those_of_a_forward_pass_over_the_returned_symbols(search):
    n_ended = n_cut = 0
    for seed in range(5):
        model = sharp_model(True, seed)
        src, lengths, _ = make_batch((5, 2, 4, 5), seed=seed)
        options = dict(max_steps=cut_after(6, lengths), forbidden=(PAD_IDX, SOS_IDX), **SYMBOLS)
        found = decoding.search(model.step, *model.start(src, lengths), return_weights=True, **search, **options)
        for i, n in enumerate(lengths.tolist()):
            symbols = strip(found.symbols[i].tolist())
            enc_output, dec_state = model.encoder(src[i : i + 1, :n], lengths[i : i + 1])
            read = torch.tensor([[SOS_IDX, *symbols][:6]])  # what the decoder has read, with EOS still to come
            query, _ = model.decoder.lstm(model.decoder.embedding(read), models.reshape_state(dec_state))
            model.decoder.attn(query, enc_output, lengths[i : i + 1])
            torch.testing.assert_close(found.weights[i, : read.shape[1], :n], model.decoder.attn.alpha[0])
            assert (found.weights[i, read.shape[1] :] == 0).all() and (found.weights[i, :, n:] == 0).all()
            n_ended, n_cut = n_ended + (len(symbols) < 6), n_cut + (len(symbols) == 6)
        without = decoding.search(model.step, *model.start(src, lengths), **search, **options)
        assert without.weights is None and torch.equal(without.symbols, found.symbols)
    assert n_ended and n_cut


def cut_after(n_steps, lengths):
    return torch.full_like(lengths, n_steps)


def strip(symbols):
    """Without the padding at the end."""
    while symbols and symbols[-1] == PAD_IDX:
        symbols = symbols[:-1]
    return symbols


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0])
def test_a_beam_of_one_is_greedy_search(length_penalty):
    n_ended = 0
    for seed in range(20):
        model = sharp_model(seed % 2 == 0, seed)
        src, lengths, _ = make_batch((5, 2, 4, 5), seed=seed)
        state, memory = model.start(src, lengths)
        most = cut_after(12, lengths)
        greedy = decoding.greedy(model.step, state, memory, max_steps=most, **SYMBOLS).symbols
        beam = decoding.beam(
            model.step, state, memory, max_steps=most, beam_size=1, length_penalty=length_penalty, **SYMBOLS
        ).symbols
        assert [strip(row) for row in greedy.tolist()] == [strip(row) for row in beam.tolist()]
        n_ended += sum(len(strip(row)) < 12 for row in greedy.tolist())
    assert 0 < n_ended < 80  # both rows that end and rows that are cut have been seen


def all_hypotheses(max_steps):
    """Every sequence that ends with EOS or has `max_steps` symbols."""
    others = [i for i in range(TGT_VOCAB) if i != EOS_IDX]
    for n in range(max_steps):
        for symbols in itertools.product(others, repeat=n):
            yield (*symbols, EOS_IDX)
    yield from itertools.product(others, repeat=max_steps)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_wide_beam_is_exhaustive_search(length_penalty):
    max_steps = 3
    hypotheses = list(all_hypotheses(max_steps))
    for seed in range(6):
        model = sharp_model(seed % 2 == 0, seed)
        src, lengths, _ = make_batch((4, 2), seed=seed)
        found, scores, _ = decoding.beam(
            model.step,
            *model.start(src, lengths),
            max_steps=cut_after(max_steps, lengths),
            beam_size=len(hypotheses),
            length_penalty=length_penalty,
            **SYMBOLS,
        )
        for i, n in enumerate(lengths.tolist()):
            best, best_score = None, float("-inf")
            for hypothesis in hypotheses:
                tgt = torch.tensor([[SOS_IDX, *hypothesis]])
                logits, _ = model(src[i : i + 1, :n], lengths[i : i + 1], tgt[:, :-1])
                log_p = -F.cross_entropy(logits[0], tgt[0, 1:], reduction="sum").item()
                score = log_p / len(hypothesis) ** length_penalty
                if score > best_score:
                    best, best_score = hypothesis, score
            assert strip(found[i].tolist()) == strip([s for s in best if s != EOS_IDX])
            assert scores[i].item() == pytest.approx(best_score)
