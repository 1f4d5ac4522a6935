use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MAGIC, Shape, Type, decode, schema};

/// Bodies as kubectl 1.36 sent them, each with the JSON that it prints for the same command. The last one
/// has every field of a JobSpec set, and so of a PodTemplateSpec.
const KUBECTL: &str = include_str!("fixtures/kubectl-1.36.txt");

/// Without what JSON may leave out or not: nulls and empty objects.
fn bare(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(k, v)| (k, bare(v)));
            Value::Object(fields.filter(|(_, v)| !v.is_null() && *v != json!({})).collect())
        }
        Value::Array(items) => items.into_iter().map(bare).collect(),
        other => other,
    }
}

#[test]
fn decodes_what_kubectl_sends() {
    for line in KUBECTL.lines() {
        let (body, want) = line.split_once(' ').unwrap();
        let got = decode(&BASE64_STANDARD.decode(body).unwrap()).unwrap();
        let want: Value = serde_json::from_str(want).unwrap();
        assert_eq!(bare(got), bare(want));
    }
}

/// The names in the table are those of the OpenAPI schema, and none is missing.
#[test]
fn names_every_field_of_the_schema() {
    use k8s_openapi::{
        api,
        schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings},
    };
    fn check<T: JsonSchema>(root: &str) {
        let mut generator = SchemaGenerator::new(SchemaSettings::draft07());
        let schema = generator.root_schema_for::<T>().to_value();
        compare(&schema, &schema["definitions"], root);
    }
    check::<api::core::v1::Pod>("core.v1.Pod");
    check::<api::core::v1::Node>("core.v1.Node");
    check::<api::core::v1::Service>("core.v1.Service");
    check::<api::core::v1::Secret>("core.v1.Secret");
    check::<api::core::v1::ConfigMap>("core.v1.ConfigMap");
    check::<api::core::v1::Event>("core.v1.Event");
    check::<api::core::v1::Namespace>("core.v1.Namespace");
    check::<api::core::v1::ServiceAccount>("core.v1.ServiceAccount");
    check::<api::core::v1::PersistentVolume>("core.v1.PersistentVolume");
    check::<api::core::v1::PersistentVolumeClaim>("core.v1.PersistentVolumeClaim");
    check::<api::core::v1::Binding>("core.v1.Binding");
    check::<api::coordination::v1::Lease>("coordination.v1.Lease");
    check::<api::apps::v1::Deployment>("apps.v1.Deployment");
    check::<api::apps::v1::ReplicaSet>("apps.v1.ReplicaSet");
    check::<api::apps::v1::StatefulSet>("apps.v1.StatefulSet");
    check::<api::apps::v1::DaemonSet>("apps.v1.DaemonSet");
    check::<api::batch::v1::CronJob>("batch.v1.CronJob");
    check::<api::autoscaling::v1::Scale>("autoscaling.v1.Scale");
    check::<api::autoscaling::v2::HorizontalPodAutoscaler>("autoscaling.v2.HorizontalPodAutoscaler");
    check::<api::policy::v1::Eviction>("policy.v1.Eviction");
    check::<api::policy::v1::PodDisruptionBudget>("policy.v1.PodDisruptionBudget");
    check::<api::networking::v1::NetworkPolicy>("networking.v1.NetworkPolicy");
    check::<api::networking::v1::Ingress>("networking.v1.Ingress");
    check::<api::discovery::v1::EndpointSlice>("discovery.v1.EndpointSlice");
    check::<api::rbac::v1::ClusterRole>("rbac.v1.ClusterRole");
    check::<api::rbac::v1::RoleBinding>("rbac.v1.RoleBinding");
    check::<api::authorization::v1::SelfSubjectAccessReview>("authorization.v1.SelfSubjectAccessReview");
    check::<api::authorization::v1::SubjectAccessReview>("authorization.v1.SubjectAccessReview");
    check::<api::authorization::v1::SelfSubjectRulesReview>("authorization.v1.SelfSubjectRulesReview");
    check::<api::authentication::v1::TokenRequest>("authentication.v1.TokenRequest");
    check::<api::authentication::v1::TokenReview>("authentication.v1.TokenReview");
    check::<api::authentication::v1::SelfSubjectReview>("authentication.v1.SelfSubjectReview");
    check::<k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions>("meta.v1.DeleteOptions");
}

