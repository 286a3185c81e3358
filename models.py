"""The networks, in the order of the questions. No files, no devices, no decoding, no printing."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from editions import DEFAULT_EDITION, EDITIONS

IMAGE_SIDE = 28  # pixels, in every edition of Question 2
POSITION_STD = 0.02  # of learned positions at first


def get_number_trainable_params(model):
    """The number of trainable parameters of `model` (2023-24, Question 2.3)."""
    return sum(param.numel() for param in model.parameters() if param.requires_grad)


class _Classifier(nn.Module):
    """The last layers of both networks of Question 2: three affine layers and a log-softmax.

    head(x) = log_softmax(fc3(relu(fc2(drop(relu(fc1(x)))))))
    """

    def add_head(self, n_features, dropout_prob, spec, n_classes):
        self.fc1 = nn.Linear(n_features, spec.fc_sizes[0])
        self.fc2 = nn.Linear(*spec.fc_sizes)
        self.fc3 = nn.Linear(spec.fc_sizes[1], n_classes or spec.n_classes)
        self.drop = nn.Dropout(dropout_prob)

    def head(self, x):
        x = self.drop(F.relu(self.fc1(x)))
        x = F.relu(self.fc2(x))
        return F.log_softmax(self.fc3(x), dim=-1)


class CNN(_Classifier):
    """The convolutional network of Question 2: two convolutions, then the three affine layers of `_Classifier`.

        h1 = pool(relu(conv1(x))),  h2 = pool(relu(conv2(h1))),  log p = head(h2)

    The pooling takes the maximum of 2x2 cells with stride 2. With `no_maxpool` there is no pooling, and both
    convolutions are 3x3 with stride 2 (2023-24, Question 2.2). In both cases h2 has 6x6 cells.

    Args:
        dropout_prob: probability that a feature of the first affine layer is dropped in training.
        no_maxpool: use strided convolutions in place of max pooling.
        edition: a key of `editions.EDITIONS`, which gives the channels, the kernel and the layer sizes.
        n_classes: number of outputs; by default the edition's.

    Shapes:
        x: (batch_size, 1, 28, 28), or flattened to (batch_size, 784) as the course's loaders give it
        returns log-probabilities (batch_size, n_classes)
    """

    def __init__(self, dropout_prob, no_maxpool=False, edition=DEFAULT_EDITION, n_classes=None):
        super().__init__()
        spec = EDITIONS[edition]
        channels1, channels2 = spec.channels
        self.no_maxpool = no_maxpool
        if no_maxpool:
            self.conv1 = nn.Conv2d(1, channels1, kernel_size=3, stride=2, padding=1)
            self.conv2 = nn.Conv2d(channels1, channels2, kernel_size=3, stride=2, padding=0)
        else:
            self.conv1 = nn.Conv2d(1, channels1, kernel_size=spec.conv1_kernel, padding=spec.conv1_kernel // 2)
            self.conv2 = nn.Conv2d(channels1, channels2, kernel_size=3, padding=0)

        side = IMAGE_SIDE // 2  # of h1: conv1 is padded and keeps 28, then the pooling or the stride halves it
        side = (
            side - 2
        ) // 2  # of h2: conv2 has no padding and takes 2 cells, then the pooling or the stride halves it
        self.add_head(channels2 * side * side, dropout_prob, spec, n_classes)

    def forward(self, x):
        x = x.reshape(-1, 1, IMAGE_SIDE, IMAGE_SIDE)
        x = self.pool(F.relu(self.conv1(x)))  # (batch_size, channels1, 14, 14)
        x = self.pool(F.relu(self.conv2(x)))  # (batch_size, channels2, 6, 6)
        return self.head(x.flatten(1))

    def pool(self, x):
        return x if self.no_maxpool else F.max_pool2d(x, kernel_size=2, stride=2)


class MLP(_Classifier):
    """The fully connected counterpart of `CNN`: the same three affine layers on the pixels, without convolutions.

        log p = head(x)

    It does not know which pixels are neighbours, so it learns equally well from pixels in any fixed order (2022-23,
    Questions 2.1 to 2.3). It has 544,330 parameters in the edition of 2022-23, 471,000 of them in fc1, and 290,204 in
    that of 2023-24. Arguments and shapes are those of `CNN`.
    """

    def __init__(self, dropout_prob, edition=DEFAULT_EDITION, n_classes=None):
        super().__init__()
        self.add_head(IMAGE_SIDE**2, dropout_prob, EDITIONS[edition], n_classes)

    def forward(self, x):
        return self.head(x.flatten(1))


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
        lengths: (batch_size), each at least 1
        returns enc_output (batch_size, max_src_len, hidden_size), which is 0 at the padding, and final_hidden, h and c,
            each (2, batch_size, hidden_size // 2): the forward direction's after the last symbol, the backward's after
            the first
    """

    def __init__(self, src_vocab_size, hidden_size, padding_idx, dropout):
        super().__init__()
        if hidden_size % 2:
            raise ValueError(f"hidden_size must be even, got {hidden_size}")
        self.embedding = nn.Embedding(src_vocab_size, hidden_size, padding_idx=padding_idx)
        self.lstm = nn.LSTM(hidden_size, hidden_size // 2, bidirectional=True, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, src, lengths):
        emb = self.dropout(self.embedding(src))  # (batch_size, max_src_len, hidden_size)
        if bool((lengths == src.shape[1]).all()):
            # Without padding nothing has to be packed, and the LSTM's kernel for dense sequences is faster.
            enc_output, final_hidden = self.lstm(emb)
        else:
            packed = pack_padded_sequence(emb, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed, final_hidden = self.lstm(packed)
            enc_output, _ = pad_packed_sequence(packed, batch_first=True, total_length=src.shape[1])
        return self.dropout(enc_output), final_hidden


class Attention(nn.Module):
    """Bilinear attention (2022-23, Question 3.1b, equations 1 to 4; "general" in Luong et al., 2015).

        p = softmax(s)  (1),  s_i = z^T h_i, z = W_q^T q  (2),  c = sum_i p_i h_i  (3),  a_o = tanh(W_o^T [q; c])  (4)

    q is the decoder's state and h_i the encoder's output. All target steps are computed at once, since no step reads
    the a_o of another. W_q^T is `linear_in`. W_o^T is `linear_out`, with a bias b; its halves are U and V. The products
    of the source with W_q and V are the same at every step, so that decoding computes them only once:

        s_i = q^T (W_q h_i),  W_o^T [q; c] = U q + V c,  V c = sum_i p_i (V h_i)

    Shapes:
        query: (batch_size, max_tgt_len, hidden_size)
        encoder_outputs: (batch_size, max_src_len, hidden_size)
        src_lengths: (batch_size)
        returns attn_out (batch_size, max_tgt_len, hidden_size)
    """

    def __init__(self, hidden_size):
        super().__init__()
        self.linear_in = nn.Linear(hidden_size, hidden_size, bias=False)
        self.linear_out = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, query, encoder_outputs, src_lengths):
        attn_out, _ = self.attend(query, *self.project(encoder_outputs, src_lengths))
        return attn_out

    def project(self, encoder_outputs, src_lengths):
        """What `attend` reads of the source: its keys W_q h_i, its values V h_i, and the mask of its symbols."""
        _, V = self.linear_out.weight.chunk(2, dim=1)
        values = F.linear(encoder_outputs, V)
        return encoder_outputs @ self.linear_in.weight, values, sequence_mask(src_lengths, encoder_outputs)

    def attend(self, query, keys, values, mask):
        """Equations 1 to 4: attn_out, and the attention weights p (batch_size, max_tgt_len, max_src_len)."""
        U, _ = self.linear_out.weight.chunk(2, dim=1)
        scores = torch.bmm(query, keys.transpose(1, 2))  # (2): s_i = z^T h_i = q^T (W_q h_i)
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(1), float("-inf"))
        alpha = scores.softmax(dim=-1)  # (1)
        from_query = F.linear(query, U, self.linear_out.bias)
        attn_out = torch.tanh(
            torch.baddbmm(from_query, alpha, values)
        )  # (3) and (4): tanh(U q + b + sum_i p_i (V h_i))
        return attn_out, alpha


