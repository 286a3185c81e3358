"""Question 2 as its users run it: command lines, figures, comparisons, wrong input."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import assert_user_error, end_of, load_script
from PIL import Image

import comparisons
import convolutions
import experiment
import runs
import utils
from convolutions import edge_filters, equivariance
from data import images
from editions import DATASETS, EDITIONS
from models import CNN, MLP
from options import BESIDE_OTHERS, COMPARED, Interrupted

FIGURES = (
    "train_loss.pdf", "val_acc.pdf", "original_example.pdf", "examples.pdf", "activation_maps.pdf", "filters_1.pdf",
    "filters_2.pdf", "confusion.pdf",
)  # fmt: skip
SIZES = {"train": 48, "val": 20, "test": 30}


def make_arrays(n_classes=10, sizes=SIZES):
    """Images whose bright row is their class: a network learns them at once."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in sizes.items():
        labels = np.arange(n) % n_classes
        pictures = rng.integers(0, 60, (n, 28, 28))
        pictures[np.arange(n), 2 * labels + 2] = 255
        arrays |= {f"{split}_images": pictures.astype(np.uint8), f"{split}_labels": labels.astype(np.uint8)}
    return arrays


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, edition in DATASETS.items():
        np.savez(folder / f"{name}.npz", **make_arrays(edition.n_classes))
    return folder


@pytest.fixture
def q2_in_processes(run_here, data_dir, tmp_path):
    """The script; what it compares runs side by side as processes."""

    def run(*arguments, data_dir=data_dir):
        return run_here("hw2-q2.py", "-data_dir", data_dir, "-runs_dir", tmp_path, "-epochs", 2, *arguments)

    return run


@pytest.fixture
def q2(q2_in_processes, children_here):
    return q2_in_processes


def read_result(tmp_path, name):
    return json.loads((tmp_path / "q2" / name / "result.json").read_text())


def test_one_rate(q2, tmp_path):
    process = q2("-learning_rate", "0.0005")
    assert process.returncode == 0, process.stderr
    assert "420,906 trainable parameters" in process.stdout
    assert "Epoch 2/2  train loss" in process.stdout and "Final Test accuracy, test set: 0." in process.stdout
    name = "kuzushiji_mnist-epochs=2-learning_rate=0.0005"
    for figure in FIGURES:
        assert (tmp_path / "q2" / name / figure).read_bytes().startswith(b"%PDF"), figure
    result = read_result(tmp_path, name)
    assert result["test"]["official"]["acc"]["n"] == SIZES["test"] and not result["bundled"]
    assert result["baselines"] == {"majority": 0.1, "nearest_centroid": 1.0}  # ten classes, each a bright row
    assert [point["pixels"] for point in result["shifted_acc"]] == [0, 1, 2, 3, 4]
    assert result["shifted_acc"][0]["acc"] == result["test"]["official"]["acc"]
    assert result["equivariance"]["shift"] < 1e-5 < 0.1 < result["equivariance"]["rotation"]
    assert result["class_shares"]["val"] == [0.1] * 10 and sum(result["class_shares"]["train"]) == pytest.approx(1)
    assert result["dead_units"].keys() == {"conv1", "conv2", "fc1", "fc2"} and result["dead_images"] == SIZES["train"]
    assert len(result["balances"]) == 8
    in_place, *moved = result["shifted_acc"]
    assert in_place["acc"] == result["test"]["official"]["acc"] and in_place["kept"]["value"] == 1
    assert all(point["kept"]["n"] == round(in_place["acc"]["value"] * SIZES["test"]) for point in moved)
    again = q2("--learning_rate", "0.0005", "-resume")  # finished: shown, not trained
    assert "Epoch" not in again.stdout and "Final Test accuracy, test set: 0." in again.stdout


CURVES = "train_loss.pdf, val_acc.pdf"


