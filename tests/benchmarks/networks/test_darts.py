import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasharness.benchmarks.networks.cost import count_flops, count_parameters
from nasharness.benchmarks.networks.darts import (
    AuxiliaryHead,
    Cell,
    DARTSNetwork,
    DilConv,
    FactorizedReduce,
    SepConv,
)
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.darts import NODES, OPERATIONS, PAIRS, DARTSSpace, Genotype, count_cost

SPACE = DARTSSpace()
ARCHS = st.tuples(*(st.integers(0, n - 1) for n in SPACE.cardinalities))
V2 = (3, 3, 3, 3, 2, 3, 2, 5, 0, 0, 1, 0, 0, 0, 2, 0, 2, 0, 2, 2, 1, 4)


def tiny(arch=V2, **settings):
    return DARTSNetwork(arch, **{"channels": 2, "layers": 3, "auxiliary": False, **settings})


@pytest.fixture(scope="module")
def networks(shared_data):
    """Numbers of the official models."""
    return json.loads((shared_data / "official" / "nb301_networks.json").read_text())


@pytest.fixture(scope="module")
def genotypes(shared_data):
    """The 43 genotypes of these numbers, by name, with their pairs in official order."""
    cases = json.loads((shared_data / "official" / "nb301_genotype_vectors.json").read_text())["cases"]
    return {
        case["name"]: Genotype(tuple(map(tuple, case["normal"])), NODES, tuple(map(tuple, case["reduce"])), NODES)
        for case in cases
    }


# --------------------------------------------------------------------------------------------------- official numbers


@pytest.mark.parametrize(("channels", "layers"), [(32, 8), pytest.param(36, 20, marks=pytest.mark.slow)])
def test_parameters_are_the_official_ones(networks, genotypes, channels, layers):
    """Parameters of 43 official networks, exactly, with and without the auxiliary head."""
    for case in networks["cases"]:
        with torch.device("meta"):  # counts need no memory
            network = DARTSNetwork(genotypes[case["name"]], channels=channels, layers=layers)
        setting = f"C{channels}_L{layers}"
        assert case[f"{setting}_with_aux"] == count_parameters(network), case["name"]
        network.auxiliary_head = None
        assert case[f"{setting}_no_aux"] == count_parameters(network), case["name"]
    assert len(networks["cases"]) == 43


@pytest.mark.parametrize("number", range(3))
def test_forward_pass_is_the_official_one(networks, genotypes, number):
    """Logits of three official networks with parameters by recipe: order, names and computation are the official ones."""
    expected = networks["forward_check"]["results"][number]
    network = DARTSNetwork(genotypes[expected["name"]], channels=expected["C"], layers=expected["layers"])
    parameters = list(network.named_parameters())
    assert expected["n_named_parameters"] == len(parameters)
    for k, (name, parameter) in enumerate(parameters):
        values = np.sin(0.37 * np.arange(parameter.numel()) + k) * 0.1
        if parameter.ndim == 1 and "weight" in name:
            values += 1.0
        parameter.data = torch.tensor(values.astype(np.float32)).reshape(parameter.shape)
    network.double().eval()
    images = torch.sin(0.01 * torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)).reshape(2, 3, 32, 32)
    with torch.no_grad():
        np.testing.assert_allclose(network(images).numpy(), expected["logits"], rtol=1e-5)
        np.testing.assert_array_equal(network.forward_with_auxiliary(images)[0].numpy(), network(images).numpy())


