//! Paths of unix sockets: links are resolved before they are compared.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use memchr::memmem;

/// An absolute path in which `*` stands for anything within one folder or name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// What comes before the first `*` has its links resolved now; without a `*`, all of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') || text.contains('\0') {
            return Err("absolute path expected behind 'unix:'".into());
        }
        if climbs(Path::new(text)) {
            return Err("a path with '..'".into());
        }
        if text.len() > MOST {
            return Err("the path is too long".into());
        }
        if text.contains("**") {
            return Err("'*' does not cross '/', and '**' does not, either".into());
        }
        let Some(first) = text.find('*') else {
            return Ok(Self(
                resolved_as_far_as_it_is_there(Path::new(text)).into_os_string().into_encoded_bytes(),
            ));
        };
        let fixed = text[..first].rfind('/').map_or(0, |slash| slash + 1);
        let (folder, rest) = text.split_at(fixed);
        let mut path =
            resolved_as_far_as_it_is_there(Path::new(folder)).into_os_string().into_encoded_bytes();
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        path.extend_from_slice(rest.as_bytes());
        Ok(Self(path))
    }

    pub fn covers(&self, path: &Path) -> bool {
        matches(&self.0, path.as_os_str().as_bytes())
    }
}

/// Whether a path has `..` in it.
pub fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// The path without links. What a listener is about to make need not be there yet. An error: a link leads nowhere, or
/// the path is longer than any.
pub fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if path.as_os_str().len() > MOST {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    let leads_nowhere = |part: &&Path| {
        fs::symlink_metadata(part).is_ok_and(|it| it.is_symlink()) && fs::metadata(part).is_err()
    };
    match path.ancestors().find(leads_nowhere) {
        Some(_) => Err(io::ErrorKind::NotFound.into()),
        None => Ok(resolved_as_far_as_it_is_there(&path)),
    }
}

fn resolved_as_far_as_it_is_there(path: &Path) -> PathBuf {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(path), ..) => path,
        (Err(_), Some(folder), Some(name)) => resolved_as_far_as_it_is_there(folder).join(name),
        _ => path.into(),
    }
}

/// `*` matches any bytes but slashes.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let (patterns, names) = (pattern.split(|byte| *byte == b'/'), path.split(|byte| *byte == b'/'));
    patterns.clone().count() == names.clone().count()
        && patterns.zip(names).all(|(pattern, name)| matches_name(pattern, name))
}

/// What lies between two `*` may be looked for from the left: whatever comes later has the more room.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    let Some(mut rest) = rest.strip_suffix(last) else { return false };
    parts.all(|part| match memmem::find(rest, part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// Bytes of a path: what the systems take (PATH_MAX of Linux). Those of sockets are shorter.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_does_not_cross_a_slash() {
        let covers = |pattern, path| matches(pattern, path);
        assert!(covers(b"/run/app/*", b"/run/app/x.sock"));
        assert!(covers(b"/run/*/x.sock", b"/run/app/x.sock"));
        assert!(covers(b"/run/a*.sock", b"/run/a.sock"));
        assert!(covers(b"/run/*-*b*b", b"/run/a-b-bb"));
        assert!(!covers(b"/run/*-*b*b", b"/run/a-b"));
        assert!(!covers(b"/run/a*a", b"/run/a"));
        assert!(!covers(b"/run/app/*", b"/run/app/x/y"));
        assert!(!covers(b"/run/*", b"/run"));
        assert!(!covers(b"/run/app", b"/run/app2"));
    }

    #[test]
    fn many_stars_take_no_time() {
        let name = [b"/".as_slice(), &[b'-'; MOST]].concat();
        assert!(!matches(b"/*-*-*-*-*-*-*-*-*.sock", &name));
    }

    #[test]
    fn paths_that_are_none_are_told() {
        for text in ["", "run/x", "/run/../etc/x"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
