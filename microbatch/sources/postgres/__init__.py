"""PostgreSQL as a streaming source: by a cursor that late commits cannot fool, or change by change with deletes and no Kafka."""

from microbatch.sources.postgres.changes import ChangesInput
from microbatch.sources.postgres.connection import Server
from microbatch.sources.postgres.cursor import CursorInput
from microbatch.sources.postgres.slot import Slot

__all__ = ["ChangesInput", "CursorInput", "Server", "Slot"]
