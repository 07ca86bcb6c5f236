"""From ids to things."""

import textwrap

import pandas as pd
import pytest

from nasharness import Benchmark, load
from nasharness.benchmarks.columns import TableError
from nasharness.benchmarks.imported import import_table, load_space
from nasharness.harness.registry import OptimizerSpec, RegistryError, entry_points, optimizer_spec, resolve, split_ids
from nasharness.harness.study import Study, compare
from nasharness.optimizers.random_search import RandomSearch
from nasharness.optimizers.regularized_evolution import RegularizedEvolution


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module in the current folder."""

    def write(text, name="usermodule"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
        return name

    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    return write


def test_close_matches_are_offered():
    """A misspelt id is answered with what it may have meant."""
    with pytest.raises(
        RegistryError, match="unknown optimizer 'regularised_evolution': did you mean regularized_evolution"
    ):
        resolve("optimizers", "regularised_evolution")


def test_unknown_ids_list_what_there_is():
    """Nothing close: the message lists what is known."""
    with pytest.raises(RegistryError, match=r"unknown benchmark 'zzz': known: digits201-v1"):
        load("zzz")


def test_an_id_without_version_is_the_newest():
    """`digits201` opens `digits201-v1`."""
    assert load("digits201").id == "digits201-v1"
    assert isinstance(load("digits201-v1"), Benchmark)


def test_every_entry_point_loads():
    """What is registered can be imported and is of its kind."""
    for name in entry_points("optimizers"):
        assert optimizer_spec(name).label == name
    for name in entry_points("benchmarks"):
        if name.startswith("digits"):
            assert load(name).id == name
        else:  # an official file that nobody can ship
            with pytest.raises(TableError, match=r"not converted yet.*nasharness data fetch"):
                load(name)


@pytest.mark.parametrize(
    ("text", "label", "parameters"),
    [
        ("random_search", "random_search", {}),
        ("regularized_evolution@nats", "regularized_evolution@nats", {"population": 10, "sample": 3}),
        (
            "regularized_evolution( sample = 5,population=50 )",
            "regularized_evolution(population=50, sample=5)",
            {"population": 50, "sample": 5},
        ),
        (
            "regularized_evolution@nats(sample=4)",
            "regularized_evolution@nats(sample=4)",
            {"population": 10, "sample": 4},
        ),
    ],
)
def test_optimizer_ids(text, label, parameters):
    """Presets and explicit values; the label does not depend on how it was typed."""
    spec = optimizer_spec(text)
    assert (spec.label, dict(spec.parameters)) == (label, parameters)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("regularized_evolution@big", "has no preset 'big'; it has: nats"),
        ("random_search@nats", "it has: none"),
        ("regularized_evolution(size=3)", "its hyper-parameters are: population, sample"),
        ("regularized_evolution(3)", "given by name"),
        ("regularized_evolution(sample=)", "cannot read the hyper-parameters"),
        ("regularized_evolution(sample=__import__('os'))", "cannot read the hyper-parameters"),
        ("regularized_evolution(population={1, 2})", "a set has no order"),
        ("regularized_evolution(population=5)+(3)", "cannot read the"),
        ("regularized_evolution(population=5)(sample=2)", "one pair of parentheses"),
        ("regularized evolution", "cannot read the optimizer"),
        ("", "cannot read the optimizer"),
        ("no_such_module_here:Thing", "no such module"),
        ("nasharness.optimizers.random_search:RandomSearhc", "did you mean 'RandomSearch'"),
        ("nasharness.optimizers.base:SearchFinished", "not a subclass of nasharness.Optimizer"),
    ],
)
def test_bad_optimizer_ids(text, message):
    """Each mistake gets its own answer."""
    with pytest.raises(RegistryError, match=message):
        optimizer_spec(text)


def test_a_class_of_the_users(module):
    """`module:Class` is found in the current folder."""
    name = module(
        """
        from nasharness.optimizers.random_search import RandomSearch
        class Mine(RandomSearch):
            pass
        """
    )
    assert issubclass(optimizer_spec(f"{name}:Mine").factory, RandomSearch)


def test_a_module_that_does_not_import(module):
    """The user's own error is passed on, with its type."""
    name = module("1 / 0", "brokenmodule")
    with pytest.raises(RegistryError, match=r"importing 'brokenmodule'.*ZeroDivisionError"):
        optimizer_spec(f"{name}:Mine")


def test_a_module_that_misses_another(module):
    """A missing dependency of the user's module is not mistaken for a missing module."""
    name = module("import not_installed_anywhere", "needymodule")
    with pytest.raises(RegistryError, match="No module named 'not_installed_anywhere'"):
        optimizer_spec(f"{name}:Mine")


