"""`check.py`: it names every mistake that is planted in a right solution, and calls no right variant wrong."""

import ast
import itertools
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import check as command
import models
from checks import captioning, report
from checks.loading import Code
from checks.probe import same
from checks.worker import EDITIONS, check_files

ROOT = Path(__file__).resolve().parents[1]
SOLUTIONS = Path(__file__).parent / "check_solutions"
CNN, MODELS, CAPTIONING = "q2_2022_23.py", "models_2022_23.py", "captioning_2021_22.py"
CNN_2021, CNN_2023, SPEECH = "q2_2021_22.py", "q2_2023_24.py", "speech_2023_24.py"
DECODERS = ("Decoder", "Decoder with attention")
POOLED = "x = self.pool(F.relu(self.conv1(x)))"


def check_text(text, edition=None, only=None):
    """{question: (status, keys of its mistakes, whole result)}"""
    results = [result for result in check_files({"my.py": text}, edition, only) if "status" in result]
    return {result["name"]: (result["status"], [m["key"] for m in result["mistakes"]], result) for result in results}


def plant(solution, *replacements):
    text = (SOLUTIONS / solution).read_text(encoding="utf-8")
    for old, new in replacements:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {solution}"
        text = text.replace(old, new)
    return text


# (key, questions that have the mistake, solution, old text, new text, ...)
PLANTED = [
    # 2022-23, 2.4
    ("conv-channels", ["CNN"], CNN, "(1, 8, 5", "(1, 6, 5", "(8, 16, 3", "(6, 16, 3"),
    ("conv-kernel", ["CNN"], CNN, "(1, 8, 5, padding=2)", "(1, 8, 3, padding=2)", "(576, 600)", "(16 * 6 * 6, 600)"),
    ("conv-padding", ["CNN"], CNN, "(1, 8, 5, padding=2)", "(1, 8, 5)", "(576, 600)", "(400, 600)"),
    ("conv-stride", ["CNN"], CNN, "(8, 16, 3)", "(8, 16, 3, stride=2)", "(576, 600)", "(144, 600)"),
    ("conv1-name", ["CNN"], CNN, "self.conv1 =", "self.first =", "self.conv1(", "self.first("),
    ("pooling", ["CNN"], CNN, "nn.MaxPool2d(2, 2)", "nn.AvgPool2d(2, 2)"),
    ("pooling", ["CNN"], CNN, "nn.MaxPool2d(2, 2)", "nn.MaxPool2d(3, 2, padding=1)", "(576, 600)", "(16 * 36, 600)"),
    ("pooling", ["CNN"], CNN, "self.pool(F.relu(self.conv2(x)))", "F.relu(self.conv2(x))", "(576, 600)", "(2304, 600)"),
    (
        "layer-number",
        ["CNN"],
        CNN,
        "F.relu(self.fc2(x))",
        "F.relu(self.fc2(x))\n        x = F.relu(self.fc4(x))",
        "self.pool =",
        "self.fc4 = nn.Linear(120, 120)\n        self.pool =",
    ),
    ("affine-size", ["CNN"], CNN, "(576, 600)", "(576, 500)", "(600, 120)", "(500, 120)"),
    ("relu-missing", ["CNN"], CNN, POOLED, "x = self.pool(self.conv1(x))"),
    ("relu-missing", ["CNN"], CNN, "x = self.pool(F.relu(self.conv2(x)))", "x = self.pool(self.conv2(x))"),
    ("relu-missing", ["CNN"], CNN, "self.drop(F.relu(self.fc1(x)))", "self.drop(self.fc1(x))"),
    ("relu-missing", ["CNN"], CNN, "F.relu(self.fc2(x))", "self.fc2(x)"),
    ("relu-on-output", ["CNN"], CNN, "F.log_softmax(self.fc3(x), dim=1)", "F.log_softmax(F.relu(self.fc3(x)), dim=1)"),
    (
        "activation",
        ["CNN"],
        CNN,
        "F.relu(self.conv1(",
        "F.tanh(self.conv1(",
        "F.relu(self.conv2(",
        "F.tanh(self.conv2(",
        "F.relu(self.fc1(",
        "F.tanh(self.fc1(",
        "F.relu(self.fc2(",
        "F.tanh(self.fc2(",
    ),
    ("dropout-missing", ["CNN"], CNN, "self.drop(F.relu(self.fc1(x)))", "F.relu(self.fc1(x))"),
    (
        "dropout-place",
        ["CNN"],
        CNN,
        "self.drop(F.relu(self.fc1(x)))",
        "F.relu(self.fc1(x))",
        POOLED,
        f"{POOLED}\n        x = self.drop(x)",
    ),
    (
        "dropout-place",
        ["CNN"],
        CNN,
        "self.drop(F.relu(self.fc1(x)))",
        "F.relu(self.fc1(x))",
        "x = F.relu(self.fc2(x))",
        "x = self.drop(F.relu(self.fc2(x)))",
    ),
    ("dropout-twice", ["CNN"], CNN, "x = F.relu(self.fc2(x))", "x = self.drop(F.relu(self.fc2(x)))"),
    ("dropout-probability", ["CNN"], CNN, "nn.Dropout(dropout_prob)", "nn.Dropout(0.8)"),
    ("dropout-in-evaluation", ["CNN"], CNN, "self.drop(F.relu(self.fc1(x)))", "F.dropout(F.relu(self.fc1(x)), 0.3)"),
    ("log-softmax-missing", ["CNN"], CNN, "F.log_softmax(self.fc3(x), dim=1)", "self.fc3(x)"),
    ("softmax-without-log", ["CNN"], CNN, "F.log_softmax(self.fc3(x), dim=1)", "F.softmax(self.fc3(x), dim=1)"),
    ("log-softmax-dimension", ["CNN"], CNN, "F.log_softmax(self.fc3(x), dim=1)", "F.log_softmax(self.fc3(x), dim=0)"),
    (
        "extra-layer",
        ["CNN"],
        CNN,
        "F.relu(self.conv1(x))",
        "F.relu(self.norm(self.conv1(x)))",
        "self.pool =",
        "self.norm = nn.BatchNorm2d(8)\n        self.pool =",
    ),
    (
        "softmax-twice",
        ["CNN"],
        CNN,
        "F.log_softmax(self.fc3(x), dim=1)",
        "F.log_softmax(self.fc3(x).softmax(1), dim=1)",
    ),
    # gradients
    ("gradient", ["CNN"], CNN, POOLED, POOLED + ".detach()"),
    ("gradient", ["CNN"], CNN_2021, "self.convblock2(self.convblock1(x))", "self.convblock2(self.convblock1(x)).data"),
    (
        "gradient",
        ["Encoder"],
        MODELS,
        "        packed, final_hidden = self.lstm(packed)",
        "        with torch.no_grad():\n            packed, final_hidden = self.lstm(packed)",
    ),
    ("gradient", ["Attention"], MODELS, "p = torch.softmax(scores, dim=-1)", "p = scores.detach().softmax(dim=-1)"),
    ("gradient", DECODERS, MODELS, "outputs.append(output)", "outputs.append(output.data)"),
    (
        "gradient",
        DECODERS,
        MODELS,
        "            if self.attn is not None:\n",
        "            dec_state = tuple(part.detach() for part in dec_state)\n            if self.attn is not None:\n",
    ),
    ("gradient", ["Seq2Seq"], MODELS, "dec_hidden = final_hidden", "dec_hidden = [x.detach() for x in final_hidden]"),
    (
        "gradient",
        ["TextDecoderRecurrent"],
        SPEECH,
        "x, state = self._rnn(x, state)",
        "x, state = self._rnn(x.data, state)",
    ),
    ("gradient", ["Decoder"], CAPTIONING, "return scores, h, c", "return scores, h.detach(), c"),
    # train_batch, predict, evaluate
    ("gradients-not-zeroed", ["train_batch"], CNN, "    optimizer.zero_grad()\n", ""),
    ("no-step", ["train_batch"], CNN, "    optimizer.step()\n", ""),
    ("no-step", ["train_batch"], CNN, "    loss.backward()\n", "    loss.backward()\n    optimizer.zero_grad()\n"),
    ("loss-not-mean", ["train_batch"], CNN, "return loss.item()", "return loss.item() * len(y)"),
    ("predict-dimension", ["predict", "evaluate"], CNN, "scores.argmax(dim=-1)", "scores.argmax(dim=0)"),
    ("predict-values", ["predict", "evaluate"], CNN, "scores.argmax(dim=-1)", "scores.max(dim=-1).values"),
    ("evaluate-in-training-mode", ["evaluate"], CNN, "    model.eval()\n", ""),
    ("left-in-evaluation-mode", ["evaluate"], CNN, "    model.train()\n", ""),
    ("accuracy-count", ["evaluate"], CNN, "return n_correct / n_possible", "return n_correct"),
    ("flatten-mixed", ["CNN"], CNN, "x.view(x.shape[0], -1)", "x.reshape(-1, x.shape[0]).t()"),
    # 2023-24, Question 2
    (
        "no-maxpool-inverted",
        ["CNN", "CNN no_maxpool"],
        CNN_2023,
        "self.no_maxpool = no_maxpool",
        "self.no_maxpool = no_maxpool = not no_maxpool",
    ),
    (
        "no-maxpool-ignored",
        ["CNN no_maxpool"],
        CNN_2023,
        "self.no_maxpool = no_maxpool",
        "self.no_maxpool = no_maxpool = False",
    ),
    (
        "pooling",
        ["CNN no_maxpool"],
        CNN_2023,
        "self.no_maxpool = no_maxpool",
        "self.no_maxpool = False",
        "nn.Linear(576, 320)",
        "nn.Linear(16 if no_maxpool else 576, 320)",
    ),
    (
        "conv-padding",
        ["CNN no_maxpool"],
        CNN_2023,
        "stride=2, padding=0",
        "stride=2, padding=1",
        "nn.Linear(576, 320)",
        "nn.Linear(16 * 49 if no_maxpool else 576, 320)",
    ),
    ("count-frozen", ["get_number_trainable_params"], CNN_2023, " if p.requires_grad", ""),
    ("count-tensors", ["get_number_trainable_params"], CNN_2023, "sum(p.numel()", "sum(1"),
    (
        "count-without-biases",
        ["get_number_trainable_params"],
        CNN_2023,
        "if p.requires_grad",
        "if p.requires_grad and p.dim() > 1",
    ),
    # 2021-22, Question 2
    (
        "conv-padding",
        ["CNN"],
        CNN_2021,
        "nn.Conv2d(1, 16, 3, padding=1)",
        "nn.Conv2d(1, 16, 3)",
        "32 * 6 * 6",
        "32 * 5 * 5",
    ),
    ("log-softmax-missing", ["CNN"], CNN_2021, "            nn.LogSoftmax(dim=1),\n", ""),
    ("softmax-twice", ["CNN"], CNN_2021, "            nn.LogSoftmax(dim=1),\n", "nn.Softmax(1), nn.LogSoftmax(1),\n"),
    # 2022-23, 3.1a
    (
        "encoder-not-packed",
        ["Encoder"],
        MODELS,
        "packed, final_hidden = self.lstm(packed)",
        "packed, final_hidden = self.lstm(emb)",
        "enc_output, _ = pad_packed_sequence(packed, batch_first=True)",
        "enc_output = packed",
    ),
    ("encoder-size", ["Encoder"], MODELS, "self.hidden_size, bidirectional=True", "hidden_size"),
    ("encoder-size", ["Encoder"], MODELS, "self.hidden_size, bidirectional=True", "hidden_size, bidirectional=True"),
    ("encoder-size", ["Encoder"], MODELS, "self.hidden_size, b", "self.hidden_size // 2, b"),
    ("encoder-size", ["Encoder"], MODELS, "self.hidden_size, b", "self.hidden_size, 2, b"),
    ("embedding-dropout", ["Encoder"], MODELS, "emb = self.dropout(self.embedding(src))", "emb = self.embedding(src)"),
    ("output-dropout", ["Encoder"], MODELS, "        enc_output = self.dropout(enc_output)\n", ""),
    (
        "dropout-twice",
        ["Encoder"],
        MODELS,
        "enc_output = self.dropout(enc_output)",
        "enc_output = self.dropout(self.dropout(enc_output))",
    ),
    (
        "state-dropout",
        ["Encoder"],
        MODELS,
        "enc_output = self.dropout(enc_output)",
        "enc_output = self.dropout(enc_output)\n"
        "        final_hidden = tuple(self.dropout(part) for part in final_hidden)",
    ),
    (
        "state-view",
        ["Encoder"],
        MODELS,
        "enc_output = self.dropout(enc_output)",
        "enc_output = self.dropout(enc_output)\n"
        "        final_hidden = tuple(part.view(1, len(src), -1) for part in final_hidden)",
    ),
    (
        "dropout-probability",
        DECODERS,
        MODELS,
        "self.dropout = nn.Dropout(dropout)\n        self.lstm = nn.LSTM(hidden_size, hidden_size, b",
        "self.dropout = nn.Dropout(0.5)\n        self.lstm = nn.LSTM(hidden_size, hidden_size, b",
    ),
    (
        "dropout-in-evaluation",
        ["Encoder"],
        MODELS,
        "enc_output = self.dropout(enc_output)",
        "enc_output = nn.functional.dropout(enc_output, 0.3)",
    ),
    ("embedding-dropout", DECODERS, MODELS, "emb = self.dropout(self.embedding(tgt))", "emb = self.embedding(tgt)"),
    ("output-dropout", DECODERS, MODELS, "            output = self.dropout(output)\n", ""),
    (
        "dropout-twice",
        DECODERS,
        MODELS,
        "outputs = torch.cat(outputs, dim=1)",
        "outputs = self.dropout(torch.cat(outputs, dim=1))",
    ),
    (
        "state-dropout",
        DECODERS,
        MODELS,
        "            if self.attn is not None:\n",
        "            dec_state = (self.dropout(dec_state[0]), dec_state[1])\n            if self.attn is not None:\n",
    ),
    (
        "state-dropout",
        DECODERS,
        MODELS,
        "            if self.attn is not None:\n",
        "            dec_state = tuple(self.dropout(part) for part in dec_state)\n"
        "            if self.attn is not None:\n",
    ),
    (
        "state-view",
        DECODERS,
        MODELS,
        "dec_state = reshape_state(dec_state)",
        "dec_state = tuple(part.reshape(1, tgt.shape[0], -1) for part in dec_state)",
    ),
    ("state-one-direction", DECODERS, MODELS, "[h_state[:-1], h_state[1:]]", "[h_state[:-1], h_state[:-1]]"),
    ("state-one-direction", DECODERS, MODELS, "[c_state[:-1], c_state[1:]]", "[c_state[1:], c_state[1:]]"),
    (
        "state-one-direction",
        ["Encoder"],
        MODELS,
        "enc_output = self.dropout(enc_output)",
        "enc_output = self.dropout(enc_output)\n"
        "        final_hidden = tuple(torch.cat([part[:1], part[:1]], dim=2) for part in final_hidden)",
    ),
    ("state-parts", DECODERS, MODELS, "c_state = state[1]", "c_state = state[0]"),
    ("state-parts", DECODERS, MODELS, "(new_h_state, new_c_state)", "(new_c_state, new_h_state)"),
    (
        "state-parts",
        ["Encoder"],
        MODELS,
        "packed, final_hidden = self.lstm(packed)",
        "packed, (c, h) = self.lstm(packed)\n        final_hidden = (h, c)",
    ),
    (
        "output-shape",
        ["Encoder"],
        MODELS,
        "lengths.cpu(), batch_first=True, enforce_sorted=False)",
        "lengths.cpu() - 1, batch_first=True, enforce_sorted=False)",
    ),
    ("output-shape", DECODERS, MODELS, "range(emb.shape[1])", "range(max(1, emb.shape[1] - 1))"),
    (
        "state-not-passed",
        DECODERS,
        MODELS,
        "output, dec_state = self.lstm(emb[:, t : t + 1], dec_state)",
        "output, new_state = self.lstm(emb[:, t : t + 1], dec_state)",
        "return outputs, dec_state",
        "return outputs, new_state",
    ),
    (
        "state-not-returned",
        DECODERS,
        MODELS,
        "        outputs = []\n",
        "        outputs, old_state = [], dec_state\n",
        "return outputs, dec_state",
        "return outputs, old_state",
    ),
    (
        "state-ignored",
        DECODERS,
        MODELS,
        "        outputs = []\n",
        "        outputs, dec_state = [], tuple(torch.zeros_like(part) for part in dec_state)\n",
    ),
    ("target-shifted", DECODERS, MODELS, "tgt = tgt[:, :-1]", "tgt = tgt[:, 1:]"),
    (
        "own-argmax",
        DECODERS,
        MODELS,
        "output, dec_state = self.lstm(emb[:, t : t + 1], dec_state)",
        "if t and self.training:\n"
        "                best = (output @ self.embedding.weight.T).argmax(-1)\n"
        "                emb[:, t] = self.dropout(self.embedding(best))[:, 0]\n"
        "            output, dec_state = self.lstm(emb[:, t : t + 1], dec_state)",
    ),
    (
        "own-argmax",
        DECODERS,
        MODELS,
        "output, dec_state = self.lstm(emb[:, t : t + 1], dec_state)",
        "if t and self.training:\n"
        "                emb[:, t] = self.dropout(self.embedding(output.argmax(-1)))[:, 0]\n"
        "            output, dec_state = self.lstm(emb[:, t : t + 1], dec_state)",
    ),
    (
        "last-symbol-in-evaluation",
        DECODERS,
        MODELS,
        "        if self.training:\n            tgt = tgt[:, :-1]",
        "        tgt = tgt[:, :-1]",
    ),
    # 2022-23, 3.1b
    ("mask", ["Attention"], MODELS, "scores = scores.masked_fill(", "scores.masked_fill("),
    ("mask-inverted", ["Attention"], MODELS, "~self.sequence_mask(", "self.sequence_mask("),
    ("mask-value", ["Attention"], MODELS, 'float("-inf")', "1e-9"),
    (
        "mask-after-softmax",
        ["Attention"],
        MODELS,
        "scores = scores.masked_fill(",
        "filled = scores.masked_fill(",
        "p = torch.softmax(scores, dim=-1)",
        "p = torch.softmax(scores, dim=-1).masked_fill(src_seq_mask.unsqueeze(1), 0)",
    ),
    ("softmax-dimension", ["Attention"], MODELS, "torch.softmax(scores, dim=-1)", "torch.softmax(scores, dim=1)"),
    ("softmax-dimension", ["Attention"], MODELS, "torch.softmax(scores, dim=-1)", "torch.softmax(scores, dim=0)"),
    (  # a mask that is right, as far as a softmax over the source goes
        "softmax-dimension",
        ["Attention"],
        MODELS,
        'float("-inf")',
        "-1e9",
        "torch.softmax(scores, dim=-1)",
        "torch.softmax(scores, dim=1)",
    ),
    ("no-softmax", ["Attention"], MODELS, "torch.softmax(scores, dim=-1)", "scores"),
    ("no-projection", ["Attention"], MODELS, "z = self.linear_in(query)", "z = query"),
    (
        "scaled-scores",
        ["Attention"],
        MODELS,
        "scores = torch.bmm(z, encoder_outputs.transpose(1, 2))",
        "scores = torch.bmm(z, encoder_outputs.transpose(1, 2)) / z.shape[-1] ** 0.5",
    ),
    (
        "values-projected",
        ["Attention"],
        MODELS,
        "c = torch.bmm(p, encoder_outputs)",
        "c = torch.bmm(p, self.linear_in(encoder_outputs))",
    ),
    (
        "attention-dropout",
        ["Attention"],
        MODELS,
        "p = torch.softmax(scores, dim=-1)",
        "p = nn.functional.dropout(torch.softmax(scores, dim=-1), 0.3, self.training)",
    ),
    ("projected-query", ["Attention"], MODELS, "z = self.linear_in(query)", "z = query = self.linear_in(query)"),
    (
        "no-tanh",
        ["Attention"],
        MODELS,
        "torch.tanh(self.linear_out(torch.cat([query, c], dim=-1)))",
        "self.linear_out(torch.cat([query, c], dim=-1))",
    ),
    ("context-only", ["Attention"], MODELS, "return attn_out", "return c"),
    ("concatenation", ["Attention"], MODELS, "torch.cat([query, c]", "torch.cat([query, query]"),
    ("concatenation", ["Attention"], MODELS, "torch.cat([query, c]", "torch.cat([c, c]"),
    (
        "tanh-inside",
        ["Attention"],
        MODELS,
        "torch.tanh(self.linear_out(torch.cat([query, c], dim=-1)))",
        "self.linear_out(torch.tanh(torch.cat([query, c], dim=-1)))",
    ),
    (
        "additive-attention",
        ["Attention"],
        MODELS,
        "scores = torch.bmm(z, encoder_outputs.transpose(1, 2))",
        "scores = self.v(torch.tanh(z + encoder_outputs)).transpose(1, 2)",
        "self.linear_in = ",
        "self.v = nn.Linear(hidden_size, 1)\n        self.linear_in = ",
    ),
    (
        "dropout-before-attention",
        DECODERS[1:],
        MODELS,
        "                output = self.attn(output, encoder_outputs, src_lengths)\n"
        "            output = self.dropout(output)\n",
        "                output = self.attn(self.dropout(output), encoder_outputs, src_lengths)\n"
        "            else:\n                output = self.dropout(output)\n",
    ),
    ("dropout-before-attention", DECODERS[1:], MODELS, "self.attn(output, enc", "self.attn(self.dropout(output), enc"),
    ("attention-unused", DECODERS[1:], MODELS, "output = self.attn(output", "attn_out = self.attn(output"),
    (
        "other-query",
        DECODERS[1:],
        MODELS,
        "            output, dec_state = self.lstm(",
        "            old = dec_state[0].transpose(0, 1)\n            output, dec_state = self.lstm(",
        "self.attn(output, ",
        "self.attn(old, ",
    ),
    ("other-query", DECODERS[1:], MODELS, "self.attn(output, ", "self.attn(dec_state[1].transpose(0, 1), "),
    (
        "attention-fed-back",
        DECODERS[1:],
        MODELS,
        "                output = self.attn(output, encoder_outputs, src_lengths)\n",
        "                output = self.attn(output, encoder_outputs, src_lengths)\n"
        "                dec_state = (output.transpose(0, 1).contiguous(), dec_state[1])\n",
    ),
    (
        "logits-softmax",
        ["Seq2Seq"],
        MODELS,
        "return self.generator(output), dec_hidden",
        "return self.generator(output).softmax(dim=-1), dec_hidden",
    ),
    (
        "encoder-state-unused",
        ["Seq2Seq"],
        MODELS,
        "dec_hidden = final_hidden",
        "dec_hidden = tuple(0 * part for part in final_hidden)",
    ),
    (
        "state-half",
        ["Seq2Seq"],
        MODELS,
        "dec_hidden = final_hidden",
        "dec_hidden = (final_hidden[0], torch.zeros_like(final_hidden[1]))",
    ),
    (
        "state-half",
        ["Seq2Seq"],
        MODELS,
        "dec_hidden = final_hidden",
        "dec_hidden = (torch.zeros_like(final_hidden[0]), final_hidden[1])",
    ),
    (
        "state-ignored",
        ["Seq2Seq"],
        MODELS,
        "        if dec_hidden is None:\n            dec_hidden = final_hidden",
        "        dec_hidden = final_hidden",
    ),
    ("state-not-returned", ["Seq2Seq"], MODELS, "(output), dec_hidden", "(output), final_hidden"),
    (
        "state-parts",
        ["Seq2Seq"],
        MODELS,
        "dec_hidden = final_hidden",
        "dec_hidden = (final_hidden[0], final_hidden[0])",
    ),
    # 2023-24, Question 3
    (
        "cross-attention-swapped",
        ["TextDecoderTransformer"],
        SPEECH,
        "x = self._cross_att(x, latent)\n        x = self._out_norm(x)\n        return",
        "x = self._cross_att(latent, x)\n        x = self._out_norm(x)\n        return",
    ),
    (
        "cross-attention-swapped",
        ["TextDecoderRecurrent"],
        SPEECH,
        "state)\n        x = self._cross_att(x, latent)",
        "state)\n        x = self._cross_att(latent, x)",
    ),
    (
        "cross-attention-missing",
        ["TextDecoderRecurrent"],
        SPEECH,
        "state)\n        x = self._cross_att(x, latent)",
        "state)\n        x = self._cross_att(x, x)",
    ),
    (
        "cross-attention-missing",
        ["TextDecoderTransformer"],
        SPEECH,
        "x = self._cross_att(x, latent)\n        x = self._out_norm(x)\n        return",
        "x = self._cross_att(x, x)\n        x = self._out_norm(x)\n        return",
    ),
    (
        "causal-mask",
        ["TextDecoderTransformer"],
        SPEECH,
        "self._att(x, self._mask)",
        "self._att(x, torch.ones_like(self._mask).tril())",
    ),
    (
        "block-order",
        ["TextDecoderRecurrent"],
        SPEECH,
        "        x, state = self._rnn(x, state)\n        x = self._cross_att(x, latent)\n",
        "        x = self._cross_att(x, latent)\n        x, state = self._rnn(x, state)\n",
    ),
    (
        "embedding-scaled",
        ["TextDecoderTransformer"],
        SPEECH,
        "self._embed(x) + self",
        "self._embed(x) * math.sqrt(self._pos_embed.shape[1]) + self",
    ),
    (
        "causal-mask",
        ["TextDecoderTransformer"],
        SPEECH,
        "fill_(-np.inf).triu_(1)",
        "fill_(-np.inf).triu_(0)",
    ),
    (
        "logits-softmax",
        ["TextDecoderRecurrent"],
        SPEECH,
        "logits = self._classifier(x).transpose(1, 2)",
        "logits = self._classifier(x).transpose(1, 2).softmax(dim=-1)",
    ),
    (
        "cross-attention-missing",
        ["TextDecoderTransformer"],
        SPEECH,
        "        x = self._att(x, self._mask)\n        x = self._cross_att(x, latent)\n",
        "        x = self._att(x, self._mask)\n",
    ),
    (
        "second-residual",
        ["TextDecoderTransformer"],
        SPEECH,
        "x = self._att(x, self._mask)",
        "x = x + self._att(x, self._mask)",
    ),
    (
        "second-residual",
        ["TextDecoderTransformer"],
        SPEECH,
        "x = self._att(x, self._mask)\n        x = self._cross_att(x, latent)",
        "x = self._att(x, self._mask)\n        x = x + self._cross_att(x, latent)",
    ),
    (
        "second-residual",
        ["TextDecoderRecurrent"],
        SPEECH,
        "state)\n        x = self._cross_att(x, latent)",
        "state)\n        x = x + self._cross_att(x, latent)",
    ),
    (
        "output-norm",
        ["TextDecoderTransformer"],
        SPEECH,
        "x = self._cross_att(x, latent)\n        x = self._out_norm(x)\n        return",
        "x = self._cross_att(self._out_norm(x), latent)\n        return",
    ),
    (
        "output-norm",
        ["TextDecoderRecurrent"],
        SPEECH,
        "        x = self._out_norm(x)\n        logits",
        "        logits",
    ),
    (
        "logits-not-transposed",
        ["TextDecoderTransformer"],
        SPEECH,
        "return self._classifier(x).transpose(1, 2)",
        "return self._classifier(x)",
    ),
    (
        "logits-reshaped",
        ["TextDecoderRecurrent"],
        SPEECH,
        "logits = self._classifier(x).transpose(1, 2)",
        "logits = self._classifier(x).reshape(x.shape[0], -1, x.shape[1])",
    ),
    (
        "logits-softmax",
        ["TextDecoderTransformer"],
        SPEECH,
        "return self._classifier(x).transpose(1, 2)",
        "return self._classifier(x).transpose(1, 2).softmax(dim=1)",
    ),
    ("embedding-norm", ["TextDecoderRecurrent"], SPEECH, "x = self._rnn_norm(self._embed(x))", "x = self._embed(x)"),
    (
        "embedding-norm",
        ["TextDecoderRecurrent"],
        SPEECH,
        "x = self._rnn_norm(self._embed(x))",
        "x = self._embed(x)",
        "x, state = self._rnn(x, state)",
        "x, state = self._rnn(x, state)\n        x = self._rnn_norm(x)",
    ),
    ("lstm-state-ignored", ["TextDecoderRecurrent"], SPEECH, "self._rnn(x, state)", "self._rnn(x)"),
    (
        "lstm-state-not-returned",
        ["TextDecoderRecurrent"],
        SPEECH,
        "x, state = self._rnn(x, state)",
        "x, _ = self._rnn(x, state)",
    ),
    ("causal-mask", ["TextDecoderTransformer"], SPEECH, "self._att(x, self._mask)", "self._att(x)"),
    ("causal-mask", ["TextDecoderTransformer"], SPEECH, "self._att(x, self._mask)", "self._att(x, self._mask.T)"),
    ("positions", ["TextDecoderTransformer"], SPEECH, " + self._pos_embed[: x.shape[1]]", ""),
    (
        "positions",
        ["TextDecoderTransformer"],
        SPEECH,
        "self._pos_embed[: x.shape[1]]",
        "self._pos_embed[1 : x.shape[1] + 1]",
    ),
    (
        "positions",
        ["TextDecoderTransformer"],
        SPEECH,
        "self._pos_embed[: x.shape[1]]",
        "self._pos_embed[x.shape[1] - 1]",
    ),
    ("self-attention-missing", ["TextDecoderTransformer"], SPEECH, "        x = self._att(x, self._mask)\n", ""),
    (
        "block-order",
        ["TextDecoderTransformer"],
        SPEECH,
        "        x = self._att(x, self._mask)\n        x = self._cross_att(x, latent)\n",
        "        x = self._cross_att(x, latent)\n        x = self._att(x, self._mask)\n",
    ),
    # 2021-22, Question 3
    ("output-dropout", ["Decoder"], CAPTIONING, "self.fc(self.dropout(h))", "self.fc(h)"),
    (
        "dropout-on-embedding",
        ["DecoderWithAttention"],
        CAPTIONING,
        "torch.cat([embeddings, context]",
        "torch.cat([self.dropout(embeddings), context]",
    ),
    (
        "state-dropout",
        ["Decoder"],
        CAPTIONING,
        "scores = self.fc(self.dropout(h))",
        "h = self.dropout(h)\n        scores = self.fc(h)",
    ),
    (
        "dropout-in-evaluation",
        ["Decoder"],
        CAPTIONING,
        "self.fc(self.dropout(h))",
        "self.fc(nn.functional.dropout(h, 0.5))",
    ),
    (
        "scores-from-cell",
        ["DecoderWithAttention"],
        CAPTIONING,
        "self.fc(self.dropout(new_h))",
        "self.fc(self.dropout(new_c))",
    ),
    ("scores-softmax", ["Decoder"], CAPTIONING, "return scores, h, c", "return scores.softmax(dim=1), h, c"),
    (
        "state-not-returned",
        ["Decoder"],
        CAPTIONING,
        "return scores, h, c",
        "return scores, decoder_hidden_state, decoder_cell_state",
    ),
    (
        "state-ignored",
        ["Decoder"],
        CAPTIONING,
        "self.decode_step(embeddings, (decoder_hidden_state, decoder_cell_state))",
        "self.decode_step(embeddings)",
    ),
    (
        "dropout-on-embedding",
        ["DecoderWithAttention"],
        CAPTIONING,
        "inputs = torch.cat([embeddings, context], dim=1)",
        "inputs = self.dropout(torch.cat([embeddings, context], dim=1))",
    ),
    ("dropout-on-scores", ["Decoder"], CAPTIONING, "self.fc(self.dropout(h))", "self.dropout(self.fc(h))"),
    ("scores-from-old-state", ["Decoder"], CAPTIONING, "self.dropout(h)", "self.dropout(decoder_hidden_state)"),
    (
        "state-parts",
        ["DecoderWithAttention"],
        CAPTIONING,
        "self.decode_step(inputs, (decoder_hidden_state, decoder_cell_state))",
        "self.decode_step(inputs, (decoder_cell_state, decoder_hidden_state))",
    ),
    ("state-parts", ["DecoderWithAttention"], CAPTIONING, "return scores, new_h, new_c", "return scores, new_c, new_h"),
    (
        "energy-without-state",
        ["Attention"],
        CAPTIONING,
        "self.relu(att1 + att2.unsqueeze(1))",
        "self.relu(att1) + self.relu(att2).unsqueeze(1)",
    ),
    (
        "activation-place",
        ["Attention"],
        CAPTIONING,
        "self.relu(att1 + att2.unsqueeze(1))",
        "att1 + att2.unsqueeze(1)",
        "self.full_att(energy)",
        "self.relu(self.full_att(energy))",
    ),
    (
        "activation-place",
        ["Attention"],
        CAPTIONING,
        "self.relu(att1 + att2.unsqueeze(1))",
        "att1 + att2.unsqueeze(1)",
        "self.full_att(energy)",
        "self.full_att(energy).tanh()",
    ),
    (
        "attends-with-cell",
        ["DecoderWithAttention"],
        CAPTIONING,
        "self.attention(encoder_out, decoder_hidden_state)",
        "self.attention(encoder_out, decoder_cell_state)",
    ),
    (
        "context-unattended",
        ["DecoderWithAttention"],
        CAPTIONING,
        "torch.cat([embeddings, context]",
        "torch.cat([embeddings, encoder_out.mean(1)]",
    ),
    (
        "region-softmax-dimension",
        ["Attention"],
        CAPTIONING,
        "att = self.full_att(energy).squeeze(2)",
        "att = self.full_att(energy)",
        "nn.Softmax(dim=1)",
        "nn.Softmax(dim=2)",
        "alpha.unsqueeze(2)",
        "alpha",
    ),
    ("region-softmax-dimension", ["Attention"], CAPTIONING, "nn.Softmax(dim=1)", "nn.Softmax(dim=0)"),
    ("region-softmax-missing", ["Attention"], CAPTIONING, "alpha = self.softmax(att)", "alpha = att"),
    ("energy-activation", ["Attention"], CAPTIONING, "self.relu(att1 + att2.unsqueeze(1))", "att1 + att2.unsqueeze(1)"),
    ("energy-without-state", ["Attention"], CAPTIONING, "self.relu(att1 + att2.unsqueeze(1))", "self.relu(att1)"),
    (
        "context-unweighted",
        ["Attention"],
        CAPTIONING,
        "self.relu(att1 + att2.unsqueeze(1))",
        "self.relu(0 * att1 + att2.unsqueeze(1))",
    ),
    ("context-mean", ["Attention"], CAPTIONING, "alpha.unsqueeze(2)).sum(dim=1)", "alpha.unsqueeze(2)).mean(dim=1)"),
    (
        "context-unweighted",
        ["Attention"],
        CAPTIONING,
        "(encoder_out * alpha.unsqueeze(2)).sum(dim=1)",
        "encoder_out.mean(dim=1)",
    ),
]
NAMES = [f"{number}-{case[0]}" for number, case in enumerate(PLANTED)]


