"""hw2-q3.py as its users run it: the handout's command lines at tiny size, resuming, translating, wrong input."""

import io
import json
import os
import re
import shutil

import Levenshtein
import pypdf
import pytest
import torch
from conftest import assert_user_error, end_of, load_script, one_line_error
from hypothesis import given
from hypothesis import strategies as st

import decoding
import experiment
import files
import metrics
import options
import runs
from benchmarks import last_symbol
from data import text, translation
from data.bundled import translation as bundled_translation
from tests.pairs import write_split

script = load_script("hw2-q3.py")
TINY = ("-n_epochs", "2", "-hidden_size", "8", "-batch_size", "16", "-threads", "1")
N_PAIRS = 150


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The course's three files, tiny."""
    folder = tmp_path_factory.mktemp("data")
    pairs = bundled_translation.generate(n_pairs=N_PAIRS)
    write_split(translation.split_pairs(pairs), folder)
    return folder


@pytest.fixture(scope="module")
def trained(run_script, data_dir, tmp_path_factory):
    """A runs folder with a run without attention and one with attention and a beam."""
    runs_dir = tmp_path_factory.mktemp("runs")
    common = (*TINY, "-data_dir", data_dir, "-runs_dir", runs_dir)
    outputs = {
        False: run_script("hw2-q3.py", *common),
        True: run_script("hw2-q3.py", "--use_attn", "--beam_size", "3", *common),
    }
    for process in outputs.values():
        assert process.returncode == 0, process.stderr
    return runs_dir, outputs


def folder_of(runs_dir, use_attn):
    (folder,) = [path for path in (runs_dir / "q3").iterdir() if ("use_attn" in path.name) == use_attn]
    return folder


def load_translator(folder, *options_):
    """The translator of a run with its best weights."""
    args = script.parse_args([*TINY, *options_])
    translator = script.Translation(args, None, settings=runs.read_checkpoint(folder / "best.pt"))
    model = translator.build()
    runs.load_weights(model, folder / "best.pt")
    return translator, model.eval()


@pytest.mark.parametrize("use_attn", [False, True])
def test_the_handouts_commands_leave_result_and_figures(trained, use_attn):
    runs_dir, outputs = trained
    folder = folder_of(runs_dir, use_attn)
    figures = {f"attn_{use_attn}_err_rate.pdf", "train_loss.pdf"}
    if use_attn:
        figures |= {f"attention_{i}.pdf" for i in (1, 2, 3, 4)}
    assert {path.name for path in folder.glob("*.pdf")} == figures
    result = json.loads((folder / "result.json").read_text())
    assert result["use_attn"] == use_attn and not result["bundled"]
    assert len(result["history"]) == 2
    greedy = result["test"]["greedy"]
    stdout = outputs[use_attn].stdout
    assert f"Final Test error rate, greedy: {greedy['err_rate']['value']:.4f}" in stdout
    assert (result["test"]["beam"] is not None) == use_attn == ("beam of 3" in stdout)
    assert min(line["val_err_rate"] for line in result["history"]) == pytest.approx(result["val_err_rate"]["value"])
    assert set(result["baselines"]) == {"nearest sentence"}


def test_the_predictions_file_holds_every_test_sentence_the_worst_last(trained, data_dir):
    folder = folder_of(trained[0], True)
    header, *lines = (folder / "test_predictions.txt").read_text(encoding="utf-8").splitlines()
    assert header.split("\t") == ["source", "reference", "prediction", "distance"]
    rows = [line.split("\t") for line in lines]
    pairs = translation.read_pairs(data_dir / "test-eng-spa.txt")
    assert sorted((ref, src) for src, ref, _, _ in rows) == sorted(pairs)
    assert all(int(distance) == Levenshtein.distance(hyp, ref) for _, ref, hyp, distance in rows)
    rates = [int(distance) / len(ref) for _, ref, _, distance in rows]
    assert rates == sorted(rates)
    result = files.read_json(folder / "result.json")
    assert sum(rates) / len(rates) == pytest.approx(result["test"]["greedy"]["err_rate"]["value"])


def test_the_counterpart_is_compared_by_sentence_and_by_half(trained, data_dir):
    """Of the run that was made second, with the sentences of both files of predictions."""
    result = files.read_json(folder_of(trained[0], True) / "result.json")
    first = files.read_json(folder_of(trained[0], False) / "result.json")
    rates = [
        {
            row["source"]: int(row["distance"]) / len(row["reference"])
            for row in predictions(folder_of(trained[0], is_on))
        }
        for is_on in (False, True)
    ]
    other = result["other"] or first["other"]
    sign = 1 if result["other"] else -1
    gaps = {source: sign * (rates[0][source] - rates[1][source]) for source in rates[0]}
    short = [gap for source, gap in gaps.items() if len(source) <= other["middle"]]
    long = [gap for source, gap in gaps.items() if len(source) > other["middle"]]
    assert len(short) >= len(long) > 0
    for name, part in (("err_rate", list(gaps.values())), ("short", short), ("long", long)):
        assert other[name]["value"] == pytest.approx(sum(part) / len(part)), name


