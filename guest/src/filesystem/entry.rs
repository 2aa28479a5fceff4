//! What a caller is told of a file.

use std::{
    fs::{self, FileType as UnixType, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use buffa_types::google::protobuf::Timestamp;

use crate::{
    messages::filesystem::{EntryInfo, FileType},
    metadata,
    user::Names,
};

/// Describes files, with the names of their owners read once.
#[derive(Debug)]
pub(super) struct Entries {
    names: Names,
}

impl Entries {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            names: Names::read(root),
        }
    }

    /// The entry at `path`, which is not followed.
    pub(super) fn entry(&self, path: &Path) -> io::Result<EntryInfo> {
        let found = fs::symlink_metadata(path)?;
        let mut entry = EntryInfo {
            name: path.file_name().map_or_else(
                || "/".to_owned(),
                |name| name.to_string_lossy().into_owned(),
            ),
            r#type: kind(found.file_type()).into(),
            path: path.to_string_lossy().into_owned(),
            size: i64::try_from(found.size()).unwrap_or(i64::MAX),
            mode: found.mode() & 0o777,
            permissions: permissions(&found),
            owner: self.names.user(found.uid()),
            group: self.names.group(found.gid()),
            modified_time: Timestamp {
                seconds: found.mtime(),
                nanos: i32::try_from(found.mtime_nsec()).unwrap_or(0),
                ..Timestamp::default()
            }
            .into(),
            ..EntryInfo::default()
        };
        if found.is_symlink() {
            follow(path, &mut entry);
        } else if found.is_file() || found.is_dir() {
            entry.metadata = metadata::of_path(path);
        }
        Ok(entry)
    }
}

/// Says of a symbolic link what its target is; one that leads nowhere stays a link.
fn follow(path: &Path, entry: &mut EntryInfo) {
    let resolved = fs::canonicalize(path);
    if let Ok(target) = &resolved
        && let Ok(found) = fs::symlink_metadata(target)
    {
        entry.r#type = kind(found.file_type()).into();
        entry.mode = found.mode() & 0o777;
    }
    let target = resolved.or_else(|_| {
        let beside = path.parent().unwrap_or(path);
        fs::read_link(path).map(|link| beside.join(link))
    });
    entry.symlink_target = target
        .ok()
        .map(|target| target.to_string_lossy().into_owned());
}

fn kind(kind: UnixType) -> FileType {
    if kind.is_file() {
        FileType::FILE_TYPE_FILE
    } else if kind.is_dir() {
        FileType::FILE_TYPE_DIRECTORY
    } else if kind.is_symlink() {
        FileType::FILE_TYPE_SYMLINK
    } else {
        FileType::FILE_TYPE_UNSPECIFIED
    }
}

/// A mode in the letters of Go: what it is, what is special about it, and who may do what.
fn permissions(found: &Metadata) -> String {
    letters(found.file_type(), found.mode())
}

fn letters(kind: UnixType, mode: u32) -> String {
    let special = [
        (kind.is_dir(), "d"),
        (kind.is_symlink(), "L"),
        (kind.is_block_device() || kind.is_char_device(), "D"),
        (kind.is_fifo(), "p"),
        (kind.is_socket(), "S"),
        (mode & 0o4000 != 0, "u"),
        (mode & 0o2000 != 0, "g"),
        (kind.is_char_device(), "c"),
        (mode & 0o1000 != 0, "t"),
    ];
    let mut text: String = special
        .into_iter()
        .filter_map(|(is, letter)| is.then_some(letter))
        .collect();
    if text.is_empty() {
        text.push('-');
    }
    for (at, letter) in "rwxrwxrwx".chars().enumerate() {
        text.push(if mode & (0o400 >> at) == 0 {
            '-'
        } else {
            letter
        });
    }
    text
}

#[cfg(test)]
mod test {
    use std::{
        fs::{File, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    fn entry(path: &Path) -> EntryInfo {
        Entries::new(Path::new("/")).entry(path).unwrap()
    }

    #[test]
    fn modes_are_written_as_go_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        File::create(&file).unwrap();
        for (mode, letters) in [
            (0o644, "-rw-r--r--"),
            (0o4755, "urwxr-xr-x"),
            (0o6000, "ug---------"),
            (0o1777, "trwxrwxrwx"),
        ] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(entry(&file).permissions, letters);
            assert_eq!(entry(&file).mode, mode & 0o777);
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(entry(dir.path()).permissions, "drwxr-xr-x");
        assert_eq!(entry(Path::new("/dev/null")).permissions, "Dcrw-rw-rw-");
    }

    #[test]
    fn a_link_is_described_by_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(dir.join("real")).unwrap();
        fs::set_permissions(dir.join("real"), Permissions::from_mode(0o711)).unwrap();
        symlink("real", dir.join("first")).unwrap();
        symlink("first", dir.join("second")).unwrap();
        let link = entry(&dir.join("second"));
        assert_eq!(link.r#type, FileType::FILE_TYPE_DIRECTORY);
        assert_eq!(
            (link.mode, link.permissions.as_str()),
            (0o711, "Lrwxrwxrwx")
        );
        assert_eq!(
            link.symlink_target,
            Some(dir.join("real").display().to_string())
        );

        symlink("nowhere", dir.join("broken")).unwrap();
        let broken = entry(&dir.join("broken"));
        assert_eq!(broken.r#type, FileType::FILE_TYPE_SYMLINK);
        assert_eq!(
            broken.symlink_target,
            Some(dir.join("nowhere").display().to_string())
        );
    }
}