@pytest.mark.parametrize("case", PLANTED, ids=NAMES)
def test_planted_mistake_is_named_exactly(case):
    key, questions, solution, *texts = case
    results = check_text(plant(solution, *zip(texts[::2], texts[1::2])))
    for name, (status, keys, result) in results.items():
        wrong = name in questions and not (key.startswith("predict") and name == "evaluate")
        if wrong:
            assert (status, keys) == ("WRONG", [key]), result
        elif name not in questions:
            assert status in ("ok", f"waits for {questions[0]}"), result


LOOP_OF_Q3 = """
def train(model, optimizer, batches):
    for src, lengths, tgt in batches:
        model.eval(), model.train(), optimizer.zero_grad()
"""


@pytest.mark.parametrize(
    "key, name, line",
    [
        ("gradients-not-zeroed", "train_batch", "    optimizer.zero_grad()\n"),
        ("evaluate-in-training-mode", "evaluate", "    model.eval()\n"),
        ("left-in-evaluation-mode", "evaluate", "    model.train()\n"),
    ],
)
def test_what_the_script_of_another_question_calls_does_not_count(key, name, line):
    text = plant(CNN, (line, ""))
    for loop, expected in ((LOOP_OF_Q3, ("WRONG", [key])), (f"{LOOP_OF_Q3}    {name}(model)", ("ok", []))):
        results = [answer for answer in check_files({"hw2-q2.py": text, "hw2-q3.py": loop}) if "status" in answer]
        (result,) = [result for result in results if result["name"] == name]
        assert (result["status"], [mistake["key"] for mistake in result["mistakes"]]) == expected


