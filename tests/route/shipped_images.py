"""Images as real and messy sites send them, by the shipped rule that takes them, and near misses of each rule."""

from __future__ import annotations

from pacsnode.route.language import Example

CHEST, LUMBAR, LEGS, BONE_AGE = "chest x-ray", "lumbar compression fracture", "leg length", "bone age"
DENTAL, BREAST, ANEURYSM, INFARCTION = "dental", "breast", "cerebral aneurysm", "cerebral infarction"
PROSTATE, FUNDUS, GASTRO, COLON, ECG = "prostate", "fundus", "gastroscopy", "colonoscopy", "ecg"
SERVICES = {
    CHEST: "chest-xray",
    LUMBAR: "lumbar-compression-fracture",
    LEGS: "leg-length",
    BONE_AGE: "bone-age",
    DENTAL: "dental",
    BREAST: "breast",
    ANEURYSM: "cerebral-aneurysm",
    INFARCTION: "cerebral-infarction",
    PROSTATE: "prostate",
    FUNDUS: "fundus",
    GASTRO: "gastroscopy",
    COLON: "colonoscopy",
    ECG: "ecg-arrhythmia",
}
"""Rules in the order of the file."""

Values = str | float | tuple[str | float, ...]

AXIAL: Values = (1, 0, 0, 0, 1, 0)
CORONAL: Values = (1, 0, 0, 0, 0, -1)
SAGITTAL: Values = (0, 1, 0, 0, 0, -1)
TOF: dict[str, Values] = {"images": 120, "orientation": AXIAL, "SliceThickness": 0.6}
DIFFUSION: dict[str, Values] = {"images": 25, "orientation": AXIAL, "study": "Brain MRI"}
OF_PROSTATE: dict[str, Values] = {"images": 24, "orientation": AXIAL, "sex": "M", "study": "Prostate MRI"}
STORAGE = "1.2.840.10008.5.1.4.1.1."
SOP_CLASSES = {"CR": "1", "DX": "1.1", "PX": "1.1", "MG": "1.2", "CT": "2", "MR": "4", "US": "6.1", "ECG": "9.1.1"}
SOP_CLASSES |= {"ES": "77.1.1", "OP": "77.1.5.1", "SR": "88.33", "SEG": "66.4"}
"""What a modality sends where a row says nothing else; secondary capture for all others."""
NAMES = {"study": "StudyDescription", "series": "SeriesDescription", "protocol": "ProtocolName", "view": "ViewPosition"}
NAMES |= {
    "order": "RequestedProcedureDescription",
    "part": "BodyPartExamined",
    "age": "PatientAge",
    "kind": "ImageType",
}
NAMES |= {"sex": "PatientSex", "orientation": "ImageOrientationPatient", "photometric": "PhotometricInterpretation"}


def image(modality: str, **values: Values) -> Example:
    """An image, or a series of `images`; `sop` is the end of its SOP class."""
    sop, images = values.pop("sop", SOP_CLASSES.get(modality, "7")), values.pop("images", 1)
    study: dict[str, object] = {"Modality": modality, "SOPClassUID": f"{STORAGE}{sop}"}
    for name, value in values.items():
        study[NAMES.get(name, name)] = list(value) if isinstance(value, tuple) else value
    return Example.model_validate({"study": study, "images": images, "expect": []})


def tof(**values: Values) -> Example:
    """Time of flight, axial and thin unless something else is said."""
    return image("MR", **{**TOF, **values})


def diffusion(**values: Values) -> Example:
    """A series of a brain, axial unless something else is said."""
    return image("MR", **{**DIFFUSION, **values})


def of_prostate(**values: Values) -> Example:
    """A series of a man's prostate, axial unless something else is said."""
    return image("MR", **{**OF_PROSTATE, **values})


def scope(study: str = "", **values: Values) -> Example:
    """Endoscopy."""
    return image("ES", **({"study": study} if study else {}), **values)


SPACED: dict[str, Values] = {"PixelSpacing": (0.143, 0.143)}
MODIFIER = "ViewCodeSequence.ViewModifierCodeSequence.CodeMeaning"
RGB: dict[str, Values] = {"photometric": "RGB"}
NOTHING = ""

