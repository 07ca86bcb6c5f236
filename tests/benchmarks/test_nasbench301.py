"""`nasbench301-v1`: conversion of the models, what a search sees, what a report uses."""

import hashlib
import json
import math
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from nasharness.benchmarks.base import Final
from nasharness.benchmarks.columns import TableError, open_columns, write_columns
from nasharness.benchmarks.convert.nasbench301 import _DARTS, _natural, convert, verify
from nasharness.benchmarks.formats.errors import FormatError
from nasharness.benchmarks.formats.gin import build_gin, weight_shapes
from nasharness.benchmarks.nasbench301 import FEATURES, MAX_EPOCHS, NASBench301, load_surrogate, open_nasbench301
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.darts import DARTSSpace, count_cost
from nasharness.benchmarks.trees import TreeEnsemble, Trees, check_trees
from nasharness.harness.registry import load

SPACE = DARTSSpace()
MEMBERS = 3
GIN_CONFIG = {"model": "gnn_gin", "num_gnn_layers": 2, "gnn_hidden_dimensions": 4, "virtual_node": True}


def complete_trees(rng, base, scale, dtype, trees=5, depth=3):
    """Complete trees over the features that describe cells."""
    inner, size = 2**depth - 1, 2 ** (depth + 1) - 1
    node = np.arange(size)
    left = np.where(node < inner, 2 * node + 1, -1)
    right = np.where(node < inner, 2 * node + 2, -1)
    found = Trees(
        np.arange(trees + 1) * size,
        np.tile(left, trees).astype(np.int32),
        np.tile(right, trees).astype(np.int32),
        rng.choice([10, 11, 12, 13, *range(15, 21), *range(32, 56)], trees * size).astype(np.int32),
        rng.choice([0.5, 1.5, 2.5, 3.5], trees * size).astype(dtype),
        rng.normal(scale=scale, size=trees * size).astype(dtype),
        base,
        FEATURES,
    )
    return check_trees(found, "made up")


def gin_weights(rng):
    weights = {}
    for name, shape in weight_shapes(2, 4).items():
        values = rng.normal(scale=0.3, size=shape)
        weights[name] = (np.abs(values) + 0.5 if name.endswith("running_var") else values).astype(np.float32)
    return weights


def write_models(path, models=("xgb", "gnn_gin", "lgb_runtime"), base=91.0, scale=0.3):
    """A converted file of made-up models."""
    rng = np.random.default_rng(301)
    columns = {}
    if "xgb" in models:
        members = [complete_trees(rng, base, scale, np.float32) for _ in range(MEMBERS)]
        columns |= TreeEnsemble.build(members, "<").columns("xgb.")
    if "lgb_runtime" in models:
        members = [complete_trees(rng, 6000.0, 100.0, np.float64) for _ in range(MEMBERS)]
        columns |= TreeEnsemble.build(members, "<=").columns("lgb_runtime.")
    if "gnn_gin" in models:
        for member in range(MEMBERS):
            columns |= {f"gnn_gin.{member}.{name}": weight for name, weight in gin_weights(rng).items()}
    names = [str(k) for k in range(1, MEMBERS + 1)]
    described = {name: {"members": names, "model_config": GIN_CONFIG} for name in models}
    metadata = {"models": described, "version": "1.0", "features": FEATURES, "source_sha256": "ab"}
    write_columns(path, columns, kind="nasbench301", metadata=metadata)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models") / "nasbench301.safetensors")


@pytest.fixture(scope="module")
def benchmark_xgb(path):
    return open_nasbench301(path)


@pytest.fixture(scope="module")
def archs():
    rng = np.random.default_rng(0)
    return [SPACE.sample(rng) for _ in range(20)]


# The benchmark


