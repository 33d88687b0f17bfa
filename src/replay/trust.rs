//! Whether a program that was found, and not named, may be run: only root and this user can have put it there.
//!
//! Owns the rule for directories that are searched. It must never be asked of a program that the operator names: naming it is the
//! operator's decision.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// A chain of more links leads in a circle.
const LINKS_MAX: u32 = 40;

/// A path that others can change, and how.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}", path.display())]
pub struct Distrust {
    /// A file, a directory on the way to it, or a link there.
    pub path: PathBuf,
    /// The way in which others can change it, as the rest of a sentence.
    pub why: String,
}

/// Follows a path from the root directory, link by link, and looks at the owner and the mode of everything on the way.
/// The real path, if only root and this user can change any part of it.
///
/// # Errors
/// The first file, directory or link that others can change.
pub fn trusted(path: &Path) -> Result<PathBuf, Distrust> {
    let me = Me::here();
    let fails =
        |path: &Path, error: &io::Error| Distrust { path: path.to_owned(), why: format!("can't be read: {error}") };
    let mut at = PathBuf::from("/");
    me.check(&at, &fs::symlink_metadata(&at).map_err(|error| fails(&at, &error))?)?;
    let mut rest: Vec<OsString> = parts(path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let facts = fs::symlink_metadata(&next).map_err(|error| fails(&next, &error))?;
        if facts.is_symlink() {
            // Every user may read through a link and none can write to one, so its mode says nothing.
            me.check_owner(&next, &facts)?;
            links += 1;
            if links > LINKS_MAX {
                return Err(Distrust { path: next, why: "is a link that leads in a circle".to_owned() });
            }
            let to = fs::read_link(&next).map_err(|error| fails(&next, &error))?;
            if to.is_absolute() {
                at = PathBuf::from("/");
            }
            rest.extend(parts(&to));
        } else {
            me.check(&next, &facts)?;
            at = next;
        }
    }
    Ok(at)
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

/// This user, and the group that has no other member.
struct Me {
    user: u32,
    own_group: Option<u32>,
}

impl Me {
    fn here() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let is_own = is_private(user, group, &read("/etc/passwd"), &read("/etc/group"));
        Self { user, own_group: is_own.then_some(group) }
    }

    fn check_owner(&self, path: &Path, facts: &Metadata) -> Result<(), Distrust> {
        let owner = facts.uid();
        if owner == 0 || owner == self.user {
            return Ok(());
        }
        let why = format!("belongs to user {owner}, who is neither root nor the user {} that runs this", self.user);
        Err(Distrust { path: path.to_owned(), why })
    }

    fn check(&self, path: &Path, facts: &Metadata) -> Result<(), Distrust> {
        self.check_owner(path, facts)?;
        let distrust = |why: String| Err(Distrust { path: path.to_owned(), why });
        let mode = facts.mode();
        // Not even with the sticky bit, as /tmp has it: it protects what is there, and everybody may add to it.
        if mode & 0o002 != 0 {
            return distrust(format!("can be written by everybody (mode {:04o})", mode & 0o7777));
        }
        if mode & 0o020 != 0 {
            if Some(facts.gid()) != self.own_group {
                return distrust(format!("can be written by group {} (mode {:04o})", facts.gid(), mode & 0o7777));
            }
            // Its entries hide behind the mode of the group.
            if rustix::fs::lgetxattr(path, "system.posix_acl_access", &mut [0_u8; 0][..]).is_ok() {
                return distrust("has an access control list that lets others write".to_owned());
            }
        }
        Ok(())
    }
}

