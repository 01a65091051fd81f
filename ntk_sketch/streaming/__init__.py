"""Features of any number of examples, batch by batch."""

from ._stream import stream as stream
