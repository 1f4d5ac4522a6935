//! Who makes a request.

use std::collections::BTreeMap;

/// An authenticated user: what `authentication.k8s.io/v1` calls `UserInfo`. In the extensions of every request
/// that passed authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The unique name, e.g. `system:serviceaccount:default:builder`.
    #[serde(rename = "username")]
    pub user: String,
    /// Tells apart users that had the same name at different times; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups, `system:authenticated` among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group of everyone who authenticated.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of those who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

impl Identity {
    /// A component of rastOS: `system:NAME` in these groups and `system:authenticated`.
    pub fn system(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain([AUTHENTICATED]).map(str::to_owned).collect();
        Self { user: format!("system:{name}"), groups, ..Self::default() }
    }

    /// Someone who showed no credentials.
    pub fn anonymous() -> Self {
        Self { user: "system:anonymous".into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// Whether this is a member of `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
