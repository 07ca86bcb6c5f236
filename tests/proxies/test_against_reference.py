"""Every proxy in float32, with passes shared, against its plain float64 twin in reference.py.

The networks are a fixed sample: NAS-Bench-201 cells of every kind, and networks that have what those cells have not.
"""

import importlib.util
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from nasharness.benchmarks.networks.darts import DARTSNetwork
from nasharness.benchmarks.networks.nasbench101 import NASBench101Network
from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.registry import proxy_spec
from nasharness.proxies.passes import measure_together

# By its file: "proxies" is also the name of a folder at the root of the repository.
_spec = importlib.util.spec_from_file_location("proxy_reference", Path(__file__).with_name("reference.py"))
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


class Biased(nn.Module):
    """What the cells have not: biases, ReLUs in place, a ReLU of vectors, no batch normalisation."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, 8, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Sequential(nn.Linear(8, 12), nn.ReLU(inplace=True), nn.Linear(12, 10))

    def forward(self, x):
        return self.head(self.body(x).mean(dim=(2, 3)))


def cell(text, channels=4):
    return lambda: NASBench201Network(NASBench201Space().from_string(text), channels=channels, cells=1)


NETWORKS = {  # name: (how it is built, images)
    "all 3x3": (
        cell("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"),
        16,
    ),
    "all 1x1": (
        cell("|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|nor_conv_1x1~0|nor_conv_1x1~1|nor_conv_1x1~2|"),
        12,
    ),
    "residual": (
        cell("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"),
        16,
    ),
    "mixed": (
        cell("|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|", 8),
        16,
    ),
    "pools": (cell("|avg_pool_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"), 32),
    "chain": (cell("|nor_conv_1x1~0|+|none~0|avg_pool_3x3~1|+|none~0|none~1|nor_conv_3x3~2|", 6), 12),
    "identity": (cell("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"), 8),
    "no convolution": (
        cell("|skip_connect~0|+|avg_pool_3x3~0|skip_connect~1|+|avg_pool_3x3~0|skip_connect~1|skip_connect~2|"),
        16,
    ),
    "unused output": (cell("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"), 16),
    "zero input": (
        cell("|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|", 8),
        16,
    ),
    "disconnected": (cell("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"), 8),
    "disconnected with convolutions": (cell("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"), 16),
    "biases": (Biased, 16),
    "NAS-Bench-101": (
        lambda: NASBench101Network(
            (0, 1, 1, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1, 0, 2, 2, 1, 0, 2), channels=6, modules=1
        ),
        16,
    ),
    "DARTS": (
        lambda: DARTSNetwork(
            # Not three layers: then every output ends in batch normalisation, and the logits' sum over a batch is constant.
            (6, 0, 5, 1, 6, 3, 2, 2, 0, 0, 6, 4, 4, 2, 6, 6, 4, 4, 4, 1, 0, 7),
            channels=2,
            layers=4,
        ),
        8,
    ),
}

METHOD = {  # name: (relative tolerance, reason)
    "params": (0.0, "a count"),
    "live_params": (0.0, "a count"),
    "flops": (0.0, "a count"),
    "synflow": (1e-9, "float64 on both sides; only the order of sums differs"),
    "log_synflow": (1e-9, "as synflow"),
    "l2_norm": (1e-5, "sums of float32"),
    "naswot": (1e-4, "a unit within rounding of zero may fall on the other side"),
    "swap": (1e-3, "as naswot, and counted"),
    "linear_regions": (2e-2, "as naswot; one region of 50 more or less"),
    "grad_norm": (1e-5, "float32 gradients"),
    "snip": (1e-5, "float32 gradients"),
    "plain": (1e-5, "float32 gradients; relative to snip, because terms cancel"),
    "fisher": (1e-4, "squares of float32 gradients"),
    "grasp": (1e-3, "float32 second derivatives, which cancel"),
    "zico": (5e-3, "divided by the difference of two gradients, which may nearly agree"),
    "gradsign": (1e-2, "a gradient that is zero but for rounding has the sign of the rounding"),
    "jacob_cov": (1e-4, "1 / (s + k) enlarges what float32 does to the smallest eigenvalue"),
    "epe_nas": (1e-3, "the logarithm of a correlation near 0"),
    "zen": (1e-4, "the difference of two float32 feature maps"),
    "ntk": (1e-4, "divided by the smallest eigenvalue"),
    "meco": (1e-5, "float32 feature maps"),
    "az_nas": (1e-3, "a minimum of differences"),
}

# Other settings than the defaults: less work, or to have more repetitions than one. `n`: the images of the network.
OPTIONS = {
    "swap": lambda n: {"repeats": 2},
    "linear_regions": lambda n: {"samples": 100, "size": 8, "share": 1 / 64, "repeats": 2},
    "zico": lambda n: {"batch_size": n // 2},
    "zen": lambda n: {"batch_size": n, "repeats": 2},
    "ntk": lambda n: {"repeats": 2},
    "meco": lambda n: {"size": 20},
    "az_nas": lambda n: {"batch_size": n},
}


def blocks(network):
    """What AZ-NAS looks at."""
    return list(network.body) if isinstance(network, Biased) else [network.stem, *network.cells]


ASKED = {  # the reference's own arguments, where they are not those of OPTIONS
    "zico": lambda n: {"batches": 2},
    "az_nas": lambda n: {"batch_size": n, "blocks": blocks},
}


@cache
def prepared(name):
    """Network, images and labels of a member of the sample."""
    build, n = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(len(name))
        network = build()
    rng = torch.Generator().manual_seed(n)
    return network, torch.randn(n, 3, 12, 12, generator=rng), torch.randint(10, (n,), generator=rng)


def made(name, method):
    options = OPTIONS.get(method, lambda n: {})(NETWORKS[name][1])
    return proxy_spec(method).factory(torch.Generator().manual_seed(1), **options)


@cache
def measured(name):
    """What all methods together measured of a network."""
    found = measure_together([made(name, method) for method in METHOD], *prepared(name), catch=True)
    return dict(zip(METHOD, found, strict=True))


@cache
def expected(name, method):
    network, images, labels = prepared(name)
    options = ASKED.get(method, OPTIONS.get(method, lambda n: {}))(len(images))
    n = made(name, method).n_images or len(images)
    values = getattr(reference, method)(network, images[:n], labels[:n], torch.Generator().manual_seed(1), **options)
    return values if isinstance(values, tuple) else (values,)


@pytest.mark.parametrize("method", METHOD)
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees(name, method):
    found = measured(name)[method]
    assert not found.error
    scale = expected(name, "snip") if method == "plain" else (0.0,)
    for value, wanted, size in zip(found.values, expected(name, method), scale * 4, strict=False):
        if math.isinf(wanted):
            assert value == wanted
        else:
            assert abs(value - wanted) <= METHOD[method][0] * max(abs(wanted), size)


@pytest.mark.parametrize("method", METHOD)
def test_alone_as_together(method):
    """The same generator, network and images give the same score without `measure_together` and its layout of memory."""
    network, images, labels = prepared("mixed")
    proxy = made("mixed", method)
    n = proxy.n_images or len(images)
    values = proxy.measure(network, images[:n], labels[:n])
    scale = measured("mixed")["snip"].values[0] if method == "plain" else 0.0
    for value, wanted in zip(values, measured("mixed")[method].values, strict=True):
        assert abs(value - wanted) <= METHOD[method][0] * max(abs(wanted), scale)


def test_reference_counts():
    """The closed form gives the official number of parameters of a known cell, and that of every cell of the sample."""
    arch = NASBench201Space().from_string(
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    )
    assert reference.nasbench201_parameters(arch, 16, 5, 3, 10) == 587_386
    for name in NETWORKS:
        network = prepared(name)[0]
        if isinstance(network, NASBench201Network):
            channels = network.stem[0].out_channels
            assert reference.params(network, None, None, None) == reference.nasbench201_parameters(
                network.arch, channels, 1, 3, 10
            )


def test_reference_by_hand():
    """A linear layer, weights (1, -2), on two images: every number can be checked on paper."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, -2.0]]))
    images, labels = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 3.0]]]]), torch.tensor([0, 0])
    # |weights| 1 and 2, inputs of ones: R = 1 + 2, dR/dw = (1, 1).
    assert reference.synflow(network, images, labels, None) == 3.0
    assert reference.log_synflow(network, images, labels, None) == pytest.approx(3 * math.log(2))
    assert reference.l2_norm(network, images, labels, None) == pytest.approx(math.sqrt(5))
    assert reference.snip(network, images, labels, None) == 0.0  # one class: no loss
    # Gradients of the logits are the images: Gram matrix diag(1, 9).
    assert reference.ntk_condition(reference.double(network), images) == pytest.approx(9.0)
    # Codes of a ReLU of the images, (1, 0) and (0, 1): K = [[2, 0], [0, 2]].
    assert reference.naswot(nn.Sequential(nn.ReLU(), network), images, labels, None) == pytest.approx(math.log(4))
    # Its units are on for one image each, the other one: two patterns.
    assert reference.swap_of_patterns(nn.Sequential(nn.ReLU(), network).double(), images) == 2


