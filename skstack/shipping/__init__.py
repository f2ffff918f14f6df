"""A fitted estimator as one ``keras.Model``, and such a model as a file for other runtimes."""

from skstack.shipping._files import write
from skstack.shipping._fused import fused_model
from skstack.shipping._joint import DOWNSTREAM, JointNetwork
from skstack.shipping._readers import raw_columns
from skstack.shipping._steps import listed_steps, maker_of

__all__ = [
    "DOWNSTREAM",
    "JointNetwork",
    "fused_model",
    "listed_steps",
    "maker_of",
    "raw_columns",
    "write",
]
