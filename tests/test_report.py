"""The reports compile from any state of the runs folder, and say what the runs say."""

import json
import os
import re
import shutil

import pytest
import torch
from conftest import ROOT, assert_user_error, load_script
from pypdf import PdfReader

import files
import metrics
import options
import plots
import runs
from editions import DATASETS, EDITIONS

build = load_script("report/build.py")

QUESTIONS = {
    "2021-22": ["1.1", "1.2", "1.3a", "1.3b", "2.1", "2.2", "2.3", "3.1a", "3.1b", "3.1c"],
    "2022-23": ["1.1a", "1.1b", "1.1c", "1.2", "2.1", "2.2", "2.3", "2.4", "2.5", "3.1a", "3.1b", "3.1c"],
    "2023-24": ["1.1", "1.2", "1.3", "1.4", "2.1", "2.2", "2.3", "3.1", "3.2", "3.3", "3.4"],
}
SPEECH_FIGURES = ("losses", "similarities", "log_mel", "attention_right", "attention_failed")
IMAGE_FIGURES = (
    "train_loss", "val_acc", "original_example", "examples", "activation_maps", "filters_1", "filters_2", "confusion",
)  # fmt: skip
BEST_RATE, WORSE_RATE = 0.01, 0.001


def score(value, half_width=0.02, n=1000):
    return {"value": value, "low": value - half_width, "high": value + half_width, "n": n}


def image_result(dataset, bundled, acc=0.7, **changes):
    edition = DATASETS[dataset]
    n = edition.n_classes
    test = {
        "acc": score(acc),
        "per_class_acc": [acc] * n,
        "macro_auc": 0.9,
        "confusion": [[70 if i == j else i for j in range(n)] for i in range(n)],
    }
    history = [
        {"epoch": i, "lr": BEST_RATE, "train_loss": 1 / i, "val_loss": 1 / i, "val_acc": acc, "seconds": 1.0}
        for i in (1, 2)
    ]
    return {
        "dataset": dataset,
        "title": edition.title,
        "bundled": bundled,
        "class_names": edition.class_names,
        "learning_rate": BEST_RATE,
        "n_params": 1234567,
        "n_examples": {"train": 4000, "val": 1000, "test": 1000},
        "class_shares": {split: [1 / n] * n for split in ("train", "val", "test")},
        "dead_units": {"conv1": 0.0, "conv2": 0.25, "fc1": 0.125, "fc2": 0.0},
        "dead_images": 1000,
        "best_epoch": 2,
        "train_loss": 0.5,
        "val_acc": score(acc),
        "history": history,
        "seconds": 2.0,
        "test": {"official": test},
        "shifted_acc": [{"pixels": k, "acc": score(acc - 0.1 * k), "kept": score(1 - 0.1 * k)} for k in (0, 1, 2)],
        "balances": [0.9, -0.7, 0.1, 0.4],
        "equivariance": {"shift": 0.0, "rotation": 1.2},
        "baselines": {"majority": 0.1, "nearest_centroid": 0.5},
    } | changes


def translation_result(bundled, err_rate, **changes):
    def test(err_rate):
        return {
            "err_rate": score(err_rate),
            "cer": err_rate,
            "exact": score(0.1),
            "chrf": 40.0,
            "err_rate_seen": score(err_rate),
            "err_rate_unseen": None,
            "errors": {"insertions": 0.1, "deletions": 0.05, "substitutions": 0.25, "length": 1.05},
            "seconds": 2.0,
        }

    beam = test(err_rate - 0.01) | {
        "beam_size": 5,
        "length_penalty": 1.0,
        "difference": score(0.01, 0.001),
        "val_err_rate": score(err_rate),
        "tried": [{"beam_size": 5, "length_penalty": a, "val_err_rate": score(err_rate - 0.001 * a)} for a in (1, 0)],
        "seconds": 5.0,
    }
    drawn = [{"src": "ya voy .", "ref": "i go .", "hyp": hyp} for hyp in ("i go .", "a cat .")]
    return {
        "title": "Tatoeba, Spanish to English",
        "bundled": bundled,
        "use_attn": True,
        "n_params": 500000,
        "n_examples": {"train": 100, "val": 10, "test": 10},
        "best_epoch": 2,
        "train_loss": 0.5,
        "val_err_rate": score(err_rate),
        "history": [
            {"epoch": i, "lr": 0.003, "train_loss": 1.0, "val_loss": 1.1, "val_err_rate": 0.5, "seconds": 1.0}
            for i in (1, 2)
        ],
        "seconds": 2.0,
        "baselines": {"nearest sentence": score(0.6)},
        "test": {"greedy": test(err_rate), "beam": beam, "mbr": None},
        "examples": [{"src": "hola .", "ref": "hello .", "hyp": "hell .", "beam": "hello ."}],
        "by_length": [{"length": n} | score(err_rate) for n in (8, 12)],
        "attention": [example | {"weights": looking_at(example, 4)} for example in drawn],
    } | changes


def looking_at(example, place):
    """Attention weights (answer's letters and </s>, source letters) that all look at one letter of the source."""
    return [[0.72 if j == place else 0.04 for j in range(len(example["src"]))] for _ in f"{example['hyp']}>"]


def gains(err_rate=0.1, short=0.1, long=0.1, half_width=0.01):
    """What a run of the translator says of its counterpart, minus itself."""
    figures = {"err_rate": err_rate, "short": short, "long": long}
    return {name: score(value, half_width) for name, value in figures.items()} | {"run": "x", "middle": 12}


def paired(difference, half_width=0.01):
    """The paired differences of two decoders: `difference` in CER and WER, the opposite in the similarities."""
    better = {name: score(-difference, half_width) for name in metrics.SIMILARITIES}
    return {name: score(difference, half_width) for name in ("cer", "wer")} | better


def listened(cer=0.1, shuffled_cer=0.8, spearman=0.95, moved=1.25):
    """What `metrics.attention_report` says of clips of 1.5 s."""
    figures = {"cer": cer, "shuffled_cer": shuffled_cer, "own_minus_shuffled": cer - shuffled_cer}
    figures |= {"spearman": spearman, "moved": moved}
    return {name: score(value, 0.05) for name, value in figures.items()} | {"seconds": 1.5}


def speech_result(bundled, cer, **changes):
    greedy = {
        "cer": score(cer),
        "wer": score(0.4321),
        "exact": score(0.1),
        "loss": 0.9876,
    }
    greedy |= {"jaccard": score(0.7111), "cosine": score(0.8111)}
    greedy |= {"damerau_levenshtein": score(0.6111), "edits_minus_jaccard": score(-0.1)}
    kinds = {"insertions": 0.1, "deletions": 0.1, "substitutions": cer - 0.2, "length": 1.0}
    greedy["errors"] = kinds | {"worse_than_empty": score(0.0625), "looping": score(0.0)}
    seen = {"seconds": 1.5, "spearman": score(0.99), "moved": score(1.2)}
    scores = {f"val_{name}": 0.5 for name in (*metrics.SIMILARITIES, "wer", "cer")}
    return {
        "title": "LJ Speech",
        "bundled": bundled,
        "decoder": "recurrent",
        "n_params": 1654321,
        "n_examples": {"train": 1234, "val": 321, "test": 432},
        "best_epoch": 2,
        "train_loss": 1.2,
        "val_cer": score(cer),
        "history": [
            {"epoch": i, "lr": 0.001, "train_loss": 3.0 / i, "val_loss": 2.5 / i, "seconds": 1.0}
            | scores
            | {"plain_train_loss": 2.0 / i}
            for i in (1, 2)
        ],
        "seconds": 2.0,
        "baselines": {"the text of another clip": score(0.9191)},
        "test": {"greedy": greedy, "beam": None, "mbr": None},
        "examples": [{"src": "A", "ref": "who is it?", "hyp": "who isit?"}],
        "unrelated": {"jaccard": score(0.3412), "cosine": score(0.5123), "damerau_levenshtein": score(0.2513)},
        "differing": [{"ref": "tea", "hyp": "eat", "jaccard": 1.0, "cosine": 1.0, "damerau_levenshtein": 0.3333}],
        "train_clips": listened(),
        "attention": {
            "right": {"ref": "who is it?", "hyp": "who is it?"} | seen,
            "failed": {"ref": "go!", "hyp": "gogogo"} | seen | {"moved": score(0.1)},
        },
        "other": None,
    } | changes


