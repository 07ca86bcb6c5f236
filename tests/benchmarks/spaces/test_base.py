import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nasharness.benchmarks.spaces.base import InvalidArchitecture, SearchSpace
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space


class Plain(SearchSpace):
    name = "plain"
    cardinalities = (3, 2, 4)


class WithConstants(SearchSpace):
    name = "with-constants"
    cardinalities = (1, 3, 1, 2)


class OneDimension(SearchSpace):
    name = "one-dimension"
    cardinalities = (7,)


class Single(SearchSpace):
    name = "single"
    cardinalities = (1, 1)


class Distinct(SearchSpace):
    """Constrained: first and last choice differ."""

    name = "distinct"
    cardinalities = (3, 2, 4)
    size = 18

    def is_valid(self, arch):
        return super().is_valid(arch) and arch[0] != arch[-1]


class EvenSum(SearchSpace):
    """Constrained: the sum is even. (1, 1) has no neighbour."""

    name = "even-sum"
    cardinalities = (3, 3)
    size = 5

    def is_valid(self, arch):
        return super().is_valid(arch) and sum(arch) % 2 == 0


SMALL = [Plain(), WithConstants(), OneDimension(), Single(), Distinct(), EvenSum()]
MOVABLE = [Plain(), WithConstants(), OneDimension(), Distinct()]
small = pytest.mark.parametrize("space", SMALL, ids=lambda s: s.name)
movable = pytest.mark.parametrize("space", MOVABLE, ids=lambda s: s.name)

FALSE_ALARM = 1e-6  # probability that a right sampler fails one of the chi-square tests below under a fresh seed


def any_space():
    """An unconstrained space of up to five dimensions of up to five choices."""

    def make(cardinalities):
        return type("AnySpace", (SearchSpace,), {"name": "any", "cardinalities": tuple(cardinalities)})()

    return st.lists(st.integers(1, 5), min_size=1, max_size=5).map(make)


def space_and_arch():
    return any_space().flatmap(
        lambda space: st.tuples(st.just(space), st.tuples(*(st.integers(0, n - 1) for n in space.cardinalities)))
    )


# ------------------------------------------------------------------------------------------------------- enumeration


@small
def test_iteration_yields_every_valid_vector_in_lexicographic_order(space):
    """Iterating a space gives each valid choice vector once, in lexicographic order."""
    expected = sorted(a for a in itertools.product(range(7), repeat=len(space.cardinalities)) if space.is_valid(a))
    assert expected == list(space)


@small
def test_size_counts_the_iterated_architectures(space):
    """`size` is the number of valid architectures."""
    assert len(list(space)) == space.size


@given(any_space())
def test_size_is_the_product_of_cardinalities_without_constraints(space):
    """Without a constraint the size is the product of the cardinalities."""
    assert math.prod(space.cardinalities) == space.size


@given(space_and_arch())
def test_unrank_inverts_rank(pair):
    """`unrank(rank(a))` is `a`, as a plain tuple of ints."""
    space, arch = pair
    back = space.unrank(space.rank(arch))
    assert (arch, tuple, {int}) == (back, type(back), {type(c) for c in back})


@given(any_space())
def test_rank_counts_along_the_iteration_of_an_unconstrained_space(space):
    """Ranks along the iteration are 0, 1, 2, ..."""
    assert list(range(space.size)) == [space.rank(arch) for arch in space]


@pytest.mark.parametrize("rank", [-1, 24, 10**9])
def test_unrank_refuses_a_rank_outside_the_space(rank):
    """A rank that no vector has is refused; the message names it and the range."""
    with pytest.raises(InvalidArchitecture, match=rf"rank {rank} is not in 0\.\.23 of plain"):
        Plain().unrank(rank)


# ---------------------------------------------------------------------------------------------------------- sampling


@small
def test_samples_are_valid_tuples_of_ints(space):
    """`sample` returns plain tuples of Python ints that the space contains."""
    rng = np.random.default_rng(1)
    samples = [space.sample(rng) for _ in range(200)]
    assert all(space.check(a) == a for a in samples)
    assert {(tuple, int)} == {(type(a), type(c)) for a in samples for c in a}


@pytest.mark.parametrize("space", [Plain(), WithConstants(), OneDimension(), Distinct(), EvenSum()], ids=repr)
def test_samples_are_uniform(space):
    """Every valid architecture is drawn with the same probability (chi-square test at `FALSE_ALARM`)."""
    rng = np.random.default_rng(2)
    counts = dict.fromkeys(space, 0)
    for _ in range(8000):
        counts[space.sample(rng)] += 1
    assert stats.chisquare(list(counts.values())).pvalue > FALSE_ALARM


