"""Calls of Kubernetes' own conformance tests, for the kinds that are served.

A function stands for the upstream test that its first line names. All run side by side, each in a namespace of its own.
"""

import json
import os
import ssl
import time
import traceback
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import websocket
from kubernetes import client, config

config.load_kube_config()
SETTINGS = client.Configuration.get_default_copy()
TLS = ssl.create_default_context(cafile=SETTINGS.ssl_ca_cert)
TLS.load_cert_chain(SETTINGS.cert_file, SETTINGS.key_file)
IMAGE, OTHER_IMAGE = os.environ["IMAGE"], os.environ["OTHER_IMAGE"]
MEDIA = {"merge": "application/merge-patch+json", "strategic": "application/strategic-merge-patch+json"}
STORIES = []


def call(method, path, body=None, media="application/json", accept="application/json"):
    """The status code and the decoded answer."""
    data = body if body is None or isinstance(body, str) else json.dumps(body)
    headers = {"Content-Type": media, "Accept": accept}
    url = SETTINGS.host + path.replace(" ", "%20")
    request = urllib.request.Request(url, data and data.encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request, context=TLS, timeout=60) as answer:
            code, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        code, text = refusal.code, refusal.read().decode()
    try:
        return code, json.loads(text)
    except ValueError:
        return code, text


def ok(method, path, body=None, **more):
    code, answer = call(method, path, body, **more)
    assert code < 300, (method, path, code, answer)
    return answer


def patch(path, body, how="merge"):
    return ok("PATCH", path, body, media=MEDIA[how])


def until(what, state):
    """Waits for a state that is true; fails with the last one."""
    end, last = time.monotonic() + float(os.environ.get("RAST_TEST_PATIENCE", 90)), None
    while time.monotonic() < end:
        last = state()
        if last:
            return last
        time.sleep(0.1)
    raise AssertionError(f"{what}: still {last}")


def pod(name, script, container=None, **spec):
    main = {"name": "c", "image": IMAGE, "command": ["sh", "-c", script], **(container or {})}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [main], **spec}
    return {"metadata": {"name": name}, "spec": spec}


def in_phase(path, *phases):
    return until(f"{path} is {phases}", lambda: (p := ok("GET", path))["status"]["phase"] in phases and p)


def story(told):
    STORIES.append(told)
    return told


@story
def should_detect_unknown_and_duplicate_fields_of_a_typed_object(ns):
    text = '{"metadata":{"name":"d"},"spec":{"unknownField":"foo","replicas":2,"replicas":3,"selector":{"matchLabels":{"a":"b"}},'
    text += '"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}'
    code, status = call("POST", f"/apis/apps/v1/namespaces/{ns}/deployments?fieldValidation=Strict", text)
    told = 'strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas"'
    assert code == 400 and told in status["message"], status


@story
def should_return_a_406_for_a_backend_which_does_not_implement_metadata(_):
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    code, _ = call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, accept=table)
    assert code == 406, code


@story
def should_apply_changes_to_a_namespace_status(ns):
    path = f"/api/v1/namespaces/{ns}/status"
    condition = {"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "x"}
    changed = patch(path, {"metadata": {"annotations": {"patched": ns}}, "status": {"conditions": [condition]}})
    assert changed["metadata"]["annotations"]["patched"] == ns, changed
    assert changed["status"]["conditions"][0]["type"] == "StatusPatch", changed


@story
def should_return_chunks_of_results_for_list_calls(ns):
    path, found, rest = f"/api/v1/namespaces/{ns}/podtemplates", 0, ""
    template = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    for number in range(20):
        ok("POST", path, {"metadata": {"name": f"t-{number:04}"}, "template": template})
    while True:
        page = ok("GET", f"{path}?limit=6{rest}")
        for item in page["items"]:
            assert item["metadata"]["name"] == f"t-{found:04}", item
            found += 1
        if not page["metadata"].get("continue"):
            break
        assert page["metadata"]["remainingItemCount"] + found == 20, page["metadata"]
        rest = f"&continue={page['metadata']['continue']}"
        ok("POST", path, {"metadata": {"name": f"z-{found}"}, "template": template})  # later than the first page: not seen
    assert found == 20, found


@story
def should_support_subjectreview_api_operations(ns):
    asked = {"user": "e2e", "resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": ns}}
    for path in ["subjectaccessreviews", f"namespaces/{ns}/localsubjectaccessreviews"]:
        answer = ok("POST", f"/apis/authorization.k8s.io/v1/{path}", {"spec": asked})
        assert answer["status"]["allowed"] is False, answer


