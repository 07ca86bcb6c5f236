"""Zen-score: worked by hand on networks of one convolution, and what counts as the last features."""

import math

import pytest
import torch
from torch import nn

from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.proxies.base import ProxyError
from nasharness.proxies.passes import measure_together
from nasharness.proxies.zen import Zen, before_pooling

ARCH = (3, 1, 2, 4, 3, 1)
NO_LABELS = torch.zeros(0, dtype=torch.int64)
GREY = torch.zeros(0, 1, 3, 3)
COLOUR = torch.zeros(0, 3, 8, 8)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def head(channels=1):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)


def small(arch=ARCH, **options):
    torch.manual_seed(0)
    return NASBench201Network(arch, channels=4, cells=1, **options)


def drawn(seed, batch):
    """What Zen draws for a network of one 1x1 convolution and one linear layer: w, x and e."""
    source = rng(seed)
    w = torch.empty(1, 1, 1, 1).normal_(generator=source)
    torch.empty(2, 1).normal_(generator=source)
    x, e = (torch.randn(batch, 1, 3, 3, generator=source) for _ in range(2))
    return w.item(), x, e


def test_on_paper_without_normalisation():
    """f(x) = w x, so the change is w * 0.01 e."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), *head())
    w, _, e = drawn(3, 5)
    expected = math.log(abs(w) * 0.01 * e.abs().sum((1, 2, 3)).mean())
    assert Zen(rng(3), batch_size=5).score(network, GREY, NO_LABELS) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("variance", ["running", "batch"])
def test_on_paper_with_normalisation(variance):
    """f(x) = (w x - mean) / sqrt(v + 1e-5); the running variance mixes 1 and the unbiased variances of both passes."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1), *head())
    w, x, e = drawn(3, 5)
    one, two = w * x, w * (x + 0.01 * e)

    def normal(y):
        return (y - y.mean()) / (y.var(correction=0) + 1e-5).sqrt()

    change = (normal(one) - normal(two)).abs().sum((1, 2, 3)).mean()
    mixed = 0.81 + 0.09 * one.var() + 0.1 * two.var()
    expected = change.log() + 0.5 * (mixed if variance == "running" else one.var(correction=0)).log()
    score = Zen(rng(3), batch_size=5, variance=variance).score(network, GREY, NO_LABELS)
    assert score == pytest.approx(float(expected), rel=1e-4)


def test_normalisation_without_running_variance_takes_the_batch():
    layers = [nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, track_running_stats=False), *head()]
    scores = [
        Zen(rng(3), batch_size=5, variance=v).score(nn.Sequential(*layers), GREY, NO_LABELS)
        for v in ("running", "batch")
    ]
    assert scores[0] == scores[1]


def test_ten_times_the_noise_adds_the_logarithm_of_ten():
    """A network of convolutions is linear."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, stride=2), *head(5))
    a, b = (Zen(rng(1), batch_size=4, noise=noise).score(network, COLOUR, NO_LABELS) for noise in (0.01, 0.1))
    assert b - a == pytest.approx(math.log(10), rel=1e-3)


def test_repeats_are_averaged():
    """Without normalisation nothing is left over from one repetition to the next."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), *head(4))
    source = rng(5)
    single = [Zen(source, batch_size=4).score(network, COLOUR, NO_LABELS) for _ in range(3)]
    assert Zen(rng(5), batch_size=4, repeats=3).score(network, COLOUR, NO_LABELS) == pytest.approx(sum(single) / 3)


def test_no_data_and_the_network_is_put_back():
    network = small().eval()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    scores = [
        Zen(rng(2), batch_size=4).score(network, images, NO_LABELS)
        for images in (COLOUR, torch.randn(3, 3, 8, 8, generator=rng(9)))
    ]
    assert scores[0] == scores[1]
    assert not network.training
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_golden():
    """As first recorded."""
    assert Zen(rng(0), batch_size=8).score(small(), COLOUR, NO_LABELS) == pytest.approx(GOLDEN, rel=1e-4)


def test_a_disconnected_network_ranks_last():
    (measured,) = measure_together([Zen(rng(0), batch_size=4)], small((3, 3, 3, 0, 0, 0)), COLOUR, NO_LABELS)
    assert measured.values == (-math.inf,)


def test_the_features_are_what_pooling_reads():
    x = torch.randn(2, 3, 8, 8, generator=rng(0))
    with torch.no_grad():
        for pool in (nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(8), nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Dropout(0.5))):
            body = nn.Conv2d(3, 4, 3, padding=1)
            network = nn.Sequential(body, pool, nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2))
            assert torch.equal(before_pooling(network, x), body(x))
        network = small().eval()
        features = before_pooling(network, x)
        assert features.shape == (2, 16, 2, 2)
        assert torch.equal(network.classifier(features.mean((2, 3))), network(x))


class Squeeze(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1), nn.Sigmoid())

    def forward(self, x):
        return x * self.gate(x)


def test_pooling_inside_of_a_block_is_not_the_end():
    x = torch.randn(2, 3, 8, 8, generator=rng(0))
    block = Squeeze()
    with torch.no_grad():
        assert torch.equal(before_pooling(nn.Sequential(block, *head(3)), x), block(x))


def test_what_is_not_defined():
    with pytest.raises(ProxyError, match="no feature maps"):
        Zen().score(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), GREY, NO_LABELS)
    with pytest.raises(ValueError, match="variance"):
        Zen(variance="mean")
    with pytest.raises(ValueError, match="at least 1"):
        Zen(repeats=0)


GOLDEN = 13.056255
