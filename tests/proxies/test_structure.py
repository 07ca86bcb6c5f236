"""Proxies that count: parameters, operations, live parameters, weights' norms; and the random score."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from nasharness.benchmarks.networks.cost import count_flops
from nasharness.benchmarks.networks.darts import DARTSNetwork
from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space, count_cost
from nasharness.proxies.flops import FLOPs
from nasharness.proxies.l2_norm import L2Norm
from nasharness.proxies.live_params import LiveParams
from nasharness.proxies.params import Params
from nasharness.proxies.passes import measure_together
from nasharness.proxies.random_score import RandomScore

SPACE = NASBench201Space()
IMAGES = torch.zeros(0, 3, 8, 8)
NO_LABELS = torch.zeros(0, dtype=torch.int64)
CELLS = [SPACE.sample(np.random.default_rng(seed)) for seed in range(30)]
OFFICIAL = "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"


def score(proxy, network, images=IMAGES):
    return proxy.score(network, images, NO_LABELS)


def connected(arch):
    return any(op for op in SPACE.prune(arch))


def small(arch, **options):
    return NASBench201Network(arch, channels=4, cells=1, **options)


def test_official_number_of_parameters():
    network = NASBench201Network(SPACE.from_string(OFFICIAL))
    assert score(Params(), network) == score(LiveParams(), network) == 587_386


@pytest.mark.parametrize("arch", CELLS[:5])
def test_parameters_and_flops_are_those_of_nasbench201(arch):
    network = small(arch)
    expected = count_cost(arch, channels=4, cells=1, image_size=8)
    assert (score(Params(), network), score(FLOPs(), network)) == expected
    assert score(FLOPs(), network) == count_flops(network, (3, 8, 8))
    assert network.training


def test_flops_on_paper():
    """6x6 image. Depthwise 3x3, stride 2, padding 1 on 4 channels: 3*3 positions * 4 channels * (9 + 1 bias) = 360.

    1x1 convolution before it, without bias: 36 * 4 * 3 = 432, called twice: 864. Linear 4 -> 5: 5 * (4 + 1) = 25, in all 1249.
    """

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.point = nn.Conv2d(3, 4, 1, bias=False)
            self.depth = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4)
            self.unused = nn.Conv2d(4, 4, 3)
            self.classifier = nn.Linear(4, 5)

        def forward(self, x):
            return self.classifier(self.depth(self.point(x) + self.point(-x)).mean((2, 3)))

    assert score(FLOPs(), Network(), torch.zeros(2, 3, 6, 6)) == 1249


def test_flops_of_one_position_with_normalisation():
    """Batch normalisation in train mode would refuse one image of one position: 4 * 3 + 2 * (4 + 1) = 22."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    assert score(FLOPs(), network, torch.zeros(0, 3, 1, 1)) == 22


def test_every_parameter_counts():
    """3 * 4 * 9 + 4, twice 4, 1 and 4 * 2 + 2; frozen ones, too."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.Flatten(), nn.Linear(4, 2))
    network[0].weight.requires_grad_(False)
    assert score(Params(), network) == 112 + 8 + 1 + 10


@pytest.mark.parametrize("arch", [arch for arch in CELLS if connected(arch)][:15])
def test_live_parameters_are_those_of_the_pruned_cell(arch):
    torch.manual_seed(0)
    expected = count_cost(SPACE.prune(arch), channels=4, cells=1)[0]
    assert score(LiveParams(), small(arch)) == score(LiveParams(), small(arch, prune=True)) == expected
    assert expected <= score(Params(), small(arch))


@pytest.mark.parametrize("arch", [(0, 0, 0, 0, 0, 0), (3, 3, 3, 0, 0, 0), (0, 0, 3, 0, 0, 3)])
def test_nothing_is_live_in_a_disconnected_network(arch):
    assert not connected(arch)
    (measured,) = measure_together([LiveParams()], small(arch), IMAGES, NO_LABELS)
    assert measured.values == (0.0,)


def test_live_parameters_of_darts():
    """Every operation of a DARTS cell is live, the auxiliary head is not part of the output."""
    network = DARTSNetwork(DARTSSpace().sample(np.random.default_rng(0)), channels=4, layers=3, auxiliary=True)
    everything = score(Params(), network)
    head = score(Params(), network.auxiliary_head)
    assert score(LiveParams(), network) == everything - head
    assert head > 0


def test_live_parameters_without_weights_before():
    """A normalisation of the image itself is live, an unused layer is not; every type of layer counts."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.BatchNorm2d(3)
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.GroupNorm(2, 4)
            self.act = nn.PReLU()
            self.cut = nn.Conv2d(4, 4, 1, bias=False)
            self.cut_norm = nn.BatchNorm2d(4)
            self.classifier = nn.Linear(4, 2)

        def forward(self, x):
            x = self.act(self.norm(self.conv(self.first(x))))
            return self.classifier((x + 0 * self.cut_norm(self.cut(x))).mean((2, 3)))

    torch.manual_seed(0)
    # GroupNorm cannot be left out as batch normalisation is, and centres what it reads: it stays, with its bias.
    network = Network()
    nn.init.ones_(network.norm.bias)
    expected = 6 + (27 * 4 + 4) + 8 + 1 + (4 * 2 + 2)
    assert score(LiveParams(), network) == expected
    assert score(Params(), network) == expected + 16 + 8


def test_l2_norm_on_paper():
    """Twelve weights of 2 have the norm sqrt(48), (3, 4) has 5; biases and normalisation do not count."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.fill_(2.0)
        network[3].weight.copy_(torch.tensor([[3.0, 4.0]]))
    assert score(L2Norm(), network) == pytest.approx(math.sqrt(48) + 5)


def test_l2_norm_scales_with_the_weights():
    network = small(CELLS[0])
    before = score(L2Norm(), network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(-3)
    assert score(L2Norm(), network) == pytest.approx(3 * before)


def test_random_score_is_uniform_and_repeatable():
    """A thousand numbers: mean 1/2 and variance 1/12, within five standard errors."""
    network = nn.Flatten()
    proxy = RandomScore(torch.Generator().manual_seed(1))
    numbers = np.array([score(proxy, network) for _ in range(1000)])
    assert len(set(numbers)) == 1000
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert abs(numbers.mean() - 0.5) < 5 * math.sqrt(1 / 12_000)
    assert abs(numbers.var() - 1 / 12) < 5 * math.sqrt(1 / 180_000)
    assert score(RandomScore(torch.Generator().manual_seed(1)), network) == numbers[0]


def test_what_needs_no_data_says_so():
    for proxy in (Params(), FLOPs(), LiveParams(), L2Norm(), RandomScore()):
        assert proxy.n_images == 0
        assert proxy.deterministic is isinstance(proxy, Params | FLOPs | LiveParams)
