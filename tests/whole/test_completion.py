"""When a case starts, at a whole node: expected views, pauses, split studies, announcements, late images, a clock that
jumps. The service is a threshold of the tests; what is looked at is which images a case has, and why it was whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from harness import LOOPBACK, Node, Pacs, wait_until
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from pacsnode.dicom.uids import derive
from pacsnode.dimse.association import Association, contexts_for
from pacsnode.life import study_life
from pacsnode.settings import load
from tests.infer import bundles

CR, CT, MR, MG = "1.2.840.10008.5.1.4.1.1.1", bundles.CT, "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

RULES = """\
version: 1
unmatched: keep
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, may: [store], issuer: CLINIC}}
  main-pacs: {{ae_title: PACS, host: 127.0.0.1, port: {port}, investigational: true}}
defaults: {{results: [sr], send_to: [main-pacs]}}
rules:
  - name: two views
    when: {{StudyDescription: two views, ViewPosition: PA}}
    run: reader
    complete: {{quiet: 1s, expect: [{{ViewPosition: PA}}, {{ViewPosition: {{in: [LL, LAT]}}}}], at_most: 60s}}
  - name: four views
    when: {{Modality: MG, StudyDescription: four views}}
    run: reader
    complete:
      quiet: 1s
      expect:
        - {{ViewPosition: CC, ImageLaterality: R}}
        - {{ViewPosition: CC, ImageLaterality: L}}
        - {{ViewPosition: MLO, ImageLaterality: R}}
        - {{ViewPosition: MLO, ImageLaterality: L}}
      at_most: 4s
      then: run
  - name: never whole
    when: {{StudyDescription: never whole}}
    run: reader
    complete: {{quiet: 1s, images: 3, at_most: 2s}}
  - name: pauses
    when: {{StudyDescription: pauses}}
    run: reader
    complete: {{quiet: 1s, images: 4, contiguous: true, at_most: 60s}}
  - {{name: split, when: {{StudyDescription: split}}, run: reader, complete: {{quiet: 3s}}}}
  - name: released
    when: {{StudyDescription: released}}
    run: reader
    complete: {{quiet: 5m, after_release: 1s}}
  - {{name: announced, when: {{StudyDescription: announced}}, run: reader, complete: {{quiet: 5m}}}}
  - name: stroke
    when: {{Modality: MR, SeriesDescription: {{contains: dwi}}}}
    run: reader
    priority: stat
    complete: {{quiet: 1s}}
  - {{name: late rerun, when: {{StudyDescription: late rerun}}, run: reader, complete: {{quiet: 1s}}}}
  - name: late amend
    when: {{StudyDescription: late amend}}
    run: reader
    complete: {{quiet: 1s}}
    late_images: amend
  - name: late ignore
    when: {{StudyDescription: late ignore}}
    run: reader
    complete: {{quiet: 1s}}
    late_images: ignore
  - name: late too late
    when: {{StudyDescription: late too late}}
    run: reader
    complete: {{quiet: 1s}}
    late_images: {{do: rerun, within: 1s}}
  - {{name: clock, when: {{StudyDescription: clock}}, run: reader, complete: {{quiet: 4s}}}}
  - {{name: forwarded, when: {{StudyDescription: forwarded}}, forward: main-pacs}}
"""

JUMPING_CLOCK = """\
import pathlib, time
_jump_s, _time, _time_ns = pathlib.Path({path!r}), time.time, time.time_ns
time.time = lambda: _time() + float(_jump_s.read_text())
time.time_ns = lambda: _time_ns() + int(float(_jump_s.read_text()) * 1e9)
"""
"""A machine's wall clock that somebody sets: as sitecustomize, before anything of ours is imported."""


@dataclass
class Clinic:
    """A node and its modality: studies are made up, in their own words (StudyDescription) and UIDs."""

    node: Node
    pacs: Pacs
    folder: Path
    jump: Path
    made: list[Path] = field(default_factory=list)

    def image(self, study: str, number: int, sop_class: str = CR, **attributes: Any) -> Path:
        """A file of a study; `series` names its series."""
        series = str(attributes.pop("series", "1"))
        uid = derive("completion", study)
        dataset = bundles.image(
            bundles.gradient(),
            sop_class,
            StudyInstanceUID=uid,
            SeriesInstanceUID=derive(uid, series),
            SOPInstanceUID=derive(uid, series, str(number)),
            StudyDescription=study,
            InstanceNumber=number,
            PatientID="4711",
            **attributes,
        )
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        return bundles.saved(dataset, self.folder / f"{study}-{series}-{number}.dcm")

    def send(self, *paths: Path) -> None:
        """One association."""
        with self.associated() as association:
            store(association, paths)

    def associated(self) -> Association:
        """An association of the modality."""
        contexts = contexts_for([(sop_class, EXPLICIT) for sop_class in (CR, CT, MR, MG)])
        return Association.request(LOOPBACK, self.node.port, "XR1", "PACSNODE", contexts)

    def life(self, study: str) -> dict[str, Any]:
        """What `studies show --json` says, without a process for each look."""
        life = study_life(load(home=self.node.home), derive("completion", study))
        assert life is not None
        return life

    def cases(self, study: str, count: int = 1) -> list[dict[str, Any]]:
        """The cases of a study, once there are so many."""
        wait_until(lambda: len(self.life(study)["cases"]) >= count, every_s=0.1)
        cases: list[dict[str, Any]] = self.life(study)["cases"]
        assert len(cases) == count
        return cases