def test_predictions_that_lost_a_sentence_are_named(trained, data_dir, tmp_path):
    runs_dir = shutil.copytree(trained[0], tmp_path / "runs")
    path = folder_of(runs_dir, False) / "test_predictions.txt"
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:-1]) + "\n", encoding="utf-8")
    changed = folder_of(runs_dir, True)
    result = files.read_json(changed / "result.json")
    files.write_json(changed / "result.json", result | {"test": None})
    common = ("-data_dir", data_dir, "-runs_dir", runs_dir)
    assert "test_predictions.txt lacks sentences" in user_error("--use_attn", *TINY, *common, "-resume")


def predictions(folder):
    return files.read_table(folder / "test_predictions.txt", ("source", "reference", "prediction", "distance"))


def test_drawn_sentences_have_their_weights_in_the_result(trained):
    result = files.read_json(folder_of(trained[0], True) / "result.json")
    texts = {row["source"]: row["prediction"] for row in predictions(folder_of(trained[0], True))}
    assert (
        len(result["attention"]) == 4
        and files.read_json(folder_of(trained[0], False) / "result.json")["attention"] == []
    )
    for drawn in result["attention"]:
        assert drawn["hyp"] == texts[drawn["src"]]
        assert len(drawn["weights"]) in (len(drawn["hyp"]), len(drawn["hyp"]) + 1)
        for row in drawn["weights"]:
            assert len(row) == len(drawn["src"]) and sum(row) == pytest.approx(1, abs=0.01)


def test_the_weights_in_the_folder_give_the_figures_in_the_folder(trained, data_dir):
    folder = folder_of(trained[0], True)
    translator, model = load_translator(folder, "--use_attn")
    refs, sentences = zip(*translation.read_pairs(data_dir / "val-eng-spa.txt"))
    rates = metrics.error_rates(translator.translate(model, sentences), refs)
    result = files.read_json(folder / "result.json")
    assert sum(rates) / len(rates) == pytest.approx(result["val_err_rate"]["value"])
    one_by_one = [translator.translate(model, [sentence])[0] for sentence in sentences]
    assert one_by_one == translator.translate(model, sentences)


def test_the_validation_loss_is_the_mean_over_characters_without_smoothing(trained, data_dir):
    translator, model = load_translator(folder_of(trained[0], True), "--use_attn", "--label_smoothing", "0.5")
    pairs = translation.read_pairs(data_dir / "val-eng-spa.txt")
    translator.data = translation.SentencePairs("", False, {"val": pairs}, "")
    total, n = 0.0, 0
    for english, spanish in pairs:
        src = torch.tensor([translator.src_vocab.encode(spanish)])
        tgt = torch.tensor([[text.SOS_IDX, *translator.tgt_vocab.encode(english), text.EOS_IDX]])
        log_probs = model(src, torch.tensor([src.shape[1]]), tgt[:, :-1])[0].log_softmax(dim=-1)
        total -= log_probs[0].gather(1, tgt[0, 1:, None]).sum().item()
        n += tgt.shape[1] - 1
    assert translator.evaluate(model)["val_loss"] == pytest.approx(total / n, rel=1e-5)


def test_a_resumed_run_is_an_uninterrupted_one(trained, data_dir, tmp_path):
    """One epoch, then the second by resuming; the configuration is that of the whole."""
    whole = folder_of(trained[0], False)
    args = [*TINY, "-data_dir", str(data_dir), "-data", "auto", "-runs_dir", str(tmp_path), "-resume", "auto"]
    real_fit, epochs = runs.Run.save_epoch, []

    def killed_after_the_first(self, *arguments):
        real_fit(self, *arguments)
        epochs.append(1)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Run, "save_epoch", killed_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            script.main(args)
    script.main(args)
    resumed = folder_of(tmp_path, False)
    for name in ("best.pt", "last.pt"):
        a, b = (runs.read_checkpoint(folder / name) for folder in (whole, resumed))
        a, b = a.get("weights", a.get("model")), b.get("weights", b.get("model"))
        assert a.keys() == b.keys() and all((a[key] == b[key]).all() for key in a)
    figures = [
        [(line["train_loss"], line["val_err_rate"]) for line in files.read_json(folder / "result.json")["history"]]
        for folder in (whole, resumed)
    ]
    assert figures[0] == figures[1] and len(epochs) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_repeats_its_bits(data_dir, run_script, tmp_path):
    common = ("hw2-q3.py", "--use_attn", *TINY, "-data_dir", data_dir, "-runs_dir", tmp_path, "-device", "cuda")
    weights = []
    for name in ("a", "b"):
        process = run_script(*common, "-run_name", name)
        assert process.returncode == 0, process.stderr
        weights.append(runs.read_checkpoint(tmp_path / "q3" / name / "best.pt")["weights"])
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_a_beam_is_added_to_a_finished_run_without_training(trained, data_dir, run_here, tmp_path):
    runs_dir = shutil.copytree(trained[0], tmp_path / "runs")
    folder = folder_of(runs_dir, False)
    before = (folder / "best.pt").read_bytes()
    common = (*TINY, "-data_dir", data_dir, "-runs_dir", runs_dir)
    process = run_here("hw2-q3.py", *common, "--beam_size", "2", "--resume")
    assert process.returncode == 0, process.stderr
    assert "Epoch" not in process.stdout
    assert (folder / "best.pt").read_bytes() == before
    assert files.read_json(folder / "result.json")["test"]["beam"]["beam_size"] == 2


