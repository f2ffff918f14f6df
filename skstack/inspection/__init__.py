"""Reports on leaks, overlapping rows, moved columns and the gain of the parts of a stack."""

from skstack.inspection._blend import BlendDisplay
from skstack.inspection._latent import LatentDisplay
from skstack.inspection._leakage import leakage_report
from skstack.inspection._overlap import Overlap, check_overlap
from skstack.inspection._report import LeakageReport, LeakageReportDisplay
from skstack.inspection._stacking_gain import StackingGain, StackingGainDisplay, stacking_gain
from skstack.inspection._training_curve import TrainingCurveDisplay
from skstack.preprocessing._column_profile import ColumnProfile

__all__ = [
    "BlendDisplay",
    "ColumnProfile",
    "LatentDisplay",
    "LeakageReport",
    "LeakageReportDisplay",
    "Overlap",
    "StackingGain",
    "StackingGainDisplay",
    "TrainingCurveDisplay",
    "check_overlap",
    "leakage_report",
    "stacking_gain",
]
