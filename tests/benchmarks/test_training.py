import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nasharness.benchmarks.images import Digits, Images, ImageTask
from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.schedule import Schedule
from nasharness.benchmarks.spaces.nasbench201 import CONV3, NONE, SKIP
from nasharness.benchmarks.training import evaluate, train

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


class Points(ImageTask):
    """Two classes of one-pixel images, 10 / 6 / 5 of them; epoch `e` of seed `s` shifts the training pixels."""

    name = "points"
    num_classes = 2
    shape = (1, 1, 1)

    def split(self, name):
        n = {"train": 10, "validation": 6, "test": 5}[name]
        values = np.linspace(-1.0, 1.5, n, dtype=np.float32)
        return Images(values.reshape(n, 1, 1, 1), (np.arange(n) % 3 == 0).astype(np.int64))

    def epoch(self, seed, epoch):
        images, labels = self.split("train")
        return Images(images + np.float32(0.1 * seed + 0.01 * epoch), labels)


class OneParameter(nn.Module):
    """Logits (0, w x): a logistic regression through the origin."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(float(w)))

    def forward(self, images):
        x = images.reshape(len(images))
        return torch.stack([torch.zeros_like(x), self.w * x], dim=1)


@pytest.fixture(autouse=True)
def _torch_as_it_was():
    """`train` lets torch flush denormals; the tests leave torch as they found it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_flush_denormal(False)


def rng(seed=0):
    return np.random.default_rng(seed)


def cross_entropy(w, x, y):
    """Mean loss and accuracy of `OneParameter`, in NumPy float64."""
    z = w * x
    return float(np.mean(np.logaddexp(0, z) - y * z)), float(np.mean((z > 0) == y))


def slow_sgd(w, schedule, seed, shuffle):
    """The training loop written out in NumPy float64: what `train` should do to `OneParameter`."""
    task, momentum_buffer, step = Points(), 0.0, 0
    per_epoch = math.ceil(10 / schedule.batch_size)
    rates, rows = [], []
    val_x, val_y = (a.reshape(-1) for a in task.split("validation"))
    for epoch in range(schedule.epochs):
        x, y = (a.reshape(-1).astype(float) for a in task.epoch(seed, epoch))
        order, losses, correct = shuffle.permutation(10), 0.0, 0
        for start in range(0, 10, schedule.batch_size):
            batch = order[start : start + schedule.batch_size]
            rate = schedule.learning_rate * (1 + math.cos(math.pi * step / (schedule.epochs * per_epoch))) / 2
            loss, accuracy = cross_entropy(w, x[batch], y[batch])
            losses, correct = losses + loss * len(batch), correct + accuracy * len(batch)
            gradient = np.mean((1 / (1 + np.exp(-w * x[batch])) - y[batch]) * x[batch]) + schedule.weight_decay * w
            momentum_buffer = schedule.momentum * momentum_buffer + gradient
            w -= rate * (gradient + schedule.momentum * momentum_buffer)  # Nesterov; plain SGD where momentum is 0
            rates.append(rate)
            step += 1
        rows.append((losses / 10, correct / 10, *cross_entropy(w, val_x, val_y)))
    return w, np.array(rows), rates


# -------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(epochs=3, batch_size=4, learning_rate=0.5, momentum=0.9, weight_decay=0.0),
        Schedule(epochs=4, batch_size=10, learning_rate=0.3, momentum=0.5, weight_decay=0.1),
        Schedule(epochs=2, batch_size=64, learning_rate=0.2, momentum=0.0, weight_decay=5e-4),
        Schedule(epochs=1, batch_size=1, learning_rate=0.1, momentum=0.9, weight_decay=1e-2),
    ],
    ids=["last batch short", "one batch", "no momentum", "batches of one"],
)
@pytest.mark.parametrize("seed", [0, 3])
def test_training_equals_a_slow_loop(schedule, seed):
    """Every step of a one-parameter model is that of SGD with Nesterov momentum and cosine rate written out in NumPy."""
    network = OneParameter(0.3)
    result = train(network, Points(), schedule, seed=seed, rng=rng(8))
    w, rows, _ = slow_sgd(0.3, schedule, seed, rng(8))
    assert network.w.item() == pytest.approx(w, rel=1e-5)
    np.testing.assert_allclose(np.stack([getattr(result, name) for name in CURVES], axis=1), rows, rtol=2e-5, atol=1e-6)
    test_loss, test_accuracy = cross_entropy(w, *(a.reshape(-1) for a in Points().split("test")))
    assert (result.test_loss, result.test_accuracy) == pytest.approx((test_loss, test_accuracy), rel=1e-5)


def test_learning_rate_by_hand(monkeypatch):
    """Two epochs of two batches at 0.4: the rates are 0.4 times 1, (2 + sqrt 2)/4, 1/2 and (2 - sqrt 2)/4."""
    rates, step = [], torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    train(OneParameter(0.1), Points(), Schedule(epochs=2, batch_size=5, learning_rate=0.4), seed=0, rng=rng())
    assert pytest.approx(rates) == [0.4, 0.1 * (2 + 2**0.5), 0.2, 0.1 * (2 - 2**0.5)]


