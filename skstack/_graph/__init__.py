"""A fitted estimator as one ``keras.Model``, and such a model as a file for other runtimes."""
