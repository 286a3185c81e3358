"""The caption decoders against their formulas, BLEU against sacrebleu and by hand, and hw2-q3-captioning.py."""

import json
import math
import shutil
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import assert_user_error, end_of, load_script
from hypothesis import example, given
from hypothesis import strategies as st
from nltk.translate.bleu_score import sentence_bleu
from PIL import Image
from sacrebleu.metrics import BLEU
from torch import nn

import baselines
import decoding
import encoders
import files
import metrics
import models
import plots
from data import captions, sources
from data.bundled import captions as bundled_captions
from data.text import PAD_IDX, SOS_IDX, SYMBOLS, UNK_IDX

script = load_script("hw2-q3-captioning.py")
VOCAB, CHANNELS, HIDDEN, EMBEDDING, ATTENTION, REGIONS = 11, 5, 6, 3, 8, 4
TINY = ("-epochs", "2", "-hidden_size", "8", "-batch_size", "4", "-threads", "1", "-encoder", "efficientnet_lite0")


def make_decoder(use_attention, dropout=0.0, standardize=False):
    torch.manual_seed(0)
    sizes = HIDDEN, EMBEDDING, VOCAB, CHANNELS, dropout, standardize
    if use_attention:
        return models.CaptionDecoderWithAttention(ATTENTION, *sizes).eval()
    return models.CaptionDecoder(*sizes).eval()


def make_batch(n_images=3):
    """Regions, and two captions of different lengths for each image, padded."""
    generator = torch.Generator().manual_seed(1)
    regions = torch.randn(n_images, REGIONS, CHANNELS, generator=generator)
    words = torch.randint(UNK_IDX + 1, VOCAB, (n_images, 2, 7), generator=generator)
    lengths = torch.randint(2, 8, (n_images, 2, 1), generator=generator)
    return regions, words.masked_fill(torch.arange(7) >= lengths, PAD_IDX)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_attention_matches_the_formula_written_as_loops(activation):
    torch.manual_seed(0)
    attention = models.AdditiveAttention(CHANNELS, HIDDEN, 7, activation)
    h, regions = torch.randn(2, 3, HIDDEN), torch.randn(2, REGIONS, CHANNELS)
    z, alpha = attention(regions, h)
    W_1, b, W_2 = attention.decoder_att.weight, attention.decoder_att.bias, attention.encoder_att.weight
    v, f = attention.full_att.weight[0], getattr(torch, activation)
    for n in range(2):
        for j in range(3):
            e = torch.stack([v @ f(W_1 @ h[n, j] + b + W_2 @ s) for s in regions[n]])
            torch.testing.assert_close(alpha[n, j], e.softmax(dim=0))
            torch.testing.assert_close(z[n, j], e.softmax(dim=0) @ regions[n])
    torch.testing.assert_close(attention(regions, h, attention.encoder_att(regions)), (z, alpha))
    with torch.no_grad():  # as in decoding
        torch.testing.assert_close(attention(regions, h), (z.detach(), alpha.detach()))


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("use_attention", [False, True])
def test_forward_matches_the_cell_word_by_word(use_attention, standardize):
    """The handout's loop: the cell reads the embedded word and, with attention, the context of the state before."""
    model = make_decoder(use_attention, standardize=standardize)
    regions, words = make_batch()
    if standardize:
        model.set_statistics(3 * regions + 2)
    logits = model(regions, words)
    if standardize:
        regions = (regions - model.region_mean) / model.region_std
    for n in range(3):
        for j in range(2):
            mean = regions[n].mean(dim=0)
            h, c = model.init_h(mean), model.init_c(mean)
            for t in range(int((words[n, j] != PAD_IDX).sum())):
                x = model.embedding(words[n, j, t])
                if use_attention:
                    z, _ = model.attention(regions[n : n + 1], h.view(1, 1, -1))
                    x = torch.cat([x, z[0, 0]])
                h, c = (part[0] for part in model.decode_step(x.unsqueeze(0), (h.unsqueeze(0), c.unsqueeze(0))))
                torch.testing.assert_close(logits[n, j, t], model.fc(h))