def sequence_mask(lengths, padded):
    """A mask (batch_size, max_len), True at the real symbols of padded sequences (batch_size, max_len, ...).

    It is None if no sequence is padded.
    """
    max_len = padded.shape[1]
    if bool((lengths == max_len).all()):
        return None
    return torch.arange(max_len, device=padded.device) < lengths.to(padded.device).unsqueeze(1)


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
        tgt: (batch_size, max_tgt_len); each symbol is read to predict the next one
        dec_state: h and c, each (1, batch_size, hidden_size), or the encoder's final_hidden
        encoder_outputs: (batch_size, max_src_len, hidden_size)
        src_lengths: (batch_size)
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
        dec_state = join_directions(dec_state)
        emb = self.dropout(self.embedding(tgt))  # (batch_size, max_tgt_len, hidden_size)
        outputs, dec_state = self.lstm(emb, dec_state)
        if self.attn is not None:
            outputs = self.attn(outputs, encoder_outputs, src_lengths)
        return self.dropout(outputs), dec_state


def join_directions(state):
    """Concatenate the states of an LSTM's two directions: each (2, batch_size, n) becomes (1, batch_size, 2n).

    A state of one direction stays as it is.
    """
    return tuple(torch.cat([part[0], part[1]], dim=-1).unsqueeze(0) if len(part) == 2 else part for part in state)