# By rule: what it takes, and near misses with the rule that takes them instead.
TAKEN: dict[str, list[Example]] = {
    CHEST: [
        image("DX", part="CHEST", view="PA", age="064Y"),
        image("DX", part="THORAX", view="AP", PresentationIntentType="FOR PRESENTATION"),
        image("CR", study="Chest P-A(Erect)"),
        image("CR", study="흉부", part="ABDOMEN"),
        image("CR", study="흉부 정면"),
        image("DX", series="흉부PA"),
        image("CR", protocol="CXR"),
        image("CR", order="Chest AP portable", part="ABDOMEN"),
        image("DX", study="CHEST PA & LAT", series="CHEST PA"),
        image("DX", study="CHEST LAT", series="Chest PA", view="PA"),
        image("DX", study="흉부 정측면", series="흉부 정면"),
        image("DX", study="L-SPINE AP, CHEST PA", series="CHEST PA", part="LSPINE"),
        image("DX", study="RIB BOTH", protocol="Chest PA", part="RIB"),
        image("CR", sop="7", part="CHEST", view="PA", kind=("DERIVED", "SECONDARY")),
        image("CR", study="PNS, CHEST PA", protocol="Chest PA", part="SKULL"),
        image("DX", part="CHEST", PatientBirthDate="19601231", StudyDate="20260331"),
        image("DX", part="CHEST", age="016Y"),
    ],
    LUMBAR: [
        image("DX", study="L-SPINE LAT", part="CHEST"),
        image("CR", study="LSPINE", view="LL"),
        image("DX", study="L-S spine AP/LAT", view="RL"),
        image("DX", series="TLSPINE LAT"),
        image("CR", study="Spine: L-S (AP,LAT)", series="Lateral"),
        image("CR", study="요추 측면"),
        image("DX", study="흉요추 정/측면", series="측면"),
        image("DX", series="요추Lat"),
        image("DX", part="LSPINE", series="FLEXION"),
        image("DX", study="L-SP LAT", part="ABDOMEN"),
        image("DX", study="Lumbar dynamic", protocol="L-spine extension"),
        image("DX", part="LUMBAR SPINE", ViewCodeMeaning="left lateral"),
        image("DX", study="L-SPINE AP & LAT (standing)", series="LAT", age="077Y"),
    ],
    LEGS: [
        image("CR", study="Scanogram", **SPACED),
        image("CR", series="Teleroentgenogram", **SPACED),
        image("DX", study="Long bone", **SPACED),
        image("DX", protocol="Whole leg standing", part="HIP", **SPACED),
        image("DX", study="하지 전장", ImagerPixelSpacing=(0.2, 0.2)),
        image("DX", order="하지전장 촬영", view="AP", **SPACED),
        image("CR", study="BOTH LOWER EXT", part="EXTREMITY", **SPACED),
        image("DX", study="Hip-to-Ankle AP", **SPACED),
        image("DX", study="양하지 standing AP", **SPACED),
        image("DX", part="LEG", Rows=7200, Columns=2600, **SPACED),
    ],
    BONE_AGE: [
        image("DX", study="BONE AGE", age="009Y"),
        image("DX", study="LT HAND AP", age="011Y"),
        image("CR", study="골연령", PatientBirthDate="20160502", StudyDate="20260331"),
        image("DX", series="수골 정면", age="007Y"),
        image("DX", study="Both hands", view="PA", age="019Y"),
        image("DX", part="HAND", view="AP", age="018M"),
        image("CR", protocol="Hand&Wrist PA", age="001M"),
        image("CR", order="골 연령 측정", part="CHEST", age="012Y"),
        image("DX", study="HAND AP & OBL", series="HAND AP", age="010Y"),
    ],
    DENTAL: [
        image("PX"),
        image("PX", study="PANORAMA", PresentationIntentType="FOR PRESENTATION"),
        image("DX", study="파노라마"),
        image("OT", series="PANO"),
        image("RG", study="Dental panoramic view"),
        image("CR", protocol="Orthopantomogram", part="HEAD"),
        image("PX", sop="7", study="구강 파노라마", part="JAW"),
    ],
    BREAST: [
        image("MG", ImageLaterality="R", view="CC", PresentationIntentType="FOR PRESENTATION"),
        image("MG", ImageLaterality="L", ViewCodeValue="399368009"),
        image("MG", study="MAMMO BOTH", series="R-MLO"),
        image("MG", study="유방촬영", series="LCC"),
        image("CR", study="MAMMO BOTH", part="CHEST"),
        image("CR", study="유방 촬영", series="RCC", part="BREAST"),
        image("MG", ImageLaterality="L", view="MLO", BreastImplantPresent="NO", part="BREAST"),
    ],
    ANEURYSM: [
        tof(study="MRA Brain", series="TOF 3D"),
        tof(study="뇌혈관 MRA", series="3D TOF", kind=("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D")),
        tof(study="Brain MRI+MRA", series="Willis", SliceThickness=1.4, SpacingBetweenSlices=0.7),
        tof(part="HEAD", AngioFlag="Y", orientation=(1, 0, 0, 0, 0.97, 0.24)),
        tof(protocol="tof_fl3d_tra_p2_multi-slab", part="HEAD", images=160),
        tof(study="STROKE MR", series="MRA intracranial"),
        tof(protocol="3D INFLOW", part="BRAIN", SliceThickness=1.1),
    ],
    INFARCTION: [
        diffusion(series="DWI"),
        diffusion(series="Diffusion b=1000", images=50),
        diffusion(series="isoDWI"),
        diffusion(series="dADC", kind=("DERIVED", "PRIMARY", "ADC")),
        diffusion(study="뇌 MRI", series="확산강조영상"),
        diffusion(study="Stroke", kind=("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "NORM")),
        diffusion(study="MR", part="BRAIN", DiffusionBValue=1000),
        diffusion(study="두부 MRI (급성 뇌경색)", series="ep2d_diff_3scan_trace_ADC"),
    ],
    PROSTATE: [
        of_prostate(part="PELVIS", series="T2_TSE_AX"),
        of_prostate(study="PROSTATE DYNAMIC", series="t2_tse_tra", part="ABDOMEN"),
        of_prostate(study="전립선 MRI", series="DWI b1400"),
        of_prostate(series="ADC (10^-6 mm2/s)", kind=("DERIVED", "SECONDARY", "ADC")),
        of_prostate(study="mpMRI", series="T2W_TSE_ax"),
        of_prostate(study="MR", part="PROSTATE", protocol="ep2d_diff_tra", age="066Y"),
    ],
    FUNDUS: [
        image("OP", photometric="YBR_FULL_422", ImageLaterality="R"),
        image("OP", sop="77.1.5.2", **RGB),
        image("OT", study="안저 촬영", series="OD", **RGB),
        image("OP", study="FAG", series="Color OD", **RGB),
        image("XC", study="Fundus photo", sop="77.1.4", **RGB),
        image("OT", Manufacturer="TOPCON", series="OS", **RGB),
        image("XC", Manufacturer="Canon Inc.", ImageLaterality="L", **RGB),
        image("OT", Manufacturer="NIDEK", series="우안", **RGB),
    ],
    GASTRO: [
        scope("EGD"),
        scope("위내시경"),
        scope("수면위내시경", sop="77.1.1.1"),
        scope(part="STOMACH"),
        scope("EGD", series="lower body"),
        scope("SCOPE", part="UGI"),
        image("OT", study="GFS", **RGB),
        image("SC", series="Gastroscopy", **RGB),
        scope("상부위장관 내시경", part="COLON"),
        scope("위내시경+대장내시경", series="위"),
        scope("위,대장내시경", part="STOMACH"),
    ],
    COLON: [
        scope("CFS"),
        scope("대장내시경"),
        scope("수면 대장 내시경", part="STOMACH"),
        scope(part="COLON"),
        scope("SCOPE", part="COLON"),
        image("OT", study="Colonoscopy", **RGB),
        scope("Sigmoidoscopy", sop="77.1.1.1"),
        scope("위내시경+대장내시경", series="대장"),
        scope("위,대장내시경", series="Colonofiberscopy"),
        scope("위,대장내시경", part="COLON"),
    ],
    ECG: [
        image("ECG", age="042Y"),
        image("HD", sop="9.1.2", study="심전도"),
        image("ECG", sop="9.1.4"),
        image("OT", sop="9.1.1", study="ECG 12 lead"),
    ],
}
NEAR_MISSES: dict[str, list[tuple[str, Example]]] = {
    CHEST: [
        (NOTHING, image("DX", part="CHEST", view="LL")),
        (NOTHING, image("CR", study="CHEST LAT")),
        (NOTHING, image("CR", series="흉부 측면")),
        (NOTHING, image("DX", study="흉부 정측면", series="흉부Lat")),
        (NOTHING, image("DX", study="CHEST PA & LAT", series="LAT")),
        (NOTHING, image("CR", study="Chest Lt. decubitus")),
        (NOTHING, image("CR", part="CHEST", series="RIB SERIES")),
        (NOTHING, image("CR", study="흉부 늑골", part="CHEST")),
        (NOTHING, image("CR", study="C-SPINE AP", part="CHEST")),
        (NOTHING, image("DX", study="KNEE BOTH AP", part="CHEST")),
        (NOTHING, image("CR", study="PNS Water's view", part="CHEST")),
        (BONE_AGE, image("DX", study="CHEST PA, 골연령", series="골연령", age="016Y")),
        (LEGS, image("DX", study="CHEST PA", series="Scanogram", **SPACED)),
        (NOTHING, image("DX", study="CHEST PA, ABDOMEN ERECT", series="ABDOMEN ERECT")),
        (NOTHING, image("DX", study="T-SPINE AP", part="THORAX")),
        (NOTHING, image("DX", part="CHEST", view="AP", age="005Y")),
        (NOTHING, image("DX", part="CHEST", PatientBirthDate="20200101", StudyDate="20260331")),
        (NOTHING, image("CR", study="Babygram", part="CHEST")),
        (NOTHING, image("DX", part="CHEST", view="PA", PresentationIntentType="FOR PROCESSING")),
        (NOTHING, image("CR", sop="7", part="CHEST", series="AI chest-xray 0.1.0 - UNVERIFIED")),
        (NOTHING, image("DX", part="CHEST", series="Chest PA bone suppressed")),
        (NOTHING, image("CT", part="CHEST", study="CHEST CT")),
        (NOTHING, image("SR", study="CHEST PA", part="CHEST")),
        (NOTHING, image("SEG", study="CHEST PA", part="CHEST")),
        (NOTHING, image("DX", study="CHEST PA", sop="104.1", HasPixelData="NO")),
    ],
    LUMBAR: [
        (NOTHING, image("DX", study="L-SPINE AP & LAT", series="AP")),
        (NOTHING, image("DX", study="L-SPINE LAT", view="AP")),
        (NOTHING, image("CR", study="요추 정면")),
        (NOTHING, image("DX", study="L-SPINE AP & LAT")),
        (NOTHING, image("DX", study="L-SPINE", series="Oblique", view="RPO")),
        (NOTHING, image("DX", study="C-SPINE LAT", view="LL")),
        (NOTHING, image("DX", study="경추 측면")),
        (NOTHING, image("DX", study="T-SPINE LAT", view="LL")),
        (NOTHING, image("DX", study="WHOLE SPINE LAT", series="Whole spine lat", part="LSPINE")),
        (NOTHING, image("DX", study="L-SPINE", series="LAT BENDING RT")),
        (NOTHING, image("DX", study="HIP TRANS LAT", part="LSPINE", view="LL")),
        (NOTHING, image("DX", study="L-SPINE LAT", age="012Y")),
        (NOTHING, image("MR", study="L-SPINE MRI", series="T1 SAG", orientation=SAGITTAL)),
        (CHEST, image("DX", study="L-SPINE LAT, CHEST PA", series="CHEST PA")),
    ],
    LEGS: [
        (NOTHING, image("CR", study="Scanogram")),
        (NOTHING, image("DX", study="KNEE AP", part="LEG", Rows=3000, **SPACED)),
        (NOTHING, image("DX", study="Tibia AP", part="LOWER EXTREMITY", Rows=4280, **SPACED)),
        (NOTHING, image("DX", study="WHOLE SPINE SCANOGRAM", **SPACED)),
        (NOTHING, image("DX", study="Long bone survey", **SPACED)),
        (NOTHING, image("DX", study="Whole leg standing", series="LAT", **SPACED)),
        (NOTHING, image("DX", study="하지 전장", view="LL", **SPACED)),
        (NOTHING, image("CT", study="Scanogram", kind=("ORIGINAL", "PRIMARY", "LOCALIZER"), **SPACED)),
        (CHEST, image("DX", study="CHEST PA, Long bone", series="CHEST PA", **SPACED)),
        (NOTHING, image("DX", study="상지 장골 long bone upper", **SPACED)),
    ],
    BONE_AGE: [
        (NOTHING, image("DX", study="LT HAND AP", age="034Y")),
        (NOTHING, image("DX", study="LT HAND AP")),
        (NOTHING, image("DX", study="BONE AGE", age="020Y")),
        (NOTHING, image("DX", study="HAND AP & OBL", series="HAND OBL", age="009Y")),
        (NOTHING, image("DX", part="HAND", view="LATERAL", age="009Y")),
        (NOTHING, image("DX", part="HAND", study="FOOT AP", age="009Y")),
        (NOTHING, image("CR", part="HAND", series="손가락", age="009Y")),
        (NOTHING, image("CR", study="WRIST LAT", part="WRIST", age="009Y")),
    ],
    DENTAL: [
        (NOTHING, image("PX", series="CEPHALO LAT")),
        (NOTHING, image("DX", study="세팔로")),
        (NOTHING, image("PX", study="TMJ", part="TMJ")),
        (NOTHING, image("CT", study="CBCT PANORAMA")),
        (NOTHING, image("PX", series="PANORAMA (CBCT recon)")),
        (NOTHING, image("PX", sop="2", study="Cone beam")),
        (NOTHING, image("IO", study="Periapical", sop="1.3")),
        (NOTHING, image("US", study="panoramic view, shoulder")),
    ],
    BREAST: [
        (NOTHING, image("MG", ImageLaterality="R", view="CC", PresentationIntentType="FOR PROCESSING")),
        (NOTHING, image("MG", ImageLaterality="R", view="CC", sop="1.2.1")),
        (NOTHING, image("MG", ImageLaterality="R", view="CC", sop="13.1.3")),
        (NOTHING, image("MG", view="MLO", kind=("DERIVED", "PRIMARY", "TOMO", "GENERATED_2D"))),
        (NOTHING, image("MG", series="RCC SPOT MAG")),
        (NOTHING, image("MG", view="CC", **{MODIFIER: "Spot Compression"})),
        (NOTHING, image("MG", view="MLO", BreastImplantPresent="YES")),
        (NOTHING, image("MG", view="ML", ImageLaterality="L")),
        (NOTHING, image("MG", study="유방 생검", series="검체")),
        (NOTHING, image("MG", sop="7", series="density map")),
        (NOTHING, image("US", study="유방 초음파", part="BREAST")),
        (NOTHING, image("MR", study="Breast MRI", part="BREAST")),
        (CHEST, image("CR", study="Chest PA", part="BREAST")),
    ],
    ANEURYSM: [
        (NOTHING, tof(study="MRA Brain", series="MIP_TOF")),
        (NOTHING, tof(study="MRA Brain", series="TOF", kind=("DERIVED", "SECONDARY", "MPR"))),
        (NOTHING, tof(study="MRA Brain", series="TOF 3D", images=20)),
        (NOTHING, tof(study="MRA Brain", series="TOF 3D", SliceThickness=5)),
        (NOTHING, tof(study="MRA Brain", series="TOF scout", kind=("ORIGINAL", "PRIMARY", "LOCALIZER"))),
        (NOTHING, tof(study="Brain MRI+MRA", series="MRA-Neck")),
        (NOTHING, tof(study="MRA Brain", series="TOF cor", orientation=CORONAL)),
        (NOTHING, tof(study="MRA Brain", series="T2 FLAIR")),
        (NOTHING, tof(study="MRA Brain", series="3D VWI 혈관벽")),
        (NOTHING, tof(study="MR venography brain", series="MRV TOF")),
        (NOTHING, tof(study="Renal MRA", series="TOF", part="HEAD")),
        (NOTHING, image("CT", images=200, study="CTA Brain", orientation=AXIAL, SliceThickness=0.6)),
    ],
    INFARCTION: [
        (NOTHING, diffusion(series="eADC")),
        (NOTHING, diffusion(series="DTI 32dir")),
        (NOTHING, diffusion(series="DWI cor", orientation=CORONAL)),
        (NOTHING, diffusion(series="DWI", images=3)),
        (NOTHING, diffusion(series="T2 FLAIR")),
        (NOTHING, diffusion(study="Liver MRI", series="DWI b=800", part="HEAD")),
        (NOTHING, diffusion(study="Brain & neck", series="DWI neck")),
        (NOTHING, diffusion(series="DWI localizer", kind=("ORIGINAL", "PRIMARY", "LOCALIZER"))),
        (NOTHING, image("CT", images=30, study="Brain CT", orientation=AXIAL)),
        (NOTHING, image("SEG", study="Brain MRI", series="AI cerebral-infarction ADC")),
        (PROSTATE, diffusion(study="전립선 MRI", series="DWI b1000", part="HEAD")),
    ],
    PROSTATE: [
        (NOTHING, of_prostate(series="T2_TSE_SAG", orientation=SAGITTAL)),
        (NOTHING, of_prostate(series="t2 oblique cor", orientation=CORONAL)),
        (NOTHING, of_prostate(series="T1_VIBE_DCE")),
        (NOTHING, of_prostate(study="Rectum MRI", part="PELVIS", series="T2_TSE_AX")),
        (NOTHING, of_prostate(study="Pelvis MRI", part="PELVIS", sex="F", series="T2_TSE_AX")),
        (NOTHING, of_prostate(study="Prostate MRI s/p prostatectomy", series="T2_TSE_AX")),
        (NOTHING, of_prostate(series="T2_TSE_AX", images=4)),
        (NOTHING, of_prostate(series="localizer t2 haste", kind=("ORIGINAL", "PRIMARY", "LOCALIZER"))),
        (NOTHING, of_prostate(series="T2_TSE_AX", age="012Y")),
        (NOTHING, image("CT", images=60, study="Prostate CT", part="PROSTATE", orientation=AXIAL)),
    ],
    FUNDUS: [
        (NOTHING, image("OP", series="FAG", **RGB)),
        (NOTHING, image("OP", photometric="MONOCHROME2", series="Red free")),
        (NOTHING, image("OP", series="Anterior segment", **RGB)),
        (NOTHING, image("OP", AnatomicRegionCodeMeaning="Cornea", **RGB)),
        (NOTHING, image("OPT", sop="77.1.5.4", study="안저 OCT")),
        (NOTHING, image("OT", Manufacturer="TOPCON", ManufacturerModelName="3D OCT-2000", series="OD", **RGB)),
        (NOTHING, image("OT", study="Fundus OCT", series="OD", **RGB)),
        (NOTHING, image("OT", series="OD", **RGB)),
        (NOTHING, image("OP", sop="77.1.5.5", photometric="RGB")),
        (NOTHING, image("OP", sop="104.1", study="안저 촬영", HasPixelData="NO")),
        (NOTHING, image("OT", study="시야검사", Manufacturer="Zeiss", series="OU", **RGB)),
    ],
    GASTRO: [
        (COLON, scope("CFS", part="STOMACH")),
        (NOTHING, scope("위,대장내시경")),
        (NOTHING, scope("기관지내시경", part="STOMACH")),
        (NOTHING, scope("EGD", series="EUS radial")),
        (NOTHING, scope("Bronchoscopy")),
        (NOTHING, image("OT", study="위내시경", series="결과지")),
        (NOTHING, image("ES", study="위내시경", sop="104.1", HasPixelData="NO")),
        (NOTHING, image("RF", study="UGI series", part="STOMACH")),
        (NOTHING, image("OT", part="STOMACH", **RGB)),
    ],
    COLON: [
        (GASTRO, scope("EGD", part="COLON")),
        (NOTHING, scope("캡슐내시경", part="COLON")),
        (NOTHING, scope("방광경 cystoscopy", part="COLON")),
        (NOTHING, image("CT", protocol="6.9 Colonoscopy", part="COLON")),
        (NOTHING, image("RF", study="Colon study", part="COLON")),
        (NOTHING, image("SR", study="대장내시경", part="COLON")),
        (NOTHING, image("OT", study="대장내시경", series="Report")),
    ],
    ECG: [
        (NOTHING, image("OT", study="ECG REPORT")),
        (NOTHING, image("ECG", sop="104.1", study="심전도")),
        (NOTHING, image("ECG", sop="9.1.3", study="Holter")),
        (NOTHING, image("HD", sop="9.2.1")),
        (NOTHING, image("ECG", age="004Y")),
        (NOTHING, image("SR", study="심전도")),
    ],
}
