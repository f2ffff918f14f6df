"""Joint fine-tuning: what a stack learned in stages is trained on as one network."""

from skstack._fine_tune._checks import check_fine_tune
from skstack._fine_tune._settings import FineTune
from skstack._fine_tune._training import fine_tune

__all__ = ["FineTune", "check_fine_tune", "fine_tune"]
