//! A container's image: here already, or pulled with the pod's credentials.

use std::time::Duration;

use images::{Credentials, Keyring, Progress, Reference};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::Api;
use tokio::sync::watch;

use crate::{
    act::chain,
    agent::Agent,
    decide, events,
    observe::{Failure, ImageId, Outcome},
    pod, spec,
};

/// How often it is told how far a pull is.
const TELL: Duration = Duration::from_secs(2);

impl Agent {
    pub(crate) async fn pull(&self, want: &Pod, name: &str) -> Result<ImageId, Failure> {
        let Some((_, c)) = pod::container(want, name) else {
            return Err(failure("InvalidImageName", format!("no container {name}")));
        };
        let (image, about) = (c.image.clone().unwrap_or_default(), events::about(want, Some(name)));
        let told = |f: Failure| {
            self.0.events.warning(about.clone(), "Failed", f.message.clone());
            self.0.events.warning(about.clone(), "Failed", format!("Error: {}", f.reason));
            f
        };
        let reference: Reference = image.parse().map_err(|e| {
            told(failure("InvalidImageName", format!("Failed to apply default image tag \"{image}\": {}", chain(e))))
        })?;
        let here = self.0.images.get(&image).await.map_err(|e| told(failure("ErrImagePull", chain(e))))?;
        let policy = c.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        match here {
            Some(here) if policy != "Always" => {
                let text = format!("Container image \"{image}\" already present on machine");
                self.0.events.normal(about, "Pulled", text);
                return Ok(ImageId { name: image, id: spec::image_id(&here) });
            }
            None if policy == "Never" => {
                let text = format!("Container image \"{image}\" is not present with pull policy of Never");
                return Err(told(failure("ErrImageNeverPull", text)));
            }
            _ => {}
        }
        self.0.events.normal(about.clone(), "Pulling", format!("Pulling image \"{image}\""));
        let keys = self.credentials(want, &reference).await;
        let (progress, _) = watch::channel(Progress::default());
        let start = std::time::Instant::now();
        let pull = async {
            let mut denied = Err(images::Error::Denied { reference: image.clone(), registry_said: String::new() });
            for key in &keys {
                let pulled = self.0.images.pull(&reference, key, &progress).await;
                if !matches!(pulled, Err(images::Error::Denied { .. })) {
                    return pulled;
                }
                denied = pulled;
            }
            denied
        };
        let pulled = tokio::select! {
            pulled = pull => pulled,
            () = self.tell(pod::uid(want), name, &image, progress.subscribe()) => {
                return Err(failure("ErrImagePull", "the pod does not need it any more".into()));
            }
        };
        match pulled {
            Ok(got) => {
                let text = format!(
                    "Successfully pulled image \"{image}\" in {}ms. Image size: {} bytes.",
                    start.elapsed().as_millis(),
                    got.size
                );
                self.0.events.normal(about, "Pulled", text);
                Ok(ImageId { name: image, id: spec::image_id(&got) })
            }
            Err(e) => {
                let p = *progress.borrow();
                let far = match p.done {
                    0 => String::new(),
                    done => format!(" (after {done} of {} bytes, {} of {} layers)", p.total, p.ready, p.layers),
                };
                Err(told(failure("ErrImagePull", format!("Failed to pull image \"{image}\": {}{far}", chain(e)))))
            }
        }
    }

    /// Tells now and then how far a pull is that takes its time, and ends when the pod shall not run any more.
    async fn tell(&self, uid: &str, name: &str, image: &str, mut far: watch::Receiver<Progress>) {
        loop {
            tokio::time::sleep(TELL).await;
            let over = self.with(uid, |entry| decide::over(&entry.want, &entry.seen, Timestamp::now()).is_some());
            if over != Some(false) {
                return;
            }
            let p = *far.borrow_and_update();
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let text = format!(
                "Pulling image \"{image}\": {:.1} of {:.1} MiB fetched, {} of {} layers unpacked",
                mib(p.done),
                mib(p.total),
                p.ready,
                p.layers
            );
            self.learn(uid, Outcome::Pulling(name.into(), text));
        }
    }

    /// The pod's imagePullSecrets, then its service account's. A secret that is missing or broken is told and passed over.
    async fn credentials(&self, want: &Pod, reference: &Reference) -> Vec<Credentials> {
        let (namespace, spec) = (pod::namespace(want), pod::spec(want));
        let mut names: Vec<String> = spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()).collect();
        if names.is_empty() {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.0.client.clone(), namespace);
            let account = spec.service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
            if let Ok(Some(account)) = accounts.get_opt(account).await {
                names.extend(account.image_pull_secrets.into_iter().flatten().map(|s| s.name));
            }
        }
        let secrets: Api<Secret> = Api::namespaced(self.0.client.clone(), namespace);
        let mut ring = Keyring::default();
        for name in names {
            let found = secrets.get_opt(&name).await.ok().flatten().and_then(|s| s.data);
            let file = found.as_ref().and_then(|d| d.get(".dockerconfigjson").or_else(|| d.get(".dockercfg")));
            match file.map(|f| Keyring::parse(&f.0)) {
                Some(Ok(more)) => ring.extend(more),
                Some(Err(e)) => self.unusable(want, &name, &e.to_string()),
                None => self.unusable(want, &name, "it does not exist or holds no Docker configuration"),
            }
        }
        ring.matching(reference)
    }

    fn unusable(&self, want: &Pod, secret: &str, why: &str) {
        let text = format!("Unable to use image pull secret {secret}: {why}; pulling without it");
        self.0.events.warning(events::about(want, None), "FailedToRetrieveImagePullSecret", text);
    }
}

fn failure(reason: &'static str, message: String) -> Failure {
    Failure { reason, message }
}