/// Whether a group has this user as its only member, by the system's own lists. A user who is in none of them, but in a
/// directory service, has no private group that could be told.
fn is_private(user: u32, group: u32, passwd: &str, groups: &str) -> bool {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let users: Vec<Vec<String>> = passwd.lines().map(fields).collect();
    let number = |text: Option<&String>| text.and_then(|text| text.parse::<u32>().ok());
    let Some(name) = users.iter().find(|line| number(line.get(2)) == Some(user)).and_then(|line| line.first()) else {
        return false;
    };
    let is_others = users.iter().any(|line| number(line.get(3)) == Some(group) && number(line.get(2)) != Some(user));
    let listed: Vec<Vec<String>> =
        groups.lines().map(fields).filter(|line| number(line.get(2)) == Some(group)).collect();
    let has_others = |line: &Vec<String>| {
        line.get(3).is_none_or(|members| members.split(',').any(|member| !member.is_empty() && member != name))
    };
    !is_others && !listed.is_empty() && !listed.iter().any(has_others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// The rule alone, on facts of this user's own files.
    #[test]
    fn who_can_write_decides() {
        let dir = tempfile::tempdir().expect("a directory");
        let me = Me { user: rustix::process::geteuid().as_raw(), own_group: Some(rustix::process::getegid().as_raw()) };
        let stranger = Me { user: 4_000_000_000, own_group: None };
        let is_root = me.user == 0;
        for (mode, says) in [
            (0o700, None),
            (0o755, None),
            (0o775, None),
            (0o757, Some("by everybody (mode 0757)")),
            (0o1777, Some("by everybody (mode 1777)")),
            (0o777, Some("by everybody (mode 0777)")),
        ] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("chmod");
            let facts = fs::symlink_metadata(dir.path()).expect("stat");
            let found = me.check(dir.path(), &facts);
            assert_eq!(found.is_ok(), says.is_none(), "{mode:o}");
            if let (Err(error), Some(says)) = (found, says) {
                assert_eq!(error.path, dir.path());
                assert!(error.why.ends_with(says), "{error}");
            }
            // Another user's, unless it is root's.
            let error = stranger.check(dir.path(), &facts);
            assert_eq!(error.is_err(), !is_root || mode & 0o022 != 0, "{mode:o}");
        }
        let foreign = Me { own_group: None, ..me };
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o775)).expect("chmod");
        let facts = fs::symlink_metadata(dir.path()).expect("stat");
        assert!(foreign.check(dir.path(), &facts).expect_err("a group").why.contains("by group"));
    }

    #[test]
    fn a_private_group_has_one_user() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nother:x:1001:1001::/:/bin/sh\n";
        for (groups, passwd, is) in [
            ("node:x:1000:\n", passwd.to_owned(), true),
            ("node:x:1000:node\n", passwd.to_owned(), true),
            ("node:x:1000:node,other\n", passwd.to_owned(), false),
            ("node:x:1000:\n", format!("{passwd}third:x:1002:1000::/:/bin/sh\n"), false),
            ("node:x:1000:\nalias:x:1000:other\n", passwd.to_owned(), false),
            ("other:x:1001:\n", passwd.to_owned(), false),
            ("", passwd.to_owned(), false),
            ("node:x:1000\n", passwd.to_owned(), false),
            ("node:x:1000:\n", "root:x:0:0:root:/root:/bin/sh\n".to_owned(), false),
        ] {
            assert_eq!(is_private(1_000, 1_000, &passwd, groups), is, "{groups:?} {passwd:?}");
        }
    }

    /// Whatever stands above this directory, what is wrong below it is named.
    #[test]
    fn the_way_is_looked_at_link_by_link() {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        fs::create_dir_all(&target).expect("a directory");
        let target = target.canonicalize().expect("a directory");
        let dir = tempfile::Builder::new().prefix("trust-").tempdir_in(&target).expect("a directory");
        let above = trusted(dir.path());
        let path = |name: &str| dir.path().join(name);
        for name in ["open", "closed", "closed/in"] {
            fs::create_dir(path(name)).expect("make");
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o1777)).expect("chmod");
        fs::write(path("closed/in/file"), "").expect("write");
        fs::write(path("open/file"), "").expect("write");
        symlink("../closed/in", path("open/to-closed")).expect("link");
        symlink("../open/file", path("closed/to-open")).expect("link");
        symlink(path("closed/in/file"), path("closed/absolute")).expect("link");
        symlink("circle", path("circle")).expect("link");
        for (name, leads_to) in [
            ("closed/in/file", Ok("closed/in/file")),
            ("closed/absolute", Ok("closed/in/file")),
            ("closed/in/../in/file", Ok("closed/in/file")),
            ("open/file", Err("open")),
            ("open/to-closed/file", Err("open")),
            ("closed/to-open", Err("open")),
            ("circle", Err("circle")),
            ("closed/nothing", Err("closed/nothing")),
        ] {
            match (trusted(&path(name)), leads_to, &above) {
                (found, _, Err(above)) => assert_eq!(found.as_ref(), Err(above), "{name}"),
                (found, Ok(to), Ok(_)) => assert_eq!(found, Ok(path(to)), "{name}"),
                (found, Err(at), Ok(_)) => assert_eq!(found.expect_err(name).path, path(at), "{name}"),
            }
        }
    }
}
