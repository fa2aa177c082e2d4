"""Fine-tuning estimators on real and synthetic persons."""
