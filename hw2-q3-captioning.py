"""Question 3 of 2021-22: captions of aerial images.

$ python hw2-q3-captioning.py                  # 3.1a, with the course's settings
$ python hw2-q3-captioning.py --use_attention  # 3.1b, with additive attention
$ python hw2-q3-captioning.py --use_attention --caption 219.tif 540.tif 357.tif  # 3.1c, after 3.1b
"""

from pathlib import Path

import options

N_EPOCHS = 6  # this and the other defaults are the skeleton's; the statement fixes none
# What `-scale quick` changes beside the number of images: smaller ones, all captions of an image in one step.
QUICK = {"epochs": 15, "image_size": 224, "batch_of": "images", "batch_size": 16, "learning_rate": [0.002]}
IMAGE_SIZES = {"sydney": 500}  # pixels, as the set has them; other images are read at 224 x 224
EVAL_BATCH_SIZE = 64  # images
MAX_WORDS = 30  # of a written caption; the longest reference of both published sets has 22
ASKED = ("219.tif", "540.tif", "357.tif")  # the images of 3.1c, in the statement's order


def parse_args(argv=None):
    parser = options.Parser(__doc__, "hw2-q3-captioning.py", "--use_attention")
    parser.add_option("use_attention", action="store_true", help="additive attention over the regions of the image")
    sets = options.name_or_path("sydney", "ucm")
    parser.add_option("dataset", type=sets, default="sydney", metavar="NAME", help="sydney (default), ucm, or a folder")
    help = "the frozen network; auto (default): resnet18 if its weights can be had, else efficientnet_lite0"
    parser.add_option("encoder", choices=["auto", "resnet18", "efficientnet_lite0"], default="auto", help=help)
    parser.add_option("image_size", type=options.whole(32, 1024), help="pixels (default: 500 for sydney, else 224)")
    parser.add_option("features", choices=["raw", "standardized"], default="raw", help="default: %(default)s")
    usual = {"batch_size": 8, "learning_rate": [0.0004], "dropout": 0.5, "optimizer": "adam", "clip_value": 5.0}
    options.add_training_options(parser, **usual, label_smoothing=0.0)
    parser.add_option("batch_of", choices=["captions", "images"], default="captions", help="that batch_size counts")
    for name, size in {"embedding_size": 100, "hidden_size": 256, "attention_size": 100}.items():
        parser.add_option(name, type=options.positive_int, default=size, help="default: %(default)s")
    parser.add_option("attention_activation", choices=["relu", "tanh"], default="relu", help="default: %(default)s")
    options.add_search_options(parser)
    options.add_use_option(parser, "caption", "IMAGE", "images of the set by name, image files, or folders")
    args = options.parse_training(parser, argv, N_EPOCHS, **QUICK)
    args.fill(image_size=args.defaults["image_size"] or IMAGE_SIZES.get(args.dataset, 224))
    return args


if __name__ == "__main__":
    options.before_imports(parse_args, "sacrebleu", "PIL")

import torch

import baselines
import comparisons
import decoding
import encoders
import experiment
import metrics
import models
import onednn
import utils
from data import captions, text


def main(argv=None):
    args = parse_args(argv)
    if args.caption:
        return caption(args)
    onednn.use_where_precise()  # 1.4 times as fast on an AMD EPYC
    data = captions.load(args.dataset, args.data, args.data_dir, quick=args.scale == "quick")
    args.encoder = args.defaults["encoder"] = encoders.choose(args.encoder)
    device = utils.configure_torch(args.seed[0], args.device, args.threads)
    data = encoders.encode(data, encoders.Encoder(args.encoder, side=args.image_size), device)
    task = comparisons.single(Captioning(args, data))
    if task is None:  # several learning rates or seeds, which are compared and tested
        return None
    with experiment.open_run(task) as run:
        model = task.build().to(run.device)
        history = experiment.train(task, model, run)  # None if the run was finished before
        if history is not None:
            task.draw(history, run.folder)
            run.add(**experiment.describe(task, model, history) | task.evaluate(model))
        if run.result["test"] is None and not args.skip_test:
            last = experiment.test_last_epoch(task, run)  # which the course tests: a note
            run.add(**task.test(model, run.folder), last_epoch=last)  # the test set, once
        if texts := decoding.test_searches(task, model, run):  # with a beam, or with samples
            captions.write_generated(run.folder, args.use_attention, data, texts)
        experiment.report(task, run)


