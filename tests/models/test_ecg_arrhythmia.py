"""The ECG bundle as it is shipped: drawn ECGs with known truth, real ones, and ECGs that must be refused."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "models" / "ecg-arrhythmia"
DATA = ROOT.parent / "shared" / "data" / "ecg"
HZ = 500.0
LEADS = ["I", "II", "V1", "V5"]
# Height of P, Q, R, S, T in each lead, millivolts.
HEIGHTS = {
    "I": (0.08, -0.05, 0.7, -0.1, 0.2),
    "II": (0.15, -0.08, 1.1, -0.2, 0.3),
    "V1": (0.05, 0.0, 0.2, -0.9, -0.1),
    "V5": (0.08, -0.1, 1.3, -0.2, 0.35),
}

pytest.importorskip("monai", reason="the bundle needs the `ai` extra")


@pytest.fixture(scope="module")
def workflow() -> Any:
    """The workflow, loaded as the node does: scripts/ as a package under a private name."""
    folder, name = BUNDLE / "scripts", "ecg_arrhythmia_under_test"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    made = importlib.import_module(f"{name}.workflow").EcgWorkflow()
    made.initialize()
    return made


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return YAML(typ="safe").load((BUNDLE / "pipeline.yaml").read_text(encoding="utf-8"))


def run(workflow: Any, millivolts: NDArray[Any], leads: list[str], hz: float = HZ) -> dict[str, Any]:
    workflow.inputs = {"millivolts": millivolts.astype(np.float32), "leads": leads, "sampling_hz": hz}
    workflow.run()
    outputs: dict[str, Any] = workflow.outputs
    return outputs


def draw(
    r_times_s: list[float],
    seconds: float = 10.0,
    *,
    pr_s: float = 0.16,
    qt_s: float = 0.38,
    p_wave: bool = True,
    wide: tuple[int, ...] = (),
    hz: float = HZ,
    noise_mv: float = 0.01,
) -> NDArray[np.float64]:
    """Leads by samples: Gaussian waves around each R.

    Q starts 40 ms before R and S ends 40 ms after it (a QRS of 80 ms, three widths of its outer waves); P starts
    `pr_s` before Q does (2.5 standard deviations before its top). T ends `qt_s` after Q starts, in the sense of the
    method: the tangent at the steepest place of a Gaussian meets zero 2 standard deviations after its top.
    """
    t = np.arange(int(seconds * hz)) / hz
    ecg = np.random.default_rng(7).normal(0, noise_mv, (len(LEADS), len(t)))
    p_width, t_width = 0.020, 0.035

    def wave(middle: float, width: float) -> NDArray[np.float64]:
        return np.exp(-(((t - middle) / width) ** 2) / 2)

    for number, r in enumerate(r_times_s):
        for lead, name in enumerate(LEADS):
            p, q, height, s, t_height = HEIGHTS[name]
            if number in wide:
                ecg[lead] += 1.4 * (-1) ** lead * wave(r, 0.045) - 0.4 * (-1) ** lead * wave(r + 0.25, 0.06)
                continue
            onset = r - 0.04
            if p_wave:
                ecg[lead] += p * wave(onset - pr_s + 2.5 * p_width, p_width)
            ecg[lead] += q * wave(r - 0.022, 0.006) + height * wave(r, 0.011) + s * wave(r + 0.022, 0.006)
            ecg[lead] += t_height * wave(onset + qt_s - 2 * t_width, t_width)
    return ecg


def steady(rate: float, seconds: float = 10.0) -> list[float]:
    return [float(time) for time in np.arange(0.5, seconds - 0.3, 60 / rate)]


@pytest.mark.parametrize("rate", [35, 50, 60.5, 75, 99, 120, 180])
def test_the_rate_of_a_regular_ecg_is_measured(workflow: Any, rate: float) -> None:
    times = steady(rate)
    result = run(workflow, draw(times, qt_s=min(0.38, 0.55 * 60 / rate)), LEADS)
    assert len(result["beats"]) == len(times)
    assert result["values"]["heart_rate"] == pytest.approx(rate, abs=0.5)
    assert np.abs(np.array(result["beats"]) / HZ - times).max() < 0.02
    assert (result["findings"]["bradycardia"]["presence"] == "present") == (rate < 60)
    assert (result["findings"]["tachycardia"]["presence"] == "present") == (rate > 100)
    assert result["values"]["sdnn"] < 5


@pytest.mark.parametrize(("pr_s", "qt_s"), [(0.14, 0.36), (0.16, 0.40), (0.20, 0.44)])
@pytest.mark.parametrize("hz", [250.0, 500.0, 1000.0])
def test_intervals_of_a_drawn_ecg_are_measured(workflow: Any, pr_s: float, qt_s: float, hz: float) -> None:
    values = run(workflow, draw(steady(66), pr_s=pr_s, qt_s=qt_s, hz=hz), LEADS, hz)["values"]
    assert values["pr_interval"] == pytest.approx(1000 * pr_s, abs=25)
    assert values["qrs_duration"] == pytest.approx(80, abs=25)
    assert values["qt_interval"] == pytest.approx(1000 * qt_s, abs=20)
    rr_s = 60 / values["heart_rate"]
    assert values["qtc_bazett"] == pytest.approx(values["qt_interval"] / rr_s**0.5, abs=1)
    assert values["qtc_fridericia"] == pytest.approx(values["qt_interval"] / rr_s ** (1 / 3), abs=1)


def test_a_regular_rhythm_with_p_waves_is_sinus_rhythm(workflow: Any) -> None:
    findings = run(workflow, draw(steady(72)), LEADS)["findings"]
    assert findings["normal_sinus_rhythm"]["presence"] == "present"
    others = set(findings) - {"normal_sinus_rhythm"}
    assert {findings[key]["presence"] for key in others} == {"absent"}


def test_without_p_waves_a_regular_rhythm_is_left_open(workflow: Any) -> None:
    result = run(workflow, draw(steady(72), p_wave=False), LEADS)
    assert result["findings"]["atrial_fibrillation"]["presence"] == "undetermined"
    assert result["findings"]["normal_sinus_rhythm"]["presence"] == "undetermined"
    assert "pr_interval" not in result["values"]


def irregular(seconds: float = 10.0) -> list[float]:
    random = np.random.default_rng(3)
    times = np.cumsum(random.uniform(0.45, 1.05, 40)) + 0.1
    return [float(time) for time in times if time < seconds - 0.3]


def test_irregular_rr_without_p_waves_is_possible_atrial_fibrillation(workflow: Any) -> None:
    result = run(workflow, draw(irregular(), p_wave=False), LEADS)
    finding = result["findings"]["atrial_fibrillation"]
    assert finding["presence"] == "present"
    assert "Possible" in finding["comment"]
    assert "qtc_bazett" not in result["values"] and "pr_interval" not in result["values"]


def test_irregular_rr_with_p_waves_is_not_atrial_fibrillation(workflow: Any) -> None:
    findings = run(workflow, draw(irregular()), LEADS)["findings"]
    assert findings["atrial_fibrillation"]["presence"] == "absent"
    assert findings["normal_sinus_rhythm"]["presence"] == "undetermined"


def test_premature_wide_beats_are_counted_and_kept_out_of_rr_variability(workflow: Any) -> None:
    times = steady(70)
    times[3] -= 0.25
    times[8] -= 0.25
    result = run(workflow, draw(times, wide=(3, 8)), LEADS)
    assert result["values"]["premature_wide_beats"] == 2
    assert result["findings"]["premature_wide_beats"]["presence"] == "present"
    assert result["values"]["sdnn"] < 5


def test_in_bigeminy_the_narrow_beat_is_the_usual_one(workflow: Any) -> None:
    times = [0.5 + k * 0.8 - 0.2 * (k % 2) for k in range(12)]
    result = run(workflow, draw(times, wide=(1, 3, 5, 7, 9, 11)), LEADS)
    assert result["values"]["premature_wide_beats"] == 6


def test_a_pause_is_found(workflow: Any) -> None:
    times = [0.5, 1.3, 2.1, 2.9, 5.3, 6.1, 6.9, 7.7, 8.5]
    assert run(workflow, draw(times), LEADS)["findings"]["pause"]["presence"] == "present"


def test_a_still_trace_is_no_pause(workflow: Any) -> None:
    ecg = draw([0.5, 1.3, 2.1, 2.9, 5.3, 6.1, 6.9, 7.7, 8.5])
    ecg[:, int(3.4 * HZ) : int(4.9 * HZ)] = 0.0
    result = run(workflow, ecg, LEADS)
    assert result["findings"]["pause"]["presence"] == "undetermined"
    assert any("electrodes off" in note for note in result["notes"])


def test_inverted_leads_a_flat_lead_and_a_noisy_lead_change_nothing_much(workflow: Any) -> None:
    plain = draw(steady(72))
    worse = -plain
    worse[2] = 0.0
    worse[0] = np.random.default_rng(1).normal(0, 0.4, plain.shape[1])
    result = run(workflow, worse, LEADS)
    assert len(result["beats"]) == len(steady(72))
    assert result["values"]["heart_rate"] == pytest.approx(72, abs=0.5)
    assert result["notes"][0] == "Leads left out (flat or unusable): V1."


def test_wander_and_mains_hum_are_borne(workflow: Any) -> None:
    t = np.arange(5000) / HZ
    ecg = draw(steady(80), noise_mv=0.04) + 0.8 * np.sin(2 * np.pi * 0.25 * t) + 0.08 * np.sin(2 * np.pi * 60 * t)
    assert run(workflow, ecg, LEADS)["values"]["heart_rate"] == pytest.approx(80, abs=0.5)


def test_one_lead_is_enough_for_the_rate(workflow: Any) -> None:
    result = run(workflow, draw(steady(64))[1:2], ["II"])
    assert result["values"]["heart_rate"] == pytest.approx(64, abs=0.5)


@pytest.mark.parametrize(
    ("shape", "hz", "said"),
    [((0, 5000), 500.0, "no lead"), ((2, 2000), 500.0, "at least 5 s"), ((2, 900), 90.0, "at least 100 Hz")],
)
def test_an_unsuitable_ecg_is_refused_in_plain_words(
    workflow: Any, shape: tuple[int, int], hz: float, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        run(workflow, np.ones(shape), LEADS[: shape[0]], hz)
    assert workflow.outputs == {}


@pytest.mark.parametrize("value", [0.0, 2.5, np.nan, np.inf, 1e30])
def test_leads_without_a_signal_are_refused(workflow: Any, value: float) -> None:
    with pytest.raises(ValueError, match="No lead"):
        run(workflow, np.full((3, 5000), value), ["I", "II", "III"])


@pytest.mark.parametrize("leads", [1, 2, 12])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("brown", [False, True])
def test_noise_is_refused(workflow: Any, leads: int, seed: int, brown: bool) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.2, (leads, 5000))
    if brown:
        noise = 0.1 * np.cumsum(noise, axis=1)
    with pytest.raises(ValueError, match="No QRS complexes"):
        run(workflow, noise, ["lead"] * leads)


def test_a_rhythm_without_qrs_complexes_is_refused_and_not_called_normal(workflow: Any) -> None:
    t = np.arange(5000) / HZ
    with pytest.raises(ValueError, match="ventricular fibrillation"):
        run(workflow, np.stack([np.sin(2 * np.pi * 5 * t), np.cos(2 * np.pi * 5 * t)]), ["I", "II"])


def test_an_ecg_of_absurd_size_is_refused_before_it_is_worked_on(workflow: Any) -> None:
    with pytest.raises(ValueError, match="too long"):
        run(workflow, np.broadcast_to(np.float32(0), (12, 2_000_000)), ["lead"] * 12, 1000.0)
    with pytest.raises(ValueError, match="at most 60 min"):
        run(workflow, np.zeros((1, 400_000)), ["I"], 100.0)


def test_a_wrong_number_of_lead_names_is_refused(workflow: Any) -> None:
    with pytest.raises(ValueError, match="number of leads"):
        run(workflow, draw(steady(70)), ["I"])


def real_ecgs() -> list[Path]:
    """The same recording twice: pydicom's copy, and the one beside the repository where it is there."""
    packaged = get_testdata_file("waveform_ecg.dcm", download=False)
    assert packaged is not None
    beside = DATA / "anonymous_12lead_ecg.dcm"
    return [Path(str(packaged)), *([beside] if beside.is_file() else [])]