@small
def test_same_generator_state_gives_the_same_samples(space):
    """Sampling depends on the generator that is passed and on nothing else."""
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    assert [space.sample(first) for _ in range(20)] == [space.sample(second) for _ in range(20)]


# -------------------------------------------------------------------------------------------------------- neighbours


@small
def test_neighbours_are_exactly_the_valid_vectors_at_distance_one(space):
    """`neighbours(a)` are all valid vectors that differ from `a` in exactly one choice, each once."""
    for arch in space:
        expected = [b for b in space if sum(x != y for x, y in zip(arch, b, strict=True)) == 1]
        found = space.neighbours(arch)
        assert sorted(expected) == sorted(found)


@given(space_and_arch())
def test_neighbourhood_is_symmetric(pair):
    """`a` is a neighbour of each of its neighbours."""
    space, arch = pair
    assert all(arch in space.neighbours(other) for other in space.neighbours(arch))


@given(space_and_arch())
def test_number_of_neighbours_without_constraints(pair):
    """An unconstrained space has sum(n - 1) distinct neighbours of every architecture."""
    space, arch = pair
    neighbours = space.neighbours(arch)
    assert sum(n - 1 for n in space.cardinalities) == len(neighbours) == len(set(neighbours))


def test_neighbours_come_in_a_fixed_order():
    """Neighbours are ordered by dimension, then by choice."""
    expected = [(0, 0, 2), (2, 0, 2), (1, 1, 2), (1, 0, 0), (1, 0, 1), (1, 0, 3)]
    assert expected == Plain().neighbours((1, 0, 2))


@movable
def test_mutation_has_the_documented_probabilities(space):
    """A dimension uniformly, then one of its other choices uniformly, redrawn until valid (chi-square at `FALSE_ALARM`).

    So a valid neighbour in a dimension of n choices has probability proportional to 1 / (n - 1).
    """
    rng = np.random.default_rng(4)
    for arch in (next(iter(space)), list(space)[-1]):
        weights = {}
        for other in space.neighbours(arch):
            (d,) = (i for i, (x, y) in enumerate(zip(arch, other, strict=True)) if x != y)
            weights[other] = 1 / (space.cardinalities[d] - 1)
        counts = dict.fromkeys(weights, 0)
        for _ in range(6000):
            counts[space.mutate(arch, rng)] += 1  # a KeyError here: not a neighbour
        expected = np.array(list(weights.values())) * 6000 / sum(weights.values())
        assert stats.chisquare(list(counts.values()), expected).pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    ("space", "arch"), [(Single(), (0, 0)), (EvenSum(), (1, 1))], ids=["nothing to change", "nothing valid"]
)
def test_mutation_without_a_neighbour_is_an_error(space, arch):
    """Where no neighbour exists, mutate says so instead of searching for ever."""
    assert space.neighbours(arch) == []
    with pytest.raises(InvalidArchitecture, match=rf"\({arch[0]}, {arch[1]}\) has no neighbour in {space.name}"):
        space.mutate(arch, np.random.default_rng(0))


def test_mutation_finds_a_neighbour_that_rejection_would_miss():
    """Where a draw is hardly ever valid, mutate lists the neighbours and still returns one."""

    class Needle(SearchSpace):
        name = "needle"
        cardinalities = (10**4, 2)

        def is_valid(self, arch):
            return super().is_valid(arch) and arch in ((3, 0), (9_999, 0))

    class AlwaysTheMiddle:
        def random(self):
            return 0.25

    assert Needle().mutate((3, 0), AlwaysTheMiddle()) == (9_999, 0)


# --------------------------------------------------------------------------------------------------------- encodings


@given(any_space().flatmap(lambda s: st.tuples(st.just(s), st.integers(0, 6), st.integers(0, 2**32))))
def test_one_hot_decodes_to_the_architectures(case):
    """One-hot rows are float32 of length sum(cardinalities), have one 1 per dimension, and decode to the architecture."""
    space, n, seed = case
    rng = np.random.default_rng(seed)
    archs = [space.sample(rng) for _ in range(n)]
    encoded = space.one_hot(archs)
    assert ((n, sum(space.cardinalities)), np.float32) == (encoded.shape, encoded.dtype)
    bounds = np.cumsum(space.cardinalities)[:-1]
    for arch, row in zip(archs, encoded, strict=True):
        parts = np.split(row, bounds)
        assert [1.0] * len(parts) == [part.sum() for part in parts]
        assert arch == tuple(int(part.argmax()) for part in parts)


