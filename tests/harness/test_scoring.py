"""Scoring architectures: which ones, with what chance, kept where, and what happens when something fails."""

import math
import sqlite3

import numpy as np
import pytest
import torch

import nasharness as nh
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness import scoring as scoring_module
from nasharness.harness.registry import RegistryError, proxy_spec
from nasharness.harness.score_cache import CacheError, Known, ScoreCache, open_cache
from nasharness.harness.scorer import BenchmarkScorer, Recipe, ScoreError, Scoring
from nasharness.harness.scoring import choose
from nasharness.proxies.base import Proxy

SPACE = NASBench201Space()


class Fails(Proxy):
    """Raises on every cell with a 3 x 3 convolution on its first edge."""

    n_images = 0

    def score(self, network, images, labels):
        if network.arch[0] == 3:
            raise RuntimeError("not this one")
        return 1.0


class Undefined(Proxy):
    """NaN, or infinite."""

    n_images = 0

    def score(self, network, images, labels):
        return math.nan if network.arch[0] else math.inf


class Sees(Proxy):
    """The sum of the images that it is given."""

    n_images = 3

    def score(self, network, images, labels):
        assert len(images) == len(labels) == 3
        return float(images.sum())


@pytest.fixture(scope="module")
def digits():
    return nh.load("digits201")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NASHARNESS_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "scores.sqlite"


# ------------------------------------------------------------------------------------------------- which architectures


@pytest.mark.parametrize(("among", "count"), [("all", 15625), ("unique", 6466), ("live", 9445)])
def test_the_sets_have_the_published_sizes(among, count):
    """6,466 classes (Dong and Yang 2020); 9,445 cells without a dead operation (NAS-Bench-Suite-Zero's table)."""
    archs, words = choose(SPACE, n=None, among=among, seed=0)
    assert len({tuple(a) for a in archs.tolist()}) == count
    assert words.startswith(f"all {count:,} ")


def test_a_sample_is_reproducible_and_without_repetition():
    one, words = choose(SPACE, n=50, among="live", seed=3)
    other, _ = choose(SPACE, n=50, among="live", seed=3)
    assert (one == other).all()
    assert len({tuple(a) for a in one.tolist()}) == 50
    assert all(SPACE.prune(tuple(a)) == tuple(a) for a in one.tolist())
    assert words == "a random sample of 50 of the 9,445 architectures without a dead operation of nasbench201, seed 3"
    assert (choose(SPACE, n=50, among="live", seed=4)[0] != one).any()


def test_more_than_there_are_is_all():
    assert len(choose(SPACE, n=20_000, among="unique", seed=0)[0]) == 6466


@pytest.mark.parametrize("space", [DARTSSpace(), NASBench101Space()])
def test_large_spaces_are_sampled(space):
    archs, words = choose(space, n=15, among="all", seed=0)
    found = {space.identity(tuple(a)) for a in archs.tolist()}
    assert len(found) == 15
    assert all(space.is_valid(a) for a in found)
    assert words == f"a random sample of 15 architectures of {space.name}, seed 0"
    with pytest.raises(ScoreError, match="how many"):
        choose(space, n=None, among="all", seed=0)


def test_unknown_sets_are_refused():
    with pytest.raises(ScoreError, match="'every'.*all, unique, live"):
        choose(SPACE, n=3, among="every", seed=0)
    with pytest.raises(ScoreError, match="does not say which operations are dead"):
        choose(DARTSSpace(), n=3, among="live", seed=0)


# ------------------------------------------------------------------------------------------------------------- scores


def test_parameters_are_those_of_the_table(digits):
    """The table's networks were pruned, and its count is made by another module."""
    scores = nh.score(["params", "metric:params"], digits, n=12, settings={"prune": True}, cache=False)
    assert (scores.values["params"] == scores.values["metric:params"]).all()
    assert (nh.score("params", digits, n=12, cache=False).values["params"] >= scores.values["params"]).all()
    assert scores.accuracy == pytest.approx(digits.final_many(scores.archs).test_accuracy)


def test_company_and_order_and_search_change_nothing(digits):
    """A score is the same alone, with other proxies, among other architectures, and when a search asks."""
    together = nh.score(["zico", "naswot", "random_score", "zen", "snip"], digits, n=5, cache=False)
    archs = [tuple(a) for a in together.archs.tolist()]
    for label in ("naswot", "random_score", "zen", "snip"):
        scorer = BenchmarkScorer(digits)
        backwards = scorer(label, archs[::-1], seed=0)[::-1]
        assert backwards.tolist() == together.values[label].tolist(), label