def test_reference_loss_by_hand():
    """Two classes, logits (w, 0) at w = 0: p = 1/2, so dL/dw = p - 1 = -1/2 for class 0 and 1/2 for class 1."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        network[1].weight.zero_()
    one, both = torch.ones(1, 1, 1, 1), torch.ones(2, 1, 1, 1)
    # The gradients of the two weights are (-1/2, 1/2).
    assert reference.grad_norm(network, one, torch.tensor([0]), None) == pytest.approx(math.sqrt(0.5))
    # Two images of the same class agree in sign in both weights; of two classes they cancel.
    assert reference.gradsign(network, both, torch.tensor([0, 0]), None) == 4.0
    assert reference.gradsign(network, both, torch.tensor([0, 1]), None) == 0.0
    # mean |g| = 1/2, sd = 1/2 in both weights: log(1 + 1).
    assert reference.zico(network, both, torch.tensor([0, 1]), None) == pytest.approx(math.log(2))
    # Weights (1, -1): p = e / (e + 1/e); g = (p - 1, 1 - p); snip 2 (1 - p), plain -2 (1 - p), H g = 2 p (1 - p) g.
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    rest = 1 - math.e / (math.e + 1 / math.e)
    assert reference.snip(network, one, torch.tensor([0]), None) == pytest.approx(2 * rest)
    assert reference.plain(network, one, torch.tensor([0]), None) == pytest.approx(-2 * rest)
    assert reference.grasp(network, one, torch.tensor([0]), None) == pytest.approx(4 * (1 - rest) * rest**2)
    # Outputs (1, -1) times gradients, squared and halved: one weight per channel.
    assert reference.fisher(network, one, torch.tensor([0]), None) == pytest.approx(rest**2)
