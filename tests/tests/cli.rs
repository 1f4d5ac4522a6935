//! Our own command line, verb by verb, and the exit codes that scripts rely on.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value, json};
use tests::{Client, Instance, eventually, pods::web, registry};

fn file(instance: &Instance, name: &str, text: &str) -> PathBuf {
    let path = instance.root().join(name);
    fs::write(&path, text).expect("a file");
    path
}

/// An image of one program as `docker save` writes it.
fn archive(dir: &Path) -> PathBuf {
    let script = "mkdir image; cd image; tar -cf layer.tar -C /usr/bin busybox; id=$(sha256sum layer.tar | cut -d' ' -f1); \
        echo '{\"architecture\": \"'$ARCH'\", \"os\": \"linux\", \"config\": {}, \"rootfs\": {\"type\": \"layers\", \
        \"diff_ids\": [\"sha256:'$id'\"]}}' > config.json; echo '[{\"Config\": \"config.json\", \"RepoTags\": [\"loaded:1\"], \
        \"Layers\": [\"layer.tar\"]}]' > manifest.json; tar -cf ../image.tar *";
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let done = Command::new("sh").args(["-euc", script]).env("ARCH", arch).current_dir(dir).status().expect("a shell");
    assert!(done.success(), "{done}");
    dir.join("image.tar")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[track_caller]
fn applied(rast: &Client, text: String) -> String {
    rast.clone().input(text).ok(&["apply", "-f", "-"])
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn objects_are_planned_applied_shown_rolled_out_and_deleted() {
    let instance = Instance::up();
    let rast = instance.rast();
    let plan = |text: String| rast.clone().input(text).run(&["plan", "-f", "-"]);

    assert_eq!(plan(web(2, "one")).out, "+ deployment.apps/web would be created\n");
    assert_eq!(rast.run(&["get", "deployment/web"]).code, 4, "a plan changes nothing");
    assert_eq!(applied(&rast, web(2, "one")), "deployment.apps/web created\n");
    assert_eq!(rast.ok(&["rollout", "status", "deployment/web", "--timeout", "60"]).lines().count(), 1);
    assert_eq!(applied(&rast, web(2, "one")), "deployment.apps/web unchanged\n");
    assert_eq!(plan(web(2, "one")).out, "= deployment.apps/web is as wanted\n");
    let more = plan(web(3, "one"));
    assert_eq!((more.code, more.out.lines().nth(1)), (0, Some("    ~ spec.replicas: 2 -> 3")), "{}", more.out);
    let huge = plan(web(3, "one").replace("8Mi", "100Ti"));
    assert_eq!(huge.code, 3, "{}", huge.out);
    has(&huge.out, &["! deployment.apps/web: 1 of 3 pods would not fit: 1 Insufficient memory"]);
    let map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: red}\n";
    let tried = rast.clone().input(map).ok(&["apply", "--dry-run", "-f", "-"]);
    assert_eq!(tried, "configmap/settings created\n");
    assert_eq!(rast.run(&["get", "configmap/settings"]).code, 4, "a dry run changes nothing");
    let tenant = "apiVersion: v1\nkind: Namespace\nmetadata: {name: tenant}\n".to_owned();
    let inside = map.replace("settings", "settings, namespace: tenant");
    let planned = plan(tenant + &inside).out;
    has(&planned, &["+ namespace/tenant would", "+ configmap/settings would be created, in the new namespace tenant"]);
    assert_eq!(rast.run(&["get", "namespace/tenant"]).code, 4);
    assert_eq!(applied(&rast, web(2, "two") + map), "deployment.apps/web configured\nconfigmap/settings created\n");
    rast.ok(&["rollout", "status", "deployment/web", "--timeout", "60"]);

    let get = |args: &[&str]| rast.ok(&[&["get"], args].concat());
    assert!(get(&["deployments"]).starts_with("NAME   READY   UP-TO-DATE   AVAILABLE   AGE\nweb    2/2 "));
    assert!(!get(&["pods"]).contains("NODE") && get(&["pods", "-o", "wide"]).contains("NODE"));
    has(&get(&["pods", "-A"]), &["NAMESPACE", "default"]);
    assert_eq!(get(&["deployment/web", "-o", "name"]), "deployment.apps/web\n");
    assert_eq!(get(&["pods", "-l", "app=web", "-o", "name"]).lines().count(), 2);
    assert_eq!(get(&["pods", "-l", "app=other", "-o", "name"]), "");
    let json: Value = serde_json::from_str(&get(&["deployment/web", "-o", "json"])).expect("JSON");
    assert_eq!(json["spec"]["replicas"], 2);
    let list: Value = serde_json::from_str(&get(&["pods", "-o", "json"])).expect("JSON");
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&"List".into(), Some(2)));
    has(&get(&["configmap/settings", "-o", "yaml"]), &["kind: ConfigMap\n", "colour: red\n"]);
    eventually("the deployment's events", || {
        let told = rast.ok(&["describe", "deployment/web"]);
        let all = ["replicas: 2", "ScalingReplicaSet", "Scaled up replica set web-"].iter().all(|p| told.contains(p));
        if all { Ok(()) } else { Err(told) }
    });

    has(&rast.ok(&["rollout", "history", "deployment/web"]), &["REVISION", "\n1 ", "\n2 "]);
    has(&rast.ok(&["rollout", "undo", "deployment/web"]), &["rolled back to revision 1"]);
    rast.ok(&["rollout", "status", "deployment/web", "--timeout", "60"]);
    has(&get(&["deployment/web", "-o", "json"]), &["echo one"]);
    let spec = |part: &str| instance.get("deployment/web").pointer(part).cloned().unwrap_or_default();
    rast.ok(&["rollout", "pause", "deployment/web"]);
    assert_eq!(spec("/spec/paused"), true);
    rast.ok(&["rollout", "resume", "deployment/web"]);
    assert_ne!(spec("/spec/paused"), true);
    rast.ok(&["rollout", "restart", "deployment/web"]);
    assert!(spec("/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt").is_string());
    rast.ok(&["rollout", "status", "deployment/web", "--timeout", "60"]);
    assert_eq!(rast.ok(&["scale", "deployment/web", "--replicas", "1"]), "deployment.apps/web scaled\n");
    rast.ok(&["wait", "--for", "condition=Available", "deployment/web", "--timeout", "60"]);
    rast.ok(&["rollout", "status", "deployment/web", "--timeout", "60"]);
    has(&rast.ok(&["logs", "deployment/web"]), &["one"]);
    assert_eq!(rast.ok(&["exec", "deployment/web", "--", "echo", "hello"]), "hello\n");

    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: login}\nstringData: {password: hunter2}\n";
    applied(&rast, secret.into());
    let shown = rast.ok(&["describe", "secret/login"]);
    assert!(shown.contains("password: 7 bytes") && !shown.contains("aHVudGVyMg"), "{shown}");

    let removed = rast.clone().input(web(1, "one") + map).ok(&["delete", "-f", "-"]);
    assert_eq!(removed, "deployment.apps/web deleted\nconfigmap/settings deleted\n");
    rast.ok(&["delete", "pods", "--all", "--timeout", "60"]);
    eventually("everything is gone", || match get(&["deployments,replicasets,pods", "-o", "name"]) {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    });
}