/// The JSON names of a message's fields, inlined ones among them, with their messages.
fn names(message: &str) -> Vec<(&'static str, Type)> {
    let fields = schema::message(message).map(|m| m.fields.as_slice()).unwrap_or_default();
    let inlined = |ty: Type| if let Type::Message(name) = ty { names(name) } else { vec![] };
    let named = |f: &schema::Field| if f.shape == Shape::Inline { inlined(f.ty) } else { vec![(f.name, f.ty)] };
    fields.iter().flat_map(named).collect()
}

fn compare(schema: &Value, definitions: &Value, message: &str) {
    let known = names(message);
    let Some(properties) = schema["properties"].as_object() else { return };
    for (property, schema) in properties {
        if ["apiVersion", "kind"].contains(&property.as_str()) && !known.iter().any(|(n, _)| n == property) {
            continue;
        }
        let (_, ty) = known
            .iter()
            .find(|(name, _)| name == property)
            .unwrap_or_else(|| panic!("{message} has no field {property}"));
        let inner = [schema, &schema["items"], &schema["additionalProperties"], &schema["allOf"][0]];
        let reference = inner.iter().find_map(|s| s["$ref"].as_str()).and_then(|r| r.strip_prefix("#/definitions/"));
        if let (Type::Message(name), Some(definition)) = (ty, reference) {
            compare(&definitions[definition], definitions, name);
        }
    }
    for (name, _) in &known {
        assert!(properties.contains_key(*name), "{message}.{name} is not in the schema");
    }
}

#[test]
fn every_message_of_the_table_exists() {
    for name in schema::names() {
        let message = schema::message(name).unwrap();
        assert!(!message.fields.is_empty(), "{name} has no fields");
        assert!(message.fields.windows(2).all(|w| w[0].number < w[1].number), "{name} repeats a number");
    }
}

/// An envelope around `raw`.
fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length > 0x7f {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend(bytes);
        out
    }
    let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
}

#[test]
fn refuses_what_it_cannot_read() {
    let message = |body: &[u8]| decode(body).unwrap_err().message;
    assert!(message(b"{}").contains("k8s"));
    assert!(message(&envelope("v1", "Unheard", b"")).contains("no message for kind \"Unheard\""));
    assert!(message(&envelope("v1", "Pod", &[0x0a, 0xff])).contains("middle of a field"));
    assert!(message(&envelope("v1", "Pod", &[0x08, 1])).contains("wire type"));
}

#[test]
fn unset_and_zero_differ() {
    // replicas is a pointer: its zero was set. minReadySeconds is not: its zero is the same as nothing.
    let zeroes = decode(&envelope("apps/v1", "Deployment", &[0x12, 4, 0x08, 0, 0x28, 0])).unwrap();
    assert_eq!(zeroes["spec"], json!({"replicas": 0}));
}

#[test]
fn delete_options_come_under_any_group() {
    let body = envelope("apps/v1", "DeleteOptions", &[0x08, 0]);
    assert_eq!(decode(&body).unwrap()["gracePeriodSeconds"], json!(0));
}

#[test]
fn depth_is_bounded() {
    // A JSONSchemaProps-like chain does not exist among our messages; envelopes in envelopes do.
    let mut body = envelope("v1", "Pod", b"");
    for _ in 0..100 {
        let raw = [&[0x0a_u8][..], &varint(body.len()), &body].concat();
        body = envelope("apps/v1", "ControllerRevision", &[&[0x12_u8][..], &varint(raw.len()), &raw].concat());
    }
    assert!(decode(&body).unwrap_err().message.contains("too deep"));
}

fn varint(mut n: usize) -> Vec<u8> {
    let mut out = vec![];
    while n > 0x7f {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

proptest! {
    #[test]
    fn never_panics(raw in proptest::collection::vec(any::<u8>(), 0..200), kind in "Pod|Deployment|Event|Lease") {
        let version = match kind.as_str() { "Deployment" => "apps/v1", "Lease" => "coordination.k8s.io/v1", _ => "v1" };
        let _ = decode(&envelope(version, &kind, &raw));
        let _ = decode(&raw);
    }

    #[test]
    fn never_panics_on_broken_bodies(line in 0usize..22, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let line = KUBECTL.lines().nth(line).unwrap();
        let mut body = BASE64_STANDARD.decode(line.split_once(' ').unwrap().0).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = decode(&body);
        let _ = decode(&body[..at]);
    }
}