@story
def should_ensure_that_an_event_can_be_fetched_patched_deleted_and_listed(ns):
    path = f"/apis/events.k8s.io/v1/namespaces/{ns}/events"
    event = {"metadata": {"name": "e"}, "note": "one", "reason": "Test", "action": "Do", "type": "Normal"}
    event |= {"regarding": {"namespace": ns}, "reportingController": "test", "reportingInstance": "node"}
    ok("POST", path, event | {"eventTime": "2026-01-01T00:00:00.000000Z"})
    assert patch(f"{path}/e", {"note": "two"}, "strategic")["note"] == "two"
    for events, selector in [(f"/api/v1/namespaces/{ns}/events", "source"), (path, "reportingController")]:
        found = ok("GET", f"{events}?fieldSelector={selector}%3Dtest")["items"]
        assert [event["metadata"]["name"] for event in found] == ["e"], (selector, found)
    events = client.CoreV1Api().list_namespaced_event(ns).items
    assert [e.message for e in events if e.metadata.name == "e"] == ["two"], events
    ok("DELETE", f"{path}/e")
    assert call("GET", f"/api/v1/namespaces/{ns}/events/e")[0] == 404


@story
def should_not_be_blocked_by_dependency_circle(ns):
    path = f"/api/v1/namespaces/{ns}/pods"
    uids = {n: ok("POST", path, pod(f"pod{n}", "exec sleep 1000"))["metadata"]["uid"] for n in "123"}
    for dependent, owner in ["13", "21", "32"]:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": f"pod{owner}", "uid": uids[owner]}
        owner |= {"controller": True, "blockOwnerDeletion": True}
        patch(f"{path}/pod{dependent}", {"metadata": {"ownerReferences": [owner]}})
    ok("DELETE", f"{path}/pod1", {"propagationPolicy": "Foreground"})
    until("all are gone", lambda: not ok("GET", path)["items"])


@story
def should_patch_a_pod_status(ns):
    path = f"/api/v1/namespaces/{ns}/pods"
    ok("POST", path, pod("a", "exec sleep 1000"))
    in_phase(f"{path}/a", "Running")
    change = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"message": "m", "reason": "E2E"}}
    changed = patch(f"{path}/a/status", change)
    assert changed["metadata"]["annotations"]["patchedstatus"] == "true", changed["metadata"]
    assert (changed["status"]["message"], changed["status"]["reason"]) == ("m", "E2E"), changed["status"]


@story
def should_run_through_the_lifecycle_of_pods_and_podstatus(ns):
    path = f"/api/v1/namespaces/{ns}/pods/a"
    ok("POST", f"/api/v1/namespaces/{ns}/pods", pod("a", "exec sleep 1000", restartPolicy="Always"))
    in_phase(path, "Running")
    patch(path, {"spec": {"containers": [{"name": "c", "image": OTHER_IMAGE}]}}, "strategic")

    def replaced():
        [status] = ok("GET", path)["status"]["containerStatuses"]
        return status["image"] == OTHER_IMAGE and status["restartCount"] == 1 and "running" in status["state"]

    until("the new image runs", replaced)


@story
def should_serve_a_basic_image_on_each_replica(ns):
    path = f"/api/v1/namespaces/{ns}/pods"
    web = {"image": os.environ["WEB_IMAGE"], "command": None, "ports": [{"containerPort": 8080}]}
    ok("POST", path, pod("web", "", web))
    until("it answers", lambda: "It works" in str(call("GET", f"{path}/web/proxy/")[1]))
    assert call("GET", f"{path}/web:8080/proxy/none?a=b")[0] == 404
    assert "It works" in call("GET", f"{path}/web:8080/proxy")[1], "the redirection is followed"
    assert call("OPTIONS", f"{path}/web:8080/proxy/")[0] == 501, "what the pod itself answers"


@story
def should_support_retrieving_logs_from_the_container_over_websockets(ns):
    path = f"/api/v1/namespaces/{ns}/pods"
    ok("POST", path, pod("a", "echo container is alive; exec sleep 1000"))
    in_phase(f"{path}/a", "Running")
    url = SETTINGS.host.replace("https", "wss") + f"{path}/a/log?container=c"
    files = {"ca_certs": SETTINGS.ssl_ca_cert, "certfile": SETTINGS.cert_file, "keyfile": SETTINGS.key_file}

    def read():
        socket = websocket.create_connection(url, subprotocols=["binary.k8s.io"], sslopt=files, timeout=30)
        return socket.recv() == b"container is alive\n"

    until("the log is told", read)


@story
def should_report_termination_message_from_log_output(ns):
    path = f"/api/v1/namespaces/{ns}/pods"
    ok("POST", path, pod("a", "echo -n DONE; false", {"terminationMessagePolicy": "FallbackToLogsOnError"}))
    [status] = in_phase(f"{path}/a", "Failed")["status"]["containerStatuses"]
    assert status["state"]["terminated"]["message"] == "DONE", status
    assert ok("GET", f"{path}/a/log") == "DONE"