@pytest.mark.parametrize(("model", "id"), [("xgb", "nasbench301-v1"), ("gin", "nasbench301-v1(model='gin')")])
def test_what_it_is(path, model, id):
    bench = open_nasbench301(path, model=model)
    assert bench.id == bench.info.id == id
    assert bench.space.name == "darts"
    assert bench.max_epochs == MAX_EPOCHS == 100
    assert bench.info.sha256 == open_columns(path).sha256
    assert "surrogate" in bench.info.caution
    assert "optimum is unknown" in bench.info.caution
    assert "version 1.0" in bench.info.source
    assert NASBench301(open_columns(path), model=model, id="mine").id == "mine"
    assert all(math.isnan(value) for value in bench.optimum)


@pytest.mark.parametrize("model", ["xgb", "gin"])
def test_a_search_sees_the_noisy_mean_of_the_members(path, model, archs):
    bench = open_nasbench301(path, model=model)
    members = bench.accuracy.predict(archs)
    runtimes = bench.runtime.predict(archs)
    assert members.shape == runtimes.shape == (MEMBERS, len(archs))
    close = {"rel": 0, "abs": 0} if model == "xgb" else {"rel": 1e-6}  # matrix products differ with their size
    for arch, column, runtime in zip(archs, members.T, runtimes.T, strict=True):
        quiet = bench.query(arch)
        mean, std = float(np.mean(column)), float(np.std(column))
        assert quiet.val_accuracy == pytest.approx(mean / 100, **close)
        assert quiet.seconds == np.mean(runtime)
        assert quiet.epochs == 100
        assert quiet.curve.shape == (0,)
        assert quiet.curve.dtype == np.float32
        assert not quiet.curve.flags.writeable
        noisy = bench.query(arch, 100, np.random.default_rng(7))
        draw = np.random.default_rng(7).standard_normal()
        assert noisy.val_accuracy == pytest.approx((mean + std * draw) / 100, **close)
        assert noisy.seconds == quiet.seconds
        assert bench.query(np.array(arch))[:3] == bench.query(list(arch))[:3] == quiet[:3]


def test_noise_has_the_members_spread(benchmark_xgb, archs):
    rng = np.random.default_rng(0)
    seen = [benchmark_xgb.query(archs[0], rng=rng).val_accuracy for _ in range(4000)]
    prediction = benchmark_xgb.predict(archs[:1])
    assert np.mean(seen) == pytest.approx(prediction.mean[0] / 100, abs=5 * prediction.std[0] / 100 / 4000**0.5)
    assert np.std(seen) == pytest.approx(prediction.std[0] / 100, rel=0.06)


@pytest.mark.parametrize("model", ["xgb", "gin"])
def test_many_queries_are_single_queries(path, model, archs):
    bench = open_nasbench301(path, model=model)
    for seed in (None, 3):
        rng = None if seed is None else np.random.default_rng(seed)
        many = bench.query_many(np.array(archs), rng=rng)
        rng = None if seed is None else np.random.default_rng(seed)
        single = [bench.query(arch, rng=rng) for arch in archs]
        tolerance = {"rel": 0, "abs": 0} if model == "xgb" else {"rel": 1e-6}  # matrix products differ with their size
        assert many.val_accuracy == pytest.approx([e.val_accuracy for e in single], **tolerance)
        assert many.seconds.tolist() == [e.seconds for e in single]
    empty = bench.query_many([])
    assert empty.val_accuracy.shape == empty.seconds.shape == (0,)


@pytest.mark.parametrize(("base", "end"), [(100.0, 1.0), (0.0, 0.0)])
def test_noise_never_leaves_the_unit_interval(tmp_path, base, end, archs):
    bench = open_nasbench301(write_models(tmp_path / "edge.safetensors", base=base, scale=5.0))
    rng = np.random.default_rng(0)
    seen = [bench.query(arch, rng=rng).val_accuracy for arch in archs for _ in range(20)]
    seen += bench.query_many(archs * 20, rng=rng).val_accuracy.tolist()
    seen += bench.final_many(archs).val_accuracy.tolist()
    assert all(0 <= value <= 1 for value in seen)
    assert end in seen
    assert any(0 < value < 1 for value in seen)


