"""Losses, gradients, scores and texts on a device other than the CPU, on machines that have none.

`Elsewhere` is a device that computes on the CPU and is as strict as a GPU: a function of tensors that lie on both
devices is an error, and copies between them and numbers that the host asks for are counted, since no CUDA graph can
hold a step with one.
"""

import pytest
import torch
from conftest import load_script
from test_speech_models import make_clips
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import utils
from data import captions, images, speech, translation
from data.bundled import translation as sentences

aten = torch.ops.aten
CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")  # a name that every build of torch has
MIXING = (aten._to_copy, aten.copy_, aten._pack_padded_sequence, aten._pack_padded_sequence_backward)
QUESTIONS_OF_THE_HOST = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)


class There(torch.Tensor):
    """A tensor that lies on `ELSEWHERE`; its values lie on the CPU."""

    @staticmethod
    def __new__(cls, values):
        where = {"device": ELSEWHERE, "strides": values.stride(), "storage_offset": values.storage_offset()}
        return cls._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, **where)

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of `Elsewhere`")


class Elsewhere(TorchDispatchMode):
    """Within it the device is there. What `torch.tensor(numbers, device=...)` makes there has lost the numbers."""

    n_crossings = 0  # numbers that the host has asked for, and copies from one device to the other

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [part for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)]
        # A single number may lie on the CPU, on a GPU too.
        devices = {part.device for part in tensors if part.dim() or isinstance(part, There)}
        assert len(devices) < 2 or func.overloadpacket in MIXING, f"{func} of tensors on two devices"
        target = kwargs.get("device")
        is_copy = func is aten._to_copy.default and target not in (None, tensors[0].device)
        # How many rows a mask takes is a number as well.
        is_mask = func is aten.index.Tensor and any(part is not None and part.dtype == torch.bool for part in args[1])
        is_question = (func in QUESTIONS_OF_THE_HOST or is_mask) and ELSEWHERE in devices
        self.n_crossings += is_copy or is_question or len(devices) > 1
        where = args[0].device if func is aten.copy_.default else ELSEWHERE if ELSEWHERE in devices else CPU
        if target is not None:
            where, kwargs["device"] = target, CPU
        found = func(*tree_map(values, args), **tree_map(values, kwargs))
        same = {id(values(part)): part for part in tensors}  # what is changed in place

        def placed(part):
            if where == CPU or not isinstance(part, torch.Tensor):
                return part
            return same[id(part)] if id(part) in same else There(part)

        if func.overloadpacket is aten._pack_padded_sequence:
            return placed(found[0]), found[1]  # the sizes of packed batches lie on the CPU
        return tree_map(placed, found)


def values(part):
    return part.values if isinstance(part, There) else part


def random_images(n_images=7, n_classes=10):
    generator = torch.Generator().manual_seed(0)
    X = torch.randint(0, 256, (n_images, 1, 28, 28), generator=generator).to(torch.uint8)
    y = torch.randint(0, n_classes, (n_images,), generator=generator)
    splits = ("train", "val", "test")
    names = tuple(map(str, range(n_classes)))
    return images.Images("Noise", True, "noise", names, dict.fromkeys(splits, X), dict.fromkeys(splits, y), "f")


def classification(*arguments):
    script = load_script("hw2-q2.py")
    args = script.parse_args(["-batch_size", "4", "-dropout", "0", "-learning_rate", "0.01", *arguments])
    return script.Classification(args, random_images())


def translator(*arguments):
    script = load_script("hw2-q3.py")
    args = script.parse_args(["-hidden_size", "12", "-batch_size", "8", "-dropout", "0", *arguments])
    splits = translation.split_pairs(sentences.generate(n_pairs=60))
    return script.Translation(args, translation.SentencePairs("", True, splits, "f"))


def recogniser(*arguments):
    script = load_script("hw2-q3-asr.py")
    args = script.parse_args(["--hidden_size", "16", "--n_layers", "1", "--batch_size", "3", *arguments])
    clips = make_clips()
    for part in (clips.ids, clips.texts, clips.rows):
        part["val"] = part[speech.PART] = part["train"]
    return script.Recognition(args, clips)


def captioning(*arguments):
    script = load_script("hw2-q3-captioning.py")
    args = script.parse_args(["-encoder", "efficientnet_lite0", "-batch_size", "3", "-dropout", "0", *arguments])
    written = [["a", "green", "field"], ["a", "plane"], ["many", "planes"], ["a", "sea", "and", "a", "field"]]
    examples = [captions.Example(f"{i}.tif", [words, written[0]]) for i, words in enumerate(written)]
    regions = torch.randn(len(examples), 6, 1280, generator=torch.Generator().manual_seed(0)).half()
    splits = dict.fromkeys(captions.SPLITS, examples)
    data = captions.CaptionedImages("Noise", True, splits, "f", {}, None, dict.fromkeys(captions.SPLITS, regions))
    return script.Captioning(args, data)


