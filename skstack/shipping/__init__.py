"""A fitted estimator as one ``keras.Model``, and such a model as a file for other runtimes."""

from skstack.shipping._files import write
from skstack.shipping._fused import fused_model, raw_columns

__all__ = ["fused_model", "raw_columns", "write"]