@pytest.mark.parametrize("edition", EDITIONS)
def test_a_run_ends_with_the_answers_to_what_its_statement_asks_for_in_six_lines(q2, tmp_path, monkeypatch, edition):
    monkeypatch.setattr(images, "COURSE_OCTMNIST_COUNTS", (2, 1, 1, 2))  # of the 30 test images
    process = q2("-edition", edition, "-learning_rate", "0.01", "-epochs", 1, "-run_name", "mine")
    assert process.returncode == 0, process.stderr
    result = read_result(tmp_path, "mine")
    shift, turn = (result["equivariance"][name] for name in ("shift", "rotation"))
    answers = {
        "2021-22": [
            f"2.1 Equivariance error: shift {shift:.1g}, 90° turn {turn:.2f}", f"2.2 {CURVES}",
            "2.3 filters_1.pdf, filters_2.pdf",
        ],
        "2022-23": [
            "2.1 Trainable parameters: 420,906", f"2.4 {CURVES}", "2.5 activation_maps.pdf, original_example.pdf",
        ],
        "2023-24": [f"2.1, 2.2 {CURVES}", "2.3 Trainable parameters: 224,892"],
    }[edition]  # fmt: skip
    best, *lines, written = process.stdout.splitlines()[-6:]
    assert best.startswith("Best validation accuracy: ") and written.startswith("written to ")
    tests = {"test set": "official"} | ({"the course's 529 images": "course_529"} if edition == "2023-24" else {})
    for line, (shown, name) in zip(lines, tests.items()):
        assert line.startswith(f"Final Test accuracy, {shown}: {result['test'][name]['acc']['value']:.4f}")
    assert lines[len(tests) :] == answers
    for name in re.findall(r"\w+\.pdf", " ".join(answers)):
        assert (tmp_path / "q2" / "mine" / name).is_file()


def test_a_run_without_test_or_convolutions_shows_none_of_the_answers(q2):
    for more in (["-skip_test"], ["-network", "mlp"]):
        process = q2("-edition", "2021-22", "-learning_rate", "0.01", "-epochs", 1, *more)
        assert process.returncode == 0 and "Best validation" in process.stdout, process.stderr
        assert re.search(r"^2\.\d", process.stdout, re.MULTILINE) is None, more


def test_rates_are_compared_on_validation_and_the_test_set_is_seen_for_the_best_only(q2, tmp_path):
    process = q2("-dataset", "fashion_mnist", "-learning_rate", "0.1", "0.00001", "-epochs", "4")
    assert process.returncode == 0, process.stderr
    assert "best on validation: learning rate 0.1" in process.stdout
    assert process.stdout.count("Final Test acc") == 1
    base = "fashion_mnist-epochs=4-learning_rate="
    assert read_result(tmp_path, base + "1e-05")["test"] is None
    assert read_result(tmp_path, base + "0.1")["test"] is not None
    comparison = read_result(tmp_path, base + "0.1,1e-05")
    assert [entry["learning_rate"] for entry in comparison["entries"]] == [0.1, 1e-05]
    assert comparison["best"]["learning_rate"] == 0.1 and comparison["test"] is None
    assert (tmp_path / "q2" / (base + "0.1,1e-05") / "val_acc.pdf").exists()


def test_seeds_are_compared_side_by_side_with_mean_and_range(q2, tmp_path):
    process = q2("-dataset", "fashion_mnist", "-learning_rate", "0.1", "-seed", "42", "43", "43", "44")
    assert process.returncode == 0, process.stderr
    comparison = read_result(tmp_path, "fashion_mnist-epochs=2-learning_rate=0.1-seed=42,43,44")
    assert [entry["seed"] for entry in comparison["entries"]] == [42, 43, 44]
    for figure, of_runs in ((comparison["test"], "test"), (comparison["values"][0], "val_acc")):
        values = [entry[of_runs]["value"] for entry in comparison["entries"]]
        assert figure["n"] == 3 and (figure["low"], figure["high"]) == (min(values), max(values))
        assert figure["mean"] == pytest.approx(sum(values) / 3)
        assert f"{figure['mean']:.4f} ({min(values):.4f} to {max(values):.4f})" in process.stdout
    alone = q2("-dataset", "fashion_mnist", "-learning_rate", "0.1", "-seed", "43", "-run_name", "alone")
    assert f"{comparison['entries'][1]['test']['value']:.4f}" in alone.stdout


def test_rates_and_seeds_together_take_the_rate_with_the_best_mean_and_test_each_of_its_seeds(q2, tmp_path):
    process = q2("-dataset", "fashion_mnist", "-learning_rate", "0.1", "0.00001", "-seed", "1", "2", "-epochs", "4")
    assert process.returncode == 0, process.stderr
    base = "fashion_mnist-epochs=4-learning_rate="
    both = read_result(tmp_path, base + "0.1,1e-05-seed=1,2")
    assert [(e["learning_rate"], e["seed"]) for e in both["entries"]] == [(0.1, 1), (0.1, 2), (1e-05, 1), (1e-05, 2)]
    assert [(value["learning_rate"], value["n"]) for value in both["values"]] == [(0.1, 2), (1e-05, 2)]
    assert all(entry["test"] is None for entry in both["entries"])
    assert read_result(tmp_path, base + "0.1-seed=1,2")["test"]["n"] == 2
    assert read_result(tmp_path, base + "1e-05-seed=1")["test"] is None


