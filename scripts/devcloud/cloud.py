"""What the cloud's administrator does through its APIs: the catalogue, the first contents, projects for tests.

    cloud.py catalogue                                  services, endpoints, roles, accounts, the project `demo`
    cloud.py contents                                   flavours, the external network, the guest image, the volume type
    cloud.py project NAME [QUOTA=N…] [deny=A,B] [hide=A,B]
    cloud.py quota NAME QUOTA=N…                        of a project that is there
    cloud.py project-delete NAME

A quota is named as Nova, Neutron or Cinder name it: instances, cores, ram; network, subnet, router, floatingip, port,
security_group; volumes, snapshots, gigabytes. `deny` takes the right to make images, networks or stacks, or to see the
external network; `hide` leaves service types out of the project's catalogue (orchestration, say).
"""

import json, os, sys, time
import openstack

ENV = os.environ
PASSWORD = ENV["PASSWORD"]
ROLES = ["member", "reader", "service", "heat_stack_owner", "heat_stack_user"]
DENIALS = ["image", "network", "stack", "external"]  # role `no-NAME`; services/policies tells what it may not do
TYPES = {"glance": ["image"], "placement": ["placement"], "nova": ["compute"], "neutron": ["network"],
         "cinder": ["block-storage", "volumev3"], "heat": ["orchestration"]}
PATHS = {"nova": "/v2.1", "cinder": "/v3/%(project_id)s", "heat": "/v1/%(project_id)s"}
COMPUTE = {"instances", "cores", "ram", "key_pairs", "metadata_items", "server_groups", "server_group_members"}
VOLUME = {"volumes", "snapshots", "gigabytes", "per_volume_gigabytes", "backups", "backup_gigabytes"}


def main(verb, *rest):
    cloud = connect("admin")
    {"catalogue": catalogue, "contents": contents, "project": project, "quota": quota, "project-delete": project_delete}[verb](cloud, *rest)


def connect(name):
    return openstack.connect(load_envvars=False, load_yaml_config=False, auth_url=ENV["KEYSTONE"], region_name=ENV["REGION"],
                             username=name, password=PASSWORD, project_name=name, user_domain_name="Default", project_domain_name="Default")


def catalogue(cloud):
    identity = cloud.identity
    roles = {role.name: role for role in identity.roles()}
    for name in ROLES + [f"no-{name}" for name in DENIALS]:
        roles.setdefault(name, None) or roles.update({name: identity.create_role(name=name)})

    def account(name, project, *granted, **more):
        user = identity.find_user(name) or identity.create_user(name=name, password=PASSWORD, domain_id="default", **more)
        for role in granted:
            identity.assign_project_role_to_user(project, user, roles[role])

    new = lambda name: identity.find_project(name) or identity.create_project(name=name, domain_id="default")
    service, demo, admin = new("service"), new("demo"), new("admin")
    for name in TYPES:
        account(name, service, "admin", "service")
    account("demo", demo, "member", "heat_stack_owner", default_project_id=demo.id)
    account("admin", admin, "member", "heat_stack_owner")
    account("admin", demo, "admin")

    services = {service.type: service for service in identity.services()}
    endpoints = {(end.service_id, end.interface) for end in identity.endpoints()}
    ports = json.loads(ENV["PORTS"])
    for name, types in TYPES.items():
        url = f"http://{ENV['API']}:{ports[name]}{PATHS.get(name, '')}"
        for kind in types:
            entry = services.get(kind) or identity.create_service(type=kind, name=name)
            for interface in ("public", "internal", "admin"):
                if (entry.id, interface) not in endpoints:
                    identity.create_endpoint(service_id=entry.id, interface=interface, region_id=ENV["REGION"], url=url)

    # Heat keeps the accounts that stacks make for themselves in a domain of their own.
    domain = identity.find_domain("heat") or identity.create_domain(name="heat")
    keeper = identity.find_user("heat_domain_admin", domain_id=domain.id) or identity.create_user(
        name="heat_domain_admin", password=PASSWORD, domain_id=domain.id)
    identity.assign_domain_role_to_user(domain, keeper, roles["admin"])


def contents(cloud):
    for flavour in ENV["FLAVOURS"].split():
        name, ram, vcpus, disk = flavour.split(":")
        cloud.compute.find_flavor(name) or cloud.compute.create_flavor(name=name, ram=int(ram), vcpus=int(vcpus), disk=int(disk))
    network = cloud.network
    public = network.find_network("public") or network.create_network(
        name="public", is_router_external=True, provider_network_type="flat", provider_physical_network="public")
    network.find_subnet("public") or network.create_subnet(
        name="public", network_id=public.id, ip_version=4, cidr=ENV["EXTERNAL"], gateway_ip=ENV["GATEWAY"], is_dhcp_enabled=False,
        allocation_pools=[{"start": ENV["POOL_START"], "end": ENV["POOL_END"]}])
    cloud.block_storage.find_type("ceph") or cloud.block_storage.create_type(name="ceph", extra_specs={"volume_backend_name": "ceph"})
    cloud.image.find_image("guest") or cloud.create_image(
        "guest", filename=f"{ENV['STATE']}/guest/guest.qcow2", disk_format="qcow2", container_format="bare", visibility="public", wait=True)