def test_the_length_penalty_is_chosen_on_validation_and_minimum_risk_is_tested(trained, data_dir, run_here, tmp_path):
    runs_dir = shutil.copytree(trained[0], tmp_path / "runs")
    common = (*TINY, "--use_attn", "-data_dir", data_dir, "-runs_dir", runs_dir, "-resume")
    process = run_here("hw2-q3.py", *common, "--beam_size", "2", "--length_penalty", "0", "1", "--n_samples", "5")
    assert process.returncode == 0, process.stderr
    result = files.read_json(folder_of(runs_dir, True) / "result.json")
    beam, mbr = result["test"]["beam"], result["test"]["mbr"]
    rates = re.findall(r"length_penalty (\d): validation error rate (\d\.\d+)", process.stdout)
    assert [penalty for penalty, _ in rates] == ["0", "1"]
    assert f"{beam['val_err_rate']['value']:.4f}" == min(rate for _, rate in rates)
    assert str(int(beam["length_penalty"])) == min(rates, key=lambda pair: pair[1])[0]
    assert mbr["n_samples"] == 5 and "minimum risk of 5 samples" in process.stdout
    greedy = result["test"]["greedy"]["err_rate"]["value"]
    tried = {entry["length_penalty"]: entry["val_err_rate"]["value"] for entry in beam["tried"]}
    assert {f"{value:.4f}" for value in tried.values()} == {rate for _, rate in rates} and tried.keys() == {0, 1}
    assert min(result["test"][search]["seconds"] for search in ("greedy", "beam", "mbr")) > 0
    for figures in (beam, mbr):
        assert figures["difference"]["value"] == pytest.approx(greedy - figures["err_rate"]["value"])


def test_translate_keeps_the_order_and_an_empty_line_stays_empty(trained, run_script, run_here, tmp_path):
    runs_dir, _ = trained
    sentences = ["no tengo hambre.", "", "¿dónde estás?", "ĝ₩", "¡!"]
    command = ("hw2-q3.py", "--use_attn", "-runs_dir", runs_dir, "--translate")
    process = run_script(*command, *sentences)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.split("\n")
    assert len(lines) == len(sentences) + 1 and lines[1] == "" and lines[-1] == ""
    assert folder_of(runs_dir, True).name in process.stderr
    file = tmp_path / "sentences.txt"
    file.write_bytes("\r\n".join(sentences).encode())
    assert run_here(*command, file).stdout == process.stdout
    other = tmp_path / "more.txt"
    other.write_text("hola .")
    both = run_here(*command, file, "no tengo hambre.", other).stdout.split("\n")
    assert both[:6] == [*process.stdout.split("\n")[:5], lines[0]] and len(both) == 8


def test_translate_says_if_models_py_has_changed(trained, tmp_path, monkeypatch, capsys):
    command = ["-runs_dir", str(trained[0]), "--translate", "hola"]
    script.main(command)
    (tmp_path / "models.py").write_text("")
    monkeypatch.setattr(runs, "NETWORKS", tmp_path / "models.py")
    assert "has changed" not in capsys.readouterr().err
    script.main(command)
    assert "warning: models.py has changed since" in capsys.readouterr().err


def test_translate_takes_a_very_long_sentence(trained, capsys):
    long = "no tengo hambre. " * 600
    script.main(["--use_attn", "-runs_dir", str(trained[0]), "--translate", long])
    answer, end = capsys.readouterr().out.split("\n")
    assert len(answer) <= script.MAX_GROWTH * len(text.normalize(long)) + script.MAX_EXTRA and end == ""


@pytest.mark.parametrize("name", ["", "/dev/null"])
def test_translate_names_what_is_no_text_file(name, trained, tmp_path):
    assert "is not a text file" in user_error("-runs_dir", trained[0], "--translate", name or tmp_path)


def test_resuming_a_search_without_a_run_says_so_and_trains_nothing(data_dir, tmp_path):
    message = user_error(*TINY, "-data_dir", data_dir, "-runs_dir", tmp_path, "--beam_size", "5", "-resume")
    assert "no run to resume" in message and not list(tmp_path.rglob("*.pt"))