def test_the_best_rate_has_the_best_mean_and_not_the_best_run():
    shown = iter((0.1, 0.9, 0.6, 0.6))
    entries = [
        {"learning_rate": rate, "seed": seed, "error": None, "test": None, "val_acc": {"value": next(shown)}}
        for rate in (0.1, 0.01)
        for seed in (1, 2)
    ]
    args = SimpleNamespace(learning_rate=[0.1, 0.01], seed=[1, 2])
    data = SimpleNamespace(title="images", bundled=True)
    task = SimpleNamespace(args=args, score="val_acc", maximize=True, question="q2", data=data, facts=dict)
    assert comparisons.summarise(task, {}, entries)["best"]["learning_rate"] == 0.01
    task.maximize = False
    assert comparisons.summarise(task, {}, entries)["best"]["learning_rate"] == 0.1


def test_a_named_comparison_tests_the_run_that_it_made(q2, tmp_path):
    process = q2(
        "-dataset", "octmnist", "-learning_rate", "0.1", "0.00001", "-epochs", "1", "-run_name", "octmnist-my-best"
    )
    assert process.returncode == 0 and process.stdout.count("Epoch 1/1") == 2, process.stderr
    assert read_result(tmp_path, "octmnist-my-best")["entries"][0]["run"] == "octmnist-my-best, lr 0.1"
    names = {path.name for path in (tmp_path / "q2").iterdir()}
    assert names == {"octmnist-my-best", "octmnist-my-best, lr 0.1", "octmnist-my-best, lr 0.00001"}


def test_a_run_that_fails_does_not_take_the_others_down(q2_in_processes, tmp_path):
    process = q2_in_processes("-dataset", "fashion_mnist", "-learning_rate", "0.1", "1e30")
    assert "2 runs, " in process.stdout and process.stdout.count("written to") == 2  # the comparison, the better run
    assert process.returncode == 0, process.stderr
    entries = read_result(tmp_path, "fashion_mnist-epochs=2-learning_rate=0.1,1e+30")["entries"]
    assert entries[0]["error"] is None and "not finite" in entries[1]["error"]


def test_runs_that_all_fail_are_one_line(q2):
    process = q2("-dataset", "fashion_mnist", "-learning_rate", "1e29", "1e30")
    assert_user_error(process, "no run could be made", "finite")


def test_a_variant_takes_the_plain_networks_best_rate_and_no_maxpool_is_compared_with_it(q2, tmp_path):
    """In an empty folder the rates of the plain network are compared first, so that the command is enough by itself."""
    octmnist = ("-dataset", "octmnist", "-scale", "quick")
    first = q2(*octmnist, "-no_maxpool", "-skip_test")
    assert first.returncode == 0 and "the best of the comparison" in first.stdout, first.stderr
    assert "compared first" in first.stdout
    q2(*octmnist)
    best = json.loads(
        (tmp_path / "q2/octmnist-epochs=2-learning_rate=0.1,0.01,0.001-scale=quick/result.json").read_text()
    )
    for variant in (["-no_maxpool"], ["-network", "mlp"], ["-shuffle_pixels"]):
        process = q2(*octmnist, *variant)
        assert process.returncode == 0, process.stderr
        assert f"learning rate {best['best']['learning_rate']:g}, the best of the comparison" in process.stdout
        assert "compared first" not in process.stdout
        path = Path(process.stdout.splitlines()[-1].removeprefix("written to ")) / "result.json"
        pooled = json.loads(path.read_text()).get("pooled")
        assert (pooled is not None and 0 <= pooled["p_value"] <= 1) == (variant == ["-no_maxpool"])


@pytest.mark.parametrize(
    "more", [["-dropout", "0.5"], ["-learning_rate", "0.1", "0.2"], ["-run_name", "octmnist-my-best"]]
)
def test_the_handouts_names_and_spellings_are_one(more, q2):
    args = load_script("hw2-q2.py").parse_args
    assert args(["--n-epochs", "3", "-lr", "0.1", "0.2", "--batch-size", "4", *more]) == args(
        ["-epochs", "3", "--learning_rate", "0.1", "0.2", "-batch_size=4", *more]
    )


