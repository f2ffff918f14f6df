"""Save and load fitted estimators, without pickle."""
