use serde_json::{Value, json};

use crate::testing::Fixture;

const CORE: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

#[tokio::test]
async fn events_are_kept_once_and_served_in_both_forms() {
    let f = Fixture::new().await;
    let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "e", "labels": {"a": "b"}}, "note": "m", "reason": "R", "action": "A", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "reportingController": "c",
        "reportingInstance": "i", "eventTime": "2026-01-02T03:04:05.000006Z"});
    let made = f.post(NEW, new.clone()).await.expect(201);
    assert_eq!((&made["note"], &made["apiVersion"]), (&json!("m"), &json!("events.k8s.io/v1")));
    let core = f.get(&format!("{CORE}/e")).await.expect(200);
    assert_eq!((&core["message"], &core["involvedObject"]["name"]), (&json!("m"), &json!("p")));
    assert_eq!((&core["apiVersion"], &core["reportingComponent"]), (&json!("v1"), &json!("c")));
    assert_eq!(core["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);

    f.patch("merge", &format!("{CORE}/e"), json!({"message": "n"})).await.expect(200);
    assert_eq!(f.get(&format!("{NEW}/e")).await.expect(200)["note"], "n");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-02T03:04:06.000000Z"}});
    let patched = f.patch("strategic-merge", &format!("{NEW}/e"), series).await.expect(200);
    assert_eq!((&patched["note"], &patched["series"]["count"]), (&json!("n"), &json!(2)));
    for selector in ["regarding.name%3Dp", "involvedObject.name%3Dp,reason%3DR"] {
        let list = f.get(&format!("/apis/events.k8s.io/v1/events?fieldSelector={selector}")).await.expect(200);
        assert_eq!((&list["kind"], &list["items"][0]["note"]), (&json!("EventList"), &json!("n")), "{selector}");
    }
    f.post(NEW, json!({"metadata": {"name": "x"}, "regarding": {"namespace": "other"}})).await.expect(422);
    // One that an older recorder wrote is short of what newer ones give, and can be changed all the same.
    let old = json!({"metadata": {"name": "old"}, "involvedObject": {"namespace": "default"}, "message": "o"});
    f.post(CORE, old).await.expect(201);
    let labelled =
        f.patch("merge", &format!("{NEW}/old"), json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(labelled["note"], "o");
    f.delete(&format!("{NEW}?labelSelector=a%3Db"), Value::Null).await.expect(200);
    f.get(&format!("{CORE}/e")).await.expect(404);
}
