"""2022-23, Question 3: the encoder, the bilinear attention and the decoder of the translator, with their known mistakes."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from checks.probe import DROPOUT_MISTAKES, Failure, Question, dropped, layers, mistakes, numbers, randomize, the_layer

PAD, HIDDEN, SRC_VOCAB, TGT_VOCAB, DROPOUT = 0, 8, 11, 13, 0.3
SRC = torch.tensor([[4, 5, 6, PAD, PAD], [7, 8, 9, 10, 4], [6, 5, 8, 7, PAD]])
LENGTHS = (SRC != PAD).sum(dim=1)
REAL = SRC != PAD  # (batch_size, max_src_len)
TGT = torch.tensor([[1, 4, 5, 6, 2], [1, 8, 2, PAD, PAD], [1, 5, 10, 2, PAD]])  # <sos> w_1 .. w_n <eos>
N_STEPS = TGT.shape[1] - 1  # the last symbol is only predicted
N_SINGLE = 2  # symbols that the decoder reads one at a time in evaluation
STATE = tuple(numbers(2, len(SRC), HIDDEN // 2, seed=seed) for seed in (1, 2))  # as the encoder returns it
ENC_OUTPUT = numbers(*SRC.shape, HIDDEN, seed=3)  # not 0 at the padding, so that a missing mask shows


def join(state, m=frozenset()):
    """h and c, each (1, batch_size, hidden_size), from the two directions of the encoder."""
    if len(state[0]) == 1:
        return state
    if "state-view" in m:
        return tuple(part.reshape(1, -1, HIDDEN) for part in state)
    order = (1, 0) if "directions swapped" in m else (0, 1)
    return tuple(torch.cat([part[order[0]], part[order[1]]], dim=-1).unsqueeze(0) for part in state)


RECURRENT_MISTAKES = (
    DROPOUT_MISTAKES
    + """
embedding-dropout; embeddings; embedding; the embeddings have no dropout
    emb = self.dropout(self.embedding(src))
output-dropout; outputs; _pad_packed_sequence lstm tanh; the final outputs have no dropout
    outputs = self.dropout(outputs), in the decoder after the attention if there is one
dropout-twice/embedding,output; dropout; dropout; there is a second dropout, which the statement does not have
    call self.dropout once for the embeddings and once for the outputs
state-dropout/h,both; state; dropout; dropout is applied to the state that the next step, or the decoder, starts from
    output, dec_state = self.lstm(emb, dec_state), then dropout on another name than dec_state
state-view; state; view reshape; the two directions are joined by view or reshape, which mixes the sentences of the batch
    torch.cat([h[0], h[1]], dim=-1).unsqueeze(0), and c likewise
"""
)
SWAPPED = {"directions swapped": "the backward direction's state comes first; the decoder learns either order"}


class Encoder(Question):
    """h_1 .. h_n = drop(BiLSTM(drop(E x_1) .. drop(E x_n))), where padding is not read; final_hidden has no dropout."""

    number, name, target, n_required, equation = "3.1a", "Encoder", "Encoder", 4, "the Encoder's forward()"
    says = "dropout, BiLSTM over the real characters, dropout; final state"
    dropout = DROPOUT
    variants = SWAPPED
    known = mistakes(
        RECURRENT_MISTAKES
        + """
encoder-not-packed; BiLSTM; lstm; the LSTM also reads the padding, where its backward direction starts
    pack_padded_sequence(emb, lengths.cpu(), batch_first=True, enforce_sorted=False)
