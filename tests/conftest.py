"""What holds for every test."""

from hypothesis import settings

# A slow moment of a shared machine is not a counterexample.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