@pytest.mark.parametrize("use_attention", [False, True])
def test_decoding_steps_match_forward(use_attention):
    model = make_decoder(use_attention, standardize=True)
    regions, words = make_batch()
    model.set_statistics(2 * regions + 3)
    words = words.masked_fill(words == PAD_IDX, UNK_IDX)
    expected = model(regions, words).log_softmax(dim=-1)
    state, memory = model.start(regions)
    state = decoding.select(state, torch.arange(3).repeat_interleave(2))  # two hypotheses an image
    for t in range(words.shape[2]):
        log_probs, state, alpha = model.step(words[:, :, t].flatten(), state, memory)
        torch.testing.assert_close(log_probs.view(3, 2, -1), expected[:, :, t])
        assert (alpha is not None) == use_attention
        if use_attention:
            torch.testing.assert_close(alpha.sum(dim=1), torch.ones(6))


@pytest.mark.parametrize("use_attention", [False, True])
def test_the_order_of_captions_and_images_does_not_change_the_loss(use_attention):
    model = make_decoder(use_attention)
    regions, words = make_batch(n_images=5)
    is_read = words != PAD_IDX

    def loss(regions, words):
        return model(regions, words).log_softmax(dim=-1)[words != PAD_IDX].sum().item()

    lengths = is_read.sum(dim=2)
    order = lengths.amax(dim=1).argsort(descending=True)
    inside = lengths.argsort(dim=1, descending=True)
    ordered = words.take_along_dim(inside.unsqueeze(2), dim=1)[order]
    assert loss(regions, words) == pytest.approx(loss(regions[order], ordered), rel=1e-5)
    longer = F.pad(words, (0, 3), value=PAD_IDX)  # nor does more padding
    assert loss(regions, words) == pytest.approx(loss(regions, longer), rel=1e-5)


@pytest.mark.parametrize("use_attention", [False, True])
def test_the_decoder_does_not_look_ahead(use_attention):
    model = make_decoder(use_attention)
    regions, words = make_batch()
    before = model(regions, words)
    for t in range(words.shape[2]):
        changed = words.clone()
        changed[:, :, t] = UNK_IDX + 1 + (words[:, :, t] - UNK_IDX) % (VOCAB - UNK_IDX - 1)
        assert (changed[:, :, t] != words[:, :, t]).all()
        after = model(regions, changed)
        torch.testing.assert_close(after[:, :, :t], before[:, :, :t])
        assert ((after - before)[:, :, t].abs().amax(dim=2) > 1e-5).all()


def test_the_first_weights_are_those_of_the_courses_skeleton():
    torch.manual_seed(0)
    model = models.CaptionDecoder(64, 32, 190)
    for weight in (model.embedding.weight, model.fc.weight):
        assert 0.099 < weight.abs().max() <= 0.1 and weight.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert (model.fc.bias == 0).all() and model.init_h.in_features == 512
    assert model.region_mean is None and "region_mean" not in model.state_dict()


def test_the_layers_have_the_names_of_the_courses_skeleton():
    names = {name for name, _ in make_decoder(True).named_children()}
    assert names == {"embedding", "init_h", "init_c", "decode_step", "dropout", "fc", "attention"}
    assert {name for name, _ in make_decoder(False).named_children()} == names - {"attention"}
    of_attention = {name for name, _ in make_decoder(True).attention.named_children()}
    assert of_attention == {"encoder_att", "decoder_att", "full_att"}


def test_a_permutation_of_the_regions_permutes_the_weights_and_keeps_the_caption():
    model = make_decoder(True)
    regions, _ = make_batch()
    order = torch.tensor([2, 0, 3, 1])
    options_ = {"max_steps": torch.full((3,), 9), "return_weights": True} | SYMBOLS
    a = decoding.greedy(model.step, *model.start(regions), **options_)
    b = decoding.greedy(model.step, *model.start(regions[:, order]), **options_)
    assert (a.symbols == b.symbols).all()
    torch.testing.assert_close(a.weights[..., order], b.weights)
    assert a.weights.std() > 0


