"""The standard phrases of a report in Korean, and the Korean names of concepts: one table, to be read by a radiologist.

In: concepts and English phrases. Out: Korean beside English; what the table lacks stays English. Translates no sentence
of a model card or of a model: a wrong translation would be worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pacsnode.dicom.codes import PRIVATE_SCHEME, Concept
from pacsnode.findings import Presence

WARNING: Final = "AI 결과, 미확인. 진단용이 아닙니다. / AI result, unverified. Not for diagnosis."
MADE_BY_MACHINE: Final = (
    "이 문서는 프로그램이 자동으로 만든 것이며 의사가 확인하지 않았습니다.",
    "Made by a program; no physician has verified it.",
)
NOTHING_SAID: Final = "소견이 없습니다. / No findings were reported."
CUT: Final = "이하 생략: 나머지는 구조화 보고서(SR)에 있습니다. / Cut here: the rest is in the structured report (SR)."

PRESENCE: Final[Mapping[Presence, str]] = {
    Presence.PRESENT: "있음",
    Presence.ABSENT: "없음",
    Presence.UNDETERMINED: "판정 안 됨",
}
SEX: Final[Mapping[str, str]] = {"M": "남 / M", "F": "여 / F", "O": "기타 / O"}
STATUS: Final[Mapping[str, str]] = {
    "certified": "의료기기 인증",
    "trained": "학습된 모델, 임상 평가 없음",
    "published weights": "공개된 가중치, 임상 평가 없음",
    "classical": "학습하지 않은 공개 알고리즘, 임상 평가 없음",
}

LABELS: Final[Mapping[str, str]] = {
    "AI analysis report": "AI 분석 보고서",
    "Patient": "환자",
    "Name": "이름",
    "Patient ID": "환자 번호",
    "Birth date": "생년월일",
    "Sex": "성별",
    "Study": "검사",
    "Study date": "검사 일시",
    "Accession number": "접수 번호",
    "Modality": "검사 장비",
    "Body part": "부위",
    "Service": "AI 서비스",
    "Analysed": "분석 일시",
    "Findings": "소견",
    "Finding": "항목",
    "Result": "판정",
    "Probability": "확률",
    "Remark": "설명",
    "Measurements": "측정",
    "Measurement": "항목",
    "Value": "값",
    "Method": "방법",
    "Marked places": "표시한 위치",
    "Place": "위치",
    "Outlined": "윤곽을 그린 구조",
    "Limits and notes": "한계와 참고 사항",
    "Input": "입력 영상",
    "Algorithm": "알고리즘",
    "Status": "상태",
    "Version": "버전",
    "Training data": "학습 자료",
    "Quality": "성능",
    "Intended use": "사용 목적",
    "Licence": "라이선스",
    "Computed on": "계산 장치",
    "Bundle SHA-256": "번들 SHA-256",
    "Weights SHA-256": "가중치 SHA-256",
    "Rules SHA-256": "규칙 SHA-256",
    "Node": "노드",
    "Page": "쪽",
}

_CONCEPTS: Final[Mapping[tuple[str, str], str]] = {
    # SNOMED CT
    ("SCT", "39607008"): "폐",
    ("SCT", "80891009"): "심장",
    ("SCT", "10200004"): "간",
    ("SCT", "78961009"): "비장",
    ("SCT", "64033007"): "신장",
    ("SCT", "12738006"): "뇌",
    ("SCT", "41216001"): "전립선",
    ("SCT", "76752008"): "유방",
    ("SCT", "71341001"): "대퇴골",
    ("SCT", "12611008"): "경골",
    ("SCT", "421060004"): "척추",
    ("SCT", "24028007"): "오른쪽",
    ("SCT", "7771000"): "왼쪽",
    ("SCT", "51440002"): "양쪽",
    ("SCT", "42798000"): "면적",
    ("SCT", "118565006"): "부피",
    ("SCT", "410668003"): "길이",
    ("SCT", "81827009"): "지름",
    ("SCT", "8186001"): "심비대",
    ("SCT", "233604007"): "폐렴",
    ("SCT", "27925004"): "결절",
    ("SCT", "36118008"): "기흉",
    ("SCT", "60046008"): "흉수",
    ("SCT", "46621007"): "무기폐",
    ("SCT", "95436008"): "폐 경화",
    ("SCT", "432504007"): "뇌경색",
    ("SCT", "49436004"): "심방세동",
    ("SCT", "64730000"): "정상 동리듬",
    ("SCT", "164854000"): "정상 심전도",
    ("SCT", "251175005"): "심실 조기수축",
    ("SCT", "399208008"): "흉부 단순 X선 촬영",
    ("SCT", "29303009"): "심전도 검사",
    # DICOM, LOINC, ISO/IEEE 11073
    ("DCM", "122707"): "이소성 박동 수",
    ("LN", "8867-4"): "심박수",
    ("MDC", "2:15872"): "PR 간격",
    ("MDC", "2:15880"): "QTc 간격 (Bazett)",
    ("MDC", "2:15892"): "QTc 간격 (Fridericia)",
    ("MDC", "2:16156"): "QRS 폭",
    ("MDC", "2:16160"): "QT 간격",
    ("MDC", "2:16168"): "RR 간격",
    ("MDC", "3:3084"): "서맥",
    # our own
    (PRIVATE_SCHEME, "CTR"): "심흉곽비",
    (PRIVATE_SCHEME, "HR_HIGHEST"): "최고 심박수 (RR 간격 3개)",
    (PRIVATE_SCHEME, "HR_LOWEST"): "최저 심박수 (RR 간격 3개)",
    (PRIVATE_SCHEME, "PAUSE_2S"): "2초가 넘는 휴지기",
    (PRIVATE_SCHEME, "RMSSD"): "RMSSD (연속 RR 간격 차이)",
    (PRIVATE_SCHEME, "SDNN"): "SDNN (정상 RR 간격의 표준편차)",
    (PRIVATE_SCHEME, "TACHYCARDIA"): "빈맥",
}


def label(english: str) -> str:
    """`이름 / Name`. Raises KeyError for a phrase that is not of the table: none is written in one language only."""
    return f"{LABELS[english]} / {english}"


def named(concept: Concept) -> str:
    """`심장 (Heart)`, or the English name alone."""
    korean = _CONCEPTS.get((concept.scheme, concept.value))
    return f"{korean} ({concept.meaning})" if korean else concept.meaning


def place(laterality: Concept | None, site: Concept | None) -> str:
    """`오른쪽 폐 (right lung)`; "" where neither is known. English alone where the table lacks one of the two."""
    parts = [part for part in (laterality, site) if part is not None]
    english = " ".join(part.meaning.lower() for part in parts)
    korean = [_CONCEPTS.get((part.scheme, part.value)) for part in parts]
    return f"{' '.join(map(str, korean))} ({english})" if parts and all(korean) else english


def presence(value: Presence) -> str:
    """`있음 / present`."""
    return f"{PRESENCE[value]} / {value.value}"