class Captioning(experiment.SequenceTask):
    """Images to captions: the decoder, its loss, its validation and its test."""

    # The course's score chooses the epoch, as the published results are in it.
    question, score, score_name = "q3-captioning", "val_sentence_bleu", "sentence BLEU"
    answers = (
        "The course's BLEU-4 is sentence BLEU. BLEU-4 over all captions: {test[greedy][bleu4][value]:.4f}{bundled}",
    )
    measure, scores = staticmethod(metrics.sentence_bleu), staticmethod(metrics.captioning)
    quick = tuple(QUICK)

    def __init__(self, args, data, settings=None):
        super().__init__(args, data)
        self.encoder = encoders.Encoder(args.encoder, settings and settings["encoder_digest"], args.image_size)
        self.base_name = f"{Path(args.dataset).name}-{args.encoder}"
        if settings is None:
            self.vocab = captions.vocabulary(data)
            self.regions = {split: self.as_read(part) for split, part in data.regions.items()}
        else:
            self.vocab, self.regions = text.WordVocabulary(settings["words"]), {}

    def settings(self):
        return {"words": self.vocab.symbols, "encoder_digest": self.encoder.digest}

    def facts(self):
        sizes = {split: len(part) for split, part in self.data.examples.items()}
        return {"encoder": self.encoder.title, "n_examples": sizes, "n_words": len(self.vocab.symbols)}

    def build(self):
        args = self.args
        sizes = args.hidden_size, args.embedding_size, len(self.vocab), encoders.NETWORKS[args.encoder].N_CHANNELS
        common = *sizes, args.dropout, args.features == "standardized"
        if args.use_attention:
            model = models.CaptionDecoderWithAttention(args.attention_size, *common, args.attention_activation)
        else:
            model = models.CaptionDecoder(*common)
        if model.region_mean is not None and self.regions:  # else the statistics come with the weights
            model.set_statistics(self.regions["train"])
        return model

    def batches(self, device, split="train"):
        tensor, images = captions.training_tensor(self.data[split], self.vocab, self.args.batch_of == "captions")
        gather = captions.gatherer(self.regions[split], tensor, images, device)
        return utils.Batches(len(tensor), self.args.batch_size, gather)

    def batch_loss(self, model, batch):
        """The cross-entropy of the captions' words, each predicted from the true ones before it."""
        regions, tensor = batch
        logits = model(regions, tensor[..., :-1])  # (n_images, n_captions, max_len - 1, vocab_size)
        words_out = tensor[..., 1:].flatten(0, 1)
        return utils.sequence_loss(logits.flatten(0, 1), words_out, text.PAD_IDX, self.args.label_smoothing)

    def as_read(self, regions):
        """The regions as the decoder reads them: without attention it reads their mean alone."""
        return regions if self.args.use_attention else captions.mean_regions(regions).unsqueeze(1)

    def evaluate(self, model):
        scores = metrics.mean_bleus(self.refs("val"), [self.decode(model, "val")])
        return {f"val_{name}": score for name, score in scores.items()}

    def decode(self, model, split, **search):
        batches = options.progress(self.regions[split].split(EVAL_BATCH_SIZE), "decoding")
        found = [self.decode_batch(model, batch, **search).symbols.tolist() for batch in batches]
        return [self.vocab.decode(symbols) for of_batch in found for symbols in of_batch]

    @torch.no_grad()
    def decode_batch(self, model, regions, **search):
        """The `decoding.Decoded` words of a batch of images."""
        model.eval()
        regions = regions.to(next(model.parameters()).device, torch.float32)
        max_steps = torch.full((len(regions),), MAX_WORDS, device=regions.device)
        return decoding.search(model.step, *model.start(regions), max_steps=max_steps, **search, **text.SYMBOLS)

    def differences_from(self, hyps, others):
        others = {name: [texts] for name, texts in others.items()} | self.others([self])
        found = {name: ([hyps], lists) for name, lists in others.items()}
        return metrics.bleus_by_name("differences", self.refs("test"), found)

    def draw(self, history, folder):
        title, best = utils.data_title(self.data), self.best_epoch(history)
        labels = {f"val_{name}": f"Validation {bleu}" for name, bleu in metrics.BLEU_TITLES.items()}
        for name, label in {"train_loss": "Training loss (nats a word)", **labels}.items():
            utils.plot_scores(folder / f"{name}.pdf", history, {name: ""}, label, title, best)

    def test(self, model, folder):
        """Scores of greedy decoding of the test set, and of captions without training; captions and drawings."""
        hyps, refs, examples = self.decode(model, "test"), self.refs("test"), []
        names = [example.filename for example in self.data["test"]]
        asked = [name for name in ASKED if name in names] or text.at_equal_distances(names, len(ASKED))
        for name in asked:
            i = names.index(name)
            _, looked = self.draw_caption(model, name, self.data.open_image(name), folder, utils.data_title(self.data))
            example = {"image": name, "row": i, "src": name, "hyp": hyps[i], "ref": refs[i][0], "refs": refs[i]}
            examples.append(example | {"looked": looked})
        captions.write_generated(folder, self.args.use_attention, self.data, {"greedy": hyps})
        greedy = self.test_scores(hyps) | self.differences_from(hyps, {})
        result = metrics.bleus_by_name("baselines", refs, {name: [lists] for name, lists in self.others([]).items()})
        result["bleu4_leave_one_out"] = metrics.leave_one_out_bleu(refs)
        return result | {"test": {"greedy": greedy} | experiment.NOT_MADE, "examples": examples}

    def draw_caption(self, model, name, image, folder, title, **search):
        """Draw an image beside its caption and, with attention, the weights of each word; returns both (`looked`)."""
        regions = self.as_read(self.encoder.regions([image]).half())  # as in the cache
        found = self.decode_batch(model, regions, return_weights=True, **search)
        hyp = self.vocab.decode(found.symbols[0].tolist())
        utils.plot_captioned(folder, name, image, hyp.split(), found.weights, title)
        return hyp, found.looked()

    def others(self, tasks):
        """What runs are compared with: the baselines and, of runs with attention, the same runs without."""
        others = baselines.captions(self.refs("train"), self.data.regions)
        plain = [comparisons.counterpart(task, use_attention=False) for task in tasks if self.args.use_attention]
        if plain and all(plain):
            n = len(self.data["test"])
            others["the decoder without attention"] = [captions.read_generated(run.folder, False, n) for run in plain]
        return others

    def pooled(self, children):
        given = self.args.use_attention, len(self.data["test"])
        ours = [captions.read_generated(child.folder(), *given) for child in children]
        found = {f"minus {name}, paired": (ours, lists) for name, lists in self.others(children).items()}
        scores = metrics.bleus_by_name("pooled", self.refs("test"), {"mean": [ours]} | found)
        titles = zip(metrics.BLEU_TITLES.values(), scores.values(), strict=True)
        return {f"{title}, {what}": score for title, by_name in titles for what, score in by_name.items()}


def caption(args):
    """Print the caption of each image and draw it, by the best weights of the run that the options mean."""
    found = experiment.latest(Captioning, args)
    mode = "bundled" if found.bundled else "real"
    images = list(captions.open_images(args.caption, found.options["dataset"], mode, args.data_dir))
    task, model, folder = experiment.restore(Captioning, args)
    title, search = utils.data_title(task.data), decoding.search_to_use(args)
    for name, image in images:
        hyp, _ = task.draw_caption(model, name, image, folder, title, **search)
        print(f"{name}: {hyp}", flush=True)
        drawn = sorted(path.name for path in folder.glob(f"*_{Path(name).stem}.pdf"))
        options.note(f"drawn beside the weights: {', '.join(drawn)}")


if __name__ == "__main__":
    options.run_script(main)
