"""The first stage: who the estimator fails on."""