def test_finals(benchmark_xgb, archs):
    final = benchmark_xgb.final_many(archs)
    prediction = benchmark_xgb.predict(archs)
    assert final.val_accuracy.tolist() == (prediction.mean / 100).tolist()
    assert np.isnan(final.test_accuracy).all()
    assert final.seconds.tolist() == prediction.seconds.tolist()
    assert list(zip(final.params, final.flops, strict=True)) == [count_cost(arch) for arch in archs]
    one = benchmark_xgb.final(archs[0])
    assert isinstance(one, Final)
    assert (one.val_accuracy, one.params) == (final.val_accuracy[0], final.params[0])
    assert benchmark_xgb.metric("params", archs).tolist() == final.params.tolist()
    assert benchmark_xgb.final_many([]).params.shape == (0,)


def test_curves_know_the_last_epoch_only(benchmark_xgb, archs):
    curve = benchmark_xgb.curve(archs[0])
    final = benchmark_xgb.final(archs[0])
    assert all(field.shape == (100,) and field.dtype == np.float32 for field in curve)
    assert curve.val_accuracy[-1] == np.float32(final.val_accuracy)
    assert curve.seconds[-1] == np.float32(final.seconds)
    assert np.isnan(curve.val_accuracy[:-1]).all()
    assert np.isnan(curve.seconds[:-1]).all()
    assert all(np.isnan(field).all() for field in (curve.train_loss, curve.train_accuracy, curve.val_loss))
    with pytest.raises(ValueError, match="no training seeds"):
        benchmark_xgb.curve(archs[0], seed=0)


@pytest.mark.parametrize("epochs", [1, 99, 101, 0, -1, True, 50.5])
def test_there_is_no_shorter_schedule(benchmark_xgb, archs, epochs):
    for ask in (benchmark_xgb.query, lambda arch, e: benchmark_xgb.query_many([arch], e)):
        with pytest.raises(ValueError, match="no shorter schedule"):
            ask(archs[0], epochs)


def test_bad_architectures_are_refused(benchmark_xgb):
    for bad in ((0,) * 21, (7,) * 22, (0,) * 8 + (3,) + (0,) * 13, "Genotype()", (0.5,) * 22):
        with pytest.raises(InvalidArchitecture):
            benchmark_xgb.query(bad)
    with pytest.raises(InvalidArchitecture):
        benchmark_xgb.query_many([(7,) * 22])
    with pytest.raises(InvalidArchitecture):
        benchmark_xgb.final((7,) * 22)


def test_a_copy_in_another_process_answers_the_same(path, archs):
    for bench in (open_nasbench301(path, model="gin"), open_nasbench301(path, id="mine")):
        again = pickle.loads(pickle.dumps(bench))
        assert again.id == bench.id
        assert (
            again.query(archs[0], rng=np.random.default_rng(1))[:3]
            == bench.query(archs[0], rng=np.random.default_rng(1))[:3]
        )


@pytest.mark.parametrize("model", ["xgb", "gin"])
def test_worker_processes_load_the_same_model(path, model, archs):
    """Both models have the file's digest, so the path has to name the model: else workers would ask the other one."""
    bench = open_nasbench301(path, model=model)
    again = load(bench.info.details["path"])
    assert again.accuracy.name == bench.accuracy.name
    assert again.query(archs[0])[:3] == bench.query(archs[0])[:3]


def test_ids_name_the_model_once(path, tmp_path, monkeypatch):
    """By id and by path; and a copy keeps its id."""
    monkeypatch.setenv("NASHARNESS_DATA", str(tmp_path))
    shutil.copy(path, tmp_path / "nasbench301.safetensors")
    for name, expected in (
        ("nasbench301-v1", "nasbench301-v1"),
        ("nasbench301-v1(model='gin')", "nasbench301-v1(model='gin')"),
        (f"{path}(model='gin')", "nasbench301-v1(model='gin')"),
    ):
        bench = load(name)
        copy = pickle.loads(pickle.dumps(bench))
        assert bench.id == copy.id == bench.info.id == expected
        assert copy.info == bench.info


