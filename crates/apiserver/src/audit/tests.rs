use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::*;

struct Request {
    identity: Identity,
    attributes: Attributes,
    uri: http::Uri,
    code: u16,
    decision: &'static str,
}

fn request(method: &str, uri: &str) -> Request {
    let uri: http::Uri = uri.parse().unwrap();
    let attributes = Attributes::of(&method.parse().unwrap(), &uri);
    let identity = Identity::system("admin", &["system:masters"]);
    Request { identity, attributes, uri, code: 201, decision: "system:masters: allowed" }
}

impl Request {
    fn record<'a>(&'a self, id: &'a str) -> Record<'a> {
        Record {
            id,
            stage: Stage::ResponseComplete,
            identity: &self.identity,
            impersonated: None,
            attributes: &self.attributes,
            uri: &self.uri,
            source: Some([127, 0, 0, 1].into()),
            user_agent: "kubectl/v1.36",
            code: StatusCode::from_u16(self.code).unwrap(),
            decision: self.decision,
            received: "2026-01-02T03:04:05.000006Z".parse().unwrap(),
            at: "2026-01-02T03:04:05.123456789Z".parse().unwrap(),
        }
    }
}

#[test]
fn a_line_is_an_event() {
    let request = request("POST", "/apis/apps/v1/namespaces/a/deployments?dryRun=All");
    let want = concat!(
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","#,
        r#""requestURI":"/apis/apps/v1/namespaces/a/deployments?dryRun=All","verb":"create","#,
        r#""user":{"username":"system:admin","groups":["system:masters","system:authenticated"]},"#,
        r#""sourceIPs":["127.0.0.1"],"userAgent":"kubectl/v1.36","#,
        r#""objectRef":{"resource":"deployments","namespace":"a","apiGroup":"apps","apiVersion":"v1"},"#,
        r#""responseStatus":{"metadata":{},"code":201},"#,
        r#""requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.123456Z","#,
        r#""annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"system:masters: allowed"}}"#,
        "\n"
    );
    assert_eq!(line::render(&request.record("1")), want);
}

#[test]
fn secrets_do_not_reach_it() {
    let exec =
        request("POST", "/api/v1/namespaces/a/pods/p/exec?command=mysql&command=-phunter2&tty=true&token=hunter2");
    let event: Value = serde_json::from_str(&line::render(&exec.record("1"))).unwrap();
    let want = "/api/v1/namespaces/a/pods/p/exec?command=mysql&command=REDACTED&tty=true&token=REDACTED";
    assert_eq!(event["requestURI"], want);
}

#[test]
fn a_refusal_is_told_from_an_admission_that_refuses() {
    let decision = |decision, code| {
        let request = Request { decision, code, ..request("GET", "/api/v1/pods") };
        let event: Value = serde_json::from_str(&line::render(&request.record("1"))).unwrap();
        event["annotations"]["authorization.k8s.io/decision"].as_str().unwrap().to_owned()
    };
    assert_eq!(decision("", 403), "forbid");
    assert_eq!(decision("", 401), "forbid");
    assert_eq!(decision("RBAC: allowed by …", 403), "allow", "admission refused");
}

#[test]
fn a_hostile_client_does_not_break_the_line() {
    let mut hostile = request("GET", "/api/v1/pods?x=%0A%22%7D&labelSelector=%0A%22%7D");
    hostile.attributes.name = "\n\"}".into();
    let long = "é".repeat(5000);
    let line = line::render(&Record { user_agent: &long, ..hostile.record("1") });
    assert_eq!(line.matches('\n').count(), 1);
    assert!(line.len() < 8192);
    serde_json::from_str::<Value>(&line).unwrap();
}

/// The whole lines of a file.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.split_inclusive('\n').filter(|l| l.ends_with('\n')).map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn all_that_waits_is_written_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let request = request("GET", "/version");
    for start in [0, 500] {
        let audit = Audit::open(&path, 1 << 30, 1).unwrap();
        (start..start + 500).for_each(|n| audit.record(&request.record(&n.to_string())));
    }
    let ids: Vec<_> = lines(&path).iter().map(|l| l["auditID"].as_str().unwrap().parse::<u32>().unwrap()).collect();
    assert_eq!(ids, (0..1000).collect::<Vec<_>>());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_grown_file_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let request = request("GET", "/version");
    for n in 0..8 {
        let audit = Audit::open(&path, 1000, 2).unwrap(); // one line is about 500 bytes
        audit.record(&request.record(&n.to_string()));
    }
    let ids = |name: &str| -> Vec<String> {
        lines(&dir.path().join(name)).iter().map(|l| l["auditID"].as_str().unwrap().to_owned()).collect()
    };
    let all = [ids("audit.log.2"), ids("audit.log.1"), ids("audit.log")].concat();
    assert_eq!(all.last().unwrap(), "7");
    assert!(all.len() < 8 && all.is_sorted());
    assert!(!dir.path().join("audit.log.3").exists());
}

#[test]
fn a_torn_line_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    std::fs::write(&path, "{\"kind\":\"Ev").unwrap();
    Audit::open(&path, 1 << 20, 1).unwrap().record(&request("GET", "/version").record("9"));
    let text = std::fs::read_to_string(&path).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["auditID"], "9");
}

