"""What is installed, and what importing it costs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nasharness

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def python(program, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, check=True, cwd="/"
    ).stdout


def test_every_package_is_listed():
    """The explicit package list equals the folders that hold an __init__.py."""
    folders = {
        p.parent
        for top in ("harness", "optimizers", "proxies", "predictors", "benchmarks")
        for p in (ROOT / top).rglob("__init__.py")
    }
    expected = {
        "nasharness" if f.name == "_root" else "nasharness." + ".".join(f.relative_to(ROOT).parts) for f in folders
    }
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == expected


def test_public_names_are_there():
    """Every name in __all__ can be imported, has a docstring, and is found by dir()."""
    for name in nasharness.__all__:
        found = getattr(nasharness, name)
        assert name == "Architecture" or found.__doc__
        assert name in dir(nasharness)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        nasharness.nonsense  # noqa: B018


def test_every_dependency_gives_its_reason():
    """Each run-time dependency in pyproject.toml has a comment and an upper bound."""
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for dependency in PYPROJECT["project"]["dependencies"]:
        line = next(text for text in lines if f'"{dependency}"' in text)
        assert "#" in line
        assert "<" in dependency


@pytest.mark.parametrize(
    "program",
    [
        "import nasharness",
        "import nasharness as nh; nh.run('random_search', 'digits201', nh.Budget(evaluations=5))",
        "import nasharness as nh; nh.compare(['random_search'], budget=nh.Budget(evaluations=5), repetitions=2).summary()",
        "import nasharness.harness.cli",
        "import nasharness as nh; nh.check",
    ],
)
def test_torch_is_not_imported(program):
    """Neither the package nor a tabular study loads torch, scikit-learn or matplotlib."""
    heavy = python(f"{program}\nimport sys; print(sorted({{'torch', 'sklearn', 'matplotlib'}} & set(sys.modules)))")
    assert heavy.strip().splitlines()[-1] == "[]"


def test_modules_import_alone():
    """Every module can be the first that is imported: there are no import cycles that hide behind an order."""
    names = sorted(
        "nasharness." + ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for top in ("harness", "optimizers", "proxies", "predictors", "benchmarks")
        for p in (ROOT / top).rglob("*.py")
        if p.name not in ("__init__.py", "__main__.py")
    )
    light = [n for n in names if "torch" not in (ROOT / (n.split(".", 1)[1].replace(".", "/") + ".py")).read_text()]
    assert len(light) > 10
    program = (
        "import importlib, sys\n"
        f"for name in {light!r}:\n"
        "    for loaded in [m for m in sys.modules if m.startswith('nasharness')]:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n"
    )
    python(program)


def test_licence_and_typing_travel_with_the_package():
    """The installed distribution carries its licence and its type information."""
    program = "from importlib import metadata; print(*metadata.files('nasharness'), sep='\\n')"
    files = set(python(program).splitlines())  # in a process that does not see the repository
    if not any("benchmarks/" in f for f in files):
        pytest.skip("an editable install lists no files; `make test` installs the wheel")
    assert "nasharness/py.typed" in files
    assert any(f.endswith("LICENSE") for f in files)
    assert "nasharness/benchmarks/data/digits201-v1.safetensors" in files
    assert {f.split("/")[0] for f in files if ".dist-info" not in f and not f.startswith("..")} == {"nasharness"}