def words_found(others=0.8, colours=0.6, half_width=0.02):
    """The shares of the words that are right: of the two kinds in the captions of `captioning_result`."""
    shares = {"other words": (others, ["road", "trees"]), "colours": (colours, ["brown", "red"])}
    return {
        kind: {"share": score(share, half_width, 58), "by_chance": 0.3, "n": 123, "words": words}
        for kind, (share, words) in shares.items()
    }


def captioning_result(bundled, use_attention, bleu=0.5, difference=0.03, nearest=0.1, half_width=0.01, found=None):
    greedy = {"bleu4": score(bleu - 0.02), "sentence_bleu": score(bleu)}
    yardsticks = {"words_found": found or words_found()}
    differences = {"nearest image": score(nearest, half_width)}
    if use_attention:
        differences["the decoder without attention"] = score(difference, half_width)
    yardsticks |= {"differences": differences, "bleu4_differences": differences}
    scores = {"val_bleu4": 0.4, "val_sentence_bleu": 0.4}
    history = [{"epoch": i, "lr": 0.001, "train_loss": 1.0, "seconds": 1.0} | scores for i in (1, 2)]
    return {
        "title": "Sydney-Captions, EfficientNet-Lite0, ImageNet",
        "encoder": "EfficientNet-Lite0, ImageNet",
        "bundled": bundled,
        "use_attention": use_attention,
        "n_params": 700000,
        "n_words": 123,
        "n_examples": {"train": 100, "val": 10, "test": 10},
        "best_epoch": 2,
        "train_loss": 0.5,
        "val_bleu4": score(0.4),
        "val_sentence_bleu": score(0.4),
        "history": history,
        "seconds": 2.0,
        "baselines": {"nearest image": score(0.2)},
        "bleu4_baselines": {"nearest image": score(0.3)},
        "bleu4_leave_one_out": 0.7,
        "last_epoch": {"bleu4": score(bleu), "sentence_bleu": score(bleu)},
        "test": {"greedy": greedy | yardsticks, "beam": None},
        "examples": [
            {
                "image": f"{n}.tif",
                "hyp": "a brown road",
                "refs": [f"reference of image {n}", f"a {color} road"],
                "looked": [(0, 0.05), (6, 0.25), (45, 0.125), (0, 0.1)] if use_attention else None,
            }
            for n, color in {219: "brown", 540: "red", 357: "brown"}.items()
        ],
    }


@pytest.fixture(scope="session")
def pdf_figure(tmp_path_factory):
    path = tmp_path_factory.mktemp("figure") / "figure.pdf"
    fig, ax = plots.new_figure()
    ax.plot([0, 1])
    ax.axis("off")  # no text: it would only slow the reading of the PDFs
    plots.save_figure(fig, path)
    return path


@pytest.fixture
def write_run(tmp_path, pdf_figure):
    """`write_run("q2", result, figures, dataset="octmnist")`: a finished run; returns the path of its result.

    The names of the folders are mere numbers: a run is known by its config.
    """

    def write(question, result, figures=(), kind="run", scale="full", seed=42, dataset=None, name=None, **changed):
        age = len(list((tmp_path / "runs").glob("q*/*")))
        folder = tmp_path / "runs" / question / (name or str(age))
        recipe = {"learning_rate": 0.003, "dropout": 0.3, "hidden_size": 128, "batch_size": 64, "epochs": 2}
        recipe |= {"warmup": 0.15, "label_smoothing": 0.1}
        recipe |= {"max_grad_norm": 5.0, "network": "cnn", "shift": 0, "image_size": 224}
        recipe |= {"batch_of": "captions", "embedding_size": 100, "attention_size": 100, "clip_value": 5.0}
        recipe |= {"features": "raw", "attention_activation": "relu"}
        options_ = recipe | {"seed": seed, "scale": scale} | changed
        config = {
            "kind": kind,
            "options": options_ | ({"dataset": dataset} if dataset else {}),
            "changed": changed,
            "data": {"bundled": result["bundled"], "fingerprint": "f"},
            "hardware": {"cpu": "abacus", "n_cpus": 1},
            "versions": {"python": "3.99.1", "torch": "9.8.7"},
        }
        files.write_json(folder / runs.CONFIG, config)
        files.write_json(folder / runs.RESULT, result)
        os.utime(folder / runs.RESULT, (10 * age, 10 * age))  # seconds: newer than the last on any file system
        for figure in figures:
            shutil.copy(pdf_figure, folder / f"{figure}.pdf")
        return folder / runs.RESULT

    return write


@pytest.fixture
def write_images(write_run):
    """`write_images("octmnist")`: the comparison of three rates, and the best run; returns the path of its result."""

    def write(dataset, bundled=False, scale="full", **changes):
        best = write_run(
            "q2",
            image_result(dataset, bundled, **changes),
            IMAGE_FIGURES,
            scale=scale,
            dataset=dataset,
            learning_rate=BEST_RATE,
        )
        rates = DATASETS[dataset].learning_rates
        entries = [
            {
                "learning_rate": rate,
                "seed": 42,
                "run": best.parent.name if rate == BEST_RATE else "elsewhere",
                "error": None,
                "val_acc": score(0.7 if rate == BEST_RATE else 0.3),
            }
            for rate in rates
        ]
        (chosen,) = [entry for entry in entries if entry["learning_rate"] == BEST_RATE]
        comparison = {"title": DATASETS[dataset].title, "bundled": bundled, "entries": entries, "best": chosen}
        write_run(
            "q2",
            comparison,
            ("train_loss", "val_acc"),
            kind="comparison",
            scale=scale,
            dataset=dataset,
            learning_rate=list(rates),
        )
        return best

    return write


def write_captioning(write_run, bundled, use_attention, **changes):
    figures = ["train_loss", "val_sentence_bleu", *(f"caption_{n}" for n in (219, 540, 357))]
    figures += [f"attention_{n}" for n in (219, 540, 357)] if use_attention else []
    result = captioning_result(bundled, use_attention, **changes)
    changed = {"use_attention": True} if use_attention else {}
    return write_run("q3-captioning", result, figures, dataset="sydney", **changed)


@pytest.fixture
def write_speech(write_run):
    """`write_speech(False, 0.4)`: a run of the recurrent decoder with that CER; returns its result's path."""

    def write(
        bundled, cer, figures=SPEECH_FIGURES, decoder="recurrent", scale="full", seed=42, options_=None, **changes
    ):
        result = speech_result(bundled, cer, decoder=decoder, **changes)
        changed = ({"decoder": decoder} if decoder != "recurrent" else {}) | (options_ or {})
        return write_run("q3-asr", result, figures, scale=scale, seed=seed, **changed)

    return write