def lstm_step(from_input, state, weight_hh):
    """One step of an `nn.LSTM` of one layer.

    Args:
        from_input: (n_hyps, 4 * hidden_size), the input's product with the input matrix, plus both biases.
        state: h and c, each (n_hyps, hidden_size).
        weight_hh: the LSTM's (4 * hidden_size, hidden_size).

    Returns h, and the new state (h, c).
    """
    h, c = state
    i, f, g, o = torch.addmm(from_input, h, weight_hh.t()).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * tanh(g)
    h = torch.sigmoid(o) * tanh(c)
    return h, (h, c)


def tanh(x):
    """tanh x = 2 sigmoid(2 x) - 1, without gradients: on a CPU `torch.sigmoid` takes a tenth of the time of `torch.tanh`."""
    return (2 * x).sigmoid_().mul_(2).sub_(1)


class Seq2Seq(nn.Module):
    """The translation model: encoder, decoder and output layer (2022-23, Question 3).

        logits_t = generator(out_t) = E out_t + b

    The output layer shares its weight E with the decoder's embedding. `forward` reads a given target (teacher forcing);
    `decoding` calls `start` and `step`.

    Shapes:
        src: (batch_size, max_src_len)
        src_lengths: (batch_size)
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
        dec_hidden = final_hidden if dec_hidden is None else dec_hidden
        output, dec_hidden = self.decoder(tgt, dec_hidden, enc_output, src_lengths)
        return self.generator(output), dec_hidden

    def start(self, src, src_lengths):
        """The state and the memory that decoding starts from: (h, c), and what the attention reads of the source."""
        enc_output, final_hidden = self.encoder(src, src_lengths)
        state = tuple(part.squeeze(0) for part in join_directions(final_hidden))  # each (batch_size, hidden_size)
        attn = self.decoder.attn
        return state, () if attn is None else attn.project(enc_output, src_lengths)

    def step(self, tokens, state, memory):
        """One step of `forward` without dropout, for every hypothesis of each source sentence.

        The tokens are looked up in a table, the product of the embedding with the LSTM's input matrix. The attention
        treats the hypotheses of a sentence as its target steps, so that they share the sentence's memory.

        Shapes:
            tokens: (n_hyps), the last symbols; the hypotheses of a sentence stand side by side
            state: h and c, each (n_hyps, hidden_size)
            memory: of `start`, for n_rows sentences
            returns log_probs of the next symbol (n_hyps, tgt_vocab_size), the new state, and the attention weights
                (n_hyps, max_src_len), or None without attention
        """
        decoder, lstm = self.decoder, self.decoder.lstm
        table = F.linear(decoder.embedding.weight, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
        h, state = lstm_step(table[tokens], state, lstm.weight_hh_l0)
        output, alpha = h, None
        if decoder.attn is not None:
            n_rows = len(memory[0])
            output, alpha = decoder.attn.attend(h.view(n_rows, -1, decoder.hidden_size), *memory)
            output, alpha = output.flatten(0, 1), alpha.flatten(0, 1)
        return self.generator(output).log_softmax(dim=-1), state, alpha


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with several heads (2023-24, Question 3, Appendix A; Vaswani et al., 2017).

        MultiHead(Q, K, V) = Concat(head_1 .. head_k) W^O,  head_i = softmax(Q_i K_i^T / sqrt(d_k)) V_i

    Q_i = Q W_i^Q, and K_i and V_i likewise; each head has d_k = hidden_size / n_heads features. Keys and values are made
    of one source, and `project` makes them once for all queries.

    Shapes:
        query: (batch_size, n_queries, hidden_size)
        source: (batch_size, n_source, hidden_size)
        mask: (batch_size, n_source), True at what may be attended to; None means all
        returns (batch_size, n_queries, hidden_size)
    """

    def __init__(self, hidden_size, n_heads):
        super().__init__()
        if hidden_size % n_heads:
            raise ValueError(f"hidden_size must be a multiple of n_heads, got {hidden_size} and {n_heads}")
        self.n_heads = n_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, query, source, mask=None, is_causal=False):
        return self.attend(query, *self.project(source), mask, is_causal)

    def project(self, source):
        """Keys and values of a source, each (batch_size, n_heads, n_source, d_k)."""
        return self.split_heads(self.key(source)), self.split_heads(self.value(source))

    def attend(self, query, keys, values, mask=None, is_causal=False):
        """What the queries read of the keys and values; with `is_causal` query t reads the first t of them."""
        mask = None if mask is None else mask[:, None, None]  # for all heads and queries
        queries = self.split_heads(self.query(query))
        context = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=is_causal)
        return self.out(self.join_heads(context))

    def attend_with_weights(self, query, keys, values, mask=None):
        """`attend` and its weights softmax(Q_i K_i^T / sqrt(d_k)), (batch_size, n_heads, n_queries, n_source)."""
        scores = self.split_heads(self.query(query)) @ keys.transpose(2, 3) / math.sqrt(keys.shape[3])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        alpha = scores.softmax(dim=-1)
        return self.out(self.join_heads(alpha @ values)), alpha

    def split_heads(self, x):
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)  # (batch_size, n_heads, n, d_k)

    def join_heads(self, x):
        return x.transpose(1, 2).flatten(2)


