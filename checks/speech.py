"""2023-24, Question 3: the text decoders of the speech recogniser, made of the student's own building blocks."""

import inspect

import torch

from checks.probe import LOG_PROBABILITIES, Question, numbers

SIZES = {"freq_dim": 7, "time_dim": 9, "hidden_dim": 8, "n_heads": 2, "feed_fwd_dim": 12}  # the names of the skeleton
TEXT = torch.tensor([[1, 4, 2, 6, 3], [1, 5, 5, 3, 2], [1, 2, 6, 4, 4]])
N_READ = 3  # symbols of the first call of the recurrent decoder; the next call reads the others
N_AUDIO = 6  # positions of the encoder's output
# From what a decoder has read of the text to the logits, where d is the decoder and cross its cross-attention.
OUTPUT = """
    attended = cross(x, latent)     | cross-attention-missing: x
                                    | second-residual: x + cross(x, latent)
                                    | output-norm: cross(d._out_norm(x), latent)
    normed = d._out_norm(attended)  | output-norm: attended
    logits = d._classifier(normed)  | logits-softmax: softmax(d._classifier(normed), dim=2)
                                    | log_softmax: log_softmax(d._classifier(normed), dim=2)
    parts = {"cross-attention": attended, "output norm": normed}
    logits = logits.transpose(1, 2) | logits-not-transposed: logits
                                    | logits-reshaped: logits.reshape(len(logits), logits.shape[2], -1)
"""


def takes(function, name):
    """Whether a function, or the __init__ of a class, has an argument of this name."""
    return name in inspect.signature(function).parameters


class TextDecoderRecurrent(Question):
    """x = LSTM(LayerNorm(E y)), logits = W LayerNorm(CrossAttention(x, latent)) + b."""

    number, says = "3.1", "norm of the embeddings, LSTM with its state, cross-attention, norm, transposed logits"
    modes, output, variants = ("evaluation",), "logits", LOG_PROBABILITIES
    table = f"""
    text, latent, state = args
    d, cross = self.module, self.module._cross_att
    emb = d._rnn_norm(d._embed(text)) | embedding-norm: d._embed(text)
    x, new = d._rnn(emb, state)       | embedding-norm: d._rnn(d._embed(text), state); x = d._rnn_norm(x)
                                      | lstm-state-ignored: d._rnn(emb)
    {OUTPUT}
    result = logits, new              | lstm-state-not-returned: logits, state
    """

    def prepare(self):
        decoder = self.code[self.target]
        self.module = self.build(self.target, **{name: SIZES[name] for name in SIZES if takes(decoder, name)})
        self.size = self.module._classifier.in_features
        self.inputs = TEXT, numbers(len(TEXT), N_AUDIO, self.size)

    def student(self, text, latent, state):
        forward = getattr(self.module, "_forward", self.module.forward)
        return self.call(forward, text, latent, *([state] if takes(forward, "state") else []))

    def drive(self, decode):
        parts, state = {}, None
        for part, text in (("logits", TEXT[:, :N_READ]), ("logits of the next call", TEXT[:, N_READ:])):
            result = decode(text, self.inputs[1], state)
            parts[part], state = result[:2] if isinstance(result, tuple) else (result, None)
        return parts | {"h": torch.zeros(1, len(TEXT), self.size) if state is None else state[0]}


class TextDecoderTransformer(TextDecoderRecurrent):
    """x = MaskedAttention(E y_t + P_t), logits = W LayerNorm(CrossAttention(x, latent)) + b."""

    number, says = "3.2", "positions, masked self-attention, cross-attention, norm, transposed logits"
    student, drive = Question.student, Question.drive
    table = f"""
    text, latent = args
    d, n, first = self.module, text.shape[1], lambda x, latent: x
    P = d._pos_embed[:n]                          | positions with 0, d._pos_embed[1:][:n], d._pos_embed[n - 1]: $
    x = d._embed(text) + P
    mask = torch.full((n, n), -torch.inf).triu(1) | causal-mask: torch.zeros(n, n)
                                                  | causal-mask: torch.full((n, n), -torch.inf).tril(-1)
    x, cross = d._att(x, mask), d._cross_att      | self-attention-missing: x, d._cross_att
                                                  | second-residual: x + d._att(x, mask), d._cross_att
                                                  | block-order: d._att(d._cross_att(x, latent), mask), first
    {OUTPUT}
    result = logits
    """