def test_every_recipe_option_trains(q2, tmp_path):
    plain = ("-learning_rate", "0.05", "-optimizer", "sgd", "-batch_size", "16", "-skip_test")
    recipe = {
        "schedule": "cosine", "shift": 2, "flip": True, "warp": 0.1, "ema_decay": 0.9, "l2_decay": 0.1,
        "dropout": 0.1, "max_grad_norm": 0.001, "conv_1_name": "conv2", "conv_2_name": "conv1",
    }  # fmt: skip
    losses = []
    for name, value in [(None, None), *recipe.items()]:
        option = [] if name is None else [f"-{name}"] if value is True else [f"-{name}", value]
        process = q2(*plain, *option, "-run_name", str(name))
        assert process.returncode == 0 and "Final Test acc" not in process.stdout, process.stderr
        history = read_result(tmp_path, str(name))["history"]
        losses.append([line["train_loss" if name != "ema_decay" else "val_loss"] for line in history])
        if name == "schedule":
            assert history[0]["lr"] > history[1]["lr"]
    # Each option changes what is trained, or with the averaged weights what is validated; the drawn layers do not.
    plain_val = [line["val_loss"] for line in read_result(tmp_path, "None")["history"]]
    for name, found in zip(recipe, losses[1:]):
        assert (found != (plain_val if name == "ema_decay" else losses[0])) == (not name.startswith("conv")), name


def test_a_network_without_convolutions_and_shuffled_pixels(q2, tmp_path):
    process = q2("-learning_rate", "0.0005", "-network", "mlp", "-shuffle_pixels")
    assert process.returncode == 0, process.stderr
    assert "shuffled pixels: 544,330 trainable parameters" in " ".join(process.stdout.split())
    name = "kuzushiji_mnist-epochs=2-learning_rate=0.0005-network=mlp-shuffle_pixels"
    result = read_result(tmp_path, name)
    assert "equivariance" not in result and len(result["shifted_acc"]) == 5
    for figure in ("train_loss.pdf", "original_example.pdf", "filters_1.pdf", "confusion.pdf"):
        assert (tmp_path / "q2" / name / figure).read_bytes().startswith(b"%PDF"), figure
    assert not (tmp_path / "q2" / name / "activation_maps.pdf").exists()


def test_interrupted_in_the_middle_of_an_epoch_and_resumed_equals_a_run_that_was_not(q2, tmp_path, monkeypatch):
    """With random shifts, so that the states of all generators count."""
    command = ("-learning_rate", 0.0005, "-shift", 1, "-skip_test", "-epochs", 3)
    assert q2(*command, "-run_name", "whole").returncode == 0
    step, n_steps = utils.train_step, 0

    def interrupted(*args):
        nonlocal n_steps
        n_steps += 1
        if n_steps == SIZES["train"] // 8 + 3:  # the third step of the second epoch
            raise KeyboardInterrupt
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(utils, "train_step", interrupted)
        cut = q2(*command, "-run_name", "cut")
    assert cut.returncode == 130 and "\ninterrupted; the same command with -resume" in cut.stderr
    folders = [tmp_path / "q2" / name for name in ("whole", "cut")]
    assert len((folders[1] / runs.HISTORY).read_text().splitlines()) == 1
    resumed = q2(*command, "-run_name", "cut", "-resume")
    assert resumed.returncode == 0 and "Epoch 1/3" not in resumed.stdout and "Epoch 2/3" in resumed.stdout
    for file, key in ((runs.LAST, "model"), (runs.BEST, "weights")):
        ours, theirs = (runs.read_checkpoint(folder / file)[key] for folder in folders)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    histories = [read_result(tmp_path, folder.name)["history"] for folder in folders]
    for ours, theirs in zip(*histories, strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}


@pytest.mark.parametrize("beside, threads, jobs", [(False, 1, 6), (False, 4, 1), (True, 1, 1)])
def test_a_comparison_uses_each_processor_once(beside, threads, jobs, q2_in_processes, monkeypatch):
    """As many processes as there are processors for their threads; one where other steps of a report run beside it."""
    asked = []

    def record(chains, jobs, environment):
        asked.append((len(chains), jobs, environment))
        raise Interrupted

    monkeypatch.setattr(comparisons, "run_side_by_side", record)
    monkeypatch.setattr(runs, "n_cpus", lambda: 6)
    if beside:
        monkeypatch.setenv(BESIDE_OTHERS, "1")
    q2_in_processes("-lr", "0.1", "0.2", "-threads", threads)
    assert asked == [(2, jobs, {COMPARED: "1"})]


