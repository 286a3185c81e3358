"""A right solution of 2021-22, Question 3, as the skeletons of decoder.py and decoder_with_attention.py have it."""

import torch
from torch import nn


class Decoder(nn.Module):
    def __init__(self, decoder_dim, embed_dim, vocab_size, encoder_dim=512, dropout_rate=0.5):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout_rate)
        self.decode_step = nn.LSTMCell(embed_dim, decoder_dim)
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        self.init_c = nn.Linear(encoder_dim, decoder_dim)
        self.fc = nn.Linear(decoder_dim, vocab_size)

    def init_hidden_state(self, encoder_out):
        mean_encoder_out = encoder_out.mean(dim=1)
        return self.init_h(mean_encoder_out), self.init_c(mean_encoder_out)

    def forward(self, word, decoder_hidden_state, decoder_cell_state, encoder_out):
        embeddings = self.embedding(word)
        h, c = self.decode_step(embeddings, (decoder_hidden_state, decoder_cell_state))
        scores = self.fc(self.dropout(h))
        return scores, h, c


class Attention(nn.Module):
    def __init__(self, encoder_dim, decoder_dim, attention_dim):
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.relu = nn.ReLU()
        self.full_att = nn.Linear(attention_dim, 1)
        self.softmax = nn.Softmax(dim=1)

    def forward(self, encoder_out, decoder_hidden):
        att1 = self.encoder_att(encoder_out)
        att2 = self.decoder_att(decoder_hidden)
        energy = self.relu(att1 + att2.unsqueeze(1))
        att = self.full_att(energy).squeeze(2)
        alpha = self.softmax(att)
        context = (encoder_out * alpha.unsqueeze(2)).sum(dim=1)
        return context, alpha


class DecoderWithAttention(nn.Module):
    def __init__(self, attention_dim, decoder_dim, embed_dim, vocab_size, encoder_dim=512, dropout_rate=0.5):
        super().__init__()
        self.attention = Attention(encoder_dim, decoder_dim, attention_dim)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout_rate)
        self.decode_step = nn.LSTMCell(embed_dim + encoder_dim, decoder_dim)
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        self.init_c = nn.Linear(encoder_dim, decoder_dim)
        self.fc = nn.Linear(decoder_dim, vocab_size)

    def forward(self, word, decoder_hidden_state, decoder_cell_state, encoder_out):
        embeddings = self.embedding(word)
        context, alpha = self.attention(encoder_out, decoder_hidden_state)
        inputs = torch.cat([embeddings, context], dim=1)
        new_h, new_c = self.decode_step(inputs, (decoder_hidden_state, decoder_cell_state))
        scores = self.fc(self.dropout(new_h))
        return scores, new_h, new_c
