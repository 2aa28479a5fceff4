//! Rows of the specification: lists of sandboxes.

use serde_json::{Value, json};

use crate::rig::Rig;

fn ids(list: &Value) -> Vec<String> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|sandbox| sandbox["sandboxID"].as_str().unwrap().to_owned())
        .collect()
}

/// Creates five sandboxes, oldest first; the second is paused.
async fn five(rig: &Rig) -> Vec<String> {
    let mut created = Vec::new();
    for number in 0..5 {
        let metadata = json!({ "n": number.to_string(), "a b": "c&d" });
        created.push(
            rig.create(json!({ "templateID": "base", "metadata": metadata }))
                .await,
        );
    }
    rig.call(
        "POST",
        &format!("/sandboxes/{}/pause", created[1]),
        Value::Null,
    )
    .await
    .expect(204);
    created
}

#[tokio::test]
async fn sandbox_list_is_ordered_and_filtered() {
    let rig = Rig::new().await;
    let created = five(&rig).await;
    let newest_first: Vec<String> = created.iter().rev().cloned().collect();
    let running: Vec<String> = newest_first
        .iter()
        .filter(|id| **id != created[1])
        .cloned()
        .collect();
    let all = rig.get("/v2/sandboxes").await;
    assert_eq!(ids(&all.expect(200)), newest_first);
    assert_eq!(all.headers["x-total-running"], "4");
    assert!(!all.headers.contains_key("x-next-token"));
    for (query, wanted) in [
        ("order=asc", created.clone()),
        ("state=running", running.clone()),
        ("state=paused", vec![created[1].clone()]),
        ("state=running,paused&order=desc", newest_first.clone()),
        ("state=running&state=paused", newest_first.clone()),
        ("metadata=n%3D3", vec![created[3].clone()]),
        ("metadata=a%252520b%3Dc%252526d&order=asc", created.clone()),
        ("metadata=n%3D3%26a%252520b%3Dother", vec![]),
        ("template=base&order=asc", created.clone()),
        ("template=other", vec![]),
    ] {
        assert_eq!(
            ids(&rig.get(&format!("/v2/sandboxes?{query}")).await.expect(200)),
            wanted,
            "{query}"
        );
    }
    assert_eq!(ids(&rig.get("/sandboxes").await.expect(200)), running);
    assert_eq!(
        ids(&rig.get("/sandboxes?metadata=n%3D0").await.expect(200)),
        [created[0].clone()]
    );
    let paused = rig.get("/v2/sandboxes?state=paused").await;
    assert!(!paused.headers.contains_key("x-total-running"));
}

#[tokio::test]
async fn started_after_filter_is_exact_to_the_microsecond() {
    let rig = Rig::new().await;
    let created = five(&rig).await;
    let third = rig
        .get(&format!("/sandboxes/{}", created[2]))
        .await
        .expect(200);
    let started = third["startedAt"].as_str().unwrap();
    let listed = rig.get("/v2/sandboxes?order=asc").await.expect(200);
    assert_eq!(listed[2]["startedAt"], started, "list and detail agree");
    let after = rig
        .get(&format!("/v2/sandboxes?order=asc&startedAfter={started}"))
        .await
        .expect(200);
    assert_eq!(ids(&after), created[2..]);
    let later = started.parse::<jiff::Timestamp>().unwrap() + jiff::SignedDuration::from_secs(60);
    assert_eq!(
        rig.get(&format!("/v2/sandboxes?startedAfter={later}"))
            .await
            .expect(200),
        json!([])
    );
}

#[tokio::test]
async fn pages_are_stable_when_a_sandbox_pauses_between_them() {
    let rig = Rig::new().await;
    let created = five(&rig).await;
    for (order, wanted) in [
        ("asc", created.clone()),
        ("desc", created.iter().rev().cloned().collect()),
    ] {
        let (mut got, mut from, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = rig
                .get(&format!("/v2/sandboxes?limit=2&order={order}{from}"))
                .await;
            got.extend(ids(&page.expect(200)));
            pages += 1;
            if pages == 1 {
                // In the second round it is already paused, so the status is ignored.
                rig.call(
                    "POST",
                    &format!("/sandboxes/{}/pause", created[2]),
                    Value::Null,
                )
                .await;
            }
            let Some(next) = page.headers.get("x-next-token") else {
                break;
            };
            from = format!("&nextToken={}", next.to_str().unwrap());
        }
        assert_eq!((got, pages), (wanted, 3), "{order}");
    }
}

#[tokio::test]
async fn invalid_list_parameters_are_400() {
    let rig = Rig::new().await;
    five(&rig).await;
    let page = rig.get("/v2/sandboxes?limit=2&order=asc").await;
    let token = page.headers["x-next-token"].to_str().unwrap().to_owned();
    let crossed = rig
        .get(&format!("/v2/sandboxes?order=desc&nextToken={token}"))
        .await;
    assert_eq!(crossed.error(400), "Invalid next token");
    assert_eq!(
        rig.get("/v2/sandboxes?nextToken=x").await.error(400),
        "Invalid next token"
    );
    assert_eq!(
        rig.get("/v2/sandboxes?order=up").await.error(400),
        "Invalid order parameter: up"
    );
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "state=odd",
        "startedAfter=x",
        "template=base:default",
    ] {
        rig.get(&format!("/v2/sandboxes?{query}")).await.error(400);
    }
}
