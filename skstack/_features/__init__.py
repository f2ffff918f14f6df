"""What an upstream model gives a downstream network, out-of-fold while fitting."""
