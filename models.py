"""The networks, in the order of the questions. No files, no devices, no decoding, no printing."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from editions import DEFAULT_EDITION, EDITIONS

IMAGE_SIDE = 28  # pixels, in every edition of Question 2


def get_number_trainable_params(model):
    """The number of trainable parameters of `model` (2023-24, Question 2.3)."""
    return sum(param.numel() for param in model.parameters() if param.requires_grad)


class _Classifier(nn.Module):
    """What the networks of Question 2 have in common: the three affine layers and the log-softmax.

    log p = log_softmax(fc3(relu(fc2(drop(relu(fc1(x)))))))
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
    """The convolutional network of Question 2: two convolutions, then three affine layers and a log-softmax.

        h1 = pool(relu(conv1(x))),  h2 = pool(relu(conv2(h1))),  log p = log_softmax(fc3(relu(fc2(drop(relu(fc1(h2)))))))

    The pooling is a 2x2 maximum with stride 2. With `no_maxpool` it goes, and both convolutions become 3x3 with
    stride 2 instead (2023-24, Question 2.2), which leaves conv2's output at 6x6 cells either way.

    Args:
        dropout_prob: probability that a feature of the first affine layer is dropped in training.
        no_maxpool: strided convolutions in place of max pooling.
        edition: a key of `editions.EDITIONS`; gives channels, kernel and layer sizes.
        n_classes: the number of outputs, if not the edition's.

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

        side = IMAGE_SIDE // 2  # after conv1: padded to keep 28, then pooled; or strided
        side = (side - 2) // 2  # after conv2: a 3x3 kernel without padding takes 2 cells, then pooled or strided
        self.add_head(channels2 * side * side, dropout_prob, spec, n_classes)

    def forward(self, x):
        # relu(pool(z)) = pool(relu(z)), since both are monotone; on the pooled map ReLU has a quarter of the work.
        x = x.reshape(-1, 1, IMAGE_SIDE, IMAGE_SIDE)
        x = F.relu(self.pool(self.conv1(x)))  # (batch_size, channels1, 14, 14)
        x = F.relu(self.pool(self.conv2(x)))  # (batch_size, channels2, 6, 6)
        return self.head(x.flatten(1))

    def pool(self, x):
        return x if self.no_maxpool else F.max_pool2d(x, kernel_size=2, stride=2)


class MLP(_Classifier):
    """The fully connected counterpart of `CNN`: the same affine layers over the pixels, without convolutions.

        log p = log_softmax(fc3(relu(fc2(drop(relu(fc1(x)))))))

    It does not know which pixels are neighbours, so any fixed order of the pixels is as good as another (2022-23,
    Questions 2.1 to 2.3). 544,330 parameters with 600 and 120 hidden units and 10 classes, of which fc1 has 471,000;
    290,204 for the edition of 2023-24. Arguments and shapes as for `CNN`.
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
        src_vocab_size: rows of the embedding.
        hidden_size: of both directions together, and of the embedding; even.
        padding_idx: the symbol that fills short sentences up.
        dropout: probability, on the embeddings and on the outputs.

    Shapes:
        src: (batch_size, max_src_len)
        lengths: (batch_size), each at least 1
        returns enc_output (batch_size, max_src_len, hidden_size), 0 at the padding, and final_hidden, h and c, each
            (2, batch_size, hidden_size // 2): the forward direction after the last symbol, the backward after the first
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
            # Nothing to pack: the fused kernel of dense sequences is faster.
            enc_output, final_hidden = self.lstm(emb)
        else:
            packed = pack_padded_sequence(emb, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed, final_hidden = self.lstm(packed)
            enc_output, _ = pad_packed_sequence(packed, batch_first=True, total_length=src.shape[1])
        return self.dropout(enc_output), final_hidden


class Attention(nn.Module):
    """Bilinear attention (2022-23, Question 3.1b, equations 1 to 4; "general" in Luong et al., 2015).

        z = W_q^T q,  s_i = z^T h_i,  p = softmax(s),  c = sum_i p_i h_i,  a_o = tanh(W_o^T [q; c])

    q is the decoder's state itself. All target steps are computed at once, since no step reads another's a_o. The
    products with the weights are made on the source, which is shorter and which decoding reads again at every step:

        s_i = q^T (W_q h_i),  a_o = tanh(W_o^T [q; 0] + sum_i p_i W_o^T [0; h_i])

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
        return self.read(query, *self.prepare(encoder_outputs), sequence_mask(src_lengths, encoder_outputs))

    def prepare(self, encoder_outputs):
        """keys W_q h_i and values W_o^T [0; h_i], each (batch_size, max_src_len, hidden_size)."""
        hidden_size = encoder_outputs.shape[-1]
        values = F.linear(encoder_outputs, self.linear_out.weight[:, hidden_size:])
        return encoder_outputs @ self.linear_in.weight, values

    def weights(self, query, keys, mask=None):
        """p, the share of attention (batch_size, max_tgt_len, max_src_len) that each source symbol gets.

        keys: of `prepare`; mask: of `sequence_mask`.
        """
        scores = torch.bmm(query, keys.transpose(1, 2))
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(1), float("-inf"))
        return scores.softmax(dim=-1)

    def read(self, query, keys, values, mask=None):
        """a_o from keys and values of `prepare`."""
        from_query = F.linear(query, self.linear_out.weight[:, : query.shape[-1]], self.linear_out.bias)
        return torch.tanh(torch.baddbmm(from_query, self.weights(query, keys, mask), values))


def sequence_mask(lengths, padded):
    """True at the real symbols (batch_size, max_len) of sequences padded to (batch_size, max_len, ...).

    None if there is no padding at all.
    """
    max_len = padded.shape[1]
    if bool((lengths == max_len).all()):
        return None
    return torch.arange(max_len, device=padded.device) < lengths.to(padded.device).unsqueeze(1)


class Decoder(nn.Module):
    """The LSTM that writes the target sentence, with attention or without (2022-23, Questions 3.1a and 3.1b).

        q_1 .. q_m = LSTM(drop(E y_0) .. drop(E y_m-1)),  out_t = drop(a_o(q_t)), or drop(q_t) without attention

    Only q_t, which has no dropout, is handed on to the next step, and no output is fed back: so one call of the LSTM over
    the whole target computes the same as a loop over its symbols.

    Args:
        hidden_size: of the state and of the embedding.
        tgt_vocab_size: rows of the embedding.
        attn: an `Attention`, or None.
        padding_idx: the symbol that fills short sentences up.
        dropout: probability, on the embeddings and on the outputs.

    Shapes:
        tgt: (batch_size, max_tgt_len), each symbol is read to predict the next one
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
    """The states of an LSTM's two directions side by side: each (2, batch_size, n) becomes (1, batch_size, 2n)."""
    return tuple(torch.cat([part[0], part[1]], dim=-1).unsqueeze(0) if len(part) == 2 else part for part in state)


class Seq2Seq(nn.Module):
    """Encoder, decoder and the output layer, which shares its weight with the decoder's embedding (2022-23, Question 3).

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
        # As an output layer the embedding's standard deviation of 1 makes logits that start too large.
        with torch.no_grad():
            decoder.embedding.weight *= decoder.hidden_size**-0.5

    def forward(self, src, src_lengths, tgt, dec_hidden=None):
        enc_output, final_hidden = self.encoder(src, src_lengths)
        dec_hidden = final_hidden if dec_hidden is None else dec_hidden
        output, dec_hidden = self.decoder(tgt, dec_hidden, enc_output, src_lengths)
        return self.generator(output), dec_hidden

    def start(self, src, src_lengths):
        """The state (h, c) and the memory (with attention its keys, its values and the mask) from which `decoding` begins."""
        enc_output, final_hidden = self.encoder(src, src_lengths)
        h, c = (part.squeeze(0) for part in join_directions(final_hidden))
        if self.decoder.attn is None:
            return (h, c), ()
        mask = sequence_mask(src_lengths, enc_output)
        return (h, c), self.decoder.attn.prepare(enc_output) + (() if mask is None else (mask,))

    def step(self, tokens, state, memory):
        """Log-probabilities of the next symbol (n_rows, tgt_vocab_size) after `tokens` (n_rows), and the new state.

        For use without dropout: what `forward` computes for one symbol, with the embedding's product with the LSTM's input
        matrix looked up.
        """
        h, c = state
        decoder, lstm = self.decoder, self.decoder.lstm
        table = F.linear(decoder.embedding.weight, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
        gates = torch.addmm(table[tokens], h, lstm.weight_hh_l0.t())
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        output = h if decoder.attn is None else decoder.attn.read(h.unsqueeze(1), *memory).squeeze(1)
        return self.generator(output).log_softmax(dim=-1), (h, c)
