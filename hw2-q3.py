"""Question 3 of 2022-23: character-level translation from Spanish to English.

$ python hw2-q3.py                                    # 3.1a, a BiLSTM encoder and an LSTM decoder
$ python hw2-q3.py --use_attn                         # 3.1b, with bilinear attention
$ python hw2-q3.py --use_attn --beam_size 5 --resume  # 3.1c, the same weights with beam search
$ python hw2-q3.py --translate "no tengo hambre."     # with the weights of the last run
"""

import options

N_EPOCHS, QUICK_EPOCHS = 50, 20
EVAL_BATCH_SIZE, SAMPLING_BATCH_SIZE = 512, 32  # sentences; fewer where each has many samples
N_BYTES = 20_000  # that decoding takes for a character of the source
MAX_GROWTH, MAX_EXTRA = 2, 10  # longest translation: MAX_GROWTH * source length + MAX_EXTRA characters
TGT_NOISE = 3  # characters; the sentences of one source length are sorted by target length plus such noise
N_HEAT_MAPS, MAX_LETTERS = 4, 30  # sentences of the test set that are drawn, and their letters in either language
WEIGHT_DIGITS = 4  # of attention weights in the result
MIN_SENTENCES = 10  # of one length, for a point in the figure of error by length


def parse_args(argv=None):
    parser = options.Parser(__doc__, "hw2-q3.py", "--use_attn")
    parser.add_option("use_attn", action="store_true", help="bilinear attention")
    help = "the course's files or Tatoeba's (default: auto, the course's if they are there)"
    parser.add_option("dataset", choices=["auto", "course", "tatoeba"], default="auto", help=help)
    usual = {"batch_size": 64, "learning_rate": [0.003], "dropout": 0.3, "optimizer": "adam", "label_smoothing": 0.0}
    options.add_training_options(parser, **usual)
    parser.add_option("hidden_size", type=options.even_int, default=128, help="default: %(default)s")
    help = "training sentences are shorter (default: 20)"
    parser.add_option("max_length", type=options.positive_int, default=20, help=help)
    parser.group(options.TRAINING)
    parser.add_option("models", type=options.python_file, metavar="FILE", help="train your own classes, of this file")
    options.add_search_options(parser)
    options.add_use_option(parser, "translate", "TEXT", "sentences, text files, or - for the standard input")
    parser.add_option("draw", action="store_true", help="with --translate: draw the attention to each sentence")
    return options.parse_training(parser, argv, N_EPOCHS, epochs=QUICK_EPOCHS)


if __name__ == "__main__":
    options.before_imports(parse_args, "sacrebleu")

import torch

import baselines
import comparisons
import decoding
import experiment
import metrics
import student
import utils
from data import text, translation
from data.text import PAD_IDX, SYMBOLS


def main(argv=None):
    args = parse_args(argv)
    if args.translate:
        return translate(args)
    data = translation.load(args.data, args.data_dir, args.max_length, args.scale == "quick", args.dataset)
    args.dataset = data.dataset
    task = comparisons.single(Translation(args, data))
    if task is None:  # several learning rates or seeds, which are compared and tested
        return None
    with experiment.open_run(task) as run:
        model = task.build().to(run.device)
        history = experiment.train(task, model, run)  # None if the run was finished before
        if history is not None:
            task.draw(history, run.folder)
            run.add(**experiment.describe(task, model, history))
        if run.result["test"] is None and not args.skip_test:
            run.add(**task.test(model, run))  # the test set, once
        decoding.test_searches(task, model, run)  # with a beam, or with samples
        experiment.report(task, run)


