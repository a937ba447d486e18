"""The command wrap: files of devices that do not speak DICOM become DICOM objects."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from pacsnode.wrap.examination import Subject
    from pacsnode.wrap.making import Outcome
    from pacsnode.wrap.wanted import Wanted


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(wrap)


def wrap(
    files: Annotated[list[Path], typer.Argument(help="Pictures or .hea files, or folders of them.", exists=True)],
    kind: str = typer.Option(..., "--as", help="dx, mg, px (panoramic), op (eye), endoscopy, ecg."),
    out: Path = typer.Option(..., "--out", help="The folder for the DICOM files, named by their UIDs."),  # noqa: B008
    like: Path | None = typer.Option(None, help="Take patient and study from this DICOM file.", exists=True),  # noqa: B008
    patient_id: str = typer.Option("", help="The patient's number."),
    patient_name: str = typer.Option("", help="Hong^Gildong=洪^吉洞=홍^길동: Latin, Hanja, Hangul."),
    birth_date: str = typer.Option("", help="YYYYMMDD."),
    sex: str = typer.Option("", help="M, F or O."),
    issuer: str = typer.Option("", help="Who gives out the patients' numbers."),
    study_date: str = typer.Option("", help="YYYYMMDD."),
    study_time: str = typer.Option("", help="HHMMSS."),
    accession: str = typer.Option("", help="Accession number of the order."),
    description: str = typer.Option("", help="What was examined, as study description."),
    study_id: str = typer.Option("", help="Study ID."),
    study_uid: str = typer.Option("", help="Study Instance UID of the order; else derived from the above."),
    body_part: str = typer.Option("", help="CHEST, HAND, STOMACH, …; mg: BREAST, px: JAW, op: EYE when not given."),
    view: str = typer.Option("", help="dx: PA, AP, LL, RL; mg: CC, MLO, …"),
    laterality: str = typer.Option("", help="R, L, B both, U unpaired."),
    orientation: str = typer.Option("", help="Where rows and columns run to: L,F for a frontal view."),
    pixel_spacing_mm: str = typer.Option("", help="ROWS,COLUMNS: at the detector (dx, mg, px) or in the retina (op)."),
    burned_in: str = typer.Option("", help="Whether a name stands in the pixels: yes or no."),
    device: str = typer.Option("", help="op: fundus-camera, scanning-laser, slit-lamp, external-camera."),
    to_grey: bool = typer.Option(False, "--to-grey", help="Take the brightness of coloured pictures (dx, mg, px)."),
    from_s: float | None = typer.Option(None, "--from", help="ecg: only the part that begins at this second."),
    seconds: float | None = typer.Option(None, help="ecg: that part's length, or that of all parts one after another."),
    first_number: int = typer.Option(1, min=1, max=1_000_000, help="Instance number of the first object."),
) -> None:
    """Wrap PNG, JPEG, TIFF or WFDB files of one study into DICOM objects; exit code 1 when one could not be wrapped.

    Twice the same call gives the same objects. What nobody knows stays empty.
    """
    from pacsnode.wrap import making
    from pacsnode.wrap.examination import Subject
    from pacsnode.wrap.wanted import Wanted

    subject = Subject(
        patient_id, patient_name, birth_date, sex, issuer, study_date, study_time, accession, description,
        study_id, study_uid,
    )  # fmt: skip
    wanted = Wanted(
        kind=kind,
        body_part=body_part,
        view=view,
        laterality=laterality,
        pixel_spacing_mm=_spacing(pixel_spacing_mm),
        orientation=_directions(orientation),
        burned_in=burned_in,
        device=device,
        to_grey=to_grey,
        seconds=seconds,
        from_s=from_s,
    )
    examination = _examination(subject, like)
    outcome = making.wrap(making.files_of(files, kind), examination, wanted, out, first_number)
    _tell(outcome, wanted, out)
    if outcome.failed:
        raise typer.Exit(1)


def _examination(subject: Subject, like: Path | None) -> Dataset:
    from pacsnode.wrap.examination import Subject, examination_like, examination_of

    if like is None:
        return examination_of(subject)
    if subject != Subject(""):
        raise ConfigError("patient and study are taken from there; leave out the options that say them", where="--like")
    return examination_like(like)


def _spacing(given: str) -> tuple[float, float] | None:
    if not given:
        return None
    try:
        rows, columns = (float(word) for word in given.split(","))
    except ValueError:
        raise ConfigError("is two numbers, ROWS,COLUMNS", where="--pixel-spacing-mm") from None
    return rows, columns


def _directions(given: str) -> tuple[str, ...]:
    return tuple(word.strip().upper() for word in given.split(",")) if given else ()


def _tell(outcome: Outcome, wanted: Wanted, out: Path) -> None:
    from pacsnode.wrap.wanted import HAS_TO_SAY_BURNED_IN

    for path, reason in outcome.failed:
        typer.echo(f"not wrapped {path}: {reason}", err=True)
    for note, count in Counter(note for one in outcome.made for note in one.notes).items():
        typer.echo(f"{count} x {note}")
    if outcome.made and wanted.kind in HAS_TO_SAY_BURNED_IN and not wanted.burned_in:
        typer.echo("Burned In Annotation is YES, as nobody said that no name stands in the pixels: --burned-in no")
    files = len({one.source for one in outcome.made})
    typer.echo(f"{len(outcome.made)} objects of {files} files in {out}, {len(outcome.failed)} files not wrapped")
