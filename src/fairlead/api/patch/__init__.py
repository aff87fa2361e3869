"""The three patches that need no record of who owns what: JSON Patch, merge patch, strategic merge patch.

Each takes a document and a patch as decoded JSON and returns a new document that shares nothing mutable with either;
neither is changed, so a patch can be tried again on a newer document. What they refuse is a StatusError.
"""

from fairlead.api.patch.json import json_patch
from fairlead.api.patch.merge import merge_patch
from fairlead.api.patch.strategic import strategic_merge

__all__ = ["json_patch", "merge_patch", "strategic_merge"]