class AttentionSubBlock(nn.Module):
    """Attention with its residual connection (2023-24, Question 3, Appendices A to C).

        SubBlock(x, z) = LayerNorm(x + MultiHead(LayerNorm(x), z, z))

    The residual attention layer is SubBlock(x, LayerNorm(x)). With `skeleton`, as in the course's skeleton, the outer
    LayerNorm is missing.
    """

    def __init__(self, hidden_size, n_heads, dropout=0.0, skeleton=False):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.attention = MultiHeadAttention(hidden_size, n_heads)
        self.dropout = nn.Dropout(dropout)
        self.outer_norm = nn.Identity() if skeleton else nn.LayerNorm(hidden_size)

    def forward(self, x, mask=None, is_causal=False):
        """Self-attention: queries, keys and values are all made of LayerNorm(x)."""
        normed = self.norm(x)
        return self.add(x, self.attention(normed, normed, mask, is_causal))

    def attend(self, x, keys, values, mask=None):
        """Cross-attention to the `keys` and `values` that `attention.project` made of z."""
        return self.add(x, self.attention.attend(self.norm(x), keys, values, mask))

    def attend_with_weights(self, x, keys, values, mask=None):
        context, alpha = self.attention.attend_with_weights(self.norm(x), keys, values, mask)
        return self.add(x, context), alpha

    def add(self, x, context):
        return self.outer_norm(x + self.dropout(context))


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
        return self.outer_norm(x + self.dropout(self.fc2(F.gelu(self.fc1(self.norm(x))))))


