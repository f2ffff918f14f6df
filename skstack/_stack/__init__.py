"""Stacks: branches upstream, a network downstream, fitted together without leakage."""
