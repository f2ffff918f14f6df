"""What happens to the rows before and between networks."""

from skstack.stages._blocks import ColumnBlocks, categorical_places, cell_columns
from skstack.stages._columns import as_numbers, holds_numbers, settle_kinds
from skstack.stages._cross_fit import Metadata, Source, Wanted, mean_of
from skstack.stages._features import FEATURES, POOLINGS, framed
from skstack.stages._folds import (
    Folds,
    folds_of,
    listed_folds,
    make_folds,
    orders_time,
    outer_folds,
    refuse_ordered,
    restricted_folds,
)
from skstack.stages._hold_out import hold_out
from skstack.stages._learned import input_profile, learned
from skstack.stages._learns_from_y import learns_from_y, requires_y
from skstack.stages._moments import moments_of_steps, weighted_moments
from skstack.stages._parts import Cells, Numbers, Whole
from skstack.stages._passed import Passed
from skstack.stages._priors import (
    correct_decisions,
    correct_priors,
    prior_ratio,
    refuse_cleaning,
    refuse_labels,
)
from skstack.stages._profile import ColumnProfile
from skstack.stages._rounding import in_float32, lost_in_float32, warn_of_given, warn_of_lost
from skstack.stages._row_context import RowContext, hand_on, refuse_unreached, take_context
from skstack.stages._sampling import Resampled, check_sampler, resample
from skstack.stages._scaling import Scaling, numeric_columns
from skstack.stages._upstream import ModelView, probabilities_of
from skstack.stages._watched import warn_of_watched, warn_of_watched_targets

__all__ = [
    "FEATURES",
    "POOLINGS",
    "Cells",
    "ColumnBlocks",
    "ColumnProfile",
    "Folds",
    "Metadata",
    "ModelView",
    "Numbers",
    "Passed",
    "Resampled",
    "RowContext",
    "Scaling",
    "Source",
    "Wanted",
    "Whole",
    "as_numbers",
    "categorical_places",
    "cell_columns",
    "check_sampler",
    "correct_decisions",
    "correct_priors",
    "folds_of",
    "framed",
    "hand_on",
    "hold_out",
    "holds_numbers",
    "in_float32",
    "input_profile",
    "learned",
    "learns_from_y",
    "listed_folds",
    "lost_in_float32",
    "make_folds",
    "mean_of",
    "moments_of_steps",
    "numeric_columns",
    "orders_time",
    "outer_folds",
    "prior_ratio",
    "probabilities_of",
    "refuse_cleaning",
    "refuse_labels",
    "refuse_ordered",
    "refuse_unreached",
    "requires_y",
    "resample",
    "restricted_folds",
    "settle_kinds",
    "take_context",
    "warn_of_given",
    "warn_of_lost",
    "warn_of_watched",
    "warn_of_watched_targets",
    "weighted_moments",
]
