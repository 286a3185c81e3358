"""Question 3 of 2022-23: character-level translation from Spanish to English, a BiLSTM encoder and an LSTM decoder.

$ python hw2-q3.py                                                            # 3.1a
$ python hw2-q3.py --use_attn                                                 # 3.1b, with bilinear attention
$ python hw2-q3.py --use_attn --beam_size 5 --resume                          # 3.1c, the same weights with beam search
$ python hw2-q3.py --use_attn --translate "no tengo hambre." "¿dónde estás?"  # with the weights of the last such run
$ python hw2-q3.py --use_attn --translate sentences.txt                       # a line at a time; - reads the keyboard
"""

import os
import sys

import options

# torch takes seconds to import: every function imports what it needs of it, so that --help and a wrong option answer at once.

N_EPOCHS, QUICK_EPOCHS = 50, 20
MAX_THREADS = 4  # more do not pay at this batch size
DECODE_BATCH_SIZE = 512
MAX_GROWTH, MAX_EXTRA = 2, 10  # a translation is cut at so many times its source's length and so many characters more
LENGTH_PENALTY = 0.25  # the best on validation, of a beam of 5
N_HEAT_MAPS = 4
N_EXAMPLES = 8  # of the test set, at equal distances
TEXT_SUFFIX = ".txt"  # what ends so is meant as a file
MIN_SENTENCES = 10  # of one length, for a point in the figure of error by length
# Options that do not change the training, so that a finished run can be decoded in another way.
DECODING = ("beam_size", "length_penalty", "translate")


def parse_args(argv=None):
    parser = options.Parser("Train and test the character-level translator of Question 3.", prog="hw2-q3.py")
    parser.add_option("use_attn", action="store_true", help="bilinear attention")
    parser.add_option("n_epochs", type=options.positive_int, help=f"passes over the training set (default: {N_EPOCHS})")
    parser.add_option("batch_size", type=options.positive_int, default=64, help="default: %(default)s")
    parser.add_option("lr", "learning_rate", type=options.positive_float, default=0.003, help="default: %(default)s")
    parser.add_option("dropout", type=options.probability, default=0.3, help="default: %(default)s")
    parser.add_option("hidden_size", type=options.even_int, default=128, help="default: %(default)s")
    parser.add_option(
        "max_length",
        type=options.positive_int,
        default=20,
        help="training sentences are shorter than this; validation and test never change (default: %(default)s characters)",
    )
    parser.add_option(
        "beam_size", type=options.positive_int, default=1, help="also test a beam search (default: greedy)"
    )
    parser.add_option(
        "length_penalty",
        type=options.non_negative_float,
        default=LENGTH_PENALTY,
        help="of the beam: a score is log p / length^this (default: %(default)s)",
    )
    parser.add_option(
        "translate", nargs="+", metavar="TEXT", help="translate sentences, a file, or - the input; no training"
    )
    # Beyond the handout, all off by default.
    parser.add_option("schedule", choices=["constant", "cosine"], default="constant", help="of the learning rate")
    parser.add_option("max_grad_norm", type=options.positive_float, help="clip the gradient's norm")
    parser.add_option("label_smoothing", type=options.probability, default=0.0, help="default: 0")
    parser.add_option("ema_decay", type=options.probability, default=0.0, help="test the moving average of the weights")
    options.add_data_options(parser)
    options.add_run_options(parser)
    args = parser.parse_args(argv)
    if args.n_epochs is None:
        args.n_epochs = QUICK_EPOCHS if args.scale == "quick" else N_EPOCHS
    return args


def main(argv=None):
    args = parse_args(argv)
    if args.translate:
        translate(args)
    else:
        train_and_test(args)


def run_folder(args, bundled):
    """The folder of the run with these options; its name holds those that are not the handout's."""
    import runs

    base = "tatoeba-bundled" if bundled else "tatoeba"
    return runs.run_folder("q3", base, args, parse_args(["-scale", args.scale]), DECODING)


