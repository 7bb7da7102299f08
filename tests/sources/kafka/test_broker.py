"""A look at a topic in plain Python: nothing of it stays, and what conf says wrongly is told as such."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from microbatch.errors import ConfigError
from microbatch.sources.kafka.broker import Broker
from tests.sources.kafka.conftest import Topic

NOBODY = "127.0.0.1:1"


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Python's collector of cycles does not come: in a run that goes on it may come late."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.slow
def test_a_client_goes_with_the_look_it_was_made_for(topic: Topic, uncollected: None):
    topic.send({"id": 1})
    before = threads()
    for _ in range(5):
        broker = Broker("clicks", topic.broker.servers, {})
        assert broker.has_message(topic.name, broker.look(topic.name).first)
        del broker
    assert threads() == before


@pytest.mark.parametrize("options", [{"ssl.ca.location": "/no/such.pem"}, {"security.protocol": "FOO"}])
def test_an_option_that_no_client_can_be_made_with_is_a_mistake_in_conf(options: dict[str, str]):
    with pytest.raises(ConfigError, match="source clicks: the broker refuses: .*; see options in conf") as stopped:
        Broker("clicks", NOBODY, {"security.protocol": "SSL", **options}).look("clicks")
    assert stopped.value.exit_code == 2
