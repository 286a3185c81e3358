"""2022-23, Question 3: the encoder, the bilinear attention and the decoder of the translator, with their mistakes."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from checks.probe import LOG_PROBABILITIES, Failure, Question, WithDropout, numbers, same

PAD, HIDDEN, SRC_VOCAB, TGT_VOCAB, DROPOUT = 0, 8, 11, 13, 0.3
SRC = torch.tensor([[7, 8, 9, 10, 4], [6, 5, 8, 7, PAD], [4, 5, 6, PAD, PAD]])  # by length, as some encoders need it
REAL, LENGTHS = SRC != PAD, (SRC != PAD).sum(dim=1)  # (batch_size, max_src_len), (batch_size)
TGT = torch.tensor([[1, 4, 5, 6, 2], [1, 8, 2, PAD, PAD], [1, 5, 10, 2, PAD]])  # <sos> w_1 .. w_n <eos>
N_STEPS, N_SINGLE = TGT.shape[1] - 1, 2  # in training; in evaluation, where the decoder reads one symbol at a time
STATE = tuple(numbers(2, len(SRC), HIDDEN // 2, seed=seed) for seed in (1, 2))  # h and c as the encoder returns them
ENC_OUTPUT = numbers(*SRC.shape, HIDDEN, seed=3)  # not 0 at the padding, so that a missing mask shows
QUERIES = numbers(len(SRC), 2, HIDDEN, seed=4).split(1, dim=1)  # of two target steps


def join(state, m=frozenset()):
    """h and c, each (1, batch_size, hidden_size), from the two directions of the encoder."""
    if len(state[0]) == 1 or "state-view" in m:
        return tuple(part.reshape(1, -1, HIDDEN) for part in state)
    parts = (part.flip(0) if "directions swapped" in m else part for part in state)
    return tuple(torch.cat([part[0], part[1]], dim=-1).unsqueeze(0) for part in parts)


class Recurrent(WithDropout):
    """What the encoder and the decoder have in common.

    embeddings | emb = self.dropout(self.embedding(src))
        embedding-dropout; embedding; the embeddings have no dropout
    outputs | outputs = self.dropout(outputs), in the decoder after the attention if there is one
        output-dropout; _pad_packed_sequence lstm tanh; the final outputs have no dropout
        dropout-twice/embedding,output; dropout; there is a second dropout, which the statement does not have
    state | output, dec_state = self.lstm(emb, dec_state), then dropout on another name than dec_state
        state-dropout/h,both; dropout; dropout is applied to the state that the next step, or the decoder, starts from
    state | torch.cat([h[0], h[1]], dim=-1).unsqueeze(0), and c likewise
        state-view; view reshape; the two directions are joined by view or reshape, which mixes the sentences
    """

    layers = {"embedding": [nn.Embedding], "lstm": [nn.LSTM]}
    dropout = DROPOUT
    variants = {"directions swapped": "the backward direction's state comes first; the decoder learns either order"}


class Encoder(Recurrent):
    """h_1 .. h_n = drop(BiLSTM(drop(E x_1) .. drop(E x_n))), where padding is not read; final_hidden has no dropout.

    BiLSTM | pack_padded_sequence(emb, lengths.cpu(), batch_first=True, enforce_sorted=False)
        encoder-not-packed; lstm; the LSTM also reads the padding, where its backward direction starts
    BiLSTM | nn.LSTM(hidden_size, hidden_size // 2, bidirectional=True, batch_first=True)
        encoder-one-direction; lstm; the LSTM has one direction{found}, and must have two
    """

    number, name, target, n_required, equation = "3.1a", "Encoder", "Encoder", 4, "the Encoder's forward()"
    arguments = (SRC_VOCAB, HIDDEN, PAD, DROPOUT)

    def drive(self, encode, order=(0, 1, 2)):
        """What `encode` returns for the sentences in this order, sorted by length at first; put back in order."""
        order = torch.tensor(order)
        enc_output, state = encode(SRC[order], LENGTHS[order])
        enc_output, h, c = (part[order.argsort()] for part in (enc_output, *(part[0] for part in join(state))))
        return {"enc_output": enc_output * REAL.unsqueeze(2), "h": h, "c": c}

    def search(self, observed):
        if not self.lstm.bidirectional:
            self.name_mistake("encoder-one-direction", found="")
        super().search(observed)
        try:
            unsorted = self.drive(self.student, order=(2, 0, 1))
        except Failure:
            unsorted = {}
        if not (self.found or all(same(unsorted.get(part), value) for part, value in observed[self.mode].items())):
            self.notes.append("it takes only batches that are sorted by length; see that your script sorts them")

    def forward(self, m, src, lengths):
        emb = self.drop(self.embedding.weight[src], "embedding", m)
        lengths = torch.full_like(lengths, src.shape[1]) if "encoder-not-packed" in m else lengths
        packed, (h, c) = self.lstm(pack_padded_sequence(emb, lengths, batch_first=True, enforce_sorted=False))
        enc_output = self.drop(pad_packed_sequence(packed, batch_first=True)[0], "output", m)
        h = self.drop(h) if "state-dropout" in m else h
        c = self.drop(c) if "state-dropout/both" in m else c
        self.parts = {"embeddings": emb}
        return enc_output, join((h, c), m)


class Attention(Question):
    """p = softmax(s) (1), s_i = z^T h_i, z = W_q^T q (2), c = sum_i p_i h_i (3), a_o = tanh(W_o^T [q; c]) (4).

    (1) p = softmax(s) | scores = scores.masked_fill(src_seq_mask.unsqueeze(1), float("-inf")), and then the softmax
        mask; masked_fill where softmax; what masked_fill returns is thrown away, or the padding is not masked
        mask-value; masked_fill where; the scores of the padding become 0 or nearly 0, which still has a weight
        mask-after-softmax; masked_fill mul; the mask comes after the softmax, so the weights do not sum to 1
    (1) p = softmax(s) | src_seq_mask = ~self.sequence_mask(src_lengths), which is True at the padding
        mask-inverted; masked_fill where; the mask is inverted: the real characters are masked, the padding is kept
    (1) p = softmax(s) | p = torch.softmax(scores, dim=-1)
        softmax-dimension/query,batch; softmax; the softmax is not over the source characters but over another dimension
        no-softmax; bmm matmul; the scores are used as weights without a softmax
    (2) s = z^T h | z = self.linear_in(query), and scores = torch.bmm(z, encoder_outputs.transpose(1, 2))
        no-projection; bmm matmul; the query is not projected: z is q itself
        scaled-scores; truediv div mul; the scores are divided by the square root of the hidden size
        additive-attention; linear; the scores come from a layer with one output{found}: the attention is not bilinear
    (3) c = sum p_i h_i | c = torch.bmm(p, encoder_outputs)
        values-projected; bmm matmul; the context sums projected encoder outputs in place of h_i
    dropout | leave dropout to the decoder, which applies it to the final output
        attention-dropout/weights,output; dropout; the attention has a dropout of its own
    (4) a_o = tanh(W_o [q; c]) | attn_out = torch.tanh(self.linear_out(torch.cat([query, c], dim=-1)))
        projected-query; cat; the projected query z is concatenated in place of q, the argument of forward
        no-tanh; linear; the tanh is missing
        context-only; bmm matmul; the context c is returned and equation (4) is missing
    """

    number, name, target, n_required, equation = "3.1b", "Attention", "Attention", 1, "equations (1) to (4)"
    arguments, says = (HIDDEN,), "z, s, p over the real characters, c, a_o"
    layers = {"linear_in": [nn.Linear, HIDDEN, HIDDEN], "linear_out": [nn.Linear, HIDDEN, 2 * HIDDEN]}
    variants = {
        "[c; q]": "you concatenate [c; q]; the order is a matter of the weights",
        "transposed": "you multiply by linear_in.weight untransposed; W_q is learned either way",
        "no bias": "you leave out the bias of linear_out, as the statement does",
    }

    def drive(self, attend):
        steps = [attend(query, ENC_OUTPUT, LENGTHS) for query in QUERIES]
        steps = [step[0] if isinstance(step, tuple) else step for step in steps]
        return {"a_o": torch.stack([step.reshape(len(SRC), -1) for step in steps], dim=1)}

    def forward(self, m, q, h, lengths):
        padding = ~REAL.unsqueeze(1)
        z = q @ self.linear_in.weight if "transposed" in m else self.linear_in(q)
        z = q if "no-projection" in m else z
        s = z @ h.transpose(1, 2)
        s = s / HIDDEN**0.5 if "scaled-scores" in m else s
        masked = s.masked_fill(~padding if "mask-inverted" in m else padding, 0 if "mask-value" in m else -torch.inf)
        masked = s if {"mask", "mask-after-softmax"} & m else masked
        p = masked.softmax(1 if "softmax-dimension/query" in m else 0 if "softmax-dimension/batch" in m else 2)
        p = masked if "no-softmax" in m else p
        p = p.masked_fill(padding, 0) if "mask-after-softmax" in m else p
        p = self.drop(p) if "attention-dropout/weights" in m else p
        c = p @ (self.linear_in(h) if "values-projected" in m else h)
        first = z if "projected-query" in m else q
        joined = torch.cat([c, first] if "[c; q]" in m else [first, c], dim=-1)
        a_o = F.linear(joined, self.linear_out.weight, None if "no bias" in m else self.linear_out.bias)
        a_o = a_o if "no-tanh" in m else a_o.tanh()
        a_o = c if "context-only" in m else a_o
        self.parts = {"s": s, "p": p, "c": c}
        return self.drop(a_o) if "attention-dropout/output" in m else a_o

    def compare(self, observed):
        if any(call.name == "linear" and call.result.shape[-1] == 1 for call in self.calls):
            self.name_mistake("additive-attention", found="")
        super().compare(observed)
        weights = [call.result for call in self.calls if call.name == "softmax" and call.result.numel() == SRC.numel()]
        if {"mask", "mask-value"} & self.found.keys() and weights:
            weight, n_padding = weights[0].reshape(SRC.shape)[-1, ~REAL[-1]].sum(), (~REAL[-1]).sum()
            last = f"The last {n_padding} of {SRC.shape[1]} characters are padding"
            self.difference = f"{last} and have a weight of {weight:.2f} together; it must be 0."


class StandInAttention(nn.Module):
    """Gives the decoder a known function of q, so that a mistake in the student's own attention stays where it is."""

    def forward(self, query, encoder_outputs, src_lengths):
        return torch.tanh(query - encoder_outputs.mean(dim=1, keepdim=True))


class Decoder(Recurrent):
    """q_t = LSTM(drop(E y_t-1)), out_t = drop(q_t); the next step reads the state without dropout.

    state | outputs, dec_state = self.lstm(emb, dec_state), and return outputs, dec_state
        state-not-passed; lstm; every step starts from the same state instead of the state of the step before
        state-not-returned; lstm; the state that is returned is not the one after the last symbol
        state-ignored; lstm; the LSTM starts from zeros instead of the state that forward is given
    target | tgt = tgt[:, :-1] if self.training, and step t reads tgt[:, t] (teacher forcing)
        target-shifted; __getitem__ embedding; the decoder reads w_1 .. <eos>, and so the symbol that it has to predict
        own-argmax/logits,outputs; argmax max topk; in training the decoder reads its own best symbol, not the given one
        last-symbol-in-evaluation; __getitem__ cat; in evaluation the only symbol is dropped{found}
    """

    number, name, target, n_required, equation = "3.1a", "Decoder", "Decoder", 5, "the Decoder's forward()"
    attentions = (lambda self: None,)  # what the decoder is built with

    def prepare(self):
        self.first_that_runs(self.start, *itertools.product(self.attentions, (STATE, join(STATE))))

    def start(self, make, state):
        self.attention, self.state = make(self), state
        self.module = self.build("Decoder", HIDDEN, TGT_VOCAB, self.attention, PAD, DROPOUT)
        self.student(TGT, state)
        self.calls.clear()

    def student(self, tgt, state):
        result = self.call(self.module, tgt, state, ENC_OUTPUT, LENGTHS)
        if not isinstance(result, tuple) or len(result) != 2 or not result[0].numel():
            raise Failure("forward must return outputs (batch_size, max_tgt_len, hidden_size), and dec_state")
        if self.mode == "evaluation" and tgt.shape[1] > 1:  # with one symbol it fails
            self.name_mistake("last-symbol-in-evaluation", found="")
        return result[0].reshape(len(SRC), -1, HIDDEN), result[1]

    def drive(self, decode):
        if self.mode == "training":
            outputs, _ = decode(TGT, self.state)
            if outputs.shape[1] == N_STEPS + 1:
                self.notes = ["in training it returns an output for <eos> too; the script must cut it: outputs[:, :-1]"]
            return {"outputs": outputs[:, :N_STEPS]}
        steps, state = [], self.state
        for symbol in TGT[:, :N_SINGLE].split(1, dim=1):
            output, state = self.first_that_runs(decode, (symbol, state), (symbol.expand(-1, 2), state))
            steps.append(output)
        return {"outputs": torch.cat(steps, dim=1)}

    def forward(self, m, tgt, state):
        training, E, outputs, parts = self.mode == "training", self.embedding.weight, [], []
        tgt = tgt if not training else tgt[:, 1:] if "target-shifted" in m else tgt[:, :-1]
        start = state = tuple(part * ("state-ignored" not in m) for part in join(state, m))
        for t, y in enumerate(tgt.T):
            if t and training and "own-argmax" in m:
                y = (outputs[-1] @ E.T if "own-argmax/logits" in m else outputs[-1]).argmax(dim=-1).squeeze(1)
            emb = self.drop(E[y].unsqueeze(1), "embedding", m)  # (batch_size, 1, hidden_size)
            given = start if "state-not-passed" in m else state
            q, (h, c) = self.lstm(emb if self.lstm.batch_first else emb.transpose(0, 1), given)
            output = self.attend(q.reshape(emb.shape), m)
            parts.append((emb, q.reshape(emb.shape)))
            h = output.transpose(0, 1).contiguous() if "attention-fed-back" in m else h
            h = self.drop(h) if "state-dropout" in m else h
            state = (h, self.drop(c) if "state-dropout/both" in m else c)
            outputs.append(output if "dropout-before-attention/only" in m else self.drop(output, "output", m))
        self.parts = dict(zip(("embeddings", "q"), (torch.cat(part, dim=1) for part in zip(*parts))))
        return torch.cat(outputs, dim=1), start if "state-not-returned" in m else state

    def attend(self, q, m):
        if self.attention is None or "attention-unused" in m:
            return q
        q = self.drop(q) if "dropout-before-attention" in m else q
        a_o = self.block(self.attention, q, ENC_OUTPUT, LENGTHS)
        return (a_o[0] if isinstance(a_o, tuple) else a_o).reshape(q.shape)


class DecoderWithAttention(Decoder):
    """As the `Decoder`, with out_t = drop(a_o(q_t)).

    outputs | outputs = self.dropout(self.attn(outputs, encoder_outputs, src_lengths))
        dropout-before-attention/only,both; dropout; the attention reads q after dropout, which belongs to its output
        attention-unused; lstm; the attention that the decoder is given has no influence on its outputs
    state | attn_out = self.attn(output, encoder_outputs, src_lengths), while dec_state stays the LSTM's
        attention-fed-back; lstm; the output of the attention replaces the hidden state that the next step starts from
    """

    number, name, equation = "3.1b", "Decoder with attention", "the Decoder's forward() with attention"
    attentions = (lambda self: StandInAttention(), lambda self: self.build("Attention", HIDDEN))  # or the student's own


class Seq2Seq(Question):
    """logits = W_g Decoder(tgt, final_hidden, enc_output) + b, where W_g is the decoder's embedding.

    logits | return self.generator(output), dec_hidden
        logits-softmax; softmax; the outputs are probabilities, and the script's cross-entropy applies a second softmax
    state | dec_hidden = final_hidden if dec_hidden is None else dec_hidden
        encoder-state-unused; mul zeros zeros_like; the decoder starts from zeros instead of the encoder's final state
    """

    number, name, target, n_required, equation = "3.1", "Seq2Seq", "Seq2Seq", 2, "the skeleton's Seq2Seq"
    inputs, output = (SRC, LENGTHS, TGT), "logits"
    layers = {"generator": [nn.Linear, TGT_VOCAB, HIDDEN], "embedding": [nn.Embedding, TGT_VOCAB, HIDDEN]}
    modes = ("training",)
    variants = LOG_PROBABILITIES | {"untied": "the generator's weight is its own, and not the decoder's embedding"}

    def prepare(self):
        self.encoder = self.build("Encoder", SRC_VOCAB, HIDDEN, PAD, DROPOUT)
        attention = self.build("Attention", HIDDEN) if self.code["Attention"] else None
        self.decoder = self.build("Decoder", HIDDEN, TGT_VOCAB, attention, PAD, DROPOUT)
        self.module = self.build("Seq2Seq", self.encoder, self.decoder)

    def forward(self, m, src, lengths, tgt):
        enc_output, state = self.block(self.encoder, src, lengths)
        state = tuple(part * ("encoder-state-unused" not in m) for part in state)
        outputs, state = self.block(self.decoder, tgt, state, enc_output, lengths)
        weight = self.generator.weight if "untied" in m else self.embedding.weight
        logits = F.linear(outputs, weight, self.generator.bias)
        logits = logits.softmax(dim=-1) if "logits-softmax" in m else logits
        return logits.log_softmax(dim=-1) if "log_softmax" in m else logits, state


QUESTIONS = [Encoder, Attention, Decoder, DecoderWithAttention, Seq2Seq]
