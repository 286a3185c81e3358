"""2021-22, Question 3: the caption decoder with and without attention, and the additive attention."""

import torch
from torch import nn

from checks.probe import LOG_PROBABILITIES, Failure, Question, numbers

ENCODER, DECODER, EMBEDDING, ATTENTION, VOCAB, DROPOUT = 5, 6, 4, 7, 11, 0.5
REGIONS = 3 * numbers(3, 9, ENCODER)  # (batch_size, n_regions, encoder_dim), such that scores of both signs occur
STATE = numbers(3, DECODER, seed=1), numbers(3, DECODER, seed=2)  # h and c
WORDS = torch.tensor([[1, 5, 9], [4, 8, 2]])  # of two steps


class Attention(Question):
    """e_i = v . f(W_1 h + W_2 s_i), alpha = softmax(e), context = sum_i alpha_i s_i, where f is relu or tanh."""

    number, n_required, says = "3.1b", 3, "scores from regions and state, softmax over the regions, weighted sum"
    arguments, inputs, output = (ENCODER, DECODER, ATTENTION), (REGIONS, STATE[0]), "context"
    layers = {"encoder_att": [nn.Linear, ATTENTION, ENCODER], "decoder_att": [nn.Linear, ATTENTION, DECODER]}
    layers |= {"full_att": [nn.Linear, 1, ATTENTION]}
    variants = {"tanh": "f is tanh, as in the lecture; the skeleton has relu, and both are right"}
    table = """
    regions, h = args
    state = self.decoder_att(h[:, None])   | energy-without-state: 0
    energy = self.encoder_att(regions) + state
    f = relu(energy)                       | tanh: tanh(energy)
                                           | energy-activation: energy
    e = self.full_att(f)                   | activation-place with relu, tanh: $(self.full_att(energy))
    alpha = softmax(e, dim=1)              | region-softmax-dimension with 0, 2: softmax(e, dim=$)
                                           | region-softmax-missing: e
    context = (alpha * regions).sum(dim=1) | context-mean: (alpha * regions).mean(dim=1)
                                           | context-unweighted: regions.mean(dim=1)
    result, parts = context, {"e": e, "alpha": alpha}
    """


class Decoder(Question):
    """h_t, c_t = decode_step(E w_t, h_t-1, c_t-1), scores = fc(drop(h_t)); the state is returned without dropout."""

    number, n_required, says = "3.1a", 3, "embedding, decode_step, dropout, fc; the state without dropout"
    arguments, dropout = (DECODER, EMBEDDING, VOCAB, ENCODER, DROPOUT), DROPOUT
    layers = {"embedding": [nn.Embedding], "decode_step": [nn.LSTMCell], "fc": [nn.Linear, VOCAB, DECODER]}
    variants = LOG_PROBABILITIES | {"[context; emb]": "[context; embedding]: the weights learn either order"}
    table = """
    words, h, c, regions = args
    emb = self.embedding.weight[words]         | dropout-on-embedding: self.drop(self.embedding.weight[words])
    context = self.attend(regions, h)          | attends-with-cell: self.attend(regions, c)
                                               | context-unattended: regions.mean(dim=1)
    x = torch.cat([emb, context], dim=1)       | [context; emb]: torch.cat([context, emb], dim=1)
                                               | dropout-on-embedding: self.drop(x)
    new_h, new_c = self.decode_step(x, (h, c)) | state-ignored: self.decode_step(x)
                                               | state-parts: self.decode_step(x, (c, h))
    output = new_h                             | scores-from-cell: new_c
                                               | scores-from-old-state: h
    dropped = self.drop(output)                | output-dropout: output
    scores = self.fc(dropped)                  | scores-softmax: softmax(self.fc(dropped), dim=1)
                                               | dropout-on-scores: self.drop(self.fc(output))
                                               | log_softmax: log_softmax(self.fc(dropped), dim=1)
    result = scores, new_h, new_c              | state-dropout with new_c, self.drop(new_c): scores, self.drop(new_h), $
                                               | state-not-returned: scores, h, c
                                               | state-parts: scores, new_c, new_h
    """

    def drive(self, step):
        steps, (h, c) = [], STATE
        for words in WORDS:
            result = self.first_that_runs(step, (words, h, c, REGIONS), (words.unsqueeze(1), h, c, REGIONS))
            if not isinstance(result, tuple) or len(result) < 3:
                raise Failure("forward must return scores, h and c")
            scores, h, c = (part.reshape(len(words), -1) for part in result[:3])
            steps.append(scores)
        return {"scores": steps[0], "scores of the next step": steps[1], "h": h, "c": c}

    def attend(self, regions, state):
        """The context that the cell reads beside the word: none."""
        return regions[:, 0, :0]


class DecoderWithAttention(Decoder):
    """As the `Decoder`, where the cell reads [E w_t; context], and the context attends from h_t-1."""

    number, n_required, says = "3.1b", 4, f"[embedding; context from h], {Decoder.says.partition(', ')[2]}"
    arguments, uses = (ATTENTION, *Decoder.arguments), ("Attention",)

    def attend(self, regions, state):
        context = self.module.attention(regions, state)
        return context[0] if isinstance(context, tuple) else context
