"""The secondary captures: what is drawn, and that it names nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pacsnode.encode.build import encode
from pacsnode.encode.drawing import AMBER, Line, clipped, font, panel, wrapped
from pacsnode.encode.ecg_page import ecg_page
from pacsnode.encode.overlay import image_page
from pacsnode.findings import Evaluation, Findings, Presence, Trace
from tests.encode.cases import CARDIOMEGALY, CHEST, CR, ECG, RHYTHM, chest_group, ecg_findings, read, request


def has_color(pixels: NDArray[np.uint8], color: tuple[int, int, int]) -> bool:
    return bool((pixels == np.array(color, dtype=np.uint8)).all(axis=-1).any())


@pytest.mark.parametrize("source", [CR, ECG])
def test_the_picture_fits_a_screen_and_warns(source: Path, tmp_path: Path) -> None:
    findings = Findings(CHEST, (chest_group(),)) if source == CR else ecg_findings()
    dataset = read(encode(findings, request(tmp_path, source, results=("sc",))), "sc")
    pixels = dataset.pixel_array
    assert pixels.shape[2] == 3 and pixels.shape[1] <= 1600 and pixels.dtype == np.uint8
    assert tuple(pixels[-3, 3]) == AMBER
    assert dataset.BurnedInAnnotation == ("YES" if source == CR else "NO")
    assert "unverified" in dataset.DerivationDescription
    keyword = "SourceImageSequence" if source == CR else "SourceInstanceSequence"
    assert dataset[keyword].value[0].ReferencedSOPInstanceUID == findings.groups[0].source[0]


def test_segments_are_outlined_in_their_colours_and_the_rest_is_left_grey() -> None:
    group = chest_group()
    assert group.picture is not None
    marked = image_page(group, group.picture, CHEST)
    plain = image_page(replace(group, label_map=None), group.picture, CHEST)
    for segment in group.segments:
        assert has_color(marked[:-44, :1000], segment.color_rgb)
        assert not has_color(plain, segment.color_rgb)
    outside = marked[40:60, 40:900]
    assert (outside == plain[40:60, 40:900]).all() and (outside.max(axis=2) == outside.min(axis=2)).all()


def test_the_picture_does_not_depend_on_the_patient(tmp_path: Path) -> None:
    trace = ecg_findings().groups[0].trace
    assert trace is not None
    drawn = ecg_page(ecg_findings().groups[0], trace, RHYTHM)
    dataset = read(encode(ecg_findings(), request(tmp_path, ECG, results=("sc",))), "sc")
    assert (dataset.pixel_array == drawn).all()


def test_a_millivolt_is_ten_millimetres_and_a_second_twenty_five() -> None:
    hertz = 500
    millivolts = np.zeros((1, 5000), dtype=np.float32)
    millivolts[0, 2000] = 1.0  # one sample of 1 mV at 4 s
    group = replace(ecg_findings().groups[0], measurements=(), evaluations=(), notes=())
    with_peak = ecg_page(group, Trace(("I",), millivolts, hertz), RHYTHM)
    without = ecg_page(group, Trace(("I",), np.zeros_like(millivolts), hertz), RHYTHM)
    rows, columns = np.nonzero((with_peak != without).any(axis=2))
    assert abs(np.ptp(rows) - 60) <= 4  # 6 pixels a millimetre
    assert abs(columns.mean() - (72 + 4 * 150)) <= 2


def test_an_ecg_of_two_leads_with_gaps_is_drawn_lane_by_lane() -> None:
    millivolts = np.sin(np.linspace(0, 60, 7200, dtype=np.float32))[None].repeat(2, axis=0)
    millivolts[1, 1000:2000] = np.nan
    group = replace(ecg_findings().groups[0], trace=None)
    twelve = ecg_findings().groups[0].trace
    assert twelve is not None
    page = ecg_page(group, Trace(("MLII", "V1"), millivolts, 360.0, (100, 400)), RHYTHM)
    assert page.shape[0] < ecg_page(group, twelve, RHYTHM).shape[0]
    assert has_color(page, (0, 90, 200))


def test_text_is_wrapped_inside_its_panel_and_cut_with_a_hint() -> None:
    long = "A sentence of many words " * 5 + "andaverylongwordwithoutanyspace" * 4
    assert all(font(18).getlength(line) <= 200 for line in wrapped(long, 18, 200))
    assert "".join(wrapped(long, 18, 200)).replace(" ", "") == long.replace(" ", "")
    page = np.asarray(panel([Line(long)] * 40, 300, (0, 0, 0), most_height=500))
    assert page.shape == (500, 300, 3)
    assert has_color(page, AMBER)


def test_hangul_is_drawn_in_its_own_letters() -> None:
    assert font(18).getmask("흉부").getbbox() is not None
    assert wrapped("흉부 용종", 18, 400) == ["흉부 용종"]
    drawn = [np.asarray(panel([Line(text)], 200, (0, 0, 0), most_height=100)) for text in ("용종", "폐암", "□□")]
    assert all((one != other).any() for one, other in ((drawn[0], drawn[1]), (drawn[0], drawn[2])))


def test_a_caption_is_cut_with_an_ellipsis() -> None:
    cut = clipped("Image 12: " + "용종 " * 80, 17, 300)
    assert cut.endswith("…") and font(17).getlength(cut) <= 300
    assert (clipped("Image 12", 17, 300), clipped("", 17, 300)) == ("Image 12", "")


def test_many_findings_do_not_make_the_page_endless() -> None:
    evaluations = tuple(Evaluation(CARDIOMEGALY, Presence.ABSENT, None, "A long comment. " * 10) for _ in range(60))
    group = replace(chest_group(), evaluations=evaluations)
    assert group.picture is not None
    assert image_page(group, group.picture, CHEST).shape[0] <= 1280 + 44
