"""What a person looks at: which rows taught whom, and which rows stand on both sides."""

from skstack.inspection._leakage import leakage_report
from skstack.inspection._overlap import Overlap, check_overlap
from skstack.inspection._report import LeakageReport

__all__ = ["LeakageReport", "Overlap", "check_overlap", "leakage_report"]