#[test]
fn containers_are_run_read_and_entered() {
    let instance = Instance::up();
    let rast = instance.rast();
    let image = format!("{}/busybox:1", registry());

    let job = ["run", "job", "--image", &image, "--attach", "--rm", "--", "sh", "-c", "echo out; exit 7"];
    let ended = rast.run(&job);
    assert_eq!((ended.code, ended.out.as_str()), (7, "out\n"), "{}", ended.err);
    eventually("--rm removed it", || match rast.run(&["get", "pod/job"]).code {
        4 => Ok(()),
        code => Err(format!("exit code {code}")),
    });
    let piped = ["run", "words", "--image", &image, "-i", "--rm", "--", "wc", "-w"];
    assert_eq!(rast.clone().input("a b c").ok(&piped).trim(), "3");

    let script = "for i in 1 2 3; do echo line $i; done; exec sleep 1000";
    let talker = ["run", "talker", "--image", &image, "-e", "COLOUR=red", "-p", "80", "--", "sh", "-c", script];
    assert_eq!(rast.ok(&talker), "pod/talker created\n");
    rast.ok(&["wait", "--for", "condition=Ready", "pod/talker", "--timeout", "60"]);
    assert_eq!(rast.ok(&["logs", "talker"]), "line 1\nline 2\nline 3\n");
    assert_eq!(rast.ok(&["logs", "pod/talker", "--tail", "1"]), "line 3\n");
    assert!(rast.ok(&["logs", "talker", "--timestamps", "--tail", "1"]).starts_with("20"));
    assert_eq!(rast.ok(&["exec", "talker", "--", "sh", "-c", "echo $COLOUR"]), "red\n");
    assert_eq!(rast.ok(&["logs", "talker", "--since", "1h", "--container", "talker"]).lines().count(), 3);
    has(&rast.fails(2, &["logs", "talker", "--since", "soon"]), &["10s, 5m, 1h30m"]);
    let failed = rast.run(&["exec", "talker", "--", "sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!((failed.code, failed.out.as_str(), failed.err.as_str()), (9, "out\n", "err\n"));
    assert_eq!(rast.clone().input("x y").ok(&["exec", "-i", "talker", "--", "wc", "-w"]).trim(), "2");

    // Which run it is it knows from a volume, which outlives a container.
    let script =
        "n=$(cat /d/n 2>/dev/null || echo 0); echo run $n; echo $((n + 1)) > /d/n; [ $n = 0 ] || exec sleep 1000";
    let twice = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: twice}}\nspec: {{volumes: [{{name: d, emptyDir: {{}}}}], containers: \
         [{{name: main, image: '{image}', command: [sh, -c, '{script}'], volumeMounts: [{{name: d, mountPath: /d}}]}}]}}\n"
    );
    applied(&rast, twice);
    eventually("the second run", || match rast.run(&["logs", "twice"]).out {
        log if log.ends_with("run 1\n") => Ok(()),
        log => Err(log),
    });
    assert!(rast.ok(&["logs", "twice", "--previous"]).ends_with("run 0\n"));
    has(&rast.fails(3, &["logs", "talker", "--previous"]), &["previous terminated container \"talker\""]);
    assert_eq!(rast.ok(&["delete", "pod/talker", "--grace-period", "0"]), "pod/talker deleted\n");
    let mut follow = rast.command(&["logs", "twice", "--follow"]).stdout(Stdio::piped()).spawn().expect("rast starts");
    let mut followed = BufReader::new(follow.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(followed.any(|line| line == "run 1"));
    assert!(follow.try_wait().expect("a child").is_none(), "it goes on");
    rast.ok(&["delete", "pod/twice", "--grace-period", "0", "--no-wait"]);
    rast.ok(&["wait", "--for", "delete", "pod/twice", "--timeout", "60"]);
    assert_eq!(rast.run(&["get", "pod/twice"]).code, 4);
    assert_eq!(followed.next(), None, "the log ends with its pod");
    follow.wait().expect("it ends");

    let other = format!("{}/web:1", registry());
    has(&rast.ok(&["pull", &other]), &["/web@sha256:"]);
    has(&rast.ok(&["images"]), &["NAME", &image, &other]);
    rast.ok(&["images", "remove", &other]);
    assert!(!rast.ok(&["images", "list"]).contains(&other));
    assert_eq!(rast.run(&["images", "remove", &other]).code, 4);
    let archive = archive(instance.root());
    assert_eq!(rast.ok(&["images", "load", &text(&archive)]), "loaded docker.io/library/loaded:1\n");
    let loaded = ["run", "loaded", "--image", "loaded:1", "--attach", "--rm", "--", "/busybox", "echo", "from a file"];
    assert_eq!(rast.ok(&loaded), "from a file\n");
    assert!(!rast.ok(&["get", "--help"]).contains("clusterrolebindings"), "the help is not a list of kinds");
    // As a CNI runtime calls it: by a verb, or by its name alone.
    let plugin = rast.clone().env("CNI_COMMAND", "VERSION").input(r#"{"cniVersion": "1.1.0"}"#);
    for words in [&["cni"][..], &[]] {
        has(&plugin.ok(words), &[r#""supportedVersions":["1.0.0","1.1.0"]"#]);
    }
}

#[test]
fn words_are_completed_to_kinds_and_to_what_the_api_has() {
    let mut instance = Instance::up();
    let rast = instance.rast();
    rast.ok(&["wait", "--for", "create", "serviceaccount/default"]);
    let pod = |namespace: &str, name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name},
            "spec": {"containers": [{"name": "front", "image": "none"}, {"name": "back", "image": "none"}]}})
    };
    let role = |name: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": []});
    let elsewhere = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}});
    let objects = [elsewhere, role("mine:a"), role("mine$(reboot)")];
    applied(&rast, objects.map(|object| format!("---\n{object}\n")).concat());
    rast.ok(&["-n", "elsewhere", "wait", "--for", "create", "serviceaccount/default"]);
    let pods = [pod("default", "web-0"), pod("default", "web-1"), pod("elsewhere", "web-2")];
    applied(&rast, web(0, "one") + &pods.map(|object| format!("---\n{object}\n")).concat());

    let scripts = ["bash", "zsh", "fish"].map(|shell| rast.ok(&["completion", shell]));
    scripts.iter().for_each(|script| has(script, &["rast", "RAST_COMPLETE"]));
    let root = text(instance.root());
    let bash = Client::new("bash").env("RAST_ROOT", &root).input(scripts[0].clone());
    // What a shell makes of a line whose last word is not yet written to its end.
    let completed = |line: &str| {
        let last = line.rsplit(' ').next().unwrap_or_default();
        let script = format!(
            "eval \"$(cat)\"; COMP_WORDS=({line}{}); COMP_CWORD={}; COMP_TYPE=9; _clap_complete_rast rast '{last}' x; \
             IFS=' '; echo \"${{COMPREPLY[*]}}\"",
            if last.is_empty() { "''" } else { "" },
            line.split(' ').count() - 1,
        );
        bash.ok(&["-c", &script])
    };
    for (line, words) in [
        ("rast rol", "rollout"),
        ("rast get dep", "deployments"),
        ("rast delete dep", "deployments"),
        ("rast get pods we", "web-0 web-1"),
        ("rast get -n elsewhere pods we", "web-2"),
        ("rast describe pods web-0 w", "web-0 web-1"),
        ("rast wait --for delete pod/web-1", "pod/web-1"),
        ("rast get clusterrole mine", "mine:a"),
        ("rast -n else", "elsewhere"),
        ("rast exec w", "web-0 web-1"),
        ("rast exec -n elsewhere deployment/", ""),
        ("rast exec web-0 -c ", "front back"),
        ("rast logs pod/web-1 -c f", "front"),
        ("rast logs deployment/web --container ", "main"),
        ("rast why deployment/", "deployment/web"),
        ("rast scale rep", "replicaset/"),
        ("rast rollout restart deployment/w", "deployment/web"),
        ("rast --kubeconfig /nowhere get pods w", ""),
        ("rast get nonsense w", ""),
    ] {
        assert_eq!(completed(line).trim_end(), words, "{line}");
    }
    let ask = |shell: &str| rast.clone().env("RAST_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", "3");
    for shell in ["zsh", "fish"] {
        let words = ask(shell).env("_CLAP_IFS", "\n").ok(&["--", "rast", "get", "pod", "web-"]);
        assert_eq!(words.trim_end(), "web-0\nweb-1", "{shell}");
    }
    instance.kill();
    let silent = ask("fish").run(&["--", "rast", "get", "pod", "w"]);
    assert_eq!((silent.code, &*silent.out, &*silent.err), (0, "", ""));
}

