"""How Hypothesis plays inputs: for as long as it takes, as a busy machine breaks no promise."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