TANH = "attn_out = torch.tanh(self.linear_out(torch.cat([query, c], dim=-1)))"
SCORES = "scores = torch.bmm(z, encoder_outputs.transpose(1, 2))"
MASKED = 'scores = scores.masked_fill(src_seq_mask.unsqueeze(1), float("-inf"))'
LOOP = """        outputs = []
        for t in range(emb.shape[1]):
            output, dec_state = self.lstm(emb[:, t : t + 1], dec_state)
            if self.attn is not None:
                output = self.attn(output, encoder_outputs, src_lengths)
            output = self.dropout(output)
            outputs.append(output)
        outputs = torch.cat(outputs, dim=1)
"""
ONE_CALL = """        outputs, dec_state = self.lstm(emb, dec_state)
        if self.attn is not None:
            outputs = self.attn(outputs, encoder_outputs, src_lengths)
        outputs = self.dropout(outputs)
"""
CUT = "        if self.training:\n            tgt = tgt[:, :-1]\n"
JOIN = "        if dec_state[0].shape[0] == 2:\n            dec_state = reshape_state(dec_state)\n"
ENC_DROPOUT = "enc_output = self.dropout(enc_output)"
FORWARD_2022 = """        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(x.shape[0], -1)
"""
ENERGY = "energy = self.relu(att1 + att2.unsqueeze(1))"
STEP_2021 = "h, c = self.decode_step(embeddings, (decoder_hidden_state, decoder_cell_state))"

