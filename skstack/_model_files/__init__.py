"""Saved models of Keras, looked through before Keras reads them.

One place for models that are given by path and for those inside files of ours: the containers
(``container``), the architecture (``config``), what it may name (``allowed``), and what its
variables may take (``open``).
"""
