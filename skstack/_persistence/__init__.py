"""One file for a whole estimator, without pickle: nothing in it is executed when it is loaded.

An estimator becomes a tree (``_tree``); what may stand in it, ``_known`` says; networks are
stored as Keras stores them (``_networks``); a file (``_file``) holds it all, whole or not at all.
"""

from skstack._persistence._file import load, save

__all__ = ["load", "save"]
