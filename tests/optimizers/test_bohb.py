"""BOHB: its kernel density and a trace by hand, slow implementations, and spaces that make trouble."""

import itertools
import math

import numpy as np
import pytest

from nasharness import Benchmark, Budget, Evaluation, Final, Proposal, SearchSpace, Trial, run
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.bohb import BOHB, KernelDensity

NAME = "nasharness.optimizers.bohb:BOHB"
NAN = float("nan")
NONE = np.zeros(0, dtype=np.float32)


class Box(SearchSpace):
    """A space of given cardinalities."""

    name = "box"

    def __init__(self, *cardinalities):
        self.cardinalities = cardinalities


class OneOf64(Box):
    """Six bits, of which only the zeros are valid."""

    def is_valid(self, arch):
        return super().is_valid(arch) and not any(arch)


class Script:
    """A generator whose draws are written down beforehand."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, size=None):
        drawn = [self.draws.pop(0) for _ in range(1 if size is None else math.prod(np.atleast_1d(size)))]
        return drawn[0] if size is None else np.array(drawn).reshape(size)


def tell(optimizer, proposal, value):
    status = "failed" if value != value else "complete"
    optimizer.tell(Trial(proposal.arch, value, 1.0, proposal.epochs, NONE, status))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [NAME, f"{NAME}@nasbench201", f"{NAME}(fidelities=[6])"])
def test_conformance(name, check):
    """BOHB keeps every rule of the conformance suite."""
    check(optimizer_spec(name))


# -------------------------------------------------------------------------------------------------------------- the density


def test_the_bandwidth_on_paper():
    """Two architectures (0, 0) and (0, 1) of 3 x 2 choices.

    Dimension 0 has no spread: the least bandwidth, 0.001. Dimension 1 has the standard deviation 1/2, so
    1.06 / 2 * 2**(-1/6) = 0.53 * 0.890899 = 0.472176. The density at (0, 0) is the mean of .999 * .527824 and .999 * .472176,
    0.4995, and at (1, 0), where dimension 0 differs from both, the mean of .0005 * .527824 and .0005 * .472176, 0.00025.
    """
    density = KernelDensity(np.array([[0, 0], [0, 1]]), (3, 2), 1e-3)
    assert density.bandwidth == pytest.approx([0.001, 0.472176], abs=1e-6)
    assert density.density(np.array([[0, 0], [1, 0]])) == pytest.approx([0.4995, 0.00025])


def test_the_bandwidth_ends_where_the_kernel_is_uniform():
    """Choices 0 and 4 of five: 1.06 * 2 * 2**(-1/5) = 1.85 is cut off at 4/5, where each choice has 1/5."""
    density = KernelDensity(np.array([[0], [4]]), (5,), 1e-3)
    assert density.bandwidth == pytest.approx([0.8])
    assert density.density(np.arange(5)[:, None]) == pytest.approx(np.full(5, 0.2))


def slow_density(archs, cardinalities, min_bandwidth, at):
    """The definition, in loops."""
    n, d = len(archs), len(cardinalities)
    total = 0.0
    for arch in archs:
        kernel = 1.0
        for i, k in enumerate(cardinalities):
            column = [other[i] for other in archs]
            mean = sum(column) / n
            deviation = math.sqrt(sum((c - mean) ** 2 for c in column) / n)
            h = min(max(1.06 * deviation * n ** (-1 / (4 + d)), min_bandwidth), (k - 1) / k)
            if arch[i] == at[i]:
                kernel *= 1 - h
            else:
                kernel *= h / (k - 1)
        total += kernel
    return total / n


@pytest.mark.parametrize("cardinalities", [(3, 1, 4, 2), (2, 2, 2), (7,)])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_density_is_its_definition_and_sums_to_one(cardinalities, n):
    """At every architecture of a space."""
    archs = np.random.default_rng(n).integers(0, cardinalities, (n, len(cardinalities)))
    density = KernelDensity(archs, cardinalities, 0.05)
    everywhere = np.array(list(itertools.product(*map(range, cardinalities))))
    slow = [slow_density(archs.tolist(), cardinalities, 0.05, at) for at in everywhere.tolist()]
    np.testing.assert_allclose(density.density(everywhere), slow, rtol=1e-12)
    assert sum(slow) == pytest.approx(1)


def test_density_is_never_zero():
    """In 200 dimensions it would be 1e-600, which no float is."""
    density = KernelDensity(np.zeros((1, 200), dtype=int), (2,) * 200, 1e-3)
    far, near = density.density(np.array([[1] * 200, [0] * 200]))
    assert 0 < far < 1e-300
    assert near == pytest.approx(0.999**200)


def test_candidates_have_the_right_frequencies():
    """h = 0.3 keeps the 2 of (2, 0) with 0.7 + 0.3 / 3 = 0.8; 20,000 draws, within 5 standard errors (p < 1e-6 each)."""
    density = KernelDensity(np.array([[2, 0]]), (3, 1), 0.3)
    drawn = density.sample(20_000, np.random.default_rng(0))
    assert set(drawn[:, 1]) == {0}
    for choice, p in ((0, 0.1), (1, 0.1), (2, 0.8)):
        assert abs((drawn[:, 0] == choice).mean() - p) < 5 * math.sqrt(p * (1 - p) / 20_000)


# --------------------------------------------------------------------------------------------------------------- the method


def test_the_trace_on_paper():
    """3 x 2 choices, epochs (1, 3), eta 3; one point makes a density, half of the trials are good, h = 0.3.

    The brackets are 3 architectures at 1 epoch, the best of them at 3; then 2 at 3 epochs.
    1. Draw 0.5 (not below the random fraction 0, but there is no model), then 0.0, 0.0: (0, 0), value 0.9.
    2. Draw 0.5; one trial makes no model; 0.4, 0.9: (1, 1), value 0.3.
    3. Draw 0.5. Of two trials one is good, (0, 0), one bad, (1, 1). One architecture has no spread, so h = min_bandwidth.
       Two candidates from (0, 0) (draws 0.0, 0.0): dimension 0 of the first is redrawn (0.8 >= 0.7), the rest is kept (0.1);
       redrawn are 0.5 * 3 -> 1 and three that do not matter: (1, 0) and (0, 0).
           l(1, 0) / g(1, 0) = (.15 * .7) / (.7 * .3) = 0.5;  l(0, 0) / g(0, 0) = (.7 * .7) / (.15 * .3) = 10.9
       (0, 0) it is, value 0.95.
    4. The best of 0.9, 0.3 and 0.95 is (0, 0), which goes on to 3 epochs: value 0.7.
    5. The second bracket. Draw 0.5. One trial of 3 epochs makes no model, so it is that of 1 epoch: of three trials one is
       good, the (0, 0) of 0.95; bad are (0, 0) and (1, 1), with 1.06 * 0.5 * 2**(-1/6) = 0.472 for h in both dimensions.
       Both candidates keep everything but the second choice of the first one, which becomes 0.6 * 2 -> 1: (0, 1), (0, 0).
           l = .7 * .3, .7 * .7;  g(0, 1) = (.528 * .472 + .236 * .528) / 2 = .187, g(0, 0) = (.528**2 + .236 * .472) / 2 = .195
           l / g = 1.12, 2.51
       (0, 0) again; it fails.
    6. Draw 0.5. Of 3 epochs there are (0, 0) with 0.7 and a failed (0, 0): good and bad. Candidates: (2, 0) by 0.9 * 3 and
       (0, 1). l / g = 1 everywhere, since both densities are the same: the first, (2, 0).
    """
    rng = Script(0.5, 0.0, 0.0)
    rng.draws += [0.5, 0.4, 0.9]
    rng.draws += [0.5, 0.0, 0.0, 0.8, 0.1, 0.1, 0.1, 0.5, 0.0, 0.0, 0.0]
    rng.draws += [0.5, 0.0, 0.0, 0.1, 0.8, 0.1, 0.1, 0.0, 0.6, 0.0, 0.0]
    rng.draws += [0.5, 0.0, 0.9, 0.8, 0.1, 0.1, 0.8, 0.9, 0.0, 0.0, 0.6]
    bohb = BOHB(
        Box(3, 2),
        rng,
        fidelities=(1, 3),
        min_points=1,
        good_fraction=0.5,
        num_samples=2,
        random_fraction=0,
        min_bandwidth=0.3,
    )
    proposed = []
    for value in (0.9, 0.3, 0.95, 0.7, NAN, 0.5):
        proposed.append(bohb.ask())
        tell(bohb, proposed[-1], value)
    assert proposed == [
        Proposal((0, 0), 1),
        Proposal((1, 1), 1),
        Proposal((0, 0), 1),
        Proposal((0, 0), 3, resume=True),
        Proposal((0, 0), 3),
        Proposal((2, 0), 3),
    ]
    assert rng.draws == []


def slow_proposal(history, space, rng, *, min_points, good_fraction, num_samples, random_fraction, min_bandwidth):
    """A new architecture, in loops and from all trials anew; `history` holds (epochs, architecture, value)."""
    if rng.random() < random_fraction:
        return space.sample(rng)
    for epochs in sorted({e for e, _, _ in history}, reverse=True):
        trials = [(arch, value) for e, arch, value in history if e == epochs]
        trials.sort(key=lambda t: math.inf if t[1] != t[1] else -t[1])
        n_good = max(min_points, math.floor(good_fraction * len(trials) + 1e-9))
        good, bad = trials[:n_good], trials[n_good:]
        if len(bad) >= min_points and good[-1][1] == good[-1][1]:
            break
    else:
        return space.sample(rng)
    good, bad = [arch for arch, _ in good], [arch for arch, _ in bad]
    bandwidth = KernelDensity(np.array(good), space.cardinalities, min_bandwidth).bandwidth
    for _ in range(20):
        chosen = [good[int(u * len(good))] for u in rng.random(num_samples)]
        keep = rng.random((num_samples, len(bandwidth)))
        anew = rng.random((num_samples, len(bandwidth)))
        scored = []
        for arch, kept, other in zip(chosen, keep, anew, strict=True):
            candidate = tuple(
                choice if u < 1 - h else int(v * k)
                for choice, u, h, v, k in zip(arch, kept, bandwidth, other, space.cardinalities, strict=True)
            )
            if space.is_valid(candidate):
                l, g = (slow_density(part, space.cardinalities, min_bandwidth, candidate) for part in (good, bad))  # noqa: E741
                scored.append((round(math.log(l / g), 9), candidate))
        if scored:
            return max(scored, key=lambda s: s[0])[1]
    return space.sample(rng)


class Odd(Box):
    """Choices with an odd sum: half of a space, so that candidates are refused now and then."""

    def is_valid(self, arch):
        return super().is_valid(arch) and sum(arch) % 2 == 1


@pytest.mark.parametrize("space", [Box(5, 3, 4), Odd(2, 3, 1, 4)])
@pytest.mark.parametrize("fidelities", [(1, 3, 9), (50,)])
def test_models_are_kept_as_if_fitted_anew(space, fidelities):
    """For 100 trials with ties and failures, new architectures are those of a slow implementation that keeps no state."""
    settings = {
        "min_points": 5,
        "good_fraction": 0.2,
        "num_samples": 6,
        "random_fraction": 0.2,
        "min_bandwidth": 0.01,
    }
    bohb = BOHB(space, np.random.default_rng(3), fidelities=fidelities, **settings)
    rng, values, history = np.random.default_rng(3), np.random.default_rng(4), []
    for i in range(100):
        proposal = bohb.ask()
        if not proposal.resume:
            assert proposal.arch == slow_proposal(history, space, rng, **settings), i
        value = NAN if values.random() < 0.2 else round(sum(proposal.arch) / 20 + values.random() / 5, 2)
        history.append((proposal.epochs, proposal.arch, value))
        tell(bohb, proposal, value)


@pytest.mark.parametrize(
    ("fidelities", "brackets"),
    [
        (range(1, 13), [[(9, 1), (3, 4), (1, 12)], [(3, 4), (1, 12)], [(3, 12)]]),
        (
            (4, 12, 36, 108),
            [[(27, 4), (9, 12), (3, 36), (1, 108)], [(9, 12), (3, 36), (1, 108)], [(6, 36), (2, 108)], [(4, 108)]],
        ),
        ((100,), [[(1, 100)]]),
    ],
)
def test_brackets_are_those_of_hpbandster(fidelities, brackets):
    """floor(s_max + 1 / (s + 1)) * 3**s architectures, and after the last bracket the first one."""
    bohb = BOHB(Box(5, 5, 5, 5), np.random.default_rng(0), fidelities=fidelities)
    for plan in brackets + brackets:
        for rung, (n, epochs) in enumerate(plan):
            for _ in range(n):
                proposal = bohb.ask()
                assert (proposal.epochs, proposal.resume) == (epochs, rung > 0)
                tell(bohb, proposal, sum(proposal.arch) / 16)


def test_promotions_can_be_trained_anew():
    """`resume=False`, as in the preset of the NAS-Bench-201 paper."""
    bohb = optimizer_spec(f"{NAME}@nasbench201").make(Box(3, 3), np.random.default_rng(0), fidelities=(1, 3))
    for _ in range(40):
        proposal = bohb.ask()
        assert not proposal.resume
        tell(bohb, proposal, 0.5)


@pytest.mark.parametrize("space", [Box(1), Box(1, 1, 1), Box(2), OneOf64(2, 2, 2, 2, 2, 2), Box(*[8] * 28)])
@pytest.mark.parametrize("value", [NAN, 0.5, None])
def test_any_space_and_any_values(space, value):
    """One architecture, a single valid one, or 8**28; all trials fail, are equal or differ; more trials than architectures."""
    bohb = BOHB(space, np.random.default_rng(0), fidelities=(4, 12), min_points=2)
    for _ in range(100):
        proposal = bohb.ask()
        space.check(proposal.arch)
        tell(bohb, proposal, sum(proposal.arch) / 200 if value is None else value)


def test_nasbench101():
    """Twenty-six dimensions and a constraint, also where more points are needed than there are."""
    space = NASBench101Space()
    for min_points in (None, 5):
        bohb = BOHB(space, np.random.default_rng(0), fidelities=(4, 12, 36, 108), min_points=min_points)
        for _ in range(200):
            proposal = bohb.ask()
            space.check(proposal.arch)
            tell(bohb, proposal, sum(proposal.arch) / 30)


@pytest.mark.parametrize(
    "parameters",
    [
        {"min_points": 0},
        {"num_samples": 0},
        {"good_fraction": 0.0},
        {"good_fraction": 1.0},
        {"min_bandwidth": 0.0},
        {"random_fraction": 1.1},
        {"random_fraction": NAN},
        {"eta": 1},
        {"fidelities": ()},
        {"fidelities": (3, 1)},
    ],
)
def test_hyper_parameters_are_checked(parameters):
    """Values that make no sense are refused, and the message names the parameter."""
    with pytest.raises(ValueError, match=next(iter(parameters))):
        BOHB(Box(3, 2), np.random.default_rng(0), **parameters)


def test_ask_twice_says_what_is_wrong():
    """A rung's results are needed before its best can go on."""
    bohb = BOHB(Box(3, 2), np.random.default_rng(0), fidelities=(1,))
    bohb.ask()
    with pytest.raises(RuntimeError, match="without a tell"):
        bohb.ask()


