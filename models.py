"""The networks, in the order of the questions. No files, no devices, no decoding, no printing."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from editions import EDITIONS

IMAGE_SIDE = 28  # pixels, in every edition of Question 2
POSITION_STD = 0.02  # standard deviation of the learned positions before training
FORMULA_ON = ("cpu",)  # devices on which the formula of attention is faster than PyTorch's own function


def get_number_trainable_params(model):
    """The number of trainable parameters of `model` (2023-24, Question 2.3)."""
    return sum(param.numel() for param in model.parameters() if param.requires_grad)


class CNN(nn.Module):
    """The convolutional network of Question 2: two convolutions, then three affine layers.

        h1 = pool(relu(conv1(x))),  h2 = pool(relu(conv2(h1)))
        log p = log_softmax(fc3(relu(fc2(drop(relu(fc1(h2)))))))

    The pooling takes the maximum of 2x2 cells with stride 2. With `no_maxpool` there is no pooling, and both
    convolutions are 3x3 with stride 2 (2023-24, Question 2.2). In both cases h2 has 6x6 cells.

    Args:
        dropout_prob: probability that a feature of the first affine layer is dropped in training.
        no_maxpool: use strided convolutions in place of max pooling.
        edition: a year of `editions.EDITIONS`, which has the channels, the kernel and the layer sizes.
        n_classes: number of outputs; by default the edition's.

    Shapes:
        x: (batch_size, 1, 28, 28), or flattened to (batch_size, 784) as the course's loaders give it
        returns log-probabilities (batch_size, n_classes)
    """

    def __init__(self, dropout_prob, no_maxpool=False, edition="2022-23", n_classes=None):
        super().__init__()
        spec = EDITIONS[edition]
        (channels1, channels2), (hidden1, hidden2) = spec.channels, spec.fc_sizes
        if no_maxpool:
            self.conv1 = nn.Conv2d(1, channels1, kernel_size=3, stride=2, padding=1)
            self.conv2 = nn.Conv2d(channels1, channels2, kernel_size=3, stride=2, padding=0)
            self.pool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(1, channels1, kernel_size=spec.conv1_kernel, padding=spec.conv1_kernel // 2)
            self.conv2 = nn.Conv2d(channels1, channels2, kernel_size=3, padding=0)
            self.pool = nn.MaxPool2d(kernel_size=2, stride=2)

        # conv1 is padded and keeps the side; conv2 takes 2 cells off. The pooling or the stride halves the side.
        side1 = IMAGE_SIDE // 2
        side2 = (side1 - 2) // 2
        self.fc1 = nn.Linear(channels2 * side2 * side2, hidden1)
        self.fc2 = nn.Linear(hidden1, hidden2)
        self.fc3 = nn.Linear(hidden2, n_classes or spec.n_classes)
        self.drop = nn.Dropout(dropout_prob)

    def forward(self, x):
        x = x.reshape(-1, 1, IMAGE_SIDE, IMAGE_SIDE)
        x = self.pool(F.relu(self.conv1(x)))  # (batch_size, channels1, 14, 14)
        x = self.pool(F.relu(self.conv2(x)))  # (batch_size, channels2, 6, 6)
        x = x.flatten(1)  # (batch_size, channels2 * 6 * 6)
        x = self.drop(F.relu(self.fc1(x)))
        x = F.relu(self.fc2(x))
        return F.log_softmax(self.fc3(x), dim=-1)


class MLP(nn.Module):
    """The fully connected counterpart of `CNN`: the same three affine layers on the pixels, without convolutions.

        log p = log_softmax(fc3(relu(fc2(drop(relu(fc1(x)))))))

    It does not know which pixels are neighbours, so it learns equally well from pixels in any fixed order (2022-23,
    Questions 2.1 to 2.3). In 2022-23 it has 544,330 parameters, 471,000 of them in fc1. Arguments, shapes: as in `CNN`.
    """

    def __init__(self, dropout_prob, edition="2022-23", n_classes=None):
        super().__init__()
        spec = EDITIONS[edition]
        hidden1, hidden2 = spec.fc_sizes
        self.fc1 = nn.Linear(IMAGE_SIDE**2, hidden1)
        self.fc2 = nn.Linear(hidden1, hidden2)
        self.fc3 = nn.Linear(hidden2, n_classes or spec.n_classes)
        self.drop = nn.Dropout(dropout_prob)

    def forward(self, x):
        x = x.flatten(1)  # (batch_size, 784)
        x = self.drop(F.relu(self.fc1(x)))
        x = F.relu(self.fc2(x))
        return F.log_softmax(self.fc3(x), dim=-1)


def sequence_mask(lengths, max_len=None):
    """A mask (batch_size, max_len), True at the real symbols; `max_len` is by default the longest of the lengths."""
    max_len = lengths.max() if max_len is None else max_len
    return torch.arange(max_len, device=lengths.device) < lengths.unsqueeze(1)


def reshape_state(state):
    """Join the two directions of an LSTM's state: h and c, each (2, batch_size, n), become (1, batch_size, 2n).

    A plain `view` would mix the sentences of the batch. A state of one direction stays as it is.
    """
    if state[0].shape[0] == 1:
        return state
    return tuple(torch.cat([part[0], part[1]], dim=-1).unsqueeze(0) for part in state)


class Attention(nn.Module):
    """Bilinear attention (2022-23, Question 3.1b, equations 1 to 4; "general" in Luong et al., 2015).

        p = softmax(s)                  (1)
        s_i = z^T h_i,  z = W_q^T q     (2)
        c = sum_i p_i h_i               (3)
        a_o = tanh(W_o^T [q; c])        (4)

    q is the decoder's state and h_i the encoder's output. W_q^T is `linear_in`; W_o^T is `linear_out`, with a bias.
    All target steps are computed at once, since no step reads the a_o of another.

    Shapes:
        query: (batch_size, max_tgt_len, hidden_size)
        encoder_outputs: (batch_size, max_src_len, hidden_size)
        src_lengths: (batch_size), each at least 1; None where no sentence is padded
        returns attn_out (batch_size, max_tgt_len, hidden_size)

    Attributes:
        alpha: (batch_size, max_tgt_len, max_src_len), the weights p of the last call, for the figures.
    """

    def __init__(self, hidden_size):
        super().__init__()
        self.linear_in = nn.Linear(hidden_size, hidden_size, bias=False)
        self.linear_out = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, query, encoder_outputs, src_lengths):
        scores = self.linear_in(query) @ encoder_outputs.transpose(1, 2)  # (2): (batch_size, max_tgt_len, max_src_len)
        if src_lengths is not None:
            mask = sequence_mask(src_lengths, encoder_outputs.shape[1]).to(query.device)  # (batch_size, max_src_len)
            scores = scores.masked_fill(~mask.unsqueeze(1), float("-inf"))
        p = scores.softmax(dim=-1)  # (1)
        context = p @ encoder_outputs  # (3): (batch_size, max_tgt_len, hidden_size)
        self.alpha = p.detach()
        return torch.tanh(self.linear_out(torch.cat([query, context], dim=-1)))  # (4)


class Encoder(nn.Module):
    """The bidirectional LSTM that reads the source sentence (2022-23, Question 3.1a).

        h_1 .. h_n = drop(BiLSTM(drop(E x_1) .. drop(E x_n)))

    Padding has no influence: the backward direction starts at each sentence's own last symbol.

    Args:
        src_vocab_size: number of source symbols.
        hidden_size: size of the embedding and of the outputs, half of which belong to each direction; even.
        padding_idx: the symbol that fills up short sentences.
        dropout: probability that a value of the embeddings or of the outputs is dropped in training.

    Shapes:
        src: (batch_size, max_src_len)
        lengths: (batch_size), each at least 1; None where no sentence is padded
        returns enc_output (batch_size, max_src_len, hidden_size), which is 0 at the padding, and final_hidden, h and c,
            each (2, batch_size, hidden_size // 2): the forward direction's after the last symbol, the backward's after
            the first
    """

    def __init__(self, src_vocab_size, hidden_size, padding_idx, dropout):
        super().__init__()
        self.embedding = nn.Embedding(src_vocab_size, hidden_size, padding_idx=padding_idx)
        self.lstm = nn.LSTM(hidden_size, hidden_size // 2, bidirectional=True, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, src, lengths):
        emb = self.dropout(self.embedding(src))  # (batch_size, max_src_len, hidden_size)
        if lengths is None or lengths.min() == src.shape[1]:  # no sentence is padded
            enc_output, final_hidden = self.lstm(emb)
        else:  # packed, so that the backward direction starts at each sentence's own last symbol
            packed = pack_padded_sequence(emb, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed, final_hidden = self.lstm(packed)
            enc_output, _ = pad_packed_sequence(packed, batch_first=True, total_length=src.shape[1])
        return self.dropout(enc_output), final_hidden


class Decoder(nn.Module):
    """The LSTM that writes the target sentence, with attention or without (2022-23, Questions 3.1a and 3.1b).

        q_1 .. q_m = LSTM(drop(E y_0) .. drop(E y_m-1)),  out_t = drop(a_o(q_t)), or drop(q_t) without attention

    The next step reads q_t before the dropout, and it does not read out_t. One call of the LSTM over the whole target
    therefore computes the same as a loop over its symbols.

    Args:
        hidden_size: size of the state and of the embedding.
        tgt_vocab_size: number of target symbols.
        attn: an `Attention`, or None.
        padding_idx: the symbol that fills up short sentences.
        dropout: probability that a value of the embeddings or of the outputs is dropped in training.

    Shapes:
        tgt: (batch_size, max_tgt_len); each symbol is read to predict the next one. In decoding (n_hyps, 1), with the
            hypotheses of a sentence side by side.
        dec_state: h and c, each (1, batch_size, hidden_size), or the encoder's final_hidden
        encoder_outputs: (batch_size, max_src_len, hidden_size)
        src_lengths: (batch_size), or None
        returns outputs (batch_size, max_tgt_len, hidden_size), dec_state
    """

    def __init__(self, hidden_size, tgt_vocab_size, attn, padding_idx, dropout):
        super().__init__()
        self.hidden_size = hidden_size
        self.tgt_vocab_size = tgt_vocab_size
        self.embedding = nn.Embedding(tgt_vocab_size, hidden_size, padding_idx=padding_idx)
        self.lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True)
        self.attn = attn
        self.dropout = nn.Dropout(dropout)

    def forward(self, tgt, dec_state, encoder_outputs, src_lengths):
        dec_state = reshape_state(dec_state)  # each (1, batch_size, hidden_size)
        emb = self.dropout(self.embedding(tgt))  # (batch_size, max_tgt_len, hidden_size)
        outputs, dec_state = self.lstm(emb, dec_state)
        if self.attn is not None:
            # In decoding the attention reads the hypotheses of a sentence as its target steps: they share its source.
            query = outputs.reshape(len(encoder_outputs), -1, self.hidden_size)
            outputs = self.attn(query, encoder_outputs, src_lengths).reshape(outputs.shape)
        return self.dropout(outputs), dec_state


class Seq2Seq(nn.Module):
    """The translation model: encoder, decoder and output layer (2022-23, Question 3).

        logits_t = generator(out_t) = E out_t + b

    The output layer shares its weight E with the decoder's embedding. `forward` reads a given target (teacher forcing);
    `decoding` calls `start` and `step`. `dec_hidden` is read and returned for the skeleton's evaluation, which hands
    over one symbol at a time.

    Shapes:
        src: (batch_size, max_src_len)
        src_lengths: (batch_size), or None where no sentence is padded
        tgt: (batch_size, max_tgt_len)
        dec_hidden: the decoder's state before tgt, by default the encoder's last
        returns logits (batch_size, max_tgt_len, tgt_vocab_size), dec_hidden
    """

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.generator = nn.Linear(decoder.hidden_size, decoder.tgt_vocab_size)
        self.generator.weight = decoder.embedding.weight
        # With the embedding's standard deviation of 1 the output layer's first logits would be too large.
        with torch.no_grad():
            decoder.embedding.weight *= decoder.hidden_size**-0.5

    def forward(self, src, src_lengths, tgt, dec_hidden=None):
        enc_output, final_hidden = self.encoder(src, src_lengths)
        if dec_hidden is None:
            dec_hidden = final_hidden
        output, dec_hidden = self.decoder(tgt, dec_hidden, enc_output, src_lengths)
        return self.generator(output), dec_hidden

    def start(self, src, src_lengths):
        """The state and the memory that decoding starts from: h and c, and what the attention reads of the source."""
        enc_output, final_hidden = self.encoder(src, src_lengths)
        h, c = reshape_state(final_hidden)
        is_padded = src_lengths is not None and src_lengths.min() < src.shape[1]  # if not, no step needs a mask
        return (h.squeeze(0), c.squeeze(0)), (enc_output, src_lengths.to(enc_output.device) if is_padded else None)

    def step(self, tokens, state, memory):
        """One step of `forward`, for every hypothesis of each source sentence.

        Shapes:
            tokens: (n_hyps), the last symbols; the hypotheses of a sentence stand side by side
            state: h and c, each (n_hyps, hidden_size)
            memory: of `start`, for n_rows sentences
            returns log_probs of the next symbol (n_hyps, tgt_vocab_size), the new state, and the attention weights
                (n_hyps, max_src_len), or None without attention
        """
        dec_state = tuple(part.unsqueeze(0) for part in state)
        output, (h, c) = self.decoder(tokens.unsqueeze(1), dec_state, *memory)  # (n_hyps, 1, hidden_size)
        log_probs = self.generator(output).squeeze(1).log_softmax(dim=-1)
        alpha = None if self.decoder.attn is None else self.decoder.attn.alpha.flatten(0, 1)
        return log_probs, (h.squeeze(0), c.squeeze(0)), alpha


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with several heads (2023-24, Question 3, Appendix A; Vaswani et al., 2017).

        MultiHead(Q, K, V) = Concat(head_1 .. head_k) W^O
        head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V),  Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V

    Each head has d_k = hidden_size / n_heads features. W_1^Q .. W_k^Q side by side are the layer `query`, and so on.
    Keys and values are made of one source.

    Shapes:
        query: (batch_size, n_queries, hidden_size)
        source: (batch_size, n_source, hidden_size), or its keys and values where `project` has made them before
        mask: True at what may be attended to, (batch_size, 1, n_source) or (n_queries, n_source); None means all
        returns (batch_size, n_queries, hidden_size), and alpha, the weights softmax(Q K^T / sqrt(d_k)) of each head
            (batch_size, n_heads, n_queries, n_source), or None without `need_weights`
    """

    def __init__(self, hidden_size, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, query, source, mask=None, need_weights=False):
        keys, values = source if isinstance(source, tuple) else self.project(source)
        queries = self.split_heads(self.query(query))  # (batch_size, n_heads, n_queries, d_k)
        mask = None if mask is None else mask.unsqueeze(-3)  # the same for all heads
        if need_weights or queries.device.type in FORMULA_ON:
            scores = queries / math.sqrt(keys.shape[3]) @ keys.transpose(2, 3)
            if mask is not None:
                scores = scores.masked_fill(~mask, float("-inf"))
            alpha = scores.softmax(dim=-1)  # (batch_size, n_heads, n_queries, n_source)
            heads = alpha @ values
        else:
            # The same formula in PyTorch's own function, which keeps no (n_queries, n_source) weights in memory.
            heads = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        out = self.out(heads.transpose(1, 2).flatten(2))  # heads: (batch_size, n_heads, n_queries, d_k)
        return out, alpha if need_weights else None

    def project(self, source):
        """The keys and values of all heads, each (batch_size, n_heads, n_source, d_k)."""
        return self.split_heads(self.key(source)), self.split_heads(self.value(source))

    def split_heads(self, x):
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)  # (batch_size, n_heads, n, d_k)


