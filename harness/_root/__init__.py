"""nasharness: compare neural architecture search strategies reproducibly, on benchmarks of really trained networks.

    import nasharness as nh

    study = nh.compare(["random_search", "regularized_evolution"], "digits201", nh.Budget(evaluations=300), repetitions=20)
    study.report("report/")

The names below are loaded when they are first used, so importing the package is quick and never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .benchmarks.base import Benchmark, Curve, Evaluation, Evaluations, Final, Info
    from .benchmarks.spaces.base import Architecture, InvalidArchitecture, SearchSpace
    from .benchmarks.table import TableBenchmark
    from .harness.core import Budget, Proposal, Trial
    from .harness.registry import load
    from .harness.regressors import RegressorStudy, compare_regressors
    from .harness.run import Run, RunError, run
    from .harness.scorer import ScoreError
    from .harness.scoring import Scores, score
    from .harness.stopping import StoppingStudy, compare_stopping
    from .harness.study import Study, StudyError, compare
    from .harness.supernets import SupernetError, SupernetStudy, supernets
    from .harness.testing import CheckError, check
    from .optimizers.base import Optimizer, SearchFinished
    from .predictors.base import Curves, CurvesError, Decision, Prediction, Predictor, StoppingRule
    from .proxies.base import Proxy, ProxyError

_WHERE = {
    "Architecture": ".benchmarks.spaces.base",
    "Benchmark": ".benchmarks.base",
    "Budget": ".harness.core",
    "CheckError": ".harness.testing",
    "Curve": ".benchmarks.base",
    "Curves": ".predictors.base",
    "CurvesError": ".predictors.base",
    "Decision": ".predictors.base",
    "Evaluation": ".benchmarks.base",
    "Evaluations": ".benchmarks.base",
    "Final": ".benchmarks.base",
    "Info": ".benchmarks.base",
    "InvalidArchitecture": ".benchmarks.spaces.base",
    "Optimizer": ".optimizers.base",
    "Prediction": ".predictors.base",
    "Predictor": ".predictors.base",
    "Proposal": ".harness.core",
    "Proxy": ".proxies.base",
    "ProxyError": ".proxies.base",
    "RegressorStudy": ".harness.regressors",
    "Run": ".harness.run",
    "RunError": ".harness.run",
    "ScoreError": ".harness.scorer",
    "Scores": ".harness.scoring",
    "SearchFinished": ".optimizers.base",
    "SearchSpace": ".benchmarks.spaces.base",
    "StoppingRule": ".predictors.base",
    "StoppingStudy": ".harness.stopping",
    "Study": ".harness.study",
    "StudyError": ".harness.study",
    "SupernetError": ".harness.supernets",
    "SupernetStudy": ".harness.supernets",
    "TableBenchmark": ".benchmarks.table",
    "Trial": ".harness.core",
    "check": ".harness.testing",
    "compare": ".harness.study",
    "compare_regressors": ".harness.regressors",
    "compare_stopping": ".harness.stopping",
    "load": ".harness.registry",
    "run": ".harness.run",
    "score": ".harness.scoring",
    "supernets": ".harness.supernets",
}

__all__ = [
    "Architecture",
    "Benchmark",
    "Budget",
    "CheckError",
    "Curve",
    "Curves",
    "CurvesError",
    "Decision",
    "Evaluation",
    "Evaluations",
    "Final",
    "Info",
    "InvalidArchitecture",
    "Optimizer",
    "Prediction",
    "Predictor",
    "Proposal",
    "Proxy",
    "ProxyError",
    "RegressorStudy",
    "Run",
    "RunError",
    "ScoreError",
    "Scores",
    "SearchFinished",
    "SearchSpace",
    "StoppingRule",
    "StoppingStudy",
    "Study",
    "StudyError",
    "SupernetError",
    "SupernetStudy",
    "TableBenchmark",
    "Trial",
    "check",
    "compare",
    "compare_regressors",
    "compare_stopping",
    "load",
    "run",
    "score",
    "supernets",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("nasharness")
    if name not in _WHERE:
        raise AttributeError(f"module 'nasharness' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
