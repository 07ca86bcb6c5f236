"""SWAP, MeCo and NEAR: what they see in the outputs of layers."""

import math

import pytest
import torch
from torch import nn

from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.proxies import swap
from nasharness.proxies.base import ProxyError
from nasharness.proxies.layers import gaussian, normal_init
from nasharness.proxies.meco import MeCo, correlations
from nasharness.proxies.near import NEAR, effective_rank
from nasharness.proxies.passes import measure_together
from nasharness.proxies.swap import SWAP, count_patterns

ARCH = (3, 1, 2, 4, 3, 1)
NO_LABELS = torch.zeros(0, dtype=torch.int64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=16, channels=3, side=8, seed=1):
    return torch.randn(n, channels, side, side, generator=rng(seed))


def small(arch=ARCH, **options):
    torch.manual_seed(0)
    return NASBench201Network(arch, channels=4, cells=1, **options)


def unchanged(proxy, network, images):
    """Score an eval-mode network twice: it is left as it was."""
    before = {name: t.clone() for name, t in network.eval().state_dict().items()}
    kept = images.clone()
    score = proxy.score(network, images, NO_LABELS)
    return (
        not network.training
        and torch.equal(images, kept)
        and all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
        and not any(m._forward_hooks for m in network.modules())
        and math.isfinite(score)
    )


# ------------------------------------------------------------------------------------------------------------------ SWAP


def test_swap_on_paper():
    """Four pixels over three images: + - -, + - -, + + +, - - + (0 is not active): three different patterns."""
    images = torch.tensor([[1.0, 2.0, 1.0, -1.0], [-1.0, 0.0, 3.0, -2.0], [-1.0, -5.0, 1.0, 7.0]]).reshape(3, 1, 2, 2)
    for inplace in (False, True):
        network = nn.Sequential(nn.ReLU(inplace=inplace), nn.Flatten(), nn.Linear(4, 2))
        assert SWAP().score(network, images.clone(), NO_LABELS) == 3
        assert SWAP(batch_size=1).score(network, images.clone(), NO_LABELS) == 2


def brute_force(network, images):
    """Sets of tuples, one bit at a time."""
    patterns = set()
    handles = [
        m.register_forward_hook(lambda _m, _i, out: patterns.update(map(tuple, (out > 0).flatten(1).T.tolist())))
        for m in network.modules()
        if isinstance(m, nn.ReLU)
    ]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return len(patterns)


@pytest.mark.parametrize("n", [1, 2, 16, 20, 21, 32, 33, 63])
def test_patterns_are_counted_exactly(n):
    network, images = small().train(), pictures(n + 1)[:n]
    layers = [m for m in network.modules() if isinstance(m, nn.ReLU)]
    if n == 1:
        network.eval()
    with torch.no_grad():
        assert count_patterns(network, layers, images) == brute_force(network, images)


def test_table_and_sorting_agree(monkeypatch):
    one = SWAP(rng(3)).score(small(), pictures(), NO_LABELS)
    monkeypatch.setattr(swap, "_TABLE", 3)
    assert SWAP(rng(3)).score(small(), pictures(), NO_LABELS) == one > 100


def test_swap_draws_its_own_weights_and_averages():
    network, images = small(), pictures()
    source = rng(4)
    single = [SWAP(source).score(network, images, NO_LABELS) for _ in range(3)]
    assert SWAP(rng(4), repeats=3).score(network, images, NO_LABELS) == pytest.approx(sum(single) / 3)
    normal_init(network, rng(4))
    assert brute_force(network.train(), images) == single[0]


def test_regularised_swap():
    """At mu the score stays, sqrt(sigma) away it falls to 1/e of it."""
    network, images = small(), pictures()
    size = sum(p.numel() for p in network.parameters()) / 1000
    plain, at, away = (
        SWAP(rng(1), **options).score(network, images, NO_LABELS)
        for options in ({}, {"mu": size, "sigma": 4.0}, {"mu": size + 2, "sigma": 4.0})
    )
    assert at == plain
    assert away == pytest.approx(plain / math.e)


