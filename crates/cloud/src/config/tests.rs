use std::path::Path;

use super::*;

fn variables(pairs: &[(&str, &str)]) -> Environment {
    Environment::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())), [])
}

fn files(dir: &Path, pairs: &[(&str, &str)]) -> Environment {
    Environment::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())), [dir.to_owned()])
}

fn default() -> Domain {
    Domain::Name("Default".into())
}

#[test]
fn the_seed_s_four_variables_are_enough() {
    let config = Config::find(
        None,
        &variables(&[
            ("OS_AUTH_URL", "https://cloud:5000/v3"),
            ("OS_PROJECT_ID", "p"),
            ("OS_USERNAME", "u"),
            ("OS_PASSWORD", "s"),
        ]),
    )
    .unwrap();
    assert_eq!(config.auth_url, "https://cloud:5000/v3");
    assert_eq!(config.auth, Auth::Password(User::Name("u".into(), default()), Secret::new("s")));
    assert_eq!(config.scope, Some(Project::Id("p".into())));
    assert_eq!((config.region, config.interface), (None, Interface::Public));
}

#[test]
fn the_usual_others_count_too() {
    let config = Config::find(
        None,
        &variables(&[
            ("OS_AUTH_URL", "http://cloud:5000/"),
            ("OS_USERNAME", "u"),
            ("OS_USER_DOMAIN_NAME", "people"),
            ("OS_PASSWORD", "s"),
            ("OS_TENANT_NAME", "old"),
            ("OS_PROJECT_DOMAIN_ID", "d1"),
            ("OS_REGION_NAME", "North"),
            ("OS_ENDPOINT_TYPE", "internalURL"),
            ("OS_CACERT", "/ca.pem"),
            ("OS_INSECURE", "true"),
            ("OS_NETWORK_ENDPOINT_OVERRIDE", "http://n/"),
            ("OS_API_TIMEOUT", "2.5"),
        ]),
    )
    .unwrap();
    assert_eq!(config.auth_url, "http://cloud:5000/v3");
    assert_eq!(config.auth, Auth::Password(User::Name("u".into(), Domain::Name("people".into())), Secret::new("s")));
    assert_eq!(config.scope, Some(Project::Name("old".into(), Domain::Id("d1".into()))));
    assert_eq!((config.region.as_deref(), config.interface), (Some("North"), Interface::Internal));
    assert_eq!((config.tls.cacert.as_deref(), config.tls.insecure), (Some(Path::new("/ca.pem")), true));
    assert_eq!(config.overrides.get("network").map(String::as_str), Some("http://n"));
    assert_eq!(config.timeout, Duration::from_millis(2500));
}

#[test]
fn an_address_of_keystone_is_taken_with_any_version_or_none() {
    for given in ["http://c/id", "http://c/id/", "http://c/id/v3", "http://c/id//v3/", "http://c/id/v2.0"] {
        let all = variables(&[("OS_AUTH_URL", given), ("OS_USERNAME", "u"), ("OS_PASSWORD", "p")]);
        assert_eq!(Config::find(None, &all).unwrap().auth_url, "http://c/id/v3", "{given}");
    }
}

#[test]
fn a_path_may_begin_at_home() {
    let all = [("OS_AUTH_URL", "http://c"), ("OS_TOKEN", "t"), ("OS_CACERT", "~/ca.pem")];
    let cacert = |environment: &Environment| Config::find(None, environment).unwrap().tls.cacert.unwrap();
    assert_eq!(cacert(&variables(&all)), Path::new("~/ca.pem"));
    assert_eq!(cacert(&variables(&all).at_home("/home/u")), Path::new("/home/u/ca.pem"));
}

