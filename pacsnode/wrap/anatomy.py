"""Body parts, views and ophthalmic devices as a person types them, and their codes.

In: a word. Out: the coded concept, or none where we know no code. Never guesses a code. PS3.16 Annex L, CID 4010, 4014,
4202.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from pacsnode.dicom.codes import PRIVATE_SCHEME, Concept


@dataclass(frozen=True)
class BodyPart:
    """`is_unpaired`: there is one of it, so that its laterality is U (PS3.3 C.8.11.2)."""

    region: Concept
    is_unpaired: bool = False


def _part(value: str, meaning: str, *, unpaired: bool = False) -> BodyPart:
    return BodyPart(Concept(value, "SCT", meaning), unpaired)


BODY_PARTS = {
    "ABDOMEN": _part("818981001", "Abdomen", unpaired=True),
    "ANKLE": _part("70258002", "Ankle joint"),
    "BREAST": _part("76752008", "Breast"),
    "CHEST": _part("816094009", "Chest", unpaired=True),
    "COLON": _part("71854001", "Colon", unpaired=True),
    "CSPINE": _part("122494005", "Cervical spine", unpaired=True),
    "DUODENUM": _part("38848004", "Duodenum", unpaired=True),
    "ELBOW": _part("16953009", "Elbow joint"),
    "ESOPHAGUS": _part("32849002", "Esophagus", unpaired=True),
    "EYE": _part("81745001", "Eye"),
    "FOOT": _part("56459004", "Foot"),
    "HAND": _part("85562004", "Hand"),
    "HEAD": _part("69536005", "Head", unpaired=True),
    "HIP": _part("24136001", "Hip joint"),
    "JAW": _part("661005", "Jaw region", unpaired=True),
    "KNEE": _part("72696002", "Knee"),
    "LSPINE": _part("122496007", "Lumbar spine", unpaired=True),
    "PELVIS": _part("816092008", "Pelvis", unpaired=True),
    "RECTUM": _part("34402009", "Rectum", unpaired=True),
    "RETINA": _part("5665001", "Retina"),
    "SHOULDER": _part("16982005", "Shoulder"),
    "SKULL": _part("89546000", "Skull", unpaired=True),
    "SPINE": _part("421060004", "Spine", unpaired=True),
    "STOMACH": _part("69695003", "Stomach", unpaired=True),
    "TSPINE": _part("122495006", "Thoracic spine", unpaired=True),
    "WRIST": _part("74670003", "Wrist joint"),
}

RADIOGRAPHIC_VIEWS = {
    "AP": Concept("399348003", "SCT", "antero-posterior"),
    "PA": Concept("272479007", "SCT", "postero-anterior"),
    "LL": Concept("399173006", "SCT", "left lateral"),
    "RL": Concept("399198007", "SCT", "right lateral"),
}
MAMMOGRAPHIC_VIEWS = {
    "CC": Concept("399162004", "SCT", "cranio-caudal"),
    "MLO": Concept("399368009", "SCT", "medio-lateral oblique"),
    "ML": Concept("399260004", "SCT", "medial-lateral"),
    "LM": Concept("399352003", "SCT", "latero-medial"),
    "LMO": Concept("399099002", "SCT", "latero-medial oblique"),
    "XCCL": Concept("399192008", "SCT", "cranio-caudal exaggerated laterally"),
    "XCCM": Concept("399101009", "SCT", "cranio-caudal exaggerated medially"),
}
OPHTHALMIC_DEVICES = {
    "fundus-camera": Concept("409898007", "SCT", "Fundus Camera"),
    "scanning-laser": Concept("392001008", "SCT", "Scanning Laser Ophthalmoscope"),
    "slit-lamp": Concept("397247004", "SCT", "Slit Lamp Biomicroscope"),
    "external-camera": Concept("409903006", "SCT", "External Camera"),
    "not-stated": Concept("DEVICE-UNSTATED", PRIVATE_SCHEME, "Ophthalmic device, which one is not stated"),
}


def coded(concept: Concept) -> Dataset:
    """The item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept.value, concept.scheme, concept.meaning
    return item


def scheme_of_ours() -> Dataset:
    """The item of Coding Scheme Identification Sequence (0008,0110) that declares our private codes."""
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = PRIVATE_SCHEME, "Private codes of pacsnode"
    item.CodingSchemeResponsibleOrganization = "pacsnode"
    return item
