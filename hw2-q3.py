"""Question 3 of 2022-23: character-level translation from Spanish to English, a BiLSTM encoder and an LSTM decoder.

$ python hw2-q3.py                                                            # 3.1a
$ python hw2-q3.py --use_attn                                                 # 3.1b, with bilinear attention
$ python hw2-q3.py --use_attn --beam_size 5 --resume                          # 3.1c, the same weights with beam search
$ python hw2-q3.py --use_attn --translate "no tengo hambre." "¿dónde estás?"  # with the weights of the last such run
"""

import options

N_EPOCHS, QUICK_EPOCHS = 50, 20
EVAL_BATCH_SIZE, SAMPLING_BATCH_SIZE = 512, 32  # sentences; the latter where each has many samples
MAX_GROWTH, MAX_EXTRA = 2, 10  # a translation is cut at so many times its source's length and so many characters more
TGT_NOISE = 3  # characters; the sentences of one source length are sorted by target length plus such noise
N_HEAT_MAPS = 4  # sentences of the test set that are drawn
MIN_SENTENCES = 10  # of one length, for a point in the figure of error by length


def parse_args(argv=None):
    parser = options.Parser("Train and test the character-level translator of Question 3.", prog="hw2-q3.py")
    parser.add_option("use_attn", action="store_true", help="bilinear attention")
    usual = {"batch_size": 64, "learning_rate": [0.003], "dropout": 0.3, "optimizer": "adam", "label_smoothing": 0.0}
    options.add_training_options(parser, **usual)
    parser.add_option("hidden_size", type=options.even_int, default=128, help="default: %(default)s")
    # Beyond the handout, all off by default.
    help = "training sentences are shorter (default: 20)"
    parser.add_option("max_length", type=options.positive_int, default=20, help=help)
    options.add_search_options(parser)
    help = "translate sentences, text files, or - the input; no training"
    parser.add_option("translate", nargs="+", metavar="TEXT", help=help)
    return options.parse_training(parser, argv, N_EPOCHS, QUICK_EPOCHS)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch  # noqa: E402

import baselines  # noqa: E402
import decoding  # noqa: E402
import experiment  # noqa: E402
import metrics  # noqa: E402
import models  # noqa: E402
import runs  # noqa: E402
import utils  # noqa: E402
from data import text, translation  # noqa: E402
from data.text import PAD_IDX, SYMBOLS  # noqa: E402


def main(argv=None):
    args = parse_args(argv)
    if args.translate:
        translate(args)
        return
    data = translation.load(args.data, args.data_dir, args.max_length, quick=args.scale == "quick")
    experiment.run(Translation(args, parse_args(["-scale", args.scale]), data))


