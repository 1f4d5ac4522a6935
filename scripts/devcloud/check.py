"""Run by `check`, within the cloud's network: check.py DEVCLOUD [STEP…]."""

import base64, os, subprocess, sys, time, urllib.request
import openstack
from openstack import exceptions

DEVCLOUD = sys.argv[1]
NAME = f"check-{os.getpid()}"
TEMPLATE = {
    "heat_template_version": "2018-08-31",
    "resources": {
        "network": {"type": "OS::Neutron::Net"},
        "subnet": {"type": "OS::Neutron::Subnet", "properties": {"network": {"get_resource": "network"}, "cidr": "10.9.0.0/24"}},
        "router": {"type": "OS::Neutron::Router", "properties": {"external_gateway_info": {"network": "public"}}},
        "interface": {"type": "OS::Neutron::RouterInterface", "properties": {"router": {"get_resource": "router"}, "subnet": {"get_resource": "subnet"}}},
        "group": {"type": "OS::Neutron::SecurityGroup", "properties": {"rules": [{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80}]}},
        "port": {"type": "OS::Neutron::Port", "depends_on": "interface", "properties": {
            "network": {"get_resource": "network"}, "fixed_ips": [{"subnet": {"get_resource": "subnet"}}], "security_groups": [{"get_resource": "group"}]}},
        "volume": {"type": "OS::Cinder::Volume", "properties": {"size": 1}},
        "server": {"type": "OS::Nova::Server", "properties": {"image": "guest", "flavor": "r1.tiny", "networks": [{"port": {"get_resource": "port"}}]}},
        "attachment": {"type": "OS::Cinder::VolumeAttachment", "properties": {
            "instance_uuid": {"get_resource": "server"}, "volume_id": {"get_resource": "volume"}}},
        "address": {"type": "OS::Neutron::FloatingIP", "depends_on": "interface", "properties": {
            "floating_network": "public", "port_id": {"get_resource": "port"}}},
    },
    "outputs": {"address": {"value": {"get_attr": ["address", "floating_ip_address"]}}},
}


def connect(**auth):
    auth = auth or {"username": NAME, "password": os.environ["PASSWORD"], "project_name": NAME, "user_domain_name": "Default", "project_domain_name": "Default"}
    return openstack.connect(load_envvars=False, load_yaml_config=False, auth_url=os.environ["KEYSTONE"], region_name=os.environ["REGION"],
                             **({"auth_type": "v3applicationcredential"} if "application_credential_id" in auth else {}), **auth)


def page(address, path=""):
    try:
        return urllib.request.urlopen(f"http://{address}/{path}", timeout=5).read().decode()
    except OSError:
        return ""


def until(what, condition, limit=300):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.5)
    sys.exit(f"check: {what}: not within {limit} s")


def network(cloud):
    n = cloud.network
    net = n.create_network(name="net")
    sub = n.create_subnet(name="sub", network_id=net.id, ip_version=4, cidr="10.8.0.0/24")
    router = n.create_router(name="router", external_gateway_info={"network_id": n.find_network("public").id})
    n.add_interface_to_router(router, subnet_id=sub.id)
    group = n.find_security_group("default")
    n.create_security_group_rule(security_group_id=group.id, direction="ingress", protocol="tcp", ethertype="IPv4")
    return net


def serve(cloud, net, name, fetch, **boot):
    """A server with a floating address, told to fetch something; returns both once it answers."""
    compute, n = cloud.compute, cloud.network
    data = base64.b64encode(f"fetch {fetch}".encode()).decode()
    server = compute.create_server(name=name, flavor_id=compute.find_flavor("r1.tiny").id, networks=[{"uuid": net.id}], user_data=data, **boot)
    compute.wait_for_server(server, wait=300)
    address = n.create_ip(floating_network_id=n.find_network("public").id, port_id=next(n.ports(device_id=server.id)).id).floating_ip_address
    until(f"{name} answers at {address}", lambda: f"hello from {name}" in page(address))
    return server, address