def test_memory_that_is_not_enough_is_one_line(data_dir, run_here, tmp_path):
    process = run_here("hw2-q3.py", *TINY, "-data_dir", data_dir, "-runs_dir", tmp_path, "--hidden_size", "6000000")
    assert_user_error(process, "memory", "smaller")


def test_a_beam_wider_than_all_hypotheses_is_no_trouble(trained, data_dir, run_here, tmp_path):
    runs_dir = shutil.copytree(trained[0], tmp_path / "runs")
    common = [*TINY, "-data_dir", data_dir, "-runs_dir", runs_dir, "--beam_size", "2147483647"]
    process = run_here("hw2-q3.py", *common, "-resume")
    assert process.returncode == 0 and "Final Test error rate, beam of 2147483647: " in process.stdout, process.stderr


@pytest.mark.parametrize("name", ["sentnces.txt", "my sentences.txt", "notes.md", "A.TXT"])
def test_a_text_file_that_is_not_there_is_not_a_sentence(name, trained):
    assert f"there is no file {name}" in user_error("-runs_dir", trained[0], "--translate", name)


@pytest.mark.parametrize("sentence", ["hola.", "hola mundo.si", "¿dónde...", "3.5", ""])
def test_a_sentence_is_not_taken_for_a_file(sentence):
    assert list(text.read_lines([sentence])) == [sentence]


def test_the_standard_input_is_read_once_and_stays_open(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("hola .\nsí .\n".encode())))
    assert list(text.read_lines(["-", "-"])) == ["hola .", "sí ."]


def test_translate_looks_only_at_runs_of_the_scale_and_the_data_that_are_asked_for(trained):
    for more in (("-scale", "quick"), ("-data", "bundled")):
        assert "no trained run" in user_error("-runs_dir", trained[0], *more, "--translate", "hola")
    script.main(["-runs_dir", str(trained[0]), "-data", "real", "--translate", "hola"])


def test_an_option_that_is_given_with_its_default_is_given(trained, tmp_path):
    """Newer runs of another scale, another seed and another size are not taken for the run that is asked for."""
    source = folder_of(trained[0], False)
    config = files.read_json(source / "config.json")
    changes = ({"hidden_size": 128}, {"scale": "quick"}, {"seed": 43}, {"hidden_size": 6})  # the newest last
    for age, changed in enumerate(changes):
        folder = tmp_path / "q3" / str(age)
        files.write_json(folder / "config.json", config | {"options": config["options"] | changed, "changed": {}})
        files.write_json(folder / "result.json", {})
        os.utime(folder / "result.json", (age, age))

    def name_of_latest(*arguments):
        args = script.parse_args(["-runs_dir", str(tmp_path), "--translate", "hola", *arguments])
        return experiment.latest(script.Translation, args).folder.name

    assert name_of_latest() == "3"
    assert name_of_latest("-seed", "42") == "3" and name_of_latest("-seed", "42", "-hidden_size", "8") == "1"
    assert name_of_latest("-scale", "full", "-hidden_size", "8") == "2"
    assert name_of_latest("-scale", "full", "-seed", "42", "-hidden_size", "128") == "0"
    with pytest.raises(options.UserError, match="no trained run"):
        name_of_latest("--epochs", "50")


def test_a_bug_in_the_network_keeps_its_traceback(trained, run_here, monkeypatch):
    """As `nn.Linear(8)`, without its second argument, in the constructor of a student's own network."""
    monkeypatch.setattr("models.Decoder.__init__", lambda self, *args: torch.nn.Linear(8))
    with pytest.raises(TypeError, match="out_features"):
        run_here("hw2-q3.py", "-runs_dir", trained[0], "--translate", "hola")


def test_translate_samples_with_the_seed_that_is_given(trained, run_here, monkeypatch, tmp_path):
    runs_dir = shutil.copytree(trained[0], tmp_path / "runs")
    folder = folder_of(runs_dir, False)
    config = files.read_json(folder / "config.json")
    files.write_json(folder / "config.json", config | {"options": config["options"] | {"seed": 7}})
    sample, seeds = decoding.sample, []

    def recorded(step, state, memory, n_samples, seed, **options):
        seeds.append(seed)
        return sample(step, state, memory, n_samples, seed, **options)

    monkeypatch.setattr(decoding, "sample", recorded)
    process = run_here("hw2-q3.py", "-runs_dir", runs_dir, "--n_samples", "8", "--seed", "7", "--translate", "hola")
    assert process.returncode == 0, process.stderr
    assert seeds == [7] and folder.name in process.stderr