@pytest.fixture
def write_all(write_run, write_images, write_speech):
    """Every run of Questions 2 and 3 that the reports know, on real or on bundled data; returns some paths by name."""

    def write(bundled):
        paths = {dataset: write_images(dataset, bundled) for dataset in DATASETS}
        pooled = {"only_a": 20, "only_b": 10, "p_value": 0.1, "difference": score(0.01)}
        strided = image_result("octmnist", bundled, pooled=pooled | {"acc": score(0.7)})
        write_run("q2", strided, IMAGE_FIGURES, dataset="octmnist", learning_rate=BEST_RATE, no_maxpool=True)
        for changed, acc in (
            ({"shuffle_pixels": True}, 0.5),
            ({"network": "mlp"}, 0.6),
            ({"network": "mlp", "shuffle_pixels": True}, 0.6),
        ):
            result = image_result("kuzushiji_mnist", bundled, acc)
            write_run("q2", result, IMAGE_FIGURES, dataset="kuzushiji_mnist", learning_rate=BEST_RATE, **changed)
        write_run("q3", translation_result(bundled, 0.5), ("attn_False_err_rate", "train_loss"))
        attention = [f"attention_{i}" for i in range(1, 5)]
        paths["attention"] = write_run(
            "q3",
            translation_result(bundled, 0.4),
            ("attn_True_err_rate", "train_loss", *attention),
            use_attn=True,
        )
        write_speech(bundled, 0.4)
        write_speech(bundled, 0.3, decoder="transformer", other={"decoder": "recurrent"} | paired(0.1))
        for use_attention in (False, True):
            write_captioning(write_run, bundled, use_attention)
        return paths

    return write


@pytest.fixture
def compile_text(tmp_path):
    """Compile one edition from tmp_path / "runs"; returns the text of the PDF as one line."""

    def compile_(year):
        assert build.main(["-edition", year, "-runs_dir", str(tmp_path / "runs"), "-output_dir", str(tmp_path)]) == 0
        text = " ".join(page.extract_text() for page in PdfReader(tmp_path / f"hw2-{year}.pdf").pages)
        return " ".join(text.split())

    return compile_


def change(path, value, *keys):
    """Set one value inside a JSON file."""
    result = json.loads(path.read_text())
    inner = result
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(result))


def headings(pdf):
    """The numbers of the questions in the PDF's outline; their titles have to stand in the text, each on its line."""
    lines = {line.strip() for page in pdf.pages for line in page.extract_text().splitlines()}
    titles = [entry.title for part in pdf.outline if isinstance(part, list) for entry in part]
    assert lines.issuperset(titles)
    return [title.split()[0] for title in titles]


@pytest.mark.parametrize("year", QUESTIONS)
def test_every_question_has_its_heading_in_order(year, write_all, compile_text, tmp_path):
    write_all(bundled=True)
    everything = sorted(path.parent for path in (tmp_path / "runs").glob("*/*/result.json"))
    for state in ("all was run", "one was run"):
        if state == "one was run":
            for folder in everything:
                if runs.Found(folder).config["options"].get("dataset") != EDITIONS[year].dataset:
                    shutil.rmtree(folder)
        compile_text(year)
        assert headings(PdfReader(tmp_path / f"hw2-{year}.pdf")) == QUESTIONS[year], state


@pytest.mark.parametrize(
    "year, commands",
    [
        ("2021-22", ["hw2-q1.py --edition 2021-22", "hw2-q2.py -dataset fashion_mnist", "hw2-q3-captioning.py"]),
        (
            "2022-23",
            [
                "hw2-q1.py --edition 2022-23",
                "hw2-q2.py -dataset kuzushiji_mnist",
                "hw2-q2.py -dataset kuzushiji_mnist -network mlp -shuffle_pixels",
                "hw2-q3.py",
                "hw2-q3.py --use_attn --beam_size 5 --length_penalty 0 0.25 0.5 1 --n_samples 64",
            ],
        ),
        ("2023-24", ["hw2-q1.py --edition 2023-24", "hw2-q2.py -dataset octmnist -no_maxpool", "hw2-q3-asr.py"]),
    ],
)
def test_what_was_not_run_is_a_box_with_its_command(
    year, commands, compile_text, write_run, write_speech, capsys, tmp_path
):
    text = compile_text(year).replace("- ", "-")  # a long command may be broken after a dash
    warnings = capsys.readouterr().err
    for command in commands:
        assert re.search(rf"python {re.escape(command)}(?! -)", text)
        assert f"warning: hw2-{year}: not run: python {command}\n" in warnings
    assert len(PdfReader(tmp_path / f"hw2-{year}.pdf").pages) == 1 and "Nothing was run yet" in text
    write_speech(True, 0.4, decoder="transformer")  # one run of each edition
    write_run("q3", translation_result(True, 0.4), use_attn=True)
    write_captioning(write_run, True, True)
    text = compile_text(year).replace("- ", "-")
    for command in commands:
        if "--use_attn" not in command:
            assert re.search(rf"Not run\.[^:]*: python {re.escape(command)}(?! -)", text), command


def test_changed_numbers_appear(write_all, write_images, tmp_path, compile_text):
    paths = write_all(bundled=False)
    best, attention = paths["kuzushiji_mnist"], paths["attention"]
    before = compile_text("2022-23")
    for number in ("65.4 %", "0.337", "7,654,321"):
        assert number not in before
    change(best, 0.6543, "test", "official", "acc", "value")
    change(best, 7654321, "n_params")
    change(attention, 0.337, "test", "greedy", "err_rate", "value")
    after = compile_text("2022-23")
    for number in ("65.4 %", "0.337", "7,654,321"):
        assert number in after


def test_changed_numbers_of_both_decoders_appear(write_speech, compile_text):
    changes = [
        (0.123, "test", "greedy", "loss"),
        (0.234, "test", "greedy", "jaccard", "value"),
        (0.345, "test", "greedy", "cosine", "value"),
        (0.456, "test", "greedy", "damerau_levenshtein", "value"),
        (0.567, "test", "greedy", "wer", "value"),
        (0.678, "val_cer", "value"),
        (0.789, "train_clips", "spearman", "value"),
        (0.891, "differing", 0, "cosine"),
        (0.987, "test", "greedy", "errors", "substitutions"),
        ("who waz it", "examples", 0, "hyp"),
        (7654321, "n_params"),
    ]
    for decoder, cer in (("recurrent", 0.4), ("transformer", 0.3)):
        path = write_speech(True, cer, decoder=decoder)
        before = compile_text("2023-24")
        for value, *keys in changes:
            assert f"{value:,}" not in before if isinstance(value, int) else str(value) not in before
            change(path, value, *keys)
        after = compile_text("2023-24")
        for value, *keys in changes:
            assert f"{value:,}" in after if isinstance(value, int) else str(value) in after, (decoder, keys)
        for _, *keys in changes:  # the other decoder's turn begins without these numbers
            change(path, speech_value(keys), *keys)


def speech_value(keys):
    """What `speech_result` has under `keys`."""
    value = speech_result(True, 0.4)
    for key in keys:
        value = value[key]
    return value


def test_the_floor_of_the_training_loss_is_the_entropy_of_the_smoothed_target(write_speech, compile_text):
    write_speech(True, 0.4)
    target = torch.full((35,), 0.1 / 35)
    target[3] += 0.9
    loss = torch.nn.functional.cross_entropy(target.log(), torch.tensor(3), label_smoothing=0.1)
    assert f"the entropy of these weights, {loss:.2f}" in compile_text("2023-24")