def from_image(cloud, net):
    server, address = serve(cloud, net, "from-image", f"{os.environ['GATEWAY']} 5000 /v2/_catalog",
                            image_id=cloud.image.find_image("guest").id, config_drive=True)
    assert server.id in page(address, "meta_data.json"), "no config drive"
    assert server.id in page(address, "metadata"), "no metadata service"
    until("the guest reaches the registry", lambda: "busybox" in page(address, "fetched"))
    volume = cloud.create_volume(1, wait=True, name="data")
    cloud.attach_volume(server, volume, wait=True)
    until("the guest sees the volume", lambda: "vdb" in page(address, "disks"))
    cloud.detach_volume(server, cloud.get_volume(volume.id), wait=True)
    until("the guest sees it gone", lambda: "vdb" not in page(address, "disks"))
    cloud.compute.stop_server(server)
    cloud.compute.wait_for_server(server, "SHUTOFF", wait=120)
    cloud.compute.start_server(server)
    until("the guest is back", lambda: f"hello from {server.name}" in page(address))


def from_volume(cloud, net):
    device = {"uuid": cloud.image.find_image("guest").id, "source_type": "image", "destination_type": "volume", "volume_size": 1,
              "boot_index": 0, "delete_on_termination": True}
    _, address = serve(cloud, net, "from-volume", f"{os.environ['API']} 5000 /v3", block_device_mapping=[device])
    until("the guest reaches Keystone", lambda: '"version"' in page(address, "fetched"))


def stack(cloud, net):
    made = cloud.orchestration.create_stack(name=NAME, template=TEMPLATE, parameters={})
    made = cloud.orchestration.wait_for_status(made, "CREATE_COMPLETE", failures=["CREATE_FAILED"], wait=300)
    address = cloud.orchestration.get_stack(made.id).outputs[0]["output_value"]
    until("the stack's server answers", lambda: "hello" in page(address))
    cloud.orchestration.delete_stack(made)
    cloud.orchestration.wait_for_delete(made, wait=300)


def quota(cloud, net):
    try:
        cloud.compute.create_server(name="one-too-many", flavor_id=cloud.compute.find_flavor("r1.large").id, networks=[{"uuid": net.id}],
                                    image_id=cloud.image.find_image("guest").id)
    except exceptions.ForbiddenException as refused:
        assert "Quota exceeded for ram" in str(refused), refused
    else:
        sys.exit("check: the quota did not hold")


def rights(cloud, net):
    """An application credential, restricted or not, may do what its user may, except to make the trust that Heat wants."""
    empty = {"heat_template_version": "2018-08-31", "resources": {"nothing": {"type": "OS::Heat::None"}}}
    for unrestricted in (False, True):
        secret = cloud.identity.create_application_credential(cloud.current_user_id, name=f"unrestricted-{unrestricted}", unrestricted=unrestricted)
        limited = connect(application_credential_id=secret.id, application_credential_secret=secret.secret)
        assert limited.compute.find_flavor("r1.tiny"), "the credential works"
        try:
            limited.orchestration.create_stack(name=f"rights-{unrestricted}", template=empty, parameters={})
        except exceptions.HttpException as refused:
            assert "Internal Server Error" in str(refused), refused
        else:
            sys.exit("check: an application credential made a stack")


STEPS = [from_image, from_volume, stack, quota, rights]

def timed(what, run, *arguments):
    begin = time.monotonic()
    result = run(*arguments)
    print(f"{what}: {time.monotonic() - begin:.0f} s", flush=True)
    return result


def devcloud(*arguments):
    subprocess.run([DEVCLOUD, *arguments], check=True, stdout=subprocess.DEVNULL)


timed("project", devcloud, "project", NAME, "ram=1536")
try:
    cloud = connect()
    net = timed("network", network, cloud)
    for step in STEPS:
        if not sys.argv[2:] or step.__name__ in sys.argv[2:]:
            timed(step.__name__, step, cloud, net)
finally:
    timed("project deleted", devcloud, "project-delete", NAME)
