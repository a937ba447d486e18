"""A study as conditions see it: its images in groups that do not differ in anything that a rule looks at.

In: a study and the rules. Out: groups, and for a condition the images that satisfy it with the clauses of the one that
came nearest. Pure. A CT series of a thousand slices is one group or a few: so two hundred rules take no longer for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pacsnode.conditions import Condition, Values, evaluate, holds
from pacsnode.handover import Clause, Instance, Study
from pacsnode.operands import FACTS
from pacsnode.route.facts import facts_of
from pacsnode.route.rules import Rules, unsatisfied

MOST_EXPLAINED = 32
"""So many groups are looked at for the one that came nearest to a condition."""


@dataclass(frozen=True)
class Group:
    """Images that are the same to every rule."""

    values: Values
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Selected:
    """The instances that a condition holds for, and the clauses of the group that came nearest to it."""

    instances: tuple[Instance, ...]
    nearest: tuple[Clause, ...] = ()


class View:
    """The groups of one study, in the order of SOP Instance UIDs."""

    def __init__(self, study: Study, rules: Rules) -> None:
        self.instances = sorted(study.instances, key=lambda instance: instance.sop_instance_uid)
        attributes = [name for name in rules.names if name not in FACTS]
        facts = [name for name in rules.names if name in FACTS]
        known_of = facts_of(study, rules.zone, facts)
        groups: dict[tuple[object, ...], list[Instance]] = {}
        for instance in self.instances:
            get = instance.attributes.get
            key: tuple[object, ...] = tuple(map(get, attributes))
            if facts:
                known = known_of(instance)
                key += tuple(get(name) or known.get(name) for name in facts)
            groups.setdefault(key, []).append(instance)
        names = (*attributes, *facts)
        self.groups = [
            Group({name: value for name, value in zip(names, key, strict=True) if value}, tuple(same))  # type: ignore[misc]
            for key, same in groups.items()
        ]
        self._all = [group.values for group in self.groups]

    def select(self, condition: Condition, among: Collection[str] | None = None, *, explained: bool = True) -> Selected:
        """The instances, of those with these UIDs or of all, for which the condition holds, in the study's order."""
        chosen: list[Group] = []
        for group in self.groups:
            if holds(condition, group.values, self._all):
                chosen.append(group)
        uids = {i.sop_instance_uid for group in chosen for i in group.instances}
        if among is not None:
            uids &= set(among)
        instances = tuple(i for i in self.instances if i.sop_instance_uid in uids) if uids else ()
        if not explained:
            return Selected(instances)
        candidates = chosen or self.groups
        if among is not None:
            candidates = [g for g in candidates if any(i.sop_instance_uid in among for i in g.instances)] or candidates
        return Selected(instances, self._nearest(condition, candidates))

    def is_met(self, condition: Condition, instances: Sequence[Instance] | None = None) -> bool:
        """Whether the condition holds for one of these instances, or of the study."""
        wanted = None if instances is None else {instance.sop_instance_uid for instance in instances}
        return any(
            holds(condition, group.values, self._all)
            for group in self.groups
            if wanted is None or any(instance.sop_instance_uid in wanted for instance in group.instances)
        )

    def _nearest(self, condition: Condition, groups: Sequence[Group]) -> tuple[Clause, ...]:
        best: tuple[tuple[bool, int, int], tuple[Clause, ...]] | None = None
        for group in groups[:MOST_EXPLAINED]:
            held, clauses = evaluate(condition, group.values, self._all)
            if held:
                return clauses
            blocking = len(unsatisfied(clauses))
            rank = (held, len(clauses) - blocking, -blocking)
            if best is None or rank > best[0]:
                best = rank, clauses
        return best[1] if best else ()
