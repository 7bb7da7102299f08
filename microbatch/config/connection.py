"""Where a server is and how to sign in: `connections` of an environment, and what a source says of its own."""

from __future__ import annotations

from pydantic import Field, model_validator

from microbatch.config.values import Strict


class Auth(Strict):
    """How to sign in to a server over HTTP: one of the two. A basic one is user and password."""

    bearer: str | None = Field(default=None, repr=False)
    basic: tuple[str, str] | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _is_one(self) -> Auth:
        if (self.bearer is None) == (self.basic is None):
            said = "neither bearer nor" if self.bearer is None else "both bearer and"
            raise ValueError(f"says {said} basic; write one of the two")
        return self


class Connection(Strict):
    """Where a server is and how to sign in; a source's kind says which keys it needs. Its values are never shown."""

    uri: str | None = Field(default=None, repr=False)
    url: str | None = Field(default=None, repr=False)
    servers: str | tuple[str, ...] | None = Field(default=None, repr=False)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    auth: Auth | None = Field(default=None, repr=False)
    options: dict[str, str | int | bool] = Field(default_factory=dict, repr=False)