class Translation(experiment.SequenceTask):
    """Spanish sentences to English ones: the network, its loss, its validation and its test."""

    question = "q3"
    score, score_name, maximize, measure = "val_err_rate", "error rate", False, staticmethod(metrics.error_rate)
    free_options, is_recordable = (*options.SEARCH_OPTIONS, "draw"), True

    def __init__(self, args, data, settings=None):
        super().__init__(args, data)
        self.base_name = args.dataset
        if settings is None:  # the training sentences alone decide
            english, spanish = zip(*data.pairs["train"])
            settings = {"chars": ["".join(spanish), "".join(english)]}
        self.src_vocab, self.tgt_vocab = map(text.Vocabulary, settings["chars"])

    def settings(self):
        return {"chars": [self.src_vocab.chars, self.tgt_vocab.chars]}

    def facts(self):
        sizes = {split: len(pairs) for split, pairs in self.data.pairs.items()}
        return {"use_attn": self.args.use_attn, "n_examples": sizes}

    def build(self):
        args, models = self.args, student.networks(self.args.models)
        encoder = models.Encoder(len(self.src_vocab), args.hidden_size, PAD_IDX, args.dropout)
        attn = models.Attention(args.hidden_size) if args.use_attn else None
        decoder = models.Decoder(args.hidden_size, len(self.tgt_vocab), attn, PAD_IDX, args.dropout)
        return models.Seq2Seq(encoder, decoder)

    def batches(self, device, split="train"):
        src, tgt = translation.to_tensors(self.data.pairs[split], self.src_vocab, self.tgt_vocab)
        lengths = [(part != PAD_IDX).sum(dim=1) for part in (src, tgt)]
        gather = translation.gatherer(src.to(device), tgt.to(device), *lengths)
        batch_size = self.args.batch_size if split == "train" else EVAL_BATCH_SIZE
        return utils.Batches(len(src), batch_size, gather, lengths, noise=TGT_NOISE)

    def batch_loss(self, model, batch):
        """The cross-entropy of the target's characters, each predicted from the true ones before it."""
        src, src_lengths, tgt = batch
        # Read <sos> w_1 .. w_n, predict w_1 .. w_n <eos>.
        tgt_in, tgt_out = tgt[:, :-1], tgt[:, 1:]
        logits, _ = model(src, src_lengths, tgt_in)  # (batch_size, max_tgt_len - 1, tgt_vocab_size)
        smoothing = self.args.label_smoothing if model.training else 0.0
        return utils.sequence_loss(logits, tgt_out, PAD_IDX, smoothing)

    def evaluate(self, model):
        err_rate = self.score_of(self.decode(model, "val"), "val")
        return {"val_loss": self.mean_loss(model, "val"), "val_err_rate": err_rate}

    def refs(self, split):
        return [english for english, _ in self.data.pairs[split]]

    def decode(self, model, split, **search):
        return self.translate(model, [spanish for _, spanish in self.data.pairs[split]], **search)

    def translate(self, model, sentences, **search):
        """Translations of normalised sentences, in their order; an empty one stays empty."""
        batch_size = SAMPLING_BATCH_SIZE if search.get("n_samples") else EVAL_BATCH_SIZE
        hyps, lengths, device = [""] * len(sentences), list(map(len, sentences)), next(model.parameters()).device
        for rows in decoding.batches(lengths, batch_size, device, N_BYTES, search):
            found = self.decode_batch(model, [sentences[i] for i in rows], **search)
            for i, symbols in zip(rows, found.symbols.tolist(), strict=True):
                hyps[i] = self.tgt_vocab.decode(symbols)
        return hyps

    @torch.no_grad()
    def decode_batch(self, model, sentences, **search):
        """The `decoding.Decoded` symbols of a batch of sentences."""
        model.eval()
        device = next(model.parameters()).device
        src = text.pad([self.src_vocab.encode(sentence) for sentence in sentences]).to(device)
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        search |= {"max_steps": (MAX_GROWTH * lengths + MAX_EXTRA).to(device)} | SYMBOLS
        return decoding.search(model.step, *model.start(src, lengths), **search)

    def draw(self, history, folder):
        title, best = utils.data_title(self.data), self.best_epoch(history)
        name = f"attn_{self.args.use_attn}_err_rate.pdf"  # the course's own name
        utils.plot_scores(folder / name, history, {"val_err_rate": ""}, "Validation error rate", title, best)
        utils.plot_losses(
            folder / "train_loss.pdf", history, "Loss (nats a character)", title, best, self.loss_weights()
        )

    def test(self, model, run):
        """Scores of greedy decoding of the test set, and of translators without training; predictions and drawings."""
        refs, sentences = zip(*self.data.pairs["test"])
        hyps = self.decode(model, "test")
        points = metrics.by_length(list(map(len, sentences)), metrics.error_rates(hyps, refs), MIN_SENTENCES)
        nearest = baselines.nearest_sentences(self.data.pairs["train"], sentences)
        return {
            "test": {"greedy": self.test_scores(hyps)} | experiment.NOT_MADE,
            "examples": experiment.write_predictions(run.folder, sentences, refs, hyps),
            "baselines": {"nearest sentence": self.score_of(nearest, "test")},
            "by_length": [{"length": length} | point for length, point in points.items()],
            "attention": self.draw_maps(model, hyps, run.folder) if self.args.use_attn and not self.args.models else [],
            "other": comparisons.minus_counterpart(self, sentences, hyps, use_attn=not self.args.use_attn),
        }

    def differences(self, hyps_a, hyps_b):
        """The paired difference of the error rates on the test set, and on its shorter and its longer half."""
        refs, sentences = zip(*self.data.pairs["test"])
        gaps = metrics.error_rates(hyps_a, refs) - metrics.error_rates(hyps_b, refs)
        return {"err_rate": metrics.mean(gaps)} | metrics.halves(list(map(len, sentences)), gaps)

    def draw_maps(self, model, hyps, folder):
        """Draw the attention to long sentences that are translated rightly and wrongly, in turn; returns the drawn."""
        refs, sentences = zip(*self.data.pairs["test"])
        chosen = metrics.longest_right_and_wrong(sentences, hyps, refs, MAX_LETTERS)[:N_HEAT_MAPS]
        drawn = []
        for number, i in enumerate(chosen, start=1):
            heading = f"{utils.data_title(self.data)}, reference: {refs[i]}\n"
            alpha = self.draw_attention(folder / f"attention_{number}.pdf", model, sentences[i], heading)
            weights = [[round(weight, WEIGHT_DIGITS) for weight in row] for row in alpha.tolist()]
            drawn.append({"src": sentences[i], "ref": refs[i], "hyp": hyps[i], "weights": weights})
        return drawn

    def draw_attention(self, path, model, sentence, heading):
        """Draw a row for each character of the translation and for </s>, which one that was cut has not.

        Returns the weights (n_rows, src_len).
        """
        found = self.decode_batch(model, [sentence], return_weights=True)
        hyp = self.tgt_vocab.decode(found.symbols[0].tolist())
        labels = [*hyp, "</s>"][: MAX_GROWTH * len(sentence) + MAX_EXTRA]
        alpha = found.weights[0, : len(labels)].cpu()
        utils.plot_attention(path, alpha, sentence, labels, f"{heading}{sentence} → {hyp}")
        return alpha

    def test_scores(self, hyps):
        seen = {english for english, _ in self.data.pairs["train"]}
        return metrics.translation(hyps, self.refs("test"), seen)


def translate(args):
    """Print the translation of each sentence, by the best weights of the run that the options mean; perhaps draw it."""
    task, model, folder = experiment.restore(Translation, args)
    if args.draw and (args.models or not task.args.use_attn):
        raise options.UserError("-draw needs this project's own network with --use_attn; train it, or leave out -draw")
    for number, line in enumerate(text.read_lines(args.translate), start=1):
        sentence, path = text.normalize(line), folder / f"translated_{number}.pdf"
        print(*task.translate(model, [sentence], **decoding.search_to_use(args)), flush=True)
        if args.draw and sentence:
            task.draw_attention(path, model, sentence, f"{utils.data_title(task.data)}\n")
            options.note(f"drawn: {options.typed(path)}")


if __name__ == "__main__":
    options.run_script(main)
