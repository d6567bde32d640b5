"""Tests that walk through several packages build on the unit tests' small models and files."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / part) for part in ("unit", "unit/celebamask_hq", "benchmarks")]
