"""Parts of a space: membership, neighbourhoods, and the two ways of being the same architecture."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nasharness.benchmarks.spaces.base import InvalidArchitecture, SearchSpace
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.benchmarks.spaces.subspace import Subspace


class Grid(SearchSpace):
    name = "grid"
    cardinalities = (3, 4, 5)

    def tenfold(self, arch):
        return tuple(10 * x for x in arch)


class Bags(SearchSpace):
    """Three letters whose order does not matter: 3 + 6 + 1 = 10 bags."""

    name = "bags"
    cardinalities = (3, 3, 3)
    canonical_identity = True

    def canonical(self, arch):
        return tuple(sorted(arch))


ALL = list(Grid())
some = st.sets(st.sampled_from(ALL), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(some, st.randoms())
def test_the_laws(members, random):
    """Valid means member; iteration, size and neighbours follow from it, whatever the order of the members."""
    shuffled = sorted(members)
    random.shuffle(shuffled)
    part = Subspace(Grid(), [*shuffled, *shuffled[:3]])
    assert list(part) == sorted(members)
    assert part.size == len(members)
    for arch in ALL:
        assert part.is_valid(arch) == (arch in members)
        assert part.neighbours(arch) == [other for other in Grid().neighbours(arch) if other in members]
        assert part.rank(arch) == Grid().rank(arch)


@settings(max_examples=30, deadline=None)
@given(some, st.integers(0, 2**32 - 1))
def test_sample_and_mutate_stay_inside(members, seed):
    """Both give members; a mutation is a neighbour wherever there is one, and never the architecture itself."""
    part, rng = Subspace(Grid(), members), np.random.default_rng(seed)
    for _ in range(10):
        arch = part.sample(rng)
        assert arch in members
        if len(members) == 1:
            with pytest.raises(InvalidArchitecture, match="only architecture"):
                part.mutate(arch, rng)
            continue
        other = part.mutate(arch, rng)
        assert other in members
        assert other != arch
        if neighbours := part.neighbours(arch):
            assert other in neighbours


def test_sample_is_uniform():
    """Chi-squared over the members."""
    members = ALL[::5]
    part, rng = Subspace(Grid(), members), np.random.default_rng(0)
    counts = Counter(part.sample(rng) for _ in range(6000))
    assert set(counts) == set(members)
    assert stats.chisquare([counts[arch] for arch in members]).pvalue > 1e-4


def test_mutate_draws_neighbours_as_the_full_space_does():
    """In the whole space every dimension is equally probable; a part that leaves nothing out mutates the same."""
    whole, part = Grid(), Subspace(Grid(), ALL)
    a, b = np.random.default_rng(5), np.random.default_rng(5)
    assert [whole.mutate((1, 1, 1), a) for _ in range(50)] == [part.mutate((1, 1, 1), b) for _ in range(50)]


def test_members_without_a_neighbour_are_left_by_a_walk():
    """From one corner to another, and in a space where a walk cannot end at a member at random in reasonable time."""
    part, rng = Subspace(Grid(), [(0, 0, 0), (2, 3, 4)]), np.random.default_rng(0)
    assert part.mutate((0, 0, 0), rng) == (2, 3, 4)

    class Huge(SearchSpace):
        name = "huge"
        cardinalities = (100,) * 20

    far = [(0,) * 20, (99,) * 20, (50,) * 20]
    part = Subspace(Huge(), far)
    found = {part.mutate((0,) * 20, rng) for _ in range(10)}
    assert found == set(far[1:])


def test_a_class_is_one_member():
    """Every vector of a class is valid, and only the canonical one is counted, sampled and listed."""
    part = Subspace(Bags(), [(2, 1, 0), (0, 1, 2), (1, 1, 0)])
    assert list(part) == [(0, 1, 1), (0, 1, 2)]
    assert part.size == 2
    assert part.is_valid((1, 2, 0))
    assert part.is_valid((1, 0, 1))
    assert not part.is_valid((2, 2, 0))
    assert not part.is_valid((2, 2, 3))
    assert part.check((2, 0, 1)) == (2, 0, 1)
    assert part.canonical((2, 0, 1)) == (0, 1, 2)
    rng = np.random.default_rng(0)
    assert {part.sample(rng) for _ in range(20)} == {(0, 1, 1), (0, 1, 2)}
    assert all(part.is_valid(part.mutate((0, 1, 1), rng)) for _ in range(20))
    lonely = Subspace(Bags(), [(0, 0, 0), (2, 2, 2)])
    assert lonely.mutate((0, 0, 0), rng) == (2, 2, 2)


class Switched(SearchSpace):
    """Where the first choice is 0, the others do nothing."""

    name = "switched"
    cardinalities = (2, 5, 5)
    canonical_identity = True

    def canonical(self, arch):
        return arch if arch[0] else (0, 0, 0)


def test_neighbours_and_mutations_are_of_another_class():
    """Of the nine neighbours of a switched-off vector eight are itself; in a part they would crowd out all others."""
    rng = np.random.default_rng(0)
    part = Subspace(Switched(), [(0, 0, 0), (1, 2, 3), (1, 4, 4)])
    assert part.neighbours((0, 2, 3)) == [(1, 2, 3)]
    assert part.neighbours((0, 0, 0)) == []
    for arch in ((0, 2, 3), (0, 0, 0), (1, 2, 3)):
        found = {part.canonical(part.mutate(arch, rng)) for _ in range(50)}
        assert found and part.canonical(arch) not in found


def test_a_mutation_without_a_way_may_be_any_other_member():
    """Each with the same probability, whatever the place of the architecture itself in the list."""

    class Huge(SearchSpace):
        name = "huge"
        cardinalities = (100,) * 20

    members = [(i,) * 20 for i in range(0, 100, 20)]
    part, rng = Subspace(Huge(), members), np.random.default_rng(0)
    for here in (members[0], members[2], members[4], (7,) * 20):
        others = [m for m in members if m != here]
        counts = Counter(part.mutate(here, rng) for _ in range(100))
        assert set(counts) == set(others)


def test_everything_else_is_the_full_space():
    """Strings, indices and whatever methods a space has."""
    cells = NASBench201Space()
    members = [cells.from_index(i) for i in (0, 11, 284)]
    part = Subspace(cells, members)
    assert part.name == "nasbench201"
    assert part.cardinalities == cells.cardinalities
    text = cells.to_string(members[1])
    assert part.to_string(members[1]) == text
    assert part.from_string(text) == members[1]
    assert [part.index(arch) for arch in members] == [0, 11, 284]
    assert part.network_class(members[0]) == cells.network_class(members[0])
    assert part.one_hot(members).shape == (3, 30)
    assert Subspace(Grid(), ALL).tenfold((1, 2, 3)) == (10, 20, 30)
    with pytest.raises(AttributeError):
        part.no_such_method  # noqa: B018
    with pytest.raises(InvalidArchitecture, match="not one of the 3 that are in this table"):
        part.from_string(cells.to_string(cells.from_index(1)))


def test_survives_pickling():
    """A worker process gets the same space."""
    part = Subspace(Grid(), ALL[:7])
    again = pickle.loads(pickle.dumps(part))
    assert list(again) == ALL[:7]
    assert again.tenfold((1, 1, 1)) == (10, 10, 10)


def test_mistakes_are_named():
    """A member outside the full space, no member, and what `check` says of the three kinds of strangers."""
    with pytest.raises(InvalidArchitecture, match="choice 5 in dimension 2"):
        Subspace(Grid(), [(0, 0, 5)])
    with pytest.raises(ValueError, match="at least one architecture"):
        Subspace(Grid(), [])
    part = Subspace(Grid(), [(0, 0, 0)])
    with pytest.raises(InvalidArchitecture, match="not one of the 1 "):
        part.check((0, 0, 1))
    with pytest.raises(InvalidArchitecture, match="has 2 choices"):
        part.check((0, 0))
    with pytest.raises(InvalidArchitecture, match="must be an int"):
        part.check((0, 0, 0.0))
    assert "size=1" in repr(part)
