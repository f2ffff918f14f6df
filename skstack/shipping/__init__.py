"""A fitted estimator as one ``keras.Model``, and such a model as a file for other runtimes."""

from skstack.shipping._files import write
from skstack.shipping._fused import fused_model, raw_columns
from skstack.shipping._joint import DOWNSTREAM, JointNetwork
from skstack.shipping._steps import check_step, listed_steps

__all__ = [
    "DOWNSTREAM",
    "JointNetwork",
    "check_step",
    "fused_model",
    "listed_steps",
    "raw_columns",
    "write",
]
