"""2022-23, Question 3: the encoder, the bilinear attention and the decoder of the translator, with their mistakes."""

import inspect
import itertools
from functools import partial

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from checks.probe import LOG_PROBABILITIES, Failure, Question, numbers, same

PAD, HIDDEN, SRC_VOCAB, TGT_VOCAB, DROPOUT = 0, 8, 11, 13, 0.3
SRC = torch.tensor([[7, 8, 9, 10, 4], [6, 5, 8, 7, PAD], [4, 5, 6, PAD, PAD]])  # by length, as some encoders need it
REAL, LENGTHS = SRC != PAD, (SRC != PAD).sum(dim=1)  # (batch_size, max_src_len), (batch_size)
TGT = torch.tensor([[1, 4, 5, 6, 2], [1, 8, 2, PAD, PAD], [1, 5, 10, 2, PAD]])  # <sos> w_1 .. w_n <eos>
N_STEPS, N_SINGLE = TGT.shape[1] - 1, 2  # in training; in evaluation, where the decoder reads one symbol at a time
STATE = tuple(numbers(2, len(SRC), HIDDEN // 2, seed=seed) for seed in (1, 2))  # h and c as the encoder returns them
ENC_OUTPUT = numbers(*SRC.shape, HIDDEN, seed=3)  # not 0 at the padding, so that a missing mask shows
QUERIES = numbers(len(SRC), 2, HIDDEN, seed=4).split(1, dim=1)  # of two target steps
LAYERS = {"embedding": [nn.Embedding], "lstm": [nn.LSTM]}
pack = partial(pack_padded_sequence, batch_first=True, enforce_sorted=False)
unpack = partial(pad_packed_sequence, batch_first=True)
SWAPPED = {"directions swapped": "the backward direction's state comes first; the decoder learns either order"}


def join(state, first=0, second=1):
    """h and c, each (1, batch_size, hidden_size), from the two directions of the encoder; a joined state as it is."""
    return tuple(torch.cat([part[first], part[second]], -1)[None] if len(part) == 2 else part for part in state)


JOIN = """
    given = join(state) | directions swapped: join(state, 1, 0)
                        | state-one-direction with 0, 1: join(state, $, $)
                        | state-one-direction with 0, 1: join(state[:1], $, $) + join(state[1:])
                        | state-one-direction with 0, 1: join(state[:1]) + join(state[1:], $, $)
                        | state-parts with 0, 1: join([state[$], state[0]] if len(state[0]) == 2 else state)
                        | state-view: [part.view(1, -1, HIDDEN) for part in state]
"""


class Encoder(Question):
    """h_1 .. h_n = drop(BiLSTM(drop(E x_1) .. drop(E x_n))), where padding is not read; final_hidden has no dropout."""

    number, n_required, says = "3.1a", 4, "dropout, BiLSTM over real characters, dropout; final state"
    arguments, dropout = (SRC_VOCAB, HIDDEN, PAD, DROPOUT), DROPOUT
    layers, variants, returns = LAYERS, SWAPPED, "enc_output, (h, c)"
    table = f"""
    src, lengths = args
    emb = self.drop(self.embedding.weight[src]) | embedding-dropout: self.embedding.weight[src]
                                                | dropout-twice: self.drop(emb)
    read = lengths                              | encoder-not-packed: torch.full_like(lengths, src.shape[1])
    packed, (h, c) = self.lstm(pack(emb, read))
    outputs = unpack(packed)[0]
    enc_output = self.drop(outputs)             | output-dropout: outputs
                                                | dropout-twice: self.drop(enc_output)
    state = h, c                                | state-dropout with c, self.drop(c): self.drop(h), $
    {JOIN}
    result = enc_output, given
    """

    def drive(self, encode, order=slice(None), back=slice(None)):
        """What `encode` returns for the sentences in this order, sorted by length at first; put `back` in order."""
        enc_output, state = encode(SRC[order], LENGTHS[order])
        enc_output, h, c = (part[back] for part in (enc_output, *(part[0] for part in join(state))))
        if enc_output.shape[:2] == SRC.shape:  # if not, the shape is what is wrong
            enc_output = enc_output * REAL.unsqueeze(2)
        return {"enc_output": enc_output, "h": h, "c": c}

    def search(self, observed):
        size = n_layers, n_directions, width = self.lstm.num_layers, 1 + self.lstm.bidirectional, self.lstm.hidden_size
        if size != (1, 2, HIDDEN // 2):
            text = f"layers: {n_layers}, directions: {n_directions}, hidden_size: {HIDDEN}, of a direction: {width}"
            return self.name_mistake("encoder-size", self.made.get(self.lstm, ""), text)
        super().search(observed)
        try:
            unsorted = self.drive(self.student, order=[2, 0, 1], back=[1, 2, 0])
        except Failure:
            unsorted = dict.fromkeys(("enc_output", "h", "c"))
        if not (self.found or all(same(value, observed["evaluation", part]) for part, value in unsorted.items())):
            self.notes.append("it takes only batches that are sorted by length; see that your script sorts them")


class Attention(Question):
    """z = W_q^T q, s_i = z^T h_i (2), p = softmax(s) (1), c = sum_i p_i h_i (3), a_o = tanh(W_o^T [q; c]) (4)."""

    number, n_required, says = "3.1b", 1, "z, s, p over the real characters, c, a_o"
    arguments = (HIDDEN,)
    layers = {"linear_in": [nn.Linear, HIDDEN, HIDDEN], "linear_out": [nn.Linear, HIDDEN, 2 * HIDDEN]}
    variants = {
        "[c; q]": "you concatenate [c; q]; the order is a matter of the weights",
        "transposed": "you multiply by linear_in.weight untransposed; W_q is learned either way",
        "finite mask": "your padding has finite scores, which is right only if they are far below all others",
        "no bias": "you leave out the bias of linear_out, as the statement does",
    }
    table = """
    q, h, lengths = args
    z = self.linear_in(q)                       | no-projection: q
                                                | transposed: q @ self.linear_in.weight
    s = z @ h.transpose(1, 2)                   | scaled-scores: s / HIDDEN**0.5
    padding = ~REAL.unsqueeze(1)                | mask-inverted: REAL.unsqueeze(1)
    masked = s.masked_fill(padding, -torch.inf) | finite mask: s.masked_fill(padding, -1e9)
                                                | mask: s
                                                | mask-value: s.masked_fill(padding, 0)
    axis = 2                                    | softmax-dimension with 1, 0: $
    p = softmax(masked, dim=axis)               | mask-after-softmax: softmax(s, dim=axis).masked_fill(padding, 0)
                                                | no-softmax: masked
                                                | attention-dropout: self.drop(p)
    c = p @ h                                   | values-projected: p @ self.linear_in(h)
    first = q                                   | projected-query: z
    joined = torch.cat([first, c], dim=2)       | [c; q]: torch.cat([c, first], dim=2)
                                                | concatenation with first, c: torch.cat([$, $], dim=2)
    w = self.linear_out(joined)                 | no bias: joined @ self.linear_out.weight.T
    a_o = tanh(w)                               | no-tanh: w
                                                | tanh-inside: self.linear_out(tanh(joined))
                                                | context-only: c
                                                | attention-dropout: self.drop(a_o)
    result, parts = a_o, {"s": s, "p": p, "c": c}
    """

    def drive(self, attend):
        steps = [attend(query, ENC_OUTPUT, LENGTHS) for query in QUERIES]
        steps = [step[0] if isinstance(step, tuple) else step for step in steps]
        return {"a_o": torch.stack([step.reshape(len(SRC), -1) for step in steps], dim=1)}

    def describe(self, observed):
        for call in self.calls:
            if call.name == "linear" and call.result.shape[-1] == 1:
                self.name_mistake("additive-attention", call.where)
        return super().describe(observed)

    def search(self, observed):
        super().search(observed)
        weights = [call.result for call in self.calls if call.name == "softmax" and call.result.numel() == SRC.numel()]
        if {"mask", "mask-value"} & self.found.keys() and weights:
            weight, n_padding = weights[0].reshape(SRC.shape)[-1, ~REAL[-1]].sum(), (~REAL[-1]).sum()
            last = f"The last {n_padding} of {SRC.shape[1]} characters are padding"
            self.difference = f"{last} and have a weight of {weight:.2f} together; it must be 0."


def stand_in(query, encoder_outputs, src_lengths):
    """An attention for the decoder that is known, so that a mistake in the student's own stays where it is."""
    return torch.tanh(query - encoder_outputs.mean(dim=1, keepdim=True))


class Decoder(Question):
    """q_t = LSTM(drop(E y_t-1)), out_t = drop(q_t); the next step reads the state without dropout."""

    number, n_required, says = "3.1a", 5, "dropout, LSTM, dropout; state without dropout"
    dropout, layers, variants, returns = DROPOUT, LAYERS, SWAPPED, "outputs, (h, c)"
    attentions = (lambda self: None,)  # what the decoder is built with
    table = f"""
    tgt, state = args
    E, training, axis = self.embedding.weight, self.training, int(self.lstm.batch_first)
    read = tgt[:, :-1] if training else tgt | target-shifted: tgt[:, 1:] if training else tgt
    {JOIN}
                                            | state-ignored: join(0 * part for part in state)
    state, steps = given, []
    for t, y in enumerate(read.T):
        word = y                            | own-argmax with out, out @ E.T: ($).argmax(1) if t and training else y
        emb = self.drop(E[word])            | embedding-dropout: E[word]
                                            | dropout-twice: self.drop(emb)
        state = state                       | state-not-passed: given
        q, (h, c) = self.lstm(emb.unsqueeze(axis), state)
        q = q.squeeze(axis)                 | other-query with state[0][-1], c[-1]: $
        a_o = self.attend(q)                | attention-unused: q
        out = self.drop(a_o)                | output-dropout: a_o
                                            | dropout-twice: self.drop(out)
                                            | dropout-before-attention: self.drop(self.attend(self.drop(q)))
                                            | dropout-before-attention: self.attend(self.drop(q))
        state = h, c                        | attention-fed-back: a_o[None], c
                                            | state-dropout with c, self.drop(c): self.drop(state[0]), $
        steps.append((emb, q, out))
    emb, q, out = (torch.stack(part, dim=1) for part in zip(*steps))
    parts = dict(embeddings=emb, q=q)
    result = out, state                     | state-not-returned: out, given
    """

    def prepare(self):
        self.first_that_runs(self.start, *itertools.product(self.attentions, (STATE, join(STATE))))

    def start(self, make, state):
        self.attention, self.state = make(self), state
        self.module = self.build("Decoder", HIDDEN, TGT_VOCAB, self.attention, PAD, DROPOUT)
        self.student(TGT, state)
        self.calls.clear()

    def student(self, tgt, state):
        result = super().student(tgt, state, ENC_OUTPUT, LENGTHS)
        if not result[0].numel():
            raise Failure("forward must return outputs (batch_size, max_tgt_len, hidden_size), and dec_state")
        if not self.training and tgt.shape[1] > 1:  # with one symbol it fails
            cuts = [call.where for call in self.calls if call.name == "getitem" and call.args[0] is tgt]
            self.name_mistake("last-symbol-in-evaluation", cuts[0] if cuts else "")
        return result[0].reshape(len(SRC), -1, HIDDEN), result[1]

    def attend(self, q):
        """The attention's output for q of one step, (batch_size, hidden_size)."""
        a_o = self.attention(q.unsqueeze(1), ENC_OUTPUT, LENGTHS) if self.attention else q
        return (a_o[0] if isinstance(a_o, tuple) else a_o).reshape(q.shape)

    def drive(self, decode):
        if self.training:
            outputs, _ = decode(TGT, self.state)
            if outputs.shape[1] == N_STEPS + 1:
                self.notes = ["in training it returns an output for <eos> too; the script must cut it: outputs[:, :-1]"]
            return {"outputs": outputs[:, :N_STEPS]}
        steps, state = [], self.state
        for symbol in TGT[:, :N_SINGLE].split(1, dim=1):
            output, state = self.first_that_runs(decode, (symbol, state), (symbol.expand(-1, 2), state))
            steps.append(output)
        return {"outputs": torch.cat(steps, dim=1)}


class DecoderWithAttention(Decoder):
    """As the `Decoder`, with out_t = drop(a_o(q_t))."""

    number, name, target = "3.1b", "Decoder with attention", "Decoder"
    says = "dropout, LSTM, attention, dropout; state without dropout"
    attentions = (lambda self: stand_in, lambda self: self.build("Attention", HIDDEN))  # or the student's own


class Seq2Seq(Question):
    """logits = W_g Decoder(tgt, final_hidden, enc_output) + b, where W_g is the decoder's embedding."""

    number, n_required, says = "3.1", 2, "encoder, its final state, decoder, generator"
    uses = ("Encoder", "Attention", "Decoder")
    returns = "logits, (h, c)"
    layers = {"generator": [nn.Linear, TGT_VOCAB, HIDDEN], "embedding": [nn.Embedding, TGT_VOCAB, HIDDEN]}
    variants = LOG_PROBABILITIES | {"untied": "the generator's weight is its own, and not the decoder's embedding"}
    table = """
    src, lengths, tgt, *given = args
    enc_output, final_hidden = self.encoder(src, lengths)
    first = final_hidden           | encoder-state-unused: tuple(0 * part for part in final_hidden)
                                   | state-half with 0, 1: tuple(x * (n == $) for n, x in enumerate(final_hidden))
                                   | state-parts with 0, 1: (final_hidden[$], final_hidden[0])
    start = (*given, first)[0]     | state-ignored: first
    outputs, state = self.decoder(tgt, start, enc_output, lengths)
    parts = {"enc_output": enc_output, "outputs": outputs}
    weight = self.embedding.weight | untied: self.generator.weight
    logits = linear(outputs, weight, self.generator.bias)
    scores = logits                | logits-softmax: softmax(logits, dim=2)
                                   | log_softmax: log_softmax(logits, dim=2)
    result = scores, state         | state-not-returned: scores, start
    """

    def prepare(self):
        self.encoder = self.build("Encoder", SRC_VOCAB, HIDDEN, PAD, DROPOUT)
        attention = self.build("Attention", HIDDEN) if self.code["Attention"] else None
        self.decoder = self.build("Decoder", HIDDEN, TGT_VOCAB, attention, PAD, DROPOUT)
        self.module = self.build("Seq2Seq", self.encoder, self.decoder)
        fourth = [*inspect.signature(self.module.forward).parameters.values()][3:4]
        takes_state = any(p.kind is not p.VAR_KEYWORD and p.default in (None, p.empty) for p in fourth)
        self.modes = self.modes if takes_state else ("training",)

    def check_dropout(self):
        """The encoder and the decoder answer for theirs."""

    def drive(self, translate):
        if self.training:
            return {"logits": translate(SRC, LENGTHS, TGT)[0]}
        logits, state = translate(SRC, LENGTHS, TGT[:, :1])  # only where the student's takes dec_hidden
        return {"logits": logits, "h": join(state)[0], "next": translate(SRC, LENGTHS, TGT[:, 1:2], state)[0]}
