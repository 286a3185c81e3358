"""Question 3 against the textbook: a whole epoch with its validation, greedy decoding, and how fast a step could be.

The textbook loop is how courses write it: a `Dataset` of sentences, a shuffling `DataLoader`, a packed encoder, the decoder's
LSTM and attention called once a target symbol, plain Adam, `.item()` at each step, validation one sentence at a time, the edit
distance as a Python table. Dropout is 0, so that both sides compute the same loss on the same batches.

$ python benchmarks/bench_q3.py                             # one thread, on the bundled sentences
$ python benchmarks/bench_q3.py --threads 0                 # default threads: torch's own choice against hw2-q3.py's
$ python benchmarks/bench_q3.py --data_dir DIR              # on the sentences there
"""

import argparse
import itertools
import math
import statistics
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options  # noqa: E402
from benchmarks.scripts import load_script  # noqa: E402


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    threads = options.whole(0, options.MAX_THREADS)
    parser.add_option("threads", type=threads, default=1, help="0: torch's default and the script's (default: 1)")
    parser.add_option("repeats", type=options.positive_int, default=3, help="default: %(default)s")
    parser.add_option("data_dir", type=Path, help="folder of the real sentences (default: the bundled ones)")
    parser.add_option("only", choices=["epoch", "decoding", "share"], help="one of the three parts (default: all)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

import models  # noqa: E402
import utils  # noqa: E402
from data import translation  # noqa: E402
from data.text import EOS_IDX, PAD_IDX, SOS_IDX  # noqa: E402

SEED = 42
HIDDEN, BATCH_SIZE, LEARNING_RATE = 128, 64, 0.003
N_CLOSE_STEPS, CLOSE = 20, 1e-4  # over so many steps the losses agree to this; later rounding errors have grown
ROUGH = 0.02  # and over a whole epoch to this
GIGA = 1e9


script = load_script("hw2-q3.py")


class Sentences(Dataset):
    """Pairs of index tensors."""

    def __init__(self, pairs, vocabs):
        src_vocab, tgt_vocab = vocabs
        self.src = [torch.tensor(src_vocab.encode(spanish)) for _, spanish in pairs]
        self.tgt = [torch.tensor([SOS_IDX, *tgt_vocab.encode(english), EOS_IDX]) for english, _ in pairs]

    def __len__(self):
        return len(self.src)

    def __getitem__(self, i):
        return self.src[i], self.tgt[i]


def collate(batch):
    src, tgt = (pad_sequence(part, batch_first=True, padding_value=PAD_IDX) for part in zip(*batch))
    return src, (src != PAD_IDX).sum(dim=1), tgt


def textbook_encoder(encoder, src, lengths):
    packed = pack_padded_sequence(encoder.embedding(src), lengths, batch_first=True, enforce_sorted=False)
    packed, state = encoder.lstm(packed)
    return pad_packed_sequence(packed, batch_first=True)[0], models.join_directions(state)


def textbook_attention(attn, query, keys, lengths):
    z = attn.linear_in(query)  # (batch_size, 1, hidden_size)
    scores = torch.bmm(z, keys.transpose(1, 2))
    mask = torch.arange(keys.shape[1]) < lengths.unsqueeze(1)
    alpha = scores.masked_fill(~mask.unsqueeze(1), float("-inf")).softmax(dim=-1)
    return torch.tanh(attn.linear_out(torch.cat([query, torch.bmm(alpha, keys)], dim=-1)))


def textbook_step(model, token, state, keys, lengths):
    output, state = model.decoder.lstm(model.decoder.embedding(token), state)
    return textbook_attention(model.decoder.attn, output, keys, lengths), state


def textbook_logits(model, src, lengths, tgt):
    """The logits of a batch, a loop over the target's symbols."""
    keys, state = textbook_encoder(model.encoder, src, lengths)
    outputs = []
    for t in range(tgt.shape[1] - 1):
        output, state = textbook_step(model, tgt[:, t : t + 1], state, keys, lengths)
        outputs.append(output)
    return model.generator(torch.cat(outputs, dim=1))


def textbook_epoch(model, loader):
    """Mean loss of the steps of one epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    model.train()
    total_loss, n_chars = 0.0, 0
    for src, lengths, tgt in loader:
        optimizer.zero_grad()
        logits = textbook_logits(model, src, lengths, tgt)
        loss = F.cross_entropy(logits.flatten(0, 1), tgt[:, 1:].flatten(), ignore_index=PAD_IDX)
        loss.backward()
        optimizer.step()
        n = (tgt[:, 1:] != PAD_IDX).sum().item()
        total_loss += loss.item() * n
        n_chars += n
    return total_loss / n_chars


@torch.no_grad()
def textbook_decode(model, sentences, vocabs):
    src_vocab, tgt_vocab = vocabs
    model.eval()
    hyps = []
    for sentence in sentences:
        src, lengths = torch.tensor([src_vocab.encode(sentence)]), torch.tensor([len(sentence)])
        keys, state = textbook_encoder(model.encoder, src, lengths)
        token, symbols = torch.tensor([[SOS_IDX]]), []
        for _ in range(script.MAX_GROWTH * len(sentence) + script.MAX_EXTRA):
            output, state = textbook_step(model, token, state, keys, lengths)
            token = model.generator(output).argmax(dim=-1)
            if token.item() == EOS_IDX:
                break
            symbols.append(token.item())
        hyps.append(tgt_vocab.decode(symbols))
    return hyps


def textbook_distance(a, b):
    """Levenshtein distance by the table."""
    table = [list(range(len(b) + 1))] + [[i] + [0] * len(b) for i in range(1, len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            substitution = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, substitution)
    return table[-1][-1]


@torch.no_grad()
def textbook_validation_loss(model, loader):
    """The mean cross-entropy of a character, as `textbook_epoch` computes it, without a step."""
    model.eval()
    total_loss, n_chars = 0.0, 0
    for src, lengths, tgt in loader:
        logits = textbook_logits(model, src, lengths, tgt)
        losses = F.cross_entropy(logits.flatten(0, 1), tgt[:, 1:].flatten(), ignore_index=PAD_IDX, reduction="sum")
        total_loss += losses.item()
        n_chars += (tgt[:, 1:] != PAD_IDX).sum().item()
    return total_loss / n_chars


def textbook(translator, model, loader):
    loss = textbook_epoch(model, loader)
    val = translator.data.pairs["val"]
    textbook_validation_loss(model, DataLoader(Sentences(val, translator.vocabs), BATCH_SIZE, collate_fn=collate))
    refs, sentences = zip(*val)
    hyps = textbook_decode(model, sentences, translator.vocabs)
    return loss, sum(textbook_distance(hyp, ref) / len(ref) for hyp, ref in zip(hyps, refs)) / len(refs)


class FixedBatches(list):
    """The same batches every epoch."""

    def epoch(self, generator):
        return self


def make_translator(data):
    """The experiment of `hw2-q3.py --use_attn` without dropout."""
    args = script.parse_args(["--use_attn", "--dropout", "0", "--lr", str(LEARNING_RATE), "--seed", str(SEED)])
    translator = script.Translation(args, args, data)
    return translator.single(LEARNING_RATE, SEED)


def our_epoch(translator, model, batches):
    optimization = utils.Optimization(model, translator.args, len(batches))
    order = torch.Generator().manual_seed(SEED)
    return utils.train_epoch(optimization, batches, translator.batch_loss, order)


def ours(translator, model, batches):
    loss = our_epoch(translator, model, batches)
    return loss, translator.evaluate(model)["val_err_rate"]


def make_model(translator):
    torch.manual_seed(SEED)
    return translator.build()


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def bench_epoch(translator, n_repeats, threads):
    """Print the seconds of an epoch with its validation: the textbook, the textbook on our batches, ours."""
    train, val = translator.data.pairs["train"], translator.data.pairs["val"]
    batches = translator.batches("cpu")
    same = list(batches.epoch(torch.Generator().manual_seed(SEED)))
    examples = Sentences(train, translator.vocabs)
    shuffled = DataLoader(examples, batch_size=BATCH_SIZE, shuffle=True, collate_fn=collate)

    first = FixedBatches(same[:N_CLOSE_STEPS])
    losses = [
        textbook_epoch(make_model(translator), first),
        our_epoch(translator, make_model(translator), first),
    ]
    if not math.isclose(*losses, rel_tol=CLOSE):
        sys.exit(f"the losses of the first {N_CLOSE_STEPS} steps differ, so the times do not compare: {losses}")
    variants = {
        "textbook": (textbook, shuffled),
        "textbook, our batches": (textbook, same),
        "ours": (ours, batches),
    }
    times, outcomes = {name: [] for name in variants}, {}
    for _ in range(n_repeats):
        for name, (loop, loader) in variants.items():
            torch.set_num_threads(threads[loop is ours])
            seconds, outcomes[name] = timed(loop, translator, make_model(translator), loader)
            times[name].append(seconds)
    print(f"\nan epoch of {len(train):,} pairs and its validation on {len(val):,}, {n_repeats} repeats")
    print(f"{'variant':<24}{'threads':>8}{'seconds':>9}{'ratio':>8}{'range':>16}{'loss':>9}{'val err':>9}")
    for name, seconds in times.items():
        ratios = [base / s for base, s in zip(times["textbook"], seconds, strict=True)]
        print(
            f"{name:<24}{threads[name.startswith('ours')]:>8}{statistics.median(seconds):>9.2f}{statistics.median(ratios):>8.2f}"
            f"{f'{min(ratios):.2f} to {max(ratios):.2f}':>16}{outcomes[name][0]:>9.4f}{outcomes[name][1]:>9.4f}"
        )
    if not math.isclose(outcomes["ours"][0], outcomes["textbook, our batches"][0], rel_tol=ROUGH):
        sys.exit("the losses of an epoch on the same batches differ")


def bench_decoding(translator, n_repeats, threads, n_train_steps=100):
    """Print sentences a second of greedy decoding of the validation sentences, after some training."""
    model = make_model(translator)
    batches = translator.batches("cpu").epoch(torch.Generator().manual_seed(SEED))
    our_epoch(translator, model, FixedBatches(itertools.islice(batches, n_train_steps)))
    sentences = [spanish for _, spanish in translator.data.pairs["val"]]
    times, hyps = {"textbook": [], "ours": []}, {}
    for _ in range(n_repeats):
        for name in times:
            torch.set_num_threads(threads[name == "ours"])
            decode = translator.translate if name == "ours" else partial(textbook_decode, vocabs=translator.vocabs)
            seconds, hyps[name] = timed(decode, model, sentences)
            times[name].append(seconds)
    n_equal = sum(a == b for a, b in zip(*hyps.values(), strict=True))
    print(f"\ngreedy decoding of {len(sentences)} sentences, {n_equal} of them equal")
    for name, seconds in times.items():
        print(f"{name:<24}{threads[name == 'ours']:>8}{len(sentences) / statistics.median(seconds):>9.0f} sentences/s")
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    print(f"ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


def products(src_len, tgt_len, vocab_size):
    """The matrix products of the forward pass of a batch: (how often, m, k, n)."""
    half, n_src, n_tgt = HIDDEN // 2, BATCH_SIZE * src_len, BATCH_SIZE * tgt_len
    return [
        (2, n_src, HIDDEN, 4 * half),  # encoder: inputs of both directions
        (2 * src_len, BATCH_SIZE, half, 4 * half),  # and their states
        (1, n_tgt, HIDDEN, 4 * HIDDEN),  # decoder: inputs
        (tgt_len, BATCH_SIZE, HIDDEN, 4 * HIDDEN),  # and its states
        (1, n_tgt, HIDDEN, HIDDEN),  # attention: W_q
        (BATCH_SIZE, tgt_len, HIDDEN, src_len),  # scores
        (BATCH_SIZE, tgt_len, src_len, HIDDEN),  # contexts
        (1, n_tgt, 2 * HIDDEN, HIDDEN),  # W_o
        (1, n_tgt, HIDDEN, vocab_size),  # output layer
    ]


def bench_share(translator, n_repeats, threads, src_len=16, tgt_len=17):
    """Print the multiply-adds of a training step, and the share of the speed of the bare products that it reaches."""
    torch.set_num_threads(threads[True])
    vocabs = translator.vocabs
    shapes = products(src_len, tgt_len, len(vocabs[1]))
    # Each product of the forward pass has two in the backward pass, for its left and its right factor.
    macs = 3 * sum(times * m * k * n for times, m, k, n in shapes)
    torch.manual_seed(SEED)
    src = torch.randint(4, len(vocabs[0]), (BATCH_SIZE, src_len))
    tgt = torch.randint(4, len(vocabs[1]), (BATCH_SIZE, tgt_len + 1))
    lengths = torch.full((BATCH_SIZE,), src_len)
    model = make_model(translator)
    optimization = utils.Optimization(model, translator.args, n_steps=1)
    factors = [(times, torch.randn(m, k), torch.randn(k, n), torch.randn(m, n)) for times, m, k, n in shapes]

    def step():
        optimization.zero_grad()
        loss, n = translator.batch_loss(model, (src, lengths, tgt))
        (loss / n).backward()
        optimization.step()

    def bare_products():
        for times, a, b, gradient in factors:
            for _ in range(times):
                a @ b, gradient @ b.t(), a.t() @ gradient

    step_times, product_times = [], []
    for _ in range(10 * n_repeats):
        step_times.append(timed(step)[0])
        product_times.append(timed(bare_products)[0])
    step_seconds, product_seconds = statistics.median(step_times), statistics.median(product_times)
    print(f"\na training step of {macs / GIGA:.2f} G multiply-adds, {threads[True]} threads")
    print(f"step {1000 * step_seconds:.1f} ms, {macs / step_seconds / GIGA:.1f} G/s")
    print(f"bare products {1000 * product_seconds:.1f} ms, {macs / product_seconds / GIGA:.1f} G/s")
    print(f"share {product_seconds / step_seconds:.2f}")


def main():
    args = parse_args()
    threads = (
        (args.threads,) * 2
        if args.threads
        else (torch.get_num_threads(), min(torch.get_num_threads(), script.Translation.max_threads))
    )
    data = translation.load("real", args.data_dir) if args.data_dir else translation.load("bundled")
    translator = make_translator(data)
    print(f"{data.title}{' (bundled)' if data.bundled else ''}; threads (textbook, ours): {threads}")
    if args.only in (None, "share"):
        bench_share(translator, args.repeats, threads)
    if args.only in (None, "decoding"):
        bench_decoding(translator, args.repeats, threads)
    if args.only in (None, "epoch"):
        bench_epoch(translator, args.repeats, threads)


if __name__ == "__main__":
    options.run_script(main)
