"""Question 3 of 2022-23: character-level translation from Spanish to English, a BiLSTM encoder and an LSTM decoder.

$ python hw2-q3.py                                                            # 3.1a
$ python hw2-q3.py --use_attn                                                 # 3.1b, with bilinear attention
$ python hw2-q3.py --use_attn --beam_size 5 --resume                          # 3.1c, the same weights with beam search
$ python hw2-q3.py --use_attn --translate "no tengo hambre." "¿dónde estás?"  # with the weights of the last such run
"""

import argparse
import sys

import options

N_EPOCHS, QUICK_EPOCHS = 50, 20
EVAL_BATCH_SIZE, SAMPLING_BATCH_SIZE = 512, 32  # sentences; the latter where each has many samples
MAX_GROWTH, MAX_EXTRA = 2, 10  # a translation is cut at so many times its source's length and so many characters more
LENGTH_PENALTY = 0.0  # on validation none of 0.25, 0.5 and 1 was better for a beam of 5, over five seeds
TGT_NOISE = 3  # characters; the sentences of one source length are sorted by target length plus such noise
N_HEAT_MAPS, N_EXAMPLES = 4, 8  # sentences of the test set that are drawn and listed
MIN_SENTENCES = 10  # of one length, for a point in the figure of error by length
SEARCH_NAMES = {"greedy": "greedy", "beam": "beam of {beam_size}", "mbr": "minimum risk of {n_samples} samples"}
SEARCH = ("beam_size", "length_penalty", "n_samples", "translate")  # options that do not change the training


def parse_args(argv=None):
    parser = options.Parser("Train and test the character-level translator of Question 3.", prog="hw2-q3.py")
    positive = options.positive_int
    parser.add_option("use_attn", action="store_true", help="bilinear attention")
    options.add_training_options(parser, batch_size=64, learning_rate=[0.003], dropout=0.3, optimizer="adam")
    parser.add_option("hidden_size", type=options.even_int, default=128, help="default: %(default)s")
    # Beyond the handout, all off by default.
    parser.add_option("label_smoothing", type=options.probability, default=0.0, help="default: 0")
    parser.add_option("max_length", type=positive, default=20, help="training sentences are shorter (default: 20)")
    options.add_search_options(parser, LENGTH_PENALTY)
    parser.add_option("n_samples", type=positive, help="also test minimum-risk decoding of so many samples")
    help = "translate sentences, text files, or - the input; no training"
    parser.add_option("translate", nargs="+", metavar="TEXT", help=help)
    options.add_data_options(parser)
    options.add_run_options(parser)
    args = parser.parse_args(argv)
    if args.epochs is None:
        args.epochs = QUICK_EPOCHS if args.scale == "quick" else N_EPOCHS
    return args


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import baselines  # noqa: E402
import decoding  # noqa: E402
import experiment  # noqa: E402
import metrics  # noqa: E402
import models  # noqa: E402
import runs  # noqa: E402
import utils  # noqa: E402
from data import text, translation  # noqa: E402
from data.text import PAD_IDX, SYMBOLS  # noqa: E402
from metrics import format_interval  # noqa: E402


def main(argv=None):
    args = parse_args(argv)
    if args.translate:
        translate(args)
        return
    data = translation.load(args.data, args.data_dir, args.max_length, quick=args.scale == "quick")
    experiment.run(Translation(args, parse_args(["-scale", args.scale]), data))