@pytest.mark.slow
def test_processes_change_nothing(digits):
    proxies = ["naswot", "synflow", "zen", "az_nas"]
    one = nh.score(proxies, digits, n=8, cache=False)
    two = nh.score(proxies, digits, n=8, cache=False, jobs=2)
    assert all(one.values[p].tolist() == two.values[p].tolist() for p in proxies)


def test_the_seed_decides(digits):
    one = nh.score(["random_score", "naswot", "params"], digits, n=3, cache=False)
    archs = [tuple(a) for a in one.archs.tolist()]
    scorer = BenchmarkScorer(digits)
    for label in ("random_score", "naswot"):
        assert (scorer(label, archs, seed=1) != one.values[label]).all()
    assert (scorer("params", archs, seed=1) == one.values["params"]).all()


def test_isomorphic_cells_score_alike_once_pruned(digits):
    archs = [SPACE.from_string(s) for s in (
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|",
        "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|",
    )]  # fmt: skip
    assert np.ptp(BenchmarkScorer(digits, settings={"prune": True})("snip", archs, seed=0)) == 0
    assert np.ptp(BenchmarkScorer(digits)("snip", archs, seed=0)) > 0


def test_settings_reach_the_network(digits):
    scoring = Scoring(Recipe(digits, settings={"cells": 2, "channels": 4}))
    (small,) = scoring.measure([proxy_spec("params")], (3, 3, 3, 3, 3, 3))
    (usual,) = Scoring(Recipe(digits)).measure([proxy_spec("params")], (3, 3, 3, 3, 3, 3))
    assert small.values[0] != usual.values[0]
    with pytest.raises(ScoreError, match="no setting depth; they have channels, cells"):
        Scoring(Recipe(digits, settings={"depth": 2}))


def test_every_proxy_sees_the_same_first_images(digits):
    scores = nh.score([Sees, "grad_norm"], digits, n=3, cache=False)
    assert np.ptp(scores.values["Sees"]) == 0
    alone = nh.score(Sees, digits, n=3, cache=False)
    assert (alone.values["Sees"] == scores.values["Sees"]).all()
    assert (nh.score(Sees, digits, n=3, seed=1, cache=False).values["Sees"] != scores.values["Sees"]).all()


def test_images_of_the_users_own(digits, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.integers(0, 255, (70, 12, 12), dtype=np.uint8), "y_train": rng.integers(0, 4, 70)}
    arrays |= {"x_test": arrays["x_train"][:5], "y_test": arrays["y_train"][:5]}
    np.savez(tmp_path / "mine.npz", **arrays)
    scores = nh.score("snip", digits, n=2, images=tmp_path / "mine.npz", cache=False)
    assert scores.specification["network"]["num_classes"] == 4
    assert "mine" in scores.specification["images"]
    with pytest.raises(ScoreError, match="128 images are wanted, mine has 70"):
        nh.score("naswot", digits, n=2, images=tmp_path / "mine.npz", cache=False)


def test_rank_proxies_keep_their_parts(digits):
    scores = nh.score("az_nas", digits, n=6, cache=False)
    assert set(scores.parts["az_nas"]) == set(proxy_spec("az_nas").factory.parts)
    assert all(part.shape == (6,) for part in scores.parts["az_nas"].values())
    assert scores.values["az_nas"].shape == (6,)


def test_what_is_not_finite_is_lowest(digits):
    scores = nh.score(Undefined, digits, n=5, cache=False)
    assert (scores.values["Undefined"] == -np.inf).all()
    assert not scores.errors["Undefined"]


def test_a_failing_proxy_harms_nobody(digits, own_cache):
    """Its networks are lowest, with the reason; the others' scores are there; a failure is not remembered."""
    scores = nh.score([Fails, "params"], digits, n=40)
    failed = scores.archs[:, 0] == 3
    assert 0 < failed.sum() < 40
    assert (scores.values["Fails"] == np.where(failed, -np.inf, 1.0)).all()
    assert set(scores.errors["Fails"]) == set(np.flatnonzero(failed).tolist())
    assert set(scores.errors["Fails"].values()) == {"RuntimeError: not this one"}
    assert np.isfinite(scores.values["params"]).all()
    with ScoreCache(own_cache) as cache:
        scoring = Scoring(Recipe(digits))
        keys = [scoring.key(proxy_spec(Fails), tuple(a)) for a in scores.archs.tolist()]
        assert len(cache.find(keys)) == (~failed).sum()


