//! Builds of templates. Specification: "Lifecycle of sandboxes".

use std::fs;

use pool_api::Node;

use super::{Rig, base};

#[tokio::test]
async fn template_is_rebuilt_only_for_changed_artefacts() {
    let rig = Rig::new().await;
    let first = rig.pool.templates().await.remove(0);
    let boots = rig.fake.counts().boots;
    let rig = rig.crash().await;
    let same = rig.pool.build_template(&base()).await.unwrap();
    assert_eq!(
        (same.snapshot, rig.fake.counts().boots),
        (first.snapshot.clone(), boots)
    );
    // A new modification time with the same bytes.
    fs::write(rig.dir.path().join("kernel"), "kernel").unwrap();
    rig.pool.build_template(&base()).await.unwrap();
    assert_eq!(rig.fake.counts().boots, boots);
    fs::write(rig.dir.path().join("kernel"), "another").unwrap();
    let other = rig.pool.build_template(&base()).await.unwrap();
    assert_ne!(other.snapshot, first.snapshot);
    assert_eq!(
        (
            rig.fake.counts().boots,
            rig.count("snapshots"),
            rig.fake.counts().live
        ),
        (boots + 1, 1, 0)
    );
    fs::remove_file(rig.dir.path().join("kernel")).unwrap();
    let error = rig.pool.build_template(&base()).await.unwrap_err();
    assert!(matches!(error, pool_api::TemplateError::NoArtefacts { .. }));
    assert!(super::source_text(&error).contains("kernel"));
}
