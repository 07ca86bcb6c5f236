"""Architectures as tables of choices, and back."""

from __future__ import annotations

import numpy as np
import pytest

from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.darts import OPERATIONS, DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.optimizers.supernet.topology import topology

SPACES = [NASBench201Space(), DARTSSpace()]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_choices_and_back(space):
    tables = topology(space)
    for seed in range(50):
        arch = space.sample(np.random.default_rng(seed))
        choices = tables.choices(arch)
        assert [len(row) for row in choices] == [len(t.edges) for t in tables.tables]
        assert tables.arch(choices) == arch


def test_the_tables_of_the_darts_space_are_in_the_official_order():
    normal, reduce = topology(DARTSSpace()).tables
    assert (normal.name, reduce.name) == ("normal", "reduce")
    assert normal.operations == ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", *OPERATIONS[3:])
    assert normal.edges[:5] == ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
    assert normal.shape == reduce.shape == (14, 8)
    assert normal.edges_into(5) == [9, 10, 11, 12, 13]
    assert (normal.none, normal.skip, normal.nodes) == (0, 3, [2, 3, 4, 5])


def test_the_genotype_of_known_choices():
    space = DARTSSpace()
    row = [0] * 14
    for edge, op in {0: 3, 1: 4, 2: 1, 4: 5, 6: 2, 8: 6, 9: 7, 13: 3}.items():
        row[edge] = op
    genotype = space.genotype(topology(space).arch((row, row)))
    assert genotype.normal == (
        ("skip_connect", 0),
        ("sep_conv_3x3", 1),
        ("max_pool_3x3", 0),
        ("sep_conv_5x5", 2),
        ("avg_pool_3x3", 1),
        ("dil_conv_3x3", 3),
        ("dil_conv_5x5", 0),
        ("skip_connect", 4),
    )
    assert genotype.reduce == genotype.normal


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_one_hot_strengths_give_the_architecture_back(space):
    tables = topology(space)
    for seed in range(20):
        arch = space.sample(np.random.default_rng(seed))
        strengths = [np.eye(t.shape[1])[list(row)] for t, row in zip(tables.tables, tables.choices(arch), strict=True)]
        assert tables.discretise(strengths) == arch


def test_nasbench201_may_choose_none():
    tables = topology(NASBench201Space())
    strengths = np.zeros((6, 5))
    strengths[:, 0] = 1
    strengths[2, 3] = 2
    assert tables.discretise([strengths]) == (0, 0, 3, 0, 0, 0)


def test_darts_keeps_the_two_strongest_edges_whatever_none_weighs():
    space = DARTSSpace()
    tables = topology(space)
    rng = np.random.default_rng(0)
    for _ in range(10):
        strengths = [rng.random((14, 8)), rng.random((14, 8))]
        for table in strengths:
            table[:, 0] = 9
        for row, weights in zip(tables.choices(tables.discretise(strengths)), strengths, strict=True):
            for node, into in {2: [0, 1], 3: [2, 3, 4], 4: [5, 6, 7, 8], 5: [9, 10, 11, 12, 13]}.items():
                kept = [e for e in into if row[e]]
                assert len(kept) == 2, node
                best = sorted(into, key=lambda e: weights[e, 1:].max())[-2:]
                assert sorted(best) == kept
                assert all(row[e] == 1 + weights[e, 1:].argmax() for e in kept)


def test_edge_strengths_multiply():
    tables = topology(DARTSSpace())
    strengths = np.full((14, 8), 0.1)
    strengths[[2, 3], 4] = 0.5
    strengths[4, 5] = 0.2
    edges = np.ones(14)
    assert tables.choices(tables.discretise([strengths] * 2))[0][2:5] == (4, 4, 0)
    edges[3] = 0.3  # 0.15 against 0.2
    assert tables.choices(tables.discretise([strengths] * 2, [edges] * 2))[0][2:5] == (4, 0, 5)


def test_an_edge_that_is_out_of_the_question_stays_out_even_with_no_strength():
    tables = topology(DARTSSpace())
    strengths = np.full((14, 8), 0.1)
    strengths[2] = -np.inf
    edges = np.ones(14)
    edges[2] = 0
    row = tables.choices(tables.discretise([strengths] * 2, [edges] * 2))[0]
    assert row[2] == 0
    assert row[3] and row[4]


def test_skips_are_counted_in_both_cells():
    space = DARTSSpace()
    tables = topology(space)
    arch = (2,) * 8 + (0,) * 3 + (2, 2) + (3,) * 6 + (0,) * 3
    assert tables.skips(arch) == 10
    assert topology(NASBench201Space()).skips((1, 1, 0, 3, 4, 1)) == 3


def test_a_node_with_three_inputs_is_no_architecture():
    row = [1, 1, *[1] * 12]
    with pytest.raises(InvalidArchitecture):
        topology(DARTSSpace()).arch((row, row))


def test_other_spaces_have_no_tables():
    with pytest.raises(ValueError, match="no supernet of the space 'nasbench101'"):
        topology(NASBench101Space())