def test_nothing_global_is_touched(digits):
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    nh.score(["zen", "naswot", "random_score"], digits, n=2, cache=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_frame_and_words(digits):
    scores = nh.score(["params", "synflow"], digits, n=4, cache=False)
    frame = scores.frame()
    assert list(frame.columns) == ["architecture", "test_accuracy", "params", "synflow"]
    assert frame["architecture"].map(SPACE.from_string).tolist() == [tuple(a) for a in scores.archs.tolist()]
    assert repr(scores) == "<Scores of 4 architectures of digits201-v1 by params, synflow>"
    assert scores.seconds["synflow"].min() > 0
    assert len(scores) == 4


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"proxies": "nawsot"}, RegistryError, "did you mean naswot"),
        ({"proxies": ["snip", "snip"]}, RegistryError, "'snip' is given twice"),
        ({"proxies": []}, RegistryError, "no proxy"),
        ({"proxies": "metric:latency"}, RegistryError, "no metric 'latency'; its metrics are: params, flops"),
        ({"proxies": "snip(batch=3)"}, RegistryError, "its hyper-parameters are: batch_size"),
        ({"proxies": "random_search"}, RegistryError, "unknown proxy"),
        ({"proxies": nh.Benchmark}, RegistryError, "not a subclass of nasharness.Proxy"),
        ({"n": 0}, ScoreError, "n must be a whole number from 1, not 0"),
        ({"n": True}, ScoreError, "n must be"),
        ({"jobs": 0}, ScoreError, "jobs must be"),
        ({"seed": -1}, ScoreError, "seed must be"),
        ({"images": "nowhere/at/all"}, ValueError, "nowhere/at/all"),
        ({"device": "cuda"}, ScoreError, "no GPU"),
    ],
)
def test_bad_input(digits, arguments, error, message):
    if arguments.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(error, match=message):
        nh.score(**{"proxies": "params", "benchmark": digits, "n": 2, "cache": False, **arguments})


def test_a_benchmark_without_networks_says_so(tiny_benchmark):
    with pytest.raises(ScoreError, match="tiny-v1 has no networks"):
        nh.score("params", tiny_benchmark, n=3, cache=False)
    assert len(nh.score("metric:params", tiny_benchmark, n=3, cache=False)) == 3


# --------------------------------------------------------------------------------------------------------- kept scores


def test_a_second_call_computes_nothing(digits, own_cache, monkeypatch):
    first = nh.score(["naswot", "az_nas", "params"], digits, n=4)

    def never(self, specs, arch):
        raise AssertionError("it was computed again")

    monkeypatch.setattr(Scoring, "measure", never)
    again = nh.score(["naswot", "az_nas", "params"], digits, n=4)
    for label in first.proxies:
        assert again.values[label].tolist() == first.values[label].tolist()
        assert again.seconds[label].tolist() == first.seconds[label].tolist()
    assert again.peak_bytes == first.peak_bytes
    with pytest.raises(AssertionError):
        nh.score(["naswot"], digits, n=4, seed=1)


def test_an_interrupted_call_keeps_what_was_scored(digits, own_cache, monkeypatch):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nh.score("params", digits, n=6, progress=interrupt)
    seen = []
    measure = Scoring.measure
    monkeypatch.setattr(Scoring, "measure", lambda self, specs, arch: seen.append(arch) or measure(self, specs, arch))
    monkeypatch.setattr(scoring_module, "_PEAKS", 0)
    monkeypatch.setattr(scoring_module, "_peaks", lambda *a: {"params": math.nan})
    nh.score("params", digits, n=6)
    assert len(seen) == 3


def test_a_key_changes_with_everything_that_a_score_depends_on(digits, tmp_path):
    arch = (3, 0, 2, 1, 4, 3)
    base, snip = Scoring(Recipe(digits)), proxy_spec("snip")

    def key(scoring=base, spec=snip, arch=arch):
        return scoring.key(spec, arch)

    others = [
        key(scoring=Scoring(Recipe(digits, seed=1))),
        key(scoring=Scoring(Recipe(digits, settings={"cells": 2}))),
        key(scoring=Scoring(Recipe(digits, settings={"prune": True}))),
        key(scoring=Scoring(Recipe(digits, images="digits"))),
        key(spec=proxy_spec("snip(batch_size=32)")),
        key(spec=proxy_spec("plain")),
        key(arch=(3, 0, 2, 1, 4, 4)),
    ]
    assert len({key(), *others}) == 1 + len(others)
    assert key() == Scoring(Recipe("digits201")).key(snip, arch)
    params = proxy_spec("params")
    assert base.key(params, arch) == Scoring(Recipe(digits, seed=1)).key(params, arch)


