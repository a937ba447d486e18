"""A rules file as a large hospital might have it after years: two hundred rules over all modalities, no two alike.

In: a count and a variant. Out: the text of a file; another variant is the same file after a day's changes. The services
that it names are those of `SERVICES`: copies of a shipped one that accept other images.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Final

from bench.hospital import KINDS
from bench.receivers import ROOT
from ruamel.yaml import YAML

SERVICES: Final = {
    # name: what it accepts, as a condition of pipeline.yaml
    "chest-a": "{Modality: {in: [CR, DX]}}",
    "chest-b": "{Modality: {in: [CR, DX]}, ViewPosition: {not: {in: [LL, RL, LATERAL]}}}",
    "bone-age": "{Modality: {in: [CR, DX]}}",
    "lung-nodule": "{Modality: CT, SliceThickness: {between: [0.5, 3]}}",
    "liver": "{Modality: CT}",
    "stroke": "{Modality: {in: [CT, MR]}}",
    "brain-mr": "{Modality: MR}",
    "breast": "{Modality: MG}",
    "thyroid": "{Modality: US}",
    "rhythm": "{Modality: ECG}",
}
OF_MODALITY: Final = {
    "CR": ("chest-a", "chest-b", "bone-age"),
    "DX": ("chest-a", "chest-b", "bone-age"),
    "CT": ("lung-nodule", "liver", "stroke"),
    "MR": ("brain-mr", "stroke"),
    "MG": ("breast",),
    "US": ("thyroid",),
    "ECG": ("rhythm",),
}
PEERS: Final = ("pacs", "research", "teaching", "er-viewer")
PEER: Final = "investigational: true}"
CHANGED_EVERY: Final = 10
"""Of so many rules one is another in the other variant."""


def rules_text(count: int, variant: str = "", *, seed: int = 11) -> str:
    """The file."""
    senders = sorted({peer for kind in KINDS for peer in kind.peers})
    lines = ["version: 1", "unmatched: keep", "peers:"]
    for number, name in enumerate(senders, start=1):
        lines.append(f"  {name}: {{ae_title: S{number}, host: 192.0.2.{number}, port: 104, may: [store], {PEER}")
    for number, name in enumerate(PEERS, start=101):
        lines.append(f"  {name}: {{ae_title: {name[:8].upper()}, host: 192.0.2.{number}, port: 104, {PEER}")
    lines += ["defaults:", "  complete: {quiet: 20s}", "  results: [sr]", "  send_to: [sender, pacs]", "rules:"]
    for number in range(count):
        changed = variant if variant and number % CHANGED_EVERY == 0 else ""
        lines += _rule(number, random.Random(f"{seed} {number} {changed}"))
    return "\n".join(lines) + "\n"


def install(models: Path) -> None:
    """Put the services into an empty folder."""
    yaml = YAML()
    for name, accepts in SERVICES.items():
        shutil.copytree(ROOT / "models" / "ecg-arrhythmia", models / name)
        pipeline = yaml.load(models / name / "pipeline.yaml")
        pipeline |= {"name": name, "accepts": yaml.load(accepts)}
        yaml.dump(pipeline, models / name / "pipeline.yaml")


def _rule(number: int, chance: random.Random) -> list[str]:
    kind = chance.choices(KINDS, [max(kind.share, 6) for kind in KINDS])[0]
    modality = {"CR": "{in: [CR, DX]}", "DX": "{in: [CR, DX]}"}.get(kind.modality, kind.modality)
    lines = [f"  - name: rule {number} {kind.modality.lower()}", "    when:", f"      Modality: {modality}"]
    chosen = [chance.choice(_examinations(chance)), *chance.choices(*_more(chance), k=chance.randint(0, 3))]
    lines += [f"      {line}" for line in {line.split(":")[0]: line for line in chosen}.values()]
    lines += _deeds(number, kind.modality, chance)
    return lines


def _examinations(chance: random.Random) -> list[str]:
    """What was examined, as people say it; not all of it fits every modality."""
    word = chance.choice(
        ("chest|thorax|흉부", "brain|head|뇌", r"\babd|복부|liver", "spine|척추|요추", "knee|무릎", "breast")
    )
    text = chance.choice(("StudyDescription", "SeriesDescription", "ProtocolName"))
    return [
        f"{text}: {{matches: '{word}'}}",
        f"any: [{{StudyDescription: {{matches: '{word}'}}}}, {{SeriesDescription: {{matches: '{word}'}}}}]",
        f"StudyDescription: {{contains: [{chance.choice(('ct, mri', 'chest, 흉부', 'us, 초음파', 'ap, pa'))}]}}",
        f"BodyPartExamined: {{in: [{chance.choice(('CHEST, THORAX', 'HEAD, BRAIN', 'ABDOMEN', 'LSPINE, KNEE'))}]}}",
    ]


def _more(chance: random.Random) -> tuple[list[str], list[int]]:
    """What is said besides, with how often it is."""
    low = chance.choice((0, 15, 18, 40, 65))
    some = {
        f"BodyPartExamined: {{in: [{chance.choice(('CHEST, THORAX', 'HEAD, BRAIN', 'ABDOMEN', 'LSPINE, KNEE'))}]}}": 4,
        "ImageType: {not: {in: [LOCALIZER, DERIVED]}}": 4,
        "ViewPosition: {not: {in: [LL, RL, LATERAL, LAT]}}": 3,
        "SeriesDescription: {not: {matches: 'scout|topogram|report'}}": 4,
        f"SliceThickness: {{between: [0.5, {chance.choice((2, 3, 5))}]}}": 3,
        f"ContrastBolusAgent: {{exists: {chance.choice(('true', 'false'))}}}": 2,
        f"peer: {{in: [{', '.join(chance.sample(('ct-1', 'ct-2', 'cr-1', 'dr-1', 'mr-1', 'us-1'), k=3))}]}}": 3,
        f"age: {{between: [{low}, {low + chance.choice((10, 30, 60))}]}}": 3,
        f"PatientSex: {chance.choice('FM')}": 1,
        f"study_images: {{between: [1, {chance.choice((4, 50, 400))}]}}": 1,
        "not: {any: [{StudyDescription: {contains: [report, outside]}}, {BurnedInAnnotation: 'YES'}]}": 2,
        "study_has: {SeriesDescription: {matches: 'flair|axial|pa'}}": 1,
        "Rows: {between: [256, 4096]}": 1,
    }
    return list(some), list(some.values())


def _deeds(number: int, modality: str, chance: random.Random) -> list[str]:
    if modality not in OF_MODALITY or number % 7 == 0:
        return [f"    forward: [{chance.choice(PEERS)}]"]
    lines = [f"    run: {chance.choice(OF_MODALITY[modality])}"]
    if chance.random() < 0.3:
        lines.append(f"    send_to: [sender, {chance.choice(PEERS)}]")
    if chance.random() < 0.2:
        lines.append(f"    priority: {chance.choice(('stat', 'off-peak'))}")
    if modality == "CT" and chance.random() < 0.3:
        lines.append("    series: {orientation: axial, images: [20, 2000], choose: thinnest}")
    if modality in ("CR", "DX") and chance.random() < 0.2:
        lines.append("    complete: {quiet: 20s, expect: [{ViewPosition: {in: [PA, AP]}}], at_most: 5m, then: run}")
    if chance.random() < 0.1:
        lines.append("    schedule: {days: [mon, tue, wed, thu, fri], time: ['08:00', '18:00']}")
    return lines
