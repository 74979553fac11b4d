"""What the probe makes of an engine's answers. No network: `fetch` is a script, time is a number."""

import asyncio
from collections.abc import Callable
from random import Random

import pytest
from tests.unit.engines import corpora

from spillway_sidecar.engines import MAX_EXPOSITION_BYTES, EngineLoad
from spillway_sidecar.reporting import EngineProbe, EngineSample, Fetched, FetchError, ProbeSettings, ProbeTarget
from spillway_sidecar.reporting.fetch import LateError
from spillway_wire.names import Provider
from spillway_wire.snapshot import Health

URL = "http://127.0.0.1:9"
HEALTH = Health(path="/health", interval_seconds=5.0, timeout_seconds=1.0)
UP = Fetched(200, b"")
LATE = LateError("no whole answer within 1 s")
REFUSED = FetchError("ConnectionRefusedError: nobody there")


class Engine:
    """Pages by path; an exception is raised. Remembers what was asked."""

    def __init__(self, **pages: Fetched | FetchError) -> None:
        self.pages: dict[str, Fetched | FetchError] = {"/health": UP, **pages}
        self.asked: list[tuple[str, float, int]] = []
        self.on_ask: Callable[[], None] = lambda: None

    async def fetch(self, url: str, *, deadline_seconds: float, max_bytes: int) -> Fetched:
        self.asked.append((url.removeprefix(URL), deadline_seconds, max_bytes))
        self.on_ask()
        page = self.pages.get(url.removeprefix(URL), Fetched(404, b"not found"))
        if isinstance(page, FetchError):
            raise page
        return page

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Setting:
    def __init__(self, provider: Provider | None = Provider.VLLM, health: Health = HEALTH, **settings: float) -> None:
        self.engine = Engine()
        self.clock = Clock()
        self.late_seconds = 0.0
        self.replied_at = 0.0
        self.probe = EngineProbe(
            URL + "/",
            fetch=self.engine.fetch,
            clock=self.clock,
            rng=Random(1),
            settings=ProbeSettings(jitter_ratio=0, **settings),
            late_seconds=lambda: self.late_seconds,
            replied_at=lambda: self.replied_at,
        )
        if provider is not None:
            self.probe.retarget(ProbeTarget(provider, health))

    async def healths(self, *pages: Fetched | FetchError) -> list[bool]:
        ups = []
        for page in pages:
            self.engine.pages["/health"] = page
            await self.probe.check_health()
            ups.append(self.probe.up)
        return ups

    def sample(self) -> EngineSample:
        return self.probe.sample(self.clock.now)


