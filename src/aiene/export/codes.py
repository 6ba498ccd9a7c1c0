"""The codes of exported objects: SNOMED CT and DCM where they exist, our own scheme where none does.

`docs/dicom.md` has the same table for readers; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from pydicom.sr.coding import Code

SCHEME: Final = "99AIENE"
SCHEME_VERSION: Final = "1"
SCHEME_NAME: Final = "AI-ENE private coding scheme"

ABNORMAL_STRUCTURE: Final = Code("49755003", "SCT", "Morphologically Abnormal Structure")
SECONDARY_NEOPLASM: Final = Code("14799000", "SCT", "Neoplasm, Secondary")
PRIMARY_NEOPLASM: Final = Code("372087000", "SCT", "Neoplasm, Primary")
LYMPH_NODE: Final = Code("312501005", "SCT", "lymph node of head and neck")
HEAD_AND_NECK: Final = Code("774007", "SCT", "Head and Neck")
SIDES: Final = {
    "left": Code("7771000", "SCT", "Left"),
    "right": Code("24028007", "SCT", "Right"),
    "midline": Code("261129000", "SCT", "Midline"),
}
GTV_NODAL: Final = Code("130051", "DCM", "GTV Nodal")
GTV_PRIMARY: Final = Code("130052", "DCM", "GTV Primary")
ARTIFICIAL_INTELLIGENCE: Final = Code("123110", "DCM", "Artificial Intelligence")

VOLUME: Final = Code("118565006", "SCT", "Volume")
SUM_OF_VOXELS: Final = Code("126030", "DCM", "Sum of segmented voxel method for volume")
LONG_AXIS: Final = Code("103339001", "SCT", "Long axis")
SHORT_AXIS: Final = Code("103340004", "SCT", "Short axis")
PROBABILITY: Final = Code("122157", "DCM", "Probability")
YES: Final = Code("373066001", "SCT", "Yes")
NO: Final = Code("373067005", "SCT", "No")

CUBIC_MILLIMETRE: Final = Code("mm3", "UCUM", "cubic millimeter")
MILLIMETRE: Final = Code("mm", "UCUM", "millimeter")
ONE: Final = Code("1", "UCUM", "no units")
NODES_UNIT: Final = Code("{nodes}", "UCUM", "nodes")


def _own(value: str, meaning: str) -> Code:
    return Code(value, SCHEME, meaning, SCHEME_VERSION)


ENE: Final = _own("ENE001", "Extranodal extension")
POSITIVITY: Final = _own("ENE002", "Malignant lymph node")
ENE_VERDICT: Final = _own("ENE003", "Extranodal extension predicted")
ENE_NODE_NUMBER: Final = _own("ENE004", "Number of lymph nodes predicted with extranodal extension")
NODE_NUMBER: Final = _own("ENE005", "Number of lymph nodes predicted malignant")
ENE_THRESHOLD: Final = _own("ENE006", "Threshold of the probability of extranodal extension")
INTENDED_USE: Final = _own("ENE007", "Intended use of the result")
RESEARCH_ONLY: Final = _own("ENE008", "Research, not for clinical use")
AXES_OF_MASK: Final = _own("ENE010", "Feret diameters, largest slice of the CT series")
PATIENT_RESULT: Final = _own("ENE011", "Patient summary of lymph node findings")
PRIMARY_FOUND: Final = _own("ENE012", "Primary tumor found")
NOT_JUDGED: Final = _own("ENE013", "Node not judged by the classifier")
VOLUME_OF_RUN: Final = _own("ENE014", "Sum of segmented voxels on the network grid")

OWN: Final = tuple(
    code for code in list(globals().values()) if isinstance(code, Code) and code.scheme_designator == SCHEME
)
"""The whole private scheme; a meaning is never changed, a new one gets a new value.

ENE009, axes on the grid of the network, held a layer around the contour and is not used any more.
"""
