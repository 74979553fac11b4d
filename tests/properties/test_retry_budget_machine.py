"""The retry budget under any course of requests: what it grants it has, what is given back is there again, and all of it is bounded by the traffic."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spillway_sidecar.flow.budget import BURST, RetryBudget


class BudgetModel(RuleBasedStateMachine):
    """Requests begin, fail, try again or not, are answered, are hedged, end."""

    @initialize(percent=st.sampled_from([0, 1, 10, 50, 100]), hedge=st.sampled_from([0, 2, 100]))
    def begin(self, percent: int, hedge: int) -> None:
        self.budget = RetryBudget(percent, hedge)
        self.percent, self.hedge = percent, hedge
        self.plain = 0
        self.retrying = 0
        self.begun = self.granted_at_once = 0

    @rule(count=st.integers(1, 50))
    def come(self, count: int) -> None:
        self.budget.in_flight += count
        self.budget.begun_total += count
        self.begun += count
        self.plain += count

    @precondition(lambda self: self.plain)
    @rule()
    def fail(self) -> None:
        room = self.budget.has_room
        place = self.percent > 0 and self.retrying < max(1, self.budget.in_flight * self.percent // 100)
        before = self.budget.denied_total
        granted = self.budget.take()
        assert granted is room
        assert granted or not place, "a place that is free is given"
        assert granted or self.budget.denied_total == before + 1
        if granted:
            self.plain -= 1
            self.retrying += 1
            self.granted_at_once += place
        else:
            self.end()

    @rule(count=st.integers(1, 40))
    def storm(self, count: int) -> None:
        """An endpoint dies: many fail at once."""
        for _ in range(min(count, self.plain)):
            self.fail()

    @precondition(lambda self: self.retrying)
    @rule()
    def answer(self) -> None:
        self.budget.give_back()
        self.retrying -= 1
        self.plain += 1

    @precondition(lambda self: self.plain)
    @rule()
    def end(self) -> None:
        self.budget.in_flight -= 1
        self.plain -= 1

    @rule()
    def hedged(self) -> None:
        before = self.budget.hedged_total
        assert self.budget.take_hedge() is (self.budget.hedged_total == before + 1)

    @invariant()
    def it_is_bounded_by_the_traffic(self) -> None:
        if not hasattr(self, "budget"):
            return
        info = self.budget.info()
        assert info["retrying"] == self.retrying
        assert info["in_flight"] == self.plain + self.retrying
        assert self.percent or not info["spent_total"]
        saved = BURST + self.begun * self.percent / 100
        assert info["spent_total"] - self.granted_at_once <= saved, "beyond the places that were free, no more than was saved"
        assert info["hedged_total"] <= self.begun * self.hedge / 100

    def teardown(self) -> None:
        """All is over: one retry may always be made where any may."""
        if not hasattr(self, "budget"):
            return
        while self.retrying:
            self.answer()
        while self.plain:
            self.end()
        assert self.budget.info()["in_flight"] == self.budget.info()["retrying"] == 0
        assert self.budget.take() is (self.percent > 0)


TestBudget = BudgetModel.TestCase
TestBudget.settings = settings(max_examples=60, stateful_step_count=40)
