"""What the training scripts do on a CUDA GPU: the same bits twice, resuming, the losses of the CPU, and how fast.

$ python benchmarks/gpu.py                             # make gpu: all parts, some minutes on one GPU
$ python benchmarks/gpu.py -parts times -data_dir DIR  # translate the sentences of that folder

Each part is written to `-output` as soon as it is done, and the same command goes on with those that are missing there.
A file of another card or another torch is replaced. Exit code 1 if a script failed its checks.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options

PARTS = ("bits", "losses", "steps", "times")
TIMES = ("q2", "q3", "q3 command", "q3-asr")


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    help = "what to do (default: all)"
    parser.add_option("parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=help)
    parser.add_option("works", nargs="+", choices=TIMES, default=list(TIMES), metavar="WORK", help="what to time")
    parser.add_option("data_dir", type=options.path, metavar="DIR", help="where sentences are (default: bundled ones)")
    path = ROOT / "report" / "runs" / "gpu.json"
    parser.add_option("output", type=options.path, default=path, help="default: report/runs/gpu.json")
    return parser.parse_args(argv)


# The scripts as they are checked, at quick scale; dropout, the moving average and augmentation have states to resume.
SCRIPTS = {
    "q2": "hw2-q2.py -learning_rate 0.001 -dropout 0.3 -shift 1 -ema_decay 0.9",
    "q2 without pooling": "hw2-q2.py -edition 2023-24 -learning_rate 0.01 -no_maxpool",
    "q3": "hw2-q3.py --use_attn -schedule cosine -max_grad_norm 1",
    "q3-asr transformer": "hw2-q3-asr.py --decoder transformer --batch_size 16 --dropout 0.1 --spec_augment",
    "q3-asr recurrent": "hw2-q3-asr.py --decoder recurrent --batch_size 16 --guided_attention 1 --ema_decay 0.9",
    "q3-asr CTC": "hw2-q3-asr.py --decoder transformer --batch_size 16 --ctc_weight 0.3",
    "q3-captioning": "hw2-q3-captioning.py --use_attention -dataset ucm -encoder efficientnet_lite0",
}
N_SPOKEN, N_EPOCHS = 400, 4
N_FIRST_STEPS, CLOSE = 5, 1e-3  # the losses of the first steps agree with the CPU's to this
N_TIMED_EPOCHS = {"q2": 3, "q3": 8, "q3-asr": 4}  # the median of all but the first counts
N_CLIPS = {"train": 9_825, "val": 655, "test": 1}  # the course's split of LJ Speech
LETTERS = (100.0, 36.0, 15, 187)  # mean, standard deviation, least and most of a text's length in LJ Speech
LETTERS_A_SECOND = 15.2  # that are spoken there

# A script that is sent an interrupt in the middle of its second epoch.
INTERRUPTED = """
import os, runpy, signal, sys
sys.path.insert(0, os.getcwd())
sys.argv = sys.argv[1:]
import utils
train_epoch, train_step, epochs, steps = utils.train_epoch, utils.train_step, [], []
def counted(*args):
    epochs.append(1)
    return train_epoch(*args)
def interrupted(*args):
    if len(epochs) == 2:
        steps.append(1)
    if len(steps) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return train_step(*args)
utils.train_epoch, utils.train_step = counted, interrupted
runpy.run_path(sys.argv[0], run_name="__main__")
"""

if __name__ == "__main__":
    options.before_imports(parse_args)

import numpy as np
import torch

import comparisons
import experiment
import runs
import utils
from benchmarks.scripts import load_script
from data import images, speech, translation


def history(folder):
    """The lines of a run's history without the seconds."""
    lines = map(json.loads, (folder / runs.HISTORY).read_text(encoding="utf-8").splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def run(command, folder, name, *more, code=None):
    """Run a script's command line; returns the folder of its run, and what it wrote to stderr."""
    script, *arguments = command
    start = [sys.executable, "-c", code, script] if code else [sys.executable, script]
    where = ["-runs_dir", str(folder), "-run_name", name, "-skip_test", *more]
    process = subprocess.run([*start, *arguments, *where], cwd=ROOT, capture_output=True, text=True)
    question = Path(script).stem.removeprefix("hw2-")
    return folder / question / name, process.stderr


def check_bits(command, folder, device):
    """Whether two runs of a command, and one that was interrupted and resumed, have the same history."""
    command = [*command.split(), "-epochs", str(N_EPOCHS), "-device", device]
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(run, command, folder, name) for name in ("first", "second")]
        _, said = run(command, folder, "cut", code=INTERRUPTED)
        cut, error = run(command, folder, "cut", "-resume")
        (first, warnings), (second, _) = (future.result() for future in both)
    if not (first / runs.HISTORY).exists() or not (cut / runs.HISTORY).exists():
        return {"failed": warnings or error}
    right = history(first)
    return {
        "epochs": len(right),
        "same bits twice": history(second) == right,
        "interrupted": "interrupted" in said,
        "resumed to the same bits": history(cut) == right,
        "warnings": [line for line in warnings.splitlines() if line],
    }


