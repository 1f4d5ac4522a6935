//! References to images: `[registry[:port]/]repository[:tag][@sha256:…]`, as Docker and Kubernetes write them.

use crate::{
    digest::Digest,
    error::{Error, Result, printable},
};
use std::{fmt, net::Ipv6Addr, str::FromStr};

const DOCKER: &str = "docker.io";

/// A parsed reference in canonical form: registry and tag are always spelled out.
///
/// Grammar: the distribution project's `reference` package. `busybox` is `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host, with its port if one was given: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, `latest` when neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest. Where there is one it decides; the tag is only a comment then.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository, at this digest.
    pub fn at(&self, digest: &Digest) -> Reference {
        Reference { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// Where the registry's API is: Docker's own is not at its name.
    pub(crate) fn host(&self) -> &str {
        if self.registry == DOCKER { "registry-1.docker.io" } else { &self.registry }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self> {
        parse(given).map_err(|reason| Error::BadReference { given: printable(given.as_bytes(), 100), reason })
    }
}

fn parse(given: &str) -> Result<Reference, &'static str> {
    if given.is_empty() {
        return Err("is empty");
    }
    if given.len() > 1024 {
        return Err("is longer than 1024 bytes");
    }
    let (rest, digest) = match given.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| "digest must be sha256:<64 hex>")?)),
        None => (given, None),
    };
    // A colon behind the last slash parts the tag; one before it belongs to a port or an IPv6 address.
    let path = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[path..].rfind(':') {
        Some(colon) => (&rest[..path + colon], Some(&rest[path + colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|t| !is_tag(t)) {
        return Err("tag must be at most 128 of [A-Za-z0-9_.-] and not begin with . or -");
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_host_like(first) => (host(first)?, rest.to_string()),
        _ => (DOCKER.to_string(), name.to_string()),
    };
    let repository = if registry == DOCKER && !repository.contains('/') {
        if repository.len() == 64 && repository.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("64 hex digits are an image id, not a name");
        }
        format!("library/{repository}")
    } else {
        repository
    };
    if !repository.split('/').all(is_component) {
        return Err("repository must be lower case letters and digits, parted by one of . _ __ - or /");
    }
    if registry.len() + 1 + repository.len() > 255 {
        return Err("name is longer than 255 bytes");
    }
    let tag = tag.map(str::to_string).or_else(|| digest.is_none().then(|| "latest".into()));
    Ok(Reference { registry, repository, tag, digest })
}

/// Docker's rule for telling a registry from the first part of a repository, but that a bare upper case word is neither.
fn is_host_like(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':', '['])
}

fn host(given: &str) -> Result<String, &'static str> {
    let (name, port) = match given.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (given, None),
    };
    if let Some(port) = port
        && !(port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0))
    {
        return Err("registry port must be 1 to 65535");
    }
    let valid = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        }),
    };
    if !valid {
        return Err("registry is not a host name or address");
    }
    let lower = given.to_ascii_lowercase();
    Ok(match lower.as_str() {
        "index.docker.io" | "registry-1.docker.io" => DOCKER.into(),
        _ => lower,
    })
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && !tag.starts_with(['.', '-'])
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.iter().all(|b| alphanumeric(b) || b"._-".contains(b))
        && part
            .split(|c: char| c.is_ascii_alphanumeric())
            .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(given: &str) -> String {
        given.parse::<Reference>().map_or_else(|e| e.to_string(), |r| r.to_string())
    }

    #[test]
    fn canonical_forms() {
        let d = format!("sha256:{}", "ab".repeat(32));
        for (given, want) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("a/b", "docker.io/a/b:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x/y:z", "localhost:5000/x/y:z"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("[::1]:5000/x:1", "[::1]:5000/x:1"),
            ("[::1]/x", "[::1]/x:latest"),
            ("ghcr.io/a__b/c--d.e:V1", "ghcr.io/a__b/c--d.e:V1"),
            ("REG.io/x", "reg.io/x:latest"),
            (&format!("x@{d}"), &format!("docker.io/library/x@{d}")),
            (&format!("x:1@{d}"), &format!("docker.io/library/x:1@{d}")),
        ] {
            assert_eq!(canonical(given), want, "{given}");
            assert_eq!(canonical(want), want, "canonical is its own canonical form");
        }
    }

    #[test]
    fn refused() {
        let long = "a/".repeat(200) + "a";
        let id = "ab".repeat(32);
        for given in [
            "",
            ":",
            "/",
            "@",
            ":tag",
            "a:",
            "a:/b",
            "A",
            "a//b",
            "/a",
            "a/",
            "a/../b",
            "..",
            "a b",
            "a:b:c/d",
            "x@sha256:12",
            "x@md5:ab",
            "host:0/x",
            "host:65536/x",
            "host:/x",
            "host:+1/x",
            "-h.io/x",
            "h..io/x",
            "[::g]/x",
            "[::1/x",
            "x:.t",
            "x\0",
            "\u{1b}[2J",
            "é",
            "a___b",
            "a.-b",
            "a@b@c",
            &long,
            &id,
        ] {
            assert!(given.parse::<Reference>().is_err(), "{given:?} parsed as {}", canonical(given));
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_is_stable(given in "(\\PC{0,40}|[a-zA-Z0-9:/@._\\[\\]-]{0,60})") {
            if let Ok(parsed) = given.parse::<Reference>() {
                let again: Reference = parsed.to_string().parse().unwrap();
                prop_assert_eq!(again, parsed);
            }
        }
    }
}
