import bz2
import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness.benchmarks.formats.unpickle import restricted_loads
from nasharness.benchmarks.networks.cost import count_flops, count_parameters
from nasharness.benchmarks.networks.nats_size import Cell, NATSSizeNetwork
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.nats_size import NATSSizeSpace, count_cost

SPACE = NATSSizeSpace()
ARCHS = st.tuples(*[st.integers(0, 7)] * 5)
DATASETS = {"cifar10-valid": (10, 32), "cifar10": (10, 32), "cifar100": (100, 32), "ImageNet16-120": (120, 16)}


@pytest.fixture(scope="module")
def queries(shared_data):
    """Answers of the official API."""
    return json.loads((shared_data / "official" / "nats_sss_queries.json").read_text())


# ---------------------------------------------------------------------------------------------------------- the space


def test_official_order():
    """All 32,768 strings in index order have the sha256 of the official list."""
    text = "\n".join(SPACE.to_string(SPACE.from_index(i)) for i in range(SPACE.size))
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "8b99b4c0aabe959924c6fb36c0ee4a3f79362343e36b7752b90deee9409b492f"


def test_indices_of_the_official_answers(queries):
    """Index, string and size as the official API has them."""
    assert queries["len"] == SPACE.size == 8**5
    for index, text in queries["arch_strings"].items():
        assert SPACE.to_string(SPACE.from_index(int(index))) == text
        assert SPACE.index(SPACE.from_string(text)) == int(index)


def test_strings_of_the_official_file(shared_data):
    """The official list of all architectures."""
    raw = (shared_data / "official" / "NATS-sss-v1_0-50262-simple" / "meta.pickle.pbz2").read_bytes()
    expected = restricted_loads(bz2.decompress(raw), where="meta", fast=True)["meta_archs"]
    assert expected == [SPACE.to_string(arch) for arch in SPACE]


@given(ARCHS)
def test_strings_and_indices_keep_the_architecture(arch):
    """An architecture survives its string and its index; widths are eight times the choice plus one."""
    assert SPACE.from_string(SPACE.to_string(arch)) == arch
    assert SPACE.from_index(SPACE.index(arch)) == arch
    assert SPACE.widths(arch) == tuple(8 * choice + 8 for choice in arch)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("8:8:8:8", "has 4 numbers"),
        ("8:8:8:8:8:8", "has 6 numbers"),
        ("", "has 1 numbers"),
        ("8:8:8:8:9", "'9' in '8:8:8:8:9' is none of the widths 8, 16"),
        ("8:8:8:8:72", "'72'"),
        ("8:0:8:8:8", "'0'"),
        ("8:8:8:8:08", "'08'"),
        ("8:-8:8:8:8", "'-8'"),
        ("8: 8:8:8:8", "' 8'"),
        ("|none~0|", "has 1 numbers"),
    ],
)
def test_from_string_names_the_bad_part(text, named):
    """A text that breaks the official grammar is refused with the part that breaks it."""
    with pytest.raises(InvalidArchitecture, match=named):
        SPACE.from_string(text)


@pytest.mark.parametrize("index", [-1, 8**5])
def test_an_index_outside_is_refused(index):
    """Indices are 0..32767."""
    with pytest.raises(InvalidArchitecture, match=r"is not in 0..32767"):
        SPACE.from_index(index)


@pytest.mark.parametrize("arch", [(0, 0, 0, 0), (0, 0, 0, 0, 8), "8:8:8:8:8"])
def test_invalid_architectures_are_refused(arch):
    """Everywhere."""
    for function in (SPACE.to_string, SPACE.index, SPACE.widths, count_cost, NATSSizeNetwork):
        with pytest.raises(InvalidArchitecture):
            function(arch)


# --------------------------------------------------------------------------------------------------------------- cost


def test_cost_is_the_official_answer(queries):
    """Parameters and FLOPs that the official API gives, for every dataset and schedule."""
    assert len(queries["get_cost_info"]) == 36
    for case in queries["get_cost_info"]:
        params, flops = count_cost(SPACE.from_index(case["index"]), *DATASETS[case["dataset"]])
        assert (params, flops) == (round(case["info"]["params"] * 1e6), round(case["info"]["flops"] * 1e6))
        np.testing.assert_allclose((params / 1e6, flops / 1e6), (case["info"]["params"], case["info"]["flops"]), 1e-12)


