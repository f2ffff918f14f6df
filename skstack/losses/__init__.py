"""Losses in which a frozen network, or any fitted estimator, takes part."""

from skstack.losses._teacher_loss import TeacherLoss

__all__ = ["TeacherLoss"]
