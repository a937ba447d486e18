"""Which presentation contexts an association gets: pure, remembered by the bytes of the request.

In: the variable items of an A-ASSOCIATE-RQ. Out: the A-ASSOCIATE-AC and what each context id then means. Every
storage SOP class is taken, private and future ones too: an archive that refuses an object loses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pynetdicom.service_class import NonPatientObjectStorageServiceClass, ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from pacsnode.dimse import associate, pdus
from pacsnode.dimse.associate import ContextResult, ProposedContext
from pacsnode.dimse.commitment import COMMITMENT as COMMITMENT

VERIFICATION: Final = "1.2.840.10008.1.1"
PERFORMED_PROCEDURE_STEP: Final = "1.2.840.10008.3.1.2.3.3"
AVAILABILITY_NOTIFICATION: Final = "1.2.840.10008.5.1.4.33"
NORMALISED: Final = frozenset((COMMITMENT, PERFORMED_PROCEDURE_STEP, AVAILABILITY_NOTIFICATION))
"""What is asked and told beside storage (PS3.4 annexes F, J, R): in one of the two uncompressed little endians."""
_DICOM_ROOT: Final = "1.2.840.10008."
_STORAGE_ARC: Final = "1.2.840.10008.5.1.4.1.1."

_EXPLICIT_LITTLE_ENDIAN: Final = ("1.2.840.10008.1.2.1",)
_LOSSLESS: Final = (
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 part 2 lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless RPCL
    "1.2.840.10008.1.2.4.110",  # JPEG XL lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.8.1",  # deflated image frames
)
_OTHER_UNCOMPRESSED: Final = (
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
)
_LOSSY: Final = tuple(
    f"1.2.840.10008.1.2.4.{number}"
    for number in (
        *("50", "51", "81", "91", "93", "203", "111", "112"),  # JPEG, JPEG-LS, JPEG 2000, HTJ2K, JPEG XL
        *("100", "100.1", "101", "101.1", "102", "102.1", "103", "103.1", "104", "104.1"),  # MPEG2, H.264
        *("105", "105.1", "106", "106.1", "107", "108"),  # H.264 stereo, HEVC
    )
)
NORMALISED_TRANSFER_SYNTAXES: Final = (*_EXPLICIT_LITTLE_ENDIAN, "1.2.840.10008.1.2")
TRANSFER_SYNTAXES: Final = _EXPLICIT_LITTLE_ENDIAN + _LOSSLESS + _OTHER_UNCOMPRESSED + _LOSSY
"""All we take, best first: it decides only where one context offers several. Lossy last, so that nobody compresses for
us what he has whole; Implicit VR behind lossless, as it loses the VRs of private elements. Not JPIP, whose pixels lie
elsewhere, and not SMPTE 2110."""


@dataclass(frozen=True)
class Negotiated:
    """One answer. `contexts`: accepted context id to (abstract syntax, transfer syntax)."""

    accept_pdu: bytes
    contexts: Mapping[int, tuple[str, str]]
    maximum_length: int
    application_context: str


@lru_cache(maxsize=1024)
def is_storage(abstract_syntax: str) -> bool:
    """Whether objects of this SOP class are stored by C-STORE, as far as anyone knows."""
    if not abstract_syntax or abstract_syntax == VERIFICATION:
        return False
    if not abstract_syntax.startswith(_DICOM_ROOT):
        return True
    service = uid_to_service_class(abstract_syntax)
    if service is ServiceClass:  # retired, or newer than pynetdicom
        return abstract_syntax.startswith(_STORAGE_ARC)
    return service in (StorageServiceClass, NonPatientObjectStorageServiceClass)


@lru_cache(maxsize=64)
def negotiate(items: bytes) -> Negotiated:
    """Answer a request by its variable items: a modality sends the same ones each time, so the answer is remembered.

    Raises ProtocolViolation for items that are malformed.
    """
    request = associate.decode_items(items)
    results = [_result(context) for context in request.proposed]
    pdus.payload_bytes(request.maximum_length)
    contexts = {
        result.context_id: (context.abstract_syntax, result.transfer_syntax)
        for context, result in zip(request.proposed, results, strict=True)
        if result.result == associate.ACCEPTANCE
    }
    # An archive that tells what it has on an association of its own is the SCP in it (PS3.4 J.3.3.1.2). The role of
    # any other class would be for C-GET, which we do not ask for: unsaid, the requestor stays SCU.
    roles = {sop_class: role for sop_class, role in request.roles.items() if sop_class == COMMITMENT and role.scp}
    accept_pdu = associate.encode_accept(results, roles)
    return Negotiated(accept_pdu, contexts, request.maximum_length, request.application_context)


def _result(context: ProposedContext) -> ContextResult:
    fallback = "1.2.840.10008.1.2"  # not significant in a refusal (PS3.8 9.3.3.2), but some readers want one
    normalised = context.abstract_syntax in NORMALISED
    if context.abstract_syntax != VERIFICATION and not normalised and not is_storage(context.abstract_syntax):
        return ContextResult(context.context_id, associate.ABSTRACT_SYNTAX_NOT_SUPPORTED, fallback)
    offered = frozenset(context.transfer_syntaxes)
    served = NORMALISED_TRANSFER_SYNTAXES if normalised else TRANSFER_SYNTAXES
    chosen = next((syntax for syntax in served if syntax in offered), "")
    if not chosen:
        return ContextResult(context.context_id, associate.TRANSFER_SYNTAXES_NOT_SUPPORTED, fallback)
    return ContextResult(context.context_id, associate.ACCEPTANCE, chosen)