@pytest.mark.parametrize("use_attention", [False, True])
def test_a_beam_of_one_is_greedy_search_and_batches_do_not_matter(use_attention):
    model = make_decoder(use_attention)
    regions, _ = make_batch(n_images=6)
    options_ = {"max_steps": torch.full((6,), 9)} | SYMBOLS
    greedy = decoding.greedy(model.step, *model.start(regions), **options_)
    beam = decoding.beam(model.step, *model.start(regions), 1, 0.0, **options_)
    assert (greedy.symbols == beam.symbols).all()
    for n in range(6):
        one = {"max_steps": torch.full((1,), 9)} | SYMBOLS
        alone = decoding.greedy(model.step, *model.start(regions[n : n + 1]), **one).symbols[0]
        assert (greedy.symbols[n, : len(alone)] == alone).all()


@pytest.mark.parametrize("use_attention", [False, True])
def test_dropout_stands_before_the_output_layer_and_nowhere_else(use_attention):
    model = make_decoder(use_attention, dropout=0.5).train()
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.5]
    outputs = []
    model.dropout.register_forward_hook(lambda module, inputs, output: outputs.append((inputs[0], output)))
    regions, words = make_batch()
    logits = model(regions, words)
    ((states, dropped),) = outputs
    assert states.shape == (6, 7, HIDDEN) and ((dropped == 0) | torch.isclose(dropped, 2 * states)).all()
    torch.testing.assert_close(logits.flatten(0, 1), model.fc(dropped))
    torch.testing.assert_close(model.fc(states), model.eval()(regions, words).flatten(0, 1))


def test_dropout_acts_in_training_only_and_a_batch_can_be_memorised():
    torch.manual_seed(0)
    model = models.CaptionDecoderWithAttention(20, 24, 16, VOCAB, CHANNELS, 0.1)
    regions, words = make_batch()
    sos = torch.full((3, 2, 1), SOS_IDX)
    words[:, 1] = words[:, 0]  # one caption an image
    read = torch.cat([sos, words[..., :-1]], dim=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.train()
    assert not torch.equal(model(regions, read), model(regions, read))
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(regions, read).flatten(0, 2), words.flatten(), ignore_index=PAD_IDX)
        loss.backward()
        optimizer.step()
    model.eval()
    assert torch.equal(model(regions, read), model(regions, read))
    assert (model(regions, read).argmax(dim=-1) == words)[words != PAD_IDX].all()


@pytest.mark.parametrize("use_attention", [False, True])
def test_the_scale_of_the_channels_does_not_matter(use_attention):
    model = make_decoder(use_attention, standardize=True)
    regions, words = make_batch(n_images=8)
    model.set_statistics(regions)
    expected = model(regions, words)
    torch.testing.assert_close(model.standardized(regions).std(dim=(0, 1)), torch.ones(CHANNELS))
    scaled = regions * torch.arange(1.0, CHANNELS + 1) + 3
    assert not torch.allclose(model(scaled, words), expected, atol=1e-3)
    model.set_statistics(scaled)
    torch.testing.assert_close(model(scaled, words), expected, rtol=1e-4, atol=1e-4)


def test_the_overlay_is_red_where_a_word_looks():
    image = torch.rand(28, 42, 3, generator=torch.Generator().manual_seed(0))
    alpha = torch.full((3, 49), 1 / 49)
    alpha[1] = F.one_hot(torch.tensor(6), 49)  # the last cell of the first row
    alpha[2] = F.one_hot(torch.tensor(42), 49)  # the first cell of the last row
    panels, equal, _ = plots.overlay(image, alpha)
    assert panels.shape == (3, 28, 42, 3) and equal == 1 / 49
    redness = panels[..., 0] - panels[..., 1]
    assert redness[0].abs().max() < 1e-6  # equal weights leave the image grey
    assert redness[1, :4, -6:].min() > 0 and redness[1, 8:].abs().max() < 1e-6
    assert redness[2, -4:, :6].min() > 0 and redness[2, :, 12:].abs().max() < 1e-6


REFS = [["the dog bit the man", "the dog had bit the man"], ["it was not unexpected", "no one was surprised"]]
HYPS = ["the dog bit the man now", "it was not unexpected by us"]


