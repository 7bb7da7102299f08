"""What is read: files, and tables of the suite. Each source says in its docstring what it guarantees."""

from microbatch.sources.files import Files
from microbatch.sources.tables import TableInput

__all__ = ["Files", "TableInput"]
