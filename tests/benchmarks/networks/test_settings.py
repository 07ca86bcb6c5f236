"""Networks by the name of their space, and the settings that every benchmark's networks take."""

import inspect
import json
import subprocess
import sys

import pytest
import torch

from nasharness.benchmarks.base import Benchmark
from nasharness.benchmarks.built import open_built
from nasharness.benchmarks.digits201 import FILE, load
from nasharness.benchmarks.imported import SPACES, import_table, load_space, open_imported
from nasharness.benchmarks.nasbench101 import NASBench101
from nasharness.benchmarks.nasbench301 import NASBench301
from nasharness.benchmarks.nats import NATSBenchmark
from nasharness.benchmarks.networks.cost import count_parameters
from nasharness.benchmarks.networks.darts import DARTSNetwork
from nasharness.benchmarks.networks.factory import SETTINGS, build_network
from nasharness.benchmarks.networks.nasbench101 import NASBench101Network
from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.networks.nats_size import NATSSizeNetwork
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import Graph, NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.benchmarks.spaces.nats_size import NATSSizeSpace
from nasharness.benchmarks.spaces.subspace import Subspace

CHAIN = NASBench101Space().from_graph(Graph(3, 0b011, (0,)))  # input - 3x3 convolution - output
ARCHS = {
    "nasbench201": (3, 1, 4, 2, 0, 3),
    "nasbench101": CHAIN,
    "darts": next(iter(DARTSSpace())),
    "nats_size": (0, 1, 2, 3, 4),
}
NETWORKS = {
    "nasbench201": NASBench201Network,
    "nasbench101": NASBench101Network,
    "darts": DARTSNetwork,
    "nats_size": NATSSizeNetwork,
}
SMALL = {
    "nasbench201": {"channels": 4, "cells": 1},
    "nasbench101": {"channels": 8, "stacks": 2, "modules": 1},
    "darts": {"channels": 4, "layers": 3, "auxiliary": False},
    "nats_size": {},
}