def test_one_hot_by_hand():
    """A worked example, from tuples and from an array."""
    expected = [[0, 1, 0, 1, 0, 0, 0, 0, 1], [1, 0, 0, 0, 1, 1, 0, 0, 0]]
    archs = [(1, 0, 3), (0, 1, 0)]
    assert expected == Plain().one_hot(archs).tolist() == Plain().one_hot(np.array(archs)).tolist()


@given(space_and_arch())
def test_from_string_inverts_to_string(pair):
    """`from_string(to_string(a))` is `a`."""
    space, arch = pair
    assert arch == space.from_string(space.to_string(arch))


@pytest.mark.parametrize("text", ["", "1", "1-0-2-0", "1-x-2", "3-0-0", "-1-0-0", "1.0-0-0"])
def test_from_string_refuses_what_to_string_cannot_have_written(text):
    """A text outside the grammar or outside the space is refused and quoted."""
    with pytest.raises(InvalidArchitecture, match=f"'{text}' is not an architecture string of plain"):
        Plain().from_string(text)


def test_canonical_is_the_architecture_itself_by_default():
    """A space that knows no isomorphism has classes of one member."""
    assert Plain().canonical((1, 0, 2)) == (1, 0, 2)


def test_repr_names_class_and_size():
    """`repr` shows class and size."""
    assert (repr(Plain()), repr(NASBench201Space())) == ("Plain(size=24)", "NASBench201Space(size=15625)")


# ------------------------------------------------------------------------------------------------------------- check


@pytest.mark.parametrize(
    "arch",
    [(1, 0, 3), [1, 0, 3], np.array([1, 0, 3]), np.array([1, 0, 3], dtype=np.uint8), (np.int64(1), 0, np.int8(3))],
    ids=["tuple", "list", "array", "uint8 array", "tuple of numpy ints"],
)
def test_check_returns_a_plain_tuple_of_python_ints(arch):
    """`check` accepts sequences and arrays of whole numbers and turns them into a plain tuple."""
    checked = Plain().check(arch)
    assert ((1, 0, 3), tuple, [int] * 3) == (checked, type(checked), [type(c) for c in checked])


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ((True, 0, 0), r"every choice of an architecture must be an int: \(True, 0, 0\)"),
        ((1.0, 0, 0), r"every choice of an architecture must be an int: \(1\.0, 0, 0\)"),
        (np.array([1.0, 0.0, 0.0]), r"every choice of an architecture must be an int"),
        (np.array([True, False, False]), r"every choice of an architecture must be an int"),
        (("1", "0", "0"), r"every choice of an architecture must be an int"),
        (np.zeros((1, 3), dtype=int), r"every choice of an architecture must be an int"),
        ((1, 0), r"\(1, 0\) has 2 choices; plain has 3 dimensions"),
        ((1, 0, 0, 0), r"\(1, 0, 0, 0\) has 4 choices; plain has 3 dimensions"),
        ((), r"\(\) has 0 choices; plain has 3 dimensions"),
        ((3, 0, 0), r"\(3, 0, 0\) is not in plain: choice 3 in dimension 0 is not in 0\.\.2"),
        ((0, 0, -1), r"\(0, 0, -1\) is not in plain: choice -1 in dimension 2 is not in 0\.\.3"),
        ("1-0-3", r"is a tuple of 3 ints, not '1-0-3' \(use from_string for an architecture string\)"),
        (b"103", r"is a tuple of 3 ints, not b'103'$"),
        (7, r"an architecture of plain is a tuple of 3 ints, not 7$"),
        (None, r"an architecture of plain is a tuple of 3 ints, not None$"),
        ({1, 0}, r"an architecture of plain is a tuple of 3 ints, not \{0, 1\}$"),
    ],
)
def test_check_says_what_is_wrong(arch, message):
    """Each refusal names the value and the reason."""
    with pytest.raises(InvalidArchitecture, match=message):
        Plain().check(arch)


def test_check_applies_the_constraint_of_the_space():
    """A vector in range that the space's own test refuses is refused by `check` too."""
    with pytest.raises(InvalidArchitecture, match=r"\(1, 0, 1\) is not a valid architecture of distinct"):
        Distinct().check((1, 0, 1))
    assert Distinct().check((1, 0, 2)) == (1, 0, 2)


def test_invalid_architecture_is_a_value_error():
    """Callers may catch ValueError."""
    assert issubclass(InvalidArchitecture, ValueError)


@given(space_and_arch(), st.integers(-3, 9))
def test_is_valid_agrees_with_check(pair, choice):
    """For tuples of ints, `is_valid` is True exactly where `check` does not raise."""
    space, arch = pair
    changed = (choice, *arch[1:])
    try:
        space.check(changed)
        passes = True
    except InvalidArchitecture:
        passes = False
    assert passes == space.is_valid(changed)
