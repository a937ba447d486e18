"""A study as conditions see it: its images in groups that do not differ in anything that a rule looks at.

In: a study and the rules. Out: groups, and for a condition the images that satisfy it with the clauses of the one that
came nearest. Pure. A CT series of a thousand slices is one group or a few: so two hundred rules take no longer for it.
Sets of images are whole numbers, a bit for each image in the order of their SOP Instance UIDs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import NamedTuple

from pacsnode.archive.described import Described
from pacsnode.conditions import Condition
from pacsnode.dicom.attributes import PER_IMAGE
from pacsnode.handover import Instance, RuleVerdict, Study
from pacsnode.route.facts import facts_of
from pacsnode.route.prepared import Asked, Key, Known, Prepared, Told, prepared
from pacsnode.route.rules import Rules

CLOCK = frozenset({"time", "weekday"})
AGE_SOURCES = ("PatientAge", "PatientBirthDate", "StudyDate", "SeriesDate", "ContentDate")
"""What `facts.age_of` looks at."""
SECOND_US = 1_000_000
NOTHING = Told(False, ())

Images = int
_BY_UID = attrgetter("sop_instance_uid")


class Group(NamedTuple):
    """Images that are the same to every rule: what is known of their values, by all names that rules look at.

    `numbers`: those of the values alone; `may`: the rules, a bit each, that may take them.
    """

    known: Mapping[str, Known]
    numbers: Mapping[str, int]
    may: int
    images: Images


class Selected(NamedTuple):
    """The images that a condition holds for, and what it says to the group that came nearest to it."""

    images: Images
    nearest: Told


class View:
    """The groups of one study, in the order of SOP Instance UIDs."""

    def __init__(self, study: Study, rules: Rules) -> None:
        self.instances = sorted(study.instances, key=_BY_UID)
        self.everything: Images = (1 << len(self.instances)) - 1
        self._prepared = prepared(rules)
        self._prepared.begin()
        self.groups = _grouped(self.instances, self._prepared, _facts(study, rules, self._prepared))
        self._differing = _differing(self.groups, self._prepared.names)
        self._parts: dict[int, list[Group]] = {}
        self._met: dict[int, bool] = {}
        self._chosen: dict[Images, tuple[Instance, ...]] = {0: (), self.everything: tuple(self.instances)}
        self._uids: dict[Images, tuple[str, ...]] = {}

    def of(self, images: Images) -> tuple[Instance, ...]:
        """These images, in the study's order."""
        known = self._chosen.get(images)
        if known is None:
            chosen = (i for i, bit in zip(self.instances, reversed(f"{images:b}"), strict=False) if bit == "1")
            known = self._chosen[images] = tuple(chosen)
        return known

    def uids(self, images: Images) -> tuple[str, ...]:
        """Their SOP Instance UIDs."""
        known = self._uids.get(images)
        if known is None:
            known = self._uids[images] = tuple([instance.sop_instance_uid for instance in self.of(images)])
        return known

    def images_of(self, instances: Iterable[Instance]) -> Images:
        """The same images as a number."""
        wanted = {instance.sop_instance_uid for instance in instances}
        return sum([1 << place for place, one in enumerate(self.instances) if one.sop_instance_uid in wanted])

    def may_be_taken_by(self) -> int:
        """The rules, a bit each, that may take some image; the others take none, whatever else they say."""
        may = 0
        for group in self.groups:
            may |= group.may
        return may

    def refusal(self, rule: str, when: Asked) -> RuleVerdict | None:
        """What a rule says of which no image satisfies the condition; None where one does, or there are none.

        `select` in short, for the most rules of a file refuse.
        """
        nearest = None
        for group in self._parts.get(when.names & self._differing) or self._apart(when.names & self._differing):
            key = when.key_of(group.numbers)
            if when.of_study:
                key += tuple([self._meets(inner) for inner in when.of_study])
            told = when.remembered.get(key) or self._prepared.look(when, key, group.known, self._meets)
            if told.held:
                return None
            if nearest is None or told.rank > nearest.rank:
                nearest = told
        return None if nearest is None else nearest.refusal(rule)

    def select(self, condition: Condition, among: Images) -> Selected:
        """The images, of `among`, for which the condition holds."""
        answers = self._answers(condition)
        if len(answers) == 1:
            told, images = answers[0]
            return Selected(images & among if told.held else 0, told)
        held = [answer for answer in answers if answer[0].held]
        selected = 0
        for _, images in held:
            selected |= images
        nearest = held or answers
        if among != self.everything:
            nearest = [answer for answer in nearest if answer[1] & among] or nearest
        return Selected(selected & among, nearest[0][0] if held else _nearest(nearest))

    def nearest(self, condition: Condition, among: Images) -> Told:
        """What the condition says to that one of these images which comes nearest to it."""
        answers = [answer for answer in self._answers(condition) if answer[1] & among]
        return next((told for told, _ in answers if told.held), _nearest(answers))

    def is_met(self, condition: Condition, among: Images) -> bool:
        """Whether the condition holds for one of these images."""
        return any(told.held and images & among for told, images in self._answers(condition))

    def _answers(self, condition: Condition) -> list[tuple[Told, Images]]:
        """What the condition says to the images, those together that are the same to it."""
        asked = self._prepared.asked(condition)
        of_study = tuple([self._meets(inner) for inner in asked.of_study]) if asked.of_study else ()
        remembered, key_of = asked.remembered, asked.key_of
        answers = []
        for group in self._apart(asked.names & self._differing):
            key = key_of(group.numbers) + of_study
            told = remembered.get(key) or self._prepared.look(asked, key, group.known, self._meets)
            answers.append((told, group.images))
        return answers

    def _meets(self, condition: Condition) -> bool:
        """Whether some image of the study satisfies it."""
        known = self._met.get(id(condition))
        if known is None:
            known = self._met[id(condition)] = any(told.held for told, _ in self._answers(condition))
        return known

    def _apart(self, names: int) -> list[Group]:
        """The groups, those put together that do not differ in these attributes; the first stands for them."""
        known = self._parts.get(names)
        if known is None:
            bases = [base for number, base in enumerate(self._prepared.names) if names >> number & 1]
            parts: dict[Key, Group] = {}
            for group in self.groups:
                key = tuple([group.numbers[base] for base in bases])
                same = parts.get(key)
                parts[key] = same._replace(images=same.images | group.images) if same else group
            known = self._parts[names] = list(parts.values())
        return known


