//! Label and field selectors: as texts in a query, and as structs in an object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use crate::names;

/// Why a text or struct is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector {text:?}: {why}")]
pub struct SelectorError {
    text: String,
    why: String,
}

/// What one label must satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How its value is compared.
    pub operator: Operator,
}

/// How a label's value is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Is there, with one of these values.
    In(Vec<String>),
    /// Is not there, or with none of these values.
    NotIn(Vec<String>),
    /// Is there.
    Exists,
    /// Is not there.
    DoesNotExist,
    /// Is there, as an integer greater than this.
    Gt(i64),
    /// Is there, as an integer less than this.
    Lt(i64),
}

/// Requirements of labels, all of which must hold; an empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

impl Requirement {
    /// Whether a label's value (or its absence) satisfies this.
    pub fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match (&self.operator, value) {
            (Operator::In(values), Some(value)) => values.iter().any(|v| v == value),
            (Operator::NotIn(values), Some(value)) => values.iter().all(|v| v != value),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::NotIn(_), None) => true,
            (Operator::Gt(bound), _) => number().is_some_and(|n| n > *bound),
            (Operator::Lt(bound), _) => number().is_some_and(|n| n < *bound),
            (Operator::In(_), None) => false,
        }
    }
}

impl Selector {
    /// Reads the query form: `app=web,tier in (a, b),!legacy,rank>3`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let error = |why: &str| SelectorError { text: text.to_owned(), why: why.to_owned() };
        let requirements = terms(text).ok_or_else(|| error("unbalanced parentheses"))?;
        let requirements = requirements.into_iter().map(|term| requirement(term).map_err(|why| error(&why)));
        Ok(Self(requirements.collect::<Result<_, _>>()?))
    }

    /// From the struct form. `matchLabels` and `matchExpressions` must all hold.
    pub fn from_struct(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let labels = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) });
        let mut requirements: Vec<_> = labels.collect();
        for term in selector.match_expressions.iter().flatten() {
            let values = term.values.clone().unwrap_or_default();
            let operator = match (term.operator.as_str(), values.is_empty()) {
                ("In", false) => Operator::In(values),
                ("NotIn", false) => Operator::NotIn(values),
                ("Exists", true) => Operator::Exists,
                ("DoesNotExist", true) => Operator::DoesNotExist,
                (operator, _) => {
                    let why = "the operator must be In or NotIn with values, or Exists or DoesNotExist without";
                    return Err(SelectorError { text: format!("{} {operator}", term.key), why: why.to_owned() });
                }
            };
            requirements.push(Requirement { key: term.key.clone(), operator });
        }
        Ok(Self(requirements))
    }

    /// Whether these labels are selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|r| r.holds(labels.get(&r.key).map(String::as_str)))
    }

    /// Whether an object is selected, by its `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|r| r.holds(labels.get(&r.key).and_then(Value::as_str)))
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Splits at the commas that stand outside of parentheses; `None` when those do not balance.
fn terms(text: &str) -> Option<Vec<&str>> {
    let (mut terms, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match (c, inside) {
            ('(', false) => inside = true,
            (')', true) => inside = false,
            ('(' | ')', _) => return None,
            (',', false) => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        terms.push(&text[start..]);
    }
    (!inside).then_some(terms)
}

fn requirement(term: &str) -> Result<Requirement, String> {
    let term = term.trim();
    let (key, operator) = if let Some((head, values)) = term.split_once('(') {
        let values = values.strip_suffix(')').ok_or("text after the closing parenthesis")?;
        let values: Vec<String> = values.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => (key, Operator::In(values)),
            (Some(key), Some("notin"), None) => (key, Operator::NotIn(values)),
            _ => return Err("expected KEY in (…) or KEY notin (…)".to_owned()),
        }
    } else if let Some(key) = term.strip_prefix('!') {
        (key.trim(), Operator::DoesNotExist)
    } else if let Some(at) = term.find(['=', '!', '<', '>']) {
        let (key, rest) = term.split_at(at);
        let of = |prefix: &str| rest.strip_prefix(prefix).map(|v| v.trim().to_owned());
        let bound = |v: String| v.parse().map_err(|_| format!("{v:?} is no integer"));
        let operator = match (of("!="), of("==").or_else(|| of("=")), of(">"), of("<")) {
            (Some(value), ..) => Operator::NotIn(vec![value]),
            (_, Some(value), ..) => Operator::In(vec![value]),
            (_, _, Some(value), _) => Operator::Gt(bound(value)?),
            (_, _, _, Some(value)) => Operator::Lt(bound(value)?),
            _ => return Err("expected =, ==, !=, > or <".to_owned()),
        };
        (key.trim(), operator)
    } else {
        (term, Operator::Exists)
    };
    if let Some(why) = names::qualified(key) {
        return Err(format!("key {key:?} {why}"));
    }
    if let Operator::In(values) | Operator::NotIn(values) = &operator
        && let Some((value, why)) = values.iter().find_map(|v| Some((v, names::label_value(v)?)))
    {
        return Err(format!("value {value:?} {why}"));
    }
    Ok(Requirement { key: key.to_owned(), operator })
}

