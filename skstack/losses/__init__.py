"""Losses with a teacher: a frozen network or any fitted estimator."""

from skstack.losses._teacher_loss import TeacherLoss

__all__ = ["TeacherLoss"]