class TestHealth:
    async def test_two_failures_make_it_down_and_one_success_up(self) -> None:
        setting = Setting()
        assert await setting.healths(UP, REFUSED, UP, REFUSED, Fetched(503, b""), REFUSED, UP) == [
            True, True, True, True, False, False, True,
        ]  # fmt: skip

    async def test_a_check_that_ran_out_of_time_while_this_process_got_none_says_nothing_of_the_engine(self) -> None:
        setting = Setting()
        await setting.healths(UP)
        setting.engine.on_ask = lambda: setattr(setting, "late_seconds", setting.late_seconds + 0.3)
        most = ProbeSettings().excused_in_a_row
        assert await setting.healths(*[LATE] * most) == [True] * most
        assert setting.probe.health_delay_seconds() == 1.0, "in doubt"
        assert await setting.healths(LATE, LATE) == [True, False], "one that is frozen as well is found all the same"
        setting = Setting()
        assert await setting.healths(UP, REFUSED) == [True, True]
        setting.engine.on_ask = lambda: setattr(setting, "late_seconds", setting.late_seconds + 0.3)
        assert await setting.healths(REFUSED) == [False], "nobody listens there: that is a fact"

    async def test_a_check_that_is_over_long_after_its_time_says_nothing_of_the_engine(self) -> None:
        setting = Setting()
        await setting.healths(UP)
        setting.engine.on_ask = lambda: setattr(setting.clock, "now", setting.clock.now + 3.0)
        assert await setting.healths(LATE, LATE, LATE) == [True, True, True]

    async def test_an_engine_that_goes_on_replying_is_up_however_late_its_health_page_is(self) -> None:
        setting = Setting()
        await setting.healths(UP)
        setting.engine.on_ask = lambda: setattr(setting, "replied_at", setting.clock.now + 0.1)
        assert await setting.healths(*[LATE] * 20) == [True] * 20
        assert await setting.healths(Fetched(503, b""), Fetched(503, b"")) == [True, False], "it says so itself"

    async def test_an_engine_never_seen_up_is_down_at_its_first_failure(self) -> None:
        setting = Setting()
        assert setting.probe.up
        assert await setting.healths(REFUSED, UP, REFUSED) == [False, True, True]

    @pytest.mark.parametrize("status", [199, 204, 301, 404, 500])
    async def test_only_a_2xx_is_healthy(self, status: int) -> None:
        assert await Setting().healths(Fetched(status, b"")) == [status == 204]

    async def test_the_question_has_the_clusters_path_and_timeout_and_a_small_limit(self) -> None:
        setting = Setting(health=Health(path="/alive?x", timeout_seconds=0.3))
        await setting.probe.check_health()
        ((path, deadline, limit),) = setting.engine.asked
        assert (path, deadline) == ("/alive?x", 0.3)
        assert limit < MAX_EXPOSITION_BYTES

    async def test_a_path_that_was_not_set_is_the_engines_own(self) -> None:
        setting = Setting(Provider.TRITON)
        setting.engine.pages["/v2/health/ready"] = UP
        await setting.probe.check_health()
        assert setting.engine.paths() == ["/v2/health/ready"]
        assert setting.probe.up

    @pytest.mark.parametrize(("page", "up"), [(Fetched(404, b""), True), (Fetched(500, b""), False), (REFUSED, False)])
    async def test_a_server_without_a_health_page_of_its_own_is_alive_if_it_answers(self, page: Fetched, up: bool) -> None:
        assert await Setting(Provider.OPENAI_COMPATIBLE).healths(page) == [up]

    async def test_a_set_path_is_taken_at_its_word_for_any_server(self) -> None:
        setting = Setting(Provider.OPENAI_COMPATIBLE, Health(path="/ping"))
        await setting.probe.check_health()
        assert not setting.probe.up

    async def test_in_doubt_it_is_asked_each_second(self) -> None:
        setting = Setting()
        await setting.healths(UP)
        assert setting.probe.health_delay_seconds() == 5.0
        await setting.healths(REFUSED)
        assert setting.probe.health_delay_seconds() == 1.0
        await setting.healths(UP)
        assert setting.probe.health_delay_seconds() == 5.0
        quick = Setting(health=Health(interval_seconds=0.2))
        await quick.healths(REFUSED)
        assert quick.probe.health_delay_seconds() == 0.2

    async def test_jitter_only_lengthens(self) -> None:
        probe = EngineProbe(URL, fetch=Engine().fetch, clock=Clock(), rng=Random(1))
        probe.retarget(ProbeTarget(Provider.LLAMACPP, HEALTH))
        delays = {probe.metrics_delay_seconds() for _ in range(50)}
        assert min(delays) >= 1.5
        assert max(delays) <= 1.65
        assert len(delays) > 1

    async def test_without_a_target_nothing_is_asked_and_the_engine_passes_for_up(self) -> None:
        setting = Setting(None)
        await setting.probe.check_health()
        await setting.probe.read_metrics()
        assert setting.engine.asked == []
        assert setting.sample() == EngineSample()

    async def test_losing_the_target_forgets_what_was_known(self) -> None:
        setting = Setting()
        setting.engine.pages["/metrics"] = Fetched(200, corpora.VLLM)
        await setting.probe.read_metrics()
        await setting.healths(REFUSED)
        setting.probe.retarget(None)
        assert setting.sample() == EngineSample()
        setting.probe.retarget(ProbeTarget(Provider.VLLM, HEALTH))
        assert await setting.healths(REFUSED) == [False], "the engine behind a new target has never been seen up"

    async def test_an_answer_to_an_outdated_question_is_dropped(self) -> None:
        setting = Setting()
        setting.engine.pages["/health"] = REFUSED
        setting.engine.on_ask = lambda: setting.probe.retarget(ProbeTarget(Provider.VLLM, Health(path="/other")))
        await setting.probe.check_health()
        assert setting.probe.up

    async def test_changes_are_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        await Setting().healths(REFUSED, REFUSED, REFUSED, UP, UP)
        assert [record.getMessage().split(" reason")[0] for record in caplog.records] == [
            f"engine down engine={URL}",
            f"engine up engine={URL}",
        ]


