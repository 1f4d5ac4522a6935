//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::{config::Dns, pod};

/// Longest host name of Linux.
const HOST_NAME_MAX: usize = 64;

/// The first line of a pod's own `/etc/hosts`, by which others tell it from a node's.
const MANAGED: &str = "# Kubernetes-managed hosts file.";

/// The pod's host name.
///
/// # Errors
/// When the pod wants its full name for it and that is too long.
pub fn hostname(pod: &Pod, node: &str, domain: &str) -> Result<String, String> {
    let spec = pod::spec(pod);
    if spec.host_network == Some(true) {
        return Ok(node.to_string());
    }
    let short = short(pod);
    if spec.subdomain.is_none() || spec.set_hostname_as_fqdn != Some(true) {
        return Ok(short);
    }
    let full = fqdn(pod, &short, domain);
    if full.len() > HOST_NAME_MAX {
        return Err(format!("setHostnameAsFQDN: {full} is longer than the {HOST_NAME_MAX} characters of a host name"));
    }
    Ok(full)
}

/// A pod's name can be longer than a label: then it is cut, as upstream does.
fn short(pod: &Pod) -> String {
    let spec = pod::spec(pod);
    let name = spec.hostname_override.as_deref().or(spec.hostname.as_deref()).unwrap_or(pod::name(pod));
    name.chars().take(HOST_NAME_MAX - 1).collect::<String>().trim_end_matches(['-', '.']).into()
}

fn fqdn(pod: &Pod, name: &str, domain: &str) -> String {
    let subdomain = pod::spec(pod).subdomain.as_deref().unwrap_or_default();
    format!("{name}.{subdomain}.{}.svc.{domain}", pod::namespace(pod))
}

/// `/etc/hosts`; `host` is the node's own, for pods on the host's network.
pub fn hosts(pod: &Pod, ips: &[IpAddr], domain: &str, host: &str) -> String {
    let (spec, name) = (pod::spec(pod), short(pod));
    let mut text = if spec.host_network == Some(true) {
        host.to_string()
    } else {
        let mut text = format!("{MANAGED}\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for ip in ips {
            match &spec.subdomain {
                Some(_) => text.push_str(&format!("{ip}\t{}\t{name}\n", fqdn(pod, &name, domain))),
                None => text.push_str(&format!("{ip}\t{name}\n")),
            }
        }
        text
    };
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// `/etc/resolv.conf`; `host` is the node's own.
pub fn resolv(pod: &Pod, dns: &Dns, host: &str) -> String {
    let spec = pod::spec(pod);
    let on_host = spec.host_network == Some(true);
    let mut conf = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => Resolv::default(),
        "Default" => Resolv::read(host),
        "ClusterFirst" if on_host => Resolv::read(host),
        _ if dns.servers.is_empty() => Resolv::read(host),
        _ => {
            let (ns, domain) = (pod::namespace(pod), &dns.domain);
            let own = [format!("{ns}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            Resolv {
                servers: dns.servers.iter().map(ToString::to_string).collect(),
                searches: own.into_iter().chain(Resolv::read(host).searches).collect(),
                options: vec!["ndots:5".into()],
            }
        }
    };
    if let Some(config) = &spec.dns_config {
        conf.servers.extend(config.nameservers.iter().flatten().cloned());
        conf.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            let prefix = format!("{name}:");
            conf.options.retain(|o| *o != name && !o.starts_with(&prefix));
            conf.options.push(option.value.as_ref().map_or(name.clone(), |v| format!("{name}:{v}")));
        }
    }
    conf.print()
}

#[derive(Default)]
struct Resolv {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolv {
    fn read(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(String::from);
            match words.next().as_deref() {
                Some("nameserver") => conf.servers.extend(words.next()),
                Some("search") => conf.searches = words.collect(),
                Some("options") => conf.options.extend(words),
                _ => {}
            }
        }
        conf
    }

    fn print(mut self) -> String {
        let mut text = String::new();
        let mut known = std::collections::HashSet::new();
        self.searches.retain(|s| known.insert(s.clone()));
        self.servers.retain(|s| known.insert(s.clone()));
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": spec})).unwrap()
    }

    const HOST: &str = "# host\nnameserver 1.1.1.1\nsearch example.org\noptions timeout:2\n";

    #[test]
    fn names() {
        let dns = Dns { servers: vec!["10.0.0.10".parse().unwrap()], domain: "cluster.local".into() };
        let first = "search n.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.0.0.10\noptions ndots:5\n";
        let hosts = "search example.org\nnameserver 1.1.1.1\noptions timeout:2\n";
        for (spec, text) in [
            (json!({}), first),
            (json!({"dnsPolicy": "Default"}), hosts),
            (json!({"hostNetwork": true}), hosts),
            (json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), first),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["a.b"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                "search a.b\nnameserver 9.9.9.9\noptions ndots:2 edns0\n",
            ),
        ] {
            let mut spec = spec;
            spec["containers"] = json!([]);
            assert_eq!(resolv(&pod(spec.clone()), &dns, HOST), text, "{spec}");
        }
        let none = resolv(&pod(json!({"containers": []})), &Dns::default(), HOST);
        assert_eq!(none, hosts, "without a cluster DNS the node's own is used");
    }

    #[test]
    fn own_name() {
        let p = pod(json!({"containers": [], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = self::hosts(&p, &["10.0.0.2".parse().unwrap()], "cluster.local", "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n"), "{text}");
        assert!(text.ends_with("10.0.0.2\tweb\n1.2.3.4\ta\tb\n"), "{text}");
        let name = |spec| hostname(&pod(spec), "node", "c.l");
        assert_eq!(name(json!({"containers": [], "hostNetwork": true})).unwrap(), "node");
        let mut full = json!({"containers": [], "subdomain": "s", "setHostnameAsFQDN": true});
        assert_eq!(name(full.clone()).unwrap(), "web.s.n.svc.c.l");
        let text = self::hosts(&pod(full.clone()), &["10.0.0.2".parse().unwrap()], "c.l", "");
        assert!(text.ends_with("10.0.0.2\tweb.s.n.svc.c.l\tweb\n"), "{text}");
        full["hostname"] = json!("x".repeat(60));
        assert!(name(full).is_err(), "never cut in silence");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = Resolv::read(&text).print();
        }
    }
}
