//! A key of somebody who is to be a machine's administrator, made and used as its owner would: openssl and curl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

/// A private key and what is made of it.
pub struct Admin {
    dir: TempDir,
    /// SHA-256 of the public key, as a machine is told it.
    pub hash: String,
}

impl Admin {
    /// A new key.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the key");
        let (key, request) = (dir.path().join("key.pem"), dir.path().join("request.pem"));
        run(Command::new("openssl").args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]).arg(&key));
        run(Command::new("openssl")
            .args(["req", "-new", "-subj", "/CN=me", "-key"])
            .arg(&key)
            .arg("-out")
            .arg(request));
        let public = dir.path().join("public.der");
        run(Command::new("openssl")
            .args(["pkey", "-pubout", "-outform", "DER", "-in"])
            .arg(&key)
            .arg("-out")
            .arg(&public));
        Self { hash: sha256(&public), dir }
    }

    /// What the machine answers on this port of loopback: the status, and the document.
    pub fn ask(&self, port: u16) -> (String, Value) {
        let answer = self.dir.path().join("answer.json");
        let url = format!("https://127.0.0.1:{port}/enrol");
        let request = format!("@{}", self.dir.path().join("request.pem").display());
        let mut curl = Command::new("curl");
        curl.args(["-sk", "--max-time", "60", "-w", "%{http_code}", "--data-binary", &request, "-o"])
            .arg(&answer)
            .arg(url);
        let status = String::from_utf8_lossy(&curl.output().expect("curl").stdout).into_owned();
        let text = fs::read(&answer).unwrap_or_default();
        (status, serde_json::from_slice(&text).unwrap_or_default())
    }

    /// Becomes administrator of the machine whose authority has that fingerprint, and gives back a kubeconfig.
    pub fn enrol(&self, port: u16, cluster: &str, authority: &str) -> PathBuf {
        let (status, answer) = self.ask(port);
        assert_eq!(status, "200", "{answer}");
        let file = |name: &str, text: &str| {
            let path = self.dir.path().join(name);
            fs::write(&path, text).expect("a file");
            path
        };
        let ca = file("ca.pem", answer["ca"].as_str().expect("a ca"));
        let der = self.dir.path().join("ca.der");
        run(Command::new("openssl").args(["x509", "-outform", "DER", "-in"]).arg(&ca).arg("-out").arg(&der));
        assert_eq!(sha256(&der), authority, "the console's fingerprint");
        let certificate = file("certificate.pem", answer["certificate"].as_str().expect("a certificate"));
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me"}}],
            "clusters": [{"name": "it", "cluster": {
                "server": format!("https://127.0.0.1:{port}"), "certificate-authority": ca,
                "tls-server-name": format!("api.{cluster}.rastos.internal")}}],
            "users": [{"name": "me", "user": {
                "client-certificate": certificate, "client-key": self.dir.path().join("key.pem")}}],
        });
        file("kubeconfig", &config.to_string())
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self::new()
    }
}

fn sha256(file: &Path) -> String {
    let said = Command::new("openssl").args(["dgst", "-sha256", "-r"]).arg(file).output().expect("openssl");
    String::from_utf8_lossy(&said.stdout).split(' ').next().unwrap_or_default().to_owned()
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
