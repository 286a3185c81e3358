"""Question 3 of 2023-24 against the textbook loop: training steps, greedy decoding, and how fast a step could be.

The textbook loop is a `Dataset` that reads a WAV and computes its log-mels at each access, clips padded to 20 s, a
`DataLoader`, `.item()` at each step; in decoding one clip at a time, with the whole text so far decoded again for each
letter. Both sides have the same network and compute the same loss on the same batches.

$ python benchmarks/bench_asr.py                         # one thread, on the bundled clips
$ python benchmarks/bench_asr.py --data_dir DIR          # on the LJ Speech there
$ python benchmarks/bench_asr.py --run RUN               # decode with the weights of a trained run
"""

import sys
import wave
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import options


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    parser.add_option("threads", type=options.positive_int, default=1, help="default: %(default)s")
    parser.add_option("repeats", type=options.positive_int, default=3, help="turns (default: %(default)s)")
    parser.add_option("steps", type=options.positive_int, default=7, help="of training (default: %(default)s)")
    parser.add_option("clips", type=options.positive_int, default=16, help="that are decoded (default: %(default)s)")
    parser.add_option("data_dir", type=Path, metavar="DIR", help="where LJ Speech is (default: the bundled clips)")
    parser.add_option("batch_size", type=options.positive_int, default=8, help="default: %(default)s")
    decoders = ["recurrent", "transformer"]
    parser.add_option("decoder", choices=decoders, default="transformer", help="default: %(default)s")
    parser.add_option("run", type=Path, help="decode with the best weights of this run's folder")
    parser.add_option("only", choices=["steps", "decoding", "share"], help="one of the three parts (default: all)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

import comparisons
import models
import runs
import utils
from benchmarks.scripts import load_script
from benchmarks.timing import FixedBatches, compare, compare_with_products, require_close, require_equal, with_onednn
from data import speech, text
from data.speech import PADDING_IDX, START_IDX, STOP_IDX

SEED, RECIPE = 42, ["--learning_rate", "0.0001", "--schedule", "constant"]
TEXTBOOK_FRAMES = 2754  # 20 s
N_EPOCHS = 3  # over the steps, for weights to decode with unless a run is named
LETTERS_A_SECOND = 15  # at such weights no text ends by itself; LJ Speech has so many
CLOSE = 1e-4  # the losses agree to this
INT16_SCALE = 2**15

script = load_script("hw2-q3-asr.py")


class Recordings(Dataset):
    """Clips of a split: the spectrogram padded to `TEXTBOOK_FRAMES`, its number of frames, the symbols."""

    def __init__(self, task, split):
        data = task.data
        self.paths = [data.folder / speech.WAVS / f"{id}.wav" for id in data.ids[split]]
        self.texts = [torch.tensor(speech.encode(text, task.args.max_text_length)) for text in data.texts[split]]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with wave.open(str(self.paths[i])) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
        mels = speech.log_mel(torch.from_numpy(samples.astype(np.float32) / INT16_SCALE))
        mels = mels.half().float()  # rounded as in our cache, so that both sides compute the same
        return F.pad(mels, (0, 0, 0, TEXTBOOK_FRAMES - len(mels))), len(mels), self.texts[i]


def collate(batch):
    mels, n_frames, texts = zip(*batch)
    return torch.stack(mels), torch.tensor(n_frames), pad_sequence(texts, True, PADDING_IDX)


def textbook_epoch(task, loader):
    """The mean loss of a symbol over an epoch of training."""
    model = make_model(task).train()
    optimizer = torch.optim.AdamW(model.parameters(), task.args.learning_rate, weight_decay=task.args.l2_decay)
    smoothing, total_loss, n_symbols = task.args.label_smoothing, 0.0, 0
    for mels, n_frames, tgt in loader:
        optimizer.zero_grad()
        logits, target = model(mels, n_frames, tgt[:, :-1]).flatten(0, 1), tgt[:, 1:].flatten()
        loss = F.cross_entropy(logits, target, ignore_index=PADDING_IDX, label_smoothing=smoothing)
        loss.backward()
        optimizer.step()
        n = (target != PADDING_IDX).sum().item()
        total_loss += loss.item() * n
        n_symbols += n
    return total_loss / n_symbols


def with_own_attention(function):
    """What `function` returns with PyTorch's own function for attention, which is faster at the textbook's lengths."""
    formula_on, models.FORMULA_ON = models.FORMULA_ON, ()
    try:
        return function()
    finally:
        models.FORMULA_ON = formula_on


@torch.no_grad()
def textbook_decode(task, model, recordings, rows):
    """The text of each clip; the whole text so far goes through the decoder again for each letter."""
    model.eval()
    hyps = []
    for row in rows:
        mels, n_frames, _ = collate([recordings[row]])
        enc_output, n_positions = model.encoder(mels, n_frames)
        limit = int(n_frames * script.LETTERS_A_SECOND / speech.FRAMES_A_SECOND) + script.MORE_LETTERS
        symbols = [START_IDX]
        for _ in range(min(limit, task.args.max_text_length - 1)):
            logits = model.decoder(torch.tensor([symbols]), enc_output, n_positions)[0, -1]
            logits[list(speech.SEARCH_SYMBOLS["forbidden"])] = float("-inf")
            symbol = logits.argmax().item()
            if symbol == STOP_IDX:
                break
            symbols.append(symbol)
        hyps.append(speech.decode(symbols[1:]))
    return hyps


def our_epoch(task, model, rows):
    """The mean loss of a symbol over an epoch of training on the batches of these rows."""
    batches = FixedBatches(task.batches("cpu").gather, rows)
    return utils.train_epoch(utils.Optimization(model, task.args, len(rows)), batches, task.batch_loss, order=None)


def make_model(task):
    torch.manual_seed(SEED)
    return task.build()


def draw_rows(task, n_batches):
    """The rows of some batches of an epoch, from the shortest to the longest clips."""
    batches = task.batches("cpu")
    rows = batches.rows(torch.Generator().manual_seed(SEED))
    return text.at_equal_distances(sorted(rows, key=lambda part: batches.lengths[0][part].max()), n_batches)


def bench_steps(task, n_repeats, n_steps):
    """Training steps of both sides."""
    rows = draw_rows(task, n_steps)
    loader = DataLoader(Recordings(task, "train"), batch_sampler=[part.tolist() for part in rows], collate_fn=collate)
    sides = {
        "textbook": lambda: with_own_attention(lambda: textbook_epoch(task, loader)),
        "ours": with_onednn(lambda: our_epoch(task, make_model(task), rows)),
        "ours without oneDNN": lambda: our_epoch(task, make_model(task), rows),
    }
    our_epoch(task, make_model(task), rows[:2])  # warms up
    seconds = task.data.n_frames[task.data.rows["train"][torch.cat(rows)]].float().mean() / speech.FRAMES_A_SECOND
    print(f"\n{len(rows)} training steps at batch {task.args.batch_size}, clips of {seconds:.1f} s")
    check = partial(require_close, tolerance=CLOSE)
    compare(sides, n_repeats, "ms a step", lambda seconds: 1000 * seconds / len(rows), check)


def bench_decoding(task, n_repeats, n_steps, n_clips, run):
    """Greedy decoding of test clips by both sides."""
    model, recordings = make_model(task), Recordings(task, "test")
    if run is None:
        our_epoch(task, model, draw_rows(task, n_steps) * N_EPOCHS)
        script.LETTERS_A_SECOND, script.MORE_LETTERS = LETTERS_A_SECOND, 0
    else:
        runs.load_weights(model, run / runs.BEST)
    places = text.at_equal_distances(range(len(recordings)), n_clips)
    rows = [int(task.data.rows["test"][place]) for place in places]
    sides = {
        "textbook": lambda: textbook_decode(task, model, recordings, places),
        "ours": with_onednn(lambda: [hyp for hyp, _ in task.transcribe(model, rows)]),
    }
    n_letters = sum(map(len, sides["ours"]())) / len(rows)  # also warms up
    weights = f"{N_EPOCHS * n_steps} steps of training" if run is None else f"weights of {run.name}"
    print(f"\ngreedy decoding of {len(rows)} clips, {n_letters:.0f} letters each, {weights}")
    compare(sides, n_repeats, "clips a second", lambda seconds: len(rows) / seconds, require_equal)


def products(args, batch):
    """The matrix products of the forward pass of a batch, as `compare_with_products` reads them."""
    mels, _, tgt = batch
    batch_size, n_frames, n_mels = mels.shape
    hidden, heads, layers = args.hidden_size, args.n_heads, args.n_layers
    n_positions, n_letters, vocab_size = (n_frames + 1) // 2, tgt.shape[1] - 1, len(speech.SYMBOLS)
    frames, positions, letters = (batch_size * n for n in (n_frames, n_positions, n_letters))
    d_k, n_attended = hidden // heads, batch_size * heads
    kernel = 3
    shapes = [
        (1, 1, frames, kernel * n_mels, hidden, 1),  # conv1
        (1, 1, positions, kernel * hidden, hidden, 2),  # conv2
        (4 * layers, 1, positions, hidden, hidden, 2),  # queries, keys, values and output of the encoder
        (layers, n_attended, n_positions, d_k, n_positions, 2),  # scores
        (layers, n_attended, n_positions, n_positions, d_k, 2),  # contexts
        (layers, 1, positions, hidden, 2 * hidden, 2),  # feed-forward
        (layers, 1, positions, 2 * hidden, hidden, 2),
        (2, 1, positions, hidden, hidden, 2),  # keys and values of the cross-attention
        (2, 1, letters, hidden, hidden, 2),  # its queries and output
        (1, n_attended, n_letters, d_k, n_positions, 2),
        (1, n_attended, n_letters, n_positions, d_k, 2),
        (1, 1, letters, hidden, 2 * hidden, 2),
        (1, 1, letters, 2 * hidden, hidden, 2),
        (1, 1, letters, hidden, vocab_size, 2),
    ]
    if args.decoder == "recurrent":
        shapes += [(1, 1, letters, hidden, 4 * hidden, 2), (n_letters, 1, batch_size, hidden, 4 * hidden, 2)]
    else:
        shapes += [
            (4, 1, letters, hidden, hidden, 2),
            (1, n_attended, n_letters, d_k, n_letters, 2),
            (1, n_attended, n_letters, n_letters, d_k, 2),
        ]
    return shapes


def bench_share(task, n_repeats):
    """A training step on a batch of middle length beside its matrix products."""
    batch = task.batches("cpu").gather(draw_rows(task, 3)[1])
    optimization = utils.Optimization(make_model(task).train(), task.args, n_steps=1)
    print(f"\nlog-mels {tuple(batch[0].shape)}", end="")
    step = partial(utils.train_step, optimization, task.batch_loss, batch)
    with_onednn(lambda: compare_with_products(step, products(task.args, batch), 3 * n_repeats))()


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    data = speech.load("real", args.data_dir) if args.data_dir else speech.load("bundled")
    recipe = script.parse_args(["--decoder", args.decoder, "--batch_size", str(args.batch_size), *RECIPE])
    task = comparisons.single(script.Recognition(recipe, data))
    print(f"{utils.data_title(data)}, {args.decoder} decoder, {args.threads} threads")
    if args.only in (None, "share"):
        bench_share(task, args.repeats)
    if args.only in (None, "decoding"):
        bench_decoding(task, args.repeats, args.steps, args.clips, args.run)
    if args.only in (None, "steps"):
        bench_steps(task, args.repeats, args.steps)


if __name__ == "__main__":
    options.run_script(main)