FOR_ATTENTION = "All intervals leave 0 out, and all differences are in favour of the attention decoder."
FOR_RECURRENT = FOR_ATTENTION.replace("attention", "recurrent")
OPEN = "All intervals contain 0: on these clips the two decoders cannot be told apart."


@pytest.mark.parametrize("second", ["recurrent", "transformer"])  # the run that was made second has the difference
@pytest.mark.parametrize(
    "recurrent, transformer, half_width, said",
    [(0.4, 0.3, 0.01, FOR_ATTENTION), (0.3, 0.4, 0.01, FOR_RECURRENT), (0.4, 0.3, 0.2, OPEN), (0.3, 0.4, 0.2, OPEN)],
)
def test_words_on_the_decoders_follow_the_intervals(
    second, recurrent, transformer, half_width, said, write_speech, compile_text
):
    cers = {"recurrent": recurrent, "transformer": transformer}
    for decoder, cer in cers.items():
        (other,) = cers.keys() - {decoder}
        compared = {"decoder": other} | paired(cers[other] - cer, half_width)
        write_speech(True, cer, decoder=decoder, other=compared if decoder == second else None)
    text = compile_text("2023-24")
    difference = recurrent - transformer
    shown = f"{difference:.3f} [{difference - half_width:.3f}, {difference + half_width:.3f}]"
    assert shown.replace("-", "\u2212") in text
    ahead = {FOR_ATTENTION: "The attention decoder has the lower error rate.", OPEN: "Neither decoder is shown to be"}
    assert ahead.get(said, "The recurrent decoder has the lower error rate.") in text
    assert ("Here the order is the opposite one." in text) == (said == FOR_RECURRENT)
    assert [words for words in (FOR_ATTENTION, FOR_RECURRENT, OPEN) if words in text] == [said]


def test_measures_of_the_decoders_may_disagree(write_speech, compile_text):
    other = paired(0.1) | {"jaccard": score(0.1, 0.01), "cosine": score(0.1, 0.2)}
    write_speech(True, 0.4)
    write_speech(True, 0.3, decoder="transformer", other={"decoder": "recurrent"} | other)
    text = compile_text("2023-24").replace("- ", "").replace("-", "")  # where a line ends
    assert "In CER, WER and DamerauLevenshtein the interval leaves 0 out, in favour of the attention decoder." in text
    assert "In Jaccard the" in text  # a page may end here
    assert "interval leaves 0 out, in favour of the recurrent decoder." in text
    assert "In cosine the interval contains 0: a difference is not shown." in text
    del other["wer"]  # as a run of before has it
    write_speech(True, 0.3, decoder="transformer", other={"decoder": "recurrent"} | other)
    text = compile_text("2023-24").replace("- ", "").replace("-", "")
    assert "In CER and DamerauLevenshtein the interval leaves 0 out" in text


def test_the_difference_from_a_run_that_is_gone_does_not_enter(write_speech, compile_text):
    write_speech(True, 0.4)
    write_speech(True, 0.3, decoder="transformer", other={"decoder": "recurrent"} | paired(0.25))
    text = compile_text("2023-24")
    assert "Not run. The paired difference of these two runs" in text
    assert "0.250" not in text


@pytest.mark.parametrize("decoder, missing", [("recurrent", "attention"), ("transformer", "recurrent")])
def test_one_decoder_without_the_other(decoder, missing, write_speech, compile_text):
    write_speech(True, 0.4, decoder=decoder)
    text = compile_text("2023-24")
    assert f"Not run. {missing.capitalize()} decoder: losses and similarities by epoch" in text
    assert "Not run. One side of the comparison of both decoders" in text
    assert f"For the {missing} decoder" not in text


def test_speech_without_validation_clips(write_speech, compile_text):
    for decoder in ("recurrent", "transformer"):
        history = [{"epoch": i, "lr": 0.001, "train_loss": 3.0 / i, "seconds": 1.0} for i in (1, 2)]
        write_speech(
            True, 0.4, ("log_mel", "attention_right", "attention_failed"), decoder, val_cer=None, history=history
        )
    write_speech(True, 0.4, options_={"spec_augment": True}, val_cer=None, history=history)
    write_speech(True, 0.4, options_={"dropout": 0.1})
    text = compile_text("2023-24")
    assert text.count("There were no validation clips") == 2
    assert "is missing" not in text
    assert text.index("dropout 0.1 (1,234 clips)") < text.index("spec augment (1,234 clips)")


def test_speech_that_was_not_tested(write_speech, compile_text):
    for decoder in ("recurrent", "transformer"):
        write_speech(True, 0.4, ("losses", "similarities", "log_mel"), decoder, test=None)
    text = compile_text("2023-24")
    assert text.count("Not run. The test of this run") == 2
    assert "is missing" not in text


@pytest.mark.parametrize("shuffled, spearman, listens", [(0.8, 0.95, True), (0.12, -0.1, False)])
def test_words_on_listening_follow_the_numbers(shuffled, spearman, listens, write_speech, compile_text):
    write_speech(True, 0.4, train_clips=listened(shuffled_cer=shuffled, spearman=spearman))
    text = compile_text("2023-24")
    assert ("it uses the sound, its CER is lower for the own clip" in text) == listens
    assert ("its attention moves forward by 1.25 s, 83 % of a clip." in text) == listens
    assert ("that it uses the sound is not shown" in text) != listens
    assert ("that its attention moves forward is not shown." in text) != listens


@pytest.mark.parametrize(
    "spearman, moved, seen",
    [(0.99, 1.2, "the dark cells run from"), (0.5, 1.2, "but with steps back"), (0.99, 0.1, "no diagonal is seen")],
)
def test_words_on_a_picture_of_attention_follow_its_path(spearman, moved, seen, write_speech, compile_text):
    attention = speech_result(True, 0.4)["attention"]
    path = {"seconds": 1.5, "spearman": score(spearman), "moved": score(moved)}
    write_speech(True, 0.4, attention={name: clip | path for name, clip in attention.items()})
    text = compile_text("2023-24")
    sights = ("the dark cells run from", "but with steps back", "no diagonal is seen")
    assert [words for words in sights if words in text] == [seen]


def test_words_on_the_errors_follow_their_kinds(write_speech, compile_text):
    kinds = {"insertions": 0.7, "deletions": 0.1, "substitutions": 0.2, "length": 1.6, "looping": score(0.1234)}
    greedy = speech_result(True, 1.4)["test"]["greedy"]
    for worse, said in (
        (0.5, "50.0 % of its answers are worse than silence"),
        (0.0, "no answer is worse than silence"),
    ):
        errors = kinds | {"worse_than_empty": score(worse)}
        write_speech(True, 1.4, test={"greedy": greedy | {"errors": errors}, "beam": None, "mbr": None})
        text = compile_text("2023-24")
        assert "errs most by insertions" in text and "it does not find the end" in text and said in text
        assert "12.3 % loop" in text and "more errors than an empty" in text


@pytest.mark.parametrize("jaccard, exceeds", [(0.7, True), (0.3, False)])
def test_similarities_are_measured_by_those_of_unrelated_texts(jaccard, exceeds, write_speech, compile_text):
    greedy = speech_result(True, 0.4)["test"]["greedy"] | {"jaccard": score(jaccard)}
    write_speech(True, 0.4, test={"greedy": greedy, "beam": None, "mbr": None})
    text = compile_text("2023-24")
    assert ("exceeds it in all three" in text) == exceeds
    assert ("does not exceed it in Jaccard" in text) != exceeds