def test_bleu_is_sacrebleus():
    metric, streams = BLEU(tokenize="none"), [list(refs) for refs in zip(*REFS)]
    assert metrics.Bleu(HYPS, REFS).score() == pytest.approx(metric.corpus_score(HYPS, streams).score / 100)
    # The tokens are those that are given: sacrebleu's own tokenizer would split the comma off.
    hyp, ref = "rows of cars, parked neatly", "rows of cars, standing neatly"
    expected, split = (BLEU(tokenize=name).corpus_score([hyp], [[ref]]).score / 100 for name in ("none", "13a"))
    assert metrics.Bleu([hyp], [[ref]]).score() == pytest.approx(expected) != pytest.approx(split)
    # Another number of references for each caption, as sacrebleu takes it.
    refs = [REFS[0], REFS[1][:1]]
    streams = [["the dog bit the man", "it was not unexpected"], ["the dog had bit the man", None]]
    assert metrics.Bleu(HYPS, refs).score() == pytest.approx(metric.corpus_score(HYPS, streams).score / 100)


def test_bleu_by_hand():
    """One caption of 5 words against a reference of 6: precisions 4/5, 3/4, 2/3, 1/2, brevity penalty exp(1 - 6/5)."""
    hyp, refs = "a road beside the lake", ["a road beside the river bank"]
    expected = math.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert metrics.Bleu([hyp], [refs]).score() == pytest.approx(expected)
    assert metrics.Bleu(refs, [refs]).score() == pytest.approx(1)


def test_the_interval_of_the_mean_sentence_bleu_has_the_width_of_a_mean():
    """1.96 standard errors to both sides, since the mean of 60 values is about normal."""
    rng = np.random.default_rng(1)
    words = np.array("a b c".split())
    hyps, refs = (words[rng.integers(3, size=(60, 12))] for _ in range(2))
    bleu = metrics.Bleu([" ".join(row) for row in hyps], [[" ".join(row)] for row in refs])
    found = metrics.paired_bleu([bleu], name="sentence_bleu")
    half = 1.96 * np.std(bleu.sentences) / np.sqrt(60)
    assert found["value"] == pytest.approx(np.mean(bleu.sentences)) and half > 0
    assert (found["high"] - found["low"]) / 2 == pytest.approx(half, rel=0.15)


WORDS = st.lists(st.sampled_from("abcd"), max_size=7)