# (what is different, solution, old text, new text, ...)
RIGHT = [
    ("as it is", CNN),
    ("as it is", MODELS),
    ("as it is", CNN_2023),
    ("as it is", CNN_2021),
    ("as it is", SPEECH),
    ("as it is", CAPTIONING),
    # 2022-23, 2.4
    ("ReLU behind the pooling", CNN, "self.pool(F.relu(self.conv1(x)))", "F.relu(self.pool(self.conv1(x)))"),
    ("channels last", CNN, "x.view(x.shape[0], -1)", "x.permute(0, 2, 3, 1).flatten(1)"),
    ("dropout before ReLU", CNN, "self.drop(F.relu(self.fc1(x)))", "F.relu(self.drop(self.fc1(x)))"),
    (
        "functional layers",
        CNN,
        "self.drop(F.relu(self.fc1(x)))",
        "F.dropout(self.fc1(x).relu(), 0.3, self.training)",
        "self.pool(F.relu(self.conv2(x)))",
        "F.max_pool2d(F.relu_(self.conv2(x)), 2)",
    ),
    ("modules", CNN, "F.log_softmax(self.fc3(x), dim=1)", "nn.LogSoftmax(dim=-1)(self.fc3(nn.ReLU()(x)))"),
    (
        "flattened images",
        CNN,
        FORWARD_2022,
        "        x = x.view(-1, 784)\n        x = x.view(-1, 1, 28, 28)\n" + FORWARD_2022,
    ),
    (
        "flattened images only",
        CNN,
        FORWARD_2022,
        "        assert x.dim() == 2\n        x = x.view(-1, 1, 28, 28)\n" + FORWARD_2022,
    ),
    (
        "pooling by a reshape",
        CNN,
        "self.pool(F.relu(self.conv1(x)))",
        "F.relu(self.conv1(x)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))",
    ),
    (
        "arguments by name",
        CNN,
        "self.drop(F.relu(self.fc1(x)))",
        "F.dropout(input=F.relu(input=F.linear(input=x, weight=self.fc1.weight, bias=self.fc1.bias)), "
        "p=0.3, training=self.training)",
    ),
    ("adaptive pooling", CNN, "self.pool(F.relu(self.conv2(x)))", "F.adaptive_max_pool2d(F.relu(self.conv2(x)), 6)"),
    (
        "padding by F.pad",
        CNN,
        "(1, 8, 5, padding=2)",
        "(1, 8, 5)",
        "self.conv1(x)",
        "self.conv1(F.pad(x, (2, 2, 2, 2)))",
    ),
    ("padding='same'", CNN, "padding=2", "padding='same'"),
    (
        "dropout under if self.training",
        CNN,
        "x = self.drop(F.relu(self.fc1(x)))",
        "x = F.relu(self.fc1(x))\n        if self.training:\n            x = self.drop(x)",
    ),
    ("dropout with a fixed probability", CNN, "nn.Dropout(dropout_prob)", "nn.Dropout(p=0.3)"),
    (
        "dropout in place, before the ReLU",
        CNN,
        "nn.Dropout(dropout_prob)",
        "nn.Dropout(dropout_prob, inplace=True)",
        "self.drop(F.relu(self.fc1(x)))",
        "F.relu_(self.drop(self.fc1(x)))",
    ),
    (
        "embedding without its padding",
        MODELS,
        "self.embedding(tgt)",
        "nn.functional.embedding(tgt, self.embedding.weight)",
    ),
    (
        "logarithm of the softmax",
        CNN,
        "F.log_softmax(self.fc3(x), dim=1)",
        "torch.log(torch.softmax(self.fc3(x), dim=1))",
    ),
    ("log-softmax twice", CNN, "F.log_softmax(self.fc3(x), dim=1)", "F.log_softmax(F.log_softmax(self.fc3(x), 1), 1)"),
    (
        "other names",
        CNN,
        "self.conv2 =",
        "self.second =",
        "self.conv2(",
        "self.second(",
        "self.fc1 =",
        "self.a =",
        "self.fc1(",
        "self.a(",
    ),
    (
        "classifier in nn.Sequential",
        CNN,
        "self.fc1 = nn.Linear(576, 600)",
        "self.fc1 = nn.Sequential(nn.Linear(576, 600), nn.ReLU(), nn.Dropout(dropout_prob))",
        "self.drop(F.relu(self.fc1(x)))",
        "self.fc1(x)",
    ),
    (
        "padding_idx kept and read",
        MODELS,
        "        self.hidden_size = hidden_size // 2\n",
        "        self.hidden_size, self.padding_idx = hidden_size // 2, padding_idx\n",
        "        emb = self.dropout(self.embedding(src))\n",
        "        lengths = (src != self.padding_idx).sum(1)\n        emb = self.dropout(self.embedding(src))\n",
    ),
    (
        "another option of Seq2Seq",
        MODELS,
        "src_lengths, tgt, dec_hidden=None):",
        "src_lengths, tgt, return_attn=False):",
        "        if dec_hidden is None:\n            dec_hidden = final_hidden\n",
        "        dec_hidden = final_hidden\n",
    ),
    (
        "a detached state, which only generate reads",
        SPEECH,
        "        return logits, state\n",
        "        return logits, tuple(x.detach() for x in state)\n",
    ),
    # train_batch, predict, evaluate
    (
        "gradients zeroed at the end",
        CNN,
        "    optimizer.zero_grad()\n",
        "",
        "    optimizer.step()\n",
        "    optimizer.step()\n    optimizer.zero_grad()\n",
    ),
    ("gradients of the model zeroed", CNN, "optimizer.zero_grad()", "model.zero_grad()"),
    (
        "gradients zeroed by the caller",
        CNN,
        "    optimizer.zero_grad()\n",
        "",
        "    utils.configure_seed(seed=42)\n",
        "    optimizer.zero_grad()\n",
    ),
    (
        "eval() by the caller",
        CNN,
        "    model.eval()\n",
        "",
        "    utils.configure_seed(seed=42)\n",
        "    model.eval()\n",
    ),
    ("the loss as a tensor", CNN, "return loss.item()", "return loss.detach()"),
    ("the values of the maximum left out", CNN, "scores.argmax(dim=-1)", "torch.max(scores, 1)[1]"),
    (
        "labels and scores",
        CNN,
        "return scores.argmax(dim=-1)",
        "return scores.argmax(dim=-1), scores",
        "y_hat = predict(model, X)",
        "y_hat, _ = predict(model, X)",
    ),
    (
        "train() in train_batch",
        CNN,
        "    optimizer.zero_grad()\n",
        "    model.train()\n    optimizer.zero_grad()\n",
        "    model.train()\n    return n",
        "    return n",
    ),
    ("a loss beside the accuracy", CNN, "return n_correct / n_possible", "return 0.25, n_correct / n_possible"),
    (
        "no_grad",
        CNN,
        "    model.eval()\n    y_hat = predict(model, X)",
        "    model.eval()\n    with torch.no_grad():\n        y_hat = predict(model, X)",
    ),
    ("a criterion for the evaluation", CNN, "def evaluate(model, X, y):", "def evaluate(model, X, y, criterion):"),
    # 2022-23, 3.1a
    ("joined state", MODELS, ENC_DROPOUT, ENC_DROPOUT + "\n        final_hidden = reshape_state(final_hidden)"),
    (
        "joined state with the backward direction first",
        MODELS,
        ENC_DROPOUT,
        ENC_DROPOUT + "\n        final_hidden = tuple(torch.cat([p[1], p[0]], -1).unsqueeze(0) for p in final_hidden)",
    ),
    ("dropout under if self.training", MODELS, ENC_DROPOUT, "if self.training:\n            " + ENC_DROPOUT),
    (
        "functional dropout",
        MODELS,
        ENC_DROPOUT,
        "enc_output = nn.functional.dropout(enc_output, 0.3, training=self.training)",
    ),
    ("sorted batches", MODELS, ", enforce_sorted=False", ""),
    (
        "time first",
        MODELS,
        "bidirectional=True, batch_first=True",
        "bidirectional=True",
        "packed = pack_padded_sequence(emb, lengths.cpu(), batch_first=True, enforce_sorted=False)",
        "packed = pack_padded_sequence(emb.transpose(0, 1), lengths.cpu(), enforce_sorted=False)",
        "enc_output, _ = pad_packed_sequence(packed, batch_first=True)",
        "enc_output = pad_packed_sequence(packed)[0].transpose(0, 1)",
    ),
    (
        "other names",
        MODELS,
        "        self.embedding = nn.Embedding(src_vocab_size",
        "        self.table = nn.Embedding(src_vocab_size",
        "self.embedding(src)",
        "self.table(src)",
    ),
    ("one call", MODELS, LOOP, ONE_CALL),
    ("cut if longer than one", MODELS, LOOP, ONE_CALL, "if self.training:", "if tgt.size(1) > 1:"),
    (
        "cut after the LSTM",
        MODELS,
        CUT,
        "",
        LOOP,
        ONE_CALL.replace(
            "        if self", "        if self.training:\n            outputs = outputs[:, :-1]\n        if self"
        ),
    ),
    ("cut in the loop", MODELS, CUT, "", "range(emb.shape[1])", "range(emb.shape[1] - self.training)"),
    ("cut by the script", MODELS, CUT, ""),
    (
        "joined state only",
        MODELS,
        JOIN,
        "",
        ENC_DROPOUT,
        ENC_DROPOUT + "\n        final_hidden = reshape_state(final_hidden)",
    ),
    (
        "directions swapped",
        MODELS,
        "torch.cat([h_state[:-1], h_state[1:]], dim=2)",
        "torch.cat([h_state[1:], h_state[:-1]], dim=2)",
        "torch.cat([c_state[:-1], c_state[1:]], dim=2)",
        "torch.cat([c_state[1:], c_state[:-1]], dim=2)",
    ),
    (
        "outputs made before the loop",
        MODELS,
        "outputs = []",
        "outputs = torch.ones(tgt.shape[0], tgt.shape[1], self.hidden_size)",
        "outputs.append(output)",
        "outputs[:, t, :] = output.squeeze(1)",
        "        outputs = torch.cat(outputs, dim=1)\n",
        "",
    ),
    (
        "embedding and its dropout in the loop",
        MODELS,
        "emb = self.dropout(self.embedding(tgt))",
        "emb = tgt",
        "self.lstm(emb[:, t : t + 1], dec_state)",
        "self.lstm(self.dropout(self.embedding(emb[:, t].unsqueeze(1))), dec_state)",
    ),
    (
        "dropout at the end",
        MODELS,
        "            output = self.dropout(output)\n",
        "",
        "outputs = torch.cat(outputs, dim=1)",
        "outputs = self.dropout(torch.cat(outputs, dim=1))",
    ),
    # 2022-23, 3.1b
    ("[c; q]", MODELS, "torch.cat([query, c], dim=-1)", "torch.cat((c, query), 2)"),
    ("W_q transposed", MODELS, "z = self.linear_in(query)", "z = query @ self.linear_in.weight"),
    (
        "W_q on the other side",
        MODELS,
        "z = self.linear_in(query)",
        "z = query",
        "torch.bmm(z, encoder_outputs.transpose(1, 2))",
        "torch.bmm(z, self.linear_in(encoder_outputs).transpose(1, 2))",
    ),
    ("no bias", MODELS, TANH, "attn_out = torch.tanh(torch.cat([query, c], dim=-1) @ self.linear_out.weight.T)"),
    (
        "W_q transposed, [c; q] and no bias",
        MODELS,
        "z = self.linear_in(query)",
        "z = query @ self.linear_in.weight",
        TANH,
        "attn_out = torch.tanh(torch.cat([c, query], dim=-1) @ self.linear_out.weight.T)",
    ),
    ("masked in place", MODELS, MASKED, 'scores.masked_fill_(src_seq_mask.unsqueeze(1), float("-inf"))'),
    ("masked by an index", MODELS, MASKED, "scores[src_seq_mask.unsqueeze(1)] = -torch.inf"),
    ("masked by where", MODELS, MASKED, "scores = torch.where(src_seq_mask.unsqueeze(1), -1e9, scores)"),
    ("masked by an addition", MODELS, MASKED, "scores = scores + src_seq_mask.unsqueeze(1) * -1e10"),
    (
        "einsum",
        MODELS,
        SCORES,
        "scores = torch.einsum('bqh,bsh->bqs', z, encoder_outputs)",
        "c = torch.bmm(p, encoder_outputs)",
        "c = torch.einsum('bqs,bsh->bqh', p, encoder_outputs)",
    ),
    (
        "other names",
        MODELS,
        "self.linear_in = ",
        "self.W_q = ",
        "self.linear_in(",
        "self.W_q(",
        "self.linear_out = ",
        "self.W_o = ",
        "self.linear_out(",
        "self.W_o(",
    ),
    (
        "module activations",
        MODELS,
        "torch.softmax(scores, dim=-1)",
        "nn.Softmax(dim=2)(scores)",
        "torch.tanh(",
        "nn.Tanh()(",
    ),
    (
        "output without the axis of the step",
        MODELS,
        "return attn_out",
        "return attn_out.squeeze(1)",
        "output = self.attn(output, encoder_outputs, src_lengths)",
        "output = self.attn(output, encoder_outputs, src_lengths).reshape(output.shape)",
    ),
    (
        "attention that returns its weights",
        MODELS,
        "return attn_out",
        "return attn_out, p",
        "output = self.attn(output, encoder_outputs, src_lengths)",
        "output, _ = self.attn(output, encoder_outputs, src_lengths)",
    ),
    ("generator of its own", MODELS, "        self.generator.weight = self.decoder.embedding.weight\n", ""),
    (
        "log-probabilities",
        MODELS,
        "return self.generator(output), dec_hidden",
        "return self.generator(output).log_softmax(-1), dec_hidden",
    ),
    # 2023-24
    ("sliced mask", SPEECH, "self._att(x, self._mask)", "self._att(x, self._mask[: x.shape[1], : x.shape[1]])"),
    (
        "mask made here",
        SPEECH,
        "self._att(x, self._mask)",
        "self._att(x, torch.full((x.shape[1],) * 2, -torch.inf).triu(1))",
    ),
    ("permute", SPEECH, "return self._classifier(x).transpose(1, 2)", "return self._classifier(x).permute(0, 2, 1)"),
    (
        "log-probabilities",
        SPEECH,
        "logits = self._classifier(x).transpose(1, 2)",
        "logits = self._classifier(x).transpose(1, 2).log_softmax(dim=1)",
    ),
    (
        "state without default",
        SPEECH,
        "state=None",
        "state",
        "self._forward(x, latent)",
        "self._forward(x, latent, None)",
    ),
    ("two layers", SPEECH, "n_layers=1", "n_layers=2"),
    (
        "parameters counted by filter",
        CNN_2023,
        "sum(p.numel() for p in model.parameters() if p.requires_grad)",
        "sum(map(torch.numel, filter(lambda p: p.requires_grad, model.parameters())))",
    ),
    # 2021-22
    ("no argument", CNN_2021, "self, dropout_prob", "self", "nn.Dropout(dropout_prob)", "nn.Dropout(0.1)"),
    ("tanh", CAPTIONING, ENERGY, "energy = torch.tanh(att1 + att2.unsqueeze(1))"),
    (
        "[context; embedding]",
        CAPTIONING,
        "torch.cat([embeddings, context], dim=1)",
        "torch.cat([context, embeddings], dim=1)",
    ),
    (
        "context alone",
        CAPTIONING,
        "return context, alpha",
        "return context",
        "context, alpha = self.att",
        "context = self.att",
    ),
    (
        "bmm",
        CAPTIONING,
        "context = (encoder_out * alpha.unsqueeze(2)).sum(dim=1)",
        "context = torch.bmm(alpha.unsqueeze(1), encoder_out).squeeze(1)",
    ),
    ("weights returned as well", CAPTIONING, "return scores, new_h, new_c", "return scores, new_h, new_c, alpha"),
    (
        "words as a column",
        CAPTIONING,
        STEP_2021,
        "h, c = self.decode_step(embeddings.squeeze(1), (decoder_hidden_state, decoder_cell_state))",
    ),
]


