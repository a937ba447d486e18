"""Pictures of OHIF with our SEG and SR.

In: OHIF as npm packs it. Out: ohif-seg.png and ohif-sr.png; exit code 1 where a picture lacks what it should show, 2
where something is not installed. Starts Orthanc, a site and Chromium of its own on loopback
and ends them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ohif_browser import CHROMIUM, Browser
from ohif_site import Site
from orthanc import DICOM_WEB, ORTHANC, Orthanc
from PIL import Image
from viewer_study import PHANTOM, SEGMENTS, SLICE, study

SIZE = 1400, 900
YELLOW = (255, 255, 0)
"""In which OHIF draws a measurement that it shows."""
_SHOWN = "!!document.querySelector('canvas') && !!document.querySelector('[data-cy=studyBrowser-panel]')"
_SKIP = "[...document.querySelectorAll('button')].filter(b => /skip all/i.test(b.innerText)).map(b => b.click()).length"
_SERIES = """\
(() => {
  const thumbnails = [...document.querySelectorAll('[data-cy^=study-browser-thumbnail]')];
  const label = (one) => one.querySelector('[data-cy=series-modality-label]')?.innerText.trim();
  const box = thumbnails.find((one) => label(one) === '%s')?.getBoundingClientRect();
  return box && [box.x + box.width / 3, box.y + box.height / 3];
})()"""
_PANEL = "(() => { const b = document.querySelector('[data-cy=%s-btn]'); if (b) b.click(); return !!b; })()"


def missing(dist: Path) -> Iterator[str]:
    """What has to be there, and where it comes from."""
    if not (dist / "index.html").is_file():
        yield f"{dist} is no OHIF: `npm pack @ohif/app`, unpack it, and name its folder `package`"
    for path, package in ((Path(ORTHANC), "orthanc"), (Path(DICOM_WEB), "orthanc-dicomweb"), (CHROMIUM, "chromium")):
        if not path.exists():
            yield f"{path} is not there (Debian's package {package})"


def settled(browser: Browser, path: Path, timeout_s: float = 60.0) -> None:
    """The picture once it no longer changes: three times the same, a second apart."""
    deadline = time.monotonic() + timeout_s
    alike, last = 0, b""
    while alike < 3:
        time.sleep(1)
        browser.shoot(path)
        alike = alike + 1 if path.read_bytes() == last else 0
        last = path.read_bytes()
        if time.monotonic() > deadline:
            raise TimeoutError("the page does not come to rest")


def shoot(browser: Browser, address: str, output: Path) -> None:
    """Open the study; take a picture with its SEG, then with its SR."""
    browser.open(address)
    browser.wait_for(_SHOWN)
    browser.wait_for(_SERIES % "SR")
    settled(browser, output / "ohif-seg.png")
    browser.ask(_SKIP)  # the tour for new users
    for modality, panel in (("SEG", "panelSegmentation"), ("SR", "trackedMeasurements")):
        picture = output / f"ohif-{modality.lower()}.png"
        x, y = browser.wait_for(_SERIES % modality)
        browser.click(x, y, times=2)
        settled(browser, picture)
        browser.ask(_PANEL % panel)
        settled(browser, picture)
        if modality == "SEG":  # an SR is opened at its first place, a SEG where the reader stands
            browser.scroll(SIZE[0] / 2, SIZE[1] / 2, PHANTOM.shape[0] - 1 - SLICE)
            settled(browser, picture)


def lacking(output: Path) -> Iterator[str]:
    """What the pictures do not show, by colour."""
    for segment in SEGMENTS:
        if _count(output / "ohif-seg.png", segment.color_rgb) < 50:
            yield f"ohif-seg.png does not show the outline of {segment.label}"
    if _count(output / "ohif-sr.png", YELLOW) < 50:
        yield "ohif-sr.png does not show the measurement"


def _count(picture: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels have it nearly."""
    pixels = np.asarray(Image.open(picture).convert("RGB"), dtype=np.int16)
    return int((np.abs(pixels - np.array(colour)).max(axis=2) < 12).sum())


def main() -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(prog="scripts/viewer", description=__doc__)
    parser.add_argument("--ohif", type=Path, required=True, help="the folder `package` of @ohif/app, or its dist")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    given = parser.parse_args()
    dist = given.ohif / "dist" if (given.ohif / "dist").is_dir() else given.ohif
    if problems := list(missing(dist)):
        print(*problems, sep="\n", file=sys.stderr)
        return 2
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uid, files = study(folder / "study")
        with Orthanc(folder / "orthanc", 1, plugins=(DICOM_WEB,)) as archive, Site(dist, archive.http_port) as site:
            for file in files:
                archive.put(file)
            with Browser(folder, SIZE) as browser:
                shoot(browser, f"{site.address}/viewer?StudyInstanceUIDs={uid}", given.output)
    faults = list(lacking(given.output))
    print(*faults or [f"{given.output}: ohif-seg.png and ohif-sr.png show the segments and the measurement"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
