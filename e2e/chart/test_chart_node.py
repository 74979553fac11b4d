"""The chart with pods that run: what the README's commands bring about, and how pods with sidecars are."""

import re
import urllib.request

import pytest
from e2e.chart.conftest import Installed
from e2e.chart.readme import blocks, section
from e2e.kubectl import Kubectl, eventually


def said_by(installed: Installed, command: str) -> str:
    (found,) = (said for block, said in installed.said.items() if command in block)
    return found


def test_the_readme_leads_from_nothing_to_an_answer(installed: Installed) -> None:
    assert "STATUS: deployed" in said_by(installed, "helm install")
    assert '"completion_tokens":5' in said_by(installed, "curl")
    assert "Succeeded" in said_by(installed, "helm test")
    assert "Every connected proxy runs it" in said_by(installed, "kubectl describe")
    assert "helm uninstall" in blocks()[-1]


def test_the_readme_shows_tables_as_they_are(installed: Installed) -> None:
    def headers(text: str) -> list[list[str]]:
        return [line.split() for line in text.splitlines() if re.match(r" *NAME +MODEL", line)]

    shown = headers(said_by(installed, "kubectl get modelroutes,modelbackends"))
    assert len(shown) == 2
    assert headers(section()) == shown
    plugin = said_by(installed, "kubectl spillway get")
    assert re.search(r"^ml +fast +demo-model +VLLM +2/2", plugin, re.MULTILINE), plugin


def test_what_there_is_to_explain_reads_well(installed: Installed) -> None:
    explained = said_by(installed, "kubectl explain modelroute.spec.rules")
    description = explained.partition("DESCRIPTION:")[2].partition("FIELDS:")[0].split("\n")
    assert len([line for line in description if line.strip()]) == 1, "once, and not the list's and the entry's"


def test_engines_have_their_sidecars(installed: Installed) -> None:
    for pod in installed.pods(installed.users, "app=fast"):
        assert [one["name"] for one in pod["spec"]["initContainers"]] == ["spillway-proxy"]
        assert pod["status"]["initContainerStatuses"][0]["ready"]


def test_the_engine_is_reached_through_its_sidecar_only(installed: Installed) -> None:
    address = installed.pods(installed.users, "app=fast")[0]["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}:19080/health", timeout=5) as reply:
        assert reply.status == 200
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}:8000/health", timeout=5)
    request = urllib.request.Request(f"http://{address}:19082/drain", method="POST")
    with pytest.raises(OSError, match="403"):  # from outside of the pod
        urllib.request.urlopen(request, timeout=5)


def test_an_engine_that_hangs_is_restarted_without_waiting_for_a_drain(installed: Installed, steady: Kubectl) -> None:
    """The kubelet runs the engine's hook before this restart too; it must not wait for the drain that nobody began."""
    pod = installed.pods(steady)[0]["metadata"]["name"]
    fault = (
        "import urllib.request as u;"
        'u.urlopen(u.Request(\'http://127.0.0.1:8000/fault\', data=b\'{"hang": {"scope": "all"}}\')).read()'
    )
    steady("exec", pod, "--container=engine", "--", "python", "-c", fault)
    # 2 s to the sidecar's word, 3 probes of 2 s, 1 s for the engine to end; the drain would take 30 s.
    eventually(lambda: steady.get("pod", pod)["status"]["containerStatuses"][0]["restartCount"], seconds=25, every=0.5)
    steady("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=60s")