class AudioEncoderTransformer(nn.Module):
    """The encoder of a log-mel spectrogram: two convolutions, then Transformer blocks (2023-24, Question 3, Appendix B).

        h = GELU(conv2(GELU(conv1(x)))) + P,  then n_layers times h = FeedForward(Attention(h))

    conv2 has stride 2, so that two frames become one position. P are the sinusoidal positions of Vaswani et al., 2017.
    With `skeleton` the sub-blocks have no outer LayerNorm, and one LayerNorm stands at the end. Padding, which has to be 0, has no influence.

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
        blocks = [(hidden_size, n_heads, dropout, skeleton)] * n_layers
        self.attention = nn.ModuleList(AttentionSubBlock(*block) for block in blocks)
        self.feed_forward = nn.ModuleList(FeedForwardSubBlock(hidden_size, dropout, skeleton) for _ in blocks)
        self.last_norm = nn.LayerNorm(hidden_size) if skeleton else nn.Identity()

    def forward(self, mels, n_frames):
        x = F.gelu(self.conv1(mels.transpose(1, 2))).transpose(1, 2)  # (batch_size, max_frames, hidden_size)
        frame_mask = sequence_mask(n_frames, x)
        if frame_mask is not None:  # conv2 would read what conv1 wrote over the padding
            x = x * frame_mask.unsqueeze(2)
        x = F.gelu(self.conv2(x.transpose(1, 2))).transpose(1, 2)  # (batch_size, max_positions, hidden_size)
        n_positions = (n_frames + 1) // 2
        mask = sequence_mask(n_positions, x)
        x = self.dropout(x + sinusoids(x.shape[1], x.shape[2]).to(x))
        for attention, feed_forward in zip(self.attention, self.feed_forward):
            x = feed_forward(attention(x, mask))
        return self.last_norm(x), n_positions


@functools.lru_cache(maxsize=8)
def sinusoids(n_positions, size):
    """Positions (n_positions, size) of Vaswani et al., 2017, Section 3.5: sines in the first half, cosines in the second.

    P[t, i] = sin(t / 10000^(2i / size)),  P[t, size / 2 + i] = cos(t / 10000^(2i / size))
    """
    angles = torch.arange(n_positions).unsqueeze(1) / 10000 ** (torch.arange(0, size, 2) / size)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class _TextDecoder(nn.Module):
    """What both text decoders have in common: they read the text so far, then attend to the audio, then predict.

        o = FeedForward(CrossAttention(read(y), enc_output)),  logits = W LayerNorm(o) + b

    A subclass has `read` for a whole text (teacher forcing), and `start` and `read_next` for decoding.

    Shapes:
        tgt: (batch_size, max_tgt_len); each symbol is read to predict the next one
        enc_output: (batch_size, max_positions, hidden_size)
        n_positions: (batch_size)
        returns logits (batch_size, max_tgt_len, vocab_size)
    """

    def add_cross_attention(self, vocab_size, hidden_size, n_heads, dropout, skeleton):
        self.cross_attention = AttentionSubBlock(hidden_size, n_heads, dropout, skeleton)
        self.feed_forward = FeedForwardSubBlock(hidden_size, dropout, skeleton)
        self.norm = nn.LayerNorm(hidden_size)
        self.classifier = nn.Linear(hidden_size, vocab_size)

    def forward(self, tgt, enc_output, n_positions):
        return self.predict(self.cross_attention.attend(self.read(tgt), *self.memory(enc_output, n_positions)))

    def forward_with_weights(self, tgt, enc_output, n_positions):
        """`forward`, and the weights of the cross-attention (batch_size, n_heads, max_tgt_len, max_positions)."""
        memory = self.memory(enc_output, n_positions)
        x, alpha = self.cross_attention.attend_with_weights(self.read(tgt), *memory)
        return self.predict(x), alpha

    def memory(self, enc_output, n_positions):
        """What the cross-attention reads of the audio: keys, values, and the mask of its positions."""
        return *self.cross_attention.attention.project(enc_output), sequence_mask(n_positions, enc_output)

    def predict(self, x):
        return self.classifier(self.norm(self.feed_forward(x)))


class TextDecoderRecurrent(_TextDecoder):
    """The text decoder with an LSTM (2023-24, Question 3.1).

    read(y) = LSTM(LayerNorm(E y_0) .. LayerNorm(E y_m-1))
    """

    def __init__(self, vocab_size, hidden_size, n_heads, dropout=0.0, skeleton=False):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.emb_norm = nn.LayerNorm(hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.add_cross_attention(vocab_size, hidden_size, n_heads, dropout, skeleton)

    def read(self, tgt):
        outputs, _ = self.lstm(self.dropout(self.emb_norm(self.embedding(tgt))))
        return outputs

    def start(self, enc_output):
        """h and c, each (batch_size, hidden_size)."""
        zeros = enc_output.new_zeros(len(enc_output), self.lstm.hidden_size)
        return zeros, zeros

    def read_next(self, tokens, state):
        """One step of `read`: its output for the symbols `tokens` (n_hyps), and the new state."""
        emb = self.emb_norm(self.embedding.weight)
        table = F.linear(emb, self.lstm.weight_ih_l0, self.lstm.bias_ih_l0 + self.lstm.bias_hh_l0)
        return lstm_step(table[tokens], state, self.lstm.weight_hh_l0)


class TextDecoderTransformer(_TextDecoder):
    """The text decoder with masked self-attention (2023-24, Question 3.2).

        read(y) = SubBlock(X, LayerNorm(X)), where position t sees positions up to t,  X_t = E y_t + P_t

    P are learned positions; a text has at most `max_text_length` symbols.
    """

    def __init__(self, vocab_size, hidden_size, n_heads, max_text_length, dropout=0.0, skeleton=False):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.positions = nn.Parameter(torch.zeros(max_text_length, hidden_size))
        nn.init.normal_(self.positions, std=POSITION_STD)
        self.dropout = nn.Dropout(dropout)
        self.self_attention = AttentionSubBlock(hidden_size, n_heads, dropout, skeleton)
        self.add_cross_attention(vocab_size, hidden_size, n_heads, dropout, skeleton)

    def read(self, tgt):
        x = self.dropout(self.embedding(tgt) + self.positions[: tgt.shape[1]])
        return self.self_attention(x, is_causal=True)

    def start(self, enc_output):
        """The keys and values of no symbol, each (batch_size, n_heads, 0, d_k)."""
        n_heads = self.self_attention.attention.n_heads
        empty = enc_output.new_zeros(len(enc_output), n_heads, 0, enc_output.shape[2] // n_heads)
        return empty, empty

    def read_next(self, tokens, state):
        """One step of `read`: its output for the symbols `tokens` (n_hyps), and the keys and values with theirs added."""
        n_read = state[0].shape[2]
        x = (self.embedding(tokens) + self.positions[n_read]).unsqueeze(1)  # (n_hyps, 1, hidden_size)
        new = self.self_attention.attention.project(self.self_attention.norm(x))
        state = tuple(torch.cat([old, part], dim=2) for old, part in zip(state, new))
        return self.self_attention.attend(x, *state).squeeze(1), state


class SpeechToText(nn.Module):
    """The speech recogniser: an audio encoder and a text decoder (2023-24, Question 3).

    `forward` reads a given text (teacher forcing); `decoding` calls `start` and `step`. With `ctc` the affine layer of that
    name predicts a symbol at each position of the encoder's output, for an auxiliary CTC loss in training (Graves et al.,
    2006, ICML); its last output is the blank.

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
        return self.decoder(tgt, *self.encoder(mels, n_frames))

    def start(self, mels, n_frames):
        """The state and the memory that decoding starts from: of the text nothing; of the audio keys, values and mask."""
        enc_output, n_positions = self.encoder(mels, n_frames)
        keys, values, mask = self.decoder.memory(enc_output, n_positions)
        # Contiguous once, or each step would copy them for its products.
        return self.decoder.start(enc_output), (keys.contiguous(), values.contiguous(), mask)

    def step(self, tokens, state, memory):
        """One step of the decoder, as `decoding` describes it; the hypotheses of a clip share its keys and values.

        alpha has the weights of each head: (n_hyps, n_heads, n_positions).
        """
        x, state = self.decoder.read_next(tokens, state)
        x = x.view(len(memory[0]), -1, x.shape[1])  # the hypotheses of a clip are its queries
        x, alpha = self.decoder.cross_attention.attend_with_weights(x, *memory)
        logits = self.decoder.predict(x).flatten(0, 1)
        return logits.log_softmax(dim=-1), state, alpha.transpose(1, 2).flatten(0, 1)