def test_a_key_changes_with_the_version_of_a_proxy(digits, monkeypatch):
    before = Scoring(Recipe(digits)).key(proxy_spec("snip"), (0,) * 6)
    monkeypatch.setattr(proxy_spec("snip").factory, "version", 99)
    assert Scoring(Recipe(digits)).key(proxy_spec("snip"), (0,) * 6) != before


def test_a_foreign_file_is_not_touched(own_cache, digits):
    own_cache.parent.mkdir()
    own_cache.write_text("my diary")
    with pytest.raises(CacheError, match="scores.sqlite"):
        nh.score("params", digits, n=1)
    assert own_cache.read_text() == "my diary"
    own_cache.unlink()
    with sqlite3.connect(own_cache) as other:
        other.execute("CREATE TABLE letters (text)")
    other.close()
    with pytest.raises(CacheError, match="not a file of kept scores"):
        ScoreCache(own_cache)


def test_kept_numbers_come_back(tmp_path):
    known = {bytes([i]) * 32: Known((float(i), -math.inf), i / 3) for i in range(2000 % 251)}
    with ScoreCache(tmp_path / "a" / "scores.sqlite") as cache:
        cache.keep(known)
    with ScoreCache(tmp_path / "a" / "scores.sqlite") as cache:
        assert cache.find([*known, b"x" * 32]) == known
        with pytest.raises(ValueError, match="NaN"):
            cache.keep({b"y" * 32: Known((math.nan,), 0.0)})


def test_more_keys_than_a_statement_takes(tmp_path):
    known = {i.to_bytes(32, "big"): Known((float(i),), 0.0) for i in range(2500)}
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        cache.keep(known)
        assert cache.find(list(known)) == known