def test_the_network_is_the_one_that_is_counted(benchmark_xgb, archs):
    network = benchmark_xgb.network(archs[0])
    assert sum(p.numel() for p in network.parameters()) == benchmark_xgb.final(archs[0]).params


@pytest.mark.parametrize(
    ("models", "model", "missing"),
    [
        (("xgb", "gnn_gin"), "xgb", "lgb_runtime"),
        (("xgb", "lgb_runtime"), "gin", "gnn_gin"),
        (("gnn_gin", "lgb_runtime"), "xgb", "xgb"),
    ],
)
def test_a_missing_model_is_named(tmp_path, models, model, missing):
    path = write_models(tmp_path / "partial.safetensors", models)
    with pytest.raises(TableError, match=f"lacks the model {missing}"):
        open_nasbench301(path, model=model)


def test_files_of_other_forms_are_refused(path, tmp_path):
    with pytest.raises(ValueError, match="unknown model 'svr'"):
        open_nasbench301(path, model="svr")
    with pytest.raises(TableError, match="cannot read"):
        open_nasbench301(tmp_path / "nothing")
    columns = open_columns(path)
    other = tmp_path / "other.safetensors"
    for change in (
        {"models": 3},
        {"features": 55},
        {"models": {**columns.metadata["models"], "xgb": {"members": ["1"]}}},
        {"models": {**columns.metadata["models"], "xgb": {}}},
    ):
        write_columns(other, columns, kind="nasbench301", metadata={**columns.metadata, **change})
        with pytest.raises(TableError):
            open_nasbench301(other)
    less = {name: columns[name] for name in columns if name != "xgb.left"}
    write_columns(other, less, kind="nasbench301", metadata=columns.metadata)
    with pytest.raises(TableError, match="xgb.left"):
        open_nasbench301(other)
    write_columns(other, columns, kind="nats", metadata=columns.metadata)
    with pytest.raises(TableError, match="nats"):
        open_nasbench301(other)


def test_gin_members_are_their_networks(path, archs):
    columns = open_columns(path)
    surrogate = load_surrogate(columns, "gnn_gin")
    rng = np.random.default_rng(301)
    for dtype, base, scale in ((np.float32, 91.0, 0.3), (np.float64, 6000.0, 100.0)):
        for _ in range(MEMBERS):
            complete_trees(rng, base, scale, dtype)
    networks = [build_gin(gin_weights(rng), GIN_CONFIG, "made up") for _ in range(MEMBERS)]
    assert np.array_equal(surrogate.predict(archs), np.stack([network.predict(archs) for network in networks]))


# Conversion


@pytest.fixture(scope="module")
def models(shared_data):
    return shared_data / "official" / "nb_models_synth"


