"""Properties of the core are checked without a deadline: a busy machine is no counterexample."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