def test_state_dict_has_the_official_names():
    """The names of the official model, in their order."""
    cell = (3, 2, 5, 0, 1, 2, 4, 6, 0, 0, 0)
    names = [name for name, _ in tiny((*cell, *cell), layers=1, auxiliary=True).named_parameters()]
    bn = ("weight", "bias")
    sep = ["1.weight", "2.weight", *(f"3.{n}" for n in bn), "5.weight", "6.weight", *(f"7.{n}" for n in bn)]
    dil = sep[:4]
    reduce = ["conv_1.weight", "conv_2.weight", *(f"bn.{n}" for n in bn)]
    ops = {0: sep, 2: dil, 6: sep, 7: dil}
    expected = ["stem.0.weight", *(f"stem.1.{n}" for n in bn)]
    for k in (0, 1):
        expected += [f"cells.0.preprocess{k}.op.1.weight", *(f"cells.0.preprocess{k}.op.2.{n}" for n in bn)]
    for k in range(8):
        if k == 1:  # a skip connection of stride 2; the one at position 5 has stride 2 too
            expected += [f"cells.0._ops.1.{n}" for n in reduce]
        elif k == 5:
            expected += [f"cells.0._ops.5.{n}" for n in reduce]
        else:
            expected += [f"cells.0._ops.{k}.op.{n}" for n in ops.get(k, [])]
    for k in (2, 5):
        expected += [f"auxiliary_head.features.{k}.weight", *(f"auxiliary_head.features.{k + 1}.{n}" for n in bn)]
    expected += ["auxiliary_head.classifier.weight", "auxiliary_head.classifier.bias"]
    expected += ["classifier.weight", "classifier.bias"]
    assert expected == names


# --------------------------------------------------------------------------------------------------------------- cost


@settings(max_examples=20, deadline=None)
@given(
    ARCHS,
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from([4, 8, 12]),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_formulas_agree_with_the_network(arch, channels, layers, classes, auxiliary, side, multiplier, inputs):
    """`count_cost` equals what counting the built network gives, on random architectures and settings."""
    shape = {"num_classes": classes, "channels": channels, "layers": layers, "auxiliary": auxiliary}
    shape |= {"stem_multiplier": multiplier, "input_channels": inputs}
    with torch.device("meta"):
        network = DARTSNetwork(arch, **shape)
        params = count_parameters(network)
        flops = count_flops(network, (inputs, side, side))
    assert (params, flops) == count_cost(arch, image_size=side, **shape)


def test_cost_by_hand():
    """One small network, written out: all pools but one operation per cell; 2 channels, 3 layers, 8 x 8 image."""
    arch = (3, *(1,) * 7, 0, 0, 0, 2, *(1,) * 7, 0, 0, 0)  # sep_conv_3x3 and skip_connect on input 0 of node 2
    # layers: reduction at 1 and 2, so normal (2 channels, 8 x 8), reduction (4, 4 x 4), reduction (8, 2 x 2)
    stem = 9 * 3 * 6
    normal = (6 * 2 + 6 * 2) + 2 * (9 * 2 + 2 * 2)
    first_in, first_op = 6 * 4 + 8 * 4, 4 * 4
    second_in, second_op = 8 * 8 + 16 * 8, 8 * 8
    flops = 64 * (stem + normal + first_in) + 16 * (first_op + second_in) + 4 * second_op + 32 * 10 + 10
    norms = 2 * 6 + 2 * (2 + 2 + 2 * 2) + 2 * 3 * 4 + 2 * 3 * 8
    params = stem + normal + first_in + first_op + second_in + second_op + norms + 32 * 10 + 10
    assert (params, flops) == count_cost(arch, channels=2, layers=3, auxiliary=False, image_size=8)
    network = tiny(arch)
    assert (params, flops) == (count_parameters(network), count_flops(network, (3, 8, 8)))


# ------------------------------------------------------------------------------------------------------------ modules


def test_factorized_reduce_by_hand():
    """The first half of the channels reads pixels (0, 0), (0, 2), ..., the second half (1, 1), (1, 3), ..."""
    layer = FactorizedReduce(1, 2).eval()
    layer.conv_1.weight.data.fill_(1.0)
    layer.conv_2.weight.data.fill_(10.0)
    x = torch.arange(16.0).reshape(1, 1, 4, 4) - 3.0
    expected = torch.stack([x[0, 0, ::2, ::2].relu(), 10 * x[0, 0, 1::2, 1::2].relu()])[None]
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected / (1 + 1e-5) ** 0.5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("layer", "kernel", "reach"), [(SepConv, 3, 2), (SepConv, 5, 4), (DilConv, 3, 2), (DilConv, 5, 4)]
)
def test_convolutions_keep_the_grid_and_see_their_window(layer, kernel, reach, stride):
    """Stride 1 keeps the side and stride 2 halves it; an output depends on pixels up to `reach` away, and no further."""
    module = layer(2, kernel, stride).eval()
    for parameter in module.parameters():
        parameter.data.abs_()  # so that nothing cancels
    x = torch.ones(1, 2, 24, 24, requires_grad=True)
    y = module(x)
    assert y.shape == (1, 2, 24 // stride, 24 // stride)
    y[0, 0, 12 // stride, 12 // stride].backward()
    rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten() - 12
    if stride == 2 and layer is SepConv:  # the second convolution steps over two pixels at once
        reach = kernel // 2 + 2 * (kernel // 2)
    assert (rows.min().item(), rows.max().item()) == (-reach, reach)


def test_cell_by_hand():
    """Nodes are sums of two operations on earlier states, the output is nodes 2 to 5."""
    pairs = [("skip_connect", s) for node_pairs in ((0, 1), (0, 2), (1, 2), (3, 4)) for s in node_pairs]
    cell = Cell(tuple(pairs), NODES, before=1, last=1, channels=1, reduction=False, after_reduction=False)
    cell.preprocess0 = cell.preprocess1 = nn.Identity()
    out = cell(torch.full((1, 1, 2, 2), 1.0), torch.full((1, 1, 2, 2), 10.0))
    assert out[0, :, 0, 0].tolist() == [11, 12, 21, 33]


def test_pooling_by_hand():
    """Average pooling leaves the padding out, maximum pooling takes the largest."""
    pairs = (("avg_pool_3x3", 0), ("max_pool_3x3", 1), *[("skip_connect", s) for s in (0, 1)] * 3)
    cell = Cell(pairs, (2,), before=1, last=1, channels=1, reduction=False, after_reduction=False)
    cell.preprocess0 = cell.preprocess1 = nn.Identity()
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    torch.testing.assert_close(cell(x, -x), torch.full((1, 1, 2, 2), 3.0 - 1.0))


def test_stages():
    """Eight layers: reductions at 2 and 5, which halve the side and double the channels."""
    network, shapes = tiny(layers=8), []
    for cell in network.cells:
        cell.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:3])))
    network(torch.randn(1, 3, 16, 16))
    assert shapes == [(8, 16)] * 2 + [(16, 8)] * 3 + [(32, 4)] * 3
    after = [isinstance(cell.preprocess0, FactorizedReduce) for cell in network.cells]
    assert after == [False, False, False, True, False, False, True, False]