def test_beam_search_and_other_seeds_of_a_decoder(write_speech, compile_text):
    result = speech_result(True, 0.4)
    beam = result["test"]["greedy"] | {"cer": score(0.3777), "beam_size": 5, "length_penalty": 0.5}
    result["test"]["beam"] = beam | {"difference": score(0.0223, 0.001), "val_cer": score(0.3)}
    risk = {"n_samples": 64, "cer": score(0.3888), "difference": score(0.0112, 0.05)}
    result["test"]["mbr"] = result["test"]["beam"] | risk
    write_speech(True, 0.4, test=result["test"])
    write_speech(True, 0.4444, seed=43)
    write_speech(True, 0.3, decoder="transformer")
    text = compile_text("2023-24")
    assert "A beam of 5, with the length penalty that is best on validation, has a CER of 0.378" in text
    assert "the search is better (0.0223, interval 0.0213 to 0.0233)" in text
    assert "64 samples has a CER of 0.389" in text
    assert text.count("clip by clip: a difference is not shown") == 1
    assert "Other seeds (43) reach a CER of 0.444" in text
    assert "Over the seeds" not in text
    write_speech(True, 0.3333, decoder="transformer", seed=44)
    text = compile_text("2023-24")
    assert "decoder goes from 0.400 to 0.444 (2 seeds), that of the attention decoder from 0.300 to 0.333" in text


def test_speech_references_are_those_of_the_runs(write_speech, compile_text):
    named = {"bundled": "eSpeak NG", "spec_augment": "SpecAugment", "ctc_weight": "Connectionist"}
    assert not any(name in compile_text("2023-24").partition("References")[2] for name in named.values())
    write_speech(True, 0.4)
    write_speech(True, 0.4, options_={"spec_augment": True})
    write_speech(True, 0.4, options_={"ctc_weight": 0.3})
    references = compile_text("2023-24").partition("References")[2]
    assert all(name in references for name in named.values())


def test_results_of_question_1_enter(monkeypatch, tmp_path, compile_text):
    """The results as hw2-q1.py writes them, at small sizes and without the clock, which would take most of the time."""
    from theory import convolution, costs

    monkeypatch.setattr(costs, "median_seconds", lambda function, *args: len(args[0]) ** 2 * 1e-6)
    monkeypatch.setattr(convolution, "SIDES", range(2, 7))
    check_edition = load_script("hw2-q1.py").check_edition
    for year, key in {"2021-22": "dense_connections", "2022-23": "matrix_nonzero", "2023-24": "n_features"}.items():
        folder = tmp_path / "runs/q1" / year
        folder.mkdir(parents=True)
        assert check_edition(year, options.DEFAULT_SEED, folder)
        change(folder / runs.RESULT, 86420, "values", key)  # a number that nothing else in a report has
        text = compile_text(year)
        assert not re.search(rf"Not run\.[^:]*: python hw2-q1.py --edition {year}", text)
        assert "The claims of Question 1." in text
        assert re.search(r"\b86,?420\b", text)


@pytest.mark.parametrize("bundled", [True, False])
def test_bundled_data_are_named_at_the_head_of_each_question(bundled, write_all, compile_text):
    """Once for each question with its data, in the titles of the figures that are drawn here, and in no sentence."""
    write_all(bundled)
    for year, dataset in EDITIONS.items():
        text = compile_text(year)
        assert ("bundled" in text.lower()) == bundled
        heads = re.findall(r"Data of this question: ([^;]*);", text)
        assert len(heads) == 2 and dataset.title in heads[0]
        assert all((", bundled" in head) == bundled for head in heads)
        assert (f"{dataset.title} (bundled)" in text) == bundled
        assert "bundled data)" not in text


def test_every_figure_and_table_is_cited(write_all, compile_text):
    write_all(bundled=True)
    for year in EDITIONS:
        text = compile_text(year)
        for kind in ("Figure", "Table"):
            captions = set(re.findall(rf"{kind} (\d+):", text))
            assert captions == {str(n) for n in range(1, len(captions) + 1)} and len(captions) >= 3
            for number in captions:
                assert re.search(rf"{kind} {number}(?![\d:])", text), (year, kind, number)


def test_the_references_are_those_that_the_text_cites(write_all, compile_text):
    write_all(bundled=True)
    for year in EDITIONS:
        text, _, references = compile_text(year).rpartition("References")
        cited = {n for group in re.findall(r"\[(\d+)\]", text) for n in [int(group)]}
        listed = [int(n) for n in re.findall(r"\[(\d+)\] ", references)]
        assert listed == list(range(1, len(listed) + 1)) and cited >= set(listed)
        assert f"Student report, {year}" in references


def test_same_runs_give_the_same_bytes_wherever_they_lie(write_all, tmp_path):
    write_all(bundled=True)
    shutil.copytree(tmp_path / "runs", tmp_path / "elsewhere")
    for year in QUESTIONS:
        pdfs = []
        for folder in ("runs", "elsewhere"):
            build.main(["-edition", year, "-runs_dir", str(tmp_path / folder), "-output_dir", str(tmp_path)])
            pdfs.append((tmp_path / f"hw2-{year}.pdf").read_bytes())
        assert pdfs[0] == pdfs[1]


def test_full_comes_before_quick_and_real_before_bundled(write_images, tmp_path, compile_text):
    for bundled, scale, params in (
        (True, "quick", 1000001),
        (False, "quick", 1000002),
        (True, "full", 1000003),
        (False, "full", 1000004),
    ):
        write_images("octmnist", bundled, scale, n_params=params)
        found = build.gather("2023-24", tmp_path / "runs")["runs"]
        assert found["best"]["result"]["n_params"] == params


def history_of(accuracies, losses):
    """A history with these validation accuracies, and losses of training and of validation, by epoch."""
    return [
        {"epoch": i, "lr": 0.1, "train_loss": train, "val_loss": val, "val_acc": acc, "seconds": 1.0}
        for i, (acc, (train, val)) in enumerate(zip(accuracies, losses, strict=True), start=1)
    ]


FALLING = [(2.0, 2.0), (1.5, 1.6), (1.0, 1.5), (0.5, 1.4)]
DEAD = {"dead_units": {"conv1": 0.25, "conv2": 0.9375, "fc1": 0.98, "fc2": 1.0}, "dead_images": 1000}
SHARES = {"class_shares": dict.fromkeys(("train", "val", "test"), [0.4, 0.35, 0.15, 0.1])}


