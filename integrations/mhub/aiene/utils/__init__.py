"""The runner of the model."""

from .AieneRunner import *  # noqa: F403 (MHub finds runners by this)