def state(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


# ------------------------------------------------------------------------------------------------------------- the factory


def test_every_space_has_its_networks():
    assert set(SETTINGS) == set(NETWORKS) == set(SPACES)


@pytest.mark.parametrize("space", SETTINGS)
def test_settings_are_those_of_the_constructor(space):
    """What is written down without torch is what the class takes and what it defaults to."""
    signature = inspect.signature(NETWORKS[space].__init__)
    keywords = {p.name: p.default for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert dict(SETTINGS[space]) == keywords
    with pytest.raises(TypeError):
        SETTINGS[space]["num_classes"] = 3


@pytest.mark.parametrize("space", SETTINGS)
def test_the_factory_builds_what_the_class_builds(space):
    arch, settings = ARCHS[space], {**SMALL[space], "num_classes": 7, "input_channels": 2}
    network = build_network(space, arch, **settings)
    assert type(network) is NETWORKS[space]
    assert state(network) == state(NETWORKS[space](arch, **settings))
    assert network(torch.randn(2, 2, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("space", ["nasbench201", "nats_size"])
def test_without_settings_it_is_the_official_network(space):
    assert state(build_network(space, ARCHS[space])) == state(NETWORKS[space](ARCHS[space]))


@pytest.mark.parametrize("space", SETTINGS)
def test_the_factory_refuses(space):
    with pytest.raises(
        ValueError, match=f"networks of {space} have no setting 'chanels', 'depth'; they have .*num_classes"
    ):
        build_network(space, ARCHS[space], chanels=3, depth=2)
    with pytest.raises(InvalidArchitecture):
        build_network(space, (99,))


def test_unknown_spaces_are_refused():
    with pytest.raises(ValueError, match="no networks of the space 'tiny', only of nasbench201, nasbench101, darts"):
        build_network("tiny", (0,))


# ---------------------------------------------------------------------------------------------------------- the benchmarks


class Table:
    """As much of a table as networks need."""

    def __init__(self, space):
        self.space = space


def bare(kind, **attributes):
    """A benchmark without its data: networks need none of it."""
    made = kind.__new__(kind)
    vars(made).update(id="bare-v1", **attributes)
    return made


def nats(space, dataset):
    return bare(NATSBenchmark, table=Table(space), space=space, dataset=dataset)


BENCHMARKS = {
    "digits201": (
        load,
        "nasbench201",
        {"channels": 8, "cells": 1, "prune": True, "num_classes": 10, "input_channels": 1},
    ),
    "nasbench201": (
        lambda: nats(NASBench201Space(), "cifar10"),
        "nasbench201",
        {"channels": 16, "cells": 5, "prune": False, "num_classes": 10, "input_channels": 3},
    ),
    "nasbench201/cifar100": (
        lambda: nats(NASBench201Space(), "cifar100"),
        "nasbench201",
        {"channels": 16, "cells": 5, "prune": False, "num_classes": 100, "input_channels": 3},
    ),
    "nats-size": (
        lambda: nats(NATSSizeSpace(), "ImageNet16-120"),
        "nats_size",
        {"num_classes": 120, "input_channels": 3},
    ),
    "nasbench101": (
        lambda: bare(NASBench101, table=Table(NASBench101Space()), space=NASBench101Space()),
        "nasbench101",
        {"channels": 128, "stacks": 3, "modules": 3, "num_classes": 10, "input_channels": 3},
    ),
    "nasbench301": (
        lambda: bare(NASBench301, space=DARTSSpace()),
        "darts",
        {"channels": 32, "layers": 8, "auxiliary": True, "stem_multiplier": 3, "num_classes": 10, "input_channels": 3},
    ),
}


@pytest.fixture(params=BENCHMARKS)
def case(request):
    make, space, expected = BENCHMARKS[request.param]
    return make(), space, expected


def test_settings_are_those_of_the_trained_networks(case):
    benchmark, _, expected = case
    assert dict(benchmark.network_settings) == expected
    assert json.loads(json.dumps({**benchmark.network_settings})) == expected  # they go into reports


def test_networks_take_their_settings(case):
    """Settings replace what they name and nothing else; unknown ones are refused with the known ones."""
    benchmark, space, expected = case
    arch = ARCHS[space]
    small = {**SMALL[space], "num_classes": 3}
    network = benchmark.network(arch, **small)
    assert state(network) == state(NETWORKS[space](arch, **{**expected, **small}))
    assert network(torch.randn(2, expected["input_channels"], 32, 32)).shape == (2, 3)
    with pytest.raises(ValueError, match="have no setting 'n_cells'; they have .*num_classes"):
        benchmark.network(arch, n_cells=1)
    with pytest.raises(InvalidArchitecture):
        benchmark.network((99,) * len(arch))


def test_without_settings_networks_are_as_they_were_trained(case):
    benchmark, space, expected = case
    assert state(benchmark.network(ARCHS[space])) == state(NETWORKS[space](ARCHS[space], **expected))


def test_networks_do_not_share_their_settings():
    """What one benchmark answers cannot be changed for another."""
    benchmark = nats(NASBench201Space(), "cifar100")
    settings = benchmark.network_settings
    settings["cells"] = 1
    assert benchmark.network_settings["cells"] == SETTINGS["nasbench201"]["cells"] == 5
    assert SETTINGS["nasbench201"]["num_classes"] == 10


def test_digits201_is_pruned_unless_told_otherwise():
    """As it was trained it has the table's parameters; with dead operations it has them on top."""
    benchmark = load()
    arch = NASBench201Space().from_string(
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|none~1|none~2|"
    )  # both 3x3 convolutions lead nowhere
    assert count_parameters(benchmark.network(arch)) == benchmark.final(arch).params
    whole = benchmark.network(arch, prune=False)
    convolutions = 2 * (8**2 + 16**2 + 32**2) * 9 + 2 * 2 * (8 + 16 + 32)  # their weights and normalisations, 3 stages
    assert count_parameters(whole) == benchmark.final(arch).params + convolutions
    assert benchmark.network(arch, cells=2, prune=False).cells[0].layers[0].op[1].in_channels == 8


def test_a_built_file_of_another_size(tmp_path):
    """The settings come from the file's specification."""
    benchmark = open_built(FILE)
    details = {**benchmark.info.details, "spec": {**benchmark.info.details["spec"], "images": "digits", "channels": 3}}
    vars(benchmark.info)["details"] = details
    assert benchmark.network_settings["channels"] == 3
    assert benchmark.network(ARCHS["nasbench201"]).stem[0].out_channels == 3


def test_benchmarks_without_networks(tiny_benchmark):
    assert tiny_benchmark.network_settings == {}
    with pytest.raises(NotImplementedError, match="tiny-v1 has no networks"):
        tiny_benchmark.network((0, 0, 0))
    assert isinstance(tiny_benchmark, Benchmark)


# -------------------------------------------------------------------------------------------------------------- imported


def imported(tmp_path, space_id, archs):
    space = load_space(space_id)
    rows = "".join(f"{'-'.join(map(str, arch))},0.{i + 1},{i + 1}\n" for i, arch in enumerate(archs))
    (tmp_path / "t.csv").write_text("architecture,val_accuracy,seconds\n" + rows)
    import_table(space, tmp_path / "t.csv", tmp_path / "mine.safetensors", name="mine")
    return open_imported(tmp_path / "mine.safetensors")


@pytest.mark.parametrize("space", SETTINGS)
def test_imported_tables_of_our_spaces_have_networks(tmp_path, space):
    """Those of the official benchmark, also of architectures that the table lacks."""
    benchmark = imported(tmp_path, space, [ARCHS[space]])
    assert isinstance(benchmark.space, Subspace)
    assert benchmark.network_settings == SETTINGS[space]
    assert benchmark.network_settings["num_classes"] == 10
    network = benchmark.network(ARCHS[space], **SMALL[space], input_channels=1)
    assert state(network) == state(NETWORKS[space](ARCHS[space], **SMALL[space], input_channels=1))
    with pytest.raises(ValueError, match="no setting 'width'"):
        benchmark.network(ARCHS[space], width=1)


def test_imported_tables_of_other_spaces_have_none(tmp_path, monkeypatch):
    (tmp_path / "my_space.py").write_text(
        "import nasharness\nclass Mine(nasharness.SearchSpace):\n    name = 'nasbench201'\n    cardinalities = (2, 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    benchmark = imported(tmp_path, "my_space:Mine", [(0, 0), (0, 1), (1, 0), (1, 1)])
    assert benchmark.network_settings == {}  # its name is that of ours, but not its id
    with pytest.raises(NotImplementedError, match="mine has no networks"):
        benchmark.network((0, 0))


def test_settings_are_told_without_torch():
    """A tabular study may write them down."""
    code = (
        "import sys; from nasharness.benchmarks.digits201 import load; print(dict(load().network_settings));"
        "from nasharness.benchmarks.networks.factory import SETTINGS; assert 'torch' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'prune': True" in out