class EfficientNetLite0(nn.Module):
    """The convolutions of EfficientNet-Lite0, the frozen encoder of captions where ResNet-18's weights cannot be fetched.

        x -> stem -> 16 blocks -> head,  block(x) = project(depthwise(expand(x))) (+ x where the shape allows it)

    A stage of `STAGES` is (blocks, kernel, stride of the first block, expansion, output channels). Every convolution is
    padded as TensorFlow's "SAME" does, which puts the odd cell on the right and below; batch normalisation has an epsilon
    of 1e-3; the activation is ReLU6, and a block has none behind its projection. There is no squeeze-and-excitation
    (Tan and Le, 2019, https://arxiv.org/abs/1905.11946, table 1; the Lite variants were published with TensorFlow).

    The modules have the names of the published state dict, without its leading underscores.

    Shapes:
        x: (batch_size, 3, 224, 224), (pixel - 127) / 128
        returns (batch_size, 1280, 7, 7)
    """

    STEM_CHANNELS, N_CHANNELS = 32, 1280
    STAGES = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    EPSILON = 1e-3

    def __init__(self):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, self.STEM_CHANNELS, 3, stride=2, bias=False)
        self.bn0 = nn.BatchNorm2d(self.STEM_CHANNELS, eps=self.EPSILON)
        blocks, channels = [], self.STEM_CHANNELS
        for n_blocks, kernel, stride, expansion, out_channels in self.STAGES:
            for i in range(n_blocks):
                blocks.append(_InvertedResidual(channels, out_channels, kernel, stride if i == 0 else 1, expansion))
                channels = out_channels
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = nn.Conv2d(channels, self.N_CHANNELS, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(self.N_CHANNELS, eps=self.EPSILON)

    def forward(self, x):
        x = F.relu6(self.bn0(conv_same(x, self.conv_stem)))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.bn1(self.conv_head(x)))


class _InvertedResidual(nn.Module):
    """A block of `EfficientNetLite0`: a wide depthwise convolution between two 1x1 convolutions (Sandler et al., 2018)."""

    def __init__(self, in_channels, out_channels, kernel, stride, expansion):
        super().__init__()
        width, eps = in_channels * expansion, EfficientNetLite0.EPSILON
        self.is_residual = stride == 1 and in_channels == out_channels
        self.expand_conv = None
        if expansion > 1:
            self.expand_conv = nn.Conv2d(in_channels, width, 1, bias=False)
            self.bn0 = nn.BatchNorm2d(width, eps=eps)
        self.depthwise_conv = nn.Conv2d(width, width, kernel, stride=stride, groups=width, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=eps)
        self.project_conv = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=eps)

    def forward(self, x):
        out = x if self.expand_conv is None else F.relu6(self.bn0(self.expand_conv(x)))
        out = F.relu6(self.bn1(conv_same(out, self.depthwise_conv)))
        out = self.bn2(self.project_conv(out))
        return x + out if self.is_residual else out