@pytest.mark.parametrize("index", [0, 11, 284])
def test_cost_is_the_official_file(shared_data, index):
    """Parameters and FLOPs in the official files, against the formulas and the built networks."""
    folder = shared_data / "official" / "NATS-sss-v1_0-50262-simple"
    raw = (folder / f"{index:06d}.pickle.pbz2").read_bytes()
    checked = set()
    for state in restricted_loads(bz2.decompress(raw), where=str(index), fast=True).values():
        assert state["arch_str"] == SPACE.to_string(SPACE.from_index(index))
        for (dataset, _), result in state["all_results"].items():
            classes, side = DATASETS[dataset]
            expected = round(result["params"] * 1e6), round(result["flop"] * 1e6)
            assert expected == count_cost(SPACE.from_index(index), classes, side)
            if dataset not in checked:
                network = NATSSizeNetwork(SPACE.from_index(index), num_classes=classes)
                assert expected == (count_parameters(network), count_flops(network, (3, side, side)))
            checked.add(dataset)
    assert checked == set(DATASETS)


@settings(max_examples=25, deadline=None)
@given(ARCHS, st.integers(1, 120), st.integers(1, 20), st.integers(1, 4))
def test_formulas_agree_with_the_network(arch, classes, side, inputs):
    """`count_cost` equals what counting the built network gives."""
    with torch.device("meta"):
        network = NATSSizeNetwork(arch, num_classes=classes, input_channels=inputs)
        counted = count_parameters(network), count_flops(network, (inputs, side, side))
    assert counted == count_cost(arch, classes, side, input_channels=inputs)


def test_an_image_without_pixels_is_refused():
    """A side is at least 1."""
    with pytest.raises(ValueError, match="side 0 has no pixels"):
        count_cost((0,) * 5, image_size=0)


# ------------------------------------------------------------------------------------------------------------ network


def test_the_state_dict_has_the_official_names():
    """stem, cells (with residual blocks at 1 and 3), lastact, classifier; a 1 x 1 convolution where the width changes."""
    names = [name for name, _ in NATSSizeNetwork((0, 0, 0, 1, 2)).named_parameters()]
    bn = ("weight", "bias")

    def layer(prefix):
        return [f"{prefix}.op.1.weight", *(f"{prefix}.op.2.{n}" for n in bn)]

    expected = ["stem.0.weight", *(f"stem.1.{n}" for n in bn)]
    for position in range(5):
        if position in (1, 3):
            for conv in "ab":
                expected += layer(f"cells.{position}.conv_{conv}")
            expected.append(f"cells.{position}.downsample.1.weight")
            continue
        for edge in range(6):
            prefix = f"cells.{position}.layers.{edge}"
            if edge != 3:
                expected += layer(prefix)
            elif position == 4:  # 16 to 24 channels; positions 0 and 2 keep their 8
                expected += [f"{prefix}.conv.weight", *(f"{prefix}.bn.{n}" for n in bn)]
    expected += [*(f"lastact.0.{n}" for n in bn), "classifier.weight", "classifier.bias"]
    assert expected == names


def test_the_cell_is_the_official_one():
    """Replacing each edge by multiplication shows the wiring: 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2."""
    cell = Cell(8, 8)
    for edge, factor in enumerate((2, 3, 5, 7, 11, 13)):

        class Times(torch.nn.Module):
            def forward(self, x, factor=factor):
                return factor * x

        cell.layers[edge] = Times()
    assert cell(torch.ones(1)).item() == 7 + 11 * 2 + 13 * (3 + 5 * 2)


def test_a_cell_of_one_width_is_a_nasbench201_cell():
    """With equal widths, the fixed cell computes what the NAS-Bench-201 cell of its string computes."""
    from nasharness.benchmarks.networks.nasbench201 import Cell as TopologyCell
    from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space

    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    ours, theirs = Cell(8, 8).eval(), TopologyCell(NASBench201Space().from_string(text), 8).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_the_shortcut_without_an_activation():
    """Where the width changes, the skip is convolution and normalisation, with no ReLU before: it keeps the sign."""
    skip = Cell(8, 16).layers[3].eval()
    x = torch.randn(1, 8, 3, 3)
    with torch.no_grad():
        torch.testing.assert_close(skip(-x), -skip(x))
        assert skip(x).abs().max() > 0.1


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (5, 12), (1, 3)])
def test_output_shapes(height, width):
    """Any image: logits are (n, classes), features (n, last width)."""
    network = NATSSizeNetwork((0, 2, 1, 0, 3), num_classes=7, input_channels=2)
    images = torch.randn(3, 2, height, width)
    assert ((3, 7), (3, 32)) == (tuple(network(images).shape), tuple(network.features(images).shape))


def test_gradients_reach_every_parameter():
    """Every parameter takes part."""
    network = NATSSizeNetwork((0, 1, 0, 1, 1))
    network(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