def store(association: Association, paths: Sequence[Path]) -> None:
    for path in paths:
        assert association.store_file(path).is_success


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    folder = tmp_path_factory.mktemp("completion")
    bundles.network_bundle(folder / "models", name="reader", accepts={"HasPixelData": "YES"})
    jump = folder / "jump"
    jump.write_text("0")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(JUMPING_CLOCK.format(path=str(jump)))
    with Pacs(folder / "pacs") as pacs:
        rules = folder / "rules.yaml"
        rules.write_text(RULES.format(port=pacs.port))
        extra = {"PYTHONPATH": f"{folder / 'site'}"}
        with Node(folder / "home", rules, folder / "models", extra=extra) as node:
            yield Clinic(node, pacs, folder, jump)


def test_a_two_view_chest_waits_for_its_lateral_view_though_only_the_frontal_one_is_read(clinic: Clinic) -> None:
    clinic.send(clinic.image("two views", 1, ViewPosition="PA"))
    time.sleep(2.5)
    life = clinic.life("two views")
    assert life["cases"] == []
    assert life["waiting"][0]["completion"]["missing"] == ("no image with ViewPosition LL or LAT",)
    clinic.send(clinic.image("two views", 2, ViewPosition="LL"))
    (case,) = clinic.cases("two views")
    assert len(case["instances"]) == 1
    assert case["whole_because"].startswith("quiet for ")


def test_a_four_view_mammogram_starts_with_its_fourth_view(clinic: Clinic) -> None:
    views = [("CC", "R"), ("CC", "L"), ("MLO", "R"), ("MLO", "L")]
    paths = [
        clinic.image("four views", number, MG, Modality="MG", ViewPosition=view, ImageLaterality=side)
        for number, (view, side) in enumerate(views, start=1)
    ]
    for path in paths:
        clinic.send(path)
        time.sleep(1.2)
    (case,) = clinic.cases("four views")
    assert len(case["instances"]) == 4
    assert case["whole_because"].startswith("quiet for ")


def test_what_stays_incomplete_is_kept_and_an_alarm_is_given(clinic: Clinic) -> None:
    clinic.send(clinic.image("never whole", 1))
    wait_until(lambda: "case stays incomplete" in clinic.node.log())
    life = clinic.life("never whole")
    assert life["cases"] == []
    assert life["waiting"][0]["completion"]["missing"] == ("1 image of at least 3",)
    doctor = clinic.node.run("doctor", check=False).stdout
    assert "1 cases stay incomplete" in doctor
    clinic.send(clinic.image("never whole", 2), clinic.image("never whole", 3))
    (case,) = clinic.cases("never whole")
    assert len(case["instances"]) == 3


def test_a_series_that_pauses_longer_than_its_quiet_time_is_read_once_and_whole(clinic: Clinic) -> None:
    first, second, third, fourth = (clinic.image("pauses", n, CT, Modality="CT") for n in (1, 2, 3, 4))
    with clinic.associated() as association:
        store(association, [first, second, fourth])
        time.sleep(2.5)
        assert clinic.life("pauses")["cases"] == []
        store(association, [third])
    (case,) = clinic.cases("pauses")
    assert len(case["instances"]) == 4


def test_a_study_split_over_three_associations_is_one_case(clinic: Clinic) -> None:
    for number in (1, 2, 3):
        clinic.send(clinic.image("split", number))
        time.sleep(1)
    (case,) = clinic.cases("split")
    assert len(case["instances"]) == 3


def test_where_the_rule_says_so_the_end_of_the_association_shortens_the_wait(clinic: Clinic) -> None:
    with clinic.associated() as association:
        store(association, [clinic.image("released", 1)])
        time.sleep(2.5)
        assert clinic.life("released")["cases"] == []
    (case,) = clinic.cases("released")
    assert case["whole_because"].endswith("and its sender has ended its associations")


def test_a_completed_procedure_step_that_lists_all_images_ends_the_wait(clinic: Clinic) -> None:
    paths = [clinic.image("announced", number) for number in (1, 2)]
    clinic.send(paths[0])
    complete_step([pydicom.dcmread(path, stop_before_pixels=True) for path in paths], clinic.node.port)
    time.sleep(1.5)
    assert clinic.life("announced")["cases"] == []
    clinic.send(paths[1])
    (case,) = clinic.cases("announced")
    assert case["whole_because"] == "the modality's completed procedure step lists 2 images, and all of them are here"