class TestMetrics:
    async def test_a_reading_counts_for_three_intervals(self) -> None:
        setting = Setting()
        setting.engine.pages["/metrics"] = Fetched(200, corpora.VLLM)
        await setting.probe.read_metrics()
        assert setting.sample().load == EngineLoad(3, 15, 0.5)
        setting.engine.pages["/metrics"] = REFUSED
        setting.clock.now += 3.0
        await setting.probe.read_metrics()
        assert setting.sample().load == EngineLoad(3, 15, 0.5)
        setting.clock.now += 0.01
        assert setting.sample().load == EngineLoad(), "stale is unknown, neither the last value nor zero"

    async def test_llamacpp_is_not_asked_too_often_and_its_readings_live_longer(self) -> None:
        setting = Setting(Provider.LLAMACPP)
        setting.engine.pages["/metrics"] = Fetched(200, corpora.LLAMACPP)
        await setting.probe.read_metrics()
        assert setting.probe.metrics_delay_seconds() == 1.5
        setting.clock.now += 4.5
        assert setting.sample().load == EngineLoad(36, 4, None)

    async def test_a_page_that_does_not_answer_gives_way_to_the_next(self) -> None:
        setting = Setting(Provider.TRTLLM)
        setting.engine.pages["/metrics"] = Fetched(200, corpora.TRTLLM)
        for _ in range(3):
            await setting.probe.read_metrics()
        assert setting.engine.paths() == ["/prometheus/metrics", "/metrics", "/metrics"]
        assert setting.sample().load == EngineLoad(9, 4, 0.33)

    @pytest.mark.parametrize("page", [Fetched(200, b"[]"), Fetched(501, corpora.VLLM), Fetched(200, b"\xff" * 100)])
    async def test_an_answer_without_known_metrics_is_a_failure(self, page: Fetched) -> None:
        setting = Setting()
        setting.engine.pages["/metrics"] = page
        await setting.probe.read_metrics()
        assert setting.sample().load == EngineLoad()
        assert setting.probe.info()["metrics_failures"] == 1

    async def test_an_engine_without_metrics_is_asked_ever_more_rarely(self) -> None:
        setting = Setting()
        delays = []
        for _ in range(6):
            await setting.probe.read_metrics()
            delays.append(setting.probe.metrics_delay_seconds())
        assert delays == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
        setting.engine.pages["/metrics"] = Fetched(200, corpora.VLLM)
        await setting.probe.read_metrics()
        assert setting.probe.metrics_delay_seconds() == 1.0

    async def test_a_plain_server_is_never_asked(self) -> None:
        setting = Setting(Provider.OPENAI_COMPATIBLE)
        await setting.probe.read_metrics()
        assert setting.engine.asked == []

    async def test_another_provider_is_read_from_its_own_pages(self) -> None:
        setting = Setting()
        setting.engine.pages["/metrics"] = Fetched(200, corpora.VLLM)
        await setting.probe.read_metrics()
        setting.probe.retarget(ProbeTarget(Provider.TGI, HEALTH))
        assert setting.sample().load == EngineLoad()
        setting.engine.pages["/metrics"] = Fetched(200, corpora.TGI)
        await setting.probe.read_metrics()
        assert setting.sample().load == EngineLoad(5, 8, None)

    async def test_another_health_path_keeps_the_load(self) -> None:
        setting = Setting()
        setting.engine.pages["/metrics"] = Fetched(200, corpora.VLLM)
        await setting.probe.read_metrics()
        setting.probe.retarget(ProbeTarget(Provider.VLLM, Health(path="/ready")))
        assert setting.sample().load == EngineLoad(3, 15, 0.5)

    async def test_a_reading_of_the_engine_before_is_dropped(self) -> None:
        setting = Setting()
        setting.engine.pages["/metrics"] = Fetched(200, corpora.VLLM)
        setting.engine.on_ask = lambda: setting.probe.retarget(ProbeTarget(Provider.TGI, HEALTH))
        await setting.probe.read_metrics()
        assert setting.sample().load == EngineLoad()

    async def test_info_shows_state(self) -> None:
        setting = Setting()
        await setting.probe.check_health()
        await setting.probe.read_metrics()
        info = setting.probe.info()
        assert info["provider"] == "VLLM"
        assert info["up"] is True
        assert info["metrics_page"] == f"{URL}/metrics"
        assert info["metrics_error"] == "status 404, no known metric"
        assert Setting(None).probe.info()["metrics_page"] is None


