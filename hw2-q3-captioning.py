"""Question 3 of 2021-22: captions of aerial images, a frozen convolutional encoder and an LSTM decoder.

$ python hw2-q3-captioning.py                                                    # 3.1a
$ python hw2-q3-captioning.py --use_attention                                    # 3.1b, with additive attention
$ python hw2-q3-captioning.py --use_attention --beam_size 3 --resume             # the same weights with beam search
$ python hw2-q3-captioning.py --use_attention --caption 219.tif 357.tif 540.tif  # 3.1c, with the last such weights
"""

from pathlib import Path

import options

N_EPOCHS, QUICK_EPOCHS = 60, 25
EVAL_BATCH_SIZE = 256  # images
MAX_WORDS = 30  # of a written caption; the longest reference of both published sets has 22
ASKED = ("219.tif", "540.tif", "357.tif")  # the images of 3.1c, in the statement's order
PLAIN = "the decoder without attention"


def parse_args(argv=None):
    parser = options.Parser("Train and test the caption decoder of Question 3.", prog="hw2-q3-captioning.py")
    parser.add_option("use_attention", action="store_true", help="additive attention over the regions of the image")
    sets = options.name_or_path("sydney", "ucm")
    parser.add_option("dataset", type=sets, default="sydney", metavar="NAME", help="sydney (default), ucm, or a folder")
    help = "the frozen network; auto (default): resnet18 if its weights can be had, else efficientnet_lite0"
    parser.add_option("encoder", choices=["auto", "resnet18", "efficientnet_lite0"], default="auto", help=help)
    help = "imagenet (default), or a state dict"
    parser.add_option("encoder_weights", type=options.name_or_path("imagenet"), default="imagenet", help=help)
    # The statement fixes none of these. A step takes 16 images, each with all of its captions.
    usual = {"batch_size": 16, "learning_rate": [0.001], "dropout": 0.5, "optimizer": "adam", "max_grad_norm": 5.0}
    options.add_training_options(parser, **usual, label_smoothing=0.0)
    parser.add_option("hidden_size", type=options.positive_int, default=256, help="default: %(default)s")
    parser.add_option("attention_activation", choices=["tanh", "relu"], default="tanh", help="default: %(default)s")
    parser.add_option("patience", type=options.positive_int, default=20, help="early stopping, epochs (default: 20)")
    options.add_search_options(parser)
    parser.add_option("caption", nargs="+", metavar="IMAGE", help="caption images, files or folders; no training")
    return options.parse_training(parser, argv, N_EPOCHS, QUICK_EPOCHS)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch
import torch.nn.functional as F

import baselines
import comparisons
import decoding
import encoders
import experiment
import metrics
import models
import onednn
import parallel
import runs
import utils
from data import captions, text
from data.text import PAD_IDX, SYMBOLS


def main(argv=None):
    args = parse_args(argv)
    if args.caption:
        return caption(args)
    onednn.use_where_precise()  # 1.4 times as fast on an AMD EPYC
    data = captions.load(args.dataset, args.data, args.data_dir, quick=args.scale == "quick")
    args.encoder = encoders.choose(args.encoder, args.encoder_weights)
    encoder = encoders.Encoder(args.encoder, args.encoder_weights)
    device = utils.configure_torch(args.seed[0], args.device, args.threads, max_threads=runs.n_cpus())
    data = encoders.encode(data, encoder, device)
    defaults = parse_args(["-dataset", args.dataset, "-encoder", args.encoder, "-scale", args.scale])
    task = comparisons.single(Captioning(args, defaults, data, encoder=encoder))
    if task is None:  # several learning rates or seeds, which are compared and tested
        return None
    with experiment.open_run(task) as run:
        model = task.build().to(run.device)
        history = experiment.train(task, model, run)  # None if the run was finished before
        if not parallel.is_main():  # rank 0 does the rest
            return None
        if history is not None:
            task.draw(history, run.folder)
            run.finish(**experiment.describe(task, model, history))
        if run.result["test"] is None and not args.skip_test:
            run.finish(**task.test(model, run.folder))  # the test set, once
        if texts := comparisons.search(task, model, run):  # with a beam, or with samples
            captions.write_generated(run.folder, args.use_attention, data, texts)
        experiment.report(task, run)


