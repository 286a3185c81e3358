"""Captioning against the textbook: an epoch of training, greedy decoding and beam search, with attention and without.

The textbook loop is how courses write it: a `Dataset` of pairs of an image and a caption over cached features, a shuffling
`DataLoader`, a loop over the words of the padded batch in which the attention projects all regions again, plain Adam, `.item()` at
each step, and one image decoded at a time; in beam search each hypothesis has a copy of its image's regions. Dropout is 0, so that
both sides compute the same loss on the same batches. The program stops unless both have the same losses and the same captions.

$ python benchmarks/bench_captioning.py                                  # the bundled images in UCM-Captions' place
$ python benchmarks/bench_captioning.py --data_dir DIR --threads 2       # real UCM-Captions in DIR/ucm
$ python benchmarks/bench_captioning.py --images 1680 --repeats 1        # an epoch of the whole set
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options  # noqa: E402
from benchmarks.scripts import load_script  # noqa: E402


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_option("threads", type=options.positive_int, default=1, help="of both sides (default: %(default)s)")
    parser.add_option("repeats", type=options.positive_int, default=3, help="default: %(default)s")
    help = "training images of an epoch (default: %(default)s)"
    parser.add_option("images", type=options.positive_int, default=320, help=help)
    parser.add_option("data_dir", type=Path, metavar="DIR", help="where UCM-Captions is (default: the bundled images)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

import encoders  # noqa: E402
import utils  # noqa: E402
from benchmarks.timing import compare  # noqa: E402
from data import captions  # noqa: E402
from data.text import EOS_IDX, PAD_IDX, SOS_IDX, at_equal_distances  # noqa: E402

SEED, BEAM_SIZE, BATCH_SIZE = 42, 3, 80  # captions of a textbook batch: as many as 16 images have
N_CLOSE_STEPS, CLOSE = 10, 1e-4  # over so many steps the losses agree to this
N_TRAIN_STEPS = 200  # before the decoding, so that captions end by themselves and have their usual length

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


def textbook_start(model, regions):
    """The standardised regions, h_0 and c_0."""
    regions = model.standardized(regions)
    mean = regions.mean(dim=1)
    return regions, torch.tanh(model.init_h(mean)), torch.tanh(model.init_c(mean))


def textbook_step(model, regions, token, h, c):
    """The scores of the next word and the cell's next state, written with the modules alone."""
    x = model.embedding(token)
    if hasattr(model, "attention"):
        attention = model.attention
        energy = torch.tanh(attention.state_proj(h).unsqueeze(1) + attention.region_proj(regions))
        alpha = attention.score(energy).squeeze(2).softmax(dim=1)
        x = torch.cat([x, (alpha.unsqueeze(2) * regions).sum(dim=1)], dim=1)
    h, c = model.decode_step(x, (h, c))
    return model.fc(model.dropout(h)), h, c


def textbook_epoch(model, batches):
    """The mean loss of an epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=script.RECIPE["learning_rate"][0])
    model.train()
    total, n_words = 0.0, 0
    for regions, words in batches:
        optimizer.zero_grad()
        (regions, h, c), logits = textbook_start(model, regions), []
        for t in range(words.shape[1] - 1):
            scores, h, c = textbook_step(model, regions, words[:, t], h, c)
            logits.append(scores)
        target = words[:, 1:]
        loss = F.cross_entropy(torch.stack(logits, dim=1).flatten(0, 1), target.flatten(), ignore_index=PAD_IDX)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), script.RECIPE["max_grad_norm"])
        optimizer.step()
        n = (target != PAD_IDX).sum().item()
        total, n_words = total + loss.item() * n, n_words + n
    return total / n_words


@torch.no_grad()
def textbook_decode(model, regions, vocab):
    model.eval()
    hyps = []
    for image in regions.split(1):
        (image, h, c), token, words = textbook_start(model, image), torch.tensor([SOS_IDX]), []
        for _ in range(script.MAX_WORDS):
            scores, h, c = textbook_step(model, image, token, h, c)
            scores[:, list(script.SYMBOLS["forbidden"])] = float("-inf")
            token = scores.argmax(dim=1)
            if token.item() == EOS_IDX:
                break
            words.append(token.item())
        hyps.append(vocab.decode(words))
    return hyps


@torch.no_grad()
def textbook_beam(model, regions, vocab):
    """The best hypothesis of `BEAM_SIZE`; one that has ended keeps its place while its log-probability is among the best."""
    model.eval()
    hyps = []
    for image in regions.split(1):
        image, h, c = textbook_start(model, image)
        going_on, ended, best = [(0.0, [SOS_IDX])], [], (-math.inf, [])
        for step in range(script.MAX_WORDS):
            tokens = torch.tensor([words[-1] for _, words in going_on])
            scores, h, c = textbook_step(model, image.expand(len(tokens), -1, -1), tokens, h, c)
            log_p = scores.log_softmax(dim=1)
            log_p[:, list(script.SYMBOLS["forbidden"])] = float("-inf")
            log_p += torch.tensor([score for score, _ in going_on]).unsqueeze(1)
            found, places = log_p.flatten().topk(BEAM_SIZE)
            parents, words = places // log_p.shape[1], (places % log_p.shape[1]).tolist()
            longer = [
                (score, [*going_on[parent][1], word], parent)
                for score, parent, word in zip(found.tolist(), parents.tolist(), words, strict=True)
            ]
            kept = sorted(ended + longer, key=lambda hyp: -hyp[0])[:BEAM_SIZE]
            is_last = step + 1 == script.MAX_WORDS
            ended = [hyp for hyp in kept if hyp[1][-1] == EOS_IDX or is_last]
            best = max([best, *(hyp[:2] for hyp in ended)], key=lambda hyp: hyp[0])
            left = [hyp for hyp in kept if hyp[1][-1] != EOS_IDX and not is_last]
            if not left or best[0] >= left[0][0]:
                break
            going_on = [hyp[:2] for hyp in left]
            h, c = (state[[hyp[2] for hyp in left]] for state in (h, c))
        hyps.append(vocab.decode([word for word in best[1][1:] if word != EOS_IDX]))
    return hyps


class FixedBatches(list):
    """The same batches every epoch."""

    drawn = None

    def steps(self, *place):
        return ([batch] for batch in self)


def flattened(batches):
    """Our batches as the textbook reads them: the features once for each caption."""
    for regions, tensor in batches:
        is_there = tensor[..., 0] != PAD_IDX
        image, _ = is_there.nonzero(as_tuple=True)
        yield regions[image], tensor[is_there]


def as_in_scripts(function):
    """`function` with the products of our scripts; the textbook has torch's own choice."""

    def call():
        utils.use_onednn(script.Captioning.onednn)
        try:
            return function()
        finally:
            utils.use_onednn(False)

    return call