@pytest.mark.parametrize(
    "best, accuracies, losses, more, said",
    [
        (3, [0.2, 0.5, 0.8, 0.7], FALLING, {}, ["ends below its peak, 80.0 % in epoch 3: the last epoch has 70.0 %"]),
        (4, [0.2, 0.5, 0.6, 0.8], FALLING, {}, ["still climbs, from 20.0 % in epoch 1 to 80.0 % in the last"]),
        (3, [0.2, 0.7, 0.8, 0.79], FALLING, {}, ["settles. Its best epoch is 3"]),
        (
            3,
            [0.2, 0.7, 0.8, 0.79],
            [*FALLING[:3], (0.4, 1.9)],
            {},
            ["the validation loss rises from 1.50 (epoch 3) to 1.90 while the training loss falls"],
        ),
        (
            2,
            [0.1, 0.4, 0.4, 0.1],
            [(1.386, 1.386)] * 4,
            SHARES | DEAD,
            ["learns nothing", "In 4 of 4 epochs the accuracy is exactly the share", "100 % of fc2"],
        ),
        (
            1,
            [0.4, 0.4, 0.4, 0.4],
            [(1.3, 1.2)] * 4,
            SHARES,
            [
                "learns nothing",
                "but how frequent the classes are",
                "is 40.0 % in all epochs",
                "the shares of the classes as the",
            ],
        ),
        (
            3,
            [0.2, 0.7, 0.8, 0.79],
            [*FALLING[:3], (0.4, FALLING[2][1] + 0.004)],  # the same in two digits
            {},
            ["settles. Its best epoch is 3, and the last one, with 79.0 %, lies within the interval of the best."],
        ),
        (
            4,
            [0.4, 0.4, 0.5, 0.7],
            FALLING,
            SHARES,
            ["gives one answer to all images in 2 of 4 epochs", "exactly 40.0 %", "CNV", "reaches 70.0 %"],
        ),
    ],
)
def test_words_on_a_learning_rate_follow_its_history(best, accuracies, losses, more, said, write_images, compile_text):
    changes = {"history": history_of(accuracies, losses), "best_epoch": best, "val_acc": score(accuracies[best - 1])}
    write_images("octmnist", **changes, **more)
    text = compile_text("2023-24")
    kinds = ("below its peak", "settles.", "learns nothing", "gives one answer", "still climbs", "has hardly begun")
    for words in said:
        assert words in text
    expected = {kind for kind in kinds if any(kind in words for words in said)} or {"settles."}
    found = {kind for kind in kinds if kind in text}
    assert expected <= found <= expected | {"still climbs"}
    assert ("The cause is in its units" in text) == ("dead_units" in more)


@pytest.mark.parametrize("best, overfits", [(1, True), (3, False)])
def test_a_rise_in_the_last_epoch_alone_is_not_called_overfitting(best, overfits, write_images, compile_text):
    """The validation loss is lowest in the best epoch, and both networks end below their peak."""
    accuracies = [0.8 if i == best else 0.5 for i in (1, 2, 3, 4)]
    losses = [(2.0 - 0.4 * i, 1.0 if i == best else 1.5) for i in (1, 2, 3, 4)]
    write_images("octmnist", history=history_of(accuracies, losses), best_epoch=best, val_acc=score(0.8))
    text = compile_text("2023-24")
    assert "ends below its peak" in text
    assert ("while the training loss falls: it overfits" in text) == overfits


def test_a_single_run_of_a_rate_enters_and_the_comparison_is_missing(write_run, compile_text, capsys):
    """The handout's own command, `hw2-q2.py -learning_rate 0.0005`."""
    for rate, acc, there, found in (
        (0.0005, 0.8123, "0.0005", "The one learning rate that was run is 0.0005"),
        (0.00001, 0.5123, "0.00001 and 0.0005", "The best learning rate on validation is 0.0005"),
        (0.3, 0.9123, "0.00001 and 0.0005", "The best learning rate on validation is 0.0005"),  # not the handout's
    ):
        result = image_result("kuzushiji_mnist", False, acc, learning_rate=rate)
        write_run("q2", result, IMAGE_FIGURES, dataset="kuzushiji_mnist", learning_rate=rate)
        text = compile_text("2022-23")
        assert f"Not run. The comparison of the learning rates 0.00001, 0.0005, 0.01; there is only {there}:" in text
        assert found in text and "81.2 %" in text
        assert "not run: python hw2-q2.py -dataset kuzushiji_mnist\n" in capsys.readouterr().err
        assert "91.2 %" not in text.partition("Choices beyond")[0]


def test_other_seeds_are_drawn_with_their_run(write_images, write_run, compile_text):
    write_images("kuzushiji_mnist")
    assert "thin lines: other seeds" not in compile_text("2022-23")
    result = image_result("kuzushiji_mnist", False, 0.6543)
    write_run("q2", result, dataset="kuzushiji_mnist", learning_rate=BEST_RATE, seed=43)
    text = compile_text("2022-23")
    assert "thin lines: other seeds" in text and "Other seeds (43) reach 65.4 %." in text
    assert "-learning_rate 0.01 -seed 43" in text


def test_a_command_names_the_threads_that_were_asked_for(write_run, compile_text):
    """They decide about the last digits; the result knows with how many the network was trained."""
    result = image_result("kuzushiji_mnist", False, learning_rate=0.0005)
    for given, trained, named in ((None, 2, ""), (1, 1, " -threads 1"), (3, 2, " -threads 2")):
        changes = {"name": "a", "dataset": "kuzushiji_mnist", "threads": given}
        path = write_run("q2", result | {"threads": trained}, IMAGE_FIGURES, **changes)
        change(path.with_name(runs.CONFIG), {"learning_rate": 0.0005}, "changed")
        text = compile_text("2022-23")
        command = "python hw2-q2.py -dataset kuzushiji_mnist -learning_rate 0.0005"
        assert re.search(re.escape(command + named) + r"\s*q2/a", text), text


@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize("recall, explained", [(0.9, "So 72 % of the gap"), (0.5, "So the mix explains only 0 %")])
def test_the_gap_between_validation_and_the_test_set_is_explained(
    recall, explained, subset, write_images, compile_text
):
    """Recalls of 0.9 or 0.5 for a class that is 0.7 of validation, 0.5 for the others; 0.85 on validation."""
    path = write_images("octmnist")
    official = json.loads(path.read_text())["test"]["official"]
    official |= {"acc": score((recall + 1.5) / 4), "per_class_acc": [0.5, 0.5, 0.5, recall]}
    shares = {"train": [0.1, 0.1, 0.1, 0.7], "val": [0.1, 0.1, 0.1, 0.7], "test": [0.25] * 4}
    change(path, {"official": official} | ({"course_529": official} if subset else {}), "test")
    change(path, score(0.85), "val_acc")
    change(path, shares, "class_shares")
    found = compile_text("2023-24")
    weighted = 0.7 * recall + 0.3 * 0.5
    assert f"{100 * weighted:.1f} %" in found and explained in found
    assert ("to which the course\u2019s loader cuts the set" in found) == subset


@pytest.mark.parametrize(
    "strided_falls, said",
    [
        ((0.2, 0.1), ("as one expects, but", "it is 20.0 points and 10.0 points: at 2 pixels pooling loses more")),
        ((0.05, 0.3), ("against the expectation", "it is 20.0 points and 30.0 points: at 1 pixel pooling loses more")),
    ],
)
def test_words_on_shifts_follow_the_falls_of_accuracy(strided_falls, said, write_images, write_run, compile_text):
    write_images("octmnist")  # its accuracy falls by 0.1 a pixel
    pooled = {
        "only_a": 20,
        "only_b": 10,
        "p_value": 0.1,
        "difference": score(0.01),
        "acc": score(0.7),
    }
    falls = [{"pixels": k, "acc": score(0.6 - fall)} for k, fall in enumerate((0.0, *strided_falls))]
    result = image_result("octmnist", False, 0.6, pooled=pooled, shifted_acc=falls)
    write_run("q2", result, IMAGE_FIGURES, dataset="octmnist", learning_rate=BEST_RATE, no_maxpool=True)
    text = compile_text("2023-24")
    assert all(words in text for words in said)
    assert "The evidence favours neither." in text  # 0.01 with an interval of 0.02 on either side


def test_runs_of_another_setting_are_not_compared(write_images, write_run, tmp_path):
    write_images("octmnist")
    strided = image_result("octmnist", bundled=True)
    write_run("q2", strided, IMAGE_FIGURES, dataset="octmnist", scale="quick", learning_rate=0.01, no_maxpool=True)
    found = build.gather("2023-24", tmp_path / "runs")["runs"]
    assert found["best"]["result"] is not None
    assert found["strided"]["result"] is None