#[test]
fn what_cannot_be_done_is_said_with_its_exit_code() {
    let instance = Instance::up();
    let rast = instance.rast();

    has(&rast.fails(1, &["--kubeconfig", "/nowhere", "get", "pods"]), &["/nowhere"]);
    rast.fails(2, &["frob"]);
    rast.fails(2, &["run", "x", "--image", "y", "--rm"]);
    has(&rast.fails(2, &["get", "frobs"]), &["no kind is called \"frobs\""]);
    has(&rast.fails(2, &["wait", "--for", "luck", "pod/x"]), &["condition=TYPE"]);
    has(&rast.fails(4, &["get", "pod/absent"]), &["pods \"absent\" not found"]);
    rast.fails(4, &["delete", "pod/absent"]);
    rast.fails(4, &["logs", "absent"]);
    rast.fails(4, &["scale", "deployment/absent", "--replicas", "1"]);
    rast.fails(4, &["rollout", "status", "deployment/absent"]);
    rast.fails(4, &["pull", &format!("{}/none:1", registry())]);
    let stranger = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{token: forged}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}', insecure-skip-tls-verify: true}}}}]\n",
        instance.port()
    );
    let stranger = file(&instance, "stranger.yaml", &stranger);
    has(&rast.fails(5, &["--kubeconfig", &text(&stranger), "get", "pods"]), &["Unauthorized"]);
    let waiting = "apiVersion: v1\nkind: Pod\nmetadata: {name: waiting}\nspec: {nodeSelector: {no: node}, \
                   containers: [{name: c, image: x}]}";
    applied(&rast, waiting.into());
    let late = rast.fails(6, &["wait", "--for", "condition=Ready", "pod/waiting", "--timeout", "1"]);
    has(&late, &["after 1 s", "ask `rast why pod/waiting`"]);

    // One faulty object: nothing of the file is sent, and every fault is pointed at.
    let good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n---\n";
    let bad = good.to_owned() + &web(1, "x").replace("replicas: 1", "replicas: many").replace("image:", "imago:");
    let bad = file(&instance, "bad.yaml", &bad);
    let said = rast.fails(3, &["apply", "-f", &text(&bad)]);
    has(&said, &["nothing was changed", &format!("{}:9:3: spec.replicas: must be an integer", text(&bad))]);
    has(&said, &["    9 |   replicas: many\n      |   ^"]);
    let unknown = good.to_owned() + &web(1, "x").replace("image:", "imago:");
    let unknown = file(&instance, "unknown.yaml", &unknown);
    let said = rast.fails(3, &["apply", "-f", &text(&unknown)]);
    let field = "spec.template.spec.containers[0].imago";
    has(&said, &[&format!("{}:17:9: {field}: unknown field", text(&unknown))]);
    let broken = file(&instance, "broken.yaml", &(good.to_owned() + "kind: {"));
    has(&rast.fails(3, &["apply", "-f", &text(&broken)]), &[&format!("{}:", text(&broken))]);
    rast.fails(4, &["get", "configmap/good"]);
    rast.fails(3, &["plan", "-f", &text(&bad)]);

    // What only the server can judge is pointed at as well.
    applied(&rast, web(0, "x"));
    let moved = file(&instance, "moved.yaml", &web(0, "x").replace("app: web", "app: api"));
    let said = rast.fails(3, &["apply", "-f", &text(&moved)]);
    has(&said, &[&text(&moved), "spec.selector"]);
    let planned = rast.run(&["plan", "-f", &text(&moved)]);
    assert_eq!(planned.code, 3, "{}", planned.out);
    has(&planned.out, &["! deployment.apps/web would be refused: ", "spec.selector"]);
}

