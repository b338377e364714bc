"""The JSON Schema against the loader, the page and the examples: what one takes, the others know."""

import json

import jsonschema
import pytest
from test_config_docs import EXAMPLES, IN_CODE, PAGE, json_blocks
from test_config_sections import NEEDED, REFUSED, TAKEN, with_key

from ccstore.config import dump_config, load_config, make_schema
from ccstore.config.load import IGNORED_MAIN_KEYS

SCHEMA = make_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

ONLY_THE_LOADER_TELLS = (
    "not base64",
    "a key of 3 bytes",
    "not an IP address",
    "not an address to listen on",
    "not a URL of a web server",
    "not a NATS subject",
    "not a cluster name",
    "too short",
    "server ",
)
"""Beginnings of reasons for which the schema may take a value that the loader refuses."""


def test_the_schema_is_one():
    """It says of itself which draft it follows, and does."""
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def keys_of(schema, path):
    """Yield the path of every key that the schema knows, as the page writes it."""
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        if inner is not True and "properties" in inner:
            yield from keys_of(inner, here)
            continue
        yield here
        if inner is not True and "properties" in inner.get("items", {}):
            yield from keys_of(inner["items"], f"{here}[]")


def test_the_schema_has_the_keys_of_the_page_and_no_others():
    """Beside those of the backend program that are passed over."""
    known = []
    for section, schema in SCHEMA["properties"].items():
        if section == "metrics":
            known += keys_of(schema["additionalProperties"], "metrics.<name>")
        else:
            known += keys_of(schema, section)
    documented = [path for path, _, _ in IN_CODE]
    assert sorted(known) == sorted(documented + [f"main.{name}" for name in IGNORED_MAIN_KEYS])


def test_the_schema_tells_the_defaults_of_the_page():
    """Where the page has a value, and the value is no secret."""

    def look_up(path):
        found = SCHEMA
        for name in path.replace("[]", "/items").replace(".", "/").split("/"):
            found = found["items"] if name == "items" else found["properties"][name]
        return found

    for path, default, _ in IN_CODE:
        if not path.startswith("metrics") and "default" in look_up(path) and default.count("`") == 2:
            assert f"`{json.dumps(look_up(path)['default'])}`" == default, path


@pytest.mark.parametrize(("path", "value", "_"), TAKEN)
def test_what_the_loader_takes_the_schema_takes(path, value, _):
    """Every good value of every key, also ``null`` where it means that the key is absent."""
    needed = [what for prefix, keys in NEEDED.items() if path.startswith(prefix) for what in keys]
    VALIDATOR.validate(with_key(path, value, needed))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (path, value)
        for path, value, reason in REFUSED
        if not reason.startswith(ONLY_THE_LOADER_TELLS)
        and not (isinstance(value, float) and value == 1)  # for JSON Schema that is an integer
    ],
)
def test_what_the_loader_refuses_the_schema_refuses(path, value):
    """Wrong types, names and bounds; forms of text are left to the loader if a pattern is a riddle."""
    assert not VALIDATOR.is_valid(with_key(path, value))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_follow_the_schema(path):
    """So do all values of each of them, written out."""
    VALIDATOR.validate(json.loads(path.read_text(encoding="utf-8")))
    VALIDATOR.validate(dump_config(load_config(str(path), environ={})))


def test_the_configurations_on_the_page_follow_the_schema():
    """What is copied from the page raises no doubt in an editor."""
    for block in json_blocks(PAGE):
        VALIDATOR.validate(json.loads(block))


def test_a_section_may_be_in_a_file_of_its_own():
    """Either the section or its file is needed."""
    VALIDATOR.validate({"main-file": "main.json", "metric-store-file": "store.json"})
    assert not VALIDATOR.is_valid({"main-file": "main.json"})
