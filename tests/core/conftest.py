"""Property tests of `core` run without time limits, because they must not fail on a busy machine."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