#[test]
fn what_cannot_be_written_until_the_end_is_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let backlog = Backlog { waiting: 3.into(), lost: 3.into() };
    let write = |file: &Path, ids: &[&str]| {
        let (queue, lines) = sync_channel(8);
        ids.iter().for_each(|id| queue.send(line::render(&request("GET", "/version").record(id))).unwrap());
        drop(queue);
        let (_, end) = channel();
        file::write(Rotated::open(file, 1 << 20, 1).unwrap(), lines, &backlog, &end);
    };
    write(Path::new("/dev/full"), &["0", "1"]);
    assert_eq!(backlog.lost.load(Ordering::Relaxed), 5);
    write(&path, &["2"]);
    assert_eq!(lines(&path)[1]["annotations"]["rastos.io/lost-records"], "5");
    assert_eq!(backlog.waiting.load(Ordering::Relaxed), 0);
}

/// Waits until a log has so many lines.
async fn written(path: &Path, count: usize) -> Vec<Value> {
    let all = async {
        loop {
            let lines = lines(path);
            if lines.len() >= count {
                return lines;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("each request has its line")
}

#[tokio::test]
async fn a_server_writes_down_who_asked_for_what_and_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let fixture = crate::testing::Fixture::audited(Arc::new(Audit::open(&path, 1 << 30, 1).unwrap())).await;
    let before = written(&path, 2).await.len();
    let url = "/api/v1/namespaces/default/secrets";
    let get = || http::Request::get(url).header("authorization", "Bearer hunter2");
    let empty = axum::body::Body::empty;
    let mallory = fixture.server.local(Identity { user: "mallory".into(), ..Identity::default() });
    let refused = tower::ServiceExt::oneshot(mallory, get().body(empty()).unwrap()).await.unwrap();
    fixture.send(get().header("impersonate-user", "bob").body(empty()).unwrap()).await;
    let secret = serde_json::json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    fixture.post(url, secret).await.expect(201);
    drop(fixture.watch(&format!("{url}?watch=true")).await);

    let lines = &written(&path, before + 5).await[before..];
    let told = |line: &Value| {
        let (user, other) = (&line["user"]["username"], &line["impersonatedUser"]["username"]);
        let (code, decision) = (&line["responseStatus"]["code"], &line["annotations"]["authorization.k8s.io/decision"]);
        let words = [user, other, &line["verb"], code, decision, &line["stage"]];
        words.map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).join(" ")
    };
    assert_eq!(
        lines.iter().map(told).collect::<Vec<_>>(),
        [
            "mallory null list 403 forbid ResponseComplete",
            "system:admin bob list 200 allow ResponseComplete",
            "system:admin null create 201 allow ResponseComplete",
            "system:admin null watch 200 allow ResponseStarted",
            "system:admin null watch 200 allow ResponseComplete",
        ]
    );
    assert_eq!(refused.headers()["audit-id"], lines[0]["auditID"].as_str().unwrap());
    assert_eq!(lines[2]["userAgent"], "test/1");
    assert_eq!(lines[3]["auditID"], lines[4]["auditID"]);
    assert!(lines.iter().all(|line| line["objectRef"]["resource"] == "secrets"), "{lines:?}");
    assert!(!std::fs::read_to_string(&path).unwrap().contains("hunter2"), "no secret is in it");
}

/// A file system of one page beside the log's own, unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Some(c"size=64k");
        rustix::mount::mount("audit-test", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
        Self(dir)
    }

    /// Takes all the room there is.
    fn fill(&self) -> std::path::PathBuf {
        let ballast = self.0.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while std::io::Write::write(&mut file, &[0; 512]).is_ok() {}
        ballast
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn nothing_changes_unrecorded_on_a_full_disk() {
    const WAITING: usize = 40;
    let small = Small::new();
    let path = small.0.path().join("audit.log");
    let audit = Arc::new(Audit::buffered(&path, 1 << 30, 1, WAITING).unwrap());
    let fixture = crate::testing::Fixture::audited(audit).await;
    let ballast = small.fill();
    let url = "/api/v1/namespaces/default/configmaps";
    let create = |name: String| fixture.post(url, serde_json::json!({"metadata": {"name": name}}));
    let mut made = 0;
    let refused = loop {
        let answer = create(format!("map-{made}")).await;
        if answer.code != StatusCode::CREATED {
            break answer.expect(503);
        }
        made += 1;
        assert!(made < 500, "never refused");
    };
    assert!(refused["message"].as_str().unwrap().contains("audit log"), "{refused}");
    // Reads go on, even when no record finds room any more.
    for _ in 0..2 * WAITING {
        let list = fixture.get(url).await.expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), made, "what was refused was not done");
    }

    std::fs::remove_file(ballast).unwrap();
    let written = async {
        while create("after".into()).await.code != StatusCode::CREATED {
            tokio::task::yield_now().await;
        }
        let ours =
            |line: &&Value| line["objectRef"]["resource"] == "configmaps" && line["responseStatus"]["code"] == 201;
        while lines(&path).iter().filter(ours).count() <= made {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, written).await.expect("each change has its record, in the end");
    assert!(
        lines(&path).iter().any(|line| !line["annotations"]["rastos.io/lost-records"].is_null()),
        "reads were lost"
    );
}
