"""What is read: sources of each kind, and tables of the suite. Each says in its docstring what it guarantees."""

from microbatch.sources.files import Files
from microbatch.sources.input import Advising, Input, Stream
from microbatch.sources.tables import TableInput

__all__ = ["Advising", "Files", "Input", "Stream", "TableInput"]
