"""2021-22, Question 3: the caption decoder with and without attention, and the additive attention."""

import torch
from torch import nn

from checks.probe import DROPOUT_MISTAKES, LOG_PROBABILITIES, Failure, Question, dropped, mistakes, numbers, the_layer

ENCODER, DECODER, EMBEDDING, ATTENTION, VOCAB, DROPOUT = 5, 6, 4, 7, 11, 0.5
REGIONS = numbers(3, 9, ENCODER)  # (batch_size, n_regions, encoder_dim)
STATE = numbers(3, DECODER, seed=1), numbers(3, DECODER, seed=2)  # h and c
WORDS = torch.tensor([[1, 4], [5, 8], [9, 2]])  # two steps


class Attention(Question):
    """e_i = v . f(W_1 h + W_2 s_i), alpha = softmax(e), context = sum_i alpha_i s_i, where f is relu or tanh."""

    number, name, target, n_required, equation = "3.1b", "Attention", "Attention", 3, "the hint: additive attention"
    says = "alpha = softmax(v f(W_1 h + W_2 s)) over the regions, context = alpha s"
    variants = {"tanh": "f is tanh, as in the lecture; the skeleton has relu, and both are right"}
    known = mistakes("""
alpha = softmax(e) | alpha = self.softmax(scores), over dimension 1 of (batch_size, n_regions)
    region-softmax-dimension/one,batch; softmax; the softmax is not over the regions of the image
    region-softmax-missing; mul bmm; the scores are used as weights without a softmax
e = v f(..) | self.full_att(self.relu(self.encoder_att(encoder_out) + self.decoder_att(decoder_hidden).unsqueeze(1)))
    energy-activation; linear; the relu or tanh before full_att is missing, so that the state has no influence
    energy-without-state; linear; the decoder's state has no part in the scores
context | context = (encoder_out * alpha.unsqueeze(2)).sum(dim=1)
    context-mean; mean; the context is a mean over the regions, and must be their weighted sum
    context-unweighted; sum mean; the context is the mean of the regions: the weights are not used, or are all equal
""")

    def prepare(self):
        self.module = self.build("Attention", ENCODER, DECODER, ATTENTION)
        self.encoder_att = the_layer(self.module, nn.Linear, "encoder_att", (ATTENTION, ENCODER))
        self.decoder_att = the_layer(self.module, nn.Linear, "decoder_att", (ATTENTION, DECODER))
        self.full_att = the_layer(self.module, nn.Linear, "full_att", (1, ATTENTION))

    def outputs(self, mode):
        result = self.call(self.module, REGIONS, STATE[0])
        return {"context": result[0] if isinstance(result, tuple) else result}

    def equations(self, m, drop, mode):
        from_state, from_regions = self.decoder_att(STATE[0]).unsqueeze(1), self.encoder_att(REGIONS)
        energy = from_state * ("energy-without-state" not in m) + from_regions
        f = torch.tanh if "tanh" in m else torch.relu
        e = self.full_att(energy if "energy-activation" in m else f(energy))  # (batch_size, n_regions, 1)
        dim = 2 if "region-softmax-dimension/one" in m else 0 if "region-softmax-dimension/batch" in m else 1
        alpha = e if "region-softmax-missing" in m else e.softmax(dim)
        context = (alpha * REGIONS).mean(dim=1) if "context-mean" in m else (alpha * REGIONS).sum(dim=1)
        context = REGIONS.mean(dim=1) if "context-unweighted" in m else context
        return {"e": e, "alpha": alpha, "context": context}


