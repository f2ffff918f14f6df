"""Saved models of Keras, looked through before Keras reads them.

One place for models that are given by path and for those inside files of ours: the containers
(``_container``), the architecture (``_config``), what it may name (``_allowed``), and what its
variables may take (``_open``).
"""

from skstack._model_files._allowed import allowed_function
from skstack._model_files._config import look_through
from skstack._model_files._container import check_members
from skstack._model_files._open import build_within, check_registered, inspect_model

__all__ = [
    "allowed_function",
    "build_within",
    "check_members",
    "check_registered",
    "inspect_model",
    "look_through",
]
