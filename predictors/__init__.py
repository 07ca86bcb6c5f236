"""Learning-curve predictors and stopping rules. None is included yet; the entry-point group is `nasharness.predictors`."""