def conv_same(x, conv):
    """`conv` of x with TensorFlow's SAME padding: the output has ceil(n / stride) cells, the odd cell goes to the end."""
    pads = []
    for n, kernel, stride in zip(x.shape[:1:-1], conv.kernel_size[::-1], conv.stride[::-1]):
        total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        pads += [total // 2, total - total // 2]
    return conv(F.pad(x, pads))


class AdditiveAttention(nn.Module):
    """Additive attention of the caption decoder over the regions of the image (2021-22, Question 3.1b).

        e_i = v . f(W_1 h + W_2 s_i),  a = softmax(e),  c = sum_i a_i s_i

    h is the decoder's state and s_i one cell of the encoder's map (Bahdanau et al., 2015, https://arxiv.org/abs/1409.0473).
    W_2 s_i is the same at every step and for every caption of an image; `project` computes it once. On a CPU torch's sigmoid takes a
    tenth of the time of its tanh, so that tanh x = 2 sigmoid(2 x) - 1 is computed by it:

        v . tanh(x) = 2 v . sigmoid(2 x) - sum_k v_k,  and the softmax does not change with the sum

    Args:
        state_size: of h. n_channels: of s_i. attention_size: of W_1 h and W_2 s_i.
        activation: f, "tanh" or "relu".

    Shapes:
        h: (n_images, n_captions, state_size)
        regions: (n_images, n_regions, n_channels)
        returns context (n_images, n_captions, n_channels), alpha (n_images, n_captions, n_regions)
    """

    # The function that is computed, in place on a sum that nobody else reads, and the factor of its argument and of its value.
    ACTIVATIONS = {"tanh": (torch.sigmoid_, 2.0), "relu": (torch.relu_, 1.0)}

    def __init__(self, state_size, n_channels, attention_size, activation="tanh"):
        super().__init__()
        self.state_proj = nn.Linear(state_size, attention_size)
        self.region_proj = nn.Linear(n_channels, attention_size, bias=False)
        self.score = nn.Linear(attention_size, 1, bias=False)
        self.activation, self.factor = self.ACTIVATIONS[activation]

    def forward(self, h, regions):
        alpha = self.weigh(h, self.project(regions))
        return torch.bmm(alpha, regions), alpha

    def project(self, regions, mean=None, std=1.0):
        """The keys (n_images, n_regions, attention_size): W_2 s_i, or with a mean and a std of each channel W_2 (s_i - mean) / std.

        They are multiplied by the factor that belongs to f.
        """
        weight = self.region_proj.weight * (self.factor / std)
        return F.linear(regions, weight, None if mean is None else -(weight @ mean))

    def weigh(self, h, keys):
        """The weights a, of `keys` from `project`."""
        # Every caption of an image meets every region of it: (n_images, n_captions, n_regions, attention_size).
        energy = self.activation((self.factor * self.state_proj(h)).unsqueeze(2) + keys.unsqueeze(1))
        return (self.factor * self.score(energy)).squeeze(3).softmax(dim=-1)


class CaptionDecoder(nn.Module):
    """The LSTM that writes the caption of an image (2021-22, Question 3.1a).

        h_0, c_0 = tanh(W_h s + b_h), tanh(W_c s + b_c),  s = mean_i s_i
        h_t, c_t = decode_step(E w_t-1, h_t-1, c_t-1),  logits_t = fc(dropout(h_t))

    s_i is standardised by channel, with the statistics that `set_statistics` takes from training images: the channels of a
    pretrained encoder differ widely in scale.

    `forward` reads given captions (teacher forcing); `decoding` calls `start` and `step`. All captions of an image are
    computed together, so that what depends on the image alone is computed once, and captions that are over are dropped.

    Args:
        vocab_size: number of words, special symbols included.
        n_channels: of the encoder's map. hidden_size: of the state and of the words' embedding.
        padding_idx: the symbol that fills up short captions.
        dropout: probability that a value of the state is dropped before the output layer in training.

    Shapes:
        regions: (n_images, n_regions, n_channels), the cells s_i of the encoder's map
        captions: (n_images, n_captions, max_len), each word is read to predict the next one
        returns logits (n_images, n_captions, max_len, vocab_size)
    """

    N_STATISTICS = 500  # images, which bounds the memory that their regions take as floats
    MIN_STD = 1e-3  # of a channel; one that hardly ever changes is not blown up further

    def __init__(self, vocab_size, n_channels, hidden_size, padding_idx, dropout, context_size=0):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size, padding_idx=padding_idx)
        self.init_h = nn.Linear(n_channels, hidden_size)
        self.init_c = nn.Linear(n_channels, hidden_size)
        self.decode_step = nn.LSTMCell(hidden_size + context_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden_size, vocab_size)
        self.register_buffer("region_mean", torch.zeros(n_channels))
        self.register_buffer("region_std", torch.ones(n_channels))

    def set_statistics(self, regions):
        """Take the mean and the standard deviation of each channel from the regions of training images, of some if many."""
        cells = regions[:: -(-len(regions) // self.N_STATISTICS)].flatten(0, 1).float()
        self.region_mean.copy_(cells.mean(dim=0))
        self.region_std.copy_(cells.std(dim=0).clamp(min=self.MIN_STD))

    def standardized(self, regions):
        return (regions - self.region_mean) / self.region_std

    def forward(self, regions, captions):
        memory = self.read(regions)
        n_captions, outputs = captions.shape[1], []
        h, c = (part.unsqueeze(1).expand(-1, n_captions, -1) for part in self.first_state(regions))
        for inputs, (n, m) in zip(F.embedding(captions, self.word_table()).unbind(dim=2), self.extents(captions)):
            # The first n images and the first m captions of each hold all captions that are not over.
            h, c = self.advance(inputs[:n, :m], h[:n, :m], c[:n, :m], *(part[:n] for part in memory))
            outputs.append(F.pad(h, (0, 0, 0, n_captions - m, 0, len(captions) - n)))
        return self.fc(self.dropout(torch.stack(outputs, dim=2)))

    def first_state(self, regions):
        """h_0 and c_0, each (n_images, hidden_size)."""
        mean = self.standardized(regions.mean(dim=1))
        return torch.tanh(self.init_h(mean)), torch.tanh(self.init_c(mean))

    def read(self, regions):
        """What `advance` takes of the regions in training, a tuple of tensors: here nothing."""
        return ()

    def extents(self, captions):
        """For each step the numbers n, m, as small as possible, such that captions[:n, :m] hold every word of this step.

        They are smallest where the captions of an image, and the images, come sorted by length, the longest first.
        """
        is_word = captions != self.embedding.padding_idx
        numbers = []
        for dim in (1, 0):
            present = is_word.any(dim=dim)  # (n_images, max_len), then (n_captions, max_len)
            places = torch.arange(1, len(present) + 1, device=captions.device).unsqueeze(1)
            numbers.append((places * present).amax(dim=0).clamp(min=1))
        return torch.stack(numbers, dim=1).tolist()

    def word_table(self):
        """W_e E + b, what each word of the vocabulary adds to the gates of the cell."""
        cell = self.decode_step
        W_e = cell.weight_ih[:, : self.embedding.embedding_dim]
        return F.linear(self.embedding.weight, W_e, cell.bias_ih + cell.bias_hh)

    def advance(self, inputs, h, c):
        """`decode_step`, with the input's part of the gates given; h, c: (n_images, n_captions, hidden_size)."""
        i, f, g, o = (inputs + F.linear(h, self.decode_step.weight_hh)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def start(self, regions):
        """The state and the memory that decoding starts from; the memory begins with the look-up in `word_table`."""
        return self.first_state(regions), (functools.partial(F.embedding, weight=self.word_table()),)

    def step(self, tokens, state, memory):
        """One step of `forward` without dropout, for every hypothesis of each image.

        Shapes:
            tokens: (n_hyps), the last words; the hypotheses of an image stand side by side
            state: h and c, each (n_hyps, hidden_size)
            memory: of `start`, for n_images images
            returns log_probs of the next word (n_hyps, vocab_size), the new state, and the weights of the regions
                (n_hyps, n_regions), or None without attention
        """
        look_up, *seen = memory
        h, _ = state
        inputs, alpha = self.look(look_up(tokens), h, *seen)
        h, state = lstm_step(inputs, state, self.decode_step.weight_hh)
        return self.fc(h).log_softmax(dim=-1), state, alpha

    def look(self, inputs, h):
        """The input's part of the gates with what the image adds to it, and the weights of the regions: here nothing and None."""
        return inputs, None


class CaptionDecoderWithAttention(CaptionDecoder):
    """The caption decoder that looks at the regions of the image before each word (2021-22, Question 3.1b).

        h_t, c_t = decode_step([E w_t-1; z_t], h_t-1, c_t-1),  z_t = attention(h_t-1, s)

    The input matrix of the cell is W = [W_e, W_z], so that W [e; z] = W_e e + sum_i a_i (W_z s_i). In training W_z s_i is
    computed once for all captions of an image; in decoding, where few hypotheses take few steps, W_z z_t is cheaper. W_2 s_i of
    the attention is computed once in both.

    activation: of `AdditiveAttention`, whose size is hidden_size. Other arguments and shapes are those of `CaptionDecoder`.
    """

    def __init__(self, vocab_size, n_channels, hidden_size, padding_idx, dropout, activation="tanh"):
        super().__init__(vocab_size, n_channels, hidden_size, padding_idx, dropout, context_size=n_channels)
        self.attention = AdditiveAttention(hidden_size, n_channels, hidden_size, activation)

    @property
    def context_weight(self):
        """W_z, what the cell makes of the context."""
        return self.decode_step.weight_ih[:, self.embedding.embedding_dim :]

    def read(self, regions):
        """W_2 s_i and W_z s_i of each image."""
        regions = self.standardized(regions)
        return self.attention.project(regions), F.linear(regions, self.context_weight)

    def advance(self, inputs, h, c, keys, values):
        return super().advance(torch.baddbmm(inputs, self.attention.weigh(h, keys), values), h, c)

    def start(self, regions):
        """The state, and the memory: the look-up, W_2 s_i of each image, and the regions as they are.

        No tensor of the size of the regions is standardised. W_2 is divided by the standard deviations instead, and `look`
        standardises the context, which is the same since the weights of the regions sum to 1.
        """
        state, memory = super().start(regions)
        return state, (*memory, self.attention.project(regions, self.region_mean, self.region_std), regions)

    def look(self, inputs, h, keys, regions):
        alpha = self.attention.weigh(h.view(len(keys), -1, h.shape[1]), keys)
        context = self.standardized(torch.bmm(alpha, regions)).flatten(0, 1)
        return torch.addmm(inputs, context, self.context_weight.t()), alpha.flatten(0, 1)