class Captioning(experiment.SequenceExperiment):
    """Images to captions: the decoder, its loss, its validation and its test."""

    question, score, score_name, measure = "q3-captioning", "val_bleu4", "BLEU-4", metrics.CAPTIONING
    free_options, setting_names = (*options.SEARCH, "caption"), ("words", "encoder_digest")
    max_threads = 2  # more are not faster at this batch size

    def __init__(self, args, defaults, data, settings=None, encoder=None):
        super().__init__(args, defaults, data)
        self.base_name, self.patience = f"{Path(args.dataset).name}-{args.encoder}", args.patience
        if settings is None:
            self.encoder, self.vocab = encoder, captions.vocabulary(data)
            self.regions = {split: self.as_read(part) for split, part in data.regions.items()}
        else:
            self.encoder = encoders.Encoder(args.encoder, args.encoder_weights, settings["encoder_digest"])
            self.vocab, self.regions = text.WordVocabulary(settings["words"]), {}

    def settings(self):
        return {"words": self.vocab.symbols, "encoder_digest": self.encoder.digest}

    def facts(self):
        sizes = {split: len(part) for split, part in self.data.examples.items()}
        facts = {"encoder": self.encoder.title, "n_examples": sizes, "n_words": len(self.vocab.symbols)}
        return facts | {"use_attention": self.args.use_attention}

    def build(self):
        args, n_channels = self.args, encoders.NETWORKS[self.args.encoder].N_CHANNELS
        sizes = len(self.vocab), n_channels, args.hidden_size, PAD_IDX, args.dropout
        if args.use_attention:
            model = models.CaptionDecoderWithAttention(*sizes, args.attention_activation)
        else:
            model = models.CaptionDecoder(*sizes)
        if self.regions:  # else the statistics come with the weights
            model.set_statistics(self.regions["train"])
        return model

    def batches(self, device, split="train"):
        tensor = captions.to_tensor(self.data[split], self.vocab)
        return utils.Batches(len(tensor), self.args.batch_size, captions.gatherer(self.regions[split], tensor, device))

    def batch_loss(self, model, batch):
        """The cross-entropy of the captions' words, each predicted from the true ones before it."""
        regions, tensor = batch
        words_in, words_out = tensor[..., :-1], tensor[..., 1:]
        is_read = words_out != PAD_IDX  # the end symbol is predicted and not read
        logits = model(regions, words_in.where(is_read, PAD_IDX))  # (n_images, n_captions, max_len - 1, vocab_size)
        smoothing = self.args.label_smoothing
        loss = F.cross_entropy(logits[is_read], words_out[is_read], label_smoothing=smoothing, reduction="sum")
        return loss, is_read.sum()

    def as_read(self, regions):
        """The regions as the decoder reads them: without attention it reads their mean alone."""
        return regions if self.args.use_attention else regions.mean(dim=1, keepdim=True, dtype=torch.float32)

    def evaluate(self, model):
        return {"val_bleu4": self.score_of(self.decode(model, "val"), "val")}

    def decode(self, model, split, **search):
        batches = self.regions[split].split(EVAL_BATCH_SIZE)
        found = [self.search(model, batch, **search).symbols.tolist() for batch in batches]
        return [self.vocab.decode(symbols) for of_batch in found for symbols in of_batch]

    @torch.no_grad()
    def search(self, model, regions, **search):
        """The `decoding.Decoded` words of a batch of images."""
        model.eval()
        regions = regions.to(next(model.parameters()).device, torch.float32)
        max_steps = torch.full((len(regions),), MAX_WORDS, device=regions.device)
        return decoding.search(model.step, *model.start(regions), max_steps=max_steps, **search, **SYMBOLS)

    def refs(self, split):
        return self.data.refs(split)

    def search_differences(self, hyps, others):
        others = {name: [texts] for name, texts in others.items()} | self.others([self])
        refs = self.refs("test")
        return {"differences": {name: metrics.mean_bleu(refs, [hyps], lists) for name, lists in others.items()}}

    def draw(self, history, folder):
        for name, label in {"train_loss": "Training loss (nats a word)", "val_bleu4": "Validation BLEU-4"}.items():
            utils.plot_scores(folder / f"{name}.pdf", history, {name: ""}, label, utils.data_title(self.data))

    def test(self, model, folder):
        """Scores of greedy decoding of the test set, and of captions without training; captions and drawings."""
        hyps, refs, examples = self.decode(model, "test"), self.refs("test"), []
        names = [example.filename for example in self.data["test"]]
        asked = [name for name in ASKED if name in names] or text.at_equal_distances(names, len(ASKED))
        for name in asked:
            i = names.index(name)
            self.draw_caption(model, name, self.data.open_image(name), folder, utils.data_title(self.data))
            examples.append({"image": name, "row": i, "src": name, "hyp": hyps[i], "ref": refs[i][0], "refs": refs[i]})
        captions.write_generated(folder, self.args.use_attention, self.data, {"greedy": hyps})
        return {
            "test": experiment.searched(greedy=self.test_scores(hyps) | self.search_differences(hyps, {})),
            "baselines": {name: metrics.mean_bleu(refs, lists) for name, lists in self.baselines().items()},
            "leave_one_out": metrics.leave_one_out_bleu(refs),
            "words_found": metrics.words_found(hyps, refs),
            "examples": examples,
        }

    def draw_caption(self, model, name, image, folder, title, **search):
        """Draw an image beside its caption and, with attention, the weights of each word; returns the caption."""
        regions = self.as_read(self.encoder.regions([image]).half())  # as in the cache
        found = self.search(model, regions, return_weights=True, **search)
        hyp = self.vocab.decode(found.symbols[0].tolist())
        utils.plot_captioned(folder, name, image, hyp.split(), found.weights, title)
        return hyp

    def baselines(self):
        """Captions of the test images without training: a dict from name to lists of captions."""
        return baselines.captions(self.refs("train"), self.data.regions["test"], self.data.regions["train"])

    def others(self, tasks):
        """What runs are compared with: the baselines and, of runs with attention, the same runs without."""
        others = self.baselines()
        plain = [comparisons.counterpart(task, use_attention=False) for task in tasks if self.args.use_attention]
        if plain and all(plain):
            others[PLAIN] = [captions.read_generated(run.folder, False) for run in plain]
        return others

    def pooled(self, children):
        ours = [captions.read_generated(child.folder(), self.args.use_attention) for child in children]
        refs, others = self.refs("test"), self.others(children)
        return {f"mean BLEU-4 minus {name}, paired": metrics.mean_bleu(refs, ours, others[name]) for name in others}


def caption(args):
    """Print the caption of each image and draw it, with the best weights of the latest run of these options."""
    found = experiment.latest(Captioning, args, parse_args([]))
    mode = "bundled" if found.bundled else "real"
    images = list(captions.open_images(args.caption, found.options["dataset"], mode, args.data_dir))
    task, model, folder = experiment.restore(Captioning, args, parse_args([]))
    title = f"{found.result['title']} (bundled)" if found.bundled else found.result["title"]
    for name, image in images:
        hyp = task.draw_caption(model, name, image, folder, title, **options.search_of(args))
        print(f"{name}: {hyp}", flush=True)


if __name__ == "__main__":
    options.run_script(main)
