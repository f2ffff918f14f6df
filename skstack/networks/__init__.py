"""What to build: from a spec of inputs and outputs to a ``keras.Model``."""

from skstack.networks._autoencoder import Autoencoder
from skstack.networks._mlp import MLP
from skstack.networks._numeric import Periodic, PiecewiseLinear
from skstack.networks._realmlp import RealMLP
from skstack.networks._recipe import Recipe, recipe
from skstack.networks._sequence_encoder import SequenceEncoder
from skstack.networks._spec import Spec
from skstack.networks._tabm import TabM
from skstack.preprocessing._blocks import Block

__all__ = [
    "MLP",
    "Autoencoder",
    "Block",
    "Periodic",
    "PiecewiseLinear",
    "RealMLP",
    "Recipe",
    "SequenceEncoder",
    "Spec",
    "TabM",
    "recipe",
]
