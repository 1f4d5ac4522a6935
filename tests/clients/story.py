"""PyPI's kubernetes client: creates, watches, patches, reads, deletes."""

import os

from kubernetes import client, config, watch

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()

core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="made"), data={"a": "1"}))
core.patch_namespaced_config_map("made", "default", {"data": {"b": "2"}})
made = core.read_namespaced_config_map("made", "default")
assert made.data == {"a": "1", "b": "2"}, made.data
assert made.metadata.managed_fields, "managedFields are recorded"

pod = client.V1Pod(
    metadata=client.V1ObjectMeta(name="sleeper", labels={"app": "sleeper"}),
    spec=client.V1PodSpec(
        termination_grace_period_seconds=0,
        containers=[client.V1Container(name="main", image=os.environ["IMAGE"], command=["sleep", "1000"])],
    ),
)
core.create_namespaced_pod("default", pod)
seen = []
watcher = watch.Watch()
for event in watcher.stream(core.list_namespaced_pod, "default", label_selector="app=sleeper", timeout_seconds=60):
    seen.append((event["type"], event["object"].status.phase))
    if event["object"].status.phase == "Running":
        watcher.stop()
assert seen[0][0] == "ADDED" and seen[-1][1] == "Running", seen

try:
    core.create_namespaced_pod("default", pod)
    raise AssertionError("a second pod of that name")
except client.ApiException as refused:
    assert refused.status == 409, refused

before = core.list_namespaced_pod("default").metadata.resource_version
core.delete_namespaced_pod("sleeper", "default")
deletion = {"label_selector": "app=sleeper", "timeout_seconds": 60, "resource_version": before}
for event in watcher.stream(core.list_namespaced_pod, "default", **deletion):
    if event["type"] == "DELETED":
        watcher.stop()
assert not core.list_namespaced_pod("default").items
print("done")