class Translation(experiment.SequenceExperiment):
    """Spanish sentences to English ones: the network, its loss, its validation and its test."""

    question, base_name = "q3", "tatoeba"
    score, score_name, judged, maximize = "val_err_rate", "error rate", "err_rate", False
    decoding_options = (*options.SEARCH, "translate")
    max_threads = 4  # more do not pay at this batch size

    def __init__(self, args, defaults, data, vocabs=None):
        super().__init__(args, defaults, data)
        # Of the source and of the target; the training sentences alone decide.
        self.vocabs = vocabs or [text.Vocabulary("".join(side)) for side in zip(*data.pairs["train"])][::-1]
        self.seen = {english for english, _ in data.pairs["train"]} if data else set()

    def build(self):
        args, (src_vocab, tgt_vocab) = self.args, self.vocabs
        encoder = models.Encoder(len(src_vocab), args.hidden_size, PAD_IDX, args.dropout)
        attn = models.Attention(args.hidden_size) if args.use_attn else None
        decoder = models.Decoder(args.hidden_size, len(tgt_vocab), attn, PAD_IDX, args.dropout)
        return models.Seq2Seq(encoder, decoder)

    def batches(self, device, split="train"):
        src, tgt = translation.to_tensors(self.data.pairs[split], *self.vocabs)
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
        return {"val_loss": self.loss(model, "val"), "val_err_rate": self.validated(model)["value"]}

    def judge(self, hyps, split):
        return metrics.mean(self.error_rates(hyps, split))

    def difference(self, hyps_a, hyps_b):
        return metrics.paired_difference(self.error_rates(hyps_a, "test"), self.error_rates(hyps_b, "test"))

    def error_rates(self, hyps, split):
        return metrics.error_rates(hyps, [english for english, _ in self.data.pairs[split]])

    def figures(self, hyps):
        return metrics.translation(hyps, [english for english, _ in self.data.pairs["test"]], self.seen)

    def figure_lines(self, figures):
        return metrics.translation_lines(figures)

    def inputs(self, split):
        return [spanish for _, spanish in self.data.pairs[split]]

    def write(self, model, sentences, **search):
        """Translations of normalised sentences, in their order; an empty one stays empty."""
        batch_size = SAMPLING_BATCH_SIZE if search.get("n_samples") else EVAL_BATCH_SIZE

        def decode(rows):
            found = self.search(model, [sentences[i] for i in rows], **search)
            return [self.vocabs[1].decode(symbols) for symbols in found.symbols.tolist()]

        hyps = decoding.in_batches(list(map(len, sentences)), batch_size, decode)
        return [hyp or "" for hyp in hyps]

    @torch.no_grad()
    def search(self, model, sentences, **search):
        """The `decoding.Decoded` symbols of a batch of sentences."""
        model.eval()
        device = next(model.parameters()).device
        src = text.pad([self.vocabs[0].encode(sentence) for sentence in sentences]).to(device)
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        search |= {"max_steps": (MAX_GROWTH * lengths + MAX_EXTRA).to(device)} | SYMBOLS
        return decoding.search(model.step, *model.start(src, lengths), **search)

    def facts(self):
        sizes = {split: len(pairs) for split, pairs in self.data.pairs.items()}
        return {"use_attn": self.args.use_attn, "n_examples": sizes}

    def extra(self):
        return {"chars": [vocab.chars for vocab in self.vocabs]}

    @classmethod
    def restored(cls, args, path):
        return cls(
            args,
            None,
            None,
            [text.Vocabulary(chars) for chars in runs.part_of_checkpoint(path, "chars", of=(str, str))],
        )

    def draw(self, model, history, folder):
        title = utils.data_title(self.data)
        name = f"attn_{self.args.use_attn}_err_rate.pdf"  # the course's own name
        utils.plot_scores(folder / name, history, {"val_err_rate": ""}, "Validation error rate", title)
        utils.plot_losses(folder / "train_loss.pdf", history, "Loss (nats a character)", title, self.loss_extras())

    def test(self, model, folder):
        """Figures of greedy decoding of the test set, and of translators without training; predictions and drawings."""
        refs, sentences = zip(*self.data.pairs["test"])
        hyps = self.decode(model, "test")
        rates, title = metrics.error_rates(hyps, refs), utils.data_title(self.data)
        points = metrics.by_length(list(map(len, sentences)), rates, MIN_SENTENCES)
        path = folder / "err_by_length.pdf"
        utils.plot_intervals(path, points, "Source length (characters)", "Test error rate", title)
        if self.args.use_attn:  # the longest sentences show most of where the decoder looks
            longest = sorted(dict.fromkeys(sentences), key=len, reverse=True)[:N_HEAT_MAPS]
            for i, sentence in enumerate(longest, start=1):
                found = self.search(model, [sentence], return_weights=True)
                hyp = self.vocabs[1].decode(found.symbols[0].tolist())
                alpha = found.weights[0, : len(hyp) + 1].cpu()
                heading = f"{title}\nreference: {refs[sentences.index(sentence)]}"
                utils.plot_attention(folder / f"attention_{i}.pdf", alpha, sentence, [*hyp, "</s>"], heading)
        trivial = baselines.translate(self.data.pairs["train"], sentences)
        judged = {name: self.judge(texts, "test") for name, texts in trivial.items()}
        return self.tested(sentences, refs, hyps, folder) | {"baselines": judged}


def translate(args):
    """Print the translation of each sentence, with the best weights of the latest run of these options."""
    translator, model = experiment.restore(Translation, args, parse_args([]))
    for line in text.read_lines(args.translate):
        print(*translator.write(model, [text.normalize(line)], **options.search_of(args)), flush=True)


if __name__ == "__main__":
    options.run_script(main)