def train_and_test(args):
    """Train with the options' recipe, then test the best weights once, draw the figures and write the result."""
    import torch

    import models
    import runs
    import utils
    from data import translation

    data = translation.load(args.data, args.data_dir, args.max_length, quick=args.scale == "quick")
    vocabs = [translation.Vocabulary("".join(texts)) for texts in zip(*data.pairs["train"])][::-1]
    device = utils.configure_torch(args.seed, args.device, args.threads, MAX_THREADS)
    folder = run_folder(args, data.bundled)
    with runs.open_run(folder, runs.make_config("q3", args, data, DECODING), args.resume) as run:
        model = build(args, vocabs).to(device)
        n_params = models.get_number_trainable_params(model)
        result = run.result
        if result is None:
            sizes = ", ".join(f"{len(pairs):,} {split}" for split, pairs in data.pairs.items())
            print(f"{utils.data_title(data)}: {sizes} pairs; {n_params:,} trainable parameters", flush=True)
            history = train(args, data, model, vocabs, run)
            best = utils.best_epoch(history, "val_err_rate", maximize=False)
            result = {
                "title": data.title,
                "bundled": data.bundled,
                "use_attn": args.use_attn,
                "n_params": n_params,
                "n_pairs": {split: len(pairs) for split, pairs in data.pairs.items()},
                "best_epoch": best["epoch"],
                "train_loss": best["train_loss"],
                "val_err_rate": best["val_err_rate"],
                "history": history,
                "seconds": sum(line["seconds"] for line in history),
                "threads": torch.get_num_threads(),
                "test": None,
            }
            draw_training(folder, args, data, history)
            run.finish(result)  # a test that is cut short need not train again
        if result["test"] is None:
            runs.load_weights(model, folder / runs.BEST)
            result |= test(args, data, model, vocabs, folder) | {"peak_memory_mb": utils.peak_memory_mb()}
            run.finish(result)
        if args.beam_size > 1:
            runs.load_weights(model, folder / runs.BEST)
            result["test"]["beam"] = test_beam(args, data, model, vocabs)
            run.finish(result)
    report(result, folder)


def build(args, vocabs):
    """The model of these options; `vocabs`: of the source and of the target."""
    import models
    from data.translation import PAD_IDX

    src_vocab, tgt_vocab = vocabs
    encoder = models.Encoder(len(src_vocab), args.hidden_size, PAD_IDX, args.dropout)
    attn = models.Attention(args.hidden_size) if args.use_attn else None
    decoder = models.Decoder(args.hidden_size, len(tgt_vocab), attn, PAD_IDX, args.dropout)
    return models.Seq2Seq(encoder, decoder)


def train(args, data, model, vocabs, run):
    """Fit the model; returns the history."""
    from functools import partial

    import torch

    import metrics
    import utils
    from data import translation

    device = next(model.parameters()).device
    src, tgt = (part.to(device) for part in translation.to_tensors(data.pairs["train"], *vocabs))
    batches = utils.LengthBatches(src, tgt, args.batch_size, translation.PAD_IDX)

    refs, sentences = zip(*data.pairs["val"])

    def validate(model):
        hyps = decode(model, sentences, vocabs)
        rates = metrics.error_rates(hyps, refs)
        return {"val_err_rate": sum(rates) / len(rates)}

    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, fused=device.type != "mps")
    scheduler = None
    if args.schedule == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.n_epochs * len(batches))
    averaged = utils.average_weights(model, args.ema_decay) if args.ema_decay else None
    return utils.fit(
        model, optimizer, batches, partial(teacher_forced_loss, label_smoothing=args.label_smoothing), validate, run, args.n_epochs,
        seed=args.seed, score="val_err_rate", maximize=False, scheduler=scheduler, averaged=averaged,
        max_grad_norm=args.max_grad_norm, extra={"chars": [vocab.chars for vocab in vocabs]},
    )  # fmt: skip