@pytest.mark.parametrize("layers", range(1, 8))
@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 12)])
def test_output_shapes(layers, height, width):
    """Any depth, channels, classes and image whose sides divide by 4: logits and pooled features."""
    network = tiny(layers=layers, num_classes=7, input_channels=2)
    images = torch.randn(3, 2, height, width)
    doublings = 1 if layers == 1 else 2
    assert ((3, 7), (3, 4 * 2 * 2**doublings)) == (tuple(network(images).shape), tuple(network.features(images).shape))


@pytest.mark.parametrize("side", [6, 7, 30])
def test_images_that_cannot_be_halved_are_refused(side):
    """The error says what to do."""
    with pytest.raises(ValueError, match=f"{side} x 8 cannot be halved 2 time.*divisible by 4"):
        tiny()(torch.randn(1, 3, side, 8))


def test_gradients_reach_every_parameter():
    """Every parameter takes part in a training step."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        network = tiny(SPACE.sample(rng), auxiliary=True)
        logits, auxiliary = network.forward_with_auxiliary(torch.randn(2, 3, 32, 32))
        (logits.square().sum() + 0.4 * auxiliary.square().sum()).backward()
        assert [name for name, p in network.named_parameters() if p.grad is None] == []


# ----------------------------------------------------------------------------------------------------------- genotypes


def test_a_genotype_decides_order_and_output_nodes():
    """The pairs' order is the order of the modules; the concat list gives the output nodes and so the channels."""
    genotype = SPACE.genotype(V2)
    swapped = genotype._replace(normal=(genotype.normal[1], genotype.normal[0], *genotype.normal[2:]))
    assert tiny(swapped).arch == V2
    assert tiny(swapped).cells[0].sources[:2] == (1, 0)
    assert tiny(V2).state_dict().keys() == tiny(genotype).state_dict().keys()
    two = tiny(genotype._replace(normal_concat=(5, 3), reduce_concat=(2,)))
    assert two.features(torch.randn(2, 3, 8, 8)).shape == (2, 8)