def test_swap_where_it_is_not_defined():
    with pytest.raises(ProxyError, match="no ReLU module"):
        SWAP().score(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Tanh()), pictures(), NO_LABELS)
    with pytest.raises(ProxyError, match="feature maps"):
        SWAP().score(nn.Sequential(nn.Flatten(), nn.ReLU()), pictures(), NO_LABELS)
    for options in ({"batch_size": 64}, {"repeats": 0}, {"mu": 1.0}, {"mu": 1.0, "sigma": 0.0}):
        with pytest.raises(ValueError, match=r"batch_size|repeats|sigma"):
            SWAP(**options)


# ------------------------------------------------------------------------------------------------------------------ MeCo


def test_correlations_on_paper():
    """(1, 2, 3) with (2, 4, 6) is 1, with (3, 1, 2) is -1/2, with a constant 0."""
    rows = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 1.0, 2.0], [0.1, 0.1, 0.1]])
    expected = [[1, 1, -0.5, 0], [1, 1, -0.5, 0], [-0.5, -0.5, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(correlations(rows), torch.tensor(expected, dtype=torch.float64))


def test_correlations_are_those_of_torch():
    rows = torch.randn(7, 50, generator=rng(0), dtype=torch.float64)
    torch.testing.assert_close(correlations(rows), torch.corrcoef(rows))


def test_meco_on_paper():
    """Two modules and their two containers hand on the same noise; logits, alone or in a container, count 0.

    Two channels with the correlation r have the eigenvalues 1 + r and 1 - r.
    """
    image = gaussian(rng(6), torch.zeros(0, 2, 8, 8), 1, 16)[0].flatten(1)
    r = float(torch.corrcoef(image)[0, 1])
    body = nn.Sequential(nn.Identity(), nn.Sequential(nn.Identity()))
    network = nn.Sequential(body, nn.Flatten(), nn.Linear(512, 3))
    score = MeCo(rng(6), size=16).score(network, torch.zeros(0, 2, 8, 8), NO_LABELS)
    assert score == pytest.approx(4 * (1 - abs(r)), rel=1e-5)


def test_meco_of_collinear_channels_is_zero():
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(2))
    assert MeCo(rng(1)).score(network, torch.zeros(0, 1, 8, 8), NO_LABELS) == pytest.approx(0, abs=1e-5)


def test_meco_opt_on_paper():
    """Of 12 channels of noise 8: their smallest eigenvalue, times 12/8; of 2 channels both."""
    source = rng(9)
    image = gaussian(source, torch.zeros(0, 12, 8, 8), 1, 32)[0].flatten(1)
    chosen = torch.randperm(12, generator=source)[:8]
    expected = 1.5 * float(torch.linalg.eigvalsh(torch.corrcoef(image[chosen].double()))[0])
    network = nn.Identity()
    assert MeCo(rng(9), size=32, channels=8).score(network, torch.zeros(0, 12, 8, 8), NO_LABELS) == pytest.approx(
        expected
    )
    scores = [MeCo(rng(9), channels=c).score(network, torch.zeros(0, 2, 8, 8), NO_LABELS) for c in (8, None)]
    assert scores[0] == scores[1]


def test_meco_takes_the_size_of_the_images():
    images = pictures(2, side=24)
    scores = [MeCo(rng(1), size=size).score(small(), images, NO_LABELS) for size in (24, None, 64)]
    assert scores[0] == scores[1] != scores[2]


def test_meco_where_it_is_not_defined():
    with pytest.raises(ProxyError, match="feature maps"):
        MeCo(size=None).score(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), pictures(), NO_LABELS)
    with pytest.raises(ValueError, match="at least 1"):
        MeCo(channels=0)