@pytest.mark.parametrize("path", real_ecgs(), ids=lambda path: path.name)
def test_a_real_12_lead_ecg_agrees_with_the_eye_and_with_the_cart(workflow: Any, path: Path) -> None:
    """Ten R peaks seen on the drawn trace; numbers of the cart from the file's own annotations."""
    ecg = pydicom.dcmread(path)
    group = ecg.WaveformSequence[0]
    names = [c.ChannelSourceSequence[0].CodeMeaning.split(" ")[1] for c in group.ChannelDefinitionSequence]
    cart = {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(item.NumericValue)
        for item in ecg.WaveformAnnotationSequence
        if "NumericValue" in item
    }
    result = run(workflow, ecg.waveform_array(0).T / 1000, names, float(group.SamplingFrequency))
    seen_s = [0.53, 1.53, 2.51, 3.49, 4.49, 5.47, 6.44, 7.44, 8.42, 9.37]
    assert np.array(result["beats"]) / 1000 == pytest.approx(seen_s, abs=0.02)
    values = result["values"]
    assert values["rr_interval"] == pytest.approx(cart["RR Interval"], abs=5)
    assert values["pr_interval"] == pytest.approx(cart["PR Interval"], abs=15)
    assert values["qrs_duration"] == pytest.approx(cart["QRS Duration"], abs=15)
    assert values["qt_interval"] == pytest.approx(cart["QT Interval"], abs=20)
    assert result["findings"]["normal_sinus_rhythm"]["presence"] == "present"


