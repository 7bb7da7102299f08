"""How to sign in is said once, and told to two clients in the words of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from microbatch.sources.kafka.options import of_librdkafka, of_parser, of_spark

LOGIN = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": "u",
    "sasl.password": 'p"\\',
}


def test_java_gets_the_login_in_its_own_language_and_librdkafka_as_it_is_written():
    assert of_librdkafka(LOGIN) == LOGIN
    spark = of_spark(LOGIN)
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    assert spark["kafka.sasl.jaas.config"] == f'{module} required username="u" password="p\\"\\\\";'
    assert (spark["kafka.security.protocol"], spark["kafka.sasl.mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert not [name for name in spark if "username" in name or name.endswith("password")]


def test_plain_has_a_module_of_its_own():
    assert "plain.PlainLoginModule" in of_spark({**LOGIN, "sasl.mechanism": "PLAIN"})["kafka.sasl.jaas.config"]


def test_certificates_are_files_to_librdkafka_and_texts_to_java(tmp_path: Path):
    for name in ("ca", "own", "key"):
        (tmp_path / name).write_text(f"-----{name}-----")
    given = {
        "ssl.ca.location": str(tmp_path / "ca"),
        "ssl.certificate.location": str(tmp_path / "own"),
        "ssl.key.location": str(tmp_path / "key"),
        "ssl.key.password": "p",
        "ssl.endpoint.identification.algorithm": "none",
    }
    assert of_librdkafka(given) == given
    spark = {name.removeprefix("kafka."): value for name, value in of_spark(given).items()}
    assert (spark["ssl.truststore.type"], spark["ssl.truststore.location"]) == ("PEM", given["ssl.ca.location"])
    assert (spark["ssl.keystore.certificate.chain"], spark["ssl.keystore.key"]) == ("-----own-----", "-----key-----")
    assert spark["ssl.endpoint.identification.algorithm"] == ""


def test_a_name_without_a_dot_is_for_the_parser_and_any_other_for_javas_consumer():
    given = {"sep": ";", "timestampFormat": "yyyy", "fetch.max.bytes": "5", "default.api.timeout.ms": "7"}
    assert of_parser(given) == {"sep": ";", "timestampformat": "yyyy"}
    assert of_librdkafka(given) == {}
    spark = of_spark(given)
    assert (spark["kafka.fetch.max.bytes"], spark["kafka.default.api.timeout.ms"]) == ("5", "7")
    assert not [name for name in spark if not name.startswith("kafka.")]


@pytest.mark.parametrize("name", ["kafka.sasl.jaas.config", "kafka.ssl.keystore.key", "kafka.ssl.key.password"])
def test_spark_hides_the_value_of_every_option_that_is_secret(name: str):
    import re

    from microbatch.session import CORRECT

    assert re.search(CORRECT["spark.redaction.regex"], name)