@pytest.mark.parametrize("case", RIGHT, ids=[f"{number}-{case[0]}" for number, case in enumerate(RIGHT)])
def test_right_in_another_way_is_right(case):
    _, solution, *texts = case
    results = check_text(plant(solution, *zip(texts[::2], texts[1::2])))
    assert results
    for status, _, result in results.values():
        assert status == "ok", result


KNOWN = report.known_mistakes().keys()


def test_every_known_mistake_is_planted():
    assert {case[0] for case in PLANTED} == KNOWN


def test_every_known_mistake_has_its_paragraph_in_the_page():
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    paragraphs = dict(re.findall(r"^### (\S+)\n\n(.+?)\n(?:\n|$)", page, flags=re.M | re.S))
    assert set(paragraphs) == KNOWN
    for key, paragraph in paragraphs.items():
        assert re.search(r"20\d\d-\d\d,\s", paragraph), f"{key} names no edition and question"
        assert "Mend:" in paragraph, key


SAME_WITHOUT_ATTENTION = {"attention-unused", "attention-fed-back", "dropout-before-attention", "attends-with-cell"}


@pytest.mark.parametrize("edition", EDITIONS)
def test_each_form_of_a_mistake_has_numbers_of_its_own(edition):
    solutions = {"2021-22": (CNN_2021, CAPTIONING), "2022-23": (CNN, MODELS), "2023-24": (CNN_2023, SPEECH)}[edition]
    code = Code({solution: plant(solution) for solution in solutions})
    for question_of in EDITIONS[edition]:
        question, numbers = question_of(code, edition), {"right": []}
        question.prepare()
        for line in [None, *question.lines]:
            key = "right" if line is None else line.key
            if key in question.variants or (question.name == "Decoder" and key in SAME_WITHOUT_ATTENTION):
                continue
            if key == "context-unattended" and question.name == "Decoder":
                continue  # its LSTM has no place for a context
            assert line is None or key in KNOWN
            numbers.setdefault(key, []).append(question.expected([line] * bool(line)).values())
        for key, other in itertools.combinations(numbers, 2):
            for these, those in itertools.product(numbers[key], numbers[other]):
                assert not all(map(same, these, those)), f"{question.name}: {key} has the numbers of {other}"


