//! Deployment: a template of pods, rolled out.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use serde_json::Value;

use crate::{
    columns::{AGE, NAME, column, items, number, selector, wide},
    faults::{Cause, Faults, Path},
    kinds::pod::{Owner, default_spec, validate_spec},
    meta,
    registry::{Kind, Scope, Strategy, Subresource},
    selector::Selector,
    typed::{Typed, count_generation, keep},
};

/// Deployment.
pub fn kind() -> Kind {
    Kind {
        short: &["deploy"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        columns: const {
            &[
                NAME,
                column("Ready", |o, _| {
                    format!("{}/{}", number(o, "/status/readyReplicas"), number(o, "/spec/replicas")).into()
                }),
                column("Up-to-date", |o, _| number(o, "/status/updatedReplicas")),
                column("Available", |o, _| number(o, "/status/availableReplicas")),
                AGE,
                wide("Containers", |o, _| template(o, "name")),
                wide("Images", |o, _| template(o, "image")),
                wide("Selector", |o, _| selector(o, "/spec/selector")),
            ]
        },
        strategy: Strategy {
            before_update: |new, old| {
                keep(new, old, "status");
                // Annotations count too: `kubernetes.io/change-cause` belongs to a revision.
                let changed =
                    new["spec"] != old["spec"] || new["metadata"]["annotations"] != old["metadata"]["annotations"];
                count_generation(new, old, changed);
            },
            ..Strategy::of::<Deployment>().with_status()
        },
        ..Kind::of::<Deployment>("deployments", Scope::Namespaced)
    }
}

/// One field of every container of the pod template, joined by commas.
pub(crate) fn template(object: &Value, field: &str) -> Value {
    let containers = items(object, "/spec/template/spec/containers");
    let values: Vec<&str> = containers.iter().filter_map(|c| c[field].as_str()).collect();
    values.join(",").into()
}

impl Typed for Deployment {
    fn default(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        let strategy = spec.strategy.get_or_insert_default();
        if strategy.type_.as_ref().is_none_or(String::is_empty) {
            strategy.type_ = Some("RollingUpdate".to_owned());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            let quarter = || IntOrString::String("25%".to_owned());
            rolling.max_surge.get_or_insert_with(quarter);
            rolling.max_unavailable.get_or_insert_with(quarter);
        }
        spec.template.spec.iter_mut().for_each(default_spec);
    }

    fn validate(&self, bad: &mut Faults) {
        let at = Path::root().field("spec");
        let Some(spec) = &self.spec else { return bad.required(at, "must be given") };
        for (field, number) in [
            ("replicas", spec.replicas),
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
            ("progressDeadlineSeconds", spec.progress_deadline_seconds),
        ] {
            not_negative(number, at.field(field), bad);
        }
        if let Some(deadline) = spec.progress_deadline_seconds {
            let ready = spec.min_ready_seconds.unwrap_or(0);
            let message = format!("must be greater than minReadySeconds ({ready})");
            bad.unless(deadline > ready, at.field("progressDeadlineSeconds"), message);
        }
        selects(&spec.selector, Some(&spec.template), &at, bad);
        if let Some(strategy) = &spec.strategy {
            self::strategy(strategy, &at.field("strategy"), bad);
        }
    }

    fn validate_update(&self, old: &Self, bad: &mut Faults) {
        if let (Some(new), Some(old)) = (&self.spec, &old.spec)
            && new.selector != old.selector
        {
            meta::immutable(Path::root().field("spec").field("selector"), bad);
        }
    }
}

pub(super) fn not_negative(number: Option<i32>, at: Path, bad: &mut Faults) {
    if let Some(number) = number {
        bad.ranged(at, number.into(), 0..=i64::MAX);
    }
}

/// A selector, and a template whose pods it selects.
pub(super) fn selects(selector: &LabelSelector, template: Option<&PodTemplateSpec>, at: &Path, bad: &mut Faults) {
    let before = bad.0.len();
    meta::selector(selector, &at.field("selector"), bad);
    if *selector == LabelSelector::default() {
        bad.required(at.field("selector"), "must not be empty: it would select every pod");
    }
    let at = at.field("template");
    let Some(template) = template else { return bad.required(at, "must be given") };
    if let Some(metadata) = &template.metadata {
        meta::validate_labels(metadata, &at.field("metadata"), bad);
    }
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    if bad.0.len() == before && !Selector::from_struct(selector).is_ok_and(|s| s.matches(&labels)) {
        bad.push(at.field("metadata").field("labels"), Cause::Invalid, "must be such that spec.selector selects them");
    }
    match &template.spec {
        Some(spec) => validate_spec(spec, Owner::Template, &at.field("spec"), bad),
        None => bad.required(at.field("spec"), "must be given"),
    }
}

fn strategy(strategy: &DeploymentStrategy, at: &Path, bad: &mut Faults) {
    bad.one_of(at.field("type"), strategy.type_.as_deref(), &["Recreate", "RollingUpdate"]);
    let Some(RollingUpdateDeployment { max_surge, max_unavailable }) = &strategy.rolling_update else { return };
    let at = at.field("rollingUpdate");
    if strategy.type_.as_deref() == Some("Recreate") {
        return bad.forbidden(at, "must not be given with Recreate");
    }
    let surge = max_surge.as_ref().map(|v| share(v, at.field("maxSurge"), bad));
    let unavailable = max_unavailable.as_ref().map(|v| share(v, at.field("maxUnavailable"), bad));
    if let (Some(Some(0)), Some(Some(0))) = (surge, unavailable) {
        bad.push(at.field("maxUnavailable"), Cause::Invalid, "must not be 0 while maxSurge is 0: nothing could move");
    }
    if let (Some(IntOrString::String(text)), Some(Some(percent))) = (max_unavailable, unavailable) {
        bad.unless(percent <= 100, at.field("maxUnavailable"), format!("{text} must not be more than 100%"));
    }
}

/// A number of pods, or a percentage of them.
fn share(value: &IntOrString, at: Path, bad: &mut Faults) -> Option<i64> {
    let number = match value {
        IntOrString::Int(number) => Some(i64::from(*number)),
        IntOrString::String(text) => {
            text.strip_suffix('%').filter(|t| t.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse().ok())
        }
    };
    let number = number.filter(|n| *n >= 0);
    bad.unless(number.is_some(), at, "must be a number of pods, or a percentage such as 25%");
    number
}
