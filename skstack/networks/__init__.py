"""What to build: from a spec of inputs and outputs to a ``keras.Model``."""

from skstack.networks._adapted import ModelBlueprint
from skstack.networks._autoencoder import Autoencoder
from skstack.networks._blueprints import RecipeBlueprint
from skstack.networks._builder import BuilderRecipe
from skstack.networks._continued import (
    check_categories,
    check_continues,
    continued_estimator,
    named_after_categories,
)
from skstack.networks._copies import architecture, has_own_steps
from skstack.networks._frozen import FrozenBlueprint
from skstack.networks._given import (
    blueprint_for,
    check_model,
    is_keras_model,
    is_path,
    load_model,
)
from skstack.networks._heads import final_activation, output_bounds
from skstack.networks._latent import DecoderBlueprint, latent_layer
from skstack.networks._logits import logits_network
from skstack.networks._mlp import MLP
from skstack.networks._recipe import Recipe, recipe
from skstack.networks._sequence_encoder import SequenceEncoder
from skstack.networks._spec import Block, Spec, standardizing_variables
from skstack.networks._units import with_plain_input, with_target_units

__all__ = [
    "MLP",
    "Autoencoder",
    "Block",
    "BuilderRecipe",
    "DecoderBlueprint",
    "FrozenBlueprint",
    "ModelBlueprint",
    "Recipe",
    "RecipeBlueprint",
    "SequenceEncoder",
    "Spec",
    "architecture",
    "blueprint_for",
    "check_categories",
    "check_continues",
    "check_model",
    "continued_estimator",
    "final_activation",
    "has_own_steps",
    "is_keras_model",
    "is_path",
    "latent_layer",
    "load_model",
    "logits_network",
    "named_after_categories",
    "output_bounds",
    "recipe",
    "standardizing_variables",
    "with_plain_input",
    "with_target_units",
]