@pytest.mark.parametrize("concat", [(), (2, 2), (1, 2), (2, 6)])
def test_a_wrong_concat_is_refused(concat):
    """Output nodes are different inner nodes, and at least one."""
    with pytest.raises(ValueError, match="a cell concatenates different nodes of"):
        tiny(SPACE.genotype(V2)._replace(reduce_concat=concat))


def test_isomorphic_cells_compute_the_same():
    """A renumbered cell with the same weights gives the same nodes in another order."""
    rng = np.random.default_rng(8)
    renumbered = 0
    for _ in range(40):
        arch = SPACE.sample(rng)
        other = SPACE.canonical(arch)
        renumbered += arch[:11] != other[:11]
        ours, theirs = SPACE.genotype(arch).normal, SPACE.genotype(other).normal
        shape = {"before": 3, "last": 3, "channels": 2, "reduction": True, "after_reduction": False}
        cell, second = Cell(ours, NODES, **shape).eval(), Cell(theirs, NODES, **shape).eval()
        matches = [
            (new, places)
            for order in itertools.permutations(NODES)
            if (places := correspondence(ours, theirs, new := (0, 1, *order))) is not None
        ]
        new, places = matches[0]
        second.preprocess0.load_state_dict(cell.preprocess0.state_dict())
        second.preprocess1.load_state_dict(cell.preprocess1.state_dict())
        for here, there in places.items():
            second._ops[there].load_state_dict(cell._ops[here].state_dict())
        before, last = torch.randn(2, 1, 3, 8, 8)
        with torch.no_grad():
            expected = cell(before, last).unflatten(1, (4, 2))
            actual = second(before, last).unflatten(1, (4, 2))
        torch.testing.assert_close(actual[:, [new[node] - 2 for node in NODES]], expected)
    assert renumbered > 10