encoder-one-direction; BiLSTM; lstm; the LSTM has one direction{found}, and must have two
    nn.LSTM(hidden_size, hidden_size // 2, bidirectional=True, batch_first=True)
"""
    )

    def prepare(self):
        self.module = self.build("Encoder", SRC_VOCAB, HIDDEN, PAD, DROPOUT)
        self.embedding = the_layer(self.module, nn.Embedding, name="embedding")
        self.lstm = the_layer(self.module, nn.LSTM, name="lstm")
        self.order = torch.arange(len(SRC))
        if not self.lstm.bidirectional:
            self.name_mistake("encoder-one-direction", found="")

    def outputs(self, mode):
        try:
            enc_output, (h, c) = self.call(self.module, SRC, LENGTHS)
        except Failure as failure:
            if "enforce_sorted" not in str(failure):
                raise
            self.order = LENGTHS.argsort(descending=True)
            self.notes = ["it reads batches that are sorted by length only; enforce_sorted=False reads any"]
            enc_output, (h, c) = self.call(self.module, SRC[self.order], LENGTHS[self.order])
        back = self.order.argsort()
        h, c = (part if len(part) == 2 else part.reshape(len(SRC), 2, -1).transpose(0, 1) for part in (h, c))
        return {"enc_output": enc_output[back] * REAL.unsqueeze(2), "h": h[:, back], "c": c[:, back]}

    def equations(self, m, drop, mode):
        emb = dropped(self.embedding.weight[SRC], "embedding", m, drop)
        lengths = LENGTHS if "encoder-not-packed" not in m else torch.full_like(LENGTHS, SRC.shape[1])
        packed, (h, c) = self.lstm(pack_padded_sequence(emb, lengths, batch_first=True, enforce_sorted=False))
        enc_output = dropped(pad_packed_sequence(packed, batch_first=True)[0], "output", m, drop)
        h = drop(h) if {"state-dropout/h", "state-dropout/both"} & m else h
        c = drop(c) if "state-dropout/both" in m else c
        h, c = (part.reshape(len(SRC), 2, -1).transpose(0, 1) for part in join((h, c), m))
        return {"enc_output": enc_output * REAL.unsqueeze(2), "h": h, "c": c}

    def batch_dim(self, part):
        return 0 if part == "enc_output" else 1


class Attention(Question):
    """p = softmax(s) (1), s_i = z^T h_i, z = W_q^T q (2), c = sum_i p_i h_i (3), a_o = tanh(W_o^T [q; c]) (4)."""

    number, name, target, n_required, equation = "3.1b", "Attention", "Attention", 1, "equations (1) to (4)"
    says = "z = W_q q, s = z h, p = softmax(s) over the real characters, c = p h, a_o = tanh(W_o [q; c])"
    variants = {
        "[c; q]": "you concatenate [c; q]; the order is a matter of the weights",
        "transposed": "you multiply by linear_in.weight untransposed; W_q is learned either way",
        "no bias": "you leave out the bias of linear_out, as the statement does",
    }
    known = mistakes(
        """
mask; (1) p = softmax(s); masked_fill where softmax; what masked_fill returns is thrown away, or the padding is not masked
    scores = scores.masked_fill(src_seq_mask.unsqueeze(1), float("-inf"))
mask-inverted; (1) p = softmax(s); masked_fill where; the mask is inverted: the real characters are masked, the padding is kept
    src_seq_mask = ~self.sequence_mask(src_lengths), which is True at the padding
mask-value; (1) p = softmax(s); masked_fill where; the scores of the padding become 0 or nearly 0, which still has a weight
    scores = scores.masked_fill(src_seq_mask.unsqueeze(1), float("-inf"))
mask-after-softmax; (1) p = softmax(s); masked_fill mul; the mask comes after the softmax, so the weights do not sum to 1
    mask the scores with -inf first, then torch.softmax(scores, dim=-1)
softmax-dimension/query,batch; (1) p = softmax(s); softmax; the softmax is not over the source characters but over another dimension
    p = torch.softmax(scores, dim=-1)
no-softmax; (1) p = softmax(s); bmm matmul; the scores are used as weights without a softmax
    p = torch.softmax(scores, dim=-1)
no-projection; (2) s = z^T h; bmm matmul; the query is not projected: z is q itself
    z = self.linear_in(query)
scaled-scores; (2) s = z^T h; truediv div mul; the scores are divided by the square root of the hidden size
    scores = torch.bmm(z, encoder_outputs.transpose(1, 2))
values-projected; (3) c = sum p_i h_i; bmm matmul; the context sums projected encoder outputs in place of h_i
    c = torch.bmm(p, encoder_outputs)
attention-dropout/weights,output; dropout; dropout; the attention has a dropout of its own
    leave dropout to the decoder, which applies it to the final output
projected-query; (4) a_o = tanh(W_o [q; c]); cat; the projected query z is concatenated in place of q
    torch.cat([query, c], dim=-1), where query is still the argument of forward
no-tanh; (4) a_o = tanh(W_o [q; c]); linear; the tanh is missing
    attn_out = torch.tanh(self.linear_out(torch.cat([query, c], dim=-1)))
context-only; (4) a_o = tanh(W_o [q; c]); bmm matmul; the context c is returned and equation (4) is missing
    attn_out = torch.tanh(self.linear_out(torch.cat([query, c], dim=-1)))
additive-attention; (2) s = z^T h; linear; the scores come from a layer with one output{found}: this is additive, not bilinear, attention
    scores = torch.bmm(self.linear_in(query), encoder_outputs.transpose(1, 2))
"""
    )

    def prepare(self):
        self.module = self.build("Attention", HIDDEN)
        self.queries = numbers(len(SRC), 2, HIDDEN, seed=4)
        self.linear_in = layers(self.module, nn.Linear, (HIDDEN, HIDDEN), "linear_in")
        self.linear_out = layers(self.module, nn.Linear, (HIDDEN, 2 * HIDDEN), "linear_out")

    def outputs(self, mode):
        steps = [self.call(self.module, query, ENC_OUTPUT, LENGTHS) for query in self.queries.split(1, dim=1)]
        steps = [step[0] if isinstance(step, tuple) else step for step in steps]
        return {"a_o": torch.stack([step.reshape(len(SRC), -1) for step in steps], dim=1)}

    def equations(self, m, drop, mode):
        steps = [self.step(query, m, drop) for query in self.queries.split(1, dim=1)]
        return {part: torch.cat([step[part] for step in steps], dim=1) for part in steps[0]}

    def step(self, q, m, drop):
        """Equations 1 to 4 for one target step; q: (batch_size, 1, hidden_size)."""
        h, padding = ENC_OUTPUT, ~REAL.unsqueeze(1)
        W_q, W_o = self.linear_in[0].weight, self.linear_out[0].weight
        z = q @ W_q if "transposed" in m else F.linear(q, W_q, self.linear_in[0].bias)
        z = q if "no-projection" in m else z
        s = z @ h.transpose(1, 2)
        s = s / HIDDEN**0.5 if "scaled-scores" in m else s
        masked = s.masked_fill(~padding if "mask-inverted" in m else padding, 0 if "mask-value" in m else -torch.inf)
        masked = s if "mask" in m or "mask-after-softmax" in m else masked
        p = masked.softmax(1 if "softmax-dimension/query" in m else 0 if "softmax-dimension/batch" in m else 2)
        p = masked if "no-softmax" in m else p
        p = p.masked_fill(padding, 0) if "mask-after-softmax" in m else p
        p = drop(p) if "attention-dropout/weights" in m else p
        c = p @ (F.linear(h, W_q) if "values-projected" in m else h)
        first = z if "projected-query" in m else q
        joined = torch.cat([c, first] if "[c; q]" in m else [first, c], dim=-1)
        a_o = F.linear(joined, W_o, None if "no bias" in m else self.linear_out[0].bias)
        a_o = a_o if "no-tanh" in m else a_o.tanh()
        a_o = c if "context-only" in m else a_o
        return {"s": s, "p": p, "c": c, "a_o": drop(a_o) if "attention-dropout/output" in m else a_o}

    def diagnose(self):
        scores = [call for call in self.calls if call.name == "linear" and call.result.shape[-1] == 1]
        if scores:
            self.name_mistake("additive-attention", found="")

    def evidence(self, keys):
        weights = [call.result for call in self.calls if call.name == "softmax" and call.result.numel() == SRC.numel()]
        if not {"mask", "mask-value"} & set(keys) or not weights:
            return ""
        on_padding = weights[0].reshape(SRC.shape)[0, ~REAL[0]].sum().item()
        padding = f"The last {(~REAL[0]).sum()} of {SRC.shape[1]} characters are padding"
        return f"{padding} and have a weight of {on_padding:.2f} together; they must have 0."


class BilinearAttention(nn.Module):
    """A right `Attention` that the decoder is given, so that a mistake in the student's own stays where it is."""

    def __init__(self):
        super().__init__()
        self.linear_in = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.linear_out = nn.Linear(2 * HIDDEN, HIDDEN)

    def forward(self, query, encoder_outputs, src_lengths):
        scores = self.linear_in(query) @ encoder_outputs.transpose(1, 2)
        p = scores.masked_fill(~REAL.unsqueeze(1), -torch.inf).softmax(dim=-1)
        return torch.tanh(self.linear_out(torch.cat([query, p @ encoder_outputs], dim=-1)))


class Decoder(Question):
    """q_t = LSTM(drop(E y_t-1)), out_t = drop(q_t); the next step reads the state without dropout."""

    number, name, target, n_required, equation = "3.1a", "Decoder", "Decoder", 5, "the Decoder's forward()"
    says = "dropout, LSTM from the encoder's state, dropout; the state from call to call"
    attention = None
    dropout = DROPOUT
    variants = SWAPPED
    table = (
        RECURRENT_MISTAKES
        + """
state-not-passed; state; lstm; every step starts from the same state instead of the state of the step before
    output, dec_state = self.lstm(emb, dec_state)
state-not-returned; state; lstm; the state that is returned is not the one after the last symbol
    return outputs, dec_state, with the dec_state that the LSTM returned last
state-ignored; state; lstm; the LSTM starts from zeros instead of the encoder's state
    outputs, dec_state = self.lstm(emb, dec_state)
target-shifted; target; __getitem__ embedding; the decoder reads w_1 .. <eos>, and so the symbol that it has to predict
    tgt = tgt[:, :-1] in training
own-argmax/logits,outputs; target; argmax max topk; in training the decoder reads its own best symbol instead of the given one
    read tgt[:, t] at step t (teacher forcing)
last-symbol-in-evaluation; target; __getitem__ cat; in evaluation the only symbol is dropped{found}
    tgt = tgt[:, :-1] only if self.training
"""
    )
    known = mistakes(table)

    def prepare(self):
        if self.attention:
            self.attention = randomize(BilinearAttention())
        self.state = STATE
        self.create()
        try:
            self.call(self.module.train(), TGT, self.state, ENC_OUTPUT, LENGTHS)
        except Failure:
            self.adapt()
        self.calls.clear()

    def create(self):
        self.module = self.build("Decoder", HIDDEN, TGT_VOCAB, self.attention, PAD, DROPOUT)
        self.embedding = the_layer(self.module, nn.Embedding, name="embedding")
        self.lstm = the_layer(self.module, nn.LSTM, name="lstm")

    def adapt(self):
        """Give a decoder that cannot read the skeleton's state or attention what the student's other classes give it."""
        for attention in (self.attention, self.attention and self.build("Attention", HIDDEN)):
            for state in (STATE, join(STATE)):
                self.attention, self.state = attention, state
                self.create()
                try:
                    return self.call(self.module.train(), TGT, state, ENC_OUTPUT, LENGTHS)
                except Failure:
                    continue

    def outputs(self, mode):
        if mode == "training":
            outputs = self.read(TGT, self.state)[0]
            if outputs.shape[1] == N_STEPS + 1:
                self.notes = ["in training it returns an output for <eos> too; the script must cut it: outputs[:, :-1]"]
            return {"outputs": outputs[:, :N_STEPS]}
        steps, state = [], self.state
        for t in range(N_SINGLE):
            output, state = self.read_single(TGT[:, t : t + 1], state)
            steps.append(output)
        return {"outputs": torch.cat(steps, dim=1)}

    def read(self, tgt, state):
        result = self.call(self.module, tgt, state, ENC_OUTPUT, LENGTHS)
        if not isinstance(result, tuple) or len(result) < 2:
            raise Failure("forward must return outputs and dec_state")
        return result[0].reshape(len(SRC), -1, HIDDEN), result[1]

    def read_single(self, symbol, state):
        try:
            output, state = self.read(symbol, state)
            if output.shape[1]:
                return output, state
        except Failure:
            output, state = self.read(torch.cat([symbol, symbol], dim=1), state)  # or it has another reason to fail
            if output.shape[1] != 1:
                raise
        self.name_mistake("last-symbol-in-evaluation", found="")
        return self.read(torch.cat([symbol, symbol], dim=1), self.state if state is None else state)

    def equations(self, m, drop, mode):
        start = join(STATE, m)
        start = tuple(torch.zeros_like(part) for part in start) if "state-ignored" in m else start
        lost = {"state-not-passed"} & m if mode == "training" else {"state-not-returned", "state-ignored"} & m
        state, q, steps = start, None, []
        for t in range(N_STEPS if mode == "training" else N_SINGLE):
            y = TGT[:, t + ("target-shifted" in m and mode == "training")]
            if t and mode == "training" and "own-argmax/logits" in m:
                y = (steps[-1] @ self.embedding.weight.T).argmax(dim=-1).squeeze(1)
            if t and mode == "training" and "own-argmax/outputs" in m:
                y = steps[-1].argmax(dim=-1).squeeze(1)
            emb = dropped(self.embedding.weight[y].unsqueeze(1), "embedding", m, drop)  # (batch_size, 1, hidden_size)
            q, (h, c) = self.advance(emb, start if lost else state)
            output = self.attend(q, m, drop)
            h = output.transpose(0, 1) if "attention-fed-back" in m else h
            h = drop(h) if {"state-dropout/h", "state-dropout/both"} & m else h
            state = (h, drop(c) if "state-dropout/both" in m else c)
            steps.append(output if "dropout-before-attention/only" in m else dropped(output, "output", m, drop))
        return {"outputs": torch.cat(steps, dim=1)}

    def advance(self, emb, state):
        """One step of the student's LSTM, from emb (batch_size, 1, hidden_size)."""
        if self.lstm.num_layers == 1:  # the same as below, in a third of the time
            h, c = torch.lstm_cell(emb[:, 0], [part[0] for part in state], *self.lstm.parameters())
            return h.unsqueeze(1), (h.unsqueeze(0), c.unsqueeze(0))
        return self.lstm(emb, state)

    def attend(self, q, m, drop):
        return q


class DecoderWithAttention(Decoder):
    """As the `Decoder`, with out_t = drop(a_o(q_t))."""

    number, name = "3.1b", "Decoder with attention"
    equation = "the Decoder's forward() with attention"
    says = "the attention reads q without dropout, dropout on a_o; the state stays the LSTM's"
    attention = True
    known = mistakes(
        Decoder.table
        + """
dropout-before-attention/only,both; outputs; dropout; the attention reads q after dropout; dropout belongs to its output
    outputs = self.dropout(self.attn(outputs, encoder_outputs, src_lengths))
attention-unused; outputs; lstm; the attention that the decoder is given has no influence on its outputs
    outputs = self.attn(outputs, encoder_outputs, src_lengths) if self.attn is not None
attention-fed-back; state; lstm; the output of the attention replaces the hidden state that the next step starts from
    attn_out = self.attn(output, encoder_outputs, src_lengths), and dec_state stays the LSTM's
"""
    )

    def attend(self, q, m, drop):
        if "attention-unused" in m:
            return q
        q = drop(q) if {"dropout-before-attention/only", "dropout-before-attention/both"} & m else q
        a_o = self.block(self.attention, q, ENC_OUTPUT, LENGTHS)
        return (a_o[0] if isinstance(a_o, tuple) else a_o).reshape(q.shape)


class Seq2Seq(Question):
    """logits = W_g Decoder(tgt, final_hidden, enc_output) + b, where W_g is the decoder's embedding."""

    number, name, target, n_required, equation = "3.1", "Seq2Seq", "Seq2Seq", 2, "the skeleton's Seq2Seq"
    says = "decoder from the encoder's final state; generator"
    modes = ("training",)
    variants = {
        "untied": "the generator has a weight of its own; the skeleton ties it to the decoder's embedding",
        "log_softmax": "it returns log-probabilities; the cross-entropy of the script takes them for logits, with equal result",
    }
    known = mistakes(
        """
logits-softmax; logits; softmax; the outputs are probabilities, and the script's cross-entropy applies a second softmax
    return self.generator(output), dec_hidden
encoder-state-unused; state; decoder; the decoder starts from zeros instead of the encoder's final state
    dec_hidden = final_hidden if dec_hidden is None else dec_hidden
given-state-ignored; state; decoder; the state that the caller gives as dec_hidden is ignored
    dec_hidden = final_hidden if dec_hidden is None else dec_hidden
"""
    )

    def prepare(self):
        encoder = self.build("Encoder", SRC_VOCAB, HIDDEN, PAD, DROPOUT)
        attention = self.build("Attention", HIDDEN) if self.code["Attention"] else None
        decoder = self.build("Decoder", HIDDEN, TGT_VOCAB, attention, PAD, DROPOUT)
        self.module = self.build("Seq2Seq", encoder, decoder)
        self.encoder, self.decoder = encoder, decoder
        self.generator = the_layer(self.module, nn.Linear, (TGT_VOCAB, HIDDEN), "generator")
        self.embedding = the_layer(decoder, nn.Embedding, name="embedding")
        order = LENGTHS.argsort(descending=True)  # some encoders read sorted batches only
        self.batch = SRC[order], LENGTHS[order]
        self.given = tuple(part.flip(-1) for part in join(STATE))

    def outputs(self, mode):
        results = [self.call(self.module, *self.batch, TGT), self.call(self.module, *self.batch, TGT, self.given)]
        return {part: result[0] for part, result in zip(("logits", "logits from a given state"), results)}

    def equations(self, m, drop, mode):
        enc_output, final_hidden = self.block(self.encoder, *self.batch)
        first = tuple(torch.zeros_like(part) for part in final_hidden) if "encoder-state-unused" in m else final_hidden
        given = first if "given-state-ignored" in m else self.given
        weight = self.generator.weight if "untied" in m else self.embedding.weight
        parts = {}
        for part, state in (("logits", first), ("logits from a given state", given)):
            outputs = self.block(self.decoder, TGT, state, enc_output, self.batch[1])[0]
            logits = F.linear(outputs, weight, self.generator.bias)
            logits = logits.softmax(dim=-1) if "logits-softmax" in m else logits
            parts[part] = logits.log_softmax(dim=-1) if "log_softmax" in m else logits
        return parts


QUESTIONS = [Encoder, Attention, Decoder, DecoderWithAttention, Seq2Seq]
