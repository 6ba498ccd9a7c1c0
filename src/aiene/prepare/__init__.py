"""From a native CT to the exact input of the networks, and the way back."""

from aiene.prepare.prepared import Prepared, RegistrationReport
from aiene.prepare.profile import OPEN, PUBLISHED, Profile, profile_named
from aiene.prepare.road import prepare
from aiene.prepare.template import Template, read_template
from aiene.prepare.way_back import to_native

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