class Decoder(Question):
    """h_t, c_t = decode_step(E w_t, h_t-1, c_t-1), scores = fc(drop(h_t)); the state is returned without dropout."""

    number, name, target, n_required, equation = "3.1a", "Decoder", "Decoder", 3, "the hint: decode_step, dropout, fc"
    says = "embedding, LSTM cell, dropout, fc; the state from step to step"
    sizes = (DECODER, EMBEDDING, VOCAB, ENCODER, DROPOUT)
    variants = LOG_PROBABILITIES
    known = DROPOUT_MISTAKES | mistakes("""
scores | scores = self.fc(self.dropout(h)), and return scores, h, c
    output-dropout; linear; there is no dropout between the hidden state and fc
    dropout-on-embedding; dropout; the embedding has a dropout, which the hint does not have
    state-dropout/h,both; dropout; dropout is applied to the state that the next step starts from
    scores-from-cell; linear; the scores are read from the cell state c
    scores-softmax; softmax; the scores are probabilities, and the cross-entropy applies a second softmax
state | h, c = self.decode_step(embeddings, (h, c))
    state-not-returned; lstm_cell; the state that is returned is the old one
    state-ignored; lstm_cell; the LSTM cell starts from zeros instead of the state that forward is given
""")

    def prepare(self):
        self.module = self.build(self.target, *self.sizes)
        self.embedding = the_layer(self.module, nn.Embedding, "embedding")
        self.cell = the_layer(self.module, nn.LSTMCell, "decode_step")
        self.fc = the_layer(self.module, nn.Linear, "fc", (VOCAB, DECODER))

    def outputs(self, mode):
        steps, (h, c) = [], STATE
        for words in WORDS.T:
            try:
                result = self.call(self.module, words, h, c, REGIONS)
            except Failure as failure:
                if "dim" not in str(failure) and "size" not in str(failure):
                    raise
                result = self.call(self.module, words.unsqueeze(1), h, c, REGIONS)
            if not isinstance(result, tuple) or len(result) < 3:
                raise Failure("forward must return scores, h and c")
            scores, h, c = (part.reshape(len(WORDS), -1) for part in result[:3])
            steps.append(scores)
        return {"scores": steps[0], "scores of the next step": steps[1], "h": h, "c": c}

    def equations(self, m, drop, mode):
        steps, state = [], STATE
        for words in WORDS.T:
            emb = self.embedding.weight[words]
            emb = drop(emb) if "dropout-on-embedding" in m else emb
            start = tuple(torch.zeros_like(part) for part in state) if "state-ignored" in m else state
            h, c = self.cell(self.inputs(emb, state, m), start)
            scores = self.fc(dropped(c if "scores-from-cell" in m else h, "output", m, drop))
            scores = scores.softmax(1) if "scores-softmax" in m else scores
            steps.append(scores.log_softmax(1) if "log_softmax" in m else scores)
            h = drop(h) if {"state-dropout/h", "state-dropout/both"} & m else h
            c = drop(c) if "state-dropout/both" in m else c
            state = state if "state-not-returned" in m else (h, c)
        return {"scores": steps[0], "scores of the next step": steps[1], "h": state[0], "c": state[1]}

    def inputs(self, emb, state, m):
        return emb


class DecoderWithAttention(Decoder):
    """As the `Decoder`, where the cell reads [E w_t; context], and the context attends from h_t-1."""

    number, name, target, n_required = "3.1b", "DecoderWithAttention", "DecoderWithAttention", 4
    equation = "the hint: the embedding concatenated with the attention vector"
    says = "context from h, LSTM cell on [embedding; context], dropout, fc"
    sizes = (ATTENTION, *Decoder.sizes)
    variants = Decoder.variants | {"[context; emb]": "[context; embedding]: the weights learn either order"}
    known = Decoder.known | mistakes("""
context | context, alpha = self.attention(encoder_out, decoder_hidden_state)
    attends-with-cell; linear; the attention is asked with the cell state c in place of h
context | self.decode_step(torch.cat([embeddings, context], dim=1), (h, c))
    context-unattended; mean sum; the cell reads the mean of the regions in place of the attention's context
""")

    def inputs(self, emb, state, m):
        context = self.block(self.module.attention, REGIONS, state["attends-with-cell" in m])
        context = context[0] if isinstance(context, tuple) else context
        context = REGIONS.mean(dim=1) if "context-unattended" in m else context
        return torch.cat([context, emb] if "[context; emb]" in m else [emb, context], dim=1)


QUESTIONS = [Decoder, Attention, DecoderWithAttention]
