"""From the id that a user types to the thing it names.

Ours and everybody else's are registered the same way, by entry points in the groups `nasharness.benchmarks`, `.optimizers`,
`.proxies` and `.predictors`; nothing is imported before it is used. Wherever an id is accepted, so is
`package.module:Name`.

An optimizer may carry hyper-parameters:

    regularized_evolution
    regularized_evolution@nats                       a preset of the class
    regularized_evolution(population=50, sample=5)   explicit values
    my_package.my_module:MyOptimizer(depth=3)
    optuna:TPESampler                                any sampler of an installed Optuna
    nevergrad:OnePlusOne                             any optimizer of an installed Nevergrad
    random_search+nu_svr(delta=0.01)                 with a rule that ends trainings early

and a benchmark parameters of its protocol:

    nasbench201-v1/cifar10(schedule=200)
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..benchmarks.base import Benchmark
    from ..benchmarks.spaces.base import SearchSpace
    from ..optimizers.base import Optimizer, Scorer, SupernetTask
    from ..predictors.base import Curves, Predictor, Schedule, StoppingRule
    from ..proxies.base import Proxy

Group = Literal["benchmarks", "optimizers", "proxies", "predictors"]
GROUPS: tuple[Group, ...] = ("benchmarks", "optimizers", "proxies", "predictors")


class RegistryError(ValueError):
    """An id that names nothing, or something of the wrong kind; the message says what to type instead."""


@functools.cache
def entry_points(group: Group) -> Mapping[str, metadata.EntryPoint]:
    """The registered names of a group, sorted.

    Raises:
        RegistryError: two packages register one name for different things.
    """
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=f"nasharness.{group}"):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise RegistryError(
                f"two installed packages register the {_singular(group)} {point.name!r}: {other.value} and {point.value};"
                " uninstall one of them"
            )
    return dict(sorted(found.items()))


def resolve(group: Group, name: str) -> Any:
    """The object registered under `name`, or found at `package.module:Name`.

    Raises:
        RegistryError: there is none, or importing it failed.
    """
    if ":" in name:
        return _import(name)
    points = entry_points(group)
    if name in points:
        return _load_point(points[name])
    first, slash, rest = name.partition("/")
    versioned = re.compile(re.escape(first) + r"-v(\d+)" + re.escape(slash + rest))
    versions = {int(match[1]): known for known in points if (match := versioned.fullmatch(known))}
    if versions:  # "digits201" is the newest "digits201-vN", "nasbench201/cifar10" the newest "nasbench201-vN/cifar10"
        return _load_point(points[versions[max(versions)]])
    close = difflib.get_close_matches(name, points, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(points) or 'none installed'}."
    own = "'package.module:function' or a .safetensors file" if group == "benchmarks" else "'package.module:Class'"
    raise RegistryError(f"unknown {_singular(group)} {name!r}: {hint} One of your own is {own}.")


def importable(group: Group, target: str, factory: object) -> bool:
    """Whether another process finds this very class at `package.module:Name`."""
    try:
        return resolve(group, target) is factory
    except RegistryError:
        return False


def _load_point(point: metadata.EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise RegistryError(
            f"loading {point.name!r} ({point.value}) failed: {type(error).__name__}: {error}"
        ) from error


def describe(point: metadata.EntryPoint) -> tuple[str, str]:
    """Title and citation of what is registered, without importing it: the first two paragraphs of its file's head.

    Either is empty where there is none. (A strategy may need torch, which takes seconds to import.)
    """
    try:
        spec = importlib.util.find_spec(point.module)
        head = (
            ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) if spec and spec.origin else ""
        )
    except (ImportError, OSError, SyntaxError, ValueError):
        head = ""
    paragraphs = [" ".join(paragraph.split()) for paragraph in (head or "").split("\n\n")]
    title, second = [*paragraphs, "", ""][:2]
    return title, second if re.search(r"\b(19|20)\d\d\b", second) else ""


def _singular(group: Group) -> str:
    return {"proxies": "proxy"}.get(group, group[:-1])


def _import(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if module_name.endswith(".py"):  # path/to/file.py:Class
        here, module_name = str(Path(module_name).resolve().parent), Path(module_name).stem
    if here not in sys.path:  # a console script does not have the current folder on its path, `python -m` does
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.split(".")[0] == error.name.split(".")[0]:
            raise RegistryError(
                f"cannot import {module_name!r} for {name!r}: there is no such module in {here}"
                " or among the installed packages"
            ) from error
        raise RegistryError(f"importing {module_name!r} for {name!r} failed: {error}") from error
    except Exception as error:
        raise RegistryError(
            f"importing {module_name!r} for {name!r} failed: {type(error).__name__}: {error}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            raise RegistryError(f"{module_name!r} has no {part!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        found = getattr(found, part)
    return found


_SPEC = re.compile(r"(?P<target>[^@()\s]+)(?:@(?P<preset>\w+))?\s*(?:\((?P<parameters>.*)\))?", re.DOTALL)

# A path may hold anything, so only what follows the suffix can be parameters.
_FILE_SPEC = re.compile(r"(?P<target>.*?\.safetensors)(?P<preset>)\s*(?:\((?P<parameters>.*)\))?\s*", re.DOTALL)


def load(name: str) -> Benchmark:
    """Open a benchmark: `load("digits201")`, `load("nasbench201/cifar10(schedule=200)")`.

    Args:
        name: an id; the newest version where the id names none; the name of a table in the data folder; a `.safetensors`
            file; or `package.module:Name` of a Benchmark or of a function that returns one. Parameters of the protocol follow
            in parentheses. Every benchmark also takes `metrics='name'`, which adds the metrics of an imported table, and
            `images='path'`, which gives it images to score networks with (see `benchmarks.datasets.open_images`).

    Raises:
        RegistryError: unknown id, not a benchmark, or parameters that it does not take.
        TableError: a file that is missing, damaged or foreign.
    """
    from ..benchmarks.base import Benchmark

    match = _FILE_SPEC.fullmatch(name)
    is_file = match is not None
    match = match or _SPEC.fullmatch(name.strip())
    if match is None or match["preset"]:
        raise RegistryError(f"cannot read the benchmark {name!r}: write name or name(parameter=value)")
    target = match["target"]
    parameters = _keywords(match["parameters"], target) if match["parameters"] else {}
    attached, images = parameters.pop("metrics", None), parameters.pop("images", None)
    if is_file:
        from ..benchmarks.opening import open_file

        opened: Any = functools.partial(open_file, Path(target))
    else:
        opened = _benchmark_factory(target)
    # A ready object is copied: what follows must not change the user's own.
    ready = isinstance(opened, Benchmark) and not parameters
    opened = copy.copy(opened) if ready else _call(opened, target, parameters)
    if not isinstance(opened, Benchmark):
        raise RegistryError(f"{target!r} gave a {type(opened).__name__}, not a nasharness.Benchmark")
    if attached is not None:
        from ..benchmarks.catalogue import find
        from ..benchmarks.imported import open_metrics

        if not isinstance(attached, str):
            raise RegistryError(f"{target}: metrics is the name of an imported table, not {attached!r}")
        opened.attach(open_metrics(Path(attached) if attached.endswith(".safetensors") else find(attached)))
        parameters["metrics"] = attached
    if images is not None:
        from ..benchmarks.datasets import open_images

        if not isinstance(images, str):
            raise RegistryError(f"{target}: images is a file, a folder or the name of an embedded task, not {images!r}")
        opened.attach_images(open_images(images))
        parameters["images"] = images
    if parameters:  # another protocol is another benchmark: its runs must not be mixed with those of the plain one
        given = f"({', '.join(f'{k}={v!r}' for k, v in sorted(parameters.items()))})"
        opened.id += given
        again = f"{Path(target).resolve() if is_file else target}{given}"
        opened.info = dataclasses.replace(opened.info, id=opened.id, details={**opened.info.details, "path": again})
    return opened


@functools.lru_cache(maxsize=4)
def load_once(benchmark: str) -> Benchmark:
    """`load`, with the last few kept open: for a worker process that is asked about the same one again and again."""
    return load(benchmark)


def portable(benchmark: Benchmark, source: str) -> str | Benchmark:
    """What a worker can load the same benchmark by, else the benchmark itself."""
    try:
        other = load_once(source)
    except (RegistryError, OSError, ValueError):
        return benchmark
    # Of a subclass that answers in its own way, or of another protocol, id and sha256 may be those of this one.
    same = type(other) is type(benchmark) and (other.id, other.info) == (benchmark.id, benchmark.info)
    same &= (other.metrics, other._image_source) == (benchmark.metrics, benchmark._image_source)
    return source if same else benchmark


def _benchmark_factory(target: str) -> Any:
    """What is registered or lies in the data folder under a name."""
    try:
        return resolve("benchmarks", target)
    except RegistryError:
        if ":" in target:
            raise
        from ..benchmarks.library import installed
        from ..benchmarks.opening import open_file

        here = installed()
        if target not in here:
            raise
        return functools.partial(open_file, here[target])


def _call(factory: Any, target: str, parameters: Mapping[str, Any]) -> Any:
    if not callable(factory):
        raise RegistryError(
            f"{target!r} is a {type(factory).__name__}; a benchmark is a Benchmark or a function that returns one"
        )
    try:
        signature = inspect.signature(factory)
    except ValueError:  # a builtin: it finds out when it is called
        signature = inspect.Signature([inspect.Parameter("parameters", inspect.Parameter.VAR_KEYWORD)])
    try:
        signature.bind(**parameters)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "none"
        raise RegistryError(f"{target}: {error}; its parameters are: {takes}") from error
    try:
        return factory(**parameters)
    except Exception as error:
        if isinstance(error, ValueError):  # such as a TableError: it says what is wrong
            raise
        raise RegistryError(f"{target!r} raised {type(error).__name__}: {error}") from error


def source_sha256(factory: type) -> str:
    """Digest of the files that define the class and its bases, so that results of edited code are not mixed with this code's.

    Of a class from an interactive session it is the class's own source, where Python still knows it.
    """
    digest = hashlib.sha256()
    try:
        files = {inspect.getfile(c) for c in factory.__mro__ if c.__module__ not in ("builtins", "abc")}
        for file in sorted(files, key=lambda f: Path(f).name):
            digest.update(Path(file).read_bytes())
    except (OSError, TypeError):
        try:
            digest.update(inspect.getsource(factory).encode())
        except (OSError, TypeError):
            return "unknown"
    return digest.hexdigest()


@dataclass(frozen=True)
class Spec:
    """A class with its hyper-parameters, before it is made.

    Attributes:
        label: how the user named it; it seeds the runs and heads the reports.
        factory: the class.
        parameters: keyword arguments beyond those that every class of the group takes.
    """

    label: str
    factory: Any
    parameters: Mapping[str, Any]

    def takes(self, parameter: str) -> bool:
        """Whether the constructor has a parameter of this name, or hands on what it does not know to a base class that has."""
        for base in self.factory.__mro__ if isinstance(self.factory, type) else (self.factory,):
            known = _signature(base).parameters
            if parameter in known:
                return True
            if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
                return False
        return False

    def source_sha256(self) -> str:
        """Digest of the code, see the function of this name."""
        return source_sha256(self.factory)

    def _fresh(self) -> dict[str, Any]:
        return copy.deepcopy(dict(self.parameters))  # a run may change a list that it was given


_signature = functools.cache(inspect.signature)


@dataclass(frozen=True)
class OptimizerSpec(Spec):
    """An optimizer with its hyper-parameters, before it meets a space and a generator.

    Attributes:
        stop: what ends its trainings early; None to train as long as it asks for.
    """

    factory: type[Optimizer]
    stop: StoppingSpec | None = None

    @property
    def seeded_by(self) -> str:
        """The label without the stopping rule: with it and without, the same repetition draws the same chance."""
        return self.label if self.stop is None else self.label.removesuffix(f"+{self.stop.label}")

    def with_stop(self, rule: str | type | StoppingSpec) -> OptimizerSpec:
        """The same optimizer with its trainings ended by a rule.

        Raises:
            RegistryError: it has a rule already, or the rule is none for single trainings.
        """
        spec = stopping_spec(rule)
        if self.stop is not None:
            raise RegistryError(f"{self.label} already has a stopping rule")
        if not spec.is_rule:
            raise RegistryError(
                f"{spec.label} is a plan for a whole list of trainings and cannot end those of a search; compare it with"
                " `nasharness stop`"
            )
        return dataclasses.replace(self, label=f"{self.label}+{spec.label}", stop=spec)

    def make(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        fidelities: Sequence[int] | None = None,
        scorer: Scorer | None = None,
        task: SupernetTask | None = None,
    ) -> Optimizer:
        """A fresh optimizer. One that takes `fidelities`, a `scorer` or a `task` gets those given here, unless it has others.

        The optimizer that another one wraps gets them, too.
        """
        parameters = self._fresh()
        for name, value in (("fidelities", fidelities), ("scorer", scorer), ("task", task)):
            if value is not None and super().takes(name):
                parameters.setdefault(name, value)
        if self.wrapped is not None:
            parameters[self.wrapped[0]] = functools.partial(self.wrapped[1].make, fidelities=fidelities, scorer=scorer)
        return self.factory(space, rng, **parameters)

    def takes(self, parameter: str) -> bool:
        """Whether the constructor, or that of the optimizer that it wraps, has a parameter of this name."""
        return super().takes(parameter) or (self.wrapped is not None and self.wrapped[1].takes(parameter))

    def source_sha256(self) -> str:
        digests = [super().source_sha256()]
        digests += [] if self.wrapped is None else [self.wrapped[1].source_sha256()]
        digests += [] if self.stop is None else [self.stop.source_sha256()]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    @functools.cached_property
    def wrapped(self) -> tuple[str, OptimizerSpec] | None:
        """The hyper-parameter that names another optimizer, and that optimizer; None if none is named.

        A class says which one it is by its attribute `wraps`: `proxy_filter(base='bohb')` wraps what its `base` names.
        """
        name = getattr(self.factory, "wraps", None)
        given = None if name is None else self.parameters.get(name)
        return (str(name), optimizer_spec(given)) if isinstance(given, str | OptimizerSpec) else None


class ProxySpec(Spec):
    """A zero-cost proxy with its hyper-parameters, before it is given a generator."""

    factory: type[Proxy]

    def make(self, rng: torch.Generator | None = None) -> Proxy:
        return self.factory(rng, **self._fresh())


class StoppingSpec(Spec):
    """What ends trainings early, with its hyper-parameters: a predictor, a rule or a schedule."""

    factory: type[Predictor | StoppingRule | Schedule]

    @property
    def is_rule(self) -> bool:
        """Whether it decides on single trainings, so that any optimizer can search with it."""
        from ..predictors.base import Schedule

        return not issubclass(self.factory, Schedule)

    def make(self, rng: np.random.Generator, *, meta: Curves | None = None) -> StoppingRule | Schedule:
        """A fresh rule or schedule; a predictor comes inside a `PredictorRule`.

        Args:
            rng: the only source of chance.
            meta: complete curves of other datasets, for predictors that learn from them.
        """
        from ..predictors.base import Predictor, PredictorRule

        parameters = self._fresh()
        if not issubclass(self.factory, Predictor):
            return self.factory(rng, **parameters)
        of_rule = inspect.signature(PredictorRule).parameters
        outer = {name: parameters.pop(name) for name in list(parameters) if name in of_rule}
        return PredictorRule(rng, self.factory(rng, **parameters), meta=meta, **outer)


_ADAPTERS = {
    "optuna": ("nasharness.optimizers.optuna:OptunaSampler", "sampler"),
    "nevergrad": ("nasharness.optimizers.ask_tell:Nevergrad", "optimizer"),
}
"""Package -> class that adapts it, and the parameter that takes the name behind the colon."""


def optimizer_spec(optimizer: str | type[Optimizer] | OptimizerSpec) -> OptimizerSpec:
    """Read an optimizer id, or wrap a class. `random_search+nu_svr` is an optimizer with a stopping rule.

    Raises:
        RegistryError: unknown id, not an Optimizer class, an unknown preset, or parameters that its constructor does not take.
    """
    from ..optimizers.base import Optimizer

    if isinstance(optimizer, OptimizerSpec):
        return optimizer
    if isinstance(optimizer, str) and len(parts := split_ids(optimizer, "+")) > 1:
        spec = optimizer_spec(parts[0])
        for rule in parts[1:]:
            spec = spec.with_stop(rule)
        return spec
    spec = OptimizerSpec(*_read_spec("optimizers", optimizer, Optimizer, common=2))
    _ = spec.wrapped  # an unknown id is found here, before anything runs
    return spec


def proxy_spec(proxy: str | type[Proxy] | ProxySpec) -> ProxySpec:
    """Read a proxy id, or wrap a class. Imports torch.

    Raises:
        RegistryError: unknown id, not a Proxy class, an unknown preset, or parameters that its constructor does not take.
    """
    from ..proxies.base import Proxy

    if isinstance(proxy, ProxySpec):
        return proxy
    return ProxySpec(*_read_spec("proxies", proxy, Proxy, common=1))


def stopping_spec(rule: str | type | StoppingSpec) -> StoppingSpec:
    """Read the id of a stopping rule, a schedule, or a predictor, of which a rule is made; or wrap a class.

    A predictor takes the parameters of the rule besides its own: `nu_svr(delta=0.01, warm_up=30, kernel='linear')`.

    Raises:
        RegistryError: unknown id, another kind of class, an unknown preset, or parameters that it does not take.
    """
    from ..predictors.base import Predictor, PredictorRule, Schedule, StoppingRule

    if isinstance(rule, StoppingSpec):
        return rule
    of_rule = [p for p in inspect.signature(PredictorRule).parameters if p not in ("rng", "predictor", "meta")]
    return StoppingSpec(
        *_read_spec("predictors", rule, (Predictor, StoppingRule, Schedule), common=1, extra={Predictor: of_rule})
    )


def _read_spec(
    group: Group,
    given: str | type,
    base: type | tuple[type, ...],
    common: int,
    extra: Mapping[type, Sequence[str]] | None = None,
) -> tuple[str, Any, Mapping[str, Any]]:
    """Label, class and parameters of an id, or of a class.

    Args:
        group: where ids are looked up.
        given: id or class.
        base: what it has to be a subclass of.
        common: how many arguments every class of the group is given.
        extra: base class -> parameters that are not for the class itself but may be given.
    """
    word = _singular(group)
    parameters: dict[str, Any] = {}
    if isinstance(given, str):
        match = _SPEC.fullmatch(given.strip())
        if match is None:
            raise RegistryError(f"cannot read the {word} {given!r}: write name, name@preset or name(parameter=value)")
        label = match["target"]
        package, _, name = label.partition(":")
        if group == "optimizers" and package in _ADAPTERS:  # any sampler of an installed Optuna, and so on
            adapter, parameter = _ADAPTERS[package]
            factory = resolve(group, adapter)
            parameters[parameter] = name
        else:
            factory = resolve(group, label)
    else:
        match, factory = None, given
        label = getattr(given, "__name__", repr(given))
    if isinstance(factory, type):  # a registered class goes by its registered name, however it was given
        target = f"{factory.__module__}:{factory.__qualname__}"
        label = next((name for name, point in entry_points(group).items() if point.value == target), label)
    if not (isinstance(factory, type) and issubclass(factory, base)):
        names = " or ".join(f"nasharness.{b.__name__}" for b in (base if isinstance(base, tuple) else (base,)))
        raise RegistryError(f"{label!r} is {factory!r}, not a subclass of {names}")
    if match is not None and match["preset"]:
        presets: Mapping[str, Mapping[str, Any]] = factory.presets  # type: ignore[attr-defined]
        if match["preset"] not in presets:
            known = ", ".join(presets) or "none"
            raise RegistryError(f"{label} has no preset {match['preset']!r}; it has: {known}")
        parameters |= presets[match["preset"]]
        label += f"@{match['preset']}"
    if match is not None and match["parameters"]:
        explicit = _keywords(match["parameters"], label)
        parameters |= explicit
        label += f"({', '.join(f'{k}={v!r}' for k, v in sorted(explicit.items()))})"
    besides = {name for kind, names in (extra or {}).items() if issubclass(factory, kind) for name in names}
    try:
        inspect.signature(factory).bind(*[None] * common, **{k: v for k, v in parameters.items() if k not in besides})
    except TypeError as error:
        takes = [*list(inspect.signature(factory).parameters)[common:], *sorted(besides)]
        raise RegistryError(f"{label}: {error}; its hyper-parameters are: {', '.join(takes) or 'none'}") from error
    return label, factory, parameters


ALL = "all-black-box"


def expand(optimizers: Iterable[Any]) -> list[Any]:
    """Optimizers with `all-black-box` replaced by every registered strategy that pays for evaluations and sees nothing else.

    One that takes a `scorer` looks at the networks, and many benchmarks have none.
    """
    every: list[Any] = []
    for optimizer in optimizers:
        if optimizer == ALL:
            specs = map(optimizer_spec, entry_points("optimizers"))
            every += [spec.label for spec in specs if spec.factory.charges_evaluations and not spec.takes("scorer")]
        else:
            every.append(optimizer)
    return every


def _keywords(text: str, label: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise ValueError("one pair of parentheses is allowed")
        if any(isinstance(node, ast.Set) for node in ast.walk(call)):
            raise ValueError("a set has no order that is the same in every process; write a list or a tuple")
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("hyper-parameters are given by name")
        return {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise RegistryError(f"cannot read the hyper-parameters ({text}) of {label}: {error}") from error


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{ast.unparse(node)} is not a plain Python value; strings go in quotes") from None


def split_ids(text: str, separator: str = ",") -> list[str]:
    """Split a comma-separated list of ids, leaving commas inside parentheses and quotes alone."""
    parts, depth = [""], 0
    for piece in re.findall(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|.", text, re.DOTALL):
        depth += (piece == "(") - (piece == ")")
        if piece == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return [stripped for part in parts if (stripped := part.strip())]