def test_a_translation_that_was_cut_has_no_row_for_its_end(trained, monkeypatch, tmp_path):
    translator, model = load_translator(folder_of(trained[0], True), "--use_attn")
    drawn = []
    monkeypatch.setattr(
        script.utils, "plot_attention", lambda path, alpha, src, labels, heading: drawn.append((alpha, src, labels))
    )
    sentence, limit = "ya .", script.MAX_GROWTH * len("ya .") + script.MAX_EXTRA
    for bias in (-100.0, 100.0):  # of </s>: it never comes, and it comes at once
        with torch.no_grad():
            model.generator.bias[text.EOS_IDX] = bias
        translator.draw_attention(tmp_path / "x.pdf", model, sentence, "")
    (cut, src, labels), (empty, _, end) = drawn
    assert src == sentence and len(labels) == limit and "</s>" not in labels
    assert end == ["</s>"]
    for alpha, rows in ((cut, limit), (empty, 1)):
        assert alpha.shape == (rows, len(sentence))
        torch.testing.assert_close(alpha.sum(dim=1), torch.ones(rows))


def test_a_result_of_an_earlier_version_is_searched_again_or_named(trained, data_dir, run_here, tmp_path):
    """What only later versions write may be missing; without the rest one line names the file and what it lacks."""
    runs_dir = shutil.copytree(trained[0], tmp_path / "runs")
    path = folder_of(runs_dir, False) / "result.json"
    command = ("hw2-q3.py", *TINY, "-data_dir", data_dir, "-runs_dir", runs_dir, "--beam_size", "2", "-resume")
    whole = json.loads(path.read_text())
    for key in ("baselines", "val_err_rate", "examples"):
        path.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        process = run_here(*command)
        assert process.returncode == 0 and "beam of 2" in process.stdout, process.stderr
    for key in ("title", "history", "test"):
        path.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        assert_user_error(run_here(*command), "result.json lacks", key)


def test_translate_names_a_line_that_is_not_utf8(trained, run_here, tmp_path):
    runs_dir, _ = trained
    file = tmp_path / "latin1.txt"
    file.write_bytes("hola\nmañana\n".encode("latin-1"))
    process = run_here("hw2-q3.py", "-runs_dir", runs_dir, "--translate", file)
    assert_user_error(type(process)(process.args, process.returncode, "", process.stderr.splitlines()[-1]), "line 2")


def user_error(*arguments):
    with pytest.raises(options.UserError) as caught:
        script.main([str(argument) for argument in arguments])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_translate_without_a_run_says_how_to_train_one(tmp_path):
    assert "python hw2-q3.py --use_attn" in user_error("--use_attn", "-runs_dir", tmp_path, "--translate", "hola")


def test_a_run_without_attention_does_not_translate_with_it(trained):
    runs_dir, _ = trained
    name = folder_of(runs_dir, False).name
    assert "use_attn" in user_error("--use_attn", "-runs_dir", runs_dir, "-run_name", name, "--translate", "hola")


