import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def reshape_state(state):
    h_state = state[0]
    c_state = state[1]
    new_h_state = torch.cat([h_state[:-1], h_state[1:]], dim=2)
    new_c_state = torch.cat([c_state[:-1], c_state[1:]], dim=2)
    return (new_h_state, new_c_state)


class Attention(nn.Module):
    def __init__(self, hidden_size):
        super().__init__()
        self.linear_in = nn.Linear(hidden_size, hidden_size, bias=False)
        self.linear_out = nn.Linear(hidden_size * 2, hidden_size)

    def forward(self, query, encoder_outputs, src_lengths):
        src_seq_mask = ~self.sequence_mask(src_lengths)
        z = self.linear_in(query)
        scores = torch.bmm(z, encoder_outputs.transpose(1, 2))
        scores = scores.masked_fill(src_seq_mask.unsqueeze(1), float("-inf"))
        p = torch.softmax(scores, dim=-1)
        c = torch.bmm(p, encoder_outputs)
        attn_out = torch.tanh(self.linear_out(torch.cat([query, c], dim=-1)))
        return attn_out

    def sequence_mask(self, lengths):
        batch_size = lengths.numel()
        max_len = lengths.max()
        return torch.arange(0, max_len).type_as(lengths).repeat(batch_size, 1).lt(lengths.unsqueeze(1))


class Encoder(nn.Module):
    def __init__(self, src_vocab_size, hidden_size, padding_idx, dropout):
        super().__init__()
        self.hidden_size = hidden_size // 2
        self.embedding = nn.Embedding(src_vocab_size, hidden_size, padding_idx=padding_idx)
        self.lstm = nn.LSTM(hidden_size, self.hidden_size, bidirectional=True, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, src, lengths):
        emb = self.dropout(self.embedding(src))
        packed = pack_padded_sequence(emb, lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed, final_hidden = self.lstm(packed)
        enc_output, _ = pad_packed_sequence(packed, batch_first=True)
        enc_output = self.dropout(enc_output)
        return enc_output, final_hidden


class Decoder(nn.Module):
    def __init__(self, hidden_size, tgt_vocab_size, attn, padding_idx, dropout):
        super().__init__()
        self.hidden_size = hidden_size
        self.tgt_vocab_size = tgt_vocab_size
        self.embedding = nn.Embedding(tgt_vocab_size, hidden_size, padding_idx=padding_idx)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True)
        self.attn = attn

    def forward(self, tgt, dec_state, encoder_outputs, src_lengths):
        if dec_state[0].shape[0] == 2:
            dec_state = reshape_state(dec_state)
        if self.training:
            tgt = tgt[:, :-1]
        emb = self.dropout(self.embedding(tgt))
        outputs = []
        for t in range(emb.shape[1]):
            output, dec_state = self.lstm(emb[:, t : t + 1], dec_state)
            if self.attn is not None:
                output = self.attn(output, encoder_outputs, src_lengths)
            output = self.dropout(output)
            outputs.append(output)
        outputs = torch.cat(outputs, dim=1)
        return outputs, dec_state


class Seq2Seq(nn.Module):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.generator = nn.Linear(decoder.hidden_size, decoder.tgt_vocab_size)
        self.generator.weight = self.decoder.embedding.weight

    def forward(self, src, src_lengths, tgt, dec_hidden=None):
        enc_output, final_hidden = self.encoder(src, src_lengths)
        if dec_hidden is None:
            dec_hidden = final_hidden
        output, dec_hidden = self.decoder(tgt, dec_hidden, enc_output, src_lengths)
        return self.generator(output), dec_hidden
