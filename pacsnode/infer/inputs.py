"""The files of a case to what its service reads: stills, grey or coloured, and volumes by their roles.

Runs in the compute child only. In: paths and the contract. Out: arrays with their meaning. Refuses what
the service does not read with a sentence; never takes one series for another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pacsnode.errors import Permanent
from pacsnode.infer import needs
from pacsnode.infer.answers import is_same_place
from pacsnode.infer.frames import read_clip, read_frames
from pacsnode.infer.pipeline import SeriesRole
from pacsnode.infer.pixels import Image, read_image
from pacsnode.infer.volume import Volume, read_volume


@dataclass(frozen=True)
class Still:
    """One image as its network reads it. `values`: see `pictures.Picture`; `grey`: the image behind, if it is one."""

    sop_instance_uid: str
    values: NDArray[np.float32]
    spacing_mm: tuple[float, float] | None
    notes: tuple[str, ...]
    grey: Image | None

    def picture(self, *, is_negative: bool = False) -> NDArray[np.uint8]:
        """For drawing, 0 to 255: (rows, columns), or (rows, columns, 3) of a coloured image."""
        if self.grey is None:
            return (self.values + np.float32(0.5)).astype(np.uint8)
        return (self.grey.negative() if is_negative else self.grey).picture


def read_still(path: Path, channels: int | None) -> Still:
    """A single image for a network that reads so many `channels` (None: not stated). Raises Permanent.

    A network that reads three gets a grey image as RGB, 0 to 255: it learnt on pictures like these.
    """
    clip = read_clip(path)
    if clip.frames != 1:
        raise Permanent(f"the service reads single images, this object holds {clip.frames} frames")
    notes = (clip.spacing_note,) if clip.spacing_note else ()
    if clip.is_colour and channels != 1:
        rgb = read_frames(path).pixels[0].astype(np.float32)
        return Still(clip.sop_instance_uid, rgb, clip.spacing_mm, notes, None)
    image = read_image(path)
    values = image.intensity if channels != 3 else as_rgb(image.intensity)
    return Still(image.sop_instance_uid, values, image.spacing_mm, notes, image)


def as_rgb(intensity: NDArray[np.float32]) -> NDArray[np.float32]:
    """(…, 3), 0 to 255, of a grey picture, 0 to 1."""
    return np.repeat((intensity * np.float32(255))[..., None], 3, axis=-1)


def read_roles(roles: Sequence[SeriesRole], files: Sequence[Path], *, resampled: bool) -> dict[str, Volume]:
    """The volume of each role that the case has. Raises Permanent, also for other grids unless they are `resampled`."""
    found: dict[str, Volume] = {}
    for role in roles:
        own = [path for path in files if needs.meets(role.when, path)]
        if not own and role.optional:
            continue
        if not own:
            raise Permanent(f"the study has no series for {role.role} ({role.when.in_words})")
        try:
            volume = read_volume(own)
            needs.refuse_volume(role.needs, volume)
        except Permanent as error:
            raise Permanent(f"{role.role}: {error}") from error
        found[role.role] = volume
    if not resampled:
        _refuse_other_grids(found)
    return found


def _refuse_other_grids(volumes: Mapping[str, Volume]) -> None:
    first, *others = volumes.items()
    for role, volume in others:
        shape, wanted = volume.intensity.shape, first[1].intensity.shape
        if shape != wanted:
            told, expected = (" x ".join(map(str, reversed(one))) for one in (shape, wanted))
            raise Permanent(f"{role} has {told} voxels and {first[0]} {expected}; the service needs one grid for both")
        if not is_same_place(wanted[::-1], volume.affine, first[1].affine):
            raise Permanent(f"{role} lies at another place than {first[0]}; the service needs one grid for both")
