"""Question 3 of 2021-22 against the textbook loop: an epoch and greedy decoding, with and without attention.

The textbook loop is a `Dataset` of pairs of an image and a caption over cached features, a shuffling `DataLoader`, a
loop over the words of the padded batch in which the attention projects all regions again, plain Adam, `.item()` at each
step; and one image decoded at a time. Both sides have the same network and, without dropout, compute the same loss on
the same batches.

$ python benchmarks/bench_captioning.py                             # bundled images in the place of Sydney-Captions
$ python benchmarks/bench_captioning.py --data_dir DIR --threads 2  # real Sydney-Captions in DIR/sydney
"""

import itertools
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import options


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    parser.add_option("threads", type=options.positive_int, default=1, help="default: %(default)s")
    parser.add_option("repeats", type=options.positive_int, default=3, help="turns (default: %(default)s)")
    parser.add_option("steps", type=options.positive_int, default=20, help="of an epoch (default: %(default)s)")
    parser.add_option("data_dir", type=Path, metavar="DIR", help="where sydney/ is (default: bundled images)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

import comparisons
import encoders
import utils
from benchmarks.scripts import load_script
from benchmarks.timing import FixedBatches, compare, require_close, require_equal, with_onednn
from data import captions
from data.text import EOS_IDX, PAD_IDX, SOS_IDX, SYMBOLS, at_equal_distances

SEED, RECIPE = 42, ["-encoder", "efficientnet_lite0", "-dropout", "0"]
N_CAPTIONS = 5  # of an image
N_CLOSE_STEPS, CLOSE = 10, 1e-4  # over so many steps the losses agree to this
N_EPOCHS = 10  # before the decoding, so that captions end by themselves and have their usual length

script = load_script("hw2-q3-captioning.py")


class Pairs(Dataset):
    """An image's features and one of its captions."""

    def __init__(self, regions, tensor):
        self.regions, self.tensor = regions.float(), tensor
        self.places = (tensor[..., 0] != PAD_IDX).nonzero().tolist()

    def __len__(self):
        return len(self.places)

    def __getitem__(self, i):
        image, place = self.places[i]
        return self.regions[image], self.tensor[image, place]


def flattened(batches):
    """Our batches as the textbook reads them: the features once for each caption."""
    for regions, tensor in batches:
        is_there = tensor[..., 0] != PAD_IDX
        image, _ = is_there.nonzero(as_tuple=True)
        yield regions[image], tensor[is_there]


def textbook_step(model, regions, tokens, h, c):
    """The scores of the next word, and the next state."""
    x = model.embedding(tokens)
    if hasattr(model, "attention"):
        z, _ = model.attention(regions, h.unsqueeze(1))
        x = torch.cat([x, z.squeeze(1)], dim=1)
    h, c = model.decode_step(x, (h, c))
    return model.fc(model.dropout(h)), h, c


def textbook_epoch(task, batches):
    """The mean loss of a word over an epoch of training."""
    model = make_model(task).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=task.args.learning_rate)
    total_loss, n_words = 0.0, 0
    for regions, words in batches:
        optimizer.zero_grad()
        regions, logits = model.standardized(regions), []
        h, c = model.init_hidden_state(regions)
        for t in range(words.shape[1] - 1):
            scores, h, c = textbook_step(model, regions, words[:, t], h, c)
            logits.append(scores)
        target = words[:, 1:].flatten()
        loss = F.cross_entropy(torch.stack(logits, dim=1).flatten(0, 1), target, ignore_index=PAD_IDX)
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), task.args.clip_value)
        optimizer.step()
        n = (target != PAD_IDX).sum().item()
        total_loss += loss.item() * n
        n_words += n
    return total_loss / n_words


