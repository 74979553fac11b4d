"""From `kubectl apply` to a proxy and back to `kubectl get`, with the operator and the proxies as real processes."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.control_plane.processes import Bench, backend, bench, condition, events, pod, route, run_pod, soon
from e2e.kubectl import Kubectl


@pytest.fixture
def parts(ours: Kubectl, tmp_path: Path) -> Iterator[Bench]:
    with bench(ours, tmp_path) as made:
        yield made


def test_a_route_reaches_the_proxy_and_its_status_comes_back(parts: Bench) -> None:
    kubectl = parts.kubectl
    operator, gateway = parts.operator(), parts.gateway()
    soon(lambda: operator.leads)
    kubectl.apply(backend(), route())
    kubectl("wait", "--for=condition=Programmed", "mroute/chat", "--timeout=20s")
    name = f"{kubectl.namespace}/chat"
    assert ("route", name) in gateway.config
    status = kubectl.get("mroute", "chat")["status"]
    assert status["summary"]["synced"] == "1/1"
    assert status["observedGeneration"] == 1
    soon(lambda: events(kubectl, "Programmed"))
    told = events(kubectl, "Programmed")[0]
    assert (told["regarding"]["name"], told["type"]) == ("chat", "Normal")
    kubectl("delete", "mroute", "chat", "--timeout=10s")  # no finalizer holds it
    soon(lambda: ("route", name) not in gateway.config)


def test_pods_become_endpoints_as_they_come_and_go(parts: Bench) -> None:
    kubectl = parts.kubectl
    parts.operator()
    gateway = parts.gateway()
    kubectl.apply(backend(), pod("one", "fast", sidecar_port=19080), pod("two", "fast"), pod("other", "elsewhere"))
    run_pod(kubectl, "one", "10.1.0.1")
    run_pod(kubectl, "two", "10.1.0.2")
    run_pod(kubectl, "other", "10.1.0.3")
    key = ("endpoints", f"{kubectl.namespace}/fast")

    def endpoints() -> dict[str, tuple[str, int, bool, bool]]:
        return {
            each["id"]: (each["host"], each["port"], each.get("inbound", False), each.get("draining", False))
            for each in gateway.config.get(key, {}).get("endpoints", [])
        }

    one, two = f"{kubectl.namespace}/one", f"{kubectl.namespace}/two"
    soon(lambda: endpoints() == {one: ("10.1.0.1", 19080, True, False), two: ("10.1.0.2", 8000, False, False)})
    bare = soon(lambda: condition(kubectl, "mbackend", "fast", "Injected"))
    assert (bare["status"], bare["reason"]) == ("False", "SidecarMissing")
    assert two in bare["message"]
    assert one not in bare["message"]
    run_pod(kubectl, "one", "10.1.0.1", ready=False)
    soon(lambda: endpoints()[one][3])
    run_pod(kubectl, "one", "10.1.0.1")
    soon(lambda: not endpoints()[one][3])
    kubectl("delete", "pod", "one", "two", "--grace-period=0", "--force")
    soon(lambda: endpoints() == {})


def test_a_service_leads_to_its_slices(parts: Bench) -> None:
    kubectl = parts.kubectl
    parts.operator()
    gateway = parts.gateway()
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "metrics", "port": 9090}]},
    }  # fmt: skip
    listed = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}],
        "endpoints": [
            {"addresses": ["10.1.0.1"], "conditions": {"ready": True}},
            {"addresses": ["10.1.0.2"], "conditions": {"ready": False, "terminating": True}},
        ],
    }  # fmt: skip
    kubectl.apply(service, listed, backend("behind", service={"name": "web", "port": 80}))
    key = ("endpoints", f"{kubectl.namespace}/behind")
    soon(lambda: len(gateway.config.get(key, {}).get("endpoints", [])) == 2)
    first, second = gateway.config[key]["endpoints"]
    assert (first["host"], first["port"], first.get("draining", False)) == ("10.1.0.1", 8080, False)
    assert (second["host"], second["port"], second.get("draining", False)) == ("10.1.0.2", 8080, True)
    soon(lambda: kubectl.get("mbackend", "behind")["status"]["summary"]["endpoints"] == "1/2")


def test_what_is_missing_is_told_and_heals(parts: Bench) -> None:
    kubectl = parts.kubectl
    parts.operator()
    kubectl.apply(route("chat", "nowhere"))
    kubectl("wait", "--for=condition=ResolvedRefs=false", "mroute/chat", "--timeout=20s")
    assert "nowhere" in condition(kubectl, "mroute", "chat", "ResolvedRefs")["message"]
    kubectl.apply(backend("nowhere"))
    kubectl("wait", "--for=condition=ResolvedRefs", "mroute/chat", "--timeout=20s")
    soon(lambda: events(kubectl, "BackendNotFound") and events(kubectl, "ResolvedRefs"))


def test_a_backend_of_another_namespace_is_not_found(parts: Bench) -> None:
    kubectl = parts.kubectl
    other = kubectl.within(f"{kubectl.namespace}-other")
    kubectl("create", "namespace", str(other.namespace))
    try:
        parts.operator("a", "--watch-namespace", str(other.namespace))
        other.apply(backend("elsewhere"), route("chat", "elsewhere"))
        kubectl.apply(route("chat", "elsewhere"))
        other("wait", "--for=condition=ResolvedRefs", "mroute/chat", "--timeout=20s")
        kubectl("wait", "--for=condition=ResolvedRefs=false", "mroute/chat", "--timeout=20s")
        refused = condition(kubectl, "mroute", "chat", "ResolvedRefs")
        assert (refused["reason"], "elsewhere" in refused["message"]) == ("BackendNotFound", True)
    finally:
        kubectl("delete", "namespace", str(other.namespace), "--wait=false")


def test_the_older_of_two_routes_keeps_a_model(parts: Bench) -> None:
    """Also where both were there before the operator was, and after it was started again."""
    kubectl = parts.kubectl
    kubectl.apply(backend(), route("older", models=["m"]))
    time.sleep(1.1)  # creation times are whole seconds
    kubectl.apply(route("another", models=["m"]))
    operator = parts.operator()
    kubectl("wait", "--for=condition=Accepted", "mroute/older", "--timeout=20s")
    kubectl("wait", "--for=condition=Accepted=false", "mroute/another", "--timeout=20s")
    refused = condition(kubectl, "mroute", "another", "Accepted")
    assert refused["reason"] == "Conflicted"
    assert "older" in refused["message"]
    soon(lambda: events(kubectl, "Conflicted"))
    operator.kill()
    operator.start()
    soon(lambda: operator.leads)
    kubectl.apply(route("third", models=["m2"]))
    kubectl("wait", "--for=condition=Accepted", "mroute/third", "--timeout=20s")
    assert condition(kubectl, "mroute", "another", "Accepted") == refused
    assert condition(kubectl, "mroute", "older", "Accepted")["status"] == "True"
    kubectl("delete", "mroute", "older")
    kubectl("wait", "--for=condition=Accepted", "mroute/another", "--timeout=20s")


def test_at_rest_nothing_is_written(parts: Bench) -> None:
    """Neither to our objects nor Events; the Lease is renewed, which is its purpose."""
    kubectl = parts.kubectl
    operator, gateway = parts.operator(), parts.gateway()
    kubectl.apply(backend(), route())
    kubectl("wait", "--for=condition=Programmed", "mroute/chat", "--timeout=20s")
    soon(lambda: gateway.connected)
    time.sleep(12)  # past the first figures

    def written() -> tuple[int, int, list[str]]:
        counts = operator.json("/info")["cluster"]["status_writes"]["counts"]
        versions = [each["metadata"]["resourceVersion"] for each in kubectl.get("mroute,mbackend")["items"]]
        return counts["applied"], operator.json("/info")["cluster"]["events"]["posted"], versions

    before = written()
    time.sleep(12)
    assert written() == before


def test_what_another_hand_makes_of_a_status_is_put_right(parts: Bench) -> None:
    """And what it adds of its own stays, and costs no write."""
    kubectl = parts.kubectl
    operator = parts.operator()
    kubectl.apply(backend(), route())
    kubectl("wait", "--for=condition=Accepted", "mroute/chat", "--timeout=20s")
    audited = {
        "type": "Audited", "status": "True", "reason": "Audited", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    body = {"apiVersion": "spillway.dev/v1alpha1", "kind": "ModelRoute", "metadata": {"name": "chat"}}
    options = ("--server-side", "--subresource=status", "--field-manager=audit", "--validate=false")
    kubectl.apply({**body, "status": {"conditions": [audited]}}, options=options)
    accepted = condition(kubectl, "mroute", "chat", "Accepted")
    spoilt = {"status": {"summary": {"models": "wrong"}, "conditions": [{**accepted, "status": "False"}, audited]}}
    kubectl("patch", "mroute", "chat", "--subresource=status", "--type=merge", f"--patch={json.dumps(spoilt)}")
    soon(lambda: condition(kubectl, "mroute", "chat", "Accepted") == accepted, seconds=40)
    assert kubectl.get("mroute", "chat")["status"]["summary"]["models"] == "chat"
    assert condition(kubectl, "mroute", "chat", "Audited") == audited
    assert operator.json("/info")["cluster"]["status_writes"]["counts"]["corrected"] == 1


def test_an_object_made_anew_gets_its_status_anew(parts: Bench) -> None:
    kubectl = parts.kubectl
    parts.operator()
    kubectl.apply(backend(), route())
    kubectl("wait", "--for=condition=Accepted", "mroute/chat", "--timeout=20s")
    kubectl("replace", "--force", "--filename=-", given={**route(), "metadata": {"name": "chat", "namespace": kubectl.namespace}})
    kubectl("wait", "--for=condition=Accepted", "mroute/chat", "--timeout=20s")
