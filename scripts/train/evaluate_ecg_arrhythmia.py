"""Score the ECG bundle on the MIT-BIH Arrhythmia Database: records in, tables and the model card's numbers out.

    python scripts/train/evaluate_ecg_arrhythmia.py --data shared/data/ecg

Each record is analysed whole, and cut into independent windows of 30 s and of 10 s (as in use). Rewrites the part of
docs/README.md between the markers and `quality` in pipeline.yaml. It chooses nothing: thresholds were set on the
records that held_out.txt does not name.

Beats: annotations N L R B A a J S V r F e j n E / f Q ? count, from the first sample on, 150 ms tolerance. Left out:
what lies between [ and ] (ventricular flutter of record 207, which has no beats), in annotation and detection alike.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUNDLE = Path(__file__).resolve().parents[2] / "models" / "ecg-arrhythmia"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
MEASURED_BEGIN, MEASURED_END = "    # measured: begin", "    # measured: end"
BEATS = set("NLRBAaJSVrFejnE/fQ?")
PACED = {"102", "104", "107", "217"}
TOLERANCE_S = 0.150
WINDOWS_S = (30, 10)
FINDINGS = (
    "atrial_fibrillation",
    "premature_wide_beats",
    "bradycardia",
    "tachycardia",
    "pause",
    "normal_sinus_rhythm",
)

Samples = NDArray[np.int64]


@dataclass(frozen=True)
class Record:
    """One MIT-BIH record. `beats`, `symbols`: one entry per annotated beat. `rhythms`: (sample, label) changes."""

    name: str
    millivolts: NDArray[np.float32]
    leads: list[str]
    sampling_hz: float
    beats: Samples
    symbols: NDArray[np.str_]
    rhythms: list[tuple[int, str]]
    flutter: list[tuple[int, int]]

    def outside_flutter(self, samples: Samples) -> NDArray[np.bool_]:
        """Which samples lie outside ventricular flutter, with the tolerance around it."""
        margin = int(TOLERANCE_S * self.sampling_hz)
        outside = np.ones(len(samples), dtype=bool)
        for start, end in self.flutter:
            outside &= (samples < start - margin) | (samples > end + margin)
        return outside


def load_bundle() -> ModuleType:
    """The bundle's workflow module, loaded as the node does: scripts/ as a package under a private name."""
    folder = BUNDLE / "scripts"
    spec = importlib.util.spec_from_file_location(
        "ecg_arrhythmia_scripts", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    return importlib.import_module(f"{spec.name}.workflow")


def read_record(path: Path) -> Record:
    """Decode one record (see SOURCE.txt beside the data)."""
    with np.load(path) as z:
        zigzag = z["lo"].astype("i4") | (z["hi"].astype("i4") << 8)
        adc = np.cumsum((zigzag >> 1) ^ -(zigzag & 1), axis=1).astype("i2")
        millivolts = ((adc - z["baseline"][:, None]) / z["adc_gain"][:, None]).astype(np.float32)
        at, symbols = z["ann_sample"].astype(np.int64), z["ann_symbol"]
        texts = [str(text).strip("\0") for text in z["ann_aux"]]
        leads, sampling_hz = [str(name) for name in z["sig_name"]], float(z["fs"])
    is_beat = np.array([symbol in BEATS for symbol in symbols])
    rhythms = [(int(sample), text) for sample, text in zip(at, texts, strict=True) if text.startswith("(")]
    flutter = list(zip(at[symbols == "["].tolist(), at[symbols == "]"].tolist(), strict=True))
    return Record(path.stem, millivolts, leads, sampling_hz, at[is_beat], symbols[is_beat], rhythms, flutter)


def match(truth: Samples, found: Samples, tolerance: float) -> list[tuple[int, int]]:
    """Pairs (index in truth, index in found), one to one, in time order, nearest neighbours preferred."""
    pairs, i, j = [], 0, 0
    while i < len(truth) and j < len(found):
        gap = abs(int(truth[i]) - int(found[j]))
        if gap > tolerance:
            i, j = (i, j + 1) if found[j] < truth[i] else (i + 1, j)
        elif j + 1 < len(found) and abs(int(found[j + 1]) - int(truth[i])) < gap:
            j += 1
        elif i + 1 < len(truth) and abs(int(truth[i + 1]) - int(found[j])) < gap:
            i += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    return pairs


def main_rhythm(record: Record, start: int, end: int) -> tuple[str, bool]:
    """The annotated rhythm that fills most of [start, end), and whether it fills all of it."""
    share: Counter[str] = Counter()
    bounds = [*(sample for sample, _ in record.rhythms), record.millivolts.shape[1]]
    for (sample, label), next_sample in zip(record.rhythms, bounds[1:], strict=True):
        share[label] += max(0, min(end, next_sample) - max(start, sample))
    share += Counter()
    return (share.most_common(1)[0][0], len(share) == 1) if share else ("", False)


def reference(record: Record, start: int, end: int) -> dict[str, bool] | None:
    """What the annotations say of each finding in [start, end); None with fewer than three beats."""
    inside = (record.beats >= start) & (record.beats < end)
    if inside.sum() < 3:
        return None
    rr_s = np.diff(record.beats[inside]) / record.sampling_hz
    symbols = record.symbols[inside]
    rate = 60 / float(rr_s.mean())
    label, alone = main_rhythm(record, start, end)
    return {
        "atrial_fibrillation": label == "(AFIB",
        "premature_wide_beats": "V" in symbols,
        "bradycardia": rate < 60,
        "tachycardia": rate > 100,
        "pause": float(rr_s.max()) > 2,
        "normal_sinus_rhythm": label == "(N" and alone and 60 <= rate <= 100 and set(symbols) <= set("NLR"),
    }


def score_windows(workflow: Any, record: Record, window_s: float, name: str, tally: Counter[str]) -> None:
    """Analyse the record in windows of `window_s`, each by itself, and count."""
    length = int(window_s * record.sampling_hz)
    found: list[int] = []
    wide: list[bool] = []
    covered = record.millivolts.shape[1] // length * length
    for start in range(0, covered, length):
        end = start + length
        if any(a < end and b >= start for a, b in record.flutter):
            tally[f"{name}.windows left out for flutter"] += 1
        tally[f"{name}.windows"] += 1
        try:
            result = workflow.analyse(record.millivolts[:, start:end], record.leads, record.sampling_hz)
        except ValueError:
            result = None
            tally[f"{name}.windows refused"] += 1
        if result is not None:
            found += [start + sample for sample in result.beats]
            wide += result.wide
        _count_findings(record, result, (start, end), name, tally)
    _count_beats(record, np.array(found, dtype=np.int64), np.array(wide, dtype=bool), covered, name, tally)


def _count_findings(record: Record, result: Any, span: tuple[int, int], name: str, tally: Counter[str]) -> None:
    """Compare the findings and the rate of one window with the annotations."""
    if any(a < span[1] and b >= span[0] for a, b in record.flutter):
        return
    truth = reference(record, *span)
    if truth is None:
        tally[f"{name}.windows with fewer than 3 annotated beats"] += 1
        return
    for finding in FINDINGS:
        if finding == "premature_wide_beats" and record.name in PACED:
            continue
        said = "refused" if result is None else result.findings[finding]["presence"]
        tally[f"{name}.{finding}.{truth[finding]}.{said}"] += 1
        if finding == "atrial_fibrillation" and said == "present" and main_rhythm(record, *span)[0] == "(AFL":
            tally[f"{name}.af called in flutter"] += 1
    if result is not None:
        inside = (record.beats >= span[0]) & (record.beats < span[1])
        rate = 60 * record.sampling_hz / float(np.diff(record.beats[inside]).mean())
        tally[f"{name}.rate windows"] += 1
        # Counter holds whole numbers: errors are summed in thousandths.
        tally[f"{name}.rate error"] += round(1000 * abs(result.values["heart_rate"] - rate))


def _count_beats(
    record: Record, found: Samples, wide: NDArray[np.bool_], covered: int, name: str, tally: Counter[str]
) -> None:
    """Beats and premature wide beats against the annotations of the first `covered` samples."""
    kept = record.outside_flutter(record.beats) & (record.beats < covered)
    tally[f"{name}.annotated beats left out"] += int((~kept & (record.beats < covered)).sum())
    truth, symbols = record.beats[kept], record.symbols[kept]
    outside = record.outside_flutter(found)
    found, wide = found[outside], wide[outside]
    pairs = match(truth, found, TOLERANCE_S * record.sampling_hz)
    tally[f"{name}.beat.hit"] += len(pairs)
    tally[f"{name}.beat.missed"] += len(truth) - len(pairs)
    tally[f"{name}.beat.extra"] += len(found) - len(pairs)
    if record.name in PACED:
        return
    label = np.full(len(found), "-")
    for i, j in pairs:
        label[j] = symbols[i]
    hit = int((wide & (label == "V")).sum())
    tally[f"{name}.wide.hit"] += hit
    tally[f"{name}.wide.missed"] += int((symbols == "V").sum()) - hit
    # Fusion, escape and unclassifiable beats called premature and wide are neither right nor wrong.
    tally[f"{name}.wide.extra"] += int((wide & ~np.isin(label, ("V", "F", "E", "Q"))).sum())


def score_record(path: Path) -> tuple[str, Counter[str]]:
    """All counts of one record."""
    workflow, record = load_bundle(), read_record(path)
    tally: Counter[str] = Counter()
    score_windows(workflow, record, record.millivolts.shape[1] / record.sampling_hz, "full", tally)
    for window_s in WINDOWS_S:
        score_windows(workflow, record, window_s, f"{window_s} s", tally)
    return record.name, tally


def percent(part: float, whole: float) -> str:
    """A share in percent, or a dash where there is nothing to divide by."""
    return f"{100 * part / whole:.2f}" if whole else "-"


def detection_row(tally: Counter[str], key: str) -> str:
    """Sensitivity, PPV, missed and extra of one detection task."""
    hit, missed, extra = (tally[f"{key}.{kind}"] for kind in ("hit", "missed", "extra"))
    return f"{hit + missed} | {percent(hit, hit + missed)} | {percent(hit, hit + extra)} | {missed} | {extra}"


def finding_row(tally: Counter[str], key: str) -> str:
    """Windows with and without, sensitivity, specificity, PPV, and how often `absent` was said wrongly."""
    answers = ("present", "absent", "undetermined", "refused")
    yes = {answer: tally[f"{key}.True.{answer}"] for answer in answers}
    no = {answer: tally[f"{key}.False.{answer}"] for answer in answers}
    with_it, without = sum(yes.values()), sum(no.values())
    specificity = percent(without - no["present"], without)
    undetermined = percent(yes["undetermined"] + no["undetermined"], with_it + without)
    ppv = percent(yes["present"], yes["present"] + no["present"])
    return (
        f"{with_it} | {without} | {percent(yes['present'], with_it)} | {specificity} | "
        f"{ppv} | {percent(yes['absent'], with_it)} | {undetermined}"
    )


def tables(sets: dict[str, Counter[str]]) -> str:
    """The measured numbers as Markdown."""
    modes = ("full", *(f"{window_s} s" for window_s in WINDOWS_S))
    lines = ["Beats (150 ms):", "", "| records | window | beats | Se % | PPV % | missed | extra |", "|" + "---|" * 7]
    lines += [f"| {s} | {m} | {detection_row(t, f'{m}.beat')} |" for s, t in sets.items() for m in modes]
    lines += ["", "Premature wide beats, against V (paced records 102, 104, 107, 217 left out):", ""]
    lines += ["| records | window | V beats | Se % | PPV % | missed | extra |", "|" + "---|" * 7]
    lines += [f"| {s} | {m} | {detection_row(t, f'{m}.wide')} |" for s, t in sets.items() for m in modes]
    lines += ["", "Mean heart rate of a window:", "", "| records | window | windows | mean abs. error /min |"]
    lines += ["|" + "---|" * 4]
    for s, t in sets.items():
        for m in modes[1:]:
            count = t[f"{m}.rate windows"]
            lines.append(f"| {s} | {m} | {count} | {t[f'{m}.rate error'] / 1000 / max(count, 1):.2f} |")
    lines += ["", "Findings per window:", ""]
    head = "finding | with | without | Se % | Sp % | PPV % | wrongly absent % | undetermined %"
    lines += [f"| records | window | {head} |", "|" + "---|" * 10]
    for s, t in sets.items():
        for m in modes[1:]:
            lines += [f"| {s} | {m} | {f} | {finding_row(t, f'{m}.{f}')} |" for f in FINDINGS]
    lines += ["", "Left out or refused:", ""]
    for s, t in sets.items():
        for m in modes:
            said = [f"{key.removeprefix(m + '.')}: {t[key]}" for key in sorted(t) if _is_remark(key, m)]
            lines.append(f"- {s}, {m}: {'; '.join(said)}")
    return "\n".join(lines)


def _is_remark(key: str, mode: str) -> bool:
    return key.startswith((f"{mode}.windows", f"{mode}.annotated", f"{mode}.af called"))


def quality(sets: dict[str, Counter[str]]) -> str:
    """Two sentences for pipeline.yaml."""
    held = sets["held-out 22"]
    hit, missed, extra = (held[f"10 s.beat.{kind}"] for kind in ("hit", "missed", "extra"))
    error = held["10 s.rate error"] / 1000 / max(held["10 s.rate windows"], 1)
    rows = {f: finding_row(held, f"10 s.{f}").split(" | ") for f in FINDINGS}
    seen = "; ".join(f"{f.replace('_', ' ')} {rows[f][2]}/{rows[f][3]} (n={rows[f][0]}/{rows[f][1]})" for f in FINDINGS)
    return (
        f"MIT-BIH, 22 held-out records in 10 s windows: beats Se {percent(hit, hit + missed)} %, "
        f"PPV {percent(hit, hit + extra)} % (n={hit + missed}), rate error {error:.2f}/min; "
        f"sensitivity/specificity in % per window: {seen}. PR, QRS, QT: not evaluated against readers."
    )


def measured(sets: dict[str, Counter[str]]) -> str:
    """Sensitivity and specificity of each finding as lines of `card.measured` in pipeline.yaml."""
    rows = {f: finding_row(sets["held-out 22"], f"10 s.{f}").split(" | ") for f in FINDINGS}
    data = "MIT-BIH, 22 held-out records, windows of 10 s."
    lines = []
    for finding, row in rows.items():
        for metric, percents, cases in (("sensitivity", row[2], row[0]), ("specificity", row[3], row[1])):
            value = f"value: {float(percents) / 100:.4f}, cases: {cases}, real_data: true"
            lines.append(f'    - {{metric: {metric}, of: {finding}, {value}, data: "{data}"}}')
    return "\n".join(lines)


def write(sets: dict[str, Counter[str]], text: str) -> None:
    """Put the numbers into the model card and into pipeline.yaml."""
    card = BUNDLE / "docs" / "README.md"
    before, rest = card.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    card.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    pipeline = BUNDLE / "pipeline.yaml"
    old = pipeline.read_text(encoding="utf-8")
    new, count = re.subn(r'(?m)^  quality: ".*"$', lambda _: f'  quality: "{quality(sets)}"', old)
    if count != 1:
        raise ValueError('pipeline.yaml must hold one line `  quality: "..."`.')
    before, rest = new.split(MEASURED_BEGIN)
    after = rest.split(MEASURED_END)[1]
    new = f"{before}{MEASURED_BEGIN}\n{measured(sets)}\n{MEASURED_END}{after}"
    pipeline.write_text(new, encoding="utf-8")


def main() -> None:
    """Read the arguments, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mitbih/ and held_out.txt")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    lines = (arguments.data / "held_out.txt").read_text(encoding="utf-8").splitlines()
    held_out = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    paths = sorted((arguments.data / "mitbih").glob("*.npz"))
    with ProcessPoolExecutor(arguments.processes) as pool:
        scores = dict(pool.map(score_record, paths))
    sets = {
        f"held-out {len(held_out)}": sum((scores[n] for n in held_out), Counter()),
        f"all {len(scores)}": sum(scores.values(), Counter()),
    }
    text = tables(sets)
    print(text)
    write(sets, text)


if __name__ == "__main__":
    main()