# ------------------------------------------------------------------------------------------------------------------ NEAR


def test_effective_rank_on_paper():
    """p = 3/4 and 1/4: exp(0.5623) = 4 / 3^(3/4) = 1.7548."""
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(4 / 3**0.75)
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.ones(4, 4)) == pytest.approx(1)
    assert effective_rank(torch.zeros(3, 3)) == 0


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_effective_rank_is_at_most_the_rank(scale):
    matrix = torch.randn(6, 3, generator=rng(0)) @ torch.randn(3, 6, generator=rng(1)) * scale
    assert 1 < effective_rank(matrix) < 3
    assert effective_rank(matrix) == pytest.approx(effective_rank(matrix.T))


def test_near_on_paper():
    """Two images of 1 x 2 pixels; an identity convolution, ReLU and an identity layer, all 2 channels wide.

    The rows of both are (1, 0) and (0, 1): every block is an identity, in the convolution and behind ReLU, with rank 2. The
    mean over the positions, (1/2, 1/2) twice, has rank 1: 2 + 2 + 1.
    """
    one = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    conv, layer = nn.Conv2d(2, 2, 1, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(2).reshape(2, 2, 1, 1))
        layer.weight.copy_(torch.eye(2))
    network = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer)
    for seed in range(5):
        assert NEAR(rng(seed)).score(network, torch.stack([one, one]), NO_LABELS) == pytest.approx(5, rel=1e-6)


@pytest.mark.parametrize(
    "shape", [(5, 3, 4, 4), (5, 6, 2, 2), (3, 40, 2, 2), (16, 10), (7, 9), (4, 5, 8), (1, 8, 2, 4)]
)
def test_rows_are_a_block_of_all_rows(shape):
    """As many as channels where there are, images after images and columns after columns; every start comes up."""
    output = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    everything = (output.permute(0, 3, 2, 1) if len(shape) == 4 else output).reshape(
        -1, shape[-1] if len(shape) < 4 else shape[1]
    )
    channels = everything.shape[1]
    step = shape[2] if len(shape) == 4 else shape[-2] if len(shape) == 3 else channels
    starts = set()
    proxy = NEAR(rng(0))
    for _ in range(200):
        rows = proxy._rows(output)
        start = int((everything[:, 0] == rows[0, 0]).nonzero())
        assert torch.equal(rows, everything[start : start + channels])
        starts.add(start)
    assert starts == set(range(0, max(1, len(everything) - channels + 1), step))


def test_near_needs_no_relu():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 10))
    assert 3 < NEAR().score(network, pictures(), NO_LABELS) <= 4 + 4 + 10


def test_near_looks_at_a_module_once():
    act = nn.GELU()
    network = nn.Sequential(nn.Conv2d(3, 4, 1), act, act, act, nn.Flatten(), nn.Linear(256, 10))
    with torch.no_grad():
        once = NEAR(rng(0)).score(nn.Sequential(network[0], act, nn.Flatten(), network[5]), pictures(), NO_LABELS)
    assert NEAR(rng(0)).score(network, pictures(), NO_LABELS) == pytest.approx(once, rel=0.2)


def test_near_where_it_is_not_defined():
    with pytest.raises(ProxyError, match="neither layers"):
        NEAR().score(nn.Flatten(), pictures(), NO_LABELS)


# ----------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("make", [SWAP, MeCo, NEAR])
def test_network_and_images_are_put_back(make):
    assert unchanged(make(), small(), pictures())


@pytest.mark.parametrize("make", [SWAP, MeCo, NEAR])
def test_golden(make):
    """As first recorded."""
    (measured,) = measure_together([make(rng(0))], small(), pictures(), NO_LABELS)
    assert measured.values[0] == pytest.approx(GOLDEN[make], rel=1e-2)


GOLDEN = {SWAP: 1460.0, MeCo: 34.63909, NEAR: 319.6444}