SOFTMAX = "p = torch.softmax(scores, dim=-1)"
ATTEND = """                output = self.attn(output, encoder_outputs, src_lengths)
            output = self.dropout(output)
"""
FEED_BACK = "                dec_state = (output.transpose(0, 1).contiguous(), dec_state[1])\n"
LAST = "F.log_softmax(self.fc3(x), dim=1)"
# (keys of two mistakes, or of one in two places; question, solution, old text, new text, ...)
TOGETHER = [
    (
        ["mask", "projected-query"],
        "Attention",
        MODELS,
        "scores = scores.masked_fill(",
        "scores.masked_fill(",
        "cat([query, c]",
        "cat([z, c]",
    ),
    # in the same equation
    (
        ["softmax-dimension", "mask-after-softmax"],
        "Attention",
        MODELS,
        "scores = scores.masked_fill(",
        "filled = scores.masked_fill(",
        SOFTMAX,
        "p = torch.softmax(scores, dim=0).masked_fill(src_seq_mask.unsqueeze(1), 0)",
    ),
    (
        ["values-projected", "attention-dropout"],
        "Attention",
        MODELS,
        "c = torch.bmm(p, encoder_outputs)",
        "p = nn.functional.dropout(p, 0.3, self.training)\n        c = torch.bmm(p, self.linear_in(encoder_outputs))",
    ),
    (
        ["no-tanh", "attention-dropout"],
        "Attention",
        MODELS,
        TANH,
        "attn_out = self.linear_out(torch.cat([query, c], dim=-1))\n"
        "        attn_out = nn.functional.dropout(attn_out, 0.3, self.training)",
    ),
    (
        ["attention-fed-back", "state-dropout"],
        "Decoder with attention",
        MODELS,
        ATTEND,
        f"{ATTEND.replace('            output = self.d', '                output = self.d')}{FEED_BACK}"
        "            else:\n                output = self.dropout(output)\n",
    ),
    (
        ["dropout-before-attention", "dropout-twice"],
        "Decoder with attention",
        MODELS,
        "self.attn(output, encoder_outputs, src_lengths)\n            output = self.dropout(output)",
        "self.attn(self.dropout(output), encoder_outputs, src_lengths)\n"
        "                output = self.dropout(output)\n            output = self.dropout(output)",
    ),
    (["relu-missing"], "CNN", CNN, POOLED, "x = self.pool(self.conv1(x))", "F.relu(self.conv2(x))", "self.conv2(x)"),
    (
        ["relu-missing", "relu-on-output"],
        "CNN",
        CNN,
        "F.relu(self.fc2(x))",
        "self.fc2(x)",
        "self.fc3(x)",
        "F.relu(self.fc3(x))",
    ),
    (["log-softmax-dimension", "softmax-without-log"], "CNN", CNN, LAST, "F.softmax(self.fc3(x), dim=0)"),
    (
        ["dropout-twice"],
        "CNN",
        CNN,
        POOLED,
        f"x = self.drop({POOLED.removeprefix('x = ')})",
        "x = self.pool(F.relu(self.conv2(x)))",
        "x = self.drop(self.pool(F.relu(self.conv2(x))))",
    ),
    (
        ["dropout-place", "dropout-twice"],
        "CNN",
        CNN,
        "self.drop(F.relu(self.fc1(x)))",
        "F.relu(self.fc1(x))",
        POOLED,
        f"x = self.drop({POOLED.removeprefix('x = ')})",
        "x = self.pool(F.relu(self.conv2(x)))",
        "x = self.drop(self.pool(F.relu(self.conv2(x))))",
    ),
    (["predict-dimension", "predict-values"], "predict", CNN, "scores.argmax(dim=-1)", "scores.max(dim=0).values"),
    (
        ["second-residual", "block-order"],
        "TextDecoderTransformer",
        SPEECH,
        "        x = self._att(x, self._mask)\n        x = self._cross_att(x, latent)\n",
        "        x = self._cross_att(x, latent)\n        x = x + self._att(x, self._mask)\n",
    ),
    (
        ["lstm-state-ignored", "embedding-norm"],
        "TextDecoderRecurrent",
        SPEECH,
        "x = self._rnn_norm(self._embed(x))",
        "x = self._embed(x)",
        "x, state = self._rnn(x, state)",
        "x, state = self._rnn(x)\n        x = self._rnn_norm(x)",
    ),
]


