"""Every CEL rule has an example that breaks it; `e2e/test_refusals.py` shows the same ones to a real API server."""

from __future__ import annotations

from tests.fakes.refusals import EXAMPLES, broken_by, crd_rules, is_broken_by


def test_each_rule_of_the_crds_has_an_example():
    """A rule that is missing here needs one in tests/fakes/refusals.py."""
    assert [rule for rule in crd_rules() if not any(is_broken_by(rule, example) for example in EXAMPLES)] == []


def test_each_example_breaks_one_rule():
    assert [(example["spec"], broken_by(example)) for example in EXAMPLES if len(broken_by(example)) != 1] == []
    assert len({tuple(broken_by(example)) for example in EXAMPLES}) == len(EXAMPLES)