def test_a_damaged_checkpoint_is_named(trained, tmp_path):
    source = folder_of(trained[0], True)
    folder = tmp_path / "q3" / "broken"
    folder.mkdir(parents=True)
    for name in ("config.json", "result.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    (folder / "best.pt").write_bytes(b"no checkpoint")
    assert "best.pt" in user_error("--use_attn", "-runs_dir", tmp_path, "--translate", "hola")
    files.write_state(folder / "best.pt", {"weights": {}, "chars": ["a", "b"]})
    assert "another network" in user_error("--use_attn", "-runs_dir", tmp_path, "--translate", "hola")
    (folder / "config.json").write_text("{}")
    assert "config.json has no kind" in user_error("--use_attn", "-runs_dir", tmp_path, "--translate", "hola")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("hidden_size", 6, "another network"),
        ("hidden_size", None, "another network"),
        ("use_attn", 0, "no trained run"),
    ],
)
def test_translate_refuses_a_config_that_makes_no_such_network(trained, tmp_path, name, value, said):
    """None: the option is missing."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    path = folder_of(tmp_path, True) / "config.json"
    config = json.loads(path.read_text())
    if value is None:
        del config["options"][name]
    else:
        config["options"][name] = value
    path.write_text(json.dumps(config))
    arguments = ("--use_attn", "-runs_dir", tmp_path, "-run_name", path.parent.name, "--translate", "hola")
    assert said in user_error(*arguments)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--beam_size", "0"), ("--beam_size", "1.5"), ("--length_penalty", "-1"), ("--lr", "0"), ("--lr", "nan"),
        ("--hidden_size", "7"), ("--dropout", "1"), ("--n_epochs", "0"), ("--batch_size", "-1"), ("--max_length", "x"),
    ],
)  # fmt: skip
def test_wrong_options_end_in_one_line(wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        script.main([*wrong])
    assert caught.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1 and wrong[0].strip("-") in stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["train-eng-spa.txt", "download_tatoeba.py"]),
        (b"", ["train-eng-spa.txt"]),
        (b"go .\tve .\nno tab here\n", ["train-eng-spa.txt", "line 2", "tab"]),
        ("go .\tve .\nday\tma\xf1ana\n".encode("latin-1"), ["train-eng-spa.txt", "line 2", "UTF-8"]),
        (b"a sentence that is far too long\tuna frase que es demasiado larga\n", ["train", "20"]),
    ],
)
def test_wrong_files_end_in_one_line_and_leave_the_runs_alone(content, words, data_dir, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for path in data_dir.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    if content is None:
        (folder / "train-eng-spa.txt").unlink()
    else:
        (folder / "train-eng-spa.txt").write_bytes(content)
    for mode in ("real", "auto"):
        message = user_error(*TINY, "-data", mode, "-data_dir", folder, "-runs_dir", tmp_path / "runs")
        assert all(word in message for word in words), message
    assert not (tmp_path / "runs").exists()


def test_an_empty_validation_file_is_named(data_dir, tmp_path):
    for path in data_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() if "val" not in path.name else b"\n")
    assert "val-eng-spa.txt" in user_error(*TINY, "-data_dir", tmp_path, "-runs_dir", tmp_path)


def test_the_corpus_alone_is_enough_and_longer_sentences_only_join_the_training(tmp_path, data_dir):
    pairs = bundled_translation.generate(max_length=30, n_pairs=N_PAIRS)
    (tmp_path / "spa.txt").write_text("".join(f"{en}\t{es}\tCC-BY\r\n" for en, es in pairs), newline="")
    short, long = (translation.load("real", tmp_path, max_length) for max_length in (20, 30))
    assert short.pairs == translation.split_pairs(pairs)
    assert long.pairs["val"] == short.pairs["val"] and long.pairs["test"] == short.pairs["test"]
    assert set(long.pairs["train"]) > set(short.pairs["train"])


def test_longer_sentences_that_are_not_there_are_asked_for(data_dir, tmp_path):
    message = user_error(*TINY, "-data_dir", data_dir, "-runs_dir", tmp_path, "--max_length", "30")
    assert "train-eng-spa.txt has none" in message and "download_tatoeba.py" in message
    message = user_error(*TINY, "-data", "bundled", "-runs_dir", tmp_path, "--max_length", "1")
    assert "larger -max_length" in message and "download" not in message


def test_the_rule_that_drops_the_last_symbol_is_measured(trained, data_dir, capsys):
    folder = folder_of(trained[0], False)
    translator, model = load_translator(folder)
    refs, sentences = zip(*translation.read_pairs(data_dir / "test-eng-spa.txt"))
    rates, n_cut = [], 0
    for ref, sentence in zip(refs, sentences):
        state, memory = model.start(
            torch.tensor([translator.src_vocab.encode(sentence)]), torch.tensor([len(sentence)])
        )
        symbols = [text.SOS_IDX]
        while symbols[-1] != text.EOS_IDX and len(symbols) < 50:
            log_probs, state, _ = model.step(torch.tensor(symbols[-1:]), state, memory)
            log_probs[:, [text.PAD_IDX, text.SOS_IDX, text.UNK_IDX]] = float("-inf")
            symbols.append(log_probs.argmax().item())
        n_cut += symbols[-1] != text.EOS_IDX
        hyp = translator.tgt_vocab.decode(symbols[1:-1])  # the skeleton's final_seq[1:-1]
        rates.append(Levenshtein.distance(hyp, ref) / len(ref))
    assert n_cut > 0
    last_symbol.main([str(folder), "-data_dir", str(data_dir)])
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"dropped {sum(rates) / len(rates):.4f}  kept" in line and line.endswith(f"without an end {n_cut}")


@pytest.fixture
def both_sets(data_dir, tmp_path):
    """A data folder with the course's files of both kinds: in their own folder, and where Tatoeba's lie."""
    course = [(f"a {i}", f"b {i}") for i in "cdefgh"]
    splits = {"train": [*course[:4], ("a long one " * 2, "b")], "val": course[4:5], "test": course[5:]}
    write_split(splits, tmp_path / translation.COURSE_FOLDER)
    for path in data_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "spa.txt").write_text("a very long sentence\tuna frase larga\n" * 3)
    return tmp_path


def test_the_courses_files_are_taken_first_and_by_their_name(both_sets, data_dir):
    course, tatoeba = (translation.load("real", both_sets, dataset=dataset) for dataset in ("course", "tatoeba"))
    assert (course.dataset, tatoeba.dataset) == ("course", "tatoeba")
    assert translation.load("auto", both_sets) == course
    assert course.title == "course-eng-spa, Spanish to English"  # any files of that layout
    assert course.pairs["train"] == [("a c", "b c"), ("a d", "b d"), ("a e", "b e"), ("a f", "b f")]
    assert tatoeba.title == translation.TITLE
    assert tatoeba.pairs == translation.load("real", data_dir).pairs
    assert translation.load("bundled", both_sets).dataset == "tatoeba"


@pytest.mark.parametrize("place", ["", translation.COURSE_FOLDER])
def test_the_courses_own_files_are_recognised_wherever_they_lie(place, both_sets, monkeypatch):
    dataset = "course" if place else "tatoeba"
    splits = {split: translation.read_pairs(both_sets / place / name) for split, name in translation.FILE_NAMES.items()}
    monkeypatch.setattr(translation, "COURSE_FINGERPRINT", translation.fingerprint(splits))
    for max_length in (20, 10):
        loaded = translation.load("real", both_sets, max_length, dataset=dataset)
        assert (loaded.title, loaded.dataset) == (translation.COURSE_TITLE, dataset)


def test_only_the_training_file_trains_on_its_rows(both_sets):
    longer = translation.load("real", both_sets, 30).pairs["train"]
    assert longer == translation.read_pairs(both_sets / translation.COURSE_FOLDER / "train-eng-spa.txt")
    (both_sets / translation.COURSE_FOLDER / "train-eng-spa.txt").write_text("a\tb\n")
    for dataset in ("course", "tatoeba"):  # spa.txt lies beside
        with one_line_error("-max_length 30", "train-eng-spa.txt has none"):
            translation.load("real", both_sets, 30, dataset=dataset)


def test_a_course_file_that_is_missing_is_named(both_sets, tmp_path):
    (both_sets / translation.COURSE_FOLDER / "val-eng-spa.txt").unlink()
    for dataset in ("auto", "course"):
        with one_line_error(f"{translation.COURSE_FOLDER}/val-eng-spa.txt is missing", "-dataset tatoeba"):
            translation.load("auto", both_sets, dataset=dataset)


def test_the_real_course_files_are_the_courses_own():
    folder = options.DATA_DIR / translation.COURSE_FOLDER
    if not folder.exists():
        pytest.skip("needs the course's files")
    assert translation.load("real").title == translation.COURSE_TITLE


def test_a_runs_folder_names_the_set(both_sets, tmp_path, capsys):
    run = [str(arg) for arg in (*TINY, "-data_dir", both_sets, "-runs_dir", tmp_path / "runs")]
    script.main([*run, "-dataset", "tatoeba", "-n_epochs", "1"])
    script.main(run)
    newest, older = sorted((tmp_path / "runs" / "q3").iterdir())
    assert newest.name.startswith("course-epochs=2") and older.name.startswith("tatoeba-epochs=1")
    capsys.readouterr()
    for dataset, folder in {"auto": newest, "course": newest, "tatoeba": older}.items():
        script.main([*run[-2:], "-dataset", dataset, "--translate", "hola"])
        assert f"weights of {options.typed(folder)}" in capsys.readouterr().err


def test_the_vocabulary_turns_text_into_indices_and_back():
    vocab = text.Vocabulary("hello .")
    assert len(vocab) == 4 + len(set("hello ."))
    indices = vocab.encode("hello x")
    assert indices[-1] == text.UNK_IDX and min(indices[:-1]) >= 4
    assert vocab.decode(indices) == "hello "
    assert vocab.decode([text.SOS_IDX, *vocab.encode("he"), text.EOS_IDX, *vocab.encode("o")]) == "he"
    assert text.Vocabulary(vocab.chars).index == vocab.index


def test_error_rates_by_hand():
    assert metrics.error_rates(["abc", "", "axc", "abcd"], ["abc", "ab", "abc", "ab"]).tolist() == [0, 1, 1 / 3, 1]
    figures = metrics.translation(["abc", "ab"], ["abc", "abcd"], seen={"abc"})
    assert figures["err_rate"]["value"] == 0.25
    assert figures["cer"] == pytest.approx(2 / 7)
    assert figures["exact"]["value"] == 0.5
    assert figures["err_rate_seen"]["value"] == 0 and figures["err_rate_unseen"]["value"] == 0.5
    assert metrics.translation(["a"], ["a"])["chrf"] == 100


def distance_by_the_definition(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(
        distance_by_the_definition(a[1:], b) + 1,
        distance_by_the_definition(a, b[1:]) + 1,
        distance_by_the_definition(a[1:], b[1:]) + (a[0] != b[0]),
    )


@given(st.text("ab", max_size=4), st.text("ab", min_size=1, max_size=4), st.text("ab", min_size=1, max_size=4))
def test_error_rates_by_their_properties(hyp, ref, other):
    (rate,) = metrics.error_rates([hyp], [ref])
    assert rate * len(ref) == pytest.approx(distance_by_the_definition(hyp, ref))
    assert (rate == 0) == (hyp == ref)
    (through,) = metrics.error_rates([hyp], [other])
    (onwards,) = metrics.error_rates([other], [ref])
    assert rate * len(ref) <= through * len(other) + onwards * len(ref) + 1e-9
    assert rate <= max(len(hyp), len(ref)) / len(ref)


def test_one_batch_can_be_memorised():
    torch.manual_seed(0)
    pairs = [("go on .", "sigue ."), ("i see .", "ya veo ."), ("no .", "no .")]
    args = script.parse_args(["--use_attn", "--hidden_size", "32", "--dropout", "0", "--batch_size", "3"])
    data = translation.SentencePairs("", False, {"train": pairs}, "")
    translator = script.Translation(args, data)
    model = translator.build()
    (batch,) = translator.batches("cpu").epoch(torch.Generator())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss, n_chars = translator.batch_loss(model, batch)
        (loss / n_chars).backward()
        optimizer.step()
    assert n_chars == sum(len(english) + 1 for english, _ in pairs)
    assert translator.decode(model, "train") == [english for english, _ in pairs]
    found = translator.decode_batch(model, ["ya veo ."], return_weights=True)
    torch.testing.assert_close(found.weights[0].sum(dim=1), torch.ones(len("i see .") + 1))

    tgt_in, tgt_out = batch[2][:, :-1], batch[2][:, 1:]
    logits, _ = model.train()(*batch[:2], tgt_in)
    log_probs, real = logits.log_softmax(dim=-1), tgt_out != text.PAD_IDX
    exact = -log_probs.gather(2, tgt_out.unsqueeze(2)).squeeze(2)[real].sum()
    torch.testing.assert_close(translator.batch_loss(model, batch)[0], exact)
    args.label_smoothing = 0.1
    uniform = -log_probs.mean(dim=-1)[real].sum()
    torch.testing.assert_close(translator.batch_loss(model, batch)[0], 0.9 * exact + 0.1 * uniform)
    torch.testing.assert_close(translator.batch_loss(model.eval(), batch)[0], exact)


def test_every_recipe_option_trains(data_dir, tmp_path, capsys):
    recipe = ["--schedule", "cosine", "--max_grad_norm", "1", "--label_smoothing", "0.1", "--ema_decay", "0.9"]
    script.main([*TINY, *recipe, "-data_dir", str(data_dir), "-runs_dir", str(tmp_path)])
    assert "Final Test error rate, greedy: " in capsys.readouterr().out
    (folder,) = (tmp_path / "q3").iterdir()
    changed = files.read_json(folder / "config.json", "changed")
    assert {option.strip("-") for option in recipe[::2]} <= changed.keys()
    history = files.read_json(folder / "result.json")["history"]
    assert history[0]["lr"] > history[1]["lr"]


def test_translate_takes_the_newest_run_of_either_network_and_names_the_other(trained, run_here):
    runs_dir, _ = trained
    times = {use_attn: folder_of(runs_dir, use_attn) / "result.json" for use_attn in (False, True)}
    for newest in (False, True):
        os.utime(times[newest], (2e9, 2e9))
        os.utime(times[not newest], (1e9, 1e9))
        process = run_here("hw2-q3.py", "-runs_dir", runs_dir, "--translate", "hola")
        other = times[not newest].parent
        assert process.stderr == f"weights of {options.typed(times[newest].parent)}\nor with --run {other.name}\n"
        assert len(process.stdout.splitlines()) == 1
        named = run_here("hw2-q3.py", "-runs_dir", runs_dir, "-run", other.name, "--translate", "hola")
        assert named.stderr == f"weights of {options.typed(other)}\n"


def test_a_run_of_another_question_is_refused(trained, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(folder_of(trained[0], True), folder)
    config = files.read_json(folder / "config.json")
    files.write_json(folder / "config.json", config | {"question": "q2"})
    assert "a run of q2, not of q3" in user_error("-run", folder, "--translate", "hola")


def test_the_attention_to_a_sentence_of_ones_own_is_drawn_with_both_texts(trained, run_here):
    folder = folder_of(trained[0], True)
    process = run_here("hw2-q3.py", "-run", folder, "-draw", "--translate", "hola mundo", "", "adiós")
    names = [f"translated_{number}.pdf" for number in (1, 3)]
    assert [line.rpartition("/")[2] for line in process.stderr.splitlines()[1:]] == names
    for name, source in zip(names, ("hola mundo", "adios")):
        text_of_page = pypdf.PdfReader(folder / name).pages[0].extract_text()
        assert f"Tatoeba, Spanish to English {source} → " in " ".join(text_of_page.split())
        (folder / name).unlink()
    assert "\u2423" in pypdf.PdfReader(folder / "attention_1.pdf").pages[0].extract_text()
    assert "--use_attn" in user_error("-run", folder_of(trained[0], False), "-draw", "--translate", "hola")


def test_the_end_of_a_run_is_four_lines(trained):
    stdout = trained[1][False].stdout
    assert end_of(stdout) == ["Best", "Final", "For", "written"]
    assert re.search(r"^Final Test .*, nearest sentence \d\.\d{4}$", stdout, re.MULTILINE)
