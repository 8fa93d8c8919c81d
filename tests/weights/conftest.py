"""The decoders of the lenses' tests, whose every weight shows."""

from tests.lens.conftest import model as model
from tests.lens.conftest import tokens as tokens