@pytest.mark.parametrize("moment", ["the rates are compared", "the rates are compared and the network is trained"])
def test_a_variant_that_was_interrupted_goes_on_with_the_same_command(moment, q2, tmp_path, monkeypatch):
    """`hw2-q2.py -no_maxpool`, Ctrl-C, and the same command with -resume, as the last line advises."""
    command = ("-dataset", "octmnist", "-no_maxpool", "-skip_test", "-epochs", 1)

    def interrupt(*args):
        raise Interrupted

    with monkeypatch.context() as patch:
        if moment == "the rates are compared":
            patch.setattr(comparisons, "run_side_by_side", interrupt)
        else:
            patch.setattr(experiment, "train", interrupting(interrupt))
        cut = q2(*command)
    assert cut.returncode == 130, cut.stderr
    resumed = q2(*command, "-resume")
    assert resumed.returncode == 0 and "written to" in resumed.stdout, resumed.stderr
    assert ("compared first" in resumed.stdout) == (moment == "the rates are compared")


def interrupting(interrupt):
    """`experiment.train`, which is interrupted where it trains the network without pooling."""
    train = experiment.train
    return lambda task, *args: (interrupt if task.args.no_maxpool else train)(task, *args)


def test_other_layers_are_drawn_of_a_finished_run(q2, tmp_path):
    """2021-22, Question 2.3: the names of the layers change no number, so that nothing is trained again."""
    command = ("-learning_rate", "0.1", "-epochs", "1", "-run_name", "x")
    assert q2(*command).returncode == 0
    names = ("activation_maps.pdf", "filters_1.pdf", "filters_2.pdf", "confusion.pdf")

    def drawn():
        return {name: (tmp_path / "q2" / "x" / name).read_bytes() for name in names}

    before, test = drawn(), read_result(tmp_path, "x")["test"]
    process = q2(*command, "-conv_1_name", "conv2", "-conv_2_name", "conv1", "-resume")
    assert process.returncode == 0 and "Epoch" not in process.stdout, process.stderr
    after = drawn()
    assert [name for name in names if before[name] == after[name]] == ["confusion.pdf"]
    assert (after["filters_1.pdf"], after["filters_2.pdf"]) == (before["filters_2.pdf"], before["filters_1.pdf"])
    assert read_result(tmp_path, "x")["test"] == test


def test_names_with_dollars_and_dashes_are_no_trouble(q2, tmp_path, monkeypatch):
    """Dollars are mathematics to matplotlib, and a dash begins an option of the runs that are compared."""
    monkeypatch.chdir(tmp_path)
    np.savez("cost_$1_$.npz", **make_arrays(2))
    process = q2("-dataset=cost_$1_$.npz", "-data_dir=-data", "-runs_dir=-runs", "-lr", "0.1", "0.2", "-epochs", 1)
    assert process.returncode == 0, process.stderr
    (folder,) = {path.parent for path in tmp_path.glob("-runs/q2/*/confusion.pdf")}
    assert folder.name.startswith("file_cost_$1_$")
    entries = [json.loads(path.read_text())["entries"] for path in tmp_path.glob("-runs/q2/*0.1,0.2/result.json")]
    assert [entry["error"] for entry in entries[0]] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-learning_rate", "0"], ["-learning_rate", "above 0", "'0'"]),
        (["-learning_rate", "-1"], ["above 0"]),
        (["-learning_rate", "nan"], ["above 0"]),
        (["-learning_rate", "abc"], ["abc"]),
        (["-batch_size", "0"], ["-batch_size"]),
        (["-seed", str(2**64)], ["-seed", "below 2^64"]),
        (["-network", "mlp", "-no_maxpool"], ["-network cnn"]),
        (["-shift", "28"], ["-shift", "from 0 to 27"]),
        (["-run_name", "../elsewhere"], ["-run_name", "without a path"]),
        (["-batch_size", "10000000000000000000"], ["-batch_size"]),
        (["-dataset", "no_such.npz"], ["no_such.npz", "does not exist"]),
        (["-data", "real", "-data_dir", "tests"], ["kuzushiji_mnist.npz is missing", "download_kuzushiji_mnist.py"]),
        (["-data_dir", "nowhere"], ["there is no folder", "-data_dir"]),
        (["-learning_rate", "0.1", "-conv_1_name", "convblock1[0]"], ["convblock1[0]", "conv1, conv2"]),
    ],
)
def test_wrong_options_end_in_one_line(q2, arguments, words):
    assert_user_error(q2(*arguments), *words)


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"test": {}}', "[" * 200_000])
def test_a_result_of_another_form_is_named_in_one_line(content, q2, tmp_path):
    command = ("-learning_rate", "0.1", "-epochs", "1", "-run_name", "x")
    assert q2(*command).returncode == 0
    (tmp_path / "q2" / "x" / "result.json").write_text(content)
    assert_user_error(q2(*command, "-resume"), "result.json", "run again")