TASKS = {
    "cnn": classification,
    "cnn without pooling": lambda: classification("-edition", "2023-24", "-no_maxpool"),
    "mlp": lambda: classification("-network", "mlp"),
    "translator": translator,
    "translator with attention": lambda: translator("--use_attn", "-label_smoothing", "0.1"),
    "lstm recogniser": lambda: recogniser("--guided_attention", "1"),
    "transformer recogniser": lambda: recogniser("--decoder", "transformer"),
    "ctc recogniser": lambda: recogniser("--decoder", "transformer", "--ctc_weight", "0.3"),
    "captions": captioning,
    "captions with attention": lambda: captioning("--use_attention", "-features", "standardized"),
}
WRITERS = [name for name in TASKS if "cnn" not in name and "mlp" not in name]
SEARCHES = {
    "greedy": {},
    "beam": {"beam_size": 3, "length_penalty": 1.0},
    "samples": {"n_samples": 3, "seed": 1},
}


@pytest.fixture
def elsewhere(monkeypatch):
    """Clips are gathered there as on a CUDA GPU."""
    monkeypatch.setitem(speech.GRIDS, ELSEWHERE.type, speech.GRIDS["cuda"])
    frames_on = speech.frames_on.__wrapped__

    def there(data, device):
        return frames_on(data, CPU) if device == CPU else torch.from_numpy(data.frames).to(device)

    monkeypatch.setattr(speech, "frames_on", there)
    with Elsewhere() as device:
        yield device


def model_of(task, device):
    torch.manual_seed(3)
    with device:  # `to` would part the weight that an output layer shares with the embedding, as no GPU does
        return task.build()


def learn(task, device, mode):
    """The losses and the gradients of each batch of an epoch."""
    model, found = model_of(task, device).train(), []
    for batch in task.batches(device).epoch(torch.Generator().manual_seed(0)):
        is_there = all(part is None or part.device == device for part in batch)
        mode.n_crossings = 0
        model.zero_grad()
        loss, n_terms = task.batch_loss(model, batch)
        (loss / n_terms).backward()
        assert not (task.is_recordable and is_there and mode.n_crossings), "a graph cannot hold this step"
        found += [loss.detach(), *(param.grad.clone() for param in model.parameters())]
    return [part.cpu() for part in found]


@pytest.mark.parametrize("name", TASKS)
def test_losses_and_gradients_are_those_of_the_cpu(name, elsewhere):
    task = TASKS[name]()
    ours, right = learn(task, ELSEWHERE, elsewhere), learn(task, CPU, elsewhere)
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_validation_scores_are_those_of_the_cpu(name, elsewhere):
    task = TASKS[name]()
    ours, right = (utils.numbers(task.evaluate(model_of(task, device)), 1) for device in (ELSEWHERE, CPU))
    assert ours == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", WRITERS)
def test_texts_are_those_of_the_cpu(name, search, elsewhere):
    task = TASKS[name]()
    ours, right = (task.decode(model_of(task, device), "val", **SEARCHES[search]) for device in (ELSEWHERE, CPU))
    assert ours == right and any(right)


def test_attention_is_drawn(elsewhere, tmp_path):
    task = translator("--use_attn")
    alpha = task.draw_attention(tmp_path / "a.pdf", model_of(task, ELSEWHERE), "hola", "")
    torch.testing.assert_close(alpha, task.draw_attention(tmp_path / "b.pdf", model_of(task, CPU), "hola", ""))
    task = recogniser()
    (found,), (right,) = (task.transcribe(model_of(task, at), [1], return_weights=True) for at in (ELSEWHERE, CPU))
    assert found[0] == right[0]
    torch.testing.assert_close(found[1], right[1][:, :, : found[1].shape[2]])


def test_a_classifier_is_tested_and_drawn(elsewhere, tmp_path):
    task = classification()
    model = model_of(task, ELSEWHERE)
    history = [{"epoch": 1, "lr": 0.01, "train_loss": 1.0, "seconds": 1.0} | utils.numbers(task.evaluate(model), 1)]
    task.draw(model, history, tmp_path)
    ours, right = (task.test(part, tmp_path) for part in (model, model_of(task, CPU)))
    assert ours.keys() == right.keys() and ours["test"] == right["test"]
    assert (tmp_path / "activation_maps.pdf").exists()


def test_what_is_strict_elsewhere(elsewhere):
    a = torch.ones(2, device=ELSEWHERE)
    with pytest.raises(AssertionError, match="two devices"):
        a + torch.ones(2)
    assert (a + torch.tensor(1.0)).shape == (2,) and elsewhere.n_crossings == 0
    assert (a + a).sum() == 4 and elsewhere.n_crossings == 1
    assert a.tolist() == [1.0, 1.0] and elsewhere.n_crossings == 2
    assert len(a[a > 0]) == 2 and elsewhere.n_crossings == 3
