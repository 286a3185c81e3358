"""2021-22, Question 3: the caption decoder with and without attention, and the additive attention."""

import torch
from torch import nn

from checks.probe import LOG_PROBABILITIES, Failure, Question, WithDropout, numbers

ENCODER, DECODER, EMBEDDING, ATTENTION, VOCAB, DROPOUT = 5, 6, 4, 7, 11, 0.5
REGIONS = numbers(3, 9, ENCODER)  # (batch_size, n_regions, encoder_dim)
STATE = numbers(3, DECODER, seed=1), numbers(3, DECODER, seed=2)  # h and c
WORDS = torch.tensor([[1, 4], [5, 8], [9, 2]])  # two steps


class Attention(Question):
    """e_i = v . f(W_1 h + W_2 s_i), alpha = softmax(e), context = sum_i alpha_i s_i, where f is relu or tanh.

    alpha = softmax(e) | alpha = self.softmax(scores), over dimension 1 of (batch_size, n_regions)
        region-softmax-dimension/one,batch; softmax; the softmax is not over the regions of the image
        region-softmax-missing; mul bmm; the scores are used as weights without a softmax
    e = v f(.) | self.full_att(self.relu(self.encoder_att(encoder_out) + self.decoder_att(decoder_hidden).unsqueeze(1)))
        energy-activation; linear; the relu or tanh before full_att is missing, so that the state has no influence
        energy-without-state; linear; the decoder's state has no part in the scores
    context | context = (encoder_out * alpha.unsqueeze(2)).sum(dim=1)
        context-mean; mean; the context is a mean over the regions, and must be their weighted sum
        context-unweighted; sum mean; the context is the mean of the regions: the weights are not used, or are all equal
    """

    number, name, target, n_required, equation = "3.1b", "Attention", "Attention", 3, "the hint: additive attention"
    arguments, inputs, output = (ENCODER, DECODER, ATTENTION), (REGIONS, STATE[0]), "context"
    layers = {"encoder_att": [nn.Linear, ATTENTION, ENCODER], "decoder_att": [nn.Linear, ATTENTION, DECODER]}
    layers |= {"full_att": [nn.Linear, 1, ATTENTION]}
    variants = {"tanh": "f is tanh, as in the lecture; the skeleton has relu, and both are right"}

    def forward(self, m, regions, h):
        from_state, from_regions = self.decoder_att(h).unsqueeze(1), self.encoder_att(regions)
        energy = from_state * ("energy-without-state" not in m) + from_regions
        f = torch.tanh if "tanh" in m else torch.relu
        e = self.full_att(energy if "energy-activation" in m else f(energy))  # (batch_size, n_regions, 1)
        dim = 2 if "region-softmax-dimension/one" in m else 0 if "region-softmax-dimension/batch" in m else 1
        alpha = e if "region-softmax-missing" in m else e.softmax(dim)
        self.parts = {"e": e, "alpha": alpha}
        context = (alpha * regions).mean(dim=1) if "context-mean" in m else (alpha * regions).sum(dim=1)
        return regions.mean(dim=1) if "context-unweighted" in m else context


class Decoder(WithDropout):
    """h_t, c_t = decode_step(E w_t, h_t-1, c_t-1), scores = fc(drop(h_t)); the state is returned without dropout.

    scores | scores = self.fc(self.dropout(h)), and return scores, h, c
        output-dropout; linear; there is no dropout between the hidden state and fc
        dropout-on-embedding; dropout; the embedding has a dropout, which the hint does not have
        state-dropout/h,both; dropout; dropout is applied to the state that the next step starts from
        scores-from-cell; linear; the scores are read from the cell state c
        scores-softmax; softmax; the scores are probabilities, and the cross-entropy applies a second softmax
    state | h, c = self.decode_step(embeddings, (h, c))
        state-not-returned; lstm_cell; the state that is returned is the old one
        state-ignored; lstm_cell; the LSTM cell starts from zeros instead of the state that forward is given
    """

    number, name, target, n_required, equation = "3.1a", "Decoder", "Decoder", 3, "the hint: decode_step, dropout, fc"
    arguments = (DECODER, EMBEDDING, VOCAB, ENCODER, DROPOUT)
    layers = {"embedding": [nn.Embedding], "decode_step": [nn.LSTMCell], "fc": [nn.Linear, VOCAB, DECODER]}
    variants = LOG_PROBABILITIES

    def drive(self, step):
        steps, (h, c) = [], STATE
        for words in WORDS.T:
            result = self.first_that_runs(step, (words, h, c, REGIONS), (words.unsqueeze(1), h, c, REGIONS))
            if not isinstance(result, tuple) or len(result) < 3:
                raise Failure("forward must return scores, h and c")
            scores, h, c = (part.reshape(len(WORDS), -1) for part in result[:3])
            steps.append(scores)
        return {"scores": steps[0], "scores of the next step": steps[1], "h": h, "c": c}

    def forward(self, m, words, h, c, regions):
        emb, old = self.embedding.weight[words], (h, c)
        emb = self.drop(emb) if "dropout-on-embedding" in m else emb
        start = tuple(torch.zeros_like(part) for part in old) if "state-ignored" in m else old
        h, c = self.decode_step(self.cell_input(emb, old, m), start)
        scores = self.fc(self.drop(c if "scores-from-cell" in m else h, "output", m))
        scores = scores.softmax(1) if "scores-softmax" in m else scores
        scores = scores.log_softmax(1) if "log_softmax" in m else scores
        h = self.drop(h) if "state-dropout" in m else h
        c = self.drop(c) if "state-dropout/both" in m else c
        return scores, *(old if "state-not-returned" in m else (h, c))

    def cell_input(self, emb, state, m):
        return emb


class DecoderWithAttention(Decoder):
    """As the `Decoder`, where the cell reads [E w_t; context], and the context attends from h_t-1.

    context | context, alpha = self.attention(encoder_out, decoder_hidden_state)
        attends-with-cell; linear; the attention is asked with the cell state c in place of h
    context | self.decode_step(torch.cat([embeddings, context], dim=1), (h, c))
        context-unattended; mean sum; the cell reads the mean of the regions in place of the attention's context
    """

    number, name, target, n_required = "3.1b", "DecoderWithAttention", "DecoderWithAttention", 4
    equation = "the hint: the embedding concatenated with the attention vector"
    arguments = (ATTENTION, *Decoder.arguments)
    variants = Decoder.variants | {"[context; emb]": "[context; embedding]: the weights learn either order"}

    def cell_input(self, emb, state, m):
        context = self.block(self.module.attention, REGIONS, state["attends-with-cell" in m])
        context = context[0] if isinstance(context, tuple) else context
        context = REGIONS.mean(dim=1) if "context-unattended" in m else context
        return torch.cat([context, emb] if "[context; emb]" in m else [emb, context], dim=1)


QUESTIONS = [Decoder, Attention, DecoderWithAttention]
