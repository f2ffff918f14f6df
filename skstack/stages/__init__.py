"""What happens to the rows before and between networks."""

from skstack.stages._blocks import Block, ColumnBlocks
from skstack.stages._hold_out import hold_out
from skstack.stages._moments import weighted_moments
from skstack.stages._sampling import (
    Resampled,
    check_sampler,
    correct_priors,
    prior_ratio,
    refuse_cleaning,
    resample,
)
from skstack.stages._scaling import Scaling

__all__ = [
    "Block",
    "ColumnBlocks",
    "Resampled",
    "Scaling",
    "check_sampler",
    "correct_priors",
    "hold_out",
    "prior_ratio",
    "refuse_cleaning",
    "resample",
    "weighted_moments",
]