/// What a stranger answers is shown, not obeyed; and a cluster's name is one before anybody is asked.
#[test]
fn strangers_words_and_names_are_kept_harmless() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/v3", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _whatever_it_asks = client.read(&mut [0; 16 << 10]);
            let body = r#"{"error": {"code": 401, "message": "\u001b[2J\u009b1m\u202egone"}}"#;
            let head = format!("HTTP/1.1 401 x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _it_may_have_gone = client.write_all((head + body).as_bytes());
        }
    });
    let home = tempfile::tempdir().expect("a directory");
    let mut rast = Client::new(tests::program()).env("HOME", home.path().display().to_string());
    for (name, value) in [("AUTH_URL", url.as_str()), ("USERNAME", "a"), ("PASSWORD", "b"), ("PROJECT_NAME", "c")] {
        rast = rast.env(&format!("OS_{name}"), value);
    }
    let refused = rast.run(&["cloud", "status", "demo"]);
    assert_eq!(refused.code, 5, "{}", refused.err);
    has(&refused.err, &["\\u001b[2J\\u009b1m\\u202egone"]);
    assert!(!refused.err.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{:?}", refused.err);
    for verb in ["plan", "up", "status", "down", "kubeconfig"] {
        for name in ["../x", "a/b", "Demo", "a.b", "demo-state", "\u{1b}[2J"] {
            let refused = rast.run(&["cloud", verb, name]);
            assert_eq!(refused.code, 2, "{verb} {name}: {}", refused.err);
        }
    }
    assert_eq!(rast.run(&["why", "cluster/../x"]).code, 2);
}