def test_the_best_rate_is_found_whatever_the_name_of_the_comparison(q2, tmp_path):
    rates = ("-dataset", "octmnist", "-skip_test", "-learning_rate", *DATASETS["octmnist"].learning_rates)
    assert q2(*rates, "-run_name", "some name").returncode == 0
    strided = q2("-dataset", "octmnist", "-no_maxpool", "-skip_test")
    assert "the best of the comparison in" in strided.stdout and "some name" in strided.stdout, strided.stderr
    assert "compared first" not in strided.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device that the test misses")
def test_a_device_that_is_not_there(q2):
    assert_user_error(q2("-learning_rate", "0.1", "-device", "cuda"), "no device cuda", "cpu")


def test_an_output_folder_that_cannot_be_written(q2, tmp_path):
    (tmp_path / "file").write_text("")
    process = q2("-runs_dir", tmp_path / "file" / "runs", "-learning_rate", "0.1")
    assert_user_error(process, "cannot write", "-runs_dir")


def test_a_checkpoint_of_another_model(q2, tmp_path):
    assert q2("-learning_rate", "0.1", "-run_name", "x", "-epochs", "1").returncode == 0
    before = (tmp_path / "q2" / "x" / "last.pt").read_bytes()
    process = q2("-learning_rate", "0.1", "-run_name", "x", "-epochs", "1", "-no_maxpool", "-resume")
    assert_user_error(process, "no_maxpool")
    assert (tmp_path / "q2" / "x" / "last.pt").read_bytes() == before


def test_pixels_that_are_no_numbers_are_refused_in_one_line(q2, tmp_path):
    arrays = make_arrays()
    arrays["train_images"] = np.where(arrays["train_images"] > 50, np.nan, 0.0)
    np.savez(tmp_path / "holes.npz", **arrays)
    process = q2("-dataset", tmp_path / "holes.npz", "-learning_rate", "0.1")
    assert_user_error(process, "holes.npz", "whole numbers from 0 to 255")


def test_other_images_have_another_folder_and_are_not_compared(q2, data_dir, tmp_path):
    other = tmp_path / "data"
    other.mkdir()
    np.savez(other / "octmnist.npz", **make_arrays(4, SIZES | {"test": 31}))
    assert q2("-dataset", "octmnist", "-learning_rate", "0.1").returncode == 0
    assert q2("-dataset", "octmnist", "-learning_rate", "0.1", "-no_maxpool", data_dir=other).returncode == 0
    assert read_result(tmp_path, "octmnist-epochs=2-learning_rate=0.1-no_maxpool")["pooled"] is None
    before = read_result(tmp_path, "octmnist-epochs=2-learning_rate=0.1")
    assert q2("-dataset", other / "octmnist.npz", "-edition", "2023-24", "-learning_rate", "0.1").returncode == 0
    assert read_result(tmp_path, "octmnist-epochs=2-learning_rate=0.1") == before
    assert (tmp_path / "q2" / "file_octmnist-epochs=2-learning_rate=0.1").exists()


def test_other_rates_do_not_replace_the_handouts_comparison(q2, tmp_path):
    process = q2("-dataset", "fashion_mnist", "-learning_rate", "0.1", "0.2", "0.1", "-epochs", "1")
    assert process.returncode == 0, process.stderr
    sweep = read_result(tmp_path, "fashion_mnist-epochs=1-learning_rate=0.1,0.2")
    assert [entry["learning_rate"] for entry in sweep["entries"]] == [0.1, 0.2]
    assert {path.name for path in (tmp_path / "q2").iterdir()} == {
        "fashion_mnist-epochs=1-learning_rate=0.1,0.2",
        "fashion_mnist-epochs=1-learning_rate=0.1",
        "fashion_mnist-epochs=1-learning_rate=0.2",
    }


