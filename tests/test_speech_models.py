"""The networks of the speech question against their formulas, and how they are decoded."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import load_script
from torch import nn

import decoding
import losses
import models
import utils
from data import speech

script = load_script("hw2-q3-asr.py")
N_MELS, HIDDEN, N_HEADS, N_LAYERS, VOCAB, MAX_LENGTH = 5, 8, 2, 2, 7, 12
START, STOP, PAD = 0, 1, 2
SYMBOLS = {"sos": START, "eos": STOP, "pad": PAD, "forbidden": (PAD, START)}
DECODERS = ("recurrent", "transformer")


def make_model(decoder, skeleton=False, seed=0, dropout=0.3, ctc=False):
    torch.manual_seed(seed)
    blocks = {"n_heads": N_HEADS, "dropout": dropout, "skeleton": skeleton}
    encoder = models.AudioEncoderTransformer(N_MELS, HIDDEN, n_layers=N_LAYERS, **blocks)
    if decoder == "recurrent":
        decoder = models.TextDecoderRecurrent(VOCAB, HIDDEN, **blocks)
    else:
        decoder = models.TextDecoderTransformer(VOCAB, HIDDEN, max_text_length=MAX_LENGTH, **blocks)
    model = models.SpeechToText(encoder, decoder, ctc=ctc).eval()
    for name, parameter in model.named_parameters():  # norms that do nothing would hide where they stand
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def make_batch(n_frames=(9, 14, 3, 10), tgt_len=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mels = [torch.randn(n, N_MELS, generator=generator) for n in n_frames]
    tgt = torch.randint(3, VOCAB, (len(n_frames), tgt_len), generator=generator)
    tgt[:, 0] = START
    return *speech.pad_mels(mels), tgt


def norm(layer, x):
    """Layer normalisation of the last dimension by its formula."""
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * layer.weight + layer.bias


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def attention_as_loops(attention, query, source, n_source, is_causal=False):
    """One clip: query (n_queries, hidden_size), source (n_padded, hidden_size); also the weights of each head."""
    size = HIDDEN // N_HEADS
    out, weights = torch.zeros(len(query), HIDDEN), torch.zeros(N_HEADS, len(query), len(source))
    for t in range(len(query)):
        heads = []
        for head in range(N_HEADS):
            part = slice(head * size, (head + 1) * size)
            q = attention.query.weight[part] @ query[t] + attention.query.bias[part]
            seen = range(min(n_source, t + 1) if is_causal else n_source)
            keys = [attention.key.weight[part] @ source[i] + attention.key.bias[part] for i in seen]
            values = [attention.value.weight[part] @ source[i] + attention.value.bias[part] for i in seen]
            scores = torch.stack([q @ k / math.sqrt(size) for k in keys])
            p = scores.exp() / scores.exp().sum()
            heads.append(sum(p_i * v_i for p_i, v_i in zip(p, values, strict=True)))
            weights[head, t, : len(p)] = p
        out[t] = attention.out.weight @ torch.cat(heads) + attention.out.bias
    return out, weights


@pytest.mark.parametrize("formula_on", [(), ("cpu",)])  # without the formula, PyTorch's own function
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_the_formula_written_as_loops(is_causal, formula_on, monkeypatch):
    monkeypatch.setattr(models, "FORMULA_ON", formula_on)
    torch.manual_seed(0)
    attention = models.MultiHeadAttention(HIDDEN, N_HEADS)
    query, source, lengths = torch.randn(2, 4, HIDDEN), torch.randn(2, 6, HIDDEN), torch.tensor([6, 3])
    mask = torch.ones(4, 6, dtype=torch.bool).tril() if is_causal else models.sequence_mask(lengths).unsqueeze(1)
    out, none = attention(query, source, mask)
    found, alpha = attention(query, source, mask, need_weights=True)
    assert out.shape == query.shape and none is None
    for b in range(2):
        n = 6 if is_causal else int(lengths[b])
        expected, weights = attention_as_loops(attention, query[b], source[b], n, is_causal)
        torch.testing.assert_close(out[b], expected)
        torch.testing.assert_close(found[b], expected)
        torch.testing.assert_close(alpha[b], weights)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_torchs_own_layer(is_causal):
    torch.manual_seed(0)
    ours, theirs = models.MultiHeadAttention(HIDDEN, N_HEADS), nn.MultiheadAttention(HIDDEN, N_HEADS, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    query, source = torch.randn(3, 5, HIDDEN), torch.randn(3, 5 if is_causal else 9, HIDDEN)
    mask = None if is_causal else torch.arange(9) < torch.tensor([[9], [2], [5]])
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1) if is_causal else None
    expected, weights = theirs(
        query,
        source,
        source,
        key_padding_mask=None if is_causal else ~mask,
        attn_mask=causal,
        average_attn_weights=False,
    )
    our_mask = ~causal if is_causal else mask.unsqueeze(1)
    torch.testing.assert_close(ours(query, source, our_mask), (expected, None))
    torch.testing.assert_close(ours(query, source, our_mask, need_weights=True), (expected, weights))


@pytest.mark.parametrize("skeleton", [False, True])
def test_each_sub_block_is_its_formula(skeleton):
    torch.manual_seed(0)
    attention = models.AttentionSubBlock(HIDDEN, N_HEADS, 0.3, skeleton).eval()
    feed_forward = models.FeedForwardSubBlock(HIDDEN, 0.3, skeleton).eval()
    for block in (attention, feed_forward):
        for layer in (block.norm, block.outer_norm):
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, 0.5, 1.5)
    x, z = torch.randn(2, 4, HIDDEN), torch.randn(2, 6, HIDDEN)

    def outer(block, x):
        return x if skeleton else norm(block.outer_norm, x)

    for b in range(2):
        normed = norm(attention.norm, x[b])
        for is_causal in (False, True):
            context, weights = attention_as_loops(attention.attention, normed, normed, 4, is_causal)
            mask = torch.ones(4, 4, dtype=torch.bool).tril() if is_causal else None
            found, alpha = attention(x, mask=mask, need_weights=True)
            torch.testing.assert_close(found[b], outer(attention, x[b] + context))
            torch.testing.assert_close(alpha[b], weights)
        context, weights = attention_as_loops(attention.attention, normed, z[b], 6)
        cross, cached = attention(x, z, need_weights=True), attention(x, attention.attention.project(z))
        torch.testing.assert_close(cross[0][b], outer(attention, x[b] + context))
        torch.testing.assert_close(cross[1][b], weights)
        torch.testing.assert_close(cached[0][b], outer(attention, x[b] + context))
    assert feed_forward.fc1.out_features == 2 * HIDDEN
    hidden = gelu(norm(feed_forward.norm, x) @ feed_forward.fc1.weight.T + feed_forward.fc1.bias)
    expected = outer(feed_forward, x + hidden @ feed_forward.fc2.weight.T + feed_forward.fc2.bias)
    torch.testing.assert_close(feed_forward(x), expected)


def test_the_positions_are_sines_and_cosines():
    P = models.sinusoids(7, 6)
    assert P.shape == (7, 6)
    for t, i in itertools.product(range(7), range(3)):
        angle = t / 10000 ** (2 * i / 6)
        assert P[t, i].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert P[t, 3 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)


def convolution_as_loops(layer, x, stride):
    """x (n, in) with a frame of zeros on either side, to (ceil(n / stride), out)."""
    padded = F.pad(x, (0, 0, 1, 1))
    places = range(0, len(x), stride)
    return torch.stack([sum(layer.weight[:, :, k] @ padded[t + k] for k in range(3)) + layer.bias for t in places])


@pytest.mark.parametrize("skeleton", [False, True])
def test_the_encoder_is_its_formula(skeleton):
    model = make_model("recurrent", skeleton)
    mels, n_frames, _ = make_batch()
    enc_output, n_positions = model.encoder(mels, n_frames)
    assert n_positions.tolist() == [5, 7, 2, 5] and enc_output.shape == (4, 7, HIDDEN)
    for b, n in enumerate(n_frames.tolist()):
        x = gelu(convolution_as_loops(model.encoder.conv1, mels[b, :n], stride=1))
        x = gelu(convolution_as_loops(model.encoder.conv2, x, stride=2))
        x = x + models.sinusoids(len(x), HIDDEN)
        for attention, feed_forward in zip(model.encoder.attention, model.encoder.feed_forward, strict=True):
            x = feed_forward(attention(x.unsqueeze(0))[0])[0]
        x = norm(model.encoder.last_norm, x) if skeleton else x
        torch.testing.assert_close(enc_output[b, : n_positions[b]], x)
    assert len(model.encoder.attention) == N_LAYERS


def lstm_as_loops(lstm, x):
    h, c, outputs = torch.zeros(HIDDEN), torch.zeros(HIDDEN), []
    for x_t in x:
        gates = lstm.weight_ih_l0 @ x_t + lstm.bias_ih_l0 + lstm.weight_hh_l0 @ h + lstm.bias_hh_l0
        i, f, g, o = gates.split(HIDDEN)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs)


@pytest.mark.parametrize("skeleton", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_each_decoder_is_its_formula(decoder, skeleton):
    model = make_model(decoder, skeleton)
    mels, n_frames, tgt = make_batch()
    logits = model(mels, n_frames, tgt)
    assert logits.shape == (4, 6, VOCAB)
    enc_output, n_positions = model.encoder(mels, n_frames)
    decoder = model.decoder
    for b in range(4):
        x = decoder.embedding.weight[tgt[b]]
        if isinstance(decoder, models.TextDecoderRecurrent):
            x = lstm_as_loops(decoder.lstm, norm(decoder.emb_norm, x))
        else:
            causal_mask = torch.ones(6, 6, dtype=torch.bool).tril()
            x = decoder.self_attention((x + decoder.positions[:6]).unsqueeze(0), mask=causal_mask)[0][0]
        x, _ = decoder.cross_attention(x.unsqueeze(0), enc_output[b : b + 1, : n_positions[b]])
        x = decoder.feed_forward(x)[0]
        expected = norm(decoder.norm, x) @ decoder.classifier.weight.T + decoder.classifier.bias
        torch.testing.assert_close(logits[b], expected)


def scaled(found):
    """With 2 x in the place of x, the first of what a class returns."""
    return (2 * found[0], *found[1:]) if isinstance(found, tuple) else 2 * found


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("place", ["read", "score", "AttentionSubBlock", "MultiHeadAttention", "FeedForwardSubBlock"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_change_of_what_is_trained_changes_what_decodes(decoder, place, beam_size, monkeypatch):
    model = make_model(decoder)
    mels, n_frames, _ = make_batch()
    before = search(model, mels, n_frames, max_steps=6, beam_size=beam_size)
    kind, name = (type(model.decoder), place) if place.islower() else (getattr(models, place), "forward")
    original = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda self, *args, **named: scaled(original(self, *args, **named)))
    after = search(model, mels, n_frames, max_steps=6, beam_size=beam_size)
    assert not torch.allclose(before.scores, after.scores)
    for b, n in enumerate(n_frames.tolist()):
        symbols = [symbol for symbol in after.symbols[b].tolist() if symbol != PAD]
        tgt = torch.tensor([[START, *symbols, STOP][:7]])  # the stop symbol only where the text was not cut
        logits = model(mels[b : b + 1, :n], n_frames[b : b + 1], tgt[:, :-1])
        torch.testing.assert_close(after.scores[b], -F.cross_entropy(logits[0], tgt[0, 1:], reduction="sum"))


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_decoder_does_not_look_ahead(decoder):
    model = make_model(decoder)
    mels, n_frames, tgt = make_batch()
    before = model(mels, n_frames, tgt)
    for t in range(tgt.shape[1]):
        changed = tgt.clone()
        changed[:, t] = 3 + (changed[:, t] - 2) % (VOCAB - 3)
        assert (changed[:, t] != tgt[:, t]).all()
        after = model(mels, n_frames, changed)
        torch.testing.assert_close(after[:, :t], before[:, :t])
        for later in range(t, tgt.shape[1]):
            assert not torch.allclose(after[:, later], before[:, later])


def search(model, mels, n_frames, max_steps=8, **options):
    options |= {"max_steps": torch.full((len(mels),), max_steps)} | SYMBOLS
    return decoding.search(model.step, *model.start(mels, n_frames), **options)


@pytest.mark.parametrize("skeleton", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_padding_and_the_rest_of_the_batch_change_nothing(decoder, skeleton):
    model = make_model(decoder, skeleton)
    mels, n_frames, tgt = make_batch()
    logits = model(mels, n_frames, tgt)
    wider = model(F.pad(mels, (0, 0, 0, 7)), n_frames, F.pad(tgt, (0, 3), value=PAD))
    torch.testing.assert_close(wider[:, :6], logits)
    for b, n in enumerate(n_frames.tolist()):
        alone = model(mels[b : b + 1, :n], n_frames[b : b + 1], tgt[b : b + 1])
        torch.testing.assert_close(logits[b : b + 1], alone)
    for options in ({}, {"beam_size": 3}, {"n_samples": 4, "seed": 1}):
        found = search(model, mels, n_frames, return_weights=True, **options)
        wider = search(model, F.pad(mels, (0, 0, 0, 6)), n_frames, return_weights=True, **options)
        assert torch.equal(found.symbols, wider.symbols)
        torch.testing.assert_close(found.scores, wider.scores)
        torch.testing.assert_close(F.pad(found.weights, (0, 3)), wider.weights)
        for b, n in enumerate(n_frames.tolist()):
            alone = search(model, mels[b : b + 1, :n], n_frames[b : b + 1], **options)
            n_steps = alone.symbols.shape[1]
            assert torch.equal(found.symbols[b, :n_steps], alone.symbols[0])
            assert (found.symbols[b, n_steps:] == PAD).all()
            torch.testing.assert_close(found.scores[b], alone.scores[0])


@pytest.mark.parametrize("skeleton", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_cached_decoding_is_the_forward_pass_of_each_prefix(decoder, skeleton):
    """Three hypotheses of each clip, which change their places half way."""
    model = make_model(decoder, skeleton)
    mels, n_frames, _ = make_batch()
    n_hyps = 3
    prefixes = torch.randint(3, VOCAB, (4 * n_hyps, 6), generator=torch.Generator().manual_seed(2))
    prefixes[:, 0] = START
    state, memory = model.start(mels, n_frames)
    state = decoding.select(state, torch.arange(4).repeat_interleave(n_hyps))
    for t in range(6):
        if t == 3:
            order = torch.tensor([2, 0, 0]) + n_hyps * torch.arange(4).unsqueeze(1)
            state, prefixes = decoding.select(state, order.flatten()), prefixes[order.flatten()]
            prefixes[:, 3] = torch.randint(3, VOCAB, (len(prefixes),), generator=torch.Generator().manual_seed(3))
        log_probs, state, alpha = model.step(prefixes[:, t], state, memory)
        repeated = [part.repeat_interleave(n_hyps, dim=0) for part in (mels, n_frames)]
        expected = model(*repeated, prefixes[:, : t + 1])[:, -1].log_softmax(dim=-1)
        torch.testing.assert_close(log_probs, expected)
        assert alpha.shape == (4 * n_hyps, N_HEADS, 7)
        torch.testing.assert_close(alpha.sum(dim=2), torch.ones(len(alpha), N_HEADS))
        logits, weights = model.decoder(prefixes[:, : t + 1], *model.encoder(*repeated), need_weights=True)
        torch.testing.assert_close(logits[:, -1].log_softmax(dim=-1), expected)
        torch.testing.assert_close(alpha, weights[:, :, -1])
        for b, n in enumerate(((n_frames + 1) // 2).tolist()):
            part = alpha[b * n_hyps : (b + 1) * n_hyps]
            assert (part[..., :n] > 0).all() and (part[..., n:] == 0).all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_hypotheses_of_a_clip_share_its_memory(decoder):
    model = make_model(decoder)
    with torch.no_grad():
        model.decoder.classifier.bias[STOP] = -100.0
    mels, n_frames, _ = make_batch()
    n_encoded, sizes = [], []
    model.encoder.register_forward_hook(lambda module, inputs, output: n_encoded.append(len(output[0])))
    state, memory = model.start(mels, n_frames)

    def step(tokens, state, memory):
        sizes.append((len(tokens), {len(part) for part in memory}))
        return model.step(tokens, state, memory)

    decoding.beam(step, state, memory, 4, 0.0, max_steps=torch.full((4,), 3), **SYMBOLS)
    assert n_encoded == [4]
    assert sizes == [(4, {4}), (16, {4}), (16, {4})]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_beam_of_1_is_greedy(decoder):
    model = make_model(decoder)
    mels, n_frames, _ = make_batch()
    options = {"max_steps": torch.full((4,), 8)} | SYMBOLS
    greedy = decoding.greedy(model.step, *model.start(mels, n_frames), **options)
    beam = decoding.beam(model.step, *model.start(mels, n_frames), 1, 0.0, **options)
    assert torch.equal(greedy.symbols, beam.symbols)
    torch.testing.assert_close(greedy.scores, beam.scores)


def test_the_transformer_writes_as_many_symbols_as_it_has_positions():
    model = make_model("transformer")
    with torch.no_grad():
        model.decoder.classifier.bias[STOP] = -100.0
    mels, n_frames, _ = make_batch()
    assert search(model, mels, n_frames, max_steps=MAX_LENGTH).symbols.shape == (4, MAX_LENGTH)


def linear(n_in, n_out):
    return n_in * n_out + n_out


@pytest.mark.parametrize("skeleton", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_parameters_are_counted_by_hand_at_the_default_sizes(decoder, skeleton):
    args = script.parse_args(["--decoder", decoder, *(["--skeleton_blocks", "--n_layers", "2"] if skeleton else [])])
    model = script.Recognition(args, None).build()
    d, layer_norm = 200, 2 * 200
    attention = 4 * linear(d, d) + layer_norm * (1 if skeleton else 2)
    feed_forward = linear(d, 2 * d) + linear(2 * d, d) + layer_norm * (1 if skeleton else 2)
    expected = (80 * 3 * d + d) + (d * 3 * d + d)  # the convolutions
    expected += (2 if skeleton else 4) * (attention + feed_forward) + (layer_norm if skeleton else 0)
    expected += 35 * d + attention + feed_forward + layer_norm + linear(d, 35)
    expected += layer_norm + 2 * 4 * linear(d, d) if decoder == "recurrent" else 200 * d + attention
    assert models.get_number_trainable_params(model) == expected
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("ctc", [False, True])
@pytest.mark.parametrize("skeleton", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_gradients_reach_all_parameters(decoder, skeleton, ctc):
    model = make_model(decoder, skeleton, ctc=ctc, dropout=0.0).train()
    mels, n_frames, _ = make_batch()
    # All symbols are read, at all positions.
    tgt = torch.arange(MAX_LENGTH).repeat(4, 1) % VOCAB
    enc_output, n_positions = model.encoder(mels, n_frames)
    loss = (model.decoder(tgt, enc_output, n_positions) * torch.randn(4, MAX_LENGTH, VOCAB)).sum()
    if ctc:
        loss = loss + (model.ctc(enc_output) * torch.randn(VOCAB + 1)).sum()
    loss.backward()
    for name, parameter in model.named_parameters():
        # The same number added to all scores of a query changes no weight, so that the keys' bias does nothing.
        if not name.endswith("key.bias"):
            assert parameter.grad is not None and parameter.grad.norm() > 1e-5, name


def test_dropout_acts_in_training_only():
    for decoder in DECODERS:
        model = make_model(decoder, dropout=0.5)
        batch = make_batch()
        assert torch.equal(model(*batch), model(*batch))
        model.train()
        assert not torch.equal(model(*batch), model(*batch))
        model = make_model(decoder, dropout=0.0)
        torch.testing.assert_close(model.train()(*batch), model.eval()(*batch))


def make_clips():
    """Four clips of noise with a text each, as the script reads them."""
    n_frames, generator = torch.tensor([30, 44, 20, 30]), torch.Generator().manual_seed(0)
    frames = torch.randn(int(n_frames.sum()), 80, generator=generator).numpy()
    texts = {"train": list(map(speech.normalize, ["a cat", "it's-so", "yes", "no?"])), "val": [], "test": []}
    ids, empty = {"train": list("wxyz"), "val": [], "test": []}, torch.zeros(0, dtype=torch.int64)
    rows, starts = {"train": torch.arange(4), "val": empty, "test": empty}, n_frames.cumsum(0) - n_frames
    return speech.Clips("Noise", True, ids, texts, rows, n_frames, starts, frames, "f", None)


def make_recogniser(decoder, *options_):
    torch.manual_seed(0)
    args = script.parse_args(
        ["--decoder", decoder, "--hidden_size", "16", "--n_layers", "1", "--batch_size", "4", *options_]
    )
    recogniser = script.Recognition(args, make_clips())
    return recogniser, recogniser.build()


@pytest.mark.parametrize("decoder", DECODERS)
def test_one_batch_can_be_memorised(decoder):
    recogniser, model = make_recogniser(decoder, "--label_smoothing", "0")
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.01)
    (batch,) = recogniser.batches("cpu").epoch(torch.Generator().manual_seed(0))
    for _ in range(120):
        optimizer.zero_grad()
        loss, n_symbols = recogniser.batch_loss(model, batch)
        (loss / n_symbols).backward()
        optimizer.step()
    refs = recogniser.data.texts["train"]
    assert n_symbols == sum(len(ref) + 1 for ref in refs)
    assert recogniser.decode(model, "train") == refs
    assert recogniser.decode(model, "train", beam_size=3, length_penalty=0.0) == refs
    assert recogniser.decode(model, "train", n_samples=20, seed=0) == refs
    found = recogniser.transcribe(model, recogniser.data.rows["train"].tolist(), return_weights=True)
    for (text, alpha), n_frames in zip(found, recogniser.data.n_frames.tolist(), strict=True):
        n_steps, n_positions = len(text) + 1, (n_frames + 1) // 2
        assert alpha.shape == (n_steps, 2, n_positions)
        torch.testing.assert_close(alpha.sum(dim=2), torch.ones(n_steps, 2))


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_loss_is_the_mean_over_letters_with_smoothing_in_training_only(decoder):
    recogniser, model = make_recogniser(decoder, "--label_smoothing", "0.1")
    (batch,) = recogniser.batches("cpu").epoch(torch.Generator().manual_seed(0))
    mels, n_frames, tgt = batch
    exact, uniform = 0.0, 0.0
    for b in range(4):
        symbols = [i for i in tgt[b].tolist() if i != speech.PADDING_IDX]
        for t in range(1, len(symbols)):
            n = n_frames[b]
            log_probs = model(mels[b : b + 1, :n], n_frames[b : b + 1], tgt[b : b + 1, :t])[0, -1].log_softmax(dim=-1)
            exact -= log_probs[symbols[t]].item()
            uniform -= log_probs.mean().item()
    loss, n_symbols = recogniser.batch_loss(model.eval(), batch)
    assert loss.item() == pytest.approx(exact, rel=1e-5)
    assert recogniser.mean_loss(model, "train") == pytest.approx(exact / int(n_symbols), rel=1e-5)
    loss, _ = recogniser.batch_loss(model.train(), batch)
    assert loss.item() == pytest.approx(0.9 * exact + 0.1 * uniform, rel=1e-5)


def test_the_ctc_loss_is_minus_the_log_probability_of_all_alignments():
    """Of "ab" on four positions and of "b" on three; such an alignment has no other symbols than the blank."""
    recogniser, model = make_recogniser("recurrent", "--ctc_weight", "0.25", "--label_smoothing", "0")
    assert model.ctc.out_features == len(speech.SYMBOLS) + 1
    assert model.state_dict().keys() - make_recogniser("recurrent")[1].state_dict().keys() == {"ctc.weight", "ctc.bias"}
    mels, n_frames = torch.randn(2, 8, 80), torch.tensor([8, 5])
    mels[1, 5:] = 0
    tgt = torch.tensor([speech.encode("ab", 10), [*speech.encode("b", 10), speech.PADDING_IDX]])
    model.eval()
    plain, n_symbols = recogniser.batch_loss(model, (mels, n_frames, tgt))
    probs = model.ctc(model.encoder(mels, n_frames)[0]).softmax(dim=-1)
    blank, a, b = len(speech.SYMBOLS), speech.INDEX["a"], speech.INDEX["b"]
    expected = 0.0
    for row, (text, n_positions) in enumerate((([a, b], 4), ([b], 3))):
        total = 0.0
        for path in itertools.product((blank, a, b), repeat=n_positions):
            if [symbol for symbol, _ in itertools.groupby(path) if symbol != blank] == text:
                total += math.prod(probs[row, t, symbol].item() for t, symbol in enumerate(path))
        expected -= math.log(total)
    model.train()
    loss, n = recogniser.batch_loss(model, (mels, n_frames, tgt))
    assert loss.item() == pytest.approx(0.75 * plain.item() + 0.25 * expected, rel=1e-5)
    assert n == n_symbols == 3 + 2


def test_a_text_too_long_for_its_clip_has_a_finite_ctc_loss():
    recogniser, model = make_recogniser("transformer", "--ctc_weight", "0.5")
    tgt = torch.tensor([speech.encode("aaaaaaaaaa", 20)])
    loss, _ = recogniser.batch_loss(model.train(), (torch.randn(1, 8, 80), torch.tensor([8]), tgt))
    loss.backward()
    assert math.isfinite(loss.item()) and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_guided_attention_loss_is_its_formula_written_as_loops(decoder):
    recogniser, model = make_recogniser(decoder, "--guided_attention", "0.7", "--label_smoothing", "0")
    (batch,) = recogniser.batches("cpu").epoch(torch.Generator().manual_seed(0))
    mels, n_frames, tgt = batch
    plain, n_symbols = recogniser.batch_loss(model.eval(), batch)
    expected = 0.0
    for b in range(4):
        symbols = [i for i in tgt[b].tolist() if i != speech.PADDING_IDX]
        N, T = len(symbols) - 1, (int(n_frames[b]) + 1) // 2
        heard = model.encoder(mels[b : b + 1, : n_frames[b]], n_frames[b : b + 1])
        _, A = model.decoder(tgt[b : b + 1, :N], *heard, need_weights=True)
        assert A.shape == (1, 2, N, T)
        for head, n, t in itertools.product(range(2), range(1, N + 1), range(1, T + 1)):
            W = 1 - math.exp(-((n / N - t / T) ** 2) / (2 * 0.2**2))
            expected += A[0, head, n - 1, t - 1].item() * W / 2
    assert 0 < expected < n_symbols
    loss, n = recogniser.batch_loss(model.train(), batch)
    assert loss.item() == pytest.approx(plain.item() + 0.7 * expected, rel=1e-5) and n == n_symbols
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_attention_along_the_diagonal_costs_nothing_and_away_from_it_almost_1():
    eye = torch.eye(50).expand(1, 3, 50, 50)
    sizes = torch.tensor([50]), torch.tensor([50])
    assert losses.guided_attention_loss(eye, *sizes) == 0
    first = torch.zeros(1, 1, 50, 50)
    first[..., 0] = 1  # every symbol looks at the start
    of_each = [losses.guided_attention_loss(first[:, :, n : n + 1], torch.tensor([1]), sizes[1]) for n in range(50)]
    assert all(loss == pytest.approx(1, abs=1e-5) for loss in of_each)  # a single symbol is the last one
    assert 0 < losses.guided_attention_loss(first, *sizes) < 50


@pytest.mark.parametrize("decoder", DECODERS)
def test_guided_attention_keeps_the_attention_near_the_diagonal(decoder):
    def attended(*options_):
        recogniser, model = make_recogniser(decoder, *options_)
        optimizer = torch.optim.Adam(model.train().parameters(), lr=0.01)
        (batch,) = recogniser.batches("cpu").epoch(torch.Generator().manual_seed(0))
        for _ in range(60):
            optimizer.zero_grad()
            loss, n_symbols = recogniser.batch_loss(model, batch)
            (loss / n_symbols).backward()
            optimizer.step()
        mels, n_frames, tgt = batch
        _, alpha = model.eval().decoder(tgt[:, :-1], *model.encoder(mels, n_frames), need_weights=True)
        n_symbols = (tgt[:, 1:] != speech.PADDING_IDX).sum(dim=1)
        return losses.guided_attention_loss(alpha, n_symbols, (n_frames + 1) // 2) / n_symbols.sum()

    assert attended("--guided_attention", "2") < 0.6 * attended()


@pytest.mark.parametrize("decoder", DECODERS)
def test_without_the_option_no_weights_are_computed_and_the_loss_has_the_same_bits(decoder, monkeypatch):
    recogniser, model = make_recogniser(decoder)
    (batch,) = recogniser.batches("cpu").epoch(torch.Generator().manual_seed(0))
    mels, n_frames, tgt = batch
    expected, _ = utils.sequence_loss(model.train()(mels, n_frames, tgt[:, :-1]), tgt[:, 1:], speech.PADDING_IDX, 0.1)
    attend, asked = models.MultiHeadAttention.forward, []

    def recorded(self, query, source, mask=None, need_weights=False):
        asked.append(need_weights)
        return attend(self, query, source, mask, need_weights)

    monkeypatch.setattr(models.MultiHeadAttention, "forward", recorded)
    loss, _ = recogniser.batch_loss(model, batch)
    assert torch.equal(loss, expected)
    assert asked and not any(asked)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_transcription_ends_at_the_latest_after_30_letters_a_second_and_10_more(decoder):
    recogniser, model = make_recogniser(decoder, "--max_text_length", "60")
    with torch.no_grad():
        model.decoder.classifier.bias[speech.STOP_IDX] = -100.0
    batch = speech.pad_mels([torch.randn(n, 80) for n in (138, 689, 69)])
    texts = [hyp for hyp, _ in recogniser.decode_mels(model, batch)]
    assert [len(text) for text in texts] == [10 + 30, 59, 10 + 15]
    assert not set("".join(texts)) & {"<", ">", "@"}
