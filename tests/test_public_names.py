"""What `import ccstore` offers, and what it costs."""

import json
import subprocess
import sys

import pytest

import ccstore
from ccstore.errors import CcstoreError

NAMES = [
    "BusyError", "CcstoreError", "Config", "ConfigError", "CorruptionError", "ProtocolError", "QueryError",
    "Store", "__version__", "load_config", "run",
]  # fmt: skip


def test_the_public_names():
    """They are these; whoever changes one changes what others build on."""
    assert ccstore.__all__ == NAMES
    assert set(NAMES) <= set(dir(ccstore))


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there(name):
    """Each is what it is in its own module, and all errors have one base."""
    value = getattr(ccstore, name)
    if name != "__version__":
        assert getattr(sys.modules[value.__module__], name) is value
    if name.endswith("Error"):
        assert issubclass(value, CcstoreError)


def test_a_name_that_is_not_there():
    """It is an ordinary AttributeError, so that hasattr works."""
    with pytest.raises(AttributeError, match="module 'ccstore' has no attribute 'Stroe'"):
        ccstore.Stroe  # noqa: B018 -- the access is the test


def test_importing_costs_nothing():
    """Neither the package nor its errors bring numpy or Trio along; a name brings what it needs."""
    code = (
        "import json, sys, ccstore; ccstore.__version__; ccstore.ConfigError; before = sorted(sys.modules);"
        "ccstore.load_config; print(json.dumps([before, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    before, after = map(set, json.loads(done.stdout))
    assert not {"numpy", "numba", "trio", "quart", "click", "attrs"} & before
    assert "ccstore.config.load" in after
    assert "trio" not in after
