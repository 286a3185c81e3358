"""The networks, in the order of the questions. No files, no devices, no decoding, no printing."""

import torch.nn.functional as F
from torch import nn

from editions import DEFAULT_EDITION, EDITIONS

IMAGE_SIDE = 28  # pixels, in every edition of Question 2


def get_number_trainable_params(model):
    """The number of trainable parameters of `model` (2023-24, Question 2.3)."""
    return sum(param.numel() for param in model.parameters() if param.requires_grad)


class CNN(nn.Module):
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
        self.fc1 = nn.Linear(channels2 * side * side, spec.fc_sizes[0])
        self.fc2 = nn.Linear(*spec.fc_sizes)
        self.fc3 = nn.Linear(spec.fc_sizes[1], n_classes or spec.n_classes)
        self.drop = nn.Dropout(dropout_prob)

    def forward(self, x):
        x = x.reshape(-1, 1, IMAGE_SIDE, IMAGE_SIDE)
        x = F.relu(self.conv1(x))  # (batch_size, channels1, 28, 28), or 14 x 14 if strided
        if not self.no_maxpool:
            x = F.max_pool2d(x, kernel_size=2, stride=2)  # (batch_size, channels1, 14, 14)
        x = F.relu(self.conv2(x))  # (batch_size, channels2, 12, 12), or 6 x 6 if strided
        if not self.no_maxpool:
            x = F.max_pool2d(x, kernel_size=2, stride=2)  # (batch_size, channels2, 6, 6)
        x = x.flatten(1)
        x = self.drop(F.relu(self.fc1(x)))
        x = F.relu(self.fc2(x))
        return F.log_softmax(self.fc3(x), dim=-1)
