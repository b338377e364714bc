"""How hard the random tests look: few examples in passing, thousands to look for trouble in earnest."""

import os

EXAMPLES = int(os.environ.get("CCSTORE_FUZZ_EXAMPLES", "150"))
"""For each test of lines; others take a multiple or a part of it."""
