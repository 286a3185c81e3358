"""`-models my_models.py`: a student's own classes train and decode as ours do, and their runs are told apart."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_user_error, load_script

import options
import runs
import student
import utils
from data import translation
from data.bundled import translation as bundled_translation
from tests.pairs import write_split
from tests.test_q2 import make_arrays

q2, q3 = load_script("hw2-q2.py"), load_script("hw2-q3.py")
SOLUTIONS = Path(__file__).parent / "check_solutions"
TRANSLATOR = (SOLUTIONS / "models_2022_23.py").read_text(encoding="utf-8")
CUT = "        if self.training:\n            tgt = tgt[:, :-1]\n"
ONE_CALL = (  # of the LSTM, as ours, so that dropout draws the same numbers
    TRANSLATOR[TRANSLATOR.index("        outputs = []\n") : TRANSLATOR.index("        return outputs, dec_state")],
    """        outputs, dec_state = self.lstm(emb, dec_state)
        if self.attn is not None:
            outputs = self.attn(outputs, encoder_outputs, src_lengths)
        outputs = self.dropout(outputs)
""",
)
JOINED = "enc_output = self.dropout(enc_output)\n        final_hidden = reshape_state(final_hidden)"
FORGETFUL = """            first = dec_state if t == 0 else first
            output, dec_state = self.lstm(emb[:, t : t + 1], dec_state if self.training else first)
            dec_state = dec_state if self.training else first"""
TINY = ("-n_epochs", "2", "-hidden_size", "8", "-batch_size", "16", "-threads", "1")
N_PAIRS = 150


def changed(text, *replacements):
    for old, new in replacements:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The course's three files of sentences and the images of each edition, tiny."""
    folder = tmp_path_factory.mktemp("data")
    write_split(translation.split_pairs(bundled_translation.generate(n_pairs=N_PAIRS)), folder)
    for name, n_classes in (("kuzushiji_mnist", 10), ("octmnist", 4), ("fashion_mnist", 10)):
        np.savez(folder / f"{name}.npz", **make_arrays(n_classes))
    return folder


