"""Schemes: how a base group and a node count make a combined group; data, not code; none is the paper's."""

from aiene.risk.schemes.scheme import (
    BASE_GROUPS,
    Scheme,
    SchemeSource,
    list_schemes,
    read_scheme,
    scheme_bytes,
)

__all__ = [
    "BASE_GROUPS",
    "Scheme",
    "SchemeSource",
    "list_schemes",
    "read_scheme",
    "scheme_bytes",
]
