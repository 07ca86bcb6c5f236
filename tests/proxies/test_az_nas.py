"""AZ-NAS: each of its four parts by hand, which features it reads, and the ranking."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from nasharness.benchmarks.networks.darts import DARTSNetwork
from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench201 import count_cost
from nasharness.proxies.az_nas import AZNAS, _folded, entropy, stages
from nasharness.proxies.base import ProxyError
from nasharness.proxies.passes import measure_together

ARCH = (3, 1, 2, 4, 3, 1)
NO_LABELS = torch.zeros(0, dtype=torch.int64)
GREY = torch.zeros(0, 1, 4, 4)
COLOUR = torch.zeros(0, 3, 8, 8)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def small(arch=ARCH, **options):
    torch.manual_seed(0)
    return NASBench201Network(arch, channels=4, cells=1, **options)


class Chain(nn.Module):
    """A stem and cells."""

    def __init__(self, stem, *cells):
        super().__init__()
        self.stem = stem
        self.cells = nn.ModuleList(cells)

    def forward(self, x):
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x)
        return x.mean((2, 3))


def conv(inputs=1, outputs=1, kernel=1, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, bias=False)


def measure(network, images=COLOUR, seed=0, batch=8, **options):
    return AZNAS(rng(seed), batch_size=batch, **options).measure(network, images, NO_LABELS)


def test_entropy_on_paper():
    """Channels 1, -1, 1, -1 and 2, 2, -2, -2 have the variances 1 and 4 and no covariance: p = 0.2 and 0.8.

    - 0.2 log 0.2 - 0.8 log 0.8 = 0.5004. A channel that is a multiple of another adds nothing.
    """
    features = torch.tensor([[[1.0, -1.0], [1.0, -1.0]], [[2.0, 2.0], [-2.0, -2.0]]])[None]
    assert entropy(features + 7) == pytest.approx(0.500402, abs=1e-5)
    doubled = features[:, [0, 1, 1]] * torch.tensor([math.sqrt(4.0), 1.0, 1.0])[:, None, None]
    assert entropy(doubled) == pytest.approx(-(1 / 3) * math.log(1 / 3) - (2 / 3) * math.log(2 / 3), abs=1e-5)
    assert math.isnan(entropy(torch.zeros(1, 2, 2, 2)))


def test_entropy_is_at_most_the_logarithm_of_the_channels():
    noise = torch.randn(64, 6, 16, 16, generator=rng(0))
    assert entropy(noise) == pytest.approx(math.log(6), abs=1e-3)
    assert entropy(noise) < math.log(6)


def test_trainability_on_paper():
    """One channel, a convolution w: signs arrive times w, and the mean of sign * sign is 1, so sigma = |w|."""
    source = rng(5)
    weights = [torch.empty(1, 1, 1, 1).normal_(0.0, math.sqrt(2.0), generator=source).item() for _ in range(3)]
    sigmas = [abs(w) for w in weights[1:]]
    expected = sum(-s - 1 / (s + 1e-6) + 2 for s in sigmas) / 2
    expressivity, progressivity, trainability, flops = measure(Chain(conv(), conv(), conv()), GREY, 5)
    assert trainability == pytest.approx(expected, rel=1e-4)
    assert expressivity == pytest.approx(0, abs=1e-6)  # one channel has the entropy 0
    assert progressivity == pytest.approx(0, abs=1e-6)
    assert flops == 3 * 16


def test_nothing_but_identities_cannot_be_trained():
    expressivity, progressivity, trainability, _ = measure(Chain(conv(1, 4), nn.Identity(), conv(4, 4)), GREY)
    assert trainability == -math.inf
    assert math.isfinite(expressivity)
    assert math.isfinite(progressivity)


def test_halving_on_paper():
    """A 2x2 convolution with stride 2 and one channel: four folded channels, each with its weight: sigma = ||w||."""
    source = rng(8)
    torch.empty(1, 1, 1, 1).normal_(generator=source)
    w = torch.empty(1, 1, 2, 2).normal_(0.0, math.sqrt(2.0 / 4), generator=source)
    sigma = float(torch.linalg.vector_norm(w))
    trainability = measure(Chain(conv(), conv(kernel=2, stride=2)), GREY, 8)[2]
    assert trainability == pytest.approx(-sigma - 1 / (sigma + 1e-6) + 2, rel=1e-4)


def test_folding():
    """Odd sides are filled up with zeros; a rising resolution is not defined."""
    gradient = torch.arange(18.0).reshape(1, 2, 3, 3)
    folded = _folded(gradient, torch.Size([2, 2]))
    assert folded.shape == (1, 8, 2, 2)
    assert folded[0, :4].reshape(4, 4).T.tolist() == [[0, 1, 3, 4], [2, 0, 5, 0], [6, 7, 0, 0], [8, 0, 0, 0]]
    assert _folded(gradient, torch.Size([3, 3])) is gradient
    with pytest.raises(ProxyError, match="resolution falls"):
        measure(Chain(conv(), nn.Upsample(scale_factor=2)), GREY)


def test_the_features_of_nasbench201():
    """The stem, the cells and the reductions: 1 + 15 + 2 officially, as in the published code."""
    torch.manual_seed(0)
    network = NASBench201Network(ARCH)
    assert stages(network) == [network.stem, *network.cells]
    assert len(stages(network)) == 18


def test_the_features_of_other_networks():
    block = nn.Sequential(conv(3, 4), nn.Sequential(nn.ReLU(inplace=True), conv(4, 4)))
    network = nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert stages(network) == [block[0], block[1][0], block[1][1], *list(network)[1:]]
    assert all(map(math.isfinite, measure(network, modules="0.0,0.1")))
    assert measure(network, modules="0.0, 0.1.*") == measure(network, modules="0.0,0.1.0,0.1.1")
    with pytest.raises(ProxyError, match="no module 'body'"):
        measure(network, modules="body.*")
    with pytest.raises(ProxyError, match="it sees 1"):
        measure(network, modules="0.0")


def test_modules_may_work_in_place():
    values = []
    for inplace in (False, True):
        network = Chain(conv(3, 4), nn.Sequential(nn.ReLU(inplace=inplace), conv(4, 4)), nn.ReLU(inplace=inplace))
        values.append(measure(network))
    assert values[0] == values[1]


def test_networks_of_the_package():
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    network = DARTSNetwork(DARTSSpace().sample(draw), channels=4, layers=3, auxiliary=False)
    assert all(map(math.isfinite, measure(network)))
    (measured,) = measure_together([AZNAS(rng(), batch_size=4)], small((0, 0, 0, 0, 0, 0)), COLOUR, NO_LABELS)
    assert measured.values[:3] == pytest.approx((-math.inf, -math.inf, measured.values[2]))
    assert measured.values[2] < -1e5  # no gradient arrives: sigma is 0


def test_complexity_is_the_flops_of_the_images():
    for side in (8, 16):
        flops = measure(small(), torch.zeros(0, 3, side, side))[3]
        assert flops == count_cost(ARCH, channels=4, cells=1, image_size=side)[1]


def test_the_network_is_put_back():
    network = small().eval()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    assert measure(network, seed=1) == measure(network, seed=1) != measure(network, seed=2)
    assert not network.training
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_ranking_on_paper():
    """Three candidates; ranks by column 3 1 2, 1 2.5 2.5, 2 3 1 and 1 2 3; the score is the sum of log(rank / 3)."""
    measured = np.array([[9.0, 0.1, 5.0, 10.0], [1.0, 0.2, 6.0, 20.0], [4.0, 0.2, -math.inf, 30.0]])
    products = np.array([3 * 1 * 2 * 1, 1 * 2.5 * 3 * 2, 2 * 2.5 * 1 * 3])
    np.testing.assert_allclose(AZNAS().aggregate(measured), np.log(products / 81))


def test_the_best_in_everything_has_the_score_zero():
    measured = np.random.default_rng(0).normal(size=(20, 4))
    measured[7] = 100
    scores = AZNAS().aggregate(measured)
    assert scores[7] == 0
    assert (np.delete(scores, 7) < 0).all()
    assert AZNAS().aggregate(np.zeros((0, 4))).shape == (0,)


def test_one_network_has_no_score():
    with pytest.raises(ProxyError, match="ranks candidates"):
        AZNAS().score(small(), COLOUR, NO_LABELS)
    with pytest.raises(ValueError, match="batch_size"):
        AZNAS(batch_size=0)


def test_golden():
    """As first recorded."""
    assert measure(small()) == pytest.approx(GOLDEN, rel=1e-2)


GOLDEN = (9.055627, -0.4405609, -0.7250387, 94122.0)
