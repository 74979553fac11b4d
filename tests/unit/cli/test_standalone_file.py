"""`spillway.yaml`: what it means, and how what is wrong in it is told."""

from __future__ import annotations

from textwrap import dedent

import pytest

from spillway.run.standalone import Simulation, Standalone, backend_key, merge, parse


def read(text: str, before: Standalone | None = None) -> tuple[Standalone, list[str]]:
    standalone, problems = parse(dedent(text), "x/spillway.yaml", before or Standalone())
    return standalone, [str(problem) for problem in problems]


def test_a_file_says_which_backends_are_simulated_and_how():
    standalone, problems = read("""
        simulate:
          fast: {replicas: 2, decodeRate: 80, faults: ["slow:factor=3"]}
          ml/slow: 1
          plain:
        allowHosts: [models.lan]
        """)
    assert problems == []
    assert standalone.simulate == {
        "default/fast": Simulation(replicas=2, decode_rate=80, faults=("slow:factor=3",)),
        "ml/slow": Simulation(replicas=1),
        "default/plain": Simulation(replicas=1),
    }
    assert standalone.allow_hosts == ("models.lan",)
    assert standalone.simulate["default/fast"].flags() == ["--decode-rate", "80", "--fault", "slow:factor=3"]


def test_an_empty_file_simulates_nothing():
    assert read("# nothing\n") == (Standalone(), [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("simulate: {fast: {replicas: -1}}", "1: simulate.fast.replicas: Expected `int` >= 0"),
        (
            "simulate:\n  fast:\n    replicas: 1\n    maxRuning: 3",
            "4: simulate.fast.maxRuning: unknown field; there are coldStartSeconds,",
        ),
        ("simulate: {fast: 1000}", "1: simulate.fast: Expected `int` <= 64"),
        ("simulate: {fast: lots}", "1: simulate.fast: Expected `object`, got `str`"),
        ("simulate:\n- fast", "1: simulate: expected a mapping"),
        ("simulate:\n  Fast!: 1", "2: simulate.Fast!: 'Fast!' is not the name of a backend"),
        ("simulate:\n  fast:\n    faults:\n    - hang\n    - explode", "5: simulate.fast.faults[1]: 'explode': "),
        ("allowHosts: models.lan", "1: allowHosts: expected a list"),
        ("\nsimulated: {}", "2: simulated: unknown field: this file has simulate and allowHosts"),
        ("simulate: {fast: [}", "1: not YAML: "),
        ("[]", "1: expected a mapping with simulate and allowHosts"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_path(text: str, problem: str):
    _, problems = read(text)
    assert len(problems) == 1
    assert problems[0].startswith("x/spillway.yaml:" + problem)


def test_a_wrong_part_stays_as_it_was_and_the_rest_takes_effect():
    before, _ = read("simulate: {fast: 2, slow: 1, old: 1}\nallowHosts: [a]")
    standalone, problems = read("simulate: {fast: {replicas: two}, slow: 3, new: {x: 1}}\nallowHosts: b", before)
    assert len(problems) == 3
    assert standalone == Standalone({"default/fast": Simulation(replicas=2), "default/slow": Simulation(replicas=3)}, ("a",))


def test_a_file_that_is_no_yaml_leaves_all_as_it_was():
    before, _ = read("simulate: {fast: 2}")
    assert read("simulate: {fast", before)[0] is before


def test_the_command_line_overrides_the_number_of_engines_and_keeps_their_speed():
    standalone, _ = read("simulate: {fast: {replicas: 2, decodeRate: 80}}")
    overridden = standalone.with_replicas({"default/fast": 5, "default/other": 1}).simulate
    assert overridden == {"default/fast": Simulation(replicas=5, decode_rate=80), "default/other": Simulation(replicas=1)}


def test_several_files_are_one():
    first, _ = read("simulate: {a: 1, b: 1}\nallowHosts: [x, y]")
    second, _ = read("simulate: {b: 2}\nallowHosts: [y, z]")
    merged = merge([first, second])
    assert {key: simulation.replicas for key, simulation in merged.simulate.items()} == {"default/a": 1, "default/b": 2}
    assert merged.allow_hosts == ("x", "y", "z")


def test_names_are_completed_by_the_default_namespace():
    assert (backend_key("fast"), backend_key("ml/fast")) == ("default/fast", "ml/fast")