def project(cloud, name, *settings):
    settings = dict(setting.split("=", 1) for setting in settings)
    denied = [f"no-{name}" for name in settings.pop("deny", "").split(",") if name]
    hidden = settings.pop("hide", "").split(",")
    identity = cloud.identity
    made = identity.create_project(name=name, domain_id="default")
    user = identity.create_user(name=name, password=PASSWORD, domain_id="default", default_project_id=made.id)
    for role in ["member", "heat_stack_owner", *denied]:
        identity.assign_project_role_to_user(made, user, identity.find_role(role, ignore_missing=False))
    set_quotas(cloud, made, settings)
    if hidden != [""]:
        shown = {service.id for service in identity.services() if service.type not in hidden}
        for end in identity.endpoints():
            if end.service_id in shown:
                identity.put(f"/OS-EP-FILTER/projects/{made.id}/endpoints/{end.id}")


def quota(cloud, name, *settings):
    set_quotas(cloud, cloud.identity.find_project(name, ignore_missing=False), dict(setting.split("=", 1) for setting in settings))


def set_quotas(cloud, made, settings):
    quotas = {key: int(value) for key, value in settings.items()}
    for chosen, update in [(COMPUTE, cloud.compute.update_quota_set), (VOLUME, cloud.block_storage.update_quota_set)]:
        if ours := {key: value for key, value in quotas.items() if key in chosen}:
            update(made, **ours)
    if ours := {key: value for key, value in quotas.items() if key not in COMPUTE | VOLUME}:
        answer = cloud.network.put(f"/quotas/{made.id}", json={"quota": ours})
        answer.ok or sys.exit(f"quota: {answer.text}")


def project_delete(cloud, name):
    name not in ("admin", "demo", "service") or sys.exit(f"{name} stays")
    identity = cloud.identity
    made, user = identity.find_project(name), identity.find_user(name)
    if made and user:
        for end in identity.get(f"/OS-EP-FILTER/projects/{made.id}/endpoints").json()["endpoints"]:  # shows what was hidden
            identity.delete(f"/OS-EP-FILTER/projects/{made.id}/endpoints/{end['id']}")
        purge(cloud, connect(name), made.id)
    for thing, delete in [(made, identity.delete_project), (user, identity.delete_user)]:
        if thing:
            delete(thing)


def purge(cloud, own, owner):
    """Deletes what a project holds, one kind after the other, each until none is left.

    As the project's own user where a list is not filtered: an administrator's list of stacks holds those of all projects."""
    compute, volume, stacks, network = own.compute, own.block_storage, own.orchestration, cloud.network

    def delete_router(router):
        for port in network.ports(device_id=router.id, device_owner="network:router_interface"):
            network.remove_interface_from_router(router, port_id=port.id)
        network.delete_router(router)

    # Asked for a project's security groups, Neutron gives it a new default one: these are picked from all.
    for what, held, delete in [
        ("stacks", stacks.stacks, stacks.delete_stack),
        ("servers", compute.servers, compute.delete_server),
        ("snapshots", volume.snapshots, volume.delete_snapshot),
        ("volumes", volume.volumes, volume.delete_volume),
        ("floating IPs", lambda: network.ips(project_id=owner), network.delete_ip),
        ("routers", lambda: network.routers(project_id=owner), delete_router),
        ("ports", lambda: (p for p in network.ports(project_id=owner) if p.device_owner != "network:distributed"), network.delete_port),
        ("networks", lambda: network.networks(project_id=owner), network.delete_network),
        ("security groups", lambda: (group for group in network.security_groups() if group.project_id == owner), network.delete_security_group),
        ("images", lambda: cloud.image.images(owner=owner), cloud.image.delete_image),
    ]:
        end, asked, why = time.monotonic() + 180, {}, "still being deleted"
        while left := list(held()):
            for thing in left:
                if time.monotonic() < asked.get(thing.id, 0) + 20:
                    continue
                try:
                    delete(thing)
                    asked[thing.id] = time.monotonic()
                except openstack.exceptions.HttpException as refused:
                    why = refused
            time.monotonic() < end or sys.exit(f"project holds {len(left)} {what} that do not go: {why}")
            time.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
