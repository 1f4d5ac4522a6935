//! Learning whom to trust, and being trusted: from a machine's first word to a kubeconfig.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use apiserver::pki::Validity;
use cloud::{
    Session,
    enrol::{self, Admission, EnrolError},
    nova,
    up::Ready,
};
use jiff::Timestamp;

use super::keep::{self, Keep};
use crate::{
    cli::Context,
    exit::{Exit, Failure},
    output,
};

const POLL: Duration = Duration::from_secs(2);
const LINES: u32 = 200;
/// How many of the console's last lines a time-out shows.
const LAST: usize = 12;

/// A certificate that holds and is due is renewed if the machine answers within this time.
const RENEWAL: Duration = Duration::from_secs(30);

/// What to do about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing: it is good for a while.
    Nothing,
    /// Another, if it can be had now.
    Renewal,
    /// Another, at any rate.
    Another,
}

fn need(kept: Option<&Admission>, now: Timestamp) -> Need {
    match kept.and_then(|admission| Validity::of(&admission.certificate)) {
        Some(validity) if !validity.is_due(now) => Need::Nothing,
        Some(validity) if validity.holds(now) => Need::Renewal,
        _ => Need::Another,
    }
}

/// Gets a certificate of the cluster, unless there is one that is good for a while, and writes the kubeconfig; its
/// path. The authority that gave one before is the only one that may renew it.
pub async fn kubeconfig(
    context: &Context,
    session: &Session,
    ready: &Ready,
    given: Option<&str>,
    limit: Duration,
) -> Result<PathBuf> {
    let path = keep::kubeconfig_path(context, &ready.mark.name)?;
    let keep = Keep::of(&ready.mark)?;
    let kept = keep.admission()?;
    let authority = kept.as_ref().and_then(Admission::authority);
    let given = given.or(authority.as_deref());
    let get = async |limit| -> Result<Admission> {
        let admission = admitted(session, ready, &keep, given, Instant::now() + limit).await?;
        keep.admit(&admission)?;
        Ok(admission)
    };
    let admission = match (need(kept.as_ref(), Timestamp::now()), kept) {
        (Need::Nothing, Some(admission)) => admission,
        (Need::Renewal, Some(admission)) => get(limit.min(RENEWAL)).await.unwrap_or_else(|error| {
            output::note(format!("the certificate for {} ends soon and is not renewed: {error:#}", ready.mark.name));
            admission
        }),
        _ => get(limit).await?,
    };
    keep.kubeconfig(&path, &ready.address, &admission)?;
    Ok(path)
}

async fn admitted(
    session: &Session,
    ready: &Ready,
    keep: &Keep,
    given: Option<&str>,
    end: Instant,
) -> Result<Admission> {
    let key = keep.key()?;
    nova::admit(session, &ready.server, &key.hash()).await?;
    let fingerprint = match given {
        Some(text) => enrol::fingerprint(text)
            .ok_or_else(|| Failure::new(Exit::Usage, "--ca-fingerprint is 64 hexadecimal digits (SHA-256)"))?,
        None => fingerprint(session, &ready.server, end).await?,
    };
    let address: IpAddr = ready
        .address
        .parse()
        .map_err(|_| Failure::new(Exit::Failed, format!("the floating IP {:?} is no address", ready.address)))?;
    loop {
        match enrol::ask(&ready.mark.name, address, &fingerprint, &key).await {
            Ok(admission) => return Ok(admission),
            Err(error) if error.passes() && Instant::now() < end => {
                tokio::time::sleep(POLL).await;
                // Two who are admitted at once may overwrite each other's word.
                if matches!(error, EnrolError::Denied { .. }) {
                    nova::admit(session, &ready.server, &key.hash()).await?;
                }
            }
            Err(error) if error.passes() => return Err(late(session, ready, &error.to_string()).await),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The authority's fingerprint by Nova's password slot, or by the console.
async fn fingerprint(session: &Session, server: &str, end: Instant) -> Result<String> {
    loop {
        if let Some(found) = enrol::in_slot(&allowed(nova::password(session, server).await)?) {
            return Ok(found);
        }
        let console = allowed(nova::console(session, server, LINES).await)?;
        if let Some(found) = enrol::on_console(&console) {
            return Ok(found);
        }
        if Instant::now() >= end {
            let message = format!(
                "the machine has not said its authority's fingerprint, neither in Nova's password slot nor on its \
                 console; rast trusts nobody on first use: read it there and give --ca-fingerprint\n{}",
                last_lines(&console)
            );
            return Err(Failure::new(Exit::TimedOut, message).into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Some clouds keep one of the two ways to themselves: then the other may do.
fn allowed(said: Result<String, cloud::Error>) -> Result<String, cloud::Error> {
    said.or_else(|error| if error.status() == Some(403) { Ok(String::new()) } else { Err(error) })
}

async fn late(session: &Session, ready: &Ready, why: &str) -> anyhow::Error {
    let console = nova::console(session, &ready.server, LINES).await.unwrap_or_default();
    Failure::new(Exit::TimedOut, format!("{why}; the machine's console says\n{}", last_lines(&console))).into()
}

fn last_lines(console: &str) -> String {
    let last = cloud::last_lines(console, LAST);
    last.iter().map(|l| format!("  console | {l}")).collect::<Vec<_>>().join("\n")
}

/// The context of a cluster's API.
pub fn at(context: &Context, kubeconfig: &Path) -> Context {
    Context {
        host: context.host.clone(),
        kubeconfig: Some(kubeconfig.to_owned()),
        namespace: context.namespace.clone(),
    }
}

#[cfg(test)]
mod tests {
    use apiserver::pki::Pki;
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_certificate_is_renewed_before_its_end_and_got_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let pki = Pki::open(dir.path(), now).unwrap();
        let certificate = pki.client("enrolled:ab", None, now).unwrap().cert;
        let admission = Admission { certificate, ca: pki.ca().to_owned() };
        let later = |days: i64| need(Some(&admission), now + SignedDuration::from_hours(24 * days));
        assert_eq!(
            [later(0), later(200), later(300), later(366)],
            [Need::Nothing, Need::Nothing, Need::Renewal, Need::Another]
        );
        assert_eq!(need(None, now), Need::Another);
        let broken = Admission { certificate: "x".into(), ..admission.clone() };
        assert_eq!(need(Some(&broken), now), Need::Another);
    }
}
