//! What a pod may ask of the host is a right of its namespace, not of who created it: a controller did.

use api::security::{self, ENFORCE, Level};
use k8s_openapi::{
    api::core::v1::{PodSpec, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

use super::{Admission, Request};
use crate::Result;

/// Refuses a pod that asks for more than its namespace's level grants.
pub(super) async fn enforce(ctx: &Admission, req: &Request<'_>, pod: &Value) -> Result<()> {
    if req.old.is_some_and(|old| old["spec"] == pod["spec"]) {
        return Ok(());
    }
    let level = Granted::of(ctx, req.namespace).await?;
    // What cannot be read is refused by validation, in better words.
    let Ok(spec) = serde_json::from_value::<PodSpec>(pod["spec"].clone()) else { return Ok(()) };
    let metadata: ObjectMeta = serde_json::from_value(pod["metadata"].clone()).unwrap_or_default();
    match level.violations(&spec, &metadata, "") {
        None => Ok(()),
        Some(what) => Err(req.refuse(&what)),
    }
}

/// Warns about a template whose pods would be refused.
pub(super) async fn warn(ctx: &Admission, req: &Request<'_>, object: &Value) -> Result<()> {
    let (at, template) = match &*req.kind.kind {
        "CronJob" => ("spec.jobTemplate.spec.template.", &object["spec"]["jobTemplate"]["spec"]["template"]),
        _ => ("spec.template.", &object["spec"]["template"]),
    };
    if template.is_null() || req.old.is_some_and(|old| old["spec"] == object["spec"]) {
        return Ok(());
    }
    let Ok(template) = serde_json::from_value::<PodTemplateSpec>(template.clone()) else { return Ok(()) };
    let (spec, metadata) = (template.spec.unwrap_or_default(), template.metadata.unwrap_or_default());
    if let Some(what) = Granted::of(ctx, req.namespace).await?.violations(&spec, &metadata, at) {
        req.warnings.push(format!("its pods will be refused: {what}"));
    }
    Ok(())
}

/// What a namespace's pods may ask for.
struct Granted {
    namespace: String,
    level: Level,
}

impl Granted {
    async fn of(ctx: &Admission, namespace: &str) -> Result<Self> {
        let stored = ctx.stored(&format!("/registry/core/namespaces/{namespace}")).await?.unwrap_or_default();
        let level = match stored["metadata"]["labels"][ENFORCE].as_str() {
            None => Level::default(),
            // A label that says nothing grants the least.
            Some(label) => Level::parse(label).unwrap_or(Level::Restricted),
        };
        Ok(Self { namespace: namespace.to_owned(), level })
    }

    /// What a pod asks for beyond it, in one sentence; paths begin with `at`.
    fn violations(&self, spec: &PodSpec, metadata: &ObjectMeta, at: &str) -> Option<String> {
        let mut found = Vec::new();
        for violation in security::check(self.level, spec, metadata) {
            found.push(format!("{at}{}: {} ({})", violation.path, violation.message, violation.control));
        }
        if let Some(ephemeral) = ephemeral(spec) {
            for violation in security::check(self.level, &ephemeral, &ObjectMeta::default()) {
                let path = violation.path.to_string().replace("spec.containers", "spec.ephemeralContainers");
                found.push(format!("{at}{path}: {} ({})", violation.message, violation.control));
            }
        }
        if found.is_empty() {
            return None;
        }
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
            Level::Default => "baseline with host ports",
        };
        Some(format!(
            "violates PodSecurity {level:?} of namespace {:?}: {}; change the pod, or let a cluster-admin label the namespace {ENFORCE}",
            self.namespace,
            found.join("; ")
        ))
    }
}

/// A pod whose containers are the ephemeral ones of `spec`, which have all fields of others; `None` without any.
fn ephemeral(spec: &PodSpec) -> Option<PodSpec> {
    let containers = spec.ephemeral_containers.as_ref().filter(|all| !all.is_empty())?;
    let containers = serde_json::from_value(serde_json::to_value(containers).ok()?).ok()?;
    Some(PodSpec { containers, security_context: spec.security_context.clone(), ..PodSpec::default() })
}
