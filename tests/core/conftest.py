"""Property tests of `core` run without deadlines, because a busy machine is not a counterexample."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