@given(st.lists(st.tuples(WORDS, st.lists(WORDS.filter(bool), min_size=1, max_size=3)), min_size=1, max_size=4))
@example([([], [["a"]]), (list("abc"), [list("abc")]), (list("abxcd"), [list("abcd")]), (["x"], [["a"], ["b"]])])
@example([(list("abcda"), [list("abcdab"), list("abcdabc")]), (list("dabcd"), [list("dabc"), list("adabcda")])])
def test_the_courses_score_is_the_mean_of_nltks_sentence_bleu(images):
    """Captions of fewer than four words, without words, and without a common word or 4-gram among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NLTK warns of 0 4-grams
        expected = [sentence_bleu(refs, hyp) for hyp, refs in images]
    bleu = metrics.Bleu([" ".join(hyp) for hyp, _ in images], [[" ".join(ref) for ref in refs] for _, refs in images])
    assert bleu.sentences.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-70)
    assert bleu.mean_of_sentences() == pytest.approx(np.mean(expected), rel=1e-9, abs=1e-70)


def test_nltk_gives_almost_0_and_a_warning_where_4_words_in_a_row_are_missing():
    with pytest.warns(UserWarning, match="0 counts of 4-gram overlaps"):
        assert 0 < sentence_bleu([list("abc")], list("abc")) < 1e-70
    assert metrics.Bleu(["a b c"], [["a b c"]]).mean_of_sentences() == 0
    with pytest.warns(UserWarning, match="gram overlaps"):
        assert 0 < sentence_bleu([list("abcde")], list("abxde")) < 1e-70
    assert sentence_bleu([["a"]], ["b"]) == sentence_bleu([["a"]], []) == 0  # without a common word exactly 0


def test_the_courses_score_is_no_bleu_of_the_whole_set():
    """By hand: one caption is its reference, of the other no 4-gram is right: (1 + 0) / 2."""
    hyps, refs = ["a b c d", "a b c x y z"], [["a b c d"], ["a b c d e f"]]
    bleu = metrics.Bleu(hyps, refs)
    assert bleu.mean_of_sentences() == pytest.approx(0.5)
    assert bleu.score() == pytest.approx((7 / 10 * 5 / 8 * 3 / 6 * 1 / 4) ** 0.25)
    assert metrics.sentence_bleu(hyps, refs)["value"] == pytest.approx(0.5)
    scores = metrics.captioning(hyps, refs)
    assert [scores[name]["value"] for name in metrics.BLEUS] == pytest.approx([0.5, bleu.score()])


@pytest.mark.parametrize("name", metrics.BLEUS)
def test_the_interval_holds_the_value_and_a_difference_of_the_same_captions_is_zero(name):
    rng = np.random.default_rng(0)
    words = [str(i) for i in range(6)]
    refs = [[" ".join(rng.choice(words, 7))] for _ in range(30)]
    good = [" ".join([*r[0].split()[: 5 + i % 3], "x"]) for i, r in enumerate(refs)]
    bad = [" ".join([*r[0].split()[:4], *"xyz"]) for r in refs]
    figure = metrics.mean_bleus(refs, [good])[name]
    assert figure["low"] < figure["value"] < figure["high"] and figure["n"] == 30
    assert figure["value"] == pytest.approx(metrics.BLEUS[name](metrics.Bleu(good, refs)))
    same = metrics.mean_bleus(refs, [good], [good])[name]
    assert same["value"] == same["low"] == same["high"] == 0
    difference = metrics.mean_bleus(refs, [good], [bad])[name]
    assert difference["low"] > 0
    two = metrics.mean_bleus(refs, [good, bad], [bad, bad])[name]  # the mean over seeds
    assert two["value"] == pytest.approx(difference["value"] / 2)
    assert two["low"] == pytest.approx(difference["low"] / 2)
    against = metrics.bleus_by_name("differences", refs, {"bad": ([good], [bad]), "good": ([good], [good])})
    key = {"bleu4": "bleu4_differences", "sentence_bleu": "differences"}[name]
    assert against[key] == {"bad": difference, "good": same}


def test_each_reference_against_the_others():
    refs = [["a b c d e", "a b c d f", "a b c d e"], ["g h i j", "g h i j", "k l m n"]]
    scores = []
    for i in range(3):
        hyps, others = [r[i] for r in refs], [r[:i] + r[i + 1 :] for r in refs]
        scores.append(BLEU(tokenize="none").corpus_score(hyps, [list(s) for s in zip(*others)]).score / 100)
    assert metrics.leave_one_out_bleu(refs) == pytest.approx(np.mean(scores))


def test_the_baselines_are_the_commonest_caption_and_the_nearest_image():
    train = [["a b", "a c"], ["a b", "d e"], ["f g", "h i"]]
    images = torch.tensor([[[0.0, 2.0]], [[3.0, 1.0]]])
    found = baselines.captions(
        train, {"test": images, "train": torch.tensor([[[5.0, 0.0]], [[-1.0, 0.0]], [[0.0, 1.0]]])}
    )
    assert found == {"most frequent caption": [["a b", "a b"]], "nearest image": [["f g", "a b"], ["h i", "a c"]]}


def test_the_defaults_are_the_courses_settings():
    args = script.parse_args([])
    assert (args.epochs, args.batch_size, args.batch_of, args.learning_rate) == (6, 8, "captions", [0.0004])
    assert (args.embedding_size, args.hidden_size, args.attention_size, args.dropout) == (100, 256, 100, 0.5)
    assert (args.clip_value, args.max_grad_norm, args.image_size, args.features) == (5, None, 500, "raw")
    assert [script.parse_args(["-dataset", name]).image_size for name in ("ucm", "folder")] == [224, 224]
    quick = script.parse_args(["-scale", "quick", "-batch_size", "9"])
    assert (quick.image_size, quick.batch_size, quick.batch_of) == (224, 9, "images")  # what is given stays


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A tiny set, its features in a cache of its own."""
    folder = tmp_path_factory.mktemp("data")
    bundled_captions.write(folder / "ucm", bundled_captions.generate("ucm", 30))
    return folder


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A runs folder with a run without attention, and one with attention and a beam."""
    runs_dir = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CACHE_DIR", data_dir / "cache")
        common = [*TINY, "-dataset", "ucm", "-data_dir", str(data_dir), "-runs_dir", str(runs_dir)]
        script.main(common)
        script.main([*common, "--use_attention", "--beam_size", "3", "-length_penalty", "0", "1"])
    return runs_dir


@pytest.fixture(autouse=True)
def cache(data_dir, monkeypatch):
    monkeypatch.setattr(sources, "CACHE_DIR", data_dir / "cache")


def folder_of(runs_dir, use_attention):
    (folder,) = [
        path for path in (runs_dir / "q3-captioning").iterdir() if ("use_attention" in path.name) == use_attention
    ]
    return folder


@pytest.mark.parametrize("use_attention", [False, True])
def test_a_run_leaves_its_figures_and_every_caption(trained, data_dir, use_attention):
    folder = folder_of(trained, use_attention)
    assert folder.name.startswith("ucm-efficientnet_lite0")
    result = files.read_json(folder / "result.json")
    assert result["title"] == "UCM-Captions, EfficientNet-Lite0, ImageNet" and not result["bundled"]
    asked = [example["image"].removesuffix(".tif") for example in result["examples"]]
    figures = {"train_loss", "val_bleu4", "val_sentence_bleu", *(f"caption_{stem}" for stem in asked)}
    figures |= {f"attention_{stem}" for stem in asked} if use_attention else set()
    assert {path.stem for path in folder.glob("*.pdf")} == figures
    name = "caps_generated_enc_dec_w_attention.json" if use_attention else "caps_generated_enc_dec.json"
    content = json.loads((folder / name).read_text())
    assert content["title"] == result["title"]
    data = captions.load("ucm", "real", data_dir)
    examples, refs = data["test"], data.refs("test")
    assert [row["image"] for row in content["captions"]] == [example.filename for example in examples]
    assert [row["references"] for row in content["captions"]] == refs
    greedy = result["test"]["greedy"]
    assert greedy["bleu4"]["value"] == pytest.approx(
        metrics.Bleu([r["greedy"] for r in content["captions"]], refs).score()
    )
    assert (result["test"]["beam"] is not None) == use_attention == ("beam" in content["captions"][0])
    assert greedy["sentence_bleu"]["value"] == pytest.approx(
        metrics.Bleu([r["greedy"] for r in content["captions"]], refs).mean_of_sentences()
    )
    for prefix in ("", "bleu4_"):
        assert ("the decoder without attention" in greedy[f"{prefix}differences"]) == use_attention
        assert set(result[f"{prefix}baselines"]) == {"most frequent caption", "nearest image"}
    best = max(result["history"], key=lambda line: line["val_sentence_bleu"])
    assert best["epoch"] == result["best_epoch"]
    for name in ("val_sentence_bleu", "val_bleu4"):
        assert best[name] == pytest.approx(result[name]["value"])


def test_the_last_epoch_is_tested_as_well(trained, data_dir, capsys):
    """The weights of a run's last epoch, put into its network, give the scores that the result notes."""
    script.main([*TINY, "-dataset", "ucm", "-data_dir", str(data_dir), "-runs_dir", str(trained), "--resume"])
    screen, folder = capsys.readouterr().out, folder_of(trained, False)
    result = files.read_json(folder / "result.json")
    assert end_of(screen) == ["Best", "Final", "The", "For", "written"]
    assert f" BLEU-4 over all captions: {result['test']['greedy']['bleu4']['value']:.4f}" in screen
    assert f"Final Test sentence BLEU, greedy: {result['test']['greedy']['sentence_bleu']['value']:.4f}" in screen
    args = script.parse_args(["-caption", "any", "-run", str(folder), "-runs_dir", str(trained)])
    task, model, _ = script.experiment.restore(script.Captioning, args)
    task.data = encoders.encode(captions.load("ucm", "real", data_dir), task.encoder)
    task.regions = {split: task.as_read(part) for split, part in task.data.regions.items()}
    model.load_state_dict(files.read_state(folder / "last.pt")["model"])
    assert task.test_scores(task.decode(model, "test")) == result["last_epoch"]
    if result["best_epoch"] == len(result["history"]):
        assert result["last_epoch"]["bleu4"] == result["test"]["greedy"]["bleu4"]