def teacher_forced_loss(model, batch, label_smoothing=0.0):
    """The mean cross-entropy of the target's characters, each predicted from the true ones before it; and their number."""
    import torch.nn.functional as F

    from data.translation import PAD_IDX

    src, src_lengths, tgt = batch
    # Read <sos> w_1 .. w_n, predict w_1 .. w_n <eos>.
    tgt_in, tgt_out = tgt[:, :-1], tgt[:, 1:]
    logits, _ = model(src, src_lengths, tgt_in)  # (batch_size, max_tgt_len - 1, tgt_vocab_size)
    loss = F.cross_entropy(
        logits.flatten(0, 1), tgt_out.flatten(), ignore_index=PAD_IDX, label_smoothing=label_smoothing
    )
    return loss, (tgt_out != PAD_IDX).sum()


def decode(model, sentences, vocabs, beam_size=1, length_penalty=LENGTH_PENALTY):
    """Translations of normalised sentences, in their order; neighbours in length are decoded together."""
    import torch

    import decoding
    from data.translation import EOS_IDX, PAD_IDX, SOS_IDX, pad

    src_vocab, tgt_vocab = vocabs
    device = next(model.parameters()).device
    model.eval()
    hyps = [""] * len(sentences)  # an empty sentence stays empty
    order = sorted((i for i, sentence in enumerate(sentences) if sentence), key=lambda i: len(sentences[i]))
    for start in range(0, len(order), DECODE_BATCH_SIZE):
        batch = order[start : start + DECODE_BATCH_SIZE]
        lengths = torch.tensor([len(sentences[i]) for i in batch])
        src = pad([src_vocab.encode(sentences[i]) for i in batch]).to(device)
        max_steps = MAX_GROWTH * lengths + MAX_EXTRA
        symbols = SOS_IDX, EOS_IDX, PAD_IDX, max_steps
        with torch.no_grad():
            start_from = model.start(src, lengths)
            if beam_size == 1:
                out = decoding.greedy(model.step, *start_from, *symbols)
            else:
                out, _ = decoding.beam(model.step, *start_from, *symbols, beam_size, length_penalty)
        for i, indices in zip(batch, out.tolist(), strict=True):
            hyps[i] = tgt_vocab.decode(indices)
    return hyps


def test(args, data, model, vocabs, folder):
    """Figures of the test set with the best weights, greedily decoded; its predictions and its figures."""
    import baselines
    import metrics
    from data.translation import at_equal_distances

    refs, sentences = zip(*data.pairs["test"])
    train_pairs = data.pairs["train"]
    hyps = decode(model, sentences, vocabs)
    write_predictions(folder / "test_predictions.txt", sentences, refs, hyps)
    draw_test(folder, args, data, model, vocabs, sentences, refs, hyps)
    trivial = {
        "nearest sentence": baselines.NearestSentence(train_pairs),
        "character n-gram copy": baselines.CharNgramCopy(train_pairs),
    }
    val_refs, val_sentences = zip(*data.pairs["val"])
    return {
        "val_err_rate": metrics.mean(metrics.error_rates(decode(model, val_sentences, vocabs), val_refs)),
        "test": {"greedy": metrics.translation(hyps, refs, seen_in_training(data)), "beam": None},
        "baselines": {
            name: metrics.mean(metrics.error_rates(translator.translate(sentences), refs))
            for name, translator in trivial.items()
        },
        "examples": [
            {"src": src, "ref": ref, "hyp": hyp}
            for src, ref, hyp in at_equal_distances(list(zip(sentences, refs, hyps)), N_EXAMPLES)
        ],
    }


def test_beam(args, data, model, vocabs):
    """Figures of the test set with beam search, and the paired difference from greedy search."""
    import metrics

    refs, sentences = zip(*data.pairs["test"])
    greedy = decode(model, sentences, vocabs)
    hyps = decode(model, sentences, vocabs, args.beam_size, args.length_penalty)
    difference = metrics.paired_difference(metrics.error_rates(greedy, refs), metrics.error_rates(hyps, refs))
    return metrics.translation(hyps, refs, seen_in_training(data)) | {
        "beam_size": args.beam_size,
        "length_penalty": args.length_penalty,
        "difference": difference,
    }


