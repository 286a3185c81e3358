"""2023-24, Question 3: the text decoders of the speech recogniser, made of the student's own building blocks."""

import inspect

import torch

from checks.probe import LOG_PROBABILITIES, Question, numbers

SIZES = {"freq_dim": 7, "time_dim": 9, "hidden_dim": 8, "n_heads": 2, "feed_fwd_dim": 12}  # the names of the skeleton
TEXT = torch.tensor([[1, 4, 2, 6, 3], [1, 5, 5, 3, 2], [1, 2, 6, 4, 4]])
N_READ = 3  # symbols of the first call of the recurrent decoder; the next call reads the others
N_AUDIO = 6  # positions of the encoder's output


class TextDecoder(Question):
    """What both decoders have: embedding, cross-attention to the audio, normalisation, classifier.

    cross-attention | x = self._cross_att(x, latent)
        cross-attention-missing; linear; the text does not attend to the audio
        second-residual/self,cross; add; x is added to the output of a block that has a residual connection already
    output norm | x = self._out_norm(self._cross_att(x, latent))
        output-norm/missing,early; linear layer_norm; the last normalisation is missing or before the cross-attention
    logits | return self._classifier(x).transpose(1, 2)
        logits-not-transposed; linear; the logits are (batch, n_text, 35), and the loss takes (batch, 35, n_text)
        logits-reshaped; view reshape; view or reshape gives the logits the right shape, with numbers in the wrong place
        logits-softmax; softmax; the outputs are probabilities, and the cross-entropy applies a second softmax
    """

    modes, output, variants = ("evaluation",), "logits", LOG_PROBABILITIES

    def prepare(self):
        decoder = self.code[self.target]
        self.module = self.build(self.target, **{name: SIZES[name] for name in SIZES if takes(decoder, name)})
        self.size = self.module._classifier.in_features
        self.inputs = TEXT, numbers(len(TEXT), N_AUDIO, self.size)

    def predict(self, x, latent, m):
        """From what the decoder has read of the text to the logits."""
        d = self.module
        x = d._out_norm(x) if "output-norm/early" in m else x
        attended = x if "cross-attention-missing" in m else self.block(d._cross_att, x, latent)
        x = x + attended if "second-residual/cross" in m else attended
        x = x if "output-norm" in m else d._out_norm(x)
        logits = d._classifier(x)
        logits = logits.softmax(-1) if "logits-softmax" in m else logits
        logits = logits.log_softmax(-1) if "log_softmax" in m else logits
        if "logits-reshaped" in m:
            return logits.reshape(len(logits), logits.shape[2], -1)
        return logits if "logits-not-transposed" in m else logits.transpose(1, 2)


class TextDecoderRecurrent(TextDecoder):
    """x = LSTM(LayerNorm(E y)), logits = W LayerNorm(CrossAttention(x, latent)) + b.

    embedding norm | x, state = self._rnn(self._rnn_norm(self._embed(x)), state)
        embedding-norm/missing,after; lstm; the embeddings are not normalised before the LSTM
    state | x, state = self._rnn(x, state)
        lstm-state-ignored; lstm; the LSTM does not start from the state that _forward is given
    state | return logits, state, with the state that self._rnn returned
        lstm-state-not-returned; lstm; _forward does not return the LSTM's new state, so generate starts anew each time
    """

    number, name, target = "3.1", "TextDecoderRecurrent", "TextDecoderRecurrent"
    equation = "steps 1 to 5"

    def student(self, text, latent, state):
        forward = getattr(self.module, "_forward", self.module.forward)
        return self.call(forward, text, latent, *([state] if takes(forward, "state") else []))

    def drive(self, decode):
        parts, state = {}, None
        for part, text in (("logits", TEXT[:, :N_READ]), ("logits of the next call", TEXT[:, N_READ:])):
            result = decode(text, self.inputs[1], state)
            parts[part], state = result[:2] if isinstance(result, tuple) else (result, None)
        return parts | {"h": torch.zeros(1, len(TEXT), self.size) if state is None else state[0]}

    def forward(self, m, text, latent, state):
        d = self.module
        x = d._embed(text)
        x = x if "embedding-norm" in m else d._rnn_norm(x)
        x, new = d._rnn(x, None if "lstm-state-ignored" in m else state)
        x = d._rnn_norm(x) if "embedding-norm/after" in m else x
        return self.predict(x, latent, m), state if "lstm-state-not-returned" in m else new


class TextDecoderTransformer(TextDecoder):
    """x = MaskedAttention(E y_t + P_t), logits = W LayerNorm(CrossAttention(x, latent)) + b.

    self-attention | x = self._att(x, self._mask[:n_text, :n_text]), and then x = self._cross_att(x, latent)
        causal-mask/none,transposed; softmax; a symbol attends to later ones: the mask is missing or transposed
        self-attention-missing; linear; the self-attention layer is not used
        block-order; linear; the cross-attention comes before the self-attention
    positions | x = self._embed(x) + self._pos_embed[: x.shape[1]]
        positions/missing,shifted,last; add embedding; the position embeddings are missing or not those of 0 to n - 1
    """

    number, name, target = "3.2", "TextDecoderTransformer", "TextDecoderTransformer"
    equation = "steps 1 to 6"

    def forward(self, m, text, latent):
        d, n_text = self.module, text.shape[1]
        P = d._pos_embed[n_text - 1 : n_text] if "positions/last" in m else d._pos_embed[:n_text]
        P = d._pos_embed[1 : n_text + 1] if "positions/shifted" in m else P
        x = d._embed(text) if "positions/missing" in m else d._embed(text) + P
        x = self.block(d._cross_att, x, latent) if "block-order" in m else x
        mask = torch.full((n_text, n_text), -torch.inf).triu(1)  # -inf above the diagonal
        mask = torch.zeros_like(mask) if "causal-mask/none" in m else mask.T if "causal-mask/transposed" in m else mask
        attended = x if "self-attention-missing" in m else self.block(d._att, x, mask)
        x = x + attended if "second-residual/self" in m else attended
        return self.predict(x, latent, m | {"cross-attention-missing"} if "block-order" in m else m)


def takes(function, name):
    """Whether a function, or the __init__ of a class, has an argument of this name."""
    return name in inspect.signature(function).parameters


QUESTIONS = [TextDecoderRecurrent, TextDecoderTransformer]