def test_classes_are_accepted():
    """A class needs no id."""
    assert optimizer_spec(type("Mine", (RegularizedEvolution,), {})).label == "Mine"
    with pytest.raises(RegistryError, match="not a subclass"):
        optimizer_spec(dict)


def test_a_registered_class_goes_by_its_registered_name():
    """However it is given, so that it is seeded and reported alike."""
    target = "nasharness.optimizers.regularized_evolution:RegularizedEvolution"
    assert optimizer_spec(RegularizedEvolution).label == "regularized_evolution"
    assert optimizer_spec(f"{target}(sample=3)").label == "regularized_evolution(sample=3)"


def test_a_mutable_parameter_is_not_shared():
    """Every run gets its own copy of what the id says."""
    made = []

    class Keeps(RandomSearch):
        def __init__(self, space, rng, *, widths=()):
            super().__init__(space, rng)
            made.append(widths)

    spec = OptimizerSpec("keeps", Keeps, {"widths": [1]})
    for _ in range(2):
        spec.make(None, None)
        made[-1].append(2)
    assert made == [[1, 2], [1, 2]]


def test_split_ids():
    """Commas inside parentheses do not separate ids."""
    assert split_ids("a,b(x=1, y=(2, 3)) ,c@p,") == ["a", "b(x=1, y=(2, 3))", "c@p"]
    assert split_ids("a(s='x),y'),b(s=\"(\"),c") == ["a(s='x),y')", 'b(s="(")', "c"]


def test_a_benchmark_must_be_one():
    """`load` refuses what is not a benchmark."""
    with pytest.raises(RegistryError, match="not a nasharness.Benchmark"):
        load("builtins:dict")
    with pytest.raises(RegistryError, match="a benchmark is a Benchmark or a function"):
        load("math:pi")


PARAMETERS = """
    import nasharness as nh

    class Mine(type(nh.load("digits201"))):
        def __init__(self, depth):
            other = nh.load("digits201")
            self.__dict__.update(other.__dict__)
            self.depth = depth

    def make(depth=2):
        return Mine(depth)
"""


def test_a_benchmark_takes_parameters(module):
    """They reach the function, and the id says them: another protocol is another benchmark."""
    name = module(PARAMETERS, "parametersmodule")
    plain, deep = load(f"{name}:make"), load(f"{name}:make(depth=5)")
    assert (plain.depth, plain.id) == (2, "digits201-v1")
    assert (deep.depth, deep.id, deep.info.id) == (5, "digits201-v1(depth=5)", "digits201-v1(depth=5)")
    with pytest.raises(RegistryError, match=r"unexpected keyword argument 'width'; its parameters are: depth"):
        load(f"{name}:make(width=5)")
    with pytest.raises(RegistryError, match="cannot read the benchmark"):
        load("digits201@preset")


def test_an_id_with_a_dataset_finds_its_newest_version():
    """`nasbench201/cifar10` means `nasbench201-v1/cifar10`, here without its file."""
    assert resolve("benchmarks", "nasbench201/cifar10") is resolve("benchmarks", "nasbench201-v1/cifar10")
    with pytest.raises(RegistryError, match="did you mean nasbench201-v1/cifar100? or nasbench201-v1/cifar10"):
        resolve("benchmarks", "nasbench201/cifar")


def test_metrics_do_not_change_the_users_own_object(module, tmp_path):
    """A benchmark that a module holds ready is copied before something is attached to it."""
    metrics = tmp_path / "ms.safetensors"
    frame = pd.DataFrame({"architecture": range(3), "ms": [1.0, 2, 3]})
    frame.to_csv(tmp_path / "ms.csv", index=False)
    import_table(load_space("nasbench201"), tmp_path / "ms.csv", metrics, name="ms", metrics_only=True)
    name = module("import nasharness as nh; ready = nh.load('digits201')", "readymodule")
    for _ in range(2):
        found = load(f"{name}:ready(metrics={str(metrics)!r})")
        assert found.metric("ms", [found.space.from_index(1)]).tolist() == [2]
    plain = load(f"{name}:ready")
    assert (plain.id, plain.metrics) == ("digits201-v1", ("params", "flops"))
    with pytest.raises(TableError, match=r"attach it to one with \(metrics='ms'\)"):
        load(str(metrics))


def test_a_study_of_an_opened_benchmark_is_opened_again(module, tmp_path):
    """Its record says how to open the same benchmark, parameters included."""
    name = module(PARAMETERS, "againmodule")
    opened = load(f"{name}:make(depth=5)")
    compare("random_search", opened, 5, repetitions=1, out=tmp_path / "study")
    again = Study.open(tmp_path / "study")
    assert (again.benchmark.id, again.benchmark.depth) == (opened.id, 5)
    assert again.summary().rows[0].repetitions == 1