def seen_in_training(data):
    return {english for english, _ in data.pairs["train"]}


def write_predictions(path, sentences, refs, hyps):
    """Source, reference, prediction and edit distance of every sentence, the largest error rate last."""
    import Levenshtein

    import metrics
    import runs

    rates = metrics.error_rates(hyps, refs)
    with runs.atomic_path(path) as new_path, open(new_path, "w", encoding="utf-8") as file:
        file.write("source\treference\tprediction\tdistance\n")
        for i in sorted(range(len(refs)), key=rates.__getitem__):
            file.write(f"{sentences[i]}\t{refs[i]}\t{hyps[i]}\t{Levenshtein.distance(hyps[i], refs[i])}\n")


def draw_training(folder, args, data, history):
    """The figures that need no test set: validation error (under the course's own name) and training loss by epoch."""
    import utils

    for name, key, label in (
        (f"attn_{args.use_attn}_err_rate.pdf", "val_err_rate", "Validation error rate"),
        ("train_loss.pdf", "train_loss", "Training loss (nats a character)"),
    ):
        utils.plot_curves(folder / name, {label: [line[key] for line in history]}, label, utils.data_title(data))


def draw_test(folder, args, data, model, vocabs, sentences, refs, hyps):
    """The error rate by source length, and where the decoder looked in a few test sentences."""
    import metrics
    import utils

    rates_by_length = {}
    for sentence, rate in sorted(zip(sentences, metrics.error_rates(hyps, refs)), key=lambda pair: len(pair[0])):
        rates_by_length.setdefault(len(sentence), []).append(rate)
    points = {length: metrics.mean(rates) for length, rates in rates_by_length.items() if len(rates) >= MIN_SENTENCES}
    utils.plot_intervals(
        folder / "err_by_length.pdf", points, "Source length (characters)", "Test error rate", utils.data_title(data)
    )
    if args.use_attn:
        # The longest sentences show most; of equals the first.
        first_of = {sentence: i for i, sentence in reversed(list(enumerate(sentences)))}
        for number, sentence in enumerate(sorted(first_of, key=len, reverse=True)[:N_HEAT_MAPS], start=1):
            i = first_of[sentence]
            alpha = attention_weights(model, sentences[i], hyps[i], vocabs)
            tgt_chars = [*hyps[i], "</s>"]
            utils.plot_attention(
                folder / f"attention_{number}.pdf", alpha, sentences[i], tgt_chars, utils.data_title(data)
            )


def attention_weights(model, sentence, hyp, vocabs):
    """The weights (len(hyp) + 1, len(sentence)) with which the decoder, reading its own answer, looked at the source."""
    import torch

    from data.translation import SOS_IDX, pad

    src_vocab, tgt_vocab = vocabs
    device = next(model.parameters()).device
    src = pad([src_vocab.encode(sentence)]).to(device)
    weights = []

    def keep(module, inputs, output):
        query, enc_output, _ = inputs
        weights.append(module.weights(query, module.prepare(enc_output)[0]))

    hook = model.decoder.attn.register_forward_hook(keep)
    with torch.no_grad():
        model(src, torch.tensor([len(sentence)]), pad([[SOS_IDX, *tgt_vocab.encode(hyp)]]).to(device))
    hook.remove()
    return weights[0][0].cpu()