@pytest.mark.parametrize(("preset", "fingerprint"), [("", "4b5c39f27f250930"), ("@nasbench201", "b7103f4c7cbdbdde")])
def test_golden_run(preset, fingerprint):
    """A run on digits201 is what it was when it was first recorded."""
    assert run(NAME + preset, "digits201", Budget(evaluations=200), seed=1).fingerprint()[:16] == fingerprint


class Additive(Benchmark):
    """NAS-Bench-201 cells whose accuracy is a sum over the edges, less while training is short."""

    id = "additive-v1"
    space = NASBench201Space()
    max_epochs = 9
    optimum = Final(1.0, 1.0, 1.0, 1.0, 1.0)

    def query(self, arch, epochs=None, rng=None):
        epochs = epochs or 9
        return Evaluation(sum(c * c for c in arch) / 96 * (0.7 + epochs / 30), float(epochs), epochs, NONE)

    def final_many(self, archs):
        raise NotImplementedError

    def curve(self, arch, seed=None):
        raise NotImplementedError


@pytest.mark.parametrize("preset", ["", "@nasbench201"])
def test_beats_random_search_where_choices_add_up(preset):
    """With the epochs of 60 full trainings, the best of 30 paired runs is better at z > 3.8 (p < 1e-4)."""
    benchmark = Additive()

    def best(name):
        runs = [run(name, benchmark, Budget(seconds=540), repetition=r) for r in range(30)]
        return np.array([sum(c * c for c in r.incumbent) / 96 for r in runs])

    difference = best(NAME + preset) - best("random_search")
    z = difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference)))
    assert z > 3.8, z
