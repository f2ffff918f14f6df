"""Fitted estimators as files that cannot run code."""
