import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness.benchmarks.networks.cost import count_flops, count_parameters
from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space, count_cost

SPACE = NASBench201Space()
ARCHS = st.tuples(*[st.integers(0, 4)] * 6)


@pytest.mark.parametrize(
    ("dataset", "classes", "side"), [("cifar10", 10, 32), ("cifar100", 100, 32), ("ImageNet16-120", 120, 16)]
)
def test_cost_is_the_official_one(shared_data, dataset, classes, side):
    """Parameters and FLOPs of 40 official networks, exactly."""
    cases = json.loads((shared_data / "official" / "nb201_networks.json").read_text())["cases"]
    assert len(cases) == 40
    for case in cases:
        wanted = case["nets"][dataset]
        expected = round(wanted["params_M"] * 1e6), round(wanted["flops_M"] * 1e6)
        assert expected == count_cost(SPACE.from_string(case["arch"]), num_classes=classes, image_size=side)


def test_cost_of_known_cells():
    """Cells without convolutions cost the skeleton alone; each 3 x 3 convolution is in 15 cells of 16, 32 and 64 channels."""
    assert count_cost((0,) * 6) == count_cost((1,) * 6) == count_cost((4,) * 6) == (73_306, 7_783_050)
    params = 5 * sum(9 * c * c + 2 * c for c in (16, 32, 64))
    flops = 5 * 3 * 9 * 16 * 16 * 32 * 32  # each stage has four times the products and a quarter of the positions
    assert count_cost((3, 3, 3, 1, 3, 3)) == (73_306 + 5 * params, 7_783_050 + 5 * flops)


@settings(max_examples=25, deadline=None)
@given(ARCHS, st.integers(1, 4), st.integers(0, 3), st.integers(1, 120), st.integers(1, 20), st.integers(1, 4))
def test_formulas_agree_with_the_network(arch, channels, cells, classes, side, inputs):
    """`count_cost` equals what counting the built network gives, odd sides included."""
    shape = {"num_classes": classes, "channels": channels, "cells": cells, "input_channels": inputs}
    with torch.device("meta"):
        network = NASBench201Network(arch, **shape)
        counted = count_parameters(network), count_flops(network, (inputs, side, side))
    assert counted == count_cost(arch, image_size=side, **shape)


@pytest.mark.parametrize("settings", [{"channels": 0}, {"cells": -1}, {"image_size": 0}])
def test_impossible_networks_have_no_cost(settings):
    """Negative cells, or no channel or pixel."""
    with pytest.raises(ValueError, match="must"):
        count_cost((0,) * 6, **settings)


def test_an_invalid_architecture_is_refused():
    """As everywhere."""
    with pytest.raises(InvalidArchitecture):
        count_cost((0, 0, 0, 0, 0, 5))