class AttentionSubBlock(nn.Module):
    """Attention with its residual connection (2023-24, Question 3, Appendices A to C).

        SubBlock(x, z) = LayerNorm(x + MultiHead(LayerNorm(x), z, z))

    The residual attention layer of Appendix A is SubBlock(x, LayerNorm(x)). With `skeleton`, as in the course's
    skeleton, the outer LayerNorm is missing.

    Shapes:
        x: (batch_size, n_queries, hidden_size)
        z: (batch_size, n_source, hidden_size), or its keys and values; by default LayerNorm(x)
        mask, need_weights: of `MultiHeadAttention`
        returns (batch_size, n_queries, hidden_size), and alpha of `MultiHeadAttention`
    """

    def __init__(self, hidden_size, n_heads, dropout=0.0, skeleton=False):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.attention = MultiHeadAttention(hidden_size, n_heads)
        self.dropout = nn.Dropout(dropout)
        self.outer_norm = nn.Identity() if skeleton else nn.LayerNorm(hidden_size)

    def forward(self, x, z=None, mask=None, need_weights=False):
        normed = self.norm(x)
        context, alpha = self.attention(normed, normed if z is None else z, mask, need_weights)
        return self.outer_norm(x + self.dropout(context)), alpha


class FeedForwardSubBlock(nn.Module):
    """The feed-forward network with its residual connection (2023-24, Question 3, Appendix B).

    SubBlock(x) = LayerNorm(x + W_2 GELU(W_1 LayerNorm(x)))
    """

    def __init__(self, hidden_size, dropout=0.0, skeleton=False):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, 2 * hidden_size)
        self.fc2 = nn.Linear(2 * hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.outer_norm = nn.Identity() if skeleton else nn.LayerNorm(hidden_size)

    def forward(self, x):
        hidden = F.gelu(self.fc1(self.norm(x)))  # (batch_size, n, 2 * hidden_size)
        return self.outer_norm(x + self.dropout(self.fc2(hidden)))


class AudioEncoderTransformer(nn.Module):
    """The encoder of log-mel spectrograms: two convolutions, then Transformer blocks (2023-24, Appendix B).

        h = GELU(conv2(GELU(conv1(x)))) + P,  then n_layers times h = FeedForward(Attention(h))

    conv2 has stride 2, so that two frames become one position. P are the sinusoidal positions. Padding, which has to
    be 0, has no influence. With `skeleton` the sub-blocks have no outer LayerNorm, and one LayerNorm stands at the end.

    Shapes:
        mels: (batch_size, max_frames, n_mels)
        n_frames: (batch_size), each at least 1
        returns enc_output (batch_size, max_positions, hidden_size), n_positions (batch_size)
    """

    def __init__(self, n_mels, hidden_size, n_heads, n_layers, dropout=0.0, skeleton=False):
        super().__init__()
        self.conv1 = nn.Conv1d(n_mels, hidden_size, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(hidden_size, hidden_size, kernel_size=3, padding=1, stride=2)
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.ModuleList(
            AttentionSubBlock(hidden_size, n_heads, dropout, skeleton) for _ in range(n_layers)
        )
        self.feed_forward = nn.ModuleList(FeedForwardSubBlock(hidden_size, dropout, skeleton) for _ in range(n_layers))
        self.last_norm = nn.LayerNorm(hidden_size) if skeleton else nn.Identity()

    def forward(self, mels, n_frames):
        frame_mask = sequence_mask(n_frames, mels.shape[1]).to(mels.device)  # (batch_size, max_frames)
        x = F.gelu(self.conv1(mels.transpose(1, 2)))  # (batch_size, hidden_size, max_frames)
        x = x * frame_mask.unsqueeze(1)  # conv2 must not read what conv1 wrote over the padding
        x = F.gelu(self.conv2(x)).transpose(1, 2)  # (batch_size, max_positions, hidden_size)
        x = self.dropout(x + sinusoids(x.shape[1], x.shape[2], x.device).to(x))
        n_positions = (n_frames + 1) // 2
        mask = sequence_mask(n_positions, x.shape[1]).to(x.device).unsqueeze(1)  # (batch_size, 1, max_positions)
        for attention, feed_forward in zip(self.attention, self.feed_forward):
            x, _ = attention(x, mask=mask)
            x = feed_forward(x)
        return self.last_norm(x), n_positions


def sinusoids(n_positions, size, device=None):
    """The positions P (n_positions, size): sines in the first half, cosines in the second (Vaswani et al., 2017).

    P[t, i] = sin(t / 10000^(2i / size)),  P[t, size / 2 + i] = cos(t / 10000^(2i / size))
    """
    positions = torch.arange(n_positions, device=device).unsqueeze(1)
    angles = positions / 10000 ** (torch.arange(0, size, 2, device=device) / size)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TextDecoderRecurrent(nn.Module):
    """The text decoder with an LSTM (2023-24, Question 3.1, steps 1 to 5).

        x = LSTM(LayerNorm(E y))                            (1, 2)
        o = FeedForward(CrossAttention(x, enc_output))      (3)
        logits = W LayerNorm(o) + b                         (4, 5)

    `read` does steps 1 and 2, `score` the others: for a whole text in `forward` (teacher forcing), for one symbol in
    decoding. The course's skeleton calls the layers `_embed`, `_rnn_norm`, `_rnn`, `_cross_att` (here
    `cross_attention` and `feed_forward`), `_out_norm` and `_classifier`.

    Shapes:
        tgt: (batch_size, max_tgt_len); each symbol is read to predict the next one
        enc_output: (batch_size, max_positions, hidden_size)
        n_positions: (batch_size)
        returns logits (batch_size, max_tgt_len, vocab_size); with `need_weights` the pair of the logits and the weights
            of the cross-attention (batch_size, n_heads, max_tgt_len, max_positions)
    """

    def __init__(self, vocab_size, hidden_size, n_heads, dropout=0.0, skeleton=False):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.emb_norm = nn.LayerNorm(hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.cross_attention = AttentionSubBlock(hidden_size, n_heads, dropout, skeleton)
        self.feed_forward = FeedForwardSubBlock(hidden_size, dropout, skeleton)
        self.norm = nn.LayerNorm(hidden_size)
        self.classifier = nn.Linear(hidden_size, vocab_size)

    def forward(self, tgt, enc_output, n_positions, need_weights=False):
        mask = sequence_mask(n_positions, enc_output.shape[1]).to(enc_output.device).unsqueeze(1)
        x, _ = self.read(tgt, self.start(enc_output))
        logits, alpha = self.score(x, enc_output, mask, need_weights)
        return (logits, alpha) if need_weights else logits

    def start(self, enc_output):
        """The state before the first symbol: h and c, each (batch_size, hidden_size)."""
        zeros = enc_output.new_zeros(len(enc_output), self.lstm.hidden_size)
        return zeros, zeros

    def read(self, tgt, state):
        """x (batch_size, max_tgt_len, hidden_size), and the new state."""
        h, c = (part.unsqueeze(0) for part in state)
        emb = self.embedding(tgt)  # (1): (batch_size, max_tgt_len, hidden_size)
        x, (h, c) = self.lstm(self.dropout(self.emb_norm(emb)), (h, c))  # (2)
        return x, (h.squeeze(0), c.squeeze(0))

    def score(self, x, enc_output, mask, need_weights=False):
        """The logits, and the weights or None; enc_output may be its keys and values, as in `AttentionSubBlock`."""
        x, alpha = self.cross_attention(x, enc_output, mask, need_weights)  # (3), first sub-block
        x = self.feed_forward(x)  # (3), second sub-block
        x = self.norm(x)  # (4)
        return self.classifier(x), alpha  # (5): (batch_size, max_tgt_len, vocab_size)


class TextDecoderTransformer(nn.Module):
    """The text decoder with masked self-attention (2023-24, Question 3.2, steps 1 to 6).

        x = SelfAttention(E y + P)                          (1 to 3), in which position t sees positions up to t
        o = FeedForward(CrossAttention(x, enc_output))      (4)
        logits = W LayerNorm(o) + b                         (5, 6)

    P are learned positions; a text has at most `max_text_length` symbols. `read` does steps 1 to 3, `score` the others.
    The course's skeleton calls the layers `_embed`, `_pos_embed`, `_att`, `_cross_att` (here `cross_attention` and
    `feed_forward`), `_out_norm` and `_classifier`. Shapes are those of `TextDecoderRecurrent`.
    """

    def __init__(self, vocab_size, hidden_size, n_heads, max_text_length, dropout=0.0, skeleton=False):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.positions = nn.Parameter(torch.zeros(max_text_length, hidden_size))
        nn.init.normal_(self.positions, std=POSITION_STD)
        self.dropout = nn.Dropout(dropout)
        self.self_attention = AttentionSubBlock(hidden_size, n_heads, dropout, skeleton)
        self.cross_attention = AttentionSubBlock(hidden_size, n_heads, dropout, skeleton)
        self.feed_forward = FeedForwardSubBlock(hidden_size, dropout, skeleton)
        self.norm = nn.LayerNorm(hidden_size)
        self.classifier = nn.Linear(hidden_size, vocab_size)

    def forward(self, tgt, enc_output, n_positions, need_weights=False):
        mask = sequence_mask(n_positions, enc_output.shape[1]).to(enc_output.device).unsqueeze(1)
        x, _ = self.read(tgt)
        logits, alpha = self.score(x, enc_output, mask, need_weights)
        return (logits, alpha) if need_weights else logits

    def start(self, enc_output):
        """The state before the first symbol: the keys and values of no symbol, each (batch_size, n_heads, 0, d_k)."""
        n_heads = self.self_attention.attention.n_heads
        empty = enc_output.new_zeros(len(enc_output), n_heads, 0, enc_output.shape[2] // n_heads)
        return empty, empty

    def read(self, tgt, state=None):
        """x (batch_size, max_tgt_len, hidden_size) of a whole text, or of its next symbol; and the new state.

        The state has the keys and values of all symbols that were read, so that none is computed again.
        """
        n_read, n = 0 if state is None else state[0].shape[2], tgt.shape[1]
        emb = self.embedding(tgt)  # (1): (batch_size, max_tgt_len, hidden_size)
        x = self.dropout(emb + self.positions[n_read : n_read + n])  # (2)
        causal_mask = None  # one symbol sees all that were read
        if state is None:
            causal_mask = torch.ones(n, n, dtype=torch.bool, device=tgt.device).tril()  # row t is True up to column t
        else:
            new = self.self_attention.attention.project(self.self_attention.norm(x))
            state = tuple(torch.cat([old, part], dim=2) for old, part in zip(state, new))
        x, _ = self.self_attention(x, state, causal_mask)  # (3)
        return x, state

    def score(self, x, enc_output, mask, need_weights=False):
        """The logits, and the weights or None; enc_output may be its keys and values, as in `AttentionSubBlock`."""
        x, alpha = self.cross_attention(x, enc_output, mask, need_weights)  # (4), first sub-block
        x = self.feed_forward(x)  # (4), second sub-block
        x = self.norm(x)  # (5)
        return self.classifier(x), alpha  # (6): (batch_size, max_tgt_len, vocab_size)


class SpeechToText(nn.Module):
    """The speech recogniser: an audio encoder and a text decoder (2023-24, Question 3).

        logits = decoder(tgt, encoder(mels))

    `forward` reads a given text (teacher forcing); `decoding` calls `start` and `step`. With `ctc` the affine layer of
    that name predicts a symbol at each position of the encoder's output, for an auxiliary CTC loss in training (Graves
    et al., 2006, ICML); its last output is the blank.

    Shapes:
        mels: (batch_size, max_frames, n_mels)
        n_frames: (batch_size)
        tgt: (batch_size, max_tgt_len)
        returns logits (batch_size, max_tgt_len, vocab_size)
    """

    def __init__(self, encoder, decoder, ctc=False):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        hidden_size, vocab_size = decoder.classifier.in_features, decoder.classifier.out_features
        self.ctc = nn.Linear(hidden_size, vocab_size + 1) if ctc else None

    def forward(self, mels, n_frames, tgt):
        enc_output, n_positions = self.encoder(mels, n_frames)
        return self.decoder(tgt, enc_output, n_positions)

    def start(self, mels, n_frames):
        """The state and the memory that decoding starts from.

        The state is the decoder's. The memory has the keys and values that the cross-attention makes of the audio, the
        same at every step, and the mask of its positions.
        """
        enc_output, n_positions = self.encoder(mels, n_frames)
        keys, values = self.decoder.cross_attention.attention.project(enc_output)
        mask = sequence_mask(n_positions, enc_output.shape[1]).to(enc_output.device).unsqueeze(1)
        # Contiguous once, or each step would copy them for its products.
        return self.decoder.start(enc_output), (keys.contiguous(), values.contiguous(), mask)

    def step(self, tokens, state, memory):
        """One step of `forward`, for every hypothesis of each clip.

        Shapes:
            tokens: (n_hyps), the last symbols; the hypotheses of a clip stand side by side
            state: of the decoder, for n_hyps hypotheses
            memory: of `start`, for n_rows clips
            returns log_probs of the next symbol (n_hyps, vocab_size), the new state, and the attention weights of each
                head (n_hyps, n_heads, max_positions)
        """
        keys, values, mask = memory
        x, state = self.decoder.read(tokens.unsqueeze(1), state)  # (n_hyps, 1, hidden_size)
        x = x.view(len(keys), -1, x.shape[2])  # the hypotheses of a clip are the queries of its memory
        logits, alpha = self.decoder.score(x, (keys, values), mask, need_weights=True)
        return logits.flatten(0, 1).log_softmax(dim=-1), state, alpha.transpose(1, 2).flatten(0, 1)


class AdditiveAttention(nn.Module):
    """Additive attention of the caption decoder over the regions of the image (2021-22, Question 3.1b).

        e_i = v . f(W_1 h + W_2 s_i),  alpha = softmax(e),  z = sum_i alpha_i s_i

    h is the decoder's state and s_i one cell of the encoder's map (Bahdanau et al., 2015,
    https://arxiv.org/abs/1409.0473). W_1, with a bias, is `decoder_att`, W_2 is `encoder_att` and v is `full_att`.

    Args:
        encoder_dim: size of s_i. decoder_dim: size of h. attention_dim: size of W_1 h and W_2 s_i.
        activation: f, "relu" as in the skeleton, or "tanh" as in the paper.

    Shapes:
        encoder_out: (n_images, n_regions, encoder_dim)
        decoder_hidden: (n_images, n_captions, decoder_dim)
        keys: (n_images, n_regions, attention_dim), encoder_att(encoder_out) where it has been computed before
        returns z (n_images, n_captions, encoder_dim), alpha (n_images, n_captions, n_regions)
    """

    ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}

    def __init__(self, encoder_dim, decoder_dim, attention_dim, activation="relu"):
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim, bias=False)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1, bias=False)
        self.activation = self.ACTIVATIONS[activation]

    def forward(self, encoder_out, decoder_hidden, keys=None):
        keys = self.encoder_att(encoder_out) if keys is None else keys
        # Every caption of an image meets every region of it: (n_images, n_captions, n_regions, attention_dim).
        energy = self.activation(self.decoder_att(decoder_hidden).unsqueeze(2) + keys.unsqueeze(1))
        scores = self.full_att(energy).squeeze(3)  # (n_images, n_captions, n_regions)
        alpha = scores.softmax(dim=-1)
        return alpha @ encoder_out, alpha


class CaptionDecoder(nn.Module):
    """The LSTM that writes the caption of an image (2021-22, Question 3.1a).

        h_0, c_0 = init_h(s), init_c(s),  s = mean_i s_i
        h_t, c_t = decode_step(E w_t-1, h_t-1, c_t-1),  logits_t = fc(dropout(h_t))

    `forward` reads given captions (teacher forcing), one or more of each image; `decoding` calls `start` and `step`.
    The first weights of E and fc are uniform from -0.1 to 0.1, as in the skeleton.

    Args:
        decoder_dim: size of the state. embed_dim: size of the words' embedding.
        vocab_size: number of words, special symbols included.
        encoder_dim: number of channels of the encoder's map.
        dropout_rate: probability that a value of the state is dropped before the output layer in training.
        standardize: read s_i standardised by channel, with the statistics that `set_statistics` takes from training
            images, since the channels of a pretrained encoder differ widely in scale. Without attention they are those
            of the mean regions, which are all that this decoder reads.
        context_dim: number of features that `decode_step` reads beside the word.

    Shapes:
        regions: (n_images, n_regions, encoder_dim), the cells s_i of the encoder's map
        captions: (n_images, n_captions, max_len), each word is read to predict the next one
        returns logits (n_images, n_captions, max_len, vocab_size)
    """

    INIT_RANGE = 0.1  # of the first weights of `embedding` and `fc`
    N_STATISTICS = 500 * 49  # cells at most, which bounds the memory that they take as floats
    MIN_STD = 1e-3  # of a channel; one that hardly ever changes is not blown up further

    def __init__(
        self, decoder_dim, embed_dim, vocab_size, encoder_dim=512, dropout_rate=0.5, standardize=False, context_dim=0
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        self.init_c = nn.Linear(encoder_dim, decoder_dim)
        self.decode_step = nn.LSTMCell(embed_dim + context_dim, decoder_dim)
        self.dropout = nn.Dropout(dropout_rate)
        self.fc = nn.Linear(decoder_dim, vocab_size)
        nn.init.uniform_(self.embedding.weight, -self.INIT_RANGE, self.INIT_RANGE)
        nn.init.uniform_(self.fc.weight, -self.INIT_RANGE, self.INIT_RANGE)
        nn.init.zeros_(self.fc.bias)
        self.register_buffer("region_mean", torch.zeros(encoder_dim) if standardize else None)
        self.register_buffer("region_std", torch.ones(encoder_dim) if standardize else None)

    def set_statistics(self, regions):
        """Take the mean and the standard deviation of each channel from the regions of training images."""
        n_images, n_regions, _ = regions.shape
        stride = math.ceil(n_images * n_regions / self.N_STATISTICS)
        cells = regions[::stride].flatten(0, 1).float()
        self.region_mean.copy_(cells.mean(dim=0))
        self.region_std.copy_(cells.std(dim=0).nan_to_num().clamp(min=self.MIN_STD))  # nan: a single cell

    def standardized(self, regions):
        return regions if self.region_mean is None else (regions - self.region_mean) / self.region_std

    def init_hidden_state(self, regions):
        """h_0 and c_0, each (n_images, decoder_dim), of the regions as the decoder reads them."""
        s = regions.mean(dim=1)  # (n_images, encoder_dim)
        return self.init_h(s), self.init_c(s)

    def forward(self, regions, captions):
        n_images, n_captions, max_len = captions.shape
        state, memory = self.start(regions)
        state = [part.repeat_interleave(n_captions, dim=0) for part in state]
        emb = self.embedding(captions.flatten(0, 1))  # (n_images * n_captions, max_len, embed_dim)
        outputs = []
        for t in range(max_len):
            state, _ = self.read(emb[:, t], state, memory)  # h and c, each (n_images * n_captions, decoder_dim)
            outputs.append(state[0])
        logits = self.fc(self.dropout(torch.stack(outputs, dim=1)))
        return logits.unflatten(0, (n_images, n_captions))

    def read(self, emb, state, memory):
        """Read a word: h_t and c_t, and the weights of the regions, None without attention; shapes of `step`."""
        return self.decode_step(emb, state), None

    def start(self, regions):
        """The state and the memory that decoding starts from: h_0 and c_0, and nothing of the image beside them."""
        return self.init_hidden_state(self.standardized(regions)), ()

    def step(self, tokens, state, memory):
        """One step of `forward` without dropout, for every hypothesis of each image.

        Shapes:
            tokens: (n_hyps), the last words; the hypotheses of an image stand side by side
            state: h and c, each (n_hyps, decoder_dim)
            memory: of `start`, for n_images images
            returns log_probs of the next word (n_hyps, vocab_size), the new state, and the weights of the regions
                (n_hyps, n_regions), or None without attention
        """
        (h, c), alpha = self.read(self.embedding(tokens), state, memory)
        return self.fc(h).log_softmax(dim=-1), (h, c), alpha


class CaptionDecoderWithAttention(CaptionDecoder):
    """The caption decoder that looks at the regions of the image before each word (2021-22, Question 3.1b).

        h_t, c_t = decode_step([E w_t-1; z_t], h_t-1, c_t-1),  z_t = attention(s, h_t-1),  logits_t = fc(dropout(h_t))

    `attention_dim` and `activation` are those of `AdditiveAttention`. Other arguments and shapes are those of
    `CaptionDecoder`.
    """

    def __init__(
        self, attention_dim, decoder_dim, embed_dim, vocab_size, encoder_dim=512, dropout_rate=0.5, standardize=False,
        activation="relu",
    ):  # fmt: skip
        super().__init__(decoder_dim, embed_dim, vocab_size, encoder_dim, dropout_rate, standardize, encoder_dim)
        self.attention = AdditiveAttention(encoder_dim, decoder_dim, attention_dim, activation)

    def start(self, regions):
        """The state h_0 and c_0, and the memory: the regions s_i of each image, and W_2 s_i, the same at every step."""
        regions = self.standardized(regions)
        return self.init_hidden_state(regions), (regions, self.attention.encoder_att(regions))

    def read(self, emb, state, memory):
        h, c = state
        regions, keys = memory
        z, alpha = self.attention(regions, h.unflatten(0, (len(regions), -1)), keys)
        x = torch.cat([emb, z.flatten(0, 1)], dim=1)  # (n_hyps, embed_dim + encoder_dim)
        return self.decode_step(x, (h, c)), alpha.flatten(0, 1)
