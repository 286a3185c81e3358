"""A right solution of 2023-24, Question 3, with building blocks as the notebook of the course has them."""

import math

import ml_collections
import numpy as np
import torch
import torch.nn as nn
import torchaudio

config = ml_collections.ConfigDict()
config.batch_size = 64
transform = torchaudio.transforms.MelSpectrogram(n_mels=80)


class MultiHeadAttention(nn.Module):
    def __init__(self, hidden_dim, n_heads):
        super().__init__()
        self._n_heads = n_heads
        self._query = nn.Linear(hidden_dim, hidden_dim)
        self._key = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self._value = nn.Linear(hidden_dim, hidden_dim)
        self._out = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, x, z, mask=None):
        q, k, v = (self._split(y) for y in (self._query(x), self._key(z), self._value(z)))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        if mask is not None:
            scores = scores + mask[: q.shape[2], : q.shape[2]]
        out = torch.softmax(scores, dim=-1) @ v
        return self._out(out.transpose(1, 2).flatten(2))

    def _split(self, x):
        return x.view(x.shape[0], x.shape[1], self._n_heads, -1).transpose(1, 2)


class ResidualAttentionLayer(nn.Module):
    def __init__(self, hidden_dim, n_heads):
        super().__init__()
        self._norm = nn.LayerNorm(hidden_dim)
        self._att = MultiHeadAttention(hidden_dim, n_heads)

    def forward(self, x, mask=None):
        y = self._norm(x)
        return x + self._att(y, y, mask)


class ResidualAttentionBlock(nn.Module):
    def __init__(self, hidden_dim, n_heads, feed_fwd_dim):
        super().__init__()
        self._att_norm = nn.LayerNorm(hidden_dim)
        self._att = MultiHeadAttention(hidden_dim, n_heads)
        self._mlp_norm = nn.LayerNorm(hidden_dim)
        self._mlp = nn.Sequential(nn.Linear(hidden_dim, feed_fwd_dim), nn.GELU(), nn.Linear(feed_fwd_dim, hidden_dim))

    def forward(self, x, latent):
        x = x + self._att(self._att_norm(x), latent)
        return x + self._mlp(self._mlp_norm(x))


class TextDecoderTransformer(nn.Module):
    def __init__(self, freq_dim=35, time_dim=99, hidden_dim=200, n_heads=2, feed_fwd_dim=400):
        super().__init__()
        self._embed = nn.Embedding(freq_dim, hidden_dim)
        self._pos_embed = nn.Parameter(torch.empty(time_dim - 1, hidden_dim))
        self._att = ResidualAttentionLayer(hidden_dim, n_heads)
        self._cross_att = ResidualAttentionBlock(hidden_dim, n_heads, feed_fwd_dim)
        self._out_norm = nn.LayerNorm(hidden_dim)
        self._classifier = nn.Linear(hidden_dim, freq_dim)
        self.register_buffer("_mask", torch.empty(time_dim - 1, time_dim - 1).fill_(-np.inf).triu_(1), persistent=False)

    def forward(self, x, latent):
        x = self._embed(x) + self._pos_embed[: x.shape[1]]
        x = self._att(x, self._mask)
        x = self._cross_att(x, latent)
        x = self._out_norm(x)
        return self._classifier(x).transpose(1, 2)


class TextDecoderRecurrent(nn.Module):
    def __init__(self, n_layers=1, freq_dim=35, hidden_dim=200, n_heads=2, feed_fwd_dim=400):
        super().__init__()
        self._embed = nn.Embedding(freq_dim, hidden_dim)
        self._rnn_norm = nn.LayerNorm(hidden_dim)
        self._rnn = nn.LSTM(hidden_dim, hidden_dim, n_layers, batch_first=True)
        self._cross_att = ResidualAttentionBlock(hidden_dim, n_heads, feed_fwd_dim)
        self._out_norm = nn.LayerNorm(hidden_dim)
        self._classifier = nn.Linear(hidden_dim, freq_dim)

    def forward(self, x, latent):
        return self._forward(x, latent)[0]

    def _forward(self, x, latent, state=None):
        x = self._rnn_norm(self._embed(x))
        x, state = self._rnn(x, state)
        x = self._cross_att(x, latent)
        x = self._out_norm(x)
        logits = self._classifier(x).transpose(1, 2)
        return logits, state


model = TextDecoderTransformer()
history = model.fit(config)
