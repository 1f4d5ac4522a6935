//! Durable creates of 1 KiB objects through the API.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::PostParams};
use serde_json::json;
use tests::Instance;

use crate::{cluster, figure::Row};

/// Creates a second of the reference at 16 clients: the middle of what was measured, 600 to 922.
const REFERENCE: f64 = 761.0;
const TIME: Duration = Duration::from_secs(8);

pub async fn measure() -> Result<Vec<Row>> {
    let instance = tokio::task::block_in_place(Instance::up);
    let client = cluster::client(&instance).await?;
    let mut rows = Vec::new();
    for clients in [1, 16, 64] {
        let rate = created(&Api::default_namespaced(client.clone()), clients).await?;
        let (figure, value) = (format!("creates: 1 KiB ConfigMaps, {clients} clients"), format!("{rate:.0}/s"));
        rows.push(if clients == 16 {
            let value = format!("{value}, {:.1}x", rate / REFERENCE);
            Row::judged(&figure, ">= 3x", rate >= 3.0 * REFERENCE, value, format!("reference {REFERENCE}/s"))
        } else {
            Row::told(&figure, value, String::new())
        });
    }
    Ok(rows)
}

async fn created(maps: &Api<ConfigMap>, clients: usize) -> Result<f64> {
    let began = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let maps = maps.clone();
            tokio::spawn(async move {
                let mut n = 0;
                while began.elapsed() < TIME {
                    let name = format!("creates-{clients}-{client}-{n}");
                    let map = json!({"metadata": {"name": name}, "data": {"key": "v".repeat(1024)}});
                    maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
                    n += 1;
                }
                anyhow::Ok(n)
            })
        })
        .collect();
    let mut all = 0;
    for task in tasks {
        all += task.await??;
    }
    Ok(f64::from(all) / began.elapsed().as_secs_f64())
}
