"""What happens to rows before a network reads them: sequences become arrays of one length."""

from skstack.preprocessing._pad_sequences import PadSequences

__all__ = ["PadSequences"]