@pytest.fixture(scope="module")
def evaluation() -> Any:
    spec = importlib.util.spec_from_file_location(
        "evaluate_ecg_arrhythmia", ROOT / "scripts" / "train" / "evaluate_ecg_arrhythmia.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "rhythm"), [("122", "normal"), ("202", "fibrillation"), ("119", "ectopic")])
def test_a_minute_of_mit_bih_is_read_as_annotated(workflow: Any, evaluation: Any, name: str, rhythm: str) -> None:
    path = DATA / "mitbih" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"the MIT-BIH records are not at {path.parent}")
    record = evaluation.read_record(path)
    start = record.millivolts.shape[1] - int(120 * record.sampling_hz) if rhythm == "fibrillation" else 0
    end = start + int(60 * record.sampling_hz)
    result = run(workflow, record.millivolts[:, start:end], record.leads, record.sampling_hz)
    inside = (record.beats >= start) & (record.beats < end)
    pairs = evaluation.match(record.beats[inside] - start, np.array(result["beats"]), 0.15 * record.sampling_hz)
    assert len(pairs) >= 0.98 * max(inside.sum(), len(result["beats"]))
    truth = evaluation.reference(record, start, end)
    for key in ("atrial_fibrillation", "premature_wide_beats", "bradycardia", "tachycardia", "pause"):
        assert (result["findings"][key]["presence"] == "present") == truth[key], key
    assert truth["atrial_fibrillation"] == (rhythm == "fibrillation")
    assert truth["premature_wide_beats"] == (rhythm == "ectopic")