def correspondence(ours, theirs, new):
    """Position of each of our operations in their cell if our node n is their node new[n]; None if it is not."""
    targets = [NODES[k // 2] for k in range(8)]
    there = {(target, source): k for k, ((_, source), target) in enumerate(zip(theirs, targets, strict=True))}
    places = {}
    for k, ((op, source), target) in enumerate(zip(ours, targets, strict=True)):
        place = there.get((new[target], new[source]))
        if place is None or theirs[place][0] != op:
            return None
        places[k] = place
    return places


@pytest.mark.parametrize("arch", [V2[:-1], (*V2[:-1], 10), "Genotype()", (True,) * 22])
def test_invalid_architecture_is_refused(arch):
    """A network is built for architectures of the space only."""
    with pytest.raises(InvalidArchitecture):
        tiny(arch)


def test_invalid_genotype_is_refused():
    """The space's checks hold for genotypes too."""
    genotype = SPACE.genotype(V2)
    with pytest.raises(InvalidArchitecture, match="unknown operation 'none'"):
        tiny(genotype._replace(normal=(("none", 0), *genotype.normal[1:])))


@pytest.mark.parametrize("settings", [{"layers": 0}, {"channels": 0}])
def test_an_empty_network_is_refused(settings):
    """At least one layer of one channel."""
    with pytest.raises(ValueError, match="at least one layer and one channel"):
        tiny(**settings)


# ------------------------------------------------------------------------------------------- auxiliary head, drop-path


def test_the_auxiliary_head_reads_the_second_reduction_cell():
    """Its logits are those of the head applied to the output of cell 2 * layers // 3."""
    network, outputs = tiny(layers=5, auxiliary=True, num_classes=4).eval(), []
    for cell in network.cells:
        cell.register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.no_grad():
        logits, auxiliary = network.forward_with_auxiliary(torch.randn(2, 3, 32, 32))
        torch.testing.assert_close(auxiliary, network.auxiliary_head(outputs[10 // 3]))
    assert logits.shape == auxiliary.shape == (2, 4)


def test_the_auxiliary_head_takes_larger_maps():
    """It averages over positions; maps below 8 x 8 are refused with a way out."""
    head = AuxiliaryHead(2, 3).eval()
    assert head(torch.randn(2, 2, 8, 8)).shape == head(torch.randn(2, 2, 17, 11)).shape == (2, 3)
    with pytest.raises(ValueError, match="8 x 8 or more, not 4 x 8.*auxiliary=False"):
        head(torch.randn(1, 2, 4, 8))


def test_a_network_without_the_head_says_so():
    """There is nothing to return."""
    with pytest.raises(ValueError, match="auxiliary=True"):
        tiny().forward_with_auxiliary(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize("drop_path", [-0.1, 1.0])
def test_drop_path_is_a_probability(drop_path):
    """Below one, or nothing would be left."""
    with pytest.raises(ValueError, match=r"is not in \[0, 1\)"):
        tiny(auxiliary=True).forward_with_auxiliary(torch.randn(1, 3, 32, 32), drop_path=drop_path)


def test_drop_path_needs_a_generator():
    """Nothing is drawn from global state."""
    with pytest.raises(ValueError, match=r"pass a torch.Generator"):
        tiny(auxiliary=True).forward_with_auxiliary(torch.randn(1, 3, 32, 32), drop_path=0.5)


def test_drop_path_is_reproducible_and_off_in_evaluation():
    """One generator state, one result; in evaluation mode nothing is dropped and nothing drawn."""
    network, images = tiny(auxiliary=True), torch.randn(2, 3, 32, 32)

    def logits(seed):
        generator = torch.Generator().manual_seed(seed)
        before = torch.random.get_rng_state()
        result, _ = network.forward_with_auxiliary(images, drop_path=0.5, generator=generator)
        assert torch.equal(before, torch.random.get_rng_state())
        return result, generator.get_state()

    (first, drawn), (again, _), (other, _) = logits(1), logits(1), logits(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    network.eval()
    (first, drawn), (other, _) = logits(1), logits(2)
    assert torch.equal(first, other)
    assert torch.equal(drawn, torch.Generator().manual_seed(1).get_state())


def test_drop_path_drops_operations_per_image():
    """Node 2 of 4000 images sums a pool of ones that is dropped or scaled up, and an identity that always stays."""
    pairs = (("avg_pool_3x3", 0), ("skip_connect", 1), *[("skip_connect", s) for s in (0, 1)] * 3)
    cell = Cell(pairs, (2,), before=1, last=1, channels=1, reduction=False, after_reduction=False)
    cell.preprocess0 = cell.preprocess1 = nn.Identity()
    ones = torch.ones(4000, 1, 2, 2)
    out = cell(ones, 100 * ones, 0.2, torch.Generator().manual_seed(4))
    assert torch.equal(out, out[:, :, :1, :1].expand_as(out))  # a whole image at once
    values, counts = out[:, 0, 0, 0].unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([100.0, 101.25]))
    assert abs(counts[0].item() / 4000 - 0.2) < 0.032  # five standard deviations


def test_all_operations_are_built():
    """Every operation appears, in both strides, with its own module."""
    for k, name in enumerate(OPERATIONS):
        cell = (*(k,) * 8, *(len(PAIRS[n]) - 1 for n in NODES[1:]))
        network = tiny((*cell, *cell))
        kinds = {type(op) for cell in network.cells for op in cell._ops}
        expected = {
            "max_pool_3x3": {nn.MaxPool2d},
            "avg_pool_3x3": {nn.AvgPool2d},
            "skip_connect": {nn.Identity, FactorizedReduce},
        }.get(name, {SepConv} if name.startswith("sep") else {DilConv})
        assert expected == kinds
        assert torch.isfinite(network(torch.randn(2, 3, 8, 8))).all()