def test_caption_takes_images_of_the_set_files_and_folders(trained, data_dir, run_here, tmp_path):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "grey_$1_$.png")
    runs_dir = shutil.copytree(trained, tmp_path / "runs")  # it draws in the folder of the run
    folder = folder_of(runs_dir, True)
    example = files.read_json(folder / "result.json")["examples"][0]
    common = ("--use_attention", "-dataset", "ucm", "-data_dir", data_dir, "-runs_dir", runs_dir, "-threads", "1")
    process = run_here("hw2-q3-captioning.py", *common, "--caption", example["image"], tmp_path)
    assert process.returncode == 0, process.stderr
    first, second = process.stdout.splitlines()
    assert first == f"{example['image']}: {example['hyp']}" and second.startswith("grey_$1_$.png: ")
    assert (folder / "attention_grey_$1_$.pdf").exists()
    (tmp_path / "text.tif").write_text("not an image")
    for name, word in (("9999.tif", "no image 9999.tif"), (tmp_path / "text.tif", "text.tif"), (tmp_path, "text.tif")):
        assert_user_error(run_here("hw2-q3-captioning.py", *common, "--caption", name), word)


def test_seeds_are_compared_and_pooled(trained, data_dir, tmp_path):
    common = [*TINY, "-dataset", "ucm", "-data_dir", str(data_dir), "-runs_dir", str(trained)]
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script.comparisons, "single", made.append)
        script.main([*common, "--use_attention"])
    child = made[0].with_options(learning_rate=0.0004, seed=42)
    pooled = child.pooled([child, child])
    greedy = files.read_json(folder_of(trained, True) / "result.json")["test"]["greedy"]
    for score, key in (("bleu4", "bleu4_differences"), ("sentence_bleu", "differences")):
        title = metrics.BLEU_TITLES[score]
        assert pooled[f"{title}, mean"]["value"] == pytest.approx(greedy[score]["value"])
        for name, figure in greedy[key].items():
            assert pooled[f"{title}, minus {name}, paired"]["value"] == pytest.approx(figure["value"])
    assert len(pooled) == 2 * 4