def test_the_courses_sentences_and_those_of_tatoeba_are_not_compared(write_run, tmp_path):
    write_run("q3", translation_result(False, 0.4), dataset="course")
    write_run("q3", translation_result(False, 0.3), dataset="tatoeba", use_attn=True)
    found = build.gather("2022-23", tmp_path / "runs")["runs"]
    assert found["translator"]["result"]["test"]["greedy"]["err_rate"]["value"] == 0.4
    assert found["translator_attention"]["result"] is None


def test_other_recipes_and_seeds_are_reported(write_images, write_run, compile_text):
    write_images("fashion_mnist")
    dropout = image_result("fashion_mnist", False, 0.7321)
    write_run("q2", dropout, dataset="fashion_mnist", learning_rate=0.01, dropout=0.5)
    write_run("q2", image_result("fashion_mnist", False, 0.7123), dataset="fashion_mnist", learning_rate=0.01, seed=43)
    text = compile_text("2021-22")
    assert "learning rate 0.01, dropout 0.5" in text and "73.2 %" in text
    assert "Other seeds (43) reach 71.2 %." in text


def test_another_recipe_stands_beside_the_run_that_was_asked_for(write_run, compile_text):
    write_run("q3", translation_result(False, 0.4), use_attn=True)
    write_run("q3", translation_result(False, 0.3), use_attn=True, schedule="cosine")
    text = compile_text("2022-23")
    assert "(use attn, schedule cosine) has a test error rate of 0.300 (0.280 to 0.320) with greedy" in text
    assert "The run of 3.1b has 0.400 (0.380 to 0.420)." in text


@pytest.mark.parametrize(
    "comparison",
    [
        {"learning_rate": [0.1, 0.2]},  # other rates than the handout's
        {"learning_rate": [0.1, 0.01, 0.001], "dropout": 0.5},  # another network
        {"learning_rate": 0.1, "seed": [42, 43]},  # seeds
    ],
)
def test_a_comparison_that_no_question_asks_for_does_not_enter(
    comparison, write_images, write_run, compile_text, tmp_path
):
    entries = [{"learning_rate": 0.2, "run": "octmnist-my-best", "error": None, "val_acc": score(0.987)}]
    result = {"title": "OCTMNIST", "bundled": False, "entries": entries, "best": entries[0]}
    write_run("q2", result, kind="comparison", dataset="octmnist", name="octmnist", **comparison)
    assert build.gather("2023-24", tmp_path / "runs")["runs"]["rates"]["result"] is None
    before = compile_text("2023-24")
    write_run(
        "q2", image_result("octmnist", False, 0.987), dataset="octmnist", learning_rate=0.2, name="octmnist-my-best"
    )
    assert "98.7" not in before
    assert build.gather("2023-24", tmp_path / "runs")["runs"]["best"]["result"] is None
    write_images("octmnist")
    assert build.gather("2023-24", tmp_path / "runs")["runs"]["best"]["result"]["val_acc"]["value"] == 0.7


@pytest.mark.parametrize("kind", ["folder", "dangling link"])
def test_a_figure_that_is_no_file_is_a_box(kind, write_images, compile_text):
    path = write_images("octmnist").with_name("confusion.pdf")
    path.unlink()
    path.mkdir() if kind == "folder" else path.symlink_to("nowhere")
    assert "confusion.pdf is missing" in compile_text("2023-24")


@pytest.mark.parametrize("low, is_shown", [(0.004, True), (-0.004, False)])
def test_words_on_beam_search_follow_the_interval(low, is_shown, write_run, compile_text):
    result = translation_result(False, 0.4)
    result["test"]["beam"]["difference"] = {"value": 0.01, "low": low, "high": 0.016, "n": 1000}
    write_run("q3", result, use_attn=True)
    text = compile_text("2022-23")
    assert f"0.0100 [{low:.4f}, 0.0160]".replace("-", "\u2212") in text
    assert ("For the beam the interval contains 0" in text) != is_shown
    assert ("The beam lowers the error rate" in text) == is_shown


def test_minimum_risk_enters_where_it_was_tested(write_run, compile_text):
    result = translation_result(False, 0.4)
    write_run("q3", result, use_attn=True)
    assert "Minimum risk" not in compile_text("2022-23")
    result["test"]["mbr"] = result["test"]["beam"] | {"n_samples": 64, "err_rate": score(0.3456)}
    write_run("q3", result, use_attn=True)
    text = compile_text("2022-23")
    assert "Minimum risk, 64 samples" in text and "0.346" in text


@pytest.mark.parametrize("without, with_attention, is_open", [(0.5, 0.4, False), (0.4, 0.39, True), (0.4, 0.5, False)])
def test_words_on_attention_follow_the_numbers(without, with_attention, is_open, write_run, compile_text):
    write_run("q3", translation_result(False, without))
    write_run("q3", translation_result(False, with_attention), use_attn=True)
    text = compile_text("2022-23")
    assert f"The test error rate goes from {without:.3f} to {with_attention:.3f}" in text
    assert ("With these runs a difference is not shown" in text) == is_open


@pytest.mark.parametrize("second", ["with attention", "without"])
@pytest.mark.parametrize(
    "others, said",
    [
        (gains(0.1, 0.05, 0.15), ["Attention lowers the test error rate", "larger on long sentences"]),
        (gains(0.1, 0.15, 0.05), ["Attention lowers the test error rate", "larger on short sentences"]),
        (gains(0.1, 0.1, 0.11), ["Attention lowers the test error rate", "grows with the length is not shown"]),
        (gains(0.1, half_width=0.2), ["A difference is not shown", "0.100 (\u22120.100 to 0.300)"]),
    ],
)
def test_words_on_the_gain_of_attention_follow_the_interval(others, said, second, write_run, compile_text):
    results = {False: translation_result(False, 0.5), True: translation_result(False, 0.4)}
    if second == "with attention":
        results[True]["other"] = others
    else:  # without attention was made second: attention minus this
        turned = {"value": lambda f: -f["value"], "low": lambda f: -f["high"], "high": lambda f: -f["low"]}
        results[False]["other"] = {
            name: {key: turn(figure) for key, turn in turned.items()} if isinstance(figure, dict) else figure
            for name, figure in others.items()
        }
    write_run("q3", results[False])
    write_run("q3", results[True], use_attn=True)
    text = compile_text("2022-23")
    for words in said:
        assert words in text


def test_a_difference_of_other_runs_is_not_shown(write_run, compile_text):
    write_run("q3", translation_result(False, 0.5))
    write_run("q3", translation_result(False, 0.4, other=gains(0.2)), use_attn=True)
    text = compile_text("2022-23")
    assert "Attention lowers" not in text and "The test error rate goes from 0.500 to 0.400" in text


def test_what_the_attention_looked_at_is_read_from_the_weights(write_run, compile_text):
    """The rows look at letter 4 of "ya voy .", which is the o of voy."""
    write_run("q3", translation_result(True, 0.4), use_attn=True)
    text = compile_text("2022-23")
    assert "failed: a → “o” of voy (72 %), cat → “o” of voy (72 %)" in text
    assert "right: i → “o” of voy (72 %), go → “o” of voy (72 %)" in text


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "cannot be read"),
        ("[" * 200_000, "cannot be read"),
        ("[1]", "is no dict"),
        ("{}", "has no entries"),
        ('{"title": "OCTMNIST", "bundled": true, "entries": [], "best": null}', "best.run"),
        ('{"title": "OCTMNIST", "bundled": true, "entries": [], "best": {"run": 3}}', "best.run is no str"),
    ],
)
def test_broken_results_stop_with_one_line(text, said, write_images, tmp_path, run_here):
    best = write_images("octmnist")
    (comparison,) = [path for path in best.parents[1].glob("*/result.json") if path != best]
    comparison.write_text(text)
    process = run_here(
        "report/build.py", "--edition", "2023-24", "--runs_dir", tmp_path / "runs", "--output_dir", tmp_path
    )
    assert_user_error(process, said, str(comparison), "run again")
    assert not list(tmp_path.glob("*.pdf"))


