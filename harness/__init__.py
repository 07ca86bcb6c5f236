"""The run loop, budgets, studies, the results store, metrics, reports, the registry, conformance checks and the CLI."""
