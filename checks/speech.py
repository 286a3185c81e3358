"""2023-24, Question 3: the text decoders of the speech recogniser, made of the student's own building blocks."""

import inspect

import torch

from checks.probe import LOG_PROBABILITIES, Question, numbers

SIZES = {"freq_dim": 7, "time_dim": 9, "hidden_dim": 8, "n_heads": 2, "feed_fwd_dim": 12}  # the names of the skeleton
TEXT = torch.tensor([[1, 4, 2, 6, 3], [1, 5, 5, 3, 2], [1, 2, 6, 4, 4]])
N_READ = 3  # symbols of the first call of the recurrent decoder; the next call reads the others
N_AUDIO = 6  # positions of the encoder's output
CROSS = """
    cross = lambda x: d._cross_att(x, latent) | cross-attention-missing: lambda x: x
                                              | cross-attention-missing: lambda x: d._cross_att(x, x)
                                              | cross-attention-swapped: lambda x: d._cross_att(latent, x)
                                              | second-residual: lambda x: x + d._cross_att(x, latent)
"""
# From what the decoder d has read of the text, and what it attended to in the audio, to the logits.
OUTPUT = """
    normed = d._out_norm(attended)  | output-norm: attended
                                    | output-norm: cross(d._out_norm(read))
    scores = d._classifier(normed)  | logits-softmax with 2, 1: softmax(scores, dim=$)
                                    | log_softmax: log_softmax(scores, dim=2)
    logits = scores.transpose(1, 2) | logits-not-transposed: scores
                                    | logits-reshaped: scores.reshape(len(scores), scores.shape[2], -1)
    parts = {"LSTM or self-attention": read, "cross-attention": attended, "output norm": normed}
"""


class TextDecoderRecurrent(Question):
    """x = LSTM(LayerNorm(E y)), logits = W LayerNorm(CrossAttention(x, latent)) + b."""

    number, says = "3.1", "norm of the embeddings, LSTM with its state, cross-attention, norm, transposed logits"
    modes, output, variants = ("evaluation",), "logits", LOG_PROBABILITIES
    learned = "logits"  # of the first call: a training has no other, and may detach the state that it returns
    table = f"""
    text, latent, state = args
    d = self.module
    {CROSS}
    emb = d._rnn_norm(d._embed(text)) | embedding-norm: d._embed(text)
    given = state                     | lstm-state-ignored: None
    read, new = d._rnn(emb, given)    | embedding-norm: d._rnn(d._embed(text), given); read = d._rnn_norm(read)
    attended = cross(read)            | block-order: d._rnn(cross(emb), given); attended, new = attended
    {OUTPUT}
    result = logits, new              | lstm-state-not-returned: logits, state
    """

    def prepare(self):
        names = inspect.signature(self.code[self.target]).parameters
        self.module = self.build(self.target, **{name: size for name, size in SIZES.items() if name in names})
        self.size = self.module._classifier.in_features
        self.inputs = TEXT, numbers(len(TEXT), N_AUDIO, self.size)

    def student(self, text, latent, state):
        forward = getattr(self.module, "_forward", self.module.forward)
        return self.call(forward, text, latent, *[state] * ("state" in inspect.signature(forward).parameters))

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
    d, n = self.module, text.shape[1]
    {CROSS}
    P = d._pos_embed[:n]            | positions with 0, d._pos_embed[1:][:n], d._pos_embed[n - 1]: $
    x = d._embed(text) + P          | embedding-scaled: d._embed(text) * self.size**0.5 + P
    hidden = torch.full((n, n), -torch.inf)
    mask = hidden.triu(1)           | causal-mask with torch.zeros_like(hidden), hidden.triu(), hidden.tril(-1): $
                                    | causal-mask: torch.ones_like(hidden).tril()
    att = lambda x: d._att(x, mask) | self-attention-missing: lambda x: x
                                    | second-residual: lambda x: x + d._att(x, mask)
    read = att(x)
    attended = cross(read)          | block-order: att(cross(x))
    {OUTPUT}
    result = logits
    """
