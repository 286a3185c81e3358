"""Question 3 of 2023-24: speech recognition with one of two text decoders.

$ python hw2-q3-asr.py --decoder recurrent               # 3.1
$ python hw2-q3-asr.py --decoder transformer             # 3.2
$ python hw2-q3-asr.py --decoder transformer --init RUN  # start from the weights of another run
$ python hw2-q3-asr.py --transcribe a.wav b.wav          # with the weights of the last run
"""

import os

import options

N_EPOCHS, QUICK_EPOCHS = 15, 4
QUICK = {"batch_size": 8, "guided_attention": 1.0, "ctc_weight": 0.3}  # chosen on validation
EVAL_BATCH_SIZE, N_BYTES = 64, 12_000  # clips of a batch; bytes that decoding takes for a frame
LARGE_BATCH, N_THREADS = 32, 4  # batches of so many clips are faster on up to so many threads
FRAME_NOISE = 40  # frames; the clips are sorted by length plus such noise, so that the batches change
LETTERS_A_SECOND, MORE_LETTERS = 30, 10  # longest text: LETTERS_A_SECOND * seconds + MORE_LETTERS letters
LETTERS_DRAWN = 30  # the attention is drawn for test clips with texts of at most so many letters
OTHER_DECODER = {"recurrent": "transformer", "transformer": "recurrent"}


def parse_args(argv=None):
    parser = options.Parser(__doc__, "hw2-q3-asr.py", "--decoder transformer")
    parser.add_option("decoder", choices=OTHER_DECODER, default="recurrent", help="default: %(default)s")
    usual = {"batch_size": 64, "learning_rate": [0.001], "dropout": 0.0, "optimizer": "adamw", "l2_decay": 0.01}
    usual |= {"schedule": "linear", "warmup": 0.15, "label_smoothing": 0.1}
    options.add_training_options(parser, **usual)
    parser.add_option("hidden_size", type=options.even_int, default=200, help="default: %(default)s")
    parser.add_option("n_heads", type=options.positive_int, default=2, help="default: %(default)s")
    parser.add_option("n_layers", type=options.positive_int, default=4, help="blocks of the encoder (default: 4)")
    parser.add_option("skeleton_blocks", action="store_true", help="blocks as in the course's skeleton")
    help = "symbols of a training text, start and stop included; longer ones are cut (default: %(default)s)"
    parser.add_option("max_text_length", type=options.whole(3, options.MAX_COUNT), default=200, help=help)
    help = "numbers of the clips for training, validation and test (default: the course's proportions)"
    parser.add_option("split", type=options.whole(0, options.MAX_COUNT), nargs=3, metavar="N", help=help)
    parser.group(options.BEYOND)
    parser.add_option("spec_augment", action="store_true", help="mask bands and stretches of the spectrograms")
    parser.add_option("ctc_weight", type=options.probability, default=0.0, help="share of an auxiliary CTC loss")
    help = "weight of a loss that keeps the attention near the diagonal of text and sound"
    parser.add_option("guided_attention", type=options.non_negative_float, default=0.0, help=help)
    options.add_search_options(parser)
    options.add_use_option(parser, "transcribe", "WAV", "sound files, or folders of them", type=options.path)
    args = options.parse_training(parser, argv, N_EPOCHS, epochs=QUICK_EPOCHS, **QUICK)
    if args.hidden_size % args.n_heads:
        parser.error("argument --hidden_size: must be a multiple of --n_heads")
    return args


if __name__ == "__main__":
    options.before_imports(parse_args, "jiwer", "soundfile")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")  # oneDNN keeps memory for each product of a shape

import torch

import comparisons
import decoding
import experiment
import losses
import metrics
import models
import onednn
import utils
from data import sources, speech
from data.speech import PADDING_IDX, SEARCH_SYMBOLS


def main(argv=None):
    args = parse_args(argv)
    if args.transcribe:
        return transcribe(args)
    onednn.use_where_precise()  # 1.4 to 1.6 times as fast on an AMD EPYC
    data = speech.load(args.data, args.data_dir, args.split, args.scale == "quick")
    task = comparisons.single(Recognition(args, data))
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


