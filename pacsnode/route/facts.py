"""What the node itself knows of an image: who sent it, when it came, how old the patient is, how many came with it.

In: a study and the clock of the site. Out: the values of `operands.FACTS`, as text like those of attributes. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, tzinfo

from pacsnode.handover import Attributes, Instance, Study
from pacsnode.operands import AGE, DATE, PEER, WEEKDAYS

YEARS_FROM = 2
MONTHS_FROM = 2
"""Ages are told in years from two years on, in months from two months on, else in days: as VR AS has them."""


def facts_of(study: Study, zone: tzinfo, wanted: Collection[str]) -> Callable[[Instance], dict[str, tuple[str, ...]]]:
    """What gives the wanted facts of an image of the study."""
    per_series = Counter(instance.series_instance_uid for instance in study.instances)
    counts = {"study_images": (str(len(study.instances)),), "study_series": (str(len(per_series)),)}
    shared = {name: counts[name] for name in counts if name in wanted}
    needs_clock = "time" in wanted or "weekday" in wanted

    def of(instance: Instance) -> dict[str, tuple[str, ...]]:
        facts = {PEER: (instance.peer,), **shared}
        if "series_images" in wanted:
            facts["series_images"] = (str(per_series[instance.series_instance_uid]),)
        if needs_clock:
            came = datetime.fromtimestamp(instance.received_utc_us / 1e6, UTC).astimezone(zone)
            facts["time"] = (came.strftime("%H:%M:%S"),)
            facts["weekday"] = (WEEKDAYS[came.weekday()],)
        if "age" in wanted and (age := age_of(instance.attributes)):
            facts["age"] = (age,)
        return {name: value for name, value in facts.items() if name in wanted}

    return of


def age_of(attributes: Attributes) -> str:
    """The age at the study as VR AS has it, "" where nothing tells it. PatientAge counts before the two dates."""
    said = next(iter(attributes.get("PatientAge", ())), "").strip().upper()
    if AGE.fullmatch(said):
        return said
    born = _date(attributes, "PatientBirthDate")
    then = _date(attributes, "StudyDate") or _date(attributes, "SeriesDate") or _date(attributes, "ContentDate")
    if born is None or then is None or then < born:
        return ""
    months = (then.year - born.year) * 12 + then.month - born.month - (then.day < born.day)
    if months >= 12 * YEARS_FROM:
        return f"{months // 12:03}Y"
    return f"{months:03}M" if months >= MONTHS_FROM else f"{(then - born).days:03}D"


def _date(attributes: Mapping[str, tuple[str, ...]], keyword: str) -> date | None:
    found = DATE.fullmatch(next(iter(attributes.get(keyword, ())), "").strip())
    try:
        return date(*map(int, found.groups())) if found else None
    except ValueError:  # the 30th of February
        return None
