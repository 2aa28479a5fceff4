//! Looks up users and groups in `/etc/passwd` and `/etc/group`.
//!
//! The files are parsed here because the name service switch of the C library does not work in a static binary.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid};

use crate::sys::Credentials;

/// The most bytes of a file that are read.
const MAX_FILE_LEN: u64 = 1 << 20;

/// A user of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    pub(crate) credentials: Credentials,
}

/// An error looking up a user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// No user has that name.
    #[error("invalid username: '{0}'")]
    Unknown(String),
    /// The files cannot be read.
    #[error("failed to read users of the guest")]
    Read(#[source] io::Error),
}

/// Looks up a user in the files below `root`, which is `/` except in tests.
pub(crate) fn find(root: &Path, name: &str) -> Result<User, UserError> {
    let passwd = read(&root.join("etc/passwd")).map_err(UserError::Read)?;
    let mut user =
        parse_passwd(&passwd, name).ok_or_else(|| UserError::Unknown(name.to_owned()))?;
    match read(&root.join("etc/group")) {
        Ok(group) => user.credentials.groups.extend(parse_groups(&group, name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(UserError::Read(error)),
    }
    Ok(user)
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_LEN)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The names of all users and groups.
#[derive(Debug, Default)]
pub(crate) struct AccountNames {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl AccountNames {
    /// Reads the files below `root`. An unreadable file counts as empty.
    pub(crate) fn read(root: &Path) -> Self {
        let names = |file| parse_names(&read(&root.join(file)).unwrap_or_default());
        Self {
            users: names("etc/passwd"),
            groups: names("etc/group"),
        }
    }

    /// The name of a user, or the ID if it has none.
    pub(crate) fn user(&self, id: u32) -> String {
        name_or_id(&self.users, id)
    }

    /// The name of a group, or the ID if it has none.
    pub(crate) fn group(&self, id: u32) -> String {
        name_or_id(&self.groups, id)
    }
}

fn name_or_id(names: &BTreeMap<u32, String>, id: u32) -> String {
    names.get(&id).cloned().unwrap_or_else(|| id.to_string())
}

/// Parses `name:password:id:...` of users and of groups. Of several names of an ID the first counts.
fn parse_names(text: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) else {
            continue;
        };
        names.entry(id).or_insert_with(|| name.to_owned());
    }
    names
}

/// Finds a user in `name:password:uid:gid:comment:home:shell` lines.
fn parse_passwd(text: &str, name: &str) -> Option<User> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = Uid::from_raw(fields.nth(1)?.parse().ok()?);
        let gid = Gid::from_raw(fields.next()?.parse().ok()?);
        let home = PathBuf::from(fields.nth(1)?);
        let credentials = Credentials {
            uid,
            gid,
            groups: vec![gid],
        };
        Some(User {
            name: name.to_owned(),
            home,
            credentials,
        })
    })
}

/// Finds the groups of `member` in `name:password:gid:member,member` lines.
fn parse_groups<'a>(text: &'a str, member: &'a str) -> impl Iterator<Item = Gid> + 'a {
    text.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields
            .next()?
            .split(',')
            .any(|name| name == member)
            .then(|| Gid::from_raw(gid))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1001:,,,:/home/user:/bin/bash\nbad:x:one::\n";

    #[test]
    fn user_has_ids_home_and_groups() {
        let user = parse_passwd(PASSWD, "user").unwrap();
        assert_eq!(
            (user.credentials.uid.as_raw(), user.credentials.gid.as_raw()),
            (1000, 1001)
        );
        assert_eq!(user.home, Path::new("/home/user"));
        let groups: Vec<_> = parse_groups(
            "sudo:x:27:other,user\nusers:x:100:\ndocker:x:9:users\n",
            "user",
        )
        .collect();
        assert_eq!(groups, [Gid::from_raw(27)]);
    }

    #[test]
    fn malformed_and_missing_users_are_not_found() {
        for name in ["bad", "use", "", "user:x"] {
            assert_eq!(parse_passwd(PASSWD, name), None, "{name:?}");
        }
    }

    #[test]
    fn id_without_a_name_maps_to_itself() {
        let names = AccountNames {
            users: parse_names("root:x:0:0\nother:x:0:1\nbad\nworse:x:y\n"),
            groups: BTreeMap::new(),
        };
        assert_eq!(names.user(0), "root");
        assert_eq!(names.group(0), "0");
        assert_eq!(names.users.len(), 1);
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text: String, name in "[a-z:]{0,3}") {
            prop_assert!(parse_names(&text).len() <= text.lines().count());
            let _user = parse_passwd(&text, &name);
            prop_assert!(parse_groups(&text, &name).count() <= text.lines().count());
        }
    }
}