def ours_epoch(captioner, model, batches):
    optimization = utils.Optimization(model, captioner.args, 1)
    return utils.train_epoch(optimization, batches, captioner.batch_loss, torch.Generator().manual_seed(SEED))


def make(captioner):
    torch.manual_seed(SEED)
    return captioner.build()


def thinned(data, n_images):
    """The set with fewer training images, from all kinds of scene: the published files list one kind after another."""
    rows = at_equal_distances(range(len(data["train"])), n_images)
    examples = data.examples | {"train": [data["train"][row] for row in rows]}
    return replace(data, examples=examples, regions=data.regions | {"train": data.regions["train"][rows]})


def equal_captions(hyps):
    if hyps["ours"] != hyps["textbook"]:
        n_other = sum(a != b for a, b in zip(*hyps.values(), strict=True))
        sys.exit(f"{n_other} captions differ, so the times do not compare")


def bench_products(regions, size, n_repeats):
    """The speed of W_2 s_i, a product of the regions of some images, by MKL and by oneDNN."""
    cells, weight = regions.float().flatten(0, 1), torch.randn(size, regions.shape[2])
    sides = {"MKL": lambda: F.linear(cells, weight), "oneDNN": as_in_scripts(lambda: F.linear(cells, weight))}
    n_products = cells.shape[0] * weight.numel() / 1e9
    print(f"\na product of {tuple(cells.shape)} and {tuple(weight.T.shape)}")
    compare(sides, n_repeats, "G multiply-adds/s", lambda seconds: n_products / seconds, lambda results: None)


def bench(data, encoder, flags, n_repeats):
    args = script.parse_args(["-dataset", "ucm", "-encoder", encoder.name, "-dropout", "0", *flags])
    captioner = script.Captioning(args, args, data, encoder).single(args.learning_rate[0], SEED)
    tensor = captions.to_tensor(data["train"], captioner.vocab)
    batches = captioner.batches("cpu")

    first = FixedBatches([*batches.epoch(torch.Generator().manual_seed(SEED))][:N_CLOSE_STEPS])
    ours = as_in_scripts(lambda: ours_epoch(captioner, make(captioner), first))
    losses = ours(), textbook_epoch(make(captioner), flattened(first))
    if not math.isclose(*losses, rel_tol=CLOSE):
        sys.exit(f"the losses of the first {N_CLOSE_STEPS} steps differ, so the times do not compare: {losses}")
    loader = DataLoader(Pairs(captioner.regions["train"], tensor), batch_size=BATCH_SIZE, shuffle=True)
    sides = {
        "textbook": lambda: textbook_epoch(make(captioner), loader),
        "ours": as_in_scripts(lambda: ours_epoch(captioner, make(captioner), batches)),
    }
    name = "with attention" if args.use_attention else "without attention"
    print(f"\nan epoch of {len(tensor):,} images, {name}")
    # Each side draws batches of its own, so that their losses differ here; they were compared above.
    compare(sides, n_repeats, "s", lambda seconds: seconds, lambda losses: None)

    model = make(captioner)
    for _ in range(math.ceil(N_TRAIN_STEPS / len(batches))):
        ours_epoch(captioner, model, batches)
    test = captioner.regions["test"]
    n_words = [len(hyp.split()) for hyp in captioner.decode(model, "test")]
    shown = f"{sum(n_words) / len(test):.1f} words each, {max(n_words)} at most"
    print(f"\ngreedy decoding of {len(test)} images, {name}, {shown}")
    bench_decoding(textbook_decode, captioner, model, n_repeats)
    print(f"\nbeam search with {BEAM_SIZE} hypotheses, {name}")
    bench_decoding(textbook_beam, captioner, model, n_repeats, beam_size=BEAM_SIZE)


def bench_decoding(textbook, captioner, model, n_repeats, **search):
    """Decode the test images with both sides in turns."""
    test = captioner.regions["test"]
    sides = {
        "textbook": lambda: textbook(model, test, captioner.vocab),
        "ours": as_in_scripts(lambda: captioner.decode(model, "test", **search)),
    }
    compare(sides, n_repeats, "images/s", lambda seconds: len(test) / seconds, equal_captions)


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    encoder = encoders.Encoder("efficientnet_lite0")
    data = captions.load("ucm", "real" if args.data_dir else "bundled", args.data_dir or ROOT / "data")
    data = thinned(encoders.encode(data, encoder), args.images)
    print(f"{utils.data_title(data)}; {args.threads} threads")
    bench_products(data.regions["test"], script.parse_args([]).hidden_size, args.repeats)
    for flags in ([], ["--use_attention"]):
        bench(data, encoder, flags, args.repeats)


if __name__ == "__main__":
    options.run_script(main)
