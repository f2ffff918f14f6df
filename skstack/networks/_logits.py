"""What a network computes before its last sigmoid."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from skstack.networks._copies import is_graph, is_kerases_own
from skstack.networks._heads import final_activation, last_operation

__all__ = ["LogitsBlueprint", "logits_network"]

# Beside the networks, not in them: it is made anew after they were pickled.
_FOUND = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class LogitsBlueprint:
    """A network without its last activation, a sigmoid.

    Parameters
    ----------
    blueprint : blueprint
        Of the network.
    """

    blueprint: Any

    @property
    def key(self):
        """Of the network; None where it has none."""
        key = self.blueprint.key
        return None if key is None else ("logits", key)

    def build(self):
        """Build the network, with a linear output."""
        import keras

        model = self.blueprint.build()
        last_operation(model).activation = keras.activations.linear
        return model


def logits_network(network):
    """The network that gives the log-odds of another one's probabilities.

    A sigmoid near 1 leaves few digits of them in float32, and other digits in every runtime.

    Parameters
    ----------
    network : skstack.training.Network

    Returns
    -------
    skstack.training.Network or None
        With the same weights; None where the network does not end with a layer of Keras' own with a
        sigmoid.
    """
    if network.blueprint is None:  # a part of a larger network that trains
        return None
    if network not in _FOUND:
        from skstack import training

        with training.undisturbed():
            model = network.blueprint.build()
        found = None
        if is_graph(model) and final_activation(model) == "sigmoid" and _stands_alone(model):
            found = training.Network(LogitsBlueprint(network.blueprint), network.variables)
        _FOUND.setdefault(network, found)  # the first of several threads has its way
    return _FOUND[network]


def _stands_alone(model):
    """Whether the last layer is Keras' own, no model itself, and called once."""
    import keras

    last = last_operation(model)
    if isinstance(last, keras.Model) or not (is_kerases_own(last) and hasattr(last, "activation")):
        return False
    try:
        return last.output is not None
    except AttributeError:  # it has several
        return False