def complete_step(images: Sequence[Dataset], port: int) -> None:
    """N-CREATE and N-SET of a procedure step that made these images."""
    entity = AE("XR1")
    entity.add_requested_context(ModalityPerformedProcedureStep)
    association = entity.associate(LOOPBACK, port, ae_title="PACSNODE")
    assert association.is_established
    scheduled = Dataset()
    scheduled.StudyInstanceUID = images[0].StudyInstanceUID
    begun = Dataset()
    begun.PerformedProcedureStepStatus = "IN PROGRESS"
    begun.ScheduledStepAttributesSequence = [scheduled]
    uid = derive("step", str(images[0].StudyInstanceUID))
    status, _ = association.send_n_create(begun, ModalityPerformedProcedureStep, uid)
    assert status.Status == 0
    series = Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ReferencedImageSequence = [Dataset() for _ in images]
    for item, image in zip(series.ReferencedImageSequence, images, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    done = Dataset()
    done.PerformedProcedureStepStatus = "COMPLETED"
    done.PerformedSeriesSequence = [series]
    status, _ = association.send_n_set(done, ModalityPerformedProcedureStep, uid)
    assert status.Status == 0
    association.release()


def test_diffusion_images_start_a_case_while_the_examination_goes_on(clinic: Clinic) -> None:
    with clinic.associated() as association:
        diffusion = [
            clinic.image("stroke", n, MR, Modality="MR", series="dwi", SeriesDescription="ep2d DWI b1000")
            for n in (1, 2)
        ]
        store(association, diffusion)
        (case,) = clinic.cases("stroke")
        rest = [clinic.image("stroke", n, MR, Modality="MR", series="t2", SeriesDescription="T2 TSE") for n in (1, 2)]
        store(association, rest)
        time.sleep(2.5)
    assert [c["key"] for c in clinic.cases("stroke")] == [case["key"]]
    assert len(case["instances"]) == 2


@pytest.mark.parametrize(("study", "read"), [("late rerun", [1, 2]), ("late amend", [1, 1])])
def test_late_images_are_read_as_the_rule_says(clinic: Clinic, study: str, read: list[int]) -> None:
    clinic.send(clinic.image(study, 1))
    (first,) = clinic.cases(study)
    wait_until(lambda: clinic.life(study)["cases"][0]["state"] == "done", every_s=0.1)
    clinic.send(clinic.image(study, 2))
    first, second = sorted(clinic.cases(study, 2), key=lambda case: str(case["started"]))
    assert [len(case["instances"]) for case in (first, second)] == read
    assert second["supersedes"] == (first["key"] if study == "late rerun" else "")


@pytest.mark.parametrize(
    ("study", "said"), [("late ignore", "late_images: ignore"), ("late too late", "and more than 1 s after")]
)
def test_late_images_that_start_nothing_are_archived_and_the_study_says_so(
    clinic: Clinic, study: str, said: str
) -> None:
    clinic.send(clinic.image(study, 1))
    clinic.cases(study)
    time.sleep(1.2)
    clinic.send(clinic.image(study, 2))

    def reason() -> str:
        return str(next(rule for rule in clinic.life(study)["rules"] if rule["rule"] == study)["reason"])

    wait_until(lambda: said in reason(), every_s=0.1)
    assert clinic.life(study)["received"]["instances"] == 2
    assert len(clinic.cases(study)[0]["instances"]) == 1


def jumps() -> list[tuple[str, Callable[[float], float]]]:
    return [("forward", lambda jump_s: jump_s + 3600), ("back", lambda jump_s: jump_s - 3600)]


@pytest.mark.parametrize(("direction", "moved"), jumps())
def test_a_clock_that_jumps_an_hour_neither_completes_nor_stalls_a_case(
    clinic: Clinic, direction: str, moved: Callable[[float], float]
) -> None:
    study = f"clock {direction}"
    begun = time.monotonic()
    clinic.send(clinic.image(study, 1))
    clinic.jump.write_text(str(moved(float(clinic.jump.read_text()))))
    time.sleep(2)
    assert not clinic.life(study)["cases"], "the jump completed it"
    clinic.cases(study, 1)
    assert time.monotonic() - begun < 20, "the jump stalled it"


def test_forwarded_images_reach_the_peer_bit_for_bit_and_never_their_sender(clinic: Clinic) -> None:
    path = clinic.image("forwarded", 1)
    clinic.send(path)
    sent = pydicom.dcmread(path)
    wait_until(lambda: any(held.SOPInstanceUID == sent.SOPInstanceUID for held in clinic.pacs.objects()), every_s=0.1)
    (held,) = [held for held in clinic.pacs.objects() if held.SOPInstanceUID == sent.SOPInstanceUID]
    assert held == sent
    deliveries = clinic.node.run("deliveries", "list", "--json").stdout
    assert str(sent.SOPInstanceUID) in deliveries
