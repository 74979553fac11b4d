"""What a pod looks like with the sidecar in it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.injection.pods import CONFIG, POD, environment, noted, pod, sidecar_of

from spillway_operator.injection import Engine, inbound_port, injected, json_patch, lacks_sidecar, pod_patch
from spillway_operator.injection.config import InjectionConfig, Resources, from_document

ENGINE = Engine(0, 8000)


def test_the_pod_that_came_in_is_left_as_it_is() -> None:
    before = copy.deepcopy(POD)
    injected(POD, ENGINE, CONFIG)
    assert before == POD


def test_it_is_a_native_sidecar_after_the_others() -> None:
    made = injected(pod(), ENGINE, CONFIG)
    assert [one["name"] for one in made["spec"]["initContainers"]] == ["download", "spillway-proxy"]
    assert sidecar_of(made)["restartPolicy"] == "Always"
    assert inbound_port(made) == 19080
    assert lacks_sidecar(pod())
    assert not lacks_sidecar(made)


def test_an_init_container_that_ends_is_no_sidecar() -> None:
    ends = pod(initContainers=[{"name": "x", "ports": [{"name": "spillway", "containerPort": 1}]}])
    assert lacks_sidecar(ends)


def test_the_proxy_knows_who_it_is_and_where_all_is() -> None:
    container = sidecar_of(injected(pod(), ENGINE, CONFIG))
    names = [one["name"] for one in container["env"]]
    assert len(set(names)) == len(names)
    assert names.index("SPILLWAY_NAMESPACE") < names.index("SPILLWAY_NODE_ID"), "only what stands before can be referred to"
    values = environment(container)
    assert values["SPILLWAY_NODE_ID"] == "$(SPILLWAY_NAMESPACE)/$(SPILLWAY_POD)"
    assert values["SPILLWAY_ENGINE"] == "http://127.0.0.1:8000"
    assert values["SPILLWAY_OPERATOR"] == "https://operator:8083"
    assert values["SPILLWAY_ENGINE_HEALTH"] == "/ready"
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "spillway": int(values["SPILLWAY_INBOUND_PORT"]),
        "spillway-route": int(values["SPILLWAY_PORT"]),
        "spillway-admin": int(values["SPILLWAY_ADMIN_PORT"]),
    }


def test_the_engine_is_told_to_listen_on_loopback() -> None:
    """Its own value is what a pod runs with that missed the sidecar."""
    values = environment(injected(pod(), ENGINE, CONFIG)["spec"]["containers"][0])
    assert values == {"SPILLWAY_ENGINE_HOST": "127.0.0.1", "SPILLWAY_ENGINE_PORT": "8000", "HF_HOME": "/models"}


def test_probes_that_ask_the_engine_ask_the_sidecar() -> None:
    container = injected(pod(), ENGINE, CONFIG)["spec"]["containers"][0]
    health = {"path": "/health", "port": 19080, "scheme": "HTTP"}
    assert container["startupProbe"] == {"failureThreshold": 120, "httpGet": health}
    assert container["livenessProbe"] == {"httpGet": health}
    assert container["readinessProbe"] == {"periodSeconds": 3, "httpGet": health}


@pytest.mark.parametrize(
    "probe",
    [
        {"exec": {"command": ["curl", "localhost:8000"]}},
        {"httpGet": {"path": "/", "port": 9400}},
        {"httpGet": {"path": "/", "port": "unknown"}},
        {"httpGet": {"path": "/", "port": 8000, "host": "example.test"}},
    ],
)
def test_other_probes_stay(probe: dict[str, Any]) -> None:
    made = pod()
    made["spec"]["containers"][0]["livenessProbe"] = probe
    assert injected(made, ENGINE, CONFIG)["spec"]["containers"][0]["livenessProbe"] == probe


def test_another_containers_probe_of_the_engine_is_rewritten_too() -> None:
    made = pod()
    made["spec"]["containers"][1]["readinessProbe"] = {"grpc": {"port": 8000}}
    assert injected(made, ENGINE, CONFIG)["spec"]["containers"][1]["readinessProbe"]["httpGet"]["port"] == 19080


def test_the_engine_outlives_its_requests() -> None:
    made = injected(pod(), ENGINE, CONFIG)
    hook = made["spec"]["containers"][0]["lifecycle"]["preStop"]
    assert hook == {"httpGet": {"path": "/drained", "port": 19082, "scheme": "HTTP"}}
    assert made["spec"]["terminationGracePeriodSeconds"] == CONFIG.drain_seconds + CONFIG.grace_margin_seconds
    assert "lifecycle" not in made["spec"]["containers"][1]


def test_a_hook_and_a_longer_grace_period_of_the_users_stay() -> None:
    made = pod(terminationGracePeriodSeconds=600)
    made["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}, "postStart": {"exec": {"command": ["x"]}}}
    result = injected(made, ENGINE, CONFIG)["spec"]
    assert result["terminationGracePeriodSeconds"] == 600
    assert result["containers"][0]["lifecycle"] == made["spec"]["containers"][0]["lifecycle"]


def test_it_is_restricted() -> None:
    context = sidecar_of(injected(pod(), ENGINE, CONFIG))["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] > 0
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_token_and_authority_are_one_volume() -> None:
    made = injected(pod(), ENGINE, CONFIG)
    (volume,) = [one for one in made["spec"]["volumes"] if one["name"] == "spillway-operator"]
    token, authority = volume["projected"]["sources"]
    assert token["serviceAccountToken"] == {"path": "token", "audience": "spillway", "expirationSeconds": 3600}
    (item,) = authority["downwardAPI"]["items"]
    note = item["fieldRef"]["fieldPath"].removeprefix("metadata.annotations['").removesuffix("']")
    assert made["metadata"]["annotations"][note] == CONFIG.operator_ca
    values = environment(sidecar_of(made))
    assert values["SPILLWAY_OPERATOR_CA_FILE"].endswith("/" + item["path"])
    assert values["SPILLWAY_OPERATOR_TOKEN_FILE"].endswith("/token")


def test_without_an_authority_the_images_are_trusted() -> None:
    made = injected(pod(), ENGINE, replace(CONFIG, operator_ca=""))
    assert "SPILLWAY_OPERATOR_CA_FILE" not in environment(sidecar_of(made))
    assert "spillway.dev/operator-ca" not in made["metadata"]["annotations"]


def test_secrets_of_the_pods_namespace_are_mounted_as_the_proxy_looks_for_them() -> None:
    made = injected(noted(pod(), secrets="openai, ../etc,openai , other"), ENGINE, CONFIG)
    container = sidecar_of(made)
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"] if "secrets" in one["name"]}
    named = {one["name"]: one["secret"] for one in made["spec"]["volumes"] if "secret" in one}
    assert {named[name]["secretName"]: path for name, path in mounts.items()} == {
        name: f"{environment(container)['SPILLWAY_SECRETS_DIR']}/{name}" for name in ("openai", "other")
    }
    assert all(one["optional"] for one in named.values()), "a key that is not there yet must not hold an engine up"


def test_a_guaranteed_pod_stays_guaranteed() -> None:
    """Else the engine loses its exclusive CPUs to a proxy of a tenth of one."""
    equal = {"limits": {"cpu": "8", "memory": "64Gi"}}
    same = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}
    made = pod(containers=[{"name": "e", "resources": equal}, {"name": "f", "resources": same}], initContainers=[])
    resources = sidecar_of(injected(made, ENGINE, CONFIG))["resources"]
    assert resources == {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "100m", "memory": "256Mi"}}
    made["spec"]["containers"][1]["resources"]["requests"]["cpu"] = "500m"
    assert "cpu" not in sidecar_of(injected(made, ENGINE, CONFIG))["resources"]["limits"]


def test_pull_secrets_are_added_once() -> None:
    made = injected(pod(imagePullSecrets=[{"name": "a"}]), ENGINE, replace(CONFIG, image_pull_secrets=("a", "b")))
    assert made["spec"]["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


MAYBE = st.fixed_dictionaries(
    {},
    optional={
        "initContainers": st.none() | st.just([]) | st.just([{"name": "x"}]),
        "volumes": st.none() | st.just([]),
        "terminationGracePeriodSeconds": st.integers(0, 900),
        "imagePullSecrets": st.none() | st.just([{"name": "z"}]),
        "containers": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from("abc")},
                optional={
                    "env": st.none() | st.just([{"name": "SPILLWAY_ENGINE_PORT", "value": "1"}, {"name": "A~/B", "value": ""}]),
                    "readinessProbe": st.sampled_from([{"httpGet": {"port": 8000, "path": "/r"}}, {"exec": {"command": ["x"]}}]),
                    "lifecycle": st.sampled_from([{}, {"preStop": {"exec": {"command": ["x"]}}}]),
                    "resources": st.sampled_from([{}, {"limits": {"cpu": 1, "memory": 1}}]),
                },
            ),
            min_size=1,
            max_size=3,
        ),
    },
)


@given(MAYBE, st.sampled_from([CONFIG, replace(CONFIG, operator_ca="", inbound_port=1, image="b")]))
def test_twice_is_once_and_the_patch_is_the_difference(spec: dict[str, Any], config: InjectionConfig) -> None:
    made = json.loads(json.dumps(noted(pod(**spec), secrets="a,b", engine_port="8000")))  # drawn values are shared objects
    decision, patch = pod_patch(made, "ml", config)
    assert decision.engine is not None
    once = jsonpatch.apply_patch(made, patch)
    assert once == injected(made, decision.engine, config)
    assert pod_patch(once, "ml", config)[1] == []


def test_by_hand_a_sidecar_is_renewed_from_other_settings() -> None:
    """Also its ports, which the probes and the hook of the engine know."""
    other = replace(CONFIG, inbound_port=7000, admin_port=7002, image="b", operator_ca="")
    direct, renewed = (injected(one, ENGINE, other) for one in (pod(), injected(pod(), ENGINE, CONFIG)))
    renewed["metadata"]["annotations"].pop("spillway.dev/operator-ca")
    assert renewed == direct


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="a/~0"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet="a/~0", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
def test_a_patch_leads_from_any_document_to_any_other(before: Any, after: Any) -> None:
    patch = json_patch(before, after)
    assert repr(jsonpatch.apply_patch(copy.deepcopy(before), patch)) == repr(after) or _sorted(before, after, patch)
    assert json_patch(after, after) == []


def _sorted(before: Any, after: Any, patch: list[Any]) -> bool:
    """Equal but for the order of keys."""
    return bool(jsonpatch.apply_patch(copy.deepcopy(before), patch) == after)


def test_the_hash_tells_templates_apart() -> None:
    assert replace(CONFIG).hash == CONFIG.hash
    assert replace(CONFIG, image="b").hash != CONFIG.hash
    assert replace(CONFIG, resources=Resources(cpu_request="1")).hash != CONFIG.hash
    assert injected(pod(), ENGINE, CONFIG)["metadata"]["annotations"]["spillway.dev/sidecar-hash"] == CONFIG.hash


def test_settings_are_read_from_a_document() -> None:
    document = {
        "image": "i", "operatorURL": "https://o", "operatorCA": "pem", "drainSeconds": 5, "imagePullSecrets": ["p"],
        "resources": {"cpuLimit": "1"}, "env": {"SPILLWAY_DCGM_URL": "http://x"},
    }  # fmt: skip
    config = from_document(document)
    assert (config.operator_ca, config.drain_seconds, config.resources.cpu_limit) == ("pem", 5, "1")
    assert config.image_pull_secrets == ("p",)
    values = environment(sidecar_of(injected(pod(), ENGINE, config)))
    assert values["SPILLWAY_DCGM_URL"] == "http://x"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "object"),
        ({"image": "i"}, "missing: operatorURL"),
        ({"image": "", "operatorURL": "o"}, "missing: image"),
        ({"image": "i", "operatorURL": "o", "colour": 1}, "unknown: colour"),
        ({"image": "i", "operatorURL": "o", "inboundPort": "1"}, "inboundPort: a whole number"),
        ({"image": "i", "operatorURL": "o", "inboundPort": True}, "inboundPort: a whole number"),
        ({"image": 1, "operatorURL": "o"}, "image: a text"),
        ({"image": "i", "operatorURL": "o", "resources": {"cpu": "1"}}, "unknown: cpu"),
        ({"image": "i", "operatorURL": "o", "env": {"A": 1}}, "env"),
    ],
)
def test_settings_that_are_wrong_say_where(document: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_document(document)
