"""`scripts/` of a bundle as the package `scripts`, while that bundle is loaded or runs, and at no other time.

Bundles of the model zoo name their own code `scripts.…` in configs and imports, each its own. Modules are compiled from
the files that were hashed: __pycache__ is in no hash, and is neither read nor written.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

PACKAGE = "scripts"


class _FromSource(SourceFileLoader):
    """Compiles the file that was hashed."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class Scripts:
    """A context in which `scripts` is the package of one bundle. One at a time: the process runs one job at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modules: dict[str, ModuleType] = {}

    def __enter__(self) -> None:
        _forget()
        sys.modules.update(self._modules)
        sys.meta_path.insert(0, self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        sys.meta_path.remove(self)
        self._modules = _forget()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As sys.meta_path asks; the modules of the package only."""
        parts = fullname.split(".")
        if parts[0] != PACKAGE:
            return None
        folder = self._folder.joinpath(*parts)
        for file, inside in ((folder / "__init__.py", [str(folder)]), (folder.with_suffix(".py"), None)):
            if file.is_file():
                loader = _FromSource(fullname, str(file))
                return importlib.util.spec_from_file_location(
                    fullname, file, loader=loader, submodule_search_locations=inside
                )
        if not folder.is_dir():
            return None
        without_init = ModuleSpec(fullname, None, is_package=True)
        without_init.submodule_search_locations = [str(folder)]
        return without_init


def _forget() -> dict[str, ModuleType]:
    """Take all modules of the package out of those that Python knows."""
    names = [name for name in sys.modules if name.partition(".")[0] == PACKAGE]
    return {name: sys.modules.pop(name) for name in names}
