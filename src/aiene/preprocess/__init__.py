"""From a native CT to the exact input of the networks, and the way back."""

from aiene.preprocess.prepared import Prepared, RegistrationReport, to_native
from aiene.preprocess.preprocess import prepare
from aiene.preprocess.profile import OPEN, PUBLISHED, Profile, profile_named
from aiene.preprocess.template import Template, read_template

__all__ = [
    "OPEN",
    "PUBLISHED",
    "Prepared",
    "Profile",
    "RegistrationReport",
    "Template",
    "prepare",
    "profile_named",
    "read_template",
    "to_native",
]