@pytest.mark.parametrize("case", TOGETHER, ids=["+".join(case[0]) for case in TOGETHER])
def test_two_mistakes_at_once_are_both_named(case):
    keys, question, solution, *texts = case
    results = check_text(plant(solution, *zip(texts[::2], texts[1::2])))
    assert results[question][:2] == ("WRONG", keys), results[question]


@pytest.mark.parametrize(
    "question, solution, old, new",
    [
        ("CNN", CNN, "nn.MaxPool2d(2, 2)", "nn.AvgPool2d(2, 2)"),  # where the layer is made, and not where it is called
        ("CNN", CNN, "nn.Dropout(dropout_prob)", "nn.Dropout(0.8)"),
        ("CNN", CNN, "self.drop(F.relu(self.fc1(x)))", "F.dropout(F.relu(self.fc1(x)), 0.3)"),
        ("Encoder", MODELS, "self.hidden_size, bidirectional=True", "hidden_size, bidirectional=False"),
        ("Attention", MODELS, TANH, "attn_out = self.linear_out(torch.cat([query, c], dim=-1))"),
        ("Decoder", MODELS, "tgt = tgt[:, :-1]", "tgt = tgt[:, 1:]"),
        ("Decoder", MODELS, CUT, "        tgt = tgt[:, :-1]\n"),
        ("TextDecoderTransformer", SPEECH, "self._att(x, self._mask)", "self._att(x)"),  # and not in the given block
    ],
)
def test_a_mistake_is_shown_at_its_line(question, solution, old, new):
    text = plant(solution, (old, new))
    line = text[: text.index(new)].count("\n") + 1
    assert [mistake["where"] for mistake in check_text(text)[question][2]["mistakes"]] == [f"my.py, line {line}"]


@pytest.mark.parametrize(
    "question, solution, old, new, line",
    [
        ("CNN", CNN, "nn.Dropout(dropout_prob)", "nn.Dropout(dropout_prob, inplace=True)", "self.drop(F.relu("),
        ("CNN", CNN, "self.fc3(x)", "self.fc3(nn.ReLU(inplace=True)(x))", "self.fc3(nn.ReLU"),
        ("Attention", MODELS, TANH, TANH + ".mul_(1.0)", TANH),
    ],
)
def test_a_backward_that_fails_is_an_error_at_its_line(question, solution, old, new, line):
    text = plant(solution, (old, new))
    status, keys, result = check_text(text)[question]
    assert (status, keys) == ("ERROR", []) and "an operation in place" in result["difference"], result
    assert result["where"] == f"my.py, line {text[: text.index(line)].count(chr(10)) + 1}"


@pytest.mark.parametrize(
    "question, old, new, form",
    [
        ("Encoder", "return enc_output, final_hidden", "return final_hidden, enc_output", "enc_output, (h, c)"),
        ("Encoder", "return enc_output, final_hidden", "return enc_output, final_hidden[0]", "enc_output, (h, c)"),
        ("Decoder", "return outputs, dec_state", "return dec_state, outputs", "outputs, (h, c)"),
        ("Seq2Seq", "(output), dec_hidden", "(output)", "logits, (h, c)"),
    ],
)
def test_what_forward_must_return_is_told(question, old, new, form):
    results = check_text(plant(MODELS, (old, new)))
    assert results[question][0] == "ERROR" and f"must return {form}" in results[question][2]["difference"]
    assert question == "Seq2Seq" or results["Seq2Seq"][0] == f"waits for {question}"


@pytest.mark.parametrize(
    "question, part",
    [
        ("TextDecoderTransformer", "x = self._att(x, self._mask)"),
        ("TextDecoderRecurrent", "x, state = self._rnn(x, state)"),
    ],
)
def test_the_part_of_a_text_decoder_that_is_right_is_told(question, part):
    status, _, result = check_text(plant(SPEECH, (part, part + "\n        x = x + x.sin()")))[question]
    assert status == "not recognised" and "should be: LSTM or self-attention" in result["difference"], result


def test_the_layers_without_their_gradient_are_named():
    loop = "            dec_state = [x.detach() for x in dec_state]\n            outputs.append(output)"
    results = check_text(plant(MODELS, ("            outputs.append(output)", loop)))
    assert [results[name][2]["mistakes"][0]["details"] for name in DECODERS] == ["embedding, lstm"] * 2


def test_of_two_operations_in_place_the_one_that_overwrites_is_shown():
    twice = "self.dropout = nn.Dropout(dropout)\n        self.lstm = nn.LSTM(hidden_size, hidden_size, b"
    loop = (LOOP, LOOP.replace("emb[:, t : t + 1]", "self.dropout(self.embedding(tgt[:, t : t + 1]))"))
    emb = ("        emb = self.dropout(self.embedding(tgt))\n", "        emb = tgt\n")
    text = plant(MODELS, loop, emb, (twice, twice.replace("(dropout)", "(dropout, inplace=True)")))
    line = text[: text.index("            output = self.dropout(output)")].count("\n") + 1
    assert check_text(text)["Decoder with attention"][2]["where"] == f"my.py, line {line}"


def test_a_class_waits_for_the_one_whose_backward_fails():
    assert check_text(plant(MODELS, (TANH, TANH + ".mul_(1.0)")))["Seq2Seq"][0] == "waits for Attention"


def test_numbers_of_no_known_mistake_are_not_recognised():
    status, keys, result = check_text(
        plant(MODELS, ("c = torch.bmm(p, encoder_outputs)", "c = torch.bmm(p**2, encoder_outputs)"))
    )["Attention"]
    assert (status, keys) == ("not recognised", [])
    assert "Found in your code as it should be: s, p; not found: c, a_o" in result["difference"]


@pytest.mark.parametrize(
    "texts",
    [
        (
            "self.fc3 = nn.Linear(120, 10)",
            "self.fc3 = nn.Parameter(torch.randn(120, 10))",
            "self.fc3(x)",
            "x @ self.fc3",
        ),
        ("padding=2)", "padding=2, padding_mode='circular')"),
        ("self.drop(F.relu(self.fc1(x)))", "F.relu(self.fc1(x)) * (torch.rand(600) > 0.3)"),
    ],
)
def test_what_cannot_be_judged_is_not_called_wrong(texts):
    assert check_text(plant(CNN, texts[:2], *[texts[2:]] * bool(texts[2:])))["CNN"][0] == "not recognised"


def test_output_of_another_length_is_told_by_its_shape():
    _, _, result = check_text(plant(MODELS, ("lengths.cpu(), batch", "lengths.cpu() - 1, batch")))["Encoder"]
    assert result["mistakes"][0]["details"] == "enc_output in training is (3, 4, 8), and must be (3, 5, 8)"


@pytest.mark.parametrize(
    "question, user, solution, old, new",
    [
        ("Encoder", "Seq2Seq", MODELS, "return enc_output,", "return enc_output.transpose(0, 1),"),
        ("Encoder", "Seq2Seq", MODELS, "pad_packed_sequence(packed, batch_first=True)", "pad_packed_sequence(packed)"),
        ("Attention", "DecoderWithAttention", CAPTIONING, "(encoder_out * a", "(self.encoder_att(encoder_out) * a"),
        (
            "TextDecoderRecurrent",
            None,
            SPEECH,
            "        x = self._out_norm(x)\n        logits",
            "        x = self._out_norm(x[:, -1:])\n        logits",
        ),
        ("train_batch", None, CNN, "return loss.item()", "return out"),
    ],
)
def test_another_shape_is_wrong_and_no_other_class_is_blamed_for_it(question, user, solution, old, new):
    results = check_text(plant(solution, (old, new)))
    assert results.pop(question)[:2] == ("WRONG", ["output-shape"])
    for name, (status, keys, _) in results.items():
        assert (status, keys) == (f"waits for {question}" if name == user else "ok", [])


@pytest.mark.parametrize(
    "solution, question, line, unfinished",
    [
        (MODELS, "Seq2Seq", "z = self.linear_in(query)", "Attention"),
        (MODELS, "Seq2Seq", "packed, final_hidden = self.lstm(packed)", "Encoder"),
        (CAPTIONING, "DecoderWithAttention", "att1 = self.encoder_att(encoder_out)", "Attention"),
        (CNN, "evaluate", "scores = model(X)", "predict"),
    ],
)
def test_a_class_waits_for_the_one_that_it_uses(solution, question, line, unfinished):
    results = check_text(plant(solution, (line, "raise NotImplementedError")))
    assert results[unfinished][0] == "not written"
    status, _, result = results[question]
    assert (status, result["where"], result["difference"]) == (f"waits for {unfinished}", "", "")


def test_notes_say_what_is_right_in_another_way():
    assert "the script must cut" in check_text(plant(MODELS, (CUT, "")))["Decoder"][2]["notes"][0]
    assert "[c; q]" in check_text(plant(MODELS, ("[query, c]", "[c, query]")))["Attention"][2]["notes"][0]


PACKED = "packed = pack_padded_sequence(emb, lengths.cpu(), batch_first=True, enforce_sorted=False)"


@pytest.mark.parametrize(
    "packed",
    [
        PACKED.replace(", enforce_sorted=False", ""),  # fails for others
        "lengths, order = lengths.sort(descending=True)\n        "  # returns the sorted order
        + PACKED.replace("(emb,", "(emb[order],"),
    ],
)
def test_an_encoder_for_sorted_batches_is_right_with_a_note(packed):
    status, _, result = check_text(plant(MODELS, (PACKED, packed)))["Encoder"]
    assert status == "ok" and "sorted by length" in result["notes"][0]
    assert not check_text(plant(MODELS))["Encoder"][2]["notes"]


@pytest.mark.parametrize("solution", [CNN, MODELS, CNN_2021, CNN_2023, SPEECH, CAPTIONING])
def test_edition_is_found(solution):
    plan = next(check_files({solution: plant(solution)}))
    assert plan["guessed"] and plan["edition"].replace("-", "_") in solution