def test_a_truncated_file_is_refused_and_left_alone(q2, data_dir, tmp_path):
    content = (data_dir / "kuzushiji_mnist.npz").read_bytes()
    (tmp_path / "kuzushiji_mnist.npz").write_bytes(content[: len(content) // 2])
    assert_user_error(q2("-learning_rate", "0.1", data_dir=tmp_path), "kuzushiji_mnist.npz", "is not an image set")
    assert (tmp_path / "kuzushiji_mnist.npz").stat().st_size == len(content) // 2


def test_a_file_of_another_size_does_not_pass_as_the_published_set(q2, data_dir, capsys):
    process = q2("-learning_rate", "0.1", "-epochs", "1", "-skip_test")
    assert "warning: " in process.stderr and "48 / 20 / 30 images where Kuzushiji-MNIST has 50,000" in process.stderr
    assert process.stdout.startswith("Kuzushiji-MNIST (48 of 50,000 training images): ")


def test_a_file_by_its_path_brings_its_own_number_of_classes(q2, tmp_path):
    np.savez(tmp_path / "organs.npz", **make_arrays(11))
    process = q2("-dataset", tmp_path / "organs.npz", "-learning_rate", "0.1")
    assert process.returncode == 0 and "organs.npz" in process.stdout, process.stderr
    assert read_result(tmp_path, "file_organs-epochs=2-learning_rate=0.1")["class_names"] == [str(i) for i in range(11)]


@pytest.mark.parametrize("no_maxpool", [False, True])
def test_a_convolution_commutes_with_shifts_and_not_with_quarter_turns(no_maxpool):
    torch.manual_seed(0)
    X = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    conv = CNN(0.0, no_maxpool).conv1
    errors = equivariance(conv, X)
    assert errors["shift"] < 1e-5 and errors["rotation"] > 0.1
    if not no_maxpool:  # a kernel with the symmetry of a square commutes with both
        torch.nn.init.ones_(conv.weight)
        assert equivariance(conv, X)["rotation"] < 1e-5


def test_edge_filters_are_told_from_others_with_their_direction():
    columns = torch.tensor([[-1.0, 0.0, 1.0]]).expand(3, 3)
    corner = torch.tensor([[-1.0, -1.0, 0.0], [-1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    kernels = [
        columns,
        -columns,
        columns.T,
        -columns.T,
        torch.ones(3, 3),
        torch.eye(3),
        corner,
        -corner.flip(0),
        0 * columns,
    ]
    assert [(edge["filter"], edge["direction"]) for edge in edge_filters(torch.stack(kernels).unsqueeze(1))] == [
        (1, "from left to right"),
        (2, "from right to left"),
        (3, "from top to bottom"),
        (4, "from bottom to top"),
        (7, "from top left to bottom right"),
        (8, "from top right to bottom left"),
    ]


def test_the_strengths_of_channels_are_the_norms_of_their_weights():
    weight = torch.randn(4, 3, 2, 5)
    strengths = convolutions.strengths(weight)
    for name, slices in {"inputs": weight.transpose(0, 1), "outputs": weight}.items():
        assert strengths[name] == pytest.approx([math.sqrt(sum(w**2 for w in s.flatten().tolist())) for s in slices])


@pytest.mark.parametrize("network", ["cnn", "mlp"])
def test_dead_units_are_those_that_no_image_wakes(network):
    """With one unit of a layer pushed below 0; against the activations written out, image by image."""
    torch.manual_seed(0)
    model = CNN(0.5) if network == "cnn" else MLP(0.5)
    with torch.no_grad():
        model.fc2.bias[3] = -1000.0
    X = torch.randint(0, 256, (7, 1, 28, 28), dtype=torch.uint8)
    found = convolutions.dead_units(model, X, n_images=5)
    x, alive = X[:5].float() / 255, {}
    with torch.no_grad():
        if network == "cnn":
            maps = torch.relu(model.conv1(x))
            alive["conv1"] = [any(m.max() > 0 for m in maps[:, c]) for c in range(8)]
            maps = torch.relu(model.conv2(model.pool(maps)))
            alive["conv2"] = [any(m.max() > 0 for m in maps[:, c]) for c in range(16)]
            x = model.pool(maps)
        for name in ("fc1", "fc2"):
            x = torch.relu(getattr(model, name)(x.flatten(1)))
            alive[name] = [any(row[unit] > 0 for row in x) for unit in range(x.shape[1])]
    assert found["dead_images"] == 5 and list(found["dead_units"]) == list(alive)
    for name, units in alive.items():
        assert found["dead_units"][name] == pytest.approx(units.count(False) / len(units)), name
    assert found["dead_units"]["fc2"] >= 1 / 120


def test_the_balance_of_a_filter_tells_sums_from_differences():
    weight = torch.tensor([[[[1.0, 2.0], [3.0, 0.5]]], [[[1.0, -1.0], [2.0, -2.0]]], [[[-1.0, -3.0], [0.0, 1.0]]]])
    assert convolutions.balances(weight) == pytest.approx([1, 0, -3 / 5])
    assert convolutions.balances(0 * weight) == [0, 0, 0]


def test_a_convolution_of_zeros_commutes_with_everything():
    conv = torch.nn.Conv2d(1, 2, 3, bias=False)
    torch.nn.init.zeros_(conv.weight)
    X = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    assert equivariance(conv, X) == {"shift": 0, "rotation": 0}


def test_a_name_may_reach_into_a_sequential():
    block = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3))
    model = torch.nn.ModuleDict({"convblock1": block})
    assert convolutions.find(model, "convblock1[0]") is block[0]


def test_images_are_classified_by_the_newest_run_or_the_one_that_is_named(q2, run_here, tmp_path):
    """The rows of `make_arrays`, as a file of the set, dark on light, and in a folder; a second run is newer."""
    assert q2("-learning_rate", "0.003", "-epochs", "12", "-dropout", "0").returncode == 0
    first = next((tmp_path / "q2").iterdir()).name
    assert q2("-edition", "2023-24", "-learning_rate", "0.1").returncode == 0
    arrays, folder = make_arrays(), tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):  # of the classes o, ki and su
        Image.fromarray(arrays["test_images"][i]).resize((84, 84), Image.Resampling.NEAREST).save(folder / f"{i}.png")
    Image.fromarray(255 - arrays["test_images"][1]).save(folder / "negative.png")
    newest = run_here("hw2-q2.py", "-runs_dir", tmp_path, "-classify", folder / "0.png")
    assert newest.returncode == 0 and newest.stdout.startswith("0.png: ") and "CNV" in newest.stdout
    used, other = newest.stderr.splitlines()
    assert "octmnist" in used and other == f"or with --run {first}"
    for chosen in (("-run", first), ("-run", tmp_path / "q2" / first), ("-edition", "2022-23")):
        process = run_here("hw2-q2.py", "-runs_dir", tmp_path, *chosen, "-classify", folder)
        lines = process.stdout.splitlines()
        assert [line.split()[:2] for line in lines] == [
            ["0.png:", "o"], ["1.png:", "ki"], ["2.png:", "su"], ["negative.png:", "ki"],
        ], process.stderr  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("-run", "none", "-classify", "x.png"), "no folder of a trained run"),
        (("-classify", "x.png"), "no trained run"),
    ],
)
def test_what_cannot_be_classified_is_one_line(arguments, word, q2):
    process = q2(*arguments)
    assert process.returncode == 2 and word in process.stderr.splitlines()[-1]