def test_the_command_line_in_a_process(data_dir, run_script, tmp_path):
    common = (*TINY, "-dataset", "ucm", "-data_dir", data_dir, "-runs_dir", tmp_path)
    process = run_script("hw2-q3-captioning.py", *common, "-init", "absent")
    assert_user_error(process, "absent", "-init")


def test_a_batch_of_captions_and_one_of_images_have_the_same_loss(trained, data_dir):
    """Each caption with its own image, or each image with all its captions: the same words and the same sum."""
    recipe = script.parse_args([*TINY, "-dataset", "ucm", "-data_dir", str(data_dir), "--use_attention"])
    encoder = encoders.Encoder("efficientnet_lite0")
    data = encoders.encode(captions.load("ucm", "real", data_dir), encoder)
    losses, sizes = [], []
    for batch_of in ("captions", "images"):
        task = script.Captioning(recipe, data).with_options(batch_of=batch_of)
        torch.manual_seed(0)
        model, batches = task.build().eval(), task.batches("cpu")
        losses.append(
            torch.stack(
                [
                    torch.stack(task.batch_loss(model, b))
                    for b in map(batches.gather, batches.rows(torch.Generator().manual_seed(0)))
                ]
            ).sum(dim=0)
        )
        sizes.append(batches.n_examples)
    assert sizes[0] == 5 * sizes[1] == 5 * len(data["train"])
    torch.testing.assert_close(*losses)
    assert losses[0][1] == sum(len(words) + 1 for example in data["train"] for words in example.captions)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("-encoder", "vgg"), "vgg"),
        (("-dataset", "nowhere"), "nowhere"),
        (("-caption", "1.tif", "-hidden_size", "77"), "no trained run"),
    ],
)
def test_wrong_input_is_one_line(run_here, data_dir, tmp_path, arguments, word):
    common = ("-dataset", "ucm", "-data_dir", data_dir, "-runs_dir", tmp_path, "-encoder", "efficientnet_lite0")
    assert_user_error(run_here("hw2-q3-captioning.py", *common, *arguments), word)
