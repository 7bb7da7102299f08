"""HTTP APIs as a stream: pages are fetched, kept as they came, and read from there."""

from microbatch.sources.rest.client import Server
from microbatch.sources.rest.fetch import Asked
from microbatch.sources.rest.source import Rest, Spooled

__all__ = ["Asked", "Rest", "Server", "Spooled"]