/// One comparison of a field: name, value, and whether it must be equal or must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// E.g. `metadata.name`.
    pub field: String,
    /// What it is compared with.
    pub value: String,
    /// `=` rather than `!=`.
    pub equal: bool,
}

/// Comparisons of fields, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldRequirement>);

impl FieldSelector {
    /// Reads `status.phase=Running,spec.nodeName!=a`; `\` escapes `,`, `=` and itself in a value.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let error = |why: &str| SelectorError { text: text.to_owned(), why: why.to_owned() };
        let mut all = Vec::new();
        for term in split_unescaped(text).iter().filter(|t| !t.is_empty()) {
            let at = term.find('=').ok_or_else(|| error("expected FIELD=VALUE or FIELD!=VALUE"))?;
            let (equal, field) = match term[..at].strip_suffix('!') {
                Some(field) => (false, field),
                None => (true, &term[..at]),
            };
            let value = term[at + 1..].strip_prefix('=').filter(|_| equal).unwrap_or(&term[at + 1..]);
            let why = "in a value, '\\' stands before each ',', '=' and '\\', and before nothing else";
            let value = unescape(value).ok_or_else(|| error(why))?;
            all.push(FieldRequirement { field: field.trim().to_owned(), value, equal });
        }
        Ok(Self(all))
    }

    /// Whether an object is selected, given its selectable fields. The first name that is not among these fields
    /// (nor `metadata.name` or `metadata.namespace`) is returned as the error.
    pub fn matches(&self, object: &Value, fields: &[(&'static str, String)]) -> Result<bool, String> {
        let mut all = true;
        for want in &self.0 {
            let metadata = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
            let value = match want.field.as_str() {
                "metadata.name" => metadata("name"),
                "metadata.namespace" => metadata("namespace"),
                other => match fields.iter().find(|(name, _)| *name == other) {
                    Some((_, value)) => value,
                    None => return Err(other.to_owned()),
                },
            };
            all &= (value == want.value) == want.equal;
        }
        Ok(all)
    }

    /// The value that a field is required to equal, if it is.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if c == ',' && !escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> Option<String> {
    let (mut out, mut chars) = (String::new(), value.chars());
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => chars.next().filter(|c| matches!(c, ',' | '=' | '\\'))?,
            ',' | '=' => return None,
            c => c,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn texts_select_what_they_say() {
        let web = labels(&[("app", "web"), ("tier", "a"), ("rank", "5")]);
        for text in [
            "",
            "app=web",
            "app==web",
            "app = web",
            "app!=db",
            "x!=1",
            "app",
            "!x",
            "! x",
            "tier in (a,b)",
            "tier in ( b , a )",
            "tier notin (c)",
            "x notin (a)",
            "app=web,tier in (a,b),!x",
            "rank>4",
            "rank<6",
        ] {
            assert!(Selector::parse(text).unwrap().matches(&web), "{text}");
        }
        for text in ["app=db", "app!=web", "x", "!app", "tier in (b)", "tier notin (a)", "app=", "rank>5", "app>1"] {
            assert!(!Selector::parse(text).unwrap().matches(&web), "{text}");
        }
        assert!(Selector::parse("app=web").unwrap().matches_object(&json!({"metadata": {"labels": web}})));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in
            ["=", "a=b=c", "a in b", "a in (b", "a in (b))", "a (b)", "a,,b", ",", "-a", "a=-", "a>b", "a!b", "in (a)"]
        {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn structs_select_what_they_say() {
        let parse = |v| Selector::from_struct(&serde_json::from_value(v).unwrap());
        let selector = parse(json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a"]}, {"key": "x", "operator": "DoesNotExist"}]}));
        let selector = selector.unwrap();
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "a")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("tier", "a"), ("x", "")])));
        assert!(parse(json!({"matchExpressions": [{"key": "a", "operator": "In"}]})).is_err());
        assert!(parse(json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]})).is_err());
    }

    #[test]
    fn fields_select_what_they_say() {
        let pod = json!({"metadata": {"name": "a", "namespace": "n"}});
        let fields = [("status.phase", "Running".to_owned())];
        let matches = |text| FieldSelector::parse(text).unwrap().matches(&pod, &fields);
        assert_eq!(matches("metadata.name=a,status.phase!=Failed"), Ok(true));
        assert_eq!(matches("metadata.name==b"), Ok(false));
        assert_eq!(matches("spec.x=1"), Err("spec.x".to_owned()));
        let escaped = FieldSelector::parse(r"reason=a\,b\=c").unwrap();
        assert_eq!(escaped.exact("reason"), Some("a,b=c"));
        for text in ["a", r"a=\x", r"a=\", "a=b=c", "a!==b", "a===b", r"metadata.name!=a\,metadata.name=b"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z(),=!<> \\\\]{0,30}|\\PC*") {
            if let Ok(selector) = Selector::parse(&text) {
                selector.matches(&BTreeMap::new());
            }
            let _ = FieldSelector::parse(&text);
        }
    }
}