@pytest.fixture
def write(tmp_path):
    """Write a student's file; returns its path."""

    def write(text, name="my_models.py"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """`student.networks` changes both for the process, which a script's run has for itself."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def end_here(run_here, capsys):
    """`run_here`, where an error that the script does not catch ends as the interpreter ends it."""

    def run(*command):
        try:
            return run_here(*command)
        except Exception as error:
            with pytest.raises(SystemExit) as end:
                sys.excepthook(type(error), error, error.__traceback__)
            return subprocess.CompletedProcess(command, end.value.code, "", capsys.readouterr().err)

    return run


def folder_of(runs_dir, question):
    (folder,) = [path for path in (runs_dir / question).iterdir() if "models=" in path.name]
    return folder


def trained_translator(data_dir, file, weights, *arguments):
    """The losses of two epochs from these weights, and the translations of the validation sentences, greedily."""
    args = q3.parse_args([*TINY, "-data_dir", str(data_dir), "--use_attn", *arguments])
    args.models, args.learning_rate, args.seed = file, 0.01, 42
    data = translation.load(args.data, args.data_dir)
    task = q3.Translation(args, data)
    torch.manual_seed(6)
    model = task.build()
    if weights:
        model.load_state_dict(weights)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    optimization, order = utils.Optimization(model, args, 100), torch.Generator().manual_seed(8)
    losses = [utils.train_epoch(optimization, task.batches("cpu"), task.batch_loss, order) for _ in range(2)]
    return first, [*losses, task.mean_loss(model, "val")], task, model


def sharpen(model, their_model):
    """Give both random weights so large that nearly each sentence has a translation of its own."""
    generator = torch.Generator().manual_seed(2)
    state = model.state_dict()
    weights = {name: torch.randn(value.shape, generator=generator) for name, value in state.items()}
    weights["generator.weight"] = weights["decoder.embedding.weight"]
    for each in (model, their_model):
        each.load_state_dict(weights)


@pytest.mark.parametrize(
    ("dropout", "replacements"),
    [
        ("0.3", [ONE_CALL]),
        ("0", []),  # a loop over the steps draws other numbers for dropout
        ("0", [("(packed, batch_first=True)", "(packed, batch_first=True, total_length=src.shape[1])")]),
        ("0", [(CUT, "")]),  # the script cuts the output for the last symbol
        ("0", [(CUT, "        if tgt.shape[1] > 1:\n            tgt = tgt[:, :-1]\n")]),  # also in evaluation
        ("0", [("tgt, dec_hidden=None):", "tgt):\n        dec_hidden = None")]),  # the course's script gives three
        ("0", [("enc_output = self.dropout(enc_output)", JOINED)]),
    ],
)
def test_a_right_translator_has_the_losses_and_translations_of_ours(data_dir, write, dropout, replacements):
    file = write(changed(TRANSLATOR, *replacements))
    weights, ours, task, model = trained_translator(data_dir, None, None, "-dropout", dropout)
    _, theirs, their_task, their_model = trained_translator(data_dir, file, weights, "-dropout", dropout)
    assert type(their_model).__mro__[1:3] != type(model).__mro__[1:3] and isinstance(their_model, student.Translator)
    assert theirs == pytest.approx(ours, rel=1e-5) and ours[1] < ours[0]
    sharpen(model, their_model)
    for search in ({}, {"beam_size": 3}, {"n_samples": 3, "seed": 5}):
        hyps = task.decode(model, "val", **search)
        assert their_task.decode(their_model, "val", **search) == hyps and len(set(hyps)) > len(hyps) / 2


@pytest.mark.parametrize(
    "mistake",
    [
        ("scores = scores.masked_fill", "scores.masked_fill"),
        ("torch.cat([query, c], dim=-1)", "torch.cat([z, c], dim=-1)"),
        ("            output, dec_state = self.lstm(emb[:, t : t + 1], dec_state)", FORGETFUL),
    ],
)
def test_a_wrong_translator_differs_from_ours(data_dir, write, mistake):
    """The first two in the losses, the last, which forgets its state from call to call, in the translations."""
    weights, ours, task, model = trained_translator(data_dir, None, None, "-dropout", "0")
    file = write(changed(TRANSLATOR, mistake))
    _, theirs, their_task, their_model = trained_translator(data_dir, file, weights, "-dropout", "0")
    if mistake[1] is FORGETFUL:
        sharpen(model, their_model)
        assert their_task.decode(their_model, "val") != task.decode(model, "val")
    else:
        assert theirs != pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize(
    ("file", "edition", "more"),
    [
        ("q2_2022_23.py", "2022-23", []),
        ("q2_2021_22.py", "2021-22", ["-conv_1_name", "convblock1[0]", "-conv_2_name", "convblock2[0]"]),
        ("q2_2023_24.py", "2023-24", []),
        ("q2_2023_24.py", "2023-24", ["-no_maxpool"]),
    ],
)
def test_a_right_cnn_has_the_losses_of_ours(data_dir, tmp_path, run_here, file, edition, more):
    common = [
        "-edition",
        edition,
        "-learning_rate",
        "0.01",
        "-epochs",
        "2",
        "-data_dir",
        data_dir,
        "-runs_dir",
        tmp_path,
    ]
    theirs = run_here("hw2-q2.py", *common, "-models", SOLUTIONS / file, *more)
    assert theirs.returncode == 0, theirs.stderr
    assert "own network (without -models): not trained yet" in theirs.stdout
    folder = folder_of(tmp_path, "q2")
    options_ = json.loads((folder / "config.json").read_text())["options"]
    assert options_["models"] == runs.plain(SOLUTIONS / file) and options_["models"].startswith(f"{file}-")
    ours = run_here("hw2-q2.py", *common, *[option for option in more if option == "-no_maxpool"])
    assert ours.returncode == 0, ours.stderr
    (line,) = [line for line in ours.stdout.splitlines() if line.startswith("Final Test")]
    again = run_here("hw2-q2.py", *common, "-models", SOLUTIONS / file, *more, "-resume")
    value = line.split(": ")[1].split(" (")[0]
    assert f"Final Test accuracy of this project's own network (without -models): {value} (" in again.stdout
    losses = [
        [epoch["train_loss"] for epoch in json.loads((path / "result.json").read_text())["history"]]
        for path in (folder, *[path for path in (tmp_path / "q2").iterdir() if path != folder])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # the same seed gives the same first weights


def test_a_cnn_without_arguments_is_trained(data_dir, write, tmp_path, run_here):
    text = (SOLUTIONS / "q2_2021_22.py").read_text(encoding="utf-8")
    file = write(changed(text, ("(self, dropout_prob)", "(self)"), ("nn.Dropout(dropout_prob)", "nn.Dropout(0.3)")))
    names = ("-conv_1_name", "convblock1[0]", "-conv_2_name", "convblock2[0]")
    places = ("-data_dir", data_dir, "-runs_dir", tmp_path)
    settings = ("-edition", "2021-22", "-learning_rate", "0.01", "-epochs", 1)
    process = run_here("hw2-q2.py", *settings, *places, *names, "-models", file)
    assert process.returncode == 0 and "Final Test accuracy" in process.stdout, process.stderr


def test_the_whole_command_line_trains_searches_translates_and_resumes(data_dir, write, tmp_path, run_here):
    file = write(TRANSLATOR)
    common = ("-data_dir", data_dir, "-runs_dir", tmp_path)
    command = ("hw2-q3.py", "--use_attn", "--models", file, *TINY, *common)
    process = run_here(*command, "-ema_decay", "0.5", "--beam_size", "2", "--n_samples", "3")
    assert process.returncode == 0, process.stderr
    assert "beam of 2" in process.stdout and "minimum risk of 3" in process.stdout
    folder = folder_of(tmp_path, "q3")
    result = json.loads((folder / "result.json").read_text())
    assert result["attention"] == [] and result["test"]["greedy"]["err_rate"]["value"] > 0

    assert_user_error(run_here("hw2-q3.py", "--translate", "hola", *common), "no trained run")
    assert_user_error(run_here("hw2-q3.py", "--translate", "hola", "--run", folder, *common), "give my_models.py-")
    ours = run_here("hw2-q3.py", "--use_attn", *TINY, *common, "-skip_test")
    theirs = run_here(*command, "-ema_decay", "0.6", "-skip_test")
    assert ours.returncode == theirs.returncode == 0 and "Final Test" not in ours.stdout + theirs.stdout
    said = run_here("hw2-q3.py", "--translate", "hola", *common).stderr
    assert "my_models" not in said and "or with" not in said  # a hint would name a run of other classes
    named = ("hw2-q3.py", "--models", file, "--translate", "hola", *common)
    assert run_here(*named).returncode == run_here(*named, "--run", folder).returncode == 0
    process = run_here(*named, "-draw")
    assert process.returncode == 2 and "this project's own network" in process.stderr

    write(TRANSLATOR + "# another version\n")
    for more in ([], ["--run", folder]):
        assert run_here(*named, *more).returncode == 2
    assert_user_error(run_here(*command, "-ema_decay", "0.5", "-resume"), "no run to resume")
    name = ("-ema_decay", "0.5", "-run_name", folder.name, "-resume")
    assert_user_error(run_here(*command, *name), "was made with other models")
    write(TRANSLATOR)
    assert run_here(*command, *name).returncode == 0


@pytest.mark.parametrize(
    ("replacement", "words"),
    [
        (("class Attention", "class Attn"), ["AttributeError", "'Attention'"]),
        (("class Seq2Seq", "class Model"), ["AttributeError", "'Seq2Seq'"]),
        (("src_vocab_size, hidden_size, padding_idx, dropout)", "src_vocab_size)"), ["Encoder.__init__() takes 2"]),
        (("def forward(self, src, lengths)", "def forward(self, src)"), ["line 89, Seq2Seq.forward", "Encoder.for"]),
        (("z = self.linear_in(query)", "z = self.linear_out(query)"), ["line 22, Attention.forward", "mat1 and mat2"]),
        (("self.generator(output), dec_hidden", "self.generator(output)"), ["Seq2Seq", "unpack"]),
        (("self.generator(output), dec_hidden", "output, dec_hidden"), ["Seq2Seq", "out of bounds"]),
        (("import torch\nfrom torch", "import torch(\nfrom torch"), ["SyntaxError", "line 1"]),
        (("import torch\nfrom torch", "import nowhere\nfrom torch"), ["line 1, <module>", "ModuleNotFoundError"]),
        ((TRANSLATOR[TRANSLATOR.index("class Attention"):], "from models import *\n"), ["no attribute 'Encoder'"]),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_ends_in_one_line(data_dir, write, tmp_path, end_here, replacement, words):
    file = write(changed(TRANSLATOR, replacement))
    common = ("-data_dir", data_dir, "-runs_dir", tmp_path, *TINY, "-n_epochs", 1)
    process = end_here("hw2-q3.py", "--use_attn", "--models", file, *common)
    assert_user_error(process, "my_models.py", f"python check.py {options.typed(file)}", *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-models", "nowhere.py"], ["must be a .py file that exists"]),
        (["-models", "README.md"], ["must be a .py file that exists"]),
        (["-network", "mlp", "-models", SOLUTIONS / "q2_2022_23.py"], ["-models go with -network cnn"]),
        (["-models", SOLUTIONS / "q2_2021_22.py"], ["no convolution called conv1", "convblock1.0"]),
        (["-no_maxpool", "-models", SOLUTIONS / "q2_2022_23.py"], ["unexpected keyword argument 'no_maxpool'"]),
        (["-models", SOLUTIONS / "models_2022_23.py"], ["no attribute 'CNN'"]),
    ],
)
def test_a_wrong_cnn_ends_in_one_line(data_dir, tmp_path, end_here, arguments, words):
    common = ("-learning_rate", "0.01", "-epochs", 1, "-data_dir", data_dir, "-runs_dir", tmp_path)
    assert_user_error(end_here("hw2-q2.py", *arguments, *common), *words)


def test_the_line_of_an_error_is_all_that_a_process_says(data_dir, write, tmp_path, run_script):
    file = write(changed(TRANSLATOR, ("def forward(self, src, lengths)", "def forward(self, src)")))
    process = run_script("hw2-q3.py", "-models", file, "-data_dir", data_dir, "-runs_dir", tmp_path, *TINY)
    assert_user_error(process, "line 89, Seq2Seq.forward: TypeError: Encoder.forward() takes 2", "python check.py")


def test_the_config_changes_with_the_content_and_not_with_the_place(tmp_path):
    (tmp_path / "other").mkdir()
    paths = [tmp_path / "my.py", tmp_path / "other" / "my.py"]
    for path in paths:
        path.write_text("x = 1\n")
    assert runs.plain(paths[0]) == runs.plain(paths[1]) != str(paths[0])
    paths[1].write_text("x = 2\n")
    assert runs.plain(paths[0]) != runs.plain(paths[1])
    (tmp_path / "folder.py").mkdir()
    assert runs.plain(tmp_path / "folder.py") == str(tmp_path / "folder.py")


def test_the_file_reads_what_lies_beside_it(write):
    write("SIZE = 3\n", "sizes_of_mine.py")
    file = write("from sizes_of_mine import SIZE\n\n\ndef double():\n    return 2 * SIZE\n")
    assert student.networks(options.python_file(str(file))).double() == 6