def bits(args, device="cuda", names=tuple(SCRIPTS)):
    """`check_bits` of each script, side by side; the bundled data are made first."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        folder = Path(folder)
        speak = [sys.executable, "-m", "data.bundled.speech", "-output_dir", str(folder), "-n_clips", str(N_SPOKEN)]
        subprocess.run(speak, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found = {}
        for name in names:
            data = f" -data real -data_dir {folder}" if "asr" in name else " -data bundled -scale quick"
            found[name] = pool.submit(check_bits, SCRIPTS[name] + data, folder / name.replace(" ", "_"), device)
        return {name: future.result() for name, future in found.items()}


def task_of(work, args, *more, clips=None):
    """The question with what it trains on; speech with these clips."""
    if work == "q2":
        script = load_script("hw2-q2.py")
        options_ = script.parse_args(["-learning_rate", "0.0005", *more])
        return comparisons.single(script.Classification(options_, images.load("kuzushiji_mnist", "bundled")))
    if work == "q3":
        script = load_script("hw2-q3.py")
        options_ = script.parse_args(["--use_attn", *more])
        data = translation.load("real", args.data_dir) if args.data_dir else translation.load("bundled")
        return comparisons.single(script.Translation(options_, data))
    script = load_script("hw2-q3-asr.py")
    # No text ends by itself after so little training.
    script.LETTERS_A_SECOND, script.MORE_LETTERS = LETTERS_A_SECOND, 0
    options_ = script.parse_args(["--decoder", "transformer", *more])
    return comparisons.single(script.Recognition(options_, clips))


def clips_of_noise(n_clips):
    """Clips with the lengths of LJ Speech's, whose frames and letters are random."""
    rng, n = np.random.default_rng(0), sum(n_clips.values())
    mean, deviation, least, most = LETTERS
    n_letters = rng.normal(mean, deviation, n).clip(least, most)
    n_frames = torch.from_numpy((n_letters / LETTERS_A_SECOND * speech.FRAMES_A_SECOND).astype(np.int64))
    frames = rng.standard_normal((int(n_frames.sum()), speech.N_MELS), dtype=np.float32).astype(np.float16)
    letters = np.array(list(speech.SYMBOLS[len(speech.SPECIALS) :]))
    texts = ["".join(rng.choice(letters, int(size))) for size in n_letters]
    rows = dict(zip(n_clips, torch.arange(n).split(list(n_clips.values()))))
    rows[speech.PART] = rows["train"][: speech.N_PART]
    texts = {split: [texts[row] for row in rows[split]] for split in rows}
    ids = {split: [str(int(row)) for row in rows[split]] for split in rows}
    starts = n_frames.cumsum(0) - n_frames
    return speech.Clips("Noise", True, ids, texts, rows, n_frames, starts, frames, "noise", ROOT)


def first_losses(task, device):
    """The mean loss of each of the first steps from the same weights, without dropout."""
    device = utils.configure_torch(0, device)
    model = task.build().to(device).train()
    batches = task.batches(device)
    optimization = utils.Optimization(model, task.args, N_FIRST_STEPS)
    losses = []
    for batch, _ in zip(batches.epoch(torch.Generator().manual_seed(0)), range(N_FIRST_STEPS)):
        loss, n_terms = utils.train_step(optimization, task.batch_loss, batch)
        losses.append(float(loss / n_terms))
    return losses


def losses(args, device="cuda"):
    """The losses of the first steps on the CPU and on the GPU."""
    found, clips = {}, clips_of_noise({"train": 64, "val": 1, "test": 1})
    for work in ("q2", "q3", "q3-asr"):
        task = task_of(work, args, "-dropout", "0", "-batch_size", "8", clips=clips)
        cpu, gpu = first_losses(task, "cpu"), first_losses(task, device)
        differences = [abs(a - b) / abs(a) for a, b in zip(cpu, gpu, strict=True)]
        found[work] = {"cpu": cpu, device: gpu, "largest difference": max(differences), "close": CLOSE}
    return found