#[test]
fn an_application_credential_brings_its_project() {
    let base = [("OS_AUTH_URL", "http://c/v3"), ("OS_APPLICATION_CREDENTIAL_SECRET", "s")];
    let by_id = Config::find(None, &variables(&[base[0], base[1], ("OS_APPLICATION_CREDENTIAL_ID", "i")])).unwrap();
    assert_eq!((by_id.auth, by_id.scope), (Auth::Credential("i".into(), Secret::new("s")), None));
    let by_name = [base[0], base[1], ("OS_APPLICATION_CREDENTIAL_NAME", "n"), ("OS_USER_ID", "u")];
    let by_name = Config::find(None, &variables(&by_name)).unwrap();
    assert_eq!(by_name.auth, Auth::NamedCredential("n".into(), User::Id("u".into()), Secret::new("s")));
    let token = Config::find(None, &variables(&[base[0], ("OS_TOKEN", "t"), ("OS_PROJECT_NAME", "p")])).unwrap();
    assert_eq!(token.auth, Auth::Token(Secret::new("t")));
}

#[test]
fn secure_yaml_and_profiles_are_merged_in() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "clouds.yaml",
        "clouds:\n  a:\n    profile: big\n    auth: {username: u, project_name: p}\n    region_name: r\n  b: {}\n",
    );
    write("secure.yaml", "clouds:\n  a:\n    auth: {password: 12345}\n");
    write("clouds-public.yaml", "public-clouds:\n  big:\n    auth: {auth_url: 'https://big'}\n    verify: false\n");
    for (name, variables) in [(Some("a"), vec![]), (None, vec![("OS_CLOUD", "a"), ("OS_AUTH_URL", "ignored")])] {
        let config = Config::find(name, &files(dir.path(), &variables)).unwrap();
        assert_eq!(config.auth_url, "https://big/v3");
        assert_eq!(config.auth, Auth::Password(User::Name("u".into(), default()), Secret::new("12345")));
        assert_eq!((config.region.as_deref(), config.tls.insecure), (Some("r"), true));
    }
    let refused = |name| Config::find(name, &files(dir.path(), &[])).unwrap_err().to_string();
    assert_eq!(refused(Some("c")), "no clouds.yaml names the cloud \"c\"; there are a, b");
    assert!(refused(None).contains("(clouds.yaml holds a, b)"), "{}", refused(None));
    assert_eq!(refused(Some("b")), "cloud \"b\": auth_url (OS_AUTH_URL) is missing");
}

#[test]
fn what_is_missing_or_wrong_is_said() {
    let refused = |pairs: &[(&str, &str)]| Config::find(None, &variables(pairs)).unwrap_err().to_string();
    assert!(refused(&[]).starts_with("no cloud is named"));
    let url = ("OS_AUTH_URL", "http://c");
    assert_eq!(refused(&[url]), "the environment: username (OS_USERNAME) is missing");
    assert_eq!(refused(&[url, ("OS_USERNAME", "u")]), "the environment: password (OS_PASSWORD) is missing");
    assert_eq!(
        refused(&[("OS_AUTH_URL", "c:5000/v3")]),
        "the environment: auth_url c:5000/v3 must begin with https:// or http://"
    );
    assert!(refused(&[url, ("OS_AUTH_TYPE", "v3kerberos")]).contains("v3kerberos is not supported"));
    for wrong in ["0", "-1", "1e99", "soon"] {
        let said = refused(&[url, ("OS_USERNAME", "u"), ("OS_PASSWORD", "p"), ("OS_API_TIMEOUT", wrong)]);
        assert_eq!(said, format!("the environment: api_timeout {wrong} must be a number of seconds above 0"));
    }
    assert!(refused(&[url, ("OS_IDENTITY_API_VERSION", "2")]).contains("version 2 is not served"));
}

#[test]
fn a_secret_is_never_shown() {
    let config =
        Config::find(None, &variables(&[("OS_AUTH_URL", "http://c"), ("OS_USERNAME", "u"), ("OS_PASSWORD", "hush")]));
    assert!(!format!("{:?}", config.unwrap()).contains("hush"));
}
