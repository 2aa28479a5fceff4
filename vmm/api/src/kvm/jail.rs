//! Jails of monitors, the host's part: the user and the control groups of each.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use super::cgroup::{Cgroup, Cgroups, Limits};
use crate::{BlankSpec, SpawnError, wire};

/// Users that a host has for its monitors.
const USERS: u32 = 1 << 16;

/// Makes jails.
#[derive(Debug)]
pub(super) struct Jails {
    users: Arc<Users>,
    cgroups: Cgroups,
}

/// The user and the control groups of one monitor. Dropping it after the end of the process releases them.
#[derive(Debug)]
pub(super) struct Jail {
    user: User,
    cgroup: Cgroup,
}

/// The users from `first` on.
#[derive(Debug)]
struct Users {
    first: u32,
    used: Mutex<BTreeSet<u32>>,
}

/// A user that no other monitor of this host process has.
#[derive(Debug)]
struct User {
    id: u32,
    users: Arc<Users>,
}

impl Jails {
    /// Fails, with the remedy, if this process cannot make jails.
    pub(super) fn open(first_user: u32) -> Result<Self, SpawnError> {
        if !rustix::process::geteuid().is_root() {
            return Err(SpawnError::NotRoot);
        }
        Ok(Self {
            users: Arc::new(Users {
                first: first_user,
                used: Mutex::default(),
            }),
            cgroups: Cgroups::open(),
        })
    }

    /// Makes a jail for a machine.
    pub(super) fn create(&self, spec: &BlankSpec) -> io::Result<Jail> {
        Ok(Jail {
            user: self.users.take()?,
            cgroup: self.cgroups.create(Limits::of(spec.vcpus, spec.memory))?,
        })
    }
}

impl Jail {
    /// Returns the jail as a monitor receives it, with the files to attach.
    pub(super) fn to_wire(&self) -> io::Result<(wire::Jail, Vec<File>)> {
        let jail = wire::Jail { user: self.user.id };
        Ok((jail, self.cgroup.open_procs()?))
    }
}

impl Users {
    fn take(self: &Arc<Self>) -> io::Result<User> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..USERS).map_while(|offset| self.first.checked_add(offset));
        let id = free
            .into_iter()
            .find(|id| !used.contains(id))
            .ok_or_else(|| io::Error::other("every user of monitors is taken"))?;
        used.insert(id);
        Ok(User {
            id,
            users: Arc::clone(self),
        })
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let used = self.users.used.lock();
        used.unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_monitors_have_different_users() {
        let users = Arc::new(Users {
            first: 7,
            used: Mutex::default(),
        });
        let (a, b) = (users.take().unwrap(), users.take().unwrap());
        assert_eq!((a.id, b.id), (7, 8));
        drop(a);
        assert_eq!(users.take().unwrap().id, 7);
    }

    #[test]
    fn users_beyond_the_last_id_are_refused() {
        let users = Arc::new(Users {
            first: u32::MAX,
            used: Mutex::default(),
        });
        let _last = users.take().unwrap();
        users.take().unwrap_err();
    }
}
