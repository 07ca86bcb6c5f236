"""The condition number of the neural tangent kernel, linear regions, and both together."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from nasharness.benchmarks.networks.darts import DARTSNetwork
from nasharness.benchmarks.networks.nasbench101 import NASBench101Network
from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.proxies.base import ProxyError
from nasharness.proxies.layers import kaiming_fan_out
from nasharness.proxies.linear_regions import LinearRegions, distinct
from nasharness.proxies.ntk import NTK, condition_number, tangent_kernel
from nasharness.proxies.passes import measure_together
from nasharness.proxies.te_nas import TENAS

ARCH = (3, 1, 2, 4, 3, 1)
NO_LABELS = torch.zeros(0, dtype=torch.int64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=12, channels=3, side=8, seed=1):
    return torch.randn(n, channels, side, side, generator=rng(seed))


def small(arch=ARCH, **options):
    torch.manual_seed(0)
    return NASBench201Network(arch, channels=4, cells=1, **options)


def linear(inputs, outputs=2, *, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs, bias=bias))


# ------------------------------------------------------------------------------------------------------------------- ntk


def test_kernel_of_a_linear_layer_on_paper():
    """The sum of C logits has the gradient x in each row of W, so Theta_ij = C <x_i, x_j>, whatever W is.

    x = (2, 0) and (0, 1), C = 3: Theta = diag(12, 3), the condition number 4.
    """
    images = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
    network = linear(2, 3)
    assert torch.equal(tangent_kernel(network, images), torch.diag(torch.tensor([12.0, 3.0], dtype=torch.float64)))
    assert NTK().score(network, images, NO_LABELS) == pytest.approx(-4)


def test_condition_of_the_images_of_a_linear_layer():
    images = pictures(5, side=4)
    x = images.flatten(1).double()
    expected = float(torch.linalg.cond(x @ x.T))
    assert NTK(batch_size=5, repeats=2).score(linear(48), images, NO_LABELS) == pytest.approx(-expected, rel=1e-5)


def test_kernel_is_that_of_plain_gradients():
    """Against one backward pass per image and float64, through batch normalisation; biases do not count."""
    network, images = small().double(), pictures(3, side=4).double()
    network.train()
    weights = [p for name, p in network.named_parameters() if name.endswith("weight")]
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(network(images)[i].sum(), weights)]) for i in range(3)]
    expected = torch.stack(rows) @ torch.stack(rows).T
    torch.testing.assert_close(tangent_kernel(network.float(), images.float()), expected, rtol=1e-3, atol=1e-4)


def test_singular_kernels_rank_last():
    """Two equal images; no signal at all; overflow."""
    image = pictures(1)
    twice = torch.cat([image, image, pictures(2)])
    assert NTK().score(linear(192), twice, NO_LABELS) == -math.inf
    (measured,) = measure_together([NTK()], small((3, 3, 3, 0, 0, 0)), pictures(), NO_LABELS)
    assert measured.values == (-math.inf,)
    assert condition_number(torch.full((2, 2), math.nan, dtype=torch.float64)) == math.inf


def test_scaling_the_kernel_leaves_its_condition():
    kernel = tangent_kernel(small(), pictures(4))
    assert condition_number(kernel * 1e6) == pytest.approx(condition_number(kernel))
    assert condition_number(kernel) > 1


def test_ntk_draws_its_own_weights_and_puts_the_network_back():
    network, images = small(), pictures()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    scores = [NTK(rng(seed)).score(network, images, NO_LABELS) for seed in (3, 3, 4)]
    assert scores[0] == scores[1] != scores[2]
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    kaiming_fan_out(network, rng(3))
    assert scores[0] == pytest.approx(-condition_number(tangent_kernel(network.train(), images[:8])))


def test_ntk_needs_weights():
    with pytest.raises(ProxyError, match="'weight'"):
        NTK().score(nn.Flatten(), pictures(), NO_LABELS)
    with pytest.raises(ValueError, match="two images"):
        NTK(batch_size=1)


# --------------------------------------------------------------------------------------------------------------- regions


def test_regions_on_paper():
    """The units are the pixels themselves: patterns 01 10 11 11 00 (0 is not active) and 10 again: four different ones."""
    pixels = [[-1.0, 2.0], [3.0, -1.0], [1.0, 1.0], [2.0, 0.5], [0.0, -1.0], [9.0, -9.0]]
    images = torch.tensor(pixels).reshape(6, 1, 1, 2)
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2, 2))
    kept = images.clone()
    assert LinearRegions(size=None, share=1).score(network, images.clone(), NO_LABELS) == 4
    assert LinearRegions(size=None, share=1, samples=3).score(network, kept, NO_LABELS) == 3


@pytest.mark.parametrize("width", [1, 7, 8, 9, 70])
def test_distinct_rows(width):
    patterns = torch.rand(200, width, generator=rng(width)) < 0.1
    assert distinct(patterns) == len({tuple(row) for row in patterns.tolist()})


class Watcher(nn.Module):
    """Keeps what it reads."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        self.seen = x
        return self.act(x).mean((2, 3))


