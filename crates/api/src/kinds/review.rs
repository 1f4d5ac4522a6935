//! Reviews: questions about who may do what, answered at once and kept nowhere.

use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, TokenReview},
    authorization::v1::{
        LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
        SubjectAccessReviewSpec,
    },
};

use crate::{
    faults::{Cause, Faults, Path},
    names::Rule,
    registry::{Kind, Scope},
    typed::Typed,
};

/// SelfSubjectAccessReview: may I?
pub fn self_subject_access() -> Kind {
    Kind::review::<SelfSubjectAccessReview>("selfsubjectaccessreviews", Scope::Cluster)
}

/// SelfSubjectRulesReview: what may I?
pub fn self_subject_rules() -> Kind {
    Kind::review::<SelfSubjectRulesReview>("selfsubjectrulesreviews", Scope::Cluster)
}

/// SubjectAccessReview: may they?
pub fn subject_access() -> Kind {
    Kind::review::<SubjectAccessReview>("subjectaccessreviews", Scope::Cluster)
}

/// LocalSubjectAccessReview: may they, in this namespace?
pub fn local_subject_access() -> Kind {
    Kind::review::<LocalSubjectAccessReview>("localsubjectaccessreviews", Scope::Namespaced)
}

/// SelfSubjectReview: who am I?
pub fn self_subject() -> Kind {
    Kind::review::<SelfSubjectReview>("selfsubjectreviews", Scope::Cluster)
}

/// TokenReview: whose token is this?
pub fn token() -> Kind {
    Kind::review::<TokenReview>("tokenreviews", Scope::Cluster)
}

impl Typed for SelfSubjectAccessReview {
    const NAME: Option<Rule> = None;

    fn validate(&self, bad: &mut Faults) {
        about(self.spec.resource_attributes.is_some(), self.spec.non_resource_attributes.is_some(), bad);
    }
}

impl Typed for SelfSubjectRulesReview {
    const NAME: Option<Rule> = None;
}

impl Typed for SubjectAccessReview {
    const NAME: Option<Rule> = None;

    fn validate(&self, bad: &mut Faults) {
        subject(&self.spec, bad);
    }
}

impl Typed for LocalSubjectAccessReview {
    const NAME: Option<Rule> = None;

    fn validate(&self, bad: &mut Faults) {
        subject(&self.spec, bad);
    }
}

impl Typed for SelfSubjectReview {
    const NAME: Option<Rule> = None;
}

impl Typed for TokenReview {
    const NAME: Option<Rule> = None;

    fn validate(&self, bad: &mut Faults) {
        if self.spec.token.is_empty() {
            bad.required(Path::root().field("spec").field("token"), "must be given");
        }
    }
}

fn subject(spec: &SubjectAccessReviewSpec, bad: &mut Faults) {
    about(spec.resource_attributes.is_some(), spec.non_resource_attributes.is_some(), bad);
    let user = spec.user.as_ref().is_some_and(|u| !u.is_empty());
    if !user && spec.groups.as_ref().is_none_or(Vec::is_empty) {
        bad.required(Path::root().field("spec").field("user"), "must be given, or groups");
    }
}

fn about(resource: bool, path: bool, bad: &mut Faults) {
    if resource == path {
        let at = Path::root().field("spec").field("resourceAttributes");
        bad.push(at, Cause::Invalid, "must be given, or nonResourceAttributes, and not both");
    }
}
