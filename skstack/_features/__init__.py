"""Features from upstream models, out-of-fold while fitting."""
