"""Fitted estimators as one ``keras.Model``, and such a model as a file for other runtimes."""