class Project(dict):
    """This project's networks, in the place of a student's `Code`."""

    failed, filenames, __missing__ = {}, set(), lambda self, name: None

    def all(self, name):
        return []


class Skeleton:
    """The adapter of the text decoders to the skeleton's names and calls."""

    NAMES = {"_embed": "embedding", "_rnn_norm": "emb_norm", "_rnn": "lstm", "_pos_embed": "positions"}

    def __getattr__(self, name):
        return super().__getattr__((self.NAMES | {"_out_norm": "norm", "_classifier": "classifier"}).get(name, name))

    def _att(self, x, mask):
        return self.self_attention(x, mask=mask == 0)[0]

    def _cross_att(self, x, z):
        return self.feed_forward(self.cross_attention(x, z)[0])

    def forward(self, x, latent, state=None):  # the state is h, and the text that was read before
        text = x if state is None else torch.cat([state[1], x], dim=1)
        logits = super().forward(text, latent, torch.full((len(x),), latent.shape[1])).transpose(1, 2)
        h = self._rnn(self._rnn_norm(self._embed(text)))[1][0] if hasattr(self, "lstm") else None
        return logits if h is None else (logits[:, :, -x.shape[1] :], (h, text))


class Additive(models.AdditiveAttention):
    """The adapter of the attention: it may be asked with a state for each image, (n_images, hidden_size)."""

    def forward(self, regions, h, keys=None):
        z, alpha = super().forward(regions, h.unflatten(0, (len(regions), -1)) if h.dim() == 2 else h, keys)
        return (z.squeeze(1), alpha) if h.dim() == 2 else (z, alpha)


class OneWord:
    """The adapter of the caption decoders, which is asked with one word and a given state."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        if hasattr(self, "attention"):
            self.attention = Additive(captioning.ENCODER, captioning.DECODER, captioning.ATTENTION)

    def forward(self, word, h, c, regions):
        self.init_hidden_state = lambda regions: (h, c)
        state = self.step(word.flatten(), (h, c), self.start(regions)[1])[1]
        return super().forward(regions, word.view(-1, 1, 1)).flatten(0, 2), *state


def test_the_networks_of_this_project_are_right():
    decoders = (models.TextDecoderRecurrent, models.TextDecoderTransformer)
    recurrent, transformer = (type(base.__name__, (Skeleton, base), {}) for base in decoders)
    translation_code = Project({name: getattr(models, name) for name in ("Encoder", "Attention", "Decoder", "Seq2Seq")})
    speech_code = Project(
        get_number_trainable_params=models.get_number_trainable_params,
        TextDecoderRecurrent=lambda: recurrent(7, 8, 2),
        TextDecoderTransformer=lambda: transformer(7, 8, 2, 9),
    )
    captioning_code = Project(
        Attention=Additive,
        Decoder=type("Decoder", (OneWord, models.CaptionDecoder), {}),
        DecoderWithAttention=type("DecoderWithAttention", (OneWord, models.CaptionDecoderWithAttention), {}),
    )
    networks = {"2021-22": captioning_code, "2022-23": translation_code, "2023-24": speech_code}
    for edition, code in networks.items():
        code["CNN"] = lambda dropout_prob, no_maxpool=False, edition=edition: models.CNN(
            dropout_prob, no_maxpool, edition
        )
        for question in EDITIONS[edition]:
            if question.applies(code):
                result = question(code, edition).check()
                assert result["status"] == "ok", result


def test_the_check_imports_nothing_but_torch_and_the_standard_library():
    for path in [ROOT / "check.py", *sorted((ROOT / "checks").glob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] in {"torch", "checks", *sys.stdlib_module_names}, (path.name, name)


def write(folder, **texts):
    for name, text in texts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "models.py").write_text(text, encoding="utf-8")
    return folder


def test_command_line_shows_line_mistake_and_mend(run_script, tmp_path):
    text = plant(MODELS, ("scores = scores.masked_fill(", "scores.masked_fill("))
    path = write(tmp_path, mine=text) / "mine" / "models.py"
    line = text[: text.index("scores.masked_fill(")].count("\n") + 1
    output = run_script("check.py", "--only", "Attention", "--hint", "2", path)
    assert output.returncode == 1, output.stderr
    assert output.stdout.startswith(f"The check runs this code on this computer, with your rights: {path}\n")
    answers = [{"lacking": []}, *check_files({"models.py": text}, only="Attention")]
    shown = [report.Submission(answers, "").text(hint, 1) for hint in (0, 1)] + [output.stdout]
    for lines in shown:
        assert re.search(r"3\.1b +Attention +WRONG +\(1\) p = softmax\(s\)\n +models\.py, line (\d+)", lines)[1] == str(
            line
        )
    assert ["masked_fill returns" in lines for lines in shown] == [False, True, True]
    assert ["Right: scores = scores.masked_fill" in lines for lines in shown] == [False, False, True]
    assert "The last 2 of 5 characters are padding" in shown[1]
    assert "Statement 2022-23, 3.1b" in shown[1] and "docs/check.md#mask" in shown[1]
    assert [file.name for file in tmp_path.rglob("*")] == ["mine", "models.py"]  # nothing is written beside it


def test_several_files_and_a_notebook_are_one_solution(run_script, tmp_path):
    cells = ["!pip install torchaudio\n%matplotlib inline\n", plant(SPEECH), "for step in range(10**12):\n    pass"]
    notebook = {"cells": [{"cell_type": "code", "source": source.splitlines(True)} for source in cells]}
    (tmp_path / "hw2-q3.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (tmp_path / "hw2-q2.py").write_text(plant(CNN_2023), encoding="utf-8")
    output = run_script("check.py", tmp_path)
    assert output.returncode == 0, output.stdout + output.stderr
    assert "taken for 2023-24" in output.stdout and "8 of 8 right" in output.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nowhere.py"], "does not exist"),
        (["--hint", "5", "nowhere.py"], "invalid choice: 5"),
        ([], "the following arguments are required: PATH"),
        (["README.md"], "neither a .py file nor an .ipynb notebook"),
        (["options.py"], "none of the homework's classes was found"),
        (["--only", "Encoder", f"tests/check_solutions/{CNN}"], "--only Encoder: there is no such check"),
        (["--csv", "nowhere/checks.csv", f"tests/check_solutions/{CNN}"], "nowhere/checks.csv"),
    ],
)
def test_wrong_call_ends_in_one_line(run_script, arguments, words):
    output = run_script("check.py", *arguments)
    assert output.returncode == 2
    assert len(output.stderr.splitlines()) == 1 and words in output.stderr


FIRST_LINES = {
    "Encoder": "        emb = self.dropout(self.embedding(src))\n",
    "Attention": "        z = self.linear_in(query)\n",
    "Decoder": "        emb = self.dropout(self.embedding(tgt))\n",
}
# {submission: (checks that are right, {class: (line that stands before its first line, what is said about it)})}
HOSTILE = {
    "asks": (
        0,
        {
            "Encoder": ("input('?')", "asks for input"),
            "Attention": ("import urllib.request; urllib.request.urlopen('http://example.org')", "uses the network"),
            "Decoder": ("exit()", "calls exit()"),
        },
    ),
    "greedy": (
        0,
        {
            "Encoder": ("big = torch.zeros(10**9)", "memory limit"),
            "Attention": ("while True: pass", "time limit"),
            "Decoder": ("tgt.cuda()", "needs a GPU"),
        },
    ),
    "prints": (2, {"Attention": ("print('x' * 10**6)", "ok"), "Decoder": ("raise NotImplementedError", "not written")}),
    "ends": (1, {"Attention": ("import os; os._exit(3)", "ended the process (exit code 3)")}),
}


def test_hostile_submissions_get_a_line_each_and_the_others_go_on(monkeypatch, capsys, tmp_path):
    texts = {}
    for name, (_, lines) in HOSTILE.items():
        planted = [(FIRST_LINES[cls], f"        {line}\n{FIRST_LINES[cls]}") for cls, (line, _) in lines.items()]
        texts[name] = plant(MODELS, *planted)
    folder = write(tmp_path / "class", **texts, broken="class Attention(:\n", right=plant(MODELS))
    monkeypatch.setattr(command, "CLASS_SECONDS", 3)
    table, results = tmp_path / "checks.csv", tmp_path / "results.json"
    assert command.main(["--csv", str(table), "--json", str(results), str(folder)]) == 1
    shown = dict(re.findall(r"^== (\w+)\n(.*?)(?=\n== |\Z)", capsys.readouterr().out, flags=re.M | re.S))
    assert shown.keys() == {*HOSTILE, "broken", "right"}
    assert "models.py, line 1: invalid syntax" in shown["broken"]
    assert "5 of 5 right" in shown["right"]
    names = "Encoder,Attention,Decoder,Decoder with attention,Seq2Seq"
    assert table.read_text(encoding="utf-8").splitlines()[0] == f"submission,edition,right,checks,{names},error"
    answers = json.loads(results.read_text(encoding="utf-8"))
    scores = {name: n_right for name, (n_right, _) in HOSTILE.items()} | {"broken": 0, "right": 5}
    assert {name: answer["score"] for name, answer in answers.items()} == scores
    for name, (_, lines) in HOSTILE.items():
        assert "Traceback" not in shown[name]
        for cls, (_, words) in lines.items():
            said = [
                f"{test['name']} {test['output']}" for test in answers[name]["tests"] if f" {cls}: " in test["name"]
            ]
            assert len(said) == 1 and words in " ".join(said[0].split()), said


def test_the_edition_is_found_although_forward_does_not_run():
    layers = "self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3)\n"
    layers += "        self.c, self.d, self.e = nn.Linear(576, 320), nn.Linear(320, 120), nn.Linear(120, 4)\n"
    text = "from torch import nn\n\n\nclass CNN(nn.Module):\n    def __init__(self, dropout_prob):\n"
    text += f"        super().__init__()\n        {layers}\n    def forward(self, x):\n        return self.nothing(x)\n"
    assert next(iter(check_files({"my.py": text})))["edition"] == "2023-24"
