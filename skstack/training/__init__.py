"""How weights are learned: compiled programs, epochs, early stopping, seeds, predictions.

One narrow door: a *blueprint* (``build()`` makes an uncompiled ``keras.Model``; ``key`` tells equal
blueprints apart, or is None) goes in with rows and a plan, NumPy weights come out.
"""

from skstack.training._fingerprint import Unknown, fingerprint, fingerprint_value
from skstack.training._ingredients import check_settings
from skstack.training._initial import initial_variables
from skstack.training._layers import check_layers, find_layers
from skstack.training._lesson import Lesson, MetricOfTask
from skstack.training._losses import mean_loss
from skstack.training._network import Network
from skstack.training._normalizations import settle_normalizations
from skstack.training._objective import Objective, head_for, settle
from skstack.training._plan import Fit, Plan, Public, Rows
from skstack.training._seeds import build, named_variables, under_callers_policy, undisturbed
from skstack.training._train import train
from skstack.training._watching import Diverged

__all__ = [
    "Diverged",
    "Fit",
    "Lesson",
    "MetricOfTask",
    "Network",
    "Objective",
    "Plan",
    "Public",
    "Rows",
    "Unknown",
    "build",
    "check_layers",
    "check_settings",
    "find_layers",
    "fingerprint",
    "fingerprint_value",
    "head_for",
    "initial_variables",
    "mean_loss",
    "named_variables",
    "settle",
    "settle_normalizations",
    "train",
    "under_callers_policy",
    "undisturbed",
]