def steps(args, device="cuda", n_steps=50):
    """Milliseconds of a training step on a batch of middle size, started by Python and recorded."""
    found, clips, device = {}, clips_of_noise(N_CLIPS), utils.configure_torch(0, device)
    for work, batch_size in (("q2", 8), ("q2", 64), ("q3", 64), ("q3-asr", 8), ("q3-asr", 64)):
        task = task_of(work, args, "-batch_size", str(batch_size), clips=clips)
        batches, model = task.batches(device), task.build().to(device).train()
        drawn = batches.rows(torch.Generator().manual_seed(0))
        if batches.lengths:  # one whose rows have one length, where there is one
            drawn = sorted(drawn, key=lambda rows: (batches.lengths[0][rows].max(), -batches.lengths[0][rows].min()))
        batch, milliseconds = batches.gather(drawn[len(drawn) // 2]), {}
        for name, is_recordable in (("started by Python, ms", False), ("recorded, ms", True)):
            optimization = utils.Optimization(model, task.args, 10 * n_steps, is_recordable=is_recordable)
            times = []
            for _ in range(n_steps):
                torch.cuda.synchronize()
                start = time.perf_counter()
                utils.train_step(optimization, task.batch_loss, batch)
                torch.cuda.synchronize()
                times.append(1000 * (time.perf_counter() - start))
            milliseconds[name] = float(np.median(times[n_steps // 2 :]))
        found[f"{work}, batch {batch_size}"] = milliseconds
    return found


def time_epochs(work, args, device):
    """Seconds of training and of validation in each epoch, and of a step."""
    clips = clips_of_noise(N_CLIPS) if work == "q3-asr" else None
    task = task_of(work, args, "-epochs", str(N_TIMED_EPOCHS[work]), "-device", device, clips=clips)
    seconds, parts = {"train": [], "validation": []}, (utils.train_epoch, task.evaluate)

    def timed(name, function):
        def run(*arguments):
            start = time.perf_counter()
            result = function(*arguments)
            seconds[name].append(time.perf_counter() - start)
            return result

        return run

    utils.train_epoch, task.evaluate = timed("train", parts[0]), timed("validation", parts[1])
    with tempfile.TemporaryDirectory() as folder:
        task.args.runs_dir = Path(folder)
        with experiment.open_run(task) as run:
            model = task.build().to(run.device)
            whole = [line["seconds"] for line in experiment.train(task, model, run)]
    utils.train_epoch = parts[0]
    n_steps, middle = len(task.batches(torch.device(device))), lambda values: float(np.median(values[1:]))
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    return {
        "an epoch, s": middle(whole),
        "of it training": middle(seconds["train"]),
        "of it validation": middle(seconds["validation"]),
        "a step, ms": 1000 * middle(seconds["train"]) / n_steps,
        "the first epoch, s": whole[0],
        "steps": n_steps,
        "GiB": peak,
    }


def time_command(args, device):
    """Seconds of the translator's whole command of 50 epochs, and of its parts."""
    data = ["-data", "real", "-data_dir", str(args.data_dir)] if args.data_dir else ["-data", "bundled"]
    with tempfile.TemporaryDirectory() as folder:
        command = ["hw2-q3.py", "--use_attn", "-device", device, "-runs_dir", folder, *data]
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        (result,) = Path(folder).glob("q3/*/result.json")
        in_epochs = json.loads(result.read_text(encoding="utf-8"))["seconds"]
    return {"whole command, s": seconds, "outside its epochs, s": seconds - in_epochs}


def times(args, device="cuda"):
    """The table of times."""
    found = {}
    for work in args.works:
        timing = time_command(args, device) if work == "q3 command" else time_epochs(work, args, device)
        found[work] = {name: value for name, value in timing.items() if value is not None}
    return found


def read(path, where):
    """What is done already on this card with this torch."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return dict(where)
    return found if where.items() <= found.items() else dict(where)


def is_right(found):
    """Whether all checks that were made hold."""
    checks = [check for check in found.get("bits", {}).values()]
    same = all(check.get("same bits twice") and check.get("resumed to the same bits") for check in checks)
    return same and all(loss["largest difference"] < CLOSE for loss in found.get("losses", {}).values())


def show(part, found):
    """Print the lines of a part."""
    print(f"\n{part}")
    for name, values in found.items():
        shown = [f"{key} {f'{value:.4g}' if isinstance(value, float) else value}" for key, value in values.items()]
        print(f"  {name}: {', '.join(shown)}", flush=True)


def main():
    args = parse_args()
    if not torch.cuda.is_available():
        raise options.UserError("no CUDA GPU is here; run this where torch.cuda.is_available()")
    where = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    found = read(args.output, where)
    print(f"{where['card']}, torch {where['torch']}, {os.cpu_count()} processor cores")
    for part in args.parts:
        if part not in found:
            found[part] = {"bits": bits, "losses": losses, "steps": steps, "times": times}[part](args)
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(found, indent=1), encoding="utf-8")
        show(part, found[part])
    sys.exit(not is_right(found))


if __name__ == "__main__":
    options.run_script(main)
