"""hw2-q3-asr.py: both decoders at tiny size on spoken clips, resuming, transcribing, wrong input."""

import json
import re
import shutil
import weakref
from types import SimpleNamespace

import Levenshtein
import numpy as np
import pytest
import soundfile
import torch
from conftest import N_SPOKEN, assert_user_error, load_script

import files
import metrics
import runs
from data import sources, speech
from data.fetch.ljspeech import FOLDER_NAME, METADATA, WAVS

script = load_script("hw2-q3-asr.py")
SCRIPT = "hw2-q3-asr.py"
DECODERS = ("recurrent", "transformer")
TINY = ("--hidden_size", "32", "--epochs", "2", "--batch_size", "8", "-threads", "1", "-data", "real")
SEARCH = ("--beam_size", "2", "--length_penalty", "0", "1", "--n_samples", "3")
# The script in a process whose cache is another folder than the project's.
WITH_CACHE = """
import pathlib, runpy, sys
from data import sources
sources.CACHE_DIR, sys.argv = pathlib.Path(sys.argv[1]), sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The cache folder of these tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CACHE_DIR", folder)
        yield folder


@pytest.fixture(scope="module")
def trained(run_script, spoken, cache, tmp_path_factory):
    """A runs folder with a run of each decoder, the Transformer after the other and with a beam and samples."""
    runs_dir = tmp_path_factory.mktemp("runs")
    outputs = {}
    for decoder, more in zip(DECODERS, ((), SEARCH)):
        command = ("--decoder", decoder, *more, *TINY, "-data_dir", spoken, "-runs_dir", runs_dir)
        outputs[decoder] = run_script("-c", WITH_CACHE, cache, SCRIPT, *command)
        assert outputs[decoder].returncode == 0, outputs[decoder].stderr
    return runs_dir, outputs


def folder_of(runs_dir, decoder):
    (folder,) = [
        path for path in (runs_dir / "q3-asr").iterdir() if ("transformer" in path.name) == (decoder != DECODERS[0])
    ]
    return folder


def predictions(folder):
    return files.read_table(folder / "test_predictions.txt", ("source", "reference", "prediction", "distance"))


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_commands_leave_result_and_figures(trained, decoder):
    runs_dir, outputs = trained
    folder, stdout = folder_of(runs_dir, decoder), outputs[decoder].stdout
    figures = {"losses.pdf", "similarities.pdf", "log_mel.pdf", "attention_right.pdf", "attention_failed.pdf"}
    assert {path.name for path in folder.glob("*.pdf")} == figures
    result = json.loads((folder / "result.json").read_text())
    assert result["decoder"] == decoder and result["bundled"]  # the clips are generated, wherever they lie
    assert result["n_examples"] == {"train": 45, "val": 3, "test": 12}
    assert [line["epoch"] for line in result["history"]] == [1, 2]
    scores = {
        "plain_train_loss",
        "val_loss",
        "val_jaccard",
        "val_cosine",
        "val_damerau_levenshtein",
        "val_wer",
        "val_cer",
    }
    assert all(scores < line.keys() for line in result["history"])
    assert min(line["val_cer"] for line in result["history"]) == pytest.approx(result["val_cer"]["value"])
    greedy = result["test"]["greedy"]
    names = {"cer", "wer", "exact", *metrics.SIMILARITIES, "edits_minus_jaccard", "errors", "loss"}
    assert greedy.keys() - {"seconds"} == names
    assert f"Final Test CER, greedy: {greedy['cer']['value']:.4f}" in stdout
    jaccard, cosine, edits = (greedy[name]["value"] for name in metrics.SIMILARITIES)
    similarities = f"Jaccard {jaccard:.4f}, Cosine {cosine:.4f}, Damerau-Levenshtein {edits:.4f}"
    assert f" Test loss {greedy['loss']:.4f}, {similarities} (bundled)" in " ".join(stdout.split())
    listened = {"cer", "shuffled_cer", "own_minus_shuffled", "seconds", "spearman", "moved"}
    assert result["train_clips"].keys() == listened
    rows = {row["reference"]: int(row["distance"]) for row in predictions(folder)}
    right, failed = (result["attention"][name]["ref"] for name in ("right", "failed"))
    assert rows[right] <= rows[failed]
    (baseline,) = result["baselines"].values()
    assert baseline["value"] > 0.5 and f"the text of another clip {baseline['value']:.4f}" in stdout
    assert all(row.keys() == {"ref", "hyp", *metrics.SIMILARITIES} for row in result["differing"])
    assert len(result["examples"]) == 8


def test_quick_scale_has_a_recipe_of_its_own_that_is_named(run_here, spoken, tmp_path):
    options_ = ("-scale", "quick", "--hidden_size", "32", "--batch_size", "16", "-data", "real", "-threads", "1")
    process = run_here(SCRIPT, "-runs_dir", tmp_path / "runs", *options_, "-data_dir", spoken)
    assert len(files.read_json(folder_of(tmp_path / "runs", "recurrent") / "result.json", "history")) == 4
    assert "quick recipe: epochs 4, batch_size 16, guided_attention 1.0, ctc_weight 0.3" in process.stdout
    full = script.parse_args([])
    assert (full.epochs, full.batch_size, full.guided_attention, full.ctc_weight) == (15, 64, 0.0, 0.0)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_predictions_file_holds_every_test_clip_the_worst_last(trained, spoken, decoder):
    folder = folder_of(trained[0], decoder)
    rows, lines = predictions(folder), dict(speech.read_metadata(spoken / FOLDER_NAME / METADATA))
    assert sorted(row["source"] for row in rows) == list(lines)[48:]
    assert all(row["reference"] == lines[row["source"]] for row in rows)
    distances = [int(row["distance"]) for row in rows]
    assert distances == [Levenshtein.distance(row["prediction"], row["reference"]) for row in rows]
    rates = [distance / len(row["reference"]) for distance, row in zip(distances, rows)]
    assert rates == sorted(rates)
    cer = sum(distances) / sum(len(row["reference"]) for row in rows)
    assert cer == pytest.approx(files.read_json(folder / "result.json", "test", "greedy", "cer", "value"))


def load_recogniser(folder, spoken, *options_):
    """The recogniser of a run with its best weights and its data."""
    args = script.parse_args([*TINY, *options_])
    recogniser = script.Recognition(args, speech.load("real", spoken))
    model = recogniser.build()
    runs.load_weights(model, folder / "best.pt")
    return recogniser, model.eval()


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_weights_in_the_folder_give_the_figures_in_the_folder(trained, spoken, decoder):
    folder = folder_of(trained[0], decoder)
    recogniser, model = load_recogniser(folder, spoken, "--decoder", decoder)
    result = files.read_json(folder / "result.json")
    assert (
        metrics.transcription(recogniser.decode(model, "val"), recogniser.data.texts["val"])["cer"] == result["val_cer"]
    )
    hyps = recogniser.decode(model, "test")
    assert hyps == [
        recogniser.decode_mels(model, speech.pad_mels([recogniser.data.mels(row)]))[0][0]
        for row in recogniser.data.rows["test"]
    ]
    rows = {row["source"]: row["prediction"] for row in predictions(folder)}
    assert hyps == [rows[id] for id in recogniser.data.ids["test"]]
    assert recogniser.mean_loss(model, "test") == pytest.approx(result["test"]["greedy"]["loss"], rel=1e-4)


def test_the_length_penalty_is_chosen_on_validation_and_samples_are_tested(trained):
    runs_dir, outputs = trained
    test, stdout = (
        files.read_json(folder_of(runs_dir, "transformer") / "result.json", "test"),
        outputs["transformer"].stdout,
    )
    rates = re.findall(r"length_penalty (\d): validation CER (\d\.\d+)", stdout)
    assert [penalty for penalty, _ in rates] == ["0", "1"]
    assert f"{test['beam']['val_cer']['value']:.4f}" == min(rate for _, rate in rates)
    assert test["beam"]["beam_size"] == 2 and test["mbr"]["n_samples"] == 3
    for name in ("beam", "mbr"):
        expected = test["greedy"]["cer"]["value"] - test[name]["cer"]["value"]
        assert test[name]["difference"]["value"] == pytest.approx(expected)
    assert files.read_json(folder_of(runs_dir, "recurrent") / "result.json", "test")["beam"] is None


def test_the_second_decoder_is_compared_with_the_first(trained):
    runs_dir, _ = trained
    recurrent, transformer = (files.read_json(folder_of(runs_dir, decoder) / "result.json") for decoder in DECODERS)
    assert recurrent["other"] is None
    other = transformer["other"]
    assert other["decoder"] == "recurrent" and other["run"] == folder_of(runs_dir, "recurrent").name
    ours, theirs = transformer["test"]["greedy"], recurrent["test"]["greedy"]
    assert other["cer"]["value"] == pytest.approx(theirs["cer"]["value"] - ours["cer"]["value"])
    assert other["wer"]["value"] == pytest.approx(theirs["wer"]["value"] - ours["wer"]["value"])
    for name in metrics.SIMILARITIES:
        assert other[name]["value"] == pytest.approx(theirs[name]["value"] - ours[name]["value"])
        assert other[name]["n"] == 12


def weights_of(folder):
    return runs.read_checkpoint(folder / "best.pt")["weights"]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_resumed_run_is_an_uninterrupted_one(decoder, spoken, tmp_path, capsys):
    options_ = [*TINY, "--decoder", decoder, "--dropout", "0.1", "--spec_augment", "-skip_test"]
    options_ += ["-data_dir", str(spoken), "-resume", "auto", "-runs_dir"]
    script.main([*options_, str(tmp_path / "whole")])
    save_epoch = runs.Run.save_epoch

    def killed_after_the_first(self, *arguments):
        save_epoch(self, *arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Run, "save_epoch", killed_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            script.main([*options_, str(tmp_path / "resumed")])
    script.main([*options_, str(tmp_path / "resumed")])
    assert capsys.readouterr().out.count("Epoch 2/2") == 2
    folders = [folder_of(tmp_path / name, decoder) for name in ("whole", "resumed")]
    for name in ("best.pt", "last.pt"):
        a, b = (runs.read_checkpoint(folder / name) for folder in folders)
        a, b = a.get("weights", a.get("model")), b.get("weights", b.get("model"))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    whole, resumed = (files.read_json(folder / "result.json", "history") for folder in folders)
    timeless = [[{k: v for k, v in line.items() if k != "seconds"} for line in history] for history in (whole, resumed)]
    assert timeless[0] == timeless[1]


def test_a_run_starts_from_the_weights_of_another(trained, run_here, spoken, tmp_path):
    runs_dir = shutil.copytree(trained[0], tmp_path / "runs")
    before = folder_of(runs_dir, "recurrent")
    content = {path.name: path.read_bytes() for path in before.iterdir()}
    common = (SCRIPT, *TINY, "-data_dir", spoken, "-runs_dir", runs_dir)
    process = run_here(*common, "-skip_test", "--init", before.name)
    assert process.returncode == 0, process.stderr
    (folder,) = (path for path in (runs_dir / "q3-asr").iterdir() if "init" in path.name)
    first, again = (files.read_json(path / "result.json", "history")[0]["train_loss"] for path in (before, folder))
    assert again < first - 0.1

    names = {path.name for path in (runs_dir / "q3-asr").iterdir()}
    for wrong, words in (("nothing", ["nothing"]), (folder_of(trained[0], "transformer"), ["another network"])):
        assert_user_error(run_here(*common, "--init", wrong, "-run_name", before.name), *words)
    assert {path.name for path in (runs_dir / "q3-asr").iterdir()} == names
    assert {path.name: path.read_bytes() for path in before.iterdir()} == content

    sound = spoken / FOLDER_NAME / WAVS / "ES000-0059.wav"
    process = run_here(SCRIPT, "-runs_dir", runs_dir, "--init", before.name, "--transcribe", sound)
    assert process.returncode == 0 and f"/{folder.name}\n" in process.stderr


@pytest.mark.parametrize("decoder", DECODERS)
def test_transcriptions_are_the_predictions(trained, run_here, spoken, decoder):
    rows = predictions(folder_of(trained[0], decoder))[::4]
    sounds = [spoken / FOLDER_NAME / WAVS / f"{row['source']}.wav" for row in rows]
    process = run_here(SCRIPT, "--decoder", decoder, "-runs_dir", trained[0], "-threads", "1", "--transcribe", *sounds)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split("\n") == [*(f"{row['source']}.wav: {row['prediction']}" for row in rows), ""]
    assert folder_of(trained[0], decoder).name in process.stderr
    beam = run_here(SCRIPT, "--decoder", decoder, "-runs_dir", trained[0], "--beam_size", "3", "--transcribe", *sounds)
    assert beam.returncode == 0 and beam.stdout.count("\n") == len(sounds)


def test_a_flac_of_another_rate_is_transcribed_almost_alike(trained, run_here, spoken, tmp_path):
    import soxr

    row = predictions(folder_of(trained[0], "transformer"))[0]
    samples, rate = soundfile.read(spoken / FOLDER_NAME / WAVS / f"{row['source']}.wav")
    samples = soxr.resample(np.stack([samples, samples], axis=1), rate, 44_100)
    soundfile.write(tmp_path / "x.flac", samples, 44_100, "PCM_24")
    command = (SCRIPT, "--decoder", "transformer", "-runs_dir", trained[0], "--transcribe", tmp_path / "x.flac")
    process = run_here(*command)
    assert process.returncode == 0, process.stderr
    assert Levenshtein.ratio(process.stdout.rstrip("\n"), row["prediction"]) > 0.5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no.wav", ["no.wav", "missing"]), ("folder.wav", ["folder.wav", "holds no file"]),
        ("text.wav", ["cannot be read as sound"]), ("empty.wav", ["cannot be read as sound"]),
        ("short.wav", ["0.01 s"]), ("long.wav", ["600.00 s"]),
    ],
)  # fmt: skip
def test_what_cannot_be_transcribed_is_one_line(name, words, trained, spoken, run_here, tmp_path):
    silence = np.zeros(22_050, dtype=np.int16)
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound\n" * 500)
    soundfile.write(tmp_path / "short.wav", silence[:220], 22_050)
    soundfile.write(tmp_path / "long.wav", np.tile(silence, 600), 22_050, "PCM_U8")
    good = next((spoken / FOLDER_NAME / WAVS).iterdir())
    process = run_here(SCRIPT, "-runs_dir", trained[0], "--transcribe", good, tmp_path / name)
    assert process.returncode == 2 and process.stdout.count("\n") == 1
    said, *_, error = process.stderr.splitlines()
    assert said.startswith("weights of ") and ": error: " in error and all(word in error for word in words)


def test_transcribing_without_a_run_says_how_to_train_one(trained, spoken, run_here, tmp_path):
    sound = next((spoken / FOLDER_NAME / WAVS).iterdir())
    process = run_here(SCRIPT, "--decoder", "transformer", "-runs_dir", tmp_path, "--transcribe", sound)
    assert_user_error(process, "python hw2-q3-asr.py --decoder=transformer")
    for more in (("-scale", "quick"), ("-data", "real"), ("--hidden_size", "64"), ("--skeleton_blocks",)):
        assert_user_error(run_here(SCRIPT, "-runs_dir", trained[0], *more, "--transcribe", sound), "no trained run")


def test_without_validation_clips_the_last_epoch_is_kept(run_here, spoken, tmp_path):
    command = (SCRIPT, *TINY, "-data_dir", spoken, "-runs_dir", tmp_path, "--split", "50", "0", "10")
    process = run_here(*command, *SEARCH)
    assert process.returncode == 0, process.stderr
    (line,) = process.stderr.splitlines()
    assert line == "warning: without validation examples the last epoch is kept"
    (folder,) = (tmp_path / "q3-asr").iterdir()
    result = files.read_json(folder / "result.json")
    assert result["val_cer"] is None and result["best_epoch"] == 2 and result["n_examples"]["val"] == 0
    assert result["test"]["beam"]["val_cer"] is None and result["test"]["beam"]["length_penalty"] == 0
    last, best = runs.read_checkpoint(folder / "last.pt")["model"], weights_of(folder)
    assert all(torch.equal(last[name], best[name]) for name in best)
    assert not (folder / "losses.pdf").exists() and (folder / "attention_right.pdf").exists()
    assert "validation CER" not in process.stdout
    assert_user_error(run_here(*command, "--learning_rate", "0.1", "0.01"), "without validation examples")


def test_the_test_holds_the_spectrograms_of_one_batch_however_many_clips_there_are(
    trained, spoken, tmp_path, monkeypatch
):
    monkeypatch.setattr(script, "EVAL_BATCH_SIZE", 4)
    alive, most = weakref.WeakSet(), []
    read = speech.Clips.mels

    def mels(self, row):
        found = read(self, row)
        alive.add(found)
        most.append(len(alive))
        return found

    monkeypatch.setattr(speech.Clips, "mels", mels)
    folder = folder_of(trained[0], "recurrent")
    recogniser, model = load_recogniser(folder, spoken)
    monkeypatch.setattr(script.comparisons, "minus_counterpart", lambda *args, **kwargs: None)
    recogniser.test(model, SimpleNamespace(folder=tmp_path))
    assert len(most) > 60 and max(most) <= 4 + 1  # the last of the batch before


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_option_trains_and_scores_are_against_the_whole_text(decoder, run_here, spoken, tmp_path):
    recipe = (
        "--skeleton_blocks", "--n_layers", "2", "--ctc_weight", "0.3", "--guided_attention", "1", "--spec_augment",
        "--ema_decay", "0.5", "--max_text_length", "10", "--dropout", "0.1", "--max_grad_norm", "1",
    )  # fmt: skip
    process = run_here(SCRIPT, "--decoder", decoder, *recipe, *TINY, "-data_dir", spoken, "-runs_dir", tmp_path)
    assert process.returncode == 0, process.stderr
    (folder,) = (tmp_path / "q3-asr").iterdir()
    changed = files.read_json(folder / "config.json", "changed")
    assert {option.strip("-") for option in recipe if option.startswith("--")} <= changed.keys()
    lines, rows = dict(speech.read_metadata(spoken / FOLDER_NAME / METADATA)), predictions(folder)
    assert all(row["reference"] == lines[row["source"]] for row in rows)
    assert max(len(row["prediction"]) for row in rows) <= 9 < max(len(row["reference"]) for row in rows)
    sound = spoken / FOLDER_NAME / WAVS / f"{rows[0]['source']}.wav"
    command = (SCRIPT, "--decoder", decoder, "--skeleton_blocks", "--spec_augment", "-runs_dir", tmp_path)
    process = run_here(*command, "--transcribe", sound)
    assert process.stdout == rows[0]["prediction"] + "\n", process.stderr


def test_the_courses_length_of_texts_trains(run_here, spoken, tmp_path):
    command = ("--max_text_length", "99", "--epochs", "1", "-skip_test", "--decoder", "transformer")
    process = run_here(SCRIPT, *TINY, *command, "-data_dir", spoken, "-runs_dir", tmp_path)
    assert process.returncode == 0, process.stderr
    (folder,) = (tmp_path / "q3-asr").iterdir()
    assert weights_of(folder)["decoder.positions"].shape == (99, 32)


def test_two_learning_rates_are_compared_and_the_better_one_is_tested(run_here, children_here, spoken, tmp_path):
    command = (*TINY, "--epochs", "1", "--n_layers", "1", "-data_dir", spoken, "-runs_dir", tmp_path)
    process = run_here(SCRIPT, *command, "--learning_rate", "0.00001", "0.003")
    assert process.returncode == 0, process.stderr
    (folder,) = [path.parent for path in (tmp_path / "q3-asr").glob("*/val_cer.pdf")]
    result = files.read_json(folder / "result.json")
    values = {entry["learning_rate"]: entry["val_cer"]["value"] for entry in result["entries"]}
    assert values.keys() == {0.00001, 0.003}
    best = result["best"]["learning_rate"]
    assert values[best] == min(values.values())
    tested = [path.parent for path in (tmp_path / "q3-asr").glob("*/test_predictions.txt")]
    assert [files.read_json(path / "config.json", "options", "learning_rate") for path in tested] == [best]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--decoder", "gru"), ("--hidden_size", "33"), ("--hidden_size", "0"), ("--n_heads", "0"), ("--n_layers", "0"),
        ("--n_heads", "3"), ("--max_text_length", "2"), ("--split", "1", "2"), ("--split", "-1", "2", "3"),
        ("--lr", "0"),
        ("--ctc_weight", "1"), ("--guided_attention", "-1"), ("--dropout", "1"), ("--warmup", "2"), ("--transcribe",),
        ("--label_smoothing", "nan"), ("--beam_size", "0"), ("--n_samples", "0"), ("--init",), ("--schedule", "x"),
    ],
)  # fmt: skip
def test_wrong_options_end_in_one_line(wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        script.main([*wrong])
    assert caught.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1 and (wrong[0].strip("-") in stderr or "n_heads" in wrong[0])


@pytest.mark.parametrize("mode", ["real", "auto"])
def test_wrong_files_end_in_one_line_and_leave_the_runs_alone(mode, spoken, run_here, tmp_path):
    folder = tmp_path / "data" / FOLDER_NAME
    folder.mkdir(parents=True)
    (folder / METADATA).write_text("ES000-0000|a\n")
    shutil.copytree(spoken / FOLDER_NAME / WAVS, folder / WAVS)
    command = (SCRIPT, *TINY, "-data", mode, "-data_dir", tmp_path / "data", "-runs_dir", tmp_path / "runs")
    assert_user_error(run_here(*command), "metadata.csv", "line 1")
    (folder / METADATA).unlink()
    assert_user_error(run_here(*command), "metadata.csv is missing")
    command = (SCRIPT, *TINY, "-data_dir", spoken, "-runs_dir", tmp_path / "runs", "--split", "50", "5", "10")
    assert_user_error(run_here(*command), "-split 50 5 10", f"has {N_SPOKEN}")
    assert not (tmp_path / "runs").exists()
