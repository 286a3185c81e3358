"""Question 3 of 2023-24 (speech recognition) against the textbook: a training step, greedy decoding, how fast a step could be, memory.

The textbook version is how courses write it: a `Dataset` that reads a WAV and computes its log-mels at each access, every clip
padded to 20 s, a `DataLoader`, attention as softmax(Q K^T / sqrt(d)) V with the mask as -inf, plain AdamW, `.item()` at each step;
one clip at a time in decoding, with the whole text so far decoded again for each letter. Both sides have the same weights and
train on the same clips in the same batches.

$ python benchmarks/bench_asr.py                         # one thread, on the bundled clips
$ python benchmarks/bench_asr.py --data_dir DIR          # on the LJ Speech there
$ python benchmarks/bench_asr.py --run RUN               # decode with the weights of a trained run
"""

import argparse
import math
import subprocess
import sys
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options  # noqa: E402
from benchmarks.scripts import load_script  # noqa: E402


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_option("threads", type=options.positive_int, default=1, help="default: %(default)s")
    parser.add_option("repeats", type=options.positive_int, default=3, help="default: %(default)s")
    parser.add_option("data_dir", type=Path, metavar="DIR", help="where LJ Speech is (default: the bundled clips)")
    decoders = ["recurrent", "transformer"]
    parser.add_option("decoder", choices=decoders, default="transformer", help="default: %(default)s")
    parser.add_option("run", type=Path, help="decode with the best weights of this run's folder")
    parser.add_option("only", choices=["steps", "decoding", "share", "memory"], help="one of the parts (default: all)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch.nn.utils.rnn import pad_sequence  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

import decoding  # noqa: E402
import models  # noqa: E402
import runs  # noqa: E402
import utils  # noqa: E402
from benchmarks.timing import CLOCKS, compare, median_and_range, timed  # noqa: E402
from data import speech, text  # noqa: E402
from data.speech import PADDING_IDX, START_IDX, STOP_IDX  # noqa: E402

SEED = 42
BATCH_SIZE, N_STEPS, LEARNING_RATE = 8, 7, 1e-4
TEXTBOOK_FRAMES = 2754  # 20 s
N_DECODED = 16  # clips of the test set
N_EPOCHS = 3  # over these steps, for weights to decode with unless a run is named
CLOSE = 1e-4  # over all steps the losses agree to this, relative
SHARE_BATCH_SIZES = (8, 32)
MEMORY_BATCH_SIZE, LONGEST_SECONDS, LONGEST_TEXT = 64, 10.1, 187  # clips, seconds and letters; of LJ Speech
INT16_SCALE = 2**15
GIGA = 1e9


script = load_script("hw2-q3-asr.py")


class Recordings(Dataset):
    """Clips of a split: the spectrogram padded to `TEXTBOOK_FRAMES`, its number of frames, the symbols."""

    def __init__(self, data, split, max_text_length):
        self.paths = [data.folder / speech.WAVS / f"{id}.wav" for id in data.ids[split]]
        self.texts = [torch.tensor(speech.encode(text, max_text_length)) for text in data.texts[split]]

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


def textbook_attention(attention, query, source, mask):
    """softmax(Q K^T / sqrt(d)) V of each head; the mask is True at what may be attended to."""
    q, k, v = (
        layer(x).unflatten(2, (attention.n_heads, -1)).transpose(1, 2)  # (batch_size, n_heads, n, d)
        for layer, x in ((attention.query, query), (attention.key, source), (attention.value, source))
    )
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    alpha = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return attention.out((alpha @ v).transpose(1, 2).flatten(2))


def textbook_attention_block(block, x, source, mask):
    normed = block.norm(x)
    return block.outer_norm(x + textbook_attention(block.attention, normed, normed if source is None else source, mask))


def textbook_feed_forward(block, x):
    return block.outer_norm(x + block.fc2(F.gelu(block.fc1(block.norm(x)))))


def textbook_encoder(encoder, mels, n_frames):
    """The encoder's output and the mask of its positions (batch_size, 1, 1, n_positions)."""
    frame_mask = torch.arange(mels.shape[1]) < n_frames.unsqueeze(1)
    x = F.gelu(encoder.conv1(mels.transpose(1, 2))) * frame_mask.unsqueeze(1)
    x = F.gelu(encoder.conv2(x)).transpose(1, 2)
    x = x + models.sinusoids(x.shape[1], x.shape[2])
    mask = (torch.arange(x.shape[1]) < (n_frames.unsqueeze(1) + 1) // 2)[:, None, None]
    for attention, feed_forward in zip(encoder.attention, encoder.feed_forward):
        x = textbook_feed_forward(feed_forward, textbook_attention_block(attention, x, None, mask))
    return encoder.last_norm(x), mask


def textbook_decoder(decoder, tgt, enc_output, mask):
    """The logits of the symbols after each of `tgt`."""
    x, n = decoder.embedding(tgt), tgt.shape[1]
    if isinstance(decoder, models.TextDecoderRecurrent):
        x, _ = decoder.lstm(decoder.emb_norm(x))
    else:
        causal = torch.ones(n, n, dtype=torch.bool).tril()
        x = textbook_attention_block(decoder.self_attention, x + decoder.positions[:n], None, causal)
    x = textbook_attention_block(decoder.cross_attention, x, enc_output, mask)
    return decoder.classifier(decoder.norm(textbook_feed_forward(decoder.feed_forward, x)))


def textbook_epoch(model, loader, label_smoothing):
    """The mean loss of a symbol over one epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    model.train()
    total_loss, n_symbols = 0.0, 0
    for mels, n_frames, tgt in loader:
        optimizer.zero_grad()
        logits = textbook_decoder(model.decoder, tgt[:, :-1], *textbook_encoder(model.encoder, mels, n_frames))
        loss = F.cross_entropy(
            logits.flatten(0, 1), tgt[:, 1:].flatten(), ignore_index=PADDING_IDX, label_smoothing=label_smoothing
        )
        loss.backward()
        optimizer.step()
        n = (tgt[:, 1:] != PADDING_IDX).sum().item()
        total_loss += loss.item() * n
        n_symbols += n
    return total_loss / n_symbols


@torch.no_grad()
def textbook_decode(model, recordings, rows, max_steps, forbidden):
    """The text of each clip; the whole text so far goes through the decoder again for each letter."""
    model.eval()
    hyps = []
    for row, n_steps in zip(rows, max_steps):
        mels, n_frames, _ = collate([recordings[row]])
        enc_output, mask = textbook_encoder(model.encoder, mels, n_frames)
        symbols = [START_IDX]
        for _ in range(n_steps):
            logits = textbook_decoder(model.decoder, torch.tensor([symbols]), enc_output, mask)[0, -1]
            logits[list(forbidden)] = float("-inf")
            symbol = logits.argmax().item()
            if symbol == STOP_IDX:
                break
            symbols.append(symbol)
        hyps.append(speech.decode(symbols[1:]))
    return hyps


@torch.no_grad()
def our_decode(model, data, split, rows, max_steps, forbidden):
    """What `hw2-q3-asr.py` does with a split, in batches of `BATCH_SIZE`."""
    model.eval()
    mels = [data.mels(data.rows[split][row]) for row in rows]

    def decode(batch):
        start = model.start(*speech.pad_mels([mels[i] for i in batch]))
        limits = torch.tensor([max_steps[i] for i in batch])
        settings = speech.SEARCH_SYMBOLS | {"max_steps": limits, "forbidden": forbidden}
        return map(speech.decode, decoding.search(model.step, *start, **settings).symbols.tolist())

    return decoding.in_batches([len(clip) for clip in mels], BATCH_SIZE, lambda batch: list(decode(batch)))


class SameBatches:
    """The same batches every epoch, gathered again in each."""

    def __init__(self, gather, rows):
        self.gather, self.rows = gather, rows

    def __len__(self):
        return len(self.rows)

    drawn = None

    def steps(self, *place):
        return ([batch] for batch in self.gather(self.rows))


def our_epoch(recogniser, model, batches):
    """The mean loss of a symbol."""
    optimization = utils.Optimization(model, recogniser.args, len(batches))
    return utils.train_epoch(optimization, batches, recogniser.batch_loss, order=None)


def make_recogniser(decoder, data):
    recipe = ["--batch_size", str(BATCH_SIZE), "--learning_rate", str(LEARNING_RATE), "--schedule", "constant"]
    args = script.parse_args(["--decoder", decoder, *recipe, "--seed", str(SEED)])
    return script.Recognition(args, args, data).single(LEARNING_RATE, SEED)


def make_model(recogniser):
    torch.manual_seed(SEED)
    return recogniser.build()


def draw_rows(recogniser, n_batches):
    """The rows of some batches of an epoch, from the shortest to the longest clips."""
    batches = recogniser.batches("cpu")
    rows = batches.rows(torch.Generator().manual_seed(SEED))
    return text.at_equal_distances(sorted(rows, key=lambda part: batches.lengths[0][part].max()), n_batches)


def bench_steps(recogniser, n_repeats):
    """Print the seconds of a training step of both sides."""
    data, args = recogniser.data, recogniser.args
    rows = draw_rows(recogniser, N_STEPS)
    ours = SameBatches(recogniser.batches("cpu").gather, rows)
    recordings = Recordings(data, "train", args.max_text_length)
    textbook = DataLoader(recordings, batch_sampler=[part.tolist() for part in rows], collate_fn=collate)
    sides = {
        "textbook": lambda: textbook_epoch(make_model(recogniser), textbook, args.label_smoothing),
        "ours": lambda: our_epoch(recogniser, make_model(recogniser), ours),
    }
    our_epoch(recogniser, make_model(recogniser), SameBatches(ours.gather, rows[:2]))  # warms up
    frames = data.n_frames[data.rows["train"][torch.cat(rows)]].float().mean()
    print(f"\n{len(rows)} training steps at batch {BATCH_SIZE}, clips of {frames / speech.FRAMES_A_SECOND:.1f} s")

    def check(losses):
        if not math.isclose(*losses.values(), rel_tol=CLOSE):
            sys.exit(f"the losses differ, so the times do not compare: {losses}")

    compare(sides, n_repeats, "s a step", lambda seconds: seconds / len(rows), check)


def bench_decoding(recogniser, n_repeats, run):
    """Print clips a second of greedy decoding of both sides."""
    data, args, forbidden = recogniser.data, recogniser.args, speech.SEARCH_SYMBOLS["forbidden"]
    split = "test"
    rows = text.at_equal_distances(range(len(data.ids[split])), N_DECODED)
    refs = [data.texts[split][row] for row in rows]
    model = make_model(recogniser)
    if run is None:
        rows_seen = draw_rows(recogniser, N_STEPS) * N_EPOCHS
        our_epoch(recogniser, model, SameBatches(recogniser.batches("cpu").gather, rows_seen))
        forbidden = (*forbidden, STOP_IDX)
        max_steps = [min(len(ref), args.max_text_length - 1) for ref in refs]
        weights = f"{len(rows_seen)} steps of training; each text is made as long as its reference"
    else:
        runs.load_weights(model, run / runs.BEST)
        max_steps = [args.max_text_length - 1] * len(refs)
        weights = f"weights of {run.name}"
    recordings = Recordings(data, split, args.max_text_length)
    sides = {
        "textbook": lambda: textbook_decode(model, recordings, rows, max_steps, forbidden),
        "ours": lambda: our_decode(model, data, split, rows, max_steps, forbidden),
    }
    n_letters = sum(map(len, sides["ours"]())) / len(rows)  # also warms up
    print(f"\ngreedy decoding of {len(rows)} clips, {n_letters:.0f} letters each, {weights}")

    def check(hyps):
        differing = [pair for pair in zip(*hyps.values(), strict=True) if pair[0] != pair[1]]
        if differing:
            sys.exit(f"{len(differing)} of {len(rows)} decoded texts differ, such as {differing[0]}")

    compare(sides, n_repeats, "clips/s", lambda seconds: len(rows) / seconds, check)


def products(recogniser, batch):
    """The matrix products of the forward pass of a batch: (how often, batch of products, m, k, n, products in the backward pass).

    A product has two in the backward pass, for its left and its right factor; conv1's input needs none.
    """
    args = recogniser.args
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


def bench_share(recogniser, n_repeats, batch_size):
    """Print the multiply-adds of a training step, and the share of the speed of the bare products that it reaches."""
    recogniser = recogniser.changed(batch_size=batch_size)
    batches = recogniser.batches("cpu")
    (batch,) = batches.gather(draw_rows(recogniser, 3)[1:2])  # of middle length
    shapes = products(recogniser, batch)
    macs = sum((1 + n_back) * times * many * m * k * n for times, many, m, k, n, n_back in shapes)
    model = make_model(recogniser)
    optimization = utils.Optimization(model, recogniser.args, n_steps=1)
    factors = [
        (times, torch.randn(many, m, k), torch.randn(many, k, n), torch.randn(many, m, n), n_back)
        for times, many, m, k, n, n_back in shapes
    ]
    factors = [(times, *(f.squeeze(0) for f in abc), n_back) for times, *abc, n_back in factors]

    def step():
        optimization.zero_grad()
        loss, n = recogniser.batch_loss(model, batch)
        (loss / n).backward()
        optimization.step()

    def bare_products():
        for times, a, b, gradient, n_back in factors:
            for _ in range(times):
                a @ b, a.mT @ gradient
                if n_back == 2:
                    gradient @ b.mT

    model.train()
    step(), bare_products()  # warm up
    times = np.array([(timed(step)[0], timed(bare_products)[0]) for _ in range(n_repeats)])  # (n_repeats, 2, 2)
    print(f"\na training step at batch {batch_size}, {macs / GIGA:.1f} G multiply-adds, mels {tuple(batch[0].shape)}")
    for i, clock in enumerate(CLOCKS):
        step_seconds, product_seconds = np.median(times[:, :, i], axis=0)
        print(f"{clock:<16}step {step_seconds:.3f} s, {macs / step_seconds / GIGA:.1f} G/s", end=", ")
        print(f"bare products {product_seconds:.3f} s, {macs / product_seconds / GIGA:.1f} G/s", end=", ")
        print(f"share {median_and_range(times[:, 1, i] / times[:, 0, i], 2)}")


def memory(recogniser):
    """Print the peak memory of this process after two training steps on a batch of the longest clips and texts."""
    model = make_model(recogniser).train()
    optimization = utils.Optimization(model, recogniser.args, n_steps=1)
    before = utils.peak_memory_mb()
    n_frames = torch.full((MEMORY_BATCH_SIZE,), round(LONGEST_SECONDS * speech.FRAMES_A_SECOND))
    n_frames[1:] -= torch.randint(script.FRAME_NOISE, (MEMORY_BATCH_SIZE - 1,))  # so that there is padding
    mels = torch.randn(MEMORY_BATCH_SIZE, int(n_frames.max()), speech.N_MELS)
    tgt = torch.randint(len(speech.SPECIALS), len(speech.SYMBOLS), (MEMORY_BATCH_SIZE, LONGEST_TEXT + 2))
    for _ in range(2):  # the second has the optimizer's state
        optimization.zero_grad()
        loss, n = recogniser.batch_loss(model, (mels, n_frames, tgt))
        (loss / n).backward()
        optimization.step()
    print(
        f"\na training step at batch {MEMORY_BATCH_SIZE}, clips of {LONGEST_SECONDS} s, texts of {LONGEST_TEXT} letters"
    )
    print(f"peak memory {utils.peak_memory_mb():,.0f} MB, {before:,.0f} MB of it before the first step")


def bench_memory(args):
    """`memory` in a fresh process, whose peak is its own."""
    command = [sys.executable, __file__, "--only", "memory", "--threads", str(args.threads), "--decoder", args.decoder]
    sys.stdout.flush()
    subprocess.run(command, check=True)


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.only == "memory":
        memory(make_recogniser(args.decoder, None))
        return
    data = speech.load("real", args.data_dir) if args.data_dir else speech.load("bundled")
    recogniser = make_recogniser(args.decoder, data)
    print(f"{utils.data_title(data)}, {args.decoder} decoder, threads: {args.threads}, {args.repeats} repeats")
    if args.only in (None, "share"):
        for batch_size in SHARE_BATCH_SIZES:
            bench_share(recogniser, 3 * args.repeats, batch_size)
    if args.only in (None, "decoding"):
        bench_decoding(recogniser, args.repeats, args.run)
    if args.only in (None, "steps"):
        bench_steps(recogniser, args.repeats)
    if args.only is None:
        bench_memory(args)


if __name__ == "__main__":
    options.run_script(main)