class Translation(experiment.Experiment):
    """Spanish sentences to English ones: the network, its loss, its validation and its test."""

    question, score, score_name, maximize = "q3", "val_err_rate", "error rate", False
    decoding_options = SEARCH
    max_threads = 4  # more do not pay at this batch size

    def __init__(self, args, defaults, data, vocabs=None):
        super().__init__(args, defaults, data)
        # Of the source and of the target; the training sentences alone decide.
        self.vocabs = vocabs or [text.Vocabulary("".join(side)) for side in zip(*data.pairs["train"])][::-1]
        self.seen = {english for english, _ in data.pairs["train"]} if data else set()

    base_name = "tatoeba"

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
        loss = F.cross_entropy(
            logits.flatten(0, 1),
            tgt_out.flatten(),
            ignore_index=PAD_IDX,
            label_smoothing=self.args.label_smoothing if model.training else 0.0,
            reduction="sum",
        )
        return loss, (tgt_out != PAD_IDX).sum()

    def evaluate(self, model):
        batches = self.batches(next(model.parameters()).device, "val")
        val_loss = utils.mean_loss(model, batches, self.batch_loss)
        return {"val_loss": val_loss, "val_err_rate": self.validated(model)["value"]}

    def validated(self, model, **search):
        refs, sentences = zip(*self.data.pairs["val"])
        return metrics.mean(metrics.error_rates(self.decode(model, sentences, **search), refs))

    def decode(self, model, sentences, **search):
        """Translations of normalised sentences, in their order, by `decoding.search`; an empty one stays empty."""
        hyps = [""] * len(sentences)
        order = sorted((i for i, sentence in enumerate(sentences) if sentence), key=lambda i: len(sentences[i]))
        batch_size = SAMPLING_BATCH_SIZE if search.get("n_samples") else EVAL_BATCH_SIZE
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            for i, symbols in zip(rows, self.search(model, [sentences[i] for i in rows], **search).symbols.tolist()):
                hyps[i] = self.vocabs[1].decode(symbols)
        return hyps

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

    def draw(self, model, history, folder):
        title = utils.data_title(self.data)
        name = f"attn_{self.args.use_attn}_err_rate.pdf"  # the course's own name
        utils.plot_score(folder / name, history, "val_err_rate", "Validation error rate", title)
        utils.plot_losses(folder / "train_loss.pdf", history, "Loss (nats a character)", title)

    def test(self, model, folder):
        """Figures of greedy decoding of the test set, and of translators without training; predictions and drawings."""
        refs, sentences = zip(*self.data.pairs["test"])
        hyps = self.decode(model, sentences)
        rates, title = metrics.error_rates(hyps, refs), utils.data_title(self.data)
        rows = sorted(zip(sentences, refs, hyps, metrics.distances(hyps, refs)), key=lambda row: row[3] / len(row[1]))
        runs.write_table(folder / "test_predictions.txt", ("source", "reference", "prediction", "distance"), rows)
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
        examples = text.at_equal_distances(list(zip(sentences, refs, hyps)), N_EXAMPLES)
        return {
            "test": {"greedy": metrics.translation(hyps, refs, self.seen), "beam": None, "mbr": None},
            "baselines": {name: metrics.mean(metrics.error_rates(hyps, refs)) for name, hyps in trivial.items()},
            "examples": [{"src": src, "ref": ref, "hyp": hyp} for src, ref, hyp in examples],
        }

    def search_again(self, model, result, folder):
        """Beam search and minimum-risk decoding with the weights of this run, if the options ask for them."""
        args, searches = self.args, {}
        if args.beam_size > 1:
            searches["beam"] = [{"beam_size": args.beam_size, "length_penalty": alpha} for alpha in args.length_penalty]
        if args.n_samples is not None:
            searches["mbr"] = [{"n_samples": args.n_samples, "seed": args.seed}]
        if searches:
            runs.load_weights(model, folder / runs.BEST)
            refs, sentences = zip(*self.data.pairs["test"])
            tested = {"greedy": metrics.error_rates(self.decode(model, sentences), refs)}
        for name, candidates in searches.items():
            rate, search = self.best_search(model, candidates)
            hyps = self.decode(model, sentences, **search)
            ours = metrics.error_rates(hyps, refs)
            differences = {f"{other} minus this": metrics.paired_difference(tested[other], ours) for other in tested}
            tested[name] = ours
            figures = {"val_err_rate": rate, "difference": differences["greedy minus this"], "differences": differences}
            result["test"][name] = metrics.translation(hyps, refs, self.seen) | search | figures
            for example, hyp in zip(result["examples"], text.at_equal_distances(hyps, N_EXAMPLES)):
                example[name] = hyp
        return bool(searches)

    def test_figure(self, result):
        return result["test"]["greedy"]["err_rate"]

    def report(self, result):
        bundled = " (bundled data)" if result["bundled"] else ""
        rate = format_interval(result["val_err_rate"])
        print(f"Trainable parameters: {result['n_params']:,}")
        print(f"Best validation error rate: {rate} in epoch {result['best_epoch']}{bundled}")
        for name, figures in (result["test"] or {}).items():
            if figures is not None:
                how, rate = SEARCH_NAMES[name].format(**figures), format_interval(figures["err_rate"])
                print(f"Final Test error rate, {how}: {rate}{bundled}", *metrics.translation_lines(figures), sep="\n")
        for name, figure in result.get("baselines", {}).items():
            print(f"Baseline, {name}: {format_interval(figure)}{bundled}")
        for example in result.get("examples", [])[:1]:
            print(f"For example: {example['src']} -> {example['hyp']} (reference: {example['ref']})")


def translate(args):
    """Print the translation of each sentence, with the best weights of the latest run of these options."""
    found = experiment.latest(Translation.question, args, parse_args([]), SEARCH)
    print(f"weights of {found.folder / runs.BEST}", file=sys.stderr)
    device = utils.configure_torch(args.seed[0], args.device, args.threads, Translation.max_threads)
    vocabs = [text.Vocabulary(chars) for chars in runs.part_of_checkpoint(found.folder / runs.BEST, "chars")]
    translator = Translation(argparse.Namespace(**found.options), None, None, vocabs)
    model = translator.build().to(device)
    runs.load_weights(model, found.folder / runs.BEST)
    search = {"beam_size": args.beam_size, "length_penalty": args.length_penalty[0], "n_samples": args.n_samples}
    for line in text.read_lines(args.translate):
        print(*translator.decode(model, [text.normalize(line)], **search), flush=True)


if __name__ == "__main__":
    options.run_script(main)
