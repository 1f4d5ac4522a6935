//! Which objects a list, watch or deletecollection is about.

use api::{FieldSelector, selector::Selector as Labels};

use crate::{ApiError, Result};

/// A label and a field selector; the default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Labels,
    fields: FieldSelector,
}

impl Selector {
    /// Parses both selectors. `known` are the field names that the kind can select by.
    pub(crate) fn parse(labels: &str, fields: &str, known: &[&str]) -> Result<Self> {
        let bad = |e: api::selector::SelectorError| ApiError::bad_request(e.to_string());
        let (labels, fields) = (Labels::parse(labels).map_err(bad)?, FieldSelector::parse(fields).map_err(bad)?);
        match fields.0.iter().find(|r| !known.contains(&r.field.as_str())) {
            Some(unknown) => Err(ApiError::bad_request(format!(
                "field label not supported: {}; supported are: {}",
                unknown.field,
                known.join(", ")
            ))),
            None => Ok(Self { labels, fields }),
        }
    }

    /// Whether everything is selected.
    pub(crate) fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.0.is_empty()
    }

    /// Whether an object with these labels and fields is selected.
    pub(crate) fn matches<'a>(
        &self,
        label: impl Fn(&str) -> Option<&'a str>,
        field: impl Fn(&str) -> Option<&'a str>,
    ) -> bool {
        self.labels.0.iter().all(|r| r.holds(label(&r.key)))
            && self.fields.0.iter().all(|r| (field(&r.field).unwrap_or_default() == r.value) == r.equal)
    }
}