@torch.no_grad()
def textbook_decode(task, model):
    """The caption of each test image, one at a time."""
    model.eval()
    hyps = []
    for regions in model.standardized(task.regions["test"].float()).split(1):
        h, c = model.init_hidden_state(regions)
        token, words = torch.tensor([SOS_IDX]), []
        for _ in range(script.MAX_WORDS):
            scores, h, c = textbook_step(model, regions, token, h, c)
            scores[:, list(SYMBOLS["forbidden"])] = float("-inf")
            token = scores.argmax(dim=1)
            if token.item() == EOS_IDX:
                break
            words.append(token.item())
        hyps.append(task.vocab.decode(words))
    return hyps


def our_epoch(task, model, batches):
    """The mean loss of a word over an epoch of training."""
    order = torch.Generator().manual_seed(SEED)
    return utils.train_epoch(utils.Optimization(model, task.args, 1), batches, task.batch_loss, order)


def make_model(task):
    torch.manual_seed(SEED)
    return task.build()


def thinned(data, n_images):
    """The set with fewer images of each split, of all kinds of scene; published files list one kind after the other."""
    return replace(data, examples={split: at_equal_distances(part, n_images) for split, part in data.examples.items()})


def bench_epoch(task, name, n_repeats):
    """Compare an epoch of training, after the losses of the first steps."""
    batches = task.batches("cpu")
    rows = batches.rows(torch.Generator().manual_seed(SEED))[:N_CLOSE_STEPS]
    first = FixedBatches(batches.gather, rows)
    losses = {"textbook": textbook_epoch(task, flattened(first.epoch(None)))}
    losses["ours"] = with_onednn(lambda: our_epoch(task, make_model(task), first))()
    require_close(losses, CLOSE)
    pairs = Pairs(task.regions["train"], captions.to_tensor(task.data["train"], task.vocab))
    loader = DataLoader(pairs, batch_size=task.args.batch_size, shuffle=True)
    sides = {
        "textbook": lambda: textbook_epoch(task, loader),
        "ours": with_onednn(lambda: our_epoch(task, make_model(task), batches)),
        "ours without oneDNN": lambda: our_epoch(task, make_model(task), batches),
    }
    print(f"\nan epoch of {len(task.data['train']):,} images, {name}")
    compare(sides, n_repeats, "s", float)  # the sides draw batches of their own, so their losses differ here


def bench_decoding(task, name, n_repeats):
    """Compare greedy decoding of the test images, after some training."""
    model, batches = make_model(task), task.batches("cpu")
    rows = list(itertools.chain(*itertools.repeat(batches.rows(torch.Generator().manual_seed(SEED)), N_EPOCHS)))
    our_epoch(task, model, FixedBatches(batches.gather, rows))
    n_images, ours = len(task.data["test"]), partial(task.decode, model, "test")
    n_words = [len(hyp.split()) for hyp in ours()]
    print(f"\ngreedy decoding of {n_images} images, {name}, {sum(n_words) / n_images:.1f} words each")
    sides = {
        "textbook": lambda: textbook_decode(task, model),
        "ours": with_onednn(ours),
        "ours without oneDNN": ours,
    }
    compare(sides, n_repeats, "images a second", lambda seconds: n_images / seconds, require_equal)


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    data = captions.load("sydney", *(("real", args.data_dir) if args.data_dir else ("bundled",)))
    defaults = script.parse_args([])
    encoder = encoders.Encoder("efficientnet_lite0", side=defaults.image_size)
    data = encoders.encode(thinned(data, math.ceil(args.steps * defaults.batch_size / N_CAPTIONS)), encoder)
    print(f"{utils.data_title(data)}, {args.threads} threads")
    for flags in ([], ["--use_attention"]):
        recipe = script.parse_args([*RECIPE, *flags])
        task = comparisons.single(script.Captioning(recipe, data))
        name = "with attention" if flags else "without attention"
        bench_epoch(task, name, args.repeats)
        bench_decoding(task, name, args.repeats)


if __name__ == "__main__":
    options.run_script(main)
