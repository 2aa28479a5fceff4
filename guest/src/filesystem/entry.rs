//! Describes files as `EntryInfo` messages.

use std::{
    fs::{self, FileType as UnixType},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use buffa_types::google::protobuf::Timestamp;

use crate::{
    file_metadata,
    messages::filesystem::{EntryInfo, FileType},
    user::AccountNames,
};

/// Describes files. Reads the names of users and groups once.
#[derive(Debug)]
pub(crate) struct EntryReader {
    names: AccountNames,
}

impl EntryReader {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            names: AccountNames::read(root),
        }
    }

    /// Describes the file at `path`, without following a symbolic link.
    pub(crate) fn read(&self, path: &Path) -> io::Result<EntryInfo> {
        let metadata = fs::symlink_metadata(path)?;
        let mut entry = EntryInfo {
            name: path.file_name().map_or_else(
                || "/".to_owned(),
                |name| name.to_string_lossy().into_owned(),
            ),
            r#type: file_type(metadata.file_type()).into(),
            path: path.to_string_lossy().into_owned(),
            size: i64::try_from(metadata.size()).unwrap_or(i64::MAX),
            mode: metadata.mode() & 0o777,
            permissions: format_mode(metadata.file_type(), metadata.mode()),
            owner: self.names.user(metadata.uid()),
            group: self.names.group(metadata.gid()),
            modified_time: Timestamp {
                seconds: metadata.mtime(),
                nanos: i32::try_from(metadata.mtime_nsec()).unwrap_or(0),
                ..Timestamp::default()
            }
            .into(),
            ..EntryInfo::default()
        };
        if metadata.is_symlink() {
            describe_target(path, &mut entry);
        } else if metadata.is_file() || metadata.is_dir() {
            entry.metadata = file_metadata::read(path);
        }
        Ok(entry)
    }
}

/// Describes the target of a symbolic link. A dangling link is described as a link.
fn describe_target(path: &Path, entry: &mut EntryInfo) {
    let resolved = fs::canonicalize(path);
    if let Ok(target) = &resolved
        && let Ok(metadata) = fs::symlink_metadata(target)
    {
        entry.r#type = file_type(metadata.file_type()).into();
        entry.mode = metadata.mode() & 0o777;
    }
    let target = resolved.or_else(|_| {
        let dir = path.parent().unwrap_or(path);
        fs::read_link(path).map(|link| dir.join(link))
    });
    entry.symlink_target = target
        .ok()
        .map(|target| target.to_string_lossy().into_owned());
}

fn file_type(kind: UnixType) -> FileType {
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

/// Formats a file mode like Go's `FileMode.String`, which E2B's clients expect.
fn format_mode(kind: UnixType, mode: u32) -> String {
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
        .filter_map(|(applies, letter)| applies.then_some(letter))
        .collect();
    if text.is_empty() {
        text.push('-');
    }
    for (index, letter) in "rwxrwxrwx".chars().enumerate() {
        text.push(if mode & (0o400 >> index) == 0 {
            '-'
        } else {
            letter
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    fn entry(path: &Path) -> EntryInfo {
        EntryReader::new(Path::new("/")).read(path).unwrap()
    }

    #[test]
    fn modes_are_formatted_like_go() {
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
    fn symlink_has_type_and_mode_of_its_target() {
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
