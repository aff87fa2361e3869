"""The Common Expression Language, as far as Kubernetes' validation rules use it. Pure.

`syntax` parses, `values` and `functions` say what there is, `evaluate` compiles and runs, `rules` are Kubernetes' own.
"""

from fairlead.api.custom.cel.rules import ABSENT, Rule, apply, make, problems, typed

__all__ = ["ABSENT", "Rule", "apply", "make", "problems", "typed"]
