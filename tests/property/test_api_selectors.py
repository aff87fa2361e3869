"""Selectors mean the same after rendering and parsing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.errors import StatusError
from fairlead.api.selectors import FieldSelector, FieldTerm, LabelSelector, Requirement

words = st.from_regex(r"[a-z0-9]([-a-z0-9_.]{0,8}[a-z0-9])?", fullmatch=True)
keys = st.one_of(words, st.builds("{}/{}".format, st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,3})?", fullmatch=True), words))
values = st.one_of(st.just(""), words)


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    operator = draw(st.sampled_from(["in", "notin", "=", "==", "!=", "gt", "lt", "exists", "!"]))
    if operator in ("exists", "!"):
        given_values: tuple[str, ...] = ()
    elif operator in ("gt", "lt"):
        given_values = (str(draw(st.integers(0, 2**63 - 1))),)
    elif operator in ("in", "notin"):
        given_values = tuple(sorted(draw(st.sets(values, min_size=1, max_size=4))))
    else:
        given_values = (draw(values),)
    return Requirement(draw(keys), operator, given_values)


@given(st.lists(requirements(), max_size=5), st.dictionaries(keys, values, max_size=5))
def test_label_selectors_survive_their_text(found: list[Requirement], labels: dict[str, str]) -> None:
    """parse(render(x)) == x, and it selects the same."""
    selector = LabelSelector(tuple(sorted(found, key=lambda r: r.key)))
    again = LabelSelector.parse(selector.render())
    assert again == selector
    assert again.matches(labels) == all(r.matches(labels) for r in found)


@given(st.text(alphabet="ab,=!()<> in\\\t\0é", max_size=20))
def test_any_text_is_a_selector_or_a_400(text: str) -> None:
    """No input makes the parsers fail in another way."""
    for parse in (LabelSelector.parse, FieldSelector.parse):
        try:
            selector = parse(text)
        except StatusError as error:
            assert error.code == 400
        else:
            assert parse(selector.render()).render() == selector.render()


@given(st.lists(st.builds(FieldTerm, words, st.text(max_size=8), st.booleans()), max_size=4))
def test_field_selectors_survive_their_text(terms: list[FieldTerm]) -> None:
    """parse(render(x)) has the terms of x, whatever is in their values."""
    again = FieldSelector.parse(FieldSelector(tuple(terms)).render())
    assert set(again.terms) == set(terms)
