"""The model card: what docs/README.md must say, and one made from pipeline.yaml and metadata.json.

In: the folder of a service. Out: what is missing or still TODO, each with file, line and column; Markdown. Judges
words, not truth: whether a number is right only its author knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pacsnode import textfile
from pacsnode.errors import ConfigError
from pacsnode.infer.catalogue import METADATA_FILE, PIPELINE_FILE, Service, load_service, read_metadata
from pacsnode.infer.pipeline import Measured, PipelineFile

CARD_FILE = "docs/README.md"
LICENCE_FILE = "LICENSE"
TODO = re.compile(r"\bTODO\b")
NOT_FOR_DIAGNOSIS = re.compile(r"not\s+(to\s+be\s+used\s+)?for\s+(any\s+)?diagnos", re.IGNORECASE)
SECTIONS = {
    "Intended use": re.compile(r"intended use", re.IGNORECASE),
    "Training data": re.compile(r"training data|^data$|^dataset", re.IGNORECASE),
    "Quality": re.compile(r"quality|measured|performance|evaluation", re.IGNORECASE),
    "Limits": re.compile(r"limit", re.IGNORECASE),
}
"""What the headings of the card must hold, each with some text below it."""
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)


def check(folder: Path) -> list[str]:
    """Every mistake in a service: its contract, its files and its card. Empty where it may be used."""
    told: list[str] = []
    certified = False
    try:
        certified = load_service(folder).pipeline.status == "certified"
    except ConfigError as error:
        told += str(error).splitlines()
    licence = folder / LICENCE_FILE
    if not licence.is_file() or not licence.read_bytes().strip():
        told.append(_line(licence, 1, 1, "there is no text here: under which licence may it be used?", "no-licence"))
    told += _of_readme(folder / CARD_FILE, certified=certified)
    for name in (PIPELINE_FILE, METADATA_FILE, CARD_FILE, LICENCE_FILE):
        told += _todos(folder / name)
    return told


def _of_readme(path: Path, *, certified: bool) -> Iterator[str]:
    text = _text(path)
    if not text.strip():
        yield _line(path, 1, 1, "there is no model card; `pacsnode models new` shows what belongs into one", "no-card")
        return
    found = list(HEADING.finditer(text))
    ends = [*(heading.start() for heading in found[1:]), len(text)]
    filled = [h[1] for h, end in zip(found, ends, strict=False) if text[h.end() : end].strip()]
    last = text.rstrip().count("\n") + 1
    for section, pattern in SECTIONS.items():
        if any(pattern.search(heading) for heading in filled):
            continue
        empty = next((h for h in found if pattern.search(h[1])), None)
        line = last if empty is None else text.count("\n", 0, empty.start()) + 1
        what = f"there is no section `## {section}`" if empty is None else f"the section {section} is empty"
        yield _line(path, line, 1, f"{what}; the card must say it", "card-section")
    if not certified and not NOT_FOR_DIAGNOSIS.search(text):
        yield _line(
            path, last, 1, 'the card must say "not for diagnosis", for the service is not certified', "card-use"
        )


def _todos(path: Path) -> Iterator[str]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        for found in TODO.finditer(line):
            after = line[found.end() :].strip(' :"-|*')[:60]
            told = f"still to be filled in{': ' if after else ''}{after}"
            yield _line(path, number, found.start() + 1, told, "todo")


def _text(path: Path) -> str:
    """ "" where there is no file; what is wrong with pipeline.yaml as a text was told already."""
    try:
        return path.read_bytes()[: textfile.MAX_BYTES].decode("utf-8", "replace")
    except OSError:
        return ""


def _line(path: Path, line: int, column: int, text: str, code: str) -> str:
    return f"{path}:{line}:{column} {path.name}: {text} [{code}]"


def model_card(service: Service) -> str:
    """The card as Markdown, from pipeline.yaml and metadata.json."""
    pipeline, metadata = service.pipeline, read_metadata(service.folder)
    card = pipeline.card
    parts = [f"# {pipeline.title}", "", *_summary(service, metadata), ""]
    for title, text in (
        ("Intended use", card.intended_use),
        ("Method", card.method),
        ("Training data", card.training_data),
        ("Quality", card.quality),
        ("Limits", card.limits or f"See {CARD_FILE}."),
        ("Licence", card.licence),
    ):
        parts += [f"## {title}", text, ""]
        if title == "Quality" and card.measured:
            parts += [*_measured(card.measured), ""]
    parts += ["## Input", *_input(pipeline), "", "## Output", *_output(pipeline)]
    return "\n".join(parts) + "\n"


def _summary(service: Service, metadata: dict[str, object]) -> Iterator[str]:
    pipeline = service.pipeline
    if pipeline.status != "certified":
        yield "**Not for diagnosis. Not a certified medical device.**"
        yield ""
    learnt = "machine learning" if pipeline.machine_learning else "no machine learning"
    yield f"- Service `{pipeline.name}`, version {service.version}, status: {pipeline.status}, {learnt}"
    for key in ("authors", "copyright", "task"):
        if isinstance(metadata.get(key), str) and metadata[key]:
            yield f"- {key.capitalize()}: {_one_line(metadata[key])}"
    yield f"- SHA-256 of all files: {service.bundle_hash}"
    if pipeline.network is not None and pipeline.network.sha256:
        yield f"- SHA-256 of the weights: {pipeline.network.sha256}"
    if service.obstacle:
        yield f"- Cannot be used: {service.obstacle}"


def _measured(measured: tuple[Measured, ...]) -> Iterator[str]:
    yield "| metric | of | value | cases | data |"
    yield "|---|---|---|---|---|"
    for one in measured:
        data = one.data if one.real_data else f"{one.data} (made-up data)"
        yield f"| {_cell(one.metric)} | {_cell(one.of)} | {one.value:g} | {one.cases} | {_cell(data)} |"


def _input(pipeline: PipelineFile) -> Iterator[str]:
    yield f"- Form: {pipeline.input}"
    yield f"- Accepts images with {pipeline.accepts.in_words}"
    for view in pipeline.needs.views:
        yield f"- Needs an image with {view.in_words}"
    for role in pipeline.series:
        yield f"- Series {role.role}{' (optional)' if role.optional else ''}: {role.when.in_words}"
    for key in sorted(pipeline.needs.model_fields_set - {"views"}):
        value = getattr(pipeline.needs, key)
        told = ", ".join(value) if key == "leads" else value
        yield f"- {key.replace('_', ' ')}: {' to '.join(f'{n:g}' for n in told) if isinstance(told, tuple) else told}"
    if pipeline.remote is None:
        yield f"- At most {pipeline.limits.time_s:g} s and {pipeline.limits.memory_mb} MB a case"


def _output(pipeline: PipelineFile) -> Iterator[str]:
    if pipeline.remote is not None:
        remote = pipeline.remote
        yield f"- Made by the vendor's node {remote.peer}: {', '.join(remote.results)}, within {remote.within:g} s"
    if pipeline.http is not None:
        http = pipeline.http
        version = f"version {http.version}" if http.version else "in the version that it chooses"
        yield f"- Computed by the inference server {http.address}: model {http.model}, {version}"
    for segment in pipeline.segments:
        yield f"- Segment: {segment.label} ({segment.type.value}, {segment.type.scheme})"
    for number in pipeline.measurements:
        where = " ".join(filter(None, (number.laterality, number.site.meaning.lower() if number.site else "")))
        named = f"{number.name.meaning}, {where}" if where else number.name.meaning
        yield f"- Number: {named} ({number.name.value}, {number.name.scheme})"
    known = pipeline.sensitivity_known
    for finding in pipeline.evaluations:
        answers = "present, absent, undetermined" if finding.key in known else "present or undetermined"
        yield f"- Finding: {finding.name.meaning} ({finding.name.value}, {finding.name.scheme}): {answers}"
    for one in pipeline.classification.classes if pipeline.classification else ():
        told = (
            f"{one.name.meaning}, present from {one.threshold:g} on"
            if one.name and one.threshold is not None
            else "no finding"
        )
        yield f"- Class {one.index}, {one.label}: {told}"
    for region in pipeline.regions:
        yield f"- Region ({region.shape}): {region.name.meaning}, from a score of {region.threshold or 0:g} on"


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")