def cell(arch=(CONV3, SKIP, CONV3, NONE, CONV3, SKIP)):
    torch.manual_seed(1)
    return NASBench201Network(arch, channels=2, cells=1, input_channels=1)


def test_same_seed_same_curve_bit_for_bit():
    """Equal network, images and shuffling give equal curves, to the last bit; only the seconds are measured."""
    schedule = Schedule(epochs=2, batch_size=250)
    first, second = (train(cell(), Digits(), schedule, seed=0, rng=rng(5)).as_dict() for _ in range(2))
    for name in (*CURVES, "test_loss", "test_accuracy"):
        np.testing.assert_array_equal(first[name], second[name])


def test_another_shuffling_gives_another_curve():
    """The order of the batches comes from `rng`."""
    schedule = Schedule(epochs=1, batch_size=250)
    first, second = (train(cell(), Digits(), schedule, seed=0, rng=rng(i)) for i in range(2))
    assert first.train_loss[0] != second.train_loss[0]


@pytest.mark.parametrize("epochs", [1, 3])
def test_shapes_and_ranges_of_the_curves(epochs):
    """Every curve is float32 (epochs,), accuracies are fractions, the seconds rise."""
    result = train(cell(), Digits(), Schedule(epochs=epochs, batch_size=500), seed=0, rng=rng())
    for name in (*CURVES, "seconds"):
        column = getattr(result, name)
        assert ((epochs,), np.float32) == (column.shape, column.dtype)
        assert np.isfinite(column).all()
    for column in (result.train_accuracy, result.val_accuracy, result.test_accuracy):
        assert (np.min(column) >= 0, np.max(column) <= 1) == (True, True)
    assert (np.diff(result.seconds, prepend=0) > 0).all()


def test_a_network_learns_the_digits():
    """Three epochs on plain digits reach 70 % test accuracy; chance is 10 %."""
    network = NASBench201Network((CONV3, SKIP, CONV3, SKIP, CONV3, CONV3), channels=4, cells=1, input_channels=1)
    result = train(network, Digits(), Schedule(epochs=3), seed=0, rng=rng())
    assert result.test_accuracy > 0.7
    assert result.val_accuracy[-1] > 0.7
    assert result.train_loss[-1] < result.train_loss[0]


def test_training_is_in_place_and_counts_its_batches():
    """The network that was passed is the one that is trained, batch normalisation included."""
    network = cell()
    before = network.classifier.weight.detach().clone()
    train(network, Digits(), Schedule(epochs=2, batch_size=300), seed=0, rng=rng())
    assert not torch.equal(before, network.classifier.weight)
    assert network.stem[1].num_batches_tracked == 2 * 4  # ceil(1000 / 300)


# ------------------------------------------------------------------------------------------------------------ evaluation


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_evaluation_equals_a_slow_loop(batch_size):
    """Mean cross-entropy and accuracy are those of the images one by one, whatever the batches."""
    network = cell()
    network(torch.randn(50, 1, 8, 8))  # move the running statistics, so that the mode matters
    images, labels = (torch.tensor(a[:30]) for a in Digits().split("validation"))
    network.eval()
    losses, right = [], []
    with torch.no_grad():
        for image, label in zip(images, labels, strict=True):
            logits = network(image[None])
            losses.append(functional.cross_entropy(logits, label[None]).item())
            right.append(logits.argmax().item() == label.item())
    network.train()
    assert evaluate(network, images, labels, batch_size) == pytest.approx((np.mean(losses), np.mean(right)), rel=1e-5)


def test_evaluation_changes_nothing():
    """Evaluation moves neither parameters nor running statistics."""
    network = cell()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate(network, *(torch.tensor(a[:20]) for a in Digits().split("test")))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# -------------------------------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate", "momentum", "weight_decay"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf])
def test_schedule_refuses_what_is_not_a_positive_number(name, value):
    """Negative, infinite and undefined settings are refused by name and value."""
    with pytest.raises(ValueError, match=f"schedule: {name} must be .*number, not {value}"):
        Schedule(**{name: value})


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate"])
def test_schedule_refuses_zero_where_nothing_would_be_trained(name):
    """Zero epochs, batch size or learning rate are refused."""
    with pytest.raises(ValueError, match=f"schedule: {name} must be .* not 0"):
        Schedule(**{name: 0})


def test_schedule_takes_zero_momentum_and_weight_decay():
    """Plain SGD can be asked for."""
    schedule = Schedule(momentum=0.0, weight_decay=0.0)
    assert (schedule.momentum, schedule.weight_decay) == (0.0, 0.0)


@pytest.mark.parametrize(("name", "value"), [("epochs", 2.5), ("batch_size", 0.5), ("epochs", True)])
def test_schedule_refuses_fractions_of_epochs_and_images(name, value):
    """Epochs and batch size are whole numbers."""
    with pytest.raises(ValueError, match=name):
        Schedule(**{name: value})


def test_schedule_names_a_setting_of_the_wrong_type():
    """A setting that is no number is refused by name."""
    with pytest.raises(ValueError, match="schedule: learning_rate"):
        Schedule(learning_rate="0.1")