def test_the_pipeline_names_exactly_what_the_workflow_says(workflow: Any, pipeline: Any) -> None:
    times = steady(70)
    times[5] -= 0.25
    result = run(workflow, draw(times, wide=(5,)), LEADS)
    assert {item["key"] for item in pipeline["measurements"]} == set(result["values"])
    assert {item["key"] for item in pipeline["evaluations"]} == set(result["findings"])
    assert pipeline["status"] == "classical" and pipeline["machine_learning"] is False


def test_coded_names_are_those_of_the_dictionary(pipeline: Any) -> None:
    """Every name but the private ones and the procedure is in pydicom's dictionary, with its meaning."""
    known = {
        (code.value, code.scheme_designator, code.meaning)
        for scheme in ("SCT", "DCM", "LN", "MDC", "UCUM")
        for word in getattr(codes, scheme).dir()
        for code in [getattr(getattr(codes, scheme), word)]
    }
    items = [*pipeline["measurements"], *pipeline["evaluations"]]
    names = [item["name"] for item in items] + [item["unit"] for item in pipeline["measurements"]]
    for name in names:
        assert len(name["meaning"]) <= 64 and len(name["value"]) <= 16
        if name["scheme"] != "99PACSNODE":
            assert (name["value"], name["scheme"], name["meaning"]) in known