def _differing(groups: Sequence[Group], names: Sequence[str]) -> int:
    """The names whose values are not the same in all groups, a bit each."""
    found = 0
    for number, name in enumerate(names):
        if len({group.numbers[name] for group in groups}) > 1:
            found |= 1 << number
    return found


def _nearest(answers: Sequence[tuple[Told, Images]]) -> Told:
    """The one that came nearest, the first of several."""
    best = NOTHING
    for told, _ in answers:
        if best is NOTHING or told.rank > best.rank:
            best = told
    return best


Facts = Callable[[Instance], Mapping[str, tuple[str, ...]]]


def _facts(study: Study, rules: Rules, ready: Prepared) -> Facts | None:
    """What gives the facts of an image that the file asks for; None where it asks for none.

    Clock and age are asked once for each second and each patient: they cost as much as all the rest.
    """
    if not ready.facts:
        return None
    alone = replace(study, instances=())  # for what does not depend on the others
    of_clock = facts_of(alone, rules.zone, [name for name in ready.facts if name in CLOCK])
    of_age = facts_of(alone, rules.zone, [name for name in ready.facts if name == "age"])
    others = facts_of(study, rules.zone, [name for name in ready.facts if name not in (*CLOCK, "age")])
    clocks: dict[int, Mapping[str, tuple[str, ...]]] = {}
    ages: dict[tuple[object, ...], Mapping[str, tuple[str, ...]]] = {}

    def of(instance: Instance) -> Mapping[str, tuple[str, ...]]:
        second = instance.received_utc_us // SECOND_US
        if second not in clocks:
            clocks[second] = of_clock(instance)
        said = tuple(map(instance.attributes.get, AGE_SOURCES))
        if said not in ages:
            ages[said] = of_age(instance)
        return {**others(instance), **clocks[second], **ages[said]}

    return of


def _grouped(instances: Sequence[Instance], ready: Prepared, facts: Facts | None) -> list[Group]:
    """Groups of images to which all tests of the file answer the same; the values of the first stand for all."""
    found: dict[tuple[int, ...], Group] = {}
    per_image = any(name in PER_IMAGE for name in ready.names)
    for places in _raw_groups(instances, ready):
        first = instances[places[0]]
        attributes = first.attributes
        if not per_image and isinstance(attributes, Described):
            attributes = attributes.common  # all that is asked for is in it, and it is quicker
        get, told = attributes.get, facts(first) if facts else {}
        known = {name: ready.known(name, get(name) or told.get(name) or ()) for name in ready.names}
        answers = tuple([one.answers for one in known.values()])
        images = sum([1 << place for place in places])
        same = found.get(answers)
        if same is not None:
            found[answers] = same._replace(images=same.images | images)
            continue
        may = -1
        for one in known.values():
            may &= one.may
        found[answers] = Group(known, {name: one.number for name, one in known.items()}, may, images)
    return list(found.values())


def _raw_groups(instances: Sequence[Instance], ready: Prepared) -> Iterable[list[int]]:
    """Places of images that say the same, came from one peer, are of one series and of one second if that counts."""
    names = (*ready.names, *(AGE_SOURCES if "age" in ready.facts else ()))
    period_us = SECOND_US if CLOCK & set(ready.facts) else 1 << 62
    common_is_all = not any(name in PER_IMAGE for name in names)
    found: dict[tuple[object, ...], list[int]] = {}
    for place, instance in enumerate(instances):
        attributes = instance.attributes
        if common_is_all and isinstance(attributes, Described):
            what: object = id(attributes.common)
        else:
            what = tuple(map(attributes.get, names))
        key = (what, instance.series_instance_uid, instance.peer, instance.received_utc_us // period_us)
        places = found.get(key)
        if places is None:
            found[key] = [place]
        else:
            places.append(place)
    return found.values()
