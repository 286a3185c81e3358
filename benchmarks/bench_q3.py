"""Question 3 of 2022-23 against the textbook loop: an epoch, greedy decoding, and how fast a step could be.

The textbook loop is a `Dataset` of sentences, a shuffling `DataLoader`, the decoder called once for each target symbol,
plain Adam, `.item()` at each step; in validation one sentence at a time, and the edit distance as a table in Python.
Both sides have the same network and, without dropout, compute the same loss on the same batches.

$ python benchmarks/bench_q3.py                   # one thread, on the bundled sentences
$ python benchmarks/bench_q3.py --data_dir DIR    # on the sentences there
"""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import options


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    parser.add_option("threads", type=options.positive_int, default=1, help="default: %(default)s")
    parser.add_option("repeats", type=options.positive_int, default=3, help="turns (default: %(default)s)")
    parser.add_option("steps", type=options.positive_int, help="of an epoch (default: the whole training set)")
    parser.add_option("data_dir", type=Path, metavar="DIR", help="where the sentences are (default: the bundled ones)")
    parser.add_option("only", choices=["epoch", "decoding", "share"], help="one of the three parts (default: all)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

import comparisons
import utils
from benchmarks.scripts import load_script
from benchmarks.timing import FixedBatches, compare, compare_with_products, require_close, require_equal
from data import translation
from data.text import EOS_IDX, PAD_IDX, SOS_IDX

SEED, RECIPE = 42, ["--use_attn", "--dropout", "0"]
N_CLOSE_STEPS, CLOSE = 20, 1e-4  # over so many steps the losses agree to this; later rounding errors have grown
ROUGH = 0.02  # and over a whole epoch to this
N_TRAIN_STEPS = 100  # before the decoding
SRC_LEN, TGT_LEN = 16, 17  # of a usual batch, whose products are timed

script = load_script("hw2-q3.py")


class Sentences(Dataset):
    """The characters of a Spanish sentence, and those of an English one between SOS and EOS."""

    def __init__(self, task, split):
        pairs = task.data.pairs[split]
        self.src = [torch.tensor(task.src_vocab.encode(spanish)) for _, spanish in pairs]
        self.tgt = [torch.tensor([SOS_IDX, *task.tgt_vocab.encode(english), EOS_IDX]) for english, _ in pairs]

    def __len__(self):
        return len(self.src)

    def __getitem__(self, i):
        return self.src[i], self.tgt[i]


def collate(batch):
    src, tgt = (pad_sequence(part, batch_first=True, padding_value=PAD_IDX) for part in zip(*batch))
    return src, (src != PAD_IDX).sum(dim=1), tgt


def textbook_logits(model, src, lengths, tgt_in):
    """The logits of a batch, by a loop over the target's symbols."""
    enc_output, state = model.encoder(src, lengths)
    outputs = []
    for t in range(tgt_in.shape[1]):
        output, state = model.decoder(tgt_in[:, t : t + 1], state, enc_output, lengths)
        outputs.append(output)
    return model.generator(torch.cat(outputs, dim=1))


def textbook_loss(model, loader, optimizer=None):
    """The mean loss of a character over an epoch; with an optimizer the model is trained."""
    model.train(optimizer is not None)
    total_loss, n_chars = 0.0, 0
    for src, lengths, tgt in loader:
        with torch.set_grad_enabled(optimizer is not None):
            logits = textbook_logits(model, src, lengths, tgt[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), tgt[:, 1:].flatten(), ignore_index=PAD_IDX)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        n = (tgt[:, 1:] != PAD_IDX).sum().item()
        total_loss += loss.item() * n
        n_chars += n
    return total_loss / n_chars


@torch.no_grad()
def textbook_decode(model, task, sentences):
    """The translation of each sentence, one at a time."""
    model.eval()
    hyps = []
    for sentence in sentences:
        src, lengths = torch.tensor([task.src_vocab.encode(sentence)]), torch.tensor([len(sentence)])
        enc_output, state = model.encoder(src, lengths)
        token, symbols = torch.tensor([[SOS_IDX]]), []
        for _ in range(script.MAX_GROWTH * len(sentence) + script.MAX_EXTRA):
            output, state = model.decoder(token, state, enc_output, lengths)
            token = model.generator(output).argmax(dim=-1)
            if token.item() == EOS_IDX:
                break
            symbols.append(token.item())
        hyps.append(task.tgt_vocab.decode(symbols))
    return hyps


def textbook_distance(a, b):
    """The Levenshtein distance, by its table."""
    table = [list(range(len(b) + 1))] + [[i] + [0] * len(b) for i in range(1, len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            substitution = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, substitution)
    return table[-1][-1]


def textbook_epoch(task, loader):
    """Train for an epoch; returns its loss, and the error rate on validation."""
    model = make_model(task)
    loss = textbook_loss(model, loader, torch.optim.Adam(model.parameters(), lr=task.args.learning_rate))
    textbook_loss(model, DataLoader(Sentences(task, "val"), task.args.batch_size, collate_fn=collate))
    refs, sentences = zip(*task.data.pairs["val"])
    hyps = textbook_decode(model, task, sentences)
    return loss, sum(textbook_distance(hyp, ref) / len(ref) for hyp, ref in zip(hyps, refs)) / len(refs)


def our_loss(task, model, batches):
    """The mean loss of an epoch of training."""
    optimization = utils.Optimization(model, task.args, len(batches))
    return utils.train_epoch(optimization, batches, task.batch_loss, order())


def our_epoch(task, batches):
    model = make_model(task)
    return our_loss(task, model, batches), task.evaluate(model)["val_err_rate"]["value"]


def make_model(task):
    torch.manual_seed(SEED)
    return task.build()


def order():
    return torch.Generator().manual_seed(SEED)


def bench_epoch(task, n_repeats):
    """An epoch with its validation: the textbook, the textbook with our batches, and ours."""
    batches, examples = task.batches("cpu"), Sentences(task, "train")
    rows = list(batches.rows(order()))

    def loader(rows):
        return DataLoader(examples, batch_sampler=[part.tolist() for part in rows], collate_fn=collate)

    first, model = rows[:N_CLOSE_STEPS], make_model(task)
    adam = torch.optim.Adam(model.parameters(), lr=task.args.learning_rate)
    losses = {"textbook": textbook_loss(model, loader(first), adam)}
    losses["ours"] = our_loss(task, make_model(task), FixedBatches(batches.gather, first))
    require_close(losses, CLOSE)
    shuffled = DataLoader(examples, task.args.batch_size, shuffle=True, collate_fn=collate)
    sides = {
        "textbook": lambda: textbook_epoch(task, shuffled),
        "textbook with our batches": lambda: textbook_epoch(task, loader(rows)),
        "ours": lambda: our_epoch(task, batches),
    }
    print(f"\nan epoch of {len(examples):,} pairs and its validation on {len(task.data.pairs['val']):,}")
    found = compare(sides, n_repeats, "s", float)
    for name, (loss, err_rate) in found.items():
        print(f"{name}: training loss {loss:.4f}, validation error rate {err_rate:.4f}")
    require_close({name: loss for name, (loss, _) in found.items() if name != "textbook"}, ROUGH)


def bench_decoding(task, n_repeats):
    """Greedy decoding of the validation sentences after some training."""
    batches = task.batches("cpu")
    rows = itertools.islice(itertools.cycle(batches.rows(order())), N_TRAIN_STEPS)
    model = make_model(task)
    our_loss(task, model, FixedBatches(batches.gather, list(rows)))
    sentences = [spanish for _, spanish in task.data.pairs["val"]]
    sides = {
        "textbook": lambda: textbook_decode(model, task, sentences),
        "ours": lambda: task.translate(model, sentences),
    }
    print(f"\ngreedy decoding of {len(sentences):,} sentences")
    compare(sides, n_repeats, "sentences a second", lambda seconds: len(sentences) / seconds, require_equal)


def bench_share(task, n_repeats):
    """A training step beside its matrix products."""
    batch_size, hidden = task.args.batch_size, task.args.hidden_size
    half, n_src, n_tgt = hidden // 2, batch_size * SRC_LEN, batch_size * TGT_LEN
    shapes = [
        (2, 1, n_src, hidden, 4 * half, 2),  # encoder: inputs of both directions
        (2 * SRC_LEN, 1, batch_size, half, 4 * half, 2),  # and their states
        (1, 1, n_tgt, hidden, 4 * hidden, 2),  # decoder: inputs
        (TGT_LEN, 1, batch_size, hidden, 4 * hidden, 2),  # and its states
        (1, 1, n_tgt, hidden, hidden, 2),  # attention: W_q
        (1, batch_size, TGT_LEN, hidden, SRC_LEN, 2),  # scores
        (1, batch_size, TGT_LEN, SRC_LEN, hidden, 2),  # contexts
        (1, 1, n_tgt, 2 * hidden, hidden, 2),  # W_o
        (1, 1, n_tgt, hidden, len(task.tgt_vocab), 2),  # output layer
    ]
    model = make_model(task).train()
    src = torch.randint(EOS_IDX + 1, len(task.src_vocab), (batch_size, SRC_LEN))
    tgt = torch.randint(EOS_IDX + 1, len(task.tgt_vocab), (batch_size, TGT_LEN + 1))
    batch = src, torch.full((batch_size,), SRC_LEN), tgt
    optimization = utils.Optimization(model, task.args, n_steps=1)
    compare_with_products(lambda: utils.train_step(optimization, task.batch_loss, batch), shapes, 10 * n_repeats)


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    data = translation.load("real", args.data_dir) if args.data_dir else translation.load("bundled")
    recipe = script.parse_args(RECIPE)
    if args.steps is not None:
        n = args.steps * recipe.batch_size
        data = replace(data, pairs={split: pairs[:n] for split, pairs in data.pairs.items()})
    task = comparisons.single(script.Translation(recipe, data))
    print(f"{utils.data_title(data)}, {args.threads} threads")
    if args.only in (None, "share"):
        bench_share(task, args.repeats)
    if args.only in (None, "decoding"):
        bench_decoding(task, args.repeats)
    if args.only in (None, "epoch"):
        bench_epoch(task, args.repeats)


if __name__ == "__main__":
    options.run_script(main)
