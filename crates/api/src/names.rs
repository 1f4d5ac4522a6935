//! What names, labels and keys may look like (RFC 1123, RFC 1035, and Kubernetes' own).

/// What a good text looks like; `None` when this one is good.
pub type Complaint = Option<String>;

/// A rule about texts.
pub type Rule = fn(&str) -> Complaint;

const LABEL: &str = "must be a DNS label: lower-case letters, digits and '-', with a letter or digit at either end";
const SUBDOMAIN: &str =
    "must be a DNS name: lower-case letters, digits, '-' and '.', with a letter or digit at either end of each part";
const QUALIFIED: &str = "letters, digits, '-', '_' and '.', with a letter or digit at either end";

fn too_long(text: &str, most: usize) -> Complaint {
    (text.len() > most).then(|| format!("must be no more than {most} bytes"))
}

fn complain(good: bool, message: &str) -> Complaint {
    (!good).then(|| message.to_owned())
}

fn ends(text: &str, good: fn(u8) -> bool) -> bool {
    matches!((text.bytes().next(), text.bytes().last()), (Some(first), Some(last)) if good(first) && good(last))
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn is_label(text: &str) -> bool {
    ends(text, lower) && text.bytes().all(|b| lower(b) || b == b'-')
}

/// A DNS label of RFC 1123, at most 63 bytes: namespaces, containers, volumes.
pub fn label(text: &str) -> Complaint {
    too_long(text, 63).or_else(|| complain(is_label(text), LABEL))
}

/// A DNS subdomain of RFC 1123, at most 253 bytes: most objects.
pub fn subdomain(text: &str) -> Complaint {
    too_long(text, 253).or_else(|| complain(text.split('.').all(is_label), SUBDOMAIN))
}

/// A segment of a URL path: roles and their bindings.
pub fn path_segment(text: &str) -> Complaint {
    complain(
        !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '%', '\0']),
        "must not be empty, '.' or '..', nor contain '/' or '%'",
    )
    .or_else(|| too_long(text, 253))
}

/// The name of a port: at most 15 of `a-z0-9-` with a letter among them, no `--`, no `-` at either end (RFC 6335).
pub fn port(text: &str) -> Complaint {
    let good = is_label(text) && text.bytes().any(|b| b.is_ascii_lowercase()) && !text.contains("--");
    too_long(text, 15).or_else(|| {
        complain(good, "must be lower-case letters, digits and single '-' inside, with at least one letter")
    })
}

/// The name of a kernel parameter: parts of `a-z0-9-_` joined by '.' or '/', with a letter or digit at either end of
/// each.
pub fn sysctl(text: &str) -> Complaint {
    let part = |part: &str| ends(part, lower) && part.bytes().all(|b| lower(b) || b == b'-' || b == b'_');
    too_long(text, 253).or_else(|| {
        let message = "must be a kernel parameter's name: lower-case letters, digits, '-' and '_', parts joined by '.'";
        complain(text.split(['.', '/']).all(part), message)
    })
}

/// The key of a label or annotation, the name of a resource or finalizer: `[PREFIX/]NAME`.
pub fn qualified(text: &str) -> Complaint {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(complaint) = prefix.and_then(subdomain) {
        return Some(format!("prefix {complaint}"));
    }
    if name.len() > 63 {
        return Some("name must be no more than 63 bytes".to_owned());
    }
    (!is_qualified(name)).then(|| format!("must be NAME or PREFIX/NAME: NAME of {QUALIFIED}"))
}

fn is_qualified(name: &str) -> bool {
    ends(name, alphanumeric) && name.bytes().all(|b| alphanumeric(b) || matches!(b, b'-' | b'_' | b'.'))
}

/// The value of a label: empty, or at most 63 bytes.
pub fn label_value(text: &str) -> Complaint {
    too_long(text, 63)
        .or_else(|| (!text.is_empty() && !is_qualified(text)).then(|| format!("must be empty, or {QUALIFIED}")))
}

/// The key of a ConfigMap's or Secret's data: it becomes a file name.
pub fn config_key(text: &str) -> Complaint {
    let good = !text.is_empty() && text.bytes().all(|b| alphanumeric(b) || matches!(b, b'-' | b'_' | b'.'));
    too_long(text, 253)
        .or_else(|| complain(good, "must be letters, digits, '-', '_' and '.'"))
        .or_else(|| complain(text != "." && !text.starts_with(".."), "must not be '.' nor begin with '..'"))
}

/// The name of an environment variable: printable ASCII without `=`.
pub fn env(text: &str) -> Complaint {
    complain(
        !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'='),
        "must be printable ASCII characters other than '='",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_names_pass() {
        let good: &[(Rule, &[&str])] = &[
            (label, &["a", "web-0", "0a"]),
            (subdomain, &["a", "web.example.com", "10.0.0.1"]),
            (path_segment, &["system:node", "a b", "admin"]),
            (port, &["http", "a-1"]),
            (qualified, &["app", "app.kubernetes.io/name", "A_b.c"]),
            (label_value, &["", "v1.2_3", "A"]),
            (config_key, &["key", ".profile", "a..b"]),
            (env, &["PATH", "a.b", "my var"]),
        ];
        for (rule, texts) in good {
            texts.iter().for_each(|text| assert_eq!(rule(text), None, "{text:?}"));
        }
    }

    #[test]
    fn bad_names_are_refused() {
        let endless = "a".repeat(64 * 1024);
        let bad: &[(Rule, &[&str])] = &[
            (label, &["", "A", "-a", "a-", "a.b", "a/b", "..", "a\0", "ä", &endless]),
            (subdomain, &["", ".", "..", "a..b", "a/b", "a_b", ".a", &endless]),
            (path_segment, &["", ".", "..", "a/b", "a%2f", &endless]),
            (port, &["", "80", "a--b", "-a", "HTTP", "a-name-of-sixteen"]),
            (qualified, &["", "/", "a/", "/a", "a/b/c", "A.b/-c", "-a", &endless]),
            (label_value, &["-", "a/b", " ", &endless]),
            (config_key, &["", ".", "..", "..a", "a/b", "a b", &endless]),
            (env, &["", "A=B", "a\nb", "ä"]),
        ];
        for (rule, texts) in bad {
            texts.iter().for_each(|text| assert!(rule(text).is_some(), "{text:.40?}"));
        }
    }

    proptest! {
        #[test]
        fn never_panic(text in "\\PC*") {
            for rule in [label, subdomain, path_segment, port, qualified, label_value, config_key, env] {
                let _ = rule(&text);
            }
        }

        #[test]
        fn a_name_that_passes_is_safe_as_a_path(text in "\\PC{0,20}") {
            for rule in [label as Rule, subdomain, path_segment, config_key] {
                if rule(&text).is_none() {
                    prop_assert!(!text.contains(['/', '\0']) && text != ".." && text != "." && !text.is_empty());
                }
            }
        }
    }
}
