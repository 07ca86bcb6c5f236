"""The supernet of TE-NAS."""

import numpy as np
import pytest
import torch

from nasharness import load
from nasharness.benchmarks.networks.mixtures import NASBench201Mixture, build_mixture
from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.nasbench201 import CONV1, CONV3, NONE, POOL, SKIP, NASBench201Space

SPACE = NASBench201Space()
ALL = [list(range(5))] * 6


def tiny(choices, seed=0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NASBench201Mixture(choices, **{"channels": 2, "input_channels": 1, **settings})


@pytest.fixture
def images():
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("number", range(8))
def test_one_choice_per_edge_is_the_network(number, images):
    """With the weights of the architecture's network it gives the same logits."""
    arch = SPACE.unrank(int(np.random.default_rng(number).integers(SPACE.size)))
    mixture = tiny([[op] for op in arch], prune=True)
    network = NASBench201Network(arch, channels=2, cells=1, input_channels=1)
    named = zip(network.parameters(), mixture.parameters(), strict=True)
    with torch.no_grad():
        for ours, theirs in named:
            ours.copy_(theirs)
        assert torch.allclose(network(images), mixture(images), atol=1e-6)


def test_an_edge_is_the_mean_of_its_choices(images):
    """Edge 3<-0 with skip and none: half of the input. Skip and average pooling of a constant: the constant."""
    choices = [[NONE], [NONE], [NONE], [NONE, SKIP], [NONE], [NONE]]
    cell = tiny(choices).cells[0]
    x = torch.randn(2, 2, 5, 5)
    assert torch.equal(cell(x), x / 2)
    choices[3] = [SKIP, POOL]
    ones = torch.ones(2, 2, 5, 5)
    assert torch.allclose(tiny(choices).cells[0](ones), ones)


def test_nodes_add_up_their_edges():
    """1<-0 skip or none: x/2. 2<-0 skip: x, 2<-1 skip: x/2. 3<-0 nothing, 3<-1 skip or pool of x/2, 3<-2 skip: in all 2x."""
    cell = tiny([[SKIP, NONE], [SKIP], [SKIP], [NONE], [POOL, SKIP], [SKIP]]).cells[0]
    x = torch.full((1, 2, 4, 4), 3.0)
    assert torch.allclose(cell(x), 2 * x)


def test_what_is_disconnected_is_zero():
    cell = tiny([[NONE, SKIP]] * 3 + [[NONE]] * 3).cells[0]
    assert torch.equal(cell(torch.ones(1, 2, 4, 4)), torch.zeros(1, 2, 4, 4))


def test_a_removal_changes_no_other_weight(images):
    """Mixtures from one seed share all their weights, and a removed operation has no gradient."""
    whole, less = tiny(ALL), tiny([[0, 1, 2, 4], *ALL[1:]])
    assert {name: tuple(p.shape) for name, p in whole.named_parameters()} == {
        name: tuple(p.shape) for name, p in less.named_parameters()
    }
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), less.parameters(), strict=True))
    assert not torch.allclose(whole(images), less(images))
    less(images).sum().backward()
    untouched = [name for name, p in less.named_parameters() if p.grad is None]
    assert untouched
    assert all(f"layers.0.{CONV3}." in name for name in untouched)


def test_pruned_it_has_only_what_is_left():
    """Three cells of 2, 4 and 8 channels; the removed 3 x 3 convolution and its normalisation have 9 c**2 + 2 c weights."""
    whole, less = tiny(ALL), tiny([[CONV1], *ALL[1:]], prune=True)

    def count(network):
        return sum(p.numel() for p in network.parameters())

    assert count(whole) - count(less) == sum(9 * c * c + 2 * c for c in (2, 4, 8))


def test_order_and_type_of_choices_do_not_matter(images):
    one = tiny([[3, 1]] * 6)
    other = tiny(tuple(np.array([1, 3]) for _ in range(6)))
    assert one.choices == other.choices == ((1, 3),) * 6
    assert torch.equal(one(images), other(images))


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ([[1]] * 5, "6 edges, not 5"),
        ([[1]] * 5 + [[]], "edge 5"),
        ([[1, 1]] + [[1]] * 5, "each once"),
        ([[5]] + [[1]] * 5, "0..4"),
        ([[-1]] + [[1]] * 5, "0..4"),
    ],
)
def test_bad_choices(choices, words):
    with pytest.raises(InvalidArchitecture, match=words):
        build_mixture(choices)


def test_of_a_benchmark():
    """The published size, for the benchmark's own images and classes; another size where it is asked for."""
    benchmark = load("digits201")
    mixture = benchmark.mixture(ALL)
    shape = benchmark.images("train").images.shape[1:]
    assert mixture(torch.zeros(2, *shape)).shape == (2, 10)
    assert mixture.stem[0].weight.shape[:2] == (3, shape[0])
    assert len(mixture.cells) == 5
    assert len(benchmark.mixture(ALL, cells=2, channels=4).cells) == 8
    with pytest.raises(ValueError, match="no setting 'depth'; they have num_classes, channels"):
        benchmark.mixture(ALL, depth=3)
