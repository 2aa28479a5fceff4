//! Changes of the catalogue, each in one transaction.

use pool_api::{SnapshotId, TemplateName};
use sqlx::SqliteConnection;

use super::{
    super::row::{keep_text, signed},
    Build, Ledger, LedgerError, Micros, Tag, failed,
    row::parse,
};

impl Ledger {
    /// Adds a build, and lets a tag mean it. It goes to the template that has `name`, or to a new one with the id that
    /// `build` says. Says which template it is and which snapshots are not promised any more; `None` when the name is
    /// one of a template that is not made of snapshots.
    pub(crate) async fn add_build(
        &self,
        build: &Build,
        name: Option<&TemplateName>,
        tag: &Tag,
    ) -> Result<Option<(TemplateName, Vec<SnapshotId>)>, LedgerError> {
        const ATTEMPT: &str = "add a snapshot";
        let mut changes = self.begin(ATTEMPT).await?;
        let Some(template) = template_for(&mut changes, build, name).await? else {
            return Ok(None);
        };
        sqlx::query(
            "INSERT INTO builds (id, template, snapshot, keep, origin, vcpus, memory, disk, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&build.id)
        .bind(template.as_str())
        .bind(build.snapshot.as_str())
        .bind(keep_text(build.keep))
        .bind(build.origin.as_str())
        .bind(i64::from(build.resources.vcpus))
        .bind(signed(build.resources.memory))
        .bind(signed(build.resources.disk))
        .bind(build.created_at.0)
        .execute(&mut *changes)
        .await
        .map_err(failed(ATTEMPT))?;
        put_tag(&mut changes, &template, tag, &build.id).await?;
        let dropped = drop_untagged(&mut changes, &template).await?;
        changes.commit().await.map_err(failed(ATTEMPT))?;
        Ok(Some((template, dropped)))
    }

    /// Lets tags mean a build of a template. Says which snapshots are not promised any more.
    pub(crate) async fn assign(
        &self,
        id: &TemplateName,
        tags: &[Tag],
        build: &str,
    ) -> Result<Vec<SnapshotId>, LedgerError> {
        let mut changes = self.begin("tag a template").await?;
        for tag in tags {
            put_tag(&mut changes, id, tag, build).await?;
        }
        let dropped = drop_untagged(&mut changes, id).await?;
        changes.commit().await.map_err(failed("tag a template"))?;
        Ok(dropped)
    }

    /// Takes tags from a template, and the template away when it has none left. Says which snapshots are not promised
    /// any more; `None`, and nothing is done, when one of the tags is not there.
    pub(crate) async fn untag(
        &self,
        id: &TemplateName,
        tags: &[Tag],
    ) -> Result<Option<Vec<SnapshotId>>, LedgerError> {
        const ATTEMPT: &str = "untag a template";
        let mut changes = self.begin(ATTEMPT).await?;
        for tag in tags {
            let done = sqlx::query("DELETE FROM tags WHERE template = ? AND tag = ?")
                .bind(id.as_str())
                .bind(tag.as_str())
                .execute(&mut *changes)
                .await
                .map_err(failed(ATTEMPT))?;
            if done.rows_affected() == 0 {
                return Ok(None);
            }
        }
        let dropped = drop_untagged(&mut changes, id).await?;
        changes.commit().await.map_err(failed(ATTEMPT))?;
        Ok(Some(dropped))
    }

    /// Removes a template made of snapshots. Says which snapshots are not promised any more; `None` when there is none.
    pub(crate) async fn remove_template(
        &self,
        id: &TemplateName,
    ) -> Result<Option<Vec<SnapshotId>>, LedgerError> {
        const ATTEMPT: &str = "remove a template";
        let mut changes = self.begin(ATTEMPT).await?;
        sqlx::query("DELETE FROM tags WHERE template = ? AND EXISTS (SELECT 1 FROM templates WHERE id = template)")
            .bind(id.as_str())
            .execute(&mut *changes)
            .await
            .map_err(failed(ATTEMPT))?;
        let dropped = drop_untagged(&mut changes, id).await?;
        changes.commit().await.map_err(failed(ATTEMPT))?;
        Ok(Some(dropped).filter(|dropped| !dropped.is_empty()))
    }

    /// Gives a template this name and no other, or none. Says whether nobody else has it.
    pub(crate) async fn rename(
        &self,
        id: &TemplateName,
        name: Option<&TemplateName>,
    ) -> Result<bool, LedgerError> {
        const ATTEMPT: &str = "name a template";
        let mut changes = self.begin(ATTEMPT).await?;
        sqlx::query("DELETE FROM names WHERE template = ?")
            .bind(id.as_str())
            .execute(&mut *changes)
            .await
            .map_err(failed(ATTEMPT))?;
        if let Some(name) = name {
            let done = sqlx::query("INSERT OR IGNORE INTO names (name, template) VALUES (?, ?)")
                .bind(name.as_str())
                .bind(id.as_str())
                .execute(&mut *changes)
                .await
                .map_err(failed(ATTEMPT))?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
        }
        changes.commit().await.map_err(failed(ATTEMPT))?;
        Ok(true)
    }

    /// Notes whether others may use a template made of snapshots.
    pub(crate) async fn set_public(
        &self,
        id: &TemplateName,
        public: bool,
    ) -> Result<(), LedgerError> {
        sqlx::query("UPDATE templates SET public = ?, updated_at = ? WHERE id = ?")
            .bind(public)
            .bind(Micros::now().0)
            .bind(id.as_str())
            .execute(&self.pool)
            .await
            .map_err(failed("publish a template"))?;
        Ok(())
    }
}

/// The template a build goes to; `None` when its name is taken by one that is not made of snapshots.
async fn template_for(
    changes: &mut SqliteConnection,
    build: &Build,
    name: Option<&TemplateName>,
) -> Result<Option<TemplateName>, LedgerError> {
    const ATTEMPT: &str = "find a template for a snapshot";
    if let Some(name) = name {
        let known: Option<(String, bool)> = sqlx::query_as(
            "SELECT template, EXISTS (SELECT 1 FROM templates WHERE id = template) FROM names WHERE name = ?",
        )
        .bind(name.as_str())
        .fetch_optional(&mut *changes)
        .await
        .map_err(failed(ATTEMPT))?;
        match known {
            Some((id, true)) => return Ok(Some(parse(&id, &id, "id")?)),
            Some((_, false)) => return Ok(None),
            None => {}
        }
    }
    let (id, now) = (&build.template, build.created_at.0);
    sqlx::query("INSERT INTO templates (id, public, created_at, updated_at) VALUES (?, 0, ?, ?)")
        .bind(id.as_str())
        .bind(now)
        .bind(now)
        .execute(&mut *changes)
        .await
        .map_err(failed(ATTEMPT))?;
    if let Some(name) = name {
        sqlx::query("INSERT INTO names (name, template) VALUES (?, ?)")
            .bind(name.as_str())
            .bind(id.as_str())
            .execute(&mut *changes)
            .await
            .map_err(failed(ATTEMPT))?;
    }
    Ok(Some(id.clone()))
}

async fn put_tag(
    changes: &mut SqliteConnection,
    id: &TemplateName,
    tag: &Tag,
    build: &str,
) -> Result<(), LedgerError> {
    let now = Micros::now().0;
    sqlx::query(
        "INSERT INTO tags (template, tag, build, created_at) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (template, tag) DO UPDATE SET build = ?3, created_at = ?4",
    )
    .bind(id.as_str())
    .bind(tag.as_str())
    .bind(build)
    .bind(now)
    .execute(&mut *changes)
    .await
    .map_err(failed("put a tag"))?;
    sqlx::query("UPDATE templates SET updated_at = ? WHERE id = ?")
        .bind(now)
        .bind(id.as_str())
        .execute(changes)
        .await
        .map_err(failed("put a tag"))?;
    Ok(())
}

/// Drops builds that no tag means, and the template when none are left.
async fn drop_untagged(
    changes: &mut SqliteConnection,
    id: &TemplateName,
) -> Result<Vec<SnapshotId>, LedgerError> {
    const ATTEMPT: &str = "drop what no tag means";
    let dropped: Vec<(String, String)> = sqlx::query_as(
        "DELETE FROM builds WHERE template = ?1 AND id NOT IN (SELECT build FROM tags WHERE template = ?1) \
         RETURNING id, snapshot",
    )
    .bind(id.as_str())
    .fetch_all(&mut *changes)
    .await
    .map_err(failed(ATTEMPT))?;
    for sql in [
        "DELETE FROM names WHERE template = ?1 AND EXISTS (SELECT 1 FROM templates WHERE id = ?1) \
         AND NOT EXISTS (SELECT 1 FROM builds WHERE template = ?1)",
        "DELETE FROM templates WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM builds WHERE template = ?1)",
    ] {
        sqlx::query(sql)
            .bind(id.as_str())
            .execute(&mut *changes)
            .await
            .map_err(failed(ATTEMPT))?;
    }
    let snapshots = dropped.iter();
    snapshots
        .map(|(id, snapshot)| parse(snapshot, id, "snapshot"))
        .collect()
}
