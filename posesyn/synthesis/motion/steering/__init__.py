"""From an estimator's wrong pose to poses that fit the picture."""
