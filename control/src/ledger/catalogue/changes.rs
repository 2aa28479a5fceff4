//! Changes of templates, each in one transaction.

use pool_api::{SnapshotId, TemplateName};
use sqlx::SqliteConnection;

use super::{build::Build, template::Visibility};
use crate::{
    ids::{BuildId, TemplateId},
    ledger::{
        Ledger,
        column::{parse, scope_text, signed},
        error::{LedgerError, failed},
    },
    reference::Tag,
    time::Micros,
};

impl Ledger {
    /// Inserts a build and points a tag to it. The build goes to the template with `name`, or to a new template with the
    /// id in `build`. Returns the template and the snapshots that are no longer referenced, or `None` if `name` belongs
    /// to a template of the host.
    pub(crate) async fn add_build(
        &self,
        build: &Build,
        name: Option<&TemplateName>,
        tag: &Tag,
    ) -> Result<Option<(TemplateId, Vec<SnapshotId>)>, LedgerError> {
        const ACTION: &str = "insert build";
        let mut changes = self.begin(ACTION).await?;
        let Some(template) = template_for(&mut changes, build, name).await? else {
            return Ok(None);
        };
        sqlx::query(
            "INSERT INTO builds (id, template, snapshot, keep, origin, vcpus, memory, disk, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(build.id.to_string())
        .bind(template.as_str())
        .bind(build.snapshot.as_str())
        .bind(scope_text(build.scope))
        .bind(build.origin.as_str())
        .bind(i64::from(build.resources.vcpus))
        .bind(signed(build.resources.memory))
        .bind(signed(build.resources.disk))
        .bind(build.created_at.0)
        .execute(&mut *changes)
        .await
        .map_err(failed(ACTION))?;
        put_tag(&mut changes, &template, tag, build.id).await?;
        let released = delete_untagged(&mut changes, &template).await?;
        changes.commit().await.map_err(failed(ACTION))?;
        Ok(Some((template, released)))
    }

    /// Points tags to a build of a template. Returns the snapshots that are no longer referenced.
    pub(crate) async fn assign_tags(
        &self,
        id: &TemplateId,
        tags: &[Tag],
        build: BuildId,
    ) -> Result<Vec<SnapshotId>, LedgerError> {
        const ACTION: &str = "assign tags";
        let mut changes = self.begin(ACTION).await?;
        for tag in tags {
            put_tag(&mut changes, id, tag, build).await?;
        }
        let released = delete_untagged(&mut changes, id).await?;
        changes.commit().await.map_err(failed(ACTION))?;
        Ok(released)
    }

    /// Removes tags of a template, and the template if no tag is left. Returns the snapshots that are no longer
    /// referenced, or `None` without any change if one of the tags does not exist.
    pub(crate) async fn remove_tags(
        &self,
        id: &TemplateId,
        tags: &[Tag],
    ) -> Result<Option<Vec<SnapshotId>>, LedgerError> {
        const ACTION: &str = "remove tags";
        let mut changes = self.begin(ACTION).await?;
        for tag in tags {
            let done = sqlx::query("DELETE FROM tags WHERE template = ? AND tag = ?")
                .bind(id.as_str())
                .bind(tag.as_str())
                .execute(&mut *changes)
                .await
                .map_err(failed(ACTION))?;
            if done.rows_affected() == 0 {
                return Ok(None);
            }
        }
        let released = delete_untagged(&mut changes, id).await?;
        changes.commit().await.map_err(failed(ACTION))?;
        Ok(Some(released))
    }

    /// Removes a template made of snapshots. Returns the snapshots that are no longer referenced, or `None` if there is
    /// no such template.
    pub(crate) async fn remove_template(
        &self,
        id: &TemplateId,
    ) -> Result<Option<Vec<SnapshotId>>, LedgerError> {
        const ACTION: &str = "remove template";
        let mut changes = self.begin(ACTION).await?;
        sqlx::query("DELETE FROM tags WHERE template = ? AND EXISTS (SELECT 1 FROM templates WHERE id = template)")
            .bind(id.as_str())
            .execute(&mut *changes)
            .await
            .map_err(failed(ACTION))?;
        let released = delete_untagged(&mut changes, id).await?;
        changes.commit().await.map_err(failed(ACTION))?;
        Ok(Some(released).filter(|released| !released.is_empty()))
    }

    /// Replaces the name of a template, or removes it. Returns whether the name was free.
    pub(crate) async fn rename(
        &self,
        id: &TemplateId,
        name: Option<&TemplateName>,
    ) -> Result<bool, LedgerError> {
        const ACTION: &str = "rename template";
        let mut changes = self.begin(ACTION).await?;
        sqlx::query("DELETE FROM names WHERE template = ?")
            .bind(id.as_str())
            .execute(&mut *changes)
            .await
            .map_err(failed(ACTION))?;
        if let Some(name) = name {
            let done = sqlx::query("INSERT OR IGNORE INTO names (name, template) VALUES (?, ?)")
                .bind(name.as_str())
                .bind(id.as_str())
                .execute(&mut *changes)
                .await
                .map_err(failed(ACTION))?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
        }
        changes.commit().await.map_err(failed(ACTION))?;
        Ok(true)
    }

    /// Sets the visibility of a template made of snapshots.
    pub(crate) async fn set_visibility(
        &self,
        id: &TemplateId,
        visibility: Visibility,
    ) -> Result<(), LedgerError> {
        sqlx::query("UPDATE templates SET public = ?, updated_at = ? WHERE id = ?")
            .bind(visibility.is_public())
            .bind(Micros::now().0)
            .bind(id.as_str())
            .execute(&self.writer)
            .await
            .map_err(failed("set visibility of template"))?;
        Ok(())
    }
}

/// Finds or inserts the template of a build. `None` if the name belongs to a template of the host.
async fn template_for(
    changes: &mut SqliteConnection,
    build: &Build,
    name: Option<&TemplateName>,
) -> Result<Option<TemplateId>, LedgerError> {
    const ACTION: &str = "find template of build";
    if let Some(name) = name {
        let known: Option<(String, bool)> = sqlx::query_as(
            "SELECT template, EXISTS (SELECT 1 FROM templates WHERE id = template) FROM names WHERE name = ?",
        )
        .bind(name.as_str())
        .fetch_optional(&mut *changes)
        .await
        .map_err(failed(ACTION))?;
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
        .map_err(failed(ACTION))?;
    if let Some(name) = name {
        sqlx::query("INSERT INTO names (name, template) VALUES (?, ?)")
            .bind(name.as_str())
            .bind(id.as_str())
            .execute(&mut *changes)
            .await
            .map_err(failed(ACTION))?;
    }
    Ok(Some(id.clone()))
}

async fn put_tag(
    changes: &mut SqliteConnection,
    id: &TemplateId,
    tag: &Tag,
    build: BuildId,
) -> Result<(), LedgerError> {
    const ACTION: &str = "assign tag";
    let now = Micros::now().0;
    sqlx::query(
        "INSERT INTO tags (template, tag, build, created_at) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (template, tag) DO UPDATE SET build = ?3, created_at = ?4",
    )
    .bind(id.as_str())
    .bind(tag.as_str())
    .bind(build.to_string())
    .bind(now)
    .execute(&mut *changes)
    .await
    .map_err(failed(ACTION))?;
    sqlx::query("UPDATE templates SET updated_at = ? WHERE id = ?")
        .bind(now)
        .bind(id.as_str())
        .execute(changes)
        .await
        .map_err(failed(ACTION))?;
    Ok(())
}

/// Deletes builds without a tag, and the template if no build is left. Returns the snapshots of the deleted builds.
async fn delete_untagged(
    changes: &mut SqliteConnection,
    id: &TemplateId,
) -> Result<Vec<SnapshotId>, LedgerError> {
    const ACTION: &str = "delete untagged builds";
    let deleted: Vec<(String, String)> = sqlx::query_as(
        "DELETE FROM builds WHERE template = ?1 AND id NOT IN (SELECT build FROM tags WHERE template = ?1) \
         RETURNING id, snapshot",
    )
    .bind(id.as_str())
    .fetch_all(&mut *changes)
    .await
    .map_err(failed(ACTION))?;
    for sql in [
        "DELETE FROM names WHERE template = ?1 AND EXISTS (SELECT 1 FROM templates WHERE id = ?1) \
         AND NOT EXISTS (SELECT 1 FROM builds WHERE template = ?1)",
        "DELETE FROM templates WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM builds WHERE template = ?1)",
    ] {
        sqlx::query(sql)
            .bind(id.as_str())
            .execute(&mut *changes)
            .await
            .map_err(failed(ACTION))?;
    }
    let snapshots = deleted.iter();
    snapshots
        .map(|(id, snapshot)| parse(snapshot, id, "snapshot"))
        .collect()
}
