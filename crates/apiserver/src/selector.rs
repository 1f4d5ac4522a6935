//! Label and field selectors as they stand in query parameters.

use crate::{ApiError, Result};

/// Which objects a list, watch or deletecollection is about; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Term>,
    fields: Vec<Term>,
}

/// A condition on one label or field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: String,
    op: Op,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Op {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl Selector {
    /// Parses both selectors. `known` are the field names that the kind can select by.
    pub fn parse(labels: &str, fields: &str, known: &[&str]) -> Result<Self> {
        let labels = split(labels).into_iter().map(label_term).collect::<Result<_>>()?;
        let fields: Vec<Term> = split_fields(fields).into_iter().map(field_term).collect::<Result<_>>()?;
        match fields.iter().find(|t| !known.contains(&t.key.as_str())) {
            Some(term) => Err(ApiError::bad_request(format!(
                "field label not supported: {}; supported are: {}",
                term.key,
                known.join(", ")
            ))),
            None => Ok(Self { labels, fields }),
        }
    }

    /// Whether everything is selected.
    pub fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object with these labels and fields is selected.
    pub fn matches<'a>(
        &self,
        label: impl Fn(&str) -> Option<&'a str>,
        field: impl Fn(&str) -> Option<&'a str>,
    ) -> bool {
        self.labels.iter().all(|t| t.op.holds(label(&t.key)))
            && self.fields.iter().all(|t| t.op.holds(Some(field(&t.key).unwrap_or_default())))
    }
}

impl Op {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::In(set) => value.is_some_and(|v| set.iter().any(|s| s == v)),
            Self::NotIn(set) => value.is_none_or(|v| set.iter().all(|s| s != v)),
            Self::Above(n) => number().is_some_and(|v| v > *n),
            Self::Below(n) => number().is_some_and(|v| v < *n),
        }
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let terms = text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    terms.map(str::trim).filter(|t| !t.is_empty()).collect()
}

fn label_term(term: &str) -> Result<Term> {
    let bad = || ApiError::bad_request(format!("unable to parse label selector requirement {term:?}"));
    let make = |key: &str, op| {
        let key = key.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if key.is_empty() || key.len() > 317 || !key.chars().all(plain) { Err(bad()) } else { Ok(Term { key: key.to_owned(), op }) }
    };
    if let Some(key) = term.strip_prefix('!') {
        return make(key, Op::Absent);
    }
    if let Some(at) = term.find('(') {
        let set = term[at + 1..].strip_suffix(')').ok_or_else(bad)?;
        let set = set.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = term[..at].split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => make(key, Op::In(set)),
            (Some(key), Some("notin"), None) => make(key, Op::NotIn(set)),
            _ => Err(bad()),
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        return make(key, Op::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = term.split_once('=') {
        return make(key, Op::In(vec![value.trim_start_matches('=').trim().to_owned()]));
    }
    for (sign, op) in [('>', Op::Above as fn(i64) -> Op), ('<', Op::Below)] {
        if let Some((key, value)) = term.split_once(sign) {
            return make(key, op(value.trim().parse().map_err(|_| bad())?));
        }
    }
    make(term, Op::Exists)
}

/// Splits at commas that no backslash escapes.
fn split_fields(text: &str) -> Vec<String> {
    let (mut terms, mut term, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(std::mem::take(&mut term));
        } else {
            term.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    terms.push(term);
    terms.retain(|t| !t.is_empty());
    terms
}

fn field_term(term: String) -> Result<Term> {
    let (key, value, not) = match (term.split_once("!="), term.split_once('=')) {
        (Some((key, value)), _) if !key.contains('=') => (key, value, true),
        (_, Some((key, value))) => (key, value.strip_prefix('=').unwrap_or(value), false),
        _ => {
            let message = format!("invalid field selector {term:?}: can't understand it; write name=value or name!=value");
            return Err(ApiError::bad_request(message));
        }
    };
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    let op = if not { Op::NotIn(vec![plain]) } else { Op::In(vec![plain]) };
    Ok(Term { key: key.trim().to_owned(), op })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(labels: &str, fields: &str) -> bool {
        let selector = Selector::parse(labels, fields, &["metadata.name", "status.phase"]).unwrap();
        let label = |k: &str| [("app", "web"), ("tier", "2"), ("x.io/a", "")].iter().find(|l| l.0 == k).map(|l| l.1);
        let field = |k: &str| [("metadata.name", "a,b"), ("status.phase", "Running")].iter().find(|l| l.0 == k).map(|l| l.1);
        selector.matches(label, field)
    }

    #[test]
    fn labels() {
        for yes in [
            "", "app", "app=web", "app==web", "app = web", "app!=db", "app in (db, web)", "app notin (db)", "!gone",
            "gone!=x", "gone notin (a,b)", "tier>1", "tier<3", "app=web,tier=2", "x.io/a=", "x.io/a",
        ] {
            assert!(selects(yes, ""), "{yes}");
        }
        for no in ["gone", "app=db", "!app", "app notin (web)", "app in (db)", "tier>2", "app>1", "app=web,tier=3", "gone=", "gone in (a)"] {
            assert!(!selects(no, ""), "{no}");
        }
    }

    #[test]
    fn fields() {
        assert!(selects("", r"metadata.name=a\,b"));
        assert!(selects("", "status.phase!=Pending,status.phase==Running"));
        assert!(!selects("", "status.phase!=Running"));
        assert!(Selector::parse("", "spec.x=1", &["metadata.name"]).is_err());
        assert!(Selector::parse("", "metadata.name", &["metadata.name"]).is_err());
    }

    #[test]
    fn refuses_what_it_cannot_parse() {
        for bad in ["a in b", "a in (b", "=x", "a b", "a>x", "a~b", "(a)"] {
            assert!(Selector::parse(bad, "", &[]).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(labels in r"[a-z=!<>(), in\\]{0,30}", fields in r"[a-z=!,\\.]{0,30}") {
            if let Ok(s) = Selector::parse(&labels, &fields, &["a", "b"]) {
                s.matches(|_| None, |_| None);
                s.matches(|_| Some("1"), |_| Some("x"));
            }
        }
    }
}