@story
def namespace_deletion_should_delete_pod_first(ns):
    home = f"/api/v1/namespaces/{ns}-x"
    ok("POST", "/api/v1/namespaces", {"metadata": {"name": f"{ns}-x"}})
    until("a service account", lambda: call("GET", f"{home}/serviceaccounts/default")[0] == 200)
    held = pod("held", "exec sleep 1000")
    held["metadata"]["finalizers"] = ["e2e.example.com/finalizer"]
    ok("POST", f"{home}/pods", held)
    in_phase(f"{home}/pods/held", "Running")
    ok("POST", f"{home}/configmaps", {"metadata": {"name": "needed"}})
    ok("DELETE", home)
    until(
        "it is told what is left",
        lambda: any(
            c["type"] == "NamespaceFinalizersRemaining" and c["status"] == "True"
            for c in ok("GET", home)["status"].get("conditions", [])
        ),
    )
    assert "deletionTimestamp" in ok("GET", f"{home}/pods/held")["metadata"]
    assert "deletionTimestamp" not in ok("GET", f"{home}/configmaps/needed")["metadata"]
    patch(f"{home}/pods/held", {"metadata": {"finalizers": None}})
    until("the namespace is gone", lambda: call("GET", home)[0] == 404)


@story
def pod_generation_should_start_at_1_and_increment_per_update(ns):
    path = f"/api/v1/namespaces/{ns}/pods"
    assert ok("POST", path, pod("a", "exec sleep 1000", restartPolicy="Always"))["metadata"]["generation"] == 1
    in_phase(f"{path}/a", "Running")
    debugger = {"name": "e", "image": IMAGE, "command": ["sleep", "1000"]}
    for generation, part, change in [
        (1, "", {"metadata": {"annotations": {"key": "value"}}}),
        (2, "", {"spec": {"tolerations": [{"key": "foo", "operator": "Exists"}]}}),
        (3, "", {"spec": {"activeDeadlineSeconds": 5000}}),
        (4, "/ephemeralcontainers", {"spec": {"ephemeralContainers": [debugger]}}),
    ]:
        changed = patch(f"{path}/a{part}", change)
        assert changed["metadata"]["generation"] == generation, (change, changed["metadata"])
        until(
            f"generation {generation} is acted on",
            lambda: ok("GET", f"{path}/a")["status"].get("observedGeneration") == generation,
        )
    for condition in ok("GET", f"{path}/a")["status"]["conditions"]:
        assert condition["observedGeneration"] == 4, condition


@story
def generated_clients_ask_for_what_is_served(_):
    assert client.CoreApi().get_api_versions().versions == ["v1"]
    assert "pods" in [r.name for r in client.CoreV1Api().get_api_resources().resources]
    assert "deployments" in [r.name for r in client.AppsV1Api().get_api_resources().resources]
    assert client.AppsApi().get_api_group().preferred_version.version == "v1"
    assert "apps" in [group.name for group in client.ApisApi().get_api_versions().groups]
    assert client.VersionApi().get_code().major == "1"


@story
def should_test_kubelet_managed_etc_hosts_file(ns):
    path = f"/api/v1/namespaces/{ns}/pods"
    ok("POST", path, pod("a", "cat /etc/hosts", hostAliases=[{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]))
    in_phase(f"{path}/a", "Succeeded")
    hosts = ok("GET", f"{path}/a/log")
    assert "# Kubernetes-managed hosts file." in hosts and "123.45.67.89\tfoo\tbar" in hosts, hosts


@story
def should_support_sysctls_with_slashes_as_separator(ns):
    path = f"/api/v1/namespaces/{ns}/pods"
    context = {"sysctls": [{"name": "kernel/shm_rmid_forced", "value": "1"}]}
    ok("POST", path, pod("a", "cat /proc/sys/kernel/shm_rmid_forced", securityContext=context))
    in_phase(f"{path}/a", "Succeeded")
    assert ok("GET", f"{path}/a/log") == 1


@story
def should_reject_invalid_sysctls(ns):
    patch(f"/api/v1/namespaces/{ns}", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}})
    names = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."]
    context = {"sysctls": [{"name": name, "value": "1"} for name in names]}
    code, status = call("POST", f"/api/v1/namespaces/{ns}/pods", pod("a", "true", securityContext=context))
    told = status["message"]
    assert code == 422 and 'Invalid value: "foo-"' in told and 'Invalid value: "bar.."' in told, status
    assert "shmmax" not in told and "safe-and-unsafe" not in told, told


def run(told):
    name = told.__name__.replace("_", "-")[:50].strip("-")
    try:
        ok("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        until("a service account", lambda: call("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")[0] == 200)
        told(name)
        ok("DELETE", f"/api/v1/namespaces/{name}")
        return ""
    except Exception:
        return f"--- {told.__name__}\n{traceback.format_exc()}"


with ThreadPoolExecutor(4) as pool:
    failed = [why for why in pool.map(run, STORIES) if why]
print("".join(failed) + ("failed" if failed else "done"))
