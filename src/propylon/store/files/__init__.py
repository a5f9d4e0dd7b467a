"""Directories of manifests as the source of a store's objects: found, built, filled in, checked, applied and
watched."""

from propylon.store.files.apply import Action, FileChange, FilesController, Outcomes, Plan, plan
from propylon.store.files.problems import FileProblem, Severity
from propylon.store.files.source import FileObject, FileSource, Loaded

__all__ = [
    "Action",
    "FileChange",
    "FileObject",
    "FileProblem",
    "FileSource",
    "FilesController",
    "Loaded",
    "Outcomes",
    "Plan",
    "Severity",
    "plan",
]
