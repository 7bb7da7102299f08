"""PostgreSQL as a streaming source: by a cursor that late commits cannot fool, or change by change with deletes and no Kafka."""

from microbatch.sources.postgres.connection import Server
from microbatch.sources.postgres.cursor import CursorInput

__all__ = ["CursorInput", "Server"]
