//! Users of the guest, as its `/etc/passwd` and `/etc/group` have them.
//!
//! Read here and not through the C library, which a static program cannot ask for what is plugged into it.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid};

use crate::sys::Credentials;

/// Most bytes of a file of users that are looked at.
const LONGEST: u64 = 1 << 20;

/// A user of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    pub(crate) credentials: Credentials,
}

/// A user that could not be looked up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// There is none of that name.
    #[error("invalid username: '{0}'")]
    Unknown(String),
    /// The files could not be read.
    #[error("read users of the guest")]
    Read(#[source] io::Error),
}

/// Looks a user up below `root`, which is `/` but in tests.
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
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `name:password:uid:gid:comment:home:shell`
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

/// `name:password:gid:member,member`
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
mod test {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1001:,,,:/home/user:/bin/bash\nbad:x:one::\n";

    #[test]
    fn a_user_has_an_id_a_home_and_groups() {
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
    fn a_broken_or_missing_line_is_no_user() {
        for name in ["bad", "use", "", "user:x"] {
            assert_eq!(parse_passwd(PASSWD, name), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text: String, name in "[a-z:]{0,3}") {
            let _user = parse_passwd(&text, &name);
            prop_assert!(parse_groups(&text, &name).count() <= text.lines().count());
        }
    }
}