class Recognition(experiment.SequenceTask):
    """Sound to letters: the network, its loss, its validation and its test."""

    question, base_name, quick = "q3-asr", "ljspeech", ("epochs", *QUICK)
    score, score_name, maximize = "val_cer", "CER", False
    measure, scores = staticmethod(metrics.cer), staticmethod(metrics.transcription)
    loss_options = ("label_smoothing", "ctc_weight", "guided_attention")
    answers = ("Test loss {test[greedy][loss]:.4f}, " + metrics.SIMILARITY_LINE + "{bundled}",)
    max_threads = property(lambda self: N_THREADS if self.args.batch_size >= LARGE_BATCH else 1)
    is_recordable = property(lambda self: not self.args.ctc_weight)  # the CTC loss is computed on the CPU

    def facts(self):
        return {"decoder": self.args.decoder, "n_examples": {split: len(ids) for split, ids in self.data.ids.items()}}

    def build(self):
        args, vocab_size = self.args, len(speech.SYMBOLS)
        blocks = {"n_heads": args.n_heads, "dropout": args.dropout, "skeleton": args.skeleton_blocks}
        encoder = models.AudioEncoderTransformer(speech.N_MELS, args.hidden_size, n_layers=args.n_layers, **blocks)
        if args.decoder == "recurrent":
            decoder = models.TextDecoderRecurrent(vocab_size, args.hidden_size, **blocks)
        else:
            blocks["max_text_length"] = args.max_text_length
            decoder = models.TextDecoderTransformer(vocab_size, args.hidden_size, **blocks)
        return models.SpeechToText(encoder, decoder, ctc=args.ctc_weight > 0)

    def batches(self, device, split="train"):
        augmented = self.args.spec_augment and split == "train"
        gather = speech.gatherer(self.data, split, self.args.max_text_length, device, augmented)
        n_frames = self.data.n_frames[self.data.rows[split]]
        batch_size = self.args.batch_size if split == "train" else EVAL_BATCH_SIZE
        return utils.Batches(len(n_frames), batch_size, gather, [n_frames], noise=FRAME_NOISE)

    def batch_loss(self, model, batch):
        """The cross-entropy of the letters, each predicted from the true ones before it, and what the options add."""
        args, (mels, n_frames, tgt) = self.args, batch
        tgt_in, tgt_out = tgt[:, :-1], tgt[:, 1:]  # read < w_1 .. w_n, predict w_1 .. w_n >
        enc_output, n_positions = model.encoder(mels, n_frames)
        if model.training and args.guided_attention:
            logits, alpha = model.decoder(tgt_in, enc_output, n_positions, need_weights=True)
            guided_loss = losses.guided_attention_loss(alpha, (tgt_out != PADDING_IDX).sum(dim=1), n_positions)
        else:
            logits, guided_loss = model.decoder(tgt_in, enc_output, n_positions), 0.0
        smoothing = args.label_smoothing if model.training else 0.0
        loss, n_letters = utils.sequence_loss(logits, tgt_out, PADDING_IDX, smoothing)
        loss = loss + args.guided_attention * guided_loss
        if model.training and model.ctc is not None:
            ctc_loss = losses.ctc_loss(model.ctc(enc_output), n_positions, tgt_out, PADDING_IDX)
            loss = (1 - args.ctc_weight) * loss + args.ctc_weight * ctc_loss
        return loss, n_letters

    def evaluate(self, model):
        if not self.data.ids["val"]:
            return {}
        scores = metrics.transcription(self.decode(model, "val"), self.data.texts["val"])
        plain = {"plain_train_loss": self.mean_loss(model, speech.PART), "val_loss": self.mean_loss(model, "val")}
        return plain | {f"val_{name}": scores[name] for name in (*metrics.SIMILARITIES, "wer", "cer")}

    def refs(self, split):
        return self.data.texts[split]

    def decode(self, model, split, **search):
        return [hyp for hyp, _ in self.transcribe(model, self.data.rows[split].tolist(), **search)]

    def transcribe(self, model, rows, **search):
        """`decode_mels` for the clips of these rows; the spectrograms of one batch at a time are in memory."""
        found, rows = {}, torch.tensor(rows, dtype=torch.int64)
        n_frames, device = self.data.n_frames[rows].tolist(), next(model.parameters()).device
        for places in decoding.batches(n_frames, EVAL_BATCH_SIZE, device, N_BYTES, search):
            batch = self.data.batch(rows[places], device)
            found.update(zip(places, self.decode_mels(model, batch, **search), strict=True))
        return [found[i] for i in range(len(rows))]

    @torch.no_grad()
    def decode_mels(self, model, batch, **search):
        """The text of each clip of `pad_mels`, and its attention weights (n_symbols, n_heads, n_positions) or None."""
        model.eval()
        mels, n_frames = (part.to(next(model.parameters()).device) for part in batch)
        max_steps = (n_frames * LETTERS_A_SECOND / speech.FRAMES_A_SECOND).long() + MORE_LETTERS
        max_steps = max_steps.clamp(max=self.args.max_text_length - 1)
        search |= {"max_steps": max_steps} | SEARCH_SYMBOLS
        found = decoding.search(model.step, *model.start(mels, n_frames), **search)
        texts = [speech.decode(symbols) for symbols in found.symbols.tolist()]
        if found.weights is None:
            return [(hyp, None) for hyp in texts]
        of_each = zip(texts, found.weights, max_steps, (n_frames + 1) // 2)  # a text that was cut has no stop symbol
        return [(hyp, alpha[: min(len(hyp) + 1, n), :, :n_positions].cpu()) for hyp, alpha, n, n_positions in of_each]

    def draw(self, history, folder):
        title, best = utils.data_title(self.data), self.best_epoch(history)
        if self.data.ids["val"]:
            utils.plot_losses(folder / "losses.pdf", history, "Loss (nats a symbol)", title, best, self.loss_weights())
            similarities = {f"val_{name}": name.replace("_", "-").title() for name in metrics.SIMILARITIES}
            utils.plot_scores(folder / "similarities.pdf", history, similarities, "Validation similarity", title, best)
        row, heading = int(self.data.rows["train"][0]), f"{title}\n{self.data.texts['train'][0]}"
        utils.plot_log_mel(folder / "log_mel.pdf", self.data.mels(row), self.data.seconds(row), heading)

    def test(self, model, run):
        """Scores of greedy decoding of the test set, of the texts of other clips, and of the attention."""
        data, ids, refs, hyps = self.data, self.data.ids["test"], self.refs("test"), self.decode(model, "test")
        unrelated = self.test_scores(refs[1:] + refs[:1])  # the answer to each clip is another clip's text
        written, alphas = zip(*self.transcribe(model, data.rows[speech.PART].tolist(), return_weights=True))
        return {
            "test": {"greedy": self.test_scores(hyps) | {"loss": self.mean_loss(model, "test")}} | experiment.NOT_MADE,
            "examples": experiment.write_predictions(run.folder, ids, refs, hyps),
            "baselines": {"the text of another clip": unrelated["cer"]},
            "unrelated": unrelated,
            "differing": metrics.differing(hyps, refs),
            "train_clips": metrics.attention_report(written, self.refs(speech.PART), alphas, speech.SECONDS_A_POSITION),
            "attention": self.draw_attention(model, hyps, run.folder),
            "other": comparisons.minus_counterpart(self, ids, hyps, decoder=OTHER_DECODER[self.args.decoder]),
        }

    def differences(self, hyps_a, hyps_b):
        return metrics.transcription_differences(hyps_a, hyps_b, self.refs("test"))

    def draw_attention(self, model, hyps, folder):
        """Draw the attention to the test clips with the fewest and the most errors; returns what the result says."""
        refs, rows, examples = self.refs("test"), self.data.rows["test"].tolist(), {}
        errors = metrics.distances(hyps, refs)
        order = sorted(range(len(refs)), key=lambda i: (errors[i], -len(refs[i])))
        order = [i for i in order if max(len(hyps[i]), len(refs[i])) < LETTERS_DRAWN] or order
        for name, i in {"right": order[0], "failed": order[-1]}.items():
            ((hyp, alpha),) = self.transcribe(model, [rows[i]], return_weights=True)
            heading = f"{utils.data_title(self.data)}\nreference: {refs[i]}"
            labels = self.data.seconds(rows[i]), "Letter", "Weight", [*hyp, speech.STOP][: len(alpha)], heading
            utils.plot_over_time(folder / f"attention_{name}.pdf", alpha.mean(dim=1), *labels)
            seen = metrics.attention_report([hyp], [refs[i]], [alpha], speech.SECONDS_A_POSITION)
            examples[name] = {"ref": refs[i], "hyp": hyp} | {key: seen[key] for key in ("seconds", "spearman", "moved")}
        return examples


def transcribe(args):
    """Print the text of each sound file, by the best weights of the run that the options mean."""
    task, model, _ = experiment.restore(Recognition, args)
    search, are_several = decoding.search_to_use(args), len(args.transcribe) > 1 or args.transcribe[0].is_dir()
    for name, samples in sources.open_files(args.transcribe, speech.SOUND_SUFFIXES, speech.read_sound):
        ((hyp, _),) = task.decode_mels(model, speech.pad_mels([speech.log_mel(samples)]), **search)
        print(f"{name}: {hyp}" if are_several else hyp, flush=True)


if __name__ == "__main__":
    options.run_script(main)
