use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;

use super::*;
use crate::testing::Fixture;

async fn get(f: &Fixture, uri: &str, headers: &[(header::HeaderName, &str)]) -> (http::response::Parts, Vec<u8>) {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let (parts, body) = f.send(request.body(Body::empty()).unwrap()).await.into_parts();
    (parts, body.collect().await.unwrap().to_bytes().to_vec())
}

async fn json(f: &Fixture, uri: &str) -> Value {
    serde_json::from_slice(&get(f, uri, &[]).await.1).unwrap()
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|field| references(field, found));
        }
        _ => {}
    }
}

#[tokio::test]
async fn every_document_is_whole() {
    let f = Fixture::new().await;
    let index = json(&f, "/openapi/v3").await;
    let urls = index["paths"].as_object().unwrap();
    assert!(urls.contains_key("api/v1") && urls.contains_key("apis/apps/v1"));
    let mut ids = std::collections::BTreeSet::new();
    for url in urls.values() {
        let document = json(&f, url["serverRelativeURL"].as_str().unwrap()).await;
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{reference}");
        }
        for operation in
            document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
        {
            if let Some(id) = operation["operationId"].as_str() {
                assert!(ids.insert(id.to_owned()), "{id} twice");
            }
        }
    }
    let v2 = json(&f, "/openapi/v2").await;
    let mut found = Vec::new();
    references(&v2, &mut found);
    for reference in found {
        let name = reference.strip_prefix("#/definitions/").unwrap();
        assert!(v2["definitions"][name].is_object(), "{reference}");
    }
}

#[tokio::test]
async fn clients_find_what_they_look_for() {
    let f = Fixture::new().await;
    let document = json(&f, "/openapi/v3/apis/apps/v1").await;
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let named =
        |name: &str| patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == name && p["in"] == "query");
    assert!(named("fieldValidation") && named("dryRun") && named("fieldManager") && named("force"));
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let about = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], about);
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let f = Fixture::new().await;
    let index = json(&f, "/openapi/v3").await;
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
    let (parts, plain) = get(&f, url, &[]).await;
    assert_eq!(parts.headers[header::CACHE_CONTROL], "public, immutable, max-age=31536000");
    let tag = parts.headers[header::ETAG].to_str().unwrap();
    let (parts, body) = get(&f, url, &[(header::IF_NONE_MATCH, tag)]).await;
    assert_eq!((parts.status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    let (parts, packed) = get(&f, url, &[(header::ACCEPT_ENCODING, "gzip")]).await;
    assert_eq!(parts.headers[header::CONTENT_ENCODING], "gzip");
    let mut unpacked = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == plain && packed.len() * 4 < plain.len());
    let (parts, _) = get(&f, "/openapi/v3/api/v1?hash=old", &[]).await;
    assert_eq!(parts.headers[header::CACHE_CONTROL], "no-cache, private");
    assert_eq!(get(&f, "/openapi/v3/apis/no/v1", &[]).await.0.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn older_clients_get_protobuf() {
    let f = Fixture::new().await;
    for media in ASKED {
        let (parts, body) = get(&f, "/openapi/v2", &[(header::ACCEPT, media)]).await;
        assert_eq!(parts.headers[header::CONTENT_TYPE], PROTOBUF);
        assert!(body.starts_with(b"\x0a\x032.0"), "swagger = 1");
    }
}
