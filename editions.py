"""The three editions of Question 2 in one table; everything that differs between them is here and nowhere else.

Standard library only: the options of a script are known before torch is imported.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Edition:
    """One edition of Question 2: its data set, its network and its training recipe.

    Attributes:
        year: the edition of the course.
        dataset: the data set that the statement asks for, as options and file names write it.
        title: the data set's name as its authors write it.
        class_names: in the order of the labels.
        channels: output channels of the two convolutions.
        conv1_kernel: side of the first kernel; the second is 3x3 in every edition.
        fc_sizes: output features of the two hidden affine layers.
        dropout, optimizer, epochs: the handout's values (in 2021-22 the dropout probability is left to the student).
        learning_rates: the values that the handout asks to compare, in its order.
        answers: lines for what else it asks of the network, as formats of a run's result; figures are in its folder.
    """

    year: str
    dataset: str
    title: str
    class_names: tuple[str, ...]
    channels: tuple[int, int]
    conv1_kernel: int
    fc_sizes: tuple[int, int]
    dropout: float
    optimizer: str
    epochs: int
    learning_rates: tuple[float, ...]
    answers: tuple[str, ...]

    @property
    def n_classes(self):
        return len(self.class_names)


EDITIONS = {
    "2022-23": Edition(
        year="2022-23",
        dataset="kuzushiji_mnist",
        title="Kuzushiji-MNIST",
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        channels=(8, 16),
        conv1_kernel=5,
        fc_sizes=(600, 120),
        dropout=0.3,
        optimizer="adam",
        epochs=20,
        learning_rates=(0.00001, 0.0005, 0.01),
        answers=(
            "2.1 Trainable parameters: {n_params:,}",
            "2.4 train_loss.pdf, val_acc.pdf",
            "2.5 activation_maps.pdf, original_example.pdf",
        ),
    ),
    "2023-24": Edition(
        year="2023-24",
        dataset="octmnist",
        title="OCTMNIST",
        class_names=("CNV", "DME", "drusen", "normal"),
        channels=(8, 16),
        conv1_kernel=3,
        fc_sizes=(320, 120),
        dropout=0.7,
        optimizer="sgd",
        epochs=15,
        learning_rates=(0.1, 0.01, 0.001),
        answers=("2.1, 2.2 train_loss.pdf, val_acc.pdf", "2.3 Trainable parameters: {n_params:,}"),
    ),
    "2021-22": Edition(
        year="2021-22",
        dataset="fashion_mnist",
        title="Fashion-MNIST",
        class_names=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        channels=(16, 32),
        conv1_kernel=3,
        fc_sizes=(600, 120),
        dropout=0.3,
        optimizer="sgd",
        epochs=15,
        learning_rates=(0.001, 0.01, 0.1),
        answers=(
            "2.1 Equivariance error: shift {equivariance[shift]:.1g}, 90° turn {equivariance[rotation]:.2f}{bundled}",
            "2.2 train_loss.pdf, val_acc.pdf",
            "2.3 filters_1.pdf, filters_2.pdf",
        ),
    ),
}  # fmt: skip

DATASETS = {edition.dataset: edition for edition in EDITIONS.values()}
DEFAULT_EDITION = "2022-23"
BATCH_SIZE = 8  # in every edition
