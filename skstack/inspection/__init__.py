"""What a person looks at: who taught whom, which rows are on both sides, what has moved."""

from skstack.inspection._leakage import leakage_report
from skstack.inspection._overlap import Overlap, check_overlap
from skstack.inspection._report import LeakageReport
from skstack.stages import ColumnProfile

__all__ = ["ColumnProfile", "LeakageReport", "Overlap", "check_overlap", "leakage_report"]