@pytest.fixture(scope="module")
def converted(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "nasbench301.safetensors"
    convert(models, path)
    return path


@pytest.fixture(scope="module")
def official(shared_data):
    read = lambda name: json.loads((shared_data / "official" / name).read_text())  # noqa: E731
    return read("nb301_synth_predictions.json"), read("nb301_genotype_vectors.json")["cases"]


def test_converted_models_predict_the_official_members(converted, official):
    predictions, cases = official
    archs = [SPACE.from_configspace(case["config"]) for case in cases]
    bench = open_nasbench301(converted)
    order = [name.removeprefix("xgb_v0.9/") for name in predictions["xgb_member_order"]]
    places = [bench.accuracy.members.index(name) for name in order]
    members = bench.accuracy.predict(archs)[places]
    assert members.T.tolist() == [p["members"] for p in predictions["predictions"]]
    final = bench.final_many(archs)
    assert final.val_accuracy == pytest.approx([p["mean"] / 100 for p in predictions["predictions"]], rel=1e-6)
    assert final.seconds == pytest.approx([p["runtime_mean"] for p in predictions["predictions"]], rel=1e-14)
    assert bench.predict(archs).std == pytest.approx([p["std"] for p in predictions["predictions"]], rel=1e-4)


def test_members_are_in_the_order_of_their_numbers(converted):
    described = open_columns(converted).metadata["models"]
    for name in ("xgb", "lgb_runtime"):
        assert [member.split("/")[0] for member in described[name]["members"]] == [str(k) for k in range(1, 11)]
        assert described[name]["data_config"]["seed"] == 1
    assert described["xgb"]["model_config"]["model"] == "xgb"
    assert sorted(["10/a", "2/b", "1/c", "2/a10", "2/a9"], key=_natural) == ["1/c", "2/a9", "2/a10", "2/b", "10/a"]


def test_what_is_recorded(converted, models):
    metadata = open_columns(converted).metadata
    assert metadata["version"] == "0.9"
    assert metadata["missing"] == ["gnn_gin"]
    lines = []
    for folder in ("xgb_v0.9", "lgb_runtime_v0.9"):
        files = sorted((models / folder).rglob("surrogate_model.model"))
        first = next(path for path in files if path.relative_to(models / folder).parts[0] == "1").parent
        files += [first / "model_config.json", first / "data_config.json"]
        lines += [f"{f.relative_to(models).as_posix()} {hashlib.sha256(f.read_bytes()).hexdigest()}\n" for f in files]
    assert metadata["source_sha256"] == hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def test_jobs_and_progress_do_not_change_the_file(converted, models, tmp_path):
    seen = []
    convert(models, tmp_path / "a", jobs=3, progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "a").read_bytes() == converted.read_bytes()
    assert len(seen) == 20
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] == sum(path.stat().st_size for path in models.rglob("surrogate_model.model"))
    with pytest.raises(ValueError, match="at least 1"):
        convert(models, tmp_path / "b", jobs=0)


def test_facts_of_a_converted_file(converted, path, tmp_path):
    facts = list(verify(open_columns(converted)))
    assert [fact for fact, holds in facts if not holds] == ["gnn_gin is there"]
    assert any("10 of 10" in fact for fact, _ in facts)
    made_up = dict(verify(open_columns(path)))
    assert made_up["xgb has 3 of 10 members"] is False
    assert made_up["xgb is sound"] is made_up["gnn_gin is sound"] is True
    columns = open_columns(path)
    changed = columns["xgb.left"].copy()
    changed[0] = 0
    other = tmp_path / "other"
    write_columns(other, {**columns, "xgb.left": changed}, kind="nasbench301", metadata=columns.metadata)
    failed = [fact for fact, holds in verify(open_columns(other)) if not holds]
    assert any("xgb is sound: the arrays" in fact for fact in failed)


def test_the_published_cells_are_the_published_ones(official):
    _, cases = official
    known = {case["name"]: SPACE.from_configspace(case["config"]) for case in cases}
    first, second = (SPACE.from_genotype(genotype) for genotype in _DARTS.values())
    assert first == known["DARTS_V1"]
    assert second == known["readme_example (=DARTS second order, DARTS_V2)"]


def folder_of(models, tmp_path, *names):
    """A copy of some of the models with two members each."""
    root = tmp_path / "nb_models"
    for name in names:
        for member in ("1", "2"):
            shutil.copytree(models / name / member, root / name / member)
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


def first_file(root, name):
    (path,) = (root / name / "1").rglob("surrogate_model.model")
    return path


