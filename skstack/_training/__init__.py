"""How weights are learned: compiled programs, epochs, early stopping, seeds, predictions.

A *blueprint* (``build()`` makes an uncompiled ``keras.Model``; ``key`` tells equal ones apart,
or is None) goes in with rows and a configuration, NumPy weights come out.
"""
