//! Pages of sandboxes, rows that cannot be read, and claims of expiries.

use super::*;

#[tokio::test]
async fn unreadable_row_is_left_out_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    for id in ["ione", "itwo", "ithree"] {
        ledger.insert(&record(id), None).await.unwrap();
    }
    sqlx::query("UPDATE sandboxes SET vcpus = 300 WHERE id = 'itwo'")
        .execute(&ledger.writer)
        .await
        .unwrap();
    let (records, unreadable) = ledger.all().await.unwrap();
    assert_eq!((records.len(), unreadable), (2, vec!["itwo".to_owned()]));
    let page = ledger.page(&SandboxQuery::default(), 3).await.unwrap();
    assert_eq!(page.records.len(), 2);
    assert!(page.next.is_some(), "the row counts towards the page");
    let due = ledger.expired(Micros::NEVER).await.unwrap();
    assert_eq!(due.len(), 2);
}

#[tokio::test]
async fn claim_fails_once_the_deadline_has_moved() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    let mut due = record("ione");
    due.end_at = Micros(5);
    due.started_at = Micros::now();
    ledger.insert(&due, None).await.unwrap();
    let seen = ledger.expired(Micros(6)).await.unwrap().remove(0);
    let lifetime = Lifetime::For(Duration::from_secs(60));
    let day = Duration::from_secs(86_400);
    let moved = ledger.set_deadline(&due.id, lifetime, day, DeadlineChange::Set);
    let moved = moved.await.unwrap().unwrap();
    assert!(!ledger.claim_expiry(&seen, Micros(9)).await.unwrap());
    assert_eq!(ledger.get(&due.id).await.unwrap().unwrap().end_at, moved);
    let seen = ledger.get(&due.id).await.unwrap().unwrap();
    assert!(ledger.claim_expiry(&seen, Micros(9)).await.unwrap());
    assert!(
        !ledger.claim_expiry(&seen, Micros(9)).await.unwrap(),
        "claimed already"
    );
}

#[tokio::test]
async fn pages_cover_every_row_once_in_both_orders() {
    const ROWS: usize = 250;
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir).await;
    for number in 0..ROWS {
        let mut row = record(&format!("i{number:04}"));
        // Several rows start at the same time.
        row.started_at = Micros(i64::try_from(number / 3).unwrap());
        row.running = number % 2 == 0;
        row.settings.metadata = [("parity".to_owned(), (number % 2).to_string())].into();
        ledger.insert(&row, None).await.unwrap();
    }
    for ascending in [true, false] {
        let mut query = SandboxQuery {
            ascending,
            ..SandboxQuery::default()
        };
        let mut found = Vec::new();
        loop {
            let page = ledger.page(&query, 40).await.unwrap();
            found.extend(page.records.iter().map(|record| record.id.to_string()));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        if !ascending {
            found.reverse();
        }
        let expected: Vec<String> = (0..ROWS).map(|number| format!("i{number:04}")).collect();
        assert_eq!(found, expected);
    }
    let odd = SandboxQuery {
        running: Some(false),
        metadata: [("parity".to_owned(), "1".to_owned())].into(),
        ..SandboxQuery::default()
    };
    assert_eq!(
        ledger.page(&odd, 1000).await.unwrap().records.len(),
        ROWS / 2
    );
    assert_eq!(ledger.count_running(&odd).await.unwrap(), 0);
}