def test_crops_are_cut_out_of_the_images():
    """A pixel's value is its place: image * 10_000 + row * 100 + column."""
    place = torch.arange(6.0)[:, None] * 100 + torch.arange(7.0)
    images = torch.stack([place + 10_000 * i for i in range(3)])[:, None].repeat(1, 2, 1, 1)
    watcher = Watcher()
    LinearRegions(rng(2), samples=500, size=4).score(watcher, images, NO_LABELS)
    crops = watcher.seen
    assert crops.shape == (500, 2, 4, 4)
    corner = crops[:, 0, 0, 0]
    assert torch.equal(crops, (corner[:, None, None] + place[:4, :4])[:, None].expand(500, 2, 4, 4))
    assert set(corner.int().tolist()) == {
        i * 10_000 + y * 100 + x for i in range(3) for y in range(3) for x in range(4)
    }


def test_a_share_of_the_units():
    """An eighth of the 32 units of a 4 x 4 crop are 4, so there are at most 16 patterns."""
    network = nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    images = pictures(12, side=32)
    few, all_of_them = (
        LinearRegions(rng(0), share=share, samples=300).score(network, images, NO_LABELS) for share in (1 / 8, 1)
    )
    assert 1 < few <= 16 < all_of_them <= 300


def test_a_disconnected_network_has_one_region_behind_the_stem():
    """Its ReLUs read zeros only, or the biases of normalisation."""
    assert LinearRegions().score(small((0, 0, 0, 0, 0, 0)), pictures(), NO_LABELS) == 1


def test_the_default_crop_suits_every_network_of_the_package():
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    networks = [
        small(),
        DARTSNetwork(DARTSSpace().sample(draw), channels=4, layers=3, auxiliary=False),
        NASBench101Network(NASBench101Space().sample(draw), channels=4, modules=1),
    ]
    for network in networks:
        assert LinearRegions(samples=50).score(network, pictures(), NO_LABELS) > 1


def test_regions_where_they_are_not_defined():
    with pytest.raises(ProxyError, match="set `size`"):
        LinearRegions().score(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(192, 2)), pictures(), NO_LABELS)
    with pytest.raises(ProxyError, match="no ReLU module"):
        LinearRegions().score(linear(192), pictures(), NO_LABELS)
    with pytest.raises(ProxyError, match="feature maps"):
        LinearRegions(size=None).score(nn.Sequential(*linear(192), nn.ReLU()), pictures(), NO_LABELS)
    with pytest.raises(ValueError, match="share"):
        LinearRegions(share=0)
    with pytest.raises(ValueError, match="at least 1"):
        LinearRegions(samples=0)


# ---------------------------------------------------------------------------------------------------------------- te_nas


def test_te_nas_on_paper():
    """Ranks by -kappa: 3, 2, 1 (-inf is worst). By regions: 1, 2.5, 2.5. Sums: 4, 4.5, 3.5."""
    measured = np.array([[-2.0, 10.0], [-5.0, 90.0], [-math.inf, 90.0]])
    assert TENAS().aggregate(measured).tolist() == [4.0, 4.5, 3.5]


def test_te_nas_measures_both_with_one_generator():
    network, images = small(), pictures(16)
    source = rng(7)
    options = {"samples": 100, "share": 0.1}
    expected = (
        NTK(source).score(network, images, NO_LABELS),
        LinearRegions(source, **options).score(network, images, NO_LABELS),
    )
    proxy = TENAS(rng(7), **options)
    assert proxy.measure(network, images, NO_LABELS) == expected
    assert proxy.n_images == 128
    with pytest.raises(ProxyError, match="ranks candidates"):
        proxy.score(network, images, NO_LABELS)


def test_golden():
    """As first recorded."""
    network, images = small(), pictures(16)
    kappa, regions = TENAS(rng(0), samples=200).measure(network, images, NO_LABELS)
    assert kappa == pytest.approx(GOLDEN[0], rel=1e-2)
    assert regions == pytest.approx(GOLDEN[1], abs=3)


GOLDEN = (-18.4843, 149)
