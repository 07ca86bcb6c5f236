"""Learning-curve predictors and stopping rules, one per file."""
