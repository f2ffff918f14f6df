"""Losses in which a frozen network, or any fitted estimator, takes part."""

from skstack.losses._guide import without_guide
from skstack.losses._networks import TEACHER
from skstack.losses._taught import taught
from skstack.losses._teacher_loss import TeacherLoss, task_loss

__all__ = ["TEACHER", "TeacherLoss", "task_loss", "taught", "without_guide"]
