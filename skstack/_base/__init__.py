"""Shared by all modules: private names of scikit-learn, parameters, tables, atomic fits."""