def translate(args):
    """Print the translation of each sentence, with the best weights of the last matching run."""
    import runs
    import utils
    from data import translation

    folder = find_run(args)
    config = runs.read_json(folder / runs.CONFIG, "options")
    for name in ("use_attn", "hidden_size", "dropout"):
        setattr(args, name, config[name])
    vocabs = [translation.Vocabulary(chars) for chars in runs.part_of_checkpoint(folder / runs.BEST, "chars")]
    device = utils.configure_torch(args.seed, args.device, args.threads, MAX_THREADS)
    model = build(args, vocabs).to(device)
    runs.load_weights(model, folder / runs.BEST)
    print(f"weights of {folder / runs.BEST}", file=sys.stderr)
    for line in lines_to_translate(args.translate):
        print(*decode(model, [translation.normalize(line)], vocabs, args.beam_size, args.length_penalty), flush=True)


def lines_to_translate(texts):
    """The sentences themselves, or the lines of the one file that is named, or with - of the standard input."""
    if len(texts) > 1 or not (texts[0] == "-" or os.path.isfile(texts[0])):
        if len(texts) == 1 and texts[0].endswith(TEXT_SUFFIX):
            raise options.UserError(f"there is no file {texts[0]}; name one that is there, or give a sentence")
        yield from texts
        return
    try:
        file = sys.stdin.buffer if texts[0] == "-" else open(texts[0], "rb")
        with file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8-sig").rstrip("\r\n")
                except UnicodeDecodeError:
                    raise options.UserError(f"{texts[0]}, line {number}: not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise options.UserError(f"{texts[0]} cannot be read ({error.strerror}); name another file") from None


def find_run(args):
    """The folder of the latest run whose options are those that were given; raises `UserError` if there is none."""
    import runs

    defaults = vars(parse_args([]))
    wanted = {k: v for k, v in vars(args).items() if v != defaults[k]}
    wanted = {k: v for k, v in wanted.items() if k not in (*DECODING, *runs.NOT_COMPARED, "threads")}
    wanted["use_attn"] = args.use_attn
    kinds = {"auto": (True, False), "real": (False,), "bundled": (True,)}[args.data]
    folders = [args.runs_dir / "q3" / args.run_name] if args.run_name else (args.runs_dir / "q3").glob("*")
    found = []
    for folder in folders:
        if (folder / runs.BEST).exists() and (folder / runs.CONFIG).exists():
            made_with = runs.read_json(folder / runs.CONFIG, "options")
            is_kind = runs.read_json(folder / runs.CONFIG, "data", "bundled") in kinds
            if is_kind and all(made_with.get(name) == value for name, value in wanted.items()):
                found.append(folder)
    if not found:
        command = "python hw2-q3.py" + " --use_attn" * args.use_attn
        shown = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise options.UserError(f"no trained run with {shown} in {args.runs_dir / 'q3'}; train one: {command}")
    return max(found, key=lambda folder: (folder / runs.BEST).stat().st_mtime)


def report(result, folder):
    """Print the figures of a finished run."""
    from metrics import format_interval

    bundled = " (bundled data)" if result["bundled"] else ""
    print(f"Trainable parameters: {result['n_params']:,}")
    print(
        f"Best validation error rate: {format_interval(result['val_err_rate'])} in epoch {result['best_epoch']}{bundled}"
    )
    for name, figures in result["test"].items():
        if figures is None:
            continue
        how = "greedy" if name == "greedy" else f"beam of {figures['beam_size']}"
        print(f"Final Test error rate, {how}: {format_interval(figures['err_rate'])}{bundled}")
        print(f"  CER {figures['cer']:.4f}, exact {format_interval(figures['exact'])}, chrF {figures['chrf']:.2f}")
        for key, label in (("err_rate_seen", "occurs"), ("err_rate_unseen", "does not occur")):
            if figures[key]:
                n = figures[key]["n"]
                print(f"  target {label} in training ({n}): {format_interval(figures[key])}")
        if "difference" in figures:
            print(f"  greedy minus beam, paired: {format_interval(figures['difference'], sign='+')}")
    for name, figure in result["baselines"].items():
        print(f"Baseline, {name}: {format_interval(figure)}{bundled}")
    print(f"written to {folder}")


if __name__ == "__main__":
    options.run_script(main, options.RESUMABLE)
