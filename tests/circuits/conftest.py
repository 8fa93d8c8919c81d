"""The settings of the patching tests."""

from tests.patching.conftest import microworld as microworld
from tests.patching.conftest import tiny as tiny