def test_without_a_folder_to_write_scores_live_in_memory(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NASHARNESS_DATA", str(tmp_path / "file" / "below"))
    with open_cache() as cache:
        assert cache.path is None
        cache.keep({b"k" * 32: Known((1.0,), 2.0)})
        assert cache.find([b"k" * 32]) == {b"k" * 32: Known((1.0,), 2.0)}


# ----------------------------------------------------------------------------------------------------- inside a search


def test_known_scores_are_paid_for_again_but_once(digits):
    archs = [(3, 0, 2, 1, 4, 3), (1, 1, 1, 1, 1, 1), (3, 0, 2, 1, 4, 3)]
    with ScoreCache(None) as cache:
        scorer = BenchmarkScorer(digits, cache=cache)
        first = scorer("synflow", archs, seed=0)
        assert first[0] == first[2]
        assert scorer("synflow", archs, seed=0).tolist() == first.tolist()
        assert scorer.saved_seconds == 0
        later = BenchmarkScorer(digits, cache=cache)
        assert later("synflow", archs[:1], seed=0) == first[0]
        once = later.saved_seconds
        assert once > 0
        later("synflow", archs[:1], seed=0)
        assert later.saved_seconds == once


def test_a_search_tells_why_it_cannot_score(tiny_benchmark):
    with pytest.raises(nh.RunError, match="tiny-v1 has no networks to score"):
        nh.run("zero_cost_warmup", tiny_benchmark, 5)
    with pytest.raises(ScoreError, match="Fails failed: RuntimeError: not this one"):
        BenchmarkScorer("digits201")(f"{__file__}:Fails", [(3,) * 6], seed=0)


def test_the_search_pays_for_scores(digits, own_cache):
    """The second run takes every score from the cache, and is charged what they cost."""
    first = nh.run("zero_cost_warmup(pool=10, proxy='synflow')", digits, 5)
    second = nh.run("zero_cost_warmup(pool=10, proxy='synflow')", digits, 5)
    assert first.fingerprint() == second.fingerprint()
    with ScoreCache(own_cache) as cache:
        cost = sum(blob_seconds for (blob_seconds,) in _seconds(cache))
    assert second.optimizer_seconds > 0.9 * cost > 0
    own = nh.run(
        "zero_cost_warmup(pool=10, proxy='params')", digits, 5
    ).optimizer_seconds  # next to nothing but overhead
    assert second.optimizer_seconds < 2 * cost + own + 1


def _seconds(cache):
    import struct

    for (blob,) in cache._connection.execute("SELECT numbers FROM scores"):
        yield struct.unpack_from("<d", blob)


# ------------------------------------------------------------------------------------- what once went wrong, or could


def test_gradients_are_on_whatever_the_caller_had_switched_off(digits):
    with torch.no_grad():
        inside = nh.score(["grad_norm", "synflow", "grasp", "gradsign", "zico"], digits, n=2, cache=False)
    outside = nh.score(["grad_norm", "synflow", "grasp", "gradsign", "zico"], digits, n=2, cache=False)
    for label in inside.proxies:
        assert inside.values[label].tolist() == outside.values[label].tolist()
        assert (inside.values[label] != 0).any()


def test_a_class_without_source_is_not_met_by_an_older_ones_scores(digits, own_cache):
    program = "class Mine(Proxy):\n    def score(self, network, images, labels):\n        return {}\n"
    found = []
    for value in (1.0, 2.0):
        names = {"Proxy": Proxy, "__name__": "nowhere"}
        exec(program.format(value), names)  # as typed into an interactive session
        found.append(nh.score(names["Mine"], digits, n=1).values["Mine"][0])
    assert found == [1.0, 2.0]


def test_classes_made_by_one_function_are_told_apart(digits, own_cache):
    def make(value):
        class Constant(Proxy):
            n_images = 0

            def score(self, network, images, labels):
                return value

        return Constant

    assert [nh.score(make(v), digits, n=1).values["Constant"][0] for v in (1.0, 2.0)] == [1.0, 2.0]


def test_an_edited_proxy_and_other_images_are_not_met_by_old_scores(digits, tmp_path):
    keys = set()
    for i, source in enumerate(("return 1.0", "return 2.0")):
        (tmp_path / "edited.py").write_text(
            "from nasharness import Proxy\nclass Edited(Proxy):\n"
            f"    def score(self, network, images, labels):\n        {source}\n"
        )
        rng = np.random.default_rng(i)
        arrays = {"x_train": rng.integers(0, 255, (70, 12, 12), dtype=np.uint8), "y_train": np.arange(70) % 10}
        np.savez(tmp_path / f"{i}.npz", **arrays, x_test=arrays["x_train"], y_test=arrays["y_train"])
        keys.add(Scoring(Recipe(digits)).key(proxy_spec(f"{tmp_path}/edited.py:Edited"), (0,) * 6))
        keys.add(Scoring(Recipe(digits, images=str(tmp_path / f"{i}.npz"))).key(proxy_spec("snip"), (0,) * 6))
    assert len(keys) == 4


@pytest.mark.parametrize("wrong", ["64", -1, 2.5, True])
def test_a_proxy_that_wants_no_number_of_images_is_named(digits, wrong):
    class Wants(Proxy):
        n_images = wrong

        def score(self, network, images, labels):
            return 0.0

    with pytest.raises(RegistryError, match="n_images of the proxy Wants"):
        nh.score(Wants, digits, n=1, cache=False)


def test_a_proxy_without_score_is_named(digits):
    class Forgot(Proxy):
        pass

    with pytest.raises(RegistryError, match="the proxy Forgot cannot be made: TypeError"):
        nh.score(Forgot, digits, n=1, cache=False)


@pytest.mark.parametrize("answer", [None, "12", True, torch.ones(2)])
def test_a_score_that_is_no_number_is_an_error(digits, answer):
    class Says(Proxy):
        n_images = 0

        def score(self, network, images, labels):
            return answer

    (message,) = nh.score(Says, digits, n=1, cache=False).errors["Says"].values()
    assert "a score is" in message


def test_numpy_settings_are_settings(digits):
    one = nh.score("params", digits, n=1, settings={"cells": np.int64(2)}, cache=False)
    assert one.values["params"] == nh.score("params", digits, n=1, settings={"cells": 2}, cache=False).values["params"]


def test_another_benchmark_class_has_its_own_scores(digits):
    import copy

    class Wider(type(digits)):
        def network(self, arch, **settings):
            return super().network(arch, **{**settings, "channels": 32})

    wider = copy.copy(digits)
    wider.__class__ = Wider
    spec = proxy_spec("params")
    assert Scoring(Recipe(digits)).key(spec, (3,) * 6) != Scoring(Recipe(wider)).key(spec, (3,) * 6)


def test_numpy_architectures_score_alike(digits):
    arch = (3, 0, 2, 1, 4, 3)
    scorer = BenchmarkScorer(digits)
    assert scorer("naswot", [arch], seed=0) == BenchmarkScorer(digits)("naswot", [tuple(np.array(arch))], seed=0)


def test_many_may_open_a_new_file_at_once(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def use(path):
        with ScoreCache(path) as cache:
            cache.keep({b"k" * 32: Known((1.0,), 0.0)})

    for i in range(10):
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(use, [tmp_path / f"{i}.sqlite"] * 6))
