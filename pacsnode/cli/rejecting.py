"""`pacsnode studies reject`: what a rejection note of the PACS does, by hand, whether `work` runs or not."""

from __future__ import annotations

import typer

from pacsnode.cli.looking import ready, ring
from pacsnode.errors import ConfigError

UID_ARGUMENT = typer.Argument(help="StudyInstanceUID.")
REASON_OPTION = typer.Option(help="quality, safety, worklist (wrong patient or order) or retention.")


def register(studies: typer.Typer) -> None:
    """Add this command to the group `studies`."""
    studies.command("reject")(studies_reject)


def studies_reject(uid: str = UID_ARGUMENT, reason: str = REASON_OPTION) -> None:
    """Let all images of a study count no more: its cases are withdrawn, and a rejection note follows every result."""
    from pacsnode.allowing import author
    from pacsnode.archive.cases import Cases
    from pacsnode.archive.index import Index
    from pacsnode.archive.rejections import Rejections
    from pacsnode.deliver.debts import withdraw
    from pacsnode.dicom.rejection import TITLES
    from pacsnode.rejecting import rejection_by_hand
    from pacsnode.settings import load

    titles = {str(word): title for word, title in TITLES.items()}
    if reason not in titles:
        raise ConfigError(f"expected one of {', '.join(titles)}, found {reason!r}", where="--reason")
    settings = ready(load())
    index, cases = Index(settings.index_db), Cases(settings.node_db)
    try:
        by = f"operator {author()}"
        rejection = rejection_by_hand(index.study(uid), cases.of_study(uid), titles[reason].value, by)
        if rejection is None:
            raise ConfigError(f"no image of a study {uid} was received")
        withdrawn = Rejections(cases, withdraw).reject(rejection)
    finally:
        cases.close()
        index.close()
    ring(settings)
    typer.echo(f"{len(rejection.instances)} images count no more, {len(withdrawn)} cases are withdrawn")
