//! Reviews: questions about who may do what, answered at once and kept nowhere.

use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, TokenReview},
    authorization::v1::{SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview},
};

use crate::{
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

/// SelfSubjectReview: who am I?
pub fn self_subject() -> Kind {
    Kind::review::<SelfSubjectReview>("selfsubjectreviews", Scope::Cluster)
}

/// TokenReview: whose token is this?
pub fn token() -> Kind {
    Kind::review::<TokenReview>("tokenreviews", Scope::Cluster)
}

impl Typed for SelfSubjectAccessReview {}
impl Typed for SelfSubjectRulesReview {}
impl Typed for SubjectAccessReview {}
impl Typed for SelfSubjectReview {}
impl Typed for TokenReview {}