def test_a_run_is_named_for_a_network_that_is_used_again(capsys):
    with pytest.raises(SystemExit):
        load_script("hw2-q2.py").parse_args(["-run", "x"])
    assert "-classify" in capsys.readouterr().err


def test_a_photo_is_read_as_a_square_light_on_black(tmp_path):
    picture = np.full((40, 80), 230, np.uint8)
    picture[15:25, 30:50] = 10  # a dark bar on a light sheet
    Image.fromarray(picture).save(tmp_path / "bar.png")
    X = images.read_photo(tmp_path / "bar.png")
    assert (X.dtype, X.shape) == (torch.uint8, (1, 1, 28, 28))
    assert X[0, 0, 13:15, 12:16].min() > 200 and X[0, 0, 0].max() == 0 and X[0, 0, :, 0].max() < 60


def test_the_end_of_a_run_is_six_lines_and_a_mac_is_told_of_its_gpu(q2, monkeypatch):
    monkeypatch.setattr(utils, "accelerators", lambda: {"mps": SimpleNamespace(get_rng_state=torch.get_rng_state)})
    process = q2("-learning_rate", "0.1", "-epochs", "1", "-device", "cpu", "-skip_test")
    assert "cpu (-device mps trains on the GPU of this Mac)" in " ".join(process.stdout.split())
    assert end_of(process.stdout) == ["Best", "written"]
    tested = q2("-learning_rate", "0.1", "-epochs", "1", "-device", "cpu", "-resume")
    assert end_of(tested.stdout) == ["Best", "Final", "2.1", "2.4", "2.5", "written"]
    assert ", nearest centroid 1.0000" in tested.stdout