def test_a_folder_around_the_models_will_do(models, tmp_path):
    root = folder_of(models, tmp_path, "xgb_v0.9")
    (root / "readme.txt").write_text("not a model")
    convert(tmp_path, tmp_path / "a")
    convert(root, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert open_columns(tmp_path / "a").metadata["missing"] == ["gnn_gin", "lgb_runtime"]
    assert open_columns(tmp_path / "a").metadata["source"] == "nb_models"


def test_gin_models_are_converted(models, shared_data, tmp_path, archs):
    root = folder_of(models, tmp_path, "lgb_runtime_v0.9")
    config = json.loads((shared_data / "official" / "nb301_gin_synth.json").read_text())["model_config"]
    for member in ("1", "2"):
        folder = root / "gnn_gin_v0.9" / member / "gnn_gin" / f"20200910-200749-{member}"
        folder.mkdir(parents=True)
        shutil.copy(shared_data / "official" / "nb301_gin_synth_state.pt", folder / "surrogate_model.model")
        (folder / "model_config.json").write_text(json.dumps(config))
        (folder / "data_config.json").write_text('{"seed": 1}')
    convert(root, tmp_path / "file")
    bench = open_nasbench301(tmp_path / "file", model="gin")
    assert len(bench.accuracy.members) == 2
    vectors = json.loads((shared_data / "official" / "nb301_gin_synth.json").read_text())["cases"]
    genotypes = json.loads((shared_data / "official" / "nb301_genotype_vectors.json").read_text())["cases"]
    configs = {case["name"]: case["config"] for case in genotypes}
    for case in vectors[:8]:
        evaluation = bench.query(SPACE.from_configspace(configs[case["name"]]))
        assert evaluation.val_accuracy == pytest.approx(case["prediction"][0] / 100, rel=1e-5)


def break_type(root):
    first_file(root, "xgb_v0.9").with_name("model_config.json").write_text('{"model": "svr"}')


def break_json(root):
    first_file(root, "xgb_v0.9").with_name("data_config.json").write_text("{")


def break_list(root):
    first_file(root, "xgb_v0.9").with_name("data_config.json").write_text("[]")


def break_seed(root):
    first_file(root, "xgb_v0.9").with_name("data_config.json").write_text("{}")


def break_config(root):
    first_file(root, "xgb_v0.9").with_name("model_config.json").unlink()


def break_model(root):
    path = first_file(root, "xgb_v0.9")
    path.write_bytes(path.read_bytes()[:1000])


def break_version(root):
    (root / "lgb_runtime_v0.9").rename(root / "lgb_runtime_v1.0")


def break_twice(root):
    shutil.copytree(root / "xgb_v0.9", root / "xgb_v1.0")


def break_accuracy(root):
    shutil.rmtree(root / "xgb_v0.9")


def break_members(root):
    for path in (root / "xgb_v0.9").rglob("surrogate_model.model"):
        path.unlink()


def break_kind(root):
    shutil.copy(first_file(root, "lgb_runtime_v0.9"), first_file(root, "xgb_v0.9"))


@pytest.mark.parametrize(
    ("destroy", "message"),
    [
        (break_type, "'svr'"),
        (break_json, "no JSON"),
        (break_list, "JSON object"),
        (break_seed, "no 'seed'"),
        (break_config, "missing"),
        (break_model, "cut off"),
        (break_version, "different versions"),
        (break_twice, "several xgb"),
        (break_accuracy, "no folder named xgb"),
        (break_members, "holds no surrogate_model.model"),
        (break_kind, "lightgbm.basic.Booster"),
    ],
)
def test_damaged_folders_are_refused(models, tmp_path, destroy, message):
    root = folder_of(models, tmp_path, "xgb_v0.9", "lgb_runtime_v0.9")
    destroy(root)
    for jobs in (1, 2):
        with pytest.raises(FormatError, match=message):
            convert(root, tmp_path / "out" / "file", jobs=jobs)
        assert not Path(tmp_path / "out").exists()


def test_other_places_are_refused(models, tmp_path):
    with pytest.raises(FormatError, match="no folder"):
        convert(tmp_path / "nothing", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="no folder named xgb"):
        convert(tmp_path / "empty", tmp_path / "file")
    for name in ("a", "b"):
        folder_of(models, tmp_path / "two" / name, "xgb_v0.9")
        (tmp_path / "two" / name / "nb_models").rename(tmp_path / "two" / f"models_{name}")
    with pytest.raises(FormatError, match="several sets"):
        convert(tmp_path / "two", tmp_path / "file")