class TestLoops:
    """The loops themselves, with intervals so short that they turn over at once."""

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - conditions of a fake, which has no events
                await asyncio.sleep(0)

    async def test_both_are_asked_again_and_again_and_a_stuck_metrics_page_does_not_hold_health_up(self) -> None:
        setting = Setting(None, metrics_interval_seconds=0.001)
        stuck = asyncio.Event()
        plain = setting.engine.fetch

        async def fetch(url: str, *, deadline_seconds: float, max_bytes: int) -> Fetched:
            if url.endswith("/metrics"):
                await stuck.wait()
            return await plain(url, deadline_seconds=deadline_seconds, max_bytes=max_bytes)

        setting.probe._fetch = fetch
        task = asyncio.create_task(setting.probe.run())
        setting.probe.retarget(ProbeTarget(Provider.VLLM, Health(interval_seconds=0.001)))
        await self.until(lambda: setting.engine.paths().count("/health") >= 3)
        assert "/metrics" not in setting.engine.paths()
        stuck.set()
        await self.until(lambda: setting.engine.paths().count("/metrics") >= 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_the_data_path_may_ask_for_a_check_at_once(self) -> None:
        setting = Setting(None, check_soon_seconds=0.0)
        task = asyncio.create_task(setting.probe.run())
        setting.probe.retarget(ProbeTarget(Provider.OPENAI_COMPATIBLE, Health(interval_seconds=3600)))
        await self.until(lambda: len(setting.engine.asked) == 1)
        setting.engine.pages["/health"] = REFUSED
        setting.probe.failed()
        await self.until(lambda: len(setting.engine.asked) == 2)
        setting.probe.failed()
        await self.until(lambda: not setting.probe.up)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_an_engine_that_has_never_answered_is_down_when_a_request_cannot_reach_it(self) -> None:
        setting = Setting(None)
        setting.probe.failed()
        assert setting.probe.up, "nobody has said yet that there is to be one"
        assert not setting.probe.known
        setting.probe.retarget(ProbeTarget(Provider.OPENAI_COMPATIBLE, Health()))
        setting.probe.failed()
        assert not setting.probe.up
        await setting.probe.check_health()
        assert setting.probe.up
        assert setting.probe.known
        setting.probe.failed()
        assert setting.probe.up, "one that has answered is asked first"

    async def test_asked_for_often_it_checks_seldom(self) -> None:
        setting = Setting(None, check_soon_seconds=3600.0)
        task = asyncio.create_task(setting.probe.run())
        setting.probe.retarget(ProbeTarget(Provider.OPENAI_COMPATIBLE, Health(interval_seconds=3600)))
        await self.until(lambda: len(setting.engine.asked) == 1)
        for _ in range(100):
            setting.probe.failed()
            await asyncio.sleep(0)
        assert len(setting.engine.asked) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