def test_results_that_typst_cannot_show_stop_with_one_line(write_images, tmp_path):
    path = write_images("octmnist")
    change(path, "many", "val_acc", "value")
    with pytest.raises(options.UserError, match=r"hw2-2023-24\.pdf cannot be compiled"):
        build.main(["-edition", "2023-24", "-runs_dir", str(tmp_path / "runs"), "-output_dir", str(tmp_path)])


def test_runs_without_their_test_are_said_to_lack_it(write_images, write_run, compile_text):
    write_images("kuzushiji_mnist", test=None)
    write_run("q3", translation_result(False, 0.4, test=None, val_err_rate=score(0.432)), use_attn=True)
    text = compile_text("2022-23")
    assert len(re.findall("Not run. The test of this run", text)) == 2
    assert "with an error rate of 0.432 (0.412 to 0.452); the last one has" in text


def test_a_missing_figure_is_a_box(write_images, compile_text):
    path = write_images("octmnist")
    path.with_name("confusion.pdf").unlink()
    assert "confusion.pdf is missing" in compile_text("2023-24")


def test_the_script_compiles_all_three(tmp_path, run_script):
    process = run_script("report/build.py", "-runs_dir", tmp_path / "none", "-output_dir", tmp_path / "new")
    assert process.returncode == 0, process.stderr
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [f"hw2-{year}.pdf" for year in QUESTIONS]


def test_numbers_are_set_with_their_digits(tmp_path):
    import typst

    shutil.copy(ROOT / "report/template.typ", tmp_path)
    (tmp_path / "content.json").write_text(json.dumps({"network": None, "runs": {"theory": None}}))
    source = tmp_path / "numbers.typ"
    cases = {
        "fixed(0.5)": "0.5000",
        "fixed(1)": "1.0000",
        "fixed(0.99996)": "1.0000",
        "fixed(-0.25, digits: 1)": "\u22120.3",
        "fixed(-0.00001)": "0.0000",
        "fixed(12.0, digits: 0)": "12",
        "count(1234567)": "1,234,567",
        "count(999)": "999",
        "percent(0.968)": "96.8 %",
    }
    lines = [f"#{call} \\" for call in cases]
    source.write_text('#import "template.typ": *\n' + "\n".join(lines))
    typst.compile(source, output=tmp_path / "numbers.pdf", ignore_system_fonts=True)
    text = PdfReader(tmp_path / "numbers.pdf").pages[0].extract_text()
    assert [line.strip() for line in text.splitlines()][: len(cases)] == list(cases.values())


def test_captions_stand_in_the_statements_order(write_run, compile_text):
    write_captioning(write_run, True, True)
    text = compile_text("2021-22")
    places = [text.index(f"reference of image {n}") for n in (219, 540, 357)]
    assert places == sorted(places)
    assert "Sydney-Captions, EfficientNet-Lite0, ImageNet (bundled)" in text


@pytest.mark.parametrize(("half_width", "is_shown"), [(0.01, True), (0.05, False)])
def test_words_on_attention_of_captions_follow_the_interval(half_width, is_shown, write_run, compile_text):
    write_captioning(write_run, False, False)
    write_captioning(write_run, False, True, difference=0.03, half_width=half_width)
    text = compile_text("2021-22")
    assert ("Attention raises the course’s score on the same images (0.0300" in text) == is_shown
    assert ("A gain by attention is not shown (0.0300" in text) != is_shown


@pytest.mark.parametrize(
    ("nearest", "said"),
    [(0.1, "better than this copying (0.1000"), (0.0, "is not shown (0.0000"), (-0.1, "worse than this copying")],
)
def test_a_decoder_that_is_no_better_than_copying_is_told(nearest, said, write_run, compile_text):
    write_captioning(write_run, True, False, nearest=nearest)
    assert said in compile_text("2021-22")


def test_words_on_the_kinds_of_right_words_follow_the_intervals(write_run, compile_text):
    write_captioning(write_run, True, False, found=words_found(others=0.5, colours=0.58))
    write_captioning(write_run, True, True, found=words_found(others=0.8, colours=0.6))
    text = compile_text("2021-22")
    assert "With attention more of the other words are right: 80.0 % in place of 50.0 %" in text
    assert "For the colours a difference is not shown" in text
    assert "So a caption is more often right about the other words than about the colours" in text


def test_kinds_of_words_that_are_right_by_chance_are_no_finding(write_run, compile_text):
    write_captioning(write_run, True, True, found=words_found(others=0.8, colours=0.31))
    text = compile_text("2021-22")
    assert "the other words (80.0 % found" in text and "the colours (31.0 %" in text  # short: a page may end in between
    assert "123 words) that is not shown" in text


def test_captions_are_judged_by_their_references(write_run, compile_text):
    write_captioning(write_run, True, True)
    text = compile_text("2021-22")
    assert text.count("2 of 2 words are in a reference") == 2  # of 219.tif and of 357.tif
    assert "1 of 2 words are in a reference; not in any: colours brown" in text  # of 540.tif
    assert "The best of the three is 219.tif, with 2 of 2 words in a reference; 540.tif fails most, with 1 of 2" in text
    # Regions 6, 45 and 0 of 7 x 7; the article counts as any other word.
    assert "brown (the upper right, 25 %), road (the bottom, 13 %) and a (the upper left, 5 %)" in text


@pytest.mark.parametrize(
    ("bundled", "bleu", "said"),
    [
        (True, 0.5, "cannot be compared with ours"),
        (False, 0.5, "It lies within the interval of ours"),
        (False, 0.9, "Ours lies above it"),
        (False, 0.1, "Ours lies below it"),
    ],
)
def test_a_published_score_is_compared_on_the_same_images_alone(bundled, bleu, said, write_run, compile_text):
    write_captioning(write_run, bundled, False, bleu=bleu)
    assert said in compile_text("2021-22")


@pytest.mark.parametrize(
    ("edits", "said"),
    [(-0.1, "is below Jaccard"), (0.1, "is above Jaccard"), (0.0001, "can be chance")],
)
def test_the_similarities_are_ordered_where_their_paired_difference_is_not_0(edits, said, write_speech, compile_text):
    test = speech_result(False, 0.3)["test"]
    test["greedy"]["edits_minus_jaccard"] = score(edits)
    write_speech(False, 0.3, test=test)
    assert said in compile_text("2023-24")


def test_the_answer_to_captioning_says_what_its_numbers_show(write_run, compile_text):
    write_captioning(write_run, False, False)
    write_captioning(write_run, False, True)
    text = compile_text("2021-22")
    assert "In the last epoch, which the course tests, the decoder with attention has" in text
    assert "Question 3 in short. Attention makes better captions than the mean of the regions (0.0300" in text
    assert "how much another seed changes" in text


def test_the_strided_network_alone_makes_a_report(write_run, compile_text):
    shares = {split: [0.4, 0.1, 0.1, 0.4] for split in ("train", "val", "test")}
    strided = image_result("octmnist", False, 0.6, class_shares=shares)
    write_run("q2", strided, IMAGE_FIGURES, dataset="octmnist", learning_rate=BEST_RATE, no_maxpool=True)
    assert "It reaches 60.0 %" in compile_text("2023-24")
