"""The shipped rules on what real and messy sites send: which rule takes an image, and that its near misses are left."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from pacsnode import yamlfile
from pacsnode.archive.attributes import read_attributes
from pacsnode.conditions import ALWAYS
from pacsnode.dicom.header import read_header
from pacsnode.dimse.part10 import read_meta
from pacsnode.handover import Candidate, Instance, Study
from pacsnode.infer.catalogue import load_service
from pacsnode.operands import named
from pacsnode.operators import parse
from pacsnode.route.decide import decide
from pacsnode.route.examples import check_examples, example_study
from pacsnode.route.language import Example
from pacsnode.route.rule import ServiceSummary
from pacsnode.route.rules import Rules, load_rules
from tests.route.shipped_images import (
    CHEST,
    ECG,
    NEAR_MISSES,
    PROSTATE,
    SAGITTAL,
    SERVICES,
    TAKEN,
    Values,
    diffusion,
    image,
    of_prostate,
    tof,
)

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "routing_rules.yaml"
SHARED = ROOT.parent / "shared" / "data"
SHIPPED_SERVICES = {
    name: ServiceSummary(name, "trained", load_service(ROOT / "models" / name).accepts)
    for name in ("chest-xray", "ecg-arrhythmia")
}
EVERY_SERVICE = {name: ServiceSummary(name, "trained", ALWAYS) for name in SERVICES.values()} | SHIPPED_SERVICES
"""Those that are shipped as they are; the others take everything."""

ROWS = [(rule, example) for rule, examples in TAKEN.items() for example in examples]
ROWS += [row for rows in NEAR_MISSES.values() for row in rows]


def switched_on(rules: Rules) -> Rules:
    return replace(rules, rules=tuple(replace(rule, enabled=True) for rule in rules.rules))


RULES = switched_on(load_rules(SHIPPED, EVERY_SERVICE, UTC))


def load(folder: Path, content: str, services: dict[str, ServiceSummary] = EVERY_SERVICE) -> Rules:
    path = folder / "routing_rules.yaml"
    path.write_text(content, encoding="utf-8")
    return load_rules(path, services, UTC)


def told(row: tuple[str, Example]) -> str:
    image = row[1].study[0]
    return " ".join([row[0] or "nothing", *("\\".join(image[name]) for name in image if name != "SOPClassUID")])


@pytest.mark.parametrize(("rule", "example"), ROWS, ids=map(told, ROWS))
def test_an_image_is_taken_by_the_rule_that_it_is_for_and_by_no_other(rule: str, example: Example) -> None:
    decision = decide(example_study(example), RULES)
    assert [verdict.rule for verdict in decision.verdicts if verdict.matched] == ([rule] if rule else [])
    assert [candidate.service for candidate in decision.candidates] == ([SERVICES[rule]] if rule else [])


def test_every_rule_is_tried_from_both_sides() -> None:
    assert len(ROWS) >= 120
    assert TAKEN.keys() == NEAR_MISSES.keys() == SERVICES.keys()
    for rule in SERVICES:
        assert len(TAKEN[rule]) >= 4
        assert len(NEAR_MISSES[rule]) >= 4
        assert rule not in [other for other, _ in NEAR_MISSES[rule]]


def test_every_rule_is_shipped_switched_off_and_says_what_it_is_for() -> None:
    rules = load_rules(SHIPPED, SHIPPED_SERVICES, UTC)
    assert rules.warnings == ()
    assert check_examples(rules) == []
    assert {rule.name: rule.run for rule in rules.rules} == {name: (run,) for name, run in SERVICES.items()}
    assert not any(rule.enabled for rule in rules.rules)
    assert all(rule.note for rule in rules.rules)


def test_switching_a_rule_on_is_one_word_and_warns_of_a_service_that_is_not_there(tmp_path: Path) -> None:
    on = SHIPPED.read_text(encoding="utf-8").replace("enabled: false\n", "enabled: true\n")
    rules = load(tmp_path, on, SHIPPED_SERVICES)
    assert all(rule.enabled for rule in rules.rules)
    assert len(rules.warnings) == len(SERVICES) - len(SHIPPED_SERVICES)
    assert all(warning.endswith("[unknown-service]") for warning in rules.warnings)
    assert check_examples(rules) == []


def test_no_line_is_longer_than_an_editor_shows() -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 160
    assert not any(
        re.search(r"(?<!\S)[&*][A-Za-z]", line.split(" #")[0]) for line in lines if line[:1] != "#"
    )  # anchors


# --- when they start --------------------------------------------------------------------------------------------------


def candidate(rules: Rules, *images: Example) -> Candidate:
    """The one case that some images of a study become."""
    studies = [example_study(image) for image in images]
    instances = [
        replace(instance, sop_instance_uid=f"2.25.{number}.{index}", series_instance_uid=f"2.25.{number}")
        for number, study in enumerate(studies)
        for index, instance in enumerate(study.instances)
    ]
    (made,) = decide(Study("2.25", "", "", "", 0, tuple(instances)), rules).candidates
    return made


def test_a_mammogram_waits_for_four_views_by_tag_code_or_label_and_not_for_ever() -> None:
    views = [
        image("MG", ImageLaterality="R", view="CC"),
        image("MG", ImageLaterality="L", ViewCodeValue="R-10242"),
        image("MG", series="RT MLO"),
    ]
    raw = image("MG", ImageLaterality="L", view="MLO", PresentationIntentType="FOR PROCESSING")
    waiting = candidate(RULES, *views, raw)
    assert len(waiting.completion.missing) == 1
    assert "MLO" in waiting.completion.missing[0]
    assert (waiting.completion.at_most_s, waiting.completion.then) == (120, "run")
    whole = candidate(RULES, *views, raw, image("MG", ImageLaterality="L", ViewCodeValue="399368009"))
    assert (whole.completion.missing, len(whole.instances)) == ((), 4)


def test_an_infarction_is_read_first_and_while_the_examination_goes_on() -> None:
    b1000, adc = diffusion(series="DWI b1000"), diffusion(series="ADC")
    early = candidate(RULES, b1000)
    assert (early.priority, early.completion.quiet_s <= 20, len(early.completion.missing)) == (1, True, 1)
    assert (early.late.action, early.late.within_s) == ("rerun", 24 * 3600)
    later = candidate(RULES, b1000, adc, diffusion(series="T2 FLAIR"))
    assert (later.completion.missing, len(later.instances)) == ((), 50)


def test_of_several_angiographies_the_longest_is_read_and_never_with_a_slice_missing() -> None:
    long, short = (tof(study="MRA Brain", series="TOF", images=count) for count in (140, 70))
    made = candidate(RULES, short, long)
    assert (len(made.instances), made.completion.missing, made.completion.then) == (140, (), "keep")
    holed = example_study(long)
    lacking = replace(holed, instances=holed.instances[:50] + holed.instances[51:])
    (waiting,) = decide(lacking, RULES).candidates
    assert waiting.completion.missing == ("1 image between 1 and 140 of series 2.25.1",)


def test_a_prostate_waits_for_t2_and_adc_and_takes_no_other_plane() -> None:
    t2, adc = of_prostate(series="t2_tse_tra"), of_prostate(series="ADC")
    sagittal = of_prostate(series="t2_tse_sag", orientation=SAGITTAL)
    assert len(candidate(RULES, adc, sagittal).completion.missing) == 1
    whole = candidate(RULES, t2, adc, sagittal)
    assert (whole.completion.missing, len(whole.instances)) == ((), 48)


# --- the lines that wait behind a comment -----------------------------------------------------------------------------


def uncommented(start: str) -> str:
    """The shipped file with the lines in force that begin so."""
    text, changed = re.subn(rf"^( +)# ({re.escape(start)})", r"\1\2", SHIPPED.read_text(encoding="utf-8"), flags=re.M)
    assert changed == 1
    return text


def test_the_chest_rule_may_wait_for_two_views(tmp_path: Path) -> None:
    rules = switched_on(load(tmp_path, uncommented("complete: {quiet: 20s, expect")))
    frontal, lateral = (image("DX", part="CHEST", view=view) for view in ("PA", "LL"))
    assert candidate(rules, frontal).completion.missing == ("no image with ViewPosition LL or RL",)
    assert candidate(rules, frontal, lateral).completion.missing == ()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("0019,xx0C SIEMENS MR HEADER", "1000"),
        ("0043,xx39 GEMS_PARM_01[1]: {between: [1, ", ("800", "8", "0", "0")),
        ("0043,xx39 GEMS_PARM_01[1]: {between: [1000000001", ("1000000800", "8", "0", "0")),
    ],
)
def test_diffusion_may_be_told_by_a_private_tag(tmp_path: Path, line: str, value: Values) -> None:
    rules = switched_on(load(tmp_path, uncommented(f"- {line}")))
    name = line.split("[")[0].split(":")[0]
    assert candidate(rules, diffusion(series="ep2d", **{name: value})).service == "cerebral-infarction"
    assert decide(example_study(diffusion(series="ep2d", **{name: "0"})), rules).candidates == ()


def test_what_the_head_of_the_file_explains_is_understood() -> None:
    head = SHIPPED.read_text(encoding="utf-8").split("\nrules:\n")[0]
    explained = head.split("A line is\n")[1].split("#   series ")[0]
    samples = [re.split(r"  +", line)[0] for line in re.findall(r"^# {22}(\S.*)", explained, re.MULTILINE)]
    conditions = [sample for sample in samples if ": " in sample]
    names = [name for sample in samples if ": " not in sample for name in sample.split(", ") if name]
    assert (len(conditions), len(names)) == (8, 12)
    for condition in conditions:
        assert parse(yamlfile.parse(condition, "head").data).parts
    for name in names:
        assert named(name).text == name


# --- real headers -----------------------------------------------------------------------------------------------------


def of_file(path: Path, number: int, **changed: tuple[str, ...]) -> Instance:
    """A file as the archive would know it, with what the rules read from it besides."""
    with path.open("rb") as opened:
        meta = read_meta(opened)
    attributes = read_header(path.read_bytes()[meta.dataset_offset :], meta.transfer_syntax_uid).attributes
    attributes = attributes | read_attributes(path, RULES.beyond_index) | changed
    sop, series = attributes.get("SOPClassUID", ("",))[0], attributes.get("SeriesInstanceUID", ("",))[0]
    return Instance(f"2.25.{number}", sop, series, "2.25", "", str(path), "", "xray-1", 0, 0, "", attributes)


def taken(paths: list[Path], **changed: tuple[str, ...]) -> list[str]:
    """The rules that take files, as images of one study."""
    instances = tuple(of_file(path, number, **changed) for number, path in enumerate(paths))
    decision = decide(Study("2.25", "", "", "", 0, instances), RULES)
    return [verdict.rule for verdict in decision.verdicts if verdict.matched]


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not on this machine")
def test_no_test_file_of_other_projects_is_taken_by_mistake() -> None:
    """Phantoms, knees, slides, segmentations, reports, single slices, a child's chest."""
    files = [
        p for p in sorted((SHARED / "dicom_test").rglob("*")) if p.is_file() and p.read_bytes()[128:132] == b"DICM"
    ]
    assert len(files) > 80
    assert {path.name: rules for path in files if (rules := taken([path]))} == {}
    assert taken([SHARED / "dicom_test" / "highdicom" / "dx_image.dcm"], PatientAge=("045Y",)) == [CHEST]


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not on this machine")
def test_real_images_of_a_service_are_taken_by_its_rule() -> None:
    assert taken([SHARED / "chest_xray" / "Fake_MONOHR1.dcm"]) == [CHEST]
    assert taken([SHARED / "ecg" / "anonymous_12lead_ecg.dcm"]) == [ECG]
    folders = [folder for folder in (SHARED / "prostate" / "prostatex_dicom").iterdir() if folder.is_dir()]
    assert len(folders) == 4
    for folder in folders:
        assert taken(sorted(folder.glob("*.dcm"))) == [PROSTATE], folder.name
